"""Events over HTTP."""

import gzip
import json
from typing import Any

import pytest
from flask import Flask

from experiments.access import Scope
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api


@pytest.fixture
def api(client, keys) -> Api:  # type: ignore[no-untyped-def]
    return Api(client, keys[Scope.ingest])


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "event", "messageId": f"m{number}", "userId": "u1", "event": "purchase", "value": 3.5} | fields


def stored(store: Store) -> int:
    with store.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM inbox").scalar_one())


def test_what_was_answered_as_accepted_is_committed(api: Api, store: Store) -> None:
    answer = api("POST", "/v1/events", json={"batch": [event(1), event(2)]})
    assert (answer.status_code, answer.json) == (202, {"accepted": 2, "duplicates": 0, "rejected": []})
    assert stored(store) == 2


def test_a_retry_is_harmless(api: Api, store: Store) -> None:
    api("POST", "/v1/events", json={"batch": [event(1)]})
    answer = api("POST", "/v1/events", json={"batch": [event(1), event(2)]})
    assert answer.json == {"accepted": 1, "duplicates": 1, "rejected": []}
    again = api("POST", "/v1/events", json={"batch": [event(1), event(2)]})
    assert (again.status_code, again.json["duplicates"], stored(store)) == (202, 2, 2)


def test_good_items_are_kept_and_bad_ones_told_by_index_and_code(api: Api, store: Store) -> None:
    batch = [event(1), {"type": "event"}, event(3, value="much"), event(4, timestamp="2099-01-01T00:00:00Z")]
    answer = api("POST", "/v1/events", json={"batch": batch})
    assert (answer.status_code, answer.json["accepted"], stored(store)) == (202, 1, 1)
    assert [(r["index"], r["code"]) for r in answer.json["rejected"]] == [
        (1, "invalid_item"),
        (2, "invalid_item"),
        (3, "time_in_future"),
    ]


def test_a_batch_with_nothing_good_is_a_problem_with_the_same_list(api: Api, store: Store) -> None:
    answer = api("POST", "/v1/events", json={"batch": [event(1, value=1e300)]})
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
    assert answer.json["code"] == "all_rejected"
    assert [(r["index"], r["code"]) for r in answer.json["rejected"]] == [(0, "value_out_of_range")]
    assert stored(store) == 0


def test_duplicates_alone_are_no_problem_even_beside_a_bad_item(api: Api) -> None:
    api("POST", "/v1/events", json={"batch": [event(1)]})
    answer = api("POST", "/v1/events", json={"batch": [event(1), {}]})
    assert (answer.status_code, answer.json["duplicates"], len(answer.json["rejected"])) == (202, 1, 1)


def test_an_empty_batch_is_accepted(api: Api) -> None:
    assert api("POST", "/v1/events", json={"batch": []}).status_code == 202


def zipped(body: object) -> bytes:
    return gzip.compress(json.dumps(body).encode())


def test_gzip_is_taken_also_in_several_members(api: Api, store: Store) -> None:
    text = json.dumps({"batch": [event(1), event(2)]}).encode()
    body = gzip.compress(text[:40]) + gzip.compress(text[40:])
    answer = api("POST", "/v1/events", data=body, headers={"Content-Encoding": "gzip"}, content_type="application/json")
    assert (answer.status_code, answer.json["accepted"], stored(store)) == (202, 2, 2)


@pytest.mark.parametrize(
    ("body", "encoding", "media", "status", "code"),
    [
        (b"not gzip", "gzip", "application/json", 400, "broken_gzip"),
        (zipped({"batch": []})[:-9], "gzip", "application/json", 400, "broken_gzip"),
        (zipped({"batch": []}), "br", "application/json", 415, "unsupported_media_type"),
        (b'{"batch": []}', "identity", "text/plain", 415, "unsupported_media_type"),
        (b"{", "identity", "application/json", 400, "malformed_json"),
        (b"", "identity", "application/json", 400, "malformed_json"),
        (b'{"batch": [NaN]}', "identity", "application/json", 400, "malformed_json"),
        (b'{"batch": "\xff"}', "identity", "application/json", 400, "malformed_json"),
        (b'{"events": []}', "identity", "application/json", 422, "invalid_document"),
        pytest.param(b"[" * 100_000, "identity", "application/json", 400, None, id="deep"),
        pytest.param(
            b'{"batch": [{"type": "event", "x": ' + b"[" * 100_000,
            *("identity", "application/json", 400, None),
            id="deep in an item",
        ),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(
    api: Api, body: bytes, encoding: str, media: str, status: int, code: str | None
) -> None:
    answer = api("POST", "/v1/events", data=body, headers={"Content-Encoding": encoding}, content_type=media)
    assert answer.status_code == status, answer.json
    assert answer.mimetype == "application/problem+json"
    assert code is None or answer.json["code"] == code


def test_both_sizes_are_limited(app: Flask, api: Api) -> None:
    app.config.update(MAX_CONTENT_LENGTH=2_000, MAX_INFLATED=5_000)

    def send(body: bytes, encoding: str) -> tuple[int, str]:
        headers = {"Content-Encoding": encoding}
        answer = api("POST", "/v1/events", data=body, headers=headers, content_type="application/json")
        return answer.status_code, answer.json.get("code")

    padding = {"batch": [event(1, properties={"x": "y" * 4_000})]}
    assert send(json.dumps(padding).encode(), "identity") == (413, "too_large")
    assert send(zipped(padding), "gzip") == (202, None)
    bomb = gzip.compress(b'{"batch": []' + b" " * 1_000_000)
    assert len(bomb) < 2_000
    assert send(bomb, "gzip") == (413, "too_large")


def test_exposures_of_a_started_experiment_are_taken(api: Api, store: Store) -> None:
    made.documents(store)
    item = {
        "type": "exposure",
        "messageId": "x",
        "userId": "u",
        "experiment": made.KEY,
        "variant": "ten",
        "stratum": "new",
    }
    assert api("POST", "/v1/events", json={"batch": [item]}).json["accepted"] == 1
