"""Steps that take a second person: asking for one, and saying on the page that one is waited for."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import g
from sqlalchemy.orm import Session

from experiments import audit, registry
from experiments.documents import Decision, Kind, Status
from experiments.errors import Conflict
from web.formats import Formats
from web.languages import gettext
from web.state import state


@contextmanager
def asking(kind: Kind, key: str, status: str, decision: Decision | None = None) -> Iterator[None]:
    """Take a step inside; if it takes a second person, note that one was asked for, and let the refusal go on."""
    try:
        yield
    except Conflict as error:
        if error.code == "second_person":
            _ask(kind, key, {"status": status} | ({"decision": decision.to_json()} if decision else {}))
        raise


def _ask(kind: Kind, key: str, wanted: dict[str, object]) -> None:
    held = state()
    with held.store.write() as session:
        before, revision = audit.asked(session, kind, key), registry.revision_of(session, kind, key)
        if before is None or (before.actor, _status(before)) != (g.login, wanted["status"]):
            audit.record(session, kind, key, audit.ASK, {}, wanted, actor=g.login, now=held.clock(), revision=revision)


def waiting(session: Session, kind: Kind, key: str, formats: Formats) -> str:
    """Return who asked for which step and waits for a second person, or nothing."""
    entry = audit.asked(session, kind, key)
    if entry is None:
        return ""
    facts = {"actor": entry.actor, "time": formats.moment(entry.at)}
    if _status(entry) == Status.decided:
        return gettext("%(actor)s asked for this decision on %(time)s. It waits for a second person.", **facts)
    return gettext("%(actor)s asked to start this on %(time)s. It waits for a second person.", **facts)


def _status(entry: audit.Entry) -> object:
    return next((change["after"] for change in entry.diff if change["path"] == "status"), None)
