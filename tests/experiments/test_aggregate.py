import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from experiments import aggregate, identity, people
from experiments.people import Scope
from experiments.sums import Aggregates, Cell, Sums, UserCounts
from stats.moments import Moments
from tests.experiments.brute_force import DAY, TICK, assert_equal, bits, facts, summed
from tests.experiments.rows import (
    LATER,
    START,
    Alias,
    Event,
    Exposure,
    alias_table,
    conversion,
    event_table,
    exposure_table,
    mean,
    measure,
    metric,
    ratio,
)

FUNNEL = {"kind": "funnel", "steps": ["visit", "buy", "refund"], "window_days": 3}
METRICS = [
    conversion("c", delay_days=1, window_days=2),
    conversion("c_before", "visit", window_days=3, lookback_days=2),
    mean("m", [{"event": "buy"}, {"event": "refund", "weight": -1}], window_days=2, cap=30),
    mean("m_fine", [{"event": "buy", "weight": 0.35}, {"event": "visit", "aggregate": "count", "weight": 0.1}]),
    mean("m_before", [{"event": "visit", "aggregate": "count"}, {"event": "buy"}], lookback_days=3, cap=2),
    mean("m_percentile", [{"event": "buy"}], window_days=2, lookback_days=2, cap_percentile=75.5),
    ratio("r", [{"event": "buy"}], [{"event": "visit", "aggregate": "count"}], window_days=3, lookback_days=1),
    metric("back", kind="retention", event="visit", day=1),
    metric("back_later", kind="retention", event="visit", day=2, window_days=5),
    metric("wait", kind="time_to_event", event="buy", window_days=3),
    metric("path", **FUNNEL),
    metric("path_back", **FUNNEL | {"steps": ["refund", "visit"], "window_days": 1}),
    metric("q", kind="quantile", quantile=0.5, terms=[{"event": "buy"}, {"event": "refund"}], window_days=2),
    metric("q_event", kind="quantile", quantile=0.9, per="event", terms=[{"event": "buy", "weight": 0.35}],
           window_days=3),
]  # fmt: skip
# What is asked of the main metric only depends on its kind.
MAIN = [
    mean("main", [{"event": "buy"}], window_days=5, delay_days=1, cap=20),
    mean("main", [{"event": "visit", "aggregate": "count"}], window_days=4),
    mean("main", [{"event": "buy"}], window_days=2, cap_percentile=60),
    conversion("main", window_days=6),
    METRICS[6],
    METRICS[8],
    METRICS[9],
    METRICS[10],
    METRICS[12],
]


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
    known = exposures or [Exposure("nobody", "t", start)]
    events = []
    for _ in range(r.randint(0, 90)):
        row = r.choice(known)
        events.append(
            Event(
                r.choice([row.user_id, row.user_id, row.user_id, r.choice(USERS)]),
                r.choice(["buy", "buy", "visit", "visit", "refund", "opened", "due"]),
                row.at + r.choice([-3, -2, -1, 0, 0, 0, 1, 2, 3, 7]) * DAY + r.choice([-1, 0, 0, 1]) * TICK,
                r.choice([None, 0.0, 9.99, 25.01, -4.5, 1e9 + 0.25]),
                r.randint(1, 4),
            )
        )
    asked = {
        "phase": 2,
        "batch": r.randint(2, 4),
        "as_of": max(row.at for row in known) + r.choice([-2, 1, 2, 3, 8, 8, 8]) * DAY,
        "timezone": r.choice(ZONES),
        "forced": r.sample(USERS, r.choice([0, 0, 2])),
    }
    return exposures, events, asked


def random_aliases(seed: int) -> list[Alias]:
    """Links among few ids: chains, rings, shared devices, the same link again."""
    r = random.Random(seed)
    links = [Alias(*r.sample(USERS, 2), r.randint(1, 4)) for _ in range(r.choice([1, 3, 6, 15]))]
    return sorted([*links, *r.choices(links, k=2)], key=lambda link: link.batch)


@pytest.mark.parametrize("seed", range(30))
def test_sums_equal_a_brute_force_count_over_the_users(seed: int) -> None:
    exposures, events, asked = random_facts(seed)
    main = MAIN[seed % len(MAIN)]
    metrics = [main, *(other for other in METRICS[seed % 5 :: 5] if other is not main)]
    found = measure(exposures, events, metrics, **asked, received="opened", trigger="due")
    assert_equal(found, facts(exposures, events, **asked), metrics, "opened", "due")


@pytest.mark.parametrize("seed", range(30))
def test_sums_over_people_with_several_ids_equal_a_brute_force_count(seed: int) -> None:
    exposures, events, asked = random_facts(seed)
    asked["aliases"] = random_aliases(seed)
    main = MAIN[seed % len(MAIN)]
    metrics = [main, *(other for other in METRICS[seed % 5 :: 5] if other is not main)]
    found = measure(exposures, events, metrics, **asked, received="opened", trigger="due")
    assert_equal(found, facts(exposures, events, **asked), metrics, "opened", "due")


@pytest.mark.parametrize("seed", range(60))
def test_people_are_those_of_a_brute_force_walk(seed: int) -> None:
    r = random.Random(seed)
    exposures = [Exposure(user, r.choice("tc"), START + r.randrange(5) * DAY) for user in USERS for _ in range(2)]
    asked: dict[str, Any] = {"batch": r.randint(1, 4), "forced": r.sample(USERS, 1), "aliases": random_aliases(seed)}
    known = facts(exposures, [], phase=1, as_of=LATER, timezone="UTC", **asked)
    found = measure(exposures, [], [], **asked)
    assert {who: counts for who, counts in found.users.items() if counts.assigned} == known.users()
    assert (found.forced, found.merged) == (known.forced, known.merged)


def test_links_in_a_ring_hold_but_for_the_one_that_closes_it() -> None:
    links = [Alias("b", "a"), Alias("c", "b"), Alias("a", "c"), Alias("d", "c"), Alias("e", "a")]
    found = identity.last_ids(alias_table(links).sort_by("seq").rename_columns({"name": "other_id"}))
    assert dict(zip(*found.to_pydict().values(), strict=True)) == {"a": "d", "b": "d", "c": "d"}


def test_a_long_chain_of_ids_is_followed_to_its_end() -> None:
    links = [Alias(f"u{i + 1}", f"u{i}") for i in range(1000)]
    random.Random(1).shuffle(links)
    found = measure([Exposure("u0", "t")], [Event("u1000", "buy")], [conversion()], aliases=links)
    (sums,) = found.metrics["c"].cells.values()
    assert sums == Sums(1, (1,), (1,))


def test_a_person_has_the_variant_stratum_and_day_of_the_first_exposure_under_any_id() -> None:
    """Intention to treat: what was bought before it counts as history, under whichever id."""
    exposures = [
        Exposure("user", "c", START + 2 * DAY, "b"),
        Exposure("device", "t", START + DAY, "a"),
        Exposure("tablet", "c", START + 3 * DAY, "b"),
    ]
    events = [Event("user", "buy"), Event("tablet", "buy", START + 4 * DAY)]
    links = [Alias("user", "device"), Alias("user", "tablet")]
    bought = conversion(window_days=5, lookback_days=2)
    found = measure(exposures, events, [bought], aliases=links)
    assert (found.users, found.merged) == ({("a", "t"): UserCounts(1, 1)}, 1)
    assert found.metrics["c"].cells == {
        Cell("a", "t", (START + DAY).date()): Sums(1, (1, 1), (1, 1, 1)),
    }


def test_an_id_seen_in_two_variants_takes_its_person_out() -> None:
    exposures = [Exposure("device", "t"), Exposure("device", "c", START + DAY), Exposure("user", "t", START + 2 * DAY)]
    found = measure(exposures, [], [], aliases=[Alias("user", "device")])
    assert (found.users, found.merged) == ({(None, "t"): UserCounts(1, 0)}, 0)


@pytest.mark.parametrize("forced", ["user", "device", "never seen"])
def test_a_person_is_testing_whichever_id_was_forced(forced: str) -> None:
    links = [Alias("user", "device"), Alias("user", "never seen")]
    found = measure([Exposure("device", "t"), Exposure("user", "c")], [], [], aliases=links, forced=[forced])
    assert (found.users, found.forced, found.merged) == ({(None, "t"): UserCounts(0, 0)}, 1, 0)


def test_links_after_the_watermark_are_not_known_yet() -> None:
    exposures = [Exposure("device", "t"), Exposure("user", "c")]
    links = [Alias("user", "device", batch=2)]
    assert measure(exposures, [], [], aliases=links, batch=1) == measure(exposures, [], [], batch=1)
    assert measure(exposures, [], [], aliases=links, batch=2).merged == 1


def test_no_rows_give_no_counts() -> None:
    found = measure([], [], [MAIN[0], *METRICS], received="opened", trigger="due")
    assert (found.users, found.forced, found.days) == ({}, 0, {})
    parts = [*found.metrics.values(), found.slices, found.received, found.triggered]
    assert all(part is not None and not (part.cells or part.largest) for part in parts)
    assert (found.metrics["wait"].lifetimes, found.metrics["q_event"].values) == ({}, {})


@pytest.mark.parametrize(("after", "counts"), [(-TICK, 0), (0 * DAY, 1), (2 * DAY - TICK, 1), (2 * DAY, 0)])
def test_a_window_holds_its_start_and_not_its_end(after: timedelta, counts: int) -> None:
    metric = conversion(delay_days=1, window_days=2)
    found = measure([Exposure("u", "t")], [Event("u", "buy", START + DAY + after)], [metric])
    (sums,) = found.metrics["c"].cells.values()
    assert (sums.n, sums.sums) == (1, (counts,))


@pytest.mark.parametrize(("days", "place"), [(1, 0), (2, 1), (4, 2), (5, 3)])
def test_a_slice_holds_its_start_and_not_its_end(days: int, place: int) -> None:
    """Six days from day 1 in four parts, which are whole days."""
    at = START + days * DAY
    found = measure([Exposure("u", "t")], [Event("u", "buy", at)], [conversion(delay_days=1, window_days=6)])
    assert found.bounds == (1, 2, 4, 5, 7)
    assert found.slices is not None
    (sums,) = found.slices.cells.values()
    assert sums.sums == tuple(int(i == place) for i in range(4))


def test_those_reached_have_the_numbers_that_all_have_cut_alike() -> None:
    exposures = [Exposure(f"u{i}", "t") for i in range(1, 10)]
    events = [Event(f"u{i}", name, START, i) for i in range(1, 10) for name in ("buy", "opened", "due")]
    main = mean(cap_percentile=50)
    found = measure(exposures, events, [main], received="opened", trigger="due")
    for part in (found.metrics["m"], found.received, found.triggered):
        assert part is not None
        (sums,) = part.cells.values()
        assert sums.sums[0] == (1 + 2 + 3 + 4 + 5 * 5) * 1_000_000


@pytest.mark.parametrize(("late", "matured"), [(0 * TICK, 1), (TICK, 0)])
def test_a_user_matures_at_the_instant_his_window_closes(late: timedelta, matured: int) -> None:
    found = measure([Exposure("u", "t", LATER - 7 * DAY + late)], [], [conversion()])
    (sums,) = found.metrics["c"].cells.values()
    assert sums.n == matured


@pytest.mark.parametrize(
    ("after", "reached"),
    [
        ({"visit": 1, "buy": 2, "refund": 3}, (1, 1, 1)),
        ({"visit": 1, "buy": 1, "refund": 1}, (1, 1, 1)),
        ({"visit": 2, "buy": 1, "refund": 3}, (1, 0, 0)),
        ({"visit": 1, "buy": 3, "refund": 2}, (1, 1, 0)),
        ({"buy": 1, "refund": 2}, (0, 0, 0)),
        ({"visit": 0, "buy": 1, "refund": 72}, (1, 1, 0)),
    ],
    ids=["in order", "all at once", "bought first", "refunded before", "never visited", "too late"],
)
def test_a_funnel_goes_in_the_order_of_its_steps(after: dict[str, int], reached: tuple[int, ...]) -> None:
    events = [Event("u", name, START + hours * timedelta(hours=1)) for name, hours in after.items()]
    found = measure([Exposure("u", "t")], events, [metric("path", **FUNNEL)])
    (sums,) = found.metrics["path"].cells.values()
    assert sums.sums == reached


@pytest.mark.parametrize(
    ("bought", "watched", "lasted", "happened", "counted"),
    [
        (timedelta(hours=5), 3 * DAY, 5 / 24, True, True),
        (timedelta(hours=5) + TICK, 3 * DAY, 6 / 24, True, True),
        (timedelta(0), 3 * DAY, 1 / 24, True, True),
        (timedelta(hours=5), DAY, 5 / 24, True, False),
        (DAY, DAY, 1, False, False),
        (DAY - TICK, DAY, 1, True, False),
        (None, timedelta(hours=30), 30 / 24, False, False),
        (3 * DAY, 5 * DAY, 3, False, True),
        (3 * DAY - TICK, 5 * DAY, 3, True, True),
        (None, 5 * DAY, 3, False, True),
    ],
)
def test_a_wait_ends_with_the_event_or_is_cut_where_the_watch_or_the_window_ends(
    bought: timedelta | None, watched: timedelta, lasted: float, happened: bool, counted: bool
) -> None:
    events = [] if bought is None else [Event("u", "buy", START + bought), Event("u", "buy", START + bought + DAY)]
    wait = metric("wait", kind="time_to_event", event="buy", window_days=3)
    found = measure([Exposure("u", "t")], events, [wait], as_of=START + watched).metrics["wait"]
    assert found.lifetimes is not None
    life = found.lifetimes[None, "t"]
    assert (life.times.tolist(), life.events.tolist(), life.censored.tolist()) == ([lasted], [happened], [not happened])
    assert sum(part.n for part in found.cells.values()) == counted


def test_a_percentile_cuts_large_gains_and_leaves_zeros_and_losses() -> None:
    """Every user of t costs a message; few buy."""
    exposures = [Exposure(f"{variant}{i}", variant) for variant in "tc" for i in range(20)]
    events = [Event(f"t{i}", "message") for i in range(20)] + [
        Event(f"t{i}", "buy", START, 10 * i) for i in range(1, 6)
    ]
    net = [{"event": "buy"}, {"event": "message", "aggregate": "count", "weight": -1}]
    found = measure(exposures, events, [mean("net", net, cap_percentile=75)]).metrics["net"]
    sums = {cell.variant: part for cell, part in found.cells.items()}
    assert found.cap == 39  # of 9, 19, 29, 39, 49
    assert sums["c"].sums == (0, 0)
    assert sums["t"].sums == ((9 + 19 + 29 + 39 + 39 - 15) * 1_000_000, (9 + 19 + 29 + 39 + 49 - 15) * 1_000_000)


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
    runs = people._offsets(ZoneInfo(zone), as_of)
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
        Event(
            f"u{r.randrange(users)}",
            r.choice(["buy", "buy", "visit", "refund"]),
            START + r.randrange(9 * 10**11) * TICK,
            r.randrange(10**5) / 100,
        )
        for _ in range(5 * users)
    ]
    return exposures, events


def test_order_files_and_threads_do_not_change_a_bit(tmp_path: Path) -> None:
    exposures, events = large_facts(3000)
    tables = exposure_table(exposures), event_table(events)
    main = mean("main", [{"event": "buy", "weight": 0.37}], lookback_days=3, cap_percentile=99)
    metrics = [main, *METRICS]

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
                Scope("x", 1, 1, LATER, "UTC", received="visit", trigger="refund"),
            )
        finally:
            engine.disconnect()

    def shuffled(table: pa.Table) -> list[pa.Table]:
        return [table.take(pa.array(np.random.default_rng(3).permutation(len(table))))]

    def split(table: pa.Table) -> list[pa.Table]:
        (mixed,) = shuffled(table)
        return [mixed.slice(start, 700) for start in range(0, len(mixed), 700)][::-1]

    one = run(1, "whole", lambda table: [table])
    assert sum(part.n for part in one.metrics["main"].cells.values()) == 3000
    assert None not in (one.slices, one.received, one.triggered, one.metrics["main"].cap)
    assert bits(run(2, "mixed", shuffled)) == bits(one)
    assert bits(run(2, "split", split)) == bits(one)


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


def test_absurd_values_of_single_events_are_cut_at_the_stated_limit() -> None:
    events = [Event("u", "buy", START, 1e12), Event("u", "buy", START, -1e12)]
    terms = [{"event": "buy", "weight": 1e9}]
    q = metric("q", kind="quantile", quantile=0.5, per="event", terms=terms, window_days=7)
    found = measure([Exposure("u", "t")], events, [q]).metrics["q"].values
    assert found is not None
    assert found[None, "t"].value.tolist() == [-1e11, 1e11]


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
