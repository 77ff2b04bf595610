"""The memory plan: nothing that lives together overlaps, nothing is overwritten too early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graphs import random_graph
from xdsl.dialects import test as test_dialect

from mgec.compiler.api import compile_graph
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.passes.form_kernels import root_of
from mgec.compiler.passes.plan_memory import (
    ALIGNMENT,
    Interval,
    MemoryPlan,
    assign_offsets,
    plan_memory,
)
from mgec.compiler.pipeline import run_phases
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.spec import FLOAT32, TensorSpec, from_type, to_type

SOME = test_dialect.TestOp(result_types=[to_type(TensorSpec((1,), FLOAT32))]).results[0]
LIVES = st.lists(
    st.tuples(st.integers(0, 4096), st.integers(0, 20), st.integers(0, 8)), max_size=40
)


def rounded(nbytes: int) -> int:
    return max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(lives=LIVES)
def test_live_buffers_do_not_overlap(lives: list[tuple[int, int, int]]) -> None:
    intervals = [Interval(SOME, size, first, first + more) for size, first, more in lives]
    total = assign_offsets(intervals)
    for i, a in enumerate(intervals):
        assert a.offset % ALIGNMENT == 0
        assert a.offset + a.nbytes <= total
        for b in intervals[:i]:
            if a.first <= b.last and b.first <= a.last:
                assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
                assert a.offset != b.offset  # not even those of no bytes
    alive = [sum(rounded(i.nbytes) for i in intervals if i.first <= t <= i.last) for t in range(30)]
    assert total >= max(alive)


def planned(seed: int, *, optimize: bool, donate: bool) -> tuple[GraphModule, MemoryPlan]:
    """A random graph and its plan; with `donate`, results replace arguments of their type."""
    rng = np.random.default_rng(seed)
    graph = GraphModule(random_graph(rng).module)
    donations: list[int | None] = [None] * len(graph.output_specs)
    if donate:
        for j, argument in enumerate(graph.input_specs):
            fits = [i for i, s in enumerate(graph.output_specs) if s == argument]
            fits = [i for i in fits if donations[i] is None]
            if fits:
                donations[int(rng.choice(fits))] = j
    graph.set_names(graph.input_names, graph.output_names, donations)
    run_phases(graph, optimize=optimize)
    return graph, plan_memory(graph.main.body.block, graph.donations)


def buffers(graph: GraphModule, plan: MemoryPlan) -> dict[Any, tuple[Any, int, int]]:
    """Per value its memory: (space, begin, end); results and arguments are spaces of their own."""
    found: dict[Any, tuple[Any, int, int]] = {}
    for i, argument in enumerate(graph.main.body.block.args):
        found[argument] = (("in", i), 0, from_type(argument.type).nbytes)
    for value, i in plan.outputs.items():
        space = ("in", plan.donated[i]) if i in plan.donated else ("out", i)
        found[value] = (space, 0, from_type(value.type).nbytes)
    for value, offset in plan.offsets.items():
        assert value not in found
        found[value] = ("arena", offset, offset + from_type(value.type).nbytes)
    return found


@pytest.mark.parametrize("optimize", [True, False])
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(seed=st.integers(0, 2**32 - 1), donate=st.booleans())
def test_every_read_finds_what_was_written(optimize: bool, seed: int, donate: bool) -> None:
    """Simulates the run: who wrote each byte last? That must be the value that is read."""
    graph, plan = planned(seed, optimize=optimize, donate=donate)
    where = buffers(graph, plan)
    memory: dict[Any, list[tuple[int, int, Any]]] = {}

    def write(value: Any) -> None:
        space, begin, end = where[value]
        kept = [w for w in memory.get(space, []) if w[1] <= begin or end <= w[0]]
        memory[space] = [*kept, (begin, end, value)]

    def read(value: Any) -> None:
        root = root_of(value)
        if root not in where:
            return  # a constant
        space, begin, end = where[root]
        assert (begin, end, root) in memory[space], f"{root} was overwritten"

    for argument in graph.main.body.block.args:
        write(argument)
    for kernel in graph.main.body.block.ops:
        if not isinstance(kernel, KernelOp):
            continue
        for value in kernel.operands:
            read(value)
        pairs = plan.in_place[kernel]
        for i, result in enumerate(kernel.results):
            mine = where[result]
            for j, value in enumerate(kernel.operands):
                root = root_of(value)
                if (
                    root in where
                    and pairs.get(i) != j
                    and root is not root_of(kernel.operands[pairs[i]] if i in pairs else result)
                ):
                    space, begin, end = where[root]
                    apart = space != mine[0] or end <= mine[1] or mine[2] <= begin
                    assert apart, f"{kernel.kernel_name.data} writes over what it reads"
            if i in pairs:
                assert mine == where[root_of(kernel.operands[pairs[i]])]
        for result in kernel.results:
            write(result)
        for result in kernel.results:
            read(result)  # no result overwrote another
    for value in graph.return_op.operands:
        read(value)


def test_donated_arguments_really_are(build: Any) -> None:
    """Of the random graphs above some donate; and a donated argument is the result's memory."""
    assert any(planned(s, optimize=True, donate=True)[1].donated for s in range(20))
    graph = build(lambda b, w, g: b.sub(w, g), (64,), (64,), donations=[0])
    compiled = compile_graph(graph)
    assert compiled.donations == [0]
    w, g = np.arange(64, dtype=np.float32), np.ones(64, np.float32)
    compiled.load().run([w.ctypes.data, g.ctypes.data, w.ctypes.data])
    np.testing.assert_array_equal(w, np.arange(64) - 1)


def test_arena_is_near_its_lower_bound() -> None:
    """The greedy plan's arena over the most that is alive, over 100 graphs."""
    ratios: list[float] = []
    for seed in range(100):
        _, plan = planned(seed, optimize=False, donate=False)
        assert plan.arena_bytes >= plan.live_bytes
        if plan.live_bytes:
            ratios.append(plan.arena_bytes / plan.live_bytes)
    assert np.mean(ratios) < 1.05, f"mean {np.mean(ratios):.3f}, worst {max(ratios):.3f}"
    assert max(ratios) < 1.6, f"mean {np.mean(ratios):.3f}, worst {max(ratios):.3f}"
    print(f"arena / live: mean {np.mean(ratios):.3f}, worst {max(ratios):.3f}")
