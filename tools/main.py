"""`mgec`: compile, run, measure and look into models.

    mgec compile net.py:predict --input x:1,3,224,224 -o net.mge
    mgec run net.mge --input image.npz -o result.npz

Exit status: 0 if all went well, 1 for an error in what was given, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Protocol, cast

from mgec import config
from mgec.errors import MgecError, OptionError
from mgec.version import __version__

COMMANDS = {
    "compile": "compile a model to an artifact, or to the text of a phase",
    "run": "run an artifact on inputs from a file, or on random ones",
    "bench": "measure how fast an artifact runs",
    "tune": "find the fastest kernels for a model here",
    "explain": "say which kernels were chosen and why, and time them",
    "check": "say whether a model file can be imported",
    "inspect": "show what is in an artifact",
    "env": "show versions, this machine and every option",
    "cache": "show or clear the cache of compiled kernels",
    "opt": "run passes on IR text: the same as mgec-opt",
}
"""Every command, and what it does; the file in `tools/commands` has its name."""


class Command(Protocol):
    """What a module in `tools/commands` has."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Does it; returns the exit status."""
        ...


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        only: the command to set up; the others then are names with a sentence, not imported.
    """
    parser = argparse.ArgumentParser(
        prog="mgec",
        description="Compile, run, measure and look into models.",
        epilog="`mgec COMMAND --help` tells more. MGEC_DEBUG=1 adds tracebacks to errors.",
    )
    parser.add_argument("--version", action="version", version=f"mgec {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, sentence in COMMANDS.items():
        if only not in (None, name) or name == "opt":
            commands.add_parser(name, help=sentence, add_help=False)
            continue
        module = _load(name)
        doc = (module.__doc__ or "").strip()
        _, _, details = doc.partition("\n\n")
        made = commands.add_parser(
            name,
            help=sentence,
            description=f"{sentence[0].upper()}{sentence[1:]}.",
            epilog=details or None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(made)
    return parser


def _load(command: str) -> Command:
    return cast("Command", importlib.import_module(f"mgec.tools.commands.{command}"))


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: as on the command line; None takes sys.argv.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if args is None else args)
    try:
        if given[:1] == ["opt"]:
            return int(importlib.import_module("mgec.tools.opt").main(given[1:]))
        only = given[0] if given and given[0] in COMMANDS else None
        arguments = make_parser(only or "").parse_args(given)
        status = _load(arguments.command).run(arguments)
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse: 2 with its message printed, 0 for --help
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        return _report("mgec: interrupted", 130)
    except BrokenPipeError:
        # The reader of our output is gone: so that flushing at exit does not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except MgecError as error:
        return _report(error.render(), 2 if isinstance(error, OptionError) else 1)
    except MemoryError:
        return _report("mgec: there is not enough memory", 1)
    except Exception as error:
        return _report(_internal(error), 1)


def _internal(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f"\n  at   {code.co_filename}:{trace.tb_lineno} in {code.co_name}"
    what = " ".join(str(error).split()) or "no message"
    return (
        f"mgec: internal error: {type(error).__name__}: {what[:300]}{place}\n"
        "  fix  this is a defect in mgec: run again with MGEC_DEBUG=1 for the traceback, "
        "and report it"
    )


def _report(message: str, status: int) -> int:
    """Prints an error in a few lines; with MGEC_DEBUG the traceback before it."""
    try:
        debug = config.debug >= 1
    except OptionError:  # MGEC_DEBUG itself is wrong: that is what `message` says
        debug = False
    if debug:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.write(f"{message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
