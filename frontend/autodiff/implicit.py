"""`optimizer.backward(loss)`: gradients without a with block, as in MegEngine before 1.0.

Nothing says when recording starts, so what is computed from the parameters of an optimizer
remembers how it was computed: every result holds the step that made it, and through it the
steps before. When Python drops a result, that history goes with it.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgec.core import dispatch
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, GradientError

if TYPE_CHECKING:
    from mgec.dialects.mge.autodiff import Entry
    from mgec.dialects.mge.op import MgeOp

_count = itertools.count()


class _Step:
    """One op application in a history.

    `outputs` are copies that share storage with the real results; those hold the step, so
    the step must not hold them.
    """

    __slots__ = ("attrs", "inputs", "number", "op", "outputs", "parents")

    def __init__(
        self,
        op: type[MgeOp],
        inputs: tuple[Tensor | None, ...],
        outputs: tuple[Tensor, ...],
        attrs: Mapping[str, Any],
        parents: tuple[_Step, ...],
    ) -> None:
        self.op, self.inputs, self.outputs, self.attrs = op, inputs, outputs, attrs
        self.parents = parents
        self.number = next(_count)


class ImplicitTape:
    """The tape that is always there while an optimizer that may need it lives."""

    implicit = True

    def __init__(self) -> None:
        self._watched: dict[int, weakref.ref[Tensor]] = {}

    def watch(self, params: Iterable[Tensor]) -> None:
        """Results computed from `params` get a history from now on."""
        for p in params:
            key = id(p)
            self._watched[key] = weakref.ref(p, lambda _, key=key: self._watched.pop(key, None))

    def unwatch(self, params: Iterable[Tensor]) -> None:
        """Undoes `watch`."""
        for p in params:
            self._watched.pop(id(p), None)

    @property
    def is_needed(self) -> bool:
        """Whether anything is watched."""
        return bool(self._watched)

    def record(
        self,
        op: type[MgeOp],
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        attrs: Mapping[str, Any],
    ) -> None:
        """Gives the outputs a history if an input has one or is watched."""
        parents: list[_Step] = []
        resolved: list[Tensor | None] = []
        active = False
        for x in inputs:
            history = None if x is None else x._history
            if history is None:
                active = active or (x is not None and id(x) in self._watched)
                resolved.append(x)
            else:
                step, index = history
                parents.append(step)
                resolved.append(step.outputs[index])
        if not (active or parents):
            return
        copies = tuple(_copy(out) for out in outputs)
        step = _Step(op, tuple(resolved), copies, op.complete_attrs(attrs), tuple(parents))
        for index, out in enumerate(outputs):
            out._history = (step, index)

    def rebind(self, name: Tensor, value: Tensor) -> None:
        """`name` was given the value of `value` in place."""
        if id(name) not in self._watched:
            name._history = value._history


def _copy(out: Tensor) -> Tensor:
    copy = Tensor._make(out._storage, out._spec, out._device)
    copy._value = out._value
    return copy


TAPE = ImplicitTape()


def tapes() -> list[Any]:
    """The implicit tape in a list, if some optimizer needs it."""
    return [TAPE] if TAPE.is_needed else []


def implicit_watch(params: Iterable[Tensor]) -> None:
    """Lets `implicit_backward` differentiate what is computed from `params`."""
    TAPE.watch(params)
    if TAPE not in dispatch.state.tapes:
        dispatch.state.tapes.append(TAPE)


def implicit_unwatch(params: Iterable[Tensor]) -> None:
    """Undoes `implicit_watch`: nobody will ask for these gradients this way."""
    TAPE.unwatch(params)
    if not TAPE.is_needed and TAPE in dispatch.state.tapes:
        dispatch.state.tapes.remove(TAPE)


def implicit_backward(loss: Tensor, params: Iterable[Tensor]) -> None:
    """Adds the gradients of `loss` to `grad` of `params`, from the history of `loss`.

    Raises:
        ArgumentError: if `loss` is not a tensor.
        GradientError: if it does not depend on any watched parameter.
    """
    from mgec.autodiff.grad_manager import pull

    if not isinstance(loss, Tensor):
        raise ArgumentError(
            f"optimizer.backward: loss is a {type(loss).__name__}, not a tensor",
            fix="pass the tensor to minimize",
        )
    if loss._history is None:
        raise GradientError(
            "optimizer.backward: no computation history",
            fix="compute the loss from the optimizer's parameters after the optimizer is made, "
            "or use GradManager",
        )
    last, index = loss._history
    steps: dict[int, _Step] = {}
    pending = [last]
    while pending:
        step = pending.pop()
        if step.number not in steps:
            steps[step.number] = step
            pending.extend(step.parents)
    entries = [_entry(steps[number]) for number in sorted(steps)]
    wrt = list(params)
    saved = dispatch.state.tapes
    dispatch.state.tapes = [t for t in saved if t is not TAPE]
    try:
        grads = pull(entries, [(last.outputs[index], None)], wrt)
        for p, grad in zip(wrt, grads, strict=True):
            if grad is not None:
                p.grad = grad if p.grad is None else p.grad + grad
    finally:
        dispatch.state.tapes = saved


def _entry(step: _Step) -> Entry:
    from mgec.dialects.mge.autodiff import Entry

    return Entry(step.op, step.inputs, step.outputs, step.attrs)
