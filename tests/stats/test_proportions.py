import math

import numpy as np
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
from stats.proportions import (
    Conversions,
    difference,
    difference_score,
    exact,
    exact_interval,
    newcombe,
    relative,
    wilson,
)
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


@pytest.mark.parametrize("case", REFERENCE["difference"]["cases"])
def test_newcombe_equals_statsmodels(case: dict) -> None:
    (x, n), (y, m) = case["treatment"], case["control"]
    interval = newcombe(Conversions(x, n), Conversions(y, m), 0.05)
    assert (interval.lower, interval.upper) == pytest.approx(
        confint_proportions_2indep(x, n, y, m, compare="diff", method="newcomb"), abs=1e-12
    )


@pytest.mark.parametrize(
    ("counts", "limits"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_newcombe_equals_the_published_limits_of_method_10(
    counts: tuple[int, int, int, int], limits: tuple[float, float]
) -> None:
    interval = newcombe(Conversions(*counts[:2]), Conversions(*counts[2:]), 0.05)
    assert (interval.lower, interval.upper) == pytest.approx(limits, abs=5.1e-5)


def region(counts: tuple[int, int, int, int], value: float) -> np.ndarray:
    """All tables (n + 1, m + 1) with a score against `value` no smaller than the observed."""
    x, n, y, m = counts
    scores = np.array(
        [[difference_score(Conversions(i, n), Conversions(j, m), value) for j in range(m + 1)] for i in range(n + 1)]
    )
    return scores >= scores[x, y] - 1e-9


def chance(tables: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Probability of the tables for each pair of rates."""
    n, m = np.array(tables.shape) - 1
    f = scipy.stats.binom.pmf(np.arange(n + 1), n, first[:, None])
    g = scipy.stats.binom.pmf(np.arange(m + 1), m, second[:, None])
    return ((f @ tables) * g).sum(axis=1)


SMALL = [(7, 15, 2, 12), (9, 10, 3, 10), (1, 40, 4, 10), (2, 60, 9, 30), (0, 12, 5, 9), (10, 10, 0, 10)]


@pytest.mark.parametrize("counts", SMALL)
def test_exact_equals_full_enumeration(counts: tuple[int, int, int, int]) -> None:
    x, n, y, m = counts
    rates = np.linspace(0, 1, 4001)
    sides = (region(counts, 0.0), region((y, m, x, n), 0.0).T)
    oracle = min(1, 2 * min(chance(side, rates, rates).max() for side in sides))
    assert exact(Conversions(x, n), Conversions(y, m)) == pytest.approx(oracle, rel=1e-5, abs=3e-8)


@pytest.mark.parametrize("counts", [(3, 20, 0, 18), (2, 60, 9, 30)])
def test_exact_equals_scipy_barnard_where_no_two_scores_tie(counts: tuple[int, int, int, int]) -> None:
    x, n, y, m = counts
    table = [[x, y], [n - x, m - y]]
    sides = [scipy.stats.barnard_exact(table, alternative=side, n=128).pvalue for side in ("less", "greater")]
    assert exact(Conversions(x, n), Conversions(y, m)) == pytest.approx(2 * min(sides), rel=1e-6, abs=3e-8)


def test_exact_searches_only_rates_that_the_data_leave() -> None:
    """5 of 56 against 0 of 29: the worst common rate of all is 0.94, which 5 of 85 rule out."""
    rates = np.linspace(0, 1, 4001)
    everywhere = chance(region((5, 56, 0, 29), 0.0), rates, rates)
    assert rates[everywhere.argmax()] > 0.9
    p = exact(Conversions(5, 56), Conversions(0, 29))
    assert everywhere[rates < 0.4].max() < p / 2 < everywhere[rates < 0.5].max()
    assert p < 2 * everywhere.max()


def test_exact_with_all_or_none_is_solved_by_hand() -> None:
    """Only the observed table is as extreme: sup (r (1 - r))^10 = 4^-10, and ((1 + d) / 2)^20 = alpha / 2."""
    everyone, nobody = Conversions(10, 10), Conversions(0, 10)
    assert exact(everyone, nobody) == pytest.approx(2 / 4**10, abs=2.1e-8)
    interval = exact_interval(everyone, nobody, 0.05)
    assert (interval.lower, interval.upper) == (pytest.approx(2 * 0.025**0.05 - 1, abs=1e-5), 1.0)
    mirrored = exact_interval(nobody, everyone, 0.05)
    assert (mirrored.lower, mirrored.upper) == (-1.0, -interval.lower)


@pytest.mark.parametrize("counts", SMALL)
def test_exact_limits_equal_full_enumeration(counts: tuple[int, int, int, int]) -> None:
    x, n, y, m = counts
    interval = exact_interval(Conversions(x, n), Conversions(y, m), 0.05)
    for sign, limit, (i, a, j, b) in ((1, interval.lower, (x, n, y, m)), (-1, interval.upper, (y, m, x, n))):
        if abs(limit) == 1:
            continue
        for step, above in ((-1e-3, False), (1e-3, True)):
            value = sign * limit + step
            rates = np.linspace(max(0, -value), min(1, 1 - value), 1001)
            worst = chance(region((i, a, j, b), value), rates + value, rates).max()
            assert (worst > 0.025 - 1e-6) == above


def test_exact_interval_covers_at_every_rate() -> None:
    n, m = 8, 5
    grid = np.linspace(0.01, 0.99, 45)
    first, second = (g.ravel() for g in np.meshgrid(grid, grid))
    limits = [[exact_interval(Conversions(i, n), Conversions(j, m), 0.1) for j in range(m + 1)] for i in range(n + 1)]
    f = scipy.stats.binom.pmf(np.arange(n + 1), n, first[:, None])
    g = scipy.stats.binom.pmf(np.arange(m + 1), m, second[:, None])
    above, below = np.zeros(first.size), np.zeros(first.size)
    for i in range(n + 1):
        for j in range(m + 1):
            mass = f[:, i] * g[:, j]
            above += mass * (limits[i][j].lower > first - second + 1e-6)
            below += mass * (limits[i][j].upper < first - second - 1e-6)
    assert above.max() <= 0.05
    assert below.max() <= 0.05
    assert max(above.max(), below.max()) > 0.03


@settings(database=None, derandomize=True, deadline=None, max_examples=20)
@given(
    st.integers(1, 10**5), st.integers(1, 10**5), st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.2, 0.05])
)
def test_exact_p_and_interval_agree_and_mirror(n: int, m: int, x: int, y: int, alpha: float) -> None:
    treatment, control = Conversions(min(x, n), n), Conversions(min(y, m), m)
    p = exact(treatment, control)
    interval = exact_interval(treatment, control, alpha)
    assert -1 <= interval.lower <= interval.estimate <= interval.upper <= 1
    assume(abs(p - alpha) > 1e-9)
    assert (p < alpha) == (interval.lower > 0 or interval.upper < 0)
    failures = [Conversions(arm.n - arm.successes, arm.n) for arm in (treatment, control)]
    assert exact(*failures) == pytest.approx(p, rel=1e-3, abs=1e-7)
    assert exact(control, treatment) == p


def test_exact_approaches_the_poisson_test_of_rare_conversions() -> None:
    """3 against 0 among as many users: of 3 conversions all fall on one side, one-sided at most 1/8 given the total."""
    p = exact(Conversions(3, 10**5), Conversions(0, 10**5))
    assert p == pytest.approx(exact(Conversions(3, 10**7), Conversions(0, 10**7)), rel=1e-3)
    assert 0.05 < p < 2 / 8


def test_exact_approaches_the_score_test_of_many_conversions() -> None:
    treatment, control = Conversions(340, 10**5), Conversions(280, 10**5)
    score = difference(treatment, control, 0.05)
    interval = exact_interval(treatment, control, 0.05)
    assert exact(treatment, control) == pytest.approx(score.p_value, rel=2e-3)
    assert (interval.lower, interval.upper) == pytest.approx((score.lower, score.upper), rel=3e-3)


def test_exact_refuses_counts_that_do_not_need_it() -> None:
    for ask in (exact, lambda a, b: exact_interval(a, b, 0.05)):
        with pytest.raises(ValueError, match="too many conversions"):
            ask(Conversions(5000, 10**5), Conversions(5100, 10**5))
    for alpha in (0.0, 1.0, 1e-8):
        with pytest.raises(ValueError, match="alpha"):
            exact_interval(Conversions(1, 2), Conversions(1, 2), alpha)
