"""Reductions, arg-reductions and cumulative sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import assert_close, check_gradient, check_round_trip, check_value, compiled

from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOATS,
    INT8,
    INT32,
    INT64,
    INTEGERS,
    UINT8,
    TensorSpec,
    is_float,
)
from mgec.errors import AxisError, DTypeError, MgecError, ShapeError

FOLDS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")
SHAPES_AND_AXES = [
    ((), ()),
    ((7,), (0,)),
    ((1,), (0,)),
    ((3, 5), ()),
    ((3, 5), (0,)),
    ((3, 5), (1,)),
    ((3, 5), (1, 0)),
    ((5, 1), (0,)),
    ((2, 3, 5), (1,)),
    ((2, 3, 5), (0, 2)),
    ((2, 1, 3, 5), (1, 3)),
    ((2, 4, 3, 5), (0, 2, 3)),
    ((0, 3), (1,)),
    ((2, 0, 3), (0,)),
]


def data(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if dtype == BOOL:
        return rng.random(shape) > 0.4
    if not is_float(dtype):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return rng.uniform(0.5, 1.5, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "axes"), SHAPES_AND_AXES)
@pytest.mark.parametrize("name", FOLDS)
def test_fold_shapes(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = data(shape, FLOAT32)
    count = int(np.prod([shape[i] for i in axes]))
    for keepdims in (False, True):
        attrs = {"axes": axes, "keepdims": keepdims}
        check_value(name, [x], attrs, reduction=count, dynamic=[True])
    check_value(name, [x], attrs, reduction=count, dynamic=[False])


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
@pytest.mark.parametrize("name", FOLDS)
def test_fold_dtypes(name: str, dtype: Any) -> None:
    for shape in ((4, 9), (1000, 3)):
        x = data(shape, dtype)
        if name == "reduce_prod" and shape[0] > 9:
            x[5:] = 1
        check_value(name, [x], {"axes": (0,)}, reduction=shape[0], dynamic=[True])


def test_sum_and_product_over_nothing() -> None:
    x = np.zeros((3, 0), np.float32)
    for name, value in (("reduce_sum", 0), ("reduce_prod", 1)):
        for dynamic in (False, True):
            (y,) = compiled(name, [x], {"axes": (1,)}, dynamic=dynamic)
            np.testing.assert_array_equal(y, np.full(3, value, np.float32))
    (y,) = compiled("reduce_mean", [x], {"axes": (1,)})
    assert np.isnan(y).all()


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_narrow_floats_accumulate_in_float32(dtype: Any) -> None:
    # In float16 the sum would stick at 2048, in bfloat16 at 256.
    ones = np.ones(5000, dtype)
    (total,) = compiled("reduce_sum", [ones], {"axes": (0,)})
    assert float(total) == float(np.asarray(5000, dtype))
    # The sum of these is beyond float16, their mean is not.
    large = np.full(100, 40000, dtype)
    (mean,) = compiled("reduce_mean", [large], {"axes": (0,)})
    assert float(mean) == float(large[0])


@pytest.mark.parametrize("name", ["reduce_max", "reduce_min", "argmax", "argmin"])
def test_nan_wins(name: str) -> None:
    nan, inf = np.nan, np.inf
    x = np.array([[1, nan, 3, nan], [nan, 1, 2, 3], [inf, 5, -inf, 2], [-inf] * 4], np.float32)
    attrs = {"axis": 1} if name.startswith("arg") else {"axes": (1,)}
    check_value(name, [x], attrs)
    check_value(name, [x.T.copy()], attrs)


def test_infinities_and_denormals_in_a_sum() -> None:
    tiny = np.float32(1e-45)
    x = np.array([[np.inf, 1], [np.inf, -np.inf], [tiny, tiny], [-0.0, -0.0]], np.float32)
    check_value("reduce_sum", [x], {"axes": (1,)})


@pytest.mark.parametrize("name", ["reduce_all", "reduce_any"])
def test_logical(name: str) -> None:
    for shape, axes in (((3, 5), (1,)), ((0, 3), (0,)), ((), ()), ((2, 3, 4), (0, 2))):
        for keepdims in (False, True):
            check_value(name, [data(shape, BOOL)], {"axes": axes, "keepdims": keepdims})
    check_value(name, [np.ones((4, 2), bool)], {"axes": (0,)})
    check_value(name, [np.zeros((4, 2), bool)], {"axes": (0,)})


def test_mean() -> None:
    for shape, axes in SHAPES_AND_AXES[:6]:
        count = int(np.prod([shape[i] for i in axes]))
        check_value("reduce_mean", [data(shape, FLOAT32)], {"axes": axes}, reduction=count)
    for dtype in FLOATS:
        attrs = {"axes": (0,), "keepdims": True}
        check_value("reduce_mean", [data((9, 2), dtype)], attrs, reduction=9)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_arg(name: str) -> None:
    for shape, axis in (
        ((7,), 0),
        ((3, 5), 0),
        ((3, 5), 1),
        ((2, 3, 5), 1),
        ((0, 3), 1),
        ((4, 1), 1),
    ):
        for keepdims in (False, True):
            attrs = {"axis": axis, "keepdims": keepdims}
            check_value(name, [data(shape, FLOAT32)], attrs, dynamic=[True])
    for dtype in (*FLOATS, *INTEGERS):
        check_value(name, [data((3, 11), dtype)], {"axis": 1}, dynamic=[True])
    ties = np.array([[2, 1, 2, 1], [0.0, -0.0, 0, 0]], np.float32)
    check_value(name, [ties], {"axis": 1})


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(exclusive: bool, reverse: bool) -> None:
    for shape, axis in (
        ((7,), 0),
        ((3, 5), 0),
        ((3, 5), 1),
        ((2, 3, 4), 1),
        ((2, 0), 1),
        ((1, 3), 0),
    ):
        attrs = {"axis": axis, "exclusive": exclusive, "reverse": reverse}
        check_value("cumsum", [data(shape, FLOAT32)], attrs, reduction=5, dynamic=[True])
        check_gradient("cumsum", [data(shape, FLOAT32)], attrs)
    check_value("cumsum", [data((3, 4), FLOAT32)], attrs, reduction=4, dynamic=[False])


def test_cumsum_dtypes() -> None:
    for dtype in (*FLOATS, *INTEGERS):
        check_value("cumsum", [data((40,), dtype)], {"axis": 0}, reduction=40, dynamic=[True])
    (y,) = compiled("cumsum", [np.ones(3000, np.float16)], {"axis": 0})
    assert y[-1] == 3000  # would stick at 2048 in float16


@pytest.mark.parametrize("name", [*FOLDS, "reduce_mean"])
def test_gradients(name: str) -> None:
    for shape, axes in SHAPES_AND_AXES[:12]:
        for keepdims in (False, True):
            check_gradient(name, [data(shape, FLOAT32)], {"axes": axes, "keepdims": keepdims})


def gradient_of(name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The gradient of an op that reduces axis 0, for d_out of ones."""
    from mgec.dialects.mge.autodiff import RecordingBuilder, pullback
    from mgec.dialects.mge.builder import ReferenceBuilder

    b = ReferenceBuilder()
    recorder = RecordingBuilder(b)
    y = getattr(recorder, name)(x, axes=(0,))
    (grad,) = pullback(b, recorder.entries, [(y, np.ones_like(y))], [x])
    assert grad is not None
    return grad


def test_gradient_of_a_product_with_zeros() -> None:
    for x, expected in (
        ([2.0, 0.0, 5.0], [0, 10, 0]),
        ([0.0, 0.0, 5.0], [0, 0, 0]),
        ([2.0, 3.0, 5.0], [15, 10, 6]),
    ):
        np.testing.assert_allclose(gradient_of("reduce_prod", np.array(x)), expected)
    check_gradient("reduce_prod", [np.array([[0.0, 2], [3, 4], [5, 0]])], {"axes": (0,)})


def test_ties_share_the_gradient_of_an_extremum() -> None:
    x = np.array([3.0, 1.0, 3.0, 1.0, 2.0])
    np.testing.assert_array_equal(gradient_of("reduce_max", x), [0.5, 0, 0.5, 0, 0])
    np.testing.assert_array_equal(gradient_of("reduce_min", x), [0, 0.5, 0, 0.5, 0])
    many = gradient_of("reduce_max", np.ones(4000, np.float16))
    assert_close(many, np.full(4000, 1 / 4000, np.float16))


LOGICAL = ("reduce_all", "reduce_any")
ROUND_TRIPS = [
    *((name, BOOL if name in LOGICAL else FLOAT32, {"axes": (0, 2), "keepdims": True})
      for name in (*FOLDS, "reduce_mean", *LOGICAL)),
    ("argmax", INT32, {"axis": 1}),
    ("argmin", INT64, {"axis": 1, "keepdims": True}),
    ("cumsum", INT8, {"axis": 0, "exclusive": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "dtype", "attrs"), ROUND_TRIPS)
def test_round_trip(name: str, dtype: Any, attrs: dict[str, Any]) -> None:
    check_round_trip(name, [TensorSpec((2, 3, 4), dtype)], attrs)


X = TensorSpec((2, 3), FLOAT32)
ERRORS: list[tuple[str, TensorSpec, dict[str, Any], type[MgecError], str]] = [
    ("reduce_sum", TensorSpec((2,), BOOL), {"axes": (0,)}, DTypeError,
     "reduce_sum: inp has dtype bool, which is not supported"),
    ("reduce_all", X, {"axes": (0,)}, DTypeError,
     "reduce_all: inp has dtype float32, which is not supported"),
    ("reduce_mean", TensorSpec((2,), INT32), {"axes": (0,)}, DTypeError,
     "reduce_mean: inp has dtype int32, which is not supported"),
    ("reduce_sum", X, {"axes": (2,)}, AxisError, "reduce_sum: axis 2 is out of range for rank 2"),
    ("reduce_sum", X, {"axes": (-1,)}, AxisError, "reduce_sum: axis -1 is out of range for rank 2"),
    ("reduce_mean", X, {"axes": (1, 1)}, AxisError, "reduce_mean: axes (1, 1) repeat an axis"),
    ("reduce_max", TensorSpec((0, 3), FLOAT32), {"axes": (1, 0)}, ShapeError,
     "reduce_max: axis 0 has size 0 but the result needs at least one element"),
    ("argmax", TensorSpec((2, 0), FLOAT32), {"axis": 1}, ShapeError,
     "argmax: axis 1 has size 0 but the result needs at least one element"),
    ("argmin", TensorSpec((), FLOAT32), {"axis": 0}, AxisError,
     "argmin: axis 0 is out of range for rank 0"),
    ("argmin", TensorSpec((2,), BOOL), {"axis": 0}, DTypeError,
     "argmin: inp has dtype bool, which is not supported"),
    ("cumsum", X, {"axis": 2}, AxisError, "cumsum: axis 2 is out of range for rank 2"),
    ("cumsum", TensorSpec((2,), BOOL), {"axis": 0}, DTypeError,
     "cumsum: inp has dtype bool, which is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spec", "attrs", "error", "headline"), ERRORS)
def test_errors(
    name: str, spec: TensorSpec, attrs: dict[str, Any], error: type[MgecError], headline: str
) -> None:
    op = op_class(f"mge.{name}")
    with pytest.raises(error) as caught:
        op.infer_specs([spec], op.complete_attrs(attrs))
    assert caught.value.headline == headline
    assert caught.value.fix


def test_references_keep_the_dtype() -> None:
    (total,) = evaluate(op_class("mge.reduce_sum"), [np.full(3, 200, UINT8)], {"axes": (0,)})
    assert total.dtype == UINT8
    assert int(total) == 600 % 256
