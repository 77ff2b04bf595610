"""Templates of ops that move data: transpose, slice, pad, concat, take and kin.

The result is seen as rows of contiguous columns, and the units are blocks of rows and of
columns. A row is put together from runs: elements copied from somewhere, at any step, or a
constant. Axes through which operand and result step alike are one axis. A transpose that
moves the last axis copies square blocks through registers instead.

Elements are moved as integers of their size, so that the bits of a NaN stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Size, VectorLanes
from mgec.compiler.kernels.operand import ONE, NotApplicable, Product, product
from mgec.compiler.kernels.pack import transpose
from mgec.compiler.kernels.source import DimRef, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spec import BOOL, DType

Sizes = Sequence[int | DimRef]


@dataclass(frozen=True)
class MovementBlocks:
    """How the work is cut.

    Attributes:
        elements: about how many elements a unit has.
        rows: rows per unit where the length of a row is not known.
        tile_rows: rows of the result per unit of a transpose, in vectors.
        tile_columns: columns of the result per unit of a transpose; whole vectors.
    """

    elements: int = 16384
    rows: int = 8
    tile_rows: int = 4
    tile_columns: int = 1024


@dataclass(frozen=True)
class Call:
    """An op to make a kernel for.

    Attributes:
        op: its name, without the dialect.
        inputs: sizes of the operands.
        output: sizes of the result.
        dtypes: dtypes of the operands, then of the result.
        attrs: attributes; run-time ones are `DimRef`s.
        num_dims: entries of the dims table.
    """

    op: str
    inputs: tuple[tuple[int | DimRef, ...], ...]
    output: tuple[int | DimRef, ...]
    dtypes: tuple[DType, ...]
    attrs: Mapping[str, Any]
    num_dims: int = 0


def movement_kernel(
    name: str, target: Target, call: Call, *, blocks: MovementBlocks | None = None
) -> KernelSource:
    """The kernel of an op that moves data; its buffers are the operands, then the result.

    Raises:
        NotApplicable: if there is no template for the op.
    """
    if call.op not in _OPS:
        raise NotApplicable(f"no movement: {call.op}")
    return _OPS[call.op](_Movement(name, target, call, blocks or MovementBlocks()))


Row = Callable[[Sequence[Dim], Dim, Dim, Dim], None]
"""`(coordinates, number of the row, low, high)`: writes columns low..high of a row."""


class _Movement:
    """The state of one emission."""

    def __init__(self, name: str, target: Target, call: Call, blocks: MovementBlocks) -> None:
        self.call, self.blocks, self.target = call, blocks, target
        self.k = KernelEmitter(name, target, call.num_dims)
        self.bytes = call.dtypes[-1].itemsize
        self.ty = f"i{8 * self.bytes}"
        self.wide = VectorLanes(self.k, target.lanes(self.bytes))
        self.b = VectorLanes(self.k, target.lanes(max(4, self.bytes)))
        # Masked vectors of small elements would be taken apart into branches.
        self.masks = target.vector_bytes >= 64 or (target.vector_bytes >= 32 and self.bytes >= 4)
        self.buffers = [
            self.k.buffer(f"i{8 * dtype.itemsize}")
            for dtype in (*call.dtypes[:-1], call.dtypes[-1])
        ]
        self.result = self.buffers[-1]

    # -- rows and runs ----------------------------------------------------------------------

    def rows(self, outer: Sequence[Product], columns: Product, row: Row) -> KernelSource:
        """A kernel of rows x columns, given what writes a part of a row."""
        k, blocks = self.k, self.blocks
        per_unit, width = blocks.rows, blocks.elements
        if columns.is_static:
            width = max(1, min(blocks.elements, columns.known))
            per_unit = max(1, blocks.elements // width)
        sizes = [o.dim(k) for o in outer]
        count, length = product(outer).dim(k), columns.dim(k)
        column_blocks = k.ceildiv(length, width)
        with k.loop("%begin", "%end") as unit:
            row_block, column_block = k.div(unit, column_blocks), k.rem(unit, column_blocks)
            first = k.mul(row_block, per_unit)
            last = k.min(k.add(first, per_unit), count)
            low = k.mul(column_block, width)
            high = k.min(k.add(low, width), length)
            if column_blocks == 1:
                low, high = 0, length
            with k.loop(first, last) as index:
                row(k.delinearize(index, sizes), index, low, high)
        units = Units(((product(outer).factors, per_unit), (columns.factors, width)))
        return k.finish(units, template="movement")

    def run(
        self,
        b: VectorLanes,
        low: Dim,
        high: Dim,
        one: Callable[[VectorLanes, Dim, str | None], None],
    ) -> None:
        """Runs `one(lanes, i, mask)` for i from low to high, a vector at a time."""
        k, width = self.k, b.width
        if isinstance(low, int) and isinstance(high, int) and low >= high:
            return
        main = k.add(low, k.round_down(k.max(k.sub(high, low), 0), width))
        if main != low:
            with k.loop(low, main, width) as i:
                one(b, i, None)
        if isinstance(main, int) and isinstance(high, int) and main >= high:
            return
        if not self.masks:
            scalar = VectorLanes(k, 1)
            with k.loop(main, high) as i:
                one(scalar, i, None)
        elif isinstance(main, int) and isinstance(high, int):
            one(b, main, b.mask(high - main))
        else:
            with k.when(k.compare("slt", main, high)):
                one(b, main, b.mask(k.sub(high, main)))

    def copy(self, source: Buffer, start: Dim, step: Dim, to: Dim, low: Dim, high: Dim) -> None:
        """result[to + i] = source[start + i * step] for low <= i < high."""
        k = self.k

        def plain(b: VectorLanes, i: Dim, mask: str | None) -> None:
            b.store(b.load(source, k.add(start, i), mask), self.result, k.add(to, i), mask)

        def backward(b: VectorLanes, i: Dim, mask: str | None) -> None:
            if mask is not None:
                strided(b, i, mask)
                return
            at = k.sub(start, k.add(i, b.width - 1))
            value = b.load(source, at)
            value = b.shuffle(value, value, range(b.width - 1, -1, -1))
            b.store(value, self.result, k.add(to, i))

        def strided(b: VectorLanes, i: Dim, mask: str | None) -> None:
            at = k.add(start, k.mul(i, step))
            b.store(b.gather(source, at, b.iota(step), mask), self.result, k.add(to, i), mask)

        def splat(b: VectorLanes, i: Dim, mask: str | None) -> None:
            b.store(b.load_splat(source, start), self.result, k.add(to, i), mask)

        if isinstance(step, str):
            with k.when(k.compare("eq", step, 1)):
                self.run(self.wide, low, high, plain)
            with k.otherwise():
                self.run(self.b, low, high, strided)
            return
        ways = {1: (self.wide, plain), -1: (self.b, backward), 0: (self.wide, splat)}
        lanes, way = ways.get(step, (self.b, strided))
        self.run(lanes, low, high, way)

    def fill(self, bits: int, to: Dim, low: Dim, high: Dim) -> None:
        """result[to + i] = a constant for low <= i < high."""

        def one(b: VectorLanes, i: Dim, mask: str | None) -> None:
            b.store(b.constant(bits, self.ty), self.result, self.k.add(to, i), mask)

        self.run(self.wide, low, high, one)

    def part(self, low: Dim, high: Dim, begin: Dim, end: Dim) -> tuple[Dim, Dim]:
        """The part of begin..end within low..high."""
        return self.k.max(low, begin), self.k.min(high, end)

    # -- one strided operand ----------------------------------------------------------------

    def strided(
        self, sizes: Sequence[Product], strides: Sequence[Product], base: Dim
    ) -> KernelSource:
        """result[i, j, ...] = input[base + i * strides[0] + j * strides[1] + ...]."""
        k = self.k
        merged: list[tuple[Product, Product]] = []
        for size, stride in zip(sizes, strides, strict=True):
            if size == ONE:
                continue
            if merged and merged[-1][1] == stride.times(size):
                merged[-1] = merged[-1][0].times(size), stride
            else:
                merged.append((size, stride))
        if not merged:
            merged = [(ONE, ONE)]
        columns, step = merged[-1]
        outer = merged[:-1]
        length, moved = columns.dim(k), step.dim(k)
        steps = [stride.dim(k) for _, stride in outer]

        def row(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
            start = k.add(base, k.dot(at, steps))
            self.copy(self.buffers[0], start, moved, k.mul(index, length), low, high)

        return self.rows([size for size, _ in outer], columns, row)

    def input_strides(self, which: int = 0) -> list[Product]:
        """Strides of a dense operand."""
        return _dense(self.call.inputs[which])


def _dense(sizes: Sizes) -> list[Product]:
    strides, step = list[Product](), ONE
    for size in reversed(sizes):
        strides.insert(0, step)
        step = step.times(Product.of(size))
    return strides


def _slice(m: _Movement) -> KernelSource:
    k, attrs = m.k, m.call.attrs
    dense = m.input_strides()
    steps: Sequence[Size] = attrs["steps"]
    base = k.add(
        *(
            k.mul(k.dim(start), stride.dim(k))
            for start, stride in zip(attrs["starts"], dense, strict=True)
        )
    )
    strides = [Product.of(step).times(s) for step, s in zip(steps, dense, strict=True)]
    return m.strided([Product.of(s) for s in m.call.output], strides, base)


def _reverse(m: _Movement) -> KernelSource:
    k, dense = m.k, m.input_strides()
    axes: tuple[int, ...] = m.call.attrs["axes"]
    sizes = [Product.of(s) for s in m.call.inputs[0]]
    strides = [Product(-1).times(s) if i in axes else s for i, s in enumerate(dense)]
    base = k.add(*(k.mul(k.sub(sizes[i].dim(k), 1), dense[i].dim(k)) for i in axes))
    return m.strided(sizes, strides, base)


# -- transpose ---------------------------------------------------------------------------


def _transpose(m: _Movement) -> KernelSource:
    sizes = [Product.of(s) for s in m.call.inputs[0]]
    dense = m.input_strides()
    axes: list[list[int]] = []  # runs of axes that stay neighbours
    for axis in m.call.attrs["perm"]:
        if sizes[axis] == ONE:
            continue
        if axes and axes[-1][-1] + 1 == axis:
            axes[-1].append(axis)
        else:
            axes.append([axis])
    merged = [product([sizes[a] for a in run]) for run in axes]
    strides = [dense[run[-1]] for run in axes]
    if not axes or strides[-1] == ONE:
        return m.strided(merged, strides, 0)
    return _blocked(m, merged, strides)


def _blocked(m: _Movement, sizes: Sequence[Product], strides: Sequence[Product]) -> KernelSource:
    """Square blocks: the operand is contiguous along `across`, the result along its last axis."""
    k, b = m.k, m.b
    width = b.width
    across = next((i for i, s in enumerate(strides) if s == ONE), None)
    if across is None:
        raise NotApplicable("no axis of the operand is contiguous")
    last = len(sizes) - 1
    outer = [i for i in range(last) if i != across]
    to = list[Product]()
    step = ONE
    for size in reversed(sizes):
        to.insert(0, step)
        step = step.times(size)
    n_rows, n_columns = sizes[across].dim(k), sizes[last].dim(k)
    per_row, per_column = to[across].dim(k), strides[last].dim(k)
    tall, long = m.blocks.tile_rows * width, m.blocks.tile_columns
    row_blocks, column_blocks = k.ceildiv(n_rows, tall), k.ceildiv(n_columns, long)

    def block(
        start: Dim, target: Dim, row: Dim, column: Dim, rows: Dim | None, columns: Dim | None
    ) -> None:
        """`rows` x `columns` of the result (None: a whole vector) from (row, column) on."""
        read = None if rows is None else b.mask(rows)
        written = None if columns is None else b.mask(columns)
        vectors: list[Lane] = []
        for i in range(width):
            at = k.add(column, i)
            if columns is not None:
                at = k.min(at, k.sub(n_columns, 1))
            at = k.add(start, row, k.mul(at, per_column))
            vectors.append(b.load(m.buffers[0], at, read))
        for i, value in enumerate(transpose(b, vectors)):
            at = k.add(target, column, k.mul(k.add(row, i), per_row))
            if isinstance(rows, int) and i >= rows:
                break
            if rows is None or isinstance(rows, int):
                b.store(value, m.result, at, written)
                continue
            with k.when(k.compare("slt", i, rows)):
                b.store(value, m.result, at, written)

    with k.loop("%begin", "%end") as unit:
        rest, column_block = k.div(unit, column_blocks), k.rem(unit, column_blocks)
        rest, row_block = k.div(rest, row_blocks), k.rem(rest, row_blocks)
        at = k.delinearize(rest, [sizes[i].dim(k) for i in outer])
        start = k.dot(at, [strides[i].dim(k) for i in outer])
        target = k.dot(at, [to[i].dim(k) for i in outer])
        low_row, low_column = k.mul(row_block, tall), k.mul(column_block, long)
        high_row = k.min(k.add(low_row, tall), n_rows)
        high_column = k.min(k.add(low_column, long), n_columns)

        def pieces(low: Dim, high: Dim, size: Dim, each: Callable[[Dim, Dim | None], None]) -> None:
            """each(at, None) for whole vectors, then each(at, rest)."""
            main = k.add(low, k.round_down(k.sub(high, low), width))
            if not isinstance(size, int) or size >= width:
                with k.loop(low, main, width) as i:
                    each(i, None)
            if isinstance(size, int):
                left = size % width
                if left and isinstance(main, int) and isinstance(high, int):
                    if main < high:
                        each(main, left)
                elif left:
                    with k.when(k.compare("slt", main, high)):
                        each(main, left)
                return
            with k.when(k.compare("slt", main, high)):
                each(main, k.sub(high, main))

        def line(row: Dim, rows: Dim | None) -> None:
            pieces(
                low_column, high_column, n_columns,
                lambda column, columns: block(start, target, row, column, rows, columns),
            )  # fmt: skip

        pieces(low_row, high_row, n_rows, line)
    units = Units((
        (product([sizes[i] for i in outer]).factors, 1),
        (sizes[across].factors, tall),
        (sizes[last].factors, long),
    ))  # fmt: skip
    return k.finish(units, template="transpose")


# -- several runs per row ----------------------------------------------------------------


def _concat(m: _Movement) -> KernelSource:
    k, call = m.k, m.call
    axis: int = call.attrs["axis"]
    inner = product([Product.of(s) for s in call.output[axis + 1 :]])
    outer = [Product.of(s) for s in call.output[:axis]]
    columns = Product.of(call.output[axis]).times(inner)
    lengths = [Product.of(sizes[axis]).times(inner).dim(k) for sizes in call.inputs]
    total = columns.dim(k)

    def row(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
        begin: Dim = 0
        for source, length in zip(m.buffers, lengths, strict=False):
            end = k.add(begin, length)
            start = k.sub(k.mul(index, length), begin)
            m.copy(source, start, 1, k.mul(index, total), *m.part(low, high, begin, end))
            begin = end

    return m.rows(outer, columns, row)


def _pad(m: _Movement) -> KernelSource:
    attrs, call = m.call.attrs, m.call
    lows, highs = attrs["low"], attrs["high"]
    padded = [i for i in range(len(lows)) if (lows[i], highs[i]) != (0, 0)]
    if attrs["mode"] == "constant":
        ones = (1,) * len(lows)
        return _placed(m, padded, lows, ones, _bits(attrs["value"], call.dtypes[-1]))
    return _mirrored(m, padded, lows, attrs["mode"] == "reflect")


def _unslice(m: _Movement) -> KernelSource:
    attrs, call = m.call.attrs, m.call
    whole = [
        (start, step, size) == (0, 1, out)
        for start, step, size, out in zip(
            attrs["starts"], attrs["steps"], call.inputs[0], call.output, strict=True
        )
    ]
    moved = [i for i, same in enumerate(whole) if not same]
    return _placed(m, moved, attrs["starts"], attrs["steps"], 0)


def _bits(value: float, dtype: DType) -> int:
    array: Any = np.array(value).astype(bool if dtype == BOOL else dtype)
    return int(array.reshape(1).view(f"u{dtype.itemsize}")[0])


def _placed(
    m: _Movement, moved: Sequence[int], starts: Sequence[Size], steps: Sequence[Size], bits: int
) -> KernelSource:
    """A constant, with the input at places start + i * step of the axes `moved`."""
    k, call = m.k, m.call
    inputs, output = call.inputs[0], call.output
    dense = [s.dim(k) for s in _dense(inputs)]
    last = max(moved, default=0)
    if not output:
        return m.strided([], [], 0)
    inner = product([Product.of(s) for s in output[last + 1 :]])
    columns = Product.of(output[last]).times(inner)
    width, length = inner.dim(k), columns.dim(k)
    first: list[Dim] = []
    spread: list[Dim] = []
    mirrored: list[str | None] = []  # i1: whether the step is negative
    for start, step, size in zip(starts, steps, inputs, strict=True):
        begin, by, count = k.dim(start), k.dim(step), k.dim(size)
        end = k.add(begin, k.mul(k.sub(count, 1), by))
        if isinstance(by, int):
            first.append(begin if by > 0 else end)
            mirrored.append(None if by > 0 else "")
            spread.append(abs(by))
            continue
        negative = k.compare("slt", by, 0)
        first.append(k.select(negative, end, begin))
        spread.append(k.select(negative, k.sub(0, by), by))
        mirrored.append(negative)

    def place(axis: int, index: Dim) -> tuple[Dim, str]:
        """The place in the input that belongs to one of the result, and whether there is one."""
        count, by = k.dim(inputs[axis]), spread[axis]
        distance = k.sub(index, first[axis])
        valid = k.compare("ult", distance, k.mul(count, by))
        if by != 1:
            valid = k.both(valid, k.compare("eq", k.rem(distance, by), 0))
            distance = k.div(distance, by)
        flipped = k.sub(k.sub(count, 1), distance)
        if mirrored[axis] == "":
            distance = flipped
        elif mirrored[axis] is not None:
            distance = k.select(str(mirrored[axis]), flipped, distance)
        return k.select(valid, distance, 0), valid

    by = steps[last]
    source = m.buffers[0]

    def row(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
        start: Dim = 0
        exists: str | None = None
        for axis in range(last):
            if axis in moved:
                where, valid = place(axis, at[axis])
                exists = valid if exists is None else k.both(exists, valid)
            else:
                where = at[axis]
            start = k.add(start, k.mul(where, dense[axis]))
        to = k.mul(index, length)

        def one_run() -> None:
            """The input is one run of the row."""
            begin = k.mul(k.dim(starts[last]), width)
            end = k.add(begin, k.mul(k.dim(inputs[last]), width))
            stop = end if exists is None else k.select(exists, end, begin)
            m.fill(bits, to, *m.part(low, high, 0, begin))
            m.copy(source, k.sub(start, begin), 1, to, *m.part(low, high, begin, stop))
            m.fill(bits, to, *m.part(low, high, stop, length))

        def runs() -> None:
            """Each index of the last moved axis is a run (or an element) of its own."""
            first_place = k.div(low, width)
            with k.loop(first_place, k.ceildiv(high, width)) as i:
                where, valid = place(last, i)
                if exists is not None:
                    valid = k.both(valid, exists)
                begin = k.mul(i, width)
                part = m.part(low, high, begin, k.add(begin, width))
                origin = k.sub(k.add(start, k.mul(where, dense[last])), begin)
                with k.when(valid):
                    m.copy(source, origin, 1, to, *part)
                with k.otherwise():
                    m.fill(bits, to, *part)

        if by == 1:
            one_run()
        elif isinstance(by, int):
            runs()
        else:
            with k.when(k.compare("eq", k.dim(by), 1)):
                one_run()
            with k.otherwise():
                runs()

    return m.rows([Product.of(s) for s in output[:last]], columns, row)


def _mirrored(
    m: _Movement, padded: Sequence[int], lows: Sequence[Size], reflect: bool
) -> KernelSource:
    """Padding with elements of the input."""
    k, call = m.k, m.call
    inputs, output = call.inputs[0], call.output
    dense = [s.dim(k) for s in _dense(inputs)]
    rank = len(output)
    if not rank:
        return m.strided([], [], 0)
    last = max(padded, default=0)
    # Runs within a row only if single elements move; else each run is a row.
    in_row = last == rank - 1
    split = last if in_row else last + 1
    columns = product([Product.of(s) for s in output[split:]])
    length = columns.dim(k)
    source = m.buffers[0]

    def place(axis: int, index: Dim) -> Dim:
        if axis not in padded:
            return index
        at, end = k.sub(index, k.dim(lows[axis])), k.sub(k.dim(inputs[axis]), 1)
        if not reflect:
            return k.max(k.min(at, end), 0)
        from_last = k.sub(end, k.max(at, k.sub(0, at)))
        return k.sub(end, k.max(from_last, k.sub(0, from_last)))

    def row(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
        start = k.add(*(k.mul(place(a, at[a]), dense[a]) for a in range(split)))
        to = k.mul(index, length)
        if not in_row:
            m.copy(source, start, 1, to, low, high)
            return
        begin = k.dim(lows[last])
        end = k.add(begin, k.dim(inputs[last]))
        m.copy(source, k.sub(start, begin), 1, to, *m.part(low, high, begin, end))
        for edge in ((0, begin), (end, length)):
            with k.loop(*m.part(low, high, *edge)) as i:
                value = k.load_scalar(source, k.add(start, place(last, i)))
                k.store_scalar(value, m.result, k.add(to, i))

    return m.rows([Product.of(s) for s in output[:split]], columns, row)


# -- indices -----------------------------------------------------------------------------


def _wide(b: VectorLanes, index: Lane, dtype: DType) -> Lane:
    """An index as i64."""
    if index.ty == "i64":
        return index
    return b.op("arith.extsi" if dtype.kind == "i" else "arith.extui", (index,), "i64")


def _position(m: _Movement, b: VectorLanes, index: Lane, dtype: DType, size: Dim) -> Lane:
    """An index (i64) from the end if negative, and moved into range."""
    k = m.k
    if isinstance(size, int):
        count = b.constant(size, "i64")
        last = b.constant(max(size - 1, 0), "i64")
    else:
        count = b.splat(Lane(k.let(f"arith.index_cast {size} : index to i64"), "i64"))
        last = b.sub(count, b.constant(1, "i64"))
    zero = b.constant(0, "i64")
    wide = _wide(b, index, dtype)
    if dtype.kind == "i":
        wide = b.select(b.cmpi("slt", wide, zero), b.add(wide, count), wide)
        return b.op("arith.maxsi", (b.op("arith.minsi", (wide, last), "i64"), zero), "i64")
    return b.op("arith.minui", (wide, last), "i64")


def _take(m: _Movement) -> KernelSource:
    k, call = m.k, m.call
    axis: int = call.attrs["axis"]
    (inp, indices), dtype = call.inputs, call.dtypes[1]
    table, places = m.buffers[0], m.buffers[1]
    before = [Product.of(s) for s in inp[:axis]]
    inner = product([Product.of(s) for s in inp[axis + 1 :]])
    count = product([Product.of(s) for s in indices])
    size = k.dim(inp[axis])
    per_slice = inner.dim(k)
    per_outer = k.mul(size, per_slice)
    if inner == ONE:

        def elements(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
            start = k.mul(index, per_outer)
            to = k.mul(index, count.dim(k))

            def one(b: VectorLanes, i: Dim, mask: str | None) -> None:
                position = _position(m, b, b.load(places, i, mask), dtype, size)
                value = b.gather(table, start, position.ref, mask)
                b.store(value, m.result, k.add(to, i), mask)

            m.run(m.b, low, high, one)

        return m.rows([product(before)], count, elements)
    scalar = VectorLanes(k, 0)

    def slices(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
        read = k.load_scalar(places, at[1])
        position = _position(m, scalar, read, dtype, size)
        where = k.let(f"arith.index_cast {position.ref} : i64 to index")
        start = k.add(k.mul(at[0], per_outer), k.mul(where, per_slice))
        m.copy(table, start, 1, k.mul(index, per_slice), low, high)

    return m.rows([product(before), count], inner, slices)


def _one_hot(m: _Movement) -> KernelSource:
    k, call = m.k, m.call
    (indices,), dtype = call.inputs, call.dtypes[0]
    classes = Product.of(call.output[-1])
    length = classes.dim(k)
    one, zero = (_bits(v, call.dtypes[-1]) for v in (1, 0))
    scalar = VectorLanes(k, 0)

    def row(at: Sequence[Dim], index: Dim, low: Dim, high: Dim) -> None:
        wide = _wide(scalar, k.load_scalar(m.buffers[0], index), dtype)
        to = k.mul(index, length)

        def step(b: VectorLanes, i: Dim, mask: str | None) -> None:
            # Lanes compare 32 bits with the distance from i, which is -1 if that is too far.
            here = k.let(f"arith.index_cast {k.index(i)} : index to i64")
            away = scalar.sub(wide, Lane(here, "i64"))
            near = scalar.cmpi("ult", away, scalar.constant(b.width, "i64"))
            away = scalar.select(near, away, scalar.constant(-1, "i64"))
            lane = b.splat(scalar.op("arith.trunci", (away,), "i32"))
            hot = b.cmpi("eq", lane, Lane(b.iota(1, "i32"), "i32"))
            value = b.select(hot, b.constant(one, m.ty), b.constant(zero, m.ty))
            b.store(value, m.result, k.add(to, i), mask)

        m.run(m.b, low, high, step)

    return m.rows([product([Product.of(s) for s in indices])], classes, row)


_OPS: dict[str, Callable[[_Movement], KernelSource]] = {
    "slice": _slice,
    "reverse": _reverse,
    "transpose": _transpose,
    "concat": _concat,
    "pad": _pad,
    "unslice": _unslice,
    "take": _take,
    "one_hot": _one_hot,
}
