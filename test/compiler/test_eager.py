"""Eager kernels: run-time sizes, few of them, and the bits that a traced graph gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
from mgec import config
from mgec.compiler import eager
from mgec.compiler.eager import eager_kernel
from mgec.core import eager as frontend
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import TensorSpec
from mgec.jit import trace

RNG = np.random.default_rng(0)


def array(*shape: int, dtype: Any = "float32") -> np.ndarray:
    if np.dtype(dtype).kind in "iu":
        return RNG.integers(-50, 50, shape).astype(dtype)
    return RNG.standard_normal(shape).astype(dtype)


# -- few kernels -----------------------------------------------------------------------


def test_new_shapes_make_no_new_code() -> None:
    before = set(eager._kernels)
    for i in range(200):
        m, k, n = 2 + i, 2 + i * 7 % 31, 2 + i * 13 % 57
        x, y = mge.tensor(array(m, k)), mge.tensor(array(k, n))
        product = F.matmul(x, y)
        total = F.sum(product + product, axis=1)
        reference = 2 * (x.numpy().astype("float64") @ y.numpy()).sum(1)
        bound = 4 * n * k * np.finfo("float32").eps * np.abs(x.numpy()).max() * 5
        np.testing.assert_allclose(total.numpy(), reference, rtol=0, atol=bound)
    made = {key: eager._kernels[key] for key in set(eager._kernels) - before}
    templates = sorted(k.template for k in made.values())
    assert len(made) <= 4, templates


def test_a_size_of_one_is_another_kernel() -> None:
    """That is what broadcasts; all other sizes share theirs."""

    def kernel(*shapes: tuple[int, ...], name: str = "maximum", dtype: Any = "float32") -> Any:
        specs = [TensorSpec(s, np.dtype(dtype)) for s in shapes]
        op = op_class(f"mge.{name}")
        return eager_kernel(op, specs, op.infer_specs(specs, {}), {})

    one = kernel((3, 4), (3, 4))
    assert kernel((5, 6), (5, 6)) is one
    assert kernel((3, 4), (1, 4)) is not one
    assert kernel((3, 4), (4,)) is not one
    assert kernel((3, 4), (3, 4), name="minimum") is not one
    assert kernel((3, 4), (3, 4), dtype="int32") is not one


def test_run_time_attributes_are_no_part_of_the_kernel() -> None:
    op = op_class("mge.slice")
    inp = TensorSpec((9, 9), np.dtype("float32"))

    def kernel(starts: tuple[int, ...], stops: tuple[int, ...]) -> Any:
        attrs = op.complete_attrs({"starts": starts, "stops": stops, "steps": (1, 1)})
        return eager_kernel(op, [inp], op.infer_specs([inp], attrs), attrs)

    assert kernel((0, 0), (5, 5)) is kernel((2, 3), (9, 9))


def test_plans_are_kept_by_shape() -> None:
    x = mge.tensor(array(3, 77))
    before = len(frontend._plans)
    for _ in range(3):
        F.exp(x)
    F.exp(mge.tensor(array(3, 77)))
    assert len(frontend._plans) == before + 1
    F.exp(mge.tensor(array(3, 78)))
    assert len(frontend._plans) == before + 2


def test_plans_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontend, "_MAX_PLANS", 10)
    monkeypatch.setattr(frontend, "_plans", {})
    for n in range(1, 40):
        assert float(F.sum(mge.tensor(np.ones(n, "float32")))) == n
        assert len(frontend._plans) <= 10


def test_kernels_come_from_the_disk(empty_cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "_kernels", {})
    monkeypatch.setattr(frontend, "_plans", {})
    x = mge.tensor(array(3, 5))
    first = F.exp(x)
    assert list(empty_cache.rglob("*.kernel"))
    monkeypatch.setattr(eager, "_kernels", {})
    monkeypatch.setattr(frontend, "_plans", {})
    monkeypatch.setattr(eager, "compile_region", None)  # not called again
    second = F.exp(x)
    assert first.numpy().tobytes() == second.numpy().tobytes()


# -- the bits of a traced graph ----------------------------------------------------------

CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "add": (F.add, [array(7, 33), array(7, 33)]),
    "add, broadcast": (F.add, [array(7, 1, 33), array(5, 1)]),
    "div": (F.div, [array(70), array(70)]),
    "pow": (F.pow, [np.abs(array(70)), array(70)]),
    "exp": (F.exp, [array(301)]),
    "log": (F.log, [np.abs(array(301))]),
    "tanh": (F.tanh, [array(301) * 4]),
    "sigmoid": (F.sigmoid, [array(301) * 9]),
    "sin": (F.sin, [array(301) * 9]),
    "floor_div": (F.floor_div, [array(99, dtype="int32"), array(99, dtype="int32")]),
    "gelu": (F.gelu, [array(5, 33)]),
    "silu": (F.silu, [array(5, 33)]),
    "where": (lambda x, y: F.where(x > y, x, y), [array(5, 33), array(5, 33)]),
    "sum": (F.sum, [array(123, 45)]),
    "sum, rows": (lambda x: F.sum(x, axis=1), [array(17, 129)]),
    "sum, columns": (lambda x: F.sum(x, axis=0), [array(129, 17)]),
    "sum, middle": (lambda x: F.sum(x, axis=1), [array(5, 29, 11)]),
    "sum, outer and inner": (lambda x: F.sum(x, axis=(0, 2)), [array(5, 29, 11)]),
    "sum, keepdims": (lambda x: F.sum(x, axis=(1, 2), keepdims=True), [array(5, 29, 11)]),
    "max": (lambda x: F.max(x, axis=1), [array(5, 29)]),
    "prod": (lambda x: F.prod(x, axis=1), [array(5, 29)]),
    "mean": (lambda x: F.mean(x, axis=0), [array(50, 29)]),
    "var": (lambda x: F.var(x, axis=1), [array(50, 29)]),
    "argmax": (lambda x: F.argmax(x, axis=1), [array(50, 29)]),
    "matmul": (F.matmul, [array(13, 57), array(57, 21)]),
    "matmul, long": (F.matmul, [array(3, 1000), array(1000, 70)]),
    "matmul, transposed": (
        lambda x, y: F.matmul(x, y, transpose_a=True, transpose_b=True),
        [array(57, 13), array(21, 57)],
    ),
    "matmul, batched": (F.matmul, [array(4, 13, 57), array(4, 57, 21)]),
    "matmul, vector": (F.matmul, [array(13, 57), array(57)]),
    "conv2d": (
        lambda x, w: F.conv2d(x, w, padding=1, stride=2), [array(2, 3, 9, 9), array(8, 3, 3, 3)],
    ),
    "conv2d, 1 x 1": (F.conv2d, [array(2, 6, 5, 5), array(8, 6, 1, 1)]),
    "conv1d": (
        lambda x, w: F.conv1d(x, w, padding=1, stride=2), [array(2, 3, 9), array(8, 3, 3)],
    ),
    "conv3d": (F.conv3d, [array(2, 3, 4, 5, 6), array(8, 3, 2, 3, 1)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2, 2), [array(2, 3, 8, 8)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2), [array(2, 3, 9, 9)]),
    "softmax": (lambda x: F.softmax(x, axis=1), [array(13, 77)]),
    "softmax, short rows": (lambda x: F.softmax(x, axis=1), [array(13, 5)]),
    "softmax, first axis": (lambda x: F.softmax(x, axis=0), [array(13, 77)]),
    "logsoftmax": (lambda x: F.logsoftmax(x, axis=1), [array(13, 77)]),
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (33,), True, w, b), [array(7, 33), array(33), array(33)],
    ),
    "transpose": (lambda x: F.transpose(x, (2, 0, 1)), [array(3, 4, 5)]),
    "concat": (lambda x, y: F.concat([x, y], axis=1), [array(3, 4), array(3, 5)]),
    "slice": (lambda x: x[1:8:3, ::-1], [array(9, 7)]),
    "pad": (lambda x: F.nn.pad(x, ((1, 2), (0, 3))), [array(3, 4)]),
    "embedding": (
        lambda w: F.embedding(mge.tensor(np.array([3, 1, 1], "int32")), w), [array(5, 7)],
    ),
    "float16": (lambda x, y: x * y, [array(99, dtype="float16"), array(99, dtype="float16")]),
    "bfloat16 sum": (lambda x: F.sum(x, axis=1), [array(9, 99, dtype=ml_dtypes.bfloat16)]),
    "float16 exp": (F.exp, [array(99, dtype="float16")]),
    "int32 sum": (lambda x: F.sum(x, axis=1), [array(9, 99, dtype="int32")]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_eager_and_traced_give_the_same_bits(case: str) -> None:
    """Sizes that are known when a kernel is compiled change no bit of its results."""
    function, arrays = CASES[case]
    tensors = [mge.tensor(a) for a in arrays]
    expected = function(*tensors).numpy()
    # Without fusion: a composite of several ops rounds between them, as eager mode does.
    traced = trace(function, symbolic=True, opt_level=0)
    actual = traced(*tensors).numpy()
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes()


SINGLE = [
    "add", "div", "exp", "log", "tanh", "sum", "sum, rows", "sum, columns", "sum, middle", "max",
    "matmul", "matmul, long", "matmul, batched", "conv2d", "softmax", "logsoftmax", "layer_norm",
]  # fmt: skip


@pytest.mark.parametrize("case", SINGLE)
def test_optimization_changes_no_bit_of_one_op(case: str) -> None:
    function, arrays = CASES[case]
    tensors = [mge.tensor(a) for a in arrays]
    traced = trace(function, symbolic=True)
    assert traced(*tensors).numpy().tobytes() == function(*tensors).numpy().tobytes()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = array(300, 301), array(301, 310)
    expected = None
    for count in (1, threads):
        monkeypatch.setattr(frontend, "_plans", {})
        with config.override(num_threads=count):
            a, b = mge.tensor(x), mge.tensor(y)
            product = F.matmul(a, b)
            results = [product, F.softmax(product, axis=1), F.sum(product, axis=0), F.exp(product)]
        found = [r.numpy().tobytes() for r in results]
        expected = expected or found
    assert found == expected
