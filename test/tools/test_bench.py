"""`mgec bench`: one line of figures, of an artifact or of a model that is compiled first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgec.runtime import load
from mgec.tools.commands.bench import duration, flops_of, relative_error, time_calls

INPUTS = {
    "x": np.linspace(-1, 1, 1000, dtype=np.float32).reshape(20, 50),
    "w": np.linspace(0, 1, 50, dtype=np.float32),
}
EXPECTED = INPUTS["x"] * 2 + INPUTS["w"]

QUICK = ("--threads", 1, "--seconds", 0.02)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Inputs, and the first output."""
    np.savez(tmp_path / "io.npz", **INPUTS, out_0=EXPECTED)
    return tmp_path / "io.npz"


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    """`y = x + x` over a batch that the file leaves open."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", float32, ["rows", "columns"])],
        [helper.make_tensor_value_info("y", float32, ["rows", "columns"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "twice.onnx")
    return tmp_path / "twice.onnx"


def row_of(mgec: Callable, *arguments: object) -> dict[str, Any]:
    result = mgec("bench", *arguments, *QUICK, "--json")
    assert result.status == 0, result.err
    assert result.out.count("\n") == 1
    return json.loads(result.out)


def test_json(mgec: Callable, artifact: Path) -> None:
    row = row_of(mgec, artifact)
    assert 0 < row["min_ms"] <= row["median_ms"] <= row["p99_ms"] < 1000
    assert row["model"] == "net"
    assert row["threads"] == 1
    assert row["timed"] == "native"
    assert row["runs"] > 0
    assert 5 < row["peak_rss_mb"] < 100_000
    assert row["gflops"] is None or row["gflops"] > 0
    assert row["compile_s"] is row["import_s"] is row["rel_err"] is None
    assert 0 < row["load_s"] < 100


def test_text(mgec: Callable, artifact: Path, npz: Path) -> None:
    out = mgec("bench", artifact, "--seconds", 0.02, "--input-data", npz).out
    for word in ("median", "min", "GFLOP/s", "error     ", "load", "peak RSS"):
        assert word in out
    assert "compile" not in out


def test_a_source_is_compiled_first(mgec: Callable, net: Path, npz: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.mge"
    row = row_of(mgec, f"{net}:net", "--input-data", npz, "--keep", kept)
    assert row["compile_s"] > 0
    assert row["load_s"] > 0
    assert 0 <= row["compiled_kernels"] <= row["kernels"] > 0
    assert row["rel_err"] < 1e-6
    assert row_of(mgec, kept, "--input-data", npz)["rel_err"] == row["rel_err"]
    text = mgec("bench", f"{net}:net", *QUICK).out
    assert "kernels new" in text or "kernel new" in text


def test_phases_and_shapes(mgec: Callable, net: Path, tmp_path: Path) -> None:
    text = tmp_path / "net.mlir"
    assert mgec("compile", f"{net}:net", "--compile-to", "graph", "-o", text).status == 0
    assert row_of(mgec, text)["compile_s"] > 0
    shapes = ("--input", "a:3,5", "--input", "b:5")
    assert row_of(mgec, f"{net}:plain", *shapes)["model"] == "plain"


def test_onnx(mgec: Callable, onnx_file: Path, tmp_path: Path) -> None:
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "io.npz", x=x, y=x + x)
    np.savez(tmp_path / "wrong.npz", x=x, y=x)
    shape = ("--input", "x:3x4")
    assert row_of(mgec, onnx_file, *shape, "--input-data", tmp_path / "io.npz")["rel_err"] == 0
    assert row_of(mgec, onnx_file, *shape, "--input", tmp_path / "wrong.npz")["rel_err"] == 1


def test_options_of_the_compiler(mgec: Callable, onnx_file: Path) -> None:
    row = row_of(mgec, onnx_file, "--input", "x:3x4", "--precision", "bf16", "--optimize", "size")
    assert row["runs"] > 0


def test_the_target_can_be_chosen(mgec: Callable, net: Path) -> None:
    target = "x86-64" if row_of(mgec, f"{net}:net")["target"].startswith("x86-64") else "aarch64"
    assert row_of(mgec, f"{net}:net", "--target", target)["target"] == target


def test_calls_from_python(mgec: Callable, artifact: Path) -> None:
    row = row_of(mgec, artifact, "--from-python")
    assert row["timed"] == "python"
    assert 0 < row["min_ms"] <= row["median_ms"]


def test_at_least_one_call_is_timed(artifact: Path) -> None:
    model = load(artifact, threads=1)
    assert len(time_calls(model, [INPUTS["x"], INPUTS["w"]], 1e-9).seconds) == 1


def test_relative_error(artifact: Path) -> None:
    model = load(artifact, threads=1)
    first = np.array([1.0, -4.0, np.nan, np.inf])
    second = np.zeros(2)

    def error(**expected: np.ndarray) -> float | None:
        return relative_error(model, [first, second], expected)

    assert error() is None
    assert error(out_0=first) == 0
    assert error(out_0=np.array([1.0, -5.0, np.nan, np.inf])) == 1 / 5
    assert error(out_0=first, out_1=np.array([0, 0.5])) == 1, "the largest of all outputs"
    assert error(out_1=second) == 0
    for wrong in ([1.0, -4.0, 0.0, np.inf], [1.0, -4.0, np.nan, -np.inf], [np.nan] * 4):
        assert error(out_0=np.array(wrong)) == sys.float_info.max


def test_flops_are_those_of_all_steps() -> None:
    assert flops_of({"steps": [{"flops": 3}, {"flops": 4}, {}]}) == 7
    assert flops_of({}) == 0


def test_durations() -> None:
    assert [duration(s) for s in (2.0, 0.99999e-3, 0.0)] == ["2.000 s", "1.000 ms", "0.000 ns"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ("missing.mge", 1, "there is no file missing.mge"),
        ("missing.py:net", 1, "there is no file missing.py"),
        ("missing.onnx", 1, "missing.onnx"),
        ("missing.mge --seconds nan", 2, "'nan' is not a number of seconds above 0"),
        ("missing.mge --seconds 0", 2, "'0' is not a number of seconds above 0"),
        ("missing.mge --seconds -1", 2, "--seconds"),
        ("missing.mge --seconds long", 2, "'long' is not a number of seconds above 0"),
        (
            "missing.mge --input a.npz --input-data b.npz",
            2,
            "there are two files of inputs, a.npz and b.npz",
        ),
        ("net.mge --input x:3", 2, "--input NAME:SHAPE: net.mge is compiled already"),
        ("net.mge --target host", 2, "--target: net.mge is compiled already"),
        ("net.mge --keep new.mge", 2, "--keep: net.mge is compiled already"),
        ("net.onnx --input x:a", 2, "--input x:a: this is not NAME:SHAPE"),
    ],
)
def test_refused(mgec: Callable, arguments: str, status: int, says: str) -> None:
    result = mgec("bench", *arguments.split())
    assert says in result.err
    assert result.status == status


def test_refused_data(mgec: Callable, net: Path, artifact: Path, tmp_path: Path) -> None:
    text = tmp_path / "net.mlir"
    assert mgec("compile", f"{net}:net", "--compile-to", "graph", "-o", text).status == 0
    result = mgec("bench", text, "--input", "x:3")
    assert "functions to choose and shapes to give are for Python files" in result.err
    assert result.status == 2

    np.savez(tmp_path / "shape.npz", **INPUTS, out_0=EXPECTED[:5])
    result = mgec("bench", artifact, "--input-data", tmp_path / "shape.npz", *QUICK)
    assert "output 'out_0' has shape (20, 50), but (5, 50) is expected" in result.err
    assert result.status == 1

    np.savez(tmp_path / "more.npz", **INPUTS, other=EXPECTED)
    result = mgec("bench", artifact, "--input-data", tmp_path / "more.npz", *QUICK)
    assert "it has an array that is not an input: 'other'" in result.err
