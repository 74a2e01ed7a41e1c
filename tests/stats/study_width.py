"""How wide the sequential interval is: against gbstats at the same tuning, and with a covariate.

python -m tests.stats.study_width
"""

import sys
from typing import Any

import numpy as np

from stats.arms import ArmVector, adjusted, means
from stats.effects import Effect, difference
from stats.horizon import Sequential
from stats.moments import Moments
from stats.simulation import Scenario, Segment, sample
from tests.stats.reference import load

USERS = 200_000
RHOS = (0.2, 0.4, 0.6)


def arms_of(case: dict[str, Any]) -> ArmVector:
    """The two arms of a stored case, control first."""
    sums = [(arm["n"], arm["sum"], arm["squares"]) for arm in case["arms"]]
    return means([Moments.from_integer_sums(n, [total], [[squares]], [1]) for n, total, squares in sums])


def width(interval: Effect) -> float:
    return interval.upper - interval.lower


def against_gbstats(case: dict[str, Any], tuned: float) -> float:
    """Our width, tuned to `tuned` users, over the stored one."""
    ours = difference(arms_of(case), 1, 0, Sequential.tuned(case["alpha"], tuned))
    return width(ours) / (case["upper"] - case["lower"])


def with_covariate(rho: float, seed: int = 20240602) -> float:
    """Width of the revenue interval with revenue before as covariate, over the width without it."""
    scenario = Scenario(rho=rho, segments=(Segment("all", conversion=0.3),), spread=0.5)
    drawn = sample(scenario, USERS, np.random.default_rng(seed))
    rows = np.column_stack([drawn["revenue"], drawn["revenue_before"]])
    parts = [Moments.from_rows(rows[drawn["variant"] == arm]) for arm in range(2)]
    horizon = Sequential.tuned(0.05, USERS)

    def wide(arms: ArmVector) -> float:
        return width(difference(arms, 1, 0, horizon))

    return wide(adjusted(parts, 0, [1])) / wide(means(parts))


def main() -> None:
    out = sys.stdout.write
    out("alpha  tuned  users  width over gbstats' at the same tuning, and when ours is tuned to the users\n")
    for case in load("width.json")["cases"]:
        same, planned = against_gbstats(case, case["tuned"]), against_gbstats(case, case["users"])
        out(f"{case['alpha']:5} {case['tuned']:6} {case['users']:6}  {same:.5f}  {planned:.4f}\n")
    out("rho   width with covariate over without, sqrt(1 - rho^2)\n")
    for rho in RHOS:
        out(f"{rho:3}   {with_covariate(rho):.4f}  {np.sqrt(1 - rho**2):.4f}\n")


if __name__ == "__main__":
    main()
