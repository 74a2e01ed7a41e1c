"""The draft of a policy from a study's report: rules, who is left over, and what is promised."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from experiments.documents import Kind, parse
from experiments.errors import Conflict
from experiments.sdk.conditions import compile_condition
from experiments.uplift import serving
from experiments.uplift.answer import Answer
from experiments.uplift.report import Uplift
from experiments.uplift.studies import Notes
from tests.experiments.uplift import campaign, made

NAMES = {name: f"user.{name}" for name in made.FEATURES}
EXPERIMENT = parse(Kind.experiment, campaign.EXPERIMENT)


@pytest.fixture(scope="module")
def found() -> Answer:
    table = made.campaign(4000)
    table = table.rename_columns([NAMES.get(name, name) for name in table.column_names])
    return made.answered(table, features=tuple(NAMES.values()), depth=3)


def draft(said: Uplift, notes: Notes | None = None) -> dict[str, Any]:
    return serving.policy(EXPERIMENT, "s", replace(said, outcome="spend"), notes or Notes(), "CNY")


def test_the_rules_give_each_user_what_the_tree_gives(found: Answer) -> None:
    body = draft(found.report)
    policy = parse(Kind.policy, body)
    assert policy.otherwise == "hold"
    rules = [(compile_condition(rule.condition), rule.variant) for rule in policy.rules]
    for row, given in zip(made.campaign(4000).to_pylist(), found.tree, strict=True):
        known = {name: row[name] for name in made.FEATURES if row[name] is not None}
        assert [variant for matches, variant in rules if matches(known)] == [("hold", "gift")[given]]


def test_one_leaf_is_what_everybody_gets(found: Answer) -> None:
    leaf = replace(found.report.rules[0], condition={}, variant="gift")
    policy = parse(Kind.policy, draft(replace(found.report, rules=[leaf])))
    assert (policy.rules, policy.otherwise) == ([], "gift")


def test_nothing_to_serve_is_said(found: Answer) -> None:
    control = [replace(rule, variant="hold") for rule in found.report.rules]
    for said in (replace(found.report, rules=[]), replace(found.report, rules=control)):
        with pytest.raises(Conflict) as refused:
            draft(said)
        assert refused.value.code == "not_usable"
    with pytest.raises(Conflict, match="no reason"):
        draft(replace(found.report, verdict="invalid"))


@pytest.mark.parametrize("name", ["before.count.buy", "user.tags=vip", "user.$x"])
@pytest.mark.parametrize("form", ["{0}", "$not", "$and"])
def test_what_is_no_attribute_is_named(found: Answer, name: str, form: str) -> None:
    asked: dict[str, Any] = {name: {"$gt": 1}}
    condition = {"{0}": asked, "$not": {"$not": asked}, "$and": {"$and": [{"user.age": 3}, asked]}}[form]
    rules = [replace(found.report.rules[0], condition=condition, variant="gift")]
    with pytest.raises(Conflict) as refused:
        draft(replace(found.report, rules=rules))
    assert (refused.value.code, refused.value.facts) == ("not_servable", {"features": [name]})


def test_the_promise_is_gross_in_the_metric_and_net_in_money(found: Answer) -> None:
    tree = next(each for each in found.report.policies if each.policy == "tree")
    gain, treated = tree.over_control, tree.shares["gift"]
    promise = draft(found.report, Notes(baseline=20.0))["promise"]
    assert promise["relative"]["estimate"] == pytest.approx(gain.estimate / treated / 20)
    assert promise["value_per_month"]["lower"] == pytest.approx(gain.lower * 1000)
    fewer = draft(found.report, Notes(unit=-1.0, baseline=20.0))["promise"]["relative"]
    assert [fewer[each] for each in ("estimate", "lower", "upper")] == pytest.approx(
        [-each / treated / 20 for each in (gain.estimate, gain.upper, gain.lower)]
    )
    assert fewer["lower"] < fewer["upper"]
    arms = [replace(arm, cost=2.0 * (arm.variant == "gift")) for arm in found.report.arms]
    paid = draft(replace(found.report, arms=arms), Notes(baseline=20.0))["promise"]["relative"]
    assert paid["estimate"] == pytest.approx((gain.estimate + 2 * treated) / treated / 20)
    assert draft(found.report)["promise"]["relative"] is None
    assert np.isfinite(promise["relative"]["upper"])
