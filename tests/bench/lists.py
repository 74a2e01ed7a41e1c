"""The time of the pages that list everything, with 1,000 experiments and their reports.

    python -m tests.bench.lists [--experiments N] [--repeats R]

Printed are milliseconds of the server for each page: the first time, when every report is decoded, and from then on.
The bar is 300 ms from then on.
"""

import argparse
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments import access
from experiments.settings import Settings
from experiments.store import Store
from tests.web import made, many
from tests.web.browser import Browser
from web import create_app

BAR_MS = 300.0
PAGES = ("/", "/?q=winback", "/?group=decided", "/programme?period=year", "/tactics", "/tactics.csv")


def measure(experiments: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Return, for each page, the first time and the median of the others."""
    found = {}
    with TemporaryDirectory() as folder:
        store = Store.open(Settings.in_folder(Path(folder)), migrate=True)
        with store.write() as session:
            access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
        many.fill(store, experiments)
        app = create_app(store=store, clock=lambda: made.NOW + timedelta(hours=1))
        browser = Browser(app.test_client(), logged_in=True)
        for page in PAGES:
            times = []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                assert browser.get(page).status_code == 200
                times.append((time.perf_counter() - start) * 1000)
            found[page] = (times[0], sorted(times[1:])[repeats // 2])
        store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    for page, (first, then) in measure(given.experiments, given.repeats).items():
        print(f"{page:28} first {first:7.0f} ms, then {then:6.0f} ms {'' if then <= BAR_MS else '  above the bar'}")


if __name__ == "__main__":
    main()
