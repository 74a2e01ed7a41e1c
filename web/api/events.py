"""Taking in events over HTTP: what was answered as accepted is on disk."""

import msgspec
from flask import Response

from experiments import ingest
from experiments.access import Scope
from experiments.errors import InvalidDocument
from web import problems
from web.api import payload
from web.api.operations import JSON, Answer, Operations, json_answer
from web.state import state


def _events() -> Response:
    body = payload.body()
    try:
        items, rejected = ingest.decode(body)
    except InvalidDocument:
        payload.decoded(body)  # text that is not JSON at all is another problem
        raise
    held = state()
    # Only what must be is inside the writing transaction: on SQLite one writes at a time.
    with held.store.read() as session:
        checked = ingest.check(session, held.store.catalog(session), items, rejected, now=held.clock())
    with held.store.write() as session:
        receipt = ingest.write(session, checked)
    if receipt.rejected and not receipt.accepted and not receipt.duplicates:
        members = {"rejected": msgspec.to_builtins(receipt.rejected)}
        return problems.answer(422, "all_rejected", "no item of the batch could be taken", members=members)
    return json_answer(receipt, 202)


def declare(operations: Operations) -> None:
    """Add the operations of this module."""
    operations.add(
        "POST",
        "/events",
        _events,
        name="receive_events",
        summary="Take in events, exposures and users' attributes; a message id is stored once, however often sent.",
        tag="events",
        scope=Scope.ingest,
        body={"$ref": "#/components/schemas/Batch"},
        answers={
            202: Answer(
                "Stored; the items refused are listed by index", {JSON: {"$ref": "#/components/schemas/Receipt"}}
            )
        },
        problems=(422,),
    )
