"""What all of operations brought in: users of a holdout against the rest, whoever was in which experiment.

Every user known before the period counts, in the holdout or in the rest as his bucket has it, whether anything reached
him or not. Users who came in the period do not: that they came may be the tactics' doing. The comparison is then that
of any experiment, made by the same engine, and saved as a report.
"""

import hashlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import msgspec
import numpy as np
import pyarrow as pa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from experiments import aggregate, analysis, facts, lake, registry, report, reports
from experiments.bulk import buckets
from experiments.design import Design
from experiments.documents import Holdout, Kind
from experiments.errors import Conflict, FieldProblem, InvalidDocument, NotFound
from experiments.facts import Facts
from experiments.fields import BUCKETS, Role
from experiments.metrics import ConversionMetric, MeanMetric
from experiments.people import Scope
from experiments.report import Interval, Report, Struct
from experiments.store import Store
from experiments.tables import SavedReport
from stats.errors import Problem

HELD, REST = "holdout", "rest"
_KINDS = ("event", "identify", "exposure")


class Contribution(Struct, frozen=True):
    """The holdout's answer over ``days`` from ``start`` on: ``per_user``, and ``total`` for the users of the rest.

    ``held`` and ``rest`` count users known before. Costs of the tactics are not taken off.
    """

    holdout: str
    metric: str
    name: str
    unit: str
    direction: str
    start: str
    days: int
    as_of: str
    report: str
    held: int
    rest: int
    per_user: Interval | None
    relative: Interval | None
    total: Interval | None
    trusted: bool
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Question:
    """Which holdout, on which metric, from the start of one day to that of another, in the store's time zone."""

    holdout: str
    metric: str
    start: date
    end: date

    @property
    def name(self) -> str:
        """What reports on it are saved under; no key has a colon."""
        return f"holdout:{self.holdout}:{self.metric}:{self.start}:{self.end}"


def latest(session: Session, question: Question) -> Contribution | None:
    """Return the newest answer made, if one was."""
    saved = reports.latest(session, question.name)
    try:
        return None if saved is None else _contribution(question, saved.id, saved.report)
    except Conflict:
        return None  # made by another version of the program


def make(store: Store, question: Question, *, now: datetime, sync: bool = True) -> Contribution:
    """Answer it and save the report.

    Args:
        store: the store.
        question: what is asked.
        now: the present.
        sync: move newer rows to the lake first.

    Raises:
        NotFound: no such holdout or metric.
        InvalidDocument: the metric makes no total, or the period has no whole day yet.
        Conflict: ``nobody_known``: no user was known before the period.
    """
    if sync:
        lake.sync(store.engine, store.lake, now=now)
    with store.read() as session:
        holdout: Holdout = registry.get(session, Kind.holdout, question.holdout)
        metric: Any = registry.get(session, Kind.metric, question.metric)
        revision = registry.revision_of(session, Kind.metric, question.metric)
        mark = lake.watermark(session)
        if mark is None:
            raise NotFound("not_found", "nothing was moved to the lake yet: analyse an experiment first")
        zone = ZoneInfo(store.settings.timezone)
        start = datetime(question.start.year, question.start.month, question.start.day, tzinfo=zone)
        end = datetime(question.end.year, question.end.month, question.end.day, tzinfo=zone)
        days = int((min(end, mark.at) - start) / timedelta(days=1))
        _check(question, metric, days)
        inputs = [
            reports.program_version(),
            question.name,
            holdout.to_json(),
            metric.to_json(),
            (mark.batch, mark.at),
            days,
            store.settings.timezone,
        ]
        name = hashlib.sha256(msgspec.json.encode(inputs)).hexdigest()[:32]
        known = session.get(SavedReport, name)
        if known is not None:
            return _contribution(question, name, report.decode(known.body))
        files = {kind: lake.files(session, store.lake, kind) for kind in (*_KINDS, "alias")}
    over = metric.model_copy(
        update={"window_days": days, "delay_days": 0, "role": Role.primary}
        | ({"cap": None, "cap_percentile": None} if isinstance(metric, MeanMetric) else {})
    )
    scope = Scope(question.name, 1, mark.batch, mark.at, store.settings.timezone)
    with facts.opened(files) as found:
        everyone = _everyone(found, holdout, scope, start)
        if everyone is None:
            detail = f"no user was known before {question.start}: choose a later start"
            raise Conflict("nobody_known", detail)
        sums = aggregate.from_facts(found.execute, everyone, found.events, [over], scope, found.aliases)
    design = _design(question, holdout)
    spec = reports.spec_of(reports.Use(over, Role.primary, None, revision))
    data = analysis.Data(sums.users, sums.forced, [(spec, sums.metrics[metric.key])], days=sums.days)
    made = analysis.build(design, data, as_of=mark.at, watermark=mark.batch)
    row = SavedReport(
        id=name,
        experiment=question.name,
        phase=1,
        revision=1,
        watermark=mark.batch,
        created_at=now,
        body=report.encode(made).decode(),
    )
    try:
        with store.write() as session:
            session.add(row)
    except IntegrityError:
        pass  # made by another process at the same time
    return _contribution(question, name, made)


def _check(question: Question, metric: Any, days: int) -> None:
    if not isinstance(metric, ConversionMetric | MeanMetric):
        remedy = "choose a share of users or a mean per user: the others make no total"
        raise InvalidDocument([FieldProblem("metric", question.metric, "inconsistent", remedy)], "programme")
    if days < 1:
        remedy = "begin at least one whole day before the newest data"
        raise InvalidDocument([FieldProblem("from", str(question.start), "inconsistent", remedy)], "programme")


def _everyone(found: Facts, holdout: Holdout, scope: Scope, start: datetime) -> ir.Table | None:
    """Every id known before the start, as exposed at the start to the holdout or to the rest."""
    tables = (found.events, found.traits, found.exposures)
    seen = [t.filter(t.batch <= scope.batch, t["at"] < start).select("user_id") for t in tables]
    ids = found.execute(ibis.union(*seen, distinct=True).order_by("user_id"))["user_id"]
    if not len(ids):
        return None
    inside = [
        buckets(holdout.salt or holdout.key, chunk.to_numpy(zero_copy_only=False)) < round(holdout.share * BUCKETS)
        for chunk in ids.chunks
        if len(chunk)
    ]
    variant = np.where(np.concatenate(inside), HELD, REST)
    n = len(ids)
    columns = {
        "user_id": ids.combine_chunks(),
        "name": pa.array([scope.experiment] * n).dictionary_encode().cast(pa.string()),
        "phase": pa.array(np.ones(n, np.int32)),
        "variant": pa.array(variant.tolist(), pa.string()),
        "stratum": pa.nulls(n, pa.string()),
        "at": pa.array(np.full(n, np.datetime64(_naive(start), "us"))).cast(pa.timestamp("us", tz="UTC")),
        "seq": pa.array(np.arange(n, dtype=np.int64)),
        "batch": pa.array(np.zeros(n, np.int32)),
    }
    return ibis.memtable(pa.table(columns))


def _naive(instant: datetime) -> datetime:
    return instant.astimezone(ZoneInfo("UTC")).replace(tzinfo=None)


def _design(question: Question, holdout: Holdout) -> Design:
    return Design(
        experiment=question.name,
        name=holdout.name,
        revision=1,
        phase=1,
        control=HELD,
        variants={HELD: HELD, REST: REST},
        segments={},
        shares={None: {HELD: holdout.share, REST: 1 - holdout.share}},
        members={},
        stratified=False,
        method="fixed",
        alpha=0.05,
        planned_users=None,
        correction="none",
        ended=True,
    )


def _contribution(question: Question, name: str, made: Report) -> Contribution:
    metric = made.primary()
    found = metric.comparisons[0]
    counts = {arm.variant: arm.n for arm in metric.arms if arm.segment is None}
    trusted = not any(finding.fatal for finding in made.health)
    effect = found.absolute if trusted else None
    rest = counts.get(REST, 0)
    ends = () if effect is None else (effect.estimate, effect.lower, effect.upper)
    return Contribution(
        holdout=question.holdout,
        metric=metric.metric,
        name=metric.name,
        unit=metric.unit,
        direction=metric.direction,
        start=str(question.start),
        days=metric.window_days or 0,
        as_of=made.as_of,
        report=name,
        held=counts.get(HELD, 0),
        rest=rest,
        per_user=effect,
        relative=found.relative if trusted else None,
        total=Interval(*(rest * part for part in ends)) if ends else None,
        trusted=trusted,
        problem=found.problem,
    )
