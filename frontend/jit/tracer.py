"""Recording a Python function as a graph of mge ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, StringAttr, UnknownLoc
from xdsl.ir import Attribute, SSAValue

from mgec.compiler.graph_module import GraphModule
from mgec.core import dispatch
from mgec.core.eager import common_device, run
from mgec.core.tensor import Tensor, intern_spec
from mgec.dialects.mge.constant import ConstantOp, WeightOp
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import DType, TensorSpec, from_type, to_type
from mgec.errors import TraceError, user_frame

SMALL_CONSTANT_BYTES = 1024
"""Constants up to this size are printed in the IR; larger ones stand beside it."""


@dataclass
class Captured:
    """A tensor from outside that the graph reads at every call."""

    tensor: Tensor
    value: SSAValue
    spec: TensorSpec


@dataclass
class Fetched:
    """A Python number that the graph reads at every call."""

    fetch: Callable[[], float]
    value: SSAValue
    spec: TensorSpec


@dataclass
class TracedGraph:
    """The outcome of a trace; see `Tracer.finish`."""

    graph: GraphModule
    num_args: int
    captured: list[Captured]
    fetched: list[Fetched]
    updated: list[Tensor]
    grads: list[Tensor]
    num_outputs: int
    reads: bool = False
    literals: list[Tensor] = field(default_factory=list)


class Tracer:
    """Builds the graph while the user's function runs; active between start and finish.

    Args:
        args: specs of the tensor arguments.
        symbolic: whether tensors stand for values (True), or ops also run eagerly.
        capture_as_const: whether tensors from outside become constants.
    """

    def __init__(
        self, args: Sequence[Tensor], *, symbolic: bool, capture_as_const: bool = False
    ) -> None:
        self.symbolic = symbolic
        self._as_const = capture_as_const
        self._graph = GraphModule.empty([a._spec for a in args])
        self._block = self._graph.main.body.block
        self._num_args = len(args)
        self._values: dict[int, tuple[Tensor, SSAValue]] = {}
        self._captured: dict[int, Captured] = {}
        self._fetched: list[Fetched] = []
        self._updates: dict[int, Tensor] = {}
        self._old: dict[int, tuple[Any, TensorSpec]] = {}
        self._grads: dict[int, Tensor] = {}
        self._literals: dict[int, Tensor] = {}
        self._locations: dict[Any, Attribute] = {}
        self._saved_tapes: list[Any] = []
        self.reads = False
        self.names: dict[int, str] = {}
        self.args: list[Tensor] = []
        for tensor, value in zip(args, list(self._block.args), strict=True):
            if symbolic:
                self.args.append(Tensor._symbolic(value, tensor._spec, tensor._device))
            else:
                shadow = Tensor._make(tensor._storage, tensor._spec, tensor._device)
                shadow._value = value
                self.args.append(shadow)

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Makes this the active tracer.

        Raises:
            TraceError: if a trace is in progress already.
        """
        if dispatch.state.tracer is not None:
            raise TraceError(
                "a traced function is traced inside another",
                fix="call the plain function (without @trace) from the outer traced function",
            )
        dispatch.state.tracer = self
        from mgec.autodiff import implicit

        self._saved_tapes = dispatch.state.tapes
        dispatch.state.tapes = implicit.tapes()

    def stop(self) -> None:
        """Ends the trace and gives tensors that were updated their old values back."""
        dispatch.state.tracer = None
        dispatch.state.tapes = self._saved_tapes
        if self.symbolic:
            for key, tensor in self._updates.items():
                tensor._storage, tensor._spec = self._old[key]

    def finish(self, outputs: Sequence[Tensor], names: Sequence[str] | None = None) -> TracedGraph:
        """Completes the graph.

        The function's results are, in order: `outputs`, the new values of updated tensors,
        the gradients that attached tensors end up with. An updated tensor donates its buffer.

        Args:
            outputs: what the user's function returned.
            names: names of the arguments.
        """
        captured_values = [self.value_of(t) for t in outputs]
        updated = [t for t in self._updates.values() if not self._is_local(t)]
        update_values = [self._values[id(t)][1] for t in updated]
        grads = [
            t for t in self._grads.values()
            if t._grad is not None and t._grad._value is not None and not self._is_local(t)
        ]  # fmt: skip
        grad_values = [self.value_of(t._grad) for t in grads if t._grad is not None]
        values = [*captured_values, *update_values, *grad_values]
        self._graph.finish(values)
        captured = list(self._captured.values())
        arguments: list[SSAValue] = list(self._block.args)
        index = {id(c.tensor): arguments.index(c.value) for c in captured}
        donations: list[int | None] = [None] * len(outputs)
        donations += [index.get(id(t)) for t in updated]
        donations += [None] * len(grads)
        input_names = list(names or [f"arg_{i}" for i in range(self._num_args)])
        taken = set(input_names)
        for value in arguments[self._num_args :]:
            tensor = next((c.tensor for c in captured if c.value is value), None)
            known = None if tensor is None else tensor.name or self.names.get(id(tensor))
            base = known or f"state_{len(input_names)}"
            name, i = base, 1
            while name in taken:
                name, i = f"{base}_{i}", i + 1
            taken.add(name)
            input_names.append(name)
        output_names = [f"out_{i}" for i in range(len(outputs))]
        for i, source in enumerate(donations[len(outputs) : len(outputs) + len(updated)]):
            output_names.append(f"new_{i if source is None else input_names[source]}")
        output_names += [f"grad_{i}" for i in range(len(grads))]
        self._graph.set_names(input_names, output_names, donations)
        return TracedGraph(
            graph=self._graph,
            num_args=self._num_args,
            captured=captured,
            fetched=self._fetched,
            updated=updated,
            grads=grads,
            num_outputs=len(outputs),
            reads=self.reads,
            literals=list(self._literals.values()),
        )

    # -- what the dispatcher and tensors call -----------------------------------------------

    def emit(
        self, op: type[MgeOp], inputs: Sequence[Tensor | None], attrs: Mapping[str, Any]
    ) -> tuple[Tensor, ...]:
        """Appends one op; in recording mode also runs it."""
        operands = [None if x is None else self.value_of(x) for x in inputs]
        made = op.build_op(operands, attrs)
        made.location = self._location()  # pyright: ignore[reportAttributeAccessIssue]
        self._block.add_op(made)
        if self.symbolic:
            device = common_device(op, inputs)
            return tuple(
                Tensor._symbolic(r, intern_spec(*from_type(r.type)), device) for r in made.results
            )
        outputs = run(op, tuple(inputs), attrs)
        fresh: list[Tensor] = []
        for out, result in zip(outputs, made.results, strict=True):
            tensor = Tensor._make(out._storage, out._spec, out._device)
            tensor._value = result
            fresh.append(tensor)
        return tuple(fresh)

    def value_of(self, tensor: Tensor) -> SSAValue:
        """The graph's value for a tensor; a tensor from outside is captured."""
        known = self._values.get(id(tensor))
        if known is not None:
            return known[1]
        if tensor._value is not None:
            if tensor._value.owner is not self._block and (
                getattr(tensor._value.owner, "parent", None) is not self._block
            ):
                raise TraceError(
                    "a tensor of another trace is used here",
                    values=[("tensor", str(tensor._spec), "")],
                    fix="return it from the traced function instead of keeping it aside",
                )
            return tensor._value
        if tensor._device is None or self._as_const or id(tensor) in self._literals:
            value = self._constant(tensor.name, self._array(tensor))
        else:
            value = self._add_argument(tensor._spec)
            self._captured[id(tensor)] = Captured(tensor, value, tensor._spec)
        self._values[id(tensor)] = (tensor, value)
        return value

    def note_literal(self, tensor: Tensor) -> None:
        """A tensor made from Python data inside the traced function: a constant."""
        self._literals[id(tensor)] = tensor

    def note_update(self, tensor: Tensor, other: Tensor) -> None:
        """`tensor` takes the value of `other` (in-place assignment, optimizer step)."""
        key = id(tensor)
        value = self.value_of(other)
        if key not in self._updates:
            self._old[key] = (tensor._storage, tensor._spec)
            self.value_of(tensor)  # an updated tensor is also an argument: it donates its buffer
        self._updates[key] = tensor
        self._values[key] = (tensor, value)
        tensor._spec = other._spec
        if not self.symbolic:
            tensor._storage = other._storage

    def note_grad(self, tensor: Tensor) -> None:
        """`tensor.grad` was assigned."""
        self._grads[id(tensor)] = tensor

    def note_read(self, tensor: Tensor) -> None:
        """A value was read while recording: what Python does may depend on it."""
        self.reads = True

    def detached(self, tensor: Tensor) -> Tensor:
        """A tensor from outside, under a new identity that no tape knows."""
        made = Tensor._make(tensor._storage, tensor._spec, tensor._device)
        made._value = self.value_of(tensor)
        if self.symbolic:
            made._storage = None
        return made

    def moved(self, tensor: Tensor, device: Any) -> Tensor:
        """A tensor from outside on another device: the same value of the graph."""
        made = self.detached(tensor)
        made._device = device
        return made

    def python_value(self, fetch: Callable[[], float], dtype: DType) -> Tensor:
        """A 0-d tensor whose value is what `fetch()` gives at every call."""
        spec = intern_spec((), dtype)
        value = self._add_argument(spec)
        self._fetched.append(Fetched(fetch, value, spec))
        made = Tensor._symbolic(value, spec, None)
        if not self.symbolic:
            made._storage = Tensor(np.array(fetch(), dtype))._storage
        return made

    # -- internals ---------------------------------------------------------------------------

    def _is_local(self, tensor: Tensor) -> bool:
        """Whether the tensor exists only inside the trace."""
        return tensor._value is not None or id(tensor) in self._literals

    def _add_argument(self, spec: TensorSpec) -> SSAValue:
        return self._block.insert_arg(to_type(spec), len(self._block.args))

    def _array(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        return tensor._storage.as_array(tensor._spec.dtype, tensor._spec.shape)

    def _constant(self, name: str | None, array: np.ndarray[Any, Any]) -> SSAValue:
        op = add_constant(self._graph, name, array)
        op.location = self._location()  # pyright: ignore[reportAttributeAccessIssue]
        self._block.add_op(op)
        return op.results[0]

    def _location(self) -> Attribute:
        frame = user_frame()
        if frame is None:
            return UnknownLoc()
        key = (frame.file, frame.line)
        if (location := self._locations.get(key)) is None:
            location = FileLineColLoc(StringAttr(frame.file), IntAttr(frame.line), IntAttr(0))
            self._locations[key] = location
        return location


def add_constant(
    graph: GraphModule, name: str | None, array: np.ndarray[Any, Any], *, copy: bool = True
) -> MgeOp:
    """An op for a constant array.

    `mge.constant` if it is small, else `mge.weight` with its data put into the graph's weights
    (as it is without `copy`: nobody may change it later).
    """
    if array.nbytes <= SMALL_CONSTANT_BYTES:
        return ConstantOp.build_op([], {"value": array.copy()})
    base = name or "weight"
    key, i = base, 0
    while key in graph.weights:
        i += 1
        key = f"{base}_{i}"
    graph.weights[key] = array.copy() if copy else array
    return WeightOp.build_op([], {"key": key, "shape": array.shape, "dtype": array.dtype})
