"""Errors as programs read them: RFC 9457 problem details, one shape for every failing answer of the API."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus

import msgspec
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException

from experiments.errors import FieldProblem, InvalidDocument, UpturnError
from web.replies import Reply

MEDIA_TYPE = "application/problem+json"

# Codes that the web layer itself gives; those of the domain come with its errors. docs/api.md explains all of them.
_BY_STATUS: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "the request could not be read"),
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not answer this method"),
    406: ("not_acceptable", "none of the accepted media types is available"),
    408: ("timeout", "the request took too long to arrive"),
    411: ("length_required", "send a Content-Length"),
    413: ("too_large", "the body is larger than this server takes"),
    414: ("address_too_long", "the address is too long"),
    415: ("unsupported_media_type", "send JSON (application/json), plain or gzip"),
    431: ("headers_too_large", "the headers are too large"),
}
_MAX_SHOWN = 400


class RequestRefused(UpturnError):
    """A request that the web layer refuses before it reaches the domain."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, detail)
        self.status = status
        self.headers = dict(headers or {})


def answer(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Iterable[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> Reply:
    """Return a problem as a reply.

    Args:
        status: HTTP status.
        code: stable code; ``type`` and ``title`` follow from it.
        detail: what happened this time.
        errors: what is wrong with which field.
        headers: further response headers.
        members: further members of the problem, such as the newest ``revision``.
    """
    body = {
        "type": f"/problems/{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [_field(error) for error in errors],
        **(members or {}),
    }
    return Reply(status, msgspec.json.encode(body, enc_hook=_plain), MEDIA_TYPE, headers or {})


def from_error(error: Exception) -> Reply:
    """Return the problem of any exception; what is not foreseen becomes a 500 that tells nothing of the inside."""
    if isinstance(error, RecursionError):
        return answer(400, "nested_too_deeply", "the JSON is nested too deeply")
    if isinstance(error, RequestRefused):
        return answer(error.status, error.code, error.detail, headers=error.headers)
    if isinstance(error, UpturnError):
        problems: Sequence[FieldProblem] = error.problems if isinstance(error, InvalidDocument) else ()
        return answer(error.status, error.code, error.detail, errors=problems, members=error.facts)
    if isinstance(error, HTTPException) and error.code is not None and error.code != 500:
        fallback = (HTTPStatus(error.code).phrase.lower().replace(" ", "_"), HTTPStatus(error.code).phrase)
        code, detail = _BY_STATUS.get(error.code, fallback)
        kept = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        return answer(error.code, code, detail, headers=kept)
    return answer(500, "internal_error", "something went wrong here; it was logged")


def _field(error: FieldProblem) -> dict[str, object]:
    shown = msgspec.json.encode(error.value, enc_hook=_plain)
    value = error.value if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN].decode(errors='ignore')}…"
    return {**error.to_dict(), "value": value}


def _plain(value: object) -> object:
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else str(value)
