"""Templates of pooling: maximum, mean, and how their gradients go back, NCHW.

One spatial axis is two with one row; with the channels last see `pooling_channels_last.py`.

A vector holds neighbouring windows of one row of windows. Element (row, column) of all of
them is one load where the stride is 1, two loads and a shuffle where it is 2, else a gather.
Vectors whose windows lie inside the image use plain loads; the others mask.

A gradient is computed where it arrives, so that every element is written once. Input column
w belongs to group (w + left) // stride, at place (w + left) % stride of it; a vector holds
neighbouring groups, of which each place is summed over the windows that reach it and then
interleaved with the others. Windows that do not overlap are compared with their maximum on
the way. Where they do, the winners of a block of windows come first, into scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mgec.compiler.kernels.emitter import Buffer, Dim, KernelEmitter, Value, VectorLanes
from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.pooling_channels_last import channels_last_pooling
from mgec.compiler.kernels.pooling_window import Window, divide_by, is_maximum, larger, number
from mgec.compiler.kernels.source import DimRef, KernelSource, Units
from mgec.compiler.targets import Target
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.pooling import lowest
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.spec import DType


@dataclass(frozen=True)
class PoolingBlocks:
    """Block sizes of pooling.

    Attributes:
        rows: rows of windows per unit.
        columns: most columns of windows whose winners are in scratch; 16 x 256 fit in L1.
        unroll: most taps (or places of a group) that are unrolled.
    """

    rows: int = 16
    columns: int = 256
    unroll: int = 64


def pooling_kernel(
    op: str,
    name: str,
    target: Target,
    image: Sequence[int | DimRef],
    windows: Sequence[int | DimRef],
    window: Window,
    dtype: DType,
    *,
    num_dims: int = 0,
    blocks: PoolingBlocks | None = None,
) -> KernelSource:
    """A pooling op over dense tensors.

    Args:
        op: "max_pool", "max_pool_grad", "max_pool_pick", "avg_pool" or
            "avg_pool_grad".
        name: symbol of the kernel.
        target: what to compile for.
        image: shape of what is pooled, and of a gradient's result, in the window's layout.
        windows: shape of the windows.
        window: kernel, stride, padding and layout.
        dtype: dtype of every tensor.
        num_dims: how many entries the dims table has.
        blocks: how the work is cut.

    Returns:
        A kernel whose buffers are the op's operands, the result, and scratch if any.

    Raises:
        NotApplicable: for three spatial axes after the channels, a gradient with the channels
            last, and a gradient of a kernel so large that it would be too much code.
    """
    if window.channels_last:
        return channels_last_pooling(
            op, name, target, image, windows, window, dtype, num_dims=num_dims
        )
    if window.axes == 1:
        image, windows = ((*s[:2], 1, s[2]) for s in (image, windows))
        window = window.with_unit_axis()
    if window.axes != 2:
        raise NotApplicable("three spatial axes after the channels")
    blocks = blocks or PoolingBlocks()
    pooling = _Pooling(op, name, target, image, windows, window, dtype, num_dims, blocks)
    return pooling.gradient() if op.endswith("grad") else pooling.forward()


Taps = Callable[[list[Value], "_Row", Dim, Dim], Sequence[Value]]
"""`(values, row, tap row, tap column) -> values`: what one element of each window adds."""


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
        blocks: PoolingBlocks,
    ) -> None:
        self.op, self.window, self.dtype, self.blocks = op, window, dtype, blocks
        self.k = k = KernelEmitter(name, target, num_dims)
        self.image_sizes = tuple(image)
        self.window_sizes = tuple(windows)
        self.planes = k.product([k.dim(image[0]), k.dim(image[1])])
        self.h, self.w = k.dim(image[2]), k.dim(image[3])
        self.oh, self.ow = k.dim(windows[2]), k.dim(windows[3])
        lanes = target.lanes(8 if dtype.itemsize == 8 else 4)
        count = self.ow if not op.endswith("grad") else self.groups(1)
        if isinstance(count, int):  # a short row leaves lanes of a long vector idle
            while lanes > 1 and lanes // 2 >= count:
                lanes //= 2
        self.b = VectorLanes(k, lanes)
        self.wide = accumulator(dtype)
        inputs = {"max_pool_grad": 3, "max_pool_pick": 3}.get(op, 1)
        self.inputs = [k.buffer(dtype) for _ in range(inputs)]
        self.result = k.buffer(dtype)

    def groups(self, axis: int) -> Dim:
        """How many groups of input rows (0) or columns (1) there are."""
        size = (self.h, self.w)[axis]
        padded = self.k.add(size, self.window.padding[2 * axis])
        return self.k.ceildiv(padded, self.window.stride[axis])

    # -- shared -----------------------------------------------------------------------------

    def widen(self, x: Lane) -> Lane:
        """From the dtype in memory to the one that computes."""
        return self.b.convert(x, self.dtype, self.wide)

    def narrow(self, x: Lane) -> Lane:
        """Back to the dtype in memory."""
        return self.b.convert(x, self.wide, self.dtype)

    def where(self, condition: str | None, mask: str | None) -> str | None:
        """The mask (None: all lanes), empty unless the i1 (None: always) holds."""
        if condition is None:
            return mask
        ty = self.b.mask_type
        everything = mask or self.k.constant("dense<true>", ty)
        nothing = self.k.constant("dense<false>", ty)
        return self.k.let(f"arith.select {condition}, {everything}, {nothing} : {ty}")

    def between(self, low: Dim, high: Dim) -> str | None:
        """Mask of the lanes low <= i < high; None if these are all."""
        b, k = self.b, self.k
        from_start = isinstance(low, int) and low <= 0
        to_end = isinstance(high, int) and high >= b.width
        if from_start and to_end:
            return None
        if from_start:
            return b.mask(high)
        ty = b.mask_type
        everything = k.constant("dense<true>", ty)
        above = k.let(f"arith.xori {b.mask(low)}, {everything} : {ty}")
        return above if to_end else k.let(f"arith.andi {b.mask(high)}, {above} : {ty}")

    def holds(self, *bounds: tuple[Dim, Dim]) -> str | bool:
        """Whether a <= b for every pair: known, or an i1."""
        result: str | bool = True
        for a, b in bounds:
            if isinstance(a, int) and isinstance(b, int):
                if a > b:
                    return False
                continue
            test = self.k.compare("sle", a, b)
            result = test if result is True else self.k.both(str(result), test)
        return result

    def either(self, condition: str | bool, emit: Callable[[bool], None]) -> None:
        """Emits emit(True) for where the condition holds and emit(False) for elsewhere."""
        if isinstance(condition, bool):
            emit(condition)
            return
        with self.k.when(condition):
            emit(True)
        with self.k.otherwise():
            emit(False)

    def fold_taps(
        self, columns: _Columns, plane: Dim, row: Dim, acc: list[Value], body: Taps,
        buffer: Buffer, others: Sequence[Buffer] = (), *, backward: bool = False,
    ) -> list[Value]:  # fmt: skip
        """Folds over the elements of the windows that begin in input row `row`.

        In row-major order, or from the last to the first.
        """
        k = self.k
        (height, width), (top, bottom, _, _) = self.window.kernel, self.window.padding
        small = height * width <= self.blocks.unroll

        def across(i: Dim, acc: list[Value]) -> list[Value]:
            at = k.mul(k.add(k.mul(plane, self.h), row, i), self.w)
            line = _Row(columns, at, (buffer, *others))
            if small or width <= self.b.width:
                for j in reversed(range(width)) if backward else range(width):
                    acc = list(body(acc, line, i, j))
                return acc

            def one(j: Dim, acc: list[Value]) -> list[Value]:
                return list(body(acc, line, i, k.sub(width - 1, j) if backward else j))

            return k.fold(0, width, 1, acc, one)

        def every() -> list[Value]:
            result = acc
            for i in reversed(range(height)) if backward else range(height):
                result = across(i, result)
            return result

        def some() -> list[Value]:
            low = k.max(k.sub(0, row), 0) if top else 0
            high = k.min(k.sub(self.h, row), height) if bottom else height
            last = k.add(low, high, -1)
            return k.fold(
                low, high, 1, acc, lambda i, acc: across(k.sub(last, i) if backward else i, acc)
            )

        if not small:
            return some()
        inside = True
        if top or bottom:
            inside = self.holds((0, row), (k.add(row, height), self.h))
        if isinstance(inside, bool):
            return every() if inside else some()
        return k.choose(inside, every, some)

    # -- windows from elements --------------------------------------------------------------

    def forward(self) -> KernelSource:
        """Maximum, mean, or the element where the maximum stands."""
        k, b, rows = self.k, self.b, self.blocks.rows
        blocks = k.ceildiv(self.oh, rows)
        (_, sw), (_, width) = self.window.stride, self.window.kernel
        with k.loop("%begin", "%end") as unit:
            plane, block = k.div(unit, blocks), k.rem(unit, blocks)
            low = k.mul(block, rows)
            high = k.min(k.add(low, rows), self.oh)
            with k.loop(0, self.ow, b.width) as start:
                first = k.sub(k.mul(start, sw), self.window.padding[2])
                inside = self.holds(
                    (0, first),
                    (k.add(first, _reach(width - 1, sw, b.width)), self.w),
                    (k.add(start, b.width), self.ow),
                )

                def strip(plain: bool, start: Dim = start, plane: Dim = plane,
                          low: Dim = low, high: Dim = high) -> None:  # fmt: skip
                    columns = _Columns(self, start, plain)
                    with k.loop(low, high) as oh:
                        self._windows(columns, plane, oh)

                self.either(inside, strip)
        sizes = self.window_sizes
        units = Units(((sizes[:2], 1), ((sizes[2],), rows)))
        return k.finish(units, template="pooling")

    def _windows(self, columns: _Columns, plane: Dim, oh: Dim) -> None:
        """One vector of windows of row `oh`."""
        k, b, ty = self.k, self.b, lane_type(self.wide)
        row = k.sub(k.mul(oh, self.window.stride[0]), self.window.padding[0])
        at = k.mul(k.add(k.mul(plane, self.oh), oh), self.ow)

        def load(line: _Row, j: Dim, which: int = 0) -> Lane:
            return self.widen(line.load(j, which))

        if self.op == "max_pool":
            start = [b.value(b.constant(lowest(self.wide), ty))]

            def take(acc: list[Value], line: _Row, i: Dim, j: Dim) -> list[Value]:
                best, x = Lane(acc[0].ref, ty), load(line, j)
                value = larger(b, best, x, self.wide)
                if (valid := columns.valid(j)) is not None:
                    value = b.select(Lane(valid, "i1"), value, best)
                return [b.value(value)]

            (best,) = self.fold_taps(columns, plane, row, start, take, self.inputs[0])
            value = Lane(best.ref, ty)
        elif self.op == "avg_pool":

            def add(acc: list[Value], line: _Row, i: Dim, j: Dim) -> list[Value]:
                return [b.value(b.add(Lane(acc[0].ref, ty), load(line, j)))]

            zero = b.value(b.constant(0, ty))
            (total,) = self.fold_taps(columns, plane, row, [zero], add, self.inputs[0])
            value = self._mean(Lane(total.ref, ty), columns.start, oh)
        else:
            values, inp, pooled = self.inputs
            best = self.widen(columns.load_windows(pooled, at, 0, None))
            none = Value(k.constant("dense<false>", b.mask_type), b.mask_type)

            def pick(acc: list[Value], line: _Row, i: Dim, j: Dim) -> list[Value]:
                picked, found = Lane(acc[0].ref, ty), Lane(acc[1].ref, "i1")
                same = is_maximum(b, load(line, j), best, columns.valid(j))
                here = b.and_(same, b.xor(found, b.like(1, found)))
                picked = b.select(here, load(line, j, 1), picked)
                return [b.value(picked), b.value(b.or_(found, same))]

            zero = b.value(b.constant(0, ty))
            picked, _ = self.fold_taps(columns, plane, row, [zero, none], pick, inp, (values,))
            value = Lane(picked.ref, ty)
        b.store(self.narrow(value), self.result, k.add(at, columns.start), columns.windows(0))

    def _mean(self, total: Lane, start: Dim, oh: Dim) -> Lane:
        """The total of windows (oh, start...) divided by how many elements they count."""
        k, b, window = self.k, self.b, self.window
        if window.has_fixed_count:
            return divide_by(b, total, window.kernel[0] * window.kernel[1])
        top, _, left, _ = window.padding
        row = k.sub(k.mul(oh, window.stride[0]), top)
        last = k.min(k.add(row, window.kernel[0]), self.h)
        rows = number(b, k.sub(last, k.max(row, 0)), total.ty)
        first = b.add(
            number(b, k.sub(k.mul(start, window.stride[1]), left), total.ty),
            Lane(self._places(total.ty, window.stride[1]), total.ty),
        )
        end, size = b.add(first, b.like(window.kernel[1], total)), number(b, self.w, total.ty)
        end = b.select(b.cmpf("olt", end, size), end, size)
        zero = b.like(0, total)
        first = b.select(b.cmpf("ogt", first, zero), first, zero)
        return b.div(total, b.mul(rows, b.sub(end, first)))

    def _places(self, ty: str, step: int) -> str:
        """The vector 0, step, 2 step, ... of floats."""
        text = ", ".join(f"{float(i * step):e}" for i in range(self.b.width))
        return self.k.constant(f"dense<[{text}]>", self.b.type(ty))

    # -- elements from windows --------------------------------------------------------------

    def gradient(self) -> KernelSource:
        """Every element of the image, from the windows that reach it."""
        k, b, window, rows = self.k, self.b, self.window, self.blocks.rows
        (kh, kw), (sh, sw) = window.kernel, window.stride
        top = window.padding[0]
        if max(kh * kw, sh * sw) > self.blocks.unroll:
            raise NotApplicable(f"the gradient of {kh} x {kw} windows")
        winners = self.op == "max_pool_grad" and window.overlaps
        back = (kh - 1) // sh, (kw - 1) // sw
        width = self.blocks.columns if winners else 0
        scratch = None
        if winners:
            most = self.groups(1)
            if isinstance(most, int):
                width = min(width, -(-most // b.width) * b.width)
            pitch = -(-(width + back[1]) // b.width) * b.width
            height = rows + back[0] + -(-top // sh) + 1
            scratch = _Scratch(k.buffer("i32"), pitch, height)
        groups, columns = self.groups(0), self.groups(1)
        n_blocks = k.ceildiv(self.h, rows * sh)
        with k.loop("%begin", "%end") as unit:
            plane, block = k.div(unit, n_blocks), k.rem(unit, n_blocks)
            low = k.mul(block, rows)
            high = k.add(low, rows)
            # Groups begin above the image by the padding: the last block has some more.
            if isinstance(n_blocks, int) and n_blocks == 1:
                low, high = 0, groups
            else:
                is_last = k.compare("eq", k.add(block, 1), n_blocks)
                high = k.select(is_last, groups, high)
            if scratch is None:
                self._strips(plane, low, high, 0, columns, None)
            else:
                with k.loop(0, columns, width) as left:
                    scratch.low, scratch.left = k.sub(low, back[0]), k.sub(left, back[1])
                    right = k.min(k.add(left, width), columns)
                    self._find_winners(scratch, plane, high, right)
                    self._strips(plane, low, high, left, right, scratch)
        sizes = self.image_sizes
        units = Units(((sizes[:2], 1), ((sizes[2],), rows * sh)))
        nbytes = 0 if scratch is None else 4 * scratch.pitch * scratch.height
        return k.finish(units, scratch_bytes=nbytes, template="pooling gradient")

    def _find_winners(self, scratch: _Scratch, plane: Dim, high: Dim, right: Dim) -> None:
        """The winning tap of each window of a block, -1 where there is no window."""
        k, b, window = self.k, self.b, self.window
        _, inp, pooled = self.inputs
        width, (sh, sw) = window.kernel[1], window.stride
        nobody = b.constant(-1, "i32")
        with k.loop(scratch.left, right, b.width) as start:
            first = k.sub(k.mul(start, sw), window.padding[2])
            inside = self.holds(
                (0, start),
                (0, first),
                (k.add(first, _reach(width - 1, sw, b.width)), self.w),
                (k.add(start, b.width), self.ow),
            )

            def strip(plain: bool, start: Dim = start) -> None:
                columns = _Columns(self, start, plain)
                exists = columns.windows(0)
                with k.loop(scratch.low, high) as oh:
                    to = scratch.at(k, oh, start)
                    at = k.mul(k.add(k.mul(plane, self.oh), oh), self.ow)

                    def find(oh: Dim = oh, to: Dim = to, at: Dim = at) -> None:
                        best = self.widen(columns.load_windows(pooled, at, 0, None))
                        row = k.sub(k.mul(oh, sh), window.padding[0])

                        def compare(acc: list[Value], line: _Row, i: Dim, j: Dim) -> list[Value]:
                            tap = Lane(acc[0].ref, "i32")
                            same = is_maximum(b, self.widen(line.load(j)), best, columns.valid(j))
                            here = self._index(k.add(k.mul(i, width), j))
                            return [b.value(b.select(same, here, tap))]

                        (tap,) = self.fold_taps(
                            columns, plane, row, [b.value(nobody)], compare, inp, backward=True
                        )  # the first is the last to be written
                        winner = Lane(tap.ref, "i32")
                        if exists is not None:
                            winner = b.select(Lane(exists, "i1"), winner, nobody)
                        b.store(winner, scratch.buffer, to)

                    with k.when(k.compare("ult", oh, self.oh)):
                        find()
                    with k.otherwise():
                        b.store(nobody, scratch.buffer, to)

            self.either(inside, strip)

    def _index(self, value: Dim) -> Lane:
        b = self.b
        if isinstance(value, int):
            return b.constant(value, "i32")
        return b.splat(Lane(self.k.let(f"arith.index_cast {value} : index to i32"), "i32"))

    def _strips(
        self, plane: Dim, low: Dim, high: Dim, left: Dim, right: Dim, scratch: _Scratch | None
    ) -> None:
        """The elements of groups low..high x left..right."""
        k, b, window = self.k, self.b, self.window
        (kh, kw), (sh, sw), (top, _, pad, _) = window.kernel, window.stride, window.padding
        above, before = (kh - 1) // sh, (kw - 1) // sw
        with k.loop(left, right, b.width) as start:
            first = k.sub(k.mul(start, sw), pad)
            inside = self.holds(
                (0, first),
                (k.add(first, sw * b.width), self.w),
                (before, start),
                (k.add(start, b.width), self.ow),
            )

            def strip(plain: bool, start: Dim = start) -> None:
                columns = _Columns(self, start, plain)
                with k.loop(low, high) as group:
                    row = k.sub(k.mul(group, sh), top)
                    fits: str | bool = False
                    if plain:
                        fits = self.holds(
                            (0, row), (k.add(row, sh), self.h), (above, group),
                            (k.add(group, 1), self.oh),
                        )  # fmt: skip

                    def emit(free: bool, group: Dim = group, row: Dim = row) -> None:
                        if self.op == "max_pool_grad" and scratch is None:
                            self._disjoint(columns, plane, group, row, free)
                        else:
                            self._gathered(columns, plane, group, row, free, scratch)

                    self.either(fits, emit)

            self.either(inside, strip)

    def _inside(self, index: Dim, size: Dim, free: bool) -> str | None:
        return None if free else self.k.compare("ult", index, size)

    def _disjoint(self, columns: _Columns, plane: Dim, group: Dim, row: Dim, free: bool) -> None:
        """Each window hands its gradient to the first of its elements that is its maximum."""
        k, b, window = self.k, self.b, self.window
        d_out, inp, pooled = self.inputs
        (kh, kw), (sh, sw) = window.kernel, window.stride
        exists = self._inside(group, self.oh, free)
        at = k.mul(k.add(k.mul(plane, self.oh), group), self.ow)
        best = self.widen(columns.load_windows(pooled, at, 0, exists))
        share = columns.load_windows(d_out, at, 0, exists)
        zero = b.like(0, share)
        found: Lane | None = None
        for i in range(sh):
            line_at = k.mul(k.add(k.mul(plane, self.h), row, i), self.w)
            valid_row = self._inside(k.add(row, i), self.h, free)
            line = _Row(columns, line_at, (inp,), valid_row)
            places = [zero] * sw
            for j in range(kw if i < kh else 0):
                valid = self.where(valid_row, columns.valid(j))
                same = is_maximum(b, self.widen(line.load(j)), best, valid)
                wins = same if found is None else b.and_(same, b.xor(found, b.like(1, found)))
                found = same if found is None else b.or_(found, same)
                places[j] = b.select(wins, share, zero)
            columns.store(places, self.result, line_at, valid_row)

    def _gathered(
        self, columns: _Columns, plane: Dim, group: Dim, row: Dim, free: bool,
        scratch: _Scratch | None,
    ) -> None:  # fmt: skip
        """Each element sums what the windows that reach it have for it."""
        k, b, window = self.k, self.b, self.window
        (kh, kw), (sh, sw) = window.kernel, window.stride
        shares: dict[tuple[int, int], tuple[Lane, Lane | None]] = {}
        constant = window.has_fixed_count  # then divide at the end

        def share(up: int, back: int) -> tuple[Lane, Lane | None]:
            """What windows (group - up, column - back) hand out, and who wins."""
            if (up, back) in shares:
                return shares[up, back]
            oh = k.sub(group, up)
            exists = self._inside(oh, self.oh, free)
            at = k.mul(k.add(k.mul(plane, self.oh), oh), self.ow)
            value = self.widen(columns.load_windows(self.inputs[0], at, back, exists))
            winner = None
            if scratch is None and not constant:
                value = self._mean(value, k.sub(columns.start, back), oh)
                # The count of a window that does not exist may be 0.
                mask = self.where(exists, columns.windows(back))
                if mask is not None:
                    value = b.select(Lane(mask, "i1"), value, b.like(0, value))
            elif scratch is not None:
                winner = b.load(scratch.buffer, scratch.at(k, oh, k.sub(columns.start, back)))
            shares[up, back] = value, winner
            return value, winner

        zero = b.constant(0, lane_type(self.wide))
        for i in range(sh):
            places: list[Lane] = []
            for j in range(sw):
                total = zero
                for tap_row in range(i, kh, sh):
                    for tap in range(j, kw, sw):
                        value, winner = share(tap_row // sh, tap // sw)
                        if winner is not None:
                            here = b.constant(tap_row * kw + tap, "i32")
                            value = b.select(b.cmpi("eq", winner, here), value, zero)
                        total = value if total is zero else b.add(total, value)
                if scratch is None and constant and total is not zero:
                    total = self._mean(total, columns.start, group)
                places.append(self.narrow(total))
            line_at = k.mul(k.add(k.mul(plane, self.h), row, i), self.w)
            valid_row = self._inside(k.add(row, i), self.h, free)
            columns.store(places, self.result, line_at, valid_row)


@dataclass
class _Scratch:
    """Winners of a block of windows, which begins at window (low, left)."""

    buffer: Buffer
    pitch: int
    height: int
    low: Dim = 0
    left: Dim = 0

    def at(self, k: KernelEmitter, oh: Dim, ow: Dim) -> Dim:
        """Where the winner of a window is."""
        return k.add(k.mul(k.sub(oh, self.low), self.pitch), k.sub(ow, self.left))


class _Columns:
    """A vector of neighbouring windows, or groups of columns, from `start` on.

    Args:
        owner: the emission.
        start: window (or group) of lane 0.
        plain: whether all windows exist and their elements lie inside the image.
    """

    def __init__(self, owner: _Pooling, start: Dim, plain: bool) -> None:
        self.owner, self.start, self.plain = owner, start, plain
        k = owner.k
        self.stride = owner.window.stride[1]
        self.first = k.sub(k.mul(start, self.stride), owner.window.padding[2])
        self._valid: dict[int, str | None] = {}
        self._loads: dict[int, list[str | None]] = {}
        self._windows: dict[int, str | None] = {}
        if plain:
            return
        # Made here, outside of the loops over rows, to be used inside.
        width = owner.window.kernel[1]
        for j in range(max(width, self.stride) if width <= owner.b.width else 0):
            self._valid[j] = self._make_valid(j)
            if self.stride != 2 or j % 2 == 0:
                self._loads[j] = self._make_loads(j)
        if self.stride == 2 and 0 not in self._loads:
            self._loads[0] = self._make_loads(0)
        for back in range((width - 1) // self.stride + 1 if owner.op.endswith("grad") else 1):
            self._windows[back] = self._make_windows(back)

    def _make_windows(self, back: int) -> str | None:
        k = self.owner.k
        at = k.sub(self.start, back)
        return self.owner.between(k.sub(0, at), k.sub(self.owner.ow, at))

    def windows(self, back: int) -> str | None:
        """Mask of the windows `back` before these that exist; None if all do."""
        if self.plain:
            return None
        if back not in self._windows:
            return self._make_windows(back)
        return self._windows[back]

    def _make_valid(self, j: Dim) -> str | None:
        owner, k, s = self.owner, self.owner.k, self.stride
        if not any(owner.window.padding[2:]) and not owner.op.endswith("grad"):
            return None  # every window that exists is inside
        at = k.add(self.first, j)
        low = k.ceildiv(k.max(k.sub(0, at), 0), s)
        high = k.ceildiv(k.max(k.sub(owner.w, at), 0), s)
        return owner.between(low, high)

    def valid(self, j: Dim) -> str | None:
        """Mask of the windows whose column j is in the image; None if all are."""
        if self.plain:
            return None
        return self._valid[j] if isinstance(j, int) and j in self._valid else self._make_valid(j)

    def _make_loads(self, j: Dim) -> list[str | None]:
        owner, k, width = self.owner, self.owner.k, self.owner.b.width
        if self.stride > 2:
            at = k.add(self.first, j)
            low = k.ceildiv(k.max(k.sub(0, at), 0), self.stride)
            return [owner.between(low, k.ceildiv(k.max(k.sub(owner.w, at), 0), self.stride))]
        pieces = [k.add(self.first, j, p * width) for p in range(self.stride)]
        return [owner.between(k.sub(0, at), k.sub(owner.w, at)) for at in pieces]

    def loads(self, j: Dim) -> list[str | None]:
        """Masks of the vectors of memory that hold column j (and j + 1 if the stride is 2)."""
        if self.plain:
            return [None] * (2 if self.stride == 2 else 1)
        return self._loads[j] if isinstance(j, int) and j in self._loads else self._make_loads(j)

    def load_windows(self, buffer: Buffer, at: Dim, back: int, exists: str | None) -> Lane:
        """One element per window, `back` before these, of the row of windows at `at`."""
        owner, k = self.owner, self.owner.k
        mask = owner.where(exists, self.windows(back))
        return owner.b.load(buffer, k.add(at, k.sub(self.start, back)), mask)

    def store(self, places: Sequence[Lane], buffer: Buffer, at: Dim, valid: str | None) -> None:
        """Writes each place of the groups to the row at `at`."""
        owner, k, b, s = self.owner, self.owner.k, self.owner.b, self.stride
        to = k.add(at, self.first)
        if s > 2:
            for j, value in enumerate(places):
                (mask,) = self.loads(j)
                b.scatter(value, buffer, k.add(to, j), b.iota(s), owner.where(valid, mask))
            return
        vectors = list(places)
        if s == 2:
            merged = [m // 2 + (b.width if m % 2 else 0) for m in range(2 * b.width)]
            halves = merged[: b.width], merged[b.width :]
            vectors = [b.shuffle(places[0], places[1], half) for half in halves]
        for p, (value, mask) in enumerate(zip(vectors, self.loads(0), strict=True)):
            b.store(value, buffer, k.add(to, p * b.width), owner.where(valid, mask))


class _Row:
    """One row of the image under a vector of windows.

    Args:
        columns: the windows.
        at: where the row begins.
        buffers: the images it can be read from.
        valid: i1, whether the row exists; None if it does.
    """

    def __init__(
        self, columns: _Columns, at: Dim, buffers: Sequence[Buffer], valid: str | None = None
    ) -> None:
        self.columns, self.at, self.buffers, self.valid = columns, at, buffers, valid
        self._pairs: dict[tuple[int, int], tuple[Lane, Lane]] = {}

    def load(self, j: Dim, which: int = 0) -> Lane:
        """Column j of each window; zeros outside of the image."""
        columns, owner = self.columns, self.columns.owner
        k, b, s, buffer = owner.k, owner.b, columns.stride, self.buffers[which]
        base = k.add(self.at, columns.first)
        if s == 2:
            even = j - j % 2 if isinstance(j, int) else j
            pair = self._pairs.get((even, which)) if isinstance(even, int) else None
            if pair is None:
                low, high = (
                    b.load(buffer, k.add(base, even, p * b.width), owner.where(self.valid, mask))
                    for p, mask in enumerate(columns.loads(even))
                )
                pair = low, high
                if isinstance(even, int):
                    self._pairs[even, which] = pair
            odd = j % 2 if isinstance(j, int) else 0
            return b.shuffle(*pair, range(odd, 2 * b.width, 2))
        (mask,) = columns.loads(j)
        mask = owner.where(self.valid, mask)
        if s == 1:
            return b.load(buffer, k.add(base, j), mask)
        return b.gather(buffer, k.add(base, j), b.iota(s), mask)


def _reach(last: int, stride: int, width: int) -> int:
    """Elements from the first that `width` windows read, their last column being `last`."""
    if stride <= 2:
        return last - last % stride + stride * width
    return last + stride * (width - 1) + 1
