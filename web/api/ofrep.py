"""OFREP, the OpenFeature Remote Evaluation Protocol, version 0.3: every experiment is a feature flag.

An evaluation is not an exposure. A user who is not enrolled gets no ``value``, which means: the app's own default.
Errors are OFREP's own JSON, not problems.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from experiments.access import KeyInfo, Scope
from experiments.catalog import Catalog
from experiments.sdk.experiment import Assignment
from experiments.sdk.experiment import Reason as Why
from web import problems
from web.problems import RequestRefused
from web.replies import JSON, Reply, conditional, json_reply
from web.thin import Call, Route, Routes

_FLAGS: Final = "/ofrep/v1/evaluate/flags"
_MAX_ID: Final = 300
_QUIET_SECONDS: Final = 120
_NAMES: Final[Mapping[Why, str]] = {
    Why.assigned: "SPLIT",
    Why.sticky: "SPLIT",
    Why.forced: "TARGETING_MATCH",
    Why.not_running: "DISABLED",
}


class _Request(msgspec.Struct, frozen=True):
    context: dict[str, Any] = {}


class _Flag(msgspec.Struct, frozen=True, omit_defaults=True):
    """One evaluation. ``variant`` is "" without one: clients fail when it is missing."""

    key: str
    reason: str
    variant: str
    metadata: dict[str, str | int | float | bool]
    value: Any = None


class _Unusable(Exception):
    """A context that cannot be evaluated."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


_DECODER = msgspec.json.Decoder(_Request)


def _single(call: Call) -> Reply:
    _, user, context = _admitted(call)
    experiment = call.catalog.evaluator.experiments.get(call.rest)
    if experiment is None:
        details = f"there is no experiment {call.rest!r}"
        return json_reply({"key": call.rest, "errorCode": "FLAG_NOT_FOUND", "errorDetails": details}, 404)
    found = call.known.assign(experiment, user, call.known.attributes | context)
    return Reply(200, _flag(call.catalog, *found))


def _bulk(call: Call) -> Reply:
    key, user, context = _admitted(call)
    known, catalog = call.known, call.catalog
    attributes = known.attributes | context
    flags = b",".join(
        _flag(catalog, *known.assign(experiment, user, attributes))
        for experiment in catalog.evaluator.experiments.values()
        if experiment.running
    )
    streams = b""
    if call.state.streams.offered:
        # A browser's event source sends no headers, so the address names the key: by its digest, which opens only this.
        address = call.link(f"/ofrep/v1/stream?channel={key.digest}&since={catalog.version}")
        stream = {"type": "sse", "endpoint": {"requestUri": address}, "inactivityDelaySec": _QUIET_SECONDS}
        streams = b',"eventStreams":' + msgspec.json.encode([stream])
    body = b'{"flags":[%b],"metadata":{"version":%d}%b}' % (flags, catalog.version, streams)
    # The same flags for the same user are the same answer, whatever was changed elsewhere.
    name = hashlib.blake2b(user.encode(errors="replace") + b"\0" + flags, digest_size=12).hexdigest()
    return conditional(Reply(200, body), name, call.header("HTTP_IF_NONE_MATCH"))


def _configuration(call: Call) -> Reply:
    call.admit(Scope.assign)
    body = msgspec.json.encode(
        {
            "name": "Upturn",
            "capabilities": {
                "flagEvaluation": {"supportedTypes": ["int", "float", "string", "boolean", "object"]},
                "cacheInvalidation": {"polling": {"enabled": True, "minPollingIntervalMs": 1_000}},
                # Served by the server's own memory: a cache in the app would only make answers old.
                "caching": {"enabled": False},
            },
        }
    )
    name = hashlib.blake2b(body, digest_size=12).hexdigest()
    return conditional(Reply(200, body), name, call.header("HTTP_IF_NONE_MATCH"))


def _admitted(call: Call) -> tuple[KeyInfo, str, dict[str, Any]]:
    """Return the caller's key, the user's id and his context, where the caller's key allows to ask."""
    try:
        user, context = _context(call)
    except Exception:
        call.admit(Scope.assign)  # who may not ask is not told what is wrong with the question
        raise
    return call.admit(Scope.assign, user=user), user, context


def _context(call: Call) -> tuple[str, dict[str, Any]]:
    body = call.body()
    try:
        context = _DECODER.decode(body).context
    except msgspec.ValidationError as error:
        raise _Unusable("INVALID_CONTEXT", f'send {{"context": {{...}}}}: {error}') from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _Unusable("PARSE_ERROR", f"the body is not valid JSON: {error}") from None
    user = context.pop("targetingKey", None)
    if user is None or user == "":
        raise _Unusable("TARGETING_KEY_MISSING", "send the user's id as context.targetingKey")
    if not isinstance(user, str) or len(user) > _MAX_ID:
        raise _Unusable("INVALID_CONTEXT", f"targetingKey must be a text of at most {_MAX_ID} characters")
    return user, context


def _flag(catalog: Catalog, found: Assignment, stratum: str | None) -> bytes:
    """Return one evaluation in JSON: made once for each answer, as all users who get it share the assignment."""
    name = id(found), stratum
    text = catalog.flags.get(name)
    if text is None:
        metadata: dict[str, str | int | float | bool] = {
            "reason": found.reason.value,
            "phase": found.phase,
            "revision": found.revision,
        }
        if stratum is not None:
            metadata["stratum"] = stratum
        reason = _NAMES.get(found.reason, "DEFAULT")
        flag = _Flag(found.experiment, reason, found.variant or "", metadata, found.value)
        text = catalog.flags[name] = msgspec.json.encode(flag)
    return text


def _failure(call: Call, error: Exception) -> Reply:
    """Tell a failure in OFREP's words; the status is the one our own API would give."""
    if isinstance(error, _Unusable):
        return _refusal(call, 400, error.code, str(error))
    reply = problems.from_error(error)
    if reply.status in (400, 413, 415):
        detail = error.detail if isinstance(error, RequestRefused) else "send JSON, plain or gzip"
        return _refusal(call, 400, "PARSE_ERROR", detail)
    if reply.status == 500:
        return json_reply({"errorCode": "GENERAL", "errorDetails": "something went wrong here; it was logged"}, 500)
    detail = error.detail if isinstance(error, RequestRefused) else "the request was refused"
    return Reply(
        reply.status, msgspec.json.encode({"errorCode": "GENERAL", "errorDetails": detail}), JSON, reply.headers
    )


def _refusal(call: Call, status: int, code: str, detail: str) -> Reply:
    told = {"errorCode": code, "errorDetails": detail}
    return json_reply({"key": call.rest, **told} if call.rest else told, status)


def add(routes: Routes) -> None:
    """Add OFREP's routes."""
    routes.add("POST", f"{_FLAGS}/*", Route(_single, _failure))
    routes.add("POST", _FLAGS, Route(_bulk, _failure))
    routes.add("GET", "/ofrep/v1/configuration", Route(_configuration, _failure))
