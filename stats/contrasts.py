"""Several questions to one arm vector: linear contrasts, their joint test, and simultaneous intervals.

A contrast is a row of K weights. `many_to_one` and `all_pairs` make the usual sets of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
from scipy.special import chdtrc, ndtr, ndtri
from scipy.stats import qmc

from stats.arms import ArmVector
from stats.effects import Contrast, Effect, Interval, contrast, effect
from stats.errors import Problem, StatError
from stats.horizon import Fixed, Horizon
from stats.moments import Floats

__all__ = [
    "ChiSquare",
    "Simultaneous",
    "all_pairs",
    "linear",
    "many_to_one",
    "quadratic_form",
    "simultaneous",
    "wald",
]

# Null directions of a covariance of unit diagonal are zero up to rounding, the others are not small.
_SINGULAR = 1e-9
# Below this 1 - loading^2 the one-factor integrand is nearly a step.
_STEEP = 1e-4
_LOG_DIRECTIONS = 14
_BINS = 4096


@dataclass(frozen=True, slots=True)
class ChiSquare:
    """A chi-square test."""

    statistic: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Simultaneous:
    """Single-step inference on L contrasts, in the order of the matrix.

    All `intervals` cover at once with probability 1 - alpha; `p_adjusted` is below alpha exactly where the interval
    excludes 0. `critical` is the quantile of max |z|: it lies between that of one contrast and Bonferroni's.
    """

    critical: float
    intervals: list[Interval]
    p_adjusted: list[float]


def linear(arms: ArmVector, weights: npt.ArrayLike, horizon: Horizon) -> Effect:
    """The effect sum_a w_a mean_a, `weights` (K,) finite and not all zero; n counts the arms of nonzero weight.

    Welch-Satterthwaite degrees of freedom Var^2 / sum w_a^4 satterthwaite_a. `effects.difference` is (+1, -1).
    Raises StatError(zero_variance).
    """
    return effect(_contrast(arms, _matrix(arms, np.atleast_2d(weights))[0]), horizon)


def many_to_one(k: int, control: int) -> Floats:
    """Contrasts (k - 1, k) mean_a - mean_control, a ascending without the control."""
    if not 0 <= control < k or k < 2:
        raise ValueError(f"{control} is not one of at least two arms: {k}")
    matrix = np.delete(np.eye(k), control, axis=0)
    matrix[:, control] = -1.0
    return matrix


def all_pairs(k: int) -> Floats:
    """Contrasts (k (k - 1) / 2, k) mean_b - mean_a, a < b, in the order (0, 1), (0, 2), ..., (1, 2), ..."""
    if k < 2:
        raise ValueError(f"no pair among {k} arms")
    first, second = np.triu_indices(k, 1)
    return np.eye(k)[second] - np.eye(k)[first]


def wald(arms: ArmVector, matrix: npt.ArrayLike) -> ChiSquare:
    """Joint test that all L contrasts of `matrix` (L, K) are zero: (C mu)' (C Sigma C')^- C mu on rank(C) (Wald 1943).

    Redundant rows cost no degree of freedom. Chi-square, so it wants some dozens of users in each arm.
    Raises StatError(zero_variance) when some combination of the contrasts does not vary.
    """
    c = _matrix(arms, matrix)
    test = quadratic_form(c @ arms.mean, c @ arms.covariance @ c.T)
    if test is None or test.df < _spectrum(c @ c.T)[0].size:
        raise StatError(Problem.ZERO_VARIANCE)
    return test


def quadratic_form(deviation: Floats, covariance: Floats) -> ChiSquare | None:
    """deviation' covariance^- deviation on rank(covariance) degrees of freedom; None where the rank is zero."""
    values, basis = _spectrum(covariance)
    if values.size == 0:
        return None
    statistic = float((basis.T @ deviation) ** 2 @ (1 / values))
    return ChiSquare(statistic, values.size, float(chdtrc(values.size, statistic)))


def simultaneous(arms: ArmVector, matrix: npt.ArrayLike, alpha: float) -> Simultaneous:
    """Intervals and p values of the L contrasts of `matrix` (L, K) that hold together (Hothorn, Bretz & Westfall 2008).

    `many_to_one` gives Dunnett's comparisons (1955), `all_pairs` those of Tukey and Kramer. Each contrast keeps its
    own Welch t as margin; the joint distribution is the normal copula with the correlation of C Sigma C', so one
    contrast alone equals `linear` at a fixed horizon. Correlations of one factor (a shared control, any two contrasts)
    are integrated to 1e-10, others by a fixed set of quasi-random directions: p good to 0.1 per cent of itself up to
    five arms, 0.5 per cent up to ten.
    Raises StatError(zero_variance).
    """
    horizon = Fixed(alpha)
    c = _matrix(arms, matrix)
    contrasts = [_contrast(arms, row) for row in c]
    se = np.array([each.se for each in contrasts])
    upper_tail = _max_tail(c @ arms.covariance @ c.T / np.outer(se, se))
    p_adjusted, intervals = [], []
    critical = _quantile(upper_tail, alpha, len(contrasts))
    # What a contrast alone may spend, so that its own t quantile replaces the normal one.
    share = Fixed(2 * float(ndtr(-critical)))
    for each in contrasts:
        p = horizon.p_value(each.estimate / each.se, each.n, each.df)
        p_adjusted.append(max(p, upper_tail(-float(ndtri(p / 2)))) if p > 0 else 0.0)
        half = share.critical(each.n, each.df) * each.se
        intervals.append(Interval(each.estimate, each.estimate - half, each.estimate + half))
    return Simultaneous(critical, intervals, p_adjusted)


def _matrix(arms: ArmVector, matrix: npt.ArrayLike) -> Floats:
    c = np.asarray(matrix, dtype=np.float64)
    if c.ndim != 2 or len(c) == 0 or c.shape[1] != arms.mean.size:
        raise ValueError(f"contrasts of {arms.mean.size} arms must be (L, {arms.mean.size}), got {c.shape}")
    if not np.isfinite(c).all() or not c.any(axis=1).all():
        raise ValueError("the weights of a contrast must be finite and not all zero")
    return c


def _contrast(arms: ArmVector, weights: Floats) -> Contrast:
    return contrast(arms, [(a, w) for a, w in enumerate(weights.tolist()) if w])


def _spectrum(covariance: Floats) -> tuple[Floats, Floats]:
    """Non-zero eigenvalues (r,) of the correlation and the basis (k, r) that takes deviations to them."""
    diagonal = covariance.diagonal()
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    kept = values > _SINGULAR
    return values[kept], vectors[:, kept] / scale[:, None]


def _quantile(upper_tail: Callable[[float], float], alpha: float, contrasts: int) -> float:
    low, high = -float(ndtri(alpha / 2)), -float(ndtri(alpha / 2 / contrasts))

    def gap(c: float) -> float:
        return math.log(upper_tail(c) / alpha)

    if gap(low) <= 0:
        return low
    if gap(high) >= 0:
        return high
    root: float = scipy.optimize.brentq(gap, low, high, xtol=1e-13, rtol=1e-14)
    return root


def _max_tail(correlation: Floats) -> Callable[[float], float]:
    """c >= 0 -> P(max |Z| >= c) for Z normal with this correlation."""
    loadings = _one_factor(correlation)
    if len(correlation) == 1:
        return lambda c: 2 * float(ndtr(-c))
    if loadings is None or (1 - loadings**2).min() < _STEEP:
        return _tail_by_directions(correlation)
    return _tail_by_factor(loadings)


def _one_factor(correlation: Floats) -> Floats | None:
    """Loadings l (L,) with correlation_ij = l_i l_j off the diagonal, None where there are none."""
    off = correlation - np.eye(len(correlation))
    i, j = np.unravel_index(np.abs(off).argmax(), off.shape)
    if abs(off[i, j]) < _SINGULAR:
        return np.zeros(len(off))
    others = np.minimum(np.abs(off[i]), np.abs(off[j]))
    k = int(others.argmax())
    first = math.sqrt(abs(off[i, j] * off[i, k] / off[j, k]) if others[k] > _SINGULAR else abs(off[i, j]))
    loadings = off[i] / first
    loadings[i] = first
    product = np.outer(loadings, loadings)
    np.fill_diagonal(product, 0.0)
    return loadings if np.abs(loadings).max() <= 1 and np.abs(product - off).max() < _SINGULAR else None


def _tail_by_factor(loadings: Floats) -> Callable[[float], float]:
    """Z_i = l_i y + sqrt(1 - l_i^2) e_i: one integral over y, by the trapezoidal rule (exponentially accurate here).

    1 - prod(1 - q_i(y)) is summed in logarithms, so that far tails keep their digits.
    """
    spread = np.sqrt(1 - loadings**2)
    step = 0.25 * min(1.0, float((spread / np.maximum(np.abs(loadings), 0.25)).min()))

    def tail(c: float) -> float:
        y = np.arange(0.0, c + 9.0, step)[:, None]
        missed = ndtr((loadings * y - c) / spread) + ndtr((-loadings * y - c) / spread)
        any_missed = -np.expm1(np.log1p(-np.minimum(missed, 1 - 1e-16)).sum(axis=1))
        weight = np.exp(-(y[:, 0] ** 2) / 2) * (2 * step / math.sqrt(2 * math.pi))
        weight[0] /= 2
        return min(1.0, float(weight @ any_missed))

    return tail


def _tail_by_directions(correlation: Floats) -> Callable[[float], float]:
    """Z = r A u with u on the unit sphere of the rank and r chi: sum_i P(|Z_i| >= c) less the overlap of these events.

    Given u the overlap is a sum of chi tails, so only u is sampled (by Sobol's points; Deak 1980), and the error is
    relative to the overlap: where p is small it vanishes, and p never exceeds Bonferroni's.
    """
    values, vectors = _spectrum(correlation)
    rank = values.size
    # Sobol's points start at the corner: moved to the middle of their cells.
    normal = ndtri(qmc.Sobol(rank, scramble=False).random_base2(_LOG_DIRECTIONS) + 0.5 / 2**_LOG_DIRECTIONS)
    reach = np.abs(normal @ (vectors * np.sqrt(values)).T)
    reach /= np.sqrt((normal**2).sum(axis=1, keepdims=True))
    # Tails depend on the reach alone: bin it, linearly between the grid points, +1 for each event, -1 for the largest.
    position = np.minimum(reach, 1.0) * _BINS
    position = np.concatenate([position.ravel(), position.max(axis=1)])
    sign = np.repeat([1.0, -1.0], [reach.size, len(reach)]) / len(reach)
    below = np.minimum(position.astype(np.int64), _BINS - 1)
    fraction = position - below
    weight = np.bincount(below, sign * (1 - fraction), _BINS + 1) + np.bincount(below + 1, sign * fraction, _BINS + 1)
    grid = np.arange(1, _BINS + 1) / _BINS

    def tail(c: float) -> float:
        overlap = float(weight[1:] @ chdtrc(rank, (c / grid) ** 2))
        return min(1.0, 2 * len(correlation) * float(ndtr(-c)) - max(overlap, 0.0))

    return tail
