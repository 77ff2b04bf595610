"""Packing: copying a block of an operand into panels [k][column], zeros where it has no element.

The columns of a panel are consecutive indices of the operand's own loops (n for the right
operand, m for the left one). There are three ways to fill a panel, by how memory runs:

* rows: neighbouring columns are neighbours in memory, or every other element is one (a
  convolution of stride 2). Vectors are copied, one run of columns (such as a row of an image)
  at a time.
* transposed: neighbouring k are neighbours in memory. Square blocks are transposed in
  registers.
* gathered: neither. Elements are gathered; this one can do everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, VectorLanes
from mgec.compiler.kernels.operand import Operand, Walk, memory_step, product, unit_stride
from mgec.dialects.mge.lane import Lane


@dataclass(frozen=True)
class Place:
    """A partial address: a flat offset, and an index along each masked axis."""

    flat: Dim
    masked: tuple[Dim, ...]


@dataclass(frozen=True)
class Panels:
    """Where panels go.

    Attributes:
        buffer: the scratch.
        base: elements before the first panel.
        width: columns per panel; a multiple of the vector length of `Packer.lanes`.
        rows: rows reserved per panel; the transposed way writes up to a vector length more
            than there are.
    """

    buffer: Buffer
    base: int
    width: int
    rows: int

    @property
    def size(self) -> int:
        """Elements per panel."""
        return self.width * self.rows


class Packer:
    """Emits the packing of one operand.

    Args:
        k: the kernel.
        lanes: vectors of the panel's element type; their width divides the panel's.
        operand: what is packed.
        columns: the loops along a panel, slowest first.
        depth: the summed loops, slowest first.
    """

    def __init__(
        self,
        k: KernelEmitter,
        lanes: VectorLanes,
        operand: Operand,
        columns: Sequence[Walk],
        depth: Sequence[Walk],
    ) -> None:
        self.k, self.b, self.operand = k, lanes, operand
        self.columns, self.depth = list(columns), list(depth)
        self.count = product([w.extent for w in columns]).dim(k)
        self.column_extents = [w.extent.dim(k) for w in columns]
        self.depth_extents = [w.extent.dim(k) for w in depth]
        self.sizes = [a.size.dim(k) for a in operand.masked]
        self.strides = [a.stride.dim(k) for a in operand.masked]

    # -- addresses -------------------------------------------------------------------------

    def place(self, walks: Sequence[Walk], at: Sequence[Dim]) -> Place:
        """The partial address of some loop indices."""
        k = self.k
        flat = k.dot(at, [w.flat.dim(k) for w in walks])
        masked = tuple(
            k.dot(at, [w.coefficient(axis).dim(k) for w in walks])
            for axis in range(len(self.operand.masked))
        )
        return Place(flat, masked)

    def join(self, *places: Place) -> Place:
        """The sum of partial addresses."""
        axes = range(len(self.operand.masked))
        return Place(
            self.k.add(*(p.flat for p in places)),
            tuple(self.k.add(*(p.masked[axis] for p in places)) for axis in axes),
        )

    def resolve(self, place: Place, but: int | None = None) -> tuple[Dim, str | None]:
        """The flat address of a place, and an i1 (None: always) whether it has an element.

        Args:
            place: a full address (offsets of the masked axes are added here).
            but: a masked axis of stride 1 that the caller checks lane by lane.
        """
        k = self.k
        address, valid = place.flat, None
        for axis, info in enumerate(self.operand.masked):
            index = k.add(place.masked[axis], info.offset)
            if axis == but:
                address = k.add(address, index)
                continue
            bound = k.mul(self.sizes[axis], info.divisor)
            inside = k.compare("ult", index, bound)
            valid = inside if valid is None else k.both(valid, inside)
            index = k.max(k.min(index, k.sub(bound, 1)), 0)
            if info.divisor != 1:
                valid = k.both(valid, k.compare("eq", k.rem(index, info.divisor), 0))
                index = k.div(index, info.divisor)
            address = k.add(address, k.mul(index, self.strides[axis]))
        return address, valid

    def _lanes_between(self, low: Dim, high: Dim) -> str:
        """Mask of the lanes low <= i < high."""
        mask = self.b.mask(high)
        if isinstance(low, int) and low <= 0:
            return mask
        below = self.b.mask(low)
        ty = self.b.mask_type
        everything = self.k.constant("dense<true>", ty)
        above = self.k.let(f"arith.xori {below}, {everything} : {ty}")
        return self.k.let(f"arith.andi {mask}, {above} : {ty}")

    def _where(self, condition: str | None, mask: str) -> str:
        """The mask, empty unless the i1 holds."""
        if condition is None:
            return mask
        ty = self.b.mask_type
        nothing = self.k.constant("dense<false>", ty)
        return self.k.let(f"arith.select {condition}, {mask}, {nothing} : {ty}")

    # -- the three ways --------------------------------------------------------------------

    def panel(self, base: Place, start: Dim, k_low: Dim, k_high: Dim, to: Panels, at: Dim) -> None:
        """Fills one panel.

        Args:
            base: address of the batch element.
            start: first column.
            k_low: first k.
            k_high: one past the last k.
            to: the panels.
            at: elements from the beginning of the buffer to the panel.
        """
        along_n = memory_step(self.columns[-1], self.operand.masked) in (1, 2)
        along_k = unit_stride(self.depth[-1], self.operand.masked)
        n, depth = self.columns[-1].extent, self.depth[-1].extent
        if along_k and depth.is_static and depth.known < self.b.width // 2 and not along_n:
            along_k = False
        if along_n and along_k:
            if n.is_static and depth.is_static:
                along_n = n.known >= depth.known
            else:  # decided by the sizes: an image row is longer than a filter row
                k = self.k
                with k.when(k.compare("sge", self.column_extents[-1], self.depth_extents[-1])):
                    self._rows(base, start, k_low, k_high, to, at)
                with k.otherwise():
                    self._transposed(base, start, k_low, k_high, to, at)
                return
        if along_n:
            self._rows(base, start, k_low, k_high, to, at)
        elif along_k:
            self._transposed(base, start, k_low, k_high, to, at)
        else:
            self._gathered(base, start, k_low, k_high, to, at)

    def _k_rows(self, k_low: Dim, k_high: Dim, inner: Dim) -> tuple[Dim, Dim]:
        """The indices r of the outer k loops with k_low <= r * extent + inner < k_high."""
        k, extent = self.k, self.depth_extents[-1]
        return (
            k.ceildiv(k.sub(k_low, inner), extent),
            k.ceildiv(k.sub(k_high, inner), extent),
        )

    def _rows(self, base: Place, start: Dim, k_low: Dim, k_high: Dim, to: Panels, at: Dim) -> None:
        k = self.k
        end = k.min(k.add(start, to.width), self.count)
        inner = self.columns[-1]
        if len(self.columns) == 1:
            place = self.join(base, self.place([inner], [start]))
            self._run(place, 0, k.sub(end, start), k_low, k_high, to, at, alone=True)
            return
        extent = self.column_extents[-1]
        first, last = k.div(start, extent), k.div(k.sub(end, 1), extent)
        with k.loop(first, k.add(last, 1)) as row:
            row_start = k.mul(row, extent)
            outer = k.delinearize(row, self.column_extents[:-1])
            place = self.join(
                base,
                self.place(self.columns, [*outer, k.sub(start, row_start)]),
            )
            low = k.sub(k.max(row_start, start), start)
            high = k.sub(k.min(k.add(row_start, extent), end), start)
            self._run(place, low, high, k_low, k_high, to, at, alone=False)

    def _run(
        self, place: Place, low: Dim, high: Dim, k_low: Dim, k_high: Dim, to: Panels, at: Dim,
        *, alone: bool,
    ) -> None:  # fmt: skip
        """Columns low..high of a panel: one run of neighbours; `place` is column 0."""
        k, b = self.k, self.b
        steps = range(0, to.width, b.width)
        spread = memory_step(self.columns[-1], self.operand.masked)
        assert spread in (1, 2)
        # A vector of the panel comes from `spread` vectors of memory.
        pieces = [s * spread + p * b.width for s in steps for p in range(spread)]
        column_axis = self.columns[-1].masked[0][0] if self.columns[-1].masked else None
        stores = [
            None if alone else self._lanes_between(k.sub(low, s), k.sub(high, s)) for s in steps
        ]

        looped = self.depth[:-1] if len(self.depth) > 1 else self.depth
        extents = self.depth_extents[: len(looped)]
        late = column_axis is not None and any(
            w.coefficient(column_axis).known for w in looped
        )  # whether the row loop moves the columns' own axis (a one-dimensional filter)

        def load_masks(here: Place, full: bool) -> list[str | None]:
            """A mask for each vector read; lanes count elements of memory from column 0 on."""
            left, right = k.mul(low, spread), k.sub(k.mul(high, spread), spread - 1)
            if column_axis is not None:
                q = k.add(here.masked[column_axis], self.operand.masked[column_axis].offset)
                left = k.max(left, k.sub(0, q))
                right = k.min(right, k.sub(self.sizes[column_axis], q))
            elif alone and full and spread == 1:
                return [None] * len(pieces)
            return [self._lanes_between(k.sub(left, p), k.sub(right, p)) for p in pieces]

        def copy(inner: Dim, *, full: bool) -> None:
            here, bounds = place, (k_low, k_high)
            if len(self.depth) > 1:
                here = self.join(place, self.place(self.depth[-1:], [inner]))
                bounds = self._k_rows(k_low, k_high, inner)
            early = [] if late else load_masks(here, full)
            with k.loop(*bounds) as row:
                spot = self.join(here, self.place(looped, k.delinearize(row, extents)))
                loads = load_masks(spot, full) if late else early
                address, valid = self.resolve(spot, but=column_axis)
                flat = row
                if len(self.depth) > 1:
                    flat = k.add(k.mul(row, self.depth_extents[-1]), inner)
                line = k.add(at, k.mul(k.sub(flat, k_low), to.width))
                read: list[Lane] = []
                for p, load in zip(pieces, loads, strict=True):
                    if valid is not None:
                        load = self._where(valid, load or k.constant("dense<true>", b.mask_type))
                    read.append(b.load(self.operand.buffer, k.add(address, p), load))
                if spread == 2:
                    even = range(0, 2 * b.width, 2)
                    pairs = zip(read[::2], read[1::2], strict=True)
                    read = [b.shuffle(x, y, even) for x, y in pairs]
                for s, value, store in zip(steps, read, stores, strict=True):
                    b.store(value, to.buffer, k.add(line, s), store)

        def every(*, full: bool) -> None:
            if len(self.depth) == 1:
                copy(0, full=full)
                return
            extent = self.depth[-1].extent
            if extent.is_static and extent.known <= 7:
                for inner in range(extent.known):
                    copy(inner, full=full)
            else:
                with k.loop(0, self.depth_extents[-1]) as inner:
                    copy(inner, full=full)

        if not alone or column_axis is not None:
            every(full=False)
        elif isinstance(high, int):
            every(full=high == to.width)
        else:
            with k.when(k.compare("eq", high, to.width)):
                every(full=True)
            with k.otherwise():
                every(full=False)

    def _transposed(
        self, base: Place, start: Dim, k_low: Dim, k_high: Dim, to: Panels, at: Dim
    ) -> None:
        k, b = self.k, self.b
        inner = self.depth[-1]
        depth_axis = inner.masked[0][0] if inner.masked else None
        last = k.sub(self.count, 1)
        one_loop = len(self.depth) == 1

        def block(
            places: Sequence[Place], at_k: Dim, inner_at: Dim, count: Dim | None, line: Dim
        ) -> None:
            """VL x VL elements: columns `places` from k `at_k` on."""
            mask = None if count is None else b.mask(count)
            vectors: list[Lane] = []
            step = self.place([inner], [inner_at])
            for place in places:
                here = self.join(place, step)
                address, valid = self.resolve(here, but=depth_axis)
                own = mask
                if depth_axis is not None:
                    q = k.add(here.masked[depth_axis], self.operand.masked[depth_axis].offset)
                    right = k.sub(self.sizes[depth_axis], q)
                    right = right if count is None else k.min(right, count)
                    own = self._lanes_between(k.sub(0, q), right)
                if valid is not None:
                    own = self._where(valid, own or k.constant("dense<true>", b.mask_type))
                vectors.append(b.load(self.operand.buffer, address, own))
            for i, vector in enumerate(transpose(b, vectors)):
                b.store(vector, to.buffer, k.add(line, i * to.width))

        with k.loop(0, to.width, b.width) as step:
            columns: list[Place] = []
            for i in range(b.width):
                column = k.min(k.add(start, step, i), last)
                coordinates = k.delinearize(column, self.column_extents)
                columns.append(self.join(base, self.place(self.columns, coordinates)))

            def segment(
                places: Sequence[Place], origin: Dim, low: Dim, high: Dim, step: Dim
            ) -> None:
                """k from low to high in one run of the innermost k loop, which began at origin."""
                full = k.add(low, k.round_down(k.sub(high, low), b.width))

                def one(at_k: Dim, count: Dim | None) -> None:
                    line = k.add(at, k.mul(k.sub(at_k, k_low), to.width), step)
                    block(places, at_k, k.sub(at_k, origin), count, line)

                if depth_axis is not None:  # masks are needed anyway: one variant will do
                    with k.loop(low, high, b.width) as at_k:
                        one(at_k, k.sub(high, at_k))
                    return
                if full != low:
                    with k.loop(low, full, b.width) as at_k:
                        one(at_k, None)
                if isinstance(full, int) and isinstance(high, int):
                    if full < high:
                        one(full, high - full)
                    return
                with k.when(k.compare("slt", full, high)):
                    one(full, k.sub(high, full))

            if one_loop:
                segment(columns, 0, k_low, k_high, step)
            else:
                extent = self.depth_extents[-1]
                first, final = k.div(k_low, extent), k.div(k.sub(k_high, 1), extent)
                with k.loop(first, k.add(final, 1)) as row:
                    outer = self.place(self.depth[:-1], k.delinearize(row, self.depth_extents[:-1]))
                    origin = k.mul(row, extent)
                    low = k.max(origin, k_low)
                    high = k.min(k.add(origin, extent), k_high)
                    segment([self.join(c, outer) for c in columns], origin, low, high, step)

    def _gathered(
        self, base: Place, start: Dim, k_low: Dim, k_high: Dim, to: Panels, at: Dim
    ) -> None:
        k, b = self.k, self.b
        masked = self.operand.masked

        def splat(value: Dim) -> Lane:
            wide = k.let(f"arith.index_cast {k.index(value)} : index to i64")
            return b.splat(Lane(wide, "i64"))

        def times(lane: Lane, step: Dim) -> Lane:
            return lane if step == 1 else b.mul(lane, splat(step))

        with k.loop(0, to.width, b.width) as step:
            column = b.add(splat(k.add(start, step)), Lane(b.iota(), "i64"))
            limit = splat(k.sub(self.count, 1))
            column = b.op("arith.minsi", (column, limit), "i64")
            coordinates: list[Lane] = []
            for extent in reversed(self.column_extents[1:]):
                size = splat(extent)
                coordinates.insert(0, b.op("arith.remui", (column, size), "i64"))
                column = b.op("arith.divui", (column, size), "i64")
            coordinates.insert(0, column)
            flat = splat(0)
            indices = [splat(0) for _ in masked]
            for walk, coordinate in zip(self.columns, coordinates, strict=True):
                if walk.flat.known:
                    flat = b.add(flat, times(coordinate, walk.flat.dim(k)))
                for axis, coefficient in walk.masked:
                    indices[axis] = b.add(indices[axis], times(coordinate, coefficient.dim(k)))
            sizes = [splat(k.mul(s, a.divisor)) for s, a in zip(self.sizes, masked, strict=True)]
            strides = [splat(s) for s in self.strides]

            def element(at_k: Dim, depth: Sequence[Dim]) -> None:
                place = self.join(base, self.place(self.depth, depth))
                offsets, mask = flat, None
                for axis, info in enumerate(masked):
                    index = b.add(indices[axis], splat(k.add(place.masked[axis], info.offset)))
                    valid = b.cmpi("ult", index, sizes[axis])
                    if info.divisor != 1:
                        by = b.constant(info.divisor, "i64")
                        rest = b.op("arith.remui", (index, by), "i64")
                        valid = b.and_(valid, b.cmpi("eq", rest, b.constant(0, "i64")))
                        index = b.op("arith.divui", (index, by), "i64")
                    mask = valid if mask is None else b.and_(mask, valid)
                    index = b.select(valid, index, b.constant(0, "i64"))
                    moved = index if self.strides[axis] == 1 else b.mul(index, strides[axis])
                    offsets = b.add(offsets, moved)
                value = b.gather(
                    self.operand.buffer, place.flat, offsets.ref, None if mask is None else mask.ref
                )
                line = k.add(at, k.mul(k.sub(at_k, k_low), to.width), step)
                b.store(value, to.buffer, line)

            if len(self.depth) == 1:
                with k.loop(k_low, k_high) as at_k:
                    element(at_k, [at_k])
            else:
                with k.loop(0, self.depth_extents[-1]) as inner:
                    low, high = self._k_rows(k_low, k_high, inner)
                    with k.loop(low, high) as row:
                        outer = k.delinearize(row, self.depth_extents[:-1])
                        at_k = k.add(k.mul(row, self.depth_extents[-1]), inner)
                        element(at_k, [*outer, inner])


def transpose(b: VectorLanes, rows: Sequence[Lane]) -> list[Lane]:
    """The transpose of a square block, by log2(width) rounds of shuffles."""
    block, width, distance = list(rows), b.width, 1
    while distance < width:
        result = list(block)
        for i in range(width):
            if i & distance:
                continue
            x, y = block[i], block[i + distance]
            low = [width + c - distance if c & distance else c for c in range(width)]
            high = [width + c if c & distance else c + distance for c in range(width)]
            result[i] = b.shuffle(x, y, low)
            result[i + distance] = b.shuffle(x, y, high)
        block, distance = result, distance * 2
    return block
