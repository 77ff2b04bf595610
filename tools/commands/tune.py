"""Finds the fastest kernels for a model on this machine.

FILE is what mgec compile takes. For each different kernel, the templates that can serve it are
tried with several block sizes. They are timed inside the running network, where weights come
from memory as they do in use. What is clearly faster than the default is written to a database
beside the cache (MGEC_CACHE_DIR), by kernel and target; from then on every compilation on this
machine uses it. MGEC_TUNE=off compiles without it.

The most expensive kernels come first, and --seconds bounds the whole: run it again with more, or
with --kernel, for the rest. Results do not depend on the model: another one with the same kernel
has it, too. Kernels whose results are less accurate (larger Winograd tiles) must be faster by
more.

  mgec tune net.onnx --seconds 120 --threads 2
  mgec tune net.onnx --kernel conv --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from mgec.tools.commands import _model, _source
from mgec.tools.commands._model import counted
from mgec.tools.commands.bench import duration

if TYPE_CHECKING:
    from mgec.compiler.tune.tuner import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    _source.add_arguments(parser)
    parser.add_argument(
        "--seconds",
        type=_model.seconds,
        default=60.0,
        metavar="S",
        help="for all of it (default 60)",
    )
    parser.add_argument(
        "--kernel", default="", metavar="TEXT", help="only kernels with this in their name"
    )


def run(arguments: argparse.Namespace) -> int:
    """Tries candidates until all are tried or the time is over, and prints what was found."""
    from mgec.compiler.pipeline import run_phases
    from mgec.compiler.tune.network import Network
    from mgec.compiler.tune.tuner import tune

    source = _source.read(arguments)
    run_phases(
        source.graph,
        since=source.since,
        precision=arguments.precision,
        target=source.target.name,
        saves_memory=source.target.saves_memory,
    )
    inputs = _source.random_arrays(source.graph, arguments.seed)
    network = Network(source.graph, source.target, source.threads, inputs)
    with _progress(arguments.seconds) as observe:
        found = list(
            tune(network, seconds=arguments.seconds, only=arguments.kernel, observe=observe)
        )
    if arguments.json:
        row = {
            "model": source.name,
            "target": source.target.name,
            "threads": source.threads,
            "kernels": [asdict(finding) for finding in found],
        }
        sys.stdout.write(json.dumps(row) + "\n")
    else:
        _print(source, found)
    return 0


@contextmanager
def _progress(seconds: float) -> Generator[Callable[[str], None]]:
    """A bar of the time that is used up, on a terminal."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread: the compiler forks
    start = time.perf_counter()
    layout = "{desc:30.30} {bar} {n:.0f} of {total:.0f} s"
    with tqdm(
        total=seconds, bar_format=layout, leave=False, disable=not sys.stderr.isatty()
    ) as bar:

        def observe(name: str) -> None:
            bar.set_description_str(name, refresh=False)
            bar.n = min(time.perf_counter() - start, seconds)
            bar.refresh()

        yield observe


def _print(source: _source.Source, found: list[Finding]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("kernel", "calls", "default", "best", "gain", "tried", "chosen"):
        right = column not in ("kernel", "chosen")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for finding in found:
        changed = finding.label != finding.default_label
        table.add_row(
            Text(finding.name),
            str(finding.calls),
            duration(finding.default_seconds),
            duration(finding.seconds),
            f"{finding.default_seconds / finding.seconds:.2f}" if changed else "",
            f"{finding.tried} of {finding.offered}",
            Text(finding.label if changed else "as before"),
        )
    before = sum(finding.default_seconds for finding in found)
    after = sum(finding.seconds for finding in found)
    threads = counted(source.threads, "thread")
    console.print(Text(f"{source.name} on {source.target.name}, {threads}", style="bold"))
    console.print(table)
    console.print(f"these kernels in one run: {duration(before)} before, {duration(after)} now")
