"""The functions of a Winograd kernel: what they share, and the two transforms.

The transforms have functions of their own so that their many constants do not occupy registers
in the products (LLVM hoists them out of all loops, then spills sums).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, VectorLanes
from mgec.compiler.kernels.epilogue import Epilogue, Finisher
from mgec.compiler.kernels.source import Units
from mgec.compiler.kernels.winograd_tiles import (
    WinogradProblem,
    WinogradTiles,
    round_up,
    row_of_v,
)
from mgec.compiler.kernels.winograd_transform import Matrix, combine, transforms
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spec import FLOAT32


@dataclass(frozen=True)
class Plan:
    """What is computed, and how.

    Attributes:
        target: what the kernel is for.
        problem: the convolution.
        tiles: block sizes.
        maps: the contraction, for the epilogue.
        out: shape of the result.
        epilogue: what happens to a sum before it is stored.
    """

    target: Target
    problem: WinogradProblem
    tiles: WinogradTiles
    maps: ContractionMaps
    out: tuple[int, ...]
    epilogue: Epilogue


class Layout:
    """Where things lie in the scratch and in the workspace, in elements.

    The scratch holds a patch of t x t vectors, V (unless that is in the workspace) and M.

    Attributes:
        nr: output channels of a panel.
        v_base: the beginning of V.
        v_row: from one tile to the next in V.
        v_point: from one point to the next in V.
        m_base: the beginning of M.
        m_point: from one point to the next in M, whose rows have `nr` elements.
        scratch_bytes: size of the scratch.
        workspace_bytes: size of the workspace; 0 if there is none.
    """

    def __init__(self, plan: Plan) -> None:
        problem, tiles = plan.problem, plan.tiles
        lanes = plan.target.lanes(FLOAT32.itemsize)
        points = transforms(tiles.tile).points
        self.nr = tiles.nv * lanes
        self.v_row = row_of_v(problem, lanes)
        block_rows = round_up(tiles.block, tiles.mr) | 1  # odd: see `row_of_v`
        all_rows = round_up(problem.tiles(tiles.tile), tiles.mr) | 1
        self.v_point = self.v_row * (all_rows if tiles.by_panels else block_rows)
        self.m_point = self.nr * block_rows
        patch, v_size = points * lanes, points * self.v_point
        self.v_base = 0 if tiles.by_panels else patch
        self.m_base = patch if tiles.by_panels else patch + v_size
        self.workspace_bytes = v_size * FLOAT32.itemsize if tiles.by_panels else 0
        self.scratch_bytes = (self.m_base + points * self.m_point) * FLOAT32.itemsize


class Part:
    """One function of a kernel under construction. All of them take all buffers.

    Args:
        plan: the kernel.
        name: symbol of the function, without `_body`.
        num_indices: how many indices it takes besides a range.
    """

    def __init__(self, plan: Plan, name: str, num_indices: int = 0) -> None:
        self.problem, self.tiles = plan.problem, plan.tiles
        self.transforms = transforms(plan.tiles.tile)
        self.layout = Layout(plan)
        self.k = k = KernelEmitter(name, plan.target, num_indices)
        self.b = VectorLanes(k, plan.target.lanes(FLOAT32.itemsize))
        self.images = [k.buffer(FLOAT32) for _ in plan.problem.channels]
        self.u = k.buffer(FLOAT32)
        columns = [loop for loop in plan.maps.loops if loop.name == "o"]
        self.finisher = Finisher(self.b, plan.epilogue, plan.maps, plan.out, columns, FLOAT32)
        workspace = [k.buffer(FLOAT32)] if plan.tiles.by_panels else []
        self.scratch = k.buffer(FLOAT32)
        self.v = workspace[0] if workspace else self.scratch
        self.buffers = [
            *self.images, self.u, *self.finisher.extras, *self.finisher.outputs, *workspace,
            self.scratch,
        ]  # fmt: skip

    @property
    def text(self) -> str:
        """The finished function, which other objects do not see."""
        head, _, rest = self.k.finish(Units(), template="").text.partition(" {\n")
        return f"{head} attributes {{llvm.linkage = #llvm.linkage<internal>}} {{\n{rest}"

    def call(self, other: Part, indices: Sequence[Dim], low: Dim, high: Dim) -> None:
        """Calls another function on the same buffers."""
        given = [self.k.index(i) for i in (*indices, low, high)]
        operands = ", ".join([*(buffer.name for buffer in self.buffers), *given])
        types = ", ".join([*(buffer.memref for buffer in self.buffers), *(["index"] * len(given))])
        self.k.line(f"func.call @{other.k.name}_body({operands}) : ({types}) -> ()")

    def place(self, tile: Dim) -> tuple[Dim, Dim, Dim]:
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


class InputTransform(Part):
    """V of a range of tiles; takes where V of the first of them is."""

    def __init__(self, plan: Plan, name: str) -> None:
        super().__init__(plan, name, 1)
        k = self.k
        with k.loop("%begin", "%end") as tile:
            row = k.sub(tile, "%begin")
            self._input_tile(tile, k.add("%d0", k.mul(row, self.layout.v_row)))

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
        image, row, column = self.place(tile)
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
            first = k.add(to, k.mul(row, size * self.layout.v_point))
            self._lines(
                self.transforms.bt,
                lambda i: b.load(self.scratch, self._patch(row, i)),
                lambda i, lane: b.store(lane, self.v, k.add(first, i * self.layout.v_point)),
            )


class OutputTransform(Part):
    """The results of a range of tiles, whose M is in the scratch; takes the panel."""

    def __init__(self, plan: Plan, name: str) -> None:
        super().__init__(plan, name, 1)
        k = self.k
        with k.loop("%begin", "%end") as tile:
            row = k.sub(tile, "%begin")
            self._output_tile("%d0", tile, k.add(self.layout.m_base, k.mul(row, self.layout.nr)))

    def _output_tile(self, panel: Dim, tile: Dim, m_at: Dim) -> None:
        """The results of one tile and panel."""
        k, b, problem = self.k, self.b, self.problem
        place = self.place(tile)
        first = k.mul(panel, self.layout.nr)
        count = k.min(k.sub(problem.out_channels, first), self.layout.nr)
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
            here = k.add(m_at, k.mul(column, self.layout.m_point))
            self._lines(
                self.transforms.at,
                lambda i: b.load(self.scratch, k.add(here, i * size * self.layout.m_point)),
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
