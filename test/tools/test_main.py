"""`mgec` itself: dispatch, exit status, and what is printed when something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mgec.tools import main as command
from mgec.tools.commands import run as run_command
from mgec.version import __version__

COMMANDS = sorted(set(command.COMMANDS) - {"opt"})


def python_m_mgec(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mgec", *arguments],
        capture_output=True, text=True, check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def test_every_command_has_a_file() -> None:
    folder = Path(command.__file__).parent / "commands"
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    assert files == set(COMMANDS)


def test_help(mgec: Callable) -> None:
    result = mgec("--help")
    assert result.status == 0
    for name, sentence in command.COMMANDS.items():
        assert name in result.out
        assert sentence in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(mgec: Callable, name: str) -> None:
    result = mgec(name, "--help")
    assert result.status == 0
    assert f"usage: mgec {name}" in result.out


def test_version(mgec: Callable) -> None:
    assert mgec("--version") == (0, f"mgec {__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("--frobnicate",)])
def test_bad_usage(mgec: Callable, arguments: tuple[str, ...]) -> None:
    result = mgec(*arguments)
    assert result.status == 2
    assert "mgec: error:" in result.err


def test_opt_is_mgec_opt(mgec: Callable, tmp_path: Path) -> None:
    file = tmp_path / "g.mlir"
    file.write_text("func.func @a() {\n  func.return\n}\n")
    result = mgec("opt", file)
    assert result.status == 0
    assert "func.func @a" in result.out


def test_python_m_mgec(artifact: Path) -> None:
    done = python_m_mgec("run", str(artifact))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("net on x86-64")


def test_an_error_of_a_command_names_no_line_of_ours(tmp_path: Path) -> None:
    done = python_m_mgec("run", "missing.mge", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "mgec.FileMissingError: there is no file missing.mge\n  fix  check the path\n"
    )


def test_traceback_with_debug(tmp_path: Path) -> None:
    code = "from mgec import config\nfrom mgec.tools.main import main\n"
    code += "with config.override(debug=1): main(['run', 'missing.mge'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr
    assert "there is no file missing.mge" in done.stderr


def test_an_internal_error(mgec: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: object) -> int:
        raise KeyError("whatever")

    monkeypatch.setattr(run_command, "run", fail)
    result = mgec("run", "x.mge")
    assert result.status == 1
    assert "mgec: internal error: KeyError: 'whatever'\n  at   " in result.err
    assert "test_main.py" in result.err
    assert "run again with MGEC_DEBUG=1 for the traceback" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [(KeyboardInterrupt, 130, "mgec: interrupted"), (MemoryError, 1, "not enough memory")],
)
def test_other_ends(
    mgec: Callable, monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException], status: int, says: str,
) -> None:  # fmt: skip
    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(run_command, "run", fail)
    result = mgec("run", "x.mge")
    assert result.status == status
    assert says in result.err


def test_a_reader_that_goes_away(artifact: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "mgec", "inspect", str(artifact)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate(timeout=60)
    assert child.returncode in (0, 1)
    assert err == b""


def test_run_starts_fast(artifact: Path) -> None:
    """0.2 s of processor time and 0.14 s of wall time were measured (2 cores, idle).

    Processor time, because a wall clock measures what else the machine does.
    """
    resource = pytest.importorskip("resource")

    def seconds() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times: list[float] = []
    for _ in range(5):
        start = seconds()
        assert python_m_mgec("run", str(artifact)).returncode == 0
        times.append(seconds() - start)
    assert min(times) < 0.4
