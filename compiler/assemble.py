"""From a graph of kernels to a program: code for the kernels, addresses for the values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from xdsl.dialects.func import ReturnOp
from xdsl.ir import SSAValue

from mgec.compiler import cache as disk
from mgec.compiler.constants import ConstantSection, is_constant
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.compile import compile_region
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.parallel import Job, compile_all
from mgec.compiler.passes.form_kernels import root_of
from mgec.compiler.passes.plan_memory import MemoryPlan, plan_memory, write_plan
from mgec.compiler.targets import Target
from mgec.compiler.tune import database
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.spec import from_type
from mgec.errors import CompileError
from mgec.runtime.program import Program, Slot, Step


@dataclass(frozen=True)
class KernelCall:
    """One step of a compiled graph, for reports.

    Attributes:
        name: what kernel formation called it.
        kernel: index of its code among the compiled kernels.
        location: the user's line, as text.
    """

    name: str
    kernel: int
    location: str


@dataclass
class Assembly:
    """What runs.

    Attributes:
        kernels: the distinct kernels.
        program: their calls, in order.
        weights: the constants, as the program addresses them.
        weight_offsets: where weights that are there as they are lie, by key.
        calls: one per step of the program.
        donations: for each output, the input whose buffer it may overwrite, or None.
        plan: the memory plan.
        compiled_kernels: how many kernels were not in the cache.
    """

    kernels: list[CompiledKernel]
    program: Program
    weights: memoryview
    weight_offsets: dict[str, int]
    calls: list[KernelCall]
    donations: list[int | None]
    plan: MemoryPlan
    compiled_kernels: int


Choose = Callable[[str], str | None]
"""From a kernel's canonical text to the label of the candidate to take; None for the default."""


def assemble(graph: GraphModule, target: Target, choose: Choose | None = None) -> Assembly:
    """Compiles the kernels of a graph and says where each finds its operands.

    Args:
        graph: after kernel formation.
        target: what to compile for.
        choose: which candidates to take; by default what was measured, see `mgec tune`.
    """
    function = graph.main
    block = function.body.block
    ops = [op for op in block.ops if isinstance(op, KernelOp)]
    keys, code, fresh = compile_kernels(ops, target, choose)
    workspaces = {op: code[key].workspace_bytes for op, key in zip(ops, keys, strict=True)}
    plan = plan_memory(block, graph.donations, workspaces)
    write_plan(function, plan)
    constants = ConstantSection(graph)
    num_inputs = len(block.args)
    arguments: dict[SSAValue, int] = {a: i for i, a in enumerate(block.args)}

    def slot(value: SSAValue, kernel: CompiledKernel, entry: int) -> Slot:
        root = root_of(value)
        nbytes = from_type(value.type).nbytes
        if root in arguments:
            return Slot.io(arguments[root], nbytes)
        if root in plan.outputs:
            return Slot.io(num_inputs + plan.outputs[root], nbytes)
        if root in plan.offsets:
            return Slot.arena(plan.offsets[root], nbytes)
        return Slot.constant(*constants.place(value, root, dict(kernel.packing).get(entry)))

    kernels: list[CompiledKernel] = []
    index: dict[str, int] = {}
    steps: list[Step] = []
    calls: list[KernelCall] = []
    for op, key in zip(ops, keys, strict=True):
        first = code[key]
        if key not in index:
            index[key] = len(kernels)
            kernels += first.stages
        values = [slot(v, first, i) for i, v in enumerate((*op.operands, *op.results))]
        if first.workspace_bytes:
            values.append(Slot.arena(plan.workspaces[op], first.workspace_bytes))
        empty = any(from_type(r.type).size == 0 for r in op.results)
        for number, kernel in enumerate(first.stages, start=index[key]):
            slots = list(values)
            if kernel.scratch_bytes:
                slots.append(Slot.scratch(0, kernel.scratch_bytes))
            if len(slots) != kernel.num_buffers:
                raise CompileError(
                    f"kernel {op.kernel_name.data} takes {kernel.num_buffers} buffers "
                    f"but the graph gives it {len(slots)}"
                )
            units = 0 if empty else kernel.units.evaluate()
            steps.append(Step(number, units, tuple(slots)))
            calls.append(KernelCall(op.kernel_name.data, number, str(op.location)))
    terminator = block.last_op
    assert isinstance(terminator, ReturnOp)
    program = Program(
        tuple(steps),
        num_kernels=len(kernels),
        num_io=num_inputs + len(terminator.operands),
        arena_bytes=plan.arena_bytes,
        scratch_bytes=max((k.scratch_bytes for k in kernels), default=0),
        constants_bytes=constants.size,
    )
    donations: list[int | None] = [None] * len(terminator.operands)
    for output, argument in plan.donated.items():
        donations[output] = argument
    return Assembly(
        kernels, program, constants.data(), constants.keys, calls, donations, plan, fresh
    )


def compile_kernels(
    ops: Sequence[KernelOp], target: Target, choose: Choose | None = None
) -> tuple[list[str], dict[str, CompiledKernel], int]:
    """Code for kernels: from the cache, or compiled now, each distinct one once.

    Args:
        ops: the kernels.
        target: what to compile for.
        choose: see `assemble`.

    Returns:
        The cache key of each op, the code by key, and how many were compiled.
    """
    constants = [constant_operands(op) for op in ops]
    texts = [canonical_text(op, known) for op, known in zip(ops, constants, strict=True)]
    labels = [choose(text) if choose else _measured_label(text, target) for text in texts]
    keys = [
        disk.kernel_key(text if label is None else f"{text}\nlabel {label}", target.key)
        for text, label in zip(texts, labels, strict=True)
    ]
    code: dict[str, CompiledKernel] = {}
    jobs: dict[str, Job] = {}
    names: dict[str, str] = {}
    for op, known, key, label in zip(ops, constants, keys, labels, strict=True):
        if key in code or key in jobs:
            continue
        if (kernel := disk.load(key)) is not None:
            code[key] = kernel
        else:
            names[key] = f"{op.kernel_name.data} at {op.location}"
            jobs[key] = partial(
                compile_region,
                op.body.block,
                f"k{key[:16]}",
                target,
                op.in_place,
                constants=known,
                title=names[key],
                label=label,
            )
    for key, kernel in compile_all(jobs, names).items():
        disk.store(key, kernel)
        code[key] = kernel
    return keys, code, len(jobs)


def _measured_label(text: str, target: Target) -> str | None:
    found = database.find(text, target)
    return None if found is None else found.label


def constant_operands(op: KernelOp) -> tuple[int, ...]:
    """Which operands of a kernel are constants of the graph, that may be packed for it."""
    return tuple(i for i, value in enumerate(op.operands) if is_constant(root_of(value)))


def canonical_text(op: KernelOp, constants: Sequence[int] = ()) -> str:
    """What determines a kernel's code: its body without names and locations."""
    lines = [json.dumps([sorted(op.in_place.items()), list(constants)])]
    numbers: dict[SSAValue, int] = {}
    for argument in op.body.block.args:
        numbers[argument] = len(numbers)
        lines.append(str(argument.type))
    for inner in op.body.block.ops:
        operands = [numbers[v] for v in inner.operands]
        properties = {k: str(v) for k, v in sorted(inner.properties.items())}
        types = [str(r.type) for r in inner.results]
        for r in inner.results:
            numbers[r] = len(numbers)
        lines.append(f"{inner.name} {operands} {properties} {types}")
    return "\n".join(lines)
