"""Roles, people, one's own account, keys, audit and the second person, on the pages."""

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from itertools import pairwise

import pytest
from flask import Flask
from flask.testing import FlaskClient

from experiments import access, registry
from experiments.access import Role
from experiments.documents import Kind, Status
from experiments.errors import Conflict
from experiments.lifecycle import difference
from experiments.store import Store
from tests.web import made
from tests.web.browser import Browser
from tests.web.conftest import Clock
from tests.web.pages.test_results import visible
from web import create_app

PATH = f"/experiments/{made.KEY}"


def as_role(app: Flask, store: Store, role: str, language: str = "en", *, password: str | None = None) -> Browser:
    """Someone of this role, named after it, at a browser; without a password, of which hashing takes time."""
    with store.write() as session:
        if access.account(session, role) is None:
            access.create_account(session, role, password, role=role, now=made.NOW)
    browser = Browser(app.test_client(), language=language)
    with browser.client.session_transaction() as kept:
        kept["login"], kept["epoch"] = role, account(store, role).epoch
    browser.get("/account")
    return browser


def account(store: Store, login: str) -> access.AccountInfo:
    with store.read() as session:
        found = access.account(session, login)
    assert found is not None
    return found


WRITES = {
    f"{PATH}/report": Role.editor,
    f"{PATH}/status": Role.approver,
    f"{PATH}/decision": Role.approver,
    "/people": Role.admin,
    "/people/role": Role.admin,
    "/people/password": Role.admin,
    "/people/disable": Role.admin,
    "/people/enable": Role.admin,
    "/keys": Role.admin,
    "/keys/revoke": Role.admin,
}


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_do_what_it_includes_and_nothing_else(app: Flask, store: Store, role: Role) -> None:
    made.documents(store, start=False)
    browser = as_role(app, store, role)
    for path, needed in WRITES.items():
        refused = browser.post(path).status_code == 403
        assert refused is not role.includes(needed), path
    for path in ("/", PATH, "/audit", "/account"):
        assert browser.get(path).status_code == 200, path
    for path in ("/people", "/keys", "/keys/revoke"):
        assert (browser.get(path).status_code == 403) is (role is not Role.admin), path


# What everybody may do who can log in at all.
OWN = {"/login", "/logout", "/language", "/account", "/account/password"}


def test_a_viewer_changes_nothing_anywhere(app: Flask, store: Store) -> None:
    browser = as_role(app, store, "viewer")
    tried = 0
    for rule in app.url_map.iter_rules():
        if "POST" not in (rule.methods or ()) or rule.rule in OWN or rule.rule.startswith(("/v1", "/ofrep", "/api")):
            continue
        _, path = rule.build(dict.fromkeys(rule.arguments, "x")) or ("", "")
        assert browser.post(path).status_code == 403, rule.rule
        tried += 1
    assert tried >= len(WRITES)


def test_a_refusal_says_what_it_takes_and_who_gives_it(app: Flask, store: Store) -> None:
    made.documents(store, start=False)
    text = visible(as_role(app, store, "editor").post(f"{PATH}/status", {"status": "running"}).text)
    assert "This takes the role “Approver”. An admin can give it to you" in text


def test_buttons_one_may_not_press_are_not_there(app: Flask, store: Store) -> None:
    made.documents(store)
    assert f'action="{PATH}/status"' not in as_role(app, store, "editor").get(PATH).text
    assert f'action="{PATH}/report"' not in as_role(app, store, "viewer").get(PATH).text
    approvers = as_role(app, store, "approver").get(PATH).text
    assert f'action="{PATH}/status"' in approvers
    assert 'href="/people"' not in approvers
    assert 'href="/people"' in as_role(app, store, "admin").get(PATH).text


def test_a_person_is_added_with_a_password_that_is_shown_once(app: Flask, store: Store) -> None:
    admin = as_role(app, store, "admin")
    admin.get("/people")
    page = admin.post("/people", {"login": " 李娜 ", "role": "approver"}).text
    password = re.findall(r"<dd><code>([^<]+)</code>", page)[1]
    assert password not in admin.get("/people").text
    assert account(store, "李娜").role is Role.approver
    new = Browser(app.test_client())
    assert new.log_in("李娜", password).status_code == 303
    assert password not in admin.get("/audit").text
    again = admin.post("/people", {"login": "李娜", "role": "viewer"})
    assert again.status_code == 409
    assert 'value="李娜"' in again.text
    assert 'aria-invalid="true" aria-describedby="login-problem"' in again.text
    assert "There is an account of this name already." in again.text
    wrong = admin.post("/people", {"login": "x" * 101, "role": "king"})
    assert wrong.status_code == 422
    assert "Choose one of the roles." in wrong.text


def test_a_new_password_and_disabling_end_open_sessions(app: Flask, store: Store) -> None:
    admin = as_role(app, store, "admin")
    editor = as_role(app, store, "editor", password=made.PASSWORD)
    admin.get("/people")
    page = admin.post("/people/password", {"login": "editor"}).text
    password = re.findall(r"<dd><code>([^<]+)</code>", page)[1]
    assert editor.get("/").status_code == 302
    assert editor.log_in("editor").status_code == 401
    assert editor.log_in("editor", password).status_code == 303
    admin.get("/people")
    assert admin.post("/people/disable", {"login": "editor"}).status_code == 303
    assert "cannot log in any more" in visible(admin.get("/people").text)
    assert editor.get("/").status_code == 302
    assert editor.log_in("editor", password).status_code == 401
    admin.get("/people")
    admin.post("/people/enable", {"login": "editor"})
    assert editor.log_in("editor", password).status_code == 303


def test_a_changed_role_counts_at_once(app: Flask, store: Store) -> None:
    admin, editor = as_role(app, store, "admin"), as_role(app, store, "editor")
    admin.get("/people")
    admin.post("/people/role", {"login": "editor", "role": "viewer"})
    made.documents(store)
    editor.get(PATH)
    assert editor.post(f"{PATH}/report").status_code == 403


def test_the_last_admin_stays_one(client: FlaskClient, store: Store) -> None:
    browser = Browser(client, language="en")
    browser.log_in()
    for path, data in (("/people/role", {"role": "viewer"}), ("/people/disable", {})):
        browser.get("/people")
        assert browser.post(path, {"login": made.LOGIN, **data}).status_code == 303
        assert "This is the last admin." in visible(browser.get("/people").text)
    as_role(browser.client.application, store, "admin")
    browser.post("/people/role", {"login": made.LOGIN, "role": "viewer"})
    assert browser.get("/people").status_code == 403


def test_ones_own_password_takes_the_old_one_and_ends_other_sessions(app: Flask, store: Store, clock: Clock) -> None:
    browser, elsewhere = (as_role(app, store, "viewer", password=made.PASSWORD) for _ in range(2))
    browser.get("/account")
    new = {"new": "quite another", "again": "quite another"}
    for data, status, text in (
        ({"old": "guess", **new}, 401, "This is not your password now."),
        ({"old": made.PASSWORD, "new": "one of two", "again": "two of two"}, 422, "The two new passwords differ."),
        ({"old": made.PASSWORD, "new": "short", "again": "short"}, 422, "at least 10 characters"),
    ):
        answer = browser.post("/account/password", data)
        assert answer.status_code == status
        assert text in answer.text
        assert made.PASSWORD not in answer.text
    assert browser.post("/account/password", {"old": made.PASSWORD, **new}).status_code == 303
    assert "The password is changed." in visible(browser.get("/account").text)
    assert elsewhere.get("/").status_code == 302
    assert elsewhere.log_in("viewer", "quite another").status_code == 303
    for _ in range(5):
        assert browser.post("/account/password", {"old": "guess", **new}).status_code == 401
    assert browser.post("/account/password", {"old": "quite another", **new}).status_code == 429


def test_how_pages_look_is_kept_with_the_account(app: Flask, store: Store) -> None:
    browser = as_role(app, store, "viewer", password=made.PASSWORD)
    assert "data-theme" not in browser.get("/").text
    browser.get("/account")
    browser.post("/account", {"language": "zh", "theme": "dark", "up": "red"})
    html = '<html lang="zh-Hans-CN" data-theme="dark" data-up="red">'
    assert html in browser.get("/account").text
    elsewhere = Browser(app.test_client())
    elsewhere.log_in("viewer")
    assert html in elsewhere.get("/").text
    assert browser.post("/account", {"theme": "pink"}).status_code == 400
    browser.post("/language", {"language": "en"})
    assert account(store, "viewer").language == "en"
    browser.post("/account", {"language": "", "theme": "", "up": ""})
    assert '<html lang="en">' in browser.get("/").text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_key_is_made_shown_once_and_used_as_its_snippet_says(app: Flask, store: Store, language: str) -> None:
    made.documents(store)
    admin = as_role(app, store, "admin", language)
    admin.get("/keys")
    page = admin.post("/keys", {"name": "shop app", "scopes": ["assign", "ingest", "read"]}).text
    secret = re.findall(r"upk_[\w-]{20,}", page)[0]
    assert secret not in admin.get("/keys").text
    assert f"<code>{secret[:8]}…</code>" in admin.get("/keys").text
    calls = re.findall(r'<pre class="snippet" tabindex="0">(.*?)</pre>', page, re.S)
    assert len(calls) == 3
    for call in calls:
        _, address, *options = shlex.split(call.replace("&#34;", '"').replace("&#39;", "'").replace("\\\n", ""))
        headers = dict(value.split(": ", 1) for name, value in pairwise(options) if name == "-H")
        body = options[options.index("-d") + 1] if "-d" in options else None
        answer = app.test_client().open(
            address, method="POST" if body else "GET", data=body, headers=headers, base_url="http://localhost"
        )
        assert answer.status_code in (200, 202), answer.text


def test_a_key_for_pages_names_them_and_a_bad_one_is_explained(app: Flask, store: Store) -> None:
    admin = as_role(app, store, "admin")
    admin.get("/keys")
    page = admin.post(
        "/keys", {"name": "page", "scopes": "assign", "origins": "https://shop.example http://localhost:1"}
    )
    assert "/api/features/upk_" in page.text
    listed = visible(admin.get("/keys").text)
    assert "http://localhost:1, https://shop.example" in listed
    for data, status, text in (
        ({"name": "page", "scopes": "assign"}, 409, "There is a key of this name already."),
        ({"name": "two"}, 422, "Choose at least one thing the key may do."),
        ({"name": "two", "scopes": "admin", "origins": "*"}, 422, "Everyone can read a key"),
        ({"name": "two", "scopes": "assign", "origins": "shop"}, 422, "Give web addresses as"),
        ({"name": "", "scopes": "assign"}, 422, "Give a name of 1 to 100"),
    ):
        answer = admin.post("/keys", data)
        assert (answer.status_code, text in answer.text) == (status, True), data
        assert f'value="{data["name"]}"' in answer.text


def test_a_key_is_revoked_after_being_asked(app: Flask, store: Store) -> None:
    admin = as_role(app, store, "admin")
    assert "Programs that use this key are refused" in admin.get("/keys/revoke?name=admin+key").text
    assert admin.post("/keys/revoke", {"name": "admin key"}).status_code == 303
    listed = admin.get("/keys").text
    assert "The key admin key is revoked." in listed
    with store.read() as session:
        assert "admin key" not in [key.name for key in access.keys(session)]
    assert admin.get("/keys/revoke?name=admin+key").status_code == 303


def entries(browser: Browser, query: str = "") -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(browser.get(f"/audit.json{query}").text)
    return found


def test_what_admins_do_is_on_record_without_secrets(app: Flask, store: Store) -> None:
    admin = as_role(app, store, "admin")
    admin.get("/people")
    admin.post("/people", {"login": "li", "role": "viewer"})
    admin.post("/people/role", {"login": "li", "role": "editor"})
    admin.post("/people/password", {"login": "li"})
    admin.post("/people/disable", {"login": "li"})
    admin.post("/people/enable", {"login": "li"})
    admin.post("/keys", {"name": "app", "scopes": "read"})
    admin.post("/keys/revoke", {"name": "app"})
    found = entries(admin, "?actor=admin")
    assert [(entry["kind"], entry["key"], entry["action"]) for entry in found][::-1] == [
        *(("account", "li", action) for action in ("create", "role", "password", "disable", "enable")),
        ("key", "app", "create"),
        ("key", "app", "revoke"),
    ]
    assert found[-2]["diff"] == difference({"role": "viewer"}, {"role": "editor"})
    with store.read() as session:
        trail = admin.get("/audit.csv").text + json.dumps(entries(admin))
        assert "argon2" not in trail
        assert not any(key.digest in trail for key in access.keys(session))
    assert "<code>role</code>: viewer → editor" in admin.get("/audit?kind=account&key=li").text


def test_the_trail_is_filtered_paged_and_downloaded_as_shown(app: Flask, store: Store, clock: Clock) -> None:
    made.documents(store)
    clock.forward(days=1)
    with store.write() as session:
        for i in range(120):
            registry.create(session, Kind.segment, made.SEGMENTS[0] | {"key": f"s{i}"}, actor="=cmd", now=clock())
    viewer = as_role(app, store, "viewer")
    seen: list[str] = []
    path = "/audit?actor=%3Dcmd"
    while path:
        page = viewer.get(path).text
        seen += re.findall(r"· Segment (s\d+)", visible(page))
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = older[1].replace("&amp;", "&") if older else ""
    assert seen == [f"s{i}" for i in reversed(range(120))]
    rows = list(csv.DictReader(io.StringIO(viewer.get("/audit.csv?actor=%3Dcmd&bom=1").get_data().decode("utf-8-sig"))))
    assert {row["actor"] for row in rows} == {"'=cmd"}
    assert {row["key"] for row in rows} == set(seen)
    # The store's zone is Shanghai, where the documents were made at 18:00 and the segments a day later.
    day, next_day = "2026-11-22", "2026-11-23"
    assert {entry["actor"] for entry in entries(viewer, f"?from={next_day}")} == {"=cmd"}
    assert {entry["actor"] for entry in entries(viewer, f"?to={day}&kind=segment")} == {"setup"}
    assert [entry["action"] for entry in entries(viewer, f"?kind=experiment&key={made.KEY}")] == ["running", "create"]
    assert entries(viewer, "?action=paused") == []
    assert "Nothing matches." in viewer.get("/audit?action=paused").text


@pytest.mark.parametrize("query", ["from=yesterday", "from=2026-13-01", "to=2026-1-1"])
def test_a_bad_date_is_told_at_its_field(app: Flask, store: Store, query: str) -> None:
    page = as_role(app, store, "viewer").get(f"/audit?{query}")
    name, value = query.split("=")
    assert f"{value} is no date: write it as 2026-11-22." in page.text
    assert f'aria-describedby="{name}-problem"' in page.text


@pytest.mark.parametrize(
    "query",
    [
        "key=%00",
        "actor=%ff&kind=x&action=y",
        "before=x",
        "before=-1",
        "to=9999-12-31",
        "from=0001-01-01",
        f"before={10**30}",
    ],
)
def test_strange_filters_find_nothing_or_all(app: Flask, store: Store, query: str) -> None:
    viewer = as_role(app, store, "viewer")
    assert viewer.get(f"/audit?{query}").status_code == viewer.get(f"/audit.csv?{query}").status_code == 200


@pytest.fixture
def two(store: Store, clock: Clock) -> tuple[Flask, Store]:
    """An application that asks for two persons."""
    store = Store.on(replace(store.settings, two_persons=True), store.engine)
    return create_app(store=store, clock=clock), store


def test_who_wrote_it_asks_and_another_starts_and_decides(two: tuple[Flask, Store]) -> None:
    app, store = two
    made.documents(store, start=False)
    first, second = as_role(app, store, "approver"), as_role(app, store, "admin")
    with store.write() as session:
        draft = registry.get(session, Kind.experiment, made.KEY).to_json() | {"name": "Recall, better"}
        registry.revise(session, Kind.experiment, made.KEY, draft, actor="approver", now=made.NOW)
    first.get(PATH)
    for _ in range(2):
        first.post(f"{PATH}/status", {"status": "running"})
    page = visible(first.get(PATH).text)
    assert "You wrote this, so another person takes this step." in page
    assert "approver asked to start this on" in page
    assert [entry["action"] for entry in entries(first, "?kind=experiment")] == ["ask", "revise", "create"]
    second.get(PATH)
    second.post(f"{PATH}/status", {"status": "running"})
    assert "waits for a second person" not in visible(second.get(PATH).text)
    first.get(PATH)
    # Stopping is a brake: it takes no second person.
    first.post(f"{PATH}/status", {"status": "stopped"})
    decision = {"variant": "ten", "reason": "It pays."}
    first.get(PATH)
    first.post(f"{PATH}/decision", decision)
    assert "approver asked for this decision on" in visible(second.get(PATH).text)
    assert "It pays." in json.dumps(entries(second, "?action=ask"))
    second.post(f"{PATH}/decision", decision)
    with store.read() as session:
        assert registry.get(session, Kind.experiment, made.KEY).status is Status.decided


def test_who_created_it_counts_too_and_so_does_a_key(two: tuple[Flask, Store], keys: dict[access.Scope, str]) -> None:
    app, store = two
    made.documents(store, start=False)
    with store.write() as session:
        for actor in ("setup", "admin key"):
            draft = registry.get(session, Kind.experiment, made.KEY).to_json()
            registry.revise(session, Kind.experiment, made.KEY, draft, actor=actor, now=made.NOW)
        with pytest.raises(Conflict, match="setup"):
            registry.move(session, made.KEY, Status.running, actor="setup", now=made.NOW)
    headers = {"Authorization": f"Bearer {keys[access.Scope.admin]}"}
    refused = app.test_client().post(f"/v1{PATH}/status", json={"status": "running"}, headers=headers)
    assert (refused.status_code, refused.json["code"] if refused.json else "") == (409, "second_person")


def test_a_policy_is_rolled_out_by_another_and_rolled_back_by_anyone(two: tuple[Flask, Store]) -> None:
    _, store = two
    made.documents(store, start=False)
    with store.write() as session:
        registry.create(session, Kind.policy, made.POLICY, actor="li", now=made.NOW)
    running = registry.PolicyStatus.running
    with store.write() as session:
        with pytest.raises(Conflict) as caught:
            registry.move_policy(session, "plain", running, actor="li", now=made.NOW)
        assert caught.value.code == "second_person"
        registry.move_policy(session, "plain", running, actor="wang", now=made.NOW)
        registry.roll_back(session, "plain", to_control=True, actor="li", now=made.NOW)


def test_one_person_is_enough_where_nothing_else_is_asked(client: FlaskClient, store: Store) -> None:
    made.documents(store, start=False)
    browser = Browser(client, language="en")
    browser.log_in()
    with store.write() as session:
        draft = registry.get(session, Kind.experiment, made.KEY).to_json()
        registry.revise(session, Kind.experiment, made.KEY, draft, actor=made.LOGIN, now=made.NOW)
    browser.post(f"{PATH}/status", {"status": "running"})
    with store.read() as session:
        assert registry.get(session, Kind.experiment, made.KEY).status is Status.running
