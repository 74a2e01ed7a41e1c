"""Charts, declared with Altair and drawn in the browser; the rows drawn are the rows of the CSV download.

Colour says better, worse or unclear (blue, orange, grey: no red and green, which mean opposite things to different
readers), and so does the shape, so that nothing hangs on colour alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from experiments.report import Comparison, Interval, MetricReport, Report
from web.formats import Formats, precision
from web.languages import gettext

BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"
COLOURS: Mapping[str, str] = {BETTER: "#2f7de1", WORSE: "#e07b1f", UNCLEAR: "#8a94a3"}
SHAPES: Mapping[str, str] = {BETTER: "triangle-up", WORSE: "triangle-down", UNCLEAR: "diamond"}
_LINES = ("#2f7de1", "#e07b1f", "#7a5cc7", "#1a9c9c", "#b0487a", "#7d8a2e")
_ROW = 34
_LABELS = 130

NAMES = ("effects", "segments", "timeline")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: its name, its Vega-Lite specification, and the rows it draws."""

    name: str
    spec: dict[str, Any]
    rows: list[dict[str, object]]


def reading(metric: MetricReport, comparison: Comparison) -> str:
    """Return whether a comparison is better, worse, or unclear."""
    if not comparison.significant or comparison.absolute is None:
        return UNCLEAR
    return BETTER if (comparison.absolute.estimate > 0) == (metric.direction == "up") else WORSE


def effects(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """Each variant's effect on one metric, over all users; for a guardrail with the zone it must stay out of."""
    drawn = [c for c in metric.comparisons if c.segment is None and c.absolute is not None]
    names = {arm.variant: arm.name for arm in report.arms}
    rows = [_row(metric, c, names[c.variant], None, formats) for c in drawn]
    margin = next((c.noninferiority.margin for c in drawn if c.noninferiority is not None), None)
    spec = _intervals(rows, metric, "variant", _axis_title(report, metric), formats, margin)
    return Chart(f"effects-{metric.metric}", spec, rows)


def segments(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """Each variant's effect on one metric in each segment."""
    names = {arm.variant: arm.name for arm in report.arms}
    rows = [
        _row(metric, c, names[c.variant], report.segments.get(c.segment, c.segment), formats)
        for segment in report.segments
        for c in metric.comparisons
        if c.segment == segment and c.absolute is not None
    ]
    spec = _intervals(rows, metric, "segment", _axis_title(report, metric), formats, None)
    return Chart("segments", spec, rows)


def timeline(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """The effect on one metric as the days went by, each day with the users matured until then."""
    names = {arm.variant: arm.name for arm in report.arms}
    scale = 100 if metric.unit == "share" else 1
    rows: list[dict[str, object]] = []
    for point in metric.timeline:
        estimate, lower, upper = formats.interval(metric.unit, point.absolute, precision(metric))
        rows.append(
            {
                "day": point.day,
                "variant": names[point.variant],
                "users": point.n,
                **_scaled(point.absolute, scale),
                "effect": estimate,
                "interval": gettext("%(lower)s to %(upper)s", lower=lower, upper=upper),
            }
        )
    order = [arm.name for arm in report.arms if arm.variant != report.control]
    colour = alt.Color(
        "variant:N",
        sort=order,
        scale=alt.Scale(domain=order, range=[_LINES[i % len(_LINES)] for i in range(len(order))]),
        legend=alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1)
        if len(order) > 1
        else None,
    )
    base = alt.Chart(_data(rows)).encode(
        x=alt.X(
            "day:T",
            title=gettext("Day on which the observation window closed"),
            axis=alt.Axis(format="%m-%d", labelOverlap=True, grid=False, tickCount=6),
        )
    )
    value = alt.Y("estimate:Q", title=_axis_title(report, metric))
    band = base.mark_area(opacity=0.16).encode(
        y=alt.Y("lower:Q", title=_axis_title(report, metric)), y2="upper:Q", color=colour
    )
    line = base.mark_line(strokeWidth=2.5).encode(
        y=value, color=colour, strokeDash=alt.StrokeDash("variant:N", sort=order, legend=None)
    )
    dots = base.mark_point(filled=True, size=28).encode(
        y=value,
        color=colour,
        tooltip=[
            alt.Tooltip("day:N", title=gettext("Day")),
            alt.Tooltip("variant:N", title=gettext("Variant")),
            alt.Tooltip("effect:N", title=gettext("Change")),
            alt.Tooltip("interval:N", title=gettext("Interval")),
            alt.Tooltip("users:Q", title=gettext("Users"), format=","),
        ],
    )
    zero = alt.Chart(_data([{"zero": 0}])).mark_rule(strokeWidth=1.5, color="#5b6675").encode(y="zero:Q")
    return Chart("timeline", _sized(alt.layer(zero, band, line, dots), 260), rows)


def csv_rows(report: Report, name: str, formats: Formats) -> list[dict[str, object]]:
    """Return the rows that a chart of this name draws."""
    if name == "effects":
        return [row for metric in report.metrics for row in effects(report, metric, formats).rows]
    make = segments if name == "segments" else timeline
    return make(report, report.primary(), formats).rows


def columns(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the columns of a chart's rows."""
    return list(rows[0]) if rows else ["metric"]


def _row(
    metric: MetricReport, comparison: Comparison, variant: str, segment: str | None, formats: Formats
) -> dict[str, object]:
    absolute = comparison.absolute
    assert absolute is not None  # callers draw only what has an effect
    scale = 100 if metric.unit == "share" else 1
    estimate, lower, upper = formats.interval(metric.unit, absolute, precision(metric))
    row: dict[str, object] = {"metric": metric.name, "variant": variant}
    if segment is not None:
        row["segment"] = segment
    return {
        **row,
        **_scaled(absolute, scale),
        "effect": estimate,
        "interval": gettext("%(lower)s to %(upper)s", lower=lower, upper=upper),
        "reading": reading(metric, comparison),
    }


def _scaled(interval: Interval, scale: int) -> dict[str, object]:
    return {
        "estimate": interval.estimate * scale,
        "lower": interval.lower * scale,
        "upper": interval.upper * scale,
    }


def _axis_title(report: Report, metric: MetricReport) -> str:
    control = next(arm.name for arm in report.arms if arm.variant == report.control)
    if metric.unit == "share":
        return gettext("Difference from %(control)s, percentage points", control=control)
    if metric.unit == "money" and metric.kind == "mean":
        return gettext("Difference from %(control)s, per user", control=control)
    return gettext("Difference from %(control)s", control=control)


def _intervals(
    rows: list[dict[str, object]],
    metric: MetricReport,
    label: str,
    title: str,
    formats: Formats,
    margin: float | None,
) -> dict[str, Any]:
    """Intervals with their estimates, one row each, around a zero line; with a zone beyond a guardrail's margin."""
    several = label == "segment" and len({row["variant"] for row in rows}) > 1
    scale = 100 if metric.unit == "share" else 1
    limit = None if margin is None else (-margin if metric.direction == "up" else margin) * scale
    ends = [float(str(row[end])) for row in rows for end in ("lower", "upper")] + [0.0]
    ends += [] if limit is None else [limit * 1.25]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.06 or 1.0
    # Names of variants stand behind the bars.
    domain = [low - pad, high + pad * (4 if several else 1)]
    axis = alt.Axis(tickCount=8)
    x = alt.X("estimate:Q", title=title, axis=axis, scale=alt.Scale(domain=domain, nice=False, zero=False))
    y = alt.Y(
        f"{label}:N",
        sort=None,
        title=None,
        axis=alt.Axis(
            minExtent=_LABELS, maxExtent=_LABELS, labelLimit=_LABELS - 8, ticks=False, domain=False, labelPadding=8
        ),
    )
    codes = [BETTER, WORSE, UNCLEAR]
    colour = alt.Color("reading:N", scale=alt.Scale(domain=codes, range=[COLOURS[code] for code in codes]), legend=None)
    shape = alt.Shape("reading:N", scale=alt.Scale(domain=codes, range=[SHAPES[code] for code in codes]), legend=None)
    tooltip = [
        *([alt.Tooltip("segment:N", title=gettext("Segment"))] if label == "segment" else []),
        alt.Tooltip("variant:N", title=gettext("Variant")),
        alt.Tooltip("effect:N", title=gettext("Change")),
        alt.Tooltip("interval:N", title=gettext("Interval")),
    ]
    base = alt.Chart(_data(rows)).encode(y=y)
    if several:
        base = base.encode(yOffset=alt.YOffset("variant:N", sort=None))
    layers: list[Any] = []
    if limit is not None:
        side = {"limit": limit, "end": domain[0] if limit < 0 else domain[1]}
        zone = alt.Chart(_data([side]))
        layers.append(
            zone.mark_rect(color=COLOURS[WORSE], opacity=0.14).encode(x=alt.X("limit:Q", title=title), x2="end:Q")
        )
        layers.append(zone.mark_rule(color=COLOURS[WORSE], strokeDash=[5, 4], strokeWidth=1.5).encode(x="limit:Q"))
    layers += [
        alt.Chart(_data([{"zero": 0}])).mark_rule(strokeWidth=1.5, color="#5b6675").encode(x="zero:Q"),
        base.mark_rule(strokeWidth=5, strokeCap="round", opacity=0.55)
        .encode(x=x, x2="upper:Q")
        .encode(
            x=alt.X("lower:Q", title=title, scale=alt.Scale(domain=domain, nice=False, zero=False)),
            color=colour,
            tooltip=tooltip,
        ),
        base.mark_point(filled=True, size=110, opacity=1).encode(x=x, color=colour, shape=shape, tooltip=tooltip),
    ]
    if several:
        layers.append(
            base.mark_text(align="left", dx=9, dy=-1, fontSize=11).encode(
                x=alt.X("upper:Q", title=title), text="variant:N"
            )
        )
    lines = len({row[label] for row in rows})
    variants = len({row["variant"] for row in rows}) if several else 1
    return _sized(alt.layer(*layers), max(lines, 1) * (_ROW if not several else 14 + 22 * variants))


def _data(rows: Sequence[Mapping[str, object]]) -> Any:
    return alt.InlineData(values=rows)


def _sized(chart: Any, height: int) -> dict[str, Any]:
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=False)
    return spec
