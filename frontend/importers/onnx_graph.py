"""Walking an ONNX graph: names to values, nodes to handlers, functions and subgraphs expanded.

A node that cannot be imported does not end the walk: it is noted, its outputs become unknown,
and the walk goes on, so that one error lists every such node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mgec.compiler.graph_module import GraphModule
from mgec.dialects.mge.spec import DTYPES, TensorSpec
from mgec.errors import MgecError, ModelError
from mgec.importers import onnx_ops as _  # noqa: F401 - registers the handlers
from mgec.importers.onnx_file import (
    ModelFile,
    check_text,
    import_onnx,
    opsets,
    tensor_array,
)
from mgec.importers.onnx_node import (
    Input,
    NeedsValue,
    Node,
    Result,
    Unsupported,
    handler_of,
    schema_of,
    spec_text,
)
from mgec.importers.onnx_value import FoldingBuilder, LimitError, Sequence_, Value

if TYPE_CHECKING:
    import onnx

MAX_NODES = 200_000
"""So many nodes are imported at most, those of functions and of unrolled loops counted."""
MAX_DEPTH = 32
"""So deep may subgraphs and functions be nested."""
_LONGEST_REASON = 200


@dataclass(frozen=True)
class UnsupportedNode:
    """A node that cannot be imported.

    Attributes:
        name: the node's, or that of its first output.
        op: its type.
        domain: "" for the standard ops.
        opset: of that domain, in the model.
        inputs: shape and dtype of each input, as far as they are known.
        reason: why.
        needs: inputs of the model whose values would have to be known.
    """

    name: str
    op: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    reason: str
    needs: tuple[str, ...] = ()


class _Reported(Exception):
    """Nodes inside a subgraph are noted already: the outer node's outputs are unknown."""


UNKNOWN = object()
"""What a name stands for whose node could not be imported."""


@dataclass
class _Scope:
    """The names that nodes may use.

    Attributes:
        names: what is defined here.
        parent: the enclosing graph; None for the model's and for a function.
        attributes: of the function call, for attributes that refer to them.
        opsets: opset of each domain.
        collect: whether unsupported nodes are noted here, or are the outer node's failure.
    """

    names: dict[str, Any]
    parent: _Scope | None
    attributes: Mapping[str, onnx.AttributeProto] | None
    opsets: Mapping[str, int]
    collect: bool
    prefix: str = ""

    def find(self, name: str) -> Any:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise ModelError(
            f"value {name!r} is used before it is defined",
            fix="the file may be damaged: export it again",
        )


@dataclass
class GraphImporter:
    """Imports the nodes of one model into a graph.

    Attributes:
        file: the model.
        graph: what is built.
        unsupported: what could not be imported, in the order of the file.
    """

    file: ModelFile
    graph: GraphModule
    unsupported: list[UnsupportedNode] = field(default_factory=list[UnsupportedNode])

    def __post_init__(self) -> None:
        self.model = self.file.proto
        self.folder = self.file.folder
        self.b = FoldingBuilder(self.graph, self.file.name)
        self._functions = {(f.domain, f.name): f for f in self.model.functions}
        self._nodes = 0
        self._depth = 0
        self._number = 0
        self._scope: _Scope | None = None
        self._types: dict[str, TensorSpec] | None = None

    # -- the model ------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Value]) -> list[tuple[str, Result]]:
        """Imports the whole model.

        Args:
            inputs: a value for each input of the model.

        Returns:
            Name and value of each output. It means nothing if `unsupported` is not empty.
        """
        scope = _Scope(dict(inputs), None, None, opsets(self.model), collect=True)
        graph = self.model.graph
        for name, array in self.file.initializers():
            scope.names[name] = Value(array, name=name)
        self._check_sparse(graph)
        self._walk(graph.node, scope)
        return [(o.name, self._output(scope, o.name)) for o in graph.output]

    def _output(self, scope: _Scope, name: str) -> Result:
        value = scope.find(name)
        return None if value is UNKNOWN else value

    def _check_sparse(self, graph: onnx.GraphProto) -> None:
        if graph.sparse_initializer:
            raise ModelError(
                f"{self.file.name}: sparse initializers are not supported", fix="store them densely"
            )

    # -- nodes ----------------------------------------------------------------------------

    def _walk(self, nodes: Iterable[onnx.NodeProto], scope: _Scope) -> None:
        outer, self._scope = self._scope, scope
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise ModelError(
                    f"subgraphs and functions are nested more than {MAX_DEPTH} deep",
                    fix="the file may be damaged: a function may call itself",
                )
            for i, proto in enumerate(nodes):
                if self._depth == 1:
                    self._number = i + 1
                self._nodes += 1
                if self._nodes > MAX_NODES:
                    raise LimitError(
                        f"the model has more than {MAX_NODES} nodes, loops unrolled",
                        fix="split the model, or give loops fewer iterations",
                    )
                self._visit(proto, scope)
        finally:
            self._depth -= 1
            self._scope = outer

    def _visit(self, proto: onnx.NodeProto, scope: _Scope) -> None:
        """Imports one node and defines its outputs."""
        check_text(proto.op_type, proto.domain, proto.name, *proto.input, *proto.output)
        results: Sequence[Any]
        inputs: list[Any] = []
        try:
            inputs = [scope.find(name) if name else None for name in proto.input]
            unknown = any(value is UNKNOWN for value in inputs)
            if unknown and self._has_rule(proto, scope):
                raise _Reported
            results = self._import(proto, [None if unknown else v for v in inputs], scope)
            missing = [n for i, n in enumerate(proto.output) if n and i >= len(results)]
            if missing:
                raise Unsupported(f"output {missing[0]!r}")
        except _Reported:
            results = self._guesses(proto, scope)
        except Exception as error:
            if not scope.collect or _is_limit(error):
                raise
            self._note(proto, inputs, scope, error)
            results = self._guesses(proto, scope)
        for name, value in zip(proto.output, results, strict=False):
            if not name:
                continue
            if name in scope.names:
                raise ModelError(
                    f"value {name!r} is defined twice",
                    fix="the file may be damaged: export it again",
                )
            scope.names[name] = value

    def _has_rule(self, proto: onnx.NodeProto, scope: _Scope) -> bool:
        """Whether there is any way to import such a node."""
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        if (proto.domain, proto.op_type) in self._functions:
            return True
        schema = schema_of(domain, proto.op_type, scope.opsets.get(domain, 1))
        if schema is None:
            return False
        has_body = schema.proto.has_function or schema.proto.has_context_dependent_function
        return has_body or handler_of(domain, proto.op_type, schema.version) is not None

    def _import(self, proto: onnx.NodeProto, inputs: list[Input], scope: _Scope) -> Sequence[Any]:
        """Results of one node.

        Raises:
            MgecError: if it cannot be imported.
        """
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        attributes = _resolve(proto, scope.attributes)
        self.b.at(f"{proto.op_type} {proto.name or _first(proto.output)}", self._number)
        function = self._functions.get((proto.domain, proto.op_type))
        if function is not None:
            return self._call(function, proto, inputs, attributes, collect=False)
        # ONNX's own cases leave out domains of which there is one version.
        opset = scope.opsets.get(domain, 1 if domain else None)
        if opset is None:
            raise Unsupported(f"the model does not say which opset of domain {domain!r} it uses")
        schema = schema_of(domain, proto.op_type, opset)
        if schema is None:
            raise Unsupported(f"there is no such op in opset {opset} of domain {domain!r}")
        node = Node(proto, schema, opset, inputs, attributes, self)
        handler = handler_of(domain, proto.op_type, schema.version)
        if handler is not None:
            results = handler(self.b, node)
            if results is not NotImplemented:
                node.check_all_read()
                return _as_tuple(results)
        body = self._body(schema.proto, proto, attributes, inputs, opset)
        if body is None:
            raise Unsupported("there is no handler for this op")
        defaults = {
            a.name: a.default_value
            for a in schema.proto.attributes.values()
            if a.default_value.type
        }
        return self._call(body, proto, inputs, {**defaults, **attributes}, collect=False)

    # -- functions ------------------------------------------------------------------------

    def _body(
        self,
        schema: Any,
        proto: onnx.NodeProto,
        attributes: Mapping[str, onnx.AttributeProto],
        inputs: Sequence[Input],
        opset: int,
    ) -> onnx.FunctionProto | None:
        """The function that defines an op, if its schema has one."""
        onnx = import_onnx()
        versions = [v for v in schema.function_opset_versions if v <= opset]
        if schema.has_function and versions:
            found = schema.get_function_with_opset_version(max(versions))
        else:
            versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
            if not versions:
                return None
            types = [_type_proto(onnx, value) for value in inputs]
            called = onnx.NodeProto()
            called.CopyFrom(proto)
            del called.attribute[:]
            for name, attribute in attributes.items():  # those of the call, not references to them
                called.attribute.append(attribute)
                called.attribute[-1].name = name
            found = schema.get_context_dependent_function_with_opset_version(
                max(versions), called.SerializeToString(), types
            )
        if isinstance(found, bytes):
            found = onnx.FunctionProto.FromString(found) if found else None
        return found

    def _call(
        self,
        function: onnx.FunctionProto,
        proto: onnx.NodeProto,
        inputs: Sequence[Input],
        attributes: Mapping[str, onnx.AttributeProto],
        *,
        collect: bool,
    ) -> list[Any]:
        """Expands a function."""
        given = dict(attributes)
        for default in function.attribute_proto:
            given.setdefault(default.name, default)
        padded = [*inputs, *[None] * (len(function.input) - len(inputs))]
        if len(padded) > len(function.input):
            raise ModelError(
                f"{proto.op_type} has {len(inputs)} inputs, but its function takes "
                f"{len(function.input)}",
                fix="the file may be damaged: export it again",
            )
        names = dict(zip(function.input, padded, strict=True))
        assert self._scope is not None
        versions = {**self._scope.opsets, **opsets(function)}
        scope = _Scope(names, None, given, versions, collect)
        self._walk(function.node, scope)
        # Outputs that nobody asks for may have no node that makes them.
        wanted = zip(function.output, proto.output, strict=False)
        return [scope.find(inner) if outer else None for inner, outer in wanted]

    def subgraph(self, graph: onnx.GraphProto, inputs: Sequence[Result]) -> list[Any]:
        """Imports the body of a control flow op, once.

        Args:
            graph: an attribute of the node that is being imported.
            inputs: values of its formal inputs.

        Returns:
            Its outputs.
        """
        outer = self._scope
        assert outer is not None
        if len(inputs) != len(graph.input):
            raise ModelError(
                f"a subgraph takes {len(graph.input)} inputs, but is given {len(inputs)}",
                fix="the file may be damaged: export it again",
            )
        names = {formal.name: value for formal, value in zip(graph.input, inputs, strict=True)}
        scope = _Scope(names, outer, outer.attributes, outer.opsets, outer.collect)
        for tensor in graph.initializer:
            scope.names[tensor.name] = Value(tensor_array(tensor, self.folder), name=tensor.name)
        self._check_sparse(graph)
        before = len(self.unsupported)
        self._walk(graph.node, scope)
        results = [scope.find(output.name) for output in graph.output]
        if len(self.unsupported) > before or any(r is UNKNOWN for r in results):
            raise _Reported
        return results

    # -- what cannot be imported ----------------------------------------------------------------

    def _note(
        self, proto: onnx.NodeProto, inputs: Sequence[Any], scope: _Scope, error: Exception
    ) -> None:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        if isinstance(error, MgecError):
            reason = error.headline
        else:
            reason = (
                f"it is malformed: {' '.join(str(error).split())[:200] or type(error).__name__}"
            )
        texts = tuple("?" if v is UNKNOWN else spec_text(v) for v in inputs)
        needs: tuple[str, ...] = ()
        if isinstance(error, NeedsValue) and self._depth == 1:
            direct = handler_of(domain, proto.op_type, 1 << 30) is not None
            wanted = [proto.input[error.index]] if direct and error.index < len(
                proto.input
            ) else list(proto.input)  # fmt: skip
            needs = self._ancestors(wanted)
        elif isinstance(error, NeedsValue):
            needs = tuple(value.name for value in self.model.graph.input)
        node = UnsupportedNode(
            name=proto.name or _first(proto.output),
            op=proto.op_type,
            domain=domain,
            opset=scope.opsets.get(domain, 0),
            inputs=texts,
            reason=reason,
            needs=needs,
        )
        if node not in self.unsupported[-8:]:  # an unrolled loop meets its nodes again
            self.unsupported.append(node)

    def _ancestors(self, names: Sequence[str]) -> tuple[str, ...]:
        """The inputs of the model that some of its values are computed from."""
        producers = {name: node for node in self.model.graph.node for name in node.output if name}
        found = {value.name for value in self.model.graph.input}
        found -= {tensor.name for tensor in self.model.graph.initializer}
        seen: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            node = producers.get(name)
            if node is not None:
                stack += node.input
                if any(a.HasField("g") for a in node.attribute):
                    stack += found
        return tuple(v.name for v in self.model.graph.input if v.name in seen & found)

    def _guesses(self, proto: onnx.NodeProto, scope: _Scope) -> list[Any]:
        """Stand-ins for the outputs of a node that is noted, where their types are known."""
        if scope.parent is not None or not scope.collect or self._depth != 1:
            return [UNKNOWN for _ in proto.output]
        types = self._inferred_types()
        return [self.b.argument(types[name]) if name in types else UNKNOWN for name in proto.output]

    def _inferred_types(self) -> dict[str, TensorSpec]:
        """What shape inference knows of the values of the model; only used after a failure."""
        if self._types is not None:
            return self._types
        onnx = import_onnx()
        from mgec.importers.onnx_file import dtype_of

        self._types = {}
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(self.model)
        try:
            inferred = onnx.shape_inference.infer_shapes(skeleton)
        except Exception:  # an aid only: what it cannot infer stays unknown
            inferred = skeleton
        for value in inferred.graph.value_info:
            kind = value.type.tensor_type
            if not kind.HasField("shape") or not all(
                d.HasField("dim_value") for d in kind.shape.dim
            ):
                continue
            try:
                dtype = dtype_of(kind.elem_type)
            except ModelError:
                continue
            sizes = tuple(d.dim_value for d in kind.shape.dim)
            if dtype in DTYPES and all(size >= 0 for size in sizes):
                self._types[value.name] = TensorSpec(sizes, dtype)
        return self._types


def _is_limit(error: Exception) -> bool:
    """Whether the import must stop: a limit is reached, or memory is out."""
    return isinstance(error, MemoryError | RecursionError | LimitError)


def _as_tuple(results: Any) -> Sequence[Any]:
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _first(names: Sequence[str]) -> str:
    return next((name for name in names if name), "")


def _resolve(
    proto: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto] | None
) -> dict[str, onnx.AttributeProto]:
    """The attributes of a node; in a function some are those of the call."""
    found: dict[str, onnx.AttributeProto] = {}
    for attribute in proto.attribute:
        if not attribute.ref_attr_name:
            found[attribute.name] = attribute
        elif given is not None and attribute.ref_attr_name in given:
            found[attribute.name] = given[attribute.ref_attr_name]
    return found


def _type_proto(onnx: Any, value: Input) -> bytes:
    """The type of a value, as the schema's function builders take it."""
    if isinstance(value, Sequence_) and value.items:
        inner = onnx.helper.np_dtype_to_tensor_dtype(value.items[0].dtype)
        tensor = onnx.helper.make_tensor_type_proto(inner, None)
        return onnx.helper.make_sequence_type_proto(tensor).SerializeToString()
    if not isinstance(value, Value):
        return onnx.TypeProto().SerializeToString()
    element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_type_proto(element, value.shape).SerializeToString()
