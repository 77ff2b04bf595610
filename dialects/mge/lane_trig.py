"""Sine, cosine and tangent on lanes, in float32.

Sine and cosine of angles below 2^17 are one polynomial of the angle modulo pi, within 1.75 units
of the last place; only where a larger one occurs does the code branch to the reduction that
takes any angle, with polynomials in float64 (within 0.51). The tangent is computed in float64.

Source: argument reduction after Cody and Waite; large angles after Payne and Hanek (SIGNUM
Newsletter 18, 1983), with the polynomials of FreeBSD's k_sinf.c and k_cosf.c; the polynomial of
small ones is our own minimax fit.
"""

from __future__ import annotations

from math import pi

from mgec.dialects.mge.lane import Lane, LaneBuilder
from mgec.dialects.mge.lane_math import ROUND, horner, in_float32, series, widen

_TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041,
                0xFE5163AB)  # fmt: skip
"""The bits of 2 / pi, 32 zeros in front."""

_PI_PARTS = (3.1415927, -8.742278e-08, -3.430249e-15)
"""pi as a sum of float32 values; n times each is exact before the addition it is fused with."""

_PI_HALVES = (3.1415926534682512, 1.2154201013012384e-10)
"""pi as a sum of float64 values, of which the first has 33 bits: n times it is exact."""


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
    return n, b.select(small, widen(b, magnitude), r)


def _sine_and_cosine(b: LaneBuilder, r: Lane) -> tuple[Lane, Lane]:
    """Both of an angle (f64) between -pi / 4 and pi / 4."""
    z = b.mul(r, r)
    sine = series(b, z, (2.7183114939898219064e-6, -1.98393348360966317347e-4,
                          8.3333293858894631756e-3, -1.66666666416265235595e-1))  # fmt: skip
    cosine = series(b, z, (2.43904487962774090654e-5, -1.38867637746099294692e-3,
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


_SINE = (2.6038717e-06, -0.00019808777, 0.008333058, -0.1666666)
"""(sin(r) - r) / r^3 in powers of r^2 for |r| <= pi / 2, within 0.2 * 2^-24 of sin."""

_FAST_ANGLE = 2.0**17
"""Smaller angles are reduced with three parts of pi: n * pi is then right to 2^-55."""


def _sine_of(b: LaneBuilder, magnitude: Lane, offset: float) -> Lane:
    """(-1)^n sin(magnitude - (n - offset) pi) with the nearest integer n, as bits (i32)."""
    if b.has_fma:
        magic = b.like(ROUND, magnitude)
        shifted = b.fma(magnitude, b.like(1 / pi, magnitude), b.like(offset, magnitude))
        shifted = b.add(shifted, magic)
        n = b.sub(b.sub(shifted, magic), b.like(offset, magnitude))
        r = magnitude
        for part in _PI_PARTS:
            r = b.fma(n, b.like(-part, r), r)
        parity = b.bitcast(shifted, "i32")
    else:
        wide = widen(b, magnitude)
        magic = b.like(1.5 * 2.0**52, wide)
        shifted = b.add(b.add(b.mul(wide, b.like(1 / pi, wide)), b.like(offset, wide)), magic)
        n = b.sub(b.sub(shifted, magic), b.like(offset, wide))
        for part in _PI_HALVES:
            wide = b.sub(wide, b.mul(n, b.like(part, wide)))
        r = b.op("arith.truncf", (wide,), "f32")
        parity = b.op("arith.trunci", (b.bitcast(shifted, "i64"),), "i32")
    square = b.mul(r, r)
    sine = b.fma(b.mul(r, square), horner(b, square, _SINE), r)
    return b.xor(b.bitcast(sine, "i32"), b.shl(parity, b.constant(31, "i32")))


@in_float32
def sin(b: LaneBuilder, x: Lane) -> Lane:
    """Sine."""
    magnitude = b.math("absf", x)

    def exactly() -> list[Lane]:
        n, r = _quadrant(b, x)
        sine, cosine = _sine_and_cosine(b, r)
        return [_flip(b, b.select(_is_odd(b, n), cosine, sine), x, b.xor(n, _sign_bit(b, x)))]

    sign = b.and_(b.bitcast(x, "i32"), b.constant(1 << 31, "i32"))
    fast = b.bitcast(b.xor(_sine_of(b, magnitude, 0.0), sign), "f32")
    large = b.cmpf("uge", magnitude, b.like(_FAST_ANGLE, x))
    return b.rarely(large, exactly, [fast])[0]


@in_float32
def cos(b: LaneBuilder, x: Lane) -> Lane:
    """Cosine: the sine of the angle and a quarter turn."""
    magnitude = b.math("absf", x)

    def exactly() -> list[Lane]:
        n, r = _quadrant(b, x)
        sine, cosine = _sine_and_cosine(b, r)
        return [_flip(b, b.select(_is_odd(b, n), sine, cosine), x, b.add(n, b.like(1, n)))]

    fast = b.bitcast(_sine_of(b, magnitude, 0.5), "f32")
    large = b.cmpf("uge", magnitude, b.like(_FAST_ANGLE, x))
    return b.rarely(large, exactly, [fast])[0]


@in_float32
def tan(b: LaneBuilder, x: Lane) -> Lane:
    """Tangent."""
    magnitude = b.math("absf", x)
    wide = widen(b, magnitude)
    magic = b.like(1.5 * 2.0**52, wide)
    shifted = b.add(b.mul(wide, b.like(2 / pi, wide)), magic)
    count = b.sub(shifted, magic)
    for part in _PI_HALVES:
        wide = b.sub(wide, b.mul(count, b.like(part / 2, wide)))
    near = [b.op("arith.trunci", (b.bitcast(shifted, "i64"),), "i32"), wide]
    large = b.cmpf("uge", magnitude, b.like(_FAST_ANGLE, x))
    n, r = b.rarely(large, lambda: list(_quadrant(b, x)), near)
    sine, cosine = _sine_and_cosine(b, r)
    odd = _is_odd(b, n)
    value = b.div(b.select(odd, cosine, sine), b.select(odd, sine, cosine))
    return _flip(b, value, x, b.xor(_sign_bit(b, x), b.add(n, n)))
