import math
from functools import reduce
from operator import add

import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from stats.arms import ArmVector, means, stratified
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Moments
from stats.survival import Lifetimes, conversion, curve, logrank, restricted_mean
from tests.stats.reference import load

SETS = load("survival.json")["sets"]
EMPTY = Lifetimes.from_rows([], [])

# Weeks in remission, 6-mercaptopurine and placebo (Freireich et al. 1963; Gehan 1965). A + was still in remission.
TREATED = "6 6 6 6+ 7 9+ 10 10+ 11+ 13 16 17+ 19+ 20+ 22 23 25+ 32+ 32+ 34+ 35+"
PLACEBO = "1 1 2 2 3 4 4 5 5 8 8 8 8 11 11 12 12 15 17 22 23"


def lifetimes(weeks: str) -> Lifetimes:
    cells = weeks.split()
    return Lifetimes.from_rows([float(cell.rstrip("+")) for cell in cells], [not cell.endswith("+") for cell in cells])


def rows_of(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    data = SETS[name]
    time, event, arm, stratum = (np.array(data[column]) for column in ("time", "event", "arm", "stratum"))
    return time, event == 1, arm, stratum


def split(time: np.ndarray, event: np.ndarray, label: np.ndarray, labels: int) -> list[Lifetimes]:
    return [Lifetimes.from_rows(time[label == k], event[label == k]) for k in range(labels)]


def arms_of(name: str) -> list[Lifetimes]:
    time, event, arm, _ = rows_of(name)
    return split(time, event, arm, len(SETS[name]["arms"]))


def watched(rng: np.random.Generator, n: int, rate: float, longest: float = 2.0) -> Lifetimes:
    """Exponential times of n users who are watched for a uniform time up to `longest`, in hundredths (so with ties)."""
    event = rng.exponential(1 / rate, n)
    until = rng.uniform(0, longest, n)
    return Lifetimes.from_rows(np.ceil(100 * np.minimum(event, until)), event <= until)


def assert_same(left: ArmVector, right: ArmVector, rtol: float = 1e-12) -> None:
    assert_array_equal(left.n, right.n)
    assert_allclose(left.mean, right.mean, rtol=rtol)
    assert_allclose(left.covariance, right.covariance, rtol=rtol, atol=1e-300)


def test_remission_equals_the_textbook_table() -> None:
    """Klein & Moeschberger 2003, Tables 4.1B: estimate and standard error to three decimals."""
    table = {6: (0.857, 0.076), 7: (0.807, 0.087), 10: (0.753, 0.096), 13: (0.690, 0.107), 16: (0.627, 0.114)}
    table |= {22: (0.538, 0.128), 23: (0.448, 0.135)}
    for week, (survival, se) in table.items():
        arms = conversion([lifetimes(TREATED)], week)
        assert (1 - arms.mean[0], arms.se[0]) == pytest.approx((survival, se), abs=6e-4)
    assert logrank([[lifetimes(TREATED), lifetimes(PLACEBO)]]).statistic == pytest.approx(16.79, abs=5e-3)


@pytest.mark.parametrize("name", SETS)
def test_conversion_and_restricted_mean_equal_r_survival(name: str) -> None:
    expected = SETS[name]["arms"]
    for row, at in enumerate(SETS[name]["at"]):
        share = conversion(arms_of(name), at)
        assert_allclose(1 - share.mean, [arm["survival"][row] for arm in expected], rtol=1e-13)
        assert_allclose(share.se, [arm["se"][row] for arm in expected], rtol=1e-12)
        area = restricted_mean(arms_of(name), at)
        assert_allclose(area.mean, [arm["rmst"][row] for arm in expected], rtol=1e-13)
        assert_allclose(area.se, [arm["rmst_se"][row] for arm in expected], rtol=1e-12)
        other = SETS[name]["lifelines"]["arms"]
        assert_allclose(1 - share.mean, [arm["survival"][row] for arm in other], rtol=1e-13)
        assert_allclose(area.mean, [arm["rmst"][row] for arm in other], rtol=1e-13)


@pytest.mark.parametrize("name", SETS)
def test_curve_equals_r_survival_and_lifelines(name: str) -> None:
    for index, arm in enumerate(arms_of(name)):
        points = curve(arm, 0.05)
        rows = np.searchsorted(points.times, SETS[name]["at"], side="right") - 1
        for expected in (SETS[name]["arms"][index], SETS[name]["lifelines"]["arms"][index]):
            for limit in ("survival", "lower", "upper"):
                assert_allclose(getattr(points, limit)[rows], expected[limit], rtol=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_logrank_equals_r_survival_and_lifelines(name: str) -> None:
    time, event, arm, stratum = rows_of(name)
    k = len(SETS[name]["arms"])
    plain = logrank([arms_of(name)])
    assert plain.df == k - 1
    assert plain.statistic == pytest.approx(SETS[name]["logrank"], rel=1e-11)
    assert plain.statistic == pytest.approx(SETS[name]["lifelines"]["logrank"], rel=1e-11)
    strata = [split(time[stratum == s], event[stratum == s], arm[stratum == s], k) for s in np.unique(stratum)]
    assert logrank(strata).statistic == pytest.approx(SETS[name]["stratified"], rel=1e-11)


def test_tied_data_equal_statsmodels() -> None:
    rng = np.random.default_rng(1)
    time = rng.integers(1, 12, size=150).astype(float)
    event, arm, stratum = rng.random(150) < 0.6, rng.integers(0, 3, size=150), rng.integers(0, 4, size=150)
    arms = split(time, event, arm, 3)
    for k in range(3):
        oracle = SurvfuncRight(time[arm == k], event[arm == k])
        at = [conversion([arms[k]], t) for t in oracle.surv_times]
        assert_allclose([1 - a.mean[0] for a in at], oracle.surv_prob, rtol=1e-12, atol=1e-15)
        assert_allclose([a.se[0] for a in at], oracle.surv_prob_se, rtol=1e-12)
    test = logrank([arms])
    assert (test.statistic, test.p_value) == pytest.approx(survdiff(time, event, arm), rel=1e-10)
    strata = [split(time[stratum == s], event[stratum == s], arm[stratum == s], 3) for s in range(4)]
    test = logrank(strata)
    assert (test.statistic, test.p_value) == pytest.approx(survdiff(time, event, arm, strata=stratum), rel=1e-10)


def test_everybody_watched_gives_the_proportion_and_the_mean_of_min() -> None:
    rng = np.random.default_rng(2)
    time = rng.integers(0, 40, size=300).astype(float)
    arm = Lifetimes.from_rows(np.minimum(time, 30), time <= 30)
    for horizon in (1, 15, 30):
        share = conversion([arm], horizon)
        p = np.mean(time <= horizon)
        assert (share.mean[0], share.covariance[0, 0]) == pytest.approx((p, p * (1 - p) / 300), rel=1e-12)
        short = np.minimum(time, horizon)
        area = restricted_mean([arm], horizon)
        assert (area.mean[0], area.covariance[0, 0]) == pytest.approx((short.mean(), short.var() / 300), rel=1e-11)
        assert share.n.tolist() == area.n.tolist() == [300]


def test_difference_of_large_closed_windows_is_that_of_means() -> None:
    rng = np.random.default_rng(3)
    converted = [rng.random(4000) < p for p in (0.1, 0.13)]
    arms = conversion([Lifetimes.from_rows(np.where(c, 1.0, 7.0), c) for c in converted], 7)
    by_survival = difference(arms, 1, 0, Fixed(0.05))
    by_means = difference(means([Moments.from_rows(c[:, None]) for c in converted]), 1, 0, Fixed(0.05))
    assert by_survival.estimate == pytest.approx(by_means.estimate, rel=1e-12)
    assert by_survival.p_value == pytest.approx(by_means.p_value, rel=2e-3)
    assert (by_survival.statistic_name, by_survival.df) == ("z", None)


def test_event_comes_before_censoring_at_the_same_time() -> None:
    arm = Lifetimes.from_rows([1, 1, 2, 3], [True, False, False, False])
    assert conversion([arm], 1).mean[0] == pytest.approx(1 / 4)


def test_merging_equals_pooling_the_rows() -> None:
    time, event, _, _ = rows_of("lung")
    parts = [Lifetimes.from_rows(time[k::3], event[k::3]) for k in range(3)]
    pooled = Lifetimes.from_rows(time, event)
    for merged in (reduce(add, parts), parts[2] + (parts[1] + parts[0]), EMPTY + pooled + EMPTY):
        for column in ("times", "events", "censored"):
            assert_array_equal(getattr(merged, column), getattr(pooled, column))
    assert pooled.n == len(time)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_unit_of_time_changes_only_the_mean_time(unit: float) -> None:
    time, event, arm, _ = rows_of("veteran")
    plain, scaled = split(time, event, arm, 4), split(time * unit, event, arm, 4)
    assert_same(conversion(scaled, 100 * unit), conversion(plain, 100))
    assert logrank([scaled]).statistic == pytest.approx(logrank([plain]).statistic, rel=1e-12)
    left, right = restricted_mean(scaled, 100 * unit), restricted_mean(plain, 100)
    assert_allclose(left.mean, right.mean * unit, rtol=1e-12)
    assert_allclose(left.se, right.se * unit, rtol=1e-12)


def test_logrank_ignores_the_order_of_arms_and_any_increasing_clock() -> None:
    time, event, arm, _ = rows_of("veteran")
    plain = logrank([split(time, event, arm, 4)])
    assert logrank([split(time, event, arm, 4)[::-1]]).statistic == pytest.approx(plain.statistic, rel=1e-12)
    assert logrank([split(np.log1p(time), event, arm, 4)]).statistic == pytest.approx(plain.statistic, rel=1e-12)


def test_logrank_loses_a_degree_for_an_arm_never_at_risk_with_another() -> None:
    arms = arms_of("gehan")
    assert logrank([[*arms, EMPTY]]) == logrank([arms])
    apart = [[*arms, EMPTY], [EMPTY, EMPTY, arms[0]]]
    assert logrank(apart).df == 1


def test_logrank_far_tail_is_not_zero() -> None:
    slow, fast = (Lifetimes(np.arange(1.0, 501), np.full(500, d), np.full(500, 5 - d)) for d in (1, 4))
    test = logrank([[slow, fast]])
    assert test.p_value == pytest.approx(math.exp(scipy.stats.chi2.logsf(test.statistic, 1)), rel=1e-8)
    assert 0 < test.p_value < 1e-100


def test_strata_with_another_allocation_and_no_effect_show_none() -> None:
    rng = np.random.default_rng(4)
    strata = [[watched(rng, n, rate) for n in sizes] for rate, sizes in ((0.1, (5000, 5000)), (2.0, (9000, 1000)))]
    pooled = [first + second for first, second in zip(*strata, strict=True)]
    assert logrank([pooled]).statistic > 500
    assert logrank(strata).statistic < 9
    for builder in (conversion, restricted_mean):
        naive = difference(builder(pooled, 100), 1, 0, Fixed(0.05))
        fair = difference(stratified([builder(arms, 100) for arms in strata]), 1, 0, Fixed(0.05))
        assert abs(naive.statistic) > 20
        assert abs(fair.statistic) < 3


def test_intervals_cover_under_censoring() -> None:
    rng = np.random.default_rng(5)
    runs, rates, at = 1500, (1.0, 1.4), 150
    truth = {
        conversion: -math.expm1(-rates[1] * 1.5) + math.expm1(-rates[0] * 1.5),
        restricted_mean: -100 * (math.expm1(-rates[1] * 1.5) / rates[1] - math.expm1(-rates[0] * 1.5) / rates[0]),
    }
    # Times are rounded up to hundredths: half a unit for each that ends before the horizon.
    truth[restricted_mean] += 0.5 * truth[conversion]
    missed = dict.fromkeys(truth, 0)
    for _ in range(runs):
        arms = [watched(rng, 300, rate) for rate in rates]
        for builder, value in truth.items():
            effect = difference(builder(arms, at), 1, 0, Fixed(0.05))
            missed[builder] += not effect.lower <= value <= effect.upper
    low, high = scipy.stats.binom.interval(0.999, runs, 0.05)
    assert all(low <= count <= high for count in missed.values()), missed


def test_logrank_p_is_uniform_when_arms_are_censored_differently() -> None:
    rng = np.random.default_rng(6)
    p = [
        logrank(
            [[watched(rng, n, rate, longest) for n, longest in ((60, 1.0), (90, 3.0))] for rate in (0.5, 2)]
        ).p_value
        for _ in range(1000)
    ]
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001


def test_curve_has_numbers_only() -> None:
    for weeks in (TREATED, PLACEBO, "1", "2 2 2", "1 5+", "3 4 4+ 9"):
        points = curve(lifetimes(weeks), 0.1)
        values = np.array([points.lower, points.survival, points.upper])
        assert np.isfinite(values).all()
        assert (np.diff(values, axis=0) >= 0).all()
        assert (np.diff(values[1:], axis=1) <= 0).all()
        assert values.min() >= 0
        assert values.max() <= 1
        assert points.times[-1] == lifetimes(weeks).times[-1]
    wide, narrow = curve(lifetimes(TREATED), 0.01), curve(lifetimes(TREATED), 0.2)
    assert (wide.lower < narrow.lower).all()
    assert (wide.upper > narrow.upper).all()


def test_curve_keeps_its_upper_limit_when_nobody_is_left() -> None:
    points = curve(lifetimes(PLACEBO), 0.05)
    assert (points.survival[-1], points.lower[-1]) == (0, 0)
    assert points.upper[-1] == points.upper[-2] > 0.19
    assert curve(lifetimes("2 2"), 0.05).upper.tolist() == [1]


def test_curve_without_events_has_no_points() -> None:
    for arm in (EMPTY, lifetimes("3+ 4+")):
        assert curve(arm, 0.05).times.size == 0


def test_horizon_that_nobody_reached_is_a_problem() -> None:
    arms = [lifetimes("1 2 8+"), lifetimes("1 2 5+ 5")]
    for builder in (conversion, restricted_mean):
        builder(arms, 5)
        with pytest.raises(StatError) as caught:
            builder(arms, 5.5)
        assert caught.value.code is Problem.HORIZON_NOT_REACHED
        assert caught.value.facts == {"arm": 1, "horizon": 5.5, "reached": 5.0}


def test_everybody_converted_early_is_known_at_any_horizon() -> None:
    arms = [lifetimes("1 2 2 4"), lifetimes("1 3+ 3")]
    assert conversion(arms[:1], 100).mean[0] == 1
    assert conversion(arms[:1], 100).covariance[0, 0] == 0
    area = restricted_mean(arms[:1], 100)
    assert (area.mean[0], area.covariance[0, 0]) == pytest.approx((9 / 4, np.var([1, 2, 2, 4]) / 4))


def test_nobody_converted_has_no_variance() -> None:
    arms = conversion([lifetimes("5+ 9+ 9+"), lifetimes("8+ 8+")], 7)
    assert arms.mean.tolist() == [0, 0]
    with pytest.raises(StatError) as caught:
        difference(arms, 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.ZERO_VARIANCE
    assert restricted_mean([lifetimes("8+ 8+")], 7).mean[0] == 7


def test_small_arms_and_tests_without_events_are_problems() -> None:
    for arm in (EMPTY, lifetimes("3")):
        for builder in (conversion, restricted_mean):
            with pytest.raises(StatError) as caught:
                builder([lifetimes(PLACEBO), arm], 2)
            assert caught.value.code is Problem.NOT_ENOUGH_DATA
            assert caught.value.facts["arm"] == 1
    for arms in ([lifetimes("1+"), lifetimes("2+")], [lifetimes("1 2"), EMPTY], [EMPTY, EMPTY]):
        with pytest.raises(StatError) as caught:
            logrank([arms])
        assert caught.value.code is Problem.ZERO_VARIANCE


@pytest.mark.parametrize("durations", [[1.0, math.nan], [math.inf, 1.0], [-1.0, 2.0], [[1.0, 2.0]], [1.0]])
def test_times_that_are_none_are_refused(durations: list[float]) -> None:
    with pytest.raises(ValueError, match=r"times|durations"):
        Lifetimes.from_rows(durations, [True, False])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="booleans"):
        Lifetimes.from_rows([1.0, 2.0], [1, 0])
    with pytest.raises(ValueError, match="ascending"):
        Lifetimes(np.array([2.0, 1.0]), np.array([1, 1]), np.array([0, 0]))
    with pytest.raises(ValueError, match="counts"):
        Lifetimes(np.array([1.0]), np.array([0.5]), np.array([0]))
    for events, censored in (([-1], [2]), ([0], [0])):
        with pytest.raises(ValueError, match="zero"):
            Lifetimes(np.array([1.0]), np.array(events), np.array(censored))
    with pytest.raises(ValueError, match="must all be"):
        Lifetimes(np.array([1.0]), np.array([1, 1]), np.array([0]))
    for horizon in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match="horizon"):
            conversion([lifetimes(PLACEBO)], horizon)
    with pytest.raises(ValueError, match="alpha"):
        curve(lifetimes(PLACEBO), 1.0)
    for strata in ([], [[EMPTY, EMPTY], [EMPTY]]):
        with pytest.raises(ValueError, match="same arms"):
            logrank(strata)
