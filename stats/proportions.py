"""Conversion rates, unadjusted, at a fixed horizon: one family that inverts one score test.

Test, interval of the difference and interval of the lift agree with each other at every alpha and hold for rare
conversions and empty cells, where Wald intervals fail. Under `miettinen_nurminen` the score variance carries the factor
N/(N-1) in all three (Miettinen & Nurminen 1985); without it they are Pearson's z, Mee 1984 and Koopman 1984.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy.optimize
import scipy.stats

from stats.effects import Effect, Interval
from stats.errors import Problem, StatError

__all__ = ["Conversions", "difference", "difference_score", "relative", "wilson"]


@dataclass(frozen=True, slots=True)
class Conversions:
    """`successes` of `n` users, 0 <= successes <= n. Raises StatError(not_enough_data) for n = 0."""

    successes: int
    n: int

    def __post_init__(self) -> None:
        if self.n == 0:
            raise StatError(Problem.NOT_ENOUGH_DATA, n=0)
        if not 0 <= self.successes <= self.n:
            raise ValueError(f"{self.successes} of {self.n} is not a proportion")

    @property
    def rate(self) -> float:
        """Share of users that converted."""
        return self.successes / self.n


def wilson(arm: Conversions, alpha: float) -> Interval:
    """Rate of one arm with Wilson's score interval (Wilson 1927)."""
    z2 = _critical(alpha) ** 2
    x, n = arm.successes, arm.n
    root = math.sqrt(z2 * (z2 + 4 * x * (n - x) / n))
    upper = (2 * x + z2 + root) / (2 * (n + z2))
    return Interval(arm.rate, x * x / n / (n + z2) / upper, 1.0 if x == n else upper)


def difference(
    treatment: Conversions, control: Conversions, alpha: float, *, miettinen_nurminen: bool = False
) -> Effect:
    """Difference of two rates: pooled z test and the interval that inverts it (Mee 1984).

    The interval holds the differences d with |z(d)| <= z_{alpha/2}, z(d) using the rates most likely under d (closed
    form of Miettinen & Nurminen 1985). `se` is the unpooled standard error of the estimate, not the
    pooled one under the statistic. Where nobody or everybody converted in both arms, z = 0 and p = 1.
    """
    critical = _critical(alpha)
    estimate = treatment.rate - control.rate

    def score(value: float) -> float:
        return difference_score(treatment, control, value, miettinen_nurminen=miettinen_nurminen)

    statistic = score(0.0)
    return Effect(
        estimate=estimate,
        se=math.sqrt(_binomial(treatment.rate, treatment.n) + _binomial(control.rate, control.n)),
        lower=_solve(score, critical, -1.0, estimate),
        upper=_solve(score, -critical, estimate, 1.0),
        p_value=2 * float(scipy.stats.norm.sf(abs(statistic))),
        df=None,
        statistic=statistic,
        statistic_name="z",
    )


def difference_score(
    treatment: Conversions, control: Conversions, value: float, *, miettinen_nurminen: bool = False
) -> float:
    """The z statistic of rate_t - rate_c against `value` in (-1, 1), its variance under that value.

    Against a margin this is the test of non-inferiority of Farrington & Manning 1990; unlike a Wald statistic it
    exists where nobody converted at all.
    """
    factor = _factor(treatment, control, miettinen_nurminen=miettinen_nurminen)
    variance = factor * _variance_under_difference(treatment, control, value)
    return _standardise(treatment.rate - control.rate - value, variance)


def relative(
    treatment: Conversions, control: Conversions, alpha: float, *, miettinen_nurminen: bool = False
) -> Interval:
    """Relative lift rate_t / rate_c - 1 with the interval that inverts the same score test (Koopman 1984).

    It excludes 0 exactly when `difference` is significant at alpha.
    Raises StatError(lift_not_identified) when the control has no conversion.
    """
    critical = _critical(alpha)
    if control.successes == 0:
        raise StatError(Problem.LIFT_NOT_IDENTIFIED, control_mean=0.0, n=control.n)
    estimate = treatment.rate / control.rate
    factor = _factor(treatment, control, miettinen_nurminen=miettinen_nurminen)

    def score(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        rate = _control_rate_under_ratio(treatment, control, ratio)
        variance = _binomial(ratio * rate, treatment.n) + ratio**2 * _binomial(rate, control.n)
        return _standardise(treatment.rate - ratio * control.rate, factor * variance)

    # No ratio beyond these can be compatible with the data: e^-80 and e^80 lie past any count of users.
    centre = math.log(estimate) if estimate > 0 else -80.0
    lower = math.expm1(_solve(score, critical, -80.0, centre)) if estimate > 0 else -1.0
    return Interval(estimate - 1, lower, math.expm1(_solve(score, -critical, centre, 80.0)))


def _critical(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    return float(scipy.stats.norm.isf(alpha / 2))


def _factor(treatment: Conversions, control: Conversions, *, miettinen_nurminen: bool) -> float:
    n = treatment.n + control.n
    return n / (n - 1) if miettinen_nurminen else 1.0


def _binomial(rate: float, n: int) -> float:
    return max(rate * (1 - rate), 0.0) / n


def _standardise(deviation: float, variance: float) -> float:
    if variance > 0:
        return deviation / math.sqrt(variance)
    return math.copysign(math.inf, deviation) if deviation else 0.0


def _solve(score: Callable[[float], float], target: float, low: float, high: float) -> float:
    """The value in [low, high] where the decreasing score crosses the target, an end where it does not."""

    # arctan keeps the infinite scores at the ends of the range finite for the root finder.
    def gap(value: float) -> float:
        return math.atan(score(value)) - math.atan(target)

    if gap(low) <= 0:
        return low
    if gap(high) >= 0:
        return high
    root: float = scipy.optimize.brentq(gap, low, high, xtol=1e-15, rtol=1e-14)
    return root


def _variance_under_difference(treatment: Conversions, control: Conversions, value: float) -> float:
    if 2 * (treatment.successes + control.successes) > treatment.n + control.n:
        # Failures are the mirror image, and the cubic is accurate for small rates only.
        treatment, control = (Conversions(arm.n - arm.successes, arm.n) for arm in (treatment, control))
        value = -value
    rate = _control_rate_under_difference(treatment, control, value)
    return _binomial(rate + value, treatment.n) + _binomial(rate, control.n)


def _control_rate_under_difference(treatment: Conversions, control: Conversions, value: float) -> float:
    """Most likely control rate when rate_t - rate_c = value: the middle root of a cubic.

    The trigonometric formula for that root loses every digit of rare conversions, where it nearly meets the lowest.
    The highest root is exact; dividing it out leaves a quadratic whose larger root is wanted.
    """
    if abs(value) >= 1:
        return max(0.0, -value)
    n, x = treatment.n + control.n, treatment.successes + control.successes
    l3 = float(n)
    l2 = (treatment.n + 2 * control.n) * value - n - x
    l1 = (control.n * value - n - 2 * control.successes) * value + x
    l0 = control.successes * value * (1 - value)
    centre = -l2 / (3 * l3)
    p = math.sqrt(max(centre**2 - l1 / (3 * l3), 0.0))
    q = centre**3 + l1 * l2 / (6 * l3**2) - l0 / (2 * l3)
    cosine = min(max(q / p**3, -1.0), 1.0) if p else 1.0
    highest = centre + 2 * p * math.cos(math.acos(cosine) / 3)
    product = -l0 / (l3 * highest)
    total = (l1 / l3 - product) / highest
    root = math.sqrt(max(total**2 - 4 * product, 0.0))
    return (total + root) / 2 if total >= 0 else 2 * product / (total - root)


def _control_rate_under_ratio(treatment: Conversions, control: Conversions, ratio: float) -> float:
    """Most likely control rate when rate_t / rate_c = ratio: the smaller root of a quadratic."""
    n, x = treatment.n + control.n, treatment.successes + control.successes
    linear = ratio * (treatment.n + control.successes) + control.n + treatment.successes
    root = math.sqrt(max(linear**2 - 4 * n * ratio * x, 0.0))
    return 2 * x / (linear + root)
