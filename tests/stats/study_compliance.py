"""Users reached: who covers under a weak instrument, and which cuts of the users are biased.

    python -m tests.stats.study_compliance [EXPERIMENTS]

Instruments: 2 x 1,000 users, the assignment moves the reception of 40, 10 or 4 % of them, and the eager receive and
buy more anyway. Cuts: 2 x 4,000 users, the treatment makes more of them open, the additional ones less eager to buy; an
opened message is worth EFFECT to its reader. Compared are the openers of both arms, the users whose trigger (the moment
when the message would be sent) was logged in both arms, and the effect on the users reached.

"""

import sys
from collections import Counter

import numpy as np
from scipy.special import ndtr

from stats.arms import means
from stats.compliance import Complier, complier_effect, trigger_balance
from stats.effects import Effect, difference
from stats.errors import StatError
from stats.horizon import Fixed
from stats.moments import Moments

ALPHA = 0.05
EFFECT = 0.5
MOVED = (0.4, 0.1, 0.04)


def instrument(rng: np.random.Generator, moved: float) -> list[Moments]:
    """Outcome and reception per arm: a third receive anyway, `moved` of all only when assigned."""
    arms = []
    for arm in (0, 1):
        rank = rng.random(1000)
        received = rank < 1 / 3 + moved * arm
        outcome = 2 * (rank < 1 / 3 + moved) + EFFECT * received + rng.normal(size=1000)
        arms.append(Moments.from_rows(np.column_stack([outcome, received])))
    return arms


def misses(experiments: int, seed: int) -> Counter[tuple[float, str]]:
    """Intervals that miss EFFECT, and experiments that are called weak, per share moved."""
    rng = np.random.default_rng(seed)
    found: Counter[tuple[float, str]] = Counter()
    for _ in range(experiments):
        for moved in MOVED:
            arms = instrument(rng, moved)
            try:
                effect = complier_effect(arms, 0, 1, 1, 0, Fixed(ALPHA))
            except StatError:
                found[moved, "weak"] += 1
            else:
                found[moved, "anderson-rubin"] += not effect.lower <= EFFECT <= effect.upper
                found[moved, "delta"] += abs(effect.estimate - EFFECT) > 1.96 * effect.se
    return found


def cuts(experiments: int, seed: int) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Per comparison of users: sum of the biases, intervals that miss the truth, alarms of the balance of the cut.

    The control gets a message of its own that fewer open and nobody gains from.
    """
    rng = np.random.default_rng(seed)
    bias: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    # What the treatment adds per triggered user is EFFECT times the chance of opening.
    truth = {"openers": EFFECT, "triggered": EFFECT * float(ndtr(-0.4 / np.sqrt(2))), "reached": EFFECT}
    for _ in range(experiments):
        arms = []
        for arm in (0, 1):
            eager = rng.normal(size=4000)
            triggered = rng.random(4000) < 0.5
            opened = triggered & (eager + rng.normal(size=4000) > 1 - 0.6 * arm)
            outcome = eager + EFFECT * opened * arm + rng.normal(size=4000)
            arms.append({"rows": np.column_stack([outcome, opened * arm]), "triggered": triggered, "openers": opened})
        found: dict[str, Effect | Complier] = {
            "reached": complier_effect([Moments.from_rows(x["rows"]) for x in arms], 0, 1, 1, 0, Fixed(ALPHA))
        }
        for cut in ("openers", "triggered"):
            kept = [x["rows"][x[cut]] for x in arms]
            found[cut] = difference(means([Moments.from_rows(x) for x in kept]), 1, 0, Fixed(ALPHA))
            alarms[cut] += trigger_balance([len(x) for x in kept], [4000, 4000]).p_value < ALPHA
        for name, effect in found.items():
            bias[name] += effect.estimate - truth[name]  # type: ignore[assignment]
            missed[name] += not effect.lower <= truth[name] <= effect.upper
    return bias, missed, alarms


def main(experiments: int) -> None:
    found = misses(experiments, seed=20240701)
    for moved in MOVED:
        weak = found[moved, "weak"]
        shares = {key: found[moved, key] / (experiments - weak) for key in ("anderson-rubin", "delta")}
        ar = found[moved, "anderson-rubin"]
        print(
            f"moves {100 * moved:2.0f} %: called weak {100 * weak / experiments:5.1f} %, of the others missed by "
            f"Anderson-Rubin {100 * shares['anderson-rubin']:.1f} %, by the delta method "
            f"{100 * shares['delta']:.1f} %; of all missed by Anderson-Rubin {100 * ar / experiments:.1f} %"
        )
    bias, missed, alarms = cuts(experiments, seed=20240702)
    for name in bias:
        print(
            f"{name:10} bias {bias[name] / experiments:+.3f}, missed {100 * missed[name] / experiments:.1f} %, "
            f"unbalanced {100 * alarms[name] / experiments:.1f} %"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
