"""Activation functions and other elementwise composites.

Each one is a decomposition into the ops of `elementwise`, in float32 for the 16-bit
floats; silu and gelu have lanes of their own. Where the gradient of the decomposition would be
wrong (a kink that is not in the function) the op has a gradient rule of its own.
"""
# pyright: standard
# Strict mode knows no types for the parameters of the lambdas in the table.

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, isinf, isnan, pi, sqrt
from typing import Any, NamedTuple, cast

import numpy as np

from mgec.dialects.mge import lane_math
from mgec.dialects.mge.composite import widen
from mgec.dialects.mge.elementwise import NUMBERS, ElementwiseOp, check_dtype
from mgec.dialects.mge.lane import Lane, LaneBuilder
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import decomposition, gradient, lanes, reference
from mgec.dialects.mge.spec import FLOATS, DType, TensorSpec, is_float
from mgec.errors import ArgumentError


def _composite(op: type[MgeOp]) -> Callable[..., Any]:
    """Registers a decomposition that works in the wide dtype; the result is cast back."""

    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        def decompose(b: Any, *operands: Any, **attrs: Any) -> Any:
            dtype = b.spec(operands[0]).dtype
            return b.cast(rule(b, *(widen(b, x) for x in operands), **attrs), dtype)

        decomposition(op)(decompose)
        return rule

    return register


class _Row(NamedTuple):
    """One op of one operand and no attributes: its reference and its decomposition."""

    name: str
    doc: str
    ref: Callable[[Any], Any]
    rule: Callable[[Any, Any], Any]
    dtypes: tuple[DType, ...] = FLOATS


def _define(row: _Row) -> type[MgeOp]:
    """Makes the op class of one table row and registers its rules."""

    def infer(inp: TensorSpec) -> TensorSpec:
        return defined.infer_elementwise(inp)

    dtypes = ", ".join(d.name for d in row.dtypes)
    fields = {
        "__doc__": f"{row.doc}\n\n    Shapes: any. Dtypes: {dtypes}.",
        "__module__": __name__,
        "name": f"mge.{row.name}",
        "dtypes": row.dtypes,
        "infer": staticmethod(infer),
    }
    class_name = "".join(part.capitalize() for part in row.name.split("_")) + "Op"
    defined = cast("type[ElementwiseOp]", mge_op(type(class_name, (ElementwiseOp,), fields)))
    reference(defined)(row.ref)
    _composite(defined)(row.rule)
    return defined


def _relu6(b: Any, x: Any) -> Any:
    return b.minimum(b.relu(x), b.scalar(6, x))


def _hard_sigmoid(b: Any, x: Any) -> Any:
    return b.mul(_relu6(b, b.add(x, b.scalar(3, x))), b.scalar(1 / 6, x))


def _log1p_exp_minus(b: Any, distance: Any) -> Any:
    """log(1 + exp(-|distance|)), which never overflows."""
    return b.log1p(b.exp(b.neg(b.abs(distance))))


def _distance(b: Any, x: Any, y: Any) -> Any:
    """x - y, and 0 where they are equal (infinities too)."""
    return b.select(b.equal(x, y), b.scalar(0, x), b.sub(x, y))


_ROWS = (
    _Row("relu6", "min(max(x, 0), 6).", lambda x: np.minimum(np.maximum(x, 0), 6), _relu6),
    _Row("hard_sigmoid", "relu6(x + 3) / 6.",
         lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6, _hard_sigmoid),
    _Row("hard_swish", "x * relu6(x + 3) / 6.",
         lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
         lambda b, x: b.mul(x, _hard_sigmoid(b, x))),
    _Row("softplus", "log(1 + exp(x)), without overflow.", lambda x: np.logaddexp(0, x),
         lambda b, x: b.add(b.relu(x), _log1p_exp_minus(b, x))),
    _Row("log_sigmoid", "log(sigmoid(x)), without overflow.", lambda x: -np.logaddexp(0, -x),
         lambda b, x: b.sub(b.minimum(x, b.scalar(0, x)), _log1p_exp_minus(b, x))),
    _Row("square", "x * x; integers wrap.", lambda x: x * x, lambda b, x: b.mul(x, x),
         dtypes=NUMBERS),
    _Row("reciprocal", "1 / x.", lambda x: 1 / x, lambda b, x: b.div(b.scalar(1, x), x)),
)  # fmt: skip

ROWS = tuple(_define(row) for row in _ROWS)
_BY_NAME = {op.name: op for op in ROWS}


@gradient(_BY_NAME["mge.softplus"])
def _softplus_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.mul(d_out, b.sigmoid(call.inputs[0])),)


@gradient(_BY_NAME["mge.log_sigmoid"])
def _log_sigmoid_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.mul(d_out, b.sigmoid(b.neg(call.inputs[0]))),)


@mge_op
class SiluOp(ElementwiseOp):
    """x * sigmoid(x), also called swish.

    Shapes: any. Dtypes: float16, bfloat16, float32, float64.
    """

    name = "mge.silu"
    dtypes = FLOATS

    @staticmethod
    def infer(inp: TensorSpec) -> TensorSpec:
        return cast("type[ElementwiseOp]", SiluOp).infer_elementwise(inp)


@reference(SiluOp)
def _silu_reference(inp: Any) -> Any:
    return inp / (1 + np.exp(-inp))


@lanes(SiluOp)
def _silu(b: LaneBuilder, x: Lane, **_: Any) -> Lane:
    return lane_math.silu(b, x)


@gradient(SiluOp)
def _silu_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    x = widen(b, call.inputs[0])
    factor, one = b.sigmoid(x), b.scalar(1, x)
    slope = b.mul(factor, b.add(one, b.mul(x, b.sub(one, factor))))
    return (b.cast(b.mul(widen(b, d_out), slope), call.specs[0].dtype),)


# -- of two operands -----------------------------------------------------------------------


@mge_op
class LogaddexpOp(ElementwiseOp):
    """log(exp(x) + exp(y)), without overflow.

    Shapes: broadcast to each other. Dtypes: the floats, both equal.
    """

    name = "mge.logaddexp"
    dtypes = FLOATS

    @staticmethod
    def infer(lhs: TensorSpec, rhs: TensorSpec) -> TensorSpec:
        return cast("type[ElementwiseOp]", LogaddexpOp).infer_elementwise(lhs, rhs)


@reference(LogaddexpOp)
def _logaddexp_reference(lhs: Any, rhs: Any) -> Any:
    return np.logaddexp(lhs, rhs)


@_composite(LogaddexpOp)
def _logaddexp(b: Any, x: Any, y: Any) -> Any:
    return b.add(b.maximum(x, y), _log1p_exp_minus(b, _distance(b, x, y)))


@gradient(LogaddexpOp)
def _logaddexp_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
    """Each operand's share is its softmax weight."""
    distance = _distance(b, *call.inputs)
    shares = (b.sigmoid(distance), b.sigmoid(b.neg(distance)))
    return tuple(
        b.sum_to(b.mul(d_out, share), spec.shape) if needed else None
        for share, spec, needed in zip(shares, call.specs, call.needs, strict=True)
    )


@mge_op
class PreluOp(ElementwiseOp):
    """x where x > 0, elsewhere x times a learned slope.

    Shapes: inp and weight broadcast to each other. Dtypes: the floats, both equal.
    """

    name = "mge.prelu"
    dtypes = FLOATS

    @staticmethod
    def infer(inp: TensorSpec, weight: TensorSpec) -> TensorSpec:
        return cast("type[ElementwiseOp]", PreluOp).infer_elementwise(inp, weight)


@reference(PreluOp)
def _prelu_reference(inp: Any, weight: Any) -> Any:
    return np.where(inp > 0, inp, inp * weight)


@_composite(PreluOp)
def _prelu(b: Any, x: Any, weight: Any) -> Any:
    return b.select(b.greater(x, b.scalar(0, x)), x, b.mul(x, weight))


# -- with attributes -----------------------------------------------------------------------


@mge_op
class GeluOp(ElementwiseOp):
    """x times the normal distribution function of x, exactly or by its tanh approximation.

    Shapes: any. Dtypes: the floats.
    """

    name = "mge.gelu"
    dtypes = FLOATS

    @staticmethod
    def infer(inp: TensorSpec, *, approximate: bool = False) -> TensorSpec:
        check_dtype("gelu", "inp", inp.dtype, FLOATS)
        return inp


@reference(GeluOp)
def _gelu_reference(inp: Any, *, approximate: bool) -> Any:
    if approximate:
        return 0.5 * inp * (1 + np.tanh(sqrt(2 / pi) * (inp + 0.044715 * inp**3)))
    from math import erf

    values: Any = np.frompyfunc(erf, 1, 1)(inp / sqrt(2))
    return 0.5 * inp * (1 + np.asarray(values, np.float64))


@lanes(GeluOp)
def _gelu(b: LaneBuilder, x: Lane, *, approximate: bool, **_: Any) -> Lane:
    return lane_math.gelu_tanh(b, x) if approximate else lane_math.gelu(b, x)


@gradient(GeluOp)
def _gelu_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    """Phi(x) + x Phi'(x), with Phi the factor of x."""
    x = widen(b, call.inputs[0])
    if not call.attrs["approximate"]:
        phi = b.add(b.mul(b.erf(b.mul(x, b.scalar(sqrt(0.5), x))), b.scalar(0.5, x)),
                    b.scalar(0.5, x))  # fmt: skip
        density = b.exp(b.mul(b.mul(x, x), b.scalar(-0.5, x)))
        slope = b.mul(density, b.scalar(1 / sqrt(2 * pi), x))
    else:
        # Beyond 10 the slope is 0; without the clip it would be 0 * inf far out.
        x = b.minimum(b.maximum(x, b.scalar(-10, x)), b.scalar(10, x))
        scale = 2 * sqrt(2 / pi)
        square = b.mul(b.mul(x, x), b.scalar(scale * 0.044715, x))
        phi = b.sigmoid(b.mul(x, b.add(square, b.scalar(scale, x))))
        inner = b.add(b.mul(square, b.scalar(3, x)), b.scalar(scale, x))
        slope = b.mul(b.mul(phi, b.sub(b.scalar(1, x), phi)), inner)
    d_in = b.mul(widen(b, d_out), b.add(phi, b.mul(x, slope)))
    return (b.cast(d_in, call.specs[0].dtype),)


@mge_op
class LeakyReluOp(MgeOp):
    """x where x > 0, elsewhere x * negative_slope.

    Shapes: any. Dtypes: the floats.
    """

    name = "mge.leaky_relu"

    @staticmethod
    def infer(inp: TensorSpec, *, negative_slope: float = 0.01) -> TensorSpec:
        check_dtype("leaky_relu", "inp", inp.dtype, FLOATS)
        return inp


@reference(LeakyReluOp)
def _leaky_relu_reference(inp: Any, *, negative_slope: float) -> Any:
    return np.where(inp > 0, inp, inp * negative_slope)


@_composite(LeakyReluOp)
def _leaky_relu(b: Any, x: Any, *, negative_slope: float) -> Any:
    return b.select(b.greater(x, b.scalar(0, x)), x, b.mul(x, b.scalar(negative_slope, x)))


@mge_op
class EluOp(MgeOp):
    """x where x > 0, elsewhere alpha * (exp(x) - 1).

    Shapes: any. Dtypes: the floats.
    """

    name = "mge.elu"

    @staticmethod
    def infer(inp: TensorSpec, *, alpha: float = 1.0) -> TensorSpec:
        check_dtype("elu", "inp", inp.dtype, FLOATS)
        return inp


@reference(EluOp)
def _elu_reference(inp: Any, *, alpha: float) -> Any:
    return np.where(inp > 0, inp, alpha * np.expm1(inp))


@_composite(EluOp)
def _elu(b: Any, x: Any, *, alpha: float) -> Any:
    zero = b.scalar(0, x)
    below = b.expm1(b.minimum(x, zero))  # no overflow in the branch that is not taken
    return b.select(b.greater(x, zero), x, b.mul(below, b.scalar(alpha, x)))


@mge_op
class ClipOp(MgeOp):
    """x moved to the nearest value in [lower, upper]; an absent bound does not bound.

    The gradient is 1 inside and at a bound, 0 outside. Integers keep within the integers
    between the bounds.

    Shapes: any. Dtypes: any number.
    """

    name = "mge.clip"

    @staticmethod
    def infer(
        inp: TensorSpec, *, lower: float | None = None, upper: float | None = None
    ) -> TensorSpec:
        if lower is None and upper is None:
            raise ArgumentError("clip: neither lower nor upper is given", fix="give one or both")
        for key, bound in (("lower", lower), ("upper", upper)):
            if bound is not None and isnan(bound):
                raise ArgumentError(f"clip: {key} is nan", fix=f"give a number for {key}")
        if lower is not None and upper is not None and lower > upper:
            raise ArgumentError(
                f"clip: lower is {lower} but upper is {upper}", fix="swap the two bounds"
            )
        check_dtype("clip", "inp", inp.dtype, NUMBERS)
        return inp


def _bound(value: float, dtype: DType, *, lower: bool) -> float:
    """The bound in `dtype`: an integer one is the next integer inside, moved into range."""
    if is_float(dtype):
        return value
    info = np.iinfo(cast("Any", dtype))
    if isinf(value):
        return info.max if value > 0 else info.min
    return min(max(ceil(value) if lower else floor(value), info.min), info.max)


@reference(ClipOp)
def _clip_reference(inp: Any, *, lower: float | None, upper: float | None) -> Any:
    if inp.dtype.kind == "f":
        return np.clip(inp, lower, upper)
    low = -np.inf if lower is None else np.ceil(lower)
    high = np.inf if upper is None else np.floor(upper)
    info = np.iinfo(inp.dtype)
    exact = [int(min(max(int(v), low), high, info.max)) for v in inp.reshape(-1)]
    return np.array([max(v, info.min) for v in exact], inp.dtype).reshape(inp.shape)


@_composite(ClipOp)
def _clip(b: Any, x: Any, *, lower: float | None, upper: float | None) -> Any:
    dtype = b.spec(x).dtype
    if lower is not None:
        x = b.maximum(x, b.scalar(_bound(lower, dtype, lower=True), x))
    if upper is not None:
        x = b.minimum(x, b.scalar(_bound(upper, dtype, lower=False), x))
    return x


OPS = (SiluOp, *ROWS, LogaddexpOp, PreluOp, GeluOp, LeakyReluOp, EluOp, ClipOp)
