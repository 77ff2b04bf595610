"""Elementary functions on lanes.

Functions that matter for speed are polynomials, so that they vectorize; the others go to
the C library one element at a time. float64 always goes to the C library.
"""

from __future__ import annotations

from mgec.dialects.mge.lane import Lane, LaneBuilder


def exp(b: LaneBuilder, x: Lane) -> Lane:
    """e to the x."""
    return b.math("exp", x)


def log(b: LaneBuilder, x: Lane) -> Lane:
    """Natural logarithm."""
    return b.math("log", x)


def tanh(b: LaneBuilder, x: Lane) -> Lane:
    """Hyperbolic tangent."""
    return b.math("tanh", x)


def erf(b: LaneBuilder, x: Lane) -> Lane:
    """Error function."""
    return b.math("erf", x)


def sigmoid(b: LaneBuilder, x: Lane) -> Lane:
    """1 / (1 + exp(-x))."""
    one = b.like(1.0, x)
    return b.div(one, b.add(one, exp(b, b.neg(x))))
