"""Charts, declared in Vega-Lite and drawn in the browser; the rows drawn are the rows of the CSV download."""

from collections.abc import Callable, Mapping, Sequence

from experiments.report import MetricReport, Report
from web.charts.canvas import BETTER, UNCLEAR, WORSE, Chart, Rows, read_once, reading
from web.charts.courses import frequency, responding, slices, survival, timeline
from web.charts.forests import effects, factors, levels, segments
from web.charts.funnels import funnel
from web.charts.shares import waves
from web.formats import Formats

__all__ = [
    "BETTER",
    "NAMES",
    "UNCLEAR",
    "WORSE",
    "Chart",
    "columns",
    "csv_rows",
    "effects",
    "factors",
    "frequency",
    "funnel",
    "levels",
    "read_once",
    "reading",
    "responding",
    "segments",
    "slices",
    "survival",
    "timeline",
    "waves",
]


def _effects(report: Report, formats: Formats) -> Rows:
    return [row for metric in report.metrics for row in effects(report, metric, formats).rows]


def _funnels(report: Report, formats: Formats) -> Rows:
    return [row for metric in report.metrics if metric.funnel for row in funnel(report, metric).rows]


def _curves(report: Report, formats: Formats) -> Rows:
    return [row for metric in report.metrics if metric.survival for row in survival(report, metric).rows]


def _doses(report: Report, formats: Formats) -> Rows:
    return [row for metric in responding(report) for row in frequency(metric, formats).rows]


def _waves(report: Report, formats: Formats) -> Rows:
    return waves(report, report.adaptive, formats).rows if report.adaptive else []


def _of_the_main(make: Callable[[Report, MetricReport, Formats], Chart]) -> Callable[[Report, Formats], Rows]:
    return lambda report, formats: make(report, report.primary(), formats).rows


_ROWS: Mapping[str, Callable[[Report, Formats], Rows]] = {
    "effects": _effects,
    "segments": _of_the_main(segments),
    "timeline": _of_the_main(timeline),
    "slices": _of_the_main(slices),
    "factors": _of_the_main(factors),
    "frequency": _doses,
    "funnel": _funnels,
    "survival": _curves,
    "waves": _waves,
}
NAMES = tuple(_ROWS)


def csv_rows(report: Report, name: str, formats: Formats) -> Rows:
    """Return the rows that the charts of this name draw."""
    return _ROWS[name](report, formats)


def columns(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the columns of a chart's rows."""
    return list(rows[0]) if rows else ["metric"]
