"""All experiments together over HTTP: what a programme came to, and what was learnt of tactics."""

from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Response, request

from experiments.access import Scope
from experiments.errors import FieldProblem, InvalidDocument
from experiments.programme import contribution, library
from experiments.programme import totals as programme
from experiments.programme.contribution import Question
from experiments.programme.library import Filter, TacticEntry, TacticKind
from web.api.operations import Answer, Operations, json_answer
from web.replies import JSON
from web.state import state

_TEXT: Mapping[str, Any] = {"type": "string"}
_DAY: Mapping[str, Any] = {"type": "string", "format": "date"}


class TacticList(msgspec.Struct, frozen=True):
    """The tactics found, the most valuable first; ``total`` is without the filters."""

    items: list[TacticEntry]
    total: int


def _programme() -> Response:
    held, given = state(), request.args
    start, end = programme.period(given.get("from"), given.get("to"), now=held.clock(), zone=held.zone)
    question = None
    holdout, metric = given.get("holdout"), given.get("metric")
    if holdout or metric:
        missing = [name for name, value in (("holdout", holdout), ("metric", metric)) if not value]
        if missing:
            remedy = "give holdout and metric together"
            raise InvalidDocument([FieldProblem(name, None, "missing", remedy) for name in missing], "programme")
        question = Question(str(holdout), str(metric), start, end)
        contribution.make(held.store, question, now=held.clock(), sync=False)
    return json_answer(programme.of_period(held.store, start, end, now=held.clock(), question=question))


def _tactics() -> Response:
    held, given = state(), request.args
    kind = given.get("kind")
    if kind is not None and kind not in set(TacticKind):
        remedy = f"give one of {', '.join(TacticKind)}"
        raise InvalidDocument([FieldProblem("kind", kind, "enum", remedy)], "request")
    names = ("channel", "segment", "tag")
    wanted = Filter(given.get("q", ""), kind or "", *(given.get(name, "") for name in names))
    with held.store.read() as session:
        found = library.find(session, held.store.settings.currency, wanted)
    return json_answer(TacticList(found.entries, found.total))


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    operations.add(
        "GET",
        "/programme",
        _programme,
        name="get_programme",
        summary="What the experiments of a period came to; with a holdout and a metric also what these tell.",
        tag="programme",
        scope=Scope.read,
        answers={200: Answer("The answer", {JSON: {"$ref": "#/components/schemas/Programme"}})},
        problems=(404, 409, 422),
        query={"from": _DAY, "to": _DAY, "holdout": _TEXT, "metric": _TEXT},
    )
    operations.add(
        "GET",
        "/tactics",
        _tactics,
        name="list_tactics",
        summary="What every tactic did against its control, for whom, from all experiments.",
        tag="programme",
        scope=Scope.read,
        answers={200: Answer("The tactics", {JSON: {"$ref": "#/components/schemas/TacticList"}})},
        problems=(422,),
        query={
            "q": _TEXT,
            "kind": {"type": "string", "enum": [kind.value for kind in TacticKind]},
            "channel": _TEXT,
            "segment": _TEXT,
            "tag": _TEXT,
        },
    )
