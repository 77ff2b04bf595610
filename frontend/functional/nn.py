"""Neural network functions: layers without their parameters.

Images are (N, C, H, W). Weights of a convolution are (O, I, kH, kW), or with groups
(G, O/G, I/G, kH, kW), and its bias is (1, O, 1, 1), as in MegEngine.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from mgec.core import dispatch
from mgec.core.indexing import check_indices
from mgec.core.promote import operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, DTypeError, ShapeError
from mgec.functional import math as math_
from mgec.functional._arguments import (
    as_float_tensor,
    as_index,
    as_number,
    as_shape,
    as_tensor,
    axes_of,
    axis_of,
    check_choice,
    check_rank,
    is_int,
    pair,
)
from mgec.functional._convolution import (
    COMPUTE_MODES,
    both_sides,
    convolve,
    convolve_transposed,
)
from mgec.functional.tensor import concat, gather, ones, reshape, squeeze, transpose, zeros

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose2d",
    "conv_transpose3d",
    "dropout",
    "embedding",
    "gelu",
    "general_norm",
    "group_norm",
    "hsigmoid",
    "hswish",
    "indexing_one_hot",
    "instance_norm",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "logsigmoid",
    "logsoftmax",
    "logsumexp",
    "max_pool2d",
    "multi_head_attention",
    "one_hot",
    "pad",
    "pixel_shuffle",
    "prelu",
    "relu",
    "relu6",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "sliding_window",
    "softmax",
    "softplus",
]

_IMAGE = "(N, C, H, W)"


# -- linear and convolution --------------------------------------------------------------


def linear(inp: Any, weight: Any, bias: Any = None, compute_mode: str = "default") -> Tensor:
    """inp @ weight.T + bias.

    Args:
        inp: (..., in_features)
        weight: (out_features, in_features)
        bias: (out_features,), or None.
        compute_mode: "default" or "float32"; sums are in float32 in any case.

    Returns:
        (..., out_features)

    Raises:
        ShapeError: if the features do not match.

    Example:
        >>> import mgec.functional as F
        >>> F.linear(F.ones((2, 3)), F.ones((4, 3)), F.zeros(4)).shape
        (2, 4)
    """
    check_choice("linear", "compute_mode", compute_mode, COMPUTE_MODES)
    x, w = operands("linear", (as_float_tensor("linear", inp), weight))
    check_rank("linear", "weight", w, (2,), "(out_features, in_features)")
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        have = x.shape[-1] if x.ndim else "no"
        raise ShapeError(
            f"linear: input has {have} features but weight expects {w.shape[1]}",
            values=[("inp", x, "(..., in_features)"), ("weight", w, "(out_features, in_features)")],
            fix="make inp.shape[-1] equal weight.shape[1]",
        )
    b = None if bias is None else as_tensor("linear", bias)
    if b is not None and b.shape != (1,) * b.ndim and b.shape[-1] != w.shape[0]:
        raise ShapeError(
            f"linear: bias has shape {b.shape} but weight has {w.shape[0]} output features",
            values=[("weight", w, "(out_features, in_features)"), ("bias", b, "(out_features,)")],
            fix=f"give bias the shape ({w.shape[0]},)",
        )
    # One matrix of all leading axes: one big product instead of many small ones.
    rows = x if x.ndim == 2 else reshape(x, (prod(x.shape[:-1]), x.shape[-1]))
    out = dispatch.call("matmul", rows, w, transpose_rhs=True)
    if b is not None and b.ndim < 2:  # in front of the reshape, it is part of the product's kernel
        out, b = out + b, None
    if x.ndim != 2:
        out = reshape(out, (*x.shape[:-1], w.shape[0]))
    return out if b is None else out + b


def conv2d(
    inp: Any,
    weight: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    conv_mode: str = "cross_correlation",
    compute_mode: str = "default",
) -> Tensor:
    """2-D convolution.

    Args:
        inp: (N, C, H, W)
        weight: (O, C, kH, kW), or with groups (G, O/G, C/G, kH, kW).
        bias: (1, O, 1, 1), or None.
        stride: of the windows.
        padding: zeros around the image.
        dilation: distance between the taps of a window.
        groups: channels fall into groups that do not mix.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32"; sums are in float32 in any case.

    Returns:
        (N, O, OH, OW) with OH = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1.

    Raises:
        ShapeError: if ranks or channels do not match, or no window fits.
        ArgumentError: for a stride, dilation, padding or groups out of range.

    Example:
        >>> import mgec.functional as F
        >>> F.conv2d(F.ones((1, 3, 8, 8)), F.ones((4, 3, 3, 3)), padding=1, stride=2).shape
        (1, 4, 4, 4)
    """
    return convolve(
        2, inp, weight, bias, stride, padding, dilation, groups, conv_mode, compute_mode
    )


def conv1d(
    inp: Any,
    weight: Any,
    bias: Any = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    conv_mode: str = "cross_correlation",
    compute_mode: str = "default",
) -> Tensor:
    """1-D convolution; see `conv2d`.

    Args:
        inp: (N, C, L)
        weight: (O, C, k), or with groups (G, O/G, C/G, k).
        bias: (1, O, 1), or None.
        stride: of the windows.
        padding: zeros at both ends.
        dilation: distance between the taps of a window.
        groups: channels fall into groups that do not mix.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32".

    Returns:
        (N, O, OL)
    """
    return convolve(
        1, inp, weight, bias, stride, padding, dilation, groups, conv_mode, compute_mode
    )


def conv3d(
    inp: Any,
    weight: Any,
    bias: Any = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
    conv_mode: str = "cross_correlation",
) -> Tensor:
    """3-D convolution; see `conv2d`.

    Args:
        inp: (N, C, D, H, W)
        weight: (O, C, kD, kH, kW), or with groups (G, O/G, C/G, kD, kH, kW).
        bias: (1, O, 1, 1, 1), or None.
        stride: of the windows.
        padding: zeros around the volume.
        dilation: distance between the taps of a window.
        groups: channels fall into groups that do not mix.
        conv_mode: "cross_correlation" is the only one.

    Returns:
        (N, O, OD, OH, OW)

    Example:
        >>> import mgec.functional as F
        >>> F.conv3d(F.ones((1, 3, 4, 8, 8)), F.ones((2, 3, 3, 3, 3)), padding=1).shape
        (1, 2, 4, 8, 8)
    """
    return convolve(3, inp, weight, bias, stride, padding, dilation, groups, conv_mode, "default")


def conv_transpose2d(
    inp: Any,
    weight: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    output_padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    conv_mode: str = "cross_correlation",
    compute_mode: str = "default",
) -> Tensor:
    """The gradient of `conv2d` with respect to its input, as a layer.

    Args:
        inp: (N, C, H, W)
        weight: (C, O, kH, kW), or with groups (G, C/G, O/G, kH, kW).
        bias: (1, O, 1, 1), or None.
        stride: of the convolution that this reverses.
        padding: of the convolution that this reverses.
        output_padding: rows and columns added to one side of the result; below the stride.
        dilation: of the convolution that this reverses.
        groups: channels fall into groups that do not mix.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32"; sums are in float32 in any case.

    Returns:
        (N, O, OH, OW) with
        OH = (H - 1) * stride - 2 * padding + dilation * (kH - 1) + output_padding + 1.

    Raises:
        ShapeError: if ranks or channels do not match, or the result would be empty.
    """
    return convolve_transposed(
        2, inp, weight, bias, stride, padding, output_padding, dilation, groups,
        conv_mode, compute_mode,
    )  # fmt: skip


def conv_transpose3d(
    inp: Any,
    weight: Any,
    bias: Any = None,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    output_padding: int | tuple[int, int, int] = 0,
    dilation: int | tuple[int, int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv3d` with respect to its input, as a layer.

    Args:
        inp: (N, C, D, H, W)
        weight: (C, O, kD, kH, kW), or with groups (G, C/G, O/G, kD, kH, kW).
        bias: (1, O, 1, 1, 1), or None.
        stride: of the convolution that this reverses.
        padding: of the convolution that this reverses.
        output_padding: what is added to one side of the result; below the stride.
        dilation: of the convolution that this reverses.
        groups: channels fall into groups that do not mix.

    Returns:
        (N, O, OD, OH, OW), with sizes as in `conv_transpose2d`.

    Raises:
        ShapeError: if ranks or channels do not match, or the result would be empty.
    """
    return convolve_transposed(
        3, inp, weight, bias, stride, padding, output_padding, dilation, groups,
        "cross_correlation", "default",
    )  # fmt: skip


# -- pooling -----------------------------------------------------------------------------


def max_pool2d(
    inp: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """The largest element of every window.

    Args:
        inp: (N, C, H, W)
        kernel_size: size of the windows.
        stride: distance between them; their size by default.
        padding: rows and columns around the image, which never win; below the kernel size.

    Returns:
        (N, C, OH, OW) with OH = (H + 2 * padding - kernel) // stride + 1.
    """
    x = as_tensor("max_pool2d", inp)
    check_rank("max_pool2d", "inp", x, (4,), _IMAGE)
    return dispatch.call(
        "max_pool",
        x,
        **_window("max_pool2d", kernel_size, stride, padding),
    )


def _window(name: str, kernel_size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    kernel = pair(name, "kernel_size", kernel_size)
    return {
        "kernel": kernel,
        "stride": kernel if stride is None else pair(name, "stride", stride),
        "padding": both_sides(pair(name, "padding", padding)),
    }


def avg_pool2d(
    inp: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    mode: str = "average_count_exclude_padding",
) -> Tensor:
    """The mean of every window.

    Args:
        inp: (N, C, H, W)
        kernel_size: size of the windows.
        stride: distance between them; their size by default.
        padding: rows and columns of zeros around the image; below the kernel size.
        mode: "average_count_exclude_padding" divides by the number of elements of the image
            in the window (the default, unlike PyTorch's); "average" by the size of the window.

    Returns:
        (N, C, OH, OW) with OH = (H + 2 * padding - kernel) // stride + 1.

    Raises:
        ArgumentError: for another mode.
    """
    check_choice("avg_pool2d", "mode", mode, ("average_count_exclude_padding", "average"))
    x = as_float_tensor("avg_pool2d", inp)
    check_rank("avg_pool2d", "inp", x, (4,), _IMAGE)
    return dispatch.call(
        "avg_pool",
        x,
        **_window("avg_pool2d", kernel_size, stride, padding),
        count_include_pad=mode == "average",
    )


def adaptive_avg_pool2d(inp: Any, oshp: int | tuple[int, int]) -> Tensor:
    """Means of windows chosen so that the result has a given size.

    Args:
        inp: (N, C, H, W)
        oshp: height and width of the result; window i of n covers rows from
            floor(i * H / n) up to ceil((i + 1) * H / n).

    Returns:
        (N, C, *oshp)

    Raises:
        ShapeError: unless `inp` has rank 4.
        ArgumentError: for a size below 1.
    """
    x = as_float_tensor("adaptive_avg_pool2d", inp)
    return _adaptive("adaptive_avg_pool2d", x, oshp, math_.mean, avg_pool2d)


def adaptive_max_pool2d(inp: Any, oshp: int | tuple[int, int]) -> Tensor:
    """Largest elements of windows chosen as in `adaptive_avg_pool2d`."""
    x = as_tensor("adaptive_max_pool2d", inp)
    return _adaptive("adaptive_max_pool2d", x, oshp, math_.max, max_pool2d)


def _adaptive(name: str, x: Tensor, oshp: Any, reduce: Any, pool: Any) -> Tensor:
    check_rank(name, "inp", x, (4,), _IMAGE)
    sizes = pair(name, "oshp", oshp)
    if min(sizes) < 1:
        raise ArgumentError(f"{name}: oshp is {sizes} but must be at least 1", fix="use sizes >= 1")
    height, width = x.shape[2:]
    if sizes == (1, 1):
        return reduce(x, axis=(2, 3), keepdims=True)
    if height % sizes[0] == 0 and width % sizes[1] == 0 and height and width:
        return pool(x, (height // sizes[0], width // sizes[1]))
    for axis, (size, count) in enumerate(zip((height, width), sizes, strict=True)):
        lead = (slice(None),) * (2 + axis)
        parts = [
            reduce(
                x[(*lead, slice(i * size // count, -((i + 1) * size // -count)))],
                axis=2 + axis,
                keepdims=True,
            )
            for i in range(count)
        ]
        x = concat(parts, 2 + axis)
    return x


# -- activations -------------------------------------------------------------------------


def relu(inp: Any) -> Tensor:
    """max(inp, 0)."""
    return dispatch.call("relu", as_tensor("relu", inp))


def relu6(inp: Any) -> Tensor:
    """min(max(inp, 0), 6)."""
    return dispatch.call("relu6", as_float_tensor("relu6", inp))


def sigmoid(inp: Any) -> Tensor:
    """1 / (1 + exp(-inp))."""
    return dispatch.call("sigmoid", as_float_tensor("sigmoid", inp))


def hsigmoid(inp: Any) -> Tensor:
    """relu6(inp + 3) / 6."""
    return dispatch.call("hard_sigmoid", as_float_tensor("hsigmoid", inp))


def hswish(inp: Any) -> Tensor:
    """inp * relu6(inp + 3) / 6."""
    return dispatch.call("hard_swish", as_float_tensor("hswish", inp))


def silu(inp: Any) -> Tensor:
    """inp * sigmoid(inp)."""
    return dispatch.call("silu", as_float_tensor("silu", inp))


def gelu(inp: Any) -> Tensor:
    """inp * (1 + erf(inp / sqrt(2))) / 2."""
    return dispatch.call("gelu", as_float_tensor("gelu", inp))


def leaky_relu(inp: Any, negative_slope: float = 0.01) -> Tensor:
    """inp where it is positive, negative_slope * inp elsewhere."""
    x = as_float_tensor("leaky_relu", inp)
    slope = float(as_number("leaky_relu", "negative_slope", negative_slope))
    return dispatch.call("leaky_relu", x, negative_slope=slope)


def prelu(inp: Any, weight: Any) -> Tensor:
    """inp where it is positive, weight * inp elsewhere.

    Args:
        inp: (N, C, ...)
        weight: a number, (1,), or one slope for each channel: (C,) or (1, C, 1, 1).
    """
    x, w = operands("prelu", (as_float_tensor("prelu", inp), weight))
    if w.ndim == 1 and w.size > 1 and x.ndim > 1:
        w = reshape(w, (1, w.size, *(1,) * (x.ndim - 2)))
    return dispatch.call("prelu", x, w)


def softplus(inp: Any) -> Tensor:
    """log(1 + exp(inp)), without overflow."""
    return dispatch.call("softplus", as_float_tensor("softplus", inp))


def logsigmoid(inp: Any) -> Tensor:
    """log(sigmoid(inp)), without overflow."""
    return dispatch.call("log_sigmoid", as_float_tensor("logsigmoid", inp))


def _softmax_axis(name: str, axis: int | None, rank: int) -> int:
    if axis is None:
        axis = 0 if rank in (0, 1, 3) else 1  # MegEngine's choice
    return axis_of(name, axis, rank)


def softmax(inp: Any, axis: int | None = None) -> Tensor:
    """exp(inp) / sum(exp(inp)) along an axis.

    Args:
        inp: numbers of rank 1 or more.
        axis: the axis that adds up to 1. Without it, axis 0 for ranks 1 and 3 and axis 1
            otherwise, as in MegEngine; better give one.

    Returns:
        A floating point tensor of the shape of `inp`.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.softmax(mge.tensor([[0.0, 0.0]]), axis=1)
        Tensor([[0.5 0.5]], device=xpux:0)
    """
    x = as_float_tensor("softmax", inp)
    return dispatch.call("softmax", x, axis=_softmax_axis("softmax", axis, x.ndim))


def logsoftmax(inp: Any, axis: int) -> Tensor:
    """log(softmax(inp, axis)), without overflow."""
    x = as_float_tensor("logsoftmax", inp)
    return dispatch.call("log_softmax", x, axis=axis_of("logsoftmax", axis, x.ndim))


def logsumexp(inp: Any, axis: int | Sequence[int] | None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(inp))) along axes, without overflow.

    Args:
        inp: numbers of any shape.
        axis: one axis or several.
        keepdims: keep the reduced axes, with size 1.
    """
    x = as_float_tensor("logsumexp", inp)
    axes = axes_of("logsumexp", axis, x.ndim)
    return dispatch.call("logsumexp", x, axes=axes, keepdims=bool(keepdims))


# -- normalization -----------------------------------------------------------------------


def batch_norm(
    inp: Any,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Any = None,
    bias: Any = None,
    *,
    training: bool = False,
    momentum: float = 0.9,
    eps: float = 1e-5,
    inplace: bool = True,
    compute_mode: str = "default",
    param_dim: str = "dim_1c11",
) -> Any:
    """Normalizes each channel over the batch, then scales and shifts it.

    Args:
        inp: (N, C, H, W); (N, C) and (N, C, L) work, too.
        running_mean: (1, C, 1, 1), used for inference and updated by training.
        running_var: (1, C, 1, 1), as `running_mean`; of the unbiased variance.
        weight: (1, C, 1, 1) scale, or None for 1.
        bias: (1, C, 1, 1) shift, or None for 0.
        training: normalize with the statistics of the batch, and update the running ones.
        momentum: weight of the *old* running statistic (PyTorch's is that of the new one).
        eps: added to the variance.
        inplace: update the running statistics in place; otherwise they are returned.
        compute_mode: "default" or "float32"; statistics are in float32 in any case.
        param_dim: "dim_1c11" is the only one.

    Returns:
        A tensor of the shape of `inp`; with ``inplace=False`` while training,
        (out, running_mean, running_var).

    Raises:
        ArgumentError: if not training and there are no running statistics.
        ShapeError: if sizes do not match.
    """
    name = "batch_norm"
    check_choice(name, "compute_mode", compute_mode, COMPUTE_MODES)
    check_choice(name, "param_dim", param_dim, ("dim_1c11",))
    x = as_float_tensor(name, inp)
    check_rank(name, "inp", x, (2, 3, 4, 5), "(N, C, ...)")
    channels = x.shape[1]
    stats = {"running_mean": running_mean, "running_var": running_var}
    params = {"weight": weight, "bias": bias}
    for argument, value in (*stats.items(), *params.items()):
        if value is not None and as_tensor(name, value).size != channels:
            raise ShapeError(
                f"{name}: input has {channels} channels but {argument} has "
                f"{as_tensor(name, value).size}",
                values=[("inp", x, "(N, C, ...)"), (argument, value, "(1, C, 1, 1)")],
                fix=f"give {argument} the shape (1, {channels}, 1, 1)",
            )
    if not training and (running_mean is None or running_var is None):
        raise ArgumentError(
            f"{name}: running_mean and running_var are missing but training is False",
            fix="give both, or set training=True",
        )
    scale, shift = _vector(weight, x), _vector(bias, x)
    if not training:
        if scale is None:
            scale = ones(channels, dtype=x.dtype)
        if shift is None:
            shift = zeros(channels, dtype=x.dtype)
        mean, var = _vector(running_mean, x), _vector(running_var, x)
        return dispatch.call("batch_norm_inference", x, scale, shift, mean, var, eps=float(eps))
    out, mean, var = dispatch.call("batch_norm_train", x, scale, shift, eps=float(eps))
    if running_mean is None or running_var is None:
        return out
    count = x.size // channels if channels else 0
    unbiased = var.detach() * (count / max(count - 1, 1))
    new_mean = _running(running_mean, mean.detach(), momentum)
    new_var = _running(running_var, unbiased, momentum)
    if not inplace:
        return out, new_mean, new_var
    running_mean._reset(new_mean)
    running_var._reset(new_var)
    return out


def _vector(value: Any, like: Tensor) -> Tensor | None:
    """A parameter or statistic as (C,), in float32 or the dtype of the input."""
    if value is None:
        return None
    x = as_tensor("batch_norm", value)
    if x.dtype not in (np.float32, like.dtype):
        x = x.astype(like.dtype)
    return x if x.ndim == 1 else reshape(x, (x.size,))


def _running(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    value = reshape(new, old.shape).astype(old.dtype)
    return old.detach() * momentum + value * (1.0 - momentum)


def _affine_check(name: str, affine: bool, weight: Any, bias: Any) -> None:
    if affine and (weight is None or bias is None):
        raise ArgumentError(
            f"{name}: affine is True but weight or bias is missing",
            fix="give both, or set affine=False",
        )


def layer_norm(
    inp: Any,
    normalized_shape: int | Sequence[int],
    affine: bool,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes over the last axes, then scales and shifts.

    Args:
        inp: (*, *normalized_shape)
        normalized_shape: sizes of the axes that are normalized together.
        affine: whether to scale by `weight` and shift by `bias`.
        weight: tensor of `normalized_shape`.
        bias: tensor of `normalized_shape`.
        eps: added to the variance.

    Raises:
        ShapeError: if `inp` does not end in `normalized_shape`.
    """
    name = "layer_norm"
    x = as_float_tensor(name, inp)
    shape = as_shape(name, normalized_shape, "normalized_shape")
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"{name}: inp has shape {x.shape}, which does not end in {shape}",
            values=[("inp", x)],
            fix=f"give inp the last sizes {shape}, or change normalized_shape",
        )
    _affine_check(name, affine, weight, bias)
    w, b = _scale_shift(name, shape, x, weight, bias) if affine else (None, None)
    return dispatch.call("layer_norm", x, w, b, num_axes=len(shape), eps=float(eps))


def _scale_shift(
    name: str, shape: tuple[int, ...], x: Tensor, weight: Any, bias: Any
) -> tuple[Tensor, Tensor]:
    w, b = operands(name, (weight, bias), x._spec.dtype)
    for argument, value in (("weight", w), ("bias", b)):
        if value.size != prod(shape):
            raise ShapeError(
                f"{name}: {argument} has shape {value.shape} but must have {shape}",
                values=[("inp", x), (argument, value)],
                fix=f"give {argument} the shape {shape}",
            )
    return (
        w if w.shape == shape else reshape(w, shape),
        b if b.shape == shape else reshape(b, shape),
    )


def group_norm(
    inp: Any,
    num_groups: int,
    affine: bool,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes each group of channels of each sample, then scales and shifts each channel.

    Args:
        inp: (N, C, ...)
        num_groups: how many groups; divides C.
        affine: whether to scale by `weight` and shift by `bias`.
        weight: (C,)
        bias: (C,)
        eps: added to the variance.

    Raises:
        ShapeError: if the groups do not divide the channels.
    """
    name = "group_norm"
    x = as_float_tensor(name, inp)
    check_rank(name, "inp", x, (2, 3, 4, 5), "(N, C, ...)")
    groups, channels = as_index(name, "num_groups", num_groups), x.shape[1]
    if groups < 1 or channels % groups:
        raise ShapeError(
            f"{name}: {groups} groups do not divide {channels} channels",
            values=[("inp", x, "(N, C, ...)")],
            fix="use a number of groups that divides the channels",
        )
    _affine_check(name, affine, weight, bias)
    w, b = _scale_shift(name, (channels,), x, weight, bias) if affine else (None, None)
    return dispatch.call("group_norm", x, w, b, groups=groups, eps=float(eps))


def instance_norm(
    inp: Any, affine: bool, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """Normalizes each channel of each sample: `group_norm` with one channel in a group."""
    x = as_float_tensor("instance_norm", inp)
    check_rank("instance_norm", "inp", x, (3, 4, 5), "(N, C, ...)")
    return group_norm(x, max(x.shape[1], 1), affine, weight, bias, eps)


def general_norm(
    inp: Any,
    normalized_axis: int | Sequence[int],
    affine: bool,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalizes over any axes, then scales and shifts.

    Args:
        inp: numbers of any shape.
        normalized_axis: the axes that are normalized together.
        affine: whether to scale by `weight` and shift by `bias`.
        weight: tensor of the sizes of the normalized axes.
        bias: as `weight`.
        eps: added to the variance.
    """
    name = "general_norm"
    x = as_float_tensor(name, inp)
    axes = axes_of(name, normalized_axis, x.ndim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    perm = rest + axes
    moved = transpose(x, perm)
    out = layer_norm(moved, tuple(x.shape[i] for i in axes), affine, weight, bias, eps)
    return transpose(out, [int(i) for i in np.argsort(perm)])


def local_response_norm(
    inp: Any, kernel_size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> Tensor:
    """inp / (k + alpha * sum of squares over neighbouring channels) ** beta.

    Args:
        inp: (N, C, H, W)
        kernel_size: how many channels are summed; odd.
        k: added to the sum.
        alpha: weight of the sum.
        beta: exponent.

    Raises:
        ArgumentError: if `kernel_size` is even.
    """
    name = "local_response_norm"
    x = as_float_tensor(name, inp)
    check_rank(name, "inp", x, (4,), _IMAGE)
    size = as_index(name, "kernel_size", kernel_size)
    if size < 1 or size % 2 == 0:
        raise ArgumentError(f"{name}: kernel_size is {size} but must be odd", fix="use 3, 5, ...")
    half = size // 2
    squares = pad(x * x, ((0, 0), (half, half), (0, 0), (0, 0)))
    total = squares[:, : x.shape[1]]
    for i in range(1, size):
        total = total + squares[:, i : i + x.shape[1]]
    return x / (total * alpha + k) ** beta


# -- the rest ----------------------------------------------------------------------------


def dropout(inp: Any, drop_prob: float, training: bool = True) -> Tensor:
    """Sets elements to 0 at random and scales the others so that the mean stays.

    Args:
        inp: numbers of any shape.
        drop_prob: probability of 0, 0 <= drop_prob < 1.
        training: False returns `inp` as it is.

    Raises:
        ArgumentError: for a probability out of range.
    """
    if not 0 <= as_number("dropout", "drop_prob", drop_prob) < 1:
        raise ArgumentError(
            f"dropout: drop_prob is {drop_prob} but must be at least 0 and below 1",
            fix="use a probability such as 0.5",
        )
    x = as_float_tensor("dropout", inp)
    if not training or drop_prob == 0:
        return x
    from mgec.random import default_rng

    return default_rng().dropout(x, float(drop_prob))


def one_hot(inp: Any, num_classes: int) -> Tensor:
    """A 1 at the place of each index, zeros elsewhere.

    Args:
        inp: integer tensor of any shape, 0 <= inp < num_classes.
        num_classes: size of the new last axis.

    Returns:
        int32 tensor (*inp.shape, num_classes).

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.one_hot(mge.tensor([1, 0]), 3)
        Tensor([[0 1 0]
         [1 0 0]], dtype=int32, device=xpux:0)
    """
    x = integer_tensor("one_hot", "inp", inp)
    count = as_index("one_hot", "num_classes", num_classes)
    check_indices("one_hot", "inp", x, count, from_end=False)
    return dispatch.call("one_hot", x, num_classes=count, dtype=np.dtype(np.int32))


def integer_tensor(name: str, argument: str, value: Any) -> Tensor:
    """An int32 tensor from integers.

    Raises:
        DTypeError: for numbers of another kind.
    """
    x = as_tensor(name, value)
    if x._spec.dtype.kind not in "iu":
        raise DTypeError(
            f"{name}: {argument} must be integers, but is {x._spec.dtype.name}",
            values=[(argument, x)],
            fix="convert it with astype('int32')",
        )
    return x if x._spec.dtype == np.int32 else x.astype(np.int32)


def embedding(
    inp: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float | None = None,
) -> Tensor:
    """Rows of a table.

    Args:
        inp: integer tensor of any shape, 0 <= inp < num_embeddings.
        weight: (num_embeddings, embedding_dim)
        padding_idx: not supported, as in MegEngine.
        max_norm: not supported, as in MegEngine.
        norm_type: not supported, as in MegEngine.

    Returns:
        (*inp.shape, embedding_dim)

    Raises:
        ArgumentError: if one of the last three is given.
        ShapeError: unless `weight` has rank 2.
    """
    if padding_idx is not None or max_norm is not None or norm_type is not None:
        raise ArgumentError(
            "embedding: padding_idx, max_norm and norm_type are not supported", fix="leave them out"
        )
    w = as_tensor("embedding", weight)
    check_rank("embedding", "weight", w, (2,), "(num_embeddings, embedding_dim)")
    rows = integer_tensor("embedding", "inp", inp)
    check_indices("embedding", "inp", rows, w.shape[0], from_end=False)
    return dispatch.call("take", w, rows, axis=0)


def indexing_one_hot(src: Any, index: Any, axis: int = 1, keepdims: bool = False) -> Tensor:
    """One element along an axis for each place of the other axes.

    Args:
        src: tensor of any dtype.
        index: integer tensor of the shape of `src` without `axis`.
        axis: the axis that is indexed.
        keepdims: keep it, with size 1.
    """
    name = "indexing_one_hot"
    x, where = as_tensor(name, src), integer_tensor(name, "index", index)
    at = axis_of(name, axis, x.ndim)
    if where.shape != x.shape[:at] + x.shape[at + 1 :]:
        raise ShapeError(
            f"{name}: index has shape {where.shape} but src without axis {at} has "
            f"{x.shape[:at] + x.shape[at + 1 :]}",
            values=[("src", x), ("index", where)],
            fix="give index the shape of src without the axis",
        )
    column = reshape(where, (*where.shape[:at], 1, *where.shape[at:]))
    out = gather(x, at, column)
    return out if keepdims else squeeze(out, at)


def pad(
    src: Any,
    pad_width: Sequence[Sequence[int]],
    mode: str = "constant",
    constant_value: float = 0.0,
) -> Tensor:
    """Adds elements before and after each axis.

    Args:
        src: tensor of any dtype.
        pad_width: (before, after) for each axis.
        mode: "constant" adds `constant_value`, "replicate" (or "edge") repeats the edge,
            "reflect" mirrors at the edge without repeating it.
        constant_value: what "constant" adds.

    Raises:
        ArgumentError: for another mode, or widths that do not fit the rank.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.pad(mge.tensor([1, 2, 3]), ((1, 2),), mode="replicate")
        Tensor([1 1 2 3 3 3], dtype=int32, device=xpux:0)
    """
    x = as_tensor("pad", src)
    if isinstance(mode, str):
        mode = mode.lower()
    check_choice("pad", "mode", mode, ("constant", "replicate", "edge", "reflect"))
    if not isinstance(pad_width, Sequence):
        raise ArgumentError(
            f"pad: pad_width is {pad_width!r}, not a sequence of pairs",
            values=[("src", x)],
            fix="give (before, after) for each axis",
        )
    if all(is_int(p) for p in pad_width) and len(pad_width) == 2 and x.ndim == 1:
        pad_width = (pad_width,)  # type: ignore[assignment]
    pairs = [as_shape("pad", p, "pad_width") for p in pad_width]
    if len(pairs) != x.ndim or any(len(p) != 2 for p in pairs):
        raise ArgumentError(
            f"pad: pad_width {tuple(pairs)} does not fit rank {x.ndim}",
            values=[("src", x)],
            fix="give (before, after) for each axis",
        )
    return dispatch.call(
        "pad",
        x,
        low=tuple(p[0] for p in pairs),
        high=tuple(p[1] for p in pairs),
        value=float(as_number("pad", "constant_value", constant_value)),
        mode="replicate" if mode == "edge" else mode,
    )


def pixel_shuffle(inp: Any, upscale_factor: int) -> Tensor:
    """Moves channels into space: (N, C * r * r, H, W) to (N, C, H * r, W * r).

    Args:
        inp: (..., C * r * r, H, W)
        upscale_factor: r.

    Raises:
        ShapeError: if r * r does not divide the channels.
    """
    name = "pixel_shuffle"
    x, r = as_tensor(name, inp), as_index(name, "upscale_factor", upscale_factor)
    if x.ndim < 3 or r < 1 or x.shape[-3] % (r * r):
        raise ShapeError(
            f"{name}: shape {x.shape} cannot be shuffled by a factor of {r}",
            values=[("inp", x, "(..., C * r * r, H, W)")],
            fix="make the channels a multiple of upscale_factor ** 2",
        )
    lead, (channels, height, width) = x.shape[:-3], x.shape[-3:]
    n, c = prod(lead), channels // (r * r)
    x = transpose(reshape(x, (n, c, r, r, height, width)), (0, 1, 4, 2, 5, 3))
    return reshape(x, (*lead, c, height * r, width * r))


def sliding_window(
    inp: Any,
    kernel_size: int | tuple[int, int],
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """All windows of an image.

    Args:
        inp: (N, C, H, W)
        kernel_size: size of the windows.
        padding: zeros around the image.
        stride: distance between windows.
        dilation: distance between the elements of a window.

    Returns:
        (N, C, OH, OW, kH, kW)
    """
    name = "sliding_window"
    x = as_tensor(name, inp)
    check_rank(name, "inp", x, (4,), _IMAGE)
    kernel, pads = pair(name, "kernel_size", kernel_size), pair(name, "padding", padding)
    strides, dilations = pair(name, "stride", stride), pair(name, "dilation", dilation)
    if pads != (0, 0):
        x = pad(x, ((0, 0), (0, 0), (pads[0], pads[0]), (pads[1], pads[1])))
    if min(*kernel, *strides, *dilations) < 1:
        raise ArgumentError(
            f"{name}: kernel_size {kernel}, stride {strides} or dilation {dilations} is below 1",
            values=[("inp", x, _IMAGE)],
            fix="use 1 or more",
        )
    sizes = [
        (x.shape[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)
    ]
    if min(sizes) < 1:
        raise ShapeError(
            f"{name}: no window of {kernel} fits",
            values=[("inp", x, f"{_IMAGE}, padding included")],
            fix="use a larger input, more padding or a smaller kernel",
        )
    taps = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilations[0], j * dilations[1]
            rows = slice(top, top + (sizes[0] - 1) * strides[0] + 1, strides[0])
            columns = slice(left, left + (sizes[1] - 1) * strides[1] + 1, strides[1])
            taps.append(reshape(x[:, :, rows, columns], (*x.shape[:2], *sizes, 1)))
    return reshape(concat(taps, 4), (*x.shape[:2], *sizes, *kernel))


def multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    num_heads: int,
    qkv_weight: Any,
    qkv_bias: Any = None,
    out_weight: Any = None,
    out_bias: Any = None,
    *,
    attn_mask: Any = None,
    attn_drop: float = 0.0,
    out_drop: float = 0.0,
    is_causal: bool = False,
    training: bool = True,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of several heads, with its projections.

    Args:
        query: (N, L, E)
        key: (N, S, E)
        value: (N, S, E)
        num_heads: divides E.
        qkv_weight: (3 * E, E): the projections of query, key and value one below the other.
        qkv_bias: (3 * E,), or None.
        out_weight: (E, E), or None for no output projection.
        out_bias: (E,), or None.
        attn_mask: (L, S) or (N * num_heads, L, S): bool where attention is allowed, or numbers
            added to the scores.
        attn_drop: probability of dropout of the attention weights.
        out_drop: probability of dropout of the result.
        is_causal: position i sees positions up to i only.
        training: whether dropout is on.

    Returns:
        The result (N, L, E) and the attention weights (N, num_heads, L, S).

    Raises:
        ShapeError: if ranks or sizes do not match.
    """
    name = "multi_head_attention"
    q, k, v, w = operands(name, (query, key, value, qkv_weight))
    for argument, x in (("query", q), ("key", k), ("value", v)):
        check_rank(name, argument, x, (3,), "(N, L, E)")
    size = q.shape[2]
    num_heads = as_index(name, "num_heads", num_heads)
    if num_heads < 1 or size % num_heads:
        raise ShapeError(
            f"{name}: {num_heads} heads do not divide an embedding of {size}",
            values=[("query", q, "(N, L, E)")],
            fix="use a number of heads that divides E",
        )
    if w.shape != (3 * size, size):
        raise ShapeError(
            f"{name}: qkv_weight has shape {w.shape} but must have {(3 * size, size)}",
            values=[("query", q, "(N, L, E)"), ("qkv_weight", w, "(3 * E, E)")],
            fix="stack the three projections along axis 0",
        )
    head = size // num_heads
    bias = None if qkv_bias is None else as_tensor(name, qkv_bias)

    def project(x: Tensor, i: int) -> Tensor:
        rows = slice(i * size, (i + 1) * size)
        y = linear(x, w[rows], None if bias is None else bias[rows])
        return transpose(reshape(y, (*x.shape[:2], num_heads, head)), (0, 2, 1, 3))

    qh, kh, vh = project(q, 0), project(k, 1), project(v, 2)
    scores = math_.matmul(qh, kh, transpose_b=True) * (head**-0.5)
    scores = _masked(name, scores, attn_mask, is_causal)
    weights = softmax(scores, axis=3)
    mixed = math_.matmul(dropout(weights, attn_drop, training), vh)
    out = reshape(transpose(mixed, (0, 2, 1, 3)), (*q.shape[:2], size))
    if out_weight is not None:
        out = linear(out, out_weight, out_bias)
    return dropout(out, out_drop, training), weights


def _masked(name: str, scores: Tensor, mask: Any, is_causal: bool) -> Tensor:
    batch, heads, rows, columns = scores.shape
    lowest = float(ml_dtypes.finfo(scores.dtype).min)  # not -inf: a row may see nothing
    if is_causal:
        i32 = np.dtype(np.int32)
        here = dispatch.call("iota", shape=(rows, 1), axis=0, dtype=i32)
        there = dispatch.call("iota", shape=(1, columns), axis=1, dtype=i32)
        hidden = dispatch.call("greater", there, here)
        scores = dispatch.call("select", hidden, *operands(name, (lowest, scores)))
    if mask is None:
        return scores
    m = as_tensor(name, mask)
    if m.ndim == 3 and m.shape[0] == batch * heads:
        m = reshape(m, (batch, heads, rows, columns))
    if m.dtype is np.bool_:
        return dispatch.call("select", m, *operands(name, (scores, lowest)))
    return scores + m


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale * query key^T + mask) value, in every head by itself.

    Args:
        query: (N, H, L, D)
        key: (N, G, S, D); G divides H, and neighbouring heads of query share one.
        value: (N, G, S, E)
        attn_mask: broadcasts to (N, H, L, S): bool where attention is allowed, or numbers added
            to the scores. A query that sees nothing is NaN.
        is_causal: hides what comes later than a query; the last query is as late as the last
            key, so that with a cache of keys the queries are the end of the sequence.
        scale: factor of the scores; 1 / sqrt(D) by default.

    Returns:
        (N, H, L, E)

    Raises:
        ShapeError: if ranks or sizes do not match.

    Example:
        >>> import mgec.functional as F
        >>> q, k = F.ones((1, 4, 3, 8)), F.ones((1, 2, 5, 8))
        >>> F.scaled_dot_product_attention(q, k, k).shape
        (1, 4, 3, 8)
    """
    name = "scaled_dot_product_attention"
    q, k, v = operands(name, [as_float_tensor(name, x) for x in (query, key, value)])
    for argument, x in (("query", q), ("key", k), ("value", v)):
        check_rank(name, argument, x, (4,), "(N, heads, L, D)")
    bias = None if attn_mask is None else as_tensor(name, attn_mask)
    if bias is not None and bias.dtype is np.bool_:
        pair_ = operands(name, (0.0, float("-inf")), np.dtype(q.dtype))
        bias = dispatch.call("select", bias, *pair_)
    elif bias is not None:
        bias = bias.astype(q.dtype)
    factor = max(1, q.shape[3]) ** -0.5 if scale is None else as_number(name, "scale", scale)
    moved = [transpose(x, (0, 2, 1, 3)) for x in (q, k, v)]
    out = dispatch.call("attention", *moved, bias, scale=float(factor), causal=bool(is_causal))
    return transpose(out, (0, 2, 1, 3))
