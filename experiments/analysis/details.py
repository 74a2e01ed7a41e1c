"""What some kinds of metrics and designs show besides: funnels, survival, heavy tails, frequency, factors, choices."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.special import ndtr

from experiments.analysis.comparisons import Analyst
from experiments.analysis.vectors import Measurement, combined
from experiments.fields import Direction, Role
from experiments.report import (
    Capping,
    Choice,
    Comparison,
    DosePoint,
    DoseResponse,
    FactorEffect,
    Factorial,
    FunnelStep,
    Heterogeneity,
    Influence,
    Interval,
    Novelty,
    SlicePoint,
    Survival,
    Test,
)
from experiments.sums import Measured
from stats import arms as builders
from stats import contrasts, diagnostics, dose, effects, factorial, posterior, shrinkage, survival, winner
from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Floats, Moments
from stats.posterior import Normal

# A curve on a page needs no more points than it has pixels to draw them.
CURVE_POINTS = 200


def heterogeneity(
    analyst: Analyst, found: Mapping[tuple[str | None, str], Comparison]
) -> tuple[list[Heterogeneity], dict[tuple[str, str], Interval]]:
    """Whether effects differ between the segments of a dimension, and each drawn towards the others.

    Drawn are the effects on the metrics that decide whom to roll out to: the main one and the one that is valued.

    Args:
        analyst: of the metric.
        found: the effects by (segment, variant).

    Returns:
        The tests, and the shrunk effect of each (segment, variant).
    """
    tests: list[Heterogeneity] = []
    shrunk: dict[tuple[str, str], Interval] = {}
    value = analyst.design.value
    decides = analyst.spec.role is Role.primary or (value is not None and value.metric == analyst.spec.key)
    for dimension, segments in analyst.design.dimensions.items():
        for variant in analyst.design.treatments:
            known = [segment for segment in segments if (segment, variant) in found]
            effects_of = [found[segment, variant] for segment in known]
            estimates = np.array([c.absolute.estimate for c in effects_of if c.absolute])
            covariance = np.diag([c.se**2 for c in effects_of if c.se])
            try:
                test = shrinkage.heterogeneity(estimates, covariance)
                drawn = shrinkage.shrink(estimates, covariance, analyst.design.alpha).estimates if decides else []
            except StatError as error:
                none = Heterogeneity(dimension, variant, len(known), None, None, None, None, error.code)
                tests.append(none)
                continue
            tests.append(
                Heterogeneity(dimension, variant, len(known), test.q, test.df, test.p_value, test.tau, problem=None)
            )
            for segment, interval in zip(known, drawn, strict=decides):
                shrunk[segment, variant] = Interval(interval.estimate, interval.lower, interval.upper)
    return tests, shrunk


def funnel(analyst: Analyst) -> Iterator[FunnelStep]:
    """Every step of a funnel: of those who came so far, the share that went on."""
    measurement, design = analyst.measurement, analyst.design
    rows, variants = analyst.everyone.rows, list(design.variants)
    for position, column in enumerate(measurement.layout.columns):
        reached = {v: _users(rows, v, position) for v in variants}
        entered = {v: _users(rows, v, position - 1 if position else None) for v in variants}
        for variant in variants:
            interval = p_value = rate = se = problem = None
            try:
                vector = _step(rows, [variant, design.control], position)
                rate, se = float(vector.mean[0]), float(vector.se[0])
                if variant != design.control:
                    limit = analyst.horizon(variant, design.control, None)
                    found = effects.difference(vector, 0, 1, limit)
                    interval, p_value = Interval(found.estimate, found.lower, found.upper), found.p_value
            except StatError as error:
                problem = error.code
            yield FunnelStep(
                position + 1,
                column.name,
                variant,
                entered[variant],
                reached[variant],
                rate,
                se,
                interval,
                p_value,
                problem,
            )


def _users(rows: Sequence[Mapping[str, Moments]], variant: str, column: int | None) -> int:
    if column is None:
        return sum(row[variant].n for row in rows)
    return sum(round(row[variant].n * float(row[variant].mean[column])) for row in rows)


def _step(rows: Sequence[Mapping[str, Moments]], variants: Sequence[str], position: int) -> ArmVector:
    full = [[row[v] for v in variants] for row in rows]
    full = [row for row in full if all(arm.n >= 2 for arm in row)]
    if not full:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
    if position == 0:
        return combined([builders.means(row, 0) for row in full])
    return combined([builders.means(row, -1) for row in builders.linearised(full, position, position - 1)])


def curves(analyst: Analyst) -> Iterator[Survival]:
    """The share of users without the event, by days since exposure."""
    for variant in analyst.design.variants:
        arms = analyst.measurement.lifetimes(analyst.design.strata, variant)
        whole = arms[0]
        for arm in arms[1:]:
            whole = whole + arm
        curve = survival.curve(whole, analyst.design.alpha)
        step = max(1, -(-curve.times.size // CURVE_POINTS))
        # The last of each run of points: a curve of shares only falls.
        kept = np.arange(curve.times.size - 1, -1, -step)[::-1]
        yield Survival(
            variant,
            whole.n,
            int(whole.events.sum()),
            curve.times[kept].tolist(),
            curve.survival[kept].tolist(),
            curve.lower[kept].tolist(),
            curve.upper[kept].tolist(),
        )


def logrank(analyst: Analyst) -> Test | None:
    """Are the curves of all variants the same?"""
    arms = [analyst.measurement.lifetimes(analyst.design.strata, variant) for variant in analyst.design.variants]
    try:
        test = survival.logrank(list(zip(*arms, strict=True)))
    except StatError:
        return None
    return Test(test.statistic, test.df, test.p_value)


def capping(analyst: Analyst) -> Iterator[Capping]:
    """What the cut of heavy tails removed, and the effect without it."""
    measurement, design = analyst.measurement, analyst.design
    column, cap = measurement.layout.uncapped, measurement.measured.cap
    if column is None or cap is None:
        return
    rows = analyst.everyone.rows
    for variant in design.variants:
        kept, whole = (sum(row[variant].n * float(row[variant].mean[i]) for row in rows) for i in (0, column))
        interval = None
        if variant != design.control:
            full = [[row[variant], row[design.control]] for row in rows]
            full = [row for row in full if all(arm.n >= 2 for arm in row)]
            try:
                vector = combined([builders.means(row, column) for row in full]) if full else None
                if vector is not None:
                    found = effects.difference(vector, 0, 1, analyst.horizon(variant, design.control, None))
                    interval = Interval(found.estimate, found.lower, found.upper)
            except StatError:
                pass
        yield Capping(variant, cap, 1 - kept / whole if whole > 0 else None, interval)


def influence(analyst: Analyst) -> Iterator[Influence]:
    """The unadjusted effect without the largest user of each of the two variants."""
    measurement, design = analyst.measurement, analyst.design
    rows = analyst.everyone.rows
    if len(rows) > 1 or not analyst.readable:
        return
    (row,) = rows
    left = {variant: _without_largest(measurement, row[variant], variant) for variant in design.variants}
    for variant in design.treatments:
        kept = [left[variant], left[design.control]]
        try:
            whole = effects.difference(builders.means([row[variant], row[design.control]]), 0, 1, Fixed(design.alpha))
            rest = builders.means([arm for arm in kept if arm is not None])
            found = effects.difference(rest, 0, 1, Fixed(design.alpha))
        except (StatError, IndexError):
            continue
        yield Influence(
            variant,
            _largest_share(measurement, row[variant], variant),
            Interval(whole.estimate, whole.lower, whole.upper),
            Interval(found.estimate, found.lower, found.upper),
        )


def _without_largest(measurement: Measurement, moments: Moments, variant: str) -> Moments | None:
    largest = measurement.largest(variant)
    if largest is None:
        return None
    outcome = moments.select([0])
    try:
        return diagnostics.without_largest(outcome, np.array([largest[1] / measurement.layout.scales[0]]))
    except StatError:
        return None


def _largest_share(measurement: Measurement, moments: Moments, variant: str) -> float | None:
    largest, total = measurement.largest(variant), moments.n * float(moments.mean[0])
    return None if largest is None or total <= 0 else largest[1] / measurement.layout.scales[0] / total


def slices(analyst: Analyst, row: Mapping[str, Moments], bounds: Sequence[int]) -> list[SlicePoint]:
    """The effect by days since exposure, or before it: the days are then negative. ``row`` as ``sliced`` gives it."""
    points: list[SlicePoint] = []
    for variant in analyst.design.treatments if row else ():
        pair = [row[variant], row[analyst.design.control]]
        for column, (start, end) in enumerate(pairwise(bounds)):
            try:
                found = effects.difference(builders.means(pair, column), 0, 1, Fixed(analyst.design.alpha))
            except StatError:
                continue
            points.append(SlicePoint(variant, start, end, Interval(found.estimate, found.lower, found.upper)))
    return points


def novelty(analyst: Analyst, row: Mapping[str, Moments], bounds: Sequence[int]) -> list[Novelty]:
    """Whether the effect fades or grows with the days since exposure. ``row`` as ``sliced`` gives it."""
    middles = [(start + end) / 2 for start, end in pairwise(bounds)]
    trends: list[Novelty] = []
    for variant in analyst.design.treatments if row else ():
        pair = [row[variant], row[analyst.design.control]]
        try:
            trend = diagnostics.drift(pair, 0, 1, analyst.design.alpha, middles)
        except StatError:
            continue
        trends.append(Novelty(variant, Interval(trend.estimate, trend.lower, trend.upper), trend.p_value))
    return trends


def sliced(analyst: Analyst, measured: Measured | None) -> Mapping[str, Moments]:
    """Each variant's moments over slices of days, none where users of several strata must not be pooled."""
    design = analyst.design
    if measured is None or design.stratified or not analyst.readable:
        return {}
    (row,) = Measurement(design, analyst.spec, measured, analyst.until).rows(design.strata)
    return row


def choices(analyst: Analyst) -> list[Choice]:
    """Each variant as a choice, under the plan's prior of the lifts (a flat one if it has none)."""
    together = analyst.everyone.together
    if together is None or not analyst.readable:
        return []
    mean, covariance = together[0].mean, together[0].covariance
    prior = analyst.design.prior
    try:
        if prior is not None:
            mean, covariance = _effects_believed(analyst, together[0], prior)
        found = posterior.best(mean, covariance, analyst.spec.direction is Direction.up)
    except StatError:
        return []
    variants = analyst.design.variants
    return [
        Choice(variant, float(p), float(loss))
        for variant, p, loss in zip(variants, found.probability, found.expected_loss, strict=True)
    ]


def _effects_believed(analyst: Analyst, vector: ArmVector, prior: Normal) -> tuple[Floats, Floats]:
    """Mean and covariance of every variant's effect, the control's own being 0, with a prior on each of the others."""
    variants = list(analyst.design.variants)
    control = variants.index(analyst.design.control)
    matrix = contrasts.many_to_one(len(variants), control)
    base = abs(vector.mean.item(control))
    spread = matrix @ vector.covariance @ matrix.T
    if base == 0 or np.linalg.matrix_rank(spread) < len(spread):
        raise StatError(Problem.ZERO_VARIANCE)
    own = np.linalg.inv(spread)
    covariance = np.linalg.inv(own + np.eye(len(own)) / (prior.sd * base) ** 2)
    mean = covariance @ (own @ (matrix @ vector.mean) + prior.mean * base / (prior.sd * base) ** 2)
    others = [place for place in range(len(variants)) if place != control]
    whole = np.zeros(len(variants)), np.zeros((len(variants), len(variants)))
    whole[0][others] = mean
    whole[1][np.ix_(others, others)] = covariance
    return whole


def frequency(analyst: Analyst) -> DoseResponse | None:
    """How the metric responds to touches a week, where at least three frequencies were tested."""
    design = analyst.design
    variants = [variant for variant in design.variants if variant in design.doses]
    doses = [design.doses[variant] for variant in variants]
    if len(set(doses)) < 3 or len(set(doses)) < len(doses) or analyst.everyone.together is None:
        return None
    whole = analyst.everyone.together[0]
    places = [list(design.variants).index(variant) for variant in variants]
    vector = ArmVector(
        whole.n[places], whole.mean[places], whole.covariance[np.ix_(places, places)], whole.satterthwaite[places]
    )
    if analyst.spec.unit == "share":
        vector = _with_rare_arms(vector)
    up = analyst.spec.direction is Direction.up
    better = vector if up else ArmVector(vector.n, -vector.mean, vector.covariance, vector.satterthwaite)
    try:
        trend = dose.trend(vector, doses, analyst.horizon(variants[-1], variants[0], None))
        curve, shape = _response(vector, doses, design.alpha, up)
        departure = dose.departure(vector, doses)
        tested = [doses[arm] for arm in dose.best_tested(better, design.alpha)]
    except StatError:
        return None
    best, problem = None, None
    try:
        if len(doses) > 3 and dose.departure(vector, doses, degree=2).p_value < design.alpha:
            raise StatError(Problem.SHAPE_REJECTED)
        peak = dose.best_quadratic(better, doses, design.alpha)
        best = Interval(peak.dose, peak.lower, peak.upper)
    except StatError as error:
        problem = error.code
    names = {design.doses[variant]: variant for variant in variants}
    floor, ceiling = (0.0, 1.0) if analyst.spec.unit == "share" else (-math.inf, math.inf)
    return DoseResponse(
        trend=Interval(trend.estimate, trend.lower, trend.upper),
        trend_p=trend.p_value,
        departure=Test(departure.statistic, departure.df, departure.p_value),
        shape=shape,
        curve=[
            DosePoint(names[float(x)], float(x), float(y), max(float(low), floor), min(float(high), ceiling))
            for x, y, low, high in zip(curve.doses, curve.estimate, curve.lower, curve.upper, strict=True)
        ],
        best=best,
        best_problem=problem,
        best_tested=sorted(tested),
    )


def _with_rare_arms(vector: ArmVector) -> ArmVector:
    """Where nobody (or everybody) did it, the variance of a share with two more of each (Agresti & Coull 1998)."""
    constant = np.diag(vector.covariance) == 0
    share = (vector.mean * vector.n + 2) / (vector.n + 4)
    extra = np.where(constant, share * (1 - share) / (vector.n + 4), 0.0)
    return ArmVector(vector.n, vector.mean, vector.covariance + np.diag(extra), vector.satterthwaite)


def _response(vector: ArmVector, doses: Sequence[float], alpha: float, up: bool) -> tuple[dose.Curve, dose.Shape]:
    """What is wanted rises ever more slowly; what is not, rises. Where the data deny that, no shape is assumed."""
    shape: dose.Shape = "concave" if up else "increasing"
    try:
        return dose.response(vector, doses, alpha, shape), shape
    except StatError as error:
        if error.code is not Problem.SHAPE_REJECTED:
            raise
        return dose.response(vector, doses, alpha, "free"), "free"


def factors(analyst: Analyst) -> Factorial | None:
    """Main effects and interactions of a factorial design."""
    design = analyst.design
    if not design.factors or analyst.everyone.together is None or not analyst.readable:
        return None
    vector = analyst.everyone.together[0]
    levels = [design.factors[variant] for variant in design.variants]
    limit = analyst.horizon(design.treatments[0], design.control, None)
    found = [
        FactorEffect(
            dict(entry.factors),
            None if entry.effect is None else Interval(entry.effect.estimate, entry.effect.lower, entry.effect.upper),
            None if entry.effect is None else entry.effect.p_value,
            entry.problem,
            entry.assumed,
        )
        for entry in factorial.effects(vector, levels, design.factors[design.control], limit)
    ]
    try:
        test = factorial.additivity(vector, levels)
        joint = Test(test.statistic, test.df, test.p_value)
    except StatError:
        joint = None
    return Factorial(found, joint)


def corrected(analyst: Analyst, variant: str) -> Interval | None:
    """The effect of the best of several variants without the luck of having been picked.

    At the level at which a plain interval is as wide as the plan's, so that looking often is paid for here too.
    """
    design = analyst.design
    together = analyst.everyone.together
    if len(design.treatments) < 2 or together is None or not analyst.readable:
        return None
    vector = together[0]
    places = list(design.variants)
    matrix = contrasts.many_to_one(len(places), places.index(design.control))
    sign = 1.0 if analyst.spec.direction is Direction.up else -1.0
    estimates = sign * (matrix @ vector.mean)
    if design.treatments[int(estimates.argmax())] != variant:
        return None
    users = int(vector.n[places.index(variant)] + vector.n[places.index(design.control)])
    level = 2 * float(ndtr(-analyst.horizon(variant, design.control, None).critical(users, None)))
    try:
        found = winner.corrected(estimates, matrix @ vector.covariance @ matrix.T, None, level)
    except StatError:
        return None
    low, high = sorted((sign * found.lower, sign * found.upper))
    return Interval(sign * found.estimate, low, high)
