"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgec.errors import ArgumentError
from mgec.functional.elemwise import sqrt
from mgec.optimizer.optimizer import Group, Optimizer, assign, check_hyper

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam: steps of about the same size in every direction.

    grad += weight_decay * param; m and v are running means of grad and grad**2, corrected for
    their start at 0; param -= lr * m / (sqrt(v) + eps).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: weights of the old running means.
        eps: added to the root.
        weight_decay: weight of the penalty on large parameters.

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    """

    _decoupled = False

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        name = type(self).__name__
        check_hyper(name, "lr", lr)
        check_hyper(name, "eps", eps)
        check_hyper(name, "weight_decay", weight_decay)
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise ArgumentError(f"{name}: betas is {betas!r}, not two numbers", fix="give two")
        for i, beta in enumerate(betas):
            check_hyper(name, f"betas[{i}]", beta, 0.0, 1.0)
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": tuple(betas), "eps": eps}
        super().__init__(params, defaults)

    def _create_state(self, param_group: Group) -> None:
        for p in param_group["params"]:
            self._add_state(p, "exp_avg")
            self._add_state(p, "exp_avg_sq")
            self._add_state(p, "step", np.zeros((), np.float32))

    def _updates(self, param_group: Group) -> None:
        lr = self._scalar("lr", param_group)
        decays = param_group["weight_decay"] != 0.0
        weight_decay = self._scalar("weight_decay", param_group) if decays else 0.0
        beta0, beta1 = param_group["betas"]
        eps = param_group["eps"]
        for p in param_group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if decays and not self._decoupled:
                grad = grad + p * weight_decay
            state = self._state[id(p)]
            step, mean, square = state["step"], state["exp_avg"], state["exp_avg_sq"]
            new_step = step + 1.0
            correction0, correction1 = 1.0 - beta0**new_step, 1.0 - beta1**new_step
            new_mean = mean * beta0 + grad * (1.0 - beta0)
            new_square = square * beta1 + grad * grad * (1.0 - beta1)
            delta = (new_mean / correction0) / (sqrt(new_square / correction1) + eps)
            if decays and self._decoupled:
                delta = delta + p * weight_decay
            assign(step, new_step)
            assign(mean, new_mean)
            assign(square, new_square)
            assign(p, p - delta * lr)


class AdamW(Adam):
    """Adam whose weight decay does not go through the running means.

    As `Adam`, but param -= lr * (m / (sqrt(v) + eps) + weight_decay * param).

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: weights of the old running means.
        eps: added to the root.
        weight_decay: how much parameters shrink in each step, as a part of `lr`.

    Source:
        Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    """

    _decoupled = True

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
