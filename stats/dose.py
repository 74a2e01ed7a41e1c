"""Ordered arms with real doses (touches a week, size of an offer): trend, shape and best dose.

The dose is the one assigned, never the touches received: users who respond early or complain receive fewer. The arms
may stand in any order. Larger means are better; for a metric that should fall hand over the negated means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.optimize
from scipy import special

from stats.arms import ArmVector
from stats.contrasts import ChiSquare, linear, wald
from stats.effects import Effect
from stats.errors import Problem, StatError
from stats.fieller import ratio_limits
from stats.horizon import Fixed, Horizon
from stats.moments import Floats

__all__ = ["BestDose", "Curve", "Shape", "best_quadratic", "best_tested", "departure", "response", "trend"]

Shape = Literal["free", "increasing", "decreasing", "concave"]

# Nodes of the trapezoid rule for a standard normal: good to 1e-12 when at most this share of a variance is shared,
# which an arm exceeds only if its own variance is a hundredth of that of the arm it is compared with.
_NODES = np.linspace(-8.4, 8.4, 211)
_DENSITY = np.exp(-(_NODES**2) / 2) / math.sqrt(2 * math.pi) * (_NODES[1] - _NODES[0])
_SHARED_AT_MOST = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Mean response at each tested dose (K,), in order of dose, with bands that hold at all doses together."""

    doses: Floats
    estimate: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, slots=True)
class BestDose:
    """The dose at which the fitted parabola peaks, within the tested range, and its limits."""

    dose: float
    lower: float
    upper: float


def trend(arms: ArmVector, doses: Sequence[float], horizon: Horizon) -> Effect:
    """Slope of the response per unit of dose, at least three distinct doses.

    The contrast sum_k n_k (x_k - xbar) mu_k / sum_k n_k (x_k - xbar)^2 is the least-squares slope over users. Its z is
    that of Cochran (1954) and Armitage (1955) but for the variance: each arm keeps its own, so the test holds under
    unequal variances and the interval under any trend; with p(1 - p)/n_k from the pooled p it is theirs exactly.
    Where the response is no line it is the average slope, weighted by users. Raises as `contrasts.linear`.
    """
    x = _distinct(arms, doses)
    return linear(arms, _coefficients(x, arms.n, 1)[1] / np.ptp(x), horizon)


def departure(arms: ArmVector, doses: Sequence[float], degree: int = 1) -> ChiSquare:
    """Test that the response is a line (degree 1) or a parabola (2) in the dose.

    Generalised least-squares residual, chi-square with K - 1 - degree degrees of freedom. Raises as `contrasts.wald`.
    """
    x = _distinct(arms, doses)
    if not 1 <= degree <= x.size - 2:
        raise ValueError(f"{x.size} doses cannot contradict degree {degree}")
    fitted = np.vander((x - x.mean()) / np.ptp(x), degree + 1)
    return wald(arms, np.linalg.qr(fitted, mode="complete")[0][:, degree + 1 :].T)


def response(arms: ArmVector, doses: Sequence[float], alpha: float, shape: Shape) -> Curve:
    """The response at each dose under an assumed shape, with bands that cover all doses together.

    The free bands are mu_k -+ t_k se_k, t_k the Student quantile of the arm's own degrees of freedom at two-sided level
    1 - (1 - alpha)^(1/K): exact for independent normal means, conservative for correlated ones (Sidak 1967).
    Under a shape the bands are the least and the greatest value at each dose of all curves of that shape within the
    free bands, so they cover whenever the free ones do and the shape is true. The estimate is, among those curves, the
    one nearest to the means in the metric of their covariance (isotonic regression for independent arms).
    Assume a shape only if it was believed before the data: fatigue makes responses neither increasing nor decreasing.
    Raises StatError(shape_rejected) when no curve of the shape fits into the free bands, StatError(zero_variance)
    for an arm that does not vary.
    """
    x = _distinct(arms, doses)
    order = np.argsort(x)
    x, mean, covariance = x[order], arms.mean[order], arms.covariance[np.ix_(order, order)]
    variance = np.diag(covariance)
    for arm, value in zip(order, variance, strict=True):
        if value <= 0:
            raise StatError(Problem.ZERO_VARIANCE, arm=int(arm))
    half = _sidak(alpha, variance, arms.satterthwaite[order]) * np.sqrt(variance)
    lower, upper = mean - half, mean + half
    if shape == "free":
        return Curve(x, mean, lower, upper)
    if shape == "concave":
        cone = _second_differences(x)
        lower, upper = _concave_envelope(x, lower, upper)
    else:
        sign = 1.0 if shape == "increasing" else -1.0
        cone = sign * np.diff(np.eye(x.size), axis=0)
        lower, upper = _increasing_envelope(lower, upper) if sign > 0 else _decreasing_envelope(lower, upper)
    if (lower > upper).any():
        raise StatError(Problem.SHAPE_REJECTED, shape=shape, dose=float(x[np.argmax(lower - upper)]))
    constraints = np.vstack([cone, np.eye(x.size), -np.eye(x.size)])
    bounds = np.concatenate([np.zeros(len(cone)), lower, -upper])
    estimate = np.clip(_nearest(mean, covariance, constraints, bounds), lower, upper)
    return Curve(x, estimate, lower, upper)


def best_quadratic(arms: ArmVector, doses: Sequence[float], alpha: float) -> BestDose:
    """Peak -b1/(2 b2) of the parabola b0 + b1 x + b2 x^2 with Fieller's limits, within the tested doses.

    The parabola is fitted by least squares over users, the covariance of b1, b2 comes from the arms' own variances.
    The limits are all x at which the slope b1 + 2 b2 x is not significant, cut at the range: the confidence set for the
    best dose in the range if the response is a parabola, which `departure` tests from the fourth dose on.
    Raises StatError(no_optimum) with reason "not_concave" when b2 is not significantly negative at two-sided alpha
    (no finite limits exist then), "rising" or "falling" when all limits lie beyond one end of the tested doses.
    """
    x = _distinct(arms, doses)
    weights = _coefficients(x, arms.n, 2)[1:]
    horizon = Fixed(alpha)
    curvature = linear(arms, weights[1], horizon)
    critical = horizon.critical(int(arms.n.sum()), curvature.df)
    b1, b2 = weights @ arms.mean
    (v11, v12), (_, v22) = weights @ arms.covariance @ weights.T
    limits = ratio_limits(-b1, 2 * b2, v11, -2 * v12, 4 * v22, critical) if curvature.upper < 0 else None
    if limits is None:
        raise StatError(Problem.NO_OPTIMUM, reason="not_concave", p_value=curvature.p_value)
    if limits[0] >= 1 or limits[1] <= 0:
        raise StatError(Problem.NO_OPTIMUM, reason="rising" if limits[0] >= 1 else "falling")
    dose, lower, upper = x.min() + np.ptp(x) * np.clip([-b1 / (2 * b2), *limits], 0.0, 1.0)
    return BestDose(float(dose), float(lower), float(upper))


def best_tested(arms: ArmVector, alpha: float) -> list[int]:
    """Arms that can be the best: the set holds the truly best arm with confidence 1 - alpha.

    Multiple comparisons with the best (Hsu 1981, 1984): arm k stays unless the one-sided Dunnett test with k as the
    control, over all other arms and with their joint covariance, finds some arm better. Exact by quadrature for
    independent arms, for correlated ones bounded from above by Slepian's inequality (1962) and Bonferroni. Each
    t statistic is first brought to the normal scale by its own degrees of freedom.
    Raises StatError(zero_variance) when a difference does not vary.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be in (0, 0.5): {alpha}")
    return [arm for arm in range(arms.mean.size) if _p_not_best(arms, arm) >= alpha]


def _p_not_best(arms: ArmVector, k: int) -> float:
    """p of the largest of the statistics by which the other arms beat arm k."""
    others = [arm for arm in range(arms.mean.size) if arm != k]
    if not others:
        return 1.0
    variance = np.array([arms.difference_variance(arm, k) for arm in others])
    spread = arms.satterthwaite[others] + arms.satterthwaite[k]
    top = float(_normal_scale((arms.mean[others] - arms.mean[k]) / np.sqrt(variance), variance, spread).max())
    bonferroni = len(others) * float(special.ndtr(-top))
    v = arms.covariance
    between = v[k, k] - v[k, others][:, None] - v[k, others] + v[np.ix_(others, others)]
    pairs = between[~np.eye(len(others), dtype=bool)]
    # A product correlation not above the true one, hence a p not below the true one (Slepian).
    shared = min(pairs.min() if pairs.size else 0.0, _SHARED_AT_MOST * variance.min())
    if shared < 0:
        return min(bonferroni, 1.0)
    loading = np.sqrt(shared / variance)
    below = special.log_ndtr((top - np.outer(_NODES, loading)) / np.sqrt(1 - loading**2)).sum(axis=1)
    return min(float(-np.expm1(below) @ _DENSITY), bonferroni, 1.0)


def _normal_scale(statistic: Floats, variance: Floats, spread: Floats) -> Floats:
    """Student statistics as normal ones of the same tail."""
    tail = special.stdtr(_degrees(variance, spread), -np.abs(statistic))
    normal: Floats = np.copysign(special.ndtri(np.maximum(tail, np.finfo(np.float64).tiny)), statistic)
    return normal


def _sidak(alpha: float, variance: Floats, spread: Floats) -> Floats:
    """Two-sided critical values (K,) of simultaneous level alpha, each with its arm's degrees of freedom."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    tail = -math.expm1(math.log1p(-alpha) / variance.size) / 2
    return np.asarray(-special.stdtrit(_degrees(variance, spread), tail), dtype=np.float64)


def _degrees(variance: Floats, spread: Floats) -> Floats:
    """Satterthwaite's degrees of freedom, infinite where the variance is known."""
    return np.divide(variance**2, spread, out=np.full_like(variance, np.inf), where=spread > 0)


def _distinct(arms: ArmVector, doses: Sequence[float]) -> Floats:
    x: Floats = np.asarray(doses, dtype=np.float64)
    if x.shape != arms.mean.shape or not np.isfinite(x).all():
        raise ValueError("one finite dose per arm is needed")
    if x.size < 3 or np.unique(x).size < x.size:
        raise ValueError("at least three doses are needed, all different")
    return x


def _coefficients(x: Floats, n: npt.NDArray[np.int64], degree: int) -> Floats:
    """Weights (degree + 1, K) that turn the means into the coefficients of the least-squares polynomial over users.

    The polynomial is in (x - min) / (max - min).
    """
    unit = (x - x.min()) / np.ptp(x)
    root = np.sqrt(n)[:, None]
    inverse = np.linalg.pinv(np.vander(unit, degree + 1, increasing=True) * root)
    return np.asarray(inverse * root.T, dtype=np.float64)


def _second_differences(x: Floats) -> Floats:
    """Rows (K - 2, K): slope before minus slope after each inner dose, not negative for a concave curve."""
    slopes: Floats = np.diff(np.eye(x.size), axis=0) / np.diff(x)[:, None]
    return slopes[:-1] - slopes[1:]


def _increasing_envelope(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    return np.maximum.accumulate(lower), np.minimum.accumulate(upper[::-1])[::-1]


def _decreasing_envelope(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    return np.maximum.accumulate(lower[::-1])[::-1], np.minimum.accumulate(upper)


def _concave_envelope(x: Floats, lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Pointwise range of the concave curves between `lower` and `upper`; crossed somewhere when there is none.

    From below no concave curve is under the chords of `lower`. From above it is under every line from a point of
    `lower` over a point of `upper` between: with those lines kept, the hull of `lower` and the point fits.
    """
    least, most = lower.copy(), upper.copy()
    for k in range(x.size):
        for i in range(x.size):
            for j in range(i + 1, k) if i < k else range(k + 1, i):
                # j lies between i and k
                share = (x[j] - x[i]) / (x[k] - x[i])
                most[k] = min(most[k], lower[i] + (upper[j] - lower[i]) / share)
                least[j] = max(least[j], lower[i] + (lower[k] - lower[i]) * share)
    return least, most


def _nearest(point: Floats, covariance: Floats, constraints: Floats, bounds: Floats) -> Floats:
    """The y with constraints @ y >= bounds nearest to `point` in the metric of `covariance`.

    Least distance programming by non-negative least squares (Lawson & Hanson 1974, ch. 23.4).
    """
    try:
        root = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise StatError(Problem.ZERO_VARIANCE) from error
    rows = constraints @ root
    scale = np.linalg.norm(rows, axis=1)
    system = np.vstack([rows.T, bounds - constraints @ point]) / scale
    target = np.zeros(len(system))
    target[-1] = 1.0
    residual = system @ scipy.optimize.nnls(system, target)[0] - target
    nearest: Floats = point - root @ (residual[:-1] / residual[-1])
    return nearest
