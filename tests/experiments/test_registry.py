"""The documents in the record: only ever added to, one change at a time, with who did what."""

from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from experiments import registry
from experiments.documents import Decision, Kind, Status
from experiments.errors import Conflict, InvalidDocument, NotFound
from experiments.sdk import Evaluator
from experiments.store import Store
from experiments.tables import Revision
from tests.experiments.store_rows import METRIC, SEGMENTS, at_once, create, experiment, move, revise, start

LAYER = {"key": "push", "name": "Push"}


def rows(store: Store) -> list[tuple[Any, ...]]:
    with store.read() as session:
        return [tuple(row) for row in session.execute(select(Revision.__table__).order_by(Revision.id))]


def newest(store: Store, key: str = "spring") -> dict[str, Any]:
    with store.read() as session:
        body: dict[str, Any] = registry.get(session, Kind.experiment, key).to_json()
        return body


def test_rows_are_added_and_never_changed(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    before = rows(any_store)
    revise(any_store, Kind.experiment, newest(any_store) | {"name": "Other"}, now)
    move(any_store, "spring", Status.stopped, now)
    after = rows(any_store)
    assert after[: len(before)] == before
    assert [(row[2], row[3]) for row in after[len(before) :]] == [("spring", 3), ("spring", 4)]


def test_every_change_is_audited_with_its_difference(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    revise(any_store, Kind.experiment, newest(any_store) | {"name": "Otro 😀"}, now + timedelta(hours=1))
    with any_store.read() as session:
        last, started, created = registry.history(session, "spring")
    assert last == {
        "at": (now + timedelta(hours=1)).isoformat(),
        "actor": "wang",
        "action": "revise",
        "revision": 3,
        "diff": [
            {"path": "name", "before": "Spring 春", "after": "Otro 😀"},
            {"path": "revision", "before": 2, "after": 3},
        ],
    }
    assert (started["action"], [entry["path"] for entry in started["diff"]]) == ("running", ["revision", "status"])
    assert {"path": "control", "before": None, "after": "control"} in created["diff"]


def test_old_revisions_stay_readable(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    with any_store.read() as session:
        assert registry.get(session, Kind.experiment, "spring", 1).status is Status.draft
        assert registry.get(session, Kind.experiment, "spring").status is Status.running
        assert registry.revision_of(session, Kind.experiment, "spring") == 2
        with pytest.raises(NotFound):
            registry.get(session, Kind.experiment, "spring", 3)
        with pytest.raises(NotFound):
            registry.get(session, Kind.experiment, "summer")


def test_a_key_is_taken_once_for_each_kind(sqlite_store: Store, now: datetime) -> None:
    create(sqlite_store, Kind.layer, LAYER, now)
    create(sqlite_store, Kind.holdout, LAYER | {"share": 0.1}, now)
    with pytest.raises(Conflict) as caught:
        create(sqlite_store, Kind.layer, LAYER, now)
    assert caught.value.code == "already_exists"


def test_a_key_never_changes(sqlite_store: Store, now: datetime) -> None:
    create(sqlite_store, Kind.layer, LAYER, now)
    with sqlite_store.write() as session, pytest.raises(InvalidDocument) as caught:
        registry.revise(session, Kind.layer, "push", LAYER | {"key": "sms"}, actor="li", now=now)
    assert [problem.problem for problem in caught.value.problems] == ["key_changed"]


def test_the_version_grows_with_each_change(any_store: Store, now: datetime) -> None:
    versions = []
    for change in (
        lambda: None,
        lambda: create(any_store, Kind.layer, LAYER, now),
        lambda: revise(any_store, Kind.layer, LAYER | {"name": "B"}, now),
    ):
        change()
        with any_store.read() as session:
            versions.append(registry.version(session))
    assert versions[0] == 0
    assert versions == sorted(set(versions))


def test_of_concurrent_revisers_one_wins_and_the_others_get_a_conflict(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    body, gate = newest(any_store), Barrier(6)

    def change(number: int) -> str:
        gate.wait()
        name: str = revise(any_store, Kind.experiment, body | {"name": f"name {number}"}, now).name
        return name

    results = at_once(6, change)
    won = [result for result in results if isinstance(result, str)]
    lost = [result for result in results if isinstance(result, Conflict)]
    assert (len(won), len(lost)) == (1, 5)
    assert {error.code for error in lost} == {"stale_revision"}
    assert newest(any_store)["name"] == won[0]
    assert newest(any_store)["revision"] == 3


def test_of_concurrent_creators_one_wins(any_store: Store, now: datetime) -> None:
    gate = Barrier(5)

    def make(number: int) -> Any:
        gate.wait()
        return create(any_store, Kind.layer, LAYER | {"name": f"{number}"}, now)

    results = at_once(5, make)
    assert sum(isinstance(result, Conflict) for result in results) == 4


def test_of_concurrent_starts_in_one_layer_range_one_wins(any_store: Store, now: datetime) -> None:
    create(any_store, Kind.metric, METRIC, now)
    create(any_store, Kind.layer, LAYER, now)
    for number in range(4):
        create(any_store, Kind.experiment, experiment(key=f"e{number}", layer={"key": "push"}), now)
    gate = Barrier(4)

    def begin(number: int) -> Status:
        gate.wait()
        return move(any_store, f"e{number}", Status.running, now).status

    results = at_once(4, begin)
    assert results.count(Status.running) == 1
    assert [error.code for error in results if isinstance(error, Conflict)] == ["layer_taken"] * 3


def test_a_change_not_committed_yet_is_not_overtaken(postgres_store: Store, now: datetime) -> None:
    """Else the version would stand still when the earlier number is committed later, and caches would miss it."""
    with postgres_store.write() as slow:
        registry.create(slow, Kind.layer, LAYER, actor="li", now=now)
        with postgres_store.engine.connect() as connection, Session(connection) as fast:
            fast.execute(text("SET LOCAL lock_timeout = '200ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                registry.create(fast, Kind.layer, LAYER | {"key": "sms"}, actor="li", now=now)


def test_references_must_exist_and_all_missing_ones_are_listed(sqlite_store: Store, now: datetime) -> None:
    body = experiment(strata=[{"segment": "gold"}], holdouts=["h"], layer={"key": "push"})
    with pytest.raises(InvalidDocument) as caught:
        create(sqlite_store, Kind.experiment, body, now)
    assert [(problem.field, problem.value, problem.problem) for problem in caught.value.problems] == [
        ("metrics.0.key", "revenue", "unknown_reference"),
        ("strata.0.segment", "gold", "unknown_reference"),
        ("holdouts.0", "h", "unknown_reference"),
        ("layer.key", "push", "unknown_reference"),
    ]


def test_there_is_one_primary_metric_and_guardrails_have_margins(sqlite_store: Store, now: datetime) -> None:
    create(sqlite_store, Kind.metric, METRIC, now)
    create(sqlite_store, Kind.metric, METRIC | {"key": "visits", "role": "secondary"}, now)
    for metrics, field in (
        ([{"key": "revenue", "role": "secondary"}], "metrics"),
        ([{"key": "revenue"}, {"key": "visits", "role": "primary"}], "metrics"),
        ([{"key": "revenue"}, {"key": "visits", "role": "guardrail"}], "metrics.visits.margin"),
    ):
        with pytest.raises(InvalidDocument) as caught:
            create(sqlite_store, Kind.experiment, experiment(metrics=metrics), now)
        assert [problem.field for problem in caught.value.problems] == [field]


def test_metrics_come_with_their_roles_and_margins_the_primary_first(sqlite_store: Store, now: datetime) -> None:
    create(sqlite_store, Kind.metric, METRIC, now)
    create(sqlite_store, Kind.metric, METRIC | {"key": "loss", "role": "guardrail", "margin": 0.2}, now)
    made = create(sqlite_store, Kind.experiment, experiment(metrics=[{"key": "loss"}, {"key": "revenue"}]), now)
    with sqlite_store.read() as session:
        uses = [(metric.key, role.value, margin, revision) for metric, role, margin, revision in
                registry.metric_uses(session, made)]  # fmt: skip
    assert uses == [("revenue", "primary", None, 1), ("loss", "guardrail", 0.2, 1)]


def test_the_primary_metric_stays_even_by_its_default_role(sqlite_store: Store, now: datetime) -> None:
    for key in ("revenue", "orders"):
        create(sqlite_store, Kind.metric, METRIC | {"key": key}, now)
    create(sqlite_store, Kind.experiment, experiment(metrics=[{"key": "revenue"}]), now)
    move(sqlite_store, "spring", Status.running, now)
    with pytest.raises(InvalidDocument) as caught:
        revise(sqlite_store, Kind.experiment, newest(sqlite_store) | {"metrics": [{"key": "orders"}]}, now)
    assert [(problem.field, problem.value) for problem in caught.value.problems] == [("metrics", ["revenue"])]
    revise(
        sqlite_store, Kind.experiment, newest(sqlite_store) | {"metrics": [{"key": "revenue", "role": "primary"}]}, now
    )


def test_experiments_under_way_in_a_layer_are_disjoint(any_store: Store, now: datetime) -> None:
    create(any_store, Kind.metric, METRIC, now)
    create(any_store, Kind.layer, LAYER, now)
    for key, begin, end in (("a", 0.0, 0.5), ("b", 0.4999, 1.0), ("c", 0.5, 1.0)):
        body = experiment(key=key, layer={"key": "push", "start": begin, "end": end})
        create(any_store, Kind.experiment, body, now)
    move(any_store, "a", Status.running, now)
    with pytest.raises(Conflict, match="'a' uses") as caught:
        move(any_store, "b", Status.running, now)
    assert caught.value.code == "layer_taken"
    move(any_store, "c", Status.running, now)
    move(any_store, "a", Status.paused, now)
    with pytest.raises(Conflict):
        move(any_store, "b", Status.running, now)
    move(any_store, "a", Status.stopped, now)
    move(any_store, "c", Status.stopped, now)
    move(any_store, "b", Status.running, now)
    revise(any_store, Kind.experiment, newest(any_store, "a") | {"name": "stopped, so its range is nobody's"}, now)


def test_a_segment_in_use_does_not_change_until_the_experiment_stops(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now, strata=True)
    wider = SEGMENTS[0] | {"condition": {"tier": {"$in": ["gold", "silver"]}}}
    revise(sqlite_store, Kind.segment, SEGMENTS[0], now)
    with pytest.raises(Conflict) as caught:
        revise(sqlite_store, Kind.segment, wider, now)
    assert caught.value.code == "in_use"
    move(sqlite_store, "spring", Status.stopped, now)
    assert revise(sqlite_store, Kind.segment, wider, now).condition == wider["condition"]


@pytest.mark.parametrize(
    ("kind", "body", "use"),
    [
        (Kind.layer, LAYER, {"layer": {"key": "push"}}),
        (Kind.holdout, {"key": "h", "name": "H", "share": 0.1}, {"holdouts": ["h"]}),
    ],
)
def test_a_layer_or_holdout_in_use_does_not_change(
    sqlite_store: Store, now: datetime, kind: Kind, body: dict[str, Any], use: dict[str, Any]
) -> None:
    create(sqlite_store, Kind.metric, METRIC, now)
    create(sqlite_store, kind, body, now)
    create(sqlite_store, Kind.experiment, experiment(**use), now)
    revise(sqlite_store, kind, body | {"salt": "before the start"}, now)
    move(sqlite_store, "spring", Status.running, now)
    with pytest.raises(Conflict):
        revise(sqlite_store, kind, body | {"salt": "after"}, now)


def test_the_snapshot_compiles_and_assigns(any_store: Store, now: datetime) -> None:
    create(any_store, Kind.layer, LAYER, now)
    create(any_store, Kind.holdout, {"key": "h", "name": "H", "share": 0.1}, now)
    start(any_store, now, strata=True)
    create(any_store, Kind.experiment, experiment(key="next", layer={"key": "push"}, holdouts=["h"]), now)
    move(any_store, "next", Status.running, now)
    with any_store.read() as session:
        evaluator = Evaluator(registry.snapshot(session))
        catalog = any_store.catalog(session)
    assert set(evaluator.experiments) == {"spring", "next"}
    users = [f"u{number}" for number in range(500)]
    golden = [evaluator.assign("spring", user, {"tier": "gold"}) for user in users]
    assert {answer.stratum for answer in golden} == {"gold"}
    assert {answer.variant for answer in golden} == {"control", "coupon"}
    assert {evaluator.assign("next", user).reason.value for user in users} == {"assigned", "in_holdout"}
    assert [catalog.evaluator.assign("spring", user, {"tier": "gold"}) for user in users] == golden


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "mean", "terms": [{"event": "buy"}], "cap_percentile": 99.0},
        {"kind": "retention", "event": "open", "day": 7},
        {"kind": "time_to_event", "event": "buy"},
        {"kind": "quantile", "terms": [{"event": "buy"}], "quantile": 0.9, "per": "event"},
        {"kind": "funnel", "steps": ["open", "buy"]},
    ],
    ids=lambda fields: fields["kind"],
)
def test_a_metric_of_every_kind_is_read_back_as_it_was_stored(
    sqlite_store: Store, now: datetime, fields: dict[str, Any]
) -> None:
    made = create(sqlite_store, Kind.metric, {"key": "m", "name": "M", "window_days": 7} | fields, now)
    with sqlite_store.read() as session:
        assert registry.get(session, Kind.metric, "m") == made


def test_a_plan_with_all_its_fields_is_kept_and_users_are_assigned_as_without(
    sqlite_store: Store, now: datetime
) -> None:
    plan = {"planned_users": 900, "method": "group_sequential", "looks": [0.5, 1.0], "futility": 0.1}
    levels = [{"copy": "calm"}, {"copy": "urgent"}]
    full = experiment(
        key="full",
        salt="same",
        plan=plan | {"comparisons": "all_pairs"},
        reach={"received": "open", "trigger": "due"},
        variants=[{"key": key, "factors": part} for key, part in zip(("control", "coupon"), levels, strict=True)],
    )
    create(sqlite_store, Kind.metric, METRIC, now)
    for body in (experiment(key="plain", salt="same"), full):
        made = create(sqlite_store, Kind.experiment, body, now)
        move(sqlite_store, body["key"], Status.running, now)
    with sqlite_store.read() as session:
        kept = registry.get(session, Kind.experiment, "full")
        evaluator = Evaluator(registry.snapshot(session))
    assert (kept.plan, kept.reach, kept.variants) == (made.plan, made.reach, made.variants)
    users = [f"u{number}" for number in range(100)]
    plain, other = ([evaluator.assign(key, user, {}).variant for user in users] for key in ("plain", "full"))
    assert other == plain
    for field in ("reach", "plan", "variants"):
        changed = newest(sqlite_store, "full") | {field: experiment(reach=None)[field]}
        with pytest.raises(InvalidDocument) as caught:
            revise(sqlite_store, Kind.experiment, changed, now)
        assert [(p.field, p.problem) for p in caught.value.problems] == [(field, "fixed_after_start")]


def test_the_catalog_follows_each_change(any_store: Store, now: datetime) -> None:
    start(any_store, now)
    with any_store.read() as session:
        first = any_store.catalog(session)
        assert any_store.catalog(session) is first
    move(any_store, "spring", Status.paused, now)
    with any_store.read() as session:
        assert any_store.catalog(session).experiments["spring"].status is Status.paused


def test_a_decision_is_kept(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now)
    move(sqlite_store, "spring", Status.stopped, now)
    decision = Decision(variant="coupon", reason="it pays", report="r1")
    with sqlite_store.write() as session:
        registry.move(session, "spring", Status.decided, actor="li", now=now, decision=decision)
    assert newest(sqlite_store)["decision"] == decision.to_json()
    with pytest.raises(Conflict):
        revise(sqlite_store, Kind.experiment, newest(sqlite_store) | {"name": "late"}, now)
