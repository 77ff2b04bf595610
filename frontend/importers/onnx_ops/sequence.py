"""Sequences: lists of tensors that exist during the import only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, cut, onnx_op
from mgec.importers.onnx_value import Sequence_, Value

_DAMAGED = "the file may be damaged: export it again"


@onnx_op("SequenceConstruct")
def sequence_construct(b: Any, node: Node) -> Sequence_:
    """The inputs, as a sequence."""
    return Sequence_([node.x(i) for i in range(len(node.inputs))])


@onnx_op("SequenceEmpty")
def sequence_empty(b: Any, node: Node) -> Sequence_:
    """No tensors."""
    node.ignore("dtype")
    return Sequence_([])


def _place(node: Node, index: int, length: int) -> int:
    """A known position, counted from the end if it is negative."""
    position = node.known_int(index, "the position")
    if not -length <= position < length:
        raise ModelError(f"position {position} in a sequence of {length}", fix=_DAMAGED)
    return position % length


@onnx_op("SequenceAt")
def sequence_at(b: Any, node: Node) -> Value:
    """One tensor."""
    items = node.sequence(0).items
    return items[_place(node, 1, len(items))]


@onnx_op("SequenceInsert")
def sequence_insert(b: Any, node: Node) -> Sequence_:
    """One tensor more, at the end by default."""
    items = list(node.sequence(0).items)
    position = len(items)
    if node.has_input(2):
        position = node.known_int(2, "the position")
        if not -len(items) <= position <= len(items):
            raise ModelError(f"position {position} in a sequence of {len(items)}", fix=_DAMAGED)
        position += len(items) if position < 0 else 0
    items.insert(position, node.x(1))
    return Sequence_(items)


@onnx_op("SequenceErase")
def sequence_erase(b: Any, node: Node) -> Sequence_:
    """One tensor less, the last by default."""
    items = list(node.sequence(0).items)
    place = _place(node, 1, len(items)) if node.has_input(1) else len(items) - 1
    if not items:
        raise ModelError("nothing to take out of an empty sequence", fix=_DAMAGED)
    del items[place]
    return Sequence_(items)


@onnx_op("SequenceLength")
def sequence_length(b: Any, node: Node) -> Value:
    """How many tensors there are."""
    return Value(np.array(len(node.sequence(0).items), np.int64))


@onnx_op("ConcatFromSequence")
def concat_from_sequence(b: Any, node: Node) -> Value:
    """One after another along an axis, or along a new one."""
    items: Sequence[Value] = node.sequence(0).items
    if not items:
        raise ModelError("nothing to concatenate in an empty sequence", fix=_DAMAGED)
    new = node.flag("new_axis")
    axis = node.axis(items[0].rank + new)
    if new:
        items = [b.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in items]
    return items[0] if len(items) == 1 else b.concat(*items, axis=axis)


@onnx_op("SplitToSequence")
def split_to_sequence(b: Any, node: Node) -> Sequence_:
    """Parts of a size or of given sizes; without either of size 1, whose axis may go."""
    x = node.x(0)
    axis = node.axis(x.rank)
    length = x.shape[axis]
    keep = True
    node.ignore("keepdims")
    if not node.has_input(1):
        sizes = [1] * length
        keep = bool(node.attr("keepdims", 1))
    else:
        given = node.known_ints(1, "split")
        sizes = list(given)
        if node.x(1).rank == 0:
            if given[0] < 1:
                raise ModelError(f"parts of size {given[0]}", fix=_DAMAGED)
            sizes = [min(given[0], length - i) for i in range(0, length, given[0])]
    if sum(sizes) != length or min(sizes, default=0) < 0:
        raise ModelError(f"axis {axis} of {x.spec} in parts of {sizes}", fix=_DAMAGED)
    parts: list[Value] = []
    start = 0
    for size in sizes:
        part = cut(b, x, axis, start, start + size)
        if not keep:
            part = b.reshape(part, (*x.shape[:axis], *x.shape[axis + 1 :]))
        parts.append(part)
        start += size
    return Sequence_(parts)
