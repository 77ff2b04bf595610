"""Measures how fast an artifact runs.

The runs are timed in native code, one after the other, without Python in between. GFLOP/s come
from the operations that the compiler counted, at the median time. Needs the runtime and NumPy
only: no compiler.

  mgec bench net.mge --threads 1 --seconds 2
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any, cast

from mgec.tools.commands import _model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    _model.add_arguments(parser)
    parser.add_argument(
        "--seconds", type=_duration, default=1.0, metavar="S", help="how long to run (default 1)"
    )


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Runs the model again and again, and says how long it took."""
    model = _model.load_model(arguments)
    inputs = _model.inputs_of(model, arguments)
    model(*inputs)  # touches the memory, wakes the threads
    timing = model.bench(arguments.seconds, inputs)
    flops = flops_of(model.artifact.metadata.info)
    row: dict[str, Any] = {
        "model": model.name,
        "target": model.target.name,
        "threads": model.threads,
        "runs": len(timing.seconds),
        "min_ms": round(timing.minimum * 1e3, 9),
        "median_ms": round(timing.median * 1e3, 9),
        "p99_ms": round(timing.percentile(99) * 1e3, 9),
        "gflops": round(flops / timing.median / 1e9, 3) if flops and timing.median else None,
        "peak_rss_mb": peak_rss_mb(),
    }
    if arguments.json:
        sys.stdout.write(json.dumps(row) + "\n")
        return 0
    speed = "not counted" if row["gflops"] is None else f"{row['gflops']:.2f}"
    memory = "unknown" if row["peak_rss_mb"] is None else f"{row['peak_rss_mb']:.1f} MB"
    threads, runs = _model.counted(model.threads, "thread"), _model.counted(row["runs"], "run")
    sys.stdout.write(
        f"{model.name} on {model.target.name}, {threads}, {runs}\n"
        f"  median    {duration(timing.median)}\n"
        f"  min       {duration(timing.minimum)}\n"
        f"  99%       {duration(timing.percentile(99))}\n"
        f"  GFLOP/s   {speed}\n"
        f"  peak RSS  {memory}\n"
    )
    return 0


def duration(seconds: float) -> str:
    """Seconds as text of four digits, in the largest unit of s, ms, us and ns that gives 1 or more.

    >>> duration(0.0042), duration(1.0625e-5), duration(9e-8)
    ('4.200 ms', '10.62 us', '90.00 ns')
    """
    scales = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
    unit = next((unit for unit in scales if seconds * scales[unit] >= 0.99995), "ns")
    value = seconds * scales[unit]
    decimals = 3 if value < 9.9995 else 2 if value < 99.995 else 1
    return f"{value:.{decimals}f} {unit}"


def flops_of(info: Any) -> int:
    """The operations of one run, from an artifact's report; 0 where nothing was counted."""
    steps = cast("list[dict[str, Any]]", info.get("steps", []))
    return sum(int(step.get("flops", 0)) for step in steps)


def peak_rss_mb() -> float | None:
    """The most memory this process ever held, in MB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nbytes = peak if sys.platform == "darwin" else peak * 1024
    return round(nbytes / 1e6, 1)
