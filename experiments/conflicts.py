"""What stands in the way of an experiment, or may: seen before the start, from the documents and the record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import duckdb
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from experiments import registry, schedule
from experiments.crowd import Crowd, Turnout, compiled
from experiments.documents import Experiment, Kind, Segment, Status
from experiments.sdk.experiment import CompiledExperiment
from experiments.tables import InboxRow, LakeBatch, LakeFile

SEEN_DAYS: Final = 30
_UNDER_WAY: Final = (Status.running, Status.paused)
# Below, it is the odd tester.
_OVERLAP: Final = 0.001


class ConcernCode(StrEnum):
    """What may be wrong."""

    layer_taken = "layer_taken"
    no_users_match = "no_users_match"
    too_few_users = "too_few_users"
    event_not_seen = "event_not_seen"
    same_channel = "same_channel"
    audience_overlap = "audience_overlap"
    schedule_refused = "schedule_refused"


class Weight(StrEnum):
    """How much it matters: it prevents the start, it should be looked at, or it is good to know."""

    blocks = "blocks"
    warning = "warning"
    note = "note"


@dataclass(frozen=True, slots=True)
class Concern:
    """One finding, with what it is about; ``share`` is that of this experiment's users."""

    code: ConcernCode
    weight: Weight
    experiment: str | None = None
    metric: str | None = None
    event: str | None = None
    channel: str | None = None
    users: int | None = None
    share: float | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """Who would take part, and what is to be said, the gravest first."""

    experiment: str
    size: Turnout
    concerns: list[Concern]


def find(
    session: Session,
    folder: Path,
    experiment: Experiment,
    *,
    now: datetime,
    metrics: Sequence[Any] | None = None,
    segments: Sequence[Segment] = (),
) -> Findings:
    """Look for conflicts of an experiment, stored or not.

    Args:
        session: reads the record.
        folder: the lake's.
        experiment: as it is, or as it would be.
        now: the present.
        metrics: its metrics' documents, where they are not stored yet.
        segments: segments it names that are not stored yet.
    """
    snapshot = registry.snapshot(session)
    snapshot["segments"] = snapshot["segments"] + [segment.to_json() for segment in segments]
    others = [
        other
        for other in registry.all_of(session, Kind.experiment)
        if other.status in _UNDER_WAY and other.key != experiment.key
    ]
    rivals = {other.key: compiled(other, snapshot) for other in others}
    crowd = Crowd.of(session, now=now)
    mine = compiled(experiment, snapshot)
    size = crowd.size(mine, rivals.values())
    if metrics is None:
        metrics = [metric for metric, _, _, _ in registry.metric_uses(session, experiment)]
    found = [
        *_layers(experiment, others),
        *_sizes(experiment, size),
        *_unseen(metrics, seen_events(session, folder, now=now)),
        *_shared(experiment, mine, others, rivals, crowd),
        *_refused(session, experiment),
    ]
    return Findings(experiment.key, size, sorted(found, key=lambda concern: list(Weight).index(concern.weight)))


def _layers(experiment: Experiment, others: Sequence[Experiment]) -> Iterator[Concern]:
    if experiment.layer is None:
        return
    for other in others:
        theirs = other.layer
        if theirs is None or theirs.key != experiment.layer.key:
            continue
        if experiment.layer.start < theirs.end and theirs.start < experiment.layer.end:
            detail = f"{theirs.key}: {theirs.start:g}–{theirs.end:g}"
            yield Concern(ConcernCode.layer_taken, Weight.blocks, experiment=other.key, detail=detail)


def _sizes(experiment: Experiment, size: Turnout) -> Iterator[Concern]:
    if size.enrolled is None:
        return
    planned = experiment.plan.planned_users
    if size.enrolled == 0:
        yield Concern(ConcernCode.no_users_match, Weight.warning, users=size.match)
    elif size.enrolled < planned:
        share = size.enrolled / planned
        yield Concern(ConcernCode.too_few_users, Weight.warning, users=size.enrolled, share=share)


def _unseen(metrics: Sequence[Any], seen: Mapping[str, datetime]) -> Iterator[Concern]:
    for metric in metrics:
        for event in events_of(metric):
            if event not in seen:
                yield Concern(ConcernCode.event_not_seen, Weight.warning, metric=metric.key, event=event)


def _shared(
    experiment: Experiment,
    mine: CompiledExperiment,
    others: Sequence[Experiment],
    rivals: Mapping[str, CompiledExperiment],
    crowd: Crowd,
) -> Iterator[Concern]:
    takes = crowd.enrolled(mine) if crowd.ids else None
    total = 0 if takes is None else int(takes.sum())
    for other in others:
        if other.layer is not None and experiment.layer is not None and other.layer.key == experiment.layer.key:
            continue  # disjoint, or refused
        users, share = None, None
        if takes is not None and total:
            both = takes & crowd.enrolled(rivals[other.key])
            users, share = crowd.scaled(both), float(both.sum()) / total
            if share < _OVERLAP:
                continue
        for channel in sorted(channels(experiment) & channels(other)):
            yield Concern(
                ConcernCode.same_channel, Weight.warning, other.key, channel=channel, users=users, share=share
            )
        if users is not None:
            yield Concern(ConcernCode.audience_overlap, Weight.note, other.key, users=users, share=share)


def _refused(session: Session, experiment: Experiment) -> Iterator[Concern]:
    refusal = schedule.refusal(session, experiment.key)
    if refusal is not None:
        yield Concern(ConcernCode.schedule_refused, Weight.warning, detail=refusal)


def channels(experiment: Experiment) -> set[str]:
    """Return the channels through which an experiment's variants touch users."""
    frequencies = [variant.tactic.frequency for variant in experiment.variants if variant.tactic]
    return {each.channel for each in frequencies if each is not None and each.channel and each.touches}


def events_of(metric: Any) -> list[str]:
    """Return the names of the events a metric counts, each once."""
    terms = [*getattr(metric, "terms", ()), *getattr(metric, "numerator", ()), *getattr(metric, "denominator", ())]
    named = [getattr(metric, "event", None), *(term.event for term in terms), *getattr(metric, "steps", ())]
    return list(dict.fromkeys(name for name in named if name))


def seen_events(session: Session, folder: Path, *, now: datetime, days: int = SEEN_DAYS) -> dict[str, datetime]:
    """Return the events received in the last days, each with the moment of the newest one."""
    since = now - timedelta(days=days)
    last = session.execute(select(LakeBatch.position, LakeBatch.seq).order_by(LakeBatch.batch.desc()).limit(1)).first()
    fresh = select(InboxRow.name, InboxRow.at_us).where(InboxRow.kind == "event")
    if last is not None:
        fresh = fresh.where(tuple_(InboxRow.position, InboxRow.seq) > tuple_(last.position, last.seq))
    rows = [(row.name, row.at_us) for row in session.execute(fresh)]
    paths = session.scalars(
        select(LakeFile.path).where(
            LakeFile.kind == "event",
            LakeFile.retired_at.is_(None),
            LakeFile.day >= (since - timedelta(days=1)).date().isoformat(),
        )
    ).all()
    if paths:
        with duckdb.connect() as engine:
            query = 'SELECT name, max(epoch_us("at")) FROM read_parquet(?) GROUP BY name'
            rows += engine.execute(query, [[str(folder / path) for path in paths]]).fetchall()
    newest: dict[str, int] = {}
    for name, at in rows:
        newest[name] = max(at, newest.get(name, at))
    moments = {name: datetime.fromtimestamp(at / 1e6, tz=now.tzinfo) for name, at in newest.items()}
    return {name: at for name, at in sorted(moments.items()) if at >= since}
