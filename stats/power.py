"""Planning: power, the smallest effect worth planning for, and the users needed, before an experiment starts.

The formulas follow the tests of the analysis: Welch's t for means and the score test for unadjusted conversion at a
fixed horizon, otherwise the normal test with the unpooled error and the bounds of the horizon. Nothing is simulated.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Self

import numpy as np
import scipy.optimize
from scipy.special import nctdtr, ndtr, ndtri, stdtrit

from stats import contrasts, groupsequential, sequential
from stats.arms import ArmVector
from stats.effects import Direction
from stats.errors import Problem, StatError
from stats.groupsequential import Sides, Spending

__all__ = [
    "Conversion",
    "Hazard",
    "Looks",
    "Mean",
    "Plan",
    "detectable",
    "expected_users",
    "power",
    "users",
]

# Two users in an arm, but for rounding.
_FEWEST: Final = 2 - 1e-9
# More than this is no plan.
_MOST: Final = 1e12


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric known by its mean and its variance per user in the control, which the effect leaves alone.

    A ratio is planned by the variance of its linearised column, a quantile by q (1 - q) / density^2, a restricted mean
    by the variance of min(T, horizon).
    """

    mean: float
    variance: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.variance < math.inf):
            raise ValueError(f"the variance must be positive: {self}")


@dataclass(frozen=True, slots=True)
class Conversion:
    """A share of users, (0, 1), in the control. The variance follows the rate, so the effect changes it."""

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must be in (0, 1): {self.rate}")


@dataclass(frozen=True, slots=True)
class Hazard:
    """Time to an event. Effects are log hazard ratios and all numbers of users are events (Schoenfeld 1981)."""


Metric = Mean | Conversion | Hazard


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks planned at these fractions of the information, the last of them 1."""

    information: tuple[float, ...]
    spending: Spending

    def __post_init__(self) -> None:
        groupsequential.check(self.information)
        if self.information[-1] != 1:
            raise ValueError(f"the last planned look must have all the information: {self.information}")

    @classmethod
    def equal(cls, number: int, spending: Spending) -> Self:
        """That many looks, equally far apart."""
        return cls(tuple((k + 1) / number for k in range(number)), spending)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared and how.

    `shares` of all users, the control first; figures are for the treatment with the smallest share. `alpha` is divided
    by the number of treatments (Bonferroni), or replaced by Dunnett's level, which needs a single two-sided look.
    `variance_reduction` is the rho^2 that covariates are expected to remove (`stats.arms.variance_reduction`). `margin`
    makes a one-sided test of non-inferiority. `stopping` is a single look, a confidence sequence tuned to the planned
    users, or `Looks`.
    """

    metric: Metric
    shares: tuple[float, ...] = (0.5, 0.5)
    alpha: float = 0.05
    correction: Literal["none", "bonferroni", "dunnett"] = "bonferroni"
    direction: Direction = Direction.INCREASE
    margin: float | None = None
    variance_reduction: float = 0.0
    stopping: Literal["fixed", "sequential"] | Looks = "fixed"

    def __post_init__(self) -> None:
        if len(self.shares) < 2 or not all(share > 0 for share in self.shares) or not sum(self.shares) <= 1 + 1e-9:
            raise ValueError(f"shares must be positive, at least two, and at most 1 together: {self.shares}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1): {self.alpha}")
        if self.correction == "dunnett" and (self.stopping != "fixed" or self.margin is not None):
            raise ValueError("Dunnett's level is that of a single look at a two-sided test")
        if self.margin is not None and not self.margin >= 0:
            raise ValueError(f"margin must not be negative: {self.margin}")
        if not 0 <= self.variance_reduction < 1:
            raise ValueError(f"variance_reduction must be in [0, 1): {self.variance_reduction}")

    def pair(self, n: float) -> tuple[float, float]:
        """Users of `n` in the control and in the smallest treatment."""
        return n * self.shares[0], n * min(self.shares[1:])

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.direction is Direction.INCREASE else -1.0

    @property
    def sides(self) -> Sides:
        """Non-inferiority is one-sided, everything else two-sided."""
        return 2 if self.margin is None else 1

    @property
    def level(self) -> float:
        """Level of each treatment's comparison with the control."""
        treatments = len(self.shares) - 1
        if self.correction == "none" or treatments == 1:
            return self.alpha
        return self.alpha / treatments if self.correction == "bonferroni" else _dunnett(self.shares, self.alpha)


def power(plan: Plan, n: float, effect: float) -> float:
    """Chance that the test succeeds with `n` users in all arms when the treatment moves the metric by `effect`.

    A two-sided test succeeds by excluding zero on either side. A confidence sequence is taken at the planned users;
    its other looks only add to that, so this is a lower limit. `Looks`: at any of them, exact for normal estimates.
    Raises StatError(not_enough_data) for an arm of fewer than two users, ValueError for a rate outside [0, 1].
    """
    if not (math.isfinite(n) and math.isfinite(effect)):
        raise ValueError(f"n and effect must be finite: {n}, {effect}")
    control, treated = plan.pair(n)
    if min(control, treated) < _FEWEST:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=math.floor(min(control, treated)), needed=2)
    under_null, error = _errors(plan, control, treated, effect)
    shift = (plan.sign * effect + (plan.margin or 0.0)) / error
    if isinstance(plan.stopping, Looks):
        return min(1.0, _crossing(plan, plan.stopping, shift).rejected)
    if plan.stopping == "fixed" and isinstance(plan.metric, Mean):
        return _student(plan, shift, control, treated)
    reach = _critical(plan) * under_null / error
    return float(ndtr(shift - reach) + (ndtr(-shift - reach) if plan.sides == 2 else 0.0))


def users(plan: Plan, effect: float, target: float = 0.8) -> int:
    """The smallest number of users in all arms with which `power` reaches `target` for this effect.

    Raises StatError(not_enough_data) when 10^12 users are not enough: the effect is zero or outside the margin.
    """
    _check_target(plan, target)
    least = 2 / min(plan.shares)

    def excess(log_n: float) -> float:
        return power(plan, math.exp(log_n), effect) - target

    if power(plan, _MOST, effect) < target:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=int(_MOST), effect=effect)
    if power(plan, least, effect) >= target:
        return math.ceil(least)
    root: float = scipy.optimize.brentq(excess, math.log(least), math.log(_MOST), xtol=1e-13, rtol=1e-14)
    # A root that is whole but for rounding asks for no user more.
    return math.ceil(math.exp(root) * (1 - 1e-11))


def detectable(plan: Plan, n: float, target: float = 0.8) -> float:
    """The smallest effect, in the metric's unit and the good direction, for which `power` reaches `target`.

    Divide by the mean for the relative effect. With a margin it is the worst effect that still passes so often, usually
    a harmful one. Raises StatError(not_enough_data) when no possible effect is large enough, and as `power`.
    """
    _check_target(plan, target)
    margin = plan.margin or 0.0
    lowest, highest = 0.0, math.inf
    if isinstance(plan.metric, Conversion):
        rate = plan.metric.rate
        below, above = (rate, 1 - rate) if plan.direction is Direction.INCREASE else (1 - rate, rate)
        lowest, highest = max(0.0, margin - below), margin + above

    def effect(distance: float) -> float:
        return plan.sign * (distance - margin)

    def excess(distance: float) -> float:
        return power(plan, n, effect(distance)) - target

    if excess(lowest) >= 0:
        return effect(lowest)
    far = min(highest, lowest + _errors(plan, *plan.pair(n), effect(lowest))[1])
    while excess(far) < 0:
        if far == highest:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=math.floor(n))
        far = min(highest, 2 * far)
    return effect(float(scipy.optimize.brentq(excess, lowest, far, xtol=1e-15 * far, rtol=1e-14)))


def expected_users(plan: Plan, n: float, effect: float) -> float:
    """Users on average when `Looks` may stop a plan of `n` users early; `n` itself at a single look.

    A confidence sequence stops at no planned looks: ValueError.
    """
    if plan.stopping == "sequential":
        raise ValueError("the average depends on looks that a confidence sequence does not plan")
    if plan.stopping == "fixed":
        return float(n)
    error = _errors(plan, *plan.pair(n), effect)[1]
    return n * _crossing(plan, plan.stopping, (plan.sign * effect + (plan.margin or 0.0)) / error).expected_information


def _check_target(plan: Plan, target: float) -> None:
    if not plan.level < target < 1:
        raise ValueError(f"power must be between the level and 1: {target}")


def _errors(plan: Plan, control: float, treated: float, effect: float) -> tuple[float, float]:
    """Standard error that the test divides by, expected, and the true one."""
    if isinstance(plan.metric, Hazard):
        before = after = pooled = 1.0
    elif isinstance(plan.metric, Mean):
        before = after = pooled = plan.metric.variance
    else:
        rate, moved = plan.metric.rate, plan.metric.rate + effect
        if not -1e-12 <= moved <= 1 + 1e-12:
            raise ValueError(f"an effect of {effect} leaves no rate")
        before, after = rate * (1 - rate), max(0.0, moved * (1 - moved))
        together = (rate * control + moved * treated) / (control + treated)
        pooled = together * (1 - together)
    kept = 1 - plan.variance_reduction
    error = math.sqrt(kept * (before / control + after / treated))
    # The score test is that of unadjusted conversion at a fixed horizon (Fleiss 1981).
    if plan.stopping == "fixed" and plan.margin is None and kept == 1:
        return math.sqrt(pooled / control + pooled / treated), error
    return error, error


def _student(plan: Plan, shift: float, control: float, treated: float) -> float:
    """Noncentral t with the degrees of freedom that Welch's test has when the variances are equal."""
    spread = (1 / control + 1 / treated) ** 2
    df = spread / (1 / control**2 / (control - 1) + 1 / treated**2 / (treated - 1))
    quantile = float(stdtrit(df, plan.level / plan.sides))
    return _below(quantile, df, -shift) + (_below(quantile, df, shift) if plan.sides == 2 else 0.0)


def _below(quantile: float, df: float, shift: float) -> float:
    probability = float(nctdtr(df, shift, quantile))
    # SciPy fails for some that are below 1e-6.
    return 0.0 if math.isnan(probability) else probability


def _critical(plan: Plan) -> float:
    if plan.stopping == "fixed":
        return -float(ndtri(plan.level / plan.sides))
    # At the users it is tuned to, the sequence is equally wide whatever their number.
    rho_squared = sequential.rho_squared(plan.level, 1.0)
    return (sequential.multiplier if plan.sides == 2 else sequential.multiplier_one_sided)(1.0, plan.level, rho_squared)


def _crossing(plan: Plan, looks: Looks, drift: float) -> groupsequential.Crossing:
    upper = groupsequential.bounds(looks.information, plan.level, looks.spending, sides=plan.sides)
    lower = None if plan.sides == 2 else np.full(upper.size, -np.inf)
    return groupsequential.crossing(looks.information, upper, drift, lower)


@lru_cache(maxsize=256)
def _dunnett(shares: tuple[float, ...], alpha: float) -> float:
    """Two-sided level of one of several comparisons with the same control (Dunnett 1955), estimates normal."""
    k = len(shares)
    arms = ArmVector(np.full(k, 2), np.zeros(k), np.diag(1 / np.array(shares)), np.zeros(k))
    return 2 * float(ndtr(-contrasts.simultaneous(arms, contrasts.many_to_one(k, 0), alpha).critical))
