import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import statsmodels.api as sm

from stats.arms import ArmVector, means
from stats.contrasts import all_pairs, linear, many_to_one, quadratic_form, simultaneous, wald
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed, Horizon, Sequential
from stats.moments import Moments
from tests.stats.reference import load

CASES = load("contrasts.json")["cases"]
# Dunnett, two-sided 5 % points for 2 to 9 treatments, infinite degrees of freedom.
DUNNETT = {2: 2.21, 3: 2.35, 4: 2.44, 5: 2.51, 6: 2.57, 7: 2.61, 8: 2.65, 9: 2.69}


def known(mean: list[float], covariance: object) -> ArmVector:
    """Normal estimates with known covariance."""
    return ArmVector(np.full(len(mean), 100), np.array(mean, float), np.array(covariance, float), np.zeros(len(mean)))


def sampled(seed: int, sizes: tuple[int, ...] = (40, 25, 60, 33)) -> tuple[ArmVector, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    rows = [rng.gamma(2, 1 + arm / 3, size=n) for arm, n in enumerate(sizes)]
    return means([Moments.from_rows(x[:, None]) for x in rows]), rows


def by_name(case: dict) -> str:
    return str(case["name"])


@pytest.mark.parametrize("horizon", [Fixed(0.05), Sequential.tuned(0.05, 200)])
def test_linear_of_a_pair_is_the_difference(horizon: Horizon) -> None:
    arms, _ = sampled(1)
    assert linear(arms, [0, -1, 0, 1], horizon) == difference(arms, 3, 1, horizon)


def test_linear_equals_statsmodels_cell_means_with_hc2_and_the_written_out_df() -> None:
    arms, rows = sampled(2)
    weights = np.array([-1.0, 1 / 3, 1 / 3, 1 / 3])
    x = np.repeat(np.eye(4), [len(r) for r in rows], axis=0)
    fit = sm.OLS(np.concatenate(rows), x).fit(cov_type="HC2")
    oracle = fit.t_test(weights)
    effect = linear(arms, weights, Fixed(0.05))
    assert (effect.estimate, effect.se) == pytest.approx((oracle.effect.item(), oracle.sd.item()), rel=1e-10)
    parts = [w * w * r.var(ddof=1) / r.size for w, r in zip(weights, rows, strict=True)]
    df = sum(parts) ** 2 / sum(p * p / (r.size - 1) for p, r in zip(parts, rows, strict=True))
    assert effect.df == pytest.approx(df)
    assert effect.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(effect.statistic), df), rel=1e-10)


def test_linear_scales_with_its_weights_and_mirrors() -> None:
    arms, _ = sampled(3)
    plain = linear(arms, [1, -2, 1, 0], Fixed(0.05))
    scaled = linear(arms, [-3, 6, -3, 0], Fixed(0.05))
    assert (scaled.estimate, scaled.lower, scaled.upper) == pytest.approx(
        (-3 * plain.estimate, -3 * plain.upper, -3 * plain.lower)
    )
    assert (scaled.p_value, scaled.df) == pytest.approx((plain.p_value, plain.df))


def test_a_sequence_counts_only_the_users_of_the_arms_in_the_contrast() -> None:
    horizon = Sequential.tuned(0.05, 200)
    arms, rows = sampled(4)
    fewer = means([Moments.from_rows(rows[a][:, None]) for a in (0, 2, 3)])
    assert linear(arms, [-1, 0, 0.5, 0.5], horizon) == linear(fewer, [-1, 0.5, 0.5], horizon)


def test_contrast_that_does_not_vary_is_a_problem() -> None:
    still = known([1, 2, 3], np.diag([0.0, 0.0, 1.0]))
    shared = known([1, 2, 3], 0.1 + np.diag([0.0, 0.0, 1.0]))
    for arms in (still, shared):
        for ask in (
            lambda a: linear(a, [1, -1, 0], Fixed(0.05)),
            lambda a: wald(a, [[0, -1, 1], [1, -1, 0]]),
            lambda a: simultaneous(a, [[0, -1, 1], [1, -1, 0]], 0.05),
        ):
            with pytest.raises(StatError) as caught:
                ask(arms)
            assert caught.value.code is Problem.ZERO_VARIANCE


@pytest.mark.parametrize(
    "matrix",
    [[1.0, 2.0, 3.0], [[1.0, -1.0]], np.zeros((0, 3)), [[0.0, 0.0, 0.0]], [[math.nan, 1, 0]], [[math.inf, 1, 0]]],
)
def test_what_is_no_set_of_contrasts_is_refused(matrix: list) -> None:
    arms = known([1, 2, 3], np.eye(3))
    for ask in (lambda: wald(arms, matrix), lambda: simultaneous(arms, matrix, 0.05)):
        with pytest.raises(ValueError, match="contrast"):
            ask()


def test_usual_sets_of_contrasts() -> None:
    assert many_to_one(3, 1).tolist() == [[1, -1, 0], [0, -1, 1]]
    assert all_pairs(3).tolist() == [[-1, 1, 0], [-1, 0, 1], [0, -1, 1]]
    for wrong in (lambda: many_to_one(3, 3), lambda: many_to_one(1, 0), lambda: all_pairs(1)):
        with pytest.raises(ValueError, match="arms"):
            wrong()


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_wald_equals_multcomp(case: dict) -> None:
    test = wald(known(case["mean"], case["covariance"]), case["matrix"])
    assert (test.statistic, test.df) == (pytest.approx(case["chi_square"], rel=1e-9), case["df"])
    assert test.p_value == pytest.approx(scipy.stats.chi2.sf(test.statistic, test.df), rel=1e-10)


def test_wald_of_one_contrast_is_its_square_and_redundant_rows_change_nothing() -> None:
    arms, _ = sampled(5)
    pair = difference(arms, 2, 0, Fixed(0.05))
    assert wald(arms, [[-1, 0, 1, 0]]).statistic == pytest.approx(pair.statistic**2)
    few, all_ = wald(arms, many_to_one(4, 0)), wald(arms, all_pairs(4))
    assert few.df == all_.df == 3
    assert all_.statistic == pytest.approx(few.statistic, rel=1e-9)
    assert wald(arms, 1e8 * many_to_one(4, 2)).statistic == pytest.approx(few.statistic, rel=1e-9)


def test_quadratic_form_of_nothing_is_none() -> None:
    assert quadratic_form(np.zeros(2), np.zeros((2, 2))) is None


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_simultaneous_equals_multcomp(case: dict) -> None:
    result = simultaneous(known(case["mean"], case["covariance"]), case["matrix"], 0.05)
    assert result.critical == pytest.approx(case["critical"], abs=1e-3)
    assert result.p_adjusted == pytest.approx(case["p_adjusted"], abs=2e-4, rel=1.5e-3)
    assert [i.lower for i in result.intervals] == pytest.approx(case["lower"], abs=1e-3)
    assert [i.upper for i in result.intervals] == pytest.approx(case["upper"], abs=1e-3)


@pytest.mark.parametrize(("treatments", "critical"), DUNNETT.items())
def test_many_to_one_equals_dunnett_table(treatments: int, critical: float) -> None:
    k = treatments + 1
    assert simultaneous(known([0] * k, np.eye(k)), many_to_one(k, 0), 0.05).critical == pytest.approx(
        critical, abs=5.1e-3
    )


@pytest.mark.parametrize("variances", [(1, 1, 1), (1, 20, 0.5), (30, 1, 1), (0.001, 1, 2)])
def test_two_treatments_equal_the_bivariate_normal(variances: tuple[float, ...]) -> None:
    arms = known([0, 2 * math.sqrt(variances[0] + variances[1]), 0], np.diag(variances))
    v = arms.covariance
    rho = v[0, 0] / math.sqrt((v[0, 0] + v[1, 1]) * (v[0, 0] + v[2, 2]))
    left = math.sqrt(1 - rho**2)
    normal = scipy.stats.norm

    def both(x: float) -> float:
        return float(normal.pdf(x) * (normal.cdf((2 - rho * x) / left) - normal.cdf((-2 - rho * x) / left)))

    inside, _ = scipy.integrate.quad(both, -2, 2, epsabs=1e-12, limit=200)
    assert simultaneous(arms, many_to_one(3, 0), 0.05).p_adjusted[0] == pytest.approx(1 - inside, rel=1e-7)


@pytest.mark.parametrize("arms", range(2, 11))
def test_all_pairs_of_equal_arms_equal_the_studentized_range(arms: int) -> None:
    mean = [0.0] * (arms - 1) + [3.5]
    result = simultaneous(known(mean, np.eye(arms) / 2), all_pairs(arms), 0.05)
    oracle = scipy.stats.studentized_range.ppf(0.95, arms, np.inf) / math.sqrt(2)
    assert result.critical == pytest.approx(oracle, rel=1e-3)
    tail = scipy.stats.studentized_range.sf(3.5 * math.sqrt(2), arms, np.inf)
    assert result.p_adjusted[-1] == pytest.approx(tail, rel=5e-3)


def test_welch_margins_come_near_scipy_dunnett_and_tukey_in_equal_arms() -> None:
    _, rows = sampled(6, (60, 60, 60, 60))
    rows = [(r - r.mean()) / r.std() + 0.15 * a for a, r in enumerate(rows)]
    arms = means([Moments.from_rows(r[:, None]) for r in rows])
    dunnett = scipy.stats.dunnett(*rows[1:], control=rows[0], rng=np.random.default_rng(1))
    assert simultaneous(arms, many_to_one(4, 0), 0.05).p_adjusted == pytest.approx(dunnett.pvalue, abs=5e-3)
    tukey = scipy.stats.tukey_hsd(*rows).pvalue[np.triu_indices(4, 1)]
    assert simultaneous(arms, all_pairs(4), 0.05).p_adjusted == pytest.approx(tukey, abs=5e-3)


def test_one_contrast_alone_is_the_plain_test() -> None:
    arms, _ = sampled(7)
    alone, pair = simultaneous(arms, [[-1, 0, 0, 1]], 0.05), difference(arms, 3, 0, Fixed(0.05))
    interval = alone.intervals[0]
    assert (interval.lower, interval.upper) == pytest.approx((pair.lower, pair.upper))
    assert alone.p_adjusted == pytest.approx([pair.p_value])


@pytest.mark.parametrize("matrix", [many_to_one(4, 0), all_pairs(4)])
@pytest.mark.parametrize("seed", range(20))
def test_p_and_interval_agree_and_lie_between_plain_and_bonferroni(matrix: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arms, _ = sampled(seed, tuple(rng.integers(5, 90, size=4).tolist()))
    for alpha in (0.2, 0.05, 0.001):
        result = simultaneous(arms, matrix, alpha)
        for row, interval, p in zip(matrix, result.intervals, result.p_adjusted, strict=True):
            plain = linear(arms, row, Fixed(alpha)).p_value
            assert (p < alpha) == (interval.lower > 0 or interval.upper < 0)
            assert plain <= p <= min(1, len(matrix) * plain) * (1 + 1e-12)


def test_far_tail_keeps_its_digits_and_approaches_bonferroni() -> None:
    for z in (9.0, 20.0, 37.0):
        arms = known([0, z * math.sqrt(2), 0, 0], np.eye(4))
        single = 2 * scipy.stats.norm.sf(z)
        for matrix in (many_to_one(4, 0), all_pairs(4)):
            p = simultaneous(arms, matrix, 0.05).p_adjusted[0]
            assert p == pytest.approx(len(matrix) * single, rel=1e-4)


def test_beyond_the_smallest_double_p_is_zero_and_the_rest_stands() -> None:
    result = simultaneous(known([0, 1e3, 1], np.eye(3)), many_to_one(3, 0), 0.05)
    assert result.p_adjusted[0] == 0.0
    assert 0 < result.p_adjusted[1] < 1


@pytest.mark.parametrize("control", [1e-12, 1e-3, 1e3, 1e9])
def test_tiny_and_huge_control_arms_lie_between_one_comparison_and_independence(control: float) -> None:
    """A control known exactly leaves independent comparisons, a very noisy one makes them the same."""
    arms = known([0, 0, 0, 0], np.diag([control, 1, 1, 1]))
    critical = simultaneous(arms, many_to_one(4, 0), 0.05).critical
    independent = scipy.stats.norm.isf((1 - 0.95 ** (1 / 3)) / 2)
    assert 1.959963 < critical <= independent + 1e-9
    if control == 1e-12:
        assert critical == pytest.approx(independent, rel=1e-9)
    if control == 1e9:
        assert critical == pytest.approx(1.959964, rel=1e-4)


def test_negative_and_absent_correlations_are_one_factor_too() -> None:
    arms = known([0, 0, 0, 0], np.eye(4))
    signs = many_to_one(4, 0) * [[1], [-1], [1]]
    assert simultaneous(arms, signs, 0.05).critical == pytest.approx(
        simultaneous(arms, many_to_one(4, 0), 0.05).critical, rel=1e-12
    )
    apart = simultaneous(arms, [[1, -1, 0, 0], [0, 0, 1, -1]], 0.05).critical
    assert apart == pytest.approx(scipy.stats.norm.isf((1 - 0.95**0.5) / 2), rel=1e-10)
