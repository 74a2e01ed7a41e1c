"""From the sums of one metric to arm vectors: of any strata, as of any day.

Where the shares of the variants differ between strata, effects are estimated within strata and combined; pooling them
would mistake the mix for an effect.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import reduce

import numpy as np

from experiments.design import Design, MetricSpec
from experiments.sums import Cell, Measured, Sums
from stats import adaptive, quantiles, survival
from stats import arms as builders
from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.moments import Moments
from stats.proportions import Conversions
from stats.quantiles import Sample
from stats.survival import Lifetimes

Who = tuple[str | None, str]

_EPOCH = date(1970, 1, 1)
# Users of each variant in a wave, for each covariate: below, the adjustment is worse than none.
_PER_COVARIATE = 20


class Row(dict[str, Moments]):
    """Moments of every variant in one stratum (or in all together), and the arm vectors made of them so far."""

    def __init__(self, moments: Mapping[str, Moments]) -> None:
        super().__init__(moments)
        self.vectors: dict[tuple[tuple[str, ...], bool], ArmVector] = {}


class Measurement:
    """One metric of one experiment; ``until`` leaves out users exposed later than that day."""

    def __init__(self, design: Design, spec: MetricSpec, measured: Measured, until: date | None = None) -> None:
        self.design = design
        self.spec = spec
        self.layout = measured.layout
        self.measured = measured
        self._until = until
        self._days: dict[date, dict[Who, Sums]] = {}
        self._sums: dict[Who, Sums] = {}
        for cell, part in measured.cells.items():
            if until is None or cell.day is None or cell.day <= until:
                who = cell.stratum, cell.variant
                self._sums[who] = self._sums[who] + part if who in self._sums else part
                if cell.day is not None:
                    day = self._days.setdefault(cell.day, {})
                    day[who] = day[who] + part if who in day else part
        columns = len(self.layout.columns)
        self.covariates = range(columns - self.layout.covariates, columns)
        self._empty = Moments.zero(columns)
        self._rows: dict[tuple[str | None, ...], Row] = {}

    @property
    def outcome(self) -> int:
        """The column of the outcome: the last step of a funnel, else the first one."""
        return len(self.layout.columns) - 1 if self.spec.kind == "funnel" else 0

    @property
    def watches_everyone(self) -> bool:
        """Whether users count as far as they were watched, closed window or not: times to an event, read once."""
        return self.measured.lifetimes is not None and self.design.method == "fixed"

    def rows(self, strata: Sequence[str | None]) -> list[Row]:
        """Moments of every variant in every stratum (in one row when strata need not be told apart)."""
        groups = [(stratum,) for stratum in strata] if self.design.stratified else [tuple(strata)]
        for group in groups:
            if group not in self._rows:
                self._rows[group] = Row({variant: self._moments(group, variant) for variant in self.design.variants})
        return [self._rows[group] for group in groups]

    def rows_by_day(self) -> Iterator[tuple[date, list[Row]]]:
        """The rows of all strata as they stood with the users exposed up to each day; a single day is no line."""
        if len(self._days) < 2:
            return
        running: dict[Who, Sums] = {}
        strata: Sequence[str | None] = self.design.strata if self.design.stratified else (None,)
        for day in sorted(self._days):
            changed = False
            for (stratum, variant), part in self._days[day].items():
                who = stratum if self.design.stratified else None, variant
                running[who] = running[who] + part if who in running else part
                changed |= part.n > 0
            if changed:
                yield (
                    day,
                    [
                        Row(
                            {
                                variant: running[stratum, variant].moments(self.layout.scales)
                                if (stratum, variant) in running
                                else self._empty
                                for variant in self.design.variants
                            }
                        )
                        for stratum in strata
                    ],
                )

    def users_by_day(self) -> Iterator[tuple[date, int]]:
        """Users exposed up to each day."""
        total = 0
        for day in sorted(self._days):
            added = sum(part.n for part in self._days[day].values())
            total += added
            if added:
                yield day, total

    def users(self) -> int:
        """Users whose window has closed."""
        return sum(part.n for part in self._sums.values())

    def as_of(self, day: date) -> "Measurement":
        """The same of the users exposed up to a day."""
        return Measurement(self.design, self.spec, self.measured, day)

    def _moments(self, strata: tuple[str | None, ...], variant: str) -> Moments:
        parts = [self._sums[stratum, variant] for stratum in strata if (stratum, variant) in self._sums]
        return Sums.of(parts).moments(self.layout.scales) if parts else self._empty

    def closed(self, day: date) -> date:
        """The day on which the windows of users exposed on this day have closed."""
        return day + timedelta(days=self.spec.horizon_days)

    def vector(
        self, rows: Sequence[Row], strata: Sequence[str | None], variants: Sequence[str], *, adjust: bool = True
    ) -> ArmVector:
        """The arm vector of some variants; strata in which one of them is missing are left out."""
        if self.spec.kind == "quantile":
            return self._quantiles(strata, variants)
        if self.watches_everyone:
            return self._restricted_means(strata, variants)
        return self.combine(rows, variants, adjust=adjust)

    def combine(self, rows: Sequence[Row], variants: Sequence[str], *, adjust: bool = True) -> ArmVector:
        """The arm vector of the outcome's means or ratios."""
        full = [row for row in rows if all(row[variant].n >= self._fewest for variant in variants)]
        if not full:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=sum(row[variant].n for row in rows for variant in variants))
        if self.spec.kind == "ratio":
            linear = builders.linearised([[row[variant] for variant in variants] for row in full])
            return self._combined([self._one(arms, -1, adjust) for arms in linear], full)
        return self._combined([self._of_row(row, tuple(variants), adjust) for row in full], full)

    @property
    def _fewest(self) -> int:
        """Users of each variant that a stratum must have to count; the last wave fills up while it is looked at."""
        return 2 + (_PER_COVARIATE * len(self.covariates) if self.design.adapting else 0)

    def _combined(self, parts: Sequence[ArmVector], rows: Sequence[Row]) -> ArmVector:
        if self.design.adapting is None:
            return combined(parts)
        if self.design.method == "sequential":
            return adaptive.batched(parts)
        return adaptive.batched(parts, [sum(arm.n for arm in row.values()) for row in rows])

    def _of_row(self, row: Row, variants: tuple[str, ...], adjust: bool) -> ArmVector:
        # A segment's row is one of those of all users.
        known = row.vectors.get((variants, adjust))
        if known is None:
            known = self._one([row[variant] for variant in variants], self.outcome, adjust)
            row.vectors[variants, adjust] = known
        return known

    def _one(self, arms: Sequence[Moments], outcome: int, adjust: bool) -> ArmVector:
        if adjust and self.covariates:
            return builders.adjusted(arms, outcome, self.covariates)
        return builders.means(arms, outcome)

    def own(self, strata: Sequence[str | None], variant: str) -> tuple[float, float]:
        """A variant's own mean (or ratio, quantile), of its users alone, with its standard error."""
        if self.spec.kind == "quantile" or self.watches_everyone:
            vector = self.vector([], strata, [variant])
            return float(vector.mean[0]), float(vector.se[0])
        if self.design.adapting is not None:
            vector = self.combine(self.rows(strata), [variant], adjust=False)
            return float(vector.mean[0]), float(vector.se[0])
        row = self._rows.get(tuple(strata))
        arm = self._moments(tuple(strata), variant) if row is None else row[variant]
        if self.spec.kind == "ratio":
            vector = builders.ratios([arm])
            return float(vector.mean[0]), float(vector.se[0])
        if arm.n < 2:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=arm.n)
        variance = arm.cross.item(self.outcome, self.outcome) / (arm.n - 1) / arm.n
        return arm.mean.item(self.outcome), math.sqrt(variance)

    def conversions(self, rows: Sequence[Row], variant: str, control: str) -> tuple[Conversions, Conversions] | None:
        """Plain counts, where the score tests of proportions apply."""
        if self.spec.unit != "share" or self.spec.kind == "ratio" or self.covariates or len(rows) > 1:
            return None
        (row,) = rows
        counts = [
            Conversions(round(row[v].mean[self.outcome] * row[v].n), row[v].n) for v in (variant, control) if row[v].n
        ]
        return (counts[0], counts[1]) if len(counts) == 2 else None

    def nobody(self, rows: Sequence[Row], variant: str, control: str) -> tuple[Conversions, Conversions] | None:
        """Counts where nobody did it in either variant: then strata and covariates tell nothing, but numbers do."""
        if self.spec.unit != "share" or self.spec.kind == "ratio":
            return None
        arms = [[row[v] for row in rows if row[v].n] for v in (variant, control)]
        if any(part.mean[self.outcome] for arm in arms for part in arm):
            return None
        counts = [Conversions(0, sum(part.n for part in arm)) for arm in arms if arm]
        return (counts[0], counts[1]) if len(counts) == 2 else None

    def lifetimes(self, strata: Sequence[str | None], variant: str) -> list[Lifetimes]:
        """Times to the event, one for each row."""
        known = self.measured.lifetimes or {}
        groups = [(stratum,) for stratum in strata] if self.design.stratified else [tuple(strata)]
        empty = Lifetimes.from_rows(np.empty(0), np.empty(0, dtype=np.bool_))
        return [
            reduce(_merge, (known[stratum, variant] for stratum in group if (stratum, variant) in known), empty)
            for group in groups
        ]

    def _restricted_means(self, strata: Sequence[str | None], variants: Sequence[str]) -> ArmVector:
        rows = list(zip(*(self.lifetimes(strata, variant) for variant in variants), strict=True))
        full = [row for row in rows if all(arm.n >= 2 for arm in row)]
        if not full:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=sum(arm.n for row in rows for arm in row))
        horizon = float(self.spec.window_days or 0) or max(float(arm.times[-1]) for row in full for arm in row)
        return combined([survival.restricted_mean(row, horizon) for row in full])

    def _quantiles(self, strata: Sequence[str | None], variants: Sequence[str]) -> ArmVector:
        samples = [self._sample(strata, variant) for variant in variants]
        return quantiles.quantiles(samples, self.spec.quantile or 0.5, self.design.alpha)

    def _sample(self, strata: Sequence[str | None], variant: str) -> Sample:
        """One sample a variant: quantiles do not average over strata, so values are weighted where shares differ."""
        known = self.measured.values or {}
        last = None if self._until is None else (self._until - _EPOCH).days
        values, users, weights, labels = [], [], [], []
        for label, stratum in enumerate(strata):
            part = known.get((stratum, variant))
            if part is None:
                continue
            kept = slice(None) if last is None else part.day <= last
            values.append(part.value[kept])
            if part.user is not None:
                users.append(part.user[kept])
            if self.design.stratified:
                inside = [self._sums[stratum, v].n for v in self.design.variants if (stratum, v) in self._sums]
                weights.append(np.full(values[-1].size, sum(inside) / max(self._sums[stratum, variant].n, 1)))
                labels.append(np.full(values[-1].size, label))
        if not values:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
        return Sample(
            np.concatenate(values),
            np.concatenate(users) if users else None,
            np.concatenate(weights) if weights else None,
            np.concatenate(labels) if labels else None,
        )

    def largest(self, variant: str) -> tuple[Cell, int] | None:
        """The largest outcome of one user of a variant, and where it is."""
        cells = [
            (cell, value)
            for cell, value in self.measured.largest.items()
            if cell.variant == variant and (self._until is None or cell.day is None or cell.day <= self._until)
        ]
        return max(cells, key=lambda entry: entry[1], default=None)


def combined(parts: Sequence[ArmVector]) -> ArmVector:
    """One arm vector of the strata's."""
    return builders.stratified(parts) if len(parts) > 1 else parts[0]


def _merge(one: Lifetimes, other: Lifetimes) -> Lifetimes:
    return one + other
