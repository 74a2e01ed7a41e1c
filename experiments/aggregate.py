"""From rows to sums: one Ibis expression over exposures and events for all metrics of an experiment.

Values are whole numbers throughout: money and other values as millionths, times as microseconds. Sums and sums of
products are therefore exact, whatever the engine, its threads, or the order and number of the files; equal data give
equal bits. The only file that knows Ibis tables of facts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from itertools import combinations_with_replacement
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir

from experiments.documents import ConversionMetric, RatioMetric, Term
from stats.moments import Moments

MICROS = 1_000_000
# A user's number is kept within ±10¹¹: sums of squares in 38 digits then hold for whole populations of honest numbers
# (10⁶ users of 10¹⁰), and a few absurd events do not make an experiment unreadable.
LARGEST = 10**11 * MICROS
DAY_US = 86_400 * MICROS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sums:
    """Exact sums over ``n`` users: of each column, and of each product of two (upper triangle, row by row)."""

    n: int
    sums: tuple[int, ...]
    products: tuple[int, ...]

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.n + other.n,
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.products, other.products, strict=True)),
        )

    def moments(self, scales: Sequence[int]) -> Moments:
        """Return count, means and centred cross-products, each column divided by its scale."""
        k = len(self.sums)
        square = [[0] * k for _ in range(k)]
        for (i, j), product in zip(combinations_with_replacement(range(k), 2), self.products, strict=True):
            square[i][j] = square[j][i] = product
        return Moments.from_integer_sums(self.n, self.sums, square, scales)


@dataclass(frozen=True, slots=True)
class Cell:
    """Who: users of one variant in one stratum (None where there are none), exposed on one day (None: any)."""

    stratum: str | None
    variant: str
    day: date | None


@dataclass(frozen=True, slots=True)
class Column:
    """A whole number per user, and what one unit of it is (``scale`` of them make 1)."""

    name: str
    scale: int
    binary: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one metric: its outcome (two of them for a ratio), then its covariates."""

    columns: tuple[Column, ...]
    covariates: int

    @property
    def scales(self) -> tuple[int, ...]:
        return tuple(column.scale for column in self.columns)


@dataclass(frozen=True, slots=True)
class UserCounts:
    """Users of one stratum and variant: first seen there, and never seen elsewhere."""

    assigned: int
    exposed: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The sums of one metric."""

    layout: Layout
    cells: Mapping[Cell, Sums]


@dataclass(frozen=True, slots=True)
class Aggregates:
    """All that an analysis needs of the rows."""

    users: Mapping[tuple[str | None, str], UserCounts]
    forced: int
    metrics: Mapping[str, Measured]


@ibis.udf.scalar.builtin(name="epoch_us", signature=(("timestamp('UTC')",), "int64"))  # type: ignore[untyped-decorator]
def _epoch_us(instant: Any) -> Any:
    """Microseconds since 1970, in the engine's own words."""


def from_facts(
    execute: Callable[[ir.Table], Any],
    exposures: ir.Table,
    events: ir.Table,
    metrics: Sequence[Any],
    *,
    experiment: str,
    phase: int,
    batch: int,
    as_of: datetime,
    timezone: str,
    forced: Iterable[str] = (),
) -> Aggregates:
    """Sum up one phase of an experiment.

    Args:
        execute: runs an Ibis expression and returns a pyarrow table.
        exposures: user_id, name, phase, variant, stratum, at, seq, batch.
        events: user_id, name, value_micros, at, batch.
        metrics: metric documents.
        experiment: key of the experiment.
        phase: its phase.
        batch: watermark; later rows are not read.
        as_of: a user counts for a metric when the metric's window has closed by then.
        timezone: IANA zone in which days of exposure are cut.
        forced: users who are testing, not taking part.

    Returns:
        Counts and sums. A user seen in two variants is counted where he was first seen, and in no effect.
    """
    as_of_us = _micros(as_of)
    seen = exposures.filter(
        exposures.name == experiment, exposures.phase == phase, exposures.batch <= batch, exposures["at"] <= as_of
    )
    order = ibis.struct({"at": seen["at"], "seq": seen.seq})
    users = seen.group_by("user_id").aggregate(
        exposed_us=_epoch_us(seen["at"].min()),
        variant=seen.variant.argmin(order),
        stratum=seen.stratum.argmin(order),
        crossed=seen.variant.min() != seen.variant.max(),
    )
    testing = sorted(forced)
    users = users.mutate(forced=users.user_id.isin(testing) if testing else ibis.literal(value=False))
    sources, outcomes = _plan(metrics)
    if sources:
        users = users.left_join(_per_user(users, events, sources, batch), "user_id")
    day = _local_day(users.exposed_us, as_of, timezone)
    clean = ~users.crossed & ~users.forced
    grouped = {
        "stratum": users.stratum,
        "variant": users.variant,
        "day": day,
    }
    sums: dict[str, Any] = {
        "assigned": (~users.forced).sum(),
        "exposed": clean.sum(),
        "forced": users.forced.sum(),
    }
    layouts: dict[str, Layout] = {}
    for index, metric in enumerate(metrics):
        horizon_us = (metric.delay_days + metric.window_days) * DAY_US
        values = [build(users) for build in outcomes[index]]
        layouts[metric.key] = layout_of(metric)
        mature = clean & (users.exposed_us <= as_of_us - horizon_us)
        sums |= sum_columns(f"m{index}", layouts[metric.key].columns, values, mature)
    table = execute(users.group_by(**grouped).aggregate(**sums))
    return _collect(table.to_pylist(), layouts)


def layout_of(metric: Any) -> Layout:
    """Return the columns that a metric document asks for."""
    outcomes: tuple[Column, ...]
    if isinstance(metric, RatioMetric):
        outcomes = (Column("numerator", MICROS), Column("denominator", MICROS))
    elif isinstance(metric, ConversionMetric):
        outcomes = (Column("outcome", 1, binary=True),)
    else:
        outcomes = (Column("outcome", MICROS),)
    if metric.lookback_days is None:
        return Layout(outcomes, 0)
    before = tuple(Column(f"{column.name}_before", column.scale, column.binary) for column in outcomes)
    return Layout(outcomes + before, len(before))


def sum_columns(
    prefix: str, columns: Sequence[Column], values: Sequence[ir.IntegerValue], where: ir.BooleanValue
) -> dict[str, Any]:
    """Return the aggregates n, Σx and Σxy of the columns over the rows in ``where``, named from ``prefix``."""
    result: dict[str, Any] = {f"{prefix}_n": where.sum()}
    wide = [value.cast("decimal(19, 0)") for value in values]
    for i, value in enumerate(values):
        # The engine adds in 128 bits, but would hand the sum over in 64.
        result[f"{prefix}_s{i}"] = value.sum(where=where).cast("decimal(38, 0)")
    for i, j in combinations_with_replacement(range(len(values)), 2):
        if i == j and columns[i].binary:
            continue
        product = (wide[i] * wide[j]).cast("decimal(38, 0)")
        result[f"{prefix}_p{i}_{j}"] = product.sum(where=where).cast("decimal(38, 0)")
    return result


def read_sums(prefix: str, columns: Sequence[Column], row: Mapping[str, Any]) -> Sums:
    """Read back what ``sum_columns`` asked for."""
    sums = tuple(int(row[f"{prefix}_s{i}"] or 0) for i in range(len(columns)))
    products = tuple(
        sums[i] if i == j and columns[i].binary else int(row[f"{prefix}_p{i}_{j}"] or 0)
        for i, j in combinations_with_replacement(range(len(columns)), 2)
    )
    return Sums(int(row[f"{prefix}_n"] or 0), sums, products)


def _collect(rows: list[dict[str, Any]], layouts: Mapping[str, Layout]) -> Aggregates:
    users: dict[tuple[str | None, str], UserCounts] = {}
    metrics: dict[str, dict[Cell, Sums]] = {key: {} for key in layouts}
    forced = 0
    for row in sorted(rows, key=lambda row: (row["stratum"] or "", row["variant"], row["day"])):
        who = row["stratum"], row["variant"]
        known = users.get(who, UserCounts(0, 0))
        users[who] = UserCounts(known.assigned + int(row["assigned"]), known.exposed + int(row["exposed"]))
        forced += int(row["forced"])
        cell = Cell(*who, (_EPOCH + timedelta(days=int(row["day"]))).date())
        for index, (key, layout) in enumerate(layouts.items()):
            metrics[key][cell] = read_sums(f"m{index}", layout.columns, row)
    return Aggregates(users, forced, {key: Measured(layouts[key], cells) for key, cells in metrics.items()})


@dataclass(frozen=True, slots=True)
class _Source:
    """A sum, or a count, of one event's values from ``start`` up to, not including, ``end`` after exposure."""

    event: str
    counted: bool
    start_us: int
    end_us: int


_Outcome = Callable[[ir.Table], ir.IntegerValue]


def _plan(metrics: Sequence[Any]) -> tuple[dict[_Source, str], list[list[_Outcome]]]:
    """Return the distinct sources over all metrics, each with its column's name, and how metrics are made of them."""
    sources: dict[_Source, str] = {}

    def source(event: str, *, counted: bool, start_us: int, end_us: int) -> str:
        return sources.setdefault(_Source(event, counted, start_us, end_us), f"s{len(sources)}")

    def terms(parts: Sequence[Term], start_us: int, end_us: int, cap: float | None = None) -> _Outcome:
        named = [
            (source(part.event, counted=part.aggregate == "count", start_us=start_us, end_us=end_us), part)
            for part in parts
        ]
        return lambda users: _capped(_weighted(users, named), cap)

    def happened(event: str, start_us: int, end_us: int) -> _Outcome:
        name = source(event, counted=True, start_us=start_us, end_us=end_us)
        return lambda users: (users[name].fill_null(0) > 0).cast("int64")

    outcomes: list[list[_Outcome]] = []
    for metric in metrics:
        start_us = metric.delay_days * DAY_US
        windows = [(start_us, start_us + metric.window_days * DAY_US)]
        if metric.lookback_days is not None:
            windows.append((-metric.lookback_days * DAY_US, 0))
        if isinstance(metric, RatioMetric):
            parts = (metric.numerator, metric.denominator)
            outcomes.append([terms(part, *window) for window in windows for part in parts])
        elif isinstance(metric, ConversionMetric):
            outcomes.append([happened(metric.event, *window) for window in windows])
        else:
            outcomes.append([terms(metric.terms, *window, metric.cap) for window in windows])
    return sources, outcomes


def _per_user(users: ir.Table, events: ir.Table, sources: Mapping[_Source, str], batch: int) -> ir.Table:
    names = sorted({source.event for source in sources})
    facts = events.filter(events.batch <= batch, events.name.isin(names))
    facts = facts.select("user_id", "name", "value_micros", happened_us=_epoch_us(facts["at"]))
    joined = facts.inner_join(users.select("user_id", "exposed_us"), "user_id")
    joined = joined.mutate(after_us=joined.happened_us - joined.exposed_us)
    joined = joined.filter(
        joined.after_us >= min(source.start_us for source in sources),
        joined.after_us < max(source.end_us for source in sources),
    )
    sums = {}
    for source, name in sources.items():
        inside = (joined.after_us >= source.start_us) & (joined.after_us < source.end_us)
        if len(names) > 1:
            inside &= joined.name == source.event
        sums[name] = inside.sum() if source.counted else joined.value_micros.sum(where=inside)
    return joined.group_by("user_id").aggregate(**sums)


def _weighted(users: ir.Table, named: Sequence[tuple[str, Term]]) -> ir.IntegerValue:
    parts: list[ir.NumericValue] = []
    whole = True
    for name, term in named:
        part = users[name].fill_null(0).cast("int64")
        unit = MICROS if term.aggregate == "count" else 1
        weight = term.weight * unit
        if weight == round(weight):
            parts.append(part * round(weight) if round(weight) != 1 else part)
        else:
            whole = False
            parts.append(part.cast("float64") * weight)
    total = _between(reduce(lambda a, b: a + b, parts), -LARGEST, LARGEST)
    return total if whole else total.round().cast("int64")


def _capped(value: ir.IntegerValue, cap: float | None) -> ir.IntegerValue:
    return value if cap is None else ibis.least(value, ibis.literal(min(round(cap * MICROS), LARGEST), "int64"))


def _between(value: ir.NumericValue, low: int, high: int) -> ir.NumericValue:
    return ibis.greatest(ibis.least(value, ibis.literal(high, "int64")), ibis.literal(low, "int64"))


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
            result.append((_micros(next(at for at in quarters if offset(at) == after)), before))
        moment += step
    return [*result, (_micros(as_of), offset(moment))]


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)
