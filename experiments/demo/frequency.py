"""A simulated test of touch frequency with known truth: none, one, two or four text messages a week to members.

Messages sell ever less and cost as much each, so net value peaks in between; every message may make a member leave.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from experiments import ingest
from experiments.demo import replay
from experiments.demo.replay import Item
from experiments.documents import Kind
from experiments.store import Store
from stats import simulation
from stats.simulation import Columns, Scenario, Segment, Variant

EXPERIMENT = "sms-frequency"
CUSTOMERS = 20_000
SEED = 20250901
START = datetime(2025, 9, 1, tzinfo=UTC)
WINDOW_DAYS = 14
MARGIN = 0.3
COST = 0.15
SCENARIO = Scenario(
    variants=tuple(Variant(f"sms-{touches}", touches=touches) for touches in (0, 1, 2, 4)),
    segments=(Segment("silver", 0.7, 0.08, 0.5), Segment("gold", 0.3, 0.16, 0.8)),
    price=60.0,
    days=28,
    window=float(WINDOW_DAYS),
    touch_gain=1.0,
    touch_half=1.5,
    unsubscribe=0.008,
)

_NAMES = {0: "No message · 不发", 1: "1 a week · 每周1条", 2: "2 a week · 每周2条", 4: "4 a week · 每周4条"}
DOCUMENTS: tuple[tuple[Kind, dict[str, Any]], ...] = (
    (
        Kind.segment,
        {"key": "silver", "name": "Silver · 银卡", "kind": "tier", "condition": {"level": "silver"}},
    ),
    (Kind.segment, {"key": "gold", "name": "Gold · 金卡", "kind": "tier", "condition": {"level": "gold"}}),
    (
        Kind.metric,
        {
            "key": "net-value",
            "name": "Net value per member · 人均净值",
            "kind": "mean",
            "terms": [{"event": "order", "weight": MARGIN}, {"event": "message", "weight": -COST}],
            "window_days": WINDOW_DAYS,
            "lookback_days": 28,
            "unit": "money",
        },
    ),
    (
        Kind.metric,
        {
            "key": "order-rate",
            "name": "Order rate · 下单率",
            "kind": "conversion",
            "event": "order",
            "window_days": WINDOW_DAYS,
        },
    ),
    (
        Kind.metric,
        {
            "key": "first-order",
            "name": "Days to the first order · 首单天数",
            "kind": "time_to_event",
            "event": "order",
            "window_days": WINDOW_DAYS,
        },
    ),
    (
        Kind.metric,
        {
            "key": "leaving",
            "name": "Unsubscribe rate · 退订率",
            "kind": "conversion",
            "event": "unsubscribe",
            "window_days": WINDOW_DAYS,
            "direction": "down",
            "role": "guardrail",
            "margin": 0.025,
        },
    ),
    (
        Kind.experiment,
        {
            "key": EXPERIMENT,
            "name": "How many text messages a week? · 每周发几条短信？ (simulated)",
            "hypothesis": "A message or two a week sell more than they cost; four drive members away.",
            "variants": [
                {
                    "key": variant.name,
                    "name": _NAMES[variant.touches],
                    "tactic": {"frequency": {"touches": variant.touches, "per": "week", "channel": "sms"}},
                }
                for variant in SCENARIO.variants
            ],
            "control": SCENARIO.variants[0].name,
            "strata": [{"segment": "silver"}, {"segment": "gold"}],
            "metrics": [
                {"key": "net-value", "role": "primary"},
                {"key": "order-rate"},
                {"key": "first-order"},
                {"key": "leaving"},
            ],
            "plan": {"planned_users": CUSTOMERS, "method": "group_sequential", "looks": [0.5, 0.75, 1]},
            "value": {"metric": "net-value", "monthly_users": CUSTOMERS},
        },
    ),
)


def create_documents(store: Store, *, now: datetime) -> None:
    """Create and start the experiment, unless the store has it."""
    replay.create(store, DOCUMENTS, EXPERIMENT, now=now)


def send(store: Store, *, now: datetime, progress: Callable[[int], object] = lambda members: None) -> ingest.Receipt:
    """Send every exposure, message, order and leave."""
    columns = simulation.sample(SCENARIO, CUSTOMERS, np.random.default_rng(SEED))
    members = (list(_items(columns, number)) for number in range(CUSTOMERS))
    return replay.send(store, members, now=now, progress=progress)


def _items(columns: Columns, number: int) -> Iterator[Item]:
    member = f"member-{number}"
    variant = SCENARIO.variants[int(columns["variant"][number])]
    exposed = START + timedelta(days=int(columns["day"][number]), hours=number % 24)
    yield {
        "type": "exposure",
        "messageId": f"{member}-exposure",
        "userId": member,
        "timestamp": exposed,
        "experiment": EXPERIMENT,
        "variant": variant.name,
        "attributes": {"level": SCENARIO.segments[int(columns["segment"][number])].name},
    }

    def event(name: str, number_of: str, days: float, value: float | None = None) -> Item:
        happened: dict[str, object] = {
            "type": "event",
            "messageId": f"{member}-{number_of}",
            "userId": member,
            "event": name,
            "timestamp": exposed + timedelta(days=days),
        }
        return happened if value is None else happened | {"value": round(value, 2)}

    if variant.touches:
        yield event("message", "messages", 0.1, variant.touches * WINDOW_DAYS / 7)
    # What one of several orders was worth is not drawn apart: they share their sum.
    for column, days in (("revenue", _moment(columns, number)), ("revenue_before", -1 - number % 27)):
        if columns[column][number] > 0:
            yield event("order", column, days, float(columns[column][number]))
    if columns["unsubscribed"][number]:
        yield event("unsubscribe", "leave", 1 + number % (WINDOW_DAYS - 1))


def _moment(columns: Columns, number: int) -> float:
    """Days from arrival to the order; where the simulation ended before it, somewhere in the rest of the window."""
    if columns["happened"][number]:
        return float(min(columns["duration"][number], WINDOW_DAYS - 0.01))
    left = WINDOW_DAYS - float(columns["duration"][number])
    return float(columns["duration"][number]) + max(left, 0.0) * (number % 97) / 100
