"""Segment's calls over HTTP: write keys, beacons, and what becomes of good and bad ones."""

import base64
import gzip
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from experiments import access
from experiments.access import Scope
from experiments.store import Store
from experiments.tables import Identity, InboxRow
from tests.web import made
from tests.web.conftest import Api

TRACK = {"messageId": "m1", "userId": "u1", "event": "Order Completed", "properties": {"revenue": 25.5}}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def rows(store: Store) -> list[tuple[Any, ...]]:
    with store.read() as session:
        columns = (InboxRow.message_id, InboxRow.kind, InboxRow.user_id, InboxRow.name, InboxRow.value_micros)
        return [tuple(row) for row in session.execute(select(*columns).order_by(InboxRow.seq))]


def test_a_call_is_stored_once(client: FlaskClient, keys: dict[Scope, str], store: Store) -> None:
    for accepted in (1, 0):
        answer = client.post("/v1/track", json=TRACK, headers=basic(keys[Scope.ingest]))
        assert (answer.status_code, answer.json) == (
            200,
            {"success": True, "accepted": accepted, "duplicates": 1 - accepted, "rejected": [], "noted": []},
        )
    assert rows(store) == [("m1", "event", "u1", "Order Completed", 25_500_000)]


@pytest.mark.parametrize("where", ["bearer", "header", "body", "beacon"])
def test_the_write_key_may_be_sent_in_each_way(client: FlaskClient, keys: dict[Scope, str], where: str) -> None:
    key = keys[Scope.ingest]
    headers = {"bearer": {"Authorization": f"Bearer {key}"}, "header": {"X-API-Key": key}}.get(where, {})
    body = TRACK | ({"writeKey": key} if where in ("body", "beacon") else {})
    media = "text/plain;charset=UTF-8" if where == "beacon" else "application/json"
    assert client.post("/v1/track", data=json.dumps(body), content_type=media, headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{}, basic("x"), {"Authorization": "Basic !"}, {"Authorization": "Basic /w=="}])
@pytest.mark.parametrize("extra", [{}, {"writeKey": "x"}])
def test_without_a_key_nothing_is_taken(
    client: FlaskClient, store: Store, headers: dict[str, str], extra: dict[str, str]
) -> None:
    answer = client.post("/v1/track", json=TRACK | extra, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (401, "unauthorized")
    assert rows(store) == []


def test_a_key_of_another_scope_is_refused(client: FlaskClient, keys: dict[Scope, str]) -> None:
    answer = client.post("/v1/track", json=TRACK, headers=basic(keys[Scope.assign]))
    assert (answer.status_code, answer.json["code"]) == (403, "scope_missing")


def test_a_batch_keeps_what_is_good(api: Api, store: Store) -> None:
    batch = [
        {"type": "track", **TRACK},
        {"type": "track", "messageId": "m2", "event": "x"},
        {"type": "identify", "messageId": "m3", "userId": "u1", "anonymousId": "a1", "traits": {"tier": "gold"}},
        {"type": "track", "messageId": "m4", "userId": "u1", "event": "y", "properties": {"revenue": "many"}},
    ]
    body = gzip.compress(json.dumps({"batch": batch, "sentAt": "2026-03-02T08:30:00Z"}).encode())
    sent = {"content_type": "application/json", "headers": {"Content-Encoding": "gzip"}}
    answer = api("POST", "/v1/batch", data=body, **sent)
    assert answer.status_code == 200
    assert [(item["index"], item["code"]) for item in answer.json["rejected"]] == [(1, "invalid_item")]
    assert [(item["index"], item["code"]) for item in answer.json["noted"]] == [(3, "unreadable_value")]
    assert {row[0] for row in rows(store)} >= {"m1", "m3", "m4"}
    with store.read() as session:
        assert session.scalar(select(Identity.user_id).where(Identity.other_id == "a1")) == "u1"


def test_an_experiment_viewed_is_an_exposure(api: Api, store: Store) -> None:
    made.documents(store)
    viewed = {"experiment_id": made.KEY, "variation_id": "none"}
    call = {"messageId": "m1", "userId": "u1", "event": "Experiment Viewed", "properties": viewed}
    told = {"messageId": "m0", "userId": "u1", "traits": {"orders": 1}}
    assert api("POST", "/v1/identify", json=told).status_code == 200
    assert api("POST", "/v1/track", json=call).status_code == 200
    assert rows(store)[-1][:4] == ("m1", "exposure", "u1", made.KEY)
    unknown = call | {"messageId": "m2", "properties": viewed | {"experiment_id": "no"}}
    refused = api("POST", "/v1/track", json=unknown)
    assert (refused.status_code, refused.json["rejected"][0]["code"]) == (422, "unknown_experiment")


@pytest.mark.parametrize("kind", ["batch", "track", "identify", "page", "screen", "group", "alias"])
def test_what_cannot_be_read_is_a_problem(api: Api, kind: str) -> None:
    answer = api("POST", f"/v1/{kind}", data=b"{", content_type="application/json")
    assert answer.status_code in (400, 422)
    assert answer.mimetype == "application/problem+json"
    assert api("POST", f"/v1/{kind}", data=b"{}", content_type="text/html").status_code == 415


def test_pages_send_beacons_with_a_key_of_their_own(client: FlaskClient, store: Store) -> None:
    with store.write() as session:
        key = access.create_key(session, "page", ["ingest"], origins=["https://shop.example"], now=made.NOW)
    sent = {"data": json.dumps({"batch": [{"type": "track", **TRACK}], "writeKey": key}), "content_type": "text/plain"}
    answer = client.post("/v1/batch", headers={"Origin": "https://shop.example"}, **sent)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert client.post("/v1/batch", headers={"Origin": "https://evil.example"}, **sent).status_code == 403
