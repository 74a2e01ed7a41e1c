"""The lifts that past and present experiments found, and what is left of them when they are drawn together.

A lift is the effect on the metric that money rests on (else the main one) as a share of control, better upwards.
What was picked because it looked best was lucky too; drawn towards what experiments usually give it is not, whoever
was picked, as long as all experiments count: the winners, the losers, and every variant of each.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from experiments.codes import Verdict
from experiments.documents import Experiment
from experiments.programme.summaries import Summary
from experiments.report import ArmMean, Comparison, Interval, MetricReport, Report
from stats import shrinkage
from stats.errors import StatError
from stats.moments import Floats

ALPHA = 0.05
# Experiments, not variants, from which on effects are drawn together: of two it is not seen how much they differ.
FEWEST = 3
# A control this near to zero, in standard errors, makes no lift.
_NEAR_ZERO = 3.0
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Lift:
    """The lift of one variant; ``base``: the control's mean; ``base_se``, ``arm_se``: the errors of the two means."""

    experiment: str
    variant: str
    metric: str
    estimate: float
    se: float
    base: float
    base_se: float
    arm_se: float

    @property
    def interval(self) -> Interval:
        """The plain 95 % interval."""
        return Interval(self.estimate, self.estimate - _Z * self.se, self.estimate + _Z * self.se)


@dataclass(frozen=True, slots=True)
class Pool:
    """All lifts, and if there are enough experiments, what is left of each: their mean and sd, and sums of them."""

    lifts: tuple[Lift, ...]
    experiments: int
    mean: Interval | None
    sd: float | None
    shrunk: tuple[Interval, ...]
    combined: Interval | None
    places: Mapping[tuple[str, str], int]

    def of(self, experiment: str, variant: str) -> tuple[Lift, Interval | None] | None:
        """Return a variant's lift, and what is left of it."""
        place = self.places.get((experiment, variant))
        return None if place is None else (self.lifts[place], self.shrunk[place] if self.shrunk else None)


def valued(experiment: Experiment, report: Report) -> MetricReport:
    """Return the metric that money rests on, else the main one."""
    wanted = None if experiment.value is None else experiment.value.metric
    return next((part for part in report.metrics if part.metric == wanted), report.primary())


def of_summary(summary: Summary) -> Iterator[Lift]:
    """Yield the lift of each variant over all users, where the data can be trusted and a lift exists."""
    report = summary.report
    if report is None or report.decision.verdict is Verdict.invalid:
        return
    metric = valued(summary.experiment, report)
    for c in metric.comparisons:
        if c.segment is None and (lift := of_comparison(report.experiment, metric, c)) is not None:
            yield lift


def of_comparison(experiment: str, metric: MetricReport, c: Comparison) -> Lift | None:
    """Return the lift of one comparison; None where the control is too near to zero, or nothing could be compared."""
    control, treated = _arm(metric, c.control, c.segment), _arm(metric, c.variant, c.segment)
    if c.absolute is None or not c.se or control is None or treated is None or not control.mean:
        return None
    base, base_se = abs(control.mean), control.se or 0.0
    if base < _NEAR_ZERO * base_se:
        return None
    sign = 1.0 if metric.direction == "up" else -1.0
    estimate = sign * c.absolute.estimate / base
    return Lift(experiment, c.variant, metric.metric, estimate, c.se / base, base, base_se, treated.se or 0.0)


def _arm(metric: MetricReport, variant: str, segment: str | None) -> ArmMean | None:
    return next((arm for arm in metric.arms if arm.variant == variant and arm.segment == segment), None)


def pool(lifts: Sequence[Lift], weights: Sequence[float] | None = None) -> Pool:
    """Draw lifts together; ``weights``: of the sum of them that is wanted too, none where all are zero."""
    return _pool(tuple(lifts), tuple(weights) if weights is not None and any(weights) else None)


@lru_cache(maxsize=16)
def _pool(lifts: tuple[Lift, ...], weights: tuple[float, ...] | None) -> Pool:
    experiments = len({lift.experiment for lift in lifts})
    places = {(lift.experiment, lift.variant): i for i, lift in enumerate(lifts)}
    nothing = Pool(lifts, experiments, None, None, (), None, places)
    if experiments < FEWEST:
        return nothing
    effects = np.array([lift.estimate for lift in lifts])
    sums = None if weights is None else np.array([weights])
    try:
        found = shrinkage.shrink(effects, _covariance(lifts), ALPHA, sums)
    except StatError:
        return nothing
    shrunk = tuple(Interval(part.estimate, part.lower, part.upper) for part in found.estimates)
    mean, combined = found.pooled, found.combined[0] if found.combined else None
    return Pool(
        lifts,
        experiments,
        Interval(mean.estimate, mean.lower, mean.upper),
        found.tau,
        shrunk,
        None if combined is None else Interval(combined.estimate, combined.lower, combined.upper),
        places,
    )


def _covariance(lifts: Sequence[Lift]) -> Floats:
    """Variants of one experiment share its control: two plain differences correlate by it, adjusted ones as much."""
    found = np.diag([lift.se**2 for lift in lifts])
    places: dict[str, list[int]] = {}
    for i, lift in enumerate(lifts):
        places.setdefault(lift.experiment, []).append(i)
    for rows in places.values():
        for i in rows:
            for j in rows:
                if i != j:
                    found[i, j] = lifts[i].se * lifts[j].se * _shared(lifts[i]) * _shared(lifts[j])
    return found


def _shared(lift: Lift) -> float:
    whole = math.hypot(lift.base_se, lift.arm_se)
    return lift.base_se / whole if whole else 0.0
