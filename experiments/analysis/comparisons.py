"""Effects of one metric: every variant against control, over all users and in each segment, under the plan's method."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Literal

from msgspec import structs

from experiments.analysis.looks import Reading
from experiments.analysis.scopes import Pair, Scope
from experiments.analysis.vectors import Measurement
from experiments.design import Design
from experiments.fields import Direction, Role
from experiments.report import ArmMean, Comparison, Interval, NonInferiority, Statistic, TimelinePoint
from stats import arms as builders
from stats import effects, groupsequential, horizon, posterior, proportions
from stats.errors import Problem, StatError
from stats.horizon import Fixed, GroupSequential, Horizon, Sequential
from stats.posterior import Normal
from stats.proportions import Conversions

AtLevel = Callable[[float], Interval]


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and its interval at any other level (None where there is none)."""

    comparison: Comparison
    at: AtLevel | None


class Analyst:
    """One metric of one experiment, read by the plan's method."""

    def __init__(self, measurement: Measurement, reading: Reading) -> None:
        self.measurement = measurement
        self.design: Design = measurement.design
        self.spec = measurement.spec
        self._reading = reading
        self._pairs: dict[tuple[str, str], float] = {}
        self._horizons: dict[tuple[str, str, bool], Horizon] = {}

    @property
    def until(self) -> date | None:
        """The last day of exposure that counts, where the plan's looks set one."""
        return self._reading.until

    @property
    def readable(self) -> bool:
        """Whether the plan allows to look at any effect yet."""
        return self.design.method != "group_sequential" or bool(self._reading.information)

    @cached_property
    def everyone(self) -> Scope:
        """All users."""
        return Scope(self.measurement, self.design.strata)

    @cached_property
    def scopes(self) -> list[Scope]:
        """All users, then each segment."""
        return [self.everyone, *(Scope(self.measurement, s, key) for key, s in self.design.members.items())]

    def arm_means(self, scope: Scope) -> list[ArmMean]:
        """Each variant's own number, of its own users alone."""
        means = []
        for variant in self.design.variants:
            users = sum(row[variant].n for row in scope.rows)
            if self.measurement.watches_everyone:
                users = sum(arm.n for arm in self.measurement.lifetimes(scope.strata, variant))
            try:
                own = scope.own(variant) or self.measurement.own(scope.strata, variant)
                means.append(ArmMean(variant, scope.segment, users, *own))
            except StatError:
                means.append(ArmMean(variant, scope.segment, users, None, None))
        return means

    def compare(self, scope: Scope, variant: str, control: str) -> Compared:
        """One variant against another, with the guardrail's test."""
        try:
            if not self.readable:
                raise StatError(Problem.BEFORE_FIRST_LOOK)
            found = self._effect(scope, scope.pair(variant, control), variant, control)
        except StatError as error:
            nothing: dict[str, None] = dict.fromkeys(_NUMBERS)
            comparison = Comparison(
                variant=variant, control=control, segment=scope.segment, problem=error.code, **nothing
            )
            found = Compared(comparison, None)
        try:
            test = self._noninferiority(scope, found.comparison)
        except StatError:
            return found
        return found if test is None else Compared(structs.replace(found.comparison, noninferiority=test), found.at)

    def effect_in(self, variant: str, segments: Sequence[str]) -> Interval | None:
        """The absolute effect among the users of some segments (of all users when none is named)."""
        strata = dict.fromkeys(stratum for segment in segments for stratum in self.design.members[segment])
        scope = Scope(self.measurement, tuple(strata)) if strata else self.everyone
        return self.compare(scope, variant, self.design.control).comparison.absolute

    def horizon(self, variant: str, control: str, segment: str | None) -> Horizon:
        """When the plan allows to look at this comparison. Raises StatError(before_first_look)."""
        key = variant, control, segment is None
        if key not in self._horizons:
            self._horizons[key] = self._horizon(variant, control, segment)
        return self._horizons[key]

    def _horizon(self, variant: str, control: str, segment: str | None) -> Horizon:
        alpha = self.design.alpha
        users = self.tuned_users(variant, control, segment)
        if users is not None:
            return Sequential.tuned(alpha, users)
        if not self.readable:
            raise StatError(Problem.BEFORE_FIRST_LOOK)
        if self.design.method == "group_sequential":
            spending = self.design.spending or groupsequential.Spending("obrien_fleming")
            return GroupSequential(alpha, self._reading.information, spending, self._reading.final)
        return Fixed(alpha)

    def tuned_users(self, variant: str, control: str, segment: str | None) -> float | None:
        """Users planned for the two variants, in one segment an equal part of them: never a thing of the data."""
        design = self.design
        if design.method != "sequential" or design.planned_users is None:
            return None
        key = variant, control
        if key not in self._pairs:
            # Of waves the first one, whose shares are equal: those of the others follow the data.
            planned = list(design.shares.values())[: 1 if design.adapting else None]
            both = [shares[variant] + shares[control] for shares in planned]
            self._pairs[key] = design.planned_users * sum(both) / len(both)
        users = self._pairs[key] / (1 if segment is None else len(design.segments))
        return max(users, 2.0)

    def timeline(self) -> list[tuple[TimelinePoint, Compared]]:
        """The overall effects as they stood with the users matured by the end of each day, or of that of each look."""
        if self.spec.kind == "quantile":
            return []
        points = []
        for day, rows in self.measurement.rows_by_day():
            closed = self.measurement.closed(day)
            reading = self._reading.on(closed) if self.design.method == "group_sequential" else self._reading
            if reading is None:
                continue
            then = Analyst(self.measurement, reading)
            scope = Scope(self.measurement, self.design.strata, rows=rows)
            for variant in self.design.treatments:
                found = then.compare(scope, variant, self.design.control)
                absolute = found.comparison.absolute
                if absolute is not None:
                    n = sum(row[v].n for row in rows for v in (variant, self.design.control))
                    points.append((TimelinePoint(closed.isoformat(), variant, n, absolute), found))
        return points

    def _effect(self, scope: Scope, pair: Pair, variant: str, control: str) -> Compared:
        if self.design.method == "bayes":
            return Compared(self._posterior(scope, pair, variant, control), None)
        limit = self.horizon(variant, control, scope.segment)
        statistic, read = self._statistic(scope, pair)
        if not isinstance(limit, Fixed) or read is None:
            found = effects.effect(pair.contrast, limit)
            absolute = Interval(found.estimate, found.lower, found.upper)
            estimate, p_value, at = found.estimate, found.p_value, _at(pair, limit)
        else:
            estimate, p_value, at = read
            absolute = at(self.design.alpha)
        relative, relative_problem = self._relative(pair, limit)
        se = _standard_error(pair, limit)
        if self._reading.stopped and scope.segment is None and self.spec.role is Role.primary:
            absolute, p_value = self._after_stopping(estimate, se)
        good = estimate if self.spec.direction is Direction.up else -estimate
        comparison = Comparison(
            variant=variant,
            control=control,
            segment=scope.segment,
            absolute=absolute,
            relative=relative,
            se=se,
            p_value=p_value,
            p_adjusted=None,
            significant=None,
            probability_better=posterior.probability_better(good, se),
            expected_loss=posterior.expected_loss(good, se),
            problem=None,
            relative_problem=relative_problem,
            statistic=statistic,
            variance_reduction=self._reduction(pair),
            tuned_users=self.tuned_users(variant, control, scope.segment),
            relative_interval=None if relative is None else "score" if _score(pair, limit) else "fieller",
        )
        return Compared(comparison, at)

    def _statistic(self, scope: Scope, pair: Pair) -> tuple[Statistic, tuple[float, float, AtLevel] | None]:
        """The test at a fixed horizon, and where it is that of two shares, its estimate, p and intervals."""
        alpha = self.design.alpha
        if pair.counts is None:
            found = pair.contrast
            value = found.estimate / found.se
            p_value = Fixed(alpha).p_value(value, found.n, found.df)
            return Statistic(self._test(scope), value, p_value, found.df), None
        counts = pair.counts
        z = proportions.difference_score(*counts, 0.0)
        p_value = horizon.Fixed(alpha).p_value(z, counts[0].n + counts[1].n, None)
        estimate = counts[0].rate - counts[1].rate
        if pair.rare and pair.enumerable and scope.segment is None and self.design.method == "fixed":
            p_value = proportions.exact(*counts)
            return Statistic("exact", z, p_value), (
                estimate,
                p_value,
                lambda a: _interval(proportions.exact_interval(*counts, a)),
            )
        return Statistic("pooled_z", z, p_value), (estimate, p_value, lambda a: _of_shares(counts, a))

    def _test(self, scope: Scope) -> Literal["welch_t", "adjusted_t", "wald_z"]:
        if self.spec.kind == "quantile" or self.measurement.watches_everyone:
            return "wald_z"
        return "adjusted_t" if self.measurement.covariates or len(scope.rows) > 1 else "welch_t"

    def _relative(self, pair: Pair, limit: Horizon) -> tuple[Interval | None, Problem | None]:
        if isinstance(limit, Fixed) and pair.rare:
            return None, Problem.NOT_ENOUGH_DATA
        try:
            if _score(pair, limit) and pair.counts is not None:
                return _interval(proportions.relative(*pair.counts, self.design.alpha)), None
            found = effects.relative(pair.vector, pair.treatment, pair.control, limit, pair.contrast)
            return _interval(found), None
        except StatError as error:
            return None, error.code

    def _after_stopping(self, estimate: float, se: float) -> tuple[Interval, float]:
        """Without the bias of having stopped because of the effect."""
        information = self._reading.information
        spending = self.design.spending or groupsequential.Spending("obrien_fleming")
        upper = groupsequential.bounds(information, self.design.alpha, spending, final=self._reading.final)
        found = groupsequential.stagewise(estimate / se, len(information), information, upper, se, self.design.alpha)
        return Interval(found.estimate, found.lower, found.upper), found.p_value

    def _posterior(self, scope: Scope, pair: Pair, variant: str, control: str) -> Comparison:
        """Credible intervals; p is twice the posterior chance of the less likely direction."""
        design = self.design
        prior = design.prior
        se = pair.contrast.se
        up = self.spec.direction is Direction.up
        if prior is None and pair.counts is not None and (scope.segment is None or pair.few):
            t, c = pair.counts
            found = posterior.beta_binomial(t.successes, t.n, c.successes, c.n, alpha=design.alpha)
            better, worse = found.probability_better, 1 - found.probability_better
            loss = found.expected_loss if up else found.expected_loss_control
            absolute = _interval(found.difference)
            if better == 1:
                worse = posterior.beta_binomial(
                    c.successes, c.n, t.successes, t.n, alpha=design.alpha
                ).probability_better
        else:
            believed = self._believed(pair)
            absolute = _interval(posterior.interval(believed, design.alpha))
            better = posterior.probability_better(believed.mean, believed.sd)
            worse = posterior.probability_better(-believed.mean, believed.sd)
            loss = posterior.expected_loss(believed.mean if up else -believed.mean, believed.sd)
        relative, problem = self._relative_posterior(pair, prior)
        statistic, _ = self._statistic(scope, pair)
        return Comparison(
            variant=variant,
            control=control,
            segment=scope.segment,
            absolute=absolute,
            relative=relative,
            se=se,
            p_value=min(1.0, 2 * min(better, worse)),
            p_adjusted=None,
            significant=None,
            probability_better=better if up else worse,
            expected_loss=loss,
            problem=None,
            relative_problem=problem,
            statistic=statistic,
            variance_reduction=self._reduction(pair),
            relative_interval=None if relative is None else "posterior",
        )

    def _believed(self, pair: Pair) -> Normal:
        """The posterior of the absolute effect; a prior of the lift is scaled by the control's mean."""
        prior = self.design.prior
        if prior is not None:
            base = abs(float(pair.vector.mean[pair.control]))
            if base == 0:
                raise StatError(Problem.LIFT_NOT_IDENTIFIED)
            prior = Normal(prior.mean * base, prior.sd * base)
        return posterior.update(pair.contrast.estimate, pair.contrast.se, prior)

    def _relative_posterior(self, pair: Pair, prior: Normal | None) -> tuple[Interval | None, Problem | None]:
        """The lift by the delta method, under the prior; where Fieller finds no limits the control is too near zero."""
        alpha = self.design.alpha
        try:
            effects.relative(pair.vector, pair.treatment, pair.control, Fixed(alpha))
            lift = effects.relative_delta(pair.vector, pair.treatment, pair.control, Fixed(alpha))
            df = effects.contrast(pair.vector, [(pair.treatment, 1.0), (pair.control, -1.0)]).df
            se = (lift.upper - lift.lower) / 2 / Fixed(alpha).critical(0, df)
            believed = posterior.update(lift.estimate, se, prior)
            return _interval(posterior.interval(believed, alpha)), None
        except StatError as error:
            return None, error.code

    def _reduction(self, pair: Pair) -> float | None:
        if pair.plain is None:
            return None
        return builders.variance_reduction(pair.plain, pair.vector, pair.treatment, pair.control)

    def _noninferiority(self, scope: Scope, comparison: Comparison) -> NonInferiority | None:
        margin = self.spec.margin
        if self.spec.role is not Role.guardrail or margin is None or scope.segment is not None:
            return None
        up = self.spec.direction is Direction.up
        variant, control = comparison.variant, comparison.control
        limit = self.horizon(variant, control, None)
        counts = self.measurement.conversions(scope.rows, variant, control)
        counts = counts or self.measurement.nobody(scope.rows, variant, control)
        if self.design.method == "bayes" and comparison.problem is None:
            believed = self._believed(scope.pair(variant, control))
            p_value = posterior.probability_better(-margin - (believed.mean if up else -believed.mean), believed.sd)
        elif counts is not None:
            score = proportions.difference_score(*counts, -margin if up else margin)
            p_value = limit.p_value_one_sided(score if up else -score, counts[0].n + counts[1].n, None)
        else:
            better = effects.Direction.INCREASE if up else effects.Direction.DECREASE
            pair = scope.pair(variant, control)
            p_value = effects.noninferiority(pair.vector, pair.treatment, pair.control, margin, better, limit).p_value
        passed = p_value < limit.alpha
        effect = comparison.absolute
        worse = effect is not None and comparison.p_value is not None and comparison.p_value < limit.alpha
        harmed = effect is not None and worse and not passed and (effect.estimate < 0) == up
        return NonInferiority(margin, p_value, passed, harmed)


_NUMBERS = ("absolute", "relative", "se", "p_value", "p_adjusted", "significant", "probability_better", "expected_loss")


def _at(pair: Pair, limit: Horizon) -> AtLevel:
    """The interval at other levels: tuned as before, so that it agrees with the p value."""

    def at(alpha: float) -> Interval:
        found = pair.contrast
        half = replace(limit, alpha=alpha).critical(found.n, found.df) * found.se  # type: ignore[type-var]
        return Interval(found.estimate, found.estimate - half, found.estimate + half)

    return at


def _score(pair: Pair, limit: Horizon) -> bool:
    return pair.counts is not None and isinstance(limit, Fixed)


def _standard_error(pair: Pair, limit: Horizon) -> float:
    variance = pair.contrast.se**2
    if _score(pair, limit) and pair.counts is not None:
        variance = sum(arm.rate * (1 - arm.rate) / arm.n for arm in pair.counts)
    return math.sqrt(variance)


def _of_shares(counts: tuple[Conversions, Conversions], alpha: float) -> Interval:
    found = proportions.difference(*counts, alpha)
    return Interval(found.estimate, found.lower, found.upper)


def _interval(interval: effects.Interval) -> Interval:
    return Interval(interval.estimate, interval.lower, interval.upper)
