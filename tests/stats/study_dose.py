"""Doses: do bands, best dose and best set cover, do the tests keep their level?

    python -m tests.stats.study_dose [EXPERIMENTS]

Five doses of a skewed spend, 1,200 to 2,400 users each. The mean is flat, a line, a rise that levels off, or a parabola
that peaks within the doses. Every experiment is analysed at 95 %.
"""

import sys
from collections import Counter

import numpy as np

from stats.arms import ArmVector, means
from stats.dose import best_quadratic, best_tested, departure, response, trend
from stats.errors import StatError
from stats.horizon import Fixed
from stats.moments import Moments

ALPHA = 0.05
DOSES = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
USERS = np.array([2400, 1600, 1600, 1200, 1200])
PEAK = 4.5
CURVES = {
    "flat": np.full(5, 2.0),
    "line": 2 + 0.025 * DOSES,
    "saturating": 2 + 0.4 * (1 - np.exp(-DOSES / 1.5)),
    "parabola": 2 + 0.4 - 0.4 * ((DOSES - PEAK) / PEAK) ** 2,
}
SHAPES = {
    "flat": ("free", "increasing", "concave"),
    "saturating": ("free", "increasing", "concave"),
    "parabola": ("free", "concave"),
}


def draw(rng: np.random.Generator, truth: np.ndarray) -> ArmVector:
    """Gamma spend of shape 1/2 (skewness 2.8) with these means."""
    return means([Moments.from_rows(rng.gamma(0.5, 2 * m, (n, 1))) for m, n in zip(truth, USERS, strict=True)])


def count(experiments: int, seed: int) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Per (curve, method): misses or false alarms, and sums of the widths and set sizes."""
    rng = np.random.default_rng(seed)
    failures: Counter[tuple[str, str]] = Counter()
    sums: Counter[tuple[str, str]] = Counter()
    for _ in range(experiments):
        for name, truth in CURVES.items():
            arms = draw(rng, truth)
            for shape in SHAPES.get(name, ()):
                try:
                    curve = response(arms, list(DOSES), ALPHA, shape)  # type: ignore[arg-type]
                except StatError:
                    failures[name, shape] += 1
                    continue
                failures[name, shape] += bool(((curve.lower > truth) | (truth > curve.upper)).any())
                sums[name, shape] += float((curve.upper - curve.lower).mean())
            if name == "flat":
                failures[name, "trend"] += trend(arms, list(DOSES), Fixed(ALPHA)).p_value < ALPHA
            if name in ("flat", "line"):
                failures[name, "departure"] += departure(arms, list(DOSES)).p_value < ALPHA
            kept = best_tested(arms, ALPHA)
            failures[name, "best set"] += int(truth.argmax()) not in kept
            sums[name, "best set"] += len(kept)
            if name == "parabola":
                try:
                    best = best_quadratic(arms, list(DOSES), ALPHA)
                    failures[name, "best dose"] += not best.lower <= PEAK <= best.upper
                except StatError:
                    sums[name, "no optimum"] += 1
    return failures, sums


def main(experiments: int) -> None:
    failures, sums = count(experiments, seed=20240901)
    for key, value in failures.items():
        mean = f"   mean {sums[key] / experiments:.3f}" if key in sums else ""
        print(f"{key[0]:11} {key[1]:11} {100 * value / experiments:5.1f} %{mean}")
    print(f"no optimum claimed on the parabola: {100 * sums['parabola', 'no optimum'] / experiments:.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
