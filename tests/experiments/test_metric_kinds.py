"""Each kind of metric from the batch received to the saved report: the plain numbers of a small table."""

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from experiments import ingest, registry, reports
from experiments.documents import Experiment, Kind, Status, parse
from experiments.report import Comparison, MetricReport, Report
from experiments.settings import Settings
from experiments.store import Store
from tests.experiments.rows import assert_sound
from tests.experiments.shop import NOW, SENT

BUY = [{"event": "buy"}]
METRICS: list[dict[str, Any]] = [
    {"key": "spend", "kind": "mean", "terms": BUY, "window_days": 8, "cap_percentile": 75, "role": "primary"},
    {"key": "back", "kind": "retention", "event": "open", "day": 2},
    {"key": "wait", "kind": "time_to_event", "event": "buy", "window_days": 5},
    {"key": "median", "kind": "quantile", "terms": BUY, "quantile": 0.5, "window_days": 8},
    {"key": "basket", "kind": "quantile", "per": "event", "terms": BUY, "quantile": 0.75, "window_days": 8},
    {"key": "path", "kind": "funnel", "steps": ["open", "click", "buy"], "window_days": 6},
]
EXPERIMENT: dict[str, Any] = {
    "key": "push",
    "name": "Push",
    "variants": [
        {"key": "c"},
        {"key": "t", "tactic": {"frequency": {"touches": 2, "per": "week"}}},
        {"key": "tt", "tactic": {"frequency": {"touches": 1, "per": "day"}}},
    ],
    "control": "c",
    "metrics": [{"key": metric["key"]} for metric in METRICS],
    "plan": {"planned_users": 300, "method": "fixed"},
    "reach": {"received": "open", "trigger": "due"},
}


class Happened(NamedTuple):
    """An event, ``hours`` after exposure."""

    name: str
    hours: int
    value: float | None


class Person(NamedTuple):
    """A user of the table."""

    user: str
    variant: str
    events: list[Happened]

    def hours(self, name: str, days: int) -> list[int]:
        return sorted(e.hours for e in self.events if e.name == name and 0 <= e.hours < 24 * days)

    def spends(self, days: int = 8, start: int = 0) -> list[float]:
        return [e.value or 0 for e in self.events if e.name == "buy" and 24 * start <= e.hours < 24 * days]


def population() -> list[Person]:
    r = random.Random(8)
    people = []
    for number in range(300):
        variant = r.choice(["c", "t", "tt"])
        events = [Happened("due", r.randrange(12), None)] if r.random() < 0.7 else []
        for name, most, chance in (("open", 2, 0.2 if variant == "c" else 0.8), ("click", 3, 0.8), ("buy", 4, 0.8)):
            times = [r.randrange(9 * 24) for _ in range(r.randint(1, most))] if r.random() < chance else []
            events += [
                Happened(name, at, round(r.lognormvariate(3, 0.5), 2) if name == "buy" else None) for at in times
            ]
        events += [Happened("buy", -r.randrange(1, 5 * 24), round(r.lognormvariate(3, 0.5), 2)) for _ in range(2)]
        people.append(Person(f"u{number}", variant, events))
    return people


PEOPLE = population()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(Settings.in_folder(tmp_path_factory.mktemp("kinds")), migrate=True)
    with opened.write() as session:
        for metric in METRICS:
            registry.create(session, Kind.metric, {"name": metric["key"]} | metric, actor="test", now=SENT)
        registry.create(session, Kind.experiment, EXPERIMENT, actor="test", now=SENT)
        registry.move(session, "push", Status.running, actor="test", now=SENT)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def made(store: Store) -> Report:
    items: list[dict[str, Any]] = []
    for who in PEOPLE:
        common = {"userId": who.user, "timestamp": SENT}
        seen = {"type": "exposure", "messageId": who.user, "experiment": "push", "variant": who.variant}
        items.append(common | seen)
        for number, (name, hours, value) in enumerate(who.events):
            event = {"type": "event", "messageId": f"{who.user}-{number}", "event": name, "value": value}
            items.append(common | event | {"timestamp": SENT + timedelta(hours=hours)})
    with store.write() as session:
        receipt = ingest.receive(session, store.catalog(session), msgspec.json.encode({"batch": items}), now=NOW)
    assert not receipt.rejected
    saved = reports.make(store, "push", now=NOW)
    assert_sound(saved.body)
    return saved.report


def of(variant: str) -> list[Person]:
    return [person for person in PEOPLE if person.variant == variant]


def part(report: Report, key: str) -> MetricReport:
    (found,) = [metric for metric in report.metrics if metric.metric == key]
    assert found.matured == len(PEOPLE)
    return found


def means(metric: MetricReport) -> dict[str, float | None]:
    return {arm.variant: arm.mean for arm in metric.arms}


def effects(metric: MetricReport) -> dict[str, float]:
    def estimate(comparison: Comparison) -> float:
        assert comparison.absolute is not None
        return comparison.absolute.estimate

    return {comparison.variant: estimate(comparison) for comparison in metric.comparisons}


def approx(numbers: dict[str, Any]) -> Any:
    return pytest.approx(numbers, rel=1e-9)


def spend_of(variant: str, cap: float = np.inf) -> Any:
    return np.minimum([sum(person.spends()) for person in of(variant)], cap)


def test_a_mean_is_cut_at_the_percentile_and_shown_uncut_beside(made: Report) -> None:
    spend = part(made, "spend")
    everyone = np.array([sum(person.spends()) for person in PEOPLE])
    cap = float(np.percentile(everyone[everyone > 0], 75))
    assert means(spend) == approx({v: spend_of(v, cap).mean() for v in ("c", "t", "tt")})
    assert effects(spend) == approx({v: spend_of(v, cap).mean() - spend_of("c", cap).mean() for v in ("t", "tt")})
    assert [entry.cap for entry in spend.capping] == [pytest.approx(cap, abs=1e-6)] * 3
    uncut = {entry.variant: entry.uncapped.estimate for entry in spend.capping if entry.uncapped}
    assert uncut == approx({v: spend_of(v).mean() - spend_of("c").mean() for v in ("t", "tt")})
    removed = {entry.variant: entry.removed for entry in spend.capping}
    assert removed == approx({v: 1 - spend_of(v, cap).sum() / spend_of(v).sum() for v in removed})
    assert {entry.variant: entry.share for entry in spend.influence} == approx(
        {v: spend_of(v, cap).max() / spend_of(v, cap).sum() for v in ("t", "tt")}
    )


def test_slices_are_the_effects_a_day_of_the_quarters_of_the_window(made: Report) -> None:
    points = [point for point in part(made, "spend").slices if point.variant == "t"]
    assert [(point.start, point.end) for point in points] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    for point in points:
        t, c = ([sum(p.spends(point.end, point.start)) / 2 for p in of(v)] for v in ("t", "c"))
        assert point.absolute.estimate == pytest.approx(np.mean(t) - np.mean(c))


def test_the_placebo_is_what_was_spent_a_day_before_exposure(made: Report) -> None:
    points = [point for point in part(made, "spend").placebo if point.variant == "t"]
    assert [(point.start, point.end) for point in points] == [(-4, -2), (-2, 0)]
    for point in points:
        t, c = ([sum(p.spends(point.end, point.start)) / 2 for p in of(v)] for v in ("t", "c"))
        assert point.absolute.estimate == pytest.approx(np.mean(t) - np.mean(c))


def test_retention_is_the_share_who_came_back_on_the_day(made: Report) -> None:
    def share(variant: str) -> Any:
        return np.mean([any(48 <= hour < 72 for hour in person.hours("open", 9)) for person in of(variant)])

    back = part(made, "back")
    assert means(back) == approx({v: share(v) for v in ("c", "t", "tt")})
    assert effects(back) == approx({v: share(v) - share("c") for v in ("t", "tt")})


def test_a_time_to_event_is_the_mean_wait_within_the_window(made: Report) -> None:
    """Everybody was watched to the end; an event in the moment of exposure counts as one after an hour."""
    waits = {v: [max([*p.hours("buy", 5), 120][0], 1) / 24 for p in of(v)] for v in ("c", "t", "tt")}
    wait = part(made, "wait")
    assert means(wait) == approx({v: np.mean(days) for v, days in waits.items()})
    assert effects(wait) == approx({v: np.mean(waits[v]) - np.mean(waits["c"]) for v in ("t", "tt")})
    events = {curve.variant: curve.events for curve in wait.survival}
    assert events == {v: sum(bool(p.hours("buy", 5)) for p in of(v)) for v in events}
    assert wait.logrank is not None


@pytest.mark.parametrize(("key", "quantile"), [("median", 0.5), ("basket", 0.75)])
def test_a_quantile_is_that_of_the_users_or_of_the_events(made: Report, key: str, quantile: float) -> None:
    def number(variant: str) -> Any:
        spends = [person.spends() for person in of(variant)]
        values = [sum(mine) for mine in spends] if key == "median" else [value for mine in spends for value in mine]
        return np.quantile(values, quantile, method="inverted_cdf")

    found = part(made, key)
    assert means(found) == approx({v: number(v) for v in ("c", "t", "tt")})
    assert effects(found) == approx({v: number(v) - number("c") for v in ("t", "tt")})


def test_a_funnel_counts_who_reached_each_step_in_order(made: Report) -> None:
    def reached(person: Person) -> int:
        at, steps = 0, 0
        for step in ("open", "click", "buy"):
            later = [hour for hour in person.hours(step, 6) if hour >= at]
            if not later:
                break
            at, steps = later[0], steps + 1
        return steps

    path = part(made, "path")
    counts = {v: [sum(reached(p) >= step for p in of(v)) for step in range(4)] for v in ("c", "t", "tt")}
    assert min(count[-1] for count in counts.values()) > 0
    assert means(path) == approx({v: count[3] / count[0] for v, count in counts.items()})
    for variant, count in counts.items():
        steps = [step for step in path.funnel if step.variant == variant]
        assert [(step.step, step.entered, step.reached) for step in steps] == [
            ("open", count[0], count[1]),
            ("click", count[1], count[2]),
            ("buy", count[2], count[3]),
        ]


def test_those_reached_are_told_by_instrument_and_by_trigger(made: Report) -> None:
    everyone = np.array([sum(person.spends()) for person in PEOPLE])
    cap = float(np.percentile(everyone[everyone > 0], 75))
    opened = {v: np.mean([bool(p.hours("open", 8)) for p in of(v)]) for v in ("c", "t", "tt")}
    for complier in made.compliers:
        variant = complier.variant
        assert (complier.received, complier.received_control) == pytest.approx((opened[variant], opened["c"]))
        effect = (spend_of(variant, cap).mean() - spend_of("c", cap).mean()) / (opened[variant] - opened["c"])
        assert complier.effect is not None
        assert complier.effect.estimate == pytest.approx(effect, rel=1e-6)
    due = {v: [p for p in of(v) if p.hours("due", 8)] for v in ("c", "t", "tt")}
    spends = {v: np.minimum([sum(p.spends()) for p in people], cap).mean() for v, people in due.items()}
    for fired in made.triggered:
        assert (fired.users, fired.users_control) == (len(due[fired.variant]), len(due["c"]))
        assert fired.effect is not None
        assert fired.effect.estimate == pytest.approx(spends[fired.variant] - spends["c"])
    assert len(made.compliers) == len(made.triggered) == 2


def test_the_response_to_frequency_counts_an_untouched_control_as_zero(made: Report) -> None:
    frequency = part(made, "spend").frequency
    assert frequency is not None
    assert [(point.variant, point.dose) for point in frequency.curve] == [("c", 0), ("t", 2), ("tt", 7)]


@pytest.mark.parametrize(
    ("frequencies", "doses"),
    [
        ([None, 2, 3], {"a": 0, "b": 2, "c": 3}),
        ([1, 2, 3], {"a": 1, "b": 2, "c": 3}),
        ([0, 2, 3], {"a": 0, "b": 2, "c": 3}),
        ([None, None, 3], {"c": 3}),
        ([1, 2, None], {"a": 1, "b": 2}),
        ([None, None, None], {}),
    ],
)
def test_only_a_control_is_taken_as_untouched_and_only_if_all_others_are_touched(
    store: Store, frequencies: list[int | None], doses: dict[str, float]
) -> None:
    variants = [
        {"key": key, "tactic": None if n is None else {"frequency": {"touches": n, "per": "week"}}}
        for key, n in zip("abc", frequencies, strict=True)
    ]
    experiment: Experiment = parse(Kind.experiment, EXPERIMENT | {"variants": variants, "control": "a"})
    found = reports.design_of(experiment, [], {}, store.settings).doses
    assert (dict(found), list(found)) == (doses, list(doses))
