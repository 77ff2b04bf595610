"""The mgec-opt command: what it prints, where, and its exit status."""

from __future__ import annotations

import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from mgec import config
from mgec.compiler.passes import all_passes
from mgec.tools.opt import main

DEAD = """\
func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
  %0 = mge.exp %x : (tensor<2xf32>) -> tensor<2xf32>
  %1 = mge.neg %x : (tensor<2xf32>) -> tensor<2xf32> loc("net.py":3:4)
  func.return %1 : tensor<2xf32>
}
"""
INVALID = "%0 = mge.constant {value = dense<1.0> : tensor<f32>} : () -> tensor<f64>\n"
UNPARSED = "%0 = mge.cast : () -> tensor<f64>\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.mlir"
    path.write_text(DEAD)
    return path


def test_runs_passes_in_order(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file)]) == 0
    assert "mge.exp" in capsys.readouterr().out
    for arguments in (["-p", "mge-dce"], ["--mge-dce"], ["-p", "mge-cse", "--mge-dce"]):
        assert main([*arguments, str(file)]) == 0
        captured = capsys.readouterr()
        assert "mge.neg" in captured.out and "mge.exp" not in captured.out and not captured.err


def test_options_of_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.mlir"
    path.write_text(
        '%x = "test.op"() : () -> tensor<2xf32>\n'
        "%0 = mge.reduce_mean %x {axes = [0]} : (tensor<2xf32>) -> tensor<f32>\n"
    )
    assert main([str(path), "--mge-decompose=keep=reduce_mean"]) == 0
    assert "mge.reduce_mean" in capsys.readouterr().out
    assert main([str(path), "-p", "mge-decompose{keep=softmax,reduce_mean}"]) == 0
    assert "mge.reduce_mean" in capsys.readouterr().out
    assert main([str(path), "--mge-decompose"]) == 0
    assert "mge.reduce_mean" not in capsys.readouterr().out


def test_prints_locations_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file), "--print-debuginfo"]) == 0
    printed = capsys.readouterr().out
    assert printed.count('loc("net.py":3:4)') == 1
    file.write_text(printed)
    assert main([str(file), "--print-debuginfo"]) == 0
    assert capsys.readouterr().out == printed


def test_writes_a_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.with_suffix(".out.mlir")
    assert main([str(file), "-o", str(out)]) == 0
    assert "mge.exp" in out.read_text()
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["nothing.mlir"], 1, "nothing.mlir does not exist"),
        ([".", "-f", "mlir"], 1, "cannot read ."),
        (["{file}", "-o", "nowhere/out.mlir"], 1, "cannot write nowhere/out.mlir"),
        (["{text}"], 2, "is not an .mlir file"),
        (["{file}", "-p", "mge-dcee"], 2, "Unrecognized passes: ['mge-dcee']"),
        (["{file}", "-p", "mge-dce{"], 2, "the passes 'mge-dce{' cannot be run"),
        (["{file}", "-p", "mge-dce{fast=1}"], 2, '"fast"'),
        (["{file}", "-p", "mge-fold-constants{max-bytes=big}"], 2, "Incompatible types"),
        (["{file}", "-p", "mge-decompose{keep=nothing}"], 1, "there is no op mge.nothing"),
        (["{file}", "--no-such-option"], 2, "--no-such-option"),
        (["{invalid}"], 1, "mge.constant: result type is tensor<f64>, expected tensor<f32>"),
        (["{unparsed}"], 1, "mge.cast: attribute dtype is missing"),
    ],
)
def test_errors_have_a_status_and_no_traceback(
    arguments: list[str],
    status: int,
    text: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(file.parent)
    names = {"{file}": "net.mlir", "{text}": "a.txt", "{invalid}": "i.mlir", "{unparsed}": "u.mlir"}
    Path("a.txt").touch()
    Path("i.mlir").write_text(INVALID)
    Path("u.mlir").write_text(UNPARSED)
    assert main([names.get(a, a) for a in arguments]) == status
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err and not captured.out


def test_debugging_shows_the_traceback(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(INVALID)
    with config.override(debug=1):
        assert main([str(file)]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_expected_errors(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = f"// expected-error {{{{expected tensor<f32>}}}}\n{INVALID}"
    file.write_text(f"{good}// -----\n{DEAD}")
    assert main([str(file), "--verify-diagnostics", "--split-input-file"]) == 0
    captured = capsys.readouterr()
    assert "mge.exp" in captured.out and not captured.err
    wrong = "// expected-error {{expected tensor<f16>}}\n"
    file.write_text(f"{good}// -----\n{wrong}{INVALID}// -----\n{wrong}{DEAD}")
    assert main([str(file), "--verify-diagnostics", "--split-input-file"]) == 1
    captured = capsys.readouterr()
    assert f"{file}:3: 'expected tensor<f16>' is not in the error" in captured.err
    assert f"{file}:6: there is no error with 'expected tensor<f16>'" in captured.err


def test_diagnostics_without_expectations_are_printed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"{INVALID}// -----\n{UNPARSED}")
    flags = ["--verify-diagnostics", "--parsing-diagnostics", "--split-input-file"]
    assert main([str(file), *flags]) == 0
    printed = capsys.readouterr().out
    assert "expected tensor<f32>" in printed and "attribute dtype is missing" in printed
    assert main([str(file), "--verify-diagnostics", "--split-input-file"]) == 1


def test_help_names_every_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = "".join(capsys.readouterr().out.split())
    assert all(name in text for name in all_passes())
    assert main(["--version"]) == 0
    assert "mgec-opt" in capsys.readouterr().out


def test_passes_are_what_they_are_registered_as() -> None:
    for name, factory in all_passes().items():
        made = factory()
        assert made.name == name
        assert (made.__doc__ or "").count("mge.") >= 1, f"{name} shows no IR"


def test_xdsl_opt_knows_mge(file: Path) -> None:
    command = Path(sysconfig.get_path("scripts")) / "xdsl-opt"
    done = subprocess.run(
        [command, file, "-p", "mge-dce"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mge.neg" in done.stdout and "mge.exp" not in done.stdout


def test_a_closed_pipe_is_quiet(file: Path) -> None:
    file.write_text(f"{DEAD}// -----\n" * 200)
    command = f"{sys.executable} -m mgec.tools.opt --split-input-file {file} | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_starts_quickly(file: Path) -> None:
    """0.5 s on the machine this was written on; processor time, as other tests run beside it."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "mgec.tools.opt", file], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(3)) < 1.2
