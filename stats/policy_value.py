"""What a policy is worth: mean of doubly robust scores of a randomised experiment.

n users, K arms, arm 0 the control. A score (Robins, Rotnitzky & Zhao 1994) is an unbiased guess of what a user would
bring under an arm, whatever the predictions, as long as the probabilities of assignment are those that were used. The
value of a policy then is a mean over users, and every comparison is paired. A policy must not have seen the outcome of
the user whom it decides about: choose it on other folds (`folds`).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stats.effects import Interval
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Floats
from stats.winner import corrected

__all__ = [
    "BestConstant",
    "Estimate",
    "GroupGain",
    "Ints",
    "best_constant",
    "best_elsewhere",
    "by_group",
    "check_assignment",
    "constant_elsewhere",
    "constant_values",
    "doubly_robust",
    "folds",
    "from_influence",
    "gain",
    "gap",
    "net",
    "snipw",
    "value",
]

Ints = npt.NDArray[np.integer[Any]]
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error, its two-sided interval and the p value of its being zero."""

    estimate: float
    se: float
    lower: float
    upper: float
    p_value: float


@dataclass(frozen=True, slots=True)
class BestConstant:
    """The arm that is best for everybody: `naive` as if it had not been chosen, `corrected` for the choice."""

    arm: int
    naive: Estimate
    corrected: Interval


@dataclass(frozen=True, slots=True)
class GroupGain:
    """The gain per user of a group; times `share` of all users, the gains of all groups sum to the gain of all."""

    group: Hashable
    n: int
    share: float
    gain: Estimate


def doubly_robust(outcome: Floats, arm: Ints, propensity: Floats, predictions: Floats) -> Floats:
    """Scores (n, K): m_k(x_i) + 1{arm_i = k} / e_k(x_i) (outcome_i - m_k(x_i)) (AIPW; Dudik, Langford & Li 2011).

    `outcome` (n,) in any unit, which the scores keep; `predictions` (n, K) of the outcome under each arm, from models
    that have not seen the user's own outcome (cross-fitted); zeros give inverse probability weighting.
    """
    y, m = np.asarray(outcome, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    a, e = check_assignment(arm, propensity)
    if y.shape != a.shape or not np.isfinite(y).all():
        raise ValueError(f"outcome must hold a finite number for each of the {a.size} users, got shape {y.shape}")
    if m.shape != e.shape or not np.isfinite(m).all():
        raise ValueError(f"predictions must be finite and of shape {e.shape}, got {m.shape}")
    rows = np.arange(a.size)
    scores = m.copy()
    scores[rows, a] += (y - m[rows, a]) / e[rows, a]
    return scores


def net(scores: Floats, costs: npt.ArrayLike | None) -> Floats:
    """Scores (n, K) less what each arm costs: `costs` (K,) per user or (n, K), in the unit of the scores."""
    g = _checked_scores(scores)
    if costs is None:
        return g
    c = np.asarray(costs, dtype=np.float64)
    if c.shape not in (g.shape, g.shape[1:]) or not np.isfinite(c).all():
        raise ValueError(f"costs must be finite and of shape {g.shape[1:]} or {g.shape}, got {c.shape}")
    return g - c


def value(scores: Floats, policy: Ints, costs: npt.ArrayLike | None = None, alpha: float = 0.05) -> Estimate:
    """What a user brings on average when `policy` (n,) gives him his arm: mean of his scores, sd / sqrt n.

    Raises StatError(not_enough_data) below two users, StatError(zero_variance).
    """
    return _mean(_chosen(net(scores, costs), policy, "policy"), alpha)


def gain(
    scores: Floats, policy: Ints, baseline: Ints, costs: npt.ArrayLike | None = None, alpha: float = 0.05
) -> Estimate:
    """Value of `policy` less that of `baseline`, both (n,), paired by user. Raises as `value`.

    Where both give everybody the same arm the gain is 0 without error, and its p value 1.
    """
    g = net(scores, costs)
    difference = _chosen(g, policy, "policy") - _chosen(g, baseline, "baseline")
    if np.array_equal(policy, baseline):
        return Estimate(0.0, 0.0, 0.0, 0.0, 1.0)
    return _mean(difference, alpha)


def by_group(
    scores: Floats,
    policy: Ints,
    baseline: Ints,
    groups: Sequence[Hashable] | npt.NDArray[Any],
    costs: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> list[GroupGain]:
    """`gain` within each of the `groups` (n labels), in their sorted order. The intervals are not adjusted for number.

    Raises as `gain` for the first group without a number: merge small groups first.
    """
    labels, index = np.unique(np.asarray(groups), return_inverse=True)
    g, chosen, instead = net(scores, costs), np.asarray(policy), np.asarray(baseline)
    if index.shape != (len(g),):
        raise ValueError(f"groups must hold a label for each of the {len(g)} users, got shape {index.shape}")
    found = []
    for position, label in enumerate(labels.tolist()):
        rows = np.flatnonzero(index == position)
        paired = gain(g[rows], chosen[rows], instead[rows], alpha=alpha)
        found.append(GroupGain(label, rows.size, rows.size / len(g), paired))
    return found


def constant_values(scores: Floats, costs: npt.ArrayLike | None = None, alpha: float = 0.05) -> list[Estimate]:
    """The value of giving everybody arm k, for each k. Raises as `value`."""
    return [_mean(column, alpha) for column in net(scores, costs).T]


def best_constant(scores: Floats, costs: npt.ArrayLike | None = None, alpha: float = 0.05) -> BestConstant:
    """The best of the K constant policies, its value corrected for having been chosen (`stats.winner`).

    Raises as `value`, and StatError(tied) when two arms share the largest value.
    """
    g = net(scores, costs)
    values = constant_values(g, alpha=alpha)
    arm = int(g.mean(axis=0).argmax())
    interval = corrected(g.mean(axis=0), np.atleast_2d(np.cov(g, rowvar=False)) / len(g), None, alpha)
    return BestConstant(arm, values[arm], interval)


def constant_elsewhere(scores: Floats, fold: Ints, costs: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Policy (n,): each fold gets the arm that has the largest value on the other folds.

    The baseline for an honest gain over "the best tactic for all": no user has had a part in choosing his own baseline.
    Ties go to the lower arm. Needs at least two folds.
    """
    g, f = net(scores, costs), np.asarray(fold)
    if f.shape != (len(g),) or np.unique(f).size < 2:
        raise ValueError(f"fold must name one of at least two folds for each of the {len(g)} users")
    policy = np.empty(len(g), dtype=np.int64)
    for each in np.unique(f):
        policy[f == each] = int(g[f != each].mean(axis=0).argmax())
    return policy


def best_elsewhere(
    scores: Floats, fold: Ints, groups: Ints, least: int, costs: npt.ArrayLike | None = None
) -> npt.NDArray[np.int64]:
    """Policy (n,): in each of the `groups` (n,) a fold gets the arm with the largest value there on the other folds.

    A group of fewer than `least` users on the other folds gets what `constant_elsewhere` gives.
    """
    g, f, group = net(scores, costs), np.asarray(fold), np.asarray(groups)
    policy = constant_elsewhere(g, f)
    if group.shape != f.shape:
        raise ValueError(f"groups must name one group for each of the {len(g)} users, got shape {group.shape}")
    for each in np.unique(group):
        inside = group == each
        for here in np.unique(f[inside]):
            others = inside & (f != here)
            if others.sum() >= least:
                policy[inside & (f == here)] = int(g[others].mean(axis=0).argmax())
    return policy


def snipw(
    outcome: Floats,
    arm: Ints,
    propensity: Floats,
    policy: Ints,
    costs: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """The value of a policy without any model, as a check: weighted mean of those who got the arm of the policy.

    Self-normalised inverse probability weighting (Hajek 1971; Swaminathan & Joachims 2015): sum w (y - c) / sum w with
    w = 1{arm = policy} / e, its error from w (y - c - value) / mean w. Raises StatError(not_enough_data) when
    fewer than two users got the arm of the policy, else as `value`.
    """
    estimate, influence = _snipw(outcome, arm, propensity, policy, costs)
    return from_influence(estimate, influence, alpha)


def gap(
    scores: Floats,
    outcome: Floats,
    arm: Ints,
    propensity: Floats,
    policy: Ints,
    costs: npt.ArrayLike | None = None,
    alpha: float = 0.05,
) -> Estimate:
    """`value` less `snipw`, paired: both estimate the same, so a gap of many standard errors is a bug.

    Its cause may be probabilities other than those used, scores of other users, or a model that saw the outcomes.
    """
    direct = _chosen(net(scores, costs), policy, "policy")
    weighted, influence = _snipw(outcome, arm, propensity, policy, costs)
    difference = float(direct.mean()) - weighted
    contrast = direct - direct.mean() - influence
    # Predictions that are the weighted means themselves: both estimators are then the same sum.
    if np.abs(contrast).max() <= 1e-12 * max(float(np.abs(direct).max()), 1e-300):
        return Estimate(0.0, 0.0, 0.0, 0.0, 1.0)
    return from_influence(difference, contrast, alpha)


def folds(n: int, k: int, arm: Ints, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """A fold 0 ... k - 1 for each of n users at random: within each arm the folds differ by at most one user in size.

    So do the folds as a whole: an arm starts where the one before has ended.
    """
    a = np.asarray(arm)
    if a.shape != (n,):
        raise ValueError(f"arm must hold one arm for each of the {n} users, got shape {a.shape}")
    smallest = int(np.unique(a, return_counts=True)[1].min(initial=n))
    if not 2 <= k <= smallest:
        raise ValueError(f"k must be at least 2 folds and at most the users of the smallest arm, {smallest}: {k}")
    order = rng.permutation(n)
    fold = np.empty(n, dtype=np.int64)
    fold[order[np.argsort(a[order], kind="stable")]] = rng.permutation(k)[np.arange(n) % k]
    return fold


def check_assignment(arm: Ints, propensity: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Arms (n,) of 0 ... K - 1 and the probabilities (n, K) they were drawn with, or a ValueError."""
    a, e = np.asarray(arm), np.asarray(propensity, dtype=np.float64)
    if a.ndim != 1 or not np.issubdtype(a.dtype, np.integer):
        raise ValueError(f"arm must be integers of shape (n,), got {a.dtype} of shape {a.shape}")
    if e.ndim != 2 or e.shape[0] != a.size or e.shape[1] < 2:
        raise ValueError(f"propensity must be of shape ({a.size}, K), K at least 2, got {e.shape}")
    if a.size and not 0 <= a.min() <= a.max() < e.shape[1]:
        raise ValueError(f"arm must be 0 to {e.shape[1] - 1}, got {a.min()} to {a.max()}")
    if not (np.isfinite(e).all() and (e > 0).all() and (np.abs(e.sum(axis=1) - 1) <= _SUM_TOLERANCE).all()):
        raise ValueError(
            "propensity must be above 0 and each row must sum to 1: leave out users who could not get an arm"
        )
    return a.astype(np.int64, copy=False), e


def from_influence(estimate: float, influence: Floats, alpha: float) -> Estimate:
    """The estimate whose centred influence values (n,) are known: se = sqrt(sum psi^2 / (n - 1) / n), t on n - 1."""
    n = influence.size
    if n < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=n)
    se = float(np.sqrt(influence @ influence / (n - 1) / n))
    if not se > 0:
        raise StatError(Problem.ZERO_VARIANCE, n=n)
    horizon = Fixed(alpha)
    half = horizon.critical(n, n - 1) * se
    return Estimate(estimate, se, estimate - half, estimate + half, horizon.p_value(estimate / se, n, n - 1))


def _mean(values: Floats, alpha: float) -> Estimate:
    if values.size < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=values.size)
    # A constant would otherwise vary by rounding.
    if values.min() == values.max():
        raise StatError(Problem.ZERO_VARIANCE, n=values.size)
    mean = float(values.mean())
    return from_influence(mean, values - mean, alpha)


def _checked_scores(scores: Floats) -> Floats:
    g = np.asarray(scores, dtype=np.float64)
    if g.ndim != 2 or not np.isfinite(g).all():
        raise ValueError(f"scores must be finite and of shape (n, K), got {g.shape}")
    return g


def _chosen(scores: Floats, policy: Ints, name: str) -> Floats:
    arms = np.asarray(policy)
    n, k = scores.shape
    if arms.shape != (n,) or not np.issubdtype(arms.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape ({n},), got {arms.dtype} of shape {arms.shape}")
    if n and not 0 <= arms.min() <= arms.max() < k:
        raise ValueError(f"{name} must be arms 0 to {k - 1}, got {arms.min()} to {arms.max()}")
    return scores[np.arange(n), arms]


def _snipw(
    outcome: Floats, arm: Ints, propensity: Floats, policy: Ints, costs: npt.ArrayLike | None
) -> tuple[float, Floats]:
    a, e = check_assignment(arm, propensity)
    y = np.asarray(outcome, dtype=np.float64)
    if y.shape != a.shape or not np.isfinite(y).all():
        raise ValueError(f"outcome must hold a finite number for each of the {a.size} users, got shape {y.shape}")
    won = y + _chosen(net(np.zeros(e.shape), costs), policy, "policy")
    followed = a == np.asarray(policy)
    if followed.sum() < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=int(followed.sum()))
    w = np.where(followed, 1 / e[np.arange(a.size), a], 0.0)
    estimate = float(w @ won / w.sum())
    return estimate, w * (won - estimate) / w.mean()
