"""Template of pooling with the channels last: maximum, mean and pick, [N, *spatial, C].

A vector holds neighbouring channels, and several of them are folded over the elements of one
window at a time; the last, short one is masked. Windows are clipped where they leave the image
by the bounds of the loops over their elements, so that nothing but the channels needs a mask.
A unit of work is a block of windows along the last spatial axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from mgec.compiler.kernels.emitter import Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.pooling_window import Window, divide_by, is_maximum, larger, number
from mgec.compiler.kernels.source import DimRef, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.pooling import lowest
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.spec import DType


@dataclass(frozen=True)
class ChannelsLastBlocks:
    """Block sizes of pooling with the channels last.

    Attributes:
        vectors: vectors of channels that are folded at a time: as many chains of operations.
        windows: windows of one row per unit.
        unroll: most loads of one row of a window that are unrolled.
    """

    vectors: int = 4
    windows: int = 64
    unroll: int = 64


def channels_last_pooling(
    op: str,
    name: str,
    target: Target,
    image: Sequence[int | DimRef],
    windows: Sequence[int | DimRef],
    window: Window,
    dtype: DType,
    *,
    num_dims: int = 0,
    blocks: ChannelsLastBlocks | None = None,
) -> KernelSource:
    """A pooling op over dense tensors with one to three spatial axes before the channels.

    Args:
        op: "max_pool", "max_pool_pick" or "avg_pool".
        name: symbol of the kernel.
        target: what to compile for.
        image: (N, *spatial, C) of what is pooled.
        windows: (N, *windows, C).
        window: kernel, stride and padding.
        dtype: dtype of every tensor.
        num_dims: how many entries the dims table has.
        blocks: how the work is cut.

    Returns:
        A kernel whose buffers are the op's operands and the result.

    Raises:
        NotApplicable: for a gradient.
    """
    if op not in _INPUTS:
        raise NotApplicable("a gradient with the channels last")
    blocks = blocks or ChannelsLastBlocks()
    return _Pooling(op, name, target, image, windows, window, dtype, num_dims, blocks).emit()


_INPUTS = {"max_pool": 1, "max_pool_pick": 3, "avg_pool": 1}

Range = tuple[Dim, Dim]
"""The elements of a window along one axis that lie inside the image: first, end."""


@dataclass
class _At:
    """One window: where its elements and its result are.

    Attributes:
        row: number of the row of windows.
        column: the window in its row.
        batch: the image.
        starts: where it begins along each spatial axis; negative in the padding.
        inside: which of its elements exist along each spatial axis.
    """

    row: Dim
    column: Dim
    batch: Dim
    starts: list[Dim]
    inside: list[Range]


class _Pooling:
    """The state of one emission."""

    def __init__(
        self,
        op: str,
        name: str,
        target: Target,
        image: Sequence[int | DimRef],
        windows: Sequence[int | DimRef],
        window: Window,
        dtype: DType,
        num_dims: int,
        blocks: ChannelsLastBlocks,
    ) -> None:
        self.op, self.window, self.dtype, self.blocks = op, window, dtype, blocks
        self.window_sizes = tuple(windows)
        self.k = k = KernelEmitter(name, target, num_dims)
        self.batch, *self.sizes = (k.dim(size) for size in image[:-1])
        self.counts = [k.dim(size) for size in windows[1:-1]]
        self.channels = k.dim(image[-1])
        lanes = target.lanes(8 if dtype.itemsize == 8 else 4)
        if isinstance(self.channels, int):  # few channels leave lanes of a long vector idle
            while lanes > 1 and lanes // 2 >= self.channels:
                lanes //= 2
        self.b = VectorLanes(k, lanes)
        self.wide = accumulator(dtype)
        self.ty = lane_type(self.wide)
        self.inputs = [k.buffer(dtype) for _ in range(_INPUTS[op])]
        self.result = k.buffer(dtype)

    def padding(self, axis: int) -> tuple[int, int]:
        """(before, after) a spatial axis."""
        return self.window.padding[2 * axis], self.window.padding[2 * axis + 1]

    def emit(self) -> KernelSource:
        """The whole kernel."""
        k, last = self.k, self.window.axes - 1
        count = self.counts[last]
        whole = k.round_down(self.channels, self.b.width)
        tail = None
        if not isinstance(self.channels, int) or self.channels % self.b.width:
            tail = self.b.mask(k.sub(self.channels, whole))
        interior = self._interior()
        blocks = k.ceildiv(count, self.blocks.windows)
        with k.loop("%begin", "%end") as unit:
            row, block = k.div(unit, blocks), k.rem(unit, blocks)
            batch, *outer = k.delinearize(row, [self.batch, *self.counts[:last]])
            low = k.mul(block, self.blocks.windows)
            high = k.min(k.add(low, self.blocks.windows), count)
            if blocks == 1:
                low, high = 0, count
            starts = [self._start(axis, at) for axis, at in enumerate(outer)]
            inside = [self._inside(axis, start) for axis, start in enumerate(starts)]

            def strip(first: Dim, end: Dim, clipped: bool) -> None:
                if isinstance(first, int) and isinstance(end, int) and first >= end:
                    return
                with k.loop(first, end) as column:
                    start = self._start(last, column)
                    full = (0, self.window.kernel[last])
                    here = self._inside(last, start) if clipped else full
                    self._window(
                        _At(row, column, batch, [*starts, start], [*inside, here]), whole, tail
                    )

            first = k.min(k.max(interior[0], low), high)
            end = k.max(k.min(interior[1], high), first)
            strip(low, first, True)
            strip(first, end, False)
            strip(end, high, True)
        rows = self.window_sizes[: last + 1]
        units = Units(((rows, 1), ((self.window_sizes[last + 1],), self.blocks.windows)))
        return k.finish(units, template="pooling")

    def _start(self, axis: int, window: Dim) -> Dim:
        """Where a window begins along one axis."""
        return self.k.sub(self.k.mul(window, self.window.stride[axis]), self.padding(axis)[0])

    def _inside(self, axis: int, start: Dim) -> Range:
        """Which elements of a window that begins at `start` exist."""
        k, (before, after), taps = self.k, self.padding(axis), self.window.kernel[axis]
        first = k.max(k.sub(0, start), 0) if before else 0
        end = k.min(k.sub(self.sizes[axis], start), taps) if after else taps
        return first, end

    def _interior(self) -> Range:
        """The windows of a row all of whose elements exist along the last axis."""
        k, axis = self.k, self.window.axes - 1
        (before, after), stride = self.padding(axis), self.window.stride[axis]
        first = k.ceildiv(before, stride)
        if not after:
            return first, self.counts[axis]
        # Of the places where a window can begin, as many as are a multiple of the stride.
        places = k.add(self.sizes[axis], before - self.window.kernel[axis] + stride)
        return first, k.div(k.max(places, 0), stride)

    # -- one window -------------------------------------------------------------------------

    def _window(self, at: _At, whole: Dim, tail: str | None) -> None:
        """All channels of one window."""
        k, width = self.k, self.b.width
        step = self.blocks.vectors * width
        several = k.round_down(whole, step)
        if several != 0:
            with k.loop(0, several, step) as channel:
                self._channels(at, channel, self.blocks.vectors, None)
        if isinstance(whole, int) and isinstance(several, int):
            if whole > several:
                self._channels(at, several, (whole - several) // width, None)
        else:
            with k.loop(several, whole, width) as channel:
                self._channels(at, channel, 1, None)
        if tail is not None:
            self._channels(at, whole, 1, tail)

    def _channels(self, at: _At, channel: Dim, count: int, mask: str | None) -> None:
        """`count` vectors of channels of one window, from `channel` on."""
        k, b = self.k, self.b
        to = k.add(k.mul(k.add(k.mul(at.row, self.counts[-1]), at.column), self.channels), channel)
        places = [k.add(to, i * b.width) for i in range(count)]
        make = {"max_pool": self._max, "avg_pool": self._mean, "max_pool_pick": self._pick}
        for place, value in zip(places, make[self.op](at, channel, places, mask), strict=True):
            b.store(b.convert(value, self.wide, self.dtype), self.result, place, mask)

    def _max(self, at: _At, channel: Dim, places: Sequence[Dim], mask: str | None) -> list[Lane]:
        start = [self.b.constant(lowest(self.wide), self.ty)] * len(places)

        def step(best: list[Lane], elements: Sequence[Dim]) -> list[Lane]:
            values = [self._load(place, mask) for place in elements]
            return [larger(self.b, a, x, self.wide) for a, x in zip(best, values, strict=True)]

        return self._fold(at, channel, len(places), start, step)

    def _mean(self, at: _At, channel: Dim, places: Sequence[Dim], mask: str | None) -> list[Lane]:
        b, k = self.b, self.k
        start = [b.constant(0, self.ty)] * len(places)

        def step(total: list[Lane], elements: Sequence[Dim]) -> list[Lane]:
            values = [self._load(place, mask) for place in elements]
            return [b.add(a, x) for a, x in zip(total, values, strict=True)]

        totals = self._fold(at, channel, len(places), start, step)
        count = k.product([k.sub(end, first) for first, end in at.inside])
        if self.window.has_fixed_count:
            count = prod(self.window.kernel)
        if isinstance(count, int):
            return [divide_by(b, total, count) for total in totals]
        divisor = number(b, count, self.ty)
        return [b.div(total, divisor) for total in totals]

    def _pick(self, at: _At, channel: Dim, places: Sequence[Dim], mask: str | None) -> list[Lane]:
        b, count = self.b, len(places)
        pooled = [self._load(place, mask, 2) for place in places]
        # Nothing found yet.
        start = [b.constant(0, self.ty)] * count + [b.constant(0, "i1")] * count

        def step(state: list[Lane], elements: Sequence[Dim]) -> list[Lane]:
            picked, found = state[:count], state[count:]
            for i, place in enumerate(elements):
                same = is_maximum(b, self._load(place, mask, 1), pooled[i])
                here = b.and_(same, b.xor(found[i], b.like(1, found[i])))
                picked[i] = b.select(here, self._load(place, mask), picked[i])
                found[i] = b.or_(found[i], same)
            return [*picked, *found]

        return self._fold(at, channel, count, start, step)[:count]

    def _load(self, place: Dim, mask: str | None, which: int = 0) -> Lane:
        lane = self.b.load(self.inputs[which], place, mask)
        return self.b.convert(lane, self.dtype, self.wide)

    def _fold(
        self, at: _At, channel: Dim, count: int, start: Sequence[Lane],
        step: Callable[[list[Lane], Sequence[Dim]], list[Lane]],
    ) -> list[Lane]:  # fmt: skip
        """Folds over the elements of a window that exist, in row-major order.

        Args:
            at: the window.
            channel: the first channel.
            count: vectors of channels.
            start: lanes before the first element.
            step: `(lanes, places of the element's vectors) -> lanes`.
        """
        k, b, last = self.k, self.b, self.window.axes - 1
        types = [lane.ty for lane in start]

        def axis(i: int, position: Dim, state: list[Value]) -> list[Value]:
            """Folds over axes i..., where `position` counts the elements of those before."""
            row = k.add(k.mul(position, self.sizes[i]), at.starts[i])
            (first, end), size = at.inside[i], self.window.kernel[i]

            def one(tap: Dim, state: list[Value]) -> list[Value]:
                inner = k.add(row, tap)
                if i < last:
                    return axis(i + 1, inner, state)
                base = k.add(k.mul(inner, self.channels), channel)
                lanes = [Lane(v.ref, ty) for v, ty in zip(state, types, strict=True)]
                places = [k.add(base, j * b.width) for j in range(count)]
                return [b.value(lane) for lane in step(lanes, places)]

            if (first, end) != (0, size) or size * count > self.blocks.unroll or i < last:
                return k.fold(first, end, 1, state, one)
            for tap in range(size):
                state = one(tap, state)
            return state

        final = axis(0, at.batch, [b.value(lane) for lane in start])
        return [Lane(v.ref, ty) for v, ty in zip(final, types, strict=True)]
