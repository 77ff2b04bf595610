"""Compiling with products of bfloat16."""

from __future__ import annotations

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec.compiler.api import compile_graph
from mgec.compiler.targets import host_target
from mgec.errors import OptionError
from mgec.jit import trace


def network() -> M.Module:
    return M.Sequential(
        M.Conv2d(3, 16, 3, padding=1), M.ReLU(), M.Conv2d(16, 32, 1), M.ReLU(),
        M.Conv2d(32, 32, 3, stride=2), M.ReLU(),
    )  # fmt: skip


@pytest.mark.skipif(
    not host_target().has_bfloat16_dot, reason="no instruction for pairs of bfloat16"
)
def test_network() -> None:
    mge.random.seed(0)
    net = network()
    x = mge.tensor(np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype(np.float32))
    infer = trace(lambda x: F.flatten(net(x), 1), symbolic=True, capture_as_const=True)
    infer.trace(x)
    (wide,) = compile_graph(infer.inference_graph()).load()(x.numpy())
    compiled = compile_graph(infer.inference_graph(), precision="bf16")
    assert len(compiled.weights) < len(compile_graph(infer.inference_graph()).weights)
    (narrow,) = compiled.load()(x.numpy())
    assert 0 < np.abs(narrow - wide).max() < 0.02 * np.abs(wide).max()


def test_unknown_precision() -> None:
    infer = trace(lambda x: x + 1, symbolic=True)
    infer.trace(mge.tensor([1.0]))
    with pytest.raises(OptionError, match="there is no precision 'f8'"):
        compile_graph(infer.inference_graph(), precision="f8")
