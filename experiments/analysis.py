"""From sums to the report: effects of every variant, over all users and in each segment, and whether to trust them.

All metrics take one way: sums per stratum, variant and day → moments → an arm vector (estimates with their joint
covariance) → comparisons under the plan's horizon. Where the shares of the variants differ between strata, effects are
estimated within strata and combined; pooling them would mistake the mix for an effect.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import reduce
from typing import Literal

import numpy as np
from msgspec import structs

from experiments import decision
from experiments.aggregate import Measured, Sums, UserCounts
from experiments.design import Design, MetricSpec
from experiments.documents import Direction, Role
from experiments.report import (
    ArmCount,
    ArmMean,
    Comparison,
    Finding,
    HealthCode,
    Interval,
    Method,
    MetricReport,
    NonInferiority,
    Report,
    SampleRatio,
    SegmentSampleRatio,
    Statistic,
    TimelinePoint,
)
from stats import arms as vectors
from stats import effects, multiplicity, posterior, proportions
from stats import srm as sample_ratio
from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.horizon import Fixed, Horizon, Sequential
from stats.moments import Moments
from stats.proportions import Conversions

# Below this p the split is not what was designed, and no effect can be trusted (Fabijan et al. 2019 use .0005–.01).
SRM_ALARM = 0.001
# Above this share of users seen in two variants, leaving them out may bias what is left.
CROSSOVER_ALARM = 0.05

_Table = dict[str | None, dict[str, Moments]]


@dataclass(frozen=True, slots=True)
class Data:
    """What was measured: users of each (stratum, variant), and each metric's sums."""

    users: Mapping[tuple[str | None, str], UserCounts]
    forced: int
    metrics: Sequence[tuple[MetricSpec, Measured]]


def build(design: Design, data: Data, *, as_of: datetime, watermark: int | None) -> Report:
    """Analyse one experiment.

    Args:
        design: what was planned.
        data: what was measured, the primary metric first.
        as_of: the moment the data stand for.
        watermark: of the lake, None for a file.

    Returns:
        The report; the same arguments give the same bytes.
    """
    exposed = sum(counts.exposed for counts in data.users.values())
    metrics = [_Analyst(design, spec, measured).report(exposed) for spec, measured in data.metrics]
    metrics = _adjust(metrics, design)
    ratio, segment_ratios = _sample_ratio(design, data.users)
    health = [*_ratio_findings(ratio, segment_ratios), *_findings(design, data, metrics[0])]
    primary = metrics[0]
    matured = {arm.variant: arm.n for arm in primary.arms if arm.segment is None}

    def effect_on(metric: str, variant: str, segments: Sequence[str]) -> Interval | None:
        spec, measured = next(pair for pair in data.metrics if pair[0].key == metric)
        return _Analyst(design, spec, measured).effect_in(variant, segments)

    return Report(
        experiment=design.experiment,
        name=design.name,
        revision=design.revision,
        phase=design.phase,
        as_of=as_of.isoformat(),
        watermark=watermark,
        metric_revisions={spec.key: spec.revision for spec, _ in data.metrics},
        method=_method(design),
        control=design.control,
        arms=[
            ArmCount(
                variant,
                name,
                sum(counts.assigned for (_, v), counts in data.users.items() if v == variant),
                sum(counts.exposed for (_, v), counts in data.users.items() if v == variant),
                matured.get(variant, 0),
            )
            for variant, name in design.variants.items()
        ],
        segments=dict(design.segments),
        srm=ratio,
        segment_srm=segment_ratios,
        health=health,
        metrics=metrics,
        decision=decision.advise(design, metrics, health, effect_on),
    )


class _Analyst:
    """One metric of one experiment."""

    def __init__(self, design: Design, spec: MetricSpec, measured: Measured) -> None:
        self._design = design
        self._spec = spec
        self._layout = measured.layout
        self._cells = measured.cells
        self._columns = len(measured.layout.columns)
        self._covariates = range(self._columns - self._layout.covariates, self._columns)

    def report(self, exposed: int) -> MetricReport:
        design, spec = self._design, self._spec
        scopes: list[tuple[str | None, tuple[str | None, ...]]] = [(None, design.strata)]
        scopes += list(design.members.items())
        arms: list[ArmMean] = []
        comparisons: list[Comparison] = []
        for segment, strata in scopes:
            table = self._moments(strata)
            arms += self._arm_means(table, segment)
            comparisons += [self._compare(table, variant, segment) for variant in design.treatments]
        matured = sum(arm.n for arm in arms if arm.segment is None)
        return MetricReport(
            metric=spec.key,
            name=spec.name,
            kind=spec.kind,
            role=spec.role,
            direction=spec.direction,
            unit=spec.unit,
            window_days=spec.window_days,
            matured=matured,
            immature=exposed - matured,
            adjustment="cuped" if self._covariates else "none",
            arms=arms,
            comparisons=comparisons,
            timeline=self._timeline() if spec.role is Role.primary else [],
        )

    def effect_in(self, variant: str, segments: Sequence[str]) -> Interval | None:
        """The absolute effect among the users of some segments (of all users when none is named)."""
        strata = dict.fromkeys(stratum for segment in segments for stratum in self._design.members[segment])
        comparison = self._compare(self._moments(tuple(strata) or self._design.strata), variant, None)
        return comparison.absolute

    def _moments(self, strata: Sequence[str | None], until: date | None = None) -> _Table:
        """Moments of every variant in every stratum (one row "all" when strata need not be told apart)."""
        chosen = set(strata)
        sums: dict[tuple[str | None, str], list[Sums]] = {}
        for cell, part in self._cells.items():
            if cell.stratum in chosen and (until is None or cell.day is None or cell.day <= until):
                row = cell.stratum if self._design.stratified else None
                sums.setdefault((row, cell.variant), []).append(part)
        empty = Moments.zero(self._columns)
        rows = list(strata) if self._design.stratified else [None]
        return {
            row: {
                variant: reduce(_add, sums[row, variant]).moments(self._layout.scales)
                if (row, variant) in sums
                else empty
                for variant in self._design.variants
            }
            for row in rows
        }

    def _vector(self, table: _Table, variants: Sequence[str], *, adjust: bool) -> ArmVector:
        """The arm vector of some variants; strata in which one of them is missing are left out."""
        rows = [[row[variant] for variant in variants] for row in table.values()]
        full = [row for row in rows if all(arm.n >= 2 for arm in row)]
        if not full:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=sum(arm.n for row in rows for arm in row))
        outcome = 0
        if self._spec.kind == "ratio":
            full, outcome = vectors.linearised(full), -1
        if adjust:
            parts = [vectors.adjusted(row, outcome, self._covariates) for row in full]
        else:
            parts = [vectors.means(row, outcome) for row in full]
        return vectors.stratified(parts) if len(parts) > 1 else parts[0]

    def _arm_means(self, table: _Table, segment: str | None) -> Iterable[ArmMean]:
        for variant in self._design.variants:
            users = sum(row[variant].n for row in table.values())
            try:
                vector = self._vector(table, [variant], adjust=False)
                yield ArmMean(variant, segment, users, float(vector.mean[0]), float(vector.se[0]))
            except StatError:
                yield ArmMean(variant, segment, users, None, None)

    def _compare(self, table: _Table, variant: str, segment: str | None) -> Comparison:
        control = self._design.control
        try:
            vector = self._vector(table, [variant, control], adjust=bool(self._covariates))
            plain = self._vector(table, [variant, control], adjust=False) if self._covariates else vector
            comparison = self._effect(table, vector, plain, variant, segment)
        except StatError as error:
            nothing: dict[str, None] = dict.fromkeys(_NUMBERS)
            comparison = Comparison(variant=variant, control=control, segment=segment, problem=error.code, **nothing)
        try:
            return structs.replace(comparison, noninferiority=self._noninferiority(table, comparison))
        except StatError:
            return comparison

    def _effect(
        self, table: _Table, vector: ArmVector, plain: ArmVector, variant: str, segment: str | None
    ) -> Comparison:
        design, spec = self._design, self._spec
        horizon = self._horizon(variant, segment)
        exact = self._conversions(table, variant)
        fixed = effects.difference(vector, 0, 1, Fixed(design.alpha))
        name: Literal["pooled_z", "welch_t", "adjusted_t"] = (
            "adjusted_t" if self._covariates or len(table) > 1 else "welch_t"
        )
        if exact is not None:
            fixed = proportions.difference(*exact, design.alpha)
            name = "pooled_z"
        effect = fixed if isinstance(horizon, Fixed) else effects.difference(vector, 0, 1, horizon)
        relative, relative_problem = None, None
        try:
            if exact is not None and isinstance(horizon, Fixed):
                relative = _interval(proportions.relative(*exact, design.alpha))
            else:
                relative = _interval(effects.relative(vector, 0, 1, horizon))
        except StatError as error:
            relative_problem = error.code
        good = effect.estimate if spec.direction is Direction.up else -effect.estimate
        return Comparison(
            variant=variant,
            control=design.control,
            segment=segment,
            absolute=Interval(effect.estimate, effect.lower, effect.upper),
            relative=relative,
            se=effect.se,
            p_value=effect.p_value,
            p_adjusted=None,
            significant=None,
            probability_better=posterior.probability_better(good, effect.se),
            expected_loss=posterior.expected_loss(good, effect.se),
            problem=None,
            relative_problem=relative_problem,
            statistic=Statistic(name, fixed.statistic, fixed.p_value, fixed.df),
            variance_reduction=vectors.variance_reduction(plain, vector, 0, 1) if self._covariates else None,
            tuned_users=self._tuned_users(variant, segment),
        )

    def _conversions(
        self, table: _Table, variant: str
    ) -> tuple[proportions.Conversions, proportions.Conversions] | None:
        """Plain counts, where the exact family for proportions applies."""
        if self._spec.kind != "conversion" or self._covariates or len(table) > 1:
            return None
        (row,) = table.values()
        treatment, control = row[variant], row[self._design.control]
        return _conversions(treatment), _conversions(control)

    def _noninferiority(self, table: _Table, comparison: Comparison) -> NonInferiority | None:
        margin = self._spec.margin
        if self._spec.role is not Role.guardrail or margin is None or comparison.segment is not None:
            return None
        up = self._spec.direction is Direction.up
        horizon = self._horizon(comparison.variant, None)
        exact = self._conversions(table, comparison.variant)
        if exact is not None:
            score = proportions.difference_score(*exact, -margin if up else margin)
            p_value = horizon.p_value_one_sided(score if up else -score, exact[0].n + exact[1].n, None)
        else:
            better = effects.Direction.INCREASE if up else effects.Direction.DECREASE
            vector = self._vector(table, [comparison.variant, comparison.control], adjust=bool(self._covariates))
            p_value = effects.noninferiority(vector, 0, 1, margin, better, horizon).p_value
        passed = p_value < horizon.alpha
        effect = comparison.absolute
        worse = effect is not None and comparison.p_value is not None and comparison.p_value < horizon.alpha
        harmed = effect is not None and worse and not passed and (effect.estimate < 0) == up
        return NonInferiority(margin, p_value, passed, harmed)

    def _tuned_users(self, variant: str, segment: str | None) -> float | None:
        """Users planned for the two variants, in one segment an equal part of them: never a thing of the data."""
        design = self._design
        if design.method == "fixed" or design.planned_users is None:
            return None
        pair = [shares[variant] + shares[design.control] for shares in design.shares.values()]
        planned = design.planned_users * sum(pair) / len(pair) / (1 if segment is None else len(design.segments))
        return max(planned, 2.0)

    def _horizon(self, variant: str, segment: str | None) -> Horizon:
        users = self._tuned_users(variant, segment)
        alpha = self._design.alpha
        return Fixed(alpha) if users is None else Sequential.tuned(alpha, users)

    def _timeline(self) -> list[TimelinePoint]:
        days = sorted({cell.day for cell, part in self._cells.items() if cell.day is not None and part.n})
        if len(days) < 2:
            return []
        closed = timedelta(days=self._spec.delay_days + (self._spec.window_days or 0))
        points = []
        for day in days:
            table = self._moments(self._design.strata, until=day)
            for variant in self._design.treatments:
                comparison = self._compare(table, variant, None)
                if comparison.absolute is not None:
                    n = sum(row[v].n for row in table.values() for v in (variant, self._design.control))
                    points.append(TimelinePoint((day + closed).isoformat(), variant, n, comparison.absolute))
        return points


_NUMBERS = ("absolute", "relative", "se", "p_value", "p_adjusted", "significant", "probability_better", "expected_loss")


def _conversions(arm: Moments) -> Conversions:
    return Conversions(round(arm.mean[0] * arm.n), arm.n)


def _add(one: Sums, other: Sums) -> Sums:
    return one + other


def _interval(interval: effects.Interval) -> Interval:
    return Interval(interval.estimate, interval.lower, interval.upper)


def _method(design: Design) -> Method:
    return Method(
        name=design.method,
        alpha=design.alpha,
        correction=design.correction,
        planned_users=design.planned_users,
        stratified=design.stratified,
        interval="classical" if design.method == "fixed" else "asymptotic_confidence_sequence",
    )


def _adjust(metrics: Sequence[MetricReport], design: Design) -> list[MetricReport]:
    """Adjust the p values, family by family.

    Families: the primary metric's variants; all secondary metrics' variants; each metric's segments. So neither a
    further metric nor a further segment changes the answer to the main question. Guardrails stay as they are: they
    can only hold a variant back, and asking them all to pass needs no correction (Schultzberg et al. 2024).
    """
    families: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for m, metric in enumerate(metrics):
        for c, comparison in enumerate(metric.comparisons):
            if comparison.p_value is None:
                continue
            if comparison.segment is not None:
                family = ("segments", metric.metric)
            elif metric.role == Role.guardrail:
                family = (metric.metric, comparison.variant)
            else:
                family = ("all", metric.role)
            families.setdefault(family, []).append((m, c))
    changed = [list(metric.comparisons) for metric in metrics]
    for places in families.values():
        p_values = [changed[m][c].p_value or 0.0 for m, c in places]
        for (m, c), p in zip(places, _CORRECTIONS[design.correction](p_values), strict=True):
            changed[m][c] = structs.replace(changed[m][c], p_adjusted=p, significant=p < design.alpha)
    return [structs.replace(metric, comparisons=c) for metric, c in zip(metrics, changed, strict=True)]


_CORRECTIONS: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
    "holm": multiplicity.holm,
    "bh": multiplicity.benjamini_hochberg,
    "none": list,
}


def _sample_ratio(
    design: Design, users: Mapping[tuple[str | None, str], UserCounts]
) -> tuple[SampleRatio, list[SegmentSampleRatio]]:
    nobody = UserCounts(0, 0)
    counts = np.array([[users.get((s, v), nobody).assigned for v in design.variants] for s in design.strata])
    shares = np.array([[design.shares[s][v] for v in design.variants] for s in design.strata])
    observed = dict(zip(design.variants, counts.sum(axis=0).tolist(), strict=True))
    expected = dict(zip(design.variants, (counts.sum(axis=1) @ shares).tolist(), strict=True))
    if any(s not in design.shares or v not in design.variants for s, v in users):
        return SampleRatio(None, expected, observed, Problem.UNEXPECTED_USERS), []
    try:
        result = sample_ratio.srm(counts, shares)
    except StatError as error:
        return SampleRatio(None, expected, observed, error.code), []
    segments = []
    for segment, members in design.members.items():
        rows = [design.strata.index(stratum) for stratum in members]
        try:
            p_value = sample_ratio.srm(counts[rows], shares[rows]).overall.p_value
        except StatError:
            continue  # nobody there
        segments.append(SegmentSampleRatio(segment, p_value, _alarm(p_value, SRM_ALARM / len(design.members))))
    overall = result.overall.p_value
    return SampleRatio(overall, expected, observed, _alarm(overall, SRM_ALARM)), segments


def _alarm(p_value: float, level: float) -> Problem | None:
    return Problem.SAMPLE_RATIO_MISMATCH if p_value < level else None


def _ratio_findings(ratio: SampleRatio, segments: Sequence[SegmentSampleRatio]) -> Iterable[Finding]:
    users = sum(ratio.observed.values())
    if ratio.problem in (Problem.SAMPLE_RATIO_MISMATCH, Problem.UNEXPECTED_USERS):
        off = max(abs(ratio.observed[v] - ratio.expected[v]) for v in ratio.observed)
        yield Finding(HealthCode.sample_ratio_mismatch, round(off), users, fatal=True)
    for segment in segments:
        if segment.problem is not None:
            yield Finding(HealthCode.segment_sample_ratio_mismatch, 0, users, fatal=True, subject=segment.segment)


def _findings(design: Design, data: Data, primary: MetricReport) -> Iterable[Finding]:
    assigned = sum(counts.assigned for counts in data.users.values())
    exposed = sum(counts.exposed for counts in data.users.values())
    if assigned > exposed:
        fatal = assigned - exposed > CROSSOVER_ALARM * assigned
        yield Finding(HealthCode.crossovers, assigned - exposed, assigned, fatal=fatal)
    if exposed > primary.matured:
        yield Finding(HealthCode.immature_users, exposed - primary.matured, exposed, fatal=False)
    if data.forced:
        yield Finding(HealthCode.forced_users, data.forced, assigned + data.forced, fatal=False)
    if design.stratified:
        for segment in design.segments:
            arms = [arm.n for arm in primary.arms if arm.segment == segment]
            if sum(arms) > 0 and min(arms) < 2:
                yield Finding(HealthCode.thin_segment, sum(arms), primary.matured, fatal=False, subject=segment)
