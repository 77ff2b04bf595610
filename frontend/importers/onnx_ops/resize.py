"""Resize and Upsample: every axis by itself, as a weighted sum of elements at known places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np

from mgec.dialects.mge.spec import is_float
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, moved, onnx_op
from mgec.importers.onnx_value import Array, Value

_DAMAGED = "the file may be damaged: export it again"
_MODES = ("nearest", "linear", "cubic")
_FEW_TAPS = 4
"""So many elements are gathered one by one; more become a matrix product."""


@dataclass(frozen=True)
class _Rules:
    """How coordinates and weights come about."""

    mode: str
    coordinates: str
    rounding: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool


def _rules(node: Node) -> _Rules:
    mode = node.attr("mode", "nearest")
    rules = _Rules(
        mode="linear" if mode == "bilinear" else mode,
        coordinates=node.attr("coordinate_transformation_mode", "asymmetric"),
        rounding=node.attr("nearest_mode", "floor"),
        cubic_a=node.attr("cubic_coeff_a", -0.75),
        exclude_outside=node.flag("exclude_outside"),
        antialias=node.flag("antialias"),
    )
    if rules.mode not in _MODES:
        raise Unsupported(f"mode {mode!r}")
    return rules


def _original(rules: _Rules, size: int, out: int, scale: float, roi: tuple[float, float]) -> Array:
    """The coordinate in the input of each element of the result."""
    x = np.arange(out, dtype=np.float64)
    start, end = roi
    length = scale * size  # what `out` is before it is rounded down
    match rules.coordinates:
        case "half_pixel":
            return (x + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = out / length
            return size / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if out > 1 else np.zeros(1)
        case "align_corners":
            return x * (size - 1) / (length - 1) if out > 1 else np.zeros(out)
        case "asymmetric":
            return x / scale
        case "tf_half_pixel_for_nn":
            return (x + 0.5) / scale
        case "tf_crop_and_resize":
            if out > 1:
                return start * (size - 1) + x * (end - start) * (size - 1) / (out - 1)
            return np.full(out, 0.5 * (start + end) * (size - 1))
        case _:
            raise Unsupported(f"coordinate_transformation_mode {rules.coordinates!r}")


def _nearest(rules: _Rules, x: Array) -> Array:
    match rules.rounding:
        case "round_prefer_floor":
            return np.ceil(x - 0.5)
        case "round_prefer_ceil":
            return np.floor(x + 0.5)
        case "floor":
            return np.floor(x)
        case "ceil":
            return np.ceil(x)
        case _:
            raise Unsupported(f"nearest_mode {rules.rounding!r}")


def _cubic(x: Array, a: float) -> Array:
    """Keys' convolution kernel.

    Source: Keys, "Cubic convolution interpolation for digital image processing", IEEE
    Transactions on Acoustics, Speech, and Signal Processing 29 (1981), equation 15.
    """
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _taps(rules: _Rules, x: Array, size: int, scale: float) -> tuple[Array, Array]:
    """Places and weights, [result, taps]; places are moved into the input."""
    if rules.mode == "nearest":
        index = np.clip(_nearest(rules, x), 0, size - 1).astype(np.int64)
        return index[:, None], np.ones((len(x), 1))
    reach = 1 if rules.mode == "linear" else 2
    shrink = min(scale, 1.0) if rules.antialias else 1.0
    first = floor(-reach / shrink) + 1
    # A coordinate on an element is at the right end of the interval before it.
    base = np.ceil(x) - 1
    steps = np.arange(first, 2 - first)
    distance = (steps[None, :] - (x - base)[:, None]) * shrink
    if rules.mode == "linear":
        weights = np.clip(1 - np.abs(distance), 0, 1)
    else:
        weights = _cubic(distance, rules.cubic_a)
    index = base[:, None] + steps[None, :]
    if rules.exclude_outside:
        weights = np.where((index >= 0) & (index < size), weights, 0.0)
    if rules.exclude_outside or rules.antialias:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return np.clip(index, 0, size - 1).astype(np.int64), weights


def _resize_axis(b: Any, x: Value, axis: int, index: Array, weights: Array) -> Value:
    """The weighted sums along one axis."""
    size, (out, taps) = x.shape[axis], index.shape
    if taps == 1:
        factor = out // size
        if out == factor * size and (index[:, 0] == np.arange(out) // max(factor, 1)).all():
            return b.repeat(x, repeats=factor, axis=axis)
        return b.take(x, b.constant(index[:, 0]), axis=axis)
    if taps > _FEW_TAPS:
        matrix = np.zeros((size, out))
        np.add.at(matrix, (index, np.arange(out)[:, None]), weights)
        order = [i for i in range(x.rank) if i != axis] + [axis]
        made = b.matmul(moved(b, x, order), b.constant(matrix.astype(x.dtype)))
        return moved(b, made, [order.index(i) for i in range(x.rank)])
    total: Value | None = None
    shape = (out, *(1,) * (x.rank - axis - 1))
    for tap in range(taps):
        if not weights[:, tap].any():
            continue
        part = b.take(x, b.constant(index[:, tap]), axis=axis)
        weight = weights[:, tap].astype(x.dtype)
        if (weight != 1).any():
            part = b.mul(part, b.constant(weight.reshape(shape)))
        total = part if total is None else b.add(total, part)
    assert total is not None
    return total


def _resized(
    b: Any,
    x: Value,
    rules: _Rules,
    sizes: Sequence[int],
    scales: Sequence[float],
    roi: Sequence[tuple[float, float]],
    outside: float,
) -> Value:
    """Resizes every axis whose size or scale changes."""
    if rules.mode != "nearest" and not is_float(x.dtype):
        raise Unsupported(f"mode {rules.mode!r} of {x.dtype.name}")
    crops = rules.coordinates == "tf_crop_and_resize"
    masks: list[tuple[int, Array]] = []
    for axis, (out, scale) in enumerate(zip(sizes, scales, strict=True)):
        size = x.shape[axis]
        if out == size and scale == 1 and not crops:
            continue
        if size == 0 or out < 0:
            raise ModelError(f"axis {axis} of {x.spec} to size {out}", fix=_DAMAGED)
        original = _original(rules, size, out, scale, roi[axis])
        index, weights = _taps(rules, original, size, scale)
        if index.shape[1] != 1 or not np.array_equal(index[:, 0], np.arange(size)):
            x = _resize_axis(b, x, axis, index, weights)
        if crops:
            wrong = (original < 0) | (original > size - 1)
            if wrong.any():
                masks.append((axis, wrong))
    for axis, wrong in masks:
        mask = b.constant(wrong.reshape((len(wrong), *(1,) * (x.rank - axis - 1))))
        x = b.select(mask, b.scalar(outside, x), x)
    return x


@onnx_op("Upsample")
def upsample(b: Any, node: Node) -> Value:
    """Resize before opset 10: asymmetric coordinates, rounded down."""
    x = node.x(0)
    scales = node.attr("scales")
    if scales is None:
        scales = node.known(1, "scales").reshape(-1).tolist()
    return _by_scales(b, node, x, [float(s) for s in scales])


@onnx_op("Resize")
def resize_10(b: Any, node: Node) -> Value:
    """Opset 10: as Upsample."""
    scales = node.known(1, "scales").reshape(-1).tolist()
    return _by_scales(b, node, node.x(0), [float(s) for s in scales])


def _by_scales(b: Any, node: Node, x: Value, scales: list[float]) -> Value:
    if len(scales) != x.rank or not all(np.isfinite(s) and s > 0 for s in scales):
        raise ModelError(f"scales {scales} for {x.spec}", fix=_DAMAGED)
    sizes = [floor(size * scale) for size, scale in zip(x.shape, scales, strict=True)]
    return _resized(b, x, _rules(node), sizes, scales, [(0.0, 1.0)] * x.rank, 0.0)


@onnx_op("Resize", since=11)
def resize(b: Any, node: Node) -> Value:
    """By scales or to sizes, of all axes or of some."""
    x = node.x(0)
    rules = _rules(node)
    axes = node.ints("axes")
    axes = tuple(range(x.rank)) if axes is None else node.normal_axes(axes, x.rank)
    roi = [(0.0, 1.0)] * x.rank
    if rules.coordinates == "tf_crop_and_resize":
        bounds = node.known(1, "roi").reshape(-1).astype(np.float64).tolist()
        if len(bounds) != 2 * len(axes):
            raise ModelError(f"roi of {len(bounds)} numbers for {len(axes)} axes", fix=_DAMAGED)
        for i, axis in enumerate(axes):
            roi[axis] = (bounds[i], bounds[i + len(axes)])
    sizes, scales = list(x.shape), [1.0] * x.rank
    given = node.known(2, "scales").reshape(-1) if node.has_input(2) else np.zeros(0)
    if given.size:
        if len(given) != len(axes) or not all(np.isfinite(s) and s > 0 for s in given):
            raise ModelError(f"scales {given.tolist()} for {len(axes)} axes", fix=_DAMAGED)
        for axis, scale in zip(axes, given.tolist(), strict=True):
            start, end = roi[axis]
            scales[axis] = scale
            sizes[axis] = floor(x.shape[axis] * (end - start) * scale)
    else:
        wanted = node.known_ints(3, "sizes")
        if len(wanted) != len(axes) or min(wanted, default=1) < 1:
            raise ModelError(f"sizes {wanted} for {len(axes)} axes", fix=_DAMAGED)
        _scales_of(node, x, axes, wanted, sizes, scales)
    return _resized(b, x, rules, sizes, scales, roi, node.attr("extrapolation_value"))


def _scales_of(
    node: Node,
    x: Value,
    axes: Sequence[int],
    wanted: Sequence[int],
    sizes: list[int],
    scales: list[float],
) -> None:
    """Fills in scales, and the sizes that a kept aspect ratio gives."""
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    ratios = [size / x.shape[axis] for axis, size in zip(axes, wanted, strict=True)]
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise Unsupported(f"keep_aspect_ratio_policy {policy!r}")
    for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            size = floor(ratio * x.shape[axis] + 0.5)
        sizes[axis], scales[axis] = size, ratio
