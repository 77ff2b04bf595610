"""Networks of images mean the same with their channels last."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graphs import interpret
from xdsl.builder import Builder, InsertPoint
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region, SSAValue

from mgec.compiler.passes.assign_layouts import AssignLayoutsPass, permutations
from mgec.compiler.passes.canonicalize import CanonicalizePass
from mgec.dialects.mge.builder import IRBuilder
from mgec.dialects.mge.spec import FLOAT64, TensorSpec, from_type, to_type


def test_permutations_undo_each_other() -> None:
    for rank in (3, 4, 5):
        there, back = permutations(rank)
        assert [there[axis] for axis in back] == list(range(rank))


def image_network(rng: np.random.Generator, rank: int) -> ModuleOp:
    """A random network over images of `rank` axes; every kind of op that the pass moves."""
    spatial = tuple(int(n) for n in rng.integers(5, 8, rank - 2))
    block = Block(arg_types=[to_type(TensorSpec((2, 3, *spatial), FLOAT64))])
    b: Any = IRBuilder(Builder(InsertPoint.at_end(block)))
    ones = (1,) * (rank - 2)

    def constant(*shape: int) -> SSAValue:
        return b.constant(rng.standard_normal(shape))

    def conv(x: SSAValue) -> SSAValue:
        channels = from_type(x.type).shape[1]
        kernel = tuple(int(k) for k in rng.integers(1, 3, rank - 2))
        return b.conv(x, constant(int(rng.integers(2, 6)), channels, *kernel))

    def elementwise(x: SSAValue) -> SSAValue:
        shape = from_type(x.type).shape
        other = [
            lambda: constant(shape[1], *ones),
            lambda: constant(1, shape[1], *ones),
            lambda: b.scalar(0.5, x),
            lambda: b.exp(b.neg(b.abs(x))),
            lambda: b.reduce_max(x, axes=tuple(range(2, rank)), keepdims=True),
            lambda: constant(*shape[2:]),
        ][rng.integers(6)]()
        return b.relu(b.add(x, other)) if rng.random() < 0.5 else b.mul(other, x)

    def shape_op(x: SSAValue) -> SSAValue:
        shape = from_type(x.type).shape
        if rng.random() < 0.4:
            return b.concat(x, b.neg(x), axis=1)
        if rng.random() < 0.5:
            low = (0, *(int(n) for n in rng.integers(0, 2, rank - 1)))
            return b.pad(x, low=low, high=(0,) * rank)
        stops = (shape[0], *(max(1, n - int(rng.integers(2))) for n in shape[1:]))
        return b.slice(x, starts=(0,) * rank, stops=stops, steps=(1,) * rank)

    def pool(x: SSAValue) -> SSAValue:
        return b.max_pool(x, kernel=(2,) * (rank - 2))

    x: SSAValue = conv(block.args[0])
    for _ in range(6):
        make = [elementwise, shape_op, conv, pool][rng.integers(4)]
        if min(from_type(x.type).shape[2:]) < 3 and make in (conv, pool):
            make = elementwise
        x = make(x)
    flat = b.reshape(x, (from_type(x.type).size,))
    results = [x, flat, b.reduce_sum(x, axes=tuple(range(2, rank))), b.softmax(x, axis=1)]
    block.add_op(func.ReturnOp(*results))
    types = [block.args[0].type], [v.type for v in results]
    return ModuleOp([func.FuncOp("main", types, Region(block))])


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("seed", range(15))
def test_same_numbers(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    module = image_network(rng, rank)
    shape = from_type(next(iter(module.ops)).body.block.args[0].type).shape
    inp = rng.standard_normal(shape)
    before = interpret(module, [inp])
    AssignLayoutsPass().apply(Context(), module)
    module.verify()
    assert "channels_last = true" in str(module)
    assert "mge.conv %0, %1 : " not in str(module)
    CanonicalizePass().apply(Context(), module)
    module.verify()
    for x, y in zip(interpret(module, [inp]), before, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)
