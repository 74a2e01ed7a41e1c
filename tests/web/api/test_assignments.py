"""Assignment over HTTP against the evaluator that the SDK uses."""

import pytest

from experiments import access, registry
from experiments.access import Scope
from experiments.documents import Kind, Status
from experiments.sdk.assignment import Evaluator
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api


@pytest.fixture(autouse=True)
def _experiments(store: Store) -> None:
    made.documents(store)
    with store.write() as session:
        registry.create(session, Kind.experiment, made.PLAIN, actor="setup", now=made.NOW)


@pytest.fixture
def api(client, keys) -> Api:  # type: ignore[no-untyped-def]
    return Api(client, keys[Scope.assign])


def test_answers_are_the_evaluators_on_the_served_snapshot(api: Api) -> None:
    evaluator = Evaluator(api("GET", "/v1/snapshot").json)
    users = [{"user": f"用户{i}", "attributes": {"orders": i % 3}} for i in range(60)]
    answer = api("POST", "/v1/assignments", json={"users": users, "experiments": [made.KEY, "plain", "nowhere"]})
    assert answer.status_code == 200
    seen = set()
    for user, found in zip(users, answer.json["users"], strict=True):
        assert found["user"] == user["user"]
        assert list(found["assignments"]) == [made.KEY, "plain", "nowhere"]
        for key, assignment in found["assignments"].items():
            want = evaluator.assign(key, user["user"], user["attributes"])
            assert assignment == {
                "variant": want.variant,
                "tactic": dict(want.tactic) if want.tactic else None,
                "reason": want.reason,
                "stratum": want.stratum,
                "phase": want.phase,
                "revision": want.revision,
            }
            seen.add((key, assignment["variant"], assignment["reason"]))
    assert {(made.KEY, "none", "assigned"), (made.KEY, "ten", "assigned"), (made.KEY, None, "no_stratum")} <= seen
    assert {("plain", None, "not_running"), ("nowhere", None, "unknown_experiment")} <= seen


def test_one_user_gets_the_running_experiments_with_their_tactics(api: Api) -> None:
    answer = api("POST", "/v1/assignments", json={"user": "u1", "attributes": {"orders": 1}})
    assert answer.json["user"] == "u1"
    assert answer.json["assignments"].keys() == {made.KEY}
    found = answer.json["assignments"][made.KEY]
    assert (found["reason"], found["stratum"], found["revision"]) == ("assigned", "new", 2)
    assert (found["tactic"] or {}).get("copy") == ("Come back!" if found["variant"] == "ten" else None)


def test_an_exposed_user_keeps_his_variant_and_stratum(api: Api, client, keys, store: Store) -> None:  # type: ignore[no-untyped-def]
    ask = {"user": "u1", "attributes": {"orders": 1}}
    before = api("POST", "/v1/assignments", json=ask).json["assignments"][made.KEY]["variant"]
    other = "ten" if before == "none" else "none"
    item = {
        "type": "exposure",
        "messageId": "m1",
        "userId": "u1",
        "experiment": made.KEY,
        "variant": other,
        "stratum": "loyal",
    }
    assert Api(client, keys[Scope.ingest])("POST", "/v1/events", json={"batch": [item]}).json["accepted"] == 1
    after = api("POST", "/v1/assignments", json=ask).json["assignments"][made.KEY]
    assert (after["variant"], after["reason"], after["stratum"]) == (other, "sticky", "loyal")
    with store.write() as session:  # a new phase asks anew
        current = registry.get(session, Kind.experiment, made.KEY).to_json()
        registry.revise(
            session,
            Kind.experiment,
            made.KEY,
            current | {"weights": {"none": 0.1, "ten": 0.9}},
            actor="x",
            now=made.NOW,
        )
    anew = api("POST", "/v1/assignments", json=ask).json["assignments"][made.KEY]
    assert (anew["reason"], anew["phase"]) == ("assigned", 2)


def test_attributes_sent_go_over_the_ones_known(api: Api, client, keys) -> None:  # type: ignore[no-untyped-def]
    item = {"type": "identify", "messageId": "m1", "userId": "u1", "traits": {"orders": 1}}
    Api(client, keys[Scope.ingest])("POST", "/v1/events", json={"batch": [item]})

    def stratum(**attributes: object) -> object:
        body = {"user": "u1", "attributes": attributes}
        return api("POST", "/v1/assignments", json=body).json["assignments"][made.KEY]["stratum"]

    assert stratum() == "new"
    assert stratum(city="Xi'an") == "new"
    assert stratum(orders=5) == "loyal"


def test_assignment_records_nothing(api: Api, store: Store) -> None:
    api("POST", "/v1/assignments", json={"user": "u1", "attributes": {"orders": 1}})
    with store.engine.connect() as connection:
        for table in ("inbox", "assignments", "users"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user"),
        ({"user": ""}, "user"),
        ({"user": 5}, "user"),
        ({"user": "u", "attributes": []}, "attributes"),
        ({"user": "u", "colour": "red"}, "colour"),
        ({"users": [{"user": "u"}, {}]}, "users[1]"),
        ({"users": [], "user": "u"}, "user"),
        ({"user": "u", "experiments": ["x"] * 1001}, "experiments"),
        ([], "$"),
        (7, "$"),
    ],
)
def test_a_body_of_another_shape_is_refused_and_says_where(api: Api, body: object, field: str) -> None:
    answer = api("POST", "/v1/assignments", json=body)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_document")
    (error,) = answer.json["errors"]
    assert field in error["field"] or field in error["remedy"]


def test_at_most_ten_thousand_users_at_once(api: Api) -> None:
    users = [{"user": f"u{i}"} for i in range(10_001)]
    assert api("POST", "/v1/assignments", json={"users": users}).status_code == 422
    answer = api("POST", "/v1/assignments", json={"users": users[:10_000]})
    assert len(answer.json["users"]) == 10_000


def test_the_snapshot_is_sent_once_for_each_change(api: Api, store: Store) -> None:
    first = api("GET", "/v1/snapshot")
    assert [e["key"] for e in first.json["experiments"]] == ["plain", made.KEY]
    etag = first.headers["ETag"]
    assert api("GET", "/v1/snapshot", headers={"If-None-Match": etag}).status_code == 304
    with store.write() as session:
        registry.move(session, made.KEY, Status.paused, actor="x", now=made.NOW)
    changed = api("GET", "/v1/snapshot", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json["version"]) == (200, first.json["version"] + 1)


def test_many_at_once_are_answered_as_one_by_one(api: Api, client, keys, store: Store) -> None:  # type: ignore[no-untyped-def]
    conditions = {
        "tagged": {"tags": {"$elemMatch": {"$eq": "咖啡"}}, "home.city": {"$ne": "上海"}},
        "named": {"id": {"$regex": "^u1"}, "$or": [{"orders": {"$gt": 2}}, {"vip": True}]},
    }
    with store.write() as session:
        for key, audience in conditions.items():
            body = made.PLAIN | {"key": key, "audience": audience, "coverage": 0.7, "forced": {"u7": "b"}}
            registry.create(session, Kind.experiment, body, actor="setup", now=made.NOW)
            registry.move(session, key, Status.running, actor="setup", now=made.NOW)
    known = [
        {"type": "identify", "messageId": "m1", "userId": "u3", "traits": {"orders": 3, "tags": ["咖啡", 1]}},
        {
            "type": "exposure",
            "messageId": "m2",
            "userId": "u5",
            "experiment": made.KEY,
            "variant": "ten",
            "stratum": "new",
        },
        {"type": "exposure", "messageId": "m3", "userId": "u6", "experiment": "named", "variant": "b"},
    ]
    assert Api(client, keys[Scope.ingest])("POST", "/v1/events", json={"batch": known}).status_code == 202
    rich = [
        {},
        {"orders": 1, "tags": ["咖啡"], "home": {"city": "北京"}},
        {"orders": 3.5, "vip": True, "tags": []},
        {"orders": "3", "vip": 1, "tags": "咖啡", "home": "上海"},
        {"orders": None, "tags": [["咖啡"], {"a": 1}], "home": {"city": "上海"}},
    ]
    users = [
        {"user": name, "attributes": rich[i % 5]}
        for i, name in enumerate(f"{p}{n}" for n in range(40) for p in ("u", "用户", "🎉"))
    ]
    users.append(users[0])
    asked = [made.KEY, "tagged", "named", "plain", "nowhere"]
    together = api("POST", "/v1/assignments", json={"users": users, "experiments": asked}).json["users"]
    assert together == [api("POST", "/v1/assignments", json=user | {"experiments": asked}).json for user in users]
    reasons = {answer["reason"] for user in together for answer in user["assignments"].values()}
    assert {"assigned", "sticky", "forced", "not_covered", "not_in_audience", "no_stratum", "not_running"} <= reasons
    running = api("POST", "/v1/assignments", json={"users": users}).json["users"]
    assert running == [api("POST", "/v1/assignments", json=user).json for user in users]
    assert api("POST", "/v1/assignments", json={"users": []}).json == {"users": []}


def test_a_key_in_a_page_cannot_read_whole_documents(client, store: Store) -> None:  # type: ignore[no-untyped-def]
    with store.write() as session:
        public = access.create_key(session, "page", ["assign"], origins=["https://shop.example"], now=made.NOW)
    refused = Api(client, public)("GET", "/v1/snapshot")
    assert (refused.status_code, refused.json["code"]) == (403, "key_is_public")
    assert Api(client, public)("POST", "/v1/assignments", json={"user": "u1"}).status_code == 200
