"""mgec as an ONNX backend: what `onnx.backend.test` and other tools of ONNX drive.

    import onnx.backend.test
    from mgec.importers.onnx_backend import MgecBackend

    tests = onnx.backend.test.BackendTest(MgecBackend, __name__)

Graphs have fixed shapes. Where the shape of a result depends on the value of an input (the shape of
a Reshape, the axes of a reduction), the model is imported for that value, when it is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from mgec.errors import ArgumentError, ModelError, UnsupportedModelError
from mgec.importers.onnx import ImportedModel, from_onnx
from mgec.importers.onnx_value import Array

_MOST_VARIANTS = 16
"""A prepared model remembers its compiled form for so many signatures of inputs."""


class MgecBackendRep(BackendRep):
    """A model that is imported and compiled when the shapes of its inputs are known.

    Attributes:
        last: what the last call ran.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        initialized = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [v.name for v in model.graph.input if v.name not in initialized]
        self._constant: tuple[str, ...] = ()
        self._variants: dict[Any, ImportedModel] = {}
        self.last: ImportedModel | None = None

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Runs the model.

        Args:
            inputs: arrays in the order of the model's inputs, by name, or a single one.
            kwargs: not used.

        Returns:
            The outputs, as a named tuple.

        Raises:
            MgecError: if the model cannot be imported for these inputs.
        """
        arrays = self._by_name(inputs)
        self.last = model = self._variant(arrays)
        results = model.run(*(arrays[name] for name in model.input_names))
        names = [value.name for value in self._model.graph.output]
        return namedtupledict("Outputs", names)(*results)

    def _by_name(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        given: Mapping[str, Any]
        if isinstance(inputs, Mapping):
            given = inputs
        else:
            if len(inputs) > len(self._inputs):
                raise ArgumentError(
                    f"the model has {len(self._inputs)} inputs, but {len(inputs)} are given",
                    fix="pass one array per input",
                )
            given = dict(zip(self._inputs, inputs, strict=False))
        missing = [name for name in self._inputs if name not in given]
        if missing:
            raise ArgumentError(f"there is no value for input {missing[0]!r}", fix="pass one")
        for name, value in given.items():
            if not isinstance(value, np.ndarray | np.generic):
                raise ModelError(
                    f"input {name!r} is a {type(value).__name__}, not a tensor",
                    fix="only tensors can be inputs",
                )
        return {name: np.asarray(value) for name, value in given.items()}

    def _variant(self, arrays: Mapping[str, Array]) -> ImportedModel:
        """The model for the shapes of these inputs, and for the values that must be known."""
        if (model := self._variants.get(self._key(arrays))) is not None:
            return model
        while True:
            signature: dict[str, Any] = {
                name: array if name in self._constant else array.shape
                for name, array in arrays.items()
            }
            try:
                model = from_onnx(self._model, signature)
                break
            except UnsupportedModelError as error:
                needs = {name for node in error.nodes for name in node.needs}
                if any(not node.needs for node in error.nodes) or needs <= {*self._constant}:
                    raise
                self._constant = tuple(sorted({*self._constant, *needs}))
        if len(self._variants) >= _MOST_VARIANTS:
            self._variants.clear()
        self._variants[self._key(arrays)] = model
        return model

    def _key(self, arrays: Mapping[str, Array]) -> Any:
        return tuple(
            (name, array.shape, array.tobytes() if name in self._constant else b"")
            for name, array in sorted(arrays.items())
        )


class MgecBackend(Backend):
    """Runs ONNX models with mgec, on the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> MgecBackendRep:
        """Checks a model, and returns what runs it.

        Args:
            model: the model.
            device: "CPU".
            kwargs: not used.

        Raises:
            ModelError: if the model is not valid.
        """
        if not cls.supports_device(device):
            raise ArgumentError(f"device {device!r} is not supported", fix="use 'CPU'")
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise ModelError(
                f"the model is not valid: {' '.join(str(error).split())[:200]}",
                fix="export it again",
            ) from error
        return MgecBackendRep(model)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...] | None:
        """Runs one node.

        Args:
            node: the node.
            inputs: one array per input that is given.
            device: "CPU".
            outputs_info: dtype and shape of each output; not needed.
            kwargs: `opset_version`, default the newest.
        """
        names = [name for name in node.input if name]
        arrays = [np.asarray(value) for value in inputs]
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [_value_info(name, array) for name, array in zip(names, arrays, strict=True)],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        opset = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        opsets = [onnx.helper.make_opsetid("", opset)]
        if node.domain not in ("", "ai.onnx"):
            opsets.append(onnx.helper.make_opsetid(node.domain, 1))
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=onnx.IR_VERSION)
        return MgecBackendRep(model).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU."""
        return device == "CPU"


def _value_info(name: str, array: Array) -> onnx.ValueInfoProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, element, array.shape)


prepare = MgecBackend.prepare
run_model = MgecBackend.run_model
run_node = MgecBackend.run_node
supports_device = MgecBackend.supports_device
is_compatible = MgecBackend.is_compatible
