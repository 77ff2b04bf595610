"""Activation functions of ONNX."""

from __future__ import annotations

from typing import Any

from mgec.importers.onnx_node import Node, Unsupported, onnx_op
from mgec.importers.onnx_value import Value


def _zero(b: Any, x: Value) -> Value:
    return b.scalar(0, x)


def _times(b: Any, x: Value, factor: float) -> Value:
    return x if factor == 1 else b.mul(x, b.scalar(factor, x))


@onnx_op("LeakyRelu")
def leaky_relu(b: Any, node: Node) -> Value:
    """alpha * x below 0."""
    return b.leaky_relu(node.x(0), negative_slope=node.attr("alpha"))


@onnx_op("PRelu")
def prelu(b: Any, node: Node) -> Value:
    """slope * x below 0; before opset 7 the slope is one number per channel."""
    x, slope = node.x(0), node.x(1)
    if node.version < 7 and slope.rank == 1 and slope.shape[0] != 1 and x.rank > 2:
        slope = b.reshape(slope, (*slope.shape, *(1,) * (x.rank - 2)))
    return b.select(b.less(x, _zero(b, x)), b.mul(x, slope), x)


@onnx_op("Elu")
def elu(b: Any, node: Node) -> Value:
    """alpha * (exp(x) - 1) below 0."""
    return b.elu(node.x(0), alpha=node.attr("alpha"))


@onnx_op("Selu")
def selu(b: Any, node: Node) -> Value:
    """gamma * elu(x)."""
    return _times(b, b.elu(node.x(0), alpha=node.attr("alpha")), node.attr("gamma"))


@onnx_op("Celu")
def celu(b: Any, node: Node) -> Value:
    """x, below 0 alpha * (exp(x / alpha) - 1)."""
    x, alpha = node.x(0), node.attr("alpha")
    if alpha == 0:
        raise Unsupported("alpha 0")
    zero = _zero(b, x)
    below = b.expm1(b.div(b.minimum(x, zero), b.scalar(alpha, x)))
    return b.select(b.greater(x, zero), x, _times(b, below, alpha))


@onnx_op("Gelu")
def gelu(b: Any, node: Node) -> Value:
    """x times the normal distribution function."""
    kind = node.attr("approximate")
    if kind not in ("none", "tanh"):
        raise Unsupported(f"approximate={kind!r}")
    return b.gelu(node.x(0), approximate=kind == "tanh")


@onnx_op("HardSigmoid")
def hard_sigmoid(b: Any, node: Node) -> Value:
    """max(0, min(1, alpha * x + beta))."""
    return clipped_line(b, node.x(0), node.attr("alpha"), node.attr("beta"))


def clipped_line(b: Any, x: Value, alpha: float, beta: float) -> Value:
    """max(0, min(1, alpha * x + beta))."""
    line = b.add(_times(b, x, alpha), b.scalar(beta, x))
    return b.maximum(b.minimum(line, b.scalar(1, x)), _zero(b, x))


@onnx_op("HardSwish")
def hard_swish(b: Any, node: Node) -> Value:
    """x * max(0, min(1, x / 6 + 0.5))."""
    return b.hard_swish(node.x(0))


@onnx_op("Mish")
def mish(b: Any, node: Node) -> Value:
    """x * tanh(softplus(x))."""
    x = node.x(0)
    return b.mul(x, b.tanh(b.softplus(x)))


@onnx_op("Softplus")
def softplus(b: Any, node: Node) -> Value:
    """log(1 + exp(x))."""
    return b.softplus(node.x(0))


@onnx_op("Softsign")
def softsign(b: Any, node: Node) -> Value:
    """x / (1 + |x|)."""
    x = node.x(0)
    return b.div(x, b.add(b.abs(x), b.scalar(1, x)))


@onnx_op("Swish")
def swish(b: Any, node: Node) -> Value:
    """x * sigmoid(alpha * x)."""
    x, alpha = node.x(0), node.attr("alpha")
    return b.silu(x) if alpha == 1 else b.mul(x, b.sigmoid(_times(b, x, alpha)))


@onnx_op("ThresholdedRelu")
def thresholded_relu(b: Any, node: Node) -> Value:
    """x where x > alpha, 0 elsewhere."""
    x = node.x(0)
    return b.select(b.greater(x, b.scalar(node.attr("alpha"), x)), x, _zero(b, x))


@onnx_op("Shrink")
def shrink(b: Any, node: Node) -> Value:
    """Moves x toward 0 by bias outside [-lambd, lambd], and gives 0 inside."""
    x, bias, bound = node.x(0), node.attr("bias"), node.attr("lambd")
    node.need_float(x)
    below = b.less(x, b.scalar(-bound, x))
    above = b.greater(x, b.scalar(bound, x))
    inner = b.select(above, b.sub(x, b.scalar(bias, x)), _zero(b, x))
    return b.select(below, b.add(x, b.scalar(bias, x)), inner)


# -- along an axis -----------------------------------------------------------------------


def _flattened(b: Any, node: Node, op: str) -> Value:
    """Before opset 13 the axes from `axis` on are one: softmax over their product."""
    x = node.x(0)
    axis = node.axis(x.rank, default=1)
    if axis == x.rank - 1:
        return getattr(b, op)(x, axis=axis)
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    flat = b.reshape(x, (rows, x.spec.size // rows if rows else 0))
    return b.reshape(getattr(b, op)(flat, axis=1), x.shape)


def _along(op: str) -> None:
    name = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[op]

    @onnx_op(name)
    def old(b: Any, node: Node) -> Value:
        """Before opset 13 over all axes from `axis` on, later along one."""
        return _flattened(b, node, op)

    @onnx_op(name, since=13)
    def new(b: Any, node: Node) -> Value:
        """Along one axis."""
        x = node.x(0)
        return getattr(b, op)(x, axis=node.axis(x.rank, default=-1))


_along("softmax")
_along("log_softmax")


@onnx_op("Hardmax")
def hardmax(b: Any, node: Node) -> Value:
    """1 at the first largest element, 0 elsewhere."""
    x = node.x(0)
    axis = node.axis(x.rank, default=1 if node.version < 13 else -1)
    flat, along = x, axis
    if node.version < 13:
        rows = 1
        for size in x.shape[:axis]:
            rows *= size
        flat, along = b.reshape(x, (rows, x.spec.size // rows if rows else 0)), 1
    best = b.argmax(flat, axis=along, keepdims=True)
    place = b.iota(shape=flat.shape, axis=along, dtype=best.dtype)
    return b.reshape(b.cast(b.equal(place, best), x.dtype), x.shape)
