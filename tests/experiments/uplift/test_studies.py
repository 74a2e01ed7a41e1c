"""Studies on record, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from experiments import lake, registry
from experiments.documents import Kind
from experiments.errors import Conflict
from experiments.lake import Watermark
from experiments.store import Store
from experiments.tables import SavedStudy
from experiments.uplift import studies
from experiments.uplift.job import Work
from experiments.uplift.studies import StudyRequest, StudyStatus
from tests.experiments.store_rows import at_once
from tests.experiments.uplift import campaign

SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
NOW = SENT + timedelta(days=campaign.DAYS)
QUICK = StudyRequest(learners=["t"], folds=3)


def test_of_those_who_ask_at_once_one_starts_a_process(any_store: Store) -> None:
    campaign.documents(any_store, SENT)
    campaign.send(any_store, SENT, 20)
    answers = at_once(4, lambda _: studies.ask(any_store, campaign.KEY, QUICK, now=NOW))
    assert sorted(new for _, new in answers) == [False, False, False, True]
    assert len({study.id for study, _ in answers}) == 1
    others = at_once(2, lambda n: studies.ask(any_store, campaign.KEY, StudyRequest(seed=n + 2), now=NOW))
    assert [isinstance(other, Conflict) and other.code for other in others] == ["study_running"] * 2
    with any_store.read() as session:
        assert session.scalar(select(func.count()).select_from(SavedStudy)) == 1


def test_a_study_is_of_the_experiment_as_it_stood_when_the_rows_were_moved(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.documents(any_store, SENT)
    campaign.send(any_store, SENT, 20)
    sync = lake.sync

    def revised_meanwhile(*given: Any, **named: Any) -> Watermark:
        with any_store.write() as session:
            document = registry.get(session, Kind.experiment, campaign.KEY).to_json() | {"owner": "wang"}
            registry.revise(session, Kind.experiment, campaign.KEY, document, actor="test", now=NOW)
        return sync(*given, **named)

    monkeypatch.setattr(lake, "sync", revised_meanwhile)
    study, _ = studies.ask(any_store, campaign.KEY, QUICK, now=NOW)
    with any_store.read() as session:
        assert study.revision == registry.get(session, Kind.experiment, campaign.KEY).revision


def test_a_study_is_worked_on_and_kept(any_store: Store) -> None:
    campaign.documents(any_store, SENT)
    campaign.send(any_store, SENT, 1200)
    study, _ = studies.ask(any_store, campaign.KEY, QUICK, now=NOW)
    ticks = iter(range(1000))
    Work(any_store, study.id, lambda: float(next(ticks))).run()
    with any_store.read() as session:
        found = studies.find(session, study.id, now=NOW)
        row = session.get_one(SavedStudy, study.id)
    assert (found.status, found.error, found.progress) == (StudyStatus.done, None, 1.0)
    assert row.finished_at is not None
    assert row.finished_at > row.beat_at > NOW
    assert studies.scores_path(any_store.settings, study.id).stat().st_size > 1000
