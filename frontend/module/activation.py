"""Activations as layers; see the functions of the same names."""

from __future__ import annotations

from typing import Any

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.module._arguments import empty, positive
from mgec.module.init import fill_
from mgec.module.module import Module

__all__ = [
    "GELU",
    "HSigmoid",
    "HSwish",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class GELU(Module):
    """x * (1 + erf(x / sqrt(2))) / 2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class HSigmoid(Module):
    """relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        return F.hsigmoid(x)


class HSwish(Module):
    """x * relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        return F.hswish(x)


class Softplus(Module):
    """log(1 + exp(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


class LogSigmoid(Module):
    """log(sigmoid(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.logsigmoid(x)


class Softmax(Module):
    """exp(x) / sum(exp(x)) along an axis.

    Args:
        axis: the axis that adds up to 1; see `mgec.functional.softmax` for the default.
    """

    def __init__(self, axis: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, axis=self.axis)

    def _module_info_string(self) -> str:
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """log(softmax(x)) along an axis.

    Args:
        axis: the axis.
    """

    def __init__(self, axis: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return F.logsoftmax(x, self.axis)

    def _module_info_string(self) -> str:
        return f"axis={self.axis}"


class LeakyReLU(Module):
    """x where it is positive, negative_slope * x elsewhere.

    Args:
        negative_slope: the slope.
    """

    def __init__(self, negative_slope: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.negative_slope)

    def _module_info_string(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x where it is positive, weight * x elsewhere, with a learned weight.

    Args:
        num_parameters: 1 slope for all channels, or one for each.
        init: the first value of the slopes.

    Attributes:
        weight: (1,), or (1, C, 1, 1).
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_parameters = positive("PReLU", "num_parameters", num_parameters)
        shape = (1,) if num_parameters == 1 else (1, num_parameters, 1, 1)
        self.weight = Parameter(empty(shape))
        fill_(self.weight, init)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.weight)

    def _module_info_string(self) -> str:
        return f"num_parameters={self.num_parameters}"
