"""The examples run, and say what they promise. `make demo` trains for longer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no warnings, and no progress bar where there is no terminal"
    return done.stdout


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install '.[demo]'")
    text = run(
        EXAMPLES / "digits" / "train.py", "--epochs", "2", "--output-dir", tmp_path, cwd=tmp_path
    )
    trained, one, many = re.findall(r"([\d.]+)% of", text)
    assert float(trained) > 70
    assert one == many == trained
    assert "without the compiler" in text
    for name in ("digits-1.mge", "digits.mge", "weights.safetensors", "held_out.npz"):
        assert (tmp_path / name).stat().st_size > 0


def test_eager_and_traced(tmp_path: Path) -> None:
    text = run(EXAMPLES / "eager_and_traced.py", cwd=tmp_path)
    difference = re.search(r"difference ([\d.e-]+)\n", text)
    assert difference is not None and float(difference[1]) < 1e-5


def test_custom_gradient(tmp_path: Path) -> None:
    text = run(EXAMPLES / "custom_gradient.py", cwd=tmp_path)
    assert re.fullmatch(r"rounded +Tensor\(.*\)\ngradient Tensor\(\[ 0\. +4\. -6\.\].*\)\n", text)


def test_save_load(tmp_path: Path) -> None:
    first, second = re.findall(r"([\d.e-]+)\n", run(EXAMPLES / "save_load.py", cwd=tmp_path))
    assert first == second


def test_getting_started(tmp_path: Path) -> None:
    page = EXAMPLES.parent / "docs" / "getting-started.md"
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    promised = [line[2:] for line in code.splitlines() if line.startswith("# ")]
    assert run("program.py", cwd=tmp_path).splitlines() == promised
