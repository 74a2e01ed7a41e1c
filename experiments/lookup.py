"""What an answer to an app needs of the record: is this key good, is there anything new, what is known of these users.

Straight to the driver, as each of these is asked on every call: through SQLAlchemy's session the same queries take ten
to twenty times as long.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Engine

from experiments import access
from experiments.access import KeyInfo
from experiments.sdk.experiment import Assignment, CompiledExperiment, Reason

_CHUNK: Final = 400
# Rows tell by their first column what they are: the key, a user's attributes, or an assignment of his on record.
_ADMISSION: Final = (
    "SELECT 0, name, prefix, scopes, origins, (SELECT max(id) FROM revisions) FROM api_keys "
    "WHERE revoked_at IS NULL AND digest = %s"
)
_ADMISSION_OF_USER: Final = (
    f"{_ADMISSION} UNION ALL SELECT 1, attributes, '', '', '', 0 FROM users WHERE user_id = %s "  # noqa: S608
    "UNION ALL SELECT 2, experiment, variant, stratum, '', phase FROM assignments WHERE user_id = %s"
)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class KnownUser:
    """What is on record of a user: attributes, and (variant, stratum) by (experiment, phase)."""

    attributes: dict[str, Any] = field(default_factory=dict)
    stored: dict[tuple[str, int], tuple[str, str | None]] = field(default_factory=dict)

    def assign(
        self, experiment: CompiledExperiment, user_id: str, attributes: Mapping[str, object]
    ) -> tuple[Assignment, str | None]:
        """Return the user's assignment, the variant on record first, and its stratum."""
        variant, stratum = self.stored.get((experiment.key, experiment.phase), (None, None))
        found = experiment.assign(user_id, attributes, variant)
        return found, stratum if found.reason is Reason.sticky else found.stratum


NOBODY: Final = KnownUser()


class Admission(NamedTuple):
    """A key in use, and at that moment the registry's version and what was known of the user asked about."""

    key: KeyInfo
    version: int
    user: KnownUser


class Lookup:
    """Reads one record, from any thread. ``engine`` begins no transactions by itself (``database.open_reader``)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"
        self._admission = _ADMISSION.replace("%s", self._mark)
        self._admission_of_user = _ADMISSION_OF_USER.replace("%s", self._mark)
        self._failures = engine.dialect.loaded_dbapi.OperationalError
        # A pool of our own: SQLAlchemy's costs more than the queries. Taking and giving back are atomic.
        self._idle: deque[Any] = deque()

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def admit(self, digest: str, user: str = "") -> Admission | None:
        """Return the key whose secret has this digest, None when it is unknown or revoked.

        ``user`` asks what is known of him in the same breath: the record's answer is most of what a call costs.
        """
        if user and "\0" not in user:
            rows = self._rows(self._admission_of_user, (digest, user, user))
        else:
            rows = self._rows(self._admission, (digest,))
        key, newest, known = None, 0, NOBODY
        for kind, first, second, third, fourth, number in rows:
            if kind == 0:
                key, newest = _key(first, second, third, fourth, digest), number or 0
                continue
            if known is NOBODY:
                known = KnownUser()
            if kind == 1:
                known.attributes.update(_OBJECT.decode(first))
            else:
                known.stored[first, number] = second, third
        return None if key is None else Admission(key, newest, known)

    def origins(self) -> frozenset[str]:
        """Return the web origins of all keys in use."""
        rows = self._rows("SELECT origins FROM api_keys WHERE revoked_at IS NULL AND origins <> ''", ())
        return frozenset(origin for (text,) in rows for origin in text.split())

    def version(self) -> int:
        """Return a number that grows with every change of any document."""
        return self._rows("SELECT max(id) FROM revisions", ())[0][0] or 0

    def users(self, ids: Iterable[str]) -> dict[str, KnownUser]:
        """Return what is known of the users; those of whom nothing is known are left out."""
        found: dict[str, KnownUser] = {}
        # No user on record has such an id, and PostgreSQL refuses to look for it.
        rest = iter(dict.fromkeys(user for user in ids if "\0" not in user))
        while chunk := tuple(islice(rest, _CHUNK)):
            for user, experiment, phase, text, stratum in self._rows(_known(self._mark, len(chunk)), chunk * 2):
                known = found.get(user)
                if known is None:
                    known = found[user] = KnownUser()
                if experiment is None:
                    known.attributes.update(_OBJECT.decode(text))
                else:
                    known.stored[experiment, phase] = text, stratum
        return found

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._read(self._connect(), statement, values)
        try:
            return self._read(connection, statement, values)
        except self._failures:
            # The database may have been restarted since this connection was opened.
            return self._read(self._connect(), statement, values)

    def _read(self, connection: Any, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = connection.execute(statement, values).fetchall()
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return rows

    def _connect(self) -> Any:
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return connection


@lru_cache(maxsize=_CHUNK)
def _known(mark: str, count: int) -> str:
    marks = ", ".join([mark] * count)
    return (
        f"SELECT user_id, NULL, 0, attributes, NULL FROM users WHERE user_id IN ({marks}) "  # noqa: S608
        f"UNION ALL SELECT user_id, experiment, phase, variant, stratum FROM assignments WHERE user_id IN ({marks})"
    )


_key = lru_cache(maxsize=1_000)(access.key_info)
