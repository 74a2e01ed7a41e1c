"""Group-sequential designs: a few looks at a test whose total error is spent look by look.

The score S_k = z_k sqrt(t_k) moves by independent normal increments of variance t_k - t_(k-1) (Jennison & Turnbull
2000, ch. 3 and 19); its density within the bounds follows look by look by quadrature (Armitage, McPherson & Rowe 1969).
`drift` is the expectation of z at t = 1, the effect in standard errors of the whole sample.

t_k = I_k / I_max is the fraction of the planned information, not of days. Take I = 1 / (1/n_T + 1/n_C) of mature users:
1 / se^2 itself may fall when the estimated variance rises. Fractions are increasing tuples of which only the last may
reach 1. Looks must not be timed by the effect seen.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import scipy.interpolate
import scipy.optimize
import scipy.special

from stats.moments import Floats

__all__ = [
    "Crossing",
    "Sides",
    "Spending",
    "Stagewise",
    "bounds",
    "check",
    "crossing",
    "futility",
    "inflation",
    "required_drift",
    "sequential_p",
    "stagewise",
]

Sides = Literal[1, 2]

# Looks nearer than this share of the information add nothing but nodes: count them as one.
_CLOSEST: Final = 1e-4
# Beyond this many standard errors the normal density is below the smallest double.
_END: Final = 37.5
# So many standard errors beyond the outermost path a probability is above exp(_SMALLEST_LOG) and above zero.
_SEEN: Final = 30.0
# Paths below this many standard errors never come back up.
_LOST: Final = 9.0
# Increments below exp(this) are bounded without regard to earlier looks, which errs to the safe side.
_SMALLEST_LOG: Final = -400.0
# A panel of 16 Gauss-Legendre nodes may span this many standard deviations of the narrowest factor of the integrand.
_PANEL: Final = 6.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True, slots=True)
class Spending:
    """How much of the level of one side may be spent until information fraction t (Lan & DeMets 1983).

    obrien_fleming: 2 - 2 Phi(z_(alpha/2) / sqrt t); pocock: alpha log(1 + (e - 1) t); hwang_shih_decani (1990):
    alpha (1 - e^(-parameter t)) / (1 - e^(-parameter)), alpha t for 0; power: alpha t^parameter, parameter > 0.
    A two-sided test spends alpha/2 on each side, as gsDesign, rpact and ldbounds do; spending alpha in one gives
    other bounds.
    """

    name: Literal["obrien_fleming", "pocock", "hwang_shih_decani", "power"]
    parameter: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ("obrien_fleming", "pocock", "hwang_shih_decani", "power"):
            raise ValueError(f"unknown spending function: {self.name}")
        if (self.parameter is not None) != (self.name in ("hwang_shih_decani", "power")):
            raise ValueError("hwang_shih_decani and power take a parameter, the others none")
        if self.parameter is not None and not (math.isfinite(self.parameter) and abs(self.parameter) <= 20):
            raise ValueError(f"parameter must be within 20 of zero: {self.parameter}")
        if self.name == "power" and not (self.parameter or 0) > 0:
            raise ValueError(f"the power must be positive: {self.parameter}")

    def spent(self, t: float, alpha: float) -> float:
        """Of `alpha`, (0, 1), of one side, the part spent until `t` > 0; all of it from t = 1."""
        return math.exp(self.log_spent(t, math.log(alpha)))

    def log_spent(self, t: float, log_alpha: float) -> float:
        """Logarithm of `spent`, also where that is below the smallest double."""
        if t >= 1:
            return log_alpha
        if self.name == "obrien_fleming":
            quantile = scipy.special.ndtri_exp(log_alpha - math.log(2))
            return math.log(2) + float(scipy.special.log_ndtr(quantile / math.sqrt(t)))
        if self.name == "pocock":
            return log_alpha + math.log(math.log1p((math.e - 1) * t))
        rate = self.parameter or 0.0
        if self.name == "power":
            return log_alpha + rate * math.log(t)
        return log_alpha + math.log(math.expm1(-rate * t) / math.expm1(-rate) if rate else t)


@dataclass(frozen=True, slots=True, eq=False)
class Crossing:
    """Probability of leaving first at each look (K,), upward and downward, and the information used on average."""

    upper: Floats
    lower: Floats
    expected_information: float

    @property
    def rejected(self) -> float:
        """Probability of crossing either bound, the power of a test without futility."""
        return float(self.upper.sum() + self.lower.sum())


@dataclass(frozen=True, slots=True)
class Stagewise:
    """Median-unbiased estimate, its interval, and the two-sided p that agrees with the interval."""

    estimate: float
    lower: float
    upper: float
    p_value: float


def check(information: tuple[float, ...]) -> None:
    """Raises ValueError unless the fractions of the looks grow, and only the last may reach 1."""
    times = (0.0, *information)
    if len(times) == 1 or not math.isfinite(times[-1]) or (len(times) > 2 and times[-2] >= 1):
        raise ValueError(f"only the last information fraction may reach 1: {information}")
    if not all(b - a >= _CLOSEST * times[-1] for a, b in pairwise(times)):
        raise ValueError(f"information fractions must grow by {_CLOSEST} at least: {information}")


def bounds(
    information: tuple[float, ...], alpha: float, spending: Spending, *, sides: Sides = 2, final: bool = False
) -> Floats:
    """Critical value of |z| (two-sided) or z (one-sided) at each look (K,).

    All that is left of alpha is spent at a last look with t >= 1, whose realised information counts (over-running),
    and at one that is `final` before that (under-running: it ended early, but not because of its effect).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    check(information)
    return np.array(_bounds(information, math.log(alpha / sides), spending, sides, final))


def crossing(information: tuple[float, ...], upper: Floats, drift: float, lower: Floats | None = None) -> Crossing:
    """What happens under `drift` within the bounds `upper` (K,) and `lower` (K,) of z.

    `lower` None is a two-sided test, -upper; -inf is a one-sided test without futility.
    """
    check(information)
    low = -upper if lower is None else lower
    walks = _walks(information, tuple(upper.tolist()), tuple(low.tolist()))
    roots = np.sqrt(information)
    up = np.array([w.above(t, c, drift) for w, t, c in zip(walks, information, upper * roots, strict=True)])
    down = np.array([w.below(t, c, drift) for w, t, c in zip(walks, information, low * roots, strict=True)])
    going = 1 - np.concatenate([[0.0], np.cumsum(up + down)[:-1]])
    return Crossing(up, down, float(np.diff(information, prepend=0.0) @ going))


def required_drift(information: tuple[float, ...], upper: Floats, power: float, lower: Floats | None = None) -> float:
    """The positive drift under which an upper bound is crossed with probability `power`; `lower` as in `crossing`."""

    def excess(drift: float) -> float:
        return float(crossing(information, upper, drift, lower).upper.sum()) - power

    if not (power < 1 and excess(0.0) < 0):
        raise ValueError(f"power must be between the level and 1: {power}")
    return _root(excess)


def inflation(
    information: tuple[float, ...], alpha: float, power: float, spending: Spending, *, sides: Sides = 2
) -> float:
    """Users needed at most, relative to a single look of the same level and power."""

    def needed(times: tuple[float, ...]) -> float:
        upper = bounds(times, alpha, spending, sides=sides)
        return required_drift(times, upper, power, None if sides == 2 else np.full(upper.size, -np.inf))

    return (needed(information) / needed((1.0,))) ** 2


def futility(information: tuple[float, ...], upper: Floats, drift: float, beta: float, spending: Spending) -> Floats:
    """Bounds of z (K,) below which it is hopeless: `beta` is spent on missing an effect of size `drift` > 0.

    Non-binding: the efficacy bounds `upper` (K,) were made without them, so going on below one costs no level. The
    last is the efficacy bound, where `drift` decides how much beta is left; what was spent before is `beta` at most
    (Pampallona, Tsiatis & Kim 2001). Raises ValueError when a look would leave nothing between the two bounds.
    """
    check(information)
    if not (0 < beta < 1 and drift > 0):
        raise ValueError(f"beta must be in (0, 1) and drift positive: {beta}, {drift}")
    walk, spent, found = _START, 0.0, []
    for k, t in enumerate(information[:-1]):
        now = spending.spent(t, beta)
        low = walk.lower_bound(t, now - spent, drift)
        if low >= upper[k]:
            raise ValueError(f"the drift is so large that look {k + 1} would always stop: {drift}")
        found.append(low)
        walk, spent = walk.within(t, information[k + 1], low, float(upper[k])), now
    return np.array([*found, upper[-1]])


def sequential_p(
    z: float, information: tuple[float, ...], spending: Spending, *, sides: Sides = 2, final: bool = False
) -> float:
    """The repeated p value at the last of `information`: the smallest alpha whose bound there is met by `z`.

    The dual of the repeated confidence interval z -+ bounds(alpha)[-1] (Jennison & Turnbull 1989). Interpolated with
    a relative error below 1e-6 down to 1e-12 and below 1e-4 further on; beyond 1e-159 it is an upper limit. A p above
    0.998, one-sided above 0.93, is given as 1.
    """
    check(information)
    if math.isnan(z):
        raise ValueError("z must be a number")
    height = abs(z) if sides == 2 else z
    curve = _curve(information, spending, sides, final, _BODY[sides])
    if height > curve.highest:
        curve = _curve(information, spending, sides, final, _TAIL)
    return curve.p_value(height, sides)


def stagewise(z: float, look: int, information: tuple[float, ...], upper: Floats, se: float, alpha: float) -> Stagewise:
    """Inference after a two-sided design with bounds `upper` (K,) stopped at `look` (the first is 1) with `z`.

    Outcomes are ordered by the look at which they crossed, then by z (Tsiatis, Rosner & Mehta 1984; Jennison &
    Turnbull 2000, ch. 8), so looks that were never reached do not matter. After an early stop the estimate z se is
    biased away from zero; the median-unbiased one is not. `se` is the standard error at that look. A look that
    stopped for another reason than its bound counts as the last one.
    """
    if not (math.isfinite(z) and se > 0 and 0 < alpha < 1 and 1 <= look <= len(information)):
        raise ValueError(f"not an outcome: z {z}, look {look}, se {se}, alpha {alpha}")
    check(information)
    times, high = information[:look], upper[:look]
    walks = _walks(times, tuple(high.tolist()), tuple((-high).tolist()))
    roots = np.sqrt(times)
    ends, floors = np.array([*high[:-1], abs(z)]) * roots, np.array([*-high[:-1], abs(z)]) * roots

    def above(drift: float) -> float:
        return sum(walk.above(t, end, drift) for walk, t, end in zip(walks, times, ends, strict=True))

    def below(drift: float) -> float:
        return sum(walk.below(t, end, drift) for walk, t, end in zip(walks, times, floors, strict=True))

    unit = se * math.sqrt(times[-1])
    low = unit * _root(lambda drift: above(drift) - alpha / 2)
    middle = unit * _root(lambda drift: above(drift) - 0.5)
    top = unit * _root(lambda drift: alpha / 2 - below(drift))
    p_value = min(1.0, 2 * above(0.0))
    return Stagewise(middle, low, top, p_value) if z >= 0 else Stagewise(-middle, -top, -low, p_value)


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """The score at one look without drift, where no bound was crossed: mass (n,) at nodes (n,).

    Under a drift the density is exp(drift s - drift^2 t / 2) times as high at every score s.
    """

    time: float
    nodes: Floats
    mass: Floats

    def above(self, time: float, score: float, drift: float = 0.0) -> float:
        """Probability that the score at the later `time` is above `score`."""
        step = time - self.time
        return float(self._tilted(drift) @ scipy.special.ndtr((self.nodes + drift * step - score) / math.sqrt(step)))

    def below(self, time: float, score: float, drift: float = 0.0) -> float:
        """Probability that the score at the later `time` is below `score`."""
        step = time - self.time
        return float(self._tilted(drift) @ scipy.special.ndtr((score - self.nodes - drift * step) / math.sqrt(step)))

    def upper_bound(self, time: float, log_probability: float) -> float:
        """The z with that probability above it, without drift."""
        bound = -float(scipy.special.ndtri_exp(log_probability))
        if log_probability < _SMALLEST_LOG:
            return bound
        return -self._newton(-1.0, time, -bound, log_probability, 0.0)

    def lower_bound(self, time: float, probability: float, drift: float) -> float:
        """The z with that probability below it, under `drift`; inf when there is not so much."""
        if probability >= self.below(time, math.inf, drift):
            return math.inf
        start = float(scipy.special.ndtri(probability)) + drift * math.sqrt(time)
        return self._newton(1.0, time, start, math.log(probability), drift)

    def within(self, time: float, following: float, lower: float, upper: float) -> "_Walk":
        """The walk at the later `time` between two bounds of z, on nodes fine enough for the step to `following`."""
        step, root = time - self.time, math.sqrt(time)
        start, end = max(lower, -(_END if math.isfinite(lower) else _LOST)) * root, min(upper, _END) * root
        narrowest = 1 / math.sqrt(1 / step + 1 / (following - time))
        panels = max(1, math.ceil((end - start) / (_PANEL * narrowest)))
        half = (end - start) / panels / 2
        nodes = ((start + half + 2 * half * np.arange(panels))[:, None] + half * _NODES).ravel()
        return _Walk(time, nodes, np.tile(half * _WEIGHTS, panels) * self._density(time, nodes, self.mass))

    def _tilted(self, drift: float) -> Floats:
        return self.mass * np.exp(drift * self.nodes - drift * drift * self.time / 2) if drift else self.mass

    def _density(self, time: float, scores: Floats, mass: Floats, drift: float = 0.0) -> Floats:
        step = time - self.time
        apart = scores[:, None] - self.nodes - drift * step
        density: Floats = np.exp(apart * apart * (-0.5 / step)) @ mass / math.sqrt(2 * math.pi * step)
        return density

    def _newton(self, sign: float, time: float, bound: float, log_probability: float, drift: float) -> float:
        # Log-concave tails, approached from the side on which Newton's steps cannot overshoot.
        root, step = math.sqrt(time), time - self.time
        tilted = self._tilted(drift)
        tail = self.below if sign > 0 else self.above
        nearest = float((sign * self.nodes).min()) + sign * drift * step
        bound = max(bound, (nearest - _SEEN * math.sqrt(step)) / root)
        for _ in range(100):
            probability = tail(time, sign * bound * root, drift)
            slope = float(self._density(time, np.array([sign * bound * root]), tilted, drift)[0]) * root / probability
            change = (log_probability - math.log(probability)) / slope
            bound += change
            if abs(change) <= 1e-13 * max(1.0, abs(bound)):
                break
        return bound


_START: Final = _Walk(0.0, np.zeros(1), np.ones(1))


@lru_cache(maxsize=1024)
def _bounds(
    times: tuple[float, ...], log_level: float, spending: Spending, sides: Sides, final: bool
) -> tuple[float, ...]:
    walk, found, spent = _START, [], -math.inf
    for k, t in enumerate(times):
        last = k + 1 == len(times)
        now = log_level if last and final else spending.log_spent(t, log_level)
        bound = walk.upper_bound(t, now + math.log1p(-math.exp(spent - now)))
        found.append(bound)
        if not last:
            walk, spent = walk.within(t, times[k + 1], -bound if sides == 2 else -math.inf, bound), now
    return tuple(found)


@lru_cache(maxsize=256)
def _walks(times: tuple[float, ...], upper: tuple[float, ...], lower: tuple[float, ...]) -> tuple[_Walk, ...]:
    if not len(times) == len(upper) == len(lower):
        raise ValueError("information and bounds must have the shape (K,)")
    walks = [_START]
    for k, t in enumerate(times[:-1]):
        walks.append(walks[-1].within(t, times[k + 1], lower[k], upper[k]))
    return tuple(walks)


def _root(increasing: Callable[[float], float]) -> float:
    low, high = -1.0, 1.0
    while increasing(low) > 0:
        low, high = 2 * low, low
    while increasing(high) < 0:
        low, high = high, 2 * high
    return float(scipy.optimize.brentq(increasing, low, high, xtol=1e-12, rtol=1e-12))


# Levels of one side, as normal quantiles, between which the curve of bounds is interpolated.
_BODY: Final = {
    1: tuple((9.5 * np.linspace(0.0, 1.0, 97) ** 2 - 1.5).tolist()),
    2: tuple((8 * np.linspace(0.0, 1.0, 81)[1:] ** 2).tolist()),
}
_TAIL: Final = (*np.arange(7.0, 9.0, 0.25).tolist(), *np.geomspace(9.0, 27.0, 13).tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Curve:
    """The level of one side, as a normal quantile, at which the last bound is c: a spline between two values of c."""

    lowest: float
    highest: float
    quantile: scipy.interpolate.BSpline

    def p_value(self, height: float, sides: Sides) -> float:
        if height < self.lowest:
            return 1.0
        return sides * float(scipy.special.ndtr(-self.quantile(min(height, self.highest))))


@lru_cache(maxsize=256)
def _curve(
    times: tuple[float, ...], spending: Spending, sides: Sides, final: bool, quantiles: tuple[float, ...]
) -> _Curve:
    levels = [float(scipy.special.log_ndtr(-x)) for x in quantiles]
    heights = np.array([_bounds(times, level, spending, sides, final)[-1] for level in levels])
    return _Curve(heights[0], heights[-1], scipy.interpolate.make_interp_spline(heights, quantiles, k=5))
