"""A campaign with known effects in a store: a gift helps in one city and hurts elsewhere."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from experiments import ingest, registry
from experiments.documents import Kind, Status
from experiments.store import Store

KEY = "gift"
HELPED, HURT, MARGIN, COST = 6.0, -3.0, 0.5, 0.2
DAYS = 9
METRICS: tuple[dict[str, Any], ...] = (
    {"key": "spend", "name": "Spend", "kind": "mean", "terms": [{"event": "buy"}], "unit": "money", "window_days": 7},
    {"key": "left", "name": "Left", "kind": "conversion", "event": "leave", "window_days": 7, "direction": "down"},
    {"key": "basket", "name": "Basket", "kind": "ratio", "numerator": [{"event": "buy"}],
     "denominator": [{"event": "visit", "aggregate": "count"}], "window_days": 7},
)  # fmt: skip
EXPERIMENT: dict[str, Any] = {
    "key": KEY,
    "name": "Gift 礼物",
    "variants": [{"key": "hold"}, {"key": "gift", "costs": {"per_user": str(COST)}}],
    "control": "hold",
    "strata": [
        {"segment": "members", "weights": {"hold": 0.3, "gift": 0.7}},
        {"segment": "others", "weights": {"hold": 0.6, "gift": 0.4}},
    ],
    "metrics": [{"key": "spend", "role": "primary"}, {"key": "left"}, {"key": "basket"}],
    "plan": {"planned_users": 200, "method": "fixed"},
    "value": {"metric": "spend", "margin": MARGIN, "monthly_users": 1000},
}


def documents(store: Store, now: datetime, **changes: Any) -> None:
    """Create and start the experiment."""
    with store.write() as session:
        for key, member in (("members", True), ("others", False)):
            body = {"key": key, "name": key, "condition": {"member": member}}
            registry.create(session, Kind.segment, body, actor="test", now=now)
        for metric in METRICS:
            registry.create(session, Kind.metric, metric, actor="test", now=now)
        registry.create(session, Kind.experiment, EXPERIMENT | changes, actor="test", now=now)
        registry.move(session, KEY, Status.running, actor="test", now=now)


def attributes(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """What is known of each user: his city (not of all), age, membership, tags, and a number that is his alone."""
    rng = np.random.default_rng(seed)
    city = rng.choice(["north", "south", "west"], count, p=[0.4, 0.4, 0.2])
    age, member, vip = rng.integers(18, 70, count), rng.random(count) < 0.3, rng.random(count) < 0.5
    hidden = rng.random(count) < 0.05
    return [
        ({} if hidden[i] else {"city": str(city[i])})
        | {
            "age": int(age[i]),
            "member": bool(member[i]),
            "card": f"c{i}",
            "site": "shop",
            "tags": ["vip"] * int(vip[i]),
        }
        for i in range(count)
    ]


def send(store: Store, now: datetime, count: int, seed: int = 1, by: str = "city") -> None:
    """Send users exposed ``now``, and what they bought a day later. The gift helps whom ``by`` names."""
    rng = np.random.default_rng(seed + 100)
    items: list[ingest.AnyItem] = []
    for i, known in enumerate(attributes(count, seed)):
        given = rng.random() < (0.7 if known["member"] else 0.4)
        helped = known.get("city") == "north" if by == "city" else "vip" in known["tags"]
        spent = 30 + 0.1 * known["age"] + 5 * known["member"] + given * (HELPED if helped else HURT) + rng.normal(0, 6)
        user, variant = f"u{i}", "gift" if given else "hold"
        items += [
            ingest.Exposure(
                message_id=f"x{i}",
                user_id=user,
                timestamp=now,
                experiment=KEY,
                variant=variant,
                attributes=msgspec.Raw(msgspec.json.encode(known)),
            ),
            ingest.Event(
                message_id=f"b{i}",
                user_id=user,
                timestamp=now + timedelta(days=1),
                event="buy",
                value=round(max(spent, 0.0), 2),
            ),
        ]
        if rng.random() < 0.3:
            items.append(
                ingest.Event(message_id=f"l{i}", user_id=user, timestamp=now + timedelta(days=1), event="leave")
            )
    with store.write() as session:
        receipt = ingest.store(session, store.catalog(session), list(enumerate(items)), now=now + timedelta(days=2))
    assert not receipt.rejected
