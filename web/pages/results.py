"""What the results page shows: a report turned into texts, tables and charts, once, for the template to lay out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.report import Comparison, Finding, MetricReport, Report, Verdict
from web import charts, sentences
from web.charts import Chart
from web.formats import Formats, precision
from web.pages import verdict
from web.pages.verdict import Guardrail, Headline


@dataclass(frozen=True, slots=True)
class Arm:
    """How many users a variant reached, and how that compares with the plan."""

    name: str
    control: bool
    assigned: str
    exposed: str
    matured: str
    planned_share: str
    actual_share: str


@dataclass(frozen=True, slots=True)
class Cell:
    """An effect as text: the estimate, and its limits."""

    estimate: str
    lower: str
    upper: str


@dataclass(frozen=True, slots=True)
class Row:
    """A comparison in a table; where there is no number, ``problem`` says why."""

    variant: str
    level: str
    users: str
    absolute: Cell | None
    relative: Cell | None
    relative_problem: str
    p_value: str
    p_adjusted: str
    probability_better: str
    expected_loss: str
    reading: str
    problem: str


@dataclass(frozen=True, slots=True)
class Table:
    """One metric over all users, or in one segment: the control's own value, and a row for each variant."""

    title: str
    control: str
    control_level: str
    control_users: str
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its tables and its chart."""

    key: str
    name: str
    role: str
    is_guardrail: bool
    direction: str
    window_days: int | None
    overall: Table
    segments: list[Table]
    chart: Chart


@dataclass(frozen=True, slots=True)
class Health:
    """One finding: what, what to do, and whether it makes the report invalid."""

    sentence: str
    advice: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Check:
    """A test statistic to compare with another program's."""

    metric: str
    variant: str
    statistic: str
    value: str
    df: str
    p_value: str
    adjustment: str
    variance_reduction: str


@dataclass(frozen=True, slots=True)
class Results:
    """Everything the page shows of one report. Without trust in the data, ``metrics`` and the charts are empty."""

    headline: Headline
    trusted: bool
    arms: list[Arm]
    progress: float | None
    matured: str
    planned: str
    guardrails: list[Guardrail]
    metrics: list[Metric]
    segments_chart: Chart | None
    timeline_chart: Chart | None
    health: list[Health]
    split_ok: bool
    split_p: str
    segment_splits: list[tuple[str, str, bool]]
    method: str
    interval: str
    correction: str
    confidence: str
    checks: list[Check]


def results(report: Report, formats: Formats) -> Results:
    """Return what the page shows of a report."""
    trusted = report.decision.verdict != Verdict.invalid
    primary = report.primary()
    planned = report.method.planned_users
    return Results(
        headline=verdict.headline(report, formats),
        trusted=trusted,
        arms=_arms(report, formats),
        progress=min(primary.matured / planned, 1.0) if planned else None,
        matured=formats.count(primary.matured),
        planned=formats.count(planned) if planned else "",
        guardrails=list(verdict.guardrails(report, formats)) if trusted else [],
        metrics=[_metric(report, metric, formats) for metric in report.metrics] if trusted else [],
        segments_chart=charts.segments(report, primary, formats) if trusted and report.segments else None,
        timeline_chart=charts.timeline(report, primary, formats) if trusted and _days(primary) > 1 else None,
        health=[_health(report, finding, formats) for finding in report.health],
        split_ok=report.srm.problem is None,
        split_p=formats.p_value(report.srm.p_value) if report.srm.p_value is not None else "",
        segment_splits=[
            (
                report.segments.get(part.segment, part.segment),
                formats.p_value(part.p_value) if part.p_value is not None else "",
                part.problem is None,
            )
            for part in report.segment_srm
        ],
        method=sentences.known(sentences.METHODS, report.method.name),
        interval=sentences.known(sentences.INTERVALS, report.method.interval),
        correction=sentences.known(sentences.CORRECTIONS, report.method.correction),
        confidence=formats.percent(1 - report.method.alpha),
        checks=list(_checks(report, formats)) if trusted else [],
    )


def _days(metric: MetricReport) -> int:
    return len({point.day for point in metric.timeline})


def _arms(report: Report, formats: Formats) -> list[Arm]:
    observed, expected = report.srm.observed, report.srm.expected
    total, planned = sum(observed.values()), sum(expected.values())
    return [
        Arm(
            arm.name,
            arm.variant == report.control,
            formats.count(arm.assigned),
            formats.count(arm.exposed),
            formats.count(arm.matured),
            formats.share(expected[arm.variant] / planned) if planned else "",
            formats.share(observed[arm.variant] / total) if total else "",
        )
        for arm in report.arms
    ]


def _metric(report: Report, metric: MetricReport, formats: Formats) -> Metric:
    named = verdict.names(report)
    return Metric(
        key=metric.metric,
        name=metric.name,
        role=sentences.known(sentences.ROLES, metric.role),
        is_guardrail=metric.role == "guardrail",
        direction=sentences.known(sentences.DIRECTIONS, metric.direction),
        window_days=metric.window_days,
        overall=_table(metric, None, "", report.control, named, formats),
        segments=[_table(metric, key, name, report.control, named, formats) for key, name in report.segments.items()],
        chart=charts.effects(report, metric, formats),
    )


def _table(
    metric: MetricReport,
    segment: str | None,
    title: str,
    control: str,
    named: Mapping[str, str],
    formats: Formats,
) -> Table:
    arms = {arm.variant: arm for arm in metric.arms if arm.segment == segment}

    def level(variant: str) -> str:
        arm = arms.get(variant)
        return "" if arm is None or arm.mean is None else formats.level(metric.unit, arm.mean, arm.se)

    def users(variant: str) -> str:
        return formats.count(arms[variant].n) if variant in arms else ""

    rows = [
        _row(metric, c, named[c.variant], level(c.variant), users(c.variant), formats)
        for c in metric.comparisons
        if c.segment == segment
    ]
    return Table(title, named[control], level(control), users(control), rows)


def _row(metric: MetricReport, c: Comparison, variant: str, level: str, users: str, formats: Formats) -> Row:
    return Row(
        variant=variant,
        level=level,
        users=users,
        absolute=Cell(*formats.interval(metric.unit, c.absolute, precision(metric))) if c.absolute else None,
        relative=Cell(*formats.relative(c.relative)) if c.relative else None,
        relative_problem=sentences.known(sentences.PROBLEMS, c.relative_problem) if c.relative_problem else "",
        p_value=formats.p_value(c.p_value) if c.p_value is not None else "",
        p_adjusted=formats.p_value(c.p_adjusted) if c.p_adjusted is not None else "",
        probability_better=formats.chance(c.probability_better) if c.probability_better is not None else "",
        expected_loss=_loss(metric, c, formats),
        reading=charts.reading(metric, c),
        problem=sentences.known(sentences.PROBLEMS, c.problem) if c.problem else "",
    )


def _loss(metric: MetricReport, c: Comparison, formats: Formats) -> str:
    """The loss to expect if the variant is taken and is worse, as a change for the worse."""
    if c.expected_loss is None:
        return ""
    sign = -1 if metric.direction == "up" else 1
    return formats.change(metric.unit, sign * c.expected_loss, precision(metric))


def _health(report: Report, finding: Finding, formats: Formats) -> Health:
    segment = report.segments.get(finding.subject or "", finding.subject)
    return Health(*sentences.health(finding.code, finding.count, finding.of, segment, formats), finding.fatal)


def _checks(report: Report, formats: Formats) -> Sequence[Check]:
    named = verdict.names(report)
    return [
        Check(
            metric.name,
            named[c.variant],
            sentences.known(sentences.STATISTICS, c.statistic.name),
            formats.plain(c.statistic.value),
            formats.plain(c.statistic.df, 6) if c.statistic.df is not None else "",
            formats.p_value(c.statistic.p_value),
            sentences.known(sentences.ADJUSTMENTS, metric.adjustment),
            formats.share(c.variance_reduction) if c.variance_reduction is not None else "",
        )
        for metric in report.metrics
        for c in metric.comparisons
        if c.segment is None and c.statistic is not None
    ]
