"""Random numbers from a counter: the same key and counter give the same bits everywhere.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2,
3", SC'11, section 3.3) encrypts a counter into four random words. The state is an operand,
uint32[4]: the key's two words, then the low and the high word of the first counter, so that
a traced graph takes it as an input. `blocks` says by how much to advance the counter.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from xdsl.ir import SSAValue

from mgec.dialects.mge.elementwise import check_dtype
from mgec.dialects.mge.lane import Lane, LaneBuilder
from mgec.dialects.mge.linalg import LinalgBuilder, LoweringCall
from mgec.dialects.mge.op import MgeOp, mge_op
from mgec.dialects.mge.rules import decomposition, gradient, lowering, reference
from mgec.dialects.mge.shape import check_sizes
from mgec.dialects.mge.spec import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FLOATS,
    UINT32,
    DType,
    TensorSpec,
)
from mgec.errors import ArgumentError, ShapeError

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def blocks(shape: tuple[int, ...], *, normal: bool = False) -> int:
    """How many counters a draw of `shape` uses; the next draw starts that much further.

    Args:
        shape: shape of the numbers drawn.
        normal: whether they are normal, which come in pairs.
    """
    words = prod(shape)
    return (words + words % 2 * normal + 3) // 4


def _check_state(name: str, state: TensorSpec) -> None:
    check_dtype(name, "state", state.dtype, (UINT32,))
    if state.shape != (4,):
        raise ShapeError(
            f"{name}: state has shape {state.shape} but a state has shape (4,)",
            fix="pass the two words of the key, then the low and high word of the counter",
        )


# -- bits ------------------------------------------------------------------------------


@mge_op
class RandomBitsOp(MgeOp):
    """Random 32-bit words. Word i, in row-major order, is word i % 4 of block i // 4.

    Shapes: state is uint32[4], the result has `shape`. Dtypes: uint32.
    """

    name = "mge.random_bits"
    runtime_attrs = ("shape",)

    @staticmethod
    def infer(state: TensorSpec, *, shape: tuple[int, ...]) -> TensorSpec:
        _check_state("random_bits", state)
        check_sizes("random_bits", shape)
        return TensorSpec(shape, UINT32)


def philox(counter: Any, key: Any) -> Any:
    """Philox4x32-10 in NumPy: four words for each row of `counter`.

    Args:
        counter: uint32[n, 4].
        key: uint32[2].
    """
    words = [counter[:, i].astype(np.uint64) for i in range(4)]
    keys = [int(k) for k in key]
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(_ROUNDS):
        left, right = (words[i] * np.uint64(m) for i, m in zip((0, 2), _MULTIPLIERS, strict=True))
        words = [
            (right >> shift) ^ words[1] ^ np.uint64(keys[0]),
            right & mask,
            (left >> shift) ^ words[3] ^ np.uint64(keys[1]),
            left & mask,
        ]
        keys = [(k + w) % 2**32 for k, w in zip(keys, _WEYL, strict=True)]
    return np.stack(words, axis=1).astype(np.uint32)


@reference(RandomBitsOp)
def _bits_reference(state: Any, *, shape: tuple[int, ...]) -> Any:
    count = prod(shape)
    first = int(state[2]) + (int(state[3]) << 32)
    places = np.uint64(first) + np.arange(blocks(shape), dtype=np.uint64)  # wraps after 2**64
    counter = np.zeros((blocks(shape), 4), np.uint32)
    counter[:, 0] = places & np.uint64(0xFFFFFFFF)
    counter[:, 1] = places >> np.uint64(32)
    return philox(counter, state[:2]).reshape(-1)[:count].reshape(shape)


def _philox_lanes(b: LaneBuilder, words: list[Lane], keys: list[Lane]) -> list[Lane]:
    """Philox4x32-10 on four words and two keys, all i32."""

    def product(x: Lane, factor: int) -> tuple[Lane, Lane]:
        wide = b.op("arith.extui", (x,), "i64")
        result = b.mul(wide, b.like(factor, wide))
        high = b.op("arith.trunci", (b.shr(result, b.like(32, result)),), "i32")
        return high, b.op("arith.trunci", (result,), "i32")

    for _ in range(_ROUNDS):
        left_high, left_low = product(words[0], _MULTIPLIERS[0])
        right_high, right_low = product(words[2], _MULTIPLIERS[1])
        words = [
            b.xor(b.xor(right_high, words[1]), keys[0]),
            right_low,
            b.xor(b.xor(left_high, words[3]), keys[1]),
            left_low,
        ]
        keys = [b.add(k, b.like(w, k)) for k, w in zip(keys, _WEYL, strict=True)]
    return words


@lowering(RandomBitsOp)
def _lower_bits(b: LinalgBuilder, call: LoweringCall) -> SSAValue:
    """Each element computes its whole block and keeps one word of it."""
    (state,), (dims,) = call.inputs, call.output_dims
    lanes = b.lanes

    def word(at: list[SSAValue]) -> Lane:
        key0, key1, low, high = (b.load(state, [i], UINT32) for i in range(4))
        flat = b.index(b.linearize(at, dims))
        block = lanes.op("arith.index_cast", (Lane(b.index(b.floordiv(flat, 4)), "index"),), "i64")
        low, high = (lanes.op("arith.extui", (x,), "i64") for x in (low, high))
        place = lanes.add(lanes.or_(low, lanes.shl(high, lanes.like(32, high))), block)
        zero = lanes.constant(0, "i32")
        counter = [
            lanes.op("arith.trunci", (place,), "i32"),
            lanes.op("arith.trunci", (lanes.shr(place, lanes.like(32, place)),), "i32"),
            zero,
            zero,
        ]
        words = _philox_lanes(lanes, counter, [key0, key1])
        which = lanes.op("arith.index_cast", (Lane(b.index(b.mod(flat, 4)), "index"),), "i32")
        chosen = words[3]
        for i in (2, 1, 0):
            here = lanes.cmpi("eq", which, lanes.like(i, which))
            chosen = lanes.select(here, words[i], chosen)
        return chosen

    return b.loops(dims, UINT32, word)


# -- distributions ---------------------------------------------------------------------

_UNIFORM_BITS = {FLOAT16: 11, BFLOAT16: 8, FLOAT32: 24, FLOAT64: 24}
"""How many of a word's bits a uniform number keeps: what the dtype holds without rounding
up to 1, and 24 for float64 too, so that float32 and float64 draw the same numbers."""


@mge_op
class RandomUniformOp(MgeOp):
    """Uniform numbers in [0, 1): the top 24 bits of a random word, fewer in 16-bit floats.

    Shapes: state is uint32[4], the result has `shape`. Dtypes: the floats.
    """

    name = "mge.random_uniform"

    @staticmethod
    def infer(state: TensorSpec, *, shape: tuple[int, ...], dtype: DType = FLOAT32) -> TensorSpec:
        _check_state("random_uniform", state)
        check_sizes("random_uniform", shape)
        check_dtype("random_uniform", "the result", dtype, FLOATS)
        return TensorSpec(shape, dtype)


@decomposition(RandomUniformOp)
def _uniform_decomposition(b: Any, state: Any, *, shape: tuple[int, ...], dtype: DType) -> Any:
    return _uniform(b, b.random_bits(state, shape=shape), dtype)


def _uniform(b: Any, bits: Any, dtype: DType) -> Any:
    """Random words as numbers in [0, 1)."""
    kept = _UNIFORM_BITS[dtype]
    whole = b.cast(b.shift_right(bits, b.scalar(32 - kept, bits)), FLOAT32)
    return b.cast(b.mul(whole, b.scalar(2.0**-kept, whole)), dtype)


@mge_op
class RandomNormalOp(MgeOp):
    """Standard normal numbers, by Box and Muller's transform of pairs of uniform ones.

    The random bits are the same everywhere; log, cos and sin may differ in the last place
    from target to target.

    Shapes: state is uint32[4], the result has `shape`. Dtypes: the floats.
    """

    name = "mge.random_normal"

    @staticmethod
    def infer(state: TensorSpec, *, shape: tuple[int, ...], dtype: DType = FLOAT32) -> TensorSpec:
        _check_state("random_normal", state)
        check_sizes("random_normal", shape)
        check_dtype("random_normal", "the result", dtype, FLOATS)
        return TensorSpec(shape, dtype)


@decomposition(RandomNormalOp)
def _normal_decomposition(b: Any, state: Any, *, shape: tuple[int, ...], dtype: DType) -> Any:
    wide = FLOAT64 if dtype == FLOAT64 else FLOAT32
    count = prod(shape)
    half = (count + 1) // 2
    uniform = _uniform(b, b.random_bits(state, shape=(2, half)), wide)

    def row(i: int) -> Any:
        return b.slice(uniform, starts=(i, 0), stops=(i + 1, half), steps=(1, 1))

    # 1 - u is in (0, 1], whose logarithm is finite.
    logarithm = b.log(b.sub(b.scalar(1, uniform), row(0)))
    radius = b.sqrt(b.mul(b.scalar(-2, uniform), logarithm))
    angle = b.mul(b.scalar(2 * np.pi, uniform), row(1))
    both = b.concat(b.mul(radius, b.cos(angle)), b.mul(radius, b.sin(angle)), axis=0)
    flat = b.slice(b.reshape(both, (2 * half,)), starts=(0,), stops=(count,), steps=(1,))
    return b.cast(b.reshape(flat, shape), dtype)


@mge_op
class DropoutOp(MgeOp):
    """Zeroes elements with probability `drop_prob` and scales the others by 1 / (1 - drop_prob).

    Also returns the mask: true where an element was kept.

    Shapes: any, kept twice; state is uint32[4]. Dtypes: the floats, and a bool mask.
    """

    name = "mge.dropout"
    results_names = ("out", "mask")

    @staticmethod
    def infer(
        inp: TensorSpec, state: TensorSpec, *, drop_prob: float
    ) -> tuple[TensorSpec, TensorSpec]:
        check_dtype("dropout", "inp", inp.dtype, FLOATS)
        _check_state("dropout", state)
        if not 0 <= drop_prob < 1:
            raise ArgumentError(
                f"dropout: drop_prob is {drop_prob}, but must be in [0, 1)",
                fix="use a probability from 0 to below 1",
            )
        return inp, TensorSpec(inp.shape, BOOL)


@decomposition(DropoutOp)
def _dropout_decomposition(b: Any, inp: Any, state: Any, *, drop_prob: float) -> tuple[Any, Any]:
    uniform = b.random_uniform(state, shape=b.spec(inp).shape, dtype=FLOAT32)
    mask = b.greater_equal(uniform, b.scalar(drop_prob, uniform))
    return _keep(b, inp, mask, drop_prob), mask


def _keep(b: Any, value: Any, mask: Any, drop_prob: float) -> Any:
    scaled = b.mul(value, b.scalar(1 / (1 - drop_prob), value))
    return b.select(mask, scaled, b.scalar(0, value))


@gradient(DropoutOp)
def _dropout_gradient(b: Any, call: Any, d_out: Any, d_mask: Any) -> tuple[Any, None]:
    return _keep(b, d_out, call.outputs[1], call.attrs["drop_prob"]), None


OPS = (RandomBitsOp, RandomUniformOp, RandomNormalOp, DropoutOp)
