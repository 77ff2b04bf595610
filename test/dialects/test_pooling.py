"""Maximum and mean of windows, and their gradients."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value

from mgec.dialects.mge.pooling import (
    AvgPoolGradOp,
    AvgPoolOp,
    MaxPoolGradOp,
    MaxPoolOp,
    MaxPoolPickOp,
)
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spatial import Layout
from mgec.dialects.mge.spec import FLOAT32, FLOATS, INT8, INT32, UINT8, TensorSpec
from mgec.errors import ArgumentError, DTypeError, ShapeError

NAN, INF = np.nan, np.inf


def data(shape: tuple[int, ...], dtype: Any = FLOAT32, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "halves": ((2, 3, 6, 8), {"kernel": (2, 2), "stride": (2, 2)}),
    "overlap": ((1, 2, 7, 7), {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}),
    "odd": (
        (2, 1, 9, 7), {"kernel": (3, 2), "stride": (1, 3), "padding": (2, 0, 1, 1)},
    ),
    "gaps": ((1, 2, 8, 9), {"kernel": (2, 1), "stride": (3, 4)}),
    "one window": ((1, 1, 3, 4), {"kernel": (3, 4), "stride": (1, 1)}),
    "one element": ((1, 2, 1, 1), {"kernel": (1, 1), "stride": (1, 1)}),
    "mostly padding": (
        (1, 1, 1, 1), {"kernel": (3, 3), "stride": (1, 1), "padding": (2, 2, 2, 2)},
    ),
    "empty batch": ((0, 2, 4, 4), {"kernel": (2, 2), "stride": (2, 2)}),
    "1-D": ((2, 3, 11), {"kernel": (3,), "stride": (2,), "padding": (1, 2)}),
    "3-D": (
        (1, 2, 5, 6, 4),
        {"kernel": (2, 3, 2), "stride": (2, 1, 3), "padding": (0, 1, 2, 1, 1, 0)},
    ),
    "last": (
        (2, 7, 9, 3),
        {"kernel": (3, 2), "stride": (1, 3), "padding": (2, 0, 1, 1), "channels_last": True},
    ),
    "last 1-D": ((2, 8, 3), {"kernel": (3,), "padding": (1, 0), "channels_last": True}),
    "last 3-D": (
        (1, 5, 4, 5, 2),
        {
            "kernel": (2, 3, 2), "stride": (2, 2, 1), "padding": (1, 0, 1, 2, 0, 1),
            "channels_last": True,
        },
    ),
}  # fmt: skip
OPS = ["max_pool", "max_pool_grad", "max_pool_pick", "avg_pool", "avg_pool_grad"]


def spatial(inp: Any, attrs: dict[str, Any]) -> tuple[int, ...]:
    return Layout(inp.ndim - 2, attrs.get("channels_last", False)).spatial(inp.shape)


def call(op: str, inp: Any, attrs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Operands and attributes of one of the ops."""
    if op in ("max_pool", "avg_pool"):
        return [inp], attrs
    if op == "avg_pool_grad":
        (out,) = evaluate(AvgPoolOp, [inp], attrs)
        return [data(out.shape, inp.dtype, 1)], {**attrs, "input_size": spatial(inp, attrs)}
    (out,) = evaluate(MaxPoolOp, [inp], attrs)
    first = data(out.shape if op == "max_pool_grad" else inp.shape, inp.dtype, 1)
    return [first, inp, out], attrs


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", CASES)
def test_value(op: str, case: str) -> None:
    shape, attrs = CASES[case]
    arrays, attrs = call(op, data(shape), attrs)
    check_value(op, arrays, attrs, reduction=prod(attrs["kernel"]))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", CASES)
def test_gradient(op: str, case: str) -> None:
    shape, attrs = CASES[case]
    arrays, attrs = call(op, data(shape, np.float64), attrs)
    if op in ("max_pool_grad", "max_pool_pick"):
        # Linear in the first operand; the other two only say who won.
        first, inp, out = arrays
        moved = evaluate(MaxPoolGradOp if op.endswith("grad") else MaxPoolPickOp, arrays, attrs)
        (d,) = [data(moved[0].shape, np.float64, 5)]
        other = MaxPoolPickOp if op.endswith("grad") else MaxPoolGradOp
        (back,) = evaluate(other, [d, inp, out], attrs)
        np.testing.assert_allclose((moved[0] * d).sum(), (first * back).sum(), rtol=1e-12)
    else:
        check_gradient(op, arrays, attrs)


@pytest.mark.parametrize("op", ["avg_pool", "avg_pool_grad"])
@pytest.mark.parametrize("case", ["odd", "mostly padding", "1-D", "3-D", "last"])
def test_padding_may_count(op: str, case: str) -> None:
    shape, attrs = CASES[case]
    arrays, attrs = call(op, data(shape), {**attrs, "count_include_pad": True})
    check_value(op, arrays, attrs, reduction=12)
    check_gradient(op, arrays, attrs)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("case", ["odd", "1-D", "3-D"])
def test_channels_last_is_channels_first_transposed(op: str, case: str) -> None:
    shape, attrs = CASES[case]
    arrays, attrs = call(op, data(shape, np.float64), attrs)
    (first,) = evaluate(op_class(f"mge.{op}"), arrays, attrs)
    moved = [np.moveaxis(a, 1, -1) for a in arrays]
    (last,) = evaluate(op_class(f"mge.{op}"), moved, {**attrs, "channels_last": True})
    np.testing.assert_allclose(np.moveaxis(last, -1, 1), first, rtol=1e-12)


def test_no_stride_is_one() -> None:
    inp = data((1, 2, 5, 4))
    (out,) = evaluate(MaxPoolOp, [inp], {"kernel": (2, 2)})
    (same,) = evaluate(MaxPoolOp, [inp], {"kernel": (2, 2), "stride": (1, 1)})
    np.testing.assert_array_equal(out, same)


def test_mean_of_ones() -> None:
    ones = np.ones((1, 1, 3, 3), np.float32)
    attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 0, 1, 0)}
    (out,) = evaluate(AvgPoolOp, [ones], attrs)
    np.testing.assert_array_equal(out, np.ones((1, 1, 2, 2)))
    (out,) = evaluate(AvgPoolOp, [ones], {**attrs, "count_include_pad": True})
    np.testing.assert_array_equal(out[0, 0], [[0.25, 0.5], [0.5, 1]])


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
def test_float_dtypes(op: str, dtype: Any) -> None:
    shape, attrs = CASES["overlap"]
    arrays, attrs = call(op, data(shape, dtype), attrs)
    check_value(op, arrays, attrs, reduction=9, dynamic=(False,))


@pytest.mark.parametrize("dtype", [INT8, INT32, UINT8], ids=lambda d: d.name)
def test_max_of_integers(dtype: Any) -> None:
    shape, attrs = CASES["overlap"]
    check_value("max_pool", [data(shape, dtype)], attrs)


@pytest.mark.parametrize("op", ["max_pool", "max_pool_grad", "max_pool_pick"])
def test_nan_ties_and_infinities(op: str) -> None:
    inp = np.array(
        [[NAN, 1, 2, 2], [3, NAN, 2, 2], [-INF, -INF, INF, 0], [-INF, -INF, INF, INF]], np.float32
    )[None, None]
    for attrs in (CASES["halves"][1], CASES["overlap"][1]):
        arrays, full = call(op, inp, attrs)
        check_value(op, arrays, full)


def test_the_first_of_ties_wins() -> None:
    inp = np.array([[1, 1, 7], [1, 1, NAN], [0, NAN, 3]], np.float32)[None, None]
    attrs = {"kernel": (2, 2), "stride": (1, 1)}
    (out,) = evaluate(MaxPoolOp, [inp], attrs)
    (grad,) = evaluate(MaxPoolGradOp, [np.ones_like(out), inp, out], attrs)
    np.testing.assert_array_equal(grad[0, 0], [[1, 0, 0], [0, 0, 2], [0, 1, 0]])


X, Y = TensorSpec((2, 3, 8, 8), FLOAT32), TensorSpec((2, 3, 4, 4), FLOAT32)
HALF = {"kernel": (2, 2), "stride": (2, 2)}
ERRORS: list[tuple[Any, list[TensorSpec], dict[str, Any], type[Exception], str]] = [
    (MaxPoolOp, [TensorSpec((8, 8), FLOAT32)], HALF, ShapeError,
     "max_pool: inp has rank 2 but needs rank 3, 4 or 5 (N, C, spatial axes)"),
    (MaxPoolOp, [TensorSpec((3, 8, 8), FLOAT32)], HALF, ArgumentError,
     "max_pool1d: kernel has length 2 but needs length 1"),
    (AvgPoolOp, [TensorSpec((8, 8), FLOAT32)], {**HALF, "channels_last": True}, ShapeError,
     "avg_pool: inp has rank 2 but needs rank 3, 4 or 5 (N, spatial axes, C)"),
    (AvgPoolOp, [TensorSpec((2, 8, 1, 3), FLOAT32)], {**HALF, "channels_last": True}, ShapeError,
     "avg_pool2d: kernel covers 2 columns but input has 1, padding included"),
    (MaxPoolOp, [TensorSpec(X.shape, np.dtype(bool))], HALF, DTypeError,
     "max_pool2d: inp has dtype bool, which is not supported"),
    (AvgPoolOp, [TensorSpec(X.shape, INT32)], HALF, DTypeError,
     "avg_pool2d: inp has dtype int32, which is not supported"),
    (MaxPoolOp, [X], {"kernel": (2,), "stride": (2, 2)}, ArgumentError,
     "max_pool2d: kernel has length 1 but needs length 2"),
    (MaxPoolOp, [X], {"kernel": (2, 0), "stride": (2, 2)}, ArgumentError,
     "max_pool2d: kernel is [2, 0] but may not be below 1"),
    (MaxPoolOp, [X], {"kernel": (2, 2), "stride": (0, 2)}, ArgumentError,
     "max_pool2d: stride is [0, 2] but may not be below 1"),
    (MaxPoolOp, [X], {**HALF, "padding": (-1, 0, 0, 0)}, ArgumentError,
     "max_pool2d: padding is [-1, 0, 0, 0] but may not be below 0"),
    (MaxPoolOp, [X], {**HALF, "padding": (0, 0, 2, 0)}, ArgumentError,
     "max_pool2d: padding is [0, 0, 2, 0] but kernel is [2, 2], "
     "so some windows see padding only"),
    (AvgPoolOp, [X], {"kernel": (9, 2), "stride": (2, 2)}, ShapeError,
     "avg_pool2d: kernel covers 9 rows but input has 8, padding included"),
    (AvgPoolOp, [TensorSpec((1, 1, 4, 0), FLOAT32)], HALF, ShapeError,
     "avg_pool2d: input has 0 columns"),
    (MaxPoolGradOp, [X, X, Y], HALF, ShapeError,
     "max_pool2d_grad: d_out has shape [2, 3, 8, 8] but pooling gives [2, 3, 4, 4]"),
    (MaxPoolGradOp, [Y, X, X], HALF, ShapeError,
     "max_pool2d_grad: pooled has shape [2, 3, 8, 8] but pooling gives [2, 3, 4, 4]"),
    (MaxPoolGradOp, [TensorSpec(Y.shape, np.dtype(np.float64)), X, Y], HALF, DTypeError,
     "max_pool2d_grad: d_out is float64 but inp is float32"),
    (MaxPoolPickOp, [Y, X, Y], HALF, ShapeError,
     "max_pool2d_pick: values is float32[2, 3, 4, 4] but inp is float32[2, 3, 8, 8]"),
    (AvgPoolGradOp, [Y], {**HALF, "input_size": (8, 10)}, ShapeError,
     "avg_pool2d_grad: d_out has shape [2, 3, 4, 4] but pooling gives [2, 3, 4, 5]"),
    (AvgPoolGradOp, [Y], {**HALF, "input_size": (8,)}, ArgumentError,
     "avg_pool2d_grad: input_size has length 1 but needs length 2"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "specs", "attrs", "kind", "headline"), ERRORS)
def test_errors(op: Any, specs: Any, attrs: Any, kind: Any, headline: str) -> None:
    with pytest.raises(kind) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline


@pytest.mark.parametrize("op", OPS)
def test_round_trip(op: str) -> None:
    shape, attrs = CASES["odd"]
    arrays, attrs = call(op, data(shape), attrs)
    text = check_round_trip(op, [TensorSpec(a.shape, a.dtype) for a in arrays], attrs)
    assert "kernel = [3, 2], stride = [1, 3], padding = [2, 0, 1, 1]" in text
