"""A small shop in a store: documents, customers in segments, purchases; what the tests of reports and files share."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from experiments import ingest, registry
from experiments.documents import Kind, Status
from experiments.settings import Settings
from experiments.store import Store

NOW = datetime(2024, 5, 20, 8, tzinfo=UTC)
SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
KEY = "mail"
METRICS: tuple[dict[str, Any], ...] = (
    {"key": "spend", "name": "Spend", "kind": "mean", "terms": [{"event": "buy"}], "unit": "money"},
    {"key": "bought", "name": "Bought", "kind": "conversion", "event": "buy"},
    {
        "key": "basket",
        "name": "Basket",
        "kind": "ratio",
        "numerator": [{"event": "buy"}],
        "denominator": [{"event": "visit", "aggregate": "count"}],
    },
)
EXPERIMENT: dict[str, Any] = {
    "key": KEY,
    "name": "Mail · 邮件",
    "variants": [{"key": "none"}, {"key": "letter", "name": "Letter"}],
    "control": "none",
    "strata": [{"segment": "new"}, {"segment": "old", "weights": {"none": 0.8, "letter": 0.2}}],
    "metrics": [{"key": "spend", "role": "primary"}, {"key": "bought"}, {"key": "basket"}],
    "plan": {"planned_users": 200, "method": "fixed"},
    "value": {"metric": "spend", "monthly_users": 1000},
}


def open_shop(folder: Path, *, start: bool = True, timezone: str = "UTC") -> Store:
    store = Store.open(Settings.in_folder(folder, timezone=timezone), migrate=True)
    with store.write() as session:
        for key, rule in (("new", {"age": {"$lt": 30}}), ("old", {"age": {"$gte": 30}})):
            body = {"key": key, "name": key.upper(), "condition": rule}
            registry.create(session, Kind.segment, body, actor="test", now=SENT)
        for metric in METRICS:
            registry.create(session, Kind.metric, {"window_days": 7, **metric}, actor="test", now=SENT)
        registry.create(session, Kind.experiment, EXPERIMENT, actor="test", now=SENT)
        if start:
            registry.move(session, KEY, Status.running, actor="test", now=SENT)
    return store


class Customer(msgspec.Struct, frozen=True):
    """One row of the shop's own table."""

    user: str
    variant: str
    segment: str
    visits: int
    spends: list[float]


def customers(count: int, *, seed: int = 1, first: int = 0) -> list[Customer]:
    r = np.random.default_rng(seed)
    result = []
    for number in range(first, first + count):
        segment = "new" if r.random() < 0.5 else "old"
        variant = "letter" if r.random() < (0.5 if segment == "new" else 0.2) else "none"
        buys = int(r.poisson(0.8 if variant == "letter" else 0.5))
        spends = [round(float(value), 2) for value in r.lognormal(3, 1, buys)]
        result.append(Customer(f"user-{number}", variant, segment, buys + int(r.integers(1, 4)), spends))
    return result


def send(store: Store, people: Sequence[Customer], *, now: datetime = NOW, sent: datetime = SENT) -> None:
    body = msgspec.json.encode({"batch": list(_items(people, sent))})
    with store.write() as session:
        receipt = ingest.receive(session, store.catalog(session), body, now=now)
    assert not receipt.rejected


def _items(people: Sequence[Customer], sent: datetime) -> Iterator[dict[str, Any]]:
    for who in people:
        common = {"userId": who.user, "timestamp": sent}
        yield common | {
            "type": "exposure",
            "messageId": f"{who.user}-exposure-{sent.isoformat()}",
            "experiment": KEY,
            "variant": who.variant,
            "attributes": {"age": 20 if who.segment == "new" else 40},
        }
        event = common | {"type": "event", "timestamp": sent + timedelta(days=1)}
        for number in range(who.visits):
            yield event | {"messageId": f"{who.user}-visit-{number}-{sent.isoformat()}", "event": "visit"}
        for number, spend in enumerate(who.spends):
            yield event | {"messageId": f"{who.user}-buy-{number}-{sent.isoformat()}", "event": "buy", "value": spend}


def write_csv(path: Path, people: Sequence[Customer]) -> Path:
    """The same customers as a file of one row each."""
    lines = ["user,variant,segment,visits,bought,spend"]
    lines += [
        f"{p.user},{p.variant},{p.segment},{p.visits},{int(bool(p.spends))},{round(sum(p.spends), 2)}" for p in people
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
