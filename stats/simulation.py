"""Simulated experiments whose answer is known: users with a history, segments, several tactics, and the exact truth.

One model behind all columns. A user has a taste T ~ N(0, 1), partly that of the household. In each period a latent
Z = l T + sqrt(1 - l^2) noise above a threshold is a conversion, so that rates are exact, and the value of a buyer's
orders is log-normal in another such mixture W. The loading l lets the past predict the future; it is solved for the
correlation asked for. Every expectation follows from E[exp(s W) 1{Z > -c}] = exp(s^2 / 2) Phi(c + s Cov(W, Z)).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from stats.moments import Floats

__all__ = ["Columns", "Scenario", "Segment", "Variant", "factorial", "sample", "truth"]

Columns = dict[str, npt.NDArray[np.generic]]

# Visits beyond the first are Poisson, their log mean is normal with this sd in the taste.
_VISIT_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Variant:
    """What one arm does to a user who receives it. No touches: nobody receives anything.

    `lift` multiplies the chance to convert by 1 + lift, `value_lift` the value of an order; `levels` names the cell of
    a factorial experiment.
    """

    name: str
    lift: float = 0.0
    value_lift: float = 0.0
    touches: int = 1
    levels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the population: its weight, base rate of conversion, and share of users with a history.

    `allocation` (K,) are the weights of the variants (none: equal), `lifts` (K,) replace those of the variants.
    """

    name: str
    share: float = 1.0
    conversion: float = 0.05
    history: float = 1.0
    allocation: tuple[float, ...] = ()
    lifts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A population and what is done to it; the first variant is the control.

    price, spread: mean value an order of any user would have (buyers' is higher where rho > 0), sd of its logarithm.
    repeat, visits: mean number of orders of a buyer beyond the first, mean visits >= 1 of a user.
    rho: correlation of a user's revenue in two untreated periods, over all users; part of it is between segments.
    days, window: users arrive evenly over `days` and convert within `window` days of it, early rather than late: after
        t days a share sqrt(t / window) of those who ever do.
    touch_gain, touch_half: f touches add touch_gain f / (f + touch_half) to the lift: concave.
    unsubscribe: chance that one touch makes the user leave, independently each time.
    reach, warmth: share of users a tactic can reach, and how many times as often as the others they convert anyway.
    household, kinship: users assigned together, and the share of the variance of the taste they have in common.
    """

    variants: tuple[Variant, ...] = (Variant("control", touches=0), Variant("treatment"))
    segments: tuple[Segment, ...] = (Segment("all"),)
    price: float = 50.0
    spread: float = 0.8
    repeat: float = 0.5
    visits: float = 3.0
    rho: float = 0.3
    days: int = 28
    window: float = 7.0
    touch_gain: float = 0.0
    touch_half: float = 2.0
    unsubscribe: float = 0.0
    reach: float = 1.0
    warmth: float = 1.0
    household: int = 1
    kinship: float = 0.5

    def __post_init__(self) -> None:
        k = len(self.variants)
        if k < 1 or any(len(part) not in (0, k) for s in self.segments for part in (s.allocation, s.lifts)):
            raise ValueError("allocation and lifts of a segment need one entry per variant, or none")
        valid = {
            "rho": 0 <= self.rho < 1,
            "reach": 0 < self.reach <= 1,
            "history": all(0 <= segment.history <= 1 for segment in self.segments),
            "unsubscribe": 0 <= self.unsubscribe <= 1,
            "kinship": 0 <= self.kinship <= 1,
            "price and spread": self.price > 0 and self.spread >= 0,
            "repeat, visits and household": self.repeat >= 0 and self.visits >= 1 and self.household >= 1,
            "days and window": self.days >= 1 and self.window > 0,
        }
        if not all(valid.values()):
            raise ValueError(f"out of range: {', '.join(name for name, fine in valid.items() if not fine)}")
        rates = np.concatenate([part.ravel() for part in _rates(self)])
        if not ((rates > 0) & (rates < 1)).all():
            raise ValueError(f"rates of conversion leave (0, 1): {rates.min():.3g} to {rates.max():.3g}")

    @property
    def shares(self) -> Floats:
        """Share of the users in each segment (S,), summing to one."""
        weights = np.array([segment.share for segment in self.segments])
        return np.asarray(weights / weights.sum())


def factorial(
    factors: dict[str, dict[str, float]], interactions: dict[tuple[str, str], float] | None = None
) -> tuple[Variant, ...]:
    """Variants of a full factorial: factor -> level -> lift. The first levels of all factors are the control.

    `interactions` adds to the lift of every cell that has both levels.
    """
    cells = []
    for levels in product(*(tuple(levels) for levels in factors.values())):
        lift = sum(factors[factor][level] for factor, level in zip(factors, levels, strict=True))
        lift += sum(extra for pair, extra in (interactions or {}).items() if set(pair) <= set(levels))
        cells.append(Variant("-".join(levels), lift, levels=tuple(zip(factors, levels, strict=True))))
    return tuple(cells)


def sample(scenario: Scenario, users: int, rng: np.random.Generator) -> Columns:
    """Draw `users` users: columns (users,) by name, no NaN.

    user, household, segment, variant (indices), day of arrival, visits, converted, orders, revenue, has_history,
    orders_before and revenue_before (0 without history), received, unsubscribed, duration and happened: days from
    arrival to the conversion or, where that has not happened, to the end of the experiment at `days`.
    """
    homes = -(-users // scenario.household)
    home = np.arange(users) // scenario.household
    segment = rng.choice(len(scenario.segments), size=homes, p=scenario.shares)
    threshold = np.cumsum(_allocation(scenario), axis=1)
    variant = (rng.random(homes)[:, None] >= threshold[segment, :-1]).sum(axis=1)
    segment, variant = segment[home], variant[home]
    common = scenario.kinship if scenario.household > 1 else 0.0
    taste = np.sqrt(common) * rng.normal(size=homes)[home] + np.sqrt(1 - common) * rng.normal(size=users)

    reachable = rng.random(users) < scenario.reach
    touches = np.array([v.touches for v in scenario.variants])[variant]
    received = reachable & (touches > 0)
    warm, cold, treated = _rates(scenario)
    rate = np.where(reachable, treated[segment, variant], cold[segment])
    untreated = np.where(reachable, warm[segment], cold[segment])
    value = np.where(received, 1 + np.array([v.value_lift for v in scenario.variants])[variant], 1.0)
    loading = _loading(scenario)
    orders, revenue = _period(scenario, rate, taste, loading, rng)
    before, spent = _period(scenario, untreated, taste, loading, rng)
    known = rng.random(users) < np.array([s.history for s in scenario.segments])[segment]
    log_mean = _VISIT_SPREAD * taste - _VISIT_SPREAD**2 / 2
    leave = 1 - (1 - scenario.unsubscribe) ** touches
    day = rng.integers(scenario.days, size=users)
    left = scenario.days - day - rng.random(users)
    delay = scenario.window * (1 - rng.random(users)) ** 2
    happened = (orders > 0) & (delay <= left)
    return {
        "user": np.arange(users),
        "household": home,
        "segment": segment,
        "variant": variant,
        "day": day,
        "visits": 1 + rng.poisson((scenario.visits - 1) * np.exp(log_mean)),
        "converted": orders > 0,
        "orders": orders,
        "revenue": value * revenue,
        "has_history": known,
        "orders_before": known * before,
        "revenue_before": known * spent,
        "received": received,
        "unsubscribed": received & (rng.random(users) < leave),
        "duration": np.where(happened, delay, left),
        "happened": happened,
    }


def truth(scenario: Scenario) -> dict[str, Floats]:
    """Expected value per user of visits, converted, orders, revenue, received, unsubscribed: (S, K) each, closed form.

    It is what the users of a segment would give if all of them were in that arm; for the whole population take
    `scenario.shares @ truth(scenario)[column]` (K,).
    """
    _, cold, treated = _rates(scenario)
    touches = np.array([v.touches for v in scenario.variants])
    reach = np.array([scenario.reach, 1 - scenario.reach])
    rates = np.stack([treated, np.broadcast_to(cold[:, None], treated.shape)])
    orders = 1 + scenario.repeat
    shift = scenario.spread * _loading(scenario) ** 2
    value = np.array([1 + v.value_lift if v.touches else 1.0 for v in scenario.variants])
    spending = orders * scenario.price * scipy.special.ndtr(scipy.special.ndtri(rates) + shift)
    spending[0] *= value
    converted = np.tensordot(reach, rates, 1)
    everyone = np.ones_like(converted)
    return {
        "visits": scenario.visits * everyone,
        "converted": converted,
        "orders": orders * converted,
        "revenue": np.tensordot(reach, spending, 1),
        "received": scenario.reach * (touches > 0) * everyone,
        "unsubscribed": scenario.reach * (1 - (1 - scenario.unsubscribe) ** touches) * everyone,
    }


def _allocation(scenario: Scenario) -> Floats:
    weights = np.array([s.allocation or (1.0,) * len(scenario.variants) for s in scenario.segments])
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _rates(scenario: Scenario) -> tuple[Floats, Floats, Floats]:
    """Untreated rates (S,) of users a tactic can reach, (S,) of the others, and (S, K) of the former as assigned."""
    rate = np.array([s.conversion for s in scenario.segments])
    cold = rate / (scenario.reach * scenario.warmth + 1 - scenario.reach)
    lifts = np.array([s.lifts or tuple(v.lift for v in scenario.variants) for s in scenario.segments])
    touches = np.array([v.touches for v in scenario.variants])
    dose = scenario.touch_gain * touches / (touches + scenario.touch_half)
    warm = scenario.warmth * cold
    return warm, cold, warm[:, None] * np.where(touches > 0, 1 + lifts + dose, 1.0)


def _period(
    scenario: Scenario, rate: Floats, taste: Floats, loading: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], Floats]:
    own = np.sqrt(1 - loading**2)
    buys = loading * taste + own * rng.normal(size=rate.size) > -scipy.special.ndtri(rate)
    orders = np.zeros(rate.size, dtype=np.int64)
    revenue = np.zeros(rate.size)
    count = int(buys.sum())
    orders[buys] = 1 + rng.poisson(scenario.repeat, size=count)
    log_value = loading * taste[buys] + own * rng.normal(size=count)
    value = scenario.price * np.exp(scenario.spread * log_value - scenario.spread**2 / 2)
    revenue[buys] = orders[buys] * value
    return orders, revenue


def _loading(scenario: Scenario) -> float:
    """The loading of the taste at which revenue in two untreated periods has the correlation rho."""
    lowest, highest = _correlation(scenario, 0.0), _correlation(scenario, 1.0)
    if not lowest - 1e-9 <= scenario.rho < highest:
        raise ValueError(f"rho {scenario.rho} cannot be reached: the rates allow {lowest:.3f} to {highest:.3f}")
    if scenario.rho <= lowest:
        return 0.0
    square: float = scipy.optimize.brentq(lambda s: _correlation(scenario, s) - scenario.rho, 0.0, 1.0, xtol=1e-14)
    return float(np.sqrt(square))


def _correlation(scenario: Scenario, square: float) -> float:
    """Correlation of revenue in two untreated periods; `square` = l^2 is the correlation of their latent variables."""
    warm, cold, _ = _rates(scenario)
    rates = np.concatenate([warm, cold])
    weights = np.concatenate([scenario.reach * scenario.shares, (1 - scenario.reach) * scenario.shares])
    cut, s, more = scipy.special.ndtri(rates), scenario.spread, scenario.repeat
    mean = (1 + more) * (weights @ scipy.special.ndtr(cut + s * square))
    second = (more + (1 + more) ** 2) * np.exp(s**2) * (weights @ scipy.special.ndtr(cut + 2 * s * square))
    # P(Z < h, Z' < h) at correlation l^2 by Owen's T (Owen 1956).
    shifted = cut + 2 * s * square
    tail = scipy.special.owens_t(shifted, np.sqrt((1 - square) / (1 + square)))
    both = scipy.special.ndtr(shifted) - 2 * tail
    joint = (1 + more) ** 2 * np.exp(s**2 * square) * (weights @ both)
    return float((joint - mean**2) / (second - mean**2))
