"""Pad, and padding by index for what has no op of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgec.dialects.mge.spec import BOOL, is_float
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, cut, onnx_op
from mgec.importers.onnx_value import Value

_NUMPY_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
_EXACT_INTEGERS = 1 << 53
"""Integers up to here are floats too: the pad value is an attribute of type float."""


@onnx_op("Pad")
def pad(b: Any, node: Node) -> Value:
    """Adds elements before and after each axis; a negative number takes some away."""
    x = node.x(0)
    pads = node.ints_or_input("pads", 1) or ()
    axes = tuple(range(x.rank))
    if node.has_input(3):
        axes = node.normal_axes(node.known_ints(3, "axes"), x.rank)
    if len(pads) != 2 * len(axes):
        raise ModelError(
            f"{len(pads)} pads for {len(axes)} axes",
            fix="the file may be damaged: export it again",
        )
    low, high = [0] * x.rank, [0] * x.rank
    for i, axis in enumerate(axes):
        low[axis], high[axis] = pads[i], pads[i + len(axes)]
    mode = node.attr("mode")
    node.ignore("value")
    if mode == "constant":
        return _constant(b, node, x, low, high)
    if mode not in _NUMPY_MODES:
        raise Unsupported(f"mode {mode!r}")
    if min((*low, *high), default=0) < 0:
        raise Unsupported(f"negative pads in mode {mode!r}")
    for axis, length in enumerate(x.shape):
        widths = (low[axis], high[axis])
        if any(widths):
            if length == 0:
                raise ModelError(
                    f"mode {mode!r} of an axis of size 0",
                    fix="the file may be damaged: export it again",
                )
            x = pad_axis(b, x, axis, widths, mode)
    return x


def pad_axis(b: Any, x: Value, axis: int, widths: tuple[int, int], mode: str) -> Value:
    """Pads one axis in one of NumPy's modes."""
    length = x.shape[axis]
    if mode == "edge" or (mode == "reflect" and max(widths) < length):
        low = tuple(widths[0] if i == axis else 0 for i in range(x.rank))
        high = tuple(widths[1] if i == axis else 0 for i in range(x.rank))
        return b.pad(x, low=low, high=high, mode="replicate" if mode == "edge" else mode)
    index = np.pad(np.arange(length), widths, mode=_NUMPY_MODES[mode])  # pyright: ignore
    return b.take(x, b.constant(index), axis=axis)


def _constant(b: Any, node: Node, x: Value, low: Sequence[int], high: Sequence[int]) -> Value:
    for axis, length in enumerate(x.shape):
        start, stop = max(-low[axis], 0), length - max(-high[axis], 0)
        if start > stop:
            raise ModelError(
                f"pads {low[axis]} and {high[axis]} take away more than axis {axis} has",
                fix="the file may be damaged: export it again",
            )
        x = cut(b, x, axis, start, stop)
    low, high = tuple(max(n, 0) for n in low), tuple(max(n, 0) for n in high)
    if not any((*low, *high)):
        return x
    if node.version < 11:
        return b.pad(x, low=low, high=high, value=float(node.attr("value")))
    fill = node.optional(2)
    if fill is None:
        return b.pad(x, low=low, high=high)
    if fill.spec.size != 1 or fill.dtype != x.dtype:
        raise ModelError(
            f"the value is {fill.spec}, but one {x.dtype.name} is needed",
            fix="the file may be damaged: export it again",
        )
    if fill.array is not None:
        number = fill.array.reshape(-1)[0]
        if is_float(x.dtype) or x.dtype == BOOL or abs(int(number)) <= _EXACT_INTEGERS:
            return b.pad(x, low=low, high=high, value=float(number))
    inside = b.pad(b.full(x.shape, 1, BOOL), low=low, high=high)
    return b.select(inside, b.pad(x, low=low, high=high), b.reshape(fill, ()))
