"""Every pass leaves the meaning of random graphs alone; the reference rules are the judge.

A failing example prints its seed: `random_graph(np.random.default_rng(seed))` makes the graph again.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.graphs import (
    assert_same_bits,
    assert_within,
    interpret,
    random_graph,
    random_inputs,
)
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnknownLoc

from mgec.compiler.passes import all_passes

SEEDS = st.integers(0, 2**32 - 1)
EXACT = ["mge-canonicalize", "mge-cse", "mge-dce", "mge-fold-constants"]
# A decomposition rounds after each of its ops, the composite once.
TOLERANT = ["mge-decompose"]


def run(name: str, module: ModuleOp) -> ModuleOp:
    """Applies a pass to a copy, and checks that what comes out is valid and has locations."""
    copy = module.clone()
    all_passes()[name]()().apply(Context(), copy)
    copy.verify()
    for op in copy.walk():
        assert op is copy or not isinstance(op.location, UnknownLoc), f"{op.name} has no location"
    return copy


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(seed=SEEDS, specials=st.booleans())
def test_same_bits(name: str, seed: int, specials: bool) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = random_inputs(rng, graph.inputs, specials=specials)
    before = interpret(graph.module, inputs)
    assert_same_bits(interpret(run(name, graph.module), inputs), before)


@pytest.mark.parametrize("name", TOLERANT)
@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(seed=SEEDS)
def test_within_tolerance(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = random_inputs(rng, graph.inputs)
    before = interpret(graph.module, inputs)
    assert_within(interpret(run(name, graph.module), inputs), before, graph.tolerances)


@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(seed=SEEDS)
@example(seed=0)
def test_passes_one_after_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    inputs = random_inputs(rng, graph.inputs)
    before = interpret(graph.module, inputs)
    module = graph.module
    for name in [*EXACT, *TOLERANT, *EXACT]:
        module = run(name, module)
    assert_within(interpret(module, inputs), before, graph.tolerances)


@pytest.mark.parametrize("name", EXACT)
def test_a_second_time_changes_nothing(name: str) -> None:
    for seed in range(20):
        once = run(name, random_graph(np.random.default_rng(seed)).module)
        assert str(run(name, once)) == str(once)


def test_graphs_use_many_ops() -> None:
    """The comparison above means something: most kinds of op appear, and values are finite."""
    names: set[str] = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        names |= {op.name for op in graph.module.walk()}
        for array in interpret(graph.module, random_inputs(rng, graph.inputs)):
            assert np.isfinite(array.astype(np.float64)).all()
    assert len(names) > 50
