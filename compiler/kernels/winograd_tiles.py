"""Winograd convolutions: what one computes, in which blocks, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from mgec.compiler.kernels.cost import Rates
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.source import named
from mgec.compiler.kernels.winograd_transform import TAPS, TILES, transforms
from mgec.compiler.targets import Target
from mgec.dialects.mge.spatial import Geometry
from mgec.dialects.mge.spec import FLOAT32

LINE = 64 // FLOAT32.itemsize
"""Elements of a cache line."""


def round_up(size: int, to: int) -> int:
    """The next multiple of `to` from `size` on."""
    return -(-size // to) * to


@dataclass(frozen=True)
class WinogradProblem:
    """A 3 x 3 convolution of stride 1.

    Attributes:
        batch: images.
        height: rows of an image.
        width: columns of an image.
        channels: input channels of each input buffer.
        out_channels: channels of the result.
        out_height: rows of the result.
        out_width: columns of the result.
        top: rows of zeros above an image.
        left: columns of zeros before an image.
    """

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
    ) -> WinogradProblem:
        """The problem of one application of `mge.conv`.

        Args:
            inp: shape of the input, [N, H, W, C].
            weight: shape of the weight, [O, C, 3, 3].
            out: shape of the result, [N, OH, OW, O].
            attrs: attributes of the op, defaults filled in.
            channels: the channels of several buffers that make up the input.

        Raises:
            NotApplicable: if Winograd's algorithm does not compute this convolution.
        """
        if len(inp) != 4 or not attrs["channels_last"]:
            raise NotApplicable("not a two-dimensional convolution with the channels last")
        if 0 in (*inp, *weight, *out):
            raise NotApplicable("there is nothing to compute")
        geometry = Geometry.of(attrs, 2)
        if tuple(weight[2:]) != (TAPS, TAPS):
            raise NotApplicable("the filters are not 3 x 3")
        if (*geometry.stride, *geometry.dilation, attrs["groups"]) != (1,) * 5:
            raise NotApplicable("stride, dilation or groups are not 1")
        (top, _), (left, _) = geometry.padding
        parts = tuple(channels or (inp[3],))
        assert sum(parts) == inp[3], "the buffers have the channels of the input between them"
        return WinogradProblem(inp[0], inp[1], inp[2], parts, out[3], out[1], out[2], top, left)

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

    def products(self, tile: int) -> int:
        """Multiplications and additions of the products of V and U."""
        points = transforms(tile).points
        return 2 * points * self.tiles(tile) * self.depth * self.out_channels

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
        ahead: whether to fetch images ahead, as they do not fit the second-level cache.
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
            return round_up(count, rows) * (1 + _ROW_OVERHEAD / rows) * wide

        return min(range(1, min(self.mr, count) + 1), key=cost)

    @property
    def label(self) -> str:
        """See `Tiles`."""
        m = self.tile
        numbers = named(mr=self.mr, nv=self.nv, block=self.block, by_panels=self.by_panels)
        return f"F({m}x{m}) {numbers}{' ahead' * self.ahead}"

    def alternatives(self, target: Target) -> list[WinogradTiles]:
        """Other blocks, the other form, and more or fewer tiles at a time."""
        found = [replace(self, by_panels=not self.by_panels)]
        found += [replace(self, block=round_up(self.block * 2, self.mr))]
        if self.block >= 2 * self.mr:
            found.append(replace(self, block=self.block // 2 // self.mr * self.mr))
        most = WinogradTiles.for_target(target).mr
        for mr in (self.mr // 2, self.mr + 1, self.mr * 2):
            if _LEAST_ROWS <= mr <= most:
                found.append(replace(self, mr=mr, block=round_up(self.block, mr)))
        return [*found, replace(self, ahead=not self.ahead)]

    def fit(self, target: Target, problem: WinogradProblem, tile: int) -> WinogradTiles:
        """These tiles for a problem and a transform."""
        lanes = target.lanes(FLOAT32.itemsize)
        nr = self.nv * lanes
        points = transforms(tile).points
        count = problem.tiles(tile)
        mr = self.rows(count)
        tile_bytes = points * (row_of_v(problem, lanes) + nr) * FLOAT32.itemsize
        most = max(1, target.l2_bytes // _BLOCK_SHARE // tile_bytes // mr)
        block = mr * min(range(1, most + 1), key=lambda rows: _imbalance(count, mr * rows))
        column_bytes = points * problem.depth * FLOAT32.itemsize  # of U, or of V
        few = -(-count // block) < _MANY_UNITS
        streams = column_bytes * problem.out_channels > _SHARED_BYTES >= column_bytes * count
        if by_panels := few or streams:
            panels = -(-problem.out_channels // nr)
            most = max(1, target.l2_bytes // _PANEL_SHARE // (points * nr * FLOAT32.itemsize) // mr)
            blocks = max(-(-count // (most * mr)), -(-_MANY_UNITS // panels))
            block = round_up(-(-count // blocks), mr)
        # 64 x 56 x 56 beyond the cache: 0.59 ms with prefetching, 0.62 to 0.66 without.
        ahead = problem.image_bytes > target.l2_bytes
        return replace(self, tile=tile, mr=mr, block=block, by_panels=by_panels, ahead=ahead)


def _imbalance(count: int, block: int) -> float:
    """Work of the busier of two threads, with what a block costs besides its tiles."""
    return -(-count // block // 2) * (block + _BLOCK_OVERHEAD)


_LEAST_ROWS = 4
"""With two vectors, eight sums: fewer would wait for each other."""

_ROW_OVERHEAD = 0.5
"""Loading a row of U costs about as much as half a row of the register tile."""

_WIDE_ROWS, _WIDE_PRICE = 8, 1.04
"""14 rows take no less time than 7 (64 x 56 x 56: 0.593 and 0.586 ms, Zen 4, AVX-512, 2026-11)."""

_BLOCK_OVERHEAD = 0.3
"""A block costs a third of a tile besides its tiles: blocks of 7 and of 56 differ by 3%."""

_MANY_UNITS = 8
"""So many units keep several threads busy."""

_SHARED_BYTES = 16 * 2**20
"""What a kernel can count on of the last-level cache.

A larger U would come from memory for each block of tiles. A smaller one is better read for each
block than V for each panel: 256 x 64 x 64 takes 12.4 and 13.4 ms (Zen 4, 2026-11).
"""

_BLOCK_SHARE, _PANEL_SHARE = 8, 4
"""V and M of a block, or M of a panel, take this part of the second-level cache at most.

U and what is fetched ahead need the rest: 64 x 256 x 256 takes 13.4 ms in blocks of 8 tiles,
14.3 in blocks of 16 (Zen 4, 2026-11).
"""


def row_of_v(problem: WinogradProblem, lanes: int) -> int:
    """Elements from one tile to the next in V: an odd number of cache lines.

    An even number would put the t * t points of a tile into few sets of the cache.
    """
    end = offset = 0
    for channels in problem.channels:
        end = max(end, offset + max(channels, lanes))  # vectors are stored whole
        offset += channels
    lines = -(-end // LINE)
    return (lines | 1) * LINE


def winograd_weight_bytes(target: Target, weight: Sequence[int], tile: int) -> int:
    """Bytes of the transformed and packed weights.

    Args:
        target: what the kernel is for.
        weight: shape of the weight, [O, C, 3, 3].
        tile: m of F(m x m, 3 x 3).
    """
    out_channels, depth = weight[:2]
    nr = WinogradTiles.for_target(target).nv * target.lanes(FLOAT32.itemsize)
    return transforms(tile).points * depth * round_up(out_channels, nr) * FLOAT32.itemsize


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
    columns = round_up(out_channels, base.nv * lanes)
    products = 2 * points * round_up(count, mr) * depth * columns
    elements = points * count * (round_up(depth, lanes) + columns)  # of V and M
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
    return min(TILES, key=lambda tile: costs[tile] * ROUNDING_PRICE[tile])


ROUNDING_PRICE = {2: 1.0, 4: 1.05, 6: 1.15}
"""What the larger errors of larger tiles are held to cost: see docs/numerics.md."""
