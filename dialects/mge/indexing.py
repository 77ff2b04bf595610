"""Ops that read or write at places given by data: take, gather, scatter, one_hot, sort.

An index is of any integer dtype and counts from the end when it is negative, as in NumPy.
Compiled code moves an index that is out of range to the nearest end, so that it never
touches foreign memory; the frontend checks indices where their values are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from xdsl.ir import SSAValue

from mgec.dialects.mge.elementwise import NUMBERS, check_dtype
from mgec.dialects.mge.lane import Lane, lane_type
from mgec.dialects.mge.linalg import Dim, LinalgBuilder, LoweringCall
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import accumulator, check_axis
from mgec.dialects.mge.rules import decomposition, gradient, lowering, reference
from mgec.dialects.mge.shape import check_sizes
from mgec.dialects.mge.spec import (
    FLOAT32,
    INT32,
    INT64,
    INTEGERS,
    DType,
    TensorSpec,
    is_float,
)
from mgec.errors import ArgumentError, DTypeError, ShapeError


def _check_not_empty(name: str, axis: int, size: int, indices: TensorSpec) -> None:
    """Raises ShapeError if indices point into an axis that has no elements."""
    if size == 0 and 0 not in indices.shape:
        raise ShapeError(
            f"{name}: axis {axis} has size 0 but there are indices into it",
            values=[("indices", str(indices))],
            fix="give the axis at least one element, or no indices",
        )


def _position(b: LinalgBuilder, indices: SSAValue, at: list[Any], dtype: DType, size: Dim) -> Dim:
    """The index stored at `at`, from the end if negative, moved into range."""
    index = b.lane_to_index(b.load(indices, at, dtype), dtype)
    if dtype.kind == "i":
        lane = Lane(index, "index")
        negative = b.lanes.cmpi("slt", lane, Lane(b.index(0), "index"))
        from_end = Lane(b.index(b.add(index, size)), "index")
        index = b.lanes.select(negative, from_end, lane).ref
    return b.clamp(index, size)


def _in_range(indices: Any, size: int) -> Any:
    """The NumPy form of `_position`."""
    if indices.dtype.kind == "i":
        indices = cast("Any", np.where(indices < 0, indices.astype(np.int64) + size, indices))
    clipped: Any = np.clip(indices, 0, max(size - 1, 0))
    return clipped.astype(np.int64)


def _zeros(b: LinalgBuilder, dims: tuple[Dim, ...], dtype: DType) -> SSAValue:
    return b.fill(dims, dtype, lambda lanes: lanes.constant(0, lane_type(dtype)))


# -- take and its gradient -------------------------------------------------------------


@mge_op
class TakeOp(MgeOp):
    """Slices of the input at `indices` along an axis; an embedding is a take along axis 0.

    Shapes: `axis` of the input is replaced by all axes of `indices`. Dtypes: any; indices
    are integers.
    """

    name = "mge.take"

    @staticmethod
    def infer(inp: TensorSpec, indices: TensorSpec, *, axis: int = 0) -> TensorSpec:
        check_dtype("take", "indices", indices.dtype, INTEGERS)
        check_axis("take", inp, axis)
        _check_not_empty("take", axis, inp.shape[axis], indices)
        return TensorSpec(_taken(inp.shape, indices.shape, axis), inp.dtype)


def _taken(shape: tuple[int, ...], indices: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *indices, *shape[axis + 1 :])


@reference(TakeOp)
def _take_reference(inp: Any, indices: Any, *, axis: int) -> Any:
    if inp.shape[axis] == 0:
        return np.zeros(_taken(inp.shape, indices.shape, axis), inp.dtype)
    return np.take(inp, _in_range(indices, inp.shape[axis]), axis=axis)


@gradient(TakeOp)
def _take_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None]:
    axis, shape = call.attrs["axis"], call.specs[0].shape
    return b.take_grad(d_out, call.inputs[1], axis=axis, shape=shape), None


@lowering(TakeOp)
def _lower_take(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    inp, indices = call.inputs
    (spec, index_spec) = call.specs
    axis: int = call.attrs["axis"]
    size = b.dims(inp)[axis]
    tail = axis + index_spec.rank

    def read(at: list[SSAValue]) -> Lane:
        position = _position(b, indices, at[axis:tail], index_spec.dtype, size)
        return b.load(inp, [*at[:axis], position, *at[tail:]], spec.dtype)

    return b.loops(call.output_dims[0], spec.dtype, read)


@mge_op
class TakeGradOp(MgeOp):
    """Zeros of `shape` with each slice of `d_out` added at its index: the adjoint of `take`.

    Slices of the same index are added in the order of the indices, so that the result is
    the same in every run; 16-bit floats add up in float32.

    Shapes: `d_out` is what `take` gives for an input of `shape`. Dtypes: numbers.
    """

    name = "mge.take_grad"
    runtime_attrs = ("shape",)

    @staticmethod
    def infer(
        d_out: TensorSpec, indices: TensorSpec, *, shape: tuple[int, ...], axis: int = 0
    ) -> TensorSpec:
        check_dtype("take_grad", "d_out", d_out.dtype, NUMBERS)
        check_dtype("take_grad", "indices", indices.dtype, INTEGERS)
        check_sizes("take_grad", shape)
        result = TensorSpec(shape, d_out.dtype)
        check_axis("take_grad", result, axis)
        _check_not_empty("take_grad", axis, shape[axis], indices)
        if (expected := _taken(shape, indices.shape, axis)) != d_out.shape:
            raise ShapeError(
                f"take_grad: d_out has shape {d_out.shape} but a take from {shape} "
                f"has shape {expected}",
                values=[("d_out", str(d_out)), ("indices", str(indices))],
                fix="pass the shape of the input that was taken from",
            )
        return result


@reference(TakeGradOp)
def _take_grad_reference(d_out: Any, indices: Any, *, shape: tuple[int, ...], axis: int) -> Any:
    out = np.zeros(shape, d_out.dtype)
    where: Any = (slice(None),) * axis + (_in_range(indices, shape[axis]),)
    np.add.at(out, where, d_out)
    return out


@gradient(TakeGradOp)
def _take_grad_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None]:
    return b.take(d_out, call.inputs[1], axis=call.attrs["axis"]), None


@lowering(TakeGradOp)
def _lower_take_grad(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    d_out, indices = call.inputs
    (spec, index_spec), (dims,) = call.specs, call.output_dims
    axis: int = call.attrs["axis"]
    wide = accumulator(spec.dtype)
    tail = axis + index_spec.rank

    def add(at: list[SSAValue], out: SSAValue) -> SSAValue:
        position = _position(b, indices, at[axis:tail], index_spec.dtype, dims[axis])
        return _add_at(b, out, [*at[:axis], position, *at[tail:]], d_out, at, spec.dtype)

    total = b.serial(b.dims(d_out), _zeros(b, dims, wide), add)
    return b.convert(total, wide, spec.dtype)


def _add_at(
    b: LinalgBuilder,
    out: SSAValue,
    where: list[Any],
    source: SSAValue,
    at: list[SSAValue],
    dtype: DType,
) -> SSAValue:
    """out[where] += source[at], with `out` in the accumulator's dtype."""
    wide = accumulator(dtype)
    x = b.lanes.convert(b.load(source, at, dtype), dtype, wide)
    return b.store(b.lanes.add(b.load(out, where, wide), x), out, where, wide)


# -- gather and scatter ----------------------------------------------------------------


def _check_indexed(
    name: str, inp: TensorSpec, index: TensorSpec, source: TensorSpec | None, axis: int
) -> None:
    """What gather and scatter ask of their operands."""
    check_dtype(name, "index", index.dtype, INTEGERS)
    check_axis(name, inp, axis)
    values = [("inp", str(inp)), ("index", str(index))]
    if index.rank != inp.rank:
        raise ShapeError(
            f"{name}: inp has rank {inp.rank} but index has rank {index.rank}",
            values=values,
            fix="give index one axis for each axis of inp",
        )
    for i, (size, count) in enumerate(zip(inp.shape, index.shape, strict=True)):
        if i != axis and count > size:
            raise ShapeError(
                f"{name}: index has size {count} on axis {i} but inp has size {size}",
                values=values,
                fix=f"only along axis {axis} may index be longer than inp",
            )
    _check_not_empty(name, axis, inp.shape[axis], index)
    if source is None:
        return
    values.append(("source", str(source)))
    if source.dtype != inp.dtype:
        raise DTypeError(
            f"{name}: inp is {inp.dtype.name} but source is {source.dtype.name}",
            values=values,
            fix=f"convert source with astype({inp.dtype.name!r})",
        )
    if source.shape != index.shape:
        raise ShapeError(
            f"{name}: index has shape {index.shape} but source has shape {source.shape}",
            values=values,
            fix="give source one element for each index",
        )


def _places(index: Any, shape: tuple[int, ...], axis: int) -> tuple[Any, ...]:
    """NumPy coordinates that each element of `index` points to."""
    places: list[Any] = list(cast("Any", np.indices(index.shape)))
    places[axis] = _in_range(index, shape[axis])
    return tuple(places)


@mge_op
class GatherOp(MgeOp):
    """out[i, j, ...] = inp[index[i, j, ...], j, ...], the index standing at `axis`.

    Shapes: the result has the shape of `index`, which has the rank of the input and is not
    larger than it but along `axis`. Dtypes: any; index is integer.
    """

    name = "mge.gather"

    @staticmethod
    def infer(inp: TensorSpec, index: TensorSpec, *, axis: int) -> TensorSpec:
        _check_indexed("gather", inp, index, None, axis)
        return TensorSpec(index.shape, inp.dtype)


@reference(GatherOp)
def _gather_reference(inp: Any, index: Any, *, axis: int) -> Any:
    return inp[_places(index, inp.shape, axis)]


@gradient(GatherOp)
def _gather_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None]:
    inp, index = call.inputs
    return b.scatter_add(b.zeros_like(inp), index, d_out, axis=call.attrs["axis"]), None


@lowering(GatherOp)
def _lower_gather(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    inp, index = call.inputs
    (spec, index_spec) = call.specs
    axis: int = call.attrs["axis"]
    size = b.dims(inp)[axis]

    def read(at: list[SSAValue]) -> Lane:
        position = _position(b, index, at, index_spec.dtype, size)
        return b.load(inp, [*at[:axis], position, *at[axis + 1 :]], spec.dtype)

    return b.loops(call.output_dims[0], spec.dtype, read)


@mge_op
class ScatterOp(MgeOp):
    """The input with out[index[i, j, ...], j, ...] = source[i, j, ...], the index at `axis`.

    Where indices repeat, the last in row-major order wins.

    Shapes: index and source are equal, of the input's rank, and not larger than it but
    along `axis`. Dtypes: any; index is integer.
    """

    name = "mge.scatter"

    @staticmethod
    def infer(inp: TensorSpec, index: TensorSpec, source: TensorSpec, *, axis: int) -> TensorSpec:
        _check_indexed("scatter", inp, index, source, axis)
        return inp


@reference(ScatterOp)
def _scatter_reference(inp: Any, index: Any, source: Any, *, axis: int) -> Any:
    out = inp.copy()
    places = _places(index, inp.shape, axis)
    for at in np.ndindex(index.shape):  # in order: NumPy's own assignment promises none
        out[tuple(p[at] for p in places)] = source[at]
    return out


@gradient(ScatterOp)
def _scatter_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None, Any]:
    """What was overwritten, by source or by a later element of source, gets no gradient."""
    _, index, source = call.inputs
    axis = call.attrs["axis"]
    d_inp = d_source = None
    if call.needs[0]:
        d_inp = b.scatter(d_out, index, b.zeros_like(source), axis=axis)
    if call.needs[2]:
        shape, count = call.specs[2].shape, call.specs[2].size
        mine = b.reshape(b.iota(shape=(count,), axis=0, dtype=INT64), shape)
        nobody = b.full(call.specs[0].shape, -1, INT64)
        winner = b.gather(b.scatter(nobody, index, mine, axis=axis), index, axis=axis)
        arrived = b.gather(d_out, index, axis=axis)
        d_source = b.select(b.equal(winner, mine), arrived, b.scalar(0, d_out))
    return d_inp, None, d_source


@mge_op
class ScatterAddOp(MgeOp):
    """The input with source[i, j, ...] added to out[index[i, j, ...], j, ...], at `axis`.

    Added in the row-major order of source, so that the result is the same in every run;
    16-bit floats add up in float32.

    Shapes: index and source are equal, of the input's rank, and not larger than it but
    along `axis`. Dtypes: numbers; index is integer.
    """

    name = "mge.scatter_add"

    @staticmethod
    def infer(inp: TensorSpec, index: TensorSpec, source: TensorSpec, *, axis: int) -> TensorSpec:
        check_dtype("scatter_add", "inp", inp.dtype, NUMBERS)
        _check_indexed("scatter_add", inp, index, source, axis)
        return inp


@reference(ScatterAddOp)
def _scatter_add_reference(inp: Any, index: Any, source: Any, *, axis: int) -> Any:
    out = inp.copy()
    np.add.at(out, _places(index, inp.shape, axis), source)
    return out


@gradient(ScatterAddOp)
def _scatter_add_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None, Any]:
    axis = call.attrs["axis"]
    d_source = b.gather(d_out, call.inputs[1], axis=axis) if call.needs[2] else None
    return d_out, None, d_source


@lowering(ScatterOp, ScatterAddOp)
def _lower_scatter(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    inp, index, source = call.inputs
    (spec, index_spec, _) = call.specs
    axis: int = call.attrs["axis"]
    adds = call.op is ScatterAddOp
    wide = accumulator(spec.dtype) if adds else spec.dtype
    size = b.dims(inp)[axis]

    def write(at: list[SSAValue], out: SSAValue) -> SSAValue:
        position = _position(b, index, at, index_spec.dtype, size)
        where = [*at[:axis], position, *at[axis + 1 :]]
        if adds:
            return _add_at(b, out, where, source, at, spec.dtype)
        return b.store(b.load(source, at, spec.dtype), out, where, spec.dtype)

    result = b.serial(b.dims(source), b.copy(inp, spec.dtype, wide), write)
    return b.convert(result, wide, spec.dtype)


# -- one_hot ---------------------------------------------------------------------------


@mge_op
class OneHotOp(MgeOp):
    """1 at each index along a new last axis, 0 elsewhere.

    An index outside [0, num_classes) gives zeros only.

    Shapes: the result has an axis of size `num_classes` more. Dtypes: integers to any.
    """

    name = "mge.one_hot"
    runtime_attrs = ("num_classes",)

    @staticmethod
    def infer(indices: TensorSpec, *, num_classes: int, dtype: DType = FLOAT32) -> TensorSpec:
        check_dtype("one_hot", "indices", indices.dtype, INTEGERS)
        if num_classes < 0:
            raise ArgumentError(
                f"one_hot: num_classes is {num_classes}, but cannot be negative",
                fix="use 0 or more",
            )
        return TensorSpec((*indices.shape, num_classes), dtype)


@reference(OneHotOp)
def _one_hot_reference(indices: Any, *, num_classes: int, dtype: DType) -> Any:
    return indices[..., None] == np.arange(num_classes)


@lowering(OneHotOp)
def _lower_one_hot(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (indices,), (index_spec,) = call.inputs, call.specs
    (dims,), dtype = call.output_dims, call.output_specs[0].dtype
    ty = lane_type(dtype)

    def element(at: list[SSAValue]) -> Lane:
        index = b.lane_to_index(b.load(indices, at[:-1], index_spec.dtype), index_spec.dtype)
        hot = b.lanes.cmpi("eq", Lane(index, "index"), Lane(at[-1], "index"))
        return b.lanes.select(hot, b.lanes.constant(1, ty), b.lanes.constant(0, ty))

    return b.loops(dims, dtype, element)


# -- sort ------------------------------------------------------------------------------


@mge_op
class SortOp(MgeOp):
    """Sorted elements along an axis, and where each came from.

    Stable: ties keep their order. NaN comes last, ascending and descending.

    Shapes: any, kept twice. Dtypes: numbers; the indices are int32.
    """

    name = "mge.sort"
    results_names = ("out", "indices")

    @staticmethod
    def infer(
        inp: TensorSpec, *, axis: int, descending: bool = False
    ) -> tuple[TensorSpec, TensorSpec]:
        check_dtype("sort", "inp", inp.dtype, NUMBERS)
        check_axis("sort", inp, axis)
        return inp, TensorSpec(inp.shape, INT32)


@reference(SortOp)
def _sort_reference(inp: Any, *, axis: int, descending: bool) -> tuple[Any, Any]:
    if not descending:
        order = np.argsort(inp, axis=axis, kind="stable")
    else:  # sort the mirror image, so that ties keep their order; NaN still comes last
        if inp.dtype.kind == "f":
            mirrored = -inp
        else:
            mirrored = ~inp  # reverses the order of integers, without overflow
        order = np.argsort(mirrored, axis=axis, kind="stable")
    return np.take_along_axis(inp, order, axis), order


@gradient(SortOp)
def _sort_gradient(b: Any, call: Any, d_out: Any, d_indices: Any) -> tuple[Any]:
    zeros = b.zeros_like(call.inputs[0])
    return (b.scatter(zeros, call.outputs[1], d_out, axis=call.attrs["axis"]),)


@lowering(SortOp)
def _lower_sort(b: LinalgBuilder, call: LoweringCall) -> tuple[SSAValue, SSAValue]:
    """Merge sort of the indices, bottom up, between the two halves of one buffer.

    A pass merges pairs of sorted runs of `width`: an element's new place is its rank in its
    own run plus its rank in the other, found by bisection.
    """
    (inp,), (spec,), (dims, _) = call.inputs, call.specs, call.output_dims
    axis: int = call.attrs["axis"]
    descending, dtype = call.attrs["descending"], spec.dtype
    lanes = b.lanes
    size = dims[axis]
    one, true = Lane(b.index(1), "index"), lanes.constant(1, "i1")

    def along(at: list[SSAValue], position: Dim) -> list[Dim]:
        return [*at[:axis], position, *at[axis + 1 :]]

    def entry(order: SSAValue, half: Dim, at: Sequence[Dim]) -> Lane:
        return b.load(order, [half, *at], INT32)

    def element(index: Lane, at: list[SSAValue]) -> Lane:
        return b.load(inp, along(at, b.lane_to_index(index, INT32)), dtype)

    def before(x: Lane, y: Lane) -> Lane:
        """Whether x must stand before y; false for ties."""
        if is_float(dtype):
            wide = accumulator(dtype)
            x, y = lanes.convert(x, dtype, wide), lanes.convert(y, dtype, wide)
            less = lanes.cmpf("ogt" if descending else "olt", x, y)
            only_y_nan = lanes.and_(lanes.cmpf("ord", x, x), lanes.cmpf("uno", y, y))
            return lanes.or_(less, only_y_nan)
        sign = "u" if dtype.kind == "u" else "s"
        return lanes.cmpi(sign + ("gt" if descending else "lt"), x, y)

    def move(indices: list[SSAValue], order: SSAValue) -> SSAValue:
        step, at = indices[0], indices[1:]
        source = b.mod(step, 2)
        width = lanes.shl(one, Lane(step, "index")).ref
        place = at[axis]
        run = lanes.shr(Lane(place, "index"), Lane(step, "index")).ref
        in_right = b.mod(run, 2)
        is_right = lanes.cmpi("eq", Lane(b.index(in_right), "index"), one)
        first = b.mul(b.sub(run, in_right), width)
        other = b.minimum(b.add(first, b.mul(width, b.sub(1, in_right))), size)
        other_end = b.minimum(b.add(other, width), size)
        origin = entry(order, source, at)
        mine = element(origin, at)

        def bisect(bounds: list[Lane]) -> list[Lane]:
            low, high = bounds
            middle = b.floordiv(b.add(low.ref, high.ref), 2)
            theirs = element(entry(order, source, along(at, b.clamp(middle, size))), at)
            not_after = lanes.xor(before(mine, theirs), true)
            goes_up = lanes.select(is_right, not_after, before(theirs, mine))
            is_open = lanes.cmpi("slt", low, high)
            up = lanes.and_(is_open, goes_up)
            down = lanes.and_(is_open, lanes.xor(goes_up, true))
            above = Lane(b.index(b.add(middle, 1)), "index")
            return [
                lanes.select(up, above, low),
                lanes.select(down, Lane(b.index(middle), "index"), high),
            ]

        bounds = [Lane(b.index(x), "index") for x in (other, other_end)]
        rank, _ = b.iterate(b.add(step, 1), bounds, bisect)
        within = b.sub(place, b.mul(run, width))
        target = b.add(b.sub(rank.ref, other), b.add(first, within))
        return b.store(origin, order, [b.sub(1, source), *along(at, target)], INT32)

    def counted(at: list[SSAValue]) -> Lane:
        position = at[axis + 1]
        return b.index_to_lane(position, INT32)

    passes = b.log2_ceil(size)
    start = b.loops([2, *dims], INT32, counted)
    sorted_ = b.serial([passes, *dims], start, move)
    order = b.loops(dims, INT32, lambda at: entry(sorted_, b.mod(passes, 2), at))
    out = b.loops(dims, dtype, lambda at: element(b.load(order, at, INT32), at))
    return out, order


@mge_op
class TopkOp(MgeOp):
    """The k largest elements along an axis, largest first, and where they came from.

    The k smallest, smallest first, with `descending` false. Ties come in their order, NaN
    last.

    Shapes: `axis` gets size k. Dtypes: numbers; the indices are int32.
    """

    name = "mge.topk"
    results_names = ("out", "indices")

    @staticmethod
    def infer(
        inp: TensorSpec, *, k: int, axis: int, descending: bool = True
    ) -> tuple[TensorSpec, TensorSpec]:
        check_dtype("topk", "inp", inp.dtype, NUMBERS)
        check_axis("topk", inp, axis)
        if not 0 <= k <= inp.shape[axis]:
            raise ArgumentError(
                f"topk: k is {k} but axis {axis} has size {inp.shape[axis]}",
                values=[("inp", str(inp))],
                fix="use a k from 0 to the size of the axis",
            )
        shape = (*inp.shape[:axis], k, *inp.shape[axis + 1 :])
        return TensorSpec(shape, inp.dtype), TensorSpec(shape, INT32)


@reference(TopkOp)
def _topk_reference(inp: Any, *, k: int, axis: int, descending: bool) -> tuple[Any, Any]:
    values, order = _sort_reference(inp, axis=axis, descending=descending)
    first = (slice(None),) * axis + (slice(k),)
    return values[first], order[first]


@decomposition(TopkOp)
def _topk_decomposition(
    b: Any, inp: Any, *, k: int, axis: int, descending: bool
) -> tuple[Any, Any]:
    shape = b.spec(inp).shape
    bounds = {
        "starts": (0,) * len(shape),
        "stops": tuple(k if i == axis else d for i, d in enumerate(shape)),
        "steps": (1,) * len(shape),
    }
    values, order = b.sort(inp, axis=axis, descending=descending)
    return b.slice(values, **bounds), b.slice(order, **bounds)


OPS = (
    TakeOp,
    TakeGradOp,
    GatherOp,
    ScatterOp,
    ScatterAddOp,
    OneHotOp,
    SortOp,
    TopkOp,
)
