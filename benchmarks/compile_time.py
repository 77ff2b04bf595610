"""Compile time: the first call of a traced training step, LeNet of examples/digits, batch 32.

It is the first call, in a fresh process, less the median of later ones; `import mgec`
is not part of it, what the compiler imports on first use is. Cold: the cache folder is empty.
Warm: a process before compiled the same. CPU seconds are those of all threads, and say more than
the clock does on a machine that does other things.

python benchmarks/compile_time.py [--repeat N] [--profile]     one JSON line
"""

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mgec import config

ROOT = Path(__file__).parents[1]


def measure(profile: bool) -> dict[str, float]:
    """In this process: seconds of the first call and of later ones, and of the import before."""
    start = time.perf_counter()
    import mgec as mge

    sys.path.insert(0, str(ROOT / "examples" / "digits"))
    from net import LeNet
    from train import training_step

    imported = time.perf_counter()
    net = LeNet()
    step = training_step(net, mge.optimizer.AdamW(net.parameters(), lr=1e-3))
    rng = np.random.default_rng(0)
    data = mge.tensor(rng.random((32, 1, 32, 32), "float32"))
    label = mge.tensor(rng.integers(0, 10, 32).astype("int32"))
    made = time.perf_counter()
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    calls, cpu = [], []
    for _ in range(50):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        float(step(data, label))
        calls.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
        profiler.disable()
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(70)
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    later = float(np.median(calls[1:]))
    return {
        "compile_s": calls[0] - later,
        "compile_cpu_s": cpu[0] - float(np.median(cpu[1:])),
        "step_ms": later * 1e3,
        "import_s": imported - start,
        "make_s": made - imported,
    }


def fresh(folder: str, profile: bool) -> dict[str, float]:
    """`measure` in a process of its own, with the kernel cache in `folder`."""
    command = [sys.executable, __file__, "--child", *["--profile"] * profile]
    done = subprocess.run(
        command, env=config.environment(cache_dir=folder), stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3, help="cold and warm pairs; medians count")
    parser.add_argument("--profile", action="store_true", help="cProfile of the call, to stderr")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.profile)))
        return
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("cold", "warm"):
                runs[kind].append(fresh(folder, options.profile))
    line: dict[str, object] = {"benchmark": "compile_time", "model": "LeNet step, batch 32"}
    for kind, results in runs.items():
        for key in results[0]:
            line[f"{kind}_{key}"] = round(float(np.median([r[key] for r in results])), 3)
        line[f"{kind}_compile_s_all"] = [round(r["compile_s"], 3) for r in results]
    print(json.dumps(line))


if __name__ == "__main__":
    main()
