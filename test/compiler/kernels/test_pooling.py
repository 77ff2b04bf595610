"""The pooling templates against the reference rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.pooling import PoolingBlocks, pooling_kernel
from mgec.compiler.kernels.pooling_window import Window
from mgec.compiler.kernels.source import DimRef
from mgec.compiler.targets import host_target
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, INT8, INT32, UINT8

RNG = np.random.default_rng(3)

CASES = [
    # image, kernel, stride, padding
    ((2, 3, 24, 24), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 2, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((1, 2, 9, 71), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((2, 1, 70, 70), (3, 3), (2, 2), (1, 1, 1, 1)),
    ((1, 2, 40, 67), (3, 3), (1, 1), (1, 1, 1, 1)),
    ((1, 1, 11, 40), (2, 3), (1, 2), (1, 0, 0, 2)),
    ((1, 2, 13, 100), (3, 3), (3, 3), (0, 0, 0, 0)),
    ((2, 1, 13, 29), (2, 3), (4, 5), (1, 1, 2, 1)),
    ((1, 1, 10, 90), (5, 4), (3, 3), (2, 2, 3, 3)),
    ((2, 3, 7, 7), (7, 7), (1, 1), (0, 0, 0, 0)),
    ((2, 3, 7, 7), (7, 7), (7, 7), (0, 0, 0, 0)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
    ((1, 1, 5, 6), (1, 1), (2, 2), (0, 0, 0, 0)),
    ((1, 1, 12, 30), (9, 20), (1, 1), (8, 3, 19, 7)),
    ((0, 3, 8, 8), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((2, 3, 75), (3,), (2,), (1, 2)),
    ((2, 3, 40), (2,), (2,), (0, 0)),
]


def values(shape, dtype):
    """Few different numbers, so that maxima are tied."""
    x = RNG.integers(-6, 7, shape)
    return (x % 7 if np.dtype(dtype).kind == "u" else x).astype(dtype)


def check(run, target, op, arrays, window, attrs, dynamic, blocks=None, tolerance=0.0):
    """The kernel computes what the reference says; returns the result."""
    kind = op_class(f"mge.{op}")
    full = kind.complete_attrs(attrs)
    (expected,) = evaluate(kind, arrays, full)
    image = expected.shape if op == "avg_pool_grad" else arrays[len(arrays) > 1].shape
    windows = expected.shape if not op.endswith("grad") else arrays[0].shape
    if op == "max_pool_pick":
        image = arrays[0].shape
    sizes: list[Any] = [image, windows]
    dims: list[int] = []
    if dynamic:
        dims = [*image, *windows]
        rank = len(image)
        sizes = [tuple(DimRef(i + j * rank) for i in range(rank)) for j in range(2)]
    source = pooling_kernel(
        op, "k", target, *sizes, window, arrays[0].dtype, num_dims=len(dims), blocks=blocks
    )
    (actual,) = run(source, target, arrays, [(expected.shape, expected.dtype)], dims)
    np.testing.assert_allclose(
        actual.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance
    )
    return actual


def attributes(kernel, stride, padding):
    return {"kernel": kernel, "stride": stride, "padding": padding}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("special", [False, True])
def test_maximum(run, target, case, dynamic, special):
    """max_pool, its gradient and the pick, exactly: ties, NaN and -inf included."""
    shape, *geometry = case
    window, attrs = Window(*geometry), attributes(*geometry)
    x = values(shape, np.float32)
    if special and x.size > 4:
        x[RNG.random(x.shape) < 0.05] = np.nan
        x[RNG.random(x.shape) < 0.3] = -np.inf
    pooled = check(run, target, "max_pool", [x], window, attrs, dynamic)
    d_out = values(pooled.shape, np.float32)
    if min(geometry[0]) < 9:
        check(run, target, "max_pool_grad", [d_out, x, pooled], window, attrs, dynamic)
    check(run, target, "max_pool_pick", [values(shape, np.float32), x, pooled],
          window, attrs, dynamic)  # fmt: skip


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_mean(run, target, case, dynamic, count_include_pad):
    shape, *geometry = case
    window = Window(*geometry, count_include_pad=count_include_pad)
    attrs = {**attributes(*geometry), "count_include_pad": count_include_pad}
    x = RNG.standard_normal(shape).astype(np.float32)
    mean = check(run, target, "avg_pool", [x], window, attrs, dynamic, tolerance=2e-6)
    if min(geometry[0]) < 9:
        attrs["input_size"] = shape[2:]
        d_out = RNG.standard_normal(mean.shape).astype(np.float32)
        check(run, target, "avg_pool_grad", [d_out], window, attrs, dynamic, tolerance=4e-6)


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT64, INT8, UINT8, INT32])
def test_dtypes(run, target, dtype):
    geometry = (3, 3), (2, 2), (1, 1, 1, 1)
    window, attrs = Window(*geometry), attributes(*geometry)
    x = values((2, 3, 20, 37), dtype)
    pooled = check(run, target, "max_pool", [x], window, attrs, False)
    if np.dtype(dtype).kind in "iu":
        return
    d_out = values(pooled.shape, dtype)
    check(run, target, "max_pool_grad", [d_out, x, pooled], window, attrs, False)
    tolerance = {FLOAT16: 1e-3, BFLOAT16: 1e-2, FLOAT64: 1e-15}[dtype]
    check(run, target, "avg_pool", [x], window, attrs, False, tolerance=tolerance)
    attrs["input_size"] = x.shape[2:]
    check(run, target, "avg_pool_grad", [d_out], window, attrs, False, tolerance=4 * tolerance)


@pytest.mark.parametrize("geometry", [case[1:] for case in CASES[3:6]])
def test_small_blocks(run, target, geometry):
    """Every block is cut, and the winners of a window on an edge are found from both sides."""
    window, attrs = Window(*geometry), attributes(*geometry)
    x = values((1, 2, 23, 90), np.float32)
    blocks = PoolingBlocks(rows=2, columns=16)
    pooled = check(run, target, "max_pool", [x], window, attrs, False, blocks)
    d_out = values(pooled.shape, np.float32)
    for dynamic in (False, True):
        arrays = [d_out, x, pooled]
        check(run, target, "max_pool_grad", arrays, window, attrs, dynamic, blocks)
    attrs["input_size"] = x.shape[2:]
    check(run, target, "avg_pool_grad", [d_out], window, attrs, False, blocks, tolerance=4e-6)


@pytest.mark.parametrize("case", CASES[:8])
def test_static_and_run_time_sizes_agree(run, target, case):
    shape, *geometry = case
    window, attrs = Window(*geometry), attributes(*geometry)
    x = RNG.standard_normal(shape).astype(np.float32)
    means = [
        check(run, target, "avg_pool", [x], window, attrs, dynamic, tolerance=2e-6).tobytes()
        for dynamic in (False, True)
    ]
    assert means[0] == means[1]
    attrs["input_size"] = shape[2:]
    (mean,) = evaluate(op_class("mge.avg_pool"), [x], attributes(*geometry))
    d_out = RNG.standard_normal(mean.shape).astype(np.float32)
    grads = [
        check(run, target, "avg_pool_grad", [d_out], window, attrs, d, tolerance=4e-6).tobytes()
        for d in (False, True)
    ]
    assert grads[0] == grads[1]


def test_refuses_three_spatial_axes_after_the_channels():
    with pytest.raises(NotApplicable, match="three spatial axes"):
        pooling_kernel(
            "max_pool", "k", host_target(), (1, 1, 4, 4, 4), (1, 1, 2, 2, 2),
            Window((2, 2, 2), (2, 2, 2), (0,) * 6), FLOAT32,
        )  # fmt: skip


def test_refuses_the_gradient_of_huge_windows():
    with pytest.raises(NotApplicable, match="9 x 20"):
        pooling_kernel(
            "avg_pool_grad", "k", host_target(), (1, 1, 12, 30), (1, 1, 4, 11),
            Window((9, 20), (1, 1)), FLOAT32,
        )  # fmt: skip
