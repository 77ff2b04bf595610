"""Where the windows of a convolution meet its image: bounds of taps, and tiles of columns.

No padded copy of an image is made. Along the slower axes the kernel computes, for each row of
windows, which taps fall inside the image. Along the fastest axis that is decided when the
kernel is written: tiles of windows that lie inside are one loop, and those at the edges are
written out, each with the taps that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mgec.compiler.kernels.emitter import Dim, KernelEmitter, Value
from mgec.dialects.mge.contraction import ContractionMaps
from mgec.dialects.mge.spatial import Geometry

SPATIAL_AXES = 3
"""Templates see every image with that many spatial axes, the first ones of size 1."""


@dataclass(frozen=True)
class Taps:
    """The taps of one window along one axis: a range, and what it addresses.

    Attributes:
        low: first tap inside the image.
        high: the tap after the last one inside; not above `low` if there is none.
        weight: where tap 0 is along the weight's axis.
        weight_step: from one tap to the next along the weight's axis.
        image: where tap 0 is along the image's axis.
        image_step: from one tap to the next along the image's axis.
    """

    low: Dim
    high: Dim
    weight: Dim
    weight_step: int
    image: Dim
    image_step: int


@dataclass(frozen=True)
class Axis:
    """How windows walk one axis of an image.

    Tap t of window i is element `low + stride * i + dilation * t`.

    Attributes:
        size: elements of the image.
        count: windows.
        taps: elements of a window.
        stride: from one window to the next.
        low: first element of window 0; negative in the padding.
        dilation: from one tap to the next.
    """

    size: int
    count: int
    taps: int = 1
    stride: int = 1
    low: int = 0
    dilation: int = 1

    def start(self, window: int) -> int:
        """The element under tap 0."""
        return self.low + self.stride * window

    def has(self, window: int, tap: int) -> bool:
        """Whether a tap of a window is inside the image."""
        return 0 <= self.start(window) + self.dilation * tap < self.size

    def is_inside(self, first: int, last: int) -> bool:
        """Whether all taps of the windows `first` to `last` are inside the image."""
        return not self.taps or (self.has(first, 0) and self.has(last, self.taps - 1))

    def bounds(self, k: KernelEmitter, window: Dim) -> Taps:
        """The taps of a window that only the kernel knows."""
        start = k.add(k.mul(window, self.stride), self.low)
        low: Dim = 0
        high: Dim = self.taps
        if not self.is_inside(0, self.count - 1):
            before = k.max(k.sub(0, start), 0)
            after = k.max(k.sub(self.size, start), 0)
            low = k.ceildiv(before, self.dilation)
            high = k.min(k.ceildiv(after, self.dilation), self.taps)
        return Taps(low, high, 0, 1, start, self.dilation)


def conv_axes(
    sizes: Sequence[int], windows: Sequence[int], kernel: Sequence[int], attrs: Mapping[str, Any]
) -> tuple[Axis, ...]:
    """The axes of a convolution, `SPATIAL_AXES` of them.

    Args:
        sizes: spatial sizes of the image.
        windows: spatial sizes of the result.
        kernel: spatial sizes of the weight.
        attrs: attributes of the op.
    """
    geometry = Geometry.of(attrs, len(sizes))
    axes = [
        Axis(size, windows[i], kernel[i], geometry.stride[i], geometry.start(i, 0),
             geometry.dilation[i])
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    return (*(Axis(1, 1) for _ in range(SPATIAL_AXES - len(axes))), *axes)


@dataclass(frozen=True)
class Row:
    """A row of windows, and the taps inside the image along the slower axes.

    Attributes:
        image: which image.
        plane: index along the slowest spatial axis of the result.
        row: index along the next one.
        depth: the taps along the slowest axis.
        height: the taps along the next one.
    """

    image: Dim
    plane: Dim
    row: Dim
    depth: Taps
    height: Taps

    def fold(
        self,
        k: KernelEmitter,
        image: Sequence[int],
        kernel: Sequence[int],
        init: Sequence[Value],
        body: Callable[[Dim, Dim, list[Value]], Sequence[Value]],
        *,
        unroll: bool = False,
    ) -> list[Value]:
        """Loops over the rows of the image under the windows.

        Args:
            k: the kernel.
            image: spatial sizes of an image.
            kernel: taps along each axis of the weight.
            init: values to carry.
            body: the next values, given which row of all images, and which row of the weight.
            unroll: write out the taps along the second axis, if the kernel is written for
                their number.
        """
        depth, height = self.depth, self.height

        def plane(tap: Dim, carried: list[Value]) -> Sequence[Value]:
            z = k.add(depth.image, k.mul(tap, depth.image_step))
            z = k.add(k.mul(self.image, image[0]), z)
            w = k.add(depth.weight, k.mul(tap, depth.weight_step))

            def row(tap: Dim, carried: list[Value]) -> Sequence[Value]:
                y = k.add(height.image, k.mul(tap, height.image_step))
                v = k.add(height.weight, k.mul(tap, height.weight_step))
                at = k.add(k.mul(z, image[1]), y)
                return body(at, k.add(k.mul(w, kernel[1]), v), carried)

            if unroll and isinstance(height.low, int) and isinstance(height.high, int):
                for each in range(height.low, height.high):
                    carried = list(row(each, carried))
                return carried
            return k.fold(height.low, height.high, 1, carried, row)

        return k.fold(depth.low, depth.high, 1, init, plane)


def loop_names(maps: ContractionMaps) -> tuple[str | None, ...]:
    """The loops over the images and the spatial axes of the result; None for lacking axes."""
    image, *spatial = (loop.name for loop in maps.of_kind("m"))
    return (image, *[None] * (SPATIAL_AXES - len(spatial)), *spatial)


def place(names: Sequence[str | None], *indices: Dim) -> dict[str, Dim]:
    """The indices of the loops that there are."""
    return {name: i for name, i in zip(names, indices, strict=True) if name is not None}


@dataclass(frozen=True)
class Columns:
    """Tiles of neighbouring windows, one after the other.

    Attributes:
        start: first window.
        stop: window after the last.
        width: windows per tile; divides their number.
        inside: whether all taps of all windows are inside the image. Otherwise there is
            one tile only.
    """

    start: int
    stop: int
    width: int
    inside: bool


def split_columns(axis: Axis, widest: int, cost: Callable[[int], float]) -> list[Columns]:
    """Tiles that cover an axis.

    All are of one width but for up to two, which are best at the edges: those tiles are
    written out in any case.

    Args:
        axis: what to cover.
        widest: most windows per tile.
        cost: of a tile of some width.
    """
    if axis.count <= widest:
        return _joined(axis, [axis.count])
    best: tuple[float, list[int]] | None = None
    for width in range(1, widest + 1):
        fitting = axis.count // width
        for tiles in range(fitting, max(0, fitting - 2 * widest // width) - 1, -1):
            rest = axis.count - tiles * width
            if rest > 2 * widest:
                break
            first = 0 if rest == 0 else rest if rest <= widest else -(-rest // 2)
            widths = [w for w in (first, *[width] * tiles, rest - first) if w]
            total = tiles * cost(width) + sum(cost(w) for w in (first, rest - first) if w)
            key = total * (1 + _PER_FORM * len(set(widths)))
            if best is None or key < best[0]:
                best = key, widths
    assert best is not None
    return _joined(axis, best[1])


_PER_FORM = 0.005
"""What another width of tiles must save: it costs time to compile and space in caches."""


def _joined(axis: Axis, widths: Sequence[int]) -> list[Columns]:
    """Neighbouring tiles of one width that are inside the image are one loop."""
    result: list[Columns] = []
    start = 0
    for width in widths:
        stop = start + width
        inside = axis.is_inside(start, stop - 1)
        last = result[-1] if result else None
        if inside and last is not None and last.inside and last.width == width:
            result[-1] = Columns(last.start, stop, width, True)
        else:
            result.append(Columns(start, stop, width, inside))
        start = stop
    return result


@dataclass(frozen=True)
class TapRun:
    """Neighbouring taps along one axis that the same windows of a tile have.

    Attributes:
        low: first tap.
        high: tap after the last.
        windows: which windows of the tile have them.
    """

    low: int
    high: int
    windows: tuple[int, ...]


def tap_runs(axis: Axis, columns: Columns) -> list[TapRun]:
    """The taps of the first of some tiles (inside the image, they are alike)."""
    runs: list[TapRun] = []
    for tap in range(axis.taps):
        windows = tuple(
            i for i in range(columns.width) if columns.inside or axis.has(columns.start + i, tap)
        )
        if runs and runs[-1].windows == windows and runs[-1].high == tap:
            runs[-1] = TapRun(runs[-1].low, tap + 1, windows)
        elif windows:
            runs.append(TapRun(tap, tap + 1, windows))
    return runs
