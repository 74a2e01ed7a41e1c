"""Documents: what is refused, and how; what is kept."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.documents import Kind, json_schema, parse
from experiments.errors import FieldProblem, InvalidDocument
from tests.experiments.store_rows import METRIC, SEGMENTS, experiment

RATIO = {
    "key": "aov",
    "name": "Order value",
    "kind": "ratio",
    "numerator": [{"event": "purchase"}],
    "denominator": [{"event": "purchase", "aggregate": "count"}],
    "window_days": 7,
}
THREE = [{"key": "a"}, {"key": "b"}, {"key": "c"}]
PLAN = {"planned_users": 1000}


def problems(kind: Kind, body: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDocument) as caught:
        parse(kind, body)
    for problem in caught.value.problems:
        assert problem.remedy
        json.dumps(problem.to_dict(), allow_nan=False)
    return [(problem.field, problem.problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"colour": 1}, "colour", "extra_forbidden"),
        ({"coverage": "0.5"}, "coverage", "float_type"),
        ({"coverage": True}, "coverage", "float_type"),
        ({"coverage": float("nan")}, "coverage", "finite_number"),
        ({"coverage": float("inf")}, "coverage", "finite_number"),
        ({"coverage": 1.5}, "coverage", "less_than_equal"),
        ({"coverage": 0.12345}, "coverage", "share_too_fine"),
        ({"plan": {"planned_users": "9"}}, "plan.planned_users", "int_type"),
        ({"plan": {"planned_users": 10, "alpha": float("nan")}}, "plan.alpha", "finite_number"),
        ({"plan": {}}, "plan.planned_users", "missing"),
        ({"plan": PLAN | {"method": "peeking"}}, "plan.method", "literal_error"),
        ({"key": "春"}, "key", "string_pattern_mismatch"),
        ({"key": "spring\n"}, "key", "string_pattern_mismatch"),
        ({"key": "k" * 65}, "key", "string_pattern_mismatch"),
        ({"name": ""}, "name", "string_too_short"),
        ({"variants": [{"key": "control"}]}, "variants", "too_short"),
        ({"variants": THREE}, "control", "inconsistent"),
        ({"variants": [{"key": "control"}, {"key": "control"}]}, "variants", "inconsistent"),
        ({"control": "placebo"}, "control", "inconsistent"),
        ({"weights": {"control": 0.5, "coupon": 0.6}}, "weights", "inconsistent"),
        ({"weights": {"control": 0.5, "coupon": 0.4}}, "weights", "inconsistent"),
        ({"weights": {"control": 1.0}}, "weights", "inconsistent"),
        ({"weights": {"control": 0.5, "coupon": 0.5, "x": 0.0}}, "weights", "inconsistent"),
        ({"weights": {"control": 0.5, "coupon": 0.50001}}, "weights.coupon", "share_too_fine"),
        (
            {"strata": [{"segment": "gold", "weights": {"control": 0.5, "coupon": 0.6}}]},
            "strata.gold.weights",
            "inconsistent",
        ),
        ({"strata": [{"segment": "gold"}, {"segment": "gold"}]}, "strata", "inconsistent"),
        ({"audience": {"$near": 1}}, "audience", "bad_condition"),
        ({"audience": {"age": {"$gt": float("inf")}}}, "audience", "bad_condition"),
        ({"layer": {"key": "l", "start": 0.5, "end": 0.5}}, "layer", "empty_range"),
        ({"holdouts": ["h", "h"]}, "holdouts", "inconsistent"),
        ({"forced": {"u1": "placebo"}}, "forced.u1", "inconsistent"),
        ({"metrics": []}, "metrics", "too_short"),
        ({"metrics": [{"key": "m"}, {"key": "m"}]}, "metrics", "inconsistent"),
        ({"metrics": [{"key": "m", "role": "primary"}, {"key": "n", "role": "primary"}]}, "metrics", "inconsistent"),
        ({"metrics": [{"key": "m", "margin": 0}]}, "metrics.0.margin", "greater_than"),
        ({"value": {"metric": "other", "monthly_users": 9}}, "value.metric", "inconsistent"),
        ({"decision": {"variant": "placebo", "reason": "r"}}, "decision.variant", "inconsistent"),
        ({"status": "walking"}, "status", "enum"),
    ],
)
def test_an_experiment_is_refused_with_field_and_problem(changes: dict[str, Any], field: str, problem: str) -> None:
    assert (field, problem) in problems(Kind.experiment, experiment(**changes))


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        (METRIC | {"role": "guardrail"}, "margin", "inconsistent"),
        (METRIC | {"kind": "median"}, "kind", "union_tag_invalid"),
        ({"key": "m"}, "kind", "union_tag_not_found"),
        (METRIC | {"cap": float("nan")}, "cap", "finite_number"),
        (METRIC | {"cap": 0}, "cap", "greater_than"),
        (METRIC | {"terms": [{"event": "e", "weight": float("-inf")}]}, "terms.0.weight", "finite_number"),
        (METRIC | {"unit": "share"}, "unit", "literal_error"),
        (METRIC | {"window_days": 0}, "window_days", "greater_than_equal"),
        (METRIC | {"window_days": 7.5}, "window_days", "int_type"),
        (RATIO | {"denominator": []}, "denominator", "too_short"),
        (RATIO | {"cap": 1.0}, "cap", "extra_forbidden"),
    ],
)
def test_a_metric_is_refused_with_field_and_problem(body: dict[str, Any], field: str, problem: str) -> None:
    assert (field, problem) in problems(Kind.metric, body)


def test_all_problems_of_the_fields_are_listed_at_once() -> None:
    found = problems(Kind.experiment, experiment(colour=1, coverage="all", plan={"planned_users": 1}, key="!"))
    assert {field for field, _ in found} == {"colour", "coverage", "plan.planned_users", "key"}


def test_all_contradictions_between_fields_are_listed_at_once() -> None:
    body = experiment(control="x", holdouts=["h", "h"], forced={"u": "y"}, weights={"control": 0.5, "coupon": 0.6})
    assert {field for field, _ in problems(Kind.experiment, body)} == {"control", "holdouts", "forced.u", "weights"}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_payload_holds_what_is_no_number(text: str) -> None:
    tactic = {"offer": {"deep": [{"x": 0}]}, "extra": {"y": 0}}
    body = json.dumps(experiment(variants=[{"key": "control"}, {"key": "coupon", "tactic": tactic}]))
    found = problems(Kind.experiment, body.replace('"x": 0', f'"x": {text}').replace('"y": 0', f'"y": {text}'))
    assert found == [("variants.1.tactic.offer", "not_finite"), ("variants.1.tactic.extra", "not_finite")]


@pytest.mark.parametrize("body", [b"", b"[1]", b"null", b"{", b'{"key": "\xff"}', b'{"key": "\\ud800"}', "\ud800"])
def test_what_is_no_json_object_is_refused(body: bytes | str) -> None:
    assert [field for field, _ in problems(Kind.layer, body)] == ["$"]


def test_a_problem_shows_the_value_that_was_sent() -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.holdout, {"key": "h", "name": "H", "share": 0.00005})
    assert caught.value.problems == (
        FieldProblem("share", 0.00005, "share_too_fine", "give a multiple of 0.0001, for example 0.0"),
    )
    assert "share = 5e-05" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (
            Kind.experiment,
            experiment(
                weights={"control": 0.3, "coupon": 0.7},
                strata=[{"segment": "gold", "coverage": 0.5}],
                audience={"city": {"$in": ["上海", "😀"]}},
                layer={"key": "l", "start": 0.1, "end": 0.2},
                value={"metric": "revenue", "monthly_users": 5, "margin": 0.25},
                variants=[
                    {"key": "control"},
                    {
                        "key": "coupon",
                        "tactic": {"copy": "你好", "frequency": {"touches": 2, "per": "week"}},
                        "costs": {"per_user": 0.15},
                    },
                ],
            ),
        ),
        (Kind.metric, METRIC | {"cap": 100.5}),
        (Kind.metric, RATIO),
        (Kind.segment, SEGMENTS[0]),
        (Kind.layer, {"key": "l", "name": "L"}),
        (Kind.holdout, {"key": "h", "name": "H", "share": 0.05}),
    ],
)
def test_a_document_survives_json(kind: Kind, body: dict[str, Any]) -> None:
    document = parse(kind, body)
    again = parse(kind, json.dumps(document.to_json(), allow_nan=False))
    assert again == document
    assert again.to_json() == document.to_json()
    for name in body.keys() - {"variants", "strata", "metrics", "plan", "terms", "numerator", "denominator"}:
        assert again.to_json()[name] == body[name]


def test_costs_keep_their_decimals() -> None:
    body = json.dumps(experiment()).replace('{"key": "control"}', '{"key": "control", "costs": {"per_user": "0.1"}}')
    assert parse(Kind.experiment, body).to_json()["variants"][0]["costs"]["per_user"] == "0.1"


def test_equal_thirds_have_exactly_equal_shares() -> None:
    document = parse(Kind.experiment, experiment(variants=THREE, control="a"))
    assert document.shares() == {None: {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}}


def test_shares_of_a_stratum_are_its_own_or_the_experiments() -> None:
    weights = {"control": 0.9, "coupon": 0.1}
    strata = [{"segment": "gold", "weights": weights, "coverage": 0.5}, {"segment": "rest"}]
    document = parse(Kind.experiment, experiment(strata=strata))
    assert document.shares() == {"gold": weights, "rest": {"control": 0.5, "coupon": 0.5}}


def test_shares_of_nobody_are_zero() -> None:
    assert parse(Kind.experiment, experiment(coverage=0.0)).shares() == {None: {"control": 0.0, "coupon": 0.0}}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_json_schema(kind: Kind) -> None:
    assert "properties" in (schema := json_schema(kind)) or "oneOf" in schema


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BODIES = {
    Kind.experiment: experiment(strata=[{"segment": "gold"}], value={"metric": "revenue", "monthly_users": 5}),
    Kind.metric: RATIO,
    Kind.segment: SEGMENTS[0],
    Kind.layer: {"key": "l", "name": "L", "salt": "s"},
    Kind.holdout: {"key": "h", "name": "H", "share": 0.5},
}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(list(Kind)), st.data())
def test_any_json_is_a_document_or_is_refused(kind: Kind, data: st.DataObject) -> None:
    body: Any = data.draw(JSON)
    if data.draw(st.booleans()):
        field = data.draw(st.sampled_from(sorted(json_schema_fields(kind))))
        body = BODIES[kind] | {field: body}
    for sent in (body, json.dumps(body)) if isinstance(body, dict) else (json.dumps(body),):
        try:
            document = parse(kind, sent)
        except InvalidDocument as refused:
            json.dumps([problem.to_dict() for problem in refused.problems], allow_nan=False)
        else:
            assert parse(kind, json.dumps(document.to_json(), allow_nan=False)) == document


def json_schema_fields(kind: Kind) -> set[str]:
    return set(BODIES[kind]) | set(parse(kind, BODIES[kind]).to_json())
