"""Shrinkage study: how many of the segments' true effects lie in their shrunk intervals, how close are the estimates?

    python -m tests.stats.study_shrinkage [EXPERIMENTS]

J segments with standard errors spread over a factor of two (mean square 1) and a shared error of the control; true
effects from a prior with standard deviation tau. Plug-in takes Paule and Mandel's tau as if it were known.
"""

import sys
from collections.abc import Callable

import numpy as np
import scipy.stats

from stats.shrinkage import heterogeneity, shrink

ALPHA = 0.05
SIZES = (3, 8, 30)
TAUS = (0.0, 0.5, 1.0, 3.0)
SHARED = 0.2
# All with mean 0 and variance 1.
PRIORS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, j: rng.normal(size=j),
    "skewed": lambda rng, j: rng.exponential(size=j) - 1,
    "one in ten": lambda rng, j: (rng.random(j) < 0.1) * rng.choice([-1, 1], j) * np.sqrt(10),
    "two points": lambda rng, j: rng.choice([-1.0, 1.0], j),
}


def simulate(prior: str, size: int, tau: float, experiments: int, seed: int) -> tuple[float, float, float]:
    """Average coverage of the shrunk and of the plug-in intervals, mean squared error relative to the raw estimates."""
    rng = np.random.default_rng(seed)
    se = np.sqrt(np.linspace(0.5, 1.5, size))
    covariance = np.diag(se**2) + SHARED
    root = np.linalg.cholesky(covariance)
    z = scipy.stats.norm.isf(ALPHA / 2)
    covered = plugged = squares = raw = 0.0
    for _ in range(experiments):
        truth = tau * PRIORS[prior](rng, size)
        seen = truth + root @ rng.normal(size=size)
        result = shrink(seen, covariance, ALPHA).estimates
        covered += float(np.mean([i.lower <= t <= i.upper for i, t in zip(result, truth, strict=True)]))
        squares += sum((i.estimate - t) ** 2 for i, t in zip(result, truth, strict=True))
        raw += float(((seen - truth) ** 2).sum())
        tau_squared = heterogeneity(seen, covariance).tau ** 2
        inverse = np.linalg.inv(covariance + tau_squared * np.eye(size))
        ones = np.ones(size)
        mean = ones @ inverse @ seen / (ones @ inverse @ ones)
        centre = seen - covariance @ inverse @ (seen - mean)
        pull = covariance @ inverse @ ones
        variance = np.diag(covariance - covariance @ inverse @ covariance) + pull**2 / (ones @ inverse @ ones)
        half = z * np.sqrt(variance)
        plugged += float((np.abs(centre - truth) <= half).mean())
    return covered / experiments, plugged / experiments, squares / raw


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 300, 20240601
    out = sys.stdout.write
    out(f"{experiments} experiments each, alpha {ALPHA}, seed {seed}\n")
    out(f"{'prior':12}{'J':>4}{'tau':>6}{'shrunk':>9}{'plug-in':>9}{'MSE/raw':>9}\n")
    for prior in PRIORS:
        for size in SIZES:
            for tau in TAUS:
                covered, plugged, error = simulate(prior, size, tau, experiments, seed)
                out(f"{prior:12}{size:4}{tau:6.1f}{covered:9.1%}{plugged:9.1%}{error:9.2f}\n")


if __name__ == "__main__":
    main()
