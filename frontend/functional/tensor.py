"""Making, joining, cutting and rearranging tensors."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, prod
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.indexing import check_indices
from mgec.core.promote import operands
from mgec.core.tensor import Tensor, check_dtype
from mgec.device import Device
from mgec.errors import ArgumentError, AxisError, ShapeError
from mgec.functional._arguments import (
    as_index,
    as_number,
    as_shape,
    as_tensor,
    axes_of,
    axis_of,
    check_bool,
    check_broadcast,
    check_choice,
    check_rank,
    is_int,
)

__all__ = [
    "arange",
    "broadcast_to",
    "concat",
    "cond_take",
    "copy",
    "cumsum",
    "diag",
    "expand_dims",
    "eye",
    "flatten",
    "full",
    "full_like",
    "gather",
    "linspace",
    "meshgrid",
    "non_zero",
    "ones",
    "ones_like",
    "repeat",
    "reshape",
    "roll",
    "scatter",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "transpose",
    "where",
    "zeros",
    "zeros_like",
]

DeviceLike = str | Device | None


def _on(device: DeviceLike, made: Tensor) -> Tensor:
    """A new tensor on a device, the default one if none is given."""
    return made.to(made.device if device is None else device)


# -- making ------------------------------------------------------------------------------


def full(shape: Any, value: Any, *, dtype: Any = None, device: DeviceLike = None) -> Tensor:
    """A tensor filled with one value.

    Args:
        shape: an int or several.
        value: a number, or a tensor with one element.
        dtype: float32 by default.
        device: the default device by default.
    """
    sizes = as_shape("full", shape)
    if any(size < 0 for size in sizes):
        raise ShapeError(
            f"full: shape {sizes} has a negative size",
            values=[("shape", sizes)],
            fix="use sizes of 0 or more",
        )
    found = check_dtype("float32" if dtype is None else dtype)
    return _on(device, _fill(sizes, value, found))


def _fill(shape: tuple[int, ...], value: Any, dtype: np.dtype[Any]) -> Tensor:
    if isinstance(value, Tensor | np.ndarray) and value.size != 1:
        raise ShapeError(
            f"full: value has {value.size} elements, not one",
            values=[("value", value)],
            fix="use broadcast_to",
        )
    scalar = operands("full", (value,), dtype)[0]
    if scalar.ndim:
        scalar = dispatch.call("reshape", scalar, shape=())
    return dispatch.call("broadcast", scalar, shape=shape)


def ones(shape: Any, *, dtype: Any = "float32", device: DeviceLike = None) -> Tensor:
    """A tensor of ones; see `full`."""
    return full(shape, 1, dtype=dtype, device=device)


def zeros(shape: Any, *, dtype: Any = "float32", device: DeviceLike = None) -> Tensor:
    """A tensor of zeros; see `full`.

    Example:
        >>> import mgec.functional as F
        >>> F.zeros((2, 2), dtype="int32")
        Tensor([[0 0]
         [0 0]], dtype=int32, device=xpux:0)
    """
    return full(shape, 0, dtype=dtype, device=device)


def full_like(inp: Any, value: Any) -> Tensor:
    """A tensor of the shape, dtype and device of `inp`, filled with one value."""
    x = as_tensor("full_like", inp)
    return _fill(x.shape, value, x._spec.dtype).to(x.device)


def ones_like(inp: Any) -> Tensor:
    """Ones in the shape, dtype and device of `inp`."""
    return full_like(inp, 1)


def zeros_like(inp: Any) -> Tensor:
    """Zeros in the shape, dtype and device of `inp`."""
    return full_like(inp, 0)


def arange(
    start: Any = 0,
    stop: Any = None,
    step: Any = 1,
    *,
    dtype: Any = "float32",
    device: DeviceLike = None,
) -> Tensor:
    """Numbers from `start` up to, not including, `stop`.

    Args:
        start: the first; `arange(n)` counts from 0 up to n.
        stop: the end, not included.
        step: the distance; not 0.
        dtype: float32 by default, also for ints (as in MegEngine, not as in NumPy).
        device: the default device by default.

    Raises:
        ArgumentError: if `step` is 0.

    Example:
        >>> import mgec.functional as F
        >>> F.arange(5)
        Tensor([0. 1. 2. 3. 4.], device=xpux:0)
    """
    if stop is None:
        start, stop = 0, start
    first, last, by = (
        as_number("arange", argument, value)
        for argument, value in (("start", start), ("stop", stop), ("step", step))
    )
    if by == 0:
        raise ArgumentError("arange: step is 0", fix="use a positive or negative step")
    if not all(isfinite(value) for value in (first, last, by)):
        raise ArgumentError(
            f"arange: there is no end from {first} to {last} by {by}", fix="use finite numbers"
        )
    count = max(0, int(np.ceil((last - first) / by)))
    return _on(device, _iota((count,), 0, check_dtype(dtype), first, by))


def _iota(
    shape: tuple[int, ...], axis: int, dtype: np.dtype[Any], start: float = 0, step: float = 1
) -> Tensor:
    """Counts along an axis; fractional steps in an integer dtype are cut off at the end."""
    if dtype.kind in "iu" and not (float(start).is_integer() and float(step).is_integer()):
        return _iota(shape, axis, np.dtype(np.float32), start, step).astype(dtype)
    if dtype == np.bool_:
        return _iota(shape, axis, np.dtype(np.int32), start, step).astype(dtype)
    return dispatch.call(
        "iota", shape=shape, axis=axis, dtype=dtype, start=float(start), step=float(step)
    )


def linspace(
    start: Any, stop: Any, num: Any, *, dtype: Any = "float32", device: DeviceLike = None
) -> Tensor:
    """`num` numbers at equal distances from `start` to `stop`, both included.

    Args:
        start: the first.
        stop: the last.
        num: how many; at least 1.
        dtype: float32 by default.
        device: the default device by default.

    Raises:
        ArgumentError: if `num` is below 1.
    """
    first, last = as_number("linspace", "start", start), as_number("linspace", "stop", stop)
    count = as_index("linspace", "num", num)
    if count < 1:
        raise ArgumentError(f"linspace: num is {count} but must be at least 1", fix="use num >= 1")
    step = (last - first) / (count - 1) if count > 1 else 0.0
    return _on(device, _iota((count,), 0, check_dtype(dtype), first, step))


def eye(N: Any, M: Any = None, *, dtype: Any = "float32", device: DeviceLike = None) -> Tensor:
    """Ones on the main diagonal of an N x M matrix, zeros elsewhere.

    Args:
        N: rows, or a shape of two sizes.
        M: columns; N by default.
        dtype: float32 by default.
        device: the default device by default.
    """
    sizes = as_shape("eye", N, "N")
    if not 1 <= len(sizes) <= 2:
        raise ArgumentError(
            f"eye: N is {sizes}, not one or two sizes", fix="pass eye(rows, columns)"
        )
    columns = sizes[-1] if M is None else as_index("eye", "M", M)
    found = check_dtype(dtype)
    return _on(device, _diagonal_mask((sizes[0], columns), 0).astype(found))


def _diagonal_mask(shape: tuple[int, int], k: int) -> Tensor:
    rows = dispatch.call("iota", shape=(shape[0], 1), axis=0, dtype=_INT32, start=float(k))
    columns = dispatch.call("iota", shape=(1, shape[1]), axis=1, dtype=_INT32)
    return dispatch.call("equal", rows, columns)


_INT32 = np.dtype(np.int32)


def diag(inp: Any, k: int = 0) -> Tensor:
    """The matrix with a vector on its diagonal, or the diagonal of a matrix.

    Args:
        inp: (n,) or (n, m).
        k: which diagonal: above the main one if positive.

    Raises:
        ShapeError: unless `inp` has rank 1 or 2.
    """
    x = as_tensor("diag", inp)
    check_rank("diag", "inp", x, (1, 2), "(n,) or (n, m)")
    offset = as_index("diag", "k", k)
    if x.ndim == 1:
        size = x.shape[0] + abs(offset)
        row = dispatch.call("unslice", x, starts=(max(offset, 0),), steps=(1,), shape=(size,))
        wide = dispatch.call("broadcast", row, shape=(size, size))
        return dispatch.call("select", _diagonal_mask((size, size), offset), wide, zeros_like(wide))
    rows, columns = x.shape
    count = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    # In row-major order, the elements of a diagonal are m + 1 apart.
    first = max(offset, 0) + max(-offset, 0) * columns
    flat = dispatch.call("reshape", x, shape=(x.size,))
    if count == 0:
        return flat[:0]
    return flat[first : first + (count - 1) * (columns + 1) + 1 : columns + 1]


def meshgrid(*inputs: Any, indexing: str = "xy") -> list[Tensor]:
    """Coordinate matrices from coordinate vectors, as in NumPy.

    Args:
        *inputs: vectors.
        indexing: "xy" puts the first vector along the columns, "ij" along the rows.
    """
    check_choice("meshgrid", "indexing", indexing, ("xy", "ij"))
    vectors = [as_tensor("meshgrid", x) for x in inputs]
    for i, x in enumerate(vectors):
        check_rank("meshgrid", f"inputs[{i}]", x, (1,), "(n,)")
    axes = list(range(len(vectors)))
    if indexing == "xy" and len(axes) > 1:
        axes[:2] = [1, 0]
    sizes = [0] * len(vectors)
    for axis, x in zip(axes, vectors, strict=True):
        sizes[axis] = x.size
    shape = tuple(sizes)
    grids: list[Tensor] = []
    for axis, x in zip(axes, vectors, strict=True):
        line = tuple(x.size if i == axis else 1 for i in range(len(sizes)))
        grids.append(
            dispatch.call("broadcast", dispatch.call("reshape", x, shape=line), shape=shape)
        )
    return grids


# -- shape -------------------------------------------------------------------------------


def broadcast_to(inp: Any, shape: Any) -> Tensor:
    """Repeats axes of size 1, and adds leading axes, until `inp` has `shape`.

    Args:
        inp: tensor of any dtype.
        shape: the target; -1 keeps the size of an axis.

    Raises:
        ShapeError: if the shape of `inp` does not broadcast to it.
    """
    x = as_tensor("broadcast_to", inp)
    target = list(as_shape("broadcast_to", shape))
    lead = len(target) - x.ndim
    for i, size in enumerate(target):
        if size == -1 and i >= lead:
            target[i] = x.shape[i - lead]
    if tuple(target) == x.shape:
        return x
    return dispatch.call("broadcast", x, shape=tuple(target))


def reshape(inp: Any, target_shape: Any) -> Tensor:
    """The same elements under another shape.

    Args:
        inp: tensor of any dtype.
        target_shape: the new shape; one size may be -1, which is then inferred.

    Raises:
        ShapeError: if the numbers of elements differ.
        ArgumentError: if more than one size is -1.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.reshape(mge.tensor([1, 2, 3, 4]), (2, -1)).shape
        (2, 2)
    """
    x = as_tensor("reshape", inp)
    target = as_shape("reshape", target_shape)
    unknown = [i for i, size in enumerate(target) if size == -1]
    if len(unknown) > 1:
        raise ArgumentError(
            f"reshape: shape {target} has {len(unknown)} sizes of -1",
            values=[("inp", x)],
            fix="leave one size to be inferred at most",
        )
    if unknown:
        known = prod(size for size in target if size != -1)
        if known == 0 or x.size % known:
            raise ShapeError(
                f"reshape: input has {x.size} elements, which shape {target} cannot divide evenly",
                values=[("inp", x)],
                fix="make the sizes that are given divide the number of elements",
            )
        target = tuple(x.size // known if size == -1 else size for size in target)
    return dispatch.call("reshape", x, shape=target)


def flatten(inp: Any, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """Merges the axes from `start_axis` to `end_axis`, both included, into one.

    Args:
        inp: tensor of any dtype.
        start_axis: the first axis to merge.
        end_axis: the last axis to merge.

    Raises:
        AxisError: if an axis does not exist or the first comes after the last.
    """
    x = as_tensor("flatten", inp)
    if x.ndim == 0:
        return dispatch.call("reshape", x, shape=(1,))
    first, last = axis_of("flatten", start_axis, x.ndim), axis_of("flatten", end_axis, x.ndim)
    if first > last:
        raise AxisError(
            f"flatten: start_axis {first} comes after end_axis {last}",
            values=[("inp", x)],
            fix="swap the two",
        )
    merged = prod(x.shape[first : last + 1])
    return dispatch.call("reshape", x, shape=(*x.shape[:first], merged, *x.shape[last + 1 :]))


def transpose(inp: Any, pattern: Sequence[int | str] | Tensor) -> Tensor:
    """Axes in another order: axis i of the result is axis pattern[i] of `inp`.

    Args:
        inp: tensor of any dtype.
        pattern: each axis once; "x" adds an axis of size 1 at its place.

    Raises:
        AxisError: unless the pattern names each axis once.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.transpose(mge.tensor([[1, 2, 3], [4, 5, 6]]), (1, 0)).shape
        (3, 2)
    """
    x = as_tensor("transpose", inp)
    if not isinstance(pattern, Sequence | Tensor | np.ndarray):
        raise ArgumentError(
            f"transpose: pattern is {pattern!r}, not a sequence of axes",
            values=[("inp", x)],
            fix=f"pass the axes in their new order, such as {tuple(reversed(range(x.ndim)))}",
        )
    entries = pattern.tolist() if isinstance(pattern, Tensor | np.ndarray) else list(pattern)
    perm = tuple(axis_of("transpose", p, x.ndim) for p in entries if p != "x")
    out = x if perm == tuple(range(x.ndim)) else dispatch.call("transpose", x, perm=perm)
    if len(perm) == len(entries):
        return out
    sizes = iter(out.shape)
    shape = tuple(1 if p == "x" else next(sizes) for p in entries)
    return dispatch.call("reshape", out, shape=shape)


def swapaxes(inp: Any, axis1: int, axis2: int) -> Tensor:
    """Exchanges two axes."""
    x = as_tensor("swapaxes", inp)
    perm = list(range(x.ndim))
    first, second = axis_of("swapaxes", axis1, x.ndim), axis_of("swapaxes", axis2, x.ndim)
    perm[first], perm[second] = second, first
    return transpose(x, perm)


def expand_dims(inp: Any, axis: int | Sequence[int]) -> Tensor:
    """Adds axes of size 1.

    Args:
        inp: tensor of any dtype.
        axis: places of the new axes in the result.
    """
    x = as_tensor("expand_dims", inp)
    if not isinstance(axis, int | np.integer | Tensor | Sequence):
        raise ArgumentError(f"expand_dims: axis is {axis!r}, not an integer", fix="pass an int")
    count = len(axis) if isinstance(axis, Sequence) else 1
    places = axes_of("expand_dims", axis, x.ndim + count)
    sizes = iter(x.shape)
    shape = tuple(1 if i in places else next(sizes) for i in range(x.ndim + count))
    return dispatch.call("reshape", x, shape=shape)


def squeeze(inp: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """Removes axes of size 1.

    Args:
        inp: tensor of any dtype.
        axis: which axes; all of size 1 by default.

    Raises:
        ShapeError: if a given axis has another size.
    """
    x = as_tensor("squeeze", inp)
    if axis is None:
        places = tuple(i for i, size in enumerate(x.shape) if size == 1)
    else:
        places = axes_of("squeeze", axis, x.ndim)
    for place in places:
        if x.shape[place] != 1:
            raise ShapeError(
                f"squeeze: axis {place} has size {x.shape[place]}, not 1",
                values=[("inp", x)],
                fix="squeeze axes of size 1 only",
            )
    shape = tuple(size for i, size in enumerate(x.shape) if i not in places)
    return dispatch.call("reshape", x, shape=shape)


# -- joining, cutting, repeating ----------------------------------------------------------


def _sequence(name: str, inps: Any) -> list[Tensor]:
    if isinstance(inps, Tensor) or not isinstance(inps, Sequence) or not inps:
        raise ArgumentError(
            f"{name}: inps is {inps!r:.40}, not a sequence of tensors",
            fix=f"pass a list of one or more tensors, as in {name}([a, b])",
        )
    return operands(name, list(inps))


def concat(inps: Sequence[Any], axis: int = 0, device: DeviceLike = None) -> Tensor:
    """The tensors one after another along an axis.

    Args:
        inps: tensors whose shapes are equal but for `axis`.
        axis: the axis that grows.
        device: the device of the result; that of the inputs by default.

    Raises:
        ShapeError: if the other sizes differ.
    """
    tensors = _sequence("concat", inps)
    if device is not None:
        tensors = [x.to(device) for x in tensors]
    if len(tensors) == 1:
        axis_of("concat", axis, tensors[0].ndim)
        return tensors[0]
    return dispatch.call("concat", *tensors, axis=axis_of("concat", axis, tensors[0].ndim))


def stack(inps: Sequence[Any], axis: int = 0, device: DeviceLike = None) -> Tensor:
    """The tensors side by side along a new axis.

    Args:
        inps: tensors of one shape.
        axis: the place of the new axis in the result.
        device: the device of the result; that of the inputs by default.

    Raises:
        ShapeError: if the shapes differ.
    """
    tensors = _sequence("stack", inps)
    for i, x in enumerate(tensors):
        if x.shape != tensors[0].shape:
            raise ShapeError(
                f"stack: shapes {tensors[0].shape} and {x.shape} differ",
                values=[("inps[0]", tensors[0]), (f"inps[{i}]", x)],
                fix="make the shapes equal, or use concat",
            )
    at = axis_of("stack", axis, tensors[0].ndim + 1)
    return concat([expand_dims(x, at) for x in tensors], at, device)


def split(inp: Any, nsplits_or_sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cuts a tensor along an axis.

    Args:
        inp: tensor of any dtype.
        nsplits_or_sections: how many parts (the first ones are larger by one if they cannot be
            equal), or the places of the cuts.
        axis: the axis to cut.

    Returns:
        The parts.

    Example:
        >>> import mgec.functional as F
        >>> [part.shape for part in F.split(F.arange(10), 3)]
        [(4,), (3,), (3,)]
    """
    x = as_tensor("split", inp)
    at = axis_of("split", axis, x.ndim)
    size = x.shape[at]
    if is_int(nsplits_or_sections):
        parts = as_index("split", "nsplits_or_sections", nsplits_or_sections)
        if not 1 <= parts <= max(size, 1):
            raise ArgumentError(
                f"split: cannot cut axis {at} of size {size} into {parts} parts",
                values=[("inp", x)],
                fix=f"use 1 to {max(size, 1)} parts",
            )
        small, larger = divmod(size, parts)
        cuts = [i * small + min(i, larger) for i in range(parts + 1)]
    else:
        sections = as_shape("split", nsplits_or_sections, "nsplits_or_sections")
        cuts = [0, *sections, size]
        if cuts != sorted(cuts):
            raise ArgumentError(
                f"split: sections {sections} are not in order within axis {at} of size {size}",
                values=[("inp", x)],
                fix=f"use ascending places from 0 to {size}",
            )
    lead = (builtins.slice(None),) * at
    return [x[(*lead, builtins.slice(start, stop))] for start, stop in pairwise(cuts)]


def repeat(inp: Any, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element several times in a row.

    Args:
        inp: tensor of any dtype.
        repeats: how often; one number, or one for each index along the axis.
        axis: the axis that grows; by default the tensor is flattened first.
    """
    x = as_tensor("repeat", inp)
    if axis is None:
        x, axis = flatten(x), 0
    at = axis_of("repeat", axis, x.ndim)
    counts = as_shape("repeat", repeats, "repeats")
    if len(counts) == 1:
        return dispatch.call("repeat", x, repeats=counts[0], axis=at)
    if len(counts) != x.shape[at] or min(counts) < 0:
        raise ArgumentError(
            f"repeat: repeats {counts} does not fit axis {at} of size {x.shape[at]}",
            values=[("inp", x)],
            fix="give one count, not negative, for each index along the axis",
        )
    return take(x, np.repeat(np.arange(len(counts)), counts), at)


def take(x: Tensor, index: Any, axis: int) -> Tensor:
    """x[:, ..., index, ...] with an index array on one axis."""
    return x[(builtins.slice(None),) * axis + (index,)]


def tile(inp: Any, reps: int | Sequence[int]) -> Tensor:
    """The whole tensor several times along each axis.

    Args:
        inp: tensor of any dtype.
        reps: how often; counted from the last axis, as in NumPy.
    """
    x = as_tensor("tile", inp)
    counts = as_shape("tile", reps, "reps")
    rank = max(x.ndim, len(counts))
    if x.ndim < rank:
        x = dispatch.call("reshape", x, shape=(1,) * (rank - x.ndim) + x.shape)
    return dispatch.call("tile", x, reps=(1,) * (rank - len(counts)) + counts)


def roll(inp: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Moves elements along axes; what leaves one end comes back at the other.

    Args:
        inp: tensor of any dtype.
        shift: by how many places, for each axis.
        axis: which axes; by default the flattened tensor is rolled.
    """
    x = as_tensor("roll", inp)
    if axis is None:
        return reshape(roll(flatten(x), shift, 0), x.shape)
    shifts = as_shape("roll", shift, "shift")
    places = [axis_of("roll", a, x.ndim) for a in as_shape("roll", axis, "axis")]
    if len(shifts) == 1:
        shifts *= len(places)
    if len(shifts) != len(places):
        raise ArgumentError(
            f"roll: {len(shifts)} shifts for {len(places)} axes", fix="give one shift for each axis"
        )
    for by, at in zip(shifts, places, strict=True):
        size = x.shape[at]
        if size and by % size:
            lead = (builtins.slice(None),) * at
            cut = size - by % size
            parts = [x[(*lead, builtins.slice(cut, None))], x[(*lead, builtins.slice(cut))]]
            x = concat(parts, at)
    return x


def copy(inp: Any, device: DeviceLike = None) -> Tensor:
    """The same values under another name, on another device if one is given."""
    x = as_tensor("copy", inp)
    same = dispatch.call("reshape", x, shape=x.shape)
    return same if device is None else same.to(device)


def cumsum(inp: Any, axis: int) -> Tensor:
    """The running sum along an axis; bools are summed as int32.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.cumsum(mge.tensor([[1, 2, 3]]), 1)
        Tensor([[1 3 6]], dtype=int32, device=xpux:0)
    """
    x = as_tensor("cumsum", inp)
    if x.dtype is np.bool_:
        x = x.astype(np.int32)
    return dispatch.call("cumsum", x, axis=axis_of("cumsum", axis, x.ndim))


# -- choosing by value -------------------------------------------------------------------


def where(mask: Any, x: Any, y: Any) -> Tensor:
    """`x` where `mask` holds, `y` elsewhere; the three broadcast.

    Args:
        mask: bool tensor.
        x: tensor or number.
        y: tensor or number.

    Raises:
        DTypeError: if `mask` is not bool.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> x = mge.tensor([-1.0, 2.0])
        >>> F.where(x > 0, x, 0)
        Tensor([0. 2.], device=xpux:0)
    """
    condition = as_tensor("where", mask)
    check_bool("where", "mask", condition)
    lhs, rhs = operands("where", (x, y))
    check_broadcast("where", mask=condition, x=lhs, y=rhs)
    return dispatch.call("select", condition, lhs, rhs)


def gather(inp: Any, axis: int, index: Any) -> Tensor:
    """Elements along an axis by an index tensor: out[i, j] = inp[index[i, j], j] for axis 0.

    Args:
        inp: tensor of any dtype.
        axis: the axis that is indexed.
        index: int32 tensor of the rank of `inp`, with its sizes but for `axis`.

    Returns:
        A tensor of the shape of `index`.

    Example:
        >>> import mgec as mge
        >>> import mgec.functional as F
        >>> F.gather(mge.tensor([[1, 2], [3, 4]]), 1, mge.tensor([[0], [1]]))
        Tensor([[1]
         [4]], dtype=int32, device=xpux:0)
    """
    x, at, where_ = _along("gather", inp, axis, index)
    return dispatch.call("gather", x, where_, axis=at)


def scatter(inp: Any, axis: int, index: Any, source: Any) -> Tensor:
    """`inp` with elements replaced: out[index[i, j], j] = source[i, j] for axis 0.

    Args:
        inp: tensor of any dtype.
        axis: the axis that is indexed.
        index: int32 tensor of the rank of `inp`.
        source: tensor of the shape of `index`, converted to the dtype of `inp`.

    Returns:
        A tensor of the shape of `inp`; where an index repeats, the last one wins.
    """
    x, at, where_ = _along("scatter", inp, axis, index)
    new = operands("scatter", (source,), x._spec.dtype)[0]
    return dispatch.call("scatter", x, where_, broadcast_to(new, where_.shape), axis=at)


def _along(name: str, inp: Any, axis: Any, index: Any) -> tuple[Tensor, int, Tensor]:
    x, where_ = as_tensor(name, inp), as_tensor(name, index)
    if where_.ndim != x.ndim:
        raise ShapeError(
            f"{name}: index has rank {where_.ndim} but inp has rank {x.ndim}",
            values=[("inp", x), ("index", where_)],
            fix="give the index the rank of inp",
        )
    at = axis_of(name, axis, x.ndim)
    check_indices(name, "index", where_, x.shape[at])
    return x, at, where_


def non_zero(condition: Any, as_tuple: bool = False) -> Tensor | list[Tensor]:
    """Indices of the elements that hold (are not 0).

    The shape of the result depends on values, so this does not work in a symbolic trace.

    Args:
        condition: tensor of any dtype.
        as_tuple: one index tensor for each axis, instead of one tensor.

    Returns:
        int32 indices, (count, rank), or a list of rank tensors (count,).
    """
    x = as_tensor("non_zero", condition)
    if x.ndim == 0:
        raise ShapeError(
            "non_zero: condition has rank 0 but must have an axis",
            values=[("condition", x)],
            fix="reshape it to (1,)",
        )
    places = [Tensor(axis, device=x.device) for axis in np.nonzero(x.numpy())]
    return places if as_tuple else stack(places, 1)


def cond_take(mask: Any, x: Any) -> tuple[Tensor, Tensor]:
    """The elements of `x` where `mask` holds, and their indices in the flattened tensor.

    The shape of the result depends on values, so this does not work in a symbolic trace.

    Args:
        mask: bool tensor of the shape of `x`.
        x: tensor of any dtype.

    Returns:
        Values (count,) and int32 indices (count,).

    Raises:
        DTypeError: if `mask` is not bool.
        ShapeError: if the shapes differ.
    """
    condition, inp = as_tensor("cond_take", mask), as_tensor("cond_take", x)
    check_bool("cond_take", "mask", condition)
    if condition.shape != inp.shape:
        raise ShapeError(
            f"cond_take: mask has shape {condition.shape} but x has {inp.shape}",
            values=[("mask", condition), ("x", inp)],
            fix="make the shapes equal",
        )
    (index,) = np.nonzero(condition.numpy().reshape(-1))
    where_ = Tensor(index, device=inp.device)
    return flatten(inp)[where_], where_
