"""`x[index]` and `x[index] = value`.

An index is read once into a `_Plan`: a slice for every axis of the tensor, the shape after
integers dropped axes and None added some, and the axes that arrays index. Integers, slices
with any step, None and Ellipsis then are one `slice` and one `reshape`; integer arrays are
one `take` along the merged axes. The results are copies, as everything here is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from mgec.core import dispatch
from mgec.core.promote import operands
from mgec.core.tensor import Tensor
from mgec.errors import ArgumentError, AxisError, DTypeError, ShapeError

__all__ = ["check_indices", "getitem", "setitem"]

_INT32 = np.dtype(np.int32)


@dataclass
class _Plan:
    """What an index means for a tensor of one shape.

    Attributes:
        starts: per axis of the tensor, the first place.
        stops: per axis, the place after the last.
        steps: per axis.
        shape: the shape after slicing, with integer axes dropped and new axes added.
        arrays: axis of `shape` -> the integer array that indexes it.
        position: where the axes of the result that belong to arrays go.
    """

    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    arrays: dict[int, Tensor] = field(default_factory=dict)
    position: int = 0


def getitem(x: Tensor, index: Any) -> Tensor:
    """`x[index]`.

    Args:
        x: tensor of any dtype.
        index: ints, slices, None, Ellipsis, integer and bool arrays or tensors, or a tuple of
            these, as in NumPy. Bool arrays need values, so they do not work in a symbolic trace.

    Returns:
        A copy of the part.

    Raises:
        AxisError: for an index out of range, or more indices than axes.
        ArgumentError: for something that is not an index.
    """
    plan = _plan("getitem", x, index)
    return _take(_slice(x, plan), plan)


def setitem(x: Tensor, index: Any, value: Any) -> Tensor:
    """`x` with the part at `index` replaced: the new value of `x` after ``x[index] = value``.

    Args:
        x: tensor of any dtype.
        index: as in `getitem`.
        value: tensor, array or number that broadcasts to the part; converted to the dtype of `x`.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ShapeError: if `value` does not broadcast to the part.
    """
    new = operands("setitem", (value,), x._spec.dtype)[0]
    mask = _whole_mask(x, index)
    if mask is not None and new.size == 1:
        column = dispatch.call("reshape", mask, shape=mask.shape + (1,) * (x.ndim - mask.ndim))
        return dispatch.call("select", column, dispatch.call("reshape", new, shape=()), x)
    plan = _plan("setitem", x, index)
    if plan.arrays:
        return _scatter(x, plan, new)
    new = dispatch.call("reshape", _fit(new, tuple(plan.shape)), shape=_sliced_shape(plan))
    if new.shape == x.shape and all(step == 1 for step in plan.steps):
        return new
    place = {"starts": tuple(plan.starts), "steps": tuple(plan.steps), "shape": x.shape}
    if new.size == 0:
        return dispatch.call("reshape", x, shape=x.shape)
    inside = dispatch.call("broadcast", operands("setitem", (True,))[0], shape=new.shape)
    return dispatch.call(
        "select",
        dispatch.call("unslice", inside, **place),
        dispatch.call("unslice", new, **place),
        x,
    )


def check_indices(
    name: str, argument: str, indices: Tensor, size: int, *, from_end: bool = True
) -> None:
    """Raises AxisError if an index is not within [-size, size), where its value is known.

    In a trace there are no values; compiled code then moves an index to the nearest end.

    Args:
        name: the function.
        argument: what the function calls the indices.
        indices: integer tensor.
        size: size of the axis that is indexed.
        from_end: whether negative indices count from the end; otherwise they are wrong, too.
    """
    spec = indices._spec
    if dispatch.state.tracer is not None or indices._storage is None or not spec.size:
        return
    values = indices._storage.as_array(spec.dtype, spec.shape)
    low, high = int(values.min()), int(values.max())
    least = -size if from_end else 0
    if low < least or high >= size:
        wrong = f"{high} but must be below {size}"
        if size and low < least:
            wrong = f"{low} but must be at least {least}"
        raise AxisError(
            f"{name}: {argument} holds {wrong}",
            values=[(argument, indices)],
            fix=f"use indices from 0 to {size - 1}" if size else "there is nothing to index",
        )


# -- reading the index -------------------------------------------------------------------


def _is_array(item: Any) -> bool:
    return isinstance(item, Tensor | np.ndarray | list | np.bool_ | bool)


def _is_mask(item: Any) -> bool:
    return isinstance(item, Tensor | np.ndarray) and item.dtype == np.bool_


def _whole_mask(x: Tensor, index: Any) -> Tensor | None:
    """The bool tensor, if that alone is the index and it fits."""
    mask: Any = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    if not _is_mask(mask) or tuple(mask.shape) != x.shape[: mask.ndim]:
        return None
    return mask if isinstance(mask, Tensor) else Tensor(mask, device=x.device)


def _plan(name: str, x: Tensor, index: Any) -> _Plan:
    items = _expand(name, x, index if isinstance(index, tuple) else (index,))
    plan = _Plan()
    axis = 0
    advanced: list[int] = []  # positions among the items of arrays and of ints beside them
    has_array = any(isinstance(item, _Indices) for item in items)
    for position, item in enumerate(items):
        if item is None:
            plan.shape.append(1)
            continue
        size = x.shape[axis]
        if isinstance(item, slice):
            start, stop, step = _bounds(name, item, size)
            plan.shape.append(len(range(start, stop, step)))
        elif isinstance(item, _Indices):
            start, stop, step = 0, size, 1
            plan.arrays[len(plan.shape)] = item.within(name, axis, size)
            plan.shape.append(size)
            advanced.append(position)
        else:
            start = _in_range(name, item, axis, size)
            stop, step = start + 1, 1
            if has_array:
                advanced.append(position)
        plan.starts.append(start)
        plan.stops.append(stop)
        plan.steps.append(step)
        axis += 1
    together = not advanced or advanced[-1] - advanced[0] == len(advanced) - 1
    if together and advanced:
        before = items[: advanced[0]]
        plan.position = sum(1 for item in before if item is None or isinstance(item, slice))
    return plan


class _Indices:
    """An integer array along one axis."""

    def __init__(self, values: Tensor | np.ndarray[Any, Any]) -> None:
        self.values = values

    def within(self, name: str, axis: int, size: int) -> Tensor:
        """The indices as an int32 tensor, counted from the front."""
        values = self.values
        if isinstance(values, Tensor):
            check_indices(name, f"the index of axis {axis}", values, size)
            values = values if values._spec.dtype == _INT32 else values.astype(np.int32)
            below, zero = operands(name, (size, 0), _INT32)
            wrapped = dispatch.call("add", values, below)
            return dispatch.call("select", dispatch.call("less", values, zero), wrapped, values)
        if values.size:
            low, high = int(values.min()), int(values.max())
            if low < -size or high >= size:
                bad = low if low < -size else high
                _in_range(name, bad, axis, size)
        made = Tensor(np.where(values < 0, values + size, values).astype(np.int32))
        made._device = None
        return made


def _expand(name: str, x: Tensor, index: tuple[Any, ...]) -> list[Any]:
    """One item for every axis of the tensor, and None for every new one."""
    items: list[Any] = []
    for item in index:
        if isinstance(item, list | bool | np.bool_):
            item = np.asarray(item)
            if item.size == 0 and item.dtype == np.float64:
                item = item.astype(np.int32)
        if _is_mask(item):
            items.extend(_mask_indices(name, x, item, _axes_used(items)))
        elif isinstance(item, Tensor | np.ndarray):
            if np.dtype(item.dtype).kind not in "iu":
                raise DTypeError(
                    f"{name}: a {np.dtype(item.dtype).name} array cannot be an index",
                    values=[("index", item)],
                    fix="convert it with astype('int32')",
                )
            items.append(_Indices(item))
        elif item is None or item is Ellipsis or isinstance(item, slice):
            items.append(item)
        elif isinstance(item, int | np.integer):
            items.append(int(item))
        else:
            raise ArgumentError(
                f"{name}: {item!r:.40} of type {type(item).__name__} cannot be an index",
                fix="use ints, slices, None, ..., or int and bool arrays",
            )
    if items.count(Ellipsis) > 1:
        raise ArgumentError(f"{name}: the index has two ellipses (...)", fix="use one at most")
    missing = x.ndim - _axes_used(items)
    if missing < 0:
        raise AxisError(
            f"{name}: {x.ndim - missing} indices for a tensor of rank {x.ndim}",
            values=[("tensor", x)],
            fix=f"use {x.ndim} indices at most",
        )
    at = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    items[at : at + 1] = [slice(None)] * missing
    return items


def _axes_used(items: Sequence[Any]) -> int:
    return sum(1 for item in items if item is not None and item is not Ellipsis)


def _mask_indices(name: str, x: Tensor, mask: Any, axis: int) -> list[_Indices]:
    """A bool array as one integer array for each axis it covers."""
    covered = x.shape[axis : axis + mask.ndim]
    if mask.ndim == 0 or tuple(mask.shape) != covered:
        raise ShapeError(
            f"{name}: a mask of shape {tuple(mask.shape)} does not fit axes of sizes {covered}",
            values=[("tensor", x), ("mask", mask)],
            fix="give the mask the sizes of the axes it indexes",
        )
    values = mask.numpy() if isinstance(mask, Tensor) else mask
    return [_Indices(places) for places in np.nonzero(values)]


def _bounds(name: str, item: slice, size: int) -> tuple[int, int, int]:
    try:
        start, stop, step = item.indices(size)
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{name}: {item} is not a slice of integers with a step other than 0",
            fix="use ints in start:stop:step",
        ) from None
    if not range(start, stop, step):
        return (0, 0, 1)
    return start, stop, step


def _in_range(name: str, index: int, axis: int, size: int) -> int:
    if not -size <= index < size:
        raise AxisError(
            f"{name}: index {index} is out of range for axis {axis} of size {size}",
            fix=f"use an index from {-size} to {size - 1}" if size else "the axis is empty",
        )
    return index % size


# -- applying it -------------------------------------------------------------------------


def _sliced_shape(plan: _Plan) -> tuple[int, ...]:
    entries = zip(plan.starts, plan.stops, plan.steps, strict=True)
    return tuple(len(range(*entry)) for entry in entries)


def _slice(x: Tensor, plan: _Plan) -> Tensor:
    """The part of `x` that slices and integers leave, in the plan's shape."""
    whole = all(step == 1 for step in plan.steps) and _sliced_shape(plan) == x.shape
    if not whole:
        bounds = {
            "starts": tuple(plan.starts),
            "stops": tuple(plan.stops),
            "steps": tuple(plan.steps),
        }
        x = dispatch.call("slice", x, **bounds)
    elif plan.arrays and x.shape == tuple(plan.shape):
        return x
    return dispatch.call("reshape", x, shape=tuple(plan.shape))


def _take(x: Tensor, plan: _Plan) -> Tensor:
    """Applies the plan's integer arrays to the sliced tensor."""
    if not plan.arrays:
        return x
    axes = list(plan.arrays)
    indices = _broadcast_indices(list(plan.arrays.values()))
    sizes = [x.shape[axis] for axis in axes]
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    position = plan.position
    order = (*rest[:position], *axes, *rest[position:])
    if order != tuple(range(x.ndim)):
        x = dispatch.call("transpose", x, perm=order)
    if len(axes) > 1:
        head, tail = x.shape[:position], x.shape[position + len(axes) :]
        x = dispatch.call("reshape", x, shape=(*head, prod(sizes), *tail))
    return dispatch.call("take", x, _linear(indices, sizes), axis=position)


def _broadcast_indices(indices: list[Tensor]) -> list[Tensor]:
    try:
        shape = np.broadcast_shapes(*(i.shape for i in indices))
    except ValueError:
        raise ShapeError(
            f"index arrays of shapes {', '.join(str(i.shape) for i in indices)} do not broadcast",
            fix="give them shapes that broadcast to each other",
        ) from None
    return [i if i.shape == shape else dispatch.call("broadcast", i, shape=shape) for i in indices]


def _linear(indices: list[Tensor], sizes: list[int]) -> Tensor:
    """Indices along several axes as indices along the one they merge into."""
    total = indices[0]
    for index, size in zip(indices[1:], sizes[1:], strict=True):
        (factor,) = operands("getitem", (size,), _INT32)
        total = dispatch.call("add", dispatch.call("mul", total, factor), index)
    return total


def _fit(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The value broadcast to the part it replaces; leading axes of size 1 may be too many."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = dispatch.call("reshape", value, shape=value.shape[1:])
    if value.shape == shape:
        return value
    lead = len(shape) - value.ndim
    fits = lead >= 0 and all(
        size in (1, target) for size, target in zip(value.shape, shape[lead:], strict=True)
    )
    if not fits:
        raise ShapeError(
            f"setitem: value of shape {value.shape} does not broadcast to the part's {shape}",
            values=[("value", value)],
            fix="give the value the shape of the part, or 1 where it repeats",
        )
    return dispatch.call("broadcast", value, shape=shape)


def _scatter(x: Tensor, plan: _Plan, value: Tensor) -> Tensor:
    """Replaces by flat position: the positions are taken with the same plan as elements are."""
    flat = dispatch.call("iota", shape=(x.size,), axis=0, dtype=_INT32)
    places = dispatch.call("reshape", flat, shape=x.shape)
    chosen = _take(_slice(places, plan), plan)
    count = (chosen.size,)
    new = dispatch.call("reshape", _fit(value, chosen.shape), shape=count)
    where = dispatch.call("reshape", chosen, shape=count)
    source = dispatch.call("reshape", x, shape=(x.size,))
    return dispatch.call(
        "reshape", dispatch.call("scatter", source, where, new, axis=0), shape=x.shape
    )
