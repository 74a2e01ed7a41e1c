"""Studies of uplift on record: asked for, under way in a process of their own, done.

A study is named by a digest of all that goes into it, as a report is: the same inputs are studied once. Learning takes
minutes and packages of 300 MB, so a server leaves it to a freshly started process (``experiments.uplift.job``). That
process says every 20 seconds that it is at work; when it has been silent for ``SILENCE``, it is taken for dead, and
the study can be asked for again.
"""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from experiments import database, lake, registry, reports, rows
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, NotFound
from experiments.fields import Document, Key, Name
from experiments.lake import Watermark
from experiments.report import Struct
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import LakeBatch, SavedStudy
from experiments.uplift import participants
from experiments.uplift.participants import LeftOut

SILENCE: Final = timedelta(minutes=2)
# Users mature as time goes by. Within this time, and without new rows, the data are taken for the same.
FRESH: Final = timedelta(hours=1)


class StudyRequest(Document):
    """What to study. ``features``: all that was known before the exposure, or only what a policy can ask of a user.

    ``leave_out`` names features that are not to be used.
    """

    metric: Key | None = None
    learners: list[Literal["s", "t", "x", "r", "dr", "forest"]] = Field(
        default=["s", "t", "x"], min_length=1, max_length=6
    )
    folds: int = Field(default=5, ge=3, le=20)
    depth: int = Field(default=2, ge=1, le=3)
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    budget: Annotated[float, Field(gt=0)] | None = None
    features: Literal["all", "attributes"] = "all"
    leave_out: list[Name] = Field(default_factory=list, max_length=500)

    def options(self) -> dict[str, Any]:
        """Return the options of the question."""
        return {name: getattr(self, name) for name in ("learners", "folds", "depth", "seed", "budget")}


class StudyStatus(StrEnum):
    """How far a study is."""

    queued = "queued"
    running = "running"
    done = "done"
    failed = "failed"


class Refused(Struct, frozen=True):
    """One thing that was wrong with what was asked, or with the data: a feature, an option, and the code."""

    field: str
    problem: str


class Failure(Struct, frozen=True):
    """Why a study failed; ``problems`` where it was refused."""

    code: str
    detail: str
    problems: tuple[Refused, ...] = ()


class Notes(Struct, frozen=True):
    """What goes with a report.

    ``left_out``: features not used. ``excluded``: users who could not have got one of the variants. ``unit``: what one
    unit of the metric counts. ``baseline``: mean of the metric, without treatment, of the users whom the rules treat.
    """

    left_out: tuple[LeftOut, ...] = ()
    excluded: int = 0
    unit: float = 1.0
    baseline: float | None = None


class StudyEntry(Struct, frozen=True, kw_only=True):
    """A study in a list. ``progress`` goes from 0 to 1."""

    id: str
    experiment: str
    phase: int
    revision: int
    watermark: int
    status: StudyStatus
    progress: float
    created_at: str
    finished_at: str | None
    settings: dict[str, Any]
    error: Failure | None


class Study(StudyEntry, frozen=True, kw_only=True):
    """A study with its report (schema ``upturn.uplift/1``), None as long as there is none."""

    notes: Notes
    report: msgspec.Raw | None


def ask(store: Store, key: str, request: StudyRequest, *, now: datetime) -> tuple[Study, bool]:
    """Put a study of an experiment's present phase on record, and tell whether it has to be started.

    Args:
        store: the store; newer rows are moved to the lake first.
        key: of the experiment.
        request: what to study.
        now: the present.

    Raises:
        NotFound: no such experiment.
        InvalidDocument: the metric is none of this experiment's or not one number a user; a budget without costs.
        Conflict: ``not_started``; ``study_running``, another one.
    """
    with store.read() as session:
        experiment, wish = _wished(session, store, key, request)
        mark = _as_of_before(session, key, wish, now)
    if mark is None:
        mark = lake.sync(store.engine, store.lake, now=now)
        # Read again: the newest rows may be of users whose wave opened meanwhile.
        with store.read() as session:
            experiment, wish = _wished(session, store, key, request)
    name = _name(wish, mark)
    with store.write() as session:
        if database.is_postgres(store.engine):
            session.execute(text("SELECT pg_advisory_xact_lock(hashtext('upturn.studies'))"))
        known = session.get(SavedStudy, name)
        if known is not None and known.status == StudyStatus.done:
            return _study(known, now), False
        under_way = select(SavedStudy).where(SavedStudy.status.in_((StudyStatus.queued, StudyStatus.running)))
        for other in session.scalars(under_way):
            if now - other.beat_at > SILENCE:
                continue
            theirs = lake.watermark(session, other.watermark)
            if theirs is not None and other.id == _name(wish, theirs):
                return _study(other, now), False
            raise Conflict(
                "study_running", f"the study {other.id!r} of {other.experiment!r} is under way: ask when it is done"
            )
        row = SavedStudy(
            id=name,
            experiment=key,
            phase=experiment.phase,
            revision=experiment.revision,
            watermark=mark.batch,
            status=StudyStatus.queued,
            progress=0.0,
            created_at=now,
            beat_at=now,
            finished_at=None,
            settings=msgspec.json.encode(request.to_json()).decode(),
            notes=None,
            body=None,
            error=None,
        )
        return _study(session.merge(row), now), True


def _wished(session: Session, store: Store, key: str, request: StudyRequest) -> tuple[Experiment, list[Any]]:
    """The experiment, and all but the data that a study of it depends on; raises as ``ask``."""
    experiment: Experiment = registry.get(session, Kind.experiment, key)
    if experiment.status is Status.draft:
        raise Conflict("not_started", f"the experiment {key!r} is a draft: start it first")
    uses = registry.metric_uses(session, experiment)
    metric = rows.chosen_metric([found for found, _, _, _ in uses], request.metric)
    participants.draft(experiment, metric.key, metric.direction, **request.options())
    return experiment, [
        reports.program_version(),
        experiment.to_json(),
        [(found.key, revision) for found, _, _, revision in uses],
        store.settings.timezone,
        request.to_json(),
    ]


def _name(wish: Sequence[Any], mark: Watermark) -> str:
    return hashlib.sha256(msgspec.json.encode([*wish, mark.batch, mark.at])).hexdigest()[:32]


def _as_of_before(session: Session, key: str, wish: Sequence[Any], now: datetime) -> Watermark | None:
    """The watermark of the same study asked for lately, where no row has come in since."""
    if lake.backlog(session):
        return None
    for row in session.scalars(select(SavedStudy).where(SavedStudy.experiment == key)):
        mark = lake.watermark(session, row.watermark)
        if mark is None or row.id != _name(wish, mark) or now - mark.at > FRESH:
            continue
        newer = select(LakeBatch.batch).where(LakeBatch.batch > mark.batch, LakeBatch.rows > 0).limit(1)
        if session.scalar(newer) is None:
            return mark
    return None


def start(settings: Settings, study_id: str, module: str = "experiments.uplift.job") -> None:
    """Start the process of a study, or of other work on record, which outlives this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, study_id],
        env=os.environ | settings.to_env(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Somebody has to ask how it ended, or what is left of it stays in the system's table of processes.
    threading.Thread(target=process.wait, name=f"study {study_id}", daemon=True).start()


def find(session: Session, study_id: str, *, now: datetime) -> Study:
    """Return a study; raise NotFound."""
    row = session.get(SavedStudy, study_id)
    if row is None:
        raise NotFound("not_found", f"there is no study {study_id!r}")
    return _study(row, now)


def listing(session: Session, key: str, *, now: datetime) -> Sequence[StudyEntry]:
    """Return the studies of an experiment, newest first, without their reports."""
    found = select(SavedStudy).where(SavedStudy.experiment == key).order_by(SavedStudy.created_at.desc(), SavedStudy.id)
    return [StudyEntry(**_entry(row, now)) for row in session.scalars(found)]


def scores_path(settings: Settings, study_id: str) -> Path:
    """Return where a study's table of scores is."""
    return settings.folder / "studies" / f"{study_id}.parquet"


def row_of(session: Session, study_id: str) -> SavedStudy:
    """Return a study's row, to be changed; raise NotFound."""
    row = session.get(SavedStudy, study_id, with_for_update=True)
    if row is None:
        raise NotFound("not_found", f"there is no study {study_id!r}")
    return row


def _study(row: SavedStudy, now: datetime) -> Study:
    notes = Notes() if row.notes is None else msgspec.json.decode(row.notes, type=Notes)
    return Study(**_entry(row, now), notes=notes, report=None if row.body is None else msgspec.Raw(row.body.encode()))


def _entry(row: SavedStudy, now: datetime) -> dict[str, Any]:
    status = StudyStatus(row.status)
    error = None if row.error is None else msgspec.json.decode(row.error, type=Failure)
    if status in (StudyStatus.queued, StudyStatus.running) and now - row.beat_at > SILENCE:
        status = StudyStatus.failed
        error = Failure("process_died", "its process has been silent for two minutes: ask for the study again")
    return {
        "id": row.id,
        "experiment": row.experiment,
        "phase": row.phase,
        "revision": row.revision,
        "watermark": row.watermark,
        "status": status,
        "progress": row.progress,
        "created_at": row.created_at.isoformat(),
        "finished_at": None if row.finished_at is None else row.finished_at.isoformat(),
        "settings": msgspec.json.decode(row.settings),
        "error": error,
    }
