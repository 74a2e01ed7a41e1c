"""The multiple-choice knapsack: one arm for each user, within one limit or several on what the arms use.

`worth` (n, K) is what is maximised, minus infinity for an arm a user may not have; a limit is what each arm uses of it
(n, K) and its ceiling. `budget` puts its questions in these terms and holds the papers.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.sparse

from stats.moments import Floats

__all__ = ["ROUNDING", "Ints", "Limit", "Path", "integer", "one_limit", "path_of", "several_limits", "total"]

Ints = npt.NDArray[np.int64]
Limit = tuple[Floats, float]

# A sum of costs may exceed its limit by rounding alone.
ROUNDING = 1e-9
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
class Path:
    """All budgets at once: the free arm of each user, `start` (n,), then steps of falling gain per cost.

    A step takes `user` from the arm `before` to the arm `after`.
    """

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


def path_of(worth: Floats, use: Floats) -> Path:
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
    return Path(start, user[order], before[order], after[order], cost[order], gain[order])


def one_limit(worth: Floats, use: Floats, limit: float) -> tuple[Ints, float, float]:
    """Greedy along the hulls, then branch and bound around the margin: the arms, the bound, the price of the limit."""
    path = path_of(worth, use)
    spent = path.cost.cumsum()
    steps = int(spent.searchsorted(limit * (1 + ROUNDING), side="right"))
    policy = path.policy(steps)
    value = total(worth, policy)
    if steps == path.user.size:
        return policy, value, 0.0
    price = path.price(steps)
    left = max(limit - (float(spent[steps - 1]) if steps else 0.0), 0.0)
    around = np.unique(path.user[max(steps - _CORE // 2, 0) : steps + _CORE // 2])
    return _finished(worth, [(use, limit)], policy, around), value + price * left, price


def several_limits(worth: Floats, limits: list[Limit]) -> tuple[Ints, float, Floats]:
    """The arms (n,), the bound, and the price of each limit, by Dantzig-Wolfe columns.

    Columns are whole policies, each the best at some prices; the master program mixes them within all limits.

    Prices are drawn half way to the best ones so far (Wentges 1997, "Weighted Dantzig-Wolfe decomposition"): with the
    master's own alone, which swing widely, six limits take ten times as many columns.
    """
    best = _first_prices(worth, limits)
    # Only one that binds alone can do for all; of a large problem the sample tells which.
    for binding in range(len(limits)) if not best.any() else np.flatnonzero(best) if (best > 0).sum() == 1 else ():
        policy, bound, price = one_limit(worth, *limits[binding])
        if _fits(policy, limits):
            return policy, bound, np.where(np.arange(len(limits)) == binding, price, 0.0)
    ceilings = np.array([limit for _, limit in limits])
    columns, values, used = [np.zeros(len(worth), dtype=np.int8)], [0.0], [np.zeros(len(limits))]
    bound, prices = math.inf, best
    slack = _SLACK * float(worth.max()) if len(worth) > _SAMPLE else 0.0
    while True:
        reduced = _reduced(worth, limits, prices)
        policy = reduced.argmax(axis=1)
        at = total(reduced, policy) + float(prices @ ceilings)
        if at < bound:
            bound, best = at, prices
        columns.append(policy.astype(np.int8))
        values.append(total(worth, policy))
        used.append(np.array([total(use, policy) for use, _ in limits]))
        master = scipy.optimize.linprog(
            -np.array(values), np.array(used).T, ceilings, np.ones((1, len(values))), [1.0], method="highs"
        )
        shares = np.asarray(master.x, dtype=np.float64)
        if bound - float(shares @ values) <= max(ROUNDING * bound, slack) or len(columns) > _COLUMNS * len(limits):
            break
        own = np.maximum(-np.asarray(master.ineqlin.marginals, dtype=np.float64), 0.0)
        near = (own + best) / 2
        # Where that brings nothing new, the master's own prices do, or all is found.
        prices = own if np.array_equal(near, prices) else near
    kept = np.flatnonzero(shares > ROUNDING)
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
    return several_limits(worth[here], [(use[here], limit * part) for use, limit in limits])[2]


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
        while (excess := total(use, kept) - limit * (1 + ROUNDING)) > 0:
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
    left = [(use[core], limit - total(use, policy) + total(use[core], taken)) for use, limit in limits]
    found = _integer_program(worth[core], left, _NODES)
    if found is None or not _fits(found, left) or total(worth[core], found) <= total(worth[core], taken):
        return policy
    better = policy.copy()
    better[core] = found
    return better


def integer(worth: Floats, limits: list[Limit]) -> Ints:
    """The arms by the integer program. Raises ValueError for more than 20,000 users x arms."""
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
    return all(total(use, policy) <= limit * (1 + ROUNDING) for use, limit in limits)


def total(matrix: Floats, policy: Ints) -> float:
    """The sum over users of their arm's entry of `matrix` (n, K)."""
    return float(matrix[np.arange(len(policy)), policy].sum())
