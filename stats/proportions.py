"""Conversion rates, unadjusted, at a fixed horizon: one family that inverts one score test.

Test, interval of the difference and interval of the lift agree with each other at every alpha and hold for rare
conversions and empty cells, where Wald intervals fail. Under `miettinen_nurminen` the score variance carries the factor
N/(N-1) in all three (Miettinen & Nurminen 1985); without it they are Pearson's z, Mee 1984 and Koopman 1984.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
from scipy.special import betainccinv, betaincinv, betaln, ndtr, ndtri, xlog1py, xlogy

from stats.effects import Effect, Interval
from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = [
    "Conversions",
    "difference",
    "difference_score",
    "exact",
    "exact_interval",
    "newcombe",
    "relative",
    "wilson",
]

# Chance left to rates outside the searched range of an exact test.
_NUISANCE = 1e-8
# Counts of both arms together that an exact test may enumerate.
_WIDEST = 2500
_RATES = 101
_ZOOMS = 4


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
    root_factor = math.sqrt(_factor(treatment, control, miettinen_nurminen=miettinen_nurminen))
    x, n, y, m = treatment.successes, treatment.n, control.successes, control.n

    def score(value: float) -> float:
        return _score(x, n, y, m, value) / root_factor

    statistic = score(0.0)
    guess = newcombe(treatment, control, alpha)
    return Effect(
        estimate=estimate,
        se=math.sqrt(_binomial(treatment.rate, n) + _binomial(control.rate, m)),
        lower=_solve(score, critical, guess.lower, -1.0, estimate),
        upper=_solve(score, -critical, guess.upper, estimate, 1.0),
        p_value=2 * float(ndtr(-abs(statistic))),
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
    return _score(treatment.successes, treatment.n, control.successes, control.n, value) / math.sqrt(factor)


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
    p, q = treatment.rate, control.rate
    factor = _factor(treatment, control, miettinen_nurminen=miettinen_nurminen)

    def score(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        rate = _control_rate_under_ratio(treatment, control, ratio)
        variance = _binomial(ratio * rate, treatment.n) + ratio**2 * _binomial(rate, control.n)
        return _standardise(p - ratio * q, factor * variance)

    # No ratio beyond these can be compatible with the data: e^-80 and e^80 lie past any count of users.
    centre = math.log(p / q) if p > 0 else -80.0
    start = math.log(max(treatment.successes, 0.5) / treatment.n / q)
    half = critical * math.sqrt(1 / max(treatment.successes, 0.5) + 1 / control.successes)
    lower, upper = -1.0, math.expm1(_solve(score, -critical, start + half, centre, 80.0))
    if p > 0:
        lower = math.expm1(_solve(score, critical, start - half, -80.0, centre))
    return Interval(p / q - 1, lower, upper)


def newcombe(treatment: Conversions, control: Conversions, alpha: float) -> Interval:
    """Difference of two rates with the hybrid score interval in closed form (Newcombe 1998, method 10).

    Squares and adds the distances of each rate to its Wilson limits. Close to `difference`, but no test agrees with it.
    """
    t, c = wilson(treatment, alpha), wilson(control, alpha)
    estimate = t.estimate - c.estimate
    return Interval(
        estimate,
        estimate - math.hypot(t.estimate - t.lower, c.upper - c.estimate),
        estimate + math.hypot(t.upper - t.estimate, c.estimate - c.lower),
    )


def exact(treatment: Conversions, control: Conversions) -> float:
    """Exact unconditional p of equal rates: twice the smaller of the two one-sided score tests (Barnard 1945).

    For a few conversions, where z is not yet normal: no rate makes either side err more often than p / 2. The common
    rate is searched where the data leave it (Berger & Boos 1994, their 1e-8 is added), so p is at least 2e-8.
    Takes milliseconds at any number of users. Raises ValueError beyond about a thousand conversions in an arm, where
    the score test is exact enough.
    """
    return min(1.0, 2 * min(_Exact(treatment, control).tail(0.0), _Exact(control, treatment).tail(0.0)))


def exact_interval(treatment: Conversions, control: Conversions, alpha: float) -> Interval:
    """Difference of two rates with the interval that inverts two one-sided exact score tests (Chan & Zhang 1999).

    Excludes 0 exactly when `exact` is below alpha; covers at least 1 - alpha at any rates. Tenths of a second.
    Raises ValueError as `exact`, and for alpha <= 2e-8.
    """
    _critical(alpha)
    if alpha <= 2 * _NUISANCE:
        raise ValueError(f"alpha must be above {2 * _NUISANCE}: {alpha}")
    lower = _Exact(treatment, control).lower(alpha / 2)
    upper = -_Exact(control, treatment).lower(alpha / 2)
    return Interval(treatment.rate - control.rate, lower, upper)


def _critical(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    return -float(ndtri(alpha / 2))


def _factor(treatment: Conversions, control: Conversions, *, miettinen_nurminen: bool) -> float:
    n = treatment.n + control.n
    return n / (n - 1) if miettinen_nurminen else 1.0


def _binomial(rate: float, n: int) -> float:
    return max(rate * (1 - rate), 0.0) / n


def _standardise(deviation: float, variance: float) -> float:
    if variance > 0:
        return deviation / math.sqrt(variance)
    return math.copysign(math.inf, deviation) if deviation else 0.0


def _solve(score: Callable[[float], float], target: float, guess: float, low: float, high: float) -> float:
    """The value in [low, high] where the decreasing score crosses the target, an end where it does not.

    The search starts at `guess` and widens from there.
    """
    level = math.atan(target)

    # arctan keeps the infinite scores at the ends of the range finite for the root finder.
    def gap(value: float) -> float:
        return math.atan(score(value)) - level

    if gap(low) <= 0:
        return low
    if gap(high) >= 0:
        return high
    near = min(max(guess, low), high)
    side, far = (1.0, high) if gap(near) > 0 else (-1.0, low)
    step = side * 0.02 * min(near - low, high - near)
    while step and side * (far - near - step) > 0:
        if side * gap(near + step) <= 0:
            far = near + step
            break
        near, step = near + step, 4 * step
    root: float = scipy.optimize.brentq(gap, near, far, xtol=1e-15 * abs(far - near), rtol=1e-14)
    return root


def _score(x: int, n: int, y: int, m: int, value: float) -> float:
    return _standardise(x / n - y / m - value, _variance_under_difference(x, n, y, m, value))


def _variance_under_difference(x: int, n: int, y: int, m: int, value: float) -> float:
    if 2 * (x + y) > n + m:
        # Failures are the mirror image, and the cubic is accurate for small rates only.
        x, y, value = n - x, m - y, -value
    rate = _control_rate_under_difference(x, n, y, m, value)
    return _binomial(rate + value, n) + _binomial(rate, m)


def _control_rate_under_difference(x: int, n: int, y: int, m: int, value: float) -> float:
    """Most likely control rate when rate_t - rate_c = value: the middle root of a cubic.

    The trigonometric formula for that root loses every digit of rare conversions, where it nearly meets the lowest.
    The highest root is exact; dividing it out leaves a quadratic whose larger root is wanted.
    """
    if abs(value) >= 1:
        return max(0.0, -value)
    l3 = float(n + m)
    l2 = (n + 2 * m) * value - l3 - x - y
    l1 = (m * value - l3 - 2 * y) * value + x + y
    l0 = y * value * (1 - value)
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


class _Exact:
    """P(z(X, Y; d) >= z observed), in the worst case over the rates with difference d that the data leave."""

    def __init__(self, treatment: Conversions, control: Conversions) -> None:
        self.treatment, self.control = treatment, control
        self.estimate = treatment.rate - control.rate
        self.rates, self.other_rates = _clopper_pearson(treatment), _clopper_pearson(control)
        self.x, self.y = _support(treatment.n, self.rates), _support(control.n, self.other_rates)
        if self.x.size + self.y.size > _WIDEST:
            raise ValueError(f"{treatment} and {control} are too many conversions for an exact test")
        self.log_choose = _log_choose(treatment.n, self.x), _log_choose(control.n, self.y)

    def tail(self, value: float) -> float:
        """The p value of H0: rate_t - rate_c <= value."""
        low = max(self.other_rates[0], self.rates[0] - value)
        high = min(self.other_rates[1], self.rates[1] - value)
        if low > high:
            return 1.0 if value > self.estimate else _NUISANCE
        last = self._boundary(value)
        # Equal steps of the variance-stabilised rate, then closer around the best.
        low, high = math.asin(math.sqrt(low)), math.asin(math.sqrt(high))
        best = 0.0
        for _ in range(_ZOOMS):
            angles = np.linspace(low, high, _RATES)
            tails = self._probability(last, np.sin(angles) ** 2, value)
            at = int(tails.argmax())
            best = max(best, float(tails[at]))
            low, high = angles[max(at - 1, 0)], angles[min(at + 1, _RATES - 1)]
        return min(1.0, best + _NUISANCE)

    def lower(self, alpha: float) -> float:
        """Smallest difference whose p value is above alpha."""
        low, high = -1.0, self.estimate
        # Zero is one of the points asked, so that the limit and the test of equal rates cannot contradict.
        if self.estimate > 0:
            low, high = (0.0, self.estimate) if self.tail(0.0) <= alpha else (-1.0, 0.0)
        while high - low > 1e-6 * max(self.estimate - high, 1e-6 * (self.estimate - low)):
            middle = (low + high) / 2
            low, high = (low, middle) if self.tail(middle) > alpha else (middle, high)
        return low

    def _boundary(self, value: float) -> npt.NDArray[np.int64]:
        """For each x the number of y in `self.y` with z(x, y; value) >= z observed: z rises in x and falls in y."""
        n, m = self.treatment.n, self.control.n
        observed = _score(self.treatment.successes, n, self.control.successes, m, value)
        bar = observed - 1e-9 * (1 + abs(observed))
        y = self.y.tolist()
        last = np.empty(self.x.size, dtype=np.int64)
        count = 0
        for i, x in enumerate(self.x.tolist()):
            while count < len(y) and _score(x, n, y[count], m, value) >= bar:
                count += 1
            last[i] = count
        return last

    def _probability(self, last: npt.NDArray[np.int64], rates: Floats, value: float) -> Floats:
        """P(Y among the first `last` | X) summed over X, for each control rate."""
        first = _mass(self.x, self.treatment.n, np.clip(rates + value, 0.0, 1.0), self.log_choose[0])
        second = _mass(self.y, self.control.n, rates, self.log_choose[1])
        below = np.concatenate([np.zeros((rates.size, 1)), second.cumsum(axis=1)], axis=1)
        total: Floats = (first * below[:, last]).sum(axis=1)
        return total


def _clopper_pearson(arm: Conversions) -> tuple[float, float]:
    """The rates left by the data at a confidence of 1 - _NUISANCE / 2."""
    x, n = arm.successes, arm.n
    low = float(betaincinv(x, n - x + 1, _NUISANCE / 4)) if x else 0.0
    return low, float(betainccinv(x + 1, n - x, _NUISANCE / 4)) if x < n else 1.0


def _support(n: int, rates: tuple[float, float]) -> npt.NDArray[np.int64]:
    """The counts that carry all but 1e-13 of the mass at either end, at any of the rates (Bernstein's inequality)."""

    def spread(rate: float) -> float:
        return 10 + math.sqrt(100 + 60 * n * rate * (1 - rate))

    low, high = rates
    return np.arange(max(0, math.floor(n * low - spread(low))), min(n, math.ceil(n * high + spread(high))) + 1)


def _log_choose(n: int, x: npt.NDArray[np.int64]) -> Floats:
    log: Floats = -np.log(n + 1.0) - betaln(n - x + 1.0, x + 1.0)
    return log


def _mass(x: npt.NDArray[np.int64], n: int, rates: Floats, log_choose: Floats) -> Floats:
    """Binomial probabilities (rates, x)."""
    p = rates[:, None]
    mass: Floats = np.exp(log_choose + xlogy(x, p) + xlog1py(n - x, -p))
    return mass
