"""Attention: weighted means of values, the weights a softmax of products of queries and keys."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np

from mgec.dialects.mge.composite import widen
from mgec.dialects.mge.elementwise import check_dtype
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import decomposition, reference
from mgec.dialects.mge.spec import DYNAMIC, FLOATS, INT32, TensorSpec
from mgec.errors import ArgumentError, DTypeError, ShapeError

_ROLE = "(N, positions, heads, depth)"


@mge_op
class AttentionOp(MgeOp):
    """softmax(scale * query key^T + bias) value, in every head by itself.

    `scale` is the factor itself, 1 / sqrt(D) in the usual form. With fewer heads of key and
    value than of query, neighbouring heads of query share one (grouped queries). `causal`
    hides keys that come later than the query; the last query is as late as the last key, so that
    queries may be the end of a longer sequence. A query that sees no key is NaN.

    Shapes: query [N, L, H, D], key [N, S, G, D], value [N, S, G, E], result [N, L, H, E]; S
    not 0, G divides H; bias, which may be absent, broadcasts to [N, H, L, S]. Dtypes: the
    floats, all equal; 16-bit floats compute in float32 and round once.

    Source: Vaswani et al., "Attention is all you need", 2017, section 3.2.1; grouped queries:
    Ainslie et al., "GQA", 2023.
    """

    name = "mge.attention"

    @staticmethod
    def infer(
        query: TensorSpec,
        key: TensorSpec,
        value: TensorSpec,
        bias: TensorSpec | None = None,
        *,
        scale: float,
        causal: bool = False,
    ) -> TensorSpec:
        check_dtype("attention", "query", query.dtype, FLOATS)
        values = [(n, str(s), _ROLE) for n, s in zip(_OPERANDS, (query, key, value), strict=True)]
        if bias is not None:
            values.append(("bias", str(bias), ""))
        given = {"key": key, "value": value, **({} if bias is None else {"bias": bias})}
        for name, spec in given.items():
            if spec.dtype != query.dtype:
                raise DTypeError(
                    f"attention: query is {query.dtype.name} but {name} is {spec.dtype.name}",
                    values=values,
                    fix=f"convert {name} with astype({query.dtype.name!r})",
                )
        _check_shapes(query, key, value, values)
        if not isfinite(scale):
            raise ArgumentError(
                f"attention: scale is {scale}, and must be finite",
                values=values,
                fix="use 1 / sqrt(depth) for the usual form",
            )
        (n, rows, heads, _), keys = query.shape, key.shape[1]
        if bias is not None:
            _check_bias(bias, (n, heads, rows, keys), values)
        return TensorSpec((n, rows, heads, value.shape[3]), query.dtype)


_OPERANDS = ("query", "key", "value")


def _differ(a: int, b: int) -> bool:
    return a != b and DYNAMIC not in (a, b)


def _check_shapes(
    query: TensorSpec, key: TensorSpec, value: TensorSpec, values: list[tuple[str, str, str]]
) -> None:
    specs: dict[str, TensorSpec] = dict(zip(_OPERANDS, (query, key, value), strict=True))
    for name, spec in specs.items():
        if spec.rank != 4:
            raise ShapeError(
                f"attention: {name} has rank {spec.rank} but needs rank 4 {_ROLE}",
                values=values,
                fix=f"reshape {name} to {_ROLE}",
            )
    if key.shape[1] == 0:
        raise ShapeError(
            "attention: key has no positions, so that there is nothing to attend to",
            values=values,
            fix="give key and value at least one position",
        )
    for first, second, axis, what in (
        ("query", "key", 0, "examples"),
        ("key", "value", 0, "examples"),
        ("key", "value", 1, "positions"),
        ("key", "value", 2, "heads"),
        ("query", "key", 3, "elements per head"),
    ):
        a, b = specs[first].shape[axis], specs[second].shape[axis]
        if _differ(a, b):
            raise ShapeError(
                f"attention: {first} has {a} {what} but {second} has {b}",
                values=values,
                fix=f"make {first}.shape[{axis}] and {second}.shape[{axis}] equal",
            )
    heads, groups = query.shape[2], key.shape[2]
    if DYNAMIC not in (heads, groups) and (groups < 1 or heads % groups):
        raise ShapeError(
            f"attention: query has {heads} heads, which the {groups} heads of key do not divide",
            values=values,
            fix="give key and value as many heads as query, or a number that divides it",
        )


def _check_bias(
    bias: TensorSpec, scores: tuple[int, ...], values: list[tuple[str, str, str]]
) -> None:
    pairs = zip(reversed(bias.shape), reversed(scores), strict=False)
    if bias.rank > len(scores) or any(b != 1 and _differ(b, s) for b, s in pairs):
        raise ShapeError(
            f"attention: bias has shape {list(bias.shape)}, which does not broadcast to the "
            f"scores' {list(scores)}",
            values=values,
            fix="give bias the shape (N, heads, positions of query, positions of key), "
            "with 1 where it is the same for all",
        )


@reference(AttentionOp)
def _attention_reference(
    query: Any, key: Any, value: Any, bias: Any, *, scale: float, causal: bool
) -> Any:
    share = query.shape[2] // key.shape[2]
    key, value = np.repeat(key, share, axis=2), np.repeat(value, share, axis=2)
    scores = np.einsum("nlhd,nshd->nhls", query, key) * scale
    if bias is not None:
        scores = scores + bias
    if causal:
        rows, keys = scores.shape[2:]
        scores = np.where(np.tri(rows, keys, keys - rows, dtype=bool), scores, -np.inf)
    weight = np.exp(scores - scores.max(axis=3, keepdims=True))
    weight = weight / weight.sum(axis=3, keepdims=True)
    return np.einsum("nhls,nshe->nlhe", weight, value)


@decomposition(AttentionOp)
def _attention(
    b: Any, query: Any, key: Any, value: Any, bias: Any, *, scale: float, causal: bool
) -> Any:
    spec = b.spec(query)
    (n, rows, heads, depth), (_, keys, groups, out_depth) = spec.shape, b.spec(value).shape
    q, k, v = (b.transpose(widen(b, x), perm=(0, 2, 1, 3)) for x in (query, key, value))
    # The heads that share keys are rows of one product.
    stacked = (n, groups, heads // groups * rows)
    scores = b.matmul(b.reshape(q, (*stacked, depth)), k, transpose_rhs=True)
    scores = b.reshape(b.mul(scores, b.scalar(scale, scores)), (n, heads, rows, keys))
    if bias is not None:
        scores = b.add(scores, widen(b, bias))
    if causal:
        here = b.iota(shape=(rows, 1), axis=0, dtype=INT32)
        there = b.iota(shape=(1, keys), axis=1, dtype=INT32)
        hidden = b.greater(there, b.add(here, b.scalar(keys - rows, here)))
        scores = b.select(hidden, b.scalar(float("-inf"), scores), scores)
    weight = b.reshape(b.softmax(scores, axis=3), (*stacked, keys))
    out = b.reshape(b.matmul(weight, v), (n, heads, rows, out_depth))
    return b.cast(b.transpose(out, perm=(0, 2, 1, 3)), spec.dtype)


OPS = (AttentionOp,)
