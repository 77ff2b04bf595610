"""Attention written as matrix products around a softmax becomes one op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Any, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from mgec.compiler.passes.canonicalize import splat
from mgec.compiler.passes.rewriting import OpRewrites, apply_patterns, producer
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.spec import FLOAT32, FLOAT64, from_type

HIDDEN = -1e30
"""What is no larger than this hides a key: added to any score it leaves nothing of the score."""

_HEADS_LAST = (0, 2, 1, 3)


@dataclass(frozen=True)
class FuseAttentionPass(ModulePass):
    """Replaces softmax(scale * query key^T + bias) value by `mge.attention`.

        %0 = mge.transpose %q {perm = [0, 2, 1, 3]} : ...     // %q, %k, %v: [N, L, H, D]
        %1 = mge.transpose %k {perm = [0, 2, 3, 1]} : ...
        %2 = mge.matmul %0, %1 : ...
        %3 = mge.mul %2, %scale : ...
        %4 = mge.softmax %3 {axis = 3} : ...
        %5 = mge.transpose %v {perm = [0, 2, 1, 3]} : ...
        %6 = mge.matmul %4, %5 : ...
    becomes
        %7 = mge.attention %q, %k, %v {scale = ...} : ...
        %6 = mge.transpose %7 {perm = [0, 2, 1, 3]} : ...

    The scale may be split among scores, query and key; masks may be added, or selected where
    they hide a key; a mask that hides what comes later, a constant or a comparison of positions,
    becomes `causal`. Heads of key and value that are repeated for several heads of query are
    read once. Operands without transposes are reshaped to examples of one head each. Expects
    canonical IR. Left alone: scores or weights that something else uses, run-time shapes, and
    dtypes other than float32 and float64. Results differ by their rounding.
    """

    name = "mge-fuse-attention"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, _rewrites)


_rewrites = OpRewrites()


@_rewrites("mge.matmul")
def _fuse(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    weights, value = op.operands
    (out,) = op.result_specs
    softmax = producer(weights, "mge.softmax")
    if softmax is None or op.attrs["transpose_lhs"] or not weights.has_one_use():
        return None
    if not out.is_static or 0 in out.shape or out.dtype not in (FLOAT32, FLOAT64):
        return None
    if softmax.attrs["axis"] != out.rank - 1 or (scores := _scores(softmax.operands[0])) is None:
        return None
    values = _Matrix.of(value, swapped=bool(op.attrs["transpose_rhs"]))
    if len({len(m.perm) for m in (scores.query, scores.key, values)}) != 1:
        return None
    parts = _Parts(scores, values, op.results[0])
    plans = [plan for make in (_heads_last, _one_head) if (plan := make(parts)) is not None]
    return min(plans, key=lambda plan: plan.cost).emit(b) if plans else None


def _shape(value: SSAValue) -> tuple[int, ...]:
    return from_type(value.type).shape


def _is_free(shape: Sequence[int], perm: Sequence[int]) -> bool:
    """Whether a permutation of axes moves nothing but axes of size 1."""
    moved = [p for p in perm if shape[p] != 1]
    return moved == sorted(moved)


# -- what the scores are made of ---------------------------------------------------------


@dataclass(frozen=True)
class _Matrix:
    """An operand of a product: `value` seen as `view`, its axes permuted.

    Attributes:
        value: some tensor.
        view: its shape, or another one that it can be reshaped to.
        perm: the order of the view's axes that gives [..., positions, depth].
    """

    value: SSAValue
    view: tuple[int, ...]
    perm: tuple[int, ...]

    @staticmethod
    def of(value: SSAValue, *, swapped: bool) -> _Matrix:
        """An operand of a matmul; `swapped` if it is [..., depth, positions]."""
        shape = _shape(value)
        *leading, rows, depth = range(len(shape))
        last = (depth, rows) if swapped else (rows, depth)
        return _Matrix(value, shape, (*leading, *last)).unmoved()

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., positions, depth]"""
        return tuple(self.view[p] for p in self.perm)

    @property
    def cost(self) -> int:
        """Elements that must be copied to permute them."""
        return 0 if _is_free(self.view, self.perm) else prod(self.view)

    def unmoved(self) -> _Matrix:
        """This, with a transpose that makes the value as part of the permutation."""
        inner = producer(self.value, "mge.transpose")
        if inner is None or self.view != _shape(self.value):
            return self
        first = cast("tuple[int, ...]", inner.attrs["perm"])
        value = inner.operands[0]
        return _Matrix(value, _shape(value), tuple(first[p] for p in self.perm))

    def unscaled(self) -> tuple[_Matrix, float]:
        """What this is a multiple of, and the factor."""
        factor, value = 1.0, self.value
        while (found := _multiple(value)) is not None:
            value, factor = found[0], factor * found[1]
        return replace(self, value=value).unmoved(), factor

    def unrepeated(self) -> _Matrix:
        """[N, G, S, D] of [N, H, S, D], if each head is repeated for its neighbours."""
        if len(self.view) != 4 or (value := _repeated(self.value)) is None:
            return self
        shape = _shape(value)
        examples, heads, *rest = self.view
        groups = prod(shape) // prod((examples, *rest))
        view = (examples, groups, *rest)
        if heads % groups or shape not in (view, (examples, groups, 1, *rest)):
            return self
        made = producer(value, "mge.reshape")
        if made is not None and _shape(made.operands[0]) == view:
            value = made.operands[0]
        return replace(self, value=value, view=view).unmoved()

    def emit(self, b: Any, shape: tuple[int, ...]) -> SSAValue:
        """The permuted tensor, reshaped."""
        value = b.reshape(self.value, self.view)
        if self.perm != tuple(range(len(self.perm))):
            value = b.transpose(value, perm=self.perm)
        return b.reshape(value, shape)

    def reordered(self, order: Sequence[int]) -> _Matrix:
        """The axes of this in another order."""
        return replace(self, perm=tuple(self.perm[i] for i in order))


@dataclass(frozen=True)
class _Term:
    """Something added to the scores: a bias, or `fill` where the mask is `hides`."""

    value: SSAValue
    fill: float | None = None
    hides: bool = True

    def emit(self, b: Any, like: SSAValue) -> SSAValue:
        """The term as a bias, in the dtype of `like`."""
        if self.fill is None:
            return self.value
        pair = [b.scalar(self.fill, like), b.scalar(0, like)]
        return b.select(self.value, *(pair if self.hides else reversed(pair)))


@dataclass(frozen=True)
class _Scores:
    """scale * query key^T + terms."""

    query: _Matrix
    key: _Matrix
    scale: float
    terms: tuple[_Term, ...] = ()
    causal: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing is added."""
        return not self.terms and not self.causal


def _scores(value: SSAValue) -> _Scores | None:
    """What scores are made of, if nothing else uses them."""
    made = producer(value)
    if made is None or not value.has_one_use():
        return None
    if made.name == "mge.matmul":
        return _product(made)
    if (found := _multiple(value)) is not None:
        inner = _scores(found[0])
        if inner is None or not inner.is_plain:
            return None
        return replace(inner, scale=inner.scale * found[1])
    if made.name == "mge.add":
        for x, bias in (made.operands, reversed(made.operands)):
            if x.type == value.type and (inner := _scores(x)) is not None:
                return _with(inner, _Term(bias), value)
    if made.name == "mge.select":
        mask, *sides = made.operands
        for x, fill, hides in ((*reversed(sides), True), (*sides, False)):
            number = splat(fill)
            if number is None or not float(number) <= HIDDEN or x.type != value.type:
                continue
            if (inner := _scores(x)) is not None:
                return _with(inner, _Term(mask, float(number), hides), value)
    return None


def _product(matmul: MgeOp) -> _Scores | None:
    query, key = matmul.operands
    q, by_q = _Matrix.of(query, swapped=bool(matmul.attrs["transpose_lhs"])).unscaled()
    k, by_k = _Matrix.of(key, swapped=not matmul.attrs["transpose_rhs"]).unscaled()
    scale = by_q * by_k
    return _Scores(q, k, scale) if isfinite(scale) else None


def _multiple(value: SSAValue) -> tuple[SSAValue, float] | None:
    """x and c of c * x, or of x / (1 / c), with a constant c."""
    made = producer(value, "mge.mul", "mge.div")
    if made is None:
        return None
    x, by = made.operands
    number = splat(by)
    if number is None or x.type != value.type:
        return None
    factor = float(number)
    if made.name == "mge.div":
        factor = 1 / factor if factor else float("inf")
    return (x, factor) if isfinite(factor) else None


def _with(scores: _Scores, term: _Term, value: SSAValue) -> _Scores:
    """Scores with one more term."""
    rows, keys = _shape(value)[-2:]
    if rows <= keys and _is_causal(term, rows, keys):
        return replace(scores, causal=True)
    return replace(scores, terms=(*scores.terms, term))


def _is_causal(term: _Term, rows: int, keys: int) -> bool:
    """Whether a term hides what comes later than a query, and does nothing else."""
    if term.fill is not None and term.hides and _is_later(term.value, rows, keys):
        return True
    made = producer(term.value, "mge.constant")
    array = None if made is None else cast("np.ndarray[Any, Any]", made.attrs["value"])
    if array is None or array.shape[-2:] != (rows, keys) or prod(array.shape[:-2]) != 1:
        return False
    matrix, seen = array.reshape(rows, keys), np.tri(rows, keys, keys - rows, dtype=bool)
    if term.fill is not None:
        return bool((matrix == (~seen if term.hides else seen)).all())
    return bool((matrix[seen] == 0).all() and (matrix[~seen] <= HIDDEN).all())


def _is_later(mask: SSAValue, rows: int, keys: int) -> bool:
    """Whether a mask compares the numbers of keys with those of queries."""
    made = producer(mask, "mge.greater")
    if made is None:
        return False
    there, here = (_numbers(value) for value in made.operands)
    return there == ((1, keys), 1, 0) and here == ((rows, 1), 0, keys - rows)


def _numbers(value: SSAValue) -> tuple[tuple[int, ...], int, float] | None:
    """Shape, axis and first of numbers that count up by 1."""
    first, added = 0.0, producer(value, "mge.add")
    if added is not None and (number := splat(added.operands[1])) is not None:
        value, first = added.operands[0], float(number)
    made = producer(value, "mge.iota")
    if made is None or from_type(value.type).dtype.itemsize < 4:  # an int8 would wrap
        return None
    attrs: dict[str, Any] = dict(made.attrs)
    shape, axis, start, step = (attrs[key] for key in ("shape", "axis", "start", "step"))
    return (shape, axis, first + start) if step == 1 else None


def _repeated(value: SSAValue) -> SSAValue | None:
    """[N, G, S, D], or [N, G, 1, S, D], of what repeats it along axis 1; None of others."""
    made = producer(value, "mge.repeat", "mge.reshape")
    if made is None:
        return None
    if made.name == "mge.repeat":
        return made.operands[0] if made.attrs["axis"] == 1 else None
    wide = producer(made.operands[0], "mge.broadcast")
    if wide is None:
        return None
    once, often = _shape(wide.operands[0]), _shape(wide.results[0])
    matches = len(often) == 5 and once == (*often[:2], 1, *often[3:])
    merged = (often[0], prod(often[1:3]), *often[3:])
    return wide.operands[0] if matches and merged == _shape(value) else None


# -- two ways to write it ----------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """What was found.

    Attributes:
        scores: query, key, and what is added.
        value: the third operand.
        out: the result that is replaced.
    """

    scores: _Scores
    value: _Matrix
    out: SSAValue

    def operands(self) -> tuple[_Matrix, _Matrix, _Matrix]:
        """Query, key and value; heads that are repeated in both key and value once."""
        query, key, value = self.scores.query, self.scores.key, self.value
        if key.unrepeated().shape[:-2] == value.unrepeated().shape[:-2]:
            key, value = key.unrepeated(), value.unrepeated()
        return query, key, value

    @property
    def bias(self) -> tuple[int, ...] | None:
        """Shape of the sum of the terms."""
        shapes = [_shape(term.value) for term in self.scores.terms]
        return np.broadcast_shapes(*shapes) if shapes else None

    def result_cost(self, order: Sequence[int] | None) -> int:
        """Elements of the result to copy if it is made with its axes in `order`."""
        shape = _shape(self.out)
        perm = tuple(range(len(shape))) if order is None else tuple(order)
        uses = list(self.out.uses)
        user = uses[0].operation if len(uses) == 1 else None
        if isinstance(user, MgeOp) and user.name == "mge.transpose":
            perm = tuple(perm[p] for p in cast("tuple[int, ...]", user.attrs["perm"]))
        made = shape if order is None else tuple(shape[p] for p in order)
        return 0 if _is_free(made, perm) else prod(shape)


@dataclass(frozen=True)
class _Plan:
    """One way to write an attention.

    Attributes:
        parts: what was found.
        operands: query, key and value with their axes as `mge.attention` wants them.
        shapes: what these are reshaped to.
        bias: what the sum of the terms is reshaped to; None if there are none.
        result: how the axes of the result are permuted; None if it is only reshaped.
        cost: elements that are copied.
    """

    parts: _Parts
    operands: tuple[_Matrix, ...]
    shapes: tuple[tuple[int, ...], ...]
    bias: tuple[int, ...] | None
    result: tuple[int, ...] | None
    cost: int

    def emit(self, b: Any) -> SSAValue:
        """What replaces the result."""
        scores = self.parts.scores
        pairs = zip(self.operands, self.shapes, strict=True)
        operands = [matrix.emit(b, shape) for matrix, shape in pairs]
        bias: SSAValue | None = None
        for term in scores.terms:
            made = term.emit(b, operands[0])
            bias = made if bias is None else b.add(bias, made)
        if bias is not None and self.bias is not None:
            bias = b.reshape(bias, self.bias)
        out = b.attention(*operands, bias, scale=scores.scale, causal=scores.causal)
        if self.result is not None:
            out = b.transpose(out, perm=self.result)
        return b.reshape(out, _shape(self.parts.out))


def _heads_last(parts: _Parts) -> _Plan | None:
    """[N, L, H, D], which is what projections make."""
    query, key, value = parts.operands()
    shapes = [matrix.shape for matrix in (query, key, value)]
    if len(shapes[0]) != 4 or shapes[1][:2] != shapes[2][:2] or shapes[0][0] != shapes[1][0]:
        return None
    if shapes[0][1] % shapes[1][1]:
        return None
    operands = tuple(matrix.reordered(_HEADS_LAST) for matrix in (query, key, value))
    cost = sum(matrix.cost for matrix in operands) + parts.result_cost(_HEADS_LAST)
    made = tuple(matrix.shape for matrix in operands)
    return _Plan(parts, operands, made, parts.bias, _HEADS_LAST, cost)


def _one_head(parts: _Parts) -> _Plan | None:
    """[N * G, L, H / G, D]: heads of key as examples of one head, which a reshape makes."""
    operands = parts.operands()
    query, key, value = (matrix.shape for matrix in operands)
    leading, examples = query[:-2], prod(key[:-2])
    if key[:-2] != value[:-2] or len(key) != len(query):
        return None
    share = 1
    if key[:-2] != leading:  # heads of key that several heads of query see
        share = prod(leading) // examples
        if len(query) != 4 or query[2] != 1 or query[0] != key[0] or query[1] != key[1] * share:
            return None
    bias = parts.bias
    if bias is not None:
        padded = (1,) * (len(query) - len(bias)) + bias
        if all(d == 1 for d in padded[:-2]):
            bias = padded[-2:]
        elif padded[:-2] == leading:
            bias = (examples, share, *padded[-2:])
        else:
            return None
    shapes = (
        (examples, query[-2], share, query[-1]),
        (examples, key[-2], 1, key[-1]),
        (examples, value[-2], 1, value[-1]),
    )
    cost = sum(matrix.cost for matrix in operands) + parts.result_cost(None)
    return _Plan(parts, operands, shapes, bias, None, cost)
