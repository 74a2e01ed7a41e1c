"""The answer about uplift as one page of HTML that needs no network and runs no script, to be mailed or printed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import altair as alt

from experiments import printout
from experiments import uplift_wording as wording
from experiments.uplift.report import Calibration, Uplift
from experiments.wording import Grid

_WIDTH = 560
_ROW = 26
_BLUE, _ORANGE, _GREY = "#2f7de1", "#e07b1f", "#8a94a3"


@dataclass(frozen=True, slots=True)
class _Part:
    grid: Grid
    images: list[tuple[str, str]]


def page(report: Uplift) -> str:
    """Return the whole page."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(loader=PackageLoader("experiments"), autoescape=True, trim_blocks=True)
    charts = {wording.POLICIES: _policies, wording.BUDGET: _budget, wording.DRIVERS: _drivers}
    parts = []
    for grid in wording.grids(report):
        draw = charts.get(grid.title)
        parts.append(_Part(grid, [] if draw is None else [(grid.title, printout.image(draw(report)))]))
    return templates.get_template("uplift.html").render(
        report=report,
        words=wording,
        advice=wording.advice(report),
        parts=parts,
        calibration=list(_calibrations(report)),
    )


def _factor(report: Uplift) -> int:
    return 100 if report.unit == "share" else 1


def _unit(report: Uplift) -> str:
    return ", percentage points" if report.unit == "share" else ""


def _policies(report: Uplift) -> Any:
    """What each policy is worth over the control."""
    factor = _factor(report)
    rows = [
        {
            "policy": wording.policy_name(each),
            "estimate": each.over_control.estimate * factor,
            "lower": each.over_control.lower * factor,
            "upper": each.over_control.upper * factor,
            "kind": "the same for all" if each.policy == "constant" else "by user",
        }
        for each in report.policies
        if each.variant != report.control
    ]
    base = alt.Chart({"values": rows}).encode(
        y=alt.Y("policy:N", sort=None, title=None, axis=alt.Axis(labelLimit=280, ticks=False, domain=False)),
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=["by user", "the same for all"], range=[_BLUE, _GREY]),
            legend=alt.Legend(title=None, orient="top"),
        ),
    )
    title = f"value over {report.control} per user, net of costs{_unit(report)}"
    interval = base.mark_rule(strokeWidth=4, opacity=0.55).encode(x=alt.X("lower:Q", title=title), x2="upper:Q")
    point = base.mark_point(filled=True, size=90, opacity=1).encode(x="estimate:Q")
    return alt.layer(_zero("x"), interval, point).properties(width=_WIDTH, height=_ROW * max(len(rows), 1))


def _budget(report: Uplift) -> Any:
    """What each budget buys, with its band, and what was predicted."""
    rows = [
        {
            "spend": point.spend,
            "realised": point.realised.estimate,
            "lower": point.realised.lower,
            "upper": point.realised.upper,
            "expected": point.expected,
        }
        for point in report.budget.points
    ]
    money = report.budget.unit == "money"
    base = alt.Chart({"values": rows}).encode(x=alt.X("spend:Q", title="spent" if money else "contacts"))
    title = "gained in total, before costs"
    band = base.mark_area(opacity=0.2, color=_BLUE).encode(y=alt.Y("lower:Q", title=title), y2="upper:Q")
    line = base.mark_line(color=_BLUE).encode(y=alt.Y("realised:Q", title=title))
    predicted = base.mark_line(color=_ORANGE, strokeDash=[5, 4]).encode(y=alt.Y("expected:Q", title=title))
    return alt.layer(_zero("y"), band, line, predicted).properties(
        width=_WIDTH, height=220, title=alt.Title("with its band; dashed: predicted", anchor="start", fontSize=11)
    )


def _drivers(report: Uplift) -> Any:
    rows = [{"feature": each.feature, "share": each.share} for each in report.drivers]
    bar = alt.Chart({"values": rows}).mark_bar(color=_BLUE)
    return bar.encode(
        y=alt.Y("feature:N", sort=None, title=None, axis=alt.Axis(labelLimit=280, ticks=False, domain=False)),
        x=alt.X("share:Q", title="lost when shuffled", axis=alt.Axis(format="%")),
    ).properties(width=_WIDTH, height=_ROW * max(len(rows), 1))


def _calibrations(report: Uplift) -> Iterator[tuple[str, str]]:
    for each in report.calibration:
        yield f"{each.variant}: predicted against realised", printout.image(_calibration(report, each))


def _calibration(report: Uplift, calibration: Calibration) -> Any:
    """Users in tenths by predicted effect: what was predicted, and what came."""
    factor = _factor(report)
    rows = [
        {
            "predicted": each.predicted * factor,
            "realised": each.realised.estimate * factor,
            "lower": each.realised.lower * factor,
            "upper": each.realised.upper * factor,
        }
        for each in calibration.bins
    ]
    ends = [min(row["predicted"] for row in rows), max(row["predicted"] for row in rows)]
    perfect = alt.Chart({"values": [{"predicted": end, "realised": end} for end in ends]})
    base = alt.Chart({"values": rows}).encode(x=alt.X("predicted:Q", title=f"predicted effect{_unit(report)}"))
    y = f"realised effect{_unit(report)}"
    return alt.layer(
        _zero("y"),
        perfect.mark_line(color=_GREY, strokeDash=[5, 4]).encode(x="predicted:Q", y=alt.Y("realised:Q", title=y)),
        base.mark_rule(color=_BLUE, strokeWidth=3, opacity=0.55).encode(y=alt.Y("lower:Q", title=y), y2="upper:Q"),
        base.mark_point(color=_BLUE, filled=True, size=80, opacity=1).encode(y=alt.Y("realised:Q", title=y)),
    ).properties(width=_WIDTH, height=240)


def _zero(axis: str) -> Any:
    return alt.Chart({"values": [{"zero": 0}]}).mark_rule(color="#5b6675").encode(**{axis: "zero:Q"})
