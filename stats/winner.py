"""Winner's curse: the estimate of the arm that was chosen because its estimate was the largest.

Given what the others showed, the winner's estimate is a normal truncated to where it wins. Median-unbiased estimate and
limits come from that distribution (Andrews, Kitagawa & McCloskey 2024, "Inference on Winners", QJE 139).
"""

import math
from collections.abc import Callable

import numpy as np
import scipy.optimize
import scipy.special

from stats.effects import Interval
from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["corrected"]

# Gauss-Legendre on (0, 1).
_NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(20) + np.array([[1.0], [0.0]])) / 2
_HALF_LOG_2PI = math.log(2 * math.pi) / 2


def corrected(
    estimates: Floats, covariance: Floats, chosen: int | None, alpha: float, beta: float | None = None
) -> Interval:
    """Estimate and 1 - alpha interval of the largest of K normal estimates (K,) with known covariance (K, K).

    Hybrid by default (beta = alpha / 10): truncated also to where the simultaneous interval of level 1 - beta holds the
    truth, then tested at (alpha - beta) / (1 - beta). The limits therefore stay within estimate +- c se, c the Sidak
    bound for K; the median is off by at most beta / 2 in probability. beta = 0 gives the purely conditional
    interval: exact, also given who won, but without bound in close races. Without a rival close by, both are
    the plain interval. A rival may have zero variance (the control's effect 0, where only an improvement is chosen).

    Larger is better: negate the estimates of a metric that should decrease. `chosen` None means the largest; another
    index is a ValueError, since the correction is for choosing the largest.
    Raises StatError(tied) when two arms share the largest estimate, StatError(zero_variance) for a constant winner.
    """
    x, v = np.asarray(estimates, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or v.shape != (x.size, x.size) or not (np.isfinite(x).all() and np.isfinite(v).all()):
        raise ValueError("estimates and covariance must be finite, of the shapes (K,) and (K, K)")
    if beta is None:
        beta = alpha / 10
    if not 0 <= beta < alpha < 1:
        raise ValueError(f"alpha and beta must satisfy 0 <= beta < alpha < 1: {alpha}, {beta}")
    winner = int(x.argmax()) if chosen is None else chosen
    lead = np.delete(x[winner] - x, winner)
    if (lead < 0).any():
        raise ValueError(f"arm {winner} is not the largest")
    if v[winner, winner] <= 0:
        raise StatError(Problem.ZERO_VARIANCE, arm=winner)
    if (lead == 0).any():
        raise StatError(Problem.TIED, arms=1 + int((lead == 0).sum()))
    se = math.sqrt(v[winner, winner])
    # The winner wins while it stays within `below` and `above` standard errors of where it is.
    slope = 1 - np.delete(v[:, winner], winner) / v[winner, winner]
    lead = lead / se
    below = float((lead[slope > 0] / slope[slope > 0]).min(initial=math.inf))
    above = float((lead[slope < 0] / -slope[slope < 0]).min(initial=math.inf))
    bound = -float(scipy.special.ndtri(-math.expm1(math.log1p(-beta) / x.size) / 2)) if beta else math.inf
    tail = (alpha - beta) / (1 - beta) / 2
    limits = (_solve(_log_odds(below, above, bound), bound, probability) for probability in (0.5, tail, 1 - tail))
    return Interval(*(float(x[winner]) + shift * se for shift in limits))


def _log_odds(below: float, above: float, bound: float) -> Callable[[float], float]:
    """Log odds of an estimate beyond the one seen, as a function of (truth - estimate) / se. Increasing."""

    def log_odds(shift: float) -> float:
        return _log_mass(-shift, min(above, bound + shift)) - _log_mass(shift, min(below, bound - shift))

    return log_odds


def _solve(log_odds: Callable[[float], float], bound: float, probability: float) -> float:
    target = math.log(probability / (1 - probability))
    low, high = -bound, bound
    if math.isinf(bound):
        low, high = -8.0, 8.0
        while log_odds(low) > target:
            low *= 2
        while log_odds(high) < target:
            high *= 2
    return float(scipy.optimize.brentq(lambda shift: log_odds(shift) - target, low, high, xtol=1e-13, rtol=1e-13))


def _log_mass(x: float, width: float) -> float:
    """log of the integral of exp(-x t - t^2 / 2) over 0 < t < width: normal mass beyond x relative to its density.

    Each branch is free of cancellation, at any x and width.
    """
    if math.isinf(width):
        return _log_mills(x)
    width = max(width, 1e-300)
    if width * (abs(x) + width) < 2:
        t = width * _NODES
        return math.log(width * float(_WEIGHTS @ np.exp(-t * (x + t / 2))))
    if x + width <= 0:
        return -width * (x + width / 2) + _log_mass(-x - width, width)
    if x < 0:
        mass = 1 - float(scipy.special.ndtr(x)) - float(scipy.special.ndtr(-x - width))
        return x * x / 2 + _HALF_LOG_2PI + math.log(mass)
    tail = -width * (x + width / 2) + _log_mills(x + width) - _log_mills(x)
    return _log_mills(x) + math.log(-math.expm1(tail))


def _log_mills(x: float) -> float:
    if x > -5:
        return math.log(math.sqrt(math.pi / 2) * float(scipy.special.erfcx(x / math.sqrt(2))))
    return x * x / 2 + _HALF_LOG_2PI + float(scipy.special.log_ndtr(-x))
