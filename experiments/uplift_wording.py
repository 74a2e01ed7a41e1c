"""The answer about uplift in plain words and tables of text: a short report for who has to decide."""

from collections.abc import Iterator, Mapping
from math import floor, log10

from experiments.report import Interval
from experiments.uplift.report import PolicyValue, Uplift
from experiments.wording import Grid, Numbers

LEARNER_NAMES: Mapping[str, str] = {
    "s": "S-learner",
    "t": "T-learner",
    "x": "X-learner",
    "r": "R-learner",
    "dr": "DR-learner",
    "forest": "uplift forest",
}
_QUADRANTS: Mapping[str, str] = {
    "persuadable": "persuadables: gain more than most",
    "sure_thing": "sure things: come anyway, gain less",
    "lost_cause": "lost causes: rarely come, gain less",
    "do_not_disturb": "do not disturb: lose by it",
}
# Titles of tables that have a drawing too.
POLICIES = "what it is worth, net of costs"
DRIVERS = "what the predicted effects rest on"
TOC = "how much more the top of the list gains than all do (TOC)"
BUDGET = "the best use of each budget, by the list"
_BUDGET_ROWS = (0.1, 0.25, 0.5, 0.75, 1.0)
_TOC_ROWS = (0.1, 0.2, 0.3, 0.5, 0.75)


def numbers(report: Uplift) -> Numbers:
    """Return how amounts are written: to the precision that their errors allow."""
    widths = [each.over_control.upper - each.over_control.lower for each in report.policies]
    error = max(widths) / 4 * (100 if report.unit == "share" else 1)
    return Numbers(report.unit, min(max(1 - floor(log10(error)), 0), 8) if error > 0 else 4)


def heading(report: Uplift) -> str:
    """Return what was asked."""
    what = report.outcome + (f" × {report.value}" if report.value else "")
    return f"{report.name}: {report.users:,} users, effect on {what} against {report.control}"


def advice(report: Uplift) -> list[str]:
    """Return what to do, and why, a sentence a line."""
    confidence = f"{1 - report.method.alpha:.0%}"
    match report.verdict:
        case "target":
            best = max((each for each in report.policies if each.gain is not None), key=_gain)
            return [
                "Give different users different variants.",
                f"{_policy(best)} gains {_written(report, best.gain)} per user over the best single variant "
                f"({confidence} interval).",
            ]
        case "rank":
            return [
                f"If all can be reached, give everyone {report.variant}; if not, take users from the top of the list.",
                "The list is better than chance, yet no choice of variants by user is shown to beat one for all.",
            ]
        case "everyone":
            return [f"No usable difference between users was found: give everyone {report.variant}."]
        case "nobody":
            return [
                "No usable difference between users was found, and every variant loses more than it brings: "
                "keep the control."
            ]
        case "invalid":
            return [
                f"Do not use this: the predictions know who got {report.leakage.variant} "
                f"(p = {report.leakage.p_value:.2g}).",
                "A feature was known only after the treatment, or the split was not the one that was stated.",
            ]
    return ["No usable difference between users was found, and no variant is shown to be better than the control."]


def usable(report: Uplift) -> str:
    """Return whether any list is better than a random one."""
    found = "users differ in what they gain" if report.usable else "no list of users is better than a random one"
    return f"{found} (p = {report.p_value:.2g}, adjusted for all learners and variants)"


def grids(report: Uplift) -> Iterator[Grid]:
    """Return the tables."""
    yield _arms(report)
    yield _policies(report)
    if report.segments:
        yield _segments(report)
    yield _learners(report)
    if report.rules:
        yield _rules(report)
    if report.quadrants:
        yield _quadrants(report)
    if report.drivers:
        rows = [[each.feature, f"{each.share:.0%}"] for each in report.drivers]
        yield Grid(DRIVERS, ("feature", "lost when shuffled"), rows)
    if report.toc:
        yield _toc(report)
    yield _budget(report)


def notes(report: Uplift) -> Iterator[str]:
    """Return what else is to be known, a line each."""
    for each in report.calibration:
        slope = each.slope
        yield (
            f"{each.variant}: realised effects move {slope.estimate:.2f} [{slope.lower:.2f}, {slope.upper:.2f}] "
            "for each 1 predicted"
        )
    if report.budget.at is not None and report.budget.next is not None:
        at, amounts = report.budget.at, numbers(report)
        yield (
            f"the budget: {at.spend:,.2f} spent on {at.contacts:,} users brings {_total(report, at.realised)}; "
            f"one per cent of the whole spend more brings {amounts.change(report.budget.next)}"
            + ("" if at.next_thousand is None else f", and 1,000 more {at.next_thousand:+,.2f}")
        )


def _arms(report: Uplift) -> Grid:
    amounts = numbers(report)
    rows = [[arm.variant, f"{arm.users:,}", amounts.level(arm.mean), f"{arm.cost:g}"] for arm in report.arms]
    return Grid("", ("variant", "users", "mean", "cost"), rows)


def _policies(report: Uplift) -> Grid:
    rows = []
    for each in report.policies:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in each.shares.items() if share > 0)
        gain = "" if each.gain is None else _written(report, each.gain)
        rows.append([policy_name(each), "" if each.policy == "constant" else shares, _level(report, each.value), gain])
    columns = "policy", "who gets what", "value per user", "gain over the best for all"
    return Grid(POLICIES, columns, rows, labels=2)


def _segments(report: Uplift) -> Grid:
    rows = [
        [each.segment, each.variant, f"{each.users:,}", "" if each.effect is None else _written(report, each.effect)]
        for each in report.segments
    ]
    columns = "segment", "best variant", "users", "effect (on the users it was chosen by)"
    return Grid("the best variant of each segment", columns, rows, labels=2)


def _toc(report: Uplift) -> Grid:
    rows = []
    for place, first in enumerate(report.toc[0].points):
        if any(abs(first.share - share) < 1e-9 for share in _TOC_ROWS):
            cells = [_written(report, each.points[place].above) for each in report.toc]
            rows.append([f"the first {first.share:.0%}", *cells])
    return Grid(TOC, ("of the list", *(each.variant for each in report.toc)), rows)


def _learners(report: Uplift) -> Grid:
    rows = []
    for each in report.learners:
        name = LEARNER_NAMES[each.learner] + (" *" if each.learner == report.best else "")
        rates = [
            cell
            for rate in each.rates
            for cell in ("" if rate.interval is None else _written(report, rate.interval), f"{rate.p_value:.2g}")
        ]
        score = numbers(report).change(each.score)
        rows.append([name, score, _written(report, each.qini), *rates, f"{each.seconds:.1f} s"])
    variants = [cell for rate in report.learners[0].rates for cell in (f"AUTOC {rate.variant}", "p")]
    return Grid("how well each learner ranks users it has not seen", ("", "score", "Qini", *variants, "time"), rows)


def _rules(report: Uplift) -> Grid:
    rows = [
        [each.words, each.variant, f"{each.users:,}", "" if each.effect is None else _written(report, each.effect)]
        for each in report.rules
    ]
    return Grid("the same as rules", ("if", "give", "users", "effect (on the users it was made of)"), rows, labels=2)


def _quadrants(report: Uplift) -> Grid:
    rows = [
        [
            _QUADRANTS[each.quadrant],
            f"{each.users:,}",
            f"{each.share:.0%}",
            numbers(report).level(each.baseline),
            "too few to say" if each.effect is None else _written(report, each.effect),
            "" if each.total is None else _total(report, each.total),
        ]
        for each in report.quadrants
    ]
    columns = "", "users", "share", "without it", "effect", "in total"
    return Grid(f"the users, by what {report.quadrants[0].variant} does to them, net of its cost", columns, rows)


def _budget(report: Uplift) -> Grid:
    points = report.budget.points
    whole = points[-1].spend
    chosen = dict.fromkeys(
        min(points, key=lambda point: abs(point.spend - share * whole)).spend for share in _BUDGET_ROWS
    )
    rows = [
        [
            f"{point.spend:,.0f}",
            f"{point.contacts:,}",
            _total(report, point.realised),
            "" if point.next_thousand is None else f"{point.next_thousand:+,.0f}",
        ]
        for point in points
        if point.spend in chosen and point.spend > 0
    ]
    spent = "spent" if report.budget.unit == "money" else "contacts"
    columns = spent, "users", "brings in total, before costs", f"the next 1,000 {'' if spent == 'spent' else spent}"
    return Grid(BUDGET, tuple(column.strip() for column in columns), rows)


def policy_name(policy: PolicyValue) -> str:
    """Return what a policy is called."""
    return f"everyone {policy.variant}" if policy.policy == "constant" else _policy(policy)


def method(report: Uplift) -> str:
    """Return how the numbers were made."""
    method = report.method
    shares = {
        "weights": "the designed split",
        "counts": "shares as counted",
        "strata": "shares as counted in each stratum",
        "chances": "the known chance of each user",
    }[method.propensity]
    learners = ", ".join(LEARNER_NAMES[learner] for learner in method.learners)
    return f"{method.folds} folds, seed {method.seed}, {shares}; learners: {learners}"


def _policy(policy: PolicyValue) -> str:
    match policy.policy:
        case "segments":
            return "in each segment its best"
        case "model":
            return "each what the model says"
    return "each what the rules say"


def _gain(policy: PolicyValue) -> float:
    assert policy.gain is not None
    return policy.gain.lower


def _written(report: Uplift, interval: Interval | None) -> str:
    return "" if interval is None else numbers(report).interval(interval)


def _level(report: Uplift, interval: Interval) -> str:
    amounts = numbers(report)
    return f"{amounts.level(interval.estimate)} [{amounts.level(interval.lower)}, {amounts.level(interval.upper)}]"


def _total(report: Uplift, interval: Interval) -> str:
    return f"{interval.estimate:+,.0f} [{interval.lower:+,.0f}, {interval.upper:+,.0f}]"
