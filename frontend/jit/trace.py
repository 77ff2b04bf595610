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
from mgec.core import dispatch
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, TraceError
from mgec.jit.tracer import TracedGraph, Tracer, add_constant
from mgec.runtime.memory import Storage

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class trace:  # noqa: N801 - MegEngine's name
    """Traces a function of tensors into one compiled graph.

    The first call with new shapes runs the Python function and records it; later calls run
    the compiled graph and none of the function's Python. Parameters, buffers and optimizer
    state that the function reads or updates are read and updated at every call. Python values
    that the function read (arguments, closure variables, `training` flags) are checked at
    every call, and a change traces anew.

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
        self._cache: dict[Any, _Compiled] = {}
        self._last: _Compiled | None = None
        functools.update_wrapper(self, function)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tracing = dispatch.state.tracer is not None
        if not type(self).enabled or tracing:
            return self._function(*args, **kwargs)
        flat = _Flat(args, kwargs)
        if _recording(flat.tensors):
            return self._function(*args, **kwargs)  # a gradient may be asked through it
        compiled = self._find(flat)
        if compiled is None:
            compiled, result = self._trace(flat, run=True)
            if not self._symbolic:
                return result
        if compiled.traced.reads or self._record_only:
            return self._function(*args, **kwargs)
        return compiled.run(flat.tensors, self._opt_level)

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
        if self._last is None:
            raise TraceError(
                "dump: the function has not been traced yet",
                fix="call it once, or call .trace(...) with example inputs",
            )
        from mgec.compiler.api import compile_to_file

        graph = self._last.inference_graph(arg_names, output_names)
        compile_to_file(
            graph,
            file,
            target=target or config.target,
            optimize=optimize_for_inference,
            name=self._function.__name__,
        )

    def graph_text(self) -> str:
        """The graph of the last trace as `mge` IR text, before any pass."""
        if self._last is None:
            raise TraceError("graph_text: nothing has been traced yet", fix="call the function once")
        return str(self._last.traced.graph.module)

    # -- internals ---------------------------------------------------------------------------

    def _find(self, flat: _Flat) -> _Compiled | None:
        found = self._cache.get(flat.key)
        if found is None:
            return None
        self._last = found
        return found if found.guard.holds() else None

    def _trace(self, flat: _Flat, *, run: bool) -> tuple[_Compiled, Any]:
        tracer = Tracer(
            flat.tensors,
            symbolic=self._symbolic or not run,
            capture_as_const=self._as_const,
        )
        args, kwargs = flat.rebuild(tracer.args)
        guard = _Guard(self._function, args, kwargs)
        tracer.start()
        try:
            result = self._function(*args, **kwargs)
            outputs = _Flat((result,), {}, what="result")
        finally:
            tracer.stop()
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
        guard.snapshot()
        self._cache[flat.key] = compiled
        self._last = compiled
        return compiled, result


def _concrete(tensor: Tensor) -> Tensor:
    """A recorded tensor without its place in the graph."""
    if tensor._value is None:
        return tensor
    return Tensor._make(tensor._storage, tensor._spec, tensor._device)


def _recording(tensors: Sequence[Tensor]) -> bool:
    """Whether some `GradManager` outside is recording."""
    return any(not getattr(tape, "implicit", False) for tape in dispatch.state.tapes)


class _Flat:
    """Arguments (or results) as a list of tensors and the structure around them.

    Attributes:
        tensors: the tensors in order.
        key: hashable description of everything else, shapes and dtypes included.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], what: str = "") -> None:
        self.tensors: list[Tensor] = []
        self._keep: list[Any] = []
        key: list[Any] = []
        self._args = [self._flatten(a, key) for a in args]
        self._kwargs = {k: self._flatten(v, key) for k, v in sorted(kwargs.items())}
        self.key = (len(args), tuple(sorted(kwargs)), *key)
        del what

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
        if isinstance(value, _PLAIN):
            key.append((type(value), value))
        else:
            self._keep.append(value)
            key.append(id(value))
        return value

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


class _Guard:
    """Python values that a traced function read: they must be the same at the next call."""

    def __init__(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        function = getattr(function, "__func__", function)
        code = getattr(function, "__code__", None)
        self._cells = list(getattr(function, "__closure__", None) or ())
        self._globals = getattr(function, "__globals__", {})
        self._names = code.co_names if code is not None else ()
        del args, kwargs
        self._values: list[Any] = []
        self._epoch = -1

    def snapshot(self) -> None:
        """Remembers the values as they are now."""
        self._values = self._read()
        self._epoch = _module_epoch()

    def holds(self) -> bool:
        """Whether they are still the same."""
        return self._epoch == _module_epoch() and self._values == self._read()

    def _read(self) -> list[Any]:
        values: list[Any] = []
        for cell in self._cells:
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            values.append((type(value), value) if isinstance(value, _PLAIN) else id(value))
        for name in self._names:
            if name in self._globals:
                value = self._globals[name]
                values.append((type(value), value) if isinstance(value, _PLAIN) else id(value))
        return values


def _module_epoch() -> int:
    module = sys.modules.get("mgec.module.module")
    return 0 if module is None else module.state_epoch()


class _Compiled:
    """One trace: the graph, its executable once needed, and how to call it."""

    def __init__(self, traced: TracedGraph, outputs: _Flat, guard: _Guard) -> None:
        self.traced = traced
        self.guard = guard
        self._outputs = outputs
        self._executable: Any = None
        self._opt_level = -1

    def executable(self, opt_level: int) -> Any:
        """The compiled graph, compiled on first use."""
        if self._executable is None:
            from mgec.compiler.api import compile_graph

            compiled = compile_graph(
                self.traced.graph.clone(), target=config.target, optimize=opt_level > 0
            )
            self._executable = compiled.load()
            self._specs = self._executable.output_specs
            self._nbytes = [s.nbytes for s in self._specs]
            block = self.traced.graph.main.body.block
            order = {id(a): i for i, a in enumerate(block.args)}
            n = self.traced.num_args
            self._state: list[Any] = [None] * (len(block.args) - n)
            for c in self.traced.captured:
                self._state[order[id(c.value)] - n] = c
            for f in self.traced.fetched:
                self._state[order[id(f.value)] - n] = f
            self._donations = self._executable.donations
        return self._executable

    def run(self, args: Sequence[Tensor], opt_level: int) -> Any:
        """Runs the graph: arguments in, results out, state updated."""
        executable = self._executable or self.executable(opt_level)
        traced = self.traced
        inputs = [a._storage.address for a in args]
        keep: list[Any] = []
        for item in self._state:
            if type(item).__name__ == "Captured":
                if item.tensor._spec is not item.spec:
                    raise TraceError(
                        f"a tensor of the graph changed from {item.spec} to {item.tensor._spec}",
                        fix="keep the shape and dtype of parameters and state, or trace anew",
                    )
                inputs.append(item.tensor._storage.address)
            else:
                storage = Storage(item.spec.nbytes)
                storage.as_array(item.spec.dtype, ())[...] = item.fetch()
                keep.append(storage)
                inputs.append(storage.address)
        storages: list[Any] = []
        num_args = traced.num_args
        for i, nbytes in enumerate(self._nbytes):
            source = self._donations[i]
            storage = None
            if source is not None:
                held = self._state[source - num_args].tensor._storage
                # 3: the tensor's slot, our name, getrefcount's argument. Otherwise somebody
                # else looks at the old value, which then must survive.
                if sys.getrefcount(held) <= 3:
                    storage = held
            storages.append(storage or Storage(nbytes))
        executable.run([*inputs, *[s.address for s in storages]])
        n = traced.num_outputs
        device = args[0]._device if args else None
        outputs = [
            Tensor._make(s, spec, device)
            for s, spec in zip(storages[:n], self._output_specs(), strict=True)
        ]
        for t, s in zip(traced.updated, storages[n:], strict=False):
            t._storage = s
        for t, s, spec in zip(
            traced.grads, storages[n + len(traced.updated) :],
            self._grad_specs(), strict=True,
        ):  # fmt: skip
            t._grad = Tensor._make(s, spec, t._device)
        return self._outputs.rebuild(outputs)[0][0]

    def _output_specs(self) -> list[Any]:
        return [t._spec for t in self._outputs.tensors]

    def _grad_specs(self) -> list[Any]:
        from mgec.core.tensor import intern_spec

        start = self.traced.num_outputs + len(self.traced.updated)
        return [intern_spec(*s) for s in self._specs[start:]]

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
        names = graph.input_names
        for i in sorted(fixed, reverse=True):
            op = add_constant(graph, names[i], fixed[i])
            Rewriter.insert_op(op, InsertPoint.before(first))
            block.args[i].replace_all_uses_with(op.results[0])
            block.erase_arg(block.args[i])
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
