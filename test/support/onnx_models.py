"""Small ONNX models for tests, and running an imported one without compiling it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mgec.compiler.interpret import run_module
from mgec.importers import ImportedModel, from_onnx

Array = np.ndarray[Any, Any]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def info(name: str, value: Any, shape: Sequence[int | str | None] | None = ()) -> Any:
    """A value info: of an array, or of an element type and a shape."""
    if isinstance(value, np.ndarray):
        element = helper.np_dtype_to_tensor_dtype(value.dtype)
        return helper.make_tensor_value_info(name, element, value.shape)
    return helper.make_tensor_value_info(name, value, shape)


def model_of(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Mapping[str, Array] | None = None,
    *,
    opset: int = 21,
    functions: Sequence[Any] = (),
    domains: Sequence[str] = (),
    name: str = "net",
) -> ModelProto:
    """A model; an output may be a name only, and then has no type."""
    made = [
        helper.make_empty_tensor_value_info(out) if isinstance(out, str) else out for out in outputs
    ]
    tensors = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), name, list(inputs), made, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def node_model(
    op: str,
    inputs: Sequence[Array | None],
    attrs: Mapping[str, Any] | None = None,
    *,
    opset: int = 21,
    outputs: int = 1,
    constant: Sequence[int] = (),
    element: int | None = None,
) -> ModelProto:
    """A model of one node: inputs x0, x1, ... (those in `constant` are initializers).

    The outputs y0, y1, ... have no declared type, or are matrices of `element`.
    """
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    given = {n: x for n, x in zip(names, inputs, strict=True) if x is not None}
    fixed = {f"x{i}": given[f"x{i}"] for i in constant}
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, made, name=op.lower(), **(attrs or {}))
    formal = [info(n, x) for n, x in given.items() if n not in fixed]
    declared = made if element is None else [info(name, element, ("m", "n")) for name in made]
    return model_of([node], formal, declared, fixed, opset=opset)


def interpret(model: ImportedModel, *arrays: Array) -> list[Array]:
    """Runs an imported model with the reference rules of its ops."""
    return run_module(model.graph.module, arrays, weights=model.graph.weights)


def run_node(
    op: str,
    inputs: Sequence[Array | None],
    attrs: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Array]:
    """Imports a model of one node and interprets it; see `node_model`."""
    constant = options.get("constant", ())
    model = from_onnx(node_model(op, inputs, attrs, **options))
    given = [x for i, x in enumerate(inputs) if x is not None and i not in constant]
    return interpret(model, *given)


def node_cases(*modules: str) -> list[tuple[str, Any]]:
    """Cases of `onnx.backend.test` for some ops; all of them would take seconds to load."""
    package = "onnx.backend.test.case.node"
    wanted = [f"{package}.{module}" for module in modules]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in wanted:
            importlib.import_module(name)
    from onnx.backend.test.case.node import _NodeTestCases

    return [("node", case) for case in _NodeTestCases]
