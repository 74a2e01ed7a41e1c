"""OFREP as its specification has it: what is answered, and how a failure is told."""

import gzip
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from experiments.access import Scope
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api

FLAGS = "/ofrep/v1/evaluate/flags"


@pytest.fixture
def running(api: Api) -> Api:
    """Four experiments: by tactic, with strata, typed numbers, and a draft."""
    api("POST", "/v1/metrics", json=made.METRIC)
    api("POST", "/v1/segments", json={"key": "vip", "name": "VIP", "condition": {"tier": "gold"}})
    base = {
        "name": "X",
        "control": "a",
        "metrics": [{"key": made.METRIC["key"], "role": "primary"}],
        "plan": {"planned_users": 1000},
    }
    two = [{"key": "a"}, {"key": "b"}]
    documents: list[dict[str, Any]] = [
        {"key": "copy", "variants": [{"key": "a"}, {"key": "b", "tactic": {"copy": "错过再等一年"}}]},
        {"key": "tiers", "variants": two, "strata": [{"segment": "vip"}]},
        {"key": "touches", "variants": [{"key": "a", "value": 1}, {"key": "b", "value": 2.5}]},
        {"key": "draft", "variants": two},
    ]
    for document in documents:
        assert api("POST", "/v1/experiments", json=base | document).status_code == 201, document
        if document["key"] != "draft":
            moved = api("POST", f"/v1/experiments/{document['key']}/status", json={"status": "running"})
            assert moved.status_code == 200
    return api


def ask(api: Api, flag: str | None, context: object, **headers: str) -> TestResponse:
    path = f"{FLAGS}/{flag}" if flag else FLAGS
    return api("POST", path, json={"context": context}, headers=headers)


def test_a_flag_is_the_same_answer_as_the_assignment(running: Api) -> None:
    for user in ("u1", "用户2", "🎉", "u4"):
        context = {"targetingKey": user, "tier": "gold"}
        for flag in ("copy", "tiers", "touches"):
            one = ask(running, flag, context).json
            asked = {"user": user, "attributes": {"tier": "gold"}, "experiments": [flag]}
            other = running("POST", "/v1/assignments", json=asked).json["assignments"][flag]
            assert one["key"] == flag
            assert one["variant"] == other["variant"]
            assert one["reason"] == "SPLIT"
            told = {"reason": "assigned", "phase": 1, "revision": other["revision"]}
            assert one["metadata"] == told | ({"stratum": "vip"} if flag == "tiers" else {})


def test_the_value_has_the_type_of_the_experiment(running: Api) -> None:
    values: dict[str, set[str]] = {"copy": set(), "tiers": set(), "touches": set()}
    for i in range(40):
        for flag in values:
            answer = ask(running, flag, {"targetingKey": f"u{i}", "tier": "gold"})
            values[flag].add(answer.data.partition(b'"value":')[2].decode())
    assert values["copy"] == {"{}}", '{"copy":"错过再等一年"}}'}
    assert values["tiers"] == {'"a"}', '"b"}'}
    # A client that asked for a float refuses 1.
    assert values["touches"] == {"1.0}", "2.5}"}


def test_who_is_not_enrolled_gets_no_value_and_why(running: Api) -> None:
    answer = ask(running, "tiers", {"targetingKey": "u1", "tier": "new"}).json
    told = {"reason": "no_stratum", "phase": 1, "revision": 2}
    assert answer == {"key": "tiers", "reason": "DEFAULT", "variant": "", "metadata": told}
    answer = ask(running, "draft", {"targetingKey": "u1"}).json
    assert (answer["reason"], answer["metadata"]["reason"]) == ("DISABLED", "not_running")
    assert "value" not in answer


def test_what_the_server_knows_is_merged_under_the_context(running: Api) -> None:
    told = {"type": "identify", "messageId": "m1", "userId": "u1", "traits": {"tier": "gold"}}
    assert running("POST", "/v1/events", json={"batch": [told]}).status_code == 202
    assert ask(running, "tiers", {"targetingKey": "u1"}).json["metadata"]["stratum"] == "vip"
    assert ask(running, "tiers", {"targetingKey": "u1", "tier": "new"}).json["reason"] == "DEFAULT"


def test_a_user_once_exposed_keeps_his_variant(running: Api) -> None:
    usual = ask(running, "tiers", {"targetingKey": "u1", "tier": "gold"}).json["variant"]
    other = "a" if usual == "b" else "b"
    exposure = {"type": "exposure", "messageId": "m1", "userId": "u1", "experiment": "tiers", "variant": other}
    assert running("POST", "/v1/events", json={"batch": [exposure | {"stratum": "vip"}]}).status_code == 202
    answer = ask(running, "tiers", {"targetingKey": "u1"}).json
    assert (answer["variant"], answer["value"], answer["reason"]) == (other, other, "SPLIT")
    assert answer["metadata"] == {"reason": "sticky", "phase": 1, "revision": 2, "stratum": "vip"}


def test_bulk_answers_all_that_run_as_one_by_one(running: Api) -> None:
    context = {"targetingKey": "u1", "tier": "gold"}
    answer = ask(running, None, context).json
    assert [flag["key"] for flag in answer["flags"]] == ["copy", "tiers", "touches"]
    assert answer["flags"] == [ask(running, flag["key"], context).json for flag in answer["flags"]]
    assert isinstance(answer["metadata"]["version"], int)
    (stream,) = answer["eventStreams"]
    assert stream["type"] == "sse"
    assert stream["endpoint"]["requestUri"].startswith("/ofrep/v1/stream?channel=")


def test_bulk_is_not_repeated_while_nothing_changed_for_this_user(running: Api) -> None:
    context = {"targetingKey": "u1", "tier": "gold"}
    first = ask(running, None, context)
    etag = first.headers["ETag"]
    again = ask(running, None, context, **{"If-None-Match": etag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
    assert ask(running, None, context, **{"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    # Another context, another user and another configuration are other answers.
    assert ask(running, None, context | {"tier": "new"}, **{"If-None-Match": etag}).status_code == 200
    assert ask(running, None, context | {"targetingKey": "u2"}, **{"If-None-Match": etag}).status_code == 200
    running("POST", "/v1/experiments/copy/status", json={"status": "paused"})
    changed = ask(running, None, context, **{"If-None-Match": etag})
    assert [flag["key"] for flag in changed.json["flags"]] == ["tiers", "touches"]
    assert changed.headers["ETag"] != etag


def test_bulk_changes_with_the_variant_on_record(running: Api) -> None:
    context = {"targetingKey": "u1", "tier": "gold"}
    first = ask(running, None, context)
    variant = next(flag["variant"] for flag in first.json["flags"] if flag["key"] == "tiers")
    other = "a" if variant == "b" else "b"
    exposure = {"type": "exposure", "messageId": "m1", "userId": "u1", "experiment": "tiers", "variant": other}
    running("POST", "/v1/events", json={"batch": [exposure | {"stratum": "vip"}]})
    assert ask(running, None, context, **{"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_evaluating_records_nothing(running: Api, store: Store) -> None:
    ask(running, None, {"targetingKey": "u1"})
    ask(running, "copy", {"targetingKey": "u1"})
    assert store.lookup.users(["u1"]) == {}


@pytest.mark.parametrize("flag", ["copy", None])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "TARGETING_KEY_MISSING"),
        (b'{"context": {}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": null}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": 7}}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "%b"}}' % (b"x" * 301), "INVALID_CONTEXT"),
        (b'{"context": []}', "INVALID_CONTEXT"),
        (b"[]", "INVALID_CONTEXT"),
        (b"", "PARSE_ERROR"),
        (b"{", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b'{"context": {"x": ' + b"[" * 5_000, "PARSE_ERROR"),
        (b'{"context": {"targetingKey": "u1", "x": NaN}}', "PARSE_ERROR"),
    ],
)
def test_a_request_that_cannot_be_evaluated_is_told_in_the_codes_of_openfeature(
    running: Api, flag: str | None, body: bytes, code: str
) -> None:
    path = f"{FLAGS}/{flag}" if flag else FLAGS
    answer = running("POST", path, data=body, content_type="application/json")
    assert (answer.status_code, answer.mimetype) == (400, "application/json")
    assert answer.json.keys() == ({"key", "errorCode", "errorDetails"} if flag else {"errorCode", "errorDetails"})
    assert answer.json["errorCode"] == code
    assert answer.json.get("key", flag) == flag


@pytest.mark.parametrize("flag", ["nowhere", "a%2Fb", "a/b", "%E7%9A%84", "%ff", "copy/"])
def test_a_flag_that_does_not_exist_is_not_found(running: Api, flag: str) -> None:
    answer = ask(running, flag, {"targetingKey": "u1"})
    assert (answer.status_code, answer.mimetype) == (404, "application/json")
    assert answer.json["errorCode"] == "FLAG_NOT_FOUND"
    assert answer.json["errorDetails"]


def test_keys_are_asked_for_as_everywhere(running: Api, client: FlaskClient, keys: dict[Scope, str]) -> None:
    for path in (FLAGS, f"{FLAGS}/copy"):
        body = {"context": {"targetingKey": "u1"}}
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.mimetype) == (401, "application/json")
        assert answer.json["errorCode"] == "GENERAL"
        assert client.post(path, data=b"{", content_type="application/json").status_code == 401
        assert client.post(path, json=body, headers={"X-API-Key": keys[Scope.assign]}).status_code == 200
        refused = client.post(path, json=body, headers={"X-API-Key": keys[Scope.read]})
        assert refused.status_code == 403
        assert "assign" in refused.json["errorDetails"]


def test_bodies_may_be_compressed_and_are_bounded(running: Api) -> None:
    body = json.dumps({"context": {"targetingKey": "u1"}}).encode()
    packed = gzip.compress(body)
    sent = {"content_type": "application/json; charset=utf-8", "headers": {"Content-Encoding": "gzip"}}
    assert running("POST", f"{FLAGS}/copy", data=packed, **sent).status_code == 200
    running.client.application.config["MAX_CONTENT_LENGTH"] = 10
    refused = running("POST", f"{FLAGS}/copy", data=body, content_type="application/json")
    assert (refused.status_code, refused.json["errorCode"]) == (400, "PARSE_ERROR")


def test_the_configuration_says_what_there_is(api: Api) -> None:
    answer = api("GET", "/ofrep/v1/configuration")
    assert answer.json["name"] == "Upturn"
    assert set(answer.json["capabilities"]["flagEvaluation"]["supportedTypes"]) == {
        *("int", "float", "string", "boolean", "object")
    }
    again = api("GET", "/ofrep/v1/configuration", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_a_fault_of_ours_is_an_answer_too(
    running: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr("experiments.lookup.Lookup.admit", broken)
    answer = ask(running, "copy", {"targetingKey": "u1"})
    assert (answer.status_code, answer.mimetype) == (500, "application/json")
    assert answer.json.keys() == {"errorCode", "errorDetails"}
    assert b"inside" not in answer.data
    assert "the inside" in caplog.text


def test_other_addresses_of_ofrep_are_answered_in_json(api: Api) -> None:
    assert api("GET", "/ofrep/v1/nowhere").mimetype == "application/problem+json"
    refused = api("GET", FLAGS)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST, OPTIONS")
