"""A reader at a real browser: how it is started, what he does on every page, and what no page may do to him."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

from tests.web import made

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@contextmanager
def reading(browser: Browser, server: str, *, refused: int = 0, **options: Any) -> Iterator[Page]:
    """Open a page of a reader of his own; afterwards fail on any error in the console, or request to elsewhere.

    ``refused`` is a status that the reader is to meet: of it the console may tell.
    """
    context = browser.new_context(base_url=server, **({"viewport": WIDE, "locale": "en-US"} | options))
    page = context.new_page()
    page.set_default_timeout(20_000)
    troubles: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and f"a status of {refused} " not in message.text:
            troubles.append(message.text)

    def asked(sent: Request) -> None:
        if not sent.url.startswith((server, "data:", "blob:")):
            troubles.append(sent.url)

    page.on("console", heard)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", asked)
    page.add_init_script("addEventListener('securitypolicyviolation', e => console.error(e.violatedDirective))")
    yield page
    context.close()
    assert troubles == []


def log_in(page: Page, login: str = made.LOGIN, password: str = made.PASSWORD) -> None:
    """Log in and arrive at the overview."""
    page.goto("/login")
    page.fill("#login", login)
    page.fill("#password", password)
    page.click("button.primary")
    page.wait_for_url("**/")


def follow(page: Page, what: Locator) -> None:
    """Press a link or button, and wait for the page that comes then."""
    with page.expect_navigation():
        what.click()


def drawn(page: Page) -> None:
    """Wait until every chart is drawn that is not folded away."""
    # Not by a function that is asked again and again: the pages' policy refuses to compile it.
    page.wait_for_selector("[data-chart]:not([data-drawn]):not(details:not([open]) *)", state="detached")


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than the window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def each_reader() -> list[Any]:
    """Return both languages, each on a desktop in the light and on a phone in the dark."""
    return [
        pytest.param({"viewport": viewport, "locale": locale, "color_scheme": scheme}, id=f"{locale}-{name}-{scheme}")
        for locale in ("en-US", "zh-CN")
        for name, viewport, scheme in (("wide", WIDE, "light"), ("narrow", NARROW, "dark"))
    ]
