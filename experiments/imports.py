"""Importing files: exposures, events and users from CSV, Parquet or JSON lines, through the checks of ingest.

A row's message id is made from the file's contents and the row's number, unless the row brings one; so importing a
file twice, or again after an interruption, counts nothing twice.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from enum import StrEnum
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb
import msgspec
import pyarrow as pa

from experiments import ingest
from experiments.errors import FieldProblem, InvalidDocument
from experiments.ingest import AnyItem, ItemCode, Receipt, Rejected
from experiments.store import Store

BATCH = 5_000


class What(StrEnum):
    """What a table holds, a row each."""

    exposures = "exposures"
    events = "events"
    users = "users"


_FIELDS: Mapping[What, tuple[frozenset[str], frozenset[str]]] = {
    # What must be there, and what may be; all other columns are attributes, properties or traits.
    What.exposures: (frozenset({"user_id", "experiment", "variant"}), frozenset({"phase", "stratum"})),
    What.events: (frozenset({"user_id", "event"}), frozenset({"value"})),
    What.users: (frozenset({"user_id"}), frozenset()),
}
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_COMMON = frozenset({"message_id", "timestamp"})
_REST = {What.exposures: "attributes", What.events: "properties", What.users: "traits"}
_TYPES: Mapping[What, type[ingest.Item]] = {
    What.exposures: ingest.Exposure,
    What.events: ingest.Event,
    What.users: ingest.Identify,
}


def run(
    store: Store,
    path: Path,
    what: What,
    *,
    now: datetime,
    timezone: str | None = None,
    progress: Callable[[int], object] = lambda rows: None,
) -> Receipt:
    """Import a file; what is good is stored, batch by batch.

    Args:
        store: the store.
        path: ``.parquet``, ``.jsonl``/``.ndjson`` (one item of the events API a line), else CSV with a header.
        what: what the rows are (JSON lines say it themselves).
        now: time of receipt.
        timezone: IANA zone of times that come without an offset; without it they are refused.
        progress: told the number of rows of each batch stored.

    Returns:
        Counts, and the refused rows by number (from 0).

    Raises:
        InvalidDocument: the file cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise InvalidDocument([FieldProblem("file", str(path), "not_found", "name a file")], "command")
    zone = None if timezone is None else _zone(timezone)
    with path.open("rb") as file:
        digest = f"{what}-{hashlib.file_digest(file, 'sha256').hexdigest()[:24]}"
    if path.suffix in (".jsonl", ".ndjson"):
        decoded = _json_lines(path)
    else:
        decoded = (_item(what, row, f"{digest}-{number}", zone) for number, row in enumerate(_table(path, what)))
    accepted = duplicates = 0
    rejected: list[Rejected] = []
    numbered = enumerate(decoded)
    while chunk := list(islice(numbered, BATCH)):
        items = [(number, item) for number, item in chunk if not isinstance(item, str)]
        bad = [Rejected(number, ItemCode.invalid_item, item) for number, item in chunk if isinstance(item, str)]
        with store.write() as session:
            receipt = ingest.store(session, store.catalog(session), items, bad, now=now)
        accepted += receipt.accepted
        duplicates += receipt.duplicates
        rejected += receipt.rejected
        progress(len(chunk))
    return Receipt(accepted, duplicates, rejected)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        problem = FieldProblem("timezone", name, "unknown_zone", "give an IANA zone such as Asia/Shanghai")
        raise InvalidDocument([problem], "command") from None


def _json_lines(path: Path) -> Iterator[AnyItem | str]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    yield ingest.decode_item(line)
                except msgspec.DecodeError as error:
                    yield str(error)


def _table(path: Path, what: What) -> Iterator[dict[str, Any]]:
    try:
        with duckdb.connect() as engine:
            engine.execute("SET TimeZone = 'UTC'")
            relation = _open(engine, path, what)
            missing = sorted(_FIELDS[what][0] - set(relation.columns))
            if missing:
                remedy = f"{what} need the columns {', '.join(sorted(_FIELDS[what][0]))}"
                problems = [FieldProblem(column, None, "missing_column", remedy) for column in missing]
                raise InvalidDocument(problems, "file")
            reader = pa.RecordBatchReader.from_stream(relation)
            # Python's clock has microseconds.
            schema = pa.schema([(field.name, _coarser(field.type)) for field in reader.schema])
            for batch in reader:
                yield from batch.cast(schema, safe=False).to_pylist()
    except duckdb.Error as error:
        problem = FieldProblem("file", str(path), "unreadable", f"give a Parquet file, or CSV with a header: {error}")
        raise InvalidDocument([problem], "file") from None


def _open(engine: duckdb.DuckDBPyConnection, path: Path, what: What) -> duckdb.DuckDBPyRelation:
    if path.suffix == ".parquet":
        return engine.read_parquet(str(path))
    # Only attributes are guessed: 007 is no number where it is an id, and one bad value spoils its row, not its column.
    known = [
        name for name in engine.read_csv(str(path), header=True, all_varchar=True).columns if name in _own_columns(what)
    ]
    return engine.read_csv(str(path), header=True, sample_size=-1, dtype=dict.fromkeys(known, "VARCHAR"))


def _coarser(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", kind.tz) if pa.types.is_timestamp(kind) else kind


def _own_columns(what: What) -> frozenset[str]:
    return _FIELDS[what][0] | _FIELDS[what][1] | _COMMON


def _item(what: What, row: Mapping[str, Any], message_id: str, zone: ZoneInfo | None) -> AnyItem | str:
    """Make an item of a row, or say what is wrong with it."""
    known = _own_columns(what)
    fields = {name: value for name, value in row.items() if name in known and value is not None}
    fields.setdefault("message_id", message_id)
    for name in fields.keys() & {"user_id", "message_id", "variant", "experiment", "event", "stratum"}:
        fields[name] = str(fields[name])
    for name, number in (("value", float), ("phase", int)):
        try:
            fields |= {name: number(fields[name])} if name in fields else {}
        except (ValueError, OverflowError):
            return f"{name} {fields[name]!r} is not a number"
    if not isfinite(fields.get("value", 0.0)):
        return f"value {fields['value']!r} is not a finite number"
    moment = fields.get("timestamp")
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return f"timestamp {moment!r} is not ISO 8601"
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if isinstance(moment, datetime) and moment.tzinfo is None:
        if zone is None:
            return f"timestamp {moment.isoformat()} has no offset: give one, or say --timezone"
        moment = moment.replace(tzinfo=zone)
    rest = {name: value for name, value in row.items() if name not in known and value is not None}
    fields[_REST[what]] = msgspec.Raw(_ENCODER.encode(rest))
    if moment is not None:
        fields["timestamp"] = moment
    try:
        names = {"message_id": "messageId", "user_id": "userId"}
        plain = {names.get(name, name): value for name, value in fields.items()}
        return ingest.decode_item(_ENCODER.encode({"type": _TYPES[what].__struct_config__.tag, **plain}))
    except (msgspec.DecodeError, msgspec.EncodeError, TypeError) as error:
        return str(error)
