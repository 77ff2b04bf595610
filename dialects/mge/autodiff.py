"""Reverse mode over a list of op applications, for every builder.

The eager tape of `GradManager`, `gm.backward` inside a trace and the gradient of a
composite op are all this function with another builder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgec.dialects.mge.builder import Call, OpBuilder, differentiable
from mgec.dialects.mge.op import MgeOp, Plain
from mgec.dialects.mge.rules import as_tuple, decomposition, gradient
from mgec.dialects.mge.spec import TensorSpec
from mgec.errors import GradientError


@dataclass(frozen=True)
class Entry:
    """One recorded application of an op; values are whatever the builder makes."""

    op: type[MgeOp]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    attrs: Mapping[str, Plain]


class RecordingBuilder(OpBuilder):
    """Emits through another builder and remembers what was emitted.

    Args:
        inner: the builder that does the work.
    """

    def __init__(self, inner: OpBuilder) -> None:
        self._inner = inner
        self.entries: list[Entry] = []

    def emit(
        self, op: type[MgeOp], operands: Sequence[Any], attrs: Mapping[str, Plain]
    ) -> tuple[Any, ...]:
        full = op.complete_attrs(attrs)
        outputs = self._inner.emit(op, operands, full)
        self.entries.append(Entry(op, tuple(operands), outputs, full))
        return outputs

    def spec(self, value: Any) -> TensorSpec:
        return self._inner.spec(value)


def pullback(
    b: OpBuilder,
    entries: Sequence[Entry],
    seeds: Sequence[tuple[Any, Any]],
    wrt: Sequence[Any],
) -> list[Any | None]:
    """Gradients of sum(seed * value) over `seeds` with respect to `wrt`.

    Args:
        b: makes the gradient ops.
        entries: op applications in the order they happened.
        seeds: pairs (value, gradient arriving at it).
        wrt: values to differentiate with respect to; identity counts, not equality.

    Returns:
        One gradient per value of `wrt`; None where nothing flows.

    Raises:
        GradientError: if a value of `wrt` reaches a seed only through an op without a
            gradient rule.
    """
    active = {id(value) for value in wrt}
    relevant: list[Entry] = []
    for entry in entries:
        if any(id(x) in active for x in entry.inputs if x is not None):
            outputs = [o for o in entry.outputs if differentiable(b.spec(o))]
            active.update(id(o) for o in outputs)
            if outputs:
                relevant.append(entry)
    grads: dict[int, Any] = {}

    def accumulate(value: Any, grad: Any) -> None:
        key = id(value)
        grads[key] = b.add(grads[key], grad) if key in grads else grad

    for value, seed in seeds:
        if id(value) in active:
            accumulate(value, seed)
    kept = {id(value) for value in wrt}
    for entry in reversed(relevant):
        if not any(id(o) in grads for o in entry.outputs):
            continue
        d_outputs = [
            grads[id(o)] if id(o) in kept else grads.pop(id(o)) if id(o) in grads else None
            for o in entry.outputs
        ]
        d_outputs = [
            b.zeros_like(o) if d is None and differentiable(b.spec(o)) else d
            for d, o in zip(d_outputs, entry.outputs, strict=True)
        ]
        for value, grad in zip(entry.inputs, _apply_rule(b, entry, active, d_outputs), strict=True):
            if grad is not None and value is not None and id(value) in active:
                accumulate(value, grad)
    return [grads.get(id(value)) for value in wrt]


def _apply_rule(
    b: OpBuilder, entry: Entry, active: set[int], d_outputs: Sequence[Any]
) -> Sequence[Any | None]:
    call = Call(
        op=entry.op,
        inputs=entry.inputs,
        outputs=entry.outputs,
        attrs=entry.attrs,
        specs=tuple(None if x is None else b.spec(x) for x in entry.inputs),
        output_specs=tuple(b.spec(o) for o in entry.outputs),
        needs=tuple(x is not None and id(x) in active for x in entry.inputs),
    )
    rule = getattr(entry.op, "custom_gradient", None) or gradient.get(entry.op)
    if rule is not None:
        return rule(b, call, *d_outputs)
    if entry.op in decomposition:
        return gradient_of_decomposition(b, call, *d_outputs)
    name = entry.op.name.removeprefix("mge.")
    raise GradientError(
        f"{name}: has no gradient, but a gradient is asked through it",
        values=[
            (p.name, str(s), "")
            for p, s in zip(entry.op.signature.operands, call.specs, strict=False)
        ],
        fix="detach() its input, or compute this part outside the recording",
    )


def gradient_of_decomposition(b: OpBuilder, call: Call, *d_outputs: Any) -> Sequence[Any | None]:
    """The gradient of a composite: its decomposition, replayed and pulled back.

    The replayed forward ops that the pullback needs are recomputed; passes remove the
    duplicates where the composite is decomposed too.
    """
    recorder = RecordingBuilder(b)
    outputs = as_tuple(decomposition[call.op](recorder, *call.inputs, **call.attrs))
    seeds = [(o, d) for o, d in zip(outputs, d_outputs, strict=True) if d is not None]
    present = [x for x in call.inputs if x is not None]
    grads = iter(pullback(b, recorder.entries, seeds, present))
    return [None if x is None else next(grads) for x in call.inputs]
