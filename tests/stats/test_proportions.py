import math

import pytest
import scipy.optimize
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import (
    confint_proportions_2indep,
    proportion_confint,
    proportions_ztest,
)

from stats.errors import Problem, StatError
from stats.proportions import Conversions, difference, difference_score, relative, wilson
from tests.stats.reference import ARMS, CONVERSION, hillstrom, load

REFERENCE = load("proportions.json")
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=200)


@st.composite
def conversions(draw: st.DrawFn) -> Conversions:
    n = draw(st.integers(1, 10 ** draw(st.integers(1, 7))))
    return Conversions(draw(st.integers(0, n)), n)


@pytest.mark.parametrize("case", REFERENCE["difference"]["cases"])
@pytest.mark.parametrize("method", ["mee", "miettinen_nurminen"])
def test_difference_equals_newcombe_table_2(case: dict, method: str) -> None:
    effect = difference(
        Conversions(*case["treatment"]),
        Conversions(*case["control"]),
        0.05,
        miettinen_nurminen=method == "miettinen_nurminen",
    )
    assert (effect.lower, effect.upper) == pytest.approx(case[method], abs=5.1e-5)


@pytest.mark.parametrize("case", REFERENCE["ratio"]["cases"])
def test_relative_equals_r_propcis(case: dict) -> None:
    lift = relative(Conversions(*case["treatment"]), Conversions(*case["control"]), 0.05)
    assert (lift.lower + 1, lift.upper + 1) == pytest.approx(case["koopman"], abs=6e-7)


@pytest.mark.parametrize("case", REFERENCE["rate"]["cases"])
def test_wilson_equals_newcombe_table_1(case: dict) -> None:
    interval = wilson(Conversions(*case["arm"]), 0.05)
    assert (interval.lower, interval.upper) == pytest.approx(case["wilson"], abs=5.1e-5)


@pytest.mark.parametrize("arm", [1, 2])
def test_hillstrom_conversion_equals_statsmodels(arm: int) -> None:
    reference = load("hillstrom.json")["expected"][ARMS[arm]]["conversion"]
    moments = hillstrom()
    counts = [Conversions(round(m.mean[CONVERSION] * m.n), m.n) for m in moments]
    effect = difference(counts[arm], counts[0], 0.05)
    lift = relative(counts[arm], counts[0], 0.05)
    assert (effect.statistic, effect.p_value) == pytest.approx((reference["z"], reference["p_value"]), rel=1e-9)
    assert (lift.lower + 1, lift.upper + 1) == pytest.approx(
        (reference["ratio_lower"], reference["ratio_upper"]), rel=1e-8
    )


def test_test_equals_pearson_chi_square() -> None:
    effect = difference(Conversions(30, 200), Conversions(45, 180), 0.05)
    oracle = scipy.stats.chi2_contingency([[30, 170], [45, 135]], correction=False)
    assert effect.statistic**2 == pytest.approx(oracle.statistic)
    assert effect.p_value == pytest.approx(oracle.pvalue)
    assert effect.statistic == pytest.approx(proportions_ztest([30, 45], [200, 180])[0])


@pytest.mark.parametrize("factor", [False, True])
@pytest.mark.parametrize("counts", [(5123, 100_000, 4900, 100_200), (3, 1000, 1, 900), (19, 20, 3, 7)])
def test_relative_equals_statsmodels_score(counts: tuple[int, int, int, int], factor: bool) -> None:
    low, high = confint_proportions_2indep(*counts, compare="ratio", method="score", correction=factor)
    lift = relative(Conversions(*counts[:2]), Conversions(*counts[2:]), 0.05, miettinen_nurminen=factor)
    assert (lift.lower + 1, lift.upper + 1) == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize(
    "counts", [(7, 40, 3, 50), (2, 5000, 9, 80_000), (49_990, 50_000, 99, 100), (12, 10**7, 3, 10**6)]
)
def test_difference_limits_maximise_the_likelihood_and_meet_the_score(counts: tuple[int, int, int, int]) -> None:
    """The limit by brute force: the restricted rates found by bisection of the score equation, not by the cubic."""
    x1, n1, x2, n2 = counts
    effect = difference(Conversions(x1, n1), Conversions(x2, n2), 0.05)

    def restricted(d: float) -> float:
        def slope(p: float) -> float:
            return x1 / (p + d) - (n1 - x1) / (1 - p - d) + x2 / p - (n2 - x2) / (1 - p)

        low, high = max(0.0, -d), min(1.0, 1 - d)
        width = high - low
        return float(scipy.optimize.bisect(slope, low + 1e-9 * width, high - 1e-9 * width, xtol=1e-18, rtol=1e-13))

    for limit in (effect.lower, effect.upper):
        p = restricted(limit)
        variance = (p + limit) * (1 - p - limit) / n1 + p * (1 - p) / n2
        assert abs(effect.estimate - limit) / math.sqrt(variance) == pytest.approx(1.959964, rel=1e-6)


@lawful
@given(conversions(), conversions(), st.sampled_from([0.2, 0.05, 0.001]), st.booleans())
def test_p_difference_and_lift_agree_on_significance(
    treatment: Conversions, control: Conversions, alpha: float, factor: bool
) -> None:
    effect = difference(treatment, control, alpha, miettinen_nurminen=factor)
    assume(abs(effect.p_value / alpha - 1) > 1e-6)
    significant = effect.p_value < alpha
    assert -1 <= effect.lower <= effect.estimate <= effect.upper <= 1
    assert significant == (effect.lower > 0 or effect.upper < 0)
    if control.successes:
        lift = relative(treatment, control, alpha, miettinen_nurminen=factor)
        assert -1 <= lift.lower <= lift.estimate <= lift.upper < math.inf
        assert significant == (lift.lower > 0 or lift.upper < 0)


@lawful
@given(conversions(), conversions())
def test_swapping_arms_or_successes_mirrors_the_difference(a: Conversions, b: Conversions) -> None:
    forth = difference(a, b, 0.05)
    back = difference(b, a, 0.05)
    failures = difference(Conversions(a.n - a.successes, a.n), Conversions(b.n - b.successes, b.n), 0.05)
    expected = pytest.approx((-forth.upper, -forth.lower), rel=1e-6, abs=1e-12)
    assert (back.lower, back.upper) == expected
    assert (failures.lower, failures.upper) == expected
    assert back.p_value == pytest.approx(forth.p_value, rel=1e-9)


@lawful
@given(conversions(), st.sampled_from([0.2, 0.05, 0.001]))
def test_wilson_equals_statsmodels_and_stays_in_range(arm: Conversions, alpha: float) -> None:
    interval = wilson(arm, alpha)
    low, high = proportion_confint(arm.successes, arm.n, alpha, method="wilson")
    assert (interval.lower, interval.upper) == pytest.approx((low, high), rel=1e-9, abs=1e-12)
    assert 0 <= interval.lower <= interval.estimate <= interval.upper <= 1
    assert (interval.lower == 0) == (arm.successes == 0)


def test_one_event_in_ten_million_equals_its_poisson_limit() -> None:
    """1 against 0 of n: below zero the variance is (|d| + 1/n)/n, above 1/2n it is d/n, both limits solve by hand."""
    n, z2 = 10**7, scipy.stats.norm.isf(0.025) ** 2
    by_hand = ((1 - z2) / n, (2 + z2 + math.sqrt(z2 * (z2 + 4))) / 2 / n)
    rare = difference(Conversions(1, n), Conversions(0, n), 0.05)
    common = difference(Conversions(n, n), Conversions(n - 1, n), 0.05)
    assert (rare.lower, rare.upper) == pytest.approx(by_hand, rel=1e-6)
    assert (common.lower, common.upper) == pytest.approx(by_hand, rel=1e-6)


def test_no_conversion_anywhere_is_no_evidence() -> None:
    effect = difference(Conversions(0, 50), Conversions(0, 60), 0.05)
    assert (effect.statistic, effect.p_value) == (0.0, 1.0)
    assert effect.lower < 0 < effect.upper


def test_no_conversion_in_the_treatment_bounds_the_lift_below_by_all_lost() -> None:
    lift = relative(Conversions(0, 500), Conversions(9, 500), 0.05)
    assert (lift.estimate, lift.lower) == (-1.0, -1.0)
    assert -1 < lift.upper < 0


def test_no_conversion_in_the_control_gives_no_lift() -> None:
    with pytest.raises(StatError) as caught:
        relative(Conversions(5, 50), Conversions(0, 60), 0.05)
    assert caught.value.code is Problem.LIFT_NOT_IDENTIFIED


def test_no_users_are_a_problem_and_impossible_counts_an_error() -> None:
    with pytest.raises(StatError):
        Conversions(0, 0)
    for successes, n in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="not a proportion"):
            Conversions(successes, n)
    with pytest.raises(ValueError, match="alpha"):
        wilson(Conversions(1, 2), 1.0)


@pytest.mark.parametrize("value", [-0.05, -0.001, 0.0, 0.02, 0.3])
def test_score_against_a_margin_equals_maximum_likelihood_by_search(value: float) -> None:
    treatment, control = Conversions(56, 70), Conversions(48, 80)

    def unlikely(p: float) -> float:
        return -(56 * math.log(p + value) + 14 * math.log(1 - p - value) + 48 * math.log(p) + 32 * math.log(1 - p))

    bounds = (max(0, -value) + 1e-9, min(1, 1 - value) - 1e-9)
    p = scipy.optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = (p + value) * (1 - p - value) / 70 + p * (1 - p) / 80
    score = difference_score(treatment, control, value)
    assert score == pytest.approx((0.2 - value) / math.sqrt(variance), rel=1e-7)


@given(conversions(), conversions(), st.floats(-0.5, 0.5))
@lawful
def test_score_against_a_margin_is_zero_at_the_estimate_and_falls(
    treatment: Conversions, control: Conversions, value: float
) -> None:
    estimate = treatment.rate - control.rate
    assume(abs(value - estimate) > 1e-9)
    assert (difference_score(treatment, control, value) > 0) == (value < estimate)
