"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from mgec.errors import ArgumentError
from mgec.optimizer.optimizer import Group, Optimizer, assign, check_hyper

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    grad += weight_decay * param; v = momentum * v + grad; param -= lr * v. With Nesterov's
    momentum, the parameter moves by lr * (grad + momentum * v).

    Args:
        params: parameters or groups.
        lr: learning rate.
        momentum: how much of the last step to repeat.
        nesterov: Nesterov's momentum.
        weight_decay: weight of the penalty on large parameters.

    Source:
        Sutskever et al., "On the importance of initialization and momentum in deep learning",
        2013.

    Example:
        >>> import mgec as mge
        >>> w = mge.Parameter([1.0])
        >>> w.grad = mge.tensor([2.0])
        >>> optimizer = mge.optimizer.SGD([w], lr=0.25).step().clear_grad()
        >>> w
        Parameter([0.5], device=xpux:0)
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        check_hyper("SGD", "lr", lr)
        check_hyper("SGD", "momentum", momentum)
        check_hyper("SGD", "weight_decay", weight_decay)
        if nesterov and momentum <= 0:
            raise ArgumentError(
                "SGD: nesterov is True but momentum is 0", fix="give a momentum, such as 0.9"
            )
        self.nesterov = nesterov
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _create_state(self, param_group: Group) -> None:
        if param_group["momentum"] != 0.0:
            for p in param_group["params"]:
                self._add_state(p, "momentum_buffer")

    def _updates(self, param_group: Group) -> None:
        lr = self._scalar("lr", param_group)
        decays, moves = param_group["weight_decay"] != 0.0, param_group["momentum"] != 0.0
        weight_decay = self._scalar("weight_decay", param_group) if decays else 0.0
        momentum = self._scalar("momentum", param_group) if moves else 0.0
        for p in param_group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if decays:
                grad = grad + p * weight_decay
            if moves:
                velocity = self._state[id(p)]["momentum_buffer"]
                new = velocity * momentum + grad
                assign(velocity, new)
                grad = grad + new * momentum if self.nesterov else new
            assign(p, p - grad * lr)
