"""Shares that follow the evidence, through the service: documents, exposures, events, updates, reports.

    python -m tests.experiments.study_adaptive [EXPERIMENTS] [USERS]

Three variants, five waves of a fifth of the users each, floor 10 %; everybody who is let in comes and has two days.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from experiments import adaptive, ingest, registry, reports
from experiments.adaptive import AdaptCode
from experiments.documents import Experiment, Kind, Status
from experiments.report import Report
from experiments.settings import Settings
from experiments.store import Store

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
STEP = timedelta(days=3)
WAVES = 5
METRIC = {"key": "bought", "name": "Bought", "kind": "conversion", "event": "buy", "window_days": 1, "role": "primary"}
DOCUMENT: dict[str, Any] = {
    "name": "Study",
    "variants": [{"key": "a"}, {"key": "b"}, {"key": "c"}],
    "control": "a",
    "metrics": [{"key": "bought"}],
    "adaptive": {"floor": 0.1, "wave": 1 / WAVES, "burn_in_users": 100},
}


@dataclass(frozen=True)
class Found:
    """An experiment's last document and report, and what its updates said."""

    document: Experiment
    report: Report
    codes: list[AdaptCode]


def run(folder: Path, rates: dict[str, float], experiments: int, users: int, seed: int, method: str) -> list[Found]:
    """Run experiments of so many users each, whose variants convert at these rates."""
    r = np.random.default_rng(seed)
    store = Store.open(Settings.in_folder(folder), migrate=True)
    try:
        keys = [f"e{seed}-{i}" for i in range(experiments)]
        plan = {"planned_users": users - 200, "method": method}
        with store.write() as session:
            registry.create(session, Kind.metric, METRIC, actor="study", now=START)
            for key in keys:
                registry.create(session, Kind.experiment, DOCUMENT | {"key": key, "plan": plan}, actor="li", now=START)
                registry.move(session, key, Status.running, actor="li", now=START)
        codes: dict[str, list[AdaptCode]] = {key: [] for key in keys}
        seen: dict[str, set[str]] = {key: set() for key in keys}
        for wave in range(WAVES):
            at = START + wave * STEP
            items: list[ingest.AnyItem] = []
            with store.read() as session:
                catalog = store.catalog(session)
            for key in keys:
                items += _facts(catalog.evaluator.experiments[key], users, seen[key], rates, at, r)
            with store.write() as session:
                assert not ingest.store(session, catalog, list(enumerate(items)), now=at).rejected
            for done in adaptive.update_all(store, now=at + STEP):
                codes[done.experiment].append(done.code)
        found = []
        for key in keys:
            report = reports.make(store, key, now=START + WAVES * STEP).report
            with store.read() as session:
                document: Experiment = registry.get(session, Kind.experiment, key)
            found.append(Found(document, report, codes[key]))
        return found
    finally:
        store.close()


def _facts(
    experiment: Any, users: int, seen: set[str], rates: dict[str, float], at: datetime, r: np.random.Generator
) -> Iterator[ingest.AnyItem]:
    for i in range(users):
        user = f"{experiment.key}-{i}"
        answer = experiment.assign(user)
        if answer.variant is None or user in seen:
            continue
        seen.add(user)
        yield ingest.Exposure(
            message_id=f"{user}-x", user_id=user, timestamp=at, experiment=experiment.key, variant=answer.variant
        )
        if r.random() < rates[answer.variant]:
            yield ingest.Event(message_id=f"{user}-b", user_id=user, timestamp=at + timedelta(hours=2), event="buy")


def covered(found: list[Found], rates: dict[str, float]) -> dict[str, int]:
    """How many intervals hold the truth: of each variant's difference from control, and of each one's own value."""
    counts: dict[str, int] = {}
    for one in found:
        assert one.report.adaptive is not None
        for contrast in one.report.adaptive.contrasts:
            assert contrast.absolute is not None
            holds = contrast.absolute.lower <= rates[contrast.variant] - rates["a"] <= contrast.absolute.upper
            counts[f"{contrast.variant}-a"] = counts.get(f"{contrast.variant}-a", 0) + holds
        for arm in one.report.adaptive.arms:
            assert arm.value is not None
            holds = arm.value.lower <= rates[arm.variant] <= arm.value.upper
            counts[arm.variant] = counts.get(arm.variant, 0) + holds
    return counts


def share_of(found: list[Found], variant: str) -> float:
    """The share of all users who were given a variant."""
    counts = [(arm.assigned, arm.variant == variant) for one in found for arm in one.report.arms]
    return sum(n for n, mine in counts if mine) / sum(n for n, _ in counts)


def main() -> None:
    experiments, users = (int(text) for text in [*sys.argv[1:], "100", "2000"][:2])
    for name, rates in {"equal": (0.2, 0.2, 0.2), "better": (0.2, 0.22, 0.3)}.items():
        for method in ("fixed", "sequential"):
            by_variant = dict(zip("abc", rates, strict=True))
            with tempfile.TemporaryDirectory() as folder:
                found = run(Path(folder), by_variant, experiments, users, 5, method)
            false = sum(bool(c.significant) for one in found for c in one.report.adaptive.contrasts)  # type: ignore[union-attr]
            sys.stdout.write(
                f"{name} {method}: of {experiments} held {covered(found, by_variant)}, significant {false}, "
                f"on c {share_of(found, 'c'):.3f}\n"
            )


if __name__ == "__main__":
    main()
