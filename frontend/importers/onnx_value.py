"""What an ONNX name stands for while a model is imported, and the builder that folds constants.

Handlers of ONNX ops are written once, in mge ops. `FoldingBuilder` evaluates an op at once, with
its reference rule, if all operands are known and small: shape arithmetic never reaches the graph.
Everything else is appended to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, NameLoc, StringAttr
from xdsl.ir import Attribute, SSAValue

from mgec.compiler.graph_module import GraphModule
from mgec.dialects.mge.builder import OpBuilder
from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.spec import DTYPES, DType, TensorSpec, to_type
from mgec.errors import ModelError
from mgec.jit.tracer import add_constant

Array = np.ndarray[Any, Any]

FOLD_ELEMENTS = 1 << 18
"""Ops on constants with at most so many elements are evaluated during the import."""
FOLD_TOTAL = 1 << 28
"""After so many elements nothing more is evaluated: a hostile file would keep us busy."""
MAX_TENSOR_BYTES = 1 << 36
"""No tensor of a model may be larger: a size beyond it is a damaged or hostile file."""
MAX_OPS = 1_000_000
"""So many mge ops one model may become: loops are unrolled, so a small file can make many."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]|[\"\\]")


def printable(name: str) -> str:
    """A name that can stand in IR text: other characters become underscores."""
    return _UNPRINTABLE.sub("_", name)


class LimitError(ModelError):
    """A limit on the whole model is reached: the import ends."""


class Value:
    """A tensor: known during the import (`array`), or computed by the graph (`ssa`).

    Attributes:
        spec: shape and dtype.
        array: the value, if it is known.
        ssa: the value in the graph; None for a constant that the graph does not use yet.
        name: of the initializer, for the key of the weight.
    """

    __slots__ = ("array", "name", "spec", "ssa")

    def __init__(self, array: Array, name: str = "") -> None:
        self.array: Array | None = array
        self.ssa: SSAValue | None = None
        self.name = name
        self.spec = TensorSpec(array.shape, cast("DType", array.dtype))

    @staticmethod
    def computed(ssa: SSAValue, spec: TensorSpec) -> Value:
        """A value of the graph."""
        made = Value.__new__(Value)
        made.array, made.ssa, made.name, made.spec = None, ssa, "", spec
        return made

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.spec.dtype

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.spec.shape)


class Sequence_:  # noqa: N801 - `Sequence` is the abstract class
    """An ONNX sequence: a list of tensors whose length is known during the import."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[Value]) -> None:
        self.items = tuple(items)


class FoldingBuilder(OpBuilder):
    """Appends ops to a graph; evaluates those whose operands are all known and small.

    Args:
        graph: where ops go.
        file: what to call the model in locations.
    """

    def __init__(self, graph: GraphModule, file: str) -> None:
        self.graph = graph
        self._block = graph.main.body.block
        self._file = StringAttr(printable(file))
        self._location: Attribute | None = None
        self._folded = 0
        self.num_ops = 0

    def at(self, what: str, number: int) -> None:
        """Names the ONNX node that the next ops come from.

        Args:
            what: its type and name.
            number: its place in the file, counted from 1.
        """
        place = FileLineColLoc(self._file, IntAttr(number), IntAttr(0))
        self._location = NameLoc(StringAttr(printable(what)), place)

    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[Value, ...]:
        full = op.complete_attrs(attrs)
        specs = [None if v is None else v.spec for v in operands]
        for spec in specs:
            if spec is not None and spec.dtype not in DTYPES:
                raise ModelError(
                    f"dtype {spec.dtype.name} is not supported",
                    fix="use a float, an integer of 8 bits or more, or bool",
                )
        results = op.infer_specs(specs, full)
        for spec in results:
            check_size(spec)
        elements = [s.size for s in (*specs, *results) if s is not None]
        small = max(elements, default=0) <= FOLD_ELEMENTS and self._folded <= FOLD_TOTAL
        if small and all(v is None or v.array is not None for v in operands):
            self._folded += sum(elements)
            arrays = [None if v is None else v.array for v in operands]
            return tuple(Value(array) for array in evaluate(op, arrays, full))
        self.num_ops += 1
        if self.num_ops > MAX_OPS:
            raise LimitError(
                f"the model becomes more than {MAX_OPS} ops",
                fix="a loop may have too many iterations to unroll",
            )
        values = [None if v is None else self.ssa(v) for v in operands]
        made = op.create_with_types(values, full, [_type_of(s) for s in results])
        self._insert(made)
        pairs = zip(made.results, results, strict=True)
        return tuple(Value.computed(ssa, spec) for ssa, spec in pairs)

    def spec(self, value: Value) -> TensorSpec:
        return value.spec

    def constant(self, value: Array) -> Value:
        return Value(value)

    def ssa(self, value: Value) -> SSAValue:
        """The value in the graph; a constant is put there when it is first needed."""
        if value.ssa is None:
            assert value.array is not None
            made = add_constant(self.graph, printable(value.name) or None, value.array, copy=False)
            self._insert(made)
            value.ssa = made.results[0]
        return value.ssa

    def argument(self, spec: TensorSpec) -> Value:
        """Adds an argument to the graph."""
        ssa = self._block.insert_arg(to_type(spec), len(self._block.args))
        return Value.computed(ssa, spec)

    def _insert(self, op: MgeOp) -> None:
        if self._location is not None:
            op.location = self._location  # pyright: ignore[reportAttributeAccessIssue]
        self._block.add_op(op)


_type_of = lru_cache(maxsize=4096)(to_type)
"""Types are immutable, few, and slow to make."""


def check_size(spec: TensorSpec) -> None:
    """Refuses a tensor that no machine holds.

    Raises:
        ModelError: if it has more bytes than `MAX_TENSOR_BYTES`.
    """
    if spec.nbytes > MAX_TENSOR_BYTES:
        raise ModelError(
            f"a tensor {spec} has {spec.nbytes} bytes, more than the limit of {MAX_TENSOR_BYTES}",
            fix="check the shapes in the model: no tensor of a network is as large",
        )
