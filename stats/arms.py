"""Every metric becomes an arm vector: K estimates with their joint covariance, built from influence values.

Difference, lift, non-inferiority and whatever follows are functions of that vector and live in `stats.effects`.
A builder raises when one arm is too small; leave such an arm out (or, in strata, the whole stratum) and say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.errors import Problem, StatError
from stats.moments import Floats, Moments

__all__ = ["ArmVector", "adjusted", "linearised", "means", "ratios", "stratified", "variance_reduction"]

# Covariates are scaled to unit variance first. A direction that keeps less than this share of the largest
# eigenvalue is collinear: rounding alone leaves about 1e-15, honest covariates stay far above 1e-10.
_COLLINEAR = 1e-10
# A variance that is this share of the terms it is the difference of is rounding: the value does not vary.
_ROUNDING = 1e-12
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, eq=False)
class ArmVector:
    """Estimates of K arms: users `n` (K,), `mean` (K,), joint `covariance` (K, K) of the estimates.

    `satterthwaite` (K,) = sum of V_c^2 / df_c over the independent variance components of each arm, so that the
    Welch-Satterthwaite degrees of freedom of mean_t - mean_c are Var^2 / (satterthwaite_t + satterthwaite_c).
    """

    n: npt.NDArray[np.int64]
    mean: Floats
    covariance: Floats
    satterthwaite: Floats

    def __post_init__(self) -> None:
        k = self.mean.size
        if not (
            self.n.shape == self.mean.shape == self.satterthwaite.shape == (k,) and self.covariance.shape == (k, k)
        ):
            raise ValueError("n, mean, covariance and satterthwaite must have the shapes (K,), (K,), (K, K), (K,)")

    @property
    def se(self) -> Floats:
        """Standard error of each arm's estimate (K,)."""
        return np.sqrt(np.diag(self.covariance))

    def contrast_variance(self, weights: Sequence[tuple[int, float]]) -> float:
        """Variance of sum w_a mean_a over pairs (arm, w_a) of distinct arms.

        Raises StatError(zero_variance) when the sum does not vary.
        """
        v = self.covariance
        own = sum([w * w * v.item(a, a) for a, w in weights])
        shared = 2 * sum([w * u * v.item(a, b) for i, (a, w) in enumerate(weights) for b, u in weights[:i]])
        # What is left of terms that cancel may be rounding, of either sign.
        if own + shared <= _ROUNDING * own:
            raise StatError(Problem.ZERO_VARIANCE)
        return own + shared

    def difference_variance(self, treatment: int, control: int) -> float:
        """Variance of mean_t - mean_c. Raises StatError(zero_variance) when the difference does not vary."""
        return self.contrast_variance(((treatment, 1.0), (control, -1.0)))


def means(moments: Sequence[Moments], column: int = 0) -> ArmVector:
    """Means of one column, one Moments per arm: variance s^2/n, n - 1 degrees of freedom (Welch 1947).

    Raises StatError(not_enough_data) for an arm of fewer than two users.
    """
    n = np.array([arm.n for arm in moments], dtype=np.int64)
    for arm, users in enumerate(n):
        if users < 2:
            raise StatError(Problem.NOT_ENOUGH_DATA, arm=arm, n=int(users), needed=2)
    variance = np.array([arm.cross[column, column] for arm in moments]) / (n - 1) / n
    mean = np.array([arm.mean[column] for arm in moments])
    return ArmVector(n, mean, np.diag(variance), variance**2 / (n - 1))


def ratios(moments: Sequence[Moments], numerator: int = 0, denominator: int = 1) -> ArmVector:
    """Ratios of sums R = sum n_i / sum d_i per arm, users as the unit of variance.

    Var(R) = [s_n^2 - 2 R s_nd + R^2 s_d^2] / (n dbar^2): the delta method (Deng, Knoblich & Lu 2018), good
    when dbar is many standard errors from zero. Raises as `linearised` and `means`.
    """
    return means(linearised([moments], numerator, denominator)[0], column=-1)


def linearised(strata: Sequence[Sequence[Moments]], numerator: int = 0, denominator: int = 1) -> list[list[Moments]]:
    """The same moments (strata x arms) with one more, last column z_i = R + (n_i - R d_i) / D per user.

    R = N/D of the arm, N and D its means of numerator and denominator over the strata, each stratum weighted by its
    users in all arms. The mean of z over the strata is R and its variance is the delta-method variance of R, so a
    ratio can be adjusted and stratified like a mean: `stratified([means(s, -1) for s in linearised(strata)])`.
    Raises StatError(zero_denominator).
    """
    users = np.array([sum(arm.n for arm in stratum) for stratum in strata], dtype=np.float64)
    if users.sum() == 0:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
    weights = users / users.sum()
    centres = []
    for arm, parts in enumerate(zip(*strata, strict=True)):
        top = sum(w * part.mean[numerator] for w, part in zip(weights, parts, strict=True))
        bottom = sum(w * part.mean[denominator] for w, part in zip(weights, parts, strict=True))
        if bottom == 0:
            raise StatError(Problem.ZERO_DENOMINATOR, arm=arm)
        centres.append((top / bottom, bottom))
    return [
        [_with_ratio(arm, numerator, denominator, *centre) for arm, centre in zip(stratum, centres, strict=True)]
        for stratum in strata
    ]


def _with_ratio(arm: Moments, numerator: int, denominator: int, ratio: float, scale: float) -> Moments:
    k = arm.mean.size
    mean, cross = np.empty(k + 1), np.empty((k + 1, k + 1))
    mean[:k], cross[:k, :k] = arm.mean, arm.cross
    mean[k] = ratio + (arm.mean[numerator] - ratio * arm.mean[denominator]) / scale
    column = (arm.cross[numerator] - ratio * arm.cross[denominator]) / scale
    own = (column[numerator] - ratio * column[denominator]) / scale
    if own <= _ROUNDING * (arm.cross[numerator, numerator] + ratio**2 * arm.cross[denominator, denominator]) / scale**2:
        column, own = np.zeros(k), 0.0
    cross[k, :k] = cross[:k, k] = column
    cross[k, k] = own
    return Moments(arm.n, mean, cross)


def adjusted(moments: Sequence[Moments], outcome: int, covariates: Sequence[int]) -> ArmVector:
    """Means of `outcome` adjusted for covariates known before exposure: CUPED with a regression per arm (ANCOVA 2).

    mu_a = ybar_a + b_a'(xbar - xbar_a), b_a the least-squares slope in arm a, xbar the covariate mean over all arms;
    Sigma_ab = [a = b] s_a^2 (1/n_a + leverage_a) + b_a' S_x b_b / N, s_a^2 the residual variance on n_a - 1 - rank
    degrees of freedom. The last term is the sampling of xbar (Lin 2013; Negi & Wooldridge 2021): without it
    intervals for the population effect are too short when slopes differ. Covariates that are constant or collinear
    in an arm carry no slope there. Not valid for covariates that the treatment can move, and poor when
    there are more than about one covariate per hundred users of the smallest arm.
    Raises StatError(not_enough_data) for an arm of fewer than rank + 2 users.
    """
    k = moments[0].mean.size
    y = outcome % k
    x = [column % k for column in covariates]
    if y in x:
        raise ValueError("the outcome cannot be its own covariate")
    n = np.array([arm.n for arm in moments], dtype=np.int64)
    mean = np.array([arm.mean for arm in moments])
    cross = np.array([arm.cross for arm in moments])
    products = cross[:, x][:, :, x]
    inverse, rank = _inverses(products)
    df = n - 1 - rank
    for arm in np.flatnonzero(df < 1).tolist():
        raise StatError(Problem.NOT_ENOUGH_DATA, arm=arm, n=int(n[arm]), needed=int(rank[arm]) + 2)
    at, sampling = _pooled(n, mean[:, x], products)
    with_y = cross[:, x, y]
    slope = (inverse @ with_y[:, :, None])[:, :, 0]
    shift = at - mean[:, x]
    total = cross[:, y, y]
    residual = total - (with_y * slope).sum(axis=1)
    residual = np.where(residual <= _ROUNDING * total, 0.0, residual)
    leverage = (shift[:, None, :] @ inverse @ shift[:, :, None])[:, 0, 0]
    variance = residual / df * (1 / n + leverage)
    return ArmVector(
        n,
        mean[:, y] + (slope * shift).sum(axis=1),
        np.diag(variance) + slope @ sampling @ slope.T,
        variance**2 / df,
    )


def _pooled(n: npt.NDArray[np.int64], mean: Floats, cross: Floats) -> tuple[Floats, Floats]:
    """Mean (p,) of all users together and its covariance (p, p). Anchored: constants stay constant."""
    users = n.sum()
    at = mean[0] + n @ (mean - mean[0]) / users
    apart = mean - at
    return at, (cross.sum(axis=0) + (apart.T * n) @ apart) / (users - 1) / users


def _inverses(products: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Pseudo-inverses (K, p, p) of cross-products (K, p, p) and their ranks (K,)."""
    spread = np.sqrt(products.diagonal(axis1=1, axis2=2))
    scale = np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(products / (scale[:, :, None] * scale[:, None, :]))
    kept = values > _COLLINEAR * values.max(axis=1, initial=_TINY, keepdims=True)
    basis = vectors / scale[:, :, None]
    weights = kept / np.where(kept, values, 1.0)
    return (basis * weights[:, None, :]) @ basis.transpose(0, 2, 1), kept.sum(axis=1)


def stratified(strata: Sequence[ArmVector]) -> ArmVector:
    """Arm vector of the whole experiment from independent strata, each weighted by its users in all arms.

    mu = sum w_s mu_s, Sigma = sum w_s^2 Sigma_s + sum w_s (mu_s - mu)(mu_s - mu)' / N, w_s = n_s / N. The last term
    is the sampling of the stratum sizes (Miratrix, Sekhon & Yu 2013): the effect is that of the population the users
    came from. Use it wherever allocation differs between strata; pooling them confounds the
    arm with the stratum. Every arm must be present in every stratum (the builders raise otherwise): a stratum that
    lacks an arm says nothing about it, so drop the whole stratum and show the share of users dropped.
    """
    if not strata:
        raise ValueError("nothing to combine")
    if len({stratum.mean.size for stratum in strata}) > 1:
        raise ValueError("the strata must hold the same arms")
    n = np.array([stratum.n for stratum in strata])
    users = n.sum(axis=1)
    total = users.sum()
    weights = users / total
    by_stratum = np.array([stratum.mean for stratum in strata])
    mean = weights @ by_stratum
    apart = by_stratum - mean
    within = np.tensordot(weights**2, np.array([stratum.covariance for stratum in strata]), 1)
    return ArmVector(
        n.sum(axis=0),
        mean,
        within + (apart.T * weights) @ apart / total,
        weights**4 @ np.array([stratum.satterthwaite for stratum in strata]),
    )


def variance_reduction(raw: ArmVector, adjusted: ArmVector, treatment: int, control: int) -> float:
    """Share of the variance of mean_t - mean_c that the adjustment removed: 1 - Var_adjusted / Var_raw, at most 1.

    A small negative value means that the covariates do not predict the outcome.
    Raises StatError(zero_variance) when one of the two differences does not vary.
    """
    return 1 - adjusted.difference_variance(treatment, control) / raw.difference_variance(treatment, control)
