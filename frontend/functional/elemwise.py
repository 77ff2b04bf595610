"""Elementwise functions: operands broadcast, dtypes promote as in MegEngine.

A Python number follows the tensors it meets (``float16 + 1`` is float16); integers become
float32 where the result is a real number (`exp`, `div`, `pow`, ...). See docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.operators import binary, binary_float
from mgec.core.promote import FLOAT32, category, operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError
from mgec.functional._arguments import as_float_tensor, as_tensor

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "div",
    "equal",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "floor",
    "floor_div",
    "greater",
    "greater_equal",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "mul",
    "neg",
    "not_equal",
    "pow",
    "right_shift",
    "round",
    "rsqrt",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "tan",
    "tanh",
]


_ONE = """{doc}{note}

Args:
    x: numbers of any shape.

Returns:
    A tensor of the shape of `x`.
"""
_TWO = """{doc}

Args:
    x: tensor or number.
    y: tensor or number; the two broadcast.

Returns:
    A tensor of the broadcast shape.
"""


def _named(function: Any, name: str, doc: str) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    function.__module__ = __name__
    return function


def _unary(name: str, doc: str) -> Callable[[Any], Tensor]:
    """A function of numbers that keeps their dtype."""

    def function(x: Any) -> Tensor:
        return dispatch.call(name, as_tensor(name, x))

    return _named(function, name, _ONE.format(doc=doc, note=""))


def _unary_float(name: str, doc: str) -> Callable[[Any], Tensor]:
    """A function of real numbers; integers become float32."""

    def function(x: Any) -> Tensor:
        return dispatch.call(name, as_float_tensor(name, x))

    return _named(function, name, _ONE.format(doc=doc, note=" Integers are taken as float32."))


def _rounding(name: str, doc: str) -> Callable[[Any], Tensor]:
    """A function that leaves integers as they are."""

    def function(x: Any) -> Tensor:
        inp = as_tensor(name, x)
        return inp if category(inp._spec.dtype) < 2 else dispatch.call(name, inp)

    return _named(function, name, _ONE.format(doc=doc, note=" Integers stay what they are."))


def _binary(op: str, doc: str, name: str = "", make: Any = binary) -> Callable[[Any, Any], Tensor]:
    """A function of two operands, of which one may be a Python number."""
    inner = make(op)

    def function(x: Any, y: Any) -> Tensor:
        return inner(x, y)

    return _named(function, name or op, _TWO.format(doc=doc))


abs = _unary("abs", "Absolute value.")
neg = _unary("neg", "-x.")
sign = _unary("sign", "-1, 0 or 1, as the sign of x.")

exp = _unary_float("exp", "e to the power x.")
expm1 = _unary_float("expm1", "exp(x) - 1, accurate near 0.")
log = _unary_float("log", "Natural logarithm.")
log1p = _unary_float("log1p", "log(1 + x), accurate near 0.")
sqrt = _unary_float("sqrt", "Square root.")
rsqrt = _unary_float("rsqrt", "1 / sqrt(x).")
sin = _unary_float("sin", "Sine of radians.")
cos = _unary_float("cos", "Cosine of radians.")
tan = _unary_float("tan", "Tangent of radians.")
asin = _unary_float("asin", "Inverse sine.")
acos = _unary_float("acos", "Inverse cosine.")
atan = _unary_float("atan", "Inverse tangent.")
sinh = _unary_float("sinh", "Hyperbolic sine.")
cosh = _unary_float("cosh", "Hyperbolic cosine.")
tanh = _unary_float("tanh", "Hyperbolic tangent.")
asinh = _unary_float("asinh", "Inverse hyperbolic sine.")
acosh = _unary_float("acosh", "Inverse hyperbolic cosine.")
atanh = _unary_float("atanh", "Inverse hyperbolic tangent.")
erf = _unary_float("erf", "Error function.")

floor = _rounding("floor", "The largest integer not above x.")
ceil = _rounding("ceil", "The smallest integer not below x.")
round = _rounding("round", "The nearest integer, halves away from zero.")

add = _binary("add", "x + y.")
sub = _binary("sub", "x - y.")
mul = _binary("mul", "x * y.")
div = _binary("div", "x / y; integers divide as float32.", make=binary_float)
floor_div = _binary("floor_div", "floor(x / y), in the dtype of the operands.")
mod = _binary("mod", "The remainder of `floor_div`, with the sign of y.")
pow = _binary("pow", "x to the power y; integers are taken as float32.", make=binary_float)
maximum = _binary("maximum", "The larger of x and y; NaN if either is NaN.")
minimum = _binary("minimum", "The smaller of x and y; NaN if either is NaN.")
atan2 = _binary("atan2", "The angle of the point (y, x): the first argument is the ordinate.",
                make=binary_float)  # fmt: skip
left_shift = _binary("shift_left", "x * 2**y, for integers.", "left_shift")
right_shift = _binary("shift_right", "floor(x / 2**y), for integers.", "right_shift")
equal = _binary("equal", "Where x == y, as bool.")
not_equal = _binary("not_equal", "Where x != y, as bool.")
less = _binary("less", "Where x < y, as bool.")
less_equal = _binary("less_equal", "Where x <= y, as bool.")
greater = _binary("greater", "Where x > y, as bool.")
greater_equal = _binary("greater_equal", "Where x >= y, as bool.")


def _truth(name: str, x: Any) -> Tensor:
    inp = as_tensor(name, x)
    return inp if inp.dtype is np.bool_ else not_equal(inp, 0)


def logical_and(x: Any, y: Any) -> Tensor:
    """Where x and y both hold; numbers hold where they are not 0.

    Args:
        x: tensor or number.
        y: tensor or number; the two broadcast.

    Returns:
        A bool tensor.
    """
    return dispatch.call("and", _truth("logical_and", x), _truth("logical_and", y))


def logical_or(x: Any, y: Any) -> Tensor:
    """Where x or y holds; see `logical_and`."""
    return dispatch.call("or", _truth("logical_or", x), _truth("logical_or", y))


def logical_xor(x: Any, y: Any) -> Tensor:
    """Where exactly one of x and y holds; see `logical_and`."""
    return dispatch.call("xor", _truth("logical_xor", x), _truth("logical_xor", y))


def logical_not(x: Any) -> Tensor:
    """Where x does not hold; see `logical_and`."""
    return dispatch.call("not", _truth("logical_not", x))


def square(x: Any) -> Tensor:
    """x * x, in the dtype of x."""
    return dispatch.call("square", as_tensor("square", x))


def erfc(x: Any) -> Tensor:
    """1 - erf(x)."""
    return sub(1.0, erf(x))


def logaddexp(x: Any, y: Any) -> Tensor:
    """log(exp(x) + exp(y)), without overflow.

    Args:
        x: tensor or number; integers are taken as float32.
        y: tensor or number; the two broadcast.

    Returns:
        A floating point tensor of the broadcast shape.
    """
    a, b = operands("logaddexp", (x, y))
    if category(a._spec.dtype) < 2:
        a, b = operands("logaddexp", (a, b), FLOAT32)
    return dispatch.call("logaddexp", a, b)


def clip(x: Any, lower: Any = None, upper: Any = None) -> Tensor:
    """Values below `lower` become `lower`, values above `upper` become `upper`.

    Args:
        x: numbers of any shape.
        lower: number or tensor; None for no lower bound.
        upper: number or tensor; None for no upper bound.

    Returns:
        A tensor of the shape of `x` (broadcast with tensor bounds).

    Raises:
        ArgumentError: if both bounds are None, or lower > upper.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.clip(mge.tensor([-2.0, 0.5, 3.0]), -1, 1)
        Tensor([-1.   0.5  1. ], device=xpux:0)
    """
    if lower is None and upper is None:
        raise ArgumentError("clip: both bounds are None", fix="give lower, upper or both")
    inp = as_tensor("clip", x)
    given = [bound for bound in (lower, upper) if bound is not None]
    is_float = category(inp._spec.dtype) == 2
    if all(isinstance(b, int) or (is_float and isinstance(b, float)) for b in given):
        bounds = {"lower": lower, "upper": upper}
        numbers = {key: float(b) for key, b in bounds.items() if b is not None}
        return dispatch.call("clip", inp, **numbers)
    if lower is not None:
        inp = maximum(inp, lower)
    if upper is not None:
        inp = minimum(inp, upper)
    return inp
