"""What happens to the sums of a contraction while they are still in registers.

A template computes vectors of sums, each at known indices of the loops over the result. The
epilogue says what becomes of them: further operands are loaded at the same place (a bias per
channel, the tensor that is added), the body computes on lanes, and the results are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mgec.compiler.kernels.emitter import Buffer, Dim, Size, VectorLanes
from mgec.compiler.kernels.operand import ONE, ZERO, NotApplicable, Product, operand
from mgec.dialects.mge.contraction import ContractionMaps, Loop
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spec import DType


@dataclass(frozen=True)
class Extra:
    """An operand of the epilogue.

    Attributes:
        dtype: dtype of an element.
        present: for each axis of the result, whether the operand has it; it is dense over
            those it has and broadcasts over the others.
    """

    dtype: DType
    present: tuple[bool, ...]


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum before it is stored.

    Attributes:
        extras: further operands.
        outputs: dtypes of the results; all have the shape of the contraction's result.
        body: one lane per result from the sum and one lane per extra.
    """

    extras: tuple[Extra, ...] = ()
    outputs: tuple[DType, ...] = ()
    body: Callable[[VectorLanes, Lane, Sequence[Lane]], Sequence[Lane]] = lambda b, acc, xs: [acc]


def out_strides(maps: ContractionMaps, out: Sequence[Size]) -> dict[str, Product]:
    """How far one step of each loop moves in the result; 0 for loops it does not have."""
    extents = {loop.name: Product.of(loop.extent) for loop in maps.loops}
    walks = operand(Buffer("", ""), out, maps.out, extents).walks
    return {loop.name: walks[loop.name].flat if loop.name in walks else ZERO for loop in maps.loops}


def extra_strides(maps: ContractionMaps, out: Sequence[Size], extra: Extra) -> dict[str, Product]:
    """How far one step of each loop moves in an operand of the epilogue."""
    strides = {loop.name: ZERO for loop in maps.loops}
    step = ONE
    for axis, size, here in zip(
        reversed(maps.out), reversed(out), reversed(extra.present), strict=True
    ):
        if here:
            for loop, coefficient in axis.terms:
                strides[loop] = Product.of(coefficient).times(step)
            step = step.times(Product.of(size))
    return strides


class Finisher:
    """Applies an epilogue to vectors of sums and stores the results.

    Declares the buffers of the epilogue's operands, then those of the results.

    Args:
        b: lanes as wide as the vectors of sums.
        epilogue: what to apply.
        maps: the contraction.
        out: shape of its result.
        columns: the loops along which a vector lies: contiguous in the result, slowest first.
        dtype: of the sums; the result's if the epilogue does not say.

    Raises:
        NotApplicable: if an operand has some of the columns' axes but not all.
    """

    def __init__(
        self,
        b: VectorLanes,
        epilogue: Epilogue,
        maps: ContractionMaps,
        out: Sequence[Size],
        columns: Sequence[Loop],
        dtype: DType,
    ) -> None:
        self.b, self.epilogue, self.maps = b, epilogue, maps
        self.strides = out_strides(maps, out)
        names = [loop.name for loop in columns if Product.of(loop.extent) != ONE]
        self.extra_strides: list[tuple[dict[str, Product], bool]] = []
        """For each extra its strides, and whether it lies along the columns as the result does."""
        for extra in epilogue.extras:
            strides = extra_strides(maps, out, extra)
            along = [strides[name] for name in names]
            contiguous = along == [self.strides[name] for name in names] and bool(along)
            if not contiguous and any(s != ZERO for s in along):
                raise NotApplicable("an operand of the epilogue has part of the contiguous axes")
            self.extra_strides.append((strides, contiguous))
        self.extras = [b.k.buffer(x.dtype) for x in epilogue.extras]
        self.outputs = [b.k.buffer(d) for d in epilogue.outputs or (dtype,)]

    def offset(self, at: Mapping[str, Dim], start: Dim) -> Dim:
        """The element of the result at loop indices `at` (0 where missing) and column `start`."""
        return self.b.k.add(start, self.moved(at, self.strides))

    def moved(self, at: Mapping[str, Dim], strides: Mapping[str, Product]) -> Dim:
        """How far the indices `at` are from the first element, with these strides."""
        k = self.b.k
        return k.add(*(k.mul(i, strides[n].dim(k)) for n, i in at.items() if strides[n] != ZERO))

    def prefetch(
        self, rows: Sequence[Mapping[str, Dim]], starts: Sequence[Dim], *, near: bool = True
    ) -> None:
        """Asks for the lines that a tile will write, and for those of operands as large.

        Args:
            rows: indices of the loops over the result, but for the columns.
            starts: the first columns of its vectors.
            near: into the first-level cache, for what is written at once.
        """
        k = self.b.k
        wanted = [(buffer, self.strides, True) for buffer in self.outputs]
        for buffer, (strides, contiguous) in zip(self.extras, self.extra_strides, strict=True):
            if contiguous and strides == self.strides:
                wanted.append((buffer, strides, False))
        for buffer, strides, write in wanted:
            for at in rows:
                base = self.moved(at, strides)
                for start in starts:
                    k.prefetch(buffer, k.add(start, base), write=write, near=near)

    def begin(self) -> Pending:
        """Starts a tile: what it loads once is kept until the next one."""
        return Pending(self)


class Pending:
    """One tile of results; see `Finisher.begin`."""

    def __init__(self, finisher: Finisher) -> None:
        self._f = finisher
        self._loaded: dict[tuple[int, Dim, str | None], Lane] = {}
        self._bases: dict[tuple[int | tuple[str, Dim], ...], Dim] = {}

    def store(self, at: Mapping[str, Dim], start: Dim, total: Lane, mask: str | None) -> None:
        """Finishes one vector.

        Args:
            at: index of each loop over the result, but for the columns.
            start: flat index over the columns of the vector's first element.
            total: the sums.
            mask: which lanes are columns of the result; None for all.
        """
        f, b = self._f, self._f.b
        k = b.k
        lanes: list[Lane] = []
        for i, extra in enumerate(f.epilogue.extras):
            strides, contiguous = f.extra_strides[i]
            base = self._base(i, at, strides)
            where = k.add(start, base) if contiguous else base
            key = (i, where, mask)
            if key not in self._loaded:
                load = b.load(f.extras[i], where, mask) if contiguous else None
                self._loaded[key] = load or b.load_splat(f.extras[i], where)
            lanes.append(b.from_storage(self._loaded[key], extra.dtype))
        where = k.add(start, self._base(-1, at, f.strides))
        for result, buffer in zip(f.epilogue.body(b, total, lanes), f.outputs, strict=True):
            stored = b.op("arith.extui", (result,), "i8") if result.ty == "i1" else result
            b.store(stored, buffer, where, mask)

    def _base(self, i: int, at: Mapping[str, Dim], strides: Mapping[str, Product]) -> Dim:
        """Where the row `at` of extra i, or of the results, begins."""
        key = (i, *at.items())
        if key not in self._bases:
            self._bases[key] = self._f.moved(at, strides)
        return self._bases[key]
