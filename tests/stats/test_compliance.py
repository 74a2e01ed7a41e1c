import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import statsmodels.api as sm

from stats.arms import ArmVector, adjusted, means, stratified
from stats.compliance import Strata, complier_effect, complier_ratio, joint, trigger_balance
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed, Horizon, Sequential
from stats.moments import Moments
from tests.stats.reference import load

REFERENCE = load("compliance.json")
HORIZONS = [Fixed(0.05), Sequential.tuned(0.05, 2000)]


def campaign(seed: int, n: int = 900, push: float = 1.0) -> list[np.ndarray]:
    """Rows (outcome, received, history) of a control and a treated arm; the eager receive and buy more anyway."""
    rng = np.random.default_rng(seed)
    arms = []
    for arm in (0, 1):
        users = n + 200 * arm
        eager, history = rng.normal(size=users), rng.normal(size=users)
        received = eager + push * arm > 1
        arms.append(np.column_stack([eager + history + 0.8 * received + rng.exponential(1, users), received, history]))
    return arms


def moments(arms: list[np.ndarray]) -> list[Moments]:
    return [Moments.from_rows(x) for x in arms]


def test_effect_and_se_equal_two_stage_least_squares() -> None:
    arms = [Moments.from_integer_sums(a["n"], a["sums"], a["products"], [100, 1]) for a in REFERENCE["arms"]]
    found = complier_effect(arms, 0, 1, 1, 0, Fixed(0.05))
    n = arms[0].n
    assert found.estimate == pytest.approx(REFERENCE["two_stage"]["effect"], rel=1e-10)
    # The robust standard error there divides by n.
    assert found.se * math.sqrt((n - 1) / n) == pytest.approx(REFERENCE["two_stage"]["se_robust"], rel=1e-9)
    assert (found.lower + found.upper) / 2 == pytest.approx(found.estimate, abs=found.se / 10)
    assert (found.upper - found.lower) / 2 == pytest.approx(1.96 * found.se, rel=0.02)


def test_limits_are_where_anderson_rubin_stops_rejecting() -> None:
    arms = campaign(1)
    found = complier_effect(moments(arms), 0, 1, 1, 0, Fixed(0.05))
    rows = np.vstack(arms)
    assigned = np.repeat([0.0, 1.0], [len(x) for x in arms])
    df = difference(means(moments(arms)), 1, 0, Fixed(0.05)).df

    def p_value(effect: float) -> float:
        fit = sm.OLS(rows[:, 0] - effect * rows[:, 1], sm.add_constant(assigned)).fit(cov_type="HC2")
        return float(2 * scipy.stats.t.sf(abs(fit.tvalues[1]), df))

    assert p_value(found.lower) == pytest.approx(0.05, rel=1e-8)
    assert p_value(found.upper) == pytest.approx(0.05, rel=1e-8)
    assert found.p_value == pytest.approx(p_value(0), rel=1e-8)
    grid = np.linspace(found.lower - 1, found.upper + 1, 201)
    inside = (grid > found.lower) & (grid < found.upper)
    assert [p_value(b) > 0.05 for b in grid] == inside.tolist()


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("seed", range(6))
def test_zero_is_outside_exactly_when_the_assignment_is_significant(horizon: Horizon, seed: int) -> None:
    arms = moments(campaign(seed, n=250))
    found = complier_effect(arms, 0, 1, 1, 0, horizon)
    assigned = difference(means(arms), 1, 0, horizon)
    assert found.p_value == assigned.p_value
    assert (found.lower > 0 or found.upper < 0) == (assigned.p_value < 0.05)
    assert found.lower < found.estimate < found.upper


def test_everybody_reached_is_the_effect_of_the_assignment() -> None:
    rng = np.random.default_rng(2)
    arms = [Moments.from_rows(np.column_stack([rng.normal(arm, 1, 50), np.full(50, float(arm))])) for arm in (0, 1)]
    found = complier_effect(arms, 0, 1, 1, 0, Fixed(0.05))
    plain = difference(means(arms), 1, 0, Fixed(0.05))
    assert (found.estimate, found.se) == pytest.approx((plain.estimate, plain.se))
    assert (found.lower, found.upper) == pytest.approx((plain.lower, plain.upper), rel=1e-12)
    assert (found.share, found.share_se) == (1, 0)


def test_scales_of_outcome_and_swap_of_arms() -> None:
    arms = campaign(3)
    plain = complier_effect(moments(arms), 0, 1, 1, 0, Fixed(0.05))
    large = complier_effect(moments([x * [1e7, 1, 1] + [1e9, 0, 0] for x in arms]), 0, 1, 1, 0, Fixed(0.05))
    assert (large.estimate, large.lower, large.upper) == pytest.approx(
        (1e7 * plain.estimate, 1e7 * plain.lower, 1e7 * plain.upper), rel=1e-7
    )
    back = complier_effect(moments(arms), 0, 1, 0, 1, Fixed(0.05))
    assert (back.estimate, back.lower, back.upper) == pytest.approx((plain.estimate, plain.lower, plain.upper))
    assert back.share == -plain.share


@pytest.mark.parametrize("horizon", HORIZONS)
def test_an_assignment_that_does_not_move_reception_is_weak(horizon: Horizon) -> None:
    with pytest.raises(StatError) as caught:
        complier_effect(moments(campaign(4, push=0.0)), 0, 1, 1, 0, horizon)
    assert caught.value.code is Problem.WEAK_INSTRUMENT
    assert abs(caught.value.facts["share"]) < 3 * caught.value.facts["share_se"]  # type: ignore[arg-type, operator]


def test_nobody_received_is_weak_and_a_constant_outcome_has_no_variance() -> None:
    rng = np.random.default_rng(5)
    idle = [Moments.from_rows(np.column_stack([rng.normal(size=30), np.zeros(30)])) for _ in range(2)]
    with pytest.raises(StatError) as caught:
        complier_effect(idle, 0, 1, 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.WEAK_INSTRUMENT
    with pytest.raises(StatError) as caught:
        complier_effect(idle, 1, 0, 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.ZERO_VARIANCE


def test_cross_covariance_of_means_is_that_of_the_users() -> None:
    arms = campaign(6)
    pair = joint([moments(arms)], 0, 1, lambda strata, column: means(strata[0], column))
    expected = np.diag([np.cov(x[:, 0], x[:, 1])[0, 1] / len(x) for x in arms])
    assert pair.covariance == pytest.approx(expected, abs=1e-12)


def test_adjusted_and_stratified_limits_solve_anderson_rubin_with_the_builder() -> None:
    strata = [moments(campaign(7)), moments(campaign(8, n=400, push=0.5))]

    def build(parts: Strata, column: int) -> ArmVector:
        return stratified([adjusted(arms, column, [2]) for arms in parts])

    found = complier_ratio(joint(strata, 0, 1, build), 1, 0, Fixed(0.05))
    plain = complier_ratio(joint(strata, 0, 1, lambda s, c: stratified([means(a, c) for a in s])), 1, 0, Fixed(0.05))
    assert found.upper - found.lower < 0.9 * (plain.upper - plain.lower)

    def statistic(effect: float) -> float:
        minus = np.vstack([np.eye(3), [1.0, -effect, 0.0]])
        parts = [[Moments(a.n, minus @ a.mean, minus @ a.cross @ minus.T) for a in arms] for arms in strata]
        return difference(build(parts, 3), 1, 0, Fixed(0.05)).statistic

    df = difference(build(strata, 0), 1, 0, Fixed(0.05)).df
    for limit, sign in ((found.lower, 1), (found.upper, -1)):
        assert statistic(limit) == pytest.approx(sign * scipy.stats.t.isf(0.025, df), rel=1e-8)
    assert found.estimate == pytest.approx(scipy.optimize.brentq(statistic, found.lower, found.upper), rel=1e-9)


@pytest.mark.parametrize("counts", [([30, 45, 20], [100, 120, 90]), ([3, 9], [50, 60]), ([0, 4], [1000, 900])])
def test_trigger_balance_is_pearsons_test(counts: tuple[list[int], list[int]]) -> None:
    fired, users = np.array(counts)
    oracle = scipy.stats.chi2_contingency(np.vstack([fired, users - fired]), correction=False)
    test = trigger_balance(*counts)
    assert (test.statistic, test.df) == pytest.approx((oracle.statistic, oracle.dof))
    assert test.p_value == pytest.approx(oracle.pvalue, rel=1e-9)


def test_trigger_balance_extremes() -> None:
    for fired in (0, 10**9):
        test = trigger_balance([fired, fired], [10**9, 10**9])
        assert (test.statistic, test.df, test.p_value) == (0.0, 1, 1.0)
    assert 0 < trigger_balance([0, 400], [1000, 1000]).p_value < 1e-100
    assert trigger_balance([5 * 10**8, 5 * 10**8 + 10**6], [10**9, 10**9]).p_value < 1e-300
    with pytest.raises(StatError) as caught:
        trigger_balance([0, 4], [0, 10])
    assert (caught.value.code, caught.value.facts["arm"]) == (Problem.NOT_ENOUGH_DATA, 0)


@pytest.mark.parametrize("counts", [([1], [2]), ([1, 2], [3]), ([3, 1], [2, 2]), ([-1, 1], [2, 2])])
def test_impossible_counts_are_refused(counts: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="triggered"):
        trigger_balance(*counts)
