"""Elementary functions on lanes.

In float32 the functions that matter for speed are polynomials without branches, so that they
vectorize; one rule serves scalar and vector code, which therefore agree bit for bit. Measured
on a sample of all float32 values, exp, log and log1p are within 1 unit of the last place,
expm1 within 1.5, and tanh, erf and sigmoid within 2.5 (test_lane_math.py holds them to it;
slower forms of tanh and erf came to 1.3 and 1.0). sin, cos, tan and pow compute in float64 inside
and are within 0.51, whatever the size of the angle. They keep IEEE's special cases: NaN,
infinities, signed zeros, gradual underflow, overflow. A target without fused multiply-add
rounds differently. float64 and the remaining functions go to the C library, one element at a
time.

Source: argument reduction after Cody and Waite; log after FreeBSD's
e_logf.c; the polynomials of exp and erf are our own weighted least-squares fits. The angles of
sin, cos and tan are reduced after Payne and Hanek (SIGNUM Newsletter 18, 1983); their polynomials
are FreeBSD's k_sinf.c and k_cosf.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import factorial

from mgec.dialects.mge.lane import Lane, LaneBuilder

Function = Callable[[LaneBuilder, Lane], Lane]

_LOG2E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0
"""1.5 * 2^23: adding it to a float32 below 2^22 leaves the nearest integer in the low bits."""


_TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041,
                0xFE5163AB)  # fmt: skip
"""The bits of 2 / pi, 32 zeros in front."""


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


# -- in float64 inside -------------------------------------------------------------------------


def _wide(b: LaneBuilder, x: Lane) -> Lane:
    return b.op("arith.extf", (x,), "f64")


def _series(b: LaneBuilder, x: Lane, coefficients: Sequence[float]) -> Lane:
    """`_horner` in float64; without a fused operation where the target has none."""
    value = b.like(coefficients[0], x)
    for coefficient in coefficients[1:]:
        more = b.like(coefficient, x)
        value = b.fma(value, x, more) if b.has_fma else b.add(b.mul(value, x), more)
    return value


def _quadrant(b: LaneBuilder, x: Lane) -> tuple[Lane, Lane]:
    """n (i32, modulo 4) and r (f64) with |x| = n * pi / 2 + r and |r| <= pi / 4.

    An angle of m * 2^e needs 96 bits of 2 / pi: those before would give whole turns. As many
    make a product of 64 bits, of which two are the quadrant.
    """
    i32, i64 = "i32", "i64"
    bits = b.and_(b.bitcast(x, i32), b.constant(0x7FFFFFFF, i32))
    exponent = b.shr(bits, b.constant(23, i32))
    mantissa = b.or_(b.and_(bits, b.constant(0x7FFFFF, i32)), b.constant(0x800000, i32))
    skip = b.sub(exponent, b.constant(120, i32))  # negative where |x| < 2^-7: not used
    skip = b.op("arith.maxsi", (skip, b.constant(0, i32)), i32)
    first = b.shr(skip, b.constant(5, i32))
    by = b.and_(skip, b.constant(31, i32))
    back = b.sub(b.constant(31, i32), by)
    is_word = [b.cmpi("eq", first, b.constant(w, i32)) for w in range(1, 5)]
    words: list[Lane] = []
    for i in range(4):
        word = b.constant(_TWO_OVER_PI[i], i32)
        for w, here in enumerate(is_word, start=1):
            word = b.select(here, b.constant(_TWO_OVER_PI[w + i], i32), word)
        words.append(word)
    product: Lane | None = None
    factor = b.op("arith.extui", (mantissa,), i64)
    for i in range(3):
        following = b.shr(b.shr(words[i + 1], b.constant(1, i32)), back)
        window = b.or_(b.shl(words[i], by), following)
        if i == 0:  # of this one only the low half counts
            low = b.op("arith.extui", (b.mul(mantissa, window),), i64)
            part = b.shl(low, b.constant(32, i64))
        else:
            part = b.mul(factor, b.op("arith.extui", (window,), i64))
        if i == 2:
            part = b.shr(part, b.constant(32, i64))
        product = part if product is None else b.add(product, part)
    assert product is not None
    quadrant = b.shr(b.add(product, b.constant(1 << 61, i64)), b.constant(62, i64))
    rest = b.sub(product, b.shl(quadrant, b.constant(62, i64)))
    high = b.op("arith.trunci", (b.shr(rest, b.constant(32, i64)),), i32)
    low = b.shr(b.op("arith.trunci", (rest,), i32), b.constant(1, i32))
    high, low = (b.op("arith.sitofp", (part,), "f64") for part in (high, low))
    r = b.add(b.mul(high, b.like(2.0**32, high)), b.add(low, low))
    r = b.mul(r, b.like(1.5707963267948966 * 2.0**-62, r))
    magnitude = b.math("absf", x)
    small = b.cmpf("olt", magnitude, b.like(0.7853981, x))
    n = b.select(small, b.constant(0, i32), b.op("arith.trunci", (quadrant,), i32))
    return n, b.select(small, _wide(b, magnitude), r)


def _sine_and_cosine(b: LaneBuilder, r: Lane) -> tuple[Lane, Lane]:
    """Both of an angle (f64) between -pi / 4 and pi / 4."""
    z = b.mul(r, r)
    sine = _series(b, z, (2.7183114939898219064e-6, -1.98393348360966317347e-4,
                          8.3333293858894631756e-3, -1.66666666416265235595e-1))  # fmt: skip
    cosine = _series(b, z, (2.43904487962774090654e-5, -1.38867637746099294692e-3,
                            4.16666233237390631894e-2, -0.499999997251031003120, 1))  # fmt: skip
    return b.add(r, b.mul(b.mul(r, z), sine)), cosine


def _is_odd(b: LaneBuilder, n: Lane) -> Lane:
    return b.cmpi("ne", b.and_(n, b.like(1, n)), b.like(0, n))


def _flip(b: LaneBuilder, value: Lane, x: Lane, signs: Lane) -> Lane:
    """A value (f64) as float32, negated where bit 1 of `signs` is set; NaN if x is not finite."""
    narrow = b.bitcast(b.op("arith.truncf", (value,), "f32"), "i32")
    flip = b.shl(b.and_(signs, b.like(2, signs)), b.like(30, signs))
    infinity = b.like(float("inf"), x)
    finite = b.cmpf("olt", b.math("absf", x), infinity)
    return b.select(finite, b.bitcast(b.xor(narrow, flip), "f32"), b.like(float("nan"), x))


def _sign_bit(b: LaneBuilder, x: Lane) -> Lane:
    """2 where x is negative, -0 included."""
    return b.shl(b.shr(b.bitcast(x, "i32"), b.constant(31, "i32")), b.constant(1, "i32"))


@_f32
def sin(b: LaneBuilder, x: Lane) -> Lane:
    """Sine."""
    n, r = _quadrant(b, x)
    sine, cosine = _sine_and_cosine(b, r)
    return _flip(b, b.select(_is_odd(b, n), cosine, sine), x, b.xor(n, _sign_bit(b, x)))


@_f32
def cos(b: LaneBuilder, x: Lane) -> Lane:
    """Cosine."""
    n, r = _quadrant(b, x)
    sine, cosine = _sine_and_cosine(b, r)
    return _flip(b, b.select(_is_odd(b, n), sine, cosine), x, b.add(n, b.like(1, n)))


@_f32
def tan(b: LaneBuilder, x: Lane) -> Lane:
    """Tangent."""
    n, r = _quadrant(b, x)
    sine, cosine = _sine_and_cosine(b, r)
    odd = _is_odd(b, n)
    value = b.div(b.select(odd, cosine, sine), b.select(odd, sine, cosine))
    return _flip(b, value, x, b.xor(_sign_bit(b, x), b.add(n, n)))


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
    return b.add(
        b.op("arith.sitofp", (exponent,), "f64"), b.mul(s, _series(b, b.mul(s, s), _ATANH))
    )


def _exp2(b: LaneBuilder, x: Lane) -> Lane:
    """2 to the x (f64), to about 36 bits; NaN if x is."""
    x = _at_most(b, _at_least(b, x, -300.0), 300.0)
    magic = b.like(1.5 * 2.0**52, x)
    shifted = b.add(x, magic)
    power = _series(b, b.sub(x, b.sub(shifted, magic)), _EXP2)
    n = b.add(b.bitcast(shifted, "i64"), b.constant(1023, "i64"))
    return b.mul(power, b.bitcast(b.shl(n, b.constant(52, "i64")), "f64"))


def pow(b: LaneBuilder, x: Lane, y: Lane) -> Lane:
    """x to the power y, with the special cases of IEEE's pow."""
    if x.ty != "f32":
        return b.op("math.powf", (x, y), x.ty)
    zero, one, infinity = b.like(0, x), b.like(1, x), b.like(float("inf"), x)
    magnitude = b.math("absf", x)
    wide = _wide(b, magnitude)
    logarithm = b.select(b.cmpf("olt", magnitude, infinity), _log2(b, wide), wide)
    lowest = b.like(float("-inf"), logarithm)
    logarithm = b.select(b.cmpf("oeq", magnitude, zero), lowest, logarithm)
    power = b.op("arith.truncf", (_exp2(b, b.mul(_wide(b, y), logarithm)),), "f32")
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
