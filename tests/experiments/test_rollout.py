"""Policies: what they compile to, what every path serves, and what may change when."""

import copy
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from growthbook import GrowthBook

from experiments import growthbook, rollout
from experiments.bulk import REASONS, assign_bulk
from experiments.documents import Kind, parse
from experiments.errors import Conflict, InvalidDocument
from experiments.policy import ARM, Policy, PolicyStatus
from experiments.sdk import Evaluator
from experiments.sdk.experiment import Reason
from tests.experiments import tree

COUNT = 64_000


def policy(status: str = "running", **changes: Any) -> Policy:
    kept = {"status": status, "salt": "mail:3", "phase": 3, "revision": 2} if status != "draft" else {}
    return parse(Kind.policy, copy.deepcopy(tree.POLICY) | kept | changes)


def evaluator(made: Policy) -> Evaluator:
    segments = rollout.segments(made, {"spenders": tree.SEGMENT["condition"]})
    snapshot = {"experiments": [rollout.served(made)], "segments": segments}
    return Evaluator(json.loads(json.dumps(snapshot)))


@pytest.fixture(scope="module")
def people() -> dict[str, np.ndarray]:
    return tree.users(COUNT)


def bulk(made: Policy, people: dict[str, np.ndarray]) -> tuple[list[str], list[str]]:
    compiled = evaluator(made).experiments["mail"]
    found = assign_bulk(compiled, people["id"], {name: column for name, column in people.items() if name != "id"})
    assert set(found.reason.tolist()) == {REASONS.index(Reason.assigned)}
    names = [str(stratum.segment) for stratum in compiled.strata]
    return [names[i] for i in found.stratum.tolist()], [compiled.variants[i] for i in found.variant.tolist()]


def test_without_a_holdback_everyone_gets_what_the_tree_says(people: dict[str, np.ndarray]) -> None:
    made, (rules, variants) = policy(), tree.says(people)
    assert len(set(rules)) == 8
    assert bulk(made, people) == ([f"mail:{rule}" for rule in rules], variants)
    one = evaluator(made).experiments["mail"]
    rows = zip(people["id"].tolist(), tree.rows(people), strict=True)
    assert [one.assign(user, attributes).variant for user, attributes in rows] == variants


def in_growthbook(made: Policy, people: dict[str, np.ndarray], count: int) -> list[str]:
    written = json.loads(json.dumps(growthbook.payload(evaluator(made))))
    client = GrowthBook(features=written["features"], saved_groups=written["savedGroups"])
    found = []
    for user, attributes in zip(people["id"].tolist()[:count], tree.rows(people), strict=False):
        client.set_attributes(attributes | {"id": user})
        found.append(client.eval_feature("mail").experimentResult.key)
    client.destroy()
    return found


@pytest.mark.parametrize("count", [10_000, pytest.param(COUNT, marks=pytest.mark.study)])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_growthbook_gives_the_same(people: dict[str, np.ndarray], share: float, count: int) -> None:
    made = policy(holdback={"share": share})
    assert in_growthbook(made, people, count) == bulk(made, people)[1][:count]


def test_a_holdback_has_its_share_under_every_rule_that_treats(people: dict[str, np.ndarray]) -> None:
    rules, variants = bulk(policy(holdback={"share": 0.1}), people)
    said = dict(zip(rules, tree.says(people)[1], strict=True))
    counts = Counter(zip(rules, variants, strict=True))
    for rule, chosen in said.items():
        n = sum(counts[rule, variant] for variant in ("none", "mens", "womens"))
        held = counts[rule, "none"] / n
        expected = 1.0 if chosen == "none" else 0.1
        assert abs(held - expected) < 4 * (0.1 * 0.9 / n) ** 0.5
        assert counts[rule, chosen] + counts[rule, "none"] == (n if chosen != "none" else 2 * n)


def test_who_is_held_back_is_so_under_every_rule_and_a_smaller_share_only_frees(people: dict[str, np.ndarray]) -> None:
    def held(share: float, variant: str) -> set[str]:
        made = policy(rules=[], otherwise=variant, holdback={"share": share})
        return {u for u, v in zip(people["id"].tolist(), bulk(made, people)[1], strict=True) if v == "none"}

    assert held(0.1, "mens") == held(0.1, "womens")
    assert held(0.05, "mens") < held(0.1, "mens") < held(0.9, "womens")


def test_those_held_back_may_be_divided_over_the_variants() -> None:
    made = policy(holdback={"share": 0.3, "weights": {"none": 0.5, "mens": 0.25, "womens": 0.25}})
    assert made.buckets("mens") == {"none": 1_500, "mens": 7_750, "womens": 750}
    assert made.buckets("none") == {"none": 8_500, "mens": 750, "womens": 750}
    assert sum(policy(holdback={"share": 0.0001, "weights": {"mens": 1.0}}).buckets("womens").values()) == 10_000
    (first, *_) = rollout.shares(made).values()
    assert first == {"none": 1_500 / 9_250, ARM: 7_750 / 9_250}


def test_a_stored_variant_does_not_outlive_its_rule() -> None:
    one = evaluator(policy()).experiments["mail"]
    new = {"history": 10.0, "newbie": 1, "channel": "Web"}
    assert one.assign("u", new, "mens").variant == "womens"
    assert one.assign("u", new, "mens").reason is Reason.assigned
    columns = {name: np.array([value], dtype=object) for name, value in new.items()}
    found = assign_bulk(one, ["u"], columns, ["mens"])
    assert (one.variants[found.variant[0]], REASONS[found.reason[0]]) == ("womens", Reason.assigned)


def test_the_analysis_reads_only_rules_that_treat() -> None:
    made = policy()
    assert "mail:new-rural" not in rollout.arms(made)
    assert rollout.arms(made)["mail:new"] == {"none": "none", "womens": ARM}
    assert [variant.key for variant in rollout.analysed(made).variants] == ["none", ARM]


# What may change when.


def revised(current: Policy, **changes: Any) -> Policy:
    return rollout.revise(current, parse(Kind.policy, current.to_json() | changes))


def test_a_start_follows_the_phases_of_the_experiment() -> None:
    draft = rollout.first(policy("draft"))
    started = rollout.move(draft, PolicyStatus.running, 2)
    assert (started.status, started.phase, started.salt, started.revision) == (PolicyStatus.running, 3, "mail:3", 2)
    resumed = rollout.move(rollout.move(started, PolicyStatus.paused, 2), PolicyStatus.running, 2)
    assert (resumed.phase, resumed.salt) == (3, "mail:3")
    assert rollout.move(policy("draft", salt="mine"), PolicyStatus.running, 0).salt == "mine"


@pytest.mark.parametrize(("status", "to"), [("draft", "paused"), ("stopped", "running"), ("archived", "draft")])
def test_a_step_that_is_not_possible_is_refused(status: str, to: str) -> None:
    with pytest.raises(Conflict, match="can go to"):
        rollout.move(policy(status), PolicyStatus(to), 0)


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"name": "Another"}, 3),
        ({"metrics": [{"key": "revenue"}, {"key": "orders"}]}, 3),
        ({"holdback": {"share": 0.05}}, 4),
        ({"otherwise": "mens"}, 4),
        ({"rules": tree.POLICY["rules"][:3]}, 4),
        ({"audience": {"zip_code": "Urban"}}, 4),
    ],
)
def test_what_users_get_may_change_in_a_phase_of_its_own_with_the_same_salt(
    changes: dict[str, Any], phase: int
) -> None:
    found = revised(policy(), **changes)
    assert (found.phase, found.salt, found.revision) == (phase, "mail:3", 3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"variants": [*tree.POLICY["variants"][:2], {"key": "womens"}]}, "fixed_after_start"),
        ({"plan": {"planned_users": 5}}, "fixed_after_start"),
        ({"promise": {"metric": "revenue"}}, "fixed_after_start"),
        ({"salt": "other"}, "kept_by_server"),
        ({"phase": 9}, "kept_by_server"),
        ({"status": "stopped"}, "kept_by_server"),
    ],
)
def test_what_was_tested_and_promised_may_not(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        revised(policy(), **changes)
    assert [(p.field, p.problem) for p in refused.value.problems] == [(next(iter(changes)), problem)]


def test_a_draft_changes_freely_and_a_stopped_one_not_at_all() -> None:
    changed = revised(policy("draft"), otherwise="mens", salt="mine", plan={"planned_users": 5})
    assert (changed.phase, changed.salt, changed.revision) == (1, "mine", 2)
    with pytest.raises(Conflict, match="create a new one"):
        revised(policy("stopped"), name="Late")
    with pytest.raises(Conflict, match="the newest is 2"):
        revised(policy(), revision=1)


def test_the_way_back_serves_what_was_served_before_and_a_second_one_undoes_it() -> None:
    first = policy()
    renamed = revised(first, name="Renamed")
    second = revised(renamed, otherwise="mens", holdback={"share": 0.2})
    back = rollout.roll_back(second, [renamed, first])
    assert rollout.alike(back, first)
    assert (back.name, back.phase, back.revision) == ("Renamed", 5, 5)
    assert rollout.alike(rollout.roll_back(back, [second, renamed, first]), second)
    control = rollout.roll_back(back, None)
    assert (set(control.chosen().values()), control.phase) == ({"none"}, 6)
    with pytest.raises(Conflict, match="nothing else yet"):
        rollout.roll_back(first, [policy("draft", otherwise="mens")])
    with pytest.raises(Conflict, match="only one that was started"):
        rollout.roll_back(policy("draft"), None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"control": "nobody"}, "control"),
        ({"otherwise": "nobody"}, "otherwise"),
        ({"rules": [{"name": "a", "condition": {}, "variant": "nobody"}]}, "rules.0.variant"),
        ({"rules": [{"name": "otherwise", "condition": {}, "variant": "none"}]}, "rules"),
        ({"rules": [{"name": "a", "condition": {}, "variant": "none"}] * 2}, "rules"),
        ({"rules": [{"name": "a", "variant": "none"}]}, "rules.0.condition"),
        ({"rules": [{"name": "a", "segment": "s", "condition": {}, "variant": "none"}]}, "rules.0.condition"),
        ({"rules": [{"name": "a", "condition": {"x": {"$near": 1}}, "variant": "none"}]}, "rules.0.condition"),
        ({"holdback": {"share": 1.5}}, "holdback.share"),
        ({"holdback": {"share": 0.5, "weights": {"none": 0.5}}}, "holdback.weights"),
        ({"holdback": {"share": 0.5, "weights": {"nobody": 1.0}}}, "holdback.weights"),
        ({"promise": {"metric": "clicks"}}, "promise.metric"),
        ({"value": {"metric": "clicks", "monthly_users": 5}}, "value.metric"),
        ({"variants": [{"key": "none", "value": 1}, {"key": "mens"}, {"key": "womens"}]}, "variants"),
        ({"holdouts": ["h", "h"]}, "holdouts"),
    ],
)
def test_a_policy_is_refused_with_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        policy("draft", **changes)
    assert [problem.field for problem in refused.value.problems] == [field]


def test_the_control_may_not_be_called_as_the_arm_of_reports() -> None:
    variants = [{"key": ARM}, {"key": "b"}]
    with pytest.raises(InvalidDocument, match="call it otherwise"):
        policy("draft", variants=variants, control=ARM, rules=[], otherwise="b")
