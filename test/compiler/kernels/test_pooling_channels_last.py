"""Pooling with the channels last against the reference rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mgec.compiler.kernels.operand import NotApplicable
from mgec.compiler.kernels.pooling import pooling_kernel
from mgec.compiler.kernels.pooling_channels_last import ChannelsLastBlocks, channels_last_pooling
from mgec.compiler.kernels.pooling_window import Window
from mgec.compiler.kernels.source import DimRef
from mgec.compiler.targets import host_target
from mgec.dialects.mge.reference import evaluate
from mgec.dialects.mge.registry import op_class
from mgec.dialects.mge.spec import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, INT8, INT32, UINT8

RNG = np.random.default_rng(3)

CASES = [
    # image, kernel, stride, padding
    ((2, 9, 8, 64), (3, 3), (2, 2), (1, 1, 1, 1)),
    ((1, 7, 70, 5), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((2, 11, 10, 37), (2, 3), (1, 2), (1, 0, 0, 2)),
    ((1, 10, 9, 150), (5, 4), (3, 3), (2, 2, 3, 3)),
    ((1, 5, 6, 16), (1, 1), (2, 2), (0, 0, 0, 0)),
    ((2, 7, 7, 3), (7, 7), (1, 1), (0, 0, 0, 0)),
    ((1, 2, 2, 1), (3, 3), (1, 1), (2, 2, 2, 2)),
    ((1, 3, 40, 17), (2, 30), (1, 3), (1, 0, 29, 7)),
    ((0, 4, 4, 8), (2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 21, 19), (3,), (2,), (1, 0)),
    ((2, 100, 80), (4,), (4,), (0, 0)),
    ((2, 5, 6, 7, 18), (2, 3, 2), (2, 1, 2), (0, 1, 1, 1, 1, 0)),
    ((1, 4, 5, 6, 33), (3, 3, 3), (1, 2, 1), (1, 1, 1, 1, 2, 0)),
]


def values(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Few different numbers, so that maxima are tied."""
    x = RNG.integers(-6, 7, shape)
    return (x % 7 if np.dtype(dtype).kind == "u" else x).astype(dtype)


def attributes(kernel, stride, padding, **more):
    return {"kernel": kernel, "stride": stride, "padding": padding, "channels_last": True, **more}


def check(run, target, op, arrays, attrs, dynamic, blocks=None, tolerance=0.0):
    """The kernel computes what the reference says; returns the result."""
    kind = op_class(f"mge.{op}")
    full = kind.complete_attrs(attrs)
    (expected,) = evaluate(kind, arrays, full)
    image, windows = arrays[0].shape, expected.shape
    sizes: list[Any] = [image, windows]
    dims: list[int] = []
    if dynamic:
        rank = len(image)
        dims = [*image, *windows]
        sizes = [tuple(DimRef(i + j * rank) for i in range(rank)) for j in range(2)]
    window = Window.of(full, len(image) - 2)
    source = channels_last_pooling(
        op, "k", target, *sizes, window, arrays[0].dtype, num_dims=len(dims), blocks=blocks
    )
    (actual,) = run(source, target, arrays, [(expected.shape, expected.dtype)], dims)
    np.testing.assert_allclose(
        actual.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance
    )
    return actual


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_maximum(run, target, case, dynamic):
    """max_pool and the pick, exactly: ties, NaN and -inf included."""
    shape, *geometry = case
    attrs = attributes(*geometry)
    for special in (False, True):
        x = values(shape, np.float32)
        if special and x.size > 4:
            x[RNG.random(x.shape) < 0.05] = np.nan
            x[RNG.random(x.shape) < 0.3] = -np.inf
        pooled = check(run, target, "max_pool", [x], attrs, dynamic)
        arrays = [values(shape, np.float32), x, pooled]
        check(run, target, "max_pool_pick", arrays, attrs, dynamic)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_mean(run, target, case, count_include_pad):
    """The same bits whether sizes are known or not."""
    shape, *geometry = case
    attrs = attributes(*geometry, count_include_pad=count_include_pad)
    x = RNG.standard_normal(shape).astype(np.float32)
    means = [
        check(run, target, "avg_pool", [x], attrs, dynamic, tolerance=2e-6).tobytes()
        for dynamic in (False, True)
    ]
    assert means[0] == means[1]


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT64, INT8, UINT8, INT32])
def test_dtypes(run, target, dtype):
    attrs = attributes((3, 3), (2, 2), (1, 1, 1, 1))
    x = values((2, 11, 12, 75), dtype)
    check(run, target, "max_pool", [x], attrs, False)
    if np.dtype(dtype).kind == "f":
        tolerance = {FLOAT16: 1e-3, BFLOAT16: 1e-2, FLOAT64: 1e-15}[dtype]
        check(run, target, "avg_pool", [x], attrs, False, tolerance=tolerance)


@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[9]])
def test_small_blocks(run, target, case):
    """Rows are cut into blocks, at the borders too, and kernels into loops."""
    shape, *geometry = case
    blocks = ChannelsLastBlocks(vectors=2, windows=2, unroll=2)
    for dynamic in (False, True):
        attrs = attributes(*geometry)
        check(run, target, "max_pool", [values(shape, np.float32)], attrs, dynamic, blocks)


def test_refuses_gradients():
    with pytest.raises(NotApplicable, match="gradient"):
        pooling_kernel(
            "avg_pool_grad", "k", host_target(), (1, 4, 4, 8), (1, 2, 2, 8),
            Window((2, 2), (2, 2), channels_last=True), FLOAT32,
        )  # fmt: skip
