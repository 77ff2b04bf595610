"""Convolutions over one to three spatial axes: what the functions of `nn` share.

Weights of a convolution are (O, I, *kernel), or with groups (G, O/G, I/G, *kernel), and its
bias is (1, O, 1, ...), as in MegEngine.
"""

from __future__ import annotations

from typing import Any

from mgec.core import dispatch
from mgec.core.promote import operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, ShapeError
from mgec.functional._arguments import (
    as_index,
    as_tensor,
    check_choice,
    check_rank,
    per_axis,
)
from mgec.functional.tensor import reshape

COMPUTE_MODES = ("default", "float32")
_LETTERS = {1: "L", 2: "HW", 3: "DHW"}


def both_sides(padding: tuple[int, ...]) -> tuple[int, ...]:
    """(height, width) as (top, bottom, left, right)."""
    return tuple(p for p in padding for _ in range(2))


def image_role(axes: int) -> str:
    """What the axes of an image mean: "(N, C, H, W)"."""
    return f"(N, C, {', '.join(_LETTERS[axes])})"


def _kernel_role(axes: int) -> str:
    return ", ".join(f"k{letter}" for letter in _LETTERS[axes])


def _folded(name: str, weight: Tensor, axes: int, groups: int, role: str) -> Tensor:
    """The weight with the groups folded into its first channels."""
    if groups == 1 and weight.ndim == axes + 2:
        return weight
    role = f"(G, {role}, {_kernel_role(axes)})"
    check_rank(name, "weight", weight, (axes + 3,), f"{role} for {groups} groups")
    if weight.shape[0] != groups:
        raise ShapeError(
            f"{name}: weight has {weight.shape[0]} groups but groups is {groups}",
            values=[("weight", weight, role)],
            fix="make weight.shape[0] equal groups",
        )
    return reshape(weight, (weight.shape[0] * weight.shape[1], *weight.shape[2:]))


def _biased(name: str, out: Tensor, bias: Any) -> Tensor:
    if bias is None:
        return out
    b, ones = as_tensor(name, bias), (1,) * (out.ndim - 2)
    if b.ndim == 1:
        b = reshape(b, (1, b.shape[0], *ones))
    if b.ndim != out.ndim or b.shape[1] not in (1, out.shape[1]) or b.shape[2:] != ones:
        channels = f"(1, O{', 1' * len(ones)})"
        raise ShapeError(
            f"{name}: bias has shape {b.shape} but the result has {out.shape[1]} channels",
            values=[
                ("bias", b, channels),
                (
                    "out",
                    out,
                    f"(N, O, {', '.join(f'O{letter}' for letter in _LETTERS[len(ones)])})",
                ),
            ],
            fix=f"give bias the shape {(1, out.shape[1], *ones)}",
        )
    return out + b


def convolve(
    axes: int,
    inp: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    conv_mode: str,
    compute_mode: str,
) -> Tensor:
    """`conv1d`, `conv2d` or `conv3d`, whose arguments these are, by the number of axes."""
    name = f"conv{axes}d"
    check_choice(name, "conv_mode", conv_mode, ("cross_correlation",))
    check_choice(name, "compute_mode", compute_mode, COMPUTE_MODES)
    count = as_index(name, "groups", groups)
    x, w = operands(name, (inp, weight))
    check_rank(name, "inp", x, (axes + 2,), image_role(axes))
    out = dispatch.call(
        "conv",
        x,
        _folded(name, w, axes, count, "O/G, I/G"),
        stride=per_axis(name, "stride", stride, axes),
        padding=both_sides(per_axis(name, "padding", padding, axes)),
        dilation=per_axis(name, "dilation", dilation, axes),
        groups=count,
    )
    return _biased(name, out, bias)


def convolve_transposed(
    axes: int,
    inp: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: Any,
    conv_mode: str,
    compute_mode: str,
) -> Tensor:
    """`conv_transpose2d` or `conv_transpose3d`, whose arguments these are."""
    name, role = f"conv_transpose{axes}d", image_role(axes)
    check_choice(name, "conv_mode", conv_mode, ("cross_correlation",))
    check_choice(name, "compute_mode", compute_mode, COMPUTE_MODES)
    count = as_index(name, "groups", groups)
    x, w = operands(name, (inp, weight))
    check_rank(name, "inp", x, (axes + 2,), role)
    w = _folded(name, w, axes, count, "I/G, O/G")
    weight_role = f"(I, O/G, {_kernel_role(axes)})"
    if x.shape[1] != w.shape[0]:
        raise ShapeError(
            f"{name}: input has {x.shape[1]} channels but weight expects {w.shape[0]}",
            values=[("inp", x, role), ("weight", w, f"{weight_role}, groups folded")],
            fix="make inp.shape[1] equal the input channels of the weight",
        )
    strides, pads = per_axis(name, "stride", stride, axes), per_axis(name, "padding", padding, axes)
    dilations = per_axis(name, "dilation", dilation, axes)
    extra = per_axis(name, "output_padding", output_padding, axes)
    for more, step, tap in zip(extra, strides, dilations, strict=True):
        if not 0 <= more < max(step, tap):
            raise ArgumentError(
                f"{name}: output_padding is {extra} but must be below stride {strides} "
                f"or dilation {dilations}",
                fix="use a smaller output_padding",
            )
    size = tuple(
        (x.shape[2 + i] - 1) * strides[i]
        - 2 * pads[i]
        + dilations[i] * (w.shape[2 + i] - 1)
        + extra[i]
        + 1
        for i in range(axes)
    )
    if min(size) < 1:
        raise ShapeError(
            f"{name}: the result would have size {size}",
            values=[("inp", x, role), ("weight", w, weight_role)],
            fix="use less padding",
        )
    out = dispatch.call(
        "conv_dgrad",
        x,
        w,
        stride=strides,
        padding=both_sides(pads),
        dilation=dilations,
        groups=count,
        input_size=size,
    )
    return _biased(name, out, bias)
