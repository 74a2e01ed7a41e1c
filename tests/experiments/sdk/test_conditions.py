"""Conditions against written cases, and against the unmodified GrowthBook SDK on these and on random ones."""

import json
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
from growthbook.core import evalCondition
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.sdk import DocumentError, compile_condition
from experiments.sdk.conditions import MAX_DEPTH, attribute_names

CASES = json.loads((Path(__file__).parents[2] / "cases" / "conditions.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_condition_equals_the_case(case):
    matches = compile_condition(case["condition"], case.get("saved_groups", {}))
    assert matches(case["attributes"]) is case["expected"]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_case_equals_the_growthbook_sdk(case):
    assert evalCondition(case["attributes"], case["condition"], case.get("saved_groups", {})) is case["expected"]


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["name"])
def test_malformed_condition_is_refused_at_its_path(case):
    with pytest.raises(DocumentError) as refused:
        compile_condition(case["condition"])
    assert refused.value.path == case["path"]
    assert refused.value.path in str(refused.value)
    assert refused.value.remedy in str(refused.value)


def test_every_operator_has_a_case():
    written = json.dumps(CASES["cases"])
    with pytest.raises(DocumentError) as refused:
        compile_condition({"a": {"$unknown": 1}})
    operators = refused.value.remedy.removeprefix("use one of ").split(", ")
    assert len(operators) == 29
    assert [name for name in operators if f'"{name}":' not in written] == []


# Few names and values, so that random conditions meet random attributes often enough to match.
scalars = (
    st.none() | st.booleans() | st.sampled_from([0, 1, 1.0, 2, 2.5, -1, "", "a", "A", "b", "1", "1.10.0", "1.9.0-b"])
)
numbers_and_texts = scalars.filter(lambda value: value is not None and not isinstance(value, bool))
names = st.sampled_from(["a", "b", "0", "length"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2), max_leaves=5
)
paths = st.sampled_from(["a", "b", "a.b", "a.0", "a.length", "b.a.b"])
groups = {"one": ["a", 1, None], "none": []}


def operators(tests):
    compared = dict.fromkeys(("$lt", "$lte", "$gt", "$gte", "$veq", "$vne", "$vlt", "$vgte"), numbers_and_texts)
    listed = {name: st.lists(scalars, max_size=3) for name in ("$in", "$nin", "$ini", "$nini")}
    optional = {
        **compared,
        **listed,
        "$eq": values,
        "$ne": values,
        "$exists": st.booleans(),
        "$type": st.sampled_from(["null", "boolean", "number", "string", "array", "object"]),
        "$size": st.integers(0, 3),
        "$regex": st.sampled_from(["a", "^A$", "[0-9]"]),
        "$notRegexi": st.sampled_from(["A", "^b$"]),
        "$inGroup": st.sampled_from(["one", "none", "gone"]),
        "$notInGroup": st.sampled_from(["one", "none", "gone"]),
        "$not": tests,
        "$elemMatch": conditions_of(tests) | tests.filter(lambda test: isinstance(test, dict)),
        "$all": st.lists(tests, max_size=2),
        "$alli": st.lists(tests, max_size=2),
    }
    one = st.sampled_from(sorted(optional)).flatmap(lambda name: st.builds(lambda value: {name: value}, optional[name]))
    return st.lists(one, min_size=1, max_size=2).map(lambda parts: {k: v for part in parts for k, v in part.items()})


def conditions_of(tests):
    return st.dictionaries(paths, tests, min_size=1, max_size=2)


def combined(inner):
    lists = st.lists(inner, max_size=3)
    return st.builds(lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or", "$nor"]), lists) | inner.map(
        lambda condition: {"$not": condition}
    )


tests = st.recursive(values, operators, max_leaves=4)
conditions = st.recursive(conditions_of(tests), combined, max_leaves=4)


@settings(max_examples=500, deadline=None)
@given(conditions, st.dictionaries(st.sampled_from(["a", "b"]), values))
def test_random_condition_equals_the_growthbook_sdk(condition, attributes):
    assert compile_condition(condition, groups)(attributes) is evalCondition(attributes, condition, groups)


class Hostile:
    """A value that no rule may touch."""

    def __eq__(self, other):
        raise AssertionError

    __lt__ = __gt__ = __le__ = __ge__ = __len__ = __contains__ = __iter__ = __hash__ = __str__ = __eq__


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_evaluation_never_raises(case):
    matches = compile_condition(case["condition"], case.get("saved_groups", {}))
    names = attribute_names(case["condition"])
    for value in (
        Hostile(),
        b"x",
        {1, 2},
        float("nan"),
        10**400,
        -(10**5000),
        "\ud800",
        [[Hostile()]],
        {"b": Hostile()},
    ):
        assert matches(dict.fromkeys(names, value)) in (True, False)
    for attributes in (None, 5, "text", []):
        assert matches(attributes) is matches({})


def test_attributes_may_be_any_mapping_and_arrays_may_be_tuples():
    matches = compile_condition({"tags": {"$in": ["x"]}, "home.city": "y"})
    assert matches(MappingProxyType({"tags": ("x",), "home": MappingProxyType({"city": "y"})}))
    assert compile_condition({"home": {"city": "y"}})({"home": MappingProxyType({"city": "y"})})


def nested(depth):
    condition = {"a": 1}
    for _ in range(depth):
        condition = {"$not": condition}
    return condition


def test_the_deepest_condition_is_evaluated_and_a_deeper_one_refused():
    assert compile_condition(nested(MAX_DEPTH - 2))({"a": 1}) is True
    with pytest.raises(DocumentError, match=f"at most {MAX_DEPTH} deep"):
        compile_condition(nested(MAX_DEPTH + 1))
    deep = []
    for _ in range(sys.getrecursionlimit() // 2):
        deep = [deep]
    with pytest.raises(DocumentError, match="deep"):
        compile_condition({"a": deep})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1}, {1: 2}, [float("nan")]])
def test_operand_that_is_no_json_is_refused(value):
    for operand in (value, {"$eq": value}, {"$in": [value]}):
        with pytest.raises(DocumentError):
            compile_condition({"a": operand})


def test_attribute_names_are_the_roots_of_all_paths():
    condition = {"a.b": 1, "$or": [{"c": {"$gt": 1}}, {"$not": {"d.0": 1}}], "$and": [], "e": {"$elemMatch": {"f": 1}}}
    assert attribute_names(condition) == {"a", "c", "d", "e"}
