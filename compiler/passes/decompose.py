"""Composites in terms of primitives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.rules import as_tuple, decomposition


@dataclass(frozen=True)
class DecomposePass(ModulePass):
    """Replaces composites by their decompositions, until only primitives are left.

        %0 = mge.reduce_mean %x {axes = [0]} : (tensor<4xf32>) -> tensor<f32>
    becomes
        %1 = mge.reduce_sum %x {axes = [0]} : (tensor<4xf32>) -> tensor<f32>
        %2 = mge.constant {value = dense<4.0> : tensor<f32>} : () -> tensor<f32>
        %0 = mge.div %1, %2 : (tensor<f32>, tensor<f32>) -> tensor<f32>

    New ops have the location of the composite. Composites over run-time shapes are left alone.

    Attributes:
        keep: names of composites to leave whole, with or without "mge.".
        keep_dtypes: only those whose first result has one of these dtypes; all if empty.
    """

    name = "mge-decompose"

    keep: tuple[str, ...] = ()
    keep_dtypes: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        kept = {op_class(f"mge.{name.removeprefix('mge.')}") for name in self.keep}
        _decompose_in(op, kept, self.keep_dtypes)


def _decompose_in(op: Operation, kept: set[type[MgeOp]], dtypes: tuple[str, ...]) -> None:
    worklist = [inner for inner in op.walk() if isinstance(inner, MgeOp)]
    while worklist:
        inner = worklist.pop()
        if type(inner) not in decomposition:
            continue
        if type(inner) in kept and (not dtypes or inner.result_specs[0].dtype.name in dtypes):
            continue
        if all(spec.is_static for spec in inner.result_specs):
            worklist += _decompose(inner)


def _decompose(op: MgeOp) -> list[MgeOp]:
    """Replaces one op; returns the ops that it became."""
    block, before = op.parent, op.prev_op
    assert block is not None
    b = IRBuilder(Builder(InsertPoint.before(op)), op.location)
    results: Sequence[SSAValue] = as_tuple(decomposition[type(op)](b, *op.operand_list, **op.attrs))
    made: list[MgeOp] = []
    new = block.first_op if before is None else before.next_op
    while new is not op:
        assert isinstance(new, MgeOp)
        made.append(new)
        new = new.next_op
    for old, value in zip(op.results, results, strict=True):
        value.name_hint = value.name_hint or old.name_hint
        old.replace_all_uses_with(value)
    op.detach()
    op.erase()
    return made
