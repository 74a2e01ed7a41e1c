"""What a budget buys by a study's list: any amount between the points of the curve, and what a little more brings."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.report import Interval
from experiments.uplift.report import BudgetPoint, Uplift
from web.charts import Chart
from web.charts import uplift as charts
from web.formats import Formats
from web.languages import gettext
from web.pages.uplift.answered import Amounts, Asked, amounts


@dataclass(frozen=True, slots=True)
class Given:
    """How many users get a variant."""

    variant: str
    name: str
    users: str


@dataclass(frozen=True, slots=True)
class Budget:
    """The slider and what it shows at ``value``; ``data`` is the curve, for the page's own arithmetic.

    ``entered`` is what stands in the field, which may be wrong: then ``error`` says what would be right.
    """

    money: bool
    most: float
    most_text: str
    value: float
    entered: str
    error: str
    spent: str
    contacts: str
    brought: str
    net: str
    following: str
    next: str
    given: list[Given]
    chart: Chart | None
    data: dict[str, Any]


def budget(report: Uplift, asked: Asked, formats: Formats, entered: str | None) -> Budget | None:
    """Return what a budget buys; None where nothing gains, or nothing can be said.

    Args:
        report: of the study.
        asked: what it was about.
        formats: of the reader.
        entered: the amount asked for, as typed; None: the one of the study, or where more would no longer pay.
    """
    points = report.budget.points
    most = points[-1].spend
    if report.verdict == "invalid" or not report.usable or most <= 0:
        return None
    money = amounts(report, asked, formats)
    value, error = _wanted(report, most) if entered is None else 0.0, ""
    if entered is not None:
        try:
            value = float(entered.replace(",", "").replace("，", ""))
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            limit = formats.count(round(most))
            error = gettext(
                "“%(entered)s” is no amount: give a number from 0 to %(most)s.", entered=entered, most=limit
            )
            value = _wanted(report, most)
    value = min(value, most)
    priced, step = report.budget.unit == "money", _next(most)
    at = point_at(report, value)
    following = point_at(report, min(value + step, most)).expected - at.expected
    names = [arm.variant for arm in report.arms]
    return Budget(
        money=priced,
        most=most,
        most_text=formats.count(round(most)),
        value=round(value, 2) if priced else round(value),
        entered=entered if error and entered is not None else f"{round(value, 2) if priced else round(value):g}",
        error=error,
        spent=formats.money(at.spend, signed=False) if priced else formats.count(round(at.spend)),
        contacts=formats.count(at.contacts),
        brought=money.total(at.realised),
        net=money.total(_less(at.realised, at.spend)) if priced else "",
        following=money.sum(following),
        next=formats.count(round(step)),
        given=[Given(name, asked.name(name), formats.count(at.users[name])) for name in names if name in at.users],
        chart=charts.spending(points, formats.currency) if priced else None,
        data=_data(report, money, formats),
    )


def _less(interval: Interval, spend: float) -> Interval:
    return Interval(interval.estimate - spend, interval.lower - spend, interval.upper - spend)


def _wanted(report: Uplift, most: float) -> float:
    if report.budget.at is not None:
        return report.budget.at.spend
    if report.budget.unit == "contacts":
        return float(round(most / 2))
    return max(report.budget.points, key=lambda point: point.expected - point.spend).spend


def point_at(report: Uplift, spend: float) -> BudgetPoint:
    """Return what a spend buys; between the points of the curve all is linear."""
    points = report.budget.points
    at = [point.spend for point in points]

    def value(*values: float) -> float:
        return float(np.interp(spend, at, values))

    return BudgetPoint(
        spend=spend,
        contacts=round(value(*(point.contacts for point in points))),
        expected=value(*(point.expected for point in points)),
        realised=Interval(
            value(*(point.realised.estimate for point in points)),
            value(*(point.realised.lower for point in points)),
            value(*(point.realised.upper for point in points)),
        ),
        users={name: round(value(*(point.users.get(name, 0) for point in points))) for name in points[0].users},
    )


def _next(most: float) -> float:
    """A thousand, or where all there is to spend is not much more, a tenth, a hundredth ... of that."""
    return 1_000.0 if most >= 5_000 else 10.0 ** max(np.floor(np.log10(most / 5)), 0)


def _data(report: Uplift, money: Amounts, formats: Formats) -> dict[str, Any]:
    return {
        "locale": str(formats.locale).replace("_", "-"),
        "currency": formats.currency,
        "unit": money.unit,
        "priced": report.budget.unit == "money",
        "next": _next(report.budget.points[-1].spend),
        "between": gettext("%(estimate)s (%(lower)s to %(upper)s)", estimate="{0}", lower="{1}", upper="{2}"),
        "points": [
            {
                "spend": point.spend,
                "contacts": point.contacts,
                "expected": point.expected,
                "realised": [point.realised.estimate, point.realised.lower, point.realised.upper],
                "users": point.users,
            }
            for point in report.budget.points
        ],
    }
