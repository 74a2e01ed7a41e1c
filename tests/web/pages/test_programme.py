"""The pages on all experiments together: the programme and the library of tactics."""

import csv
import io
from datetime import timedelta

import pytest
from flask import Flask

from experiments import ingest, registry
from experiments.documents import Kind
from experiments.store import Store
from tests.web import made, many
from tests.web.browser import Browser
from tests.web.pages.test_results import visible


def _seen(app: Flask, path: str, language: str = "en") -> str:
    answer = Browser(app.test_client(), logged_in=True, language=language).get(path)
    assert answer.status_code == 200
    return visible(answer.text)


def test_the_pages_of_an_empty_store_say_so(app: Flask) -> None:
    seen = _seen(app, "/programme")
    assert "Nothing was rolled out in this period." in seen
    assert "No users are held out of all experiments." in seen
    assert "Nothing to show yet" in _seen(app, "/tactics")
    assert "暂时没有内容" in _seen(app, "/tactics", "zh")


def test_the_programme_shows_both_sums(app: Flask, store: Store) -> None:
    many.fill(store, 60)
    seen = _seen(app, "/programme?from=2026-01-01&to=2026-11-22")
    assert "Without the luck of the winners" in seen
    assert "Added up as each report said" in seen
    assert "Learnt from 36 experiments" in seen
    assert "胜率" in _seen(app, "/programme?period=year", "zh")


def test_too_few_experiments_are_told_honestly(app: Flask, store: Store) -> None:
    many.fill(store, 3, seed=1)
    seen = _seen(app, "/programme?from=2026-01-01&to=2026-11-22")
    assert ("Too few experiments are over" in seen) or ("Nothing was rolled out" in seen)


@pytest.mark.parametrize("query", ["from=x", "from=2026-02-02&to=2026-01-01", "to=0000-00-00"])
def test_a_bad_period_is_told_and_the_page_still_works(app: Flask, query: str) -> None:
    assert "Give two days" in _seen(app, f"/programme?{query}")


def test_the_holdout_is_calculated_by_a_button(app: Flask, store: Store) -> None:
    with store.write() as session:
        registry.create(session, Kind.holdout, {"key": "away", "name": "Away", "share": 0.5}, actor="x", now=made.NOW)
        registry.create(session, Kind.metric, many.SPEND, actor="x", now=made.NOW)
        before, lately = made.NOW - timedelta(days=120), made.NOW - timedelta(days=20)
        items: list[ingest.AnyItem] = []
        for i in range(400):
            items.append(ingest.Event(message_id=f"a{i}", user_id=f"u{i}", timestamp=before, event="open"))
            paid = ingest.Event(
                message_id=f"b{i}", user_id=f"u{i}", timestamp=lately, event="purchase", value=5.0 + i % 7
            )
            items.append(paid)
        ingest.store(session, store.catalog(session), list(enumerate(items)), now=made.NOW - timedelta(days=1))
    browser = Browser(app.test_client(), logged_in=True)
    assert "Not calculated yet" in visible(browser.get("/programme").text)
    answer = browser.post("/programme/holdout", {"period": "90d", "holdout": "away", "metric": "spend"})
    assert answer.status_code == 303
    seen = visible(browser.get(answer.headers["Location"]).text)
    assert "Operations contributed" in seen
    assert "There are no single wins on this metric" in seen
    # Before anybody was known.
    answer = browser.post("/programme/holdout", {"from": "2020-01-01", "to": "2020-02-01"})
    assert "Nobody was known before this period" in visible(browser.get(answer.headers["Location"]).text)


def test_tactics_are_listed_filtered_and_downloaded(app: Flask, store: Store) -> None:
    many.fill(store, 30)
    seen = _seen(app, "/tactics")
    assert "Come back!" in seen
    assert "time a week · Push" in seen
    assert "coupon: 10" in _seen(app, "/tactics?kind=offer")
    assert "No tactic matches." in _seen(app, "/tactics?q=nothing-like-it")
    assert "每周" in _seen(app, "/tactics?channel=sms", "zh")
    answer = Browser(app.test_client(), logged_in=True).get("/tactics.csv?segment=*")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows
    assert {row["segment"] for row in rows} == {""}
    assert all(float(row["lift_lower"]) <= float(row["lift"]) <= float(row["lift_upper"]) for row in rows)


@pytest.mark.parametrize("path", ["/programme", "/tactics", "/tactics.csv"])
def test_only_people_who_are_logged_in_see_them(app: Flask, path: str) -> None:
    assert app.test_client().get(path).status_code == 302
