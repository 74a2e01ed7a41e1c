"""From a study's tree to the draft of a policy."""

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.documents import Experiment
from experiments.errors import Conflict
from experiments.uplift.participants import ATTRIBUTE, servable
from experiments.uplift.report import PolicyValue, Uplift
from experiments.uplift.studies import Notes

_NOT = "$not"
_AND = "$and"


def policy(experiment: Experiment, study_id: str, report: Uplift, notes: Notes, currency: str) -> dict[str, Any]:
    """Return the draft of a policy whose rules are the leaves of a study's tree, as JSON values.

    Who fits no leaf, as something is not known of him that was known of all before, gets the control.

    Args:
        experiment: that was studied.
        study_id: of the study.
        report: its report.
        notes: what goes with it.
        currency: of the store.

    Raises:
        Conflict: ``not_usable``: the study has no rules, or all give the control; ``not_servable``: the rules ask for
            what is no attribute of a user.
    """
    treating = [rule for rule in report.rules if rule.variant != report.control]
    if report.verdict == "invalid" or not treating:
        raise Conflict("not_usable", f"the study {study_id!r} gives no reason to treat users differently")
    asked = dict.fromkeys(name for rule in report.rules for name in _names(rule.condition))
    others = [name for name in asked if not servable(name)]
    if others:
        raise Conflict(
            "not_servable",
            f"the rules ask for {', '.join(others)}, which is no attribute that an app sends: ask for a study with "
            'the features "attributes"',
            features=others,
        )
    whole = [rule.variant for rule in report.rules if not rule.condition]
    rules = [
        {"name": f"leaf-{place}", "condition": _of_attributes(rule.condition), "variant": rule.variant}
        for place, rule in enumerate(report.rules, 1)
        if rule.condition
    ]
    tree = next(each for each in report.policies if each.policy == "tree")
    treated = 1 - tree.shares.get(report.control, 0.0)
    document = experiment.to_json()
    value = document["value"]
    if value is not None:
        value["monthly_users"] = max(1, round(value["monthly_users"] * treated))
    plan = {"planned_users": experiment.plan.planned_users, "alpha": experiment.plan.alpha}
    kept = {name: document[name] for name in ("key", "name", "variants", "control", "audience", "holdouts", "metrics")}
    return kept | {
        "rules": rules,
        "otherwise": whole[0] if whole else report.control,
        "plan": plan,
        "value": value,
        "promise": _promise(experiment, report, tree, notes, treated, study_id, currency),
        "source": {"kind": "tree", "experiment": experiment.key, "report": study_id},
    }


def _promise(
    experiment: Experiment,
    report: Uplift,
    tree: PolicyValue,
    notes: Notes,
    treated: float,
    study_id: str,
    currency: str,
) -> dict[str, Any]:
    """What the rules bring over the control, on users whom they were not made of: a lift of those treated, and money.

    The value is net of costs and per user of all; the lift is gross, and among the users treated.
    """
    valued = experiment.value is not None and experiment.value.metric == report.outcome
    costs = {arm.variant: arm.cost for arm in report.arms}
    spent = sum(share * (costs[variant] - costs[report.control]) for variant, share in tree.shares.items())
    limits = tree.over_control.estimate, tree.over_control.lower, tree.over_control.upper
    relative = money = None
    if notes.baseline is not None and notes.baseline > 0 and treated > 0:
        relative = _effect([(limit + spent) / treated / notes.unit / notes.baseline for limit in limits])
    if valued and experiment.value is not None:
        money = _effect([limit * experiment.value.monthly_users for limit in limits]) | {"currency": currency}
    return {"metric": report.outcome, "relative": relative, "value_per_month": money, "report": study_id}


def _effect(limits: list[float]) -> dict[str, float]:
    return {"estimate": limits[0], "lower": min(limits[1:]), "upper": max(limits[1:])}


def _names(condition: Mapping[str, Any]) -> Iterator[str]:
    for name, operand in condition.items():
        if name == _NOT:
            yield from _names(operand)
        elif name == _AND:
            for part in operand:
                yield from _names(part)
        else:
            yield name


def _of_attributes(condition: Mapping[str, Any]) -> dict[str, Any]:
    """The condition on the attributes behind the features."""
    made: dict[str, Any] = {}
    for name, operand in condition.items():
        if name == _NOT:
            made[name] = _of_attributes(operand)
        elif name == _AND:
            made[name] = [_of_attributes(part) for part in operand]
        else:
            made[name.removeprefix(ATTRIBUTE)] = operand
    return made
