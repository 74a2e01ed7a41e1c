"""Streams that tell clients to ask again: OFREP's and our own SDK's (one and the same), and GrowthBook's."""

from collections.abc import Callable

from experiments.access import Scope
from web import problems
from web.replies import Reply
from web.streams import event
from web.thin import Call, Route, Routes

_BUSY = "all streams of this server are taken: ask now and then instead"


def _refetch(call: Call) -> Reply:
    call.admit(Scope.assign, digest=call.query("channel"))
    return _stream(call, lambda version: event({"type": "refetchEvaluation", "etag": f'"{version}"'}))


def _features(call: Call) -> Reply:
    call.admit(Scope.assign, secret=call.rest)
    store = call.store
    return _stream(call, lambda version: b"event: features\ndata: %b\n\n" % store.catalog_at(version).features)


def _stream(call: Call, message: Callable[[int], bytes]) -> Reply:
    body = call.state.streams.open(message, call.header("HTTP_LAST_EVENT_ID"))
    if body is None:
        return problems.answer(503, "streams_taken", _BUSY, headers={"Retry-After": "60"})
    # Proxies that collect an answer before they pass it on would hold back every message.
    return Reply(200, body, "text/event-stream", {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def add(routes: Routes) -> None:
    """Add the streams' routes."""
    routes.add("GET", "/v1/stream", Route(_refetch))
    routes.add("GET", "/ofrep/v1/stream", Route(_refetch))
    routes.add("GET", "/sub/*", Route(_features))
