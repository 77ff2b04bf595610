"""What importing the runtime costs and what it drags in."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys, time
before = time.perf_counter()
import mgec.runtime
seconds = time.perf_counter() - before
print(json.dumps([seconds, sorted(sys.modules)]))
"""


def fresh_import() -> tuple[float, set[str]]:
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    ).stdout
    seconds, modules = json.loads(output)
    return seconds, set(modules)


def test_import_is_light() -> None:
    """Under 0.15 s, best of three; no compiler and no NumPy."""
    runs = [fresh_import() for _ in range(3)]
    loaded = runs[0][1]
    forbidden = {"numpy", "xdsl", "torch_mlir", "llvmlite", "ml_dtypes", "mgec.compiler", "pickle"}
    assert not forbidden & loaded
    assert not {name for name in loaded if name.startswith(("mgec.compiler", "mgec.dialects"))}
    assert min(seconds for seconds, _ in runs) <= 0.15
