"""ONNX ops that read or write at places given by data."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from mgec.dialects.mge.spec import INT64, row_major_strides
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, cut, int64, onnx_op
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"
_MOST_STEPS = 256
"""Scatters that combine run one after another: at most so many are unrolled."""


def _check_indices(indices: Value, size: int) -> None:
    """Refuses known indices that are out of range."""
    array = indices.array
    if array is not None and array.size and (array.min() < -size or array.max() >= size):
        raise ModelError(f"an index is out of range for an axis of size {size}", fix=_DAMAGED)


@onnx_op("Gather")
def gather(b: Any, node: Node) -> Value:
    """Slices at indices."""
    x, indices = node.x(0), node.x(1)
    axis = node.axis(x.rank)
    _check_indices(indices, x.shape[axis])
    if x.dtype == np.dtype(object):
        raise Unsupported("strings")
    return b.take(x, indices, axis=axis)


@onnx_op("GatherElements")
def gather_elements(b: Any, node: Node) -> Value:
    """One element for each index."""
    x, index = node.x(0), node.x(1)
    axis = node.axis(x.rank)
    _check_indices(index, x.shape[axis])
    return b.gather(x, index, axis=axis)


# -- n-dimensional indices -----------------------------------------------------------------


def _linear(b: Any, indices: Value, sizes: tuple[int, ...]) -> Value:
    """Indices into the product of axes of `sizes`, from their parts along the last axis."""
    parts = indices.shape[-1]
    if indices.array is not None and indices.spec.size:
        flat = indices.array.reshape(-1, parts)
        for i, size in enumerate(sizes):
            if flat[:, i].min() < -size or flat[:, i].max() >= size:
                raise ModelError(f"an index is out of range for size {size}", fix=_DAMAGED)
    wide = b.cast(indices, INT64)
    zero = b.scalar(0, wide)
    size = b.constant(np.array(sizes, np.int64))
    positive = b.select(b.less(wide, zero), b.add(wide, size), wide)
    strides = b.constant(np.array(row_major_strides(sizes), np.int64))
    return b.reduce_sum(b.mul(positive, strides), axes=(indices.rank - 1,), keepdims=False)


@onnx_op("GatherND")
def gather_nd(b: Any, node: Node) -> Value:
    """The last axis of the indices holds a place; batch axes come first in both."""
    x, indices = node.x(0), node.x(1)
    batch = node.int("batch_dims")
    count = indices.shape[-1] if indices.rank else 0
    fits = 0 <= batch < indices.rank and 1 <= count <= x.rank - batch
    if not fits or x.shape[:batch] != indices.shape[:batch]:
        raise ModelError(f"indices {indices.spec} into {x.spec}", fix=_DAMAGED)
    sizes = x.shape[batch : batch + count]
    rest = x.shape[batch + count :]
    groups = prod(x.shape[:batch])
    places = _linear(b, indices, sizes)
    if batch:
        each = b.iota(shape=(groups,), axis=0, dtype=INT64, step=prod(sizes))
        flat = b.reshape(places, (groups, prod(indices.shape[batch:-1])))
        places = b.add(flat, b.reshape(each, (groups, 1)))
    table = b.reshape(x, (groups * prod(sizes), *rest))
    taken = b.take(table, b.reshape(places, (places.spec.size,)), axis=0)
    return b.reshape(taken, (*indices.shape[:-1], *rest))


# -- scatter -----------------------------------------------------------------------------------

_COMBINE = {"mul": "mul", "max": "maximum", "min": "minimum"}


def _scatter(b: Any, x: Value, index: Value, updates: Value, axis: int, reduction: str) -> Value:
    """Scatters along one axis; what combines otherwise than by addition goes step by step."""
    if reduction == "none":
        return b.scatter(x, index, updates, axis=axis)
    if reduction == "add":
        return b.scatter_add(x, index, updates, axis=axis)
    if reduction not in _COMBINE:
        raise Unsupported(f"reduction {reduction!r}")
    steps = index.shape[axis]
    if steps > _MOST_STEPS:
        raise Unsupported(f"reduction {reduction!r} over {steps} indices")
    combine: Callable[..., Value] = getattr(b, _COMBINE[reduction])
    for i in range(steps):
        here, new = (cut(b, v, axis, i, i + 1) for v in (index, updates))
        x = b.scatter(x, here, combine(b.gather(x, here, axis=axis), new), axis=axis)
    return x


@onnx_op("Scatter", "ScatterElements")
def scatter_elements(b: Any, node: Node) -> Value:
    """One element for each index."""
    x, index, updates = node.x(0), node.x(1), node.x(2)
    axis = node.axis(x.rank)
    _check_indices(index, x.shape[axis])
    return _scatter(b, x, index, updates, axis, node.attr("reduction", "none"))


@onnx_op("ScatterND")
def scatter_nd(b: Any, node: Node) -> Value:
    """The last axis of the indices holds the place of a slice."""
    x, indices, updates = node.x(0), node.x(1), node.x(2)
    count = indices.shape[-1] if indices.rank else 0
    if not 1 <= count <= x.rank or updates.shape != (*indices.shape[:-1], *x.shape[count:]):
        raise ModelError(f"indices {indices.spec} into {x.spec} for {updates.spec}", fix=_DAMAGED)
    sizes, rest = x.shape[:count], prod(x.shape[count:])
    places = b.reshape(_linear(b, indices, sizes), (prod(indices.shape[:-1]), 1))
    number = places.shape[0]
    table = b.reshape(x, (prod(sizes), rest))
    rows = b.reshape(updates, (number, rest))
    index = b.broadcast(places, (number, rest))
    made = _scatter(b, table, index, rows, 0, node.attr("reduction", "none"))
    return b.reshape(made, x.shape)


@onnx_op("TensorScatter")
def tensor_scatter(b: Any, node: Node) -> Value:
    """Writes a piece of each example's sequence, from an index of its own on."""
    x, update = node.x(0), node.x(1)
    axis = node.axis(x.rank, default=-2)
    mode = node.attr("mode", "linear")
    if mode not in ("linear", "circular") or axis == 0:
        raise Unsupported(f"mode {mode!r} on axis {axis}")
    batch, size, length = x.shape[0], x.shape[axis], update.shape[axis]
    if node.has_input(2):
        start = b.cast(node.x(2), INT64)
    else:
        start = b.constant(np.zeros(batch, np.int64))
    start = b.reshape(start, (batch, *(1,) * (x.rank - 1)))
    shape = tuple(length if i == axis else 1 for i in range(x.rank))
    place = b.add(start, b.iota(shape=shape, axis=axis, dtype=INT64))
    if mode == "circular":
        place = b.mod(place, b.scalar(size, place))
    return b.scatter(x, b.broadcast(place, update.shape), update, axis=axis)


# -- one-hot, top k ------------------------------------------------------------------------------


@onnx_op("OneHot")
def one_hot(b: Any, node: Node) -> Value:
    """values[1] at the index, values[0] elsewhere; indices from -depth on count from the end."""
    indices, values = node.x(0), node.x(2)
    depth = int(node.known(1, "depth").reshape(-1)[0])
    if values.spec.size != 2 or depth < 0:
        raise ModelError(f"depth {depth} and values {values.spec}", fix=_DAMAGED)
    axis = node.normal_axis(int(node.attr("axis", -1)), indices.rank + 1)
    place = int64(b, indices)
    place = b.select(b.less(place, b.scalar(0, place)), b.add(place, b.scalar(depth, place)), place)
    place = b.reshape(place, (*indices.shape[:axis], 1, *indices.shape[axis:]))
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    hot = b.equal(b.iota(shape=shape, axis=axis, dtype=INT64), place)
    off, on = (b.reshape(cut(b, values, 0, i, i + 1), ()) for i in range(2))
    return b.select(hot, on, off)


@onnx_op("TopK")
def top_k(b: Any, node: Node) -> tuple[Value, Value]:
    """The k largest or smallest, sorted, and their indices."""
    x = node.x(0)
    axis = node.axis(x.rank, default=-1)
    k = node.int("k") if node.version < 10 else node.known_int(1, "k")
    largest = bool(node.attr("largest", 1))
    node.ignore("sorted")  # without it any order will do
    values, indices = b.topk(x, k=k, axis=axis, descending=largest)
    return values, int64(b, indices)


# -- results whose sizes depend on data: of constants only -----------------------------------------


@onnx_op("NonZero")
def nonzero(b: Any, node: Node) -> Value:
    """Places of the elements that are not 0."""
    array = node.known(0, "the input")
    if array.ndim == 0:
        array = array.reshape(1)
    return Value(np.array(np.nonzero(array), np.int64).reshape(array.ndim, -1))


@onnx_op("Compress")
def compress(b: Any, node: Node) -> Value:
    """The slices where a condition holds."""
    x = node.x(0)
    condition = node.known(1, "the condition").astype(bool).reshape(-1)
    if not node.has("axis"):
        x = b.reshape(x, (x.spec.size,))
    axis = node.axis(x.rank) if node.has("axis") else 0
    (places,) = np.nonzero(condition[: x.shape[axis]])
    return b.take(x, b.constant(places), axis=axis)


@onnx_op("Unique")
def unique(b: Any, node: Node) -> list[Value]:
    """Distinct elements or slices, where they first are, where each went, and how many."""
    array = node.known(0, "the input")
    if array.dtype == np.dtype(object):
        raise Unsupported("strings")
    axis = None
    if node.has("axis"):
        axis = node.axis(array.ndim)
    found = np.unique(array, True, True, True, axis=axis)
    values, first, inverse, counts = (np.asarray(part) for part in found)
    inverse = inverse.reshape(-1)
    if not node.attr("sorted", 1):
        order = np.argsort(first)
        values = np.take(values, order, axis or 0)
        first, counts = first[order], counts[order]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        inverse = back[inverse]
    return [Value(values), *(Value(part.astype(np.int64)) for part in (first, inverse, counts))]
