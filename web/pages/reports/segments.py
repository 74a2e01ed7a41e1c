"""What the segments tell together: do they differ, and where is the gain clear?"""

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.report import Heterogeneity, MetricReport, Report
from web import charts, sentences
from web.charts import Chart
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports.parts import p_is
from web.pages.reports.verdict import names


@dataclass(frozen=True, slots=True)
class Line:
    """What is said of one variant."""

    variant: str
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class Segments:
    """The main metric by segment: ``shrunk`` whether the others were taken into account."""

    chart: Chart
    lines: list[Line]
    shrunk: bool


def segments(report: Report, formats: Formats) -> Segments | None:
    """Return what is said and drawn of the segments; None where there are none."""
    if not report.segments:
        return None
    metric = report.primary()
    lines = [
        Line(
            name,
            [
                *(_difference(report, metric, t, formats) for t in metric.heterogeneity if t.variant == variant),
                *_clear(report, metric, variant, formats),
            ],
        )
        for variant, name in names(report).items()
    ]
    shrunk = any(c.shrunk is not None for c in metric.comparisons)
    return Segments(charts.segments(report, metric, formats), [line for line in lines if line.sentences], shrunk)


def _difference(report: Report, metric: MetricReport, test: Heterogeneity, formats: Formats) -> str:
    if test.p_value is None:
        reason = sentences.known(sentences.PROBLEMS, test.problem) if test.problem else ""
        return gettext("Whether the segments differ cannot be told: %(reason)s", reason=reason)
    p = p_is(test.p_value, formats)
    if test.p_value >= report.method.alpha:
        return gettext("No evidence that the segments differ (%(p)s).", p=p)
    spread = formats.change(metric.unit, test.tau or 0.0, precision(metric)).lstrip("+")
    return gettext(
        "The segments differ (%(p)s); the effect varies by about ±%(spread)s between them.", p=p, spread=spread
    )


def _clear(report: Report, metric: MetricReport, variant: str, formats: Formats) -> Iterator[str]:
    found: dict[str, list[str]] = {charts.BETTER: [], charts.WORSE: [], charts.UNCLEAR: []}
    for c in metric.comparisons:
        if c.segment is not None and c.variant == variant:
            found[charts.reading(metric, c)].append(report.segments[c.segment])
    if found[charts.BETTER]:
        yield gettext("Clear gains in: %(segments)s.", segments=formats.names(found[charts.BETTER]))
    if found[charts.WORSE]:
        yield gettext("Clear losses in: %(segments)s.", segments=formats.names(found[charts.WORSE]))
