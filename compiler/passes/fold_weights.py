"""Folding of weights: what depends on weights only is computed when the graph is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from mgec.compiler.interpret import run_op
from mgec.compiler.passes.fold_constants import constant_value
from mgec.compiler.passes.rewriting import producer
from mgec.dialects.mge.constant import ConstantOp, WeightOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.rules import decomposition, reference

if TYPE_CHECKING:
    from mgec.compiler.graph_module import GraphModule


@dataclass(frozen=True)
class FoldWeightsPass:
    """Computes ops whose operands are weights and constants, with their reference rules.

        %0 = mge.weight {key = "w", ...}            %1 = mge.weight {key = "w.mul", ...}
        %1 = mge.mul %0, %scale : ...         ->

    A batch norm folded into a convolution leaves such arithmetic behind. Works on the graph
    with its weights, so it is not a pass of `mgec-opt`, which sees the module alone. Leaves
    alone ops that return more bytes than they take.
    """

    name = "mge-fold-weights"

    def apply_to(self, graph: GraphModule) -> None:
        """Folds in place and drops weights that nothing refers to any more."""
        for op in list(graph.main.body.block.ops):
            if isinstance(op, MgeOp) and _can_fold(op):
                _fold(op, graph)
        used = {
            str(op.attrs["key"])
            for op in graph.main.body.block.ops
            if isinstance(op, WeightOp) and any(r.uses.get_length() for r in op.results)
        }
        for key in [k for k in graph.weights if k not in used]:
            del graph.weights[key]


def _can_fold(op: MgeOp) -> bool:
    if isinstance(op, ConstantOp | WeightOp) or not op.operands:
        return False
    if type(op) not in reference and type(op) not in decomposition:
        return False
    if not any(producer(v, WeightOp.name) for v in op.operands):
        return False
    if not all(producer(v, WeightOp.name, ConstantOp.name) for v in op.operands):
        return False
    taken = sum(spec.nbytes for spec in op.operand_specs if spec is not None)
    return sum(spec.nbytes for spec in op.result_specs) <= taken


def _value(value: SSAValue, graph: GraphModule) -> np.ndarray[Any, Any]:
    made = producer(value, WeightOp.name)
    if made is None:
        return constant_value(value)
    return graph.weights[cast("str", made.attrs["key"])]


def _fold(op: MgeOp, graph: GraphModule) -> None:
    results = run_op(op, [_value(v, graph) for v in op.operands])
    first = next(made for v in op.operands if (made := producer(v, WeightOp.name)) is not None)
    base = f"{first.attrs['key']}.{op.name.removeprefix('mge.')}"
    for old, result in zip(list(op.results), results, strict=True):
        key, i = base, 1
        while key in graph.weights:
            key, i = f"{base}_{i}", i + 1
        graph.weights[key] = result
        weight = WeightOp.build_op([], {"key": key, "shape": result.shape, "dtype": result.dtype})
        weight.location = op.location
        Rewriter.insert_op(weight, InsertPoint.before(op))
        old.replace_all_uses_with(weight.results[0])
    Rewriter.erase_op(op)
