"""The report of one experiment, from its design and its sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from msgspec import structs

from experiments import decision
from experiments.analysis import details, families, health, looks, reached, waves
from experiments.analysis.comparisons import Analyst, Compared
from experiments.analysis.looks import Reading
from experiments.analysis.vectors import Measurement
from experiments.codes import HealthCode
from experiments.design import Design, MetricSpec
from experiments.fields import Role
from experiments.report import (
    ArmCount,
    Comparison,
    Finding,
    Heterogeneity,
    Interval,
    Method,
    MetricReport,
    Report,
    TimelinePoint,
)
from experiments.sums import Measured, UserCounts


@dataclass(frozen=True, slots=True)
class Data:
    """What was measured: users of each (stratum, variant), and each metric's sums; the rest as in ``Aggregates``."""

    users: Mapping[tuple[str | None, str], UserCounts]
    forced: int
    metrics: Sequence[tuple[MetricSpec, Measured]]
    days: Mapping[date, Mapping[tuple[str | None, str], int]] = field(default_factory=dict)
    slices: Measured | None = None
    bounds: tuple[int, ...] = ()
    placebo: Measured | None = None
    placebo_bounds: tuple[int, ...] = ()
    received: Measured | None = None
    triggered: Measured | None = None
    merged: int = 0


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
    reading = _reading(design, data, as_of)
    analysts = [
        Analyst(Measurement(design, *metric, _until(data, reading, metric[0])), reading) for metric in data.metrics
    ]
    drafts = [_draft(analyst) for analyst in analysts]
    adjusted = families.adjust(
        [(draft.analyst.spec.role, draft.compared) for draft in drafts], design.correction, design.alpha
    )
    metrics = [_metric(draft, part, exposed) for draft, part in zip(drafts, adjusted, strict=True)]
    if data.slices is not None:
        after, before = details.sliced(analysts[0], data.slices), details.sliced(analysts[0], data.placebo)
        metrics[0] = structs.replace(
            metrics[0],
            slices=details.slices(analysts[0], after, data.bounds),
            placebo=details.slices(analysts[0], before, data.placebo_bounds),
            novelty=details.novelty(analysts[0], after, data.bounds),
        )
    primary = metrics[0]
    # Both are differences of means, which a quantile is not.
    averages = primary.kind != "quantile"
    complying = list(reached.compliers(analysts[0], data.received)) if averages and data.received is not None else []
    triggers = list(reached.triggered(analysts[0], data.triggered)) if averages and data.triggered is not None else []
    split = health.split(design, data.users, data.days)
    parts = [
        health.before([analyst.measurement for analyst in analysts]),
        health.novelty(primary),
        health.single_users(metrics),
        health.reach(triggers, received=data.received is not None, ghosts=design.ghosts),
    ]
    findings = [*split.findings, *health.counts(design, data.users, primary, forced=data.forced, merged=data.merged)]
    findings += [finding for found, _ in parts for finding in found]
    findings += [
        Finding(HealthCode.effect_drifted, draft.users, draft.users, fatal=False, subject=variant)
        for draft in drafts[:1]
        for variant in draft.drifted
    ]
    by_key = {analyst.spec.key: analyst for analyst in analysts}
    matured = {arm.variant: arm.n for arm in primary.arms if arm.segment is None}

    def effect_on(metric: str, variant: str, segments: Sequence[str]) -> Interval | None:
        return by_key[metric].effect_in(variant, segments)

    def corrected(variant: str) -> Interval | None:
        return details.corrected(analysts[0], variant)

    return Report(
        experiment=design.experiment,
        name=design.name,
        revision=design.revision,
        phase=design.phase,
        as_of=as_of.isoformat(),
        watermark=watermark,
        metric_revisions={spec.key: spec.revision for spec, _ in data.metrics},
        method=_method(design, reading),
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
        srm=split.overall,
        segment_srm=split.segments,
        health=findings,
        metrics=metrics,
        decision=decision.advise(design, metrics, findings, reading.looks, effect_on, corrected),
        checks=[*split.checks, *(check for _, checks in parts for check in checks)],
        compliers=complying,
        triggered=triggers,
        adaptive=waves.told(analysts[0], primary, data.users),
    )


def _reading(design: Design, data: Data, as_of: datetime) -> Reading:
    if design.method != "group_sequential":
        return Reading([])
    return looks.read(design, Measurement(design, *data.metrics[0]), as_of.date())


def _until(data: Data, reading: Reading, spec: MetricSpec) -> date | None:
    return reading.until_for(data.metrics[0][0].horizon_days, spec.horizon_days)


@dataclass(frozen=True, slots=True)
class _Draft:
    """What was compared, before the families are known."""

    analyst: Analyst
    compared: list[Compared]
    pairs: int
    timeline: list[TimelinePoint]
    drifted: list[str]
    users: int


def _draft(analyst: Analyst) -> _Draft:
    design = analyst.design
    compared = [
        analyst.compare(scope, variant, design.control) for scope in analyst.scopes for variant in design.treatments
    ]
    pairs = [
        analyst.compare(analyst.everyone, variant, other)
        for variant, other in design.compared
        if other != design.control
    ]
    timeline = analyst.timeline() if analyst.spec.role is Role.primary else []
    drifted = []
    if design.method == "sequential" and timeline:
        for place, variant in enumerate(design.treatments):
            narrowed = _narrowed(compared[place], [day for point, day in timeline if point.variant == variant])
            if narrowed is None:
                drifted.append(variant)
            else:
                compared[place] = narrowed
    users = sum(part.n for row in analyst.everyone.rows for part in row.values())
    return _Draft(analyst, [*compared, *pairs], len(pairs), [point for point, _ in timeline], drifted, users)


def _narrowed(now: Compared, days: Sequence[Compared]) -> Compared | None:
    """A confidence sequence only narrows: what was excluded once stays so. None where the past excludes the present."""
    comparison, past = now.comparison, [day.comparison for day in days]
    at = now.at
    if comparison.absolute is None or at is None or not past:
        return now
    absolute = _intersection(comparison.absolute, [c.absolute for c in past])
    if absolute is None:
        return None
    relative = comparison.relative
    if relative is not None:
        relative = _intersection(relative, [c.relative for c in past]) or relative
    p_value = min(p for p in (comparison.p_value, *(c.p_value for c in past)) if p is not None)

    def narrowed_at(alpha: float) -> Interval:
        today = at(alpha)
        return _intersection(today, [day.at(alpha) for day in days if day.at is not None]) or today

    changed = structs.replace(comparison, absolute=absolute, relative=relative, p_value=p_value)
    return Compared(changed, narrowed_at)


def _intersection(now: Interval, past: Sequence[Interval | None]) -> Interval | None:
    known = [now, *(interval for interval in past if interval is not None)]
    lower, upper = max(i.lower for i in known), min(i.upper for i in known)
    return Interval(now.estimate, lower, upper) if lower <= now.estimate <= upper else None


def _metric(draft: _Draft, comparisons: Sequence[Comparison], exposed: int) -> MetricReport:
    analyst, spec, design = draft.analyst, draft.analyst.spec, draft.analyst.design
    measurement = analyst.measurement
    count = len(comparisons) - draft.pairs
    against_control, pairs = list(comparisons[:count]), list(comparisons[count:])
    tests: list[Heterogeneity] = []
    if design.dimensions:
        effects = {(c.segment, c.variant): c for c in against_control if c.absolute is not None}
        tests, shrunk = details.heterogeneity(analyst, effects)
        against_control = [
            structs.replace(c, shrunk=shrunk[c.segment, c.variant])
            if c.segment is not None and (c.segment, c.variant) in shrunk
            else c
            for c in against_control
        ]
    matured = sum(part.n for row in analyst.everyone.rows for part in row.values())
    # A curve is of all users of a variant together, which waves forbid.
    survives = measurement.measured.lifetimes is not None and analyst.readable and design.adapting is None
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
        adjustment="cuped" if measurement.covariates else "none",
        arms=[mean for scope in analyst.scopes for mean in analyst.arm_means(scope)],
        comparisons=against_control,
        timeline=draft.timeline,
        pairs=pairs,
        heterogeneity=tests,
        funnel=list(details.funnel(analyst)) if spec.kind == "funnel" else [],
        survival=list(details.curves(analyst)) if survives else [],
        logrank=details.logrank(analyst) if measurement.watches_everyone else None,
        capping=list(details.capping(analyst)),
        influence=list(details.influence(analyst)),
        choices=details.choices(analyst) if spec.role is Role.primary else [],
        frequency=details.frequency(analyst),
        factorial=details.factors(analyst),
    )


def _method(design: Design, reading: Reading) -> Method:
    return Method(
        name=design.method,
        alpha=design.alpha,
        correction=design.correction,
        planned_users=design.planned_users,
        stratified=design.stratified,
        interval=_INTERVALS[design.method],
        comparisons="all_pairs" if design.pairs else "control",
        looks=reading.looks,
        spending=None if design.spending is None else design.spending.name,
        prior=None if design.prior is None else [design.prior.mean, design.prior.sd],
    )


_INTERVALS: Mapping[str, Literal["classical", "asymptotic_confidence_sequence", "repeated", "credible"]] = {
    "fixed": "classical",
    "sequential": "asymptotic_confidence_sequence",
    "group_sequential": "repeated",
    "bayes": "credible",
}
