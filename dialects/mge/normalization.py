"""Normalization: subtract the mean and divide by the standard deviation over some axes.

All are composites that compute in float32 for the 16-bit floats and round once. Scale and
shift may be kept in that wider dtype. The gradient rules are the two-pass form: the sums
over the normalized axes first, then one elementwise expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgec.dialects.mge.composite import widen
from mgec.dialects.mge.elementwise import check_dtype
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.rules import decomposition, gradient, reference
from mgec.dialects.mge.spec import DYNAMIC, FLOATS, TensorSpec
from mgec.errors import ArgumentError, DTypeError, ShapeError

_ROLE = "(N, C, ...)"
_ROLE_LAST = "(N, ..., C)"


def _check_eps(name: str, eps: float) -> None:
    if not eps >= 0:
        raise ArgumentError(
            f"{name}: eps is {eps} but may not be negative", fix="use a small number such as 1e-5"
        )


def _check_params(
    name: str,
    inp: TensorSpec,
    shape: tuple[int, ...],
    params: dict[str, TensorSpec | None],
    role: str,
) -> None:
    """Raises unless every given parameter has `shape` and the dtype of `inp`, or the wide one."""
    check_dtype(name, "inp", inp.dtype, FLOATS)
    for key, spec in params.items():
        if spec is None:
            continue
        values = [("inp", str(inp), role), (key, str(spec), "")]
        if spec.dtype not in (inp.dtype, accumulator(inp.dtype)):
            raise DTypeError(
                f"{name}: inp is {inp.dtype.name} but {key} is {spec.dtype.name}",
                values=values,
                fix=f"convert {key} with astype({inp.dtype.name!r})",
            )
        pairs = zip(spec.shape, shape, strict=False)
        if spec.rank != len(shape) or any(a != b and DYNAMIC not in (a, b) for a, b in pairs):
            raise ShapeError(
                f"{name}: {key} has shape {list(spec.shape)} but needs {list(shape)}",
                values=values,
                fix=f"reshape {key} to {list(shape)}",
            )


def _check_channels(name: str, inp: TensorSpec) -> None:
    if inp.rank < 2:
        raise ShapeError(
            f"{name}: inp has rank {inp.rank} but needs rank 2 or more {_ROLE}",
            values=[("inp", str(inp), _ROLE)],
            fix=f"reshape inp to {_ROLE}",
        )


def _per_channel(b: Any, value: Any, rank: int) -> Any:
    """A vector [C] as [C, 1, ...], to broadcast against [N, C, ...]."""
    return b.reshape(value, (*b.spec(value).shape, *(1,) * (rank - 2)))


def _affine(b: Any, value: Any, weight: Any, bias: Any) -> Any:
    if weight is not None:
        value = b.mul(value, weight)
    return value if bias is None else b.add(value, bias)


def _standardize(b: Any, x: Any, axes: Sequence[int], eps: float) -> tuple[Any, Any, Any, Any]:
    """Mean, variance, 1 / sqrt(variance + eps), and (x - mean) times that, over `axes`."""
    mean = b.reduce_mean(x, axes=axes, keepdims=True)
    centered = b.sub(x, mean)
    variance = b.reduce_mean(b.mul(centered, centered), axes=axes, keepdims=True)
    inverse = b.rsqrt(b.add(variance, b.scalar(eps, variance)))
    return mean, variance, inverse, b.mul(centered, inverse)


def _standardize_gradient(b: Any, d: Any, normal: Any, inverse: Any, axes: Sequence[int]) -> Any:
    """The gradient of `_standardize`'s last result, given the gradient `d` arriving there."""
    mean_d = b.reduce_mean(d, axes=axes, keepdims=True)
    mean_dn = b.reduce_mean(b.mul(d, normal), axes=axes, keepdims=True)
    return b.mul(b.sub(b.sub(d, mean_d), b.mul(normal, mean_dn)), inverse)


# -- batch norm ----------------------------------------------------------------------------


def _batch_axes(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank))


@mge_op
class BatchNormTrainOp(MgeOp):
    """Normalizes every channel over the batch, and returns its statistics.

    out = (inp - mean) / sqrt(variance + eps) * weight + bias, with mean and (biased)
    variance over all axes but 1. Gradients flow into all three results; detach the
    statistics before running averages are made of them.

    Shapes: inp and out [N, C, ...], the others [C]. Dtypes: the floats; statistics of 16-bit
    floats are float32, and weight and bias may be.
    """

    name = "mge.batch_norm_train"
    results_names = ("out", "mean", "variance")

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec | None = None,
        bias: TensorSpec | None = None,
        *,
        eps: float = 1e-5,
    ) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
        name = "batch_norm_train"
        _check_channels(name, inp)
        params = {"weight": weight, "bias": bias}
        _check_params(name, inp, inp.shape[1:2], params, _ROLE)
        _check_eps(name, eps)
        stats = TensorSpec(inp.shape[1:2], accumulator(inp.dtype))
        return inp, stats, stats


@reference(BatchNormTrainOp)
def _batch_norm_train_reference(inp: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    rows = np.moveaxis(inp, 1, 0).reshape(inp.shape[1], inp.size // max(inp.shape[1], 1))
    count = np.float64(rows.shape[1])
    mean = rows.sum(axis=1) / count
    variance = ((rows - mean[:, None]) ** 2).sum(axis=1) / count
    return _batch_norm_reference(inp, weight, bias, mean, variance, eps=eps), mean, variance


@decomposition(BatchNormTrainOp)
def _batch_norm_train(b: Any, inp: Any, weight: Any, bias: Any, *, eps: float) -> tuple[Any, ...]:
    spec = b.spec(inp)
    axes = _batch_axes(spec.rank)
    mean, variance, _, normal = _standardize(b, widen(b, inp), axes, eps)
    weight, bias = (
        None if p is None else _per_channel(b, widen(b, p), spec.rank) for p in (weight, bias)
    )
    out = b.cast(_affine(b, normal, weight, bias), spec.dtype)
    return out, b.reshape(mean, spec.shape[1:2]), b.reshape(variance, spec.shape[1:2])


@gradient(BatchNormTrainOp)
def _batch_norm_train_gradient(
    b: Any, call: Any, d_out: Any, d_mean: Any, d_variance: Any
) -> tuple[Any, Any, Any]:
    """Sums per channel first, then d_inp = a * d_out + c1 * (inp - mean) + c0."""
    inp, weight, bias = call.inputs
    _, mean, variance = call.outputs
    spec = call.specs[0]
    rank, axes = spec.rank, _batch_axes(spec.rank)
    inverse = b.rsqrt(b.add(variance, b.scalar(call.attrs["eps"], variance)))
    d = widen(b, d_out)
    centered = b.sub(widen(b, inp), _per_channel(b, mean, rank))
    sum_d = b.reduce_sum(d, axes=axes, keepdims=False)
    sum_dn = b.mul(b.reduce_sum(b.mul(d, centered), axes=axes, keepdims=False), inverse)
    d_inp = None
    if call.needs[0]:
        a = inverse if weight is None else b.mul(widen(b, weight), inverse)
        count = max(1, spec.size // spec.shape[1]) if spec.shape[1] else 1
        share = b.scalar(1 / count, inverse)
        c0 = b.mul(b.sub(d_mean, b.mul(a, sum_d)), share)
        slope = b.sub(b.mul(b.scalar(2, d_variance), d_variance), b.mul(b.mul(a, sum_dn), inverse))
        c1 = b.mul(slope, share)
        a, c0, c1 = (_per_channel(b, v, rank) for v in (a, c0, c1))
        d_inp = b.cast(b.add(b.add(b.mul(a, d), b.mul(c1, centered)), c0), spec.dtype)
    d_weight = b.cast(sum_dn, call.specs[1].dtype) if weight is not None else None
    d_bias = b.cast(sum_d, call.specs[2].dtype) if bias is not None else None
    return d_inp, d_weight, d_bias


@mge_op
class BatchNormInferenceOp(MgeOp):
    """Batch norm with given statistics: (inp - mean) / sqrt(variance + eps) * weight + bias.

    Shapes: inp and the result [N, C, ...], or [N, ..., C] with `channels_last`; the others
    [C]. Dtypes: the floats; of 16-bit floats the others may be float32.
    """

    name = "mge.batch_norm_inference"

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec,
        bias: TensorSpec,
        mean: TensorSpec,
        variance: TensorSpec,
        *,
        eps: float = 1e-5,
        channels_last: bool = False,
    ) -> TensorSpec:
        name = "batch_norm_inference"
        _check_channels(name, inp)
        params = {"weight": weight, "bias": bias, "mean": mean, "variance": variance}
        shape, role = (inp.shape[-1:], _ROLE_LAST) if channels_last else (inp.shape[1:2], _ROLE)
        _check_params(name, inp, shape, dict(params), role)
        _check_eps(name, eps)
        return inp


@reference(BatchNormInferenceOp)
def _batch_norm_reference(
    inp: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *,
    eps: float,
    channels_last: bool = False,
) -> Any:
    axis = -1 if channels_last else 1
    moved = (np.moveaxis(inp, axis, -1) - mean) / np.sqrt(variance + eps)
    moved = moved if weight is None else moved * weight
    return np.moveaxis(moved if bias is None else moved + bias, -1, axis)


@decomposition(BatchNormInferenceOp)
def _batch_norm_inference(
    b: Any,
    inp: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *,
    eps: float,
    channels_last: bool,
) -> Any:
    spec = b.spec(inp)
    weight, bias, mean, variance = (widen(b, p) for p in (weight, bias, mean, variance))
    scale = b.mul(weight, b.rsqrt(b.add(variance, b.scalar(eps, variance))))
    if not channels_last:
        mean, scale, bias = (_per_channel(b, p, spec.rank) for p in (mean, scale, bias))
    return b.cast(b.add(b.mul(b.sub(widen(b, inp), mean), scale), bias), spec.dtype)


# -- layer norm ----------------------------------------------------------------------------


def _check_trailing(name: str, inp: TensorSpec, num_axes: int) -> tuple[int, ...]:
    if not 1 <= num_axes <= inp.rank:
        raise ArgumentError(
            f"{name}: num_axes is {num_axes} but inp has rank {inp.rank}",
            values=[("inp", str(inp))],
            fix="normalize over at least one and at most all axes",
        )
    return inp.shape[inp.rank - num_axes :]


def _trailing(rank: int, num_axes: int) -> tuple[int, ...]:
    return tuple(range(rank - num_axes, rank))


def _affine_gradients(
    b: Any, call: Any, d: Any, normal: Any, spread: Sequence[int] | None = None
) -> tuple[Any, ...]:
    """Gradients of weight and bias (those given), where out = normal * weight + bias."""
    result: list[Any] = []
    for spec, factor in zip(call.specs[1:], (normal, None), strict=False):
        if spec is None:
            result.append(None)
            continue
        product = d if factor is None else b.mul(d, factor)
        stretched = spec.shape if spread is None else tuple(spread)
        summed = b.sum_to(product, stretched)
        result.append(b.cast(b.reshape(summed, spec.shape), spec.dtype))
    return tuple(result)


@mge_op
class LayerNormOp(MgeOp):
    """Normalizes over the last `num_axes` axes, then scales and shifts.

    Shapes: inp and the result any; weight and bias, which may be absent, have the sizes of
    the normalized axes. Dtypes: the floats; of 16-bit floats weight and bias may be float32.
    """

    name = "mge.layer_norm"

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec | None = None,
        bias: TensorSpec | None = None,
        *,
        num_axes: int = 1,
        eps: float = 1e-5,
    ) -> TensorSpec:
        shape = _check_trailing("layer_norm", inp, num_axes)
        _check_params("layer_norm", inp, shape, {"weight": weight, "bias": bias}, "")
        _check_eps("layer_norm", eps)
        return inp


@reference(LayerNormOp)
def _layer_norm_reference(inp: Any, weight: Any, bias: Any, *, num_axes: int, eps: float) -> Any:
    axes = tuple(range(-num_axes, 0))
    out = (inp - inp.mean(axis=axes, keepdims=True)) / np.sqrt(
        inp.var(axis=axes, keepdims=True) + eps
    )
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@decomposition(LayerNormOp)
def _layer_norm(b: Any, inp: Any, weight: Any, bias: Any, *, num_axes: int, eps: float) -> Any:
    spec = b.spec(inp)
    normal = _standardize(b, widen(b, inp), _trailing(spec.rank, num_axes), eps)[3]
    return b.cast(_affine(b, normal, widen(b, weight), widen(b, bias)), spec.dtype)


@gradient(LayerNormOp)
def _layer_norm_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
    spec, weight = call.specs[0], widen(b, call.inputs[1])
    axes = _trailing(spec.rank, call.attrs["num_axes"])
    d = widen(b, d_out)
    _, _, inverse, normal = _standardize(b, widen(b, call.inputs[0]), axes, call.attrs["eps"])
    d_inp = None
    if call.needs[0]:
        d_normal = d if weight is None else b.mul(d, weight)
        d_inp = b.cast(_standardize_gradient(b, d_normal, normal, inverse, axes), spec.dtype)
    return d_inp, *_affine_gradients(b, call, d, normal)


@mge_op
class RmsNormOp(MgeOp):
    """Divides by the root of the mean square over the last `num_axes` axes, then scales.

    Shapes: inp and the result any; weight, which may be absent, has the sizes of the
    normalized axes. Dtypes: the floats; of 16-bit floats weight may be float32.
    """

    name = "mge.rms_norm"

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec | None = None,
        *,
        num_axes: int = 1,
        eps: float = 1e-5,
    ) -> TensorSpec:
        shape = _check_trailing("rms_norm", inp, num_axes)
        _check_params("rms_norm", inp, shape, {"weight": weight}, "")
        _check_eps("rms_norm", eps)
        return inp


@reference(RmsNormOp)
def _rms_norm_reference(inp: Any, weight: Any, *, num_axes: int, eps: float) -> Any:
    square = (inp**2).mean(axis=tuple(range(-num_axes, 0)), keepdims=True)
    out = inp / np.sqrt(square + eps)
    return out if weight is None else out * weight


def _root_mean_square(b: Any, x: Any, axes: Sequence[int], eps: float) -> tuple[Any, Any]:
    """1 / sqrt(mean square + eps), and x times that."""
    square = b.reduce_mean(b.mul(x, x), axes=axes, keepdims=True)
    inverse = b.rsqrt(b.add(square, b.scalar(eps, square)))
    return inverse, b.mul(x, inverse)


@decomposition(RmsNormOp)
def _rms_norm(b: Any, inp: Any, weight: Any, *, num_axes: int, eps: float) -> Any:
    spec = b.spec(inp)
    _, normal = _root_mean_square(b, widen(b, inp), _trailing(spec.rank, num_axes), eps)
    return b.cast(_affine(b, normal, widen(b, weight), None), spec.dtype)


@gradient(RmsNormOp)
def _rms_norm_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
    spec, weight = call.specs[0], widen(b, call.inputs[1])
    axes = _trailing(spec.rank, call.attrs["num_axes"])
    d = widen(b, d_out)
    inverse, normal = _root_mean_square(b, widen(b, call.inputs[0]), axes, call.attrs["eps"])
    d_inp = None
    if call.needs[0]:
        g = d if weight is None else b.mul(d, weight)
        mean = b.reduce_mean(b.mul(g, normal), axes=axes, keepdims=True)
        d_inp = b.cast(b.mul(b.sub(g, b.mul(normal, mean)), inverse), spec.dtype)
    return d_inp, *_affine_gradients(b, call, d, normal)


# -- group norm ----------------------------------------------------------------------------


@mge_op
class GroupNormOp(MgeOp):
    """Normalizes every group of channels of every example, then scales and shifts.

    With as many groups as channels this is instance norm, with one group layer norm over all
    axes but the first.

    Shapes: inp and the result [N, C, ...]; weight and bias, which may be absent, [C]; groups
    divides C. Dtypes: the floats; of 16-bit floats weight and bias may be float32.
    """

    name = "mge.group_norm"

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec | None = None,
        bias: TensorSpec | None = None,
        *,
        groups: int,
        eps: float = 1e-5,
    ) -> TensorSpec:
        _check_channels("group_norm", inp)
        channels = inp.shape[1]
        if groups < 1 or (channels != DYNAMIC and channels % groups):
            raise ShapeError(
                f"group_norm: inp has {channels} channels, which {groups} groups do not divide",
                values=[("inp", str(inp), _ROLE)],
                fix="use a number of groups that divides the channels",
            )
        params = {"weight": weight, "bias": bias}
        _check_params("group_norm", inp, inp.shape[1:2], params, _ROLE)
        _check_eps("group_norm", eps)
        return inp


@reference(GroupNormOp)
def _group_norm_reference(inp: Any, weight: Any, bias: Any, *, groups: int, eps: float) -> Any:
    out = np.empty_like(inp)
    size = inp.shape[1] // groups
    for g in range(groups):
        part = inp[:, g * size : (g + 1) * size]
        axes = tuple(range(1, inp.ndim))
        mean, var = part.mean(axis=axes, keepdims=True), part.var(axis=axes, keepdims=True)
        out[:, g * size : (g + 1) * size] = (part - mean) / np.sqrt(var + eps)
    shape = (-1, *(1,) * (inp.ndim - 2))
    out = out if weight is None else out * weight.reshape(shape)
    return out if bias is None else out + bias.reshape(shape)


def _grouped(b: Any, x: Any, groups: int) -> Any:
    """[N, C, ...] as [N, groups, C/groups, ...]."""
    n, channels, *rest = b.spec(x).shape
    return b.reshape(x, (n, groups, channels // groups, *rest))


@decomposition(GroupNormOp)
def _group_norm(b: Any, inp: Any, weight: Any, bias: Any, *, groups: int, eps: float) -> Any:
    spec = b.spec(inp)
    axes = tuple(range(2, spec.rank + 1))
    normal = _standardize(b, _grouped(b, widen(b, inp), groups), axes, eps)[3]
    weight, bias = (
        None if p is None else _per_channel(b, widen(b, p), spec.rank) for p in (weight, bias)
    )
    return b.cast(_affine(b, b.reshape(normal, spec.shape), weight, bias), spec.dtype)


@gradient(GroupNormOp)
def _group_norm_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
    spec, groups = call.specs[0], call.attrs["groups"]
    axes = tuple(range(2, spec.rank + 1))
    d, x = widen(b, d_out), _grouped(b, widen(b, call.inputs[0]), groups)
    _, _, inverse, normal = _standardize(b, x, axes, call.attrs["eps"])
    d_inp = None
    if call.needs[0]:
        g = d
        if call.inputs[1] is not None:
            g = b.mul(d, _per_channel(b, widen(b, call.inputs[1]), spec.rank))
        d_x = _standardize_gradient(b, _grouped(b, g, groups), normal, inverse, axes)
        d_inp = b.cast(b.reshape(d_x, spec.shape), spec.dtype)
    spread = (spec.shape[1], *(1,) * (spec.rank - 2))
    return d_inp, *_affine_gradients(b, call, d, b.reshape(normal, spec.shape), spread)


OPS = (BatchNormTrainOp, BatchNormInferenceOp, LayerNormOp, RmsNormOp, GroupNormOp)
