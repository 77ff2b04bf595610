"""A network of many templates: the same bits from any number of threads, and of callers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mgec as mge
import mgec.functional as F
import mgec.module as M
from mgec.compiler.api import compile_to_file
from mgec.jit import trace
from mgec.runtime import Module, load

RNG = np.random.default_rng(0)


class Net(M.Module):
    """Convolutions of every kind, a transposed one, a concatenation, pools, attention, rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = M.Conv2d(3, 32, 7, stride=2, padding=3)
        self.wide = M.Conv2d(32, 32, 3, padding=1)
        self.point = M.Conv2d(32, 96, 1)
        self.depth = M.Conv2d(96, 96, 3, padding=1, groups=96)
        self.strided = M.Conv2d(96, 256, 3, stride=2, padding=1)
        self.deep = M.Conv2d(256, 256, 3, padding=1)
        self.up = M.ConvTranspose2d(256, 96, 2, stride=2)
        self.joined = M.Conv2d(192, 64, 3, padding=1)
        self.norm = M.LayerNorm(64)
        self.dense = M.Linear(64, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.wide(F.relu(self.stem(x)))), 2)
        skip = F.relu(self.depth(self.point(x)))
        x = self.up(F.relu(self.deep(self.strided(skip))))
        x = F.relu(self.joined(F.concat([skip, x], axis=1)))
        rows = F.transpose(F.flatten(x, 2), (0, 2, 1))
        scores = F.softmax(F.matmul(rows, rows, transpose_b=True) / 8.0, axis=-1)
        return F.softmax(self.dense(F.gelu(self.norm(F.matmul(scores, rows)))), axis=-1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    mge.random.seed(0)
    net = Net()
    net.eval()
    infer = trace(net, symbolic=True, capture_as_const=True)
    infer.trace(mge.tensor(np.zeros((1, 3, 56, 56), np.float32)))
    path = tmp_path_factory.mktemp("threads") / "net.mge"
    compile_to_file(infer.inference_graph(), path)
    return path


def images(count: int) -> list[np.ndarray[Any, Any]]:
    return [RNG.standard_normal((1, 3, 56, 56)).astype(np.float32) for _ in range(count)]


def test_any_number_of_threads(artifact: Path) -> None:
    (x,) = images(1)
    (expected,) = load(artifact, threads=1)(x)
    assert np.isfinite(expected).all()
    for threads in (2, 3, 5, 8):
        module = load(artifact, threads=threads)
        for _ in range(5):
            assert module(x)[0].tobytes() == expected.tobytes(), f"{threads} threads"


def test_sixteen_callers_of_two_modules(artifact: Path) -> None:
    """Modules share one pool; calls from many Python threads do not disturb each other."""
    modules = [load(artifact, threads=2), load(artifact, threads=2)]
    inputs = images(16)
    expected = [modules[0](x)[0].tobytes() for x in inputs]
    wrong: list[int] = []

    def work(module: Module, i: int) -> None:
        for _ in range(10):
            if module(inputs[i])[0].tobytes() != expected[i]:
                wrong.append(i)

    callers = [threading.Thread(target=work, args=(modules[i % 2], i)) for i in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
