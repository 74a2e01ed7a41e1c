"""How often noise is called usable: nobody's effect differs, and a cheap learner is trained as the real ones are.

python -m tests.experiments.uplift.study_usable
"""

import sys

import numpy as np
import numpy.typing as npt

from experiments.uplift.choose import choose
from experiments.uplift.crossfit import Crossfit
from experiments.uplift.frame import Frame
from stats import policy_value

Floats = npt.NDArray[np.float64]

FOLDS = 5
FIRST = 2
RIDGES = (1.0, 300.0)


def made_up(
    rng: np.random.Generator, *, strength: float, users: int = 4000, arms: int = 2, lift: tuple[float, ...] = (0.3, 0.1)
) -> tuple[Crossfit, Floats]:
    """Users with five features; the first moves the effect by ``strength``. Returns them and the true effects."""
    x = rng.normal(size=(users, 5))
    arm = rng.integers(0, arms, users)
    effects = np.column_stack([lift[k] + strength * (x[:, 0] if k == 0 else x[:, 1]) for k in range(arms - 1)])
    skewed = rng.exponential(1, users) * (rng.random(users) < 0.3) * 3
    outcome = x[:, 0] + skewed + np.column_stack([np.zeros(users), effects])[np.arange(users), arm]
    frame = Frame(
        ids=list(range(users)),
        features=(),
        arm=arm,
        names=("control", "a", "b")[:arms],
        propensity=np.full((users, arms), 1 / arms),
        outcome=outcome,
        costs=np.zeros(arms),
        binary=False,
        segment=np.zeros(users, dtype=int),
        segments=(),
    )
    fold = policy_value.folds(users, FOLDS, arm, rng)
    predictions = np.empty((users, arms))
    for each in range(FOLDS):
        here = fold == each
        for k in range(arms):
            trained = ~here & (arm == k)
            predictions[here, k] = _ridge(x[trained], outcome[trained], 1.0)(x[here])
    scores = policy_value.doubly_robust(outcome, arm, frame.propensity, predictions)
    nothing = {"matrix": x, "owner": np.arange(5), "models": {}, "seconds": {}}
    found = Crossfit(
        frame=frame, fold=fold, predictions=predictions, scores=scores, effects={}, forward={}, first=FIRST, **nothing
    )
    return found, effects


def learnt(found: Crossfit) -> Crossfit:
    """Train learners: differences of ridge regressions by variant, with two penalties."""
    frame, x, fold = found.frame, found.matrix, found.fold

    def effects(trained: npt.NDArray[np.bool_], here: npt.NDArray[np.bool_], penalty: float) -> Floats:
        by_arm = []
        for k in range(len(frame.names)):
            of_arm = trained & (frame.arm == k)
            by_arm.append(_ridge(x[of_arm], frame.outcome[of_arm], penalty)(x[here]))
        outcomes = np.column_stack(by_arm)
        return outcomes[:, 1:] - outcomes[:, :1]

    crossed, forward = {}, {}
    for name, penalty in zip("st", RIDGES, strict=True):
        crossed[name] = np.empty((fold.size, len(frame.names) - 1))
        forward[name] = np.full_like(crossed[name], np.nan)
        for each in range(FOLDS):
            here = fold == each
            crossed[name][here] = effects(~here, here, penalty)
            if each >= FIRST:
                forward[name][here] = effects(fold < each, here, penalty)
    values = {name: getattr(found, name) for name in ("matrix", "owner", "fold", "predictions", "scores")}
    return Crossfit(frame=frame, effects=crossed, forward=forward, first=FIRST, models={}, seconds={}, **values)


def _ridge(x: Floats, y: Floats, penalty: float):  # type: ignore[no-untyped-def]
    center, mean = x.mean(axis=0), y.mean()
    weights = np.linalg.solve((x - center).T @ (x - center) + penalty * np.eye(x.shape[1]), (x - center).T @ (y - mean))
    return lambda at: mean + (at - center) @ weights


def usable_share(runs: int, *, users: int = 2000, seed: int, strength: float = 0.0, arms: int = 2) -> float:
    """How often a list is called usable."""
    hits = 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        found = learnt(made_up(rng, strength=strength, users=users, arms=arms)[0])
        hits += choose(found, alpha=0.05, rng=rng).usable
    return hits / runs


def naive_share(runs: int, *, users: int = 2000, seed: int) -> float:
    """The same with the usual test: folds whose models saw each other's users, taken as independent; one learner."""
    from stats import uplift

    hits = 0
    for run in range(runs):
        found = learnt(made_up(np.random.default_rng([seed, run]), strength=0.0, users=users)[0])
        gains = found.scores[:, 1] - found.scores[:, 0]
        hits += uplift.rate(found.effects["s"][:, 0], gains, "autoc", found.fold, alpha=0.1).lower > 0
    return hits / runs


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"two variants, no difference between users: usable {usable_share(count, seed=1):.1%} of {count} runs")
    print(f"three variants, no difference between users: usable {usable_share(count, seed=2, arms=3):.1%}")
    print(f"the usual test of one learner, at the same 5 %: {naive_share(count, seed=1):.1%}")
    print(f"effects that differ by 0.15 standard deviations: usable {usable_share(count, seed=3, strength=0.3):.1%}")
