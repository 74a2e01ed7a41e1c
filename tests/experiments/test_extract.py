"""Extracting: the rows received come back from the file, in every form."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from experiments import extract, lake
from experiments.errors import InvalidDocument
from experiments.store import Store
from tests.experiments import shop
from tests.experiments.store_rows import alias, event, exposure, identify, receive, start

AT = datetime(2026, 3, 1, 23, 0, 0, 1, tzinfo=UTC)
ITEMS = [
    event("e1", "用户😀", value=1.25, timestamp=AT.isoformat(), properties={"sku": 'a,"b"\n'}),
    event("e2", timestamp=AT.isoformat()),
    exposure("x1", "u,1", stratum="gold", timestamp=AT.isoformat()),
    exposure("x2", "u2", stratum="rest", variant="control", timestamp=AT.isoformat()),
    identify("i1", tier="gold") | {"timestamp": AT.isoformat()},
    alias("a1", "device 设备", timestamp=AT.isoformat()),
]


def common(message: str, user: str, data: str | None = None) -> dict[str, Any]:
    return {"message_id": message, "user_id": user, "data": data}


EXPECTED: dict[str, list[dict[str, Any]]] = {
    "event": [
        common("e1", "用户😀", '{"sku":"a,\\"b\\"\\n"}') | {"name": "purchase", "value_micros": 1_250_000},
        common("e2", "u1") | {"name": "purchase", "value_micros": None},
    ],
    "exposure": [
        common("x1", "u,1") | {"name": "spring", "phase": 1, "variant": "coupon", "stratum": "gold"},
        common("x2", "u2") | {"name": "spring", "phase": 1, "variant": "control", "stratum": "rest"},
    ],
    "identify": [common("i1", "u1", '{"tier":"gold"}')],
    "alias": [common("a1", "u1") | {"name": "device 设备"}],
}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, their times parsed; in CSV, empty is nothing and digits are numbers."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            rows: list[dict[str, Any]] = [json.loads(line) for line in file]
        else:
            rows = [
                {name: int(value) if value.isdigit() else value or None for name, value in row.items()}
                for row in csv.DictReader(file)
            ]
    for row in rows:
        row |= {name: datetime.fromisoformat(row[name]) for name in ("at", "received_at")}
        row |= {
            "data": json.dumps(row["data"], separators=(",", ":")) if isinstance(row["data"], dict) else row["data"]
        }
    return rows


@pytest.fixture
def filled(any_store: Store, now: datetime) -> Store:
    start(any_store, now, strata=True)
    for item in ITEMS:
        assert receive(any_store, [item], now).accepted == 1
    return any_store


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("kind", list(EXPECTED))
def test_the_rows_received_come_back(filled: Store, tmp_path: Path, now: datetime, kind: str, suffix: str) -> None:
    path = tmp_path / f"it's{suffix}"
    times = {"at": AT.replace(tzinfo=UTC), "received_at": now}
    assert extract.write(filled, kind, path, experiment=None, now=now) == len(EXPECTED[kind])
    found = read(path)
    assert [
        {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in found
    ] == [row | times for row in EXPECTED[kind]]
    assert sorted(path.parent.glob(".*")) == []


def test_every_kind_has_a_name() -> None:
    assert sorted(extract.KINDS.values()) == sorted(EXPECTED) == sorted(lake.SCHEMAS)


def test_rows_not_moved_yet_are_in_the_file(filled: Store, tmp_path: Path, now: datetime) -> None:
    lake.sync(filled.engine, filled.lake, now=now)
    receive(filled, [event("e3")], now)
    extract.write(filled, "event", tmp_path / "a.parquet", experiment=None, now=now)
    assert [row["message_id"] for row in read(tmp_path / "a.parquet")] == ["e1", "e2", "e3"]


def test_exposures_of_one_experiment(filled: Store, tmp_path: Path, now: datetime) -> None:
    for name, count in (("spring", 2), ("it's", 0)):
        assert extract.write(filled, "exposure", tmp_path / "a.csv", experiment=name, now=now) == count


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("kind", list(EXPECTED))
def test_an_empty_store_gives_an_empty_file(
    sqlite_store: Store, tmp_path: Path, now: datetime, kind: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    assert extract.write(sqlite_store, kind, path, experiment=None, now=now) == 0
    assert read(path) == []


def test_a_file_of_another_form_is_refused(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    with pytest.raises(InvalidDocument) as caught:
        extract.write(sqlite_store, "event", tmp_path / "a.xlsx", experiment=None, now=now)
    assert [problem.problem for problem in caught.value.problems] == ["unknown_format"]


def test_only_exposures_belong_to_an_experiment(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    with pytest.raises(InvalidDocument) as caught:
        extract.write(sqlite_store, "event", tmp_path / "a.csv", experiment="spring", now=now)
    assert [problem.field for problem in caught.value.problems] == ["experiment"]


def test_a_failing_extract_leaves_the_old_file(filled: Store, tmp_path: Path, now: datetime) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    lake.sync(filled.engine, filled.lake, now=now)
    for part in filled.lake.rglob("*.parquet"):
        part.write_bytes(b"broken")
    with pytest.raises(Exception, match=r"(?i)parquet"):
        extract.write(filled, "event", path, experiment=None, now=now)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["a.csv"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_participants_are_one_row_each_in_every_form(tmp_path: Path, form: str) -> None:
    store = shop.open_shop(tmp_path / "shop")
    shop.send(store, shop.customers(40))
    file = tmp_path / f"people.{form}"
    assert extract.write_users(store, file, experiment=shop.KEY, metric="bought", now=shop.NOW) == 40
    if form == "parquet":
        found = pq.read_table(file).to_pylist()
    elif form == "csv":
        found = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    else:
        found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len({row["user_id"] for row in found}) == 40
    wanted = {person.user: float(bool(person.spends)) for person in shop.customers(40)}
    assert {row["user_id"]: float(row["outcome"]) for row in found} == wanted
    assert all(float(row["chance.letter"]) in (0.5, 0.2) for row in found)
    store.close()
