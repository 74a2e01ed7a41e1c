"""Reports over HTTP: the same report in three formats, made once for the same inputs."""

import csv
import io
from datetime import timedelta

import msgspec
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from experiments import export, report
from experiments.export import COLUMNS
from experiments.store import Store
from experiments.tables import SavedReport
from tests.experiments.test_priors import past
from tests.web import made
from tests.web.conftest import Api, Clock
from web.api.reports import XLSX


@pytest.fixture
def made_report(api: Api, store: Store) -> dict[str, object]:
    made.documents(store)
    made.facts(store, at=made.NOW - timedelta(days=5))
    answer = api("POST", f"/v1/experiments/{made.KEY}/reports")
    assert answer.status_code == 201
    return {"body": answer.data, "location": answer.headers["Location"]}


def test_a_report_is_made_and_found_at_its_address(api: Api, made_report: dict[str, str]) -> None:
    read = api("GET", made_report["location"])
    assert read.data == made_report["body"]
    found = report.decode(read.data)
    assert [arm.matured for arm in found.arms] == [120, 120]
    assert api("GET", f"/v1/experiments/{made.KEY}/report").data == made_report["body"]


def test_the_list_names_every_report_newest_first(
    api: Api, made_report: dict[str, str], clock: Clock, store: Store
) -> None:
    clock.forward(days=1)
    with store.write() as session:
        session.connection().exec_driver_sql("DELETE FROM inbox WHERE kind = 'none'")
    second = api("POST", f"/v1/experiments/{made.KEY}/reports").headers["Location"]
    items = api("GET", f"/v1/experiments/{made.KEY}/reports").json["items"]
    assert [f"/v1/reports/{item['id']}" for item in items] == [second, made_report["location"]]
    assert items[0]["watermark"] > items[1]["watermark"]


@pytest.mark.parametrize("place", ["latest", "by id"])
def test_csv_and_parquet_hold_the_rows_of_the_json(api: Api, made_report: dict[str, str], place: str) -> None:
    address = made_report["location"] if place == "by id" else f"/v1/experiments/{made.KEY}/report"
    want = [msgspec.to_builtins(row) for row in export.rows(report.decode(api("GET", f"{address}.json").data))]
    assert len(want) == 6

    table = pq.read_table(io.BytesIO(api("GET", f"{address}.parquet").data))
    assert table.column_names == list(COLUMNS)
    assert table.to_pylist() == want

    text = api("GET", f"{address}.csv")
    rows = list(csv.DictReader(io.StringIO(text.data.decode())))
    assert [row["segment"] or None for row in rows] == [row["segment"] for row in want]
    assert [float(row["absolute"]) if row["absolute"] else None for row in rows] == [row["absolute"] for row in want]
    assert api("GET", f"{address}.csv?bom=1").data == b"\xef\xbb\xbf" + text.data


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        (XLSX, XLSX),
    ],
)
def test_the_format_follows_accept(api: Api, made_report: dict[str, str], accept: str, media: str) -> None:
    for address in (made_report["location"], f"/v1/experiments/{made.KEY}/report"):
        answer = api("GET", address, headers={"Accept": accept})
        assert (answer.status_code, answer.mimetype) == (200, media)
        assert "Accept" in answer.headers["Vary"]


def test_a_format_that_is_not_there_is_refused(api: Api, made_report: dict[str, str]) -> None:
    answer = api("GET", made_report["location"], headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json["code"]) == (406, "not_acceptable")


def test_a_report_that_the_caller_has_is_not_sent_again(api: Api, made_report: dict[str, str]) -> None:
    etags = set()
    for extension in ("json", "csv", "parquet", "xlsx"):
        address = f"{made_report['location']}.{extension}"
        etags.add(etag := api("GET", address).headers["ETag"])
        assert api("GET", address, headers={"If-None-Match": etag}).status_code == 304
    assert len(etags) == 4


def test_before_the_first_report_the_answer_says_how_to_make_one(api: Api, store: Store) -> None:
    made.documents(store)
    answer = api("GET", f"/v1/experiments/{made.KEY}/report")
    assert (answer.status_code, answer.json["code"]) == (404, "no_report")


def test_a_draft_has_nothing_to_report(api: Api, store: Store) -> None:
    made.documents(store, start=False)
    answer = api("POST", f"/v1/experiments/{made.KEY}/reports")
    assert (answer.status_code, answer.json["code"]) == (409, "not_started")


def test_an_experiment_without_strata_is_reported(api: Api, store: Store) -> None:
    made.documents(store)
    assert api("POST", "/v1/experiments", json=made.PLAIN).status_code == 201
    assert api("POST", "/v1/experiments/plain/status", json={"status": "running"}).status_code == 200
    answer = api("POST", "/v1/experiments/plain/reports")
    assert (answer.status_code, answer.json["decision"]["reasons"]) == (201, ["no_matured_users"])


def test_a_report_of_another_version_says_so(api: Api, store: Store, made_report: dict[str, str]) -> None:
    with store.write() as session:
        for row in session.scalars(select(SavedReport)):
            row.body = '{"schema": "upturn.report/1", "from": "the future"}'
    for extension in (".csv", ".parquet", ".xlsx"):
        answer = api("GET", f"{made_report['location']}{extension}")
        assert (answer.status_code, answer.json["code"]) == (409, "report_unreadable")


def test_the_prior_of_a_metric_needs_three_past_effects(api: Api, store: Store) -> None:
    body = {"key": "m", "name": "m", "kind": "mean", "terms": [{"event": "buy"}], "window_days": 7}
    assert api("POST", "/v1/metrics", json=body).status_code == 201
    for number, lift in enumerate((0.0, 0.05)):
        past(store, number, lift)
    refused = api("GET", "/v1/metrics/m/prior")
    assert (refused.status_code, refused.json["code"]) == (409, "too_little_experience")
    past(store, 2, 0.1)
    found = api("GET", "/v1/metrics/m/prior").json
    assert (found["metric"], found["effects"]) == ("m", 3)
    assert found["sd"] > 0
