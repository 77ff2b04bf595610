"""Lower precision: products of bfloat16 where they are faster, sums in float32 as before."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from mgec.compiler.kernels.cost import direct_cost
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.winograd_tiles import WinogradProblem, winograd_cost, winograd_tile
from mgec.compiler.passes.assign_layouts import is_constant
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import BFLOAT16, FLOAT32

_PRODUCTS = frozenset({"mge.matmul", "mge.conv"})
_FEW_CHANNELS = 8
"""Fewer summed channels than this fill no vectors of pairs: the first layer of an image network."""

_GAIN = 2.0
"""How much faster products of bfloat16 are."""


@dataclass(frozen=True)
class LowerPrecisionPass(ModulePass):
    """Multiplies bfloat16 in matrix products and convolutions with constant weights.

        %0 = mge.matmul %x, %w : (tensor<8x64xf32>, tensor<64x32xf32>) -> tensor<8x32xf32>
    becomes
        %1 = mge.cast %x {dtype = bf16} : ...
        %2 = mge.cast %w {dtype = bf16} : ...
        %0 = mge.matmul %1, %2 {dtype = f32} : (tensor<8x64xbf16>, ...) -> tensor<8x32xf32>

    Sums, and everything else, stay in float32: residual connections that were rounded from
    layer to layer made the error of a transformer nine times as large, and saved 1% of the
    time (Zen 4, 2026-11). Expects layouts to be assigned, and folds to follow. Leaves alone
    first layers (few channels), grouped convolutions, and those that Winograd's algorithm
    computes faster in float32.

    Attributes:
        target: what the graph is compiled for; without an instruction for it nothing changes.
        winograd: whether kernels may use Winograd's algorithm, which makes weights larger.
    """

    name = "mge-lower-precision"

    target: str = "host"
    winograd: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        target = target_named(self.target)
        if not target.has_bfloat16_dot:
            return
        for function in op.ops:
            if isinstance(function, func.FuncOp):
                _narrow_products(function.body.block, target, winograd=self.winograd)


def _narrow_products(block: Block, target: Target, *, winograd: bool) -> None:
    """Narrows the operands of products; a value that several read is narrowed once."""
    narrow: dict[SSAValue, SSAValue] = {}
    for op in list(block.ops):
        if not isinstance(op, MgeOp) or not _gains(op, target, winograd=winograd):
            continue
        b = IRBuilder(Builder(InsertPoint.before(op)), op.location)
        operands: list[SSAValue] = []
        for value in op.operands:
            if value not in narrow:
                at = InsertPoint.before(op)
                if isinstance(value.owner, Operation):
                    at = InsertPoint.after(value.owner)
                narrow[value] = IRBuilder(Builder(at), op.location).cast(value, BFLOAT16)
            operands.append(narrow[value])
        (made,) = b.emit(type(op), operands, {**op.attrs, "dtype": FLOAT32})
        op.results[0].replace_all_uses_with(made)
        Rewriter.erase_op(op)


def _gains(op: MgeOp, target: Target, *, winograd: bool) -> bool:
    """Whether an op is faster with narrow operands."""
    if op.name not in _PRODUCTS or not is_constant(op.operands[1]):
        return False
    (lhs, rhs), (out,) = op.operand_specs, op.result_specs
    assert lhs is not None and rhs is not None
    if lhs.dtype != FLOAT32 or not (lhs.is_static and rhs.is_static):
        return False
    if op.name == "mge.matmul":
        depth = lhs.shape[-2 if op.attrs["transpose_lhs"] else -1]
        return not op.attrs["transpose_lhs"] and depth % 2 == 0
    channels = rhs.shape[1]
    if not op.attrs["channels_last"] or op.attrs["groups"] != 1:
        return False
    if channels < _FEW_CHANNELS or channels % 2:
        return False
    if not winograd:
        return True
    try:
        WinogradProblem.of(lhs.shape, rhs.shape, out.shape, op.attrs)
    except NotApplicable:
        return True
    tile = winograd_tile(target, lhs.shape, rhs.shape, out.shape)
    wide = winograd_cost(target, lhs.shape, rhs.shape, out.shape, tile)
    return wide > direct_cost(target, rhs.shape, out.shape) / _GAIN
