"""Items as the server takes them in: checked and encoded when the app hands them over.

What JSON or the server cannot carry is refused here, so that it never spoils a batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from json import JSONEncoder
from numbers import Real
from typing import Final

__all__ = ["MAX_BYTES", "UnsendableItem", "alias", "event", "exposure", "identify"]

MAX_BYTES: Final = 1024 * 1024
_MAX_ID: Final = 300
_MAX_VALUE: Final = 1_000_000_000_000.0

_encode = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class UnsendableItem(ValueError):
    """An item that the server could not take: the field and what would be right, never the value."""


def exposure(experiment: object, user: object, variant: object, phase: int = 0, stratum: str | None = None) -> bytes:
    """Return an exposure; without a phase the server takes the present one."""
    item = _item("exposure", user) | {"experiment": _id(experiment, "experiment"), "variant": _id(variant, "variant")}
    if phase:
        item["phase"] = phase
    if stratum is not None:
        item["stratum"] = stratum
    return _encoded(item)


def event(user: object, name: object, value: object, properties: object, timestamp: object) -> bytes:
    """Return an event."""
    item = _item("event", user, timestamp) | {"event": _id(name, "event")}
    if value is not None:
        item["value"] = _number(value)
    if properties is not None:
        item["properties"] = _object(properties, "properties")
    return _encoded(item)


def identify(user: object, traits: object) -> bytes:
    """Return attributes of a user."""
    return _encoded(_item("identify", user) | {"traits": _object(traits, "traits")})


def alias(previous_id: object, user: object) -> bytes:
    """Return the news that two ids are one person."""
    if previous_id == user:
        raise UnsendableItem("previous_id: give another id than user")
    return _encoded(_item("alias", user) | {"previousId": _id(previous_id, "previous_id")})


def _item(kind: str, user: object, timestamp: object = None) -> dict[str, object]:
    if timestamp is None:
        timestamp = datetime.now(UTC)
    elif not isinstance(timestamp, datetime) or timestamp.utcoffset() is None:
        raise UnsendableItem("timestamp: give a datetime with a time zone")
    # Random without a state, so that a forked process makes ids of its own.
    made = os.urandom(16).hex()
    return {"type": kind, "messageId": made, "userId": _id(user, "user"), "timestamp": timestamp.isoformat()}


def _id(value: object, field: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID or "\0" in value:
        raise UnsendableItem(f"{field}: give a text of 1 to {_MAX_ID} characters, without U+0000")
    return value


def _number(value: object) -> float:
    if isinstance(value, Real | Decimal) and not isinstance(value, bool):
        number = float(value)
        if -_MAX_VALUE <= number <= _MAX_VALUE:
            return number
    raise UnsendableItem(f"value: give a number within ±{_MAX_VALUE:.0f}")


def _object(value: object, field: str) -> dict[object, object]:
    if not isinstance(value, Mapping):
        raise UnsendableItem(f"{field}: give a mapping")
    return dict(value)


def _encoded(item: dict[str, object]) -> bytes:
    try:
        text = _encode(item)
        encoded = text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        # NaN, infinity, half an emoji, a circle, an object that JSON does not know, or too deep a nesting.
        raise UnsendableItem(f"{item['type']}: give what JSON in UTF-8 can carry ({type(error).__name__})") from None
    if "\\u0000" in text and "\\u0000" in text.replace("\\\\", ""):
        raise UnsendableItem(f"{item['type']}: give texts without U+0000")
    if len(encoded) > MAX_BYTES:
        raise UnsendableItem(f"{item['type']}: give less than {MAX_BYTES} bytes")
    return encoded
