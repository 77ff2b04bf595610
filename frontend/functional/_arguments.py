"""What the functions share: reading arguments in the forms that users write them.

The ops take canonical attributes (non-negative axes, tuples of ints). Everything a user may
write instead (negative axes, one int for a pair, names of modes) ends here, with an error
that names the function and the argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mgec.core.promote import as_float, operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, AxisError, DTypeError, ShapeError

__all__ = [
    "as_float_tensor",
    "as_index",
    "as_number",
    "as_shape",
    "as_tensor",
    "axes_of",
    "axis_of",
    "check_broadcast",
    "check_choice",
    "check_rank",
    "is_int",
    "pair",
]


def is_int(value: object) -> bool:
    """Whether a value is an integer of Python or NumPy (bool is not one here)."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def as_tensor(name: str, value: Any) -> Tensor:
    """A tensor from whatever stands for one: a tensor, an array, a sequence or a number."""
    return value if isinstance(value, Tensor) else operands(name, (value,))[0]


def as_float_tensor(name: str, value: Any) -> Tensor:
    """As `as_tensor`, with integers and bools as float32."""
    return as_float(as_tensor(name, value))


def as_index(name: str, argument: str, value: Any) -> int:
    """An integer argument: an int, a NumPy integer or a tensor with one integer."""
    if is_int(value):
        return int(value)
    if isinstance(value, Tensor | np.ndarray) and value.size == 1 and value.dtype != np.bool_:
        return int(value.item()) if isinstance(value, np.ndarray) else value.__index__()
    raise ArgumentError(
        f"{name}: {argument} is {value!r}, not an integer", fix=f"pass an int as {argument}"
    )


def as_number(name: str, argument: str, value: Any) -> float | int:
    """A number argument: a number of Python or NumPy, or a tensor with one element."""
    if isinstance(value, Tensor | np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if isinstance(value, int | float):
        return value
    raise ArgumentError(
        f"{name}: {argument} is {value!r}, not a number", fix=f"pass a number as {argument}"
    )


def as_shape(name: str, shape: Any, argument: str = "shape") -> tuple[int, ...]:
    """A shape given as an int, a sequence of ints or a one-dimensional integer tensor."""
    if isinstance(shape, Tensor | np.ndarray):
        shape = shape.tolist()
    values = shape if isinstance(shape, Iterable) else (shape,)
    return tuple(as_index(name, argument, size) for size in values)


def axis_of(name: str, axis: Any, rank: int) -> int:
    """One axis, counted from the front.

    Args:
        name: the function, for the error.
        axis: -rank <= axis < rank.
        rank: number of axes there are.

    Raises:
        AxisError: if there is no such axis.
    """
    found = as_index(name, "axis", axis)
    if not -rank <= found < rank:
        raise AxisError(
            f"{name}: axis {found} is out of range for rank {rank}",
            fix=f"use an axis from {-rank} to {rank - 1}" if rank else "the tensor has no axes",
        )
    return found % rank


def axes_of(name: str, axis: Any, rank: int) -> tuple[int, ...]:
    """Several axes, sorted and counted from the front; None means all of them.

    Raises:
        AxisError: if one does not exist or is named twice.
    """
    if axis is None:
        return tuple(range(rank))
    many = axis if isinstance(axis, Sequence) else (axis,)
    found = tuple(axis_of(name, a, rank) for a in many)
    if len(set(found)) != len(found):
        raise AxisError(
            f"{name}: axis {tuple(many)} names an axis of rank {rank} twice",
            fix="name each axis once",
        )
    return tuple(sorted(found))


_COUNTS = {1: "one int", 2: "two ints", 3: "three ints"}
_AXES = {1: "(length,)", 2: "(height, width)", 3: "(depth, height, width)"}


def per_axis(name: str, argument: str, value: Any, axes: int) -> tuple[int, ...]:
    """A size for one to three spatial axes: one int for all, or one for each."""
    if is_int(value):
        return (int(value),) * axes
    if isinstance(value, Sequence | np.ndarray) and len(value) == axes:
        return tuple(as_index(name, argument, size) for size in value)
    raise ArgumentError(
        f"{name}: {argument} is {value!r}, not an int or {_COUNTS[axes]}",
        fix=f"pass {argument} as an int, or as {_AXES[axes]}",
    )


def pair(name: str, argument: str, value: Any) -> tuple[int, int]:
    """A size for two dimensions: one int for both, or two ints (height, width)."""
    height, width = per_axis(name, argument, value, 2)
    return height, width


def triple(name: str, argument: str, value: Any) -> tuple[int, int, int]:
    """A size for three dimensions: one int for all, or three ints (depth, height, width)."""
    depth, height, width = per_axis(name, argument, value, 3)
    return depth, height, width


def check_choice(name: str, argument: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ArgumentError unless `value` is one of `choices`."""
    known = tuple(choices)
    if value not in known:
        raise ArgumentError(
            f"{name}: {argument} is {value!r}, which does not exist",
            fix=f"use one of {', '.join(map(repr, known))}",
        )


def check_broadcast(name: str, **values: Tensor) -> None:
    """Raises ShapeError unless the tensors, given by argument name, broadcast."""
    try:
        np.broadcast_shapes(*(value.shape for value in values.values()))
    except ValueError:
        shapes = [f"{argument} {value.shape}" for argument, value in values.items()]
        raise ShapeError(
            f"{name}: the shapes of {', '.join(shapes)} do not broadcast",
            values=list(values.items()),
            fix="make the sizes of each axis equal, or 1",
        ) from None


def check_rank(name: str, argument: str, value: Tensor, ranks: Sequence[int], role: str) -> None:
    """Raises ShapeError unless the tensor has one of the ranks.

    Args:
        name: the function.
        argument: what the function calls the tensor.
        value: the tensor.
        ranks: ranks that are legal.
        role: what the axes mean: "(N, C, H, W)".
    """
    if value.ndim not in ranks:
        wanted = " or ".join(str(rank) for rank in ranks)
        raise ShapeError(
            f"{name}: {argument} has rank {value.ndim} but must have rank {wanted}",
            values=[(argument, value, role)],
            fix=f"reshape {argument} to {role}",
        )


def check_bool(name: str, argument: str, value: Tensor) -> None:
    """Raises DTypeError unless the tensor is bool."""
    if value.dtype is not np.bool_:
        raise DTypeError(
            f"{name}: {argument} must be bool, but is {np.dtype(value.dtype).name}",
            values=[(argument, value)],
            fix=f"compare first, e.g. {argument} != 0",
        )
