"""`mgec inspect`: what is in an artifact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_json(mgec: Callable, artifact: Path) -> None:
    result = mgec("inspect", artifact, "--json")
    assert result.status == 0
    facts = json.loads(result.out)
    assert facts["name"] == "net"
    assert facts["bytes"] == artifact.stat().st_size
    assert facts["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [20, 50]},
        {"name": "w", "dtype": "float32", "shape": [50]},
    ]
    assert {row["section"].split()[0] for row in facts["sections"]} == {
        "METADATA", "PROGRAM", "WEIGHTS", "CODE", "GRAPH",
    }  # fmt: skip
    (target,) = facts["targets"]
    assert target["steps"] == len(facts["steps"]) == 1
    assert target["weight_bytes"] >= 4000
    assert facts["live_bytes"] <= target["arena_bytes"]


def test_text(mgec: Callable, artifact: Path) -> None:
    result = mgec("inspect", artifact)
    assert result.status == 0, result.err
    for word in ("WEIGHTS", "float32[20, 50]", "x86-64", "template", "arena", "net.py:11"):
        assert word in result.out


def test_graph_can_be_compiled(mgec: Callable, artifact: Path) -> None:
    out = mgec("inspect", artifact, "--graph").out
    assert "mge.add" in out
    assert "net.py" in out


def test_refused(mgec: Callable, tmp_path: Path) -> None:
    result = mgec("inspect", tmp_path / "missing.mge")
    assert result.status == 1
    assert "FileMissingError: there is no file" in result.err
    assert mgec("inspect").status == 2
