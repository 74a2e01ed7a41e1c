"""What the chosen learner says of users: the four kinds of them, what the effects rest on, and the use of a budget."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from experiments.report import Interval
from experiments.uplift import report
from experiments.uplift.crossfit import Crossfit
from experiments.uplift.report import interval
from stats import budget, policy_value, uplift
from stats.errors import StatError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Users of one kind, below which their effect is not told.
MIN_USERS = 200
_POINTS = 21
_SHARES = np.arange(1, 21) / 20
_NEXT = 0.01
_THOUSAND = 1000.0


def quadrants(found: Crossfit, effects: Floats, variant: int, alpha: float) -> list[report.Quadrant]:
    """Return the four kinds of users, for the variant that is best for all.

    Predicted to lose by it: do not disturb. To gain at least the mean effect, and more than its cost: persuadable. Of
    the others, those whose outcome without it is at least the mean are sure things, the rest lost causes.
    """
    effect = effects[:, variant - 1]
    net = policy_value.net(found.scores, found.frame.costs)
    baseline = found.predictions[:, 0]
    high = baseline >= baseline.mean()
    cost = found.frame.costs[variant] - found.frame.costs[0]
    disturb = effect < 0
    persuadable = ~disturb & (effect > cost) & (effect >= effect.mean())
    rest = ~disturb & ~persuadable
    kinds: dict[report.QuadrantName, Bools] = {
        "persuadable": persuadable,
        "sure_thing": rest & high,
        "lost_cause": rest & ~high,
        "do_not_disturb": disturb,
    }
    made = []
    for kind, here in kinds.items():
        users = int(here.sum())
        if not users:
            continue
        effect_here = total = None
        if users >= MIN_USERS:
            given = np.full(users, variant)
            effect_here = interval(policy_value.gain(net[here], given, np.zeros_like(given), alpha=alpha))
            total = Interval(effect_here.estimate * users, effect_here.lower * users, effect_here.upper * users)
        made.append(
            report.Quadrant(
                quadrant=kind,
                variant=found.frame.names[variant],
                users=users,
                share=users / len(net),
                baseline=float(baseline[here].mean()),
                effect=effect_here,
                total=total,
            )
        )
    return made


def drivers(found: Crossfit, learner: str, rng: np.random.Generator) -> list[report.Driver]:
    """Return what the effects rest on: the share of their variance that goes when a feature is shuffled.

    Half the mean square of the change, over the variance (the total index of Sobol', 2001), of features in the order of
    the share. Shares of features that act together sum to more than 1.
    """
    effects = found.effects[learner]
    variance = float(effects.var(axis=0).sum())
    made = []
    for place, feature in enumerate(found.frame.features):
        columns = np.flatnonzero(found.owner == place)
        changed = 0.0
        for each, model in enumerate(found.models[learner]):
            here = np.flatnonzero(found.fold == each)
            shuffled = found.matrix[here]
            shuffled[:, columns] = found.matrix[np.ix_(rng.permutation(here), columns)]
            moved = model.effects(shuffled, found.frame.propensity[here]) - effects[here]
            changed += 0.5 * float((moved**2).sum())
        share = changed / len(effects) / variance if variance > 0 else 0.0
        made.append(report.Driver(feature.name, share))
    return sorted(made, key=lambda driver: (-driver.share, driver.feature))


def targeting(found: Crossfit, effects: Floats, alpha: float) -> list[report.Toc]:
    """Return the targeting curve of the list for each variant, net of costs.

    Each fold has a list of its own, as the scales of their models differ: a user's place is that in his fold's.
    """
    net = policy_value.net(found.scores, found.frame.costs)
    made = []
    for k, name in enumerate(found.frame.names[1:], 1):
        gains = net[:, k] - net[:, 0]
        try:
            curve = uplift.toc(_places(effects[:, k - 1], found.fold), gains, _SHARES, alpha)
        except StatError:
            continue
        limits = zip(curve.share, curve.estimate, curve.lower, curve.upper, strict=True)
        points = [
            report.TocPoint(float(share), Interval(float(mean), float(low), float(high)))
            for share, mean, low, high in limits
        ]
        made.append(report.Toc(name, float(gains.mean()), points))
    return made


def _places(priority: Floats, fold: npt.NDArray[np.int64]) -> Floats:
    """The place (n,) of each user in the list of his fold, from 0 to 1, ties in the middle of theirs."""
    places = np.empty(priority.size)
    for each in np.unique(fold):
        here = fold == each
        ordered = np.sort(priority[here])
        ends = [ordered.searchsorted(priority[here], side=side) for side in ("left", "right")]
        places[here] = (ends[0] + ends[1]) / 2 / ordered.size
    return places


def spending(found: Crossfit, effects: Floats, available: float | None, alpha: float) -> report.Budget:
    """Return the best use of each budget by predicted effects, with what it brought by the scores.

    Where no variant costs anything, contacts are what is rationed.
    """
    gains = np.column_stack([np.zeros(len(effects)), effects])
    costs = found.frame.costs - found.frame.costs[0]
    money = bool((costs != 0).any())
    use = np.maximum(costs, 0.0) if money else (np.arange(gains.shape[1]) > 0).astype(float)
    curve = budget.spend_curve(gains, use, _POINTS, found.scores, alpha)

    def points(curve: budget.SpendCurve) -> list[report.BudgetPoint]:
        further = budget.spend_curve(gains, use, np.concatenate([curve.spend, curve.spend + _THOUSAND]))
        following = [budget.marginal(further, float(spend), _THOUSAND) for spend in curve.spend]
        return _points(curve, found.frame.names, following)

    at = following = None
    if available is not None:
        whole = curve if available < curve.spend[-1] else None
        asked = budget.spend_curve(gains, use, [min(available, float(curve.spend[-1]))], found.scores, alpha)
        at = points(asked)[-1]
        following = budget.marginal(curve, at.spend, _NEXT * float(curve.spend[-1])) if whole is not None else 0.0
    return report.Budget("money" if money else "contacts", points(curve), at, following)


def _points(curve: budget.SpendCurve, names: Sequence[str], following: Sequence[float]) -> list[report.BudgetPoint]:
    assert curve.realised is not None
    assert curve.lower is not None
    assert curve.upper is not None
    columns = curve.spend, curve.contacts, curve.gain, curve.realised, curve.lower, curve.upper, curve.users, following
    return [
        report.BudgetPoint(
            float(spend),
            int(contacts),
            float(gain),
            Interval(float(mean), float(low), float(high)),
            dict(zip(names, users.tolist(), strict=True)),
            next_thousand,
        )
        for spend, contacts, gain, mean, low, high, users, next_thousand in zip(*columns, strict=True)
    ]
