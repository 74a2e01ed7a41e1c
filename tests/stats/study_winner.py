"""Winner study: the arm with the largest of K estimates. How far off is its estimate, how often does its interval hold?

    python -m tests.stats.study_winner [EXPERIMENTS]

Arms against a shared control: standard error 1, correlation 1/2. "equal": no arm has an effect; "steps": effects 0,
0.5, 1 ...; "one ahead": one arm is 2 better than the others.
"""

import sys

import numpy as np
import scipy.stats

from stats.winner import corrected

ALPHA = 0.05
SIZES = (2, 5, 10)
TRUTHS = {
    "equal": lambda k: np.zeros(k),
    "steps": lambda k: np.arange(k) / 2,
    "one ahead": lambda k: 2.0 * (np.arange(k) == 0),
}
KINDS = {"conditional": 0.0, "hybrid": None}


def simulate(truth: np.ndarray, experiments: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Per kind: share of estimates above the truth, coverage, median width of the interval."""
    rng = np.random.default_rng(seed)
    k = truth.size
    covariance = (np.eye(k) + 1) / 2
    root = np.linalg.cholesky(covariance)
    z = scipy.stats.norm.isf(ALPHA / 2)
    rows: dict[str, list[tuple[bool, bool, float]]] = {kind: [] for kind in ("naive", *KINDS)}
    for _ in range(experiments):
        seen = truth + root @ rng.normal(size=k)
        winner = int(seen.argmax())
        value, true = seen[winner], truth[winner]
        rows["naive"].append((value > true, abs(value - true) <= z, 2 * z))
        for kind, beta in KINDS.items():
            found = corrected(seen, covariance, None, ALPHA, beta)
            rows[kind].append((found.estimate > true, found.lower <= true <= found.upper, found.upper - found.lower))
    return {
        kind: (
            float(np.mean([r[0] for r in found])),
            float(np.mean([r[1] for r in found])),
            float(np.median([r[2] for r in found])),
        )
        for kind, found in rows.items()
    }


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1000, 20240602
    out = sys.stdout.write
    out(f"{experiments} experiments each, alpha {ALPHA}, seed {seed}\n")
    out(f"{'effects':12}{'K':>4}  {'method':14}{'above':>8}{'covered':>9}{'width':>8}\n")
    for name, truth in TRUTHS.items():
        for k in SIZES:
            for kind, (above, covered, width) in simulate(truth(k), experiments, seed).items():
                out(f"{name:12}{k:4}  {kind:14}{above:8.1%}{covered:9.1%}{width:8.2f}\n")


if __name__ == "__main__":
    main()
