"""The tables of the record. Instants are UTC; in the hot tables they are integers, microseconds since 1970."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

BigKey = BigInteger().with_variant(Integer, "sqlite")


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, also on SQLite, which forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"an instant needs its offset: {value!r}")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of the typed tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Instant(), str: String()}  # noqa: RUF012


class Revision(Base):
    """One revision of a document; rows are added, never changed."""

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("kind", "key", "revision"),)

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    kind: Mapped[str]
    key: Mapped[str]
    revision: Mapped[int]
    body: Mapped[str] = mapped_column(Text)
    actor: Mapped[str]
    created_at: Mapped[datetime]


class AuditEntry(Base):
    """Who did what to which document, with the difference."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str] = mapped_column(index=True)
    revision: Mapped[int]
    diff: Mapped[str] = mapped_column(Text)


class ApiKey(Base):
    """A key of the API; only its digest is kept. ``origins``: the web origins that may use it, separated by spaces."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[str]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    origins: Mapped[str] = mapped_column(Text, default="", server_default="")


class Account(Base):
    """A person who may log in to the pages: by a password (empty: none), or as ``subject`` of an OpenID provider."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    created_at: Mapped[datetime]
    role: Mapped[str]
    session_epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    disabled_at: Mapped[datetime | None]
    subject: Mapped[str | None] = mapped_column(unique=True)
    language: Mapped[str | None]
    theme: Mapped[str | None]
    up_colour: Mapped[str | None]


class InboxRow(Base):
    """An event, an exposure, a user's attributes or his other id, as received; ``message_id`` makes a retry harmless.

    ``position`` is the number of the inserting transaction on PostgreSQL, where sequence numbers are not in commit
    order, and 0 on SQLite, which has one writer at a time.
    """

    __tablename__ = "inbox"

    seq: Mapped[int] = mapped_column(BigKey, primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    message_id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    user_id: Mapped[str]
    name: Mapped[str]
    at_us: Mapped[int] = mapped_column(BigInteger)
    received_us: Mapped[int] = mapped_column(BigInteger)
    value_micros: Mapped[int | None] = mapped_column(BigInteger)
    phase: Mapped[int | None]
    variant: Mapped[str | None]
    stratum: Mapped[str | None]
    data: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("ix_inbox_position", "position", "seq"),
        {"sqlite_autoincrement": True},
    )


class StoredAssignment(Base):
    """The variant a user was in at the first exposure received; served from then on."""

    __tablename__ = "assignments"
    __table_args__ = ({"sqlite_with_rowid": False},)

    user_id: Mapped[str] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    phase: Mapped[int] = mapped_column(primary_key=True)
    variant: Mapped[str]
    stratum: Mapped[str | None]


class UserAttributes(Base):
    """What is known of a user, as last received."""

    __tablename__ = "users"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    attributes: Mapped[str] = mapped_column(Text)


class Identity(Base):
    """An id that is another user's: ``user_id`` is the last of its chain of links, and never an ``other_id`` itself."""

    __tablename__ = "identities"
    __table_args__ = ({"sqlite_with_rowid": False},)

    other_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(index=True)


class LakeBatch(Base):
    """One move of rows into the lake; its number is the watermark, its time the ``as_of`` of reports made on it."""

    __tablename__ = "lake_batches"

    batch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(BigInteger)
    seq: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int]
    synced_at: Mapped[datetime]


class LakeFile(Base):
    """A Parquet file of the lake. Files not listed here do not exist, whatever the disk holds."""

    __tablename__ = "lake_files"

    path: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    day: Mapped[str]
    rows: Mapped[int]
    batch: Mapped[int] = mapped_column(ForeignKey("lake_batches.batch"))
    retired_at: Mapped[datetime | None]


class SavedReport(Base):
    """A report as made; ``id`` names its inputs, so the same inputs are saved once."""

    __tablename__ = "reports"
    __table_args__ = (Index("ix_reports_experiment", "experiment", "phase", "watermark"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    phase: Mapped[int]
    revision: Mapped[int]
    watermark: Mapped[int]
    created_at: Mapped[datetime]
    body: Mapped[str] = mapped_column(Text)


class Work:
    """What is asked of a process of its own: waiting, under way, done or failed, with its ``settings`` and ``body``.

    ``beat_at`` tells when the process last said that it is at work.
    """

    id: Mapped[str] = mapped_column(primary_key=True)
    experiment: Mapped[str]
    status: Mapped[str]
    progress: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime]
    beat_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    settings: Mapped[str] = mapped_column(Text)
    body: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)


class SavedStudy(Work, Base):
    """A study of uplift; ``id`` names its inputs, so the same inputs are saved once."""

    __tablename__ = "studies"
    __table_args__ = (Index("ix_studies_experiment", "experiment", "created_at"),)

    phase: Mapped[int]
    revision: Mapped[int]
    watermark: Mapped[int]
    notes: Mapped[str | None] = mapped_column(Text)


class SavedList(Work, Base):
    """A list of users scored by a study's model.

    ``slot``: which of the attributes of the experiment's lists tells each user's variant.
    """

    __tablename__ = "lists"
    __table_args__ = (Index("ix_lists_experiment", "experiment", "created_at"),)

    study: Mapped[str]
    slot: Mapped[int]
