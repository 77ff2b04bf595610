"""Batch norm for inference, folded into the weights before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern

from mgec.compiler.passes.rewriting import apply_patterns, producer
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.op import MgeOp
from mgec.dialects.mge.reduce import accumulator
from mgec.dialects.mge.spatial import Layout
from mgec.dialects.mge.spec import from_type


@dataclass(frozen=True)
class FoldBatchNormPass(ModulePass):
    """Folds batch norm with fixed statistics into the convolution or matrix product before it.

        %0 = mge.conv %x, %w : ...
        %1 = mge.batch_norm_inference %0, %mean, %variance, weight = %g, bias = %b : ...
    becomes, with s = g / sqrt(variance + eps) for every output channel
        %0 = mge.conv %x, (%w * s) : ...
        %1 = mge.add %0, (b - mean * s) : ...

    A bias already added between the two is folded as well. What is in parentheses becomes ops on
    constants, which `mge-fold-constants` or, for `mge.weight`, the pipeline evaluates when it
    compiles; 16-bit floats are folded in float32 and rounded once. Left alone: a convolution that
    something else uses too, and weights or statistics that are not constant. Results differ by
    the rounding of the weights.
    """

    name = "mge-fold-batch-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        apply_patterns(op, _FoldBatchNorm())


class _FoldBatchNorm(RewritePattern):
    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, MgeOp) or op.name != "mge.batch_norm_inference":
            return
        names = [p.name for p in op.signature.operands]
        given = dict(zip(names, op.operand_list, strict=True))
        if not all(_is_constant(value) for name, value in given.items() if name != "inp"):
            return
        rank = from_type(op.results[0].type).rank
        axis = rank - 1 if op.attrs["channels_last"] else 1
        if (found := _linear_before(given["inp"], axis)) is None:
            return
        linear, old_bias = found
        b: Any = IRBuilder(rewriter, op.location)
        dtype = from_type(op.results[0].type).dtype
        wide = accumulator(dtype)

        def widened(name: str) -> SSAValue | None:
            """A statistic or parameter as a vector, one entry per channel."""
            value = given[name]
            if value is None:
                return None
            return b.cast(b.reshape(value, (from_type(value.type).size,)), wide)

        mean, variance = widened("mean"), widened("variance")
        scale = b.rsqrt(b.add(variance, b.scalar(op.attrs["eps"], variance)))
        if (factor := widened("weight")) is not None:
            scale = b.mul(factor, scale)
        shift = b.neg(mean)
        if old_bias is not None:
            flat = b.reshape(old_bias, (from_type(old_bias.type).size,))
            shift = b.add(b.cast(flat, wide), shift)
        shift = b.mul(shift, scale)
        if (bias := widened("bias")) is not None:
            shift = b.add(bias, shift)

        (channels,) = from_type(scale.type).shape
        weight = linear.operands[1]
        at_weight = _channel_shape(linear, channels)
        scaled = b.mul(b.cast(weight, wide), b.reshape(scale, at_weight))
        operands = (linear.operands[0], b.cast(scaled, dtype))
        b.location = linear.location
        (product,) = b.emit(type(linear), operands, linear.attrs)
        b.location = op.location
        shift = b.reshape(b.cast(shift, dtype), (channels,) + (1,) * (rank - 1 - axis))
        rewriter.replace(op, [], [b.add(product, shift)])


def _linear_before(value: SSAValue | None, axis: int) -> tuple[MgeOp, SSAValue | None] | None:
    """The convolution or matrix product that makes `value`, and the bias added to it.

    None where folding would not be right; `axis` must be that of the output channels.
    """
    if value is None or not value.has_one_use():
        return None
    added = producer(value, "mge.add")
    bias: SSAValue | None = None
    if added is not None:
        lhs, rhs = added.operands
        value, bias = (lhs, rhs) if _is_constant(rhs) else (rhs, lhs)
        if not value.has_one_use() or not _is_constant(bias) or value.type != added.results[0].type:
            return None
    linear = producer(value, "mge.conv", "mge.matmul")
    if linear is None or not _is_constant(linear.operands[1]):
        return None
    (out,), (_, weight) = linear.result_specs, linear.operand_specs
    assert weight is not None
    if linear.name == "mge.matmul" and not out.rank == weight.rank == 2:
        return None
    if linear.name == "mge.conv" and Layout.of(out.rank, linear.attrs).channel != axis:
        return None
    if not out.is_static:
        return None
    if bias is None:
        return linear, None
    # One entry per channel, everything else 1.
    shape = from_type(bias.type).shape
    padded = (1,) * (out.rank - len(shape)) + shape
    if padded != tuple(size if i == axis else 1 for i, size in enumerate(out.shape)):
        return None
    return linear, bias


def _channel_shape(linear: MgeOp, channels: int) -> tuple[int, ...]:
    """The shape in which one value per output channel broadcasts against the weight."""
    if linear.name == "mge.conv":
        return (channels,) + (1,) * (from_type(linear.operands[1].type).rank - 1)
    return (channels, 1) if linear.attrs["transpose_rhs"] else (1, channels)


def _is_constant(value: SSAValue | None) -> bool:
    """Whether a value (an absent one too) is known when the graph is compiled."""
    if value is None:
        return True
    made = producer(value)
    if made is None:
        return False
    return all(_is_constant(operand) for operand in made.operands)
