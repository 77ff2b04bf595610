"""Softmax and the losses built on it.

The largest element is subtracted before anything is exponentiated, so no finite input
overflows. 16-bit floats compute in float32 and round once. NaN anywhere in a row makes the
row NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.dialects.mge.composite import widen
from mgec.dialects.mge.elementwise import broadcast_shapes, check_dtype
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import check_axes, check_not_empty, reduced_shape
from mgec.dialects.mge.rules import decomposition, gradient, reference
from mgec.dialects.mge.spec import DYNAMIC, FLOATS, INT32, INTEGERS, DType, TensorSpec
from mgec.errors import ArgumentError, DTypeError, ShapeError


def _check_softmax(name: str, operand: str, inp: TensorSpec, axes: tuple[int, ...]) -> None:
    check_dtype(name, operand, inp.dtype, FLOATS)
    check_axes(name, inp, axes)
    check_not_empty(name, inp, axes)


def _sum(b: Any, x: Any, axis: int) -> Any:
    return b.reduce_sum(x, axes=(axis,), keepdims=True)


def _shifted(b: Any, x: Any, axis: int) -> Any:
    return b.sub(x, b.reduce_max(x, axes=(axis,), keepdims=True))


# -- softmax -------------------------------------------------------------------------------


@mge_op
class SoftmaxOp(MgeOp):
    """exp(x) divided by its sum along one axis.

    A row that is -inf throughout, or has a +inf, is NaN (0 / 0, inf / inf).

    Shapes: any, the axis not empty; kept. Dtypes: the floats.
    """

    name = "mge.softmax"

    @staticmethod
    def infer(inp: TensorSpec, *, axis: int) -> TensorSpec:
        _check_softmax("softmax", "inp", inp, (axis,))
        return inp


@reference(SoftmaxOp)
def _softmax_reference(inp: Any, *, axis: int) -> Any:
    weight = np.exp(inp - inp.max(axis=axis, keepdims=True))
    return weight / weight.sum(axis=axis, keepdims=True)


@decomposition(SoftmaxOp)
def _softmax(b: Any, inp: Any, *, axis: int) -> Any:
    weight = b.exp(_shifted(b, widen(b, inp), axis))
    return b.cast(b.div(weight, _sum(b, weight, axis)), b.spec(inp).dtype)


@gradient(SoftmaxOp)
def _softmax_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    axis, out, d = call.attrs["axis"], widen(b, call.outputs[0]), widen(b, d_out)
    inner = _sum(b, b.mul(d, out), axis)
    return (b.cast(b.mul(out, b.sub(d, inner)), call.specs[0].dtype),)


@mge_op
class LogSoftmaxOp(MgeOp):
    """x minus the log of the sum of exp(x) along one axis; the logarithm of softmax.

    A row that softmax makes NaN is NaN here, too.

    Shapes: any, the axis not empty; kept. Dtypes: the floats.
    """

    name = "mge.log_softmax"

    @staticmethod
    def infer(inp: TensorSpec, *, axis: int) -> TensorSpec:
        _check_softmax("log_softmax", "inp", inp, (axis,))
        return inp


@reference(LogSoftmaxOp)
def _log_softmax_reference(inp: Any, *, axis: int) -> Any:
    shifted = inp - inp.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


@decomposition(LogSoftmaxOp)
def _log_softmax(b: Any, inp: Any, *, axis: int) -> Any:
    shifted = _shifted(b, widen(b, inp), axis)
    return b.cast(b.sub(shifted, b.log(_sum(b, b.exp(shifted), axis))), b.spec(inp).dtype)


@gradient(LogSoftmaxOp)
def _log_softmax_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    axis, out, d = call.attrs["axis"], widen(b, call.outputs[0]), widen(b, d_out)
    return (b.cast(b.sub(d, b.mul(b.exp(out), _sum(b, d, axis))), call.specs[0].dtype),)


# -- logsumexp -----------------------------------------------------------------------------


@mge_op
class LogsumexpOp(MgeOp):
    """log of the sum of exp(x) over axes. A row of -inf gives -inf, a row with +inf gives +inf.

    Shapes: any, no axis in `axes` empty; they go, or become 1 with `keepdims`. Dtypes: the
    floats.
    """

    name = "mge.logsumexp"

    @staticmethod
    def infer(inp: TensorSpec, *, axes: tuple[int, ...], keepdims: bool = False) -> TensorSpec:
        _check_softmax("logsumexp", "inp", inp, axes)
        return TensorSpec(reduced_shape(inp.shape, axes, keepdims), inp.dtype)


@reference(LogsumexpOp)
def _logsumexp_reference(inp: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.logaddexp.reduce(inp, axis=axes, keepdims=keepdims)


def _finite_or_zero(b: Any, x: Any) -> Any:
    return b.select(b.is_inf(x), b.scalar(0, x), x)


@decomposition(LogsumexpOp)
def _logsumexp(b: Any, inp: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    spec, x = b.spec(inp), widen(b, inp)
    largest = _finite_or_zero(b, b.reduce_max(x, axes=axes, keepdims=True))  # not inf - inf
    total = b.reduce_sum(b.exp(b.sub(x, largest)), axes=axes, keepdims=True)
    out = b.cast(b.add(b.log(total), largest), spec.dtype)
    return b.reshape(out, reduced_shape(spec.shape, axes, keepdims))


@gradient(LogsumexpOp)
def _logsumexp_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    """d_out times softmax; nothing flows into a row of -inf."""
    spec = call.specs[0]
    kept = reduced_shape(spec.shape, call.attrs["axes"], True)
    out = b.reshape(widen(b, call.outputs[0]), kept)
    nothing = b.equal(out, b.scalar(float("-inf"), out))
    safe = b.select(nothing, b.scalar(0, out), out)
    weight = b.exp(b.sub(widen(b, call.inputs[0]), safe))
    return (b.cast(b.mul(b.reshape(widen(b, d_out), kept), weight), spec.dtype),)


# -- losses --------------------------------------------------------------------------------


@mge_op
class CrossEntropyOp(MgeOp):
    """Cross entropy of softmax(logits) with a class per example.

    loss = logsumexp(logits) - (1 - label_smooth) * logits[label] - label_smooth * mean(logits)

    Labels must name a class; for another one the loss means nothing, though it is computed
    without harm.

    Shapes: logits any, with the classes along `axis` (not empty); labels and the result
    without that axis. Dtypes: logits and the result a float, labels any integer.
    """

    name = "mge.cross_entropy"

    @staticmethod
    def infer(
        logits: TensorSpec, labels: TensorSpec, *, axis: int = 1, label_smooth: float = 0.0
    ) -> TensorSpec:
        name = "cross_entropy"
        _check_softmax(name, "logits", logits, (axis,))
        check_dtype(name, "labels", labels.dtype, INTEGERS)
        expected = reduced_shape(logits.shape, (axis,), False)
        values = [("logits", str(logits), f"classes on axis {axis}"), ("labels", str(labels), "")]
        pairs = zip(labels.shape, expected, strict=False)
        if labels.rank != len(expected) or any(a != b and DYNAMIC not in (a, b) for a, b in pairs):
            raise ShapeError(
                f"{name}: labels have shape {list(labels.shape)} but logits without axis {axis} "
                f"have {list(expected)}",
                values=values,
                fix="give one label per example, or choose another axis",
            )
        if not 0 <= label_smooth <= 1:
            raise ArgumentError(
                f"{name}: label_smooth is {label_smooth} but must be between 0 and 1",
                fix="use a small number such as 0.1",
            )
        return TensorSpec(expected, logits.dtype)


@reference(CrossEntropyOp)
def _cross_entropy_reference(logits: Any, labels: Any, *, axis: int, label_smooth: float) -> Any:
    x = np.moveaxis(logits, axis, -1)
    chosen = np.clip(labels, 0, x.shape[-1] - 1).astype(np.int64)
    picked = np.take_along_axis(x, chosen[..., None], -1)[..., 0]
    loss = np.logaddexp.reduce(x, axis=-1) - (1 - label_smooth) * picked
    return loss - label_smooth * x.mean(axis=-1) if label_smooth else loss


def _hits(b: Any, labels: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Where along `axis` the class is the label (bool, broadcasts to the logits)."""
    kept = reduced_shape(shape, (axis,), True)
    line = tuple(d if i == axis else 1 for i, d in enumerate(shape))
    dtype: DType = b.spec(labels).dtype
    if dtype.itemsize < 4:  # int8 cannot count 1000 classes
        labels, dtype = b.cast(labels, INT32), INT32
    classes = b.iota(shape=line, axis=axis, dtype=dtype)
    return b.equal(classes, b.reshape(labels, kept))


@decomposition(CrossEntropyOp)
def _cross_entropy(b: Any, logits: Any, labels: Any, *, axis: int, label_smooth: float) -> Any:
    spec, x, axes = b.spec(logits), widen(b, logits), (axis,)
    # The terms' factors sum to 1, so what is subtracted from all logits leaves the loss.
    largest = _finite_or_zero(b, b.reduce_max(x, axes=axes, keepdims=True))
    x = b.sub(x, largest)
    hit = b.select(_hits(b, labels, spec.shape, axis), x, b.scalar(0, x))  # not 0 * inf
    picked = b.reduce_sum(hit, axes=axes, keepdims=False)
    loss = b.log(b.reduce_sum(b.exp(x), axes=axes, keepdims=False))
    loss = b.sub(loss, b.mul(picked, b.scalar(1 - label_smooth, x)) if label_smooth else picked)
    if label_smooth:
        mean = b.reduce_mean(x, axes=axes, keepdims=False)
        loss = b.sub(loss, b.mul(mean, b.scalar(label_smooth, x)))
    return b.cast(loss, spec.dtype)


@gradient(CrossEntropyOp)
def _cross_entropy_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None]:
    """(softmax - smoothed one-hot) * d_out."""
    spec, axis, smooth = call.specs[0], call.attrs["axis"], call.attrs["label_smooth"]
    x = widen(b, call.inputs[0])
    weight = b.softmax(x, axis=axis)
    if smooth:
        weight = b.sub(weight, b.scalar(smooth / spec.shape[axis], x))
    hits = _hits(b, call.inputs[1], spec.shape, axis)
    error = b.sub(weight, b.select(hits, b.scalar(1 - smooth, x), b.scalar(0, x)))
    d = b.reshape(widen(b, d_out), reduced_shape(spec.shape, (axis,), True))
    return b.cast(b.mul(error, d), spec.dtype), None


@mge_op
class BinaryCrossEntropyWithLogitsOp(MgeOp):
    """-(y log p + (1 - y) log(1 - p)) with p = sigmoid(logits), without overflow.

    Shapes: broadcast to each other. Dtypes: the floats, both equal.
    """

    name = "mge.binary_cross_entropy_with_logits"

    @staticmethod
    def infer(logits: TensorSpec, labels: TensorSpec) -> TensorSpec:
        name = "binary_cross_entropy_with_logits"
        check_dtype(name, "logits", logits.dtype, FLOATS)
        if labels.dtype != logits.dtype:
            raise DTypeError(
                f"{name}: logits is {logits.dtype.name} but labels is {labels.dtype.name}",
                values=[("logits", str(logits), ""), ("labels", str(labels), "")],
                fix=f"convert labels with astype({logits.dtype.name!r})",
            )
        return TensorSpec(broadcast_shapes(name, logits.shape, labels.shape), logits.dtype)


@reference(BinaryCrossEntropyWithLogitsOp)
def _binary_cross_entropy_reference(logits: Any, labels: Any) -> Any:
    return labels * np.logaddexp(0, -logits) + (1 - labels) * np.logaddexp(0, logits)


@decomposition(BinaryCrossEntropyWithLogitsOp)
def _binary_cross_entropy(b: Any, logits: Any, labels: Any) -> Any:
    x, y = widen(b, logits), widen(b, labels)
    return b.cast(b.sub(b.softplus(x), b.mul(x, y)), b.spec(logits).dtype)


OPS = (SoftmaxOp, LogSoftmaxOp, LogsumexpOp, CrossEntropyOp, BinaryCrossEntropyWithLogitsOp)
