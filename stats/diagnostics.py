"""Is the experiment sound? Balance before exposure, drift of the effect, weight of single users. No verdicts here.

A placebo effect is `effects.difference` on a column from before exposure: it should be near zero.
"""

import math
from collections.abc import Sequence

import numpy as np

from stats.contrasts import ChiSquare, quadratic_form
from stats.effects import Contrast, Effect, effect
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Floats, Moments

__all__ = ["balance", "drift", "users_for_skewness", "without_largest"]

# What is left of a sum of squares after all but this share was taken away is mostly rounding.
_ROUNDING = 1e-10


def balance(moments: Sequence[Moments], columns: Sequence[int]) -> ChiSquare:
    """Joint Wald test that all `columns` (covariates from before exposure) have equal means in all arms.

    Each arm keeps its own covariance of the J columns; (K - 1) J degrees of freedom, fewer with collinear or constant
    columns. Asymptotic: it wants some fifty users per column in the smallest arm. Raises as `arms.means`, and
    StatError(zero_variance) where no column varies or one that is constant within the arms differs between them.
    """
    if len(moments) < 2 or not columns:
        raise ValueError("balance needs two arms and a column")
    first, *rest = [arm.select(columns) for arm in moments]
    varies = sum((np.diag(arm.cross) for arm in rest), np.diag(first.cross)) > 0
    deviation = np.concatenate([arm.mean - first.mean for arm in rest])
    apart = (deviation.reshape(len(rest), -1) != 0).any(axis=0)
    for column in np.flatnonzero(apart & ~varies).tolist():
        raise StatError(Problem.ZERO_VARIANCE, column=columns[column])
    covariance = np.tile(first.covariance / first.n, (len(rest), len(rest)))
    for arm, part in enumerate(rest):
        block = slice(arm * len(columns), (arm + 1) * len(columns))
        covariance[block, block] += part.covariance / part.n
    test = quadratic_form(deviation, covariance)
    if test is None:
        raise StatError(Problem.ZERO_VARIANCE)
    return test


def drift(
    moments: Sequence[Moments], treatment: int, control: int, alpha: float, centres: Sequence[float] | None = None
) -> Effect:
    """Novelty or primacy: the slope of log(mean_t / mean_c) over slices of days since exposure.

    Column j holds each user's outcome a day in slice j of days since his exposure, users whose last slice has closed;
    `centres` (J,) are the slices' middles, where they are not of equal length. The slope is that of the lift, since
    users buy less from day to day under any treatment: a constant lift has none. Least squares over the slices, by the
    delta method on the means with the joint covariance of a user's slices; z. Negative when an effect wears off.
    Calendar days cannot show this: they mix old and new users.
    Raises StatError(lift_not_identified) with the slice where a mean is not three standard errors above zero.
    """
    j = moments[0].mean.size
    if j < 2:
        raise ValueError("drift needs two slices")
    middles = np.arange(j, dtype=np.float64) if centres is None else np.asarray(centres, dtype=np.float64)
    slices = middles - middles.mean()
    slope = slices / (slices @ slices)
    estimate = variance = 0.0
    for arm, sign in ((moments[treatment], 1.0), (moments[control], -1.0)):
        covariance = arm.covariance / arm.n
        for column in np.flatnonzero(arm.mean <= 3 * np.sqrt(np.diag(covariance))).tolist():
            raise StatError(Problem.LIFT_NOT_IDENTIFIED, slice=column)
        gradient = slope / arm.mean
        estimate += sign * float(slope @ np.log(arm.mean))
        variance += float(gradient @ covariance @ gradient)
    users = moments[treatment].n + moments[control].n
    return effect(Contrast(estimate, math.sqrt(variance), None, users), Fixed(alpha))


def without_largest(moments: Moments, row: Floats) -> Moments:
    """Moments of the other users: one `row` (k,) of those summarised is taken out (the inverse of `+`).

    For the weight of the largest user: compare `difference` before and after. Raises StatError(zero_variance) with the
    column when that row made up all of its variance but for 1e-10, so that what remains is lost in rounding;
    ValueError when the row cannot be one of those summarised.
    """
    x = np.asarray(row, dtype=np.float64)
    if x.shape != moments.mean.shape or not np.isfinite(x).all():
        raise ValueError("row must have one finite value per column")
    if moments.n == 0:
        raise ValueError("there is no row to take out")
    if moments.n == 1:
        return Moments.zero(x.size)
    rest = moments.n - 1
    before = np.diag(moments.cross)
    apart = x - moments.mean
    if (np.abs(apart) > np.sqrt(before * rest / moments.n) * (1 + _ROUNDING) + 1e-14 * np.abs(x)).any():
        raise ValueError("the row is not one of those summarised")
    apart[before == 0] = 0.0
    cross = moments.cross - np.outer(apart, apart) * (moments.n / rest)
    for column in np.flatnonzero((before > 0) & (np.diag(cross) <= _ROUNDING * before)):
        raise StatError(Problem.ZERO_VARIANCE, column=int(column))
    return Moments(rest, moments.mean - apart / rest, cross)


def users_for_skewness(skewness: float) -> int:
    """Users per arm that make the mean of so skewed a metric near normal: 355 skewness^2 (Kohavi et al. 2014)."""
    return math.ceil(355 * skewness**2)
