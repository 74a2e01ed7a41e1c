"""Effects and shares as they develop: over the days of an experiment, since exposure, with the frequency of touches."""

from experiments.report import Interval, MetricReport, Report, SlicePoint
from web.charts.canvas import (
    COLOURS,
    UNCLEAR,
    WORSE,
    Chart,
    Rows,
    daily_title,
    difference_title,
    names,
    order_of,
    scale,
    scaled,
    texts,
)
from web.charts.marks import Spec, chart, colours, field, layer, number, text, zero_line
from web.formats import MINUS, Formats, known_to, precision
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
    colour, title = colours(report, control=False), difference_title(report, metric)
    days = {"format": "%m-%d", "labelOverlap": True, "grid": False, "tickCount": 6}
    base = {
        "x": field("day", "temporal", title=gettext("Day on which the observation window closed"), axis=days),
        "color": colour,
    }
    line = base | {"y": number("estimate", title=title)}
    dash = text("variant", sort=order_of(report, control=False), legend=None)
    tooltip = [
        text("day", title=gettext("Day")),
        text("variant", title=gettext("Variant")),
        text("effect", title=gettext("Change")),
        text("interval", title=gettext("Interval")),
        number("users", title=gettext("Users"), format=","),
    ]
    layers = [
        zero_line("y"),
        layer("area", base | {"y": number("lower", title=title), "y2": {"field": "upper"}}, opacity=0.16),
        layer("line", line | {"strokeDash": dash}, strokeWidth=2.5),
        layer("point", line | {"tooltip": tooltip}, filled=True, size=28),
    ]
    return Chart("timeline", chart(layers, 260, rows), rows)


def days_of(point: SlicePoint) -> str:
    """Return which days a slice holds: the first after exposure is 1, the last before it −1."""
    if point.start < 0:
        first, last = f"{MINUS}{-point.start}", f"{MINUS}{1 - point.end}"
        return first if first == last else f"{first} … {last}"
    return f"{point.start + 1}–{point.end}" if point.end > point.start + 1 else str(point.end)


def _paler(before: float, after: float) -> dict[str, object]:
    return {"condition": {"test": "datum.before", "value": before}, "value": after}


def slices(report: Report, metric: MetricReport, formats: Formats) -> Chart:
    """The effect on one metric in each part of the window, by the days since exposure; paler: before it."""
    named = names(report)
    points = [*metric.placebo, *metric.slices]
    known = known_to(point.absolute for point in points)
    rows: Rows = [
        {
            "days": days_of(point),
            "before": int(point.start < 0),
            "variant": named[point.variant],
            **scaled(point.absolute, scale(metric)),
            **texts(metric, point.absolute, known, formats),
        }
        for point in points
    ]
    base = {
        "x": field("days", "ordinal", sort=None, title=gettext("Days since exposure"), axis={"labelAngle": 0}),
        "xOffset": text("variant", sort=order_of(report, control=False)),
        "color": colours(report, control=False, symbol="circle"),
        "tooltip": [
            text("days", title=gettext("Days since exposure")),
            text("variant", title=gettext("Variant")),
            text("effect", title=gettext("Change")),
            text("interval", title=gettext("Interval")),
        ],
    }
    title = daily_title(report)
    bars = base | {"y": number("lower", title=title), "y2": {"field": "upper"}}
    layers = [
        zero_line("y"),
        layer("rule", bars | {"opacity": _paler(0.25, 0.55)}, strokeWidth=5, strokeCap="round"),
        layer("point", base | {"y": number("estimate", title=title), "opacity": _paler(0.5, 1)}, filled=True, size=90),
    ]
    return Chart("slices", chart(layers, 240, rows), rows)


def survival(report: Report, metric: MetricReport) -> Chart:
    """The share of users for whom it has happened, by the days since exposure; all begin at none."""
    named = names(report)
    rows: Rows = []
    for curve in metric.survival:
        points = zip(curve.days, curve.share, curve.lower, curve.upper, strict=True)
        for day, without, lower, upper in [(0.0, 1.0, 1.0, 1.0), *points]:
            happened = Interval(1 - without, 1 - upper, 1 - lower)
            rows.append({"day": round(day, 3), "variant": named[curve.variant], **scaled(happened, 100)})
    days, share = gettext("Days since exposure"), gettext("Share of users, percent")
    axis = {"grid": False, "format": "~g", "tickCount": 7}
    base = {
        "x": number("day", title=days, scale={"nice": False}, axis=axis),
        "color": colours(report, control=True),
    }
    tooltip = [
        text("variant", title=gettext("Variant")),
        number("day", title=days, format=".1f"),
        number("estimate", title=share, format=".1f"),
    ]
    band = base | {"y": number("lower", title=share), "y2": {"field": "upper"}}
    line = base | {"y": number("estimate", title=share), "tooltip": tooltip}
    layers = [
        layer("area", band, opacity=0.13, interpolate="step-after"),
        layer("line", line, strokeWidth=2.2, interpolate="step-after"),
    ]
    return Chart(f"survival-{metric.metric}", chart(layers, 240, rows), rows)


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
    within = {"domain": [min(doses), max(doses)], "nice": False}
    axis = {"values": doses, "format": "~g", "grid": False, "labelOverlap": True}
    # Harm stands under the gain, on the same axis of touches: equal room for the labels of both.
    side = {"minExtent": 44, "maxExtent": 44, "tickCount": 5}

    def x(name: str) -> Spec:
        return number(name, title=gettext("Touches a week"), scale=within, axis=axis)

    def y(name: str) -> Spec:
        return number(name, title=_level_title(metric), scale={"zero": False}, axis=side)

    colour = COLOURS[WORSE] if harm else _DOSE
    layers: list[Spec] = []
    others: dict[str, Rows] = {}
    if found.best is not None:
        low, high = max(found.best.lower, min(doses)), min(found.best.upper, max(doses))
        others["best"] = [{"best": found.best.estimate, "from": low, "to": high}]
        grey = COLOURS[UNCLEAR]
        layers.append(layer("rect", {"x": x("from"), "x2": {"field": "to"}}, "best", color=grey, opacity=0.15))
        layers.append(layer("rule", {"x": x("best")}, "best", color=grey, strokeDash=[5, 4], strokeWidth=1.5))
    tooltip = [
        number("dose", title=gettext("Touches a week"), format=".3~g"),
        text("value", title=gettext("Value")),
        text("interval", title=gettext("Interval")),
    ]
    line = {"x": x("dose"), "y": y("estimate")}
    band = {"x": x("dose"), "y": y("lower"), "y2": {"field": "upper"}}
    layers += [
        layer("area", band, opacity=0.16, color=colour),
        layer("line", line, strokeWidth=2.5, color=colour),
        layer("point", line | {"tooltip": tooltip}, filled=True, size=60, color=colour, opacity=1),
    ]
    spec = chart(layers, 150 if harm else 230, rows, title=metric.name, others=others)
    return Chart(f"frequency-{metric.metric}", spec, rows)


def _level_title(metric: MetricReport) -> str:
    if metric.unit == "share":
        return gettext("Share of users, percent")
    if metric.unit == "days":
        return gettext("Days")
    return gettext("Per user") if metric.kind == "mean" else gettext("Value")
