"""Custom gradients: a forward and a backward written by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgec.core import dispatch
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError


class Function:
    """An operation whose gradient the user writes.

    Subclasses define `forward(*inputs)` and `backward(*d_outputs)`; what backward needs is
    kept on `self`. An object is used for one call.

    Example:
        >>> import mgec as mge, mgec.functional as F
        >>> class Sigmoid(mge.autodiff.Function):
        ...     def forward(self, x):
        ...         self.y = F.sigmoid(x)
        ...         return self.y
        ...     def backward(self, dy):
        ...         return dy * self.y * (1 - self.y)
    """

    def forward(self, *inputs: Tensor) -> Any:
        """Computes the outputs (a tensor or a tuple of tensors)."""
        raise NotImplementedError(f"{type(self).__name__}.forward is not defined")

    def backward(self, *d_outputs: Tensor) -> Any:
        """Gradients of the inputs from the gradients of the outputs; None for no gradient."""
        raise NotImplementedError(f"{type(self).__name__}.backward is not defined")

    def __call__(self, *inputs: Tensor) -> Any:
        tapes = dispatch.state.tapes
        dispatch.state.tapes = []
        try:
            result = self.forward(*inputs)
        finally:
            dispatch.state.tapes = tapes
        outputs = result if isinstance(result, tuple) else (result,)
        fresh = tuple(x.detach() if any(x is i for i in inputs) else x for x in outputs)
        op = _custom_op(self, len(inputs))
        for tape in tapes:
            tape.record(op, inputs, fresh, {})
        return fresh if isinstance(result, tuple) else fresh[0]


def _custom_op(function: Function, arity: int) -> Any:
    """An op class that exists only on the tape, whose gradient calls `function.backward`."""

    def rule(b: Any, call: Any, *d_outputs: Tensor) -> Sequence[Tensor | None]:
        grads = function.backward(*d_outputs)
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != arity:
            raise ArgumentError(
                f"{type(function).__name__}.backward returned {len(grads)} gradients "
                f"for {arity} inputs",
                fix="return one gradient per input of forward, None where there is none",
            )
        return grads

    class CustomOp:
        name = f"mge.{type(function).__name__}"
        custom_gradient = staticmethod(rule)

        @staticmethod
        def complete_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
            return dict(attrs)

    return CustomOp
