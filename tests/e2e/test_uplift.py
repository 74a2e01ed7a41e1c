"""The uplift page and those of policies in a real browser: the slider, the charts, and a study that is watched."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page

from experiments import access, registry
from experiments.documents import Kind
from experiments.settings import Settings
from experiments.store import Store
from experiments.uplift import studies
from experiments.uplift.job import Work
from experiments.uplift.studies import StudyRequest
from tests.e2e.reader import drawn, each_reader, log_in, overflow
from tests.e2e.site import serving
from tests.experiments.uplift import campaign
from tests.web import made
from tests.web.pages.test_policies import POLICY
from web import create_app

UPLIFT = f"/experiments/{campaign.KEY}/uplift"
CUT = """() => [...document.querySelectorAll('[data-chart]')].flatMap(chart => {
    const box = chart.getBoundingClientRect()
    return [...chart.querySelectorAll('svg text')].filter(text => {
        const own = text.getBoundingClientRect()
        return own.width && (own.right > box.right + 1 || own.left < box.left - 1)
    }).map(text => text.textContent)
})"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live server on a store with a finished study and a policy."""
    folder = tmp_path_factory.mktemp("store")
    store = Store.open(Settings.in_folder(folder), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, role="admin", now=made.NOW)
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, 1500)
    now = made.NOW + timedelta(days=campaign.DAYS)
    wish = StudyRequest(learners=["t"], folds=3, features="attributes")
    study, _ = studies.ask(store, campaign.KEY, wish, now=now)
    Work(store, study.id, lambda: 0.0).run()
    with store.write() as session:
        for body in made.SEGMENTS:
            registry.create(session, Kind.segment, body, actor="setup", now=made.NOW)
        for body in (made.PRIMARY, made.GUARDRAIL):
            registry.create(session, Kind.metric, body, actor="setup", now=made.NOW)
        registry.create(session, Kind.policy, POLICY, actor="setup", now=made.NOW)
    with serving(create_app(store=store, clock=lambda: now)) as address:
        yield address
    store.close()


@pytest.mark.parametrize("page", each_reader(), indirect=True)
def test_every_part_is_drawn_and_nothing_is_cut(page: Page) -> None:
    log_in(page)
    page.goto(UPLIFT)
    page.evaluate("document.querySelectorAll('main details').forEach(e => e.open = true)")
    drawn(page)
    assert page.locator("[data-chart] svg").count() == page.locator("[data-chart]").count() == 4
    assert page.evaluate(CUT) == []
    assert overflow(page) == 0
    for path in ("/policies", f"/policies/{POLICY['key']}"):
        page.goto(path)
        page.evaluate("document.querySelectorAll('main details').forEach(e => e.open = true)")
        assert overflow(page) == 0


def bought(page: Page) -> str:
    return page.inner_text(".bought").replace("\u2060", "")


@pytest.mark.parametrize("page", [{"locale": "en-US"}, {"locale": "zh-CN"}], indirect=True)
def test_the_slider_says_what_the_server_says(page: Page) -> None:
    log_in(page)
    page.goto(UPLIFT)
    before = bought(page)
    page.locator("#budget-range").focus()
    page.keyboard.press("End")
    assert bought(page) != before
    assert page.input_value("#budget-number") == page.input_value("[data-list] [name=budget]")
    for wanted in ("30", "61.5", "100"):
        page.fill("#budget-number", wanted)
        here, users = bought(page), page.inner_text("[data-users=gift]")
        page.locator(".slider button").click()
        page.wait_for_url(f"**budget={wanted}**")
        assert bought(page) == here
        assert page.inner_text("[data-users=gift]") == users


def test_a_study_is_watched_until_it_is_done(page: Page) -> None:
    log_in(page)
    page.goto(UPLIFT)
    page.get_by_text("More choices").click()
    page.select_option("#depth", "1")
    page.select_option("#learners", "quick")
    page.get_by_role("button", name="Start the study").click()
    page.locator("#progress").wait_for()
    # The process of the study is a real one.
    page.locator("#progress").wait_for(state="detached", timeout=120_000)
    assert page.locator("#earlier-title").is_visible()


def test_without_scripts_a_budget_is_sent(browser: Browser, server: str) -> None:
    context = browser.new_context(base_url=server, java_script_enabled=False, locale="en-US")
    page = context.new_page()
    log_in(page)
    page.goto(UPLIFT)
    page.fill("#budget-number", "30")
    page.locator(".slider button").click()
    page.wait_for_url("**budget=30**")
    assert "CN¥30.00" in bought(page)
    context.close()
