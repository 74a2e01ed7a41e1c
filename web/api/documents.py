"""Reading and changing documents: one implementation for all kinds."""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

from flask import Response, request
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from experiments import conflicts, registry
from experiments.access import Scope
from experiments.documents import Decision, Kind, Status, field_problem
from experiments.errors import FieldProblem, InvalidDocument, NotFound
from experiments.fields import Document
from web import payload
from web.api.operations import Answer, Operations, actor, conditional, json_answer
from web.problems import RequestRefused
from web.replies import JSON
from web.state import state

_T = TypeVar("_T")

PAGE = 100
MAX_PAGE = 1_000
MAX_REVISION = 2**31 - 1


class StatusChange(Document):
    """A step through the life cycle of an experiment; ``decision`` goes with ``decided`` only."""

    status: Status
    decision: Decision | None = None


_STATUS_CHANGE: TypeAdapter[StatusChange] = TypeAdapter(StatusChange)


def _list(kind: Kind) -> Response:
    limit = _limit(request.args.get("limit"))
    after = request.args.get("after", "")
    with state().store.read() as session:
        found = [document for document in registry.all_of(session, kind) if document.key > after]
    more = len(found) > limit
    items = [document.to_json() for document in found[:limit]]
    return json_answer({"items": items, "next": items[-1]["key"] if more else None})


def _get(kind: Kind, key: str) -> Response:
    with state().store.read() as session:
        document, revision = registry.get(session, kind, key), registry.revision_of(session, kind, key)
    return conditional(json_answer(document.to_json()), str(revision))


def _get_revision(kind: Kind, key: str, revision: str) -> Response:
    number = int(revision) if revision.isascii() and revision.isdigit() and len(revision) <= 10 else 0
    if not 1 <= number <= MAX_REVISION:
        raise NotFound("not_found", f"there is no revision {revision!r} of the {kind} {key!r}")
    with state().store.read() as session:
        document = registry.get(session, kind, key, number)
    return conditional(json_answer(document.to_json()), str(number))


def _history(kind: Kind, key: str) -> Response:
    with state().store.read() as session:
        registry.revision_of(session, kind, key)
        return json_answer({"items": registry.history(session, key, kind)})


def _create(kind: Kind) -> Response:
    raw = payload.body()
    payload.decoded(raw)
    held = state()
    with held.store.write() as session:
        document = registry.create(session, kind, raw, actor=actor(), now=held.clock())
    return json_answer(document.to_json(), 201, {"Location": f"/v1/{kind.plural}/{document.key}", "ETag": '"1"'})


def _replace(kind: Kind, key: str) -> Response:
    sent = payload.decoded(payload.body())
    if not isinstance(sent, dict):
        raise InvalidDocument([FieldProblem("$", sent, "misshaped", "send a JSON object")], kind)
    held = state()
    with held.store.write() as session:
        current = require_match(session, kind, key)
        if current is not None and kind in (Kind.experiment, Kind.policy):
            # The header names the revision that the caller read, so the document need not repeat it.
            sent.setdefault("revision", current)
        document = registry.revise(session, kind, key, sent, actor=actor(), now=held.clock())
        revision = registry.revision_of(session, kind, key)
    return json_answer(document.to_json(), headers={"ETag": f'"{revision}"'})


def _move(key: str) -> Response:
    change = sent(_STATUS_CHANGE)
    held = state()
    with held.store.write() as session:
        require_match(session, Kind.experiment, key)
        document = registry.move(session, key, change.status, actor=actor(), now=held.clock(), decision=change.decision)
    return json_answer(document.to_json(), headers={"ETag": f'"{document.revision}"'})


def _conflicts(key: str) -> Response:
    held = state()
    with held.store.read() as session:
        experiment = registry.get(session, Kind.experiment, key)
        return json_answer(conflicts.find(session, held.store.lake, experiment, now=held.clock()))


def sent(adapter: TypeAdapter[_T]) -> _T:
    """Return the request's body as what it should be, or refuse it with all that is wrong."""
    raw = payload.body()
    payload.decoded(raw)
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        raise InvalidDocument([field_problem(e) for e in error.errors(include_url=False)], "request") from None


def require_match(session: Session, kind: Kind, key: str) -> int | None:
    """Return the newest revision if ``If-Match`` names it, None without that header; refuse with 412 otherwise."""
    if "If-Match" not in request.headers:
        return None
    revision = registry.revision_of(session, kind, key)
    if not request.if_match.contains(str(revision)):
        detail = f'the newest revision is "{revision}": read it, then change that'
        raise RequestRefused(412, "revision_mismatch", detail, {"ETag": f'"{revision}"'})
    return revision


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_PAGE and len(text) <= 6:
        return int(text)
    raise InvalidDocument(
        [FieldProblem("limit", text, "out_of_range", f"give a whole number from 1 to {MAX_PAGE}")], "request"
    )


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    for kind in Kind:
        _declare_kind(operations, kind)
    operations.add(
        "POST",
        "/experiments/{key}/status",
        _move,
        name="move_experiment",
        summary="Start, pause, resume, stop, decide or archive an experiment.",
        tag="experiments",
        scope=Scope.admin,
        body={"$ref": "#/components/schemas/StatusChange"},
        answers={200: Answer("The new revision", _document(Kind.experiment), ("ETag",))},
        problems=(409, 412, 422),
        headers=("If-Match",),
    )
    operations.add(
        "GET",
        "/experiments/{key}/conflicts",
        _conflicts,
        name="get_experiment_conflicts",
        summary="Who would take part, and what stands in the way or should be looked at before the start.",
        tag="experiments",
        scope=Scope.read,
        answers={200: Answer("The findings", {JSON: {"$ref": "#/components/schemas/Findings"}})},
    )


def _declare_kind(operations: Operations, kind: Kind) -> None:
    one, many = f"/{kind.plural}/{{key}}", f"/{kind.plural}"
    document = _document(kind)
    schema = document[JSON]
    listing = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": schema}, "next": {"type": ["string", "null"]}},
        "required": ["items", "next"],
    }
    add = partial(operations.add, tag=kind.plural)
    add(
        "GET",
        many,
        partial(_list, kind),
        name=f"list_{kind.plural}",
        summary=f"The newest revision of every {kind}, by key.",
        scope=Scope.read,
        answers={200: Answer("One page; `next` is the `after` of the next one", {JSON: listing})},
        problems=(422,),
        query={
            "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
            "after": {"type": "string"},
        },
    )
    add(
        "POST",
        many,
        partial(_create, kind),
        name=f"create_{kind}",
        summary=f"Create {_article(kind)} {kind}.",
        scope=Scope.admin,
        body=schema,
        answers={201: Answer("Created", document, ("ETag", "Location"))},
        problems=(409, 422),
    )
    add(
        "GET",
        one,
        partial(_get, kind),
        name=f"get_{kind}",
        summary=f"The newest revision of {_article(kind)} {kind}.",
        scope=Scope.read,
        answers={200: Answer("The document", document, ("ETag",)), 304: Answer("The caller has the newest one")},
        headers=("If-None-Match",),
    )
    add(
        "PUT",
        one,
        partial(_replace, kind),
        name=f"replace_{kind}",
        summary=f"Change {_article(kind)} {kind}: the whole document, as a new revision.",
        scope=Scope.admin,
        body=schema,
        answers={200: Answer("The new revision", document, ("ETag",))},
        problems=(409, 412, 422),
        headers=("If-Match",),
    )
    add(
        "GET",
        f"{one}/history",
        partial(_history, kind),
        name=f"get_{kind}_history",
        summary="Who changed what, newest first.",
        scope=Scope.read,
        answers={200: Answer("The changes", {JSON: {"$ref": "#/components/schemas/History"}})},
    )
    add(
        "GET",
        f"{one}/revisions/{{revision}}",
        partial(_get_revision, kind),
        name=f"get_{kind}_revision",
        summary=f"An earlier revision of {_article(kind)} {kind}.",
        scope=Scope.read,
        answers={200: Answer("The document", document, ("ETag",)), 304: Answer("The caller has it")},
        headers=("If-None-Match",),
    )


def _document(kind: Kind) -> Mapping[str, Mapping[str, Any]]:
    return {JSON: {"$ref": f"#/components/schemas/{kind.value.capitalize()}"}}


def _article(kind: Kind) -> str:
    return "an" if kind is Kind.experiment else "a"
