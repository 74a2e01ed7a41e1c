"""Policies in the record: revisions, the flag they share with an experiment, the way back; on both databases."""

from datetime import datetime
from typing import Any

import pytest

from experiments import registry, rollout
from experiments.documents import Decision, Kind, Status, parse
from experiments.errors import Conflict, InvalidDocument
from experiments.policy import Policy, PolicyStatus
from experiments.sdk import Evaluator
from experiments.store import Store
from tests.experiments.store_rows import SEGMENTS, create, exposure, move, receive, revise, start

POLICY: dict[str, Any] = {
    "key": "spring",
    "name": "Spring, rolled out",
    "variants": [{"key": "control"}, {"key": "coupon"}],
    "control": "control",
    "rules": [{"name": "gold", "segment": "gold", "variant": "coupon"}],
    "otherwise": "control",
    "holdback": {"share": 0.0},
    "metrics": [{"key": "revenue"}],
    "plan": {"planned_users": 1_000},
}
GOLD = {"tier": "gold"}


def step(store: Store, status: str, now: datetime) -> Policy:
    with store.write() as session:
        return registry.move_policy(session, "spring", PolicyStatus(status), actor="li", now=now)


def back(store: Store, now: datetime, *, to_control: bool = False) -> Policy:
    with store.write() as session:
        return registry.roll_back(session, "spring", to_control=to_control, actor="wang", now=now)


def newest(store: Store) -> dict[str, Any]:
    with store.read() as session:
        body: dict[str, Any] = registry.get(session, Kind.policy, "spring").to_json()
        return body


def served(store: Store) -> tuple[str | None, int]:
    """What a gold user gets, and in which phase."""
    with store.read() as session:
        answer = Evaluator(registry.snapshot(session)).assign("spring", "u1", GOLD)
    return answer.variant, answer.phase


def decided(store: Store, now: datetime) -> None:
    start(store, now, strata=True)
    move(store, "spring", Status.stopped, now)
    with store.write() as session:
        decision = Decision(variant="coupon", reason="r")
        registry.move(session, "spring", Status.decided, actor="li", now=now, decision=decision)


def test_a_policy_from_its_draft_to_its_end(any_store: Store, now: datetime) -> None:
    decided(any_store, now)
    create(any_store, Kind.policy, POLICY, now)
    assert served(any_store) == (None, 1)
    assert step(any_store, "running", now).phase == 2
    assert served(any_store) == ("coupon", 2)
    revise(any_store, Kind.policy, newest(any_store) | {"rules": []}, now)
    assert served(any_store) == ("control", 3)
    assert rollout.alike(back(any_store, now), parse(Kind.policy, POLICY))
    assert served(any_store) == ("coupon", 4)
    back(any_store, now, to_control=True)
    assert served(any_store) == ("control", 5)
    step(any_store, "paused", now)
    assert served(any_store) == (None, 5)
    step(any_store, "stopped", now)
    step(any_store, "archived", now)
    assert served(any_store) == (None, 5)
    with any_store.read() as session:
        entries = registry.history(session, "spring", Kind.policy)
        assert [(e["action"], e["revision"], e["actor"]) for e in entries] == [
            ("archived", 8, "li"),
            ("stopped", 7, "li"),
            ("paused", 6, "li"),
            ("roll_back", 5, "wang"),
            ("roll_back", 4, "wang"),
            ("revise", 3, "wang"),
            ("running", 2, "li"),
            ("create", 1, "li"),
        ]
        assert {"path": "otherwise", "before": None, "after": "control"} in entries[-1]["diff"]
        assert registry.get(session, Kind.policy, "spring", 3).rules == []
        assert registry.get(session, Kind.experiment, "spring").phase == 1


def test_only_an_experiment_that_is_closed_gives_up_its_flag(any_store: Store, now: datetime) -> None:
    start(any_store, now, strata=True)
    create(any_store, Kind.policy, POLICY, now)
    for status in (Status.running, Status.stopped):
        if status is Status.stopped:
            move(any_store, "spring", status, now)
        with pytest.raises(Conflict, match="has this flag") as refused:
            step(any_store, "running", now)
        assert refused.value.code == "experiment_open"
    move(any_store, "spring", Status.archived, now)
    assert step(any_store, "running", now).phase == 2


def test_a_draft_put_away_takes_no_flag(any_store: Store, now: datetime) -> None:
    start(any_store, now, strata=True)
    create(any_store, Kind.policy, POLICY | {"salt": "mine"}, now)
    assert step(any_store, "archived", now).salt is None
    variant, phase = served(any_store)
    assert variant is not None
    assert phase == 1


def test_exposures_of_an_earlier_phase_may_name_rules_that_are_gone(sqlite_store: Store, now: datetime) -> None:
    decided(sqlite_store, now)
    create(sqlite_store, Kind.policy, POLICY, now)
    step(sqlite_store, "running", now)
    revise(sqlite_store, Kind.policy, newest(sqlite_store) | {"rules": []}, now)
    gone = {"stratum": "spring:gold"}
    items = [
        exposure("m1", "u1", phase=2, **gone),
        exposure("m2", "u2", phase=3, **gone),
        exposure("m3", "u3", **gone),
        exposure("m4", "u4", phase=2, stratum="gold"),
        exposure("m5", "u5", phase=1, stratum="gold"),
    ]
    assert [rejected.index for rejected in receive(sqlite_store, items, now).rejected] == [1, 2, 3]


def test_a_segment_stays_as_it_is_while_a_policy_asks_for_it(sqlite_store: Store, now: datetime) -> None:
    decided(sqlite_store, now)
    create(sqlite_store, Kind.policy, POLICY, now)
    gold = SEGMENTS[0]
    revise(sqlite_store, Kind.segment, gold | {"condition": {"tier": "platinum"}}, now)
    revise(sqlite_store, Kind.segment, gold, now)
    step(sqlite_store, "running", now)
    with pytest.raises(Conflict, match="in the policy 'spring'"):
        revise(sqlite_store, Kind.segment, gold | {"condition": {"tier": "platinum"}}, now)
    step(sqlite_store, "paused", now)
    step(sqlite_store, "stopped", now)
    revise(sqlite_store, Kind.segment, gold | {"condition": {"tier": "platinum"}}, now)


def test_the_main_metric_stays_the_main_metric(sqlite_store: Store, now: datetime) -> None:
    decided(sqlite_store, now)
    create(sqlite_store, Kind.policy, POLICY, now)
    step(sqlite_store, "running", now)
    create(
        sqlite_store,
        Kind.metric,
        {"key": "bought", "name": "B", "kind": "conversion", "event": "buy", "window_days": 7},
        now,
    )
    other = [{"key": "revenue", "role": "secondary"}, {"key": "bought", "role": "primary"}]
    with pytest.raises(InvalidDocument, match="keep them in their roles"):
        revise(sqlite_store, Kind.policy, newest(sqlite_store) | {"metrics": other}, now)
    with pytest.raises(InvalidDocument, match="exactly one metric"):
        revise(sqlite_store, Kind.policy, newest(sqlite_store) | {"metrics": other[:1]}, now)
