"""Every failing path of the API answers with a problem of one shape, and only as much as the key may see."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from experiments import access
from experiments.access import Scope
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api
from web import api as api_package
from web.api.operations import Operation

OPERATIONS = api_package.operations().listed


def address(operation: Operation, **parts: str) -> str:
    values = {"key": "nowhere", "report": "nowhere", "study": "nowhere", "list_id": "nowhere", "revision": "1"} | parts
    return "/v1" + re.sub(r"\{(\w+)\}", lambda match: values[match[1]], operation.path)


def by_name(operation: Operation) -> str:
    return operation.name


def assert_problem(answer: TestResponse, status: int, code: str | None = None) -> None:
    assert answer.status_code == status, answer.data
    assert answer.mimetype == "application/problem+json"
    body = answer.json
    assert {"type", "title", "status", "detail", "code", "errors"} <= body.keys()
    assert body["status"] == status
    assert body["type"] == f"/problems/{body['code']}"
    assert body["title"]
    assert body["detail"]
    assert all(error.keys() == {"field", "value", "problem", "remedy"} for error in body["errors"])
    assert code is None or body["code"] == code


@pytest.mark.parametrize("operation", OPERATIONS, ids=by_name)
def test_without_a_key_nothing_is_answered(client: FlaskClient, operation: Operation) -> None:
    for headers in ({}, {"Authorization": "Bearer upk_wrong"}, {"Authorization": "Basic eDp5"}, {"X-API-Key": "x"}):
        answer = client.open(address(operation), method=operation.method, headers=headers)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("operation", "scope"), list(itertools.product(OPERATIONS, Scope)))
def test_a_key_does_what_its_scopes_say_and_no_more(
    client: FlaskClient, keys: dict[Scope, str], operation: Operation, scope: Scope
) -> None:
    answer = Api(client, keys[scope])(operation.method, address(operation))
    if scope in (operation.scope, Scope.admin):
        assert answer.status_code not in (401, 403, 500)
    else:
        assert_problem(answer, 403, "scope_missing")
        assert operation.scope.value in answer.json["detail"]


def test_scopes_are_as_documented() -> None:
    posts = [operation for operation in OPERATIONS if operation.method in ("PUT", "POST")]
    assert {operation.scope for operation in posts} == set(Scope)
    # A question too long for an address; it changes nothing.
    assert [operation.path for operation in posts if operation.scope is Scope.read] == ["/plan"]
    assert {operation.scope for operation in OPERATIONS if operation.method == "GET"} == {Scope.read, Scope.assign}


def test_a_key_goes_in_either_header(client: FlaskClient, keys: dict[Scope, str]) -> None:
    assert client.get("/v1/metrics", headers={"X-API-Key": keys[Scope.read]}).status_code == 200
    assert client.get("/v1/metrics", headers={"Authorization": f"bearer {keys[Scope.read]}"}).status_code == 200


def test_a_revoked_key_is_refused_at_once(api: Api, store: Store) -> None:
    assert api("GET", "/v1/metrics").status_code == 200
    with store.write() as session:
        access.revoke_key(session, "admin key", now=made.NOW)
    assert_problem(api("GET", "/v1/metrics"), 401)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if "{" in o.path], ids=by_name)
def test_what_does_not_exist_is_not_found(api: Api, operation: Operation) -> None:
    bodies: dict[str, Any] = {
        "move_experiment": {"status": "running"},
        "replace_experiment": made.PLAIN,
        "replace_metric": made.METRIC,
        "replace_segment": made.SEGMENTS[0],
        "replace_layer": {"key": "l", "name": "L"},
        "replace_holdout": {"key": "h", "name": "H", "share": 0.1},
        "replace_policy": made.POLICY,
        "move_policy": {"status": "running"},
        "roll_back_policy": {"to": "control"},
        "study_uplift": {},
        "make_list": {},
    }
    arguments = {"json": bodies[operation.name]} if operation.body is not None else {}
    assert_problem(api(operation.method, address(operation), **arguments), 404, "not_found")


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.body is not None], ids=by_name)
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"data": b"{", "content_type": "application/json"}, 400),
        ({"data": b"\xff", "content_type": "application/json"}, 400),
        ({"data": b"", "content_type": "application/json"}, 400),
        ({"data": b"{}"}, 415),
        ({"data": b"{}", "content_type": "text/html"}, 415),
        ({"data": b"{}", "content_type": "application/json", "headers": {"Content-Encoding": "zstd"}}, 415),
    ],
)
def test_an_unreadable_body_is_a_problem(
    api: Api, operation: Operation, arguments: dict[str, Any], status: int
) -> None:
    if not operation.body_required and arguments["data"] == b"":
        return  # it takes none as well
    assert_problem(api(operation.method, address(operation), **arguments), status)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.body is not None], ids=by_name)
def test_a_body_that_is_too_large_is_a_problem(app: Flask, api: Api, operation: Operation) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 10
    assert_problem(api(operation.method, address(operation), json={"x": "y" * 100}), 413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/v1//metrics", 404),
        ("GET", "/v1/metrics/", 404),
        ("GET", "/v1/metrics/%00", 404),
        ("GET", "/v1/metrics/%ff%fe", 404),
        ("DELETE", "/v1/metrics", 405),
        ("PATCH", "/v1/experiments/x", 405),
        ("GET", "/v1/events", 405),
        ("POST", "/openapi.json", 405),
        ("POST", "/healthz", 405),
    ],
)
def test_addresses_and_methods_that_are_none_are_problems(api: Api, method: str, path: str, status: int) -> None:
    answer = api(method, path)
    assert_problem(answer, status)
    assert status != 405 or "GET" in answer.headers["Allow"] or "POST" in answer.headers["Allow"]


def test_a_fault_of_ours_tells_nothing_of_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr("experiments.registry.all_of", broken)
    answer = api("GET", "/v1/metrics")
    assert_problem(answer, 500, "internal_error")
    assert b"inside" not in answer.data
    assert "the inside" in caplog.text


def test_health_is_a_read_of_the_store(client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    with store.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA user_version")
    store.engine.dispose()
    Path(str(store.engine.url.database)).unlink()
    Path(str(store.engine.url.database)).mkdir()
    assert_problem(client.get("/healthz"), 503, "store_unavailable")
