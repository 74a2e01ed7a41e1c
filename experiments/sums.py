"""Exact sums: what the engine returns of the rows, whole numbers throughout.

Money and other values are millionths, times are microseconds. Sums and sums of products are therefore exact, whatever
the engine, its threads, or the order and number of the files; equal data give equal bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import combinations_with_replacement
from typing import Any

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt

from stats.moments import Moments
from stats.survival import Lifetimes

MICROS = 1_000_000
# A user's number is kept within ±10¹¹: sums of squares in 38 digits then hold for whole populations of honest numbers
# (10⁶ users of 10¹⁰), and a few absurd events do not make an experiment unreadable.
LARGEST = 10**11 * MICROS
DAY_US = 86_400 * MICROS


@dataclass(frozen=True, slots=True)
class Sums:
    """Exact sums over ``n`` users: of each column, and of each product of two (upper triangle, row by row)."""

    n: int
    sums: tuple[int, ...]
    products: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence["Sums"]) -> "Sums":
        """The sums over the users of all parts, at least one."""
        return cls(
            sum(part.n for part in parts),
            tuple(map(sum, zip(*(part.sums for part in parts), strict=True))),
            tuple(map(sum, zip(*(part.products for part in parts), strict=True))),
        )

    def __add__(self, other: "Sums") -> "Sums":
        return Sums.of((self, other))

    def moments(self, scales: Sequence[int]) -> Moments:
        """Return count, means and centred cross-products, each column divided by its scale."""
        k = len(self.sums)
        square = [[0] * k for _ in range(k)]
        for (i, j), product in zip(combinations_with_replacement(range(k), 2), self.products, strict=True):
            square[i][j] = square[j][i] = product
        return Moments.from_integer_sums(self.n, self.sums, square, scales)


@dataclass(frozen=True, slots=True)
class Cell:
    """Who: users of one variant in one stratum (None where there are none), exposed on one day (None: any)."""

    stratum: str | None
    variant: str
    day: date | None


@dataclass(frozen=True, slots=True)
class Column:
    """A whole number per user, and what one unit of it is (``scale`` of them make 1)."""

    name: str
    scale: int
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one metric: its outcome (two for a ratio, the steps of a funnel), then its covariates.

    ``uncapped`` is the place of the outcome without its cut, which stands between them.
    """

    columns: tuple[Column, ...]
    covariates: int
    uncapped: int | None = None

    @property
    def scales(self) -> tuple[int, ...]:
        return tuple(column.scale for column in self.columns)


@dataclass(frozen=True, slots=True)
class UserCounts:
    """Users of one stratum and variant: first seen there, and never seen elsewhere."""

    assigned: int
    exposed: int


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Single values, for quantiles: day of exposure as days since 1970, value, and whose it is (None: one a user)."""

    day: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    user: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Measured:
    """The sums of one metric, and what some kinds need besides.

    ``largest``: the largest outcome of a user in each cell. ``cap``: where the outcome was cut. ``lifetimes``: days
    to the event of every user, closed window or not. ``values``: for quantiles.
    """

    layout: Layout
    cells: Mapping[Cell, Sums]
    largest: Mapping[Cell, int] = field(default_factory=dict)
    cap: float | None = None
    lifetimes: Mapping[tuple[str | None, str], Lifetimes] | None = None
    values: Mapping[tuple[str | None, str], Values] | None = None


@dataclass(frozen=True, slots=True)
class Aggregates:
    """All that an analysis needs of the rows.

    ``merged``: people of whom two ids were seen in different variants, though no single one was. ``days``: users by the
    day they were first seen. Of the first metric: ``slices``, its outcome a day, not cut, in
    consecutive slices of days since exposure, which begin and end at ``bounds``; ``placebo``, the same before exposure,
    where nothing can have had an effect; ``received``, its outcome and whether
    the treatment was received; ``triggered``, its outcome among those for whom the trigger fired.
    """

    users: Mapping[tuple[str | None, str], UserCounts]
    forced: int
    metrics: Mapping[str, Measured]
    days: Mapping[date, Mapping[tuple[str | None, str], int]] = field(default_factory=dict)
    slices: Measured | None = None
    bounds: tuple[int, ...] = ()
    placebo: Measured | None = None
    placebo_bounds: tuple[int, ...] = ()
    received: Measured | None = None
    triggered: Measured | None = None
    merged: int = 0


def sum_columns(
    prefix: str, columns: Sequence[Column], values: Sequence[ir.IntegerValue], where: ir.BooleanValue
) -> dict[str, Any]:
    """Return the aggregates n, Σx and Σxy of the columns over the rows in ``where``, named from ``prefix``."""
    result: dict[str, Any] = {f"{prefix}_n": where.sum()}
    wide = [value.cast("decimal(19, 0)") for value in values]
    for i, value in enumerate(values):
        # The engine adds in 128 bits, but would hand the sum over in 64.
        result[f"{prefix}_s{i}"] = value.sum(where=where).cast("decimal(38, 0)")
    for i, j in combinations_with_replacement(range(len(values)), 2):
        if i == j and columns[i].binary:
            continue
        product = (wide[i] * wide[j]).cast("decimal(38, 0)")
        result[f"{prefix}_p{i}_{j}"] = product.sum(where=where).cast("decimal(38, 0)")
    return result


def read_sums(prefix: str, columns: Sequence[Column], row: Mapping[str, Any]) -> Sums:
    """Read back what ``sum_columns`` asked for."""
    sums = tuple(int(row[f"{prefix}_s{i}"] or 0) for i in range(len(columns)))
    products = tuple(
        sums[i] if i == j and columns[i].binary else int(row[f"{prefix}_p{i}_{j}"] or 0)
        for i, j in combinations_with_replacement(range(len(columns)), 2)
    )
    return Sums(int(row[f"{prefix}_n"] or 0), sums, products)
