"""Says whether a model file can be imported.

Every node of an .onnx file that cannot be is listed, with its name, op, opset, what comes into it
and the reason; exit status 1 if there is one. Nothing is compiled.

--backend-tests runs the conformance suite of the package onnx instead: each case passes, is
refused with an error, or is wrong. It takes minutes; a FILE then is a part of the names to run.

  mgec check net.onnx
  mgec check net.onnx --input x:1x3x224x224
  mgec check --backend-tests
  mgec check --backend-tests conv
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mgec.errors import OptionError
from mgec.tools.commands._model import counted

if TYPE_CHECKING:
    from mgec.importers.onnx_graph import UnsupportedNode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", metavar="FILE.onnx", nargs="?", help="an ONNX model")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE",
        help="the shape of an input whose sizes the file leaves open; repeat it",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")
    parser.add_argument(
        "--backend-tests", action="store_true", help="run the conformance suite of ONNX"
    )


def run(arguments: argparse.Namespace) -> int:
    """Checks the file, or runs the suite."""
    if arguments.backend_tests:
        from mgec.tools.commands._onnx_conformance import print_report

        return print_report(arguments.file or "", as_json=arguments.json)
    if arguments.file is None:
        raise OptionError("there is no file to check", fix="name an .onnx file")
    from mgec.importers import check_onnx
    from mgec.tools.commands._model import input_shapes

    nodes = check_onnx(arguments.file, input_shapes(arguments.input))
    if arguments.json:
        sys.stdout.write(json.dumps(report(arguments.file, nodes)) + "\n")
    elif nodes:
        _print(arguments.file, nodes)
    else:
        sys.stdout.write(f"{arguments.file}: every node is supported\n")
    return 1 if nodes else 0


def report(file: str, nodes: list[UnsupportedNode]) -> dict[str, Any]:
    """The nodes as plain values."""
    return {"file": file, "unsupported": [asdict(node) for node in nodes]}


def _print(file: str, nodes: list[UnsupportedNode]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("node", "op", "domain", "opset", "inputs", "reason"):
        table.add_column(column, overflow="fold")
    for node in nodes:
        cells = (
            node.name,
            node.op,
            node.domain or "ai.onnx",
            str(node.opset),
            ", ".join(text for text in node.inputs if text),
            node.reason,
        )
        table.add_row(*map(Text, cells))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(Text(f"{file}: {counted(len(nodes), 'node')} cannot be imported", style="bold"))
    console.print(table)
