"""People, keys, audit and one's own looks in a real browser: nothing overflows, red means up for who asks for it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Page

from experiments import access, reports
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import each_reader, follow, log_in, overflow
from tests.e2e.site import serving
from tests.web import made
from web import create_app

BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live server with an experiment that has a report."""
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
        access.create_account(session, "a-long-address@of-a-long-domain.example", None, now=made.NOW)
    made.documents(store)
    made.facts(store, at=made.NOW - timedelta(days=9))
    reports.make(store, made.KEY, now=made.NOW)
    made.save(store, made.full_report())
    with serving(create_app(store=store, clock=lambda: made.NOW)) as address:
        yield address
    store.close()


@pytest.mark.parametrize("page", each_reader(), indirect=True)
def test_nothing_overflows(page: Page) -> None:
    log_in(page)
    for path in ("/people", "/account", "/audit", "/keys"):
        page.goto(path)
        page.evaluate("document.querySelectorAll('main details').forEach(e => e.open = true)")
        assert overflow(page) == 0, path
    page.fill("#name", page.evaluate("navigator.language + innerWidth"))
    page.check("[name=scopes][value=ingest]")
    follow(page, page.locator("form.stack button.primary"))
    assert page.locator(".snippet").count() == 1
    assert overflow(page) == 0


def keep(page: Page, theme: str, up: str) -> None:
    page.goto("/account")
    page.check(f"[name=theme][value='{theme}']")
    page.check(f"[name=up][value='{up}']")
    follow(page, page.locator("form[action='/account'] button.primary"))
    page.goto(f"/experiments/{made.KEY}")
    page.wait_for_selector("[data-chart][data-drawn]")


def colours(page: Page) -> set[str]:
    """The colours of the first drawn chart."""
    found: list[str] = page.locator("[data-drawn] svg").first.evaluate(
        "e => [...e.querySelectorAll('path')].flatMap(p => [p.getAttribute('fill'), p.getAttribute('stroke')])"
    )
    return set(found)


def test_red_means_up_and_the_dark_stays_for_those_who_want_it(page: Page) -> None:
    log_in(page)
    keep(page, "", "")
    assert "#2f7de1" in colours(page)
    light = page.evaluate(BACKGROUND)
    keep(page, "dark", "red")
    assert "#f0646b" in colours(page)
    assert not {"#2f7de1", "#e07b1f"} & colours(page)
    assert page.evaluate(BACKGROUND) != light
    keep(page, "light", "red")
    assert "#d9363e" in colours(page)
    assert page.evaluate(BACKGROUND) == light
    keep(page, "", "")
