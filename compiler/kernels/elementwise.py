"""Template of elementwise kernels: any body of lane ops over any broadcast operands.

The innermost loop is a vector; the outer loops are flattened and cut into units. An operand
says how far one step of each loop moves it; 1 in the innermost loop loads a vector, 0 a
scalar that is broadcast, anything else gathers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Size, VectorLanes
from mgec.compiler.kernels.source import DimRef, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spec import DType

Body = Callable[[VectorLanes, Sequence[Lane]], Sequence[Lane]]
"""Output lanes from input lanes, both in lane types (bool is i1)."""


@dataclass(frozen=True)
class Access:
    """How an elementwise kernel reads or writes one buffer.

    Attributes:
        dtype: dtype of an element.
        strides: for each loop, how many elements one step moves; 0 where it broadcasts.
        offset: elements before the first.
    """

    dtype: DType
    strides: tuple[Size, ...]
    offset: Size = 0


@dataclass(frozen=True)
class ElementwiseBlocks:
    """How much of an elementwise kernel is one unit of work.

    Attributes:
        elements: about how many elements a unit has; 16 Ki take some microseconds.
        unroll: vectors per iteration of the innermost loop.
    """

    elements: int = 16384
    unroll: int = 1

    def split(self, sizes: Sequence[int | DimRef]) -> tuple[int, int]:
        """How many rows and how many columns a unit has."""
        inner = sizes[-1]
        columns = self.elements
        if isinstance(inner, int):
            columns = min(self.elements, max(1, inner))
        rows = max(1, self.elements // columns) if isinstance(inner, int) else 1
        return rows, columns


def dense_strides(sizes: Sequence[int | DimRef], present: Sequence[bool]) -> tuple[Size, ...]:
    """Strides of a dense operand that has only some of the loops as axes."""
    strides: list[Size] = []
    step: tuple[int | DimRef, ...] = ()
    for size, here in zip(reversed(sizes), reversed(present), strict=True):
        strides.append(_simplest(step) if here else 0)
        if here:
            step = (size, *step)
    return tuple(reversed(strides))


def _simplest(product: tuple[int | DimRef, ...]) -> Size:
    known = 1
    refs: list[DimRef] = []
    for size in product:
        if isinstance(size, int):
            known *= size
        else:
            refs.append(size)
    if not refs:
        return known
    if known == 1:
        return refs[0] if len(refs) == 1 else tuple(refs)
    return (known, *refs)


def elementwise_kernel(
    name: str,
    target: Target,
    sizes: Sequence[int | DimRef],
    inputs: Sequence[Access],
    outputs: Sequence[Access],
    body: Body,
    *,
    num_dims: int = 0,
    blocks: ElementwiseBlocks | None = None,
) -> KernelSource:
    """outputs[i...] = body(inputs[i...]) over loops of the given sizes.

    Args:
        name: symbol of the kernel.
        target: what to compile for.
        sizes: sizes of the loops, outermost first.
        inputs: how each input is read.
        outputs: how each output is written; strides must not be 0 where the loop is not 1.
        body: what one element is.
        num_dims: how many entries the dims table has.
        blocks: how the work is cut; by default from the sizes.

    Returns:
        A kernel whose buffers are the inputs, then the outputs.
    """
    k = KernelEmitter(name, target, num_dims)
    if not sizes:
        sizes = (1,)
        inputs = [Access(a.dtype, (0,), a.offset) for a in inputs]
        outputs = [Access(a.dtype, (1,), a.offset) for a in outputs]
    blocks = blocks or ElementwiseBlocks()
    rows_per_unit, columns_per_unit = blocks.split(sizes)
    b = VectorLanes(k, target.lanes(_register_bytes([*inputs, *outputs])))
    accesses = [*inputs, *outputs]
    buffers = [k.buffer(a.dtype) for a in accesses]
    strides = [[k.dim(s) for s in a.strides] for a in accesses]
    bases = [k.dim(a.offset) for a in accesses]
    outer = [k.dim(s) for s in sizes[:-1]]
    inner = k.dim(sizes[-1])
    rows = k.product(outer)
    column_blocks = k.ceildiv(inner, columns_per_unit)
    with k.loop("%begin", "%end") as unit:
        row_block, column_block = k.div(unit, column_blocks), k.rem(unit, column_blocks)
        row_low = k.mul(row_block, rows_per_unit)
        row_high = k.min(k.add(row_low, rows_per_unit), rows)
        low = k.mul(column_block, columns_per_unit)
        high = k.min(k.add(low, columns_per_unit), inner)
        if column_blocks == 1:
            low, high = 0, inner
        with k.loop(row_low, row_high) as row:
            coordinates = k.delinearize(row, outer)
            starts = [
                k.add(base, k.dot(coordinates, s[:-1]))
                for base, s in zip(bases, strides, strict=True)
            ]
            _row(k, b, inputs, buffers, strides, starts, low, high, body, blocks.unroll)
    terms: list[tuple[tuple[int | DimRef, ...], int]] = [(tuple(sizes[:-1]), rows_per_unit)]
    terms.append(((sizes[-1],), columns_per_unit))
    return k.finish(Units(tuple(terms)), template="elementwise")


def _register_bytes(accesses: Sequence[Access]) -> int:
    """The element size that decides the vector length: 4, or 8 if nothing is narrower."""
    sizes = {a.dtype.itemsize for a in accesses}
    return 8 if sizes == {8} else 4


def _row(
    k: KernelEmitter,
    b: VectorLanes,
    inputs: Sequence[Access],
    buffers: Sequence[Buffer],
    strides: Sequence[Sequence[Dim]],
    starts: Sequence[Dim],
    low: Dim,
    high: Dim,
    body: Body,
    unroll: int,
) -> None:
    """Elements low..high of one row."""
    count = len(inputs)
    splats = [
        b.load_splat(buffers[i], starts[i]) if strides[i][-1] == 0 else None for i in range(count)
    ]

    def step(at: Dim, mask: str | None) -> None:
        lanes: list[Lane] = []
        for i in range(count):
            loaded = splats[i]
            if loaded is None:
                stride = strides[i][-1]
                where = k.add(starts[i], k.mul(at, stride))
                if stride == 1:
                    loaded = b.load(buffers[i], where, mask)
                else:
                    loaded = b.gather(buffers[i], where, b.iota(stride), mask)
            lanes.append(b.from_storage(loaded, inputs[i].dtype))
        for i, lane in enumerate(body(b, lanes), start=count):
            stride = strides[i][-1]
            ty = buffers[i].ty
            stored = b.op("arith.extui", (lane,), ty) if lane.ty == "i1" else lane
            assert stored.ty == ty, f"output {i - count} is {stored.ty}, expected {ty}"
            where = k.add(starts[i], k.mul(at, stride))
            if stride == 1:
                b.store(stored, buffers[i], where, mask)
            else:
                b.scatter(stored, buffers[i], where, b.iota(stride), mask)

    width = b.width
    main = k.add(low, k.round_down(k.sub(high, low), width))
    wide = unroll * width
    if unroll > 1:
        much = k.add(low, k.round_down(k.sub(high, low), wide))
        if much != low:
            with k.loop(low, much, wide) as i:
                for u in range(unroll):
                    step(k.add(i, u * width), None)
        low = much
    if main != low:
        with k.loop(low, main, width) as i:
            step(i, None)
    if isinstance(main, int) and isinstance(high, int):
        if main < high:
            step(main, b.mask(high - main))
        return
    with k.when(k.compare("slt", main, high)):
        step(main, b.mask(k.sub(high, main)))
