"""Operations of the API: one declaration gives the route, who may call it, and its entry in the OpenAPI document."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import msgspec
from flask import Blueprint, Response, g, request

from experiments import access
from experiments.access import KeyInfo, Scope
from web.problems import RequestRefused
from web.state import state

Schema = Mapping[str, Any]
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: what it means, its media types with their schemas, its headers."""

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as declared."""

    name: str
    method: str
    path: str
    summary: str
    tag: str
    scope: Scope
    body: Schema | None
    answers: Mapping[int, Answer]
    problems: Sequence[int]
    query: Mapping[str, Schema]
    headers: Sequence[str]


class Operations:
    """The operations of one blueprint."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.listed: list[Operation] = []

    def add(
        self,
        method: str,
        path: str,
        handler: Callable[..., Response],
        *,
        name: str,
        summary: str,
        tag: str,
        scope: Scope,
        answers: Mapping[int, Answer],
        body: Schema | None = None,
        problems: Sequence[int] = (),
        query: Mapping[str, Schema] | None = None,
        headers: Sequence[str] = (),
    ) -> None:
        """Declare an operation.

        Args:
            method: HTTP method.
            path: in OpenAPI's form, ``/experiments/{key}``; its parameters are the handler's arguments, as text.
            handler: answers the request.
            name: unique id.
            summary: one line for readers.
            tag: group in the document.
            scope: what a key needs.
            answers: successful answers by status.
            body: JSON Schema of the request's body, None when it takes none.
            problems: further statuses of failing answers, beyond those of every operation.
            query: JSON Schema of each query parameter.
            headers: request headers it reads.
        """
        self.listed.append(
            Operation(name, method, path, summary, tag, scope, body, answers, problems, query or {}, headers)
        )
        rule = re.sub(r"\{(\w+)\}", r"<\1>", path)
        self.blueprint.add_url_rule(rule, name, _guarded(handler, scope), methods=[method])


def _guarded(handler: Callable[..., Response], scope: Scope) -> Callable[..., Response]:
    @wraps(handler)
    def guarded(**arguments: str) -> Response:
        g.key = authenticate(scope)
        return handler(**arguments)

    return guarded


def authenticate(scope: Scope) -> KeyInfo:
    """Return the request's key if it allows ``scope``; refuse with 401 or 403 otherwise."""
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip() if kind.lower() == "bearer" else request.headers.get("X-API-Key", "").strip()
    key = None
    if secret:
        with state().store.read() as session:
            key = access.find_key(session, secret)
    if key is None:
        detail = "this key is unknown or revoked" if secret else "send a key: Authorization: Bearer upk_…"
        raise RequestRefused(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="upturn"'})
    if not key.allows(scope):
        raise RequestRefused(403, "scope_missing", f"the key {key.name!r} needs the scope {scope.value!r} for this")
    return key


def actor() -> str:
    """Return who acts, for the audit."""
    key: KeyInfo = g.key
    return key.name


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as a JSON response."""
    response = Response(msgspec.json.encode(value), status, mimetype=JSON)
    response.headers.update(headers or {})
    return response


def conditional(response: Response, etag: str) -> Response:
    """Mark a response with an ETag; the answer is 304 when the caller has it already."""
    response.set_etag(etag)
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response
