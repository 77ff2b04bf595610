"""Batch, layer, group and RMS norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value

from mgec.dialects.mge.autodiff import gradient_of_decomposition
from mgec.dialects.mge.builder import Call, ReferenceBuilder
from mgec.dialects.mge.normalization import (
    BatchNormInferenceOp,
    BatchNormTrainOp,
    GroupNormOp,
    LayerNormOp,
    RmsNormOp,
)
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.rules import decomposition, gradient
from mgec.dialects.mge.spec import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FLOATS, INT32, TensorSpec
from mgec.errors import ArgumentError, DTypeError, ShapeError


def data(shape: tuple[int, ...], seed: int = 0, dtype: Any = FLOAT32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) + 0.5).astype(dtype)


def case(
    name: str,
    shape: tuple[int, ...],
    attrs: dict[str, Any],
    dtype: Any = FLOAT32,
    params: str = "wb",
) -> list[Any]:
    """Operands; `params` says which of weight and bias are there."""
    inp = data(shape, 0, dtype)
    trailing = name in TRAILING or attrs.get("channels_last")
    size = shape[len(shape) - attrs.get("num_axes", 1) :] if trailing else shape[1:2]
    weight = data(size, 1, dtype) if "w" in params else None
    bias = data(size, 2, dtype) if "b" in params else None
    if name == "rms_norm":
        return [inp, weight]
    if name == "batch_norm_inference":
        return [inp, weight, bias, data(size, 3, dtype), np.abs(data(size, 4, dtype))]
    return [inp, weight, bias]


TRAILING = ("layer_norm", "rms_norm")
CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("batch_norm_train", (4, 3), {}),
    ("batch_norm_train", (2, 3, 5, 4), {}),
    ("batch_norm_train", (2, 1, 3), {"eps": 0.1}),
    ("batch_norm_inference", (4, 3), {}),
    ("batch_norm_inference", (2, 3, 5, 4), {"eps": 0.1}),
    ("layer_norm", (3, 7), {}),
    ("layer_norm", (7,), {"eps": 0.1}),
    ("layer_norm", (2, 3, 4, 5), {"num_axes": 2}),
    ("layer_norm", (0, 3, 4), {}),
    ("layer_norm", (2, 5), {"num_axes": 2}),
    ("rms_norm", (3, 7), {}),
    ("rms_norm", (2, 3, 4), {"num_axes": 2, "eps": 0.1}),
    ("group_norm", (2, 6, 3, 3), {"groups": 2}),
    ("group_norm", (2, 4, 5), {"groups": 4}),
    ("group_norm", (3, 4), {"groups": 1, "eps": 0.1}),
    ("group_norm", (0, 4, 2), {"groups": 2}),
    ("batch_norm_inference", (2, 3, 5, 4), {"channels_last": True}),
]


@pytest.mark.parametrize(("name", "shape", "attrs"), CASES, ids=str)
def test_value_and_gradient(name: str, shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    arrays = case(name, shape, attrs)
    check_value(name, arrays, attrs, ulps=16)
    check_gradient(name, arrays, attrs, tolerance=1e-5)


@pytest.mark.parametrize("params", ["", "w", "b"])
@pytest.mark.parametrize(("name", "shape", "attrs"), [CASES[1], CASES[5], CASES[10], CASES[12]])
def test_absent_operands(name: str, shape: Any, attrs: dict[str, Any], params: str) -> None:
    arrays = case(name, shape, attrs, params=params)
    check_value(name, arrays, attrs, ulps=16)
    check_gradient(name, arrays, attrs, tolerance=1e-5)
    specs = [None if a is None else TensorSpec(a.shape, a.dtype) for a in arrays]
    text = check_round_trip(name, specs, attrs)
    assert ("weight = %" in text) == ("w" in params)
    assert ("bias = %" in text) == ("b" in params and name != "rms_norm")


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("name", "shape", "attrs"), [CASES[1], CASES[4], CASES[7], CASES[11], CASES[12]]
)
def test_dtypes(name: str, shape: Any, attrs: dict[str, Any], dtype: Any) -> None:
    check_value(name, case(name, shape, attrs, dtype), attrs, ulps=16)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=lambda d: d.name)
def test_wide_parameters(dtype: Any) -> None:
    inp = data((4, 3, 8), 0, dtype)
    arrays = [inp, data((3,), 1), data((3,), 2)]
    check_value("batch_norm_train", arrays, ulps=16)
    out, mean, variance = evaluate(BatchNormTrainOp, arrays, {})
    assert (out.dtype, mean.dtype, variance.dtype) == (dtype, FLOAT32, FLOAT32)


def gradients(
    name: str, arrays: list[Any], attrs: dict[str, Any], d_outs: list[Any], rule: Any
) -> Any:
    op = op_class(f"mge.{name}")
    outputs = evaluate(op, arrays, attrs)
    specs = tuple(None if a is None else TensorSpec(a.shape, a.dtype) for a in arrays)
    call = Call(
        op=op,
        inputs=tuple(arrays),
        outputs=outputs,
        attrs=op.complete_attrs(attrs),
        specs=specs,
        output_specs=tuple(TensorSpec(o.shape, o.dtype) for o in outputs),
        needs=tuple(a is not None for a in arrays),
    )
    return (rule or gradient[op])(ReferenceBuilder(), call, *d_outs)


@pytest.mark.parametrize(("name", "shape", "attrs"), CASES, ids=str)
def test_gradient_rule_agrees_with_the_decomposition(name: str, shape: Any, attrs: Any) -> None:
    op = op_class(f"mge.{name}")
    if op not in gradient:
        return
    arrays = [None if a is None else a.astype(np.float64) for a in case(name, shape, attrs)]
    outputs = decomposition[op](ReferenceBuilder(), *arrays, **op.complete_attrs(attrs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    d_outs = [data(o.shape, 9, np.float64) for o in outputs]
    ours = gradients(name, arrays, attrs, d_outs, None)
    theirs = gradients(name, arrays, attrs, d_outs, gradient_of_decomposition)
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_gradients_have_the_dtypes_of_the_operands() -> None:
    arrays = [data((4, 3, 8), 0, FLOAT16), data((3,), 1), data((3,), 2)]
    outputs = evaluate(BatchNormTrainOp, arrays, {})
    d_outs = [np.ones_like(o) for o in outputs]
    grads = gradients("batch_norm_train", arrays, {}, d_outs, None)
    assert [g.dtype for g in grads] == [FLOAT16, FLOAT32, FLOAT32]


def test_a_far_mean_does_not_cancel() -> None:
    inp = (data((8, 2, 16)) + 1000).astype(np.float32)
    out, _, _ = evaluate(BatchNormTrainOp, [inp, None, None], {})
    assert abs(out.astype(np.float64).std() - 1) < 1e-3
    check_value("layer_norm", [inp, None, None], ulps=2000)  # the mean itself is rounded


def test_an_empty_batch_has_no_statistics() -> None:
    check_value("batch_norm_train", [np.ones((0, 3, 2), np.float32), None, None])
    _, mean, variance = evaluate(BatchNormTrainOp, [np.ones((0, 3), np.float32), None, None], {})
    assert np.isnan(mean).all() and np.isnan(variance).all()


def f32(*shape: int) -> TensorSpec:
    return TensorSpec(shape, FLOAT32)


ERRORS: list[tuple[Any, list[Any], dict[str, Any], type[Exception], str]] = [
    (BatchNormTrainOp, [f32(3), None, None], {}, ShapeError,
     "batch_norm_train: inp has rank 1 but needs rank 2 or more (N, C, ...)"),
    (BatchNormTrainOp, [f32(2, 3, 4), f32(4), None], {}, ShapeError,
     "batch_norm_train: weight has shape [4] but needs [3]"),
    (BatchNormTrainOp, [f32(2, 3, 4), None, f32(1, 3, 1)], {}, ShapeError,
     "batch_norm_train: bias has shape [1, 3, 1] but needs [3]"),
    (BatchNormTrainOp, [TensorSpec((2, 3), INT32), None, None], {}, DTypeError,
     "batch_norm_train: inp has dtype int32, which is not supported"),
    (BatchNormTrainOp, [f32(2, 3), TensorSpec((3,), FLOAT64), None], {}, DTypeError,
     "batch_norm_train: inp is float32 but weight is float64"),
    (BatchNormTrainOp, [f32(2, 3), None, None], {"eps": -1.0}, ArgumentError,
     "batch_norm_train: eps is -1.0 but may not be negative"),
    (BatchNormInferenceOp, [f32(2, 3), f32(3), f32(3), f32(2), f32(3)], {}, ShapeError,
     "batch_norm_inference: mean has shape [2] but needs [3]"),
    (BatchNormInferenceOp, [f32(2, 3, 4), *[f32(3)] * 4], {"channels_last": True}, ShapeError,
     "batch_norm_inference: weight has shape [3] but needs [4]"),
    (BatchNormInferenceOp, [f32(2), f32(3), f32(3), f32(3), f32(3)], {}, ShapeError,
     "batch_norm_inference: inp has rank 1 but needs rank 2 or more (N, C, ...)"),
    (LayerNormOp, [f32(2, 3), None, None], {"num_axes": 3}, ArgumentError,
     "layer_norm: num_axes is 3 but inp has rank 2"),
    (LayerNormOp, [f32(2, 3), None, None], {"num_axes": 0}, ArgumentError,
     "layer_norm: num_axes is 0 but inp has rank 2"),
    (LayerNormOp, [f32(2, 3, 4), f32(4), None], {"num_axes": 2}, ShapeError,
     "layer_norm: weight has shape [4] but needs [3, 4]"),
    (RmsNormOp, [f32(2, 3, 4), f32(3)], {}, ShapeError,
     "rms_norm: weight has shape [3] but needs [4]"),
    (GroupNormOp, [f32(2, 5, 4), None, None], {"groups": 2}, ShapeError,
     "group_norm: inp has 5 channels, which 2 groups do not divide"),
    (GroupNormOp, [f32(2, 5, 4), None, None], {"groups": 0}, ShapeError,
     "group_norm: inp has 5 channels, which 0 groups do not divide"),
    (GroupNormOp, [f32(2, 4, 4), f32(2), None], {"groups": 2}, ShapeError,
     "group_norm: weight has shape [2] but needs [4]"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "specs", "attrs", "kind", "headline"), ERRORS)
def test_errors(op: Any, specs: Any, attrs: Any, kind: Any, headline: str) -> None:
    with pytest.raises(kind) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline


@pytest.mark.parametrize(("name", "shape", "attrs"), CASES, ids=str)
def test_round_trip(name: str, shape: Any, attrs: dict[str, Any]) -> None:
    check_round_trip(name, [TensorSpec(a.shape, a.dtype) for a in case(name, shape, attrs)], attrs)
