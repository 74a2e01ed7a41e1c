"""Segment's calls in our words: a pure translation of what its clients send; good calls are kept, bad ones answered.

The names are those of Segment's specification (``track``, ``identify``, ``page``, ``screen``, ``group``, ``alias``).
Fields that are not read here (``context``, ``integrations``, ``channel`` …) may hold anything.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct, structs

from experiments.errors import FieldProblem, InvalidDocument
from experiments.ingest import MAX_ITEMS, Alias, AnyItem, Event, Exposure, Identify, ItemCode, Rejected

Kind = Literal["batch", "track", "identify", "page", "screen", "group", "alias"]

_VIEWED = "Experiment Viewed"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# msgspec.DecodeError and UnicodeDecodeError are ValueErrors; too deep a nesting is neither.
_UNREADABLE = (ValueError, RecursionError)

_Id = str | int | None
_Name = Annotated[str, Meta(min_length=1, max_length=300)]


class NoteCode(StrEnum):
    """Why an item was taken otherwise than it was sent."""

    unreadable_value = "unreadable_value"
    unknown_currency = "unknown_currency"


class Noted(Struct, frozen=True):
    """An event that was taken without its value: where it stood in the batch, why, and what would be right."""

    index: int
    code: NoteCode
    detail: str


class Translated(Struct, frozen=True):
    """A request in our words; one call may give two items, both with its index.

    Attributes:
        items: items with the index of their call, for `ingest.check`.
        rejected: calls that cannot be read.
        noted: calls of which something was left out.
        write_key: the key in the body, for beacons, which send no headers.
    """

    items: list[tuple[int, AnyItem]]
    rejected: list[Rejected]
    noted: list[Noted]
    write_key: str | None


class _Call(Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    message_id: _Id = None
    user_id: _Id = None
    anonymous_id: _Id = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None


class _Track(_Call, frozen=True, kw_only=True, tag="track"):
    event: _Name
    properties: Raw = Raw()
    context: Raw = Raw()


class _Identify(_Call, frozen=True, tag="identify"):
    traits: Raw = Raw()


class _Page(_Call, frozen=True, tag="page"):
    name: str | None = None
    category: str | None = None
    properties: Raw = Raw()


class _Screen(_Page, frozen=True, tag="screen"):
    pass


class _Group(_Call, frozen=True, tag="group"):
    group_id: _Id = None
    traits: Raw = Raw()


class _Alias(_Call, frozen=True, tag="alias"):
    previous_id: _Id = None


class _Batch(Struct, frozen=True, rename="camel"):
    batch: list[Raw]
    sent_at: str | None = None
    write_key: Any = None


class _Single(Struct, frozen=True, rename="camel"):
    write_key: Any = None


class _Money(Struct, frozen=True):
    revenue: Raw = Raw()
    value: Raw = Raw()
    currency: Raw = Raw()


class _Viewed(Struct, frozen=True):
    experiment_id: _Id = None
    variation_id: _Id = None
    variation_name: _Id = None
    experiment_camel: _Id = msgspec.field(default=None, name="experimentId")
    variation_camel: _Id = msgspec.field(default=None, name="variationId")
    name_camel: _Id = msgspec.field(default=None, name="variationName")


class _Context(Struct, frozen=True):
    traits: Raw = Raw()


_AnyCall = _Track | _Identify | _Page | _Screen | _Group | _Alias
_BATCH = msgspec.json.Decoder(_Batch)
_SINGLE = msgspec.json.Decoder(_Single)
_TYPES: tuple[type[_Call], ...] = (_Track, _Identify, _Page, _Screen, _Group, _Alias)
_CALLS: dict[str, msgspec.json.Decoder[Any]] = {
    "batch": msgspec.json.Decoder(_AnyCall),
    **{str(cls.__struct_config__.tag): msgspec.json.Decoder(cls) for cls in _TYPES},
}
_READ = {name for cls in _TYPES for name in cls.__struct_encode_fields__} | {"type"}
_MONEY = msgspec.json.Decoder(_Money)
_TEXT = msgspec.json.Decoder(str)
_VIEWED_PROPERTIES = msgspec.json.Decoder(_Viewed)
_CONTEXT = msgspec.json.Decoder(_Context)
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])


class _Refused(Exception):
    def __init__(self, detail: str, code: ItemCode = ItemCode.invalid_item) -> None:
        super().__init__(detail)
        self.code = code


class _Unvalued(Exception):
    def __init__(self, code: NoteCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def translate(
    kind: Kind,
    body: bytes,
    *,
    received: datetime,
    currency: str,
    rates: Mapping[str, float],
    new_id: Callable[[], str],
) -> Translated:
    """Translate one request of a Segment client.

    Args:
        kind: the call that the address names, or ``batch``.
        body: the JSON sent, inflated.
        received: time of receipt, by which the client's clock is corrected.
        currency: the store's currency.
        rates: what one unit of another currency is worth in the store's.
        new_id: makes the message id of a call that has none.

    Returns:
        Translated: every call of the request is in ``items`` or in ``rejected``.

    Raises:
        InvalidDocument: the body is not JSON, has no batch, or too many calls.
    """
    whole = _open(kind, body)
    if len(whole.batch) > MAX_ITEMS:
        problem = FieldProblem("batch", len(whole.batch), "too_many", f"send at most {MAX_ITEMS} items at once")
        raise InvalidDocument([problem], "batch")
    try:
        sent_at = _time("sentAt", whole.sent_at)
    except _Refused as refusal:
        raise InvalidDocument([FieldProblem("sentAt", whole.sent_at, "malformed", str(refusal))], "batch") from None
    reader = _Reader(received, sent_at, currency, rates, new_id)
    decoder = _CALLS[kind]
    items: list[tuple[int, AnyItem]] = []
    rejected: list[Rejected] = []
    noted: list[Noted] = []
    for index, part in enumerate(whole.batch):
        try:
            found, unvalued = reader.items(decoder.decode(part))
        except _Refused as refusal:
            rejected.append(Rejected(index, refusal.code, str(refusal)))
        except _UNREADABLE as error:
            rejected.append(Rejected(index, ItemCode.invalid_item, str(error)))
        else:
            items.extend((index, item) for item in found)
            if unvalued is not None:
                noted.append(Noted(index, unvalued.code, str(unvalued)))
    key = whole.write_key
    return Translated(items, rejected, noted, key if isinstance(key, str) and key.isascii() else None)


def _open(kind: Kind, body: bytes) -> _Batch:
    """Take a request apart into its calls, so that one that cannot be read does not spoil the others."""
    try:
        try:
            if kind == "batch":
                return _BATCH.decode(body)
            return _Batch([Raw(body)], None, _SINGLE.decode(body).write_key)
        except msgspec.ValidationError:
            raise
        except _UNREADABLE:
            return _mended(kind, body)
    except _UNREADABLE as error:
        shape = '{"batch": [call, ...]}' if kind == "batch" else f"a {kind} call"
        problem = FieldProblem("body", None, "malformed", f"send {shape} as JSON: {error}")
        raise InvalidDocument([problem], "batch" if kind == "batch" else "call") from None


def _mended(kind: Kind, body: bytes) -> _Batch:
    """Take apart what is almost JSON.

    Half an emoji (a text that a client cut in the middle) spoils only what is read of its own call, and NaN, which
    Python's client sends, is null, as JavaScript writes it.
    """
    whole = json.loads(body, parse_constant=lambda _: None)
    if not isinstance(whole, dict):
        raise msgspec.ValidationError(f"Expected `object`, got `{type(whole).__name__}`")
    if kind != "batch":
        return _Batch([_lean(whole)], None, whole.get("writeKey"))
    if not isinstance(whole.get("batch"), list):
        raise msgspec.ValidationError("Expected `array` - at `$.batch`")
    envelope = {name: whole[name] for name in ("sentAt", "writeKey") if name in whole}
    opened = msgspec.convert(envelope | {"batch": []}, _Batch)
    return structs.replace(opened, batch=[_lean(call) for call in whole["batch"]])


def _lean(call: object) -> Raw:
    """Write a call anew without what is not read of it."""
    if isinstance(call, dict):
        context = call.get("context")
        call = {name: value for name, value in call.items() if name in _READ}
        if isinstance(context, dict):
            call["context"] = {"traits": context.get("traits")}
    return Raw(json.dumps(call).encode())


class _Reader:
    """Turns calls into items, or refuses them."""

    def __init__(
        self,
        received: datetime,
        sent_at: datetime | None,
        currency: str,
        rates: Mapping[str, float],
        new_id: Callable[[], str],
    ) -> None:
        self._received = received
        self._sent_at = sent_at
        self._currency = currency
        self._rates = rates
        self._new_id = new_id

    def items(self, call: _AnyCall) -> tuple[list[AnyItem], _Unvalued | None]:
        user = _text("userId", call.user_id)
        anonymous = _text("anonymousId", call.anonymous_id)
        who = user or anonymous
        if not who:
            raise _Refused("userId or anonymousId must say who it was")
        common = (_text("messageId", call.message_id) or self._new_id(), who, self._at(call))
        match call:
            case _Track(event=event) if event == _VIEWED:
                return [_exposure(common, call)], None
            case _Track():
                return self._event(common, call)
            case _Page():
                name = "screen" if isinstance(call, _Screen) else "page"
                return [Event(*common, event=name, properties=_page_properties(call))], None
            case _Identify():
                told = [Identify(*common, traits=_object("traits", call.traits) or Raw(b"{}"))]
                if user and anonymous and user != anonymous:
                    message, _, at = common
                    # Made of the call's own id, so that its retry is known again.
                    return [*told, Alias(f"{message}:alias", user, at, previous_id=anonymous)], None
                return [*told], None
            case _Group():
                group = _text("groupId", call.group_id)
                if not group:
                    raise _Refused("groupId must name the group")
                traits = _members("traits", call.traits) | {"id": Raw(msgspec.json.encode(group))}
                return [Identify(*common, traits=Raw(msgspec.json.encode({"group": traits})))], None
            case _Alias():
                previous = _text("previousId", call.previous_id)
                if not (user and previous):
                    raise _Refused("an alias needs userId and previousId")
                return [Alias(*common, previous_id=previous)], None

    def _at(self, call: _AnyCall) -> datetime:
        """When it was by our clock: Segment's rule, which takes the time between doing and sending from the client."""
        original = _time("originalTimestamp", call.original_timestamp)
        at = _time("timestamp", call.timestamp) if original is None else original
        if at is None:
            return self._received
        sent_at = _time("sentAt", call.sent_at) or self._sent_at
        if sent_at is None:
            return at
        try:
            return self._received - (sent_at - at)
        except OverflowError:
            raise _Refused(
                f"timestamp {at.isoformat()} is out of the calendar, sent at {sent_at.isoformat()}"
            ) from None

    def _event(self, common: tuple[str, str, datetime], call: _Track) -> tuple[list[AnyItem], _Unvalued | None]:
        properties = _object("properties", call.properties)
        value, unvalued = None, None
        if properties is not None:
            try:
                value = self._value(_MONEY.decode(properties))
            except _Unvalued as reason:
                unvalued = reason
        return [Event(*common, event=call.event, value=value, properties=properties or Raw())], unvalued

    def _value(self, money: _Money) -> float | None:
        """What the event was worth in the store's currency."""
        for field, sent in (("revenue", bytes(money.revenue)), ("value", bytes(money.value))):
            if sent not in (b"", b"null"):
                amount = _amount(field, sent)
                break
        else:
            return None
        code = bytes(money.currency)
        if code in (b"", b"null"):
            return amount
        name = _TEXT.decode(code).strip().upper() if code.startswith(b'"') else code.decode()
        if name in ("", self._currency):
            return amount
        if name not in self._rates:
            known = ", ".join([self._currency, *self._rates])
            raise _Unvalued(NoteCode.unknown_currency, f"properties.currency {name[:40]!r} is not one of {known}")
        return round(amount * self._rates[name], 6)


def _exposure(common: tuple[str, str, datetime], call: _Track) -> Exposure:
    viewed = _VIEWED_PROPERTIES.decode(_object("properties", call.properties) or b"{}")
    experiment = _first("properties.experiment_id", viewed.experiment_id, viewed.experiment_camel)
    ids = (viewed.variation_id, viewed.variation_camel, viewed.variation_name, viewed.name_camel)
    variant = _first("properties.variation_id", *ids)
    if not (experiment and variant):
        raise _Refused(f"{_VIEWED!r} needs properties.experiment_id and properties.variation_id (or variation_name)")
    context = _CONTEXT.decode(_object("context", call.context) or b"{}")
    attributes = _object("context.traits", context.traits) or Raw()
    return Exposure(*common, experiment=experiment, variant=variant, attributes=attributes)


def _page_properties(call: _Page) -> Raw:
    told = {"name": call.name, "category": call.category}
    if not any(told.values()):
        return _object("properties", call.properties) or Raw()
    named = {field: Raw(msgspec.json.encode(text)) for field, text in told.items() if text}
    return Raw(msgspec.json.encode(named | _members("properties", call.properties)))


def _text(field: str, sent: str | int | None) -> str | None:
    text = None if sent is None else str(sent)
    if text is not None and len(text) > 300:
        raise _Refused(f"{field} must have at most 300 characters")
    return text


def _first(field: str, *sent: str | int | None) -> str | None:
    return next((text for each in sent if (text := _text(field, each))), None)


def _time(field: str, sent: str | None) -> datetime | None:
    if sent is None:
        return None
    try:
        instant = datetime.fromisoformat(sent)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        remedy = "must be a time with its offset, such as 2026-03-01T02:03:04.567Z"
        raise _Refused(f"{field} {sent[:40]!r} {remedy}")
    return instant


def _amount(field: str, sent: bytes) -> float:
    text = _TEXT.decode(sent).strip() if sent.startswith(b'"') else sent.decode()
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise _Unvalued(NoteCode.unreadable_value, f"properties.{field} {text[:40]!r} is not a number such as 13.5")
    return float(text)


def _object(field: str, sent: Raw) -> Raw | None:
    """Return an object as it was sent, None for none."""
    start = bytes(sent)
    if start in (b"", b"null"):
        return None
    if not start.startswith(b"{"):
        raise _Refused(f"{field} must be a JSON object", ItemCode.not_an_object)
    return sent


def _members(field: str, sent: Raw) -> dict[str, Raw]:
    return _MEMBERS.decode(_object(field, sent) or b"{}")
