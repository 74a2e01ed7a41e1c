"""Writes winner.json: quantile-unbiased estimates and limits of the largest estimate, from two sources.

    python tests/reference/make_winner.py        (multiple-inference 1.2.0 needs scipy < 1.12, numpy < 2)

"package": multiple-inference, which loses its digits where the truncation lies far in a tail (there it is null).
"definition": the quantiles' defining equation solved with 80 digits by mpmath.

The simultaneous interval of the hybrid is simulated by the package; it is replaced by Sidak's, so that digits agree.
"""

import json
from importlib.metadata import version
from pathlib import Path

import mpmath
import numpy as np
from multiple_inference.rank_condition import RankCondition
from multiple_inference.stats import quantile_unbiased
from scipy.stats import norm

ALPHA, BETA = 0.05, 0.005
CASES = {
    "independent": ([1.0, 0.5, 0.2], np.diag([0.3, 0.3, 0.3])),
    "shared control": ([1.0, 0.5, 0.2], 0.2 * np.eye(3) + 0.1),
    "close race": ([1.0, 0.97, -0.4], np.diag([0.2, 0.4, 0.3])),
    "clear winner": ([5.0, 0.5, 0.2, 0.1], np.diag([0.3, 0.2, 0.1, 0.4])),
    "upper truncation": ([1.0, 0.8, 0.1], np.array([[0.2, 0.3, 0.05], [0.3, 0.9, 0.1], [0.05, 0.1, 0.5]])),
    "very close race": ([1.0, 1.0 - 1e-6, -0.4], np.diag([0.2, 0.4, 0.3])),
    "ten": (list(np.linspace(0, 1.8, 10)), 0.15 * np.eye(10) + 0.05),
}


class _Half:
    """Stands for the package's simulated simultaneous interval: one of known half width."""

    def __init__(self, mean: np.ndarray, half: float) -> None:
        self.mean, self.half = mean, half

    def conf_int(self, _beta: float, indices: list[int]) -> np.ndarray:
        return np.array([[self.mean[i] - self.half, self.mean[i] + self.half] for i in indices])


def projected(model: RankCondition, winner: int, half: float) -> quantile_unbiased:
    model._confidence_set = _Half(model.mean, half)
    return model.get_marginal_distribution(winner, beta=BETA)


def defined(estimates: list[float], covariance: np.ndarray, winner: int, half: float, probability: float) -> float:
    """The mean at which the truncated normal exceeds the estimate with this probability."""
    y, variance = mpmath.mpf(estimates[winner]), mpmath.mpf(float(covariance[winner, winner]))
    se = mpmath.sqrt(variance)
    low, high = -mpmath.inf, mpmath.inf
    for j, x in enumerate(estimates):
        c = mpmath.mpf(float(covariance[j, winner])) / variance
        if j != winner and c != 1:
            bound = (mpmath.mpf(x) - c * y) / (1 - c)
            low, high = (max(low, bound), high) if c < 1 else (low, min(high, bound))

    def beyond(mean: mpmath.mpf) -> mpmath.mpf:
        bottom, top = max(low, mean - half), min(high, mean + half)
        tail = lambda x: mpmath.erfc((x - mean) / se / mpmath.sqrt(2)) / 2  # noqa: E731
        return (tail(y) - tail(top)) / (tail(bottom) - tail(top))

    a, b = (y - half, y + half) if half < mpmath.inf else (y - 20 * se, y + 20 * se)
    while half == mpmath.inf and beyond(a) > probability:
        a = y - 2 * (y - a)
    for _ in range(220):
        middle = (a + b) / 2
        a, b = (middle, b) if beyond(middle) < probability else (a, middle)
    return float((a + b) / 2)


def main() -> None:
    mpmath.mp.dps = 80
    cases = []
    for name, (estimates, covariance) in CASES.items():
        winner = int(np.argmax(estimates))
        model = RankCondition(np.array(estimates), covariance)
        se = float(np.sqrt(covariance[winner, winner]))
        half = se * float(norm.isf(-np.expm1(np.log1p(-BETA) / len(estimates)) / 2))
        case = {"name": name, "estimates": estimates, "covariance": covariance.tolist()}
        for kind, beta, reach in (("conditional", 0.0, mpmath.inf), ("hybrid", BETA, mpmath.mpf(half))):
            tail = (ALPHA - beta) / (1 - beta) / 2
            wanted = (0.5, tail, 1 - tail)
            # With 80 digits a tail of 1e-70 still counts.
            definition = [defined(estimates, covariance, winner, reach, p) for p in wanted]
            case[kind] = {"definition": definition, "package": None}
            if "close" not in name and name != "ten":
                found = model.get_marginal_distribution(winner) if not beta else projected(model, winner, half)
                case[kind]["package"] = [float(found.ppf(p)) for p in wanted]
        cases.append(case)
    made = {
        "package": f"multiple-inference {version('multiple-inference')}, mpmath {version('mpmath')}",
        "alpha": ALPHA,
        "beta": BETA,
        "cases": cases,
    }
    target = Path(__file__).with_name("winner.json")
    target.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
