"""From a decision to a policy with its promise, and from the policy's own report to what was kept of it."""

import math
from collections.abc import Sequence
from enum import StrEnum

from experiments.codes import Verdict
from experiments.documents import Decision, Experiment
from experiments.errors import Conflict, FieldProblem, InvalidDocument
from experiments.plans import Plan
from experiments.policy import ARM, Effect, Money, Policy, PolicyRule, Promise, Source
from experiments.report import Comparison, Interval, MetricReport, MoneyInterval, Report, Struct
from experiments.variants import Value
from stats.errors import Problem


class Delivery(StrEnum):
    """What became of the promise: where the interval of the realised lift lies, good directions being up.

    ``kept``: it holds the promised lift and leaves out zero; ``above`` and ``below`` it; ``open``: it holds zero too.
    Without a promise the lift is measured against zero.
    """

    kept = "kept"
    above = "above"
    below = "below"
    open = "open"
    no_holdback = "no_holdback"
    not_measured = "not_measured"
    invalid = "invalid"


class Realised(Struct, frozen=True):
    """The promise beside what is measured against the users held back, among the users whom the rules treat.

    ``value_per_month`` is net of the variants' costs. ``phase`` and ``revision`` are those of the report; users of
    other phases do not count.
    """

    policy: str
    revision: int
    phase: int
    report: str
    as_of: str
    holdback: float
    metric: str
    direction: str
    treated: int
    held_back: int
    promised: Interval | None
    realised: Interval | None
    absolute: Interval | None
    promised_value: MoneyInterval | None
    realised_value: MoneyInterval | None
    delivery: Delivery
    problem: Problem | None


def from_decision(
    experiment: Experiment, decision: Decision, report: Report | None = None, report_id: str | None = None
) -> Policy:
    """Return the draft of a policy that carries out a decision.

    The chosen variant goes to the segments decided on, or to all; strata are asked in the experiment's order, so a user
    is treated as the stratum that he was in. Who was in none gets the control, as nothing is known of him.

    Args:
        experiment: as decided.
        decision: what was chosen.
        report: what it rests on; without one nothing is promised.
        report_id: its name.

    Raises:
        Conflict: ``control_chosen``: there is nothing to roll out.
        InvalidDocument: the control has a name that policies keep for themselves.
    """
    if experiment.control == ARM:
        remedy = f"call the control otherwise in a policy of your own: in reports {ARM!r} is what the rules give"
        raise InvalidDocument([FieldProblem("control", ARM, "inconsistent", remedy)], "policy")
    if decision.variant == experiment.control:
        raise Conflict("control_chosen", "the decision keeps the control: there is nothing to roll out")
    strata = [part.segment for part in experiment.strata]
    chosen = decision.segments or strata
    named = list(dict.fromkeys([*strata, *chosen]))
    variant = {segment: decision.variant if segment in chosen else experiment.control for segment in named}
    left_out = [segment for segment in strata if segment not in chosen]
    value, share = experiment.value, 1.0 if report is None else _share(report.primary(), chosen if left_out else [])
    planned = Plan(planned_users=experiment.plan.planned_users, alpha=experiment.plan.alpha)
    return Policy(
        key=experiment.key,
        name=experiment.name,
        variants=experiment.variants,
        control=experiment.control,
        rules=[PolicyRule(name=_rule(segment), segment=segment, variant=variant[segment]) for segment in named],
        otherwise=experiment.control if named else decision.variant,
        audience=experiment.audience,
        holdouts=experiment.holdouts,
        metrics=experiment.metrics,
        plan=planned,
        value=None
        if value is None
        else Value(metric=value.metric, margin=value.margin, monthly_users=max(1, round(value.monthly_users * share))),
        promise=None if report is None else _promise(report, report_id, decision, chosen if left_out else []),
        source=Source(kind="segments", experiment=experiment.key, report=report_id),
    )


def _rule(segment: str) -> str:
    return "otherwise-segment" if segment == "otherwise" else segment


def _promise(report: Report, report_id: str | None, decision: Decision, segments: Sequence[str]) -> Promise:
    primary, advice = report.primary(), report.decision
    relative = _lift(primary, decision.variant, segments)
    same = advice.variant == decision.variant and set(advice.segments) == set(segments)
    if same and advice.corrected is not None:
        relative = _over(advice.corrected, _mean(primary, report.control, None))
    value = advice.value_per_month if same else None
    return Promise(
        metric=primary.metric,
        relative=None if relative is None else Effect(**_fields(relative)),
        value_per_month=None if value is None else Money(**_fields(value), currency=value.currency),
        report=report_id,
    )


def _fields(interval: Interval | MoneyInterval) -> dict[str, float]:
    return {"estimate": interval.estimate, "lower": interval.lower, "upper": interval.upper}


def _lift(metric: MetricReport, variant: str, segments: Sequence[str]) -> Interval | None:
    """The relative effect among the users of some segments (of all where none is named).

    Of several segments it is that of their users together: the effects are added by their users, the half widths as
    independent, and the control's mean is taken as known.
    """
    if len(segments) < 2:
        alone = _comparison(metric, variant, segments[0] if segments else None)
        return None if alone is None else alone.relative
    found = [_comparison(metric, variant, segment) for segment in segments]
    users = [_users(metric, segment) for segment in segments]
    total, mean = sum(users), 0.0
    estimate = below = above = 0.0
    for comparison, segment, n in zip(found, segments, users, strict=True):
        effect = None if comparison is None else comparison.absolute
        control = None if comparison is None else _mean(metric, comparison.control, segment)
        if effect is None or control is None:
            return None
        weight = n / total
        mean += weight * control
        estimate += weight * effect.estimate
        below += (weight * (effect.estimate - effect.lower)) ** 2
        above += (weight * (effect.upper - effect.estimate)) ** 2
    return _over(Interval(estimate, estimate - math.sqrt(below), estimate + math.sqrt(above)), mean)


def _over(effect: Interval, mean: float | None) -> Interval | None:
    if mean is None or mean <= 0:
        return None
    return Interval(effect.estimate / mean, effect.lower / mean, effect.upper / mean)


def _comparison(metric: MetricReport, variant: str, segment: str | None) -> Comparison | None:
    return next((c for c in metric.comparisons if c.variant == variant and c.segment == segment), None)


def _mean(metric: MetricReport, variant: str, segment: str | None) -> float | None:
    return next((arm.mean for arm in metric.arms if arm.variant == variant and arm.segment == segment), None)


def _users(metric: MetricReport, segment: str) -> int:
    return sum(arm.n for arm in metric.arms if arm.segment == segment)


def _share(metric: MetricReport, segments: Sequence[str]) -> float:
    total = sum(arm.n for arm in metric.arms if arm.segment is not None)
    return sum(_users(metric, segment) for segment in segments) / total if segments and total else 1.0


def realised(policy: Policy, report: Report, report_id: str, currency: str) -> Realised:
    """Return what a policy's report says of its promise.

    Args:
        policy: the revision that the report is on.
        report: made by ``reports.make`` of the policy.
        report_id: its name.
        currency: of the store.
    """
    promise = policy.promise
    metric = report.primary() if promise is None else _metric(report, promise.metric)
    found = _comparison(metric, ARM, None)
    counts = {arm.variant: arm.n for arm in metric.arms if arm.segment is None}
    lift = None if found is None else found.relative
    promised = None if promise is None or promise.relative is None else Interval(**promise.relative.model_dump())
    if report.decision.verdict is Verdict.invalid:
        delivery = Delivery.invalid
    elif policy.holdback.share == 0:
        delivery = Delivery.no_holdback
    else:
        delivery = _delivery(lift, promised, up=metric.direction == "up")
    money = None if promise is None else promise.value_per_month
    return Realised(
        policy=policy.key,
        revision=report.revision,
        phase=report.phase,
        report=report_id,
        as_of=report.as_of,
        holdback=policy.holdback.share,
        metric=metric.metric,
        direction=metric.direction,
        treated=counts.get(ARM, 0),
        held_back=counts.get(policy.control, 0),
        promised=promised,
        realised=lift,
        absolute=None if found is None else found.absolute,
        promised_value=None if money is None else MoneyInterval(**money.model_dump()),
        realised_value=_value(policy, report, currency),
        delivery=delivery,
        problem=None if found is None else found.problem or found.relative_problem,
    )


def _metric(report: Report, key: str) -> MetricReport:
    return next(metric for metric in report.metrics if metric.metric == key)


def _delivery(lift: Interval | None, promised: Interval | None, *, up: bool) -> Delivery:
    if lift is None:
        return Delivery.not_measured
    sign = 1.0 if up else -1.0
    lower, upper = sorted((sign * lift.lower, sign * lift.upper))
    stated = 0.0 if promised is None else sign * promised.estimate
    if lower > stated:
        return Delivery.above
    if upper < stated:
        return Delivery.below
    return Delivery.kept if lower > 0 else Delivery.open


def _value(policy: Policy, report: Report, currency: str) -> MoneyInterval | None:
    """Money a month: (gain × margin − what the chosen variants cost more) × users treated a month."""
    if policy.value is None:
        return None
    metric = _metric(report, policy.value.metric)
    found = _comparison(metric, ARM, None)
    if found is None or found.absolute is None:
        return None
    costs = {variant.key: float(variant.costs.per_user) for variant in policy.variants}
    treated = {arm.segment: arm.n for arm in metric.arms if arm.variant == ARM and arm.segment is not None}
    chosen = {f"{policy.key}:{rule}": variant for rule, variant in policy.chosen().items()}
    total = sum(treated.values())
    extra = sum(n * costs[chosen[segment]] for segment, n in treated.items()) / total if total else 0.0
    extra -= costs[policy.control]
    sign = 1.0 if metric.direction == "up" else -1.0
    margin, users = policy.value.margin, policy.value.monthly_users
    effect = found.absolute
    worth = [(sign * one * margin - extra) * users for one in (effect.estimate, effect.lower, effect.upper)]
    return MoneyInterval(worth[0], min(worth[1:]), max(worth[1:]), currency)
