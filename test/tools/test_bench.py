"""`mgec bench`: one line of figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mgec.tools.commands.bench import flops_of


def test_json(mgec: Callable, artifact: Path) -> None:
    result = mgec("bench", artifact, "--threads", 1, "--seconds", 0.02, "--json")
    assert result.status == 0, result.err
    assert result.out.count("\n") == 1
    row = json.loads(result.out)
    assert 0 < row["min_ms"] <= row["median_ms"] <= row["p99_ms"] < 1000
    assert row["threads"] == 1
    assert row["runs"] > 0
    assert 5 < row["peak_rss_mb"] < 100_000
    assert row["gflops"] is None or row["gflops"] > 0


def test_text(mgec: Callable, artifact: Path) -> None:
    out = mgec("bench", artifact, "--seconds", 0.02).out
    for word in ("median", "min", "GFLOP/s", "peak RSS"):
        assert word in out


def test_flops_are_those_of_all_steps() -> None:
    assert flops_of({"steps": [{"flops": 3}, {"flops": 4}, {}]}) == 7
    assert flops_of({}) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ("missing.mge", 1, "there is no file missing.mge"),
        ("missing.mge --seconds nan", 2, "'nan' is not a number of seconds above 0"),
        ("missing.mge --seconds 0", 2, "'0' is not a number of seconds above 0"),
        ("missing.mge --seconds -1", 2, "--seconds"),
        ("missing.mge --seconds long", 2, "'long' is not a number of seconds above 0"),
    ],
)
def test_refused(mgec: Callable, arguments: str, status: int, says: str) -> None:
    result = mgec("bench", *arguments.split())
    assert says in result.err
    assert result.status == status
