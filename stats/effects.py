"""Effects: functions of an arm vector and a horizon. The same code serves means, ratios, adjusted and stratified."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.fieller import ratio_limits
from stats.horizon import Horizon

__all__ = [
    "Contrast",
    "Direction",
    "Effect",
    "Interval",
    "NonInferiority",
    "contrast",
    "difference",
    "effect",
    "noninferiority",
    "relative",
    "relative_delta",
]


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
class Contrast:
    """A weighted sum of arms before any horizon: `df` by Satterthwaite (None: known variance), `n` users behind it."""

    estimate: float
    se: float
    df: float | None
    n: int


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


def contrast(arms: ArmVector, weights: Sequence[tuple[int, float]]) -> Contrast:
    """The contrast sum w_a mean_a over pairs (arm, w_a) of distinct arms, w_a not 0.

    df = Var^2 / sum w_a^4 satterthwaite_a (Satterthwaite 1946). Raises StatError(zero_variance).
    """
    variance = arms.contrast_variance(weights)
    spread = sum([w**4 * arms.satterthwaite.item(a) for a, w in weights])
    return Contrast(
        estimate=sum([w * arms.mean.item(a) for a, w in weights]),
        se=math.sqrt(variance),
        df=variance**2 / spread if spread > 0 else None,
        n=sum([arms.n.item(a) for a, _ in weights]),
    )


def effect(contrast: Contrast, horizon: Horizon) -> Effect:
    """The contrast with the horizon's interval and test."""
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


def difference(arms: ArmVector, treatment: int, control: int, horizon: Horizon) -> Effect:
    """The difference mean_t - mean_c of two arms (indices into `arms`); `stats.contrasts` has the other contrasts.

    Fixed horizon: Welch's t with Satterthwaite degrees of freedom, not rounded (Welch 1947). With a few users or a
    few conversions per arm use `stats.proportions`. Raises StatError(zero_variance) when neither arm varies.
    """
    return effect(_pair(arms, treatment, control), horizon)


def relative(arms: ArmVector, treatment: int, control: int, horizon: Horizon, pair: Contrast | None = None) -> Interval:
    """The relative lift (mean_t - mean_c) / |mean_c| with Fieller's interval (Fieller 1954).

    The interval is the set of lifts r for which mean_t - mean_c - r mean_c is not significant, with the critical value
    of `difference`: it excludes 0 exactly when the difference is significant. A negative control mean divides by its
    size, so that a positive lift is always an increase. `pair` is the contrast of the two, where it is known already.
    Raises StatError(lift_not_identified) when the control mean cannot be told from zero (no finite interval exists),
    StatError(zero_variance) as `difference`.
    """
    pair = _pair(arms, treatment, control) if pair is None else pair
    critical = horizon.critical(pair.n, pair.df)
    base = arms.mean.item(control)
    base_variance = arms.covariance.item(control, control)
    shared = arms.covariance.item(treatment, control)
    # Solved for r = R - 1, not R: the sign of a limit then is the outcome of the test, without cancellation.
    limits = ratio_limits(pair.estimate, base, pair.se**2, shared - base_variance, base_variance, critical)
    if limits is None:
        raise StatError(Problem.LIFT_NOT_IDENTIFIED, control_mean=base, control_se=math.sqrt(base_variance))
    sign = math.copysign(1.0, base)
    return Interval(pair.estimate / abs(base), *sorted(sign * limit for limit in limits))


def relative_delta(arms: ArmVector, treatment: int, control: int, horizon: Horizon) -> Interval:
    """The relative lift with the delta method's interval, to compare with programs that use it (Deng et al. 2018).

    With R = mean_t / mean_c: R - 1 +- critical sqrt(V_tt + R^2 V_cc - 2 R V_tc) / |mean_c|. Symmetric where the truth
    is not, so at a coefficient of variation of mean_c above 0.05 most misses fall on one side, and it may contradict
    `difference`: `relative` is the default. Raises StatError(lift_not_identified) when the control mean is zero,
    StatError(zero_variance) as `difference`.
    """
    pair = _pair(arms, treatment, control)
    base = arms.mean.item(control)
    if base == 0:
        raise StatError(Problem.LIFT_NOT_IDENTIFIED, control_mean=0.0, control_se=float(arms.se[control]))
    variance = arms.contrast_variance(((treatment, 1.0), (control, -arms.mean.item(treatment) / base)))
    half = horizon.critical(pair.n, pair.df) * math.sqrt(variance) / abs(base)
    estimate = pair.estimate / abs(base)
    return Interval(estimate, estimate - half, estimate + half)


def noninferiority(
    arms: ArmVector, treatment: int, control: int, margin: float, direction: Direction, horizon: Horizon
) -> NonInferiority:
    """Test of a guardrail: H0 is that the treatment is worse than the control by `margin` or more.

    `margin` >= 0 in the metric's unit; `direction` is the good one. One-sided at the horizon's alpha: the bound is the
    limit of a two-sided interval of level 2 alpha at a fixed horizon. Raises as `difference`.
    """
    if not margin >= 0:
        raise ValueError(f"margin must not be negative: {margin}")
    pair = _pair(arms, treatment, control)
    sign = 1.0 if direction is Direction.INCREASE else -1.0
    statistic = (sign * pair.estimate + margin) / pair.se
    critical = horizon.critical_one_sided(pair.n, pair.df)
    return NonInferiority(
        estimate=pair.estimate,
        se=pair.se,
        bound=pair.estimate - sign * critical * pair.se,
        p_value=horizon.p_value_one_sided(statistic, pair.n, pair.df),
        df=pair.df if horizon.statistic_name(pair.df) == "t" else None,
        statistic=statistic,
    )


def _pair(arms: ArmVector, treatment: int, control: int) -> Contrast:
    if treatment == control:
        raise ValueError("an arm cannot be compared with itself")
    return contrast(arms, ((treatment, 1.0), (control, -1.0)))
