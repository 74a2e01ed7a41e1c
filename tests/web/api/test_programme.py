"""The programme and the tactics over HTTP."""

from datetime import timedelta

import msgspec

from experiments import ingest, lake, registry
from experiments.documents import Kind
from experiments.programme.library import TacticEntry
from experiments.programme.totals import Programme
from experiments.store import Store
from tests.web import made, many
from tests.web.conftest import Api


def test_the_programme_of_a_period(api: Api, store: Store) -> None:
    many.fill(store, 20)
    answer = api("GET", "/v1/programme?from=2026-01-01&to=2026-11-22")
    assert answer.status_code == 200
    found = msgspec.convert(answer.json, Programme)
    assert (found.start, found.end) == ("2026-01-01", "2026-11-23")
    assert found.decided == 10
    assert found.holdout is None
    assert api("GET", "/v1/programme").json["started"] < found.started


def test_a_bad_period_or_half_a_holdout_is_refused(api: Api) -> None:
    for query, field in (("from=x", "from"), ("from=2026-02-01&to=2026-01-01", "to"), ("holdout=a", "metric")):
        answer = api("GET", f"/v1/programme?{query}")
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json["errors"]] == [field]
    assert api("GET", "/v1/programme?holdout=a&metric=b").status_code == 404


def test_the_holdout_is_measured_on_the_data_in_the_lake(api: Api, store: Store) -> None:
    with store.write() as session:
        registry.create(session, Kind.holdout, {"key": "away", "name": "Away", "share": 0.5}, actor="x", now=made.NOW)
        registry.create(session, Kind.metric, made.PRIMARY, actor="x", now=made.NOW)
        long_ago, lately = made.NOW - timedelta(days=60), made.NOW - timedelta(days=20)
        items: list[ingest.AnyItem] = []
        for i in range(400):
            items.append(ingest.Event(message_id=f"a{i}", user_id=f"u{i}", timestamp=long_ago, event="open"))
            if i % 2:
                items.append(ingest.Event(message_id=f"b{i}", user_id=f"u{i}", timestamp=lately, event="visit"))
        ingest.store(session, store.catalog(session), list(enumerate(items)), now=made.NOW - timedelta(days=1))
    address = "/v1/programme?from=2026-10-23&to=2026-11-20&holdout=away&metric=visit"
    answer = api("GET", address)
    assert answer.status_code == 404  # nothing was moved to the lake yet
    lake.sync(store.engine, store.lake, now=made.NOW)
    held = api("GET", address).json["holdout"]
    assert held["held"] + held["rest"] == 400
    assert held["total"]["lower"] < held["total"]["upper"]
    assert api("GET", "/v1/programme?from=2020-01-01&to=2020-02-01&holdout=away&metric=visit").status_code == 409


def test_tactics_are_listed_and_filtered(api: Api, store: Store) -> None:
    many.fill(store, 20)
    whole = api("GET", "/v1/tactics").json
    assert whole["total"] == len(whole["items"])
    entries = msgspec.convert(whole["items"], list[TacticEntry])
    assert {entry.segment for entry in entries} == {None, "new", "loyal"}
    offers = api("GET", "/v1/tactics?kind=offer&segment=*").json
    assert offers["total"] == whole["total"]
    assert offers["items"]
    assert all(item["offer"] and item["segment"] is None for item in offers["items"])
    assert api("GET", "/v1/tactics?kind=colour").status_code == 422
