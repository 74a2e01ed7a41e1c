"""The guided form, from the template to the stored experiment; drafts changed by two; testers and previews."""

import json
import os
import re
from datetime import timedelta
from html import unescape
from typing import Any

import growthbook
import msgspec
import pytest
from flask import Flask

from experiments import access, conflicts, ingest, presets, registry, schedule
from experiments.documents import Experiment, Kind, Status
from experiments.sdk.experiment import Reason
from experiments.store import Store
from tests.web import made
from tests.web.browser import Browser
from tests.web.conftest import Clock
from web.pages.making import form as forms
from web.pages.making import shown as views
from web.pages.making import words


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app.test_client(), logged_in=True, language="en")


def another(app: Flask, store: Store, login: str, role: str = "editor") -> Browser:
    """A second person at another browser."""
    with store.write() as session:
        access.create_account(session, login, made.PASSWORD, now=made.NOW, role=access.Role(role))
    browser = Browser(app.test_client(), language="en")
    browser.log_in(login, made.PASSWORD)
    return browser


def people(store: Store, users: int = 400) -> None:
    """Users with attributes; every fourth in Shanghai; every tenth bought lately."""
    items: list[ingest.AnyItem] = []
    for i in range(users):
        traits = {"city": "上海" if i % 4 == 0 else "Beijing", "orders": i % 3, "days_since_purchase": i % 100}
        at = made.NOW - timedelta(days=40 - i * 30 / users)
        items.append(
            ingest.Identify(
                message_id=f"i{i}", user_id=f"u{i}", timestamp=at, traits=msgspec.Raw(msgspec.json.encode(traits))
            )
        )
        if i % 10 == 0:
            bought = made.NOW - timedelta(days=3)
            items.append(
                ingest.Event(message_id=f"e{i}", user_id=f"u{i}", timestamp=bought, event="purchase", value=50.0)
            )
    with store.write() as session:
        receipt = ingest.store(session, store.catalog(session), list(enumerate(items)), now=made.NOW)
    assert not receipt.rejected


def begin(browser: Browser, preset: str) -> str:
    browser.get("/experiments/new")
    answer = browser.post("/experiments/new", {"preset": preset})
    assert answer.status_code == 303
    return str(answer.headers["Location"]).rsplit("/", 1)[0]


def inputs(text: str) -> dict[str, Any]:
    """What a browser would send of a page: the fields of the form as they stand."""
    body = text[text.index('id="making"') :]
    body = body[: body.index("</form>")]
    found: dict[str, Any] = {}
    for tag in re.findall(r"<input[^>]*>", body):
        name = re.search(r' name="([^"]*)"', tag)
        value = re.search(r' value="([^"]*)"', tag)
        if name is None or (('type="checkbox"' in tag or 'type="radio"' in tag) and " checked" not in tag):
            continue
        found.setdefault(name[1], []).append(value[1] if value else "")
    for name, area in re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>([^<]*)</textarea>', body):
        found[name] = [area]
    for name, options in re.findall(r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', body, flags=re.S):
        values = re.findall(r'<option value="([^"]*)"( selected)?', options)
        found[name] = [next((v for v, chosen in values if chosen), values[0][0])]
    found.pop("csrf_token", None)
    return {name: [unescape(value) for value in values] for name, values in found.items()}


def send(browser: Browser, form: str, step: str, go: str = "next", **change: Any) -> str:
    """Open a step, change fields, press a button, and return where that leads."""
    page = browser.get(f"{form}/{step}")
    assert page.status_code == 200
    answer = browser.post(f"{form}/{step}", inputs(page.text) | change | {"go": go})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["Location"])


def stored(store: Store, key: str) -> Experiment:
    with store.read() as session:
        found: Experiment = registry.get(session, Kind.experiment, key)
    return found


@pytest.mark.parametrize("preset", list(presets.PresetCode))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_template_is_an_experiment_after_pressing_next(
    app: Flask, store: Store, preset: str, language: str
) -> None:
    browser = Browser(app.test_client(), logged_in=True, language=language)
    people(store)
    form = begin(browser, preset)
    if preset == "blank":
        send(browser, form, "goal", name="Second batch")
    for step, following in zip(forms.STEPS, forms.STEPS[1:], strict=False):
        change = {"baseline": "5", "spread": "20"} if step == "plan" else {}
        assert send(browser, form, step, **change) == f"{form}/{following}"
    page = browser.get(f"{form}/check").text
    assert page.count("&#34;status&#34;: &#34;draft&#34;") == 1
    location = send(browser, form, "check", go="start")
    experiment = stored(store, location.rsplit("/", 1)[1])
    assert experiment.status is Status.running
    assert experiment.plan.planned_users > 100
    assert len(experiment.variants) == len(presets.PRESETS[presets.PresetCode(preset)].arms)
    assert {use.role for use in experiment.metrics} >= {"primary", "guardrail"}
    assert browser.get(f"{form}/goal").status_code == 404
    assert browser.get(location).status_code == 200


def test_a_second_guardrail_is_ticked_where_its_event_comes(browser: Browser, store: Store) -> None:
    def ticked() -> object:
        return inputs(browser.get(f"{begin(browser, 'copy_test')}/metrics").text).get("guardrails")

    assert ticked() == ["unsubscribe_rate", "complaint_rate"]
    people(store)
    assert ticked() == ["unsubscribe_rate"]
    with store.write() as session:
        told = ingest.Event(message_id="c", user_id="u1", timestamp=made.NOW, event="complaint")
        ingest.store(session, store.catalog(session), [(0, told)], now=made.NOW)
    assert ticked() == ["unsubscribe_rate", "complaint_rate"]


def test_typed_in_chinese_the_keys_are_readable(browser: Browser, store: Store) -> None:
    people(store)
    form = begin(browser, "coupon_test")
    send(browser, form, "goal", name="双十一优惠券", tags="大促，优惠券", owner="小王")
    send(
        browser,
        form,
        "audience",
        who="segments",
        seg_name="上海会员",
        seg_attribute="city",
        seg_op="$eq",
        seg_value="上海",
    )
    send(browser, form, "variants", v0_name="不发券", v1_name="满100减10", v2_name="满200减30")
    send(
        browser, form, "metrics", primary="new:", m_name="下单", m_event="purchase", m_kind="conversion", m_window="14"
    )
    send(browser, form, "plan", baseline="10")
    location = send(browser, form, "check", go="create")
    experiment = stored(store, location.rsplit("/", 1)[1])
    assert experiment.key == "coupon-test"
    assert experiment.tags == ["大促", "优惠券"]
    assert [variant.key for variant in experiment.variants] == ["control", "100-10", "200-30"]
    assert [stratum.segment for stratum in experiment.strata] == ["city-eq"]
    assert experiment.metrics[0].key == "purchase-conversion-14d"
    with store.read() as session:
        assert registry.get(session, Kind.segment, "city-eq").name == "上海会员"
        assert registry.get(session, Kind.metric, "purchase-conversion-14d").window_days == 14


def test_nothing_is_lost_on_the_way_back_and_two_tabs_do_not_mix(browser: Browser) -> None:
    first, second = begin(browser, "copy_test"), begin(browser, "copy_test")
    assert send(browser, first, "variants", go="goal", v1_copy="Tab one") == f"{first}/goal"
    send(browser, second, "variants", go="goal", v1_copy="Tab two")
    send(browser, first, "goal", name="One")
    assert "Tab one" in browser.get(f"{first}/variants").text
    assert "Tab two" in browser.get(f"{second}/variants").text
    assert 'value="One"' in browser.get(f"{first}/goal").text
    assert 'value="One"' not in browser.get(f"{second}/goal").text


def test_a_form_is_its_writers_alone(browser: Browser, app: Flask, store: Store) -> None:
    form = begin(browser, "copy_test")
    assert another(app, store, "li").get(f"{form}/goal").status_code == 404
    assert browser.get("/experiments/new/../../secret/goal").status_code == 404
    viewer = another(app, store, "see", "viewer")
    assert viewer.get("/experiments/new").status_code == 403


@pytest.mark.parametrize(
    ("step", "change", "field", "text"),
    [
        ("goal", {"name": " "}, "name", "Give the experiment a name"),
        ("audience", {"coverage": "120"}, "coverage", "from 0 to 100"),
        ("audience", {"condition": "{city"}, "condition", "not JSON"),
        ("audience", {"condition": '{"city": {"$like": 1}}'}, "condition", "$like"),
        ("audience", {"who": "segments"}, "segments", "Tick a segment"),
        ("variants", {"v0_weight": "30"}, "v0_weight", "100 % together"),
        ("variants", {"v1_cost": "much"}, "v1_cost", "“much” will not do"),
        ("metrics", {"primary": "new:", "m_name": "x"}, "m_event", "Name the event"),
        ("plan", {"lift": "0"}, "lift", "from 0.1"),
        ("plan", {"planned": "1.5"}, "planned", "from 2"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_all_is_kept(
    browser: Browser, step: str, change: dict[str, str], field: str, text: str
) -> None:
    form = begin(browser, "copy_test")
    send(browser, form, "plan", go="check", planned="500")
    location = send(browser, form, step, **change)
    assert location == f"{form}/{step}?check=1"
    page = browser.get(location).text
    assert f'id="{field}-error"' in page
    assert text in page
    typed, value = next(iter(change.items()))
    assert forms.one(inputs(page), typed) == value.strip() or typed == "who"
    assert "disabled" in browser.get(f"{form}/check").text
    assert send(browser, form, "check", go="create") == f"{form}/check"


def test_variants_are_added_and_removed_without_mixing(browser: Browser) -> None:
    form = begin(browser, "coupon_test")
    assert send(browser, form, "variants", go="add", control="2") == f"{form}/variants"
    send(browser, form, "variants", go="remove:1", v3_name="Fourth", v2_copy="kept")
    page = inputs(browser.get(f"{form}/variants").text)
    assert [page[f"v{i}_name"] for i in range(3)] == [["No coupon"], ["Coupon of 20"], ["Fourth"]]
    assert page["v1_copy"] == ["kept"]
    assert page["control"] == ["1"]


RICH = made.EXPERIMENT | {
    "hypothesis": "It pays",
    "owner": "wang",
    "tags": ["a", "b"],
    "schedule": {"start_at": "2026-12-01T01:00:00Z", "stop_at": "2026-12-09T01:00:00Z"},
    "coverage": 0.3333,
    "audience": {"city": {"$in": ["上海", "北京"]}},
    "weights": {"none": 0.2501, "ten": 0.7499},
    "strata": [{"segment": "loyal", "coverage": 0.5}, {"segment": "new"}],
    "forced": {"tester": "ten"},
    "layer": {"key": "push", "start": 0.25, "end": 0.5},
    "holdouts": ["global"],
    "metrics": [{"key": "visit"}, {"key": "unsub", "margin": 0.02}],
    "plan": {"planned_users": 900, "method": "group_sequential", "looks": [0.5, 1.0], "alpha": 0.1},
    "value": {"metric": "visit", "monthly_users": 1000, "margin": 0.31},
    "reach": {"received": "opened"},
    "variants": [
        {"key": "ten", "name": "Ten", "value": "x", "factors": {"f": "1"}, "costs": {"per_user": "0.35"}},
        {
            "key": "none",
            "value": "y",
            "factors": {"f": "2"},
            "tactic": {
                "copy": "Hi\nthere",
                "offer": {"coupon": 10, "min": 5},
                "extra": {"n": 1},
                "frequency": {"touches": 2, "per": "month", "channel": "sms"},
            },
        },
    ],
}


def test_a_draft_comes_back_from_the_form_as_it_was(browser: Browser, store: Store) -> None:
    made.documents(store, start=False)
    with store.write() as session:
        registry.create(session, Kind.layer, {"key": "push", "name": "Push"}, actor="s", now=made.NOW)
        registry.create(session, Kind.holdout, {"key": "global", "name": "All", "share": 0.05}, actor="s", now=made.NOW)
        before = registry.create(session, Kind.experiment, RICH | {"key": "rich"}, actor="s", now=made.NOW)
    browser.get("/experiments/new")
    form = str(browser.post("/experiments/rich/edit").headers["Location"]).rsplit("/", 1)[0]
    for step in forms.STEPS[:-1]:
        send(browser, form, step)
    location = send(browser, form, "check", go="create")
    assert location == "/experiments/rich"
    after = stored(store, "rich")
    assert after == before.model_copy(update={"revision": 2})


def test_two_editors_both_keep_what_they_typed(browser: Browser, app: Flask, store: Store) -> None:
    made.documents(store, start=False)
    other = another(app, store, "li")
    forms_ = []
    for each in (browser, other):
        each.get("/experiments/new")
        forms_.append(str(each.post(f"/experiments/{made.KEY}/edit").headers["Location"]).rsplit("/", 1)[0])
    mine, theirs = forms_
    send(other, theirs, "goal", name="Theirs", hypothesis="From Li")
    send(other, theirs, "check", go="create")
    send(browser, mine, "goal", name="Mine")
    send(browser, mine, "variants", v1_copy="My text")
    page = browser.get(f"{mine}/check")
    answer = browser.post(f"{mine}/check", inputs(page.text) | {"go": "create"})
    assert answer.status_code == 409
    assert "Nothing you typed is lost" in answer.text
    assert "li ·" in answer.text
    assert "yours “Mine”, theirs “Theirs”" in answer.text
    assert stored(store, made.KEY).name == "Theirs"
    send(browser, mine, "check", go="create")
    merged = stored(store, made.KEY)
    assert (merged.name, merged.hypothesis, merged.revision) == ("Mine", "From Li", 3)
    assert merged.variants[1].tactic is not None
    assert merged.variants[1].tactic.copy_ == "My text"


def test_a_copy_is_a_draft_with_key_and_salt_of_its_own(browser: Browser, store: Store) -> None:
    made.documents(store)
    browser.get("/experiments/new")
    for number in (2, 3):
        location = browser.post(f"/experiments/{made.KEY}/duplicate").headers["Location"]
        assert browser.get(location).status_code == 200
        copy = stored(store, f"{made.KEY}-{number}")
        assert (copy.status, copy.revision, copy.salt) == (Status.draft, 1, f"{copy.key}:1")
        assert copy.variants == stored(store, made.KEY).variants
    browser.post(f"/experiments/{made.KEY}/edit")
    assert "Only drafts can be changed" in browser.get("/").text


def test_the_audience_is_counted_while_it_is_chosen(browser: Browser, store: Store) -> None:
    form = begin(browser, "copy_test")
    assert "no users are on record" in browser.get(f"{form}/audience").text
    people(store)
    page = browser.get(f"{form}/audience")
    assert "400 users would take part" in page.text
    assert "days_since_purchase" not in page.text
    assert re.search(r"Dormant.*<small>160 users · will be created", page.text)
    fields = inputs(page.text) | {"condition": json.dumps({"city": "上海"}), "go": ""}
    answer = browser.post(f"{form}/audience/live", fields)
    assert answer.json == {"size": "100 users would take part."}
    assert "100 users would take part" in browser.get(f"{form}/audience").text


def test_an_editor_may_save_but_neither_start_nor_schedule(app: Flask, store: Store) -> None:
    people(store)
    editor = another(app, store, "li")
    form = begin(editor, "copy_test")
    send(editor, form, "plan", baseline="5")
    page = editor.get(f"{form}/check")
    assert 'value="start"' not in page.text
    assert editor.post(f"{form}/check", inputs(page.text) | {"go": "start"}).status_code == 403
    location = send(editor, form, "check", go="create", start_at="2026-12-01T09:00")
    experiment = stored(store, location.rsplit("/", 1)[1])
    assert experiment.schedule is None
    assert experiment.status is Status.draft
    assert "only approvers may start" in editor.get("/").text


def test_a_schedule_is_in_the_stores_time(browser: Browser, store: Store) -> None:
    form = begin(browser, "copy_test")
    send(browser, form, "plan", baseline="5")
    late = {"start_at": "2026-12-01T09:00", "stop_at": "2026-12-01T08:00"}
    assert send(browser, form, "check", go="create", **late) == f"{form}/check"
    assert "Let it stop after the start" in browser.get(f"{form}/check").text
    location = send(browser, form, "check", go="create", stop_at="2026-12-15T09:00")
    experiment = stored(store, location.rsplit("/", 1)[1])
    assert experiment.schedule is not None
    assert experiment.to_json()["schedule"]["start_at"] == "2026-12-01T01:00:00Z"
    assert 'value="2026-12-15T09:00"' in browser.get(f"/experiments/{experiment.key}/qa").text


def test_testers_are_set_and_a_preview_tells_why(browser: Browser, store: Store) -> None:
    made.documents(store, start=False)
    people(store, 20)
    address = f"/experiments/{made.KEY}/qa"
    page = browser.get(f"{address}?user=u1").text
    assert "if the experiment ran" in page
    assert "Drawn by chance" in page
    answer = browser.post(f"{address}/testers", {"user": "u1", "variant": "ten"})
    page = browser.get(str(answer.headers["Location"])).text
    assert "A tester: the variant is set by hand." in page
    assert stored(store, made.KEY).forced == {"u1": "ten"}
    browser.post(f"{address}/testers", {"user": "u1"})
    assert stored(store, made.KEY).forced == {}
    assert browser.post(f"{address}/testers", {"user": "u1", "variant": "none of them"}).status_code == 400
    assert "In none of the segments" in browser.get(f"{address}?user=nobody").text
    assert f"?{made.KEY}=1" in page


def test_settings_change_while_it_runs_and_keep_what_was_typed(browser: Browser, store: Store, clock: Clock) -> None:
    made.documents(store)
    address = f"/experiments/{made.KEY}"
    browser.get(f"{address}/qa")
    revision = stored(store, made.KEY).revision
    change = {"name": "Renamed", "owner": "li", "tags": "x, y", "stop_at": "2026-12-15T09:00", "revision": revision}
    assert browser.post(f"{address}/settings", change).status_code == 303
    experiment = stored(store, made.KEY)
    assert (experiment.name, experiment.owner, experiment.tags) == ("Renamed", "li", ["x", "y"])
    stale = browser.post(f"{address}/settings", change | {"name": "Again"})
    assert stale.status_code == 422
    assert 'value="Again"' in stale.text
    assert "Someone changed the experiment meanwhile" in stale.text


@pytest.mark.parametrize(
    ("copy", "channel", "said"),
    [
        ("a" * 160, "sms", "160 characters · 1 SMS"),
        ("a" * 161, "sms", "161 characters · 2 SMS"),
        ("好" * 70, "sms", "70 characters · 1 SMS"),
        ("好" * 71, "sms", "71 characters · 2 SMS"),
        ("好" * 135, "sms", "135 characters · 3 SMS"),
        ("", "sms", "0 characters"),
        ("x" * 61, "push", "61 characters · many devices cut it after about 60"),
        ("x", "email", "1 character"),
    ],
)
def test_texts_are_measured_as_their_channel_does(app: Flask, copy: str, channel: str, said: str) -> None:
    with app.test_request_context("/"):
        assert views.length(copy, channel) == said


def test_keys_come_from_names_and_are_free() -> None:
    assert presets.key_of("Autumn sale 2026!", "x") == "autumn-sale-2026"
    assert presets.key_of("第2批", "second") == "second"
    taken = {"a", "a-2", "b-9"}
    assert presets.free_key("a", taken.__contains__) == "a-3"
    assert presets.free_key("b-9", taken.__contains__) == "b-2"
    assert presets.free_key("c", taken.__contains__) == "c"


@pytest.mark.parametrize(("index", "variant"), [(0, "a"), (1, "b"), (None, None)])
def test_a_shared_link_shows_its_variant_and_is_not_counted(
    store: Store, index: int | None, variant: str | None
) -> None:
    with store.write() as session:
        registry.create(session, Kind.metric, made.PRIMARY, actor="s", now=made.NOW)
        nobody = made.PLAIN | {"coverage": 0.0}
        registry.create(session, Kind.experiment, nobody, actor="s", now=made.NOW)
        registry.move(session, "plain", Status.running, actor="s", now=made.NOW)
    with store.read() as session:
        features = json.loads(store.catalog(session).features)["features"]
    counted: list[object] = []
    sdk = growthbook.GrowthBook(
        attributes={"id": "someone"},
        url="https://shop.example/" + ("" if index is None else f"?plain={index}"),
        features=features,
        on_experiment_viewed=lambda *seen: counted.append(seen),
    )
    assert sdk.get_feature_value("plain", None) == variant
    assert counted == []


def test_a_template_uses_the_metrics_that_there_are(browser: Browser, store: Store) -> None:
    made.documents(store)
    form = begin(browser, "copy_test")
    page = browser.get(f"{form}/metrics").text
    assert inputs(page)["guardrails"] == ["unsub", "complaint_rate"]
    assert "unsubscribe_rate" not in page


def test_a_refused_schedule_is_told_on_the_page(browser: Browser, store: Store) -> None:
    with store.write() as session:
        for kind, body in ((Kind.metric, made.PRIMARY), (Kind.layer, {"key": "push", "name": "Push"})):
            registry.create(session, kind, body, actor="s", now=made.NOW)
        taken = made.PLAIN | {"layer": {"key": "push"}}
        registry.create(session, Kind.experiment, taken, actor="s", now=made.NOW)
        registry.move(session, "plain", Status.running, actor="s", now=made.NOW)
        due = taken | {"key": "late", "schedule": {"start_at": "2026-11-01T00:00:00Z"}}
        registry.create(session, Kind.experiment, due, actor="s", now=made.NOW)
    schedule.run(store, now=made.NOW)
    page = browser.get("/experiments/late/qa").text
    assert "The scheduled step was refused: Another running experiment uses the same part of the layer" in page
    assert "Prevents the start" in page
    assert "Refused at its scheduled time" in browser.get("/experiments/late/plan").text


def test_every_code_has_a_sentence() -> None:
    assert set(words.CONCERNS) == set(conflicts.ConcernCode)
    assert set(words.WEIGHTS) == set(conflicts.Weight)
    assert set(words.ANSWERS) == set(Reason)
    assert set(words.PRESETS) == set(words.HYPOTHESES) == set(presets.PresetCode)
    assert set(words.ARMS) == set(presets.ArmCode)
    assert set(words.METRICS) == set(presets.METRICS)
    assert set(words.SEGMENTS) == set(presets.SEGMENTS)


def test_forms_long_forgotten_are_dropped(browser: Browser, store: Store) -> None:
    old, kept = begin(browser, "copy_test"), begin(browser, "copy_test")
    folder = store.settings.folder / "drafts"
    path = folder / f"{old.rsplit('/', 1)[1]}.json"
    past = (made.NOW - timedelta(days=31)).timestamp()
    os.utime(path, (past, past))
    begin(browser, "copy_test")
    assert browser.get(f"{old}/goal").status_code == 404
    assert browser.get(f"{kept}/goal").status_code == 200
    browser.post(f"{kept}/drop")
    assert browser.get(f"{kept}/goal").status_code == 404
    assert len(list(folder.iterdir())) == 1
