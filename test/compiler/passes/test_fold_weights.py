"""Folding of weights works on a graph with its weights, so it is tested from Python."""

from __future__ import annotations

import numpy as np

import mgec as mge
import mgec.module as M
from mgec.compiler.api import compile_graph
from mgec.compiler.interpret import run_function
from mgec.compiler.pipeline import run_phases
from mgec.jit import trace


def test_batch_norms_disappear_into_weights() -> None:
    rng = np.random.default_rng(0)
    net = M.Sequential(
        M.Conv2d(8, 16, 3, padding=1, bias=False), M.BatchNorm2d(16), M.ReLU(),
        M.Conv2d(16, 24, 3, stride=2), M.BatchNorm2d(24),
    )  # fmt: skip
    x = mge.tensor(rng.standard_normal((2, 8, 9, 9)).astype(np.float32))
    net(x)  # moves the running statistics away from 0 and 1
    net.eval()
    infer = trace(lambda x: net(x), symbolic=True)
    infer.trace(x)
    graph = infer.inference_graph()
    expected = run_function(graph.main, [x.numpy()], weights=graph.weights)
    run_phases(graph, until="graph")
    names = [op.name for op in graph.main.body.block.ops]
    assert names.count("mge.conv") == 2 and names.count("mge.add") == 2
    assert not {"mge.mul", "mge.sqrt", "mge.batch_norm_inference"} & set(names)
    (folded,) = run_function(graph.main, [x.numpy()], weights=graph.weights)
    np.testing.assert_allclose(folded, expected[0], rtol=1e-5, atol=1e-5)
    compiled = compile_graph(infer.inference_graph())
    names = [call.name for call in compiled.calls]
    assert names == ["transpose", "conv_add_relu", "conv_add", "transpose"]
    np.testing.assert_allclose(compiled.load()(x.numpy())[0], expected[0], rtol=1e-4, atol=1e-5)


def test_weights_that_would_grow_are_left_alone() -> None:
    w = mge.Parameter(np.ones((1, 400), np.float32))
    infer = trace(lambda x: x + mge.functional.broadcast_to(w, (300, 400)), symbolic=True)
    infer.trace(mge.tensor(np.ones((300, 400), np.float32)))
    graph = infer.inference_graph()
    run_phases(graph, until="graph")
    assert sum(a.nbytes for a in graph.weights.values()) == w.numpy().nbytes
