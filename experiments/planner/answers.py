"""Answers to requests: a baseline given or measured, the arms and rules of the documents, and the forecast."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

from experiments import registry
from experiments.documents import Experiment, Kind
from experiments.errors import FieldProblem, InvalidDocument
from experiments.fields import Direction, Role
from experiments.planner import baselines
from experiments.planner.baselines import Found, Member, Population
from experiments.planner.forecasts import Baseline, Capacity, Forecast, Question, Size, Stopping, forecast
from experiments.planner.requests import (
    ExperimentPlanRequest,
    MeasuredBaseline,
    Request,
    given,
    spending_function,
)
from experiments.sdk.assignment import Reason, compile_experiment
from experiments.store import Store
from stats.errors import Problem
from stats.power import Looks


@dataclass(frozen=True, slots=True)
class BaselineUsed:
    """The baseline: its mean, the sd of one user, what covariates remove of the variance, who gave it."""

    mean: float
    sd: float
    reduction: float
    possible: float | None
    users: int | None
    selected: Literal["given", "then", "today"]


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """What can be shown on one metric, in everyone or in one segment; a problem where there is no baseline."""

    metric: str | None
    name: str | None
    segment: str | None
    role: str
    unit: str
    window_days: int
    shares: dict[str, float]
    users: int | None
    weekly: float | None
    baseline: BaselineUsed | None
    effect: Size | None
    margin: float | None
    forecast: Forecast | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """The answer to a request; ``weeks`` is the time there is."""

    experiment: str | None
    method: str
    alpha: float
    power: float
    weeks: int
    plans: list[MetricPlan]


def answer(request: Request, store: Store | None, *, now: datetime) -> PlanAnswer:
    """Answer a request; ``store`` may be None where ``needs_store`` says so.

    Raises:
        InvalidDocument: the effect cannot be.
        NotFound: no such experiment, metric or segment.
    """
    if isinstance(request, ExperimentPlanRequest):
        assert store is not None
        return for_experiment(store, request, now=now)
    base = request.baseline
    about, users, weekly = _About(), request.users, request.weekly
    if isinstance(base, MeasuredBaseline):
        assert store is not None
        with store.read() as session:
            metric = registry.get(session, Kind.metric, base.metric)
        found = baselines.measure(store, base.metric, now=now, segment=base.segment, condition=base.condition)
        about = _About(metric.key, metric.name, base.segment, metric.unit, metric.direction, metric.horizon_days)
        users = found.users if users is None else users
        weekly = found.weekly if weekly is None else weekly
    else:
        found = Found(given(base), None, 0, None, 0, "given")
        if base.kind == "conversion":
            about = _About(unit="share")
    if request.correlation is not None and found.baseline is not None:
        found = replace(found, baseline=replace(found.baseline, reduction=request.correlation**2, possible=None))
    if request.window_days is not None:
        about = replace(about, window_days=request.window_days)
    ask = partial(
        Question,
        shares=request.shares,
        direction=request.direction or about.direction,
        alpha=request.alpha,
        corrected=request.correction != "none",
        metrics=request.metrics,
        stopping=request.stopping,
        capacity=_capacity(users, weekly, 0.0 if request.touch_cap is None else request.touch_cap.weeks),
    )
    role = Role.primary if request.margin is None else Role.guardrail
    about = replace(about, role=role, margin=request.margin, users=users, weekly=weekly)
    plans = [_plan(about, found, ask, request)]
    return PlanAnswer(None, request.method, request.alpha, request.power, request.weeks, plans)


def for_experiment(store: Store, request: ExperimentPlanRequest, *, now: datetime) -> PlanAnswer:
    """What an experiment can show on each of its metrics, in everyone and in each stratum, by its documents.

    The level of a comparison is that of the analysis: the primary metric's comparisons are one family, those of all
    secondary metrics another, those of the segments of a metric another; guardrails are tested each at alpha. Holm
    claims no less than Bonferroni, by whom this plans. A plan of ``bayes`` is planned as one look.
    """
    with store.read() as session:
        experiment: Experiment = registry.get(session, Kind.experiment, request.experiment)
        # Adaptive shares are planned as the equal ones they start from, before any wave is open.
        experiment = experiment.model_copy(update={"waves": []})
        uses = registry.metric_uses(session, experiment)
        judge = _judge(experiment, registry.snapshot(session))
    population = Population.of(store, judge, now)
    plan, shares = experiment.plan, experiment.shares()
    stopping: Stopping = "sequential" if plan.method == "sequential" else "fixed"
    if plan.method == "group_sequential":
        stopping = Looks(tuple(plan.looks or ()), spending_function(plan.spending))
    secondary = sum(role is Role.secondary for _, role, _, _ in uses)
    plans = []
    for metric, role, margin, _ in uses:
        guardrail = role is Role.guardrail
        probed = baselines.probing(metric)
        measured, selected = population.measured(probed)
        read = partial(
            baselines.read,
            population,
            probed,
            measured,
            selected,
            in_use=probed is metric,
            weeks=baselines.RECENT_WEEKS,
        )
        parts = {stratum: read(strata=[stratum]) for stratum in shares if stratum is not None}
        whole, split = _together(read(strata=None), parts, shares, experiment.control)
        for stratum, found, arms in [(None, whole, split), *((s, f, shares[s]) for s, f in parts.items())]:
            about = _About(
                metric.key,
                metric.name,
                stratum,
                metric.unit,
                metric.direction,
                metric.horizon_days,
                role,
                margin if guardrail else None,
                found.users,
                found.weekly,
                experiment.control,
            )
            ask = partial(
                Question,
                shares=_arms(arms, experiment.control),
                direction=metric.direction,
                alpha=plan.alpha,
                corrected=plan.correction != "none" and not guardrail,
                pairs=plan.comparisons == "all_pairs" and stratum is None,
                metrics=len(parts) if stratum is not None else secondary if role is Role.secondary else 1,
                stopping=stopping,
                capacity=_capacity(found.users, found.weekly, _rollout(experiment, request)),
                planned_users=plan.planned_users if stratum is None else None,
            )
            plans.append(_plan(about, found, ask, request))
    return PlanAnswer(experiment.key, plan.method, plan.alpha, request.power, request.weeks, plans)


@dataclass(frozen=True, slots=True)
class _About:
    """What an answer is about."""

    metric: str | None = None
    name: str | None = None
    segment: str | None = None
    unit: str = "number"
    direction: Direction = Direction.up
    window_days: int = 0
    role: Role = Role.primary
    margin: float | None = None
    users: int | None = None
    weekly: float | None = None
    control: str = "control"


def _plan(about: _About, found: Found, ask: "partial[Question]", request: Request) -> MetricPlan:
    base, problem = found.baseline, found.problem
    shares, effect, made, used = ask.keywords["shares"], None, None, None
    if base is not None:
        used = BaselineUsed(
            base.mean,
            math.sqrt(base.variance),
            base.reduction,
            base.possible,
            None if found.selected == "given" else found.measured,
            found.selected,
        )
    if next(iter(shares)) != about.control or len(shares) < 2:
        problem = Problem.NO_CONTROL
    elif base is not None:
        question = ask(
            baseline=base,
            effect=_effect(about, base, request),
            margin=about.margin,
            power=request.power,
            horizon_days=about.window_days,
            weeks=request.weeks,
        )
        effect = None if question.effect is None else question.size(question.effect)
        made = forecast(question)
    return MetricPlan(
        about.metric,
        about.name,
        about.segment,
        about.role,
        about.unit,
        about.window_days,
        shares,
        about.users,
        about.weekly,
        used,
        effect,
        about.margin,
        made,
        problem,
    )


def _effect(about: _About, base: Baseline, request: Request) -> float | None:
    """The size asked for: on the primary metric that of the request, on a guardrail none unless it is the only one."""
    if about.role is not Role.primary and isinstance(request, ExperimentPlanRequest):
        return 0.0 if about.role is Role.guardrail else None
    if request.lift is not None:
        if base.mean == 0:
            remedy = "give the effect in the metric's unit: the baseline is zero"
            raise InvalidDocument([FieldProblem("lift", request.lift, "out_of_range", remedy)], "plan")
        return request.lift * abs(base.mean)
    return 0.0 if request.effect is None and about.role is Role.guardrail else request.effect


def _capacity(users: int | None, weekly: float | None, rollout_weeks: float) -> Capacity | None:
    if users is None and weekly is None:
        return None
    return Capacity(users or 0, weekly or 0.0, rollout_weeks)


def _rollout(experiment: Experiment, request: ExperimentPlanRequest) -> float:
    """Weeks until every user has been touched once, by the variant that touches most seldom."""
    if request.touch_cap is not None:
        return request.touch_cap.weeks
    return max((1 / dose for variant in experiment.variants if (dose := variant.dose())), default=0.0)


def _arms(shares: Mapping[str, float], control: str) -> dict[str, float]:
    """The arms that have users, the control first."""
    return {arm: shares[arm] for arm in (control, *(a for a in shares if a != control)) if shares[arm] > 0}


def _judge(experiment: Experiment, snapshot: Mapping[str, Any]) -> baselines.Judge:
    """Who belongs to which stratum, and who of them would be assigned if the experiment ran."""
    document = experiment.to_json() | {"status": "running", "salt": experiment.salt or experiment.key, "forced": {}}
    takes_part = compile_experiment(document, snapshot)
    belongs = compile_experiment(document | {"layer": None, "holdouts": []}, snapshot)

    def judge(user: str, attributes: Mapping[str, Any]) -> Member | None:
        place = belongs.assign(user, attributes)
        if place.reason not in (Reason.assigned, Reason.not_covered):
            return None
        return Member(place.stratum, takes_part.assign(user, attributes).reason is Reason.assigned)

    return judge


def _together(
    whole: Found, parts: Mapping[str, Found], shares: Mapping[str | None, Mapping[str, float]], control: str
) -> tuple[Found, Mapping[str, float]]:
    """Everyone's baseline and shares.

    Where the shares differ, effects are estimated within strata and combined, so the variance of the comparison is the
    weighted sum of the strata's: it is given back as that of one user at the shares of all users together. Strata that
    lack an arm are left out, as in the analysis.
    """
    splits = list(shares.values())
    if all(split == splits[0] for split in splits):
        return whole, splits[0]
    full = {s: found for s, found in parts.items() if all(share > 0 for share in shares[s].values())}
    users = sum(found.users for found in full.values())
    if not users:
        problem = Problem.NOT_ENOUGH_DATA if full else Problem.NO_CONTROL
        return replace(whole, baseline=None, problem=problem), splits[0]
    full = {s: found for s, found in full.items() if found.users}
    weights = {s: found.users / users for s, found in full.items()}
    together = {arm: sum(w * shares[s][arm] for s, w in weights.items()) for arm in splits[0]}
    least = min((arm for arm in together if arm != control), key=lambda arm: together[arm])
    bases = {s: found.baseline for s, found in full.items()}
    unknown = next((found.problem for found in full.values() if found.baseline is None), None)
    if unknown is not None:
        return replace(whole, baseline=None, problem=unknown), together

    def variance(kept: Callable[[Baseline], float]) -> float:
        spread = sum(
            w * base.variance * kept(base) * (1 / shares[s][control] + 1 / shares[s][least])
            for s, w in weights.items()
            if (base := bases[s]) is not None
        )
        return spread / (1 / together[control] + 1 / together[least])

    plain = variance(lambda base: 1.0)
    known = [base for base in bases.values() if base is not None]
    mean = sum(w * base.mean for w, base in zip(weights.values(), known, strict=True))
    possible = None
    if all(base.possible is not None for base in known):
        possible = 1 - variance(lambda base: 1 - (base.possible or 0.0)) / plain
    reduction = 1 - variance(lambda base: 1 - base.reduction) / plain
    weekly = None if whole.weekly is None else sum(found.weekly or 0.0 for found in full.values())
    base = Baseline(mean, plain, share=False, reduction=reduction, possible=possible)
    return replace(whole, baseline=base, users=users, weekly=weekly), together
