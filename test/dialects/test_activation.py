"""Activation functions and other elementwise composites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.opcheck import check_gradient, check_round_trip, check_value

from mgec.dialects.mge.activation import OPS, ClipOp
from mgec.dialects.mge.autodiff import gradient_of_decomposition
from mgec.dialects.mge.builder import Call, ReferenceBuilder
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.rules import gradient
from mgec.dialects.mge.spec import (
    BOOL,
    FLOAT32,
    FLOAT64,
    FLOATS,
    INT8,
    INT32,
    INT64,
    UINT8,
    TensorSpec,
)
from mgec.errors import ArgumentError, DTypeError, ShapeError

INF, NAN = np.inf, np.nan
CASES: list[tuple[str, dict[str, Any]]] = [
    ("silu", {}),
    ("relu6", {}),
    ("hard_sigmoid", {}),
    ("hard_swish", {}),
    ("softplus", {}),
    ("log_sigmoid", {}),
    ("logaddexp", {}),
    ("square", {}),
    ("reciprocal", {}),
    ("prelu", {}),
    ("gelu", {}),
    ("gelu", {"approximate": True}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": -0.5}),
    ("elu", {}),
    ("elu", {"alpha": 0.25}),
    ("clip", {"lower": -0.75}),
    ("clip", {"upper": 1.5}),
    ("clip", {"lower": -1.0, "upper": 1.0}),
]
IDS = [f"{name}-{'-'.join(map(str, attrs.values()))}" for name, attrs in CASES]
BINARY = ("logaddexp", "prelu")


def operands(name: str, shape: tuple[int, ...], dtype: Any = FLOAT32) -> list[Any]:
    rng = np.random.default_rng(0)
    xs = [(3 * rng.standard_normal(shape)).astype(dtype)]
    if name in BINARY:
        xs.append(rng.standard_normal(shape[-1:]).astype(dtype))
    return xs


def test_every_op_is_here() -> None:
    assert {op.name.removeprefix("mge.") for op in OPS} == {name for name, _ in CASES}


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize(("name", "attrs"), CASES, ids=IDS)
def test_value(name: str, attrs: dict[str, Any], dtype: Any) -> None:
    check_value(name, operands(name, (3, 17), dtype), attrs, ulps=8)


@pytest.mark.parametrize(("name", "attrs"), CASES, ids=IDS)
def test_gradient(name: str, attrs: dict[str, Any]) -> None:
    check_gradient(name, operands(name, (3, 5)), attrs)
    check_gradient(name, operands(name, (0, 5)), attrs)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 1, 3)], ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    for name, attrs in CASES:
        if name in ("silu", "prelu", "clip"):
            check_value(name, operands(name, shape), attrs, ulps=8)


EXTREME = [0.0, -0.0, 1e-30, -1e-30, 3.0, -3.0, 6.0, 90.0, -90.0, 1e4, -1e4, 1e15, -1e15]


@pytest.mark.parametrize(("name", "attrs"), CASES, ids=IDS)
def test_far_out_there_is_no_nan(name: str, attrs: dict[str, Any]) -> None:
    if name == "reciprocal":
        return  # 1 / 0
    op = op_class(f"mge.{name}")
    xs = [np.array(EXTREME, np.float32)]
    if name in BINARY:
        xs.append(np.array(EXTREME[::-1], np.float32))
    check_value(name, xs, attrs, ulps=8)
    outputs = evaluate(op, xs, attrs)
    specs = tuple(TensorSpec(x.shape, x.dtype) for x in xs)
    call = Call(
        op=op,
        inputs=tuple(xs),
        outputs=outputs,
        attrs=op.complete_attrs(attrs),
        specs=specs,
        output_specs=specs[:1],
        needs=(True,) * len(xs),
    )
    rule = gradient.get(op) or gradient_of_decomposition
    for grad in rule(ReferenceBuilder(), call, np.ones_like(outputs[0])):
        assert np.isfinite(grad).all(), grad


@pytest.mark.parametrize("name", ["relu6", "softplus", "log_sigmoid", "leaky_relu", "elu", "clip"])
def test_infinities_and_nan(name: str) -> None:
    attrs = {"lower": -1.0, "upper": 1.0} if name == "clip" else {}
    check_value(name, [np.array([INF, -INF, NAN, 0], np.float32)], attrs)


def test_logaddexp_of_infinities() -> None:
    x = np.array([INF, INF, -INF, -INF, NAN, 1], np.float32)
    y = np.array([INF, -INF, -INF, 1, 1, NAN], np.float32)
    check_value("logaddexp", [x, y])


def test_gradient_at_the_kinks() -> None:
    def at_zero(name: str, **attrs: Any) -> float:
        op = op_class(f"mge.{name}")
        x = np.zeros(1, np.float64)
        spec = TensorSpec((1,), FLOAT64)
        (out,) = evaluate(op, [x], attrs)
        full = op.complete_attrs(attrs)
        call = Call(op, (x,), (out,), full, (spec,), (spec,), (True,))
        rule = gradient.get(op) or gradient_of_decomposition
        return float(rule(ReferenceBuilder(), call, np.ones(1))[0][0])

    assert at_zero("softplus") == 0.5  # abs and relu inside the decomposition have kinks here
    assert at_zero("log_sigmoid") == 0.5
    assert at_zero("gelu") == 0.5
    assert at_zero("silu") == 0.5
    assert at_zero("elu", alpha=0.25) == 0.25
    assert at_zero("leaky_relu", negative_slope=0.5) == 0.5
    assert at_zero("relu6") == 0
    assert at_zero("clip", lower=0.0) == 1


@pytest.mark.parametrize("dtype", [INT8, INT32, INT64, UINT8], ids=lambda d: d.name)
@pytest.mark.parametrize(
    "bounds", [(-1.5, 2.5), (None, 300.0), (-1000.0, 1000.0), (-INF, 3.0), (0.0, INF)], ids=str
)
def test_clip_integers(dtype: Any, bounds: tuple[Any, Any]) -> None:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0, 1, 2, 3, 100], dtype)
    attrs = {k: v for k, v in zip(("lower", "upper"), bounds, strict=True) if v is not None}
    check_value("clip", [x], attrs)


def test_square_of_integers_wraps() -> None:
    check_value("square", [np.array([-128, 127, 16, 3], np.int8)])


F32 = TensorSpec((2, 3), FLOAT32)
ERRORS: list[tuple[str, list[TensorSpec], dict[str, Any], type[Exception], str]] = [
    ("silu", [TensorSpec((2,), INT32)], {}, DTypeError,
     "silu: inp has dtype int32, which is not supported"),
    ("gelu", [TensorSpec((2,), BOOL)], {}, DTypeError,
     "gelu: inp has dtype bool, which is not supported"),
    ("leaky_relu", [TensorSpec((2,), INT32)], {}, DTypeError,
     "leaky_relu: inp has dtype int32, which is not supported"),
    ("elu", [TensorSpec((2,), INT32)], {}, DTypeError,
     "elu: inp has dtype int32, which is not supported"),
    ("clip", [TensorSpec((2,), BOOL)], {"lower": 0.0}, DTypeError,
     "clip: inp has dtype bool, which is not supported"),
    ("prelu", [F32, TensorSpec((3,), FLOAT64)], {}, DTypeError,
     "prelu: operands have dtypes float32 and float64"),
    ("logaddexp", [F32, TensorSpec((2,), FLOAT32)], {}, ShapeError,
     "logaddexp: shapes (2, 3) and (2,) do not broadcast: sizes 3 and 2 differ on axis -1"),
    ("clip", [F32], {}, ArgumentError, "clip: neither lower nor upper is given"),
    ("clip", [F32], {"upper": NAN}, ArgumentError, "clip: upper is nan"),
    ("clip", [F32], {"lower": 1.0, "upper": 0.0}, ArgumentError,
     "clip: lower is 1.0 but upper is 0.0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "specs", "attrs", "kind", "headline"), ERRORS)
def test_errors(name: str, specs: Any, attrs: Any, kind: Any, headline: str) -> None:
    op = op_class(f"mge.{name}")
    with pytest.raises(kind) as caught:
        op.infer_specs(specs, op.complete_attrs(attrs))
    assert caught.value.headline == headline


@pytest.mark.parametrize(("name", "attrs"), CASES, ids=IDS)
def test_round_trip(name: str, attrs: dict[str, Any]) -> None:
    check_round_trip(name, [F32] * (2 if name in BINARY else 1), attrs)


def test_an_absent_bound_is_not_printed() -> None:
    text = check_round_trip("clip", [F32], {"upper": 2.0})
    assert "{upper = 2.0}" in text
    assert ClipOp.complete_attrs({"upper": 2}) == {"lower": None, "upper": 2.0}
