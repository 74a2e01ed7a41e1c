"""One open store: the record, the lake, and the documents in force."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from experiments import database
from experiments.catalog import Catalog, CatalogCache
from experiments.lookup import Lookup
from experiments.settings import Settings


@dataclass(frozen=True, slots=True)
class Store:
    """What a process holds while it works on a store; make it with ``Store.open``."""

    settings: Settings
    engine: Engine
    _reader: Engine
    lookup: Lookup
    _catalogs: CatalogCache = field(default_factory=CatalogCache)

    @classmethod
    def open(cls, settings: Settings, *, migrate: bool = False) -> "Store":
        """Open a store.

        Args:
            settings: where it is.
            migrate: bring its schema to the newest version, creating it when absent.

        Raises:
            Conflict: ``schema_outdated``, when the schema is not the newest and ``migrate`` is off.
        """
        engine = database.open_engine(settings)
        try:
            if migrate:
                database.migrate(engine)
            else:
                database.require_current_schema(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls.on(settings, engine)

    @classmethod
    def on(cls, settings: Settings, engine: Engine) -> "Store":
        """Return the store of a record that is open already, whatever its schema."""
        reader = database.open_reader(engine)
        return cls(settings, engine, reader, Lookup(reader))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with self.engine.connect().execution_options(readonly=True) as connection, Session(connection) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose work is committed at the end, or undone when an error leaves it."""
        # What the record asks of those who write goes with the session: the settings end here.
        info = {"two_persons": self.settings.two_persons}
        with Session(self.engine, info=info) as session, session.begin():
            yield session

    def catalog(self, session: Session) -> Catalog:
        """Return the documents in force, compiled."""
        return self._catalogs.current(session)

    def catalog_at(self, version: int) -> Catalog:
        """Return the documents in force, compiled, where ``lookup`` has just said which version that is."""
        known = self._catalogs.newest
        if known is not None and known.version == version:
            return known
        with self.read() as session:
            return self.catalog(session)

    @property
    def lake(self) -> Path:
        return self.settings.lake

    def secret(self) -> str:
        """Return the store's secret for signing sessions, made at first use."""
        path = self.settings.folder / "secret"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="ascii") as file:
                path.chmod(0o600)
                file.write(secrets.token_hex(32))
        except FileExistsError:
            pass
        return path.read_text(encoding="ascii")

    def close(self) -> None:
        """Close the record's connections."""
        self.lookup.close()
        self.engine.dispose()
        self._reader.dispose()
