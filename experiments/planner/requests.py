"""What is asked of the planner: plain numbers, a metric of the store, or an experiment."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from experiments.documents import field_problem
from experiments.errors import FieldProblem, InvalidDocument
from experiments.fields import Condition, Direction, Document, Key
from experiments.planner.forecasts import Baseline, Stopping
from experiments.plans import APART, Spending, apart
from stats import arms as builders
from stats.groupsequential import Spending as SpendingFunction
from stats.moments import Moments
from stats.power import Looks

_WEEKS = {"day": 1 / 7, "week": 1.0, "month": 365.25 / 12 / 7, "quarter": 365.25 / 4 / 7}

# Beyond these a square is no number.
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Positive = Annotated[float, Field(ge=1e-15, le=1e15)]


class ConversionBaseline(Document):
    """The share of users who do it: conversion, retention, a funnel's last step."""

    kind: Literal["conversion"]
    rate: float = Field(gt=0, lt=1)


class MeanBaseline(Document):
    """A number per user: his spending, the days until his event (no more than those he is watched)."""

    kind: Literal["mean"]
    mean: Number
    sd: Positive


class RatioBaseline(Document):
    """A ratio of sums, by the moments of numerator and denominator over users."""

    kind: Literal["ratio"]
    numerator_mean: Number
    numerator_sd: Positive
    denominator_mean: Positive
    denominator_sd: Annotated[float, Field(ge=0, le=1e15)]
    correlation: float = Field(ge=-1, le=1)


class QuantileBaseline(Document):
    """A quantile of the users' numbers: its value, and the ``density`` there (share of users per unit)."""

    kind: Literal["quantile"]
    quantile: float = Field(gt=0, lt=1)
    value: Number
    density: Positive


class MeasuredBaseline(Document):
    """A metric as it was lately: in a segment, among the users of a condition, or in everyone."""

    kind: Literal["measured"]
    metric: Key
    segment: Key | None = None
    condition: Condition | None = None


LookShares = Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(max_length=20)]
AnyBaseline = ConversionBaseline | MeanBaseline | RatioBaseline | QuantileBaseline | MeasuredBaseline


class TouchCap(Document):
    """A user may get ``touches`` per ``per``; the treatment needs ``needed`` of them."""

    touches: int = Field(ge=1, le=1000)
    per: Literal["day", "week", "month", "quarter"]
    needed: int = Field(default=1, ge=1, le=1000)

    @property
    def weeks(self) -> float:
        """Weeks until everyone on the list can have been treated."""
        return self.needed * _WEEKS[self.per] / self.touches


class _Asked(Document):
    """``effect`` is the size to be found, ``lift`` the same as a share of the baseline; ``weeks`` the time there is."""

    effect: Number | None = None
    lift: Number | None = None
    power: float = Field(default=0.8, ge=0.5, le=0.999)
    weeks: int = Field(default=12, ge=1, le=104)
    touch_cap: TouchCap | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Contradictions between fields: where, and the remedy."""
        if self.effect is not None and self.lift is not None:
            yield "lift", "give the effect in the metric's unit, or as a lift, not both"


class ExperimentPlanRequest(_Asked):
    """Plan an experiment of the store by its documents; the effect is that on the primary metric."""

    experiment: Key


class PlanRequest(_Asked):
    """Plan by numbers.

    ``weights`` of the arms, the control first, or their number ``arms``, equally large. ``metrics`` are judged together
    with as many comparisons each: ``bonferroni`` divides alpha by all of them. ``looks``: their number, or the shares
    of the users at which they fall. ``margin`` makes a guardrail of it. ``correlation`` is that of the outcome with its
    covariates. ``users`` are there now, ``weekly`` come every week; a user counts ``window_days`` after he came in. A
    measured baseline brings these five along, and the direction.
    """

    baseline: Annotated[AnyBaseline, Field(discriminator="kind")]
    arms: int = Field(default=2, ge=2, le=100)
    weights: list[Positive] | None = Field(default=None, min_length=2, max_length=100)
    direction: Direction | None = None
    margin: Positive | None = None
    alpha: float = Field(default=0.05, ge=1e-6, lt=0.5)
    correction: Literal["bonferroni", "none"] = "bonferroni"
    metrics: int = Field(default=1, ge=1, le=1000)
    method: Literal["sequential", "fixed", "group_sequential"] = "sequential"
    looks: Annotated[int, Field(ge=1, le=20)] | LookShares | None = None
    spending: Spending | None = None
    correlation: float | None = Field(default=None, gt=-1, lt=1)
    users: int | None = Field(default=None, ge=0, le=10**12)
    weekly: float | None = Field(default=None, ge=0, le=10**12)
    window_days: int | None = Field(default=None, ge=0, le=3650)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Contradictions between fields: where, and the remedy."""
        yield from super().problems()
        if "arms" in self.model_fields_set and self.weights is not None and len(self.weights) != self.arms:
            yield "weights", f"give a weight for each of the {self.arms} arms, or leave the arms out"
        if isinstance(self.baseline, MeasuredBaseline):
            if self.baseline.segment is not None and self.baseline.condition is not None:
                yield "baseline.condition", "give a segment or a condition, not both"
        elif all(value is None for value in (self.effect, self.lift, self.margin, self.users, self.weekly)):
            yield "effect", "give the effect to be found, or the users there are"
        if self.method != "group_sequential":
            if self.looks is not None:
                yield "looks", f"leave them out: {self.method} plans none; group_sequential does"
            if self.spending is not None:
                yield "spending", f"leave it out: {self.method} spends no error rate by looks; group_sequential does"
        elif self.looks is None:
            yield "looks", "give their number, such as 5, or shares of the users, such as [0.25, 0.5, 1]"
        elif isinstance(self.looks, list) and (not self.looks or self.looks[-1] != 1 or not apart(self.looks)):
            yield "looks", f"give shares of the users, rising by {APART} or more, the last 1: [0.25, 0.5, 1]"

    @property
    def shares(self) -> dict[str, float]:
        """Each arm's share of the users."""
        weights = self.weights or [1.0] * self.arms
        return {f"arm_{i}" if i else "control": weight / sum(weights) for i, weight in enumerate(weights)}

    @property
    def stopping(self) -> Stopping:
        """The rule of stopping as planning takes it."""
        if self.method != "group_sequential":
            return self.method
        spending = spending_function(self.spending)
        if isinstance(self.looks, int):
            return Looks.equal(self.looks, spending)
        return Looks(tuple(self.looks or ()), spending)


def spending_function(spending: Spending | None) -> SpendingFunction:
    """The function a document names, O'Brien and Fleming's where it names none."""
    return (
        SpendingFunction("obrien_fleming") if spending is None else SpendingFunction(spending.name, spending.parameter)
    )


Request = PlanRequest | ExperimentPlanRequest


_NUMBERS: TypeAdapter[PlanRequest] = TypeAdapter(PlanRequest)
_EXPERIMENT: TypeAdapter[ExperimentPlanRequest] = TypeAdapter(ExperimentPlanRequest)


def parse(body: Mapping[str, Any]) -> Request:
    """Decode a request strictly; one that names an experiment is about that. Raise InvalidDocument."""
    adapter: TypeAdapter[Any] = _EXPERIMENT if "experiment" in body else _NUMBERS
    try:
        request: Request = adapter.validate_json(json.dumps(body))
    except ValidationError as error:
        raise InvalidDocument([_problem(e) for e in error.errors(include_url=False)], "plan") from None
    problems = [FieldProblem(where, None, "inconsistent", remedy) for where, remedy in request.problems()]
    if problems:
        raise InvalidDocument(problems, "plan")
    return request


def _problem(error: Any) -> FieldProblem:
    found = field_problem(error)
    where = [str(part) for part in error["loc"]]
    if where[:1] == ["baseline"] and error["type"].startswith("union_tag"):
        kinds = "conversion, mean, ratio, quantile, measured"
        return replace(found, field="baseline.kind", remedy=f"give the kind of baseline: {kinds}")
    if where[:1] == ["baseline"]:
        del where[1:2]  # the kind, which is no field
    return replace(found, field=".".join(where) or "$")


def needs_store(request: Request) -> bool:
    """Whether the answer depends on a store."""
    return isinstance(request, ExperimentPlanRequest) or isinstance(request.baseline, MeasuredBaseline)


def given(base: AnyBaseline) -> Baseline:
    """The baseline that numbers describe."""
    if isinstance(base, ConversionBaseline):
        return Baseline(base.rate, base.rate * (1 - base.rate), share=True)
    if isinstance(base, MeanBaseline):
        return Baseline(base.mean, base.sd**2)
    if isinstance(base, QuantileBaseline):
        return Baseline(base.value, base.quantile * (1 - base.quantile) / base.density**2)
    assert isinstance(base, RatioBaseline)
    shared = base.correlation * base.numerator_sd * base.denominator_sd
    cross = np.array([[base.numerator_sd**2, shared], [shared, base.denominator_sd**2]])
    # Two users of such a spread: what is linearised keeps it.
    pair = Moments(2, np.array([base.numerator_mean, base.denominator_mean]), cross)
    linear = builders.linearised([[pair]])[0][0]
    return Baseline(float(linear.mean[-1]), float(linear.cross[-1, -1]))
