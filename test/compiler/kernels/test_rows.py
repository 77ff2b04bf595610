"""Reductions, softmax and layer normalization; static and run-time sizes give the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from mgec.compiler.kernels.elementwise import Access, dense_strides
from mgec.compiler.kernels.rows import (
    Fold,
    Loop,
    fold_named,
    layer_norm_kernel,
    reduction_kernel,
    softmax_kernel,
)
from mgec.compiler.kernels.source import DimRef
from mgec.dialects.mge.spec import FLOAT32, FLOAT64, INT64

RNG = np.random.default_rng(2)

CASES = [
    ((7,), (0,)), ((5, 130), (1,)), ((5, 130), (0,)), ((300, 3), (0,)), ((4, 6, 70), (0, 2)),
    ((3, 50, 33), (1,)), ((2, 3, 4, 5), (1, 3)), ((2, 3, 4, 5), (0, 2)), ((0, 5), (0,)),
    ((5, 0), (1,)), ((0, 5), (1,)), ((6, 1), (1,)), ((1, 6), (0,)), ((3, 64), (1,)),
]  # fmt: skip


def describe(shape, axes, dynamic, dtype=FLOAT32):
    """Loops and accesses of a reduction of a dense tensor."""
    sizes = [DimRef(i) if dynamic else s for i, s in enumerate(shape)]
    kept = [i not in axes for i in range(len(shape))]
    loops = [Loop(size, keep) for size, keep in zip(sizes, kept, strict=True)]
    source = Access(dtype, dense_strides(sizes, [True] * len(shape)))
    return loops, source, Access(dtype, dense_strides(sizes, kept)), len(shape) if dynamic else 0


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize(("shape", "axes"), CASES)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64])
def test_reduction(run, target, shape, axes, kind, dtype):
    if 0 in shape and kind in ("max", "min"):
        pytest.skip("nothing is largest of nothing")
    x = (RNG.standard_normal(shape) * (0.3 if kind == "prod" else 1)).astype(dtype)
    expected = getattr(np, kind)(x.astype(np.float64), axis=axes)
    bits = set()
    for dynamic in (False, True):
        loops, source, result, num_dims = describe(shape, axes, dynamic, dtype)
        kernel = reduction_kernel(
            "k", target, loops, [source], [result],
            [fold_named(kind, "f32" if dtype == FLOAT32 else "f64")], num_dims=num_dims,
        )  # fmt: skip
        (actual,) = run(kernel, target, [x], [(expected.shape, dtype)], shape if dynamic else ())
        tolerance = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * 10)
        bits.add(actual.tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("kind", ["max", "min"])
def test_nan_wins_wherever_it_stands(run, target, kind):
    x = RNG.standard_normal((80, 80)).astype(np.float32)
    x[np.arange(80), np.arange(80)] = np.nan
    x[3], x[7] = np.inf, -np.inf
    for axes in ((0,), (1,)):
        loops, source, result, _ = describe(x.shape, axes, False)
        kernel = reduction_kernel(
            "k", target, loops, [source], [result], [fold_named(kind, "f32")]
        )  # fmt: skip
        (actual,) = run(kernel, target, [x], [((80,), np.float32)])
        np.testing.assert_array_equal(actual, getattr(np, kind)(x, axis=axes))


def test_integers(run, target):
    x = RNG.integers(-(2**60), 2**60, (9, 21))
    for axes in ((0,), (1,)):
        loops, source, result, _ = describe(x.shape, axes, False, INT64)
        fold = Fold("i64", 0, lambda b, a, c: b.add(a, c))
        kernel = reduction_kernel("k", target, loops, [source], [result], [fold])
        expected = x.sum(axes)
        (actual,) = run(kernel, target, [x], [(expected.shape, np.int64)])
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dynamic", [False, True])
def test_statistics_of_channels(run, target, dynamic):
    """[N, C, HW] -> mean square distance from a per-channel mean, and a count of positives."""
    x = RNG.standard_normal((3, 5, 39)).astype(np.float32)
    mean, late = (RNG.standard_normal(5).astype(np.float32) for _ in range(2))
    loops, source, result, num_dims = describe(x.shape, (0, 2), dynamic)

    def prologue(b, lanes):
        distance = b.sub(lanes[0], lanes[1])
        positive = b.cmpf("ogt", lanes[0], b.like(0, lanes[0]))
        one = b.select(positive, b.like(1, distance), b.like(0, distance))
        return [b.mul(distance, distance), one]

    per_channel = Access(FLOAT32, (0, 1, 0))
    kernel = reduction_kernel(
        "k", target, loops, [source, per_channel], [result, result],
        [fold_named("sum", "f32")] * 2, prologue=prologue, late=[per_channel],
        finish=lambda b, totals, xs: [b.add(totals[0], xs[0]), totals[1]], num_dims=num_dims,
    )  # fmt: skip
    squares, counts = run(
        kernel, target, [x, mean, late], [((5,), np.float32)] * 2, x.shape if dynamic else ()
    )
    wide = x.astype(np.float64)
    expected = ((wide - mean[:, None]) ** 2).sum((0, 2)) + late
    np.testing.assert_allclose(squares, expected, rtol=1e-5)
    np.testing.assert_array_equal(counts, (x > 0).sum((0, 2)))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (4, 128), (2, 1000), (1, 50000), (5, 1), (0, 4)])
def test_softmax(run, target, shape, log, dynamic):
    x = (RNG.standard_normal(shape) * 5).astype(np.float32)
    rows, size = (DimRef(0), DimRef(1)) if dynamic else shape
    kernel = softmax_kernel("k", target, rows, size, log=log, num_dims=2 if dynamic else 0)
    (actual,) = run(kernel, target, [x], [(shape, np.float32)], shape if dynamic else ())
    shifted = x.astype(np.float64) - x.max(1, keepdims=True, initial=-np.inf)
    total = np.exp(shifted).sum(1, keepdims=True)
    expected = shifted - np.log(total) if log else np.exp(shifted) / total
    rtol = 2e-6 + 2.0**-24 * shape[1] ** 0.5  # the sum's rounding errors walk at random
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=2e-6 if log else 1e-12)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("size", [5, 100, 300])
def test_softmax_of_what_is_not_finite(run, target, size, log):
    """A masked element is exactly 0, tiny ones are gradual, NaN and +inf spoil their row."""
    x = (RNG.standard_normal((6, size)) * 3).astype(np.float32)
    x[0, ::2] = -np.inf
    x[1, 1:] = np.linspace(-110, -80, size - 1)
    x[1, 0], x[2, 3], x[3, 2] = 0, np.nan, np.inf
    x[4] = -np.inf
    kernel = softmax_kernel("k", target, *x.shape, log=log)
    (actual,) = run(kernel, target, [x], [(x.shape, np.float32)])
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = x - x.astype(np.float64).max(1, keepdims=True)
        total = np.exp(shifted).sum(1, keepdims=True)
        expected = shifted - np.log(total) if log else np.exp(shifted) / total
    smallest = np.finfo(np.float32).smallest_subnormal
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=2e-6 if log else smallest)
    if not log:
        np.testing.assert_array_equal(actual[0] == 0, x[0] == -np.inf)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (4, 128), (2, 1000), (0, 4)])
def test_layer_norm(run, target, shape, affine, dynamic):
    x = (RNG.standard_normal(shape) * 3 + 1).astype(np.float32)
    weight, bias = (RNG.standard_normal(shape[1]).astype(np.float32) for _ in range(2))
    rows, size = (DimRef(0), DimRef(1)) if dynamic else shape
    kernel = layer_norm_kernel(
        "k", target, rows, size, affine=affine, statistics=True, num_dims=2 if dynamic else 0
    )
    inputs = [x, weight, bias] if affine else [x]
    actual, mean, scale = run(
        kernel, target, inputs,
        [(shape, np.float32), (shape[:1], np.float32), (shape[:1], np.float32)],
        shape if dynamic else (),
    )  # fmt: skip
    wide = x.astype(np.float64)
    centre, spread = wide.mean(1), 1 / np.sqrt(wide.var(1) + 1e-5)
    expected = (wide - centre[:, None]) * spread[:, None]
    if affine:
        expected = expected * weight + bias
    np.testing.assert_allclose(actual, expected, atol=2e-5)
    np.testing.assert_allclose(mean, centre, atol=1e-5)
    np.testing.assert_allclose(scale, spread, rtol=1e-5)


@pytest.mark.parametrize("size", [5, 64, 100, 128, 300])
def test_static_and_run_time_sizes_agree(run, target, size):
    """Short rows are unrolled when their size is known; the order of sums is the same."""
    x = (RNG.standard_normal((4, size)) * 4).astype(np.float32)
    for template, options in (
        (softmax_kernel, {"log": False}),
        (softmax_kernel, {"log": True}),
        (layer_norm_kernel, {"affine": False}),
    ):
        bits = set()
        for rows, columns, dims in ((4, size, ()), (DimRef(0), DimRef(1), (4, size))):
            kernel = template("k", target, rows, columns, num_dims=len(dims), **options)
            (actual,) = run(kernel, target, [x], [(x.shape, np.float32)], dims)
            bits.add(actual.tobytes())
        assert len(bits) == 1
