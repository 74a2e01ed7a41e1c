"""Does the realised gain of a policy hold the truth? Many small policies, whose users at times change rules midway."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from experiments import ingest, promises, registry, reports
from experiments.documents import Kind
from experiments.policy import Policy, PolicyStatus
from experiments.promises import Realised
from experiments.settings import Settings
from experiments.store import Store

SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
NOW = SENT + timedelta(days=10)
SHARE = 0.2
BASE = {"young": 0.20, "old": 0.10, "rest": 0.15}
LIFT = {"young": 0.04, "old": 0.05, "rest": 0.0}
TIERS = ("young", "old", "rest")
METRIC = {"key": "bought", "name": "Bought", "kind": "conversion", "event": "buy", "window_days": 7, "role": "primary"}
POLICY: dict[str, Any] = {
    "name": "Study",
    "variants": [{"key": "none"}, {"key": "call"}, {"key": "mail"}],
    "control": "none",
    "rules": [
        {"name": "young", "condition": {"tier": "young"}, "variant": "call"},
        {"name": "old", "condition": {"tier": "old"}, "variant": "mail"},
    ],
    "otherwise": "none",
    "holdback": {"share": SHARE, "weights": {"none": 0.75, "call": 0.25}},
    "metrics": [{"key": "bought"}],
    "plan": {"planned_users": 100, "method": "fixed"},
}


def run(folder: Path, policies: int, users: int, seed: int) -> list[Realised]:
    """Simulate the policies, each with its own users, and return what each report says."""
    r = np.random.default_rng(seed)
    store = Store.open(Settings.in_folder(folder), migrate=True)
    try:
        keys = [f"p{i}" for i in range(policies)]
        with store.write() as session:
            registry.create(session, Kind.metric, METRIC, actor="study", now=SENT)
            for key in keys:
                registry.create(session, Kind.policy, POLICY | {"key": key}, actor="study", now=SENT)
                registry.move_policy(session, key, PolicyStatus.running, actor="study", now=SENT)
        for key in keys:
            with store.write() as session:
                catalog = store.catalog(session)
                items = list(_facts(catalog.evaluator.experiments[key], key, users, r))
                assert not ingest.store(session, catalog, list(enumerate(items)), now=NOW).rejected
        found = []
        for key in keys:
            saved = reports.make(store, key, now=NOW, kind=Kind.policy)
            with store.read() as session:
                policy: Policy = registry.get(session, Kind.policy, key)
            found.append(promises.realised(policy, saved.report, saved.id, "CNY"))
        return found
    finally:
        store.close()


def _facts(experiment: Any, key: str, users: int, r: np.random.Generator) -> Iterator[ingest.AnyItem]:
    for i in range(users):
        user, tier = f"{key}-{i}", TIERS[r.integers(3)]
        first = _exposure(experiment, user, tier, 0)
        yield first
        if tier != "rest" and r.random() < 0.2:
            yield _exposure(experiment, user, TIERS[r.integers(3)], 1)
        lift = LIFT[tier] if first.variant == {"young": "call", "old": "mail"}.get(tier) else 0.0
        if r.random() < BASE[tier] + lift:
            at = SENT + timedelta(days=2)
            yield ingest.Event(message_id=f"{user}-b", user_id=user, timestamp=at, event="buy")


def _exposure(experiment: Any, user: str, tier: str, day: int) -> ingest.Exposure:
    found = experiment.assign(user, {"tier": tier})
    return ingest.Exposure(
        message_id=f"{user}-{day}",
        user_id=user,
        timestamp=SENT + timedelta(days=day),
        experiment=experiment.key,
        variant=found.variant,
        stratum=found.stratum,
    )


def truth() -> float:
    """The lift among the users whom the rules treat: both tiers in equal parts."""
    return (LIFT["young"] + LIFT["old"]) / (BASE["young"] + BASE["old"])
