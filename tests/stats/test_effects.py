import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from stats.arms import ArmVector, adjusted, means
from stats.effects import Direction, difference, noninferiority, relative, relative_delta
from stats.errors import Problem, StatError
from stats.horizon import Fixed, Horizon, Sequential
from stats.moments import Moments
from tests.stats.reference import ARMS, HISTORY, SPEND, hillstrom, load

HORIZONS = [Fixed(0.05), Fixed(0.2), Sequential.tuned(0.05, 400)]
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=100)


def arms_of(*samples: np.ndarray) -> ArmVector:
    return means([Moments.from_rows(x[:, None]) for x in samples])


def samples(seed: int, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.gamma(2, 2, size=60), rng.gamma(2, 3, size=45) + shift


def known(mean: tuple[float, float], se: tuple[float, float], correlation: float = 0.0) -> ArmVector:
    """Two normal estimates with known variance."""
    shared = correlation * se[0] * se[1]
    covariance = np.array([[se[0] ** 2, shared], [shared, se[1] ** 2]])
    return ArmVector(np.array([200, 200]), np.array(mean), covariance, np.zeros(2))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_difference_equals_scipy_and_statsmodels_welch(alpha: float) -> None:
    control, treated = samples(1)
    effect = difference(arms_of(control, treated), 1, 0, Fixed(alpha))
    oracle = scipy.stats.ttest_ind(treated, control, equal_var=False)
    interval = oracle.confidence_interval(1 - alpha)
    assert effect.statistic_name == "t"
    assert (effect.statistic, effect.df) == pytest.approx((oracle.statistic, oracle.df))
    assert effect.p_value == pytest.approx(oracle.pvalue, rel=1e-10)
    assert (effect.lower, effect.upper) == pytest.approx((interval.low, interval.high))
    other = CompareMeans(DescrStatsW(treated), DescrStatsW(control)).tconfint_diff(alpha, usevar="unequal")
    assert (effect.lower, effect.upper) == pytest.approx(other)


@pytest.mark.parametrize("arm", [1, 2])
def test_hillstrom_spend_equals_scipy_on_rows(arm: int) -> None:
    reference = load("hillstrom.json")["expected"][ARMS[arm]]["spend"]
    effect = difference(means(hillstrom(), SPEND), arm, 0, Fixed(0.05))
    assert effect.statistic == pytest.approx(reference["t"], rel=1e-10)
    assert effect.df == pytest.approx(reference["df"], rel=1e-9)
    assert effect.p_value == pytest.approx(reference["p_value"], rel=1e-8)
    assert (effect.lower, effect.upper) == pytest.approx((reference["lower"], reference["upper"]), rel=1e-9)


def test_far_tail_is_not_zero() -> None:
    effect = difference(known((0, 20), (1, 0.001)), 1, 0, Fixed(0.05))
    assert effect.p_value == pytest.approx(2 * scipy.stats.norm.sf(20 / math.hypot(1, 0.001)), rel=1e-9)
    assert 0 < effect.p_value < 1e-80


@pytest.mark.parametrize("horizon", HORIZONS)
def test_swapping_arms_mirrors_the_effect(horizon: Horizon) -> None:
    arms = arms_of(*samples(2))
    forth, back = difference(arms, 1, 0, horizon), difference(arms, 0, 1, horizon)
    assert (back.estimate, back.lower, back.upper) == (-forth.estimate, -forth.upper, -forth.lower)
    assert back.p_value == forth.p_value


@pytest.mark.parametrize("horizon", HORIZONS)
def test_shift_moves_nothing_and_scale_scales(horizon: Horizon) -> None:
    control, treated = samples(3)
    plain = difference(arms_of(control, treated), 1, 0, horizon)
    moved = difference(arms_of(5 * control + 100, 5 * treated + 100), 1, 0, horizon)
    assert (moved.estimate, moved.lower, moved.upper) == pytest.approx(
        (5 * plain.estimate, 5 * plain.lower, 5 * plain.upper), rel=1e-9
    )
    lift = relative(arms_of(control, treated), 1, 0, horizon)
    scaled = relative(arms_of(7 * control, 7 * treated), 1, 0, horizon)
    assert (scaled.lower, scaled.upper) == pytest.approx((lift.lower, lift.upper), rel=1e-9)


def test_intervals_nest_as_alpha_grows() -> None:
    arms = arms_of(*samples(4))
    for make in (difference, relative):
        for kind in (Fixed, lambda a: Sequential(a, 0.02)):
            wide, narrow = make(arms, 1, 0, kind(0.01)), make(arms, 1, 0, kind(0.1))
            assert wide.lower < narrow.lower < narrow.estimate < narrow.upper < wide.upper


@pytest.mark.parametrize("horizon", HORIZONS)
@lawful
@given(st.floats(-30, 30), st.floats(0.5, 40), st.floats(-0.9, 0.9))
def test_p_interval_and_lift_agree_on_significance(
    horizon: Horizon, effect: float, base: float, correlation: float
) -> None:
    arms = known((base, base + effect), (0.3, 0.5), correlation)
    result = difference(arms, 1, 0, horizon)
    assume(abs(result.p_value - horizon.alpha) > 1e-9)
    assert (result.p_value < horizon.alpha) == (result.lower > 0 or result.upper < 0)
    try:
        lift = relative(arms, 1, 0, horizon)
    except StatError:
        assume(False)
    assert (result.p_value < horizon.alpha) == (lift.lower > 0 or lift.upper < 0)
    assert lift.lower <= lift.estimate <= lift.upper


def test_fieller_limits_solve_their_definition() -> None:
    control, treated = samples(5)
    rows = [np.column_stack([x, np.random.default_rng(6).normal(size=x.size) + x]) for x in (control, treated)]
    arms = adjusted([Moments.from_rows(r) for r in rows], 0, [1])
    assert arms.covariance[0, 1] > 0
    df = difference(arms, 1, 0, Fixed(0.05)).df
    critical = scipy.stats.t.isf(0.025, df)

    def excess(ratio: float) -> float:
        v = arms.covariance
        variance = v[1, 1] + ratio**2 * v[0, 0] - 2 * ratio * v[0, 1]
        return (arms.mean[1] - ratio * arms.mean[0]) ** 2 - critical**2 * variance

    centre = arms.mean[1] / arms.mean[0]
    lift = relative(arms, 1, 0, Fixed(0.05))
    assert lift.lower == pytest.approx(scipy.optimize.brentq(excess, -5, centre) - 1, abs=1e-9)
    assert lift.upper == pytest.approx(scipy.optimize.brentq(excess, centre, 50) - 1, abs=1e-9)


def test_fieller_approaches_the_delta_method_for_a_precise_control() -> None:
    effect = relative(known((100, 110), (0.01, 0.02)), 1, 0, Fixed(0.05))
    se = math.sqrt(0.02**2 / 100**2 + 110**2 * 0.01**2 / 100**4)
    assert (effect.upper - effect.lower) / 2 == pytest.approx(1.959964 * se, rel=1e-5)


def test_negative_control_mean_divides_by_its_size() -> None:
    up = relative(known((-10, -8), (0.3, 0.4)), 1, 0, Fixed(0.05))
    assert up.estimate == pytest.approx(0.2)
    assert 0 < up.lower < up.estimate < up.upper
    mirrored = relative(known((10, 8), (0.3, 0.4)), 1, 0, Fixed(0.05))
    assert (up.lower, up.upper) == pytest.approx((-mirrored.upper, -mirrored.lower))


@pytest.mark.parametrize("base", [0.0, 1.9, -1.9])
def test_control_mean_near_zero_gives_no_lift(base: float) -> None:
    with pytest.raises(StatError) as caught:
        relative(known((base, 5), (1, 1)), 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.LIFT_NOT_IDENTIFIED


def test_equal_means_give_lift_zero_inside() -> None:
    lift = relative(known((5, 5), (0.1, 0.1)), 1, 0, Fixed(0.05))
    assert lift.estimate == 0
    assert lift.lower < 0 < lift.upper


def test_arms_that_do_not_vary_are_a_problem() -> None:
    arms = arms_of(np.zeros(10), np.zeros(12))
    for make in (difference, relative):
        with pytest.raises(StatError) as caught:
            make(arms, 1, 0, Fixed(0.05))
        assert caught.value.code is Problem.ZERO_VARIANCE


def test_no_arm_is_compared_with_itself() -> None:
    with pytest.raises(ValueError, match="itself"):
        difference(arms_of(*samples(7)), 1, 1, Fixed(0.05))


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("direction", Direction)
@lawful
@given(st.floats(-3, 3), st.floats(0, 2))
def test_noninferiority_p_and_bound_agree(horizon: Horizon, direction: Direction, effect: float, margin: float) -> None:
    result = noninferiority(known((10, 10 + effect), (0.3, 0.4)), 1, 0, margin, direction, horizon)
    assume(abs(result.p_value - horizon.alpha) > 1e-9)
    inside = result.bound > -margin if direction is Direction.INCREASE else result.bound < margin
    assert (result.p_value < horizon.alpha) == inside


def test_noninferiority_equals_scipy_one_sided_welch() -> None:
    control, treated = samples(8, shift=-1.0)
    result = noninferiority(arms_of(control, treated), 1, 0, 2.0, Direction.INCREASE, Fixed(0.05))
    oracle = scipy.stats.ttest_ind(treated + 2.0, control, equal_var=False, alternative="greater")
    assert result.p_value == pytest.approx(oracle.pvalue, rel=1e-9)
    assert result.bound == pytest.approx(oracle.confidence_interval(0.95).low - 2.0)


def test_noninferiority_direction_is_a_mirror() -> None:
    up = noninferiority(known((10, 10.5), (0.3, 0.4)), 1, 0, 1.0, Direction.INCREASE, Fixed(0.05))
    down = noninferiority(known((-10, -10.5), (0.3, 0.4)), 1, 0, 1.0, Direction.DECREASE, Fixed(0.05))
    assert (up.p_value, up.bound) == (down.p_value, -down.bound)


def test_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        noninferiority(known((1, 1), (1, 1)), 1, 0, -0.1, Direction.INCREASE, Fixed(0.05))


def test_three_arms_share_a_control_after_adjustment() -> None:
    arms = adjusted(hillstrom(), SPEND, [HISTORY])
    womens = difference(arms, 2, 0, Fixed(0.05))
    assert womens.estimate == pytest.approx(0.4227, abs=5e-4)  # common-slope CUPED on the rows: 0.42270


def test_delta_lift_equals_the_gradient_written_out() -> None:
    control, treated = samples(9)
    lift = relative_delta(arms_of(control, treated), 1, 0, Fixed(0.05))
    mean, variance = [x.mean() for x in (control, treated)], [x.var(ddof=1) / x.size for x in (control, treated)]
    gradient = np.array([-mean[1] / mean[0] ** 2, 1 / mean[0]])
    df = scipy.stats.ttest_ind(treated, control, equal_var=False).df
    half = scipy.stats.t.isf(0.025, df) * math.sqrt(gradient**2 @ variance)
    ratio = mean[1] / mean[0]
    assert (lift.estimate, lift.lower, lift.upper) == pytest.approx((ratio - 1, ratio - 1 - half, ratio - 1 + half))


def test_delta_lift_is_fiellers_for_a_precise_control_and_contradicts_the_test_for_a_noisy_one() -> None:
    arms = known((100, 110), (0.01, 0.02), 0.4)
    delta, fieller = relative_delta(arms, 1, 0, Fixed(0.05)), relative(arms, 1, 0, Fixed(0.05))
    assert (delta.lower, delta.upper) == pytest.approx((fieller.lower, fieller.upper), rel=1e-4)
    noisy = known((1.0, 1.7), (0.2, 0.2))
    assert difference(noisy, 1, 0, Fixed(0.05)).p_value < 0.05
    assert relative(noisy, 1, 0, Fixed(0.05)).lower > 0 > relative_delta(noisy, 1, 0, Fixed(0.05)).lower


def test_delta_lift_of_a_negative_control_divides_by_its_size_and_of_zero_is_a_problem() -> None:
    up, mirrored = (relative_delta(known(m, (0.3, 0.4)), 1, 0, Fixed(0.05)) for m in ((-10, -8), (10, 8)))
    assert up.estimate == pytest.approx(0.2)
    assert (up.lower, up.upper) == pytest.approx((-mirrored.upper, -mirrored.lower))
    with pytest.raises(StatError) as caught:
        relative_delta(known((0, 1), (1, 1)), 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.LIFT_NOT_IDENTIFIED


@pytest.mark.parametrize("df", [1.5, 8.0, 300.0, 1e7])
def test_fixed_horizon_equals_scipy_t_to_the_far_tail(df: float) -> None:
    horizon = Fixed(0.001)
    for t in (0.0, 2.0, 10.0, 40.0):
        assert horizon.p_value(-t, 10, df) == pytest.approx(2 * scipy.stats.t.sf(t, df), rel=1e-12)
        assert horizon.p_value_one_sided(t, 10, df) == pytest.approx(scipy.stats.t.sf(t, df), rel=1e-12)
    assert horizon.critical(10, df) == pytest.approx(scipy.stats.t.isf(0.0005, df), rel=1e-12)
    assert horizon.critical_one_sided(10, df) == pytest.approx(scipy.stats.t.isf(0.001, df), rel=1e-12)
    assert horizon.critical(10, None) == pytest.approx(scipy.stats.norm.isf(0.0005), rel=1e-12)


def test_difference_whose_parts_cancel_does_not_vary() -> None:
    """Strata in which nobody differs: only their sizes are random, and alike for both arms."""
    shared = 0.1 + 0.2
    arms = ArmVector(np.array([9, 9]), np.array([1.0, 2.0]), np.full((2, 2), shared), np.zeros(2))
    arms.covariance[0, 0] += 1e-16
    with pytest.raises(StatError) as caught:
        difference(arms, 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.ZERO_VARIANCE
