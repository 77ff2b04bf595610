"""Graphs in files: `.mlir` text with its weights beside it, and the graph inside an artifact.

net.mlir             one func.func of mge ops
net.safetensors      the arrays that its mge.weight ops name, if there are any
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from io import StringIO
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import (
    DiagnosticException,
    ParseError,
    UnregisteredConstructException,
    VerifyException,
)

from mgec.compiler.graph_module import GraphModule
from mgec.dialects.mge.constant import WeightOp
from mgec.dialects.mge.dialect import mge_dialect
from mgec.dialects.mge.kernel import KernelOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import DType, TensorSpec, from_type
from mgec.errors import ArtifactError, FileError, FileMissingError, IRError
from mgec.runtime.artifact import read_artifact

Weights = dict[str, np.ndarray[Any, Any]]


# -- text --------------------------------------------------------------------------------


def graph_text(graph: GraphModule) -> str:
    """The graph as MLIR text that `parse_graph` reads, with the user's lines."""
    stream = StringIO()
    Printer(stream, print_debuginfo=True).print_op(graph.module)
    return stream.getvalue() + "\n"


def used_weights(graph: GraphModule) -> Weights:
    """The arrays that the graph still refers to, by key."""
    return {key: graph.weights[key] for key in _weight_specs(graph.module)}


def parse_graph(text: str, name: str = "graph") -> GraphModule:
    """Reads a graph without its weights.

    Args:
        text: MLIR text of a module with one `func.func` of mge ops.
        name: what to call the text in errors.

    Raises:
        IRError: if it does not parse, does not verify, or is not a graph to compile.
        MgecError: if an op does not fit its operands (a `ShapeError`, ...).
    """
    if not text.strip():
        raise IRError(f"{name}: the text is empty", fix="write a func.func of mge ops into it")
    check_strings(text, name)
    context = Context()
    for dialect in (Builtin, Func, mge_dialect()):
        context.load_dialect(dialect)
    try:
        module = Parser(context, text, name).parse_module()
        module.verify()
    except ParseError as error:
        raise IRError(
            f"{name}: the text does not parse: {error.msg}",
            values=[("at", _place(text, error.span.start, name))],
            fix="a graph is a func.func of mge ops, as mgec compile --compile-to=trace prints it",
        ) from error
    except (VerifyException, DiagnosticException, UnregisteredConstructException) as error:
        raise IRError(
            f"{name}: the IR is not valid: {_first_paragraph(error)}",
            fix="mend the op; docs/ops.md tells what each op takes",
        ) from error
    except RecursionError:
        raise IRError(
            f"{name}: the text is nested too deeply", fix="a graph is one func.func of mge ops"
        ) from None
    graph = GraphModule(module)
    _check(graph, name)
    return graph


def phase_of(graph: GraphModule) -> str:
    """The phase that a graph was printed after, as far as it shows: "kernels" or "trace"."""
    ops = graph.main.body.block.ops
    return "kernels" if any(isinstance(op, KernelOp) for op in ops) else "trace"


_STRING_OR_COMMENT = re.compile(
    r"""//[^\n]*|"(?:[^"\\\n\v\f]|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*(?P<end>"?)"""
)


def check_strings(text: str, name: str) -> None:
    """Refuses a string that does not end: xDSL's lexer takes exponential time on one (0.74).

    Raises:
        IRError: naming the place.
    """
    for match in _STRING_OR_COMMENT.finditer(text):
        if match["end"] == "":
            raise IRError(
                f"{name}: the text does not parse: a string does not end",
                values=[("at", _place(text, match.start(), name))],
                fix='close it with " on the same line; a backslash needs another before it',
            )


def _place(text: str, offset: int, name: str) -> str:
    before = text[:offset]
    line = before.count("\n") + 1
    column = offset - (before.rfind("\n") + 1) + 1
    source = text.split("\n")[line - 1].strip()
    return f"{name}:{line}:{column}:   {source}"[:160]


def _first_paragraph(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _check(graph: GraphModule, name: str) -> None:
    """Refuses what the compiler does not expect, in words of the text."""
    function = graph.main
    if function.is_declaration:
        raise IRError(f"{name}: the function has no body", fix="write the ops into it")
    if len(function.body.blocks) != 1:
        raise IRError(
            f"{name}: the function has {len(function.body.blocks)} blocks",
            fix="a graph is one block: it has no branches",
        )
    terminator = graph.return_op
    for op in function.body.block.ops:
        if op is not terminator and not isinstance(op, MgeOp | KernelOp):
            raise IRError(
                f"{name}: {op.name} is not an mge op", fix="write the function in mge ops only"
            )
    types = [*function.function_type.inputs, *function.function_type.outputs]
    for type_ in types:
        if not from_type(type_).is_static:
            raise IRError(
                f"{name}: {type_} has a size that is not known", fix="write a number for every `?`"
            )


def _weight_specs(module: ModuleOp) -> dict[str, TensorSpec]:
    specs: dict[str, TensorSpec] = {}
    for op in module.walk():
        if isinstance(op, WeightOp):
            specs[str(op.attrs["key"])] = op.result_specs[0]
    return specs


# -- .mlir files -------------------------------------------------------------------------


def load_graph(path: str | os.PathLike[str]) -> GraphModule:
    """Reads a graph from an `.mlir` file and the `.safetensors` file beside it.

    Args:
        path: the `.mlir` file.

    Raises:
        FileMissingError: if the file, or the weights that it needs, are not there.
        FileError: if one of them cannot be read.
        IRError: if the text is not a graph, or the weights do not fit it.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError as error:
        raise FileMissingError(f"there is no file {file}", fix="check the path") from error
    except OSError as error:
        raise FileError(
            f"cannot read {file}: {error.strerror or error}", fix="check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise IRError(f"{file}: not MLIR text: {error}", fix="pass MLIR as text") from error
    graph = parse_graph(text, str(file))
    specs = _weight_specs(graph.module)
    if specs:
        graph.weights = _read_weights(file.with_suffix(".safetensors"), specs, file)
    return graph


def save_graph(graph: GraphModule, path: str | os.PathLike[str]) -> list[Path]:
    """Writes a graph as `load_graph` reads it.

    Args:
        graph: the graph.
        path: the `.mlir` file; weights go beside it, under its name with `.safetensors`.

    Returns:
        The files that were written.

    Raises:
        FileError: if a file cannot be written.
    """
    from safetensors.numpy import save

    file = Path(path)
    written = [file]
    weights = used_weights(graph)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(graph_text(graph))
        if weights:
            beside = file.with_suffix(".safetensors")
            beside.write_bytes(save({k: np.ascontiguousarray(v) for k, v in weights.items()}))
            written.append(beside)
    except OSError as error:
        raise FileError(
            f"cannot write {file}: {error.strerror or error}", fix="choose another folder"
        ) from error
    return written


_SAFETENSORS_NAMES = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip


def _read_weights(file: Path, specs: Mapping[str, TensorSpec], needed_by: Path) -> Weights:
    # Not safetensors.numpy.load: it does not know bfloat16.
    from safetensors import (
        SafetensorError,
        deserialize,  # pyright: ignore[reportUnknownVariableType]
    )

    try:
        rows = cast("list[tuple[str, Any]]", deserialize(file.read_bytes()))
    except FileNotFoundError as error:
        raise FileMissingError(
            f"{needed_by} has weights, but there is no file {file}",
            fix=f"put {file.name} beside {needed_by.name}: mgec compile writes both",
        ) from error
    except OSError as error:
        raise FileError(
            f"cannot read {file}: {error.strerror or error}", fix="check the path"
        ) from error
    except SafetensorError as error:
        raise FileError(f"{file} is damaged: {error}", fix="write it again") from error
    entries = dict(rows)
    weights: Weights = {}
    for key, spec in specs.items():
        entry = entries.get(key)
        if entry is None:
            raise IRError(
                f"{file}: there is no weight {key!r}, which {needed_by.name} names",
                values=[("weights", ", ".join(entries) or "none")],
                fix="use the files that were written together",
            )
        shape = tuple(entry["shape"])
        if shape != spec.shape or entry["dtype"] != _SAFETENSORS_NAMES[spec.dtype.name]:
            raise IRError(
                f"{file}: weight {key!r} does not fit {needed_by.name}",
                values=[
                    ("file", f"{entry['dtype']}[{', '.join(map(str, shape))}]"),
                    ("graph", str(spec)),
                ],
                fix="use the files that were written together",
            )
        weights[key] = np.frombuffer(bytearray(entry["data"]), spec.dtype).reshape(shape)
    return weights


# -- artifacts ---------------------------------------------------------------------------


def load_artifact_graph(path: str | os.PathLike[str]) -> tuple[GraphModule, str, str]:
    """Reads back the graph that an artifact was compiled from.

    Args:
        path: an artifact (`.mge`).

    Returns:
        The graph after the phase `graph` (or `kernels`), that phase, and the model's name.

    Raises:
        ArtifactError: if the file is damaged, or carries no graph.
        FileMissingError: if it is not there.
    """
    artifact = read_artifact(path)
    if artifact.graph is None:
        raise ArtifactError(
            f"{artifact.path} carries no graph, so it cannot be compiled again",
            fix="compile the model's source",
        )
    graph = parse_graph(artifact.graph, f"{artifact.path}: GRAPH")
    target = artifact.metadata.targets[0].name
    section = artifact.weights(target)
    offsets = cast("dict[str, Any]", artifact.metadata.info.get("weights", {}))
    for key, spec in _weight_specs(graph.module).items():
        offset = offsets.get(key)
        if not isinstance(offset, int) or not 0 <= offset <= len(section) - spec.nbytes:
            raise ArtifactError(
                f"{artifact.path}: the weight {key!r} is not in it", fix="compile the source again"
            )
        graph.weights[key] = _array(section[offset : offset + spec.nbytes], spec)
    phase = "kernels" if phase_of(graph) == "kernels" else "graph"
    return graph, phase, artifact.metadata.name


def _array(data: memoryview, spec: TensorSpec) -> np.ndarray[Any, Any]:
    dtype: DType = spec.dtype
    return np.frombuffer(data, dtype, prod(spec.shape)).reshape(spec.shape)
