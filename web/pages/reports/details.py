"""What some metrics show besides their effects: choices, funnels, survival, single large values, novelty."""

from bisect import bisect_right
from collections.abc import Iterator
from math import expm1

from experiments.codes import HealthCode
from experiments.report import Interval, MetricReport, Novelty, Report, Survival
from web import charts
from web.formats import Formats, precision
from web.languages import gettext
from web.pages.reports.parts import Grid, Part, effect, effect_or_problem, grid, p_is, p_value
from web.pages.reports.tables import loss, pairs
from web.pages.reports.verdict import names

_DAYS = (1, 3, 7, 14, 30, 60, 90, 180, 365)


def parts(report: Report, metric: MetricReport, formats: Formats) -> list[Part]:
    """Return what stands under a metric's effects."""
    made = (
        _choices(report, metric, formats),
        _pairs(report, metric, formats),
        _funnel(report, metric, formats),
        _survival(report, metric, formats),
    )
    return [part for part in made if part is not None]


def notes(report: Report, metric: MetricReport, formats: Formats) -> list[str]:
    """Return what is to be said of single large values."""
    return [*_capping(report, metric, formats), *_influence(report, metric, formats)]


def slices(report: Report, metric: MetricReport, formats: Formats) -> Part | None:
    """Return the effect by the days since exposure, and whether it fades or grows."""
    if not metric.slices:
        return None
    named = names(report)
    alarming = {found.subject for found in report.health if found.code == HealthCode.novelty}
    chart = charts.slices(report, metric, formats)
    rows = [[str(row["days"]), str(row["variant"]), f"{row['effect']}", str(row["interval"])] for row in chart.rows]
    before = " " + gettext(
        "Paler, with days below zero: the same users before their exposure. Nothing can have had an effect there, so "
        "these ranges should hold zero; one in twenty misses it by chance."
    )
    return Part(
        "slices",
        gettext("As users grow used to it: %(metric)s", metric=metric.name),
        [
            _novelty(metric, trend, named[trend.variant], formats, alarming=trend.variant in alarming)
            for trend in metric.novelty
        ],
        gettext(
            "The effect a day in each part of the window after exposure, of the same users throughout: this tells "
            "novelty and fatigue from a change of the users who arrive."
        )
        + (before if metric.placebo else ""),
        [chart],
        grid(
            [gettext("Days since exposure"), gettext("Variant")],
            [gettext("Change a day"), gettext("Interval")],
            rows,
        ),
    )


def _novelty(metric: MetricReport, trend: Novelty, name: str, formats: Formats, *, alarming: bool) -> str:
    total = sum(point.absolute.estimate for point in metric.slices if point.variant == trend.variant)
    estimate, lower, upper = formats.relative(
        Interval(expm1(trend.slope.estimate), expm1(trend.slope.lower), expm1(trend.slope.upper))
    )
    change = gettext("%(estimate)s (%(lower)s to %(upper)s)", estimate=estimate, lower=lower, upper=upper)
    facts = {"variant": name, "change": change, "p": p_is(trend.p_value, formats)}
    if trend.slope.lower <= 0 <= trend.slope.upper:
        return gettext(
            "%(variant)s: no sign that the effect fades or grows with the days since exposure (%(p)s).", **facts
        )
    grows = (trend.slope.estimate > 0) == (total > 0)
    if not alarming:
        # The check beside it asks for more, for it asks of several variants at once.
        if grows:
            return gettext(
                "%(variant)s: the effect may grow, which chance can still explain; its ratio to control changes by "
                "%(change)s a day, %(p)s.",
                **facts,
            )
        return gettext(
            "%(variant)s: the effect may fade, which chance can still explain; its ratio to control changes by "
            "%(change)s a day, %(p)s.",
            **facts,
        )
    if grows:
        return gettext(
            "%(variant)s: the effect grows; its ratio to control changes by %(change)s a day, %(p)s.", **facts
        )
    return gettext("%(variant)s: the effect fades; its ratio to control changes by %(change)s a day, %(p)s.", **facts)


def _choices(report: Report, metric: MetricReport, formats: Formats) -> Part | None:
    if not metric.choices:
        return None
    named = names(report)
    best = max(metric.choices, key=lambda choice: choice.probability_best)
    rows = [
        [
            named[choice.variant],
            formats.chance(choice.probability_best),
            loss(metric, choice.expected_loss, formats),
        ]
        for choice in metric.choices
    ]
    sentence = gettext(
        "%(variant)s is the best choice with a chance of %(chance)s.",
        variant=named[best.variant],
        chance=formats.chance(best.probability_best),
    )
    hint = gettext("Expected loss: what choosing it gives away on average, compared with the truly best one.")
    return Part(
        "choices",
        gettext("Which one to choose"),
        [sentence],
        hint,
        grid=grid([gettext("Variant")], [gettext("Chance to be the best"), gettext("Expected loss")], rows),
    )


def _pairs(report: Report, metric: MetricReport, formats: Formats) -> Part | None:
    found = pairs(report, metric, formats)
    if found is None:
        return None
    return Part(f"pairs-{metric.metric}", gettext("Variants against each other"), [], grid=found)


def _funnel(report: Report, metric: MetricReport, formats: Formats) -> Part | None:
    if not metric.funnel:
        return None
    named = names(report)
    rows = []
    for step in metric.funnel:
        control = step.variant == report.control
        rows.append(
            [
                f"{step.position} · {step.step}",
                named[step.variant],
                formats.count(step.entered),
                formats.count(step.reached),
                formats.share(step.rate) if step.rate is not None else "–",
                "–" if control else effect_or_problem(metric.unit, step.absolute, step.problem, formats),
                p_value(step.p_value, formats),
            ]
        )
    return Part(
        f"funnel-{metric.metric}",
        gettext("Step by step"),
        [],
        gettext(
            "Bars: the share of all users who came so far. Table: of those who reached the step before, who went on."
        ),
        [charts.funnel(report, metric)],
        grid(
            [gettext("Step"), gettext("Variant")],
            [
                gettext("Entered"),
                gettext("Went on"),
                gettext("Share"),
                gettext("Change"),
                gettext("p"),
            ],
            rows,
        ),
    )


def _survival(report: Report, metric: MetricReport, formats: Formats) -> Part | None:
    if not metric.survival:
        return None
    said = []
    if metric.logrank is not None:
        p = p_is(metric.logrank.p_value, formats)
        if metric.logrank.p_value < report.method.alpha:
            said.append(gettext("The curves of the variants differ beyond chance (log-rank test, %(p)s).", p=p))
        else:
            said.append(gettext("The curves of the variants could be the same (log-rank test, %(p)s).", p=p))
    return Part(
        f"survival-{metric.metric}",
        gettext("How soon it happens"),
        said,
        gettext("The share of users for whom it has happened, by day; users still being watched count as far as seen."),
        [charts.survival(report, metric)],
        _by_day(report, metric, formats),
    )


def _by_day(report: Report, metric: MetricReport, formats: Formats) -> Grid:
    named = names(report)
    last = max((curve.days[-1] for curve in metric.survival if curve.days), default=0.0)
    days = [day for day in _DAYS if day <= last]
    rows = [[str(day), *(_happened(curve, day, formats) for curve in metric.survival)] for day in days]
    return grid([gettext("By day")], [named[curve.variant] for curve in metric.survival], rows)


def _happened(curve: Survival, day: int, formats: Formats) -> str:
    place = bisect_right(curve.days, day) - 1
    if place < 0:
        return formats.share(0.0)
    return gettext(
        "%(estimate)s (%(lower)s to %(upper)s)",
        estimate=formats.share(1 - curve.share[place]),
        lower=formats.share(1 - curve.upper[place]),
        upper=formats.share(1 - curve.lower[place]),
    )


def _capping(report: Report, metric: MetricReport, formats: Formats) -> Iterator[str]:
    if not metric.capping:
        return
    named, known = names(report), precision(metric)
    cap = metric.capping[0].cap
    removed = [
        gettext("%(share)s of %(variant)s", share=formats.share(entry.removed), variant=named[entry.variant])
        for entry in metric.capping
        if entry.removed is not None
    ]
    yield gettext("Users' numbers are cut at %(cap)s.", cap=formats.level(metric.unit, cap, cap))
    if removed:
        yield gettext("That removed %(shares)s.", shares=formats.names(removed))
    for entry in metric.capping:
        if entry.uncapped is not None:
            yield gettext(
                "%(variant)s without the cut: %(change)s.",
                variant=named[entry.variant],
                change=effect(metric.unit, entry.uncapped, formats, known),
            )


def _influence(report: Report, metric: MetricReport, formats: Formats) -> Iterator[str]:
    named = names(report)
    for entry in metric.influence:
        facts = {
            "variant": named[entry.variant],
            "whole": effect(metric.unit, entry.whole, formats),
            "without": effect(metric.unit, entry.without, formats),
        }
        if entry.share is not None:
            yield gettext(
                "%(variant)s: its largest user makes up %(share)s of its total. Without the largest user of it and of "
                "control the change, unadjusted, would be %(without)s instead of %(whole)s.",
                share=formats.share(entry.share),
                **facts,
            )
        else:
            yield gettext(
                "%(variant)s: without the largest user of it and of control the change, unadjusted, would be "
                "%(without)s instead of %(whole)s.",
                **facts,
            )
