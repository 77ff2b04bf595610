"""Templates of kernels that reduce: reductions over any axes, softmax, layer normalization.

Sums are formed in an order that depends only on the target: vectors of its length, `UNROLL`
of them side by side along a contiguous reduced axis, then a tree. Static and run-time sizes
share it, and so do all divisions into units, hence eager and traced results are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mgec.compiler.kernels.elementwise import Access
from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.source import DimRef, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge import lane_math
from mgec.dialects.mge.lane import Lane, LaneBuilder
from mgec.dialects.mge.spec import FLOAT32, DType

UNROLL = 4
"""Independent accumulators along a reduced axis: they hide the latency of an addition."""

REGISTER_ROW = 8
"""Rows of up to so many vectors are unrolled, so that what they hold stays in registers."""

UNIT_ELEMENTS = 16384
"""About how many elements a unit of work reads."""


class Loop(NamedTuple):
    """One loop of a reduction: its size, and whether the result has it."""

    size: int | DimRef
    kept: bool


@dataclass(frozen=True)
class Fold:
    """One of the values a kernel reduces.

    Attributes:
        ty: lane type of the accumulator ("f32").
        init: what combines to nothing (0 for a sum).
        combine: the two-operand function; associative up to rounding.
    """

    ty: str
    init: float
    combine: Callable[[LaneBuilder, Lane, Lane], Lane]


def fold_named(kind: str, ty: str) -> Fold:
    """The fold called "sum", "prod", "max" or "min" (NaN wins; of zeros any) of floats."""
    combine: dict[str, tuple[float, Callable[[LaneBuilder, Lane, Lane], Lane]]] = {
        "sum": (0.0, lambda b, x, y: b.add(x, y)),
        "prod": (1.0, lambda b, x, y: b.mul(x, y)),
        "max": (-float("inf"), lambda b, x, y: _extremum(b, "ogt", x, y)),
        "min": (float("inf"), lambda b, x, y: _extremum(b, "olt", x, y)),
    }
    return Fold(ty, *combine[kind])


def _extremum(b: LaneBuilder, better: str, x: Lane, y: Lane) -> Lane:
    """The better of both, or NaN: three instructions on x86.

    `maximum` takes six, because it tells -0 from 0.
    """
    value = b.select(b.cmpf(better, x, y), x, y)  # y if it is NaN
    return b.select(b.cmpf("uno", x, x), x, value)


Prologue = Callable[[VectorLanes, Sequence[Lane]], Sequence[Lane]]
"""One lane per fold from the input lanes."""

Finish = Callable[[VectorLanes, Sequence[Lane], Sequence[Lane]], Sequence[Lane]]
"""Output lanes from the totals and the lanes of the `late` operands."""


def reduction_kernel(
    name: str,
    target: Target,
    loops: Sequence[Loop],
    inputs: Sequence[Access],
    outputs: Sequence[Access],
    folds: Sequence[Fold],
    *,
    prologue: Prologue = lambda b, xs: xs,
    finish: Finish = lambda b, totals, late: totals,
    late: Sequence[Access] = (),
    num_dims: int = 0,
) -> KernelSource:
    """outputs[kept...] = finish(fold over the other loops of prologue(inputs[...])).

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        loops: all loops, outermost first. The innermost is the vector.
        inputs: how inputs are read: one stride per loop.
        outputs: how results are written: one stride per loop, 0 where it is reduced.
        folds: what is reduced.
        prologue: from input lanes to one lane per fold.
        finish: from totals to outputs; on scalars if the innermost loop is reduced.
        late: operands of `finish`: one stride per loop, 0 where it is reduced.
        num_dims: how many entries the dims table has.

    Returns:
        A kernel whose buffers are the inputs, the late operands, then the outputs.
    """
    return _Reduction(
        name, target, loops, inputs, outputs, folds, prologue, finish, late, num_dims
    ).emit()


class _Reduction:
    """The state of one emission."""

    def __init__(
        self, name: str, target: Target, loops: Sequence[Loop], inputs: Sequence[Access],
        outputs: Sequence[Access], folds: Sequence[Fold], prologue: Prologue, finish: Finish,
        late: Sequence[Access], num_dims: int,
    ) -> None:  # fmt: skip
        self.k = k = KernelEmitter(name, target, num_dims)
        wide = all(f.ty[-2:] == "64" for f in folds)
        self.b = VectorLanes(k, target.lanes(8 if wide else 4))
        self.loops, self.folds = list(loops), folds
        self.prologue, self.finish = prologue, finish
        self.inputs = [_Stream(k, self.b, a) for a in inputs]
        self.late = [_Stream(k, self.b, a) for a in late]
        self.outputs = [_Stream(k, self.b, a) for a in outputs]
        self.sizes = [k.dim(loop.size) for loop in loops]
        self.outer = [i for i, loop in enumerate(loops[:-1]) if loop.kept]
        self.nest = [i for i, loop in enumerate(loops[:-1]) if not loop.kept]

    def emit(self) -> KernelSource:
        """The kernel."""
        return self._columns() if self.loops[-1].kept else self._rows()

    def _initial(self) -> list[Value]:
        return [self.b.value(self.b.constant(f.init, f.ty)) for f in self.folds]

    def _nested(
        self, at: dict[int, Dim], acc: list[Value],
        body: Callable[[dict[int, Dim], list[Value]], list[Value]], depth: int = 0,
    ) -> list[Value]:  # fmt: skip
        """Runs `body` for all indices of the reduced loops but the innermost loop."""
        if depth == len(self.nest):
            return body(at, acc)
        axis = self.nest[depth]
        return self.k.fold(
            0, self.sizes[axis], 1, acc,
            lambda i, inner: self._nested({**at, axis: i}, inner, body, depth + 1),
        )  # fmt: skip

    def _combine(self, acc: Value, fold: Fold, lane: Lane, mask: str | None) -> Value:
        old = Lane(acc.ref, fold.ty)
        new = fold.combine(self.b, old, lane)
        return self.b.value(new if mask is None else self.b.select(Lane(mask, "i1"), new, old))

    def _rows(self) -> KernelSource:
        """The innermost loop is reduced: a vector of partial results, folded at the end."""
        k, b, width = self.k, self.b, self.b.width
        size = self.sizes[-1]
        scalar = VectorLanes(k, 0)
        count = len(self.folds)
        known = [s for i, s in enumerate(self.sizes) if i not in self.outer]
        elements = 1
        for s in known:
            elements *= s if isinstance(s, int) else 1024
        block = max(1, UNIT_ELEMENTS // max(1, elements))
        outer_sizes = [self.sizes[i] for i in self.outer]
        total = k.product(outer_sizes)

        def run(at: dict[int, Dim], acc: list[Value]) -> list[Value]:
            """One run of the innermost loop; `acc` holds UNROLL accumulators per fold."""
            starts = [s.start(at) for s in self.inputs]
            for stream, start in zip(self.inputs, starts, strict=True):
                stream.prepare(start)

            def step(i: Dim, acc: list[Value], lanes_of: int, mask: str | None) -> list[Value]:
                result = list(acc)
                for u in range(lanes_of):
                    at_i = k.add(i, u * width)
                    loaded = [
                        stream.load(start, at_i, mask)
                        for stream, start in zip(self.inputs, starts, strict=True)
                    ]
                    for f, lane in enumerate(self.prologue(b, loaded)):
                        slot = f * UNROLL + u
                        result[slot] = self._combine(result[slot], self.folds[f], lane, mask)
                return result

            many = k.round_down(size, UNROLL * width)
            acc = k.fold(0, many, UNROLL * width, acc, lambda i, a: step(i, a, UNROLL, None))
            full = k.round_down(size, width)
            firsts = [acc[f * UNROLL] for f in range(count)]

            def single(i: Dim, mask: str | None, few: list[Value]) -> list[Value]:
                spread = list(acc)
                for f in range(count):
                    spread[f * UNROLL] = few[f]
                done = step(i, spread, 1, mask)
                return [done[f * UNROLL] for f in range(count)]

            firsts = k.fold(many, full, width, firsts, lambda i, few: single(i, None, few))
            if isinstance(size, int):
                if size % width:
                    firsts = single(full, b.mask(size % width), firsts)
            else:
                before = firsts
                firsts = k.choose(
                    k.compare("slt", full, size),
                    lambda: single(full, b.mask(k.sub(size, full)), before),
                    lambda: before,
                )
            for f in range(count):
                acc[f * UNROLL] = firsts[f]
            return acc

        with k.loop("%begin", "%end") as unit:
            low = k.mul(unit, block)
            with k.loop(low, k.min(k.add(low, block), total)) as index:
                at = dict(zip(self.outer, k.delinearize(index, outer_sizes), strict=True))
                start = [v for v in self._initial() for _ in range(UNROLL)]
                acc = self._nested(at, start, run)
                totals: list[Lane] = []
                for f, fold in enumerate(self.folds):
                    parts = [Lane(v.ref, fold.ty) for v in acc[f * UNROLL : (f + 1) * UNROLL]]
                    while len(parts) > 1:
                        pairs = zip(parts[::2], parts[1::2], strict=True)
                        parts = [fold.combine(b, x, y) for x, y in pairs]
                    totals.append(horizontal(b, parts[0], fold.combine))
                extras = [s.scalar(scalar, s.start(at)) for s in self.late]
                for stream, lane in zip(
                    self.outputs, self.finish(scalar, totals, extras), strict=True
                ):
                    k.store_scalar(_storable(scalar, lane), stream.buffer, stream.start(at))
        flat = tuple(self.loops[i].size for i in self.outer)
        return k.finish(Units(((flat, block),)), template="reduce rows")

    def _columns(self) -> KernelSource:
        """The innermost loop is kept: each element of a vector is a result of its own."""
        k, b, width = self.k, self.b, self.b.width
        size = self.sizes[-1]
        vectors = UNROLL
        if isinstance(size, int):
            vectors = max(1, min(UNROLL, -(-size // width)))
        columns = vectors * width
        outer_sizes = [self.sizes[i] for i in self.outer]
        blocks = k.ceildiv(size, columns)
        last = len(self.loops) - 1

        def block(at: dict[int, Dim], low: Dim, count: Dim | None) -> None:
            masks: list[str | None] = [
                None if count is None else b.mask(k.sub(count, v * width)) for v in range(vectors)
            ]

            def step(here: dict[int, Dim], acc: list[Value]) -> list[Value]:
                starts = [s.start(here) for s in self.inputs]
                for stream, start in zip(self.inputs, starts, strict=True):
                    stream.prepare(start)
                result = list(acc)
                for v in range(vectors):
                    loaded = [
                        stream.load(start, k.add(low, v * width), masks[v])
                        for stream, start in zip(self.inputs, starts, strict=True)
                    ]
                    for f, lane in enumerate(self.prologue(b, loaded)):
                        slot = f * vectors + v
                        result[slot] = self._combine(result[slot], self.folds[f], lane, None)
                return result

            acc = self._nested(at, [v for v in self._initial() for _ in range(vectors)], step)
            for v in range(vectors):
                where = k.add(low, v * width)
                totals = [
                    Lane(acc[f * vectors + v].ref, fold.ty) for f, fold in enumerate(self.folds)
                ]
                extras: list[Lane] = []
                for stream in self.late:
                    start = stream.start(at)
                    stream.prepare(start)
                    extras.append(stream.load(start, where, masks[v]))
                for stream, lane in zip(self.outputs, self.finish(b, totals, extras), strict=True):
                    assert stream.strides[last] == 1, "a result is dense in the innermost loop"
                    to = k.add(stream.start(at), where)
                    b.store(_storable(b, lane), stream.buffer, to, masks[v])

        with k.loop("%begin", "%end") as unit:
            row, column = k.div(unit, blocks), k.rem(unit, blocks)
            at = dict(zip(self.outer, k.delinearize(row, outer_sizes), strict=True))
            low = k.mul(column, columns)
            if isinstance(size, int) and size % columns == 0:
                block(at, low, None)
            elif isinstance(size, int) and size < columns:
                block(at, 0, size)
            else:
                left = k.sub(size, low)
                with k.when(k.compare("sge", left, columns)):
                    block(at, low, None)
                with k.otherwise():
                    block(at, low, left)
        flat = tuple(self.loops[i].size for i in self.outer)
        units = Units(((flat, 1), ((self.loops[-1].size,), columns)))
        return k.finish(units, template="reduce columns")


class _Stream:
    """One operand: its buffer, and how it is read along the innermost loop."""

    def __init__(self, k: KernelEmitter, b: VectorLanes, access: Access) -> None:
        self.k, self.b, self.access = k, b, access
        self.buffer: Buffer = k.buffer(access.dtype)
        self.strides = [k.dim(s) for s in access.strides]
        self._splat: Lane | None = None

    def start(self, at: dict[int, Dim]) -> Dim:
        """The element at these loop indices (0 for loops that are not named)."""
        k = self.k
        return k.add(
            k.dim(self.access.offset), *(k.mul(i, self.strides[axis]) for axis, i in at.items())
        )

    def prepare(self, start: Dim) -> None:
        """Loads what does not change along the innermost loop."""
        self._splat = self.b.load_splat(self.buffer, start) if self.strides[-1] == 0 else None

    def load(self, start: Dim, i: Dim, mask: str | None) -> Lane:
        """A vector from index i of the innermost loop on."""
        b, stride = self.b, self.strides[-1]
        if self._splat is not None:
            value = self._splat
        elif stride == 1:
            value = b.load(self.buffer, self.k.add(start, i), mask)
        else:
            at = self.k.add(start, self.k.mul(i, stride))
            value = b.gather(self.buffer, at, b.iota(stride), mask)
        return b.from_storage(value, self.access.dtype)

    def scalar(self, b: VectorLanes, start: Dim) -> Lane:
        """One element."""
        return b.from_storage(self.k.load_scalar(self.buffer, start), self.access.dtype)


def _storable(b: VectorLanes, lane: Lane) -> Lane:
    return b.op("arith.extui", (lane,), "i8") if lane.ty == "i1" else lane


def horizontal(
    b: VectorLanes, lane: Lane, combine: Callable[[LaneBuilder, Lane, Lane], Lane]
) -> Lane:
    """All elements of a vector combined by a tree, as a scalar."""
    distance = b.width // 2
    while distance:
        order = [(i + distance) % b.width for i in range(b.width)]
        lane = combine(b, lane, b.shuffle(lane, lane, order))
        distance //= 2
    return Lane(
        b.k.let(f"vector.extract {lane.ref}[0] : {lane.ty} from {b.type(lane.ty)}"), lane.ty
    )


class _Row:
    """Passes over one row of n contiguous elements."""

    def __init__(self, k: KernelEmitter, b: VectorLanes, size: Dim) -> None:
        self.k, self.b, self.size = k, b, size
        self.unrolled = isinstance(size, int) and size <= REGISTER_ROW * b.width

    def _fold(
        self, low: Dim, high: Dim, step: int, acc: list[Value],
        body: Callable[[Dim, list[Value]], list[Value]],
    ) -> list[Value]:  # fmt: skip
        if self.unrolled and isinstance(low, int) and isinstance(high, int):
            for i in range(low, high, step):
                acc = body(i, acc)
            return acc
        return self.k.fold(low, high, step, acc, body)

    def fold(
        self, folds: Sequence[Fold],
        body: Callable[[Dim, str | None], Sequence[Lane]],
    ) -> list[Lane]:  # fmt: skip
        """Folds `body(i, mask)` over the row; vectors of totals, the same in every element."""
        k, b, width = self.k, self.b, self.b.width

        def step(i: Dim, acc: list[Value], mask: str | None, slot: int) -> list[Value]:
            result = list(acc)
            for f, lane in enumerate(body(i, mask)):
                old = Lane(acc[f * UNROLL + slot].ref, folds[f].ty)
                new = folds[f].combine(b, old, lane)
                if mask is not None:
                    new = b.select(Lane(mask, "i1"), new, old)
                result[f * UNROLL + slot] = b.value(new)
            return result

        def several(i: Dim, acc: list[Value]) -> list[Value]:
            for u in range(UNROLL):
                acc = step(k.add(i, u * width), acc, None, u)
            return acc

        acc = [b.value(b.constant(f.init, f.ty)) for f in folds for _ in range(UNROLL)]
        many, full = k.round_down(self.size, UNROLL * width), k.round_down(self.size, width)
        acc = self._fold(0, many, UNROLL * width, acc, several)
        acc = self._fold(many, full, width, acc, lambda i, a: step(i, a, None, 0))
        if isinstance(self.size, int):
            if self.size % width:
                acc = step(full, acc, b.mask(self.size % width), 0)
        else:
            before = acc
            acc = k.choose(
                k.compare("slt", full, self.size),
                lambda: step(full, before, b.mask(k.sub(self.size, full)), 0),
                lambda: before,
            )
        totals: list[Lane] = []
        for f, fold in enumerate(folds):
            parts = [Lane(v.ref, fold.ty) for v in acc[f * UNROLL : (f + 1) * UNROLL]]
            while len(parts) > 1:
                parts = [
                    fold.combine(b, x, y) for x, y in zip(parts[::2], parts[1::2], strict=True)
                ]
            totals.append(b.splat(horizontal(b, parts[0], fold.combine)))
        return totals

    def each(self, body: Callable[[Dim, str | None], None]) -> None:
        """Runs `body(i, mask)` over the row."""
        k, b, width = self.k, self.b, self.b.width
        full = k.round_down(self.size, width)
        if self.unrolled and isinstance(full, int):
            for i in range(0, full, width):
                body(i, None)
        elif full != 0:
            with k.loop(0, full, width) as i:
                body(i, None)
        if isinstance(self.size, int):
            if self.size % width:
                body(full, b.mask(self.size % width))
            return
        with k.when(k.compare("slt", full, self.size)):
            body(full, b.mask(k.sub(self.size, full)))


def _larger(b: LaneBuilder, x: Lane, y: Lane) -> Lane:
    """The larger, or x if y is NaN: one instruction on x86.

    Enough for softmax, whose results are all NaN if one element is.
    """
    return b.select(b.cmpf("olt", x, y), y, x)


def _rows_per_unit(size: int | DimRef) -> int:
    return max(1, UNIT_ELEMENTS // max(1, size if isinstance(size, int) else 1024))


def softmax_kernel(
    name: str,
    target: Target,
    rows: int | DimRef | tuple[int | DimRef, ...],
    size: int | DimRef,
    dtype: DType = FLOAT32,
    *,
    log: bool = False,
    num_dims: int = 0,
) -> KernelSource:
    """Softmax, or its logarithm, of each row of a dense [rows, size] tensor.

    Buffers: the input, the output. A row is read three times and stays in cache.
    """
    k = KernelEmitter(name, target, num_dims)
    b = VectorLanes(k, target.lanes(dtype.itemsize))
    source, result = k.buffer(dtype), k.buffer(dtype)
    ty = source.ty
    largest = Fold(ty, -float("inf"), _larger)
    unit_scale = lane_math.EXP_SCALE if ty == "f32" else 1.0
    count, n, block = k.dim(rows), k.dim(size), _rows_per_unit(size)
    with k.loop("%begin", "%end") as unit:
        low = k.mul(unit, block)
        with k.loop(low, k.min(k.add(low, block), count)) as r:
            start, row = k.mul(r, n), _Row(k, b, n)
            kept: dict[Dim, Lane] = {}  # a short row stays in registers between the passes

            def load(i: Dim, mask: str | None, start: Dim = start) -> Lane:
                return b.load(source, k.add(start, i), mask)

            (top,) = row.fold([largest], lambda i, mask: [load(i, mask)])

            def power(i: Dim, mask: str | None, start: Dim = start, top: Lane = top) -> list[Lane]:
                value, _ = lane_math.exp_scaled(b, b.sub(load(i, mask), top))
                if row.unrolled:
                    kept[i] = value
                elif not log:
                    b.store(value, result, k.add(start, i), mask)
                return [value]

            (total,) = row.fold([fold_named("sum", ty)], power)
            if log:
                scale = lane_math.log(b, b.mul(total, b.like(1 / unit_scale, total)))
            else:
                scale = b.div(b.like(1, total), total)

            def last(i: Dim, mask: str | None, start: Dim = start, top: Lane = top) -> None:
                at = k.add(start, i)
                if log:
                    value = b.sub(b.sub(load(i, mask), top), scale)
                else:
                    value = b.mul(kept.get(i) or b.load(result, at, mask), scale)
                b.store(value, result, at, mask)

            row.each(last)
    sizes = rows if isinstance(rows, tuple) else (rows,)
    return k.finish(Units(((sizes, block),)), template="softmax rows")


_ROWS_TOGETHER = 2
"""Rows of a wide layer norm that share their loads of weight and bias."""


def layer_norm_kernel(
    name: str,
    target: Target,
    rows: int | DimRef | tuple[int | DimRef, ...],
    size: int | DimRef,
    dtype: DType = FLOAT32,
    *,
    eps: float = 1e-5,
    affine: bool = True,
    statistics: bool = False,
    num_dims: int = 0,
) -> KernelSource:
    """(x - mean) / sqrt(variance + eps) * weight + bias for each row of [rows, size].

    Buffers: the input; weight and bias if `affine`; the output; mean and 1 / sqrt(variance +
    eps) of each row if `statistics`. The variance is the mean of squared distances from the
    mean, computed in a second pass over the row, which is then in cache.
    """
    k = KernelEmitter(name, target, num_dims)
    b = VectorLanes(k, target.lanes(dtype.itemsize))
    source = k.buffer(dtype)
    weight, bias = (k.buffer(dtype), k.buffer(dtype)) if affine else (None, None)
    result = k.buffer(dtype)
    saved = [k.buffer(dtype), k.buffer(dtype)] if statistics else []
    ty = source.ty
    count, n, block = k.dim(rows), k.dim(size), _rows_per_unit(size)
    total_fold = fold_named("sum", ty)
    if isinstance(n, int):
        length = b.constant(n, ty)
    else:
        wide = k.let(f"arith.index_cast {n} : index to i64")
        length = b.splat(Lane(k.let(f"arith.sitofp {wide} : i64 to {ty}"), ty))
    row = _Row(k, b, n)

    def scaled(r: Dim) -> tuple[Dim, Lane, Lane]:
        """Where a row begins, its mean, and what its distances from the mean are multiplied by."""
        start = k.mul(r, n)
        (total,) = row.fold([total_fold], lambda i, mask: [b.load(source, k.add(start, i), mask)])
        mean = b.div(total, length)

        def square(i: Dim, mask: str | None) -> list[Lane]:
            distance = b.sub(b.load(source, k.add(start, i), mask), mean)
            return [b.mul(distance, distance)]

        (squares,) = row.fold([total_fold], square)
        variance = b.div(squares, length)
        deviation = b.math("sqrt", b.add(variance, b.like(eps, variance)))
        return start, mean, b.div(b.like(1, deviation), deviation)

    def finish(numbers: Sequence[Dim]) -> None:
        """These rows, of which each weight and bias is loaded once."""
        known = [scaled(r) for r in numbers]

        def last(i: Dim, mask: str | None) -> None:
            affinity = weight and bias and (b.load(weight, i, mask), b.load(bias, i, mask))
            for start, mean, scale in known:
                value = b.mul(b.sub(b.load(source, k.add(start, i), mask), mean), scale)
                if affinity is not None:
                    value = b.fma(value, *affinity)
                b.store(value, result, k.add(start, i), mask)

        row.each(last)
        for r, (_, mean, scale) in zip(numbers, known, strict=True):
            for lane, buffer in zip((mean, scale), saved, strict=False):
                text = f"vector.extract {lane.ref}[0] : {ty} from {b.type(ty)}"
                k.store_scalar(Lane(k.let(text), ty), buffer, r)

    # Weight, bias and a row in and out do not stay in the first-level cache together.
    crowded = affine and isinstance(n, int) and 4 * n * dtype.itemsize > target.l1_bytes
    together = _ROWS_TOGETHER if crowded else 1
    with k.loop("%begin", "%end") as unit:
        low = k.mul(unit, block)
        high = k.min(k.add(low, block), count)
        even = k.add(low, k.round_down(k.sub(high, low), together))
        with k.loop(low, even, together) as r:
            finish([k.add(r, i) for i in range(together)])
        if together != 1:
            with k.loop(even, high) as r:
                finish([r])
    sizes = rows if isinstance(rows, tuple) else (rows,)
    return k.finish(Units(((sizes, block),)), template="layer norm rows")
