"""Tiles of the direct convolutions, and how their work is divided."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mgec.compiler.kernels.conv_geometry import Axis, split_columns
from mgec.compiler.kernels.source import named
from mgec.compiler.targets import Target


@dataclass(frozen=True)
class ConvSizes:
    """The sizes that decide the tiles.

    Attributes:
        images: how many.
        planes: windows along the slowest spatial axis.
        rows: windows along the next one.
        columns: windows along the fastest one, for each phase of the columns.
        pixels: of an image.
        taps: of the kernel.
        groups: of channels.
        inputs: channels per group.
        outputs: output channels per group.
        itemsize: bytes of an element.
        flops: of the whole convolution.
    """

    images: int
    planes: int
    rows: int
    columns: tuple[Axis, ...]
    pixels: int
    taps: int
    groups: int
    inputs: int
    outputs: int
    itemsize: int
    flops: int

    def lanes(self, target: Target) -> int:
        """Output channels per vector: narrower vectors where the result is narrow.

        A core that splits wide vectors in two multiplies twice as many narrow ones at a time:
        3 to 8 channels took half the time (Zen 4, 2026-11).
        """
        lanes = target.lanes(self.itemsize)
        while lanes >= 2 * self.outputs and lanes * self.itemsize > _NARROWEST_BYTES:
            lanes //= 2
        return lanes

    @property
    def weight_bytes(self) -> int:
        """Of the whole weight."""
        return self.groups * self.outputs * self.inputs * self.taps * self.itemsize

    @property
    def image_bytes(self) -> int:
        """Of all images."""
        return self.images * self.pixels * self.groups * self.inputs * self.itemsize


@dataclass(frozen=True)
class DirectConvTiles:
    """Block sizes of a convolution.

    Attributes:
        mr: most windows per register tile.
        nv: vectors of output channels per register tile.
        rows: rows of windows per unit.
        by_panel: whether a unit has one panel of output channels rather than all of them.
        ahead: whether the next panel of the weight is fetched while one is used. Worth 1 to 4%
            where the weight comes from memory (512 channels of 7 x 7, Zen 4, 2026-11).
    """

    mr: int
    nv: int
    rows: int = 1
    by_panel: bool = False
    ahead: bool = False

    @property
    def label(self) -> str:
        """See `Tiles`."""
        return named(
            mr=self.mr, nv=self.nv, rows=self.rows, by_panel=self.by_panel, ahead=self.ahead
        )

    def alternatives(self, target: Target) -> list[DirectConvTiles]:
        """Other register tiles that the target holds, then other units."""
        found: list[DirectConvTiles] = []
        widest = _MOST_VECTORS if self.nv > 1 else self.nv  # the result may be narrow
        for nv in range(1, widest + 1):
            most = _most_windows(target, nv)
            found += [replace(self, mr=mr, nv=nv) for mr in (most, most - 1, most // 2) if mr > 0]
        found += [replace(self, by_panel=not self.by_panel), replace(self, rows=self.rows * 2)]
        if self.rows > 1:
            found.append(replace(self, rows=-(-self.rows // 2)))
        return found

    @staticmethod
    def fit(target: Target, sizes: ConvSizes) -> DirectConvTiles:
        """The tiles that take the least time by estimate, and units that balance."""
        lanes = sizes.lanes(target)
        vectors = -(-sizes.outputs // lanes)
        shallow = sizes.taps * sizes.inputs <= SHALLOW and vectors > 1
        if shallow and target.vector_bytes >= _WIDE_BYTES:
            even = (m for m in _SHALLOW_WINDOWS if all(a.count % m == 0 for a in sizes.columns))
            mr = next(even, _SHALLOW_WINDOWS[0])
            return DirectConvTiles(mr, 1).with_units(target, sizes)
        best: tuple[float, DirectConvTiles] | None = None
        for nv in range(1, min(_MOST_VECTORS, vectors) + 1):
            mr = _most_windows(target, nv)
            if not mr:
                continue
            panels = [nv] * (vectors // nv) + [vectors % nv] * bool(vectors % nv)
            total = 0.0
            for axis in sizes.columns:
                for columns in split_columns(axis, mr, lambda m, nv=nv: step_cost(m, nv)):
                    tiles = (columns.stop - columns.start) // columns.width
                    total += tiles * sum(step_cost(columns.width, v) for v in panels)
            total *= 1 + _PER_PANEL_FORM * (len(set(panels)) - 1) + _PER_SUM * mr * nv
            if best is None or total < best[0]:
                best = total, DirectConvTiles(mr, nv)
        assert best is not None, "a tile of one vector fits every target"
        return best[1].with_units(target, sizes)

    def with_units(self, target: Target, sizes: ConvSizes) -> DirectConvTiles:
        """These tiles, and units of work."""
        lanes = sizes.lanes(target)
        panels = sizes.groups * -(-sizes.outputs // (self.nv * lanes))
        images = sizes.images * sizes.planes
        wanted = units_wanted(sizes.flops)
        # All panels per unit: a thread reads the whole weight and its part of the images. One
        # panel per unit: its part of the weight and all images.
        heavy = sizes.weight_bytes > min(sizes.image_bytes, target.l2_bytes)
        by_panel = panels > 1 and (heavy or images * sizes.rows < wanted)
        others = images * (panels if by_panel else 1)
        blocks = min(sizes.rows, -(-wanted // others))
        ahead = by_panel and sizes.weight_bytes > target.l2_bytes
        return replace(self, by_panel=by_panel, rows=-(-sizes.rows // blocks), ahead=ahead)


_NARROWEST_BYTES = 16
SHALLOW = 32
"""Up to so many products per sum, what follows a tile takes as long as its products."""
_SHALLOW_WINDOWS, _WIDE_BYTES = (7, 8, 6), 64
"""Few sums then are best, so that the processor overlaps a tile's end with the next one's
beginning: 7 x 1 takes 348 us where 8 x 2 takes 407 (16 to 96 channels of 112 x 112), 186 to 201
for 3 x 3 x 3 to 32 channels (Zen 4, AVX-512, 2026-11); with AVX2 it makes no difference."""
_MOST_VECTORS = 4
_UNITS = 16
"""How many units a large convolution should have: threads claim half of what is left."""
_UNIT_FLOPS = 200_000
"""The least worth being a unit: about 2 us."""


def units_wanted(flops: int) -> int:
    """How many units a convolution should have."""
    return max(1, min(_UNITS, flops // _UNIT_FLOPS))


def _most_windows(target: Target, nv: int) -> int:
    """Windows per register tile such that accumulators, weights and inputs fit."""
    spare = 1 if target.has_fma else 2
    return min(_MOST_WINDOWS[nv], (target.vector_registers - nv - spare) // nv)


_MOST_WINDOWS = {1: 14, 2: 8, 3: 8, 4: 6}
"""By vectors per tile. More gained nothing (2 x 12 is as fast as 2 x 8, Zen 4, 2026-11)."""


def step_cost(windows: int, vectors: int) -> float:
    """Estimated time of one tap and channel of a register tile, in multiply-adds.

    As many loads as multiply-adds run at a time, and few sums wait for each other. Elements of
    the image come from the first-level cache, weights from the second (fitted to tiles from
    1 x 1 to 14 x 1 and 6 x 4, AVX2 and AVX-512 on Zen 4, 2026-11).
    """
    loads = _LOAD_IMAGE * windows + _LOAD_WEIGHT * vectors
    return max(windows * vectors, windows + vectors, 2 * vectors, _LATENCY) + loads


_LATENCY = 8
"""Multiply-adds in flight."""
_LOAD_IMAGE, _LOAD_WEIGHT = 0.05, 0.3
_PER_SUM = 0.002
"""What one more accumulator must save: it makes every form of the tile longer."""
_PER_PANEL_FORM = 0.03
"""What a last panel of other width than the others must save: it doubles the code."""
