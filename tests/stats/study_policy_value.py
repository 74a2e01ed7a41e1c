"""Uplift study: do the intervals of policy value, gain and RATE cover, and how often does the leakage check cry wolf?

    python -m tests.stats.study_policy_value [EXPERIMENTS]

Users have one attribute x, uniform on (0, 1); two arms and a control are assigned 50/30/20 below the middle and
20/40/40 above it. "binary": 10 % + 10 % x respond, the first arm adds SLOPE (x - 0.3), the second 3 % for everybody.
"revenue": those who respond spend a log-normal amount (mean 10, sigma 1). "same for all": binary, the first arm adds
4 % for everybody, so no ranking is right. "one in ten": the first arm adds 20 % for the last tenth of x, nothing below.
Predictions: a line in x per arm, fitted on the other of two folds. Rankings: x, and x in five grades (ties). Truths are
by integration over x.
"""

import sys
from collections import Counter
from collections.abc import Callable

import numpy as np

from stats.policy_value import Estimate, best_constant, by_group, doubly_robust, folds, gain, snipw, value
from stats.uplift import balance, calibration, rate, toc, uplift_at

ALPHA, SLOPE, SPENT, SHARE = 0.05, 0.2, 10.0, 0.3
LOW, HIGH = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.4, 0.4])
GRID = (np.arange(100_000) + 0.5) / 100_000
FIRST: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "binary": lambda x: SLOPE * (x - 0.3),
    "revenue": lambda x: SLOPE * (x - 0.3),
    "same for all": lambda x: np.full(x.shape, 0.04),
    "one in ten": lambda x: 0.2 * (x > 0.9),
}


def response(world: str, x: np.ndarray) -> np.ndarray:
    """Mean outcome (n, 3) under each arm, per user who responds one unit, or SPENT of revenue."""
    base = 0.1 + 0.1 * x
    rates = np.column_stack([base, base + FIRST[world](x), base + 0.03])
    return rates * (SPENT if world == "revenue" else 1.0)


def ranked(x: np.ndarray, ties: bool) -> np.ndarray:
    return np.floor(x * 5) if ties else x


def policy_of(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0.5, 1, 2)


def truths(world: str) -> dict[str, float]:
    mean = response(world, GRID)
    first = mean[:, 1] - mean[:, 0]
    rank = 1 - GRID
    grade = (np.floor(rank * 5) + 0.5) / 5
    chosen = mean[np.arange(GRID.size), policy_of(GRID)]
    found = {
        "value": float(chosen.mean()),
        "gain": float((chosen - mean[:, 1]).mean()),
        "gain, lower half": float((chosen - mean[:, 1])[GRID <= 0.5].mean()),
        "snipw": float(chosen.mean()),
        "uplift at 30 %": float(first[GRID > 1 - SHARE].mean()),
        "toc at 30 %": float(first[GRID > 1 - SHARE].mean() - first.mean()),
        "slope": float(np.cov(GRID, first)[0, 1] / GRID.var(ddof=1)),
    }
    for ties in (False, True):
        name = ", ties" if ties else ""
        # Means of J = -log r - 1 over a fifth of the ranks: differences of its integral -r log r.
        integral = [-r * np.log(r) if r else 0.0 for r in np.arange(6) / 5]
        autoc = np.repeat(np.diff(integral) * 5, GRID.size // 5)[::-1] if ties else -np.log(rank) - 1
        found[f"autoc{name}"] = float((first * autoc).mean())
        found[f"qini{name}"] = float((first * (0.5 - (grade if ties else rank))).mean())
    return found


def estimates(world: str, n: int, rng: np.random.Generator) -> tuple[dict[str, Estimate], float, np.ndarray]:
    """Everything estimated from one experiment of n users, the p value of the leakage check of x, and the scores."""
    x = rng.random(n)
    e = np.where((x > 0.5)[:, None], HIGH, LOW)
    arm = (rng.random(n)[:, None] > np.cumsum(e, axis=1)[:, :2]).sum(axis=1)
    mean = response(world, x)[np.arange(n), arm]
    if world == "revenue":
        y = (rng.random(n) < mean / SPENT) * SPENT * np.exp(rng.normal(size=n) - 0.5)
    else:
        y = (rng.random(n) < mean).astype(np.float64)
    fold = folds(n, 2, arm, rng)
    predictions = np.empty((n, 3))
    for f in range(2):
        for a in range(3):
            train = (fold != f) & (arm == a)
            predictions[fold == f, a] = np.polyval(np.polyfit(x[train], y[train], 1), x[fold == f])
    scores = doubly_robust(y, arm, e, predictions)
    gains = scores[:, 1] - scores[:, 0]
    policy, baseline = policy_of(x), np.ones(n, dtype=np.int64)
    at = toc(x, gains, [SHARE], ALPHA)
    found = {
        "value": value(scores, policy, alpha=ALPHA),
        "gain": gain(scores, policy, baseline, alpha=ALPHA),
        "gain, lower half": by_group(scores, policy, baseline, x > 0.5, alpha=ALPHA)[0].gain,
        "snipw": snipw(y, arm, e, policy, alpha=ALPHA),
        "uplift at 30 %": uplift_at(x, gains, SHARE, ALPHA),
        "toc at 30 %": Estimate(*(each.item() for each in (at.estimate, at.se, at.lower, at.upper)), p_value=1.0),
        "slope": calibration(x, gains, 4, ALPHA).slope,
    }
    for ties in (False, True):
        for target in ("autoc", "qini"):
            found[f"{target}{', ties' if ties else ''}"] = rate(ranked(x, ties), gains, target, alpha=ALPHA)
    return found, balance(x, arm, e).p_value, scores


def coverage(world: str, n: int, experiments: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Per estimate: share of intervals that hold the truth, bias in standard errors, mean width in sd of the estimates.

    "leak" is the share of false alarms of the check, "best constant" the coverage of the corrected best arm.
    """
    rng, true = np.random.default_rng(seed), truths(world)
    constants = response(world, GRID).mean(axis=0)
    covered: Counter[str] = Counter()
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in true}
    for _ in range(experiments):
        found, p_leak, scores = estimates(world, n, rng)
        for name, each in found.items():
            covered[name] += each.lower <= true[name] <= each.upper
            seen[name].append((each.estimate, each.se))
        covered["leak"] += p_leak < ALPHA
        best = best_constant(scores, alpha=ALPHA)
        covered["best constant"] += best.corrected.lower <= constants[best.arm] <= best.corrected.upper
    result = {name: (covered[name] / experiments, float("nan"), float("nan")) for name in ("leak", "best constant")}
    for name, pairs in seen.items():
        points, errors = np.array(pairs).T
        sd = points.std(ddof=1)
        result[name] = covered[name] / experiments, float((points.mean() - true[name]) / sd), float(errors.mean() / sd)
    return result


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 20240612
    out = sys.stdout.write
    out(f"{experiments} experiments each, alpha {ALPHA}, seed {seed}\n")
    out(f"{'world':14}{'users':>6}  {'estimate':18}{'covered':>9}{'bias/sd':>9}{'se/sd':>7}\n")
    for world in FIRST:
        for n in (1000, 4000):
            for name, (share, bias, ratio) in coverage(world, n, experiments, seed).items():
                out(f"{world:14}{n:6}  {name:18}{share:9.1%}{bias:9.2f}{ratio:7.2f}\n")


if __name__ == "__main__":
    main()
