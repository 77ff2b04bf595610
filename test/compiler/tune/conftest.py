"""A small network to tune and to explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec import config
from mgec.compiler.graph_module import GraphModule
from mgec.dialects.mge.constant import WeightOp

SHAPE = (16, 16, 3, 3)
KEYS = ("first", "second")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Any:
    """A cache and a database of its own; one process, so that nothing forks."""
    with config.override(cache_dir=str(tmp_path), num_threads=1):
        yield tmp_path / "tuning"


@pytest.fixture
def net(build: Any) -> GraphModule:
    """Two equal convolutions, one after the other, and an exponential that stands alone."""

    def body(b: Any, x: Any) -> Any:
        for key in KEYS:
            attrs = {"key": key, "shape": SHAPE, "dtype": np.dtype("float32")}
            (weight,) = b.emit(WeightOp, [], attrs)
            x = b.conv(x, weight, padding=(1, 1, 1, 1), channels_last=True)
        return b.add(b.reduce_sum(x, axes=(1,), keepdims=True), x)

    generator = np.random.default_rng(0)
    graph = build(body, (1, 6, 6, 16))
    graph.weights = {key: generator.standard_normal(SHAPE, np.float32) for key in KEYS}
    return graph
