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


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "log1p"])
def test_float64_goes_to_the_c_library(run, target, name):
    x = np.linspace(-0.9, 3, 21)
    source = elementwise_kernel(
        "k", target, (21,), [Access(FLOAT64, (1,))], [Access(FLOAT64, (1,))],
        lambda b, xs: [getattr(lane_math, name)(b, xs[0])],
    )  # fmt: skip
    (actual,) = run(source, target, [x], [(x.shape, np.float64)])
    np.testing.assert_allclose(actual, FUNCTIONS[name][0](x), rtol=1e-15, atol=1e-16)
