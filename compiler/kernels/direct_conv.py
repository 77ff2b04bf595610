"""Template of convolutions of channels-last images, read in place.

    for each unit (image, plane, block of rows; or one panel of output channels of these):
      for each group and panel of output channels:
        for each row of windows, for each tile of MR neighbouring windows of the row:
          MR x NV vectors of accumulators over taps and channels, one fused multiply-add each
          the epilogue on the accumulators; store

Nothing is copied: neither windows into a matrix, nor the image into a padded one. Taps above
or below the image are cut from the bounds of their loop, those to the left or right of it are
left out when the kernel is written (`conv_geometry`). The channels of neighbouring taps of
one row are neighbours in memory, so that taps and channels are one loop, and few channels
(the first layer) cost nothing. Weights come packed: the columns of a panel side by side.

Every result is summed over the taps and channels in order, whatever the tiles and units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol

import numpy as np

from mgec.compiler.kernels.conv_geometry import (
    Axis,
    Columns,
    Row,
    Taps,
    conv_axes,
    loop_names,
    place,
    split_columns,
    tap_runs,
)
from mgec.compiler.kernels.conv_tiles import ConvSizes, DirectConvTiles, step_cost
from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Finisher
from mgec.compiler.kernels.multiply import Multiply
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.packing import Array, Packing, packing
from mgec.compiler.kernels.source import KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.spec import FLOAT32, DType, is_float

_LINE_BYTES = 64
"""Of a cache line: what is fetched ahead at once."""
_MOST_RUNS = 96
"""Loops over taps that a kernel may have; above, wide padding makes too much code."""


@packing("convolution panels")
def pack_weight(
    array: Array, groups: int, width: int, channels: tuple[int, ...], together: int = 1
) -> Array:
    """Panels of output channels, one for each group and block of `width` of them.

    Args:
        array: weight [O, C/groups, *kernel].
        groups: of channels.
        width: output channels per panel.
        channels: of the images whose channels follow each other; one entry for one image.
        together: how many channels stand together, column by column.

    Returns:
        A matrix with one row per panel: for each image, [taps, channels / together, width,
        together], zero in the columns beyond the group's channels.
    """
    outputs, inputs, *kernel = array.shape
    per_group, taps = outputs // groups, prod(kernel)
    panels = -(-per_group // width)
    padded = np.zeros((groups, panels * width, inputs, taps), array.dtype)
    padded[:, :per_group] = array.reshape(groups, per_group, inputs, taps)
    moved = padded.reshape(groups * panels, width, inputs, taps).transpose(0, 3, 2, 1)
    ends = np.cumsum(channels)[:-1]
    rows: list[Array] = []
    for part in np.split(moved, ends, axis=2):
        sets = part.reshape(groups * panels, taps, -1, together, width).swapaxes(-1, -2)
        rows.append(sets.reshape(groups * panels, -1))
    return np.concatenate(rows, axis=1)


def direct_conv_kernel(
    name: str,
    target: Target,
    maps: ContractionMaps,
    inp: Sequence[int],
    weight: Sequence[int],
    out: Sequence[int],
    attrs: Mapping[str, Any],
    *,
    dtype: DType = FLOAT32,
    epilogue: Epilogue | None = None,
    channels: Sequence[int] | None = None,
    tiles: DirectConvTiles | None = None,
) -> KernelSource:
    """A convolution of channels-last images, read in place.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        maps: the index maps of `ConvOp`.
        inp: [N, *spatial, C].
        weight: [O, C/groups, *kernel]; a constant, which the kernel wants packed.
        out: [N, *windows, O].
        attrs: plain attributes of the op, defaults filled in; `channels_last` is set.
        dtype: a float; 16-bit floats are summed in float32, which is what the epilogue is given.
        epilogue: what happens to a sum before it is stored.
        channels: channel counts of several images which stand side by side in place of
            `inp`, so that their concatenation need not exist; without groups only.
        tiles: block sizes; by default from the target and the sizes.

    Returns:
        A kernel whose buffers are the images, the weight, the extras, the outputs.

    Raises:
        NotApplicable: if this template cannot serve the convolution.
    """
    groups = attrs["groups"]
    parts = tuple(channels) if channels else (inp[-1] // groups,)
    if groups != 1 and len(parts) != 1:
        raise NotApplicable("groups over several images")
    depth, height, width = conv_axes(inp[1:-1], out[1:-1], weight[2:], attrs)
    nest = ConvNest(
        maps, tuple(out), depth, height, (Phase(width),), (depth.size, height.size, width.size),
        (depth.taps, height.taps, width.taps), groups, parts, weight[0] // groups, maps.flops,
    )  # fmt: skip

    def packed(columns: int, together: int) -> Packing:
        return Packing("convolution panels", (groups, columns, parts, together))

    return emit_conv(name, target, nest, packed, dtype, epilogue, tiles, "direct conv")


class Walk(Protocol):
    """Windows along one of the slower axes."""

    @property
    def count(self) -> int:
        """How many."""
        ...

    def bounds(self, k: KernelEmitter, window: Dim) -> Taps:
        """The taps of a window."""
        ...


@dataclass(frozen=True)
class Phase:
    """Columns of the result that are walked as the windows of one axis.

    Attributes:
        axis: the windows.
        tap: where their first tap is along the packed weight's last axis.
        start: the column of the result of window 0.
        step: columns from one window to the next.
    """

    axis: Axis
    tap: int = 0
    start: int = 0
    step: int = 1


@dataclass(frozen=True)
class ConvNest:
    """A convolution as the loops see it.

    Attributes:
        maps: names of the loops over the result; "m" loops are image and spatial axes.
        out: shape of the result, channels last.
        depth: windows along the slowest spatial axis.
        height: windows along the next one.
        phases: windows along the fastest one.
        image: spatial sizes of the images.
        kernel: taps along each axis of the packed weight.
        groups: of channels.
        channels: of each image, per group.
        outputs: output channels per group.
        flops: of the whole convolution.
    """

    maps: ContractionMaps
    out: tuple[int, ...]
    depth: Walk
    height: Walk
    phases: tuple[Phase, ...]
    image: tuple[int, int, int]
    kernel: tuple[int, int, int]
    groups: int
    channels: tuple[int, ...]
    outputs: int
    flops: int

    def sizes(self, itemsize: int) -> ConvSizes:
        """What decides the tiles."""
        return ConvSizes(
            self.out[0], self.depth.count, self.height.count,
            tuple(phase.axis for phase in self.phases), prod(self.image), prod(self.kernel),
            self.groups, sum(self.channels), self.outputs, itemsize, self.flops,
        )  # fmt: skip


def emit_conv(
    name: str,
    target: Target,
    nest: ConvNest,
    packed: Callable[[int, int], Packing],
    dtype: DType,
    epilogue: Epilogue | None,
    tiles: DirectConvTiles | None,
    template: str,
) -> KernelSource:
    """The kernel of a convolution given as a nest; see `direct_conv_kernel`.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        nest: the convolution.
        packed: how the weight must lie, given the columns of a panel, and how many channels
            stand together.
        dtype: a float.
        epilogue: what happens to a sum before it is stored.
        tiles: block sizes; by default from the target and the sizes.
        template: what people call it.
    """
    if not is_float(dtype):
        raise NotApplicable(f"sums of {dtype.name}")
    if not prod(nest.out):
        raise NotApplicable("an empty result")
    group = Multiply.group_for(dtype, target)
    whole = all(channels % group == 0 for channels in nest.channels)
    multiply = Multiply(dtype, group if whole else 1)
    channels = tuple(count // multiply.group for count in nest.channels)
    nest = replace(nest, channels=channels)
    tiles = tiles or DirectConvTiles.fit(target, nest.sizes(multiply.sums.itemsize))
    conv = _DirectConv(name, target, nest, multiply, epilogue or Epilogue(), tiles)
    source = conv.emit(template)
    packing = ((len(channels), packed(conv.width, multiply.group)),)
    return replace(source, packing=packing, tiles=tiles)


@dataclass(frozen=True)
class _Panel:
    """Output channels of one panel.

    Attributes:
        weight: where its weights begin.
        starts: the first channel of each vector.
        masks: which lanes of each vector are channels; None for all.
        offset: where the group's channels begin in a pixel of the image.
    """

    weight: Dim
    starts: tuple[Dim, ...]
    masks: tuple[str | None, ...]
    offset: Dim


class _DirectConv:
    """The state of one emission."""

    def __init__(
        self,
        name: str,
        target: Target,
        nest: ConvNest,
        multiply: Multiply,
        epilogue: Epilogue,
        tiles: DirectConvTiles,
    ) -> None:
        self.nest, self.tiles, self.multiply = nest, tiles, multiply
        self.k = k = KernelEmitter(name, target)
        self.b = b = VectorLanes(k, nest.sizes(multiply.sums.itemsize).lanes(target))
        self.zero = b.value(b.constant(0, lane_type(multiply.sums)))
        self.width = tiles.nv * b.width
        self.panels = -(-nest.outputs // self.width)
        self.panel_size = prod(nest.kernel) * sum(nest.channels) * self.width
        self.line = max(1, _LINE_BYTES // multiply.element_bytes)
        self.inputs = [k.buffer(multiply.element) for _ in nest.channels]
        self.weight = k.buffer(multiply.element)
        columns = [x for x in nest.maps.loops if x.kind == "n" or x.name == "g"]
        self.finisher = Finisher(b, epilogue, nest.maps, nest.out, columns, multiply.sums)
        self.columns = [
            split_columns(phase.axis, tiles.mr, lambda m: step_cost(m, tiles.nv))
            for phase in nest.phases
        ]
        runs = sum(
            len(tap_runs(phase.axis, each))
            for phase, columns in zip(nest.phases, self.columns, strict=True)
            for each in columns
        )
        if runs > _MOST_RUNS:
            raise NotApplicable("padding over too many tiles of a row")
        self.names = loop_names(nest.maps)

    def emit(self, template: str) -> KernelSource:
        """The kernel."""
        k, nest, tiles = self.k, self.nest, self.tiles
        blocks = -(-nest.height.count // tiles.rows)
        sizes = [nest.out[0], nest.depth.count, blocks]
        panels = nest.groups * self.panels
        if tiles.by_panel:
            sizes.insert(0, panels)
        with k.loop("%begin", "%end") as unit:
            *outer, image, plane, block = k.delinearize(unit, sizes)
            low = k.mul(block, tiles.rows)
            high = k.add(low, tiles.rows)
            if nest.height.count % tiles.rows:
                high = k.min(high, nest.height.count)
            if outer:
                self._panel(outer[0], image, plane, low, high)
            else:
                self._panels(image, plane, low, high)
        return k.finish(Units(((tuple(sizes), 1),)), template=template, flops=nest.flops)

    # -- panels and rows ----------------------------------------------------------------------

    def _panels(self, image: Dim, plane: Dim, low: Dim, high: Dim) -> None:
        """Rows of windows, all output channels."""
        k, whole = self.k, self.nest.outputs // self.width
        with k.loop(0, self.nest.groups) as group:
            if whole:
                with k.loop(0, whole) as panel:
                    self._rows(group, panel, None, image, plane, low, high)
            if whole < self.panels:
                rest = self.nest.outputs % self.width
                self._rows(group, whole, rest, image, plane, low, high)

    def _panel(self, index: Dim, image: Dim, plane: Dim, low: Dim, high: Dim) -> None:
        """Rows of windows, the output channels of one panel."""
        k, whole, rest = self.k, self.nest.outputs // self.width, self.nest.outputs % self.width
        group, panel = k.div(index, self.panels), k.rem(index, self.panels)
        if not (whole and rest):
            self._rows(group, panel, rest or None, image, plane, low, high)
            return
        with k.when(k.compare("ult", panel, whole)):
            self._rows(group, panel, None, image, plane, low, high)
        with k.otherwise():
            self._rows(group, whole, rest, image, plane, low, high)

    def _rows(
        self, group: Dim, index: Dim, count: int | None, image: Dim, plane: Dim, low: Dim,
        high: Dim,
    ) -> None:  # fmt: skip
        """Rows of windows, the output channels of one panel, of which there are `count`."""
        k, b, nest = self.k, self.b, self.nest
        vectors = self.tiles.nv if count is None else -(-count // b.width)
        start = k.add(k.mul(group, nest.outputs), k.mul(index, self.width))
        lanes = [b.width if count is None else count - v * b.width for v in range(vectors)]
        size = self.panel_size
        panel = _Panel(
            weight=k.mul(k.add(k.mul(group, self.panels), index), size),
            starts=tuple(k.add(start, v * b.width) for v in range(vectors)),
            masks=tuple(None if n >= b.width else b.mask(n) for n in lanes),
            offset=k.mul(group, nest.channels[0]),
        )
        depth = nest.depth.bounds(k, plane)
        with k.loop(low, high) as row:
            windows = Row(image, plane, row, depth, nest.height.bounds(k, row))
            for phase, tiles in zip(nest.phases, self.columns, strict=True):
                for columns in tiles:
                    with k.loop(columns.start, columns.stop, columns.width) as first:
                        self._tile(windows, panel, phase, columns, first)

    # -- tiles --------------------------------------------------------------------------------

    def _tile(self, row: Row, panel: _Panel, phase: Phase, columns: Columns, first: Dim) -> None:
        """One tile of windows from `first` on."""
        k, vectors = self.k, len(panel.starts)
        at = [
            place(
                self.names, row.image, row.plane, row.row,
                k.add(k.mul(k.add(first, i), phase.step), phase.start),
            )
            for i in range(columns.width)
        ]  # fmt: skip
        self.finisher.prefetch(at, panel.starts)
        tile = _Tile(self, row, panel, phase, columns, first)
        acc = [self.zero] * (columns.width * vectors)
        skipped = 0
        for buffer, channels in zip(self.inputs, self.nest.channels, strict=True):
            acc = tile.add(buffer, channels, skipped, acc)
            skipped += channels
        pending = self.finisher.begin()
        for i, here in enumerate(at):
            for v in range(vectors):
                total = Lane(acc[i * vectors + v].ref, lane_type(self.multiply.sums))
                pending.store(here, panel.starts[v], total, panel.masks[v])


class _Tile:
    """The sums of one register tile."""

    def __init__(
        self, owner: _DirectConv, row: Row, panel: _Panel, phase: Phase, columns: Columns,
        first: Dim,
    ) -> None:  # fmt: skip
        self.o, self.row, self.panel, self.phase = owner, row, panel, phase
        self.runs = tap_runs(phase.axis, columns)
        self.first = first

    def add(self, image: Buffer, channels: int, skipped: int, acc: list[Value]) -> list[Value]:
        """The accumulators with the products of one image added.

        Args:
            image: its buffer.
            channels: how many it has, per group.
            skipped: channels of the images before it.
            acc: window by window, the accumulators of its vectors.
        """
        o, k = self.o, self.o.k
        image_sizes, kernel = o.nest.image, o.nest.kernel
        pixel = channels * o.nest.groups
        axis = self.phase.axis
        weight = k.add(self.panel.weight, prod(kernel) * skipped * o.width)
        column = k.add(k.mul(self.first, axis.stride), axis.low)
        corner = k.add(k.mul(column, pixel), self.panel.offset)
        next_panel = self._next_panel(prod(kernel) * skipped * o.line)

        def row(line: Dim, taps: Dim, acc: list[Value]) -> list[Value]:
            at = k.add(k.mul(line, image_sizes[2] * pixel), corner)
            tap = k.add(k.mul(taps, kernel[2]), self.phase.tap)
            step = k.mul(tap, channels)
            weights = k.add(weight, k.mul(step, o.width))
            ahead = None if next_panel is None else k.add(next_panel, k.mul(step, o.line))
            return self._row(image, at, weights, ahead, channels, acc)

        return self.row.fold(k, image_sizes, kernel, acc, row)

    def _next_panel(self, skipped: int) -> Dim | None:
        """Where this tile begins to fetch the next panel ahead, if tiles do so.

        Each step of each tile fetches one line; together the tiles of all windows cross it.
        """
        o, k, columns = self.o, self.o.k, self.phase.axis.count
        if not o.tiles.ahead:
            return None
        window = k.add(k.mul(self.row.row, columns), self.first)
        lines = -(-o.panel_size // (o.line * o.nest.height.count * columns))
        return k.add(self.panel.weight, o.panel_size + skipped, k.mul(window, lines * o.line))

    def _row(
        self, image: Buffer, at: Dim, weights: Dim, ahead: Dim | None, channels: int,
        acc: list[Value],
    ) -> list[Value]:  # fmt: skip
        """The products of the taps along one row of the image.

        Args:
            image: buffer of the image.
            at: where the first tap of the first window is.
            weights: where its weights are.
            ahead: what it fetches ahead.
            channels: to sum over for each tap.
            acc: accumulators.
        """
        o, k = self.o, self.o.k
        vectors = len(self.panel.starts)
        dilation = self.phase.axis.dilation * channels * o.nest.groups
        for run in self.runs:
            used = [i * vectors + v for i in run.windows for v in range(vectors)]
            taps = run.high - run.low
            start = k.add(at, run.low * dilation)
            columns = k.add(weights, run.low * channels * o.width)
            if dilation == channels:  # taps and channels are one loop
                taps, length = 1, taps * channels
            else:
                length = channels

            def tap(
                i: Dim, acc: list[Value], windows: Sequence[int] = run.windows,
                start: Dim = start, columns: Dim = columns, length: int = length,
                low: int = run.low,
            ) -> list[Value]:  # fmt: skip
                x = k.add(start, k.mul(i, dilation))
                w = k.add(columns, k.mul(i, channels * o.width))

                def step(q: Dim, acc: list[Value]) -> list[Value]:
                    if ahead is not None:
                        skipped = k.add(k.mul(k.add(i, low), channels), q)
                        k.prefetch(o.weight, k.add(ahead, k.mul(skipped, o.line)))
                    return self._step(image, k.add(x, q), k.add(w, k.mul(q, o.width)),
                                      windows, channels, acc)  # fmt: skip

                return k.fold(0, length, 1, acc, step)

            made = k.fold(0, taps, 1, [acc[i] for i in used], tap)
            acc = list(acc)
            for i, value in zip(used, made, strict=True):
                acc[i] = value
        return acc

    def _step(
        self, image: Buffer, x: Dim, w: Dim, windows: Sequence[int], channels: int,
        acc: list[Value],
    ) -> list[Value]:  # fmt: skip
        """One tap and channel: an element of each window times the vectors of the weight."""
        o, k, b, multiply = self.o, self.o.k, self.o.b, self.o.multiply
        vectors = range(len(self.panel.starts))
        columns = [multiply.columns(b, o.weight, k.add(w, v * b.width), None) for v in vectors]
        window = self.phase.axis.stride * channels * o.nest.groups
        result: list[Value] = []
        sums = iter(acc)
        for i in windows:
            element = multiply.splat(b, image, k.add(x, i * window))
            for v in vectors:
                old = Lane(next(sums).ref, lane_type(multiply.sums))
                result.append(b.value(multiply.add(b, element, columns[v], old)))
        return result
