"""Bulk assignment: every row equals the SDK's answer for that user."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.bulk import REASONS, assign_bulk, buckets
from experiments.sdk import Evaluator, bucket, compile_experiment

CASES = Path(__file__).parents[1] / "cases"
ASSIGNMENT = json.loads((CASES / "assignment.json").read_text("utf-8"))
CONDITIONS = json.loads((CASES / "conditions.json").read_text("utf-8"))["cases"]
SNAPSHOT = ASSIGNMENT["snapshot"]
EVALUATOR = Evaluator(SNAPSHOT)
PLAIN = SNAPSHOT["experiments"][0]


def objects(values):
    """An object column, also of values that NumPy would take apart."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def answers(experiment, result):
    """The rows as (variant, reason, stratum)."""
    variants, segments = (
        [*experiment.variants, None],
        [*(part.segment for part in experiment.waves or experiment.strata), None],
    )
    return [
        (variants[variant], REASONS[reason], segments[stratum])
        for variant, reason, stratum in zip(result.variant, result.reason, result.stratum, strict=True)
    ]


def one_by_one(experiment, users, columns, stored=None):
    """The SDK's answers for rows of columns, where None and NaN are missing."""
    found = []
    for i, user in enumerate(users):
        row = {name: column.tolist()[i] for name, column in columns.items()}
        present = {name: value for name, value in row.items() if value is not None and value == value}
        answer = experiment.assign(user, present, None if stored is None else stored[i])
        found.append((answer.variant, answer.reason, answer.stratum))
    return found


@pytest.mark.parametrize("key", list(EVALUATOR.experiments))
def test_rows_equal_the_conformance_cases(key):
    cases = [case for case in ASSIGNMENT["cases"] if case["experiment"] == key]
    attributes = [case.get("attributes", {}) for case in cases]
    columns = {name: objects([row.get(name) for row in attributes]) for name in {n for row in attributes for n in row}}
    experiment = EVALUATOR.experiments[key]
    result = assign_bulk(experiment, [case["user"] for case in cases], columns, [case.get("stored") for case in cases])
    assert answers(experiment, result) == [(case["variant"], case["reason"], case["stratum"]) for case in cases]


def has_its_id(case):
    """A rule sees the user id as `id`, so in these cases `id` has to be one."""
    return "id" not in case["condition"] or isinstance(case["attributes"].get("id"), str)


@pytest.mark.parametrize("case", list(filter(has_its_id, CONDITIONS)), ids=lambda case: case["name"])
def test_audience_equals_the_conformance_case(case):
    experiment = compile_experiment(
        PLAIN | {"audience": case["condition"]}, {"saved_groups": case.get("saved_groups", {})}
    )
    columns = {name: objects([value, value]) for name, value in case["attributes"].items()}
    user = case["attributes"].get("id", "user-1")
    result = assign_bulk(experiment, [user, user], columns)
    assert [reason != "not_in_audience" for _, reason, _ in answers(experiment, result)] == [case["expected"]] * 2


texts = st.sampled_from(["", "a", "A", "ab", "b", "上海", "😀", "10", "9"])
whole = st.integers(-2, 3) | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])
real = st.sampled_from([-1.5, 0.0, 1.0, 2.0, 0.1, 2.0**53, 2.0**63, float("inf")])
column_values = {
    "text": (np.str_, texts),
    "whole": (np.int64, whole),
    "small": (np.uint8, st.integers(0, 4)),
    "real": (np.float64, real | st.just(float("nan"))),
    "single": (np.float32, st.sampled_from([0.1, 1.0, 2.0, float("nan")])),
    "flag": (np.bool_, st.booleans()),
    "mixed": (
        object,
        st.none() | texts | whole | real | st.booleans() | st.just(float("nan")) | st.lists(texts, max_size=2)
        | st.fixed_dictionaries({"city": texts}) | st.tuples(st.integers(0, 1) | st.booleans()),
    ),
}  # fmt: skip
literals = st.none() | texts | whole | real.filter(np.isfinite) | st.booleans()
comparisons = st.one_of(
    literals,
    st.builds(lambda name, value: {name: value}, st.sampled_from(["$eq", "$ne"]), literals | st.just([1])),
    st.builds(lambda name, values: {name: values}, st.sampled_from(["$in", "$nin"]), st.lists(literals, max_size=3)),
    st.builds(
        lambda name, value: {name: value},
        st.sampled_from(["$lt", "$lte", "$gt", "$gte"]),
        texts | whole | real.filter(np.isfinite),
    ),
    st.builds(lambda value: {"$exists": value}, st.booleans()),
    st.sampled_from([{}, {"$regex": "a"}, {"$size": 1}, {"$type": "boolean"}, {"$all": [1]}, {"city": "a"}]),
)
tests = st.recursive(comparisons, lambda inner: inner.map(lambda test: {"$not": test}), max_leaves=2) | st.builds(
    lambda low, high: {"$gte": low, "$lt": high}, whole, whole
)
fields = st.dictionaries(
    st.sampled_from([*column_values, "mixed.city", "mixed.0", "text.length", "absent", "id"]), tests, max_size=2
)
conditions = st.recursive(
    fields,
    lambda inner: (
        st.builds(
            lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, max_size=2)
        )
        | inner.map(lambda condition: {"$not": condition})
    ),
    max_leaves=3,
)
users = st.text(st.characters(codec=None, exclude_categories=()), max_size=6) | st.sampled_from(
    ["", "user-1", "用户123", "😀", "👨‍👩‍👧‍👦", "a\0", "\0", "x" * 70, None, 5]
)
shares = st.integers(0, 10_000).map(lambda count: count / 10_000)


@st.composite
def experiments(draw):
    parts = {
        "audience": st.none() | conditions,
        "coverage": shares,
        "weights": st.none() | shares.map(lambda share: {"control": share, "offer": round(1 - share, 4)}),
        "layer": st.none() | st.builds(lambda a, b: {"key": "l", "start": a, "end": b}, shares, shares),
        "holdouts": st.lists(st.just("h"), max_size=1),
        "strata": st.lists(
            st.builds(lambda key, share: {"segment": key, "coverage": share}, st.sampled_from("st"), shares), max_size=2
        ),
        "forced": st.dictionaries(users.filter(lambda user: isinstance(user, str)), st.just("offer"), max_size=2),
    }
    snapshot = {
        "segments": [{"key": key, "condition": draw(conditions)} for key in "st"],
        "layers": [{"key": "l", "salt": "layer"}],
        "holdouts": [{"key": "h", "salt": "holdout", "share": draw(shares)}],
    }
    return compile_experiment(PLAIN | {name: draw(part) for name, part in parts.items()}, snapshot)


@st.composite
def rows(draw):
    n = draw(st.integers(0, 8))

    def values(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    columns = {
        name: objects(values(strategy)) if dtype is object else np.array(values(strategy), dtype)
        for name, (dtype, strategy) in column_values.items()
    }
    return values(users), columns, values(st.none() | st.sampled_from(["offer", "gone", ""]))


@settings(max_examples=500, deadline=None)
@given(experiments(), rows())
def test_rows_equal_one_by_one(experiment, table):
    ids, columns, stored = table
    result = assign_bulk(experiment, ids, columns, stored)
    assert answers(experiment, result) == one_by_one(experiment, ids, columns, stored)


@pytest.mark.parametrize(
    ("column", "condition"),
    [
        (np.array([2**53, 2**53 + 1]), {"x": 2.0**53}),
        (np.array([2.0**53, 0.0]), {"x": 2**53 + 1}),
        (np.array([2.0**53, 0.0]), {"x": {"$lt": 2**53 + 1}}),
        (np.array([2**63 - 1, 0]), {"x": {"$lt": 2.0**63}}),
        (np.array([0, 255], np.uint8), {"x": {"$gt": -1}}),
        (np.array([0, 255], np.uint8), {"x": {"$in": [300, 255]}}),
        (np.array([0.1, 1], np.float32), {"x": {"$gt": 0.1}}),
        (np.array([np.nan, 1]), {"x": None}),
        (np.array([np.nan, 1]), {"x": {"$ne": 1}}),
        (np.array(["a", "b"]), {"x": "a\0"}),
        (np.array(["a", "b"]), {"x": {"$gt": "a"}}),
        (np.array([True, False]), {"x": {"$in": [1, 0]}}),
        (np.array([True, False]), {"x": {"$gt": 0.5}}),
        (objects([True, 1, 1.0, "1"]), {"x": {"$in": [1]}}),
        (objects([1, True, 1.0, "1"]), {"x": {"$in": [True]}}),
        (objects([(1,), (True,)]), {"x": {"$in": [1]}}),
        (objects([None, np.nan, "", 0]), {"x": {"$exists": False}}),
        (objects([np.int64(1), np.float64(1), np.str_("a")]), {"x": {"$in": [1, "a"]}}),
    ],
    ids=str,
)
def test_edges_of_numeric_types_equal_one_by_one(column, condition):
    experiment = compile_experiment(PLAIN | {"audience": condition})
    ids = ["user-1"] * len(column)
    # "x.y" is no path to the column of that name.
    for columns in ({"x": column}, {"x": column, "x.y": column}, {"x.y": column}):
        for audience in (experiment, compile_experiment(PLAIN | {"audience": {"x.y": condition["x"]}})):
            assert answers(audience, assign_bulk(audience, ids, columns)) == one_by_one(audience, ids, columns)


@given(st.text(max_size=3), st.lists(st.text(max_size=9)))
def test_buckets_of_a_text_array_equal_one_by_one(seed, ids):
    array = np.array(ids, dtype=np.str_)
    for texts in (array, array.astype(array.dtype.newbyteorder()), np.repeat(array, 2)[::2]):
        assert buckets(seed, texts).tolist() == [bucket(seed, str(text)) for text in array]


def test_byte_order_does_not_change_a_bucket():
    array = np.array(["\U00010000\U00020000", "a"])
    assert buckets("seed", array.astype(array.dtype.newbyteorder())).tolist() == buckets("seed", array).tolist()


def test_buckets_equal_one_by_one_over_several_blocks_and_lengths():
    ids = np.array([f"user-{i}" for i in range(98_000, 131_000)])
    expected = [bucket("seed", f"user-{i}") for i in range(98_000, 131_000)]
    assert buckets("seed", ids).tolist() == expected
    assert buckets("seed", list(ids)).tolist() == expected


def test_a_text_array_gives_the_same_answers_as_a_list():
    ids = ["user-1", "user-7", "", "用户3", "😀"]
    for experiment in EVALUATOR.experiments.values():
        as_list, as_array = assign_bulk(experiment, ids), assign_bulk(experiment, np.array(ids))
        assert answers(experiment, as_list) == answers(experiment, as_array) == one_by_one(experiment, ids, {})


def test_no_users_are_no_rows():
    for experiment in EVALUATOR.experiments.values():
        assert len(assign_bulk(experiment, []).variant) == 0


@pytest.mark.parametrize("column", [np.array(["x"]), np.array([["x", "y"]]), np.array("x")])
def test_column_of_another_length_is_refused(column):
    with pytest.raises(ValueError, match="city has shape"):
        assign_bulk(EVALUATOR.experiments["audience"], ["user-1", "user-2"], {"city": column})


def test_attributes_are_not_changed():
    columns = {"city": np.array(["上海"]), "tier": objects(["gold"])}
    before = deepcopy(columns)
    assign_bulk(EVALUATOR.experiments["all-checks"], ["user-5"], columns)
    assert columns.keys() == before.keys()
    assert all((columns[name] == before[name]).all() for name in columns)
