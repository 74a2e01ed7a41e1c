"""Who would take part, counted as one by one; what stands in the way of an experiment before it starts."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments import conflicts, ingest, lake, registry
from experiments.conflicts import ConcernCode, Weight
from experiments.crowd import Crowd, compiled
from experiments.documents import Experiment, Kind, Status, parse
from experiments.sdk.experiment import Reason
from experiments.settings import Settings
from experiments.store import Store
from tests.web import made

NOW = made.NOW


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store.open(Settings.in_folder(tmp_path), migrate=True)
    with store.write() as session:
        registry.create(session, Kind.metric, made.PRIMARY, actor="s", now=NOW)
        registry.create(session, Kind.segment, made.SEGMENTS[0], actor="s", now=NOW)
        registry.create(session, Kind.layer, {"key": "push", "name": "Push"}, actor="s", now=NOW)
        registry.create(session, Kind.holdout, {"key": "all", "name": "All", "share": 0.1}, actor="s", now=NOW)
    yield store
    store.close()


def people(store: Store, users: int) -> dict[str, dict[str, object]]:
    rng = random.Random(3)
    known = {f"u{i}": {"orders": rng.choice([1, 2, None]), "tags": ["a"] * rng.randint(0, 2)} for i in range(users)}
    items: list[ingest.AnyItem] = [
        ingest.Identify(
            message_id=f"i{user}", user_id=user, timestamp=NOW, traits=msgspec.Raw(msgspec.json.encode(traits))
        )
        for user, traits in known.items()
    ]
    take(store, items)
    return known


def take(store: Store, items: list[ingest.AnyItem]) -> None:
    with store.write() as session:
        receipt = ingest.store(session, store.catalog(session), list(enumerate(items)), now=NOW)
    assert not receipt.rejected


def experiment(key: str = "new", **fields: Any) -> Experiment:
    made_: Experiment = parse(Kind.experiment, made.PLAIN | {"key": key, "name": key} | fields)
    return made_


def running(store: Store, key: str, **fields: Any) -> None:
    with store.write() as session:
        registry.create(session, Kind.experiment, experiment(key, **fields).to_json(), actor="s", now=NOW)
        registry.move(session, key, Status.running, actor="s", now=NOW)


def found(store: Store, document: Experiment, **also: Any) -> conflicts.Findings:
    with store.read() as session:
        return conflicts.find(session, store.lake, document, now=NOW, **also)


def codes(findings: conflicts.Findings) -> list[ConcernCode]:
    return [concern.code for concern in findings.concerns]


def test_the_size_is_that_of_asking_one_by_one(store: Store) -> None:
    known = people(store, 3_000)
    running(store, "other", coverage=0.5)
    document = experiment(
        audience={"tags": {"$in": ["a"]}},
        strata=[{"segment": "new"}],
        holdouts=["all"],
        layer={"key": "push", "start": 0.0, "end": 0.5},
        coverage=0.7,
    )
    with store.read() as session:
        snapshot = registry.snapshot(session)
        other = registry.get(session, Kind.experiment, "other")
    mine, theirs = compiled(document, snapshot), compiled(other, snapshot)
    takes = {user for user, traits in known.items() if mine.assign(user, traits).reason is Reason.assigned}
    free = {user for user in takes if theirs.assign(user, known[user]).reason is not Reason.assigned}
    match = [traits for traits in known.values() if "a" in traits["tags"] and traits["orders"] == 1]  # type: ignore[operator]
    size = found(store, document).size
    assert (size.on_record, size.exact) == (3_000, True)
    assert (size.match, size.enrolled, size.free) == (len(match), len(takes), len(free))
    assert 0 < len(free) < len(takes) < len(match)


def test_many_users_are_counted_on_an_even_part(store: Store) -> None:
    people(store, 3_000)
    with store.read() as session:
        crowd = Crowd.of(session, now=NOW, sample=500)
        size = crowd.size(compiled(experiment(), registry.snapshot(session)))
    assert 400 <= len(crowd.ids) <= 500
    assert (size.exact, size.enrolled) == (False, 3_000)


def test_the_part_is_taken_by_hash_on_postgresql(postgres_store: Store) -> None:
    people(postgres_store, 3_000)
    with postgres_store.read() as session:
        crowd = Crowd.of(session, now=NOW, sample=500)
        again = Crowd.of(session, now=NOW, sample=500)
        size = crowd.size(compiled(experiment(), registry.snapshot(session)))
    assert 400 <= len(crowd.ids) <= 600
    assert sorted(crowd.ids) == sorted(again.ids)
    assert (size.exact, size.enrolled) == (False, 3_000)


def test_nothing_is_known_without_users_on_record(store: Store) -> None:
    size = found(store, experiment()).size
    assert (size.on_record, size.match, size.enrolled, size.free) == (0, None, None, None)


def test_ranges_of_a_layer_that_overlap_block(store: Store) -> None:
    people(store, 200)
    running(store, "theirs", layer={"key": "push", "start": 0.2, "end": 0.6})
    taken = found(store, experiment(layer={"key": "push", "start": 0.5, "end": 1.0}))
    assert taken.concerns[0].code is ConcernCode.layer_taken
    assert taken.concerns[0].weight is Weight.blocks
    assert taken.concerns[0].experiment == "theirs"
    apart = codes(found(store, experiment(layer={"key": "push", "start": 0.6, "end": 1.0})))
    assert ConcernCode.layer_taken not in apart
    assert ConcernCode.audience_overlap not in apart


def test_an_overlap_is_told_with_its_share_and_the_channel(store: Store) -> None:
    people(store, 2_000)
    push = {"frequency": {"touches": 1, "per": "week", "channel": "push"}}
    arms = [{"key": "a"}, {"key": "b", "tactic": push}]
    running(store, "half", coverage=0.5, variants=arms)
    running(store, "none", audience={"orders": 99})
    findings = found(store, experiment(variants=arms))
    overlap = next(c for c in findings.concerns if c.code is ConcernCode.audience_overlap)
    assert overlap.experiment == "half"
    assert overlap.share == pytest.approx(0.5, abs=0.05)
    assert [c.channel for c in findings.concerns if c.code is ConcernCode.same_channel] == ["push"]
    assert "none" not in {c.experiment for c in findings.concerns}
    assert ConcernCode.same_channel not in codes(found(store, experiment()))


def test_events_count_as_seen_from_the_inbox_and_from_the_lake_for_a_month(store: Store) -> None:
    assert ConcernCode.event_not_seen in codes(found(store, experiment()))
    take(store, [ingest.Event(message_id="old", user_id="u", timestamp=NOW - timedelta(days=31), event="visit")])
    assert ConcernCode.event_not_seen in codes(found(store, experiment()))
    take(store, [ingest.Event(message_id="new", user_id="u", timestamp=NOW - timedelta(days=29), event="visit")])
    assert ConcernCode.event_not_seen not in codes(found(store, experiment()))
    lake.sync(store.engine, store.lake, now=NOW)
    assert ConcernCode.event_not_seen not in codes(found(store, experiment()))


def test_too_few_users_or_none(store: Store) -> None:
    people(store, 60)
    few = found(store, experiment()).concerns
    assert [(c.code, c.users, c.share) for c in few if c.users is not None] == [(ConcernCode.too_few_users, 60, 0.6)]
    assert ConcernCode.no_users_match in codes(found(store, experiment(audience={"orders": 99})))
    assert ConcernCode.too_few_users not in codes(found(store, experiment(plan={"planned_users": 50})))


def test_every_kind_of_metric_tells_its_events() -> None:
    kinds: dict[str, tuple[dict[str, Any], list[str]]] = {
        "mean": ({"terms": [{"event": "a"}, {"event": "b"}, {"event": "a"}]}, ["a", "b"]),
        "ratio": ({"numerator": [{"event": "a"}], "denominator": [{"event": "b"}]}, ["a", "b"]),
        "funnel": ({"steps": ["a", "b"]}, ["a", "b"]),
        "time_to_event": ({"event": "a"}, ["a"]),
    }
    for kind, (fields, events) in kinds.items():
        metric = parse(Kind.metric, {"key": "m", "name": "M", "kind": kind, "window_days": 1} | fields)
        assert conflicts.events_of(metric) == events
