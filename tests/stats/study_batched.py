"""Adaptive study of batches: shares that follow the evidence from wave to wave, read with sums alone.

    python -m tests.stats.study_batched [EXPERIMENTS]

Three arms, 10 waves of 300 users who convert, shares by Thompson from pooled means of the waves before, floor 10 %.
"equal": all convert at 10 %; "better": 10, 12 and 16 %; "drift": as equal, but the level falls from 30 to 6 % over the
waves; "drift, better": the same with 0, 2 and 6 points more.
Pooled: plain means over all waves. Stratified: within waves, weighed by users. Batched: within waves, weighed evenly in
variance, one look at the end. Sequence: the same by the confidence sequence, looked at after each wave.

Large waves, where only the adapting is left to go wrong: two arms, 10 waves of 3,000 users with sd 1, a true difference
of 0, 0.02 and 0.1, floors of 1, 2 and 10 %.
"""

import sys
from collections.abc import Callable

import numpy as np
import scipy.stats

from stats import arms
from stats.adaptive import batched, thompson_shares
from stats.arms import ArmVector
from stats.errors import StatError
from stats.horizon import Sequential
from stats.moments import Floats, Moments, merge

ALPHA, WAVES, USERS, FLOOR, K = 0.05, 10, 300, 0.1, 3
LEVEL, FALL = [0.1] * WAVES, np.geomspace(0.3, 0.06, WAVES).tolist()
CASES: dict[str, tuple[list[float], tuple[float, ...]]] = {
    "equal": (LEVEL, (0.0, 0.0, 0.0)),
    "better": (LEVEL, (0.0, 0.02, 0.06)),
    "drift": (FALL, (0.0, 0.0, 0.0)),
    "drift, better": (FALL, (0.0, 0.02, 0.06)),
}
Wave = list[Moments]


def experiment(level: list[float], lift: tuple[float, ...], rng: np.random.Generator) -> list[Wave]:
    """Moments of each arm, wave by wave."""
    shares, seen, waves = np.full(K, 1 / K), [Moments.zero(1)] * K, []
    for base in level:
        arm = rng.choice(K, USERS, p=shares)
        outcome = (rng.random(USERS) < base + np.array(lift)[arm]).astype(float)
        waves.append([Moments.from_rows(outcome[arm == a][:, None]) for a in range(K)])
        seen = [merge(pair) for pair in zip(seen, waves[-1], strict=True)]
        shares = thompson_shares(seen, FLOOR)
    return waves


def pooled(waves: list[Wave], pair: tuple[int, int]) -> ArmVector:
    return arms.means([merge([wave[a] for wave in waves]) for a in pair])


def stratified(waves: list[Wave], pair: tuple[int, int]) -> ArmVector:
    return arms.stratified([arms.means([wave[a] for a in pair]) for wave in _full(waves, pair)])


def once(waves: list[Wave], pair: tuple[int, int]) -> ArmVector:
    kept = _full(waves, pair)
    return batched([arms.means([w[a] for a in pair]) for w in kept], [sum(arm.n for arm in w) for w in kept])


def always(waves: list[Wave], pair: tuple[int, int]) -> ArmVector:
    return batched([arms.means([wave[a] for a in pair]) for wave in _full(waves, pair)])


def _full(waves: list[Wave], pair: tuple[int, int]) -> list[Wave]:
    return [wave for wave in waves if all(wave[a].n >= 2 for a in pair)]


METHODS: dict[str, Callable[[list[Wave], tuple[int, int]], ArmVector]] = {
    "pooled": pooled,
    "stratified": stratified,
    "batched": once,
}


def simulate(case: str, experiments: int, seed: int) -> dict[str, dict[str, float]]:
    """Per method, of the differences 2−1 and 3−1: share of intervals that `covered`, mean error, mean width."""
    rng, (level, lift) = np.random.default_rng(seed), CASES[case]
    z = scipy.stats.norm.isf(ALPHA / 2)
    horizon = Sequential.tuned(ALPHA, WAVES * USERS * 2 / K)
    errors: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    ses: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    held, best = [], []
    for _ in range(experiments):
        waves = experiment(level, lift, rng)
        best.append(sum(wave[-1].n for wave in waves) / (WAVES * USERS))
        for method, estimate in METHODS.items():
            found = [estimate(waves, (a, 0)) for a in (1, 2)]
            errors[method].append([_difference(one) - lift[a] for a, one in zip((1, 2), found, strict=True)])
            ses[method].append([one.difference_variance(0, 1) ** 0.5 for one in found])
        held.append([_always_held(waves, a, lift[a], horizon) for a in (1, 2)])
    result = {}
    for method in METHODS:
        error, se = np.array(errors[method]), np.array(ses[method])
        covered = (np.abs(error) <= z * se).mean(axis=0)
        result[method] = {
            **{f"covered {a + 2}": float(covered[a]) for a in range(2)},
            **{f"bias {a + 2}": float(error[:, a].mean()) for a in range(2)},
            **{f"width {a + 2}": float(2 * z * se[:, a].mean()) for a in range(2)},
        }
    both = np.array(held).mean(axis=0)
    result["sequence"] = {"covered 2": float(both[0]), "covered 3": float(both[1])}
    result["users"] = {"on the last arm": float(np.mean(best))}
    return result


def _difference(vector: ArmVector) -> float:
    return float(vector.mean[0] - vector.mean[1])


def _always_held(waves: list[Wave], arm: int, truth: float, horizon: Sequential) -> bool:
    """Whether the sequence held the truth after every wave."""
    for count in range(1, WAVES + 1):
        try:
            found = always(waves[:count], (arm, 0))
            half = horizon.critical(int(found.n.sum()), None) * found.difference_variance(0, 1) ** 0.5
        except StatError:
            continue
        if abs(_difference(found) - truth) > half:
            return False
    return True


def large(floor: float, truth: float, experiments: int, seed: int) -> dict[str, tuple[float, float]]:
    """Per method, coverage and mean width of two arms' difference, from means drawn wave by wave."""
    rng, users, waves = np.random.default_rng(seed), 3_000, 10
    share = np.full(experiments, 0.5)
    counts, sums = np.zeros((experiments, 2)), np.zeros((experiments, 2))
    parts: list[tuple[Floats, Floats]] = []
    for _ in range(waves):
        second = np.rint(users * share)
        n = np.stack([users - second, second], axis=1)
        mean = [0.0, truth] + rng.normal(size=(experiments, 2)) / np.sqrt(n)
        parts.append((n, mean))
        counts, sums = counts + n, sums + n * mean
        means = sums / counts
        z = (means[:, 1] - means[:, 0]) / np.sqrt((1 / counts).sum(axis=1))
        share = floor + (1 - 2 * floor) * scipy.stats.norm.cdf(z)
    found: dict[str, list[tuple[bool, float]]] = {"pooled": [], "stratified": [], "batched": []}
    for i in range(experiments):
        vectors = [_vector(n[i], mean[i]) for n, mean in parts]
        for method, vector in (
            ("pooled", _vector(counts[i], sums[i] / counts[i])),
            ("stratified", arms.stratified(vectors)),
            ("batched", batched(vectors)),
        ):
            half = scipy.stats.norm.isf(ALPHA / 2) * vector.difference_variance(1, 0) ** 0.5
            found[method].append((abs(-_difference(vector) - truth) <= half, 2 * half))
    return {method: tuple(np.array(each).mean(axis=0).tolist()) for method, each in found.items()}


def _vector(n: Floats, mean: Floats) -> ArmVector:
    return ArmVector(n.astype(np.int64), mean, np.diag(1 / n), np.zeros(n.size))


def main() -> None:
    experiments, seed = int(sys.argv[1]) if len(sys.argv) > 1 else 2000, 20241106
    sys.stdout.write(f"{experiments} experiments each, alpha {ALPHA}, seed {seed}\n")
    for case in CASES:
        for method, found in simulate(case, experiments, seed).items():
            told = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
            sys.stdout.write(f"{case:14} {method:11} {told}\n")
    for floor in (0.01, 0.02, 0.1):
        for truth in (0.0, 0.02, 0.1):
            parts = large(floor, truth, experiments, seed).items()
            told = "  ".join(f"{method} {covered:.3f} / {width:.4f}" for method, (covered, width) in parts)
            sys.stdout.write(f"large, floor {floor}, difference {truth}: {told}\n")


if __name__ == "__main__":
    main()
