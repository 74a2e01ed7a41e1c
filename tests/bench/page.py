"""The time and the weight of the results page, made from a saved report.

    python -m tests.bench.page [--repeats R]

The report is that of a large experiment: 10 metrics, 3 variants, 5 segments, 60 days, a million users. Each request is
answered with nothing kept from the one before (but templates and translations); the bar is 150 ms of CPU a page. The
weight counts what a browser fetches for the first view: page, style, scripts, the chart library compressed; the bar is
1.5 MB. Where there is a browser, the median time until it first paints something of the page is measured too, in a new
context each time, so that it fetches all; the bar is a second.
"""

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flask import Flask
from msgspec import structs
from playwright.sync_api import sync_playwright

from experiments import access
from experiments.report import ArmCount, ArmMean, Interval, MetricReport, Report, SampleRatio, TimelinePoint
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import CHROMIUM, FLAGS, drawn, log_in, reading
from tests.e2e.site import serving
from tests.web import made
from tests.web.browser import Browser
from web import assets, create_app
from web.pages.reports import results

BAR_MS, BAR_BYTES, BAR_PAINT_MS = 150.0, 1_500_000, 1_000.0
USERS, METRICS, SEGMENTS, DAYS = 1_000_000, 10, 5, 60
TABS = ("", "/segments", "/time", "/health", "/plan", "/decision")


def report() -> Report:
    """The report, with numbers made up."""
    rng = np.random.default_rng(20241122)
    variants, segments = ("none", "ten", "twenty"), [f"s{i}" for i in range(SEGMENTS)]

    def metric(number: int) -> MetricReport:
        scopes = [None, *segments]
        role = "primary" if number == 0 else "guardrail" if number > 7 else "secondary"
        found = made.metric(
            f"m{number}",
            role,
            [
                made.comparison(v, float(rng.normal(0, 0.01)), 0.004 if s is None else 0.01, s)
                for s in scopes
                for v in variants[1:]
            ],
            matured=USERS,
            arms=[
                ArmMean(v, s, USERS // 3 if s is None else USERS // 3 // SEGMENTS, 0.1, 0.0005)
                for s in scopes
                for v in variants
            ],
        )
        if number:
            return found
        course = [
            TimelinePoint(
                f"2026-{9 + day // 30:02}-{day % 30 + 1:02}", v, USERS * (day + 1) // DAYS, Interval(0, -1, 1)
            )
            for day in range(DAYS)
            for v in variants[1:]
        ]
        return structs.replace(found, timeline=course)

    third = USERS // 3
    return structs.replace(
        made.full_report(),
        arms=[ArmCount(v, v.title(), third, third, third) for v in variants],
        srm=SampleRatio(0.9, dict.fromkeys(variants, float(third)), dict.fromkeys(variants, third), None),
        segments={s: f"Segment {s}" for s in segments},
        segment_srm=[],
        metrics=[metric(i) for i in range(METRICS)],
    )


def measure(work: Callable[[], object], repeats: int) -> float:
    """Return the median of the CPU time in milliseconds."""
    times = []
    for _ in range(repeats):
        results.shown.cache_clear()
        start = time.process_time()
        work()
        times.append((time.process_time() - start) * 1_000)
    return statistics.median(times)


def first_paint(app: Flask, repeats: int) -> float | None:
    """Return the median of the milliseconds until the first contentful paint, None where there is no browser."""
    if not CHROMIUM.exists():
        return None
    times = []
    with serving(app) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for _ in range(repeats):
            with reading(browser, address) as page:
                log_in(page)
                results.shown.cache_clear()
                page.goto(f"/experiments/{made.KEY}")
                drawn(page)
                times.append(
                    float(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                )
        browser.close()
    return round(statistics.median(times), 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Settings.in_folder(Path(folder)), migrate=True)
        with store.write() as session:
            access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
        made.documents(store)
        made.save(store, report())
        app = create_app(store=store, clock=lambda: made.NOW)
        browser = Browser(app.test_client(), logged_in=True)
        pages = {}
        for tab in TABS:
            path = f"/experiments/{made.KEY}{tab}"
            browser.get(path)
            pages[tab or "/"] = round(measure(lambda path=path: browser.get(path), options.repeats), 1)  # type: ignore[misc]
        page = browser.get(f"/experiments/{made.KEY}").data
        static = [Path(str(app.static_folder)) / name for name in ("style.css", "charts.js")]
        library = len(assets.bundle(store.settings.folder).compressed)
        weight = len(page) + sum(path.stat().st_size for path in static) + library
        paint = first_paint(app, 7)
        store.close()
    found = {
        "ms": pages,
        "bar_ms": BAR_MS,
        "page_bytes": len(page),
        "page_bytes_compressed": len(gzip.compress(page)),
        "library_bytes": library,
        "weight": weight,
        "bar_bytes": BAR_BYTES,
        "first_paint_ms": paint,
        "bar_paint_ms": BAR_PAINT_MS,
        "ok": max(pages.values()) <= BAR_MS and weight <= BAR_BYTES and (paint or 0) <= BAR_PAINT_MS,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
