"""Request bodies: JSON, plain or gzip, within limits."""

import zlib
from typing import Any

import msgspec
from flask import current_app, request
from werkzeug.exceptions import UnsupportedMediaType

from experiments.errors import FieldProblem, InvalidDocument
from web.problems import RequestRefused

MAX_BODY = 10 * 1024 * 1024
MAX_INFLATED = 50 * 1024 * 1024


def body() -> bytes:
    """Return the request's JSON text, inflated.

    Raises:
        RequestRefused: 413 too large (as sent, or inflated), 400 broken gzip, or not UTF-8.
        UnsupportedMediaType: neither JSON nor gzip of it.
    """
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise UnsupportedMediaType
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaType
    raw = request.get_data(cache=False)
    text = raw if encoding == "identity" else _inflated(raw, current_app.config["MAX_INFLATED"])
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise RequestRefused(400, "malformed_json", f"the body is not UTF-8: {error}") from None
    return text


def decoded(raw: bytes) -> Any:
    """Return JSON values; refuse text that is not JSON with 400."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise malformed(error) from None


def malformed(error: msgspec.DecodeError) -> RequestRefused:
    """Return the refusal of a body that is not JSON."""
    return RequestRefused(400, "malformed_json", f"the body is not valid JSON: {error}")


def misshaped(error: msgspec.ValidationError, what: str) -> InvalidDocument:
    """Return the refusal of a body that is JSON of another shape than asked for."""
    message, _, path = str(error).partition(" - at `")
    field = path.rstrip("`").removeprefix("$").removeprefix(".") or "$"
    return InvalidDocument([FieldProblem(field, None, "misshaped", message)], what)


def _inflated(raw: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    room = limit
    try:
        while raw:
            stream = zlib.decompressobj(wbits=31)
            part = stream.decompress(raw, room + 1)
            room -= len(part)
            if room < 0:
                raise RequestRefused(413, "too_large", f"the body is larger than {limit} bytes when inflated")
            if not stream.eof:
                raise RequestRefused(400, "broken_gzip", "the gzip stream ends early")
            parts.append(part)
            raw = stream.unused_data
    except zlib.error as error:
        raise RequestRefused(400, "broken_gzip", f"the body is not gzip: {error}") from None
    return b"".join(parts)
