"""What lists need of many experiments at once: their documents, the gist of their newest reports, and their dates.

A report never changes once it is saved. So the gist of each is decoded once for a store, by its name, and kept.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from experiments import registry, waves
from experiments.documents import Experiment, Kind, Status
from experiments.report import (
    ArmCount,
    ArmMean,
    Comparison,
    DecisionAdvice,
    Finding,
    Method,
    MetricKind,
    MetricReport,
    Report,
    SampleRatio,
)
from experiments.tables import AuditEntry, SavedReport

_KEPT = 3_000
_AT_ONCE = 400


@dataclass(frozen=True, slots=True)
class Gist:
    """A saved report without what only its own page shows.

    ``report`` has the advice, the users, the findings and the effects; its courses over time, checks and details are
    left out, and of metrics other than the main one also the segments.
    """

    id: str
    created_at: datetime
    report: Report


@dataclass(frozen=True, slots=True)
class Dates:
    """When an experiment first started, last stopped, and was decided, as the audit has it.

    ``refused``: since when the next wave of its adaptive shares is due and does not open.
    """

    started: datetime | None = None
    stopped: datetime | None = None
    decided: datetime | None = None
    refused: datetime | None = None

    @property
    def ended(self) -> datetime | None:
        """When nobody new came any more."""
        return self.stopped or self.decided


@dataclass(frozen=True, slots=True)
class Summary:
    """An experiment with the gist of its newest report: None where there is none that this program can read."""

    experiment: Experiment
    gist: Gist | None
    dates: Dates

    @property
    def report(self) -> Report | None:
        return None if self.gist is None else self.gist.report


class _Metric(msgspec.Struct, frozen=True):
    metric: str
    name: str
    kind: MetricKind
    role: str
    direction: str
    unit: str
    window_days: int | None
    matured: int
    immature: int
    arms: list[ArmMean]
    comparisons: list[Comparison]

    def part(self) -> MetricReport:
        whole = self.role == "primary"
        return MetricReport(
            metric=self.metric,
            name=self.name,
            kind=self.kind,
            role=self.role,
            direction=self.direction,
            unit=self.unit,
            window_days=self.window_days,
            matured=self.matured,
            immature=self.immature,
            adjustment="none",
            arms=[arm for arm in self.arms if whole or arm.segment is None],
            comparisons=[c for c in self.comparisons if whole or c.segment is None],
            timeline=[],
        )


class _Gist(msgspec.Struct, frozen=True):
    experiment: str
    name: str
    revision: int
    phase: int
    as_of: str
    watermark: int | None
    method: Method
    control: str
    arms: list[ArmCount]
    segments: dict[str, str]
    health: list[Finding]
    metrics: list[_Metric]
    decision: DecisionAdvice

    def report(self) -> Report:
        return Report(
            experiment=self.experiment,
            name=self.name,
            revision=self.revision,
            phase=self.phase,
            as_of=self.as_of,
            watermark=self.watermark,
            metric_revisions={},
            method=self.method,
            control=self.control,
            arms=self.arms,
            segments=self.segments,
            srm=SampleRatio(None, {}, {}, None),
            segment_srm=[],
            health=self.health,
            metrics=[metric.part() for metric in self.metrics],
            decision=self.decision,
        )


_DECODER = msgspec.json.Decoder(_Gist)


@dataclass(slots=True)
class _Known:
    """What was read of one store."""

    version: int = -1
    experiments: list[Experiment] = field(default_factory=list)
    gists: OrderedDict[str, Gist | None] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)


_STORES: WeakKeyDictionary[Engine, _Known] = WeakKeyDictionary()


def of_all(session: Session) -> list[Summary]:
    """Return every experiment by key, with the gist of its newest report and its dates."""
    known = _STORES.setdefault(session.get_bind().engine, _Known())
    with known.lock:
        version = registry.version(session)
        if known.version != version:
            known.experiments = registry.all_of(session, Kind.experiment)
            known.version = version
        experiments = known.experiments
        newest = _newest(session)
        gists = _gists(session, known, newest.values())
    dates = _dates(session)
    return [
        Summary(experiment, gists.get(newest.get(experiment.key, "")), dates.get(experiment.key, Dates()))
        for experiment in experiments
    ]


def gist(session: Session, report_id: str) -> Gist | None:
    """Return the gist of one report; None where there is none that this program can read."""
    known = _STORES.setdefault(session.get_bind().engine, _Known())
    with known.lock:
        return _gists(session, known, [report_id]).get(report_id)


def _newest(session: Session) -> dict[str, str]:
    """The name of each experiment's newest report, by phase and watermark, as ``reports.latest`` has it."""
    order = (SavedReport.phase.desc(), SavedReport.watermark.desc(), SavedReport.revision.desc())
    place = func.row_number().over(partition_by=SavedReport.experiment, order_by=order).label("place")
    placed = select(SavedReport.id, SavedReport.experiment, place).subquery()
    rows = session.execute(select(placed.c.experiment, placed.c.id).where(placed.c.place == 1))
    return {row.experiment: row.id for row in rows}


def _gists(session: Session, known: _Known, ids: Iterable[str]) -> Mapping[str, Gist | None]:
    found = {}
    missing = []
    for name in ids:
        if name in known.gists:
            known.gists.move_to_end(name)
            found[name] = known.gists[name]
        else:
            missing.append(name)
    for name, made in _read(session, missing):
        found[name] = known.gists[name] = made
    while len(known.gists) > _KEPT:
        known.gists.popitem(last=False)
    return found


def _read(session: Session, ids: list[str]) -> Iterator[tuple[str, Gist | None]]:
    columns = (SavedReport.id, SavedReport.created_at, SavedReport.body)
    for start in range(0, len(ids), _AT_ONCE):
        rows = session.execute(select(*columns).where(SavedReport.id.in_(ids[start : start + _AT_ONCE])))
        for row in rows:
            try:
                yield row.id, Gist(row.id, row.created_at, _DECODER.decode(row.body).report())
            except msgspec.ValidationError:
                yield row.id, None  # made by another version of the program


def _dates(session: Session) -> dict[str, Dates]:
    steps = (Status.running, Status.stopped, Status.decided, waves.OPENED, waves.REFUSED)
    first, last = func.min(AuditEntry.at), func.max(AuditEntry.at)
    rows: Any = session.execute(
        select(AuditEntry.key, AuditEntry.action, first.label("first"), last.label("last"))
        .where(AuditEntry.kind == Kind.experiment, AuditEntry.action.in_(steps))
        .group_by(AuditEntry.key, AuditEntry.action)
    )
    found: dict[str, dict[str, datetime]] = {}
    for row in rows:
        found.setdefault(row.key, {})[row.action] = row.first if row.action == Status.running else row.last
    return {
        key: Dates(steps.get(Status.running), steps.get(Status.stopped), steps.get(Status.decided), _refused(steps))
        for key, steps in found.items()
    }


def _refused(steps: Mapping[str, datetime]) -> datetime | None:
    refused, opened = steps.get(waves.REFUSED), steps.get(waves.OPENED)
    return None if refused is None or (opened is not None and opened > refused) else refused
