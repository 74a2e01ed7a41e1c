import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.groupsequential import (
    Sides,
    Spending,
    bounds,
    crossing,
    futility,
    inflation,
    required_drift,
    sequential_p,
    stagewise,
)
from stats.horizon import Fixed, GroupSequential
from tests.stats.reference import load

OBF, POCOCK = Spending("obrien_fleming"), Spending("pocock")
SPENDING = {
    "obrien_fleming": OBF,
    "pocock": POCOCK,
    "hwang_shih_decani": Spending("hwang_shih_decani", -4.0),
    "power": Spending("power", 2.0),
}
REFERENCE = load("groupsequential.json")
FIVE = (0.2, 0.4, 0.6, 0.8, 1.0)
UNEVEN = (0.11, 0.45, 0.9)
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=40)


def fixed_z(alpha: float) -> float:
    return float(scipy.stats.norm.isf(alpha / 2))


def below_all(times: tuple[float, ...], upper: np.ndarray, drift: float = 0.0) -> float:
    """P(every z below its bound) by the multivariate normal distribution."""
    t = np.array(times)
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    return float(
        scipy.stats.multivariate_normal(
            drift * np.sqrt(t), correlation, seed=1, maxpts=10**6, abseps=1e-9, releps=1e-9
        ).cdf(upper)
    )


@pytest.mark.parametrize("name", REFERENCE["designs"])
def test_bounds_drift_and_sample_size_equal_rpact(name: str) -> None:
    expected = REFERENCE["designs"][name]
    times, sides = tuple(expected["information"]), expected["sides"]
    spending = SPENDING[name.split("/")[0].split()[0]]
    alpha = 0.05 * sides / 2
    upper = bounds(times, alpha, spending, sides=sides)
    assert upper == pytest.approx(expected["bounds"], abs=1e-7)
    lower = None if sides == 2 else np.full(upper.size, -np.inf)
    drift = required_drift(times, upper, 0.8, lower)
    assert drift**2 == pytest.approx(expected["shift"], rel=1e-6)
    factor = inflation(times, alpha, 0.8, spending, sides=sides)
    assert factor == pytest.approx(expected["inflation"], rel=1e-6)
    average = crossing(times, upper, drift, lower).expected_information * factor
    assert average == pytest.approx(expected["expected"], rel=1e-6)


def test_spending_per_side_is_the_convention() -> None:
    assert bounds(FIVE, 0.05, OBF) == pytest.approx([4.8769, 3.3570, 2.6803, 2.2898, 2.0310], abs=5e-5)
    # The other convention spends all of alpha in one function, half of each step on a side.
    steps = np.diff([OBF.spent(t, 0.05) for t in FIVE], prepend=0.0) / 2
    other = [4.383, 3.100, 2.553, 2.254, 2.064]
    assert crossing(FIVE, np.array(other), 0.0).upper == pytest.approx(steps, rel=0.02)


@pytest.mark.parametrize(
    ("k", "pocock", "obrien_fleming"), [(2, 2.178, 1.977), (3, 2.289, 2.004), (5, 2.413, 2.040), (10, 2.555, 2.087)]
)
def test_engine_gives_the_constants_of_jennison_and_turnbull(k: int, pocock: float, obrien_fleming: float) -> None:
    """Tables 2.1 and 2.3, alpha 0.05: constant bounds, and bounds c sqrt(K / k)."""
    times = tuple((i + 1) / k for i in range(k))

    def constant(shape: np.ndarray) -> float:
        return float(scipy.optimize.brentq(lambda c: crossing(times, c * shape, 0.0).rejected - 0.05, 1, 4))

    assert constant(np.ones(k)) == pytest.approx(pocock, abs=6e-4)
    assert constant(1 / np.sqrt(times)) == pytest.approx(obrien_fleming, abs=6e-4)


@pytest.mark.parametrize(("looks", "false_alarms"), [(2, 0.083), (5, 0.142), (10, 0.193), (20, 0.248)])
def test_unadjusted_looks_cry_wolf_as_armitage_found(looks: int, false_alarms: float) -> None:
    times = tuple((i + 1) / looks for i in range(looks))
    assert crossing(times, np.full(looks, 1.96), 0.0).rejected == pytest.approx(false_alarms, abs=6e-4)


@pytest.mark.parametrize("drift", [-1.0, 0.0, 2.8])
def test_crossing_equals_the_multivariate_normal(drift: float) -> None:
    upper = np.array([2.5, 2.2, 2.1])
    walked = crossing(UNEVEN, upper, drift, np.full(3, -np.inf)).rejected
    assert walked == pytest.approx(1 - below_all(UNEVEN, upper, drift), abs=1e-7)


@pytest.mark.parametrize("spending", SPENDING.values(), ids=SPENDING)
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("times", [FIVE, UNEVEN, (0.3, 0.3003, 0.31, 1.0), (0.02, 1.4)])
def test_spent_alpha_is_the_probability_of_crossing(spending: Spending, sides: Sides, times: tuple[float, ...]) -> None:
    alpha = 0.03
    upper = bounds(times, alpha, spending, sides=sides)
    up = crossing(times, upper, 0.0, None if sides == 2 else np.full(upper.size, -np.inf)).upper
    assert np.cumsum(up) == pytest.approx([spending.spent(t, alpha / sides) for t in times], rel=1e-10)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.floats(1e-8, 0.4), st.sampled_from([*SPENDING]))
@lawful
def test_any_looks_spend_alpha_and_nest(gaps: list[float], alpha: float, name: str) -> None:
    times = tuple((np.cumsum(gaps) / sum(gaps)).tolist())
    times = (*times[:-1], 1.0)
    upper = bounds(times, alpha, SPENDING[name])
    assert crossing(times, upper, 0.0).rejected == pytest.approx(alpha, rel=1e-9)
    assert (bounds(times, alpha / 2, SPENDING[name]) > upper).all()
    assert upper[-1] >= fixed_z(alpha) * (1 - 1e-12)


@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-9])
@pytest.mark.parametrize("spending", SPENDING.values(), ids=SPENDING)
def test_one_look_is_the_fixed_test(alpha: float, spending: Spending) -> None:
    assert bounds((1.0,), alpha, spending) == pytest.approx([fixed_z(alpha)], rel=1e-12)
    assert bounds((0.7,), alpha, spending, final=True) == pytest.approx([fixed_z(alpha)], rel=1e-12)
    assert sequential_p(fixed_z(alpha), (1.0,), spending) == pytest.approx(alpha, rel=1e-8)
    assert inflation((1.0,), alpha, 0.8, spending) == pytest.approx(1)


def test_over_and_under_running_spend_what_is_left() -> None:
    planned = bounds((0.5, 1.0), 0.05, POCOCK)
    over, under = bounds((0.5, 1.3), 0.05, POCOCK), bounds((0.5, 0.6), 0.05, POCOCK, final=True)
    assert over[0] == planned[0] == under[0]
    assert over[1] > planned[1] > under[1]
    for times, upper in (((0.5, 1.3), over), ((0.5, 0.6), under)):
        assert crossing(times, upper, 0.0).rejected == pytest.approx(0.05, rel=1e-10)


def test_nearly_no_alpha_left_gives_high_but_finite_bounds() -> None:
    early = bounds((0.01, 0.02, 1.0), 1e-12, OBF)
    assert np.isfinite(early).all()
    assert (np.diff(early) < 0).all()
    near = bounds((0.5, 0.5001), 0.05, POCOCK)
    spent = POCOCK.spent(0.5001, 0.025) - POCOCK.spent(0.5, 0.025)
    assert crossing((0.5, 0.5001), near, 0.0).upper[1] == pytest.approx(spent, rel=1e-8)


def test_finer_quadrature_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from stats import groupsequential

    times = (0.05, 0.1, 0.105, 0.5, 0.9, 1.0)
    coarse = [groupsequential._bounds.__wrapped__(times, level, POCOCK, 2, False) for level in (-3.0, -30.0)]
    monkeypatch.setattr(groupsequential, "_PANEL", 1.5)
    fine = [groupsequential._bounds.__wrapped__(times, level, POCOCK, 2, False) for level in (-3.0, -30.0)]
    assert np.array(coarse) == pytest.approx(np.array(fine), abs=1e-10)


def test_spending_functions_written_out() -> None:
    t, alpha = 0.3, 0.025
    assert OBF.spent(t, alpha) == pytest.approx(2 * scipy.stats.norm.sf(scipy.stats.norm.isf(alpha / 2) / math.sqrt(t)))
    assert POCOCK.spent(t, alpha) == pytest.approx(alpha * math.log(1 + (math.e - 1) * t))
    hsd = alpha * (1 - math.exp(4 * t)) / (1 - math.exp(4))
    assert Spending("hwang_shih_decani", -4.0).spent(t, alpha) == pytest.approx(hsd)
    assert Spending("hwang_shih_decani", 0.0).spent(t, alpha) == pytest.approx(alpha * t)
    assert Spending("power", 3.0).spent(t, alpha) == pytest.approx(alpha * t**3)
    assert all(spending.spent(1.2, alpha) == pytest.approx(alpha) for spending in SPENDING.values())


@pytest.mark.parametrize("spending", SPENDING.values(), ids=SPENDING)
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("times", [FIVE, FIVE[:3], (0.3, 0.32, 1.3)])
def test_p_is_the_level_whose_bound_is_met(spending: Spending, sides: Sides, times: tuple[float, ...]) -> None:
    for alpha in (0.9, 0.4, 0.05, 1e-3, 1e-6, 1e-9, 1.1e-12):
        z = bounds(times, alpha, spending, sides=sides)[-1]
        assert sequential_p(z, times, spending, sides=sides) == pytest.approx(alpha, rel=1e-6)
    for alpha in (1e-15, 1e-40, 1e-150):
        z = bounds(times, alpha, spending, sides=sides)[-1]
        assert sequential_p(z, times, spending, sides=sides) == pytest.approx(alpha, rel=1e-4)


@pytest.mark.parametrize("sides", [1, 2])
def test_p_falls_with_z_into_the_far_tail(sides: Sides) -> None:
    for times in (FIVE, FIVE[:1]):
        p = [sequential_p(z, times, OBF, sides=sides) for z in np.arange(-3 if sides == 1 else 0, 26, 0.05)]
        assert p[0] == 1
        assert all(b <= a for a, b in pairwise(p))
        assert 0 < sequential_p(40.0, times, OBF, sides=sides) <= p[-1] < 1e-20
    assert sequential_p(-2.5, FIVE, OBF) == sequential_p(2.5, FIVE, OBF)


def test_repeated_inference_equals_rpact() -> None:
    reference = REFERENCE["analysis"]
    for look, (z, effect) in enumerate(zip(reference["z"], reference["effect"], strict=True), start=1):
        horizon = GroupSequential(0.025, FIVE[:look], OBF)
        # rpact searches its repeated p to about 1e-6.
        assert horizon.p_value_one_sided(z, 0, None) == pytest.approx(reference["repeated_p"][look - 1], abs=1.5e-6)
        lower = effect - horizon.critical_one_sided(0, None) * effect / z
        assert lower == pytest.approx(reference["repeated_lower"][look - 1], abs=1e-6)


def test_stagewise_equals_rpact() -> None:
    reference = REFERENCE["analysis"]
    z, effect = reference["z"][1], reference["effect"][1]
    found = stagewise(z, 2, FIVE, bounds(FIVE, 0.05, OBF), effect / z, 0.05)
    assert found.p_value == pytest.approx(2 * reference["final_p"], rel=1e-4)
    assert found.lower == pytest.approx(reference["final_lower"], abs=1e-6)
    assert found.upper == pytest.approx(reference["final_upper"], abs=1e-6)
    assert found.estimate == pytest.approx(reference["median_unbiased"], abs=1e-6)


def test_stagewise_p_is_spent_alpha_at_the_bound_and_mirrors() -> None:
    upper = bounds(FIVE, 0.05, POCOCK)
    for look, (z, t) in enumerate(zip(upper, FIVE, strict=True), start=1):
        found = stagewise(z, look, FIVE, upper, 2.0, 0.05)
        assert found.p_value == pytest.approx(2 * POCOCK.spent(t, 0.025), rel=1e-9)
        back = stagewise(-z, look, FIVE, upper, 2.0, 0.05)
        assert (back.estimate, back.lower, back.upper) == (-found.estimate, -found.upper, -found.lower)
    assert found.lower == pytest.approx(0, abs=1e-8)


def test_stagewise_at_the_first_look_is_the_fixed_interval() -> None:
    upper = bounds(FIVE, 0.05, POCOCK)
    found = stagewise(4.0, 1, FIVE, upper, 0.5, 0.05)
    assert found.estimate == pytest.approx(2.0)
    assert (found.lower, found.upper) == pytest.approx((2 - 0.5 * fixed_z(0.05), 2 + 0.5 * fixed_z(0.05)))
    assert found.p_value == pytest.approx(Fixed(0.05).p_value(4.0, 0, None))


@pytest.mark.parametrize(("z", "look"), [(40.0, 1), (40.0, 3), (-40.0, 5), (0.0, 5), (0.5, 2)])
def test_stagewise_limits_are_ordered_for_any_outcome(z: float, look: int) -> None:
    found = stagewise(z, look, FIVE, bounds(FIVE, 0.05, OBF), 1e9, 0.05)
    assert -math.inf < found.lower < found.estimate < found.upper < math.inf
    assert 0 <= found.p_value <= 1
    assert (found.p_value < 0.05) == (found.lower > 0 or found.upper < 0)


def test_futility_equals_rpact_and_costs_no_level() -> None:
    reference = REFERENCE["futility"]
    times = tuple(reference["information"])
    upper = bounds(times, 0.025, OBF, sides=1)
    lower = futility(times, upper, math.sqrt(reference["shift"]), 0.2, OBF)
    assert lower == pytest.approx([*reference["lower"], upper[-1]], abs=1e-6)
    crossed = crossing(times, upper, math.sqrt(reference["shift"]), lower)
    assert crossed.lower.sum() == pytest.approx(0.2, rel=1e-6)
    assert crossed.upper.sum() == pytest.approx(0.8, rel=1e-6)
    assert crossing(times, upper, 0.0, lower).upper.sum() < 0.025


def test_more_drift_more_power_and_power_is_reached() -> None:
    upper = bounds(UNEVEN, 0.05, OBF, final=True)
    power = [crossing(UNEVEN, upper, drift).rejected for drift in (0.0, 1.0, 2.0, 4.0, 40.0)]
    assert power[0] == pytest.approx(0.05)
    assert all(a < b for a, b in pairwise(power))
    assert power[-1] == pytest.approx(1)
    drift = required_drift(UNEVEN, upper, 0.9)
    assert crossing(UNEVEN, upper, drift).upper.sum() == pytest.approx(0.9, rel=1e-10)


def test_inflation_of_five_and_twenty_looks() -> None:
    assert inflation(FIVE, 0.05, 0.8, OBF) == pytest.approx(1.025, abs=5e-4)
    assert inflation(tuple(k / 20 for k in range(1, 21)), 0.05, 0.8, OBF) == pytest.approx(1.046, abs=5e-4)


def test_many_looks_approach_a_limit() -> None:
    last = [bounds(tuple((np.arange(k) + 1) / k), 0.05, POCOCK)[-1] for k in (25, 50, 100)]
    assert last[0] < last[1] < last[2] < 2.7


def test_horizon_reads_the_last_look() -> None:
    horizon = GroupSequential(0.05, FIVE[:3], OBF)
    assert horizon.statistic_name(12.0) == "z"
    assert horizon.critical(100, 12.0) == bounds(FIVE[:3], 0.05, OBF)[-1]
    assert horizon.critical_one_sided(100, None) == bounds(FIVE[:3], 0.05, OBF, sides=1)[-1]
    assert horizon.p_value(-horizon.critical(1, None), 100, None) == pytest.approx(0.05, rel=1e-7)
    assert horizon.p_value_one_sided(horizon.critical_one_sided(1, None), 1, None) == pytest.approx(0.05, rel=1e-7)
    assert horizon == GroupSequential(0.05, (0.2, 0.4, 0.6), Spending("obrien_fleming"))
    assert len({horizon, GroupSequential(0.05, FIVE[:3], OBF)}) == 1
    ended = GroupSequential(0.05, FIVE[:3], OBF, final=True)
    assert ended.critical(1, None) < horizon.critical(1, None)
    assert ended.p_value(2.5, 1, None) < horizon.p_value(2.5, 1, None)


@pytest.mark.parametrize(
    "information", [(), (0.0, 1.0), (0.5, 0.5), (0.5, 0.4), (0.5, 0.50001), (1.0, 1.2), (0.5, math.nan), (math.inf,)]
)
def test_refuses_looks_that_do_not_grow(information: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="information"):
        bounds(information, 0.05, OBF)
    with pytest.raises(ValueError, match="information"):
        GroupSequential(0.05, information, OBF)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("obrien_fleming", 1.0), ("power", None), ("power", 0.0), ("hwang_shih_decani", math.nan), ("wang", None)],
)
def test_refuses_unknown_spending(name: str, parameter: float | None) -> None:
    with pytest.raises(ValueError, match=r"parameter|power|unknown"):
        Spending(name, parameter)


def test_refuses_what_is_no_outcome_or_no_level() -> None:
    upper = bounds(FIVE, 0.05, OBF)
    for z, look, se in ((math.nan, 1, 1.0), (2.0, 0, 1.0), (2.0, 6, 1.0), (2.0, 2, 0.0)):
        with pytest.raises(ValueError, match="outcome"):
            stagewise(z, look, FIVE, upper, se, 0.05)
    with pytest.raises(ValueError, match="alpha"):
        bounds(FIVE, 1.0, OBF)
    with pytest.raises(ValueError, match="z must be"):
        sequential_p(math.nan, FIVE, OBF)
    with pytest.raises(ValueError, match="power"):
        required_drift(FIVE, upper, 0.02)
    with pytest.raises(ValueError, match="drift"):
        futility(FIVE, upper, 30.0, 0.2, POCOCK)
    with pytest.raises(ValueError, match="shape"):
        crossing(FIVE, upper[:3], 0.0)
