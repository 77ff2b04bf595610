"""Normalization ops of ONNX."""

from __future__ import annotations

from typing import Any

from mgec.dialects.mge.composite import widen
from mgec.dialects.mge.reduce import accumulator
from mgec.errors import ModelError
from mgec.importers.onnx_file import dtype_of
from mgec.importers.onnx_node import Node, Unsupported, cut, onnx_op
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"


def _per_channel(b: Any, x: Value, rank: int) -> Value:
    return b.reshape(x, (*x.shape, *(1,) * (rank - 2)))


@onnx_op("BatchNormalization")
def batch_norm(b: Any, node: Node) -> tuple[Value, ...]:
    """With given statistics, or in training mode with the batch's own."""
    x, scale, bias, mean, variance = (node.x(i) for i in range(5))
    eps = node.attr("epsilon")
    node.ignore("momentum", "spatial", "is_test")
    if node.version < 9 and not node.attr("spatial", 1):
        raise Unsupported("spatial=0")
    training = node.flag("training_mode")
    if node.version < 14:
        training = node.num_outputs > 1 and any(node.wanted[1:])
        training = training and not (node.version < 7 and node.flag("is_test"))
    if not training:
        # Parameters may be of a narrower float than the statistics: the widest that mge takes.
        wide = accumulator(x.dtype)
        params = (
            p if p.dtype == x.dtype else b.cast(p, wide) for p in (scale, bias, mean, variance)
        )
        if x.rank < 2:
            raise Unsupported(f"an input of rank {x.rank}")
        return (b.batch_norm_inference(x, *params, eps=eps),)
    wide = accumulator(x.dtype)
    scale, bias = (p if p.dtype == x.dtype else b.cast(p, wide) for p in (scale, bias))
    out, batch_mean, batch_variance = b.batch_norm_train(x, scale, bias, eps=eps)
    momentum = node.attr("momentum")
    results = [out]
    for old, new in ((mean, batch_mean), (variance, batch_variance)):
        kept = b.mul(old, b.scalar(momentum, old))
        added = b.cast(b.mul(new, b.scalar(1 - momentum, new)), old.dtype)
        results.append(b.add(kept, added))
    if node.version < 14 and node.num_outputs > 3:
        raise Unsupported("saved statistics, of before opset 14")
    return tuple(results)


@onnx_op("InstanceNormalization")
def instance_norm(b: Any, node: Node) -> Value:
    """Every channel of every example by itself."""
    x, scale, bias = node.x(0), node.x(1), node.x(2)
    return b.group_norm(x, scale, bias, groups=x.shape[1], eps=node.attr("epsilon"))


def _stashed(b: Any, node: Node, x: Value) -> Value:
    """x in the type in which mean and variance are computed."""
    stash = node.attr("stash_type", 1)
    return b.cast(x, dtype_of(int(stash))) if stash != 1 else widen(b, x)


@onnx_op("GroupNormalization")
def group_norm(b: Any, node: Node) -> Value:
    """Opset 18 has one scale per group, later opsets one per channel."""
    x, scale, bias = node.x(0), node.x(1), node.x(2)
    groups, eps = node.int("num_groups"), node.attr("epsilon")
    if x.rank < 2 or groups < 1 or x.shape[1] % groups:
        raise ModelError(f"{groups} groups of {x.spec}", fix=_DAMAGED)
    if node.version >= 21:
        return b.group_norm(x, scale, bias, groups=groups, eps=eps)
    each = x.shape[1] // groups
    scale, bias = (b.repeat(p, repeats=each, axis=0) for p in (scale, bias))
    return b.group_norm(x, scale, bias, groups=groups, eps=eps)


@onnx_op("LayerNormalization")
def layer_norm(b: Any, node: Node) -> tuple[Value, ...]:
    """Over the axes from `axis` on; also mean and 1 / deviation if they are wanted."""
    x, scale, bias = node.x(0), node.x(1), node.optional(2)
    axis = node.axis(x.rank, default=-1)
    eps, count = node.attr("epsilon"), x.rank - axis
    tail = x.shape[axis:]
    plain = scale.shape == tail and (bias is None or bias.shape == tail)
    if plain:
        out = b.layer_norm(x, scale, bias, num_axes=count, eps=eps)
    else:
        normal = widen(b, b.layer_norm(x, num_axes=count, eps=eps))
        out = b.mul(normal, widen(b, scale))
        out = b.cast(out if bias is None else b.add(out, widen(b, bias)), x.dtype)
    if not any(node.wanted[1:]):
        return (out,)
    axes = tuple(range(axis, x.rank))
    wide = _stashed(b, node, x)
    mean = b.reduce_mean(wide, axes=axes, keepdims=True)
    centered = b.sub(wide, mean)
    variance = b.reduce_mean(b.mul(centered, centered), axes=axes, keepdims=True)
    return out, mean, b.rsqrt(b.add(variance, b.scalar(eps, variance)))


@onnx_op("RMSNormalization")
def rms_norm(b: Any, node: Node) -> Value:
    """Divides by the root of the mean square over the axes from `axis` on."""
    x, scale = node.x(0), node.x(1)
    axis = node.axis(x.rank, default=-1)
    eps, count = node.attr("epsilon"), x.rank - axis
    if scale.shape == x.shape[axis:] and scale.dtype in (x.dtype, accumulator(x.dtype)):
        return b.rms_norm(x, scale, num_axes=count, eps=eps)
    normal = b.rms_norm(x, num_axes=count, eps=eps)
    return b.mul(b.cast(normal, scale.dtype), scale)


@onnx_op("MeanVarianceNormalization")
def mean_variance_norm(b: Any, node: Node) -> Value:
    """(x - mean) / (deviation + 1e-9) over `axes`."""
    x = node.x(0)
    axes = node.normal_axes(node.ints("axes") or (0, 2, 3), x.rank)
    wide = widen(b, x)
    centered = b.sub(wide, b.reduce_mean(wide, axes=axes, keepdims=True))
    variance = b.reduce_mean(b.mul(centered, centered), axes=axes, keepdims=True)
    deviation = b.sqrt(variance)
    return b.cast(b.div(centered, b.add(deviation, b.scalar(1e-9, deviation))), x.dtype)


@onnx_op("LpNormalization")
def lp_norm(b: Any, node: Node) -> Value:
    """Divides by the p-norm along an axis; 0 where that is 0."""
    x, p = node.x(0), node.int("p", 2)
    axis = node.axis(x.rank, default=-1)
    if p not in (1, 2):
        raise Unsupported(f"p={p}")
    wide = widen(b, x)
    power = b.abs(wide) if p == 1 else b.mul(wide, wide)
    norm = b.reduce_sum(power, axes=(axis,), keepdims=True)
    norm = norm if p == 1 else b.sqrt(norm)
    zero = b.scalar(0, norm)
    empty = b.equal(norm, zero)
    safe = b.select(empty, b.scalar(1, norm), norm)
    return b.cast(b.select(empty, zero, b.div(wide, safe)), x.dtype)


@onnx_op("LRN")
def local_response_norm(b: Any, node: Node) -> Value:
    """x / (bias + alpha / size * sum of squares over neighboring channels)^beta."""
    x, size = node.x(0), node.int("size")
    if x.rank < 2 or size < 1:
        raise ModelError(f"LRN of {x.spec} over {size} channels", fix=_DAMAGED)
    before = (size - 1) // 2
    square = b.mul(x, x)
    channels = x.shape[1]
    low = tuple(before if i == 1 else 0 for i in range(x.rank))
    high = tuple(size - 1 - before if i == 1 else 0 for i in range(x.rank))
    padded = b.pad(square, low=low, high=high)
    total = cut(b, padded, 1, 0, channels)
    for i in range(1, size):
        total = b.add(total, cut(b, padded, 1, i, i + channels))
    scaled = b.mul(total, b.scalar(node.attr("alpha") / size, total))
    base = b.add(scaled, b.scalar(node.attr("bias"), total))
    return b.div(x, b.pow(base, b.scalar(node.attr("beta"), base)))
