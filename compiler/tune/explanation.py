"""What a compiled graph does, kernel by kernel: choices, operations, bytes, time, limits."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mgec.compiler.api import CompiledGraph
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.tune.ceilings import Ceilings
from mgec.dialects.mge.constant import ConstantOp
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.op import MgeOp
from mgec.runtime.program import SlotKind, Step


@dataclass(frozen=True)
class Limit:
    """A time measured, beside the least that the machine allows.

    Attributes:
        median: seconds, of all runs.
        least: seconds, of all runs.
        ceiling: seconds that the machine needs at its best.
        bound_by: what takes them: "compute", "memory" or "cache".
    """

    median: float
    least: float
    ceiling: float
    bound_by: str

    @property
    def percent(self) -> float:
        """How close the least time comes to the ceiling."""
        return 100 * self.ceiling / self.least if self.least else 0.0


@dataclass(frozen=True)
class StepExplanation:
    """One step: a kernel, or a stage of one.

    Attributes:
        units: units of parallel work.
        flops: multiplications and additions of the op's definition; 0 where not counted.
        performed_flops: those of the algorithm, from which the ceiling is.
        input_bytes: read of inputs and of other steps' results.
        output_bytes: written.
        weight_bytes: read of constants, as they were packed.
        workspace_bytes: handed on between stages.
        limit: times, if they were measured.
    """

    units: int
    flops: int
    performed_flops: int
    input_bytes: int
    output_bytes: int
    weight_bytes: int
    workspace_bytes: int
    limit: Limit | None = None

    @property
    def nbytes(self) -> int:
        """All bytes."""
        activations = self.input_bytes + self.output_bytes + self.workspace_bytes
        return activations + self.weight_bytes

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.flops / self.nbytes if self.nbytes else 0.0


@dataclass(frozen=True)
class KernelExplanation:
    """One call of a kernel.

    Attributes:
        name: from kernel formation.
        kernel: number of its code among the different kernels.
        ops: the ops that were fused, in order.
        template: which made it.
        label: the template and its numbers.
        notes: why.
        line: of the model's source.
        steps: its stages, usually one.
    """

    name: str
    kernel: int
    ops: tuple[str, ...]
    template: str
    label: str
    notes: tuple[str, ...]
    line: str
    steps: tuple[StepExplanation, ...]


@dataclass
class Explanation:
    """A compiled graph.

    Attributes:
        calls: in order.
        arena_bytes: memory for values between kernels.
        live_bytes: what of it is alive at once at most: no plan can do with less.
        weight_bytes: constants.
        scratch_bytes: for each thread.
        ceilings: of this machine, if times were measured.
        threads: how many ran.
    """

    calls: list[KernelExplanation]
    arena_bytes: int
    live_bytes: int
    weight_bytes: int
    scratch_bytes: int
    ceilings: Ceilings | None = None
    threads: int = 0


def explain(graph: GraphModule, compiled: CompiledGraph) -> Explanation:
    """Describes a graph that was compiled.

    Args:
        graph: after `compile_graph`.
        compiled: what that returned.
    """
    calls: list[KernelExplanation] = []
    at = 0
    for op in graph.main.body.block.ops:
        if not isinstance(op, KernelOp):
            continue
        call = compiled.calls[at]
        stages = compiled.kernels[call.kernel].stages
        steps = [_step(op, compiled.program.steps[at + i], stage) for i, stage in enumerate(stages)]
        inner = [o for o in op.body.block.ops if isinstance(o, MgeOp)]
        calls.append(
            KernelExplanation(
                name=call.name,
                kernel=call.kernel,
                ops=tuple(
                    o.name.removeprefix("mge.") for o in inner if not isinstance(o, ConstantOp)
                ),
                template=stages[0].template,
                label=stages[0].label,
                notes=stages[0].notes,
                line=call.location,
                steps=tuple(steps),
            )
        )
        at += len(stages)
    return Explanation(
        calls,
        arena_bytes=compiled.plan.arena_bytes,
        live_bytes=compiled.plan.live_bytes,
        weight_bytes=len(compiled.weights),
        scratch_bytes=compiled.program.scratch_bytes,
    )


def _step(op: KernelOp, step: Step, stage: CompiledKernel) -> StepExplanation:
    inputs, outputs = len(op.operands), len(op.results)
    sizes = {"input": 0, "output": 0, "weight": 0, "workspace": 0}
    for i, slot in enumerate(step.slots):
        if slot.kind is SlotKind.SCRATCH or (stage.touched is not None and i not in stage.touched):
            continue
        if i < inputs:
            kind = "weight" if slot.kind is SlotKind.CONSTANT else "input"
        else:
            kind = "output" if i < inputs + outputs else "workspace"
        sizes[kind] += slot.nbytes
    if stage.template == "movement":  # of a table, only the rows that are taken
        sizes["weight"] = min(sizes["weight"], sizes["output"])
        sizes["input"] = min(sizes["input"], sizes["output"])
    performed = stage.flops if stage.performed_flops is None else stage.performed_flops
    return StepExplanation(
        step.units,
        stage.flops,
        performed,
        sizes["input"],
        sizes["output"],
        sizes["weight"],
        sizes["workspace"],
    )


def with_times(
    explanation: Explanation,
    runs: Sequence[Sequence[float]],
    ceilings: Ceilings,
    *,
    threads: int,
    cache_bytes: int,
) -> Explanation:
    """Adds measured times.

    Args:
        explanation: without them.
        runs: for each run, the seconds of each step.
        ceilings: of this machine, with as many threads.
        threads: how many ran.
        cache_bytes: of all second-level caches in use. What a step reads and writes besides
            weights is taken to lie there if it fits; weights always come from memory.
    """
    samples = list(zip(*runs, strict=True))
    calls: list[KernelExplanation] = []
    at = 0
    for call in explanation.calls:
        steps: list[StepExplanation] = []
        for step in call.steps:
            activations = step.nbytes - step.weight_bytes
            near = activations if activations <= cache_bytes else 0
            bounds = ceilings.seconds(step.performed_flops, step.nbytes - near, near)
            bound_by = max(bounds, key=lambda name: bounds[name])
            limit = Limit(
                statistics.median(samples[at]), min(samples[at]), bounds[bound_by], bound_by
            )
            steps.append(replace(step, limit=limit))
            at += 1
        calls.append(replace(call, steps=tuple(steps)))
    return replace(explanation, calls=calls, ceilings=ceilings, threads=threads)
