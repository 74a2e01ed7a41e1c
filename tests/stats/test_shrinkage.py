import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from stats.errors import Problem, StatError
from stats.shrinkage import between, heterogeneity, shrink
from tests.stats.reference import load

CASES = {
    case["name"]: case | {"effects": np.array(case["effects"]), "covariance": np.array(case["covariance"])}
    for case in load("shrinkage.json")["cases"]
}
named = pytest.mark.parametrize("name", CASES)


def given_tau(d: np.ndarray, v: np.ndarray, tau_squared: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of mu and the effects for a known tau^2, with plain matrices."""
    s = np.linalg.inv(v + tau_squared * np.eye(d.size))
    variance = 1 / s.sum()
    mean = variance * s.sum(axis=0) @ d
    w = v @ s
    pull = w.sum(axis=1)
    return (
        np.append(mean, d - w @ (d - mean)),
        np.append(variance, np.diag(v - w @ v) + pull**2 * variance),
    )


def likelihood(d: np.ndarray, v: np.ndarray, tau_squared: float) -> float:
    """Restricted likelihood of tau^2."""
    s = v + tau_squared * np.eye(d.size)
    inverse = np.linalg.inv(s)
    e = d - inverse.sum(axis=0) @ d / inverse.sum()
    return float(np.exp(-e @ inverse @ e / 2) / np.sqrt(np.linalg.det(s) * inverse.sum()))


@named
def test_q_and_paule_mandel_equal_metafor(name: str) -> None:
    case = CASES[name]
    found = heterogeneity(case["effects"], case["covariance"])
    assert found.df == case["effects"].size - 1
    assert found.q == pytest.approx(case["q"][0], rel=1e-10)
    assert found.p_value == pytest.approx(case["p_value"][0], rel=1e-8)
    assert found.tau**2 == pytest.approx(case["tau_squared"][0], rel=1e-6)


@named
def test_plain_matrices_equal_metafor_where_tau_is_known(name: str) -> None:
    case = CASES[name]
    mean, variance = given_tau(case["effects"], case["covariance"], 1.0)
    assert mean[0] == pytest.approx(case["mean_at_one"][0], rel=1e-9)
    assert np.sqrt(variance[0]) == pytest.approx(case["se_at_one"][0], rel=1e-9)
    if case["blup_at_one"]:
        assert mean[1:] == pytest.approx(case["blup_at_one"], rel=1e-9)
        assert np.sqrt(variance[1:]) == pytest.approx(case["blup_se_at_one"], rel=1e-9)


@named
def test_posterior_is_the_average_over_the_shrinkage_factor(name: str) -> None:
    d, v = CASES[name]["effects"], CASES[name]["covariance"]
    contrasts = np.linalg.svd(np.ones((1, d.size)))[2][1:]
    scale = 1 / np.trace(np.linalg.inv(contrasts @ v @ contrasts.T)) * (d.size - 1)

    def average(of):  # over B = scale / (scale + tau^2), uniform
        def integrand(b: float):
            tau_squared = scale * (1 - b) / b
            return likelihood(d, v, tau_squared) * of(tau_squared)

        return scipy.integrate.quad_vec(integrand, 0, 1, epsabs=0, epsrel=1e-9, limit=500)[0]

    def below(limits: np.ndarray):
        def of(tau_squared: float) -> np.ndarray:
            mean, variance = given_tau(d, v, tau_squared)
            return scipy.stats.norm.cdf(limits, mean, np.sqrt(variance))

        return of

    total = average(lambda _: 1.0)
    found = shrink(d, v, 0.1)
    parts = [found.pooled, *found.estimates]
    mean = average(lambda t: given_tau(d, v, t)[0]) / total
    assert [part.estimate for part in parts] == pytest.approx(mean, rel=1e-7)
    assert average(below(np.array([part.lower for part in parts]))) / total == pytest.approx(0.05, rel=1e-6)
    assert average(below(np.array([part.upper for part in parts]))) / total == pytest.approx(0.95, rel=1e-6)
    assert average(lambda t: float(t < found.tau**2)) / total == pytest.approx(0.5, abs=2e-3)


@named
def test_shift_scale_order_and_a_shared_error(name: str) -> None:
    d, v = CASES[name]["effects"], CASES[name]["covariance"]
    plain = shrink(d, v, 0.05)
    moved = shrink(1e-4 * (d + 30)[::-1], 1e-8 * v[::-1, ::-1], 0.05)
    for part, other in zip(plain.estimates, moved.estimates[::-1], strict=True):
        expected = [1e-4 * (x + 30) for x in (part.estimate, part.lower, part.upper)]
        assert (other.estimate, other.lower, other.upper) == pytest.approx(expected, rel=1e-7)
    assert moved.tau == pytest.approx(1e-4 * plain.tau, rel=1e-7)
    shared = v + 5.0
    first, second = heterogeneity(d, v), heterogeneity(d, shared)
    assert (second.q, second.tau) == pytest.approx((first.q, first.tau), rel=1e-6)
    assert shrink(d, shared, 0.05).tau == pytest.approx(plain.tau, rel=1e-6)


def test_what_is_far_apart_is_left_alone_and_what_agrees_is_not_a_point() -> None:
    far = shrink(np.array([0.0, 1e6, 3e6, -5e6]), np.eye(4), 0.05)
    half = scipy.stats.norm.isf(0.025)
    for part, value in zip(far.estimates, [0.0, 1e6, 3e6, -5e6], strict=True):
        assert (part.estimate, part.lower, part.upper) == pytest.approx((value, value - half, value + half), abs=1e-3)
    same = shrink(np.full(4, 2.0), np.eye(4), 0.05)
    assert heterogeneity(np.full(4, 2.0), np.eye(4)).tau == 0
    assert same.tau > 0
    for part in same.estimates:
        assert part.estimate == pytest.approx(2.0)
        assert 0.5 < (part.upper - part.lower) / (2 * half) < 1


def test_an_exact_segment_among_vague_ones() -> None:
    d = np.array([1.0, 5.0, -3.0])
    found = shrink(d, np.diag([1e-18, 4.0, 9.0]), 0.05)
    assert found.estimates[0].estimate == pytest.approx(1.0)
    assert found.estimates[0].upper - found.estimates[0].lower == pytest.approx(2 * 1.959964e-9, rel=1e-3)


def test_coverage_of_the_average_segment() -> None:
    rng = np.random.default_rng(20240604)
    hits = []
    for _ in range(250):
        truth = rng.normal(size=6) * 0.7
        found = shrink(truth + rng.normal(size=6), np.eye(6), 0.1).estimates
        hits.append(np.mean([part.lower <= t <= part.upper for part, t in zip(found, truth, strict=True)]))
    assert 0.88 < np.mean(hits) < 0.97


def test_tau_posterior_is_normalised_and_never_zero() -> None:
    posterior = between(np.zeros(3), np.eye(3))
    assert posterior.weights.sum() == pytest.approx(1)
    assert (posterior.tau_squared > 0).all()


def test_problems_and_wrong_arguments() -> None:
    for call in (heterogeneity, between):
        with pytest.raises(StatError) as caught:
            call(np.array([1.0]), np.eye(1))
        assert caught.value.code is Problem.NOT_ENOUGH_DATA
        with pytest.raises(StatError) as caught:
            call(np.array([1.0, 2.0]), np.ones((2, 2)))
        assert caught.value.code is Problem.ZERO_VARIANCE
        with pytest.raises(ValueError, match="finite"):
            call(np.array([1.0, np.inf]), np.eye(2))
        with pytest.raises(ValueError, match="shapes"):
            call(np.array([1.0, 2.0]), np.eye(3))
    with pytest.raises(ValueError, match="alpha"):
        shrink(np.array([1.0, 2.0]), np.eye(2), 0.0)


def test_a_sum_of_effects_is_the_average_of_the_sums_where_tau_is_known() -> None:
    """Mean and variance of weighted sums by plain matrices, averaged over the posterior of tau."""
    random = np.random.default_rng(5)
    d, root = random.normal(size=6), random.normal(size=(6, 6))
    v = root @ root.T / 6 + 0.2 * np.eye(6)
    weights = np.array([[1.0, 0, 0, 0, 0, 0], [2.0, 0, 1.0, 0, 0.5, 0], [1.0, -1.0, 0, 0, 0, 0]])
    posterior = between(d, v)
    means, variances = [], []
    for tau_squared in posterior.tau_squared:
        s = np.linalg.inv(v + tau_squared * np.eye(6))
        known = 1 / s.sum()
        w = v @ s
        pull = w.sum(axis=1)
        means.append(weights @ (d - w @ (d - known * s.sum(axis=0) @ d)))
        variances.append(np.diag(weights @ (v - w @ v + known * np.outer(pull, pull)) @ weights.T))
    mean, sd = np.array(means), np.sqrt(np.array(variances))
    found = shrink(d, v, 0.1, weights)
    assert found.combined[0].lower == pytest.approx(found.estimates[0].lower, rel=1e-12)
    for i, interval in enumerate(found.combined):
        assert interval.estimate == pytest.approx(posterior.weights @ mean[:, i], rel=1e-9)
        below = [scipy.stats.norm.cdf(limit, mean[:, i], sd[:, i]) for limit in (interval.lower, interval.upper)]
        assert np.array(below) @ posterior.weights == pytest.approx([0.05, 0.95], abs=1e-9)


def test_sums_must_be_sums_of_the_effects() -> None:
    for weights in (np.ones(3), np.ones((1, 2)), np.zeros((1, 3)), np.full((1, 3), np.nan)):
        with pytest.raises(ValueError, match="combinations"):
            shrink(np.zeros(3), np.eye(3), 0.05, weights)
