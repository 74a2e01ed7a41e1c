"""A policy as an experiment: what assignment serves, what an analysis reads; and what may change when.

A rule becomes a stratum, what it chose the weights of that stratum, and those held back the control. So every SDK, the
payload of GrowthBook and the bulk path serve a policy as they serve an experiment. A stratum is called KEY:RULE, which
no segment can be.

draft → running ⇄ paused → stopped → archived. A draft changes freely. Once started, rules, holdback, audience, texts
and metrics may change. What changes who gets what starts a new phase, analysed on its own, with the same salt: those
held back stay so, and a smaller holdback only frees some of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments import lifecycle
from experiments.documents import Experiment, Status, Stratum
from experiments.errors import Conflict, FieldProblem, InvalidDocument
from experiments.policy import ARM, OTHERWISE, Policy, PolicyStatus
from experiments.sdk.hashing import BUCKETS
from experiments.variants import Variant

TRANSITIONS: Mapping[PolicyStatus, frozenset[PolicyStatus]] = {
    PolicyStatus.draft: frozenset({PolicyStatus.running, PolicyStatus.archived}),
    PolicyStatus.running: frozenset({PolicyStatus.paused, PolicyStatus.stopped}),
    PolicyStatus.paused: frozenset({PolicyStatus.running, PolicyStatus.stopped}),
    PolicyStatus.stopped: frozenset({PolicyStatus.archived}),
    PolicyStatus.archived: frozenset(),
}

_SERVED = ("rules", "otherwise", "holdback", "audience")
_OPEN_FIELDS = frozenset({*_SERVED, "name", "metrics", "value", "source", "revision"})
_KEPT_FIELDS = ("status", "phase", "salt")


def was_started(policy: Policy) -> bool:
    """Whether a policy has had its flag: a draft has not, nor has one that was archived as such, without a salt."""
    return policy.status is not PolicyStatus.draft and policy.salt is not None


def stratum(policy: Policy, rule: str) -> str:
    """Return what the stratum of a rule is called."""
    return f"{policy.key}:{rule}"


def compiled(policy: Policy) -> Experiment:
    """Return the experiment that serves a policy; its strata are not segments on record, see ``segments``."""
    variants = sorted(policy.variants, key=lambda variant: variant.key != policy.control)
    strata = [
        Stratum.model_construct(
            segment=stratum(policy, rule),
            weights={variant: count / BUCKETS for variant, count in policy.buckets(chosen).items()},
        )
        for rule, chosen in policy.chosen().items()
    ]
    return _experiment(policy, variants=variants, strata=strata, audience=policy.audience, holdouts=policy.holdouts)


def served(policy: Policy) -> dict[str, Any]:
    """Return the same in JSON, as a snapshot has it: nobody keeps a variant that the rules no longer give him."""
    return compiled(policy).to_json() | {"sticky": False}


def segments(policy: Policy, conditions: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the strata are segments of; ``conditions`` are those of the segments on record."""
    found = [(rule.name, rule.condition if rule.segment is None else conditions[rule.segment]) for rule in policy.rules]
    return [
        {"key": stratum(policy, name), "name": name, "kind": "group", "condition": condition}
        for name, condition in [*found, (OTHERWISE, {})]
    ]


def analysed(policy: Policy) -> Experiment:
    """Return the experiment that an analysis reads: what the rules say against the control, where they treat."""
    control = next(variant for variant in policy.variants if variant.key == policy.control)
    variants = [Variant(key=control.key, name=control.name), Variant(key=ARM, name=policy.name)]
    strata = [Stratum.model_construct(segment=key) for key in arms(policy)]
    return _experiment(policy, variants=variants, strata=strata)


def arms(policy: Policy) -> dict[str, dict[str, str]]:
    """Return, for each rule that treats, by stratum, which variants are which arm of the analysis; no other counts."""
    return {
        stratum(policy, rule): {policy.control: policy.control, chosen: ARM}
        for rule, chosen in policy.chosen().items()
        if chosen != policy.control
    }


def shares(policy: Policy) -> dict[str | None, dict[str, float]]:
    """Return the designed share of each arm of the analysis, by stratum."""
    result: dict[str | None, dict[str, float]] = {}
    for rule, chosen in policy.chosen().items():
        if chosen != policy.control:
            counts = policy.buckets(chosen)
            both = counts[policy.control] + counts[chosen]
            result[stratum(policy, rule)] = {policy.control: counts[policy.control] / both, ARM: counts[chosen] / both}
    return result


def _experiment(policy: Policy, **fields: Any) -> Experiment:
    # Not validated: the policy is, and the names of its strata are such as no document may have.
    return Experiment.model_construct(
        key=policy.key,
        name=policy.name,
        control=policy.control,
        metrics=policy.metrics,
        plan=policy.plan,
        status=Status(policy.status),
        phase=policy.phase,
        salt=policy.salt,
        revision=policy.revision,
        **fields,
    )


def first(proposed: Policy) -> Policy:
    """Return the first revision of a new policy."""
    lifecycle.require_fresh(proposed, {"status": "draft", "phase": 1, "revision": 1}, "policy")
    return proposed


def revise(current: Policy, proposed: Policy) -> Policy:
    """Return the next revision, or refuse the change.

    Args:
        current: the newest revision.
        proposed: the document sent in; its ``revision`` must be the newest one's.

    Raises:
        Conflict: ``stale_revision`` when someone else changed it meanwhile; ``policy_closed``.
        InvalidDocument: with each field that may not change in the present state.
    """
    lifecycle.require_newest(current.revision, proposed.revision)
    if current.status in (PolicyStatus.stopped, PolicyStatus.archived):
        raise Conflict("policy_closed", f"the policy is {current.status}: create a new one")
    left_out = {field: getattr(current, field) for field in _KEPT_FIELDS if field not in proposed.model_fields_set}
    proposed = proposed.model_copy(update=left_out)
    draft = current.status is PolicyStatus.draft
    problems = list(lifecycle.kept_changes(current, proposed, _KEPT_FIELDS, draft=draft))
    if not draft:
        problems += _frozen_changes(current, proposed)
    if problems:
        raise InvalidDocument(problems, "change")
    return _next(current, proposed)


def _frozen_changes(current: Policy, proposed: Policy) -> Iterator[FieldProblem]:
    for field in type(current).model_fields:
        if field in _OPEN_FIELDS or field in _KEPT_FIELDS:
            continue
        if getattr(current, field) != getattr(proposed, field):
            yield FieldProblem(field, getattr(proposed, field), "fixed_after_start", "create a new policy for this")


def _next(current: Policy, proposed: Policy) -> Policy:
    update: dict[str, object] = {"revision": current.revision + 1}
    if current.status is not PolicyStatus.draft and not alike(current, proposed):
        update["phase"] = current.phase + 1
    return proposed.model_copy(update=update)


def alike(one: Policy, other: Policy) -> bool:
    """Whether both give every user the same, and are read alike."""
    return all(getattr(one, field) == getattr(other, field) for field in _SERVED)


def move(current: Policy, status: PolicyStatus, started: int) -> Policy:
    """Return the revision after a step of the life cycle.

    Args:
        current: the newest revision.
        status: where to go.
        started: phases that were used up under this flag before: those of the experiment of the same key.

    Raises:
        Conflict: ``bad_transition``.
    """
    if status not in TRANSITIONS[current.status]:
        allowed = ", ".join(sorted(TRANSITIONS[current.status])) or "nothing"
        raise Conflict("bad_transition", f"from {current.status} one can go to {allowed}, not to {status}")
    update: dict[str, object] = {"status": status, "revision": current.revision + 1}
    if current.status is PolicyStatus.draft and status is PolicyStatus.running:
        phase = started + 1
        update |= {"phase": phase, "salt": current.salt or f"{current.key}:{phase}"}
    elif current.status is PolicyStatus.draft:
        update["salt"] = None
    return current.model_copy(update=update)


def roll_back(current: Policy, earlier: Sequence[Policy] | None) -> Policy:
    """Return the revision that serves again what was served before, or the control to all.

    Args:
        current: the newest revision.
        earlier: the earlier revisions, newest first; None: the control to all.

    Raises:
        Conflict: ``bad_transition`` of a policy that is not under way, ``nothing_earlier``.
    """
    if current.status not in (PolicyStatus.running, PolicyStatus.paused):
        raise Conflict("bad_transition", f"the policy is {current.status}: only one that was started is rolled back")
    if earlier is None:
        return _next(current, current.model_copy(update={"rules": [], "otherwise": current.control}))
    for before in earlier:
        if before.status is not PolicyStatus.draft and not alike(before, current):
            return _next(current, current.model_copy(update={field: getattr(before, field) for field in _SERVED}))
    raise Conflict("nothing_earlier", "it has served nothing else yet: roll back to the control, or pause it")
