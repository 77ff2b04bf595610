"""Reductions of ONNX, arg-reductions and cumulative sums and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mgec.dialects.mge.composite import widen
from mgec.dialects.mge.reduce import reduced_shape
from mgec.dialects.mge.spec import BOOL, FLOAT64, is_float, is_integer
from mgec.importers.onnx_node import Node, Unsupported, cut, int64, onnx_op
from mgec.importers.onnx_value import Value

Reduce = Callable[[Any, Value, "tuple[int, ...]", bool], Value]


def _axes(node: Node, rank: int) -> tuple[int, ...]:
    """The axes to reduce over; all of them if none are named, or none if it says so."""
    axes = node.ints_or_input("axes", 1)
    if not axes:
        return () if node.flag("noop_with_empty_axes") else tuple(range(rank))
    return node.normal_axes(axes, rank)


def _reduction(name: str, rule: Reduce) -> None:
    @onnx_op(name)
    def handler(b: Any, node: Node) -> Value:
        """Over some axes, or over all."""
        x = node.x(0)
        return rule(b, x, _axes(node, x.rank), bool(node.attr("keepdims", 1)))


def _plain(op: str) -> Reduce:
    def rule(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        return getattr(b, op)(x, axes=axes, keepdims=keepdims) if axes else x

    return rule


def _extremum(op: str, of_bool: str, empty: float) -> Reduce:
    def rule(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
        if not axes:
            return x
        if x.dtype == BOOL:
            return getattr(b, of_bool)(x, axes=axes, keepdims=keepdims)
        if any(x.shape[axis] == 0 for axis in axes):
            value = empty
            if is_integer(x.dtype):
                info = np.iinfo(x.dtype)  # pyright: ignore[reportArgumentType,reportCallIssue]
                value = info.min if empty < 0 else info.max
            return b.full(reduced_shape(x.shape, axes, keepdims), value, x.dtype)
        return getattr(b, op)(x, axes=axes, keepdims=keepdims)

    return rule


def _mean(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    """Means of integers are cut off to integers."""
    if not axes:
        return x
    wide = b.cast(x, FLOAT64) if is_integer(x.dtype) else x
    return b.cast(b.reduce_mean(wide, axes=axes, keepdims=keepdims), x.dtype)


def _sum(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return b.reduce_sum(x, axes=axes, keepdims=keepdims) if axes else x


def _l1(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    return _sum(b, b.abs(x), axes, keepdims)


def _sum_square(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    wide = widen(b, x)
    return b.cast(_sum(b, b.mul(wide, wide), axes, keepdims), x.dtype)


def _l2(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    wide = b.cast(x, FLOAT64) if is_integer(x.dtype) else widen(b, x)
    total = _sum(b, b.mul(wide, wide), axes, keepdims)
    return b.cast(b.sqrt(total), x.dtype)


def _log_sum(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    wide = b.cast(x, FLOAT64) if is_integer(x.dtype) else widen(b, x)
    return b.cast(b.log(_sum(b, wide, axes, keepdims)), x.dtype)


def _log_sum_exp(b: Any, x: Value, axes: tuple[int, ...], keepdims: bool) -> Value:
    if not axes:
        return x
    if not is_float(x.dtype):
        raise Unsupported(f"ReduceLogSumExp of {x.dtype.name}")
    if any(x.shape[axis] == 0 for axis in axes):
        return b.full(reduced_shape(x.shape, axes, keepdims), -np.inf, x.dtype)
    return b.logsumexp(x, axes=axes, keepdims=keepdims)


for _name, _rule in {
    "ReduceSum": _sum,
    "ReduceProd": _plain("reduce_prod"),
    "ReduceMax": _extremum("reduce_max", "reduce_any", -np.inf),
    "ReduceMin": _extremum("reduce_min", "reduce_all", np.inf),
    "ReduceMean": _mean,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}.items():
    _reduction(_name, _rule)


def _arg(name: str, op: str) -> None:
    @onnx_op(name)
    def handler(b: Any, node: Node) -> Value:
        """The place of the first such element, or of the last."""
        x = node.x(0)
        axis, keepdims = node.axis(x.rank, default=0), bool(node.attr("keepdims", 1))
        if not node.flag("select_last_index"):
            return int64(b, getattr(b, op)(x, axis=axis, keepdims=keepdims))
        found = int64(b, getattr(b, op)(b.reverse(x, axes=(axis,)), axis=axis, keepdims=keepdims))
        return b.sub(b.scalar(x.shape[axis] - 1, found), found)


_arg("ArgMax", "argmax")
_arg("ArgMin", "argmin")


@onnx_op("CumSum")
def cumsum(b: Any, node: Node) -> Value:
    """The running sum along an axis."""
    x = node.x(0)
    axis = node.normal_axis(node.known_int(1, "axis"), x.rank)
    return b.cumsum(x, axis=axis, exclusive=node.flag("exclusive"), reverse=node.flag("reverse"))


@onnx_op("CumProd")
def cumprod(b: Any, node: Node) -> Value:
    """The running product: log2(size) steps, each of which doubles the reach of a product.

    Source: Hillis and Steele, "Data parallel algorithms", CACM 29 (1986), section "sum of an
    array of numbers".
    """
    x = node.x(0)
    axis = node.normal_axis(node.known_int(1, "axis"), x.rank)
    size = x.shape[axis]
    reverse = node.flag("reverse")
    if reverse:
        x = b.reverse(x, axes=(axis,))
    if node.flag("exclusive") and size:
        x = _shifted(b, x, axis, 1)
    step = 1
    while step < size:
        x = b.mul(x, _shifted(b, x, axis, step))
        step *= 2
    return b.reverse(x, axes=(axis,)) if reverse else x


def _shifted(b: Any, x: Value, axis: int, step: int) -> Value:
    """x moved by `step` places along an axis, with ones before it."""
    low = tuple(step if i == axis else 0 for i in range(x.rank))
    kept = cut(b, x, axis, 0, x.shape[axis] - step)
    return b.pad(kept, low=low, high=(0,) * x.rank, value=1.0)
