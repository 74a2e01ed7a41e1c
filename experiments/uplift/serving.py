"""From a study's tree, or a list scored by its model, to the draft of a policy."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments import registry
from experiments.documents import Experiment, Kind
from experiments.errors import Conflict, NotFound
from experiments.policy import Policy, PolicyStatus
from experiments.tables import SavedList
from experiments.uplift import lists, studies
from experiments.uplift.lists import ListMade, Worth
from experiments.uplift.participants import ATTRIBUTE, servable
from experiments.uplift.report import Uplift
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
    costs = {arm.variant: arm.cost for arm in report.arms}
    spent = sum(share * (costs[variant] - costs[report.control]) for variant, share in tree.shares.items())
    worth = Worth(tree.over_control, treated, spent, notes.baseline)
    return _document(experiment, treated) | {
        "rules": rules,
        "otherwise": whole[0] if whole else report.control,
        "promise": _promise(experiment, report.outcome, worth, notes.unit, study_id, currency),
        "source": {"kind": "tree", "experiment": experiment.key, "report": study_id},
    }


def of_list(
    experiment: Experiment, list_id: str, study_id: str, made: ListMade, unit: float, currency: str
) -> dict[str, Any]:
    """Return the draft of a policy that gives each user of a list what it says, the control to all others.

    Args:
        experiment: that was studied.
        list_id: of the list.
        study_id: of the study whose model it is scored by.
        made: the list.
        unit: what one unit of the metric counts.
        currency: of the store.
    """
    treated = 1 - made.variants.get(experiment.control, 0) / made.users
    return _document(experiment, treated) | {
        "rules": [
            {"name": name, "condition": {made.attribute: made.value_of(variant)}, "variant": variant}
            for name, variant in _named(made.variants)
        ],
        "otherwise": experiment.control,
        "promise": None
        if made.worth is None
        else _promise(experiment, made.metric, made.worth, unit, study_id, currency),
        "source": {
            "kind": "model",
            "experiment": experiment.key,
            "report": study_id,
            "list_id": list_id,
            "scored_at": made.scored_at,
            "refresh_by": made.refresh_by,
            "users": made.users,
        },
    }


def roll_out(session: Session, list_id: str, *, actor: str, now: datetime, currency: str) -> tuple[Policy, bool]:
    """Make the draft of the policy that serves a list, or give the policy there is the list's rules.

    Args:
        session: that writes.
        list_id: of the list.
        actor: who does it.
        now: the present.
        currency: of the store.

    Returns:
        The new revision of the policy, and whether it is a new one.

    Raises:
        NotFound: no such list.
        Conflict: ``list_not_done``; ``list_not_written``; ``list_replaced``, its attribute is a later list's;
            ``policy_closed``.
    """
    made = lists.done(session, list_id, now=now)
    row = session.get_one(SavedList, list_id)
    if not msgspec.json.decode(row.settings)["write"]:
        raise Conflict("list_not_written", f"the list {list_id!r} is of no user's attributes: ask for it with write")
    later = select(SavedList).where(
        SavedList.experiment == row.experiment, SavedList.slot == row.slot, SavedList.created_at > row.created_at
    )
    if session.scalars(later).first() is not None:
        raise Conflict("list_replaced", f"the list {list_id!r} was written over by a later one: roll that one out")
    study = studies.find(session, row.study, now=now)
    experiment: Experiment = registry.get(session, Kind.experiment, row.experiment, study.revision)
    draft = of_list(experiment, list_id, row.study, made, study.notes.unit, currency)
    try:
        current: Policy = registry.get(session, Kind.policy, row.experiment)
    except NotFound:
        return registry.create(session, Kind.policy, draft, actor=actor, now=now), True
    changed = ("rules", "source", *(("promise", "value") if current.status is PolicyStatus.draft else ()))
    body = current.to_json() | {name: draft[name] for name in changed}
    return registry.revise(session, Kind.policy, row.experiment, body, actor=actor, now=now), False


def _named(variants: Iterable[str]) -> Iterator[tuple[str, str]]:
    """A name for the rule of each variant, which may be as long as a name of a rule can be."""
    for place, variant in enumerate(variants):
        yield (f"list-{variant}" if len(variant) < 60 else f"list-{place}"), variant


def _document(experiment: Experiment, treated: float) -> dict[str, Any]:
    """What a policy has of the experiment; ``treated``: the share of users whom the rules treat."""
    document = experiment.to_json()
    value = document["value"]
    if value is not None:
        value["monthly_users"] = max(1, round(value["monthly_users"] * treated))
    plan = {"planned_users": experiment.plan.planned_users, "alpha": experiment.plan.alpha}
    kept = ("key", "name", "variants", "control", "audience", "holdouts", "metrics")
    return {name: document[name] for name in kept} | {"plan": plan, "value": value}


def _promise(
    experiment: Experiment, metric: str, worth: Worth, unit: float, study_id: str, currency: str
) -> dict[str, Any]:
    """What is brought over the control, on users not learnt from: a lift of those treated, and money.

    The value is net of costs and per user of all; the lift is gross, and among the users treated.
    """
    gain = worth.over_control
    limits = gain.estimate, gain.lower, gain.upper
    relative = money = None
    if worth.baseline is not None and worth.baseline > 0 and worth.treated > 0:
        relative = _effect([(limit + worth.spent) / worth.treated / unit / worth.baseline for limit in limits])
    if experiment.value is not None and experiment.value.metric == metric:
        money = _effect([limit * experiment.value.monthly_users for limit in limits]) | {"currency": currency}
    return {"metric": metric, "relative": relative, "value_per_month": money, "report": study_id}


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
