"""What may change when: the life cycle of an experiment, as pure functions on documents.

draft → running ⇄ paused → stopped → decided → archived. A draft changes freely. Once started, an experiment may widen
coverage, and change texts, owner, tags, schedule, forced users and secondary metrics; changed weights start a new
phase, with a new salt, that is analysed on its own; everything else that decides who gets what, or how the answer is
read, is fixed.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from experiments import waves
from experiments.documents import Decision, Experiment, Kind, Status, parse
from experiments.errors import Conflict, FieldProblem, InvalidDocument
from experiments.fields import Document, Role
from experiments.variants import MetricUse
from experiments.waves import Wave

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.draft: frozenset({Status.running, Status.archived}),
    Status.running: frozenset({Status.paused, Status.stopped}),
    Status.paused: frozenset({Status.running, Status.stopped}),
    Status.stopped: frozenset({Status.decided, Status.archived}),
    Status.decided: frozenset({Status.archived}),
    Status.archived: frozenset(),
}

_OPEN_FIELDS = frozenset({"name", "hypothesis", "owner", "tags", "schedule", "forced", "value", "metrics", "revision"})
_KEPT_FIELDS = ("status", "phase", "salt", "waves", "decision")


def first(proposed: Experiment) -> Experiment:
    """Return the first revision of a new experiment."""
    require_fresh(proposed, {"status": "draft", "phase": 1, "revision": 1, "waves": [], "decision": None}, "experiment")
    return proposed.model_copy(update={"salt": proposed.salt or f"{proposed.key}:1"})


def revise(current: Experiment, proposed: Experiment) -> Experiment:
    """Return the next revision, or refuse the change.

    Args:
        current: the newest revision.
        proposed: the document sent in; its ``revision`` must be the newest one's.

    Raises:
        Conflict: ``stale_revision`` when someone else changed it meanwhile; ``archived``.
        InvalidDocument: with each field that may not change in the present state.
    """
    require_newest(current.revision, proposed.revision)
    if current.status in (Status.decided, Status.archived):
        raise Conflict("experiment_closed", f"the experiment is {current.status}: create a new one")
    left_out = {field: getattr(current, field) for field in _KEPT_FIELDS if field not in proposed.model_fields_set}
    proposed = proposed.model_copy(update={"salt": proposed.salt or current.salt} | left_out)
    problems = list(kept_changes(current, proposed, _KEPT_FIELDS, draft=current.status is Status.draft))
    update: dict[str, object] = {"revision": current.revision + 1}
    if current.status is not Status.draft:
        problems += _frozen_changes(current, proposed)
        if not problems and _splits(current) != _splits(proposed):
            phase = current.phase + 1
            update |= {"phase": phase, "salt": f"{current.key}:{phase}"}
    if problems:
        raise InvalidDocument(problems, "change")
    return proposed.model_copy(update=update)


def require_fresh(proposed: Document, defaults: Mapping[str, object], what: str) -> None:
    """Refuse a new document that says of itself what the server keeps."""
    problems = [
        FieldProblem(field, getattr(proposed, field), "kept_by_server", f"leave it out or send {default!r}")
        for field, default in defaults.items()
        if getattr(proposed, field) != default
    ]
    if problems:
        raise InvalidDocument(problems, what)


def require_newest(newest: int, sent: int) -> None:
    """Refuse a change of another revision than the newest."""
    if sent != newest:
        detail = f"revision {sent} was sent, the newest is {newest}: read it, then change that"
        raise Conflict("stale_revision", detail, revision=newest)


def kept_changes(
    current: Document, proposed: Document, fields: Sequence[str], *, draft: bool
) -> Iterator[FieldProblem]:
    """Changes of what the server keeps; a draft's salt is still free."""
    for field in fields:
        if getattr(proposed, field) != getattr(current, field) and not (draft and field == "salt"):
            remedy = f"it is {getattr(current, field)!r}; leave it"
            yield FieldProblem(field, getattr(proposed, field), "kept_by_server", remedy)


def _frozen_changes(current: Experiment, proposed: Experiment) -> Iterator[FieldProblem]:
    may_change = _OPEN_FIELDS | set(_KEPT_FIELDS) | {"coverage", "weights", "strata"}
    for field in type(current).model_fields:
        if field not in may_change and getattr(current, field) != getattr(proposed, field):
            yield FieldProblem(field, getattr(proposed, field), "fixed_after_start", "create a new experiment for this")
    if [s.segment for s in current.strata] != [s.segment for s in proposed.strata]:
        yield FieldProblem("strata", None, "fixed_after_start", "keep the segments; create a new experiment for others")
    elif _splits(current) == _splits(proposed):
        for (where, before), (_, after) in zip(_coverages(current), _coverages(proposed), strict=True):
            if after < before:
                yield FieldProblem(where, after, "coverage_narrowed", f"give at least {before}, or stop the experiment")
    for role in (Role.primary, Role.guardrail):
        missing = [use.key for use in _used_as(current, role) if use not in proposed.metrics]
        if missing:
            remedy = f"keep them in the role {role}, with the same margin"
            yield FieldProblem("metrics", missing, "fixed_after_start", remedy)


def _coverages(experiment: Experiment) -> Iterator[tuple[str, float]]:
    yield "coverage", experiment.coverage
    for stratum in experiment.strata:
        coverage = experiment.coverage if stratum.coverage is None else stratum.coverage
        yield f"strata.{stratum.segment}.coverage", coverage


def _splits(experiment: Experiment) -> dict[str | None, dict[str, float]]:
    # At full coverage: part coverage rounds each arm down to whole buckets, so shares shift a little as it widens.
    whole = [stratum.model_copy(update={"coverage": 1.0}) for stratum in experiment.strata]
    return experiment.model_copy(update={"coverage": 1.0, "strata": whole}).shares()


def _used_as(experiment: Experiment, role: Role) -> list[MetricUse]:
    return [use for use in experiment.metrics if use.role is role]


def move(current: Experiment, status: Status, decision: Decision | None = None) -> Experiment:
    """Return the revision after a step of the life cycle.

    Raises:
        Conflict: ``bad_transition``; ``decision_needed`` or ``decision_unexpected``.
        InvalidDocument: the decision names a variant that does not exist.
    """
    if status not in TRANSITIONS[current.status]:
        allowed = ", ".join(sorted(TRANSITIONS[current.status])) or "nothing"
        raise Conflict("bad_transition", f"from {current.status} one can go to {allowed}, not to {status}")
    if (status is Status.decided) != (decision is not None):
        needed = status is Status.decided
        detail = "send the decision (variant, reason)" if needed else "a decision goes with the status decided only"
        raise Conflict("decision_needed" if needed else "decision_unexpected", detail)
    update: dict[str, Any] = {"status": status, "revision": current.revision + 1}
    if decision is not None:
        update["decision"] = decision
    # Validated again, as the decision names a variant.
    moved: Experiment = parse(Kind.experiment, current.model_copy(update=update).to_json())
    return moved


def started(moved: Experiment, now: datetime) -> Experiment:
    """Return the revision that ``move`` made, with the first wave open where shares are adaptive."""
    if moved.adaptive is None or moved.waves or moved.status is not Status.running:
        return moved
    equal = {variant.key: 1 / len(moved.variants) for variant in moved.variants}
    return moved.model_copy(update={"waves": open_wave(moved, equal, now).waves})


def open_wave(current: Experiment, shares: Mapping[str, float], now: datetime) -> Experiment:
    """Return the revision in which the next wave of an experiment with adaptive shares is open.

    Raises:
        Conflict: ``not_adaptive``; ``not_running``; ``waves_complete``, when all users are in a wave.
    """
    if current.adaptive is None:
        raise Conflict("not_adaptive", f"the experiment {current.key!r} has fixed shares")
    if current.status is not Status.running:
        raise Conflict("not_running", f"the experiment {current.key!r} is {current.status}: its waves stay as they are")
    buckets = waves.next_size(current.adaptive, current.waves, len(current.variants))
    if not buckets:
        raise Conflict(
            "waves_complete", f"every user is in one of the {len(current.waves)} waves: none is left to open"
        )
    wave = Wave(opened_at=now, widths=waves.widths(shares, current.adaptive.floor, buckets))
    return current.model_copy(update={"waves": [*current.waves, wave], "revision": current.revision + 1})


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return what changed between two documents as a list of {path, before, after}."""
    old, new = dict(_leaves(before)) if before else {}, dict(_leaves(after))
    return [
        {"path": path, "before": old.get(path), "after": new.get(path)}
        for path in sorted(old.keys() | new.keys())
        if old.get(path, _ABSENT) != new.get(path, _ABSENT)
    ]


_ABSENT = object()


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from _leaves(part, f"{path}.{index}")
    else:
        yield path, value
