from typing import Any

import numpy as np
import pytest

from experiments.sdk.conditions import compile_condition
from experiments.uplift import rules
from experiments.uplift.frame import Feature
from stats.policy_tree import Condition, Rule

nan = np.nan
FEATURES = (
    Feature("age", "number", np.array([20.0, 30.5, nan, 41.0])),
    Feature("visits", "number", np.array([1.0, 2.0, 3.0, 4.0])),
    Feature("newbie", "number", np.array([0.0, 1.0, 0.0, 1.0])),
    Feature("member", "flag", np.array([0.0, 1.0, nan, 1.0])),
    Feature("city", "category", np.array([0.0, 1.0, nan, 0.0]), ("north", "south")),
    Feature("vip", "number", np.array([0.0, 1.0, nan, 1.0])),
    Feature("fan", "flag", np.array([0.0, 1.0, 1.0, 0.0])),
)
PEOPLE: list[dict[str, Any]] = [
    {"age": 20, "visits": 1, "newbie": 0, "member": False, "city": "north", "vip": 0, "fan": False},
    {"age": 30.5, "visits": 2, "newbie": 1, "member": True, "city": "south", "vip": 1, "fan": True},
    {"age": None, "visits": 3, "newbie": 0, "member": None, "city": None, "vip": None, "fan": True},
    {"age": 41, "visits": 4, "newbie": 1, "member": True, "city": "north", "vip": 1, "fan": False},
]
MATRIX = np.column_stack([column for feature in FEATURES for column in feature.columns()])
CASES = [
    (Condition(0, "<=", 30.5, True), "age is at most 30.5", {"age": {"$ne": None, "$lte": 30.5}}),
    (Condition(0, "<=", 30.5, False), "age is above 30.5 or unknown", {"$not": {"age": {"$ne": None, "$lte": 30.5}}}),
    (Condition(0, "missing", None, True), "age is unknown", {"age": None}),
    (Condition(0, "missing", None, False), "age is known", {"age": {"$ne": None}}),
    (Condition(1, "<=", 2.0, True), "visits is at most 2", {"visits": {"$lte": 2}}),
    (Condition(1, "<=", 2.0, False), "visits is above 2", {"visits": {"$gt": 2}}),
    (Condition(2, "<=", 0.0, True), "newbie is 0", {"newbie": 0}),
    (Condition(2, "<=", 0.0, False), "newbie is 1", {"newbie": 1}),
    (Condition(3, "<=", 0.0, True), "member is false", {"member": False}),
    (Condition(3, "<=", 0.0, False), "member is true or unknown", {"member": {"$ne": False}}),
    (Condition(3, "missing", None, True), "member is unknown", {"member": None}),
    (Condition(5, "<=", 0.0, True), "city is not south", {"city": {"$ne": "south"}}),
    (Condition(5, "<=", 0.0, False), "city is south", {"city": "south"}),
    (Condition(6, "<=", 0.0, True), "vip is 0", {"vip": {"$eq": 0}}),
    (Condition(6, "<=", 0.0, False), "vip is 1 or unknown", {"vip": {"$ne": 0}}),
    (Condition(7, "<=", 0.0, False), "fan is true", {"fan": True}),
]


@pytest.mark.parametrize(("asked", "words", "condition"), CASES, ids=[case[1] for case in CASES])
def test_a_question_is_the_same_in_words_as_a_condition_and_in_the_tree(
    asked: Condition, words: str, condition: dict[str, Any]
) -> None:
    rule, named = Rule((asked,), 1, 1), rules.columns(FEATURES)
    assert rules.words(rule, named) == words
    assert rules.condition(rule, named) == condition
    assert list(map(compile_condition(condition), PEOPLE)) == rules.members(rule, MATRIX).tolist()


def test_questions_are_joined() -> None:
    rule, named = Rule((CASES[0][0], CASES[12][0]), 1, 1), rules.columns(FEATURES)
    assert rules.words(rule, named) == "age is at most 30.5 and city is south"
    assert rules.condition(rule, named) == {"$and": [CASES[0][2], CASES[12][2]]}
    assert rules.members(rule, MATRIX).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("places", "words"),
    [((1, 2), "age is unknown"), ((1, 3), "age is above 30.5"), ((3, 0), "age is at most 30.5")],
)
def test_what_is_understood_is_not_said(places: tuple[int, int], words: str) -> None:
    rule, named = Rule(tuple(CASES[place][0] for place in places), 1, 1), rules.columns(FEATURES)
    assert rules.words(rule, named) == words
    matches = compile_condition(rules.condition(rule, named))
    assert list(map(matches, PEOPLE)) == rules.members(rule, MATRIX).tolist()


@pytest.mark.parametrize(
    ("holds", "words"), [(True, "visits is at most 1"), (False, "visits is above 3")], ids=["at most", "above"]
)
def test_of_two_cuts_on_one_side_the_closer_is_said(holds: bool, words: str) -> None:
    rule = Rule((Condition(1, "<=", 3.0, holds), Condition(1, "<=", 1.0, holds)), 1, 1)
    named = rules.columns(FEATURES)
    assert rules.words(rule, named) == words
    assert list(map(compile_condition(rules.condition(rule, named)), PEOPLE)) == rules.members(rule, MATRIX).tolist()


def test_a_tree_without_questions_is_for_everyone() -> None:
    rule, named = Rule((), 1, 4), rules.columns(FEATURES)
    assert (rules.words(rule, named), rules.condition(rule, named)) == ("everyone", {})
    assert rules.members(rule, MATRIX).all()
