"""The transforms of Winograd's minimal filtering algorithms, exact, and how they are computed.

F(m x m, 3 x 3) turns a tile of m x m results of a 3 x 3 convolution, which needs the t x t
inputs around it with t = m + 2, into t x t products instead of 9 m x m:

    Y = A^T [ (G g G^T) * (B^T d B) ] A        (* is element by element)

The matrices come from evaluating polynomials at t - 1 points and at infinity (Cook-Toom). Any
distinct points are correct; which ones decides how much is lost to rounding.

Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
sections 4.1 and 4.2; the choice of points: B. Barabasz, A. Anderson, K. M. Soodhalter,
D. Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", ACM TOMS 46(4), 2020 (arXiv 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import TypeAlias

import numpy as np

from mgec.compiler.kernels.emitter import VectorLanes
from mgec.compiler.kernels.packing import Array, packing
from mgec.dialects.mge.lane import Lane

Matrix: TypeAlias = "tuple[tuple[Fraction, ...], ...]"

TAPS = 3
"""Rows and columns of the filters."""


def _signed(*magnitudes: Fraction | int) -> tuple[Fraction, ...]:
    """0 and both signs of each magnitude."""
    pairs = ((Fraction(x), -Fraction(x)) for x in magnitudes)
    return (Fraction(0), *(point for pair in pairs for point in pair))


POINTS = {
    2: _signed(1),
    4: _signed(Fraction(3, 4), Fraction(3, 2)),
    6: _signed(Fraction(1, 2), 1, 2),
}
"""For each m, where the polynomials are evaluated, besides infinity.

Root mean square of the error over that of the result, on normal data of 64 and 512 channels
(2026-11): F(4) 8.1e-7 and 2.1e-6, where the textbook's 0, +-1, +-2 give 1.7e-6 and 4.1e-6 (and
four times the largest error); F(6) 3.2e-6 and 8.2e-6, with 0, +-3/5, +-1, +-3/2 5.1e-6 and
1.3e-5. Matrices whose entries are not exact in float32 lose more than good points gain.
"""

TILES = tuple(POINTS)
"""The m there are transforms for."""


@dataclass(frozen=True)
class Transforms:
    """The matrices of F(m x m, 3 x 3).

    Attributes:
        tile: m, the rows and columns of results.
        at: A^T, [m, t]: from products to results.
        g: G, [t, 3]: of filters.
        bt: B^T, [t, t]: of inputs.
    """

    tile: int
    at: Matrix
    g: Matrix
    bt: Matrix

    @property
    def size(self) -> int:
        """t, the rows and columns of inputs."""
        return self.tile + TAPS - 1

    @property
    def points(self) -> int:
        """Products per tile and channel."""
        return self.size**2


@cache
def transforms(tile: int) -> Transforms:
    """The matrices of F(tile x tile, 3 x 3): `tile` is one of `TILES`."""
    points = POINTS[tile]
    one, zero = Fraction(1), Fraction(0)

    def times_root(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
        """polynomial * (x - root); coefficients from the constant term on."""
        shifted = [zero, *polynomial]
        return [s - root * p for s, p in zip(shifted, [*polynomial, zero], strict=True)]

    bt: list[tuple[Fraction, ...]] = []
    g: list[tuple[Fraction, ...]] = []
    whole = [one]
    for point in points:
        whole = times_root(whole, point)
        basis, scale = [one], one
        for other in points:
            if other != point:
                basis = times_root(basis, other)
                scale *= point - other
        bt.append((*basis, zero))
        g.append(tuple(point**i / scale for i in range(TAPS)))
    bt.append(tuple(whole))
    g.append((zero, zero, one))
    at = tuple(
        (*(point**i for point in points), one if i == tile - 1 else zero) for i in range(tile)
    )
    return Transforms(tile, at, tuple(g), tuple(bt))


def _floats(matrix: Matrix) -> Array:
    return np.array([[float(x) for x in row] for row in matrix])


@packing("winograd")
def pack_winograd(array: Array, shape: tuple[int, ...], tile: int, width: int) -> Array:
    """The transformed filters in panels of `width` output channels.

    Args:
        array: the weights, any shape of the right size.
        shape: [O, C, 3, 3].
        tile: m of F(m x m, 3 x 3).
        width: output channels per panel.

    Returns:
        An array [ceil(O / width), t * t, C, width], zero beyond the last output channel. The
        transforms are computed in float64 and rounded once.
    """
    weight = array.reshape(shape)
    outputs, channels = shape[:2]
    g = _floats(transforms(tile).g)
    both = np.kron(g, g)  # [t * t, 9]
    panels = -(-outputs // width)
    result = np.zeros((panels, len(both), channels, width), array.dtype)
    slice_ = max(1, _SLICE // width)
    for panel in range(panels):
        filters = weight[panel * width : (panel + 1) * width].reshape(-1, channels, TAPS**2)
        count = len(filters)
        for low in range(0, channels, slice_):
            part = filters[:, low : low + slice_].transpose(2, 1, 0)
            columns = part.astype(np.float64).reshape(TAPS**2, -1)
            moved = (both @ columns).reshape(len(both), -1, count)
            result[panel, :, low : low + slice_, :count] = moved
    return result


_SLICE = 2048
"""Filters transformed at once: their float64 products stay in the second-level cache."""


# -- emission --------------------------------------------------------------------------------


def combine(b: VectorLanes, matrix: Matrix, values: Sequence[Lane]) -> list[Lane]:
    """The lanes `matrix @ values`, with what rows or columns have in common computed once.

    The points come in pairs +-p. So two rows of B^T are e + o and e - o, with e the even
    and o the odd terms; and two columns of A^T differ in the signs of the odd rows, so that
    sums and differences of the two values serve all rows.
    """
    pairs = _pairs(matrix)
    if pairs:
        return _by_rows(b, matrix, values, pairs)
    return _by_columns(b, matrix, values)


def _pairs(rows: Sequence[Sequence[Fraction]]) -> dict[int, int]:
    """For each row that begins a pair, the row that differs from it in signs only."""
    pairs: dict[int, int] = {}
    for i, row in enumerate(rows):
        for j in range(i + 1, len(rows)):
            other = rows[j]
            same = all(abs(x) == abs(y) for x, y in zip(row, other, strict=True))
            taken = {*pairs, *pairs.values()}
            if same and tuple(row) != tuple(other) and not {i, j} & taken:
                pairs[i] = j
    return pairs


def _split(
    row: Sequence[Fraction], other: Sequence[Fraction]
) -> tuple[list[Fraction], list[Fraction]]:
    """The terms of `row` that `other` shares, and those it has with the other sign."""
    zero = Fraction(0)
    pairs = list(zip(row, other, strict=True))
    return [x if x == y else zero for x, y in pairs], [x if x != y else zero for x, y in pairs]


def _by_rows(
    b: VectorLanes, matrix: Matrix, values: Sequence[Lane], pairs: dict[int, int]
) -> list[Lane]:
    result: dict[int, Lane] = {}
    for i, row in enumerate(matrix):
        if i in result:
            continue
        if i not in pairs:
            result[i] = _dot(b, row, values)
            continue
        even, odd = _split(row, matrix[pairs[i]])
        factor = [x for x in odd if x][-1]  # taken out, so that one product less is left
        e = _dot(b, even, values)
        o = _dot(b, [x / factor for x in odd], values)
        result[i], result[pairs[i]] = (_plus(b, e, sign * factor, o) for sign in (1, -1))
    return [result[i] for i in range(len(matrix))]


def _by_columns(b: VectorLanes, matrix: Matrix, values: Sequence[Lane]) -> list[Lane]:
    columns = list(zip(*matrix, strict=True))
    pairs = _pairs(columns)
    terms: list[tuple[Sequence[Fraction], Lane]] = []
    for i, column in enumerate(columns):
        if i in pairs:
            even, odd = _split(column, columns[pairs[i]])
            x, y = values[i], values[pairs[i]]
            terms += [(even, b.add(x, y)), (odd, b.sub(x, y))]
        elif i not in pairs.values():
            terms.append((column, values[i]))
    return [
        _dot(b, [column[row] for column, _ in terms], [value for _, value in terms])
        for row in range(len(matrix))
    ]


def _dot(b: VectorLanes, factors: Sequence[Fraction], values: Sequence[Lane]) -> Lane:
    """The sum of factor times value, over the factors that are not 0."""
    terms = [(f, v) for f, v in zip(factors, values, strict=True) if f]
    terms.sort(key=lambda term: term[0] != 1)  # begin with one that needs no product
    factor, value = terms[0]
    total = value if factor == 1 else b.mul(b.like(float(factor), value), value)
    for factor, value in terms[1:]:
        total = _plus(b, total, factor, value)
    return total


def _plus(b: VectorLanes, total: Lane, factor: Fraction, value: Lane) -> Lane:
    """total + factor * value."""
    if factor == 1:
        return b.add(total, value)
    if factor == -1:
        return b.sub(total, value)
    return b.fma(b.like(float(factor), value), value, total)
