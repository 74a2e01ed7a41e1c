"""What the page of a study of uplift shows: the report turned into texts, tables and charts, once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from experiments.uplift import report as reports
from experiments.uplift.report import RuleFound, Toc, Uplift
from experiments.uplift.studies import Notes
from web import sentences, targeting
from web.charts import Chart
from web.charts import uplift as charts
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.reports.parts import Grid, Part, grid, p_is
from web.pages.uplift import answered, conditions
from web.pages.uplift.answered import Amounts, Asked, Said, amounts, policy_name


@dataclass(frozen=True, slots=True)
class Quadrant:
    """One of the four kinds of users."""

    kind: str
    name: str
    meaning: str
    users: str
    share: str
    percent: float
    effect: str
    total: str
    baseline: str


@dataclass(frozen=True, slots=True)
class Node:
    """A place in the tree of rules: a condition, and the nodes under it or what its users get."""

    words: str
    children: list["Node"] = field(default_factory=list)
    variant: str = ""
    users: str = ""
    share: str = ""
    effect: str = ""
    total: str = ""


@dataclass(frozen=True, slots=True)
class Driver:
    """What the predicted effects rest on."""

    name: str
    share: str
    percent: float


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything the page shows of one study."""

    said: Said
    users: str
    metric: str
    curve: Part
    ranked: list[Part]
    quadrants: list[Quadrant]
    quadrants_about: str
    drivers: list[Driver]
    tree: list[Node]
    treats: bool
    values: Grid
    segments: Grid | None
    calibration: list[Part]
    learners: Grid
    method: list[tuple[str, str]]
    features: list[str]
    left_out: list[tuple[str, str]]
    charts: list[Chart]


@lru_cache(maxsize=16)
def shown(body: bytes, asked: Asked, notes: Notes, formats: Formats) -> Shown:
    """Return what the page shows of a study's report."""
    report = reports.decode(body)
    money = amounts(report, asked, formats)
    trusted = report.verdict != "invalid"
    curve = _curve(report, money, formats)
    ranked = [_ranked(each, asked, money) for each in report.toc] if trusted else []
    calibration = list(_calibrations(report, asked, money)) if trusted else []
    spending = charts.spending(report.budget.points, formats.currency) if _priced(report) else None
    return Shown(
        said=answered.said(report, asked, money),
        users=formats.count(report.users),
        metric=asked.metric,
        curve=curve,
        ranked=ranked,
        quadrants=[_quadrant(each, money) for each in report.quadrants] if trusted else [],
        quadrants_about=asked.name(report.quadrants[0].variant) if report.quadrants else "",
        drivers=[
            Driver(
                conditions.feature(each.feature), formats.percent(round(each.share, 2)), min(100 * each.share, 100.0)
            )
            for each in report.drivers
        ],
        tree=tree(report, asked, money) if trusted else [],
        treats=trusted and any(rule.variant != report.control for rule in report.rules),
        values=_values(report, asked, money),
        segments=_segments(report, asked, money) if report.segments else None,
        calibration=calibration,
        learners=_learners(report, asked, money),
        method=list(_method(report, notes, formats)),
        features=[conditions.feature(each.name) for each in report.features],
        left_out=[
            (conditions.feature(each.feature), sentences.known(targeting.LEFT_OUT, each.problem))
            for each in notes.left_out
        ],
        charts=[chart for part in (curve, *ranked, *calibration) for chart in part.charts]
        + ([spending] if spending else []),
    )


def _priced(report: Uplift) -> bool:
    return report.budget.unit == "money" and report.verdict != "invalid" and report.budget.points[-1].spend > 0


def _quadrant(found: reports.Quadrant, money: Amounts) -> Quadrant:
    formats = money.formats
    few = gettext("too few users to say")
    return Quadrant(
        kind=found.quadrant,
        name=sentences.known(targeting.QUADRANTS, found.quadrant),
        meaning=sentences.known(targeting.QUADRANT_MEANINGS, found.quadrant),
        users=ngettext("%(users)s user", "%(users)s users", found.users, users=formats.count(found.users)),
        share=formats.share(found.share),
        percent=round(100 * found.share, 1),
        effect=few if found.effect is None else money.effect(found.effect),
        total="" if found.total is None else money.total(found.total),
        baseline=money.level(found.baseline),
    )


def tree(report: Uplift, asked: Asked, money: Amounts) -> list[Node]:
    """Return the rules as a tree: leaves that begin with the same condition stand under it."""
    return _nodes([(_steps(rule), rule) for rule in report.rules], report, asked, money)


def _steps(rule: RuleFound) -> list[Mapping[str, object]]:
    both = rule.condition.get("$and")
    return list(both) if both is not None else [rule.condition]


def _nodes(
    found: Sequence[tuple[list[Mapping[str, object]], RuleFound]], report: Uplift, asked: Asked, money: Amounts
) -> list[Node]:
    nodes: list[Node] = []
    place = 0
    while place < len(found):
        steps, rule = found[place]
        same = [each for each in found[place:] if each[0][:1] == steps[:1]]
        place += len(same)
        said = conditions.words(steps[0], money.formats)
        if len(same) == 1:
            said = gettext(" and ").join(conditions.words(step, money.formats) for step in steps)
            nodes.append(_leaf(said, rule, report, asked, money))
        else:
            nodes.append(Node(said, _nodes([(rest[1:], each) for rest, each in same], report, asked, money)))
    return nodes


def _leaf(said: str, rule: RuleFound, report: Uplift, asked: Asked, money: Amounts) -> Node:
    formats = money.formats
    return Node(
        words=said,
        variant=asked.name(rule.variant),
        users=ngettext("%(users)s user", "%(users)s users", rule.users, users=formats.count(rule.users)),
        share=formats.share(rule.users / report.users),
        effect="" if rule.effect is None else money.effect(rule.effect),
        total="" if rule.effect is None else money.sum(rule.effect.estimate * rule.users),
    )


def _values(report: Uplift, asked: Asked, money: Amounts) -> Grid:
    formats, rows = money.formats, []
    for each in report.policies:
        shares = [f"{asked.name(name)} {formats.share(share)}" for name, share in each.shares.items() if share > 0]
        control = each.policy == "constant" and each.variant == report.control
        rows.append(
            [
                policy_name(each, asked),
                "–" if each.policy == "constant" else formats.names(shares),
                gettext(
                    "%(estimate)s (%(lower)s to %(upper)s)",
                    estimate=money.level(each.value.estimate),
                    lower=money.level(each.value.lower),
                    upper=money.level(each.value.upper),
                ),
                "–" if control else money.effect(each.over_control),
                "–" if each.gain is None else money.effect(each.gain),
            ]
        )
    control_name = asked.name(report.control)
    return grid(
        [gettext("If you give"), gettext("Who gets what")],
        [
            gettext("Value per user"),
            gettext("More than “%(control)s”", control=control_name),
            gettext("More than the best for all"),
        ],
        rows,
    )


def _segments(report: Uplift, asked: Asked, money: Amounts) -> Grid:
    rows = [
        [
            asked.segment(each.segment),
            asked.name(each.variant),
            money.formats.count(each.users),
            "–" if each.effect is None else money.effect(each.effect),
        ]
        for each in report.segments
    ]
    more = gettext("More than “%(control)s”", control=asked.name(report.control))
    return grid([gettext("Segment"), gettext("Best variant")], [gettext("Users"), more], rows)


def _learners(report: Uplift, asked: Asked, money: Amounts) -> Grid:
    formats = money.formats
    variants = [rate.variant for rate in report.learners[0].rates]
    rows = []
    for each in report.learners:
        name = sentences.known(targeting.LEARNERS, each.learner)
        rates = [
            f"{'–' if rate.interval is None else money.effect(rate.interval)}, {p_is(rate.p_value, formats)}"
            for rate in each.rates
        ]
        chosen = gettext("chosen") if each.learner == report.best else ""
        seconds = gettext("%(seconds)s s", seconds=formats.plain(round(each.seconds, 1)))
        rows.append([name, chosen, money.effect(each.qini), *rates, money.effect(each.gain), seconds])
    lists = [gettext("AUTOC, “%(variant)s”", variant=asked.name(variant)) for variant in variants]
    numbers = [gettext("Qini area"), *lists, gettext("More than the best for all"), gettext("Time")]
    return grid([gettext("Learner"), gettext("Taken")], numbers, rows)


def _curve(report: Uplift, money: Amounts, formats: Formats) -> Part:
    chart = charts.curve(report)
    rows = [
        [
            formats.share(point.contacts / report.users),
            formats.count(point.contacts),
            money.total(point.realised),
            money.sum(charts.random_slope(report) * point.contacts),
        ]
        for point in report.budget.points
    ]
    numbers = [gettext("Users"), gettext("By the list"), gettext("At random")]
    # The first column names the row, and is a number all the same.
    return Part(
        "curve", gettext("How much the list is worth"), [], "", [chart], grid([gettext("Reached")], numbers, rows)
    )


def _ranked(toc: Toc, asked: Asked, money: Amounts) -> Part:
    """How much more the top of the list for a variant gains than all do."""
    formats, name = money.formats, asked.name(toc.variant)
    rows = [
        [
            formats.share(point.share),
            money.effect(point.above),
            formats.change(money.unit, toc.mean + point.above.estimate, money.known),
        ]
        for point in toc.points
    ]
    numbers = [gettext("More than all (TOC)"), gettext("Effect on them")]
    table = grid([gettext("Top of the list")], numbers, rows)
    unit = "share" if money.unit == "share" else "amount"
    return Part(f"toc-{toc.variant}", name, [], "", [charts.ranked(toc, unit)], table)


def _calibrations(report: Uplift, asked: Asked, money: Amounts) -> Iterator[Part]:
    unit = "share" if money.unit == "share" else "amount"
    for each in report.calibration:
        name = asked.name(each.variant)
        slope = (
            money.formats.plain(round(each.slope.estimate, 2)),
            *(money.formats.plain(round(end, 2)) for end in (each.slope.lower, each.slope.upper)),
        )
        said = gettext(
            "For each 1 that was predicted, %(slope)s came (%(lower)s to %(upper)s): 1 would be perfect, "
            "0 no information.",
            slope=slope[0],
            lower=slope[1],
            upper=slope[2],
        )
        rows = [
            [
                str(place),
                money.formats.count(found.users),
                money.formats.change(money.unit, found.predicted, money.known),
                money.effect(found.realised),
            ]
            for place, found in enumerate(each.bins, 1)
        ]
        table = grid([gettext("Tenth")], [gettext("Users"), gettext("Predicted"), gettext("Came")], rows)
        chart = charts.calibration(each, name, unit)
        yield Part(f"calibration-{each.variant}", name, [said], "", [chart], table)


def _method(report: Uplift, notes: Notes, formats: Formats) -> Iterator[tuple[str, str]]:
    method = report.method
    yield gettext("Learners"), formats.names([sentences.known(targeting.LEARNERS, each) for each in method.learners])
    yield (
        gettext("Cross-fitting"),
        gettext(
            "%(folds)s parts; nobody is judged by a model that has seen him; seed %(seed)s",
            folds=method.folds,
            seed=method.seed,
        ),
    )
    yield gettext("Chance of each variant"), sentences.known(targeting.SHARES, method.propensity)
    yield gettext("Intervals"), formats.percent(1 - method.alpha)
    if notes.excluded:
        yield (
            gettext("Left out"),
            ngettext(
                "%(users)s user who could not have got every variant",
                "%(users)s users who could not have got every variant",
                notes.excluded,
                users=formats.count(notes.excluded),
            ),
        )
