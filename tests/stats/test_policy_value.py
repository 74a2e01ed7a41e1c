import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.arms import means
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.policy_value import (
    Estimate,
    best_constant,
    best_elsewhere,
    by_group,
    constant_elsewhere,
    constant_values,
    doubly_robust,
    folds,
    gain,
    gap,
    net,
    snipw,
    value,
)
from stats.winner import corrected
from tests.stats.reference import hillstrom

EXACT = Estimate(0.0, 0.0, 0.0, 0.0, 1.0)
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=60)


def experiment(seed: int, n: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, arms of two strata with other shares, their probabilities, outcomes."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    e = np.where((x > 0.5)[:, None], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6])
    arm = (rng.random(n)[:, None] > np.cumsum(e, axis=1)[:, :2]).sum(axis=1)
    return x, arm, e, x + arm * (x - 0.4) + rng.normal(0, 0.5, n)


def model(x: np.ndarray) -> np.ndarray:
    """Predictions that are wrong, and know no outcome."""
    return np.column_stack([0.8 * x, 1.5 * x - 0.3, 2 * x])


def test_scores_by_hand() -> None:
    scores = doubly_robust(
        np.array([3.0, 5.0]), np.array([0, 1]), np.array([[0.5, 0.5], [0.8, 0.2]]), np.array([[1.0, 2.0], [4.0, 4.5]])
    )
    assert scores == pytest.approx(np.array([[1 + 2 / 0.5, 2], [4, 4.5 + 0.5 / 0.2]]))
    assert net(scores, [0.0, 1.0]) == pytest.approx(scores - [0, 1])


def test_a_constant_policy_without_predictions_is_the_mean_of_its_arm() -> None:
    arms = np.repeat([0, 1, 2], [300, 500, 200])
    outcome = np.random.default_rng(1).exponential(5, 1000)
    shares = np.tile([0.3, 0.5, 0.2], (1000, 1))
    scores = doubly_robust(outcome, arms, shares, np.zeros((1000, 3)))
    for k, found in enumerate(constant_values(scores)):
        assert found.estimate == pytest.approx(outcome[arms == k].mean())
        assert found.se == pytest.approx(scipy.stats.sem(scores[:, k]))
        half = scipy.stats.t.isf(0.025, 999) * found.se
        assert (found.lower, found.upper) == pytest.approx((found.estimate - half, found.estimate + half))
        assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(found.estimate / found.se, 999))


def test_own_means_as_predictions_give_the_difference_of_means_and_welchs_error() -> None:
    """Hillstrom's visits: 0.182757, 0.151400, 0.106167 published (scikit-uplift), differences as `stats.effects`."""
    moments = hillstrom()
    parts = [(round(m.mean[0] * m.n), m.n) for m in moments]
    arm = np.repeat([0, 1, 2], [n for _, n in parts])
    outcome = np.concatenate([np.repeat([1.0, 0.0], [hits, n - hits]) for hits, n in parts])
    n = arm.size
    e = np.tile([each / n for _, each in parts], (n, 1))
    scores = doubly_robust(outcome, arm, e, np.tile([hits / each for hits, each in parts], (n, 1)))
    assert [round(found.estimate, 6) for found in constant_values(scores)] == [0.106167, 0.182757, 0.1514]
    for k in (1, 2):
        welch = difference(means(moments, 0), k, 0, Fixed(0.05))
        found = gain(scores, np.full(n, k), np.zeros(n, dtype=np.int64))
        assert found.estimate == pytest.approx(welch.estimate, rel=1e-9)
        assert found.se == pytest.approx(welch.se, rel=1e-4)
    best = best_constant(scores)
    assert best.arm == 1
    assert best.corrected.lower == pytest.approx(best.naive.lower, abs=1e-4)


def test_gain_is_paired_and_antisymmetric() -> None:
    x, arm, e, y = experiment(2)
    scores = doubly_robust(y, arm, e, model(x))
    policy, baseline = np.where(x > 0.4, 2, 0), np.ones(x.size, dtype=np.int64)
    found, back = gain(scores, policy, baseline), gain(scores, baseline, policy)
    difference_of_values = value(scores, policy).estimate - value(scores, baseline).estimate
    assert found.estimate == pytest.approx(difference_of_values) == pytest.approx(-back.estimate)
    assert (found.lower, found.upper) == pytest.approx((-back.upper, -back.lower))
    paired = scipy.stats.ttest_rel(scores[np.arange(x.size), policy], scores[:, 1])
    assert (found.p_value, found.lower) == pytest.approx((paired.pvalue, paired.confidence_interval(0.95).low))
    assert gain(scores, policy, policy) == EXACT


@lawful
@given(st.integers(0, 1000), st.floats(-100, 100), st.floats(0.01, 100), st.permutations(range(3)))
def test_shift_scale_order_and_names_of_arms(seed: int, shift: float, scale: float, names: list[int]) -> None:
    x, arm, e, y = experiment(seed, 120)
    predictions, policy, baseline = model(x), np.where(x > 0.4, 2, 0), np.where(x > 0.7, 1, 0)
    scores = doubly_robust(y, arm, e, predictions)
    base, gained = value(scores, policy), gain(scores, policy, baseline)
    moved = doubly_robust(scale * (y + shift), arm, e, scale * (predictions + shift))
    order, new = np.random.default_rng(seed).permutation(x.size), np.array(names)
    old = np.argsort(new)
    renamed = moved[order][:, old]
    found, found_gain = value(renamed, new[policy][order]), gain(renamed, new[policy][order], new[baseline][order])
    assert found.estimate == pytest.approx(scale * (base.estimate + shift), rel=1e-9, abs=1e-8 * scale)
    assert found.se == pytest.approx(scale * base.se, rel=1e-6)
    assert found_gain.estimate == pytest.approx(scale * gained.estimate, rel=1e-7, abs=1e-8 * scale)
    assert found_gain.p_value == pytest.approx(gained.p_value, rel=1e-4, abs=1e-12)
    weighed = snipw(scale * (y + shift), arm, e, policy)
    plain = snipw(y, arm, e, policy)
    assert weighed.estimate == pytest.approx(scale * (plain.estimate + shift), rel=1e-9, abs=1e-8 * scale)
    assert weighed.se == pytest.approx(scale * plain.se, rel=1e-6)


def test_costs_are_paid_by_those_who_get_the_arm() -> None:
    x, arm, e, y = experiment(3)
    scores, policy = doubly_robust(y, arm, e, model(x)), np.where(x > 0.4, 2, 0)
    costs = np.array([0.0, 0.1, 0.3])
    paid = value(scores, policy).estimate - 0.3 * (policy == 2).mean()
    assert value(scores, policy, costs).estimate == pytest.approx(paid)
    assert value(scores, policy, np.tile(costs, (x.size, 1))) == value(scores, policy, costs)
    assert value(net(scores, costs), policy) == value(scores, policy, costs)
    # With weights that average to one the users who got their arm pay as all do.
    assert snipw(y, arm, e, policy, costs).estimate == pytest.approx(paid, abs=0.1)


def test_groups_sum_to_the_whole() -> None:
    x, arm, e, y = experiment(4)
    scores, policy, baseline = doubly_robust(y, arm, e, model(x)), np.where(x > 0.4, 2, 0), np.zeros(x.size, dtype=int)
    names = np.where(x > 0.8, "gold", np.where(x > 0.4, "silver", "bronze"))
    found = by_group(scores, policy, baseline, names, [0, 0.1, 0.1])
    assert [each.group for each in found] == ["bronze", "gold", "silver"]
    whole = gain(scores, policy, baseline, [0, 0.1, 0.1])
    assert sum(each.share * each.gain.estimate for each in found) == pytest.approx(whole.estimate)
    assert sum(each.n for each in found) == x.size
    assert found[0].gain == EXACT
    gold = names == "gold"
    assert found[1].gain == gain(scores[gold], policy[gold], baseline[gold], [0, 0.1, 0.1])


def test_best_constant_is_corrected_for_the_choice() -> None:
    x, arm, e, y = experiment(5, 400)
    scores = doubly_robust(y, arm, e, model(x))
    found = best_constant(scores, [0.0, 0.05, 0.1])
    paid = scores - [0, 0.05, 0.1]
    assert found.arm == paid.mean(axis=0).argmax()
    assert found.naive == constant_values(scores, [0.0, 0.05, 0.1])[found.arm]
    covariance = np.cov(paid.T) / 400
    assert found.corrected == corrected(paid.mean(axis=0), covariance, found.arm, 0.05)
    assert found.corrected.estimate < found.naive.estimate
    with pytest.raises(StatError) as caught:
        best_constant(np.random.default_rng(6).normal(size=(50, 1)) * [1, 1])
    assert caught.value.code is Problem.TIED


def test_a_fold_has_no_part_in_its_baseline() -> None:
    scores = np.array([[9.0, 0.0], [9.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert constant_elsewhere(scores, np.array([0, 0, 1, 1])).tolist() == [1, 1, 0, 0]
    assert constant_elsewhere(scores, np.array([0, 0, 1, 1]), [20.0, 0.0]).tolist() == [1, 1, 1, 1]


def test_a_segment_gets_its_best_arm_of_the_other_folds_and_a_small_one_that_of_all() -> None:
    scores = np.array([[3.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0], [0.0, 9.0]])
    fold, groups = np.array([0, 0, 1, 1, 1]), np.array([5, 7, 5, 7, 8])
    assert best_elsewhere(scores, fold, groups, 1).tolist() == [0, 1, 0, 1, 0]
    assert best_elsewhere(scores, fold, groups, 2).tolist() == constant_elsewhere(scores, fold).tolist()
    assert best_elsewhere(scores, fold, groups, 1, [4.0, 0.0]).tolist() == [1, 1, 1, 1, 1]


def test_segments_of_noise_gain_nothing_on_users_not_chosen_by() -> None:
    rng = np.random.default_rng(8)
    gains = []
    for _ in range(200):
        scores, fold, groups = rng.normal(size=(200, 3)), np.arange(200) % 5, rng.integers(0, 4, 200)
        gains.append(scores[np.arange(200), best_elsewhere(scores, fold, groups, 5)].mean())
    assert abs(np.mean(gains)) < 4 * np.std(gains) / 200**0.5


def test_choosing_on_the_same_users_flatters_and_elsewhere_does_not() -> None:
    rng = np.random.default_rng(7)
    same, elsewhere = [], []
    for _ in range(200):
        scores = rng.normal(size=(100, 4))
        fold = np.arange(100) % 5
        same.append(scores.mean(axis=0).max())
        elsewhere.append(value(scores, constant_elsewhere(scores, fold)).estimate)
    assert np.mean(same) > 0.08
    assert abs(np.mean(elsewhere)) < 4 * np.std(elsewhere) / 200**0.5


def test_snipw_by_hand() -> None:
    y, arm = np.array([1.0, 2.0, 4.0, 8.0]), np.array([0, 1, 1, 0])
    e = np.array([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [0.2, 0.8]])
    found = snipw(y, arm, e, np.array([1, 1, 1, 0]), [0.0, 1.0])
    w, won = np.array([0, 4, 2, 5.0]), np.array([0, 1, 3, 8.0])
    v = (w @ won) / w.sum()
    assert found.estimate == pytest.approx(v)
    assert found.se == pytest.approx(np.sqrt((w**2 @ (won - v) ** 2) / 3 / 4) / w.mean())


def test_gap_is_small_for_a_wrong_model_and_large_for_wrong_probabilities() -> None:
    x, arm, e, y = experiment(8, 20_000)
    policy = np.where(x > 0.4, 2, 0)
    scores = doubly_robust(y, arm, e, model(x))
    fine = gap(scores, y, arm, e, policy)
    assert fine.estimate == pytest.approx(value(scores, policy).estimate - snipw(y, arm, e, policy).estimate)
    assert abs(fine.estimate / fine.se) < 3
    equal = np.full(e.shape, 1 / 3)
    broken = gap(doubly_robust(y, arm, equal, model(x)), y, arm, equal, policy)
    assert broken.p_value < 1e-3


def test_gap_of_experiments_is_standard_normal() -> None:
    rows = []
    for seed in range(300):
        x, arm, e, y = experiment(seed, 300)
        found = gap(doubly_robust(y, arm, e, model(x)), y, arm, e, np.where(x > 0.4, 2, 0))
        rows.append(found.estimate / found.se)
    assert np.std(rows) == pytest.approx(1, abs=0.15)
    assert abs(np.mean(rows)) < 0.25


def test_no_gap_where_both_are_the_same_sum() -> None:
    arm = np.arange(100) % 2
    y = np.random.default_rng(9).normal(size=100)
    e = np.full((100, 2), 0.5)
    scores = doubly_robust(y, arm, e, np.tile([y[arm == 0].mean(), y[arm == 1].mean()], (100, 1)))
    assert gap(scores, y, arm, e, np.ones(100, dtype=np.int64)) == EXACT


@lawful
@given(st.lists(st.integers(5, 40), min_size=2, max_size=4), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_even_in_every_arm_and_as_a_whole(sizes: list[int], k: int, seed: int) -> None:
    arm = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = folds(arm.size, k, arm, np.random.default_rng(seed))
    for rows in [found, *(found[arm == a] for a in range(len(sizes)))]:
        assert np.ptp(np.bincount(rows, minlength=k)) <= 1
    assert (found == folds(arm.size, k, arm, np.random.default_rng(seed))).all()


def test_folds_are_random() -> None:
    arm = np.arange(12) % 2
    drawn = np.array([folds(12, 3, arm, np.random.default_rng(seed)) for seed in range(1500)])
    assert scipy.stats.chisquare(np.bincount(drawn[:, 0])).pvalue > 1e-3
    together = (drawn[:, 0] == drawn[:, 2]).mean()
    assert together == pytest.approx(1 / 5, abs=0.04)


def test_hillstrom_policy_by_past_purchase(shared_data: Path) -> None:
    """Visits: the womens e-mail for those who bought womens goods only, the mens e-mail for all others."""
    folder = shared_data / "hillstrom"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["computed"]
    lifts = expected["visit_uplift_by_past_purchase"]
    with gzip.open(folder / "hillstrom.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    arms = ["No E-Mail", "Mens E-Mail", "Womens E-Mail"]
    arm = np.array([arms.index(row["segment"]) for row in rows])
    visit = np.array([float(row["visit"]) for row in rows])
    bought = np.array([f"mens={row['mens']},womens={row['womens']}" for row in rows])
    names, cell = np.unique(bought, return_inverse=True)
    means_by_cell = np.array([[visit[(arm == k) & (cell == c)].mean() for k in range(3)] for c in range(names.size)])
    scores = doubly_robust(visit, arm, np.full((arm.size, 3), 1 / 3), means_by_cell[cell])
    policy, nobody = np.where(bought == "mens=0,womens=1", 2, 1), np.zeros(arm.size, dtype=np.int64)
    for each in by_group(scores, policy, nobody, bought):
        given = arms[2 if each.group == "mens=0,womens=1" else 1]
        assert each.gain.estimate == pytest.approx(lifts[f"{given}|{each.group}"]["diff"], rel=1e-9)
        low, high = lifts[f"{given}|{each.group}"]["ci95_wald"]
        assert (each.gain.lower, each.gain.upper) == pytest.approx((low, high), abs=1e-3)
    # Not shown to be better than the mens e-mail for everybody.
    found = gain(scores, policy, np.ones(arm.size, dtype=np.int64))
    assert found.lower < 0 < found.estimate


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda y, a, e, m: doubly_robust(y[1:], a, e, m), "outcome must hold a finite number for each of the 4 users"),
        (lambda y, a, e, m: doubly_robust(y * np.nan, a, e, m), "outcome must hold a finite number"),
        (lambda y, a, e, m: doubly_robust(y, a + 1, e, m), "arm must be 0 to 1, got 1 to 2"),
        (lambda y, a, e, m: doubly_robust(y, a * 1.0, e, m), "arm must be integers"),
        (lambda y, a, e, m: doubly_robust(y, a, e * [0, 2], m), "leave out users who could not get an arm"),
        (lambda y, a, e, m: doubly_robust(y, a, e * 0.9, m), "each row must sum to 1"),
        (lambda y, a, e, m: doubly_robust(y, a, e[:2], m), r"propensity must be of shape \(4, K\)"),
        (lambda y, a, e, m: doubly_robust(y, a, e, m[:, :1]), r"predictions must be finite and of shape \(4, 2\)"),
        (lambda y, a, e, m: value(m, a + 1), "policy must be arms 0 to 1, got 1 to 2"),
        (lambda y, a, e, m: value(m, a[1:]), r"policy must be integers of shape \(4,\)"),
        (lambda y, a, e, m: gain(m, a, a * 1.0), r"baseline must be integers"),
        (lambda y, a, e, m: value(m, a, [1.0]), r"costs must be finite and of shape \(2,\) or \(4, 2\)"),
        (lambda y, a, e, m: value(y, a), r"scores must be finite and of shape \(n, K\), got \(4,\)"),
        (lambda y, a, e, m: by_group(m, a, a, [1, 2]), "groups must hold a label for each of the 4 users"),
        (lambda y, a, e, m: constant_elsewhere(m, a * 0), "at least two folds"),
        (lambda y, a, e, m: best_elsewhere(m, a, a[1:], 1), "groups must name one group for each of the 4 users"),
        (lambda y, a, e, m: folds(4, 3, a, np.random.default_rng(1)), "at most the users of the smallest arm, 2: 3"),
        (lambda y, a, e, m: folds(5, 2, a, np.random.default_rng(1)), "each of the 5 users"),
    ],
)
def test_wrong_arguments(call: Callable[..., object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(np.arange(4.0), np.array([0, 1, 1, 0]), np.full((4, 2), 0.5), np.ones((4, 2)))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: value(np.ones((1, 2)), np.array([0])), Problem.NOT_ENOUGH_DATA),
        (lambda: value(np.full((9, 2), 0.1), np.arange(9) % 2), Problem.ZERO_VARIANCE),
        (lambda: snipw(np.ones(2), np.array([0, 1]), np.full((2, 2), 0.5), np.array([0, 0])), Problem.NOT_ENOUGH_DATA),
    ],
)
def test_problems(call: Callable[[], object], code: Problem) -> None:
    with pytest.raises(StatError) as caught:
        call()
    assert caught.value.code is code
