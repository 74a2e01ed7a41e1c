"""How well a ranking finds the users who gain from a treatment, on users whom the ranking has not seen.

n users. `priority` or `effect_scores` (n,): larger means treat earlier. `gains` (n,): doubly robust scores of the
treatment less those of the control (`stats.policy_value.doubly_robust`), in the unit of the outcome. Tied users are
treated together: no number depends on the order of the rows. What other programs compute is in `stats.uplift_peers`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from stats.errors import Problem, StatError
from stats.moments import Floats
from stats.policy_value import Estimate, Ints, check_assignment, from_influence

__all__ = [
    "Balance",
    "Bin",
    "Calibration",
    "Curve",
    "Target",
    "Toc",
    "balance",
    "calibration",
    "check_ranking",
    "placebo",
    "qini",
    "rate",
    "rate_influence",
    "toc",
    "uplift_at",
]

Target = Literal["autoc", "qini"]
# Thresholds of the leakage check: a leak of a rare outcome shows only at the top of the scores.
_TAILS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)
# Variance of a count, in squares of its largest term, from which its tail is taken as normal.
_NORMAL = 25.0
_CONSTANT = 1e-9
# Half width, as a share of all users, of the window around a cut in which the local gain is averaged.
_WINDOW = 0.05


@dataclass(frozen=True, slots=True)
class Curve:
    """Gain per user of all when the first `share` of them are treated, against a random order of the same users.

    Arrays (m,) from share 0 to 1; `area` lies between `gain` and `random`, in the unit of the outcome per user.
    """

    share: Floats
    gain: Floats
    random: Floats
    area: float


@dataclass(frozen=True, slots=True)
class Toc:
    """Mean gain of the first `share` of the users less that of all, arrays (m,), with pointwise intervals."""

    share: Floats
    estimate: Floats
    se: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True, slots=True)
class Bin:
    """Users of similar prediction: mean predicted gain and mean realised gain with its interval."""

    n: int
    predicted: float
    realised: float
    se: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`bins` from the smallest predictions up; `slope` of gains on predictions: 1 calibrated, 0 no information.

    Its p value is that of 0; predictions are too bold where `slope.upper` is below 1.
    """

    bins: list[Bin]
    slope: Estimate


@dataclass(frozen=True, slots=True)
class Balance:
    """Does the score know the arm? `p_value` is corrected over arms and kinds of difference; `arm` differs most.

    Per arm (K,): `auc`, the chance that a user of the arm scores above one of the other arms (0.5: alike), and
    `distance`, the largest gap between the distribution functions of the two (0: alike).
    """

    p_value: float
    arm: int
    auc: Floats
    distance: Floats


def qini(effect_scores: Floats, treated: npt.NDArray[Any], outcome: Floats, weight: Floats | None = None) -> Curve:
    """Qini curve: share(s) (mean outcome of treated - of control users scoring s or more), a point per distinct score.

    Times the share of treated users it is Radcliffe's (2007) count of incremental outcomes per user; its area over the
    random line is the "qini" of `rate` with means in place of doubly robust scores. `weight` (n,) is 1 / probability of
    the user's arm where that differs; shares are then of the weighted users. Until both groups have come the curve is
    the straight line from 0. Raises StatError(not_enough_data) when a group is empty.
    """
    s, t, y = check_ranking(effect_scores, treated, outcome)
    w = np.ones(s.size) if weight is None else np.asarray(weight, dtype=np.float64)
    if w.shape != s.shape or not (np.isfinite(w).all() and (w > 0).all()):
        raise ValueError(f"weight must hold a positive number for each of the {s.size} users")
    order, bounds = _ranked(s)
    w, t, y = w[order], t[order], y[order]
    last = bounds[1:] - 1
    sums = [np.cumsum(each)[last] for each in (w * t, w * ~t, w * t * y, w * ~t * y)]
    both = (sums[0] > 0) & (sums[1] > 0)
    treated_n, control_n, treated_sum, control_sum = (each[both] for each in sums)
    share = np.concatenate([[0.0], (treated_n + control_n) / (treated_n[-1] + control_n[-1])])
    effect = treated_sum / treated_n - control_sum / control_n
    gain = share * np.concatenate([[0.0], effect])
    random = share * effect[-1]
    return Curve(share, gain, random, float(np.trapezoid(gain - random, share)))


def toc(priority: Floats, gains: Floats, shares: npt.ArrayLike | None = None, alpha: float = 0.05) -> Toc:
    """Targeting operator characteristic (Yadlowsky, Fleming, Shah, Brunskill & Wager 2025, JASA 120).

    TOC(q) = mean gain of the first q of the users - mean gain of all, at `shares` in (0, 1] (default: every per cent).
    A group of ties at the cut enters in part, with its mean. Raises StatError(not_enough_data) below two users.
    """
    s, g = _checked(priority, gains)
    q = np.arange(1, 101) / 100 if shares is None else np.atleast_1d(np.asarray(shares, dtype=np.float64))
    order, bounds = _ranked(s)
    sorted_gains = g[order]
    centred = sorted_gains - g.mean()
    rows = []
    for share in q.tolist():
        estimate, influence = _top(sorted_gains, bounds, share)
        if share == 1:
            rows.append((0.0, 0.0, 0.0, 0.0))
            continue
        found = from_influence(estimate - float(g.mean()), influence - centred, alpha)
        rows.append((found.estimate, found.se, found.lower, found.upper))
    return Toc(q, *np.array(rows).T)


def uplift_at(priority: Floats, gains: Floats, share: float, alpha: float = 0.05) -> Estimate:
    """Mean gain of the first `share` in (0, 1] of the users, for a cut at that share of the population.

    The cut is estimated too: its influence is -(gain at the cut - mean gain above it) (1{above} - share) / share, the
    gain at the cut being the mean of a tenth of the users around it, or of those tied there. Raises as `toc`.
    """
    s, g = _checked(priority, gains)
    order, bounds = _ranked(s)
    return from_influence(*_top(g[order], bounds, share), alpha)


def rate(
    priority: Floats, gains: Floats, target: Target = "autoc", fold: Ints | None = None, alpha: float = 0.05
) -> Estimate:
    """Rank-weighted average treatment effect: the area under the TOC (Yadlowsky et al. 2025), 0 for a random ranking.

    "autoc": mean of TOC(k/n) over k = 1 ... n, for gains that sit with a few users; "qini": mean of k/n TOC(k/n), for
    gains spread wide. The point estimates are those of grf. The interval is normal with the influence function's error
    (`rate_influence`), no bootstrap. With `fold` (n,) users are ranked within their fold only, as is right for
    predictions of one model per fold: across folds, models that saw few gains rank the folds that hold many.
    Raises StatError(zero_variance) where all priorities are tied or the gains are constant, StatError(not_enough_data).
    """
    return from_influence(*rate_influence(priority, gains, target, fold), alpha)


def rate_influence(
    priority: Floats, gains: Floats, target: Target = "autoc", fold: Ints | None = None
) -> tuple[float, Floats]:
    """The RATE and its centred influence values (n,), for comparisons of rankings on the same users (paired, max-T).

    RATE = E[gain J(R)] with R the rank from the top in (0, 1), J = -log R - 1 ("autoc") or 1/2 - R ("qini"); hence
    psi = gain J(R) + E[gain' J'(R') 1{R' > R}], centred: the second term is for the ranks, which are estimated too.
    """
    if target not in ("autoc", "qini"):
        raise ValueError(f"target must be 'autoc' or 'qini', got {target!r}")
    s, g = _checked(priority, gains)
    if fold is None:
        return _rate(s, g, target)
    f = np.asarray(fold)
    if f.shape != s.shape:
        raise ValueError(f"fold must hold one fold for each of the {s.size} users, got shape {f.shape}")
    estimate, influence = 0.0, np.empty(s.size)
    for each in np.unique(f):
        rows = np.flatnonzero(f == each)
        within, influence[rows] = _rate(s[rows], g[rows], target)
        estimate += within * rows.size / s.size
    return estimate, influence


def placebo(gains: Floats, rng: np.random.Generator, draws: int = 200, target: Target = "autoc") -> Floats:
    """The RATE (draws,) of random rankings of the same users: mean 0, and the spread that chance alone gives."""
    _, g = _checked(gains, gains)
    weights = _rank_weights(g.size, target)[0]
    centred = g - g.mean()
    return np.array([weights @ rng.permutation(centred) for _ in range(draws)]) / g.size


def calibration(predicted: Floats, gains: Floats, bins: int = 10, alpha: float = 0.05) -> Calibration:
    """Are the predicted gains (n,) the realised ones? Means over `bins` of equal size, and the best linear predictor.

    The slope is that of gains on predictions with its HC3 error (Chernozhukov, Demirer, Duflo & Fernandez-Val 2018,
    best linear predictor, on doubly robust scores). Equal predictions stay in one bin, so there may be fewer bins.
    Raises StatError(zero_variance) when predictions, or the gains of a bin, are constant.
    """
    s, g = _checked(predicted, gains)
    if not 1 <= bins <= s.size // 2:
        raise ValueError(f"bins must be at least 1 and leave two users in each: {bins} for {s.size} users")
    n = s.size
    deviation = s - s.mean()
    square = float(deviation @ deviation)
    if s.min() == s.max():
        raise StatError(Problem.ZERO_VARIANCE, n=n)
    slope = float(deviation @ g) / square
    residual = g - g.mean() - slope * deviation
    leverage = np.minimum(1 / n + deviation**2 / square, 1 - 1e-12)
    influence = n * deviation * residual / (1 - leverage) / square * np.sqrt((n - 1) / n)
    order, bounds = _ranked(-s)
    middle = (bounds[:-1] + bounds[1:]) / 2 / n
    bin_of = np.repeat(np.minimum((middle * bins).astype(np.int64), bins - 1), np.diff(bounds))
    found = []
    for each in np.unique(bin_of):
        rows = order[bin_of == each]
        mean = float(g[rows].mean())
        realised = from_influence(mean, g[rows] - mean, alpha)
        found.append(Bin(rows.size, float(s[rows].mean()), mean, realised.se, realised.lower, realised.upper))
    return Calibration(found, from_influence(slope, influence, alpha))


def balance(score: Floats, arm: Ints, propensity: Floats) -> Balance:
    """Leakage check: a score made of what was known before the assignment has the same distribution in every arm.

    For each arm and several functions f of the score's rank (the rank, its distance from the middle, and whether it is
    among the top or bottom 1, 2, 5, 10, 25, 50 %): z of sum (1{arm} - e) (f - fbar). Its variance
    sum e (1 - e) (f - fbar)^2 is known from the design, so unequal probabilities are no obstacle; fbar is such that the
    sizes of the arms do not count. p is the smallest, Bonferroni-corrected. `auc` and `distance` weigh users by 1 / e.
    Predictions for the users a model was fitted on leak as well. Raises StatError(zero_variance) for a constant score,
    StatError(not_enough_data) when the users are too few for any of the functions.
    """
    s, a = np.asarray(score, dtype=np.float64), np.asarray(arm)
    a, e = check_assignment(a, propensity)
    if s.shape != a.shape or not np.isfinite(s).all():
        raise ValueError(f"score must hold a finite number for each of the {a.size} users, got shape {s.shape}")
    if s.size < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=s.size)
    if s.min() == s.max():
        raise StatError(Problem.ZERO_VARIANCE, n=s.size)
    n, k = e.shape
    order, bounds = _ranked(s)
    rank = np.repeat((bounds[:-1] + bounds[1:]) / 2 / n, np.diff(bounds))
    a, e = a[order], e[order]
    functions = np.array([rank, np.abs(rank - 0.5), *(rank < tail for tail in _TAILS)], dtype=np.float64)
    # Two arms mirror each other.
    tested = [1] if k == 2 else list(range(k))
    scored: list[tuple[float, int]] = []
    for each in tested:
        design = e[:, each] * (1 - e[:, each])
        centred = functions - (functions @ design / design.sum())[:, None]
        variance = centred**2 @ design
        largest = (centred**2).max(axis=1)
        # Ties may make a function constant, up to rounding.
        usable = (variance >= _NORMAL * largest) & (largest > _CONSTANT)
        z = (centred @ ((a == each) - e[:, each]))[usable] / np.sqrt(variance[usable])
        scored += [(2 * float(ndtr(-abs(value))), each) for value in z.tolist()]
    if not scored:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=n)
    smallest, worst = min(scored)
    separation = [_separation(bounds, a == each, e[:, each]) for each in range(k)]
    return Balance(min(1.0, len(scored) * smallest), worst, *np.array(separation).T)


def check_ranking(
    effect_scores: Floats, treated: npt.NDArray[Any], outcome: Floats
) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
    """Scores, treated and outcome (n,) of users of a treatment and its control, or a ValueError."""
    s, y = np.asarray(effect_scores, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    t = np.asarray(treated)
    if s.ndim != 1 or s.shape != t.shape or s.shape != y.shape:
        raise ValueError(f"scores, treated and outcome must be of one shape (n,), got {s.shape}, {t.shape}, {y.shape}")
    if not (np.isfinite(s).all() and np.isfinite(y).all()):
        raise ValueError("scores and outcome must be finite")
    if not ((t == 0) | (t == 1)).all():
        raise ValueError("treated must be 0 or 1 (one treatment against the control; choose its users and theirs)")
    t = t.astype(np.bool_)
    if not 0 < t.sum() < t.size:
        raise StatError(Problem.NOT_ENOUGH_DATA, treated=int(t.sum()), control=int((~t).sum()))
    return s, t, y


def _checked(priority: Floats, gains: Floats) -> tuple[Floats, Floats]:
    s, g = np.asarray(priority, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    if s.ndim != 1 or s.shape != g.shape or not (np.isfinite(s).all() and np.isfinite(g).all()):
        raise ValueError(f"priorities and gains must be finite and of one shape (n,), got {s.shape} and {g.shape}")
    if s.size < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=s.size)
    return s, g


def _ranked(priority: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Users in descending priority, and the positions where groups of ties begin, with n at the end."""
    order = np.argsort(-priority, kind="stable")
    change = np.flatnonzero(np.diff(priority[order])) + 1
    return order, np.concatenate([[0], change, [priority.size]])


def _tie_mean(values: Floats, bounds: npt.NDArray[np.intp]) -> Floats:
    counts = np.diff(bounds)
    return values if counts.size == values.size else np.repeat(np.add.reduceat(values, bounds[:-1]) / counts, counts)


def _top(gains: Floats, bounds: npt.NDArray[np.intp], share: float) -> tuple[float, Floats]:
    """Mean of the first `share` of the sorted gains, and its influence values."""
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1]: {share}")
    n = gains.size
    counts = np.diff(bounds)
    treated = np.repeat(np.clip((share * n - bounds[:-1]) / counts, 0.0, 1.0), counts)
    cut = min(int(share * n), n - 1)
    group = int(np.searchsorted(bounds, cut, side="right")) - 1
    low, high = int(bounds[group]), int(bounds[group + 1])
    half = max(1, int(_WINDOW * n))
    if high - low < 2 * half:
        low, high = max(0, cut - half), min(n, cut + half)
    at_cut = gains[low:high].mean()
    influence = treated * (gains - at_cut) / share
    mean = float(influence.mean())
    return mean + float(at_cut), influence - mean


def _rank_weights(n: int, target: Target) -> tuple[Floats, Floats]:
    """J at each position from the top, and its fall to the next position."""
    fall = 1 / np.arange(1.0, n + 1) if target == "autoc" else np.full(n, 1 / n)
    tail = _tail_sums(fall)
    return tail - tail.mean(), fall


def _tail_sums(values: Floats) -> Floats:
    return np.cumsum(values[::-1])[::-1]


def _rate(priority: Floats, gains: Floats, target: Target) -> tuple[float, Floats]:
    n = gains.size
    order, bounds = _ranked(priority)
    # Nothing but rounding would be left.
    if bounds.size == 2 or gains.min() == gains.max():
        return 0.0, np.zeros(n)
    # Ranks then do not answer to a constant added to all gains.
    g = gains[order] - gains.mean()
    weights, fall = _rank_weights(n, target)
    weights = _tie_mean(weights, bounds)
    falls = _tie_mean(g, bounds) * fall
    # Only of those below: a user's own term would cost the error of a useless ranking 4 % of itself at 1,000 users.
    moved = _tie_mean(falls - _tail_sums(falls), bounds)
    influence = np.empty(n)
    influence[order] = weights * g + moved
    return float(weights @ g) / n, influence - influence.mean()


def _separation(
    bounds: npt.NDArray[np.intp], inside: npt.NDArray[np.bool_], probability: Floats
) -> tuple[float, float]:
    """AUC and Kolmogorov-Smirnov distance of an arm against the rest, users in descending score."""
    starts = bounds[:-1]
    arm = np.add.reduceat(np.where(inside, 1 / probability, 0.0), starts)
    rest = np.add.reduceat(np.where(inside, 0.0, 1 / (1 - probability)), starts)
    if arm.sum() == 0 or rest.sum() == 0:
        raise StatError(Problem.NOT_ENOUGH_DATA, users=int(inside.sum()), others=int((~inside).sum()))
    arm, rest = arm / arm.sum(), rest / rest.sum()
    below = 1 - np.cumsum(rest) + rest / 2
    return float(arm @ below), float(np.abs(np.cumsum(arm) - np.cumsum(rest)).max())
