"""What is asked of a file about uplift, and whether the parts of the question agree: everything that needs no data."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.errors import FieldProblem
from experiments.uplift.learners import DEFAULT, LEARNERS


@dataclass(frozen=True, slots=True)
class Question:
    """Who gains from which variant?

    Args:
        variant: column that tells each user's variant.
        control: its value for the control.
        outcome: column of numbers, what should go up: 0/1 or an amount.
        features: columns known before the treatment, numbers or text.
        value: column of what one unit of the outcome is worth; may be empty where the outcome is 0.
        unit: column of the user's id; the row's number if not given.
        strata: columns of groups with shares of their own.
        segment: column of the segments that could each get a variant of their own.
        weights: the designed split, the same in all groups; what was counted if not given.
        chances: of each variant the column of its known chance, user by user; instead of strata or weights.
        costs: cost per user of giving him a variant; 0 if not given.
        learners: which learners compete.
        folds: parts of the cross-validation.
        seed: of the folds and of the learners.
        budget: money to be spent, or None.
        depth: of the policy tree.
        alpha: one minus the level of the intervals, and the chance of calling noise usable.
    """

    variant: str
    control: str
    outcome: str
    features: Sequence[str]
    value: str | None = None
    unit: str | None = None
    strata: Sequence[str] = ()
    segment: str | None = None
    weights: Mapping[str, float] | None = None
    chances: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    learners: Sequence[str] = DEFAULT
    folds: int = 5
    seed: int = 1
    budget: float | None = None
    depth: int = 2
    alpha: float = 0.05

    def columns(self) -> list[tuple[str, str]]:
        """Return the option and the column, for each column that is read."""
        named = [("variant", self.variant), ("outcome", self.outcome), ("value", self.value), ("unit", self.unit)]
        found = [(option, column) for option, column in named if column is not None]
        found += [("stratum", column) for column in self.strata]
        found += [("segment", self.segment)] if self.segment is not None else []
        found += [("chances", column) for column in self.chances.values()]
        return [*found, *(("feature", column) for column in self.features)]


def problems(question: Question) -> Iterator[FieldProblem]:
    """What in the question contradicts the rest of it."""
    if not question.features:
        yield FieldProblem("feature", None, "missing", "name at least one column known before the treatment")
    taken = {"the variant": question.variant, "the outcome": question.outcome, "the value": question.value}
    for role, column in taken.items():
        if column is not None and column in question.features:
            remedy = f"leave it out: it is {role}, which nobody knows before the treatment"
            yield FieldProblem("feature", column, "known_after_treatment", remedy)
        if column is not None and column == question.segment:
            remedy = f"name another column: it is {role}, which nobody knows before the treatment"
            yield FieldProblem("segment", column, "known_after_treatment", remedy)
    for column in dict.fromkeys(question.features):
        if list(question.features).count(column) > 1:
            yield FieldProblem("feature", column, "not_unique", "name each column once")
    for name in question.learners:
        if name not in LEARNERS:
            yield FieldProblem("learner", name, "unknown_learner", f"choose from {', '.join(LEARNERS)}")
    if not question.learners:
        yield FieldProblem("learner", None, "missing", f"choose from {', '.join(LEARNERS)}")
    ranges = {"folds": (question.folds, 3, 20), "depth": (question.depth, 1, 3), "seed": (question.seed, 0, 2**31 - 1)}
    for option, (value, least, most) in ranges.items():
        if not least <= value <= most:
            yield FieldProblem(option, value, "out_of_range", f"give a whole number from {least} to {most}")
    if not 0 < question.alpha < 0.5:
        yield FieldProblem("alpha", question.alpha, "out_of_range", "give a number between 0 and 0.5")
    if question.budget is not None and not 0 < question.budget < math.inf:
        yield FieldProblem("budget", question.budget, "out_of_range", "give an amount above 0")
    if question.budget is not None and not any(question.costs.values()):
        yield FieldProblem(
            "budget", question.budget, "inconsistent", "give --cost too: what costs nothing is not rationed"
        )
    for name, cost in question.costs.items():
        if not 0 <= cost < math.inf:
            yield FieldProblem("cost", {name: cost}, "out_of_range", "give a number of 0 or more")
    if question.chances and (question.strata or question.weights is not None):
        remedy = "leave out weights and strata: the chances are known"
        yield FieldProblem("chances", dict(question.chances), "inconsistent", remedy)
    if question.strata and question.weights is not None:
        yield FieldProblem("weights", dict(question.weights), "inconsistent", "leave out --weights or --stratum")
