"""The one dispatch point: every op of every tensor comes through `apply`.

Eager: run the op now, from a cache of compiled kernels. Traced: append it to the graph.
Recording (inside a `GradManager`): also note it on the tape. Nothing else in the frontend
looks at which of these is the case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mgec.core.tensor import Tensor
    from mgec.dialects.mge.builder import OpBuilder
    from mgec.dialects.mge.op import MgeOp


class Tape(Protocol):
    """What a recording `GradManager` offers to the dispatcher."""

    def record(
        self,
        op: type[MgeOp],
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        attrs: Mapping[str, Any],
    ) -> None:
        """Notes one application, if a gradient may be asked through it."""
        ...

    def rebind(self, name: Tensor, value: Tensor) -> None:
        """`name` was given the value of `value` in place."""
        ...


class Tracer(Protocol):
    """What a trace in progress offers to the dispatcher."""

    def emit(
        self, op: type[MgeOp], inputs: Sequence[Tensor | None], attrs: Mapping[str, Any]
    ) -> tuple[Tensor, ...]:
        """Appends one op to the graph."""
        ...


class _State:
    """The mode of the process's current thread of Python code."""

    __slots__ = ("module_epoch", "tapes", "tracer")

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self.tracer: Any = None
        self.module_epoch = 0


state = _State()
"""Active tapes, the active tracer, and a count of changed plain attributes of modules.

 Tracing and recording are process-wide, like the
interpreter's own tracing: two threads do not trace at once."""


def apply(
    op: type[MgeOp], inputs: tuple[Tensor | None, ...], attrs: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """Applies an op to tensors.

    Args:
        op: the op's class.
        inputs: one tensor per operand, with the dtypes the op wants; None for an absent
            optional operand.
        attrs: plain attributes, in canonical form (tuples, not lists).

    Returns:
        One tensor per result.
    """
    if state.tracer is not None:
        outputs = state.tracer.emit(op, inputs, attrs)
    else:
        outputs = _run()(op, inputs, attrs)
    for tape in state.tapes:
        tape.record(op, inputs, outputs, attrs)
    return outputs


def call(name: str, *inputs: Any, **attrs: Any) -> Any:
    """`apply` for an op by name ("softmax"); a single result comes without its tuple."""
    outputs = apply(op_named(name), inputs, attrs)
    return outputs[0] if len(outputs) == 1 else outputs


@cache
def op_named(name: str) -> Any:
    """The op class `mge.<name>`."""
    from mgec.dialects.mge.registry import op_class

    return op_class(f"mge.{name}")


@cache
def _run() -> Callable[..., tuple[Tensor, ...]]:
    from mgec.core.eager import run

    return run


@cache
def builder() -> OpBuilder:
    """An `OpBuilder` over tensors: its ops come through `apply`, so they can be recorded."""
    from mgec.core.eager import TensorBuilder

    return TensorBuilder()
