"""A study of an experiment with adaptive shares: each user's chances are those of his wave."""

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from experiments import adaptive, ingest, rows
from experiments.adaptive import AdaptCode
from experiments.store import Store
from experiments.tables import SavedStudy
from experiments.uplift import participants, report, studies
from experiments.uplift.frame import from_table
from experiments.uplift.job import Work
from experiments.uplift.studies import StudyRequest
from tests.experiments.uplift import campaign

SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
STEP = timedelta(days=campaign.DAYS)
EFFECT, SEASON = 3.0, 25.0
ADAPTIVE = {
    "strata": [],
    "metrics": [{"key": "spend", "role": "primary"}],
    "value": None,
    "adaptive": {"floor": 0.1, "wave": 0.5, "burn_in_users": 100},
}


def come(store: Store, at: datetime, season: float) -> None:
    """Expose all who are in a wave; ``season`` is what everybody spends more, whatever he got."""
    rng = np.random.default_rng(3)
    items: list[ingest.AnyItem] = []
    with store.write() as session:
        catalog = store.catalog(session)
        for i, known in enumerate(campaign.attributes(2400)):
            variant, noise = catalog.evaluator.assign(campaign.KEY, f"u{i}").variant, rng.normal(0, 6)
            if variant is None:
                continue
            data = msgspec.Raw(msgspec.json.encode(known))
            spent = round(40 + season + EFFECT * (variant == "gift") + float(noise), 2)
            shown = ingest.Exposure(
                message_id=f"x{i}",
                user_id=f"u{i}",
                timestamp=at,
                experiment=campaign.KEY,
                variant=variant,
                attributes=data,
            )
            bought = ingest.Event(message_id=f"b{i}", user_id=f"u{i}", timestamp=at, event="buy", value=spent)
            items += [shown, bought]
        assert not ingest.store(session, catalog, list(enumerate(items)), now=at).rejected


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """Two waves; of the second, most get the gift, and all spend more for the season."""
    campaign.documents(sqlite_store, SENT, **ADAPTIVE)
    come(sqlite_store, SENT, 0.0)
    assert adaptive.update(sqlite_store, campaign.KEY, now=SENT + STEP).code is AdaptCode.opened
    come(sqlite_store, SENT + STEP, SEASON)
    return sqlite_store


def test_a_study_weighs_each_user_by_the_chances_of_his_wave(store: Store) -> None:
    now = SENT + 2 * STEP
    found = rows.of_experiment(store, campaign.KEY, now=now)
    asked = participants.question(found)
    frame = from_table(asked.table, asked.question)
    wave = np.array(asked.table["stratum"].to_pylist())
    chances = np.where(wave == f"{campaign.KEY}:1", 0.5, 0.9)
    assert asked.excluded == 0
    assert frame.propensity[:, 1] == pytest.approx(chances, abs=1e-3)
    gift = np.array(asked.table["variant"].to_pylist()) == "gift"
    naive = frame.outcome[gift].mean() - frame.outcome[~gift].mean()
    assert naive > EFFECT + 5

    study, _ = studies.ask(store, campaign.KEY, StudyRequest(learners=["t"], folds=3), now=now)
    ticks = iter(range(1000))
    Work(store, study.id, lambda: float(next(ticks))).run()
    with store.read() as session:
        done = studies.find(session, study.id, now=now)
        said = report.decode(str(session.get_one(SavedStudy, study.id).body))
    assert done.error is None
    assert said.method.propensity == "chances"
    (everyone,) = [one for one in said.policies if one.variant == "gift"]
    assert everyone.over_control.lower < EFFECT < everyone.over_control.upper
    assert everyone.over_control.upper < naive
