"""`mgec tune`: a table or JSON of what was found, and a database that compilations use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgec import config
from mgec.compiler.tune import tuner

NET = """\
import numpy as np
import mgec as mge

W = mge.tensor(np.linspace(-1, 1, 64 * 96, dtype="float32").reshape(64, 96))

def net(x):
    return mge.functional.relu(mge.functional.matmul(x, W))

def example_inputs():
    return {"x": np.ones((24, 64), "float32")}
"""


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tuner, "_RUN_SECONDS", 0.0)
    with config.override(cache_dir=str(tmp_path / "cache"), num_threads=1):
        yield


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def test_json(mgec: Callable, net: Path) -> None:
    result = mgec("tune", net, "--seconds", 20, "--json")
    assert result.status == 0, result.err
    assert result.err == "", "no progress where nobody looks"
    row = json.loads(result.out)
    assert (row["model"], row["threads"]) == ("net", 1)
    (kernel,) = row["kernels"]
    assert kernel["name"].startswith("matmul")
    assert kernel["default_label"].startswith("contraction mr=")
    assert 1 < kernel["tried"] <= kernel["offered"]
    assert 0 < kernel["seconds"] <= kernel["default_seconds"] < 1
    files = list((config.cache_dir / "tuning").glob("*.json"))
    assert len(files) == (kernel["label"] != kernel["default_label"])


def test_table(mgec: Callable, net: Path) -> None:
    result = mgec("tune", net, "--seconds", 20, "--kernel", "matmul", "--threads", 2)
    assert result.status == 0, result.err
    head, columns, _, row, *_ = [line for line in result.out.splitlines() if line.strip()]
    assert "2 threads" in head
    assert columns.split() == ["kernel", "calls", "default", "best", "gain", "tried", "chosen"]
    assert row.startswith("matmul")
    assert "these kernels in one run: " in result.out


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--kernel", "softmax"], 2, "tune: no kernel has 'softmax' in its name"),
        (["--seconds", "never"], 2, "'never' is not a number of seconds above 0"),
        (["--input", "x"], 2, "--input 'x' has 1 parts"),
    ],
)
def test_wrong_usage(
    mgec: Callable, net: Path, arguments: list[str], status: int, text: str
) -> None:
    result = mgec("tune", net, *arguments)
    assert result.status == status
    assert text in result.err


def test_a_missing_file(mgec: Callable) -> None:
    result = mgec("tune", "nothing.onnx")
    assert result.status == 1
    assert "there is no file nothing.onnx" in result.err
