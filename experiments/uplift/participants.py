"""Uplift of a store's experiment: the question that its rows answer."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import structs

from experiments.documents import Experiment
from experiments.errors import FieldProblem, InvalidDocument
from experiments.report import Struct
from experiments.rows import OUTCOME, Rows
from experiments.uplift.answer import Answer, answer_table
from experiments.uplift.crossfit import Clock
from experiments.uplift.frame import MAX_LEVELS, MIN_ARM, refusal
from experiments.uplift.question import Question

MARGIN = "margin"
# An attribute that hardly anybody has teaches nothing, and its column of empty cells costs as much as any other.
MIN_KNOWN = 0.01
ATTRIBUTE = "user."


class LeftOut(Struct, frozen=True):
    """A feature that was not used, and why."""

    feature: str
    problem: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The question about an experiment, and what of its rows it leaves out.

    Attributes:
        table: a row for each user.
        question: about them.
        left_out: features that nothing can be learnt from, or that were not asked for.
        excluded: users who could not have got one of the variants, so that nothing is known of its effect on them.
    """

    table: pa.Table
    question: Question
    left_out: tuple[LeftOut, ...]
    excluded: int


def draft(experiment: Experiment, metric: str, direction: str, **options: Any) -> Question:
    """Return the question about an experiment, its features left open.

    The variants' costs and the margin count where the metric is the one that the experiment's value is about: only then
    are both money. Of a metric that should go down each unit counts as lost.

    Args:
        experiment: the document.
        metric: key of the metric.
        direction: "up" or "down".
        options: of the question: learners, folds, seed, budget, depth.

    Raises:
        InvalidDocument: a budget without costs; a metric that is worth nothing.
    """
    unit = unit_value(experiment, metric, direction)
    if unit == 0:
        remedy = f"give a margin above 0: at this one the metric {metric!r} is worth nothing"
        raise InvalidDocument([FieldProblem("value.margin", 0.0, "out_of_range", remedy)], "experiment")
    possible = {variant for part in experiment.shares().values() for variant, share in part.items() if share > 0}
    variants = [variant for variant in experiment.variants if variant.key in possible]
    valued = experiment.value is not None and experiment.value.metric == metric
    costs = {variant.key: float(variant.costs.per_user) for variant in variants} if valued else {}
    if options.get("budget") is not None and not any(costs.values()):
        remedy = "leave it out: the variants have no costs, or the value of the experiment is about another metric"
        raise InvalidDocument([FieldProblem("budget", options["budget"], "inconsistent", remedy)], "request")
    return Question(
        variant="variant",
        control=experiment.control,
        outcome=OUTCOME,
        features=(),
        value=None if unit == 1 else MARGIN,
        unit="user_id",
        chances={variant.key: f"chance.{variant.key}" for variant in variants},
        costs=costs,
        **options,
    )


def unit_value(experiment: Experiment, metric: str, direction: str) -> float:
    """Return what one unit of the metric counts: its margin where it has one, negative where it should go down."""
    value = experiment.value
    margin = value.margin if value is not None and value.metric == metric else 1.0
    return margin if direction == "up" else -margin


def question(rows: Rows, *, attributes: bool = False, leave_out: Collection[str] = (), **options: Any) -> Asked:
    """Return the question about the rows of an experiment, with all their features that can be used.

    Args:
        rows: of the experiment.
        attributes: use only what a policy can ask of a user later: attributes that are no lists.
        leave_out: features not to use.
        options: of the question.

    Raises:
        InvalidDocument: no feature can be used, or an option does not fit.
    """
    experiment = rows.experiment
    asked = draft(experiment, rows.metric, rows.direction, **options)
    chances = np.column_stack([rows.table[column].to_numpy() for column in asked.chances.values()])
    possible = (chances > 0).all(axis=1)
    table = rows.table.filter(pa.array(possible))
    for variant in asked.chances:
        if variant not in table["variant"].unique().to_pylist():
            remedy = f"wait until {MIN_ARM} users or more of each variant have matured"
            raise InvalidDocument([FieldProblem("variant", variant, "too_few", remedy)], "request")
    if asked.value is not None:
        value = unit_value(experiment, rows.metric, rows.direction)
        table = table.append_column(MARGIN, pa.array(np.full(table.num_rows, value)))
    left_out = []
    used = []
    for name in rows.features:
        if name in leave_out:
            problem: str | None = "not_wanted"
        else:
            problem = "not_an_attribute" if attributes and not servable(name) else _problem(table[name], name)
        if problem is None:
            used.append(name)
        else:
            left_out.append(LeftOut(name, problem))
    if not used:
        remedy = "send attributes with exposures or before them: no feature tells users apart"
        names = [each.feature for each in left_out]
        raise InvalidDocument([FieldProblem("features", names, "none_usable", remedy)], "request")
    told_apart = bool(experiment.strata) and 2 <= len(table["stratum"].unique()) <= MAX_LEVELS
    asked = replace(asked, features=tuple(used), segment="stratum" if told_apart else None)
    return Asked(table, asked, tuple(left_out), int((~possible).sum()))


def servable(feature: str) -> bool:
    """Whether a condition on attributes can ask for a feature: what was done before, or is in a list, it cannot."""
    return feature.startswith(ATTRIBUTE) and not feature.startswith(f"{ATTRIBUTE}$") and "=" not in feature


def _problem(column: pa.ChunkedArray, name: str) -> str | None:
    if len(column) - column.null_count < MIN_KNOWN * len(column):
        return "nearly_empty"
    found = refusal(column, name)
    return None if found is None else found.problem


def answer(asked: Asked, rows: Rows, *, clock: Clock, progress: Callable[[int], object] = lambda _: None) -> Answer:
    """Answer the question about an experiment, in the experiment's own names; see ``answer.answer``."""
    found = answer_table(asked.table, asked.question, name=rows.experiment.name, clock=clock, progress=progress)
    return replace(found, report=structs.replace(found.report, outcome=rows.metric))


def baseline(found: Answer, unit: float) -> float | None:
    """Return the mean of the metric, without treatment, of the users whom the rules treat.

    It is that of those of them who got the control, weighted by the chances; None where there are none. ``unit``: what
    one unit of the metric counts.
    """
    frame = found.frame
    here = (found.tree > 0) & (frame.arm == 0)
    if not here.any():
        return None
    weights = 1 / frame.propensity[here, 0]
    return float((weights * frame.outcome[here]).sum() / weights.sum()) / unit
