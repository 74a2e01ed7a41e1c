"""The policy tree: fitted on doubly robust scores, written in words and as conditions of the rule language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.uplift.frame import Feature
from stats import policy_tree
from stats.policy_tree import Condition, Rule, Tree

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Leaves below this share of the users are luck, and not worth a rule.
MIN_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Column:
    """What one column of the matrix stands for: a feature, and of a category one of its labels."""

    feature: Feature
    label: str | None


def columns(features: Sequence[Feature]) -> list[Column]:
    """Return what each column of ``Frame.matrix`` stands for."""
    return [Column(feature, label) for feature in features for label in (feature.labels or (None,))]


def fit(matrix: Floats, net: Floats, depth: int) -> Tree:
    """Fit a tree on net scores."""
    return policy_tree.fit(matrix, net, depth, min_leaf=max(1, int(MIN_SHARE * len(matrix))))


def crossfitted(matrix: Floats, net: Floats, fold: Ints, depth: int) -> Ints:
    """Return the variant (n,) that a tree fitted on the other folds gives."""
    policy = np.empty(fold.size, dtype=np.int64)
    for each in np.unique(fold):
        here = fold == each
        policy[here] = fit(matrix[~here], net[~here], depth).predict(matrix[here])
    return policy


def members(rule: Rule, matrix: Floats) -> npt.NDArray[np.bool_]:
    """Return who (n,) is in a leaf."""
    inside = np.ones(len(matrix), dtype=np.bool_)
    for asked in rule.conditions:
        column = matrix[:, asked.feature]
        inside &= (np.isnan(column) if asked.threshold is None else column <= asked.threshold) == asked.holds
    return inside


def condition(rule: Rule, named: Sequence[Column]) -> dict[str, Any]:
    """Return a leaf as a condition: true of exactly the users of the leaf, by their values in the file.

    Other SDKs take an empty attribute for 0 in comparisons, so where a feature is empty for some, that is said.
    """
    parts = [_condition(asked, named[asked.feature]) for asked in rule.conditions]
    return {} if not parts else parts[0] if len(parts) == 1 else {"$and": parts}


def _condition(asked: Condition, column: Column) -> dict[str, Any]:
    feature = column.feature
    name, holes = feature.name, bool(np.isnan(feature.values).any())
    if asked.op == "missing":
        return {name: None} if asked.holds else {name: {"$ne": None}}
    if feature.kind == "category":
        return {name: {"$ne": column.label}} if asked.holds else {name: column.label}
    if feature.kind == "flag":
        # The one cut there is lies at false.
        return {name: False} if asked.holds else {name: {"$ne": False} if holes else True}
    limit = _number(asked.threshold)
    if _is_bit(feature):
        # In other SDKs an empty attribute is equal to 0, but for $eq.
        return {name: {"$eq": 0} if holes else 0} if asked.holds else {name: {"$ne": 0} if holes else 1}
    if not holes:
        return {name: {"$lte" if asked.holds else "$gt": limit}}
    found: dict[str, Any] = {name: {"$ne": None, "$lte": limit}}
    return found if asked.holds else {"$not": found}


def _is_bit(feature: Feature) -> bool:
    """Whether a number is only ever 0 or 1: then it says yes or no."""
    known = feature.values[~np.isnan(feature.values)]
    return feature.kind == "number" and bool(np.isin(known, (0.0, 1.0)).all())


def words(rule: Rule, named: Sequence[Column]) -> str:
    """Return a leaf in words."""
    cuts = {asked.feature for asked in rule.conditions if asked.op == "<="}
    unknown = {asked.feature: asked.holds for asked in rule.conditions if asked.op == "missing"}
    parts = []
    for asked in rule.conditions:
        # Who is unknown needs no cut, and of a cut among the known that is understood.
        implied = unknown.get(asked.feature, False) if asked.op == "<=" else not asked.holds and asked.feature in cuts
        if not implied and not any(_implies(other, asked) for other in rule.conditions):
            parts.append(_words(asked, named[asked.feature], holes=asked.feature not in unknown))
    return " and ".join(parts) or "everyone"


def _implies(one: Condition, other: Condition) -> bool:
    """Whether a cut leaves nothing to ask for another one of the same feature on the same side."""
    if (one.feature, one.op, one.holds) != (other.feature, other.op, other.holds):
        return False
    if one.threshold is None or other.threshold is None:
        return False
    return one.threshold < other.threshold if one.holds else one.threshold > other.threshold


def _words(asked: Condition, column: Column, *, holes: bool) -> str:
    feature = column.feature
    name, holes = feature.name, holes and bool(np.isnan(feature.values).any())
    if asked.op == "missing":
        return f"{name} is {'unknown' if asked.holds else 'known'}"
    if feature.kind == "category":
        return f"{name} is {'not ' if asked.holds else ''}{column.label}"
    if feature.kind == "flag":
        return f"{name} is {'false' if asked.holds else 'true or unknown' if holes else 'true'}"
    limit, beside = _number(asked.threshold), " or unknown" if holes and not asked.holds else ""
    known = np.unique(feature.values[~np.isnan(feature.values)])
    if known.size == 2:
        return f"{name} is {_number(float(known[0 if asked.holds else 1]))}{beside}"
    return f"{name} is {'at most' if asked.holds else 'above'} {limit}{beside}"


def _number(threshold: float | None) -> float | int:
    assert threshold is not None
    return int(threshold) if threshold.is_integer() else threshold
