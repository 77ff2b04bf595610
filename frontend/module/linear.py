"""Fully connected layers."""

from __future__ import annotations

from math import sqrt
from typing import Any

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.module import init
from mgec.module._arguments import empty, positive
from mgec.module.module import Module

__all__ = ["Linear"]


class Linear(Module):
    """x @ weight.T + bias.

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether there is one.
        compute_mode: see `mgec.functional.linear`.

    Attributes:
        weight: (out_features, in_features), normal with standard deviation
            sqrt(1 / in_features) at first.
        bias: (out_features,), 0 at first, or None.

    Shape:
        (..., in_features) to (..., out_features)

    Example:
        >>> import mgec as mge
        >>> mge.module.Linear(3, 2)(mge.functional.ones((4, 3))).shape
        (4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        compute_mode: str = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.in_features = positive("Linear", "in_features", in_features)
        self.out_features = positive("Linear", "out_features", out_features)
        self.compute_mode = compute_mode
        self.weight = Parameter(empty((out_features, in_features)))
        self.bias = Parameter(empty((out_features,))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values again."""
        init.normal_(self.weight, 0.0, sqrt(1.0 / self.in_features))
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias, self.compute_mode)

    def _module_info_string(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
