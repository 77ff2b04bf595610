"""Ops that move data without computing: reshape, transpose, slice, pad, concat and kin."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import numpy as np
from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineExpr, AffineMap

from mgec.dialects.mge.elementwise import NUMBERS, check_dtype
from mgec.dialects.mge.lane import lane_type, storage_type
from mgec.dialects.mge.linalg import Dim, LinalgBuilder, LoweringCall, broadcast_map, same
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import check_axes, check_axis
from mgec.dialects.mge.rules import decomposition, gradient, lowering, reference
from mgec.dialects.mge.spec import (
    BOOL,
    DYNAMIC,
    FLOAT64,
    INT64,
    DType,
    TensorSpec,
    is_float,
)
from mgec.errors import ArgumentError, AxisError, DTypeError, ShapeError


def check_sizes(name: str, shape: tuple[int, ...]) -> None:
    """Raises ShapeError if a size of the attribute `shape` is negative."""
    if any(size < 0 for size in shape):
        raise ShapeError(f"{name}: shape {shape} has a negative size", fix="use sizes of 0 or more")


def check_length(name: str, inp: TensorSpec, what: str, values: tuple[int, ...]) -> None:
    """Raises ArgumentError unless the attribute has one entry per axis of `inp`."""
    if len(values) != inp.rank:
        raise ArgumentError(
            f"{name}: {what} has {len(values)} entries but inp has rank {inp.rank}",
            values=[("inp", str(inp)), (what, str(values))],
            fix="give one entry per axis",
        )


def check_value(name: str, what: str, value: float, dtype: DType) -> None:
    """Raises DTypeError unless `dtype` can hold the attribute `value` (floats round it)."""
    if is_float(dtype):
        return
    info = np.iinfo(np.int8 if dtype == BOOL else cast("Any", dtype))
    low, high = (0, 1) if dtype == BOOL else (info.min, info.max)
    if not (value == value and low <= value <= high and value == int(value)):
        raise DTypeError(
            f"{name}: {what} {value} is not a value of dtype {dtype.name}",
            fix="use a value that the dtype holds, or a floating point dtype",
        )


# -- reshape ---------------------------------------------------------------------------


@mge_op
class ReshapeOp(MgeOp):
    """The same elements, in row-major order, under another shape.

    Shapes: `shape` has as many elements as the input. Dtypes: any.
    """

    name = "mge.reshape"
    runtime_attrs = ("shape",)

    @staticmethod
    def infer(inp: TensorSpec, *, shape: tuple[int, ...]) -> TensorSpec:
        check_sizes("reshape", shape)
        if inp.is_static and inp.size != prod(shape):
            raise ShapeError(
                f"reshape: input has {inp.size} elements but shape {shape} has {prod(shape)}",
                values=[("inp", str(inp))],
                fix="make the numbers of elements equal",
            )
        return TensorSpec(shape, inp.dtype)


@reference(ReshapeOp)
def _reshape_reference(inp: Any, *, shape: tuple[int, ...]) -> Any:
    return np.reshape(inp, shape)


@gradient(ReshapeOp)
def _reshape_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.reshape(d_out, call.specs[0].shape),)


@lowering(ReshapeOp)
def _lower_reshape(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (inp,), (spec,), (dims,) = call.inputs, call.specs, call.output_dims
    source = b.dims(inp)
    return b.loops(
        dims,
        spec.dtype,
        lambda at: b.load(inp, b.delinearize(b.linearize(at, dims), source), spec.dtype),
    )


# -- transpose and broadcast -----------------------------------------------------------


@mge_op
class TransposeOp(MgeOp):
    """Axes in another order: axis i of the result is axis perm[i] of the input.

    Shapes: any; `perm` names each axis once. Dtypes: any.
    """

    name = "mge.transpose"

    @staticmethod
    def infer(inp: TensorSpec, *, perm: tuple[int, ...]) -> TensorSpec:
        if sorted(perm) != list(range(inp.rank)):
            raise AxisError(
                f"transpose: perm {perm} does not name each axis of rank {inp.rank} once",
                values=[("inp", str(inp))],
                fix=f"use a permutation of {tuple(range(inp.rank))}",
            )
        return TensorSpec(tuple(inp.shape[p] for p in perm), inp.dtype)


@reference(TransposeOp)
def _transpose_reference(inp: Any, *, perm: tuple[int, ...]) -> Any:
    return np.transpose(inp, perm)


@gradient(TransposeOp)
def _transpose_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    inverse = tuple(int(i) for i in np.argsort(call.attrs["perm"]))
    return (b.transpose(d_out, perm=inverse),)


@lowering(TransposeOp)
def _lower_transpose(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (spec,), perm = call.specs, call.attrs["perm"]
    reads = tuple(AffineExpr.dimension(perm.index(i)) for i in range(spec.rank))
    operand = (call.inputs[0], spec.dtype, AffineMap(spec.rank, 0, reads))
    return b.map([operand], call.output_dims[0], spec.dtype, same)


@mge_op
class BroadcastOp(MgeOp):
    """Repeats axes of size 1, and adds leading axes, as NumPy's broadcasting does.

    Shapes: the input's shape broadcasts to `shape`. Dtypes: any.
    """

    name = "mge.broadcast"
    runtime_attrs = ("shape",)

    @staticmethod
    def infer(inp: TensorSpec, *, shape: tuple[int, ...]) -> TensorSpec:
        check_sizes("broadcast", shape)
        lead = len(shape) - inp.rank
        fits = lead >= 0 and all(
            size in (1, DYNAMIC, target)
            for size, target in zip(inp.shape, shape[lead:], strict=True)
        )
        if not fits:
            raise ShapeError(
                f"broadcast: shape {inp.shape} does not broadcast to {shape}",
                values=[("inp", str(inp))],
                fix="make each size equal to the target's, counted from the last axis, or 1",
            )
        return TensorSpec(shape, inp.dtype)


@reference(BroadcastOp)
def _broadcast_reference(inp: Any, *, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(inp, shape)


@gradient(BroadcastOp)
def _broadcast_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.sum_to(d_out, call.specs[0].shape),)


@lowering(BroadcastOp)
def _lower_broadcast(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (spec,), (dims,) = call.specs, call.output_dims
    operand = (call.inputs[0], spec.dtype, broadcast_map(spec.shape, len(dims)))
    return b.map([operand], dims, spec.dtype, same)


# -- slices ----------------------------------------------------------------------------


@mge_op
class SliceOp(MgeOp):
    """Every steps[i]-th element from starts[i] up to, not including, stops[i] on each axis.

    The bounds are what Python's `slice.indices(size)` gives: 0 <= start, stop <= size for a
    positive step, -1 <= start, stop < size for a negative one (stop -1 is before the first).

    Shapes: any; one entry of each attribute per axis. Dtypes: any.
    """

    name = "mge.slice"
    runtime_attrs = ("starts", "stops", "steps")

    @staticmethod
    def infer(
        inp: TensorSpec, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
    ) -> TensorSpec:
        for what, values in (("starts", starts), ("stops", stops), ("steps", steps)):
            check_length("slice", inp, what, values)
        for axis, step in enumerate(steps):
            if step == 0:
                raise ArgumentError(
                    f"slice: the step of axis {axis} is 0", fix="use a positive or negative step"
                )
            size = inp.shape[axis]
            low, high = (0, size) if step > 0 else (-1, size - 1)
            for what, bound in (("start", starts[axis]), ("stop", stops[axis])):
                if not low <= bound <= high:
                    raise ShapeError(
                        f"slice: {what} {bound} of axis {axis} is not within [{low}, {high}], "
                        f"but the axis has size {size} and the step is {step}",
                        values=[("inp", str(inp))],
                        fix="normalize the bounds with slice(...).indices(size)",
                    )
        sizes = (len(range(*bounds)) for bounds in zip(starts, stops, steps, strict=True))
        return TensorSpec(tuple(sizes), inp.dtype)


def _range_slice(start: int, count: int, step: int) -> slice:
    """The Python slice that reads `count` elements from `start`."""
    stop = start + count * step
    return slice(start, stop if stop >= 0 else None, step) if count else slice(0, 0)


@reference(SliceOp)
def _slice_reference(
    inp: Any, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> Any:
    bounds = zip(starts, stops, steps, strict=True)
    return inp[tuple(_range_slice(lo, len(range(lo, hi, by)), by) for lo, hi, by in bounds)]


@gradient(SliceOp)
def _slice_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    starts, steps = call.attrs["starts"], call.attrs["steps"]
    return (b.unslice(d_out, starts=starts, steps=steps, shape=call.specs[0].shape),)


@lowering(SliceOp)
def _lower_slice(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (inp,), (spec,) = call.inputs, call.specs
    starts, steps = call.attrs["starts"], call.attrs["steps"]
    return b.loops(
        call.output_dims[0],
        spec.dtype,
        lambda at: b.load(inp, _strided(b, at, starts, steps), spec.dtype),
    )


def _strided(
    b: LinalgBuilder, at: list[SSAValue], starts: Sequence[Dim], steps: Sequence[Dim]
) -> list[Dim]:
    """start + i * step on each axis."""
    entries = zip(at, starts, steps, strict=True)
    return [b.add(start, b.mul(i, step)) for i, start, step in entries]


@mge_op
class UnsliceOp(MgeOp):
    """Zeros of `shape` with the input written to every steps[i]-th place from starts[i].

    The adjoint of `slice`, and `pad` between the elements where a step is above 1.

    Shapes: the input's places lie within `shape`. Dtypes: any.
    """

    name = "mge.unslice"
    runtime_attrs = ("starts", "steps", "shape")

    @staticmethod
    def infer(
        inp: TensorSpec, *, starts: tuple[int, ...], steps: tuple[int, ...], shape: tuple[int, ...]
    ) -> TensorSpec:
        for what, values in (("starts", starts), ("steps", steps), ("shape", shape)):
            check_length("unslice", inp, what, values)
        check_sizes("unslice", shape)
        for axis, count in enumerate(inp.shape):
            first, step = starts[axis], steps[axis]
            if step == 0:
                raise ArgumentError(
                    f"unslice: the step of axis {axis} is 0", fix="use a positive or negative step"
                )
            last = first + (count - 1) * step
            if count > 0 and not (0 <= first < shape[axis] and 0 <= last < shape[axis]):
                raise ShapeError(
                    f"unslice: axis {axis} writes places {first} to {last} "
                    f"but the result has size {shape[axis]}",
                    values=[("inp", str(inp))],
                    fix="make the places lie within the result",
                )
        return TensorSpec(shape, inp.dtype)


@reference(UnsliceOp)
def _unslice_reference(
    inp: Any, *, starts: tuple[int, ...], steps: tuple[int, ...], shape: tuple[int, ...]
) -> Any:
    out = np.zeros(shape, inp.dtype)
    entries = zip(starts, inp.shape, steps, strict=True)
    out[tuple(_range_slice(start, count, step) for start, count, step in entries)] = inp
    return out


@gradient(UnsliceOp)
def _unslice_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    bounds: list[tuple[int, int, int]] = []
    entries = zip(call.attrs["starts"], call.specs[0].shape, call.attrs["steps"], strict=True)
    for start, count, step in entries:
        if count:
            last = start + (count - 1) * step
            bounds.append((start, last + (1 if step > 0 else -1), step))
        else:
            bounds.append((0, 0, 1))
    starts, stops, steps = zip(*bounds, strict=True) if bounds else ((), (), ())
    return (b.slice(d_out, starts=starts, stops=stops, steps=steps),)


@lowering(UnsliceOp)
def _lower_unslice(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (inp,), (spec,) = call.inputs, call.specs
    starts, steps = call.attrs["starts"], call.attrs["steps"]
    zeros = b.fill(
        call.output_dims[0], spec.dtype, lambda lanes: lanes.constant(0, lane_type(spec.dtype))
    )
    return b.place(inp, zeros, spec.dtype, lambda at: _strided(b, at, starts, steps))


@mge_op
class ReverseOp(MgeOp):
    """Elements in reverse order along `axes`.

    Shapes: any, kept. Dtypes: any.
    """

    name = "mge.reverse"

    @staticmethod
    def infer(inp: TensorSpec, *, axes: tuple[int, ...]) -> TensorSpec:
        check_axes("reverse", inp, axes)
        return inp


@reference(ReverseOp)
def _reverse_reference(inp: Any, *, axes: tuple[int, ...]) -> Any:
    return np.flip(inp, axes)


@gradient(ReverseOp)
def _reverse_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.reverse(d_out, axes=call.attrs["axes"]),)


@lowering(ReverseOp)
def _lower_reverse(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (inp,), (spec,), (dims,) = call.inputs, call.specs, call.output_dims

    def read(at: list[SSAValue]) -> Any:
        axes = call.attrs["axes"]
        mirrored = [
            b.sub(b.sub(dims[axis], 1), i) if axis in axes else i for axis, i in enumerate(at)
        ]
        return b.load(inp, mirrored, spec.dtype)

    return b.loops(dims, spec.dtype, read)


# -- pad -------------------------------------------------------------------------------

PAD_MODES = ("constant", "reflect", "replicate")


@mge_op
class PadOp(MgeOp):
    """Adds low[i] elements before and high[i] after each axis.

    Modes: "constant" adds `value`; "replicate" repeats the edge; "reflect" mirrors at the
    edge without repeating it.

    Shapes: any; one entry per axis; "reflect" pads by less than the size of the axis.
    Dtypes: any.
    """

    name = "mge.pad"
    runtime_attrs = ("low", "high")

    @staticmethod
    def infer(
        inp: TensorSpec,
        *,
        low: tuple[int, ...],
        high: tuple[int, ...],
        value: float = 0.0,
        mode: str = "constant",
    ) -> TensorSpec:
        if mode not in PAD_MODES:
            raise ArgumentError(
                f"pad: mode {mode!r} does not exist", fix=f"use one of {', '.join(PAD_MODES)}"
            )
        check_length("pad", inp, "low", low)
        check_length("pad", inp, "high", high)
        check_value("pad", "value", value, inp.dtype)
        for axis, size in enumerate(inp.shape):
            pads = (low[axis], high[axis])
            if min(pads) < 0:
                raise ArgumentError(
                    f"pad: axis {axis} is padded by {pads}, but padding cannot be negative",
                    fix="cut elements off with a slice",
                )
            limit = size - 1 if mode == "reflect" else (max(pads) if size else 0)
            if mode != "constant" and max(pads) > max(limit, 0):
                raise ShapeError(
                    f"pad: axis {axis} is padded by {pads} in mode {mode} but has size {size}",
                    values=[("inp", str(inp))],
                    fix="pad by less than the size of the axis"
                    if mode == "reflect"
                    else "give the axis at least one element",
                )
        shape = tuple(lo + size + hi for lo, size, hi in zip(low, inp.shape, high, strict=True))
        return TensorSpec(shape, inp.dtype)


@reference(PadOp)
def _pad_reference(
    inp: Any, *, low: tuple[int, ...], high: tuple[int, ...], value: float, mode: str
) -> Any:
    widths = list(zip(low, high, strict=True))
    if not widths:
        return inp
    if mode == "constant":
        return np.pad(inp, widths, constant_values=np.array(value).astype(inp.dtype))
    return np.pad(inp, widths, mode="edge" if mode == "replicate" else "reflect")


@gradient(PadOp)
def _pad_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    """The middle of d_out; the other modes fold what the pads received back, axis by axis."""
    low, high, mode = call.attrs["low"], call.attrs["high"], call.attrs["mode"]
    for axis, size in enumerate(call.specs[0].shape):
        before, after = low[axis], high[axis]
        if before or after:
            middle = _cut(b, d_out, axis, before, before + size)
            if mode != "constant":
                left = _cut(b, d_out, axis, 0, before)
                right = _cut(b, d_out, axis, before + size, before + size + after)
                if mode == "replicate":
                    left, right = (
                        b.reduce_sum(x, axes=(axis,), keepdims=True) for x in (left, right)
                    )
                if before:
                    first = before if mode == "reflect" else 0
                    middle = b.add(middle, _put(b, left, axis, first, size))
                if after:
                    first = size - 2 if mode == "reflect" else size - 1
                    middle = b.add(middle, _put(b, right, axis, first, size))
            d_out = middle
    return (d_out,)


def _cut(b: Any, value: Any, axis: int, start: int, stop: int) -> Any:
    """value[start:stop] along one axis."""
    shape = b.spec(value).shape
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    stops = tuple(stop if i == axis else d for i, d in enumerate(shape))
    return b.slice(value, starts=starts, stops=stops, steps=(1,) * len(shape))


def _put(b: Any, value: Any, axis: int, first: int, size: int) -> Any:
    """Zeros of `size` along one axis, with the value at first, first - 1, ..."""
    shape = b.spec(value).shape
    starts = tuple(first if i == axis else 0 for i in range(len(shape)))
    steps = tuple(-1 if i == axis else 1 for i in range(len(shape)))
    result = tuple(size if i == axis else d for i, d in enumerate(shape))
    return b.unslice(value, starts=starts, steps=steps, shape=result)


@lowering(PadOp)
def _lower_pad(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (inp,), (spec,), (dims,) = call.inputs, call.specs, call.output_dims
    low, mode, value = call.attrs["low"], call.attrs["mode"], call.attrs["value"]
    if mode == "constant":
        ground = b.fill(
            dims, spec.dtype, lambda lanes: lanes.constant(value, lane_type(spec.dtype))
        )
        return b.place(
            inp,
            ground,
            spec.dtype,
            lambda at: [b.add(i, lo) for i, lo in zip(at, low, strict=True)],
        )

    def inside(i: SSAValue, lo: Dim, size: Dim) -> Dim:
        """The place that a place of the padded axis shows."""
        place = b.sub(i, lo)
        if mode == "replicate":
            return b.clamp(place, size)
        last = b.sub(size, 1)
        from_first = b.maximum(place, b.sub(0, place))
        from_last = b.sub(last, from_first)
        return b.sub(last, b.maximum(from_last, b.sub(0, from_last)))

    return b.loops(
        dims,
        spec.dtype,
        lambda at: b.load(
            inp,
            [inside(*entry) for entry in zip(at, low, b.dims(inp), strict=True)],
            spec.dtype,
        ),
    )


# -- concat, repeat, tile --------------------------------------------------------------


@mge_op
class ConcatOp(MgeOp):
    """The inputs one after another along an axis.

    Shapes: equal but for `axis`. Dtypes: any, equal.
    """

    name = "mge.concat"

    @staticmethod
    def infer(*inputs: TensorSpec, axis: int) -> TensorSpec:
        if not inputs:
            raise ArgumentError("concat: there is nothing to concatenate", fix="give an input")
        first = inputs[0]
        check_axis("concat", first, axis)
        for i, spec in enumerate(inputs):
            values = [("inputs[0]", str(first)), (f"inputs[{i}]", str(spec))]
            if spec.dtype != first.dtype:
                raise DTypeError(
                    f"concat: inputs have dtypes {first.dtype.name} and {spec.dtype.name}",
                    values=values,
                    fix=f"convert with astype({first.dtype.name!r})",
                )
            if spec.rank != first.rank or _without(spec.shape, axis) != _without(first.shape, axis):
                raise ShapeError(
                    f"concat: shapes {first.shape} and {spec.shape} differ "
                    f"on another axis than {axis}",
                    values=values,
                    fix="make the other sizes equal, or use another axis",
                )
        total = sum(spec.shape[axis] for spec in inputs)
        shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
        return TensorSpec(shape, first.dtype)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


@reference(ConcatOp)
def _concat_reference(*inputs: Any, axis: int) -> Any:
    return np.concatenate(inputs, axis=axis)


@gradient(ConcatOp)
def _concat_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, ...]:
    axis = call.attrs["axis"]
    grads: list[Any] = []
    start = 0
    for spec, needed in zip(call.specs, call.needs, strict=True):
        stop = start + spec.shape[axis]
        grads.append(_cut(b, d_out, axis, start, stop) if needed else None)
        start = stop
    return tuple(grads)


@lowering(ConcatOp)
def _lower_concat(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (dims,) = call.output_dims
    axis: int = call.attrs["axis"]
    dtype = call.output_specs[0].dtype
    out = b.empty(dims, storage_type(dtype))
    start: Dim = 0
    ones = (1,) * len(dims)
    for inp in call.inputs:
        offset = [start if i == axis else 0 for i in range(len(dims))]
        out = b.place(inp, out, dtype, lambda at, first=offset: _strided(b, at, first, ones))
        size = b.dims(inp)[axis]
        start = b.add(start, size)
    return out


@mge_op
class RepeatOp(MgeOp):
    """Each element `repeats` times in a row along an axis.

    Shapes: any; `axis` grows by the factor. Dtypes: any.
    """

    name = "mge.repeat"

    @staticmethod
    def infer(inp: TensorSpec, *, repeats: int, axis: int) -> TensorSpec:
        check_axis("repeat", inp, axis)
        if repeats < 0:
            raise ArgumentError(
                f"repeat: repeats is {repeats}, but cannot be negative", fix="use 0 or more"
            )
        shape = tuple(d * repeats if i == axis else d for i, d in enumerate(inp.shape))
        return TensorSpec(shape, inp.dtype)


@reference(RepeatOp)
def _repeat_reference(inp: Any, *, repeats: int, axis: int) -> Any:
    return np.repeat(inp, repeats, axis=axis)


@decomposition(RepeatOp)
def _repeat_decomposition(b: Any, inp: Any, *, repeats: int, axis: int) -> Any:
    shape = b.spec(inp).shape
    head, size, tail = shape[:axis], shape[axis], shape[axis + 1 :]
    column = b.reshape(inp, (*head, size, 1, *tail))
    wide = b.broadcast(column, (*head, size, repeats, *tail))
    return b.reshape(wide, (*head, size * repeats, *tail))


@mge_op
class TileOp(MgeOp):
    """The whole input repeated reps[i] times along each axis.

    Shapes: any; one entry per axis. Dtypes: any.
    """

    name = "mge.tile"

    @staticmethod
    def infer(inp: TensorSpec, *, reps: tuple[int, ...]) -> TensorSpec:
        check_length("tile", inp, "reps", reps)
        if any(rep < 0 for rep in reps):
            raise ArgumentError(f"tile: reps {reps} has a negative entry", fix="use 0 or more")
        shape = tuple(d * rep for d, rep in zip(inp.shape, reps, strict=True))
        return TensorSpec(shape, inp.dtype)


@reference(TileOp)
def _tile_reference(inp: Any, *, reps: tuple[int, ...]) -> Any:
    return np.tile(inp, reps)


@decomposition(TileOp)
def _tile_decomposition(b: Any, inp: Any, *, reps: tuple[int, ...]) -> Any:
    shape = b.spec(inp).shape
    split = b.reshape(inp, tuple(x for size in shape for x in (1, size)))
    pairs = zip(reps, shape, strict=True)
    wide = b.broadcast(split, tuple(x for pair in pairs for x in pair))
    return b.reshape(wide, tuple(d * rep for d, rep in zip(shape, reps, strict=True)))


# -- iota ------------------------------------------------------------------------------


@mge_op
class IotaOp(MgeOp):
    """start + i * step, with i the index along `axis`.

    Floats compute in float64 and round once; integers wrap.

    Shapes: `shape`, of rank 1 or more. Dtypes: numbers.
    """

    name = "mge.iota"
    runtime_attrs = ("shape",)

    @staticmethod
    def infer(
        *, shape: tuple[int, ...], axis: int, dtype: DType, start: float = 0.0, step: float = 1.0
    ) -> TensorSpec:
        check_dtype("iota", "the result", dtype, NUMBERS)
        check_sizes("iota", shape)
        spec = TensorSpec(shape, dtype)
        check_axis("iota", spec, axis)
        integral = dtype if is_float(dtype) else INT64
        check_value("iota", "start", start, integral)
        check_value("iota", "step", step, integral)
        return spec


@reference(IotaOp)
def _iota_reference(
    *, shape: tuple[int, ...], axis: int, dtype: DType, start: float, step: float
) -> Any:
    kind = FLOAT64 if is_float(dtype) else INT64
    index: Any = np.arange(shape[axis]).astype(kind)
    line: Any = np.array(start).astype(kind) + index * np.array(step).astype(kind)
    column = line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(column, shape)


@gradient(IotaOp)
def _iota_gradient(b: Any, call: Any, d_out: Any) -> tuple[()]:
    return ()


@lowering(IotaOp)
def _lower_iota(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    axis: int = call.attrs["axis"]
    dtype = call.output_specs[0].dtype
    kind = FLOAT64 if is_float(dtype) else INT64

    def element(at: list[SSAValue]) -> Any:
        lanes = b.lanes
        index = b.index_to_lane(at[axis], kind)
        scaled = lanes.mul(index, lanes.like(call.attrs["step"], index))
        return lanes.convert(lanes.add(lanes.like(call.attrs["start"], index), scaled), kind, dtype)

    return b.loops(call.output_dims[0], dtype, element)


OPS = (
    ReshapeOp,
    TransposeOp,
    BroadcastOp,
    SliceOp,
    UnsliceOp,
    ReverseOp,
    PadOp,
    ConcatOp,
    RepeatOp,
    TileOp,
    IotaOp,
)
