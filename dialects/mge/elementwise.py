"""Elementwise ops: one row of a table each.

A row says which dtypes are legal, what one element is (`lanes`), what it is in NumPy
(`reference`) and how the gradient flows. Operands broadcast as in NumPy; they must have
the same dtype (the frontend promotes before it gets here). float16 and bfloat16 compute
in float32 and round once per op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from mgec.dialects.mge import lane_math, lane_trig
from mgec.dialects.mge.lane import Lane, LaneBuilder
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import gradient, lanes, reference
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    DYNAMIC,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FLOATS,
    INTEGERS,
    DType,
    TensorSpec,
    is_float,
)
from mgec.errors import DTypeError, ShapeError

NUMBERS = (*FLOATS, *INTEGERS)
ANY = (*NUMBERS, BOOL)

LaneRule = Callable[..., Lane]
UnaryLane = Callable[[LaneBuilder, Lane, DType], Lane]
BinaryLane = Callable[[LaneBuilder, Lane, Lane, DType], Lane]
GradientRule = Callable[[Any, Any, Any], "tuple[Any, ...]"]
"""`(b, call, d_out) -> one gradient per operand`, not yet summed over broadcast axes."""


@dataclass(frozen=True)
class Unary:
    """One op of one operand; see the module docstring."""

    name: str
    doc: str
    dtypes: tuple[DType, ...]
    reference: Callable[[Any], Any]
    lane: UnaryLane
    gradient: GradientRule | None


@dataclass(frozen=True)
class Binary:
    """One op of two operands."""

    name: str
    doc: str
    dtypes: tuple[DType, ...]
    reference: Callable[[Any, Any], Any]
    lane: BinaryLane
    gradient: GradientRule | None


@dataclass(frozen=True)
class Compare:
    """One comparison, of any dtype to bool."""

    name: str
    doc: str
    reference: Callable[[Any, Any], Any]
    lane: BinaryLane


@dataclass(frozen=True)
class Predicate:
    """One question about a float, with a bool for an answer."""

    name: str
    doc: str
    reference: Callable[[Any], Any]
    lane: UnaryLane


def broadcast_shapes(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape operands of these shapes broadcast to (NumPy's rule).

    Raises:
        ShapeError: if two sizes differ and neither is 1.
    """
    rank = max((len(s) for s in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for i, size in enumerate(shape, start=rank - len(shape)):
            if size == 1 or size == result[i]:
                continue
            if result[i] not in (1, DYNAMIC) and size != DYNAMIC:
                raise ShapeError(
                    f"{name}: shapes {' and '.join(map(str, shapes))} do not broadcast: "
                    f"sizes {result[i]} and {size} differ on axis {i - rank}",
                    fix="make the sizes equal, or one of them 1 (reshape or F.expand_dims)",
                )
            result[i] = size
    return tuple(result)


def check_dtype(name: str, operand: str, dtype: DType, allowed: Sequence[DType]) -> None:
    """Raises DTypeError unless `dtype` is one of `allowed`."""
    if dtype not in allowed:
        names = ", ".join(d.name for d in allowed)
        raise DTypeError(
            f"{name}: {operand} has dtype {dtype.name}, which is not supported",
            fix=f"convert with astype to one of {names}",
        )


class ElementwiseOp(MgeOp):
    """Base of the elementwise ops; the table fills in the class variables."""

    dtypes: ClassVar[tuple[DType, ...]] = ANY
    result_dtype: ClassVar[DType | None] = None

    @classmethod
    def infer_elementwise(cls, *operands: TensorSpec) -> TensorSpec:
        """Common inference: equal legal dtypes, broadcast shapes."""
        name = cls.name.removeprefix("mge.")
        first = operands[0].dtype
        check_dtype(name, cls.signature.operands[0].name, first, cls.dtypes)
        for spec, param in zip(operands[1:], cls.signature.operands[1:], strict=True):
            if spec.dtype != first:
                raise DTypeError(
                    f"{name}: operands have dtypes {first.name} and {spec.dtype.name}",
                    values=[
                        (o.name, str(s), "")
                        for o, s in zip(cls.signature.operands, operands, strict=True)
                    ],
                    fix=f"convert {param.name} with astype({first.name!r})",
                )
        shape = broadcast_shapes(name, *(s.shape for s in operands))
        return TensorSpec(shape, cls.result_dtype or first)


def _define(
    row: Unary | Binary | Compare | Predicate,
    dtypes: tuple[DType, ...],
    grad: GradientRule | None,
    result: DType | None = None,
) -> type[MgeOp]:
    """Makes the op class of one table row and registers its rules."""

    def unary(inp: TensorSpec) -> TensorSpec:
        return defined.infer_elementwise(inp)

    def binary(lhs: TensorSpec, rhs: TensorSpec) -> TensorSpec:
        return defined.infer_elementwise(lhs, rhs)

    is_unary = isinstance(row, Unary | Predicate)
    infer = cast("Callable[..., TensorSpec]", unary if is_unary else binary)
    shapes = "any" if is_unary else "broadcast to each other"
    fields = {
        "__doc__": f"{row.doc}\n\n    Shapes: {shapes}. "
        f"Dtypes: {', '.join(d.name for d in dtypes)}.",
        "__module__": __name__,
        "name": f"mge.{row.name}",
        "dtypes": dtypes,
        "result_dtype": result,
        "infer": staticmethod(infer),
    }
    class_name = "".join(part.capitalize() for part in row.name.split("_")) + "Op"
    defined = cast("type[ElementwiseOp]", mge_op(type(class_name, (ElementwiseOp,), fields)))
    lane: LaneRule = row.lane

    def element(b: LaneBuilder, *xs: Lane, dtype: DType, **_: Any) -> Lane:
        return lane(b, *xs, dtype)

    lanes(defined)(element)
    reference(defined)(row.reference)
    if grad is not None:
        rule = grad
        arity = 1 if is_unary else 2

        def registered(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
            parts = rule(b, call, d_out)
            return tuple(
                None if part is None else b.sum_to(part, spec.shape)
                for part, spec in zip(parts[:arity], call.specs, strict=True)
            )

        gradient(defined)(registered)
    return defined


def apply(
    op: type[MgeOp],
    b: LaneBuilder,
    operands: Sequence[Lane],
    dtypes: Sequence[DType],
    attrs: Mapping[str, Any],
    result: DType,
) -> Lane:
    """One element of an elementwise op: its lane rule, in float32 for the 16-bit floats.

    Args:
        op: the op's class.
        b: where to emit.
        operands: one lane per operand, in the lane types of `dtypes`.
        dtypes: dtypes of the operands.
        attrs: plain attributes of the op.
        result: dtype of the result; the lane returned has its lane type.
    """
    narrow = (FLOAT16, BFLOAT16)
    if op is CastOp:
        return b.convert(operands[0], dtypes[0], result)
    if not any(d in narrow for d in dtypes):
        return lanes[op](b, *operands, dtype=dtypes[-1], result=result, **attrs)
    wide = [
        b.convert(x, d, FLOAT32) if d in narrow else x
        for x, d in zip(operands, dtypes, strict=True)
    ]
    value = lanes[op](b, *wide, dtype=FLOAT32, result=FLOAT32, **attrs)
    return b.convert(value, FLOAT32, result) if result in narrow else value


# -- lanes that are more than one op ---------------------------------------------------


def _op(float_name: str, signed: str = "", unsigned: str = "") -> BinaryLane:
    """A lane rule that is a single op, chosen by the kind of dtype."""

    def rule(b: LaneBuilder, x: Lane, y: Lane, dtype: DType) -> Lane:
        kind = "f" if is_float(dtype) else dtype.kind
        name = {"f": float_name, "i": signed}.get(kind, unsigned or signed)
        return b.op(name, (x, y), x.ty)

    return rule


def _math(name: str) -> UnaryLane:
    return lambda b, x, dtype: b.math(name, x)


def _compare(ordered: str, signed: str, unsigned: str) -> BinaryLane:
    def rule(b: LaneBuilder, x: Lane, y: Lane, dtype: DType) -> Lane:
        if is_float(dtype):
            return b.cmpf(ordered, x, y)
        return b.cmpi(signed if dtype.kind == "i" else unsigned, x, y)

    return rule


def _abs(b: LaneBuilder, x: Lane, dtype: DType) -> Lane:
    if is_float(dtype):
        return b.math("absf", x)
    return x if dtype.kind == "u" else b.select(b.cmpi("slt", x, b.like(0, x)), b.neg(x), x)


def _sign(b: LaneBuilder, x: Lane, dtype: DType) -> Lane:
    zero, one = b.like(0, x), b.like(1, x)
    if is_float(dtype):
        value = b.select(b.cmpf("ogt", x, zero), one, x)  # NaN and zeros stay themselves
        return b.select(b.cmpf("olt", x, zero), b.like(-1, x), value)
    if dtype.kind == "u":
        return b.select(b.cmpi("ne", x, zero), one, zero)
    value = b.select(b.cmpi("sgt", x, zero), one, zero)
    return b.select(b.cmpi("slt", x, zero), b.like(-1, x), value)


def _expm1(b: LaneBuilder, x: Lane, dtype: DType) -> Lane:
    """In float64 Kahan's method: the rounding error of exp(x) cancels between its two uses.

    MLIR's own lowering of math.expm1 is exp(x) - 1, which loses all digits near 0.
    """
    if x.ty == "f32":
        return lane_math.expm1(b, x)
    power, one = lane_math.exp(b, x), b.like(1, x)
    difference = b.sub(power, one)
    value = b.mul(difference, b.div(x, lane_math.log(b, power)))
    value = b.select(b.cmpf("oeq", power, one), x, value)
    is_large = b.cmpf("oeq", b.math("absf", difference), b.like(float("inf"), x))
    is_minus_one = b.cmpf("oeq", difference, b.like(-1, x))
    return b.select(b.or_(is_large, is_minus_one), difference, value)


def _log1p(b: LaneBuilder, x: Lane, dtype: DType) -> Lane:
    """In float64 Kahan's method (Higham, "Accuracy and Stability", problem 1.5), as `_expm1`."""
    if x.ty == "f32":
        return lane_math.log1p(b, x)
    one = b.like(1, x)
    total = b.add(x, one)
    value = b.mul(lane_math.log(b, total), b.div(x, b.sub(total, one)))
    value = b.select(b.cmpf("oeq", total, one), x, value)
    return b.select(b.cmpf("oeq", total, b.like(float("inf"), x)), total, value)


def _relu(b: LaneBuilder, x: Lane, dtype: DType) -> Lane:
    zero = b.like(0, x)
    if is_float(dtype):
        return lane_math.at_least(b, x, 0)
    return x if dtype.kind == "u" else b.select(b.cmpi("sgt", x, zero), x, zero)


def _safe_divisor(b: LaneBuilder, x: Lane, y: Lane, dtype: DType) -> tuple[Lane, Lane, Lane]:
    """A divisor that cannot trap, whether y was zero, and (signed) whether x / y overflows."""
    one = b.like(1, y)
    is_zero = b.cmpi("eq", y, b.like(0, y))
    if dtype.kind == "u":
        return b.select(is_zero, one, y), is_zero, is_zero
    lowest = b.like(-(2 ** (x.bits - 1)), x)
    overflow = b.and_(b.cmpi("eq", y, b.like(-1, y)), b.cmpi("eq", x, lowest))
    return b.select(b.or_(is_zero, overflow), one, y), is_zero, overflow


def _floor_div(b: LaneBuilder, x: Lane, y: Lane, dtype: DType) -> Lane:
    if is_float(dtype):
        return b.math("floor", b.div(x, y))
    safe, is_zero, _overflow = _safe_divisor(b, x, y, dtype)
    if dtype.kind == "u":
        quotient = b.op("arith.divui", (x, safe), x.ty)
        return b.select(is_zero, b.like(0, x), quotient)
    quotient = b.op("arith.divsi", (x, safe), x.ty)
    remainder = b.sub(x, b.mul(quotient, safe))
    zero = b.like(0, x)
    inexact = b.cmpi("ne", remainder, zero)
    negative = b.cmpi("slt", b.xor(remainder, safe), zero)
    floored = b.select(b.and_(inexact, negative), b.sub(quotient, b.like(1, x)), quotient)
    return b.select(is_zero, zero, floored)  # the quotient that overflows wraps to x itself


def _mod(b: LaneBuilder, x: Lane, y: Lane, dtype: DType) -> Lane:
    zero = b.like(0, x)
    if is_float(dtype):
        remainder = b.op("arith.remf", (x, y), x.ty)
        differs = b.and_(
            b.cmpf("une", remainder, zero),
            b.xor(b.cmpf("olt", remainder, zero), b.cmpf("olt", y, zero)),
        )
        signed_zero = b.op("math.copysign", (zero, y), x.ty)
        value = b.select(differs, b.add(remainder, y), remainder)
        return b.select(b.cmpf("oeq", value, zero), signed_zero, value)
    safe, is_zero, overflow = _safe_divisor(b, x, y, dtype)
    if dtype.kind == "u":
        return b.select(is_zero, zero, b.op("arith.remui", (x, safe), x.ty))
    remainder = b.op("arith.remsi", (x, safe), x.ty)
    negative = b.cmpi("slt", b.xor(remainder, safe), zero)
    inexact = b.cmpi("ne", remainder, zero)
    value = b.select(b.and_(inexact, negative), b.add(remainder, safe), remainder)
    return b.select(b.or_(is_zero, overflow), zero, value)


def _pow_reference(x: Any, y: Any) -> Any:
    """IEEE's pow. For a scalar 0.5, NumPy takes the square root, which differs at -inf."""
    return np.where((x == -np.inf) & (y == 0.5), np.inf, np.power(x, y))


def _shift(b: LaneBuilder, x: Lane, y: Lane, dtype: DType, *, left: bool) -> Lane:
    """Shifts by the width or more give what shifting one bit at a time would."""
    width = b.like(x.bits, y)
    too_far = b.cmpi("uge", y, width)
    amount = b.select(too_far, b.like(x.bits - 1, y), y)
    if left:
        return b.select(too_far, b.like(0, x), b.shl(x, amount))
    if dtype.kind == "i":
        return b.shr(x, amount, signed=True)
    return b.select(too_far, b.like(0, x), b.shr(x, amount))


def _erf_reference(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from math import erf

    return np.asarray(np.frompyfunc(erf, 1, 1)(x), dtype=np.float64)


def _shift_reference(x: Any, y: Any, *, left: bool) -> Any:
    bits = x.dtype.itemsize * 8
    amount = y.astype(np.uint64)
    far = amount >= bits
    safe = np.where(far, 0, y).astype(y.dtype)
    if left:
        return np.where(far, 0, np.left_shift(x, safe))
    sign = np.where(x < 0, -1, 0).astype(x.dtype)
    return np.where(far, sign, np.right_shift(x, safe))


# -- gradients shared by rows ----------------------------------------------------------


def _times(factor: Callable[[Any, Any, Any], Any]) -> GradientRule:
    """d_in = d_out * factor(b, x, y) with x the input and y the output."""
    return lambda b, call, d: (b.mul(d, factor(b, call.inputs[0], call.outputs[0])),)


def _none(b: Any, call: Any, d: Any) -> tuple[None, None]:
    return None, None


def _one_minus_square(b: Any, x: Any) -> Any:
    return b.sub(b.scalar(1, x), b.mul(x, x))


def _grad_extremum(strict: str) -> GradientRule:
    """The gradient of maximum/minimum goes to the winner, and to lhs on a tie."""

    def rule(b: Any, call: Any, d: Any) -> tuple[Any, Any]:
        lhs, rhs = call.inputs
        wins = getattr(b, strict)(rhs, lhs)
        zero = b.scalar(0, d)
        return b.select(wins, zero, d), b.select(wins, d, zero)

    return rule


def _grad_pow(b: Any, call: Any, d: Any) -> tuple[Any, Any]:
    base, exponent = call.inputs
    one, zero = b.scalar(1, base), b.scalar(0, base)
    d_base = b.mul(d, b.mul(exponent, b.pow(base, b.sub(exponent, one))))
    positive = b.greater(base, zero)
    safe_log = b.select(positive, b.log(b.select(positive, base, one)), zero)
    return b.select(b.equal(exponent, zero), zero, d_base), b.mul(
        d, b.mul(call.outputs[0], safe_log)
    )


def _grad_atan2(b: Any, call: Any, d: Any) -> tuple[Any, Any]:
    y, x = call.inputs
    scale = b.div(d, b.add(b.mul(x, x), b.mul(y, y)))
    return b.mul(scale, x), b.neg(b.mul(scale, y))


def _grad_mod(b: Any, call: Any, d: Any) -> tuple[Any, Any]:
    lhs, rhs = call.inputs
    return d, b.neg(b.mul(d, b.floor_div(lhs, rhs)))


def _sqrt_one(b: Any, x: Any, sign_x: int, one: int) -> Any:
    """sqrt(sign_x * x*x + one)."""
    square = b.mul(x, x)
    return b.sqrt(b.add(square if sign_x > 0 else b.neg(square), b.scalar(one, x)))


_REAL = FLOATS
_SIGNED_NUMBERS = tuple(d for d in NUMBERS if d.kind != "u")
_BITS = (*INTEGERS, BOOL)

_UNARY: tuple[Unary, ...] = (
    Unary("neg", "-x; integers wrap.", NUMBERS, np.negative, lambda b, x, dtype: b.neg(x),
     lambda b, c, d: (b.neg(d),)),
    Unary("abs", "Absolute value.", NUMBERS, np.abs, _abs,
     _times(lambda b, x, y: b.sign(x))),
    Unary("sign", "-1, 0 or 1; NaN stays NaN.", NUMBERS, np.sign, _sign, _none),
    Unary("exp", "e to the power x.", _REAL, np.exp, lambda b, x, dtype: lane_math.exp(b, x),
     _times(lambda b, x, y: y)),
    Unary("expm1", "exp(x) - 1, accurate near 0.", _REAL, np.expm1, _expm1,
     _times(lambda b, x, y: b.add(y, b.scalar(1, y)))),
    Unary("log", "Natural logarithm.", _REAL, np.log, lambda b, x, dtype: lane_math.log(b, x),
     lambda b, c, d: (b.div(d, c.inputs[0]),)),
    Unary("log1p", "log(1 + x), accurate near 0.", _REAL, np.log1p, _log1p,
     lambda b, c, d: (b.div(d, b.add(c.inputs[0], b.scalar(1, d))),)),
    Unary("sqrt", "Square root.", _REAL, np.sqrt, _math("sqrt"),
     lambda b, c, d: (b.div(b.mul(d, b.scalar(0.5, d)), c.outputs[0]),)),
    Unary("rsqrt", "1 / sqrt(x).", _REAL, lambda x: 1 / np.sqrt(x),
     lambda b, x, dtype: b.div(b.like(1, x), b.math("sqrt", x)),
     _times(lambda b, x, y: b.mul(b.scalar(-0.5, y), b.mul(y, b.mul(y, y))))),
    Unary("sin", "Sine (radians).", _REAL, np.sin, lambda b, x, dtype: lane_trig.sin(b, x),
     _times(lambda b, x, y: b.cos(x))),
    Unary("cos", "Cosine (radians).", _REAL, np.cos, lambda b, x, dtype: lane_trig.cos(b, x),
     _times(lambda b, x, y: b.neg(b.sin(x)))),
    Unary("tan", "Tangent (radians).", _REAL, np.tan, lambda b, x, dtype: lane_trig.tan(b, x),
     _times(lambda b, x, y: b.add(b.mul(y, y), b.scalar(1, y)))),
    Unary("asin", "Inverse sine.", _REAL, np.arcsin, _math("asin"),
     lambda b, c, d: (b.div(d, _sqrt_one(b, c.inputs[0], -1, 1)),)),
    Unary("acos", "Inverse cosine.", _REAL, np.arccos, _math("acos"),
     lambda b, c, d: (b.neg(b.div(d, _sqrt_one(b, c.inputs[0], -1, 1))),)),
    Unary("atan", "Inverse tangent.", _REAL, np.arctan, _math("atan"),
     lambda b, c, d: (b.div(d, b.add(b.mul(c.inputs[0], c.inputs[0]), b.scalar(1, d))),)),
    Unary("sinh", "Hyperbolic sine.", _REAL, np.sinh, _math("sinh"),
     _times(lambda b, x, y: b.cosh(x))),
    Unary("cosh", "Hyperbolic cosine.", _REAL, np.cosh, _math("cosh"),
     _times(lambda b, x, y: b.sinh(x))),
    Unary("tanh", "Hyperbolic tangent.", _REAL, np.tanh, lambda b, x, dtype: lane_math.tanh(b, x),
     _times(lambda b, x, y: _one_minus_square(b, y))),
    Unary("asinh", "Inverse hyperbolic sine.", _REAL, np.arcsinh, _math("asinh"),
     lambda b, c, d: (b.div(d, _sqrt_one(b, c.inputs[0], 1, 1)),)),
    Unary("acosh", "Inverse hyperbolic cosine.", _REAL, np.arccosh, _math("acosh"),
     lambda b, c, d: (b.div(d, _sqrt_one(b, c.inputs[0], 1, -1)),)),
    Unary("atanh", "Inverse hyperbolic tangent.", _REAL, np.arctanh, _math("atanh"),
     lambda b, c, d: (b.div(d, _one_minus_square(b, c.inputs[0])),)),
    Unary("erf", "Error function.", _REAL, _erf_reference, lambda b, x, dtype: lane_math.erf(b, x),
     _times(lambda b, x, y: b.mul(b.scalar(2 / np.sqrt(np.pi), x), b.exp(b.neg(b.mul(x, x)))))),
    Unary("sigmoid", "1 / (1 + exp(-x)).", _REAL, lambda x: 1 / (1 + np.exp(-x)),
     lambda b, x, dtype: lane_math.sigmoid(b, x),
     _times(lambda b, x, y: b.mul(y, b.sub(b.scalar(1, y), y)))),
    Unary("floor", "Largest integer not above x.", _REAL, np.floor, _math("floor"), _none),
    Unary("ceil", "Smallest integer not below x.", _REAL, np.ceil, _math("ceil"), _none),
    Unary("round", "Nearest integer, halves away from zero.", _REAL,
     lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x), _math("round"), _none),
    Unary("round_even", "Nearest integer, halves to the even one.", _REAL, np.rint,
     _math("roundeven"), _none),
    Unary("relu", "max(x, 0); -0.0 may stay.", NUMBERS, lambda x: np.maximum(x, 0), _relu,
     lambda b, c, d: (b.select(b.greater(c.outputs[0], b.scalar(0, d)), d, b.scalar(0, d)),)),
    Unary("not", "Bitwise (integers) or logical (bool) negation.", _BITS, np.invert,
     lambda b, x, dtype: b.xor(x, b.like(1 if dtype == BOOL else -1, x)), None),
)  # fmt: skip

_BINARY: tuple[Binary, ...] = (
    Binary("add", "x + y; integers wrap.", NUMBERS, np.add, _op("arith.addf", "arith.addi"),
     lambda b, c, d: (d, d)),
    Binary("sub", "x - y; integers wrap.", NUMBERS, np.subtract, _op("arith.subf", "arith.subi"),
     lambda b, c, d: (d, b.neg(d) if c.needs[1] else None)),
    Binary("mul", "x * y; integers wrap.", NUMBERS, np.multiply, _op("arith.mulf", "arith.muli"),
     lambda b, c, d: (b.mul(d, c.inputs[1]) if c.needs[0] else None,
                      b.mul(d, c.inputs[0]) if c.needs[1] else None)),
    Binary("div", "x / y.", _REAL, np.divide, _op("arith.divf"),
     lambda b, c, d: (b.div(d, c.inputs[1]) if c.needs[0] else None,
                      b.neg(b.div(b.mul(d, c.outputs[0]), c.inputs[1])) if c.needs[1] else None)),
    Binary("floor_div", "floor(x / y); an integer divided by 0 is 0.", NUMBERS,
     lambda x, y: np.floor(x / y) if x.dtype.kind == "f" else np.floor_divide(x, y),
     _floor_div, _none),
    Binary("mod", "x - floor_div(x, y) * y, with the sign of y; an integer modulo 0 is 0.", NUMBERS,
     np.mod, _mod, _grad_mod),
    Binary("pow", "x to the power y.", _REAL, _pow_reference,
     lambda b, x, y, dtype: lane_math.pow(b, x, y), _grad_pow),
    Binary("maximum", "The larger; NaN if either is NaN.", NUMBERS, np.maximum,
     _op("arith.maximumf", "arith.maxsi", "arith.maxui"), _grad_extremum("greater")),
    Binary("minimum", "The smaller; NaN if either is NaN.", NUMBERS, np.minimum,
     _op("arith.minimumf", "arith.minsi", "arith.minui"), _grad_extremum("less")),
    Binary("atan2", "Angle of the point (y, x) in radians.", _REAL, np.arctan2,
     lambda b, y, x, dtype: b.op("math.atan2", (y, x), x.ty), _grad_atan2),
    Binary("and", "Bitwise (integers) or logical (bool) and.", _BITS, np.bitwise_and,
     lambda b, x, y, dtype: b.and_(x, y), None),
    Binary("or", "Bitwise (integers) or logical (bool) or.", _BITS, np.bitwise_or,
     lambda b, x, y, dtype: b.or_(x, y), None),
    Binary("xor", "Bitwise (integers) or logical (bool) exclusive or.", _BITS, np.bitwise_xor,
     lambda b, x, y, dtype: b.xor(x, y), None),
    Binary("shift_left", "x << y; 0 when y reaches the width.", INTEGERS,
     lambda x, y: _shift_reference(x, y, left=True),
     lambda b, x, y, dtype: _shift(b, x, y, dtype, left=True), None),
    Binary("shift_right", "x >> y, arithmetic for signed dtypes.", INTEGERS,
     lambda x, y: _shift_reference(x, y, left=False),
     lambda b, x, y, dtype: _shift(b, x, y, dtype, left=False), None),
)  # fmt: skip

_COMPARE: tuple[Compare, ...] = (
    Compare("equal", "x == y; false with NaN.", np.equal, _compare("oeq", "eq", "eq")),
    Compare("not_equal", "x != y; true with NaN.", np.not_equal, _compare("une", "ne", "ne")),
    Compare("less", "x < y.", np.less, _compare("olt", "slt", "ult")),
    Compare("less_equal", "x <= y.", np.less_equal, _compare("ole", "sle", "ule")),
    Compare("greater", "x > y.", np.greater, _compare("ogt", "sgt", "ugt")),
    Compare("greater_equal", "x >= y.", np.greater_equal, _compare("oge", "sge", "uge")),
)

_TEST: tuple[Predicate, ...] = (
    Predicate("is_nan", "Whether x is NaN.", np.isnan, lambda b, x, dtype: b.cmpf("uno", x, x)),
    Predicate("is_inf", "Whether x is infinite.", np.isinf,
     lambda b, x, dtype: b.cmpf("oeq", b.math("absf", x), b.like(float("inf"), x))),
)  # fmt: skip

UNARY = tuple(_define(row, row.dtypes, row.gradient) for row in _UNARY)
BINARY = tuple(_define(row, row.dtypes, row.gradient) for row in _BINARY)
COMPARE = tuple(_define(row, ANY, None, BOOL) for row in _COMPARE)
TESTS = tuple(_define(row, FLOATS, None, BOOL) for row in _TEST)


@mge_op
class SelectOp(ElementwiseOp):
    """`lhs` where `condition` holds, `rhs` elsewhere.

    Shapes: the three broadcast to each other. Dtypes: condition bool, lhs and rhs equal.
    """

    name = "mge.select"

    @staticmethod
    def infer(condition: TensorSpec, lhs: TensorSpec, rhs: TensorSpec) -> TensorSpec:
        check_dtype("select", "condition", condition.dtype, (BOOL,))
        if lhs.dtype != rhs.dtype:
            raise DTypeError(
                f"select: lhs is {lhs.dtype.name} but rhs is {rhs.dtype.name}",
                values=[("lhs", str(lhs), ""), ("rhs", str(rhs), "")],
                fix="convert one of them with astype",
            )
        shape = broadcast_shapes("select", condition.shape, lhs.shape, rhs.shape)
        return TensorSpec(shape, lhs.dtype)


@lanes(SelectOp)
def _select_lanes(b: LaneBuilder, condition: Lane, lhs: Lane, rhs: Lane, **_: Any) -> Lane:
    return b.select(condition, lhs, rhs)


@reference(SelectOp)
def _select_reference(condition: Any, lhs: Any, rhs: Any) -> Any:
    where: Any = np.where  # its overloads do not know Any
    return where(condition, lhs, rhs)


@gradient(SelectOp)
def _select_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
    zero = b.scalar(0, d_out)
    _, lhs, rhs = call.specs
    d_lhs = b.sum_to(b.select(call.inputs[0], d_out, zero), lhs.shape) if call.needs[1] else None
    d_rhs = b.sum_to(b.select(call.inputs[0], zero, d_out), rhs.shape) if call.needs[2] else None
    return None, d_lhs, d_rhs


@mge_op
class CastOp(ElementwiseOp):
    """Converts to another dtype as NumPy's `astype`: floats truncate, anything to bool is != 0.

    Shapes: any. Dtypes: any to any.
    """

    name = "mge.cast"

    @staticmethod
    def infer(inp: TensorSpec, *, dtype: DType) -> TensorSpec:
        return TensorSpec(inp.shape, dtype)


@lanes(CastOp)
def _cast_lanes(b: LaneBuilder, x: Lane, dtype: DType, result: DType, **_: Any) -> Lane:
    return b.convert(x, dtype, result)


@reference(CastOp)
def _cast_reference(inp: Any, *, dtype: DType) -> Any:
    if inp.dtype == FLOAT64 and dtype.kind in "iu" and dtype.itemsize < 4:
        return inp.astype(np.int32).astype(dtype)
    return inp.astype(dtype)


@gradient(CastOp)
def _cast_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.cast(d_out, call.specs[0].dtype),)


OPS = (*UNARY, *BINARY, *COMPARE, *TESTS, SelectOp, CastOp)
