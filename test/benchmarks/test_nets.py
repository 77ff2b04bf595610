"""`benchmarks/nets.py` on a tiny model, without other frameworks."""

from __future__ import annotations

import json
from pathlib import Path

import nets
import numpy as np
import onnx_peer
import pytest

from mgec import config


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """`y = x + x`, with its input and output beside it."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", float32, [3, 4])],
        [helper.make_tensor_value_info("y", float32, [3, 4])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(proto, tmp_path / "twice.onnx")
    x = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "twice.npz", x=x, y=x + x)
    return tmp_path / "twice.onnx"


def main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["nets.py", *map(str, arguments)])
    with config.override(peers_root=None):
        return nets.main()


def test_ours_alone(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "all.json"
    quick = ("--threads", 1, "--rounds", 1, "--seconds", 0.01, "--core", 0)
    assert main(monkeypatch, "--models", model, *quick, "--json", out) == 0
    [result] = json.loads(out.read_text())["results"]
    assert result["contender"] == "mgec"
    assert result["rel_err"] == 0
    assert 0 < result["min_ms"] <= result["median_ms"]
    assert result["details"]["timed"] == "python"
    assert result["details"]["compile_s"] > 0


def test_a_wrong_result_is_a_failure(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(model.with_suffix(".npz")) as data:
        x = data["x"]
    np.savez(model.with_suffix(".npz"), x=x, y=x)
    quick = ("--threads", 1, "--rounds", 1, "--seconds", 0.01, "--core", 0)
    assert main(monkeypatch, "--models", model, *quick) == 1
    assert "mgec, twice, 1 thread(s): its error is 1" in capsys.readouterr().out


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="'lenet' is a name, but there is no folder of peers"):
        main(monkeypatch, "--models", "lenet")
    with pytest.raises(SystemExit, match=r"there is no file .*missing\.onnx"):
        main(monkeypatch, "--models", "missing.onnx")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lenet.onnx").touch()
    root = ("--peers-root", tmp_path, "--models", "lenet")
    with pytest.raises(SystemExit, match="there is no ort in"):
        main(monkeypatch, *root, "--peers", "ort")


def test_error_of_a_peer() -> None:
    y = np.array([1.0, -4.0], np.float32)
    moved = y + np.array([0, 1])
    assert onnx_peer.relative_error({"y": y}, {"x": y, "y": moved}) == pytest.approx(1 / 3)
    assert onnx_peer.relative_error({"y": y * 0}, {"y": y * 0}) == 0
    assert onnx_peer.relative_error({"y": y}, {"x": y}) is None


def test_times_of() -> None:
    calls: list[int] = []
    row = onnx_peer.times_of(lambda: calls.append(1), 0.0)
    assert row["runs"] == onnx_peer.LEAST_RUNS
    assert len(calls) == onnx_peer.WARM_UP_RUNS + onnx_peer.LEAST_RUNS
    assert 0 <= row["min_ms"] <= row["median_ms"]
