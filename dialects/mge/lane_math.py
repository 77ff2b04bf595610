"""Elementary functions on lanes.

In float32 the functions that matter for speed are polynomials without branches, so that they
vectorize; one rule serves scalar and vector code, which therefore agree bit for bit. Measured
on a sample of all float32 values, exp, log and log1p are within 1 unit of the last place,
expm1 within 1.5, and tanh, erf and sigmoid within 2.5 (test_lane_math.py holds them to it;
slower forms of tanh and erf came to 1.3 and 1.0). They keep IEEE's special cases: NaN,
infinities, signed zeros, gradual underflow, overflow. A target without fused multiply-add
rounds differently. float64 and the remaining functions go to the C library, one element at a
time.

Source: argument reduction after Cody and Waite; log after FreeBSD's
e_logf.c; the polynomials of exp and erf are our own weighted least-squares fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps

from mgec.dialects.mge.lane import Lane, LaneBuilder

Function = Callable[[LaneBuilder, Lane], Lane]

_LOG2E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0
"""1.5 * 2^23: adding it to a float32 below 2^22 leaves the nearest integer in the low bits."""


def _f32(function: Function) -> Function:
    """Uses `function` for float32 and the math dialect's op of the same name otherwise."""

    @wraps(function)
    def dispatch(b: LaneBuilder, x: Lane) -> Lane:
        return function(b, x) if x.ty == "f32" else b.math(function.__name__, x)

    return dispatch


def _horner(b: LaneBuilder, x: Lane, coefficients: Sequence[float]) -> Lane:
    """The polynomial with these coefficients, highest power first."""
    value = b.like(coefficients[0], x)
    for coefficient in coefficients[1:]:
        value = b.fma(value, x, b.like(coefficient, x))
    return value


def _at_least(b: LaneBuilder, x: Lane, low: float) -> Lane:
    """max(x, low), and NaN where x is (one instruction on x86, unlike `maximum`)."""
    bound = b.like(low, x)
    return b.select(b.cmpf("olt", x, bound), bound, x)


def _at_most(b: LaneBuilder, x: Lane, high: float) -> Lane:
    """min(x, high), and NaN where x is."""
    bound = b.like(high, x)
    return b.select(b.cmpf("ogt", x, bound), bound, x)


def _power_of_two(b: LaneBuilder, exponent: Lane) -> Lane:
    """2 to an integer (i32) between -126 and 127."""
    biased = b.add(exponent, b.constant(127, "i32"))
    return b.bitcast(b.shl(biased, b.constant(23, "i32")), "f32")


def _reduce_exp(b: LaneBuilder, x: Lane) -> tuple[Lane, Lane]:
    """n (i32) and expm1(x - n log 2), with n the nearest integer to x / log 2."""
    magic = b.like(_ROUND, x)
    shifted = b.fma(x, b.like(_LOG2E, x), magic)
    n = b.sub(shifted, magic)
    r = b.fma(n, b.like(-_LN2_LOW, x), b.fma(n, b.like(-_LN2_HIGH, x), x))
    p = _horner(b, r, (1.38145394e-3, 8.36874545e-3, 4.16683890e-2, 1.66665211e-1, 4.99999940e-1))
    whole = b.sub(b.bitcast(shifted, "i32"), b.constant(0x4B400000, "i32"))
    return whole, b.fma(p, b.mul(r, r), r)


def _expm1_inside(b: LaneBuilder, x: Lane) -> Lane:
    """exp(x) - 1 where the exponential is a normal number: -87 < x < 88."""
    n, q = _reduce_exp(b, x)
    scale = _power_of_two(b, n)
    return b.fma(q, scale, b.sub(scale, b.like(1, x)))


@_f32
def exp(b: LaneBuilder, x: Lane) -> Lane:
    """e to the x."""
    n, q = _reduce_exp(b, _at_most(b, _at_least(b, x, -104.0), 89.0))
    half = b.shr(n, b.constant(1, "i32"), signed=True)  # 2^n in two steps: n goes to -150
    first = _power_of_two(b, half)
    return b.mul(b.fma(q, first, first), _power_of_two(b, b.sub(n, half)))


@_f32
def expm1(b: LaneBuilder, x: Lane) -> Lane:
    """exp(x) - 1, accurate near 0."""
    n, q = _reduce_exp(b, _at_most(b, _at_least(b, x, -20.0), 89.0))
    scale = _power_of_two(b, b.sub(n, b.constant(1, "i32")))
    value = b.fma(q, scale, b.sub(scale, b.like(0.5, x)))
    return b.select(b.cmpf("oeq", x, b.like(0, x)), x, b.add(value, value))


def _log_of(b: LaneBuilder, u: Lane, correction: Lane | None, shift: Lane | None) -> Lane:
    """log(u) + correction for a normal u > 0 that was scaled by 2^-shift."""
    sqrt_half = b.constant(0x3F3504F3, "i32")
    moved = b.sub(b.bitcast(u, "i32"), sqrt_half)
    exponent = b.shr(moved, b.constant(23, "i32"), signed=True)
    fraction = b.add(b.and_(moved, b.constant(0x7FFFFF, "i32")), sqrt_half)
    f = b.sub(b.bitcast(fraction, "f32"), b.like(1, u))
    k = b.op("arith.sitofp", (exponent,), "f32")
    if shift is not None:
        k = b.add(k, shift)
    s = b.div(f, b.add(b.like(2, f), f))
    z = b.mul(s, s)
    r = b.mul(z, _horner(b, z, (0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693)))
    half_square = b.mul(b.mul(b.like(0.5, f), f), f)
    small = b.mul(k, b.like(9.0580006145e-06, k))
    if correction is not None:
        small = b.add(small, correction)
    rest = b.sub(b.fma(s, b.add(half_square, r), small), half_square)
    return b.fma(k, b.like(6.9313812256e-01, k), b.add(f, rest))


def _log_edges(b: LaneBuilder, value: Lane, u: Lane) -> Lane:
    """log(u) given what the polynomial made of it: negative, zero, infinite and NaN u."""
    zero, infinity = b.like(0, u), b.like(float("inf"), u)
    value = b.select(b.cmpf("olt", u, infinity), value, u)  # +inf and NaN stay
    value = b.select(b.cmpf("olt", u, zero), b.like(float("nan"), u), value)
    return b.select(b.cmpf("oeq", u, zero), b.neg(infinity), value)


@_f32
def log(b: LaneBuilder, x: Lane) -> Lane:
    """Natural logarithm."""
    tiny = b.cmpf("olt", x, b.like(2.0**-126, x))
    scaled = b.select(tiny, b.mul(x, b.like(2.0**23, x)), x)
    shift = b.select(tiny, b.like(-23, x), b.like(0, x))
    return _log_edges(b, _log_of(b, scaled, None, shift), x)


@_f32
def log1p(b: LaneBuilder, x: Lane) -> Lane:
    """log(1 + x), accurate near 0."""
    one = b.like(1, x)
    u = b.add(x, one)
    above = b.cmpf("ogt", x, one)
    lost = b.select(above, b.sub(one, b.sub(u, x)), b.sub(x, b.sub(u, one)))  # 1 + x - u
    value = _log_edges(b, _log_of(b, u, b.div(lost, u), None), u)
    return b.select(b.cmpf("oeq", x, b.like(0, x)), x, value)


@_f32
def tanh(b: LaneBuilder, x: Lane) -> Lane:
    """Hyperbolic tangent: e / (e + 2) with e = exp(2x) - 1."""
    e = _expm1_inside(b, _at_most(b, _at_least(b, b.add(x, x), -20.0), 20.0))
    value = b.div(e, b.add(e, b.like(2, x)))
    return b.op("math.copysign", (value, x), x.ty)  # -0 stays -0


@_f32
def erf(b: LaneBuilder, x: Lane) -> Lane:
    """Error function, as 1 - exp of a polynomial that approximates log(1 - erf)."""
    t = _at_most(b, b.math("absf", x), 4.0)
    p = _horner(b, t, (9.2570608103415e-6, -1.1764801456592977e-4, 6.328595336526632e-4,
                       -1.66706636082381e-3, 1.604321732884273e-4, 1.9153045490384102e-2,
                       -1.0277782380580902e-1, -6.366193890571594e-1,
                       -1.28379225730896e-1))  # fmt: skip
    value = b.neg(_expm1_inside(b, b.fma(p, t, b.neg(t))))
    return b.op("math.copysign", (value, x), x.ty)


def sigmoid(b: LaneBuilder, x: Lane) -> Lane:
    """1 / (1 + exp(-x)); exp never overflows, so that tiny results keep their digits."""
    one = b.like(1, x)
    e = exp(b, b.neg(b.math("absf", x)))
    return b.div(b.select(b.cmpf("olt", x, b.like(0, x)), e, one), b.add(one, e))
