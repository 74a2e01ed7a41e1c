"""Charts of a study of uplift and of a policy: what the list is worth, what money buys, what came of predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report import Interval
from experiments.uplift.report import BudgetPoint, Calibration, Toc, Uplift
from web.charts.canvas import COLOURS, UNCLEAR, ZERO, Chart, Rows
from web.charts.marks import SCHEMA
from web.languages import gettext

_LIST = "#2f7de1"
_RANDOM = "#8a94a3"


def random_slope(report: Uplift) -> float:
    """Return what one user taken at random brings, before costs, where he gets the best variant for all."""
    costs = {arm.variant: arm.cost for arm in report.arms}
    constants = [each for each in report.policies if each.policy == "constant" and each.variant != report.control]
    best = max(constants, key=lambda each: each.over_control.estimate)
    assert best.variant is not None
    return best.over_control.estimate + costs[best.variant] - costs[report.control]


def curve(report: Uplift) -> Chart:
    """What the users from the top of the list bring, beside as many users taken at random."""
    slope = random_slope(report)
    rows: Rows = [
        {
            "users": point.contacts,
            "percent": 100 * point.contacts / report.users,
            **_limits(point.realised, 1),
            "random": slope * point.contacts,
        }
        for point in report.budget.points
    ]
    x = {
        "field": "percent",
        "type": "quantitative",
        "title": gettext("Users reached, percent of all"),
        "axis": {"grid": False, "tickCount": 6},
    }
    title = gettext("Brought in total, before costs")
    named = [gettext("by the list"), gettext("at random")]
    colour = {"domain": named, "range": [_LIST, _RANDOM]}
    layers = [
        _zero(),
        {"mark": {"type": "area", "opacity": 0.16, "color": _LIST}, "encoding": {"x": x, **_band(title)}},
        _line(x, "random", title, named[1], colour, dash=[6, 4]),
        _line(x, "estimate", title, named[0], colour),
        _points(
            x,
            title,
            [
                ("users", gettext("Users reached"), ","),
                ("estimate", gettext("By the list"), ",.4~r"),
                ("lower", gettext("At least"), ",.4~r"),
                ("upper", gettext("At most"), ",.4~r"),
                ("random", gettext("At random"), ",.4~r"),
            ],
        ),
    ]
    return Chart("uplift-curve", _spec(layers, 280, rows), rows)


def ranked(toc: Toc, unit: str) -> Chart:
    """The targeting curve: the mean effect on the top of the list less that on all, with its band."""
    scale = 100 if unit == "share" else 1
    rows: Rows = [
        {
            "percent": 100 * point.share,
            **_limits(point.above, scale),
            "effect": scale * (toc.mean + point.above.estimate),
        }
        for point in toc.points
    ]
    measure = gettext("percentage points") if unit == "share" else gettext("per user")
    x = {
        "field": "percent",
        "type": "quantitative",
        "title": gettext("Top of the list, percent of all"),
        "axis": {"grid": False, "tickCount": 6},
    }
    title = gettext("Gain more than all do, %(measure)s", measure=measure)
    layers = [
        _zero(),
        {"mark": {"type": "area", "opacity": 0.16, "color": _LIST}, "encoding": {"x": x, **_band(title)}},
        {
            "mark": {"type": "line", "strokeWidth": 2.5, "color": _LIST},
            "encoding": {"x": x, "y": {"field": "estimate", "type": "quantitative", "title": title}},
        },
        _points(
            x,
            title,
            [
                ("percent", gettext("Top of the list, percent of all"), ",.0f"),
                ("estimate", gettext("More than all (TOC)"), ",.3~r"),
                ("lower", gettext("At least"), ",.3~r"),
                ("upper", gettext("At most"), ",.3~r"),
                ("effect", gettext("Effect on them"), ",.3~r"),
            ],
        ),
    ]
    return Chart(f"uplift-toc-{toc.variant}", _spec(layers, 200, rows), rows)


def spending(points: Sequence[BudgetPoint], currency: str) -> Chart:
    """What each budget brings where it is spent by the list; the straight line is the money itself."""
    rows: Rows = [
        {
            "spend": point.spend,
            "users": point.contacts,
            **_limits(point.realised, 1),
            "expected": point.expected,
            "paid": point.spend,
        }
        for point in points
    ]
    x = {
        "field": "spend",
        "type": "quantitative",
        "title": gettext("Spent, %(currency)s", currency=currency),
        "axis": {"grid": False, "tickCount": 6},
    }
    title = gettext("Brought, %(currency)s", currency=currency)
    named = [gettext("brought"), gettext("spent")]
    colour = {"domain": named, "range": [_LIST, _RANDOM]}
    layers = [
        _zero(),
        {"mark": {"type": "area", "opacity": 0.16, "color": _LIST}, "encoding": {"x": x, **_band(title)}},
        _line(x, "paid", title, named[1], colour, dash=[6, 4]),
        _line(x, "estimate", title, named[0], colour),
        _points(
            x,
            title,
            [
                ("spend", gettext("Spent"), ",.4~r"),
                ("users", gettext("Users reached"), ","),
                ("estimate", gettext("Brought"), ",.4~r"),
                ("lower", gettext("At least"), ",.4~r"),
                ("upper", gettext("At most"), ",.4~r"),
            ],
        ),
    ]
    return Chart("uplift-spending", _spec(layers, 260, rows), rows)


def calibration(found: Calibration, name: str, unit: str) -> Chart:
    """The effect that came, by the effect that was predicted, in tenths of the users."""
    scale = 100 if unit == "share" else 1
    rows: Rows = [
        {
            "variant": name,
            "tenth": place,
            "users": each.users,
            "predicted": each.predicted * scale,
            **_limits(each.realised, scale),
        }
        for place, each in enumerate(found.bins, 1)
    ]
    measure = gettext("percentage points") if unit == "share" else gettext("per user")
    x = {
        "field": "predicted",
        "type": "quantitative",
        "title": gettext("Predicted effect, %(measure)s", measure=measure),
        "axis": {"grid": False, "tickCount": 6},
        "scale": {"zero": False},
    }
    title = gettext("Effect that came")
    ends = [min(each.predicted for each in found.bins) * scale, max(each.predicted for each in found.bins) * scale]
    layers = [
        _zero(),
        {
            "data": {"name": "ideal"},
            "mark": {"type": "line", "strokeDash": [6, 4], "color": _RANDOM},
            "encoding": {"x": x | {"field": "at"}, "y": {"field": "at", "type": "quantitative", "title": title}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 4, "opacity": 0.5, "color": _LIST},
            "encoding": {"x": x, **_band(title)},
        },
        _points(
            x,
            title,
            [
                ("users", gettext("Users"), ","),
                ("predicted", gettext("Predicted"), ",.3~r"),
                ("estimate", gettext("Came"), ",.3~r"),
                ("lower", gettext("At least"), ",.3~r"),
                ("upper", gettext("At most"), ",.3~r"),
            ],
        ),
    ]
    spec = _spec(layers, 240, rows)
    spec["datasets"]["ideal"] = [{"at": end} for end in ends]
    return Chart(f"uplift-calibration-{found.variant}", spec, rows)


def promised(lines: Sequence[tuple[str, Interval, str]], title: str, *, scale: int = 100) -> Chart:
    """Intervals under each other: the promise, what came of it, and that of each rule."""
    rows: Rows = [{"line": name, "reading": reading, **_limits(interval, scale)} for name, interval, reading in lines]
    x = {"type": "quantitative", "title": title, "axis": {"tickCount": 6}}
    y = {
        "field": "line",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {
            "minExtent": 130,
            "maxExtent": 130,
            "labelLimit": 122,
            "ticks": False,
            "domain": False,
            "labelPadding": 8,
        },
    }
    colour = {
        "field": "reading",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(COLOURS), "range": list(COLOURS.values())},
    }
    tooltip = [
        {"field": "line", "type": "nominal", "title": " "},
        {"field": "estimate", "type": "quantitative", "title": title, "format": "+.2f"},
        {"field": "lower", "type": "quantitative", "title": gettext("At least"), "format": "+.2f"},
        {"field": "upper", "type": "quantitative", "title": gettext("At most"), "format": "+.2f"},
    ]
    layers: list[Mapping[str, Any]] = [
        _zero("x"),
        {
            "mark": {"type": "rule", "strokeWidth": 5, "strokeCap": "round", "opacity": 0.55},
            "encoding": {"x": x | {"field": "lower"}, "x2": {"field": "upper"}, "y": y, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": x | {"field": "estimate"}, "y": y, "color": colour, "tooltip": tooltip},
        },
    ]
    return Chart("policy-lift", _spec(layers, 34 * len(rows) + 20, rows), rows)


def reading(interval: Interval, *, up: bool = True) -> str:
    """Return whether an interval is better, worse, or unclear."""
    if interval.lower <= 0 <= interval.upper:
        return UNCLEAR
    return "better" if (interval.estimate > 0) == up else "worse"


def _limits(interval: Interval, scale: int) -> dict[str, object]:
    return {name: getattr(interval, name) * scale for name in ("estimate", "lower", "upper")}


def _band(title: str) -> dict[str, Any]:
    return {"y": {"field": "lower", "type": "quantitative", "title": title}, "y2": {"field": "upper"}}


def _line(
    x: Mapping[str, Any], field: str, title: str, name: str, colour: Mapping[str, Any], dash: Sequence[int] = ()
) -> dict[str, Any]:
    mark: dict[str, Any] = {"type": "line", "strokeWidth": 2.5}
    return {
        "mark": mark | ({"strokeDash": list(dash)} if dash else {}),
        "encoding": {
            "x": x,
            "y": {"field": field, "type": "quantitative", "title": title},
            "color": {
                "datum": name,
                "type": "nominal",
                "scale": colour,
                "legend": {"title": None, "orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3},
            },
        },
    }


def _points(x: Mapping[str, Any], title: str, told: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "mark": {"type": "point", "filled": True, "size": 46, "color": _LIST, "opacity": 1},
        "encoding": {
            "x": x,
            "y": {"field": "estimate", "type": "quantitative", "title": title},
            "tooltip": [
                {"field": field, "type": "quantitative", "title": label, "format": form} for field, label, form in told
            ],
        },
    }


def _zero(axis: str = "y") -> dict[str, Any]:
    return {
        "data": {"name": "zero"},
        "mark": {"type": "rule", "strokeWidth": 1.5, "color": ZERO},
        "encoding": {axis: {"field": "zero", "type": "quantitative"}},
    }


def _spec(layers: Sequence[Mapping[str, Any]], height: int, rows: Rows) -> dict[str, Any]:
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": height,
        "data": {"name": "rows"},
        "layer": list(layers),
        "datasets": {"rows": rows, "zero": [{"zero": 0}]},
    }
