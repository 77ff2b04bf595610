"""Template of transposed convolutions of channels-last images: the gradient of the input.

Element h of the result sums tap t times row (h + low - dilation * t) / stride of the image,
where that is a whole number: with a stride, only every stride-th tap. Elements that are a
stride apart have the same taps: a phase. The columns of a phase are the windows of a plain
convolution of stride 1 with its taps in reverse, so that the tiles of `direct_conv` serve
them; along the slower axes the kernel computes the taps of a row. Nothing is multiplied by the
zeros that one would put between the elements of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from mgec.compiler.kernels.conv_geometry import SPATIAL_AXES, Axis, Taps
from mgec.compiler.kernels.conv_tiles import DirectConvTiles
from mgec.compiler.kernels.direct_conv import ConvNest, Phase, emit_conv, pack_weight
from mgec.compiler.kernels.emitter import Dim, KernelEmitter
from mgec.compiler.kernels.epilogue import Epilogue
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.packing import Array, Packing, packing
from mgec.compiler.kernels.source import KernelSource
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.spatial import Geometry
from mgec.dialects.mge.spec import FLOAT32, DType


def _order(taps: int, stride: int) -> list[list[int]]:
    """The taps of each phase, last one first."""
    return [list(range(phase, taps, stride))[::-1] for phase in range(stride)]


@packing("transposed convolution panels")
def pack_transposed(array: Array, groups: int, width: int, stride: int, together: int = 1) -> Array:
    """Panels of the result's channels, with the taps of a phase side by side.

    Args:
        array: weight [O, C/groups, *kernel].
        groups: of channels.
        width: channels per panel.
        stride: along the last axis.
        together: how many of the image's channels stand together, column by column.

    Returns:
        What `pack_weight` makes of the weight [C, O/groups, *kernel] whose taps along the last
        axis are in the order of their phases, last one first.
    """
    outputs, per_group, *kernel = array.shape
    grouped = array.reshape(groups, outputs // groups, per_group, *kernel)
    turned = grouped.swapaxes(1, 2).reshape(groups * per_group, outputs // groups, *kernel)
    order = [tap for phase in _order(kernel[-1], stride) for tap in phase]
    return pack_weight(turned[..., order], groups, width, (outputs // groups,), together)


@dataclass(frozen=True)
class Spread:
    """How rows of the result walk one of the slower axes of the image.

    Attributes:
        size: elements of the image.
        count: elements of the result.
        taps: of the weight.
        stride: rows of the result with the same taps are that far apart.
        low: padding of the convolution that this transposes.
        dilation: from one tap to the next; 1 if there is a stride.
    """

    size: int
    count: int
    taps: int = 1
    stride: int = 1
    low: int = 0
    dilation: int = 1

    def bounds(self, k: KernelEmitter, window: Dim) -> Taps:
        """The taps of one row of the result."""
        moved = k.add(window, self.low)
        phase, row = k.rem(moved, self.stride), k.div(moved, self.stride)
        beyond = k.max(k.sub(row, self.size - 1), 0)
        taps = k.ceildiv(k.sub(self.taps, phase), self.stride)
        return Taps(
            low=k.ceildiv(beyond, self.dilation),
            high=k.min(taps, k.add(k.div(row, self.dilation), 1)),
            weight=phase,
            weight_step=self.stride,
            image=row,
            image_step=-self.dilation,
        )

    def phases(self) -> tuple[Phase, ...]:
        """The same for the columns: as windows of plain convolutions."""
        result: list[Phase] = []
        before = 0
        for phase, taps in enumerate(_order(self.taps, self.stride)):
            start = (phase - self.low) % self.stride
            count = -(-(self.count - start) // self.stride)
            last = (start + self.low - phase) // self.stride  # under the phase's first tap
            low = last - self.dilation * (len(taps) - 1)
            if count > 0:
                axis = Axis(self.size, count, len(taps), 1, low, self.dilation)
                result.append(Phase(axis, before, start, self.stride))
            before += len(taps)
        return tuple(result)


def transposed_conv_kernel(
    name: str,
    target: Target,
    maps: ContractionMaps,
    d_out: Sequence[int],
    weight: Sequence[int],
    out: Sequence[int],
    attrs: Mapping[str, Any],
    *,
    dtype: DType = FLOAT32,
    epilogue: Epilogue | None = None,
    tiles: DirectConvTiles | None = None,
) -> KernelSource:
    """A transposed convolution of channels-last images.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        maps: the index maps of `ConvDgradOp`.
        d_out: [N, *windows, O].
        weight: [O, C/groups, *kernel]; a constant, which the kernel wants packed.
        out: [N, *spatial, C].
        attrs: plain attributes of the op, defaults filled in; `channels_last` is set.
        dtype: a float; 16-bit floats are summed in float32, which is what the epilogue is given.
        epilogue: what happens to a sum before it is stored.
        tiles: block sizes; by default from the target and the sizes.

    Returns:
        A kernel whose buffers are the image, the weight, the extras, the outputs.

    Raises:
        NotApplicable: if this template cannot serve the convolution.
    """
    groups, kernel = attrs["groups"], weight[2:]
    if tuple(loop.extent for loop in maps.of_kind("m")) != tuple(out[:-1]):
        raise NotApplicable("windows that tile the image are a matrix product")
    geometry = Geometry.of(attrs, len(kernel))
    if any(s > 1 and d > 1 for s, d in zip(geometry.stride, geometry.dilation, strict=True)):
        raise NotApplicable("stride and dilation along one axis")
    axes = [Spread(1, 1)] * (SPATIAL_AXES - len(kernel))
    axes += [
        Spread(d_out[1 + i], out[1 + i], taps, geometry.stride[i], geometry.padding[i][0],
               geometry.dilation[i])
        for i, taps in enumerate(kernel)
    ]  # fmt: skip
    depth, height, width = axes
    inputs = weight[0] // groups
    flops = 2 * prod(d_out) * weight[1] * prod(kernel)
    nest = ConvNest(
        maps, tuple(out), depth, height, width.phases(), (depth.size, height.size, width.size),
        (depth.taps, height.taps, width.taps), groups, (inputs,), weight[1], flops,
    )  # fmt: skip

    def packed(columns: int, together: int) -> Packing:
        parameters = (groups, columns, width.stride, together)
        return Packing("transposed convolution panels", parameters)

    return emit_conv(name, target, nest, packed, dtype, epilogue, tiles, "transposed conv")
