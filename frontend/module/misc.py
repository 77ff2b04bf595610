"""Small layers: identity, flatten, dropout, padding, pixel shuffle, concatenation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import mgec.functional as F
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError
from mgec.functional._arguments import check_choice
from mgec.module.module import Module

__all__ = ["Concat", "Dropout", "Flatten", "Identity", "Pad", "PixelShuffle"]


class Identity(Module):
    """The input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Flatten(Module):
    """Merges axes into one; see `mgec.functional.flatten`.

    Args:
        start_axis: the first axis to merge; 1 keeps the batch.
        end_axis: the last axis to merge.
    """

    def __init__(self, start_axis: int = 1, end_axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_axis, self.end_axis)


class Dropout(Module):
    """Sets elements to 0 at random while training; see `mgec.functional.dropout`.

    Args:
        drop_prob: probability of 0.
    """

    def __init__(self, drop_prob: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= drop_prob < 1:
            raise ArgumentError(
                f"Dropout: drop_prob is {drop_prob} but must be at least 0 and below 1",
                fix="use a probability such as 0.5",
            )
        self.drop_prob = drop_prob

    def forward(self, inputs: Tensor) -> Tensor:
        return F.dropout(inputs, self.drop_prob, self.training)

    def _module_info_string(self) -> str:
        return f"drop_prob={self.drop_prob}"


class Pad(Module):
    """Adds elements around a tensor; see `mgec.functional.pad`.

    Args:
        pad_width: (before, after) for each axis.
        mode: "constant", "replicate" (or "edge") or "reflect".
        constant_val: what "constant" adds.
    """

    def __init__(
        self,
        pad_width: Sequence[Sequence[int]],
        mode: str = "constant",
        constant_val: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("Pad", "mode", mode.lower(), ("constant", "replicate", "edge", "reflect"))
        self.pad_width = tuple(tuple(p) for p in pad_width)
        self.mode = mode
        self.pad_val = constant_val

    def forward(self, src: Tensor) -> Tensor:
        return F.pad(src, self.pad_width, self.mode, self.pad_val)


class PixelShuffle(Module):
    """Moves channels into space; see `mgec.functional.pixel_shuffle`.

    Args:
        upscale_factor: the factor by which height and width grow.
    """

    def __init__(self, upscale_factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.upscale_factor)


class Concat(Module):
    """Joins tensors along an axis; see `mgec.functional.concat`."""

    def forward(self, tensors: Iterable[Tensor], axis: int = 0) -> Tensor:
        return F.concat(list(tensors), axis)
