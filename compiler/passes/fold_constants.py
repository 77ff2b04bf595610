"""Constant folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from mgec.compiler.interpret import run_op
from mgec.compiler.passes.rewriting import producer
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.rules import decomposition, reference


@dataclass(frozen=True)
class FoldConstantsPass(ModulePass):
    """Computes ops whose operands are all constants, with their reference rules.

        %0 = mge.constant {value = dense<[1, 2]> : tensor<2xi32>} : ...
        %1 = mge.neg %0 : (tensor<2xi32>) -> tensor<2xi32>
    becomes
        %1 = mge.constant {value = dense<[-1, -2]> : tensor<2xi32>} : ...

    Results are rounded to their dtypes after every op, as when the graph runs. Left alone: ops
    with more than `max_bytes` of results, ops that return more than they take (a broadcast) and
    more than `max_growth` bytes, ops on `mge.weight`, whose values are not in the module.

    Attributes:
        max_bytes: the largest constant to make.
        max_growth: up to this size a constant may be larger than what it is computed from.
    """

    name = "mge-fold-constants"

    max_bytes: int = 1 << 20
    max_growth: int = 1 << 10

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for inner in list(op.walk()):
            if isinstance(inner, MgeOp) and self._can_fold(inner):
                _fold(inner)

    def _can_fold(self, op: MgeOp) -> bool:
        if isinstance(op, ConstantOp) or not op.results:
            return False
        if type(op) not in reference and type(op) not in decomposition:
            return False  # mge.weight
        if not all(producer(value, ConstantOp.name) for value in op.operands):
            return False
        if not all(spec.is_static for spec in op.result_specs):
            return False
        size = sum(spec.nbytes for spec in op.result_specs)
        taken = sum(constant_value(value).nbytes for value in op.operands)
        return size <= self.max_bytes and (size <= taken or size <= self.max_growth)


def constant_value(value: SSAValue) -> np.ndarray[Any, Any]:
    """The array of a value that an `mge.constant` makes."""
    made = producer(value, ConstantOp.name)
    assert made is not None
    return cast("np.ndarray[Any, Any]", made.attrs["value"])


def _fold(op: MgeOp) -> None:
    results = run_op(op, [constant_value(value) for value in op.operands])
    b = IRBuilder(Builder(InsertPoint.before(op)), op.location)
    made: Sequence[SSAValue] = [b.constant(result) for result in results]
    for old, new in zip(op.results, made, strict=True):
        new.name_hint = old.name_hint
        old.replace_all_uses_with(new)
    op.detach()
    op.erase()
