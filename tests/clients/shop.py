"""Experiments of every kind, and users of every kind of id, for the clients of others."""

from collections.abc import Sequence
from typing import Any

METRIC = {"key": "visit", "name": "Visit rate", "kind": "conversion", "event": "visit", "window_days": 1}
SEGMENTS = (
    {"key": "gold", "name": "Gold", "condition": {"tier": "gold"}},
    {"key": "silver", "name": "Silver", "condition": {"tier": "silver"}},
)
LAYER = {"key": "home", "name": "Home page"}
HOLDOUT = {"key": "quiet", "name": "Left alone", "share": 0.1}

_TWO = [{"key": "a"}, {"key": "b"}]


def experiment(key: str, variants: Sequence[dict[str, Any]] = _TWO, **fields: Any) -> dict[str, Any]:
    """Return an experiment's document; the first variant is the control."""
    return {
        "key": key,
        "name": key,
        "variants": list(variants),
        "control": variants[0]["key"],
        "metrics": [{"key": METRIC["key"], "role": "primary"}],
        "plan": {"planned_users": 1000},
        **fields,
    }


TACTICS = [{"key": "plain", "tactic": {}}, {"key": "urgent", "tactic": {"copy": "错过再等一年", "offer": {"off": 10}}}]
EXPERIMENTS = (
    experiment("title"),
    experiment("copy", TACTICS),
    experiment("price", [{"key": "a", "value": 1}, {"key": "b", "value": 2.5}]),
    experiment("rows", [{"key": "a", "value": 3}, {"key": "b", "value": 4}]),
    experiment("dark", [{"key": "off", "value": False}, {"key": "on", "value": True}]),
    experiment(
        "arms",
        [{"key": "a"}, {"key": "b"}, {"key": "c"}],
        weights={"a": 0.5, "b": 0.3, "c": 0.2},
        coverage=0.6,
    ),
    experiment(
        "tiers",
        strata=[
            {"segment": "gold", "weights": {"a": 0.9, "b": 0.1}},
            {"segment": "silver", "weights": {"a": 0.3, "b": 0.7}, "coverage": 0.5},
        ],
    ),
    experiment("recall", audience={"days_since_order": {"$gt": 60}}, holdouts=["quiet"]),
    experiment("left", layer={"key": "home", "start": 0, "end": 0.5}),
    experiment("right", layer={"key": "home", "start": 0.5, "end": 1}),
    experiment("chosen", forced={"用户-0": "b", "élodie-1": "a"}, coverage=0.2),
)
RUNNING = tuple(document["key"] for document in EXPERIMENTS)
DRAFT = experiment("draft")

# What a flag's default is, and with it the flag's type.
DEFAULTS: dict[str, object] = dict.fromkeys(RUNNING, "none") | {
    "copy": {"copy": "?"},
    "price": 0.5,
    "rows": 7,
    "dark": False,
}
OFREP_REASONS = {"assigned": "SPLIT", "sticky": "SPLIT", "forced": "TARGETING_MATCH", "not_running": "DISABLED"}
_VALUES: dict[tuple[str, str], object] = {
    (document["key"], variant["key"]): variant.get("value", variant.get("tactic", variant["key"]))
    for document in EXPERIMENTS
    for variant in document["variants"]
}

_NAMES = ("用户-{}", "élodie-{}", "😀{}", "user-{}", "{}@店.example", "𠮷野 {}/?&#")


def user(number: int) -> str:
    return _NAMES[number % len(_NAMES)].format(number)


def attributes(number: int) -> dict[str, object]:
    return {"tier": ("gold", "silver", "new")[number % 3], "days_since_order": number % 120, "城市": "上海"}


def is_on_record(number: int) -> bool:
    """Whether the server knows the user's attributes, so that a client need not send them."""
    return number % 2 == 1


def known_to_app(number: int) -> dict[str, object]:
    return {} if is_on_record(number) else attributes(number)


def flags_of(number: int) -> list[str]:
    """Three flags to ask of a user, others for the next one."""
    return [RUNNING[(number + step) % len(RUNNING)] for step in (0, 4, 7)]


def value_of(flag: str, assigned: dict[str, Any]) -> object:
    """Return what an app gets that reads an experiment as a flag, by what ``POST /v1/assignments`` answered."""
    return DEFAULTS[flag] if assigned["variant"] is None else _VALUES[flag, assigned["variant"]]
