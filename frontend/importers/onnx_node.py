"""One node of an ONNX graph, as the handler of its op sees it.

A handler is a function `(b, node) -> value or values`, registered in a table by `onnx_op`:

    @onnx_op("ThresholdedRelu")
    def thresholded_relu(b, node):
        x = node.x(0)
        keep = b.greater(x, b.scalar(node.attr("alpha"), x))
        return b.select(keep, x, b.scalar(0, x))

A handler that serves only some uses of its op returns NotImplemented for the others: they become
the function that the schema defines the op by. Attributes, their types, their defaults and the
number of inputs are those of the schema in the model's opset, and are checked before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mgec.dialects.mge.spec import TensorSpec, is_float
from mgec.errors import ModelError
from mgec.importers.onnx_file import import_onnx
from mgec.importers.onnx_value import Array, FoldingBuilder, Sequence_, Value

if TYPE_CHECKING:
    import onnx

Input = Value | Sequence_ | None
Result = Value | Sequence_ | None
Handler = Callable[[Any, "Node"], "Result | Sequence[Result]"]


class Unsupported(ModelError):
    """Why a node cannot be imported."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, fix="see docs/onnx.md for what is supported")


class NeedsValue(Unsupported):
    """A node needs the value of an input during the import, and it is not known then.

    Attributes:
        index: which input.
    """

    def __init__(self, index: int, what: str) -> None:
        super().__init__(f"{what} must be known when the model is imported, but it is computed")
        self.index = index


_HANDLERS: dict[tuple[str, str], list[tuple[int, Handler]]] = {}


def onnx_op(*names: str, domain: str = "", since: int = 1) -> Callable[[Handler], Handler]:
    """Registers a handler.

    Args:
        names: ONNX ops.
        domain: their domain.
        since: the first opset version of the op that the handler is for.
    """

    def register(handler: Handler) -> Handler:
        for name in names:
            rows = _HANDLERS.setdefault((domain, name), [])
            rows.append((since, handler))
            rows.sort(key=lambda row: row[0])
        return handler

    return register


def handler_of(domain: str, op: str, version: int) -> Handler | None:
    """The handler of an op in a version of its schema, if there is one."""
    found = None
    for since, handler in _HANDLERS.get((domain, op), ()):
        if since <= version:
            found = handler
    return found


def registered() -> dict[str, Handler]:
    """The op of every handler (the first of several), by name."""
    return {name: rows[0][1] for (_, name), rows in sorted(_HANDLERS.items())}


@dataclass(frozen=True)
class Schema:
    """What is needed of an op's schema.

    Attributes:
        version: the opset that this version of the op came with.
        types: type of each attribute.
        defaults: values of the attributes that have one.
        required: attributes that must be given.
        inputs: least and greatest number of inputs.
        proto: the schema of the package `onnx`.
    """

    version: int
    types: Mapping[str, int]
    defaults: Mapping[str, Any]
    required: frozenset[str]
    inputs: tuple[int, int]
    proto: Any


@cache
def schema_of(domain: str, op: str, opset: int) -> Schema | None:
    """The schema of an op in an opset; None if there is none."""
    onnx = import_onnx()
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None
    defaults: dict[str, Any] = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type:
            defaults[name] = _plain(onnx.helper.get_attribute_value(attribute.default_value))
    return Schema(
        version=schema.since_version,
        types={name: int(a.type.value) for name, a in schema.attributes.items()},
        defaults=defaults,
        required=frozenset(name for name, a in schema.attributes.items() if a.required),
        inputs=(schema.min_input, schema.max_input),
        proto=schema,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, int | float | str):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    try:  # a repeated field of protobuf
        return [_plain(item) for item in value]
    except TypeError:
        return value


class Node:
    """A node with its inputs.

    Attributes:
        op: its type, such as "Conv".
        domain: "" for the standard ops.
        opset: of its domain, in the model.
        version: the opset in which its op last changed, not after `opset`.
        inputs: tensors, sequences, and None for an optional input that is not given.
        num_outputs: how many outputs are named.
        wanted: for each output, whether it is named.
        graph: the importer, for ops with subgraphs.
        proto: the node of the file.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        schema: Schema,
        opset: int,
        inputs: Sequence[Input],
        attributes: Mapping[str, onnx.AttributeProto],
        graph: Any,
    ) -> None:
        self.proto = proto
        self.op = proto.op_type
        self.domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.opset = opset
        self.version = schema.version
        self.inputs = list(inputs)
        self.wanted = [bool(name) for name in proto.output]
        self.num_outputs = len(proto.output)
        self.graph = graph
        self._schema = schema
        self._attributes = attributes
        self._read: set[str] = set()
        self._check()

    def _check(self) -> None:
        low, high = self._schema.inputs
        if not low <= len(self.inputs) <= high:
            raise ModelError(
                f"{self.op} has {len(self.inputs)} inputs, but takes "
                + (f"{low}" if low == high else f"{low} or more" if high > 1 << 20
                   else f"{low} to {high}"),
                fix="the file may be damaged: export it again",
            )  # fmt: skip
        for name, attribute in self._attributes.items():
            expected = self._schema.types.get(name)
            if expected is None:
                raise ModelError(
                    f"{self.op} has no attribute {name!r} in opset {self.opset}",
                    fix="the file may be of another opset than it says: export it again",
                )
            if attribute.type and attribute.type != expected:
                raise ModelError(
                    f"attribute {name!r} of {self.op} is of another type than its schema says",
                    fix="the file may be damaged: export it again",
                )
        for name in sorted(self._schema.required):
            if name not in self._attributes:
                raise ModelError(
                    f"attribute {name!r} of {self.op} is missing",
                    fix="the file may be damaged: export it again",
                )

    # -- attributes ------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether an attribute is given."""
        self._read.add(name)
        return name in self._attributes

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or its default: the schema's, else `default`.

        Strings are `str`, lists are lists, tensors and graphs are protobuf messages.
        """
        self._read.add(name)
        found = self._attributes.get(name)
        if found is None:
            return self._schema.defaults.get(name, default)
        expected = self._schema.types[name]
        return _attribute_value(found, expected)

    def ignore(self, *names: str) -> None:
        """Says that attributes do not matter, for this op or in this case."""
        self._read.update(names)

    def check_all_read(self) -> None:
        """Refuses attributes that the handler did not look at: they may be newer than it is.

        Raises:
            Unsupported: naming one, unless it has its default value.
        """
        for name in sorted(set(self._attributes) - self._read):
            value = _attribute_value(self._attributes[name], self._schema.types[name])
            if name not in self._schema.defaults or value != self._schema.defaults[name]:
                raise Unsupported(f"attribute {name!r}")

    def int(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        return int(self.attr(name, default))

    def flag(self, name: str) -> bool:
        """An integer attribute that means yes or no; no if it is absent."""
        return bool(self.attr(name, 0))

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None if it is absent."""
        value = self.attr(name)
        return None if value is None else tuple(int(v) for v in value)

    # -- inputs -----------------------------------------------------------------------------

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def x(self, index: int) -> Value:
        """An input that must be there, a tensor."""
        value = self.optional(index)
        if value is None:
            raise ModelError(
                f"input {index} of {self.op} is missing",
                fix="the file may be damaged: export it again",
            )
        return value

    def optional(self, index: int) -> Value | None:
        """An input, or None if it is not given."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Sequence_):
            raise ModelError(
                f"input {index} of {self.op} is a sequence, not a tensor",
                fix="the file may be damaged: export it again",
            )
        return value

    def sequence(self, index: int) -> Sequence_:
        """An input that is a sequence."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Sequence_):
            raise ModelError(
                f"input {index} of {self.op} is not a sequence",
                fix="the file may be damaged: export it again",
            )
        return value

    def known(self, index: int, what: str) -> Array:
        """The value of an input that must be known during the import.

        Args:
            index: which input.
            what: what it is, for the error: "shape", "axes".

        Raises:
            NeedsValue: if it is not known.
        """
        value = self.x(index)
        if value.array is None:
            raise NeedsValue(index, what)
        return value.array

    def known_ints(self, index: int, what: str) -> tuple[int, ...]:
        """`known`, of a tensor of integers, as a tuple."""
        array = self.known(index, what)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            raise ModelError(
                f"{what} of {self.op} is {array.dtype.name}[{', '.join(map(str, array.shape))}], "
                "but a list of integers is expected",
                fix="the file may be damaged: export it again",
            )
        return tuple(int(v) for v in array.reshape(-1))

    def known_int(self, index: int, what: str) -> int:
        """`known_ints` of one element."""
        values = self.known_ints(index, what)
        if len(values) != 1:
            raise ModelError(
                f"{what} of {self.op} has {len(values)} elements, but one is expected",
                fix="the file may be damaged: export it again",
            )
        return values[0]

    def ints_or_input(self, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that are an attribute in old opsets and an input in new ones."""
        if name in self._schema.types:
            return self.ints(name)
        return self.known_ints(index, name) if self.has_input(index) else None

    # -- small helpers that handlers share ------------------------------------------------------

    def axis(self, rank: int, name: str = "axis", default: int = 0) -> int:
        """An attribute that names an axis, counted from 0."""
        return self.normal_axis(int(self.attr(name, default)), rank)

    def normal_axis(self, axis: int, rank: int) -> int:
        """An axis counted from 0; negative ones count from the end.

        Raises:
            ModelError: if there is no such axis.
        """
        if not -rank <= axis < rank:
            raise ModelError(
                f"{self.op}: axis {axis} is out of range for rank {rank}",
                fix="the file may be damaged: export it again",
            )
        return axis % rank if rank else 0

    def normal_axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """`normal_axis` of each, which must differ."""
        found = tuple(self.normal_axis(axis, rank) for axis in axes)
        if len(set(found)) != len(found):
            raise ModelError(
                f"{self.op}: axes {list(axes)} repeat an axis",
                fix="the file may be damaged: export it again",
            )
        return found

    def need_float(self, value: Value) -> None:
        """Refuses a tensor that is not of a floating point type."""
        if not is_float(value.dtype):
            raise Unsupported(f"{self.op} of {value.dtype.name}")


def _attribute_value(attribute: onnx.AttributeProto, expected: int) -> Any:
    onnx = import_onnx()
    kinds = onnx.AttributeProto
    if expected == kinds.FLOAT:
        return float(attribute.f)
    if expected == kinds.INT:
        return int(attribute.i)
    if expected == kinds.STRING:
        return attribute.s.decode(errors="replace")
    if expected == kinds.FLOATS:
        return list(attribute.floats)
    if expected == kinds.INTS:
        return list(attribute.ints)
    if expected == kinds.STRINGS:
        return [text.decode(errors="replace") for text in attribute.strings]
    if expected == kinds.TENSOR:
        return attribute.t
    if expected == kinds.GRAPH:
        return attribute.g
    raise Unsupported(f"attribute {attribute.name!r} of a kind that is not supported")


# -- shapes and slices of values, for every family -------------------------------------------


def cut(b: FoldingBuilder | Any, value: Value, axis: int, start: int, stop: int) -> Value:
    """value[start:stop] along one axis; the value itself if that is all of it."""
    shape = value.shape
    if (start, stop) == (0, shape[axis]):
        return value
    return b.slice(
        value,
        starts=tuple(start if i == axis else 0 for i in range(len(shape))),
        stops=tuple(stop if i == axis else size for i, size in enumerate(shape)),
        steps=(1,) * len(shape),
    )


def moved(b: Any, value: Value, perm: Sequence[int]) -> Value:
    """The value transposed, or itself if no axis moves."""
    if tuple(perm) == tuple(range(value.rank)):
        return value
    return b.transpose(value, perm=tuple(perm))


def int64(b: Any, value: Value) -> Value:
    """Indices as ONNX gives them."""
    return b.cast(value, np.dtype(np.int64))


def spec_text(value: Input) -> str:
    """What a table says about a value."""
    if isinstance(value, Sequence_):
        return f"sequence of {len(value.items)}"
    return "" if value is None else str(TensorSpec(value.shape, value.dtype))
