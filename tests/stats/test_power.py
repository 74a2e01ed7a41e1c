import dataclasses
import math
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.power import TTestIndPower, zt_ind_solve_power
from statsmodels.stats.proportion import power_proportions_2indep

from stats.effects import Direction
from stats.errors import Problem, StatError
from stats.groupsequential import Spending, inflation
from stats.power import Conversion, Hazard, Looks, Mean, Metric, Plan, detectable, expected_users, power, users
from tests.stats.reference import load

REFERENCE = load("power.json")
OBF = Spending("obrien_fleming")
FIVE = Looks.equal(5, OBF)
STOPPING: list[Literal["fixed", "sequential"] | Looks] = ["fixed", "sequential", FIVE]
METRICS: list[Metric] = [Mean(12.0, 900.0), Conversion(0.05), Hazard()]
EFFECT = {Mean: 1.5, Conversion: 0.01, Hazard: 0.2}
# What rounding up to whole users may add to the power.
ROUNDING = 1e-3


@pytest.mark.parametrize(("sd_apart", "per_arm"), [(2.0, 6), (1.0, 10), (0.5, 64), (0.02, 40_000)])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_mean_equals_statsmodels_noncentral_t(sd_apart: float, per_arm: int, alpha: float) -> None:
    plan = Plan(Mean(7.0, 9.0), alpha=alpha)
    oracle = TTestIndPower().power(sd_apart, per_arm, alpha)
    assert power(plan, 2 * per_arm, 3 * sd_apart) == pytest.approx(oracle, rel=1e-9)


def test_mean_equals_r() -> None:
    assert power(Plan(Mean(0.0, 1.0)), 12, 2.0) == pytest.approx(
        REFERENCE["power at 6 per arm, mean 2, sd 1"], rel=1e-9
    )
    needed = 2 * REFERENCE["mean 1, sd 3, power .8, per arm"]
    assert users(Plan(Mean(0.0, 9.0)), 1.0) == math.ceil(needed)
    # R leaves out the wrong side.
    assert detectable(Plan(Mean(0.0, 9.0)), needed) == pytest.approx(1.0, rel=1e-5)


def test_unequal_shares_equal_simulated_welch() -> None:
    rng = np.random.default_rng(5)
    control, treated = rng.normal(size=(40_000, 30)), rng.normal(0.9, size=(40_000, 10))
    hits = (scipy.stats.ttest_ind(treated, control, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert power(Plan(Mean(0.0, 1.0), shares=(0.75, 0.25)), 40, 0.9) == pytest.approx(hits, abs=0.012)


def test_conversion_equals_r_and_statsmodels() -> None:
    plan = Plan(Conversion(0.05))
    assert users(plan, 0.01) == math.ceil(2 * REFERENCE["conversion .05 to .06, power .8, per arm"])
    small = 2 * REFERENCE["conversion .3 to .5, power .9, level .01, per arm"]
    assert power(Plan(Conversion(0.3), alpha=0.01), small, 0.2) == pytest.approx(0.9, abs=1e-4)
    oracle = power_proportions_2indep(0.01, 0.05, 8000, ratio=1, alpha=0.05, value=0).power
    assert power(plan, 16_000, 0.01) == pytest.approx(oracle, abs=1e-9)


def test_adjusted_conversion_uses_the_unpooled_error() -> None:
    variance = 0.05 * 0.95 + 0.06 * 0.94
    n = 16_000
    shift = 0.01 / math.sqrt(variance * 0.7 / (n / 2))
    z = scipy.stats.norm.isf(0.025)
    expected = scipy.stats.norm.sf(z - shift) + scipy.stats.norm.sf(z + shift)
    assert power(Plan(Conversion(0.05), variance_reduction=0.3), n, 0.01) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("share", "key"), [(0.5, ""), (0.75, ", 3 to 1")])
def test_events_equal_schoenfeld_and_rpact(share: float, key: str) -> None:
    plan = Plan(Hazard(), shares=(1 - share, share))
    z = scipy.stats.norm.isf(0.025) + scipy.stats.norm.isf(0.2)
    assert users(plan, math.log(0.7)) == math.ceil(z**2 / (share * (1 - share) * math.log(0.7) ** 2))
    assert users(plan, math.log(0.7)) == math.ceil(REFERENCE["events, hazard ratio .7" + key])


@pytest.mark.parametrize("metric", [Mean(0.0, 4.0), Hazard()])
def test_large_numbers_equal_the_normal_formula(metric: Metric) -> None:
    sd = 2.0 if isinstance(metric, Mean) else 1.0
    per_arm = zt_ind_solve_power(effect_size=0.01 / sd, alpha=0.05, power=0.9)
    assert users(Plan(metric), 0.01, 0.9) == pytest.approx(2 * per_arm, rel=1e-4)


def test_noninferiority_is_one_sided_from_the_margin() -> None:
    plan = Plan(Mean(20.0, 25.0), margin=0.5)
    per_arm = TTestIndPower().solve_power(0.1, power=0.8, alpha=0.05, alternative="larger")
    assert users(plan, 0.0) == math.ceil(2 * per_arm)
    assert users(plan, 0.5) < users(plan, 0.0) < users(plan, -0.2)
    mirrored = dataclasses.replace(plan, direction=Direction.DECREASE)
    assert power(mirrored, 500, -0.1) == power(plan, 500, 0.1)
    assert detectable(plan, users(plan, -0.2)) == pytest.approx(-0.2, abs=1e-3)
    assert detectable(mirrored, users(plan, -0.2)) == pytest.approx(0.2, abs=1e-3)
    for hopeless in (-0.5, -0.6):
        with pytest.raises(StatError, match="not_enough_data"):
            users(plan, hopeless)


def test_noninferiority_of_conversion_uses_the_unpooled_error() -> None:
    plan = Plan(Conversion(0.3), (0.8, 0.2), margin=0.02)
    shift = 0.07 / math.sqrt(0.3 * 0.7 / 1600 + 0.35 * 0.65 / 400)
    assert power(plan, 2000, 0.05) == pytest.approx(scipy.stats.norm.cdf(shift - scipy.stats.norm.isf(0.05)))


def test_noninferiority_of_a_rare_conversion() -> None:
    plan = Plan(Conversion(0.002), margin=0.001, direction=Direction.DECREASE)
    n = users(plan, 0.0)
    z = scipy.stats.norm.isf(0.05) + scipy.stats.norm.isf(0.2)
    assert n == math.ceil(4 * 0.002 * 0.998 * (z / 0.001) ** 2)
    assert detectable(plan, 10 * n) > 0 > detectable(plan, n // 2)


@pytest.mark.parametrize("stopping", STOPPING, ids=["fixed", "sequential", "looks"])
@pytest.mark.parametrize("metric", METRICS, ids=["mean", "conversion", "hazard"])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.3, 0.5)])
def test_users_detectable_and_power_are_inverse(
    metric: Metric, shares: tuple[float, ...], stopping: Literal["fixed", "sequential"] | Looks
) -> None:
    plan, effect = Plan(metric, shares=shares, stopping=stopping), EFFECT[type(metric)]
    n = users(plan, effect, 0.85)
    assert 0.85 <= power(plan, n, effect) < 0.85 + ROUNDING
    assert power(plan, n - 1, effect) < 0.85
    assert power(plan, n, detectable(plan, n, 0.85)) == pytest.approx(0.85, abs=1e-10)
    assert power(plan, n, effect) < power(plan, n, 1.1 * effect)
    assert power(plan, n, effect) < power(plan, n + 1000, effect)


def test_decrease_mirrors_what_is_symmetric() -> None:
    up, down = Plan(Conversion(0.5)), Plan(Conversion(0.5), direction=Direction.DECREASE)
    assert detectable(down, 1000) == pytest.approx(-detectable(up, 1000), rel=1e-12)
    assert users(up, -0.02) == users(up, 0.02)


def test_more_arms_and_smaller_shares_need_more_users() -> None:
    for correction in ("none", "bonferroni", "dunnett"):
        needed = [users(Plan(Conversion(0.1), (1 / k,) * k, correction=correction), 0.02) for k in (2, 3, 4, 6)]
        assert all(a < b for a, b in pairwise(needed))
    shares = [users(Plan(Mean(1.0, 4.0), (1 - share, share)), 0.1) for share in (0.5, 0.4, 0.2, 0.05)]
    assert all(a < b for a, b in pairwise(shares))


@pytest.mark.parametrize(
    ("shares", "key"),
    [((0.25,) * 4, "dunnett, three equal treatments"), ((0.4, 0.3, 0.2, 0.1), "dunnett, shares .4 .3 .2 .1")],
)
def test_dunnett_level_equals_r_and_lies_between(shares: tuple[float, ...], key: str) -> None:
    plan = Plan(Hazard(), shares, correction="dunnett")
    assert scipy.stats.norm.isf(plan.level / 2) == pytest.approx(REFERENCE[key], abs=1e-5)
    assert dataclasses.replace(plan, correction="bonferroni").level < plan.level < 0.05


def test_plan_is_for_the_smallest_treatment() -> None:
    pair = Plan(Conversion(0.1), (0.3, 0.2), correction="none")
    assert power(Plan(Conversion(0.1), (0.3, 0.5, 0.2), correction="none"), 5000, 0.02) == power(pair, 5000, 0.02)


def test_variance_reduction_saves_its_share() -> None:
    raw, adjusted = Plan(Hazard()), Plan(Hazard(), variance_reduction=0.4)
    assert users(adjusted, 0.05) == pytest.approx(0.6 * users(raw, 0.05), rel=1e-3)


def test_price_of_looking() -> None:
    single, always, looks = (users(Plan(Mean(0.0, 1.0), stopping=s), 0.02) for s in STOPPING)
    assert always / single == pytest.approx((3.035 + 0.8416) ** 2 / (1.96 + 0.8416) ** 2, rel=1e-3)
    assert looks / single == pytest.approx(inflation(FIVE.information, 0.05, 0.8, OBF), rel=1e-3)
    assert 1 < looks / single < 1.028


def test_early_stops_save_users_where_there_is_an_effect() -> None:
    plan = Plan(Mean(0.0, 1.0), stopping=FIVE)
    n = users(plan, 0.1)
    average = [expected_users(plan, n, effect) for effect in (0.0, 0.1, 0.2, 10.0)]
    assert n > average[0] > users(dataclasses.replace(plan, stopping="fixed"), 0.1) > average[1] > average[2]
    assert average[3] == pytest.approx(0.2 * n)
    assert expected_users(dataclasses.replace(plan, stopping="fixed"), n, 0.1) == n
    with pytest.raises(ValueError, match="sequence"):
        expected_users(dataclasses.replace(plan, stopping="sequential"), n, 0.1)


def test_extremes_stay_probabilities() -> None:
    for metric in METRICS:
        for stopping in STOPPING:
            plan = Plan(metric, stopping=stopping)
            assert power(plan, 1e12, EFFECT[type(metric)]) == pytest.approx(1)
            assert 0.001 < power(plan, 40, 0.0) <= 0.0501
    assert power(Plan(Mean(0.0, 1.0), margin=0.1), 1e6, -5.0) == 0
    assert 0 < power(Plan(Mean(0.0, 1.0)), 4, 1.0) < 1
    assert users(Plan(Mean(0.0, 1.0)), 1e3) == 4
    assert users(Plan(Conversion(0.5)), 1e-5) == pytest.approx(4 * 0.25 * (2.8016 / 1e-5) ** 2, rel=1e-3)
    assert detectable(Plan(Mean(1e9, 1e18)), 1e6) == pytest.approx(1e9 * 2 * 2.8016 / 1e3, rel=1e-4)


def test_no_plan_where_there_is_none() -> None:
    for stopping in STOPPING:
        with pytest.raises(StatError) as nothing:
            users(Plan(Mean(1.0, 1.0), stopping=stopping), 0.0)
        assert nothing.value.code is Problem.NOT_ENOUGH_DATA
    with pytest.raises(StatError) as impossible:
        detectable(Plan(Conversion(0.99)), 20)
    assert impossible.value.code is Problem.NOT_ENOUGH_DATA
    with pytest.raises(StatError) as empty:
        power(Plan(Mean(1.0, 1.0), (0.9, 0.1)), 19, 1.0)
    assert empty.value.facts == {"n": 1, "needed": 2}


@pytest.mark.parametrize(
    "arguments",
    [
        {"shares": (1.0,)},
        {"shares": (0.5, 0.0)},
        {"shares": (0.7, 0.7)},
        {"alpha": 0.0},
        {"alpha": math.nan},
        {"margin": -1.0},
        {"margin": math.nan},
        {"variance_reduction": 1.0},
        {"correction": "dunnett", "stopping": "sequential"},
        {"correction": "dunnett", "margin": 0.1},
    ],
)
def test_refuses_impossible_plans(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"shares|alpha|margin|variance|Dunnett"):
        Plan(Mean(0.0, 1.0), **arguments)


def test_refuses_impossible_metrics_effects_and_targets() -> None:
    for metric, values in (
        (Mean, (0.0, 0.0)),
        (Mean, (math.nan, 1.0)),
        (Conversion, (1.0,)),
        (Conversion, (math.nan,)),
    ):
        with pytest.raises(ValueError, match=r"variance|rate"):
            metric(*values)
    with pytest.raises(ValueError, match="rate"):
        power(Plan(Conversion(0.3)), 100, 0.8)
    with pytest.raises(ValueError, match="finite"):
        power(Plan(Mean(0.0, 1.0)), 100, math.nan)
    with pytest.raises(ValueError, match="power"):
        users(Plan(Mean(0.0, 1.0)), 1.0, 0.05)
    with pytest.raises(ValueError, match="last planned look"):
        Looks((0.5, 0.9), OBF)
