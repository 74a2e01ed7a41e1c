"""The documents in the record: append-only revisions, references between documents, audit entries with a diff."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from experiments import lifecycle
from experiments.documents import Decision, Experiment, Holdout, Kind, Layer, Status, parse
from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.fields import Document, Role
from experiments.tables import AuditEntry, Revision


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
        document = lifecycle.first(document)
        _check_references(session, document)
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
    elif kind is not Kind.metric and document != current:
        _check_unused(session, kind, key)
    return _append(session, kind, current, document, revision + 1, "revise", actor, now)


def move(
    session: Session, key: str, status: Status, *, actor: str, now: datetime, decision: Decision | None = None
) -> Experiment:
    """Take an experiment one step through its life cycle and return the new revision."""
    _one_at_a_time(session)
    current, revision = _newest(session, Kind.experiment, key)
    document = lifecycle.move(current, status, decision)
    if status is Status.running:
        _check_references(session, document)
        _check_layer(session, document)
    _append(session, Kind.experiment, current, document, revision + 1, status, actor, now)
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


def snapshot(session: Session) -> dict[str, Any]:
    """Return all documents that assignment needs, as the SDK reads them."""
    return {
        "version": version(session),
        "experiments": [document.to_json() for document in all_of(session, Kind.experiment)],
        "segments": [document.to_json() for document in all_of(session, Kind.segment)],
        "layers": [_salted(document) for document in all_of(session, Kind.layer)],
        "holdouts": [_salted(document) for document in all_of(session, Kind.holdout)],
        "saved_groups": {},
    }


def metric_uses(session: Session, experiment: Experiment) -> list[tuple[Any, Role, float | None, int]]:
    """Return an experiment's metrics, each with its role, margin and revision, the primary one first."""
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
    diff = lifecycle.difference(before.to_json() if before else None, after)
    session.add(
        AuditEntry(
            at=now,
            actor=actor,
            action=action,
            kind=kind,
            key=document.key,
            revision=revision,
            diff=msgspec.json.encode(diff).decode(),
        )
    )
    try:
        session.flush()
    except IntegrityError:
        raise Conflict(
            "stale_revision", f"the {kind} {document.key!r} was changed at the same time: read it again"
        ) from None
    return document


def _check_references(session: Session, experiment: Experiment) -> None:
    problems = []

    def exists(kind: Kind, key: str, field: str) -> bool:
        if _newest_row(session, kind, key) is None:
            problems.append(FieldProblem(field, key, "unknown_reference", f"create the {kind} first, or name another"))
            return False
        return True

    metrics = [exists(Kind.metric, use.key, f"metrics.{i}.key") for i, use in enumerate(experiment.metrics)]
    for i, stratum in enumerate(experiment.strata):
        exists(Kind.segment, stratum.segment, f"strata.{i}.segment")
    for i, holdout in enumerate(experiment.holdouts):
        exists(Kind.holdout, holdout, f"holdouts.{i}")
    if experiment.layer is not None:
        exists(Kind.layer, experiment.layer.key, "layer.key")
    if all(metrics):
        problems += _check_roles(metric_uses(session, experiment))
    if problems:
        raise InvalidDocument(problems, "experiment")


def _check_roles(uses: Sequence[tuple[Any, Role, float | None, int]]) -> Iterator[FieldProblem]:
    primaries = [metric.key for metric, role, _, _ in uses if role is Role.primary]
    if len(primaries) != 1:
        yield FieldProblem("metrics", primaries, "one_primary", "give exactly one metric the role primary")
    for metric, role, margin, _ in uses:
        if role is Role.guardrail and margin is None:
            yield FieldProblem(f"metrics.{metric.key}.margin", None, "missing", "give the loss still acceptable")


def _check_metrics_kept(session: Session, current: Experiment, document: Experiment) -> None:
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
    for experiment in all_of(session, Kind.experiment):
        used = {
            Kind.segment: [stratum.segment for stratum in experiment.strata],
            Kind.layer: [experiment.layer.key] if experiment.layer else [],
            Kind.holdout: experiment.holdouts,
        }[kind]
        if key in used and experiment.status in (Status.running, Status.paused):
            raise Conflict(
                "in_use",
                f"the {kind} {key!r} decides who is in the experiment {experiment.key!r}, which is "
                f"{experiment.status}: stop that first, or create another",
            )
