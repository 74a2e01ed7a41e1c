"""Headers, sessions, forgery, and the guessing of passwords."""

import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from experiments.store import Store
from experiments.tables import Account
from tests.web import made
from tests.web.browser import Browser
from tests.web.conftest import Clock
from web.attempts import FREE_TRIES, LONGEST_WAIT, Attempts


@pytest.mark.parametrize("path", ["/login", "/", "/v1/metrics", "/nowhere", "/static/style.css", "/openapi.json"])
def test_every_answer_forbids_what_pages_do_not_need(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        headers = answer.headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "Cache-Control" in headers


def test_pages_have_no_inline_scripts_or_styles(app: Flask, store: Store) -> None:
    made.documents(store)
    made.save(store, made.full_report())
    page = Browser(app.test_client(), logged_in=True).get(f"/experiments/{made.KEY}").text
    for script in re.findall(r"<script[^>]*>", page):
        assert "src=" in script or 'type="application/json"' in script
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


def test_names_cannot_break_out_of_the_page_or_its_data(app: Flask, store: Store) -> None:
    evil = "</script><script>alert(1)</script>"
    made.documents(store)
    report = made.full_report(name=evil)
    arms = [type(arm)(arm.variant, evil, arm.assigned, arm.exposed, arm.matured) for arm in report.arms]
    made.save(store, made.full_report(name=evil, arms=arms))
    page = Browser(app.test_client(), logged_in=True).get(f"/experiments/{made.KEY}").text
    assert "alert(1)" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize("path", ["/", f"/experiments/{made.KEY}", f"/experiments/{made.KEY}.csv"])
def test_strangers_are_sent_to_the_login_and_back(client: FlaskClient, store: Store, path: str) -> None:
    made.documents(store)
    made.save(store, made.full_report())
    sent = client.get(path)
    assert (sent.status_code, sent.headers["Location"].split("?")[0]) == (302, "/login")
    browser = Browser(client)
    answer = browser.log_in(next=path)
    assert (answer.status_code, answer.headers["Location"]) == (303, path)
    assert browser.get(path).status_code == 200


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x", ""])
def test_the_login_leads_to_no_other_server(client: FlaskClient, target: str) -> None:
    assert Browser(client).log_in(next=target).headers["Location"] == "/"


def test_the_session_cookie_is_kept_from_scripts_and_from_plain_http(app: Flask) -> None:
    def cookie(**arguments: Any) -> str:
        return app.test_client().get("/login", **arguments).headers["Set-Cookie"]

    assert {"HttpOnly", "SameSite=Lax"} <= set(cookie().split("; "))
    assert "Secure" not in cookie()
    assert "Secure" in cookie(base_url="https://localhost")
    assert "Secure" in cookie(headers={"X-Forwarded-Proto": "https"})


def test_logging_out_ends_the_session(client: FlaskClient) -> None:
    browser = Browser(client, logged_in=True)
    assert browser.get("/").status_code == 200
    assert browser.post("/logout").status_code == 303
    assert browser.get("/").status_code == 302


def test_a_session_ends_with_its_account(client: FlaskClient, store: Store) -> None:
    browser = Browser(client, logged_in=True)
    with store.write() as session:
        session.query(Account).delete()
    assert browser.get("/").status_code == 302


@pytest.mark.parametrize(
    "path",
    ["/login", "/logout", "/language", *(f"/experiments/{made.KEY}/{x}" for x in ("status", "report", "decision"))],
)
def test_forms_of_other_sites_are_refused(client: FlaskClient, path: str) -> None:
    browser = Browser(client, logged_in=True)
    for token in (None, "forged"):
        answer = browser.client.post(path, data={"csrf_token": token} if token else {})
        assert answer.status_code == 400
        assert "<html" in answer.text


def test_the_api_takes_keys_only_never_a_persons_session(client: FlaskClient) -> None:
    assert Browser(client, logged_in=True).get("/v1/metrics").status_code == 401


def wrong(browser: Browser) -> TestResponse:
    return browser.log_in(password="guess")


def test_guessing_is_slowed_down_and_forgiven_after_success(client: FlaskClient, clock: Clock) -> None:
    browser = Browser(client)
    assert {wrong(browser).status_code for _ in range(FREE_TRIES)} == {401}
    assert browser.log_in().status_code == 429
    clock.forward(seconds=0.9)
    assert browser.log_in().status_code == 429
    clock.forward(seconds=0.2)
    assert wrong(browser).status_code == 401
    clock.forward(seconds=1.5)
    assert browser.log_in().status_code == 429
    clock.forward(seconds=1)
    assert browser.log_in().status_code == 303
    browser.post("/logout")
    assert wrong(browser).status_code == 401


def test_the_wait_doubles_up_to_a_quarter_of_an_hour_and_is_ones_own() -> None:
    attempts, now = Attempts(), made.NOW
    waits = []
    for _ in range(30):
        attempts.failed("wang", "here", now)
        waits.append(attempts.wait("wang", "here", now))
    assert waits[: FREE_TRIES - 1] == [timedelta(0)] * (FREE_TRIES - 1)
    assert waits[FREE_TRIES - 1 : FREE_TRIES + 2] == [timedelta(seconds=s) for s in (1, 2, 4)]
    assert waits[-1] == LONGEST_WAIT
    assert attempts.wait("wang", "elsewhere", now) == attempts.wait("li", "here", now) == timedelta(0)


def test_what_is_remembered_of_guesses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.attempts._REMEMBERED", 10)
    attempts = Attempts()
    for i in range(100):
        attempts.failed(f"login{i}", "here", made.NOW)
    assert len(attempts._failures) == 10
