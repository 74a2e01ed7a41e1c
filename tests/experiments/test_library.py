"""The library of tactics: the same tactic is found again, combined, and told apart from others."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import scipy.stats

from experiments import registry
from experiments.codes import Verdict
from experiments.documents import Kind, Status
from experiments.programme import library
from experiments.programme.library import EVERYONE, Evidence, Filter, Outcome, TacticEntry
from experiments.settings import Settings
from experiments.store import Store
from tests.web import made, many

COUPON = {"copy": "Come  back!", "offer": {"coupon": 10}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(Settings.in_folder(tmp_path), migrate=True)
    with store.write() as session:
        for kind, bodies in ((Kind.metric, (many.SPEND, made.GUARDRAIL)), (Kind.segment, made.SEGMENTS)):
            for body in bodies:
                registry.create(session, kind, body, actor="x", now=made.NOW)
    yield store
    store.close()


def _tried(store: Store, number: int, lift: float, tactic: object, verdict: Verdict = Verdict.ship) -> None:
    body = many.document(number)
    body["variants"][1]["tactic"] = tactic
    with store.write() as session:
        registry.create(session, Kind.experiment, body, actor="x", now=made.NOW)
        registry.move(session, many.key(number), Status.running, actor="x", now=made.NOW)
    made.save(store, many.made_report(number, verdict, lift, at=made.NOW - timedelta(days=number)), f"r{number}")


def _find(store: Store, **wanted: str) -> list[TacticEntry]:
    with store.read() as session:
        return library.find(session, "CNY", Filter(**wanted)).entries


def test_a_tactic_tried_once_stands_for_all_and_for_each_segment(store: Store) -> None:
    _tried(store, 1, 0.1, COUPON)
    found = {entry.segment: entry for entry in _find(store)}
    assert set(found) == {None, "new", "loyal"}
    whole = found[None]
    assert (whole.copy, whole.offer, whole.control, whole.drawn) == (
        "Come  back!",
        {"coupon": 10},
        "No message",
        "none",
    )
    assert whole.lift.estimate == pytest.approx(0.1)
    assert whole.evidence is Evidence.better
    assert whole.outcome is Outcome.advised
    assert whole.value is not None
    assert whole.value.estimate == pytest.approx(0.1 * many.BASE * 100_000)
    new = found["new"]
    assert new.drawn == "segments"
    assert new.lift.estimate == pytest.approx(0.11)
    assert new.value is not None
    assert new.value.estimate == pytest.approx(0.11 * many.BASE * 100_000 * 0.6)


def test_two_are_combined_by_precision_whatever_they_were_called(store: Store) -> None:
    _tried(store, 1, 0.1, COUPON)
    _tried(store, 2, 0.04, {"offer": {"coupon": 10}, "copy": "Come back!"})
    (whole,) = _find(store, segment=EVERYONE)
    assert whole.drawn == "two"
    assert {source.experiment for source in whole.sources} == {many.key(1), many.key(2)}
    assert whole.lift.estimate == pytest.approx(0.07)
    half = scipy.stats.norm.ppf(0.975) * many.SE / 2**0.5
    assert (whole.lift.lower, whole.lift.upper) == pytest.approx((0.07 - half, 0.07 + half))
    assert whole.users == 80_000


def test_three_that_disagree_are_less_sure_than_precision_alone(store: Store) -> None:
    for number, lift in enumerate((0.2, 0.02, -0.05)):
        _tried(store, number, lift, COUPON)
    (whole,) = _find(store, segment=EVERYONE)
    assert whole.drawn == "random"
    assert whole.lift.estimate == pytest.approx(0.17 / 3, abs=1e-9)
    fixed = 2 * scipy.stats.norm.ppf(0.975) * many.SE / 3**0.5
    assert whole.lift.upper - whole.lift.lower > 2 * fixed
    assert whole.evidence in (Evidence.unclear, Evidence.likely_better)


def test_other_tactics_controls_and_untrusted_data_stay_apart(store: Store) -> None:
    _tried(store, 1, 0.1, COUPON)
    _tried(store, 2, 0.1, COUPON | {"offer": {"coupon": 20}})
    _tried(store, 3, 0.1, None)
    _tried(store, 4, 0.1, COUPON, Verdict.invalid)
    found = _find(store, segment=EVERYONE)
    assert sorted(entry.offer["coupon"] for entry in found if entry.offer) == [10, 20]
    assert all(len(entry.sources) == 1 for entry in found)


def test_it_is_searched_and_filtered(store: Store) -> None:
    _tried(store, 1, 0.1, COUPON)
    _tried(store, 2, 0.1, {"frequency": {"touches": 2, "per": "week", "channel": "sms"}})
    assert len(_find(store)) == 6
    assert {entry.copy for entry in _find(store, text="COME back")} == {"Come  back!"}
    assert {entry.copy for entry in _find(store, kind="copy")} == {"Come  back!"}
    assert {entry.touches for entry in _find(store, kind="frequency")} == {2}
    assert {entry.channel for entry in _find(store, channel="sms")} == {"sms"}
    assert {entry.segment for entry in _find(store, segment="new")} == {"new"}
    assert {s.experiment for e in _find(store, tag=many.TAGS[1]) for s in e.sources} == {many.key(1)}
    assert _find(store, text="nothing of the kind") == []


def test_what_became_of_it(store: Store) -> None:
    _tried(store, 1, 0.1, COUPON, Verdict.keep_running)
    _tried(store, 2, -0.1, {"copy": "Other"}, Verdict.stop)
    found = {entry.copy: entry for entry in _find(store, segment=EVERYONE)}
    assert found["Come  back!"].outcome is Outcome.open
    assert found["Other"].outcome is Outcome.not_advised
    assert found["Other"].evidence is Evidence.worse
