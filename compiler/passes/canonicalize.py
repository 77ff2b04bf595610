"""Canonical forms: algebra that does not change a single bit of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from mgec.compiler.passes.rewriting import OpRewrites, apply_patterns, producer
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.registry import all_ops
from mgec.dialects.mge.rules import lanes
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    DType,
    from_type,
    is_float,
)


@dataclass(frozen=True)
class CanonicalizePass(ModulePass):
    """Simplifies where the result keeps every bit, and puts ops into their usual form.

        %0 = mge.transpose %x {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
        %1 = mge.transpose %0 {perm = [1, 0]} : (tensor<3x2xf32>) -> tensor<2x3xf32>
        %2 = mge.mul %1, %one : ...                // %one is all ones
        %3 = mge.add %2, %zero : ...               // x + 0.0 is not x where x is -0.0
    becomes
        %3 = mge.add %x, %zero : ...

    Casts, reshapes, transposes, broadcasts, slices, pads and reductions that do nothing go, chains
    of them become one, elementwise ops broadcast their operands themselves, constants stand to the
    right of commutative ops, `matmul` reads transposed operands in place. Dead ops are removed.
    Left alone: whatever rounds differently, flips the sign of a zero or loses a NaN.
    """

    name = "mge-canonicalize"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, rewrites)


rewrites = OpRewrites()
_ELEMENTWISE = tuple(name for name, op in all_ops().items() if op in lanes)


# -- arithmetic ------------------------------------------------------------------------


@rewrites("mge.add", "mge.mul", "mge.and", "mge.or", "mge.xor", "mge.equal", "mge.not_equal")
def _constant_to_the_right(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    lhs, rhs = op.operands
    if splat(lhs) is None or splat(rhs) is not None:
        return None
    return b.emit(type(op), (rhs, lhs), op.attrs)[0]


# What x may be combined with to stay x. Float x + 0.0 is missing: -0.0 + 0.0 is 0.0.
_FLOAT_NEUTRAL = {"mge.add": -0.0, "mge.sub": 0.0, "mge.mul": 1.0, "mge.div": 1.0, "mge.pow": 1.0}
_INTEGER_NEUTRAL = {
    "mge.add": 0, "mge.sub": 0, "mge.mul": 1, "mge.floor_div": 1, "mge.or": 0, "mge.xor": 0,
    "mge.and": -1, "mge.shift_left": 0, "mge.shift_right": 0,
}  # fmt: skip
_BOOL_NEUTRAL = {"mge.and": 1, "mge.or": 0, "mge.xor": 0}


@rewrites(*{**_FLOAT_NEUTRAL, **_INTEGER_NEUTRAL})
def _neutral_element(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    value, dtype = splat(op.operands[1]), _dtype(op.operands[0])
    if value is None or op.operands[0].type != op.results[0].type:
        return None
    if is_float(dtype):
        table: dict[str, Any] = _FLOAT_NEUTRAL
    else:
        table = _BOOL_NEUTRAL if dtype == BOOL else _INTEGER_NEUTRAL
    if op.name not in table:
        return None
    neutral = np.array(table[op.name]).astype(dtype)
    return op.operands[0] if neutral.tobytes() == value.tobytes() else None


@rewrites("mge.mul", "mge.and")
def _times_zero(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """x * 0 is 0 for integers; for floats it may be NaN or -0.0."""
    value, (out,) = splat(op.operands[1]), op.result_specs
    if value is None or is_float(out.dtype) or value or not out.is_static:
        return None
    return b.broadcast(b.constant(value), out.shape)


@rewrites("mge.pow")
def _square(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    value, base = splat(op.operands[1]), op.operands[0]
    if value is None or float(value) != 2.0 or base.type != op.results[0].type:
        return None
    return b.mul(base, base)


@rewrites("mge.neg", "mge.not")
def _involution(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    inner = producer(op.operands[0], op.name)
    return inner.operands[0] if inner else None


@rewrites("mge.abs", "mge.relu", "mge.sign", "mge.floor", "mge.ceil", "mge.round", "mge.round_even")
def _idempotent(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    inner = producer(op.operands[0], op.name)
    return inner.results[0] if inner else None


@rewrites("mge.abs")
def _abs_of_neg(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    inner = producer(op.operands[0], "mge.neg")
    return b.abs(inner.operands[0]) if inner else None


@rewrites("mge.maximum", "mge.minimum", "mge.and", "mge.or")
def _with_itself(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    lhs, rhs = op.operands
    return lhs if lhs is rhs else None


@rewrites("mge.select")
def _select(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    condition, lhs, rhs = op.operands
    (out,) = op.result_specs
    if lhs is rhs and lhs.type == op.results[0].type:
        return lhs
    if (value := splat(condition)) is not None and out.is_static:
        return b.broadcast(lhs if value else rhs, out.shape)
    if (inner := producer(condition, "mge.not")) is not None:
        return b.select(inner.operands[0], rhs, lhs)
    return None


@rewrites("mge.cast")
def _cast(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), target = op.operands, _dtype(op.results[0])
    if _dtype(inp) == target:
        return inp
    inner = producer(inp, "mge.cast")
    if inner is None:
        return None
    first, middle = _dtype(inner.operands[0]), _dtype(inp)
    # A float between a signed and an unsigned integer is out of range where the value is negative.
    undefined = first.kind == "i" and is_float(middle) and target.kind == "u"
    if holds(middle, first) and not undefined:
        return b.cast(inner.operands[0], target)
    return None


def holds(wide: DType, narrow: DType) -> bool:
    """Whether dtype `wide` represents every value of dtype `narrow` exactly."""
    if wide == narrow or narrow == BOOL:
        return True
    if is_float(narrow):
        if not is_float(wide):
            return False
        (digits, exponent), (fewer, smaller) = _FLOAT_BITS[wide], _FLOAT_BITS[narrow]
        return digits >= fewer and exponent >= smaller
    # Below, `narrow` is an integer; how many bits can its magnitude have?
    bits = narrow.itemsize * 8 - (narrow.kind == "i")
    if is_float(wide):
        digits, exponent = _FLOAT_BITS[wide]
        return bits <= digits and bits < 2 ** (exponent - 1)
    if wide == BOOL or (wide.kind == "u" and narrow.kind == "i"):
        return False
    return bits <= wide.itemsize * 8 - (wide.kind == "i")


# Digits of the significand, with the leading one, and bits of the exponent.
_FLOAT_BITS = {FLOAT16: (11, 5), BFLOAT16: (8, 8), FLOAT32: (24, 8), FLOAT64: (53, 11)}


# -- broadcasting ----------------------------------------------------------------------


@rewrites(*_ELEMENTWISE)
def _broadcast_operand(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """Elementwise ops broadcast by themselves; a unary op goes before its broadcast."""
    if len(op.operands) == 1:
        inner = producer(op.operands[0], "mge.broadcast")
        (out,) = op.result_specs
        if inner is None or not out.is_static:
            return None
        return b.broadcast(b.emit(type(op), inner.operands, op.attrs)[0], out.shape)
    for i, value in enumerate(op.operands):
        if (inner := producer(value, "mge.broadcast")) is None:
            continue
        operands: list[SSAValue] = [*op.operands[:i], inner.operands[0], *op.operands[i + 1 :]]
        specs = [from_type(v.type) for v in operands]
        if op.infer_specs(specs, op.attrs) == op.result_specs:
            return b.emit(type(op), operands, op.attrs)[0]
    return None


@rewrites("mge.broadcast")
def _broadcast(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), (out,) = op.operands, op.result_specs
    if inp.type == op.results[0].type and out.is_static:
        return inp
    inner = producer(inp, "mge.broadcast")
    if inner is None or not out.is_static:
        return None
    return b.broadcast(inner.operands[0], out.shape)


# -- moving data -----------------------------------------------------------------------


@rewrites("mge.reshape")
def _reshape(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), (out,) = op.operands, op.result_specs
    if not out.is_static:
        return None
    if inp.type == op.results[0].type:
        return inp
    inner = producer(inp, "mge.reshape")
    return b.reshape(inner.operands[0], out.shape) if inner else None


@rewrites("mge.reshape")
def _reshape_of_transpose(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """Axes of size 1 are added and dropped before a transpose, so that transposes meet."""
    inner, (out,) = producer(op.operands[0], "mge.transpose"), op.result_specs
    if inner is None or not (out.is_static and from_type(inner.results[0].type).is_static):
        return None
    perm, shape = _tuple(inner, "perm"), from_type(inner.operands[0].type).shape
    sources: list[int | None] = []  # for each axis of the result: which axis it was; None: new
    left = list(perm)
    for size in out.shape:
        while left and shape[left[0]] == 1 and size != 1:
            left.pop(0)
        sources.append(left.pop(0) if left and shape[left[0]] == size else None)
    if any(shape[p] != 1 for p in left):
        return None
    if any(source is None and size != 1 for source, size in zip(sources, out.shape, strict=True)):
        return None
    kept = sorted(source for source in sources if source is not None)
    new = sources.count(None)
    fresh = iter(range(new))
    moved = tuple(next(fresh) if s is None else new + kept.index(s) for s in sources)
    before = b.reshape(inner.operands[0], (*(1,) * new, *(shape[axis] for axis in kept)))
    return b.transpose(before, perm=moved)


@rewrites("mge.reshape")
def _transpose_between_reshapes(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """A transpose that leaves alone leading axes which are one for its sake only."""
    moved = producer(op.operands[0], "mge.transpose")
    merged = producer(moved.operands[0], "mge.reshape") if moved else None
    if moved is None or merged is None:
        return None
    perm, inp, (out,) = _tuple(moved, "perm"), merged.operands[0], op.result_specs
    first, middle = from_type(inp.type), from_type(merged.results[0].type)
    extra = first.rank - middle.rank
    if perm[0] != 0 or extra < 0 or not (first.is_static and out.is_static):
        return None
    whole = (*range(extra + 1), *(p + extra for p in perm[1:]))
    same = first.shape[extra + 1 :] == middle.shape[1:]
    if not same or out.shape != tuple(first.shape[p] for p in whole):
        return None
    return b.transpose(inp, perm=whole)


@rewrites("mge.slice")
def _slice_of_transpose(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """Parts are taken before they are transposed, where nothing needs the whole."""
    inner = producer(op.operands[0], "mge.transpose")
    if inner is None or any(use.operation.name != op.name for use in inner.results[0].uses):
        return None
    perm = _tuple(inner, "perm")
    bounds = {key: _tuple(op, key) for key in ("starts", "stops", "steps")}
    order = [perm.index(axis) for axis in range(len(perm))]
    before = {key: tuple(values[i] for i in order) for key, values in bounds.items()}
    return b.transpose(b.slice(inner.operands[0], **before), perm=perm)


@rewrites("mge.transpose")
def _transpose(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), perm = op.operands, _tuple(op, "perm")
    (spec,), (out,) = op.operand_specs, op.result_specs
    assert spec is not None
    if perm == tuple(range(len(perm))):
        return inp
    if (inner := producer(inp, "mge.transpose")) is not None:
        first = _tuple(inner, "perm")
        return b.transpose(inner.operands[0], perm=tuple(first[p] for p in perm))
    moved = [p for p in perm if spec.shape[p] != 1]
    if spec.is_static and moved == sorted(moved):  # only axes of size 1 change places
        return b.reshape(inp, out.shape)
    return None


@rewrites("mge.slice")
def _slice(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), (spec,), (out,) = op.operands, op.operand_specs, op.result_specs
    assert spec is not None
    if not spec.is_static:
        return None
    starts, steps = _tuple(op, "starts"), _tuple(op, "steps")
    if inp.type == op.results[0].type and all(
        size < 2 or step == 1 for size, step in zip(spec.shape, steps, strict=True)
    ):
        return inp
    if (inner := producer(inp, "mge.slice")) is None:
        return None
    bounds: list[tuple[int, int, int]] = []
    first = zip(_tuple(inner, "starts"), _tuple(inner, "steps"), strict=True)
    for (start, step), lo, by, count in zip(first, starts, steps, out.shape, strict=True):
        begin, stride = start + lo * step, step * by
        last = begin + (count - 1) * stride
        end = last + (1 if stride > 0 else -1)
        bounds.append((begin, end, stride) if count else (0, 0, 1))
    lows, highs, strides = zip(*bounds, strict=True) if bounds else ((), (), ())
    return b.slice(inner.operands[0], starts=lows, stops=highs, steps=strides)


@rewrites("mge.unslice")
def _unslice(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), (spec,) = op.operands, op.operand_specs
    assert spec is not None
    forward = all(
        s < 2 or step == 1 for s, step in zip(spec.shape, _tuple(op, "steps"), strict=True)
    )
    same = inp.type == op.results[0].type and spec.is_static
    return inp if same and forward else None


@rewrites("mge.pad", "mge.tile", "mge.repeat")
def _same_size(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """A pad by nothing, a tile or repeat of once."""
    (out,) = op.result_specs
    same = op.operands[0].type == op.results[0].type
    return op.operands[0] if same and out.is_static else None


@rewrites("mge.reverse")
def _reverse(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    (inp,), axes, (out,) = op.operands, _tuple(op, "axes"), op.result_specs
    if all(out.shape[axis] in (0, 1) for axis in axes):
        return inp
    inner = producer(inp, "mge.reverse")
    if inner is None:
        return None
    left = tuple(sorted(set(axes) ^ set(_tuple(inner, "axes"))))
    return b.reverse(inner.operands[0], axes=left)


@rewrites("mge.concat")
def _concat(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    axis = cast("int", op.attrs["axis"])
    if len(op.operands) == 1:
        return op.operands[0]
    parts: list[SSAValue] = []
    for value in op.operands:
        inner = producer(value, "mge.concat")
        if inner is not None and inner.attrs["axis"] == axis and value.has_one_use():
            parts += inner.operands
        elif from_type(value.type).shape[axis] != 0:
            parts.append(value)
    parts = parts or [op.operands[0]]
    return None if parts == list(op.operands) else b.concat(*parts, axis=axis)


# -- reductions and contractions -------------------------------------------------------


@rewrites(
    "mge.reduce_sum", "mge.reduce_prod", "mge.reduce_max", "mge.reduce_min", "mge.reduce_all",
    "mge.reduce_any",
)  # fmt: skip
def _reduce_one(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """A reduction over no axes, or over axes of size 1, of which one element each is left."""
    (inp,), (spec,), (out,) = op.operands, op.operand_specs, op.result_specs
    assert spec is not None
    if not spec.is_static or any(spec.shape[axis] != 1 for axis in _tuple(op, "axes")):
        return None
    same = b.reshape(inp, out.shape)
    if op.name == "mge.reduce_sum" and is_float(out.dtype):
        return b.add(same, b.scalar(0, same))  # the sum of -0.0 is 0.0
    return same


@rewrites("mge.matmul")
def _matmul_of_transpose(op: MgeOp, b: IRBuilder) -> SSAValue | None:
    """A matrix product reads an operand whose last two axes are swapped as it is."""
    operands, attrs = list(op.operands), dict(op.attrs)
    for i, flag in enumerate(("transpose_lhs", "transpose_rhs")):
        inner = producer(operands[i], "mge.transpose")
        if inner is None:
            continue
        perm = _tuple(inner, "perm")
        last = len(perm) - 1
        if perm == (*range(last - 1), last, last - 1):
            operands[i], attrs[flag] = inner.operands[0], not attrs[flag]
            return b.emit(type(op), operands, attrs)[0]
    return None


# -- what the rewrites ask -------------------------------------------------------------


def splat(value: SSAValue) -> np.ndarray[Any, Any] | None:
    """The one element, as a 0-d array, of a constant that has the same bits everywhere."""
    while (moved := producer(value, "mge.broadcast", "mge.reshape")) is not None:
        value = moved.operands[0]
    if (made := producer(value, "mge.constant")) is None:
        return None
    array = cast("np.ndarray[Any, Any]", made.attrs["value"])
    if array.size == 0:
        return None
    bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, -1)
    return array.reshape(-1)[:1].reshape(()) if bool((bits == bits[0]).all()) else None


def _dtype(value: SSAValue) -> DType:
    return from_type(value.type).dtype


def _tuple(op: MgeOp, name: str) -> tuple[int, ...]:
    return cast("tuple[int, ...]", op.attrs[name])
