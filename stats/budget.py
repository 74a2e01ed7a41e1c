"""Budgets: which arm each user gets when money or contacts are short, and what the next yuan brings.

Every user has K arms, each with an expected gain over the control and a cost; one arm a user: the multiple-choice
knapsack. Its linear relaxation takes the steps of each user's upper convex hull of (cost, gain) in the order of
gain per cost (Sinha & Zoltners 1979, "The Multiple-Choice Knapsack Problem"), which also gives the solutions of all
budgets at once: the multi-armed Qini curve (Sverdrup, Wu, Athey & Wager 2023, "Qini Curves for Multi-Armed Treatment
Rules"). Gains must come from models that did not see the user's outcome.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.special

from stats.errors import Problem, StatError
from stats.knapsack import ROUNDING, Ints, Path, integer, one_limit, path_of, several_limits, total
from stats.moments import Floats

__all__ = ["Allocation", "SpendCurve", "allocate", "marginal", "spend_curve"]

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """The arm of each user, `policy` (n,), and what it comes to over all n users.

    `gain` before costs; `bound` is the most any allocation (even of fractions of users) could reach of what was
    maximised, `gap` what the one found may lack of it. `price`: objective per unit of cost at the margin,
    `contact_price` per contact, `stock_prices` (K,) per user of each arm; 0 where that limit does not bind.
    """

    policy: Ints
    gain: float
    cost: float
    contacts: int
    objective: float
    bound: float
    price: float
    contact_price: float
    stock_prices: Floats

    @property
    def gap(self) -> float:
        return max(self.bound - self.objective, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class SpendCurve:
    """Totals over all n users along the path of budgets: `spend`, expected `gain`, `contacts`, (P,) each, by spend.

    `price` (P,): gain per unit of the step that comes next, 0 at the end. With doubly robust scores `realised` (P,)
    with the pointwise limits `lower` and `upper`, else None. `users` (P, K): how many get each arm.
    """

    spend: Floats
    gain: Floats
    contacts: Ints
    price: Floats
    realised: Floats | None
    lower: Floats | None
    upper: Floats | None
    users: Ints


def allocate(
    gains: npt.ArrayLike,
    costs: npt.ArrayLike,
    budget: float | None = None,
    contacts: int | None = None,
    allowed: npt.ArrayLike | None = None,
    net: bool = False,
    exact: bool = False,
    stock: npt.ArrayLike | None = None,
) -> Allocation:
    """The arms that gain most in total within `budget` (sum of costs) and `contacts` (users not in arm 0, the control).

    `stock` (K,): at most so many users in each arm, inf where there is no such limit, as for the control.

    `gains` (n, K) against the control, column 0 zeros; `costs` (K,) or (n, K), not negative, the control's 0;
    `allowed` (n, K) bool takes arms from single users (touch caps, consent), the control never. `net` maximises
    gain - cost. No limit: everyone's best arm. An arm that only equals a cheaper one is not taken (but
    by `exact`, which knows no order).

    One limit: greedy along the hull, then branch and bound over the users around the margin; the objective is
    within one user's step of `bound`. Several limits: Dantzig-Wolfe columns for their prices, rounded to whole users.
    In theory the best is within one user's step for each limit of `bound`; what was found may lack more, never more
    than `gap`, which is proven by the prices for every single answer. `exact` solves the integer program (n K up to
    20,000).
    """
    g, c, may = _problem(gains, costs, allowed)
    for name, limit in (("budget", budget), ("contacts", contacts)):
        if limit is not None and not 0 <= limit < math.inf:
            raise ValueError(f"{name} must be finite and not negative: {limit}")
    ceilings = _stock(stock, g.shape[1])
    worth = np.where(may, g - c if net else g, -math.inf)
    arms = np.arange(g.shape[1])
    touch = np.broadcast_to((arms > 0).astype(np.float64), g.shape)
    limits = [(use, float(limit)) for use, limit in ((c, budget), (touch, contacts)) if limit is not None]
    scarce = np.flatnonzero(np.isfinite(ceilings))
    limits += [(np.broadcast_to((arms == k).astype(np.float64), g.shape), float(ceilings[k])) for k in scarce]
    if len(limits) > 1:
        policy, bound, paid = several_limits(worth, limits)
    else:
        policy, bound, single = one_limit(worth, *(limits[0] if limits else (c, math.inf)))
        paid = np.array([single])
    found = iter(paid.tolist())
    price = next(found) if budget is not None or not limits else 0.0
    contact_price = next(found) if contacts is not None else 0.0
    stock_prices = np.zeros(g.shape[1])
    stock_prices[scarce] = list(found)
    if exact:
        policy = integer(worth, limits)
    rows = np.arange(len(g))
    return Allocation(
        policy=policy,
        gain=float(g[rows, policy].sum()),
        cost=float(c[rows, policy].sum()),
        contacts=int((policy > 0).sum()),
        objective=float(worth[rows, policy].sum()),
        bound=bound,
        price=price,
        contact_price=contact_price,
        stock_prices=stock_prices,
    )


def spend_curve(
    gains: npt.ArrayLike,
    costs: npt.ArrayLike,
    points: int | npt.ArrayLike = 101,
    scores: npt.ArrayLike | None = None,
    alpha: float = 0.05,
    allowed: npt.ArrayLike | None = None,
) -> SpendCurve:
    """Gain against spend for all budgets at once; `points` a number of equal steps or the budgets themselves.

    Arguments as `allocate`; a point holds the allocation of the longest prefix of the path that its budget pays. Costs
    of 1 for every arm but the control give the curve over contacts. The path ends where no arm gains any more.

    `scores` (n, K), doubly robust and of other folds than the gains: `realised` = sum_i (score of the arm given -
    score of the control), limits from the influence values psi_i = score difference - price (cost_i - mean cost):
    the last term is the sampling of the margin, as everyone's costs decide who is still paid. Pointwise, for the
    policy of that spend per user in the population the n users came from. Without bias whatever the gains are.
    Raises StatError(not_enough_data) for scores of fewer than two users.
    """
    g, c, may = _problem(gains, costs, allowed)
    path = path_of(np.where(may, g, -math.inf), c)
    spent = np.concatenate([[0.0], path.cost.cumsum()])
    if isinstance(points, int | np.integer):
        if points < 2:
            raise ValueError(f"points must be at least 2: {points}")
        budgets = np.linspace(0, spent[-1], int(points))
    else:
        budgets = np.unique(np.asarray(points, dtype=np.float64))
        if budgets.size == 0 or not (np.isfinite(budgets).all() and (budgets >= 0).all()):
            raise ValueError("points must be budgets, finite and not negative")
    at = np.unique(spent.searchsorted(budgets * (1 + ROUNDING), side="right") - 1)
    rows = np.arange(len(g))
    gain = g[rows, path.start].sum() + np.concatenate([[0.0], path.gain.cumsum()])[at]
    contacts = (path.start > 0).sum() + np.concatenate([[0], (path.before == 0).cumsum()])[at]
    price = np.array([path.price(step) for step in at])
    realised = lower = upper = None
    if scores is not None:
        realised, half = _realised(path, _scores(scores, g.shape), c, at, price, alpha)
        lower, upper = realised - half, realised + half
    users = path.users(at, g.shape[1])
    return SpendCurve(spent[at], gain, contacts, price, realised, lower, upper, users)


def marginal(curve: SpendCurve, at: float, step: float) -> float:
    """What the next `step` of money is expected to gain after `at` has been spent; 0 beyond the end of the curve.

    Between the points of the curve gain is linear. `step` > 0.
    """
    if not (at >= 0 and 0 < step < math.inf):
        raise ValueError(f"at must not be negative and step positive: {at}, {step}")
    low, high = np.interp([at, at + step], curve.spend, curve.gain)
    return float(high - low)


def _problem(gains: npt.ArrayLike, costs: npt.ArrayLike, allowed: npt.ArrayLike | None) -> tuple[Floats, Floats, Bools]:
    g = np.asarray(gains, dtype=np.float64)
    if g.ndim != 2 or len(g) == 0 or g.shape[1] < 2 or not np.isfinite(g).all():
        raise ValueError(f"gains must be finite, users x at least two arms, got {g.shape}")
    if g[:, 0].any():
        raise ValueError("the first column of gains is the control's against itself: zeros")
    c = np.asarray(costs, dtype=np.float64)
    if c.shape not in ((g.shape[1],), g.shape):
        raise ValueError(f"costs must have the shape {g.shape[1:]} or {g.shape}, got {c.shape}")
    if not (np.isfinite(c).all() and (c >= 0).all()) or c[..., 0].any():
        raise ValueError("costs must be finite and not negative, those of the control 0")
    may = np.ones(g.shape, dtype=np.bool_) if allowed is None else np.asarray(allowed)
    if may.shape != g.shape or may.dtype != np.bool_ or not may[:, 0].all():
        raise ValueError(f"allowed must be bool of the shape {g.shape}, and the control allowed to everyone")
    return g, np.broadcast_to(c, g.shape), may


def _stock(stock: npt.ArrayLike | None, arms: int) -> Floats:
    if stock is None:
        return np.full(arms, math.inf)
    ceilings = np.asarray(stock, dtype=np.float64)
    if ceilings.shape != (arms,) or np.isnan(ceilings).any() or (ceilings < 0).any() or ceilings[0] < math.inf:
        raise ValueError(f"stock must be {arms} numbers of users, not negative, that of the control inf: {stock}")
    return np.floor(ceilings)


def _scores(scores: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    s = np.asarray(scores, dtype=np.float64)
    if s.shape != shape or not np.isfinite(s).all():
        raise ValueError(f"scores must be finite, of the shape {shape}, got {s.shape}")
    if len(s) < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=len(s), needed=2)
    return s - s[:, :1]


def _realised(
    path: Path, scores: Floats, costs: Floats, at: Ints, price: Floats, alpha: float
) -> tuple[Floats, Floats]:
    """Sums of the scores of the arms given at the steps `at`, and half widths."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    n = len(scores)

    def along(matrix: Floats) -> Floats:
        change = matrix[path.user, path.after] - matrix[path.user, path.before]
        return (total(matrix, path.start) + np.concatenate([[0.0], change.cumsum()]))[at]

    gained, spent = along(scores), along(costs)
    # psi = (score - mean) - price (cost - mean), from running sums of squares and products.
    square = along(scores**2) - 2 * price * along(scores * costs) + price**2 * along(costs**2)
    variance = np.maximum(square - (gained - price * spent) ** 2 / n, 0.0) / (n - 1)
    return gained, -float(scipy.special.ndtri(alpha / 2)) * np.sqrt(n * variance)
