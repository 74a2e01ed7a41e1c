"""GrowthBook's own conformance cases: conditions, hash, ranges and the choice of an arm."""

import json
from bisect import bisect_right
from pathlib import Path

import pytest
from growthbook.core import chooseVariation, evalCondition, getBucketRanges

from experiments.sdk import DocumentError, bucket, compile_condition, compile_experiment
from experiments.sdk.hashing import BUCKETS

CASES = json.loads((Path(__file__).parents[2] / "cases" / "growthbook.json").read_text("utf-8"))
ANSWERED = CASES["conditions"] + CASES["superseded"]


def by_name(case):
    return case["name"]


def experiment(arms, weights, coverage):
    keys = [f"arm {i}" for i in range(arms)]
    return compile_experiment(
        {
            "key": "x",
            "revision": 1,
            "phase": 1,
            "salt": "x",
            "status": "running",
            "control": keys[0],
            "variants": [{"key": key} for key in keys],
            "weights": weights and dict(zip(keys, weights, strict=False)),
            "coverage": coverage,
        }
    )


def test_the_file_holds_all_the_cases_it_names():
    assert {
        name: len(CASES[name]) for name in ("conditions", "superseded", "refused", "hash", "ranges", "choices")
    } == {
        "conditions": 264,
        "superseded": 5,
        "refused": 9,
        "hash": 7,
        "ranges": 13,
        "choices": 13,
    }


@pytest.mark.parametrize("case", ANSWERED, ids=by_name)
def test_condition_equals_the_case(case):
    groups = case.get("saved_groups", {})
    assert compile_condition(case["condition"], groups)(case["attributes"]) is case["expected"]
    assert evalCondition(case["attributes"], case["condition"], groups) is case["expected"]


@pytest.mark.parametrize("case", CASES["superseded"], ids=by_name)
def test_superseded_cases_would_have_converted_a_type(case):
    assert case["growthbook"] is not case["expected"]


@pytest.mark.parametrize("case", CASES["refused"], ids=by_name)
def test_what_growthbook_passes_over_is_refused(case):
    with pytest.raises(DocumentError) as refused:
        compile_condition(case["condition"])
    assert refused.value.path == case["path"]


@pytest.mark.parametrize("case", CASES["hash"], ids=lambda case: case["id"])
def test_hash_equals_the_case(case):
    assert bucket(case["seed"], case["id"]) / BUCKETS == case["hash"]


@pytest.mark.parametrize("case", CASES["ranges"], ids=by_name)
def test_ranges_equal_the_case(case):
    if case["ranges"] is None:
        with pytest.raises(DocumentError, match=r"coverage|weights"):
            experiment(case["variations"], case["weights"], case["coverage"])
        return
    ranges = experiment(case["variations"], case["weights"], case["coverage"]).strata[0].ranges
    assert [[start / BUCKETS, end / BUCKETS] for start, end in ranges] == case["ranges"]
    floats = getBucketRanges(case["variations"], case["coverage"], case["weights"])
    assert [(round(start * BUCKETS), round(end * BUCKETS)) for start, end in floats] == list(ranges)


@pytest.mark.parametrize("case", CASES["choices"], ids=by_name)
def test_chosen_arm_equals_the_case(case):
    compiled = experiment(len(case["weights"]), case["weights"], case["coverage"])
    stratum = compiled.strata[0]
    answer = stratum.answers[bisect_right(stratum.bounds, round(case["hash"] * BUCKETS))]
    assert (-1 if answer.variant is None else compiled.variants.index(answer.variant)) == case["arm"]
    shares = [(start / BUCKETS, end / BUCKETS) for start, end in stratum.ranges]
    assert chooseVariation(case["hash"], shares) == case["arm"]
