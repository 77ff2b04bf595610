"""How the operands of a contraction lie in memory, seen from its loops.

Sizes and strides are products of known and run-time sizes, so that "these two loops are one
contiguous loop" is decided by comparing products, for static and for run-time shapes alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Size
from mgec.compiler.kernels.source import DimRef
from mgec.dialects.mge.contraction import AxisMap


class NotApplicable(Exception):
    """The template cannot serve this kernel; the message says why."""


class Product(NamedTuple):
    """A known factor times run-time sizes."""

    known: int
    refs: tuple[DimRef, ...] = ()

    @staticmethod
    def of(size: Size) -> Product:
        """A caller's size."""
        if isinstance(size, tuple):
            result = ONE
            for factor in size:
                result = result.times(Product.of(factor))
            return result
        return Product(1, (size,)) if isinstance(size, DimRef) else Product(size)

    def times(self, other: Product) -> Product:
        """The product of two products."""
        known = self.known * other.known
        if known == 0:
            return ZERO
        refs = sorted((*self.refs, *other.refs), key=lambda r: r.position)
        return Product(known, tuple(refs))

    @property
    def is_static(self) -> bool:
        """Whether no run-time size is involved."""
        return not self.refs

    @property
    def factors(self) -> tuple[int | DimRef, ...]:
        """The factors, for `Units` and `KernelEmitter.dim`."""
        return (self.known, *self.refs) if self.known != 1 or not self.refs else self.refs

    def dim(self, k: KernelEmitter) -> Dim:
        """The value inside a kernel."""
        return k.dim(self.factors)


ZERO, ONE = Product(0), Product(1)


def product(sizes: Sequence[Product]) -> Product:
    """The product of products."""
    result = ONE
    for size in sizes:
        result = result.times(size)
    return result


@dataclass(frozen=True)
class Walk:
    """What one step of a loop does to an operand.

    Attributes:
        extent: iterations of the loop.
        flat: elements moved, as far as axes that are never masked are concerned.
        masked: for each masked axis that moves, by how much its index does.
    """

    extent: Product
    flat: Product = ZERO
    masked: tuple[tuple[int, Product], ...] = ()

    def coefficient(self, axis: int) -> Product:
        """Step along masked axis number `axis`."""
        return dict(self.masked).get(axis, ZERO)


@dataclass(frozen=True)
class MaskedAxis:
    """An axis whose index may leave it.

    Attributes:
        offset: added to the index.
        divisor: what the index is divided by; other indices have no element.
        checked: whether the index may leave the axis.
        size: size of the axis.
        stride: elements between neighbours.
    """

    offset: int
    divisor: int
    size: Product
    stride: Product


@dataclass(frozen=True)
class Operand:
    """A tensor seen from the loops.

    Attributes:
        buffer: where it is.
        walks: for each loop, what one step does.
        masked: the masked axes, slowest first.
        base: elements before the first, from constant offsets of other axes.
    """

    buffer: Buffer
    walks: Mapping[str, Walk]
    masked: tuple[MaskedAxis, ...]
    base: Product

    def walk(self, loop: str, extent: Product) -> Walk:
        """What one step of `loop` does; nothing if the operand does not know the loop."""
        return self.walks.get(loop, Walk(extent))


def operand(
    buffer: Buffer,
    shape: Sequence[Size],
    axes: Sequence[AxisMap],
    extents: Mapping[str, Product],
) -> Operand:
    """Describes a dense row-major tensor of `shape` addressed through `axes`.

    Raises:
        NotApplicable: if a loop moves it along two unmasked axes, or an offset is not known.
    """
    flat: dict[str, Product] = {}
    masked_steps: dict[str, list[tuple[int, Product]]] = {}
    masked: list[MaskedAxis] = []
    base = ZERO
    stride = ONE
    rows: list[tuple[AxisMap, Product, Product]] = []
    for axis, size in zip(reversed(axes), reversed(shape), strict=True):
        rows.append((axis, Product.of(size), stride))
        stride = stride.times(Product.of(size))
    for axis, size, step in reversed(rows):
        if axis.is_masked:
            for loop, coefficient in axis.terms:
                entry = (len(masked), Product.of(coefficient))
                masked_steps.setdefault(loop, []).append(entry)
            masked.append(MaskedAxis(axis.offset, axis.divisor, size, step))
            continue
        for loop, coefficient in axis.terms:
            if loop in flat:
                raise NotApplicable(f"loop {loop} moves an operand along two axes")
            flat[loop] = Product.of(coefficient).times(step)
        if axis.offset:
            if base != ZERO:
                raise NotApplicable("an operand has two constant offsets")
            base = Product(axis.offset).times(step)
    walks = {
        loop: Walk(extents[loop], flat.get(loop, ZERO), tuple(masked_steps.get(loop, ())))
        for loop in {**flat, **masked_steps}
    }
    return Operand(buffer, walks, tuple(masked), base)


def merge(walks: Sequence[Walk]) -> list[Walk]:
    """Joins neighbouring loops (slowest first) that are one loop for this operand."""
    merged: list[Walk] = []
    for walk in walks:
        if walk.extent == ONE:
            continue
        if merged:
            outer = merged[-1]
            whole = outer.flat == walk.flat.times(walk.extent)
            if whole and not outer.masked and not walk.masked:
                merged[-1] = Walk(outer.extent.times(walk.extent), walk.flat)
                continue
        merged.append(walk)
    return merged or [Walk(ONE)]


def memory_step(walk: Walk, masked: Sequence[MaskedAxis]) -> int | None:
    """How many elements one step moves in memory, if that is known and along one axis."""
    if not walk.masked:
        step = walk.flat
    else:
        axis, step = walk.masked[0]
        info = masked[axis]
        plain = info.stride == ONE and info.divisor == 1
        if walk.flat != ZERO or len(walk.masked) != 1 or not plain:
            return None
    return step.known if step.is_static else None


def unit_stride(walk: Walk, masked: Sequence[MaskedAxis]) -> bool:
    """Whether one step moves to the next element in memory."""
    return memory_step(walk, masked) == 1
