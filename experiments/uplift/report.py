"""The answer about uplift, schema ``upturn.uplift/1``: who gains, whether that can be used, and what it is worth.

Amounts are per user, in the unit of the outcome times its value, unless a field says otherwise.
"""

from typing import Any, Literal

import msgspec

from experiments.report import Interval, Struct
from stats.policy_value import Estimate

SCHEMA: Literal["upturn.uplift/1"] = "upturn.uplift/1"

Verdict = Literal["target", "rank", "everyone", "nobody", "inconclusive", "invalid"]
QuadrantName = Literal["persuadable", "sure_thing", "lost_cause", "do_not_disturb"]
PolicyName = Literal["constant", "segments", "model", "tree"]
Shares = Literal["weights", "counts", "strata", "chances"]


class Arm(Struct, frozen=True):
    """A variant: its users, their mean outcome, the cost of giving it to a user."""

    variant: str
    users: int
    mean: float
    cost: float


class FeatureUsed(Struct, frozen=True):
    """A column known before the treatment. ``categories``: the values told apart."""

    name: str
    kind: Literal["number", "flag", "category"]
    missing: float
    categories: list[str]


class Rate(Struct, frozen=True):
    """The area under the targeting curve (AUTOC) of the list for one variant against the control: 0 for a random list.

    ``interval`` is None where the learner gave everybody the same effect. ``p_value``: of the list being random, from
    models of earlier folds, adjusted for all lists of all learners.
    """

    variant: str
    interval: Interval | None
    p_value: float


class Learned(Struct, frozen=True):
    """One learner on users it has not seen.

    ``qini``: area between its list and a random one, per user, net of costs; several variants: the list names one
    for each user, and the random one gives the best. ``score``: the mean of this area and those of the lists for each
    variant, by which the best learner is chosen. ``gain``: of giving each user what it says, over the best
    single variant. ``seconds``: training and predicting.
    """

    learner: str
    qini: Interval
    qini_p_value: float
    score: float
    rates: list[Rate]
    gain: Interval
    seconds: float


class TocPoint(Struct, frozen=True):
    """The first ``share`` of the list: their mean effect less that of all, with its pointwise interval."""

    share: float
    above: Interval


class Toc(Struct, frozen=True):
    """The targeting curve (TOC) of the chosen learner's list for one variant, whose mean height is the AUTOC.

    ``mean``: the effect of the variant on all, net of costs; a point's effect is ``mean`` and its ``above`` together.
    """

    variant: str
    mean: float
    points: list[TocPoint]


class SegmentFound(Struct, frozen=True):
    """A segment, and the variant that is best in it.

    ``effect``: of the variant on these users against the control, net of costs, on the users it was chosen by: somewhat
    too good.
    """

    segment: str
    variant: str
    users: int
    effect: Interval | None


class PolicyValue(Struct, frozen=True):
    """What a policy is worth, net of costs, on users its models have not seen.

    ``segments``: in each segment the variant that is best there, chosen on other users too. ``gain``: over the best
    single variant (chosen on other users), None for that constant itself. ``check``: the gap to an estimate without
    models, in standard errors.
    """

    policy: PolicyName
    variant: str | None
    shares: dict[str, float]
    value: Interval
    over_control: Interval
    gain: Interval | None
    check: float


class CalibrationBin(Struct, frozen=True):
    """Users with similar predictions: the predicted effect, and the one that came."""

    users: int
    predicted: float
    realised: Interval


class Calibration(Struct, frozen=True):
    """Of the chosen learner, for one variant. ``slope``: 1 calibrated, 0 no information, below 1 too bold."""

    variant: str
    bins: list[CalibrationBin]
    slope: Interval


class Quadrant(Struct, frozen=True):
    """A part of the users by predicted effect of ``variant`` and predicted outcome without it.

    ``effect``: what the variant did to them, net of its cost, per user; ``total``: the sum over the users of the file.
    Both are None where the users are too few.
    """

    quadrant: QuadrantName
    variant: str
    users: int
    share: float
    baseline: float
    effect: Interval | None
    total: Interval | None


class Driver(Struct, frozen=True):
    """How much of the variation of the predicted effects is lost when a feature is shuffled."""

    feature: str
    share: float


class RuleFound(Struct, frozen=True):
    """A leaf of the tree: who, in words and as a condition of the rule language, and what he gets.

    ``effect``: of the variant on these users against the control, net of costs, on the users the tree was made of: too
    good by as much as the tree was fitted.
    """

    words: str
    condition: dict[str, Any]
    variant: str
    users: int
    effect: Interval | None


class Leakage(Struct, frozen=True):
    """Do the predictions know who got what? They cannot, if all features were known before."""

    p_value: float
    variant: str
    found: bool


class BudgetPoint(Struct, frozen=True):
    """Totals over the users of the file: what was spent, who was contacted, what it brings before costs.

    ``users``: how many get each variant. ``next_thousand``: what the next 1,000 of the unit are expected to bring, or
    as many of them as there is a use for.
    """

    spend: float
    contacts: int
    expected: float
    realised: Interval
    users: dict[str, int] = msgspec.field(default_factory=dict)
    next_thousand: float | None = None


class Budget(Struct, frozen=True):
    """The best use of each budget. ``unit``: money, or contacts where nothing has a cost.

    ``next``: what the next hundredth of the whole spend is expected to bring, at ``at``.
    """

    unit: Literal["money", "contacts"]
    points: list[BudgetPoint]
    at: BudgetPoint | None
    next: float | None


class Method(Struct, frozen=True):
    """How the numbers were made."""

    folds: int
    seed: int
    alpha: float
    learners: list[str]
    propensity: Shares


class Uplift(Struct, frozen=True, kw_only=True):
    """The whole answer.

    ``best``: the learner with the largest score; what is said of models is said of it. ``usable``: whether any list is
    better than a random one, with ``p_value`` (adjusted); if not, there are no quadrants, drivers and rules.
    """

    schema: Literal["upturn.uplift/1"] = SCHEMA
    name: str
    users: int
    outcome: str
    value: str | None
    unit: Literal["share", "amount"]
    control: str
    arms: list[Arm]
    features: list[FeatureUsed]
    method: Method
    verdict: Verdict
    variant: str | None
    usable: bool
    p_value: float
    best: str
    learners: list[Learned]
    policies: list[PolicyValue]
    calibration: list[Calibration]
    quadrants: list[Quadrant]
    drivers: list[Driver]
    rules: list[RuleFound]
    leakage: Leakage
    budget: Budget
    segments: list[SegmentFound] = msgspec.field(default_factory=list)
    toc: list[Toc] = msgspec.field(default_factory=list)


def interval(estimate: Estimate) -> Interval:
    """Return an estimate as the report holds it."""
    return Interval(estimate.estimate, estimate.lower, estimate.upper)


def encode(report: Uplift) -> bytes:
    """Return the report as JSON bytes."""
    return msgspec.json.encode(report)


def decode(body: bytes | str) -> Uplift:
    """Read a report back."""
    return msgspec.json.decode(body, type=Uplift)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **msgspec.json.schema(Uplift),
    }
