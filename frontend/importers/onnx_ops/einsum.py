"""Einsum as transposes, reshapes, one matrix product per pair of operands, and sums."""

from __future__ import annotations

from math import prod
from typing import Any

from mgec.dialects.mge.spec import INT64
from mgec.errors import ModelError
from mgec.importers.onnx_node import Node, Unsupported, moved, onnx_op
from mgec.importers.onnx_value import Value

_DAMAGED = "the file may be damaged: export it again"
_ELLIPSIS = "..."


def _terms(equation: str, values: list[Value]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand's axes, and of the result's; those of `...` are numbers."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(values):
        raise ModelError(f"{len(terms)} terms for {len(values)} operands", fix=_DAMAGED)
    longest = 0
    labels: list[list[str]] = []
    for term, value in zip(terms, values, strict=True):
        before, dots, after = term.partition(_ELLIPSIS)
        if not (before + after).isalpha() and before + after:
            raise ModelError(f"{term!r} is not a term of an equation", fix=_DAMAGED)
        hidden = value.rank - len(before) - len(after)
        if hidden < 0 or (hidden and not dots):
            raise ModelError(f"term {term!r} for {value.spec}", fix=_DAMAGED)
        longest = max(longest, hidden)
        labels.append([*before, *(str(i) for i in range(-hidden, 0)), *after])
    every = [str(i) for i in range(-longest, 0)]
    if arrow:
        before, dots, after = right.partition(_ELLIPSIS)
        out = [*before, *(every if dots else []), *after]
        known = {label for term in labels for label in term}
        if len(set(out)) != len(out) or not set(out) <= known:
            raise ModelError(f"the result {right!r} of equation {equation!r}", fix=_DAMAGED)
        return labels, out
    count = [label for term in labels for label in term if not label.startswith("-")]
    return labels, [*every, *sorted(label for label in set(count) if count.count(label) == 1)]


def _diagonal(b: Any, x: Value, labels: list[str]) -> tuple[Value, list[str]]:
    """Takes the diagonal of axes of the same label."""
    while len(set(labels)) != len(labels):
        label = next(label for label in labels if labels.count(label) > 1)
        i = labels.index(label)
        j = labels.index(label, i + 1)
        if x.shape[i] != x.shape[j]:
            raise ModelError(f"axes {label!r} of {x.spec} have different sizes", fix=_DAMAGED)
        order = [k for k in range(x.rank) if k not in (i, j)] + [i, j]
        x, size = moved(b, x, order), x.shape[i]
        rest = x.shape[:-2]
        flat = b.reshape(x, (*rest, size * size))
        index = b.iota(shape=(size,), axis=0, dtype=INT64, step=size + 1)
        x = b.take(flat, index, axis=len(rest))
        labels = [labels[k] for k in order[:-1]]
    return x, labels


def _summed(b: Any, x: Value, labels: list[str], keep: set[str]) -> tuple[Value, list[str]]:
    """Sums over the axes that nothing else has."""
    gone = tuple(i for i, label in enumerate(labels) if label not in keep)
    if gone:
        x = b.reduce_sum(x, axes=gone, keepdims=False)
    return x, [label for label in labels if label in keep]


def _pair(
    b: Any, lhs: Value, left: list[str], rhs: Value, right: list[str], keep: set[str]
) -> tuple[Value, list[str]]:
    """One matrix product: shared labels that go on are batch axes, the others are summed."""
    sizes: dict[str, int] = {}
    for value, labels in ((lhs, left), (rhs, right)):
        for label, length in zip(labels, value.shape, strict=True):
            known = sizes.setdefault(label, length)
            if length != known and 1 not in (length, known):
                raise ModelError(f"sizes {known} and {length} of {label!r}", fix=_DAMAGED)
            sizes[label] = length if known == 1 else known
    shared = [label for label in left if label in right]
    lhs, rhs = (
        b.broadcast(
            v, tuple(sizes[k] if k in shared else n for k, n in zip(t, v.shape, strict=True))
        )
        for v, t in ((lhs, left), (rhs, right))
    )
    batch = [label for label in shared if label in keep]
    inner = [label for label in shared if label not in keep]
    rows = [label for label in left if label not in shared]
    columns = [label for label in right if label not in shared]

    def size(labels: list[str]) -> int:
        return prod(sizes[label] for label in labels)

    first = moved(b, lhs, [left.index(label) for label in (*batch, *rows, *inner)])
    second = moved(b, rhs, [right.index(label) for label in (*batch, *inner, *columns)])
    first = b.reshape(first, (size(batch), size(rows), size(inner)))
    second = b.reshape(second, (size(batch), size(inner), size(columns)))
    order = [*batch, *rows, *columns]
    return b.reshape(b.matmul(first, second), tuple(sizes[k] for k in order)), order


@onnx_op("Einsum")
def einsum(b: Any, node: Node) -> Value:
    """Operands from left to right."""
    values = [node.x(i) for i in range(len(node.inputs))]
    terms, out = _terms(str(node.attr("equation")), values)
    if len({label for term in terms for label in term}) > 52:
        raise Unsupported("so many labels")
    operands = [_diagonal(b, x, labels) for x, labels in zip(values, terms, strict=True)]
    total, labels = operands[0]
    for i, (x, more) in enumerate(operands[1:], 1):
        later = {label for _, rest in operands[i + 1 :] for label in rest} | set(out)
        total, labels = _summed(b, total, labels, later | set(more))
        x, more = _summed(b, x, more, later | set(labels))
        total, labels = _pair(b, total, labels, x, more, later)
    total, labels = _summed(b, total, labels, set(out))
    if set(labels) != set(out):
        raise ModelError(f"a label of the result is in no operand: {out}", fix=_DAMAGED)
    return moved(b, total, [labels.index(label) for label in out])
