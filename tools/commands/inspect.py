"""Shows what is in an artifact.

Sections with their sizes, inputs and outputs, targets, the kernel calls in order (template, units
of parallel work, operations, the line of the model's source) and the memory plan. --graph prints
the graph as MLIR text instead, if the artifact carries it.

  mgec inspect net.mge
  mgec inspect net.mge --graph > net.mlir
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING, Any, cast

from mgec.errors import ArtifactError
from mgec.tools.commands._model import check_file, counted

if TYPE_CHECKING:
    from mgec.runtime import Artifact, IOSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", metavar="FILE.mge", help="an artifact made by mgec compile")
    parser.add_argument("--graph", action="store_true", help="print the graph as MLIR text")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")


def run(arguments: argparse.Namespace) -> int:
    """Prints the report."""
    from mgec.runtime import read_artifact

    check_file(arguments.file)
    artifact = read_artifact(arguments.file)
    if arguments.graph:
        if artifact.graph is None:
            raise ArtifactError(
                f"{artifact.path} carries no graph", fix="compile it with mgec compile"
            )
        sys.stdout.write(artifact.graph)
        return 0
    facts = report(artifact)
    if arguments.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        _print(facts)
    return 0


def report(artifact: Artifact) -> dict[str, Any]:
    """Everything about an artifact as plain values."""
    metadata = artifact.metadata
    info = metadata.info
    return {
        "file": artifact.path,
        "bytes": artifact.nbytes,
        "name": metadata.name,
        "mgec_version": metadata.mgec_version,
        "sections": [
            {"section": str(section), "bytes": section.nbytes} for section in artifact.sections
        ],
        "inputs": [_spec(spec) for spec in metadata.inputs],
        "outputs": [_spec(spec) for spec in metadata.outputs],
        "targets": [
            {
                "name": target.name,
                "triple": target.triple,
                "cpu": target.cpu,
                "features": list(target.features),
                "kernels": len(target.kernels),
                "steps": len(artifact.program(target.name).steps),
                "arena_bytes": artifact.program(target.name).arena_bytes,
                "scratch_bytes": artifact.program(target.name).scratch_bytes,
                "weight_bytes": len(artifact.weights(target.name)),
            }
            for target in metadata.targets
        ],
        "live_bytes": info.get("live_bytes"),
        "steps": info.get("steps", []),
    }


def _spec(spec: IOSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _print(facts: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)

    def table(*columns: str, right: str = "") -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            justify = "right" if column in right.split() else "left"
            made.add_column(column, justify=justify, overflow="fold")
        return made

    def show(title: str, body: Table) -> None:
        console.print(Text(f"\n{title}", style="bold"))
        console.print(body)

    console.print(
        Text(f"{facts['file']}: {facts['name']}, {byte_count(facts['bytes'])}, ")
        + Text(f"written by mgec {facts['mgec_version']}")
    )
    sections = table("section", "size", right="size")
    for row in facts["sections"]:
        sections.add_row(Text(row["section"]), byte_count(row["bytes"]))
    show("sections", sections)

    values = table("", "name", "type")
    for kind in ("inputs", "outputs"):
        for row in facts[kind]:
            shape = ", ".join(map(str, row["shape"]))
            values.add_row(kind[:-1], Text(row["name"]), Text(f"{row['dtype']}[{shape}]"))
    show("inputs and outputs", values)

    targets = table("target", "triple", "cpu", "needs")
    for row in facts["targets"]:
        targets.add_row(
            row["name"], row["triple"], row["cpu"], ", ".join(row["features"]) or "nothing"
        )
    show("targets", targets)

    steps = cast("list[dict[str, Any]]", facts["steps"])
    calls = table("#", "step", "template", "units", "FLOPs", "line", right="# units FLOPs")
    for i, row in enumerate(steps):
        calls.add_row(
            str(i),
            Text(str(row.get("name", ""))),
            Text(str(row.get("template", ""))),
            str(row.get("units", "")),
            amount(int(row.get("flops", 0))),
            Text(source_line(str(row.get("line", "")))),
        )
    kernels = counted(facts["targets"][0]["kernels"], "kernel")
    show(f"{counted(len(steps), 'step')}, {kernels}", calls)

    memory = table("memory", "size", "", right="size")
    first = facts["targets"][0]
    live = facts["live_bytes"]
    bound = "" if live is None else f"at least {byte_count(live)} is alive at once"
    memory.add_row("arena", byte_count(first["arena_bytes"]), bound)
    memory.add_row("scratch", byte_count(first["scratch_bytes"]), "for each thread")
    memory.add_row("weights", byte_count(first["weight_bytes"]), "used from the mapped file")
    show("memory plan", memory)


_LOCATION = re.compile(
    r'loc\((?:"(?P<name>[^"]*)"\((?:loc\()?)?"(?P<file>[^"]*)":(?P<line>\d+):\d+\)*'
)


def source_line(text: str) -> str:
    """`net.py:12` of `loc("/home/me/net.py":12:0)`; with a name before it `net.onnx:3 Conv c1`."""
    found = _LOCATION.fullmatch(text)
    if found is None:
        return ""
    place = f"{found['file'].rpartition('/')[2]}:{found['line']}"
    return f"{place} {found['name']}" if found["name"] else place


def byte_count(count: int) -> str:
    """`1.50 MB` of 1500000."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def amount(flops: int) -> str:
    """`1.50 M` of 1500000; nothing for 0."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if flops >= size:
            return f"{flops / size:.2f} {unit}"
    return str(flops) if flops else ""
