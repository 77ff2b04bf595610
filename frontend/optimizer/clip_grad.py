"""Limits on gradients, between `backward` and `step`."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError
from mgec.functional import elemwise
from mgec.functional import math as math_
from mgec.optimizer.optimizer import no_record

__all__ = ["clip_grad_norm", "clip_grad_value"]


def clip_grad_norm(
    tensors: Tensor | Iterable[Tensor], max_norm: float, ord: float = 2.0
) -> Tensor | None:
    """Scales all gradients down so that their common norm is at most `max_norm`.

    Args:
        tensors: tensors with gradients; those without are left out.
        max_norm: the limit.
        ord: the order of the norm; inf for the largest absolute value.

    Returns:
        The norm before, as a 0-d tensor; None if there are no gradients.
    """
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not max_norm > 0:
        raise ArgumentError(
            f"clip_grad_norm: max_norm is {max_norm} but must be above 0", fix="use a limit > 0"
        )
    with no_record():
        grads = [(t, t.grad) for t in given if t.grad is not None]
        norm: Tensor | None = None
        for _, grad in grads:
            size = elemwise.abs(grad)
            if ord == inf:
                part = math_.max(size)
                norm = part if norm is None else elemwise.maximum(norm, part)
            else:
                part = math_.sum(grad * grad if ord == 2 else size**ord)
                norm = part if norm is None else norm + part
        if norm is None:
            return None
        if ord != inf:
            norm = elemwise.sqrt(norm) if ord == 2 else norm ** (1.0 / ord)
        scale = elemwise.minimum(max_norm / (norm + 1e-6), 1.0)
        for t, grad in grads:
            t.grad = grad * scale
    return norm


def clip_grad_value(tensors: Tensor | Iterable[Tensor], lower: float, upper: float) -> None:
    """Limits every element of all gradients to [lower, upper].

    Args:
        tensors: tensors with gradients; those without are left out.
        lower: the least value.
        upper: the largest value.

    Raises:
        ArgumentError: if lower > upper.
    """
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    with no_record():
        for t in given:
            if t.grad is not None:
                t.grad = elemwise.clip(t.grad, lower, upper)
