"""Template of convolutions whose groups are narrower than a vector, channels last.

    for each unit (image, plane, block of rows; or block of channels of an image):
      for each vector of output channels, which holds whole groups:
        for each row of windows, for each tile of MR neighbouring windows of the row:
          one accumulator per window; for each tap, and each input channel of a group, one
          fused multiply-add of a vector of the image and one of the weight
          the epilogue on the accumulators; store

In a depthwise convolution, lane i of the image's vector is channel i. With more channels per
group, the lanes of a group all need one of its input channels, then the next one: the same
vector is shuffled. Each vector of the image is loaded once per row of taps and serves all
windows that it is part of. What lies outside the image is left out as in `direct_conv`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from mgec.compiler.kernels.conv_geometry import (
    Axis,
    Columns,
    Row,
    conv_axes,
    loop_names,
    place,
    split_columns,
)
from mgec.compiler.kernels.conv_tiles import units_wanted
from mgec.compiler.kernels.emitter import Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Finisher
from mgec.compiler.kernels.multiply import Multiply
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.packing import Array, Packing, packing
from mgec.compiler.kernels.source import KernelSource, Units, named
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.spec import FLOAT32, DType, is_float


@packing("grouped vectors")
def pack_groups(array: Array, groups: int, together: int, width: int) -> Array:
    """Vectors of output channels, each of `together` groups.

    Args:
        array: weight [O, C/groups, *kernel].
        groups: of channels.
        together: groups per vector; the last vector holds some of the one before again.
        width: lanes of a vector.

    Returns:
        [vectors, taps, C/groups, width], zero in lanes without a channel.
    """
    outputs, inputs, *kernel = array.shape
    per_group, taps = outputs // groups, prod(kernel)
    weight = array.reshape(groups, per_group, inputs, taps)
    vectors = -(-groups // together)
    result = np.zeros((vectors, taps, inputs, width), array.dtype)
    for i in range(vectors):
        first = min(i * together, groups - together)
        block = weight[first : first + together].reshape(-1, inputs, taps)
        result[i, :, :, : together * per_group] = block.transpose(2, 1, 0)
    return result


@dataclass(frozen=True)
class DepthwiseTiles:
    """Block sizes of a convolution with narrow groups.

    Attributes:
        mr: most windows per register tile.
        rows: rows of windows per unit.
        vectors: vectors of channels per unit, rounded up to a multiple of `line`.
        line: vectors of channels that a tile is computed for one after the other.
    """

    mr: int
    rows: int
    vectors: int
    line: int = 1

    @property
    def label(self) -> str:
        """See `Tiles`."""
        return named(mr=self.mr, rows=self.rows, vectors=self.vectors, line=self.line)

    def alternatives(self, target: Target) -> list[DepthwiseTiles]:
        """Other tiles, then units of other forms."""
        found = [replace(self, mr=mr) for mr in _OTHER_WINDOWS if mr != self.mr]
        found += [replace(self, line=line) for line in (1, 2) if line != self.line]
        found += [replace(self, rows=self.rows * 2), replace(self, vectors=self.vectors * 2)]
        if self.rows > 1:
            found.append(replace(self, rows=-(-self.rows // 2)))
        if self.vectors > self.line:
            lines = -(-self.vectors // (2 * self.line))
            found.append(replace(self, vectors=lines * self.line))
        whole = self.rows * self.vectors  # rows in one unit, channels in several
        return [*found, replace(self, rows=whole, vectors=self.line)]

    @staticmethod
    def fit(
        target: Target, images: int, rows: int, vectors: int, image_bytes: int, flops: int
    ) -> DepthwiseTiles:
        """Tiles that fill the registers, and units that balance.

        Args:
            target: what to compile for.
            images: how many, times planes of each.
            rows: rows of windows of a plane.
            vectors: of channels.
            image_bytes: of one image.
            flops: of the whole convolution.
        """
        line = max(1, _LINE_BYTES // target.vector_bytes)
        if image_bytes > _STREAMED * target.l2_bytes:
            line = vectors
        lines = -(-vectors // line)
        wanted = units_wanted(flops)
        channel_blocks = min(wanted, _CHANNEL_BLOCKS, -(-lines // _LEAST_LINES))
        row_blocks = min(rows, -(-wanted // (images * channel_blocks)))
        per_block = -(-lines // channel_blocks) * line
        return DepthwiseTiles(_WINDOWS, -(-rows // row_blocks), per_block, line)


_LINE_BYTES = 64
"""Of a cache line: what is read of it once should be used at once."""
_CHANNEL_BLOCKS, _LEAST_LINES = 8, 2
"""Units of some channels and many rows read the rows above and below them less often (5% of
144 channels of 56 x 56, Zen 4, 2026-11); two lines are fetched together."""
_STREAMED = 4
"""An image of more second-level caches is read pixel by pixel, as it lies in memory: 40% less time
for 64 channels of 224 x 224, stride 2; 5% less for 96 of 112 x 112; 15% more for 144 of 56 x 56
(Zen 4, 2026-11)."""
_WINDOWS = 8
"""Most windows of a tile. With 6 or 12 it took 10 to 20% longer (AVX2, Zen 4, 2026-11)."""
_OTHER_WINDOWS = (4, 6, 12)
"""What a measurement of one kernel may prefer."""
_MOST_STEPS = 4000
"""Multiply-adds that a kernel may be made of; above, large kernels make too much code."""


def depthwise_kernel(
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
    tiles: DepthwiseTiles | None = None,
) -> KernelSource:
    """A convolution of channels-last images whose groups are narrower than a vector.

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
        tiles: block sizes; by default from the target and the sizes.

    Returns:
        A kernel whose buffers are the image, the weight, the extras, the outputs.

    Raises:
        NotApplicable: if this template cannot serve the convolution, or would be slow.
    """
    groups = attrs["groups"]
    if not is_float(dtype):
        raise NotApplicable(f"sums of {dtype.name}")
    if groups == 1:
        raise NotApplicable("one group")
    if not prod(out):
        raise NotApplicable("an empty result")
    multiply = Multiply(dtype)
    lanes = target.lanes(multiply.sums.itemsize)
    per_group = weight[0] // groups
    together = min(groups, lanes // per_group)
    if not together:
        raise NotApplicable("groups wider than a vector")
    if together * weight[1] > 2 * lanes:
        raise NotApplicable("groups of many input channels and few output channels")
    return _Depthwise(
        name, target, maps, inp, weight, out, attrs, multiply, epilogue or Epilogue(), together,
        tiles,
    ).emit()  # fmt: skip


class _Depthwise:
    """The state of one emission."""

    def __init__(
        self,
        name: str,
        target: Target,
        maps: ContractionMaps,
        inp: Sequence[int],
        weight: Sequence[int],
        out: Sequence[int],
        attrs: Mapping[str, Any],
        multiply: Multiply,
        epilogue: Epilogue,
        together: int,
        tiles: DepthwiseTiles | None,
    ) -> None:
        self.k = k = KernelEmitter(name, target)
        self.b = b = VectorLanes(k, target.lanes(multiply.sums.itemsize))
        self.maps, self.images, self.together = maps, out[0], together
        self.groups: int = attrs["groups"]
        self.inputs, self.outputs = weight[1], weight[0] // self.groups
        self.depth, self.height, self.width = conv_axes(inp[1:-1], out[1:-1], weight[2:], attrs)
        axes = (self.depth, self.height, self.width)
        self.image_sizes = [axis.size for axis in axes]
        self.kernel = [axis.taps for axis in axes]
        self.vectors = -(-self.groups // together)
        planes = out[0] * self.depth.count
        self.tiles = tiles or DepthwiseTiles.fit(
            target, planes, self.height.count, self.vectors,
            prod(inp[1:]) * multiply.element_bytes, maps.flops,
        )  # fmt: skip
        self.columns = split_columns(self.width, self.tiles.mr, self._cost)
        steps = [len(_products(self.width, c)) * self.inputs for c in self.columns]
        if sum(steps) > _MOST_STEPS:
            raise NotApplicable("too many taps of a row")
        self.unrolls = max(steps) * self.height.taps <= _UNROLLED_STEPS
        self.multiply, self.ty = multiply, lane_type(multiply.sums)
        self.zero = b.value(b.constant(0, self.ty))
        self.image, self.weight = k.buffer(multiply.element), k.buffer(multiply.element)
        columns = [x for x in maps.loops if x.kind == "n" or x.name == "g"]
        self.finisher = Finisher(b, epilogue, maps, out, columns, multiply.sums)
        self.names = loop_names(maps)
        self.mask = None if together * self.outputs == b.width else b.mask(together * self.outputs)
        self.sources = self._source_masks()

    def _source_masks(self) -> list[str | None]:
        """The mask of each vector of the image that a vector of channels is made of."""
        b, elements = self.b, self.together * self.inputs
        left = range(elements, 0, -b.width)
        return [None if n >= b.width else b.mask(n) for n in left]

    def _cost(self, windows: int) -> float:
        """Estimated time of one row of taps of a tile, in multiply-adds."""
        products = windows * self.width.taps * self.inputs
        columns = (windows - 1) * self.width.stride + self.width.taps
        loads = (columns + self.width.taps) * self.inputs
        return max(products, loads) + _PER_LOAD * loads + _PER_TILE

    def emit(self) -> KernelSource:
        """The kernel."""
        k, tiles = self.k, self.tiles
        vectors = -(-tiles.vectors // tiles.line) * tiles.line
        channel_blocks = -(-self.vectors // vectors)
        row_blocks = -(-self.height.count // tiles.rows)
        sizes = [channel_blocks, self.images, self.depth.count, row_blocks]
        with k.loop("%begin", "%end") as unit:
            block, image, plane, rows = k.delinearize(unit, sizes)
            first, low = k.mul(block, vectors), k.mul(rows, tiles.rows)
            last = self._end(first, vectors, self.vectors)
            high = self._end(low, tiles.rows, self.height.count)
            depth = self.depth.bounds(k, plane)
            with k.loop(first, last, tiles.line) as vector, k.loop(low, high) as row:
                height = self.height.bounds(k, row)
                self._row(Row(image, plane, row, depth, height), vector)
        source = k.finish(
            Units(((tuple(sizes), 1),)), template="depthwise conv", flops=self.maps.flops
        )
        how = Packing("grouped vectors", (self.groups, self.together, self.b.width))
        return replace(source, packing=((1, how),), tiles=self.tiles)

    def _end(self, start: Dim, block: int, size: int) -> Dim:
        """Where a block ends."""
        end = self.k.add(start, block)
        return end if size % block == 0 else self.k.min(end, size)

    def _row(self, row: Row, vector: Dim) -> None:
        """All windows of a row, the vectors of one cache line."""
        k, height = self.k, row.height
        inside = replace(height, low=0, high=self.height.taps)
        if height == inside or not self.unrolls:
            self._tiles(row, vector)
            return
        starts = k.compare("eq", height.low, 0)
        with k.when(k.both(starts, k.compare("eq", height.high, self.height.taps))):
            self._tiles(replace(row, height=inside), vector)
        with k.otherwise():
            self._tiles(row, vector)

    def _tiles(self, row: Row, vector: Dim) -> None:
        """All tiles of a row, the vectors of one cache line."""
        k, line = self.k, self.tiles.line
        count = line if self.vectors % line == 0 else k.min(k.sub(self.vectors, vector), line)
        for columns in self.columns:
            with (
                k.loop(columns.start, columns.stop, columns.width) as first,
                k.loop(0, count) as each,
            ):
                self._tile(row, k.add(vector, each), columns, first)

    def _tile(self, row: Row, vector: Dim, columns: Columns, first: Dim) -> None:
        """One vector of channels of the tile of windows from `first` on."""
        k, b = self.k, self.b
        group = k.mul(vector, self.together)
        if self.groups % self.together:
            group = k.min(group, self.groups - self.together)
        weights = k.mul(vector, prod(self.kernel) * self.inputs * b.width)
        start = k.mul(group, self.outputs)
        at = [
            place(self.names, row.image, row.plane, row.row, k.add(first, i))
            for i in range(columns.width)
        ]
        pixel = self.groups * self.inputs
        column = k.add(k.mul(first, self.width.stride), self.width.low)
        corner = k.add(k.mul(column, pixel), k.mul(group, self.inputs))
        products = _products(self.width, columns)

        def taps(line: Dim, tap: Dim, acc: list[Value]) -> list[Value]:
            x = k.add(k.mul(line, self.width.size * pixel), corner)
            per_row = self.width.taps * self.inputs * b.width
            return self._taps(x, k.add(weights, k.mul(tap, per_row)), products, acc)

        zeros = [self.zero] * columns.width
        acc = row.fold(k, self.image_sizes, self.kernel, zeros, taps, unroll=self.unrolls)
        pending = self.finisher.begin()
        for here, total in zip(at, acc, strict=True):
            pending.store(here, start, Lane(total.ref, self.ty), self.mask)

    def _taps(
        self, x: Dim, w: Dim, products: Sequence[tuple[int, int, int]], acc: list[Value]
    ) -> list[Value]:
        """The accumulators with the products of one row of taps added.

        Args:
            x: where the first tap of the first window is in the image.
            w: where its weights are.
            products: see `_products`.
            acc: one per window.
        """
        k, b, multiply = self.k, self.b, self.multiply
        pixel = self.groups * self.inputs
        sums = [Lane(value.ref, self.ty) for value in acc]
        for channel in range(self.inputs):
            vectors: dict[int, Lane] = {}
            loaded: dict[int, Lane] = {}
            for column, window, tap in products:
                if column not in vectors:
                    vectors[column] = self._channel(k.add(x, column * pixel), channel)
                if tap not in loaded:
                    at = (tap * self.inputs + channel) * b.width
                    loaded[tap] = multiply.columns(b, self.weight, k.add(w, at), None)
                sums[window] = multiply.add(b, vectors[column], loaded[tap], sums[window])
        return [b.value(total) for total in sums]

    def _channel(self, at: Dim, channel: int) -> Lane:
        """For each lane, input channel number `channel` of its group."""
        k, b = self.k, self.b
        sources = [
            self.multiply.columns(b, self.image, k.add(at, i * b.width), mask)
            for i, mask in enumerate(self.sources)
        ]
        lanes = [
            lane // self.outputs * self.inputs + channel
            for lane in range(self.together * self.outputs)
        ]
        lanes += [0] * (b.width - len(lanes))
        if lanes == list(range(b.width)):
            return sources[0]
        return b.shuffle(sources[0], sources[-1], lanes)


_UNROLLED_STEPS = 240
"""Most multiply-adds of a tile whose rows of taps are written out: 5 x 5 taps, 8 windows. That
saves 6 to 9% (3 x 3 taps, Zen 4, 2026-11)."""
_PER_LOAD = 0.3
_PER_TILE = 2.0
"""Estimates, in multiply-adds."""


def _products(axis: Axis, columns: Columns) -> list[tuple[int, int, int]]:
    """What a tile multiplies along a row: (column of the image, window, tap).

    Columns count from tap 0 of the first window. They ascend, and so do the taps of a window.
    """
    result = [
        (i * axis.stride + tap * axis.dilation, i, tap)
        for i in range(columns.width)
        for tap in range(axis.taps)
        if columns.inside or axis.has(columns.start + i, tap)
    ]
    return sorted(result)
