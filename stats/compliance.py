"""Treatments that do not reach everybody: effect on those reached, and whether a trigger fired alike in the arms.

Always report the effect of the assignment first. A cut to users who received, opened or clicked compares users the
treatment has selected; the two honest ways are the ratio below and a trigger that is logged in the control as well.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from stats.arms import ArmVector, means
from stats.contrasts import ChiSquare
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.fieller import ratio_limits
from stats.horizon import Horizon
from stats.moments import Floats, Moments

__all__ = ["Complier", "Joint", "complier_effect", "complier_ratio", "joint", "trigger_balance"]

Strata = Sequence[Sequence[Moments]]


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Arm vectors of two columns of the same users and the symmetric part of their cross-covariance (K, K).

    The symmetric part is all that the variance of any contrast of the two needs.
    """

    outcome: ArmVector
    received: ArmVector
    covariance: Floats


@dataclass(frozen=True, slots=True)
class Complier:
    """Effect per user reached because of the assignment, its interval, and the p of the effect of the assignment.

    `se` is the delta-method one (that of two-stage least squares), for comparison: the interval does not use it.
    `share` is the difference in reception, the share of such users, with its own standard error.
    """

    estimate: float
    se: float
    lower: float
    upper: float
    p_value: float
    share: float
    share_se: float


def complier_effect(
    moments: Sequence[Moments], outcome: int, received: int, treatment: int, control: int, horizon: Horizon
) -> Complier:
    """`complier_ratio` of plain means: one Moments per arm with the columns `outcome` and `received` (0 or 1)."""
    pair = joint([moments], outcome, received, lambda strata, column: means(strata[0], column))
    return complier_ratio(pair, treatment, control, horizon)


def complier_ratio(pair: Joint, treatment: int, control: int, horizon: Horizon) -> Complier:
    """Difference in outcome over difference in reception (Wald 1940; Imbens & Angrist 1994).

    The interval is Anderson & Rubin's (1949), which with one instrument is Fieller's: all effects b for which the
    assignment has no significant effect on outcome - b received. It covers however weak the assignment moves
    reception, and excludes 0 exactly when the effect of the assignment is significant, with that test's critical value.
    It is an effect on users reached because of the assignment if the assignment works only through reception and
    keeps nobody from receiving. Raises StatError(weak_instrument) when the difference in reception cannot be
    told from zero (no finite interval exists), StatError(zero_variance) as `difference`.
    """
    assigned = difference(pair.outcome, treatment, control, horizon)
    share = float(pair.received.mean[treatment] - pair.received.mean[control])
    share_variance = _contrast_variance(pair.received.covariance, treatment, control)
    covariance = _contrast_variance(pair.covariance, treatment, control)
    n = int(pair.outcome.n[treatment] + pair.outcome.n[control])
    critical = horizon.critical(n, assigned.df)
    limits = ratio_limits(assigned.estimate, share, assigned.se**2, covariance, share_variance, critical)
    if limits is None:
        raise StatError(Problem.WEAK_INSTRUMENT, share=share, share_se=math.sqrt(share_variance))
    estimate = assigned.estimate / share
    variance = assigned.se**2 - 2 * estimate * covariance + estimate**2 * share_variance
    return Complier(
        estimate=estimate,
        se=math.sqrt(max(variance, 0.0)) / abs(share),
        lower=limits[0],
        upper=limits[1],
        p_value=assigned.p_value,
        share=share,
        share_se=math.sqrt(share_variance),
    )


def joint(strata: Strata, outcome: int, received: int, build: Callable[[Strata, int], ArmVector]) -> Joint:
    """The joint distribution of two columns under any builder that is linear in the column.

    `build(strata, column)` makes the arm vector of one column, such as
    `lambda strata, column: stratified([adjusted(arms, column, [2]) for arms in strata])`; columns count from the front.
    It runs on outcome, received and their scaled sum, since 2 Cov(y, d) = Var(y + d) - Var(y) - Var(d) also
    holds for adjusted and stratified values.
    """
    y, d = build(strata, outcome), build(strata, received)
    spreads = float(np.trace(y.covariance)), float(np.trace(d.covariance))
    scale = math.sqrt(spreads[0] / spreads[1]) if min(spreads) > 0 else 1.0
    both = build(
        [[_with_sum(arm, outcome, received, scale) for arm in arms] for arms in strata], strata[0][0].mean.size
    )
    covariance = (both.covariance - y.covariance - scale**2 * d.covariance) / (2 * scale)
    return Joint(y, d, covariance)


def trigger_balance(triggered: Sequence[int], users: Sequence[int]) -> ChiSquare:
    """Pearson's test (1900) that the trigger fired for the same share of users in every arm, K - 1 degrees of freedom.

    Users who never met the trigger carry no effect, so leaving them out is a gain, if the trigger is logged where the
    treatment would have been given (ghosts in the control). A small p says that the treatment moves the
    trigger: the triggered users of the arms are then no longer alike and their comparison is biased. A large p is no
    proof of the opposite. A trigger that fired for nobody or everybody gives statistic 0 and p 1.
    Raises StatError(not_enough_data) for an arm without users.
    """
    fired, total = np.asarray(triggered, dtype=np.int64), np.asarray(users, dtype=np.int64)
    if fired.shape != total.shape or fired.ndim != 1 or fired.size < 2:
        raise ValueError("triggered and users must have one count for each of at least two arms")
    if (fired < 0).any() or (fired > total).any():
        raise ValueError("triggered must be between 0 and users")
    for arm, n in enumerate(total):
        if n == 0:
            raise StatError(Problem.NOT_ENOUGH_DATA, arm=arm, n=0, needed=1)
    df = fired.size - 1
    share = float(fired.sum() / total.sum())
    if share in (0.0, 1.0):
        return ChiSquare(0.0, df, 1.0)
    statistic = float(((fired - share * total) ** 2 / total).sum() / (share * (1 - share)))
    return ChiSquare(statistic, df, float(special.chdtrc(df, statistic)))


def _contrast_variance(covariance: Floats, treatment: int, control: int) -> float:
    return float(covariance[treatment, treatment] + covariance[control, control] - 2 * covariance[treatment, control])


def _with_sum(arm: Moments, outcome: int, received: int, scale: float) -> Moments:
    """The same users with one more, last column outcome + scale received."""
    k = arm.mean.size
    extend = np.vstack([np.eye(k), np.zeros(k)])
    extend[k, outcome] = 1.0
    extend[k, received] += scale
    return Moments(arm.n, extend @ arm.mean, extend @ arm.cross @ extend.T)
