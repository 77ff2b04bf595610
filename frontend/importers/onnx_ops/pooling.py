"""Pooling of ONNX.

`mge.max_pool` and `mge.avg_pool` serve what they can express. Dilated windows, windows that see
padding only and indices of winners are written tap by tap: a strided slice for each place in the
window, combined elementwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from mgec.dialects.mge.spec import INT64, is_float, row_major_strides
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, onnx_op
from mgec.importers.onnx_ops.convolution import flat, padding_of, per_axis, spatial_rank
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"
_MOST_TAPS = 512
"""Windows written tap by tap have at most so many."""


@dataclass(frozen=True)
class _Windows:
    """The windows of a pooling node, along the spatial axes.

    Attributes:
        padding: (low, high) of each axis; high is as much as the last window needs.
        asked: the same as the node says, which decides what counts as padding.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    asked: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]

    @property
    def is_dilated(self) -> bool:
        return any(d > 1 and k > 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def is_plain(self) -> bool:
        """Whether mge's pooling ops can express it."""
        fits = all(max(p) < k for p, k in zip(self.padding, self.kernel, strict=True))
        return fits and not self.is_dilated

    def attrs(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "stride": self.stride, "padding": flat(self.padding)}


def _windows(node: Node, x: Value) -> _Windows:
    count = spatial_rank(x)
    kernel = per_axis(node, "kernel_shape", count)
    stride, dilation = per_axis(node, "strides", count), per_axis(node, "dilations", count)
    sizes = x.shape[2:]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    asked = padding_of(node, sizes, spans, stride)
    ceil_mode = node.flag("ceil_mode")
    counts: list[int] = []
    padding: list[tuple[int, int]] = []
    for size, span, step, (low, high) in zip(sizes, spans, stride, asked, strict=True):
        room = size + low + high - span
        if room < 0 or size < 1:
            raise ModelError(
                f"a window covers {span} elements, but there are {size + low + high}", fix=_DAMAGED
            )
        windows = room // step + 1
        if ceil_mode:
            windows = -(-room // step) + 1
            # A window must begin inside the input or the padding before it.
            if (windows - 1) * step >= size + low:
                windows -= 1
        counts.append(windows)
        # Windows may need more than was asked for, or leave some of it unused.
        padding.append((low, max((windows - 1) * step + span - size - low, 0)))
    return _Windows(kernel, stride, dilation, tuple(padding), asked, tuple(counts))


def _taps(b: Any, x: Value, w: _Windows) -> Iterator[Value]:
    """For every place in the window, in row-major order, its element of each window.

    Args:
        b: the builder.
        x: the input, padded already.
        w: the windows.
    """
    if prod(w.kernel) > _MOST_TAPS:
        raise Unsupported(f"windows of {prod(w.kernel)} elements that are dilated or indexed")
    for place in product(*(range(k) for k in w.kernel)):
        starts = [k * d for k, d in zip(place, w.dilation, strict=True)]
        stops = [
            start + (count - 1) * step + 1
            for start, count, step in zip(starts, w.counts, w.stride, strict=True)
        ]
        yield b.slice(
            x,
            starts=(0, 0, *starts),
            stops=(*x.shape[:2], *stops),
            steps=(1, 1, *w.stride),
        )


def _padded(b: Any, x: Value, w: _Windows, value: float) -> Value:
    low = (0, 0, *(pair[0] for pair in w.padding))
    high = (0, 0, *(pair[1] for pair in w.padding))
    return b.pad(x, low=low, high=high, value=value) if any((*low, *high)) else x


def _lowest(x: Value) -> float:
    if is_float(x.dtype):
        return -np.inf
    return float(np.iinfo(x.dtype).min)  # pyright: ignore[reportArgumentType,reportCallIssue]


# -- largest -----------------------------------------------------------------------------


@onnx_op("MaxPool")
def max_pool(b: Any, node: Node) -> tuple[Value, ...]:
    """The largest element of each window, and where it is."""
    x = node.x(0)
    w = _windows(node, x)
    node.ignore("storage_order")
    wants_places = node.num_outputs > 1 and node.wanted[1]
    if not wants_places and w.is_plain:
        return (_trimmed(b, b.max_pool(x, **w.attrs()), w.counts),)
    if x.dtype == np.dtype(np.int64) and any(flat(w.padding)):
        raise Unsupported("dilated or indexed windows of int64")  # the pad value is a float
    best: Value | None = None
    where: Value | None = None
    places = _taps(b, _padded(b, _places(b, node, x), w, -1), w) if wants_places else None
    for tap in _taps(b, _padded(b, x, w, _lowest(x)), w):
        if places is None:
            best = tap if best is None else b.maximum(best, tap)
            continue
        place = next(places)
        if best is None or where is None:
            best, where = tap, place
            continue
        # The first of equal elements wins, but padding never does.
        wins = b.greater(tap, best)
        if is_float(x.dtype):
            numbers = getattr(b, "not")(b.is_nan(best))
            wins = getattr(b, "or")(wins, getattr(b, "and")(b.is_nan(tap), numbers))
        none = getattr(b, "and")(
            b.less(where, b.scalar(0, where)), b.greater_equal(place, b.scalar(0, place))
        )
        wins = getattr(b, "or")(wins, none)
        best, where = b.select(wins, tap, best), b.select(wins, place, where)
    assert best is not None
    return (best,) if where is None else (best, where)


def _trimmed(b: Any, out: Value, counts: Sequence[int]) -> Value:
    """The first windows of each axis: the last padding may have made room for more."""
    if out.shape[2:] == tuple(counts):
        return out
    return b.slice(
        out, starts=(0,) * out.rank, stops=(*out.shape[:2], *counts), steps=(1,) * out.rank
    )


def _places(b: Any, node: Node, x: Value) -> Value:
    """The index of each element in the whole tensor, as `storage_order` counts it."""
    sizes = x.shape[2:]
    if not node.flag("storage_order"):
        numbers = np.arange(prod(sizes)).reshape(sizes)
    else:
        numbers = np.arange(prod(sizes)).reshape(sizes[::-1]).transpose()
    inside = b.constant(numbers.astype(np.int64))
    outer = b.iota(shape=(x.shape[0] * x.shape[1],), axis=0, dtype=INT64, step=prod(sizes))
    return b.add(b.reshape(outer, (*x.shape[:2], *(1,) * len(sizes))), inside)


@onnx_op("GlobalMaxPool")
def global_max_pool(b: Any, node: Node) -> Value:
    """The largest element of each channel."""
    x = node.x(0)
    return b.reduce_max(x, axes=tuple(range(2, x.rank)), keepdims=True)


@onnx_op("MaxUnpool")
def max_unpool(b: Any, node: Node) -> Value:
    """Writes each element to the place that its index names, and zeros elsewhere."""
    x, index = node.x(0), node.x(1)
    count = spatial_rank(x)
    kernel, stride = per_axis(node, "kernel_shape", count), per_axis(node, "strides", count)
    pads = node.ints("pads") or (0,) * (2 * count)
    sizes = tuple(
        (x.shape[2 + i] - 1) * stride[i] + kernel[i] - pads[i] - pads[i + count]
        for i in range(count)
    )
    indexed = (*x.shape[:2], *sizes)
    shape = node.known_ints(2, "output_shape") if node.has_input(2) else indexed
    if (
        len(shape) != x.rank
        or min(shape) < 1
        or any(a < c for a, c in zip(shape, indexed, strict=True))
    ):
        raise ModelError(f"output_shape {shape} for {indexed}", fix=_DAMAGED)
    # Indices count in the smaller shape that the attributes describe.
    total, number = prod(indexed), x.spec.size
    ground = b.full((total,), 0, x.dtype)
    flat_index = b.reshape(index, (number,))
    made = b.reshape(b.scatter(ground, flat_index, b.reshape(x, (number,)), axis=0), indexed)
    high = tuple(a - c for a, c in zip(shape, indexed, strict=True))
    return b.pad(made, low=(0,) * x.rank, high=high) if any(high) else made


# -- mean ----------------------------------------------------------------------------------


@onnx_op("AveragePool")
def average_pool(b: Any, node: Node) -> Value:
    """The mean of each window: padding that was asked for counts, or does not."""
    x = node.x(0)
    node.need_float(x)
    w = _windows(node, x)
    include = node.flag("count_include_pad")
    exact = all(used[1] <= given[1] for used, given in zip(w.padding, w.asked, strict=True))
    if w.is_plain and (not include or exact):
        pooled = b.avg_pool(x, count_include_pad=include, **w.attrs())
        return _trimmed(b, pooled, w.counts)
    total = _sums(b, x, w)
    counts = _counts(x, w, include)
    return b.div(total, b.constant(counts.astype(x.dtype)))


def _sums(b: Any, x: Value, w: _Windows) -> Value:
    """The sum of each window."""
    if w.is_plain:
        mean = b.avg_pool(x, count_include_pad=True, **w.attrs())
        return _trimmed(b, b.mul(mean, b.scalar(prod(w.kernel), mean)), w.counts)
    total: Value | None = None
    for tap in _taps(b, _padded(b, x, w, 0), w):
        total = tap if total is None else b.add(total, tap)
    assert total is not None
    return total


def _counts(x: Value, w: _Windows, include_padding: bool) -> np.ndarray[Any, Any]:
    """How many elements each window has, [1, 1, *windows]."""
    counts = np.ones((1, 1, *(1,) * len(w.kernel)))
    for i, (size, (low, high)) in enumerate(zip(x.shape[2:], w.asked, strict=True)):
        first, last = (-low, size + high) if include_padding else (0, size)
        starts = np.arange(w.counts[i]) * w.stride[i] - low
        taps = starts[:, None] + np.arange(w.kernel[i]) * w.dilation[i]
        inside = ((taps >= first) & (taps < last)).sum(axis=1)
        shape = [1] * (2 + len(w.kernel))
        shape[2 + i] = w.counts[i]
        counts = counts * np.maximum(inside, 1).reshape(shape)
    return counts


@onnx_op("GlobalAveragePool")
def global_average_pool(b: Any, node: Node) -> Value:
    """The mean of each channel."""
    x = node.x(0)
    return b.reduce_mean(x, axes=tuple(range(2, x.rank)), keepdims=True)


# -- norms ---------------------------------------------------------------------------------


def _power(b: Any, x: Value, p: float) -> Value:
    if p == 1:
        return x
    return b.mul(x, x) if p == 2 else b.pow(x, b.scalar(p, x))


def _root(b: Any, x: Value, p: float) -> Value:
    if p == 1:
        return x
    return b.sqrt(x) if p == 2 else b.pow(x, b.scalar(1 / p, x))


@onnx_op("LpPool")
def lp_pool(b: Any, node: Node) -> Value:
    """The p-norm of each window."""
    x, p = node.x(0), float(node.attr("p", 2))
    node.need_float(x)
    w = _windows(node, x)
    return _root(b, _sums(b, _power(b, b.abs(x), p), w), p)


@onnx_op("GlobalLpPool")
def global_lp_pool(b: Any, node: Node) -> Value:
    """The p-norm of each channel."""
    x, p = node.x(0), float(node.attr("p", 2))
    axes = tuple(range(2, x.rank))
    return _root(b, b.reduce_sum(_power(b, b.abs(x), p), axes=axes, keepdims=True), p)


@onnx_op("Col2Im")
def col2im(b: Any, node: Node) -> Value:
    """Adds up blocks at their places in an image: the adjoint of cutting it into windows."""
    x = node.x(0)
    image, kernel = node.known_ints(1, "image_shape"), node.known_ints(2, "block_shape")
    count = len(image)
    if x.rank != 3 or len(kernel) != count or min((*image, *kernel), default=0) < 1:
        raise ModelError(f"blocks {kernel} of {image} from {x.spec}", fix=_DAMAGED)
    stride, dilation = per_axis(node, "strides", count), per_axis(node, "dilations", count)
    pads = node.ints("pads") or (0,) * (2 * count)
    padded = [size + pads[i] + pads[i + count] for i, size in enumerate(image)]
    blocks = [
        (padded[i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in range(count)
    ]
    n, rows, columns = x.shape
    channels = rows // prod(kernel)
    if rows % prod(kernel) or columns != prod(blocks) or min(blocks) < 1:
        raise ModelError(f"blocks {kernel} of {image} from {x.spec}", fix=_DAMAGED)
    place = np.zeros((prod(kernel), columns), np.int64)
    for i, step in enumerate(row_major_strides(padded)):
        tap = np.arange(kernel[i])[:, None] * dilation[i] + np.arange(blocks[i]) * stride[i]
        shape = [1] * (2 * count)
        shape[i], shape[count + i] = kernel[i], blocks[i]
        grid = np.broadcast_to(tap.reshape(shape), (*kernel, *blocks))
        place += grid.reshape(place.shape) * step
    flat_x = b.reshape(x, (n * channels, place.size))
    index = b.broadcast(b.constant(place.reshape(1, -1)), flat_x.shape)
    ground = b.full((n * channels, prod(padded)), 0, x.dtype)
    made = b.reshape(b.scatter_add(ground, index, flat_x, axis=1), (n, channels, *padded))
    return b.slice(
        made,
        starts=(0, 0, *pads[:count]),
        stops=(n, channels, *(pads[i] + size for i, size in enumerate(image))),
        steps=(1,) * made.rank,
    )
