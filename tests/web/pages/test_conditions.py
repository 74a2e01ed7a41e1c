"""Conditions in words."""

from typing import Any

import pytest
from flask import Flask
from flask_babel import force_locale

from tests.web.test_formats import EN, ZH
from web.pages.uplift import conditions


@pytest.mark.parametrize(
    ("condition", "english", "chinese"),
    [
        ({}, "everyone", "所有人"),
        (
            {"recency": {"$lte": 3}, "womens": 1},
            "recency is at most 3 and womens is 1",
            "recency 不超过 3，且 womens 为 1",
        ),
        ({"user.city": {"$ne": "north"}}, "city is not north", "city 不是 north"),
        ({"age": {"$ne": None, "$lte": 2500.5}}, "age is at most 2,500.5", "age 不超过 2,500.5"),
        ({"age": None}, "age is unknown", "age 未知"),
        ({"age": {"$ne": None}}, "age is known", "age 已知"),
        ({"member": False}, "member is no", "member 为 否"),
        ({"member": {"$ne": False}}, "member is yes or unknown", "member 为 是 或未知"),
        ({"$not": {"age": {"$ne": None, "$lt": 3}}}, "not (age is below 3)", "不满足（age 小于 3）"),
        ({"$or": [{"a": 1}, {"b": {"$gt": 2}}]}, "(a is 1 or b is above 2)", "（任一满足：a 为 1 或 b 大于 2）"),
        ({"tier": {"$in": ["gold", "black"]}}, "tier is one of gold and black", "tier 为其中之一：gold和black"),
        (
            {"$and": [{"a": {"$gte": 1}}, {"a": {"$exists": True}}]},
            "a is at least 1 and a is known",
            "a 不低于 1，且 a 已知",
        ),
        ({"tags": {"$elemMatch": {"$eq": "vip"}}}, "tags has vip", "tags 包含 vip"),
        ({"name": {"$regex": "^A"}}, 'name $regex "^A"', 'name $regex "^A"'),
    ],
)
def test_a_condition_reads_as_a_sentence(app: Flask, condition: dict[str, Any], english: str, chinese: str) -> None:
    with app.test_request_context():
        with force_locale("en"):
            assert conditions.words(condition, EN) == english
        with force_locale("zh_Hans_CN"):
            assert conditions.words(condition, ZH) == chinese


def test_what_a_user_did_before_has_a_name(app: Flask) -> None:
    with app.test_request_context(), force_locale("en"):
        assert conditions.feature("before.recency_days.buy") == "days since the last “buy”"
        assert conditions.feature("before.count.page.view") == "number of “page.view” before"
        assert conditions.feature("user.home.city") == "home.city"
