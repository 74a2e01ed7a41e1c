"""Effects of segments, shrunk towards what they share.

J estimates d with known covariance V of true effects theta_j ~ N(mu, tau^2). V may be full: segments that overlap or
share a control. With C an orthonormal basis of the contrasts, y = Cd ~ N(0, W + tau^2 I), W = CVC': all that the
data say about tau is in the eigenvalues of W and in y along its eigenvectors.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special

from stats.effects import Interval
from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["Between", "Heterogeneity", "Shrunk", "between", "heterogeneity", "shrink"]

# Eigenvalues of W below this share of the largest are rounding: some segments carry the same estimate.
_ROUNDING = 1e-12
_GRID = 201
# Nodes whose weight is below exp(-_DROP) of the largest do not count.
_DROP = 30.0
# Steps at most, and the step (in sd of the mixture) at which the limits stand still.
_NEWTON = 60
_SETTLED = 1e-11


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """Do the segments differ (`p_value` of Cochran's Q on `df`), and by how much: `tau`, the sd of their true effects.

    "Segments differ" is another claim than "this segment wins".
    """

    q: float
    df: int
    p_value: float
    tau: float


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Mean of the true effects of all such segments, their sd `tau` (posterior median), each segment's effect.

    `combined`: the weighted sums asked for.
    """

    pooled: Interval
    tau: float
    estimates: list[Interval]
    combined: list[Interval] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Between:
    """Posterior of tau^2 on K nodes: `weights` (K,), `tau_squared` (K,), and given each, the posterior of mu."""

    weights: Floats
    tau_squared: Floats
    mean: Floats
    variance: Floats


def heterogeneity(effects: Floats, covariance: Floats) -> Heterogeneity:
    """Cochran's Q (1954) for J effects (J,) with covariance (J, J), and tau by Paule & Mandel (1982).

    Q(tau^2) = sum y_i^2 / (lambda_i + tau^2) over the contrasts is the residual sum of squares of generalised least
    squares; Q(0) is chi-square on J - 1 when all are equal, tau solves Q(tau^2) = J - 1 (0 where Q(0) is smaller).
    With few segments tau is often 0 by chance: `shrink` does not rely on it.
    Raises StatError(not_enough_data) for fewer than two effects, StatError(zero_variance) where a contrast is known.
    """
    problem = _Problem.of(effects, covariance)
    df = problem.contrast.size
    squares, values = problem.contrast**2, problem.values

    def excess(tau_squared: float) -> float:
        return float((squares / (values + tau_squared)).sum()) - df

    q = excess(0.0) + df
    tau_squared = 0.0
    if q > df:
        # Q is at most sum y^2 / tau^2.
        tau_squared = float(scipy.optimize.brentq(excess, 0.0, squares.sum() / df, xtol=1e-300, rtol=1e-13))
    return Heterogeneity(q, df, float(scipy.special.chdtrc(df, q)), math.sqrt(tau_squared))


def between(effects: Floats, covariance: Floats) -> Between:
    """Posterior of tau^2 and mu: flat in mu, uniform in B = s^2 / (s^2 + tau^2), s^2 the harmonic mean of lambda.

    The uniform-shrinkage prior (Daniels 1999): proper at any J, free of the unit, never puts all weight on tau = 0.
    Trapezoid rule in log tau^2, where the integrand is smooth and falls exponentially on both sides.
    Raises as `heterogeneity`.
    """
    return _between(_Problem.of(effects, covariance))


def _between(problem: "_Problem") -> Between:
    squares, values = problem.contrast**2, problem.values
    scale = 1 / float((1 / values).mean())

    def log_density(x: Floats) -> Floats:
        total = values[:, None] + scale * np.exp(x)
        likelihood: Floats = -(np.log(total) + squares[:, None] / total).sum(axis=0) / 2
        return likelihood - np.logaddexp(0, x) - np.logaddexp(0, -x)

    largest = math.log(max(float(squares.max()) / scale, float(values.max()) / scale, 1.0))
    low, high = -_DROP - 10, largest + _DROP + 10
    while True:
        x = np.linspace(low, high, _GRID)
        log = log_density(x)
        kept = np.flatnonzero(log > log.max() - _DROP)
        first, last = max(int(kept[0]) - 1, 0), min(int(kept[-1]) + 1, _GRID - 1)
        if last - first > _GRID // 2:
            break
        low, high = float(x[first]), float(x[last])
    weights = np.exp(log[kept] - log.max())
    tau_squared = scale * np.exp(x[kept])
    spectrum, basis = problem.eigen
    ones = basis.sum(axis=0)
    precision = ones**2 / (spectrum + tau_squared[:, None])
    total = precision.sum(axis=1)
    rotated = basis.T @ problem.effects
    mean = (ones * rotated / (spectrum + tau_squared[:, None])).sum(axis=1) / total
    return Between(weights / weights.sum(), tau_squared, mean, 1 / total)


def shrink(effects: Floats, covariance: Floats, alpha: float, combinations: Floats | None = None) -> Shrunk:
    """Posterior means and 1 - alpha intervals of the J true effects, averaged over what is not known of mu and tau.

    Given tau, with S = V + tau^2 I and m the GLS mean: theta = d - V S^-1 (d - m), its variance V - V S^-1 V plus
    (V S^-1 1)(V S^-1 1)' Var(m). The intervals are quantiles of the mixture over the posterior of tau (`between`), so
    that they stay honest with few segments, where a plug-in tau of 0 would give them all the same effect.
    The coverage is that of the average segment, not of the one picked for its size.

    `combinations` (M, J) are weights of M sums of true effects. A sum picked for its effects (the winners of a
    programme) is unbiased too, where all effects, winners or not, are given: a posterior does not depend on who was
    picked (Dawid 1994, "Selection paradoxes of Bayesian inference"; for programmes of experiments Lee & Shen 2018,
    "Winner's curse: bias estimation for total effects of features in online controlled experiments", KDD).
    Raises as `heterogeneity`.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    weights = np.zeros((0, len(effects))) if combinations is None else np.asarray(combinations, dtype=np.float64)
    sized = weights.ndim == 2 and weights.shape[1] == len(effects)
    if not (sized and np.isfinite(weights).all() and weights.any(axis=1).all()):
        raise ValueError("combinations must be finite, of the shape (M, J), none of them all zeros")
    problem = _Problem.of(effects, covariance)
    posterior = _between(problem)
    v = problem.covariance
    # All in the eigenbasis of V: nodes x eigenvalues, then nodes x segments.
    spectrum, basis = problem.eigen
    ones = basis.sum(axis=0)
    inverse = 1 / (spectrum + posterior.tau_squared[:, None])
    loading = v @ basis
    rotated = basis.T @ problem.effects - posterior.mean[:, None] * ones
    mean = problem.effects - (inverse * rotated) @ loading.T
    pull = (inverse * ones) @ loading.T
    # V - V S^-1 V is V tau^2 S^-1: a sum of positive terms.
    given = posterior.tau_squared[:, None] * (inverse * spectrum)
    variance = given @ (basis**2).T + pull**2 * posterior.variance[:, None]
    sums = given @ ((weights @ basis) ** 2).T + (pull @ weights.T) ** 2 * posterior.variance[:, None]
    intervals = _intervals(
        posterior.weights,
        np.column_stack([posterior.mean, mean, mean @ weights.T]),
        np.sqrt(np.column_stack([posterior.variance, variance, sums])),
        alpha,
    )
    cumulative = np.cumsum(posterior.weights) - posterior.weights / 2
    tau = math.sqrt(float(np.exp(np.interp(0.5, cumulative, np.log(posterior.tau_squared)))))
    size = len(effects)
    return Shrunk(intervals[0], tau, intervals[1 : size + 1], intervals[size + 1 :])


def _intervals(weights: Floats, mean: Floats, sd: Floats, alpha: float) -> list[Interval]:
    """Mean and quantiles alpha/2, 1 - alpha/2 of mixtures of normals, one per column of (K, J)."""
    z = -float(scipy.special.ndtri(alpha / 2))
    centre = weights @ mean
    spread = np.sqrt(weights @ (sd**2 + (mean - centre) ** 2))
    limits = []
    for sign in (1.0, -1.0):
        # Each component has its quantile between these; the mixture too. Newton on the tail towards the limit.
        low, high = (sign * mean - z * sd).min(axis=0), (sign * mean - z * sd).max(axis=0)
        at = np.clip(sign * centre - z * spread, low, high)
        for _ in range(_NEWTON):
            apart = (at - sign * mean) / sd
            gap = weights @ scipy.special.ndtr(apart) - alpha / 2
            low, high = np.where(gap > 0, low, at), np.where(gap > 0, at, high)
            slope = weights @ (np.exp(-(apart**2) / 2) / sd) / math.sqrt(2 * math.pi)
            step = np.where(slope > 0, at - gap / np.where(slope > 0, slope, 1.0), low)
            moved = np.where((step >= low) & (step <= high), step, (low + high) / 2)
            settled = np.abs(moved - at) <= _SETTLED * spread
            at = moved
            if settled.all():
                break
        limits.append(sign * at)
    return [Interval(*map(float, row)) for row in zip(centre, *limits, strict=True)]


@dataclass(frozen=True, eq=False)
class _Problem:
    effects: Floats
    covariance: Floats
    contrast: Floats
    values: Floats

    @classmethod
    def of(cls, effects: Floats, covariance: Floats) -> "_Problem":
        d, v = np.asarray(effects, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
        if d.ndim != 1 or v.shape != (d.size, d.size) or not (np.isfinite(d).all() and np.isfinite(v).all()):
            raise ValueError("effects and covariance must be finite, of the shapes (J,) and (J, J)")
        if d.size < 2:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=d.size, needed=2)
        contrasts = _contrasts(d.size)
        values, vectors = np.linalg.eigh(contrasts @ v @ contrasts.T)
        if values[0] <= _ROUNDING * np.diag(v).max():
            raise StatError(Problem.ZERO_VARIANCE)
        return cls(d, v, vectors.T @ (contrasts @ d), values)

    @cached_property
    def eigen(self) -> tuple[Floats, Floats]:
        """Eigenvalues and eigenvectors of V."""
        spectrum, basis = np.linalg.eigh(self.covariance)
        return np.maximum(spectrum, 0.0), basis


@lru_cache(maxsize=64)
def _contrasts(size: int) -> Floats:
    return np.asarray(scipy.linalg.helmert(size))
