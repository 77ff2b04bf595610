"""What the templates of pooling share: the windows, and the arithmetic of one element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mgec.compiler.kernels.emitter import Dim, VectorLanes
from mgec.dialects.mge.lane import Lane
from mgec.dialects.mge.spatial import Geometry
from mgec.dialects.mge.spec import DType, is_float


@dataclass(frozen=True)
class Window:
    """The geometry of a pooling.

    Attributes:
        kernel: one entry per spatial axis, (height, width).
        stride: one entry per spatial axis.
        padding: two entries per spatial axis, (top, bottom, left, right).
        count_include_pad: whether a mean divides by the size of the kernel everywhere.
        channels_last: whether the channels come after the spatial axes.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] = (0, 0, 0, 0)
    count_include_pad: bool = False
    channels_last: bool = False

    @staticmethod
    def of(attrs: Mapping[str, Any], axes: int) -> Window:
        """The geometry in a pooling op's attributes.

        Args:
            attrs: plain attributes, defaults filled in.
            axes: number of spatial axes.
        """
        geometry = Geometry.of(attrs, axes)
        return Window(
            attrs["kernel"],
            geometry.stride,
            tuple(p for pair in geometry.padding for p in pair),
            bool(attrs.get("count_include_pad")),
            bool(attrs["channels_last"]),
        )

    def with_unit_axis(self) -> Window:
        """The same windows over images with another spatial axis of size 1 before the others."""
        return replace(
            self, kernel=(1, *self.kernel), stride=(1, *self.stride), padding=(0, 0, *self.padding)
        )

    @property
    def axes(self) -> int:
        """How many spatial axes there are."""
        return len(self.kernel)

    @property
    def has_fixed_count(self) -> bool:
        """Whether every mean divides by the size of the kernel."""
        return self.count_include_pad or not any(self.padding)

    @property
    def overlaps(self) -> bool:
        """Whether an element can be in more than one window."""
        return any(k > s for k, s in zip(self.kernel, self.stride, strict=True))


def larger(b: VectorLanes, best: Lane, x: Lane, dtype: DType) -> Lane:
    """The larger, `best` on a tie, NaN if there is one."""
    if not is_float(dtype):
        return b.op("arith.maxui" if dtype.kind == "u" else "arith.maxsi", (x, best), x.ty)
    value = b.select(b.cmpf("ogt", x, best), x, best)  # one instruction; keeps a NaN in best
    return b.select(b.cmpf("uno", x, x), x, value)


def is_maximum(b: VectorLanes, x: Lane, best: Lane, valid: str | None = None) -> Lane:
    """Whether x is the maximum: equal, or (then the maximum is NaN too) NaN.

    Args:
        b: where to emit.
        x: an element of the window.
        best: the maximum of the window.
        valid: mask of the lanes where x exists; None for all.
    """
    same = b.or_(b.cmpf("oeq", x, best), b.cmpf("uno", x, x))
    return same if valid is None else b.and_(same, Lane(valid, "i1"))


def number(b: VectorLanes, value: Dim, ty: str) -> Lane:
    """An index as a float in every lane."""
    if isinstance(value, int):
        return b.constant(value, ty)
    wide = b.k.let(f"arith.index_cast {value} : index to i64")
    return b.splat(Lane(b.k.let(f"arith.sitofp {wide} : i64 to {ty}"), ty))


def divide_by(b: VectorLanes, total: Lane, count: int) -> Lane:
    """The total of `count` elements as their mean."""
    if count & (count - 1) == 0:
        return b.mul(total, b.like(1 / count, total))  # exact
    return b.div(total, b.like(count, total))
