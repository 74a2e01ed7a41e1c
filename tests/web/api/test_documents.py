"""Documents over HTTP: one implementation, tried on experiments and, where they differ, on the other kinds."""

import json
from typing import Any

import pytest

from experiments.documents import Kind
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api

BODIES: dict[Kind, dict[str, Any]] = {
    Kind.experiment: made.PLAIN,
    Kind.metric: made.METRIC | {"key": "clicks"},
    Kind.segment: {"key": "vip", "name": "VIP", "kind": "tier", "condition": {"tier": "vip"}},
    Kind.layer: {"key": "push", "name": "Push"},
    Kind.holdout: {"key": "none", "name": "Nothing at all", "share": 0.05},
    Kind.policy: made.POLICY,
}


@pytest.fixture(autouse=True)
def _primary_metric(api: Api) -> None:
    assert api("POST", "/v1/metrics", json=made.PRIMARY).status_code == 201


@pytest.mark.parametrize("kind", Kind)
def test_a_document_is_created_read_changed_and_its_revisions_kept(api: Api, kind: Kind) -> None:
    body = BODIES[kind]
    created = api("POST", f"/v1/{kind.plural}", json=body)
    assert created.status_code == 201
    one = f"/v1/{kind.plural}/{body['key']}"
    assert created.headers["Location"] == one
    assert created.headers["ETag"] == '"1"'

    read = api("GET", one)
    assert read.json == created.json
    assert (
        body.items()
        <= {**read.json, **{k: v for k, v in body.items() if k in ("variants", "plan", "metrics", "rules")}}.items()
    )

    changed = api("PUT", one, json=read.json | {"name": "Another name"})
    assert changed.status_code == 200, changed.json
    assert changed.headers["ETag"] == '"2"'
    assert api("GET", one).json["name"] == "Another name"
    assert api("GET", f"{one}/revisions/1").json == created.json
    entries = api("GET", f"{one}/history").json["items"]
    assert [(e["action"], e["revision"], e["actor"]) for e in entries] == [
        ("revise", 2, "admin key"),
        ("create", 1, "admin key"),
    ]
    assert {"path": "name", "before": body["name"], "after": "Another name"} in entries[0]["diff"]


def test_a_list_is_cut_into_pages_that_join_to_the_whole(api: Api) -> None:
    for i in range(5):
        assert api("POST", "/v1/layers", json={"key": f"l{i}", "name": "L"}).status_code == 201
    found, after = [], ""
    while after is not None:
        page = api("GET", f"/v1/layers?limit=2&after={after}").json
        assert len(page["items"]) <= 2
        found += [item["key"] for item in page["items"]]
        after = page["next"]
    assert found == ["l0", "l1", "l2", "l3", "l4"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", "", "９"])
def test_a_limit_out_of_range_is_refused_with_the_field(api: Api, limit: str) -> None:
    answer = api("GET", "/v1/layers", query_string={"limit": limit})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"] == "limit"


def test_all_problems_of_a_document_come_at_once_with_field_and_remedy(api: Api) -> None:
    answer = api("POST", "/v1/experiments", json=made.PLAIN | {"control": 3, "colour": "red", "coverage": 2})
    assert answer.status_code == 422
    assert answer.json["code"] == "invalid_document"
    errors = {error["field"]: error for error in answer.json["errors"]}
    assert errors.keys() == {"control", "colour", "coverage"}
    assert errors["colour"]["value"] == "red"
    assert all(error["remedy"] for error in errors.values())


def test_a_reference_to_nothing_is_refused(api: Api) -> None:
    answer = api("POST", "/v1/experiments", json=made.PLAIN | {"metrics": [{"key": "nowhere"}]})
    assert (answer.status_code, answer.json["errors"][0]["problem"]) == (422, "unknown_reference")


def test_a_document_exists_once(api: Api) -> None:
    answer = api("POST", "/v1/metrics", json=made.PRIMARY)
    assert (answer.status_code, answer.json["code"]) == (409, "already_exists")


def test_if_none_match_saves_sending_what_the_caller_has(api: Api) -> None:
    etag = api("GET", "/v1/metrics/visit").headers["ETag"]
    again = api("GET", "/v1/metrics/visit", headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    api("PUT", "/v1/metrics/visit", json=made.PRIMARY | {"name": "Visits"})
    assert api("GET", "/v1/metrics/visit", headers={"If-None-Match": etag}).status_code == 200


def test_if_match_refuses_a_change_of_what_was_changed_meanwhile(api: Api) -> None:
    body = made.PRIMARY | {"name": "Mine"}
    assert api("PUT", "/v1/metrics/visit", json=body, headers={"If-Match": '"1"'}).status_code == 200
    late = api("PUT", "/v1/metrics/visit", json=made.PRIMARY, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json["code"], late.headers["ETag"]) == (412, "revision_mismatch", '"2"')
    assert api("GET", "/v1/metrics/visit").json["name"] == "Mine"
    assert api("PUT", "/v1/metrics/visit", json=body, headers={"If-Match": "*"}).status_code == 200


def test_without_if_match_the_revision_in_the_experiment_decides(api: Api) -> None:
    api("POST", "/v1/experiments", json=made.PLAIN)
    assert api("PUT", "/v1/experiments/plain", json=made.PLAIN | {"revision": 1}).status_code == 200
    stale = api("PUT", "/v1/experiments/plain", json=made.PLAIN | {"revision": 1})
    assert (stale.status_code, stale.json["code"], stale.json["revision"]) == (409, "stale_revision", 2)
    named = api("PUT", "/v1/experiments/plain", json=made.PLAIN, headers={"If-Match": '"2"'})
    assert (named.status_code, named.json["revision"]) == (200, 3)


def test_an_experiment_goes_through_its_life_cycle(api: Api) -> None:
    api("POST", "/v1/experiments", json=made.PLAIN)
    steps: list[dict[str, Any]] = [
        {"status": "running"},
        {"status": "paused"},
        {"status": "running"},
        {"status": "stopped"},
        {"status": "decided", "decision": {"variant": "b", "reason": "It sells more."}},
        {"status": "archived"},
    ]
    for step in steps:
        answer = api("POST", "/v1/experiments/plain/status", json=step)
        assert (answer.status_code, answer.json["status"]) == (200, step["status"])
        assert answer.headers["ETag"] == f'"{answer.json["revision"]}"'
    assert answer.json["decision"]["variant"] == "b"


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ({"status": "decided", "decision": {"variant": "b", "reason": "r"}}, 409, "bad_transition"),
        ({"status": "stopped"}, 409, "bad_transition"),
        ({"status": "nowhere"}, 422, "invalid_document"),
        ({"state": "running"}, 422, "invalid_document"),
        ([], 422, "invalid_document"),
    ],
)
def test_a_step_that_is_not_possible_is_refused(api: Api, step: Any, status: int, code: str) -> None:
    api("POST", "/v1/experiments", json=made.PLAIN)
    answer = api("POST", "/v1/experiments/plain/status", json=step)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_a_step_on_another_revision_than_read_is_refused(api: Api) -> None:
    api("POST", "/v1/experiments", json=made.PLAIN)
    answer = api("POST", "/v1/experiments/plain/status", json={"status": "running"}, headers={"If-Match": '"7"'})
    assert answer.status_code == 412
    assert api("GET", "/v1/experiments/plain").json["status"] == "draft"


@pytest.mark.parametrize("number", ["0", "2", "99999999999999999999999", "x", "-1", "1e3", "²"])
def test_a_revision_that_is_none_is_not_found(api: Api, number: str) -> None:
    answer = api("GET", f"/v1/metrics/visit/revisions/{number}")
    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_what_is_wrong_in_a_running_experiment_is_told_with_whole_documents_as_values(api: Api, store: Store) -> None:
    api("POST", "/v1/experiments", json=made.PLAIN)
    api("POST", "/v1/experiments/plain/status", json={"status": "running"})
    now = api("GET", "/v1/experiments/plain").json
    answer = api("PUT", "/v1/experiments/plain", json=now | {"plan": {"planned_users": 7}})
    assert answer.status_code == 422
    (error,) = answer.json["errors"]
    assert (error["field"], error["problem"], error["value"]["planned_users"]) == ("plan", "fixed_after_start", 7)


def test_a_very_long_value_is_not_sent_back_whole(api: Api) -> None:
    answer = api(
        "POST", "/v1/metrics", data=json.dumps(made.METRIC | {"name": "x" * 100_000}), content_type="application/json"
    )
    assert answer.status_code == 422
    assert len(answer.data) < 2_000
