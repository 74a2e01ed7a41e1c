"""Aggregates from the words of the documents: one user at a time, rational numbers, the zone's own calendar."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import combinations_with_replacement, pairwise, product
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from experiments.sums import Aggregates, Cell, Measured, Sums, UserCounts, Values
from stats.survival import Lifetimes
from tests.experiments.rows import Alias, Event, Exposure

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
Who = tuple[str | None, str]


@dataclass(frozen=True)
class Person:
    """A user who takes part: where and when first seen, and his events."""

    id: str
    at: datetime
    cell: Cell
    crossed: bool
    events: Sequence[Event]

    def between(self, start: datetime, end: datetime) -> list[Event]:
        return [event for event in self.events if start <= event.at < end]


@dataclass(frozen=True)
class Facts:
    """The people of one phase, how many are testing, whose ids only differ in variants, and the moment of looking."""

    people: Sequence[Person]
    forced: int
    merged: int
    as_of: datetime

    def matured(self, metric: Any) -> list[Person]:
        return [p for p in self.people if not p.crossed and window(metric, p)[1] <= self.as_of]

    def users(self) -> dict[Who, UserCounts]:
        counts: dict[Who, UserCounts] = {}
        for person in self.people:
            who = person.cell.stratum, person.cell.variant
            known = counts.get(who, UserCounts(0, 0))
            counts[who] = UserCounts(known.assigned + 1, known.exposed + (not person.crossed))
        return counts

    def days(self) -> dict[date, dict[Who, int]]:
        counts: dict[date, dict[Who, int]] = {}
        for person in self.people:
            assert person.cell.day is not None
            day = counts.setdefault(person.cell.day, {})
            who = person.cell.stratum, person.cell.variant
            day[who] = day.get(who, 0) + 1
        return counts


def facts(
    exposures: Sequence[Exposure],
    events: Sequence[Event],
    *,
    phase: int,
    batch: int,
    as_of: datetime,
    timezone: str,
    forced: Sequence[str],
    aliases: Sequence[Alias] | None = None,
) -> Facts:
    person_of = persons([row for row in aliases or () if row.batch <= batch])
    testing = set(map(person_of, forced))
    seen: dict[str, list[tuple[datetime, int, Exposure]]] = {}
    for number, row in enumerate(exposures):
        if row.name == "x" and row.phase == phase and row.batch <= batch and row.at <= as_of:
            seen.setdefault(person_of(row.user_id), []).append((row.at, number, row))
    people = []
    merged = 0
    for user, rows in seen.items():
        at, _, first = min(rows)
        if user not in testing:
            cell = Cell(first.stratum, first.variant, at.astimezone(ZoneInfo(timezone)).date())
            mine = [event for event in events if person_of(event.user_id) == user and event.batch <= batch]
            met = {(row.user_id, row.variant) for _, _, row in rows}
            crossed = len(met) > len({own for own, _ in met})
            merged += not crossed and len({variant for _, variant in met}) > 1
            people.append(Person(user, at, cell, crossed, mine))
    return Facts(people, len(seen.keys() & testing), merged, as_of)


def persons(aliases: Iterable[Alias]) -> Callable[[str], str]:
    """The last id of every id: links as they come, the first of an id, and none that closes a ring."""
    following: dict[str, str] = {}

    def last(user: str) -> str:
        while user in following:
            user = following[user]
        return user

    for row in aliases:
        if row.other_id not in following and last(row.user_id) != row.other_id:
            following[row.other_id] = row.user_id
    return last


def window(metric: Any, person: Person) -> tuple[datetime, datetime]:
    days = metric.day if metric.kind == "retention" else getattr(metric, "delay_days", 0)
    start = person.at + days * DAY
    return start, start + metric.window_days * DAY


def outcomes(metric: Any, person: Person, cap: int | None) -> list[int]:
    """The whole numbers of one user; those of a mean are cut at ``cap``, and come without the cut too."""
    start, end = window(metric, person)
    inside = person.between(start, end)
    match metric.kind:
        case "conversion" | "retention":
            return [int(any(event.name == metric.event for event in inside))]
        case "ratio":
            return [micros(total(metric.numerator, inside)), micros(total(metric.denominator, inside))]
        case "funnel":
            times = [[event.at for event in inside if event.name == step] for step in metric.steps]
            return [int(any(in_order(path) for path in product(*times[: i + 1]))) for i in range(len(times))]
        case "time_to_event":
            first = min((event.at for event in inside if event.name == metric.event), default=end)
            return [(first - person.at) // TICK]
    value = micros(total(metric.terms, inside))
    if getattr(metric, "cap", None) is None and getattr(metric, "cap_percentile", None) is None:
        return [value]
    return [value if cap is None else min(value, cap), value]


def in_order(times: Sequence[datetime]) -> bool:
    return all(a <= b for a, b in pairwise(times))


def covariates(metric: Any, person: Person, cap: int | None) -> list[int]:
    days = getattr(metric, "lookback_days", None)
    if days is None:
        return []
    before = person.between(person.at - days * DAY, person.at)
    match metric.kind:
        case "conversion":
            return [int(any(event.name == metric.event for event in before))]
        case "ratio":
            return [micros(total(metric.numerator, before)), micros(total(metric.denominator, before))]
    value = micros(total(metric.terms, before))
    did = any(
        event.name == term.event and (term.aggregate == "count" or event.value is not None)
        for event in before
        for term in metric.terms
    )
    return [value if metric.cap is None or cap is None else min(value, cap), int(did)]


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


def percentile(metric: Any, people: Iterable[Person]) -> Fraction | None:
    """Of the numbers above zero, between the two nearest by their distance."""
    values = sorted(value for p in people if (value := outcomes(metric, p, None)[0]) > 0)
    if not values:
        return None
    place = Fraction(str(metric.cap_percentile)) / 100 * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def cells(people: Iterable[Person], numbers: Callable[[Person], Sequence[int]]) -> dict[Cell, Sums]:
    rows: dict[Cell, list[Sequence[int]]] = {}
    for person in people:
        rows.setdefault(person.cell, []).append(numbers(person))
    return {cell: summed(part) for cell, part in rows.items()}


def largest(people: Iterable[Person], number: Callable[[Person], int]) -> dict[Cell, int]:
    found: dict[Cell, int] = {}
    for person in people:
        found[person.cell] = max(found.get(person.cell, number(person)), number(person))
    return found


def summed(rows: Sequence[Sequence[int]]) -> Sums:
    k = len(rows[0])
    return Sums(
        len(rows),
        tuple(sum(row[i] for row in rows) for i in range(k)),
        tuple(sum(row[i] * row[j] for row in rows) for i, j in combinations_with_replacement(range(k), 2)),
    )


def slices(metric: Any, person: Person) -> list[int]:
    """The numbers of the quarters of the window, in whole days."""
    start, _ = window(metric, person)
    return numbers_between(metric, person, [start + quarter * metric.window_days // 4 * DAY for quarter in range(5)])


def placebo(metric: Any, person: Person) -> list[int]:
    """The numbers before exposure, in two slices as long as the first two quarters of the window."""
    return numbers_between(metric, person, [person.at - n * metric.window_days // 4 * DAY for n in (2, 1, 0)])


def numbers_between(metric: Any, person: Person, edges: Sequence[datetime]) -> list[int]:
    numbers = []
    for a, b in pairwise(edges):
        inside = person.between(a, b)
        if metric.kind == "mean":
            numbers.append(micros(total(metric.terms, inside)))
        else:
            numbers.append(int(any(event.name == metric.event for event in inside)))
    return numbers


def had(event: str, metric: Any, person: Person) -> bool:
    """Whether the event happened from exposure until the metric's window closes."""
    return any(found.name == event for found in person.between(person.at, window(metric, person)[1]))


def lifetimes(metric: Any, known: Facts) -> dict[Who, Lifetimes]:
    """Days to the event in started hours, or as far as each user was watched without it."""
    rows: dict[Who, list[tuple[float, bool]]] = {}
    for person in known.people:
        if not person.crossed:
            end = min(window(metric, person)[1], known.as_of)
            times = [event.at for event in person.between(person.at, end) if event.name == metric.event]
            lasted = min(times, default=end) - person.at
            hours = max(1, -(-lasted // timedelta(hours=1)))
            rows.setdefault((person.cell.stratum, person.cell.variant), []).append((hours / 24, bool(times)))
    return {who: Lifetimes.from_rows(*map(list, zip(*part, strict=True))) for who, part in rows.items()}


def values(metric: Any, known: Facts) -> Mapping[Who, list[tuple[int, float, int | None]]]:
    """Day of exposure, value, and whose it is: the users with closed windows numbered by id."""
    matured = sorted(known.matured(metric), key=lambda person: person.id)
    rows: dict[Who, list[tuple[int, float, int | None]]] = {}
    for number, person in enumerate(matured):
        who = person.cell.stratum, person.cell.variant
        assert person.cell.day is not None
        day = (person.cell.day - datetime(1970, 1, 1, tzinfo=UTC).date()).days
        if metric.per == "user":
            rows.setdefault(who, []).append((day, outcomes(metric, person, None)[0] / 1_000_000, None))
            continue
        (term,) = metric.terms
        for event in person.between(*window(metric, person)):
            if event.name == term.event and event.value is not None:
                value = micros(total([term], [event])) / 1_000_000
                rows.setdefault(who, []).append((day, value, number))
    return {who: sorted(part) for who, part in rows.items()}


def assert_equal(found: Aggregates, known: Facts, metrics: Sequence[Any], received: str, trigger: str) -> None:
    assert {who: counts for who, counts in found.users.items() if counts.assigned} == known.users()
    assert (found.forced, found.merged) == (known.forced, known.merged)
    assert {day: some for day, part in found.days.items() if (some := positive(part))} == known.days()
    for each in metrics:
        assert_measured(found.metrics[each.key], known, each, cap_of(each, found, known))
    assert_main(found, known, metrics[0], cap_of(metrics[0], found, known), received, trigger)


def assert_measured(found: Measured, known: Facts, metric: Any, cap: int | None) -> None:
    people = known.matured(metric)
    assert_cells(found, people, lambda p: outcomes(metric, p, cap) + covariates(metric, p, cap))
    assert found.largest == (largest(people, lambda p: outcomes(metric, p, cap)[0]) if metric.kind == "mean" else {})
    assert bits(found.lifetimes) == bits(lifetimes(metric, known) if metric.kind == "time_to_event" else None)
    assert listed(found.values) == (values(metric, known) if metric.kind == "quantile" else None)


def assert_main(found: Aggregates, known: Facts, main: Any, cap: int | None, received: str, trigger: str) -> None:
    people = known.matured(main)

    def decides(person: Person) -> list[int]:
        numbers = outcomes(main, person, cap)
        return numbers[-1:] if main.kind == "funnel" else numbers[: 2 if main.kind == "ratio" else 1]

    if main.kind in ("mean", "conversion") and main.window_days >= 4:
        assert found.slices is not None
        assert_cells(found.slices, people, lambda p: slices(main, p))
        lengths = [b - a for a, b in pairwise(found.bounds)]
        assert (found.bounds[0], found.bounds[-1]) == (main.delay_days, main.horizon_days)
        unit = 1 if main.kind == "conversion" else 1_000_000
        assert list(found.slices.layout.scales) == [unit * length for length in lengths]
        assert found.placebo is not None
        assert_cells(found.placebo, people, lambda p: placebo(main, p))
        lengths = [b - a for a, b in pairwise(found.placebo_bounds)]
        assert (len(lengths), found.placebo_bounds[-1]) == (2, 0)
        assert list(found.placebo.layout.scales) == [unit * length for length in lengths]
    else:
        assert (found.slices, found.bounds, found.placebo, found.placebo_bounds) == (None, (), None, ())
    if main.kind == "quantile":
        assert (found.received, found.triggered) == (None, None)
        return
    assert found.received is not None
    assert found.triggered is not None
    assert_cells(found.received, people, lambda p: [*decides(p), int(had(received, main, p))])
    assert_cells(found.triggered, [p for p in people if had(trigger, main, p)], decides)


def assert_cells(found: Measured, people: Iterable[Person], numbers: Callable[[Person], Sequence[int]]) -> None:
    assert {cell: part for cell, part in found.cells.items() if part.n} == cells(people, numbers)
    empty = [part for part in found.cells.values() if not part.n]
    assert not any(any(part.sums) or any(part.products) for part in empty)


def cap_of(metric: Any, found: Aggregates, known: Facts) -> int | None:
    """The cut in millionths: as stated, or the percentile to the nearest one."""
    cap = found.metrics[metric.key].cap
    if getattr(metric, "cap_percentile", None) is None:
        assert cap == getattr(metric, "cap", None)
    else:
        exact = percentile(metric, known.matured(metric))
        assert (cap is None) == (exact is None)
        assert exact is None or abs(Fraction(cap or 0) * 1_000_000 - exact) <= 1
    return None if cap is None else round(cap * 1_000_000)


def positive(counts: Mapping[Any, int]) -> dict[Any, int]:
    return {who: count for who, count in counts.items() if count}


def listed(found: Mapping[Any, Values] | None) -> object:
    if found is None:
        return None
    return {
        who: list(zip(v.day.tolist(), v.value.tolist(), [None] * v.day.size if v.user is None else v.user.tolist(),
                      strict=True))
        for who, v in found.items()
    }  # fmt: skip


def bits(value: object) -> object:
    """The value with arrays as their bytes, so that == means equal to the last bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tobytes()
    if isinstance(value, Mapping):
        return {key: bits(part) for key, part in value.items()}
    if is_dataclass(value):
        return [bits(getattr(value, field.name)) for field in fields(value)]
    return value
