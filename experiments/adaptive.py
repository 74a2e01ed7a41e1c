"""Shares that follow the evidence: opening the next wave of users of an experiment, when it is due.

A wave opens at the earliest ``every_hours`` after the one before, in shares by Thompson: each variant's chance to be
the best, from the users who have matured, of all waves. There is no dice in it: equal documents and an equal watermark
give equal shares. Data that cannot be trusted open nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.orm import Session

from experiments import audit, lake, registry, reports, waves
from experiments.analysis import health
from experiments.analysis.health import CROSSOVER_ALARM
from experiments.codes import HealthCode
from experiments.design import Design
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, UpturnError
from experiments.fields import Direction
from experiments.people import Scope
from experiments.store import Store
from experiments.sums import Aggregates, Measured, Sums
from stats.adaptive import thompson_shares
from stats.moments import Moments

ACTOR: Final = "adaptive"
COLUMNS: Final = ("experiment", "code", "wave", "open", "shares", "matured", "health", "detail", "next_at")


class AdaptCode(StrEnum):
    """What became of an update."""

    opened = "opened"
    """A wave opened in shares that follow the evidence."""
    burn_in = "burn_in"
    """A wave opened in equal shares: too few users have matured."""
    waiting = "waiting"
    """The last wave is younger than ``every_hours``."""
    complete = "complete"
    """Every user is in a wave."""
    not_running = "not_running"
    unhealthy = "unhealthy"
    """The data cannot be trusted: shares stay, and no wave opens."""
    failed = "failed"
    """It could not be worked out: ``detail`` says why. Only of several at once: the others go on."""


@dataclass(frozen=True, slots=True)
class Update:
    """What became of an update, and how it came to it.

    Attributes:
        experiment: the key.
        code: what became of it.
        wave: number of the last wave.
        shares: of each variant in the last wave.
        open: the share of all users who are in a wave.
        revision: the experiment's newest.
        matured: users of each variant on whom the shares rest; empty where nothing was computed.
        watermark: of the lake that was read, None where none was.
        health: why the data cannot be trusted.
        next_at: the earliest instant of the next wave, None where there will be none.
        detail: why it failed.
    """

    experiment: str
    code: AdaptCode
    wave: int
    shares: Mapping[str, float]
    open: float
    revision: int
    matured: Mapping[str, int] = field(default_factory=dict)
    watermark: int | None = None
    health: tuple[HealthCode, ...] = ()
    next_at: datetime | None = None
    detail: str | None = None

    def row(self) -> dict[str, Any]:
        """Return it as ``COLUMNS`` for a terminal."""
        return {
            "experiment": self.experiment,
            "code": self.code,
            "wave": self.wave,
            "open": self.open,
            "shares": " ".join(f"{variant}={share:.3f}" for variant, share in self.shares.items()),
            "matured": " ".join(f"{variant}={n}" for variant, n in self.matured.items()),
            "health": " ".join(self.health),
            "detail": self.detail or "",
            "next_at": "" if self.next_at is None else self.next_at.isoformat(timespec="seconds"),
        }


def update(store: Store, key: str, *, now: datetime) -> Update:
    """Open the next wave of an experiment if it is due.

    Args:
        store: the store; newer rows are moved to the lake first.
        key: of the experiment.
        now: the present.

    Raises:
        NotFound: no such experiment.
        Conflict: ``not_adaptive``; ``stale_revision`` when it was changed at the same time: do it again.
    """
    with store.read() as session:
        document: Experiment = registry.get(session, Kind.experiment, key)
    if document.adaptive is None:
        raise Conflict("not_adaptive", f"the experiment {key!r} has fixed shares: only a draft can get adaptive ones")
    if document.status is not Status.running:
        return _told(document, AdaptCode.not_running)
    if not _left(document):
        return _told(document, AdaptCode.complete)
    if now < _next_at(document):
        return _told(document, AdaptCode.waiting)
    lake.sync(store.engine, store.lake, now=now)
    with store.read() as session:
        # Again: the rows just moved may be of a wave that was opened meanwhile.
        document = registry.get(session, Kind.experiment, key)
        uses = reports.uses_of(session, document)
        wanted = (document.adaptive and document.adaptive.metric) or uses[0].metric.key
        metric = next(use.metric for use in uses if use.metric.key == wanted)
        mark = lake.watermark(session, None)
        files = [lake.files(session, store.lake, kind) for kind in ("exposure", "event", "alias")]
    if mark is None:
        sums = Aggregates(users={}, forced=0, metrics={})
    else:
        scope = Scope(key, document.phase, mark.batch, mark.at, store.settings.timezone, document.forced)
        sums = reports.sum_up(files[0], files[1], [metric], scope, files[2])
    found = _findings(reports.design_of(document, uses, {}, store.settings), sums)
    if found:
        _note(store, key, AdaptCode.unhealthy, " ".join(found), now)
        return _told(document, AdaptCode.unhealthy, watermark=mark and mark.batch, health=found)
    moments = _matured(document, sums.metrics.get(metric.key))
    counts = {variant: arm.n for variant, arm in moments.items()}
    code, shares = _shares(document, moments, metric.direction)
    with store.write() as session:
        opened = registry.open_wave(session, key, shares, revision=document.revision, actor=ACTOR, now=now)
    return _told(opened, code, matured=counts, watermark=mark and mark.batch)


def update_all(store: Store, *, now: datetime, resting: Collection[str] = ()) -> list[Update]:
    """Do the same for every running experiment with adaptive shares, by key; one that fails never stops the others.

    Args:
        store: the store.
        now: the present.
        resting: keys of experiments to leave alone.
    """
    with store.read() as session:
        documents: list[Experiment] = registry.all_of(session, Kind.experiment)
    running = [one for one in documents if one.adaptive is not None and one.status is Status.running]
    return [_safely(store, one, now) for one in running if one.key not in resting]


def _safely(store: Store, document: Experiment, now: datetime) -> Update:
    try:
        return _again(store, document.key, now)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other experiments go on
        detail = error.detail if isinstance(error, UpturnError) else f"{type(error).__name__}: {error}"
        _note(store, document.key, AdaptCode.failed, detail, now)
        return _told(document, AdaptCode.failed, detail=detail)


def _again(store: Store, key: str, now: datetime) -> Update:
    try:
        return update(store, key, now=now)
    except Conflict as conflict:
        if conflict.code != "stale_revision":
            raise
        return update(store, key, now=now)


def _note(store: Store, key: str, code: AdaptCode, detail: str, now: datetime) -> None:
    """Note in the audit trail that a wave was due and did not open: once, until something else happens."""
    with store.write() as session:
        if refusal(session, key) != code:
            facts = {"code": code, "detail": detail}
            audit.record(session, Kind.experiment, key, waves.REFUSED, None, facts, actor=ACTOR, now=now)


def refusal(session: Session, key: str) -> str | None:
    """Return why the newest wave that was due did not open, None where something else has happened since."""
    return audit.refusal(session, Kind.experiment, key, waves.REFUSED)


def _shares(
    document: Experiment, moments: Mapping[str, Moments], direction: Direction
) -> tuple[AdaptCode, dict[str, float]]:
    adaptive = document.adaptive
    counts = [arm.n for arm in moments.values()]
    if adaptive is None or sum(counts) < adaptive.burn_in_users or min(counts) < 2:
        return AdaptCode.burn_in, dict.fromkeys(moments, 1 / len(moments))
    up = direction is Direction.up
    shares = thompson_shares(list(moments.values()), min(adaptive.floor, 1 / len(moments)), larger_is_better=up)
    return AdaptCode.opened, dict(zip(moments, shares.tolist(), strict=True))


def _matured(document: Experiment, measured: Measured | None) -> dict[str, Moments]:
    """The outcome of each variant's matured users; of waves together, as chances to be the best need no exact level."""
    parts: dict[str, list[Sums]] = {variant.key: [] for variant in document.variants}
    if measured is None:
        return {variant: Moments.zero(1) for variant in parts}
    for cell, part in measured.cells.items():
        parts[cell.variant].append(part)
    scales = measured.layout.scales
    return {
        variant: Sums.of(found).moments(scales) if found else Moments.zero(len(scales))
        for variant, found in parts.items()
    }


def _findings(design: Design, sums: Aggregates) -> tuple[HealthCode, ...]:
    """Why the users did not come in the shares of their waves, or were seen in several variants."""
    if not sums.users:
        return ()
    codes = {finding.code for finding in health.split(design, sums.users, sums.days).findings if finding.fatal}
    assigned, exposed = (sum(getattr(part, name) for part in sums.users.values()) for name in ("assigned", "exposed"))
    if assigned - exposed > CROSSOVER_ALARM * assigned:
        codes.add(HealthCode.crossovers)
    return tuple(sorted(codes))


def _left(document: Experiment) -> int:
    adaptive = document.adaptive
    return 0 if adaptive is None else waves.next_size(adaptive, document.waves, len(document.variants))


def _next_at(document: Experiment) -> datetime:
    hours = 0 if document.adaptive is None else document.adaptive.every_hours
    return document.waves[-1].opened_at + timedelta(hours=hours)


def _told(document: Experiment, code: AdaptCode, **facts: Any) -> Update:
    last = document.waves[-1] if document.waves else None
    return Update(
        experiment=document.key,
        code=code,
        wave=len(document.waves),
        shares={} if last is None else last.shares(),
        open=round(sum(wave.size for wave in document.waves), 4),
        revision=document.revision,
        next_at=_next_at(document) if last is not None and _left(document) else None,
        **facts,
    )
