"""What may change when: every step of the life cycle, and every field once an experiment has started."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import lifecycle
from experiments.documents import Decision, Experiment, Kind, Status, parse
from experiments.errors import Conflict, InvalidDocument
from experiments.sdk import compile_experiment
from tests.experiments.store_rows import SEGMENTS, experiment

DECISION = Decision(variant="coupon", reason="it pays")
ALLOWED = {
    ("draft", "running"),
    ("draft", "archived"),
    ("running", "paused"),
    ("running", "stopped"),
    ("paused", "running"),
    ("paused", "stopped"),
    ("stopped", "decided"),
    ("stopped", "archived"),
    ("decided", "archived"),
}
FULL = experiment(
    audience={"age": {"$gt": 17}},
    layer={"key": "l", "start": 0.0, "end": 0.5},
    holdouts=["h"],
    metrics=[{"key": "revenue", "role": "primary"}, {"key": "complaints", "role": "guardrail", "margin": 0.01}],
    coverage=0.5,
    weights={"control": 0.5, "coupon": 0.5},
    salt="s",
)


def at(status: Status | str, **changes: Any) -> Experiment:
    """The experiment in a state, at revision 3."""
    kept: dict[str, Any] = {"status": str(status), "revision": 3, "salt": "s", "phase": 2}
    if status == "decided":
        kept["decision"] = {"variant": "coupon", "reason": "it pays"}
    document: Experiment = parse(Kind.experiment, FULL | kept | changes)
    return document


def sent(**changes: Any) -> Experiment:
    """A document as a person sends it: the fields kept by the server left out."""
    body = {name: value for name, value in FULL.items() if name != "salt"} | {"revision": 3} | changes
    document: Experiment = parse(Kind.experiment, body)
    return document


def refused(current: Experiment, proposed: Experiment) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDocument) as caught:
        lifecycle.revise(current, proposed)
    return [(problem.field, problem.problem) for problem in caught.value.problems]


@pytest.mark.parametrize("after", list(Status))
@pytest.mark.parametrize("before", list(Status))
def test_the_steps_are_those_of_the_table(before: Status, after: Status) -> None:
    decision = DECISION if after is Status.decided else None
    if (before, after) in ALLOWED:
        moved = lifecycle.move(at(before), after, decision)
        assert (moved.status, moved.revision, moved.phase, moved.salt) == (after, 4, 2, "s")
        assert moved.decision == (decision or at(before).decision)
    else:
        with pytest.raises(Conflict) as caught:
            lifecycle.move(at(before), after, decision)
        assert caught.value.code == "bad_transition"


def test_a_decision_comes_with_its_step_and_only_with_it() -> None:
    with pytest.raises(Conflict, match="send the decision") as missing:
        lifecycle.move(at("stopped"), Status.decided)
    with pytest.raises(Conflict, match="status decided only") as surplus:
        lifecycle.move(at("running"), Status.stopped, DECISION)
    assert [missing.value.code, surplus.value.code] == ["decision_needed", "decision_unexpected"]


def test_a_decision_names_a_variant() -> None:
    with pytest.raises(InvalidDocument) as caught:
        lifecycle.move(at("stopped"), Status.decided, Decision(variant="placebo", reason="?"))
    assert [problem.field for problem in caught.value.problems] == ["decision.variant"]


def test_a_new_experiment_starts_as_a_draft_with_a_salt() -> None:
    assert lifecycle.first(parse(Kind.experiment, experiment())).salt == "spring:1"
    assert lifecycle.first(parse(Kind.experiment, experiment(salt="mine"))).salt == "mine"


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "running"), ("phase", 2), ("revision", 2), ("decision", {"variant": "coupon", "reason": "r"})],
)
def test_a_new_experiment_brings_no_field_kept_by_the_server(field: str, value: Any) -> None:
    with pytest.raises(InvalidDocument) as caught:
        lifecycle.first(parse(Kind.experiment, experiment(**{field: value})))
    assert [(problem.field, problem.problem) for problem in caught.value.problems] == [(field, "kept_by_server")]


CHANGES: dict[str, Any] = {
    "variants": [{"key": "control"}, {"key": "coupon"}],
    "control": "coupon",
    "audience": {"age": {"$gt": 20}},
    "layer": {"key": "l", "start": 0.0, "end": 0.6},
    "holdouts": [],
    "plan": {"planned_users": 2000},
    "reach": {"received": "opened"},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_draft_changes_freely(field: str) -> None:
    proposed = sent(**{field: CHANGES[field]}, phase=2)
    revised = lifecycle.revise(at("draft"), proposed)
    assert getattr(revised, field) == getattr(proposed, field)
    assert (revised.revision, revised.phase, revised.salt) == (4, 2, "s")


def test_a_draft_may_change_its_salt() -> None:
    assert lifecycle.revise(at("draft"), sent(salt="other")).salt == "other"


@pytest.mark.parametrize("status", ["running", "paused", "stopped"])
@pytest.mark.parametrize("field", CHANGES)
def test_a_started_experiment_keeps_the_field(field: str, status: str) -> None:
    assert refused(at(status), sent(**{field: CHANGES[field]})) == [(field, "fixed_after_start")]


def test_all_frozen_fields_are_named_at_once() -> None:
    found = refused(at("running"), sent(**CHANGES))
    assert {field for field, _ in found} == set(CHANGES)


def test_no_field_is_forgotten() -> None:
    """Each field of an experiment is tried here, or may change, or is kept by the server."""
    free = {"name", "hypothesis", "owner", "tags", "schedule", "forced", "value"}
    kept = {"key", "status", "phase", "salt", "revision", "waves", "decision"}
    special = {"metrics", "coverage", "weights", "strata", "adaptive"}
    assert free | kept | special | CHANGES.keys() == set(Experiment.model_fields)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Other"},
        {"hypothesis": "more"},
        {"owner": "Wang"},
        {"tags": ["autumn"]},
        {"schedule": {"stop_at": "2026-12-01T00:00:00Z"}},
        {"forced": {"u": "coupon"}},
        {"value": {"metric": "revenue", "monthly_users": 7}},
        {"metrics": [*FULL["metrics"], {"key": "visits"}]},
    ],
)
def test_a_running_experiment_may_change(change: dict[str, Any]) -> None:
    revised = lifecycle.revise(at("running"), sent(**change))
    assert (revised.revision, revised.phase, revised.salt, revised.status) == (4, 2, "s", "running")
    (name,) = change
    assert getattr(revised, name) == getattr(sent(**change), name)


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "stopped"), ("phase", 1), ("salt", "t"), ("decision", {"variant": "coupon", "reason": "r"})],
)
def test_what_the_server_keeps_is_not_written(field: str, value: Any) -> None:
    assert refused(at("running"), sent(**{field: value})) == [(field, "kept_by_server")]


def test_what_the_server_answered_may_be_sent_back() -> None:
    current = at("running")
    assert lifecycle.revise(current, parse(Kind.experiment, current.to_json())).revision == 4


@pytest.mark.parametrize(
    "metrics",
    [
        [{"key": "revenue", "role": "primary"}],
        [{"key": "revenue"}, {"key": "complaints", "role": "guardrail", "margin": 0.01}],
        [{"key": "revenue", "role": "primary"}, {"key": "complaints", "role": "guardrail", "margin": 0.5}],
    ],
    ids=["guardrail dropped", "primary demoted", "margin widened"],
)
def test_what_decides_stays(metrics: list[dict[str, Any]]) -> None:
    assert refused(at("running"), sent(metrics=metrics)) == [("metrics", "fixed_after_start")]


def test_a_stale_revision_is_a_conflict() -> None:
    with pytest.raises(Conflict) as caught:
        lifecycle.revise(at("running"), sent(revision=2))
    assert (caught.value.code, caught.value.facts) == ("stale_revision", {"revision": 3})


@pytest.mark.parametrize("status", ["decided", "archived"])
def test_a_closed_experiment_does_not_change(status: str) -> None:
    with pytest.raises(Conflict) as caught:
        lifecycle.revise(at(status), sent(name="Other"))
    assert caught.value.code == "experiment_closed"


def test_narrowing_is_refused() -> None:
    assert refused(at("running"), sent(coverage=0.4)) == [("coverage", "coverage_narrowed")]


def test_narrowing_of_one_stratum_is_refused() -> None:
    current = at("running", strata=[{"segment": "gold", "coverage": 0.8}, {"segment": "rest"}])
    proposed = sent(strata=[{"segment": "gold", "coverage": 0.7}, {"segment": "rest"}])
    assert refused(current, proposed) == [("strata.gold.coverage", "coverage_narrowed")]


def test_narrowing_is_refused_where_rounding_shifts_the_shares() -> None:
    weights = {"control": 0.7, "coupon": 0.3}
    current, proposed = at("running", weights=weights), sent(weights=weights, coverage=0.3333)
    assert current.shares() != proposed.shares()
    assert refused(current, proposed) == [("coverage", "coverage_narrowed")]


def test_the_segments_of_the_strata_stay() -> None:
    current = at("running", strata=[{"segment": "gold"}, {"segment": "rest"}])
    proposed = sent(strata=[{"segment": "rest"}, {"segment": "gold"}])
    assert refused(current, proposed) == [("strata", "fixed_after_start")]


def test_changed_weights_start_a_phase_with_a_salt_of_its_own() -> None:
    revised = lifecycle.revise(at("running"), sent(weights={"control": 0.4, "coupon": 0.6}))
    assert (revised.phase, revised.salt, revised.revision) == (3, "spring:3", 4)


def test_changed_weights_of_one_stratum_start_a_phase() -> None:
    strata = [{"segment": "gold"}, {"segment": "rest"}]
    proposed = sent(strata=[{"segment": "gold", "weights": {"control": 0.1, "coupon": 0.9}}, {"segment": "rest"}])
    assert lifecycle.revise(at("running", strata=strata), proposed).phase == 3


def variants_of(document: Experiment) -> list[str | None]:
    snapshot = {"segments": SEGMENTS}
    compiled = compile_experiment(document.to_json(), snapshot)
    return [compiled.assign(f"user-{number}", {"tier": "gold"}).variant for number in range(400)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_widening_moves_nobody(weight: int, one: int, other: int, in_stratum: bool) -> None:
    narrow, wide = sorted((one / 10_000, other / 10_000))
    weights = {"control": weight / 10_000, "coupon": (10_000 - weight) / 10_000}

    def body(coverage: float) -> dict[str, Any]:
        where = {"strata": [{"segment": "gold", "coverage": coverage}]} if in_stratum else {"coverage": coverage}
        return {"weights": weights, "audience": None, "layer": None, "holdouts": []} | where

    current = at("running", **body(narrow))
    revised = lifecycle.revise(current, sent(**body(wide)))
    assert (revised.phase, revised.salt) == (current.phase, current.salt)
    before, after = variants_of(current), variants_of(revised)
    assert all(was in (None, now) for was, now in zip(before, after, strict=True))


def test_the_difference_lists_each_changed_leaf() -> None:
    before = {"a": 1, "b": {"c": [1, 2]}, "gone": "x", "same": None}
    after = {"a": 2, "b": {"c": [1, 3, 4]}, "same": None}
    assert lifecycle.difference(before, after) == [
        {"path": "a", "before": 1, "after": 2},
        {"path": "b.c.1", "before": 2, "after": 3},
        {"path": "b.c.2", "before": None, "after": 4},
        {"path": "gone", "before": "x", "after": None},
    ]


def test_the_difference_of_a_first_revision_is_all_of_it() -> None:
    assert {entry["path"] for entry in lifecycle.difference(None, {"a": 1, "b": {"c": 2}})} == {"a", "b.c"}
