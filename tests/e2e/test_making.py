"""The guided form in a real browser: quick for a newcomer, live sizes and previews, Back loses nothing."""

import re
import threading
from collections.abc import Iterator

import msgspec
import pytest
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server

from experiments import access, ingest, registry
from experiments.documents import Kind, Status
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import each_reader, log_in, overflow
from tests.web import made
from web import create_app


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
    traits = [{"city": "上海" if i % 4 else "北京", "days_since_purchase": i % 100} for i in range(400)]
    items: list[ingest.AnyItem] = [
        ingest.Identify(
            message_id=f"i{i}", user_id=f"u{i}", timestamp=made.NOW, traits=msgspec.Raw(msgspec.json.encode(known))
        )
        for i, known in enumerate(traits)
    ]
    with store.write() as session:
        ingest.store(session, store.catalog(session), list(enumerate(items)), now=made.NOW)
    yield store
    store.close()


@pytest.fixture(scope="module")
def server(store: Store) -> Iterator[str]:
    serving = make_server("127.0.0.1", 0, create_app(store=store, clock=lambda: made.NOW), threaded=True)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.mark.parametrize("page", each_reader(), indirect=True)
def test_from_the_template_to_a_running_experiment(page: Page, store: Store) -> None:
    log_in(page)
    page.goto("/experiments/new")
    assert overflow(page) == 0
    page.click("button[value=win_back]")
    for step in ("goal", "audience", "variants", "metrics", "plan"):
        page.wait_for_url(f"**/{step}*")
        page.evaluate("document.querySelectorAll('main details').forEach(e => e.open = true)")
        assert overflow(page) == 0
        if step == "plan":
            page.fill("#baseline", "5")
        page.click("main button.primary")
    page.wait_for_url("**/check")
    assert overflow(page) == 0
    page.click("button.primary[value=start]")
    page.wait_for_url(re.compile(r"/experiments/win-back[-\d]*$"))
    with store.read() as session:
        assert registry.get(session, Kind.experiment, page.url.rsplit("/", 1)[1]).status is Status.running
    page.goto(f"{page.url}/qa?user=u1")
    assert overflow(page) == 0


@pytest.mark.parametrize("page", each_reader()[:1], indirect=True)
def test_size_and_previews_follow_the_typing_and_back_loses_nothing(page: Page) -> None:
    log_in(page)
    page.goto("/experiments/new")
    page.click("button[value=copy_test]")
    page.wait_for_url("**/goal")
    page.click("main button.primary")
    page.wait_for_url("**/audience")
    expect(page.locator("[data-size]")).to_have_text(re.compile("400 users would take part"))
    page.click("summary:has-text('More')")
    page.fill("#condition", '{"city": "北京"}')
    expect(page.locator("[data-size]")).to_have_text(re.compile("100 users would take part"))
    page.click("main button.primary")
    page.wait_for_url("**/variants")
    arm = page.locator("[data-arm]").nth(1)
    arm.locator("textarea").fill("Short")
    expect(arm.locator("[data-copy]")).to_have_text("Short")
    expect(arm.locator("[data-length]")).to_have_text("5 characters")
    page.select_option("#channel", "sms")
    expect(arm.locator("[data-looks]")).to_have_class("looks sms")
    page.go_back()
    page.wait_for_url("**/audience")
    expect(page.locator("#condition")).to_have_value('{"city": "北京"}')
    page.go_forward()
    page.wait_for_url("**/variants")
    expect(arm.locator("textarea")).to_have_value("Short")
    expect(page.locator("#channel")).to_have_value("sms")
