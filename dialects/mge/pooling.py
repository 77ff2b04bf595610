"""2-D pooling: the largest or the mean element of every window, and how gradients go back.

A window that would see padding only is refused, so a maximum always has a winner and a
mean something to divide by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mgec.dialects.mge.convolution import (
    INP_ROLE,
    Values,
    check_numbers,
    check_rank,
    output_sizes,
)
from mgec.dialects.mge.elementwise import NUMBERS, check_dtype
from mgec.dialects.mge.lane import lane_type
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.rules import gradient, lowering, reference
from mgec.dialects.mge.spec import DYNAMIC, FLOATS, INT32, DType, TensorSpec, is_float
from mgec.errors import ArgumentError, DTypeError, ShapeError

if TYPE_CHECKING:
    from mgec.dialects.mge.lane import Lane, LaneBuilder
    from mgec.dialects.mge.linalg import Dim, LinalgBuilder, LoweringCall

_OUT_ROLE = "(N, C, OH, OW)"
_GEOMETRY = ("kernel", "stride", "padding")


def _pool(
    name: str,
    inp_size: Sequence[int],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    values: Values,
) -> tuple[int, int]:
    """Checks kernel, stride and padding; returns how many windows there are."""
    check_numbers(name, 1, {"kernel": (kernel, 2), "stride": (stride, 2)})
    check_numbers(name, 0, {"padding": (padding, 4)})
    for i, pad in enumerate(padding):
        if pad >= kernel[i // 2]:
            raise ArgumentError(
                f"{name}: padding is {list(padding)} but kernel is {list(kernel)}, "
                "so some windows see padding only",
                values=values,
                fix="make the padding smaller than the kernel on every side",
            )
    return output_sizes(name, "input", inp_size, kernel, stride, padding, (1, 1), values)


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
class MaxPool2dOp(MgeOp):
    """Largest element of every window; NaN if one is NaN. Padding never wins.

    Shapes: inp [N, C, H, W], result [N, C, OH, OW] with
    OH = (H + top + bottom - kernel) // stride + 1. `kernel` and `stride` are for (height,
    width), `padding` for (top, bottom, left, right) and smaller than the kernel. Dtypes: any
    number.
    """

    name = "mge.max_pool2d"

    @staticmethod
    def infer(
        inp: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] = (0, 0, 0, 0),
    ) -> TensorSpec:
        return _max_pool_spec("max_pool2d", inp, kernel, stride, padding)


def _max_pool_spec(
    name: str,
    inp: TensorSpec,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> TensorSpec:
    values = [("inp", str(inp), INP_ROLE)]
    check_rank(name, "inp", inp, INP_ROLE, values)
    check_dtype(name, "inp", inp.dtype, NUMBERS)
    windows = _pool(name, inp.shape[2:], kernel, stride, padding, values)
    return TensorSpec((*inp.shape[:2], *windows), inp.dtype)


@mge_op
class MaxPool2dGradOp(MgeOp):
    """Gradient of max_pool2d: every window hands its gradient to its winner.

    The winner is the first element, row by row, that equals the maximum (the first NaN if
    there is one).

    Shapes: d_out and pooled [N, C, OH, OW], inp [N, C, H, W], result [N, C, H, W]; attributes
    as in max_pool2d. Dtypes: the floats, all equal.
    """

    name = "mge.max_pool2d_grad"

    @staticmethod
    def infer(
        d_out: TensorSpec,
        inp: TensorSpec,
        pooled: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] = (0, 0, 0, 0),
    ) -> TensorSpec:
        name = "max_pool2d_grad"
        expected = _max_pool_spec(name, inp, kernel, stride, padding)
        values = [
            ("d_out", str(d_out), _OUT_ROLE),
            ("inp", str(inp), INP_ROLE),
            ("pooled", str(pooled), _OUT_ROLE),
        ]
        check_dtype(name, "inp", inp.dtype, FLOATS)
        _check_like(name, "pooled", pooled, expected, values)
        _check_like(name, "d_out", d_out, expected, values)
        return inp


@mge_op
class MaxPool2dPickOp(MgeOp):
    """The element of `values` that stands where each window of `inp` has its winner.

    This is the gradient of max_pool2d_grad with respect to d_out.

    Shapes: values and inp [N, C, H, W], pooled and the result [N, C, OH, OW]; attributes as in
    max_pool2d. Dtypes: the floats, all equal.
    """

    name = "mge.max_pool2d_pick"

    @staticmethod
    def infer(
        values: TensorSpec,
        inp: TensorSpec,
        pooled: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] = (0, 0, 0, 0),
    ) -> TensorSpec:
        name = "max_pool2d_pick"
        expected = _max_pool_spec(name, inp, kernel, stride, padding)
        shown = [
            ("values", str(values), INP_ROLE),
            ("inp", str(inp), INP_ROLE),
            ("pooled", str(pooled), _OUT_ROLE),
        ]
        check_dtype(name, "inp", inp.dtype, FLOATS)
        _check_like(name, "pooled", pooled, expected, shown)
        if values != inp:
            raise ShapeError(
                f"{name}: values is {values} but inp is {inp}",
                values=shown,
                fix="pass values of the shape and dtype of inp",
            )
        return expected


def _patches(inp: Any, fill: Any, attrs: Mapping[str, Any]) -> Any:
    """[N, C, OH, OW, kernel elements in row-major order], with `fill` for padding."""
    (kh, kw), (sh, sw) = attrs["kernel"], attrs["stride"]
    top, bottom, left, right = attrs["padding"]
    pads = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(inp, pads, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(2, 3))
    view = view[:, :, ::sh, ::sw]
    return view.reshape(*view.shape[:4], kh * kw)


def _lowest(dtype: DType) -> float:
    if is_float(dtype):
        return float("-inf")
    return 0 if dtype.kind == "u" else -(2 ** (dtype.itemsize * 8 - 1))


@reference(MaxPool2dOp)
def _max_pool_reference(inp: Any, **attrs: Any) -> Any:
    return _patches(inp, _lowest(inp.dtype), attrs).max(axis=-1)


def _winners(inp: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """Index arrays of the winner of every window, each [N, C, OH, OW]."""
    best: Any = np.argmax(_patches(inp, -np.inf, attrs), axis=-1)  # first maximum, or first NaN
    seen = _patches(np.ones_like(inp), 0, attrs)
    # A window of -inf only: the first of its elements that is not padding.
    alone = np.take_along_axis(seen, best[..., None], -1)[..., 0] == 0
    tap = cast("np.ndarray[Any, Any]", np.where(alone, np.argmax(seen, axis=-1), best))
    n, c, y, x = cast("Any", np.indices(tap.shape))
    rows = y * attrs["stride"][0] + tap // attrs["kernel"][1] - attrs["padding"][0]
    columns = x * attrs["stride"][1] + tap % attrs["kernel"][1] - attrs["padding"][2]
    return n, c, rows, columns


@reference(MaxPool2dGradOp)
def _max_grad_reference(d_out: Any, inp: Any, pooled: Any, **attrs: Any) -> Any:
    result = np.zeros_like(inp)
    np.add.at(result, _winners(inp, attrs), d_out)
    return result


@reference(MaxPool2dPickOp)
def _max_pick_reference(values: Any, inp: Any, pooled: Any, **attrs: Any) -> Any:
    return values[_winners(inp, attrs)]


def _attributes(call: Any) -> dict[str, Any]:
    return {key: call.attrs[key] for key in _GEOMETRY}


@gradient(MaxPool2dOp)
def _max_pool_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    return (b.max_pool2d_grad(d_out, call.inputs[0], call.outputs[0], **_attributes(call)),)


@gradient(MaxPool2dGradOp)
def _max_grad_gradient(b: Any, call: Any, d_inp: Any) -> tuple[Any, None, None]:
    if not call.needs[0]:
        return None, None, None
    _, inp, pooled = call.inputs
    return b.max_pool2d_pick(d_inp, inp, pooled, **_attributes(call)), None, None


@gradient(MaxPool2dPickOp)
def _max_pick_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any, None, None]:
    if not call.needs[0]:
        return None, None, None
    _, inp, pooled = call.inputs
    return b.max_pool2d_grad(d_out, inp, pooled, **_attributes(call)), None, None


def _element(
    b: LinalgBuilder, value: Any, dtype: DType, at: Sequence[Dim], attrs: Mapping[str, Any]
) -> tuple[Lane, Lane]:
    """The input element of (n, c, window row, column, tap row, column), and whether it exists."""
    position: list[Dim] = []
    valid: list[Lane] = []
    for i in range(2):
        start = b.sub(b.mul(at[2 + i], attrs["stride"][i]), attrs["padding"][2 * i])
        index, size = b.add(start, at[4 + i]), b.dims(value)[2 + i]
        valid.append(b.in_range(index, 0, size))
        position.append(b.clamp(index, size))
    return b.load(value, [*at[:2], *position], dtype), b.lanes.and_(*valid)


@lowering(MaxPool2dOp)
def _max_pool_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (inp,), (spec,), attrs, lanes = call.inputs, call.specs, call.attrs, b.lanes
    best_dtype = accumulator(spec.dtype)  # few targets compare 16-bit floats

    def body(at: Sequence[Dim], best: Lane) -> Lane:
        element, valid = _element(b, inp, spec.dtype, at, attrs)
        element = lanes.convert(element, spec.dtype, best_dtype)
        if best.is_float:
            larger = lanes.maximum(best, element)
        else:
            predicate = "ugt" if spec.dtype.kind == "u" else "sgt"
            larger = lanes.select(lanes.cmpi(predicate, element, best), element, best)
        return lanes.select(valid, larger, best)

    def lowest(builder: LaneBuilder) -> Lane:
        return builder.constant(_lowest(spec.dtype), lane_type(best_dtype))

    return b.loops(
        call.output_dims[0],
        spec.dtype,
        body,
        reduce=attrs["kernel"],
        init=lowest,
        accumulate=best_dtype,
    )


def _winner_taps(b: LinalgBuilder, call: LoweringCall) -> Any:
    """For every window the tap (row * width + column) of its winner, as int32."""
    (_, inp, pooled), attrs, lanes = call.inputs, call.attrs, b.lanes
    dtype = call.specs[1].dtype
    wide = accumulator(dtype)

    def body(at: Sequence[Dim], tap: Lane) -> Lane:
        element, valid = _element(b, inp, dtype, at, attrs)
        best = lanes.convert(b.load(pooled, at[:4], dtype), dtype, wide)
        element = lanes.convert(element, dtype, wide)
        # With a NaN in the window the maximum is NaN, which equals nothing: find the NaN.
        same = lanes.cmpf("oeq", element, best)
        same = lanes.or_(same, lanes.cmpf("uno", element, element))
        free = lanes.cmpi("slt", tap, lanes.like(0, tap))
        here = b.index_to_lane(b.add(b.mul(at[4], attrs["kernel"][1]), at[5]), INT32)
        return lanes.select(lanes.and_(valid, lanes.and_(same, free)), here, tap)

    def none(builder: LaneBuilder) -> Lane:
        return builder.constant(-1, "i32")

    return b.loops(b.dims(pooled), INT32, body, reduce=attrs["kernel"], init=none)


def _windows_of(
    b: LinalgBuilder, sizes: Sequence[Dim], at: Sequence[Dim], attrs: Mapping[str, Any]
) -> tuple[list[Dim], Lane]:
    """The window that has input element (n, c, h, w) at tap (row, column), and if there is one."""
    position: list[Dim] = []
    valid: Lane | None = None
    for i in range(2):
        stride = attrs["stride"][i]
        index = b.sub(b.add(at[2 + i], attrs["padding"][2 * i]), at[4 + i])
        bound = b.mul(sizes[i], stride)
        inside = b.in_range(index, 0, bound)
        index = b.clamp(index, bound)
        if stride != 1:
            inside = b.lanes.and_(inside, b.in_range(b.mod(index, stride), 0, 1))
        position.append(b.floordiv(index, stride))
        valid = inside if valid is None else b.lanes.and_(valid, inside)
    assert valid is not None
    return [*at[:2], *position], valid


def _zero(dtype: DType) -> Callable[[LaneBuilder], Lane]:
    return lambda builder: builder.constant(0, lane_type(dtype))


@lowering(MaxPool2dGradOp)
def _max_grad_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    d_out, attrs, lanes = call.inputs[0], call.attrs, b.lanes
    dtype = call.specs[0].dtype
    total_dtype = accumulator(dtype)
    taps = _winner_taps(b, call)

    def body(at: Sequence[Dim], total: Lane) -> Lane:
        window, valid = _windows_of(b, b.dims(d_out)[2:], at, attrs)
        winner = b.load(taps, window, INT32)
        here = b.index_to_lane(b.add(b.mul(at[4], attrs["kernel"][1]), at[5]), INT32)
        wins = lanes.and_(valid, lanes.cmpi("eq", winner, here))
        more = lanes.convert(b.load(d_out, window, dtype), dtype, total_dtype)
        return lanes.select(wins, lanes.add(total, more), total)

    return b.loops(
        call.output_dims[0],
        dtype,
        body,
        reduce=attrs["kernel"],
        init=_zero(total_dtype),
        accumulate=total_dtype,
    )


@lowering(MaxPool2dPickOp)
def _max_pick_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    values, attrs, dtype = call.inputs[0], call.attrs, call.specs[0].dtype
    taps = _winner_taps(b, call)

    def body(at: Sequence[Dim]) -> Lane:
        tap = b.lane_to_index(b.load(taps, at, INT32), INT32)
        width = attrs["kernel"][1]
        element, _ = _element(
            b, values, dtype, [*at, b.floordiv(tap, width), b.mod(tap, width)], attrs
        )
        return element

    return b.loops(call.output_dims[0], dtype, body)


# -- mean ------------------------------------------------------------------------------------


@mge_op
class AvgPool2dOp(MgeOp):
    """Mean of every window; padding counts as zeros, or not at all.

    Shapes: as max_pool2d. With `count_include_pad` a window divides by the size of the
    kernel, otherwise by the number of its elements that are not padding. Dtypes: the floats;
    16-bit ones accumulate in float32.
    """

    name = "mge.avg_pool2d"

    @staticmethod
    def infer(
        inp: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] = (0, 0, 0, 0),
        count_include_pad: bool = False,
    ) -> TensorSpec:
        values = [("inp", str(inp), INP_ROLE)]
        check_rank("avg_pool2d", "inp", inp, INP_ROLE, values)
        check_dtype("avg_pool2d", "inp", inp.dtype, FLOATS)
        windows = _pool("avg_pool2d", inp.shape[2:], kernel, stride, padding, values)
        return TensorSpec((*inp.shape[:2], *windows), inp.dtype)


@mge_op
class AvgPool2dGradOp(MgeOp):
    """Gradient of avg_pool2d: every window spreads its gradient over its elements.

    Shapes: d_out [N, C, OH, OW], result [N, C, H, W] where (H, W) is `input_size`; the other
    attributes as in avg_pool2d. Dtypes: the floats.
    """

    name = "mge.avg_pool2d_grad"
    runtime_attrs = ("input_size",)

    @staticmethod
    def infer(
        d_out: TensorSpec,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] = (0, 0, 0, 0),
        count_include_pad: bool = False,
        input_size: tuple[int, ...],
    ) -> TensorSpec:
        name = "avg_pool2d_grad"
        values = [("d_out", str(d_out), _OUT_ROLE)]
        check_rank(name, "d_out", d_out, _OUT_ROLE, values)
        check_dtype(name, "d_out", d_out.dtype, FLOATS)
        check_numbers(name, 0, {"input_size": (input_size, 2)})
        windows = _pool(name, input_size, kernel, stride, padding, values)
        pooled = TensorSpec((*d_out.shape[:2], *windows), d_out.dtype)
        _check_like(name, "d_out", d_out, pooled, values)
        return TensorSpec((*d_out.shape[:2], *input_size), d_out.dtype)


def _counts(size: Sequence[int], count_include_pad: bool, attrs: Mapping[str, Any]) -> Any:
    if count_include_pad:
        return np.float64(attrs["kernel"][0] * attrs["kernel"][1])
    return _patches(np.ones((1, 1, *size)), 0, attrs).sum(axis=-1)


@reference(AvgPool2dOp)
def _avg_pool_reference(inp: Any, *, count_include_pad: bool, **attrs: Any) -> Any:
    counts = _counts(inp.shape[2:], count_include_pad, attrs)
    return _patches(inp, 0, attrs).sum(axis=-1) / counts


@reference(AvgPool2dGradOp)
def _avg_grad_reference(
    d_out: Any, *, count_include_pad: bool, input_size: tuple[int, ...], **attrs: Any
) -> Any:
    share = d_out / _counts(input_size, count_include_pad, attrs)
    top, bottom, left, right = attrs["padding"]
    (kh, kw), (sh, sw) = attrs["kernel"], attrs["stride"]
    size = (input_size[0] + top + bottom, input_size[1] + left + right)
    padded = np.zeros((*d_out.shape[:2], *size))
    for y, x in np.ndindex(*d_out.shape[2:]):
        padded[:, :, y * sh : y * sh + kh, x * sw : x * sw + kw] += share[:, :, y, x, None, None]
    return padded[:, :, top : size[0] - bottom, left : size[1] - right]


@gradient(AvgPool2dOp)
def _avg_pool_gradient(b: Any, call: Any, d_out: Any) -> tuple[Any]:
    size = call.specs[0].shape[2:]
    return (b.avg_pool2d_grad(d_out, **call.attrs, input_size=size),)


@gradient(AvgPool2dGradOp)
def _avg_grad_gradient(b: Any, call: Any, d_inp: Any) -> tuple[Any]:
    attrs = {key: value for key, value in call.attrs.items() if key != "input_size"}
    return (b.avg_pool2d(d_inp, **attrs),)


def _count(
    b: LinalgBuilder, window: Sequence[Dim], sizes: Sequence[Dim], dtype: DType, attrs: Any
) -> Lane:
    """By what the window at (row, column) divides."""
    lanes = b.lanes
    if attrs["count_include_pad"] or not any(attrs["padding"]):
        return lanes.constant(attrs["kernel"][0] * attrs["kernel"][1], lane_type(dtype))
    count: Dim = 1
    for i in range(2):
        start = b.sub(b.mul(window[i], attrs["stride"][i]), attrs["padding"][2 * i])
        end = b.add(start, attrs["kernel"][i])
        size = b.add(sizes[i], 1)
        count = b.mul(count, b.sub(b.clamp(end, size), b.clamp(start, size)))
    return b.index_to_lane(count, dtype)


@lowering(AvgPool2dOp)
def _avg_pool_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (inp,), (spec,), attrs, lanes = call.inputs, call.specs, call.attrs, b.lanes
    total_dtype = accumulator(spec.dtype)
    dims = call.output_dims[0]

    def add(at: Sequence[Dim], total: Lane) -> Lane:
        element, valid = _element(b, inp, spec.dtype, at, attrs)
        element = lanes.convert(element, spec.dtype, total_dtype)
        return lanes.select(valid, lanes.add(total, element), total)

    def divide(at: Sequence[Dim]) -> Lane:
        count = _count(b, at[2:], b.dims(inp)[2:], total_dtype, attrs)
        mean = lanes.div(b.load(total, at, total_dtype), count)
        return lanes.convert(mean, total_dtype, spec.dtype)

    total = b.loops(dims, total_dtype, add, reduce=attrs["kernel"], init=_zero(total_dtype))
    return b.loops(dims, spec.dtype, divide)


@lowering(AvgPool2dGradOp)
def _avg_grad_lowering(b: LinalgBuilder, call: LoweringCall) -> Any:
    (d_out,), (spec,), attrs, lanes = call.inputs, call.specs, call.attrs, b.lanes
    total_dtype = accumulator(spec.dtype)
    dims = call.output_dims[0]

    def body(at: Sequence[Dim], total: Lane) -> Lane:
        window, valid = _windows_of(b, b.dims(d_out)[2:], at, attrs)
        element = lanes.convert(b.load(d_out, window, spec.dtype), spec.dtype, total_dtype)
        share = lanes.div(element, _count(b, window[2:], dims[2:], total_dtype, attrs))
        return lanes.select(valid, lanes.add(total, share), total)

    return b.loops(
        dims,
        spec.dtype,
        body,
        reduce=attrs["kernel"],
        init=_zero(total_dtype),
        accumulate=total_dtype,
    )


OPS = (MaxPool2dOp, MaxPool2dGradOp, MaxPool2dPickOp, AvgPool2dOp, AvgPool2dGradOp)
