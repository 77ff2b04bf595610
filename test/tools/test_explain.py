"""`mgec explain`: choices, reasons, bytes; with --run times, limits and a chart."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgec import config
from mgec.compiler.tune import ceilings

QUICK = ("--run", "--threads", 1, "--seconds", 0.01)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ceilings, "_SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "_MEMORY_BYTES", 8 << 20)
    with config.override(cache_dir=str(tmp_path / "cache")):
        yield


def report(mgec: Callable, *arguments: object) -> dict[str, Any]:
    result = mgec("explain", *arguments, "--json")
    assert result.status == 0, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out)


def test_json(mgec: Callable, net: Path) -> None:
    row = report(mgec, f"{net}:net")
    assert row["ceilings"] is row["threads"] is None
    ops = [op for call in row["calls"] for op in call["ops"]]
    assert ops.count("mul") == 1
    first = row["calls"][0]
    assert first["template"] == first["label"] == "elementwise"
    assert first["line"].startswith("net.py:")
    (step,) = first["steps"]
    assert step["input_bytes"] == 4 * (20 * 50 + 50)  # x and w
    assert step["weight_bytes"] == 4 * 20 * 50  # W
    assert step["intensity"] == 0  # elementwise operations are not counted
    assert "min_us" not in step


def test_an_artifact(mgec: Callable, artifact: Path) -> None:
    assert len(report(mgec, artifact)["calls"]) >= 1


def test_times(mgec: Callable, net: Path) -> None:
    row = report(mgec, f"{net}:net", *QUICK)
    assert row["threads"] == 1
    assert set(row["ceilings"]) == {"flops", "memory_bytes", "cache_bytes"}
    for call in row["calls"]:
        for step in call["steps"]:
            assert 0 <= step["min_us"] <= step["median_us"] < 1e6
            assert step["ceiling_us"] > 0
            assert step["bound_by"] in ("compute", "memory", "cache")


def test_text(mgec: Callable, net: Path) -> None:
    result = mgec("explain", f"{net}:net", *QUICK)
    assert result.status == 0, result.err
    for part in ("fused ops", "chosen", "FLOP/B", "bound by", "\nwhy\n", "\ntotals\n", "arena",
                 "GB/s of memory"):  # fmt: skip
        assert part in result.out
    without = mgec("explain", f"{net}:net")
    assert "bound by" not in without.out
    assert "limits" not in without.out


def test_chart(mgec: Callable, net: Path, tmp_path: Path) -> None:
    chart = tmp_path / "net.svg"
    row = report(mgec, f"{net}:net", *QUICK, "--chart", chart)
    root = ElementTree.parse(chart).getroot()
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    steps = sum(len(call["steps"]) for call in row["calls"])
    assert sum("%" in text for text in texts) == steps
    assert row["calls"][0]["name"] in texts


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--chart", "x.svg"], 2, "--chart: times are not measured without --run"),
        ([*QUICK, "--chart", "no/such/folder/x.svg"], 1, "cannot write no/such/folder/x.svg"),
        (["--seconds", "0"], 2, "'0' is not a number of seconds above 0"),
    ],
)
def test_wrong_usage(
    mgec: Callable, net: Path, arguments: list[Any], status: int, text: str
) -> None:
    result = mgec("explain", f"{net}:net", *arguments)
    assert result.status == status
    assert text in result.err


def test_functions_are_for_python_files(mgec: Callable, artifact: Path) -> None:
    result = mgec("explain", f"{artifact}:f")
    assert result.status == 2
    assert "only a Python file has functions to choose from" in result.err
