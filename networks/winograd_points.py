"""The three matrices of Winograd's minimal filtering F(m, 3), exact, from the points at which polynomials are taken.

The convolution of a line with a filter of 3 taps is a product of polynomials, found from its values at m + 1 points and
at infinity (Toom and Cook; Lavin and Gray 2015, arXiv 1509.09308 §4): outputs = A·((G·filter) ⊙ (B·inputs)), with
inputs [m + 2] and outputs [m]. Zero and pairs of opposite points make A and B half as much work.
"""

import functools
from fractions import Fraction

POINTS = {
    4: tuple(map(Fraction, (0, 1, -1, 2, -2))),
    6: (*map(Fraction, (0, 1, -1, 2, -2)), Fraction(1, 2), Fraction(-1, 2)),
}
"""The points of each size of tile; one more is infinity, always the last."""

Matrix = tuple[tuple[Fraction, ...], ...]


@functools.cache
def input_transform(size: int) -> Matrix:
    """Return B [m + 2, m + 2]: row k is the polynomial that is zero at all points but the k-th."""
    points = POINTS[size]
    rows = [_with_roots([q for q in points if q != p], size + 2) for p in points]
    return (*rows, _with_roots(points, size + 2))


@functools.cache
def filter_transform(size: int) -> Matrix:
    """Return G [m + 2, 3]: values of the filter's polynomial at the points, scaled for what B's rows are there."""
    points = POINTS[size]
    rows = []
    for p in points:
        scale = Fraction(1)
        for q in points:
            scale *= p - q if q != p else 1
        rows.append(tuple(p**k / scale for k in range(3)))
    return (*rows, (Fraction(0), Fraction(0), Fraction(1)))


@functools.cache
def output_transform(size: int) -> Matrix:
    """Return A [m, m + 2]: output k is the sum of point^k times value, the last has infinity's too."""
    points = POINTS[size]
    return tuple((*(p**k for p in points), Fraction(int(k == size - 1))) for k in range(size))


def _with_roots(roots: list[Fraction] | tuple[Fraction, ...], length: int) -> tuple[Fraction, ...]:
    """Return the coefficients of Π (x - root), from x^0 on, filled with zeros."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*coefficients, Fraction(0)]
        coefficients = [a - root * b for a, b in zip(shifted, scaled, strict=True)]
    return (*coefficients, *[Fraction(0)] * (length - len(coefficients)))
