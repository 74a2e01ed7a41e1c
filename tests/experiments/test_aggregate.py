import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from experiments import aggregate
from experiments.aggregate import Aggregates, Cell, Sums, UserCounts
from stats.moments import Moments
from tests.experiments.rows import (
    LATER,
    START,
    Event,
    Exposure,
    conversion,
    event_table,
    exposure_table,
    mean,
    measure,
    ratio,
)

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
METRICS = [
    conversion("c", delay_days=1, window_days=2),
    conversion("c_before", "visit", window_days=3, lookback_days=2),
    mean("m", [{"event": "buy"}, {"event": "refund", "weight": -1}], window_days=2, cap=30),
    mean("m_fine", [{"event": "buy", "weight": 0.35}, {"event": "visit", "aggregate": "count", "weight": 0.1}]),
    mean("m_before", [{"event": "visit", "aggregate": "count"}], window_days=1, lookback_days=3, cap=2),
    ratio("r", [{"event": "buy"}], [{"event": "visit", "aggregate": "count"}], window_days=3, lookback_days=1),
]


def brute_force(
    exposures: Sequence[Exposure],
    events: Sequence[Event],
    metrics: Sequence[Any],
    *,
    phase: int,
    batch: int,
    as_of: datetime,
    timezone: str,
    forced: Sequence[str],
) -> tuple[dict[Any, UserCounts], int, dict[str, dict[Cell, Sums]]]:
    """The same from the words of the documents: one user at a time, rational numbers, the zone's own calendar."""
    seen: dict[str, list[tuple[datetime, int, Exposure]]] = {}
    for number, row in enumerate(exposures):
        if row.name == "x" and row.phase == phase and row.batch <= batch and row.at <= as_of:
            seen.setdefault(row.user_id, []).append((row.at, number, row))
    users: dict[Any, UserCounts] = {}
    values: dict[str, dict[Cell, list[list[int]]]] = {metric.key: {} for metric in metrics}
    for user, rows in seen.items():
        at, _, first = min(rows)
        if user in forced:
            continue
        who = first.stratum, first.variant
        crossed = len({row.variant for _, _, row in rows}) > 1
        known = users.get(who, UserCounts(0, 0))
        users[who] = UserCounts(known.assigned + 1, known.exposed + (not crossed))
        mine = [event for event in events if event.user_id == user and event.batch <= batch]
        cell = Cell(*who, at.astimezone(ZoneInfo(timezone)).date())
        for metric in metrics:
            start = at + metric.delay_days * DAY
            end = start + metric.window_days * DAY
            if not crossed and end <= as_of:
                windows = [(start, end)]
                if metric.lookback_days is not None:
                    windows.append((at - metric.lookback_days * DAY, at))
                outcome = [value for a, b in windows for value in user_values(metric, mine, a, b)]
                values[metric.key].setdefault(cell, []).append(outcome)
    sums = {key: {cell: summed(rows) for cell, rows in cells.items()} for key, cells in values.items()}
    return users, len(seen.keys() & set(forced)), sums


def user_values(metric: Any, events: Sequence[Event], start: datetime, end: datetime) -> list[int]:
    inside = [event for event in events if start <= event.at < end]
    if metric.kind == "conversion":
        return [int(any(event.name == metric.event for event in inside))]
    if metric.kind == "ratio":
        return [micros(total(metric.numerator, inside)), micros(total(metric.denominator, inside))]
    value = total(metric.terms, inside)
    return [micros(value if metric.cap is None else min(value, Fraction(str(metric.cap))))]


def total(terms: Sequence[Any], events: Sequence[Event]) -> Fraction:
    result = Fraction(0)
    for term in terms:
        mine = [event for event in events if event.name == term.event]
        values = [Fraction(1) if term.aggregate == "count" else Fraction(str(event.value or 0)) for event in mine]
        result += Fraction(str(term.weight)) * sum(values, Fraction(0))
    return result


def micros(value: Fraction) -> int:
    scaled = value * 1_000_000
    return int((Decimal(scaled.numerator) / scaled.denominator).to_integral_value(ROUND_HALF_UP))


def summed(rows: Sequence[Sequence[int]]) -> Sums:
    k = len(rows[0])
    return Sums(
        len(rows),
        tuple(sum(row[i] for row in rows) for i in range(k)),
        tuple(sum(row[i] * row[j] for row in rows) for i, j in combinations_with_replacement(range(k), 2)),
    )


def assert_equal(found: Aggregates, users: Any, forced: int, sums: dict[str, dict[Cell, Sums]]) -> None:
    counted = {who: counts for who, counts in found.users.items() if counts.assigned}
    assert counted == users
    assert found.forced == forced
    for key, cells in sums.items():
        assert {cell: part for cell, part in found.metrics[key].cells.items() if part.n} == cells, key
        empty = [part for part in found.metrics[key].cells.values() if not part.n]
        assert not any(any(part.sums) or any(part.products) for part in empty)


USERS = ["u1", "用户一", "Zoë", "Zoe\u0308", "o'neil", '"q"', "😀", " u1", "U1", "u\\1", "%", "nobody"]
ZONES = ["UTC", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Asia/Kathmandu"]


def random_facts(seed: int) -> tuple[list[Exposure], list[Event], dict[str, Any]]:
    """Few users and coarse times, so that ties, crossovers and events on the borders of windows are common."""
    r = random.Random(seed)
    # In the days around the change of clocks in New York and at Lord Howe.
    start = r.choice([datetime(2024, 3, 8, tzinfo=UTC), datetime(2024, 4, 4, 12, tzinfo=UTC)])
    strata = r.choice([[None], ["a", "b"], [None, "a"]])

    def moment() -> datetime:
        return start + r.randrange(0, 40) * timedelta(hours=3) + r.choice([0, 0, -1, 1]) * TICK

    exposures = [
        Exposure(
            r.choice(USERS[:-1]),
            r.choice(["t", "t", "t", "c"]),
            moment(),
            r.choice(strata),
            name=r.choice(["x", "x", "x", "other"]),
            phase=r.choice([1, 2, 2, 2]),
            batch=r.randint(1, 4),
        )
        for _ in range(r.randint(0, 30))
    ]
    anchors = [row.at for row in exposures] or [start]
    events = [
        Event(
            r.choice(USERS),
            r.choice(["buy", "visit", "refund", "noise"]),
            r.choice(anchors) + r.choice([-3, -2, -1, 0, 0, 1, 2, 3, 7]) * DAY + r.choice([-1, 0, 0, 1]) * TICK,
            r.choice([None, 0.0, 9.99, 25.01, -4.5, 1e9 + 0.25]),
            r.randint(1, 4),
        )
        for _ in range(r.randint(0, 60))
    ]
    asked = {
        "phase": 2,
        "batch": r.randint(2, 4),
        "as_of": max(anchors) + r.choice([-2, 1, 2, 3, 8]) * DAY,
        "timezone": r.choice(ZONES),
        "forced": r.sample(USERS, r.choice([0, 0, 2])),
    }
    return exposures, events, asked


@pytest.mark.parametrize("seed", range(40))
def test_sums_equal_a_brute_force_count_over_the_users(seed: int) -> None:
    exposures, events, asked = random_facts(seed)
    assert_equal(measure(exposures, events, METRICS, **asked), *brute_force(exposures, events, METRICS, **asked))


def test_no_rows_give_no_counts() -> None:
    found = measure([], [], METRICS)
    assert (found.users, found.forced) == ({}, 0)
    assert all(not measured.cells for measured in found.metrics.values())


@pytest.mark.parametrize(("after", "counts"), [(-TICK, 0), (0 * DAY, 1), (2 * DAY - TICK, 1), (2 * DAY, 0)])
def test_a_window_holds_its_start_and_not_its_end(after: timedelta, counts: int) -> None:
    metric = conversion(delay_days=1, window_days=2)
    found = measure([Exposure("u", "t")], [Event("u", "buy", START + DAY + after)], [metric])
    (sums,) = found.metrics["c"].cells.values()
    assert (sums.n, sums.sums) == (1, (counts,))


@pytest.mark.parametrize(("late", "matured"), [(0 * TICK, 1), (TICK, 0)])
def test_a_user_matures_at_the_instant_his_window_closes(late: timedelta, matured: int) -> None:
    found = measure([Exposure("u", "t", LATER - 7 * DAY + late)], [], [conversion()])
    (sums,) = found.metrics["c"].cells.values()
    assert sums.n == matured


def test_the_first_of_two_exposures_at_one_instant_is_the_first_received() -> None:
    rows = [Exposure("u", "t", stratum="a"), Exposure("u", "c", stratum="b")]
    assert measure(rows, [], []).users == {("a", "t"): UserCounts(1, 0)}
    assert measure(rows[::-1], [], []).users == {("b", "c"): UserCounts(1, 0)}


@pytest.mark.parametrize(
    ("zone", "instant", "day"),
    [
        ("America/New_York", "2024-03-10T04:59:59", "2024-03-09"),  # EST until 07:00Z
        ("America/New_York", "2024-03-11T03:59:59", "2024-03-10"),  # a day of 23 hours ends at 04:00Z
        ("America/New_York", "2024-03-11T04:00:00", "2024-03-11"),
        ("America/New_York", "2024-11-04T04:59:59", "2024-11-03"),  # a day of 25 hours ends at 05:00Z
        ("America/New_York", "2024-11-04T05:00:00", "2024-11-04"),
        ("Australia/Lord_Howe", "2024-04-06T13:00:00", "2024-04-07"),
        ("Asia/Shanghai", "2024-05-01T16:00:00", "2024-05-02"),
        ("UTC", "1969-12-31T23:59:59", "1969-12-31"),
    ],
)
def test_days_are_cut_as_the_calendar_of_the_zone_cuts_them(zone: str, instant: str, day: str) -> None:
    at = datetime.fromisoformat(instant).replace(tzinfo=UTC)
    found = measure([Exposure("u", "t", at)], [], [conversion()], as_of=datetime(2025, 6, 1, tzinfo=UTC), timezone=zone)
    assert [str(cell.day) for cell in found.metrics["c"].cells] == [day]


@pytest.mark.parametrize("zone", ["America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Europe/Dublin"])
def test_offsets_equal_those_of_the_zone_at_every_half_hour_around_a_change(zone: str) -> None:
    as_of = datetime(2025, 1, 15, 7, 31, tzinfo=UTC)
    runs = aggregate._offsets(ZoneInfo(zone), as_of)
    at = as_of - timedelta(days=500)
    while at < as_of:
        us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // TICK
        offset = next((shift for until, shift in runs[:-1] if us < until), runs[-1][1])
        assert timedelta(microseconds=offset) == at.astimezone(ZoneInfo(zone)).utcoffset(), at
        at += timedelta(minutes=15)


def large_facts(users: int) -> tuple[list[Exposure], list[Event]]:
    r = random.Random(5)
    exposures = [Exposure(f"u{i}", r.choice("tc"), START + r.randrange(10**9) * TICK) for i in range(users)]
    events = [
        Event(f"u{r.randrange(users)}", "buy", START + r.randrange(9 * 10**11) * TICK, r.randrange(10**5) / 100)
        for _ in range(3 * users)
    ]
    return exposures, events


def test_order_files_and_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    exposures, events = large_facts(3000)
    tables = exposure_table(exposures), event_table(events)
    metrics = [conversion(), mean("m", [{"event": "buy", "weight": 0.37}], lookback_days=3)]

    def run(threads: int, name: str, arrange: Callable[[pa.Table], list[pa.Table]]) -> Aggregates:
        engine = ibis.duckdb.connect(threads=threads)
        sources = []
        for kind, table in zip(("exposure", "event"), tables, strict=True):
            paths = []
            for number, part in enumerate(arrange(table)):
                paths.append(tmp_path / f"{name}-{kind}-{number}.parquet")
                pq.write_table(part, paths[-1], row_group_size=500)
            sources.append(engine.read_parquet([str(path) for path in paths]))
        try:
            return aggregate.from_facts(
                engine.to_pyarrow,
                *sources,
                metrics,
                experiment="x",
                phase=1,
                batch=1,
                as_of=LATER,
                timezone="UTC",
            )
        finally:
            engine.disconnect()

    def shuffled(table: pa.Table) -> list[pa.Table]:
        return [table.take(pa.array(np.random.default_rng(3).permutation(len(table))))]

    def split(table: pa.Table) -> list[pa.Table]:
        (mixed,) = shuffled(table)
        return [mixed.slice(start, 700) for start in range(0, len(mixed), 700)][::-1]

    one = run(1, "whole", lambda table: [table])
    assert sum(part.n for part in one.metrics["m"].cells.values()) == 3000
    assert run(2, "mixed", shuffled) == one
    assert run(2, "split", split) == one


def test_variance_of_cents_near_a_billion_equals_exact_arithmetic() -> None:
    users = 20_000
    cents = [i * 7919 % 300 for i in range(users)]
    exposures = [Exposure(f"u{i}", "t") for i in range(users)]
    events = [Event(f"u{i}", "buy", START, 1_000_000_000 + cents[i] / 100) for i in range(users)]
    found = measure(exposures, events, [mean(window_days=1)])
    (sums,) = found.metrics["m"].cells.values()
    moments = sums.moments(found.metrics["m"].layout.scales)
    spread = Fraction(sum(c * c for c in cents)) - Fraction(sum(cents) ** 2, users)
    assert moments.cross[0, 0] == pytest.approx(float(spread / 10_000), rel=1e-12)
    assert moments.mean[0] == 1e9 + sum(cents) / users / 100


def test_absurd_numbers_are_cut_at_the_stated_limit() -> None:
    """The largest value that ingest takes, many times over, for many users."""
    exposures = [Exposure(f"u{i}", "t") for i in range(200)]
    events = [Event(f"u{i}", "buy", START, 1e12) for i in range(200) for _ in range(12)]
    limit = 10**11 * 1_000_000
    for weight, expected in ((3, limit), (-1, -limit), (0.3, limit)):
        found = measure(exposures, events, [mean(terms=[{"event": "buy", "weight": weight}])])
        (sums,) = found.metrics["m"].cells.values()
        assert sums == Sums(200, (200 * expected,), (200 * limit**2,))


def test_moments_of_sums_equal_numpy_on_the_rows() -> None:
    rows = np.random.default_rng(2).integers(-(10**9), 10**9, (50, 3))
    scales = (1, 1000, 1_000_000)
    found = summed(rows.tolist()).moments(scales)
    expected = Moments.from_rows(rows / scales)
    assert found.n == 50
    assert_allclose(found.mean, expected.mean, rtol=1e-14)
    assert_allclose(found.covariance, np.cov((rows / scales).T), rtol=1e-12)


def test_adding_sums_equals_summing_all_rows() -> None:
    rows = np.random.default_rng(3).integers(-(10**6), 10**6, (20, 2)).tolist()
    assert summed(rows[:7]) + summed(rows[7:]) == summed(rows)
