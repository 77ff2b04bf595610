"""Compiles a model.

FILE is one of
  net.py[:FUNC]  Python: FUNC is a traced function, a plain function of tensors, or a Module (an
                 instance, or a class that needs no arguments; it is put into inference mode).
                 FUNC may be left out if there is one choice. Example inputs come from --input,
                 else from a function example_inputs() in the file, else from the last call of a
                 traced function. Parameters become constants.
  net.mlir       one func.func of mge ops; weights beside it in net.safetensors
  net.onnx       an ONNX model; --input NAME:SHAPE where it leaves sizes open (see mgec check)
  net.mge        an artifact, to compile its graph again, for another target

Without --compile-to the result is an artifact, or with --emit (or -o net.so, net.o, net.h) files
for C programs: so, obj (each with a header beside it), header, exe. They hold the weights, the
kernels that the model uses and the runtime. Another architecture needs its C compiler
(aarch64-linux-gnu-gcc) or pip install mgec[cross].

An .onnx file that was compiled before, with the same options, is not compiled again: its artifact
comes from the cache (mgec cache).

The phases are trace, graph, kernels (the whole graph as one file), then linalg, vector, llvm,
object (one file per kernel, in a folder); -o says where, the text goes to the standard output
otherwise. What trace, graph and kernels print can be compiled further with --compile-from.

  mgec compile net.py:predict --input x:1,3,224,224 -o net.mge
  mgec compile net.onnx --input x:1x3x224x224 --precision bf16 -o net.mge
  mgec compile net.mge --target x86-64-v3 -o net-v3.mge
  mgec compile net.mge --target aarch64-linux-gnu --emit so -o libnet.so
  mgec compile net.py --compile-to graph -o net.mlir
  mgec compile net.mlir --compile-from graph --time-passes -o net.mge
"""

from __future__ import annotations

import argparse
import mmap
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import mgec
from mgec import config
from mgec.errors import ArgumentError, FileError, FileMissingError, OptionError
from mgec.tools.commands._model import counted, input_shapes

if TYPE_CHECKING:
    from mgec.compiler.graph_module import GraphModule
    from mgec.compiler.targets import Target

# As in `mgec.compiler.pipeline`, which takes a while to import; a test compares.
GRAPH_PHASES = ("trace", "graph", "kernels")
KERNEL_PHASES = ("linalg", "vector", "llvm", "object")

# As in `mgec.compiler.codegen.emit`: kind -> how its files end. An artifact is made by default.
EMITTED = {"mge": ".mge", "so": ".so", "obj": ".o", "header": ".h", "exe": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("source", metavar="FILE[:FUNC]", help="a .py, .onnx, .mlir or .mge file")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="the artifact, or where the text of a phase goes"
    )
    parser.add_argument(
        "--target",
        metavar="T",
        help="host, x86-64, x86-64-v2, -v3 or -v4, aarch64, aarch64-dotprod or -i8mm "
        "(default: MGEC_TARGET)",
    )
    parser.add_argument(
        "--emit",
        choices=tuple(EMITTED),
        metavar="KIND",
        help="mge (an artifact), so, obj, header or exe (default: from the ending of OUT)",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="what the model is called; its C functions begin with it (default: as in FILE)",
    )
    parser.add_argument(
        "--opt-level",
        type=int,
        choices=(0, 2),
        default=2,
        help="0 runs no optimization and fuses nothing (default 2)",
    )
    parser.add_argument(
        "--precision",
        choices=("f32", "bf16"),
        default="f32",
        help="bf16 multiplies bfloat16, and sums in float32, where that is faster (default f32)",
    )
    parser.add_argument(
        "--optimize",
        choices=("speed", "size"),
        default="speed",
        help="size keeps weights as small as they are, which costs speed (default speed)",
    )
    parser.add_argument(
        "--graph",
        choices=("keep", "strip"),
        help="whether the artifact carries its graph, to be compiled again for another target "
        "(default: keep; strip for .onnx)",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME:SHAPE[:DTYPE]",
        help="an example input of a Python function, such as x:8,3,32,32:float32; repeat it",
    )
    parser.add_argument(
        "--compile-to",
        choices=GRAPH_PHASES + KERNEL_PHASES,
        metavar="PHASE",
        help=f"stop after this phase: {', '.join(GRAPH_PHASES + KERNEL_PHASES)}",
    )
    parser.add_argument(
        "--compile-from",
        choices=GRAPH_PHASES,
        metavar="PHASE",
        help="the phase that an .mlir file is a dump of: trace (default), graph or kernels",
    )
    parser.add_argument(
        "--dump-phases-to",
        metavar="DIR",
        help="write every phase into numbered folders here (default: MGEC_DUMP)",
    )
    parser.add_argument(
        "--time-passes", action="store_true", help="print what took how long, to stderr"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compiles."""
    from mgec.compiler import model_cache
    from mgec.compiler.targets import target_named

    clock = _Clock()
    path, function = split_source(arguments.source)
    _check_usage(arguments, path, function)
    target = target_named(arguments.target or config.target)
    if arguments.optimize == "size":
        target = replace(target, saves_memory=True)
    key = _cache_key(arguments, path, target)
    if key is not None and (found := model_cache.find(key)) is not None:
        _copy(found, Path(arguments.output))
        size = found.stat().st_size / 1e6
        sys.stdout.write(
            f"{arguments.output}: {path.stem} for {target.name}, from the cache, "
            f"{size:.2f} MB, {clock.total():.2f} s\n"
        )
        return 0
    graph, since, name = load_source(arguments, path, function)
    clock.lap("load", "trace" if path.suffix == ".py" else "read")
    if arguments.compile_to in GRAPH_PHASES:
        _write_graph(arguments, graph, since, target, clock)
    elif arguments.compile_to in KERNEL_PHASES:
        _write_kernels(arguments, graph, since, target, clock)
    else:
        _write_model(arguments, graph, since, arguments.name or name, target, clock)
        if key is not None:
            model_cache.store(key, lambda to: _copy(Path(arguments.output), to))
    if arguments.time_passes:
        clock.print_table()
    return 0


def _cache_key(arguments: argparse.Namespace, path: Path, target: Target) -> str | None:
    """What identifies the artifact in the cache of models; None if it is not to be cached."""
    kind = arguments.emit or emitted_by_ending(Path(arguments.output or ""))
    wanted = (arguments.compile_to, arguments.dump_phases_to, config.dump, arguments.time_passes)
    if path.suffix != ".onnx" or kind != "mge" or any(wanted) or not config.cache:
        return None
    options = (
        target.key, arguments.name, arguments.opt_level, arguments.precision, arguments.graph,
        sorted(arguments.input), path.stem,
    )  # fmt: skip
    if _may_have_external_data(path):
        return None
    from mgec.compiler.model_cache import model_key

    assert mgec.__file__ is not None
    return model_key(path, repr(options), Path(mgec.__file__).parent / "importers")


def _may_have_external_data(path: Path) -> bool:
    """Whether weights may lie in other files, named by an entry "location"."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"\x0a\x08location") >= 0


def _copy(source: Path, to: Path) -> None:
    """Copies a file, all of it or nothing."""
    try:
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=".mgec-") as folder:
            part = Path(folder) / to.name
            shutil.copyfile(source, part)
            part.replace(to)
    except OSError as error:
        raise FileError(
            f"cannot write {to}: {error.strerror or error}", fix="check the folder"
        ) from error


def split_source(text: str) -> tuple[Path, str]:
    """FILE[:FUNC] as a path and a name.

    Raises:
        FileMissingError: if there is no such file.
        FileError: if it is a folder.
        ArgumentError: if it is a file of another kind.
    """
    path, function = Path(text), ""
    if not path.exists() and ":" in text:
        file, _, function = text.rpartition(":")
        path = Path(file)
    if path.is_dir():
        raise FileError(f"{path} is a folder", fix="pass a .py, .onnx, .mlir or .mge file")
    if not path.exists():
        raise FileMissingError(f"there is no file {path}", fix="check the path")
    if path.suffix not in (".py", ".onnx", ".mlir", ".mge"):
        raise ArgumentError(
            f"{path}: files that end in {path.suffix or 'nothing'!r} cannot be compiled",
            fix="pass a .py, .onnx, .mlir or .mge file",
        )
    return path, function


def check_source(path: Path, function: str, inputs: list[str]) -> None:
    """Refuses what files other than Python files do not have: functions, and inputs to choose.

    Raises:
        OptionError: saying what to leave out.
    """
    if path.suffix == ".py":
        return
    if function:
        raise OptionError(
            f"{path}:{function}: only a Python file has functions to choose from",
            fix=f"pass {path}",
        )
    if inputs and path.suffix != ".onnx":
        raise OptionError(f"--input: the inputs of {path} are in the file", fix="leave --input out")


def _check_usage(arguments: argparse.Namespace, path: Path, function: str) -> None:
    """Refuses combinations of options that mean nothing."""
    out, last, first = arguments.output, arguments.compile_to, arguments.compile_from
    check_source(path, function, arguments.input)
    if first is not None and path.suffix != ".mlir":
        raise OptionError(
            f"--compile-from {first}: only an .mlir file can be a dump of a phase",
            fix="leave --compile-from out",
        )
    phases = GRAPH_PHASES + KERNEL_PHASES
    if first is not None and last is not None and phases.index(last) < phases.index(first):
        raise OptionError(
            f"--compile-to {last}: that phase is before --compile-from {first}",
            fix=f"the order is {', '.join(phases)}",
        )
    if last is not None and arguments.emit is not None:
        raise OptionError(
            f"--emit {arguments.emit}: --compile-to {last} stops before there is code to emit",
            fix="leave one of them out",
        )
    if out is None and last is None:
        ending = EMITTED[arguments.emit or "mge"]
        what = "artifact" if ending == ".mge" else "output"
        raise OptionError(
            f"there is no place for the {what}", fix=f"add -o {path.with_suffix(ending).name}"
        )
    if out is None and last == "object":
        raise OptionError("--compile-to object is not text", fix="add -o DIR for the files")
    if out is None:
        return
    place = Path(out)
    if last in KERNEL_PHASES and place.exists() and not place.is_dir():
        raise OptionError(
            f"-o {out}: {last} makes one file per kernel, but this is a file, not a folder",
            fix="name a folder",
        )
    if last not in KERNEL_PHASES and place.is_dir():
        raise OptionError(f"-o {out} is a folder", fix="name a file")
    if path.suffix != ".mge" and place.exists() and place.samefile(path):
        raise OptionError(f"-o {out} is the source itself", fix="name another file")
    if last is None and place.suffix in (".py", ".onnx", ".mlir"):
        raise OptionError(
            f"-o {out}: an artifact is not a {place.suffix} file",
            fix=f"name it {place.with_suffix('.mge')}, or add --compile-to for text",
        )


def load_source(
    arguments: argparse.Namespace, path: Path, function: str
) -> tuple[GraphModule, str, str]:
    """The graph, the phase it is a dump of, and the model's name.

    Args:
        arguments: `input`, `compile_from` and `compile_to` of the command line.
        path: from `split_source`; likewise the function.
        function: of a Python file.

    Raises:
        OptionError: if the file is a dump of another phase.
        MgecError: if the file cannot be read, or is not a model.
    """
    if path.suffix == ".py":
        from mgec.tools.commands._python_file import parse_input, trace_file

        inputs = [parse_input(text) for text in arguments.input]
        graph, name = trace_file(path, function, inputs)
        return graph, "trace", name
    if path.suffix == ".onnx":
        from mgec.importers import from_onnx

        model = from_onnx(path, input_shapes(arguments.input))
        return model.graph, "trace", model.name
    from mgec.compiler.loading import load_artifact_graph, load_graph, phase_of

    if path.suffix == ".mge":
        graph, since, name = load_artifact_graph(path)
        if arguments.compile_to in GRAPH_PHASES[: GRAPH_PHASES.index(since)]:
            raise OptionError(
                f"--compile-to {arguments.compile_to}: {path} carries its graph after {since}",
                fix=f"use --compile-to {since} or later",
            )
        return graph, since, name
    graph = load_graph(path)
    since = arguments.compile_from or phase_of(graph)
    if phase_of(graph) == "kernels" and since != "kernels":
        raise OptionError(
            f"--compile-from {since}: {path} has kernels, so it is a dump of kernels",
            fix="use --compile-from kernels, or leave it out",
        )
    if since == "kernels" and phase_of(graph) != "kernels":
        raise OptionError(
            f"--compile-from kernels: there is no mge.kernel in {path}",
            fix="use --compile-from graph or trace",
        )
    if arguments.compile_to in GRAPH_PHASES[: GRAPH_PHASES.index(since)]:
        raise OptionError(
            f"--compile-to {arguments.compile_to}: {path} is a dump of {since} already",
            fix=f"use --compile-to {since} or later",
        )
    return graph, since, graph.main.sym_name.data


def _run_phases(
    arguments: argparse.Namespace,
    graph: GraphModule,
    since: str,
    until: str,
    target: Target,
    clock: _Clock,
) -> None:
    from mgec.compiler.pipeline import run_phases

    run_phases(
        graph,
        since=since,
        until=until,
        optimize=arguments.opt_level > 0,
        precision=arguments.precision,
        target=target.name,
        saves_memory=target.saves_memory,
        observe=clock.note,
        after_phase=_dump(arguments, target),
    )
    clock.skip()


def _dump(
    arguments: argparse.Namespace, target: Target
) -> Callable[[str, GraphModule], None] | None:
    """What writes each phase, if that was asked for."""
    folder = arguments.dump_phases_to or config.dump
    if folder is None:
        return None
    from mgec.tools.commands._phases import PhaseWriter

    return PhaseWriter(Path(folder), target, optimize=arguments.opt_level > 0).after_phase


def _write_graph(
    arguments: argparse.Namespace, graph: GraphModule, since: str, target: Target, clock: _Clock
) -> None:
    from mgec.compiler.loading import graph_text, save_graph, used_weights

    _run_phases(arguments, graph, since, arguments.compile_to, target, clock)
    if arguments.output is not None:
        save_graph(graph, arguments.output)
        return
    sys.stdout.write(graph_text(graph))
    if used_weights(graph):
        sys.stderr.write("mgec: the weights are left out; -o FILE.mlir writes them beside it\n")


def _write_kernels(
    arguments: argparse.Namespace, graph: GraphModule, since: str, target: Target, clock: _Clock
) -> None:
    from mgec.tools.commands._phases import kernel_forms, write

    phase = arguments.compile_to
    _run_phases(arguments, graph, since, "kernels", target, clock)
    for i, (_, name, data) in enumerate(kernel_forms(graph, target, [phase])):
        if arguments.output is not None:
            write(Path(arguments.output) / name, data)
        else:
            comment = ";" if phase == "llvm" else "//"
            separator = f"{comment} -----\n" if i else ""
            sys.stdout.write(f"{separator}{comment} {name}\n{data.decode()}\n")
        clock.lap(phase, name)


def _write_model(
    arguments: argparse.Namespace,
    graph: GraphModule,
    since: str,
    name: str,
    target: Target,
    clock: _Clock,
) -> None:
    """Writes the artifact, or the files of --emit."""
    from mgec.compiler.api import compile_graph

    output = Path(arguments.output)
    kind = arguments.emit or emitted_by_ending(output)
    stripped = arguments.graph == "strip" or (
        arguments.graph is None and Path(arguments.source).suffix == ".onnx"
    )
    compiled = compile_graph(
        graph,
        target=target,
        optimize=arguments.opt_level > 0,
        precision=arguments.precision,
        keep_source=kind == "mge" and not stripped,
        since=since,
        observe=clock.note,
        after_phase=_dump(arguments, target),
    )
    new = f"{counted(len(compiled.kernels), 'kernel')}, {compiled.compiled_kernels} compiled now"
    clock.note("object", new, compiled.seconds["object"])
    clock.skip()
    if kind == "mge":
        compiled.write(output, name=name)
        written = [output]
    else:
        written = compiled.emit(kind, output, name=name)
    clock.lap("object", "link and write")
    size = sum(path.stat().st_size for path in written)
    sys.stdout.write(
        f"{', '.join(map(str, written))}: {name} for {target.name}, "
        f"{counted(len(compiled.calls), 'step')}, {new}, {size / 1e6:.2f} MB, "
        f"{clock.total():.2f} s\n"
    )


def emitted_by_ending(output: Path) -> str:
    """What the name of a file asks for: an artifact unless it ends like a file for C."""
    endings = {ending: kind for kind, ending in EMITTED.items() if ending}
    return endings.get(output.suffix, "mge")


class _Clock:
    """What took how long: rows of (phase, what, seconds)."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, float]] = []
        self._start = self._last = time.perf_counter()

    def note(self, phase: str, what: str, seconds: float) -> None:
        """Adds a row."""
        self._rows.append((phase, what, seconds))

    def lap(self, phase: str, what: str) -> None:
        """Adds a row for the time since the last lap or skip."""
        now = time.perf_counter()
        self.note(phase, what, now - self._last)
        self._last = now

    def skip(self) -> None:
        """Begins a lap: what was before it is in rows already."""
        self._last = time.perf_counter()

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def print_table(self) -> None:
        """Prints the rows to the standard error stream."""
        from rich.console import Console
        from rich.table import Table

        total = self.total()
        table = Table("phase", "pass")
        table.add_column("ms", justify="right")
        table.add_column("%", justify="right")
        rest = ("", "the rest: imports, checks", total - sum(row[2] for row in self._rows))
        for phase, what, seconds in (*self._rows, rest):
            table.add_row(phase, what, f"{seconds * 1e3:.2f}", f"{100 * seconds / total:.1f}")
        table.add_section()
        table.add_row("", "total", f"{total * 1e3:.2f}", "100.0")
        Console(stderr=True, width=None if sys.stderr.isatty() else 100).print(table)
