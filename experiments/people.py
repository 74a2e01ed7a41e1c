"""Who counts, and from when on: from exposures to one row a user, or a person where ids were linked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from experiments import identity
from experiments.sums import DAY_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which facts count: one phase of an experiment, as it stood at a watermark.

    Args:
        experiment: key of the experiment.
        phase: its phase.
        batch: watermark; later rows are not read.
        as_of: a user counts for a metric when the metric's window has closed by then.
        timezone: IANA zone in which days of exposure are cut.
        forced: users who are testing, not taking part.
        received: the event of having received the treatment.
        trigger: the event that would have sent it, recorded in every variant.
        arms: by stratum, which variant counts as which arm, and no other does; without it, variants are the arms.
    """

    experiment: str
    phase: int
    batch: int
    as_of: datetime
    timezone: str
    forced: Iterable[str] = ()
    received: str | None = None
    trigger: str | None = None
    arms: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@ibis.udf.scalar.builtin(name="epoch_us", signature=(("timestamp('UTC')",), "int64"))  # type: ignore[untyped-decorator]
def epoch_us(instant: Any) -> Any:
    """Microseconds since 1970, in the engine's own words."""


def everyone(
    execute: Callable[[ir.Table], Any], exposures: ir.Table, events: ir.Table, aliases: ir.Table | None, scope: Scope
) -> tuple[ir.Table, ir.Table]:
    """Return one row a user, and the events as those of the users; for the arguments see ``aggregate.from_facts``.

    A row has user_id, exposed_us, variant, stratum and day of the first exposure, whether it is ``forced``, and whether
    one id was seen in two variants: ``crossed``. Where ids were linked, a user is a person, and ``merged`` tells that
    not one of his ids, but all together, were seen in two variants.
    """
    persons = _persons(execute, aliases, scope)
    if persons is None:
        return _described(_users(exposures, scope), scope), events
    scope = replace(scope, forced=_last_ids(persons, scope.forced))
    users = _merged(_of_persons(exposures, persons), scope)
    return _described(users, scope), _of_persons(events, persons)


def of_last_ids(
    execute: Callable[[ir.Table], Any], aliases: ir.Table, scope: Scope, *facts: ir.Table
) -> tuple[ir.Table, ...]:
    """Return the facts as those of people, where ids were linked."""
    persons = _persons(execute, aliases, scope)
    return facts if persons is None else tuple(_of_persons(part, persons) for part in facts)


def _persons(execute: Callable[[ir.Table], Any], aliases: ir.Table | None, scope: Scope) -> pa.Table | None:
    """The ids that are other ids of somebody, and the last id of each; None where there are none."""
    if aliases is None:
        return None
    known = aliases.filter(aliases.batch <= scope.batch)
    links = known.group_by(other_id=known.name, user_id=known.user_id).aggregate(seq=known.seq.min())
    found = execute(links.order_by("seq"))
    return identity.last_ids(found) if len(found) else None


def _last_ids(persons: pa.Table, ids: Iterable[str]) -> list[str]:
    wanted = set(ids)
    chosen = persons.filter(pc.is_in(persons["other_id"], pa.array(wanted, pa.string()))).to_pylist()
    last = {row["other_id"]: row["person"] for row in chosen}
    return sorted({last.get(who, who) for who in wanted})


def _of_persons(facts: ir.Table, persons: pa.Table) -> ir.Table:
    """The facts with the persons in place of their ids, which are kept as ``own_id``."""
    known = ibis.memtable(persons)
    joined = facts.rename(own_id="user_id").left_join(known, [("own_id", "other_id")])
    return joined.mutate(user_id=joined.person.fill_null(joined.own_id)).drop("other_id", "person")


def _seen(exposures: ir.Table, scope: Scope) -> ir.Table:
    seen = exposures.filter(
        exposures.name == scope.experiment,
        exposures.phase == scope.phase,
        exposures.batch <= scope.batch,
        exposures["at"] <= scope.as_of,
    )
    if not scope.arms:
        return seen
    arms = [
        ((seen.stratum == stratum) & (seen.variant == variant), arm)
        for stratum, own in scope.arms.items()
        for variant, arm in own.items()
    ]
    counted = seen.mutate(variant=ibis.cases(*arms, else_=ibis.null("string")))
    return counted.filter(counted.variant.notnull())


def _users(exposures: ir.Table, scope: Scope) -> ir.Table:
    """One row a user: when, where and on which day he was first seen, and whether he was seen elsewhere too."""
    seen = _seen(exposures, scope)
    order = ibis.struct({"at": seen["at"], "seq": seen.seq})
    return seen.group_by("user_id").aggregate(
        exposed_us=epoch_us(seen["at"].min()),
        variant=seen.variant.argmin(order),
        stratum=seen.stratum.argmin(order),
        crossed=seen.variant.min() != seen.variant.max(),
    )


def _merged(exposures: ir.Table, scope: Scope) -> ir.Table:
    """One row a person, as ``_users`` has them, and whether only his ids together were seen in several variants."""
    seen = _seen(exposures, scope)
    order = ibis.struct({"at": seen["at"], "seq": seen.seq})
    ids = seen.group_by("user_id", "own_id").aggregate(
        first=order.min(),
        variant=seen.variant.argmin(order),
        stratum=seen.stratum.argmin(order),
        crossed=seen.variant.min() != seen.variant.max(),
    )
    users = ids.group_by("user_id").aggregate(
        exposed_us=epoch_us(ids.first["at"].min()),
        variant=ids.variant.argmin(ids.first),
        stratum=ids.stratum.argmin(ids.first),
        crossed=ids.crossed.any(),
        several=ids.variant.min() != ids.variant.max(),
    )
    return users.mutate(merged=users.several & ~users.crossed).drop("several")


def _described(users: ir.Table, scope: Scope) -> ir.Table:
    testing = sorted(scope.forced)
    return users.mutate(
        forced=users.user_id.isin(testing) if testing else ibis.literal(value=False),
        day=_local_day(users.exposed_us, scope.as_of, scope.timezone),
    )


def _local_day(instant_us: ir.IntegerValue, as_of: datetime, timezone: str) -> ir.IntegerValue:
    """Days since 1970 in a time zone: whole-number arithmetic on the zone's offsets, the same in every engine."""
    zone = ZoneInfo(timezone)
    offsets = _offsets(zone, as_of)
    offset: Any = ibis.literal(offsets[0][1], "int64")
    if len(offsets) > 1:
        branches = [(instant_us < until, ibis.literal(shift, "int64")) for until, shift in offsets[:-1]]
        offset = ibis.cases(*branches, else_=ibis.literal(offsets[-1][1], "int64"))
    return ((instant_us + offset) // DAY_US).cast("int64")


def _offsets(zone: ZoneInfo, as_of: datetime) -> list[tuple[int, int]]:
    """Return (until, offset) in microseconds for each run of one offset in the 20 years before ``as_of``."""

    def offset(at: datetime) -> int:
        return (at.astimezone(zone).utcoffset() or timedelta()) // timedelta(microseconds=1)

    step = timedelta(days=1)
    moment = (as_of - timedelta(days=20 * 366)).replace(minute=0, second=0, microsecond=0)
    result: list[tuple[int, int]] = []
    while moment < as_of:
        before, after = offset(moment), offset(moment + step)
        if before != after:
            # Lord Howe Island changes at half past the hour.
            quarters = (moment + timedelta(minutes=15 * i) for i in range(97))
            result.append((micros(next(at for at in quarters if offset(at) == after)), before))
        moment += step
    return [*result, (micros(as_of), offset(moment))]


def micros(instant: datetime) -> int:
    """Return microseconds since 1970."""
    return (instant - EPOCH) // timedelta(microseconds=1)
