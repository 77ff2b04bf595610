"""Accuracy and special cases of the elementary functions, on vectors, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mgec.compiler.kernels.elementwise import Access, elementwise_kernel
from mgec.dialects.mge import lane_math
from mgec.dialects.mge.spec import FLOAT32, FLOAT64

ERF = np.vectorize(math.erf)

# name -> (float64 reference, units of the last place allowed: what was measured, rounded up)
FUNCTIONS = {
    "exp": (np.exp, 1.1),
    "expm1": (np.expm1, 1.6),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 1.0),
    "tanh": (np.tanh, 2.6),
    "erf": (ERF, 2.5),
    "sin": (np.sin, 0.51),
    "cos": (np.cos, 0.51),
    "tan": (np.tan, 0.51),
    "sigmoid": (lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))), 2.4),
}

SPECIAL = np.float32([
    0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 88.72, 88.73, -87.4, -103.9, -103.98, -104.1,
    1e-45, -1e-45, 1.2e-38, 3.4e38, -3.4e38,
])  # fmt: skip


def points() -> np.ndarray:
    """Float32 values of every exponent, the interesting intervals, and the special cases."""
    every = np.arange(0, 2**32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    wide, near = np.linspace(-20, 20, 40001), np.linspace(-1.2, 1.2, 40001)
    return np.concatenate([every, wide.astype(np.float32), near.astype(np.float32), SPECIAL])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(run, target, name):
    reference, allowed = FUNCTIONS[name]
    x = points()
    source = elementwise_kernel(
        "k", target, (x.size,), [Access(FLOAT32, (1,))], [Access(FLOAT32, (1,))],
        lambda b, xs: [getattr(lane_math, name)(b, xs[0])],
    )  # fmt: skip
    (actual,) = run(source, target, [x], [(x.shape, np.float32)])
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
        expected = exact.astype(np.float32)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    assert np.isfinite(actual[finite]).all()
    ulp = np.spacing(np.abs(expected[finite])).astype(np.float64)
    error = np.abs(actual[finite] - exact[finite]) / ulp
    assert error.max() <= allowed, f"{error.max():.2f} ulp at {x[finite][error.argmax()]!r}"
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(expected[zero]))


def test_pow(run, target):
    """Every special case, and numbers of all sizes, against float64."""
    rng = np.random.default_rng(0)
    edges = np.float32([0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 2.5, np.inf, -np.inf, np.nan,
                        1e-45, -1e-45, 3.4e38, 16777215, 16777216, 33554433,
                        0.99999994])  # fmt: skip
    pairs = [np.stack(np.meshgrid(edges, edges), -1).reshape(-1, 2)]
    bits = rng.integers(0, 2**32, (200000, 2), dtype=np.uint64).astype(np.uint32)
    pairs.append(bits.view(np.float32))
    base = np.exp2(rng.uniform(-126, 127, 200000))
    exponent = rng.uniform(-149, 128, 200000) / np.log2(base)
    pairs.append(np.stack([base, exponent], -1).astype(np.float32))
    x, y = np.concatenate(pairs).T.copy()
    access = Access(FLOAT32, (1,))
    source = elementwise_kernel(
        "k", target, (x.size,), [access, access], [access],
        lambda b, xs: [lane_math.pow(b, *xs)],
    )  # fmt: skip
    (actual,) = run(source, target, [x, y], [(x.shape, np.float32)])
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
        expected = exact.astype(np.float32)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    error = np.abs(actual[finite] - exact[finite]) / np.spacing(np.abs(expected[finite]))
    assert error.max() <= 0.51, f"{x[finite][error.argmax()]!r} {y[finite][error.argmax()]!r}"
    np.testing.assert_array_equal(np.signbit(actual[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "log1p"])
def test_float64_goes_to_the_c_library(run, target, name):
    x = np.linspace(-0.9, 3, 21)
    source = elementwise_kernel(
        "k", target, (21,), [Access(FLOAT64, (1,))], [Access(FLOAT64, (1,))],
        lambda b, xs: [getattr(lane_math, name)(b, xs[0])],
    )  # fmt: skip
    (actual,) = run(source, target, [x], [(x.shape, np.float64)])
    np.testing.assert_allclose(actual, FUNCTIONS[name][0](x), rtol=1e-15, atol=1e-16)
