"""Functions of images, (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgec.core import dispatch
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError
from mgec.functional._arguments import (
    as_float_tensor,
    as_tensor,
    axes_of,
    check_choice,
    check_rank,
    pair,
)
from mgec.functional.tensor import swapaxes, take

__all__ = ["flip", "interpolate", "rot90"]


def flip(inp: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Reverses the order of elements along axes; all axes by default."""
    x = as_tensor("flip", inp)
    return dispatch.call("reverse", x, axes=axes_of("flip", axis, x.ndim))


def rot90(inp: Any, k: int = 1, axes: Sequence[int] = (2, 3)) -> Tensor:
    """Turns an image by 90 degrees, `k` times, from the first axis towards the second."""
    x = as_tensor("rot90", inp)
    first, second = axes
    axes_of("rot90", tuple(axes), x.ndim)
    turns = k % 4
    if turns == 2:
        return flip(x, tuple(axes))
    if turns == 1:
        return swapaxes(flip(x, second), first, second)
    return flip(swapaxes(x, first, second), second) if turns == 3 else x


def interpolate(
    inp: Any,
    size: int | tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "bilinear",
    align_corners: bool | None = None,
) -> Tensor:
    """Resizes images.

    Args:
        inp: (N, C, H, W)
        size: height and width of the result.
        scale_factor: factor for the sizes, if `size` is not given.
        mode: "bilinear" or "nearest".
        align_corners: whether the centres of the corner pixels stay where they are; False by
            default, and bilinear only.

    Returns:
        (N, C, OH, OW)

    Raises:
        ArgumentError: unless exactly one of `size` and `scale_factor` is given.
    """
    name = "interpolate"
    check_choice(name, "mode", mode, ("bilinear", "nearest"))
    x = as_float_tensor(name, inp)
    check_rank(name, "inp", x, (4,), "(N, C, H, W)")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(
            f"{name}: give either size or scale_factor", fix="leave one of the two out"
        )
    if size is not None:
        sizes = pair(name, "size", size)
    else:
        factors = scale_factor if isinstance(scale_factor, tuple) else (scale_factor,) * 2
        sizes = tuple(int(d * f) for d, f in zip(x.shape[2:], factors, strict=True))  # type: ignore[operator]
    if min(sizes) < 1:
        raise ArgumentError(f"{name}: the result would have size {sizes}", fix="use sizes >= 1")
    for axis, count in enumerate(sizes, start=2):
        x = _resize(x, axis, count, mode, bool(align_corners))
    return x


def _resize(x: Tensor, axis: int, count: int, mode: str, align_corners: bool) -> Tensor:
    """Resizes one axis. Places and weights depend on sizes only, so they are constants."""
    size = x.shape[axis]
    if size == count:
        return x
    if mode == "nearest":
        return take(x, [i * size // count for i in range(count)], axis)
    if align_corners:
        places = [i * (size - 1) / max(count - 1, 1) for i in range(count)]
    else:
        places = [max((i + 0.5) * size / count - 0.5, 0.0) for i in range(count)]
    low = [min(int(p), size - 1) for p in places]
    high = [min(i + 1, size - 1) for i in low]
    shape = tuple(count if i == axis else 1 for i in range(x.ndim))
    weight = Tensor([p - i for p, i in zip(places, low, strict=True)], dtype=x.dtype)
    weight = dispatch.call("reshape", weight.to(x.device), shape=shape)
    below, above = take(x, low, axis), take(x, high, axis)
    return below + (above - below) * weight
