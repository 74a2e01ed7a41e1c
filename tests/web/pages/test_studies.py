"""The uplift page: a study is asked for, watched, read, downloaded and rolled out; and lists of users are made."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from flask import Flask
from msgspec import structs
from sqlalchemy import update

from experiments import ingest, registry
from experiments.documents import Kind, Status
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import SavedStudy
from experiments.uplift import lists, report, studies
from experiments.uplift.job import Work
from experiments.uplift.list_job import ListWork
from experiments.uplift.studies import StudyRequest
from tests.experiments.uplift import campaign
from tests.web import made
from tests.web.browser import Browser
from tests.web.conftest import Clock
from tests.web.pages.test_people import as_role
from tests.web.pages.test_results import visible
from tests.web.test_formats import EN
from web.pages.uplift import spending, uplift
from web.pages.uplift.answered import Asked

PAGE = f"/experiments/{campaign.KEY}/uplift"
LATER = timedelta(days=campaign.DAYS)
COUNT = 1500
QUICK = {"metric": "spend", "features": "attributes", "learners": "quick", "depth": "1", "budget": ""}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, template: tuple[Path, object]) -> Path:
    """The folder of a store with the campaign and a finished study of it."""
    folder = tmp_path_factory.mktemp("studied") / "store"
    shutil.copytree(template[0], folder)
    store = Store.open(Settings.in_folder(folder, timezone="Asia/Shanghai"))
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, COUNT)
    wish = StudyRequest(learners=["t"], folds=3, depth=1, features="attributes")
    study, _ = studies.ask(store, campaign.KEY, wish, now=made.NOW + LATER)
    Work(store, study.id, lambda: 0.0).run()
    store.close()
    return folder


@pytest.fixture
def store(studied: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(studied, tmp_path / "store")
    store = Store.open(Settings.in_folder(tmp_path / "store", timezone="Asia/Shanghai"))
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(made.NOW + LATER)


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app.test_client(), logged_in=True)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Studies and lists are not started: their ids instead."""
    asked: list[str] = []
    for module in (studies, lists):
        monkeypatch.setattr(module, "start", lambda _, name: asked.append(name))
    return asked


def study_of(store: Store) -> tuple[str, report.Uplift]:
    with store.read() as session:
        (entry,) = studies.listing(session, campaign.KEY, now=made.NOW + LATER)
        found = studies.find(session, entry.id, now=made.NOW + LATER)
    assert found.report is not None
    return found.id, report.decode(bytes(found.report))


def test_the_page_says_for_whom_it_pays(store: Store, browser: Browser) -> None:
    _, said = study_of(store)
    text = browser.get(PAGE).text
    seen = visible(text)
    best = next(each for each in said.policies if each.policy == "tree")
    assert "Give different users different variants." in seen
    assert best.gain is not None
    month = EN.money(1000 * best.gain.estimate, "CNY")
    assert re.search(rf"{re.escape(month)} \(\S+ to \S+\) a month more than the best variant for all", seen)
    assert "If city is not north → hold" in seen
    assert "If city is north → gift" in seen
    for each in said.quadrants:
        assert EN.count(each.users) in seen
    assert "Persuadables" in seen
    assert "Each what the rules say" in seen
    assert "city" in seen[seen.index("What the difference rests on") :]
    assert "card: too many different values" in seen
    assert text.count("data-chart=") == 4
    assert "How much more the top of the list gains" in seen
    assert "Each segment its best variant" in seen
    assert "members" in seen[seen.index("The best variant of each segment") :]
    chinese = visible(Browser(browser.client, logged_in=True, language="zh-CN").get(PAGE).text)
    for word in ("对谁有效", "可说服", "勿扰", "如果 city 为 north", "每种做法的价值"):
        assert word in chinese


def test_a_study_is_asked_for_watched_and_found(store: Store, browser: Browser, started: list[str]) -> None:
    browser.get(PAGE)
    answer = browser.post(PAGE, QUICK | {"leave_out": ["user.age"]})
    assert (answer.status_code, len(started)) == (303, 1)
    text = browser.get(PAGE).text
    assert f'data-poll="/studies/{started[0]}/progress"' in text
    assert "A study is under way" in visible(text)
    assert "Give different users different variants." in visible(text)
    assert "Start the study" not in text
    assert 'data-state="queued"' in browser.get(f"/studies/{started[0]}/progress").text
    assert browser.post(PAGE, QUICK | {"depth": "2"}).status_code == 303
    assert "Another study is at work" in visible(browser.get(PAGE).text)
    Work(store, started[0], lambda: 0.0).run()
    assert 'data-state="done"' in browser.get(f"/studies/{started[0]}/progress").text
    seen = browser.get(PAGE).text
    assert "age: left out as you asked" in visible(seen)
    assert re.search(r'value="user.age" checked', seen)
    assert len(started) == 1


def test_what_is_wrong_is_marked_and_nothing_is_lost(browser: Browser, started: list[str]) -> None:
    browser.get(PAGE)
    answer = browser.post(PAGE, QUICK | {"budget": "much", "depth": "3", "metric": "left"})
    assert answer.status_code == 422
    assert re.search(
        r'name="budget"[^>]* value="much" aria-invalid="true" aria-describedby="budget-wrong"', answer.text
    )
    assert '<option value="left" selected>' in answer.text
    assert "<option selected>3</option>" in answer.text
    assert "Give a number above 0" in visible(answer.text)
    # A budget on a metric that is not about money.
    answer = browser.post(PAGE, QUICK | {"budget": "50", "metric": "left"})
    assert "a budget needs variants with costs" in visible(answer.text)
    assert 'value="50" aria-invalid="true"' in answer.text
    assert '"basket"' not in answer.text
    assert started == []


def test_a_failed_study_says_why_and_what_to_do(store: Store, browser: Browser, started: list[str]) -> None:
    browser.get(PAGE)
    browser.post(PAGE, QUICK | {"depth": "2"})
    problems = (studies.Refused("user.age", "known_after_treatment"),)
    failure = json.dumps(
        {
            "code": "invalid_document",
            "detail": "x",
            "problems": [{"field": p.field, "problem": p.problem} for p in problems],
        }
    )
    with store.write() as session:
        session.execute(update(SavedStudy).where(SavedStudy.id == started[0]).values(status="failed", error=failure))
    seen = visible(browser.get(PAGE).text)
    assert "“age” differs between the variants, so it was known only after the treatment" in seen
    assert "Study again" in seen


def test_a_budget_is_answered_without_scripts_too(store: Store, browser: Browser) -> None:
    _, said = study_of(store)
    point = said.budget.points[7]
    seen = visible(browser.get(f"{PAGE}?budget={point.spend}").text)
    assert f"Users reached {EN.count(point.contacts)} " in seen
    assert EN.money(point.realised.estimate, "CNY") in seen
    assert f"hold {EN.count(point.users['hold'])} gift {EN.count(point.users['gift'])}" in seen
    wrong = browser.get(f"{PAGE}?budget=much").text
    assert re.search(r'name="budget" value="much"[^>]*aria-invalid="true"', wrong)
    assert "“much” is no amount: give a number from 0 to" in visible(wrong)
    most = visible(browser.get(f"{PAGE}?budget=1e9").text)
    assert f"Users reached {EN.count(said.budget.points[-1].contacts)} " in most


def test_between_two_points_of_the_curve_all_is_linear(store: Store) -> None:
    _, said = study_of(store)
    one, other = said.budget.points[3:5]
    here = spending.point_at(said, (one.spend + other.spend) / 2)
    assert here.expected == pytest.approx((one.expected + other.expected) / 2)
    assert here.realised.lower == pytest.approx((one.realised.lower + other.realised.lower) / 2)
    assert sum(here.users.values()) in (said.users - 1, said.users, said.users + 1)


def test_charts_and_scores_are_downloaded(store: Store, browser: Browser) -> None:
    study, said = study_of(store)
    rows = list(csv.DictReader(io.StringIO(browser.get(f"{PAGE}/chart/uplift-curve.csv").text)))
    assert [int(row["users"]) for row in rows] == [point.contacts for point in said.budget.points]
    assert float(rows[-1]["estimate"]) == pytest.approx(said.budget.points[-1].realised.estimate)
    assert browser.get(f"{PAGE}/chart/uplift-spending.csv").status_code == 200
    assert browser.get(f"{PAGE}/chart/uplift-calibration-gift.csv").status_code == 200
    curve = list(csv.DictReader(io.StringIO(browser.get(f"{PAGE}/chart/uplift-toc-gift.csv").text)))
    assert [float(row["percent"]) for row in curve] == pytest.approx([5 * k for k in range(1, 21)])
    assert browser.get(f"{PAGE}/chart/nothing.csv").status_code == 404
    lines = list(csv.DictReader(io.StringIO(browser.get(f"/studies/{study}/scores.csv").text)))
    table = pq.read_table(io.BytesIO(browser.get(f"/studies/{study}/scores.parquet").data))
    assert [line["user"] for line in lines] == table["user"].to_pylist()
    assert len(lines) == COUNT
    assert browser.get("/studies/nothing/scores.csv").status_code == 404
    assert b"login" in browser.client.application.test_client().get(f"/studies/{study}/scores.csv").data  # type: ignore[union-attr]


def test_every_chart_is_a_picture_too_in_the_readers_language(app: Flask, store: Store, browser: Browser) -> None:
    text = browser.get(PAGE).text
    drawn = re.findall(r'data-chart="([\w-]+)"', text)
    links = re.findall(rf'href="({PAGE}/chart/([\w-]+)\.(\w+)\?study=\w+)"', text)
    assert sorted((name, kind) for _, name, kind in links) == sorted(
        (name, kind) for name in drawn for kind in ("csv", "png", "svg")
    )
    for address, name, kind in links:
        answer = browser.get(address)
        assert answer.status_code == 200
        assert f"filename={campaign.KEY}-{name}.{kind}" in answer.headers["Content-Disposition"]
        assert answer.mimetype == {"csv": "text/csv", "png": "image/png", "svg": "image/svg+xml"}[kind]
    assert browser.get(f"{PAGE}/chart/uplift-toc-gift.png").data.startswith(b"\x89PNG")
    curve = f"{PAGE}/chart/uplift-curve.svg"
    assert "Users reached, percent of all" in browser.get(curve).text
    chinese = Browser(app.test_client(), logged_in=True, language="zh-CN")
    assert "覆盖用户占比" in chinese.get(curve).text
    assert "bom=1" in chinese.get(PAGE).text
    for kind in ("svg", "png"):
        assert browser.get(f"{PAGE}/chart/nothing.{kind}").status_code == 404
        assert browser.get(f"/experiments/nothing/uplift/chart/uplift-curve.{kind}").status_code == 404
    assert browser.get(f"{PAGE}/chart/uplift-curve.gif").status_code == 404
    stranger = app.test_client().get(curve)
    assert (stranger.status_code, b"<svg" in stranger.data) == (302, False)


def test_the_rules_become_the_draft_of_a_policy(app: Flask, store: Store) -> None:
    study, _ = study_of(store)
    viewer = as_role(app, store, "viewer")
    assert "Roll out these rules" not in viewer.get(PAGE).text
    assert viewer.post(f"/studies/{study}/policy").status_code == 403
    editor = as_role(app, store, "editor")
    assert "Roll out these rules" in editor.get(PAGE).text
    answer = editor.post(f"/studies/{study}/policy")
    assert answer.headers["Location"] == f"/policies/{campaign.KEY}"
    seen = visible(editor.get(answer.headers["Location"]).text)
    assert "city is north gift" in seen
    assert "nothing measured yet" in seen
    editor.post(f"/studies/{study}/policy")
    seen = visible(editor.get(PAGE).text)
    assert "There is a policy for this experiment already" in seen
    assert "Go to the policy" in seen


def test_a_list_is_made_within_a_budget_and_rolled_out(
    app: Flask, store: Store, browser: Browser, started: list[str]
) -> None:
    study, _ = study_of(store)
    browser.get(PAGE)
    answer = browser.post(f"/studies/{study}/list", {"unit": "budget", "budget": "40", "who": "participants"})
    assert answer.headers["Location"].endswith("#lists")
    (name,) = started
    assert f'data-poll="/lists/{name}/progress"' in browser.get(PAGE).text
    assert 'data-state="queued"' in browser.get(f"/lists/{name}/progress").text
    ListWork(store, name, lambda: 0.0).run()
    text = browser.get(PAGE).text
    assert "budget CN¥40.00" in visible(text)
    assert "gift: 200" in visible(text)
    users = list(csv.DictReader(io.StringIO(browser.get(f"/lists/{name}.csv").text)))
    assert len(users) == COUNT
    editor = as_role(app, store, "editor")
    assert "Roll out this list" not in editor.get(PAGE).text
    assert editor.post(f"/lists/{name}/policy").status_code == 403
    answer = browser.post(f"/lists/{name}/policy")
    assert answer.headers["Location"] == f"/policies/{campaign.KEY}"
    seen = visible(browser.get(answer.headers["Location"]).text)
    assert "From a model" in seen
    assert "On the list of users for it gift" in seen


def test_stock_and_a_cap_on_touches_limit_a_list(store: Store, browser: Browser, started: list[str]) -> None:
    study, _ = study_of(store)
    page = browser.get(PAGE).text
    assert "More limits" in page
    assert '<option value="age"></option>' in page
    form = {"unit": "budget", "budget": "40", "who": "participants", "contacts": "1,000"}
    cap = {"stock-gift": "150", "cap-gift": "age", "test-gift": "$lt", "value-gift": "60"}
    assert browser.post(f"/studies/{study}/list", form | cap).status_code == 303
    with store.read() as session:
        entry = lists.find(session, started[0], now=made.NOW + LATER)
    assert (entry.settings["stock"], entry.settings["contacts"]) == ({"gift": 150}, 1000)
    assert entry.settings["allowed"] == {"gift": {"age": {"$lt": 60}}}
    # Caps ask for what is on record of a user.
    known: list[tuple[int, ingest.AnyItem]] = [
        (i, ingest.Identify(f"i{i}", f"u{i}", traits=msgspec.Raw(msgspec.json.encode({"age": person["age"]}))))
        for i, person in enumerate(campaign.attributes(COUNT))
    ]
    with store.write() as session:
        assert not ingest.store(session, store.catalog(session), known, now=made.NOW + LATER).rejected
    ListWork(store, entry.id, lambda: 0.0).run()
    users = list(csv.DictReader(io.StringIO(browser.get(f"/lists/{entry.id}.csv").text)))
    people = campaign.attributes(COUNT)
    ages = [people[int(line["user"][1:])]["age"] for line in users if line["variant"] == "gift"]
    assert len(ages) == 150
    assert max(ages) < 60
    seen = visible(browser.get(PAGE).text)
    assert "“gift” for at most 150 users · “gift” only if age is below 60" in seen
    assert "gift: 150" in seen


@pytest.mark.parametrize(
    ("field", "entered", "said"),
    [
        ("budget", "little", "“little” is no amount"),
        ("stock-gift", "few", "“few” is no amount"),
        ("stock-gift", "-3", "“-3” is no amount"),
        ("value-gift", "often", "Give a number to compare with."),
        ("value-gift", "", "Give a number to compare with."),
        ("cap-gift", "", "Name the attribute."),
    ],
)
def test_what_is_wrong_with_a_limit_is_marked(
    store: Store, browser: Browser, started: list[str], field: str, entered: str, said: str
) -> None:
    study, _ = study_of(store)
    browser.get(PAGE)
    form = {
        "unit": "budget",
        "budget": "40",
        "who": "users",
        "stock-gift": "9",
        "cap-gift": "pushes",
        "test-gift": "$lt",
    }
    answer = browser.post(f"/studies/{study}/list", form | {"value-gift": "4"} | {field: entered})
    assert (answer.status_code, started) == (422, [])
    text = answer.text
    assert said in visible(text)
    if field != "budget":
        assert f'aria-describedby="{field}-unfit"' in text
        kept = {"stock-gift": "9", "cap-gift": "pushes", "value-gift": "4"} | {field: entered}
        for name, value in kept.items():
            assert re.search(rf'name="{name}"[^>]* value="{re.escape(value)}"', text)
    assert '<option value="users" selected>' in text


def test_a_limit_by_a_word_or_a_truth_value(store: Store, browser: Browser, started: list[str]) -> None:
    study, _ = study_of(store)
    browser.get(PAGE)
    for test, value, condition in (("$eq", "north", "north"), ("$ne", "true", True), ("$eq", "3", 3)):
        form = {"unit": "contacts", "budget": "30", "cap-gift": "x", "test-gift": test, "value-gift": value}
        browser.post(f"/studies/{study}/list", form)
        with store.read() as session:
            entry = lists.find(session, started[-1], now=made.NOW + LATER)
        assert entry.settings["allowed"] == {"gift": {"x": {test: condition}}}
        ListWork(store, entry.id, lambda: 0.0).run()


def test_before_the_start_there_is_nobody_to_study(app: Flask, store: Store, browser: Browser) -> None:
    with store.write() as session:
        body = campaign.EXPERIMENT | {"key": "next"}
        registry.create(session, Kind.experiment, body, actor="x", now=made.NOW)
    seen = visible(browser.get("/experiments/next/uplift").text)
    assert "there is nobody to study" in seen
    with store.write() as session:
        registry.move(session, "next", Status.running, actor="x", now=made.NOW)
    assert "Start the study" in visible(browser.get("/experiments/next/uplift").text)
    assert browser.get("/experiments/none/uplift").status_code == 404


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("rank", "if you cannot reach all, take the top of the list"),
        ("everyone", "No usable difference between users: give everyone “Gift”."),
        ("nobody", "keep “Hold”"),
        ("inconclusive", "no variant is shown to be better for all"),
        ("invalid", "Do not use this"),
    ],
)
def test_every_verdict_has_its_sentence(app: Flask, store: Store, verdict: str, sentence: str) -> None:
    _, said = study_of(store)
    changed = structs.replace(
        said, verdict=verdict, usable=verdict == "rank", variant="gift" if verdict in ("rank", "everyone") else None
    )
    asked = Asked("Spend", True, (("hold", "Hold"), ("gift", "Gift")), 1000)
    with app.test_request_context(headers={"Accept-Language": "en"}):
        shown = uplift.shown(report.encode(changed), asked, studies.Notes(), EN)
        assert sentence in shown.said.sentence
        assert shown.said.reasons
        assert (shown.said.worth != "") == (verdict in ("rank", "everyone"))
        if verdict == "invalid":
            assert [shown.tree, shown.quadrants, shown.calibration, shown.treats] == [[], [], [], False]
