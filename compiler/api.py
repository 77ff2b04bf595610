"""Compiling a graph: from `GraphModule` to something that runs, or to a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.func import ReturnOp
from xdsl.ir import SSAValue

from mgec import config
from mgec.compiler import cache as disk
from mgec.compiler.eager import load_kernel
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.compile import compile_region
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.loading import graph_text, used_weights
from mgec.compiler.parallel import Job, compile_all
from mgec.compiler.passes.form_kernels import root_of
from mgec.compiler.passes.plan_memory import MemoryPlan, plan_memory, write_plan
from mgec.compiler.pause import collector_paused
from mgec.compiler.pipeline import PHASES, run_phases
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge.constant import ConstantOp, WeightOp
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.spec import TensorSpec, from_type
from mgec.errors import CompileError
from mgec.runtime.artifact import IOSpec, TargetBuild, TargetInfo, write_artifact
from mgec.runtime.memory import Storage
from mgec.runtime.program import BoundProgram, Program, Slot, Step

_ALIGNMENT = 64


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
class CompiledGraph:
    """Code and data of a graph; `load` makes it run, `write` puts it into a file.

    Attributes:
        kernels: the distinct kernels.
        program: their calls, in order.
        weights: the constants, as the program addresses them.
        calls: one per step of the program.
        donations: for each output, the input whose buffer it may overwrite, or None.
        plan: the memory plan.
        seconds: compile time by phase.
        text: the IR after kernel formation.
        source_text: the IR of the phase `graph` with its locations, if it was asked for: what
            an artifact can be compiled from again.
        source_weights: the arrays that `source_text` refers to by key.
        weight_offsets: where those of them that the program reads lie in `weights`.
    """

    target: Target
    kernels: list[CompiledKernel]
    program: Program
    weights: bytes
    calls: list[KernelCall]
    input_names: list[str]
    output_names: list[str]
    input_specs: list[TensorSpec]
    output_specs: list[TensorSpec]
    donations: list[int | None]
    plan: MemoryPlan
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    text: str = ""
    source_text: str = ""
    source_weights: dict[str, np.ndarray[Any, Any]] = field(
        default_factory=dict[str, "np.ndarray[Any, Any]"]
    )
    weight_offsets: dict[str, int] = field(default_factory=dict[str, int])
    compiled_kernels: int = 0

    def load(self) -> Executable:
        """Loads the kernels into this process."""
        return Executable(self)

    def write(self, path: str | Path, *, name: str = "main") -> None:
        """Writes an artifact (`.mge`) that `mgec.runtime` runs by itself."""
        from mgec.compiler.codegen.link import link_shared

        code = link_shared(self.kernels, self.target)
        weights, offsets = self._with_source_weights()
        info = TargetInfo(
            name=self.target.name,
            triple=self.target.triple,
            cpu=self.target.cpu,
            features=self.target.required,
            kernels=tuple(k.name for k in self.kernels),
            steps=tuple(c.name for c in self.calls),
        )
        write_artifact(
            path,
            name=name,
            inputs=[_io(n, s) for n, s in zip(self.input_names, self.input_specs, strict=True)],
            outputs=[_io(n, s) for n, s in zip(self.output_names, self.output_specs, strict=True)],
            builds=[
                TargetBuild(
                    info, replace(self.program, constants_bytes=len(weights)), code, weights
                )
            ],
            graph=self.source_text or None,
            info={**self.report(), "weights": offsets},
        )

    def _with_source_weights(self) -> tuple[bytes, dict[str, int]]:
        """The weights section, and where in it each array of the source lies.

        Arrays that the program does not read as they are (packed, folded) come at its end.
        """
        offsets = dict(self.weight_offsets)
        section = bytearray(self.weights)
        for key, array in self.source_weights.items():
            if key not in offsets:
                section += bytes(-len(section) % _ALIGNMENT)
                offsets[key] = len(section)
                section += np.ascontiguousarray(array).tobytes()
        return bytes(section), {key: offsets[key] for key in self.source_weights}

    def report(self) -> dict[str, Any]:
        """What `mgec inspect` shows: per step its kernel, template, FLOPs and line."""
        return {
            "arena_bytes": self.plan.arena_bytes,
            "live_bytes": self.plan.live_bytes,
            "weight_bytes": len(self.weights),
            "steps": [
                {
                    "name": call.name,
                    "kernel": self.kernels[call.kernel].name,
                    "template": self.kernels[call.kernel].template,
                    "flops": self.kernels[call.kernel].flops,
                    "units": step.units,
                    "line": call.location,
                }
                for call, step in zip(self.calls, self.program.steps, strict=True)
            ],
        }


class Executable:
    """A compiled graph in this process.

    Attributes:
        input_specs: specs of the inputs.
        output_specs: specs of the outputs.
        donations: see `CompiledGraph`.
    """

    def __init__(self, compiled: CompiledGraph) -> None:
        self.compiled = compiled
        self.input_specs = compiled.input_specs
        self.output_specs = compiled.output_specs
        self.donations = compiled.donations
        self._kernels = [load_kernel(k) for k in compiled.kernels]
        self._weights = Storage(max(1, len(compiled.weights)))
        if compiled.weights:
            view = self._weights.as_array(np.uint8, (len(compiled.weights),))
            view[...] = np.frombuffer(compiled.weights, np.uint8)
        self.bound: BoundProgram = compiled.program.bind(
            [k.address for k in self._kernels], self._weights.address, keep_alive=self._weights
        )
        self.run: Callable[[Sequence[int]], None] = self.bound.run
        """Runs with the addresses of all inputs, then all outputs."""

    def __call__(self, *arrays: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Runs on NumPy arrays and returns new ones (for tests and tools)."""
        inputs = [
            np.ascontiguousarray(a, dtype=s.dtype)
            for a, s in zip(arrays, self.input_specs, strict=True)
        ]
        outputs = [np.empty(s.shape, s.dtype) for s in self.output_specs]
        self.run([a.ctypes.data for a in (*inputs, *outputs)])
        return outputs


def compile_graph(
    graph: GraphModule,
    *,
    target: str | Target = "host",
    optimize: bool = True,
    keep_source: bool = False,
    since: str = "trace",
    observe: Callable[[str, str, float], None] | None = None,
    after_phase: Callable[[str, GraphModule], None] | None = None,
) -> CompiledGraph:
    """Compiles a graph. The graph is changed in place.

    Args:
        graph: what to compile.
        target: a target or its name.
        optimize: False runs no optimization, for debugging.
        keep_source: remember the IR of the phase `graph`, for the artifact.
        since: the phase that `graph` is a dump of; the phases up to it do not run.
        observe: called with (phase, pass, seconds).
        after_phase: called with (phase, graph).

    Raises:
        CompileError: if something in the compiler goes wrong.
    """
    found = target if isinstance(target, Target) else target_named(target)
    seconds: dict[str, float] = {}
    source: list[tuple[str, dict[str, np.ndarray[Any, Any]]]] = []

    def keep(phase: str, graph: GraphModule) -> None:
        if keep_source and phase == max(since, "graph", key=PHASES.index):
            source.append((graph_text(graph), used_weights(graph)))
        if after_phase is not None:
            after_phase(phase, graph)

    def note(phase: str, name: str, elapsed: float) -> None:
        seconds[phase] = seconds.get(phase, 0.0) + elapsed
        if observe is not None:
            observe(phase, name, elapsed)

    names = graph.input_names, graph.output_names
    with collector_paused():
        run_phases(graph, since=since, optimize=optimize, observe=note, after_phase=keep)
        start = time.perf_counter()
        compiled = _assemble(graph, found)
        seconds["object"] = time.perf_counter() - start
    compiled.seconds = seconds
    if source:
        compiled.source_text, compiled.source_weights = source[0]
    compiled.input_names, compiled.output_names = names
    if config.debug >= 1:
        config.get_logger().info(
            "compiled %d steps, %d kernels (%d new) in %s",
            len(compiled.calls),
            len(compiled.kernels),
            compiled.compiled_kernels,
            {k: f"{v * 1e3:.0f} ms" for k, v in seconds.items()},
        )
    return compiled


def compile_to_file(
    graph: GraphModule,
    path: str | Path,
    *,
    target: str = "host",
    optimize: bool = True,
    name: str = "main",
    since: str = "trace",
) -> CompiledGraph:
    """Compiles a graph and writes it as an artifact; see `compile_graph`."""
    compiled = compile_graph(graph, target=target, optimize=optimize, keep_source=True, since=since)
    compiled.write(path, name=name)
    return compiled


def _assemble(graph: GraphModule, target: Target) -> CompiledGraph:
    """Kernels to code, values to slots."""
    function = graph.main
    block = function.body.block
    plan = plan_memory(block, graph.donations)
    write_plan(function, plan)
    kernels: list[CompiledKernel] = []
    index: dict[str, int] = {}
    steps: list[Step] = []
    calls: list[KernelCall] = []
    constants = _Constants(graph)
    num_inputs = len(block.args)
    arguments: dict[SSAValue, int] = {a: i for i, a in enumerate(block.args)}
    ops = [op for op in block.ops if isinstance(op, KernelOp)]
    keys, code, fresh = compile_kernels(ops, target)

    def slot(value: SSAValue) -> Slot:
        root = root_of(value)
        nbytes = from_type(value.type).nbytes
        if root in arguments:
            return Slot.io(arguments[root], nbytes)
        if root in plan.outputs:
            return Slot.io(num_inputs + plan.outputs[root], nbytes)
        if root in plan.offsets:
            return Slot.arena(plan.offsets[root], nbytes)
        return Slot.constant(constants.offset(root), nbytes)

    for op, key in zip(ops, keys, strict=True):
        kernel = code[key]
        if key not in index:
            index[key] = len(kernels)
            kernels.append(kernel)
        slots = [slot(v) for v in (*op.operands, *op.results)]
        if kernel.scratch_bytes:
            slots.append(Slot.scratch(0, kernel.scratch_bytes))
        if len(slots) != kernel.num_buffers:
            raise CompileError(
                f"kernel {op.kernel_name.data} takes {kernel.num_buffers} buffers "
                f"but the graph gives it {len(slots)}"
            )
        empty = any(from_type(r.type).size == 0 for r in op.results)
        units = 0 if empty else kernel.units.evaluate()
        steps.append(Step(index[key], units, tuple(slots)))
        calls.append(KernelCall(op.kernel_name.data, index[key], str(op.location)))
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
    return CompiledGraph(
        target=target,
        kernels=kernels,
        program=program,
        weights=constants.data(),
        calls=calls,
        input_names=graph.input_names,
        output_names=graph.output_names,
        input_specs=graph.input_specs,
        output_specs=graph.output_specs,
        donations=donations,
        plan=plan,
        weight_offsets=constants.keys,
        text=str(graph.module) if config.debug >= 3 else "",
        compiled_kernels=fresh,
    )


def compile_kernels(
    ops: Sequence[KernelOp], target: Target
) -> tuple[list[str], dict[str, CompiledKernel], int]:
    """Code for kernels: from the cache, or compiled now, each distinct one once.

    Returns:
        The cache key of each op, the code by key, and how many were compiled.
    """
    keys = [disk.kernel_key(canonical_text(op), target.key) for op in ops]
    code: dict[str, CompiledKernel] = {}
    jobs: dict[str, Job] = {}
    names: dict[str, str] = {}
    for op, key in zip(ops, keys, strict=True):
        if key in code or key in jobs:
            continue
        if (kernel := disk.load(key)) is not None:
            code[key] = kernel
        else:
            names[key] = f"{op.kernel_name.data} at {op.location}"
            block, name = op.body.block, f"k{key[:16]}"
            jobs[key] = partial(compile_region, block, name, target, op.in_place, title=names[key])
    for key, kernel in compile_all(jobs, names).items():
        disk.store(key, kernel)
        code[key] = kernel
    return keys, code, len(jobs)


def canonical_text(op: KernelOp) -> str:
    """What determines a kernel's code: its body without names and locations."""
    lines = [json.dumps(sorted(op.in_place.items()))]
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


class _Constants:
    """The weights section: each constant once, aligned."""

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self._offsets: dict[SSAValue, int] = {}
        self._arrays: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.keys: dict[str, int] = {}
        self.size = 0

    def offset(self, value: SSAValue) -> int:
        """Where the constant made by `value`'s op lies."""
        if (known := self._offsets.get(value)) is not None:
            return known
        owner = value.owner
        if isinstance(owner, ConstantOp):
            array: Any = owner.attrs["value"]
        else:
            assert isinstance(owner, WeightOp), f"{value} has no buffer"
            array = self._graph.weights[str(owner.attrs["key"])]
        offset = self.size
        if isinstance(owner, WeightOp):
            self.keys[str(owner.attrs["key"])] = offset
        self._offsets[value] = offset
        self._arrays.append((offset, array))
        self.size = -(-(offset + max(1, array.nbytes)) // _ALIGNMENT) * _ALIGNMENT
        return offset

    def data(self) -> bytes:
        """The section."""
        buffer = bytearray(self.size)
        for offset, array in self._arrays:
            raw = np.ascontiguousarray(array).tobytes()
            buffer[offset : offset + len(raw)] = raw
        return bytes(buffer)


def _io(name: str, spec: TensorSpec) -> IOSpec:
    return IOSpec(name, spec.dtype.name, spec.shape)
