"""Baselines from a store: the metric as it would have been measured in the last closed window, without an experiment.

Made-up exposures of the users known at the window's start go the way of the analysis, so definitions cannot drift.
Who belongs to a segment is judged by what was known then: a segment of dormant users, judged by today, has by its
definition bought nothing lately. Today's attributes stand in where the record does not reach back that far.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import groupby
from operator import add, itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from experiments import lake, registry, reports
from experiments.documents import Kind
from experiments.lake import Watermark
from experiments.people import Scope
from experiments.planner.forecasts import Baseline
from experiments.sdk.conditions import compile_condition
from experiments.store import Store
from experiments.sums import DAY_US, Measured
from experiments.tables import UserAttributes
from stats import arms as builders
from stats import quantiles
from stats.errors import Problem, StatError
from stats.moments import Moments
from stats.quantiles import Sample

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANY = "any"
# Those who come are counted over as many weeks, so that a campaign or a holiday does not stand for all.
RECENT_WEEKS: Final = 4


@dataclass(frozen=True, slots=True)
class Member:
    """A user's place: the stratum, and whether he would take part (coverage, layer and holdouts let him)."""

    stratum: str | None = None
    takes_part: bool = True


Judge = Callable[[str, Mapping[str, Any]], Member | None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a store says of a metric in a segment.

    ``users`` and ``weekly`` (None: the record is too young to tell) can take part; ``measured`` users gave the
    baseline, chosen by their attributes as of ``selected``.
    """

    baseline: Baseline | None
    problem: Problem | None
    users: int
    weekly: float | None
    measured: int
    selected: Literal["then", "today", "given"]


@dataclass(frozen=True, slots=True)
class Population:
    """The users of a store as ``judge`` sees them; ``first`` is when each was first seen, in microseconds."""

    store: Store
    mark: Watermark
    now: datetime
    judge: Judge
    first: Mapping[str, int]
    members: Mapping[str, Member]
    events: Sequence[Path]
    identified: Sequence[Path]
    _then: dict[int, tuple[Mapping[str, Member], Literal["then", "today"]]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, judge: Judge, now: datetime) -> "Population":
        """Judge everybody ever seen by what is known today; newest rows are moved to the lake first."""
        lake.sync(store.engine, store.lake, now=now)
        with store.read() as session:
            mark = lake.watermark(session)
            assert mark is not None
            files = {kind: lake.files(session, store.lake, kind) for kind in lake.SCHEMAS}
            rows = session.execute(
                select(UserAttributes.user_id, UserAttributes.attributes).execution_options(yield_per=10_000)
            )
            first = _first_seen([paths for paths in files.values() if paths], now)
            members = _judged(judge, ((row.user_id, msgspec.json.decode(row.attributes)) for row in rows), first)
        return cls(store, mark, now, judge, first, members, files["event"], files["identify"])

    def size(self, strata: Sequence[str | None] | None) -> int:
        """Users who can take part; ``strata`` None: in any."""
        return sum(self._counts(member, strata) for member in self.members.values())

    def weekly(self, strata: Sequence[str | None] | None, weeks: int) -> float | None:
        """Users a week who were first seen in the last ``weeks``; None where the record is no longer than that."""
        since = _micros(self.now - timedelta(weeks=weeks))
        if not self.first or min(self.first.values()) > since:
            return None
        new = sum(self._counts(m, strata) for user, m in self.members.items() if self.first[user] > since)
        return new / weeks

    @staticmethod
    def _counts(member: Member, strata: Sequence[str | None] | None) -> bool:
        return member.takes_part and (strata is None or member.stratum in strata)

    def then(self, instant: int) -> tuple[Mapping[str, Member], Literal["then", "today"]]:
        """Those of the users already seen at an instant, judged by what was known of them then, if anything was."""
        if instant not in self._then:
            seen = {user for user, since in self.first.items() if since <= instant}
            with duckdb.connect() as engine:
                told = list(_told(engine, self.identified, instant))
            if told or not self.identified:
                self._then[instant] = _judged(self.judge, told, seen), "then"
            else:
                self._then[instant] = {user: m for user, m in self.members.items() if user in seen}, "today"
        return self._then[instant]

    def measured(self, metric: Any) -> tuple[Measured, Literal["then", "today"]]:
        """The metric of every stratum in its last closed window."""
        instant = _micros(self.now) - metric.horizon_days * DAY_US
        members, selected = self.then(instant)
        table = pa.table(
            {
                "user_id": pa.array(list(members), pa.string()),
                "stratum": pa.array([member.stratum for member in members.values()], pa.string()),
                "variant": pa.array([_ANY] * len(members), pa.string()),
                "name": pa.array([_ANY] * len(members), pa.string()),
                "phase": pa.array(np.ones(len(members), np.int32)),
                "at": pa.array(np.full(len(members), instant)).cast(pa.timestamp("us", tz="UTC")),
                "seq": pa.array(np.arange(len(members))),
                "batch": pa.array(np.full(len(members), self.mark.batch, np.int32)),
            }
        )
        scope = Scope(_ANY, 1, self.mark.batch, self.now, self.store.settings.timezone)
        with TemporaryDirectory() as folder:
            exposures = Path(folder) / "exposures.parquet"
            pq.write_table(table, exposures)
            sums = reports.sum_up([exposures], self.events, [metric], scope)
        return sums.metrics[metric.key], selected


def measure(
    store: Store,
    metric: str,
    *,
    now: datetime,
    segment: str | None = None,
    condition: Mapping[str, Any] | None = None,
    weeks: int = RECENT_WEEKS,
) -> Found:
    """Measure a metric in a segment, or among the users of a condition, or in everyone (give neither).

    Args:
        store: the store.
        metric: key of the metric.
        now: the present; newer rows are moved to the lake first.
        segment: key of a segment.
        condition: a rule over attributes.
        weeks: over which those who come are counted.

    Raises:
        NotFound: no such metric or segment.
    """
    with store.read() as session:
        document = registry.get(session, Kind.metric, metric)
        if segment is not None:
            condition = registry.get(session, Kind.segment, segment).condition
    matches = compile_condition(condition or {})

    def judge(user: str, attributes: Mapping[str, Any]) -> Member | None:
        return Member() if matches({**attributes, "id": user}) else None

    return found(Population.of(store, judge, now), document, weeks=weeks)


def found(
    population: Population, metric: Any, *, strata: Sequence[str | None] | None = None, weeks: int = RECENT_WEEKS
) -> Found:
    """Measure a metric in some strata of a population (None: in all)."""
    probed = probing(metric)
    measured, selected = population.measured(probed)
    return read(population, probed, measured, selected, in_use=probed is metric, strata=strata, weeks=weeks)


def probing(metric: Any) -> Any:
    """The metric, with a lookback as long as its window where it could have one and has none."""
    if getattr(metric, "lookback_days", 0) is not None:
        return metric
    return metric.model_copy(update={"lookback_days": metric.window_days})


def read(
    population: Population,
    metric: Any,
    measured: Measured,
    selected: Literal["then", "today"],
    *,
    in_use: bool,
    strata: Sequence[str | None] | None,
    weeks: int,
) -> Found:
    """What sums say of some strata; ``in_use`` whether the metric adjusts by its covariates."""
    cells = [part for cell, part in measured.cells.items() if strata is None or cell.stratum in strata]
    moments = reduce(add, cells).moments(measured.layout.scales) if cells else Moments.zero(1)
    baseline, problem = None, None
    try:
        baseline = _baseline(metric, measured, moments, strata, in_use=in_use)
    except StatError as error:
        problem = error.code
    size, weekly = population.size(strata), population.weekly(strata, weeks)
    return Found(baseline, problem, size, weekly, moments.n, selected)


def _baseline(
    metric: Any, measured: Measured, moments: Moments, strata: Sequence[str | None] | None, *, in_use: bool
) -> Baseline:
    if moments.n < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=moments.n, needed=2)
    if metric.kind == "quantile":
        values = [v for (stratum, _), v in (measured.values or {}).items() if strata is None or stratum in strata]
        if not values:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
        users = [part.user for part in values if part.user is not None]
        sample = Sample(np.concatenate([part.value for part in values]), np.concatenate(users) if users else None)
        vector = quantiles.quantiles([sample], metric.quantile)
        # Users without an event come too: the variance is per user, whether or not he had one.
        return _varying(Baseline(float(vector.mean[0]), float(vector.covariance[0, 0]) * moments.n))
    columns, outcome = len(moments.mean), 0
    covariates = range(columns - measured.layout.covariates, columns)
    if metric.kind == "funnel":
        outcome = columns - 1
    elif metric.kind == "ratio":
        (((moments),),) = builders.linearised([[moments]])
        outcome = columns
    plain = builders.means([moments, moments], outcome)
    share = metric.kind in ("conversion", "retention", "funnel")
    base = _varying(Baseline(float(plain.mean[0]), float(plain.covariance[0, 0]) * moments.n, share))
    if not covariates:
        return Baseline(base.mean, base.variance, share, possible=0.0)
    # Two arms alike: what they have in common cancels, as in a comparison.
    adjusted = builders.adjusted([moments, moments], outcome, covariates)
    reduction = min(max(0.0, builders.variance_reduction(plain, adjusted, 0, 1)), 1 - 1e-9)
    if in_use:
        return Baseline(base.mean, base.variance, share, reduction)
    return Baseline(base.mean, base.variance, share, possible=reduction)


def _varying(baseline: Baseline) -> Baseline:
    if baseline.variance <= 0:
        raise StatError(Problem.ZERO_VARIANCE)
    return baseline


def _judged(judge: Judge, told: Iterable[tuple[str, Mapping[str, Any]]], everyone: Iterable[str]) -> dict[str, Member]:
    """The members among all users, of some of whom attributes were told."""
    left = dict.fromkeys(everyone)
    members = {}
    for user, attributes in told:
        if user in left:
            del left[user]
            member = judge(user, attributes)
            if member is not None:
                members[user] = member
    for user in left:
        member = judge(user, {})
        if member is not None:
            members[user] = member
    return members


def _first_seen(kinds: Sequence[Sequence[Path]], now: datetime) -> dict[str, int]:
    """When each user was first seen, in the files of any kind of row."""
    if not kinds:
        return {}
    with duckdb.connect() as engine:
        tables = [engine.read_parquet([str(path) for path in paths]) for paths in kinds]
        parts = [table.project('user_id, epoch_us("at") AS at_us') for table in tables]
        seen = reduce(lambda a, b: a.union(b), parts).filter(f"at_us <= {_micros(now)}")
        return dict(seen.aggregate("user_id, min(at_us)").order("user_id").fetchall())


def _told(
    engine: duckdb.DuckDBPyConnection, paths: Sequence[Path], instant: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What had been told of each user by an instant, later word over earlier."""
    if not paths:
        return
    rows = engine.execute(
        'SELECT user_id, data FROM read_parquet(?) WHERE epoch_us("at") <= ? ORDER BY user_id, "at", seq',
        [[str(path) for path in paths], instant],
    )

    def fetched() -> Iterator[tuple[str, str | None]]:
        while chunk := rows.fetchmany(10_000):
            yield from chunk

    for user, messages in groupby(fetched(), itemgetter(0)):
        attributes: dict[str, Any] = {}
        for _, data in messages:
            attributes |= msgspec.json.decode(data) if data else {}
        yield user, attributes


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
