"""`trace`: the one line between eager and graph mode."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mgec import config
from mgec.compiler.graph_module import GraphModule
from mgec.compiler.pause import collector_paused
from mgec.core import dispatch
from mgec.core.tensor import Tensor, intern_spec
from mgec.errors import ArgumentError, TraceError
from mgec.jit.guard import PLAIN, Guard, identity
from mgec.jit.tracer import Captured, Fetched, TracedGraph, Tracer, add_constant
from mgec.runtime.memory import Storage


class trace:  # noqa: N801 - MegEngine's name
    """Traces a function of tensors into one compiled graph.

    The first call with new shapes runs the Python function and records it; later calls run
    the compiled graph and none of the function's Python. Parameters, buffers and optimizer
    state that the function reads or updates are read and updated at every call. Python values
    that the function read (arguments, closure variables, `training` flags) are checked at
    every call, and a change traces anew; `mgec.jit.guard` says how far they are followed.

    Args:
        function: the function; with keyword arguments only, `trace(...)` is a decorator.
        symbolic: record without running (True), or run eagerly the first time and record.
        capture_as_const: tensors from outside become constants of the graph.
        record_only: record, for `dump`, but always run eagerly.
        opt_level: 0 compiles without graph passes, for debugging; 2 is the default.
        symbolic_shape: accepted for compatibility; shapes are always tuples of ints.

    Attributes:
        enabled: on the class: False runs every traced function eagerly
            (`MGE_DISABLE_TRACE` sets it at start).

    Example:
        >>> import mgec as mge
        >>> @mge.jit.trace
        ... def double(x):
        ...     return x + x
        >>> print(double(mge.tensor([1.0, 2.0])))
        Tensor([2. 4.], device=xpux:0)
    """

    enabled: bool = not config.disable_trace

    def __new__(cls, function: Callable[..., Any] | None = None, **options: Any) -> Any:
        if function is None:
            return functools.partial(cls, **options)
        return super().__new__(cls)

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        symbolic: bool = False,
        capture_as_const: bool = False,
        record_only: bool = False,
        opt_level: int = 2,
        symbolic_shape: bool = True,
        without_host: bool = False,
    ) -> None:
        if not callable(function):
            raise ArgumentError(
                f"trace: {function!r} is not a function", fix="decorate a function: @trace"
            )
        self._function = function
        self._symbolic = symbolic or without_host
        self._as_const = capture_as_const
        self._record_only = record_only
        self._opt_level = opt_level
        self._cache: dict[Any, list[_Compiled]] = {}
        self._fast: dict[tuple[int, ...], _Compiled] = {}
        self._last: _Compiled | None = None
        functools.update_wrapper(self, function)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        state = dispatch.state
        if state.tracer is not None or not trace.enabled or config.backend == "reference":
            return self._function(*args, **kwargs)
        if not kwargs and not state.tapes:
            # The usual call: tensors only, nothing recording. No flattening, one lookup.
            found = self._fast.get(tuple([id(getattr(a, "_spec", a)) for a in args]))
            if found is not None and found.guard.holds():
                self._last = found
                return found.run(args)
        flat = _Flat(args, kwargs)
        if _recording():
            return self._function(*args, **kwargs)  # a gradient may be asked through it
        compiled = self._find(flat)
        if compiled is None:
            compiled, result = self._trace(flat, run=True)
            if not self._symbolic:
                return result
        if compiled.traced.reads or self._record_only:
            return self._function(*args, **kwargs)
        compiled.executable(self._opt_level)
        if not kwargs and len(flat.tensors) == len(args):
            self._fast[tuple([id(a._spec) for a in args])] = compiled
        return compiled.run(flat.tensors)

    def trace(self, *args: Any, **kwargs: Any) -> None:
        """Traces and compiles for these arguments without running anything."""
        flat = _Flat(args, kwargs)
        compiled = self._find(flat)
        if compiled is None:
            compiled, _ = self._trace(flat, run=False)
        if not self._record_only:
            compiled.executable(self._opt_level)

    def dump(
        self,
        file: str | Path,
        *,
        arg_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        optimize_for_inference: bool = True,
        target: str | None = None,
        **ignored: Any,
    ) -> None:
        """Writes the graph of the last trace as an artifact (`.mge`).

        Tensors from outside (the parameters) become constants with the values they have now.

        Args:
            file: path of the artifact; written atomically.
            arg_names: names of the inputs; `arg_0`, ... by default.
            output_names: names of the outputs; `out_0`, ... by default.
            optimize_for_inference: fold constants and batch norms, fuse.
            target: what to compile for ("host", "x86-64-v3", ...).
            ignored: further options of MegEngine's dump; accepted and without effect.

        Raises:
            TraceError: if nothing has been traced yet.
        """
        del ignored
        from mgec.compiler.api import compile_to_file

        graph = self.inference_graph(arg_names, output_names)
        compile_to_file(
            graph,
            file,
            target=target or config.target,
            optimize=optimize_for_inference,
            name=self._function.__name__,
        )

    def inference_graph(
        self,
        arg_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> GraphModule:
        """The graph of the last trace as `dump` compiles it: tensors from outside are constants.

        Args:
            arg_names: as for `dump`.
            output_names: as for `dump`.

        Raises:
            TraceError: if nothing has been traced yet.
        """
        if self._last is None:
            raise TraceError(
                "dump: the function has not been traced yet",
                fix="call it once, or call .trace(...) with example inputs",
            )
        return self._last.inference_graph(arg_names, output_names)

    @property
    def is_traced(self) -> bool:
        """Whether there is a last trace."""
        return self._last is not None

    def graph_text(self) -> str:
        """The graph of the last trace as `mge` IR text, before any pass."""
        if self._last is None:
            raise TraceError(
                "graph_text: nothing has been traced yet", fix="call the function once"
            )
        return str(self._last.traced.graph.module)

    # -- internals ---------------------------------------------------------------------------

    def _find(self, flat: _Flat) -> _Compiled | None:
        for found in self._cache.get(flat.key, ()):
            if found.guard.holds():
                self._last = found
                return found
        return None

    def _trace(self, flat: _Flat, *, run: bool) -> tuple[_Compiled, Any]:
        """Records the function. A graph that was recorded before keeps its compiled code."""
        variants = self._cache.setdefault(flat.key, [])
        tracer = Tracer(
            flat.tensors,
            symbolic=self._symbolic or not run or bool(variants),
            capture_as_const=self._as_const,
        )
        args, kwargs = flat.rebuild(tracer.args)
        guard = Guard(self._function, flat.kept)
        tracer.start()
        try:
            with collector_paused():
                result = self._function(*args, **kwargs)
                outputs = _Flat((result,), {})
        finally:
            tracer.stop()
        tracer.names = _parameter_names(guard.objects())
        traced = tracer.finish(outputs.tensors)
        compiled = _Compiled(traced, outputs, guard)
        if tracer.symbolic:
            for t in traced.grads:
                t._grad = None
        else:
            result = outputs.rebuild([_concrete(t) for t in outputs.tensors])[0][0]
            for t in traced.grads:
                if t._grad is not None:
                    t._grad = _concrete(t._grad)
        for known in variants:
            if known.same_as(compiled):
                compiled = known
                compiled.guard = guard
                break
        else:
            variants.append(compiled)
        guard.snapshot()
        self._last = compiled
        if tracer.symbolic and run and not self._symbolic:
            compiled.executable(self._opt_level)
            result = compiled.run(flat.tensors)
        return compiled, result


def _concrete(tensor: Tensor) -> Tensor:
    """A recorded tensor without its place in the graph."""
    if tensor._value is None:
        return tensor
    return Tensor._make(tensor._storage, tensor._spec, tensor._device)


def _parameter_names(objects: Sequence[Any]) -> dict[int, str]:
    """Names of the parameters and buffers of the modules among `objects`, by identity."""
    module = sys.modules.get("mgec.module.module")
    names: dict[int, str] = {}
    for item in objects if module is not None else ():
        if isinstance(item, module.Module):  # type: ignore[union-attr]
            for name, tensor in (*item.named_parameters(), *item.named_buffers()):
                names.setdefault(id(tensor), name)
    return names


def _recording() -> bool:
    """Whether some `GradManager` outside is recording."""
    return any(not getattr(tape, "implicit", False) for tape in dispatch.state.tapes)


class _Flat:
    """Arguments (or results) as a list of tensors and the structure around them.

    Attributes:
        tensors: the tensors in order.
        kept: objects that are neither tensors nor plain values.
        key: hashable description of everything else, shapes and dtypes included.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.tensors: list[Tensor] = []
        self.kept: list[Any] = []
        key: list[Any] = []
        self._args = [self._flatten(a, key) for a in args]
        self._kwargs = {k: self._flatten(v, key) for k, v in sorted(kwargs.items())}
        self.key = (len(args), tuple(sorted(kwargs)), *key)

    def _flatten(self, value: Any, key: list[Any]) -> Any:
        if isinstance(value, np.ndarray):
            value = Tensor(value)
        if isinstance(value, Tensor):
            self.tensors.append(value)
            key.append(id(value._spec))
            return _Slot(len(self.tensors) - 1)
        if isinstance(value, list | tuple):
            key.append((type(value), len(value)))
            items = [self._flatten(v, key) for v in value]
            if isinstance(value, list):
                return items
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, dict):
            key.append((dict, tuple(value)))
            return {k: self._flatten(v, key) for k, v in value.items()}
        if isinstance(value, PLAIN):
            key.append(identity(value))
        else:
            self.kept.append(value)
            key.append(id(value))
        return value

    @property
    def items(self) -> list[Any]:
        """The positional arguments, with a slot for each tensor."""
        return self._args

    def rebuild(self, tensors: Sequence[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with other tensors in the places of the first."""

        def fill(value: Any) -> Any:
            if isinstance(value, _Slot):
                return tensors[value.index]
            if isinstance(value, list):
                return [fill(v) for v in value]
            if isinstance(value, tuple):
                items = [fill(v) for v in value]
                return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
            if isinstance(value, dict):
                return {k: fill(v) for k, v in value.items()}
            return value

        return [fill(a) for a in self._args], {k: fill(v) for k, v in self._kwargs.items()}


@dataclass(frozen=True)
class _Slot:
    index: int


class _Compiled:
    """One trace: the graph, its executable once needed, and how to call it."""

    def __init__(self, traced: TracedGraph, outputs: _Flat, guard: Guard) -> None:
        self.traced = traced
        self.guard = guard
        self._outputs = outputs
        self._executable: Any = None
        self._text = ""

    def same_as(self, other: _Compiled) -> bool:
        """Whether another trace is the same computation on the same state."""
        mine, theirs = self.traced, other.traced
        return (
            [id(c.tensor) for c in mine.captured] == [id(c.tensor) for c in theirs.captured]
            and [id(t) for t in mine.updated] == [id(t) for t in theirs.updated]
            and [id(t) for t in mine.grads] == [id(t) for t in theirs.grads]
            and len(mine.fetched) == len(theirs.fetched)
            and self.text == other.text
        )

    @property
    def text(self) -> str:
        """The graph as text."""
        self._text = self._text or str(self.traced.graph.module)
        return self._text

    def executable(self, opt_level: int) -> Any:
        """The compiled graph, compiled on first use."""
        if self._executable is None:
            from mgec.compiler.api import compile_graph

            traced = self.traced
            compiled = compile_graph(
                traced.graph.clone(), target=config.target, optimize=opt_level > 0
            )
            executable = compiled.load()
            specs = [intern_spec(*s) for s in executable.output_specs]
            state: dict[int, Captured | Fetched] = {
                id(item.value): item for item in (*traced.captured, *traced.fetched)
            }
            arguments = list(traced.graph.main.body.block.args)[traced.num_args :]
            self._state = [state[id(a)] for a in arguments]
            captured = [item for item in self._state if isinstance(item, Captured)]
            self._tensors = [item.tensor for item in captured]
            self._specs = [item.spec for item in captured]
            self._fetched = [
                (traced.num_args + i, item)
                for i, item in enumerate(self._state)
                if isinstance(item, Fetched)
            ]
            self._results = [
                (spec, spec.nbytes, self._donor(source))
                for spec, source in zip(specs, executable.donations, strict=True)
            ]
            self._plain = all(isinstance(a, _Slot) for a in self._outputs.items)
            self._one = None
            if self._plain and len(self._results) == traced.num_outputs == 1:
                self._one = self._results[0][:2]
            self._executable = executable
        return self._executable

    def _donor(self, argument: int | None) -> Tensor | None:
        if argument is None:
            return None
        item = self._state[argument - self.traced.num_args]
        return item.tensor if isinstance(item, Captured) else None

    def _check_state(self) -> None:
        """Raises TraceError if a tensor of the graph has changed its shape or dtype."""
        for tensor, spec in zip(self._tensors, self._specs, strict=True):
            if tensor._spec != spec:
                raise TraceError(
                    f"a tensor of the graph changed from {spec} to {tensor._spec}",
                    values=[(tensor.name or "tensor", str(tensor._spec))],
                    fix="keep the shape and dtype of parameters and state, or trace anew",
                )

    def run(self, args: Sequence[Tensor]) -> Any:
        """Runs the graph: arguments in, results out, state updated."""
        traced = self.traced
        tensors = self._tensors
        if [t._spec for t in tensors] != self._specs:
            self._check_state()
        addresses = [a._storage.address for a in args]
        addresses += [t._storage.address for t in tensors]
        keep: list[Any] = []
        for position, item in self._fetched:
            storage = Storage(item.spec.nbytes)
            storage.as_array(item.spec.dtype, ())[...] = item.fetch()
            keep.append(storage)
            addresses.insert(position, storage.address)
        if self._one is not None:  # one new result and nothing to update: the usual inference
            spec, nbytes = self._one
            storage = Storage(nbytes)
            addresses.append(storage.address)
            self._executable.run(addresses)
            return Tensor._make(storage, spec, args[0]._device if args else None)
        storages: list[Any] = []
        for _, nbytes, donor in self._results:
            # Two references: the tensor's slot and getrefcount's argument. With more, somebody
            # else looks at the old value, which then must survive.
            if donor is not None and sys.getrefcount(donor._storage) <= 2:
                storage = donor._storage
            else:
                storage = Storage(nbytes)
            storages.append(storage)
            addresses.append(storage.address)
        self._executable.run(addresses)
        n = traced.num_outputs
        device = args[0]._device if args else None
        results = self._results
        outputs = [Tensor._make(storages[i], results[i][0], device) for i in range(n)]
        if len(storages) > n:
            i = n
            for t in traced.updated:
                t._storage, t._spec = storages[i], results[i][0]
                i += 1
            for t in traced.grads:
                t._grad = Tensor._make(storages[i], results[i][0], t._device)
                i += 1
        if n == 1 and self._plain:
            return outputs[0]
        return self._outputs.rebuild(outputs)[0][0]

    def inference_graph(
        self, arg_names: Sequence[str] | None, output_names: Sequence[str] | None
    ) -> Any:
        """A copy of the graph whose state is constant and whose results are the user's."""
        from xdsl.rewriter import InsertPoint, Rewriter

        traced = self.traced
        graph = traced.graph.clone()
        block = graph.main.body.block
        first = block.first_op
        assert first is not None
        originals = list(traced.graph.main.body.block.args)
        fixed: dict[int, np.ndarray[Any, Any]] = {}
        for c in traced.captured:
            array = c.tensor._storage.as_array(c.spec.dtype, c.spec.shape)
            fixed[originals.index(c.value)] = array  # type: ignore[arg-type]
        for f in traced.fetched:
            fixed[originals.index(f.value)] = np.array(f.fetch(), f.spec.dtype)  # type: ignore[arg-type]
        known = graph.input_names
        for i in sorted(fixed, reverse=True):
            op = add_constant(graph, known[i], fixed[i])
            Rewriter.insert_op(op, InsertPoint.before(first))
            block.args[i].replace_all_uses_with(op.results[0])
            block.erase_arg(block.args[i])
        for argument, names in (("arg_names", arg_names), ("output_names", output_names)):
            listed: list[Any] = list(names or ())
            bad = [n for n in listed if not isinstance(n, str) or listed.count(n) > 1]
            if bad:
                raise ArgumentError(
                    f"dump: {argument} holds {bad[0]!r}, which is not a name of its own",
                    values=[(argument, str(listed))],
                    fix="give strings that differ",
                )
        given = list(arg_names or [f"arg_{i}" for i in range(traced.num_args)])
        if len(given) != traced.num_args:
            raise ArgumentError(
                f"dump: {len(given)} arg_names for {traced.num_args} tensor arguments",
                values=[("arg_names", str(given), "")],
                fix="give one name per tensor argument",
            )
        return_op = graph.return_op
        values = list(return_op.operands)[: traced.num_outputs]
        Rewriter.erase_op(return_op)
        graph.finish(values)
        outs = list(output_names or [f"out_{i}" for i in range(traced.num_outputs)])
        if len(outs) != traced.num_outputs:
            raise ArgumentError(
                f"dump: {len(outs)} output_names for {traced.num_outputs} outputs",
                fix="give one name per output tensor",
            )
        graph.set_names(given, outs)
        return graph
