"""Request bodies: JSON, plain or gzip, within limits."""

import zlib
from collections.abc import Container
from typing import Any

import msgspec
from flask import current_app, request
from werkzeug.exceptions import UnsupportedMediaType
from werkzeug.wsgi import get_input_stream

from experiments.errors import FieldProblem, InvalidDocument
from web.problems import RequestRefused

MAX_BODY = 10 * 1024 * 1024
MAX_INFLATED = 50 * 1024 * 1024


def body() -> bytes:
    """Return the JSON text of the request that Flask answers, inflated; see ``read``."""
    return read(request.environ, current_app.config)


def read(environ: dict[str, Any], limits: dict[str, Any], also: Container[str] = ()) -> bytes:
    """Return a request's JSON text, inflated.

    Args:
        environ: of the request.
        limits: ``MAX_CONTENT_LENGTH`` and ``MAX_INFLATED``, in bytes.
        also: media types taken for JSON besides those that say so.

    Raises:
        RequestRefused: 413 too large when inflated, 400 broken gzip, or not UTF-8.
        RequestEntityTooLarge: too large as sent.
        UnsupportedMediaType: neither JSON nor gzip of it.
    """
    mimetype = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if mimetype != "application/json" and not mimetype.endswith("+json") and mimetype not in also:
        raise UnsupportedMediaType
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise UnsupportedMediaType
    raw = _sent(environ, limits["MAX_CONTENT_LENGTH"])
    text = raw if encoding == "identity" else _inflated(raw, limits["MAX_INFLATED"])
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise RequestRefused(400, "malformed_json", f"the body is not UTF-8: {error}") from None
    return text


def _sent(environ: dict[str, Any], limit: int) -> bytes:
    length = environ.get("CONTENT_LENGTH", "")
    if "HTTP_TRANSFER_ENCODING" in environ or not (length.isdigit() and int(length) <= limit):
        return get_input_stream(environ, max_content_length=limit).read()
    # What werkzeug's stream does for a body of known length, at a tenth of the time.
    raw: bytes = environ["wsgi.input"].read(int(length))
    if len(raw) < int(length):
        raise RequestRefused(400, "bad_request", f"the body ended after {len(raw)} of {length} bytes")
    return raw


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
