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
RETENTION = {"key": "d7", "name": "D7", "kind": "retention", "event": "open", "day": 7}
TIME = {"key": "wait", "name": "Wait", "kind": "time_to_event", "event": "purchase", "window_days": 30}
QUANTILE = {
    "key": "p90",
    "name": "p90",
    "kind": "quantile",
    "quantile": 0.9,
    "terms": [{"event": "purchase"}],
    "window_days": 14,
}
FUNNEL = {"key": "path", "name": "Path", "kind": "funnel", "steps": ["open", "click", "purchase"], "window_days": 7}
COUNT = {"event": "open", "aggregate": "count"}
THREE = [{"key": "a"}, {"key": "b"}, {"key": "c"}]
PLAN: dict[str, Any] = {"planned_users": 1000}
LOOKS = PLAN | {"method": "group_sequential", "looks": [0.5, 1.0]}
SPENDING = {"name": "hwang_shih_decani", "parameter": -4.0}
COPY_BY_OFFER = [
    {"key": "control", "factors": {"copy": "calm", "offer": "none"}},
    {"key": "urgent", "factors": {"copy": "urgent", "offer": "none"}},
    {"key": "coupon", "factors": {"copy": "calm", "offer": "coupon"}},
    {"key": "both", "factors": {"copy": "urgent", "offer": "coupon"}},
]


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
        ({"reach": {}}, "reach.received", "missing"),
        ({"reach": {"received": ""}}, "reach.received", "string_too_short"),
        ({"reach": {"received": "open", "trigger": 1}}, "reach.trigger", "string_type"),
        ({"plan": PLAN | {"comparisons": "some"}}, "plan.comparisons", "literal_error"),
        ({"plan": LOOKS | {"looks": [0.0, 1.0]}}, "plan.looks.0", "greater_than"),
        ({"plan": LOOKS | {"looks": [0.5, 1.5]}}, "plan.looks.1", "less_than_equal"),
        ({"plan": LOOKS | {"looks": []}}, "plan.looks", "too_short"),
        ({"plan": LOOKS | {"futility": 0.6}}, "plan.futility", "less_than_equal"),
        ({"plan": LOOKS | {"spending": SPENDING | {"parameter": 21.0}}}, "plan.spending.parameter", "less_than_equal"),
        ({"plan": LOOKS | {"spending": {"name": "linear"}}}, "plan.spending.name", "literal_error"),
        ({"plan": PLAN | {"method": "bayes", "prior": {"mean": "0", "sd": 0.0}}}, "plan.prior.mean", "float_type"),
        ({"plan": PLAN | {"method": "bayes", "prior": {"sd": 0.0}}}, "plan.prior.sd", "greater_than"),
        ({"plan": PLAN | {"method": "bayes", "prior": {"mean": 0.1}}}, "plan.prior.sd", "missing"),
        (
            {"variants": [{"key": "control"}, {"key": "coupon", "factors": {"copy": ""}}]},
            "variants.1.factors.copy",
            "string_too_short",
        ),
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
        (METRIC | {"cap_percentile": 49.9}, "cap_percentile", "greater_than_equal"),
        (METRIC | {"cap_percentile": 100.0}, "cap_percentile", "less_than"),
        (METRIC | {"cap_percentile": 99.0, "cap": 5.0}, "cap_percentile", "inconsistent"),
        (RETENTION | {"day": 0}, "day", "greater_than_equal"),
        (RETENTION | {"delay_days": 1}, "delay_days", "extra_forbidden"),
        (RETENTION | {"unit": "number"}, "unit", "literal_error"),
        ({name: value for name, value in RETENTION.items() if name != "day"}, "day", "missing"),
        (TIME | {"lookback_days": 7}, "lookback_days", "extra_forbidden"),
        (TIME | {"unit": "number"}, "unit", "literal_error"),
        (TIME | {"role": "guardrail"}, "margin", "inconsistent"),
        (QUANTILE | {"quantile": 1.0}, "quantile", "less_than"),
        (QUANTILE | {"quantile": 0}, "quantile", "greater_than"),
        (QUANTILE | {"per": "order"}, "per", "literal_error"),
        (QUANTILE | {"per": "event", "terms": [COUNT]}, "terms", "inconsistent"),
        (QUANTILE | {"per": "event", "terms": QUANTILE["terms"] * 2}, "terms", "inconsistent"),
        (FUNNEL | {"steps": ["open"]}, "steps", "too_short"),
        (FUNNEL | {"steps": [f"step {i}" for i in range(11)]}, "steps", "too_long"),
        (FUNNEL | {"steps": ["open", ""]}, "steps.1", "string_too_short"),
        (FUNNEL | {"steps": ["open", "click", "open"]}, "steps", "inconsistent"),
    ],
)
def test_a_metric_is_refused_with_field_and_problem(body: dict[str, Any], field: str, problem: str) -> None:
    assert (field, problem) in problems(Kind.metric, body)


@pytest.mark.parametrize(
    ("plan", "field", "value", "remedy"),
    [
        (PLAN | {"method": "bayes", "correction": "holm"}, "correction", "holm", "set it to none"),
        (PLAN | {"prior": {"sd": 0.1}}, "prior", {"sd": 0.1}, "only bayes has a prior, and sequential keeps"),
        (LOOKS | {"prior": {"sd": 0.1}}, "prior", {"sd": 0.1}, "only bayes has a prior, and group_sequential keeps"),
        (PLAN | {"looks": [0.5, 1.0]}, "looks", [0.5, 1.0], "sequential plans none; group_sequential does"),
        (PLAN | {"method": "fixed", "futility": 0.1}, "futility", 0.1, "fixed has no looks at which to give up"),
        (
            PLAN | {"method": "bayes", "spending": {"name": "pocock"}},
            "spending",
            {"name": "pocock"},
            "bayes spends no error rate by looks",
        ),
        (PLAN | {"method": "group_sequential"}, "looks", None, "such as [0.25, 0.5, 1]"),
        (LOOKS | {"looks": [0.5, 0.9]}, "looks", [0.5, 0.9], "the last 1"),
        (LOOKS | {"looks": [0.5, 0.25, 1.0]}, "looks", [0.5, 0.25, 1.0], "0.01 or more apart"),
        (LOOKS | {"looks": [0.5, 0.505, 1.0]}, "looks", [0.5, 0.505, 1.0], "0.01 or more apart"),
        (LOOKS | {"looks": [0.005, 1.0]}, "looks", [0.005, 1.0], "0.01 or more apart"),
        (LOOKS | {"spending": {"name": "power"}}, "spending.parameter", None, "give power its parameter"),
        (
            LOOKS | {"spending": {"name": "pocock", "parameter": 1.0}},
            "spending.parameter",
            1.0,
            "leave it out: pocock has none",
        ),
        (
            LOOKS | {"spending": {"name": "power", "parameter": -1.0}},
            "spending.parameter",
            -1.0,
            "give a positive number",
        ),
        (LOOKS | {"spending": SPENDING | {"parameter": 0.0}}, "spending.parameter", 0.0, "give a number other than 0"),
    ],
)
def test_a_plan_that_mixes_ways_of_reading_is_refused_with_field_value_and_remedy(
    plan: dict[str, Any], field: str, value: object, remedy: str
) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.experiment, experiment(plan=plan))
    (problem,) = caught.value.problems
    assert (problem.field, problem.value, problem.problem) == (f"plan.{field}", value, "inconsistent")
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("factors", "remedy"),
    [
        ([{"copy": "calm"}, {}], "give every variant a level of the same factors"),
        ([{"copy": "calm"}, {"offer": "coupon"}], "give every variant a level of the same factors"),
        ([{"copy": "calm"}, {"copy": "calm"}], "give each variant another combination of levels"),
    ],
)
def test_factors_describe_each_variant_and_tell_them_apart(factors: list[dict[str, str]], remedy: str) -> None:
    variants = [{"key": key, "factors": levels} for key, levels in zip(("control", "coupon"), factors, strict=True)]
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.experiment, experiment(variants=variants))
    assert caught.value.problems == (FieldProblem("variants", variants, "inconsistent", remedy),)


def test_a_contradiction_shows_the_values_that_were_sent() -> None:
    """Also where a user's id looks like a path, and for fields called as a kind of metric is."""
    body = experiment(forced={"u.1": "placebo"}, weights={"mean": 0.5, "coupon": 0.5, "control": -1})
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.experiment, body)
    assert [(p.field, p.value) for p in caught.value.problems] == [("weights.control", -1)]
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.experiment, experiment(forced={"u.1": "placebo"}, weights={"mean": 0.5, "coupon": 0.5}))
    assert [(p.field, p.value) for p in caught.value.problems] == [
        ("weights", {"mean": 0.5, "coupon": 0.5}),
        ("forced.u.1", "placebo"),
    ]
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.experiment, experiment(weights={"mean": 2.0, "coupon": 0.5}))
    assert [(p.field, p.value) for p in caught.value.problems] == [("weights.mean", 2.0)]


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
        (
            Kind.experiment,
            experiment(
                variants=COPY_BY_OFFER,
                plan=LOOKS | {"looks": [0.01, 0.02, 0.28, 0.29, 1], "spending": SPENDING, "futility": 0.5},
                reach={"received": "open", "trigger": "due"},
            ),
        ),
        (Kind.experiment, experiment(plan=LOOKS | {"spending": {"name": "power", "parameter": 20}, "alpha": 0.1})),
        (Kind.experiment, experiment(plan=PLAN | {"method": "bayes"})),
        (Kind.experiment, experiment(plan=PLAN | {"method": "bayes", "prior": {"mean": -0.02, "sd": 0.05}})),
        (Kind.experiment, experiment(plan=PLAN | {"correction": "bh", "comparisons": "all_pairs"})),
        (Kind.experiment, experiment(reach={"received": "open", "trigger": None})),
        (Kind.metric, METRIC | {"cap": 100.5, "delay_days": 1, "lookback_days": 28}),
        (Kind.metric, METRIC | {"cap_percentile": 50}),
        (Kind.metric, RATIO),
        (Kind.metric, RETENTION),
        (Kind.metric, RETENTION | {"window_days": 23, "role": "guardrail", "margin": 0.01}),
        (Kind.metric, TIME | {"direction": "up"}),
        (Kind.metric, QUANTILE | {"unit": "money", "terms": [{"event": "purchase"}, COUNT]}),
        (Kind.metric, QUANTILE | {"per": "event"}),
        (Kind.metric, FUNNEL),
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


def test_the_method_decides_the_defaults_of_a_plan() -> None:
    def plan(**changes: Any) -> Any:
        return parse(Kind.experiment, experiment(plan=PLAN | changes)).plan

    assert plan().correction == "holm"
    assert plan().spending is None
    assert plan(method="bayes").correction == "none"
    spending = plan(method="group_sequential", looks=[1.0]).spending
    assert (spending.name, spending.parameter) == ("obrien_fleming", None)
    assert plan(method="group_sequential", looks=[1.0], spending=SPENDING).spending.parameter == -4


@pytest.mark.parametrize(
    ("body", "delay_and_horizon", "kept"),
    [
        (METRIC | {"delay_days": 2}, (2, 9), {"direction": "up", "cap_percentile": None}),
        (RETENTION, (7, 8), {"unit": "share", "window_days": 1}),
        (RETENTION | {"window_days": 23}, (7, 30), {}),
        (TIME, (0, 30), {"direction": "down", "unit": "days"}),
        (QUANTILE, (0, 14), {"per": "user", "unit": "number"}),
        (FUNNEL, (0, 7), {"unit": "share", "role": "secondary"}),
    ],
)
def test_a_metric_has_the_defaults_and_the_horizon_of_its_kind(
    body: dict[str, Any], delay_and_horizon: tuple[int, int], kept: dict[str, Any]
) -> None:
    document = parse(Kind.metric, body)
    assert (getattr(document, "delay_days", 0), document.horizon_days) == delay_and_horizon
    assert document.to_json() | kept == document.to_json()


@pytest.mark.parametrize(
    ("tactic", "dose"),
    [
        (None, None),
        ({"copy": "hi"}, None),
        ({"frequency": {"touches": 2, "per": "day"}}, 14),
        ({"frequency": {"touches": 3, "per": "week"}}, 3),
        ({"frequency": {"touches": 487, "per": "month"}}, 487 * 12 * 7 / 365.25),
        ({"frequency": {"touches": 487, "per": "quarter"}}, 487 * 4 * 7 / 365.25),
        ({"frequency": {"touches": 0, "per": "quarter"}}, 0),
    ],
)
def test_the_dose_of_a_variant_is_its_touches_a_week(tactic: dict[str, Any] | None, dose: float | None) -> None:
    variants = [{"key": "control"}, {"key": "coupon", "tactic": tactic}]
    found = parse(Kind.experiment, experiment(variants=variants)).variants[1].dose()
    assert found == (None if dose is None else pytest.approx(dose, rel=1e-12))


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
    Kind.policy: {
        "key": "spring",
        "name": "Spring",
        "variants": [{"key": "control"}, {"key": "coupon"}],
        "control": "control",
        "rules": [{"name": "gold", "segment": "gold", "variant": "coupon"}],
        "otherwise": "control",
        "holdback": {"share": 0.1, "weights": {"control": 0.5, "coupon": 0.5}},
        "metrics": [{"key": "revenue"}],
        "plan": PLAN,
        "promise": {"metric": "revenue", "relative": {"estimate": 0.1, "lower": 0.0, "upper": 0.2}},
    },
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
