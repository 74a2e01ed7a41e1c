"""The pages in a real browser: charts draw under the strict policy, nothing overflows, both languages work."""

import re
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from msgspec import structs
from playwright.sync_api import Browser, Page
from werkzeug.serving import make_server

from experiments import access, registry, reports
from experiments.documents import Kind
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import NARROW, WIDE, each_reader, log_in, overflow
from tests.web import made, rich
from web import create_app

RESULTS = f"/experiments/{made.KEY}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live server on a store with an experiment measured over some days, and reports with every part."""
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
    made.documents(store)
    for day in range(3):
        made.facts(store, at=made.NOW - timedelta(days=9 - day), first=day * 200, users=200)
    reports.make(store, made.KEY, now=made.NOW)
    for name, make in rich.REPORTS.items():
        with store.write() as session:
            registry.create(session, Kind.experiment, made.PLAIN | {"key": name}, actor="setup", now=made.NOW)
        made.save(store, structs.replace(make(), experiment=name), name)
    serving = make_server("127.0.0.1", 0, create_app(store=store, clock=lambda: made.NOW), threaded=True)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    serving.server_close()
    store.close()


def open_results(page: Page) -> None:
    log_in(page)
    page.goto(RESULTS)
    page.wait_for_function("[...document.querySelectorAll('[data-chart]')].every(e => e.dataset.drawn)")


@pytest.mark.parametrize("page", each_reader(), indirect=True)
def test_charts_draw_and_nothing_overflows(page: Page) -> None:
    page.goto("/login")
    assert overflow(page) == 0
    open_results(page)
    charts = page.locator("[data-chart]")
    assert charts.count() == 4
    for i in range(charts.count()):
        box = charts.nth(i).locator("svg").first.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["x"] + box["width"] <= page.viewport_size["width"]  # type: ignore[index]
        assert charts.nth(i).locator("svg path").count() > 3
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert overflow(page) == 0
    page.goto("/")
    assert overflow(page) == 0


# Texts of charts that reach beyond their chart, and tables that must be pushed to and fro.
CUT = """() => [...document.querySelectorAll('[data-chart]')].flatMap(chart => {
    const box = chart.getBoundingClientRect()
    return [...chart.querySelectorAll('svg text')].filter(text => {
        const own = text.getBoundingClientRect()
        return own.width && (own.right > box.right + 1 || own.left < box.left - 1)
    }).map(text => text.textContent)
})"""
PUSHED = """selector => [...document.querySelectorAll(selector)].filter(e => e.scrollWidth > e.clientWidth + 1)
    .map(e => e.getAttribute('aria-label'))"""


@pytest.mark.parametrize("name", rich.REPORTS)
@pytest.mark.parametrize("page", each_reader(), indirect=True)
def test_a_report_with_every_part_draws_and_nothing_is_cut(page: Page, name: str) -> None:
    log_in(page)
    page.goto(f"/experiments/{name}")
    page.wait_for_function("[...document.querySelectorAll('[data-chart]')].every(e => e.dataset.drawn)")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert overflow(page) == 0
    charts = page.locator("[data-chart]")
    assert charts.count() >= 3
    assert charts.locator("svg").count() == charts.count()
    assert page.evaluate(CUT) == []
    narrow = page.viewport_size == NARROW
    assert page.evaluate(PUSHED, ".scroll:has(.grid, .effects)" if narrow else ".scroll") == []


def test_the_first_screen_holds_the_verdict_the_reach_and_the_guardrails(page: Page) -> None:
    open_results(page)
    for part in (".verdict", ".reach", ".guardrails", ".did"):
        box = page.locator(part).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= WIDE["height"]


def test_pointing_at_an_interval_shows_its_numbers(page: Page) -> None:
    open_results(page)
    chart = page.locator("#effects [data-chart]").first
    chart.scroll_into_view_if_needed()
    chart.locator(".mark-symbol path").first.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "Ten yuan" in tip.inner_text()
    assert re.search(r"[+−]\d+(\.\d+)? pp", tip.inner_text())


def test_a_reader_changes_language_and_stays_on_the_page(page: Page) -> None:
    open_results(page)
    page.get_by_role("button", name="中文").click()
    page.wait_for_function("document.documentElement.lang == 'zh-Hans-CN'")
    assert page.url.endswith(RESULTS)
    assert "覆盖用户" in page.inner_text("main")
    page.get_by_role("button", name="English").click()
    page.wait_for_function("document.documentElement.lang == 'en'")
    assert "Users reached" in page.inner_text("main")


def test_the_keyboard_reaches_the_content_first(page: Page) -> None:
    log_in(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main"


def test_without_scripts_the_tables_tell_the_same(browser: Browser, server: str) -> None:
    context = browser.new_context(base_url=server, java_script_enabled=False, locale="en-US")
    page = context.new_page()
    log_in(page)
    page.goto(RESULTS)
    assert "Charts need JavaScript" in page.inner_text("#effects")
    assert re.search(r"[+−]\d+(\.\d+)? pp", page.inner_text("#effects table >> nth=0"))
    context.close()


def test_the_page_prints(page: Page) -> None:
    open_results(page)
    page.emulate_media(media="print")
    assert page.locator(".verdict").is_visible()
    assert not page.locator(".actions").is_visible()
