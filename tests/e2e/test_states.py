"""What a reader meets besides good pages: a login that ran out, scripts switched off; and charts that move nothing."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page

from experiments import access, reports
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import NARROW, follow, log_in, reading
from tests.e2e.site import serving
from tests.web import made
from web import create_app

SHIFTS = """
    window.shifted = 0
    new PerformanceObserver(list => list.getEntries().forEach(entry => { window.shifted += entry.value }))
        .observe({type: 'layout-shift', buffered: true})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live server with an experiment measured over some days."""
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
    made.documents(store)
    for day in range(3):
        made.facts(store, at=made.NOW - timedelta(days=9 - day), first=day * 200, users=200)
    reports.make(store, made.KEY, now=made.NOW)
    with serving(create_app(store=store, clock=lambda: made.NOW)) as address:
        yield address
    store.close()


def test_what_was_entered_outlives_a_login_that_ran_out(browser: Browser, server: str) -> None:
    with reading(browser, server, refused=400, java_script_enabled=False) as page:
        log_in(page)
        page.goto("/experiments/new")
        follow(page, page.locator("[name=preset]").first)
        form = page.url
        page.fill("[name=name]", "Friday 周五")
        page.context.clear_cookies()
        follow(page, page.locator("main button.primary"))
        assert "What you entered is still here." in page.inner_text("main")
        with page.context.expect_page() as opened:
            page.get_by_text("Log in, on a page beside this one").click()
        log_in(opened.value)
        follow(page, page.get_by_role("button", name="Send it again"))
        # Logging in began a new session: one more step shows the same page, now with what it asks for.
        if page.url == form and page.get_by_role("button", name="Send it again").count():
            follow(page, page.get_by_role("button", name="Send it again"))
        page.goto(form)
        assert page.input_value("[name=name]") == "Friday 周五"


def test_a_form_from_elsewhere_is_not_kept(browser: Browser, server: str) -> None:
    with reading(browser, server, refused=400) as page:
        page.goto("/login")
        answer = page.request.post(
            "/experiments/new", form={"preset": "copy"}, headers={"Origin": "https://elsewhere.example"}
        )
        assert answer.status == 400
        assert "Send it again" not in answer.text()
        assert (
            "Send it again"
            in page.request.post("/experiments/new", form={"preset": "copy"}, headers={"Origin": server}).text()
        )


@pytest.mark.parametrize("page", [{}, {"viewport": NARROW}], ids=["desktop", "phone"], indirect=True)
def test_charts_move_nothing_when_they_are_drawn(page: Page) -> None:
    page.add_init_script(SHIFTS)
    log_in(page)
    for tab in ("", "/segments", "/time"):
        page.goto(f"/experiments/{made.KEY}{tab}")
        charts = page.locator("[data-chart]:visible")
        assert charts.count()
        page.wait_for_selector("[data-chart]:visible:not([data-drawn])", state="detached")
        assert page.evaluate("shifted") < 0.05
