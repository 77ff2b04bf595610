"""Convolutions of ONNX, and the windows that they share with pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgec.dialects.mge.spec import INT32
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, cut, onnx_op
from mgec.importers.onnx_ops.contraction import without_zero
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"
_MOST_AXES = 3


def per_axis(node: Node, name: str, count: int, low: int = 1) -> tuple[int, ...]:
    """An attribute with one entry per spatial axis; 1 everywhere if it is absent.

    Raises:
        ModelError: if there are more or fewer entries, or one is below `low`.
    """
    values = node.ints(name)
    if values is None:
        return (1,) * count
    if len(values) != count or min(values) < low:
        raise ModelError(f"{name} {list(values)} for {count} spatial axes", fix=_DAMAGED)
    return values


def spatial_rank(x: Value) -> int:
    """Number of axes after batch and channel.

    Raises:
        Unsupported: if there are none, or more than three.
    """
    if not 1 <= x.rank - 2 <= _MOST_AXES:
        raise Unsupported(f"an input of rank {x.rank}")
    return x.rank - 2


def padding_of(
    node: Node, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """(low, high) of each spatial axis, from `pads` or `auto_pad`.

    Args:
        node: the node.
        sizes: of the spatial axes.
        spans: how far a window reaches along each.
        strides: distance between windows.
    """
    count = len(sizes)
    node.ignore("pads")  # auto_pad makes its own
    auto = node.attr("auto_pad", "NOTSET") or "NOTSET"
    if auto == "NOTSET":
        pads = node.ints("pads") or (0,) * (2 * count)
        if len(pads) != 2 * count or min(pads) < 0:
            raise ModelError(f"pads {list(pads)} for {count} spatial axes", fix=_DAMAGED)
        return tuple(zip(pads[:count], pads[count:], strict=True))
    if auto == "VALID":
        return ((0, 0),) * count
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Unsupported(f"auto_pad {auto!r}")
    result: list[tuple[int, int]] = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        small = total // 2
        result.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
    return tuple(result)


def flat(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """(low0, high0, low1, high1, ...), as mge takes it."""
    return tuple(pad for pair in padding for pad in pair)


def _checked_kernel(node: Node, weight: Value, count: int) -> tuple[int, ...]:
    if weight.rank != count + 2:
        raise ModelError(f"a weight {weight.spec} for {count} spatial axes", fix=_DAMAGED)
    given = node.ints("kernel_shape")
    if given is not None and given != weight.shape[2:]:
        raise ModelError(f"kernel_shape {list(given)} for a weight {weight.spec}", fix=_DAMAGED)
    return weight.shape[2:]


def convolve(b: Any, node: Node, x: Value, weight: Value, bias: Value | None) -> Value:
    """The convolution that a node's attributes describe."""
    count = spatial_rank(x)
    kernel = _checked_kernel(node, weight, count)
    stride, dilation = per_axis(node, "strides", count), per_axis(node, "dilations", count)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = padding_of(node, x.shape[2:], spans, stride)
    out = b.conv(
        x,
        weight,
        stride=stride,
        padding=flat(padding),
        dilation=dilation,
        groups=int(node.attr("group", 1)),
    )
    return with_bias(b, out, bias)


def with_bias(b: Any, out: Value, bias: Value | None) -> Value:
    """Adds one number per channel."""
    if bias is None:
        return out
    if bias.shape != (out.shape[1],):
        raise ModelError(f"a bias {bias.spec} for {out.shape[1]} channels", fix=_DAMAGED)
    return b.add(out, b.reshape(bias, (1, *bias.shape, *(1,) * (out.rank - 2))))


@onnx_op("Conv")
def conv(b: Any, node: Node) -> Value:
    """Over one to three spatial axes."""
    return convolve(b, node, node.x(0), node.x(1), node.optional(2))


@onnx_op("ConvInteger")
def conv_integer(b: Any, node: Node) -> Value:
    """Exact: 8-bit integers less their zero points, summed in int32."""
    x = without_zero(b, node.x(0), node.optional(2), axis=-1)
    zero, weight = node.optional(3), node.x(1)
    if zero is not None and zero.spec.size != 1:
        zero = b.reshape(zero, (*zero.shape, *(1,) * (weight.rank - 1)))
    wide = b.cast(weight, INT32)
    if zero is not None:
        wide = b.sub(wide, b.cast(zero if zero.rank > 1 else b.reshape(zero, ()), INT32))
    return convolve(b, node, x, wide, None)


@onnx_op("ConvTranspose")
def conv_transpose(b: Any, node: Node) -> Value:
    """The gradient of a convolution with respect to its input."""
    x, weight = node.x(0), node.x(1)
    count = spatial_rank(x)
    kernel = _checked_kernel(node, weight, count)
    stride, dilation = per_axis(node, "strides", count), per_axis(node, "dilations", count)
    extra = node.ints("output_padding") or (0,) * count
    if len(extra) != count or min(extra) < 0:
        raise ModelError(f"output_padding {list(extra)} for {count} spatial axes", fix=_DAMAGED)
    # Without any padding the result covers every window wholly.
    whole = [
        s * (n - 1) + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], stride, kernel, dilation, strict=True)
    ]
    padding = _transposed_padding(node, x.shape[2:], stride, whole, extra)
    attrs: dict[str, Any] = {
        "stride": stride,
        "dilation": dilation,
        "groups": int(node.attr("group", 1)),
    }
    size = tuple(
        n + more - low - high for n, more, (low, high) in zip(whole, extra, padding, strict=True)
    )
    if min(size) < 1:
        raise ModelError(f"the result would have spatial sizes {size}", fix=_DAMAGED)
    direct = all(
        min(pair) >= 0 and more < s for pair, more, s in zip(padding, extra, stride, strict=True)
    )
    if direct:
        out = b.conv_dgrad(x, weight, padding=flat(padding), input_size=size, **attrs)
    else:
        out = b.conv_dgrad(x, weight, input_size=tuple(whole), **attrs)
        out = _fitted(b, out, padding, extra)
    return with_bias(b, out, node.optional(2))


def _transposed_padding(
    node: Node,
    sizes: Sequence[int],
    stride: Sequence[int],
    whole: Sequence[int],
    extra: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """What is cut off at each end of each axis; a negative number adds zeros."""
    count = len(sizes)
    node.ignore("pads", "auto_pad")  # output_shape comes first
    wanted = node.ints("output_shape")
    auto = node.attr("auto_pad", "NOTSET") or "NOTSET"
    if wanted is None and auto in ("NOTSET", "VALID"):
        pads = (node.ints("pads") if auto == "NOTSET" else None) or (0,) * (2 * count)
        if len(pads) != 2 * count or min(pads) < 0:
            raise ModelError(f"pads {list(pads)} for {count} spatial axes", fix=_DAMAGED)
        return tuple(zip(pads[:count], pads[count:], strict=True))
    if wanted is None:
        if auto not in ("SAME_UPPER", "SAME_LOWER"):
            raise Unsupported(f"auto_pad {auto!r}")
        wanted = tuple(n * s for n, s in zip(sizes, stride, strict=True))
    if len(wanted) != count:  # some exporters name batch and channel, too
        wanted = wanted[-count:]
    result: list[tuple[int, int]] = []
    for full, more, size in zip(whole, extra, wanted, strict=True):
        total = full + more - size
        half = total // 2
        result.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    return tuple(result)


def _fitted(b: Any, out: Value, padding: Sequence[tuple[int, int]], extra: Sequence[int]) -> Value:
    """Cuts off padding and adds zeros at the end (output_padding)."""
    low, high = [0, 0], [0, 0]
    for axis, ((before, after), more) in enumerate(zip(padding, extra, strict=True), 2):
        after -= more
        out = cut(b, out, axis, max(before, 0), out.shape[axis] - max(after, 0))
        low.append(max(-before, 0))
        high.append(max(-after, 0))
    return b.pad(out, low=tuple(low), high=tuple(high)) if any((*low, *high)) else out
