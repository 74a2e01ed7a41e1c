"""Coverage by seeded simulation, inside the binomial 99.9 % interval of the nominal level."""

import numpy as np
import scipy.stats

from stats.arms import ArmVector, adjusted, means, stratified
from stats.effects import difference, relative
from stats.horizon import Fixed
from stats.moments import Moments

FIXED = Fixed(0.05)


def assert_nominal(hits: int, runs: int, level: float = 0.95) -> None:
    low, high = scipy.stats.binom.interval(0.999, runs, level)
    assert low <= hits <= high, f"{hits} of {runs}"


def test_fieller_covers_the_lift_and_misses_on_both_sides_alike() -> None:
    """Control mean of ten standard errors: there the delta method misses 0.8 % and 4.1 % on its two sides."""
    rng = np.random.default_rng(11)
    se, truth, runs = np.array([0.1, 0.12]), np.array([1.0, 1.3]), 10_000
    below = above = 0
    for mean in truth + rng.normal(size=(runs, 2)) * se:
        lift = relative(ArmVector(np.array([500, 500]), mean, np.diag(se**2), np.zeros(2)), 1, 0, FIXED)
        below += lift.upper < 0.3
        above += lift.lower > 0.3
    assert_nominal(below, runs, 0.025)
    assert_nominal(above, runs, 0.025)


def test_adjusted_difference_covers_the_population_effect() -> None:
    """20/80 split, 600 users, slopes 1 and 2.5: without the sampling of the covariate mean coverage is 92 %."""
    rng = np.random.default_rng(12)
    runs, hits, hits_without = 3000, 0, 0
    for _ in range(runs):
        parts = []
        for slope, n in ((1.0, 120), (2.5, 480)):
            x = rng.normal(size=n)
            parts.append(Moments.from_rows(np.column_stack([0.5 * (slope > 1) + slope * x + rng.normal(size=n), x])))
        arms = adjusted(parts, 0, [1])
        effect = difference(arms, 1, 0, FIXED)
        hits += effect.lower <= 0.5 <= effect.upper
        se = float(np.sqrt(np.sqrt(arms.satterthwaite * [118, 478]).sum()))
        hits_without += abs(effect.estimate - 0.5) <= 1.96 * se
    assert_nominal(hits, runs)
    assert hits_without / runs < 0.935


def test_stratified_difference_covers_the_population_effect() -> None:
    """Strata of random size, own split, own effect (0, 3 and 0.5)."""
    rng = np.random.default_rng(13)
    size, effects, treated = np.array([0.5, 0.2, 0.3]), np.array([0.0, 3.0, 0.5]), (0.5, 0.9, 0.3)
    truth = float(size @ effects)
    runs, hits, hits_without = 3000, 0, 0
    for _ in range(runs):
        strata = []
        for n, effect, share in zip(rng.multinomial(500, size), effects, treated, strict=True):
            n_t = round(n * share)
            control = rng.normal(effect, 1, size=(n - n_t, 1))
            strata.append(means([Moments.from_rows(control), Moments.from_rows(rng.normal(2 * effect, 1, (n_t, 1)))]))
        result = difference(stratified(strata), 1, 0, FIXED)
        hits += result.lower <= truth <= result.upper
        weights = np.array([s.n.sum() for s in strata]) / 500
        within = float(weights**2 @ [np.trace(s.covariance) for s in strata])
        hits_without += abs(result.estimate - truth) <= 1.96 * np.sqrt(within)
    assert_nominal(hits, runs)
    assert hits_without / runs < 0.93
