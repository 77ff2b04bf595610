"""Runs `onnx.backend.test` on mgec: every case passes, is refused with an error, or is wrong.

Cases run in batches in child processes, so that one that ends the process or does not end
takes nothing with it but itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgec.errors import MgecError

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
"""Categories of cases; "real" are the nine `light_` models."""
OUTCOMES = ("passed", "refused", "wrong", "crashed")
_BATCH = 100
"""Cases per process: compiled code of earlier ones is not given back."""
_CASE_SECONDS = 300
"""A case that takes longer has crashed."""
_FLOAT16_ULPS = 2.0**-9
"""Two units in the last place of a float16, relative."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        kind: its category.
        name: as in `onnx.backend.test`.
        outcome: one of `OUTCOMES`.
        detail: the error, in one line.
        constants: inputs whose values had to be known to import the model.
        folded: whether nothing was left to run: all of it was computed by the import.
    """

    kind: str
    name: str
    outcome: str
    detail: str = ""
    constants: int = 0
    folded: bool = False


def run_cases(pattern: str = "") -> Iterator[Outcome]:
    """Runs all cases whose name contains `pattern`, in child processes."""
    cases = load_cases(pattern)
    start = 0
    while start < len(cases):
        batch = cases[start : start + _BATCH]
        done = 0
        for outcome in _run_batch(batch):
            done += 1
            yield outcome
        if done < len(batch):
            kind, case = batch[done]
            yield Outcome(kind, case.name, "crashed", "the process ended, or did not in time")
            done += 1
        start += done


def load_cases(pattern: str = "") -> list[tuple[str, Any]]:
    """The cases of the package `onnx`, by category."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, while expected results are computed
        found = [(kind, case) for kind in KINDS for case in load_model_tests(kind=kind)]
    return [(kind, case) for kind, case in found if pattern in case.name]


def _run_batch(batch: Sequence[tuple[str, Any]]) -> Iterator[Outcome]:
    """Runs cases in one child, which writes a line for each."""
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            for kind, case in batch:
                line = json.dumps(asdict(run_case(kind, case))) + "\n"
                os.write(write, line.encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    try:
        buffer = b""
        while True:
            ready, _, _ = select.select([read], [], [], _CASE_SECONDS)
            data = os.read(read, 1 << 16) if ready else b""
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                yield Outcome(**json.loads(line))
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)  # it has ended by itself, or never would
        os.waitpid(child, 0)


def run_case(kind: str, case: Any) -> Outcome:
    """Runs one case in this process."""
    from mgec.importers.onnx_backend import MgecBackend

    folded, constants = True, 0
    try:
        model, data_sets = _load(case)
        prepared = MgecBackend.prepare(model)
        for inputs, expected in data_sets:
            outputs = prepared.run(inputs)
            _compare(expected, outputs, case.rtol, case.atol)
            last = prepared.last
            if last is not None:
                folded = folded and not last.graph.input_names
                constants = max(constants, len(last.constants))
    except MgecError as error:
        return Outcome(kind, case.name, "refused", _line(error))
    except AssertionError as error:
        return Outcome(kind, case.name, "wrong", _line(error))
    except Exception as error:
        return Outcome(kind, case.name, "crashed", f"{type(error).__name__}: {_line(error)}")
    return Outcome(kind, case.name, "passed", "", constants, folded)


def _line(error: Exception) -> str:
    if isinstance(error, MgecError):
        reasons = "; ".join(f"{v.name}: {v.description}" for v in error.values)
        return f"{error.headline} [{reasons}]"[:400]
    return " ".join(str(error).split())[:400]


def _compare(expected: Sequence[Any], outputs: Sequence[Any], rtol: float, atol: float) -> None:
    """Raises AssertionError unless outputs agree, in value, shape and dtype.

    The suite's tolerance of 1e-3 is less than float16 resolves: outputs in it may be two ULPs
    apart, which is what the suite itself grants bfloat16.
    """
    from onnx.backend.test.runner import Runner

    assert len(expected) == len(outputs), f"{len(outputs)} outputs, expected {len(expected)}"
    for one, other in zip(expected, outputs, strict=True):
        wide = getattr(one, "dtype", None) == "float16"
        tolerance = max(rtol, _FLOAT16_ULPS) if wide else rtol
        Runner.assert_similar_outputs([one], [other], tolerance, atol)


def _load(case: Any) -> tuple[Any, list[tuple[list[Any], list[Any]]]]:
    """The model of a case, and pairs of inputs and expected outputs."""
    import onnx
    from onnx.backend.test.runner import Runner

    if case.model is not None:
        return case.model, [
            ([_array(x) for x in inputs], [_array(x) for x in outputs])
            for inputs, outputs in case.data_sets
        ]
    if case.model_dir is not None:
        folder = Path(case.model_dir)
        model = onnx.ModelProto.FromString((folder / "model.onnx").read_bytes())
        sets: list[tuple[list[Any], list[Any]]] = []
        for data in sorted(folder.glob("test_data_set*")):
            pair = [
                [
                    _read(data / f"{what}_{i}.pb", value.type)
                    for i, value in enumerate(values)
                    if (data / f"{what}_{i}.pb").exists()
                ]
                for what, values in (("input", model.graph.input), ("output", model.graph.output))
            ]
            sets.append((pair[0], pair[1]))
        return model, sets
    path = Path(onnx.__file__).parent.parent / case.url
    model = onnx.ModelProto.FromString(path.read_bytes())
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [
        Runner.generate_dummy_data(value, seed=0, name=case.model_name, random=False)
        for value in model.graph.input
        if value.name not in known
    ]
    outputs = [
        _read(path.with_name(f"{path.stem}_output_{i}.pb"), model.graph.output[i].type)
        for i in range(len(model.graph.output))
    ]
    return model, [(inputs, outputs)]


def _array(value: Any) -> Any:
    from onnx import TensorProto, numpy_helper

    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _read(path: Path, type_: Any) -> Any:
    """A tensor, a list of them, or None."""
    import onnx
    from onnx import numpy_helper

    data = path.read_bytes()
    if type_.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type_.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def print_report(pattern: str, *, as_json: bool) -> int:
    """Runs cases and prints how many passed, by category; lists what is wrong.

    Returns:
        The exit status: 1 if a case is wrong or crashed.
    """
    start = time.perf_counter()
    outcomes: list[Outcome] = []
    for outcome in run_cases(pattern):
        outcomes.append(outcome)
        if as_json:
            sys.stdout.write(json.dumps(asdict(outcome)) + "\n")
        elif outcome.outcome in ("wrong", "crashed"):
            sys.stdout.write(f"{outcome.outcome}: {outcome.name}: {outcome.detail}\n")
        sys.stdout.flush()
    totals = Counter(o.outcome for o in outcomes)
    if as_json:
        sys.stdout.write(json.dumps({"cases": len(outcomes), **totals}) + "\n")
    else:
        _print_table(outcomes, time.perf_counter() - start)
    return 1 if totals["wrong"] or totals["crashed"] else 0


def _print_table(outcomes: Sequence[Outcome], seconds: float) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("category", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("cases", *OUTCOMES, "known inputs", "folded"):
        table.add_column(column, justify="right")

    def row(name: str, some: Sequence[Outcome]) -> None:
        count = Counter(o.outcome for o in some)
        known = sum(o.constants > 0 for o in some)
        folded = sum(o.folded for o in some)
        numbers = (len(some), *(count[outcome] for outcome in OUTCOMES), known, folded)
        table.add_row(name, *map(str, numbers))

    for kind in KINDS:
        some = [o for o in outcomes if o.kind == kind]
        if some:
            row(kind, some)
    table.add_section()
    row("all", outcomes)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(table)
    console.print(f"{seconds:.0f} s")
