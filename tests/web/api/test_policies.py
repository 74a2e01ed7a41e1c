"""Policies over HTTP: from a decision to a policy that every path serves, and to what became of its promise."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from growthbook import GrowthBook

from experiments.access import Scope
from experiments.documents import Kind, parse
from experiments.promises import Realised
from experiments.sdk import Evaluator
from experiments.store import Store
from tests.experiments import tree
from tests.web import made
from tests.web.conftest import Api, Clock
from web.api.assignments import MAX_USERS

COUNT = 64_000
NEW, LOYAL = {"orders": 1}, {"orders": 5}


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.json
    return answer.json


def decided(api: Api, **decision: Any) -> None:
    """Stop the experiment and decide it."""
    ok(api("POST", f"/v1/experiments/{made.KEY}/status", json={"status": "stopped"}))
    body = {"status": "decided", "decision": {"variant": "ten", "reason": "It brings them back."} | decision}
    ok(api("POST", f"/v1/experiments/{made.KEY}/status", json=body))


def started(api: Api, **changes: Any) -> dict[str, Any]:
    draft = ok(api("POST", f"/v1/experiments/{made.KEY}/policy"), 201)
    ok(api("PUT", f"/v1/policies/{made.KEY}", json=draft | changes))
    policy: dict[str, Any] = ok(api("POST", f"/v1/policies/{made.KEY}/status", json={"status": "running"}))
    return policy


def assigned(api: Api, user: str, attributes: dict[str, Any], key: str = made.KEY) -> dict[str, Any]:
    body = {"user": user, "attributes": attributes, "experiments": [key]}
    found: dict[str, Any] = ok(api("POST", "/v1/assignments", json=body))["assignments"][key]
    return found


def sent(api: Api, items: list[dict[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = api("POST", "/v1/events", json={"batch": items}).json
    return answer


def exposure(user: str, variant: str, **fields: Any) -> dict[str, Any]:
    known = {"type": "exposure", "messageId": f"{user}-{fields}", "userId": user, "experiment": made.KEY}
    return known | {"variant": variant} | fields


@pytest.mark.parametrize("one_by_one", [500, pytest.param(COUNT, marks=pytest.mark.study)])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_every_path_serves_what_the_tree_says(api: Api, share: float, one_by_one: int) -> None:
    metric = made.PRIMARY | {"key": "revenue"}
    policy = tree.POLICY | {"holdback": {"share": share}}
    for kind, body in ((Kind.metric, metric), (Kind.segment, tree.SEGMENT), (Kind.policy, policy)):
        ok(api("POST", f"/v1/{kind.plural}", json=body), 201)
    assert assigned(api, "u", {}, "mail")["reason"] == "unknown_experiment"
    ok(api("POST", "/v1/policies/mail/status", json={"status": "running"}))
    people = tree.users(COUNT)
    ids, attributes, (rules, variants) = people["id"].tolist(), tree.rows(people), tree.says(people)

    found: list[tuple[str, str]] = []
    for start in range(0, COUNT, MAX_USERS):
        part = slice(start, start + MAX_USERS)
        users = [{"user": u, "attributes": a} for u, a in zip(ids[part], attributes[part], strict=True)]
        answer = ok(api("POST", "/v1/assignments", json={"users": users}))
        found += [(u["assignments"]["mail"]["stratum"], u["assignments"]["mail"]["variant"]) for u in answer["users"]]
    assert [stratum for stratum, _ in found] == [f"mail:{rule}" for rule in rules]
    given = [variant for _, variant in found]
    treated = [pair for pair in zip(given, variants, strict=True) if pair[1] != "none"]
    held = sum(variant == "none" for variant, _ in treated) / len(treated)
    assert abs(held - share) <= 4 * (share * (1 - share) / len(treated)) ** 0.5
    assert all(variant in (said, "none") for variant, said in zip(given, variants, strict=True))

    evaluator = Evaluator(ok(api("GET", "/v1/snapshot")))
    features = ok(api("GET", f"/api/features/{api.secret}"))
    outside = GrowthBook(features=features["features"], saved_groups=features["savedGroups"])
    for user, known, variant in zip(ids[:one_by_one], attributes, given, strict=False):
        assert evaluator.assign("mail", user, known).variant == variant
        assert assigned(api, user, known, "mail")["variant"] == variant
        context = {"context": known | {"targetingKey": user}}
        flag = ok(api("POST", "/ofrep/v1/evaluate/flags/mail", json=context))
        assert (flag["variant"], flag["reason"]) == (variant, "SPLIT")
        outside.set_attributes(known | {"id": user})
        assert outside.eval_feature("mail").experimentResult.key == variant
    outside.destroy()


def test_a_policy_takes_over_the_flag_of_its_experiment(api: Api, store: Store) -> None:
    made.documents(store)
    assert sent(api, [exposure("u1", "ten", attributes=LOYAL), exposure("u2", "none", stratum="new")])["accepted"] == 2
    before = ok(api("POST", f"/v1/experiments/{made.KEY}/reports"), 201)
    assert api("POST", f"/v1/experiments/{made.KEY}/policy").json["code"] == "not_decided"
    decided(api, segments=["loyal"])
    draft = ok(api("POST", f"/v1/experiments/{made.KEY}/policy"), 201)
    assert [(rule["segment"], rule["variant"]) for rule in draft["rules"]] == [("new", "none"), ("loyal", "ten")]
    assert (draft["otherwise"], draft["source"]["experiment"], draft["holdback"]["share"]) == ("none", made.KEY, 0.05)
    assert assigned(api, "u1", LOYAL)["reason"] == "not_running"
    again = api("POST", f"/v1/experiments/{made.KEY}/policy")
    assert (again.status_code, again.json["code"]) == (409, "already_exists")

    ok(api("PUT", f"/v1/policies/{made.KEY}", json=draft | {"holdback": {"share": 0}}))
    policy = ok(api("POST", f"/v1/policies/{made.KEY}/status", json={"status": "running"}))
    assert (policy["phase"], policy["salt"]) == (2, f"{made.KEY}:2")
    # Stored for the experiment, and of no account now; nor is what is stored for the policy.
    assert assigned(api, "u1", NEW)["variant"] == "none"
    accepted = sent(api, [exposure("u1", "none", attributes=NEW, messageId="p1")])
    assert accepted["accepted"] == 1
    found = assigned(api, "u1", LOYAL)
    assert (found["variant"], found["reason"], found["stratum"]) == ("ten", "assigned", f"{made.KEY}:loyal")
    assert assigned(api, "u3", {"orders": 0})["stratum"] == f"{made.KEY}:otherwise"

    # What the experiment's users did comes in late, and counts there.
    late = [
        exposure("u4", "ten", phase=1, stratum="new"),
        exposure("u5", "none", phase=1, attributes=LOYAL),
        exposure("u6", "ten", phase=1, stratum=f"{made.KEY}:loyal"),
        exposure("u7", "ten", stratum="loyal"),
        exposure("u8", "ten", stratum=f"{made.KEY}:loyal"),
        exposure("u9", "ten", phase=3),
    ]
    receipt = sent(api, late)
    assert [(r["index"], r["code"]) for r in receipt["rejected"]] == [
        (2, "unknown_stratum"),
        (3, "unknown_stratum"),
        (5, "unknown_phase"),
    ]
    after = ok(api("POST", f"/v1/experiments/{made.KEY}/reports"), 201)
    assert sum(arm["assigned"] for arm in before["arms"]) == 2
    assert sum(arm["assigned"] for arm in after["arms"]) == 4
    ok(api("POST", f"/v1/policies/{made.KEY}/reports"), 201)
    assert ok(api("GET", f"/v1/experiments/{made.KEY}/report.json")) == after
    (entry,) = ok(api("GET", f"/v1/policies/{made.KEY}/reports"))["items"]
    assert (entry["phase"], ok(api("GET", f"/v1/reports/{entry['id']}.json"))["arms"][1]["assigned"]) == (2, 1)


def test_an_experiment_that_can_still_change_keeps_its_flag(api: Api, store: Store) -> None:
    made.documents(store)
    ok(api("POST", "/v1/policies", json=made.POLICY | {"key": made.KEY}), 201)
    refused = api("POST", f"/v1/policies/{made.KEY}/status", json={"status": "running"})
    assert (refused.status_code, refused.json["code"]) == (409, "experiment_open")
    assert assigned(api, "u1", LOYAL)["reason"] == "assigned"


def test_a_decision_on_another_experiments_report_promises_nothing(api: Api, store: Store) -> None:
    made.documents(store)
    made.save(store, made.full_report(experiment="other"), "theirs")
    decided(api, report="theirs")
    refused = api("POST", f"/v1/experiments/{made.KEY}/policy")
    assert (refused.status_code, refused.json["code"]) == (409, "other_report")


def test_no_experiment_is_made_under_a_policys_flag(api: Api, store: Store) -> None:
    made.documents(store)
    ok(api("POST", "/v1/policies", json=made.POLICY), 201)
    refused = api("POST", "/v1/experiments", json=made.PLAIN)
    assert (refused.status_code, refused.json["code"]) == (409, "already_exists")


def test_what_a_policy_names_must_exist_and_is_kept_while_it_runs(api: Api, store: Store) -> None:
    made.documents(store)
    rules = [{"name": "x", "segment": "nowhere", "variant": "b"}]
    wrong = made.POLICY | {"rules": rules, "holdouts": ["none"], "metrics": [{"key": "nothing"}]}
    errors = api("POST", "/v1/policies", json=wrong).json["errors"]
    assert [(e["field"], e["problem"]) for e in errors] == [
        ("metrics.0.key", "unknown_reference"),
        ("rules.0.segment", "unknown_reference"),
        ("holdouts.0", "unknown_reference"),
    ]
    vip = {"key": "vip", "name": "VIP", "condition": {"tier": "vip"}}
    ok(api("POST", "/v1/segments", json=vip), 201)
    ok(api("POST", "/v1/policies", json=made.POLICY | {"rules": [rules[0] | {"segment": "vip"}]}), 201)
    ok(api("PUT", "/v1/segments/vip", json=vip | {"condition": {"tier": "gold"}}))
    ok(api("POST", "/v1/policies/plain/status", json={"status": "running"}))
    assert api("PUT", "/v1/segments/vip", json=vip).json["code"] == "in_use"


def test_the_way_back_is_one_call_and_stands_in_the_history(api: Api, store: Store) -> None:
    made.documents(store)
    decided(api)
    policy = started(api, holdback={"share": 0})
    assert assigned(api, "u1", LOYAL)["variant"] == "ten"
    changed = ok(api("PUT", f"/v1/policies/{made.KEY}", json=policy | {"rules": policy["rules"][:1]}))
    assert assigned(api, "u1", LOYAL)["variant"] == "none"
    back = api("POST", f"/v1/policies/{made.KEY}/rollback", json={"to": "previous"}, headers={"If-Match": '"4"'})
    assert (ok(back)["phase"], back.headers["ETag"]) == (changed["phase"] + 1, '"5"')
    assert assigned(api, "u1", LOYAL)["variant"] == "ten"
    ok(api("POST", f"/v1/policies/{made.KEY}/rollback", json={"to": "control"}))
    assert {assigned(api, f"u{i}", LOYAL)["variant"] for i in range(20)} == {"none"}
    assert api("POST", f"/v1/policies/{made.KEY}/reports").json["code"] == "nobody_treated"
    ok(api("POST", f"/v1/policies/{made.KEY}/status", json={"status": "paused"}))
    assert assigned(api, "u1", LOYAL)["reason"] == "not_running"
    actions = [entry["action"] for entry in ok(api("GET", f"/v1/policies/{made.KEY}/history"))["items"]]
    assert actions == ["paused", "roll_back", "roll_back", "revise", "running", "revise", "create"]
    assert api("POST", f"/v1/policies/{made.KEY}/rollback", json={"to": "nowhere"}).status_code == 422
    stale = api("POST", f"/v1/policies/{made.KEY}/rollback", json={"to": "control"}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412


@pytest.mark.parametrize(("share", "delivery"), [(0.5, "kept"), (0.0, "no_holdback")])
def test_the_promise_stands_beside_the_gain(api: Api, store: Store, clock: Clock, share: float, delivery: str) -> None:
    made.documents(store)
    made.facts(store, at=made.NOW, users=2_000)
    clock.forward(days=3)
    report = ok(api("POST", f"/v1/experiments/{made.KEY}/reports"), 201)
    assert report["decision"]["verdict"] == "ship"
    decided(api)
    policy = started(api, holdback={"share": share})
    stated = report["metrics"][0]["comparisons"][0]["relative"]
    assert policy["promise"]["relative"] == stated
    assert policy["promise"]["value_per_month"] == report["decision"]["value_per_month"]
    assert api("GET", f"/v1/policies/{made.KEY}/realised").json["code"] == "no_report"

    items = []
    for i in range(2_000):
        user, known = f"p{i}", (NEW, LOYAL)[i % 2]
        variant = assigned(api, user, known)["variant"]
        items.append(exposure(user, variant, attributes=known))
        if i // 2 % (3 if variant == "none" else 2) == 0:
            items.append({"type": "event", "messageId": f"{user}-v", "userId": user, "event": "visit"})
    assert sent(api, items)["accepted"] == len(items)
    clock.forward(days=3)
    ok(api("POST", f"/v1/policies/{made.KEY}/reports"), 201)
    told = ok(api("GET", f"/v1/policies/{made.KEY}/realised"))
    found = msgspec.convert(told, Realised)
    assert found.delivery == delivery
    assert found.treated + found.held_back == 2_000
    assert (found.phase, found.holdback) == (2, share)
    assert found.promised is not None
    assert msgspec.to_builtins(found.promised) == stated
    if share:
        assert abs(found.held_back / 2_000 - share) < 0.05
        assert found.realised is not None
        assert found.realised.lower < 0.5 < found.realised.upper
        assert found.absolute is not None
        assert found.realised_value is not None
        assert found.realised_value.estimate == pytest.approx(found.absolute.estimate * 1000)
    else:
        assert (found.realised, found.problem) == (None, "not_enough_data")


def test_who_may_do_what(api: Api, store: Store, keys: dict[Scope, str]) -> None:
    made.documents(store)
    decided(api)
    reader = Api(api.client, keys[Scope.read])
    assert reader("POST", f"/v1/experiments/{made.KEY}/policy").status_code == 403
    started(api)
    for path in ("status", "rollback", "reports"):
        assert reader("POST", f"/v1/policies/{made.KEY}/{path}", json={}).status_code == 403
    assert reader("GET", f"/v1/policies/{made.KEY}").status_code == 200


def test_the_policy_of_the_manual_is_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "policies.md").read_text(encoding="utf-8")
    body = text.split("```json\n")[1].split("```")[0]
    assert parse(Kind.policy, json.loads(body)).chosen() == {"dormant": "ten", "likely": "note", "otherwise": "none"}
