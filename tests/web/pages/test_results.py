"""The results page in both languages and every state; what stands there is checked against the report."""

import csv
import html
import io
import json
import re
from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest
from flask import Flask
from msgspec import structs

from experiments import ingest, registry, report
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.documents import Kind, Status
from experiments.fields import Role
from experiments.report import Finding, Report
from experiments.store import Store
from stats.errors import Problem
from tests.web import made
from tests.web.browser import Browser
from tests.web.conftest import Clock
from tests.web.test_formats import EN, ZH
from web.formats import Formats
from web.pages.reports.tables import loss

PATH = f"/experiments/{made.KEY}"
REPORTS = made.each_verdict()
CODES: list[type[StrEnum]] = [Verdict, ReasonCode, HealthCode, Problem, Role, Status]


def visible(page: str) -> str:
    """The text that a reader sees."""
    page = re.sub(r"<(script|noscript|pre|code)\b.*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page))).replace("\u2060", "")


@pytest.fixture
def started(store: Store) -> Store:
    made.documents(store)
    return store


TABS = ("", "/segments", "/time", "/health", "/plan", "/decision")


def page(app: Flask, shown: Report, language: str, store: Store) -> str:
    """All pages of the experiment, one after the other."""
    made.save(store, shown)
    browser = Browser(app.test_client(), logged_in=True, language=language)
    answers = [browser.get(PATH + tab) for tab in TABS]
    assert {answer.status_code for answer in answers} == {200}
    first, *others = (str(answer.text) for answer in answers)
    return first + "".join(text.split('aria-current="page"', 1)[1] for text in others)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", REPORTS)
def test_every_verdict_is_shown_in_words_and_no_code_raw(app: Flask, started: Store, name: str, language: str) -> None:
    text = page(app, REPORTS[name], language, started)
    seen = visible(text.split("<main", 1)[1])
    raw = {code.value for codes in CODES for code in codes if "_" in code.value}
    assert not {word for word in re.findall(r"\w+", seen) if word in raw}
    assert "%(" not in seen
    assert not re.search(r"\b(nan|inf)\b", seen, re.I)
    assert f'<html lang="{"zh-Hans-CN" if language == "zh" else "en"}">' in text
    assert len(re.findall(r'<section class="card verdict', text)) == 1


@pytest.mark.parametrize("language", ["zh"])
@pytest.mark.parametrize("name", REPORTS)
def test_a_chinese_page_has_no_english_left(app: Flask, started: Store, name: str, language: str) -> None:
    seen = visible(page(app, REPORTS[name], language, started))
    known = (
        "Upturn English CSV JSON Parquet Holm Welch CUPED JavaScript z t p setup "
        "The visit spend unsub Recall coupon No Ten Twenty yuan New Loyal customers made "
        "XLSX SVG PNG SHA Visit Unsubscribe rate setup wang"
    )
    assert set(re.findall(r"[A-Za-z]+", seen)) <= set(known.split())


SENTENCES = {
    "ship": (
        "Roll out Ten yuan to everyone.",
        "About +CN¥49,269 a month, between +CN¥21,000 and +CN¥77,500.",
        "At worst: it still brings in CN¥21,000 a month",
    ),
    "ship_to_segments": ("Roll out Ten yuan to New customers.", "About +CN¥1,000 a month", "it loses CN¥250 a month"),
    "stop": ("Stop, and keep No coupon.", "The best variant: about −CN¥9.00 a month", "it loses CN¥12.00 a month"),
    "keep_running": (
        "Keep running: it is too early to decide.",
        "The visit with Ten yuan: +7.66 pp, between +6.66 and +8.66 pp.",
        "60,000 of 60,000 planned users",
    ),
    "inconclusive": ("No clear winner", "The visit with Ten yuan", "At worst: The visit: +6.66 pp"),
    "invalid": (
        "Do not decide on these data",
        "off by 2,505 of 55,020 users",
        "The split is not as planned (p <0.001)",
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_first_screen_says_what_to_do_what_it_is_worth_and_the_worst(app: Flask, started: Store, name: str) -> None:
    seen = visible(page(app, REPORTS[name], "en", started))
    for sentence in SENTENCES[name]:
        assert sentence in seen


def test_better_but_not_shown_to_be_safe_is_no_tie(app: Flask, started: Store) -> None:
    reasons = [ReasonCode.primary_better, ReasonCode.guardrail_not_proven]
    seen = visible(page(app, made.full_report(Verdict.inconclusive, reasons=reasons, value=None), "en", started))
    assert "Better, but not shown to be safe: do not roll it out yet." in seen
    assert "No clear winner" not in seen


def test_untrusted_data_blank_every_effect(app: Flask, started: Store) -> None:
    text = page(app, made.invalid_report(), "en", started)
    assert "data-chart" not in text
    for number in ("7.66", "+72", "Chance to be better", "0.0002", "limit"):
        assert number not in visible(text)
    browser = Browser(app.test_client(), logged_in=True)
    assert browser.get(f"{PATH}/chart/effects.csv").text.splitlines() == ["metric"]


def test_numbers_and_their_problems_stand_in_the_tables(app: Flask, started: Store) -> None:
    seen = visible(page(app, made.full_report(), "en", started))
    for text in (
        "+7.66 pp +6.66 to +8.66 pp",
        "Control is too close to zero for a percentage.",
        "Too few users to compare.",
        "The unsub · Ten yuan Safe +0.20 pp, limit +0.50 pp",
        "The unsub · Twenty yuan Harmed +0.90 pp, limit +0.50 pp",
        "z, pooled proportions",
        "25.0%",
        "2026-11-03",
        "Data up to 22 Nov 2026, 17:30",
    ):
        assert text in seen


@pytest.mark.parametrize(
    ("formats", "money", "share"), [(EN, "CN¥0.77", "0.77 pp"), (ZH, "¥0.77", "0.77 个百分点")], ids=["en", "zh"]
)
def test_a_loss_is_an_amount_without_a_sign_whichever_way_is_better(formats: Formats, money: str, share: str) -> None:
    main = made.full_report().primary()
    for direction in ("up", "down"):
        metric = structs.replace(main, direction=direction)
        assert loss(metric, 0.0077, formats) == share
        assert loss(structs.replace(metric, unit="money"), 0.77, formats).rstrip("0") == money


def test_findings_are_told_with_what_to_do(app: Flask, started: Store) -> None:
    subjects = {
        HealthCode.daily_sample_ratio_mismatch: "2026-11-02",
        HealthCode.different_before: "spend",
        HealthCode.outlier_influence: "spend",
        HealthCode.novelty: "ten",
        HealthCode.trigger_depends_on_variant: "twenty",
        HealthCode.effect_drifted: "ten",
    }
    found = [Finding(code, 12, 345, fatal=False, subject=subjects.get(code, "new")) for code in HealthCode]
    seen = visible(page(app, made.full_report(health=found), "en", started))
    assert "12 of 345 users saw more than one variant." in seen
    assert "In the segment New customers the split" in seen
    assert "2 Nov 2026: the 12 users of this day" in seen
    assert "The spend: the variants' users differed already before the experiment." in seen
    assert "Twenty yuan: the trigger fires more often or less often than with control." in seen
    assert "Ten yuan: today's effect lies outside" in seen


def test_charts_stand_in_the_page_as_data_and_match_their_downloads(app: Flask, started: Store) -> None:
    text = page(app, made.full_report(), "en", started)
    specs = dict(re.findall(r'data-spec="([^"]+)">(.*?)</script>', text, flags=re.S))
    assert specs.keys() == {"effects-visit", "effects-spend", "effects-unsub", "segments", "timeline"}
    browser = Browser(app.test_client(), logged_in=True)
    for name, count in (("effects", 6), ("segments", 3), ("timeline", 6)):
        drawn = [row for key, spec in specs.items() if key.startswith(name) for row in _values(json.loads(spec))]
        rows = list(csv.DictReader(io.StringIO(browser.get(f"{PATH}/chart/{name}.csv").text)))
        assert len(rows) == count
        assert {(row["lower"], row["upper"]) for row in rows} == {(str(r["lower"]), str(r["upper"])) for r in drawn}
    assert browser.get(f"{PATH}/chart/nothing.csv").status_code == 404


def _values(spec: Any) -> list[dict[str, Any]]:
    if isinstance(spec, dict):
        return [row for key, part in spec.items() for row in _values(part)] if "estimate" not in spec else [spec]
    return [row for part in spec for row in _values(part)] if isinstance(spec, list) else []


def test_the_same_address_gives_the_files_too(app: Flask, started: Store) -> None:
    text = page(app, shown := made.full_report(), "en", started)
    browser = Browser(app.test_client(), logged_in=True)
    assert report.decode(browser.get(f"{PATH}.json").data) == shown
    assert browser.get(f"{PATH}.csv").text.count("\n") == 11
    assert browser.get(f"{PATH}.parquet").data[:4] == b"PAR1"
    assert f'rel="alternate" type="application/json" href="{PATH}.json"' in text
    assert browser.get(f"{PATH}.csv?bom=1").data.startswith(b"\xef\xbb\xbf")


def test_without_a_report_the_page_says_what_to_do_next(app: Flask, store: Store) -> None:
    made.documents(store, start=False)
    browser = Browser(app.test_client(), logged_in=True)
    assert "This experiment is a draft." in browser.get(PATH).text
    answer = browser.post(f"{PATH}/status", {"status": "running"})
    assert (answer.status_code, answer.headers["Location"]) == (303, PATH)
    assert "Press “Update the numbers”" in browser.get(PATH).text
    assert browser.get(f"{PATH}.json").status_code == 404


def test_the_numbers_are_updated_by_a_button_and_newer_rows_are_announced(
    app: Flask, started: Store, clock: Clock
) -> None:
    made.facts(started, at=made.NOW - timedelta(days=5))
    browser = Browser(app.test_client(), logged_in=True)
    browser.get(PATH)
    assert browser.post(f"{PATH}/report").status_code == 303
    seen = visible(browser.get(PATH).text)
    assert "The numbers are up to date." in seen
    assert "240 of 200" not in seen
    assert "newer records wait" not in seen
    with started.write() as session:
        late = ingest.Event(message_id="late", user_id="u1", event="visit")
        ingest.store(session, started.catalog(session), [(0, late)], now=clock())
    assert "1 newer records wait to be analysed" in visible(browser.get(PATH).text)


def test_a_revision_after_the_report_is_announced_and_a_mere_step_is_not(app: Flask, started: Store) -> None:
    made.save(started, made.full_report())
    browser = Browser(app.test_client(), logged_in=True)
    browser.get(PATH)
    browser.post(f"{PATH}/status", {"status": "paused"})
    assert "The experiment was changed since" not in browser.get(PATH).text
    with started.write() as session:
        current = registry.get(session, Kind.experiment, made.KEY).to_json()
        registry.revise(session, Kind.experiment, made.KEY, current | {"name": "Renamed"}, actor="x", now=made.NOW)
    assert "The experiment was changed since" in browser.get(PATH).text


def test_an_experiment_is_stopped_and_decided_on_the_page(app: Flask, started: Store) -> None:
    made.save(started, made.full_report())
    browser = Browser(app.test_client(), logged_in=True)
    tab = f"{PATH}/decision"
    assert "No decision yet" in browser.get(tab).text
    browser.post(f"{PATH}/status", {"status": "stopped"})
    assert f'href="{tab}">Record the decision' in browser.get(PATH).text
    assert re.search(r'<option value="ten" selected>', browser.get(tab).text)
    asked = browser.get(f"{tab}?variant=none&segment=loyal").text
    assert re.search(r'<option value="none" selected>', asked)
    assert re.search(r'value="loyal" checked', asked)

    refused = browser.post(f"{PATH}/decision", {"variant": "none", "segments": ["loyal"], "reason": "  "})
    assert refused.status_code == 422
    assert "Choose a variant and give a reason." in refused.text
    assert 'aria-invalid="true" aria-describedby="reason-problem"' in refused.text
    assert re.search(r'<option value="none" selected>', refused.text)
    assert re.search(r'value="loyal" checked', refused.text)
    answer = browser.post(tab, {"variant": "ten", "segments": ["new"], "reason": "Sells more.", "report": "made"})
    assert (answer.status_code, answer.headers["Location"]) == (303, tab)
    seen = visible(browser.get(tab).text)
    assert "What was decided Ten yuan · New customers Sells more." in seen
    assert f"Decided by {made.LOGIN}, 22 Nov 2026, 18:00" in seen
    assert "Recommended Roll out Ten yuan to everyone. About +CN¥49,269 a month" in seen
    assert "Agreement other than recommended" in seen
    assert f"Decision recorded · {made.LOGIN}" in visible(browser.get(f"{PATH}/plan").text)
    with started.read() as session:
        experiment = registry.get(session, Kind.experiment, made.KEY)
    assert (experiment.status, experiment.decision.report) == (Status.decided, "made")


@pytest.mark.parametrize(
    ("status", "offered"),
    [
        (None, ["running", "archived"]),
        (Status.running, ["paused", "stopped"]),
        (Status.paused, ["running", "stopped"]),
        (Status.stopped, ["archived"]),
    ],
)
def test_only_the_steps_that_are_possible_are_offered(
    app: Flask, store: Store, status: Status | None, offered: list[str]
) -> None:
    made.documents(store, start=status is not None)
    if status not in (None, Status.running):
        with store.write() as session:
            registry.move(session, made.KEY, status, actor="x", now=made.NOW)
    text = Browser(app.test_client(), logged_in=True).get(PATH).text
    assert re.findall(r'name="status" value="(\w+)"', text) == offered


def test_a_step_that_came_too_late_is_explained(app: Flask, started: Store) -> None:
    browser = Browser(app.test_client(), logged_in=True)
    browser.get(PATH)
    with started.write() as session:
        registry.move(session, made.KEY, Status.stopped, actor="another", now=made.NOW)
    browser.post(f"{PATH}/status", {"status": "paused"})
    assert "Someone changed the experiment meanwhile." in browser.get(PATH).text
    assert browser.post(f"{PATH}/status", {"status": "nonsense"}).status_code == 400


def test_what_does_not_exist_is_a_page_in_the_readers_language(app: Flask) -> None:
    for language, text in (("en", "There is nothing at this address."), ("zh", "这个地址下没有内容")):
        browser = Browser(app.test_client(), logged_in=True, language=language)
        for path in ("/experiments/nowhere", "/nowhere", "/experiments/nowhere.csv"):
            answer = browser.get(path)
            assert (answer.status_code, text in answer.text) == (404, True)
        browser.get("/")
        assert browser.post("/experiments/nowhere/report").status_code == 404


def test_a_fault_of_ours_is_a_page_that_tells_nothing_of_the_inside(
    app: Flask, started: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(app.test_client(), logged_in=True)

    def broken(*_: object) -> None:
        raise RuntimeError("the inside")

    monkeypatch.setattr("experiments.reports.latest", broken)
    answer = browser.get(PATH)
    assert (answer.status_code, "the inside" in answer.text) == (500, False)
    assert "Something went wrong here." in answer.text


def test_a_report_of_another_version_hides_no_page_and_can_be_made_anew(app: Flask, started: Store) -> None:
    made.save(started, made.full_report())
    with started.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE reports SET body = replace(body, '\"alpha\"', '\"alfa\"'), watermark = 0")
    browser = Browser(app.test_client(), logged_in=True)
    assert "No report yet" in browser.get("/").text
    assert "Press “Update the numbers”" in browser.get(PATH).text
    browser.post(f"{PATH}/report")
    assert "Keep running: it is too early to decide." in browser.get(PATH).text
