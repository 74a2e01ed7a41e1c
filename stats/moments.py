"""Moments: the one sufficient statistic. Count, means and centred cross-products of k columns, one row per user.

Raw sums of squares never leave this module as floats: they cancel (variance of cents near 1e9 is lost entirely).
"""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import numpy.typing as npt

from stats.errors import Problem, StatError

__all__ = ["Floats", "Moments", "merge"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Summary of n rows of k columns: `mean` (k,) and `cross` (k, k) = sum_i (x_i - mean)(x_i - mean)'."""

    n: int
    mean: Floats
    cross: Floats

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"n must not be negative: {self.n}")
        if self.mean.ndim != 1 or self.cross.shape != (self.mean.size, self.mean.size):
            raise ValueError(f"mean {self.mean.shape} and cross {self.cross.shape} do not fit (k,) and (k, k)")

    @classmethod
    def zero(cls, k: int) -> Self:
        """No rows of k columns: the neutral element of `+`."""
        return cls(0, np.zeros(k), np.zeros((k, k)))

    @classmethod
    def from_rows(cls, rows: npt.ArrayLike) -> Self:
        """Summarise `rows` (n, k), finite. Anchored at the first row, so that a constant column has cross 0 exactly."""
        x = np.asarray(rows, dtype=np.float64)
        if x.ndim != 2:
            raise ValueError(f"rows must have the shape (n, k), got {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError("rows must be finite")
        if len(x) == 0:
            return cls.zero(x.shape[1])
        anchored = x - x[0]
        offset = anchored.mean(axis=0)
        centred = anchored - offset
        return cls(len(x), x[0] + offset, centred.T @ centred)

    @classmethod
    def from_integer_sums(
        cls, n: int, sums: Sequence[int], products: Sequence[Sequence[int]], scale: Sequence[int]
    ) -> Self:
        """Exact moments from integer sums, whatever their size or the order in which an engine added them.

        `sums` (k,) = sum of x_a and `products` (k, k) = sum of x_a x_b over n rows of integers x; the value of
        column a is x_a / scale_a (scale 1,000,000 for micro-units). All arithmetic is on Python integers up to one
        correctly rounded division per entry. Raises TypeError for non-integers and ValueError for sums that no n
        rows can have (a sign of overflow in the engine).
        """
        count = operator.index(n)
        totals = [operator.index(value) for value in sums]
        scales = [operator.index(value) for value in scale]
        k = len(totals)
        if len(scales) != k or len(products) != k or any(len(row) != k for row in products):
            raise ValueError("sums, products and scale must have k, k x k and k entries")
        if any(value <= 0 for value in scales):
            raise ValueError("scale must be positive")
        if count == 0:
            if any(totals) or any(any(row) for row in products):
                raise ValueError("sums without rows")
            return cls.zero(k)
        cross = []
        for a, row in enumerate(products):
            centred = [
                count * operator.index(value) - totals[a] * total for value, total in zip(row, totals, strict=True)
            ]
            if centred[a] < 0:
                raise ValueError(f"the sums of column {a} cannot come from {count} rows")
            cross.append([value / (count * scales[a] * unit) for value, unit in zip(centred, scales, strict=True)])
        mean = [total / (count * unit) for total, unit in zip(totals, scales, strict=True)]
        return cls(count, np.array(mean), np.array(cross).reshape(k, k))

    def __add__(self, other: Self) -> Self:
        """Moments of both sets of rows together (Chan, Golub & LeVeque 1983)."""
        if self.mean.size != other.mean.size:
            raise ValueError(f"{self.mean.size} columns cannot be merged with {other.mean.size}")
        n = self.n + other.n
        if n == 0:
            return self
        delta = other.mean - self.mean
        share = other.n / n
        cross = self.cross + other.cross + np.outer(delta, delta) * (self.n * share)
        return type(self)(n, self.mean + delta * share, cross)

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance (k, k) of one row. Raises StatError(not_enough_data) below two rows."""
        if self.n < 2:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=self.n)
        return self.cross / (self.n - 1)

    def select(self, columns: Sequence[int]) -> Self:
        """The same rows with only these columns, in this order."""
        index = list(columns)
        return type(self)(self.n, self.mean[index], self.cross[np.ix_(index, index)])


def merge(moments: Iterable[Moments]) -> Moments:
    """Moments of all rows together. Raises ValueError when there is nothing to merge."""
    parts = list(moments)
    if not parts:
        raise ValueError("nothing to merge")
    return reduce(operator.add, parts)
