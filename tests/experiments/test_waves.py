import numpy as np
import pytest

from experiments.bulk import REASONS, assign_bulk
from experiments.documents import Experiment, Kind, Status, parse
from experiments.errors import Conflict, InvalidDocument
from experiments.fields import BUCKETS
from experiments.lifecycle import open_wave, revise, started
from experiments.sdk.assignment import compile_experiment
from experiments.waves import widths
from tests.experiments.store_rows import experiment

ADAPTIVE = {"floor": 0.1, "wave": 0.25, "every_hours": 24, "burn_in_users": 100}


def document(now, waves: int = 0, **changes) -> Experiment:
    found = parse(Kind.experiment, experiment(adaptive=ADAPTIVE, **changes))
    if waves:
        found = started(found.model_copy(update={"status": Status.running, "salt": "spring:1"}), now)
    for share in (0.2, 0.9, 0.5)[: max(waves - 1, 0)]:
        found = open_wave(found, {"control": 1 - share, "coupon": share}, now)
    return found


@pytest.mark.parametrize("buckets", [10, 101, 1_000, 3_333])
@pytest.mark.parametrize("shares", [(0.9, 0.05, 0.05), (1 / 3, 1 / 3, 1 / 3), (0.84, 0.1, 0.06), (0.5, 0.45, 0.05)])
def test_widths_are_whole_buckets_that_keep_the_floor(buckets: int, shares: tuple[float, ...]) -> None:
    floor = 0.05
    found = widths(dict(zip("abc", shares, strict=True)), floor, buckets)
    whole = [round(width * BUCKETS) for width in found.values()]
    assert sum(whole) == buckets
    assert min(whole) >= floor * buckets - 1e-9
    assert all(abs(n - share * buckets) < 2 for n, share in zip(whole, shares, strict=True))


def test_a_new_wave_moves_nobody_and_bulk_and_one_by_one_agree(now) -> None:
    users = [f"u{i}" for i in range(20_000)]
    before: dict[str, str] = {}
    for waves in (1, 2, 3, 4):
        found = document(now, waves)
        compiled = compile_experiment(found.to_json())
        single = {user: compiled.assign(user) for user in users}
        given = {user: one.variant for user, one in single.items() if one.variant is not None}
        assert before.items() <= given.items()
        assert len(given) / len(users) == pytest.approx(waves / 4, abs=0.015)
        bulk = assign_bulk(compiled, np.array(users))
        names = [None if i < 0 else compiled.waves[i].segment for i in bulk.stratum]
        assert [one.stratum for one in single.values()] == names
        assert [one.reason for one in single.values()] == [REASONS[i] for i in bulk.reason]
        assert names == [compiled.wave(user) for user in users]
        before = given
    shares = found.shares()
    assert list(shares) == ["spring:1", "spring:2", "spring:3", "spring:4"]
    for wave, share in shares.items():
        inside = [one.variant for one in single.values() if one.stratum == wave]
        assert inside.count("coupon") / len(inside) == pytest.approx(share["coupon"], abs=0.025)
    with pytest.raises(Conflict) as caught:
        open_wave(found, {"control": 0.5, "coupon": 0.5}, now)
    assert caught.value.code == "waves_complete"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weights": {"control": 0.5, "coupon": 0.5}}, "weights"),
        ({"coverage": 0.5}, "coverage"),
        ({"strata": [{"segment": "gold"}]}, "strata"),
        ({"adaptive": ADAPTIVE | {"metric": "other"}}, "adaptive.metric"),
        ({"adaptive": ADAPTIVE | {"wave": 0.0003, "floor": 0.4}}, "adaptive.floor"),
        ({"plan": {"planned_users": 10, "method": "bayes"}}, "plan.method"),
        ({"adaptive": ADAPTIVE | {"floor": 0.0}}, "adaptive.floor"),
        ({"adaptive": None, "waves": [{"opened_at": "2026-03-02T00:00:00Z", "widths": {"control": 0.1}}]}, "waves"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict, field: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse(Kind.experiment, experiment(adaptive=ADAPTIVE) | changes)
    assert field in [problem.field for problem in caught.value.problems]


def test_waves_are_kept_by_the_server_and_adaptive_is_fixed_after_the_start(now) -> None:
    found = document(now, 2)
    body = found.to_json()
    for field, value in (("waves", []), ("adaptive", ADAPTIVE | {"floor": 0.2})):
        with pytest.raises(InvalidDocument) as caught:
            revise(found, parse(Kind.experiment, body | {"waves": body["waves"], field: value}))
        assert field in [problem.field for problem in caught.value.problems]
    del body["waves"]
    assert revise(found, parse(Kind.experiment, body | {"name": "New"})).waves == found.waves
    with pytest.raises(Conflict) as caught_conflict:
        open_wave(found.model_copy(update={"status": Status.paused}), {"control": 0.5, "coupon": 0.5}, now)
    assert caught_conflict.value.code == "not_running"
