"""Small graphs for the tests of the compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.builder import Builder, InsertPoint
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, StringAttr

from mgec import config
from mgec.compiler.graph_module import GraphModule
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.spec import TensorSpec

Build = Callable[..., GraphModule]


def spec(shape: Sequence[int], dtype: Any = "float32") -> TensorSpec:
    return TensorSpec(tuple(shape), np.dtype(dtype))


@pytest.fixture
def build() -> Build:
    """`build(body, *specs, donations=None)`: a graph of what `body(b, *arguments)` makes.

    A spec is a shape (of float32) or a pair of shape and dtype.
    """

    def make(body: Any, *shapes: Any, donations: Sequence[int | None] | None = None) -> GraphModule:
        pairs = [s if s and isinstance(s[0], tuple) else (s, "float32") for s in shapes]
        graph = GraphModule.empty([spec(*p) for p in pairs])
        block = graph.main.body.block
        location = FileLineColLoc(StringAttr("net.py"), IntAttr(1), IntAttr(0))
        made = body(IRBuilder(Builder(InsertPoint.at_end(block)), location), *block.args)
        results = list(made) if isinstance(made, list | tuple) else [made]
        graph.finish(results)
        names = [f"x{i}" for i in range(len(pairs))], [f"y{i}" for i in range(len(results))]
        graph.set_names(*names, donations)
        return graph

    return make


@pytest.fixture
def empty_cache(tmp_path: Path) -> Any:
    """A kernel cache of its own for one test; what is loaded stays loaded."""
    folder = tmp_path / "cache"
    with config.override(cache_dir=str(folder)):
        yield folder
