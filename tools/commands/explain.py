"""Says what was chosen for each kernel of a model, and why.

FILE is what mgec compile takes. For each call of a kernel: the ops that were fused, the template
and its numbers, multiplications and additions (FLOPs, as the op defines them; where an algorithm
needs fewer, the ceiling below is of those), bytes of inputs, outputs and weights, operations per
byte; then for each different kernel the reasons, and the memory of the whole.

With --run the model is run, and each step timed where it stands in the network, so that its
weights come from memory as they do in use. A step cannot be faster than its ceiling: the largest
of its FLOPs at the rate of multiply-adds in registers ("compute"), its weights at the rate of the
memory, and its other bytes at that of the second-level cache if they fit ("cache"), else also of
the memory. The three rates are measured in the same run; a busy machine measures too little, so
the best that was ever measured here counts. % is ceiling / time.

  mgec explain net.onnx
  mgec explain net.onnx --run --threads 1 --chart net.svg
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgec.errors import FileError, OptionError
from mgec.tools.commands import _model, _source
from mgec.tools.commands._model import counted
from mgec.tools.commands.bench import duration
from mgec.tools.commands.inspect import amount, byte_count, source_line

if TYPE_CHECKING:
    from rich.console import Console

    from mgec.compiler.api import CompiledGraph
    from mgec.compiler.tune.explanation import Explanation, KernelExplanation, StepExplanation

_WARM_UP_RUNS, _LEAST_RUNS = 3, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    _source.add_arguments(parser)
    parser.add_argument("--run", action="store_true", help="run the model, and time every step")
    parser.add_argument(
        "--seconds",
        type=_model.seconds,
        default=1.0,
        metavar="S",
        help="how long to run (default 1)",
    )
    parser.add_argument(
        "--chart", metavar="FILE.svg", help="write a bar chart of the times here; needs --run"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the explanation."""
    from mgec.compiler.api import compile_graph
    from mgec.compiler.tune.explanation import explain

    if arguments.chart is not None and not arguments.run:
        raise OptionError("--chart: times are not measured without --run", fix="add --run")
    source = _source.read(arguments)
    compiled = compile_graph(
        source.graph, target=source.target, since=source.since, precision=arguments.precision
    )
    explanation = explain(source.graph, compiled)
    if arguments.run:
        explanation = _timed(arguments, source, compiled, explanation)
    if arguments.chart is not None:
        _write_chart(arguments.chart, explanation, source.name)
    if arguments.json:
        sys.stdout.write(json.dumps(report(source, explanation)) + "\n")
    else:
        _print(source, explanation)
    return 0


def _timed(
    arguments: argparse.Namespace,
    source: _source.Source,
    compiled: CompiledGraph,
    explanation: Explanation,
) -> Explanation:
    import numpy as np

    from mgec.compiler.eager import load_kernel
    from mgec.compiler.tune.ceilings import measure_ceilings
    from mgec.compiler.tune.explanation import with_times

    weights = np.frombuffer(compiled.weights, np.uint8)
    kernels = [load_kernel(kernel) for kernel in compiled.kernels]
    bound = compiled.program.bind(
        [kernel.address for kernel in kernels],
        weights.ctypes.data,
        threads=source.threads,
        keep_alive=weights,
    )
    inputs = _source.random_arrays(source.graph, arguments.seed)
    outputs = [np.empty(spec.shape, spec.dtype) for spec in compiled.output_specs]
    addresses = [array.ctypes.data for array in (*inputs, *outputs)]
    for _ in range(_WARM_UP_RUNS):
        bound.run(addresses)
    runs: list[list[float]] = []
    end = time.perf_counter() + arguments.seconds
    while len(runs) < _LEAST_RUNS or time.perf_counter() < end:
        runs.append(bound.run_timed(addresses))
    return with_times(
        explanation,
        runs,
        measure_ceilings(source.target, source.threads),
        threads=source.threads,
        cache_bytes=source.threads * source.target.l2_bytes,
    )


def _write_chart(file: str, explanation: Explanation, title: str) -> None:
    from mgec.tools.commands._chart import bar_chart

    try:
        Path(file).write_text(bar_chart(explanation, title))
    except OSError as error:
        raise FileError(
            f"cannot write {file}: {error.strerror or error}", fix="choose another folder"
        ) from error


def report(source: _source.Source, explanation: Explanation) -> dict[str, Any]:
    """Everything as plain values."""
    from dataclasses import asdict

    rates = explanation.ceilings
    return {
        "model": source.name,
        "target": source.target.name,
        "threads": explanation.threads or None,
        "arena_bytes": explanation.arena_bytes,
        "live_bytes": explanation.live_bytes,
        "weight_bytes": explanation.weight_bytes,
        "scratch_bytes": explanation.scratch_bytes,
        "flops": sum(step.flops for call in explanation.calls for step in call.steps),
        "ceilings": None if rates is None else asdict(rates),
        "calls": [
            {
                "name": call.name,
                "kernel": call.kernel,
                "ops": list(call.ops),
                "template": call.template,
                "label": call.label,
                "notes": list(call.notes),
                "line": source_line(call.line),
                "steps": [_step_report(step) for step in call.steps],
            }
            for call in explanation.calls
        ],
    }


def _step_report(step: StepExplanation) -> dict[str, Any]:
    made: dict[str, Any] = {
        "units": step.units,
        "flops": step.flops,
        "performed_flops": step.performed_flops,
        "input_bytes": step.input_bytes,
        "output_bytes": step.output_bytes,
        "weight_bytes": step.weight_bytes,
        "workspace_bytes": step.workspace_bytes,
        "intensity": round(step.intensity, 4),
    }
    if step.limit is not None:
        made |= {
            "median_us": round(step.limit.median * 1e6, 3),
            "min_us": round(step.limit.least * 1e6, 3),
            "ceiling_us": round(step.limit.ceiling * 1e6, 3),
            "percent": round(step.limit.percent, 1),
            "bound_by": step.limit.bound_by,
        }
    return made


def _print(source: _source.Source, explanation: Explanation) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False)
    timed = explanation.ceilings is not None
    columns = ["#", "kernel", "fused ops", "chosen", "FLOPs", "in", "out", "weights", "FLOP/B"]
    columns += ["min", "median", "GFLOP/s", "%", "bound by"] if timed else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        left = column in ("kernel", "fused ops", "chosen", "bound by")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for number, call in enumerate(explanation.calls):
        for stage, step in enumerate(call.steps):
            cells = [str(number), call.name, _fused(call), call.label]
            if stage:
                cells = ["", "", "", ""]
            if len(call.steps) > 1:
                cells[3] += f"{'; ' * (not stage)}stage {stage + 1}"
            table.add_row(*map(Text, [*cells, *_figures(step)]))
    threads = f", {counted(explanation.threads, 'thread')}" if timed else ""
    steps = counted(len(explanation.calls), "kernel call")
    console.print(
        Text(f"{source.name} on {source.target.name}{threads}: {steps}", style="bold"), table
    )
    _print_reasons(console, explanation.calls)
    _print_totals(console, explanation)


def _fused(call: KernelExplanation) -> str:
    """`conv + add + relu`; ops that only change the shape are left out."""
    return " + ".join(op for op in call.ops if op not in ("broadcast", "reshape")) or call.name


def _figures(step: StepExplanation) -> list[str]:
    sizes = (step.input_bytes, step.output_bytes, step.weight_bytes)
    cells = [amount(step.flops), *(byte_count(size) if size else "" for size in sizes)]
    cells.append(f"{step.intensity:.1f}" if step.flops else "")
    if (limit := step.limit) is not None:
        rate = f"{step.flops / limit.least / 1e9:.1f}" if step.flops and limit.least else ""
        cells += [duration(limit.least), duration(limit.median), rate]
        cells += [f"{limit.percent:.0f}", limit.bound_by]
    return cells


def _print_reasons(console: Console, calls: list[KernelExplanation]) -> None:
    """Why, for each different kernel."""
    from rich.text import Text

    console.print(Text("\nwhy", style="bold"))
    shown: set[int] = set()
    for call in calls:
        if call.kernel in shown:
            continue
        shown.add(call.kernel)
        numbers = [str(i) for i, other in enumerate(calls) if other.kernel == call.kernel]
        more = ", ..." if len(numbers) > 6 else ""
        console.print(Text(f"#{', #'.join(numbers[:6])}{more}  {call.label}"))
        for note in _grouped(call.notes):
            console.print(Text(f"    {note}"))


def _grouped(notes: Sequence[str]) -> list[str]:
    """Notes, those of templates that cannot serve the kernel for the same reason as one."""
    refused: dict[str, list[str]] = {}
    others: list[str] = []
    for note in notes:
        title, colon, reason = note.partition(": ")
        if note.startswith("not ") and colon:
            refused.setdefault(reason, []).append(title.removeprefix("not "))
        else:
            others.append(note)
    return [*others, *(f"not {', '.join(names)}: {why}" for why, names in refused.items())]


def _print_totals(console: Console, explanation: Explanation) -> None:
    from rich.text import Text

    steps = [step for call in explanation.calls for step in call.steps]
    console.print(Text("\ntotals", style="bold"))
    arena, live = byte_count(explanation.arena_bytes), byte_count(explanation.live_bytes)
    console.print(f"arena    {arena}; {live} of values are alive at once")
    console.print(f"weights  {byte_count(explanation.weight_bytes)}, as they were packed")
    console.print(f"scratch  {byte_count(explanation.scratch_bytes)} for each thread")
    flops = sum(step.flops for step in steps)
    console.print(f"FLOPs    {amount(flops) or 'none counted'}")
    limits = [step.limit for step in steps if step.limit is not None]
    if explanation.ceilings is None or not limits:
        return
    least, ceiling = sum(x.least for x in limits), sum(x.ceiling for x in limits)
    rates = explanation.ceilings
    console.print(
        f"time     {duration(least)}, the sum of the steps' least; "
        f"{flops / least / 1e9:.1f} GFLOP/s; ceiling {duration(ceiling)}, "
        f"{100 * ceiling / least:.0f}%"
    )
    console.print(
        f"limits   {rates.flops / 1e9:.1f} GFLOP/s, {rates.memory_bytes / 1e9:.1f} GB/s of memory, "
        f"{rates.cache_bytes / 1e9:.1f} GB/s of the second-level cache"
    )
