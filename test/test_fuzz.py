"""The first cases of the fuzzer, in a process of their own: a crash is a failure, too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mgec import config

CASES = 400


def test_functional(root: Path, tmp_path: Path) -> None:
    last = tmp_path / "last.txt"
    script = root / "test" / "fuzz" / "functional.py"
    options = ["--seed", "0", "--cases", str(CASES), "--seconds", "300", "--last", str(last)]
    found = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(script), *options],
        env=config.environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    where = last.read_text() if last.exists() else "before the first case"
    assert found.returncode in (0, 1), f"crashed at {where}\n{found.stderr}"
    assert found.returncode == 0, found.stdout
    assert json.loads(found.stdout.splitlines()[-1])["cases"] == CASES
