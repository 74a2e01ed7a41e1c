"""The list of experiments, and the language of the pages."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from experiments import access, registry
from experiments.documents import Kind
from experiments.store import Store
from tests.web import made
from tests.web.browser import Browser
from tests.web.pages.test_results import visible
from web.pages.overview import BAR_WIDTH


def test_an_empty_store_says_what_to_do_next(client: FlaskClient) -> None:
    seen = visible(Browser(client, logged_in=True).get("/").text)
    assert "No experiments yet" in seen
    assert "POST /v1/experiments" in seen


def test_without_any_account_the_login_says_how_to_make_one(client: FlaskClient, store: Store) -> None:
    hint = "upturn user add"
    assert hint not in client.get("/login").text
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM accounts")
    assert hint in client.get("/login").text


@pytest.mark.parametrize("name", made.each_verdict())
def test_a_line_tells_status_advice_effect_and_users(app: Flask, store: Store, name: str) -> None:
    made.documents(store)
    with store.write() as session:
        registry.create(session, Kind.experiment, made.PLAIN, actor="x", now=made.NOW)
    shown = made.each_verdict()[name]
    made.save(store, shown)
    text = Browser(app.test_client(), logged_in=True).get("/").text
    seen = visible(text)
    assert seen.index("Recall coupon Running") < seen.index("Plain Draft No report yet")
    assert "60,000" in seen
    assert ("+7.66 pp" in seen) == (name != "invalid")
    bars = re.findall(r'<line class="range" x1="([\d.]+)" x2="([\d.]+)"', text)
    assert len(bars) == (name != "invalid")
    assert all(0 <= float(a) < float(b) <= BAR_WIDTH for a, b in bars)


@pytest.mark.parametrize(
    ("asked", "lang"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-Hans-CN"),
        ("en-GB", "en"),
        ("fr,zh-TW;q=0.5", "zh-Hans-CN"),
        ("fr", "en"),
        ("", "en"),
    ],
)
def test_the_browser_decides_the_language_at_first(client: FlaskClient, asked: str, lang: str) -> None:
    assert f'<html lang="{lang}">' in client.get("/login", headers={"Accept-Language": asked}).text


def test_a_chosen_language_stays_also_after_log_in_and_out(client: FlaskClient) -> None:
    browser = Browser(client, language="en")
    browser.get("/login")
    answer = browser.post("/language", {"language": "zh", "next": "/login"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    browser.log_in()
    assert "还没有实验" in browser.get("/").text
    browser.post("/logout")
    assert '<html lang="zh-Hans-CN">' in browser.get("/login").text
    assert browser.post("/language", {"language": "fr"}).status_code == 400


def test_the_login_does_not_tell_which_half_was_wrong(client: FlaskClient, store: Store) -> None:
    with store.write() as session:
        access.create_account(session, "li", "another long one", now=made.NOW)
    answers = [visible(Browser(client).log_in(login, "wrong password").text) for login in ("li", "nobody")]
    assert answers[0] == answers[1]
    assert "Login or password is wrong." in answers[0]
