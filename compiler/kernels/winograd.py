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
from dataclasses import replace
from typing import Any

from mgec.compiler.kernels.emitter import Dim, Value
from mgec.compiler.kernels.epilogue import Epilogue
from mgec.compiler.kernels.packing import Packing
from mgec.compiler.kernels.source import KernelSource, Units
from mgec.compiler.kernels.winograd_parts import InputTransform, OutputTransform, Part, Plan
from mgec.compiler.kernels.winograd_tiles import (
    LINE,
    WinogradProblem,
    WinogradTiles,
    winograd_tile,
)
from mgec.compiler.kernels.winograd_transform import TAPS
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.lane import Lane


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
    problem = WinogradProblem.of(inp, weight, out, attrs, channels)
    if tiles is None:
        tile = tile or winograd_tile(target, inp, weight, out)
        tiles = WinogradTiles.for_target(target).fit(target, problem, tile)

    plan = Plan(target, problem, tiles, maps, tuple(out), epilogue or Epilogue())
    symbol = f"{name}_panels" if tiles.by_panels else name
    kernel = _Kernel(plan, symbol)
    products = replace(
        kernel.panels() if tiles.by_panels else kernel.blocks(),
        flops=maps.flops,
        performed_flops=problem.products(tiles.tile),
        tiles=tiles,
    )
    if not tiles.by_panels:
        return products
    return replace(_Kernel(plan, name).inputs(), tiles=tiles, then=products)


class _Kernel(Part):
    """The body of the kernel, or of one of its two stages."""

    def __init__(self, plan: Plan, name: str) -> None:
        super().__init__(plan, name)
        self.plan = plan
        self.count = plan.problem.tiles(plan.tiles.tile)
        self.panel_count = -(-plan.problem.out_channels // self.layout.nr)

    # -- stages ----------------------------------------------------------------------------

    def blocks(self) -> KernelSource:
        """The whole kernel; units are blocks of tiles."""
        k, block = self.k, self.tiles.block
        inputs, outputs = self._input_part(), self._output_part()
        with k.loop("%begin", "%end") as index:
            low = k.mul(index, block)
            high = k.min(k.add(low, block), self.count)
            self.call(inputs, [self.layout.v_base], low, high)
            with k.loop(0, self.panel_count) as panel:
                self._panel(panel, low, high, self.layout.v_base)
                self.call(outputs, [panel], low, high)
        return self._finish(Units((((self.count,), block),)), inputs, outputs)

    def inputs(self) -> KernelSource:
        """The first of two stages: V of all tiles; units are a few tiles."""
        k = self.k
        inputs = self._input_part()
        block = -(-_UNIT_CHANNELS // self.problem.depth)
        low = k.mul("%begin", block)
        high = k.min(k.mul("%end", block), self.count)
        self.call(inputs, [k.mul(low, self.layout.v_row)], low, high)
        return self._finish(Units((((self.count,), block),)), inputs)

    def panels(self) -> KernelSource:
        """The second of two stages; units are panels, and blocks of tiles."""
        k, block = self.k, self.tiles.block
        outputs = self._output_part()
        blocks = -(-self.count // block)
        with k.loop("%begin", "%end") as index:
            panel, number = k.delinearize(index, (self.panel_count, blocks))
            low = k.mul(number, block)
            high = k.min(k.add(low, block), self.count)
            self._panel(panel, low, high, k.mul(low, self.layout.v_row))
            self.call(outputs, [panel], low, high)
        units = Units((((self.panel_count,), 1), ((self.count,), block)))
        return self._finish(units, outputs)

    def _input_part(self) -> Part:
        return InputTransform(self.plan, f"{self.k.name}_v")

    def _output_part(self) -> Part:
        return OutputTransform(self.plan, f"{self.k.name}_y")

    def _finish(self, units: Units, *parts: Part) -> KernelSource:
        problem, layout = self.problem, self.layout
        shape = (problem.out_channels, problem.depth, TAPS, TAPS)
        form = Packing("winograd", (shape, self.tiles.tile, layout.nr))
        source = self.k.finish(units, scratch_bytes=layout.scratch_bytes, template="winograd")
        return replace(
            source,
            text="".join([*(part.text for part in parts), source.text]),
            packing=((len(self.images), form),),
            workspace_bytes=layout.workspace_bytes,
        )

    # -- products --------------------------------------------------------------------------

    def _panel(self, panel: Dim, low: Dim, high: Dim, v_at: Dim) -> None:
        """M of one panel of the tiles from `low` to `high`; V of the first is at `v_at`."""
        k, layout = self.k, self.layout
        rows = k.sub(high, low)
        per_point = self.problem.depth * layout.nr
        first = k.mul(panel, self.transforms.points * per_point)
        with k.loop(0, self.transforms.points) as point:
            if self.tiles.ahead:
                self._fetch_results(panel, point, low)
                if not self.tiles.by_panels:
                    self._fetch_images(panel, point, high)
            self._products(
                rows,
                k.add(v_at, k.mul(point, layout.v_point)),
                k.add(first, k.mul(point, per_point)),
                k.add(layout.m_base, k.mul(point, layout.m_point)),
            )

    def _fetch_images(self, panel: Dim, point: Dim, low: Dim) -> None:
        """Fetches a share of what the tiles from `low` on will read: the next block.

        Its windows lie side by side, so that each of their rows is one piece of memory, of
        which every point and panel takes a part. (Where the block goes on in the next row of
        tiles, that part is not fetched.)
        """
        k, problem, size = self.k, self.problem, self.transforms.size
        image, row, column = self.place(low)
        line, part = k.div(point, size), k.rem(point, size)
        y = k.add(k.mul(image, problem.height), k.sub(row, problem.top), line)
        first = k.add(k.mul(y, problem.width), k.sub(column, problem.left))
        parts = size * self.panel_count
        for buffer, channels in zip(self.images, problem.channels, strict=True):
            elements = self.tiles.block * self.tiles.tile * channels
            lines = -(-elements // (LINE * parts))
            skipped = k.mul(k.add(k.mul(panel, size), part), lines * LINE)
            with k.loop(0, lines) as i:
                k.prefetch(buffer, k.add(k.mul(first, channels), skipped, k.mul(i, LINE)))

    def _fetch_results(self, panel: Dim, point: Dim, low: Dim) -> None:
        """Fetches a share of the results of this panel, which are written after the products."""
        k, m = self.k, self.tiles.tile
        image, top, left = self.place(low)
        width = self.tiles.block * m
        pixels = -(-width * m // self.transforms.points)
        first = k.mul(panel, self.layout.nr)
        starts = [k.add(first, i) for i in range(0, self.layout.nr, min(LINE, self.layout.nr))]
        with k.loop(0, pixels) as i:
            row, column = k.delinearize(k.add(k.mul(point, pixels), i), (m, width))
            at = {"n": image, "oh": k.add(top, row), "ow": k.add(left, column)}
            self.finisher.prefetch([at], starts, near=False)

    def _products(self, rows: Dim, v_at: Dim, u_at: Dim, m_at: Dim) -> None:
        """M of one point and panel.

        The first register tile fetches the next point's part of U.
        """
        k, mr = self.k, self.tiles.mr
        self._register_tile(0, v_at, u_at, m_at, ahead=self.problem.depth * self.layout.nr)
        if self.tiles.block > mr:
            with k.loop(mr, rows, mr) as row:
                self._register_tile(row, v_at, u_at, m_at)

    def _register_tile(self, row: Dim, v_at: Dim, u_at: Dim, m_at: Dim, ahead: int = 0) -> None:
        k, b, mr, nv = self.k, self.b, self.tiles.mr, self.tiles.nv
        v_rows = [k.add(v_at, k.mul(k.add(row, i), self.layout.v_row)) for i in range(mr)]

        def step(at_k: Dim, acc: list[Value]) -> list[Value]:
            here = k.add(u_at, k.mul(at_k, self.layout.nr))
            columns = [b.load(self.u, k.add(here, v * b.width)) for v in range(nv)]
            if ahead:
                for start in range(0, self.layout.nr, min(LINE, self.layout.nr)):
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
            at = k.add(m_at, k.mul(k.add(row, i), self.layout.nr))
            for v in range(nv):
                lane = Lane(acc[i * nv + v].ref, "f32")
                b.store(lane, self.scratch, k.add(at, v * b.width))


_UNIT_CHANNELS = 512
"""Channels of tiles that the input transform takes at once: a few microseconds."""
