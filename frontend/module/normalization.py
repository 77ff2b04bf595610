"""Normalizations that do not look at the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError
from mgec.functional._arguments import as_shape
from mgec.module import init
from mgec.module._arguments import empty, positive
from mgec.module.module import Module

__all__ = ["GeneralNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "LocalResponseNorm"]


class _Affine(Module):
    """A normalization with a scale and a shift of one shape, or without."""

    def __init__(self, shape: tuple[int, ...], eps: float, affine: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.eps = eps
        self.affine = affine
        self.weight = Parameter(np.ones(shape, np.float32)) if affine else None
        self.bias = Parameter(empty(shape)) if affine else None

    def reset_parameters(self) -> None:
        """Sets the scale to 1 and the shift to 0."""
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)


class LayerNorm(_Affine):
    """Normalizes over the last axes; see `mgec.functional.layer_norm`.

    Args:
        normalized_shape: sizes of the last axes, which are normalized together.
        eps: added to the variance.
        affine: whether to scale and shift.

    Attributes:
        weight: tensor of `normalized_shape`, 1 at first, or None.
        bias: tensor of `normalized_shape`, 0 at first, or None.

    Shape:
        (*, *normalized_shape), kept.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        affine: bool = True,
        **kwargs: Any,
    ) -> None:
        shape = as_shape("LayerNorm", normalized_shape, "normalized_shape")
        super().__init__(shape, eps, affine, **kwargs)
        self.normalized_shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.affine, self.weight, self.bias, self.eps)

    def _module_info_string(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, affine={self.affine}"


class GroupNorm(_Affine):
    """Normalizes groups of channels; see `mgec.functional.group_norm`.

    Args:
        num_groups: how many groups; divides `num_channels`.
        num_channels: C of the input.
        eps: added to the variance.
        affine: whether to scale and shift.

    Attributes:
        weight: (C,), 1 at first, or None.
        bias: (C,), 0 at first, or None.

    Shape:
        (N, C, ...), kept.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        **kwargs: Any,
    ) -> None:
        groups = positive("GroupNorm", "num_groups", num_groups)
        channels = positive("GroupNorm", "num_channels", num_channels)
        if channels % groups:
            raise ArgumentError(
                f"GroupNorm: {groups} groups do not divide {channels} channels",
                fix="use a number of groups that divides the channels",
            )
        super().__init__((channels,), eps, affine, **kwargs)
        self.num_groups, self.num_channels = groups, channels

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.num_groups, self.affine, self.weight, self.bias, self.eps)

    def _module_info_string(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class InstanceNorm(_Affine):
    """Normalizes each channel of each sample; see `mgec.functional.instance_norm`.

    Args:
        num_channels: C of the input.
        eps: added to the variance.
        affine: whether to scale and shift.

    Attributes:
        weight: (C,), 1 at first, or None.
        bias: (C,), 0 at first, or None.

    Shape:
        (N, C, ...), kept.
    """

    def __init__(
        self, num_channels: int, eps: float = 1e-5, affine: bool = True, **kwargs: Any
    ) -> None:
        channels = positive("InstanceNorm", "num_channels", num_channels)
        super().__init__((channels,), eps, affine, **kwargs)
        self.num_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, self.affine, self.weight, self.bias, self.eps)

    def _module_info_string(self) -> str:
        return f"{self.num_channels}, eps={self.eps}, affine={self.affine}"


class GeneralNorm(_Affine):
    """Normalizes over any axes; see `mgec.functional.general_norm`.

    Args:
        normalized_shape: sizes of the axes that are normalized together.
        normalized_axis: those axes.
        eps: added to the variance.
        affine: whether to scale and shift.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        normalized_axis: int | Sequence[int] = 0,
        eps: float = 1e-5,
        affine: bool = True,
        **kwargs: Any,
    ) -> None:
        shape = as_shape("GeneralNorm", normalized_shape, "normalized_shape")
        super().__init__(shape, eps, affine, **kwargs)
        self.normalized_shape = shape
        self.normalized_axis = as_shape("GeneralNorm", normalized_axis, "normalized_axis")

    def forward(self, x: Tensor) -> Tensor:
        return F.general_norm(
            x, self.normalized_axis, self.affine, self.weight, self.bias, self.eps
        )


class LocalResponseNorm(Module):
    """Divides by the size of neighbouring channels; see `mgec.functional.local_response_norm`.

    Args:
        kernel_size: how many channels are summed; odd.
        k: added to the sum.
        alpha: weight of the sum.
        beta: exponent.

    Shape:
        (N, C, H, W), kept.
    """

    def __init__(
        self,
        kernel_size: int = 5,
        k: float = 2.0,
        alpha: float = 1e-4,
        beta: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size, self.k, self.alpha, self.beta = kernel_size, k, alpha, beta

    def forward(self, inp: Tensor) -> Tensor:
        return F.local_response_norm(inp, self.kernel_size, self.k, self.alpha, self.beta)
