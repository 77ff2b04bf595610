"""GridSample: elements of an image at places that data gives, between them weighted sums."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

from mgec.dialects.mge.spec import INT64, row_major_strides
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, cut, onnx_op
from mgec.importers.onnx_value import Value

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_CUBIC_A = -0.75


@onnx_op("GridSample")
def grid_sample(b: Any, node: Node) -> Value:
    """Coordinates from -1 to 1 along each spatial axis, the last axis first."""
    x, grid = node.x(0), node.x(1)
    axes = x.rank - 2
    if axes < 1 or grid.rank != x.rank or grid.shape[-1] != axes or grid.shape[0] != x.shape[0]:
        raise ModelError(
            f"a grid {grid.spec} for {x.spec}", fix="the file may be damaged: export it again"
        )
    mode = node.attr("mode")
    mode = _MODES.get(mode, mode)
    padding = node.attr("padding_mode")
    if mode not in ("nearest", "linear", "cubic"):
        raise Unsupported(f"mode {mode!r}")
    if padding not in ("zeros", "border", "reflection"):
        raise Unsupported(f"padding_mode {padding!r}")
    node.need_float(x)
    sizes, align = x.shape[2:], node.flag("align_corners")
    n, channels, points = x.shape[0], x.shape[1], prod(grid.shape[1:-1])
    if 0 in sizes:
        raise Unsupported("an image without pixels")
    flat = b.reshape(grid, (n, points, axes))
    taps: list[list[tuple[Value, Value | None, Value | None]]] = []
    for i, size in enumerate(sizes):
        place = b.reshape(cut(b, flat, 2, axes - 1 - i, axes - i), (n, points))
        coordinate = _coordinate(b, place, size, mode, padding, align)
        taps.append(_taps(b, coordinate, size, mode, padding, align))
    image = b.reshape(x, (n, channels, prod(sizes)))
    total: Value | None = None
    for chosen in product(*taps):
        part = _pixels(b, image, chosen, sizes)
        total = part if total is None else b.add(total, part)
    assert total is not None
    return b.reshape(total, (n, channels, *grid.shape[1:-1]))


def _pixels(
    b: Any,
    image: Value,
    chosen: tuple[tuple[Value, Value | None, Value | None], ...],
    sizes: tuple[int, ...],
) -> Value:
    """One pixel for every point, times its weights; 0 where it is outside."""
    n, channels, _ = image.shape
    index: Value | None = None
    weight: Value | None = None
    inside: Value | None = None
    for (place, factor, valid), stride in zip(chosen, row_major_strides(sizes), strict=True):
        offset = b.mul(place, b.scalar(stride, place))
        index = offset if index is None else b.add(index, offset)
        if factor is not None:
            weight = factor if weight is None else b.mul(weight, factor)
        if valid is not None:
            inside = valid if inside is None else getattr(b, "and")(inside, valid)
    assert index is not None
    points = index.shape[1]
    row = (n, 1, points)
    pixels = b.gather(image, b.broadcast(b.reshape(index, row), (n, channels, points)), axis=2)
    if weight is not None:
        pixels = b.mul(pixels, b.cast(b.reshape(weight, row), image.dtype))
    if inside is not None:
        pixels = b.select(b.reshape(inside, row), pixels, b.scalar(0, pixels))
    return pixels


def _borders(size: int, align: bool) -> tuple[float, float]:
    return (0.0, size - 1.0) if align else (-0.5, size - 0.5)


def _coordinate(b: Any, place: Value, size: int, mode: str, padding: str, align: bool) -> Value:
    """From [-1, 1] to pixels, moved into the image as the padding says."""

    def number(value: float) -> Value:
        return b.scalar(value, place)

    moved = b.add(place, number(1))
    if align:
        x = b.mul(moved, number((size - 1) / 2))
    else:
        x = b.mul(b.sub(b.mul(moved, number(size)), number(1)), number(0.5))
    if mode == "nearest":
        x = b.round_even(x)
    low, high = _borders(size, align)
    if padding == "border" and mode != "cubic":  # of which only the pixels are moved inside
        outside = getattr(b, "or")(b.less(x, number(low)), b.greater(x, number(high)))
        clamped = b.minimum(b.maximum(x, number(0)), number(size - 1))
        return b.select(outside, clamped, x)
    return _reflected(b, x, low, high) if padding == "reflection" else x


def _reflected(b: Any, x: Value, low: float, high: float) -> Value:
    """x mirrored at both borders until it lies between them."""
    span = high - low
    if span == 0:
        return b.full(x.shape, low, x.dtype)
    turn = b.mod(b.sub(x, b.scalar(low, x)), b.scalar(2 * span, x))
    back = b.sub(b.scalar(2 * span, x), turn)
    inside = b.add(b.minimum(turn, back), b.scalar(low, x))
    within = getattr(b, "and")(
        b.greater_equal(x, b.scalar(low, x)), b.less_equal(x, b.scalar(high, x))
    )
    return b.select(within, x, inside)


def _taps(
    b: Any, x: Value, size: int, mode: str, padding: str, align: bool
) -> list[tuple[Value, Value | None, Value | None]]:
    """(place, weight, whether it is inside) of each pixel along one axis."""
    if mode == "nearest":
        place, valid = _place(b, x, size, padding, align)
        return [(place, None, valid)]
    base = b.floor(x)
    rest = b.sub(x, base)
    steps = (0, 1) if mode == "linear" else (-1, 0, 1, 2)
    result: list[tuple[Value, Value | None, Value | None]] = []
    for step in steps:
        place, valid = _place(b, b.add(base, b.scalar(step, base)), size, padding, align)
        weight = _weight(b, b.abs(b.sub(rest, b.scalar(step, rest))), mode, step)
        result.append((place, weight, valid))
    return result


def _weight(b: Any, distance: Value, mode: str, step: int) -> Value:
    """The weight of a pixel at a distance, which lies in [0, 1] or in [1, 2].

    Source: Keys, "Cubic convolution interpolation for digital image processing", IEEE
    Transactions on Acoustics, Speech, and Signal Processing 29 (1981), equation 15.
    """
    a = _CUBIC_A
    if mode == "linear":
        return b.sub(b.scalar(1, distance), distance)
    if step in (0, 1):
        coefficients = (a + 2, -(a + 3), 0.0, 1.0)
    else:
        coefficients = (a, -5 * a, 8 * a, -4 * a)
    total = b.scalar(coefficients[0], distance)
    for coefficient in coefficients[1:]:
        total = b.add(b.mul(total, distance), b.scalar(coefficient, distance))
    return total


def _place(b: Any, x: Value, size: int, padding: str, align: bool) -> tuple[Value, Value | None]:
    """A whole coordinate as an index, and whether it is one if outside means zero."""
    last = b.scalar(size - 1, x)
    zero = b.scalar(0, x)
    valid = None
    if padding == "zeros":
        valid = getattr(b, "and")(b.greater_equal(x, zero), b.less_equal(x, last))
    elif padding == "reflection":
        x = _reflected(b, x, *_borders(size, align))
    return b.cast(b.minimum(b.maximum(x, zero), last), INT64), valid
