import itertools

import numpy as np
import pytest
import scipy.stats

from stats.adaptive import adaptive_scores, adaptive_value, thompson_shares
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Moments
from stats.posterior import Normal


def arm_of(n: int, mean: float, variance: float = 1.0) -> Moments:
    return Moments(n, np.array([mean]), np.array([[variance * max(n - 1, 0)]]))


def adaptive_data(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    arms = np.empty(n, dtype=int)
    outcome = np.empty(n)
    propensity = np.full((n, 3), 1 / 3)
    for t in range(n):
        if t >= 30:
            means = [outcome[:t][arms[:t] == a].mean() for a in range(3)]
            propensity[t] = 0.1 + 0.7 * (np.arange(3) == np.argmax(means))
        arms[t] = rng.choice(3, p=propensity[t])
        outcome[t] = 5 + 0.2 * arms[t] + rng.normal()
    return outcome, arms, propensity


def test_shares_are_the_probability_of_being_best_above_the_floor() -> None:
    arms = [arm_of(100, 0.0), arm_of(100, 0.2), arm_of(50, 0.1)]
    shares = thompson_shares(arms, 0.05)
    se = [np.sqrt((m.cross[0, 0] + 2) / (m.n + 1) / m.n) for m in arms]  # the pooled variance, 1, counts as two users
    draws = np.random.default_rng(1).normal([0.0, 0.2, 0.1], se, (400_000, 3)).argmax(axis=1)
    assert shares == pytest.approx(0.05 + 0.85 * np.bincount(draws) / 400_000, abs=4e-3)
    assert shares.sum() == pytest.approx(1)
    lower = thompson_shares(arms, 0.05, larger_is_better=False)
    assert lower == pytest.approx(thompson_shares([arm_of(m.n, -m.mean[0]) for m in arms], 0.05))


def test_shares_at_the_edges() -> None:
    assert thompson_shares([arm_of(10**6, 0.0), arm_of(10**6, 1.0)], 0.1) == pytest.approx([0.1, 0.9])
    assert thompson_shares([arm_of(9, 0.0), arm_of(9, 1.0)], 0.5) == pytest.approx([0.5, 0.5])
    # No conversion at all, or one user each: nothing varies, nothing is known.
    assert thompson_shares([arm_of(9, 0.0, 0.0), arm_of(9, 0.0, 0.0)], 0.1) == pytest.approx([0.5, 0.5])
    # Nobody of ten converted: unlikely the best, but not settled, although its own variance is 0.
    shares = thompson_shares([arm_of(10, 0.0, 0.0), arm_of(10, 0.2, 0.16)], 0.01)
    assert 0.02 < shares[0] < 0.2


def test_a_new_arm_needs_a_prior() -> None:
    arms = [arm_of(100, 0.0), arm_of(0, 0.0)]
    with pytest.raises(StatError) as caught:
        thompson_shares(arms, 0.05)
    assert caught.value.code is Problem.NOT_ENOUGH_DATA
    assert caught.value.facts == {"arm": 1, "n": 0, "needed": 1}
    shares = thompson_shares(arms, 0.05, Normal(0.1, 0.1))
    assert 0.5 < shares[1] < 0.95


def test_scores_are_unbiased_given_the_past_by_enumeration() -> None:
    # Four users, two arms, fixed potential outcomes; the share of arm 1 follows what was seen.
    potential = np.array([[1.0, 4.0], [2.0, 0.0], [-1.0, 3.0], [5.0, 2.0]])
    expected = np.zeros((4, 2))
    for arms in itertools.product((0, 1), repeat=4):
        outcome = potential[np.arange(4), arms]
        shares = np.array(
            [
                0.5 + 0.1 * np.tanh(sum(y * (2 * a - 1) for y, a in zip(outcome[:t], arms[:t], strict=True)))
                for t in range(4)
            ]
        )
        propensity = np.column_stack([1 - shares, shares])
        chance = propensity[np.arange(4), arms].prod()
        expected += chance * adaptive_scores(outcome, np.array(arms), propensity)
    assert expected == pytest.approx(potential, abs=1e-12)


def by_definition(outcome: np.ndarray, arm: np.ndarray, e: np.ndarray, decay: float | None) -> tuple:
    """User by user, as the paper writes it, from the second on."""
    n, k = e.shape
    whole = outcome, arm
    outcome, arm, e, n = outcome[1:], arm[1:], e[1:], n - 1
    scores, weights = np.empty((n, k)), np.empty((n, k))
    for a in range(k):
        used = 0.0
        for t in range(1, n + 1):
            before = whole[0][:t][whole[1][:t] == a]
            m = before.mean() if before.size else whole[0][:t].mean()
            share = e[t - 1, a]
            scores[t - 1, a] = m + (arm[t - 1] == a) / share * (outcome[t - 1] - m)
            rate = 1 / (n - t + 1)
            if decay is not None:
                low = t**-decay
                rest = low + (n ** (1 - decay) - t ** (1 - decay)) / (1 - decay)
                rate = share * rate + (1 - share) * low / rest
            weights[t - 1, a] = np.sqrt(share * rate * (1 - used))
            used += weights[t - 1, a] ** 2 / share
        assert used == pytest.approx(1)
    mean = (weights * scores).sum(axis=0) / weights.sum(axis=0)
    se = np.sqrt((weights**2 * (scores - mean) ** 2).sum(axis=0)) / weights.sum(axis=0)
    both = weights / weights.sum(axis=0) * (scores - mean)
    return mean, se, np.sqrt(((both[:, 1] - both[:, 0]) ** 2).sum())


@pytest.mark.parametrize("decay", [None, 0.3, 0.7])
def test_equals_the_paper_user_by_user(decay: float | None) -> None:
    data = adaptive_data(3)
    mean, se, difference_se = by_definition(*data, decay)
    found = adaptive_value(*data, decay=decay)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.se == pytest.approx(se, rel=1e-12)
    effect = difference(found, 1, 0, Fixed(0.05))
    assert effect.se == pytest.approx(difference_se, rel=1e-12)
    assert effect.statistic_name == "z"
    assert effect.lower == pytest.approx(effect.estimate - scipy.stats.norm.isf(0.025) * difference_se)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_shift_scale_and_names_of_arms(decay: float | None) -> None:
    outcome, arm, e = adaptive_data(4)
    plain = adaptive_value(outcome, arm, e, decay)
    moved = adaptive_value(1000 + 3 * outcome, 2 - arm, e[:, ::-1], decay)
    assert moved.mean[::-1] == pytest.approx(1000 + 3 * plain.mean, rel=1e-12)
    assert moved.covariance[::-1, ::-1] == pytest.approx(9 * plain.covariance, rel=1e-9)


def test_fixed_equal_shares_give_nearly_the_plain_means() -> None:
    rng = np.random.default_rng(5)
    arm = rng.integers(0, 2, 20_000)
    outcome = 3 + arm + rng.normal(size=20_000)
    found = adaptive_value(outcome, arm, np.full((20_000, 2), 0.5))
    assert found.mean == pytest.approx([outcome[arm == a].mean() for a in (0, 1)], abs=0.002)
    assert found.se == pytest.approx([outcome[arm == a].std() / np.sqrt((arm == a).sum()) for a in (0, 1)], rel=0.02)


def test_wrong_arguments() -> None:
    two = [arm_of(9, 0.0), arm_of(9, 0.0)]
    with pytest.raises(ValueError, match="two arms"):
        thompson_shares(two[:1], 0.1)
    for floor in (0.0, 0.6):
        with pytest.raises(ValueError, match="floor"):
            thompson_shares(two, floor)
    half = np.full((4, 2), 0.5)
    y, a = np.arange(4.0), np.array([0, 0, 1, 1])
    for outcome, arm, propensity, decay, says in (
        (y[:3], a, half, None, "must be"),
        (np.array([1, 2, 3, np.nan]), a, half, None, "outcome"),
        (y, a + 1, half, None, "arm"),
        (y, a / 1.0, half, None, "arm"),
        (y, a, half * 0.9, None, "propensity"),
        (y, a, np.tile([0.0, 1.0], (4, 1)), None, "propensity"),
        (y, a, half, 1.0, "decay"),
    ):
        with pytest.raises(ValueError, match=says):
            adaptive_value(outcome, arm, propensity, decay)
    with pytest.raises(StatError) as caught:
        adaptive_value(y, np.array([0, 0, 0, 1]), half)
    assert caught.value.facts == {"arm": 1, "n": 1, "needed": 2}
