"""Accuracy and special cases of the elementary functions, on vectors, against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mgec.compiler.kernels.elementwise import Access, elementwise_kernel
from mgec.compiler.kernels.emitter import KernelEmitter, VectorLanes
from mgec.compiler.kernels.source import Units
from mgec.dialects.mge import lane_math, lane_trig
from mgec.dialects.mge.spec import FLOAT32

ERF, ERFC = np.vectorize(math.erf), np.vectorize(math.erfc)


def sigmoid(x):
    return np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x)))


def gelu_tanh(x):
    """In the form without cancellation."""
    return x * sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


# name -> (float64 reference, units of the last place allowed: what was measured on all float32
# values, rounded up; the same on targets without fused multiply-add)
FUNCTIONS = {
    "exp": (np.exp, 1.1, 1.1),
    "expm1": (np.expm1, 1.5, 1.6),
    "log": (np.log, 0.9, 0.9),
    "log1p": (np.log1p, 0.9, 0.9),
    "tanh": (np.tanh, 1.9, 2.7),
    "erf": (ERF, 1.7, 2.0),
    "sin": (np.sin, 1.75, 1.75),
    "cos": (np.cos, 1.75, 1.75),
    "tan": (np.tan, 0.51, 0.51),
    "sigmoid": (sigmoid, 2.0, 2.0),
    "silu": (lambda x: x / (1 + np.exp(-x)), 2.0, 2.0),
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


def evaluate(run, target, name, x):
    """The function called `name` of float32 or float64 numbers."""
    rule = getattr(lane_math, name, None) or getattr(lane_trig, name)
    access = Access(np.dtype(x.dtype), (1,))
    source = elementwise_kernel(
        "k", target, (x.size,), [access], [access], lambda b, xs: [rule(b, xs[0])]
    )
    (actual,) = run(source, target, [x], [(x.shape, x.dtype)])
    return actual


@pytest.mark.parametrize("name", FUNCTIONS)
def test_accuracy(run, target, name):
    reference, fused, separate = FUNCTIONS[name]
    allowed = fused if target.has_fma else separate
    x = points()
    actual = evaluate(run, target, name, x)
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


@pytest.mark.parametrize(("name", "phi"), [
    ("gelu", lambda x: ERFC(-x * math.sqrt(0.5)) / 2),
    ("gelu_tanh", lambda x: sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
])  # fmt: skip
def test_gelu(run, target, name, phi):
    """To the last place above 0, to a rounding of |x| below, and exactly 0 far out."""
    x = points()
    actual = evaluate(run, target, name, x)
    with np.errstate(all="ignore"):
        exact = x * phi(x.astype(np.float64))
        expected = exact.astype(np.float32)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    x, actual, exact = x[finite], actual[finite], exact[finite]
    error = np.abs(actual - exact)
    ulp = np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)
    above = x >= -0.25
    assert (error / ulp)[above].max() <= (2.0 if target.has_fma else 2.6)
    assert (error <= 2.0**-23 * np.abs(x) + 2.0**-149)[~above].all()
    assert (actual[x < -30] == 0).all()
    zero = exact.astype(np.float32) == 0
    np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(x[zero]))


def test_gelu_tanh_is_relatively_accurate_below_0(run, target):
    x = np.linspace(-8, 0, 20001, dtype=np.float32)
    exact = gelu_tanh(x.astype(np.float64))
    error = np.abs(evaluate(run, target, "gelu_tanh", x) - exact)
    power = np.abs(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x.astype(np.float64) ** 3))
    ulp = np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)
    assert (error <= (3 + 3 * power) * ulp).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_of_all_sizes_side_by_side(run, target, name):
    """An element is the same number whether its neighbours take the branch for large angles."""
    small = np.linspace(-(2.0**17), 2.0**17, 4001, dtype=np.float32)
    large = np.float32([131072, -131080, 1e10, 3.4e38, np.inf, np.nan])
    alone = evaluate(run, target, name, small)
    mixed = small.repeat(2)
    mixed[1::2] = np.resize(large, small.size)
    np.testing.assert_array_equal(evaluate(run, target, name, mixed)[::2], alone)


@pytest.mark.parametrize("name", ["exp", "tanh", "erf", "sigmoid", "silu", "gelu", "gelu_tanh",
                                  "log", "log1p", "expm1", "sin", "cos", "tan"])  # fmt: skip
def test_scalars_are_vectors_of_one(run, target, name):
    """The same bits without vectors."""
    x = points()[::37]
    rule = getattr(lane_math, name, None) or getattr(lane_trig, name)
    source = scalar_kernel(target, x.size, rule)
    (alone,) = run(source, target, [x], [(x.shape, np.float32)])
    assert alone.tobytes() == evaluate(run, target, name, x).tobytes()


def scalar_kernel(target, size, rule):
    """One element after the other, through lanes of width 0."""
    k = KernelEmitter("k", target)
    source, result = k.buffer(FLOAT32), k.buffer(FLOAT32)
    b = VectorLanes(k, 0)
    with k.loop("%begin", "%end") as i:
        k.store_scalar(rule(b, k.load_scalar(source, i)), result, i)
    return k.finish(Units((((size,), 1),)), template="scalars")


@pytest.mark.parametrize("scaled", [False, True])
def test_exp_scaled(run, target, scaled):
    """Scaled back it is exp, to the smallest result; as it is it is a normal number."""
    x = np.concatenate([-points(), np.float32([-np.inf])])
    x = x[~(x > 0)]

    def rule(b, x):
        value, scale = lane_math.exp_scaled(b, x)
        return b.mul(value, b.like(1 / scale, x)) if scaled else value

    access = Access(FLOAT32, (1,))
    source = elementwise_kernel(
        "k", target, (x.size,), [access], [access], lambda b, xs: [rule(b, xs[0])]
    )
    (actual,) = run(source, target, [x], [(x.shape, np.float32)])
    if scaled:
        with np.errstate(all="ignore"):
            exact = np.exp(x.astype(np.float64))
        ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
        assert np.nanmax(np.abs(actual - exact) / ulp) <= 1.1
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(x))
    else:
        assert (actual[~np.isnan(x)] >= 2.0**-87).all()


def test_exp_flushed(run, target):
    """exp where that is a normal number, and nothing where it is not."""
    x = np.concatenate([-points(), np.float32([-np.inf, 0, -87.3, -87.31, -88])])
    x = x[~(x > 0)]
    access = Access(FLOAT32, (1,))
    source = elementwise_kernel(
        "k", target, (x.size,), [access], [access], lambda b, xs: [lane_math.exp_flushed(b, xs[0])]
    )
    (actual,) = run(source, target, [x], [(x.shape, np.float32)])
    with np.errstate(all="ignore"):
        exact = np.where(x < np.float32(-87.3), 0, np.exp(x.astype(np.float64)))
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(x))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert np.nanmax(np.abs(actual - exact) / ulp) <= 1.1
    assert (actual[x < np.float32(-87.3)] == 0).all()


REFERENCES = {
    **{name: row[0] for name, row in FUNCTIONS.items()},
    "gelu": lambda x: x * ERFC(-x * math.sqrt(0.5)) / 2,
    "gelu_tanh": gelu_tanh,
}


@pytest.mark.parametrize("name", ["exp", "erf", "tanh", "log1p", "sigmoid", "silu", "gelu",
                                  "gelu_tanh"])  # fmt: skip
def test_float64_goes_to_the_c_library(run, target, name):
    x = np.linspace(-0.9, 3, 21)
    actual = evaluate(run, target, name, x)
    np.testing.assert_allclose(actual, REFERENCES[name](x), rtol=1e-15, atol=1e-16)
