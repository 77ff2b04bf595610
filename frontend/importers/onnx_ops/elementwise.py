"""Elementwise ONNX ops: arithmetic, comparisons, logic, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mgec.dialects.mge.elementwise import broadcast_shapes
from mgec.dialects.mge.spec import (
    BOOL,
    DTYPES,
    FLOAT32,
    FLOAT64,
    DType,
    is_float,
    is_integer,
)
from mgec.importers.onnx_file import dtype_of, type_name
from mgec.importers.onnx_node import Node, Unsupported, onnx_op
from mgec.importers.onnx_value import Value

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
    "Atan": "atan", "Atanh": "atanh", "BitwiseNot": "not", "Ceil": "ceil", "Cos": "cos",
    "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "IsNaN": "is_nan",
    "Log": "log", "Neg": "neg", "Not": "not", "Reciprocal": "reciprocal", "Relu": "relu",
    "Round": "round_even", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh",
    "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "And": "and", "BitwiseAnd": "and", "BitwiseOr": "or", "BitwiseXor": "xor",
    "Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less",
    "LessOrEqual": "less_equal", "Mul": "mul", "Or": "or", "Sub": "sub", "Xor": "xor",
}  # fmt: skip


def _unary(name: str) -> Callable[[Any, Node], Value]:
    def handler(b: Any, node: Node) -> Value:
        return getattr(b, name)(node.x(0))

    return documented(handler, name)


def documented(handler: Callable[..., Any], op: str) -> Callable[..., Any]:
    """A handler that says which op of mge it is."""
    handler.__doc__ = f"`mge.{op}`."
    return handler


for _onnx_name, _mge_name in _UNARY.items():
    onnx_op(_onnx_name)(_unary(_mge_name))


def operands(b: Any, node: Node) -> tuple[Value, Value]:
    """The two operands of a binary op; before opset 7 the second is aligned by an attribute."""
    x, y = node.x(0), node.x(1)
    node.ignore("axis")
    axis = node.attr("axis") if node.attr("broadcast", 0) else None
    if axis is not None and y.rank:
        start = node.normal_axis(int(axis), x.rank)
        if start + y.rank > x.rank:
            raise Unsupported(f"a second operand of rank {y.rank} at axis {axis}")
        y = b.reshape(y, (*y.shape, *(1,) * (x.rank - start - y.rank)))
    return x, y


def _binary(name: str) -> Callable[[Any, Node], Value]:
    def handler(b: Any, node: Node) -> Value:
        return getattr(b, name)(*operands(b, node))

    return documented(handler, name)


for _onnx_name, _mge_name in _BINARY.items():
    onnx_op(_onnx_name)(_binary(_mge_name))


# -- division and powers ---------------------------------------------------------------


def truncated_quotient(b: Any, x: Value, y: Value) -> Value:
    """x / y of integers, rounded toward zero."""
    quotient = b.floor_div(x, y)
    if x.dtype.kind == "u":
        return quotient
    remainder = b.sub(x, b.mul(quotient, y))
    zero = b.scalar(0, x)
    # The floor is one too low where the signs differ and the quotient is not whole. An x of 0
    # or a divisor of 0 leaves no such remainder, or an undefined result.
    differs = b.less(b.xor(x, y), zero)
    up = getattr(b, "and")(differs, b.not_equal(remainder, zero))
    return b.add(quotient, b.cast(up, x.dtype))


@onnx_op("Div")
def div(b: Any, node: Node) -> Value:
    """Integers round toward zero."""
    x, y = operands(b, node)
    return truncated_quotient(b, x, y) if is_integer(x.dtype) else b.div(x, y)


@onnx_op("Mod")
def mod(b: Any, node: Node) -> Value:
    """The sign of the divisor with fmod=0, of the dividend with fmod=1."""
    x, y = operands(b, node)
    if not node.flag("fmod"):
        if is_float(x.dtype) and node.version < 28:
            raise Unsupported("fmod=0 of floats, before opset 28")
        return b.mod(x, y)
    if is_integer(x.dtype):
        return b.sub(x, b.mul(truncated_quotient(b, x, y), y))
    rest = b.mod(b.abs(x), b.abs(y))
    return b.select(b.less(x, b.scalar(0, x)), b.neg(rest), rest)


@onnx_op("Pow")
def power(b: Any, node: Node) -> Value:
    """The result has the dtype of the base."""
    x, y = operands(b, node)
    if is_float(x.dtype):
        if y.array is not None and y.array.size == 1 and y.rank <= x.rank and y.array.flat[0] == 2:
            return b.mul(x, x)
        return b.pow(x, b.cast(y, x.dtype))
    if is_float(y.dtype):
        return _power_of_integer_by_float(b, x, y)
    return _power_of_integers(b, x, y)


def _power_of_integers(b: Any, x: Value, y: Value) -> Value:
    """Square and multiply, which wraps as integers do; a negative exponent gives 1/x."""
    both = getattr(b, "and")
    if y.array is not None and y.array.size:
        bits = max(int(y.array.max()), 0).bit_length()
    else:
        bits = y.dtype.itemsize * 8 - (y.dtype.kind == "i")
    one_bit, none = b.scalar(1, y), b.scalar(0, y)
    result, square = b.scalar(1, x), x
    for i in range(bits):
        set_ = b.not_equal(both(b.shift_right(y, b.scalar(i, y)), one_bit), none)
        result = b.select(set_, b.mul(result, square), result)
        if i + 1 < bits:
            square = b.mul(square, square)
    if y.dtype.kind == "i" and (y.array is None or (y.array < 0).any()):
        one = b.scalar(1, x)
        odd = b.not_equal(both(y, one_bit), none)
        inverse = b.select(b.equal(x, one), one, b.scalar(0, x))
        if x.dtype.kind == "i":
            minus = b.scalar(-1, x)
            unit = b.select(odd, minus, one)
            inverse = b.select(b.equal(x, minus), unit, inverse)
        result = b.select(b.less(y, none), inverse, result)
    return b.broadcast(result, broadcast_shapes("pow", x.shape, y.shape))


def _power_of_integer_by_float(b: Any, x: Value, y: Value) -> Value:
    """In float64; what is a whole number but for rounding becomes that number."""
    value = b.pow(b.cast(x, FLOAT64), b.cast(y, FLOAT64))
    whole = b.round_even(value)
    near = b.less_equal(b.abs(b.sub(value, whole)), b.mul(b.abs(whole), b.scalar(1e-14, whole)))
    return b.cast(b.select(near, whole, value), x.dtype)


# -- of any number of operands -----------------------------------------------------------


def _variadic(name: str) -> Callable[[Any, Node], Value]:
    def handler(b: Any, node: Node) -> Value:
        total = node.x(0)
        for i in range(1, len(node.inputs)):
            total = getattr(b, name)(total, node.x(i))
        return total

    return documented(handler, name)


for _onnx_name, _mge_name in {"Max": "maximum", "Min": "minimum", "Sum": "add"}.items():
    onnx_op(_onnx_name)(_variadic(_mge_name))


@onnx_op("Mean")
def mean(b: Any, node: Node) -> Value:
    """The sum, divided by how many there are."""
    total = _variadic("add")(b, node)
    return b.div(total, b.scalar(len(node.inputs), total))


@onnx_op("Clip")
def clip(b: Any, node: Node) -> Value:
    """min(max(x, low), high): the upper bound wins, and NaN stays NaN."""
    x = node.x(0)
    if node.version < 11:
        low, high = (b.scalar(node.attr(name), x) for name in ("min", "max"))
    else:
        low, high = node.optional(1), node.optional(2)
    for bound in (low, high):
        known = None if bound is None or not is_float(bound.dtype) else bound.array
        if known is not None and np.isnan(known.astype(np.float64)).any():
            raise Unsupported("a bound that is NaN")
    if low is not None:
        x = b.maximum(x, _scalar(b, low))
    return x if high is None else b.minimum(x, _scalar(b, high))


def _scalar(b: Any, value: Value) -> Value:
    """A bound, which may be a tensor of one element."""
    if value.spec.size != 1:
        raise Unsupported(f"a bound of shape {value.shape}")
    return b.reshape(value, ())


@onnx_op("Where")
def where(b: Any, node: Node) -> Value:
    """lhs where the condition holds."""
    return b.select(node.x(0), node.x(1), node.x(2))


@onnx_op("BitShift")
def bit_shift(b: Any, node: Node) -> Value:
    """Shifts of unsigned integers."""
    direction = node.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise Unsupported(f"direction {direction!r}")
    x, y = operands(b, node)
    return b.shift_left(x, y) if direction == "LEFT" else b.shift_right(x, y)


@onnx_op("IsInf")
def is_inf(b: Any, node: Node) -> Value:
    """Infinite; with only one sign if the other is not to be detected."""
    x = node.x(0)
    node.need_float(x)
    positive, negative = (bool(node.attr(f"detect_{s}")) for s in ("positive", "negative"))
    if positive and negative:
        return b.is_inf(x)
    if not positive and not negative:
        return b.full(x.shape, 0, BOOL)
    return b.equal(x, b.scalar(np.inf if positive else -np.inf, x))


# -- dtypes ----------------------------------------------------------------------------


def cast(b: Any, x: Value, dtype: DType) -> Value:
    """x in another dtype; constants may come from dtypes that mge has not."""
    if dtype not in DTYPES:
        raise Unsupported(f"dtype {dtype.name}")
    if x.dtype not in DTYPES:
        if x.array is None or x.dtype == np.dtype(object):
            raise Unsupported(f"dtype {x.dtype.name}")
        x = Value(x.array.astype(FLOAT32))
    return b.cast(x, dtype)


@onnx_op("Cast")
def cast_op(b: Any, node: Node) -> Value:
    """To the element type `to`; floats truncate."""
    to = node.int("to")
    node.ignore("saturate", "round_mode")  # of 8-bit floats
    dtype = dtype_of(to)
    if dtype not in DTYPES:
        raise Unsupported(f"element type {type_name(to)}")
    return cast(b, node.x(0), dtype)


@onnx_op("CastLike")
def cast_like(b: Any, node: Node) -> Value:
    """To the element type of the second input."""
    node.ignore("saturate", "round_mode")  # of 8-bit floats
    return cast(b, node.x(0), node.x(1).dtype)


@onnx_op("BitCast")
def bit_cast(b: Any, node: Node) -> Value:
    """The same bytes under another element type; only of constants, or the same type."""
    x, dtype = node.x(0), dtype_of(node.int("to"))
    if dtype == x.dtype:
        return x
    if x.array is None:
        raise Unsupported("a tensor that is not constant")
    return Value(np.ascontiguousarray(x.array).view(dtype))


@onnx_op("Identity")
def identity(b: Any, node: Node) -> Any:
    """The input."""
    return node.inputs[0]


@onnx_op("Dropout")
def dropout(b: Any, node: Node) -> tuple[Value, ...]:
    """The input: at inference nothing is dropped."""
    x = node.x(0)
    node.ignore("ratio", "seed", "is_test")
    training = False
    if node.version >= 12 and node.has_input(2):
        training = bool(node.known(2, "training_mode").reshape(-1)[0])
    elif node.version < 7:
        training = not node.flag("is_test")
    if training:
        ratio = 0.5
        if node.version < 12:
            ratio = float(node.attr("ratio"))
        elif node.has_input(1):
            ratio = float(node.known(1, "ratio").reshape(-1)[0])
        if ratio != 0:
            raise Unsupported("dropout in training mode")
    mask_dtype = BOOL if node.version >= 10 else x.dtype
    return (x, b.full(x.shape, 1, mask_dtype)) if node.num_outputs > 1 else (x,)
