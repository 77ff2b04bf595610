"""Runs every ``.mlir`` test in one go: starting lit per file would cost more than the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parent
LIT = [sys.executable, "-c", "from lit.main import main; main()"]


def lit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LIT, "-j2", "-v", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_lit() -> None:
    done = lit(TEST)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


def test_a_failing_check_fails(tmp_path: Path) -> None:
    (tmp_path / "lit.cfg.py").write_text((TEST / "lit.cfg.py").read_text())
    (tmp_path / "good.mlir").write_text("// RUN: filecheck %s --input-file %s\n// CHECK: moon\n")
    (tmp_path / "bad.mlir").write_text("// RUN: filecheck %s --input-file /dev/null\n// CHECK: x\n")
    done = lit(tmp_path)
    assert done.returncode == 1
    assert "PASS: mgec :: good.mlir" in done.stdout
    assert "FAIL: mgec :: bad.mlir" in done.stdout
