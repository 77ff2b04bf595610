"""Measuring by turns, and what is made of the measurements."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import comparison
import pytest
from comparison import Contender, Model, Result

NET = Model("net", Path("net.onnx"))


def row(min_ms: float, median_ms: float = 9.0, **more: object) -> dict[str, object]:
    return {"min_ms": min_ms, "median_ms": median_ms, **more}


def some_results() -> list[Result]:
    """Two models; the fastest of the others computes something else, one failed."""
    return [
        Result("a", 1, "mgec", 2.0, 3.0, 1e-6),
        Result("a", 1, "fast", 1.0, 1.5, 0.3),
        Result("a", 1, "slow", 4.0, 5.0, None),
        Result("a", 1, "other", 5.0, 5.0, 1e-7),
        Result("b", 1, "mgec", 10.0, 10.0, 2e-3),
        Result("b", 1, "fast", 5.0, 6.0, 1e-7),
        Result("b", 1, "slow", error="Traceback:\n  line\nNoKernel: here\n"),
        Result("b", 1, "other", 50.0, 50.0),
    ]


def test_summary_of_rounds() -> None:
    rows = [row(3.0, 5.0, rel_err=1e-7, version="1"), row(2.0, 9.0, rel_err=1e-6), row(4.0, 6.0)]
    result = comparison.summary("net", 2, "x", rows)
    assert (result.min_ms, result.median_ms, result.rel_err) == (2.0, 6.0, 1e-6)
    assert result.is_right(1e-5)
    assert not result.is_right(1e-7)
    assert comparison.summary("net", 1, "x", [row(1.0)]).is_right(0.0), "it was not compared"


def test_a_failed_round_is_a_failure() -> None:
    result = comparison.summary("net", 1, "x", [row(1.0), {"error": "why"}])
    assert result.min_ms is None
    assert result.error == "why"
    assert not result.is_right(1.0)
    assert comparison.summary("net", 1, "x", []).error == "it was not measured"


def test_nan_is_wrong() -> None:
    result = comparison.summary("net", 1, "x", [row(1.0, rel_err=1e-7), row(1.0, rel_err=math.nan)])
    assert not result.is_right(1e300)


def test_ratio_to_the_best_that_computes_the_same() -> None:
    first, second = comparison.rows_of(some_results(), 1)
    assert first.best is not None
    assert first.best.contender == "slow"
    assert first.ratio == 2.0
    assert second.ratio == 0.5
    assert comparison.rows_of(some_results(), 2) == []


def test_without_ours_or_others_there_is_no_ratio() -> None:
    for results in (
        [Result("a", 1, "mgec", error="no"), Result("a", 1, "x", 1.0, 1.0)],
        [Result("a", 1, "mgec", 1.0, 1.0), Result("a", 1, "x", error="no")],
        [Result("a", 1, "mgec", 1.0, 1.0)],
    ):
        assert comparison.rows_of(results, 1)[0].ratio is None


def test_table() -> None:
    header, body = comparison.table(some_results(), 1)
    assert header[:3] == ["model", "mgec min", "median"]
    assert header[3:6] == ["fast", "slow", "other"]
    assert body[0] == ["a", "2.00", "3.00", "1.00", "4.00*", "5.00", "2.00", "1.0e-06"]
    assert body[1] == ["b", "10.0", "10.0", "5.00*", "-", "50.0", "0.50", "2.0e-03"]
    assert body[2][0] == "geometric mean"
    assert body[2][-2] == "1.00"


def test_markdown_and_json() -> None:
    facts = {"machine": "2 x CPU", "date": "2026-01-02", "command": "python nets.py"}
    text = comparison.markdown(some_results(), [1], facts)
    assert text.startswith("2 x CPU, 2026-01-02: `python nets.py`\n")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    read = json.loads(comparison.as_json(some_results(), [1], facts))
    assert read["ratios"]["1"] == {"a": 2.0, "b": 0.5, "geometric_mean": 1.0}
    assert len(read["results"]) == 8


def test_complaints_begin_with_ours() -> None:
    assert comparison.complaints(some_results(), 1e-4) == [
        "mgec, b, 1 thread(s): its error is 0.002",
        "fast, a, 1 thread(s): its error is 0.3",
        "slow, b, 1 thread(s): NoKernel: here",
    ]


@pytest.mark.parametrize(("tolerance", "status"), [(1e-2, 0), (1e-4, 1)])
def test_report(
    tolerance: float, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = comparison.report(
        some_results(), [1], tolerance, goal=0.8, json_file=str(tmp_path / "all.json")
    )
    out = capsys.readouterr().out
    assert found == status
    assert "b, 1 thread(s): 0.50 is below 0.8" in out
    assert "a, 1 thread(s): 2.00" not in out
    assert (tmp_path / "all.json").exists()
    assert comparison.report([], [1], tolerance) == 1, "nothing of ours was measured"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_last_line_of_json_counts() -> None:
    code = "print('{\"min_ms\": 1}'); print('{\"min_ms\": 2}'); print('done')"
    assert comparison.run_json(python(code)) == {"min_ms": 2}


def test_commands_that_fail() -> None:
    assert "ValueError: no" in comparison.run_json(python("raise ValueError('no')"))["error"]
    assert comparison.run_json(python("pass"))["error"] == "it says nothing"
    assert comparison.run_json(python('print(\'{"error": "e"}\')'))["error"] == "e"
    assert "does not run" in comparison.run_json(["/no/such/program"])["error"]
    late = comparison.run_json(python("import time; time.sleep(60)"), limit_s=0.2)
    assert late == {"error": "it took over 0 s"}


def test_contenders_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def contender(name: str, *, fails: bool = False) -> Contender:
        end = "raise SystemExit('no')" if fails else 'print(\'{"min_ms": 1, "median_ms": 1}\')'
        code = f"open({str(log)!r}, 'a').write({name!r} + ' '); {end}"
        return Contender(name, lambda model, threads: python(code))

    contenders = [contender("mgec"), contender("bad", fails=True), contender("good")]
    results = comparison.measure([NET], contenders, [1], rounds=3, core=0)
    assert log.read_text().split() == ["mgec", "bad", "good", "mgec", "good", "mgec", "good"]
    assert [bool(r.error) for r in results] == [False, True, False]


def test_processors() -> None:
    assert comparison.processors(1, 5) == "5"
    assert comparison.processors(4, 5) == "0-3"


def test_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    file = tmp_path / "chart.png"
    comparison.draw_chart(some_results(), [1], file, "title")
    assert file.read_bytes().startswith(b"\x89PNG")
