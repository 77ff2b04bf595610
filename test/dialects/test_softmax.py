"""Softmax, log-sum-exp and cross entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value, compiled

from mgec.dialects.mge.builder import Call, ReferenceBuilder
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.rules import gradient
from mgec.dialects.mge.softmax import (
    BinaryCrossEntropyWithLogitsOp,
    CrossEntropyOp,
    LogSoftmaxOp,
    LogsumexpOp,
    SoftmaxOp,
)
from mgec.dialects.mge.spec import (
    FLOAT32,
    FLOAT64,
    FLOATS,
    INT8,
    INT32,
    INT64,
    UINT8,
    TensorSpec,
)
from mgec.errors import ArgumentError, AxisError, DTypeError, ShapeError

INF, NAN = np.inf, np.nan


def data(shape: tuple[int, ...], dtype: Any = FLOAT32, seed: int = 0) -> np.ndarray[Any, Any]:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def labels(shape: tuple[int, ...], count: int, dtype: Any = INT32) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, count, shape).astype(dtype)


SHAPES: list[tuple[tuple[int, ...], int]] = [
    ((7,), 0), ((3, 17), 1), ((3, 17), 0), ((2, 5, 3), 1), ((4, 1), 1), ((0, 4), 1),
]  # fmt: skip


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_softmax(op: str, shape: tuple[int, ...], axis: int) -> None:
    check_value(op, [data(shape)], {"axis": axis}, ulps=16)
    check_gradient(op, [data(shape)], {"axis": axis})


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    ("shape", "axes"), [((7,), (0,)), ((3, 5), (1,)), ((2, 3, 4), (0, 2)), ((2, 3), ())], ids=str
)
def test_logsumexp(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> None:
    attrs = {"axes": axes, "keepdims": keepdims}
    check_value("logsumexp", [data(shape)], attrs, ulps=8)
    check_gradient("logsumexp", [data(shape)], attrs)


@pytest.mark.parametrize("smooth", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_cross_entropy(shape: tuple[int, ...], axis: int, smooth: float) -> None:
    y = labels(shape[:axis] + shape[axis + 1 :], shape[axis])
    attrs = {"axis": axis, "label_smooth": smooth}
    x = np.abs(data(shape)) if shape[axis] > 1 else np.zeros(shape, np.float32)
    check_value("cross_entropy", [x, y], attrs, ulps=16)
    check_gradient("cross_entropy", [data(shape), y], attrs)


@pytest.mark.parametrize("shapes", [((3, 5), (3, 5)), ((3, 5), (5,)), ((), ()), ((0, 2), (0, 2))])
def test_binary_cross_entropy(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    y = np.random.default_rng(2).random(shapes[1]).astype(np.float32)
    arrays = [data(shapes[0]), y]
    check_value("binary_cross_entropy_with_logits", arrays, ulps=8)
    check_gradient("binary_cross_entropy_with_logits", arrays)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_dtypes(dtype: Any) -> None:
    x = data((3, 17), dtype)
    check_value("softmax", [x], {"axis": 1}, ulps=16)
    check_value("log_softmax", [x], {"axis": 1}, ulps=16)
    check_value("logsumexp", [x], {"axes": (1,)}, ulps=8)
    check_value("cross_entropy", [x, labels((3,), 17)], {"label_smooth": 0.1}, ulps=16)
    y = np.abs(data((3, 17), dtype)) / 10
    check_value("binary_cross_entropy_with_logits", [x, y.astype(dtype)], ulps=16)


@pytest.mark.parametrize("dtype", [INT8, UINT8, INT64], ids=lambda d: d.name)
def test_label_dtypes(dtype: Any) -> None:
    # 300 classes do not fit the narrow dtypes; their labels must not wrap around.
    check_value("cross_entropy", [data((4, 300)), labels((4,), 100, dtype)], ulps=16)


ROWS = {
    "large": [1e4, -1e4, 9.9e3],
    "huge": [3e38, -3e38, 0],
    "some -inf": [-INF, 0, 1],
    "all -inf": [-INF, -INF, -INF],
    "+inf": [INF, 0, 1],
    "nan": [NAN, 0, 1],
    "nan and inf": [NAN, INF, -INF],
}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_extremes(row: str) -> None:
    x = np.array([ROWS[row]], np.float32)
    check_value("softmax", [x], {"axis": 1})
    check_value("log_softmax", [x], {"axis": 1})
    check_value("logsumexp", [x], {"axes": (1,)})
    check_value("cross_entropy", [x, np.array([2])])


def test_log_softmax_far_down() -> None:
    x = np.array([[1e4, -1e4, 9.9e3], [-INF, 0, 1], [NAN, 0, 1]], np.float32)
    check_value("log_softmax", [x], {"axis": 1})


def test_meaning_of_infinite_rows() -> None:
    rows = np.array([[-INF, -INF], [INF, 0]], np.float32)
    (out,) = evaluate(LogsumexpOp, [rows], {"axes": (1,)})
    np.testing.assert_array_equal(out, [-INF, INF])
    assert np.isnan(evaluate(SoftmaxOp, [rows], {"axis": 1})[0]).all()
    assert np.isnan(evaluate(LogSoftmaxOp, [rows], {"axis": 1})[0]).all()


def grad(name: str, arrays: list[Any], attrs: dict[str, Any], d_out: Any) -> Any:
    op = op_class(f"mge.{name}")
    outputs = evaluate(op, arrays, attrs)
    specs = tuple(TensorSpec(a.shape, a.dtype) for a in arrays)
    call = Call(
        op=op,
        inputs=tuple(arrays),
        outputs=outputs,
        attrs=op.complete_attrs(attrs),
        specs=specs,
        output_specs=tuple(TensorSpec(o.shape, o.dtype) for o in outputs),
        needs=tuple(a.dtype.kind == "f" for a in arrays),
    )
    return gradient[op](ReferenceBuilder(), call, d_out)[0]


def test_gradients_of_extreme_rows() -> None:
    x = np.array([[1e4, -1e4, 0], [-INF, 0, 0]], np.float32)
    ones = np.ones(2, np.float32)
    got = grad("cross_entropy", [x, np.array([0, 1])], {}, ones)
    np.testing.assert_array_equal(got, [[0, 0, 0], [0, -0.5, 0.5]])
    got = grad("logsumexp", [x], {"axes": (1,)}, ones)
    np.testing.assert_allclose(got, [[1, 0, 0], [0, 0.5, 0.5]], rtol=1e-6)
    rows = np.full((1, 3), -INF, np.float32)
    got = grad("logsumexp", [rows], {"axes": (1,)}, ones[:1])
    np.testing.assert_array_equal(got, np.zeros((1, 3)))


def test_a_label_of_no_class_does_no_harm() -> None:
    (loss,) = compiled("cross_entropy", [data((3, 4)), np.array([4, -1, 2**40])])
    assert np.isfinite(loss).all()


def test_far_logits_lose_nothing() -> None:
    x = np.array([[10000, 10001]], np.float32)
    (loss,) = compiled("cross_entropy", [x, np.array([1])])
    np.testing.assert_allclose(loss, np.log1p(np.exp(-1)), rtol=1e-6)


F = TensorSpec((2, 3), FLOAT32)
I2 = TensorSpec((2,), INT32)
ERRORS: list[tuple[Any, list[TensorSpec], dict[str, Any], type[Exception], str]] = [
    (SoftmaxOp, [F], {"axis": 2}, AxisError, "softmax: axis 2 is out of range for rank 2"),
    (SoftmaxOp, [F], {"axis": -1}, AxisError, "softmax: axis -1 is out of range for rank 2"),
    (SoftmaxOp, [TensorSpec((2, 0), FLOAT32)], {"axis": 1}, ShapeError,
     "softmax: axis 1 has size 0 but the result needs at least one element"),
    (SoftmaxOp, [I2], {"axis": 0}, DTypeError,
     "softmax: inp has dtype int32, which is not supported"),
    (LogSoftmaxOp, [F], {"axis": 2}, AxisError, "log_softmax: axis 2 is out of range for rank 2"),
    (LogsumexpOp, [F], {"axes": (0, 0)}, AxisError, "logsumexp: axes (0, 0) repeat an axis"),
    (CrossEntropyOp, [F, I2], {"axis": 2}, AxisError,
     "cross_entropy: axis 2 is out of range for rank 2"),
    (CrossEntropyOp, [F, TensorSpec((3,), INT32)], {}, ShapeError,
     "cross_entropy: labels have shape [3] but logits without axis 1 have [2]"),
    (CrossEntropyOp, [F, F], {}, DTypeError,
     "cross_entropy: labels has dtype float32, which is not supported"),
    (CrossEntropyOp, [I2, I2], {}, DTypeError,
     "cross_entropy: logits has dtype int32, which is not supported"),
    (CrossEntropyOp, [F, I2], {"label_smooth": 1.5}, ArgumentError,
     "cross_entropy: label_smooth is 1.5 but must be between 0 and 1"),
    (BinaryCrossEntropyWithLogitsOp, [F, TensorSpec((2, 3), FLOAT64)], {}, DTypeError,
     "binary_cross_entropy_with_logits: logits is float32 but labels is float64"),
    (BinaryCrossEntropyWithLogitsOp, [F, TensorSpec((2,), FLOAT32)], {}, ShapeError,
     "binary_cross_entropy_with_logits: shapes (2, 3) and (2,) do not broadcast: "
     "sizes 3 and 2 differ on axis -1"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "specs", "attrs", "kind", "headline"), ERRORS)
def test_errors(op: Any, specs: Any, attrs: Any, kind: Any, headline: str) -> None:
    with pytest.raises(kind) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline


def test_round_trip() -> None:
    check_round_trip("softmax", [F], {"axis": 1})
    check_round_trip("log_softmax", [F], {"axis": 0})
    check_round_trip("logsumexp", [F], {"axes": (0, 1), "keepdims": True})
    check_round_trip("cross_entropy", [F, I2], {"label_smooth": 0.1})
    check_round_trip("binary_cross_entropy_with_logits", [F, F])
