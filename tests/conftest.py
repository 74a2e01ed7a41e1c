"""Fixtures that every test may use: stores on both databases, the shared data, one moment."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import psycopg
import pytest

from experiments import database
from experiments.settings import Settings
from experiments.store import Store
from tests.clients import node

ROOT = Path(__file__).parents[1]

# The same examples in every run, and none fails because the machine was busy.
hypothesis.settings.register_profile("upturn", derandomize=True, deadline=None)
hypothesis.settings.load_profile("upturn")


@pytest.fixture
def now() -> datetime:
    """One fixed moment."""
    return datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets, next to the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data sets are not next to the repository")
    return folder


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The folder with the Node clients of others, installed."""
    return node.installed()


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL cluster of our own, on one loopback port."""

    port: int

    def url(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str) -> None:
        """Run a statement that cannot be in a transaction, such as CREATE DATABASE."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, template: str | None = None) -> str:
        """Create a database, empty or as a copy of ``template``, and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return name

    def drop(self, name: str) -> None:
        self.run(f"DROP DATABASE {name} WITH (FORCE)")


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    folders = [*found, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL cluster that ends with the tests."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: run tests/system-packages.sh")
    folder = Path(tempfile.mkdtemp(prefix="upturn-pg-"))
    # PostgreSQL refuses to run as root.
    prefix: list[str] = []
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(binaries / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    port = _free_port()
    cluster = folder / "data"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off -c max_connections=60"
    run("initdb", "-D", str(cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    try:
        run("pg_ctl", "-D", str(cluster), "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield Postgres(port)
    finally:
        run("pg_ctl", "-D", str(cluster), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated database to copy; copying takes a tenth of migrating."""
    name = postgres.create()
    engine = database.open_engine(
        Settings.in_folder(tmp_path_factory.mktemp("template"), database_url=postgres.url(name))
    )
    database.migrate(engine)
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    settings = Settings.in_folder(tmp_path_factory.mktemp("template"))
    Store.open(settings, migrate=True).close()
    return settings.folder / "upturn.db"


@pytest.fixture
def sqlite_store(tmp_path: Path, sqlite_template: Path) -> Iterator[Store]:
    """An empty store on SQLite."""
    settings = Settings.in_folder(tmp_path / "store")
    settings.folder.mkdir()
    shutil.copy(sqlite_template, settings.folder / "upturn.db")
    store = Store.open(settings)
    yield store
    store.close()


@pytest.fixture
def postgres_settings(tmp_path: Path, postgres: Postgres, postgres_template: str) -> Iterator[Settings]:
    """Settings of an empty store on PostgreSQL."""
    name = postgres.create(postgres_template)
    yield Settings.in_folder(tmp_path / "store", database_url=postgres.url(name))
    postgres.drop(name)


@pytest.fixture
def postgres_store(postgres_settings: Settings) -> Iterator[Store]:
    """An empty store on PostgreSQL."""
    store = Store.open(postgres_settings)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """An empty store, on each database in turn."""
    store: Store = request.getfixturevalue("sqlite_store" if request.param == "sqlite" else "postgres_store")
    return store
