"""Explanations: what is fused, operations, bytes, and times beside limits."""

from __future__ import annotations

import pytest

from mgec.compiler.api import compile_graph
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.tune.ceilings import Ceilings
from mgec.compiler.tune.explanation import Explanation, explain, with_times

IMAGE = 6 * 6 * 16 * 4
FLOPS = 2 * 36 * 16 * 16 * 9


@pytest.fixture
def explanation(net: GraphModule) -> Explanation:
    compiled = compile_graph(net, target="x86-64-v3")
    found = explain(net, compiled)
    assert [call.kernel for call in found.calls] == sorted(call.kernel for call in found.calls)
    return found


def test_operations_and_bytes(explanation: Explanation) -> None:
    first = explanation.calls[0]
    assert first.ops == ("conv",)
    assert first.label.startswith(first.template)
    assert sum(step.flops for step in first.steps) == FLOPS
    assert sum(step.input_bytes for step in first.steps) == IMAGE
    assert sum(step.output_bytes for step in first.steps) == IMAGE
    weights = sum(step.weight_bytes for step in first.steps)
    assert weights >= 16 * 16 * 9 * 4
    assert any("estimated" in note for note in first.notes)
    assert explanation.calls[1].kernel == first.kernel
    assert explanation.weight_bytes >= 2 * weights
    assert explanation.arena_bytes >= explanation.live_bytes > 0


def test_what_is_fused(explanation: Explanation) -> None:
    ops = [op for call in explanation.calls for op in call.ops]
    assert ops.count("conv") == 2
    assert {"reduce_sum", "add"} <= set(ops)


def test_times(explanation: Explanation) -> None:
    steps = [step for call in explanation.calls for step in call.steps]
    limits = Ceilings(flops=1e9, memory_bytes=1e9, cache_bytes=1e12)
    runs = [[2e-3] * len(steps), [1e-3] * len(steps), [4e-3] * len(steps)]
    timed = with_times(explanation, runs, limits, threads=1, cache_bytes=1 << 20)
    (limit, *_) = (s.limit for call in timed.calls for s in call.steps if s.flops)
    assert limit is not None
    assert (limit.least, limit.median) == (1e-3, 2e-3)
    assert limit.bound_by == "compute"
    performed = max(step.performed_flops for step in steps)
    assert limit.percent == pytest.approx(100 * performed / 1e9 / 1e-3)
    (last, *_) = timed.calls[-1].steps
    assert last.limit is not None
    assert last.limit.bound_by == "cache"  # small, and no weights


def test_what_does_not_fit_the_cache_is_bound_by_memory(explanation: Explanation) -> None:
    steps = sum(len(call.steps) for call in explanation.calls)
    limits = Ceilings(flops=1e12, memory_bytes=1e9, cache_bytes=1e12)
    timed = with_times(explanation, [[1e-3] * steps], limits, threads=2, cache_bytes=100)
    bounds = {s.limit.bound_by for call in timed.calls for s in call.steps if s.limit}
    assert bounds == {"memory"}
    assert timed.threads == 2
