import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from numpy.testing import assert_allclose, assert_array_equal

from stats.arms import means, stratified
from stats.effects import difference, relative
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Moments
from stats.quantiles import Sample, quantiles
from tests.stats.reference import load

ENGEL = load("quantiles.json")
FOOD = np.array(ENGEL["values"])
BLOCKS = np.array(ENGEL["cluster"], dtype=np.int64)
WEIGHTS = np.array(ENGEL["weights"], dtype=np.float64)


def visits(rng: np.random.Generator, users: int, per_user: int = 5, icc: float = 0.3) -> Sample:
    """Log-normal values, `per_user` of each user, correlated by `icc` on the log scale."""
    own = rng.normal(scale=math.sqrt(icc), size=(users, 1))
    noise = rng.normal(scale=math.sqrt(1 - icc), size=(users, per_user))
    return Sample(np.exp(own + noise).ravel(), np.repeat(np.arange(users), per_user))


@pytest.mark.parametrize("n", [30, 100, 237])
@pytest.mark.parametrize("q", [0.3, 0.5, 0.7])
def test_estimate_equals_numpy_inverted_cdf(n: int, q: float) -> None:
    rng = np.random.default_rng(n)
    x, weights = rng.normal(size=n), rng.uniform(0.5, 2, size=n)
    arms = quantiles([Sample(x), Sample(x, weights=weights), Sample(x, weights=np.full(n, 0.1))], q, alpha=0.2)
    plain = np.quantile(x, q, method="inverted_cdf")
    assert arms.mean.tolist() == [plain, np.quantile(x, q, weights=weights, method="inverted_cdf"), plain]


def test_engel_equals_quantreg() -> None:
    """R's standard errors are bootstraps of 20,000 draws: ours is another estimator, within a sixth of them."""
    expected = ENGEL["expected"]
    for row, q in enumerate(ENGEL["q"]):
        arms = quantiles([Sample(FOOD), Sample(FOOD, BLOCKS), Sample(FOOD, weights=WEIGHTS)], q)
        assert_allclose(arms.mean[:2], expected["quantile"][row], rtol=1e-12)
        assert arms.mean[2] == pytest.approx(expected["weighted"][row], rel=1e-12)
        assert arms.se[0] == pytest.approx(expected["bootstrap"][row], rel=1 / 6)
        assert arms.se[1] == pytest.approx(expected["cluster_bootstrap"][row], rel=1 / 6)
        assert arms.n.tolist() == [235, 47, 235]


def by_hand(sample: Sample, q: float, quantile: float, z: float) -> float:
    """Woodruff's standard error with the standard error of the share below by statsmodels."""
    n = sample.values.size
    w = np.ones(n) if sample.weights is None else sample.weights
    model = sm.WLS((quantile >= sample.values).astype(float), np.ones(n), weights=w)
    if sample.clusters is not None:
        se = model.fit(cov_type="cluster", cov_kwds={"groups": sample.clusters}).bse[0]
    elif sample.weights is not None:
        se = model.fit(cov_type="HC1").bse[0]
    else:
        se = math.sqrt(q * (1 - q) / n)
    order = np.argsort(sample.values)
    shares = list(zip(sample.values[order], np.cumsum(w[order]) / w.sum(), strict=True))
    lower = max(y for y, share in shares if share <= q - z * se)
    upper = min(y for y, share in shares if share >= q + z * se)
    return (upper - lower) / (2 * z)


@pytest.mark.parametrize("clusters", [None, BLOCKS], ids=["values", "clusters"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
def test_limits_are_woodruffs_with_the_share_of_statsmodels(
    clusters: np.ndarray | None, weights: np.ndarray | None
) -> None:
    sample = Sample(FOOD, clusters, weights)
    arms = quantiles([sample], 0.6, alpha=0.1)
    assert arms.se[0] == pytest.approx(by_hand(sample, 0.6, arms.mean[0], scipy.stats.norm.isf(0.05)), rel=1e-12)


def test_few_large_clusters_equal_statsmodels() -> None:
    sample = visits(np.random.default_rng(12), users=6, per_user=1500, icc=0.1)
    arms = quantiles([sample], 0.5)
    assert arms.se[0] == pytest.approx(by_hand(sample, 0.5, arms.mean[0], scipy.stats.norm.isf(0.025)), rel=1e-12)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_ranks_are_within_two_of_the_exact_binomial_interval(q: float) -> None:
    ranks = np.arange(1.0, 4001)
    exact = scipy.stats.quantile_test(ranks, p=q, q=0).confidence_interval(0.95)
    width = quantiles([Sample(ranks)], q).se[0] * 2 * scipy.stats.norm.isf(0.025)
    assert width == pytest.approx(exact.high - exact.low, abs=2)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_large_samples_have_the_se_of_the_density(q: float) -> None:
    x = np.random.default_rng(1).normal(size=200_000)
    se = math.sqrt(q * (1 - q) / x.size) / scipy.stats.norm.pdf(scipy.stats.norm.ppf(q))
    assert quantiles([Sample(x)], q).se[0] == pytest.approx(se, rel=0.05)


@pytest.mark.parametrize("q", [0.5, 0.9])
def test_clustered_se_is_the_spread_of_repeated_estimates(q: float) -> None:
    rng = np.random.default_rng(2)
    arms = quantiles([visits(rng, 400) for _ in range(600)], q)
    naive = quantiles([Sample(visits(rng, 400).values) for _ in range(100)], q)
    assert np.mean(arms.se) == pytest.approx(arms.mean.std(), rel=0.08)
    assert np.mean(naive.se) < 0.88 * np.mean(arms.se)


def test_values_repeated_within_a_user_carry_no_information() -> None:
    x = np.random.default_rng(3).normal(size=2000)
    arms = quantiles([Sample(x, np.arange(2000)), Sample(np.repeat(x, 5), np.repeat(np.arange(2000), 5))], 0.7)
    assert arms.mean[0] == arms.mean[1]
    assert arms.se[1] == pytest.approx(arms.se[0], rel=0.05)
    assert quantiles([Sample(x)], 0.7).se[0] == pytest.approx(arms.se[0], rel=0.05)


def test_order_labels_and_scale_of_weights_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    sample, weights = visits(rng, 60), rng.uniform(1, 3, size=300)
    shuffle = rng.permutation(300)
    other = Sample(sample.values[shuffle], 7 - 3 * sample.clusters[shuffle], 1e-6 * weights[shuffle])
    arms = quantiles([Sample(sample.values, sample.clusters, weights), other], 0.5)
    assert arms.mean[0] == arms.mean[1]
    assert arms.se[1] == pytest.approx(arms.se[0], rel=1e-12)


def test_shift_and_scale_carry_over_at_any_size() -> None:
    x = np.random.default_rng(5).integers(0, 10**6, size=500).astype(float)
    plain, moved = quantiles([Sample(x)], 0.8), quantiles([Sample(4 * x + 1e9)], 0.8)
    assert moved.mean[0] == 4 * plain.mean[0] + 1e9
    assert moved.se[0] == pytest.approx(4 * plain.se[0], rel=1e-12)


def test_alpha_sets_only_the_distance_of_the_ranks() -> None:
    x = np.random.default_rng(6).normal(size=20_000)
    wide, narrow = (quantiles([Sample(x)], 0.5, alpha) for alpha in (0.01, 0.2))
    assert wide.mean[0] == narrow.mean[0]
    assert wide.se[0] != narrow.se[0]
    assert wide.se[0] == pytest.approx(narrow.se[0], rel=0.1)


def in_strata(rng: np.random.Generator, sizes: tuple[tuple[int, int], ...], levels: tuple[int, ...]) -> list[Sample]:
    """Two arms of log-normal values; `sizes` and `levels` by stratum. Weighted as `Sample` says."""
    samples = []
    for arm in range(2):
        n = [size[arm] for size in sizes]
        values = np.concatenate([rng.lognormal(level, size=m) for level, m in zip(levels, n, strict=True)])
        weights = np.repeat([sum(size) / size[arm] for size in sizes], n)
        samples.append(Sample(values, weights=weights, strata=np.repeat(np.arange(len(n)), n)))
    return samples


def test_strata_with_another_allocation_and_no_effect_show_none_when_weighted() -> None:
    samples = in_strata(np.random.default_rng(7), ((2000, 2000), (3600, 400)), (0, 2))
    naive = difference(quantiles([Sample(s.values) for s in samples], 0.5), 1, 0, Fixed(0.05))
    weighted = difference(quantiles([Sample(s.values, weights=s.weights) for s in samples], 0.5), 1, 0, Fixed(0.05))
    fair = difference(quantiles(samples, 0.5), 1, 0, Fixed(0.05))
    assert abs(naive.statistic) > 10
    assert abs(fair.statistic) < 3
    assert fair.estimate == weighted.estimate
    assert fair.se < 0.9 * weighted.se


def test_stratified_covariance_is_that_of_the_stratified_shares_below() -> None:
    """Near the quantiles the values grow linearly here: se of the quantile is se of the share over the density."""
    rng = np.random.default_rng(9)
    samples = in_strata(rng, ((3000, 3000), (6000, 1500)), (0, 1))
    arms = quantiles(samples, 0.5)
    below = [
        means(
            [
                Moments.from_rows((x.values[x.strata == s] <= m)[:, None])
                for x, m in zip(samples, arms.mean, strict=True)
            ]
        )
        for s in range(2)
    ]
    share = stratified(below)
    density = share.se / arms.se
    assert_allclose(arms.covariance, share.covariance / np.outer(density, density), rtol=0.01)
    assert arms.n.tolist() == share.n.tolist()


def test_clusters_in_strata_equal_their_values_when_alone() -> None:
    samples = in_strata(np.random.default_rng(10), ((200, 300), (400, 100)), (0, 1))
    alone = [Sample(x.values, np.arange(x.values.size)[::-1] * 3, x.weights, x.strata + 5) for x in samples]
    left, right = quantiles(samples, 0.4), quantiles(alone, 0.4)
    assert_array_equal(left.n, right.n)
    assert_array_equal(left.mean, right.mean)
    assert_allclose(left.covariance, right.covariance, rtol=1e-12)
    assert_allclose(left.satterthwaite, right.satterthwaite, rtol=1e-12)


def test_one_stratum_is_none() -> None:
    rng = np.random.default_rng(11)
    plain = visits(rng, 100)
    one = Sample(plain.values, plain.clusters, strata=np.full(500, 3))
    assert_allclose(quantiles([one], 0.5).covariance, quantiles([plain], 0.5).covariance, rtol=1e-12)


def test_difference_and_lift_have_the_degrees_of_freedom_of_the_units() -> None:
    rng = np.random.default_rng(8)
    arms = quantiles([visits(rng, 40), visits(rng, 30)], 0.5)
    effect = difference(arms, 1, 0, Fixed(0.05))
    v = arms.se**2
    assert effect.df == pytest.approx(v.sum() ** 2 / (v[0] ** 2 / 39 + v[1] ** 2 / 29))
    assert relative(arms, 1, 0, Fixed(0.05)).estimate == pytest.approx(arms.mean[1] / arms.mean[0] - 1)


def test_ties_around_the_quantile_have_no_variance() -> None:
    x = np.repeat([0.0, 5.0], [900, 100])
    arms = quantiles([Sample(x), Sample(x, np.arange(1000) // 4), Sample(np.full(50, 1e9))], 0.5)
    assert_array_equal(arms.mean, [0, 0, 1e9])
    assert_array_equal(arms.covariance, np.zeros((3, 3)))
    assert quantiles([Sample(x, np.arange(1000) // 4)], 0.95).covariance == 0
    with pytest.raises(StatError) as caught:
        difference(arms, 1, 0, Fixed(0.05))
    assert caught.value.code is Problem.ZERO_VARIANCE


@pytest.mark.parametrize(("n", "q"), [(0, 0.5), (1, 0.5), (5, 0.5), (300, 0.99), (300, 0.01), (70, 0.95)])
def test_ranks_outside_the_sample_are_a_problem(n: int, q: float) -> None:
    fine = Sample(np.arange(5000.0))
    with pytest.raises(StatError) as caught:
        quantiles([fine, Sample(np.arange(float(n)))], q)
    assert caught.value.code is Problem.NOT_ENOUGH_DATA
    assert (caught.value.facts["arm"], caught.value.facts["n"]) == (1, n)


def test_one_user_with_many_values_is_not_enough() -> None:
    with pytest.raises(StatError) as caught:
        quantiles([Sample(np.arange(500.0), np.zeros(500, dtype=np.int64))], 0.5)
    assert caught.value.facts == {"arm": 0, "n": 1, "needed": 2}


def test_stratum_that_an_arm_lacks_is_a_problem() -> None:
    x, half = np.arange(50.0), np.repeat([0, 1], 25)
    for lacking in (np.zeros(50, dtype=np.int64), np.repeat([0, 1], [49, 1])):
        with pytest.raises(StatError) as caught:
            quantiles([Sample(x, strata=half), Sample(x, strata=lacking)], 0.5)
        assert caught.value.code is Problem.NOT_ENOUGH_DATA
        assert caught.value.facts == {"arm": 1, "n": np.sum(lacking == 1), "needed": 2}


def test_no_values_in_any_stratum_is_a_problem() -> None:
    empty = Sample(np.empty(0), strata=np.empty(0, dtype=np.int64))
    with pytest.raises(StatError) as caught:
        quantiles([empty, empty], 0.5)
    assert caught.value.facts == {"arm": 0, "n": 0, "needed": 2}


def test_wrong_arguments_are_refused() -> None:
    x = np.arange(50.0)
    for values in (np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="finite"):
            Sample(values)
    for clusters in (np.zeros(50), np.zeros(49, dtype=np.int64)):
        with pytest.raises(ValueError, match="clusters"):
            Sample(x, clusters)
    for weights in (np.zeros(50), np.ones(49), np.full(50, np.nan), np.full(50, -1.0)):
        with pytest.raises(ValueError, match="weights"):
            Sample(x, weights=weights)
    with pytest.raises(ValueError, match="clusters and strata"):
        Sample(x, strata=np.zeros(50))
    half = np.repeat([0, 1], 25)
    with pytest.raises(ValueError, match="all samples"):
        quantiles([Sample(x, strata=half), Sample(x)], 0.5)
    with pytest.raises(ValueError, match="one stratum"):
        quantiles([Sample(x, np.arange(50) % 10, strata=half)], 0.5)
    for q in (0, 1, math.nan):
        with pytest.raises(ValueError, match="q must"):
            quantiles([Sample(x)], q)
    with pytest.raises(ValueError, match="alpha"):
        quantiles([Sample(x)], 0.5, alpha=0)
