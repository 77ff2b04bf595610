"""Template of 3 x 3 convolutions by Winograd's minimal filtering algorithms.

    for each block of tiles:                                 # a unit of the form "blocks"
      for each tile:  V[point][tile][c] = B^T d B            # input transform
      for each panel of NR output channels:
        for each point:  M[point][tile][NR] = V[point] . U[panel][point]
        for each tile:  the epilogue on A^T M A; store       # output transform

There are t * t points, and as many independent matrix products. U, the transformed weights,
is packed [ceil(O / NR)][point][c][NR] and read in order, once per block. V of one block and M
of one panel stay in the second-level cache.

Small images have few blocks, and much of U for each. Then there are two stages, with V in the
workspace: the first one's units are tiles; the second one's are panels (and blocks of tiles),
so that each thread reads its own part of U only.

A two-dimensional transform is a loop over columns, then one over rows, of the same
one-dimensional transform, with a patch of t x t vectors in between. Rows of V and M in the
scratch are rounded up to whole register tiles; what is computed from the surplus is dropped.
See `winograd_transform` for the matrices and the packing of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from mgec.compiler.kernels.cost import Rates
from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Finisher
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.packing import Packing
from mgec.compiler.kernels.source import KernelSource, Units
from mgec.compiler.kernels.winograd_transform import (
    TAPS,
    TILES,
    Matrix,
    combine,
    transforms,
)
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spatial import Geometry
from mgec.dialects.mge.spec import FLOAT32

_LINE = 64 // FLOAT32.itemsize
"""Elements of a cache line."""


def _round_up(size: int, to: int) -> int:
    return -(-size // to) * to


@dataclass(frozen=True)
class _Problem:
    """The convolution: sizes, and what is padded before the image."""

    batch: int
    height: int
    width: int
    channels: tuple[int, ...]
    out_channels: int
    out_height: int
    out_width: int
    top: int
    left: int

    @staticmethod
    def of(
        inp: Sequence[int],
        weight: Sequence[int],
        out: Sequence[int],
        attrs: Mapping[str, Any],
        channels: Sequence[int] | None = None,
    ) -> _Problem:
        """Raises NotApplicable unless Winograd's algorithm computes this convolution."""
        sizes = (*inp, *weight, *out)
        if len(inp) != 4 or not attrs["channels_last"]:
            raise NotApplicable("not a two-dimensional convolution with the channels last")
        if any(not isinstance(size, int) for size in sizes):
            raise NotApplicable("sizes of run time")
        if 0 in sizes:
            raise NotApplicable("there is nothing to compute")
        geometry = Geometry.of(attrs, 2)
        if tuple(weight[2:]) != (TAPS, TAPS):
            raise NotApplicable("the filters are not 3 x 3")
        if (*geometry.stride, *geometry.dilation, attrs["groups"]) != (1,) * 5:
            raise NotApplicable("stride, dilation or groups are not 1")
        (top, _), (left, _) = geometry.padding
        parts = tuple(channels or (inp[3],))
        assert sum(parts) == inp[3], "the buffers have the channels of the input between them"
        return _Problem(*inp[:3], parts, *out[3:], *out[1:3], top, left)

    @property
    def depth(self) -> int:
        """All input channels."""
        return sum(self.channels)

    def grid(self, tile: int) -> tuple[int, int, int]:
        """Images, rows and columns of tiles."""
        return self.batch, -(-self.out_height // tile), -(-self.out_width // tile)

    def tiles(self, tile: int) -> int:
        """How many tiles there are."""
        return prod(self.grid(tile))

    @property
    def image_bytes(self) -> int:
        """Bytes of the input and of the result."""
        pixels = self.height * self.width * self.depth
        results = self.out_height * self.out_width * self.out_channels
        return self.batch * (pixels + results) * FLOAT32.itemsize


@dataclass(frozen=True)
class WinogradTiles:
    """Block sizes of a Winograd convolution.

    Attributes:
        tile: m of F(m x m, 3 x 3); 0 if not chosen yet.
        mr: tiles per register tile; before `fit`, the most that the registers hold.
        nv: vectors of output channels per register tile.
        block: tiles per block.
        by_panels: whether there are two stages, the second by panels.
        ahead: whether to prefetch the images' lines of following tiles.
    """

    mr: int
    nv: int
    tile: int = 0
    block: int = 0
    by_panels: bool = False
    ahead: bool = False

    @staticmethod
    def for_target(target: Target) -> WinogradTiles:
        """Register tiles that the target holds, besides a row of U and two temporaries.

        Two vectors of 4 lanes would load a scalar for every other product.
        """
        nv = 4 if target.vector_registers >= 32 and target.lanes(FLOAT32.itemsize) <= 4 else 2
        temporaries = 2 if target.has_fma else 3
        return WinogradTiles(mr=(target.vector_registers - temporaries - nv) // nv, nv=nv)

    def rows(self, count: int) -> int:
        """Rows of the register tile for that many tiles: few are wasted, many share a load."""

        def cost(rows: int) -> float:
            wide = _WIDE_PRICE if rows > _WIDE_ROWS else 1
            return _round_up(count, rows) * (1 + _ROW_OVERHEAD / rows) * wide

        return min(range(1, min(self.mr, count) + 1), key=cost)

    def fit(self, target: Target, problem: _Problem, tile: int) -> WinogradTiles:
        """These tiles for a problem and a transform."""
        lanes = target.lanes(FLOAT32.itemsize)
        nr = self.nv * lanes
        points = transforms(tile).points
        count = problem.tiles(tile)
        mr = self.rows(count)
        tile_bytes = points * (_row_of_v(problem, lanes) + nr) * FLOAT32.itemsize
        most = max(1, target.l2_bytes // 4 // tile_bytes // mr)
        block = mr * min(range(1, most + 1), key=lambda rows: _imbalance(count, mr * rows))
        u_bytes = points * problem.depth * problem.out_channels * FLOAT32.itemsize
        v_bytes = points * count * problem.depth * FLOAT32.itemsize
        few = -(-count // block) < _MANY_UNITS
        streams = block < nr and u_bytes > target.l2_bytes
        by_panels = (few or streams) and v_bytes <= _MOST_SHARED
        if by_panels:
            most = max(1, target.l2_bytes // 4 // (points * nr * FLOAT32.itemsize) // mr)
            blocks = -(-count // (most * mr))
            block = _round_up(-(-count // blocks), mr)
        ahead = problem.image_bytes > _FAR * target.l2_bytes
        return replace(self, tile=tile, mr=mr, block=block, by_panels=by_panels, ahead=ahead)


def _imbalance(count: int, block: int) -> float:
    """Work of the busier of two threads, with what a block costs besides its tiles."""
    return -(-count // block // 2) * (block + _BLOCK_OVERHEAD)


_ROW_OVERHEAD = 0.5
"""Loading a row of U costs about as much as half a row of the register tile."""

_WIDE_ROWS, _WIDE_PRICE = 8, 1.04
"""14 rows take 4% longer than 7 (64 x 56 x 56, Zen 4, AVX-512, 2026-11)."""

_BLOCK_OVERHEAD = 0.3
"""A block costs a third of a tile besides its tiles: blocks of 7 and of 56 differ by 3%."""

_MANY_UNITS = 8
"""So many blocks keep several threads busy."""

_MOST_SHARED = 8 * 2**20
"""Bytes of V that may lie in the workspace: a share of the last-level cache."""

_FAR = 4
"""Images of so many second-level caches are prefetched; up to 64 x 56 x 56 it does not pay."""


def _row_of_v(problem: _Problem, lanes: int) -> int:
    """Elements from one tile to the next in V: an odd number of cache lines.

    An even number would put the t * t points of a tile into few sets of the cache.
    """
    end = offset = 0
    for channels in problem.channels:
        end = max(end, offset + max(channels, lanes))  # vectors are stored whole
        offset += channels
    lines = -(-end // _LINE)
    return (lines | 1) * _LINE


def winograd_weight_bytes(target: Target, weight: Sequence[int], tile: int) -> int:
    """Bytes of the transformed and packed weights.

    Args:
        target: what the kernel is for.
        weight: shape of the weight, [O, C, 3, 3].
        tile: m of F(m x m, 3 x 3).
    """
    out_channels, depth = weight[:2]
    nr = WinogradTiles.for_target(target).nv * target.lanes(FLOAT32.itemsize)
    return transforms(tile).points * depth * _round_up(out_channels, nr) * FLOAT32.itemsize


def winograd_cost(
    target: Target,
    inp: Sequence[int],
    weight: Sequence[int],
    out: Sequence[int],
    tile: int,
    threads: int = 1,
) -> float:
    """About how many seconds the convolution takes, if its weights come from memory.

    To compare with `winograd_cost` of other tiles and with `cost.direct_cost`.

    Args:
        target: what runs it.
        inp: shape of the input, [N, H, W, C].
        weight: shape of the weight, [O, C, 3, 3].
        out: shape of the result, [N, OH, OW, O].
        tile: m of F(m x m, 3 x 3), one of `TILES`.
        threads: threads that share the work.
    """
    points, (out_channels, depth) = transforms(tile).points, weight[:2]
    lanes = target.lanes(FLOAT32.itemsize)
    base = WinogradTiles.for_target(target)
    count = out[0] * -(-out[1] // tile) * -(-out[2] // tile)
    mr = base.rows(count)
    columns = _round_up(out_channels, base.nv * lanes)
    products = 2 * points * _round_up(count, mr) * depth * columns
    elements = points * count * (_round_up(depth, lanes) + columns)  # of V and M
    size = transforms(tile).size
    return Rates.for_target(target).seconds(
        products,
        moved_bytes=elements * FLOAT32.itemsize * size / transforms(_TYPICAL_TILE).size,
        cold_bytes=winograd_weight_bytes(target, weight, tile),
        threads=threads,
    )


_TYPICAL_TILE = 4
"""The transforms' rate was measured for this tile; operations per element grow with t."""


def winograd_tile(
    target: Target, inp: Sequence[int], weight: Sequence[int], out: Sequence[int]
) -> int:
    """The tile of least cost; larger ones, which round more, must be clearly better."""
    costs = {tile: winograd_cost(target, inp, weight, out, tile) for tile in TILES}
    return min(TILES, key=lambda tile: costs[tile] * _ROUNDING_PRICE[tile])


_ROUNDING_PRICE = {2: 1.0, 4: 1.05, 6: 1.15}
"""What the larger errors of larger tiles are held to cost: see docs/numerics.md."""


def winograd_kernel(
    name: str,
    target: Target,
    maps: ContractionMaps,
    inp: Sequence[int],
    weight: Sequence[int],
    out: Sequence[int],
    attrs: Mapping[str, Any],
    *,
    epilogue: Epilogue | None = None,
    channels: Sequence[int] | None = None,
    tile: int | None = None,
    tiles: WinogradTiles | None = None,
) -> KernelSource:
    """A 3 x 3 convolution of stride 1 over images with the channels last, in float32.

    Args:
        name: symbol of the kernel.
        target: what it is for.
        maps: the contraction.
        inp: shape of the input, [N, H, W, C].
        weight: shape of the weight, [O, C, 3, 3].
        out: shape of the result, [N, OH, OW, O].
        attrs: attributes of the convolution, defaults filled in.
        epilogue: what happens to a sum before it is stored.
        channels: the channels of each of several input buffers, [N, H, W, channels[i]], which
            make up the input; None for one buffer.
        tile: m of F(m x m, 3 x 3), one of `TILES`; by default the least costly.
        tiles: block sizes; by default from the target and the sizes.

    Returns:
        A kernel whose buffers are the inputs, the weight (packed, see `packing`), the
        epilogue's operands, the results, the workspace if there is one, and the scratch.

    Raises:
        NotApplicable: if this is another kind of convolution.
    """
    problem = _Problem.of(inp, weight, out, attrs, channels)
    if tiles is None:
        tile = tile or winograd_tile(target, inp, weight, out)
        tiles = WinogradTiles.for_target(target).fit(target, problem, tile)

    def stage(symbol: str) -> _Stage:
        return _Stage(symbol, target, problem, tiles, maps, out, epilogue or Epilogue())

    if not tiles.by_panels:
        return replace(stage(name).blocks(), flops=maps.flops)
    first = stage(name).inputs()
    return replace(first, flops=maps.flops, then=stage(f"{name}_panels").panels())


class _Stage:
    """The state of one emission: of the whole kernel, or of one of its two stages."""

    def __init__(
        self,
        name: str,
        target: Target,
        problem: _Problem,
        tiles: WinogradTiles,
        maps: ContractionMaps,
        out: Sequence[int],
        epilogue: Epilogue,
    ) -> None:
        self.problem, self.tiles = problem, tiles
        self.transforms = transforms(tiles.tile)
        self.k = k = KernelEmitter(name, target)
        self.b = b = VectorLanes(k, target.lanes(FLOAT32.itemsize))
        self.nr = tiles.nv * b.width
        self.panel_count = -(-problem.out_channels // self.nr)
        self.count = problem.tiles(tiles.tile)

        self.images = [k.buffer(FLOAT32) for _ in problem.channels]
        self.u = k.buffer(FLOAT32)
        columns = [loop for loop in maps.loops if loop.name == "o"]
        self.finisher = Finisher(b, epilogue, maps, out, columns, FLOAT32)

        points = self.transforms.points
        block_rows = _round_up(tiles.block, tiles.mr) | 1  # odd: see `_row_of_v`
        self.v_row = _row_of_v(problem, b.width)
        v_rows = _round_up(self.count, tiles.mr) | 1 if tiles.by_panels else block_rows
        self.v_point = v_rows * self.v_row
        self.m_point = block_rows * self.nr
        v_size, patch = points * self.v_point, points * b.width
        self.workspace_bytes = v_size * FLOAT32.itemsize if tiles.by_panels else 0
        workspace = k.buffer(FLOAT32) if tiles.by_panels else None
        self.scratch = k.buffer(FLOAT32)
        self.v = workspace or self.scratch
        self.v_base = 0 if tiles.by_panels else patch
        self.m_base = self.v_base + v_size if not tiles.by_panels else patch
        self.scratch_bytes = (self.m_base + points * self.m_point) * FLOAT32.itemsize

    # -- stages ----------------------------------------------------------------------------

    def blocks(self) -> KernelSource:
        """The whole kernel; units are blocks of tiles."""
        k, block = self.k, self.tiles.block
        with k.loop("%begin", "%end") as index:
            low = k.mul(index, block)
            rows = k.min(k.sub(self.count, low), block)
            with k.loop(0, rows) as row:
                self._input_tile(k.add(low, row), k.add(self.v_base, k.mul(row, self.v_row)))
            with k.loop(0, self.panel_count) as panel:
                self._panel(panel, low, rows, 0)
        return self._finish(Units((((self.count,), block),)))

    def inputs(self) -> KernelSource:
        """The first of two stages: V of all tiles; units are a few tiles."""
        k = self.k
        block = -(-_UNIT_CHANNELS // self.problem.depth)
        with k.loop("%begin", "%end") as index:
            low = k.mul(index, block)
            with k.loop(low, k.min(k.add(low, block), self.count)) as tile:
                self._input_tile(tile, k.mul(tile, self.v_row))
        return self._finish(Units((((self.count,), block),)))

    def panels(self) -> KernelSource:
        """The second of two stages; units are panels, and blocks of tiles."""
        k, block = self.k, self.tiles.block
        blocks = -(-self.count // block)
        with k.loop("%begin", "%end") as index:
            panel, number = k.delinearize(index, (self.panel_count, blocks))
            low = k.mul(number, block)
            rows = k.min(k.sub(self.count, low), block)
            self._panel(panel, low, rows, k.mul(low, self.v_row))
        return self._finish(Units((((self.panel_count,), 1), ((self.count,), block))))

    def _finish(self, units: Units) -> KernelSource:
        problem = self.problem
        shape = (problem.out_channels, problem.depth, TAPS, TAPS)
        form = Packing("winograd", (shape, self.tiles.tile, self.nr))
        source = self.k.finish(units, scratch_bytes=self.scratch_bytes, template="winograd")
        entry = len(self.images)
        return replace(source, packing=((entry, form),), workspace_bytes=self.workspace_bytes)

    # -- transforms ------------------------------------------------------------------------

    def _place(self, tile: Dim) -> tuple[Dim, Dim, Dim]:
        """The image of a tile, and its first row and column of results."""
        k, m = self.k, self.tiles.tile
        image, row, column = k.delinearize(tile, self.problem.grid(m))
        return image, k.mul(row, m), k.mul(column, m)

    def _lines(self, matrix: Matrix, load: Any, store: Any) -> None:
        """A one-dimensional transform."""
        size = self.transforms.size
        for i, lane in enumerate(combine(self.b, matrix, [load(i) for i in range(size)])):
            store(i, lane)

    def _input_tile(self, tile: Dim, to: Dim) -> None:
        """V of one tile, all channels; `to` is its element of the first point."""
        k, problem, size = self.k, self.problem, self.transforms.size
        image, row, column = self._place(tile)
        top, left = k.sub(row, problem.top), k.sub(column, problem.left)
        rows = [k.add(top, i) for i in range(size)]
        inside = self._inside(rows, problem.height)
        clamped = [k.max(k.min(i, problem.height - 1), 0) for i in rows]
        whole = k.both(
            k.both(k.compare("sge", top, 0), k.compare("sle", top, problem.height - size)),
            k.both(k.compare("sge", left, 0), k.compare("sle", left, problem.width - size)),
        )
        offset = 0
        for buffer, channels in zip(self.images, problem.channels, strict=True):
            pixel = k.mul(image, problem.height * problem.width * channels)
            step = problem.width * channels
            lines = [k.add(pixel, k.mul(i, step)) for i in clamped]
            first = k.add(k.mul(image, problem.height), top)
            first = k.mul(k.add(k.mul(first, problem.width), left), channels)

            def vector(start: Dim, mask: str | None) -> None:
                with k.when(whole):
                    self._inner_columns(buffer, k.add(first, start), channels, mask)
                with k.otherwise():
                    self._border_columns(
                        buffer, [k.add(i, start) for i in lines], inside, left, channels, mask
                    )
                self._rows_to_v(k.add(to, offset, start))

            width = self.b.width
            if channels < width:
                vector(0, self.b.mask(channels))
            else:
                with k.loop(0, _round_up(channels, width), width) as start:
                    # The last vector overlaps the one before: the same values are stored.
                    vector(k.min(start, channels - width) if channels % width else start, None)
            offset += channels

    def _inside(self, indices: Sequence[Dim], size: int) -> list[str]:
        """Masks that are on where an index is inside an axis."""
        k, ty = self.k, self.b.mask_type
        valid = [k.compare("ult", index, size) for index in indices]
        return [k.let(f"vector.broadcast {condition} : i1 to {ty}") for condition in valid]

    def _patch(self, row: Dim, column: Dim) -> Dim:
        """The element of the patch where a vector lies."""
        k, width = self.k, self.b.width
        return k.mul(k.add(k.mul(row, self.transforms.size), column), width)

    def _inner_columns(self, image: Buffer, at: Dim, channels: int, mask: str | None) -> None:
        """The first pass over a tile that lies inside the image."""
        k, b = self.k, self.b
        step = self.problem.width * channels
        with k.loop(0, self.transforms.size) as column:
            here = k.add(at, k.mul(column, channels))
            if self.tiles.ahead:
                for i in range(self.transforms.size):
                    skipped = 2 * self.tiles.tile * channels
                    k.prefetch(image, k.add(here, skipped + i * step))
            self._lines(
                self.transforms.bt,
                lambda i: b.load(image, k.add(here, i * step), mask),
                lambda i, lane: b.store(lane, self.scratch, self._patch(i, column)),
            )

    def _border_columns(
        self, image: Buffer, lines: Sequence[Dim], inside: Sequence[str], left: Dim,
        channels: int, mask: str | None,
    ) -> None:  # fmt: skip
        """The first pass over a tile that reaches beyond the image, where there are zeros.

        Addresses are clamped, since masked-out lanes of addresses without memory are slow.
        """
        k, b, width = self.k, self.b, self.problem.width
        zero = b.constant(0, "f32")
        with k.loop(0, self.transforms.size) as column:
            index = k.add(left, column)
            valid = k.compare("ult", index, width)
            here = k.mul(k.max(k.min(index, width - 1), 0), channels)

            def load(i: int) -> Lane:
                lane = b.load(image, k.add(lines[i], here), mask)
                return b.select(Lane(inside[i], "i1"), lane, zero)

            with k.when(valid):
                self._lines(
                    self.transforms.bt,
                    load,
                    lambda i, lane: b.store(lane, self.scratch, self._patch(i, column)),
                )
            with k.otherwise():
                for i in range(self.transforms.size):
                    b.store(zero, self.scratch, self._patch(i, column))

    def _rows_to_v(self, to: Dim) -> None:
        """The second pass of the input transform."""
        k, b, size = self.k, self.b, self.transforms.size
        with k.loop(0, size) as row:
            first = k.add(to, k.mul(row, size * self.v_point))
            self._lines(
                self.transforms.bt,
                lambda i: b.load(self.scratch, self._patch(row, i)),
                lambda i, lane: b.store(lane, self.v, k.add(first, i * self.v_point)),
            )

    # -- products --------------------------------------------------------------------------

    def _panel(self, panel: Dim, low: Dim, rows: Dim, v_at: Dim) -> None:
        """One panel of results of the `rows` tiles from `low` on; V of the first is at `v_at`."""
        k, depth = self.k, self.problem.depth
        v_at = k.add(v_at, self.v_base)
        per_point = depth * self.nr
        with k.loop(0, self.transforms.points) as point:
            index = k.add(k.mul(panel, self.transforms.points), point)
            u_at = k.mul(index, per_point)
            self._products(
                rows,
                k.add(v_at, k.mul(point, self.v_point)),
                u_at,
                k.add(self.m_base, k.mul(point, self.m_point)),
            )
        with k.loop(0, rows) as row:
            self._output_tile(panel, k.add(low, row), k.add(self.m_base, k.mul(row, self.nr)))

    def _products(self, rows: Dim, v_at: Dim, u_at: Dim, m_at: Dim) -> None:
        """M of one point and panel.

        The first register tile fetches the next point's part of U.
        """
        k, mr = self.k, self.tiles.mr
        self._register_tile(0, v_at, u_at, m_at, ahead=self.problem.depth * self.nr)
        if self.tiles.block > mr:
            with k.loop(mr, rows, mr) as row:
                self._register_tile(row, v_at, u_at, m_at)

    def _register_tile(self, row: Dim, v_at: Dim, u_at: Dim, m_at: Dim, ahead: int = 0) -> None:
        k, b, mr, nv = self.k, self.b, self.tiles.mr, self.tiles.nv
        v_rows = [k.add(v_at, k.mul(k.add(row, i), self.v_row)) for i in range(mr)]

        def step(at_k: Dim, acc: list[Value]) -> list[Value]:
            here = k.add(u_at, k.mul(at_k, self.nr))
            columns = [b.load(self.u, k.add(here, v * b.width)) for v in range(nv)]
            if ahead:
                for start in range(0, self.nr, min(_LINE, self.nr)):
                    k.prefetch(self.u, k.add(here, ahead + start))
            result: list[Value] = []
            for i, v_row in enumerate(v_rows):
                scalar = b.load_splat(self.v, k.add(v_row, at_k))
                for v, column in enumerate(columns):
                    old = Lane(acc[i * nv + v].ref, "f32")
                    result.append(b.value(b.fma(scalar, column, old)))
            return result

        zero = b.value(b.constant(0, "f32"))
        acc = k.fold(0, self.problem.depth, 1, [zero] * (mr * nv), step)
        for i in range(mr):
            at = k.add(m_at, k.mul(k.add(row, i), self.nr))
            for v in range(nv):
                lane = Lane(acc[i * nv + v].ref, "f32")
                b.store(lane, self.scratch, k.add(at, v * b.width))

    def _output_tile(self, panel: Dim, tile: Dim, m_at: Dim) -> None:
        """The results of one tile and panel."""
        k, b, problem = self.k, self.b, self.problem
        place = self._place(tile)
        first = k.mul(panel, self.nr)
        count = k.min(k.sub(problem.out_channels, first), self.nr)
        whole = k.round_down(count, b.width)
        with k.loop(0, whole, b.width) as start:
            self._output_vector(place, k.add(first, start), k.add(m_at, start), None)
        if problem.out_channels % b.width:
            with k.when(k.compare("slt", whole, count)):
                mask = b.mask(k.sub(count, whole))
                self._output_vector(place, k.add(first, whole), k.add(m_at, whole), mask)

    def _output_vector(
        self, place: tuple[Dim, Dim, Dim], start: Dim, m_at: Dim, mask: str | None
    ) -> None:
        """One vector of output channels of a tile."""
        k, b, problem, m = self.k, self.b, self.problem, self.tiles.tile
        size = self.transforms.size
        with k.loop(0, size) as column:
            here = k.add(m_at, k.mul(column, self.m_point))
            self._lines(
                self.transforms.at,
                lambda i: b.load(self.scratch, k.add(here, i * size * self.m_point)),
                lambda i, lane: b.store(lane, self.scratch, self._patch(i, column)),
            )
        image, top, left = place
        with k.loop(0, k.min(k.sub(problem.out_height, top), m)) as row:
            values = [b.load(self.scratch, self._patch(row, i)) for i in range(size)]
            results = combine(b, self.transforms.at, values)
            line = {"n": image, "oh": k.add(top, row)}
            if self.tiles.ahead:
                following = [{**line, "ow": k.add(left, m + i)} for i in range(m)]
                self.finisher.prefetch(following, [start])
            self._store_row(results, line, left, start, self._patch(row, 0), mask)

    def _store_row(
        self, results: Sequence[Lane], line: Mapping[str, Dim], left: Dim, start: Dim,
        patch: Dim, mask: str | None,
    ) -> None:  # fmt: skip
        """Finishes a row of a tile; where the image ends inside the tile, by way of the patch."""
        k, b, problem, m = self.k, self.b, self.problem, self.tiles.tile

        def whole() -> None:
            pending = self.finisher.begin()
            for i, result in enumerate(results):
                pending.store({**line, "ow": k.add(left, i)}, start, result, mask)

        if problem.out_width % m == 0:
            whole()
            return
        with k.when(k.compare("sle", left, problem.out_width - m)):
            whole()
        with k.otherwise():
            for i, result in enumerate(results):
                b.store(result, self.scratch, k.add(patch, i * b.width))
            with k.loop(0, k.sub(problem.out_width, left)) as i:
                result = b.load(self.scratch, k.add(patch, k.mul(i, b.width)))
                at = {**line, "ow": k.add(left, i)}
                self.finisher.begin().store(at, start, result, mask)


_UNIT_CHANNELS = 512
"""Channels of tiles that the input transform takes at once: a few microseconds."""
