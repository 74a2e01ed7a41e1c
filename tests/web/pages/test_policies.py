"""The pages of policies: what is served to whom, the promise and what came of it, and the ways to change it."""

import csv
import io
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args, get_type_hints

import pytest
from flask import Flask
from flask_babel import force_locale
from msgspec import structs

from experiments import audit, ingest, registry
from experiments.documents import Kind
from experiments.policy import Policy, PolicyStatus, Source
from experiments.promises import Delivery, Realised
from experiments.report import Interval, MoneyInterval
from experiments.store import Store
from experiments.uplift import report
from experiments.uplift.studies import StudyRequest, StudyStatus
from tests.web import made
from tests.web.browser import Browser
from tests.web.conftest import Clock
from tests.web.pages.test_people import as_role
from tests.web.pages.test_results import visible
from tests.web.test_formats import EN
from web import create_app, sentences, targeting
from web.pages.uplift import lists, rolledout

KEY = "recall-all"
PAGE = f"/policies/{KEY}"
POLICY: dict[str, Any] = {
    "key": KEY,
    "name": "Recall coupon, rolled out",
    "variants": [
        {"key": "none", "name": "No coupon"},
        {"key": "ten", "name": "Ten yuan", "costs": {"per_user": "0.1"}},
    ],
    "control": "none",
    "rules": [
        {"name": "loyal", "segment": "loyal", "variant": "ten"},
        {"name": "far", "condition": {"city": {"$ne": "north"}, "orders": {"$gte": 1}}, "variant": "ten"},
    ],
    "otherwise": "none",
    "holdback": {"share": 0.5},
    "metrics": [{"key": "visit"}, {"key": "unsub"}],
    "plan": {"planned_users": 200, "method": "fixed"},
    "value": {"metric": "visit", "monthly_users": 1000},
    "promise": {"metric": "visit", "relative": {"estimate": 0.5, "lower": 0.2, "upper": 0.8}},
    "source": {"kind": "segments", "experiment": made.KEY},
}


@pytest.fixture
def drafted(store: Store) -> Store:
    made.documents(store)
    with store.write() as session:
        registry.create(session, Kind.policy, POLICY, actor="li", now=made.NOW)
    return store


@pytest.fixture
def browser(app: Flask) -> Browser:
    found = Browser(app.test_client(), logged_in=True)
    found.get("/policies")
    return found


def policy_of(store: Store) -> Policy:
    with store.read() as session:
        found: Policy = registry.get(session, Kind.policy, KEY)
    return found


def send(store: Store, users: int) -> None:
    """Loyal users under the policy; of those treated every second visits, of those held back every third."""
    with store.write() as session:
        catalog = store.catalog(session)
        served = catalog.evaluator.experiments[KEY]
        items: list[ingest.AnyItem] = []
        for i in range(users):
            given = served.assign(f"p{i}", {"orders": 2})
            items.append(
                ingest.Exposure(
                    message_id=f"px{i}",
                    user_id=f"p{i}",
                    timestamp=made.NOW,
                    experiment=KEY,
                    variant=given.variant,
                    stratum=given.stratum,
                )
            )
            if i % (2 if given.variant == "ten" else 3) == 0:
                at = made.NOW + timedelta(hours=1)
                items.append(ingest.Event(message_id=f"pv{i}", user_id=f"p{i}", timestamp=at, event="visit"))
        now = made.NOW + timedelta(hours=2)
        assert not ingest.store(session, catalog, list(enumerate(items)), now=now).rejected


def test_without_a_policy_the_list_says_what_one_is(browser: Browser) -> None:
    assert "No policies yet" in visible(browser.get("/policies").text)
    assert browser.get("/policies/none").status_code == 404


def test_a_policy_goes_from_draft_to_a_measured_gain(drafted: Store, browser: Browser, clock: Clock) -> None:
    seen = visible(browser.get(PAGE).text)
    assert "The policy is a draft: nobody gets it yet." in seen
    assert "1. Loyal customers Ten yuan" in seen
    assert "2. city is not north and orders is at least 1 Ten yuan" in seen
    assert "Everyone else No coupon" in seen
    assert "Promised +50%, nothing measured yet" in seen
    for kind in ("csv", "svg", "png"):
        assert browser.get(f"{PAGE}/chart.{kind}").status_code == 404
    browser.get(PAGE)
    assert browser.post(f"{PAGE}/status", {"status": "running"}).status_code == 303
    assert policy_of(drafted).status is PolicyStatus.running
    send(drafted, 2000)
    clock.forward(days=2)
    browser.get(PAGE)
    browser.post(f"{PAGE}/report")
    text = browser.get(PAGE).text
    seen = visible(text)
    assert "The numbers are up to date." in seen
    assert "Promise kept" in seen
    assert re.search(r"Promised \+50%, realised \+[\d.]+% \(\+[\d.]+% to \+[\d.]+%\)", seen)
    assert re.search(r"\+CN¥[\d.]+ \(\S+ to \S+\) a month, net of costs", seen)
    assert re.search(r"1\. Loyal customers Ten yuan (9|1,0)\d\d (9|1,0)\d\d \+[\d.]+%", seen)
    assert text.count("data-chart=") == 1
    assert re.findall(rf'href="{PAGE}/chart\.(\w+)"', text) == ["svg", "png", "csv"]
    drawn = list(csv.DictReader(io.StringIO(browser.get(f"{PAGE}/chart.csv").text)))
    assert [row["line"] for row in drawn] == ["Promised", "Realised", "Rule 1"]
    assert float(drawn[0]["estimate"]) == 50
    assert "Promised" in browser.get(f"{PAGE}/chart.svg").text
    assert browser.get(f"{PAGE}/chart.png").data.startswith(b"\x89PNG")
    assert browser.get(f"{PAGE}/chart.gif").status_code == 404
    assert b"<svg" not in browser.client.application.test_client().get(f"{PAGE}/chart.svg").data  # type: ignore[union-attr]
    row = visible(browser.get("/policies").text)
    assert "Recall coupon, rolled out Running" in row
    assert "Loyal customers gets “Ten yuan”" in row
    assert "50%" in row
    assert "Promise kept" in row
    reader = Browser(browser.client, logged_in=True, language="zh-CN")
    assert "承诺" in reader.get(f"{PAGE}/chart.svg").text
    chinese = visible(reader.get(PAGE).text)
    for word in ("承诺兑现", "承诺 +50%", "city 不是 north，且 orders 不低于 1", "保留 50% 的用户"):
        assert word in chinese


def test_fewer_are_held_back_and_all_goes_back_in_one_step(drafted: Store, browser: Browser) -> None:
    browser.get(PAGE)
    browser.post(f"{PAGE}/status", {"status": "running"})
    browser.get(PAGE)
    wrong = browser.post(f"{PAGE}/holdback", {"share": "half", "revision": "2"})
    assert wrong.status_code == 422
    assert re.search(r'value="half"[^>]*aria-invalid="true"', wrong.text)
    assert "Give a number from 0 to 99.9" in visible(wrong.text)
    assert browser.post(f"{PAGE}/holdback", {"share": "100", "revision": "2"}).status_code == 422
    browser.post(f"{PAGE}/holdback", {"share": "5", "revision": "1"})
    assert "Someone changed the policy meanwhile" in visible(browser.get(PAGE).text)
    browser.post(f"{PAGE}/holdback", {"share": "5 %", "revision": "2"})
    assert policy_of(drafted).holdback.share == 0.05
    seen = visible(browser.get(PAGE).text)
    assert "From now on 5% of the users are held back." in seen
    assert "0.5 → 0.05" in seen
    browser.post(f"{PAGE}/rollback", {"to": "previous"})
    assert policy_of(drafted).holdback.share == 0.5
    browser.get(PAGE)
    browser.post(f"{PAGE}/rollback", {"to": "control"})
    found = policy_of(drafted)
    assert (found.rules, found.otherwise) == ([], "none")
    assert "Everyone No coupon" in visible(browser.get(PAGE).text)
    assert browser.post(f"{PAGE}/rollback", {"to": "anything"}).status_code == 400
    assert browser.post(f"{PAGE}/status", {"status": "anything"}).status_code == 400
    browser.get(PAGE)
    browser.post(f"{PAGE}/status", {"status": "stopped"})
    browser.get(PAGE)
    browser.post(f"{PAGE}/status", {"status": "running"})
    seen = visible(browser.get(PAGE).text)
    assert "Someone changed the policy meanwhile" in seen
    assert "Widen or narrow" not in seen


def test_a_policy_waits_for_its_experiment(store: Store, browser: Browser) -> None:
    made.documents(store)
    with store.write() as session:
        registry.create(session, Kind.policy, POLICY | {"key": made.KEY}, actor="li", now=made.NOW)
    browser.get("/policies")
    browser.post(f"/policies/{made.KEY}/status", {"status": "running"})
    assert "The experiment still has this flag." in visible(browser.get(f"/policies/{made.KEY}").text)


def test_who_may_not_start_sees_no_button(app: Flask, drafted: Store) -> None:
    viewer, editor = as_role(app, drafted, "viewer"), as_role(app, drafted, "editor")
    for browser in (viewer, editor):
        seen = browser.get(PAGE).text
        assert 'name="status"' not in seen
        assert 'name="share"' not in seen
        for path, data in (
            ("status", {"status": "running"}),
            ("holdback", {"share": "5"}),
            ("rollback", {"to": "control"}),
        ):
            assert browser.post(f"{PAGE}/{path}", data).status_code == 403
    assert viewer.post(f"{PAGE}/report").status_code == 403
    assert editor.post(f"{PAGE}/report").status_code == 303
    assert "has not been started yet" in visible(editor.get(PAGE).text)
    assert 'name="status" value="running"' in as_role(app, drafted, "approver").get(PAGE).text
    assert policy_of(drafted).status is PolicyStatus.draft


def test_who_wrote_a_policy_asks_and_another_starts_it(drafted: Store, clock: Clock) -> None:
    app = create_app(store=Store.on(replace(drafted.settings, two_persons=True), drafted.engine), clock=clock)
    first, second = as_role(app, drafted, "approver"), as_role(app, drafted, "admin")
    with drafted.write() as session:
        registry.revise(session, Kind.policy, KEY, POLICY | {"name": "Better"}, actor="approver", now=made.NOW)
    first.get(PAGE)
    first.post(f"{PAGE}/status", {"status": "running"})
    seen = visible(first.get(PAGE).text)
    assert "another person takes this step. It is noted that you asked." in seen
    assert "approver asked to start this on" in seen
    assert "Asked for a second person · approver" in seen
    assert policy_of(drafted).status is PolicyStatus.draft
    assert "It waits for a second person." in visible(second.get(PAGE).text)
    second.post(f"{PAGE}/status", {"status": "running"})
    assert "waits for a second person" not in visible(second.get(PAGE).text)
    assert policy_of(drafted).status is PolicyStatus.running
    # Braking takes no second person.
    first.get(PAGE)
    first.post(f"{PAGE}/status", {"status": "paused"})
    assert policy_of(drafted).status is PolicyStatus.paused


REALISED = Realised(
    policy=KEY,
    revision=2,
    phase=1,
    report="r",
    as_of="2026-11-22T10:00:00+00:00",
    holdback=0.05,
    metric="visit",
    direction="up",
    treated=950,
    held_back=50,
    promised=Interval(0.05, 0.01, 0.09),
    realised=Interval(0.024, 0.009, 0.039),
    absolute=Interval(0.01, 0.004, 0.016),
    promised_value=None,
    realised_value=MoneyInterval(100.0, 50.0, 150.0, "CNY"),
    delivery=Delivery.kept,
    problem=None,
)


@pytest.mark.parametrize("delivery", Delivery)
def test_every_delivery_is_a_sentence(app: Flask, drafted: Store, delivery: Delivery) -> None:
    with drafted.read() as session:
        names = rolledout.named(session)
    measured = delivery not in (Delivery.no_holdback, Delivery.not_measured)
    found = structs.replace(REALISED, delivery=delivery, realised=REALISED.realised if measured else None)
    with app.test_request_context(headers={"Accept-Language": "en"}):
        shown = rolledout.shown(policy_of(drafted), found, None, names, EN)
        line = rolledout.line(policy_of(drafted), found, names, EN)
    assert line.delivery_label == shown.label == str(targeting.DELIVERIES[delivery])
    assert shown.explained
    assert (shown.money_realised == "") == (delivery is Delivery.invalid)
    assert shown.sentence.startswith("Promised +50%, ")
    told = measured and delivery is not Delivery.invalid
    assert ("+2.40% (+0.90% to +3.90%)" in shown.sentence) == told
    assert (line.realised == "+2.40% (+0.90% to +3.90%)") == told


def literals(owner: type[object], name: str) -> set[str]:
    return set(get_args(get_type_hints(owner)[name]))


@pytest.mark.parametrize(
    ("table", "codes"),
    [
        (targeting.DELIVERIES, set(Delivery)),
        (targeting.DELIVERY_SENTENCES, set(Delivery)),
        (targeting.POLICY_STATUSES, set(PolicyStatus)),
        (targeting.POLICY_ACTIONS, {"create", "revise", "roll_back", audit.ASK, *PolicyStatus} - {PolicyStatus.draft}),
        (targeting.SOURCES, literals(Source, "kind")),
        (targeting.STUDY_STATUSES, set(StudyStatus)),
        (targeting.STUDY_VERDICTS, literals(report.Uplift, "verdict")),
        (targeting.QUADRANTS, literals(report.Quadrant, "quadrant")),
        (targeting.QUADRANT_MEANINGS, literals(report.Quadrant, "quadrant")),
        (targeting.SHARES, literals(report.Method, "propensity")),
        (targeting.FEATURES, literals(StudyRequest, "features")),
        (targeting.POLICIES, literals(report.PolicyValue, "policy") - {"constant"}),
        (targeting.TESTS, set(lists.TESTS)),
        (targeting.LEARNERS, {"s", "t", "x", "r", "dr", "forest"}),
    ],
)
def test_every_code_has_a_sentence_in_both_languages(app: Flask, table: dict[str, object], codes: set[str]) -> None:
    assert set(table) == codes
    for locale in ("en", "zh_Hans_CN"):
        with app.test_request_context(), force_locale(locale):
            for code in codes:
                text = sentences.known(table, code)
                assert ("zh" in locale) == bool(re.search(r"[\u4e00-\u9fff]", text)), text


def test_what_a_study_leaves_out_or_refuses_is_never_a_raw_code(app: Flask) -> None:
    neutral = {"too_odd"}
    with app.test_request_context():
        for table in (targeting.LEFT_OUT, targeting.REFUSALS, targeting.STUDY_ERRORS, targeting.POLICY_ERRORS):
            assert neutral.isdisjoint(sentences.known(table, "too_odd").split())
            assert all(str(text) for text in table.values())
        assert targeting.failed("brand_new", "it rained") == "That is not possible now: it rained"
