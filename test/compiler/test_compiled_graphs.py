"""300 random graphs: compiled equals reference, with and without optimization.

A failing seed is replayed with `random_graph(np.random.default_rng(seed))`.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.graphs import assert_within, interpret, random_graph, random_inputs

from mgec.compiler.api import compile_graph
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.pipeline import run_phases

SEEDS = range(300)


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_equals_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = random_inputs(rng, graph.inputs)
    expected = interpret(graph.module, inputs)
    optimize = seed % 5 != 0  # every fifth graph without optimization: one op, one kernel
    compiled = compile_graph(GraphModule(graph.module.clone()), optimize=optimize)
    assert_within(compiled.load()(*inputs), expected, graph.tolerances)


@pytest.mark.parametrize("seed", range(1000, 1040))
def test_kernel_formation_keeps_the_meaning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = random_inputs(rng, graph.inputs)
    expected = interpret(graph.module, inputs)
    module = GraphModule(graph.module.clone())
    run_phases(module)
    assert_within(interpret(module.module, inputs), expected, graph.tolerances)
