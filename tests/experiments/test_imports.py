"""Importing files: the rows that are good, once, and what is wrong with the others by number."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from experiments import imports
from experiments.errors import InvalidDocument
from experiments.imports import What
from experiments.ingest import Receipt
from experiments.store import Store
from experiments.tables import InboxRow, UserAttributes
from tests.experiments.store_rows import event, exposure, identify, start

AT = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)


def run(store: Store, path: Path, what: What, now: datetime, timezone: str | None = None) -> Receipt:
    return imports.run(store, path, what, now=now, timezone=timezone)


def rows(store: Store) -> list[dict[str, Any]]:
    """The rows stored, without what every row has."""
    with store.read() as session:
        found = session.execute(select(InboxRow.__table__).order_by(InboxRow.seq)).mappings().all()
    hidden = ("seq", "position", "message_id", "received_us")
    return [
        {name: value for name, value in row.items() if name not in hidden and value is not None}
        | ({"data": json.loads(row["data"])} if row["data"] else {})
        for row in found
    ]


def refusals(receipt: Receipt) -> list[tuple[int, str]]:
    return [(refusal.index, refusal.detail) for refusal in receipt.rejected]


def csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


EVENT = {"kind": "event", "user_id": "007", "name": "购买", "at_us": micros(AT), "value_micros": 12_500_000}
EXPOSURE = {
    "kind": "exposure",
    "user_id": "007",
    "name": "spring",
    "at_us": micros(AT),
    "phase": 1,
    "variant": "coupon",
}
USER = {"kind": "identify", "user_id": "007", "name": "", "at_us": micros(AT)}
FILES: dict[What, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    What.events: (
        {"user_id": "007", "timestamp": AT, "event": "购买", "value": 12.5, "sku": "A 1", "n": 3},
        {"event": "购买", "value": 12.5, "properties": {"sku": "A 1", "n": 3}},
        EVENT | {"data": {"sku": "A 1", "n": 3}},
    ),
    What.exposures: (
        {"user_id": "007", "timestamp": AT, "experiment": "spring", "variant": "coupon", "phase": 1, "age": 30},
        {"experiment": "spring", "variant": "coupon", "phase": 1, "attributes": {"age": 30}},
        EXPOSURE | {"data": {"age": 30}},
    ),
    What.users: (
        {"user_id": "007", "timestamp": AT, "tier": "金", "age": 30.5},
        {"traits": {"tier": "金", "age": 30.5}},
        USER | {"data": {"tier": "金", "age": 30.5}},
    ),
}


def written(folder: Path, what: What, suffix: str) -> Path:
    """One row of a kind, in a file of the form that the suffix names."""
    row, item, _ = FILES[what]
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({name: [value] for name, value in row.items()}), path)
    elif suffix == ".csv":
        values = [value.isoformat() if isinstance(value, datetime) else str(value) for value in row.values()]
        path.write_text(f"{','.join(row)}\n{','.join(values)}\n", encoding="utf-8")
    else:
        make = {What.events: event, What.exposures: exposure, What.users: identify}[what]
        whole = make("m1", "007") | item | {"timestamp": AT.isoformat()}
        path.write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".ndjson"])
@pytest.mark.parametrize("what", list(What))
def test_each_kind_is_read_from_each_form_and_twice_is_harmless(
    any_store: Store, tmp_path: Path, now: datetime, what: What, suffix: str
) -> None:
    start(any_store, now)
    path = written(tmp_path, what, suffix)
    assert run(any_store, path, what, now) == Receipt(1, 0, [])
    assert rows(any_store) == [FILES[what][2]]
    assert run(any_store, path, what, now + timedelta(days=1)) == Receipt(0, 1, [])
    assert rows(any_store) == [FILES[what][2]]


def test_one_file_may_hold_several_kinds(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    start(sqlite_store, now)
    path = csv(tmp_path, "user_id,experiment,variant,event,tier\nu1,spring,coupon,visit,gold\n")
    assert [run(sqlite_store, path, what, now).accepted for what in What] == [1, 1, 1]
    assert [row["kind"] for row in rows(sqlite_store)] == ["exposure", "event", "identify"]


def test_an_import_cut_off_is_taken_up_where_it_stopped(
    sqlite_store: Store, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "BATCH", 10)
    path = csv(tmp_path, "user_id,event\n" + "".join(f"u{number},visit\n" for number in range(35)))
    told: list[int] = []

    def stop(count: int) -> None:
        told.append(count)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imports.run(sqlite_store, path, What.events, now=now, progress=stop)
    assert len(rows(sqlite_store)) == 20
    told.clear()
    assert imports.run(sqlite_store, path, What.events, now=now, progress=lambda n: told.append(n)) == Receipt(
        15, 20, []
    )
    assert told == [10, 10, 10, 5]
    assert [row["user_id"] for row in rows(sqlite_store)] == [f"u{number}" for number in range(35)]


def test_a_row_may_bring_its_message_id(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    path = csv(tmp_path, "message_id,user_id,event\n7,u1,visit\n7,u2,visit\n,u3,visit\n")
    assert run(sqlite_store, path, What.events, now) == Receipt(2, 1, [])


def test_times_without_an_offset_are_refused(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    lines = ["2026-03-01T12:00:00", "2026-03-01T12:00:00+08:00", "2026-03-01", "2026-03-01 04:00:00Z", "soon", ""]
    path = csv(tmp_path, "user_id,event,timestamp\n" + "".join(f"u,visit,{line}\n" for line in lines))
    receipt = run(sqlite_store, path, What.events, now)
    assert [index for index, _ in refusals(receipt)] == [0, 2, 4]
    assert "say --timezone" in receipt.rejected[0].detail
    assert "not ISO 8601" in receipt.rejected[2].detail
    assert [row["at_us"] for row in rows(sqlite_store)] == [micros(AT), micros(AT), micros(now)]


def test_times_without_an_offset_are_read_in_the_zone_given(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    lines = ["2026-03-01T12:00:00", "2026-03-01 04:00:00+00:00", "2026-03-01"]
    path = csv(tmp_path, "user_id,event,timestamp\n" + "".join(f"u,visit,{line}\n" for line in lines))
    assert run(sqlite_store, path, What.events, now, "Asia/Shanghai") == Receipt(3, 0, [])
    midnight = datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=8)))
    assert [row["at_us"] for row in rows(sqlite_store)] == [micros(AT), micros(AT), micros(midnight)]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_parquet_times_of_any_unit(
    sqlite_store: Store, tmp_path: Path, now: datetime, unit: str, zone: str | None
) -> None:
    moment = AT if zone else AT.replace(tzinfo=None) + timedelta(hours=8)
    column = pa.array([moment], pa.timestamp(unit, zone))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"user_id": ["u"], "event": ["visit"], "timestamp": column, "seen": column}), path)
    refused = run(sqlite_store, path, What.events, now)
    if zone is None:
        assert "say --timezone" in refused.rejected[0].detail
        run(sqlite_store, path, What.events, now, "Asia/Shanghai")
    assert [row["at_us"] for row in rows(sqlite_store)] == [micros(AT)]


def test_parquet_columns_of_any_type(any_store: Store, tmp_path: Path, now: datetime) -> None:
    table = pa.table(
        {
            "user_id": pa.array([7]),
            "event": pa.array(["visit"]).dictionary_encode(),
            "value": pa.array([Decimal("1.50")]),
            "timestamp": pa.array([date(2026, 3, 1)]),
            "price": pa.array([Decimal("9.90")]),
            "tags": pa.array([["a", "b"]]),
            "where": pa.array([{"city": "上海"}]),
            "since": pa.array([date(2026, 1, 1)]),
            "empty": pa.array([None], pa.int64()),
            "missing": pa.array([float("nan")]),
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    assert run(any_store, path, What.events, now, "UTC") == Receipt(1, 0, [])
    (row,) = rows(any_store)
    assert (row["user_id"], row["value_micros"]) == ("7", 1_500_000)
    assert row["data"] == {
        "price": 9.9,
        "tags": ["a", "b"],
        "where": {"city": "上海"},
        "since": "2026-01-01",
        "missing": None,
    }


def test_bad_rows_are_numbered_and_the_others_are_kept(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    text = (
        "user_id,event,value\n"
        "u0,purchase,1\n"
        "u1,purchase,oops\n"
        ",purchase,2\n"
        "u3,,3\n"
        "u4,purchase,nan\n"
        "u5,purchase,inf\n"
        "u6,purchase,1e13\n"
        "u7,purchase,\n"
    )
    receipt = run(sqlite_store, csv(tmp_path, text), What.events, now)
    assert [row["user_id"] for row in rows(sqlite_store)] == ["u0", "u7"]
    assert [(index, code.value) for index, code in [(r.index, r.code) for r in receipt.rejected]] == [
        *((number, "invalid_item") for number in range(1, 6)),
        (6, "value_out_of_range"),
    ]
    assert "'oops' is not a number" in receipt.rejected[0].detail


def test_a_bad_phase_is_a_bad_row(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    start(sqlite_store, now)
    lines = "".join(f"u{number},spring,coupon,{phase}\n" for number, phase in enumerate(["1", "", "2", "x", "1.5"]))
    receipt = run(sqlite_store, csv(tmp_path, "user_id,experiment,variant,phase\n" + lines), What.exposures, now)
    assert [(r.index, r.code.value) for r in receipt.rejected] == [
        (2, "unknown_phase"),
        (3, "invalid_item"),
        (4, "invalid_item"),
    ]
    assert receipt.accepted == 2


def test_bad_lines_of_json_are_numbered(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    path = tmp_path / "rows.jsonl"
    good = [json.dumps(event(f"m{number}")) for number in range(2)]
    path.write_bytes("\n".join([good[0], "{", '{"type":"page"}', good[1]]).encode() + b'\n"\xff"\n')
    receipt = run(sqlite_store, path, What.events, now)
    assert (receipt.accepted, [r.index for r in receipt.rejected]) == (2, [1, 2, 4])


@pytest.mark.parametrize("what", list(What))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_missing_columns_are_all_named(
    sqlite_store: Store, tmp_path: Path, now: datetime, what: What, suffix: str
) -> None:
    path = tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        path.write_text("colour\nred\n")
    else:
        pq.write_table(pa.table({"colour": ["red"]}), path)
    with pytest.raises(InvalidDocument) as caught:
        run(sqlite_store, path, what, now)
    needed = {"events": ["event", "user_id"], "exposures": ["experiment", "user_id", "variant"], "users": ["user_id"]}
    assert [problem.field for problem in caught.value.problems] == needed[what]
    assert {problem.problem for problem in caught.value.problems} == {"missing_column"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.csv", b""), ("rows.csv", b"user_id,event\n\xff\xfe,visit\n"), ("rows.parquet", b"PAR1 no PAR1")],
)
def test_a_file_that_cannot_be_read_is_refused(
    sqlite_store: Store, tmp_path: Path, now: datetime, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidDocument) as caught:
        run(sqlite_store, tmp_path / name, What.events, now)
    assert [problem.problem for problem in caught.value.problems] == ["unreadable"]


def test_a_header_alone_is_no_row(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    assert run(sqlite_store, csv(tmp_path, "user_id,event\n"), What.events, now) == Receipt(0, 0, [])


@pytest.mark.parametrize("zone", ["Mars/Base", "../UTC"])
def test_an_unknown_zone_is_refused(sqlite_store: Store, tmp_path: Path, now: datetime, zone: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        run(sqlite_store, csv(tmp_path, "user_id,event\nu,visit\n"), What.events, now, zone)
    assert [problem.field for problem in caught.value.problems] == ["timezone"]


def test_a_file_must_be_there(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InvalidDocument):
            run(sqlite_store, path, What.events, now)


def test_imported_users_are_known(any_store: Store, tmp_path: Path, now: datetime) -> None:
    run(any_store, csv(tmp_path, "user_id,tier,age\nu1,gold,30\nu2,,\n"), What.users, now)
    with any_store.read() as session:
        found = session.scalars(select(UserAttributes)).all()
        known = {user.user_id: json.loads(user.attributes) for user in found}
    assert known == {"u1": {"tier": "gold", "age": 30}, "u2": {}}
