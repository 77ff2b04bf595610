"""ONNX models as graphs of mge ops.

net = from_onnx("resnet50.onnx")                        # a symbolic batch is 1
net = from_onnx("net.onnx", {"x": (8, 3, 224, 224)})    # sizes that the file leaves open
y = net(x)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mgec.compiler.graph_module import GraphModule
from mgec.compiler.pause import collector_paused
from mgec.dialects.mge.spec import DTYPES, TensorSpec
from mgec.errors import ArgumentError, ModelError, UnsupportedModelError
from mgec.importers.onnx_file import dtype_of, read_model, type_name
from mgec.importers.onnx_graph import GraphImporter, UnsupportedNode
from mgec.importers.onnx_value import Array, Sequence_, Value

if TYPE_CHECKING:
    import onnx

    from mgec.compiler.api import Executable

InputLike = "tuple[int, ...] | list[int] | Array"
_BATCH = re.compile(r"(n|b|bs|.*batch.*)", re.IGNORECASE)
_SHOWN_NODES = 20
"""An error names at most so many nodes; `mgec check` lists all."""


@dataclass
class ImportedModel:
    """A model that was imported: a graph, and a function to call.

    Attributes:
        graph: what the compiler compiles.
        name: from the file.
        constants: inputs whose values were given, and so are no arguments of the graph.
    """

    graph: GraphModule
    name: str
    constants: tuple[str, ...] = ()
    _executable: Executable | None = field(default=None, repr=False)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in the order of the call."""
        return self.graph.input_names

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs."""
        return self.graph.output_names

    @property
    def input_specs(self) -> list[TensorSpec]:
        """Shape and dtype of each input."""
        return self.graph.input_specs

    def run(self, *arrays: Array) -> list[Array]:
        """Runs the model on NumPy arrays; compiles it first if that was not done yet.

        Args:
            arrays: one per input.

        Returns:
            One array per output.

        Raises:
            ArgumentError: if an array does not fit its input.
        """
        specs, names = self.input_specs, self.input_names
        if len(arrays) != len(specs):
            raise ArgumentError(
                f"{self.name} takes {len(specs)} inputs, but {len(arrays)} are given",
                values=list(zip(names, map(str, specs), strict=True)),
                fix="pass one array per input",
            )
        for name, spec, array in zip(names, specs, arrays, strict=True):
            if tuple(array.shape) != spec.shape or array.dtype != spec.dtype:
                raise ArgumentError(
                    f"{self.name}: input {name!r} is {array.dtype}{list(array.shape)}, "
                    f"expected {spec}",
                    values=[(name, str(spec))],
                    fix="convert it, or import the model for other shapes",
                )
        if self._executable is None:
            from mgec.compiler.api import compile_graph

            self._executable = compile_graph(self.graph.clone()).load()
        return self._executable(*arrays)

    def __call__(self, *tensors: Any) -> Any:
        """Runs the model on tensors.

        Args:
            tensors: one per input: tensors, or what `mgec.tensor` takes.

        Returns:
            A tensor, or a tuple of them if the model has several outputs.
        """
        from mgec.core.tensor import Tensor

        arrays = [t.numpy() if isinstance(t, Tensor) else np.asarray(t) for t in tensors]
        outputs = tuple(Tensor(array) for array in self.run(*arrays))
        return outputs[0] if len(outputs) == 1 else outputs


def from_onnx(source: Any, inputs: Mapping[str, Any] | None = None) -> ImportedModel:
    """Imports an ONNX model.

    Args:
        source: a path, the bytes of a file, or an `onnx.ModelProto`.
        inputs: by name of an input, its shape, where the file leaves sizes open; or an array:
            the input then is a constant with this value. A symbolic size of the first axis is
            1 where nothing is given.

    Returns:
        The model: a graph for the compiler that can also be called.

    Raises:
        ModelError: if the file is damaged, contradicts itself, or exceeds a limit.
        UnsupportedModelError: if it has nodes that cannot be imported; `nodes` lists all.
        FileError: if it cannot be read.
    """
    model, unsupported = _import(source, inputs or {})
    if unsupported:
        raise _unsupported_error(model.name, unsupported)
    return model


def check_onnx(source: Any, inputs: Mapping[str, Any] | None = None) -> list[UnsupportedNode]:
    """Every node of a model that cannot be imported; see `from_onnx`.

    Raises:
        ModelError: if the file is damaged, contradicts itself, or exceeds a limit.
        FileError: if it cannot be read.
    """
    return _import(source, inputs or {})[1]


def _unsupported_error(name: str, nodes: list[UnsupportedNode]) -> UnsupportedModelError:
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    rows = [
        (f"{n.domain + '.' if n.domain else ''}{n.op}", f"{n.name}: {n.reason}"[:160])
        for n in nodes[:_SHOWN_NODES]
    ]
    if len(nodes) > _SHOWN_NODES:
        rows.append(("...", f"and {len(nodes) - _SHOWN_NODES} more"))
    error = UnsupportedModelError(
        f"{name}: {count} cannot be imported",
        values=rows,
        fix="`mgec check` shows all of them with shapes; docs/onnx.md lists what is supported",
    )
    error.nodes = tuple(nodes)
    return error


def _import(source: Any, inputs: Mapping[str, Any]) -> tuple[ImportedModel, list[UnsupportedNode]]:
    with collector_paused():
        try:
            return _build(source, inputs)
        except RecursionError:
            raise ModelError(
                "the model is nested too deeply", fix="the file may be damaged: export it again"
            ) from None
        except MemoryError:
            raise ModelError(
                "there is not enough memory to import the model",
                fix="check the sizes of its constants",
            ) from None


def _build(source: Any, inputs: Mapping[str, Any]) -> tuple[ImportedModel, list[UnsupportedNode]]:
    file = read_model(source)
    proto, name = file.proto, file.name
    initialized = {tensor.name for tensor in proto.graph.initializer}
    formal = [value for value in proto.graph.input if value.name not in initialized]
    _check_names(name, proto.graph, formal, inputs)
    sizes = _symbolic_sizes(name, formal, inputs)
    graph = GraphModule.empty([])
    importer = GraphImporter(file, graph)
    values: dict[str, Value] = {}
    names: list[str] = []
    for value in formal:
        given = inputs.get(value.name)
        if isinstance(given, np.ndarray):
            values[value.name] = Value(given, name=value.name)
        else:
            spec = _input_spec(name, value, given, sizes)
            values[value.name] = importer.b.argument(spec)
            names.append(value.name)
    outputs = importer.run(values)
    results: list[Any] = []
    output_names: list[str] = []
    for output, (output_name, result) in zip(proto.graph.output, outputs, strict=True):
        if importer.unsupported or result is None:
            continue
        if isinstance(result, Sequence_):
            importer.unsupported.append(_output_row(output_name, "it is a sequence"))
            continue
        if result.dtype not in DTYPES:
            importer.unsupported.append(
                _output_row(output_name, f"dtype {result.dtype.name} is not supported")
            )
            continue
        _check_output(name, output, result)
        results.append(importer.b.ssa(result))
        output_names.append(output_name)
    if not importer.unsupported:
        if not results:
            raise ModelError(f"{name}: the model has no outputs", fix="export it again")
        graph.finish(results)
        graph.set_names(names, output_names)
    stem = name.removesuffix(".onnx")
    constants = tuple(v.name for v in formal if v.name not in names)
    return ImportedModel(graph, stem, constants), importer.unsupported


def _output_row(name: str, reason: str) -> UnsupportedNode:
    return UnsupportedNode(name, "output", "", 0, (), f"the model's output: {reason}")


def _check_names(
    name: str, graph: onnx.GraphProto, formal: list[Any], inputs: Mapping[str, Any]
) -> None:
    names = [value.name for value in formal]
    for unknown in [key for key in inputs if key not in names]:
        raise ArgumentError(
            f"{name} has no input {unknown!r}",
            fix=f"its inputs are {', '.join(map(repr, names)) or 'none'}",
        )
    for kind, found in (("input", names), ("output", [value.name for value in graph.output])):
        if len(set(found)) != len(found):
            raise ModelError(
                f"{name}: two {kind}s have the same name",
                fix="the file may be damaged: export it again",
            )


def _symbolic_sizes(name: str, formal: list[Any], inputs: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the symbolic dimensions that the given shapes decide."""
    sizes: dict[str, int] = {}
    for value in formal:
        given = inputs.get(value.name)
        if given is None or not value.type.tensor_type.HasField("shape"):
            continue
        shape = given.shape if isinstance(given, np.ndarray) else tuple(given)
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            if not dim.dim_param:
                continue
            if sizes.setdefault(dim.dim_param, int(size)) != size:
                raise ArgumentError(
                    f"{name}: the size {dim.dim_param!r} would be {sizes[dim.dim_param]} and "
                    f"{size}",
                    fix="give shapes that agree",
                )
    return sizes


def _input_spec(name: str, value: Any, given: Any, sizes: Mapping[str, int]) -> TensorSpec:
    """Shape and dtype of an input.

    Raises:
        ModelError, ArgumentError: if they are not known, or not supported.
    """
    if value.type.WhichOneof("value") != "tensor_type":
        kind = value.type.WhichOneof("value") or "nothing"
        raise ModelError(
            f"{name}: input {value.name!r} is of {kind}, not a tensor",
            fix="only tensors can be inputs",
        )
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type)
    if dtype not in DTYPES:
        raise ModelError(
            f"{name}: input {value.name!r} has element type {type_name(tensor.elem_type)}, "
            "which is not supported",
            fix="use a float, an integer of 8 bits or more, or bool",
        )
    if not tensor.HasField("shape"):
        if given is None:
            raise ModelError(
                f"{name}: input {value.name!r} has no shape",
                fix=f"give it: inputs={{{value.name!r}: (1, 3, 224, 224)}}, or --input "
                f"{value.name}:1x3x224x224",
            )
        return _checked(name, value.name, TensorSpec(tuple(int(s) for s in given), dtype))
    dims = list(tensor.shape.dim)
    if given is not None and len(given) != len(dims):
        raise ArgumentError(
            f"{name}: input {value.name!r} has rank {len(dims)}, but shape {tuple(given)} is given",
            fix=f"give {len(dims)} sizes",
        )
    shape: list[int] = []
    for axis, dim in enumerate(dims):
        fixed = dim.dim_value if dim.HasField("dim_value") else None
        if given is not None:
            size = int(given[axis])
            if fixed is not None and size != fixed:
                raise ArgumentError(
                    f"{name}: axis {axis} of input {value.name!r} has size {fixed} in the file, "
                    f"but {size} is given",
                    fix="only sizes that the file leaves open can be chosen",
                )
        elif fixed is not None:
            size = fixed
        elif dim.dim_param in sizes:
            size = sizes[dim.dim_param]
        elif axis == 0 and (not dim.dim_param or _BATCH.fullmatch(dim.dim_param)):
            size = 1
        else:
            open_ = "x".join(
                str(d.dim_value) if d.HasField("dim_value") else (d.dim_param or "?") for d in dims
            )
            raise ModelError(
                f"{name}: axis {axis} of input {value.name!r} has the symbolic size "
                f"{dim.dim_param or '?'!r}",
                values=[(value.name, open_)],
                fix=f"choose a shape: inputs={{{value.name!r}: (...)}}, or --input "
                f"{value.name}:{open_}",
            )
        shape.append(size)
    return _checked(name, value.name, TensorSpec(tuple(shape), dtype))


def _checked(name: str, value: str, spec: TensorSpec) -> TensorSpec:
    from mgec.importers.onnx_value import check_size

    if any(size < 0 for size in spec.shape):
        raise ModelError(
            f"{name}: input {value!r} has shape {spec.shape}, with a negative size",
            fix="choose sizes of 0 or more",
        )
    check_size(spec)
    return spec


def _check_output(name: str, output: Any, result: Value) -> None:
    """The declared type of an output must be the one that came out."""
    declared = output.type.tensor_type.elem_type
    if declared and dtype_of(declared) != result.dtype:
        raise ModelError(
            f"{name}: output {output.name!r} is declared {type_name(declared)}, but is "
            f"{result.dtype.name}",
            fix="the file contradicts itself: export it again",
        )
