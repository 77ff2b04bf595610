"""From a row of kernel_cases.py to a program that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from kernel_cases import Case, Operand
from torch_peer import values
from xdsl.builder import Builder
from xdsl.rewriter import InsertPoint

from mgec.compiler.assemble import assemble
from mgec.compiler.eager import eager_kernel, load_kernel
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.pipeline import run_phases
from mgec.compiler.targets import Target
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.constant import WeightOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import TensorSpec
from mgec.runtime.program import BoundProgram, Program, Slot, SlotKind, Step

Array = np.ndarray[Any, Any]

ALIGNMENT = 64
"""Bytes to which operands are aligned."""


def aligned(nbytes: int) -> Array:
    """Bytes that begin a cache line."""
    raw = np.zeros(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def array_of(operand: Operand, rng: np.random.Generator) -> Array:
    """Numbers for an operand, in an array that begins a cache line."""
    numbers = values(operand.shape, operand.fill, operand.below, rng).astype(operand.dtype)
    array = aligned(numbers.nbytes).view(operand.dtype).reshape(operand.shape)
    array[...] = numbers
    return array


def graph_of(case: Case, weights: Sequence[Array]) -> GraphModule:
    """The graph of a row."""
    graph = GraphModule.empty([TensorSpec(each.shape, each.dtype) for each in case.inputs])
    block = graph.main.body.block
    b = IRBuilder(Builder(InsertPoint.at_end(block)))
    constants: list[Any] = []
    for i, array in enumerate(weights):
        graph.weights[f"w{i}"] = array
        spec = case.weights[i]
        constants.append(b.weight(key=f"w{i}", shape=spec.shape, dtype=spec.dtype))
    graph.finish([case.body(b, *block.args, *constants)])
    graph.set_names([f"x{i}" for i in range(len(case.inputs))], ["y"])
    return graph


@dataclass
class Built:
    """A compiled row.

    Attributes:
        program: what one run does.
        addresses: of its kernels.
        weights: what its constants are.
        labels: what was chosen, by step.
        code_bytes: of all kernels.
    """

    program: Program
    addresses: list[int]
    weights: Array
    labels: list[str]
    code_bytes: int

    def bind(self, threads: int, copies: int = 1) -> BoundProgram:
        """Ready to run, on weights that there are several copies of: one for each run."""
        size = self.program.constants_bytes
        stride = -(-size // ALIGNMENT) * ALIGNMENT
        memory = aligned(stride * copies)
        for i in range(copies):
            memory[i * stride : i * stride + size] = self.weights[:size]
        steps = [_moved(step, i * stride) for i in range(copies) for step in self.program.steps]
        program = replace(self.program, steps=tuple(steps), constants_bytes=len(memory))
        return program.bind(
            self.addresses, memory.ctypes.data if size else 0, threads=threads, keep_alive=memory
        )


def _moved(step: Step, offset: int) -> Step:
    """A step that finds its constants elsewhere."""
    slots = [
        replace(slot, offset=slot.offset + offset) if slot.kind is SlotKind.CONSTANT else slot
        for slot in step.slots
    ]
    return replace(step, slots=tuple(slots))


def compile_case(case: Case, weights: Sequence[Array], target: Target, *, tuned: bool) -> Built:
    """Compiles a row as a network is compiled.

    Args:
        case: the row.
        weights: its constants.
        target: what to compile for.
        tuned: whether kernels that were measured to be the fastest are taken.
    """
    graph = graph_of(case, weights)
    run_phases(graph, target=target.name)
    made = assemble(graph, target, None if tuned else lambda text: None)
    return Built(
        made.program,
        [load_kernel(kernel).address for kernel in made.kernels],
        np.frombuffer(made.weights, np.uint8),
        [made.kernels[call.kernel].label for call in made.calls],
        sum(len(kernel.object_code) for kernel in made.kernels),
    )


def is_one_op(case: Case) -> bool:
    """Whether eager mode has one kernel for a row."""
    return len(_ops(graph_of(case, [np.empty(0) for _ in case.weights]))) == 1


def _ops(graph: GraphModule) -> list[MgeOp]:
    ops = [op for op in graph.main.body.block.ops if isinstance(op, MgeOp)]
    return [op for op in ops if not isinstance(op, WeightOp)]


def dynamic_case(case: Case, weights: Sequence[Array]) -> Built:
    """Compiles a row of one op for sizes of run time, as eager mode does."""
    (op,) = _ops(graph_of(case, weights))
    ins, outs = op.operand_specs, op.result_specs
    kernel = eager_kernel(type(op), ins, outs, op.attrs)
    sizes = [size for spec in (*ins, *outs) if spec for size in spec.shape if size != 1]
    for name in op.runtime_attrs:
        value: Any = op.attrs[name]
        sizes += value if isinstance(value, tuple) else [value]
    count = len(case.inputs)
    given = [spec for spec in ins if spec]  # the inputs, then the weights
    offsets = np.cumsum([0, *(len(_padded(w)) for w in weights)]).tolist()
    slots = [Slot.io(i, spec.nbytes) for i, spec in enumerate(given[:count])]
    slots += [Slot.constant(o, w.nbytes) for o, w in zip(offsets, weights, strict=False)]
    slots += [Slot.io(count + i, spec.nbytes) for i, spec in enumerate(outs)]
    if kernel.scratch_bytes:
        slots.append(Slot.scratch(0, kernel.scratch_bytes))
    step = Step(0, kernel.units.evaluate(sizes), tuple(slots), tuple(sizes))
    data = np.concatenate([*(_padded(w) for w in weights), aligned(0)])
    program = Program((step,), 1, count + len(outs), 0, kernel.scratch_bytes, len(data))
    return Built(program, [kernel.address], data, [kernel.template], 0)


def _padded(array: Array) -> Array:
    """The bytes of an array, up to a whole cache line."""
    data = aligned(-(-array.nbytes // ALIGNMENT) * ALIGNMENT)
    data[: array.nbytes] = array.reshape(-1).view(np.uint8)
    return data
