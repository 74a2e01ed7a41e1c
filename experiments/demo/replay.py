"""Sends a campaign through the real documents, ingest and lake, as an app would."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec

from experiments import ingest, registry
from experiments.documents import Kind, Status
from experiments.errors import Conflict
from experiments.store import Store

BATCH = 5_000
Documents = Sequence[tuple[Kind, dict[str, Any]]]
Item = Mapping[str, object]


def create(store: Store, documents: Documents, experiment: str, *, now: datetime) -> None:
    """Create the documents and start the experiment, unless the store has them."""
    for kind, body in documents:
        try:
            with store.write() as session:
                registry.create(session, kind, body, actor="demo", now=now)
        except Conflict as conflict:
            if conflict.code != "already_exists":
                raise
    with store.write() as session:
        if registry.get(session, Kind.experiment, experiment).status is Status.draft:
            registry.move(session, experiment, Status.running, actor="demo", now=now)


def send(
    store: Store, customers: Iterable[Sequence[Item]], *, now: datetime, progress: Callable[[int], object]
) -> ingest.Receipt:
    """Send what happened to each customer, batch by batch; ``progress`` is told how many customers a batch brought."""
    accepted = duplicates = 0
    rejected: list[ingest.Rejected] = []
    rest = iter(customers)
    while chunk := list(islice(rest, BATCH)):
        body = msgspec.json.encode({"batch": [item for items in chunk for item in items]})
        with store.write() as session:
            receipt = ingest.receive(session, store.catalog(session), body, now=now)
        accepted += receipt.accepted
        duplicates += receipt.duplicates
        rejected += receipt.rejected
        progress(len(chunk))
    return ingest.Receipt(accepted, duplicates, rejected)
