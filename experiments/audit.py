"""The audit trail: who did what, newest first, with what changed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from experiments.lifecycle import difference
from experiments.tables import AuditEntry

ASK = "ask"
"""The action of asking a second person for a step; what was asked for is the ``status`` in the entry's diff."""
COLUMNS = ("at", "actor", "kind", "key", "action", "revision", "field", "before", "after")


@dataclass(frozen=True, slots=True)
class Entry:
    """One act; ``revision`` is 0 for what has none (accounts, keys), ``diff`` a list of {path, before, after}."""

    id: int
    at: datetime
    actor: str
    kind: str
    key: str
    action: str
    revision: int
    diff: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are wanted: all for whom nothing else is said; ``start`` is in, ``end`` is not."""

    actor: str | None = None
    kind: str | None = None
    key: str | None = None
    action: str | None = None
    start: datetime | None = None
    end: datetime | None = None


def record(
    session: Session,
    kind: str,
    key: str,
    action: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
    *,
    actor: str,
    now: datetime,
    revision: int = 0,
) -> None:
    """Write down an act and what it changed."""
    diff = msgspec.json.encode(difference(before, after)).decode()
    session.add(AuditEntry(at=now, actor=actor, action=action, kind=kind, key=key, revision=revision, diff=diff))


def entries(
    session: Session, wanted: Wanted, *, before: int | None = None, limit: int | None = None
) -> Iterator[Entry]:
    """Return the entries wanted, newest first; ``before``: only those older than the entry of this id."""
    query = _filtered(wanted).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    for row in session.scalars(query.execution_options(yield_per=500)):
        diff = msgspec.json.decode(row.diff)
        yield Entry(row.id, row.at, row.actor, row.kind, row.key, row.action, row.revision, diff)


def actors(session: Session) -> list[str]:
    """Return who has acted so far, by name."""
    return list(session.scalars(select(AuditEntry.actor).distinct().order_by(AuditEntry.actor)))


def asked(session: Session, kind: str, key: str) -> Entry | None:
    """Return the entry in which someone asked for a second person, if nothing has happened to the document since."""
    return _newest(session, kind, key, ASK)


def refusal(session: Session, kind: str, key: str, action: str) -> str | None:
    """Return the code of a refusal noted as ``action``, None where something else has happened since."""
    newest = _newest(session, kind, key, action)
    changes = () if newest is None else newest.diff
    return next((str(change["after"]) for change in changes if change["path"] == "code"), None)


def _newest(session: Session, kind: str, key: str, action: str) -> Entry | None:
    newest = next(entries(session, Wanted(kind=kind, key=key), limit=1), None)
    return newest if newest is not None and newest.action == action else None


def authors(session: Session, kind: str, key: str) -> set[str]:
    """Return who created a document and who wrote its newest revision."""
    wrote = select(AuditEntry.actor).where(
        AuditEntry.kind == kind, AuditEntry.key == key, AuditEntry.action.in_(("create", "revise"))
    )
    ends = (session.scalar(wrote.order_by(order).limit(1)) for order in (AuditEntry.id, AuditEntry.id.desc()))
    return {actor for actor in ends if actor is not None}


def table(found: Iterator[Entry]) -> Iterator[dict[str, object]]:
    """Return entries as rows of ``COLUMNS``, one for each field changed."""
    for entry in found:
        row = {name: getattr(entry, name) for name in COLUMNS[1:6]} | {"at": entry.at.isoformat()}
        for change in entry.diff or [{"path": None, "before": None, "after": None}]:
            parts = {"before": _cell(change["before"]), "after": _cell(change["after"])}
            yield row | {"field": change["path"]} | parts


def _cell(value: object) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    return msgspec.json.encode(value).decode()


def _filtered(wanted: Wanted) -> Select[Any]:
    query = select(AuditEntry)
    for name in ("actor", "kind", "key", "action"):
        value = getattr(wanted, name)
        if value is not None:
            query = query.where(getattr(AuditEntry, name) == value)
    if wanted.start is not None:
        query = query.where(AuditEntry.at >= wanted.start)
    if wanted.end is not None:
        query = query.where(AuditEntry.at < wanted.end)
    return query
