"""How contractions multiply and sum: one element of each operand at a time, or several.

Narrow dtypes have instructions that multiply groups of neighbours along the summed axis and
add the products to one wide sum: two bfloat16 at once. A template that takes its step from a
`Multiply` serves all of them: where a group counts as one element, everything else stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mgec.compiler.kernels.emitter import Buffer, Dim, VectorLanes
from mgec.compiler.targets import Target
from mgec.dialects.mge.contraction import AxisMap, ContractionMaps
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.spec import BFLOAT16, DType


@dataclass(frozen=True)
class Multiply:
    """A multiply-add of vectors.

    Attributes:
        operands: dtype of both operands.
        group: neighbours along the summed axis that one step takes.
    """

    operands: DType
    group: int = 1

    @staticmethod
    def group_for(dtype: DType, target: Target) -> int:
        """The largest group that the target multiplies in one instruction."""
        return 2 if dtype == BFLOAT16 and target.has_bfloat16_dot else 1

    @property
    def sums(self) -> DType:
        """Dtype of the sums."""
        return accumulator(self.operands)

    @property
    def element(self) -> str:
        """MLIR type of a group in memory."""
        if self.group == 1:
            return lane_type(self.operands)
        return f"i{8 * self.operands.itemsize * self.group}"

    @property
    def element_bytes(self) -> int:
        """Bytes of a group."""
        return self.operands.itemsize * self.group

    def splat(self, b: VectorLanes, buffer: Buffer, at: Dim) -> Lane:
        """One group of the left operand, for every lane."""
        scalar = b.k.load_scalar(buffer, at)
        if self.group == 1 and self.operands != self.sums:
            one = VectorLanes(b.k, 0)
            scalar = one.convert(scalar, self.operands, self.sums)
        return b.splat(scalar)

    def columns(self, b: VectorLanes, buffer: Buffer, at: Dim, mask: str | None) -> Lane:
        """One group of the right operand for each lane."""
        loaded = b.load(buffer, at, mask)
        return b.convert(loaded, self.operands, self.sums) if self.group == 1 else loaded

    def add(self, b: VectorLanes, x: Lane, y: Lane, total: Lane) -> Lane:
        """total + x * y, summed over the group."""
        if self.group == 1:
            return b.fma(x, y, total)
        return _dot_bfloat16(b, x, y, total)


def _dot_bfloat16(b: VectorLanes, x: Lane, y: Lane, total: Lane) -> Lane:
    """Sums of two products of bfloat16 each, added to float32."""
    k, sums = b.k, f"vector<{b.width}xf32>"
    pairs, groups = f"vector<{2 * b.width}xbf16>", f"vector<{b.width}xi32>"
    left = k.let(f"vector.bitcast {x.ref} : {groups} to {pairs}")
    right = k.let(f"vector.bitcast {y.ref} : {groups} to {pairs}")
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * b.width}"
    types = f"({sums}, {pairs}, {pairs}) -> {sums}"
    call = f'llvm.call_intrinsic "{name}"({total.ref}, {left}, {right}) : {types}'
    return Lane(k.let(call), total.ty)


def in_groups(
    maps: ContractionMaps, lhs: Sequence[int], group: int
) -> tuple[ContractionMaps, tuple[int, ...]] | None:
    """The contraction with groups along its fastest summed loop as elements.

    Args:
        maps: the contraction; its right operand will be packed in groups.
        lhs: shape of the left operand, of static sizes.
        group: neighbours to a group.

    Returns:
        The maps and the left operand's shape in groups, or None if neighbours along the loop
        do not fill whole groups in memory.
    """
    loop, axis = maps.of_kind("k")[-1], maps.lhs[-1]
    others = [(name, step) for name, step in axis.terms if name != loop.name]
    sizes = [loop.extent, lhs[-1], axis.offset, *(step for _, step in others)]
    alone = sum(name == loop.name for map_ in maps.lhs for name, _ in map_.terms) == 1
    if axis.is_masked or (loop.name, 1) not in axis.terms or not alone:
        return None
    if any(not isinstance(size, int) or size % group for size in sizes):
        return None
    outer = tuple((name, step // group) for name, step in others)
    grouped = AxisMap((*outer, (loop.name, 1)), axis.offset // group)
    loops = tuple(
        replace(each, extent=each.extent // group) if each is loop else each for each in maps.loops
    )
    return replace(maps, loops=loops, lhs=(*maps.lhs[:-1], grouped)), (*lhs[:-1], lhs[-1] // group)
