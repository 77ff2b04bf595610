"""Adagrad and Adadelta."""

from __future__ import annotations

from typing import Any

import numpy as np

from mgec.functional.elemwise import sqrt
from mgec.optimizer.optimizer import Group, Optimizer, assign, check_hyper

__all__ = ["Adadelta", "Adagrad"]


class Adagrad(Optimizer):
    """Adagrad: directions with large gradients so far get small steps.

    grad += weight_decay * param; s += grad**2;
    param -= lr / (1 + (step - 1) * lr_decay) * grad / (sqrt(s) + eps).

    Args:
        params: parameters or groups.
        lr: learning rate.
        lr_decay: how fast the learning rate falls.
        eps: added to the root.
        weight_decay: weight of the penalty on large parameters.

    Source:
        Duchi et al., "Adaptive subgradient methods for online learning and stochastic
        optimization", 2011.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}
        for argument, value in settings.items():
            check_hyper("Adagrad", argument, value)
        super().__init__(params, settings)

    def _create_state(self, param_group: Group) -> None:
        for p in param_group["params"]:
            self._add_state(p, "square_avg")
            self._add_state(p, "step", np.zeros((), np.float32))

    def _updates(self, param_group: Group) -> None:
        lr, lr_decay = self._scalar("lr", param_group), self._scalar("lr_decay", param_group)
        weight_decay = self._scalar("weight_decay", param_group)
        for p in param_group["params"]:
            if p.grad is None:
                continue
            grad = p.grad + p * weight_decay
            step, square = self._state[id(p)]["step"], self._state[id(p)]["square_avg"]
            new_square = square + grad * grad
            rate = lr / (step * lr_decay + 1.0)
            assign(step, step + 1.0)
            assign(square, new_square)
            assign(p, p - grad / (sqrt(new_square) + param_group["eps"]) * rate)


class Adadelta(Optimizer):
    """Adadelta: Adagrad with running means, and steps in the units of the parameters.

    grad += weight_decay * param; v = rho * v + (1 - rho) * grad**2;
    delta = sqrt(u + eps) / sqrt(v + eps) * grad; u = rho * u + (1 - rho) * delta**2;
    param -= lr * delta.

    Args:
        params: parameters or groups.
        lr: factor of the steps.
        rho: weight of the old running means.
        eps: added below the roots.
        weight_decay: weight of the penalty on large parameters.

    Source:
        Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        check_hyper("Adadelta", "rho", rho, 0.0, 1.0)
        settings = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
        for argument, value in settings.items():
            check_hyper("Adadelta", argument, value)
        super().__init__(params, {**settings, "rho": rho})

    def _create_state(self, param_group: Group) -> None:
        for p in param_group["params"]:
            self._add_state(p, "square_avg")
            self._add_state(p, "acc_delta")

    def _updates(self, param_group: Group) -> None:
        lr, weight_decay = (
            self._scalar("lr", param_group),
            self._scalar("weight_decay", param_group),
        )
        rho, eps = param_group["rho"], param_group["eps"]
        for p in param_group["params"]:
            if p.grad is None:
                continue
            grad = p.grad + p * weight_decay
            square, moved = self._state[id(p)]["square_avg"], self._state[id(p)]["acc_delta"]
            new_square = square * rho + grad * grad * (1.0 - rho)
            delta = sqrt(moved + eps) / sqrt(new_square + eps) * grad
            assign(square, new_square)
            assign(moved, moved * rho + delta * delta * (1.0 - rho))
            assign(p, p - delta * lr)
