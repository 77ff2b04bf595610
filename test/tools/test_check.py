"""`mgec check`, and .onnx files in the other commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from support.onnx_models import FLOAT, info, model_of, node_cases

from mgec.tools.commands import _onnx_conformance

Run = Callable[..., Any]
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    node = helper.make_node("Relu", ["x"], ["y"], name="r1")
    proto = model_of([node], [info("x", FLOAT, ("N", "T"))], ["y"])
    path = tmp_path / "good.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="first"),
        helper.make_node("Odd", ["d"], ["y"], name="second", domain="com.example"),
    ]
    proto = model_of(nodes, [info("x", X)], ["y"], domains=["com.example"])
    path = tmp_path / "odd.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_model_that_can_be_imported(mgec: Run, good: Path) -> None:
    result = mgec("check", good, "--input", "x:1x3")
    assert (result.status, result.out) == (0, f"{good}: every node is supported\n")


def test_every_node_that_cannot_be_imported(mgec: Run, odd: Path) -> None:
    result = mgec("check", odd)
    assert result.status == 1
    lines = result.out.splitlines()
    assert "2 nodes cannot be imported" in result.out
    (first,) = [line for line in lines if line.startswith("first")]
    assert first.split() == ["first", "Det", "ai.onnx", "21", "float32[2,", "3]", "there", "is",
                             "no", "handler", "for", "this", "op"]  # fmt: skip
    (second,) = [line for line in lines if line.startswith("second")]
    assert "com.example" in second and "there is no such op" in second


def test_json(mgec: Run, odd: Path) -> None:
    result = mgec("check", odd, "--json")
    nodes = json.loads(result.out)["unsupported"]
    assert [(n["name"], n["op"], n["domain"], n["opset"]) for n in nodes] == [
        ("first", "Det", "", 21),
        ("second", "Odd", "com.example", 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "there is no file to check"),
        (["no.onnx"], 1, "there is no file no.onnx"),
        (["no.onnx", "--input", "x"], 2, "--input x: this is not NAME:SHAPE"),
        (["no.onnx", "--input", "x:1x?"], 2, "--input x:1x?: this is not NAME:SHAPE"),
    ],
)
def test_wrong_usage(mgec: Run, arguments: list[str], status: int, text: str) -> None:
    result = mgec("check", *arguments)
    assert result.status == status
    assert text in result.err


def test_backend_tests(mgec: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_conformance, "load_cases", some_cases)
    result = mgec("check", "--backend-tests", "test_neg_example", "--json")
    case, total = (json.loads(line) for line in result.out.splitlines())
    assert (case["name"], case["outcome"]) == ("test_neg_example", "passed")
    assert total == {"cases": 1, "passed": 1}
    table = mgec("check", "--backend-tests", "test_neg_example")
    assert table.out.splitlines()[-2].split()[:3] == ["all", "1", "1"]


def some_cases(pattern: str) -> list[tuple[str, Any]]:
    """The cases of one op: all of them take seconds to load."""
    return [pair for pair in node_cases("neg") if pattern in pair[1].name]


def test_compile_inspect_run_and_bench(mgec: Run, good: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "good.mge"
    result = mgec("compile", good, "--input", "x:2x3", "--graph", "keep", "-o", artifact)
    assert (result.status, result.err) == (0, "")
    assert "good.onnx:1 Relu r1" in mgec("inspect", artifact).out
    again = mgec("compile", artifact, "-o", tmp_path / "again.mge")
    assert (again.status, again.err) == (0, "")
    inputs = tmp_path / "in.npz"
    np.savez(inputs, x=X - 2)
    result = mgec("run", good, "--input", inputs, "-o", tmp_path / "out.npz")
    assert (result.status, result.err) == (0, "")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], np.maximum(X - 2, 0))
    result = mgec("bench", good, "--input", "x:2x3", "--seconds", "0.01", "--json")
    assert json.loads(result.out)["model"] == "good"


def test_compile_without_the_sizes_that_are_open(mgec: Run, good: Path, tmp_path: Path) -> None:
    result = mgec("compile", good, "-o", tmp_path / "good.mge")
    assert result.status == 1
    assert "axis 1 of input 'x' has the symbolic size 'T'" in result.err
    assert "--input x:NxT" in result.err
