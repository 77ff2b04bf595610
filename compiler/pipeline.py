"""The phases a graph goes through, as data.

    trace -> graph -> kernels -> linalg|vector -> llvm -> object

Each phase up to `kernels` is a list of passes over the graph; after it every kernel goes its
own way. `--compile-to`, `--dump-phases-to` and the tests read this table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.context import Context
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from mgec import config
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.select import WHOLE, WHOLE_DTYPES
from mgec.compiler.passes.assign_layouts import AssignLayoutsPass
from mgec.compiler.passes.canonicalize import CanonicalizePass
from mgec.compiler.passes.decompose import DecomposePass
from mgec.compiler.passes.eliminate_common_subexpressions import EliminateCommonSubexpressionsPass
from mgec.compiler.passes.eliminate_dead_code import EliminateDeadCodePass
from mgec.compiler.passes.fold_batch_norm import FoldBatchNormPass
from mgec.compiler.passes.fold_constants import FoldConstantsPass
from mgec.compiler.passes.fold_weights import FoldWeightsPass
from mgec.compiler.passes.form_kernels import FormKernelsPass
from mgec.compiler.passes.fuse_attention import FuseAttentionPass
from mgec.compiler.passes.fuse_gelu import FuseGeluPass
from mgec.compiler.passes.lower_precision import LowerPrecisionPass
from mgec.compiler.passes.plan_memory import PlanMemoryPass
from mgec.errors import CompileError

GraphPass: TypeAlias = "ModulePass | FoldWeightsPass"


@dataclass(frozen=True)
class Phase:
    """A named stage.

    Attributes:
        name: as in `--compile-to`.
        passes: what runs to reach it.
        sentence: what is true of the IR after it.
    """

    name: str
    passes: tuple[GraphPass, ...]
    sentence: str


PRECISIONS = ("f32", "bf16")
"""What products may be computed in; sums are float32 in either."""


def graph_phases(
    *,
    optimize: bool = True,
    precision: str = "f32",
    target: str = "host",
    saves_memory: bool = False,
) -> tuple[Phase, ...]:
    """The phases of the graph.

    Args:
        optimize: False leaves out every pass that only makes code faster, and fuses nothing.
        precision: one of `PRECISIONS`.
        target: what the graph is compiled for.
        saves_memory: as of `Target`.
    """
    keep, keep_dtypes = tuple(sorted(WHOLE)), tuple(dtype.name for dtype in WHOLE_DTYPES)
    if not optimize:
        graph: tuple[GraphPass, ...] = (DecomposePass(keep=keep, keep_dtypes=keep_dtypes),)
    else:
        graph = (
            CanonicalizePass(),
            EliminateCommonSubexpressionsPass(),
            # While softmax is one op, and before layouts move the transposes that this takes in.
            FuseAttentionPass(),
            FuseGeluPass(),
            # While batch norm is still one op, so that it can be seen and folded into weights.
            FoldBatchNormPass(),
            # Composites that no template serves whole become primitives, which fuse.
            DecomposePass(keep=keep, keep_dtypes=keep_dtypes),
            # Before folding, which then brings the constants into the layout they are read in.
            AssignLayoutsPass(),
            *(
                [LowerPrecisionPass(target=target, winograd=not saves_memory)]
                if precision == "bf16"
                else []
            ),
            FoldConstantsPass(),
            CanonicalizePass(),
            # Batch norms that went into weights left arithmetic on weights behind.
            FoldWeightsPass(),
            # Decomposed gradients repeat parts of the forward pass; this finds them.
            EliminateCommonSubexpressionsPass(),
            EliminateDeadCodePass(),
        )
    return (
        Phase("trace", (), "the user's ops, in the user's order"),
        Phase("graph", graph, "primitives and composites that a template serves whole"),
        Phase(
            "kernels",
            (FormKernelsPass(fuse=optimize), PlanMemoryPass()),
            "kernels, constants and reshapes; every value has a buffer",
        ),
    )


KERNEL_PHASES = ("linalg", "vector", "llvm", "object")
"""What each kernel goes through after the phases of the graph."""

PHASES = ("trace", "graph", "kernels", *KERNEL_PHASES)


def run_phases(
    graph: GraphModule,
    *,
    since: str = "trace",
    until: str = "kernels",
    optimize: bool = True,
    precision: str = "f32",
    target: str = "host",
    saves_memory: bool = False,
    observe: Callable[[str, str, float], None] | None = None,
    after_phase: Callable[[str, GraphModule], None] | None = None,
) -> None:
    """Runs the graph phases in place.

    Args:
        graph: what to compile; it may be a dump of a later phase than `trace`.
        since: the phase that `graph` is a dump of; its passes do not run again.
        until: the last phase to run.
        optimize: see `graph_phases`.
        precision: likewise.
        target: likewise.
        saves_memory: likewise.
        observe: called with (phase, pass, seconds) after every pass.
        after_phase: called with (phase, graph) for `since` and after every phase that ran.

    Raises:
        CompileError: if a pass leaves invalid IR behind.
    """
    phases = graph_phases(
        optimize=optimize, precision=precision, target=target, saves_memory=saves_memory
    )
    names = [phase.name for phase in phases]
    first, last = names.index(since), names.index(until)
    for i, phase in enumerate(phases[first : last + 1]):
        if i:
            for pass_ in phase.passes:
                start = time.perf_counter()
                _apply(pass_, graph)
                seconds = time.perf_counter() - start
                if observe is not None:
                    observe(phase.name, pass_.name, seconds)
                if config.debug >= 2:
                    ms = seconds * 1e3
                    config.get_logger().info("%s: %s: %.2f ms", phase.name, pass_.name, ms)
                if config.debug >= 5:
                    config.get_logger().info("after %s:\n%s", pass_.name, graph.module)
            _check(phase.name, graph)
        if config.debug >= 4:
            config.get_logger().info("phase %s:\n%s", phase.name, graph.module)
        if after_phase is not None:
            after_phase(phase.name, graph)


def _apply(pass_: GraphPass, graph: GraphModule) -> None:
    if isinstance(pass_, FoldWeightsPass):
        pass_.apply_to(graph)
    else:
        pass_.apply(Context(), graph.module)


def _check(phase: str, graph: GraphModule) -> None:
    """Every phase boundary: the IR verifies, and values are made before they are used."""
    try:
        graph.module.verify()
    except VerifyException as error:
        raise CompileError(f"phase {phase} left invalid IR: {error}") from error
    made: set[SSAValue] = set(graph.main.body.block.args)
    for op in graph.main.body.block.ops:
        for value in op.operands:
            if value not in made:
                raise CompileError(f"phase {phase} left {op.name} before what it uses")
        made.update(op.results)
