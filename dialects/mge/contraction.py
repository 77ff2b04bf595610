"""Contractions: matmul, and the index maps by which every contraction is described.

A contraction sums products of two operands over the loops that the result lacks:

    out[m..., n...] = sum over k... of lhs[m..., k...] * rhs[n..., k...]

What distinguishes a matrix product from a convolution or from a convolution's gradients is
only how the loop indices address the operands. `ContractionMaps` holds that as data. The
rule `@contraction(Op)` gives the maps of an op; the linalg lowering here and the fast
templates of `compiler/kernels` read nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from xdsl.ir.affine import AffineExpr, AffineMap

from mgec.dialects.mge.elementwise import NUMBERS, broadcast_shapes, check_dtype
from mgec.dialects.mge.lane import lane_type
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.rules import RuleTable, gradient, lowering, reference
from mgec.dialects.mge.spec import DYNAMIC, DType, TensorSpec
from mgec.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from mgec.dialects.mge.lane import Lane, LaneBuilder
    from mgec.dialects.mge.linalg import Dim, LinalgBuilder, LoweringCall

Size: TypeAlias = Any
"""A Python int; an SSA index where the linalg lowering builds for run-time shapes."""


@dataclass(frozen=True)
class Loop:
    """One loop of a contraction.

    Attributes:
        name: unique among the loops ("oh").
        kind: "batch" (addresses lhs, rhs and out), "m" (lhs and out), "n" (rhs and out) or
            "k" (summed: lhs and rhs).
        extent: number of iterations.
    """

    name: str
    kind: str
    extent: Size


@dataclass(frozen=True)
class AxisMap:
    """Index along one axis of a tensor: (sum of coefficient * loop + offset) / divisor.

    Attributes:
        terms: pairs (loop name, coefficient); no terms for an axis that is only read at
            `offset` (a broadcast axis).
        offset: what is added to the sum of the terms.
        divisor: where the sum is not a multiple of it there is no element, and the operand
            counts as 0 (the transposed, strided convolution).
        checked: whether the index may leave the axis; outside, the operand counts as 0
            (padding).
    """

    terms: tuple[tuple[str, Size], ...]
    offset: int = 0
    divisor: int = 1
    checked: bool = False

    @staticmethod
    def of(loop: str) -> AxisMap:
        """The axis that one loop walks with step 1."""
        return AxisMap(((loop, 1),))

    @property
    def is_masked(self) -> bool:
        """Whether some loop indices address no element."""
        return self.checked or self.divisor != 1


@dataclass(frozen=True)
class ContractionMaps:
    """A contraction: its loops, and how they address each tensor.

    Axes of `out` are never masked, and their terms are a mixed-radix number: every
    combination of batch, m and n indices writes one element, and every element is written.

    Attributes:
        loops: all loops; those of one kind from the slowest to the fastest axis.
        lhs: one entry per axis of the first operand.
        rhs: one entry per axis of the second operand.
        out: one entry per axis of the result.
    """

    loops: tuple[Loop, ...]
    lhs: tuple[AxisMap, ...]
    rhs: tuple[AxisMap, ...]
    out: tuple[AxisMap, ...]

    def of_kind(self, kind: str) -> tuple[Loop, ...]:
        """The loops of one kind, in order."""
        return tuple(loop for loop in self.loops if loop.kind == kind)

    def size(self, kind: str) -> int:
        """Product of the extents of one kind; only for static shapes."""
        return prod(loop.extent for loop in self.of_kind(kind))

    @property
    def flops(self) -> int:
        """Multiplications and additions of the whole nest; only for static shapes."""
        return 2 * prod(loop.extent for loop in self.loops)

    @property
    def is_masked(self) -> bool:
        """Whether any operand is read outside its elements (and counts as 0 there)."""
        return any(axis.is_masked for axis in (*self.lhs, *self.rhs))


contraction: RuleTable[Callable[..., ContractionMaps]] = RuleTable("contraction")
"""`(lhs_shape, rhs_shape, out_shape, attrs, divide) -> ContractionMaps`; ask `contraction_maps`."""


def contraction_maps(
    op: type[MgeOp],
    lhs: Sequence[Size],
    rhs: Sequence[Size],
    out: Sequence[Size],
    attrs: Any,
    divide: Callable[[Size, int], Size] = lambda size, by: size // by,
) -> ContractionMaps:
    """The index maps of one application of a contraction.

    Args:
        op: an op with a `@contraction` rule.
        lhs: shape of the first operand.
        rhs: shape of the second operand.
        out: shape of the result.
        attrs: plain attributes, defaults filled in.
        divide: integer division of sizes; given where sizes are SSA values.
    """
    return contraction[op](lhs, rhs, out, attrs, divide)


# -- lowering, shared by every contraction ---------------------------------------------


def lower_contraction(b: LinalgBuilder, call: LoweringCall) -> Any:
    """The lowering of every op with a `@contraction` rule.

    Where all indices are affine in the loops over the result the nest is a
    `linalg.generic` with those maps; masked operands are read element by element.
    """
    (out,), (dims,) = call.output_specs, call.output_dims
    lhs, rhs = call.inputs
    maps = contraction_maps(call.op, b.dims(lhs), b.dims(rhs), dims, call.attrs, divide=b.floordiv)
    dtypes = [spec.dtype for spec in call.specs]
    total_dtype = accumulator(out.dtype)
    reduce = [loop.extent for loop in maps.of_kind("k")]
    lanes = b.lanes

    def zero(builder: LaneBuilder) -> Lane:
        return builder.constant(0, lane_type(total_dtype))

    def step(x: Lane, y: Lane, total: Lane) -> Lane:
        x = lanes.convert(x, dtypes[0], total_dtype)
        y = lanes.convert(y, dtypes[1], total_dtype)
        return lanes.fma(x, y, total) if total.is_float else lanes.add(lanes.mul(x, y), total)

    if (affine := _affine_maps(maps)) is not None:
        inputs = [(lhs, dtypes[0], affine[0]), (rhs, dtypes[1], affine[1])]
        return b.fold(inputs, dims, len(reduce), out.dtype, step, zero, total_dtype)

    def body(indices: Sequence[Dim], total: Lane) -> Lane:
        at = _loop_indices(b, maps, indices)
        x = _read(b, lhs, dtypes[0], maps.lhs, at)
        y = _read(b, rhs, dtypes[1], maps.rhs, at)
        return step(x, y, total)

    return b.loops(dims, out.dtype, body, reduce=reduce, init=zero, accumulate=total_dtype)


def _affine_maps(maps: ContractionMaps) -> tuple[AffineMap, AffineMap] | None:
    """Operand maps over (axes of the result, k loops), or None if they are not affine."""
    axes = (*maps.lhs, *maps.rhs)
    static = all(isinstance(c, int) for axis in axes for _, c in axis.terms)
    if maps.is_masked or not static or any(len(axis.terms) != 1 for axis in maps.out):
        return None
    names = [axis.terms[0][0] for axis in maps.out] + [loop.name for loop in maps.of_kind("k")]

    def expression(axis: AxisMap) -> AffineExpr:
        parts = [
            AffineExpr.dimension(names.index(loop)) * c if c != 1
            else AffineExpr.dimension(names.index(loop))
            for loop, c in axis.terms
        ]  # fmt: skip
        total = AffineExpr.constant(axis.offset) if axis.offset or not parts else parts.pop(0)
        for part in parts:
            total = total + part
        return total

    def operand(axes: Sequence[AxisMap]) -> AffineMap:
        return AffineMap(len(names), 0, tuple(expression(axis) for axis in axes))

    return operand(maps.lhs), operand(maps.rhs)


def _loop_indices(
    b: LinalgBuilder, maps: ContractionMaps, indices: Sequence[Dim]
) -> dict[str, Dim]:
    """Index of every loop, from the indices over the axes of the result and the k loops."""
    at: dict[str, Dim] = {}
    for axis, index in zip(maps.out, indices, strict=False):
        rest = index
        for loop, coefficient in axis.terms:
            at[loop] = b.floordiv(rest, coefficient)
            rest = b.mod(rest, coefficient)
    for loop, index in zip(maps.of_kind("k"), indices[len(maps.out) :], strict=True):
        at[loop.name] = index
    return at


def _read(
    b: LinalgBuilder, value: Any, dtype: DType, axes: Sequence[AxisMap], at: dict[str, Dim]
) -> Lane:
    """The element an operand contributes, 0 where there is none."""
    indices: list[Dim] = []
    valid: Lane | None = None
    for axis, size in zip(axes, b.dims(value), strict=True):
        index: Dim = axis.offset
        for loop, coefficient in axis.terms:
            index = b.add(index, b.mul(at[loop], coefficient))
        checks: list[Lane] = []
        if axis.is_masked:
            bound = b.mul(size, axis.divisor)
            checks.append(b.in_range(index, 0, bound))
            index = b.clamp(index, bound)
        if axis.divisor != 1:
            checks.append(b.in_range(b.mod(index, axis.divisor), 0, 1))
            index = b.floordiv(index, axis.divisor)
        indices.append(index)
        for check in checks:
            valid = check if valid is None else b.lanes.and_(valid, check)
    element = b.load(value, indices, dtype)
    return element if valid is None else b.lanes.select(valid, element, b.lanes.like(0, element))


# -- matmul ------------------------------------------------------------------------------


@mge_op
class MatmulOp(MgeOp):
    """Matrix product of the last two axes; leading axes broadcast as in NumPy.

    Shapes: lhs [..., M, K] ([..., K, M] with `transpose_lhs`), rhs [..., K, N] ([..., N, K]
    with `transpose_rhs`), result [..., M, N]. Dtypes: any number, both equal; 16-bit floats
    accumulate in float32, and `dtype` float32 returns those sums as they are; integers wrap.
    """

    name = "mge.matmul"

    @staticmethod
    def infer(
        lhs: TensorSpec,
        rhs: TensorSpec,
        *,
        transpose_lhs: bool = False,
        transpose_rhs: bool = False,
        dtype: DType | None = None,
    ) -> TensorSpec:
        lhs_role = "(..., K, M), transpose_lhs" if transpose_lhs else "(..., M, K)"
        rhs_role = "(..., N, K), transpose_rhs" if transpose_rhs else "(..., K, N)"
        values = [("lhs", str(lhs), lhs_role), ("rhs", str(rhs), rhs_role)]
        for name, spec in (("lhs", lhs), ("rhs", rhs)):
            if spec.rank < 2:
                raise ShapeError(
                    f"matmul: {name} has rank {spec.rank} but needs rank 2 or more",
                    values=values,
                    fix="reshape a vector to a matrix of one row or one column",
                )
        check_same_dtype("matmul", lhs, rhs, values)
        m, lhs_k = reversed(lhs.shape[-2:]) if transpose_lhs else lhs.shape[-2:]
        rhs_k, n = reversed(rhs.shape[-2:]) if transpose_rhs else rhs.shape[-2:]
        if lhs_k != rhs_k and DYNAMIC not in (lhs_k, rhs_k):
            raise ShapeError(
                f"matmul: lhs has {lhs_k} columns but rhs has {rhs_k} rows",
                values=values,
                fix="make the two sizes called K equal, or transpose an operand",
            )
        batch = broadcast_shapes("matmul", lhs.shape[:-2], rhs.shape[:-2])
        return TensorSpec((*batch, m, n), result_dtype("matmul", lhs.dtype, dtype))


def result_dtype(name: str, operands: DType, wanted: DType | None) -> DType:
    """The dtype of a contraction's result: that of its sums, if the operands are narrow floats.

    Raises:
        DTypeError: if `wanted` is neither the operands' dtype nor that of their sums.
    """
    if wanted in (None, operands, accumulator(operands)):
        return operands if wanted is None else wanted
    raise DTypeError(
        f"{name}: the result cannot be {wanted} where the operands are {operands}",
        fix=f"leave out dtype, or make it {accumulator(operands)}",
    )


def check_same_dtype(
    name: str, lhs: TensorSpec, rhs: TensorSpec, values: Sequence[tuple[str, str, str]]
) -> None:
    """Raises DTypeError unless both operands are numbers of one dtype."""
    first, second = values[0][0], values[1][0]
    check_dtype(name, first, lhs.dtype, NUMBERS)
    if lhs.dtype != rhs.dtype:
        raise DTypeError(
            f"{name}: {first} is {lhs.dtype.name} but {second} is {rhs.dtype.name}",
            values=values,
            fix=f"convert {second} with astype({lhs.dtype.name!r})",
        )


@contraction(MatmulOp)
def _matmul_maps(
    lhs: Sequence[Size], rhs: Sequence[Size], out: Sequence[Size], attrs: Any, divide: Any
) -> ContractionMaps:
    count = len(out) - 2
    k = lhs[-2] if attrs["transpose_lhs"] else lhs[-1]
    batch: list[Loop] = []
    for i, size in enumerate(out[:count]):
        sizes = [s[i - count + len(s) - 2] if len(s) - 2 + i >= count else 1 for s in (lhs, rhs)]
        ones = [isinstance(s, int) and s == 1 for s in sizes]
        kind = "m" if ones == [False, True] else "n" if ones == [True, False] else "batch"
        batch.append(Loop(f"b{i}", kind, size))

    def operand(shape: Sequence[Size], last: tuple[str, str]) -> tuple[AxisMap, ...]:
        lead = count - (len(shape) - 2)
        axes = [
            AxisMap(()) if isinstance(size, int) and size == 1 else AxisMap.of(f"b{lead + i}")
            for i, size in enumerate(shape[:-2])
        ]
        return (*axes, *(AxisMap.of(name) for name in last))

    return ContractionMaps(
        loops=(*batch, Loop("m", "m", out[-2]), Loop("n", "n", out[-1]), Loop("k", "k", k)),
        lhs=operand(lhs, ("k", "m") if attrs["transpose_lhs"] else ("m", "k")),
        rhs=operand(rhs, ("n", "k") if attrs["transpose_rhs"] else ("k", "n")),
        out=(*(AxisMap.of(loop.name) for loop in batch), AxisMap.of("m"), AxisMap.of("n")),
    )


@reference(MatmulOp)
def _matmul_reference(
    lhs: Any, rhs: Any, *, transpose_lhs: bool, transpose_rhs: bool, dtype: DType | None
) -> Any:
    lhs = np.swapaxes(lhs, -1, -2) if transpose_lhs else lhs
    rhs = np.swapaxes(rhs, -1, -2) if transpose_rhs else rhs
    return np.matmul(lhs, rhs)


@gradient(MatmulOp)
def _matmul_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, Any]:
    (lhs, rhs), attrs = call.inputs, call.attrs
    d_out = b.cast(d_out, call.specs[0].dtype)
    flip_lhs, flip_rhs = attrs["transpose_lhs"], attrs["transpose_rhs"]
    d_lhs = d_rhs = None
    if call.needs[0]:
        if flip_lhs:  # d(lhs^T) = d_out rhs^T, so d(lhs) = rhs d_out^T
            d_lhs = b.matmul(rhs, d_out, transpose_lhs=flip_rhs, transpose_rhs=True)
        else:
            d_lhs = b.matmul(d_out, rhs, transpose_rhs=not flip_rhs)
        d_lhs = b.sum_to(d_lhs, call.specs[0].shape)
    if call.needs[1]:
        if flip_rhs:
            d_rhs = b.matmul(d_out, lhs, transpose_lhs=True, transpose_rhs=flip_lhs)
        else:
            d_rhs = b.matmul(lhs, d_out, transpose_lhs=not flip_lhs)
        d_rhs = b.sum_to(d_rhs, call.specs[1].shape)
    return d_lhs, d_rhs


lowering(MatmulOp)(lower_contraction)

OPS = (MatmulOp,)
