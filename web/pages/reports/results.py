"""What the results page shows: a report turned into texts, tables and charts, once, for the templates to lay out."""

from dataclasses import dataclass
from functools import lru_cache

from experiments.codes import Verdict
from experiments.report import MetricReport, Report, decode
from web import charts, sentences
from web.charts import Chart
from web.formats import Formats
from web.pages.reports import designs, details, tables, verdict
from web.pages.reports.health import Health, health
from web.pages.reports.method import Method, method
from web.pages.reports.parts import Part
from web.pages.reports.reach import Progress, Reach, progress, reach
from web.pages.reports.segments import Segments, segments
from web.pages.reports.tables import Table
from web.pages.reports.verdict import Guardrail, Headline


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric with its tables, its chart, and what else is known of it."""

    key: str
    name: str
    kind: str
    role: str
    is_guardrail: bool
    direction: str
    window_days: int | None
    overall: Table
    segments: list[Table]
    chart: Chart
    parts: list[Part]
    notes: list[str]
    open: bool


@dataclass(frozen=True, slots=True)
class Results:
    """Everything the page shows of one report. Without trust in the data there are no metrics, charts and sections."""

    headline: Headline
    trusted: bool
    reach: Reach
    progress: Progress | None
    matured: str
    planned: str
    guardrails: list[Guardrail]
    metrics: list[Metric]
    segments: Segments | None
    timeline_chart: Chart | None
    since: Part | None
    sections: list[Part]
    health: Health
    method: Method
    charts: list[tuple[str, str]]
    drawn: dict[str, Chart]


@lru_cache(maxsize=16)
def shown(body: bytes, formats: Formats) -> Results:
    """Return what the page shows of a saved report; kept, as several tabs show parts of it."""
    return results(decode(body), formats)


def results(report: Report, formats: Formats) -> Results:
    """Return what the page shows of a report."""
    trusted = report.decision.verdict != Verdict.invalid
    primary = report.primary()
    planned = report.method.planned_users
    metrics = [_metric(report, metric, formats) for metric in report.metrics] if trusted else []
    by_segment = segments(report, formats) if trusted else None
    course = charts.timeline(report, primary, formats) if trusted and _days(primary) > 1 else None
    since = details.slices(report, primary, formats) if trusted else None
    sections = designs.sections(report, formats) if trusted else []
    parts = [*([since] if since else []), *sections, *(part for metric in metrics for part in metric.parts)]
    single = [by_segment.chart if by_segment else None, course]
    pictures = [*(metric.chart for metric in metrics), *single, *(chart for part in parts for chart in part.charts)]
    drawn = {chart.name: chart for chart in pictures if chart is not None}
    kinds = {name.partition("-")[0] for name in drawn}
    return Results(
        headline=verdict.headline(report, formats),
        trusted=trusted,
        reach=reach(report, formats),
        progress=progress(report, formats),
        matured=formats.count(primary.matured),
        planned=formats.count(planned) if planned else "",
        guardrails=list(verdict.guardrails(report, formats)) if trusted else [],
        metrics=metrics,
        segments=by_segment,
        timeline_chart=course,
        since=since,
        sections=sections,
        health=health(report, formats),
        method=method(report, formats, trusted=trusted),
        charts=[(name, str(label)) for name, label in sentences.CHARTS.items() if name in kinds],
        drawn=drawn,
    )


def _days(metric: MetricReport) -> int:
    return len({point.day for point in metric.timeline})


def _metric(report: Report, metric: MetricReport, formats: Formats) -> Metric:
    return Metric(
        key=metric.metric,
        name=metric.name,
        kind=sentences.known(sentences.KINDS, metric.kind),
        role=sentences.known(sentences.ROLES, metric.role),
        is_guardrail=metric.role == "guardrail",
        direction=sentences.known(sentences.DIRECTIONS, metric.direction),
        window_days=metric.window_days,
        overall=tables.overall(report, metric, formats),
        segments=tables.by_segment(report, metric, formats),
        chart=charts.effects(report, metric, formats),
        parts=details.parts(report, metric, formats),
        notes=details.notes(report, metric, formats),
        open=metric.role == "primary",
    )
