"""A/A study: simulated experiments without any effect, looked at every day. How often does each method cry wolf?

    python -m tests.stats.study_aa [EXPERIMENTS]

Each experiment runs 28 days with 400 new users a day, assigned 50/50 by coin. 5 % convert; a buyer spends a log-normal
amount; spending of the 28 days before (30 % of users) is the covariate.
"""

import sys
from collections import Counter

import numpy as np

from stats.arms import adjusted, means
from stats.effects import difference
from stats.horizon import Fixed, Sequential
from stats.moments import Moments
from stats.proportions import Conversions
from stats.proportions import difference as score_difference

ALPHA = 0.05
DAYS = 28
USERS_A_DAY = 400
METRICS = ("conversion", "revenue", "revenue adjusted")
CONVERTED, REVENUE, BEFORE = range(3)


def simulate_day(rng: np.random.Generator) -> list[Moments]:
    """Moments of one day's users per arm: converted, revenue, revenue before."""
    taste = rng.normal(size=USERS_A_DAY)
    converted = rng.random(USERS_A_DAY) < 0.05
    spent = converted * np.exp(3 + 0.8 * taste + 0.6 * rng.normal(size=USERS_A_DAY))
    before = (rng.random(USERS_A_DAY) < 0.3) * np.exp(3 + 0.8 * taste + 0.6 * rng.normal(size=USERS_A_DAY))
    rows = np.column_stack([converted, spent, before])
    arm = rng.random(USERS_A_DAY) < 0.5
    return [Moments.from_rows(rows[~arm]), Moments.from_rows(rows[arm])]


def count_rejections(experiments: int, seed: int) -> Counter[tuple[str, str]]:
    """Experiments with a false alarm per (metric, method): at the one planned look or at any of the daily looks."""
    rng = np.random.default_rng(seed)
    fixed, sequential = Fixed(ALPHA), Sequential.tuned(ALPHA, DAYS * USERS_A_DAY)
    alarms: Counter[tuple[str, str]] = Counter()
    for _ in range(experiments):
        arms = [Moments.zero(3), Moments.zero(3)]
        seen: set[tuple[str, str]] = set()
        for day in range(DAYS):
            arms = [total + new for total, new in zip(arms, simulate_day(rng), strict=True)]
            vectors = (means(arms, CONVERTED), means(arms, REVENUE), adjusted(arms, REVENUE, [BEFORE]))
            for metric, vector in zip(METRICS, vectors, strict=True):
                if difference(vector, 1, 0, sequential).p_value < ALPHA:
                    seen.add((metric, "sequential, every day"))
                if difference(vector, 1, 0, fixed).p_value < ALPHA:
                    seen.add((metric, "fixed, every day"))
                    if day == DAYS - 1:
                        seen.add((metric, "fixed, last day"))
        control, treated = (Conversions(round(arm.mean[CONVERTED] * arm.n), arm.n) for arm in arms)
        if score_difference(treated, control, ALPHA).p_value < ALPHA:
            seen.add(("conversion", "score, last day"))
        alarms.update(seen)
    return alarms


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 500, 20240501
    alarms = count_rejections(experiments, seed)
    out = sys.stdout.write
    out(f"{experiments} A/A experiments, {DAYS} looks, alpha {ALPHA}, seed {seed}\n")
    for (metric, method), count in sorted(alarms.items()):
        out(f"{metric:18} {method:24} {count:4} {count / experiments:7.1%}\n")


if __name__ == "__main__":
    main()
