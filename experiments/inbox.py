"""Writing to the record what was checked: the fastest inserts that each database takes, each message once."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments.tables import InboxRow

Rows = list[tuple[Any, ...]]


def insert(session: Session, rows: Rows, assignments: Rows, traits: Sequence[tuple[str, str, str]]) -> int:
    """Store the rows of one batch and return how many were new.

    Args:
        session: a transaction that writes.
        rows: message_id, kind, user_id, name, at_us, received_us, value_micros, phase, variant, stratum, data.
        assignments: user_id, experiment, phase, variant, stratum; the first of a user stays.
        traits: message_id, user_id, attributes as JSON text, merged into what is known of the user.
    """
    statements = _STATEMENTS[session.get_bind().dialect.name]
    # A retry must not bring old traits back.
    known = known_messages(session, (message for message, _, _ in traits))
    fresh: dict[str, tuple[str, str]] = {}
    for message, user, told in traits:
        if message not in known:
            fresh.setdefault(message, (user, told))
    # Each table in one order for everybody: of two batches that meet, one waits for the other, not each for each.
    if rows and statements.numbers:
        numbers = session.connection().exec_driver_sql(statements.numbers, (len(rows),)).scalars()
        rows = sorted(((*row, number) for row, number in zip(rows, numbers, strict=True)), key=itemgetter(0))
    inserted = _execute(session, statements.inbox, rows)
    _execute(session, statements.assignments, sorted(assignments, key=itemgetter(0, 1, 2)))
    _execute(session, statements.users, sorted(fresh.values(), key=itemgetter(0)))
    return inserted


def known_messages(session: Session, messages: Iterable[str]) -> set[str]:
    """Those of the messages that are on record."""
    return {
        message
        for chunk in chunks(sorted(set(messages)), 900)
        for message in session.scalars(select(InboxRow.message_id).where(InboxRow.message_id.in_(chunk)))
    }


def chunks(values: list[str], size: int) -> Iterable[list[str]]:
    """Split values into lists of a size that a statement takes."""
    return (values[start : start + size] for start in range(0, len(values), size))


class _Insert(msgspec.Struct, frozen=True):
    """An INSERT of one row, and of ``block`` rows at once (0: the driver's executemany is as fast)."""

    one: str
    many: str
    block: int

    @classmethod
    def into(cls, target: str, row: str, conflict: str, block: int) -> "_Insert":
        head, tail = f"INSERT INTO {target} VALUES ", f" ON CONFLICT {conflict}"  # noqa: S608
        return cls(head + row + tail, head + ", ".join([row] * block) + tail, block)


class _Statements(msgspec.Struct, frozen=True):
    """The inserts of a database, and the query for the numbers of inbox rows, where it does not give them in order."""

    numbers: str
    inbox: _Insert
    assignments: _Insert
    users: _Insert


def _statements(mark: str, position: str, merge: str, block: int, numbers: str = "") -> _Statements:
    def marks(count: int) -> str:
        return ", ".join([mark] * count)

    columns = "message_id, kind, user_id, name, at_us, received_us, value_micros, phase, variant, stratum, data"
    number = (", seq", f", {mark}") if numbers else ("", "")
    inbox = f"inbox ({columns}{number[0]}, position)", f"({marks(11)}{number[1]}, {position})"
    insert = partial(_Insert.into, block=block)
    return _Statements(
        numbers,
        insert(*inbox, "(message_id) DO NOTHING"),
        insert("assignments (user_id, experiment, phase, variant, stratum)", f"({marks(5)})", "DO NOTHING"),
        insert("users (user_id, attributes)", f"({marks(2)})", f"(user_id) DO UPDATE SET attributes = {merge}"),
    )


# Straight to the driver: the same statement compiled by SQLAlchemy takes two to three times as long. SQLite is faster
# still with many rows in one statement; psycopg pipelines executemany by itself.
_STATEMENTS = {
    "sqlite": _statements("?", "0", "upturn_merge(users.attributes, excluded.attributes)", 500),
    "postgresql": _statements(
        "%s",
        "pg_current_xact_id()::text::bigint",
        "(users.attributes::jsonb || excluded.attributes::jsonb)::text",
        0,
        "SELECT nextval(pg_get_serial_sequence('inbox', 'seq')) FROM generate_series(1, %s)",
    ),
}


def _execute(session: Session, insert: _Insert, rows: list[tuple[Any, ...]]) -> int:
    connection = session.connection()
    whole = len(rows) // insert.block * insert.block if insert.block else 0
    stored = 0
    for start in range(0, whole, insert.block or 1):
        flat = tuple(chain.from_iterable(rows[start : start + insert.block]))
        stored += connection.exec_driver_sql(insert.many, flat).rowcount
    if whole < len(rows):
        stored += connection.exec_driver_sql(insert.one, rows[whole:]).rowcount
    return stored
