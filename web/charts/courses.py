"""Effects and shares as they develop: over the days of an experiment, since exposure, with the frequency of touches."""

from typing import Any

import altair as alt

from experiments.report import Interval, MetricReport, Report
from web.charts.canvas import (
    COLOURS,
    UNCLEAR,
    WORSE,
    Chart,
    Rows,
    colour_of,
    daily_title,
    difference_title,
    names,
    order_of,
    rows_of,
    scale,
    scaled,
    sized,
    texts,
    zero_line,
)
from web.formats import Formats, known_to, precision
from web.languages import gettext

_DOSE = "#2f7de1"


def timeline(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """The effect on one metric as the days went by, each day with the users matured until then."""
    named = names(report)
    rows: Rows = [
        {
            "day": point.day,
            "variant": named[point.variant],
            "users": point.n,
            **scaled(point.absolute, scale(metric)),
            **texts(metric, point.absolute, precision(metric), formats),
        }
        for point in metric.timeline
    ]
    colour = colour_of(report, control=False)
    base = rows_of().encode(
        x=alt.X(
            "day:T",
            title=gettext("Day on which the observation window closed"),
            axis=alt.Axis(format="%m-%d", labelOverlap=True, grid=False, tickCount=6),
        )
    )
    title = difference_title(report, metric)
    value = alt.Y("estimate:Q", title=title)
    band = base.mark_area(opacity=0.16).encode(y=alt.Y("lower:Q", title=title), y2="upper:Q", color=colour)
    line = base.mark_line(strokeWidth=2.5).encode(
        y=value, color=colour, strokeDash=alt.StrokeDash("variant:N", sort=order_of(report, control=False), legend=None)
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
    return Chart("timeline", sized(alt.layer(zero_line("y"), band, line, dots), 260, rows), rows)


def slices(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """The effect on one metric in each part of the window, by the days since exposure."""
    named = names(report)
    known = known_to(point.absolute for point in metric.slices)
    rows: Rows = [
        {
            "days": f"{point.start + 1}–{point.end}" if point.end > point.start + 1 else str(point.end),
            "variant": named[point.variant],
            **scaled(point.absolute, scale(metric)),
            **texts(metric, point.absolute, known, formats),
        }
        for point in metric.slices
    ]
    colour = colour_of(report, control=False, symbol="circle")
    base = rows_of().encode(
        x=alt.X("days:O", sort=None, title=gettext("Days since exposure"), axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("variant:N", sort=order_of(report, control=False)),
        color=colour,
        tooltip=[
            alt.Tooltip("days:N", title=gettext("Days since exposure")),
            alt.Tooltip("variant:N", title=gettext("Variant")),
            alt.Tooltip("effect:N", title=gettext("Change")),
            alt.Tooltip("interval:N", title=gettext("Interval")),
        ],
    )
    title = daily_title(report)
    bars = base.mark_rule(strokeWidth=5, strokeCap="round", opacity=0.55).encode(
        y=alt.Y("lower:Q", title=title), y2="upper:Q"
    )
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(y=alt.Y("estimate:Q", title=title))
    return Chart("slices", sized(alt.layer(zero_line("y"), bars, dots), 240, rows), rows)


def survival(report: Report, metric: MetricReport) -> Chart:
    """The share of users for whom it has happened, by the days since exposure; all begin at none."""
    named = names(report)
    rows: Rows = []
    for curve in metric.survival:
        points = zip(curve.days, curve.share, curve.lower, curve.upper, strict=True)
        for day, share, lower, upper in [(0.0, 1.0, 1.0, 1.0), *points]:
            happened = Interval(1 - share, 1 - upper, 1 - lower)
            rows.append({"day": round(day, 3), "variant": named[curve.variant], **scaled(happened, 100)})
    colour = colour_of(report, control=True)
    days = alt.X(
        "day:Q",
        title=gettext("Days since exposure"),
        scale=alt.Scale(nice=False),
        axis=alt.Axis(grid=False, format="~g", tickCount=7),
    )
    title = gettext("Share of users, percent")
    base = rows_of().encode(
        x=days,
        color=colour,
        tooltip=[
            alt.Tooltip("variant:N", title=gettext("Variant")),
            alt.Tooltip("day:Q", title=gettext("Days since exposure"), format=".1f"),
            alt.Tooltip("estimate:Q", title=title, format=".1f"),
        ],
    )
    band = base.mark_area(opacity=0.13, interpolate="step-after").encode(
        y=alt.Y("lower:Q", title=title), y2="upper:Q", tooltip=alt.value(None)
    )
    line = base.mark_line(strokeWidth=2.2, interpolate="step-after").encode(y=alt.Y("estimate:Q", title=title))
    return Chart(f"survival-{metric.metric}", sized(alt.layer(band, line), 240, rows), rows)


def responding(report: Report) -> list[MetricReport]:
    """Return the metrics whose response to frequency is drawn: the gain (main metric, money), then the harm."""
    order = ("primary", "secondary", "guardrail")
    shown = [m for m in report.metrics if m.frequency and (m.role != "secondary" or m.unit == "money")]
    return sorted(shown, key=lambda metric: order.index(metric.role))


def frequency(metric: MetricReport, formats: Formats) -> Chart:
    """How one metric responds to the touches a week, with the range in which the best frequency lies."""
    found = metric.frequency
    assert found is not None  # callers draw only what was found
    harm = metric.role == "guardrail"
    factor = scale(metric)
    points = [Interval(point.estimate, point.lower, point.upper) for point in found.curve]
    known = known_to(points)
    rows: Rows = [
        {
            "metric": metric.name,
            "dose": point.dose,
            **scaled(interval, factor),
            "value": formats.level(metric.unit, interval.estimate, known),
            "interval": gettext(
                "%(lower)s to %(upper)s",
                lower=formats.level(metric.unit, interval.lower, known),
                upper=formats.level(metric.unit, interval.upper, known),
            ),
        }
        for point, interval in zip(found.curve, points, strict=True)
    ]
    doses = [point.dose for point in found.curve]
    within = alt.Scale(domain=[min(doses), max(doses)], nice=False)
    axis = alt.Axis(values=doses, format="~g", grid=False, labelOverlap=True)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=gettext("Touches a week"), scale=within, axis=axis)

    def y(field: str) -> alt.Y:
        # Harm stands under the gain, on the same axis of touches: equal room for the labels of both.
        side = alt.Axis(minExtent=44, maxExtent=44, tickCount=5)
        return alt.Y(f"{field}:Q", title=_level_title(metric), scale=alt.Scale(zero=False), axis=side)

    colour = COLOURS[WORSE] if harm else _DOSE
    layers: list[Any] = []
    others: dict[str, Rows] = {}
    if found.best is not None:
        low, high = max(found.best.lower, min(doses)), min(found.best.upper, max(doses))
        others["best"] = [{"best": found.best.estimate, "from": low, "to": high}]
        best = rows_of("best")
        layers.append(best.mark_rect(color=COLOURS[UNCLEAR], opacity=0.15).encode(x=x("from"), x2="to:Q"))
        layers.append(best.mark_rule(color=COLOURS[UNCLEAR], strokeDash=[5, 4], strokeWidth=1.5).encode(x=x("best")))
    base = rows_of().encode(x=x("dose"))
    tooltip = [
        alt.Tooltip("dose:Q", title=gettext("Touches a week"), format=".3~g"),
        alt.Tooltip("value:N", title=gettext("Value")),
        alt.Tooltip("interval:N", title=gettext("Interval")),
    ]
    layers += [
        base.mark_area(opacity=0.16, color=colour).encode(y=y("lower"), y2="upper:Q"),
        base.mark_line(strokeWidth=2.5, color=colour).encode(y=y("estimate")),
        base.mark_point(filled=True, size=60, color=colour, opacity=1).encode(y=y("estimate"), tooltip=tooltip),
    ]
    spec = sized(alt.layer(*layers, title=metric.name), 150 if harm else 230, rows, **others)
    return Chart(f"frequency-{metric.metric}", spec, rows)


def _level_title(metric: MetricReport) -> str:
    if metric.unit == "share":
        return gettext("Share of users, percent")
    if metric.unit == "days":
        return gettext("Days")
    return gettext("Per user") if metric.kind == "mean" else gettext("Value")
