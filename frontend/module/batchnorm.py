"""Batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError
from mgec.functional._arguments import check_rank
from mgec.module import init
from mgec.module._arguments import empty, positive
from mgec.module.module import Module

__all__ = ["BatchNorm1d", "BatchNorm2d"]


class _BatchNorm(Module):
    """What the batch normalizations share."""

    _ranks: Sequence[int]
    _role: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.9,
        affine: bool = True,
        track_running_stats: bool = True,
        freeze: bool = False,
        compute_mode: str = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_features = positive(type(self).__name__, "num_features", num_features)
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.freeze = freeze
        self.compute_mode = compute_mode
        if freeze and not track_running_stats:
            raise ArgumentError(
                f"{type(self).__name__}: freeze is True but track_running_stats is False",
                fix="a frozen normalization needs running statistics",
            )
        shape = (1, num_features, 1, 1)
        self.weight = Parameter(np.ones(shape, np.float32)) if affine else None
        self.bias = Parameter(empty(shape)) if affine else None
        self.running_mean = Tensor(empty(shape)) if track_running_stats else None
        self.running_var = Tensor(np.ones(shape, np.float32)) if track_running_stats else None

    def reset_running_stats(self) -> None:
        """Sets the running statistics to 0 and 1."""
        if self.running_mean is not None and self.running_var is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)

    def reset_parameters(self) -> None:
        """Sets parameters and statistics to their first values."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, inp: Tensor) -> Tensor:
        check_rank(type(self).__name__, "inp", inp, self._ranks, self._role)
        use_batch = (self.training and not self.freeze) or self.running_mean is None
        return F.batch_norm(
            inp,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=use_batch,
            momentum=self.momentum,
            eps=self.eps,
            compute_mode=self.compute_mode,
        )

    def _module_info_string(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Normalizes each feature over the batch; arguments and attributes as in `BatchNorm2d`.

    Shape:
        (N, C) or (N, C, L), kept.
    """

    _ranks = (2, 3)
    _role = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Normalizes each channel over the batch; see `mgec.functional.batch_norm`.

    Args:
        num_features: C of the input.
        eps: added to the variance.
        momentum: weight of the *old* running statistic.
        affine: whether to scale and shift.
        track_running_stats: keep running statistics for inference.
        freeze: always use the running statistics, and never update them.

    Attributes:
        weight: (1, C, 1, 1), 1 at first, or None.
        bias: (1, C, 1, 1), 0 at first, or None.
        running_mean: (1, C, 1, 1) buffer, 0 at first, or None.
        running_var: (1, C, 1, 1) buffer, 1 at first, or None; of the unbiased variance.

    Shape:
        (N, C, H, W), kept.
    """

    _ranks = (4,)
    _role = "(N, C, H, W)"
