"""Convolution over one to three spatial axes, and its two gradients, which are each other's.

With y = conv(x, w), `conv_dgrad` maps dy and w to dx (it is the transposed convolution) and
`conv_wgrad` maps dy and x to dw. All three are bilinear and sum the same products, so each
one's gradient is made of the other two, to any order; and all three are contractions that
differ in their index maps only. See `mgec.dialects.mge.spatial` for the layouts of images and
the defaults of the attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgec.dialects.mge.contraction import (
    AxisMap,
    ContractionMaps,
    Loop,
    Size,
    check_same_dtype,
    contraction,
    lower_contraction,
    result_dtype,
)
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import gradient, lowering, reference
from mgec.dialects.mge.spatial import (
    Geometry,
    Layout,
    Values,
    check_geometry,
    check_rank,
    layout_of,
    output_sizes,
)
from mgec.dialects.mge.spec import DYNAMIC, DType, TensorSpec
from mgec.errors import ArgumentError, ShapeError

_ATTRS = ("stride", "padding", "dilation", "groups", "channels_last")


def _weight_role(layout: Layout) -> str:
    return f"(O, I, {', '.join(f'k{letter}' for letter in layout.letters)})"


def _check_groups(name: str, groups: int) -> None:
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
    name: str,
    layout: Layout,
    d_out: TensorSpec,
    windows: Sequence[int],
    sizes: Sequence[int],
    values: Values,
) -> None:
    given = layout.spatial(d_out.shape)
    for i, elements in enumerate(layout.elements):
        if _differ(given[i], windows[i]):
            raise ShapeError(
                f"{name}: d_out has {given[i]} {elements} but a convolution of "
                f"{sizes[i]} {elements} makes {windows[i]}",
                values=values,
                fix="give the sizes and the stride, padding and dilation of the convolution",
            )


@mge_op
class ConvOp(MgeOp):
    """Convolution (cross-correlation): a dot product of the kernel with every window.

    Shapes: inp [N, C, *spatial], weight [O, C/groups, *kernel], result [N, O, *windows] with
    one to three spatial axes, along each of which the result has
    (size + low + high - dilation * (kernel - 1) - 1) // stride + 1 windows. With
    `channels_last` inp is [N, *spatial, C] and the result [N, *windows, O]; the weight stays.
    `stride` and `dilation` have one entry per spatial axis; `padding`, with zeros, is (low,
    high) of each; empty ones are 1 and 0 everywhere. Channels fall into `groups` that do not
    mix; groups = C is a depthwise convolution. Dtypes: any number, both equal; 16-bit floats
    accumulate in float32, and `dtype` float32 returns those sums as they are; integers wrap.
    """

    name = "mge.conv"

    @staticmethod
    def infer(
        inp: TensorSpec,
        weight: TensorSpec,
        *,
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        dilation: tuple[int, ...] = (),
        groups: int = 1,
        channels_last: bool = False,
        dtype: DType | None = None,
    ) -> TensorSpec:
        layout = layout_of("conv", "", "inp", inp, channels_last)
        name, role = layout.title("conv"), _weight_role(layout)
        values = [
            ("inp", str(inp), layout.role()),
            ("weight", str(weight), f"{role}, groups={groups}"),
        ]
        check_rank(name, "weight", weight, role, values)
        check_same_dtype(name, inp, weight, values)
        geometry = check_geometry(name, layout, stride, padding, dilation)
        _check_groups(name, groups)
        (o, per_group, *kernel), channels = weight.shape, inp.shape[layout.channel]
        if per_group != DYNAMIC and _differ(channels, per_group * groups):
            fix = f"make weight.shape[1] * groups equal inp.shape[{layout.channel}]"
            if not channels_last:
                other = "".join(("N", *layout.letters, "C"))
                fix += f", or transpose an {other} input first"
            raise ShapeError(
                f"{name}: input has {channels} channels but weight expects {per_group * groups}",
                values=values,
                fix=fix,
            )
        _check_divisible(name, "output", o, groups, values)
        sizes = layout.spatial(inp.shape)
        windows = output_sizes(name, layout, sizes, kernel, geometry, values)
        made = result_dtype(name, inp.dtype, dtype)
        return TensorSpec(layout.join(inp.shape[0], o, windows), made)


@mge_op
class ConvDgradOp(MgeOp):
    """Gradient of conv with respect to its input: the transposed convolution.

    Shapes: d_out [N, O, *windows], weight [O, C/groups, *kernel], result [N, C, *spatial]
    where the spatial sizes are `input_size` (several may give the same windows). The other
    attributes, with the layout of d_out and the result, and the dtypes are those of conv.
    """

    name = "mge.conv_dgrad"
    runtime_attrs = ("input_size",)

    @staticmethod
    def infer(
        d_out: TensorSpec,
        weight: TensorSpec,
        *,
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        dilation: tuple[int, ...] = (),
        groups: int = 1,
        channels_last: bool = False,
        input_size: tuple[int, ...],
    ) -> TensorSpec:
        layout = layout_of("conv", "_dgrad", "d_out", d_out, channels_last)
        name, role = layout.title("conv", "_dgrad"), _weight_role(layout)
        values = [
            ("d_out", str(d_out), layout.role("O", "O")),
            ("weight", str(weight), f"{role}, groups={groups}"),
        ]
        check_rank(name, "weight", weight, role, values)
        check_same_dtype(name, d_out, weight, values)
        geometry = check_geometry(name, layout, stride, padding, dilation)
        _check_groups(name, groups)
        layout.check_per_axis(name, 0, input_size=input_size)
        (o, per_group, *kernel), channels = weight.shape, d_out.shape[layout.channel]
        if _differ(channels, o):
            raise ShapeError(
                f"{name}: d_out has {channels} channels but weight makes {o}",
                values=values,
                fix=f"make weight.shape[0] equal d_out.shape[{layout.channel}]",
            )
        _check_divisible(name, "d_out", o, groups, values)
        windows = output_sizes(name, layout, input_size, kernel, geometry, values)
        _check_windows(name, layout, d_out, windows, input_size, values)
        made = DYNAMIC if per_group == DYNAMIC else per_group * groups
        return TensorSpec(layout.join(d_out.shape[0], made, input_size), d_out.dtype)


@mge_op
class ConvWgradOp(MgeOp):
    """Gradient of conv with respect to its weight.

    Shapes: d_out [N, O, *windows], inp [N, C, *spatial], result [O, C/groups, *kernel] where
    the sizes of the kernel are `kernel_size`. The other attributes, with the layout of d_out
    and inp, and the dtypes are those of conv.
    """

    name = "mge.conv_wgrad"
    runtime_attrs = ("kernel_size",)

    @staticmethod
    def infer(
        d_out: TensorSpec,
        inp: TensorSpec,
        *,
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        dilation: tuple[int, ...] = (),
        groups: int = 1,
        channels_last: bool = False,
        kernel_size: tuple[int, ...],
    ) -> TensorSpec:
        layout = layout_of("conv", "_wgrad", "d_out", d_out, channels_last)
        name = layout.title("conv", "_wgrad")
        values = [
            ("d_out", str(d_out), layout.role("O", "O")),
            ("inp", str(inp), layout.role()),
        ]
        check_rank(name, "inp", inp, layout.role(), values)
        check_same_dtype(name, d_out, inp, values)
        geometry = check_geometry(name, layout, stride, padding, dilation)
        _check_groups(name, groups)
        layout.check_per_axis(name, 0, kernel_size=kernel_size)
        n, batch = d_out.shape[0], inp.shape[0]
        o, channels = d_out.shape[layout.channel], inp.shape[layout.channel]
        if _differ(n, batch):
            raise ShapeError(
                f"{name}: d_out has {n} images but inp has {batch}",
                values=values,
                fix="make d_out.shape[0] equal inp.shape[0]",
            )
        _check_divisible(name, "d_out", o, groups, values)
        _check_divisible(name, "inp", channels, groups, values)
        sizes = layout.spatial(inp.shape)
        windows = output_sizes(name, layout, sizes, kernel_size, geometry, values)
        _check_windows(name, layout, d_out, windows, sizes, values)
        per_group = DYNAMIC if channels == DYNAMIC else channels // groups
        return TensorSpec((o, per_group, *kernel_size), d_out.dtype)


# -- index maps ----------------------------------------------------------------------------


class _Nest:
    """The loops and axes of which the maps of all three ops are made.

    A spatial axis "h" is walked by loop "h" over the input, "oh" over the windows and "kh"
    over the taps.
    """

    def __init__(self, rank: int, attrs: Any) -> None:
        self.layout = Layout.of(rank, attrs)
        self.groups: int = attrs["groups"]
        geometry = self.geometry = Geometry.of(attrs, self.layout.axes)
        letters = [letter.lower() for letter in self.layout.letters]
        self.input = letters
        self.windows = [f"o{letter}" for letter in letters]
        self.taps = [f"k{letter}" for letter in letters]
        self.reads: list[AxisMap] = []
        """The input's spatial axes, by window and tap."""
        self.spread: list[AxisMap] = []
        """The windows' axes, by element of the input and tap."""
        for i, (size, out, tap) in enumerate(zip(self.input, self.windows, self.taps, strict=True)):
            stride, dilation = geometry.stride[i], geometry.dilation[i]
            low, high = geometry.padding[i]
            padded = bool(low or high)
            self.reads.append(AxisMap(((out, stride), (tap, dilation)), -low, checked=padded))
            self.spread.append(AxisMap(((size, 1), (tap, -dilation)), low, stride, checked=True))

    def is_tiling(
        self, kernel: Sequence[Size], windows: Sequence[Size], image: Sequence[Size]
    ) -> bool:
        """Whether the windows cover a channels-last image without overlap or gaps."""
        if not self.layout.channels_last:
            return False
        if not all(isinstance(size, int) for size in (*kernel, *windows, *image)):
            return False
        stride = self.geometry.stride
        covered = [n * step for n, step in zip(self.layout.spatial(windows), stride, strict=True)]
        return (
            tuple(kernel) == stride
            and covered == list(self.layout.spatial(image))
            and not any(map(any, self.geometry.padding))
            and set(self.geometry.dilation) == {1}
        )

    def group_loop(self) -> tuple[Loop, ...]:
        """The loop over the groups, if there are several."""
        return (Loop("g", "batch", self.groups),) if self.groups != 1 else ()

    def channels(self, loop: str, per_group: Size) -> AxisMap:
        """A channel axis: the group's part and the position inside the group."""
        if self.groups == 1:
            return AxisMap.of(loop)
        return AxisMap((("g", per_group), (loop, 1)))

    def image(self, channels: AxisMap, spatial: Sequence[AxisMap]) -> tuple[AxisMap, ...]:
        """The axes of an image."""
        return self.layout.join(AxisMap.of("n"), channels, spatial)

    def weight(self, o: Size) -> tuple[AxisMap, ...]:
        """The axes of the weight."""
        return (self.channels("o", o), AxisMap.of("c"), *_of(self.taps))

    def spatial(self, names: Sequence[str], kind: str, shape: Sequence[Size]) -> Iterator[Loop]:
        """Loops over the spatial axes of an image of `shape`."""
        return _loops(names, kind, self.layout.spatial(shape))

    def summed(self, channel: str, size: Size, kernel: Sequence[Size]) -> tuple[Loop, ...]:
        """Loops over channels and taps in the order in which an image stores channels."""
        channels, taps = Loop(channel, "k", size), _loops(self.taps, "k", kernel)
        return (*taps, channels) if self.layout.channels_last else (channels, *taps)


def _loops(names: Sequence[str], kind: str, sizes: Sequence[Size]) -> Iterator[Loop]:
    return (Loop(name, kind, size) for name, size in zip(names, sizes, strict=True))


def _of(loops: Sequence[str]) -> Iterator[AxisMap]:
    return (AxisMap.of(loop) for loop in loops)


@contraction(ConvOp)
def _conv_maps(
    inp: Sequence[Size], weight: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    nest = _Nest(len(inp), attrs)
    o, (c, *kernel) = divide(weight[0], nest.groups), weight[1:]
    return ContractionMaps(
        loops=(
            *nest.group_loop(),
            Loop("n", "m", out[0]), *nest.spatial(nest.windows, "m", out),
            Loop("o", "n", o),
            *nest.summed("c", c, kernel),
        ),
        lhs=nest.image(nest.channels("c", c), nest.reads),
        rhs=nest.weight(o),
        out=nest.image(nest.channels("o", o), [*_of(nest.windows)]),
    )  # fmt: skip


@contraction(ConvDgradOp)
def _dgrad_maps(
    d_out: Sequence[Size], weight: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    nest = _Nest(len(d_out), attrs)
    o, (c, *kernel) = divide(weight[0], nest.groups), weight[1:]
    if nest.is_tiling(kernel, d_out, out):
        # Every element has one window and one tap: columns of a matrix product.
        return ContractionMaps(
            loops=(
                *nest.group_loop(),
                Loop("n", "m", out[0]), *nest.spatial(nest.windows, "m", d_out),
                *_loops(nest.taps, "n", kernel), Loop("c", "n", c),
                Loop("o", "k", o),
            ),
            lhs=nest.image(nest.channels("o", o), [*_of(nest.windows)]),
            rhs=nest.weight(o),
            out=nest.image(nest.channels("c", c), nest.reads),
        )  # fmt: skip
    return ContractionMaps(
        loops=(
            *nest.group_loop(),
            Loop("n", "m", out[0]), *nest.spatial(nest.input, "m", out),
            Loop("c", "n", c),
            *nest.summed("o", o, kernel),
        ),
        lhs=nest.image(nest.channels("o", o), nest.spread),
        rhs=nest.weight(o),
        out=nest.image(nest.channels("c", c), [*_of(nest.input)]),
    )  # fmt: skip


@contraction(ConvWgradOp)
def _wgrad_maps(
    d_out: Sequence[Size], inp: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    nest = _Nest(len(inp), attrs)
    o, (c, *kernel) = divide(out[0], nest.groups), out[1:]
    return ContractionMaps(
        loops=(
            *nest.group_loop(),
            Loop("o", "m", o),
            Loop("c", "n", c), *_loops(nest.taps, "n", kernel),
            Loop("n", "k", d_out[0]), *nest.spatial(nest.windows, "k", d_out),
        ),
        lhs=nest.image(nest.channels("o", o), [*_of(nest.windows)]),
        rhs=nest.image(nest.channels("c", c), nest.reads),
        out=nest.weight(o),
    )  # fmt: skip


lowering(ConvOp, ConvDgradOp, ConvWgradOp)(lower_contraction)


# -- reference: explicit windows, channels first -------------------------------------------


def _first(array: Any, attrs: Mapping[str, Any]) -> Any:
    """An image with its channels first."""
    return np.moveaxis(array, -1, 1) if attrs["channels_last"] else array


def _back(array: Any, attrs: Mapping[str, Any]) -> Any:
    """An image in the layout of the op."""
    return np.moveaxis(array, 1, -1) if attrs["channels_last"] else array


def _letters(axes: int) -> tuple[str, str]:
    """Letters of `np.einsum` for windows and taps."""
    return "xyz"[:axes], "ijk"[:axes]


def _windows(inp: Any, kernel: Sequence[int], attrs: Mapping[str, Any]) -> Any:
    """A view [N, groups, C/groups, *windows, *kernel] of the padded input."""
    axes = len(kernel)
    geometry = Geometry.of(attrs, axes)
    padded = np.pad(inp, ((0, 0), (0, 0), *geometry.padding))
    padded = _split(padded, 1, attrs["groups"])
    covered = [(k - 1) * d + 1 for k, d in zip(kernel, geometry.dilation, strict=True)]
    spatial = range(3, 3 + axes)
    view = np.lib.stride_tricks.sliding_window_view(padded, covered, axis=tuple(spatial))
    steps = [slice(None, None, step) for step in (*geometry.stride, *geometry.dilation)]
    return view[(..., *steps)]


def _split(array: Any, axis: int, groups: int) -> Any:
    shape = array.shape
    return array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])


@reference(ConvOp)
def _conv_reference(inp: Any, weight: Any, **attrs: Any) -> Any:
    windows = _windows(_first(inp, attrs), weight.shape[2:], attrs)
    w, t = _letters(weight.ndim - 2)
    out = np.einsum(f"ngc{w}{t},goc{t}->ngo{w}", windows, _split(weight, 0, attrs["groups"]))
    return _back(out.reshape(out.shape[0], weight.shape[0], *out.shape[3:]), attrs)


@reference(ConvDgradOp)
def _dgrad_reference(d_out: Any, weight: Any, *, input_size: tuple[int, ...], **attrs: Any) -> Any:
    groups, axes = attrs["groups"], len(input_size)
    geometry = Geometry.of(attrs, axes)
    channels = weight.shape[1] * groups
    size = [s + sum(pad) for s, pad in zip(input_size, geometry.padding, strict=True)]
    padded = np.zeros((d_out.shape[0], groups, weight.shape[1], *size), d_out.dtype)
    weight, d_out = _split(weight, 0, groups), _split(_first(d_out, attrs), 1, groups)
    w, _ = _letters(axes)
    for tap in np.ndindex(*weight.shape[3:]):
        places: list[slice] = []
        for i, windows in enumerate(d_out.shape[3:]):
            low, step = tap[i] * geometry.dilation[i], geometry.stride[i]
            places.append(slice(low, low + (windows - 1) * step + 1, step))
        spread = np.einsum(f"ngo{w},goc->ngc{w}", d_out, weight[(..., *tap)])
        padded[(..., *places)] += spread
    pairs = zip(geometry.padding, size, strict=True)
    inside = padded[(..., *(slice(low, s - high) for (low, high), s in pairs))]
    return _back(inside.reshape(len(inside), channels, *input_size), attrs)


@reference(ConvWgradOp)
def _wgrad_reference(d_out: Any, inp: Any, *, kernel_size: tuple[int, ...], **attrs: Any) -> Any:
    windows = _windows(_first(inp, attrs), kernel_size, attrs)
    w, t = _letters(len(kernel_size))
    d_out = _split(_first(d_out, attrs), 1, attrs["groups"])
    out = np.einsum(f"ngo{w},ngc{w}{t}->goc{t}", d_out, windows)
    return out.reshape(out.shape[0] * out.shape[1], *out.shape[2:])


# -- gradients -----------------------------------------------------------------------------


def _attributes(call: Any) -> dict[str, Any]:
    return {key: call.attrs[key] for key in _ATTRS}


def _input_size(call: Any, spec: TensorSpec) -> tuple[int, ...]:
    return Layout.of(spec.rank, call.attrs).spatial(spec.shape)


@gradient(ConvOp)
def _conv_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, Any]:
    (inp, weight), (inp_spec, weight_spec) = call.inputs, call.specs
    d_out = b.cast(d_out, inp_spec.dtype)
    d_inp = d_weight = None
    if call.needs[0]:
        size = _input_size(call, inp_spec)
        d_inp = b.conv_dgrad(d_out, weight, **_attributes(call), input_size=size)
    if call.needs[1]:
        size = weight_spec.shape[2:]
        d_weight = b.conv_wgrad(d_out, inp, **_attributes(call), kernel_size=size)
    return d_inp, d_weight


@gradient(ConvDgradOp)
def _dgrad_gradient(b: Any, call: Any, d_inp: Any) -> tuple[Any, Any]:
    d_out, weight = call.inputs
    d_d_out = d_weight = None
    if call.needs[0]:
        d_d_out = b.conv(d_inp, weight, **_attributes(call))
    if call.needs[1]:
        size = call.specs[1].shape[2:]
        d_weight = b.conv_wgrad(d_out, d_inp, **_attributes(call), kernel_size=size)
    return d_d_out, d_weight


@gradient(ConvWgradOp)
def _wgrad_gradient(b: Any, call: Any, d_weight: Any) -> tuple[Any, Any]:
    d_out, inp = call.inputs
    d_d_out = d_inp = None
    if call.needs[0]:
        d_d_out = b.conv(inp, d_weight, **_attributes(call))
    if call.needs[1]:
        size = _input_size(call, call.specs[1])
        d_inp = b.conv_dgrad(d_out, d_weight, **_attributes(call), input_size=size)
    return d_d_out, d_inp


OPS = (ConvOp, ConvDgradOp, ConvWgradOp)
