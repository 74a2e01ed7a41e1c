"""The web SDK of OpenFeature with its OFREP provider, unmodified, in Chromium on a page of another origin."""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.clients import shop
from tests.clients.served import Served, opened
from tests.clients.website import Website, as_for_a_page

BULK = "/ofrep/v1/evaluate/flags"


@pytest.fixture(scope="module")
def address(website: Website, node_clients: Path) -> str:
    """Of a page with the client."""
    as_for_a_page(node_clients, website.folder)
    return website.write("flags.html", (node_clients / "flags.html").read_text("utf-8"))


@pytest.fixture
def page(chromium: Browser, address: str) -> Iterator[Page]:
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(address)
    page.wait_for_function("'connect' in window")
    yield page
    page.evaluate("leave()")
    context.close()


@pytest.fixture
def own(tmp_path: Path, website: Website) -> Iterator[Served]:
    """An instance that the test may stop and start."""
    served = opened(tmp_path, website.url)
    yield served
    served.stop()


def context(number: int) -> dict[str, Any]:
    return {"targetingKey": shop.user(number), **shop.known_to_app(number)}


def connect(page: Page, served: Served, number: int, key: str = "page", **options: Any) -> str:
    """Connect the page's client; return what went wrong."""
    script = """async ([url, key, context, options]) => {
      try { await connect(url, key, context, options); return "" } catch (error) { return String(error) }
    }"""
    failure: str = page.evaluate(script, [served.url, served.keys[key], context(number), options])
    return failure


@pytest.mark.parametrize("users", [500, pytest.param(10_000, marks=pytest.mark.study)])
def test_every_user_gets_the_variant_of_the_assignment(
    page: Page, served: Served, expected: list[dict[str, Any]], users: int
) -> None:
    assert connect(page, served, 0, cacheMode="disabled", changeDetection="none") == ""
    script = """async ([contexts, defaults]) => {
      const found = [];
      for (const context of contexts) found.push(await readAs(context, defaults));
      return found;
    }"""
    answers = page.evaluate(script, [[context(number) for number in range(users)], shop.DEFAULTS])
    for number, found in enumerate(answers):
        for flag in shop.RUNNING:
            details, answer = found[flag], expected[number][flag]
            assert details["value"] == shop.value_of(flag, answer), (flag, number)
            assert details["variant"] == (answer["variant"] or "")
            assert details["reason"] == shop.OFREP_REASONS.get(answer["reason"], "DEFAULT")
            assert "errorCode" not in details
            assert details["flagMetadata"]["reason"] == answer["reason"]


def test_the_default_holds_where_there_is_no_answer(page: Page, served: Served) -> None:
    assert connect(page, served, 2, changeDetection="none") == ""
    for flag, default, code in (
        ("unknown", "mine", "FLAG_NOT_FOUND"),
        ("draft", "mine", "FLAG_NOT_FOUND"),
        ("title", 7, "TYPE_MISMATCH"),
    ):
        found = page.evaluate("([flag, fallback]) => read(flag, fallback)", [flag, default])
        assert (found["value"], found["errorCode"]) == (default, code)


def test_a_visitor_who_logs_in_is_asked_for_anew(page: Page, served: Served, expected: list[dict[str, Any]]) -> None:
    assert connect(page, served, 6) == ""
    other = next(i for i in range(7, 99) if expected[i]["title"]["variant"] != expected[6]["title"]["variant"])
    assert page.evaluate("read('title', 'none').value") == expected[6]["title"]["variant"]
    found = page.evaluate("([context, defaults]) => readAs(context, defaults)", [context(other), {"title": "none"}])
    assert found["title"]["value"] == expected[other]["title"]["variant"]


def test_polling_costs_no_body_while_nothing_changed(page: Page, served: Served) -> None:
    statuses: list[tuple[str, int]] = []
    page.on("response", lambda answer: statuses.append((answer.request.method, answer.status)))
    assert connect(page, served, 8, pollInterval=100, changeDetection="polling") == ""
    page.wait_for_function("performance.getEntriesByType('resource').filter(e => e.name.endsWith('/flags')).length > 3")
    asked = [status for method, status in statuses if method == "POST"]
    assert asked[:3] == [200, 304, 304]
    assert page.evaluate("told") == []


def test_a_change_reaches_the_page_without_polling(page: Page, served: Served) -> None:
    with page.expect_response(lambda answer: "/ofrep/v1/stream" in answer.url) as opened:
        assert connect(page, served, 10) == ""
    assert opened.value.status == 200
    assert page.evaluate("read('news', 'none').errorCode") == "FLAG_NOT_FOUND"
    served.create("experiments", shop.experiment("news"))
    begun = time.monotonic()
    served.move("news", "running")
    page.wait_for_function("read('news', 'none').value !== 'none'")
    took = time.monotonic() - begun
    print(f"the change reached the page after {took:.2f} s")
    assert took < 15
    (told,) = [flags for event, flags in page.evaluate("told") if "news" in flags]
    assert told == ["news"]


def test_a_page_of_another_origin_is_refused(page: Page, served: Served) -> None:
    blocked: list[str] = []
    page.on("console", lambda message: blocked.append(message.text))
    # The page may know why, as another key is for it.
    assert connect(page, served, 12, "elsewhere") != ""
    assert page.evaluate("read('title', 'mine').value") == "mine"
    assert any("403" in text for text in blocked)


def test_a_key_for_servers_does_not_work_in_pages(page: Page, served: Served) -> None:
    assert connect(page, served, 12, "app") != ""
    assert page.evaluate("read('title', 'mine').value") == "mine"


@pytest.mark.study
def test_a_change_while_the_stream_was_away_is_not_missed(page: Page, own: Served) -> None:
    with page.expect_response(lambda answer: "/ofrep/v1/stream" in answer.url):
        assert connect(page, own, 14) == ""
    assert page.evaluate("read('late', 'none').errorCode") == "FLAG_NOT_FOUND"
    page.wait_for_timeout(200)
    own.stop()
    with page.expect_response(lambda answer: "/ofrep/v1/stream" in answer.url and answer.status == 200):
        # What is changed at the very start is in force before the page is back: it tries every 5 s.
        own.start()
        own.create("metrics", shop.METRIC)
        own.create("experiments", shop.experiment("late"))
        own.move("late", "running")
    page.wait_for_function("read('late', 'none').value !== 'none'", timeout=10_000)


def test_polling_takes_over_where_no_stream_is_left(page: Page, tmp_path: Path, website: Website) -> None:
    served = opened(tmp_path, website.url, UPTURN_STREAMS="1")
    try:
        listening = urllib.request.Request(f"{served.url}/v1/stream", headers={"X-API-Key": served.keys["app"]})
        with urllib.request.urlopen(listening, timeout=20):
            statuses: list[tuple[str, int]] = []
            page.on("response", lambda answer: statuses.append((answer.url, answer.status)))
            assert connect(page, served, 16, pollInterval=100) == ""
            asked = "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/flags')).length"
            page.wait_for_function(f"{asked} > 3")
            served.stop()  # ends although a stream is open
        assert [status for url, status in statuses if "/stream" in url] == [503]
        assert [status for url, status in statuses if url.endswith(BULK)][:3] == [200, 304, 304]
    finally:
        served.stop()
