import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from sqlalchemy import func, select

from experiments import ingest, lake, registry, report, reports
from experiments.codes import HealthCode
from experiments.documents import Kind, Status
from experiments.errors import Conflict, NotFound
from experiments.ingest import Alias
from experiments.report import Finding
from experiments.store import Store
from experiments.tables import SavedReport
from tests.experiments import shop
from tests.experiments.rows import assert_finite, assert_sound
from tests.experiments.shop import EXPERIMENT, KEY, NOW, SENT, customers, send


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = shop.open_shop(tmp_path)
    yield opened
    opened.close()


def mark(store: Store) -> int:
    with store.read() as session:
        found = lake.watermark(session)
    assert found is not None
    return found.batch


def test_a_report_equals_numpy_on_the_shop_s_own_table(store: Store) -> None:
    people = customers(400)
    send(store, people)
    made = reports.make(store, KEY, now=NOW)
    assert_sound(made.body)
    assert_finite(json.loads(made.body))
    spend, bought, basket = made.report.metrics
    for variant in ("none", "letter"):
        for segment in (None, "new", "old"):
            mine = [p for p in people if p.variant == variant and segment in (None, p.segment)]
            found = [
                next((arm.n, arm.mean) for arm in metric.arms if (arm.variant, arm.segment) == (variant, segment))
                for metric in (spend, bought, basket)
            ]
            sums = np.array([sum(p.spends) for p in mine])
            visits = np.array([p.visits for p in mine])
            assert found == [
                (len(mine), pytest.approx(sums.mean())),
                (len(mine), pytest.approx(np.mean([bool(p.spends) for p in mine]))),
                (len(mine), pytest.approx(sums.sum() / visits.sum())),
            ]
    assert made.report.method.stratified
    assert (made.report.watermark, made.report.as_of) == (1, NOW.isoformat())


def test_people_with_several_ids_are_reported_as_one_each(store: Store) -> None:
    """The same shop where a third of the people did everything, from the exposure on, under their device's id."""
    people = customers(300)
    devices = {p.user: f"device of {p.user}" for p in people[::3]}
    send(store, [structs.replace(p, user=devices.get(p.user, p.user)) for p in people])
    other = {"none": "letter", "letter": "none"}
    again = people[:30:3]
    later = [structs.replace(p, variant=other[p.variant], visits=0, spends=[]) for p in again]
    send(store, later, sent=SENT + timedelta(hours=1))
    before = reports.make(store, KEY, now=NOW)
    with store.write() as session:
        links = [(i, Alias(f"a{i}", user, previous_id=device)) for i, (user, device) in enumerate(devices.items())]
        ingest.store(session, store.catalog(session), links, now=NOW)
    made = reports.make(store, KEY, now=NOW)
    assert Finding(HealthCode.identity_crossovers, 10, 300, fatal=False) in made.report.health
    assert sum(arm.exposed for arm in before.report.arms) == 310
    assert reports.make(store, KEY, now=NOW, watermark=before.report.watermark).id == before.id
    plain = shop.open_shop(store.settings.folder / "plain")
    try:
        send(plain, people)
        expected = reports.make(plain, KEY, now=NOW).report
    finally:
        plain.close()
    health = [finding for finding in made.report.health if finding.code != HealthCode.identity_crossovers]
    assert structs.replace(made.report, health=health, watermark=expected.watermark) == expected


def test_the_same_inputs_give_the_same_name_and_bytes(store: Store) -> None:
    send(store, customers(100))
    first = reports.make(store, KEY, now=NOW)
    again = reports.make(store, KEY, now=NOW + timedelta(days=1), watermark=mark(store))
    assert (again.id, again.body, again.created_at) == (first.id, first.body, NOW)


def test_an_earlier_watermark_gives_the_earlier_bytes_after_more_data_and_compaction(tmp_path: Path) -> None:
    store = shop.open_shop(tmp_path / "one")
    send(store, customers(100))
    first = reports.make(store, KEY, now=NOW)
    for part in range(1, lake.COMPACT_FILES + 1):
        # Late purchases of the first customers come along with new ones.
        send(store, customers(20, seed=part + 1, first=100 * part - 10), sent=SENT + timedelta(hours=part))
        lake.sync(store.engine, store.lake, now=NOW + timedelta(hours=part))
    later = reports.make(store, KEY, now=NOW + timedelta(days=30))
    assert later.report.metrics[0].matured > first.report.metrics[0].matured
    with store.write() as session:
        for row in session.scalars(select(SavedReport)):
            session.delete(row)
    assert reports.make(store, KEY, now=NOW, watermark=1).body == first.body
    with store.write() as session:
        for row in session.scalars(select(SavedReport)):
            session.delete(row)
    assert lake.compact(store.engine, store.lake, now=NOW + timedelta(days=30)) > lake.COMPACT_FILES
    assert reports.make(store, KEY, now=NOW, watermark=1).body == first.body
    assert reports.make(store, KEY, now=NOW, watermark=later.report.watermark).body == later.body
    store.close()


def test_changed_documents_give_another_report_at_the_same_watermark(store: Store) -> None:
    send(store, customers(100))
    first = reports.make(store, KEY, now=NOW)
    with store.write() as session:
        body = registry.get(session, Kind.metric, "spend").to_json() | {"cap": 10}
        registry.revise(session, Kind.metric, "spend", body, actor="test", now=NOW)
    second = reports.make(store, KEY, now=NOW, watermark=1)
    assert second.id != first.id
    assert second.report.metric_revisions == first.report.metric_revisions | {"spend": 2}
    means = [made.report.metrics[0].arms[0].mean for made in (first, second)]
    assert means[1] < means[0]


def test_a_new_phase_is_analysed_alone(store: Store) -> None:
    send(store, customers(100))
    first = reports.make(store, KEY, now=NOW)
    with store.write() as session:
        body = registry.get(session, Kind.experiment, KEY).to_json()
        body["strata"][1]["weights"] = {"none": 0.5, "letter": 0.5}
        assert registry.revise(session, Kind.experiment, KEY, body, actor="test", now=NOW).phase == 2
    send(store, customers(60, seed=2, first=50), now=NOW, sent=SENT + timedelta(days=3))
    second = reports.make(store, KEY, now=NOW + timedelta(days=1))
    assert (first.report.phase, second.report.phase) == (1, 2)
    assert sum(arm.assigned for arm in first.report.arms) == 100
    assert sum(arm.assigned for arm in second.report.arms) == 60
    assert not second.report.method.stratified
    with store.read() as session:
        found = reports.latest(session, KEY)
        assert found is not None
        assert found.id == second.id
        assert [entry.id for entry in reports.listing(session, KEY)] == [second.id, first.id]
        assert reports.find(session, first.id).body == first.body


def test_a_report_without_data_is_sound(store: Store) -> None:
    made = reports.make(store, KEY, now=NOW)
    assert_sound(made.body)
    assert made.report.decision.verdict == "keep_running"


def test_a_draft_is_not_analysed(tmp_path: Path) -> None:
    store = shop.open_shop(tmp_path / "draft", start=False)
    with pytest.raises(Conflict) as refused:
        reports.make(store, KEY, now=NOW)
    assert refused.value.code == "not_started"
    store.close()


def test_a_stopped_experiment_is_still_analysed(store: Store) -> None:
    send(store, customers(100))
    with store.write() as session:
        registry.move(session, KEY, Status.stopped, actor="test", now=NOW)
    assert sum(arm.matured for arm in reports.make(store, KEY, now=NOW).report.arms) == 100


def test_what_does_not_exist_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        reports.make(store, "nothing", now=NOW)
    with pytest.raises(NotFound):
        reports.make(store, KEY, now=NOW, watermark=99)
    with store.read() as session:
        with pytest.raises(NotFound):
            reports.find(session, "nothing")
        assert reports.latest(session, KEY) is None
        assert reports.listing(session, KEY) == []


def test_processes_at_once_save_one_report_and_answer_the_same_bytes(store: Store) -> None:
    send(store, customers(100))
    lake.sync(store.engine, store.lake, now=NOW)
    stores = [store, *(Store.open(store.settings) for _ in range(3))]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda each: reports.make(each, KEY, now=NOW, watermark=1), stores))
    assert len({(each.id, each.body) for each in made}) == 1
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(SavedReport)) == 1
    for each in stores[1:]:
        each.close()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_the_days_of_the_timeline_are_those_of_the_store(tmp_path: Path, zone: str) -> None:
    store = shop.open_shop(tmp_path / "zone", timezone=zone)
    evening = SENT.replace(hour=20)
    for day in range(2):
        send(store, customers(60, seed=day, first=60 * day), sent=evening + timedelta(days=day))
    days = [point.day for point in reports.make(store, KEY, now=NOW).report.metrics[0].timeline]
    first = (evening + timedelta(hours=8 if zone == "Asia/Shanghai" else 0, days=7)).date()
    assert days == [str(first), str(first + timedelta(days=1))]
    store.close()


def test_the_design_honours_what_the_documents_leave_out(store: Store) -> None:
    """Strata without weights take the experiment's; variants without a name go by their key."""
    with store.read() as session:
        experiment = registry.get(session, Kind.experiment, KEY)
    plan = reports.design_of(experiment, [], {"new": "New"}, store.settings)
    assert plan.shares == {"new": {"none": 0.5, "letter": 0.5}, "old": {"none": 0.8, "letter": 0.2}}
    assert plan.variants == {"none": "none", "letter": "Letter"}
    assert plan.segments == {"new": "New", "old": "old"}
    assert plan.value is not None
    assert plan.value.costs == {"none": 0.0, "letter": 0.0}
    assert EXPERIMENT["plan"]["planned_users"] == plan.planned_users


def test_equal_reports_give_equal_bytes_after_decoding(store: Store) -> None:
    send(store, customers(50))
    made = reports.make(store, KEY, now=NOW)
    assert report.encode(report.decode(made.body)) == made.body
