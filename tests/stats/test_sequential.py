import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats

from stats import sequential
from stats.horizon import Fixed, Sequential

Z = np.linspace(0.1, 9, 12)
N = [1, 50, 5_000, 10**7]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        *((0.01, 8.94), (0.05, 4.67), (0.1, 3.82), (0.25, 3.25), (0.5, 3.08)),
        *((1, 3.04), (2, 3.06), (4, 3.13), (10, 3.25)),
    ],
)
def test_price_in_standard_errors_is_the_documented_table(share: float, expected: float) -> None:
    rho = sequential.rho_squared(0.05, 10_000)
    assert sequential.multiplier(share * 10_000, 0.05, rho) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 1e-6])
def test_tuned_rho_minimises_the_radius_at_the_planned_users(alpha: float) -> None:
    best = scipy.optimize.minimize_scalar(
        lambda log_rho: sequential.multiplier(5_000, alpha, math.exp(log_rho)), bounds=(-20, 0), method="bounded"
    )
    rho = sequential.rho_squared(alpha, 5_000)
    assert sequential.multiplier(5_000, alpha, rho) <= best.fun * (1 + 1e-12)
    assert math.log(rho) == pytest.approx(best.x, abs=1e-3)


def test_tuned_rho_at_five_percent_is_the_known_constant() -> None:
    assert sequential.rho_squared(0.05, 1) == pytest.approx(8.212, abs=5e-4)


@pytest.mark.parametrize("n", N)
@pytest.mark.parametrize("alpha", [0.3, 0.05, 1e-9])
def test_p_is_the_dual_of_the_interval(n: int, alpha: float) -> None:
    rho = 1e-3
    assert sequential.p_value(sequential.multiplier(n, alpha, rho), n, rho) == pytest.approx(alpha, rel=1e-9)
    one_sided = sequential.multiplier_one_sided(n, alpha, rho)
    assert sequential.p_value_one_sided(one_sided, n, rho) == pytest.approx(alpha, rel=1e-9)


@pytest.mark.parametrize("z", [0.5, 2.0, 4.0])
def test_p_is_one_over_the_normal_mixture_of_likelihood_ratios(z: float) -> None:
    n, rho = 400, 0.01

    def evidence(mean: float) -> float:
        return math.exp(mean * z * math.sqrt(n) - mean**2 * n / 2) * scipy.stats.norm.pdf(mean, scale=math.sqrt(rho))

    total, _ = scipy.integrate.quad(evidence, -1, 1, points=[z / math.sqrt(n)], epsabs=0, epsrel=1e-10, limit=200)
    positive, _ = scipy.integrate.quad(evidence, 0, 1, points=[z / math.sqrt(n)], epsabs=0, epsrel=1e-10, limit=200)
    assert sequential.p_value(z, n, rho) == pytest.approx(min(1.0, 1 / total), rel=1e-7)
    # The one-sided p bounds the half-normal mixture from the safe side, and closely where it matters.
    one_sided = sequential.p_value_one_sided(z, n, rho)
    assert one_sided >= min(1.0, 1 / (2 * positive))
    if z == 4.0:
        assert one_sided == pytest.approx(1 / (2 * positive), rel=0.02)


@pytest.mark.parametrize("n", N)
def test_p_falls_with_the_statistic_and_never_beats_a_single_look(n: int) -> None:
    two = [sequential.p_value(z, n, 1e-3) for z in Z]
    one = [sequential.p_value_one_sided(z, n, 1e-3) for z in Z]
    assert two == sorted(two, reverse=True)
    assert one == sorted(one, reverse=True)
    assert all(p >= 2 * scipy.stats.norm.sf(z) for p, z in zip(two, Z, strict=True))
    assert all(p >= scipy.stats.norm.sf(z) for p, z in zip(one, Z, strict=True))


def test_extreme_statistics_neither_overflow_nor_exceed_one() -> None:
    assert sequential.p_value(1e3, 10**9, 1e-3) == 0.0
    assert sequential.p_value_one_sided(1e3, 10**9, 1e-3) == 0.0
    assert sequential.p_value(0.0, 10**9, 1e-3) == 1.0
    for z in (0.0, -5.0, 1e-200):
        assert sequential.p_value_one_sided(z, 10**9, 1e-3) == 1.0


@pytest.mark.parametrize("one_sided", [False, True])
def test_peeking_at_every_observation_keeps_the_error_below_alpha(one_sided: bool) -> None:
    rng = np.random.default_rng(3)
    n = np.arange(1, 1001)
    rho = sequential.rho_squared(0.1, 500)
    multiplier = sequential.multiplier_one_sided if one_sided else sequential.multiplier
    bound = np.array([multiplier(k, 0.1, rho) for k in n])
    z = rng.normal(size=(2000, n.size)).cumsum(axis=1) / np.sqrt(n)
    crossed = int(((z if one_sided else np.abs(z)) > bound).any(axis=1).sum())
    assert crossed <= scipy.stats.binom.ppf(0.999, 2000, 0.1)
    assert crossed > 2000 * 0.02  # tight enough to be worth having
    assert (np.abs(z) > 1.645).any(axis=1).mean() > 0.4  # what the same looks do at a fixed horizon


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_levels_outside_the_unit_interval_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Fixed(alpha)
    with pytest.raises(ValueError, match="alpha"):
        Sequential(alpha, 0.1)
    with pytest.raises(ValueError, match="alpha"):
        sequential.rho_squared(alpha, 10)


def test_rho_must_be_positive() -> None:
    with pytest.raises(ValueError, match="rho"):
        Sequential(0.05, 0.0)


@pytest.mark.parametrize("df", [None, 3.5, 1e6])
def test_fixed_critical_values_equal_scipy_quantiles(df: float | None) -> None:
    reference = scipy.stats.norm() if df is None else scipy.stats.t(df)
    horizon = Fixed(0.05)
    assert horizon.critical(10, df) == pytest.approx(reference.ppf(0.975))
    assert horizon.critical_one_sided(10, df) == pytest.approx(reference.ppf(0.95))
    assert horizon.p_value(-1.7, 10, df) == pytest.approx(2 * reference.cdf(-1.7))
    assert horizon.p_value_one_sided(-1.7, 10, df) == pytest.approx(1 - reference.cdf(-1.7))
