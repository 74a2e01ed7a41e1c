"""The lake: Parquet files that analysis reads, filled from the inbox by watermark.

What is true is what ``lake_batches`` and ``lake_files`` say. A move writes its files first, safely on disk, and then
records them together with the new watermark in one transaction, on the condition that the watermark is still the one
it started from. So a kill at any instant, or two processes at once, leave at worst files that nobody lists.

Rows are taken in the order (position, seq), up to a ceiling below which every transaction has ended: on PostgreSQL the
oldest transaction still running; on SQLite, with one writer at a time, everything committed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Engine, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from experiments.database import is_postgres
from experiments.errors import Conflict
from experiments.tables import InboxRow, LakeBatch, LakeFile

CHUNK_ROWS = 250_000
COMPACT_FILES = 8
COMPACT_ROWS = 4_000_000
GRACE = timedelta(minutes=15)

_TIME = pa.timestamp("us", tz="UTC")
_COMMON = [
    pa.field("message_id", pa.string(), nullable=False),
    pa.field("user_id", pa.string(), nullable=False),
    pa.field("at", _TIME, nullable=False),
    pa.field("received_at", _TIME, nullable=False),
    pa.field("data", pa.string()),
    pa.field("seq", pa.int64(), nullable=False),
    pa.field("batch", pa.int32(), nullable=False),
]
SCHEMAS: dict[str, pa.Schema] = {
    "event": pa.schema([*_COMMON, pa.field("name", pa.string(), nullable=False), pa.field("value_micros", pa.int64())]),
    "exposure": pa.schema(
        [
            *_COMMON,
            pa.field("name", pa.string(), nullable=False),
            pa.field("phase", pa.int32(), nullable=False),
            pa.field("variant", pa.string(), nullable=False),
            pa.field("stratum", pa.string()),
        ]
    ),
    "identify": pa.schema(_COMMON),
    "alias": pa.schema([*_COMMON, pa.field("name", pa.string(), nullable=False)]),
}
_SOURCES = {"at": "at_us", "received_at": "received_us"}


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far the lake is filled: the number of the last batch, and when it was moved."""

    batch: int
    at: datetime


def sync(engine: Engine, folder: Path, *, now: datetime) -> Watermark:
    """Move all committed rows that are not in the lake yet, and return the watermark reached.

    Args:
        engine: the record.
        folder: the lake's folder, created when absent.
        now: the present, kept with the batch as the time its data stand for.

    Returns:
        The watermark. A call always ends with a batch made at ``now`` or later, empty if there was nothing to move.
    """
    while True:
        moved = _move(engine, folder, now)
        if moved is not None and moved[1] < CHUNK_ROWS:
            return moved[0]


def watermark(session: Session, batch: int | None = None) -> Watermark | None:
    """Return the newest watermark, or the one of ``batch``; None when there is none."""
    query = select(LakeBatch.batch, LakeBatch.synced_at).order_by(LakeBatch.batch.desc()).limit(1)
    if batch is not None:
        query = query.where(LakeBatch.batch == batch)
    row = session.execute(query).first()
    return None if row is None else Watermark(row.batch, row.synced_at)


def files(session: Session, folder: Path, kind: str) -> list[Path]:
    """Return the files that hold the rows of ``kind``, in a fixed order."""
    paths = session.scalars(
        select(LakeFile.path).where(LakeFile.kind == kind, LakeFile.retired_at.is_(None)).order_by(LakeFile.path)
    )
    return [folder / path for path in paths]


def backlog(session: Session) -> int:
    """Return how many rows of the inbox are not in the lake yet."""
    last = session.execute(select(LakeBatch.position, LakeBatch.seq).order_by(LakeBatch.batch.desc())).first()
    query = select(func.count()).select_from(InboxRow)
    if last is not None:
        query = query.where(tuple_(InboxRow.position, InboxRow.seq) > tuple_(last.position, last.seq))
    return session.scalar(query) or 0


def _move(engine: Engine, folder: Path, now: datetime) -> tuple[Watermark, int] | None:
    """Move one chunk; None when another process moved meanwhile."""
    with engine.connect().execution_options(readonly=True) as connection:
        last = connection.execute(
            select(LakeBatch.batch, LakeBatch.position, LakeBatch.seq).order_by(LakeBatch.batch.desc()).limit(1)
        ).first()
        batch, position, seq = (last.batch + 1, last.position, last.seq) if last else (1, 0, 0)
        ceiling = 1
        if is_postgres(engine):
            ceiling = connection.scalar(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")) or 0
            if ceiling < position:
                raise Conflict(
                    "transactions_went_back",
                    f"the database is at transaction {ceiling}, the lake at {position}: the store was restored into "
                    "another cluster; run `upturn migrate --rebase-lake`",
                )
        rows = connection.execute(
            select(InboxRow.__table__)
            .where(tuple_(InboxRow.position, InboxRow.seq) > tuple_(position, seq), InboxRow.position < ceiling)
            .order_by(InboxRow.position, InboxRow.seq)
            .limit(CHUNK_ROWS)
        ).all()
    if rows:
        position, seq = rows[-1].position, rows[-1].seq
    written = list(_write(folder, batch, rows))
    try:
        with engine.begin() as connection:
            # The primary key is the condition: of two processes that made batch n, one commits it.
            connection.execute(
                insert(LakeBatch).values(batch=batch, position=position, seq=seq, rows=len(rows), synced_at=now)
            )
            if written:
                connection.execute(insert(LakeFile), [{**entry, "batch": batch} for entry in written])
    except IntegrityError:
        for entry in written:
            (folder / entry["path"]).unlink(missing_ok=True)
        return None
    return Watermark(batch, now), len(rows)


def _write(folder: Path, batch: int, rows: Sequence[Any]) -> Iterator[dict[str, Any]]:
    if not rows:
        return
    columns = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True))
    kinds = np.array(columns["kind"])
    days = (np.array(columns["received_us"]) // 86_400_000_000).astype("datetime64[D]")
    for kind, schema in SCHEMAS.items():
        chosen = kinds == kind
        if not chosen.any():
            continue
        table = _table(columns, schema, batch).filter(pa.array(chosen))
        for day in np.unique(days[chosen]):
            part = table.filter(pa.array(days[chosen] == day))
            yield _publish(folder, kind, str(day), part, f"{batch:08d}")


def _table(columns: dict[str, Sequence[Any]], schema: pa.Schema, batch: int) -> pa.Table:
    count = len(columns["seq"])
    arrays = []
    for field in schema:
        if field.name == "batch":
            arrays.append(pa.array(np.full(count, batch, np.int32)))
        elif field.name in _SOURCES:
            arrays.append(pa.array(columns[_SOURCES[field.name]], pa.int64()).cast(field.type))
        else:
            arrays.append(pa.array(columns[field.name], field.type))
    # Columns that only one kind fills are null in the rows of the others, which the caller filters out.
    return pa.Table.from_arrays(arrays, schema=pa.schema([field.with_nullable(True) for field in schema]))


def _publish(folder: Path, kind: str, day: str, table: pa.Table, name: str) -> dict[str, Any]:
    """Write a file so that it is whole and on disk before anyone can list it."""
    relative = Path(kind) / f"day={day}" / f"{name}-{uuid4().hex[:12]}.parquet"
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=250_000)
    for target in (path, path.parent, path.parent.parent, folder):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return {"path": relative.as_posix(), "kind": kind, "day": day, "rows": table.num_rows}


def compact(engine: Engine, folder: Path, *, now: datetime) -> int:
    """Merge days that have many small files into one file each, and remove files nobody lists any more.

    Readers that listed the old files before may go on reading them: they stay on disk for ``GRACE``.

    Returns:
        How many files were replaced.
    """
    with Session(engine) as session:
        days = session.execute(
            select(LakeFile.kind, LakeFile.day)
            .where(LakeFile.retired_at.is_(None))
            .group_by(LakeFile.kind, LakeFile.day)
            .having(func.count() >= COMPACT_FILES)
        ).all()
    replaced = sum(_compact_day(engine, folder, kind, day, now) for kind, day in days)
    _sweep(engine, folder, now)
    return replaced


def _compact_day(engine: Engine, folder: Path, kind: str, day: str, now: datetime) -> int:
    with Session(engine) as session:
        found = session.execute(
            select(LakeFile.path, LakeFile.rows, LakeFile.batch)
            .where(LakeFile.kind == kind, LakeFile.day == day, LakeFile.retired_at.is_(None))
            .order_by(LakeFile.rows, LakeFile.path)
        ).all()
    old, total = [], 0
    for entry in found:
        if total + entry.rows > COMPACT_ROWS:
            break
        old.append(entry)
        total += entry.rows
    if len(old) < COMPACT_FILES:
        return 0
    merged = pa.concat_tables([pq.read_table(folder / entry.path, partitioning=None) for entry in old])
    merged = merged.take(pc.sort_indices(merged, sort_keys=[("batch", "ascending"), ("seq", "ascending")]))
    newest = max(entry.batch for entry in old)
    new = _publish(folder, kind, day, merged, f"{newest:08d}-compact")
    with engine.begin() as connection:
        retired = connection.execute(
            update(LakeFile)
            .where(LakeFile.path.in_([entry.path for entry in old]), LakeFile.retired_at.is_(None))
            .values(retired_at=now)
        ).rowcount
        if retired == len(old):
            connection.execute(insert(LakeFile).values(**new, batch=newest))
            return len(old)
        connection.rollback()
    (folder / new["path"]).unlink(missing_ok=True)
    return 0


def _sweep(engine: Engine, folder: Path, now: datetime) -> None:
    with engine.begin() as connection:
        gone = connection.scalars(
            delete(LakeFile).where(LakeFile.retired_at < now - GRACE).returning(LakeFile.path)
        ).all()
        listed = set(connection.scalars(select(LakeFile.path)))
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob("*/day=*/*.parquet"):
        try:
            age = now - datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except FileNotFoundError:
            continue  # another process has just taken it away
        if age > GRACE and path.relative_to(folder).as_posix() not in listed:
            path.unlink(missing_ok=True)


def rebase(engine: Engine) -> None:
    """Make the watermark hold in another PostgreSQL cluster: after a restore, before anything else writes.

    The rows restored keep their order by ``seq``; transactions of the new cluster sort after them.
    """
    with engine.begin() as connection:
        last = connection.execute(
            select(LakeBatch.batch, LakeBatch.position, LakeBatch.seq).order_by(LakeBatch.batch.desc()).limit(1)
        ).first()
        if last is not None:
            moved = tuple_(InboxRow.position, InboxRow.seq) <= tuple_(last.position, last.seq)
            connection.execute(update(InboxRow).where(moved).values(position=-1))
            connection.execute(update(LakeBatch).where(LakeBatch.batch == last.batch).values(position=0, seq=0))
        connection.execute(update(InboxRow).where(InboxRow.position > 0).values(position=0))
