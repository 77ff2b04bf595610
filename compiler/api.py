"""Compiling a graph: from `GraphModule` to something that runs, or to a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mgec import config
from mgec.compiler.assemble import Assembly, assemble
from mgec.compiler.constants import ALIGNMENT
from mgec.compiler.eager import load_kernel
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.loading import graph_text, used_weights
from mgec.compiler.pause import collector_paused
from mgec.compiler.pipeline import PHASES, PRECISIONS, run_phases
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge.spec import TensorSpec
from mgec.errors import OptionError
from mgec.runtime.artifact import Buffer, IOSpec, TargetBuild, TargetInfo, write_artifact
from mgec.runtime.program import BoundProgram


@dataclass
class CompiledGraph(Assembly):
    """Code and data of a graph; `load` makes it run, `write` puts it into a file.

    Attributes:
        target: what it was compiled for.
        input_names: names of the inputs; likewise for the outputs.
        input_specs: specs of the inputs; likewise for the outputs.
        seconds: compile time by phase.
        text: the IR after kernel formation.
        source_text: the IR of the phase `graph` with its locations, if it was asked for: what
            an artifact can be compiled from again.
        source_weights: the arrays that `source_text` refers to by key.
    """

    target: Target
    input_names: list[str]
    output_names: list[str]
    input_specs: list[TensorSpec]
    output_specs: list[TensorSpec]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    text: str = ""
    source_text: str = ""
    source_weights: dict[str, np.ndarray[Any, Any]] = field(
        default_factory=dict[str, "np.ndarray[Any, Any]"]
    )

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
            inputs=self.io[0],
            outputs=self.io[1],
            builds=[
                TargetBuild(
                    info, replace(self.program, constants_bytes=len(weights)), code, weights
                )
            ],
            graph=self.source_text or None,
            info={**self.report(), "weights": offsets},
        )

    def emit(self, kind: str, path: str | Path, *, name: str = "main") -> list[Path]:
        """Writes plain files for C: "so", "obj", "header" or "exe"; returns them."""
        from mgec.compiler.codegen.emit import emit

        return emit(self, kind, path, name=name)

    @property
    def io(self) -> tuple[list[IOSpec], list[IOSpec]]:
        """The inputs and the outputs, as artifacts describe them."""
        inputs = zip(self.input_names, self.input_specs, strict=True)
        outputs = zip(self.output_names, self.output_specs, strict=True)
        return [_io(*each) for each in inputs], [_io(*each) for each in outputs]

    def _with_source_weights(self) -> tuple[Buffer, dict[str, int]]:
        """The weights section, and where in it each array of the source lies.

        Arrays that the program does not read as they are (packed, folded) come at its end.
        """
        offsets = dict(self.weight_offsets)
        missing = {k: v for k, v in self.source_weights.items() if k not in offsets}
        if not missing:
            return self.weights, {key: offsets[key] for key in self.source_weights}
        section = bytearray(self.weights)
        for key, array in missing.items():
            section += bytes(-len(section) % ALIGNMENT)
            offsets[key] = len(section)
            section += np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        return section, {key: offsets[key] for key in self.source_weights}

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
        weights = np.frombuffer(compiled.weights, np.uint8)
        self.bound: BoundProgram = compiled.program.bind(
            [k.address for k in self._kernels], weights.ctypes.data, keep_alive=weights
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
    precision: str = "f32",
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
        precision: "f32", or "bf16" to multiply bfloat16 where the target can and it is faster.
        keep_source: remember the IR of the phase `graph`, for the artifact.
        since: the phase that `graph` is a dump of; the phases up to it do not run.
        observe: called with (phase, pass, seconds).
        after_phase: called with (phase, graph).

    Raises:
        CompileError: if something in the compiler goes wrong.
    """
    found = target if isinstance(target, Target) else target_named(target)
    if precision not in PRECISIONS:
        raise OptionError(f"there is no precision {precision!r}", fix="use f32 or bf16")
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
        run_phases(
            graph, since=since, optimize=optimize, precision=precision, target=found.name,
            saves_memory=found.saves_memory,
            observe=note, after_phase=keep,
        )  # fmt: skip
        start = time.perf_counter()
        parts = assemble(graph, found)
        seconds["object"] = time.perf_counter() - start
    compiled = CompiledGraph(
        **vars(parts),
        target=found,
        input_names=names[0],
        output_names=names[1],
        input_specs=graph.input_specs,
        output_specs=graph.output_specs,
        seconds=seconds,
        text=str(graph.module) if config.debug >= 3 else "",
    )
    if source:
        compiled.source_text, compiled.source_weights = source[0]
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


def _io(name: str, spec: TensorSpec) -> IOSpec:
    return IOSpec(name, spec.dtype.name, spec.shape)
