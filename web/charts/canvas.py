"""What all charts share: their colours, their rows, their size, and the words on their axes.

Colour says better, worse or unclear (blue, orange, grey: no red and green, which mean opposite things to different
readers), and so does the shape, so that nothing hangs on colour alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from experiments.report import Comparison, Interval, MetricReport, Report
from web.formats import Formats
from web.languages import gettext

BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"
COLOURS: Mapping[str, str] = {BETTER: "#2f7de1", WORSE: "#e07b1f", UNCLEAR: "#8a94a3"}
SHAPES: Mapping[str, str] = {BETTER: "triangle-up", WORSE: "triangle-down", UNCLEAR: "diamond"}
ZERO = "#5b6675"
_LINES = ("#2f7de1", "#e07b1f", "#7a5cc7", "#1a9c9c", "#b0487a", "#7d8a2e")
_CONTROL = "#8a94a3"

Rows = list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: its name, its Vega-Lite specification, and the rows it draws."""

    name: str
    spec: dict[str, Any]
    rows: Rows


def reading(metric: MetricReport, comparison: Comparison) -> str:
    """Return whether a comparison is better, worse, or unclear."""
    if not comparison.significant or comparison.absolute is None:
        return UNCLEAR
    return side(metric, comparison.absolute)


def read_once(metric: MetricReport, interval: Interval) -> str:
    """Return the same for an interval that stands for itself: it is clear where it leaves out zero."""
    return UNCLEAR if interval.lower <= 0 <= interval.upper else side(metric, interval)


def side(metric: MetricReport, interval: Interval) -> str:
    """Return on which side an effect lies."""
    return BETTER if (interval.estimate > 0) == (metric.direction == "up") else WORSE


def scale(metric: MetricReport) -> int:
    """Return by what numbers are multiplied for an axis: shares are drawn in percent."""
    return 100 if metric.unit == "share" else 1


def scaled(interval: Interval, factor: int) -> dict[str, object]:
    """Return an interval as columns of a row."""
    return {
        "estimate": interval.estimate * factor,
        "lower": interval.lower * factor,
        "upper": interval.upper * factor,
    }


def texts(metric: MetricReport, interval: Interval, precision: float, formats: Formats) -> dict[str, object]:
    """Return an interval as the texts that a pointer shows."""
    estimate, lower, upper = formats.interval(metric.unit, interval, precision)
    return {"effect": estimate, "interval": gettext("%(lower)s to %(upper)s", lower=lower, upper=upper)}


def difference_title(report: Report, metric: MetricReport) -> str:
    """Return the title of an axis of differences."""
    control = names(report)[report.control]
    if metric.unit == "share":
        return gettext("Difference from %(control)s, percentage points", control=control)
    if metric.unit == "money" and metric.kind == "mean":
        return gettext("Difference from %(control)s, per user", control=control)
    if metric.unit == "days":
        return gettext("Difference from %(control)s, days", control=control)
    return gettext("Difference from %(control)s", control=control)


def daily_title(report: Report) -> str:
    """Return the title of an axis of differences a day."""
    return gettext("Difference from %(control)s, a day", control=names(report)[report.control])


def names(report: Report) -> Mapping[str, str]:
    """Return the variants' names by key."""
    return {arm.variant: arm.name for arm in report.arms}


def order_of(report: Report, *, control: bool) -> list[str]:
    """Return the names of the variants that are drawn, in the plan's order."""
    return [arm.name for arm in report.arms if control or arm.variant != report.control]


def colour_of(report: Report, *, control: bool, symbol: str = "stroke") -> alt.Color:
    """Return the colour of each variant's line, the control's, if it is drawn, grey; with a legend for several."""
    order, named = order_of(report, control=control), names(report)
    treatments = order_of(report, control=False)
    line = {name: _LINES[i % len(_LINES)] for i, name in enumerate(treatments)} | {named[report.control]: _CONTROL}
    legend = alt.Legend(
        title=None,
        orient="top",
        columns=6,
        labelLimit=150,
        symbolType=symbol,
        symbolStrokeWidth=3 if symbol == "stroke" else 0,
        symbolOpacity=1,
    )
    return alt.Color(
        "variant:N",
        sort=order,
        scale=alt.Scale(domain=order, range=[line[name] for name in order]),
        legend=legend if len(order) > 1 else None,
    )


def rows_of(name: str = "rows") -> Any:
    """Return a chart on a named set of rows, which ``sized`` adds: Altair would copy them for every layer."""
    return alt.Chart(alt.NamedData(name=name))


def zero_line(axis: str) -> Any:
    """Return the line of no effect, across the axis ``x`` or ``y``."""
    return alt.Chart(alt.NamedData(name="zero")).mark_rule(strokeWidth=1.5, color=ZERO).encode(**{axis: "zero:Q"})


def sized(chart: Any, height: int, rows: Rows, **others: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Return the specification, as wide as its place."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=False)
    spec["datasets"] = {"rows": rows, "zero": [{"zero": 0}], **others}
    return spec
