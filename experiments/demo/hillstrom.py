"""Replays the Hillstrom e-mail campaign through the real documents, ingest, lake and analysis."""

import csv
import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from experiments import ingest
from experiments.demo import replay
from experiments.demo.replay import Item
from experiments.documents import Kind
from experiments.store import Store

EXPERIMENT = "hillstrom-email"
CUSTOMERS = 64_000
SENT_AT = datetime(2008, 3, 3, 9, tzinfo=UTC)
WINDOW = timedelta(days=14)
_DATA = Path(__file__).parent / "hillstrom.csv.gz"
_VARIANTS = {"No E-Mail": "no-email", "Mens E-Mail": "mens-email", "Womens E-Mail": "womens-email"}

DOCUMENTS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    (
        Kind.segment,
        {
            "key": "active",
            "name": "Active · 近3个月有购买",
            "kind": "lifecycle",
            "condition": {"recency": {"$lte": 3}},
        },
    ),
    (
        Kind.segment,
        {
            "key": "cooling",
            "name": "Cooling · 4–8个月未购买",
            "kind": "lifecycle",
            "condition": {"recency": {"$gte": 4, "$lte": 8}},
        },
    ),
    (
        Kind.segment,
        {
            "key": "dormant",
            "name": "Dormant · 9–12个月未购买",
            "kind": "lifecycle",
            "condition": {"recency": {"$gte": 9}},
        },
    ),
    (
        Kind.metric,
        {
            "key": "spend",
            "name": "Spend per customer · 人均消费",
            "kind": "mean",
            "terms": [{"event": "purchase"}],
            "window_days": WINDOW.days,
            "unit": "money",
        },
    ),
    (
        Kind.metric,
        {
            "key": "visit",
            "name": "Visit rate · 访问率",
            "kind": "conversion",
            "event": "visit",
            "window_days": WINDOW.days,
        },
    ),
    (
        Kind.metric,
        {
            "key": "purchase",
            "name": "Purchase rate · 购买率",
            "kind": "conversion",
            "event": "purchase",
            "window_days": WINDOW.days,
        },
    ),
    (
        Kind.experiment,
        {
            "key": EXPERIMENT,
            "name": "Which e-mail, if any? · 发哪种邮件？",
            "hypothesis": "An e-mail that shows men's or women's goods brings customers back to the shop.",
            "variants": [
                {"key": "no-email", "name": "No E-Mail"},
                {"key": "mens-email", "name": "Mens E-Mail", "tactic": {"copy": "men's merchandise"}},
                {"key": "womens-email", "name": "Womens E-Mail", "tactic": {"copy": "women's merchandise"}},
            ],
            "control": "no-email",
            "strata": [{"segment": "active"}, {"segment": "cooling"}, {"segment": "dormant"}],
            "metrics": [{"key": "spend", "role": "primary"}, {"key": "visit"}, {"key": "purchase"}],
            "plan": {"planned_users": CUSTOMERS, "method": "fixed"},
            "value": {"metric": "spend", "monthly_users": CUSTOMERS},
        },
    ),
)


def create_documents(store: Store, *, now: datetime) -> None:
    """Create and start the experiment, unless the store has it."""
    replay.create(store, DOCUMENTS, EXPERIMENT, now=now)


def send(store: Store, *, now: datetime, progress: Callable[[int], object] = lambda customers: None) -> ingest.Receipt:
    """Send every exposure, visit and purchase."""
    return replay.send(store, customers(), now=now, progress=progress)


def customers() -> Iterator[list[Item]]:
    """Return what happened to each customer, the exposure first."""
    return (list(_items(number, row)) for number, row in enumerate(_rows(), start=1))


def _rows() -> Iterator[dict[str, str]]:
    with gzip.open(_DATA, "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _items(number: int, row: dict[str, str]) -> Iterator[Item]:
    user = f"customer-{number}"
    yield {
        "type": "exposure",
        "messageId": f"hillstrom-{number}-exposure",
        "userId": user,
        "timestamp": SENT_AT,
        "experiment": EXPERIMENT,
        "variant": _VARIANTS[row["segment"]],
        "attributes": {
            "recency": int(row["recency"]),
            "history": float(row["history"]),
            "mens": int(row["mens"]),
            "womens": int(row["womens"]),
            "zip_code": row["zip_code"],
            "newbie": int(row["newbie"]),
            "channel": row["channel"],
        },
    }
    # A moment of its own for every customer, the same in every replay.
    moment = SENT_AT + WINDOW * ((number % 997) / 1000)
    common = {"type": "event", "userId": user, "timestamp": moment}
    if row["visit"] == "1":
        yield common | {"messageId": f"hillstrom-{number}-visit", "event": "visit"}
    if row["conversion"] == "1":
        yield common | {"messageId": f"hillstrom-{number}-purchase", "event": "purchase", "value": float(row["spend"])}
