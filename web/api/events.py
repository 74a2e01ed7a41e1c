"""Taking in events over HTTP: what was answered as accepted is on disk."""

from datetime import datetime

import msgspec

from experiments import ingest
from experiments.access import Scope
from experiments.errors import InvalidDocument
from experiments.ingest import AnyItem, Receipt, Rejected
from web import payload, problems
from web.api.operations import Answer, Operations
from web.replies import JSON, Reply, json_reply
from web.thin import Call


def store(
    call: Call, items: list[tuple[int, AnyItem]], rejected: list[Rejected], sent_at: datetime | None = None
) -> Receipt:
    """Check and store decoded items; what the receipt counts as accepted is committed."""
    held, now = call.store, call.state.clock()
    # Only what must be is inside the writing transaction: on SQLite one writes at a time.
    with held.read() as session:
        checked = ingest.check(session, call.catalog, items, rejected, now=now, sent_at=sent_at)
    with held.write() as session:
        return ingest.write(session, checked)


def _events(call: Call) -> Reply:
    body = call.body()
    try:
        decoded = ingest.decode(body)
    except InvalidDocument:
        payload.decoded(body)  # text that is not JSON at all is another problem
        raise
    receipt = store(call, *decoded)
    return all_rejected(receipt) or json_reply(receipt, 202)


def all_rejected(receipt: Receipt) -> Reply | None:
    """Return the problem of a batch of which nothing could be taken, None where something was."""
    if not receipt.rejected or receipt.accepted or receipt.duplicates:
        return None
    members = {"rejected": msgspec.to_builtins(receipt.rejected)}
    return problems.answer(422, "all_rejected", "no item of the batch could be taken", members=members)


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
        thin=True,
    )
