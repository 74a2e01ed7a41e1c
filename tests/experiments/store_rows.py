"""Documents and batches that the tests of the record share."""

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import msgspec
import pyarrow.parquet as pq

from experiments import ingest, lake, registry
from experiments.documents import Experiment, Kind, Status
from experiments.store import Store

METRIC: dict[str, Any] = {
    "key": "revenue",
    "name": "Revenue",
    "kind": "mean",
    "terms": [{"event": "purchase"}],
    "window_days": 7,
    "role": "primary",
    "unit": "money",
}
EXPERIMENT: dict[str, Any] = {
    "key": "spring",
    "name": "Spring 春",
    "variants": [{"key": "control"}, {"key": "coupon", "tactic": {"copy": "满减", "offer": {"off": 10}}}],
    "control": "control",
    "metrics": [{"key": "revenue", "role": "primary"}],
    "plan": {"planned_users": 1000},
}
SEGMENTS: list[dict[str, Any]] = [
    {"key": "gold", "name": "Gold", "kind": "tier", "condition": {"tier": "gold"}},
    {"key": "rest", "name": "Rest", "condition": {"tier": {"$ne": "gold"}}},
]


def experiment(**changes: Any) -> dict[str, Any]:
    """An experiment document, with changes."""
    return copy.deepcopy(EXPERIMENT) | changes


def create(store: Store, kind: Kind, body: dict[str, Any], now: datetime) -> Any:
    with store.write() as session:
        return registry.create(session, kind, body, actor="li", now=now)


def revise(store: Store, kind: Kind, body: dict[str, Any], now: datetime) -> Any:
    with store.write() as session:
        return registry.revise(session, kind, body["key"], body, actor="wang", now=now)


def move(store: Store, key: str, status: Status, now: datetime) -> Experiment:
    with store.write() as session:
        return registry.move(session, key, status, actor="li", now=now)


def newest_document(store: Store, key: str) -> dict[str, Any]:
    """The newest revision of an experiment, as JSON values."""
    with store.read() as session:
        body: dict[str, Any] = registry.get(session, Kind.experiment, key).to_json()
        return body


def start(store: Store, now: datetime, *, strata: bool = False) -> None:
    """Create and start the experiment ``spring``, over the strata ``gold`` and ``rest`` if asked."""
    create(store, Kind.metric, METRIC, now)
    changes: dict[str, Any] = {}
    if strata:
        for segment in SEGMENTS:
            create(store, Kind.segment, segment, now)
        changes["strata"] = [{"segment": "gold"}, {"segment": "rest"}]
    create(store, Kind.experiment, experiment(**changes), now)
    move(store, "spring", Status.running, now)


def event(message: str, user: str = "u1", **fields: Any) -> dict[str, Any]:
    return {"type": "event", "messageId": message, "userId": user, "event": "purchase"} | fields


def exposure(message: str, user: str = "u1", **fields: Any) -> dict[str, Any]:
    known = {"type": "exposure", "messageId": message, "userId": user, "experiment": "spring", "variant": "coupon"}
    return known | fields


def identify(message: str, user: str = "u1", **traits: Any) -> dict[str, Any]:
    return {"type": "identify", "messageId": message, "userId": user, "traits": traits}


def alias(message: str, previous: str, user: str = "u1", **fields: Any) -> dict[str, Any]:
    return {"type": "alias", "messageId": message, "userId": user, "previousId": previous} | fields


def receive(store: Store, items: Iterable[object] | bytes, now: datetime) -> ingest.Receipt:
    """Take in one batch in a transaction of its own."""
    body = items if isinstance(items, bytes) else msgspec.json.encode({"batch": list(items)})
    with store.write() as session:
        return ingest.receive(session, store.catalog(session), body, now=now)


def in_lake(store: Store, kind: str = "event") -> list[str]:
    """The message ids of the rows in the lake's listed files, in the order of reading."""
    with store.read() as session:
        paths = lake.files(session, store.lake, kind)
    return [message for path in paths for message in pq.read_table(path, partitioning=None)["message_id"].to_pylist()]


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run ``work`` in ``count`` threads; return results and errors in order."""

    def caught(number: int) -> Any:
        try:
            return work(number)
        except Exception as error:  # noqa: BLE001
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(caught, range(count)))
