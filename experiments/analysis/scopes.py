"""Whom a comparison is about: all users or a segment, and two of its variants side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.analysis.vectors import Measurement, Row
from stats import effects
from stats.arms import ArmVector
from stats.effects import Contrast
from stats.errors import StatError
from stats.proportions import Conversions

# Below so many expected conversions (or users without one) in an arm the exact test judges,
RARE = 5
# The exact posterior of two shares takes milliseconds: in segments only where it differs from the normal one.
FEW = 50
# unless an arm has more than so many of both: enumerating them would take seconds.
MANY = 4000


@dataclass(frozen=True)
class Pair:
    """Two variants side by side: a vector of both with their places, and their counts where they are plain shares."""

    vector: ArmVector
    plain: ArmVector | None
    treatment: int
    control: int
    counts: tuple[Conversions, Conversions] | None

    @cached_property
    def contrast(self) -> Contrast:
        """The difference before any horizon."""
        return effects.contrast(self.vector, [(self.treatment, 1.0), (self.control, -1.0)])

    @property
    def few(self) -> bool:
        """So few conversions, or users without one, that a posterior is visibly not normal."""
        return self.counts is not None and min(min(arm.successes, arm.n - arm.successes) for arm in self.counts) < FEW

    @property
    def rare(self) -> bool:
        """Too few conversions, or users without one, for a normal z."""
        if self.counts is None:
            return False
        converted = sum(arm.successes for arm in self.counts)
        users = sum(arm.n for arm in self.counts)
        fewest = min(arm.n for arm in self.counts)
        return min(converted, users - converted) * fewest / users < RARE

    @property
    def enumerable(self) -> bool:
        """Few enough outcomes for an exact test."""
        return self.counts is not None and all(min(arm.successes, arm.n - arm.successes) <= MANY for arm in self.counts)


class Scope:
    """All users, or those of one segment."""

    def __init__(
        self,
        measurement: Measurement,
        strata: Sequence[str | None],
        segment: str | None = None,
        rows: Sequence[Row] | None = None,
    ) -> None:
        self.measurement = measurement
        self.strata = strata
        self.segment = segment
        self.rows = measurement.rows(strata) if rows is None else rows
        self._as_of_a_day = rows is not None

    def vector(self, variants: Sequence[str], *, adjust: bool = True) -> ArmVector:
        """The arm vector of some variants."""
        if self._as_of_a_day:
            return self.measurement.combine(self.rows, variants, adjust=adjust)
        return self.measurement.vector(self.rows, self.strata, variants, adjust=adjust)

    @cached_property
    def together(self) -> tuple[ArmVector, ArmVector | None] | None:
        """One vector of all variants, and the unadjusted one, where no stratum lacks a variant."""
        variants = list(self.measurement.design.variants)
        if any(row[variant].n < 2 for row in self.rows for variant in variants):
            return None
        try:
            vector = self.vector(variants)
            return vector, self.vector(variants, adjust=False) if self.measurement.covariates else None
        except StatError:
            return None

    def own(self, variant: str) -> tuple[float, float] | None:
        """A variant's own mean and standard error, where the vector of all variants holds just that."""
        if self.together is None or len(self.rows) > 1:
            return None
        vector, plain = self.together
        place = list(self.measurement.design.variants).index(variant)
        vector = plain or vector
        return vector.mean.item(place), math.sqrt(vector.covariance.item(place, place))

    def pair(self, variant: str, control: str) -> Pair:
        """Two variants; strata in which one of them is missing are left out."""
        counts = self.measurement.conversions(self.rows, variant, control)
        # Waves are weighed by the precision of the two compared.
        if self.together is not None and (self.measurement.design.adapting is None or len(self.rows) == 1):
            places = list(self.measurement.design.variants)
            return Pair(*self.together, places.index(variant), places.index(control), counts)
        vector = self.vector([variant, control])
        plain = self.vector([variant, control], adjust=False) if self.measurement.covariates else None
        return Pair(vector, plain, 0, 1, counts)
