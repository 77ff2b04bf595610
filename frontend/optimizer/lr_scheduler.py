"""Learning rates that change over time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

from mgec.errors import ArgumentError
from mgec.optimizer.optimizer import Optimizer

__all__ = ["LRScheduler", "MultiStepLR"]


class LRScheduler(ABC):
    """Base of the schedulers: `step()` once in each epoch sets "lr" of every group.

    Args:
        optimizer: whose learning rates to change.
        current_epoch: the last epoch that was done; -1 to begin.
    """

    def __init__(self, optimizer: Optimizer, current_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"{type(self).__name__}: {type(optimizer).__name__} is not an optimizer",
                fix="pass the optimizer",
            )
        self.optimizer = optimizer
        self.current_epoch = current_epoch
        for group in optimizer.param_groups:
            if current_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"{type(self).__name__}: a group has no 'initial_lr' to go on from",
                    fix="load the optimizer's state first",
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    @abstractmethod
    def get_lr(self) -> list[float]:
        """The learning rate of each group in `current_epoch`."""

    def step(self, epoch: int | None = None) -> None:
        """Goes to the next epoch, or to a given one."""
        self.current_epoch = self.current_epoch + 1 if epoch is None else epoch
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets what `state_dict` returned."""
        vars(self).update(state_dict)


class MultiStepLR(LRScheduler):
    """Multiplies the learning rate by `gamma` at each milestone.

    Args:
        optimizer: whose learning rates to change.
        milestones: epochs, ascending.
        gamma: the factor.
        current_epoch: the last epoch that was done; -1 to begin.

    Raises:
        ArgumentError: if the milestones do not ascend.

    Example:
        >>> import mgec as mge
        >>> optimizer = mge.optimizer.SGD([mge.Parameter([1.0])], lr=1.0)
        >>> scheduler = mge.optimizer.MultiStepLR(optimizer, [2], gamma=0.5)
        >>> rates = []
        >>> for epoch in range(3):
        ...     rates.append(optimizer.param_groups[0]["lr"])
        ...     scheduler.step()
        >>> rates
        [1.0, 1.0, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        current_epoch: int = -1,
    ) -> None:
        self.milestones = list(milestones)
        if self.milestones != sorted(self.milestones):
            raise ArgumentError(
                f"MultiStepLR: milestones {self.milestones} do not ascend", fix="sort them"
            )
        self.gamma = gamma
        super().__init__(optimizer, current_epoch)

    def get_lr(self) -> list[float]:
        passed = bisect_right(self.milestones, self.current_epoch)
        return [lr * self.gamma**passed for lr in self.base_lrs]
