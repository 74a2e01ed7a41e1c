"""The layer before Flask: who may call from which page, and that streams end where they should."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from experiments import access, registry
from experiments.documents import Kind
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api
from web import streams
from web.streams import Streams
from web.thin import Route, Routes

SHOP = "https://shop.example"
FLAGS = "/ofrep/v1/evaluate/flags"
CONTEXT = {"context": {"targetingKey": "u1"}}


@pytest.fixture
def page_key(store: Store) -> str:
    with store.write() as session:
        return access.create_key(session, "page", ["assign", "ingest"], origins=[SHOP], now=made.NOW)


def from_page(client: FlaskClient, path: str, key: str, origin: str = SHOP, **arguments: Any) -> Any:
    headers = {"Origin": origin, "Authorization": f"Bearer {key}"}
    return client.open(path, headers=headers, **arguments)


def test_a_page_calls_with_a_key_for_its_origin(client: FlaskClient, page_key: str) -> None:
    answer = from_page(client, FLAGS, page_key, method="POST", json=CONTEXT)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_the_key_is_for_no_other_page(client: FlaskClient, page_key: str) -> None:
    answer = from_page(client, FLAGS, page_key, "https://evil.example", method="POST", json=CONTEXT)
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "https://evil.example" in answer.json["errorDetails"]
    refused = from_page(client, "/v1/assignments", page_key, "https://evil.example", method="POST", json={"user": "u"})
    assert refused.json["code"] == "origin_not_allowed"


def test_a_page_of_this_very_host_and_programs_need_no_origin(client: FlaskClient, page_key: str) -> None:
    assert from_page(client, FLAGS, page_key, "http://localhost", method="POST", json=CONTEXT).status_code == 200
    headers = {"Authorization": f"Bearer {page_key}"}
    answer = client.post(FLAGS, json=CONTEXT, headers=headers)
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Vary" not in answer.headers


def test_a_page_with_a_wrong_key_is_told_so(client: FlaskClient, page_key: str) -> None:
    answer = from_page(client, FLAGS, page_key + "x", method="POST", json=CONTEXT)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (401, SHOP)
    other = from_page(client, FLAGS, page_key + "x", "https://evil.example", method="POST", json=CONTEXT)
    assert "Access-Control-Allow-Origin" not in other.headers


def test_a_key_for_servers_gives_pages_nothing(api: Api) -> None:
    answer = api("POST", FLAGS, json=CONTEXT, headers={"Origin": SHOP})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_key_for_any_page(client: FlaskClient, store: Store) -> None:
    with store.write() as session:
        key = access.create_key(session, "any", ["assign"], origins=["*"], now=made.NOW)
    answer = from_page(client, FLAGS, key, "https://anywhere.example", method="POST", json=CONTEXT)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://anywhere.example"


@pytest.mark.parametrize("path", [FLAGS, f"{FLAGS}/x", "/v1/events", "/v1/assignments", "/v1/batch"])
def test_browsers_ask_before_they_call(client: FlaskClient, page_key: str, store: Store, path: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    answer = client.options(path, headers={"Origin": SHOP, **asked})
    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers.getlist("Access-Control-Allow-Origin") == [SHOP]
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    other = client.options(path, headers={"Origin": "https://evil.example", **asked})
    assert "Access-Control-Allow-Origin" not in other.headers
    with store.write() as session:
        access.revoke_key(session, "page", now=made.NOW)
    assert "Access-Control-Allow-Origin" not in client.options(path, headers={"Origin": SHOP, **asked}).headers


def test_the_pages_and_the_management_are_for_no_other_origin(client: FlaskClient, page_key: str) -> None:
    for path in ("/v1/metrics", "/login", "/openapi.json"):
        assert "Access-Control-Allow-Origin" not in from_page(client, path, page_key).headers


def test_addresses_are_found_exactly_or_by_their_start() -> None:
    routes, route = Routes(), Route(lambda call: None)  # type: ignore[arg-type, return-value]
    routes.add("POST", "/flags", route)
    routes.add("POST", "/flags/*", route)
    assert routes.find("/flags") == ({"POST": route}, "")
    assert routes.find("/flags/a/b") == ({"POST": route}, "a/b")
    assert routes.find("/flag") is None


# Streams.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.2)
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.02)


def lines(body: Iterator[bytes], count: int) -> list[bytes]:
    return [next(body) for _ in range(count)]


@pytest.mark.usefixtures("quick")
def test_a_stream_tells_of_each_change_at_once(app: Flask, api: Api, store: Store) -> None:
    answer = api("GET", "/v1/stream", buffered=False)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    body = iter(answer.response)
    begun = store.lookup.version()
    assert lines(body, 2) == [b"retry: 5000\nid: %d\n\n" % begun, b": still here\n\n"]
    with store.write() as session:
        registry.create(session, Kind.metric, made.METRIC, actor="x", now=made.NOW)
    version = store.lookup.version()
    expected = b'id: %d\ndata: {"type":"refetchEvaluation","etag":"\\"%d\\""}\n\n' % (version, version)
    assert expected in lines(body, 3)
    answer.close()
    assert app.extensions["upturn"].streams._open == 0


@pytest.mark.usefixtures("quick")
def test_growthbook_streams_carry_the_payload(api: Api, client: FlaskClient, store: Store) -> None:
    answer = client.get(f"/sub/{api.secret}", buffered=False)
    body = iter(answer.response)
    next(body)
    made.documents(store)
    told = next(line for line in lines(body, 4) if b"\nevent: features\ndata: {" in line)
    assert b'"features"' in told
    answer.close()


@pytest.mark.usefixtures("quick")
def test_what_changed_before_the_stream_opened_is_told_at_once(api: Api, store: Store) -> None:
    with store.write() as session:
        registry.create(session, Kind.metric, made.METRIC, actor="x", now=made.NOW)
    version = store.lookup.version()

    def is_told(path: str, last: str | None = None) -> bool:
        headers = {} if last is None else {"Last-Event-ID": last}
        answer = api("GET", path, buffered=False, headers=headers)
        first, second = lines(iter(answer.response), 2)
        answer.close()
        assert first.startswith(b"retry: 5000\nid: ")
        assert second.startswith(b"id: %d\n" % version) or second == b": still here\n\n"
        return second.startswith(b"id")

    assert is_told("/v1/stream", f"{version - 1}")
    assert is_told(f"/v1/stream?since={version - 1}")
    assert is_told(f"/v1/stream?since={version}", f"{version - 1}")
    for last in (None, "", "x", "9" * 5000, f"{version}"):
        assert not is_told(f"/v1/stream?since={version}", last)
    assert not is_told("/v1/stream")
    # GrowthBook's clients have no address that says what they know.
    assert is_told(f"/sub/{api.secret}")
    assert not is_told(f"/sub/{api.secret}", f"{version}")


def test_streams_are_bounded_and_make_room_when_they_end(app: Flask, api: Api) -> None:
    app.extensions["upturn"].streams._most = 2
    open_now = [api("GET", "/v1/stream", buffered=False) for _ in range(2)]
    full = api("GET", "/v1/stream")
    assert (full.status_code, full.json["code"], full.headers["Retry-After"]) == (503, "streams_taken", "60")
    # Calls are answered meanwhile.
    assert api("POST", FLAGS, json=CONTEXT).status_code == 200
    open_now[0].close()
    assert api("GET", "/v1/stream", buffered=False).status_code == 200
    open_now[1].close()


def test_the_channel_names_a_key_and_opens_nothing_else(api: Api, client: FlaskClient) -> None:
    (stream,) = api("POST", FLAGS, json=CONTEXT).json["eventStreams"]
    address = stream["endpoint"]["requestUri"]
    opened = client.get(address, buffered=False)
    assert opened.status_code == 200
    opened.close()
    channel = parse_qs(urlsplit(address).query)["channel"][0]
    assert client.post(FLAGS, json=CONTEXT, headers={"X-API-Key": channel}).status_code == 401
    assert client.get("/ofrep/v1/stream?channel=x").status_code == 401
    assert client.get("/ofrep/v1/stream").status_code == 401


@pytest.mark.usefixtures("quick")
def test_a_stream_ends_after_its_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LIFETIME", 0.0)
    held = Streams(lambda: 1, 5)
    body = held.open(lambda version: b"x")
    assert body is not None
    assert list(body) == [b"retry: 5000\nid: 1\n\n"]
    assert held._open == 0


@pytest.mark.usefixtures("quick")
def test_the_watcher_survives_a_record_that_is_away_and_rests_without_streams() -> None:
    answers: list[int | Exception] = [1, ConnectionError("away"), ConnectionError("away")]

    def version() -> int:
        found = answers.pop(0) if answers else 2
        if isinstance(found, Exception):
            raise found
        return found

    held = Streams(version, 5)
    body = held.open(lambda version: b"version %d" % version)
    assert body is not None
    assert b"id: 2\nversion 2" in lines(body, 4)
    body.close()  # type: ignore[attr-defined]
    ends = time.monotonic() + 5
    while any(thread.name == "upturn-streams" for thread in threading.enumerate()) and time.monotonic() < ends:
        time.sleep(0.01)
    assert not held._watching


def test_without_streams_none_are_offered(api: Api, app: Flask) -> None:
    app.extensions["upturn"].streams._most = 0
    assert "eventStreams" not in api("POST", FLAGS, json=CONTEXT).json
    assert "Link" not in api("GET", "/v1/snapshot").headers
    assert "X-SSE-Support" not in api("GET", f"/api/features/{api.secret}").headers
