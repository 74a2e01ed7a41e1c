import numpy as np
import pytest
import scipy.stats

from stats.errors import Problem, StatError
from stats.srm import srm
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
