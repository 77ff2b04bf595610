"""Pooling: the largest or the mean element of every window, and how gradients go back.

One to three spatial axes, in either layout: see `mgec.dialects.mge.spatial`. A window that
would see padding only is refused, so a maximum always has a winner and a mean something to
divide by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mgec.dialects.mge.elementwise import NUMBERS, check_dtype
from mgec.dialects.mge.lane import lane_type
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.rules import gradient, lowering, reference
from mgec.dialects.mge.spatial import (
    Geometry,
    Layout,
    Values,
    check_geometry,
    layout_of,
    output_sizes,
)
from mgec.dialects.mge.spec import DYNAMIC, FLOATS, INT32, DType, TensorSpec, is_float
from mgec.errors import ArgumentError, DTypeError, ShapeError

if TYPE_CHECKING:
    from mgec.dialects.mge.lane import Lane, LaneBuilder
    from mgec.dialects.mge.linalg import Dim, LinalgBuilder, LoweringCall

_ATTRS = ("kernel", "stride", "padding", "channels_last")


def _windows(
    name: str,
    layout: Layout,
    inp_size: Sequence[int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    values: Values,
) -> tuple[int, ...]:
    """Checks kernel, stride and padding; returns how many windows there are."""
    layout.check_per_axis(name, 1, kernel=kernel)
    geometry = check_geometry(name, layout, stride, padding)
    for i, pad in enumerate(padding):
        if pad >= kernel[i // 2]:
            raise ArgumentError(
                f"{name}: padding is {list(padding)} but kernel is {list(kernel)}, "
                "so some windows see padding only",
                values=values,
                fix="make the padding smaller than the kernel on every side",
            )
    return output_sizes(name, layout, inp_size, kernel, geometry, values)


def _pooled(
    name: str,
    layout: Layout,
    inp: TensorSpec,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> TensorSpec:
    """What pooling makes of `inp`."""
    values = [("inp", str(inp), layout.role())]
    sizes = layout.spatial(inp.shape)
    windows = _windows(name, layout, sizes, kernel, stride, padding, values)
    return TensorSpec(layout.join(inp.shape[0], inp.shape[layout.channel], windows), inp.dtype)


def _check_like(
    name: str, what: str, spec: TensorSpec, expected: TensorSpec, values: Values
) -> None:
    """Raises unless `spec` has the dtype and the shape of what pooling gives."""
    if spec.dtype != expected.dtype:
        raise DTypeError(
            f"{name}: {what} is {spec.dtype.name} but inp is {expected.dtype.name}",
            values=values,
            fix=f"convert {what} with astype({expected.dtype.name!r})",
        )
    pairs = zip(spec.shape, expected.shape, strict=False)
    if spec.rank != expected.rank or any(a != b and DYNAMIC not in (a, b) for a, b in pairs):
        raise ShapeError(
            f"{name}: {what} has shape {list(spec.shape)} but pooling gives {list(expected.shape)}",
            values=values,
            fix=f"pass {what} as it came out of the pooling with the same attributes",
        )


# -- maximum -------------------------------------------------------------------------------


@mge_op
class MaxPoolOp(MgeOp):
    """Largest element of every window; NaN if one is NaN. Padding never wins.

    Shapes: inp [N, C, *spatial], result [N, C, *windows] with one to three spatial axes,
    along each of which the result has (size + low + high - kernel) // stride + 1 windows.
    With `channels_last` inp is [N, *spatial, C] and the result [N, *windows, C]. `kernel` and
    `stride` have one entry per spatial axis (no stride: 1 everywhere); `padding` is (low,
    high) of each, smaller than the kernel. Dtypes: any number.
    """

    name = "mge.max_pool"

    @staticmethod
    def infer(
        inp: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        channels_last: bool = False,
    ) -> TensorSpec:
        layout = layout_of("max_pool", "", "inp", inp, channels_last)
        name = layout.title("max_pool")
        check_dtype(name, "inp", inp.dtype, NUMBERS)
        return _pooled(name, layout, inp, kernel, stride, padding)


@mge_op
class MaxPoolGradOp(MgeOp):
    """Gradient of max_pool: every window hands its gradient to its winner.

    The winner is the first element, in row-major order, that equals the maximum (the first
    NaN if there is one).

    Shapes: d_out and pooled [N, C, *windows], inp and the result [N, C, *spatial]; attributes
    as in max_pool. Dtypes: the floats, all equal.
    """

    name = "mge.max_pool_grad"

    @staticmethod
    def infer(
        d_out: TensorSpec,
        inp: TensorSpec,
        pooled: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        channels_last: bool = False,
    ) -> TensorSpec:
        layout = layout_of("max_pool", "_grad", "inp", inp, channels_last)
        name = layout.title("max_pool", "_grad")
        check_dtype(name, "inp", inp.dtype, FLOATS)
        expected = _pooled(name, layout, inp, kernel, stride, padding)
        values = [
            ("d_out", str(d_out), layout.role("C", "O")),
            ("inp", str(inp), layout.role()),
            ("pooled", str(pooled), layout.role("C", "O")),
        ]
        _check_like(name, "pooled", pooled, expected, values)
        _check_like(name, "d_out", d_out, expected, values)
        return inp


@mge_op
class MaxPoolPickOp(MgeOp):
    """The element of `values` that stands where each window of `inp` has its winner.

    This is the gradient of max_pool_grad with respect to d_out.

    Shapes: values and inp [N, C, *spatial], pooled and the result [N, C, *windows];
    attributes as in max_pool. Dtypes: the floats, all equal.
    """

    name = "mge.max_pool_pick"

    @staticmethod
    def infer(
        values: TensorSpec,
        inp: TensorSpec,
        pooled: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        channels_last: bool = False,
    ) -> TensorSpec:
        layout = layout_of("max_pool", "_pick", "inp", inp, channels_last)
        name = layout.title("max_pool", "_pick")
        check_dtype(name, "inp", inp.dtype, FLOATS)
        expected = _pooled(name, layout, inp, kernel, stride, padding)
        shown = [
            ("values", str(values), layout.role()),
            ("inp", str(inp), layout.role()),
            ("pooled", str(pooled), layout.role("C", "O")),
        ]
        _check_like(name, "pooled", pooled, expected, shown)
        if values != inp:
            raise ShapeError(
                f"{name}: values is {values} but inp is {inp}",
                values=shown,
                fix="pass values of the shape and dtype of inp",
            )
        return expected


def _patches(inp: Any, fill: Any, layout: Layout, attrs: Mapping[str, Any]) -> Any:
    """[*windows as in the layout, kernel elements in row-major order], `fill` for padding."""
    kernel, geometry = attrs["kernel"], Geometry.of(attrs, layout.axes)
    padded = np.pad(inp, layout.join((0, 0), (0, 0), geometry.padding), constant_values=fill)
    axes = layout.spatial(range(inp.ndim))
    view = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=axes)
    steps = [slice(None, None, step) for step in geometry.stride]
    view = view[layout.join(slice(None), slice(None), steps)]
    return view.reshape(*view.shape[: inp.ndim], prod(kernel))


def lowest(dtype: DType) -> float:
    """What every number of a dtype is at least: where a maximum starts."""
    if is_float(dtype):
        return float("-inf")
    return 0 if dtype.kind == "u" else -(2 ** (dtype.itemsize * 8 - 1))


@reference(MaxPoolOp)
def _max_pool_reference(inp: Any, **attrs: Any) -> Any:
    layout = Layout.of(inp.ndim, attrs)
    return _patches(inp, lowest(inp.dtype), layout, attrs).max(axis=-1)


def _winners(inp: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """For each axis of `inp` the index of the winner of every window."""
    layout = Layout.of(inp.ndim, attrs)
    geometry = Geometry.of(attrs, layout.axes)
    # First maximum, or first NaN.
    best: Any = np.argmax(_patches(inp, -np.inf, layout, attrs), axis=-1)
    seen = _patches(np.ones_like(inp), 0, layout, attrs)
    # A window of -inf only: the first of its elements that is not padding.
    alone = np.take_along_axis(seen, best[..., None], -1)[..., 0] == 0
    tap = cast("np.ndarray[Any, Any]", np.where(alone, np.argmax(seen, axis=-1), best))
    window = cast("Any", np.indices(tap.shape))
    taps = np.unravel_index(tap, attrs["kernel"])
    places = [
        at * geometry.stride[i] + taps[i] - geometry.padding[i][0]
        for i, at in enumerate(layout.spatial(window))
    ]
    return layout.join(window[0], window[layout.channel], places)


@reference(MaxPoolGradOp)
def _max_grad_reference(d_out: Any, inp: Any, pooled: Any, **attrs: Any) -> Any:
    result = np.zeros_like(inp)
    np.add.at(result, _winners(inp, attrs), d_out)
    return result


@reference(MaxPoolPickOp)
def _max_pick_reference(values: Any, inp: Any, pooled: Any, **attrs: Any) -> Any:
    return values[_winners(inp, attrs)]


def _attributes(call: Any) -> dict[str, Any]:
    return {key: call.attrs[key] for key in _ATTRS}


@gradient(MaxPoolOp)
def _max_pool_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.max_pool_grad(d_out, call.inputs[0], call.outputs[0], **_attributes(call)),)


@gradient(MaxPoolGradOp)
def _max_grad_gradient(b: Any, call: Any, d_inp: Any) -> tuple[Any, None, None]:
    if not call.needs[0]:
        return None, None, None
    _, inp, pooled = call.inputs
    return b.max_pool_pick(d_inp, inp, pooled, **_attributes(call)), None, None


@gradient(MaxPoolPickOp)
def _max_pick_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None, None]:
    if not call.needs[0]:
        return None, None, None
    _, inp, pooled = call.inputs
    return b.max_pool_grad(d_out, inp, pooled, **_attributes(call)), None, None


class _Lowering:
    """What the lowerings share: positions of elements, windows and taps."""

    def __init__(self, b: LinalgBuilder, rank: int, attrs: Mapping[str, Any]) -> None:
        self.b, self.attrs = b, attrs
        self.layout = Layout.of(rank, attrs)
        self.geometry = Geometry.of(attrs, self.layout.axes)
        self.kernel: tuple[int, ...] = attrs["kernel"]
        self.rank = rank

    def _at(self, at: Sequence[Dim], spatial: Sequence[Dim]) -> tuple[Dim, ...]:
        """The batch and channel of `at` and other spatial indices."""
        return self.layout.join(at[0], at[self.layout.channel], spatial)

    def split(self, at: Sequence[Dim]) -> tuple[Sequence[Dim], Sequence[Dim]]:
        """Indices of a nest as (those of an image or its windows, taps)."""
        return at[: self.rank], at[self.rank :]

    def tap(self, taps: Sequence[Dim]) -> Lane:
        """The number of a tap, in row-major order, as int32."""
        return self.b.index_to_lane(self.b.linearize(taps, self.kernel), INT32)

    def element(
        self, value: Any, dtype: DType, window: Sequence[Dim], taps: Sequence[Dim]
    ) -> tuple[Lane, Lane]:
        """The input element at one tap of a window, and whether it exists."""
        b, geometry = self.b, self.geometry
        position: list[Dim] = []
        valid: list[Lane] = []
        sizes = self.layout.spatial(b.dims(value))
        for i, at in enumerate(self.layout.spatial(window)):
            start = b.sub(b.mul(at, geometry.stride[i]), geometry.padding[i][0])
            index = b.add(start, taps[i])
            valid.append(b.in_range(index, 0, sizes[i]))
            position.append(b.clamp(index, sizes[i]))
        return b.load(value, self._at(window, position), dtype), self._all(valid)

    def window(
        self, windows: Sequence[Dim], at: Sequence[Dim], taps: Sequence[Dim]
    ) -> tuple[Sequence[Dim], Lane]:
        """The window that has an input element at one tap, and whether there is one.

        Args:
            windows: shape of the windows.
            at: the element.
            taps: the tap.
        """
        b, geometry = self.b, self.geometry
        position: list[Dim] = []
        valid: list[Lane] = []
        counts = self.layout.spatial(windows)
        for i, place in enumerate(self.layout.spatial(at)):
            stride = geometry.stride[i]
            index = b.sub(b.add(place, geometry.padding[i][0]), taps[i])
            bound = b.mul(counts[i], stride)
            valid.append(b.in_range(index, 0, bound))
            index = b.clamp(index, bound)
            if stride != 1:
                valid.append(b.in_range(b.mod(index, stride), 0, 1))
            position.append(b.floordiv(index, stride))
        return self._at(at, position), self._all(valid)

    def _all(self, valid: Sequence[Lane]) -> Lane:
        result, *others = valid
        for other in others:
            result = self.b.lanes.and_(result, other)
        return result

    def count(self, window: Sequence[Dim], image: Sequence[Dim], dtype: DType) -> Lane:
        """By what the mean of a window divides."""
        b, geometry = self.b, self.geometry
        if self.attrs["count_include_pad"] or not geometry.is_padded:
            return b.lanes.constant(prod(self.kernel), lane_type(dtype))
        count: Dim = 1
        sizes = self.layout.spatial(image)
        for i, at in enumerate(self.layout.spatial(window)):
            start = b.sub(b.mul(at, geometry.stride[i]), geometry.padding[i][0])
            end = b.add(start, self.kernel[i])
            size = b.add(sizes[i], 1)
            count = b.mul(count, b.sub(b.clamp(end, size), b.clamp(start, size)))
        return b.index_to_lane(count, dtype)

    def winners(self, inp: Any, pooled: Any, dtype: DType) -> Any:
        """For every window the tap of its winner, as int32."""
        b, lanes, wide = self.b, self.b.lanes, accumulator(dtype)

        def body(at: Sequence[Dim], winner: Lane) -> Lane:
            window, taps = self.split(at)
            element, valid = self.element(inp, dtype, window, taps)
            best = lanes.convert(b.load(pooled, window, dtype), dtype, wide)
            element = lanes.convert(element, dtype, wide)
            # With a NaN in the window the maximum is NaN, which equals nothing: find the NaN.
            same = lanes.cmpf("oeq", element, best)
            same = lanes.or_(same, lanes.cmpf("uno", element, element))
            free = lanes.cmpi("slt", winner, lanes.like(0, winner))
            wins = lanes.and_(valid, lanes.and_(same, free))
            return lanes.select(wins, self.tap(taps), winner)

        def none(builder: LaneBuilder) -> Lane:
            return builder.constant(-1, "i32")

        return b.loops(b.dims(pooled), INT32, body, reduce=self.kernel, init=none)


def _lowering(b: LinalgBuilder, call: LoweringCall) -> _Lowering:
    return _Lowering(b, len(call.output_dims[0]), call.attrs)


@lowering(MaxPoolOp)
def _max_pool_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (inp,), (spec,), lanes = call.inputs, call.specs, b.lanes
    pool = _lowering(b, call)
    best_dtype = accumulator(spec.dtype)  # few targets compare 16-bit floats

    def body(at: Sequence[Dim], best: Lane) -> Lane:
        element, valid = pool.element(inp, spec.dtype, *pool.split(at))
        element = lanes.convert(element, spec.dtype, best_dtype)
        if best.is_float:
            larger = lanes.maximum(best, element)
        else:
            predicate = "ugt" if spec.dtype.kind == "u" else "sgt"
            larger = lanes.select(lanes.cmpi(predicate, element, best), element, best)
        return lanes.select(valid, larger, best)

    def start(builder: LaneBuilder) -> Lane:
        return builder.constant(lowest(spec.dtype), lane_type(best_dtype))

    return b.loops(
        call.output_dims[0],
        spec.dtype,
        body,
        reduce=pool.kernel,
        init=start,
        accumulate=best_dtype,
    )


def _zero(dtype: DType) -> Callable[[LaneBuilder], Lane]:
    return lambda builder: builder.constant(0, lane_type(dtype))


@lowering(MaxPoolGradOp)
def _max_grad_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (d_out, inp, pooled), lanes = call.inputs, b.lanes
    dtype = call.specs[0].dtype
    total_dtype = accumulator(dtype)
    pool = _lowering(b, call)
    winners = pool.winners(inp, pooled, dtype)

    def body(at: Sequence[Dim], total: Lane) -> Lane:
        place, taps = pool.split(at)
        window, valid = pool.window(b.dims(d_out), place, taps)
        winner = b.load(winners, window, INT32)
        wins = lanes.and_(valid, lanes.cmpi("eq", winner, pool.tap(taps)))
        more = lanes.convert(b.load(d_out, window, dtype), dtype, total_dtype)
        return lanes.select(wins, lanes.add(total, more), total)

    return b.loops(
        call.output_dims[0],
        dtype,
        body,
        reduce=pool.kernel,
        init=_zero(total_dtype),
        accumulate=total_dtype,
    )


@lowering(MaxPoolPickOp)
def _max_pick_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (values, inp, pooled), dtype = call.inputs, call.specs[0].dtype
    pool = _lowering(b, call)
    winners = pool.winners(inp, pooled, dtype)

    def body(at: Sequence[Dim]) -> Lane:
        tap = b.lane_to_index(b.load(winners, at, INT32), INT32)
        element, _ = pool.element(values, dtype, at, b.delinearize(tap, pool.kernel))
        return element

    return b.loops(call.output_dims[0], dtype, body)


# -- mean ------------------------------------------------------------------------------------


@mge_op
class AvgPoolOp(MgeOp):
    """Mean of every window; padding counts as zeros, or not at all.

    Shapes and attributes: as max_pool. With `count_include_pad` a window divides by the size
    of the kernel, otherwise by the number of its elements that are not padding. Dtypes: the
    floats; 16-bit ones accumulate in float32.
    """

    name = "mge.avg_pool"

    @staticmethod
    def infer(
        inp: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        count_include_pad: bool = False,
        channels_last: bool = False,
    ) -> TensorSpec:
        layout = layout_of("avg_pool", "", "inp", inp, channels_last)
        name = layout.title("avg_pool")
        check_dtype(name, "inp", inp.dtype, FLOATS)
        return _pooled(name, layout, inp, kernel, stride, padding)


@mge_op
class AvgPoolGradOp(MgeOp):
    """Gradient of avg_pool: every window spreads its gradient over its elements.

    Shapes: d_out [N, C, *windows], result [N, C, *spatial] where the spatial sizes are
    `input_size`; the other attributes as in avg_pool. Dtypes: the floats.
    """

    name = "mge.avg_pool_grad"
    runtime_attrs = ("input_size",)

    @staticmethod
    def infer(
        d_out: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] = (),
        padding: tuple[int, ...] = (),
        count_include_pad: bool = False,
        channels_last: bool = False,
        input_size: tuple[int, ...],
    ) -> TensorSpec:
        layout = layout_of("avg_pool", "_grad", "d_out", d_out, channels_last)
        name = layout.title("avg_pool", "_grad")
        values = [("d_out", str(d_out), layout.role("C", "O"))]
        check_dtype(name, "d_out", d_out.dtype, FLOATS)
        layout.check_per_axis(name, 0, input_size=input_size)
        windows = _windows(name, layout, input_size, kernel, stride, padding, values)
        batch, channels = d_out.shape[0], d_out.shape[layout.channel]
        pooled = TensorSpec(layout.join(batch, channels, windows), d_out.dtype)
        _check_like(name, "d_out", d_out, pooled, values)
        return TensorSpec(layout.join(batch, channels, input_size), d_out.dtype)


def _counts(
    size: Sequence[int], count_include_pad: bool, layout: Layout, attrs: Mapping[str, Any]
) -> Any:
    if count_include_pad:
        return np.float64(prod(attrs["kernel"]))
    return _patches(np.ones(layout.join(1, 1, size)), 0, layout, attrs).sum(axis=-1)


@reference(AvgPoolOp)
def _avg_pool_reference(inp: Any, *, count_include_pad: bool, **attrs: Any) -> Any:
    layout = Layout.of(inp.ndim, attrs)
    counts = _counts(layout.spatial(inp.shape), count_include_pad, layout, attrs)
    return _patches(inp, 0, layout, attrs).sum(axis=-1) / counts


@reference(AvgPoolGradOp)
def _avg_grad_reference(
    d_out: Any, *, count_include_pad: bool, input_size: tuple[int, ...], **attrs: Any
) -> Any:
    layout = Layout.of(d_out.ndim, attrs)
    geometry = Geometry.of(attrs, layout.axes)
    share = d_out / _counts(input_size, count_include_pad, layout, attrs)
    size = [s + sum(pad) for s, pad in zip(input_size, geometry.padding, strict=True)]
    padded = np.zeros(layout.join(d_out.shape[0], d_out.shape[layout.channel], size))
    every = slice(None)
    for window in np.ndindex(*layout.spatial(d_out.shape)):
        starts = [w * s for w, s in zip(window, geometry.stride, strict=True)]
        covered = [slice(a, a + k) for a, k in zip(starts, attrs["kernel"], strict=True)]
        single = [slice(w, w + 1) for w in window]
        padded[layout.join(every, every, covered)] += share[layout.join(every, every, single)]
    pairs = zip(geometry.padding, size, strict=True)
    inside = [slice(low, s - high) for (low, high), s in pairs]
    return padded[layout.join(every, every, inside)]


@gradient(AvgPoolOp)
def _avg_pool_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    (spec,) = call.specs
    size = Layout.of(spec.rank, call.attrs).spatial(spec.shape)
    return (b.avg_pool_grad(d_out, **call.attrs, input_size=size),)


@gradient(AvgPoolGradOp)
def _avg_grad_gradient(b: Any, call: Any, d_inp: Any) -> tuple[Any]:
    attrs = {key: value for key, value in call.attrs.items() if key != "input_size"}
    return (b.avg_pool(d_inp, **attrs),)


@lowering(AvgPoolOp)
def _avg_pool_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (inp,), (spec,), lanes = call.inputs, call.specs, b.lanes
    total_dtype = accumulator(spec.dtype)
    dims = call.output_dims[0]
    pool = _lowering(b, call)

    def add(at: Sequence[Dim], total: Lane) -> Lane:
        element, valid = pool.element(inp, spec.dtype, *pool.split(at))
        element = lanes.convert(element, spec.dtype, total_dtype)
        return lanes.select(valid, lanes.add(total, element), total)

    def divide(at: Sequence[Dim]) -> Lane:
        count = pool.count(at, b.dims(inp), total_dtype)
        mean = lanes.div(b.load(total, at, total_dtype), count)
        return lanes.convert(mean, total_dtype, spec.dtype)

    total = b.loops(dims, total_dtype, add, reduce=pool.kernel, init=_zero(total_dtype))
    return b.loops(dims, spec.dtype, divide)


@lowering(AvgPoolGradOp)
def _avg_grad_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (d_out,), (spec,), lanes = call.inputs, call.specs, b.lanes
    total_dtype = accumulator(spec.dtype)
    dims = call.output_dims[0]
    pool = _lowering(b, call)

    def body(at: Sequence[Dim], total: Lane) -> Lane:
        place, taps = pool.split(at)
        window, valid = pool.window(b.dims(d_out), place, taps)
        element = lanes.convert(b.load(d_out, window, spec.dtype), spec.dtype, total_dtype)
        share = lanes.div(element, pool.count(window, dims, total_dtype))
        return lanes.select(valid, lanes.add(total, share), total)

    return b.loops(
        dims,
        spec.dtype,
        body,
        reduce=pool.kernel,
        init=_zero(total_dtype),
        accumulate=total_dtype,
    )


OPS = (MaxPoolOp, MaxPoolGradOp, MaxPoolPickOp, AvgPoolOp, AvgPoolGradOp)
