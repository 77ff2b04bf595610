"""Convolution layers."""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import mgec.functional as F
from mgec.core.tensor import Parameter, Tensor
from mgec.errors import ArgumentError
from mgec.functional._arguments import as_index, check_choice, pair, triple
from mgec.module import init
from mgec.module._arguments import empty, positive
from mgec.module.module import Module

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvBn2d",
    "ConvBnRelu2d",
    "ConvRelu2d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "ConvTransposeBn2d",
    "ConvTransposeBnRelu2d",
    "ConvTransposeRelu2d",
]

Pair = int | tuple[int, int]
Triple = int | tuple[int, int, int]


class _Conv(Module):
    """What the convolutions share: sizes, weight, bias, first values."""

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, ...],
        groups: int,
        bias: bool,
        conv_mode: str,
        compute_mode: str,
        transposed: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.in_channels = positive(name, "in_channels", in_channels)
        self.out_channels = positive(name, "out_channels", out_channels)
        self.kernel_size = tuple(positive(name, "kernel_size", size) for size in kernel_size)
        self.groups = positive(name, "groups", groups)
        self.conv_mode = conv_mode
        self.compute_mode = compute_mode
        for argument, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ArgumentError(
                    f"{name}: {groups} groups do not divide {argument} {channels}",
                    fix=f"make {argument} a multiple of groups",
                )
        first, second = out_channels // groups, in_channels // groups
        if transposed:
            first, second = second, first
        lead = (groups,) if groups > 1 else ()
        self.weight = Parameter(empty((*lead, first, second, *kernel_size)))
        ones = (1,) * len(kernel_size)
        self.bias = Parameter(empty((1, out_channels, *ones))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values again."""
        fan_in = prod(self.kernel_size) * self.in_channels // self.groups
        init.normal_(self.weight, 0.0, sqrt(1.0 / fan_in))
        if self.bias is not None:
            init.zeros_(self.bias)

    def _module_info_string(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        for name in ("stride", "padding", "output_padding", "dilation"):
            if hasattr(self, name):
                parts.append(f"{name}={getattr(self, name)}")
        if self.groups > 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class Conv2d(_Conv):
    """2-D convolution of images; see `mgec.functional.conv2d`.

    Args:
        in_channels: C of the input.
        out_channels: O of the output.
        kernel_size: size of the windows.
        stride: distance between windows.
        padding: rows and columns around the image.
        dilation: distance between the taps of a window.
        groups: channels fall into groups that do not mix.
        bias: whether there is one.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32".
        padding_mode: "zeros", "reflect" or "replicate".

    Attributes:
        weight: (O, C, kH, kW), or with groups (G, O/G, C/G, kH, kW); normal with standard
            deviation sqrt(1 / fan_in) at first.
        bias: (1, O, 1, 1), 0 at first, or None.

    Shape:
        (N, C, H, W) to (N, O, OH, OW)

    Example:
        >>> import mgec as mge
        >>> conv = mge.module.Conv2d(3, 8, 3, padding=1)
        >>> conv(mge.functional.ones((2, 3, 5, 5))).shape
        (2, 8, 5, 5)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        conv_mode: str = "cross_correlation",
        compute_mode: str = "default",
        padding_mode: str = "zeros",
        **kwargs: Any,
    ) -> None:
        check_choice("Conv2d", "padding_mode", padding_mode, ("zeros", "reflect", "replicate"))
        kernel = pair("Conv2d", "kernel_size", kernel_size)
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            groups,
            bias,
            conv_mode,
            compute_mode,
            False,
            **kwargs,
        )
        self.stride = pair("Conv2d", "stride", stride)
        self.padding = pair("Conv2d", "padding", padding)
        self.dilation = pair("Conv2d", "dilation", dilation)
        self.padding_mode = padding_mode

    def calc_conv(self, inp: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with other weights."""
        padding = self.padding
        if self.padding_mode != "zeros":
            (rows, columns), padding = padding, (0, 0)
            around = ((0, 0), (0, 0), (rows, rows), (columns, columns))
            inp = F.pad(inp, around, self.padding_mode)
        return F.conv2d(
            inp,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            self.conv_mode,
            self.compute_mode,
        )

    def forward(self, inp: Tensor) -> Tensor:
        return self.calc_conv(inp, self.weight, self.bias)


class Conv1d(_Conv):
    """1-D convolution; see `Conv2d`.

    Attributes:
        weight: (O, C, k), or with groups (G, O/G, C/G, k).
        bias: (1, O, 1), or None.

    Shape:
        (N, C, L) to (N, O, OL)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        conv_mode: str = "cross_correlation",
        compute_mode: str = "default",
        padding_mode: str = "zeros",
        **kwargs: Any,
    ) -> None:
        check_choice("Conv1d", "padding_mode", padding_mode, ("zeros", "reflect", "replicate"))
        kernel = (positive("Conv1d", "kernel_size", kernel_size),)
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            groups,
            bias,
            conv_mode,
            compute_mode,
            False,
            **kwargs,
        )
        self.stride = as_index("Conv1d", "stride", stride)
        self.padding = as_index("Conv1d", "padding", padding)
        self.dilation = as_index("Conv1d", "dilation", dilation)
        self.padding_mode = padding_mode

    def forward(self, inp: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            inp = F.pad(inp, ((0, 0), (0, 0), (padding, padding)), self.padding_mode)
            padding = 0
        return F.conv1d(
            inp,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            self.conv_mode,
            self.compute_mode,
        )


class Conv3d(_Conv):
    """3-D convolution of volumes; see `Conv2d`.

    Attributes:
        weight: (O, C, kD, kH, kW), or with groups (G, O/G, C/G, kD, kH, kW).
        bias: (1, O, 1, 1, 1), or None.

    Shape:
        (N, C, D, H, W) to (N, O, OD, OH, OW)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        stride: Triple = 1,
        padding: Triple = 0,
        dilation: Triple = 1,
        groups: int = 1,
        bias: bool = True,
        conv_mode: str = "cross_correlation",
        **kwargs: Any,
    ) -> None:
        kernel = triple("Conv3d", "kernel_size", kernel_size)
        super().__init__(
            in_channels,
            out_channels,
            kernel,
            groups,
            bias,
            conv_mode,
            "default",
            False,
            **kwargs,
        )
        self.stride = triple("Conv3d", "stride", stride)
        self.padding = triple("Conv3d", "padding", padding)
        self.dilation = triple("Conv3d", "dilation", dilation)

    def forward(self, inp: Tensor) -> Tensor:
        return F.conv3d(
            inp,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.conv_mode,
        )


class ConvTranspose2d(_Conv):
    """The gradient of a convolution as a layer; see `mgec.functional.conv_transpose2d`.

    Args:
        in_channels: C of the input.
        out_channels: O of the output.
        kernel_size: size of the windows.
        stride: of the convolution that this reverses.
        padding: of the convolution that this reverses.
        dilation: of the convolution that this reverses.
        groups: channels fall into groups that do not mix.
        bias: whether there is one.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32".
        output_padding: rows and columns added to one side of the result.

    Attributes:
        weight: (C, O, kH, kW), or with groups (G, C/G, O/G, kH, kW).
        bias: (1, O, 1, 1), or None.

    Shape:
        (N, C, H, W) to (N, O, OH, OW)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        conv_mode: str = "cross_correlation",
        compute_mode: str = "default",
        output_padding: Pair = 0,
        **kwargs: Any,
    ) -> None:
        name = "ConvTranspose2d"
        kernel = pair(name, "kernel_size", kernel_size)
        super().__init__(
            in_channels, out_channels, kernel, groups, bias, conv_mode, compute_mode, True, **kwargs
        )
        self.stride = pair(name, "stride", stride)
        self.padding = pair(name, "padding", padding)
        self.dilation = pair(name, "dilation", dilation)
        self.output_padding = pair(name, "output_padding", output_padding)

    def forward(self, inp: Tensor) -> Tensor:
        return F.conv_transpose2d(
            inp,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.dilation,
            self.groups,
            self.conv_mode,
            self.compute_mode,
        )


class ConvTranspose3d(_Conv):
    """The gradient of a 3-D convolution as a layer; see `ConvTranspose2d`.

    Attributes:
        weight: (C, O, kD, kH, kW), or with groups (G, C/G, O/G, kD, kH, kW).
        bias: (1, O, 1, 1, 1), or None.

    Shape:
        (N, C, D, H, W) to (N, O, OD, OH, OW)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple,
        stride: Triple = 1,
        padding: Triple = 0,
        output_padding: Triple = 0,
        dilation: Triple = 1,
        groups: int = 1,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        name = "ConvTranspose3d"
        kernel = triple(name, "kernel_size", kernel_size)
        mode = "cross_correlation"
        super().__init__(
            in_channels, out_channels, kernel, groups, bias, mode, "default", True, **kwargs
        )
        self.stride = triple(name, "stride", stride)
        self.padding = triple(name, "padding", padding)
        self.output_padding = triple(name, "output_padding", output_padding)
        self.dilation = triple(name, "dilation", dilation)

    def forward(self, inp: Tensor) -> Tensor:
        return F.conv_transpose3d(
            inp,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.dilation,
            self.groups,
        )


class ConvRelu2d(Conv2d):
    """`Conv2d`, then ReLU."""

    def forward(self, inp: Tensor) -> Tensor:
        return F.relu(super().forward(inp))


class ConvTransposeRelu2d(ConvTranspose2d):
    """`ConvTranspose2d`, then ReLU."""

    def forward(self, inp: Tensor) -> Tensor:
        return F.relu(super().forward(inp))


class ConvBn2d(Module):
    """`Conv2d`, then `BatchNorm2d`, as the attributes `conv` and `bn`.

    Args:
        in_channels: C of the input.
        out_channels: O of the output.
        kernel_size: size of the windows.
        stride: distance between windows.
        padding: rows and columns around the image.
        dilation: distance between the taps of a window.
        groups: channels fall into groups that do not mix.
        bias: whether the convolution has one.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32".
        eps: of the normalization.
        momentum: of the normalization.
        affine: of the normalization.
        track_running_stats: of the normalization.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        conv_mode: str = "cross_correlation",
        compute_mode: str = "default",
        eps: float = 1e-5,
        momentum: float = 0.9,
        affine: bool = True,
        track_running_stats: bool = True,
        **kwargs: Any,
    ) -> None:
        from mgec.module.batchnorm import BatchNorm2d

        super().__init__(**kwargs)
        self.conv = Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            conv_mode,
            compute_mode,
        )
        self.bn = BatchNorm2d(out_channels, eps, momentum, affine, track_running_stats)

    def forward(self, inp: Tensor) -> Tensor:
        return self.bn(self.conv(inp))


class ConvBnRelu2d(ConvBn2d):
    """`ConvBn2d`, then ReLU."""

    def forward(self, inp: Tensor) -> Tensor:
        return F.relu(super().forward(inp))


class ConvTransposeBn2d(Module):
    """`ConvTranspose2d`, then `BatchNorm2d`, as the attributes `conv_transpose2d` and `bn`.

    Args:
        in_channels: C of the input.
        out_channels: O of the output.
        kernel_size: size of the windows.
        stride: of the convolution that this reverses.
        padding: of the convolution that this reverses.
        dilation: of the convolution that this reverses.
        groups: channels fall into groups that do not mix.
        bias: whether the convolution has one.
        conv_mode: "cross_correlation" is the only one.
        compute_mode: "default" or "float32".
        eps: of the normalization.
        momentum: of the normalization.
        affine: of the normalization.
        track_running_stats: of the normalization.
        output_padding: rows and columns added to one side of the result.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        conv_mode: str = "cross_correlation",
        compute_mode: str = "default",
        eps: float = 1e-5,
        momentum: float = 0.9,
        affine: bool = True,
        track_running_stats: bool = True,
        output_padding: Pair = 0,
        **kwargs: Any,
    ) -> None:
        from mgec.module.batchnorm import BatchNorm2d

        super().__init__(**kwargs)
        self.conv_transpose2d = ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            conv_mode,
            compute_mode,
            output_padding,
        )
        self.bn = BatchNorm2d(out_channels, eps, momentum, affine, track_running_stats)

    def forward(self, inp: Tensor) -> Tensor:
        return self.bn(self.conv_transpose2d(inp))


class ConvTransposeBnRelu2d(ConvTransposeBn2d):
    """`ConvTransposeBn2d`, then ReLU."""

    def forward(self, inp: Tensor) -> Tensor:
        return F.relu(super().forward(inp))
