"""Fieller's confidence set for the ratio of two estimates."""

import math

__all__ = ["ratio_limits"]


def ratio_limits(
    numerator: float,
    denominator: float,
    numerator_variance: float,
    covariance: float,
    denominator_variance: float,
    critical: float,
) -> tuple[float, float] | None:
    """All r for which numerator - r denominator is within `critical` standard errors of zero (Fieller 1954).

    None when the denominator is itself within `critical` standard errors of zero: the set then has no two ends. It
    holds the ratio of the estimates, and 0 exactly when the numerator is within `critical` standard errors of zero.
    """
    square = denominator**2 - critical**2 * denominator_variance
    if square <= 0:
        return None
    linear = numerator * denominator - critical**2 * covariance
    constant = numerator**2 - critical**2 * numerator_variance
    # The root without cancellation first; from the product of the two the other takes the sign of `constant`.
    root = linear + math.copysign(math.sqrt(max(linear**2 - square * constant, 0.0)), linear)
    first, second = root / square, constant / root if root else 0.0
    return min(first, second), max(first, second)
