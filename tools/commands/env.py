"""Shows what mgec works with.

The versions of mgec and of what it stands on, the target that `host` means on this machine, the
kernel cache, and every option with its value. Paste this into a bug report.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mgec import config
from mgec.errors import MgecError
from mgec.tools.commands.cache import cache_size
from mgec.version import __version__

PACKAGES = {
    "xdsl": "xdsl",
    "llvmlite": "llvmlite",
    "MLIR (torch-mlir)": "torch-mlir",
    "numpy": "numpy",
    "ml_dtypes": "ml_dtypes",
    "safetensors": "safetensors",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")


def run(arguments: argparse.Namespace) -> int:
    """Prints the report."""
    options = config.table()  # first: a wrong option is an error, not half a report
    counts = cache_size()
    files, nbytes = (sum(column) for column in zip(*counts, strict=True))
    facts: dict[str, Any] = {
        "versions": {
            "mgec": __version__,
            "Python": platform.python_version(),
            **{name: _version(package) for name, package in PACKAGES.items()},
        },
        "host": _host(),
        "cache": {"folder": str(config.cache_dir), "files": files, "bytes": nbytes},
        "options": [row._asdict() for row in options],
    }
    if arguments.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        _print(facts)
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _host() -> dict[str, Any]:
    from mgec.runtime import host

    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "processors": config.num_threads,
        "target": host.best_target(),
    }
    try:
        from mgec.compiler.targets import host_target

        target = host_target()
    except MgecError as error:  # not a machine that mgec compiles for
        return {**facts, "compiles": error.headline}
    return {
        **facts,
        "target": target.name,
        "triple": target.triple,
        "vector_bytes": target.vector_bytes,
        "l1_bytes": target.l1_bytes,
        "l2_bytes": target.l2_bytes,
    }


def _print(facts: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)

    def show(title: str, rows: list[list[str]], columns: list[str]) -> None:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        made.show_header = any(columns)
        for column in columns:
            made.add_column(column, overflow="fold")
        for row in rows:
            made.add_row(*map(Text, row))
        console.print(Text(f"{title}", style="bold"))
        console.print(made)
        console.print()

    for part in ("versions", "host"):
        show(part, [[key, str(value)] for key, value in facts[part].items()], ["", ""])
    cache = facts["cache"]
    show(
        "cache",
        [
            ["folder", cache["folder"]],
            ["kernels", str(cache["files"])],
            ["size", f"{cache['bytes'] / 1e6:.2f} MB"],
        ],
        ["", ""],
    )
    columns = ["variable", "value", "default", "sentence"]
    show("options", [[row[key] for key in columns] for row in facts["options"]], columns)
