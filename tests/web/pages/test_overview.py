"""The list of experiments, and the language of the pages."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from experiments import access, registry
from experiments.documents import Kind
from experiments.store import Store
from tests.web import made, many
from tests.web.browser import Browser
from tests.web.pages.test_results import visible
from web.pages.overview import BAR_WIDTH


def test_an_empty_store_says_what_to_do_next(client: FlaskClient) -> None:
    text = Browser(client, logged_in=True).get("/").text
    seen = visible(text)
    assert "No experiments yet" in seen
    assert "POST /v1/experiments" in text
    assert 'href="/experiments/new"' in text
    assert "Make the first experiment" in seen


def test_without_any_account_the_login_says_how_to_make_one(client: FlaskClient, store: Store) -> None:
    hint = "upturn user create"
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
    assert seen.index("Recall coupon Running") < seen.index("Plain Draft")
    assert "No report yet" in seen
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
        ("fr,zh-TW;q=0.5", "zh-Hant-TW"),
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


GROUPS = ["attention", "ready", "running", "decided", "draft", "archived"]


def _groups(text: str) -> dict[str, list[str]]:
    """The keys of the experiments in each group of the page, in order."""
    parts = re.split(r'aria-labelledby="group-(\w+)"', text)[1:]
    return {
        name: re.findall(r'<th scope="row"><a href="/experiments/([\w-]+)"', part)
        for name, part in zip(parts[::2], parts[1::2], strict=True)
    }


def test_what_waits_for_a_person_stands_first(app: Flask, store: Store) -> None:
    many.fill(store, 30)
    text = Browser(app.test_client(), logged_in=True).get("/").text
    found = _groups(text)
    assert "A guardrail metric was harmed by Reminder." in text
    assert list(found) == GROUPS
    assert sum(map(len, found.values())) == 30
    # Data that cannot be trusted before a guardrail that was harmed.
    assert found["attention"][-1] == many.key(10)
    assert set(found["attention"]) == {many.key(n) for n in (4, 10, 14, 24)}
    assert found["draft"] == [many.key(n) for n in (17, 27, 7)]


def test_the_list_is_searched_and_filtered_by_address(app: Flask, store: Store) -> None:
    many.fill(store, 30)
    browser = Browser(app.test_client(), logged_in=True)

    def keys(query: str) -> set[str]:
        return {key for found in _groups(browser.get(f"/?{query}").text).values() for key in found}

    assert keys(f"tag={many.TAGS[0]}") == {many.key(n) for n in range(0, 30, 3)}
    assert keys(f"owner={many.OWNERS[1]}") == {many.key(n) for n in range(1, 30, 3)}
    assert keys("status=draft") == {many.key(n) for n in (7, 17, 27)}
    assert keys("q=CAMPAIGN+12") == {many.key(12)}
    assert keys("q=e0012") == {many.key(12)}
    assert keys(f"q={many.TAGS[2]}&status=draft") == {many.key(17)}
    assert keys("q=nothing-like-it") == set()
    assert len(keys("group=running")) == 2
    assert len(keys("group=nonsense&page=x")) == 30
    assert "&lt;script&gt;" in browser.get("/?q=<script>").text


def test_long_groups_are_shown_page_by_page(app: Flask, store: Store) -> None:
    many.fill(store, 60)
    browser = Browser(app.test_client(), logged_in=True)
    text = browser.get("/").text
    assert len(_groups(text)["decided"]) == 15
    assert re.search(r'href="/\?group=decided">9 more<', text)
    assert len(_groups(browser.get("/?group=decided").text)["decided"]) == 24
    assert _groups(browser.get("/?group=decided&page=2").text)["decided"] == []
