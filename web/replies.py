"""An answer as plain data: what Flask's views and the thin layer in front of them both give."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
from flask import Response

JSON = "application/json"


class Reply(NamedTuple):
    """One answer; a body that is not bytes is a stream."""

    status: int
    body: bytes | Iterator[bytes]
    media_type: str = JSON
    headers: Mapping[str, str] = {}

    def response(self) -> Response:
        """Return it as Flask has it."""
        response = Response(self.body, self.status, mimetype=self.media_type)
        response.headers.update(self.headers)
        return response


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a value as a reply in JSON."""
    return Reply(status, msgspec.json.encode(value), JSON, headers or {})


def conditional(reply: Reply, etag: str, asked: str | None) -> Reply:
    """Mark a reply with an ETag; it is 304 and empty when ``asked`` (If-None-Match) names that."""
    headers = {"Cache-Control": "private, no-cache", **reply.headers, "ETag": f'"{etag}"'}
    if asked is not None and (asked.strip() == "*" or f'"{etag}"' in _names(asked)):
        return Reply(304, b"", "", headers)
    return reply._replace(headers=headers)


def _names(asked: str) -> Iterable[str]:
    return (name.strip().removeprefix("W/") for name in asked.split(","))
