"""The templates that move data against the reference rules, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgec.compiler.kernels.movement import Call, MovementBlocks, movement_kernel
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.source import DimRef
from mgec.compiler.targets import host_target
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT32, INT64

RNG = np.random.default_rng(4)


def numbers(shape, dtype=np.float32):
    """Numbers of all sizes and signs; of floats some are NaN and some -0."""
    dtype = np.dtype(dtype)
    if dtype.kind in "biu":
        return RNG.integers(0, 2 if dtype == BOOL else 127, shape).astype(dtype)
    x = np.asarray(RNG.standard_normal(shape)).astype(dtype)
    x[RNG.random(shape) < 0.1] = -0.0
    x[RNG.random(shape) < 0.1] = np.nan
    return x


def check(run, target, op, arrays, attrs, dynamic, blocks=None):
    """The kernel moves what the reference moves."""
    kind = op_class(f"mge.{op}")
    full = kind.complete_attrs(attrs)
    (expected,) = evaluate(kind, arrays, full)
    dtypes = (*(np.dtype(a.dtype) for a in arrays), np.dtype(expected.dtype))
    shapes: list[Any] = [a.shape for a in arrays] + [expected.shape]
    dims: list[int] = []

    def symbol(value):
        dims.append(int(value))
        return DimRef(len(dims) - 1)

    if dynamic:  # sizes of 1 stay known, as in eager mode
        shapes = [tuple(symbol(d) if d != 1 else 1 for d in shape) for shape in shapes]
        for key in kind.runtime_attrs:
            value = full[key]
            full[key] = tuple(map(symbol, value)) if isinstance(value, tuple) else symbol(value)
    call = Call(op, tuple(shapes[:-1]), shapes[-1], dtypes, full, len(dims))
    source = movement_kernel("k", target, call, blocks=blocks)
    (actual,) = run(source, target, arrays, [(expected.shape, expected.dtype)], dims)
    assert actual.tobytes() == np.ascontiguousarray(expected).tobytes()


both = pytest.mark.parametrize("dynamic", [False, True])
SMALL = MovementBlocks(elements=24, rows=2, tile_rows=1, tile_columns=16)
every_block = pytest.mark.parametrize("blocks", [None, SMALL], ids=["", "small"])
every_dtype = pytest.mark.parametrize(
    "dtype", [BOOL, INT8, FLOAT16, BFLOAT16, INT32, FLOAT64], ids=lambda d: d.name
)

TRANSPOSES = [
    ((40, 70), (1, 0)), ((16, 16), (1, 0)), ((3, 1), (1, 0)), ((1, 5), (1, 0)), ((5,), (0,)),
    ((), ()), ((3, 33), (1, 0)), ((33, 3), (1, 0)), ((0, 4), (1, 0)), ((2, 5, 3, 20), (0, 2, 1, 3)),
    ((2, 5, 7, 20), (0, 2, 3, 1)), ((2, 9, 4, 5), (0, 3, 1, 2)), ((4, 6, 18), (2, 1, 0)),
    ((2, 3, 4, 5, 6), (4, 2, 0, 3, 1)), ((2, 3, 4, 17), (1, 0, 3, 2)), ((1, 7, 1, 9), (3, 2, 1, 0)),
]  # fmt: skip


@both
@every_block
@pytest.mark.parametrize(("shape", "perm"), TRANSPOSES)
def test_transpose(run, target, shape, perm, blocks, dynamic):
    check(run, target, "transpose", [numbers(shape)], {"perm": perm}, dynamic, blocks)


@every_dtype
def test_transpose_of_dtypes(run, target, dtype):
    for dynamic in (False, True):
        x = numbers((19, 45), dtype)
        check(run, target, "transpose", [x], {"perm": (1, 0)}, dynamic)


SLICES = [
    # shape, starts, stops, steps
    ((50,), (3,), (41,), (1,)), ((50,), (3,), (50,), (3,)), ((70,), (69,), (-1,), (-1,)),
    ((50,), (44,), (2,), (-4,)), ((9, 40), (2, 5), (8, 39), (2, 1)),
    ((5, 6), (1, 0), (1, 6), (1, 1)),
    ((4, 5, 12), (1, 0, 0), (3, 5, 12), (1, 1, 1)),
    ((4, 5, 12), (3, 4, 11), (-1, 0, 3), (-1, -2, -1)),
    ((), (), (), ()), ((6, 1, 8), (0, 0, 0), (6, 1, 8), (1, 1, 1)),
]  # fmt: skip


@both
@every_block
@pytest.mark.parametrize("case", SLICES)
def test_slice_and_unslice(run, target, case, blocks, dynamic):
    shape, *bounds = case
    attrs = dict(zip(("starts", "stops", "steps"), bounds, strict=True))
    x = numbers(shape)
    check(run, target, "slice", [x], attrs, dynamic, blocks)
    (part,) = evaluate(op_class("mge.slice"), [x], attrs)
    part = part.copy()
    attrs = {"starts": attrs["starts"], "steps": attrs["steps"], "shape": shape}
    check(run, target, "unslice", [part], attrs, dynamic, blocks)


@both
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2), ()])
def test_reverse(run, target, axes, dynamic):
    check(run, target, "reverse", [numbers((3, 4, 37))], {"axes": axes}, dynamic)


PADS = [
    ((20,), (3,), (5,)), ((5, 40), (1, 2), (2, 17)), ((5, 6), (2, 0), (1, 0)),
    ((3, 4, 5), (0, 2, 0), (0, 1, 0)), ((2, 3, 6, 7), (0, 0, 1, 1), (0, 0, 2, 3)), ((), (), ()),
    ((4, 4), (0, 0), (0, 0)),
]  # fmt: skip


@both
@every_block
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("case", PADS)
def test_pad(run, target, case, mode, blocks, dynamic):
    shape, low, high = case
    attrs = {"low": low, "high": high, "value": 1.5, "mode": mode}
    check(run, target, "pad", [numbers(shape)], attrs, dynamic, blocks)


@both
@every_block
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(run, target, axis, blocks, dynamic):
    parts = [numbers(tuple(n if i == axis else s for i, s in enumerate((4, 3, 10))))
             for n in (5, 1, 0, 33)]  # fmt: skip
    check(run, target, "concat", parts, {"axis": axis}, dynamic, blocks)
    check(run, target, "concat", parts[:1], {"axis": axis}, dynamic, blocks)


@both
@pytest.mark.parametrize("index", [np.int8, np.uint8, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count", [(37,), (2, 3), ()])
def test_take(run, target, axis, count, index, dynamic):
    """Negative indices count from the end, and what is out of range stays in memory."""
    low = -30 if np.dtype(index).kind == "i" else 0
    indices = RNG.integers(low, 60, count).astype(index)
    check(run, target, "take", [numbers((20, 9, 33)), indices], {"axis": axis}, dynamic)


@both
@pytest.mark.parametrize("classes", [0, 1, 10, 16, 100])
def test_one_hot(run, target, classes, dynamic):
    indices = RNG.integers(-3, classes + 3, (7, 4)).astype(np.int64)
    indices[0, 0] = 2**32
    for dtype in (FLOAT32, BOOL):
        attrs = {"num_classes": classes, "dtype": dtype}
        check(run, target, "one_hot", [indices], attrs, dynamic)
    attrs = {"num_classes": classes, "dtype": INT64}
    check(run, target, "one_hot", [indices.astype(np.uint8)], attrs, dynamic)


@every_dtype
def test_dtypes(run, target, dtype):
    for dynamic in (False, True):
        x = numbers((6, 77), dtype)
        for starts, stops, steps in (((1, 2), (6, 75), (1, 1)), ((5, 70), (-1, 2), (-2, -3))):
            attrs = {"starts": starts, "stops": stops, "steps": steps}
            check(run, target, "slice", [x], attrs, dynamic)
        attrs = {"low": (1, 3), "high": (0, 70), "value": 1.0, "mode": "constant"}
        check(run, target, "pad", [x], attrs, dynamic)
        check(run, target, "concat", [x, x[:, :9]], {"axis": 1}, dynamic)
        for axis in (0, 1):
            indices = np.array([3, 1, -1, 5], np.int32)
            check(run, target, "take", [x, indices], {"axis": axis}, dynamic)


def test_refuses_other_ops():
    with pytest.raises(NotApplicable, match="sort"):
        movement_kernel("k", host_target(), Call("sort", ((3,),), (3,), (FLOAT32,), {}))
