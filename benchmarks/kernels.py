"""Times kernels as the compiler chooses them, beside this machine's ceilings and PyTorch.

    taskset -c 1 python benchmarks/kernels.py --torch venv-torch/bin/python
    taskset -c 1 python benchmarks/kernels.py --only "conv 3x3" --cold
    python benchmarks/kernels.py --threads 2 --only matmul

Every row (kernel_cases.py) is a graph that goes through the passes, the selector and the runtime as
a network does; its result is compared with the reference in float64 before it is timed. Kernels
that `mgec tune` found count with `--tuned` only.

The time is the least of many runs: by the wall clock, on one thread also by the clock of the thread
(see torch_peer.py, where PyTorch is measured alike, in turns with us; its time includes its
dispatcher, ours the call in C). % is the time that the ceilings of ceilings.c allow, of the time
taken: multiply-adds, or bytes at the speed of the cache that holds them all, whichever takes
longer; on several threads each is that of one core times the threads. Convolutions count the
products with padding and those that Winograd's algorithm saves: more than 100% is possible.

With --cold each run of a kernel finds other weights, together more than the caches hold: as in a
network. With --threads N the last column is the time on one thread over that on N. With --dynamic
sizes are known at run time only, as in eager mode; rows of several ops are left out then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np
from comparison import facts_line, facts_of_this_run
from kernel_build import Array, aligned, array_of, compile_case, dynamic_case, graph_of, is_one_op
from kernel_cases import Case, all_cases
from torch_peer import least_seconds

from mgec import config
from mgec.compiler.targets import Target, target_named
from mgec.dialects.mge.builder import ReferenceBuilder
from mgec.dialects.mge.spec import FLOAT64, TensorSpec, is_float
from mgec.errors import CompileError, MgecError
from mgec.runtime.program import BoundProgram

TOLERANCE = 2e-4
"""Largest error allowed, relative to the value plus the mean magnitude; Winograd's is the most."""

ROUNDS = 2
"""How often we and the peer take turns."""

MOST_SAMPLES = 4096
"""Runs whose times are kept of one chunk."""

COLD_CACHES = 3
"""With `--cold`: bytes of weights, as a multiple of the last cache."""


LONG_MICROSECONDS, SCALING_GOAL = 100, 0.925
"""A kernel that takes one thread this long should keep so much of each further thread."""


@dataclass
class Result:
    """What was measured.

    Attributes:
        name: of the row.
        kernel: labels of the kernels, which name templates and tiles.
        microseconds: the least time of a run.
        rate: what it does per second, in `unit`.
        unit: "GFLOP/s" or "GB/s", after what limits it.
        percent: of the ceiling.
        error: the largest, relative; None if it was not compared.
        torch_microseconds: the same in PyTorch.
        ratio: that time over ours.
        scaling: the time on one thread over ours.
        missed: goals that were not reached, as text.
        compile_ms: what compiling took, less if kernels were in the cache.
        code_bytes: of all kernels.
        units: of parallel work, of each step.
    """

    name: str
    kernel: list[str]
    microseconds: float
    rate: float
    unit: str
    percent: float
    error: float | None
    torch_microseconds: float | None
    ratio: float | None
    scaling: float | None
    missed: list[str]
    compile_ms: float
    code_bytes: int
    units: list[int]

    @property
    def templates(self) -> str:
        """The templates, for people: what is before the tiles."""
        return " + ".join(dict.fromkeys(_before_tiles(label) for label in self.kernel))


def _before_tiles(label: str) -> str:
    return " ".join(word for word in label.split() if "=" not in word)


# ---- Measuring --------------------------------------------------------------------------------


def ceilings() -> dict[str, float]:
    """What ceilings.c measures."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "ceilings")
        source = str(Path(__file__).with_name("ceilings.c"))
        subprocess.run(["cc", "-O3", "-march=native", source, "-o", program], check=True)
        text = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in map(str.split, text.splitlines())}


@dataclass(frozen=True)
class Limit:
    """What a ceiling allows.

    Attributes:
        seconds: the least time of a run.
        work: of a run, in 1e9 of `unit` times seconds.
        unit: "GFLOP/s" or "GB/s".
    """

    seconds: float
    work: float
    unit: str

    @staticmethod
    def of(
        case: Case, out_bytes: int, resident: int, target: Target, rates: dict[str, float],
        threads: int,
    ) -> Limit:  # fmt: skip
        """The ceiling that binds a row.

        Args:
            case: the row.
            out_bytes: what it writes.
            resident: bytes that all runs together touch.
            target: what it is compiled for.
            rates: see `ceilings`.
            threads: how many share the work.
        """
        read = case.read
        if read is None:
            read = sum(TensorSpec(o.shape, o.dtype).nbytes for o in case.operands)
        known = {int(name.removeprefix("copy_")): v for name, v in rates.items() if "copy" in name}
        sizes: list[float] = np.log([*known]).tolist()
        rate = float(np.interp(log(resident / 1024 / threads), sizes, [*known.values()]))
        work = (read + out_bytes) / 1e9
        memory = Limit(work / (rate * threads), work, "GB/s")
        has_dot = case.is_narrow and target.has_bfloat16_dot
        peak = rates["dot_64" if has_dot else f"fma_{target.vector_bytes}"]
        compute = Limit(case.flops / (peak * 1e9 * threads), case.flops / 1e9, "GFLOP/s")
        return max(memory, compute, key=lambda each: each.seconds)


class TorchPeer:
    """PyTorch in a process of its own, which is asked row by row.

    Raises:
        SystemExit: if the interpreter does not run, or has no torch.
    """

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("torch_peer.py")
        try:
            self._process = subprocess.Popen(
                [python, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # Or its threads may share a processor: its runtime does not pin them by itself.
                env={**os.environ, "OMP_PROC_BIND": "true"},
            )
        except OSError as error:
            raise SystemExit(
                f"kernels: --torch {python} does not run: {error.strerror}\n"
                "  fix  pass the python of an environment with torch"
            ) from None

    def seconds(
        self, case: Case, seconds: float, threads: int, copies: int
    ) -> tuple[float | None, str]:
        """The least time of a run, or why there is none."""
        if case.peer is None:
            return None, ""
        operands = [(o.shape, np.dtype(o.dtype).name, o.fill, o.below) for o in case.operands]
        request = {
            **asdict(case.peer), "operands": operands, "weights": len(case.weights),
            "copies": copies, "threads": threads, "seconds": seconds,
        }  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            reply = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise SystemExit(
                "kernels: torch's process ended; does its python have torch?"
            ) from None
        return reply.get("seconds"), reply.get("error", "")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def error_of(case: Case, operands: Sequence[Array], actual: Array) -> float:
    """The largest error of a result, relative to the value plus the mean magnitude."""
    wide = [a if case.is_narrow or not is_float(a.dtype) else a.astype(FLOAT64) for a in operands]
    expected: Array = np.asarray(case.body(ReferenceBuilder(), *wide), FLOAT64)
    size = np.abs(expected)
    error: Array = np.abs(np.subtract(actual, expected)) / (size + size.mean())
    return float(error.max()) if np.isfinite(error).all() else inf


@dataclass
class Bench:
    """How rows are measured.

    Attributes:
        target: what to compile for.
        rates: see `ceilings`.
        peer: PyTorch, if it is to be measured.
        threads: how many share the work.
        seconds: for each row and contender.
        cold: whether each run finds other weights.
        dynamic: whether sizes are known at run time only.
        tuned: see `compile_case`.
        checks: whether results are compared with the reference.
    """

    target: Target
    rates: dict[str, float]
    peer: TorchPeer | None
    threads: int = 1
    seconds: float = 0.4
    cold: bool = False
    dynamic: bool = False
    tuned: bool = False
    checks: bool = True

    def measure(self, case: Case) -> Result:
        """Compiles, checks and times one row.

        Raises:
            CompileError: if it cannot be compiled, or its result is wrong.
        """
        rng = np.random.default_rng(0)
        operands = [array_of(each, rng) for each in case.operands]
        inputs, weights = operands[: len(case.inputs)], operands[len(case.inputs) :]
        target = replace(self.target, saves_memory=True) if case.saves_memory else self.target
        out = self._output(case)
        arrays = [*inputs, aligned(out.nbytes).view(out.dtype).reshape(out.shape)]
        began = time.perf_counter()
        if self.dynamic:
            built = dynamic_case(case, weights)
        else:
            built = compile_case(case, weights, target, tuned=self.tuned)
        compile_ms = (time.perf_counter() - began) * 1e3
        copies = self._copies(weights)
        bounds = {n: built.bind(n, copies) for n in dict.fromkeys((1, self.threads))}
        addresses = [array.ctypes.data for array in arrays]
        error = self._check(case, operands, arrays[-1], bounds, addresses)

        best = dict.fromkeys(bounds, inf)
        peer_best, why = inf, ""
        for _ in range(ROUNDS):
            for count, bound in bounds.items():

                def run(seconds: float, bound: BoundProgram = bound) -> list[float]:
                    samples = bound.bench(addresses, seconds, MOST_SAMPLES)
                    return [sample / copies for sample in samples]

                # Two clocks for one thread and one for several cannot be compared.
                clocks = max(self.threads, count)
                found = least_seconds(run, self.seconds / ROUNDS, clocks, copies)
                best[count] = min(best[count], found)
            if self.peer is not None:
                share = self.seconds / ROUNDS
                found, why = self.peer.seconds(case, share, self.threads, copies)
                peer_best = min(peer_best, found or inf)
        if why:
            sys.stderr.write(f"{case.name}: torch: {why}\n")

        ours = best[self.threads]
        touched = sum(a.nbytes for a in inputs) if case.read is None else case.read
        touched += out.nbytes + copies * sum(w.nbytes for w in weights)
        limit = Limit.of(case, out.nbytes, touched, target, self.rates, self.threads)
        result = Result(
            case.name, built.labels, ours * 1e6, limit.work / ours, limit.unit,
            100 * limit.seconds / ours, error,
            peer_best * 1e6 if peer_best < inf else None,
            peer_best / ours if peer_best < inf else None,
            best[1] / ours if self.threads > 1 else None,
            [], compile_ms, built.code_bytes, [step.units for step in built.program.steps],
        )  # fmt: skip
        if not self.dynamic:
            result.missed = missed(case, result, self.threads)
        return result

    def _output(self, case: Case) -> TensorSpec:
        (spec,) = graph_of(case, [np.empty(0) for _ in case.weights]).output_specs
        return spec

    def _copies(self, weights: Sequence[Array]) -> int:
        if not (self.cold and weights):
            return 1
        return max(1, -(-COLD_CACHES * last_cache_bytes() // sum(w.nbytes for w in weights)))

    def _check(
        self, case: Case, operands: Sequence[Array], out: Array,
        bounds: dict[int, BoundProgram], addresses: Sequence[int],
    ) -> float | None:  # fmt: skip
        made: list[bytes] = []
        for bound in bounds.values():
            out.reshape(-1).view(np.uint8).fill(0xFF)  # NaN, where nothing is written
            bound.run(addresses)
            made.append(out.tobytes())
        if len(set(made)) > 1:
            raise CompileError(f"{case.name}: the result depends on the number of threads")
        if not self.checks:
            return None
        error = error_of(case, operands, out)
        if error > TOLERANCE:
            raise CompileError(f"{case.name}: the result is wrong, its error is {error:.1e}")
        return error


def last_cache_bytes() -> int:
    """The size of the third-level cache, or a guess."""
    try:
        return os.sysconf("SC_LEVEL3_CACHE_SIZE") or 32 << 20
    except (AttributeError, ValueError, OSError):
        return 32 << 20


def missed(case: Case, result: Result, threads: int) -> list[str]:
    """Which goals of a row were not reached."""
    found: list[str] = []
    if case.goal is not None and result.percent < case.goal:
        found.append(f"{result.percent:.1f}% of the ceiling, not {case.goal:.0f}%")
    if case.peer_goal is not None and result.ratio is not None and result.ratio < case.peer_goal:
        found.append(f"{result.ratio:.2f} times as fast as torch, not {case.peer_goal}")
    if result.scaling is not None and result.microseconds * result.scaling >= LONG_MICROSECONDS:
        wanted = SCALING_GOAL * threads
        if result.scaling < wanted:
            found.append(f"{result.scaling:.2f} times as fast as one thread, not {wanted:.2f}")
    return found


# ---- Showing ----------------------------------------------------------------------------------

HEADER = ("kernel", "chosen", "us", "rate", "% of ceiling", "torch us", "torch / mgec", "scaling")
_WIDTHS = (48, 34, 10, 14, 13, 10, 13, 8)


def cells(result: Result) -> list[str]:
    """A result as text, by the columns of `HEADER`."""

    def shown(value: float | None, decimals: int) -> str:
        return "-" if value is None else f"{value:.{decimals}f}"

    return [
        result.name, result.templates, shown(result.microseconds, 1),
        f"{result.rate:.1f} {result.unit}", shown(result.percent, 0),
        shown(result.torch_microseconds, 1), shown(result.ratio, 2), shown(result.scaling, 2),
    ]  # fmt: skip


def line(texts: Sequence[str]) -> str:
    """One line of the table for terminals: names to the left, numbers to the right."""
    pairs = list(zip(texts, _WIDTHS, strict=True))
    return "".join([f"{t:<{w}} " for t, w in pairs[:2]] + [f"{t:>{w}}" for t, w in pairs[2:]])


def markdown(results: Iterable[Result], facts: dict[str, Any], rates: dict[str, float]) -> str:
    """The table as Markdown, with where, when and how it was measured."""
    rows = [HEADER, ["---"] * len(HEADER), *(cells(each) for each in results)]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([facts_line(facts), "", *table, "", ceilings_line(rates), ""])


def ceilings_line(rates: dict[str, float]) -> str:
    """The ceilings as a sentence."""
    return "ceilings: " + ", ".join(f"{name} {value:.0f}" for name, value in rates.items())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their name")
    parser.add_argument("--target", default="host")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that has torch")
    parser.add_argument("--cold", action="store_true", help="weights come from memory")
    parser.add_argument("--dynamic", action="store_true", help="compile for run-time sizes")
    parser.add_argument("--tuned", action="store_true", help="use what mgec tune found")
    parser.add_argument("--no-check", action="store_true", help="do not compare the results")
    parser.add_argument("--seconds", type=float, default=0.4, help="of each row and contender")
    parser.add_argument("--json", metavar="FILE", help="write everything here")
    parser.add_argument("--markdown", metavar="FILE", help="write the table here")
    options = parser.parse_args()
    if options.threads < 1:
        parser.error("--threads is a number from 1 on")

    bench = Bench(
        target_named(options.target),
        ceilings(),
        TorchPeer(options.torch) if options.torch else None,
        threads=options.threads,
        seconds=options.seconds,
        cold=options.cold,
        dynamic=options.dynamic,
        tuned=options.tuned,
        checks=not options.no_check,
    )
    facts = facts_of_this_run()
    sys.stdout.write(f"{ceilings_line(bench.rates)}\n{line(HEADER)}\n")
    results: list[Result] = []
    failed: list[str] = []
    with config.override(target=options.target):
        for case in all_cases():
            if options.only not in case.name:
                continue
            if options.dynamic and not is_one_op(case):
                continue
            try:
                results.append(bench.measure(case))
            except MgecError as error:
                failed.append(f"{case.name}: {error}")
                continue
            sys.stdout.write(line(cells(results[-1])) + "\n")
            sys.stdout.flush()
    if bench.peer is not None:
        bench.peer.close()
    if options.json:
        rows = [asdict(each) for each in results]
        text = json.dumps({**facts, "ceilings": bench.rates, "results": rows}, indent=1)
        Path(options.json).write_text(text + "\n")
    if options.markdown:
        Path(options.markdown).write_text(markdown(results, facts, bench.rates))
    for result in results:
        for text in result.missed:
            sys.stdout.write(f"below its goal: {result.name}: {text}\n")
    for text in failed:
        sys.stdout.write(f"failed: {text}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
