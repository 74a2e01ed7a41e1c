"""Shares that follow the evidence on the pages: the form, the plan, the results, the list of experiments."""

import json
import re
from typing import Any

import pytest
from flask import Flask
from msgspec import structs

from experiments import registry
from experiments.codes import Verdict
from experiments.documents import Kind, Status
from experiments.store import Store
from experiments.waves import Adaptive
from tests.web import made, rich
from tests.web.browser import Browser
from tests.web.pages.test_making import begin, inputs, send, stored
from tests.web.pages.test_results import page, visible

ADAPTIVE = {"floor": 0.2, "wave": 0.25, "every_hours": 12, "burn_in_users": 40}
DOCUMENT = made.PLAIN | {"adaptive": ADAPTIVE}


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app.test_client(), logged_in=True, language="en")


@pytest.fixture
def draft(store: Store) -> Store:
    made.documents(store)
    with store.write() as session:
        registry.create(session, Kind.experiment, DOCUMENT, actor="setup", now=made.NOW)
    return store


def edit(browser: Browser, key: str) -> str:
    browser.get("/experiments/new")
    return str(browser.post(f"/experiments/{key}/edit").headers["Location"]).rsplit("/", 1)[0]


def test_off_at_first_and_folded(browser: Browser, store: Store) -> None:
    form = begin(browser, "copy_test")
    for step in ("goal", "audience", "variants", "metrics"):
        send(browser, form, step)
    fields = inputs(browser.get(f"{form}/plan").text)
    assert "adaptive" not in fields
    assert [fields[name] for name in ("a_floor", "a_hours", "a_wave")] == [["10"], ["24"], ["10"]]
    send(browser, form, "plan", planned="1000")
    key = send(browser, form, "check", go="create").rsplit("/", 1)[1]
    assert stored(store, key).adaptive is None


def test_ticked_it_is_in_the_document_and_unticked_out_again(browser: Browser, store: Store) -> None:
    form = begin(browser, "copy_test")
    for step in ("goal", "audience", "variants", "metrics"):
        send(browser, form, step)
    send(browser, form, "plan", planned="1000", adaptive="1", a_floor="15", a_hours="48", a_wave="20")
    key = send(browser, form, "check", go="create").rsplit("/", 1)[1]
    assert stored(store, key).adaptive == Adaptive(floor=0.15, wave=0.2, every_hours=48)
    form = edit(browser, key)
    fields = inputs(browser.get(f"{form}/plan").text)
    assert [fields[name] for name in ("adaptive", "a_floor", "a_hours", "a_wave")] == [["1"], ["15"], ["48"], ["20"]]
    send(browser, form, "plan", adaptive=[])
    send(browser, form, "check", go="create")
    assert stored(store, key).adaptive is None


def test_what_the_form_does_not_ask_for_stays(browser: Browser, draft: Store) -> None:
    form = edit(browser, "plain")
    send(browser, form, "plan", a_hours="36")
    send(browser, form, "check", go="create")
    assert stored(draft, "plain").adaptive == Adaptive(**ADAPTIVE | {"every_hours": 36})


@pytest.mark.parametrize(
    ("step", "change", "field", "said"),
    [
        ("plan", {"a_floor": "60"}, "a_floor", "give a number from 1 to 50"),
        ("plan", {"a_hours": "1.5"}, "a_hours", "Give a whole number."),
        ("plan", {"a_wave": "0"}, "a_wave", "give a number from 0.1 to 100"),
        ("variants", {"v0_weight": "50", "v1_weight": "50"}, "v0_weight", "Leave the shares of users empty"),
        ("audience", {"coverage": "50"}, "coverage", "Let everyone take part"),
        ("audience", {"who": "segments", "segments": "new"}, "segments", "Choose everyone, or write a rule"),
    ],
)
def test_what_the_document_refuses_is_told_at_its_field(
    browser: Browser, draft: Store, step: str, change: dict[str, Any], field: str, said: str
) -> None:
    form = edit(browser, "plain")
    assert send(browser, form, step, **change).endswith(f"{step}?check=1")
    text = browser.get(f"{form}/{step}?check=1").text
    told = re.search(rf'id="{field}-error">([^<]*)<', text)
    assert told is not None
    assert said in told[1]
    answer = browser.post(f"{form}/check", inputs(browser.get(f"{form}/check").text) | {"go": "create"})
    assert str(answer.headers["Location"]).endswith("/check")
    assert stored(draft, "plain").revision == 1


def test_a_floor_for_too_many_variants_is_refused(browser: Browser, draft: Store) -> None:
    form = edit(browser, "plain")
    send(browser, form, "variants", go="add")
    send(browser, form, "plan", a_floor="40")
    assert "3 variants with it are more than a wave" in browser.get(f"{form}/plan?check=1").text


def test_shares_cannot_follow_every_metric(browser: Browser, draft: Store) -> None:
    with draft.write() as session:
        wait = {"key": "wait", "name": "Wait", "kind": "time_to_event", "event": "buy", "window_days": 7}
        registry.create(session, Kind.metric, wait, actor="setup", now=made.NOW)
    form = edit(browser, "plain")
    send(browser, form, "metrics", primary="wait")
    assert "choose another metric" in browser.get(f"{form}/plan?check=1").text


@pytest.mark.parametrize(
    ("language", "setting", "wave"),
    [("en", "every 12 hours at the earliest a wave of 25%", "Wave 2"), ("zh", "最快每 12 小时放入一批用户", "第 2 批")],
)
def test_the_plan_says_the_setting_and_names_the_waves(
    app: Flask, draft: Store, language: str, setting: str, wave: str
) -> None:
    browser = Browser(app.test_client(), logged_in=True, language=language)
    assert setting in visible(browser.get("/experiments/plain/plan").text)
    with draft.write() as session:
        registry.move(session, "plain", Status.running, actor="setup", now=made.NOW)
        registry.open_wave(session, "plain", {"a": 0.3, "b": 0.7}, revision=2, actor="adaptive", now=made.NOW)
    text = visible(browser.get("/experiments/plain/plan").text)
    assert wave in text
    assert "plain:2" not in text


def test_the_results_tell_how_the_shares_moved(app: Flask, draft: Store) -> None:
    report = rich.waves()
    text = page(app, report, "en", draft)
    part = next(s for s in re.findall(r"<section.*?</section>", text, flags=re.S) if 'id="waves"' in s)
    assert report.adaptive is not None
    seen = visible(part)
    assert "the differences are taken within waves and combined" in seen
    for wave in report.adaptive.waves:
        assert f"Wave {wave.number}" in seen
        for variant, share in wave.shares.items():
            assert f"{100 * share:.1f}% · {wave.observed[variant]:,} users" in seen
    spec = json.loads(re.findall(r'data-spec="waves">(.*?)</script>', part, flags=re.S)[0])
    drawn = {(row["wave"], row["variant"]): row["share"] for row in spec["datasets"]["rows"]}
    assert drawn[3, "Ten yuan"] == 80.0
    assert spec["datasets"]["floor"] == [{"floor": 10.0}]


def test_untrusted_waves_stand_with_the_health(app: Flask, draft: Store) -> None:
    report = rich.waves()
    assert "Users of each wave" not in page(app, report, "en", draft)
    blamed = structs.replace(report, decision=structs.replace(report.decision, verdict=Verdict.invalid))
    text = page(app, blamed, "en", draft)
    assert 'id="waves"' not in text
    browser = Browser(app.test_client(), logged_in=True, language="en")
    assert "Users of each wave" in browser.get(f"/experiments/{made.KEY}/health").text
