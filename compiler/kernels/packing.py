"""How constants lie in memory for the kernels that read them.

A kernel may want an operand in an order of its own: panels of a matrix, weights transformed
for Winograd's algorithm. Where the operand is a constant of the graph, the compiler brings it
into that order once. A `Packing` says how, as data, so that a kernel from the cache still
knows what its constants have to look like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias, cast

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Parameter: TypeAlias = "int | str | tuple[int, ...]"


@dataclass(frozen=True)
class Packing:
    """The order that a kernel wants a constant in.

    Attributes:
        kind: which function brings it into that order; see `packing`.
        parameters: what that function is given besides the array.
    """

    kind: str
    parameters: tuple[Parameter, ...] = ()

    def apply(self, array: Array) -> Array:
        """The packed constant."""
        return np.ascontiguousarray(_FUNCTIONS[self.kind](array, *self.parameters))

    def to_json(self) -> list[Any]:
        """Plain lists, for caches."""
        return [self.kind, *(list(p) if isinstance(p, tuple) else p for p in self.parameters)]

    @staticmethod
    def from_json(data: list[Any]) -> Packing:
        """Inverse of `to_json`."""
        kind, *parameters = data
        return Packing(
            kind,
            tuple(
                tuple(cast("list[int]", p)) if isinstance(p, list) else cast("Parameter", p)
                for p in parameters
            ),
        )


_FUNCTIONS: dict[str, Callable[..., Array]] = {}


def packing(kind: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Registers a function `(array, *parameters) -> array` under a name."""

    def register(function: Callable[..., Array]) -> Callable[..., Array]:
        assert kind not in _FUNCTIONS, f"there are two packings called {kind}"
        _FUNCTIONS[kind] = function
        return function

    return register


@packing("panels")
def pack_panels(
    array: Array,
    shape: tuple[int, ...],
    order: tuple[int, ...],
    n_axes: int,
    k_axes: int,
    width: int,
    group: int = 1,
) -> Array:
    """Panels of a matrix, or of a batch of matrices: `width` columns, one row after the other.

    Args:
        array: any tensor.
        shape: the shape to see it in: one axis for each loop.
        order: those axes as (batch..., K..., N...).
        n_axes: how many of them, at the end, make up N.
        k_axes: how many before those make up K.
        width: columns of a panel.
        group: rows that stand together, column by column; K is a multiple of it.

    Returns:
        An array [batch, ceil(N / width), K / group, width, group], zero in the columns beyond N.
    """
    moved = array.reshape(shape).transpose(order)
    split = moved.ndim - n_axes
    sizes = moved.shape
    n, depth, batch = (
        prod(part)
        for part in (sizes[split:], sizes[split - k_axes : split], sizes[: split - k_axes])
    )
    panels = -(-n // width)
    matrix = moved.reshape(batch, depth, n)
    result = np.zeros((batch, panels, depth, width), array.dtype)
    whole = n // width
    if whole:
        body = matrix[:, :, : whole * width].reshape(batch, depth, whole, width)
        result[:, :whole] = body.transpose(0, 2, 1, 3)
    if n % width:
        result[:, whole, :, : n % width] = matrix[:, :, whole * width :]
    if group == 1:
        return result[..., np.newaxis]
    return result.reshape(batch, panels, depth // group, group, width).swapaxes(-1, -2)
