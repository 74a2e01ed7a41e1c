"""Streams that tell clients to ask again: OFREP's and our own SDK's (one and the same), and GrowthBook's."""

import re
from collections.abc import Callable

from experiments.access import Scope
from web import problems
from web.replies import Reply
from web.streams import event
from web.thin import Call, Route, Routes

_VERSION = re.compile("[0-9]{1,18}")
_BUSY = "all streams of this server are taken: ask now and then instead"


def _refetch(call: Call) -> Reply:
    call.admit(Scope.assign, digest=call.query("channel"))
    # The newest that the client knows is what it heard last, or else the version that the address was given with.
    seen = _version(call.header("HTTP_LAST_EVENT_ID"), call.query("since"))
    return _stream(call, seen, lambda version: event({"type": "refetchEvaluation", "etag": f'"{version}"'}))


def _features(call: Call) -> Reply:
    call.admit(Scope.assign, secret=call.rest)
    store = call.store
    # Its address is always the same: what changed between the payload and the stream is told by sending it again.
    seen = _version(call.header("HTTP_LAST_EVENT_ID"), "0")
    return _stream(call, seen, lambda version: b"event: features\ndata: %b\n\n" % store.catalog_at(version).features)


def _version(*texts: str | None) -> int | None:
    """Return the first that is one."""
    return next((int(text) for text in texts if text is not None and _VERSION.fullmatch(text)), None)


def _stream(call: Call, seen: int | None, message: Callable[[int], bytes]) -> Reply:
    body = call.state.streams.open(message, seen)
    if body is None:
        return problems.answer(503, "streams_taken", _BUSY, headers={"Retry-After": "60"})
    # Proxies that collect an answer before they pass it on would hold back every message.
    return Reply(200, body, "text/event-stream", {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def add(routes: Routes) -> None:
    """Add the streams' routes."""
    routes.add("GET", "/v1/stream", Route(_refetch))
    routes.add("GET", "/ofrep/v1/stream", Route(_refetch))
    routes.add("GET", "/sub/*", Route(_features))
