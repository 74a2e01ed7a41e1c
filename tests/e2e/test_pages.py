"""The pages in a real browser: charts draw under the strict policy, nothing overflows, both languages work."""

import re
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from msgspec import structs
from playwright.sync_api import Browser, Page, Response
from werkzeug.serving import make_server

from experiments import access, registry, reports
from experiments.documents import Kind
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import NARROW, WIDE, drawn, each_reader, log_in, overflow
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


TABS = ("", "/segments", "/time", "/health", "/plan", "/decision")


def open_results(page: Page, tab: str = "") -> None:
    log_in(page)
    page.goto(RESULTS + tab)
    drawn(page)


def unfold(page: Page) -> None:
    """Open what is folded away; its charts are drawn then."""
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    drawn(page)


@pytest.mark.parametrize("page", each_reader(), indirect=True)
def test_charts_draw_and_nothing_overflows(page: Page) -> None:
    page.goto("/login")
    assert overflow(page) == 0
    log_in(page)
    count = 0
    for tab in TABS:
        page.goto(RESULTS + tab)
        drawn(page)
        unfold(page)
        charts = page.locator("[data-chart]")
        for i in range(charts.count()):
            box = charts.nth(i).locator("svg").first.bounding_box()
            assert box is not None
            assert box["width"] > 200
            assert box["x"] + box["width"] <= page.viewport_size["width"]  # type: ignore[index]
            assert charts.nth(i).locator("svg path").count() > 3
        count += charts.count()
        assert overflow(page) == 0
    assert count == 4
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
    count = 0
    for tab in TABS:
        page.goto(f"/experiments/{name}{tab}")
        drawn(page)
        unfold(page)
        assert overflow(page) == 0
        charts = page.locator("[data-chart]")
        assert charts.locator("svg").count() == charts.count()
        count += charts.count()
        assert page.evaluate(CUT) == []
        narrow = page.viewport_size == NARROW
        pushed = ".scroll:has(.grid, .effects)" if narrow else ".scroll:not(pre)"
        assert page.evaluate(PUSHED, pushed) == []
    assert count >= 3


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
    page.get_by_role("button", name="简体").click()
    page.wait_for_selector("html[lang='zh-Hans-CN']")
    assert page.url.endswith(RESULTS)
    assert "覆盖用户" in page.inner_text("main")
    page.get_by_role("button", name="English").click()
    page.wait_for_selector("html[lang='en']")
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
    report = page.locator("a[href^='/reports/']").first.get_attribute("href")
    page.goto(f"{report}/print")
    assert page.locator("figure img").count() >= 2
    loaded = "[...document.querySelectorAll('figure img')].every(e => e.complete && e.naturalWidth > 0)"
    page.wait_for_load_state("load")
    assert page.evaluate(loaded)


def test_the_page_is_light_and_shows_its_first_screen_at_once(page: Page) -> None:
    weights: list[int] = []
    log_in(page)

    def weigh(response: Response) -> None:
        if response.status == 200:
            weights.append(response.request.sizes()["responseBodySize"])

    page.on("requestfinished", lambda request: weigh(request.response()))  # type: ignore[arg-type]
    page.goto(RESULTS)
    drawn(page)
    assert sum(weights) < 1_500_000
    (painted,) = page.evaluate(
        "performance.getEntriesByType('paint').filter(e => e.name == 'first-contentful-paint').map(e => e.startTime)"
    )
    # The bar is a second; a busy machine gets five.
    assert painted < 5_000


def test_segments_are_ticked_and_the_money_is_told(page: Page) -> None:
    open_results(page, "/segments")
    page.get_by_label("New customers").first.check()
    page.get_by_role("button", name="What would it bring").click()
    page.wait_for_url("**/segments?*")
    assert re.search(r"About .* a month, between", page.inner_text("#choice"))
    assert page.get_by_label("New customers").first.is_checked()


def test_a_folded_chart_is_drawn_when_it_is_opened(page: Page) -> None:
    log_in(page)
    page.goto("/experiments/frequency")
    drawn(page)
    folded = page.locator("details.metric:not([open])").first
    chart = folded.locator("[data-chart]").first
    assert chart.get_attribute("data-drawn") is None
    folded.locator("summary").first.click()
    drawn(page)
    assert page.locator("details.metric[open] [data-chart] svg.marks").count() >= 1
