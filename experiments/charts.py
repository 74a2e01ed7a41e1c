"""Charts of a report for notebooks and pages in a file: plain Altair, in English.

Colour says better, worse or unclear (blue, orange, grey: no red and green, which mean opposite things to different
readers), and so does the shape, so that nothing hangs on colour alone.
"""

from collections.abc import Iterator
from typing import Any

import altair as alt

from experiments import wording
from experiments.report import MetricReport, Report

_CODES = ("better", "worse", "unclear")
_COLOURS = ("#2f7de1", "#e07b1f", "#8a94a3")
_SHAPES = ("triangle-up", "triangle-down", "diamond")
_WIDTH = 560
_ROW = 26


def forest(report: Report, metric: MetricReport) -> Any:
    """Every effect of one metric with its interval, over all users and in each segment."""
    factor = 100 if metric.unit == "share" else 1
    named = wording.names(report)
    rows = []
    for c in metric.comparisons:
        if c.absolute is None:
            continue
        clear = c.significant
        better = (c.absolute.estimate > 0) == (metric.direction == "up")
        segment = "everyone" if c.segment is None else report.segments[c.segment]
        rows.append(
            {
                "effect": f"{named[c.variant]} · {segment}" if report.segments else named[c.variant],
                "estimate": c.absolute.estimate * factor,
                "lower": c.absolute.lower * factor,
                "upper": c.absolute.upper * factor,
                "reading": ("better" if better else "worse") if clear else "unclear",
                "text": wording.Numbers.of(metric).interval(c.absolute),
            }
        )
    unit = {"share": ", percentage points", "days": ", days"}.get(metric.unit, "")
    base = alt.Chart({"values": rows}).encode(
        y=alt.Y("effect:N", sort=None, title=None, axis=alt.Axis(labelLimit=280, ticks=False, domain=False)),
        color=alt.Color("reading:N", scale=alt.Scale(domain=_CODES, range=_COLOURS), legend=None),
        tooltip=[alt.Tooltip("effect:N"), alt.Tooltip("text:N", title="difference"), alt.Tooltip("reading:N")],
    )
    title = f"difference from {named[report.control]}{unit}"
    interval = base.mark_rule(strokeWidth=4, opacity=0.55).encode(x=alt.X("lower:Q", title=title), x2="upper:Q")
    shape = alt.Shape("reading:N", scale=alt.Scale(domain=_CODES, range=_SHAPES), legend=None)
    point = base.mark_point(filled=True, size=90, opacity=1).encode(x="estimate:Q", shape=shape)
    zero = alt.Chart({"values": [{"zero": 0}]}).mark_rule(color="#5b6675").encode(x="zero:Q")
    return alt.layer(zero, interval, point).properties(width=_WIDTH, height=_ROW * max(len(rows), 1))


def survival(report: Report, metric: MetricReport) -> Any:
    """The share of users without the event, by days."""
    named = wording.names(report)
    rows = [
        {"variant": named[curve.variant], "days": days, "share": share}
        for curve in metric.survival
        for days, share in zip([0.0, *curve.days], [1.0, *curve.share], strict=True)
    ]
    line = alt.Chart({"values": rows}).mark_line(interpolate="step-after")
    return line.encode(
        x=alt.X("days:Q", title="days"),
        y=alt.Y("share:Q", title="without the event", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)),
        color=alt.Color("variant:N", title=None, sort=list(named.values())),
    ).properties(width=_WIDTH, height=220)


def response(metric: MetricReport) -> Any:
    """How the metric responds to the dose, with a band for all doses together."""
    points = metric.frequency.curve if metric.frequency else []
    rows = [
        {"dose": point.dose, "estimate": point.estimate, "lower": point.lower, "upper": point.upper} for point in points
    ]
    percent = alt.Axis(format="%") if metric.unit == "share" else alt.Axis()
    y = alt.Y("estimate:Q", title=metric.name, axis=percent, scale=alt.Scale(zero=False))
    base = alt.Chart({"values": rows}).encode(x=alt.X("dose:Q", title="dose"))
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("lower:Q", title=metric.name, axis=percent), y2="upper:Q")
    return alt.layer(band, base.mark_line(point=True).encode(y=y)).properties(width=_WIDTH, height=220)


def of(report: Report, metric: MetricReport) -> Iterator[tuple[str, Any]]:
    """Yield each chart that one metric has, with what it shows."""
    if any(c.absolute is not None for c in metric.comparisons):
        yield f"Effects on {metric.name}", forest(report, metric)
    if any(curve.days for curve in metric.survival):
        yield f"{metric.name}: share of users without the event", survival(report, metric)
    if metric.frequency is not None:
        yield f"{metric.name} by dose", response(metric)
