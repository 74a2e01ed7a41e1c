"""Factorial designs: the arms are cells of several factors (copy x offer x frequency), some of them perhaps not run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from stats.arms import ArmVector
from stats.contrasts import ChiSquare, linear, wald
from stats.effects import Effect
from stats.errors import Problem, StatError
from stats.horizon import Horizon
from stats.moments import Floats

__all__ = ["FactorEffect", "additivity", "effects"]

# Least-squares weights are ratios of small integers in a balanced design; this much is rounding.
_ROUNDING = 1e-10

Cells = Sequence[Mapping[str, str]]
Levels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FactorEffect:
    """A main effect (one factor and level) or a two-factor interaction (two), against the baseline levels.

    `assumed`: cells are missing, so the effect is that of a model without the interactions of higher order.
    Either `effect` or `problem` is None.
    """

    factors: Levels
    effect: Effect | None
    problem: Problem | None
    assumed: bool


def effects(arms: ArmVector, levels: Cells, baseline: Mapping[str, str], horizon: Horizon) -> list[FactorEffect]:
    """Main effects of each level against the baseline level, then two-factor interactions (Yates 1937).

    `levels[k]` names the level of every factor in cell k. A main effect is mean(level) - mean(baseline level), averaged
    with equal weight over the cells of the other factors; an interaction is the difference of such differences.
    Equal weights keep the meaning apart from the allocation: what the level adds if the other tactics are used equally.
    Where a cell that is needed is missing, the effect is the unweighted least-squares coefficient of the model without
    higher interactions (`assumed`), and `not_enough_data` where that model does not determine it either.
    """
    _check(arms, levels)
    if set(baseline) != set(levels[0]) or any(
        all(cell[factor] != level for cell in levels) for factor, level in baseline.items()
    ):
        raise ValueError("baseline must name one tested level of every factor")
    others = {f: [lv for lv in dict.fromkeys(c[f] for c in levels) if lv != base] for f, base in baseline.items()}
    mains: list[Levels] = [((factor, level),) for factor, tested in others.items() for level in tested]
    pairs: list[Levels] = [(*first, *second) for first, second in combinations(mains, 2) if first[0][0] != second[0][0]]
    found = []
    for wanted, terms in [*((m, mains) for m in mains), *((p, [*mains, *pairs]) for p in pairs)]:
        weights = _full(levels, wanted, baseline)
        assumed = weights is None
        if weights is None:
            weights = _modelled(levels, terms, wanted)
        found.append(_effect(arms, wanted, weights, assumed, horizon))
    return found


def additivity(arms: ArmVector, levels: Cells) -> ChiSquare:
    """Joint test of all interactions of any order: do the effects of the factors simply add up?

    Wald test of the residual of the cells from the model of main effects. Raises StatError(not_enough_data) when the
    cells do not allow a single interaction.
    """
    _check(arms, levels)
    baseline = levels[0]
    mains: list[Levels] = [((f, lv),) for f in baseline for lv in {c[f]: None for c in levels} if lv != baseline[f]]
    design = _design(levels, mains)
    u, values, _ = np.linalg.svd(design)
    rank = int((values > _ROUNDING * values[0]).sum())
    if rank == len(levels):
        raise StatError(Problem.NOT_ENOUGH_DATA, cells=len(levels), needed=rank + 1)
    return wald(arms, u[:, rank:].T)


def _effect(arms: ArmVector, wanted: Levels, weights: Floats | None, assumed: bool, horizon: Horizon) -> FactorEffect:
    if weights is None:
        return FactorEffect(wanted, None, Problem.NOT_ENOUGH_DATA, assumed)
    try:
        return FactorEffect(wanted, linear(arms, weights, horizon), None, assumed)
    except StatError as error:
        return FactorEffect(wanted, None, error.code, assumed)


def _full(levels: Cells, wanted: Levels, baseline: Mapping[str, str]) -> Floats | None:
    """Weights of the average over all other factors, None when one of the cells is missing."""
    index = {tuple(cell[f] for f in baseline): k for k, cell in enumerate(levels)}
    chosen = dict(wanted)
    rest = {tuple(c[f] for f in baseline if f not in chosen) for c in levels}
    weights = np.zeros(len(levels))
    for combination in rest:
        for signs in product((1, -1), repeat=len(wanted)):
            at = {f: lv if sign > 0 else baseline[f] for (f, lv), sign in zip(wanted, signs, strict=True)}
            free = iter(combination)
            k = index.get(tuple(at[f] if f in at else next(free) for f in baseline))
            if k is None:
                return None
            weights[k] += np.prod(signs) / len(rest)
    return weights


def _modelled(levels: Cells, terms: Sequence[Levels], wanted: Levels) -> Floats | None:
    """Weights of the least-squares coefficient of `wanted` among `terms`, None when it is not estimable."""
    design = _design(levels, terms)
    inverse = np.linalg.pinv(design)
    target = np.zeros(design.shape[1])
    target[1 + list(terms).index(wanted)] = 1.0
    weights: Floats = target @ inverse
    if np.abs(weights @ design - target).max() > _ROUNDING:
        return None
    weights[np.abs(weights) < _ROUNDING] = 0.0
    return weights


def _design(levels: Cells, terms: Sequence[Levels]) -> Floats:
    """One row per cell: a constant, then for each term whether the cell has all of its levels."""
    rows = [[1.0, *(float(all(cell[f] == lv for f, lv in term)) for term in terms)] for cell in levels]
    return np.array(rows)


def _check(arms: ArmVector, levels: Cells) -> None:
    if len(levels) != arms.mean.size:
        raise ValueError("levels must describe every arm")
    if any(set(cell) != set(levels[0]) for cell in levels):
        raise ValueError("every cell must name the same factors")
    if len({tuple(sorted(cell.items())) for cell in levels}) < len(levels):
        raise ValueError("two cells have the same levels: merge their moments")
