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
import scipy.optimize
import scipy.sparse
import scipy.special

from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["Allocation", "SpendCurve", "allocate", "marginal", "spend_curve"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Limit = tuple[Floats, float]

# A sum of costs may exceed its limit by rounding alone.
_ROUNDING = 1e-9
# Users around the margin whose arms are chosen again by branch and bound, and the nodes it may visit.
_CORE = 48
_NODES = 500
_EXACT_CELLS = 20_000
_COLUMNS = 60
# Of one user's largest worth: what may be lacking in a large problem before fractions of users are rounded.
_SLACK = 1e-3
# Users from whose prices a larger problem with several limits starts.
_SAMPLE = 20_000


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


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """The free arm of each user `start` (n,), then steps of falling gain per cost: user, arms before and after."""

    start: Ints
    user: Ints
    before: Ints
    after: Ints
    cost: Floats
    gain: Floats

    def policy(self, steps: int) -> Ints:
        chosen = self.start.copy()
        # Of repeated users the last step stays.
        chosen[self.user[:steps]] = self.after[:steps]
        return chosen

    def price(self, step: int) -> float:
        return float(self.gain[step] / self.cost[step]) if step < self.user.size else 0.0

    def users(self, at: Ints, arms: int) -> Ints:
        """How many users have each arm after the steps `at`."""
        counts = [
            (self.start == arm).sum()
            + np.concatenate([[0], ((self.after == arm).astype(np.int64) - (self.before == arm)).cumsum()])[at]
            for arm in range(arms)
        ]
        return np.column_stack(counts)


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
        policy, bound, paid = _several_limits(worth, limits)
    else:
        policy, bound, single = _one_limit(worth, *(limits[0] if limits else (c, math.inf)))
        paid = np.array([single])
    found = iter(paid.tolist())
    price = next(found) if budget is not None or not limits else 0.0
    contact_price = next(found) if contacts is not None else 0.0
    stock_prices = np.zeros(g.shape[1])
    stock_prices[scarce] = list(found)
    if exact:
        policy = _integer(worth, limits)
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
    path = _path(np.where(may, g, -math.inf), c)
    spent = np.concatenate([[0.0], path.cost.cumsum()])
    if isinstance(points, int | np.integer):
        if points < 2:
            raise ValueError(f"points must be at least 2: {points}")
        budgets = np.linspace(0, spent[-1], int(points))
    else:
        budgets = np.unique(np.asarray(points, dtype=np.float64))
        if budgets.size == 0 or not (np.isfinite(budgets).all() and (budgets >= 0).all()):
            raise ValueError("points must be budgets, finite and not negative")
    at = np.unique(spent.searchsorted(budgets * (1 + _ROUNDING), side="right") - 1)
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


def _path(worth: Floats, use: Floats) -> _Path:
    """Upper hulls of all users by gift wrapping, one arm a round, their steps merged by slope."""
    n = len(worth)
    start = np.where(use == 0, worth, -math.inf).argmax(axis=1)
    users, now = np.arange(n), start
    steps: list[tuple[Ints, Ints, Ints, Floats, Floats]] = []
    while users.size:
        w, u, rows = worth[users], use[users], np.arange(users.size)
        dw, du = w - w[rows, now][:, None], u - u[rows, now][:, None]
        slope = np.where((du > 0) & (dw > 0), dw / np.where(du > 0, du, 1.0), 0.0)
        best = slope.max(axis=1)
        # Of arms on one line the nearest: finer steps.
        after = np.where((slope == best[:, None]) & (du > 0), u, math.inf).argmin(axis=1)
        more = best > 0
        users, before, after, rows = users[more], now[more], after[more], rows[more]
        steps.append((users, before, after, du[rows, after], dw[rows, after]))
        now = after
    user, before, after, cost, gain = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    order = np.argsort(-gain / cost, kind="stable")
    return _Path(start, user[order], before[order], after[order], cost[order], gain[order])


def _one_limit(worth: Floats, use: Floats, limit: float) -> tuple[Ints, float, float]:
    path = _path(worth, use)
    spent = path.cost.cumsum()
    steps = int(spent.searchsorted(limit * (1 + _ROUNDING), side="right"))
    policy = path.policy(steps)
    value = _total(worth, policy)
    if steps == path.user.size:
        return policy, value, 0.0
    price = path.price(steps)
    left = max(limit - (float(spent[steps - 1]) if steps else 0.0), 0.0)
    around = np.unique(path.user[max(steps - _CORE // 2, 0) : steps + _CORE // 2])
    return _finished(worth, [(use, limit)], policy, around), value + price * left, price


def _several_limits(worth: Floats, limits: list[Limit]) -> tuple[Ints, float, Floats]:
    """Columns are whole policies, each the best at some prices; the master program mixes them within all limits.

    Prices are drawn half way to the best ones so far (Wentges 1997, "Weighted Dantzig-Wolfe decomposition"): with the
    master's own alone, which swing widely, six limits take ten times as many columns.
    """
    best = _first_prices(worth, limits)
    # Only one that binds alone can do for all; of a large problem the sample tells which.
    for binding in range(len(limits)) if not best.any() else np.flatnonzero(best) if (best > 0).sum() == 1 else ():
        policy, bound, price = _one_limit(worth, *limits[binding])
        if _fits(policy, limits):
            return policy, bound, np.where(np.arange(len(limits)) == binding, price, 0.0)
    ceilings = np.array([limit for _, limit in limits])
    columns, values, used = [np.zeros(len(worth), dtype=np.int8)], [0.0], [np.zeros(len(limits))]
    bound, prices = math.inf, best
    slack = _SLACK * float(worth.max()) if len(worth) > _SAMPLE else 0.0
    while True:
        reduced = _reduced(worth, limits, prices)
        policy = reduced.argmax(axis=1)
        at = _total(reduced, policy) + float(prices @ ceilings)
        if at < bound:
            bound, best = at, prices
        columns.append(policy.astype(np.int8))
        values.append(_total(worth, policy))
        used.append(np.array([_total(use, policy) for use, _ in limits]))
        master = scipy.optimize.linprog(
            -np.array(values), np.array(used).T, ceilings, np.ones((1, len(values))), [1.0], method="highs"
        )
        shares = np.asarray(master.x, dtype=np.float64)
        if bound - float(shares @ values) <= max(_ROUNDING * bound, slack) or len(columns) > _COLUMNS * len(limits):
            break
        own = np.maximum(-np.asarray(master.ineqlin.marginals, dtype=np.float64), 0.0)
        near = (own + best) / 2
        # Where that brings nothing new, the master's own prices do, or all is found.
        prices = own if np.array_equal(near, prices) else near
    kept = np.flatnonzero(shares > _ROUNDING)
    policy = _mixed(np.array([columns[i] for i in kept], dtype=np.int64), shares[kept], limits[0][0])
    reduced = _reduced(worth, limits, best)
    policy = _within(limits, policy, reduced)
    top = np.partition(reduced, -2, axis=1)
    margin = top[:, -1] - top[:, -2]
    core = min(_CORE, len(worth))
    return _finished(worth, limits, policy, margin.argpartition(core - 1)[:core]), bound, best


def _first_prices(worth: Floats, limits: list[Limit]) -> Floats:
    """Those of every so manieth user, with as small a part of the limits; zeros where the users are few."""
    every = len(worth) // _SAMPLE
    if every < 2:
        return np.zeros(len(limits))
    here = np.unique((np.arange(_SAMPLE) * ((math.sqrt(5) - 1) / 2) % 1 * len(worth)).astype(np.int64))
    part = len(here) / len(worth)
    return _several_limits(worth[here], [(use[here], limit * part) for use, limit in limits])[2]


def _reduced(worth: Floats, limits: list[Limit], prices: Floats) -> Floats:
    # What is the same for every user is taken off at once.
    alike = np.zeros(worth.shape[1])
    reduced = worth
    for (use, _), price in zip(limits, prices, strict=True):
        if use.strides[0] == 0:
            alike += price * use[0]
        elif price:
            reduced = reduced - price * use
    return reduced - alike


def _mixed(policies: Ints, weights: Floats, use: Floats) -> Ints:
    """One policy that uses each of m `policies` (m, n) for its share of users, wherever they differ.

    At the prices all of them are worth the same, so only the limits matter: users whom the policies treat alike, in
    the order of what a change of policy uses, are dealt out evenly (multiples of the golden ratio).
    """
    users = np.flatnonzero((policies != policies[0]).any(axis=0))
    options = policies[:, users]
    _, kind = np.unique(options, axis=1, return_inverse=True)
    order = np.lexsort((use[users, options[-1]] - use[users, options[0]], kind))
    turn = np.arange(1, users.size + 1) * ((math.sqrt(5) - 1) / 2) % 1
    pick = np.minimum((weights / weights.sum()).cumsum().searchsorted(turn), len(weights) - 1)
    mixed: Ints = policies[0].copy()
    mixed[users[order]] = options[pick, order]
    return mixed


def _within(limits: list[Limit], policy: Ints, reduced: Floats) -> Ints:
    """Other arms until the limits hold, that use no more of any of them: first what loses least per unit released."""
    kept = policy.copy()
    for use, limit in limits:
        while (excess := _total(use, kept) - limit * (1 + _ROUNDING)) > 0:
            users = np.flatnonzero(use[np.arange(len(kept)), kept] > 0)
            now = kept[users]
            rows = np.arange(len(users))
            options = reduced[users].copy()
            for other, _ in limits:
                options[other[users] > other[users, now][:, None]] = -math.inf
            options[use[users] >= use[users, now][:, None]] = -math.inf
            instead = options.argmax(axis=1)
            released = use[users, now] - use[users, instead]
            order = np.argsort((reduced[users, now] - options[rows, instead]) / released, kind="stable")
            moved = order[: int(released[order].cumsum().searchsorted(excess)) + 1]
            kept[users[moved]] = instead[moved]
    return kept


def _finished(worth: Floats, limits: list[Limit], policy: Ints, core: Ints) -> Ints:
    """`policy`, or a better one that differs from it among the users `core` only, by branch and bound."""
    taken = policy[core]
    left = [(use[core], limit - _total(use, policy) + _total(use[core], taken)) for use, limit in limits]
    found = _integer_program(worth[core], left, _NODES)
    if found is None or not _fits(found, left) or _total(worth[core], found) <= _total(worth[core], taken):
        return policy
    better = policy.copy()
    better[core] = found
    return better


def _integer(worth: Floats, limits: list[Limit]) -> Ints:
    if worth.size > _EXACT_CELLS:
        raise ValueError(f"exact is for up to {_EXACT_CELLS} users x arms, got {worth.size}: leave it out")
    policy = _integer_program(worth, limits, None)
    if policy is None or not _fits(policy, limits):
        raise RuntimeError("the integer program was not solved")
    return policy


def _integer_program(worth: Floats, limits: list[Limit], nodes: int | None) -> Ints | None:
    n, k = worth.shape
    may = np.isfinite(worth).ravel()
    values = np.where(may, worth.ravel(), 0.0)
    one_each = scipy.sparse.kron(scipy.sparse.eye_array(n), np.ones((1, k)), format="csr")
    constraints = [scipy.optimize.LinearConstraint(one_each, 1, 1)]
    for use, limit in limits:
        # The solver's tolerances are absolute.
        scale = max(float(use.max()), np.finfo(np.float64).tiny)
        constraints.append(
            scipy.optimize.LinearConstraint(use.reshape(1, -1) / scale, -math.inf, max(limit, 0.0) / scale)
        )
    found = scipy.optimize.milp(
        -values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny),
        integrality=np.ones(n * k),
        bounds=scipy.optimize.Bounds(0, may.astype(np.float64)),
        constraints=constraints,
        options={"mip_rel_gap": 0.0} if nodes is None else {"mip_rel_gap": 0.0, "node_limit": nodes},
    )
    return None if found.x is None else np.asarray(found.x).reshape(n, k).argmax(axis=1)


def _fits(policy: Ints, limits: list[Limit]) -> bool:
    return all(_total(use, policy) <= limit * (1 + _ROUNDING) for use, limit in limits)


def _total(matrix: Floats, policy: Ints) -> float:
    return float(matrix[np.arange(len(policy)), policy].sum())


def _scores(scores: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    s = np.asarray(scores, dtype=np.float64)
    if s.shape != shape or not np.isfinite(s).all():
        raise ValueError(f"scores must be finite, of the shape {shape}, got {s.shape}")
    if len(s) < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=len(s), needed=2)
    return s - s[:, :1]


def _realised(
    path: _Path, scores: Floats, costs: Floats, at: Ints, price: Floats, alpha: float
) -> tuple[Floats, Floats]:
    """Sums of the scores of the arms given at the steps `at`, and half widths."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    n = len(scores)

    def along(matrix: Floats) -> Floats:
        change = matrix[path.user, path.after] - matrix[path.user, path.before]
        return (_total(matrix, path.start) + np.concatenate([[0.0], change.cumsum()]))[at]

    gained, spent = along(scores), along(costs)
    # psi = (score - mean) - price (cost - mean), from running sums of squares and products.
    square = along(scores**2) - 2 * price * along(scores * costs) + price**2 * along(costs**2)
    variance = np.maximum(square - (gained - price * spent) ** 2 / n, 0.0) / (n - 1)
    return gained, -float(scipy.special.ndtri(alpha / 2)) * np.sqrt(n * variance)
