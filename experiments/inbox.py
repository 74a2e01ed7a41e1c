"""Writing to the record what was checked: the fastest inserts that each database takes, each message once."""

from collections.abc import Iterable
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments import identity
from experiments.tables import InboxRow

Rows = list[tuple[Any, ...]]


def insert(session: Session, rows: Rows) -> int:
    """Store the rows of one batch and return how many were new.

    Args:
        session: a transaction that writes, and has not written yet.
        rows: message_id, kind, user_id, name, at_us, received_us, value_micros, phase, variant, stratum, data. An
            ``exposure`` to the experiment ``name`` is the user's assignment, unless the person has one. Data of an
            ``identify`` are merged into what is known of the user. The ``name`` of an ``alias`` is his other id.
    """
    statements = _STATEMENTS[session.get_bind().dialect.name]
    told = _without_known_links(session, [row for row in rows if row[1] != "event"])
    if told and statements.lock:
        links = any(row[1] == "alias" for row in told)
        session.connection().exec_driver_sql(statements.lock_alone if links else statements.lock)
    told = _without_retries(session, told, rows)
    # Each table in one order for everybody: of two batches that meet, one waits for the other, not each for each.
    if rows and statements.numbers:
        numbers = session.connection().exec_driver_sql(statements.numbers, (len(rows),)).scalars()
        rows = sorted(((*row, number) for row, number in zip(rows, numbers, strict=True)), key=itemgetter(0))
    inserted = _execute(session, statements.inbox, rows)
    if told:
        _keep(session, statements, told)
    return inserted


def _without_known_links(session: Session, told: Rows) -> Rows:
    """Leave out aliases of ids that have a link: an app may send the same one at every log-in."""
    linked = last_ids(session, (row[3] for row in told if row[1] == "alias"))
    return [row for row in told if row[1] != "alias" or row[3] not in linked] if linked else told


def _without_retries(session: Session, told: Rows, rows: Rows) -> Rows:
    """Leave out traits and links that came before: a retry must not bring old traits back."""
    if all(row[1] == "exposure" for row in told):
        return told
    known = known_messages(session, (row[0] for row in told if row[1] != "exposure"))
    first = {row[0]: row for row in reversed(rows)}
    return [row for row in told if row[1] == "exposure" or (row[0] not in known and first[row[0]] is row)]


def _keep(session: Session, statements: "_Statements", told: Rows) -> None:
    """Keep what exposures, traits and links tell of users, as if they had come one by one."""
    ids = ((row[2], row[3]) if row[1] == "alias" else (row[2],) for row in told if row[1] != "identify")
    known = last_ids(session, chain.from_iterable(ids))
    before = set(known)
    connection = session.connection()
    for links, part in groupby(told, key=lambda row: row[1] == "alias"):
        if links:
            accepted = identity.accept(((row[3], row[2]) for row in part), known)
            # In this order, as what an id got from the one before goes on with it to the next.
            if passed_on := [(last, other) for other, last in accepted]:
                connection.exec_driver_sql(statements.pass_attributes, passed_on)
                connection.exec_driver_sql(statements.pass_assignments, passed_on)
        else:
            _keep_users(session, statements, list(part), known)
    if ends := [(identity.last_of(other, known), other) for other in sorted(known.keys() - before)]:
        connection.exec_driver_sql(statements.relink, ends)
        connection.exec_driver_sql(statements.link, ends)


def _keep_users(session: Session, statements: "_Statements", told: Rows, known: dict[str, str]) -> None:
    traits = [(row[2], row[10] or "{}") for row in told if row[1] == "identify"]
    assignments = [
        (who, row[3], *row[7:10])
        for row in told
        if row[1] == "exposure"
        for who in ((row[2], identity.last_of(row[2], known)) if row[2] in known else (row[2],))
    ]
    _execute(session, statements.users, sorted(traits, key=itemgetter(0)))
    _execute(session, statements.assignments, sorted(assignments, key=itemgetter(0, 1, 2)))


def last_ids(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """The last id of those of the ids that are other ids of somebody."""
    statements = _STATEMENTS[session.get_bind().dialect.name]
    connection = session.connection()
    found: dict[str, str] = {}
    for chunk in chunks(sorted(set(ids)), 900):
        query = statements.last_ids.format(", ".join([statements.mark] * len(chunk)))
        found |= {row[0]: row[1] for row in connection.exec_driver_sql(query, tuple(chunk))}
    return found


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
    """What a database is told. ``mark`` stands for a value.

    ``numbers``: the query for the numbers of inbox rows, where it does not give them in order. ``lock``: where several
    may write at once, keeps links from being made meanwhile; ``lock_alone`` is for making links.
    """

    mark: str
    numbers: str
    lock: str
    lock_alone: str
    inbox: _Insert
    assignments: _Insert
    users: _Insert
    last_ids: str
    link: str
    relink: str
    pass_attributes: str
    pass_assignments: str


def _statements(
    mark: str, position: str, merge: str, block: int, *, numbers: str = "", lock: str = "", lock_alone: str = ""
) -> _Statements:
    def marks(count: int) -> str:
        return ", ".join([mark] * count)

    columns = "message_id, kind, user_id, name, at_us, received_us, value_micros, phase, variant, stratum, data"
    number = (", seq", f", {mark}") if numbers else ("", "")
    inbox = f"inbox ({columns}{number[0]}, position)", f"({marks(11)}{number[1]}, {position})"
    insert = partial(_Insert.into, block=block)
    over, under = (
        f"(user_id) DO UPDATE SET attributes = {merge.format(*order)}"
        for order in (("users.attributes", "excluded.attributes"), ("excluded.attributes", "users.attributes"))
    )
    return _Statements(
        mark,
        numbers,
        lock,
        lock_alone,
        insert(*inbox, "(message_id) DO NOTHING"),
        insert("assignments (user_id, experiment, phase, variant, stratum)", f"({marks(5)})", "DO NOTHING"),
        insert("users (user_id, attributes)", f"({marks(2)})", over),
        last_ids="SELECT other_id, user_id FROM identities WHERE other_id IN ({})",
        link=f"INSERT INTO identities (user_id, other_id) VALUES ({marks(2)})",  # noqa: S608
        relink=f"UPDATE identities SET user_id = {mark} WHERE user_id = {mark}",  # noqa: S608
        pass_attributes=f"INSERT INTO users (user_id, attributes) SELECT {mark}, attributes FROM users "  # noqa: S608
        f"WHERE user_id = {mark} ON CONFLICT {under}",
        pass_assignments="INSERT INTO assignments (user_id, experiment, phase, variant, stratum) "  # noqa: S608
        f"SELECT {mark}, experiment, phase, variant, stratum FROM assignments WHERE user_id = {mark} "
        "ON CONFLICT DO NOTHING",
    )


# Straight to the driver: the same statement compiled by SQLAlchemy takes two to three times as long. SQLite is faster
# still with many rows in one statement; psycopg pipelines executemany by itself.
_STATEMENTS = {
    "sqlite": _statements("?", "0", "upturn_merge({}, {})", 500),
    # With the lock, links are numbered in the order in which they were made, which is what an analysis goes by.
    "postgresql": _statements(
        "%s",
        "pg_current_xact_id()::text::bigint",
        "({}::jsonb || {}::jsonb)::text",
        0,
        numbers="SELECT nextval(pg_get_serial_sequence('inbox', 'seq')) FROM generate_series(1, %s)",
        lock="SELECT pg_advisory_xact_lock_shared(7305)",
        lock_alone="SELECT pg_advisory_xact_lock(7305)",
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
