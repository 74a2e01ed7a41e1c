"""The record's database: migrations on both, and the settings that keep what was acknowledged."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, select, text

from experiments import database
from experiments.errors import Conflict
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import Account, ApiKey, Base, Instant, Revision


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a store whose database has no table."""
    if request.param == "sqlite":
        yield Settings.in_folder(tmp_path)
        return
    postgres = request.getfixturevalue("postgres")
    name = postgres.create()
    yield Settings.in_folder(tmp_path, database_url=postgres.url(name))
    postgres.drop(name)


@pytest.fixture
def engine(empty: Settings) -> Iterator[Engine]:
    engine = database.open_engine(empty)
    yield engine
    engine.dispose()


def test_migrations_make_the_tables_of_the_code_and_take_them_away(engine: Engine) -> None:
    database.migrate(engine)
    database.check_schema(engine)
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}
    database.migrate(engine)
    current, newest = database.schema_version(engine)
    assert current == newest is not None
    database.downgrade(engine, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    assert database.schema_version(engine)[0] is None
    database.migrate(engine)
    database.check_schema(engine)


def test_keys_made_before_there_were_origins_have_none(engine: Engine) -> None:
    database.migrate(engine)
    database.downgrade(engine, "0001")
    key = "('app', 'upk', 'd', 'read', '2026-03-02 08:30:00')"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO api_keys (name, prefix, digest, scopes, created_at) VALUES {key}"))
    database.migrate(engine)
    database.check_schema(engine)
    with engine.connect() as connection:
        assert connection.execute(select(ApiKey.name, ApiKey.scopes, ApiKey.origins)).one() == ("app", "read", "")


def test_accounts_made_before_there_were_roles_are_admins(engine: Engine) -> None:
    database.migrate(engine)
    database.downgrade(engine, "0003")
    account = "('li', '', '2026-03-02 08:30:00')"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO accounts (login, password_hash, created_at) VALUES {account}"))
    database.migrate(engine)
    database.check_schema(engine)
    with engine.connect() as connection:
        columns = (Account.login, Account.role, Account.session_epoch, Account.disabled_at, Account.theme)
        assert connection.execute(select(*columns)).one() == ("li", "admin", 0, None, None)


def test_the_check_sees_a_difference(engine: Engine) -> None:
    database.migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE users ADD COLUMN extra INTEGER"))
    with pytest.raises(Exception, match="New upgrade operations detected"):
        database.check_schema(engine)


def test_a_store_with_an_old_schema_is_not_opened(empty: Settings) -> None:
    with pytest.raises(Conflict, match="run `upturn migrate`") as caught:
        Store.open(empty)
    assert caught.value.code == "schema_outdated"
    Store.open(empty, migrate=True).close()
    Store.open(empty).close()


def test_sqlite_is_set_to_keep_what_was_committed(sqlite_store: Store) -> None:
    with sqlite_store.read() as session:
        found = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    full = 2
    assert found == {"journal_mode": "wal", "synchronous": full, "foreign_keys": 1, "busy_timeout": 30000}


def test_postgres_waits_for_the_disk_by_default(postgres_store: Store) -> None:
    with postgres_store.read() as session:
        assert session.scalar(text("SHOW synchronous_commit")) == "on"


def test_writers_wait_for_each_other_instead_of_failing(sqlite_store: Store) -> None:
    """Read, then write, from two connections: a deferred transaction would fail with "database is locked"."""
    with sqlite_store.write() as first:
        assert first.scalar(text("SELECT count(*) FROM users")) == 0
        with sqlite_store.read() as reader:
            assert reader.scalar(text("SELECT count(*) FROM users")) == 0
        with sqlite_store.engine.connect() as other:
            raw = other.connection.dbapi_connection
            assert raw is not None
            raw.execute("PRAGMA busy_timeout = 50")
            with pytest.raises(Exception, match="database is locked"):
                other.exec_driver_sql("SELECT 1")
        first.execute(text("INSERT INTO users VALUES ('u', '{}')"))


def insert_and_fail(store: Store) -> None:
    with store.write() as session:
        session.execute(text("INSERT INTO users VALUES ('u', '{}')"))
        raise ZeroDivisionError


def test_a_session_undoes_everything_when_an_error_leaves_it(any_store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        insert_and_fail(any_store)
    with any_store.read() as session:
        assert session.scalar(text("SELECT count(*) FROM users")) == 0


def test_an_instant_needs_its_offset() -> None:
    with pytest.raises(ValueError, match="needs its offset"):
        Instant().process_bind_param(datetime(2026, 1, 1), None)  # type: ignore[arg-type]  # noqa: DTZ001


def test_instants_come_back_aware_and_equal(any_store: Store) -> None:
    moment = datetime(2026, 1, 1, 5, 0, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    with any_store.write() as session:
        session.add(Revision(kind="layer", key="k", revision=1, body="{}", actor="li", created_at=moment))
    with any_store.read() as session:
        found = session.scalars(select(Revision.created_at)).one()
    assert found == moment
    assert found.tzinfo is UTC


def test_the_secret_is_made_once_and_is_private(sqlite_store: Store) -> None:
    secret = sqlite_store.secret()
    assert len(secret) == 64
    assert sqlite_store.secret() == secret
    assert ((sqlite_store.settings.folder / "secret").stat().st_mode & 0o777) == 0o600
