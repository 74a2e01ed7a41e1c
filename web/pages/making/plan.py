"""The planner's answer in plain words: users and days needed, what can be seen in the time there is, the numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import sqrt
from typing import Any, Final

from experiments import planner
from experiments.errors import InvalidDocument
from experiments.planner.baselines import Member, Population, found
from experiments.planner.forecasts import best
from experiments.sdk.assignment import compile_experiment
from experiments.sdk.experiment import Reason
from experiments.store import Store
from web import sentences
from web.formats import Formats
from web.languages import gettext, ngettext
from web.pages.making.build import Built, is_share
from web.pages.making.form import Reader, one

# So often the effect planned for is found: the usual chance, and the careful one that the longer time gives.
USUAL: Final = 0.8
CAREFUL: Final = 0.95


@dataclass(frozen=True, slots=True)
class PlanView:
    """What is said of a plan; ``users`` is the number of users proposed."""

    sentences: list[str] = field(default_factory=list)
    numbers: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""
    users: int | None = None
    baseline: str = ""
    spread: str = ""


def draft_rule(document: Mapping[str, Any], snapshot: Mapping[str, Any], segments: list[dict[str, Any]]) -> Any:
    """Compile who would take part, whatever the variants will be."""
    parts = {name: document.get(name) for name in ("audience", "layer", "holdouts", "strata", "coverage")}
    arms = [{"key": "a"}, {"key": "b"}]
    fixed = {"key": document["key"], "revision": 1, "phase": 1, "salt": "draft", "status": "running"}
    whole = dict(snapshot) | {"segments": [*snapshot["segments"], *segments]}
    strata = [stratum | {"weights": None} for stratum in parts["strata"] or []]
    rest: dict[str, Any] = {"weights": None, "control": "a", "forced": {}, "variants": arms, "strata": strata}
    return compile_experiment(fixed | parts | rest, whole)


def signature(metric: Any, document: Mapping[str, Any], segments: list[dict[str, Any]]) -> str:
    """What a measurement hangs on; another one, and it has to be repeated."""
    audience = {name: document.get(name) for name in ("audience", "layer", "holdouts", "strata", "coverage")}
    return json.dumps([metric.to_json(), audience, segments], sort_keys=True)


def measured(store: Store, metric: Any, rule: Any, *, now: datetime) -> dict[str, Any]:
    """Measure the main metric among those who would take part, as it was lately."""

    def judge(user: str, attributes: Mapping[str, Any]) -> Member | None:
        reason = rule.assign(user, attributes).reason
        if reason not in (Reason.assigned, Reason.not_covered):
            return None
        return Member(None, reason is Reason.assigned)

    answer = found(Population.of(store, judge, now), metric)
    base = answer.baseline
    return {
        "mean": None if base is None else base.mean,
        "sd": None if base is None else sqrt(base.variance * (1 - base.reduction)),
        "users": answer.users,
        "weekly": answer.weekly,
        "measured": answer.measured,
        "problem": None if answer.problem is None else str(answer.problem),
        "as_of": now.isoformat(),
    }


def view(
    fields: Mapping[str, list[str]],
    built: Built,
    metric: Any,
    seen: dict[str, Any] | None,
    formats: Formats,
    *,
    now: datetime,
) -> PlanView:
    """Ask the planner by the numbers typed, or else measured, and say what it answers."""
    if metric is None:
        return PlanView(problem=gettext("First choose the main metric."))
    reader = Reader(dict(fields))
    share = is_share(metric)
    top = 100.0 if share else 1e12
    typed = reader.number("baseline", 0.0 if share else -1e12, top, scale=0.01 if share else 1.0)
    spread = reader.number("spread", 0, 1e12)
    lift, weeks = reader.number("lift", 0.1, 1000, scale=0.01), reader.whole("weeks", 1, 104)
    for trouble in reader.troubles:
        if trouble.field not in {each.field for each in built.troubles}:
            built.troubles.append(trouble)
    known = seen or {}
    mean = known.get("mean") if typed is None else typed
    sd = spread or known.get("sd")
    suggested = PlanView(
        baseline="" if known.get("mean") is None else _plain(known["mean"] * (100 if share else 1)),
        spread="" if known.get("sd") is None else _plain(known["sd"]),
    )
    if reader.troubles:
        return PlanView(problem=gettext("Correct the numbers above first."), **_kept(suggested))
    if mean is None or not mean or (share and not 0 < mean < 1) or (not share and not sd):
        text = gettext("Nothing is known of this metric yet. Type what you expect below, and the plan follows.")
        if known.get("problem") and known.get("measured", 0):
            text = f"{sentences.known(sentences.PROBLEMS, known['problem'])} {text}"
        return PlanView(problem=text, **_kept(suggested))
    base = {"kind": "conversion", "rate": mean} if share else {"kind": "mean", "mean": mean, "sd": sd}
    method = one(dict(fields), "method", "sequential")
    body: dict[str, Any] = {
        "baseline": base,
        "lift": lift or 0.1,
        "weeks": weeks or 4,
        "arms": max(len(built.document.get("variants", ())), 2),
        "method": method if method in ("sequential", "fixed") else "fixed",
        "window_days": metric.horizon_days,
        "direction": str(metric.direction),
    }
    if known.get("users"):
        body |= {"users": known["users"], "weekly": known.get("weekly") or 0.0}
    try:
        usual, careful = (
            planner.answer(planner.parse(body | {"power": power}), None, now=now).plans[0] for power in (USUAL, CAREFUL)
        )
    except InvalidDocument as error:
        return PlanView(problem="; ".join(problem.remedy for problem in error.problems), **_kept(suggested))
    return _told(usual, careful, metric, mean, body, known, suggested, formats)


def _kept(suggested: PlanView) -> dict[str, Any]:
    return {"baseline": suggested.baseline, "spread": suggested.spread}


def _told(
    usual: Any,
    careful: Any,
    metric: Any,
    mean: float,
    body: Mapping[str, Any],
    known: Mapping[str, Any],
    suggested: PlanView,
    formats: Formats,
) -> PlanView:
    made = usual.forecast
    if made is None or made.needed is None:
        problem = usual.problem if made is None else made.problem
        text = sentences.known(sentences.PROBLEMS, problem) if problem else gettext("The plan cannot be reckoned.")
        return PlanView(problem=text, **_kept(suggested))
    lift = body["lift"] if metric.direction == "up" else -body["lift"]
    level = formats.level(metric.unit, mean)
    after = formats.level(metric.unit, mean + lift * abs(mean))
    users = made.needed.users
    facts = {"lift": formats.percent(body["lift"]), "level": level, "after": after, "users": formats.count(users)}
    said = [
        gettext("To notice a change of %(lift)s (from %(level)s to %(after)s) you need about %(users)s users.", **facts)
    ]
    said.append(_days(made.needed, careful.forecast.needed, known, formats))
    if made.needed.weeks is not None and made.needed.weeks > body["weeks"]:
        said.append(
            gettext(
                "That is longer than you have: look for a larger change, try fewer variants, or widen the audience."
            )
        )
    reached = best(made.weeks) if made.weeks else None
    if reached is not None and reached.detectable is not None:
        relative = reached.detectable.relative
        size = formats.percent(relative) if relative else formats.level(metric.unit, reached.detectable.absolute)
        said.append(
            ngettext(
                "In one week you could notice a change of %(size)s or more.",
                "In %(num)s weeks you could notice a change of %(size)s or more.",
                body["weeks"],
                size=size,
            )
        )
    numbers = [
        (gettext("Today’s level of “%(metric)s”", metric=metric.name), level),
        (gettext("Variants"), formats.count(len(usual.shares))),
        (gettext("Watched after exposure"), ngettext("%(num)s day", "%(num)s days", metric.horizon_days)),
        (gettext("Chance to notice the change if it is there"), formats.percent(USUAL)),
        (gettext("Chance of a false alarm"), formats.percent(0.05)),
    ]
    if not metric_is_share(body):
        numbers.insert(1, (gettext("Spread of one user"), formats.plain(body["baseline"]["sd"])))
    if known.get("users"):
        numbers.append((gettext("Users who can take part now"), formats.count(known["users"])))
        weekly = known.get("weekly")
        text = gettext("not known yet") if weekly is None else formats.count(round(weekly))
        numbers.append((gettext("New users a week"), text))
    return PlanView([text for text in said if text], numbers, "", users, **_kept(suggested))


def metric_is_share(body: Mapping[str, Any]) -> bool:
    """Whether the plan is one of shares."""
    return bool(body["baseline"]["kind"] == "conversion")


def _days(low: Any, high: Any, known: Mapping[str, Any], formats: Formats) -> str:
    """The time as a range: the shorter is enough in 8 of 10 such tests, the longer in 19 of 20."""
    if not known.get("users"):
        return gettext("How long that takes is not known: no users are on record yet.")
    if low.weeks is None:
        return gettext("So many users will not come: look for a larger change, or widen the audience.")
    shorter = formats.count(low.weeks * 7)
    if high is None or high.weeks is None:
        return gettext("That takes at least %(days)s days, until the last users have been watched.", days=shorter)
    if high.weeks == low.weeks:
        return gettext("That takes about %(days)s days, until the last users have been watched.", days=shorter)
    longer = formats.count(high.weeks * 7)
    return gettext(
        "That takes %(low)s to %(high)s days: the shorter is enough in 8 of 10 such tests, the longer in 19 of 20.",
        low=shorter,
        high=longer,
    )


def _plain(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
