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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Finisher
from mgec.compiler.kernels.packing import Packing
from mgec.compiler.kernels.source import KernelSource, Units
from mgec.compiler.kernels.winograd_tiles import (
    LINE,
    WinogradProblem,
    WinogradTiles,
    round_up,
    row_of_v,
    winograd_tile,
)
from mgec.compiler.kernels.winograd_transform import TAPS, Matrix, combine, transforms
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spec import FLOAT32


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

    def stage(symbol: str) -> _Stage:
        return _Stage(symbol, target, problem, tiles, maps, out, epilogue or Epilogue())

    if not tiles.by_panels:
        return replace(stage(name).blocks(), flops=maps.flops)
    first = stage(name).inputs()
    return replace(first, flops=maps.flops, then=stage(f"{name}_panels").panels())


class _Window(NamedTuple):
    """The t x t inputs of a tile.

    Attributes:
        image: which image they are in.
        top: their first row, which may be outside.
        left: their first column.
        whole: an i1, whether all are inside.
        rows: their rows, moved inside.
        inside: for each row, a mask that is on if it is inside.
    """

    image: Dim
    top: Dim
    left: Dim
    whole: str
    rows: tuple[Dim, ...]
    inside: tuple[str, ...]


class _Stage:
    """The state of one emission: of the whole kernel, or of one of its two stages."""

    def __init__(
        self,
        name: str,
        target: Target,
        problem: WinogradProblem,
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
        block_rows = round_up(tiles.block, tiles.mr) | 1  # odd: see `row_of_v`
        self.v_row = row_of_v(problem, b.width)
        v_rows = round_up(self.count, tiles.mr) | 1 if tiles.by_panels else block_rows
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

    def _lines(
        self, matrix: Matrix, load: Callable[[int], Lane], store: Callable[[int, Lane], None]
    ) -> None:
        """A one-dimensional transform."""
        size = self.transforms.size
        for i, lane in enumerate(combine(self.b, matrix, [load(i) for i in range(size)])):
            store(i, lane)

    def _patch(self, row: Dim, column: Dim) -> Dim:
        """The element of the patch where a vector lies."""
        k, width = self.k, self.b.width
        return k.mul(k.add(k.mul(row, self.transforms.size), column), width)

    def _input_tile(self, tile: Dim, to: Dim) -> None:
        """V of one tile, all channels; `to` is its element of the first point."""
        window = self._window(tile)
        offset = 0
        for buffer, channels in zip(self.images, self.problem.channels, strict=True):
            self._input_channels(window, buffer, channels, self.k.add(to, offset))
            offset += channels

    def _window(self, tile: Dim) -> _Window:
        """The inputs of a tile."""
        k, problem, size = self.k, self.problem, self.transforms.size
        image, row, column = self._place(tile)
        top, left = k.sub(row, problem.top), k.sub(column, problem.left)
        whole = k.both(
            k.both(k.compare("sge", top, 0), k.compare("sle", top, problem.height - size)),
            k.both(k.compare("sge", left, 0), k.compare("sle", left, problem.width - size)),
        )
        rows = [k.add(top, i) for i in range(size)]
        clamped = tuple(k.max(k.min(i, problem.height - 1), 0) for i in rows)
        valid = [k.compare("ult", i, problem.height) for i in rows]
        ty = self.b.mask_type
        masks = tuple(k.let(f"vector.broadcast {condition} : i1 to {ty}") for condition in valid)
        return _Window(image, top, left, whole, clamped, masks)

    def _input_channels(self, window: _Window, image: Buffer, channels: int, to: Dim) -> None:
        """V of one tile and input buffer."""
        k, problem, width = self.k, self.problem, self.b.width
        pixels = problem.height * problem.width
        base = k.mul(window.image, pixels * channels)
        lines = [k.add(base, k.mul(i, problem.width * channels)) for i in window.rows]
        corner = k.add(k.mul(window.top, problem.width), window.left)
        first = k.add(base, k.mul(corner, channels))

        def vector(start: Dim, mask: str | None) -> None:
            with k.when(window.whole):
                self._inner_columns(image, k.add(first, start), channels, mask)
            with k.otherwise():
                at = [k.add(line, start) for line in lines]
                self._border_columns(window, image, at, channels, mask)
            self._rows_to_v(k.add(to, start))

        if channels < width:
            vector(0, self.b.mask(channels))
            return
        with k.loop(0, round_up(channels, width), width) as start:
            # The last vector overlaps the one before it, and stores the same values again.
            vector(k.min(start, channels - width) if channels % width else start, None)

    def _inner_columns(self, image: Buffer, at: Dim, channels: int, mask: str | None) -> None:
        """The first pass over a window that lies inside the image."""
        k, b, size = self.k, self.b, self.transforms.size
        step = self.problem.width * channels
        skipped = 2 * self.tiles.tile * channels  # to the tile after the next
        with k.loop(0, size) as column:
            here = k.add(at, k.mul(column, channels))
            if self.tiles.ahead and self.tiles.by_panels:
                for i in range(size):
                    k.prefetch(image, k.add(here, skipped + i * step))
            self._lines(
                self.transforms.bt,
                lambda i: b.load(image, k.add(here, i * step), mask),
                lambda i, lane: b.store(lane, self.scratch, self._patch(i, column)),
            )

    def _border_columns(
        self, window: _Window, image: Buffer, lines: Sequence[Dim], channels: int,
        mask: str | None,
    ) -> None:  # fmt: skip
        """The first pass over a window that reaches beyond the image, where there are zeros.

        Addresses are clamped, since masked-out lanes of addresses without memory are slow.
        """
        k, b, width, size = self.k, self.b, self.problem.width, self.transforms.size
        zero = b.constant(0, "f32")
        with k.loop(0, size) as column:
            index = k.add(window.left, column)
            here = k.mul(k.max(k.min(index, width - 1), 0), channels)

            def load(i: int) -> Lane:
                lane = b.load(image, k.add(lines[i], here), mask)
                return b.select(Lane(window.inside[i], "i1"), lane, zero)

            def store(i: int, lane: Lane) -> None:
                b.store(lane, self.scratch, self._patch(i, column))

            with k.when(k.compare("ult", index, width)):
                self._lines(self.transforms.bt, load, store)
            with k.otherwise():
                for i in range(size):
                    store(i, zero)

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
            if self.tiles.ahead:
                self._fetch_results(panel, point, low)
                if not self.tiles.by_panels:
                    self._fetch_images(panel, point, k.add(low, self.tiles.block))
            self._products(
                rows,
                k.add(v_at, k.mul(point, self.v_point)),
                u_at,
                k.add(self.m_base, k.mul(point, self.m_point)),
            )
        with k.loop(0, rows) as row:
            self._output_tile(panel, k.add(low, row), k.add(self.m_base, k.mul(row, self.nr)))

    def _fetch_images(self, panel: Dim, point: Dim, low: Dim) -> None:
        """Fetches a share of what the tiles from `low` on will read: the next block.

        Its windows lie side by side, so that each of their rows is one piece of memory, of
        which every point and panel takes a part. (Where the block goes on in the next row of
        tiles, that part is not fetched.)
        """
        k, problem, size = self.k, self.problem, self.transforms.size
        image, row, column = self._place(low)
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
        image, top, left = self._place(low)
        width = self.tiles.block * m
        pixels = -(-width * m // self.transforms.points)
        first = k.mul(panel, self.nr)
        starts = [k.add(first, i) for i in range(0, self.nr, min(LINE, self.nr))]
        with k.loop(0, pixels) as i:
            row, column = k.delinearize(k.add(k.mul(point, pixels), i), (m, width))
            at = {"n": image, "oh": k.add(top, row), "ow": k.add(left, column)}
            self.finisher.prefetch([at], starts, near=False)

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
                for start in range(0, self.nr, min(LINE, self.nr)):
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
