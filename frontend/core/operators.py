"""`a + b`, `a < b`, `-a`, ...: Python's operators on tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.tensor import Tensor
from mgec.errors import DTypeError


def binary(name: str) -> Callable[[Any, Any], Tensor]:
    """The function of two operands that promotes and applies `mge.<name>`."""

    def function(lhs: Any, rhs: Any) -> Tensor:
        if (
            isinstance(lhs, Tensor)
            and isinstance(rhs, Tensor)
            and lhs._spec.dtype is rhs._spec.dtype
        ):
            return dispatch.apply(dispatch.op_named(name), (lhs, rhs), _NO_ATTRS)[0]
        a, b = _promote().operands(name, (lhs, rhs))
        return dispatch.apply(dispatch.op_named(name), (a, b), _NO_ATTRS)[0]

    function.__name__ = name
    return function


def binary_float(name: str) -> Callable[[Any, Any], Tensor]:
    """As `binary`, for ops on floating point numbers: integers become float32."""

    def function(lhs: Any, rhs: Any) -> Tensor:
        promote = _promote()
        a, b = promote.operands(name, (lhs, rhs))
        if promote.category(a._spec.dtype) < 2:
            a, b = promote.operands(name, (lhs, rhs), promote.FLOAT32)
        return dispatch.apply(dispatch.op_named(name), (a, b), _NO_ATTRS)[0]

    function.__name__ = name
    return function


def logical(name: str) -> Callable[[Any, Any], Tensor]:
    """`&`, `|`, `^`: bool tensors only, as in MegEngine."""

    def function(lhs: Any, rhs: Any) -> Tensor:
        for x in (lhs, rhs):
            dtype = x._spec.dtype if isinstance(x, Tensor) else np.asarray(x).dtype
            if dtype != np.bool_:
                raise DTypeError(
                    f"{name}: operands must be bool, but one is {dtype.name}",
                    fix="compare first (x != 0), or use F.left_shift and friends for bits",
                )
        a, b = _promote().operands(name, (lhs, rhs))
        return dispatch.apply(dispatch.op_named(name), (a, b), _NO_ATTRS)[0]

    function.__name__ = name
    return function


_NO_ATTRS: dict[str, Any] = {}


def _promote() -> Any:
    from mgec.core import promote

    return promote


def _swap(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    return lambda self, other: function(other, self)


def _matmul(lhs: Any, rhs: Any) -> Tensor:
    import mgec.functional

    return mgec.functional.matmul(lhs, rhs)


def _invert(x: Tensor) -> Tensor:
    if x._spec.dtype != np.bool_:
        raise DTypeError(
            f"~: the operand must be bool, but is {x._spec.dtype.name}",
            values=[("x", str(x._spec), "")],
            fix="use F.logical_not after comparing with 0",
        )
    return dispatch.call("not", x)


def _attach() -> None:
    add, sub, mul = binary("add"), binary("sub"), binary("mul")
    div, power = binary_float("div"), binary_float("pow")
    floor_div, mod = binary("floor_div"), binary("mod")
    pairs = {
        "add": add, "sub": sub, "mul": mul, "truediv": div, "floordiv": floor_div, "mod": mod,
        "pow": power, "and": logical("and"), "or": logical("or"), "xor": logical("xor"),
        "lshift": binary("shift_left"), "rshift": binary("shift_right"), "matmul": _matmul,
    }  # fmt: skip
    table: dict[str, Any] = {}
    for name, function in pairs.items():
        table[f"__{name}__"] = lambda self, other, f=function: f(self, other)
        table[f"__r{name}__"] = _swap(function)
    for name, op in {
        "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
        "ge": "greater_equal",
    }.items():  # fmt: skip
        table[f"__{name}__"] = binary(op)
    table["__neg__"] = lambda self: dispatch.call("neg", self)
    table["__pos__"] = lambda self: self
    table["__abs__"] = lambda self: dispatch.call("abs", self)
    table["__invert__"] = _invert
    for name, function in table.items():
        setattr(Tensor, name, function)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
        # `a += b` rebinds a's value, so that other references see it, as in MegEngine.
        def in_place(self: Tensor, other: Any, f: Any = pairs[name]) -> Tensor:
            result = f(self, other)
            self._reset(result)
            return self

        setattr(Tensor, f"__i{name}__", in_place)


_attach()
