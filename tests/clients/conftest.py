"""A served instance that every client is pointed at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.clients import shop
from tests.clients.served import Served, opened
from tests.clients.website import Website

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="session")
def website(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """A web site of another origin than the instance's."""
    with Website(tmp_path_factory.mktemp("website")) as website:
        yield website


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, website: Website) -> Iterator[Served]:
    """A served store with the shop's experiments, and what is on record of half of 10,000 users."""
    served = opened(tmp_path_factory.mktemp("served"), website.url)
    try:
        served.create("metrics", shop.METRIC)
        for segment in shop.SEGMENTS:
            served.create("segments", segment)
        served.create("layers", shop.LAYER)
        served.create("holdouts", shop.HOLDOUT)
        for document in (*shop.EXPERIMENTS, shop.DRAFT):
            served.create("experiments", document)
        for key in shop.RUNNING:
            served.move(key, "running")
        told = [
            {"type": "identify", "messageId": f"i{i}", "userId": shop.user(i), "traits": shop.attributes(i)}
            for i in range(10_000)
            if shop.is_on_record(i)
        ]
        served.send(told)
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="session")
def expected(served: Served) -> list[dict[str, Any]]:
    """What ``POST /v1/assignments`` answers for each of 10,000 users, by experiment."""
    users = [{"user": shop.user(i), "attributes": shop.known_to_app(i)} for i in range(10_000)]
    return served.assignments(users, [*shop.RUNNING, "draft"])


# Not for the session: while Playwright is open, an event loop runs in this thread, and asyncio allows no other.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium: run tests/system-packages.sh")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()
