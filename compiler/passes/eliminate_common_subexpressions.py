"""Common subexpression elimination."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass

from mgec.dialects.mge.op import MgeOp


@dataclass(frozen=True)
class EliminateCommonSubexpressionsPass(ModulePass):
    """Computes once what is computed twice in a block.

        %0 = mge.exp %x : ...
        %1 = mge.exp %x : ...
        %2 = mge.add %0, %1 : ...
    becomes
        %0 = mge.exp %x : ...
        %2 = mge.add %0, %0 : ...

    Two mge ops are the same when their names, operands, attributes and result types are; the
    first stays, with its location. Order matters: `add %x, %y` and `add %y, %x` both stay.
    Ops of other dialects are left alone, and every block (so every kernel) is looked at by itself.
    """

    name = "mge-cse"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _merge_in(op)


def _merge_in(op: Operation) -> None:
    for region in op.regions:
        for block in region.blocks:
            _merge(block)


def _merge(block: Block) -> None:
    first: dict[Hashable, MgeOp] = {}
    for op in list(block.ops):
        _merge_in(op)
        if not isinstance(op, MgeOp):
            continue
        known = first.setdefault(_key(op), op)
        if known is not op:
            for old, new in zip(op.results, known.results, strict=True):
                old.replace_all_uses_with(new)
            op.detach()
            op.erase()


def _key(op: MgeOp) -> Hashable:
    """Equal for ops that compute the same; 0.0 and -0.0 are different attributes."""
    return (
        op.name,
        tuple(op.operands),
        tuple(op.result_types),
        frozenset(op.properties.items()),
        frozenset(op.attributes.items()),
    )
