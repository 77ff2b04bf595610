"""Elementary functions on lanes.

In float32 they are polynomials and rational functions without branches, so that they vectorize;
one rule serves scalar and vector code, which therefore agree bit for bit. On targets with fused
multiply-add all are within 2 units of the last place, most within 1.7 (test_lane_math.py holds
each to its figure; docs/numerics.md lists them), but for gelu below 0, where the error is
absolute. pow computes in float64 inside and is within 0.51. They keep IEEE's special cases: NaN,
infinities, signed zeros, gradual underflow, overflow. A target without fused multiply-add rounds
differently. float64 and the remaining functions go to the C library, one element at a time.

What an operation costs decided the forms (AVX-512 server, 2026-12): a multiply-add takes one
slot of its unit; additions, minima and comparisons run beside it for nothing; a shift or a select
costs about one slot, a division two or three.

Source: argument reduction after Cody and Waite; log after FreeBSD's e_logf.c. The other polynomials
and rational functions are our own weighted minimax fits (Lawson's iteration), rounded to float32
by coordinate search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import factorial, pi

from mgec.dialects.mge.lane import Lane, LaneBuilder

Function = Callable[[LaneBuilder, Lane], Lane]

_LOG2E = 1.44269504088896341
_LN2 = 0.6931471805599453
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
ROUND = 12582912.0
"""1.5 * 2^23: adding it to a float32 below 2^22 leaves the nearest integer in the low bits."""

_BIAS = 127
"""Of the exponent field of a float32."""

_EXPM1 = (0.0013814184, 0.008368893, 0.041668337, 0.1666652, 0.49999994)
"""(expm1(r) - r) / r^2 for |r| <= log(2) / 2, within 0.06 * 2^-24 of exp."""

_EXPM1_BELOW = (0.0010370084, 0.008075264, 0.04157804, 0.16665316, 0.4999993)
"""The same for -log(2) <= r <= 0, relative to expm1."""


def in_float32(function: Function) -> Function:
    """Decorates a function for float32: other types get the math dialect's op of its name."""

    @wraps(function)
    def dispatch(b: LaneBuilder, x: Lane) -> Lane:
        return function(b, x) if x.ty == "f32" else b.math(function.__name__, x)

    return dispatch


def horner(b: LaneBuilder, x: Lane, coefficients: Sequence[float]) -> Lane:
    """The polynomial with these coefficients, highest power first."""
    value = b.like(coefficients[0], x)
    for coefficient in coefficients[1:]:
        value = b.fma(value, x, b.like(coefficient, x))
    return value


def at_least(b: LaneBuilder, x: Lane, low: float) -> Lane:
    """max(x, low), and NaN where x is (one instruction on x86, unlike `maximum`)."""
    bound = b.like(low, x)
    return b.select(b.cmpf("olt", x, bound), bound, x)


def at_most(b: LaneBuilder, x: Lane, high: float) -> Lane:
    """min(x, high), and NaN where x is."""
    bound = b.like(high, x)
    return b.select(b.cmpf("ogt", x, bound), bound, x)


def _power_of_two(b: LaneBuilder, biased: Lane) -> Lane:
    """2 to an integer (i32, plus `_BIAS`) whose upper 23 bits do not matter."""
    return b.bitcast(b.shl(biased, b.constant(23, "i32")), "f32")


def _reduce_exp(b: LaneBuilder, x: Lane, bias: int) -> tuple[Lane, Lane]:
    """n + bias in the low bits of an i32, and expm1(x - n log 2), n nearest to x / log 2."""
    magic = b.like(ROUND + bias, x)
    shifted = b.fma(x, b.like(_LOG2E, x), magic)
    return b.bitcast(shifted, "i32"), _expm1_of(b, x, b.sub(shifted, magic))


def _expm1_of(b: LaneBuilder, x: Lane, n: Lane) -> Lane:
    """expm1(x - n log 2) for the nearest integer n."""
    r = b.fma(n, b.like(-_LN2_LOW, x), b.fma(n, b.like(-_LN2_HIGH, x), x))
    return b.fma(horner(b, r, _EXPM1), b.mul(r, r), r)


@in_float32
def exp(b: LaneBuilder, x: Lane) -> Lane:
    """e to the x."""
    bits, q = _reduce_exp(b, at_most(b, at_least(b, x, -104.0), 89.0), 2 * _BIAS)
    half = b.shr(bits, b.constant(1, "i32"))  # 2^n in two steps: n goes from -150 to 128
    first, second = _power_of_two(b, half), _power_of_two(b, b.sub(bits, half))
    return b.mul(b.fma(q, first, first), second)


_LEAST_EXPONENT = -87.3
"""exp of this is a normal number."""

EXP_SCALE = 2.0**64
"""What `exp_scaled` multiplies by."""


def exp_scaled(b: LaneBuilder, x: Lane) -> tuple[Lane, float]:
    """exp(x) * scale for x <= 0, and the scale, which keeps the smallest results normal.

    For quotients of exponentials, as in softmax: cheaper than `exp`.
    """
    if x.ty != "f32":
        return exp(b, x), 1.0
    bits, q = _reduce_exp(b, at_least(b, x, -104.0), _BIAS + 64)
    power = _power_of_two(b, bits)
    return b.fma(q, power, power), EXP_SCALE


def exp_flushed(b: LaneBuilder, x: Lane) -> Lane:
    """exp(x) for x <= 0; what would be no normal number is 0. Cheaper than `exp`."""
    if x.ty != "f32":
        return exp(b, x)
    bits, q = _reduce_exp(b, x, _BIAS)
    power = _power_of_two(b, bits)
    tiny = b.cmpf("olt", x, b.like(_LEAST_EXPONENT, x))
    return b.select(tiny, b.like(0, x), b.fma(q, power, power))


@in_float32
def expm1(b: LaneBuilder, x: Lane) -> Lane:
    """exp(x) - 1, accurate near 0."""
    bits, q = _reduce_exp(b, at_most(b, at_least(b, x, -20.0), 89.0), _BIAS - 1)
    scale = _power_of_two(b, bits)
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
    r = b.mul(z, horner(b, z, (0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693)))
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


@in_float32
def log(b: LaneBuilder, x: Lane) -> Lane:
    """Natural logarithm."""
    tiny = b.cmpf("olt", x, b.like(2.0**-126, x))
    scaled = b.select(tiny, b.mul(x, b.like(2.0**23, x)), x)
    shift = b.select(tiny, b.like(-23, x), b.like(0, x))
    return _log_edges(b, _log_of(b, scaled, None, shift), x)


@in_float32
def log1p(b: LaneBuilder, x: Lane) -> Lane:
    """log(1 + x), accurate near 0."""
    one = b.like(1, x)
    u = b.add(x, one)
    above = b.cmpf("ogt", x, one)
    lost = b.select(above, b.sub(one, b.sub(u, x)), b.sub(x, b.sub(u, one)))  # 1 + x - u
    value = _log_edges(b, _log_of(b, u, b.div(lost, u), None), u)
    return b.select(b.cmpf("oeq", x, b.like(0, x)), x, value)


_ONE_SIDED = 0.498
"""Added to x / log 2 before it is rounded: nearly floor or ceil, but 0 for tiny x.

A remainder of one sign keeps expm1 free of cancellation between its two terms.
"""

_COTH = (0.0020679862, -0.022218732, 0.33333325, 1.0)
"""g coth(g) in powers of g^2 for |g| <= log(2) / 2, within 0.01 * 2^-24."""


@in_float32
def tanh(b: LaneBuilder, x: Lane) -> Lane:
    """Hyperbolic tangent.

    With |x| = n log(2) / 2 + g, S = 2^n and C = g coth g, exp(2g) is (C + g) / (C - g), and the
    tangent ((S - 1) C + (S + 1) g) / (S (C + g) + C - g): g / C where n is 0. Beyond 0.9 it is
    1 minus a small quotient, whose errors do not matter.
    """
    one = b.like(1, x)
    a = at_most(b, b.math("absf", x), 10.0)
    magic = b.like(ROUND + _BIAS, x)
    shifted = b.add(b.fma(a, b.like(2 * _LOG2E, x), b.like(-_ONE_SIDED, x)), magic)
    g = b.fma(b.sub(shifted, magic), b.like(-_LN2 / 2, x), a)
    c = horner(b, b.mul(g, g), _COTH)
    scale = _power_of_two(b, b.bitcast(shifted, "i32"))
    rest = b.sub(g, c)
    above = b.fma(b.sub(scale, one), c, b.mul(b.add(scale, one), g))
    far = b.cmpf("ogt", a, b.like(0.9, x))
    quotient = b.div(
        b.select(far, b.add(rest, rest), above), b.fma(scale, b.add(c, g), b.neg(rest))
    )
    value = b.add(quotient, b.select(far, one, b.like(0, x)))
    return b.op("math.copysign", (value, x), x.ty)  # -0 stays -0


_LOG_ERFC = (
    9.255705e-06,
    -0.00011763597,
    0.0006328171,
    -0.0016669908,
    0.00016035467,
    0.019153075,
    -0.102777846,
    -0.6366194,
    -0.12837917,
)
"""log(1 - erf(t)) / t + 1 for 0 <= t <= 4, within 0.14 * 2^-24 of erf."""


@in_float32
def erf(b: LaneBuilder, x: Lane) -> Lane:
    """Error function, as 1 - exp of a polynomial that approximates log(1 - erf)."""
    t = at_most(b, b.math("absf", x), 4.0)
    p = horner(b, t, _LOG_ERFC)
    y = b.fma(p, t, b.neg(t))
    magic = b.like(ROUND + _BIAS, x)
    shifted = b.add(b.fma(y, b.like(_LOG2E, x), b.like(_ONE_SIDED, x)), magic)
    r = b.fma(b.sub(shifted, magic), b.like(-_LN2, x), y)
    q = b.fma(horner(b, r, _EXPM1_BELOW), b.mul(r, r), r)
    scale = _power_of_two(b, b.bitcast(shifted, "i32"))
    value = b.fma(q, scale, b.sub(scale, b.like(1, x)))
    return b.op("math.copysign", (value, x), x.ty)


def _one_plus_exp(b: LaneBuilder, x: Lane, bound: float, log2_scale: int) -> Lane:
    """(1 + exp(x)) * 2^log2_scale for x > -80; grows on beyond the bound, to infinity."""
    magic = b.like(ROUND + _BIAS + log2_scale, x)
    shifted = b.fma(at_most(b, x, bound), b.like(_LOG2E, x), magic)
    q = _expm1_of(b, x, b.sub(shifted, magic))
    power = _power_of_two(b, b.bitcast(shifted, "i32"))
    return b.add(b.fma(q, power, b.like(2.0**log2_scale, x)), power)


def sigmoid(b: LaneBuilder, x: Lane) -> Lane:
    """1 / (1 + exp(-x)), with all digits of tiny results."""
    one, negative = b.like(1, x), b.cmpf("olt", x, b.like(0, x))
    if x.ty != "f32":
        e = exp(b, b.neg(b.math("absf", x)))
        return b.div(b.select(negative, e, one), b.add(one, e))
    shift = -32  # of numerator and denominator, lest the latter overflow
    a = at_most(b, b.math("absf", x), 104.0)
    below = b.div(b.like(2.0**shift, x), _one_plus_exp(b, a, 104.0, shift))
    return b.select(negative, below, b.sub(one, below))


def silu(b: LaneBuilder, x: Lane) -> Lane:
    """x * sigmoid(x)."""
    return gated(b, x, x)


def gated(b: LaneBuilder, x: Lane, y: Lane) -> Lane:
    """x / (1 + exp(-y)), with all digits of tiny results; NaN for x = y = -inf."""
    if x.ty != "f32":
        return b.mul(x, sigmoid(b, y))
    shift = -60  # of the denominator, lest it overflow before the quotient underflows
    quotient = b.div(x, _one_plus_exp(b, b.neg(y), 120.0, shift))
    value = b.mul(quotient, b.like(2.0**shift, x))
    return b.select(b.cmpf("ogt", y, b.like(18, y)), x, value)


_NORMAL_CENTRE = 0.125
_NORMAL_P = (-0.10600345, -2.3941817, -55.812057, 916.94354, 2040.3118, 229108.14)
_NORMAL_Q = (61.613514, 1577.8815, 23977.068, 210440.34, 836337.4)
"""(Phi(x) - 1/2) / x = centre + P(x^2) / Q(x^2) with the normal distribution function Phi, for
|x| <= 5.5, within 0.2 * 2^-24; Q's first coefficient is 1. The centre keeps P / Q, and with it
its rounding errors, small where x is not. At 5.5 it is 1/2 and 2^-24, so that Phi ends at 0 and 1.
"""


def gelu(b: LaneBuilder, x: Lane) -> Lane:
    """x times the normal distribution function of x.

    Below 0 it is a difference: within 1.2e-7 |x|, and 0 below -5.5.
    """
    half = b.like(0.5, x)
    if x.ty != "f32":
        return b.mul(b.mul(x, half), b.add(erf(b, b.mul(x, b.like(0.5**0.5, x))), b.like(1, x)))
    near = at_most(b, at_least(b, x, -5.5), 5.5)
    square = b.mul(near, near)
    p = horner(b, square, _NORMAL_P)
    q = b.add(square, b.like(_NORMAL_Q[0], x))
    for coefficient in _NORMAL_Q[1:]:
        q = b.fma(q, square, b.like(coefficient, x))
    slope = b.add(b.div(p, q), b.like(_NORMAL_CENTRE, x))
    return b.mul(x, at_least(b, b.fma(near, slope, half), 0.0))


def gelu_tanh(b: LaneBuilder, x: Lane) -> Lane:
    """x (1 + tanh(u)) / 2 = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    slope = 2 * (2 / pi) ** 0.5
    cubic = series(b, b.mul(x, x), (0.044715 * slope, slope))
    return gated(b, x, b.mul(x, cubic))


# -- in float64 inside -------------------------------------------------------------------------


def widen(b: LaneBuilder, x: Lane) -> Lane:
    """A float32 as float64."""
    return b.op("arith.extf", (x,), "f64")


def series(b: LaneBuilder, x: Lane, coefficients: Sequence[float]) -> Lane:
    """`horner` in float64; without a fused operation where the target has none."""
    value = b.like(coefficients[0], x)
    for coefficient in coefficients[1:]:
        more = b.like(coefficient, x)
        value = b.fma(value, x, more) if b.has_fma else b.add(b.mul(value, x), more)
    return value


_ATANH = tuple(2 / ((2 * i + 1) * 0.6931471805599453) for i in range(8, -1, -1))
"""log2(z) = s * polynomial(s^2) with s = (z - 1) / (z + 1): twice the inverse tangent's series."""

_EXP2 = tuple(0.6931471805599453**i / factorial(i) for i in range(9, -1, -1))


def _log2(b: LaneBuilder, x: Lane) -> Lane:
    """Base-2 logarithm of a positive f64, to about 44 bits."""
    base = 0x3FE6A09E667F3BCD  # sqrt(1 / 2)
    moved = b.sub(b.bitcast(x, "i64"), b.constant(base, "i64"))
    high = b.op("arith.trunci", (b.shr(moved, b.constant(32, "i64")),), "i32")
    exponent = b.shr(high, b.constant(20, "i32"), signed=True)
    fraction = b.add(b.and_(moved, b.constant((1 << 52) - 1, "i64")), b.constant(base, "i64"))
    z, one = b.bitcast(fraction, "f64"), b.like(1, x)
    s = b.div(b.sub(z, one), b.add(z, one))
    return b.add(b.op("arith.sitofp", (exponent,), "f64"), b.mul(s, series(b, b.mul(s, s), _ATANH)))


def _exp2(b: LaneBuilder, x: Lane) -> Lane:
    """2 to the x (f64), to about 36 bits; NaN if x is."""
    x = at_most(b, at_least(b, x, -300.0), 300.0)
    magic = b.like(1.5 * 2.0**52, x)
    shifted = b.add(x, magic)
    power = series(b, b.sub(x, b.sub(shifted, magic)), _EXP2)
    n = b.add(b.bitcast(shifted, "i64"), b.constant(1023, "i64"))
    return b.mul(power, b.bitcast(b.shl(n, b.constant(52, "i64")), "f64"))


def pow(b: LaneBuilder, x: Lane, y: Lane) -> Lane:
    """x to the power y, with the special cases of IEEE's pow."""
    if x.ty != "f32":
        return b.op("math.powf", (x, y), x.ty)
    zero, one, infinity = b.like(0, x), b.like(1, x), b.like(float("inf"), x)
    magnitude = b.math("absf", x)
    wide = widen(b, magnitude)
    logarithm = b.select(b.cmpf("olt", magnitude, infinity), _log2(b, wide), wide)
    lowest = b.like(float("-inf"), logarithm)
    logarithm = b.select(b.cmpf("oeq", magnitude, zero), lowest, logarithm)
    power = b.op("arith.truncf", (_exp2(b, b.mul(widen(b, y), logarithm)),), "f32")
    half = b.mul(y, b.like(0.5, y))
    whole = b.cmpf("oeq", b.math("trunc", y), y)
    odd = b.and_(whole, b.cmpf("une", b.math("trunc", half), half))
    signed = b.op("math.copysign", (power, x), x.ty)
    value = b.select(odd, signed, power)
    undefined = b.and_(b.cmpf("olt", x, zero), b.cmpf("olt", magnitude, infinity))
    not_whole = b.cmpf("une", b.math("trunc", y), y)
    value = b.select(b.and_(undefined, not_whole), b.like(float("nan"), x), value)
    is_one = b.or_(b.cmpf("oeq", x, one), b.cmpf("oeq", y, zero))
    unit = b.and_(b.cmpf("oeq", magnitude, one), b.cmpf("oeq", b.math("absf", y), infinity))
    return b.select(b.or_(is_one, unit), one, value)
