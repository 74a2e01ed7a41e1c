"""The doctor finds what is broken, and says what to do about it."""

import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from experiments import access, database, doctor, lake
from experiments.settings import Settings
from experiments.store import Store
from tests.experiments.store_rows import alias, event, in_lake, receive


def broken(settings: Settings, now: datetime) -> dict[str, str]:
    """The checks that failed, with their detail."""
    return {check.check: check.detail for check in doctor.examine(settings, now=now) if not check.ok}


def test_a_sound_store_has_nothing_broken(any_store: Store, now: datetime) -> None:
    receive(any_store, [event("a"), event("b")], now)
    lake.sync(any_store.engine, any_store.lake, now=now)
    receive(any_store, [event("c")], now)
    with any_store.write() as session:
        access.create_key(session, "app", ["ingest"], now=now)
    checks = {check.check: check for check in doctor.examine(any_store.settings, now=now)}
    assert [name for name, check in checks.items() if not check.ok] == []
    assert checks["rows"].detail == "2 in the lake, 1 waiting in the inbox"
    assert checks["keys"].detail == "1"
    assert "user create" in checks["accounts"].detail
    assert ("integrity" in checks) is (any_store.engine.dialect.name == "sqlite")


def test_links_are_counted_and_those_that_do_not_hold(any_store: Store, now: datetime) -> None:
    links = [alias("1", "tablet", "mother"), alias("2", "tablet", "child"), alias("3", "phone", "mother")]
    again = [alias("4", "tablet", "mother"), alias("5", "mother", "tablet"), alias("6", "tablet", "child")]
    for batch in (links, again):
        receive(any_store, batch, now)
        lake.sync(any_store.engine, any_store.lake, now=now)
    (check,) = (check for check in doctor.examine(any_store.settings, now=now) if check.check == "ids")
    assert check.detail == "2 linked to another; links refused, as the id was somebody else's already: 1"


def test_a_missing_file_of_the_lake_is_found(any_store: Store, now: datetime) -> None:
    receive(any_store, [event("a")], now)
    lake.sync(any_store.engine, any_store.lake, now=now)
    assert in_lake(any_store) == ["a"]
    (path,) = any_store.lake.rglob("*.parquet")
    path.unlink()
    (detail,) = broken(any_store.settings, now).values()
    assert detail.startswith("1 missing or damaged, such as event/day=2026-03-02/")


def test_a_file_cut_off_is_found(any_store: Store, now: datetime) -> None:
    receive(any_store, [event("a")], now)
    lake.sync(any_store.engine, any_store.lake, now=now)
    (path,) = any_store.lake.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    assert list(broken(any_store.settings, now)) == ["lake files"]


def test_an_old_schema_is_found(any_store: Store, now: datetime) -> None:
    database.downgrade(any_store.engine, "base")
    found = broken(any_store.settings, now)
    assert list(found) == ["schema"]
    assert "run `upturn migrate`" in found["schema"]


def test_a_lake_that_cannot_be_written_is_found(any_store: Store, now: datetime) -> None:
    any_store.settings.folder.mkdir(exist_ok=True)
    any_store.lake.write_text("a file, not a folder")
    assert list(broken(any_store.settings, now)) == ["lake"]


def test_a_folder_that_cannot_be_made_is_found(tmp_path: Path, now: datetime) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert list(broken(Settings.in_folder(tmp_path / "file" / "store"), now)) == ["database"]


def test_a_file_that_is_no_database_is_found(tmp_path: Path, now: datetime) -> None:
    settings = Settings.in_folder(tmp_path)
    (tmp_path / "upturn.db").write_bytes(b"not a database" * 100)
    assert list(broken(settings, now)) == ["database"]


def test_a_damaged_database_is_found(sqlite_store: Store, now: datetime) -> None:
    receive(sqlite_store, [event(f"m{number}") for number in range(3000)], now)
    sqlite_store.close()
    path = sqlite_store.settings.folder / "upturn.db"
    content = bytearray(path.read_bytes())
    half = len(content) // 2 // 4096 * 4096
    content[half : half + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert broken(sqlite_store.settings, now).keys() & {"database", "integrity"}


def test_a_server_that_is_not_there_is_found_without_showing_the_password(tmp_path: Path, now: datetime) -> None:
    settings = Settings.in_folder(tmp_path, database_url="postgresql://u:secret@127.0.0.1:1/x?connect_timeout=2")
    found = broken(settings, now)
    assert list(found) == ["database"]
    assert "secret" not in found["database"]


def test_a_clock_that_went_back_is_found(sqlite_store: Store, now: datetime) -> None:
    lake.sync(sqlite_store.engine, sqlite_store.lake, now=now)
    assert list(broken(sqlite_store.settings, now - timedelta(seconds=1))) == ["clock"]


def test_a_lake_in_another_place_is_found(sqlite_store: Store, tmp_path: Path, now: datetime) -> None:
    receive(sqlite_store, [event("a")], now)
    lake.sync(sqlite_store.engine, sqlite_store.lake, now=now)
    shutil.move(sqlite_store.lake, tmp_path / "elsewhere")
    assert list(broken(sqlite_store.settings, now)) == ["lake files"]
    assert broken(replace(sqlite_store.settings, lake=tmp_path / "elsewhere"), now) == {}
