"""Families of contrasts, lifts and share checks in simulation: how often do they err, and on which side?

    python -m tests.stats.study_contrasts [REPLICATIONS]

Familywise error of Dunnett's and Tukey's comparisons of four equal normal arms at alpha 0.05, by size and spread of
the arms; misses of Fieller's and the delta method's 95 % lift by side for normal estimates with a true lift of 10 %;
alarms of the sequential share check over 1,000 looks of 100 users, alpha 0.05, without and with a mismatch.
"""

import sys

import numpy as np

from stats.arms import ArmVector, means
from stats.contrasts import all_pairs, many_to_one, simultaneous
from stats.effects import relative, relative_delta
from stats.horizon import Fixed
from stats.moments import Moments
from stats.srm import sequential_srm

ALPHA, LOOKS, USERS = 0.05, 1000, 100
DESIGNS = {
    "8 users": ((8, 8, 8, 8), (1, 1, 1, 1)),
    "20 users": ((20, 20, 20, 20), (1, 1, 1, 1)),
    "200 users": ((200, 200, 200, 200), (1, 1, 1, 1)),
    "unequal": ((100, 20, 20, 40), (1, 3, 1, 2)),
}
FAMILIES = {"dunnett": many_to_one(4, 0), "tukey": all_pairs(4)}


def familywise(design: str, replications: int, seed: int) -> dict[str, float]:
    """Share of replications with any false claim, by family."""
    rng = np.random.default_rng(seed)
    sizes, spreads = DESIGNS[design]
    false = dict.fromkeys(FAMILIES, 0)
    for _ in range(replications):
        arms = means([Moments.from_rows(rng.normal(0, s, size=(n, 1))) for n, s in zip(sizes, spreads, strict=True)])
        for name, matrix in FAMILIES.items():
            false[name] += min(simultaneous(arms, matrix, ALPHA).p_adjusted) < ALPHA
    return {name: count / replications for name, count in false.items()}


def lift_misses(variation: float, replications: int, seed: int) -> dict[str, tuple[float, float]]:
    """Shares of intervals entirely below and entirely above the true lift; `variation` is that of the control mean."""
    rng = np.random.default_rng(seed)
    methods = {"fieller": relative, "delta": relative_delta}
    low, high = dict.fromkeys(methods, 0), dict.fromkeys(methods, 0)
    horizon, n, still = Fixed(ALPHA), np.array([1000, 1000]), np.zeros(2)
    for mean in np.array([1.0, 1.1]) + variation * rng.normal(size=(replications, 2)):
        arms = ArmVector(n, mean, variation**2 * np.eye(2), still)
        for name, method in methods.items():
            interval = method(arms, 1, 0, horizon)
            low[name] += interval.upper < 0.1
            high[name] += interval.lower > 0.1
    return {name: (low[name] / replications, high[name] / replications) for name in methods}


def share_alarms(share: float, concentration: float, replications: int, seed: int) -> tuple[float, float]:
    """Share of experiments planned 50/50 that ever alarm, and the median users at the first alarm (nan: none)."""
    rng = np.random.default_rng(seed)
    first = []
    for _ in range(replications):
        users = rng.multinomial(USERS, [share, 1 - share], size=LOOKS)
        p = np.array(sequential_srm(users[:, None], [[1, 1]], concentration).p_values)
        if p[-1] < ALPHA:
            first.append(USERS * (1 + int((p < ALPHA).argmax())))
    return len(first) / replications, float(np.median(first)) if first else float("nan")


def main() -> None:
    replications, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 20240502
    out = sys.stdout.write
    out(f"{replications} replications, alpha {ALPHA}, seed {seed}\n")
    for design in DESIGNS:
        shares = familywise(design, replications, seed)
        out(f"familywise {design:10} " + "  ".join(f"{name} {share:.1%}" for name, share in shares.items()) + "\n")
    for variation in (0.02, 0.05, 0.1):
        for name, (low, high) in lift_misses(variation, 10 * replications, seed).items():
            out(f"lift, cv {variation:4} {name:8} below {low:.1%} above {high:.1%}\n")
    for concentration in (100, 1000, 10_000):
        for share in (0.5, 0.49, 0.48, 0.45):
            alarms, users = share_alarms(share, concentration, replications // 4, seed)
            out(f"shares {share} concentration {concentration:6} alarms {alarms:.1%} median users {users:.0f}\n")


if __name__ == "__main__":
    main()
