"""Logging in through an OpenID provider that really signs, and what of its answers is refused."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from experiments import access
from experiments.access import Role
from experiments.errors import InvalidDocument
from experiments.settings import Oidc
from experiments.store import Store
from tests.web import made, provider
from tests.web.browser import Browser
from tests.web.conftest import Clock
from tests.web.pages.test_results import visible
from tests.web.provider import Provider
from web import create_app

FAILED = "The company's login did not work."


@pytest.fixture
def company(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with provider.serving() as running:
        yield running


def browser_of(store: Store, clock: Clock, company: Provider, *, passwords: bool = True, **fields: Any) -> Browser:
    oidc = Oidc(company.issuer, provider.CLIENT, fields.pop("secret", provider.SECRET), **fields)
    store = Store.on(replace(store.settings, oidc=oidc, passwords=passwords), store.engine)
    return Browser(create_app(store=store, clock=clock).test_client(), language="en")


def ask(browser: Browser, next: str = "") -> str:  # noqa: A002
    """Go to the provider and return the address to which it sends the browser back."""
    there = browser.client.get("/login/company", query_string={"next": next}).headers["Location"]
    return requests.get(there, allow_redirects=False, timeout=10).headers["Location"]


def log_in(browser: Browser, next: str = "") -> TestResponse:  # noqa: A002
    return browser.client.get(ask(browser, next))


def log_out(browser: Browser) -> None:
    browser.get("/account")
    assert browser.post("/logout").status_code == 303


def said(browser: Browser, answer: TestResponse) -> str:
    """What the login page says after a refusal."""
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    text = visible(browser.get("/login").text)
    assert browser.get("/").status_code == 302
    return text


def account(store: Store, login: str) -> access.AccountInfo | None:
    with store.read() as session:
        return access.account(session, login)


def test_the_first_login_makes_an_account_and_later_ones_find_it(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company)
    assert "Log in through the company" in browser.get("/login").text
    answer = log_in(browser, "/audit")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/audit")
    assert "ann@shop.example" in visible(browser.get("/account").text)
    found = account(store, "ann@shop.example")
    assert found is not None
    assert (found.role, found.has_password) == (Role.viewer, False)
    with store.write() as session:
        access.set_role(session, "ann@shop.example", "editor", now=made.NOW)
    # Another address, the same person.
    company.person["email"] = "ann.li@shop.example"
    log_out(browser)
    assert log_in(browser).status_code == 303
    assert account(store, "ann.li@shop.example") is None
    assert "Editor" in visible(browser.get("/account").text)


def test_nobody_logs_in_there_with_a_password(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company)
    log_in(browser)
    log_out(browser)
    for password in ("", "7", "ann@shop.example"):
        assert browser.log_in("ann@shop.example", password).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": "another", "azp": provider.CLIENT},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": 1_000_000_000, "iat": 999_999_000},
        {"exp": None},
        {"sub": None},
    ],
    ids=str,
)
def test_a_token_that_is_not_for_this_login_is_refused(
    store: Store, clock: Clock, company: Provider, wrong: dict[str, Any]
) -> None:
    browser = browser_of(store, clock, company)
    company.wrong = wrong
    assert FAILED in said(browser, log_in(browser))
    assert account(store, "ann@shop.example") is None


def test_a_token_signed_by_another_key_is_refused(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company)
    company.signs = RSAKey.generate_key(2048, {"kid": "k"})
    assert FAILED in said(browser, log_in(browser))


def test_an_answer_counts_in_the_browser_that_asked_and_once(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company)
    other = Browser(browser.client.application.test_client(), language="en")
    back = ask(browser)
    # Someone is made to follow another's answer.
    assert FAILED in said(other, other.client.get(back))
    assert browser.client.get(back).headers["Location"] == "/"
    log_out(browser)
    assert FAILED in said(browser, browser.client.get(back))
    assert FAILED in said(browser, browser.client.get("/login/company/answer?error=access_denied"))


def test_a_code_without_its_verifier_is_of_no_use(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company)
    back = ask(browser)
    with browser.client.session_transaction() as session:
        for name, kept in session.items():
            if name.startswith("_state_"):
                session[name] = kept | {"data": kept["data"] | {"code_verifier": "x" * 48}}
    assert FAILED in said(browser, browser.client.get(back))


def test_a_wrong_client_secret_and_a_provider_that_is_away_are_told(
    store: Store, clock: Clock, company: Provider
) -> None:
    browser = browser_of(store, clock, company, secret="wrong")
    assert FAILED in said(browser, log_in(browser))
    company.issuer = "http://127.0.0.1:9"
    browser = browser_of(store, clock, company)
    assert FAILED in said(browser, browser.client.get("/login/company"))


@pytest.mark.parametrize("small", [False, True])
def test_only_addresses_of_the_domains_are_let_in(store: Store, clock: Clock, company: Provider, small: bool) -> None:
    browser = browser_of(store, clock, company, domains=frozenset({"shop.example"}))
    company.small = small
    for email in ("ann@evil.example", "ann@evil-shop.example", "shop.example", ""):
        company.person = {"sub": email, "email": email}
        assert "not one that may log in here" in said(browser, log_in(browser))
    company.person = {"sub": "8", "email": "bo@shop.example", "email_verified": False}
    assert "not one that may log in here" in said(browser, log_in(browser))
    company.person = {"sub": "9", "email": "cy@shop.example"}
    assert log_in(browser).headers["Location"] == "/"


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["crm", "crm-leads"], Role.approver),
        (["crm"], Role.editor),
        ("crm", Role.editor),
        (["others"], Role.viewer),
        (None, Role.viewer),
    ],
)
def test_a_claim_gives_the_role(store: Store, clock: Clock, company: Provider, groups: object, role: Role) -> None:
    mapping = ("groups", (("crm-leads", "approver"), ("crm", "editor")))
    browser = browser_of(store, clock, company, role=mapping)
    company.person["groups"] = groups
    assert log_in(browser).headers["Location"] == "/"
    found = account(store, "ann@shop.example")
    assert found is not None
    assert found.role is role


def test_another_account_is_not_taken_over_and_a_disabled_one_stays_out(
    store: Store, clock: Clock, company: Provider
) -> None:
    browser = browser_of(store, clock, company)
    with store.write() as session:
        access.create_account(session, "ann@shop.example", made.PASSWORD, now=made.NOW)
    assert "another account" in said(browser, log_in(browser))
    company.person = {"sub": "9", "email": "cy@shop.example"}
    assert log_in(browser).headers["Location"] == "/"
    with store.write() as session:
        access.disable(session, "cy@shop.example", now=made.NOW)
    assert "disabled" in said(browser, log_in(browser))


def test_the_way_back_is_never_to_another_server(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company)
    assert log_in(browser, "https://evil.example/").headers["Location"] == "/"
    back = browser.client.get("/login/company", headers={"X-Forwarded-Proto": "https"}).headers["Location"]
    assert "redirect_uri=https%3A%2F%2Flocalhost%2Flogin%2Fcompany%2Fanswer" in back


def test_passwords_may_be_turned_off(store: Store, clock: Clock, company: Provider) -> None:
    browser = browser_of(store, clock, company, passwords=False)
    assert 'type="password"' not in browser.get("/login").text
    assert browser.log_in().status_code == 403


def test_without_a_provider_there_is_no_such_login(store: Store, clock: Clock) -> None:
    browser = Browser(create_app(store=store, clock=clock).test_client(), language="en")
    assert "Log in through the company" not in browser.get("/login").text
    assert browser.get("/login/company").status_code == browser.get("/login/company/answer").status_code == 404


def test_a_missing_library_is_told_at_the_start(
    store: Store, clock: Clock, company: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("experiments.settings.find_spec", lambda name: None if name == "authlib" else find(name))
    with pytest.raises(InvalidDocument, match=r"pip install '\.\[oidc\]'"):
        browser_of(store, clock, company)
