"""Asymptotic confidence sequences: intervals and p values that stay valid however often one looks.

Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Time-uniform central limit theory and asymptotic confidence sequences
(arXiv 2103.06476). `n` is the number of users in the two arms compared, q = n rho^2, z = estimate / SE. `rho_squared`
must be fixed before the start; any value is valid, it only decides at which n the interval is tightest. The guarantee
is asymptotic: it does not cover looks at a handful of users or of conversions.
"""

import math
from functools import lru_cache

import scipy.special

__all__ = ["multiplier", "multiplier_one_sided", "p_value", "p_value_one_sided", "rho_squared"]


@lru_cache(maxsize=1024)
def rho_squared(alpha: float, users: float) -> float:
    """The rho^2 that makes the interval of level `alpha`, (0, 1), tightest at `users` > 0 in the two arms.

    rho^2 = (-W_{-1}(-alpha^2 / e) - 1) / users, where the derivative of the half width in rho vanishes.
    Choose the planned total, or the earliest count at which a decision matters.
    """
    if not 0 < alpha < 1 or not users > 0:
        raise ValueError(f"alpha must be in (0, 1) and users positive: {alpha}, {users}")
    return float(-scipy.special.lambertw(-(alpha**2) / math.e, -1).real - 1) / users


def multiplier(n: float, alpha: float, rho_squared: float) -> float:
    """Half width of the two-sided sequence in standard errors: sqrt((q+1)/q log((q+1)/alpha^2)) (eq. 9)."""
    q = n * rho_squared
    return math.sqrt((q + 1) / q * (math.log1p(q) - 2 * math.log(alpha)))


def p_value(z: float, n: float, rho_squared: float) -> float:
    """Two-sided anytime p: the smallest alpha whose sequence excludes zero, min(1, sqrt(q+1) exp(-z^2 q/(2(q+1))))."""
    q = n * rho_squared
    return math.exp(min(0.0, (math.log1p(q) - z * z * q / (q + 1)) / 2))


def multiplier_one_sided(n: float, alpha: float, rho_squared: float) -> float:
    """Distance of the one-sided bound in standard errors: sqrt(2(q+1)/q log(1 + sqrt(q+1)/(2 alpha))) (eq. 134)."""
    q = n * rho_squared
    return math.sqrt(2 * (q + 1) / q * math.log1p(math.sqrt(q + 1) / (2 * alpha)))


def p_value_one_sided(z: float, n: float, rho_squared: float) -> float:
    """One-sided anytime p against "not above zero": the dual of `multiplier_one_sided`, 1 for z <= 0."""
    q = n * rho_squared
    exponent = z * z * q / (2 * (q + 1))
    if z <= 0 or exponent == 0:
        return 1.0
    log_expm1 = exponent + math.log(-math.expm1(-exponent))
    return math.exp(min(0.0, math.log1p(q) / 2 - math.log(2) - log_expm1))
