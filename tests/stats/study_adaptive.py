"""Adaptive study: shares that follow the evidence. How far off are means afterwards, how often do intervals hold?

    python -m tests.stats.study_adaptive [EXPERIMENTS]

Three arms, 40 batches of 100 users, outcomes normal with sd 1, shares by Thompson with a floor of 2 %. "equal": no arm
is better; "weak": means 0, 0.05, 0.1; "strong": 0, 0.2, 0.5.
Naive: plain means and their standard errors. Unweighted: doubly robust scores, all of weight 1.
"""

import sys

import numpy as np
import scipy.stats

from stats.adaptive import adaptive_scores, adaptive_value, thompson_shares
from stats.arms import ArmVector, means
from stats.moments import Moments, merge

ALPHA, BATCHES, USERS, FLOOR = 0.05, 40, 100, 0.02
TRUTHS = {"equal": (0.0, 0.0, 0.0), "weak": (0.0, 0.05, 0.1), "strong": (0.0, 0.2, 0.5)}
METHODS = ("naive", "unweighted", "constant", "two-point")


def experiment(truth: tuple[float, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, arm and propensity of all users in order."""
    k = len(truth)
    shares, seen, parts = np.full(k, 1 / k), [Moments.zero(1)] * k, []
    for _ in range(BATCHES):
        arm = rng.choice(k, USERS, p=shares)
        outcome = np.array(truth)[arm] + rng.normal(size=USERS)
        parts.append((outcome, arm, np.tile(shares, (USERS, 1))))
        seen = [merge([seen[a], Moments.from_rows(outcome[arm == a][:, None])]) for a in range(k)]
        shares = thompson_shares(seen, FLOOR)
    outcome, arm, propensity = (np.concatenate(each) for each in zip(*parts, strict=True))
    return outcome, arm, propensity


def estimates(method: str, outcome: np.ndarray, arm: np.ndarray, propensity: np.ndarray) -> ArmVector:
    if method == "naive":
        return means([Moments.from_rows(outcome[arm == a][:, None]) for a in range(propensity.shape[1])])
    if method == "unweighted":
        return unweighted(outcome, arm, propensity)
    return adaptive_value(outcome, arm, propensity, decay=0.5 if method == "two-point" else None)


def unweighted(outcome: np.ndarray, arm: np.ndarray, propensity: np.ndarray) -> ArmVector:
    scores = adaptive_scores(outcome, arm, propensity)
    k = propensity.shape[1]
    return ArmVector(np.bincount(arm, minlength=k), scores.mean(axis=0), np.cov(scores.T) / len(scores), np.zeros(k))


def simulate(truth: tuple[float, ...], experiments: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Per method, for each arm and, last, for the difference of the last and the first (K + 1,): mean error `bias`,
    share of estimates `below` the truth, share of intervals that `covered` it, their mean `width`."""
    rng = np.random.default_rng(seed)
    z, true = scipy.stats.norm.isf(ALPHA / 2), np.append(truth, truth[-1] - truth[0])
    errors: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    ses: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
    for _ in range(experiments):
        data = experiment(truth, rng)
        for method in METHODS:
            found = estimates(method, *data)
            errors[method].append(np.append(found.mean, found.mean[-1] - found.mean[0]) - true)
            ses[method].append(np.append(found.se, found.difference_variance(len(truth) - 1, 0) ** 0.5))
    result = {}
    for method in METHODS:
        error, se = np.array(errors[method]), np.array(ses[method])
        result[method] = {
            "bias": error.mean(axis=0),
            "below": (error < 0).mean(axis=0),
            "covered": (np.abs(error) <= z * se).mean(axis=0),
            "width": 2 * z * se.mean(axis=0),
        }
    return result


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 20241105
    out = sys.stdout.write
    out(f"{experiments} experiments each, alpha {ALPHA}, seed {seed}; columns: arms 1 2 3, difference of 3 and 1\n")
    for name, truth in TRUTHS.items():
        for method, found in simulate(truth, experiments, seed).items():
            bias = "".join(f"{x:8.3f}" for x in found["bias"])
            below = "".join(f"{x:7.0%}" for x in found["below"])
            covered = "".join(f"{x:8.1%}" for x in found["covered"])
            width = "".join(f"{x:7.3f}" for x in found["width"])
            out(f"{name:8}{method:12} bias{bias}  below{below}  covered{covered}  width{width}\n")


if __name__ == "__main__":
    main()
