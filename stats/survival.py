"""Time to an event when some users are still waiting: Kaplan-Meier conversion, restricted mean, log-rank.

A user who was last seen without the event is censored there. All of it assumes that how long a user could be watched
says nothing about when he would convert: compare within strata of entry when the allocation changed over time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from stats.arms import ArmVector
from stats.contrasts import ChiSquare, quadratic_form
from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["Curve", "Lifetimes", "conversion", "curve", "logrank", "restricted_mean"]

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Lifetimes:
    """Users of one arm by the time they were last seen: `times` (T,) >= 0, finite, ascending, in any unit.

    `events` (T,) counts the users whose event came then, `censored` (T,) those without event so far. Every time has a
    user. At equal times the event comes first: whoever is censored at t was at risk at t.
    """

    times: Floats
    events: Counts
    censored: Counts

    def __post_init__(self) -> None:
        if not self.times.shape == self.events.shape == self.censored.shape == (self.times.size,):
            raise ValueError("times, events and censored must all be (T,)")
        if not np.isfinite(self.times).all() or (self.times < 0).any() or (np.diff(self.times) <= 0).any():
            raise ValueError("times must be finite, not negative and ascending")
        if not (np.issubdtype(self.events.dtype, np.integer) and np.issubdtype(self.censored.dtype, np.integer)):
            raise ValueError("events and censored must be counts")
        if (self.events < 0).any() or (self.censored < 0).any() or (self.events + self.censored == 0).any():
            raise ValueError("events and censored must not be negative, nor both be zero")

    @classmethod
    def from_rows(cls, durations: npt.ArrayLike, happened: npt.ArrayLike) -> Self:
        """One row per user: how long he was watched (n,), and whether that ended with the event (n,) of booleans."""
        seen = np.asarray(durations, dtype=np.float64)
        event = np.asarray(happened)
        if seen.ndim != 1 or event.shape != seen.shape:
            raise ValueError(f"durations {seen.shape} and happened {event.shape} must both be (n,)")
        if event.size and event.dtype != np.bool_:
            raise ValueError("happened must be booleans")
        times, index = np.unique(seen, return_inverse=True)
        users = np.bincount(index, minlength=times.size)
        events = np.bincount(index[event.astype(np.bool_)], minlength=times.size)
        return cls(times, events, users - events)

    def __add__(self, other: Self) -> Self:
        """The users of both."""
        times, index = np.unique(np.concatenate([self.times, other.times]), return_inverse=True)
        events, censored = np.zeros((2, times.size), dtype=np.int64)
        for part, at in ((self, index[: self.times.size]), (other, index[self.times.size :])):
            events[at] += part.events
            censored[at] += part.censored
        return type(self)(times, events, censored)

    @property
    def n(self) -> int:
        """Users."""
        return int(self.events.sum() + self.censored.sum())

    @property
    def at_risk(self) -> Counts:
        """Users (T,) last seen at this time or later."""
        return np.cumsum((self.events + self.censored)[::-1])[::-1]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Share without the event from each of `times` (P,) on, with its pointwise interval.

    One point per time with events and one where the last user was last seen. Before the first the share is 1.
    """

    times: Floats
    survival: Floats
    lower: Floats
    upper: Floats


def conversion(arms: Sequence[Lifetimes], at: float) -> ArmVector:
    """Share of users who have converted by the time `at` > 0, one Lifetimes per arm.

    1 - S(at) of Kaplan & Meier (1958), variance S^2 sum d / (Y (Y - d)) (Greenwood 1926), d events among Y at risk;
    normal reference. Without censoring before `at` that is the plain share p and p (1 - p) / n. An arm without any
    event has variance 0, as in `means`; distrust fewer than about ten events, or ten users still watched at `at`.
    Raises StatError(not_enough_data) for an arm of fewer than two users, StatError(horizon_not_reached) for an arm
    with users still without the event of whom nobody was watched until `at`.
    """
    fits = _watched_until(arms, at)
    past = [fit.times <= at for fit in fits]
    survival = np.array([fit.survival[by].min(initial=1.0) for fit, by in zip(fits, past, strict=True)])
    spread = np.array([fit.spread[by].sum() for fit, by in zip(fits, past, strict=True)])
    return _independent(arms, 1 - survival, survival**2 * spread)


def restricted_mean(arms: Sequence[Lifetimes], horizon: float) -> ArmVector:
    """Mean time until the event, counted up to `horizon` > 0: the area under the Kaplan-Meier curve (RMST).

    Variance sum A^2 d / (Y (Y - d)), A the area between the event and the horizon (Klein & Moeschberger 2003, 4.5.2),
    without their optional factor D / (D - 1) for D events. Without censoring before the horizon that is the mean of
    min(T, horizon) and its variance with divisor n. Less is faster. Raises as `conversion`.
    """
    means, variances = [], []
    for fit in _watched_until(arms, horizon):
        edges = np.minimum(np.append(fit.times, horizon), horizon)
        steps = fit.survival * np.diff(edges)
        areas = np.cumsum(steps[::-1])[::-1]
        means.append(edges[0] + steps.sum())
        variances.append(areas**2 @ fit.spread)
    return _independent(arms, np.array(means), np.array(variances))


def curve(arm: Lifetimes, alpha: float) -> Curve:
    """The Kaplan-Meier curve with pointwise intervals of level 1 - `alpha`, symmetric in log(-log S).

    Kalbfleisch & Prentice (2002), 1.4. The transformation has no interval once nobody is left: there the lower limit
    is 0 and the upper one stays, since a survival curve cannot rise. Not a band: it holds for one time chosen
    beforehand. No points for an arm without events.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    fit = _fit(arm)
    log = np.log(fit.survival, where=fit.survival > 0, out=np.full(fit.times.size, -np.inf))
    stretch = np.exp(-ndtri(alpha / 2) * np.sqrt(np.cumsum(fit.spread)) / -log)
    points = [fit.times, fit.survival, np.exp(log * stretch), np.exp(log / stretch)]
    if fit.survival.min(initial=1.0) == 0:
        points[3][-1] = points[3][-2] if fit.times.size > 1 else 1.0
    elif fit.times.size and fit.times[-1] < arm.times[-1]:
        points = [np.append(values, values[-1]) for values in points]
        points[0][-1] = arm.times[-1]
    return Curve(*points)


def logrank(strata: Sequence[Sequence[Lifetimes]]) -> ChiSquare:
    """Are the curves of K arms the same in every stratum? `strata` holds one Lifetimes per arm, in the same order.

    (O - E)' V^- (O - E) with O - E and the hypergeometric V summed over event times and strata (Mantel 1966; Peto &
    Peto 1972), chi-square with rank(V) degrees of freedom: K - 1 where all arms were ever at risk together. Arms may
    be empty in a stratum. Most powerful for proportional hazards, blind to curves that cross: then look at
    `restricted_mean`. Raises StatError(zero_variance) when no event came while two arms were at risk.
    """
    if not strata or len({len(arms) for arms in strata}) > 1:
        raise ValueError("every stratum must hold the same arms")
    excess = np.zeros(len(strata[0]))
    covariance = np.zeros((excess.size, excess.size))
    for arms in strata:
        times = np.unique(np.concatenate([arm.times[arm.events > 0] for arm in arms]))
        events = np.zeros((excess.size, times.size))
        at_risk = np.zeros((excess.size, times.size))
        for row, arm in enumerate(arms):
            happened = arm.events > 0
            events[row, np.searchsorted(times, arm.times[happened])] = arm.events[happened]
            at_risk[row] = np.append(arm.at_risk, 0)[np.searchsorted(arm.times, times)]
        total, everyone = events.sum(axis=0), at_risk.sum(axis=0)
        shares = at_risk / everyone
        excess += (events - total * shares).sum(axis=1)
        weights = total * (everyone - total) / np.maximum(everyone - 1, 1)
        covariance += np.diag(shares @ weights) - (shares * weights) @ shares.T
    test = quadratic_form(excess, covariance)
    if test is None:
        raise StatError(Problem.ZERO_VARIANCE)
    return test


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Times with events, the Kaplan-Meier curve from each on, and d / (Y (Y - d)), 0 where nobody is left."""

    times: Floats
    survival: Floats
    spread: Floats


def _fit(arm: Lifetimes) -> _Fit:
    happened = arm.events > 0
    events = arm.events[happened].astype(np.float64)
    at_risk = arm.at_risk[happened].astype(np.float64)
    left = at_risk - events
    spread = np.divide(events, at_risk * left, where=left > 0, out=np.zeros(events.size))
    return _Fit(arm.times[happened], np.cumprod(left / at_risk, dtype=np.float64), spread)


def _watched_until(arms: Sequence[Lifetimes], horizon: float) -> list[_Fit]:
    if not 0 < horizon < np.inf:
        raise ValueError(f"the horizon must be positive and finite: {horizon}")
    fits = []
    for index, arm in enumerate(arms):
        if arm.n < 2:
            raise StatError(Problem.NOT_ENOUGH_DATA, arm=index, n=arm.n, needed=2)
        if arm.times[-1] < horizon and arm.censored[-1] > 0:
            raise StatError(Problem.HORIZON_NOT_REACHED, arm=index, horizon=horizon, reached=float(arm.times[-1]))
        fits.append(_fit(arm))
    return fits


def _independent(arms: Sequence[Lifetimes], mean: Floats, variance: Floats) -> ArmVector:
    n = np.array([arm.n for arm in arms], dtype=np.int64)
    return ArmVector(n, mean, np.diag(variance), np.zeros(n.size))
