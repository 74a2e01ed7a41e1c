"""The documents in the record: append-only revisions, references between documents, audit entries with a diff."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from experiments import audit, lifecycle, rollout, waves
from experiments.documents import Decision, Experiment, Holdout, Kind, Layer, Status, parse
from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.fields import Document, Role
from experiments.metrics import ConversionMetric, MeanMetric, RetentionMetric
from experiments.policy import Policy, PolicyStatus
from experiments.tables import AuditEntry, Revision

_UNDER_WAY = frozenset({Status.running, Status.paused, PolicyStatus.running, PolicyStatus.paused})


def create(session: Session, kind: Kind, body: bytes | str | Mapping[str, Any], *, actor: str, now: datetime) -> Any:
    """Store the first revision of a document and return it.

    Raises:
        InvalidDocument: the document, or a reference in it, is wrong.
        Conflict: ``already_exists``.
    """
    document = parse(kind, body)
    _one_at_a_time(session)
    if _newest_row(session, kind, document.key) is not None:
        raise Conflict(
            "already_exists", f"there is a {kind} {document.key!r} already: change it, or choose another key"
        )
    if isinstance(document, Experiment):
        if _newest_row(session, Kind.policy, document.key) is not None:
            raise Conflict("already_exists", f"{document.key!r} is a policy's flag: choose another key")
        document = lifecycle.first(document)
        _check_references(session, document)
    elif isinstance(document, Policy):
        document = rollout.first(document)
        _check_policy(session, document)
    return _append(session, kind, None, document, 1, "create", actor, now)


def revise(
    session: Session, kind: Kind, key: str, body: bytes | str | Mapping[str, Any], *, actor: str, now: datetime
) -> Any:
    """Store the next revision of a document and return it.

    Raises:
        NotFound: there is no such document.
        InvalidDocument: the document is wrong, or a field may not change now.
        Conflict: someone else changed it meanwhile, or it is in use by a running experiment.
    """
    document = parse(kind, body)
    _one_at_a_time(session)
    current, revision = _newest(session, kind, key)
    if document.key != key:
        problem = FieldProblem("key", document.key, "key_changed", f"keep {key!r}; a document's key never changes")
        raise InvalidDocument([problem], kind)
    if isinstance(document, Experiment):
        document = lifecycle.revise(current, document)
        _check_references(session, document)
        if document.status is not Status.draft:
            _check_metrics_kept(session, current, document)
        if document.status in (Status.running, Status.paused):
            _check_layer(session, document)
    elif isinstance(document, Policy):
        document = rollout.revise(current, document)
        _check_policy(session, document)
        if document.status is not PolicyStatus.draft:
            _check_metrics_kept(session, current, document)
    elif kind is not Kind.metric and document != current:
        _check_unused(session, kind, key)
    return _append(session, kind, current, document, revision + 1, "revise", actor, now)


def move(
    session: Session, key: str, status: Status, *, actor: str, now: datetime, decision: Decision | None = None
) -> Experiment:
    """Take an experiment one step through its life cycle and return the new revision.

    Raises:
        Conflict: ``second_person``: where the store asks for two persons, who wrote it neither starts it nor decides;
            else see ``lifecycle.move``.
    """
    _one_at_a_time(session)
    current, revision = _newest(session, Kind.experiment, key)
    document = lifecycle.started(lifecycle.move(current, status, decision), now)
    if status is Status.decided or (current.status is Status.draft and status is Status.running):
        _check_second(session, Kind.experiment, key, actor)
    if status is Status.running:
        _check_references(session, document)
        _check_layer(session, document)
    _append(session, Kind.experiment, current, document, revision + 1, status, actor, now)
    return document


def open_wave(
    session: Session, key: str, shares: Mapping[str, float], *, revision: int, actor: str, now: datetime
) -> Experiment:
    """Open the next wave of an experiment with adaptive shares and return the new revision.

    Args:
        session: on the record.
        key: of the experiment.
        shares: of each variant among the wave's users.
        revision: of the experiment that the shares were made for.
        actor: who asks for it.
        now: the present.

    Raises:
        NotFound: no such experiment.
        Conflict: ``stale_revision`` when it was changed meanwhile; else see ``lifecycle.open_wave``.
    """
    _one_at_a_time(session)
    current, newest = _newest(session, Kind.experiment, key)
    lifecycle.require_newest(newest, revision)
    document = lifecycle.open_wave(current, shares, now)
    _append(session, Kind.experiment, current, document, newest + 1, waves.OPENED, actor, now)
    return document


def move_policy(session: Session, key: str, status: PolicyStatus, *, actor: str, now: datetime) -> Policy:
    """Take a policy one step through its life cycle and return the new revision.

    Started, it takes the place of the experiment of the same key, whose phases its own follow.

    Raises:
        Conflict: ``bad_transition``; ``experiment_open``, as long as that experiment could still change;
            ``second_person``, where the store asks for two persons and this one wrote the policy.
    """
    _one_at_a_time(session)
    current, revision = _newest(session, Kind.policy, key)
    phases = 0
    if status is PolicyStatus.running:
        _check_policy(session, current)
        if _newest_row(session, Kind.experiment, key) is not None:
            experiment, _ = _newest(session, Kind.experiment, key)
            if experiment.status not in (Status.decided, Status.archived):
                raise Conflict(
                    "experiment_open",
                    f"the experiment {key!r} is {experiment.status} and has this flag: decide or archive it first",
                )
            phases = experiment.phase
    document = rollout.move(current, status, phases)
    if current.status is PolicyStatus.draft and status is PolicyStatus.running:
        _check_second(session, Kind.policy, key, actor)
    _append(session, Kind.policy, current, document, revision + 1, status, actor, now)
    return document


def roll_back(session: Session, key: str, *, to_control: bool, actor: str, now: datetime) -> Policy:
    """Serve again what a policy served before, or the control to all, and return the new revision."""
    _one_at_a_time(session)
    current, revision = _newest(session, Kind.policy, key)
    earlier = None
    if not to_control:
        rows = session.scalars(
            select(Revision.body)
            .where(Revision.kind == Kind.policy, Revision.key == key, Revision.revision < revision)
            .order_by(Revision.revision.desc())
        )
        earlier = [parse(Kind.policy, body) for body in rows]
    document = rollout.roll_back(current, earlier)
    _check_policy(session, document)
    _append(session, Kind.policy, current, document, revision + 1, "roll_back", actor, now)
    return document


def get(session: Session, kind: Kind, key: str, revision: int | None = None) -> Any:
    """Return a document, the newest revision or the one asked for; raise NotFound."""
    if revision is None:
        return _newest(session, kind, key)[0]
    body = session.scalar(
        select(Revision.body).where(Revision.kind == kind, Revision.key == key, Revision.revision == revision)
    )
    if body is None:
        raise NotFound("not_found", f"there is no revision {revision} of the {kind} {key!r}")
    return parse(kind, body)


def revision_of(session: Session, kind: Kind, key: str) -> int:
    """Return the number of a document's newest revision."""
    return _newest(session, kind, key)[1]


def all_of(session: Session, kind: Kind) -> list[Any]:
    """Return the newest revision of every document of a kind, by key."""
    newest = (
        select(Revision.key, func.max(Revision.revision).label("revision"))
        .where(Revision.kind == kind)
        .group_by(Revision.key)
        .subquery()
    )
    rows = session.scalars(
        select(Revision.body)
        .join(newest, (Revision.key == newest.c.key) & (Revision.revision == newest.c.revision))
        .where(Revision.kind == kind)
        .order_by(Revision.key)
    )
    return [parse(kind, body) for body in rows]


def history(session: Session, key: str, kind: Kind = Kind.experiment) -> list[dict[str, Any]]:
    """Return the audit entries of a document, newest first."""
    rows = session.scalars(
        select(AuditEntry).where(AuditEntry.kind == kind, AuditEntry.key == key).order_by(AuditEntry.id.desc())
    )
    return [
        {
            "at": row.at.isoformat(),
            "actor": row.actor,
            "action": row.action,
            "revision": row.revision,
            "diff": msgspec.json.decode(row.diff),
        }
        for row in rows
    ]


def version(session: Session) -> int:
    """Return a number that grows with every change of any document."""
    return session.scalar(select(func.max(Revision.id))) or 0


def flags(session: Session) -> tuple[dict[str, Experiment], dict[str, Experiment]]:
    """Return what has each flag, an experiment or a policy as one, and the experiments whose place a policy took."""
    experiments = {document.key: document for document in all_of(session, Kind.experiment)}
    policies = {policy.key: rollout.compiled(policy) for policy in _started(session)}
    return experiments | policies, {key: experiments[key] for key in policies.keys() & experiments.keys()}


def snapshot(session: Session) -> dict[str, Any]:
    """Return all documents that assignment needs, as the SDK reads them; a policy as the experiment that serves it."""
    policies = {policy.key: policy for policy in _started(session)}
    known = {segment.key: segment.condition for segment in all_of(session, Kind.segment)}
    rules = [segment for policy in policies.values() for segment in rollout.segments(policy, known)]
    served = {document.key: _served(document) for document in all_of(session, Kind.experiment)}
    served |= {key: rollout.served(policy) for key, policy in policies.items()}
    return {
        "version": version(session),
        "experiments": [served[key] for key in sorted(served)],
        "segments": [document.to_json() for document in all_of(session, Kind.segment)] + rules,
        "layers": [_salted(document) for document in all_of(session, Kind.layer)],
        "holdouts": [_salted(document) for document in all_of(session, Kind.holdout)],
        "saved_groups": {},
    }


def _started(session: Session) -> list[Policy]:
    return [policy for policy in all_of(session, Kind.policy) if rollout.was_started(policy)]


def metric_uses(session: Session, experiment: Experiment | Policy) -> list[tuple[Any, Role, float | None, int]]:
    """Return an experiment's or a policy's metrics, each with its role, margin and revision, the primary one first."""
    result = []
    for use in experiment.metrics:
        metric, revision = _newest(session, Kind.metric, use.key)
        margin = metric.margin if use.margin is None else use.margin
        result.append((metric, use.role or metric.role, margin, revision))
    return sorted(result, key=lambda entry: list(Role).index(entry[1]))


def _one_at_a_time(session: Session) -> None:
    """Let changes of documents wait for each other until they are committed.

    So what was checked (a free range of a layer, the newest revision) still holds at the commit, and revision numbers
    become visible in order, which ``version`` relies on. SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(hashtext('upturn.documents'))"))


def _served(experiment: Experiment) -> dict[str, Any]:
    # An SDK that knows no waves must enrol nobody: to it, nobody is covered.
    return experiment.to_json() | ({"coverage": 0.0} if experiment.adaptive else {})


def _salted(document: Layer | Holdout) -> dict[str, Any]:
    return document.to_json() | {"salt": document.salt or document.key}


def _newest_row(session: Session, kind: Kind, key: str) -> Revision | None:
    return session.scalar(
        select(Revision).where(Revision.kind == kind, Revision.key == key).order_by(Revision.revision.desc()).limit(1)
    )


def _newest(session: Session, kind: Kind, key: str) -> tuple[Any, int]:
    row = _newest_row(session, kind, key)
    if row is None:
        raise NotFound("not_found", f"there is no {kind} {key!r}")
    return parse(kind, row.body), row.revision


def _append(
    session: Session,
    kind: Kind,
    before: Document | None,
    document: Any,
    revision: int,
    action: str,
    actor: str,
    now: datetime,
) -> Any:
    after = document.to_json()
    body = msgspec.json.encode(after).decode()
    session.add(Revision(kind=kind, key=document.key, revision=revision, body=body, actor=actor, created_at=now))
    before_ = before.to_json() if before else None
    audit.record(session, kind, document.key, action, before_, after, actor=actor, now=now, revision=revision)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            "stale_revision", f"the {kind} {document.key!r} was changed at the same time: read it again"
        ) from None
    return document


def _check_second(session: Session, kind: Kind, key: str, actor: str) -> None:
    if session.info.get("two_persons") and actor in audit.authors(session, kind, key):
        raise Conflict("second_person", f"{actor!r} wrote the {kind} {key!r}: another person does this step")


def _check_references(session: Session, experiment: Experiment) -> None:
    named = [(Kind.metric, use.key, f"metrics.{i}.key") for i, use in enumerate(experiment.metrics)]
    named += [(Kind.segment, part.segment, f"strata.{i}.segment") for i, part in enumerate(experiment.strata)]
    named += [(Kind.holdout, holdout, f"holdouts.{i}") for i, holdout in enumerate(experiment.holdouts)]
    if experiment.layer is not None:
        named.append((Kind.layer, experiment.layer.key, "layer.key"))
    _check_named(session, experiment, named)
    if experiment.adaptive is not None:
        uses = [metric for metric, _, _, _ in metric_uses(session, experiment)]
        followed = next((one for one in uses if one.key == experiment.adaptive.metric), uses[0])
        if not isinstance(followed, ConversionMetric | MeanMetric | RetentionMetric):
            remedy = "name a metric of the kind conversion, mean or retention: shares follow plain means"
            problem = FieldProblem("adaptive.metric", followed.key, "not_one_number", remedy)
            raise InvalidDocument([problem], "experiment")


def _check_policy(session: Session, policy: Policy) -> None:
    named = [(Kind.metric, use.key, f"metrics.{i}.key") for i, use in enumerate(policy.metrics)]
    named += [(Kind.segment, r.segment, f"rules.{i}.segment") for i, r in enumerate(policy.rules) if r.segment]
    named += [(Kind.holdout, holdout, f"holdouts.{i}") for i, holdout in enumerate(policy.holdouts)]
    _check_named(session, policy, named)


def _check_named(session: Session, document: Experiment | Policy, named: Sequence[tuple[Kind, str, str]]) -> None:
    """Check that the documents named exist, and what the metrics decide."""
    missing = [(kind, key, field) for kind, key, field in named if _newest_row(session, kind, key) is None]
    problems = [
        FieldProblem(field, key, "unknown_reference", f"create the {kind} first, or name another")
        for kind, key, field in missing
    ]
    if all(kind is not Kind.metric for kind, _, _ in missing):
        problems += _check_roles(metric_uses(session, document))
    if problems:
        raise InvalidDocument(problems, "policy" if isinstance(document, Policy) else "experiment")


def _check_roles(uses: Sequence[tuple[Any, Role, float | None, int]]) -> Iterator[FieldProblem]:
    primaries = [metric.key for metric, role, _, _ in uses if role is Role.primary]
    if len(primaries) != 1:
        yield FieldProblem("metrics", primaries, "one_primary", "give exactly one metric the role primary")
    for metric, role, margin, _ in uses:
        if role is Role.guardrail and margin is None:
            yield FieldProblem(f"metrics.{metric.key}.margin", None, "missing", "give the loss still acceptable")


def _check_metrics_kept(session: Session, current: Experiment | Policy, document: Experiment | Policy) -> None:
    """A metric that decides, by its own default role too, decides until the end, with the same margin."""
    after = {(metric.key, role, margin) for metric, role, margin, _ in metric_uses(session, document)}
    missing = [
        metric.key
        for metric, role, margin, _ in metric_uses(session, current)
        if role is not Role.secondary and (metric.key, role, margin) not in after
    ]
    if missing:
        remedy = "keep them in their roles, with the same margins"
        raise InvalidDocument([FieldProblem("metrics", missing, "fixed_after_start", remedy)], "change")


def _check_layer(session: Session, experiment: Experiment) -> None:
    """Experiments under way in one layer must use disjoint ranges of it."""
    mine = experiment.layer
    if mine is None:
        return
    started = [
        other
        for other in all_of(session, Kind.experiment)
        if other.status in (Status.running, Status.paused) and other.layer is not None and other.key != experiment.key
    ]
    for other in started:
        theirs = other.layer
        if theirs.key == mine.key and mine.start < theirs.end and theirs.start < mine.end:
            raise Conflict(
                "layer_taken",
                f"{other.key!r} uses {theirs.start}–{theirs.end} of the layer {mine.key!r}: "
                "choose a free range, or stop that experiment",
            )


def _check_unused(session: Session, kind: Kind, key: str) -> None:
    for user in [*all_of(session, Kind.experiment), *all_of(session, Kind.policy)]:
        if user.status not in _UNDER_WAY:
            continue
        parts = user.rules if isinstance(user, Policy) else user.strata
        layer = None if isinstance(user, Policy) else user.layer
        used = {
            Kind.segment: [part.segment for part in parts],
            Kind.layer: [layer.key] if layer else [],
            Kind.holdout: user.holdouts,
        }[kind]
        if key in used:
            what = "policy" if isinstance(user, Policy) else "experiment"
            raise Conflict(
                "in_use",
                f"the {kind} {key!r} decides who is in the {what} {user.key!r}, which is {user.status}: "
                "stop that first, or create another",
            )
