"""Every page that can be reached: valid HTML, no serious fault of accessibility, no overflow, a quiet console."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urldefrag, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask
from playwright.sync_api import Browser, Page
from werkzeug.exceptions import HTTPException

from experiments.settings import Oidc, Settings
from experiments.store import Store
from tests.clients import node
from tests.e2e.furnished import NOW, furnish
from tests.e2e.reader import NARROW, WIDE, drawn, follow, log_in, overflow, reading
from tests.e2e.site import serving
from tests.experiments.uplift import campaign
from tests.web import made
from web import create_app

# Answers that are no pages: files, pictures, what scripts ask for.
FILES = (".json", ".csv", ".parquet", ".xlsx", ".svg", ".png", ".js", ".css")
# Leads to the company's login; parts of a page, which its script asks for.
ELSEWHERE = ("oidc.begin", "studies.progress", "lists.progress")
# Of these the pages of all experiments are seen, for their states differ.
EACH = ("experiments.show", "policies.show")
SERIOUS = ("serious", "critical")


@dataclass
class Site:
    app: Flask
    address: str
    reached: dict[str, str] = field(default_factory=dict)
    endpoints: set[str] = field(default_factory=set)

    def page(self, path: str) -> tuple[str, str]:
        """Return what answers an address, and which of its pages: a tab, a step, or the state of an experiment."""
        endpoint, given = self.app.url_map.bind("").match(urlsplit(path).path, method="GET")
        shown = [given.get(name, "") for name in ("tab", "step")]
        return endpoint, "/".join([endpoint, *shown, given["key"] if endpoint in EACH else ""])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A store with something on every page, where a start takes two, and one may log in through the company."""
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    furnish(store)
    company = Oidc("https://login.example.com", "upturn", "secret")
    store = Store.on(replace(store.settings, two_persons=True, oidc=company), store.engine)
    app = create_app(store=store, clock=lambda: NOW)
    with serving(app) as address:
        yield Site(app, address)
    store.close()


@pytest.fixture(scope="module")
def server(site: Site) -> str:
    return site.address


def links(page: Page) -> list[str]:
    """Return where links lead, and what scripts ask for."""
    found = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
    asked = page.eval_on_selector_all("[data-poll]", "all => all.map(e => new URL(e.dataset.poll, location).href)")
    return [urldefrag(link)[0] for link in [*found, *asked]]


def settle(page: Page) -> None:
    page.evaluate("document.querySelectorAll('main details').forEach(e => e.open = true)")
    drawn(page)


@pytest.fixture(scope="module")
def paths(browser: Browser, site: Site) -> list[str]:
    """One address for each page that links lead to, from the overview on."""
    with reading(browser, site.address) as page:
        log_in(page)
        waiting = ["/login", "/", f"/experiments/{campaign.KEY}/uplift", f"/experiments/{made.KEY}", "/experiments/new"]
        page.goto("/experiments/new")
        follow(page, page.locator("[name=preset]").first)
        waiting.append(page.url.removeprefix(site.address))
        while waiting:
            path = waiting.pop(0)
            try:
                endpoint, shown = site.page(path)
            except HTTPException:
                pytest.fail(f"a link to {path} leads nowhere")
            if shown in site.reached:
                continue
            site.reached[shown] = path
            site.endpoints.add(endpoint)
            if urlsplit(path).path.endswith(FILES) or endpoint in ELSEWHERE:
                continue
            answer = page.goto(path)
            assert answer is not None
            assert answer.ok, path
            for link in links(page):
                if link.startswith(site.address):
                    waiting.append(link.removeprefix(site.address))
    return [
        path
        for path in site.reached.values()
        if not urlsplit(path).path.endswith(FILES) and site.page(path)[0] not in ELSEWHERE
    ]


def faults(page: Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [
        (fault["id"], fault["help"], [spot["html"][:300] for spot in fault["nodes"]][:3])
        for fault in found
        if fault["impact"] in SERIOUS
    ]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param({}, id="desktop"),
        pytest.param(
            {"viewport": NARROW, "locale": "zh-CN", "color_scheme": "dark"}, id="phone", marks=pytest.mark.study
        ),
    ],
    indirect=True,
)
def test_no_serious_fault_of_accessibility_and_nothing_overflows(page: Page, paths: list[str]) -> None:
    log_in(page)
    found = {}
    for path in paths:
        page.goto(path)
        settle(page)
        if wrong := [*faults(page), *(["overflows"] if overflow(page) else [])]:
            found[path] = wrong
    assert found == {}


def test_the_html_is_valid(browser: Browser, site: Site, paths: list[str]) -> None:
    folder = node.installed()
    texts = {}
    with reading(browser, site.address, viewport=WIDE) as page:
        log_in(page)
        for path in paths:
            answer = page.goto(path)
            assert answer is not None
            texts[path] = answer.text()
    assert node.run(folder, "validate.js", texts) == []


@pytest.mark.usefixtures("paths")
def test_every_page_is_linked_from_somewhere(site: Site) -> None:
    pages = {
        rule.endpoint
        for rule in site.app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and not rule.rule.startswith(("/v1", "/ofrep", "/api", "/sub", "/assets"))
    }
    # The company's login answers there; a list that is being made, and a study, are asked for by a script.
    unlinked = {"static", "health", "openapi", "oidc.answer", "lists.progress", "studies.progress"}
    assert pages - site.endpoints <= unlinked
