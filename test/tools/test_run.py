"""`mgec run`: inputs from a file or random, outputs to a file, and no compiler."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

INPUTS = {
    "x": np.linspace(-1, 1, 1000, dtype=np.float32).reshape(20, 50),
    "w": np.linspace(0, 1, 50, dtype=np.float32),
}


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "in.npz", **INPUTS)
    return tmp_path / "in.npz"


def test_inputs_and_outputs_by_name(
    mgec: Callable, artifact: Path, npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.npz"
    result = mgec("run", artifact, "--input", npz, "-o", out)
    assert result.status == 0, result.err
    assert "out  out_0: float32[20, 50]  -2 to 3, mean 0.5" in result.out
    with np.load(out) as found:
        assert found.files == ["out_0", "out_1"]
        np.testing.assert_allclose(found["out_0"], INPUTS["x"] * 2 + INPUTS["w"], rtol=1e-6)


def test_random_inputs_have_a_seed(mgec: Callable, artifact: Path) -> None:
    def outputs(seed: int) -> object:
        result = mgec("run", artifact, "--seed", seed, "--json")
        assert result.status == 0
        return json.loads(result.out)["outputs"]

    assert outputs(3) == outputs(3)
    assert outputs(3) != outputs(4)


def test_json(mgec: Callable, artifact: Path, npz: Path) -> None:
    result = mgec("run", artifact, "--input", npz, "--threads", 1, "--json")
    assert result.out.count("\n") == 1
    line = json.loads(result.out)
    assert line["model"] == "net"
    assert line["threads"] == 1
    first = line["outputs"][0]
    assert (first["name"], first["dtype"], first["shape"]) == ("out_0", "float32", [20, 50])
    assert first["mean"] == pytest.approx(0.5, abs=1e-6)
    assert first["nan"] == first["inf"] == 0


def test_nan_and_infinity_are_counted(mgec: Callable, artifact: Path, tmp_path: Path) -> None:
    x = INPUTS["x"].copy()
    x[0, :3] = np.nan
    x[1, 0] = np.inf
    np.savez(tmp_path / "in.npz", x=x, w=INPUTS["w"])
    result = mgec("run", artifact, "--input", tmp_path / "in.npz")
    assert "3 NaN, 1 infinite" in result.out


def test_bfloat16_as_float32(mgec: Callable, net: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "p.mge", tmp_path / "out.npz"
    compiled = mgec("compile", f"{net}:plain", "--input", "a:4:bfloat16", "-o", model)
    assert compiled.status == 0, compiled.err
    values = np.array([1, 2, 3, 0.5], np.float32)
    for array in (values, values.astype(ml_dtypes.bfloat16)):
        np.savez(tmp_path / "in.npz", a=array)
        result = mgec("run", model, "--input", tmp_path / "in.npz", "-o", out)
        assert result.status == 0, result.err
        with np.load(out) as found:
            assert found["out_0"].dtype == np.float32
            np.testing.assert_array_equal(found["out_0"], values * 3)


CHILD = """\
import sys
from mgec.tools.main import main
status = main(sys.argv[1:])
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = sorted(loaded & {"xdsl", "torch_mlir", "mlir", "llvmlite", "rich", "tqdm", "safetensors"})
print("status", status, "heavy", heavy, "mgec.compiler" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["run", "bench --seconds 0.01"])
def test_no_compiler_is_loaded(artifact: Path, command: str) -> None:
    words = command.split()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, words[0], str(artifact), *words[1:]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "status 0 heavy [] False\n"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ("missing.mge", 1, "FileMissingError: there is no file missing.mge"),
        (".", 1, "FileError: . is a folder"),
        ("net.py", 1, "compile it first: mgec compile net.py -o net.mge"),
        ("junk.mge", 1, "ArtifactError: junk.mge: header"),
        ("net.mge --input missing.npz", 1, "there is no file missing.npz"),
        ("net.mge --input .", 1, "cannot read ."),
        ("net.mge --input junk.mge", 1, "junk.mge is not an .npz file"),
        ("net.mge --input one.npy", 1, "holds one array without a name"),
        ("net.mge --input pickled.npz", 1, "is not an .npz file of plain arrays"),
        ("net.mge --input x.npz", 1, "x.npz: it has no input 'w'"),
        ("net.mge --input more.npz", 1, "has an array that is not an input: 'z'"),
        ("net.mge --input double.npz", 1, "input 'x' is float64, expected float32"),
        ("net.mge --input shape.npz", 1, "input 'x' has shape [50, 20], expected [20, 50]"),
        ("net.mge -o no/such/out.npz", 1, "cannot write no/such/out.npz"),
        ("net.mge --threads none", 2, "'none' is not a number from 0 on"),
        ("net.mge --threads -1", 2, "--threads"),
        ("net.mge --seed x", 2, "invalid int value: 'x'"),
        ("net.mge --frobnicate", 2, "unrecognized arguments"),
        ("", 2, "required: FILE.mge"),
    ],
)
def test_refused(
    mgec: Callable, net: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: str, status: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for file in (net, artifact):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "junk.mge").write_bytes(b"junk")
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object), w=INPUTS["w"])
    np.savez(tmp_path / "x.npz", x=INPUTS["x"])
    np.savez(tmp_path / "more.npz", z=1, **INPUTS)
    np.savez(tmp_path / "double.npz", x=INPUTS["x"].astype(np.float64), w=INPUTS["w"])
    np.savez(tmp_path / "shape.npz", x=INPUTS["x"].T, w=INPUTS["w"])
    result = mgec("run", *arguments.split())
    assert says in result.err
    assert result.status == status
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
