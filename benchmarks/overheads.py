"""What mgec costs around its kernels: imports, an eager op, a call of a compiled function.

    taskset -c 1 python benchmarks/overheads.py [--json]

Imports are medians of fresh processes; calls are medians of many repeats, in microseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import mgec as mge
import mgec.module as M
from mgec.jit import trace

HEAVY = ("xdsl", "torch_mlir", "llvmlite")


def import_seconds(module: str, repeats: int = 11) -> float:
    """Median wall seconds of `import module`, an empty interpreter's start subtracted."""
    code = (
        "import sys, time; t = time.perf_counter(); import {m}; "
        "print(time.perf_counter() - t); "
        f"assert not [m for m in {HEAVY} if m in sys.modules]"
    ).format(m=module)
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(repeats)
    ]
    return statistics.median(runs)


def call_us(function: Callable[[], Any], batches: int = 50, calls: int = 500) -> float:
    """Median over batches of the mean microseconds of a call."""
    for _ in range(calls):
        function()
    times: list[float] = []
    for _ in range(batches):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return statistics.median(times)


def measure() -> dict[str, float]:
    """All figures, by name."""
    figures = {
        "import mgec (s)": import_seconds("mgec"),
        "import mgec.runtime (s)": import_seconds("mgec.runtime"),
    }
    rng = np.random.default_rng(0)
    a, b = (mge.tensor(rng.standard_normal((4, 4)).astype(np.float32)) for _ in range(2))
    figures["eager add of two 4x4 tensors (us)"] = call_us(lambda: a + b)
    net = M.Sequential(M.Linear(64, 64), M.ReLU(), M.Linear(64, 64), M.ReLU(), M.Linear(64, 10))
    infer = trace(lambda x: net(x), symbolic=True)
    x = mge.tensor(rng.standard_normal((1, 64)).astype(np.float32))
    infer(x)
    total = call_us(lambda: infer(x))
    compiled = infer._last
    state = [item.tensor._storage.address for item in compiled._state]
    out = np.empty((1, 10), np.float32)
    addresses = [x._storage.address, *state, out.ctypes.data]
    samples = compiled._executable.bound.bench(addresses, 0.5)
    kernels = statistics.median(samples) * 1e6
    figures["compiled MLP, call from Python (us)"] = total
    figures["compiled MLP, kernels alone (us)"] = kernels
    figures["compiled MLP, overhead (us)"] = total - kernels
    return figures


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    arguments = parser.parse_args()
    figures = measure()
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:42} {value:9.4g}")


if __name__ == "__main__":
    main()
