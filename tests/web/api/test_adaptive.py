"""Adaptive shares over HTTP: nobody ever moves, on any path, and new users come in the shares that the data earned."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from growthbook import GrowthBook

from experiments.sdk import Client, Evaluator, bucket
from tests.web import made
from tests.web.conftest import Api, Clock

KEY = "menu"
DOCUMENT: dict[str, Any] = {
    "key": KEY,
    "name": "Menu",
    "variants": [{"key": "a"}, {"key": "b"}, {"key": "c"}],
    "control": "a",
    "metrics": [{"key": "visit"}],
    "plan": {"planned_users": 3000},
    "adaptive": {"floor": 0.1, "wave": 0.3, "every_hours": 24, "burn_in_users": 300},
}
RATES = {"a": 0.05, "b": 0.1, "c": 0.6}
USERS = [f"用户{i}" if i % 7 == 0 else f"u{i}" for i in range(4_000)]


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.json
    return answer.json


@pytest.fixture
def running(api: Api) -> Api:
    ok(api("POST", "/v1/metrics", json=made.PRIMARY), 201)
    ok(api("POST", "/v1/experiments", json=DOCUMENT), 201)
    ok(api("POST", f"/v1/experiments/{KEY}/status", json={"status": "running"}))
    return api


def assigned(api: Api) -> dict[str, dict[str, Any]]:
    """What the assignments API answers to every user."""
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(USERS), 500):
        users = [{"user": user, "attributes": {}} for user in USERS[start : start + 500]]
        answer = ok(api("POST", "/v1/assignments", json={"users": users, "experiments": [KEY]}))
        found |= {one["user"]: one["assignments"][KEY] for one in answer["users"]}
    return found


def enrolled(api: Api) -> dict[str, str]:
    return {user: one["variant"] for user, one in assigned(api).items() if one["variant"] is not None}


def on_every_path(api: Api, users: list[str]) -> dict[str, set[str | None]]:
    """The variants that a user gets, by path: local evaluation, OFREP, one by one, an unmodified SDK of GrowthBook."""
    client = Client("http://127.0.0.1:9", "key", bootstrap=ok(api("GET", "/v1/snapshot")), offline=True)
    features = ok(api("GET", f"/api/features/{api.secret}"))["features"]
    told: dict[str, set[str | None]] = {}
    for user in users:
        ofrep = ok(api("POST", f"/ofrep/v1/evaluate/flags/{KEY}", json={"context": {"targetingKey": user}}))
        one = ok(api("POST", "/v1/assignments", json={"user": user, "experiments": [KEY]}))["assignments"][KEY]
        result = GrowthBook(attributes={"id": user}, features=features).eval_feature(KEY).experimentResult
        told[user] = {
            client.details(KEY, user).variant,
            ofrep.get("variant") or None,
            one["variant"],
            result.key if result is not None and result.inExperiment else None,
        }
    return told


def send(api: Api, given: dict[str, str], at: datetime) -> None:
    """Expose these users; a share of them visits, by their variant."""
    items: list[dict[str, Any]] = []
    for user, variant in given.items():
        shown = {"type": "exposure", "messageId": f"x-{user}", "userId": user, "experiment": KEY, "variant": variant}
        items.append(shown | {"timestamp": at.isoformat()})
        if bucket("luck", user) < RATES[variant] * 10_000:
            event = {"type": "event", "messageId": f"v-{user}", "userId": user, "event": "visit"}
            items.append(event | {"timestamp": (at + timedelta(hours=1)).isoformat()})
    for start in range(0, len(items), 500):
        receipt = ok(api("POST", "/v1/events", json={"batch": items[start : start + 500]}), 202)
        assert not receipt["rejected"]


def adapt(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = ok(api("POST", f"/v1/experiments/{KEY}/adapt"))
    return found


def test_from_document_to_interval_and_nobody_moves(running: Api, clock: Clock) -> None:
    first = enrolled(running)
    assert len(first) / len(USERS) == pytest.approx(0.3, abs=0.03)
    assert Counter(first.values())["a"] / len(first) == pytest.approx(1 / 3, abs=0.06)
    send(running, first, clock.now)

    assert adapt(running)["code"] == "waiting"
    clock.forward(hours=50)  # the window of a day has closed for all
    done = adapt(running)
    assert (done["code"], done["wave"], done["open"]) == ("opened", 2, 0.6)
    assert done["shares"] == pytest.approx({"a": 0.1, "b": 0.1, "c": 0.8}, abs=1e-3)
    assert done["matured"] == dict(Counter(first.values()))

    second = enrolled(running)
    # Everybody who had a variant has it still; the new ones follow the new shares.
    assert first.items() <= second.items()
    new = {user: variant for user, variant in second.items() if user not in first}
    counts = Counter(new.values())
    assert len(new) / len(USERS) == pytest.approx(0.3, abs=0.03)
    assert counts["c"] / len(new) == pytest.approx(0.8, abs=0.05)
    some = [*list(first)[:40], *list(new)[:40], *[user for user in USERS if user not in second][:40]]
    for user, variants in on_every_path(running, some).items():
        assert variants == {second.get(user)}, user
    send(running, new, clock.now)

    clock.forward(hours=50)
    report = ok(running("POST", f"/v1/experiments/{KEY}/reports"), 201)
    told = report["adaptive"]
    assert [wave["observed"] for wave in told["waves"]] == [dict(Counter(first.values())), dict(counts)]
    assert told["waves"][1]["shares"] == pytest.approx(done["shares"])
    assert all(wave["p_value"] > 0.001 for wave in told["waves"])
    # Pooled, the split is far from any one design; within waves it is as designed.
    assert report["srm"]["problem"] is None
    assert report["health"] == []
    values = {arm["variant"]: arm["value"] for arm in told["arms"]}
    assert all(value["lower"] < RATES[variant] < value["upper"] for variant, value in values.items())
    for contrast in told["contrasts"]:
        effect = contrast["absolute"]
        assert effect["lower"] < RATES[contrast["variant"]] - RATES["a"] < effect["upper"]
    assert [c["absolute"] for c in told["contrasts"]] == [c["absolute"] for c in report["metrics"][0]["comparisons"]]
    assert report["decision"]["variant"] == "c"
    assert {arm["variant"]: arm["mean"] for arm in report["metrics"][0]["arms"]} == {
        variant: value["estimate"] for variant, value in values.items()
    }

    audit = ok(running("GET", f"/v1/experiments/{KEY}/history"))
    entries = audit["items"] if isinstance(audit, dict) else audit
    assert [(one["actor"], one["action"]) for one in entries if one["action"] == "open_wave"] == [
        ("adaptive", "open_wave")
    ]
    last = [adapt(running), *[clock.forward(hours=25) or adapt(running) for _ in range(2)]]  # type: ignore[func-returns-value]
    assert [one["code"] for one in last] == ["opened", "opened", "complete"]
    assert last[-1]["open"] == 1
    assert second.items() <= enrolled(running).items()
    assert len(enrolled(running)) == len(USERS)


def test_shares_that_users_did_not_come_in_open_nothing(running: Api, clock: Clock) -> None:
    first = enrolled(running)
    kept = {user: variant for user, variant in first.items() if variant != "c" or bucket("lost", user) < 3_000}
    send(running, kept, clock.now)
    clock.forward(hours=50)
    done = adapt(running)
    assert (done["code"], done["wave"], done["health"]) == ("unhealthy", 1, ["sample_ratio_mismatch"])
    assert enrolled(running) == first


def test_few_users_open_a_wave_in_equal_shares(running: Api, clock: Clock) -> None:
    send(running, dict(list(enrolled(running).items())[:200]), clock.now)
    clock.forward(hours=50)
    done = adapt(running)
    assert (done["code"], done["wave"]) == ("burn_in", 2)
    assert done["shares"] == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_windows_that_are_open_still_do_not_count(running: Api, clock: Clock) -> None:
    send(running, enrolled(running), clock.now + timedelta(hours=23))
    clock.forward(hours=24)
    done = adapt(running)
    assert (done["code"], sum(done["matured"].values())) == ("burn_in", 0)


def test_what_cannot_adapt(running: Api, clock: Clock) -> None:
    ok(running("POST", "/v1/experiments", json=made.PLAIN), 201)
    answer = running("POST", f"/v1/experiments/{made.PLAIN['key']}/adapt")
    assert (answer.status_code, answer.json["code"]) == (409, "not_adaptive")
    ok(running("POST", f"/v1/experiments/{KEY}/status", json={"status": "paused"}))
    clock.forward(hours=50)
    assert adapt(running)["code"] == "not_running"


def test_a_user_of_no_open_wave_is_no_participant(running: Api) -> None:
    outside = next(user for user, one in assigned(running).items() if one["reason"] == "not_covered")
    shown = {"type": "exposure", "messageId": "m", "userId": outside, "experiment": KEY, "variant": "a"}
    receipt = running("POST", "/v1/events", json={"batch": [shown]}).json
    assert [one["code"] for one in receipt["rejected"]] == ["unknown_stratum"]


def test_an_sdk_that_knows_no_waves_enrols_nobody(running: Api) -> None:
    snapshot = ok(running("GET", "/v1/snapshot"))
    for document in snapshot["experiments"]:
        del document["waves"]
    evaluator = Evaluator(snapshot)
    assert {evaluator.assign(KEY, user).variant for user in USERS} == {None}
