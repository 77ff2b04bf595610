"""`GradManager`: record ops, then pull gradients back to the attached tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mgec.core import dispatch
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, DTypeError, GradientError, ShapeError

if TYPE_CHECKING:
    from mgec.dialects.mge.autodiff import Entry
    from mgec.dialects.mge.op import MgeOp

Callback = Callable[[Tensor, Tensor], "Tensor | None"]


class RecordedTape:
    """Op applications that depend on watched tensors, in order.

    Args:
        watched: tensors that gradients will be asked for.
    """

    def __init__(self, watched: Iterable[Tensor]) -> None:
        self.entries: list[Entry] = []
        self._active = {id(t): t for t in watched}
        self._current: dict[int, tuple[Tensor, Tensor]] = {}

    def record(
        self,
        op: type[MgeOp],
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        attrs: Mapping[str, Any],
    ) -> None:
        """Notes one application if any input depends on a watched tensor."""
        if self._current:
            inputs = tuple(None if x is None else self.resolve(x) for x in inputs)
        active = self._active
        for x in inputs:
            if x is not None and id(x) in active:
                break
        else:
            return
        from mgec.dialects.mge.autodiff import Entry

        self.entries.append(Entry(op, tuple(inputs), tuple(outputs), op.complete_attrs(attrs)))
        for out in outputs:
            active[id(out)] = out

    def watch(self, tensor: Tensor) -> None:
        """Starts recording what depends on `tensor`."""
        self._active[id(tensor)] = tensor

    def rebind(self, name: Tensor, value: Tensor) -> None:
        """`name` was given the value of `value` in place (`a += b`)."""
        if id(value) in self._active or id(name) in self._active or id(name) in self._current:
            self._current[id(name)] = (name, value)

    def resolve(self, tensor: Tensor) -> Tensor:
        """The tensor whose recorded history `tensor` stands for."""
        found = self._current.get(id(tensor))
        return tensor if found is None else found[1]


class GradManager:
    """Computes gradients of recorded computations (reverse mode).

    Example:
        >>> import mgec as mge
        >>> x = mge.tensor([1.0, 2.0])
        >>> gm = mge.autodiff.GradManager().attach([x])
        >>> with gm:
        ...     y = (x * x).sum()
        ...     gm.backward(y)
        >>> print(x.grad)
        Tensor([2. 4.], device=xpux:0)
    """

    def __init__(self) -> None:
        self._attached: dict[int, tuple[weakref.ref[Tensor], list[Callback]]] = {}
        self._after: list[Callable[[], None]] = []
        self._tape: RecordedTape | None = None

    # -- attaching ------------------------------------------------------------------------

    def attach(
        self,
        tensors: Tensor | Iterable[Tensor],
        callbacks: Callback | Iterable[Callback] | None = None,
    ) -> GradManager:
        """Asks for the gradients of `tensors`.

        Args:
            tensors: a tensor or several; floating point. Held weakly.
            callbacks: called as `callback(tensor, grad)` before a gradient is stored; what
                they return (unless None) is stored instead.

        Returns:
            Itself.

        Raises:
            DTypeError: for a tensor that is not floating point.
        """
        if not isinstance(tensors, Iterable):
            raise ArgumentError(
                f"attach: {type(tensors).__name__} is not a tensor or several",
                fix="pass tensors or parameters, e.g. net.parameters()",
            )
        given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
        if callbacks is None:
            functions: list[Callback] = []
        else:
            functions = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
        if not all(callable(function) for function in functions):
            raise ArgumentError(
                f"attach: callbacks is {callbacks!r:.40}, not a function or several",
                fix="pass callback(tensor, grad)",
            )
        for t in given:
            if not isinstance(t, Tensor):
                raise ArgumentError(
                    f"attach: {type(t).__name__} is not a tensor",
                    fix="pass tensors or parameters, e.g. net.parameters()",
                )
            if t._spec.dtype.kind in "iub":
                raise DTypeError(
                    f"attach: a {t._spec.dtype.name} tensor has no gradient",
                    values=[("tensor", str(t._spec), "")],
                    fix="convert it with astype('float32') first",
                )
            known = self._attached.get(id(t))
            kept = known[1] if known is not None and known[0]() is t else []
            self._attached[id(t)] = (weakref.ref(t), [*kept, *functions])
            if self._tape is not None:
                self._tape.watch(t)
        return self

    def attached_tensors(self) -> list[Tensor]:
        """The attached tensors that still exist."""
        return [t for ref, _ in self._attached.values() if (t := ref()) is not None]

    # -- recording ------------------------------------------------------------------------

    def record(self) -> None:
        """Starts recording. A second call while recording is an error."""
        if self._tape is not None:
            raise GradientError(
                "record: this GradManager is recording already",
                fix="call release() first, or leave the with block",
            )
        self._tape = RecordedTape(self.attached_tensors())
        dispatch.state.tapes.append(self._tape)

    def release(self) -> None:
        """Stops recording and drops what was recorded."""
        if self._tape is not None:
            if self._tape in dispatch.state.tapes:
                dispatch.state.tapes.remove(self._tape)
            self._tape = None

    def __enter__(self) -> GradManager:
        self.record()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __or__(self, other: GradManager) -> _Several:
        return _Several([self, other])

    # -- the backward pass ------------------------------------------------------------------

    def backward(
        self,
        y: Tensor | Sequence[Tensor] | None = None,
        dy: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Adds d(sum(y * dy)) / d(t) to `t.grad` for every attached tensor t, and releases.

        Args:
            y: what to differentiate; one tensor or several, of any shape.
            dy: gradient arriving at each `y`; ones by default.

        Raises:
            GradientError: "no computation history" when nothing is being recorded.
        """
        tape = self._tape
        if tape is None:
            raise GradientError(
                "backward: no computation history",
                fix="compute y inside `with gm:` or between gm.record() and gm.backward()",
            )
        ys = [] if y is None else _tensors("y", y)
        dys: Sequence[Tensor | None] = [None] * len(ys) if dy is None else _tensors("dy", dy)
        if len(dys) != len(ys):
            raise ArgumentError(
                f"backward: {len(ys)} tensors y but {len(dys)} gradients dy",
                fix="pass one dy per y, or none",
            )
        # Ops of the backward pass are recorded by outer managers (higher order), not by us.
        dispatch.state.tapes.remove(tape)
        try:
            wrt = self.attached_tensors()
            seeds = [(tape.resolve(y), dy) for y, dy in zip(ys, dys, strict=True)]
            grads = pull(tape.entries, seeds, wrt)
            for t, grad in zip(wrt, grads, strict=True):
                if grad is None:
                    continue
                for callback in self._attached[id(t)][1]:
                    changed = callback(t, grad)
                    grad = grad if changed is None else changed
                t.grad = grad if t.grad is None else t.grad + grad
            for function in self._after:
                function()
        finally:
            self._tape = None


def _tensors(argument: str, given: Any) -> list[Tensor]:
    """One tensor or several, as a list; ArgumentError for anything else."""
    many = [given] if isinstance(given, Tensor) else given
    if not isinstance(many, Sequence) or not all(isinstance(t, Tensor) for t in many):
        raise ArgumentError(
            f"backward: {argument} is a {type(given).__name__}, not a tensor or several",
            values=[(argument, given)],
            fix=f"pass {argument} as a tensor or a list of tensors",
        )
    return list(many)


class _Several:
    """`gm1 | gm2`: two managers that record together."""

    def __init__(self, managers: list[GradManager]) -> None:
        self._managers = managers

    def __or__(self, other: GradManager) -> _Several:
        return _Several([*self._managers, other])

    def record(self) -> None:
        """Starts recording in each."""
        for gm in self._managers:
            gm.record()

    def release(self) -> None:
        """Stops recording in each."""
        for gm in self._managers:
            gm.release()

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """First-order gradients of each."""
        for gm in self._managers:
            gm.release() if gm._tape is None else gm.backward(*args, **kwargs)

    def __enter__(self) -> _Several:
        self.record()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def pull(
    entries: Sequence[Entry], seeds: Sequence[tuple[Tensor, Tensor | None]], wrt: list[Tensor]
) -> list[Tensor | None]:
    """Gradients with respect to `wrt`, from recorded entries; see `autodiff.pullback`."""
    from mgec.dialects.mge.autodiff import pullback

    b = dispatch.builder()
    filled: list[tuple[Tensor, Tensor]] = []
    for y, dy in seeds:
        if y._spec.dtype.kind in "iub":
            raise DTypeError(
                f"backward: y is {y._spec.dtype.name} and has no gradient",
                fix="differentiate a floating point result",
            )
        if dy is None:
            dy = b.full(y.shape, 1, y._spec.dtype)
        elif dy.shape != y.shape:
            raise ShapeError(
                f"backward: dy has shape {dy.shape} but y has shape {y.shape}",
                values=[("y", str(y._spec), ""), ("dy", str(dy._spec), "")],
                fix="give dy the shape of y",
            )
        filled.append((y, dy))
    return pullback(b, entries, filled, wrt)
