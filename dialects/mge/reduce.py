"""Reductions over axes, arg-reductions and cumulative sums.

Float16 and bfloat16 accumulate in float32. Integers wrap. The sum over nothing is 0 and
the product 1; a maximum over nothing is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from xdsl.ir import SSAValue

from mgec.dialects.mge.elementwise import NUMBERS, check_dtype
from mgec.dialects.mge.lane import Lane, LaneBuilder, lane_type, storage_type
from mgec.dialects.mge.linalg import LinalgBuilder, LoweringCall
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import decomposition, gradient, lowering, reference
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOATS,
    INT32,
    DType,
    TensorSpec,
    is_float,
)
from mgec.errors import AxisError, ShapeError


def check_axis(name: str, inp: TensorSpec, axis: int) -> None:
    """Raises AxisError unless 0 <= axis < rank; negative axes end in the frontend."""
    if not 0 <= axis < inp.rank:
        raise AxisError(
            f"{name}: axis {axis} is out of range for rank {inp.rank}",
            values=[("inp", str(inp))],
            fix=f"use an axis from 0 to {inp.rank - 1}" if inp.rank else "the input has no axes",
        )


def check_axes(name: str, inp: TensorSpec, axes: tuple[int, ...]) -> None:
    """Raises AxisError unless every axis exists and none repeats."""
    for axis in axes:
        check_axis(name, inp, axis)
    if len(set(axes)) != len(axes):
        raise AxisError(
            f"{name}: axes {axes} repeat an axis",
            values=[("inp", str(inp))],
            fix="name each axis once",
        )


def check_not_empty(name: str, inp: TensorSpec, axes: tuple[int, ...]) -> None:
    """Raises ShapeError if one of `axes` has size 0, over which nothing is largest."""
    for axis in axes:
        if inp.shape[axis] == 0:
            raise ShapeError(
                f"{name}: axis {axis} has size 0 but the result needs at least one element",
                values=[("inp", str(inp))],
                fix="give the axis at least one element",
            )


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """`shape` without `axes`, or with 1 in their places."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def accumulator(dtype: DType) -> DType:
    """The dtype sums of `dtype` are kept in: float32 for the 16-bit floats."""
    return FLOAT32 if dtype in (FLOAT16, BFLOAT16) else dtype


class ReduceOp(MgeOp):
    """Base of the reductions that fold a two-operand function; the table fills it in."""

    dtypes: ClassVar[tuple[DType, ...]] = NUMBERS
    empty: ClassVar[bool] = True

    @classmethod
    def infer_reduce(cls, inp: TensorSpec, axes: tuple[int, ...], keepdims: bool) -> TensorSpec:
        """Common inference: a legal dtype, each axis once, `axes` gone or 1."""
        name = cls.name.removeprefix("mge.")
        check_dtype(name, "inp", inp.dtype, cls.dtypes)
        check_axes(name, inp, axes)
        if not cls.empty:
            check_not_empty(name, inp, axes)
        return TensorSpec(reduced_shape(inp.shape, axes, keepdims), inp.dtype)


class _Row(NamedTuple):
    """One reduction: `combine(b, acc, x, dtype)` folds, starting from `init(dtype)`."""

    name: str
    doc: str
    dtypes: tuple[DType, ...]
    empty: bool
    reference: Callable[..., Any]
    init: Callable[[DType], float]
    combine: Callable[[LaneBuilder, Lane, Lane, DType], Lane]
    gradient: Callable[..., tuple[Any, ...]] | None


def _define(row: _Row) -> type[ReduceOp]:
    """Makes the op class of one table row and registers its rules."""

    def infer(inp: TensorSpec, *, axes: tuple[int, ...], keepdims: bool = False) -> TensorSpec:
        return defined.infer_reduce(inp, axes, keepdims)

    fields = {
        "__doc__": f"{row.doc}\n\n    Shapes: any; `axes` go, or become 1 with `keepdims`. "
        f"Dtypes: {', '.join(d.name for d in row.dtypes)}.",
        "__module__": __name__,
        "name": f"mge.{row.name}",
        "dtypes": row.dtypes,
        "empty": row.empty,
        "infer": staticmethod(infer),
    }
    class_name = "".join(part.capitalize() for part in row.name.split("_")) + "Op"
    defined = cast("type[ReduceOp]", mge_op(type(class_name, (ReduceOp,), fields)))

    def lower(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
        dtype = call.specs[0].dtype
        acc = accumulator(dtype)
        return b.reduce(
            call.inputs[0],
            dtype,
            call.attrs["axes"],
            call.output_dims[0],
            lambda total, x: row.combine(b.lanes, total, x, acc),
            lambda lanes: lanes.constant(row.init(acc), lane_type(acc)),
            acc,
        )

    def evaluate(inp: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
        return row.reference(inp, axis=axes, keepdims=keepdims)

    lowering(defined)(lower)
    reference(defined)(evaluate)
    if row.gradient is not None:
        gradient(defined)(row.gradient)
    return defined


def _fold(name: str) -> Callable[[LaneBuilder, Lane, Lane, DType], Lane]:
    """Folds with the method `name` of the lane builder."""

    def combine(b: LaneBuilder, acc: Lane, x: Lane, dtype: DType) -> Lane:
        return getattr(b, name)(acc, x)

    return combine


def _start(value: float) -> Callable[[DType], float]:
    """The same start for every dtype."""
    return lambda dtype: value


def _with_ones(b: Any, call: Any, value: Any) -> Any:
    """A reduced value with its axes back as 1s, so that it broadcasts against the input."""
    return b.reshape(value, reduced_shape(call.specs[0].shape, call.attrs["axes"], True))


def _grad_sum(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.broadcast(_with_ones(b, call, d_out), call.specs[0].shape),)


def _grad_prod(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    """Exact with zeros: an element's gradient is the product of all the others."""
    (inp,), axes = call.inputs, call.attrs["axes"]
    zero, one = b.scalar(0, inp), b.scalar(1, inp)
    is_zero = b.equal(inp, zero)
    nonzero = b.select(is_zero, one, inp)
    zeros = b.reduce_sum(b.cast(is_zero, call.specs[0].dtype), axes=axes, keepdims=True)
    product = b.reduce_prod(nonzero, axes=axes, keepdims=True)
    at_zero = b.select(b.equal(zeros, one), product, zero)
    elsewhere = b.select(b.equal(zeros, zero), b.div(product, nonzero), zero)
    return (b.mul(_with_ones(b, call, d_out), b.select(is_zero, at_zero, elsewhere)),)


def _grad_extremum(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    """Elements that tie for the extremum share the gradient equally."""
    (inp,), axes = call.inputs, call.attrs["axes"]
    dtype = call.specs[0].dtype
    wins = b.equal(inp, _with_ones(b, call, call.outputs[0]))
    # Counted in float32: 2049 ones in float16 would count as 2048.
    wide = accumulator(dtype)
    count = b.reduce_sum(b.cast(wins, wide), axes=axes, keepdims=True)
    share = b.cast(b.div(b.cast(_with_ones(b, call, d_out), wide), count), dtype)
    return (b.select(wins, share, b.scalar(0, d_out)),)


def _lowest(dtype: DType) -> float:
    return -np.inf if is_float(dtype) else int(np.iinfo(cast("Any", dtype)).min)


def _highest(dtype: DType) -> float:
    return np.inf if is_float(dtype) else int(np.iinfo(cast("Any", dtype)).max)


def _extremum(name: str) -> Callable[[LaneBuilder, Lane, Lane, DType], Lane]:
    def combine(b: LaneBuilder, acc: Lane, x: Lane, dtype: DType) -> Lane:
        if is_float(dtype):
            return b.op(f"arith.{name}imumf", (acc, x), acc.ty)
        return b.op(f"arith.{name}{'u' if dtype.kind == 'u' else 's'}i", (acc, x), acc.ty)

    return combine


def _wrapping(ufunc: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy widens small integers in sums and products; ours keep their dtype and wrap."""

    def evaluate(x: Any, **options: Any) -> Any:
        return ufunc(x, dtype=x.dtype, **options)

    return evaluate


_ROWS = (
    _Row("reduce_sum", "Sum over axes; 0 over nothing.", NUMBERS, True, _wrapping(np.sum),
         _start(0), _fold("add"), _grad_sum),
    _Row("reduce_prod", "Product over axes; 1 over nothing.", NUMBERS, True, _wrapping(np.prod),
         _start(1), _fold("mul"), _grad_prod),
    _Row("reduce_max", "Largest element over axes; NaN if there is one.", NUMBERS, False, np.max,
         _lowest, _extremum("max"), _grad_extremum),
    _Row("reduce_min", "Smallest element over axes; NaN if there is one.", NUMBERS, False, np.min,
         _highest, _extremum("min"), _grad_extremum),
    _Row("reduce_all", "Whether all elements over axes are true.", (BOOL,), True, np.all,
         _start(1), _fold("and_"), None),
    _Row("reduce_any", "Whether any element over axes is true.", (BOOL,), True, np.any,
         _start(0), _fold("or_"), None),
)  # fmt: skip

REDUCTIONS = tuple(_define(row) for row in _ROWS)


@mge_op
class ReduceMeanOp(MgeOp):
    """Mean over axes; NaN over nothing. Sums and divides in float32 or wider.

    Shapes: any; `axes` go, or become 1 with `keepdims`. Dtypes: the floats.
    """

    name = "mge.reduce_mean"

    @staticmethod
    def infer(inp: TensorSpec, *, axes: tuple[int, ...], keepdims: bool = False) -> TensorSpec:
        check_dtype("reduce_mean", "inp", inp.dtype, FLOATS)
        check_axes("reduce_mean", inp, axes)
        return TensorSpec(reduced_shape(inp.shape, axes, keepdims), inp.dtype)


@reference(ReduceMeanOp)
def _mean_reference(inp: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    count = np.prod([inp.shape[i] for i in axes], dtype=np.float64)
    return np.sum(inp, axis=axes, keepdims=keepdims) / count


@decomposition(ReduceMeanOp)
def _mean_decomposition(b: Any, inp: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    spec = b.spec(inp)
    wide = b.cast(inp, accumulator(spec.dtype))
    total = b.reduce_sum(wide, axes=axes, keepdims=keepdims)
    count = float(np.prod([spec.shape[i] for i in axes], dtype=np.float64))
    return b.cast(b.div(total, b.scalar(count, wide)), spec.dtype)


# -- arg-reductions --------------------------------------------------------------------


def _infer_arg(name: str, inp: TensorSpec, axis: int, keepdims: bool) -> TensorSpec:
    """One axis that is not empty; int32 result."""
    check_dtype(name, "inp", inp.dtype, NUMBERS)
    check_axis(name, inp, axis)
    check_not_empty(name, inp, (axis,))
    return TensorSpec(reduced_shape(inp.shape, (axis,), keepdims), INT32)


@mge_op
class ArgmaxOp(MgeOp):
    """Index of the largest element along an axis: the first of ties, or the first NaN.

    Shapes: any; `axis` goes, or becomes 1 with `keepdims`. Dtypes: numbers to int32.
    """

    name = "mge.argmax"

    @staticmethod
    def infer(inp: TensorSpec, *, axis: int, keepdims: bool = False) -> TensorSpec:
        return _infer_arg("argmax", inp, axis, keepdims)


@mge_op
class ArgminOp(MgeOp):
    """Index of the smallest element along an axis: the first of ties, or the first NaN.

    Shapes: any; `axis` goes, or becomes 1 with `keepdims`. Dtypes: numbers to int32.
    """

    name = "mge.argmin"

    @staticmethod
    def infer(inp: TensorSpec, *, axis: int, keepdims: bool = False) -> TensorSpec:
        return _infer_arg("argmin", inp, axis, keepdims)


@reference(ArgmaxOp)
def _argmax_reference(inp: Any, *, axis: int, keepdims: bool) -> Any:
    return np.argmax(inp, axis=axis, keepdims=keepdims)


@reference(ArgminOp)
def _argmin_reference(inp: Any, *, axis: int, keepdims: bool) -> Any:
    return np.argmin(inp, axis=axis, keepdims=keepdims)


@lowering(ArgmaxOp, ArgminOp)
def _lower_arg(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    """The accumulator is the best index so far; its element is read again to compare."""
    (inp,) = call.inputs
    axis: int = call.attrs["axis"]
    dtype = call.specs[0].dtype
    wide = accumulator(dtype)
    largest = call.op is ArgmaxOp

    def read(indices: list[SSAValue], at: SSAValue) -> Lane:
        outer = indices[:-1]
        tail = outer[axis + 1 :] if call.attrs["keepdims"] else outer[axis:]
        return b.lanes.convert(b.load(inp, [*outer[:axis], at, *tail], dtype), dtype, wide)

    def body(indices: list[SSAValue], best: Lane) -> Lane:
        champion = read(indices, b.lane_to_index(best, INT32))
        x = read(indices, indices[-1])
        if is_float(dtype):
            wins = b.lanes.cmpf("ogt" if largest else "olt", x, champion)
            first_nan = b.lanes.and_(
                b.lanes.cmpf("uno", x, x), b.lanes.cmpf("ord", champion, champion)
            )
            wins = b.lanes.or_(wins, first_nan)
        else:
            sign = "u" if dtype.kind == "u" else "s"
            wins = b.lanes.cmpi(sign + ("gt" if largest else "lt"), x, champion)
        return b.lanes.select(wins, b.index_to_lane(indices[-1], INT32), best)

    size = b.dims(inp)[axis]
    return b.loops(
        call.output_dims[0],
        INT32,
        body,
        reduce=[size],
        init=lambda lanes: lanes.constant(0, "i32"),
    )


# -- cumulative sum --------------------------------------------------------------------


@mge_op
class CumsumOp(MgeOp):
    """Running sum along an axis; float16 and bfloat16 run in float32.

    `exclusive` leaves an element out of its own sum (the first is 0); `reverse` sums from
    the end.

    Shapes: any, kept. Dtypes: numbers; integers wrap.
    """

    name = "mge.cumsum"

    @staticmethod
    def infer(
        inp: TensorSpec, *, axis: int, exclusive: bool = False, reverse: bool = False
    ) -> TensorSpec:
        check_dtype("cumsum", "inp", inp.dtype, NUMBERS)
        check_axis("cumsum", inp, axis)
        return inp


@reference(CumsumOp)
def _cumsum_reference(inp: Any, *, axis: int, exclusive: bool, reverse: bool) -> Any:
    ordered = np.flip(inp, axis) if reverse else inp
    total = np.cumsum(ordered, axis=axis, dtype=inp.dtype)
    if exclusive and inp.shape[axis]:
        total = np.roll(total, 1, axis)
        total[(slice(None),) * axis + (0,)] = 0
    return np.flip(total, axis) if reverse else total


@gradient(CumsumOp)
def _cumsum_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.cumsum(d_out, **{**call.attrs, "reverse": not call.attrs["reverse"]}),)


@lowering(CumsumOp)
def _lower_cumsum(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    (inp,) = call.inputs
    axis: int = call.attrs["axis"]
    exclusive, reverse = call.attrs["exclusive"], call.attrs["reverse"]
    dtype = call.specs[0].dtype
    wide = accumulator(dtype)
    dims = call.output_dims[0]
    size = dims[axis]

    def body(indices: list[SSAValue], out: SSAValue) -> SSAValue:
        step = indices[axis]

        def at(position: Any) -> list[Any]:
            place = b.sub(b.sub(size, 1), position) if reverse else position
            return [*indices[:axis], place, *indices[axis + 1 :]]

        before = at(b.clamp(b.sub(step, 1), size))
        total = b.load(out, before, wide)
        x = b.lanes.convert(b.load(inp, before if exclusive else at(step), dtype), dtype, wide)
        is_first = b.lanes.cmpi("eq", Lane(step, "index"), Lane(b.index(0), "index"))
        zero = b.lanes.like(0, x)
        first = zero if exclusive else x
        value = b.lanes.select(is_first, first, b.lanes.add(total, x))
        return b.store(value, out, at(step), wide)

    out = b.serial(dims, b.empty(dims, storage_type(wide)), body)
    return b.convert(out, wide, dtype)


OPS = (*REDUCTIONS, ReduceMeanOp, ArgmaxOp, ArgminOp, CumsumOp)
