"""``POST /v1/plan``: by numbers, by a metric of the store, by an experiment."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from experiments import ingest, planner
from experiments.access import Scope
from experiments.store import Store
from tests.web import made
from tests.web.conftest import Api

RATE = {"kind": "conversion", "rate": 0.05}


@pytest.fixture
def reader(api: Api, keys: dict[Scope, str]) -> Api:
    return Api(api.client, keys[Scope.read])


def visitors(store: Store, users: int = 300) -> None:
    """Users told of a month ago; every fourth visited within the last day."""
    long_ago = made.NOW - timedelta(days=30)
    items: list[ingest.AnyItem] = []
    for i in range(users):
        traits = msgspec.Raw(msgspec.json.encode({"orders": 1 + i % 2}))
        items.append(ingest.Identify(message_id=f"i{i}", user_id=f"u{i}", timestamp=long_ago, traits=traits))
        if i % 4 == 0:
            at = made.NOW - timedelta(hours=3)
            items.append(ingest.Event(message_id=f"v{i}", user_id=f"u{i}", timestamp=at, event="visit"))
    with store.write() as session:
        assert not ingest.store(session, store.catalog(session), list(enumerate(items)), now=made.NOW).rejected


def test_numbers_are_answered_as_in_python(reader: Api) -> None:
    body: dict[str, Any] = {"baseline": RATE, "effect": 0.01, "users": 8200, "method": "fixed"}
    answer = reader("POST", "/v1/plan", json=body)
    assert answer.status_code == 200
    expected = planner.answer(planner.parse(body), None, now=made.NOW)
    assert msgspec.json.decode(answer.data, type=planner.PlanAnswer) == expected
    assert answer.json["plans"][0]["forecast"]["needed"]["arms"] == {"control": 8158, "arm_1": 8158}


def test_a_draft_is_planned_from_what_the_store_knows(reader: Api, store: Store) -> None:
    made.documents(store, start=False)
    visitors(store)
    answer = reader("POST", "/v1/plan", json={"experiment": made.KEY, "lift": 0.5, "weeks": 4})
    assert answer.status_code == 200
    found = {(plan["metric"], plan["segment"]): plan for plan in answer.json["plans"]}
    assert found.keys() == {(metric, segment) for metric in ("visit", "unsub") for segment in (None, "new", "loyal")}
    visit = found["visit", None]
    assert (visit["users"], visit["baseline"]["mean"], visit["baseline"]["selected"]) == (300, 0.25, "then")
    assert found["visit", "new"]["baseline"]["mean"] == 0.5
    # Nobody unsubscribed: nothing is known of how often anybody would.
    assert (found["unsub", None]["problem"], found["unsub", None]["forecast"]) == ("zero_variance", None)


def test_a_measured_baseline_brings_the_users_of_the_segment(reader: Api, store: Store) -> None:
    made.documents(store, start=False)
    visitors(store)
    base = {"kind": "measured", "metric": "visit", "condition": {"orders": 1}}
    (plan,) = reader("POST", "/v1/plan", json={"baseline": base}).json["plans"]
    assert (plan["users"], plan["weekly"], plan["baseline"]["mean"], plan["window_days"]) == (150, 0.0, 0.5, 1)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"experiment": "nothing"}, 404, None),
        ({"baseline": {"kind": "measured", "metric": "nothing"}}, 404, None),
        ({"baseline": RATE}, 422, "effect"),
        ({"baseline": RATE, "effect": 0.01, "mde": 1}, 422, "mde"),
        ({"baseline": {"kind": "conversion", "rate": 5}, "effect": 0.01}, 422, "baseline.rate"),
        ([], 422, "$"),
    ],
)
def test_what_cannot_be_planned_is_a_problem(reader: Api, body: object, status: int, field: str | None) -> None:
    answer = reader("POST", "/v1/plan", json=body)
    assert answer.status_code == status
    assert [error["field"] for error in answer.json["errors"]] == ([] if field is None else [field])


def test_the_scope_is_read(api: Api, keys: dict[Scope, str]) -> None:
    answer = Api(api.client, keys[Scope.assign])("POST", "/v1/plan", json={"baseline": RATE, "effect": 0.01})
    assert (answer.status_code, answer.json["code"]) == (403, "scope_missing")
