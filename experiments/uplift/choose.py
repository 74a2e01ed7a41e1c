"""Which learner ranks users best, and whether any of them knows more than a coin.

A learner is judged by the Qini areas of its lists, one for each variant against the control, and one over all variants
(Sverdrup, Wu, Athey & Wager 2023): go down the list, give each user the variant it names for him, and compare with
giving as many users, drawn at random, the variant that is best for all. The mean of the areas decides: where two
variants are about as good, the last one alone is mostly chance. Lists are cut within each fold, as the scales of the
models differ.

Whether there is anything to use is asked otherwise. Statistics of folds whose models saw each other's users are
dependent, and their sum rejects too often where nothing is to be found. So each fold is judged by models of earlier
folds only: the sum of the folds' t is then a martingale, and normal (Wager 2024, "Sequential validation of treatment
heterogeneity"). The largest of all learners and lists is held against the largest of as many correlated normals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.uplift.crossfit import Crossfit
from stats import policy_value, uplift
from stats.policy_value import Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS = 20_000
# Of a list without an order less than this is left, as a share of the spread of the scores.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Test:
    """One list of one learner against random lists. ``variant`` None: the Qini area over all variants."""

    learner: str
    variant: int | None
    statistic: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The learner that ranks best, and whether that is more than chance.

    Attributes:
        learner: the one with the largest score.
        score: of each learner, the mean Qini area of its lists.
        qini: of each learner, the area of the list over all variants, per user, net of costs.
        tests: of each learner and list, adjusted for there being several.
        p_value: the smallest of them.
        usable: it is below alpha.
    """

    learner: str
    score: Mapping[str, float]
    qini: Mapping[str, Estimate]
    tests: Sequence[Test]
    p_value: float
    usable: bool


def policy(effects: Floats, costs: Floats) -> Ints:
    """Return the variant (n,) with the largest effect (n, K-1) less its cost; the control where none is worth it."""
    net = effects - (costs[1:] - costs[0])
    return np.where(net.max(axis=1) > 0, net.argmax(axis=1) + 1, 0)


def choose(found: Crossfit, *, alpha: float, rng: np.random.Generator) -> Choice:
    """Choose a learner, and test whether its list is of use."""
    net = policy_value.net(found.scores, found.frame.costs)
    qini = {name: _area(found, net, effects, alpha) for name, effects in found.effects.items()}
    tests = _tests(found, net, rng)
    smallest = min(test.p_value for test in tests)
    score = {name: _score(found, net, qini[name], effects) for name, effects in found.effects.items()}
    return Choice(max(score, key=lambda name: score[name]), score, qini, tests, smallest, smallest <= alpha)


def _area(found: Crossfit, net: Floats, effects: Floats, alpha: float) -> Estimate:
    """The Qini area of a learner, each fold's list by itself."""
    reference = best_treated(net, found.fold)
    area, influence = _qini(net, effects, found.frame.costs, reference, found.fold)
    if not np.any(np.abs(influence) > ROUNDING * net.std()):
        return Estimate(0.0, 0.0, 0.0, 0.0, 1.0)
    return policy_value.from_influence(area, influence, alpha)


def _score(found: Crossfit, net: Floats, qini: Estimate, effects: Floats) -> float:
    areas = [
        uplift.rate_influence(effects[:, k - 1], net[:, k] - net[:, 0], "qini", found.fold)[0]
        for k in range(1, net.shape[1])
    ]
    return float(np.mean([qini.estimate, *areas]))


def best_treated(net: Floats, fold: Ints) -> Ints:
    """Return the variant other than the control (n,) that is best for all, as the other folds have it."""
    return policy_value.constant_elsewhere(net[:, 1:], fold) + 1 if net.shape[1] > 2 else np.ones(len(net), dtype=int)


def _qini(
    net: Floats, effects: Floats, costs: Floats, reference: Ints, fold: Ints | None = None
) -> tuple[float, Floats]:
    """The area and its centred influence values (n,): that of the list, and half of what the variants named add."""
    lead = effects - (costs[1:] - costs[0])
    rows = np.arange(len(net))
    named = net[rows, lead.argmax(axis=1) + 1]
    area, influence = uplift.rate_influence(lead.max(axis=1), named - net[:, 0], "qini", fold)
    better = 0.5 * (named - net[rows, reference])
    return area + float(better.mean()), influence + better - better.mean()


def _tests(found: Crossfit, net: Floats, rng: np.random.Generator) -> list[Test]:
    """One-sided tests of all learners and lists, adjusted for being the largest."""
    names = [(name, k) for name in found.forward for k in (*range(1, net.shape[1]), None)]
    folds = range(found.first, int(found.fold.max()) + 1)
    statistic = np.zeros(len(names))
    correlation = np.zeros((len(names), len(names)))
    for each in folds:
        here, before = found.fold == each, found.fold < each
        best = int(net[before, 1:].mean(axis=0).argmax()) + 1
        lists = [_list(found, net, name, k, here, best) for name, k in names]
        mean = np.array([area for area, _ in lists])
        influence = np.column_stack([values for _, values in lists])
        spread = np.sqrt((influence**2).mean(axis=0))
        live = spread > ROUNDING * net.std()
        scale = np.where(live, spread, np.inf)
        statistic += mean / scale * np.sqrt(len(influence))
        correlation += (influence / scale).T @ (influence / scale) / len(influence)
    statistic /= np.sqrt(len(folds))
    correlation /= len(folds)
    values, vectors = np.linalg.eigh(correlation)
    draws = rng.standard_normal((DRAWS, len(names))) @ (vectors * np.sqrt(values.clip(0))).T
    largest = draws.max(axis=1)
    return [
        Test(name, k, float(t), float((1 + (largest >= t).sum()) / (1 + DRAWS)))
        for (name, k), t in zip(names, statistic, strict=True)
    ]


def _list(
    found: Crossfit, net: Floats, name: str, variant: int | None, here: npt.NDArray[np.bool_], best: int
) -> tuple[float, Floats]:
    effects = found.forward[name][here]
    if variant is None:
        return _qini(net[here], effects, found.frame.costs, np.full(int(here.sum()), best))
    return uplift.rate_influence(effects[:, variant - 1], net[here, variant] - net[here, 0])
