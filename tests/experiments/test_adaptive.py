from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import adaptive, ingest, planner, registry, reports, rows
from experiments.adaptive import AdaptCode
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict, InvalidDocument
from experiments.planner import parse as asked
from experiments.settings import Settings
from experiments.store import Store
from tests.experiments.store_rows import METRIC, create, experiment, move

CONVERSION: dict[str, Any] = {
    "key": "bought",
    "name": "Bought",
    "kind": "conversion",
    "event": "purchase",
    "window_days": 1,
    "role": "primary",
}
DOCUMENT = experiment(
    metrics=[{"key": "bought"}], adaptive={"floor": 0.1, "wave": 0.25, "every_hours": 24, "burn_in_users": 200}
)
STEP = timedelta(days=3)


def start(store: Store, now: datetime, **changes: Any) -> None:
    create(store, Kind.metric, CONVERSION, now)
    create(store, Kind.experiment, DOCUMENT | changes, now)
    move(store, "spring", Status.running, now)


def come(store: Store, rates: dict[str, float], at: datetime, users: int = 2_000) -> Counter[str | None]:
    """Expose all users who are in the experiment; sent again, an exposure is known already."""
    r, items, seen = np.random.default_rng(users), list[ingest.AnyItem](), Counter[str | None]()
    with store.write() as session:
        catalog = store.catalog(session)
        compiled = catalog.evaluator.experiments["spring"]
        for i in range(users):
            answer, luck = compiled.assign(f"u{i}"), r.random()
            if answer.variant is None:
                continue
            seen[answer.variant] += 1
            items.append(
                ingest.Exposure(
                    message_id=f"x{i}", user_id=f"u{i}", timestamp=at, experiment="spring", variant=answer.variant
                )
            )
            if luck < rates[answer.variant]:
                items.append(ingest.Event(message_id=f"e{i}", user_id=f"u{i}", timestamp=at, event="purchase"))
        assert not ingest.store(session, catalog, list(enumerate(items)), now=at).rejected
    return seen


def newest(store: Store) -> Experiment:
    with store.read() as session:
        found: Experiment = registry.get(session, Kind.experiment, "spring")
        return found


def test_equal_documents_and_data_give_equal_shares_and_chances_are_those_of_the_wave(
    tmp_path: Path, now: datetime, any_store: Store
) -> None:
    rates = {"control": 0.3, "coupon": 0.36}
    start(any_store, now)
    come(any_store, rates, now)
    done = adaptive.update(any_store, "spring", now=now + STEP)
    assert done.code is AdaptCode.opened
    assert 0.1 <= done.shares["control"] < 0.5
    assert adaptive.update(any_store, "spring", now=now + STEP).code is AdaptCode.waiting
    come(any_store, rates, now + STEP)
    table = rows.of_experiment(any_store, "spring", now=now + 2 * STEP).table
    by_wave = dict(zip(table["stratum"].to_pylist(), table["chance.coupon"].to_pylist(), strict=True))
    assert by_wave == {"spring:1": 0.5, "spring:2": pytest.approx(done.shares["coupon"])}
    # The same again in another store: there is no dice.
    other = Store.open(Settings.in_folder(tmp_path / "other"), migrate=True)
    start(other, now)
    come(other, rates, now)
    assert adaptive.update(other, "spring", now=now + STEP).shares == done.shares
    other.close()


def test_all_that_are_due_and_only_those(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now)
    create(sqlite_store, Kind.experiment, experiment(key="plain", metrics=[{"key": "bought"}]), now)
    move(sqlite_store, "plain", Status.running, now)
    create(sqlite_store, Kind.experiment, DOCUMENT | {"key": "draft"}, now)
    assert [one.experiment for one in adaptive.update_all(sqlite_store, now=now)] == ["spring"]
    with pytest.raises(Conflict) as caught:
        adaptive.update(sqlite_store, "plain", now=now)
    assert caught.value.code == "not_adaptive"
    assert adaptive.update(sqlite_store, "draft", now=now).code is AdaptCode.not_running


def test_a_change_at_the_same_time_is_not_overwritten(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now)
    equal = {"control": 0.5, "coupon": 0.5}
    with sqlite_store.write() as session:
        registry.open_wave(session, "spring", equal, revision=2, actor="adaptive", now=now)
    with pytest.raises(Conflict) as caught, sqlite_store.write() as session:
        registry.open_wave(session, "spring", equal, revision=2, actor="adaptive", now=now)
    assert caught.value.code == "stale_revision"
    assert len(newest(sqlite_store).waves) == 2


def test_users_in_two_variants_open_nothing(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now)
    come(sqlite_store, {"control": 0.3, "coupon": 0.3}, now)
    with sqlite_store.write() as session:
        catalog = sqlite_store.catalog(session)
        inside = [f"u{i}" for i in range(2_000) if catalog.evaluator.assign("spring", f"u{i}").variant]
        items = [
            ingest.Exposure(message_id=f"{u}-{v}", user_id=u, timestamp=now, experiment="spring", variant=v)
            for u in inside[:60]
            for v in ("control", "coupon")
        ]
        ingest.store(session, catalog, list(enumerate(items)), now=now)
    done = adaptive.update(sqlite_store, "spring", now=now + STEP)
    assert (done.code, done.health) == (AdaptCode.unhealthy, ("crossovers",))
    assert len(newest(sqlite_store).waves) == 1


def test_a_ratio_cannot_be_followed(sqlite_store: Store, now: datetime) -> None:
    ratio = METRIC | {"kind": "ratio", "numerator": [{"event": "purchase"}], "denominator": [{"event": "visit"}]}
    del ratio["terms"]
    create(sqlite_store, Kind.metric, ratio | {"unit": "number"}, now)
    with pytest.raises(InvalidDocument) as caught:
        create(sqlite_store, Kind.experiment, experiment(adaptive={}), now)
    assert [problem.field for problem in caught.value.problems] == ["adaptive.metric"]


def test_forced_users_may_be_exposed_before_their_wave_opens(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now, forced={"tester": "coupon"})
    with sqlite_store.write() as session:
        catalog = sqlite_store.catalog(session)
        items = [
            ingest.Exposure(message_id="x", user_id="tester", timestamp=now, experiment="spring", variant="coupon")
        ]
        assert not ingest.store(session, catalog, list(enumerate(items)), now=now).rejected
    report = reports.make(sqlite_store, "spring", now=now + STEP).report
    assert sum(arm.assigned for arm in report.arms) == 0
    assert [finding.code for finding in report.health] == ["forced_users"]


def test_a_level_that_moves_is_no_effect(sqlite_store: Store, now: datetime) -> None:
    """Where the later waves, mostly in one variant, convert less, pooled means would call that variant worse."""
    start(sqlite_store, now, plan={"planned_users": 1_000, "method": "fixed"})
    counts = come(sqlite_store, {"control": 0.3, "coupon": 0.45}, now, users=6_000)
    assert adaptive.update(sqlite_store, "spring", now=now + STEP).shares["coupon"] > 0.85
    later = come(sqlite_store, {"control": 0.05, "coupon": 0.05}, now + STEP, users=6_000)
    report = reports.make(sqlite_store, "spring", now=now + 2 * STEP).report
    effect = report.primary().comparisons[0].absolute
    assert effect is not None
    assert report.adaptive is not None
    # A mean of 0.15 and 0 within waves; pooled, coupon's two waves are 0.2 and control's one 0.27.
    assert 0 < effect.estimate < 0.15
    assert later["coupon"] > counts["coupon"] * 2.4
    assert [wave.observed["coupon"] for wave in report.adaptive.waves] == [
        counts["coupon"],
        later["coupon"] - counts["coupon"],
    ]


def test_planning_takes_equal_shares(sqlite_store: Store, now: datetime) -> None:
    start(sqlite_store, now)
    answer = planner.answer(asked({"experiment": "spring", "lift": 0.1}), sqlite_store, now=now)
    assert [plan.segment for plan in answer.plans] == [None]


def test_without_waves_there_is_no_adaptive_part(sqlite_store: Store, now: datetime) -> None:
    create(sqlite_store, Kind.metric, CONVERSION, now)
    create(sqlite_store, Kind.experiment, experiment(metrics=[{"key": "bought"}]), now)
    move(sqlite_store, "spring", Status.running, now)
    assert reports.make(sqlite_store, "spring", now=now).report.adaptive is None
