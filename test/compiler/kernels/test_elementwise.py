"""The elementwise template: every rank, broadcast, tail, dtype."""

from __future__ import annotations

import numpy as np
import pytest

from mgec.compiler.kernels.elementwise import (
    Access,
    ElementwiseBlocks,
    dense_strides,
    elementwise_kernel,
)
from mgec.compiler.kernels.source import DimRef
from mgec.dialects.mge.spec import BOOL, FLOAT32, FLOAT64, INT32

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1,),
        (5,),
        (16,),
        (70,),
        (0,),
        (3, 5),
        (4, 64),
        (1, 33),
        (2, 0),
        (2, 3, 17),
        (2, 3, 2, 2, 3, 5),
    ],
)
def test_shapes(run, target, shape, dynamic):
    x, y = (RNG.standard_normal(shape).astype(np.float32) for _ in range(2))
    sizes = [DimRef(i) if dynamic else s for i, s in enumerate(shape)]
    access = Access(FLOAT32, dense_strides(sizes, [True] * len(shape)))
    source = elementwise_kernel(
        "k", target, sizes, [access, access], [access],
        lambda b, xs: [b.sub(b.mul(xs[0], xs[0]), xs[1])],
        num_dims=len(shape) if dynamic else 0,
        blocks=ElementwiseBlocks(elements=48, unroll=1 + len(shape) % 2),
    )  # fmt: skip
    (actual,) = run(source, target, [x, y], [(shape, np.float32)], shape if dynamic else ())
    np.testing.assert_allclose(actual, x * x - y, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    "present", [(1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0)]
)
def test_broadcast(run, target, present, dynamic):
    shape = (3, 4, 21)
    x = RNG.standard_normal(shape).astype(np.float32)
    y = RNG.standard_normal([s if p else 1 for s, p in zip(shape, present, strict=True)]).astype(
        np.float32
    )
    sizes = [DimRef(i) if dynamic else s for i, s in enumerate(shape)]
    full = Access(FLOAT32, dense_strides(sizes, [True] * 3))
    part = Access(FLOAT32, dense_strides(sizes, [bool(p) for p in present]))
    source = elementwise_kernel(
        "k", target, sizes, [full, part], [full], lambda b, xs: [b.add(*xs)],
        num_dims=3 if dynamic else 0,
    )  # fmt: skip
    (actual,) = run(source, target, [x, y], [(shape, np.float32)], shape if dynamic else ())
    np.testing.assert_array_equal(actual, x + y)


def test_mixed_dtypes_and_several_results(run, target):
    x, y = (RNG.standard_normal(37).astype(np.float32) for _ in range(2))
    mask = RNG.integers(0, 2, 37).astype(bool)

    def body(b, lanes):
        a, c, on = lanes
        less = b.cmpf("olt", a, c)
        return [
            b.and_(less, on),
            b.select(on, a, c),
            b.convert(a, FLOAT32, FLOAT64),
            b.convert(c, FLOAT32, INT32),
        ]

    def one(dtype):
        return Access(dtype, (1,))

    results = [BOOL, FLOAT32, FLOAT64, INT32]
    source = elementwise_kernel(
        "k", target, (37,), [one(FLOAT32), one(FLOAT32), one(BOOL)], [one(d) for d in results], body
    )
    actual = run(source, target, [x, y, mask], [((37,), d) for d in results])
    expected = [(x < y) & mask, np.where(mask, x, y), x.astype(np.float64), y.astype(np.int32)]
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_strided_operands(run, target):
    """A transposed input is gathered, a transposed result scattered."""
    x = RNG.standard_normal((20, 30)).astype(np.float32)
    source = elementwise_kernel(
        "k", target, (30, 20), [Access(FLOAT32, (1, 30))],
        [Access(FLOAT32, (20, 1)), Access(FLOAT32, (1, 30))], lambda b, xs: [xs[0], b.neg(xs[0])],
    )  # fmt: skip
    turned, negative = run(source, target, [x], [((30, 20), np.float32), ((20, 30), np.float32)])
    np.testing.assert_array_equal(turned, x.T)
    np.testing.assert_array_equal(negative, -x)
