"""Makes the pictures of the documentation: ``python -m tests.e2e.pictures``.

The main pages are those of the demo, as ``upturn demo`` leaves it; the guide's are of a shop whose marketer tries a
text. Each in English and in Chinese.
"""

import io
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from experiments import access
from experiments.access import Scope
from experiments.demo import frequency, hillstrom, uplift
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import CHROMIUM, FLAGS, NARROW, drawn, log_in, reading
from tests.e2e.shop import Shop
from tests.e2e.site import serving
from tests.web import made
from tests.web.conftest import Clock
from web import create_app

FOLDER = Path(__file__).parents[2] / "docs" / "img"
LANGUAGES = {"en": "en-US", "zh": "zh-CN"}
COLOURS = 96
RESULTS = f"/experiments/{hillstrom.EXPERIMENT}"
PAGES = {
    "overview": "/",
    "results": RESULTS,
    "segments": f"{RESULTS}/segments",
    "uplift": f"{RESULTS}/uplift",
    "policy": f"/policies/{uplift.POLICY}",
    "tactics": "/tactics",
    "programme": "/programme",
    "people": "/people",
}
# The guide's window: as wide as its text, and no higher than the shortest page.
GUIDE, HIGH = {"width": 960, "height": 400}, {"width": 960, "height": 720}
ON_RECORD = 60_000


def keep(name: str, picture: bytes) -> None:
    """Write a picture with few colours: that of a page needs no more."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image = image.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(FOLDER / f"{name}.png", optimize=True)


def shoot(page: Page, name: str, *, whole: bool = False) -> None:
    """Keep what is in the window, or the whole page."""
    drawn(page)
    keep(name, page.screenshot(full_page=whole, animations="disabled"))


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[Store]:
    """A store in which the tests' admin has an account."""
    store = Store.open(Settings.in_folder(folder, **settings), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, role="admin", now=made.NOW)
    yield store
    store.close()


def demo(browser: Browser, folder: Path) -> None:
    """Replay the demo, and keep the main pages."""
    environment = os.environ | Settings.in_folder(folder, currency="USD").to_env()
    subprocess.run(
        [sys.executable, "-m", "experiments.cli", "demo", "--no-serve", "--folder", folder],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    subprocess.run([sys.executable, "-m", "experiments.demo.uplift"], check=True, env=environment)
    with opened(folder, currency="USD") as store, serving(create_app(store=store)) as address:
        with store.write() as session:
            for login, role in (("li", "approver"), ("chen", "editor"), ("boss", "viewer")):
                access.create_account(session, login, made.PASSWORD, role=role, now=made.NOW)
        for code, locale in LANGUAGES.items():
            with reading(browser, address, locale=locale) as page:
                log_in(page)
                for name, path in PAGES.items():
                    page.goto(path)
                    shoot(page, f"{name}-{code}")
                page.goto(f"/experiments/{frequency.EXPERIMENT}")
                drawn(page)
                keep(f"frequency-{code}", page.locator("#frequency").screenshot())
            for name, looks in (("narrow", {"viewport": NARROW}), ("dark", {"color_scheme": "dark"})):
                with reading(browser, address, locale=locale, **looks) as page:
                    log_in(page)
                    page.goto(RESULTS)
                    shoot(page, f"results-{name}-{code}")


def guide(browser: Browser, folder: Path, code: str) -> None:
    """Try a text, read the answer, decide, roll out and look at what came of it."""
    clock = Clock(made.NOW)
    with (
        opened(folder, timezone="Asia/Shanghai", currency="CNY") as store,
        serving(create_app(store=store, clock=clock)) as address,
        reading(browser, address, locale=LANGUAGES[code], viewport=GUIDE) as page,
    ):
        with store.write() as session:
            key = access.create_key(session, "app", [Scope.ingest, Scope.assign], now=made.NOW)
        shop = Shop(store, clock, address, key, users=40_000, new=8)
        shop.past(ON_RECORD)
        steps = iter(range(1, 100))

        def step(what: Callable[[], object] | Locator | None = None, *, whole: bool = True) -> None:
            page.set_viewport_size(GUIDE if whole else HIGH)
            shoot(page, f"guide-{next(steps)}-{code}", whole=whole)
            if what is not None:
                with page.expect_navigation():
                    what.click() if isinstance(what, Locator) else what()

        log_in(page)
        step(page.locator("main a.primary").first)
        step(page.locator("button[value=copy_test]"))
        onward = page.locator("main .actions button.primary")
        step(onward)
        step(onward)
        page.select_option("#channel", "push")
        step(onward)
        step(onward)
        step(onward)
        step(page.locator("button[value=start]"))
        experiment = page.url.rsplit("/", 1)[1]
        step()
        shop.live(experiment)
        update = page.locator("main form[action$='/report'] button")
        with page.expect_navigation():
            update.click()
        step(page.locator("button[value=stopped]"), whole=False)
        page.goto(f"/experiments/{experiment}/decision")
        page.fill("#reason", {"en": "More clicks, and nobody leaves for it.", "zh": "点击更多，退订没有增加。"}[code])
        step(page.locator("#decision button.primary"))
        with page.expect_navigation():
            page.locator("#decision button.primary").click()
        step(page.locator("button[value=running]"), whole=False)
        shop.live(page.url.rsplit("/", 1)[1])
        with page.expect_navigation():
            update.click()
        step()


def main() -> None:
    """Make all pictures anew."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for code in LANGUAGES:
            guide(browser, Path(name) / code, code)
        demo(browser, Path(name) / "demo")
        browser.close()


if __name__ == "__main__":
    main()
