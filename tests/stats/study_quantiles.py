"""Coverage study of quantiles: how often do the 95 % intervals of the difference and of the lift miss the truth?

    python -m tests.stats.study_quantiles [EXPERIMENTS]

Log-normal values (standard deviation 1 of the logarithm); the treatment multiplies by 1.2. "users": 1,000 an arm.
"visits": 300 users an arm with five values each, correlated by 0.3 on the log scale. "strata": 2,000 users, half of
them at level exp(1.5), by chance; allocated 50/50 and 80/20; weighted by the users of the stratum in all arms over
those in the arm.
"""

import math
import sys
from collections import Counter

import numpy as np
import scipy.optimize
from scipy.special import ndtr, ndtri

from stats.effects import difference, relative
from stats.horizon import Fixed
from stats.quantiles import Sample, quantiles

HORIZON = Fixed(0.05)
FACTOR = 1.2
ICC = 0.3
VISITORS, VISITS = 300, 5
LEVELS = (0.0, 1.5)
STRATIFIED, TREATED_SHARE = 2000, (0.5, 0.2)
QUANTILES = (0.5, 0.9)
STRATA = ("strata", "weighted only", "strata pooled")
DESIGNS = ("users", "visits", "visits as users", *STRATA)


def miss(experiments: int, seed: int) -> Counter[tuple[str, float, str]]:
    """Experiments whose interval lies beside the truth per (design, quantile, "difference" or "lift")."""
    rng = np.random.default_rng(seed)
    missed: Counter[tuple[str, float, str]] = Counter()
    for _ in range(experiments):
        for design, arms in simulate(rng).items():
            for q in QUANTILES:
                vector = quantiles(arms, q)
                base = true_quantile(q, LEVELS if design in STRATA else LEVELS[:1])
                effect, lift = difference(vector, 1, 0, HORIZON), relative(vector, 1, 0, HORIZON)
                missed[design, q, "difference"] += not effect.lower <= base * (FACTOR - 1) <= effect.upper
                missed[design, q, "lift"] += not lift.lower <= FACTOR - 1 <= lift.upper
    return missed


def simulate(rng: np.random.Generator) -> dict[str, list[Sample]]:
    """Control and treatment of each design."""
    samples: dict[str, list[Sample]] = {design: [] for design in DESIGNS}
    sizes = rng.multinomial(STRATIFIED, (0.5, 0.5))
    treated = rng.binomial(sizes, TREATED_SHARE)
    users = np.column_stack([sizes - treated, treated])
    for arm, factor in enumerate((1.0, FACTOR)):
        samples["users"].append(Sample(factor * rng.lognormal(size=1000)))
        own = rng.normal(scale=math.sqrt(ICC), size=(VISITORS, 1))
        visits = own + rng.normal(scale=math.sqrt(1 - ICC), size=(VISITORS, VISITS))
        values = factor * np.exp(visits.ravel())
        samples["visits"].append(Sample(values, np.repeat(np.arange(VISITORS), VISITS)))
        samples["visits as users"].append(Sample(values))
        n = users[:, arm]
        values = factor * rng.lognormal(np.repeat(LEVELS, n))
        weights = np.repeat(users.sum(axis=1) / n, n)
        samples["strata"].append(Sample(values, weights=weights, strata=np.repeat([0, 1], n)))
        samples["weighted only"].append(Sample(values, weights=weights))
        samples["strata pooled"].append(Sample(values))
    return samples


def true_quantile(q: float, levels: tuple[float, ...]) -> float:
    """Of the control: log-normal values of these levels in equal parts."""
    if len(levels) == 1:
        return math.exp(levels[0] + ndtri(q))
    return math.exp(scipy.optimize.brentq(lambda x: np.mean([ndtr(x - level) for level in levels]) - q, -9, 9))


def main(experiments: int) -> None:
    missed = miss(experiments, seed=20240501)
    print(f"{experiments} experiments; truth outside the 95 % interval, per cent")
    for design in DESIGNS:
        for q in QUANTILES:
            shares = (f"{kind} {100 * missed[design, q, kind] / experiments:5.1f}" for kind in ("difference", "lift"))
            print(f"{design:16} q = {q:4}  {'   '.join(shares)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
