"""Effects: functions of an arm vector and a horizon. The same code serves means, ratios, adjusted and stratified."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.horizon import Horizon

__all__ = ["Direction", "Effect", "Interval", "NonInferiority", "difference", "noninferiority", "relative"]


class Direction(StrEnum):
    """Which way a metric should move."""

    INCREASE = "increase"
    DECREASE = "decrease"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the limits of its confidence interval."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference in the metric's own unit, its two-sided interval and the test that agrees with it.

    `df` is None where the reference distribution is the normal or a confidence sequence.
    """

    estimate: float
    se: float
    lower: float
    upper: float
    p_value: float
    df: float | None
    statistic: float
    statistic_name: Literal["t", "z"]


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Is the treatment no worse than the margin allows? p_value < alpha exactly when `bound` is inside the margin.

    `estimate` and `bound` (the one-sided confidence limit on the harmful side) are differences in the metric's unit.
    """

    estimate: float
    se: float
    bound: float
    p_value: float
    df: float | None
    statistic: float


def difference(arms: ArmVector, treatment: int, control: int, horizon: Horizon) -> Effect:
    """The difference mean_t - mean_c of two arms (indices into `arms`).

    Fixed horizon: Welch's t with Satterthwaite degrees of freedom, not rounded (Welch 1947). With a few users or a
    few conversions per arm use `stats.proportions`. Raises StatError(zero_variance) when neither arm varies.
    """
    contrast = _contrast(arms, treatment, control)
    statistic = contrast.estimate / contrast.se
    half = horizon.critical(contrast.n, contrast.df) * contrast.se
    name = horizon.statistic_name(contrast.df)
    return Effect(
        estimate=contrast.estimate,
        se=contrast.se,
        lower=contrast.estimate - half,
        upper=contrast.estimate + half,
        p_value=horizon.p_value(statistic, contrast.n, contrast.df),
        df=contrast.df if name == "t" else None,
        statistic=statistic,
        statistic_name=name,
    )


def relative(arms: ArmVector, treatment: int, control: int, horizon: Horizon) -> Interval:
    """The relative lift (mean_t - mean_c) / |mean_c| with Fieller's interval (Fieller 1954).

    The interval is the set of lifts r for which mean_t - mean_c - r mean_c is not significant, with the critical value
    of `difference`: it excludes 0 exactly when the difference is significant. A negative control mean divides by its
    size, so that a positive lift is always an increase.
    Raises StatError(lift_not_identified) when the control mean cannot be told from zero (no finite interval exists),
    StatError(zero_variance) as `difference`.
    """
    contrast = _contrast(arms, treatment, control)
    critical = horizon.critical(contrast.n, contrast.df)
    base = float(arms.mean[control])
    base_variance = float(arms.covariance[control, control])
    shared = float(arms.covariance[treatment, control])
    # Solved for r = R - 1, not R: the sign of `constant` then is the outcome of the test, without cancellation.
    square = base**2 - critical**2 * base_variance
    if square <= 0:
        raise StatError(Problem.LIFT_NOT_IDENTIFIED, control_mean=base, control_se=math.sqrt(base_variance))
    linear = contrast.estimate * base + critical**2 * (base_variance - shared)
    constant = contrast.estimate**2 - critical**2 * contrast.se**2
    root = math.copysign(math.sqrt(max(linear**2 - square * constant, 0.0)), linear) + linear
    sign = math.copysign(1.0, base)
    limits = sorted((sign * root / square, sign * constant / root if root else 0.0))
    return Interval(contrast.estimate / abs(base), *limits)


def noninferiority(
    arms: ArmVector, treatment: int, control: int, margin: float, direction: Direction, horizon: Horizon
) -> NonInferiority:
    """Test of a guardrail: H0 is that the treatment is worse than the control by `margin` or more.

    `margin` >= 0 in the metric's unit; `direction` is the good one. One-sided at the horizon's alpha: the bound is the
    limit of a two-sided interval of level 2 alpha at a fixed horizon. Raises as `difference`.
    """
    if not margin >= 0:
        raise ValueError(f"margin must not be negative: {margin}")
    contrast = _contrast(arms, treatment, control)
    sign = 1.0 if direction is Direction.INCREASE else -1.0
    statistic = (sign * contrast.estimate + margin) / contrast.se
    critical = horizon.critical_one_sided(contrast.n, contrast.df)
    return NonInferiority(
        estimate=contrast.estimate,
        se=contrast.se,
        bound=contrast.estimate - sign * critical * contrast.se,
        p_value=horizon.p_value_one_sided(statistic, contrast.n, contrast.df),
        df=contrast.df if horizon.statistic_name(contrast.df) == "t" else None,
        statistic=statistic,
    )


@dataclass(frozen=True, slots=True)
class _Contrast:
    estimate: float
    se: float
    df: float | None
    n: int


def _contrast(arms: ArmVector, treatment: int, control: int) -> _Contrast:
    if treatment == control:
        raise ValueError("an arm cannot be compared with itself")
    variance = arms.difference_variance(treatment, control)
    spread = float(arms.satterthwaite[treatment] + arms.satterthwaite[control])
    return _Contrast(
        estimate=float(arms.mean[treatment] - arms.mean[control]),
        se=math.sqrt(variance),
        df=variance**2 / spread if spread > 0 else None,
        n=int(arms.n[treatment] + arms.n[control]),
    )
