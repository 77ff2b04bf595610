"""Pooling layers: (N, C, H, W) to (N, C, OH, OW)."""

from __future__ import annotations

from typing import Any

import mgec.functional as F
from mgec.core.tensor import Tensor
from mgec.functional._arguments import check_choice, pair
from mgec.module.module import Module

__all__ = ["AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "MaxPool2d"]

Pair = int | tuple[int, int]


class _Pool2d(Module):
    """Kernel size, stride and padding of a pooling."""

    def __init__(
        self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.kernel_size = pair(name, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair(name, "stride", stride)
        self.padding = pair(name, "padding", padding)

    def _module_info_string(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool2d):
    """The largest element of every window; see `mgec.functional.max_pool2d`.

    Args:
        kernel_size: size of the windows.
        stride: distance between them; their size by default.
        padding: rows and columns around the image, which never win.

    Example:
        >>> import mgec as mge
        >>> mge.module.MaxPool2d(2)(mge.functional.ones((1, 1, 4, 6))).shape
        (1, 1, 2, 3)
    """

    def forward(self, inp: Tensor) -> Tensor:
        return F.max_pool2d(inp, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool2d):
    """The mean of every window; see `mgec.functional.avg_pool2d`.

    Args:
        kernel_size: size of the windows.
        stride: distance between them; their size by default.
        padding: rows and columns of zeros around the image.
        mode: "average_count_exclude_padding" or "average".
    """

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        mode: str = "average_count_exclude_padding",
        **kwargs: Any,
    ) -> None:
        modes = ("average_count_exclude_padding", "average")
        check_choice("AvgPool2d", "mode", mode, modes)
        super().__init__(kernel_size, stride, padding, **kwargs)
        self.mode = mode

    def forward(self, inp: Tensor) -> Tensor:
        return F.avg_pool2d(inp, self.kernel_size, self.stride, self.padding, self.mode)


class AdaptiveAvgPool2d(Module):
    """Means of windows that give a chosen size; see `mgec.functional.adaptive_avg_pool2d`.

    Args:
        oshp: height and width of the result.
    """

    def __init__(self, oshp: Pair, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.oshp = pair("AdaptiveAvgPool2d", "oshp", oshp)

    def forward(self, inp: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(inp, self.oshp)

    def _module_info_string(self) -> str:
        return f"oshp={self.oshp}"


class AdaptiveMaxPool2d(Module):
    """Largest elements of windows that give a chosen size; see `AdaptiveAvgPool2d`.

    Args:
        oshp: height and width of the result.
    """

    def __init__(self, oshp: Pair, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.oshp = pair("AdaptiveMaxPool2d", "oshp", oshp)

    def forward(self, inp: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(inp, self.oshp)

    def _module_info_string(self) -> str:
        return f"oshp={self.oshp}"
