"""A network whose kernels are timed one by one, while it runs as a whole.

A kernel alone in a loop finds its weights, and what it reads, in the caches; in a network both
come from where the other steps left them. So candidates are put into the network, and each
step of whole runs is timed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from mgec.compiler.assemble import assemble, canonical_text, constant_operands
from mgec.compiler.eager import EagerKernel, load_kernel
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.kernels.source import CompiledKernel
from mgec.compiler.targets import Target
from mgec.dialects.mge.kernel import KernelOp
from mgec.runtime.program import BoundProgram

_LEAST_RUNS = 3


@dataclass(frozen=True)
class NetworkKernel:
    """A distinct kernel of a network.

    Attributes:
        text: what identifies it; see `canonical_text`.
        name: what kernel formation called its first call.
        op: its first call.
        constants: inputs that are constants.
        calls: how many steps of the network call it.
    """

    text: str
    name: str
    op: KernelOp
    constants: tuple[int, ...]
    calls: int


@dataclass
class Variant:
    """A network with certain kernels, ready to run.

    Attributes:
        bound: the program.
        steps: for each step, the text of its kernel.
        addresses: of inputs and outputs.
        keep: what the addresses point into.
        best: seconds of each step, the least of all runs so far.
        runs: how many there were.
    """

    bound: BoundProgram
    steps: list[str]
    addresses: list[int]
    keep: object
    best: list[float]
    runs: int = 0

    def run(self, seconds: float) -> None:
        """Runs again and again for that long, a few times at least."""
        end = time.perf_counter() + seconds
        runs = 0
        while runs < _LEAST_RUNS or time.perf_counter() < end:
            times = self.bound.run_timed(self.addresses)
            self.best = [min(pair) for pair in zip(self.best, times, strict=True)]
            runs += 1
        self.runs += runs

    def forget(self) -> None:
        """Forgets the times so far."""
        self.best, self.runs = [inf] * len(self.steps), 0

    def seconds(self) -> dict[str, float]:
        """By text of the kernel, the time of all its calls in one run."""
        total: dict[str, float] = {}
        for text, seconds in zip(self.steps, self.best, strict=True):
            total[text] = total.get(text, 0.0) + seconds
        return total


@dataclass
class Network:
    """A graph after kernel formation, and what it is run on.

    Attributes:
        graph: the graph.
        target: what it is compiled for: this machine.
        threads: how many one run may use.
        inputs: one array for each input.
        kernels: the distinct kernels, in the order of their first calls.
    """

    graph: GraphModule
    target: Target
    threads: int
    inputs: Sequence[np.ndarray[Any, Any]]
    kernels: list[NetworkKernel] = field(default_factory=list[NetworkKernel])

    def __post_init__(self) -> None:
        self._ops = [op for op in self.graph.main.body.block.ops if isinstance(op, KernelOp)]
        self._loaded: dict[str, EagerKernel] = {}
        self._texts: list[str] = []
        first: dict[str, tuple[KernelOp, tuple[int, ...]]] = {}
        self._forget_plan()
        for op in self._ops:
            constants = constant_operands(op)
            text = canonical_text(op, constants)
            self._texts.append(text)
            first.setdefault(text, (op, constants))
        self.kernels = [
            NetworkKernel(text, op.kernel_name.data, op, known, self._texts.count(text))
            for text, (op, known) in first.items()
        ]

    def variant(self, labels: Mapping[str, str]) -> Variant:
        """Compiles the network.

        Args:
            labels: by text, which candidates to take; the default for all others.

        Raises:
            CompileError: if a candidate cannot be compiled.
        """
        self._forget_plan()
        made = assemble(self.graph, self.target, labels.get)
        steps: list[str] = []
        for text in self._texts:
            steps += [text] * len(made.kernels[made.calls[len(steps)].kernel].stages)
        weights = np.frombuffer(made.weights, np.uint8)
        bound = made.program.bind(
            [self._load(kernel).address for kernel in made.kernels],
            weights.ctypes.data,
            threads=self.threads,
            keep_alive=weights,
        )
        inputs = [np.ascontiguousarray(array) for array in self.inputs]
        outputs = [np.empty(s.shape, s.dtype) for s in self.graph.output_specs]
        arrays = [*inputs, *outputs]
        addresses = [array.ctypes.data for array in arrays]
        return Variant(bound, steps, addresses, arrays, [inf] * len(steps))

    def _forget_plan(self) -> None:
        """Removes what an earlier assembly wrote: it is no part of a kernel's identity."""
        for op in self._ops:
            op.in_place = {}

    def _load(self, kernel: CompiledKernel) -> EagerKernel:
        if kernel.name not in self._loaded:
            self._loaded[kernel.name] = load_kernel(kernel)
        return self._loaded[kernel.name]
