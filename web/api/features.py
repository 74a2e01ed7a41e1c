"""What the SDKs of GrowthBook read: ``GET /api/features/<client key>``."""

from experiments.access import Scope
from web.replies import JSON, Reply, conditional
from web.thin import Call, Route, Routes


def _features(call: Call) -> Reply:
    call.admit(Scope.assign, secret=call.rest)
    catalog = call.catalog
    headers = {"X-SSE-Support": "enabled"} if call.state.streams.offered else {}
    reply = Reply(200, catalog.features, JSON, headers)
    return conditional(reply, str(catalog.version), call.header("HTTP_IF_NONE_MATCH"))


def add(routes: Routes) -> None:
    """Add the route of the payload."""
    routes.add("GET", "/api/features/*", Route(_features))
