"""Taking in events, exposures, users' attributes and other ids: decode, check, store; bad items are answered.

The names of an item are those of Segment's clients (``messageId``, ``userId``, ``timestamp``, ``event``,
``properties``, ``traits``). One ``messageId`` is stored once, however often it is sent.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from experiments import inbox
from experiments.catalog import Catalog
from experiments.documents import Experiment, Status
from experiments.errors import FieldProblem, InvalidDocument
from experiments.sdk.experiment import CompiledExperiment
from experiments.tables import UserAttributes

MAX_ITEMS = 10_000
MAX_VALUE = 1_000_000_000_000.0
FUTURE_ALLOWED = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", tag_field="type"):
    """What every item has; without a ``timestamp`` the time of receipt counts."""

    message_id: _Id
    user_id: _Id
    timestamp: _Time | None = None


class Event(Item, frozen=True, kw_only=True, tag="event"):
    """Something a user did."""

    event: _Id
    value: float | None = None
    properties: msgspec.Raw = msgspec.Raw()


class Exposure(Item, frozen=True, kw_only=True, tag="exposure"):
    """A user met a variant: from here on he counts.

    ``stratum`` may be left out where the attributes, sent along or known, tell it; ``phase`` defaults to the present.
    """

    experiment: _Id
    variant: _Id
    phase: int | None = None
    stratum: _Id | None = None
    attributes: msgspec.Raw = msgspec.Raw()


class Identify(Item, frozen=True, kw_only=True, tag="identify"):
    """Attributes of a user; they are merged over the ones known."""

    traits: msgspec.Raw


class Alias(Item, frozen=True, kw_only=True, tag="alias"):
    """``previous_id`` is the same person as ``user_id``, as when somebody anonymous logs in."""

    previous_id: _Id


AnyItem = Event | Exposure | Identify | Alias


class _Batch(msgspec.Struct, frozen=True, rename="camel"):
    batch: list[AnyItem]
    sent_at: _Time | None = None


class _RawBatch(msgspec.Struct, frozen=True, rename="camel"):
    batch: list[msgspec.Raw]
    sent_at: msgspec.Raw = msgspec.Raw(b"null")


class ItemCode(StrEnum):
    """Why an item was not taken."""

    invalid_item = "invalid_item"
    not_an_object = "not_an_object"
    bad_text = "bad_text"
    time_in_future = "time_in_future"
    value_out_of_range = "value_out_of_range"
    same_id = "same_id"
    unknown_experiment = "unknown_experiment"
    unknown_variant = "unknown_variant"
    unknown_phase = "unknown_phase"
    unknown_stratum = "unknown_stratum"
    not_started = "not_started"


class Rejected(msgspec.Struct, frozen=True):
    """An item that was not taken: where it stood in the batch, why, and what would be right."""

    index: int
    code: ItemCode
    detail: str


class Receipt(msgspec.Struct, frozen=True):
    """What became of a batch: newly stored, known already, refused."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class Decoded(NamedTuple):
    """The items of a batch that can be read, each with its index, the others, and when it was sent if it says so."""

    items: list[tuple[int, AnyItem]]
    rejected: list[Rejected]
    sent_at: datetime | None


_BATCH = msgspec.json.Decoder(_Batch)
_RAW_BATCH = msgspec.json.Decoder(_RawBatch)
_SENT_AT = msgspec.json.Decoder(_Time | None)
_ITEM: msgspec.json.Decoder[AnyItem] = msgspec.json.Decoder(AnyItem)
_OBJECT = msgspec.json.Decoder(dict[str, Any])
# msgspec.DecodeError and UnicodeDecodeError are ValueErrors; too deep a nesting is neither.
_UNREADABLE = (ValueError, RecursionError)


class _Refused(Exception):
    def __init__(self, code: ItemCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def decode(body: bytes) -> Decoded:
    """Decode ``{"batch": [...]}``, which may have ``"sentAt"`` too: what the sender's clock showed when it was sent.

    Raises:
        InvalidDocument: the body is not JSON, has no batch, too many items, or a ``sentAt`` that is no time.
    """
    try:
        whole = _BATCH.decode(body)
        sent_at = whole.sent_at
        good = list(enumerate(whole.batch))
        rejected: list[Rejected] = []
    except _UNREADABLE:
        try:
            parts, sent = _parts(body)
        except _UNREADABLE as error:
            raise _malformed("batch", f'send {{"batch": [item, ...]}} as JSON: {error}') from None
        try:
            sent_at = _SENT_AT.decode(sent)
        except _UNREADABLE as error:
            raise _malformed("sentAt", f"send a time such as 2026-03-02T08:30:00.123Z, or nothing: {error}") from None
        good, rejected = [], []
        for index, part in enumerate(parts):
            try:
                good.append((index, decode_item(part)))
            except msgspec.DecodeError as error:
                rejected.append(Rejected(index, ItemCode.invalid_item, str(error)))
    if len(good) + len(rejected) > MAX_ITEMS:
        problem = FieldProblem(
            "batch", len(good) + len(rejected), "too_many", f"send at most {MAX_ITEMS} items at once"
        )
        raise InvalidDocument([problem], "batch")
    return Decoded(good, rejected, sent_at)


def _malformed(field: str, remedy: str) -> InvalidDocument:
    return InvalidDocument([FieldProblem(field, None, "malformed", remedy)], "batch")


def decode_item(body: bytes) -> AnyItem:
    """Decode one item; raise msgspec.DecodeError."""
    try:
        return _ITEM.decode(body)
    except (UnicodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def _parts(body: bytes) -> tuple[list[bytes], bytes]:
    """Take a batch apart into its items, so that one that cannot be read does not spoil the others, and ``sentAt``."""
    try:
        raw = _RAW_BATCH.decode(body)
        return [bytes(part) for part in raw.batch], bytes(raw.sent_at)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # Half an emoji (a text cut in the middle by a client) is JSON that only this reader takes.
        whole = json.loads(body, parse_constant=_no_constant)
        if not (isinstance(whole, dict) and isinstance(whole.get("batch"), list)):
            raise
        return [json.dumps(part).encode() for part in whole["batch"]], json.dumps(whole.get("sentAt")).encode()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def receive(session: Session, catalog: Catalog, body: bytes, *, now: datetime) -> Receipt:
    """Decode and store one batch; the caller commits, and what is committed is not lost.

    Args:
        session: on the record.
        catalog: the documents in force.
        body: JSON ``{"batch": [...]}``, see ``decode``.
        now: time of receipt.

    Returns:
        Receipt: counts, and each refused item by index and code.

    Raises:
        InvalidDocument: the batch as a whole cannot be read.
    """
    items, rejected, sent_at = decode(body)
    return store(session, catalog, items, rejected, now=now, sent_at=sent_at)


def store(
    session: Session,
    catalog: Catalog,
    items: Iterable[tuple[int, AnyItem]],
    rejected: Sequence[Rejected] = (),
    *,
    now: datetime,
    sent_at: datetime | None = None,
) -> Receipt:
    """Check and store decoded items (the importer comes in here)."""
    return write(session, check(session, catalog, items, rejected, now=now, sent_at=sent_at))


class Checked(msgspec.Struct, frozen=True):
    """A batch ready to be written: rows for the inbox, and what was refused."""

    rows: list[tuple[Any, ...]]
    refused: list[Rejected]


def check(
    session: Session,
    catalog: Catalog,
    items: Iterable[tuple[int, AnyItem]],
    rejected: Sequence[Rejected] = (),
    *,
    now: datetime,
    sent_at: datetime | None = None,
) -> Checked:
    """Check decoded items and make rows of them; only reads, so that writers wait for nobody who is still checking.

    Args:
        session: on the record.
        catalog: the documents in force.
        items: decoded, each with its index.
        rejected: what was refused before.
        now: time of receipt.
        sent_at: what the sender's clock showed then; timestamps are put right by the difference.
    """
    items = list(items)
    refused = list(rejected)
    rows: list[tuple[Any, ...]] = []
    checker = _Checker(session, catalog, items, now, sent_at)
    for index, item in items:
        try:
            if isinstance(item, Event):
                rows.append(checker.event(item))
            elif isinstance(item, Exposure):
                rows.append(checker.exposure(item))
            elif isinstance(item, Identify):
                rows.append(checker.identify(item))
            else:
                rows.append(checker.alias(item))
        except _Refused as refusal:
            refused.append(Rejected(index, refusal.code, str(refusal)))
    return Checked(rows, sorted(refused, key=lambda entry: entry.index))


def write(session: Session, checked: Checked) -> Receipt:
    """Store a checked batch."""
    inserted = inbox.insert(session, checked.rows)
    return Receipt(inserted, len(checked.rows) - inserted, checked.refused)


class _Checker:
    """Turns items into rows, or refuses them."""

    def __init__(
        self,
        session: Session,
        catalog: Catalog,
        items: list[tuple[int, AnyItem]],
        now: datetime,
        sent_at: datetime | None,
    ) -> None:
        self._catalog = catalog
        self._received = _micros(now)
        self._skew = 0 if sent_at is None else self._received - _micros(sent_at)
        self._latest = _micros(now + FUTURE_ALLOWED)
        self._attributes = self._known_attributes(session, items)

    def _known_attributes(self, session: Session, items: list[tuple[int, AnyItem]]) -> dict[str, dict[str, Any]]:
        """Attributes, on record or in this batch, of the users whose exposures do not tell their stratum."""
        users = {
            item.user_id
            for _, item in items
            if type(item) is Exposure and item.stratum is None and self._has_strata(item)
            if "\0" not in item.user_id
        }
        known: dict[str, dict[str, Any]] = {}
        for chunk in inbox.chunks(sorted(users), 900):
            rows = session.execute(
                select(UserAttributes.user_id, UserAttributes.attributes).where(UserAttributes.user_id.in_(chunk))
            )
            known |= {user: msgspec.json.decode(text) for user, text in rows}
        if users:
            told = [item for _, item in items if type(item) is Identify and item.user_id in users]
            retried = inbox.known_messages(session, (item.message_id for item in told if "\0" not in item.message_id))
            for item in told:
                if item.message_id not in retried:
                    with suppress(_Refused):
                        known.setdefault(item.user_id, {}).update(_OBJECT.decode(self.identify(item)[10] or b"{}"))
        return known

    def _has_strata(self, item: Exposure) -> bool:
        found = self._catalog.of_phase(item.experiment, item.phase)
        return found is not None and bool(found[0].strata)

    @staticmethod
    def _storable(*texts: str) -> None:
        if "\0" in "".join(texts):
            raise _Refused(ItemCode.bad_text, "an id or name holds the character U+0000, which databases refuse")

    def _at(self, item: Item) -> int:
        if item.timestamp is None:
            return self._received
        at = _micros(item.timestamp) + self._skew
        if at > self._latest:
            raise _Refused(ItemCode.time_in_future, f"timestamp {item.timestamp.isoformat()} is over a day ahead")
        if at < _FIRST:
            found = f"timestamp {item.timestamp.isoformat()}, put right by sentAt, is before the year 1"
            raise _Refused(ItemCode.invalid_item, found)
        return at

    def event(self, item: Event) -> tuple[Any, ...]:
        self._storable(item.message_id, item.user_id, item.event)
        value = None
        if item.value is not None:
            if not -MAX_VALUE <= item.value <= MAX_VALUE:
                raise _Refused(ItemCode.value_out_of_range, f"value {item.value} is beyond ±{MAX_VALUE:.0f}")
            value = round(item.value * 1_000_000)
        data = _object_text(item.properties, "properties")
        at = self._at(item)
        return (item.message_id, "event", item.user_id, item.event, at, self._received, value, None, None, None, data)

    def exposure(self, item: Exposure) -> tuple[Any, ...]:
        self._storable(item.message_id, item.user_id)
        found = self._catalog.of_phase(item.experiment, item.phase)
        if found is None:
            raise _Refused(ItemCode.unknown_experiment, f"there is no experiment {item.experiment!r}")
        document, compiled = found
        if document.status is Status.draft:
            raise _Refused(ItemCode.not_started, f"the experiment {item.experiment!r} was not started")
        if all(item.variant != variant.key for variant in document.variants):
            known = ", ".join(variant.key for variant in document.variants)
            raise _Refused(ItemCode.unknown_variant, f"variant {item.variant!r} is not one of {known}")
        phase = document.phase if item.phase is None else item.phase
        if not 1 <= phase <= document.phase:
            raise _Refused(ItemCode.unknown_phase, f"phase {phase} is not one of 1 to {document.phase}")
        data = _object_text(item.attributes, "attributes")
        stratum = self._stratum(item, data, document, compiled)
        at = self._at(item)
        return (
            *(item.message_id, "exposure", item.user_id, item.experiment, at, self._received),
            *(None, phase, item.variant, stratum, data),
        )

    def _stratum(
        self, item: Exposure, data: str | None, document: Experiment, compiled: CompiledExperiment
    ) -> str | None:
        if document.waves:
            wave = compiled.wave(item.user_id)
            if wave is None and item.user_id not in document.forced:
                found = f"no wave that is open has the user {item.user_id!r}"
                raise _Refused(ItemCode.unknown_stratum, f"{found}: assign users by the newest revision")
            return wave or compiled.waves[0].segment
        if not document.strata:
            if item.stratum is not None:
                raise _Refused(ItemCode.unknown_stratum, f"the experiment {item.experiment!r} has no strata")
            return None
        stratum = item.stratum
        earlier = not compiled.sticky and item.phase is not None and item.phase < document.phase
        if earlier and stratum is not None and stratum.startswith(f"{document.key}:"):
            return stratum  # of a rule that the policy had then
        if stratum is None:
            attributes = self._attributes.get(item.user_id, {}) | (_OBJECT.decode(data) if data else {})
            stratum = next((s.segment for s in compiled.strata if s.rule is None or s.rule.matches(attributes)), None)
        known = [entry.segment for entry in document.strata]
        if stratum not in known:
            found = "no stratum fits the attributes" if stratum is None else f"stratum {stratum!r} is not known"
            raise _Refused(ItemCode.unknown_stratum, f"{found}: send one of {', '.join(known)}, or the attributes")
        return stratum

    def identify(self, item: Identify) -> tuple[Any, ...]:
        self._storable(item.message_id, item.user_id)
        data = _object_text(item.traits, "traits")
        at = self._at(item)
        return (item.message_id, "identify", item.user_id, "", at, self._received, None, None, None, None, data)

    def alias(self, item: Alias) -> tuple[Any, ...]:
        previous = item.previous_id
        self._storable(item.message_id, item.user_id, previous)
        if previous == item.user_id:
            raise _Refused(ItemCode.same_id, f"previousId and userId are both {previous!r}: leave the item out")
        at = self._at(item)
        return (item.message_id, "alias", item.user_id, previous, at, self._received, None, None, None, None, None)


def _micros(instant: datetime) -> int:
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_FIRST = _micros(datetime.min.replace(tzinfo=UTC))


def _object_text(raw: msgspec.Raw, field: str) -> str | None:
    """Return an object as JSON text that every reader takes, None for an empty one."""
    sent = bytes(raw)
    if sent in (b"", b"null", b"{}"):
        return None
    if not sent.startswith(b"{"):
        raise _Refused(ItemCode.not_an_object, f"{field} must be a JSON object")
    try:
        _OBJECT.decode(sent)
        text = sent.decode()
    except _UNREADABLE as error:
        raise _Refused(ItemCode.bad_text, f"{field} cannot be read: {error}") from None
    if "\\u0000" in text and "\\u0000" in text.replace("\\\\", ""):
        raise _Refused(ItemCode.bad_text, f"{field} hold the character U+0000, which databases refuse")
    return text
