import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.meta_analysis import combine_effects

from stats.errors import Problem, StatError
from stats.posterior import (
    Normal,
    best,
    beta_binomial,
    empirical_prior,
    expected_loss,
    interval,
    probability_better,
    update,
)

MEANS = np.array([0.3, 0.0, -0.4])
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=100)


@pytest.mark.parametrize("estimate", [-4.0, -0.3, 0.0, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("se", [0.5, 2.0])
def test_equals_numerical_integration_of_the_posterior(estimate: float, se: float) -> None:
    posterior = scipy.stats.norm(estimate, se)
    loss, _ = scipy.integrate.quad(lambda v: -v * posterior.pdf(v), min(estimate, 0) - 12 * se, 0, epsabs=0)
    assert expected_loss(estimate, se) == pytest.approx(loss, rel=1e-6)
    assert probability_better(estimate, se) == pytest.approx(posterior.sf(0))


@pytest.mark.parametrize("x", [15.0, 25.0, 37.0])
def test_loss_keeps_its_digits_in_the_far_tail(x: float) -> None:
    series = scipy.stats.norm.pdf(x) / x**2 * (1 - 3 / x**2 + 15 / x**4 - 105 / x**6 + 945 / x**8)
    assert expected_loss(x, 1.0) == pytest.approx(series, rel=1e-5)


def test_losses_of_both_choices_differ_by_the_estimate() -> None:
    assert expected_loss(-1.3, 0.7) - expected_loss(1.3, 0.7) == pytest.approx(1.3)


def test_loss_falls_to_zero_and_never_below() -> None:
    losses = [expected_loss(x / 4, 1.0) for x in range(-40, 400)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0


def test_probabilities_of_both_directions_sum_to_one() -> None:
    assert probability_better(0.4, 1.1) + probability_better(-0.4, 1.1) == pytest.approx(1)


@pytest.mark.parametrize("se", [0.0, -1.0, math.nan])
def test_no_standard_error_is_a_problem(se: float) -> None:
    for number in (probability_better, expected_loss):
        with pytest.raises(StatError) as caught:
            number(1.0, se)
        assert caught.value.code is Problem.ZERO_VARIANCE


def exactly_better(a: int, b: int, c: int, d: int) -> Fraction:
    """P(X > Y) for X ~ Beta(a, b), Y ~ Beta(c, d) with whole parameters: a finite sum of rational numbers."""

    def beta(x: int, y: int) -> Fraction:
        return Fraction(math.factorial(x - 1) * math.factorial(y - 1), math.factorial(x + y - 1))

    return sum((beta(c + i, b + d) / ((b + i) * beta(1 + i, b) * beta(c, d)) for i in range(a)), Fraction(0))


COUNTS = [
    (3, 10, 5, 12),
    (0, 0, 0, 0),
    (0, 5, 0, 7),
    (10, 10, 0, 10),
    (0, 12, 12, 12),
    (0, 0, 3, 50),
    (1, 3, 200, 2000),
    (100, 1000, 50, 1000),
    (199, 200, 160, 200),
]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_beta_binomial_equals_exact_fractions(counts: tuple[int, int, int, int]) -> None:
    successes, n, successes_c, n_c = counts
    a, b, c, d = successes + 1, n - successes + 1, successes_c + 1, n_c - successes_c + 1
    mean, mean_c = Fraction(a, a + b), Fraction(c, c + d)
    loss = mean_c * (1 - exactly_better(a, b, c + 1, d)) - mean * (1 - exactly_better(a + 1, b, c, d))
    loss_c = mean * exactly_better(a + 1, b, c, d) - mean_c * exactly_better(a, b, c + 1, d)
    found = beta_binomial(*counts)
    assert found.probability_better == pytest.approx(float(exactly_better(a, b, c, d)), rel=1e-9)
    assert found.expected_loss == pytest.approx(float(loss), rel=1e-8)
    assert found.expected_loss_control == pytest.approx(float(loss_c), rel=1e-8)
    assert found.difference.estimate == pytest.approx(float(mean - mean_c), abs=1e-15)


@pytest.mark.parametrize("counts", [*COUNTS, (3, 10**7, 5, 10**7), (0, 10**7, 0, 10)], ids=str)
@pytest.mark.parametrize("prior", [(1.0, 1.0), (0.5, 0.5), (2.0, 30.0)])
def test_difference_limits_hold_their_tails(counts: tuple[int, int, int, int], prior: tuple[float, float]) -> None:
    s, n, s_c, n_c = counts
    treated = scipy.stats.beta(prior[0] + s, prior[1] + n - s)
    control = scipy.stats.beta(prior[0] + s_c, prior[1] + n_c - s_c)
    found = beta_binomial(*counts, prior, 0.1).difference
    # Equal shares of the control's probability: the mean over its quantiles.
    shares = (np.arange(20_000) + 0.5) / 20_000
    at = control.ppf(shares)
    assert treated.cdf(at + found.lower).mean() == pytest.approx(0.05, abs=1e-4)
    assert treated.sf(at + found.upper).mean() == pytest.approx(0.05, abs=1e-4)


def test_two_uniform_rates_have_a_triangular_difference() -> None:
    found = beta_binomial(0, 0, 0, 0, alpha=0.05)
    limit = 1 - math.sqrt(0.05)
    assert (found.difference.lower, found.difference.upper) == pytest.approx((-limit, limit), abs=1e-9)
    assert (found.probability_better, found.expected_loss) == pytest.approx((1 / 2, 1 / 6))


def test_beta_binomial_tends_to_the_normal_posterior() -> None:
    n = 10**7
    found = beta_binomial(500_400, n, 500_000, n, alpha=0.05)
    d, se = 4e-5, math.sqrt(0.05 * 0.95 * 2 / n)
    assert found.probability_better == pytest.approx(probability_better(d, se), abs=1e-4)
    assert found.expected_loss == pytest.approx(expected_loss(d, se), rel=1e-3)
    half = 1.959964 * se
    assert (found.difference.lower, found.difference.upper) == pytest.approx((d - half, d + half), abs=1e-3 * se)


@settings(lawful, max_examples=25)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 10**7), st.integers(0, 10**7))
def test_swapping_arms_or_successes_mirrors_the_rates(s: int, s_c: int, rest: int, rest_c: int) -> None:
    n, n_c = s + rest, s_c + rest_c
    forth = beta_binomial(s, n, s_c, n_c)
    back = beta_binomial(s_c, n_c, s, n)
    failed = beta_binomial(n_c - s_c, n_c, n - s, n)
    assert forth.probability_better + back.probability_better == pytest.approx(1, abs=1e-12)
    assert (back.expected_loss, back.expected_loss_control) == pytest.approx(
        (forth.expected_loss_control, forth.expected_loss), rel=1e-6, abs=1e-300
    )
    assert failed.probability_better == pytest.approx(forth.probability_better, rel=1e-12)
    mean = forth.difference.estimate
    assert forth.expected_loss_control - forth.expected_loss == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert -1 < forth.difference.lower < mean < forth.difference.upper < 1
    assert (back.difference.lower, back.difference.upper) == pytest.approx(
        (-forth.difference.upper, -forth.difference.lower), rel=1e-6, abs=1e-9
    )


def test_rates_near_one_keep_the_digits_of_rates_near_zero() -> None:
    n = 10**7
    high, low = beta_binomial(n, n, n - 2, n), beta_binomial(2, n, 0, n)
    assert high.probability_better == pytest.approx(low.probability_better, rel=1e-12)
    assert high.expected_loss == pytest.approx(low.expected_loss, rel=1e-12)


def test_beta_binomial_far_tail_is_small_not_zero() -> None:
    found = beta_binomial(900, 1000, 400, 1000)
    a, b, c, d = 401, 601, 901, 101
    assert found.probability_better == 1.0
    assert beta_binomial(400, 1000, 900, 1000).probability_better == pytest.approx(
        float(exactly_better(a, b, c, d)), rel=1e-8
    )
    assert 0 < found.expected_loss < 1e-100
    assert beta_binomial(0, 10**7, 10**7, 10**7).probability_better == 0.0


@pytest.mark.parametrize("counts", [(-1, 5, 0, 5), (6, 5, 0, 5), (1, 5, 0, -1)])
def test_impossible_counts_and_priors_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="successes"):
        beta_binomial(*counts)
    with pytest.raises(ValueError, match="prior"):
        beta_binomial(1, 2, 1, 2, (0.4, 1.0))
    with pytest.raises(ValueError, match="alpha"):
        beta_binomial(1, 2, 1, 2, alpha=1.0)


@pytest.mark.parametrize(("estimate", "se"), [(1.0, 0.5), (-2.0, 3.0), (4.0, 0.1)])
def test_update_equals_the_product_of_prior_and_likelihood(estimate: float, se: float) -> None:
    prior = Normal(0.5, 0.8)
    found = update(estimate, se, prior)

    def density(v: float) -> float:
        return scipy.stats.norm.pdf(v, 0.5, 0.8) * scipy.stats.norm.pdf(estimate, v, se)

    ends = found.mean - 12 * found.sd, found.mean + 12 * found.sd
    total = scipy.integrate.quad(density, *ends, epsabs=0)[0]
    first = scipy.integrate.quad(lambda v: v * density(v), *ends, epsabs=0)[0] / total
    second = scipy.integrate.quad(lambda v: (v - first) ** 2 * density(v), *ends, epsabs=0)[0] / total
    assert (found.mean, found.sd) == pytest.approx((first, math.sqrt(second)), rel=1e-7)


def test_update_without_prior_and_in_the_limits() -> None:
    assert update(1.2, 0.3, None) == Normal(1.2, 0.3)
    assert update(1.2, 1e-200, Normal(0, 1)).mean == 1.2
    vague = update(1.2, 0.3, Normal(0, 1e200))
    assert (vague.mean, vague.sd) == pytest.approx((1.2, 0.3))
    two = update(2.0, 0.5, update(1.0, 0.4, Normal(0, 1)))
    swapped = update(1.0, 0.4, update(2.0, 0.5, Normal(0, 1)))
    assert (two.mean, two.sd) == pytest.approx((swapped.mean, swapped.sd))
    found = interval(two, 0.1)
    oracle = scipy.stats.norm.interval(0.9, two.mean, two.sd)
    assert (found.estimate, found.lower, found.upper) == pytest.approx((two.mean, *oracle))


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.0), (0.0, math.inf), (math.nan, 1.0), (0.0, -1.0)])
def test_improper_priors_are_refused(mean: float, sd: float) -> None:
    with pytest.raises(ValueError, match="proper"):
        Normal(mean, sd)


def test_two_arms_equal_the_closed_form() -> None:
    found = best(np.array([1.0, 1.7]), np.array([[2.0, 0.5], [0.5, 1.0]]), True)
    d, se = 0.7, math.sqrt(2)
    assert found.probability == pytest.approx([probability_better(-d, se), probability_better(d, se)], rel=1e-12)
    assert found.expected_loss == pytest.approx([expected_loss(-d, se), expected_loss(d, se)], rel=1e-12)


def orthant(mean: np.ndarray, covariance: np.ndarray, j: int) -> float:
    """P(arm j is the largest) by SciPy's multivariate normal distribution function of the differences."""
    contrast = np.delete(np.eye(mean.size), j, axis=0)
    contrast[:, j] = -1.0
    law = scipy.stats.multivariate_normal(contrast @ mean, contrast @ covariance @ contrast.T, abseps=1e-6, seed=1)
    return float(law.cdf(np.zeros(mean.size - 1)))


@pytest.mark.parametrize(
    "covariance",
    [
        np.diag([1.0, 2.0, 0.5]),
        np.diag([1.0, 1e-4, 1e4]),
        np.diag([0.0, 1.0, 2.0]),
        np.array([[1.0, 0.4, 0.4], [0.4, 2.0, 0.4], [0.4, 0.4, 0.5]]),
    ],
    ids=["unequal", "far from equal", "one is sure", "shared control"],
)
def test_independent_arms_equal_scipy_orthants(covariance: np.ndarray) -> None:
    found = best(MEANS, covariance, True)
    assert found.probability == pytest.approx([orthant(MEANS, covariance, j) for j in range(3)], abs=2e-7)
    assert found.probability.sum() == pytest.approx(1, abs=1e-8)
    assert found.expected_loss - found.expected_loss[0] == pytest.approx(MEANS[0] - MEANS, abs=1e-9)


@pytest.mark.parametrize("k", [3, 4, 5])
def test_dependent_arms_equal_scipy_orthants(k: int) -> None:
    rng = np.random.default_rng(k)
    root = rng.normal(size=(k, k))
    mean, covariance = rng.normal(size=k), root @ root.T
    found = best(mean, covariance, True)
    assert found.probability == pytest.approx([orthant(mean, covariance, j) for j in range(k)], abs=3e-3)
    assert found.probability.sum() == pytest.approx(1, abs=1e-8)
    assert found.expected_loss - found.expected_loss[0] == pytest.approx(mean[0] - mean, abs=3e-3)
    draws = mean + rng.normal(size=(200_000, k)) @ root.T
    assert found.expected_loss == pytest.approx(draws.max(axis=1).mean() - draws.mean(axis=0), abs=0.02)


@pytest.mark.parametrize(("k", "expected"), [(2, 0.56419), (3, 0.84628), (5, 1.16296), (10, 1.53875), (20, 1.86748)])
def test_equal_arms_lose_the_expected_largest_of_k_normals(k: int, expected: float) -> None:
    found = best(np.full(k, 1e9), 4 * np.eye(k) + 30, True)
    assert found.probability == pytest.approx(np.full(k, 1 / k), rel=1e-6)
    assert found.expected_loss == pytest.approx(np.full(k, 2 * expected), rel=1e-5)  # Harter 1961, table 1


def test_the_best_arm_of_a_metric_that_should_decrease() -> None:
    covariance = np.diag([1.0, 2.0, 0.5])
    down, up = best(MEANS, covariance, False), best(-MEANS, covariance, True)
    assert (down.probability == up.probability).all()
    assert (down.expected_loss == up.expected_loss).all()
    assert down.probability[2] == down.probability.max()


def test_a_clear_winner_loses_next_to_nothing() -> None:
    found = best(np.array([0.0, 5.0, 1.0]), np.eye(3) / 2, True)
    assert found.probability[1] == pytest.approx(1, abs=1e-4)
    either = expected_loss(5, 1) + expected_loss(4, 1)
    assert max(expected_loss(5, 1), expected_loss(4, 1)) < found.expected_loss[1] < either


def test_arms_that_do_not_vary_against_each_other_are_a_problem() -> None:
    for covariance in (np.zeros((2, 2)), np.ones((2, 2))):
        with pytest.raises(StatError) as caught:
            best(np.array([1.0, 2.0]), covariance, True)
        assert caught.value.code is Problem.ZERO_VARIANCE
    alone = best(np.array([3.0]), np.eye(1), True)
    assert (alone.probability.tolist(), alone.expected_loss.tolist()) == ([1.0], [0.0])
    with pytest.raises(ValueError, match="finite"):
        best(np.array([1.0, math.nan]), np.eye(2), True)


def test_empirical_prior_equals_quadrature_over_the_shrinkage_factor() -> None:
    d, s = np.array([0.3, -0.1, 0.5, 0.05]), np.array([0.2, 0.1, 0.3, 0.15])
    contrasts = np.linalg.svd(np.ones((1, 4)))[2][1:]
    scale = 3 / np.trace(np.linalg.inv((contrasts * s**2) @ contrasts.T))

    def moments(b: float) -> np.ndarray:
        tau_squared = scale * (1 - b) / b
        w = 1 / (s**2 + tau_squared)
        mean = w @ d / w.sum()
        density = math.exp(-(w @ (d - mean) ** 2) / 2) * math.sqrt(np.prod(w) / w.sum())
        return density * np.array([1, mean, tau_squared + 1 / w.sum() + mean**2])

    total, first, second = scipy.integrate.quad_vec(moments, 0, 1, epsabs=0, epsrel=1e-10, limit=500)[0]
    found = empirical_prior(d, s)
    assert found.mean == pytest.approx(first / total, rel=1e-7)
    assert found.sd == pytest.approx(math.sqrt(second / total - (first / total) ** 2), rel=1e-6)


def test_empirical_prior_of_many_experiments_tends_to_paule_mandel_of_statsmodels() -> None:
    rng = np.random.default_rng(20240606)
    ses = rng.uniform(0.5, 1.5, size=400)
    effects = 0.4 + rng.normal(size=400) + ses * rng.normal(size=400)
    oracle = combine_effects(effects, ses**2, method_re="iterated")
    found = empirical_prior(effects, ses)
    assert found.mean == pytest.approx(oracle.mean_effect_re, abs=2e-3)
    assert found.sd == pytest.approx(math.sqrt(oracle.tau2), rel=0.03)


def test_empirical_prior_is_never_a_point() -> None:
    assert empirical_prior(np.full(3, 0.2), np.full(3, 0.1)).sd > 0.05
    for effects, ses, code in (
        ([0.1, 0.2], [1.0, 1.0], Problem.NOT_ENOUGH_DATA),
        ([0.1, 0.2, 0.3], [1.0, 0.0, 1.0], Problem.ZERO_VARIANCE),
    ):
        with pytest.raises(StatError) as caught:
            empirical_prior(np.array(effects), np.array(ses))
        assert caught.value.code is code
    with pytest.raises(ValueError, match="shape"):
        empirical_prior(np.zeros(3), np.ones(2))
