"""The lake: every committed row exactly once, whatever runs at the same time."""

import multiprocessing
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, insert, select, text, update

from experiments import ingest, lake
from experiments.errors import Conflict
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import InboxRow, LakeBatch, LakeFile
from tests.experiments.store_rows import at_once, event, exposure, identify, in_lake, receive, start

HOUR = timedelta(hours=1)
LATE = b'{"batch":[{"type":"event","messageId":"late","userId":"u","event":"e"}]}'


def sync(store: Store, now: datetime) -> lake.Watermark:
    return lake.sync(store.engine, store.lake, now=now)


def send(store: Store, now: datetime, *messages: str) -> None:
    assert receive(store, [event(message) for message in messages], now).accepted == len(messages)


def listed(store: Store, *, retired: bool = False) -> list[str]:
    with store.read() as session:
        rows = session.execute(select(LakeFile.path, LakeFile.retired_at)).all()
    return sorted(row.path for row in rows if (row.retired_at is not None) is retired)


def on_disk(store: Store) -> list[str]:
    return sorted(path.relative_to(store.lake).as_posix() for path in store.lake.rglob("*.parquet"))


def backlog(store: Store) -> int:
    with store.read() as session:
        return lake.backlog(session)


def table(store: Store, kind: str) -> list[dict[str, Any]]:
    """The rows of a kind without their sequence numbers, which a rolled back insert may use up."""
    with store.read() as session:
        paths = lake.files(session, store.lake, kind)
    rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
    return sorted(rows, key=lambda row: (row["batch"], row.pop("seq")))


def test_rows_arrive_once_with_every_field(any_store: Store, now: datetime) -> None:
    start(any_store, now, strata=True)
    at = datetime(2026, 3, 1, 23, 0, 0, 1, tzinfo=UTC)
    items = [
        event("e1", "用户😀", value=1.25, timestamp=at.isoformat(), properties={"sku": "a"}),
        exposure("x1", stratum="gold", timestamp=at.isoformat()),
        identify("i1", tier="gold"),
    ]
    receive(any_store, items, now)
    mark = sync(any_store, now)
    common = {"received_at": now, "batch": mark.batch}
    assert table(any_store, "event") == [
        common
        | {"message_id": "e1", "user_id": "用户😀", "at": at, "data": '{"sku":"a"}'}
        | {"name": "purchase", "value_micros": 1_250_000}
    ]
    assert table(any_store, "exposure") == [
        common
        | {"message_id": "x1", "user_id": "u1", "at": at, "data": None}
        | {"name": "spring", "phase": 1, "variant": "coupon", "stratum": "gold"}
    ]
    assert table(any_store, "identify") == [
        common | {"message_id": "i1", "user_id": "u1", "at": now, "data": '{"tier":"gold"}'}
    ]
    sync(any_store, now)
    assert in_lake(any_store) == ["e1"]


def test_the_watermark_only_grows_even_when_nothing_moved(any_store: Store, now: datetime) -> None:
    marks = []
    for number in range(6):
        if number % 2:
            send(any_store, now, f"m{number}")
        marks.append(sync(any_store, now + number * HOUR))
    assert [mark.batch for mark in marks] == [1, 2, 3, 4, 5, 6]
    assert [mark.at for mark in marks] == [now + number * HOUR for number in range(6)]
    with any_store.read() as session:
        assert lake.watermark(session) == marks[-1]
        assert lake.watermark(session, 3) == marks[2]
        assert lake.watermark(session, 7) is None
        places = session.execute(select(LakeBatch.position, LakeBatch.seq).order_by(LakeBatch.batch)).all()
    assert places == sorted(places)


def test_a_store_without_a_move_has_no_watermark(any_store: Store) -> None:
    with any_store.read() as session:
        assert lake.watermark(session) is None
        assert lake.files(session, any_store.lake, "event") == []


def test_the_backlog_counts_what_is_not_moved(any_store: Store, now: datetime) -> None:
    assert backlog(any_store) == 0
    send(any_store, now, "a", "b")
    assert backlog(any_store) == 2
    sync(any_store, now)
    assert backlog(any_store) == 0
    send(any_store, now, "c")
    assert backlog(any_store) == 1


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 8, 14, 20])
def test_a_move_in_chunks_takes_all(
    any_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(lake, "CHUNK_ROWS", 7)
    messages = [f"m{number:02}" for number in range(rows)]
    for message in messages:
        send(any_store, now, message)
    assert sync(any_store, now).batch == rows // 7 + 1
    assert in_lake(any_store) == messages
    assert backlog(any_store) == 0


def test_days_are_days_of_receipt(any_store: Store, now: datetime) -> None:
    days = ["2026-02-28", "2026-03-01", "2026-03-02"]
    for number, day in enumerate(days):
        send(any_store, datetime.fromisoformat(f"{day}T23:59:59.999999Z"), f"last{number}")
        send(any_store, datetime.fromisoformat(f"{day}T00:00:00Z"), f"first{number}")
    sync(any_store, now)
    parts = {path.parent.name: pq.read_table(path, partitioning=None) for path in paths_of(any_store)}
    assert {name: set(part["message_id"].to_pylist()) for name, part in parts.items()} == {
        f"day={day}": {f"first{number}", f"last{number}"} for number, day in enumerate(days)
    }


def paths_of(store: Store) -> list[Path]:
    with store.read() as session:
        return lake.files(session, store.lake, "event")


def test_a_file_is_on_disk_before_it_is_listed(
    sqlite_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, and every folder that leads to it, is flushed before the transaction that lists it."""
    opened: dict[int, str] = {}
    flushed: list[str] = []
    listed_then: list[int] = []
    really_open = os.open

    def watch_open(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = really_open(path, *arguments, **options)
        opened[descriptor] = str(path)
        return descriptor

    def watch(descriptor: int) -> None:
        flushed.append(opened[descriptor])
        with sqlite_store.read() as session:
            listed_then.append(session.scalar(select(func.count()).select_from(LakeFile)) or 0)

    send(sqlite_store, now, "m")
    monkeypatch.setattr(os, "open", watch_open)
    monkeypatch.setattr(os, "fsync", watch)
    sync(sqlite_store, now)
    (path,) = paths_of(sqlite_store)
    assert {str(path), *(str(folder) for folder in list(path.parents)[:3])} <= set(flushed)
    assert path.parents[2] == sqlite_store.lake
    assert set(listed_then) == {0}


# Several at once.


def sync_many(settings: Settings, now: datetime, rounds: int, gate: Any) -> None:
    """What each process does: sync, and compact, again and again."""
    lake.COMPACT_FILES = 3
    store = Store.open(settings)
    gate.wait(60)
    for _ in range(rounds):
        lake.sync(store.engine, store.lake, now=now)
        lake.compact(store.engine, store.lake, now=now)
    store.close()


def test_processes_that_sync_and_compact_at_once_lose_and_double_nothing(any_store: Store, now: datetime) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(4)
    workers = [context.Process(target=sync_many, args=(any_store.settings, now, 15, gate)) for _ in range(3)]
    for worker in workers:
        worker.start()
    gate.wait(60)
    messages = [f"m{number}" for number in range(400)]
    for at in range(0, 400, 5):
        send(any_store, now, *messages[at : at + 5])
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    sync(any_store, now)
    assert Counter(in_lake(any_store)) == Counter(messages)
    assert set(listed(any_store)) <= set(on_disk(any_store))


def test_a_file_that_is_gone_before_it_is_looked_at_is_no_trouble(any_store: Store, now: datetime) -> None:
    """A name without a file, as when another process removes it in between."""
    send(any_store, now, "a")
    sync(any_store, now)
    day = next((any_store.lake / "event").iterdir())
    (day / "gone.parquet").symlink_to(day / "nowhere")
    lake.compact(any_store.engine, any_store.lake, now=now)
    assert in_lake(any_store) == ["a"]


def test_of_two_moves_of_the_same_rows_one_is_kept(
    any_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the same watermark and write their files before either commits."""
    send(any_store, now, "a", "b")
    gate, write = Barrier(2), lake._write

    def written_together(*arguments: Any) -> Any:
        files = list(write(*arguments))
        if files:
            gate.wait(20)
        return files

    monkeypatch.setattr(lake, "_write", written_together)
    results = at_once(2, lambda _: sync(any_store, now))
    assert sorted(mark.batch for mark in results) == [1, 2]
    assert in_lake(any_store) == ["a", "b"]
    assert on_disk(any_store) == listed(any_store)


def test_a_move_that_fails_to_commit_is_made_again(
    any_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(any_store, now, "a")
    write = lake._write

    def failing(*arguments: Any) -> Any:
        list(write(*arguments))
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lake, "_write", failing)
        with pytest.raises(OSError, match="no space"):
            sync(any_store, now)
    assert (in_lake(any_store), backlog(any_store)) == ([], 1)
    sync(any_store, now)
    assert in_lake(any_store) == ["a"]


# PostgreSQL: numbers are given before the commit.


def test_a_transaction_that_commits_late_is_not_skipped(postgres_store: Store, now: datetime) -> None:
    store = postgres_store
    with store.read() as session:
        catalog = store.catalog(session)
    with store.write() as slow:
        ingest.receive(slow, catalog, LATE, now=now)
        send(store, now, "early1", "early2")
        sync(store, now)
        assert set(in_lake(store)) <= {"early1", "early2"}
        assert backlog(store) == 2 - len(in_lake(store))
        send(store, now, "early3")
        sync(store, now)
    sync(store, now)
    assert sorted(in_lake(store)) == ["early1", "early2", "early3", "late"]
    with store.read() as session:
        order = session.scalars(select(InboxRow.message_id).order_by(InboxRow.seq)).all()
    assert order[0] == "late"


def test_a_late_number_in_an_early_transaction_is_not_skipped(postgres_store: Store, now: datetime) -> None:
    """The transaction is older, its row's sequence number newer, than what is in the lake already."""
    store = postgres_store
    with store.read() as session:
        catalog = store.catalog(session)
    with store.write() as slow:
        slow.execute(text("SELECT pg_current_xact_id()"))
        send(store, now, "early")
        sync(store, now)
        ingest.receive(slow, catalog, LATE, now=now)
    sync(store, now)
    assert sorted(in_lake(store)) == ["early", "late"]


def test_an_early_number_in_a_late_transaction_is_not_skipped(postgres_store: Store, now: datetime) -> None:
    """The reverse: rows of the younger transaction come with lower numbers than what is in the lake already."""
    store = postgres_store
    with store.read() as session:
        catalog = store.catalog(session)
    with store.write() as younger:
        with store.write() as older:
            older.execute(text("SELECT pg_current_xact_id()"))
            ingest.receive(younger, catalog, LATE, now=now)
            ingest.receive(older, catalog, LATE.replace(b"late", b"early"), now=now)
        sync(store, now)
        assert in_lake(store) == ["early"]
    sync(store, now)
    assert in_lake(store) == ["early", "late"]


def test_an_aborted_transaction_leaves_a_gap_only(postgres_store: Store, now: datetime) -> None:
    store = postgres_store

    def abort() -> None:
        with store.write() as session:
            catalog = store.catalog(session)
            ingest.receive(session, catalog, LATE, now=now)
            send(store, now, "other")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        abort()
    sync(store, now)
    send(store, now, "late")
    sync(store, now)
    assert in_lake(store) == ["other", "late"]


def test_any_open_writer_holds_the_ceiling_back(postgres_store: Store, now: datetime) -> None:
    store = postgres_store
    with store.write() as writer:
        writer.execute(text("INSERT INTO users VALUES ('u', '{}')"))
        send(store, now, "a")
        sync(store, now)
        assert (in_lake(store), backlog(store)) == ([], 1)
    sync(store, now)
    assert in_lake(store) == ["a"]


def test_many_writers_with_slow_and_aborted_commits_lose_nothing(postgres_store: Store, now: datetime) -> None:
    store, done = postgres_store, Event()

    def keep_syncing() -> None:
        while not done.is_set():
            sync(store, now)

    def write(number: int) -> list[str]:
        kept = []
        for turn in range(12):
            message = f"{number}-{turn}"
            with store.engine.connect() as connection, connection.begin() as transaction:
                row = {
                    "message_id": message,
                    "kind": "event",
                    "user_id": "u",
                    "name": "e",
                    "at_us": 0,
                    "received_us": 0,
                }
                position = text("pg_current_xact_id()::text::bigint")
                connection.execute(insert(InboxRow).values(**row, position=position))
                connection.execute(text("SELECT pg_sleep(:s)"), {"s": (number * 7 + turn * 3) % 5 / 100})
                if (number + turn) % 4:
                    kept.append(message)
                else:
                    transaction.rollback()
        return kept

    mover = Thread(target=keep_syncing)
    mover.start()
    kept = [message for result in at_once(6, write) for message in result]
    done.set()
    mover.join()
    sync(store, now)
    assert Counter(in_lake(store)) == Counter(kept)


def test_a_lake_ahead_of_the_cluster_is_refused(postgres_store: Store, now: datetime) -> None:
    restored_elsewhere(postgres_store, now)
    with pytest.raises(Conflict) as caught:
        sync(postgres_store, now)
    assert caught.value.code == "transactions_went_back"


def restored_elsewhere(store: Store, now: datetime) -> None:
    """Rows a, b moved and c waiting, with the numbers of a cluster that was far ahead."""
    send(store, now, "a")
    send(store, now, "b")
    sync(store, now)
    send(store, now, "c")
    far = 10**12
    with store.engine.begin() as connection:
        connection.execute(update(InboxRow).values(position=InboxRow.position + far))
        connection.execute(update(LakeBatch).values(position=LakeBatch.position + far))


def test_after_a_rebase_every_row_still_arrives_once(postgres_store: Store, now: datetime) -> None:
    restored_elsewhere(postgres_store, now)
    lake.rebase(postgres_store.engine)
    assert backlog(postgres_store) == 1
    send(postgres_store, now, "d")
    assert backlog(postgres_store) == 2
    sync(postgres_store, now)
    assert in_lake(postgres_store) == ["a", "b", "c", "d"]
    send(postgres_store, now, "e")
    lake.rebase(postgres_store.engine)
    send(postgres_store, now, "f")
    sync(postgres_store, now)
    assert in_lake(postgres_store) == ["a", "b", "c", "d", "e", "f"]


def test_a_rebase_without_need_does_no_harm(any_store: Store, now: datetime) -> None:
    lake.rebase(any_store.engine)
    send(any_store, now, "a")
    sync(any_store, now)
    send(any_store, now, "b")
    lake.rebase(any_store.engine)
    lake.rebase(any_store.engine)
    send(any_store, now, "c")
    sync(any_store, now)
    assert in_lake(any_store) == ["a", "b", "c"]


# Compaction.


def many_files(store: Store, now: datetime, count: int = lake.COMPACT_FILES) -> list[str]:
    start(store, now)
    for number in range(count):
        receive(store, [event(f"m{number}", value=number), exposure(f"x{number}", f"u{number}")], now)
        sync(store, now)
    return [f"m{number}" for number in range(count)]


def test_compaction_keeps_every_row_as_it_was(any_store: Store, now: datetime) -> None:
    messages = many_files(any_store, now)
    before = {kind: table(any_store, kind) for kind in lake.SCHEMAS}
    assert lake.compact(any_store.engine, any_store.lake, now=now) == 2 * lake.COMPACT_FILES
    assert len(listed(any_store)) == 2
    assert {kind: table(any_store, kind) for kind in lake.SCHEMAS} == before
    assert in_lake(any_store) == messages
    assert lake.compact(any_store.engine, any_store.lake, now=now) == 0


def test_few_files_are_left_alone(any_store: Store, now: datetime) -> None:
    many_files(any_store, now, lake.COMPACT_FILES - 1)
    assert lake.compact(any_store.engine, any_store.lake, now=now) == 0


def test_compaction_leaves_out_what_would_grow_too_large(
    sqlite_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake, "COMPACT_ROWS", 10)
    monkeypatch.setattr(lake, "COMPACT_FILES", 3)
    big = [f"big{number}" for number in range(9)]
    send(sqlite_store, now, *big)
    sync(sqlite_store, now)
    for number in range(3):
        send(sqlite_store, now, f"m{number}")
        sync(sqlite_store, now)
    assert lake.compact(sqlite_store.engine, sqlite_store.lake, now=now) == 3
    assert sorted(pq.read_metadata(path).num_rows for path in paths_of(sqlite_store)) == [3, 9]
    assert sorted(in_lake(sqlite_store)) == sorted([*big, "m0", "m1", "m2"])


def test_readers_of_the_old_list_go_on_until_the_grace_is_over(any_store: Store, now: datetime) -> None:
    messages = many_files(any_store, now)
    old = paths_of(any_store)
    lake.compact(any_store.engine, any_store.lake, now=now)
    lake.compact(any_store.engine, any_store.lake, now=now + lake.GRACE)
    assert [pq.read_table(path, partitioning=None)["message_id"][0].as_py() for path in old] == messages
    lake.compact(any_store.engine, any_store.lake, now=now + lake.GRACE + timedelta(seconds=1))
    assert [path for path in old if path.exists()] == []
    assert listed(any_store, retired=True) == []
    assert on_disk(any_store) == listed(any_store)
    assert in_lake(any_store) == messages


def test_files_that_nobody_lists_are_removed_when_they_are_old(sqlite_store: Store, now: datetime) -> None:
    send(sqlite_store, now, "m")
    sync(sqlite_store, now)
    (kept,) = paths_of(sqlite_store)
    old, new = kept.with_name("old.parquet"), kept.with_name("new.parquet")
    for path, age in ((old, lake.GRACE + timedelta(seconds=1)), (new, lake.GRACE), (kept, timedelta(days=9))):
        if path is not kept:
            path.write_bytes(b"half a file")
        moment = (now - age).timestamp()
        os.utime(path, (moment, moment))
    lake.compact(sqlite_store.engine, sqlite_store.lake, now=now)
    assert [path.exists() for path in (old, new, kept)] == [False, True, True]


def test_a_sync_during_a_compaction_is_kept(any_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    messages, publish = many_files(any_store, now), lake._publish

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(lake, "_publish", publish)
        send(any_store, now, "meanwhile")
        sync(any_store, now)
        return publish(*arguments)

    monkeypatch.setattr(lake, "_publish", meanwhile)
    lake.compact(any_store.engine, any_store.lake, now=now)
    assert sorted(in_lake(any_store)) == sorted([*messages, "meanwhile"])


def test_of_two_compactions_at_once_one_is_kept(
    any_store: Store, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = many_files(any_store, now)
    day, gate, publish = now.date().isoformat(), Barrier(2), lake._publish

    def together(*arguments: Any) -> Any:
        made = publish(*arguments)
        gate.wait(20)
        return made

    monkeypatch.setattr(lake, "_publish", together)
    results = at_once(2, lambda _: lake._compact_day(any_store.engine, any_store.lake, "event", day, now))
    assert sorted(results) == [0, lake.COMPACT_FILES]
    assert in_lake(any_store) == messages
    assert set(on_disk(any_store)) == {*listed(any_store), *listed(any_store, retired=True)}


def test_compacted_days_are_compacted_again(any_store: Store, now: datetime) -> None:
    messages = many_files(any_store, now)
    lake.compact(any_store.engine, any_store.lake, now=now)
    for number in range(lake.COMPACT_FILES):
        send(any_store, now, f"n{number}")
        sync(any_store, now)
    before = table(any_store, "event")
    assert lake.compact(any_store.engine, any_store.lake, now=now) == lake.COMPACT_FILES + 1
    assert table(any_store, "event") == before
    assert in_lake(any_store) == [*messages, *(f"n{number}" for number in range(lake.COMPACT_FILES))]


def test_a_report_on_an_old_watermark_has_the_same_inputs_after_compaction(any_store: Store, now: datetime) -> None:
    many_files(any_store, now)
    with any_store.read() as session:
        middle = lake.watermark(session, 4)
    assert middle is not None
    before = [row for row in table(any_store, "event") if row["batch"] <= middle.batch]
    lake.compact(any_store.engine, any_store.lake, now=now)
    assert [row for row in table(any_store, "event") if row["batch"] <= middle.batch] == before
    assert [row["message_id"] for row in before] == ["m0", "m1", "m2", "m3"]
