"""Group-sequential study: error, power, saving and coverage of simulated experiments that stop at one of five looks.

    python -m tests.stats.study_groupsequential [EXPERIMENTS]

Each experiment plans 2,000 users, assigned 50/50 by coin, who spend gamma-distributed amounts (shape 0.5, skewness
2.8). Looks come after 400, 800 ... users; their information is that of the users in the two arms, as they fell. The
confidence sequence, tuned to 2,000 users, is looked at after every 100.
"""

import sys
from dataclasses import dataclass

import numpy as np

from stats.groupsequential import Spending, bounds, stagewise
from stats.horizon import Sequential
from stats.power import Looks, Mean, Plan, detectable, power

ALPHA = 0.05
USERS = 2000
LOOKS = 5
SHAPE = 0.5
SPENDING = {name: Spending(name) for name in ("obrien_fleming", "pocock")}


@dataclass(frozen=True)
class Outcome:
    """Shares of experiments: stopped upward and downward, naive and stage-wise intervals that hold the truth,
    estimates above it; users on average."""

    upward: float
    downward: float
    naive: float
    stagewise: float
    naive_above: float
    stagewise_above: float
    users: float


def simulate(experiments: int, effect: float, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Estimates, standard errors and information fractions (experiments, USERS / batch) after each batch."""
    spent = rng.gamma(SHAPE, size=(experiments, USERS))
    treated = rng.random(spent.shape) < 0.5
    spent += effect * treated

    def at_looks(values: np.ndarray) -> np.ndarray:
        return values.cumsum(axis=1)[:, batch - 1 :: batch]

    count, mean, variance = [], [], []
    for arm in (~treated, treated):
        n, total, square = at_looks(arm * 1.0), at_looks(arm * spent), at_looks(arm * spent**2)
        count.append(n)
        mean.append(total / n)
        variance.append((square / n - (total / n) ** 2) / (n - 1))
    information = 4 / USERS / (1 / count[0] + 1 / count[1])
    return mean[1] - mean[0], np.sqrt(variance[0] + variance[1]), information


def stop(experiments: int, effect: float, spending: Spending, seed: int) -> Outcome:
    """Run experiments with the given true effect until they cross a bound or end."""
    simulated = simulate(experiments, effect, USERS // LOOKS, np.random.default_rng(seed))
    rows = []
    for estimate, se, information in zip(*simulated, strict=True):
        fractions, z = tuple(information.tolist()), estimate / se
        for look in range(1, LOOKS + 1):
            upper = bounds(fractions[:look], ALPHA, spending, final=look == LOOKS)
            if abs(z[look - 1]) >= upper[-1]:
                break
        crossed = abs(z[look - 1]) >= upper[-1]
        error = float(se[look - 1])
        after = stagewise(float(z[look - 1]), look, fractions[:look], upper, error, ALPHA)
        rows.append(
            (
                crossed and z[look - 1] > 0,
                crossed and z[look - 1] < 0,
                abs(estimate[look - 1] - effect) < 1.96 * error,
                after.lower < effect < after.upper,
                estimate[look - 1] > effect,
                after.estimate > effect,
                look * USERS / LOOKS,
            )
        )
    return Outcome(*np.mean(rows, axis=0).tolist())


def sequence_power(experiments: int, effect: float, seed: int) -> tuple[float, float]:
    """Shares in which the tuned sequence excludes zero at the planned size, and at or before it."""
    estimates, errors, _ = simulate(experiments, effect, 100, np.random.default_rng(seed))
    horizon = Sequential.tuned(ALPHA, USERS)
    critical = [horizon.critical(100 * look, None) for look in range(1, USERS // 100 + 1)]
    excluded = np.abs(estimates) > errors * critical
    return float(excluded[:, -1].mean()), float(excluded.any(axis=1).mean())


def planned_effect(looks: Looks) -> float:
    """The effect for which the plan has a power of 0.8."""
    return detectable(Plan(Mean(SHAPE, SHAPE), stopping=looks), USERS)


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1000, 20240601
    out = sys.stdout.write
    out(f"{experiments} experiments of {USERS} users, {LOOKS} looks, alpha {ALPHA}, seed {seed}\n")
    for name, spending in SPENDING.items():
        for effect in (0.0, planned_effect(Looks.equal(LOOKS, spending))):
            out(f"{name}, effect {effect:.4f}: {stop(experiments, effect, spending, seed)}\n")
    plan = Plan(Mean(SHAPE, SHAPE), stopping="sequential")
    for target in (0.5, 0.8, 0.9):
        effect = detectable(plan, USERS, target)
        at_end, ever = sequence_power(experiments, effect, seed)
        out(f"sequence: planned {power(plan, USERS, effect):.3f}, at the end {at_end:.3f}, at or before {ever:.3f}\n")


if __name__ == "__main__":
    main()
