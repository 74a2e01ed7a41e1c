"""Assignment against written snapshots, the unmodified GrowthBook SDK, and laws."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from growthbook import GrowthBook
from hypothesis import given
from hypothesis import strategies as st

from experiments.sdk import DocumentError, Evaluator, Reason, bucket, compile_experiment

CASES = json.loads((Path(__file__).parents[2] / "cases" / "assignment.json").read_text("utf-8"))
SNAPSHOT = CASES["snapshot"]
DOCUMENTS = {document["key"]: document for document in SNAPSHOT["experiments"]}
EVALUATOR = Evaluator(SNAPSHOT)


def name(case):
    return f"{case['experiment']}-{case['user']!a}-{case['reason']}"


@pytest.mark.parametrize("case", CASES["cases"], ids=name)
def test_assignment_equals_the_case(case):
    attributes = case.get("attributes", {})
    if "stored" in case:
        found = EVALUATOR.experiments[case["experiment"]].assign(case["user"], attributes, case["stored"])
    else:
        found = EVALUATOR.assign(case["experiment"], case["user"], attributes)
    assert (found.variant, found.reason, found.stratum) == (case["variant"], case["reason"], case["stratum"])
    assert found.experiment == case["experiment"]


def test_every_reason_has_a_case():
    assert {case["reason"] for case in CASES["cases"]} == set(Reason)


def growthbook_rules(document):
    """The experiment in GrowthBook's payload: explicit bucket ranges, layers and holdouts as filters."""
    experiment = EVALUATOR.experiments[document["key"]]
    rules = [{"condition": {"id": user}, "force": variant} for user, variant in document.get("forced", {}).items()]
    slices = [(part.salt, [[part.end, 10_000]]) for part in experiment.holdouts]
    if experiment.layer is not None:
        slices.append((experiment.layer.salt, [[experiment.layer.start, experiment.layer.end]]))
    filters = [
        {"seed": salt, "hashVersion": 2, "attribute": "id", "ranges": [[a / 10_000, b / 10_000] for a, b in ranges]}
        for salt, ranges in slices
    ]
    earlier = []
    for stratum in experiment.waves or experiment.strata:
        segment = stratum.rule.condition if stratum.rule else {}
        rules.append(
            {
                "variations": list(experiment.variants),
                "ranges": [[start / 10_000, end / 10_000] for start, end in stratum.ranges],
                "seed": experiment.salt,
                "hashVersion": 2,
                "filters": filters,
                "condition": {"$and": [document.get("audience") or {}, segment, *({"$not": one} for one in earlier)]},
            }
        )
        if stratum.rule:
            earlier.append(segment)
    return rules if experiment.running else []


@pytest.mark.parametrize("case", [case for case in CASES["cases"] if "stored" not in case], ids=name)
def test_case_equals_the_unmodified_growthbook_sdk(case):
    features = {key: {"defaultValue": None, "rules": growthbook_rules(document)} for key, document in DOCUMENTS.items()}
    client = GrowthBook(
        attributes={**case.get("attributes", {}), "id": case["user"]},
        features=features,
        saved_groups=SNAPSHOT["saved_groups"],
    )
    assert client.get_feature_value(case["experiment"], None) == case["variant"]
    client.destroy()


def test_assign_all_equals_one_by_one():
    attributes = {"city": "上海", "tier": "gold", "days_since_signup": 3}
    for user in ("user-1", "用户3", ""):
        answers = EVALUATOR.assign_all(user, attributes)
        assert answers == {key: EVALUATOR.assign(key, user, attributes) for key in DOCUMENTS}


def test_an_assignment_is_shared_by_all_who_get_it():
    assert EVALUATOR.assign("plain", "user-1") is EVALUATOR.assign("plain", "user-3")


def test_an_assignment_carries_a_read_only_tactic_that_later_changes_do_not_reach():
    document = deepcopy(DOCUMENTS["plain"])
    found = compile_experiment(document).assign("user-2")
    document["variants"][1]["tactic"]["copy"] = "changed"
    assert found.tactic == {"copy": "您有一张优惠券", "offer": {"amount_minor": 500}}
    assert (found.phase, found.revision) == (1, 3)
    with pytest.raises(TypeError):
        found.tactic["copy"] = "changed"


@pytest.mark.parametrize("user", [None, 5, b"user", "", ["a"], {}])
def test_what_is_no_user_id_is_refused_and_nothing_raises(user):
    assert EVALUATOR.assign("weighted", user).reason == Reason.no_user_id


@given(st.text(st.characters(codec=None, exclude_categories=())), st.dictionaries(st.text(), st.text() | st.none()))
def test_any_text_is_a_user_id(user, attributes):
    answers = EVALUATOR.assign_all(user, attributes)
    assert all((answer.variant is None) or answer.reason in ("assigned", "forced") for answer in answers.values())


@pytest.mark.parametrize("junk", [None, 5, "text", ["tier"]])
def test_what_are_no_attributes_count_as_none(junk):
    for key in ("audience", "strata", "staff-only", "plain"):
        assert EVALUATOR.assign(key, "user-1", junk) == EVALUATOR.assign(key, "user-1")


@pytest.mark.parametrize("key", [None, 5, ["plain"], "gone"])
def test_unknown_experiment_is_an_answer(key):
    assert EVALUATOR.assign(key, "user-1").reason == Reason.unknown_experiment


@pytest.mark.parametrize("stored", [5, ["offer"], "", "gone"])
def test_what_is_no_variant_is_not_kept(stored):
    experiment = EVALUATOR.experiments["plain"]
    assert experiment.assign("user-1", {}, stored) == experiment.assign("user-1")


def test_experiments_of_disjoint_layer_ranges_share_no_user():
    users = [f"user-{i}" for i in range(5_000)]
    inside = [
        {user for user in users if EVALUATOR.assign(key, user).variant is not None}
        for key in ("layered-a", "layered-b")
    ]
    assert not inside[0] & inside[1]
    assert inside[0] | inside[1] == set(users)


def test_holdout_keeps_its_share_out_and_the_same_users_everywhere():
    users = [f"user-{i}" for i in range(20_000)]
    out = {user for user in users if EVALUATOR.assign("held", user).reason == Reason.in_holdout}
    assert out == {user for user in users if bucket("global", user) < 2_500}
    assert abs(len(out) / len(users) - 0.25) < 4 * (0.25 * 0.75 / len(users)) ** 0.5


def test_unknown_fields_of_a_newer_server_are_ignored():
    newer = deepcopy(SNAPSHOT) | {"policies": [], "version": 9}
    for part in ("experiments", "segments", "layers", "holdouts"):
        for document in newer[part]:
            document["new_field"] = {"any": "thing"}
    assert Evaluator(newer).assign_all("user-1") == EVALUATOR.assign_all("user-1")


def test_an_empty_snapshot_is_one():
    assert Evaluator({}).assign_all("user-1") == {}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"key": ""}, "experiments.0.key"),
        ({"salt": None}, "experiments.plain.salt"),
        ({"revision": "3"}, "experiments.plain.revision"),
        ({"phase": True}, "experiments.plain.phase"),
        ({"control": "nobody"}, "experiments.plain.control"),
        ({"variants": []}, "experiments.plain.variants"),
        ({"variants": [{"key": "a"}] * 2}, "experiments.plain.variants.1.key"),
        ({"variants": [{"key": "a", "tactic": "text"}]}, "experiments.plain.variants.0.tactic"),
        ({"variants": [{"key": f"v{i}"} for i in range(101)]}, "experiments.plain.variants"),
        ({"weights": {"control": 1}}, "experiments.plain.weights"),
        ({"weights": {"control": 0.5, "offer": 0.6}}, "experiments.plain.weights"),
        ({"weights": {"control": 0.5, "offer": "half"}}, "experiments.plain.weights[1]"),
        ({"coverage": 2}, "experiments.plain.coverage"),
        ({"audience": {"a": {"$near": 1}}}, "experiments.plain.audience.a.$near"),
        ({"audience": []}, "experiments.plain.audience"),
        ({"layer": {"key": "gone", "start": 0, "end": 1}}, "experiments.plain.layer.key"),
        ({"layer": {"key": "email", "start": 0, "end": 1.5}}, "experiments.plain.layer.end"),
        ({"holdouts": ["gone"]}, "experiments.plain.holdouts.0"),
        ({"holdouts": "global"}, "experiments.plain.holdouts"),
        ({"strata": [{"segment": "gone"}]}, "experiments.plain.strata.0.segment"),
        ({"strata": [{"coverage": 1}]}, "experiments.plain.strata.0.segment"),
        ({"strata": [{"segment": "vip", "coverage": -1}]}, "experiments.plain.strata.0.coverage"),
        ({"forced": {"user-1": "gone"}}, "experiments.plain.forced.user-1"),
    ],
)
def test_bad_field_is_refused_at_its_path(change, path):
    with pytest.raises(DocumentError) as refused:
        Evaluator(SNAPSHOT | {"experiments": [DOCUMENTS["plain"] | change]})
    assert refused.value.path == path


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"experiments": [DOCUMENTS["plain"]] * 2}, "experiments.1.key"),
        ({"experiments": {}}, "snapshot.experiments"),
        ({"segments": [{"key": "x", "condition": {"a": {"$in": 1}}}]}, "segments.x.condition.a.$in"),
        ({"layers": [{"key": "x"}]}, "layers.x.salt"),
        ({"holdouts": [{"key": "x", "salt": "x", "share": 0.00001}]}, "holdouts.x.share"),
        ({"saved_groups": {"x": "abc"}}, "saved_groups.x"),
    ],
)
def test_bad_snapshot_is_refused_at_its_path(change, path):
    with pytest.raises(DocumentError) as refused:
        Evaluator(change)
    assert refused.value.path == path


def test_buckets_are_remembered_rightly_and_in_bounds():
    document = {
        "key": "memo",
        "revision": 1,
        "status": "running",
        "phase": 1,
        "salt": "memo",
        "control": "a",
        "variants": [{"key": "a"}, {"key": "b"}],
    }
    experiment = compile_experiment(document)
    users = [f"用户{i}" for i in range(5000)]
    expected = ["a" if bucket("memo", user) < 5000 else "b" for user in users]
    for _ in range(2):
        assert [experiment.assign(user).variant for user in users] == expected
    assert 0 < len(experiment._buckets) <= 4096
