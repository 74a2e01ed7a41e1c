"""The sides of an experiment: the first screen's pictures, segments with their roll-out, plan, frozen reports."""

import hashlib
import io
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from msgspec import structs
from PIL import Image

from experiments import registry
from experiments.codes import Verdict
from experiments.documents import Experiment, Kind, Status, parse
from experiments.report import Interval, MetricReport, TimelinePoint
from experiments.store import Store
from tests.web import made, rich
from tests.web.browser import Browser
from tests.web.pages.test_results import PATH, visible
from tests.web.test_formats import EN
from web.pages.reports import bars, matrix, reach, scorecard
from web.pages.reports.planned import digest


@pytest.fixture
def started(store: Store) -> Store:
    made.documents(store)
    return store


@pytest.fixture
def browser(app: Flask, started: Store) -> Browser:
    made.save(started, made.full_report())
    return Browser(app.test_client(), logged_in=True)


def document(**fields: Any) -> Experiment:
    experiment: Experiment = parse(Kind.experiment, made.EXPERIMENT | fields)
    return experiment


@pytest.mark.parametrize(("tab", "part"), [("segments", "segments"), ("time", "timeline")])
def test_only_the_open_tab_draws_its_charts(browser: Browser, tab: str, part: str) -> None:
    drawn = {
        path: set(re.findall(r'data-chart="([\w-]+)"', browser.get(path).text))
        for path in (PATH, f"{PATH}/{tab}", f"{PATH}/health", f"{PATH}/plan", f"{PATH}/decision")
    }
    assert drawn[PATH] == {"effects-visit", "effects-spend", "effects-unsub"}
    assert drawn[f"{PATH}/{tab}"] == {part}
    assert not drawn[f"{PATH}/health"] | drawn[f"{PATH}/plan"] | drawn[f"{PATH}/decision"]
    text = browser.get(f"{PATH}/{tab}").text
    assert re.findall(r'href="([^"]+)" aria-current="page"', text) == [f"{PATH}/{tab}"]
    assert "/assets/vega" not in browser.get(f"{PATH}/plan").text


def test_a_tab_that_does_not_exist_is_not_found(browser: Browser) -> None:
    assert browser.get(f"{PATH}/nothing").status_code == 404
    assert browser.get("/experiments/nowhere/plan").status_code == 404


# The scorecard.


@pytest.fixture
def request_(app: Flask) -> Any:
    with app.test_request_context():
        yield


@pytest.mark.usefixtures("request_")
def test_the_scorecard_puts_all_metrics_on_one_scale_and_tells_why_a_number_is_missing() -> None:
    found = scorecard.scorecard(made.full_report(), document(), "relative", EN)
    lines = {(entry.key, line.variant): line for entry in found.entries for line in entry.lines}
    visit, spend = lines["visit", "Ten yuan"], lines["spend", "Ten yuan"]
    assert (visit.estimate, visit.word, visit.level, visit.control_level) == ("+76.6%", "better", "18.30%", "10.60%")
    assert (spend.bar, spend.problem) == (None, "Control is too close to zero for a percentage.")
    first, second = visit.bar, lines["visit", "Twenty yuan"].bar
    assert first is not None
    assert second is not None
    # 76.6 % and 45.0 % lie on one scale.
    assert (first.estimate - first.zero) / (second.estimate - second.zero) == pytest.approx(0.766 / 0.45, rel=0.01)


@pytest.mark.usefixtures("request_")
def test_absolute_effects_have_a_scale_for_each_metric() -> None:
    found = scorecard.scorecard(made.full_report(), document(), "absolute", EN)
    assert found.ends is None
    line = found.entries[0].lines[0]
    assert (line.estimate, line.lower, line.upper) == ("+7.66 pp", "+6.66", "+8.66 pp")


@pytest.mark.usefixtures("request_")
def test_net_value_takes_margin_and_costs_off_and_is_offered_only_with_a_plan_for_money() -> None:
    variants = [made.EXPERIMENT["variants"][0], {"key": "ten", "name": "Ten yuan", "costs": {"per_user": "0.02"}}]  # type: ignore[index]
    value = {"metric": "visit", "monthly_users": 1000, "margin": 0.5}
    found = scorecard.scorecard(made.full_report(), document(variants=variants, value=value), "net", EN)
    assert [entry.key for entry in found.entries] == ["visit"]
    ten = found.entries[0].lines[0]
    # (0.0766 ± 0.01) × 0.5 − 0.02
    assert (ten.estimate, ten.lower, ten.upper) == ("+CN¥0.0183", "+CN¥0.0133", "+CN¥0.0233")
    assert ten.reading == "better"
    without = scorecard.scorecard(made.full_report(), document(value=None), "net", EN)
    assert without.view == "relative"
    assert [code for code, _ in without.views] == ["relative", "absolute"]


def test_a_picture_cuts_what_lies_beyond_it_and_hatches_what_is_forbidden() -> None:
    cut = bars.bar(Interval(0.5, -0.2, 5.0), 1.0)
    assert cut.cut == (False, True)
    assert cut.upper == bars.bar(Interval(0.5, -0.2, 1.0), 1.0).upper
    for limit, start in ((-0.5, 0.0), (0.5, None)):
        zone = bars.bar(Interval(0.1, 0.0, 0.2), 1.0, limit).zone
        assert zone is not None
        assert (zone[0] == 0.0) == (start == 0.0)
        assert sum(zone) <= bars.WIDTH


# Reach and progress.


@pytest.mark.usefixtures("request_")
def test_the_reach_has_the_steps_that_the_data_know() -> None:
    plain = reach.reach(made.full_report(), EN)
    assert [title for title, _ in plain.stages] == ["Assigned", "Exposed", "Matured", "Acted"]
    assert [stage.text for stage in plain.arms[1].stages] == ["20,010", "20,000", "20,000", "18.3%"]
    report = rich.frequency()
    rich_reach = reach.reach(report, EN)
    assert [title for title, _ in rich_reach.stages] == ["Assigned", "Exposed", "Matured", "Due", "Reached"]
    one = rich_reach.arms[1]
    complier, fired = report.compliers[0], report.triggered[0]
    assert complier.received is not None
    assert one.stages[4].text == EN.share(complier.received)
    assert one.stages[3].text == EN.count(fired.users)
    assert rich_reach.arms[0].stages[3].text == EN.count(fired.users_control)
    invalid = reach.reach(made.invalid_report(), EN)
    assert [title for title, _ in invalid.stages] == ["Assigned", "Exposed", "Matured"]


def course(*days: int) -> MetricReport:
    """A metric of two variants to whose users each day adds so many."""
    total, points = 0, []
    for number, users in enumerate(days, 1):
        total += users
        for variant in ("ten", "twenty"):
            points.append(TimelinePoint(f"2026-11-{number:02}", variant, total, Interval(0.1, 0.0, 0.2)))
    return made.metric("visit", "primary", [made.comparison("ten", 0.1, 0.2)], timeline=points, matured=total)


def test_the_days_left_follow_from_the_users_of_the_last_days() -> None:
    assert reach.days_left(course(100, 100, 100, 100, 100), 250) == (3, 3)
    low, high = reach.days_left(course(100, 60, 140, 90, 110, 80, 120), 1000) or (0, 0)
    assert high is not None
    assert low < 10 < high
    assert reach.days_left(course(100, 100, 100), 250) is None
    assert reach.days_left(course(100, 0, 0, 0, 0), 250) is None
    # A day on which nobody came counts, too.
    gap = course(100, 100, 100, 100, 100, 100, 100)
    kept = [point for point in gap.timeline if point.day not in ("2026-11-03", "2026-11-05")]
    assert reach.days_left(structs.replace(gap, timeline=kept), 250) == reach.days_left(
        course(100, 100, 0, 200, 0, 200, 100), 250
    )
    _, never = reach.days_left(course(100, 0, 0, 0, 50), 250) or (0, 0)
    assert never is None


@pytest.mark.usefixtures("request_")
def test_progress_is_told_while_there_is_something_to_wait_for() -> None:
    metric = course(100, 100, 100, 100, 100)
    running = made.full_report(Verdict.keep_running, metrics=[metric], value=None)
    running = structs.replace(running, method=structs.replace(running.method, planned_users=2000))
    found = reach.progress(running, EN)
    assert found is not None
    assert (found.share, found.text) == (0.25, "500 of 2,000 planned users")
    assert found.left == "About 15 more days"
    # Half as wide with four times the users.
    assert "known to ±20 pp today, at the planned size to about ±10 pp" in found.precision
    assert reach.progress(made.full_report(), EN) is None


# Segments.


@pytest.mark.usefixtures("request_")
def test_the_matrix_shows_evidence_money_and_why_a_cell_is_empty() -> None:
    segments = {body["key"]: parse(Kind.segment, body) for body in made.SEGMENTS}
    (found,) = matrix.matrices(made.full_report(), document(), segments, EN)
    assert found.columns == ["Ten yuan", "Twenty yuan"]
    new, loyal = found.rows
    ten, (_, empty) = new.cells[0], loyal.cells
    assert ten is not None
    assert empty is not None
    assert (ten.effect, ten.dots, ten.users, ten.word) == ("+8.00 pp", 3, "20,000", "better")
    # 0.08 × 1000 users a month, half of whom are new.
    assert ten.money == "+CN¥40.00 a month"
    assert (empty.reason, empty.effect, empty.dots) == ("Too few users to compare.", "", 0)
    assert matrix.matrices(made.invalid_report(), document(), segments, EN) == []


@pytest.mark.usefixtures("request_")
def test_segments_that_cross_tier_and_stage_stand_in_a_square() -> None:
    parts = [("gold", "tier"), ("plain", "tier"), ("young", "lifecycle"), ("old", "lifecycle")]
    bodies = [{"key": key, "name": key.title(), "kind": kind, "condition": {kind: key}} for key, kind in parts]
    pairs = [("gold", "young"), ("gold", "old"), ("plain", "young")]
    bodies += [{"key": f"{t}-{s}", "name": f"{t} {s}", "condition": {"tier": t, "lifecycle": s}} for t, s in pairs]
    segments = {str(body["key"]): parse(Kind.segment, body) for body in bodies}
    report = made.full_report()
    keys = [f"{t}-{s}" for t, s in pairs]
    comparisons = [made.comparison("ten", 0.08, 0.02, key) for key in keys]
    primary = structs.replace(report.primary(), comparisons=[made.comparison("ten", 0.0766, 0.01), *comparisons])
    report = structs.replace(report, segments=dict.fromkeys(keys, "x"), metrics=[primary])
    ten, _ = matrix.matrices(report, document(strata=[]), segments, EN)
    assert ten.columns == ["Young", "Old"]
    assert [row.name for row in ten.rows] == ["Gold", "Plain"]
    assert [[cell.segment if cell else None for cell in row.cells] for row in ten.rows] == [
        ["gold-young", "gold-old"],
        ["plain-young", None],
    ]


def test_ticked_segments_tell_their_money_and_become_a_policy_once_decided(
    app: Flask, started: Store, browser: Browser
) -> None:
    ticked = f"{PATH}/segments?variant=ten&segment=new"
    seen = browser.get(ticked).text
    assert "About +CN¥40.00 a month, between +CN¥30.00 and +CN¥50.00." in visible(seen)
    assert "Stop the experiment and record the decision first." in seen
    assert f'href="{PATH}/decision?variant=ten&amp;segment=new"' in seen
    assert "Tick at least one segment" in browser.get(f"{PATH}/segments?variant=ten").text
    browser.post(f"{PATH}/policy", {"variant": "ten", "segment": "new"})
    assert "Record the decision first" in browser.get(PATH).text

    browser.post(f"{PATH}/status", {"status": "stopped"})
    browser.post(f"{PATH}/decision", {"variant": "ten", "reason": "Sells more.", "report": "made"})
    assert "Draft the policy" in browser.get(ticked).text
    answer = browser.post(f"{PATH}/policy", {"variant": "ten", "segment": "new"})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/policies/{made.KEY}")
    with started.read() as session:
        policy = registry.get(session, Kind.policy, made.KEY)
    assert {rule.segment: rule.variant for rule in policy.rules} == {"new": "ten", "loyal": "none"}
    assert policy.source.report == "made"
    browser.post(f"{PATH}/policy")
    assert "There is one with this key already." in browser.get(f"{PATH}/decision").text


# Plan.


def test_the_plan_is_told_in_words_with_the_document_and_its_digest(started: Store, browser: Browser) -> None:
    text = browser.get(f"{PATH}/plan").text
    seen = visible(text)
    for sentence in (
        "Compare Ten yuan with No coupon by Visit rate.",
        "Guardrail: Unsubscribe rate may change by +1.0 pp at most.",
        "Planned size: 200 users over all variants.",
        "Users compared 60,000 60,000",
    ):
        assert sentence in seen
    with started.read() as session:
        experiment = registry.get(session, Kind.experiment, made.KEY)
    canonical = json.dumps(experiment.to_json(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == digest(experiment)
    assert digest(experiment) in text
    assert 'href="/reports/made"' in text


# Reports that never change, files and pictures.


def test_a_report_keeps_its_address_and_says_when_there_is_a_newer_one(started: Store, browser: Browser) -> None:
    seen = visible(browser.get("/reports/made").text)
    assert "This report was made on 22 Nov 2026, 18:00 and never changes. It is the newest one" in seen
    assert "Roll out Ten yuan to everyone." in seen
    made.save(started, structs.replace(made.full_report(Verdict.stop), watermark=8), "later")
    with started.write() as session:
        registry.move(session, made.KEY, Status.stopped, actor="x", now=made.NOW + timedelta(days=1))
    old = browser.get("/reports/made").text
    assert f'<a href="{PATH}">There is a newer one.' in old
    assert "Roll out Ten yuan to everyone." in old
    assert "Stop, and keep No coupon." in browser.get(PATH).text
    assert browser.get("/reports/nothing").status_code == 404


def test_the_printed_report_has_pictures_instead_of_scripts_and_nothing_folded(browser: Browser) -> None:
    text = browser.get("/reports/made/print").text
    assert "<script" not in text
    pictures = re.findall(r'<img src="([^"]+)"', text)
    assert {name.rpartition("/")[2] for name in pictures} == {
        "effects-visit.svg",
        "effects-spend.svg",
        "effects-unsub.svg",
        "segments.svg",
        "timeline.svg",
    }
    assert browser.get(pictures[0]).mimetype == "image/svg+xml"
    assert re.findall(r'<details class="metric"[^>]*>', text) == re.findall(r'<details class="metric"[^>]* open>', text)


def test_a_picture_of_data_that_cannot_be_trusted_does_not_exist(started: Store, browser: Browser) -> None:
    assert browser.get(f"{PATH}/chart/effects-visit.svg").status_code == 200
    made.save(started, made.invalid_report())
    assert browser.get(f"{PATH}/chart/effects-visit.svg").status_code == 404
    assert browser.get(f"{PATH}/chart/nothing.png").status_code == 404
    seen = visible(browser.get("/reports/made").text)
    assert "7.66" not in seen


def test_pictures_have_chinese_characters(app: Flask, browser: Browser) -> None:
    reader = Browser(app.test_client(), logged_in=True, language="zh")
    svg = reader.get(f"{PATH}/chart/effects-visit.svg").text
    assert "差异（百分点）" in svg
    assert "Difference" in browser.get(f"{PATH}/chart/effects-visit.svg").text
    with Image.open(io.BytesIO(reader.get(f"{PATH}/chart/effects-visit.png").data)) as image:
        assert image.width > 1_200
        assert len(image.getcolors(1 << 20) or []) > 10


def test_the_role_decides_what_is_offered(app: Flask, browser: Browser, started: Store) -> None:
    from experiments import access
    from experiments.access import Role as Grade

    with started.write() as session:
        access.create_account(session, "reader", made.PASSWORD, now=made.NOW, role=Grade.viewer)
    client = app.test_client()
    with client.session_transaction() as session_:
        session_["login"] = "reader"
    viewer = Browser(client)
    text = viewer.get(PATH).text
    assert "Update the numbers" not in text
    assert 'name="status"' not in text
    assert viewer.post(f"{PATH}/policy").status_code == 403
