"""Measures how fast a model runs.

FILE is one of
  net.mge         an artifact: measured as it is, with the runtime and NumPy only
  net.onnx        compiled first; --input NAME:SHAPE for sizes that the file leaves open
  net.py[:FUNC]   compiled first, with example inputs as for mgec compile
  net.mlir        compiled first

After a few runs to warm up, as many are timed as fit into --seconds. They run in native code, one
after the other, without Python in between; with --from-python each is a call from Python that
takes and returns NumPy arrays, as a program makes it. GFLOP/s come from the operations that the
compiler counted, at the median time.

Inputs are random, the same for the same --seed, or come from --input-data. If that file has
arrays named like outputs, the outputs are compared with them: rel_err is the largest difference
over the largest magnitude.

compile_s is from opening the file to machine code, without import_s, the import of the compiler
itself; compiled_kernels of its kernels were not in the cache. load_s is from there (or from the
artifact) to ready to run. peak_rss_mb is of the whole process: to have it without the compiler,
measure the artifact that --keep writes.

  mgec bench net.mge --threads 1 --seconds 2
  mgec bench net.onnx --input-data net.npz --keep net.mge --json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mgec.errors import ArgumentError, OptionError
from mgec.tools.commands import _model

if TYPE_CHECKING:
    import numpy as np

    from mgec.compiler.graph_module import GraphModule
    from mgec.runtime import Module
    from mgec.runtime.module import Timing

    Array = np.ndarray[Any, Any]

WARM_UP_RUNS = 3
"""Runs before the first that is timed: they touch the memory and wake the threads."""

SOURCES = (".onnx", ".py", ".mlir")
"""How the names of files end that are compiled first; all others are artifacts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("file", metavar="FILE", help="an artifact, or a model to compile")
    parser.add_argument(
        "--input-data", metavar="F.npz", help="inputs by name, and outputs to compare with"
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="F.npz|NAME:SHAPE",
        help="the same, or the shape of an input of a model to compile; repeat it",
    )
    _model.add_run_arguments(parser)
    parser.add_argument(
        "--seconds",
        type=_model.seconds,
        default=2.0,
        metavar="S",
        help="how long to run (default 2)",
    )
    parser.add_argument(
        "--from-python", action="store_true", help="time calls from Python, not runs in native code"
    )
    parser.add_argument("--target", metavar="T", help="what to compile for (default: MGEC_TARGET)")
    parser.add_argument(
        "--precision", choices=("f32", "bf16"), default="f32", help="as for mgec compile"
    )
    parser.add_argument(
        "--optimize", choices=("speed", "size"), default="speed", help="as for mgec compile"
    )
    parser.add_argument(
        "--keep", metavar="OUT.mge", help="write the artifact of a compiled model here"
    )


@dataclass
class Preparation:
    """What it took to have a model ready to run.

    Attributes:
        import_s: Seconds for importing the compiler; None for an artifact.
        compile_s: Seconds from opening the file to machine code; None for an artifact.
        load_s: Seconds from there, or from opening the artifact, to ready to run.
        kernels: How many different kernels the model has; None for an artifact.
        compiled_kernels: How many of them were not in the cache; None for an artifact.
    """

    import_s: float | None = None
    compile_s: float | None = None
    load_s: float = 0.0
    kernels: int | None = None
    compiled_kernels: int | None = None


def run(arguments: argparse.Namespace) -> int:
    """Runs the model again and again, and says how long it took."""
    data, shapes = split_inputs(arguments)
    model, made = prepare(arguments, shapes)
    inputs, expected = arrays_of(model, data, arguments.seed)
    results: list[Array] = []
    for _ in range(WARM_UP_RUNS):
        results = model(*inputs)
    if arguments.from_python:
        timing = time_calls(model, inputs, arguments.seconds)
    else:
        timing = model.bench(arguments.seconds, inputs)
    flops = flops_of(model.artifact.metadata.info)
    row: dict[str, Any] = {
        "model": model.name,
        "target": model.target.name,
        "threads": model.threads,
        "timed": "python" if arguments.from_python else "native",
        "runs": len(timing.seconds),
        "min_ms": round(timing.minimum * 1e3, 9),
        "median_ms": round(timing.median * 1e3, 9),
        "p99_ms": round(timing.percentile(99) * 1e3, 9),
        "gflops": round(flops / timing.median / 1e9, 3) if flops and timing.median else None,
        "rel_err": relative_error(model, results, expected),
        **{k: v if v is None else round(v, 4) for k, v in vars(made).items()},
        "peak_rss_mb": peak_rss_mb(),
    }
    sys.stdout.write(json.dumps(row) + "\n" if arguments.json else _text(row))
    return 0


def _text(row: dict[str, Any]) -> str:
    """The row for people."""
    threads = _model.counted(row["threads"], "thread")
    lines = [f"{row['model']} on {row['target']}, {threads}, {_model.counted(row['runs'], 'run')}"]
    times = {"median": "median_ms", "min": "min_ms", "99%": "p99_ms"}
    figures = {name: duration(row[key] / 1e3) for name, key in times.items()}
    figures["GFLOP/s"] = "not counted" if row["gflops"] is None else f"{row['gflops']:.2f}"
    if row["rel_err"] is not None:
        figures["error"] = f"{row['rel_err']:.3g}"
    if row["compile_s"] is not None:
        new = f"{row['compiled_kernels']} of {_model.counted(row['kernels'], 'kernel')} new"
        figures["compile"] = f"{duration(row['compile_s'])}, {new}"
    figures["load"] = duration(row["load_s"])
    memory = row["peak_rss_mb"]
    figures["peak RSS"] = "unknown" if memory is None else f"{memory:.1f} MB"
    lines += [f"  {name:<10}{text}" for name, text in figures.items()]
    return "\n".join(lines) + "\n"


# ---- Preparing --------------------------------------------------------------------------------


def split_inputs(arguments: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The file of inputs, and what `--input` says about shapes.

    Raises:
        OptionError: if two files are given.
    """
    texts = cast("list[str]", arguments.input)
    files = [text for text in texts if text.endswith(".npz")]
    if arguments.input_data is not None:
        files.append(arguments.input_data)
    if len(files) > 1:
        raise OptionError(
            f"there are two files of inputs, {files[0]} and {files[1]}", fix="pass one of them"
        )
    return (files[0] if files else None), [text for text in texts if not text.endswith(".npz")]


def prepare(arguments: argparse.Namespace, shapes: list[str]) -> tuple[Module, Preparation]:
    """The model of the command line ready to run; compiled first if it is not an artifact.

    Raises:
        OptionError: if options for compiling are given for an artifact.
    """
    import numpy as _  # noqa: F401  (its import is no part of the times)

    from mgec.runtime import load

    if not _is_source(arguments.file):
        for option, given in (
            ("--input NAME:SHAPE", shapes),
            ("--target", arguments.target),
            ("--keep", arguments.keep),
        ):
            if given:
                raise OptionError(
                    f"{option}: {arguments.file} is compiled already", fix=f"leave {option} out"
                )
        _model.check_file(arguments.file)
        start = time.perf_counter()
        model = load(arguments.file, threads=arguments.threads)
        return model, Preparation(load_s=time.perf_counter() - start)
    made = Preparation()
    with tempfile.TemporaryDirectory(prefix="mgec-bench-") as folder:
        artifact = Path(arguments.keep or Path(folder, "model.mge"))
        _compile(arguments, shapes, artifact, made)
        start = time.perf_counter()
        model = load(artifact, threads=arguments.threads)  # mapped, so that the file may go
        made.load_s += time.perf_counter() - start
    return model, made


def _is_source(text: str) -> bool:
    """Whether FILE, or FILE:FUNC, has to be compiled."""
    return Path(text).suffix in SOURCES or ".py:" in text


def _compile(
    arguments: argparse.Namespace, shapes: list[str], artifact: Path, made: Preparation
) -> None:
    """Compiles a source to an artifact, and notes how long it took."""
    start = time.perf_counter()
    from mgec import config
    from mgec.compiler.api import compile_graph
    from mgec.compiler.targets import target_named

    if arguments.file.endswith(".onnx"):
        from mgec import importers as _  # noqa: F401
    imported = time.perf_counter()
    graph, name = _graph(arguments.file, shapes)
    target = target_named(arguments.target or config.target)
    if arguments.optimize == "size":
        target = replace(target, saves_memory=True)
    compiled = compile_graph(graph, target=target, precision=arguments.precision)
    done = time.perf_counter()
    compiled.write(artifact, name=name)
    made.import_s, made.compile_s = imported - start, done - imported
    made.load_s = time.perf_counter() - done
    made.kernels, made.compiled_kernels = len(compiled.kernels), compiled.compiled_kernels


def _graph(source: str, shapes: list[str]) -> tuple[GraphModule, str]:
    """The graph of a source file, and the model's name."""
    if source.endswith(".onnx"):
        from mgec.importers import from_onnx

        model = from_onnx(source, _model.input_shapes(shapes))
        return model.graph, model.name
    from mgec.tools.commands.compile import split_source

    path, function = split_source(source)
    if path.suffix == ".py":
        from mgec.tools.commands._python_file import parse_input, trace_file

        return trace_file(path, function, [parse_input(text) for text in shapes])
    if function or shapes:
        raise OptionError(
            f"{source}: functions to choose and shapes to give are for Python files",
            fix=f"pass {path} alone",
        )
    from mgec.compiler.loading import load_graph

    graph = load_graph(path)
    return graph, graph.main.sym_name.data


# ---- Data -------------------------------------------------------------------------------------


def arrays_of(model: Module, file: str | None, seed: int) -> tuple[list[Array], dict[str, Array]]:
    """The inputs to run on, and the outputs to expect by name.

    Args:
        model: what will run.
        file: an .npz file with the inputs, and outputs if they are known; None makes random ones.
        seed: of random inputs.
    """
    if file is None:
        return _model.random_inputs(model.inputs, seed), {}
    arrays = _model.read_npz(file)
    names = {spec.name for spec in model.outputs} - {spec.name for spec in model.inputs}
    expected = {name: arrays.pop(name) for name in names if name in arrays}
    return _model.named_inputs(model.inputs, arrays, file), expected


def relative_error(
    model: Module, results: Sequence[Array], expected: dict[str, Array]
) -> float | None:
    """The largest difference over the largest magnitude expected, of all outputs compared.

    Returns:
        None if nothing is expected; the largest float (JSON has no infinity) if a value is NaN or
        infinite where the other is not.

    Raises:
        ArgumentError: if an output has another shape than the one expected.
    """
    import numpy as np

    errors: list[float] = []
    for spec, array in zip(model.outputs, results, strict=True):
        if spec.name not in expected:
            continue
        reference = expected[spec.name]
        if reference.shape != array.shape:
            raise ArgumentError(
                f"output {spec.name!r} has shape {array.shape}, but {reference.shape} is expected",
                fix="give inputs and outputs of one run",
            )
        ours, theirs = array.astype(np.float64), reference.astype(np.float64)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        finite = np.isfinite(theirs)
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(ours - theirs))
        largest = float(np.abs(theirs[finite]).max(initial=0.0)) or 1.0
        error = float(difference.max(initial=0.0)) / largest
        errors.append(error if math.isfinite(error) else sys.float_info.max)
    return max(errors, default=None)


def time_calls(model: Module, inputs: Sequence[Array], seconds: float) -> Timing:
    """Times calls from Python: NumPy arrays in, new NumPy arrays out.

    Args:
        model: what to call.
        inputs: as for a call.
        seconds: how long to run; at least one call is made.
    """
    from mgec.runtime.module import Timing

    clock = time.perf_counter
    times: list[float] = []
    end = clock() + seconds
    while not times or clock() < end:
        start = clock()
        model(*inputs)
        times.append(clock() - start)
    return Timing(tuple(times))


# ---- Figures ----------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Seconds as text of four digits, in the largest unit of s, ms, us and ns that gives 1 or more.

    >>> duration(0.0042), duration(1.0625e-5), duration(9e-8)
    ('4.200 ms', '10.62 us', '90.00 ns')
    """
    scales = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
    unit = next((unit for unit in scales if seconds * scales[unit] >= 0.99995), "ns")
    value = seconds * scales[unit]
    decimals = 3 if value < 9.9995 else 2 if value < 99.995 else 1
    return f"{value:.{decimals}f} {unit}"


def flops_of(info: Any) -> int:
    """The operations of one run, from an artifact's report; 0 where nothing was counted."""
    steps = cast("list[dict[str, Any]]", info.get("steps", []))
    return sum(int(step.get("flops", 0)) for step in steps)


def peak_rss_mb() -> float | None:
    """The most memory this process ever held, in MB; None where the system does not tell."""
    with suppress(ImportError):  # Windows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        nbytes = peak if sys.platform == "darwin" else peak * 1024
        return round(nbytes / 1e6, 1)
    return None
