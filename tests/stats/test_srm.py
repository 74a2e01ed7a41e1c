import numpy as np
import pytest
import scipy.stats

from stats.errors import Problem, StatError
from stats.srm import sequential_srm, srm
from tests.stats.reference import hillstrom, load


def test_hillstrom_equals_scipy_chisquare() -> None:
    reference = load("hillstrom.json")["srm"]
    result = srm([[arm.n for arm in hillstrom()]], [[1, 1, 1]])
    assert result.overall.df == 2
    assert result.overall.statistic == pytest.approx(reference["statistic"], rel=1e-9)
    assert result.overall.p_value == pytest.approx(reference["p_value"], rel=1e-9)
    assert (round(result.overall.statistic, 4), round(result.overall.p_value, 4)) == (0.2025, 0.9037)
    assert result.strata == (result.overall,)


def test_equal_shares_in_all_strata_are_pearson_on_the_totals() -> None:
    counts = np.array([[120, 90, 210], [33, 40, 55]])
    result = srm(counts, [[1, 1, 2], [25, 25, 50]])
    oracle = scipy.stats.chisquare(counts.sum(axis=0), counts.sum() * np.array([0.25, 0.25, 0.5]))
    assert (result.overall.statistic, result.overall.p_value) == pytest.approx((oracle.statistic, oracle.pvalue))
    for row, stratum in zip(counts, result.strata, strict=True):
        assert stratum is not None
        assert stratum.p_value == pytest.approx(
            scipy.stats.chisquare(row, row.sum() * np.array([0.25, 0.25, 0.5])).pvalue
        )


def test_unequal_shares_equal_the_reduced_quadratic_form() -> None:
    counts = np.array([[100, 130, 90], [400, 30, 70]])
    shares = np.array([[1 / 3, 1 / 3, 1 / 3], [0.8, 0.08, 0.12]])
    n = counts.sum(axis=1)
    covariance = sum(k * (np.diag(w) - np.outer(w, w)) for k, w in zip(n, shares, strict=True))
    deviation = counts.sum(axis=0) - n @ shares
    expected = deviation[1:] @ np.linalg.solve(covariance[1:, 1:], deviation[1:])
    result = srm(counts, shares)
    assert result.overall.statistic == pytest.approx(expected)
    assert result.overall.df == 2
    assert result.expected == pytest.approx(tuple(n @ shares))


def test_p_is_uniform_when_strata_have_shares_of_their_own() -> None:
    rng = np.random.default_rng(4)
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.0, 0.5, 0.5]])
    users = (300, 700, 200)
    p = []
    for _ in range(1000):
        counts = np.array([rng.multinomial(n, w) for n, w in zip(users, shares, strict=True)])
        p.append(srm(counts, shares).overall.p_value)
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001


def test_closed_arms_do_not_count_as_degrees_of_freedom() -> None:
    result = srm([[60, 40, 0]], [[1, 1, 0]])
    assert result.overall.df == 1
    assert result.overall.p_value == pytest.approx(scipy.stats.chisquare([60, 40]).pvalue)


def test_an_open_arm_without_users_raises_the_alarm() -> None:
    assert srm([[500, 500, 0]], [[1, 1, 1]]).overall.p_value < 1e-50


def test_order_of_arms_and_strata_does_not_matter() -> None:
    counts, shares = np.array([[50, 70, 20], [10, 5, 30]]), np.array([[0.4, 0.4, 0.2], [0.3, 0.2, 0.5]])
    straight = srm(counts, shares).overall.statistic
    assert srm(counts[::-1, ::-1], shares[::-1, ::-1]).overall.statistic == pytest.approx(straight)


@pytest.mark.parametrize("shares", [[[1, 1, 0], [1, 1, 0]], [[1, 1, 0], [1, 1, 1]]])
def test_users_in_a_closed_arm_are_a_problem(shares: list[list[int]]) -> None:
    with pytest.raises(StatError) as caught:
        srm([[50, 50, 1], [50, 50, 1]], shares)
    assert caught.value.code is Problem.UNEXPECTED_USERS
    assert caught.value.facts == {"stratum": 0, "arm": 2, "users": 1}


def test_strata_with_nothing_to_test_are_none() -> None:
    result = srm([[50, 60], [0, 0], [9, 0]], [[1, 1], [1, 1], [1, 0]])
    assert result.strata[1:] == (None, None)
    assert result.overall.df == 1


@pytest.mark.parametrize(("counts", "shares"), [([[0, 0]], [[1, 1]]), ([[9, 0]], [[1, 0]])])
def test_no_users_or_no_comparison_are_a_problem(counts: list, shares: list) -> None:
    with pytest.raises(StatError) as caught:
        srm(counts, shares)
    assert caught.value.code is Problem.NOT_ENOUGH_DATA


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ([[1, 2]], [[1, 1, 1]]),
        ([1, 2], [1, 1]),
        ([[-1, 2]], [[1, 1]]),
        ([[1.5, 2]], [[1, 1]]),
        ([[1, 2]], [[0, 0]]),
        ([[1, 2]], [[2, -1]]),
    ],
)
def test_what_is_no_table_of_counts_and_shares_is_refused(counts: list, shares: list) -> None:
    with pytest.raises(ValueError, match=r"observed|expected_shares"):
        srm(counts, shares)


def test_days_for_strata_show_the_day_of_the_mismatch() -> None:
    counts = np.array([[500, 510], [495, 490], [300, 700], [505, 500]])
    p = [day.p_value if day else 1.0 for day in srm(counts, [[1, 1]] * 4).strata]
    assert np.argmin(p) == 2
    assert p[2] == pytest.approx(scipy.stats.chisquare([300, 700]).pvalue)


LOOKS = np.array(
    [[[50, 48, 3], [10, 40, 0]], [[60, 71, 2], [12, 33, 0]], [[0, 0, 0], [0, 0, 0]], [[80, 40, 9], [9, 50, 0]]]
)
SHARES = np.array([[0.48, 0.48, 0.04], [0.2, 0.8, 0.0]])


def test_bayes_factors_equal_scipy_dirichlet_multinomial_against_multinomial() -> None:
    result = sequential_srm(LOOKS, SHARES, 100)
    for look, factor in enumerate(result.log_bayes_factors):
        total = LOOKS[: look + 1].sum(axis=0)
        expected = 0.0
        for counts, shares in zip(total, SHARES, strict=True):
            x, w = counts[shares > 0], shares[shares > 0]
            expected += scipy.stats.dirichlet_multinomial.logpmf(x, 100 * w, x.sum())
            expected -= scipy.stats.multinomial.logpmf(x, x.sum(), w)
        assert factor == pytest.approx(expected, abs=1e-9)


def test_two_arms_and_a_flat_prior_are_the_uniform_mixture() -> None:
    """Two arms, concentration 2: the mixture of binomials over a uniform share is 1 / (n + 1)."""
    result = sequential_srm([[[7, 13]]], [[1, 1]], 2)
    assert np.exp(result.log_bayes_factors[0]) == pytest.approx(1 / 21 / scipy.stats.binom.pmf(7, 20, 0.5))


def test_anytime_p_is_the_smallest_inverse_bayes_factor_so_far() -> None:
    rng = np.random.default_rng(31)
    looks = np.concatenate([rng.multinomial(200, [0.4, 0.6], size=20), rng.multinomial(200, [0.6, 0.4], size=20)])
    result = sequential_srm(looks[:, None], [[1, 1]], 1000)
    factors = np.exp(result.log_bayes_factors)
    assert result.p_values == pytest.approx([min(1.0, 1 / factors[: k + 1].max()) for k in range(40)])
    assert result.p_value == result.p_values[-1] < 1e-6
    assert factors[-1] < factors[19] / 10


def test_what_came_before_decides_not_the_order_of_looks_strata_or_arms() -> None:
    straight = sequential_srm(LOOKS, SHARES, 100).log_bayes_factors[-1]
    assert sequential_srm(LOOKS[::-1, ::-1, ::-1], SHARES[::-1, ::-1], 100).log_bayes_factors[-1] == pytest.approx(
        straight
    )
    assert sequential_srm(LOOKS.sum(axis=0)[None], 7 * SHARES, 100).log_bayes_factors == pytest.approx((straight,))


def test_opposite_deviations_do_not_cancel() -> None:
    counts = np.array([[6000, 4000], [4000, 6000]])
    assert srm(counts, [[1, 1], [1, 1]]).overall.p_value == 1.0
    assert sequential_srm(counts[None], [[1, 1], [1, 1]]).p_value < 1e-50


def test_counts_of_billions_and_strata_without_choice_are_harmless() -> None:
    billions = sequential_srm([[[10**9, 10**9 + 30_000]]], [[1, 1]])
    assert billions.p_value == 1.0
    assert np.isfinite(billions.log_bayes_factors[0])
    assert sequential_srm([[[10**9, 10**9 + 10**6]]], [[1, 1]]).p_value < 1e-50
    closed = sequential_srm([[[500, 520], [77, 0]]], [[1, 1], [1, 0]])
    assert closed.log_bayes_factors == pytest.approx(sequential_srm([[[500, 520]]], [[1, 1]]).log_bayes_factors)


def test_sequential_refuses_what_srm_refuses() -> None:
    with pytest.raises(StatError) as caught:
        sequential_srm([[[5, 5, 0]], [[5, 5, 2]]], [[1, 1, 0]])
    assert caught.value.code is Problem.UNEXPECTED_USERS
    assert caught.value.facts == {"stratum": 0, "arm": 2, "users": 2}
    for counts, shares in (([[[0, 0]]], [[1, 1]]), ([[[9, 0]]], [[1, 0]])):
        with pytest.raises(StatError) as caught:
            sequential_srm(counts, shares)
        assert caught.value.code is Problem.NOT_ENOUGH_DATA
    for concentration in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="concentration"):
            sequential_srm([[[1, 2]]], [[1, 1]], concentration)
    for counts, shares in (
        ([[1, 2]], [[1, 1]]),
        ([[[1, 2]]], [1, 1]),
        ([[[1, -2]]], [[1, 1]]),
        ([[[1, 2]]], [[np.nan, 1]]),
    ):
        with pytest.raises(ValueError, match=r"observed|expected_shares"):
            sequential_srm(counts, shares)
