"""Processes killed at random instants: what was acknowledged is in the lake, once."""

import multiprocessing
import os
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import func, select

from experiments import ingest, lake
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import InboxRow, LakeBatch
from tests.experiments.store_rows import event, exposure, identify, in_lake, start

KILLS = 20
BATCH = 20


def write(settings: Settings, log: Path, now: datetime) -> None:
    """Take in batch after batch, from the first one that was not acknowledged, and log each after its commit."""
    store = Store.open(settings)
    number = len(acknowledged(log)) // BATCH
    with log.open("ab", buffering=0) as file:
        while True:
            names = [f"{number}-{item}" for item in range(BATCH)]
            items = [
                *(event(name, f"u{name}") for name in names[: BATCH // 2]),
                *(exposure(name, f"u{name}") for name in names[BATCH // 2 : -2]),
                *(identify(name, "one user", last=name) for name in names[-2:]),
            ]
            body = msgspec.json.encode({"batch": items})
            with store.write() as session:
                receipt = ingest.receive(session, store.catalog(session), body, now=now)
            assert receipt.accepted + receipt.duplicates == BATCH
            os.write(file.fileno(), "".join(f"{name}\n" for name in names).encode())
            number += 1


def move(settings: Settings, log: Path, now: datetime) -> None:
    """Fill the lake and merge its files, with the limits so low that all of it happens often."""
    lake.COMPACT_FILES, lake.CHUNK_ROWS, lake.GRACE = 3, 50, timedelta(seconds=1)
    store = Store.open(settings)
    while True:
        lake.sync(store.engine, store.lake, now=now)
        lake.compact(store.engine, store.lake, now=datetime.now(UTC))


def acknowledged(log: Path) -> list[str]:
    """The ids in whole lines of the log; one cut off by the kill was not acknowledged."""
    text = log.read_text() if log.exists() else ""
    return text[: text.rfind("\n") + 1].split()


def test_what_was_acknowledged_is_in_the_lake_once(any_store: Store, tmp_path: Path, now: datetime) -> None:
    start(any_store, now)
    any_store.close()
    log, random_instant = tmp_path / "log", random.Random(20260302)
    context = multiprocessing.get_context("forkserver")
    # pandas: older versions of pyarrow load it with the first table, later than the kill comes.
    context.set_forkserver_preload(["tests.experiments.test_lake_kill", "psycopg", "pandas"])

    def begin(work: Any) -> tuple[Any, BaseProcess]:
        process = context.Process(target=work, args=(any_store.settings, log, now))
        process.start()
        return work, process

    running = [begin(write), begin(move)]
    died_by_themselves: list[Any] = []
    for kill in range(2 * KILLS):
        time.sleep(random_instant.uniform(0.05, 0.4))
        work, process = running.pop(kill % 2)
        process.kill()
        process.join(20)
        if process.exitcode != -9:
            died_by_themselves.append((work.__name__, process.exitcode))
        running.insert(kill % 2, begin(work))
    for _, process in running:
        process.kill()
        process.join(20)
    assert died_by_themselves == []

    lake.sync(any_store.engine, any_store.lake, now=now)
    sent = acknowledged(log)
    found = Counter(message for kind in lake.SCHEMAS for message in in_lake(any_store, kind))
    with any_store.read() as session:
        stored = set(session.scalars(select(InboxRow.message_id)))
        moves = session.scalar(select(func.count()).select_from(LakeBatch).where(LakeBatch.rows > 0)) or 0
    assert [message for message in sent if found[message] != 1] == []
    assert [message for message, times in found.items() if times != 1] == []
    assert found.keys() == stored
    # The last batch may be stored without having been acknowledged: nothing else may.
    assert len(stored - set(sent)) in (0, BATCH)
    # Work was done between the kills.
    assert len(sent) > KILLS * BATCH
    assert moves > KILLS // 4
