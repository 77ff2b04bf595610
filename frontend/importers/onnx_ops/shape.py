"""ONNX ops on shapes: what moves data without computing, and constants."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np

from mgec.dialects.mge.elementwise import broadcast_shapes
from mgec.dialects.mge.spec import BOOL, DTYPES, INT64, TensorSpec
from mgec.errors import ModelError
from mgec.importers.onnx_file import dtype_of, tensor_array
from mgec.importers.onnx_node import Node, Unsupported, cut, moved, onnx_op
from mgec.importers.onnx_value import Value, check_size

_DAMAGED = "the file may be damaged: export it again"


# -- constants ---------------------------------------------------------------------------


@onnx_op("Constant")
def constant(b: Any, node: Node) -> Value:
    """One of several attributes holds the value."""
    if node.has("value"):
        tensor = node.attr("value")
        return Value(tensor_array(tensor, node.graph.folder), name=tensor.name)
    for name, dtype in (
        ("value_float", np.float32),
        ("value_int", np.int64),
        ("value_floats", np.float32),
        ("value_ints", np.int64),
    ):
        if node.has(name):
            return Value(np.array(node.attr(name), dtype))
    raise Unsupported("a constant that is not a dense tensor of numbers")


@onnx_op("ConstantOfShape")
def constant_of_shape(b: Any, node: Node) -> Value:
    """A tensor filled with one value."""
    shape = node.known_ints(0, "shape")
    fill = np.zeros(1, np.float32)
    if node.has("value"):
        fill = tensor_array(node.attr("value"), None).reshape(-1)
    if fill.size != 1:
        raise ModelError(f"the value has {fill.size} elements, but one is needed", fix=_DAMAGED)
    _check_sizes(shape)
    check_size(TensorSpec(shape, fill.dtype))
    return b.broadcast(Value(fill.reshape(())), shape)


def _check_sizes(shape: tuple[int, ...]) -> None:
    if any(size < 0 for size in shape):
        raise ModelError(f"shape {shape} has a negative size", fix=_DAMAGED)


@onnx_op("Range")
def range_(b: Any, node: Node) -> Value:
    """start, start + delta, ... up to limit."""
    names = ("start", "limit", "delta")
    start, limit, delta = (node.known(i, name).reshape(-1) for i, name in enumerate(names))
    if start.size != 1 or limit.size != 1 or delta.size != 1 or delta[0] == 0:
        raise ModelError("start, limit and delta are numbers, and delta is not 0", fix=_DAMAGED)
    dtype = start.dtype
    exact = [int(v[0]) if dtype.kind in "iu" else float(v[0]) for v in (start, limit, delta)]
    span = (exact[1] - exact[0]) / exact[2]
    if not np.isfinite(span):
        raise ModelError("a bound of the range is not finite", fix=_DAMAGED)
    if dtype.kind in "iu":
        count = max(-((exact[0] - exact[1]) // exact[2]), 0)
    else:
        count = max(ceil(span), 0)
    check_size(TensorSpec((int(count),), dtype))
    # The values are made before the import knows that they are used: a small limit.
    if count > 1 << 24:
        raise Unsupported(f"a range of {count} elements")
    steps = np.arange(int(count))
    return Value((start[0] + steps.astype(dtype) * delta[0]).astype(dtype))


@onnx_op("EyeLike")
def eye_like(b: Any, node: Node) -> Value:
    """Ones on a diagonal."""
    x = node.x(0)
    if x.rank != 2:
        raise ModelError(f"EyeLike of rank {x.rank}, but rank 2 is needed", fix=_DAMAGED)
    dtype = dtype_of(node.int("dtype")) if node.has("dtype") else x.dtype
    if dtype not in DTYPES:
        raise Unsupported(f"dtype {dtype.name}")
    row, column = (b.iota(shape=x.shape, axis=axis, dtype=INT64) for axis in range(2))
    return b.cast(b.equal(column, b.add(row, b.scalar(node.int("k"), row))), dtype)


@onnx_op("Shape")
def shape(b: Any, node: Node) -> Value:
    """The shape, or a part of it."""
    sizes = node.x(0).shape
    end = node.attr("end")
    return Value(np.array(sizes[slice(node.int("start"), end)], np.int64))


@onnx_op("Size")
def size(b: Any, node: Node) -> Value:
    """The number of elements."""
    return Value(np.array(node.x(0).spec.size, np.int64))


# -- one shape to another ------------------------------------------------------------------


@onnx_op("Reshape")
def reshape(b: Any, node: Node) -> Value:
    """0 keeps a size, -1 is the rest."""
    x = node.x(0)
    wanted = list(node.ints_or_input("shape", 1) or ())
    if not node.flag("allowzero"):
        for i, value in enumerate(wanted):
            if value == 0:
                if i >= x.rank:
                    raise ModelError(
                        f"size {i} is to be kept, but the input has rank {x.rank}", fix=_DAMAGED
                    )
                wanted[i] = x.shape[i]
    if wanted.count(-1) == 1:
        rest = prod(value for value in wanted if value != -1)
        if rest == 0 or x.spec.size % rest:
            raise ModelError(f"shape {wanted} does not fit {x.spec}", fix=_DAMAGED)
        wanted[wanted.index(-1)] = x.spec.size // rest
    _check_sizes(tuple(wanted))
    return b.reshape(x, tuple(wanted))


@onnx_op("Flatten")
def flatten(b: Any, node: Node) -> Value:
    """A matrix: the axes before `axis`, and those from it on."""
    x = node.x(0)
    axis = int(node.attr("axis", 1))
    if axis != x.rank:
        axis = node.normal_axis(axis, x.rank)
    return b.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


@onnx_op("Squeeze")
def squeeze(b: Any, node: Node) -> Value:
    """Axes of size 1 go: the named ones, or all."""
    x = node.x(0)
    axes = node.ints_or_input("axes", 1)
    if axes is None:
        gone = {i for i, length in enumerate(x.shape) if length == 1}
    else:
        gone = set(node.normal_axes(axes, x.rank))
        if any(x.shape[axis] != 1 for axis in gone):
            raise ModelError(f"axes {sorted(gone)} of {x.spec} are not all 1", fix=_DAMAGED)
    return b.reshape(x, tuple(d for i, d in enumerate(x.shape) if i not in gone))


@onnx_op("Unsqueeze")
def unsqueeze(b: Any, node: Node) -> Value:
    """New axes of size 1, at places of the result."""
    x = node.x(0)
    axes = node.ints_or_input("axes", 1) or ()
    rank = x.rank + len(axes)
    new = set(node.normal_axes(axes, rank))
    sizes = iter(x.shape)
    return b.reshape(x, tuple(1 if i in new else next(sizes) for i in range(rank)))


@onnx_op("Transpose")
def transpose(b: Any, node: Node) -> Value:
    """Axes in another order; reversed by default."""
    x = node.x(0)
    return moved(b, x, node.ints("perm") or tuple(reversed(range(x.rank))))


@onnx_op("Expand")
def expand(b: Any, node: Node) -> Value:
    """Broadcasts with a shape, in both directions."""
    x = node.x(0)
    wanted = node.known_ints(1, "shape")
    _check_sizes(wanted)
    return b.broadcast(x, broadcast_shapes("Expand", x.shape, wanted))


@onnx_op("Tile")
def tile(b: Any, node: Node) -> Value:
    """Opset 1 repeats along one axis; later all axes have a number."""
    x = node.x(0)
    if node.version < 6:
        repeats = [1] * x.rank
        axis = node.normal_axis(node.known_int(2, "axis"), x.rank)
        repeats[axis] = node.known_int(1, "tiles")
        return b.tile(x, reps=tuple(repeats))
    reps = node.known_ints(1, "repeats")
    if len(reps) != x.rank:
        raise ModelError(f"{len(reps)} repeats for rank {x.rank}", fix=_DAMAGED)
    return b.tile(x, reps=reps)


@onnx_op("Concat")
def concat(b: Any, node: Node) -> Value:
    """One after another; empty inputs of rank 1 may come along."""
    values = [node.x(i) for i in range(len(node.inputs))]
    axis = node.axis(values[0].rank, default=1)
    return values[0] if len(values) == 1 else b.concat(*values, axis=axis)


@onnx_op("Split")
def split(b: Any, node: Node) -> list[Value]:
    """Equal parts, or parts of given sizes."""
    x = node.x(0)
    axis = node.axis(x.rank)
    length = x.shape[axis]
    sizes = node.ints_or_input("split", 1)
    if sizes is None:
        count = node.num_outputs
        if node.version >= 18:
            count = int(node.attr("num_outputs", count))
        if count < 1 or (node.version < 18 and length % count):
            raise ModelError(f"axis {axis} of {x.spec} in {count} equal parts", fix=_DAMAGED)
        part = -(-length // count)
        sizes = [max(min(part, length - i * part), 0) for i in range(count)]
    if len(sizes) != node.num_outputs or sum(sizes) != length or min(sizes, default=0) < 0:
        raise ModelError(
            f"axis {axis} of {x.spec} in parts of {list(sizes)}, for {node.num_outputs} outputs",
            fix=_DAMAGED,
        )
    results: list[Value] = []
    start = 0
    for part in sizes:
        results.append(cut(b, x, axis, start, start + part))
        start += part
    return results


@onnx_op("Slice")
def slice_(b: Any, node: Node) -> Value:
    """Bounds as in Python, for some of the axes."""
    x = node.x(0)
    starts, ends = node.ints_or_input("starts", 1), node.ints_or_input("ends", 2)
    axes = node.ints_or_input("axes", 3)
    starts, ends = starts or (), ends or ()
    axes = node.normal_axes(range(len(starts)) if axes is None else axes, x.rank)
    steps = (node.known_ints(4, "steps") if node.has_input(4) else None) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ModelError(
            f"starts {starts}, ends {ends}, axes {axes}, steps {steps} do not fit", fix=_DAMAGED
        )
    bounds = [(0, length, 1) for length in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        bounds[axis] = slice(start, end, step).indices(x.shape[axis])
    if all(bound == (0, length, 1) for bound, length in zip(bounds, x.shape, strict=True)):
        return x
    low, high, by = zip(*bounds, strict=True)
    return b.slice(x, starts=low, stops=high, steps=by)


# -- blocks ----------------------------------------------------------------------------------


def _block(node: Node) -> tuple[Value, int]:
    x = node.x(0)
    block = node.int("blocksize")
    if x.rank != 4 or block < 1:
        raise Unsupported(f"{node.op} of rank {x.rank} with blocks of {block}")
    return x, block


@onnx_op("DepthToSpace")
def depth_to_space(b: Any, node: Node) -> Value:
    """Channels become blocks of pixels: the first part of them (DCR), or the last (CRD)."""
    x, block = _block(node)
    n, c, h, w = x.shape
    if c % block**2:
        raise ModelError(f"{c} channels in blocks of {block}", fix=_DAMAGED)
    depth = c // block**2
    mode = node.attr("mode", "DCR")
    if mode == "DCR":
        x = moved(b, b.reshape(x, (n, block, block, depth, h, w)), (0, 3, 4, 1, 5, 2))
    elif mode == "CRD":
        x = moved(b, b.reshape(x, (n, depth, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    else:
        raise Unsupported(f"mode {mode!r}")
    return b.reshape(x, (n, depth, h * block, w * block))


@onnx_op("SpaceToDepth")
def space_to_depth(b: Any, node: Node) -> Value:
    """Blocks of pixels become channels."""
    x, block = _block(node)
    mode = node.attr("mode", "DCR")
    n, c, h, w = x.shape
    if h % block or w % block:
        raise ModelError(f"{h} x {w} pixels in blocks of {block}", fix=_DAMAGED)
    parts = b.reshape(x, (n, c, h // block, block, w // block, block))
    if mode not in ("DCR", "CRD"):
        raise Unsupported(f"mode {mode!r}")
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return b.reshape(moved(b, parts, order), (n, c * block**2, h // block, w // block))


@onnx_op("Trilu")
def trilu(b: Any, node: Node) -> Value:
    """The upper or the lower triangle of the last two axes, zeros elsewhere."""
    x = node.x(0)
    if x.rank < 2:
        raise ModelError(f"Trilu of rank {x.rank}, but rank 2 is needed", fix=_DAMAGED)
    k = node.known_int(1, "k") if node.has_input(1) else 0
    row, column = (b.iota(shape=x.shape[-2:], axis=axis, dtype=INT64) for axis in range(2))
    limit = 1 << 40  # further than any diagonal, and far from overflow
    diagonal = b.add(row, b.scalar(max(min(k, limit), -limit), row))
    upper = bool(node.attr("upper", 1))
    keep = b.greater_equal(column, diagonal) if upper else b.less_equal(column, diagonal)
    if x.dtype == BOOL:
        return getattr(b, "and")(x, keep)
    return b.select(keep, x, b.scalar(0, x))


@onnx_op("ReverseSequence")
def reverse_sequence(b: Any, node: Node) -> Value:
    """The first `length` elements of each example in reverse order."""
    x, lengths = node.x(0), node.x(1)
    time, batch = node.int("time_axis"), node.int("batch_axis", 1)
    if {time, batch} != {0, 1} or x.rank < 2 or lengths.shape != (x.shape[batch],):
        raise ModelError(f"time axis {time}, batch axis {batch} of {x.spec}", fix=_DAMAGED)
    sizes = (*x.shape[:2], *(1,) * (x.rank - 2))
    along = b.iota(shape=sizes, axis=time, dtype=INT64)
    one = (x.shape[batch], 1) if batch == 0 else (1, x.shape[batch])
    count = b.reshape(b.cast(lengths, INT64), (*one, *(1,) * (x.rank - 2)))
    mirrored = b.sub(b.sub(count, b.scalar(1, count)), along)
    index = b.select(b.less(along, count), mirrored, along)
    return b.gather(x, b.broadcast(index, x.shape), axis=time)
