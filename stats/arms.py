"""Every metric becomes an arm vector: K estimates with their joint covariance, built from influence values.

Difference, lift, non-inferiority and whatever follows are functions of that vector and live in `stats.effects`.
A builder raises when one arm is too small; leave such an arm out (or, in strata, the whole stratum) and say so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.errors import Problem, StatError
from stats.moments import Floats, Moments, merge

__all__ = ["ArmVector", "adjusted", "linearised", "means", "ratios", "stratified", "variance_reduction"]

# Covariates are scaled to unit variance first. A direction that keeps less than this share of the largest
# eigenvalue is collinear: rounding alone leaves about 1e-15, honest covariates stay far above 1e-10.
_COLLINEAR = 1e-10
# A variance that is this share of the terms it is the difference of is rounding: the value does not vary.
_ROUNDING = 1e-12


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

    def difference_variance(self, treatment: int, control: int) -> float:
        """Variance of mean_t - mean_c. Raises StatError(zero_variance) when the difference does not vary."""
        v = self.covariance
        variance = float(v[treatment, treatment] + v[control, control] - 2 * v[treatment, control])
        if variance <= 0:
            raise StatError(Problem.ZERO_VARIANCE)
        return variance


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
    map_ = np.vstack([np.eye(k), np.zeros(k)])
    map_[k, numerator] += 1 / scale
    map_[k, denominator] -= ratio / scale
    mean = map_ @ arm.mean
    mean[k] += ratio
    cross = map_ @ arm.cross @ map_.T
    if cross[k, k] <= _ROUNDING * (map_[k] ** 2 @ np.diag(arm.cross)):
        cross[k, :] = cross[:, k] = 0.0
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
    pooled = merge(moments).select(x)
    fits = [_fit(arm, index, y, x, pooled.mean) for index, arm in enumerate(moments)]
    slopes = np.array([fit.slope for fit in fits]).reshape(len(fits), len(x))
    variance = np.array([fit.variance for fit in fits])
    return ArmVector(
        np.array([arm.n for arm in moments], dtype=np.int64),
        np.array([fit.mean for fit in fits]),
        np.diag(variance) + slopes @ pooled.covariance @ slopes.T / pooled.n,
        variance**2 / np.array([fit.df for fit in fits]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    mean: float
    variance: float
    df: int
    slope: Floats


def _fit(arm: Moments, index: int, y: int, x: Sequence[int], at: Floats) -> _Fit:
    products = arm.cross[np.ix_(x, x)]
    spread = np.sqrt(np.diag(products))
    scale = np.where(spread > 0, spread, 1.0)
    values, vectors = np.linalg.eigh(products / np.outer(scale, scale))
    kept = values > _COLLINEAR * max(values.max(initial=0.0), np.finfo(np.float64).tiny)
    df = arm.n - 1 - int(kept.sum())
    if df < 1:
        raise StatError(Problem.NOT_ENOUGH_DATA, arm=index, n=arm.n, needed=int(kept.sum()) + 2)
    basis = vectors[:, kept] / scale[:, None]
    inverse = (basis / values[kept]) @ basis.T
    slope = inverse @ arm.cross[x, y]
    shift = at - arm.mean[x]
    total = float(arm.cross[y, y])
    residual = total - float(arm.cross[x, y] @ slope)
    if residual <= _ROUNDING * total:
        residual = 0.0
    variance = residual / df * float(1 / arm.n + shift @ inverse @ shift)
    return _Fit(float(arm.mean[y] + slope @ shift), variance, df, slope)


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
    users = np.array([stratum.n.sum() for stratum in strata], dtype=np.float64)
    total = users.sum()
    weights = users / total
    by_stratum = np.array([stratum.mean for stratum in strata])
    mean = weights @ by_stratum
    apart = by_stratum - mean
    within = np.einsum("s,sab->ab", weights**2, np.array([stratum.covariance for stratum in strata]))
    return ArmVector(
        np.sum([stratum.n for stratum in strata], axis=0, dtype=np.int64),
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
