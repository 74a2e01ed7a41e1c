"""Operations of the API: one declaration gives the route, who may call it, and its entry in the OpenAPI document."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from flask import Blueprint, Response, current_app, g, request

from experiments.access import KeyInfo, Scope
from web.replies import Reply, json_reply
from web.state import state
from web.thin import Call, Route, Routes

Schema = Mapping[str, Any]


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
    body_required: bool
    answers: Mapping[int, Answer]
    problems: Sequence[int]
    query: Mapping[str, Schema]
    headers: Sequence[str]


class Operations:
    """The operations of one blueprint."""

    def __init__(self, blueprint: Blueprint, routes: Routes) -> None:
        self.blueprint = blueprint
        self.routes = routes
        self.listed: list[Operation] = []

    def add(
        self,
        method: str,
        path: str,
        handler: Callable[..., Any],
        *,
        name: str,
        summary: str,
        tag: str,
        scope: Scope,
        answers: Mapping[int, Answer],
        body: Schema | None = None,
        body_required: bool = True,
        problems: Sequence[int] = (),
        query: Mapping[str, Schema] | None = None,
        headers: Sequence[str] = (),
        thin: bool = False,
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
            body_required: whether it has to be sent.
            problems: further statuses of failing answers, beyond those of every operation.
            query: JSON Schema of each query parameter.
            headers: request headers it reads.
            thin: answered by the layer before Flask; the handler takes a ``Call``, whose key is admitted already.
        """
        self.listed.append(
            Operation(
                name, method, path, summary, tag, scope, body, body_required, answers, problems, query or {}, headers
            )
        )
        if thin:
            self.routes.add(method, f"{self.blueprint.url_prefix}{path}", Route(_admitted(handler, scope)))
            return
        rule = re.sub(r"\{(\w+)\}", r"<\1>", path)
        self.blueprint.add_url_rule(rule, name, _guarded(handler, scope), methods=[method])


def _guarded(handler: Callable[..., Response], scope: Scope) -> Callable[..., Response]:
    @wraps(handler)
    def guarded(**arguments: str) -> Response:
        g.key = Call(request.environ, state(), current_app.config, "").admit(scope)
        return handler(**arguments)

    return guarded


def _admitted(handler: Callable[[Call], Reply], scope: Scope) -> Callable[[Call], Reply]:
    def admitted(call: Call) -> Reply:
        call.admit(scope)
        return handler(call)

    return admitted


def actor() -> str:
    """Return who acts, for the audit."""
    key: KeyInfo = g.key
    return key.name


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as a JSON response."""
    return json_reply(value, status, headers).response()


def conditional(response: Response, etag: str) -> Response:
    """Mark a response with an ETag; the answer is 304 when the caller has it already."""
    response.set_etag(etag)
    response.headers["Cache-Control"] = "private, no-cache"
    response.make_conditional(request)
    return response
