"""What past experiments teach: from saved reports to a prior."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from experiments import priors, registry, report
from experiments.documents import Decision, Kind, Status
from experiments.errors import Conflict, NotFound
from experiments.settings import Settings
from experiments.store import Store
from experiments.tables import SavedReport
from stats import posterior
from tests.experiments.rows import build, design, measured, spec

NOW = datetime(2024, 5, 1, tzinfo=UTC)
LIFTS = (0.0, 0.04, 0.1, -0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(Settings.in_folder(tmp_path), migrate=True)
    with opened.write() as session:
        body = {"key": "m", "name": "m", "kind": "mean", "terms": [{"event": "buy"}], "window_days": 7}
        registry.create(session, Kind.metric, body, actor="test", now=NOW)
    yield opened
    opened.close()


def past(store: Store, number: int, lift: float, *, over: bool = True) -> tuple[float, float]:
    """An experiment with a report of this lift; return lift and error as the report has them."""
    key = f"e{number}"
    body = {
        "key": key,
        "name": key,
        "variants": [{"key": "c"}, {"key": "t"}],
        "control": "c",
        "metrics": [{"key": "m", "role": "primary"}],
        "plan": {"planned_users": 100},
    }
    rng = np.random.default_rng(number)
    t, c = (np.round(rng.normal(10 * (1 + effect), 2, 400), 3) for effect in (lift, 0.0))
    made = build(design(experiment=key), (spec(), measured({(None, "t"): t, (None, "c"): c})))
    with store.write() as session:
        registry.create(session, Kind.experiment, body, actor="test", now=NOW)
        registry.move(session, key, Status.running, actor="test", now=NOW)
        if over:
            registry.move(session, key, Status.stopped, actor="test", now=NOW)
            decided = Decision(variant="c", reason="enough")
            registry.move(session, key, Status.decided, actor="test", now=NOW, decision=decided)
        session.add(
            SavedReport(
                id=key,
                experiment=key,
                phase=1,
                revision=1,
                watermark=1,
                created_at=NOW,
                body=report.encode(made).decode(),
            )
        )
    se = np.sqrt(t.var(ddof=1) / 400 + c.var(ddof=1) / 400) / c.mean()
    return t.mean() / c.mean() - 1, se


def test_the_prior_is_the_empirical_one_of_the_lifts_of_all_experiments_that_are_over(store: Store) -> None:
    lifts, errors = zip(*(past(store, i, lift) for i, lift in enumerate(LIFTS)), strict=True)
    past(store, 9, 0.5, over=False)
    with store.read() as session:
        found = priors.learn(session, "m")
    oracle = posterior.empirical_prior(np.array(lifts), np.array(errors))
    assert found.effects == len(LIFTS)
    assert (found.prior.mean, found.prior.sd) == pytest.approx((oracle.mean, oracle.sd), rel=1e-6)


def test_two_effects_are_too_little_experience(store: Store) -> None:
    for i in range(2):
        past(store, i, 0.1)
    with store.read() as session, pytest.raises(Conflict, match="2 effects") as refused:
        priors.learn(session, "m")
    assert refused.value.code == "too_little_experience"


def test_an_unknown_metric_is_not_found(store: Store) -> None:
    with store.read() as session, pytest.raises(NotFound):
        priors.learn(session, "nothing")
