"""A plan in words and rows: one sentence first, then what would help, then the weeks; for the terminal and for CSV."""

import csv
import io
from collections.abc import Iterator

from experiments.planner.answers import MetricPlan, PlanAnswer
from experiments.planner.forecasts import Advice, AdviceCode, Forecast, Size, best

COLUMNS = (
    "metric",
    "segment",
    "role",
    "week",
    "enrolled",
    "matured",
    "detectable",
    "detectable_relative",
    "problem",
    "users_needed",
    "weeks_needed",
)


def rows(answer: PlanAnswer) -> list[dict[str, object]]:
    """One row for each week of each metric and segment; one row without a week where nobody knows who comes."""
    return [row for plan in answer.plans for row in _rows(plan)]


def as_csv(answer: PlanAnswer) -> str:
    """The rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(answer))
    return text.getvalue()


TITLES = ("week", "enrolled", "matured", "detectable", "relative")


def heading(plan: MetricPlan) -> Iterator[str]:
    """What an answer is about, where it is one of several."""
    if plan.name is not None:
        yield f"{plan.name} ({plan.role}{'' if plan.segment is None else f', {plan.segment}'})"


def table(plan: MetricPlan) -> list[dict[str, object]]:
    """The weeks as people read them."""
    return [
        {
            "week": week.week,
            "enrolled": f"{week.enrolled:,}",
            "matured": f"{week.matured:,}",
            "detectable": _words(week.problem or "") if week.detectable is None else _absolute(plan, week.detectable),
            "relative": "" if week.detectable is None else _relative(week.detectable),
        }
        for week in (() if plan.forecast is None else plan.forecast.weeks)
    ]


def sentences(plan: MetricPlan, answer: PlanAnswer) -> Iterator[str]:
    """What was asked, in one sentence; then what would help, and how it was reckoned."""
    made = plan.forecast
    if made is None or made.problem is not None:
        problem = plan.problem if made is None else made.problem
        yield f"Nothing can be planned: {_words(str(problem))}."
        return
    yield f"{_first(plan, made, answer)}."
    for advice in made.advice:
        if advice.code in _HELPS:
            yield f"{_HELPS[advice.code].format(correlation=advice.correlation)}: {_gained(plan, advice)}."
    if made.planned is not None and made.planned.detectable is not None:
        yield f"The {made.planned.users:,} users planned can {_show(plan, made.planned.detectable)}."
    rule = "" if made.multiplier == 1 else f", {made.multiplier:.2f} times the users of a single look"
    yield f"Power {answer.power:.4g}, level {made.level:.3g} a comparison, {_words(answer.method)}{rule}."
    if plan.baseline is not None and plan.baseline.selected == "today":
        yield "The users behind the baseline were chosen by today's attributes: none older are on record."


def _first(plan: MetricPlan, made: Forecast, answer: PlanAnswer) -> str:
    reached, needed = best(made.weeks), made.needed
    detectable = None if reached is None else reached.detectable
    if needed is None:
        if reached is None or detectable is None:
            return f"Nothing can be shown in {_weeks(answer.weeks)}"
        return f"With {reached.matured:,} users you can {_show(plan, detectable)} in {_weeks(reached.week)}"
    arms = " + ".join(f"{users:,}" for users in needed.arms.values())
    asked = plan.effect if plan.margin is None or plan.effect is None else Size(plan.margin, None)
    text = f"To {'' if asked is None else _show(plan, asked)} you need {needed.users:,} users ({arms})"
    if needed.expected_users is not None:
        text += f", {needed.expected_users:,.0f} on average as a look may end it"
    if needed.weeks is not None:
        text += f": {_weeks(needed.weeks)}"
    if any(advice.code is AdviceCode.fine for advice in made.advice) or not made.weeks:
        return text
    if reached is None or detectable is None:
        return f"{text}; nothing can be shown in {_weeks(answer.weeks)}"
    return f"{text}; in {_weeks(reached.week)} {reached.matured:,} users can {_show(plan, detectable)}"


_HELPS = {
    AdviceCode.drop_an_arm: "With the smallest arm dropped",
    AdviceCode.use_covariate: "With covariates of correlation {correlation:.2f}",
    AdviceCode.plan_looks: "With five planned looks instead",
    AdviceCode.touch_cap_binds: "Without the cap on touches",
}


def _gained(plan: MetricPlan, advice: Advice) -> str:
    parts = []
    if advice.users is not None:
        parts.append(f"{advice.users:,} users")
    if advice.weeks is not None:
        parts.append(_weeks(advice.weeks))
    if advice.detectable is not None:
        parts.append(f"the users there are can {_show(plan, advice.detectable)}")
    return ", ".join(parts)


def _show(plan: MetricPlan, found: Size) -> str:
    """What is shown of a size: shares are told in points."""
    relative = _relative(found)
    verb = "detect" if plan.margin is None else "rule out a loss of"
    return f"{verb} {_absolute(plan, found)}{relative and f' ({relative})'}"


def _absolute(plan: MetricPlan, found: Size) -> str:
    return f"{found.absolute * 100:.3g} points" if plan.unit == "share" else f"{found.absolute:.3g}"


def _relative(found: Size) -> str:
    return "" if found.relative is None else f"{found.relative:.1%}"


def _weeks(count: int) -> str:
    return "1 week" if count == 1 else f"{count} weeks"


def _words(code: str) -> str:
    return code.replace("_", " ")


def _rows(plan: MetricPlan) -> Iterator[dict[str, object]]:
    made = plan.forecast
    needed = None if made is None else made.needed
    common: dict[str, object] = {
        "metric": plan.metric,
        "segment": plan.segment,
        "role": plan.role,
        "problem": plan.problem if made is None else made.problem,
        "users_needed": None if needed is None else needed.users,
        "weeks_needed": None if needed is None else needed.weeks,
    }
    empty: dict[str, object] = dict.fromkeys(COLUMNS)
    if made is None or not made.weeks:
        yield empty | common
        return
    for week in made.weeks:
        found = week.detectable
        yield (
            empty
            | common
            | {
                "week": week.week,
                "enrolled": week.enrolled,
                "matured": week.matured,
                "detectable": None if found is None else found.absolute,
                "detectable_relative": None if found is None else found.relative,
                "problem": week.problem,
            }
        )
