"""Looking a store over: what is wrong with it, and what to do about each finding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine, func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from experiments import access, database, identity, lake
from experiments.database import is_postgres
from experiments.reports import program_version
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import LakeFile


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    check: str
    ok: bool
    detail: str


def examine(settings: Settings, *, now: datetime) -> list[Check]:
    """Look at a store; stops early where nothing more can be seen."""
    return list(_examine(settings, now))


def _examine(settings: Settings, now: datetime) -> Iterator[Check]:
    yield Check("program", ok=True, detail=f"upturn {program_version()}, {settings.timezone}, {settings.currency}")
    where = make_url(settings.database_url)
    try:
        engine = database.open_engine(settings)
    except OSError as error:
        yield Check("database", ok=False, detail=f"{where!r}: {error}")
        return
    try:
        yield from _examine_open(settings, engine, now)
    except SQLAlchemyError as error:
        yield Check(
            "database",
            ok=False,
            detail=f"{where!r}: {error.__class__.__name__}: check UPTURN_DATABASE_URL, or restore a backup",
        )
    finally:
        engine.dispose()


def _examine_open(settings: Settings, engine: Engine, now: datetime) -> Iterator[Check]:
    current, newest = database.schema_version(engine)
    if current != newest:
        yield Check("schema", ok=False, detail=f"at {current}, not {newest}: run `upturn migrate`")
        return
    yield Check("database", ok=True, detail=f"{engine.url!r}, schema {current}")
    store = Store.on(settings, engine)
    if not is_postgres(engine):
        with store.read() as session:
            found = session.scalar(text("PRAGMA quick_check"))
        yield Check("integrity", ok=found == "ok", detail=str(found))
    try:
        settings.lake.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=settings.lake):
            pass
        yield Check("lake", ok=True, detail=str(settings.lake))
    except OSError as error:
        yield Check("lake", ok=False, detail=f"{settings.lake} cannot be written: {error.strerror}")
    with store.read() as session:
        listed = session.execute(select(LakeFile.path, LakeFile.rows).where(LakeFile.retired_at.is_(None))).all()
        broken = [path for path, rows in listed if not _is_whole(settings.lake / path, rows)]
        detail = f"{len(broken)} missing or damaged, such as {broken[0]}: restore them" if broken else f"{len(listed)}"
        yield Check("lake files", ok=not broken, detail=detail)
        rows = session.scalar(select(func.sum(LakeFile.rows)).where(LakeFile.retired_at.is_(None))) or 0
        yield Check("rows", ok=True, detail=f"{rows} in the lake, {lake.backlog(session)} waiting in the inbox")
        if not broken:
            linked, refused = _links(lake.files(session, settings.lake, "alias"))
            detail = f"{linked} linked to another; links refused, as the id was somebody else's already: {refused}"
            yield Check("ids", ok=True, detail=detail)
        mark = lake.watermark(session)
        behind = mark is not None and mark.at > now
        yield Check(
            "clock", ok=not behind, detail="the last move is in the future: set the clock" if behind else str(now)
        )
        people, programs = access.accounts(session), access.keys(session)
        nobody = "nobody can log in: run `upturn user create NAME`"
        yield Check("accounts", ok=True, detail=f"{len(people)}" if people else nobody)
        nothing = "no program can call the API: run `upturn key create NAME --scope ingest`"
        yield Check("keys", ok=True, detail=f"{len(programs)}" if programs else nothing)


def _links(paths: Sequence[Path]) -> tuple[int, int]:
    """How many ids in the lake are other ids of somebody, and how many links do not hold."""
    if not paths:
        return 0, 0
    columns = ["user_id", "name", "seq"]
    rows = pa.concat_tables(pq.read_table(path, columns=columns, partitioning=None) for path in paths)
    links = rows.group_by(["name", "user_id"]).aggregate([("seq", "min")]).sort_by("seq_min")
    links = links.rename_columns({"name": "other_id"})
    return len(identity.last_ids(links)), identity.rivals(links)


def _is_whole(path: Path, rows: int) -> bool:
    try:
        return bool(pq.read_metadata(path).num_rows == rows)
    except (OSError, pa.ArrowException):
        return False
