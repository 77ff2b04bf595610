"""Measuring models in mgec and in other frameworks by turns, and showing what came out.

Every measurement is a process of its own, pinned to processors with taskset, that prints a line
of JSON with `min_ms`, `median_ms` and, where it knows, `rel_err`. The contenders take turns, in
rounds: the speed of a machine drifts, and all of them should see the same weather. What
counts is the least time of all rounds.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

OURS = "mgec"
"""What the contender is called that the others are compared with."""

TOLERANCES = {"f32": 1e-4, "bf16": 5e-2}
"""Our largest error allowed, relative to the largest magnitude of the output."""

PEER_TOLERANCE = 5e-2
"""A framework with a larger error computes something else, and is not compared with."""

LIMIT_SECONDS = 900.0
"""A measurement that takes longer (compiling, too) has failed."""


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        name: what to call it.
        onnx: the file.
        data: an .npz file of its inputs, and of the outputs to expect, by name; None if there is
            none.
    """

    name: str
    onnx: Path
    data: Path | None = None

    @classmethod
    def at(cls, onnx: Path) -> Model:
        """The model in a file, with the data of the same name beside it."""
        data = onnx.with_suffix(".npz")
        return cls(onnx.stem, onnx, data if data.exists() else None)


@dataclass(frozen=True)
class Contender:
    """A framework to measure.

    Attributes:
        name: what to call it.
        command: the command that measures a model on a number of threads.
        environment: variables that it needs.
    """

    name: str
    command: Callable[[Model, int], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass
class Result:
    """What a contender needs for a model on a number of threads.

    Attributes:
        min_ms: the least time of all rounds; None if it failed.
        median_ms: the median of the medians of the rounds.
        rel_err: the largest error of all rounds; None if it was not compared.
        error: why it failed, if it did.
        details: the rest of the last line, such as `peak_rss_mb` and `version`.
    """

    model: str
    threads: int
    contender: str
    min_ms: float | None = None
    median_ms: float | None = None
    rel_err: float | None = None
    error: str = ""
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    def is_right(self, tolerance: float) -> bool:
        """Whether it ran, and its error is within the tolerance as far as that is known."""
        return self.min_ms is not None and (self.rel_err is None or self.rel_err <= tolerance)


# ---- Measuring --------------------------------------------------------------------------------


def processors(threads: int, core: int) -> str:
    """The processors to pin to: one thread on `core`, more on those from 0 on."""
    return str(core) if threads == 1 else f"0-{threads - 1}"


def run_json(
    command: Sequence[str], environment: Mapping[str, str] = {}, limit_s: float = LIMIT_SECONDS
) -> dict[str, Any]:
    """The last line of JSON that a command prints; `{"error": why}` if there is none."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except OSError as error:
        return {"error": f"{command[0]} does not run: {error.strerror or error}"}
    except subprocess.TimeoutExpired:
        return {"error": f"it took over {limit_s:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    row: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    if "min_ms" not in row:
        row.setdefault("error", (done.stderr or done.stdout).strip()[-2000:] or "it says nothing")
    return row


def measure(
    models: Sequence[Model],
    contenders: Sequence[Contender],
    threads: Sequence[int],
    *,
    rounds: int = 3,
    core: int = 1,
    limit_s: float = LIMIT_SECONDS,
) -> list[Result]:
    """Measures every model in every contender, by turns.

    Args:
        models: what to run.
        contenders: where.
        threads: on how many threads; each number is a measurement of its own.
        rounds: how often; who fails is not asked again for this model and number of threads.
        core: the processor for one thread.
        limit_s: seconds that a measurement may take.
    """
    results: list[Result] = []
    total = len(models) * len(contenders) * len(threads) * rounds
    with tqdm(total=total, disable=None, leave=False) as bar:
        for count in threads:
            for model in models:
                rows: dict[str, list[dict[str, Any]]] = {c.name: [] for c in contenders}
                for turn in range(rounds):
                    for contender in contenders:
                        bar.set_description(f"{model.name} {contender.name} x{count} #{turn + 1}")
                        bar.update()
                        seen = rows[contender.name]
                        if seen and "error" in seen[-1]:
                            continue
                        command = contender.command(model, count)
                        if shutil.which("taskset"):
                            command = ["taskset", "-c", processors(count, core), *command]
                        seen.append(run_json(command, contender.environment, limit_s))
                results += [summary(model.name, count, name, rows[name]) for name in rows]
    return results


def summary(model: str, threads: int, contender: str, rows: Sequence[dict[str, Any]]) -> Result:
    """The result of some rounds; failed if one of them did."""
    result = Result(model, threads, contender)
    failed = [row for row in rows if "error" in row]
    if failed or not rows:
        result.error = str(failed[0]["error"]) if failed else "it was not measured"
        return result
    result.min_ms = min(row["min_ms"] for row in rows)
    result.median_ms = median(row["median_ms"] for row in rows)
    errors = [row["rel_err"] for row in rows if row.get("rel_err") is not None]
    # NaN is no error that could be compared; max() would drop it.
    result.rel_err = max((e if e == e else math.inf for e in errors), default=None)
    times = ("min_ms", "median_ms", "rel_err")
    result.details = {k: v for k, v in rows[-1].items() if k not in times}
    return result


# ---- Comparing --------------------------------------------------------------------------------


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean; NaN of nothing.

    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


@dataclass(frozen=True)
class Row:
    """The results of one model on one number of threads.

    Attributes:
        by_name: the result of each contender.
        best: the fastest of the others that computes the same; None if there is none.
        ratio: its time over ours: above 1 we are faster; None if one of them is missing.
    """

    model: str
    by_name: dict[str, Result]
    best: Result | None
    ratio: float | None


def rows_of(results: Iterable[Result], threads: int) -> list[Row]:
    """A row for each model measured on this number of threads."""
    models: dict[str, dict[str, Result]] = {}
    for result in results:
        if result.threads == threads:
            models.setdefault(result.model, {})[result.contender] = result
    rows: list[Row] = []
    for model, by_name in models.items():
        peers = [r for n, r in by_name.items() if n != OURS and r.is_right(PEER_TOLERANCE)]
        best = min(peers, key=lambda r: r.min_ms or math.inf, default=None)
        ours = by_name[OURS].min_ms
        ratio = best.min_ms / ours if best and best.min_ms and ours else None
        rows.append(Row(model, by_name, best, ratio))
    return rows


def complaints(results: Iterable[Result], tolerance: float) -> list[str]:
    """What failed or is wrong, a sentence each; ours first."""
    ours: list[str] = []
    others: list[str] = []
    for r in results:
        if r.is_right(tolerance if r.contender == OURS else PEER_TOLERANCE):
            continue
        lines = [line.strip() for line in r.error.splitlines() if line.strip()]
        # Our errors begin with what is wrong; a traceback ends with it.
        why = lines[0 if r.contender == OURS else -1] if lines else f"its error is {r.rel_err:.2g}"
        text = f"{r.contender}, {r.model}, {r.threads} thread(s): {why[:200]}"
        (ours if r.contender == OURS else others).append(text)
    return ours + others


# ---- Showing ----------------------------------------------------------------------------------


def milliseconds(value: float | None) -> str:
    """A time as text of three digits.

    >>> [milliseconds(v) for v in (0.01234, 1.234, 12.34, 123.4, None)]
    ['0.0123', '1.23', '12.3', '123', '-']
    """
    if value is None:
        return "-"
    limits = (0.1, 1, 10, 100)  # one decimal less from each on
    decimals = sum(value < limit for limit in limits)
    return f"{value:.{decimals}f}"


def table(results: Sequence[Result], threads: int) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table for one number of threads; the last row is the mean."""
    rows = rows_of(results, threads)
    names = list(dict.fromkeys(r.contender for r in results if r.contender != OURS))
    header = ["model", f"{OURS} min", "median", *names, "best peer / mgec", "error"]
    body: list[list[str]] = []
    for row in rows:
        ours = row.by_name[OURS]
        cells = [row.model, milliseconds(ours.min_ms), milliseconds(ours.median_ms)]
        for name in names:
            found = row.by_name.get(name)
            mark = "*" if found and found is row.best else ""
            cells.append((milliseconds(found.min_ms) if found else "-") + mark)
        cells.append("-" if row.ratio is None else f"{row.ratio:.2f}")
        cells.append("-" if ours.rel_err is None else f"{ours.rel_err:.1e}")
        body.append(cells)
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if ratios:
        blank = [""] * (len(names) + 2)
        body.append(["geometric mean", *blank, f"{geometric_mean(ratios):.2f}", ""])
    return header, body


def markdown(results: Sequence[Result], threads: Sequence[int], facts: Mapping[str, Any]) -> str:
    """The tables as Markdown, with where, when and how they were measured."""
    text = [facts_line(facts), ""]
    for count in threads:
        header, body = table(results, count)
        text += [f"**{count} thread{'' if count == 1 else 's'}**, ms", ""]
        text += ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *body)]
        text.append("")
    return "\n".join(text)


def print_tables(results: Sequence[Result], threads: Sequence[int]) -> None:
    """Prints the tables for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for count in threads:
        header, body = table(results, count)
        title = f"{count} thread{'' if count == 1 else 's'}, ms (* best peer)"
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(header):
            shown.add_column(column, justify="right" if i else "left")
        for cells in body:
            shown.add_row(*cells)
        console.print(shown)


def draw_chart(results: Sequence[Result], threads: Sequence[int], file: Path, title: str) -> None:
    """Draws for each model how long each contender takes, with ours as 1.

    Raises:
        SystemExit: if matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit("--chart needs matplotlib: pip install matplotlib") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    clipped = 4.0  # a bar longer than this is cut and labelled: it would dwarf the others
    names = list(dict.fromkeys(r.contender for r in results))
    models = list(dict.fromkeys(r.model for r in results))
    figure, axes = pyplot.subplots(
        len(threads),
        1,
        squeeze=False,
        layout="constrained",
        figsize=(max(6.4, 2 + 1.1 * len(models)), 3.2 * len(threads)),
    )
    for axis, count in zip(axes[:, 0], threads, strict=True):
        rows = rows_of(results, count)
        for i, name in enumerate(names):
            width = 0.8 / len(names)
            for j, row in enumerate(rows):
                found, ours = row.by_name.get(name), row.by_name[OURS].min_ms
                if found is None or found.min_ms is None or ours is None:
                    continue
                height = found.min_ms / ours
                place = j + (i - (len(names) - 1) / 2) * width
                color = "black" if name == OURS else f"C{i - 1}"
                label = name if not j else None
                axis.bar(place, min(height, clipped), width, color=color, label=label)
                if height > clipped:
                    text = f"{height:.0f}"
                    axis.text(place, clipped, text, ha="center", va="bottom", fontsize=6)
        axis.axhline(1.0, color="black", linewidth=0.5)
        axis.set_xticks(range(len(rows)), [row.model for row in rows], rotation=20, fontsize=8)
        axis.set_ylabel("time, mgec = 1")
        axis.set_title(f"{count} thread{'' if count == 1 else 's'}", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, ncols=4, frameon=False, loc="outside lower center")
    figure.suptitle(title, fontsize=9)
    figure.savefig(file, dpi=150)


def facts_of_this_run() -> dict[str, Any]:
    """The machine, the date and the command."""
    return {
        "machine": f"{os.cpu_count()} x {_processor_name()}",
        "date": datetime.datetime.now().astimezone().date().isoformat(),
        "command": " ".join(["python", *sys.argv]),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def facts_line(facts: Mapping[str, Any]) -> str:
    """The same as a sentence."""
    return f"{facts['machine']}, {facts['date']}: `{facts['command']}`"


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(results: Sequence[Result], threads: Sequence[int], facts: Mapping[str, Any]) -> str:
    """Everything as JSON: facts, results, and for each number of threads the ratios."""
    ratios: dict[str, dict[str, float | None]] = {}
    for count in threads:
        rows = rows_of(results, count)
        known = [row.ratio for row in rows if row.ratio is not None]
        mean = geometric_mean(known) if known else None
        ratios[str(count)] = {row.model: row.ratio for row in rows} | {"geometric_mean": mean}
    return json.dumps(
        {**facts, "ratios": ratios, "results": [asdict(result) for result in results]}, indent=1
    )


def report(
    results: Sequence[Result],
    threads: Sequence[int],
    tolerance: float,
    *,
    goal: float = 1.0,
    json_file: str | None = None,
    markdown_file: str | None = None,
    chart_file: str | None = None,
) -> int:
    """Prints the tables, writes the files that were asked for, and says what failed.

    Returns:
        The exit status: 1 if one of our results is wrong or missing.
    """
    facts = facts_of_this_run()
    print_tables(results, threads)
    if json_file:
        Path(json_file).write_text(as_json(results, threads, facts) + "\n")
    if markdown_file:
        Path(markdown_file).write_text(markdown(results, threads, facts))
    if chart_file:
        draw_chart(results, threads, Path(chart_file), f"{facts['machine']}, {facts['date']}")
    for count in threads:
        for row in rows_of(results, count):
            if row.ratio is not None and row.ratio < goal:
                text = f"{row.model}, {count} thread(s): {row.ratio:.2f} is below {goal}"
                sys.stdout.write(f"{text}\n")
    for text in complaints(results, tolerance):
        sys.stdout.write(f"{text}\n")
    ours = [result for result in results if result.contender == OURS]
    return 0 if ours and all(result.is_right(tolerance) for result in ours) else 1
