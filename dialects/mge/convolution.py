"""2-D convolution and its two gradients, which are each other's gradients.

With y = conv2d(x, w), `conv2d_dgrad` maps dy and w to dx (it is the transposed
convolution) and `conv2d_wgrad` maps dy and x to dw. All three are bilinear and sum the same
products, so each one's gradient is made of the other two, to any order; and all three are
contractions that differ in their index maps only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mgec.dialects.mge.contraction import (
    AxisMap,
    ContractionMaps,
    Loop,
    Size,
    check_same_dtype,
    contraction,
    lower_contraction,
)
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import gradient, lowering, reference
from mgec.dialects.mge.spec import DYNAMIC, TensorSpec
from mgec.errors import ArgumentError, ShapeError

INP_ROLE = "(N, C, H, W)"
OUT_ROLE = "(N, O, OH, OW)"
_AXES = ("rows", "columns")
_GEOMETRY = ("stride", "padding", "dilation", "groups")

Values: TypeAlias = "Sequence[tuple[str, str, str]]"
"""Operands as an error shows them: name, spec, roles of the axes."""


def check_rank(name: str, operand: str, spec: TensorSpec, role: str, values: Values) -> None:
    """Raises ShapeError unless `spec` has the four axes of `role`."""
    if spec.rank != 4:
        raise ShapeError(
            f"{name}: {operand} has rank {spec.rank} but needs rank 4 {role}",
            values=values,
            fix=f"reshape {operand} to {role}",
        )


def check_numbers(name: str, low: int, values: Mapping[str, tuple[tuple[int, ...], int]]) -> None:
    """Raises ArgumentError unless every tuple has its length and no entry below `low`."""
    for key, (given, count) in values.items():
        if len(given) != count:
            sides = "height and width" if count == 2 else "top, bottom, left and right"
            raise ArgumentError(
                f"{name}: {key} has length {len(given)} but needs length {count}",
                values=[(key, str(list(given)), "")],
                fix=f"give {key} for {sides}",
            )
        if min(given) < low:
            raise ArgumentError(
                f"{name}: {key} is {list(given)} but may not be below {low}",
                fix=f"make every entry of {key} at least {low}",
            )


def output_size(size: int, kernel: int, stride: int, low: int, high: int, dilation: int) -> int:
    """How many windows fit along one axis; DYNAMIC if a size is.

    Args:
        size: elements along the axis.
        kernel: taps of a window.
        stride: distance between windows.
        low: padding before the axis.
        high: padding after the axis.
        dilation: distance between taps.
    """
    if DYNAMIC in (size, kernel):
        return DYNAMIC
    return (size + low + high - (kernel - 1) * dilation - 1) // stride + 1


def output_sizes(
    name: str,
    operand: str,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    values: Values,
) -> tuple[int, int]:
    """Windows along both axes.

    Raises:
        ShapeError: if not even one window fits, or a size is 0.
    """
    result: list[int] = []
    for i, axis in enumerate(_AXES):
        size, taps, low, high = sizes[i], kernel[i], padding[2 * i], padding[2 * i + 1]
        for what, count in ((operand, size), ("kernel", taps)):
            if count == 0:
                raise ShapeError(
                    f"{name}: {what} has 0 {axis}",
                    values=values,
                    fix=f"only the batch may be empty: give {what} at least one of the {axis}",
                )
        windows = output_size(size, taps, stride[i], low, high, dilation[i])
        if windows != DYNAMIC and windows < 1:
            covered = (taps - 1) * dilation[i] + 1
            raise ShapeError(
                f"{name}: kernel covers {covered} {axis} but {operand} has {size + low + high}, "
                f"padding included",
                values=values,
                fix="use a larger input, more padding, a smaller kernel or less dilation",
            )
        result.append(windows)
    return result[0], result[1]


def _check_geometry(
    name: str,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> None:
    check_numbers(name, 1, {"stride": (stride, 2), "dilation": (dilation, 2)})
    check_numbers(name, 0, {"padding": (padding, 4)})
    if groups < 1:
        raise ArgumentError(
            f"{name}: groups is {groups} but may not be below 1", fix="use groups=1 for none"
        )


def _check_divisible(name: str, what: str, channels: int, groups: int, values: Values) -> None:
    if channels != DYNAMIC and channels % groups:
        raise ShapeError(
            f"{name}: {what} has {channels} channels, which {groups} groups do not divide",
            values=values,
            fix="make the number of channels a multiple of groups",
        )


def _differ(a: int, b: int) -> bool:
    return a != b and DYNAMIC not in (a, b)


def _check_windows(
    name: str, d_out: TensorSpec, windows: tuple[int, int], sizes: Sequence[int], values: Values
) -> None:
    for i, axis in enumerate(_AXES):
        if _differ(d_out.shape[2 + i], windows[i]):
            raise ShapeError(
                f"{name}: d_out has {d_out.shape[2 + i]} {axis} but a convolution of "
                f"{sizes[i]} {axis} makes {windows[i]}",
                values=values,
                fix="give the sizes and the stride, padding and dilation of the convolution",
            )


@mge_op
class Conv2dOp(MgeOp):
    """2-D convolution (cross-correlation): a dot product of the kernel with every window.

    Shapes: inp [N, C, H, W], weight [O, C/groups, kH, kW], result [N, O, OH, OW] with
    OH = (H + top + bottom - dilation * (kH - 1) - 1) // stride + 1. `stride` and `dilation`
    are for (height, width); `padding`, with zeros, for (top, bottom, left, right). Channels
    fall into `groups` that do not mix; groups = C is a depthwise convolution. Dtypes: any
    number, both equal; 16-bit floats accumulate in float32, integers wrap.
    """

    name = "mge.conv2d"

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec,
        *,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0, 0, 0),
        dilation: tuple[int, ...] = (1, 1),
        groups: int = 1,
    ) -> TensorSpec:
        role = f"(O, I, kH, kW), groups={groups}"
        values = [("inp", str(inp), INP_ROLE), ("weight", str(weight), role)]
        check_rank("conv2d", "inp", inp, INP_ROLE, values)
        check_rank("conv2d", "weight", weight, "(O, I, kH, kW)", values)
        check_same_dtype("conv2d", inp, weight, values)
        _check_geometry("conv2d", stride, padding, dilation, groups)
        (n, channels, *sizes), (o, per_group, *kernel) = inp.shape, weight.shape
        if per_group != DYNAMIC and _differ(channels, per_group * groups):
            raise ShapeError(
                f"conv2d: input has {channels} channels but weight expects {per_group * groups}",
                values=values,
                fix="make weight.shape[1] * groups equal inp.shape[1], "
                "or transpose an NHWC input first",
            )
        _check_divisible("conv2d", "output", o, groups, values)
        windows = output_sizes("conv2d", "input", sizes, kernel, stride, padding, dilation, values)
        return TensorSpec((n, o, *windows), inp.dtype)


@mge_op
class Conv2dDgradOp(MgeOp):
    """Gradient of conv2d with respect to its input: the transposed convolution.

    Shapes: d_out [N, O, OH, OW], weight [O, C/groups, kH, kW], result [N, C, H, W] where
    (H, W) is `input_size` (several sizes may give the same OH and OW). The other attributes
    and the dtypes are those of the convolution.
    """

    name = "mge.conv2d_dgrad"
    runtime_attrs = ("input_size",)

    @staticmethod
    def infer(
        d_out: TensorSpec,
        weight: TensorSpec,
        *,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0, 0, 0),
        dilation: tuple[int, ...] = (1, 1),
        groups: int = 1,
        input_size: tuple[int, ...],
    ) -> TensorSpec:
        name = "conv2d_dgrad"
        role = f"(O, I, kH, kW), groups={groups}"
        values = [("d_out", str(d_out), OUT_ROLE), ("weight", str(weight), role)]
        check_rank(name, "d_out", d_out, OUT_ROLE, values)
        check_rank(name, "weight", weight, "(O, I, kH, kW)", values)
        check_same_dtype(name, d_out, weight, values)
        _check_geometry(name, stride, padding, dilation, groups)
        check_numbers(name, 0, {"input_size": (input_size, 2)})
        o, per_group, *kernel = weight.shape
        if _differ(d_out.shape[1], o):
            raise ShapeError(
                f"{name}: d_out has {d_out.shape[1]} channels but weight makes {o}",
                values=values,
                fix="make weight.shape[0] equal d_out.shape[1]",
            )
        _check_divisible(name, "d_out", o, groups, values)
        windows = output_sizes(name, "input", input_size, kernel, stride, padding, dilation, values)
        _check_windows(name, d_out, windows, input_size, values)
        channels = DYNAMIC if per_group == DYNAMIC else per_group * groups
        return TensorSpec((d_out.shape[0], channels, *input_size), d_out.dtype)


@mge_op
class Conv2dWgradOp(MgeOp):
    """Gradient of conv2d with respect to its weight.

    Shapes: d_out [N, O, OH, OW], inp [N, C, H, W], result [O, C/groups, kH, kW] where
    (kH, kW) is `kernel_size`. The other attributes and the dtypes are those of the
    convolution.
    """

    name = "mge.conv2d_wgrad"
    runtime_attrs = ("kernel_size",)

    @staticmethod
    def infer(
        d_out: TensorSpec,
        inp: TensorSpec,
        *,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (0, 0, 0, 0),
        dilation: tuple[int, ...] = (1, 1),
        groups: int = 1,
        kernel_size: tuple[int, ...],
    ) -> TensorSpec:
        name = "conv2d_wgrad"
        values = [("d_out", str(d_out), OUT_ROLE), ("inp", str(inp), INP_ROLE)]
        check_rank(name, "d_out", d_out, OUT_ROLE, values)
        check_rank(name, "inp", inp, INP_ROLE, values)
        check_same_dtype(name, d_out, inp, values)
        _check_geometry(name, stride, padding, dilation, groups)
        check_numbers(name, 0, {"kernel_size": (kernel_size, 2)})
        (n, o), (batch, channels, *sizes) = d_out.shape[:2], inp.shape
        if _differ(n, batch):
            raise ShapeError(
                f"{name}: d_out has {n} images but inp has {batch}",
                values=values,
                fix="make d_out.shape[0] equal inp.shape[0]",
            )
        _check_divisible(name, "d_out", o, groups, values)
        _check_divisible(name, "inp", channels, groups, values)
        windows = output_sizes(name, "input", sizes, kernel_size, stride, padding, dilation, values)
        _check_windows(name, d_out, windows, sizes, values)
        per_group = DYNAMIC if channels == DYNAMIC else channels // groups
        return TensorSpec((o, per_group, *kernel_size), d_out.dtype)


# -- index maps ----------------------------------------------------------------------------


def _spatial(attrs: Any) -> tuple[list[AxisMap], list[AxisMap]]:
    """The spatial axes of the input by output index and tap, and of the output by input index."""
    forward: list[AxisMap] = []
    backward: list[AxisMap] = []
    for i, (out, tap, size) in enumerate((("oh", "kh", "h"), ("ow", "kw", "w"))):
        stride, dilation = attrs["stride"][i], attrs["dilation"][i]
        low, high = attrs["padding"][2 * i : 2 * i + 2]
        padded = bool(low or high)
        forward.append(AxisMap(((out, stride), (tap, dilation)), -low, checked=padded))
        backward.append(AxisMap(((size, 1), (tap, -dilation)), low, stride, checked=True))
    return forward, backward


def _channels(attrs: Any, loop: str, per_group: Size) -> AxisMap:
    """A channel axis: the group's part and the position inside the group."""
    if attrs["groups"] == 1:
        return AxisMap.of(loop)
    return AxisMap((("g", per_group), (loop, 1)))


def _groups(attrs: Any) -> tuple[Loop, ...]:
    return (Loop("g", "batch", attrs["groups"]),) if attrs["groups"] != 1 else ()


def _of(*names: str) -> tuple[AxisMap, ...]:
    return tuple(AxisMap.of(name) for name in names)


@contraction(Conv2dOp)
def _conv2d_maps(
    inp: Sequence[Size], weight: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    o = divide(weight[0], attrs["groups"])
    c, kh, kw = weight[1:]
    forward, _ = _spatial(attrs)
    out_channels = _channels(attrs, "o", o)
    return ContractionMaps(
        loops=(
            *_groups(attrs),
            Loop("n", "m", out[0]), Loop("oh", "m", out[2]), Loop("ow", "m", out[3]),
            Loop("o", "n", o),
            Loop("c", "k", c), Loop("kh", "k", kh), Loop("kw", "k", kw),
        ),
        lhs=(AxisMap.of("n"), _channels(attrs, "c", c), *forward),
        rhs=(out_channels, *_of("c", "kh", "kw")),
        out=(AxisMap.of("n"), out_channels, *_of("oh", "ow")),
    )  # fmt: skip


@contraction(Conv2dDgradOp)
def _dgrad_maps(
    d_out: Sequence[Size], weight: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    o = divide(weight[0], attrs["groups"])
    c, kh, kw = weight[1:]
    _, backward = _spatial(attrs)
    out_channels = _channels(attrs, "o", o)
    return ContractionMaps(
        loops=(
            *_groups(attrs),
            Loop("n", "m", out[0]), Loop("h", "m", out[2]), Loop("w", "m", out[3]),
            Loop("c", "n", c),
            Loop("o", "k", o), Loop("kh", "k", kh), Loop("kw", "k", kw),
        ),
        lhs=(AxisMap.of("n"), out_channels, *backward),
        rhs=(out_channels, *_of("c", "kh", "kw")),
        out=(AxisMap.of("n"), _channels(attrs, "c", c), *_of("h", "w")),
    )  # fmt: skip


@contraction(Conv2dWgradOp)
def _wgrad_maps(
    d_out: Sequence[Size], inp: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    o = divide(out[0], attrs["groups"])
    c, kh, kw = out[1:]
    forward, _ = _spatial(attrs)
    out_channels = _channels(attrs, "o", o)
    return ContractionMaps(
        loops=(
            *_groups(attrs),
            Loop("o", "m", o),
            Loop("c", "n", c), Loop("kh", "n", kh), Loop("kw", "n", kw),
            Loop("n", "k", d_out[0]), Loop("oh", "k", d_out[2]), Loop("ow", "k", d_out[3]),
        ),
        lhs=(AxisMap.of("n"), out_channels, *_of("oh", "ow")),
        rhs=(AxisMap.of("n"), _channels(attrs, "c", c), *forward),
        out=(out_channels, *_of("c", "kh", "kw")),
    )  # fmt: skip


lowering(Conv2dOp, Conv2dDgradOp, Conv2dWgradOp)(lower_contraction)


# -- reference: explicit windows -----------------------------------------------------------


def _windows(inp: Any, kernel: Sequence[int], attrs: Mapping[str, Any]) -> Any:
    """A view [N, groups, C/groups, OH, OW, kH, kW] of the padded input."""
    top, bottom, left, right = attrs["padding"]
    (sh, sw), (dh, dw), groups = attrs["stride"], attrs["dilation"], attrs["groups"]
    n, channels = inp.shape[:2]
    padded = np.pad(inp, ((0, 0), (0, 0), (top, bottom), (left, right)))
    padded = padded.reshape(n, groups, channels // groups, *padded.shape[2:])
    covered = ((kernel[0] - 1) * dh + 1, (kernel[1] - 1) * dw + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, covered, axis=(3, 4))
    return view[:, :, :, ::sh, ::sw, ::dh, ::dw]


def _split(array: Any, axis: int, groups: int) -> Any:
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


@reference(Conv2dOp)
def _conv2d_reference(inp: Any, weight: Any, **attrs: Any) -> Any:
    windows = _windows(inp, weight.shape[2:], attrs)
    out = np.einsum("ngchwij,gocij->ngohw", windows, _split(weight, 0, attrs["groups"]))
    return out.reshape(out.shape[0], weight.shape[0], *out.shape[3:])


@reference(Conv2dDgradOp)
def _dgrad_reference(d_out: Any, weight: Any, *, input_size: tuple[int, ...], **attrs: Any) -> Any:
    groups = attrs["groups"]
    top, bottom, left, right = attrs["padding"]
    channels = weight.shape[1] * groups
    size = (input_size[0] + top + bottom, input_size[1] + left + right)
    padded = np.zeros((d_out.shape[0], groups, weight.shape[1], *size), d_out.dtype)
    (sh, sw), (dh, dw), (oh, ow) = attrs["stride"], attrs["dilation"], d_out.shape[2:]
    weight, d_out = _split(weight, 0, groups), _split(d_out, 1, groups)
    for i, j in np.ndindex(*weight.shape[3:]):
        rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
        columns = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
        spread = np.einsum("ngohw,goc->ngchw", d_out, weight[..., i, j])
        padded[..., rows, columns] += spread
    inside = padded[..., top : size[0] - bottom, left : size[1] - right]
    return inside.reshape(len(inside), channels, *input_size)


@reference(Conv2dWgradOp)
def _wgrad_reference(d_out: Any, inp: Any, *, kernel_size: tuple[int, ...], **attrs: Any) -> Any:
    windows = _windows(inp, kernel_size, attrs)
    out = np.einsum("ngohw,ngchwij->gocij", _split(d_out, 1, attrs["groups"]), windows)
    return out.reshape(d_out.shape[1], *out.shape[2:])


# -- gradients -----------------------------------------------------------------------------


def _geometry(call: Any) -> dict[str, Any]:
    return {key: call.attrs[key] for key in _GEOMETRY}


@gradient(Conv2dOp)
def _conv2d_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, Any]:
    (inp, weight), (inp_spec, weight_spec) = call.inputs, call.specs
    d_inp = d_weight = None
    if call.needs[0]:
        size = inp_spec.shape[2:]
        d_inp = b.conv2d_dgrad(d_out, weight, **_geometry(call), input_size=size)
    if call.needs[1]:
        size = weight_spec.shape[2:]
        d_weight = b.conv2d_wgrad(d_out, inp, **_geometry(call), kernel_size=size)
    return d_inp, d_weight


@gradient(Conv2dDgradOp)
def _dgrad_gradient(b: Any, call: Any, d_inp: Any) -> tuple[Any, Any]:
    d_out, weight = call.inputs
    d_d_out = d_weight = None
    if call.needs[0]:
        d_d_out = b.conv2d(d_inp, weight, **_geometry(call))
    if call.needs[1]:
        size = call.specs[1].shape[2:]
        d_weight = b.conv2d_wgrad(d_out, d_inp, **_geometry(call), kernel_size=size)
    return d_d_out, d_weight


@gradient(Conv2dWgradOp)
def _wgrad_gradient(b: Any, call: Any, d_weight: Any) -> tuple[Any, Any]:
    d_out, inp = call.inputs
    d_d_out = d_inp = None
    if call.needs[0]:
        d_d_out = b.conv2d(inp, d_weight, **_geometry(call))
    if call.needs[1]:
        size = call.specs[1].shape[2:]
        d_inp = b.conv2d_dgrad(d_out, d_weight, **_geometry(call), input_size=size)
    return d_d_out, d_inp


OPS = (Conv2dOp, Conv2dDgradOp, Conv2dWgradOp)
