"""Starts and stops by the clock: what a document's ``schedule`` asks for is done by the actor ``schedule``.

A draft starts once its ``start_at`` has come; what runs or pauses stops at ``stop_at``. What cannot start is tried
again each time, and the refusal is noted once in the audit trail.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from experiments import audit, registry
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, UpturnError
from experiments.store import Store

ACTOR: Final = "schedule"
REFUSED: Final = "schedule_refused"


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was due: the status it led to, or why it was refused."""

    experiment: str
    status: Status
    problem: str | None = None
    detail: str | None = None


def due(experiment: Experiment, *, now: datetime) -> Status | None:
    """Return the status that an experiment's schedule asks for now, None where there is nothing to do."""
    plan = experiment.schedule
    if plan is None:
        return None
    over = plan.stop_at is not None and plan.stop_at <= now
    if experiment.status is Status.draft and plan.start_at is not None and plan.start_at <= now and not over:
        return Status.running
    return Status.stopped if over and experiment.status in (Status.running, Status.paused) else None


def run(store: Store, *, now: datetime) -> list[Done]:
    """Do what is due, each step in a transaction of its own, and return what was done or refused."""
    with store.read() as session:
        wanted = [experiment.key for experiment in _all(session) if due(experiment, now=now) is not None]
    return [done for key in wanted if (done := _step(store, key, now)) is not None]


def refusal(session: Session, key: str) -> str | None:
    """Return why the newest step that was due was refused, None where something else has happened since."""
    return audit.refusal(session, Kind.experiment, key, REFUSED)


def _all(session: Session) -> list[Experiment]:
    found: list[Experiment] = registry.all_of(session, Kind.experiment)
    return found


def _step(store: Store, key: str, now: datetime) -> Done | None:
    try:
        with store.write() as session:
            status = _due(session, key, now)
            if status is None:
                return None
            if status is Status.running:
                _check_persons(session, key)
            registry.move(session, key, status, actor=ACTOR, now=now)
    except UpturnError as error:
        with store.write() as session:
            # Another process may have done it meanwhile.
            status = _due(session, key, now)
            if status is None:
                return None
            if refusal(session, key) != error.code:
                facts = {"status": status, "code": error.code, "detail": error.detail}
                audit.record(session, Kind.experiment, key, REFUSED, None, facts, actor=ACTOR, now=now)
        return Done(key, status, error.code, error.detail)
    return Done(key, status)


def _due(session: Session, key: str, now: datetime) -> Status | None:
    return due(registry.get(session, Kind.experiment, key), now=now)


def _check_persons(session: Session, key: str) -> None:
    """Where two persons are asked for, the one who scheduled the start must not be the one who wrote it all."""
    if session.info.get("two_persons") and len(audit.authors(session, Kind.experiment, key)) < 2:
        raise Conflict("second_person", "another person than who wrote it must schedule the start, or start it")
