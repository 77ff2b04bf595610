"""The inner part of attention: rows of query against one block of keys.

Scores, weights and what they add to the result, for as many rows as a register tile has; see
`mgec.compiler.kernels.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mgec.compiler.kernels.attention_plan import AttentionShape, AttentionTiles, HeadStrides
from mgec.compiler.kernels.emitter import Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.pack import transpose
from mgec.compiler.kernels.rows import horizontal
from mgec.compiler.targets import Target
from mgec.dialects.mge import lane_math
from mgec.dialects.mge.lane import Lane, LaneBuilder, lane_type
from mgec.dialects.mge.spec import DType, row_major_strides


class _Scratch:
    """Hands out parts of the scratch buffer; each begins at a full vector."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.size = lanes, 0

    def take(self, elements: int) -> int:
        """Where a part of so many elements begins."""
        start = self.size
        self.size += -(-elements // self.lanes) * self.lanes
        return start


class Frame:
    """What all parts of one kernel share: the emitter, the buffers, the parts of the scratch.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        shape: the sizes.
        strides: where query, key and value lie.
        scale: factor of the scores.
        causal: whether later keys are hidden.
        bias: shape of what is added to the scores, or None.
        dtype: of all operands and of the result.
        tiles: block sizes, fitted to the shape.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        shape: AttentionShape,
        strides: Sequence[HeadStrides],
        scale: float,
        causal: bool,
        bias: Sequence[int] | None,
        dtype: DType,
        tiles: AttentionTiles,
    ) -> None:
        self.k = k = KernelEmitter(name, target)
        self.b = b = VectorLanes(k, target.lanes(dtype.itemsize))
        self.ty = lane_type(dtype)
        self.shape, self.tiles, self.scale, self.causal = shape, tiles, scale, causal
        self.q_place, self.k_place, self.v_place = strides
        self.query, self.key, self.value = (k.buffer(dtype) for _ in range(3))
        self.bias = None if bias is None else k.buffer(dtype)
        self.bias_strides = _broadcast_strides(bias or ())
        self.result = k.buffer(dtype)
        self.dots = shape.rows <= tiles.dot_rows
        self.nr = tiles.nv * b.width
        self.one_block = shape.keys <= tiles.keys
        self.out_vectors = -(-shape.out_depth // b.width)
        self.value_vectors = min(tiles.value_vectors, self.out_vectors)

        scratch = _Scratch(b.width)
        self.q_step = -(-shape.depth // b.width) * b.width
        self.q_at = scratch.take(tiles.mr * self.q_step)
        self.s_step = tiles.keys + b.width  # rows a power of two apart would share cache sets
        self.s_at = scratch.take(tiles.mr * self.s_step)
        self.factor_at = scratch.take(tiles.mr)
        self.k_at = scratch.take(0 if self.dots else tiles.keys * shape.depth)
        self.v_at = scratch.take(0 if self.dots else tiles.keys * self.out_vectors * b.width)
        kept = 0 if self.one_block else tiles.rows
        self.top_at, self.sum_at = scratch.take(kept), scratch.take(kept)
        self.acc_at = scratch.take(kept * self.out_vectors * b.width)
        self.scratch = k.buffer(dtype)
        self.scratch_bytes = scratch.size * dtype.itemsize

    def constant(self, value: float) -> Lane:
        """A number in every element."""
        return self.b.constant(value, self.ty)

    def lane(self, value: Value) -> Lane:
        """A value that a loop carried."""
        return Lane(value.ref, self.ty)

    def load(self, at: Dim) -> Lane:
        """A vector of the scratch."""
        return self.b.load(self.scratch, at)

    def load_splat(self, at: Dim) -> Lane:
        """An element of the scratch, in every element."""
        return self.b.load_splat(self.scratch, at)

    def store(self, lane: Lane, at: Dim) -> None:
        """Stores a vector to the scratch."""
        self.b.store(lane, self.scratch, at)

    def store_first(self, lane: Lane, at: Dim) -> None:
        """Stores the first element of a vector to the scratch."""
        text = f"vector.extract {lane.ref}[0] : {self.ty} from {self.b.type(self.ty)}"
        self.k.store_scalar(Lane(self.k.let(text), self.ty), self.scratch, at)

    def limit(self, low: Dim, high: Dim) -> Dim:
        """One past the last key that any of the rows low to high (inclusive) sees."""
        k, s = self.k, self.shape
        if not self.causal:
            return s.keys
        last = high
        if s.share > 1:  # the rows of one head begin anew at position 0
            same = k.compare("eq", k.div(low, s.queries), k.div(high, s.queries))
            last = k.select(same, k.rem(high, s.queries), s.queries - 1)
        return k.max(k.min(k.add(last, s.keys - s.queries + 1), s.keys), 0)

    def panel_of(self, vector: int) -> tuple[int, int]:
        """Where a vector of the first packed value lies, and how far the next value is."""
        width = self.b.width
        panel, inside = divmod(vector, self.value_vectors)
        vectors = min(self.value_vectors, self.out_vectors - panel * self.value_vectors)
        at = self.v_at + panel * self.value_vectors * self.tiles.keys * width + inside * width
        return at, vectors * width

    def out_mask(self, vector: int) -> str | None:
        """The mask of a vector of a row of value, or of the result."""
        left = self.shape.out_depth - vector * self.b.width
        return None if left >= self.b.width else self.b.mask(left)


def _broadcast_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense bias along [N, H, L, S]; 0 where it is the same for all."""
    padded = (1,) * (4 - len(shape)) + tuple(shape)
    strides = row_major_strides(padded)
    return tuple(0 if d == 1 else s for d, s in zip(padded, strides, strict=True))


class Head:
    """One head of key and value.

    Args:
        frame: the kernel.
        example: index of the example.
        group: index of the head.
    """

    def __init__(self, frame: Frame, example: Dim, group: Dim) -> None:
        self.o, self.example, self.group = frame, example, group
        k = frame.k
        self.key_at, self.value_at = (
            k.add(k.dot([example, group], [p.example, p.head]), p.offset)
            for p in (frame.k_place, frame.v_place)
        )

    def columns(self, start: Dim) -> list[Dim]:
        """Where keys lie from `start` on, as many as a vector has elements."""
        k, place, last = self.o.k, self.o.k_place, self.o.shape.keys - 1
        indices = [k.min(k.add(start, i), last) for i in range(self.o.b.width)]
        return [k.add(self.key_at, k.mul(i, place.position)) for i in indices]

    def split(self, row: Dim) -> tuple[Dim, Dim]:
        """Head of query and position of a row."""
        k, s = self.o.k, self.o.shape
        if s.share == 1:
            return self.group, row
        within, position = k.div(row, s.queries), k.rem(row, s.queries)
        return k.add(k.mul(self.group, s.share), within), position

    def query_at(self, row: Dim) -> Dim:
        """Where a row of query begins."""
        k, place = self.o.k, self.o.q_place
        head, position = self.split(row)
        steps = [place.example, place.position, place.head]
        return k.add(k.dot([self.example, position, head], steps), place.offset)

    def out_at(self, row: Dim) -> Dim:
        """Where a row of the result begins."""
        k, s = self.o.k, self.o.shape
        head, position = self.split(row)
        shape = (s.batch, s.queries, s.heads, s.out_depth)
        return k.dot([self.example, position, head], row_major_strides(shape)[:3])


class Tile:
    """MR rows against one block of keys; rows beyond the last are copies of it.

    Args:
        head: the head.
        row: the first row.
        kept: its number within the unit, which keeps sums between blocks of keys.
        start: the first key of the block.
    """

    def __init__(self, head: Head, row: Dim, kept: Dim, start: Dim) -> None:
        self.h, self.o = head, head.o
        self.k, self.b, self.shape = head.o.k, head.o.b, head.o.shape
        self.mr, self.kept, self.start = head.o.tiles.mr, kept, start
        k, rows = self.k, [head.o.k.add(row, i) for i in range(head.o.tiles.mr)]
        if self.shape.rows % self.mr:
            rows = [k.min(r, self.shape.rows - 1) for r in rows]
        self.rows = rows
        limit = self.o.limit(rows[0], rows[-1])
        self.count: Dim = limit
        """How many keys of the block any of the rows sees; not positive if there are none."""
        if not self.o.one_block:
            self.count = k.min(k.sub(limit, start), self.o.tiles.keys)

    def emit(self) -> None:
        """Scores, weights, and what they add to the result."""
        self._queries()
        self._scores()
        self._softmax()
        for first in range(0, self.o.out_vectors, self.o.value_vectors):
            self._values(first, min(self.o.value_vectors, self.o.out_vectors - first))

    def _queries(self) -> None:
        """The scaled rows of query, in a row each of the scratch."""
        k, b, o, depth = self.k, self.b, self.o, self.shape.depth
        full = depth // b.width * b.width
        scale = o.constant(o.scale)
        for i, row in enumerate(self.rows):
            source, at = self.h.query_at(row), o.q_at + i * o.q_step

            def copy(d: Dim, mask: str | None, source: Dim = source, at: int = at) -> None:
                o.store(b.mul(b.load(o.query, k.add(source, d), mask), scale), k.add(d, at))

            if full:
                with k.loop(0, full, b.width) as d:
                    copy(d, None)
            if full < depth:
                copy(full, b.mask(depth - full))

    # -- scores ----------------------------------------------------------------------------

    def _scores(self) -> None:
        k = self.k
        finish = _Scores(self)
        with k.loop(0, self.count, self.o.nr) as at:
            finish.store(at, self._dot_products(at) if self.o.dots else self._products(at))

    def _products(self, at: Dim) -> list[list[Lane]]:
        """A panel of scores from packed keys: the vectors of each row."""
        k, b, o, nv = self.k, self.b, self.o, self.o.tiles.nv
        panel = k.add(k.mul(at, self.shape.depth), o.k_at)

        def step(d: Dim, acc: list[Value]) -> list[Value]:
            column = k.add(panel, k.mul(d, o.nr))
            keys = [o.load(k.add(column, v * b.width)) for v in range(nv)]
            result: list[Value] = []
            for i in range(self.mr):
                query = o.load_splat(k.add(d, o.q_at + i * o.q_step))
                for v, key in enumerate(keys):
                    result.append(b.value(b.fma(query, key, o.lane(acc[i * nv + v]))))
            return result

        zero = b.value(o.constant(0))
        acc = k.fold(0, self.shape.depth, 1, [zero] * (self.mr * nv), step)
        lanes = [o.lane(value) for value in acc]
        return [lanes[i * nv : (i + 1) * nv] for i in range(self.mr)]

    def _dot_products(self, at: Dim) -> list[list[Lane]]:
        """A vector of scores of each row, from keys as they lie."""
        k, b, o, depth = self.k, self.b, self.o, self.shape.depth
        full = depth // b.width * b.width
        keys = self.h.columns(k.add(self.start, at))
        zero = b.value(o.constant(0))
        result: list[list[Lane]] = []
        for i in range(self.mr):

            def step(
                d: Dim, acc: list[Value], mask: str | None = None, row: int = i
            ) -> list[Value]:
                query = o.load(k.add(d, o.q_at + row * o.q_step))
                loaded = [b.load(o.key, k.add(key, d), mask) for key in keys]
                pairs = zip(loaded, acc, strict=True)
                return [b.value(b.fma(key, query, o.lane(old))) for key, old in pairs]

            acc = k.fold(0, full, b.width, [zero] * b.width, step)
            if full < depth:
                acc = step(full, acc, b.mask(depth - full))
            sums = transpose(b, [o.lane(value) for value in acc])
            while len(sums) > 1:
                sums = [b.add(x, y) for x, y in zip(sums[::2], sums[1::2], strict=True)]
            result.append(sums)
        return result

    # -- softmax ---------------------------------------------------------------------------

    def _softmax(self) -> None:
        """Scores become weights; a factor per row is left for `_values`."""
        k, b, o = self.k, self.b, self.o
        with k.loop(0, self.mr) as i:
            line = k.add(k.mul(i, o.s_step), o.s_at)
            top = self._top(line)
            if o.one_block:
                factor = b.div(o.constant(1), self._exponentials(line, top))
            else:
                factor = self._rescale(k.add(self.kept, i), line, top)
            o.store_first(factor, k.add(i, o.factor_at))

    def _rescale(self, kept: Dim, line: Dim, top: Lane) -> Lane:
        """The weights of a row in this block; the factor for what earlier blocks made of it."""
        k, b, o = self.k, self.b, self.o
        before = o.load_splat(k.add(kept, o.top_at))
        top = _larger(b, top, before)
        o.store_first(top, k.add(kept, o.top_at))
        # Nothing seen so far: -inf - -inf would be NaN, but this row may yet see a key.
        top = b.select(b.cmpf("oeq", top, o.constant(-float("inf"))), o.constant(0), top)
        total = self._exponentials(line, top)
        factor = lane_math.exp_flushed(b, b.sub(before, top))
        old = o.load_splat(k.add(kept, o.sum_at))
        o.store_first(b.fma(old, factor, total), k.add(kept, o.sum_at))
        return factor

    def _top(self, line: Dim) -> Lane:
        """The largest score of a row, in every element; NaN does not count."""
        lowest = self.o.constant(-float("inf"))
        return self._fold(line, lowest, _larger, lambda score, place: score)

    def _exponentials(self, line: Dim, top: Lane) -> Lane:
        """exp(score - top) in place of the scores of a row; their sum, in every element."""
        b, o = self.b, self.o

        def weight(score: Lane, place: Dim) -> Lane:
            value = lane_math.exp_flushed(b, b.sub(score, top))
            o.store(value, place)
            return value

        return self._fold(line, o.constant(0), lambda b, x, y: b.add(x, y), weight)

    def _fold(
        self, line: Dim, init: Lane, combine: Callable[[LaneBuilder, Lane, Lane], Lane],
        element: Callable[[Lane, Dim], Lane],
    ) -> Lane:  # fmt: skip
        """`element(scores, where they lie)` of a row of scores combined, in every element."""
        k, b, o = self.k, self.b, self.o

        def step(at: Dim, acc: list[Value]) -> list[Value]:
            result: list[Value] = []
            for v, old in enumerate(acc):
                place = k.add(line, at, v * b.width)
                result.append(b.value(combine(b, element(o.load(place), place), o.lane(old))))
            return result

        first, *others = k.fold(0, self.count, o.nr, [b.value(init)] * o.tiles.nv, step)
        total = o.lane(first)
        for other in others:
            total = combine(b, total, o.lane(other))
        return b.splat(horizontal(b, total, combine))

    # -- weights times values --------------------------------------------------------------

    def _values(self, first: int, vectors: int) -> None:
        """`vectors` columns of the result from vector `first` on."""
        k, b, o = self.k, self.b, self.o
        tile = [(i, v) for i in range(self.mr) for v in range(vectors)]
        columns = self._columns(first, vectors)

        def step(t: Dim, acc: list[Value]) -> list[Value]:
            values = columns(t)
            result: list[Value] = []
            for i in range(self.mr):
                weight = o.load_splat(k.add(t, o.s_at + i * o.s_step))
                for v, value in enumerate(values):
                    result.append(b.value(b.fma(weight, value, o.lane(acc[i * vectors + v]))))
            return result

        def factors() -> list[Lane]:  # as late as possible: the sums need the registers
            return [o.load_splat(o.factor_at + i) for i in range(self.mr)]

        if o.one_block:
            acc = k.fold(0, self.count, 1, [b.value(o.constant(0))] * len(tile), step)
            scale = factors()
            for (i, v), value in zip(tile, acc, strict=True):
                at = k.add(self.h.out_at(self.rows[i]), (first + v) * b.width)
                b.store(b.mul(o.lane(value), scale[i]), o.result, at, o.out_mask(first + v))
            return
        width = o.out_vectors * b.width
        kept = k.add(k.mul(self.kept, width), o.acc_at + first * b.width)
        places = [k.add(kept, i * width + v * b.width) for i, v in tile]
        scale = factors()
        pairs = zip(tile, places, strict=True)
        before = [b.value(b.mul(o.load(at), scale[i])) for (i, _), at in pairs]
        for value, at in zip(k.fold(0, self.count, 1, before, step), places, strict=True):
            o.store(o.lane(value), at)

    def _columns(self, first: int, vectors: int) -> Callable[[Dim], list[Lane]]:
        """Loads `vectors` vectors of a value, packed or as it lies, given its index."""
        k, b, o = self.k, self.b, self.o
        base, by = o.panel_of(first)
        buffer, masks = o.scratch, [None] * vectors
        if o.dots:
            buffer, by = o.value, o.v_place.position
            base = k.add(self.h.value_at, k.mul(self.start, by), first * b.width)
            masks = [o.out_mask(first + v) for v in range(vectors)]

        def load(t: Dim) -> list[Lane]:
            at = k.add(base, k.mul(t, by))
            return [b.load(buffer, k.add(at, v * b.width), m) for v, m in enumerate(masks)]

        return load


class _Scores:
    """What happens to scores before they are stored: the bias; -inf where a key is hidden."""

    def __init__(self, tile: Tile) -> None:
        self.t, self.o, self.k, self.b = tile, tile.o, tile.k, tile.b
        self.ragged = tile.shape.keys % self.o.nr != 0
        self.limits = [self.o.limit(row, row) for row in tile.rows] if self.o.causal else []
        self.bias_rows: list[Dim] = []
        if self.o.bias is not None:
            for row in tile.rows:
                at = [tile.h.example, *tile.h.split(row)]
                self.bias_rows.append(self.k.dot(at, self.o.bias_strides[:3]))

    def store(self, at: Dim, sums: Sequence[Sequence[Lane]]) -> None:
        """Stores a panel of scores, which begins `at` keys into the block."""
        k, b, o, keys = self.k, self.b, self.o, self.t.shape.keys
        starts = [k.add(self.t.start, at, v * b.width) for v in range(len(sums[0]))]
        tails = [b.mask(k.sub(keys, start)) if self.ragged else None for start in starts]
        lowest = o.constant(-float("inf"))
        biases: dict[tuple[Dim, int], Lane] = {}
        for i, row in enumerate(sums):
            for v, lane in enumerate(row):
                mask = tails[v]
                if o.bias is not None:
                    where = (self.bias_rows[i], v)
                    if where not in biases:
                        biases[where] = self._bias(where[0], starts[v], mask)
                    lane = b.add(lane, biases[where])
                if o.causal:
                    mask = b.mask(k.sub(self.limits[i], starts[v]))
                if mask is not None:
                    lane = b.select(Lane(mask, "i1"), lane, lowest)
                o.store(lane, k.add(at, o.s_at + i * o.s_step + v * b.width))

    def _bias(self, row: Dim, start: Dim, mask: str | None) -> Lane:
        k, b, o = self.k, self.b, self.o
        assert o.bias is not None
        if not o.bias_strides[3]:
            return b.load_splat(o.bias, row)
        if mask is not None:  # no address beyond the last key, even where the mask is off
            start = k.min(start, self.t.shape.keys - 1)
        return b.load(o.bias, k.add(row, start), mask)


def _larger(b: LaneBuilder, x: Lane, y: Lane) -> Lane:
    """The larger; y if x is NaN. One instruction on x86, unlike `maximum`."""
    return b.select(b.cmpf("ogt", x, y), x, y)
