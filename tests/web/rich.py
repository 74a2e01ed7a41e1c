"""Reports with every part, made by the analysis of made-up rows: one for each way of planning an experiment."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
from msgspec import structs

from experiments import analysis
from experiments.design import Adapting, Design, MetricSpec, ValueSpec
from experiments.documents import Kind, parse
from experiments.fields import Direction, Role
from experiments.report import Report
from stats.groupsequential import Spending
from stats.posterior import Normal
from tests.experiments.rows import LATER, START, Event, Exposure, design, measure, spec
from tests.web import made

SEGMENTS = {"new": "New customers", "regular": "Regulars", "loyal": "Loyal customers"}


def _metric(key: str, kind: str, **fields: Any) -> Any:
    return parse(Kind.metric, {"key": key, "name": f"The {key}", "kind": kind, "window_days": 14} | fields)


SPEND = _metric("spend", "mean", terms=[{"event": "buy"}], unit="money", cap=120.0, lookback_days=14)
PATH = _metric("path", "funnel", steps=["open", "click", "buy"])
WAIT = _metric("wait", "time_to_event", event="buy")
LEAVE = _metric("leave", "conversion", event="leave", direction="down")


def _spec(metric: Any, role: Role, margin: float | None = None) -> MetricSpec:
    return spec(
        metric.key,
        metric.kind,
        name=metric.name,
        role=role,
        direction=Direction(metric.direction),
        margin=margin,
        unit=metric.unit,
        horizon_days=metric.horizon_days,
        window_days=metric.window_days,
    )


def _facts(
    chances: Mapping[str, float], harms: Mapping[str, float], users: int, strata: Sequence[str | None]
) -> tuple[list[Exposure], list[Event]]:
    """Users over 30 days; the chance of each to buy in a fortnight, and to leave, hangs on the variant."""
    rng = np.random.default_rng(20241122)
    exposures, events = [], []
    for number in range(users):
        variant, stratum = list(chances)[number % len(chances)], strata[number // len(chances) % len(strata)]
        user, at = f"u{number}", START + timedelta(hours=number * 720 // users)
        exposures.append(Exposure(user, variant, at, stratum, made.KEY))
        chance = chances[variant] * (1.5 if stratum == "loyal" else 1.0)
        taste, (opens, clicks, buys, leaves, due) = rng.gamma(2.0, 20.0), rng.random(5)
        after = [at + timedelta(hours=float(hours)) for hours in np.sort(rng.exponential(90, 3))]
        events.append(Event(user, "buy", at - timedelta(days=3), round(taste, 2)))
        if due < 0.6:
            events.append(Event(user, "due", at + timedelta(hours=1)))
        if opens < chance + 0.3:
            events.append(Event(user, "open", after[0]))
            if clicks < chance + 0.4:
                events.append(Event(user, "click", after[1]))
        if buys < chance:
            events.append(Event(user, "buy", after[2], round(taste * float(rng.uniform(0.5, 2.5)), 2)))
        if leaves < harms[variant]:
            events.append(Event(user, "leave", at + timedelta(days=5)))
    return exposures, events


def _report(plan: Design, uses: Mapping[MetricSpec, Any], facts: Any, **reach: Any) -> Report:
    sums = measure(*facts, list(uses.values()), name=made.KEY, as_of=LATER - timedelta(days=12), **reach)
    data = analysis.Data(
        sums.users,
        sums.forced,
        [(use, sums.metrics[use.key]) for use in uses],
        sums.days,
        slices=sums.slices,
        bounds=sums.bounds,
        placebo=sums.placebo,
        placebo_bounds=sums.placebo_bounds,
        received=sums.received,
        triggered=sums.triggered,
    )
    report = analysis.build(plan, data, as_of=LATER - timedelta(days=12), watermark=1)
    return structs.replace(report, experiment=made.KEY)


@cache
def frequency() -> Report:
    """Read at any time: four frequencies, three segments, every kind of detail, a tactic that reaches some."""
    names = {"none": "No message", "one": "One a week", "two": "Two a week", "four": "Four a week"}
    uses = {
        _spec(SPEND, Role.primary): SPEND,
        _spec(PATH, Role.secondary): PATH,
        _spec(WAIT, Role.secondary): WAIT,
        _spec(LEAVE, Role.guardrail, 0.04): LEAVE,
    }
    plan = design(
        {segment: dict.fromkeys(names, 0.25) for segment in SEGMENTS},
        experiment=made.KEY,
        control="none",
        variants=names,
        segments=SEGMENTS,
        method="sequential",
        planned_users=6000,
        doses=dict(zip(names, (0.0, 1.0, 2.0, 4.0), strict=True)),
        ghosts=True,
        value=ValueSpec("spend", 0.5, 100_000, "CNY", {"none": 0.0, "one": 0.1, "two": 0.2, "four": 0.4}),
    )
    chances = dict(zip(names, (0.15, 0.26, 0.34, 0.28), strict=True))
    harms = dict(zip(names, (0.02, 0.025, 0.03, 0.06), strict=True))
    return _report(plan, uses, _facts(chances, harms, 6000, list(SEGMENTS)), received="open", trigger="due")


@cache
def factors() -> Report:
    """Read at planned looks: two factors, all pairs, the money of the best, an effect that hangs on chance."""
    names = {"none": "Plain", "urgent": "Urgent copy", "coupon": "Coupon", "both": "Urgent copy and coupon"}
    levels = [{"copy": copy, "offer": offer} for offer in ("none", "coupon") for copy in ("plain", "urgent")]
    plan = design(
        {None: dict.fromkeys(names, 0.25)},
        experiment=made.KEY,
        control="none",
        variants=names,
        method="group_sequential",
        planned_users=6000,
        looks=(0.25, 0.5, 0.75, 1.0),
        spending=Spending("obrien_fleming"),
        futility=0.1,
        pairs=True,
        factors=dict(zip(names, levels, strict=True)),
    )
    chances = dict(zip(names, (0.10, 0.16, 0.20, 0.22), strict=True))
    uses = {_spec(SPEND, Role.primary): SPEND, _spec(LEAVE, Role.guardrail, 0.02): LEAVE}
    return _report(plan, uses, _facts(chances, dict.fromkeys(names, 0.02), 4000, [None]), received="open")


@cache
def belief() -> Report:
    """Read by Bayes, under a prior."""
    names = {"none": "Plain", "ten": "Ten yuan"}
    plan = design(
        {None: dict.fromkeys(names, 0.5)},
        experiment=made.KEY,
        control="none",
        variants=names,
        method="bayes",
        correction="none",
        planned_users=4000,
        prior=Normal(0.0, 0.1),
    )
    chances = {"none": 0.15, "ten": 0.19}
    facts = _facts(chances, dict.fromkeys(names, 0.02), 2000, [None])
    return _report(plan, {_spec(SPEND, Role.primary): SPEND}, facts)


@cache
def waves() -> Report:
    """Shares that followed the evidence over three waves."""
    names = {"none": "Plain", "ten": "Ten yuan", "urgent": "Urgent copy"}
    shares = [(1 / 3, 1 / 3, 1 / 3), (0.1, 0.62, 0.28), (0.1, 0.8, 0.1)]
    given = {f"{made.KEY}:{i}": dict(zip(names, part, strict=True)) for i, part in enumerate(shares, 1)}
    plan = design(
        dict(given),
        experiment=made.KEY,
        control="none",
        variants=names,
        segments={},
        members={},
        dimensions={},
        method="sequential",
        planned_users=6000,
        adapting=Adapting(
            "spend",
            0.1,
            {wave: ((START + timedelta(days=10 * i)).isoformat(), 0.3) for i, wave in enumerate(given)},
        ),
    )
    chances = {"none": 0.12, "ten": 0.24, "urgent": 0.15}
    exposures, events = _facts(chances, dict.fromkeys(names, 0.02), 6000, list(given))
    # Of each wave only so many stay as its shares ask for: users come evenly over the variants.
    luck = np.random.default_rng(7).random(len(exposures))
    kept = [
        exposure
        for exposure, drawn in zip(exposures, luck, strict=True)
        if drawn < given[str(exposure.stratum)][exposure.variant] / max(given[str(exposure.stratum)].values())
    ]
    users = {exposure.user_id for exposure in kept}
    uses = {_spec(SPEND, Role.primary): SPEND, _spec(LEAVE, Role.guardrail, 0.04): LEAVE}
    return _report(plan, uses, (kept, [event for event in events if event.user_id in users]))


REPORTS = {"frequency": frequency, "factors": factors, "belief": belief, "waves": waves}
