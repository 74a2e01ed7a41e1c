"""Opening the record: SQLite by default, PostgreSQL by URL; migrations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, make_url

from experiments.errors import Conflict
from experiments.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(settings: Settings) -> Engine:
    """Open the record's database (created if it is SQLite and absent); call ``migrate`` before first use."""
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        url = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
        return create_engine(url, pool_pre_ping=True)
    if url.database not in (None, "", ":memory:"):
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def open_reader(engine: Engine) -> Engine:
    """Return an engine for single statements that read: no transaction around them, no check of the connection before.

    On SQLite that is how the driver behaves anyway (see ``_configure_sqlite``); on PostgreSQL it saves three of four
    round trips.
    """
    if not is_postgres(engine):
        return engine
    return create_engine(engine.url, isolation_level="AUTOCOMMIT", pool_reset_on_return=None)


def _configure_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by _begin_immediate: the driver's own rule begins them late and breaks "read, then write".
    connection.isolation_level = None
    # FULL: what was acknowledged survives a power cut; in WAL mode, NORMAL may lose the last transactions.
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("upturn_merge", 2, _merged, deterministic=True)


def _merged(known: str, received: str) -> str:
    """PostgreSQL's ``||`` for objects, which json_patch is not: that one descends into objects and drops nulls."""
    return json.dumps(json.loads(known) | json.loads(received), ensure_ascii=False, separators=(",", ":"))


def _begin_immediate(connection: Any) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN" if options.get("readonly") else "BEGIN IMMEDIATE")


def is_postgres(engine: Engine) -> bool:
    """Tell whether the record is on PostgreSQL."""
    return engine.dialect.name == "postgresql"


def _alembic_config(engine: Engine) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = engine
    return config


def _run(engine: Engine, command: Callable[..., object], *args: str) -> None:
    command(_alembic_config(engine), *args)


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest version; does nothing when it is there."""
    _run(engine, alembic.command.upgrade, "head")


def downgrade(engine: Engine, revision: str) -> None:
    """Take the schema back to ``revision`` ("base" for none); its data goes with it."""
    _run(engine, alembic.command.downgrade, revision)


def check_schema(engine: Engine) -> None:
    """Raise when tables.py and the migrations disagree (a test and ``doctor`` call this)."""
    _run(engine, alembic.command.check)


def schema_version(engine: Engine) -> tuple[str | None, str | None]:
    """Return the database's schema version and the newest one the code knows."""
    with engine.connect().execution_options(readonly=True) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(_alembic_config(engine)).get_current_head()


def require_current_schema(engine: Engine) -> None:
    """Raise when the schema is not the newest."""
    current, newest = schema_version(engine)
    if current != newest:
        raise Conflict("schema_outdated", f"the store's schema is {current}, not {newest}: run `upturn migrate`")
