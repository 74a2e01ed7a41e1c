"""Shallow policy trees: rules a person can read, chosen to maximise the doubly robust value of the arms they give.

Zhou, Athey & Wager 2023, "Offline Multi-Action Policy Learning"; the exhaustive search is that of policytree (Sverdrup,
Kanodia, Zhou, Athey & Wager 2020), on a few dozen cuts a feature instead of every value. The value a tree has on the
scores that chose it is too high: value it on other users.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["Condition", "Leaf", "Node", "Rule", "Tree", "fit"]

Ints = npt.NDArray[np.int64]

# Values of trees that differ by less than this share of the sum of all |scores| are the same up to rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Condition:
    """`feature` (its column) `op` `threshold`, or where `holds` is False the negation of it.

    "<=": the value is at most the threshold, which no missing value is. "missing": there is no value; threshold None.
    """

    feature: int
    op: Literal["<=", "missing"]
    threshold: float | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """A leaf: users for whom all `conditions` are true, `n` of those fitted on, get `arm`."""

    conditions: tuple[Condition, ...]
    arm: int
    n: int


@dataclass(frozen=True, slots=True)
class Leaf:
    arm: int
    n: int


@dataclass(frozen=True, slots=True)
class Node:
    """Users with the condition (which `holds`) go to `true`, all others to `false`."""

    condition: Condition
    true: "Node | Leaf"
    false: "Node | Leaf"


@dataclass(frozen=True, slots=True)
class Tree:
    """A policy over `features` columns; `value` is its mean score per user among those it was fitted on."""

    root: Node | Leaf
    features: int
    value: float

    @property
    def leaves(self) -> list[Rule]:
        """The leaves from left (condition true) to right: each user is in exactly one."""
        return list(_rules(self.root, ()))

    def predict(self, features: npt.ArrayLike) -> Ints:
        """The arm of each user, (n,)."""
        x = _features(features)
        if x.shape[1] != self.features:
            raise ValueError(f"the tree was fitted on {self.features} features, got {x.shape[1]}")
        arms = np.empty(len(x), dtype=np.int64)
        for rule in self.leaves:
            inside = np.ones(len(x), dtype=np.bool_)
            for condition in rule.conditions:
                column = x[:, condition.feature]
                true = np.isnan(column) if condition.threshold is None else column <= condition.threshold
                inside &= true == condition.holds
            arms[inside] = rule.arm
        return arms


def fit(features: npt.ArrayLike, scores: npt.ArrayLike, depth: int = 2, min_leaf: int = 1, cuts: int = 32) -> Tree:
    """The tree of at most `depth` (0 to 3) questions to a user with the largest mean score of the arms it gives.

    `features` (n, p), NaN where missing; a category is one 0/1 column for each of its sets ("<= 0" is outside).
    `scores` (n, K) doubly robust, net of unit costs, the control first. Cuts are "<= v" at the values of a feature,
    or at `cuts` of its quantiles where it has more; a missing value is on the other side of every cut ("not <= v"),
    and a cut of its own where a feature has any. Every leaf holds at least `min_leaf` users.

    Depth 1 and 2: no tree over these cuts is better. Depth 3: the first question of the best tree of depth 2, then
    the best trees of depth 2 on its two sides; at least as good as depth 2. A split that gains nothing is not made,
    and one whose sides go on alike is taken out: what it asks changes nobody's arm. Equal arms: the lowest index, so
    order arms by cost; equal splits: the first feature, the lowest cut.
    Raises StatError(not_enough_data) for fewer than `min_leaf` users.
    """
    x = _features(features)
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 2 or s.shape[1] < 1 or len(s) != len(x) or not np.isfinite(s).all():
        raise ValueError(f"scores must be finite, of the shape ({len(x)}, arms), got {s.shape}")
    if np.isinf(x).any():
        raise ValueError("features must not be infinite; NaN is missing")
    if depth not in (0, 1, 2, 3):
        raise ValueError(f"depth must be 0, 1, 2 or 3: {depth}")
    for name, least in (("min_leaf", min_leaf), ("cuts", cuts)):
        if least < 1:
            raise ValueError(f"{name} must be at least 1: {least}")
    if len(x) < min_leaf:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=len(x), needed=min_leaf)
    values = [_cuts(column, cuts) for column in x.T]
    bins = [_bins(column, v) for column, v in zip(x.T, values, strict=True)]
    search = _Search(bins, values, s, min_leaf, _ROUNDING * float(np.abs(s).sum()))
    root, total = search.grow(np.arange(len(x)), depth)
    return Tree(root, x.shape[1], total / len(x))


@dataclass(frozen=True, slots=True)
class _Search:
    """Features as bins (p of (n,)): cut i has bins 0 to i on its true side. The last of `values` is NaN: "missing"."""

    bins: list[Ints]
    values: list[Floats]
    scores: Floats
    min_leaf: int
    rounding: float

    def grow(self, users: Ints, depth: int) -> tuple[Node | Leaf, float]:
        """The best tree over `users` and its sum of scores."""
        totals = self.scores[users].sum(axis=0)
        arm = self._first(totals)
        leaf = Leaf(arm, users.size), float(totals[arm])
        found = self._split(users, depth) if depth else None
        if found is None or found[2] <= leaf[1] + self.rounding:
            return leaf
        feature, cut, _ = found
        below = self.bins[feature][users] <= cut
        (true, gained), (false, more) = (self.grow(users[side], depth - 1) for side in (below, ~below))
        same = _merged(true, false)
        if same is not None:
            return same, gained + more
        threshold = float(self.values[feature][cut])
        if np.isnan(threshold):
            return Node(Condition(feature, "missing", None, True), false, true), gained + more
        return Node(Condition(feature, "<=", threshold, True), true, false), gained + more

    def _first(self, totals: Floats) -> int:
        """The lowest index among the largest."""
        return int((totals >= totals.max() - self.rounding).argmax())

    def _split(self, users: Ints, depth: int) -> tuple[int, int, float] | None:
        """Feature, cut and sum of scores of the split whose sides, as best trees of depth 0 or 1, sum to most."""
        sums = np.column_stack([np.ones(users.size), self.scores[users]])
        features = [j for j in range(len(self.bins)) if self.values[j].size]
        best = {j: self._sides(users, sums, j) for j in features}
        if depth > 1:
            for place, j in enumerate(features):
                for other in features[place:]:
                    joint = self._joint(users, sums, j, other)
                    self._improve(best[j], joint)
                    if other != j:
                        self._improve(best[other], joint.transpose(1, 0, 2))
        totals = {j: sides.sum(axis=0) for j, sides in best.items()}
        largest = max((float(total.max()) for total in totals.values()), default=-np.inf)
        if largest == -np.inf:
            return None
        for j, total in totals.items():
            at = np.flatnonzero(total >= largest - self.rounding)
            if at.size:
                return j, int(at[0]), float(total[at[0]])
        raise AssertionError("the largest is among them")

    def _sides(self, users: Ints, sums: Floats, feature: int) -> Floats:
        """Sums of scores (2, cuts) of one leaf on the true and the false side of each cut."""
        size = self.values[feature].size + 1
        below = _histogram(self.bins[feature][users], size, sums).cumsum(axis=0)
        return np.stack([self._leaf(below[:-1]), self._leaf(below[-1] - below[:-1])])

    def _joint(self, users: Ints, sums: Floats, first: int, second: int) -> Floats:
        """Sums (bins, bins, 1 + K) over users at or below a bin of the first and of the second feature."""
        sizes = self.values[first].size + 1, self.values[second].size + 1
        code = self.bins[first][users] * sizes[1] + self.bins[second][users]
        counts = _histogram(code, sizes[0] * sizes[1], sums).reshape(*sizes, -1)
        return counts.cumsum(axis=0).cumsum(axis=1)

    def _improve(self, best: Floats, joint: Floats) -> None:
        """Raise `best` (2, cuts) of the first feature where a further split by the second does better."""
        true, false = joint[:-1], joint[-1] - joint[:-1]
        for row, side in enumerate((true, false)):
            within = side[:, :-1]
            split = self._leaf(within) + self._leaf(side[:, -1:] - within)
            np.maximum(best[row], split.max(axis=1), out=best[row])

    def _leaf(self, sums: Floats) -> Floats:
        """Sum of scores of the best arm; -inf where there are fewer users than a leaf must hold."""
        return np.where(sums[..., 0] >= self.min_leaf, sums[..., 1:].max(axis=-1), -np.inf)


def _merged(one: Node | Leaf, other: Node | Leaf) -> Node | Leaf | None:
    """The tree of the users of both, where both ask the same and give the same."""
    if isinstance(one, Leaf) and isinstance(other, Leaf):
        return Leaf(one.arm, one.n + other.n) if one.arm == other.arm else None
    if isinstance(one, Leaf) or isinstance(other, Leaf) or one.condition != other.condition:
        return None
    true, false = _merged(one.true, other.true), _merged(one.false, other.false)
    return None if true is None or false is None else Node(one.condition, true, false)


def _rules(node: Node | Leaf, conditions: tuple[Condition, ...]) -> Iterator[Rule]:
    if isinstance(node, Leaf):
        yield Rule(conditions, node.arm, node.n)
        return
    asked = node.condition
    yield from _rules(node.true, (*conditions, asked))
    yield from _rules(node.false, (*conditions, Condition(asked.feature, asked.op, asked.threshold, False)))


def _features(features: npt.ArrayLike) -> Floats:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"features must have the shape (n, p), got {x.shape}")
    return x


def _cuts(column: Floats, cuts: int) -> Floats:
    """Values at which to cut, the largest left out; NaN at the end where some are missing and some are not."""
    present = column[~np.isnan(column)]
    values = np.unique(present)
    if values.size - 1 > cuts:
        quantiles = np.quantile(present, np.arange(1, cuts + 1) / (cuts + 1), method="inverted_cdf")
        values = np.unique(np.append(quantiles, values[-1]))
    values = values[:-1]
    return np.append(values, np.nan) if 0 < present.size < column.size else values


def _bins(column: Floats, values: Floats) -> Ints:
    thresholds = values[~np.isnan(values)]
    bins: Ints = thresholds.searchsorted(column, side="left")
    missing = np.isnan(column)
    if thresholds.size < values.size:
        bins[missing] = values.size
    return bins


def _histogram(code: Ints, size: int, sums: Floats) -> Floats:
    return np.stack([np.bincount(code, column, size) for column in sums.T], axis=1)
