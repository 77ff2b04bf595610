"""Every pass leaves the meaning of random graphs alone; the reference rules are the judge.

A failing example prints its seed; `random_graph(np.random.default_rng(seed))` makes its graph.
"""

from __future__ import annotations

from typing import Any

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
from xdsl.builder import Builder, InsertPoint
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, ModuleOp, StringAttr, UnknownLoc
from xdsl.ir import Block, Region

from mgec.compiler.passes import all_passes
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.spec import TensorSpec, to_type

LOCATION = FileLineColLoc(StringAttr("net.py"), IntAttr(1), IntAttr(0))
SEEDS = st.integers(0, 2**32 - 1)
EXACT = ["mge-canonicalize", "mge-cse", "mge-dce", "mge-fold-constants"]
# A decomposition rounds after each of its ops, the composite once; another layout, another order.
TOLERANT = ["mge-decompose", "mge-assign-layouts", "mge-fuse-gelu"]


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


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(
    seed=SEEDS,
    kind=st.sampled_from(["conv", "depthwise", "conv1d", "last", "matmul", "transposed"]),
    with_bias=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_batch_norm_folds_into_weights(seed: int, kind: str, with_bias: bool, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    spatial = {"conv": (5, 4), "depthwise": (5, 4), "last": (5, 4), "conv1d": (5,)}.get(kind, ())
    last = kind == "last"
    inp = rng.standard_normal((2, *spatial, 4) if last else (2, 4, *spatial)).astype(dtype)
    block = Block(arg_types=[to_type(TensorSpec(inp.shape, inp.dtype))])
    b: Any = IRBuilder(Builder(InsertPoint.at_end(block)), LOCATION)

    def weight(*shape: int) -> Any:
        return b.constant(rng.standard_normal(shape).astype(dtype))

    channels = 4 if kind == "depthwise" else 6
    if kind == "conv":
        value = b.conv(block.args[0], weight(6, 4, 3, 2), padding=(1, 1, 0, 1))
    elif kind == "depthwise":
        value = b.conv(block.args[0], weight(4, 1, 3, 3), groups=4)
    elif kind == "conv1d":
        value = b.conv(block.args[0], weight(6, 4, 3), stride=(2,))
    elif last:
        value = b.conv(block.args[0], weight(6, 4, 3, 2), channels_last=True)
    elif kind == "matmul":
        value = b.matmul(block.args[0], weight(4, 6))
    else:
        value = b.matmul(block.args[0], weight(6, 4), transpose_rhs=True)
    if with_bias:
        value = b.add(value, weight(channels, *(() if last else (1 for _ in spatial))))
    variance = b.constant(rng.uniform(0.5, 2.0, channels).astype(dtype))
    params = [weight(channels) for _ in range(3)]
    out = b.batch_norm_inference(value, *params, variance, eps=1e-3, channels_last=last)
    function = func.FuncOp("main", ([block.args[0].type], [out.type]), Region(block))
    block.add_op(terminator := func.ReturnOp(out))
    function.location = terminator.location = LOCATION
    module = ModuleOp([function])
    folded = run("mge-fold-batch-norm", module)
    assert "batch_norm" not in str(folded)
    (before,), (after,) = interpret(module, [inp]), interpret(folded, [inp])
    # At most 24 terms of a few units each.
    np.testing.assert_allclose(after, before, rtol=0, atol=200 * np.finfo(dtype).eps)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(
    seed=SEEDS,
    layout=st.sampled_from(["heads last", "heads first", "one head", "grouped", "decoding"]),
    scaled=st.sampled_from(["scores", "divided", "operands", "nothing"]),
    masked=st.sampled_from(["added", "selected", "hidden", "later", "nothing"]),
    key_first=st.booleans(),
)
def test_attention_fuses(seed: int, layout: str, scaled: str, masked: str, key_first: bool) -> None:
    rng = np.random.default_rng(seed)
    n, heads, keys, depth, out_depth = 2, 4, 6, 5, 3
    rows, groups = 1 if layout == "decoding" else 4, 2 if layout in ("grouped", "decoding") else 4
    shapes = [(n, rows, heads, depth), (n, keys, groups, depth), (n, keys, groups, out_depth)]
    if layout in ("heads first", "decoding"):
        shapes = [(s[0], s[2], s[1], s[3]) for s in shapes]
    elif layout == "one head":
        shapes = [(s[0], s[1], s[3]) for s in shapes]
    lead = (n,) if layout == "one head" else (n, heads)
    bias = [(), (1, keys), (rows, 1), (*lead, rows, keys), (n, *(1,) * len(lead[1:]), 1, keys)]
    inputs = [rng.standard_normal(s) for s in (*shapes, bias[rng.integers(len(bias))])]
    inputs.append(rng.integers(0, 3, (rows, keys)).astype(bool))
    inputs[-1][:, 0] = True  # every query sees a key
    block = Block(arg_types=[to_type(TensorSpec(a.shape, a.dtype)) for a in inputs])
    b: Any = IRBuilder(Builder(InsertPoint.at_end(block)), LOCATION)
    q, k, v, added, seen = block.args
    if layout in ("heads last", "grouped"):
        q, k, v = (b.transpose(x, perm=(0, 2, 1, 3)) for x in (q, k, v))
    if groups != heads:
        k, v = (b.repeat(x, repeats=heads // groups, axis=1) for x in (k, v))
    factor = b.constant(np.array(0.5))
    if scaled == "operands":
        q, k = b.mul(q, factor), b.mul(k, factor)
    if key_first:
        *front, i, j = range(len(lead) + 2)
        scores = b.matmul(q, b.transpose(k, perm=(*front, j, i)))
    else:
        scores = b.matmul(q, k, transpose_rhs=True)
    if scaled in ("scores", "divided"):
        scores = (b.mul if scaled == "scores" else b.div)(scores, factor)
    lowest = b.constant(np.array(-np.inf if rng.integers(2) else -1e300))
    if masked == "added":
        scores = b.add(added, scores)
    elif masked == "selected":
        scores = b.select(seen, scores, lowest)
    elif masked == "hidden":
        scores = b.select(getattr(b, "not")(seen), lowest, scores)
    elif masked == "later":
        tri = b.constant(np.tri(rows, keys, keys - rows, dtype=bool))
        scores = b.select(tri, scores, lowest)
    out = b.matmul(b.softmax(scores, axis=len(lead) + 1), v)
    if layout != "one head" and rng.integers(2):
        out = b.transpose(out, perm=(0, 2, 1, 3))
    function = func.FuncOp("main", ([a.type for a in block.args], [out.type]), Region(block))
    block.add_op(terminator := func.ReturnOp(out))
    function.location = terminator.location = LOCATION
    module = run("mge-canonicalize", ModuleOp([function]))
    fused = run("mge-canonicalize", run("mge-fuse-attention", module))
    text = str(fused)
    assert "mge.attention" in text and "mge.softmax" not in text and "mge.repeat" not in text
    assert ("causal" in text) == (masked == "later" and rows > 1)
    (before,), (after,) = interpret(module, inputs), interpret(fused, inputs)
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12)


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
