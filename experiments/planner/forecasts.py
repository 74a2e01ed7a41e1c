"""The pure part: from a baseline, the arms, the rule of stopping and the users there are, to what a test can show.

Sizes are positive in the good direction. A guardrail (with a margin) is asked for the margin it can prove.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Final, Literal

import scipy.optimize

from experiments.errors import FieldProblem, InvalidDocument
from experiments.fields import Direction
from stats import effects
from stats import power as planning
from stats.errors import Problem, StatError
from stats.groupsequential import Spending
from stats.power import Looks

Stopping = Literal["fixed", "sequential"] | Looks
_At = Callable[[int], tuple["Size | None", Problem | None]]

# Alternatives that are proposed: a covariate as good as many are, and the usual looks.
USUAL_CORRELATION: Final = 0.5
USUAL_LOOKS: Final = Looks.equal(5, Spending("obrien_fleming"))


class AdviceCode(StrEnum):
    """What a planner should know or could do."""

    fine = "fine"
    longer = "longer"
    list_too_small = "list_too_small"
    touch_cap_binds = "touch_cap_binds"
    drop_an_arm = "drop_an_arm"
    use_covariate = "use_covariate"
    plan_looks = "plan_looks"


@dataclass(frozen=True, slots=True)
class Size:
    """A change in the metric's unit, and as a share of the baseline (None where that is zero)."""

    absolute: float
    relative: float | None


@dataclass(frozen=True, slots=True)
class Advice:
    """A code, and what comes of it: the users needed, what is detectable in the time given, the weeks it takes.

    ``correlation`` is that of the covariate which ``use_covariate`` supposes.
    """

    code: AdviceCode
    users: int | None = None
    detectable: Size | None = None
    weeks: int | None = None
    correlation: float | None = None


@dataclass(frozen=True, slots=True)
class Needed:
    """Users for the effect asked for, in each arm and together; the weeks until all of them have been watched.

    ``weeks`` is None where they never come, or where nothing is known of who comes; ``expected_users`` is the average
    when planned looks may end the test early.
    """

    arms: Mapping[str, int]
    users: int
    weeks: int | None
    expected_users: float | None


@dataclass(frozen=True, slots=True)
class Week:
    """Where a test stands after so many weeks: ``matured`` users have been watched for the whole window."""

    week: int
    enrolled: int
    matured: int
    detectable: Size | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Planned:
    """What the planned number of users can show."""

    users: int
    detectable: Size | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a test can show.

    ``level`` is that of one comparison; ``multiplier`` the users that the rule of stopping needs, relative to one look.
    """

    level: float
    multiplier: float
    needed: Needed | None
    planned: Planned | None
    weeks: tuple[Week, ...]
    advice: tuple[Advice, ...]
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is known of one user's number without the experiment.

    ``variance`` is that of his influence on the estimate; of a plain ``share`` it follows from the mean. ``reduction``
    is the part of it that covariates in use take away, ``possible`` the part that one not in use would (None: unknown).
    """

    mean: float
    variance: float
    share: bool = False
    reduction: float = 0.0
    possible: float | None = None


@dataclass(frozen=True, slots=True)
class Capacity:
    """Who can take part: a list, and those who come every week.

    The list comes in evenly over ``rollout_weeks``, the time in which a cap on touches lets everyone be treated.
    """

    users: int
    weekly: float = 0.0
    rollout_weeks: float = 0.0

    def enrolled(self, weeks: float) -> float:
        """Users who have come in after so many weeks."""
        if weeks < 0:
            return 0.0
        listed = self.users * (min(1.0, weeks / self.rollout_weeks) if self.rollout_weeks else 1.0)
        return listed + self.weekly * weeks

    def weeks_for(self, users: float) -> float | None:
        """Weeks until so many users have come in; None when they never do."""
        first = self.enrolled(self.rollout_weeks)
        if users <= first:
            return self.rollout_weeks * users / first if first else 0.0
        return self.rollout_weeks + (users - first) / self.weekly if self.weekly else None


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    ``shares`` of the users, the control first. ``effect`` is the size to be found; with a ``margin`` it is the true
    effect under which the guardrail should pass. The level is divided by the comparisons of a family (Bonferroni):
    treatments with control, or all ``pairs``, times the ``metrics`` (or segments) judged together; ``corrected`` False
    leaves it whole. Users count ``horizon_days`` after they came in; ``weeks`` is the time there is.
    """

    baseline: Baseline
    shares: Mapping[str, float]
    direction: Direction = Direction.up
    effect: float | None = None
    margin: float | None = None
    alpha: float = 0.05
    corrected: bool = True
    pairs: bool = False
    metrics: int = 1
    power: float = 0.8
    stopping: Stopping = "fixed"
    horizon_days: int = 0
    capacity: Capacity | None = None
    planned_users: int | None = None
    weeks: int = 12

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InvalidDocument(problems, "plan")

    def _problems(self) -> Iterator[FieldProblem]:
        if self.effect is None:
            return
        if self.effect <= -(self.margin or 0.0):
            remedy = "give an effect above 0" if self.margin is None else "give a true effect inside the margin"
            yield FieldProblem("effect", self.effect, "out_of_range", remedy)
        elif self.baseline.share:
            below, above = self.baseline.mean, 1 - self.baseline.mean
            worse, better = (below, above) if self.direction is Direction.up else (above, below)
            if not -worse <= self.effect <= better:
                remedy = f"give a number from {-worse:.6g} to {better:.6g}: beyond, the share leaves 0 to 1"
                yield FieldProblem("effect", self.effect, "out_of_range", remedy)

    @property
    def level(self) -> float:
        """Level of one comparison."""
        arms = len(self.shares)
        tests = arms * (arms - 1) // 2 if self.pairs else arms - 1
        return self.alpha / (tests * self.metrics) if self.corrected else self.alpha

    @property
    def plan(self) -> planning.Plan:
        """The question as ``stats.power`` asks it."""
        base = self.baseline
        return planning.Plan(
            planning.Conversion(base.mean) if base.share else planning.Mean(base.mean, base.variance),
            tuple(self.shares.values()),
            alpha=self.level,
            correction="none",
            direction=effects.Direction.INCREASE if self.direction is Direction.up else effects.Direction.DECREASE,
            margin=self.margin,
            variance_reduction=base.reduction,
            stopping=self.stopping,
        )

    def size(self, absolute: float) -> Size:
        """A change beside the baseline."""
        return Size(absolute, absolute / abs(self.baseline.mean) if self.baseline.mean else None)


def forecast(question: Question) -> Forecast:
    """Answer a question. What cannot be known is a problem in its place, never a number."""
    try:
        plan = question.plan
    except ValueError:  # a variance of zero, a share of 0 or 1
        return Forecast(question.level, _multiplier(question), None, None, (), (), Problem.ZERO_VARIANCE)
    at = cache(lambda users: _detectable(question, plan, users))
    problem = None
    try:
        needed = _needed(question, plan)
    except StatError as error:  # no number of users is enough
        needed, problem = None, error.code
    weeks = tuple(_weeks(question, at))
    planned = None if question.planned_users is None else Planned(question.planned_users, *at(question.planned_users))
    advice = () if problem is not None else tuple(_advice(question, needed, weeks))
    return Forecast(question.level, _multiplier(question), needed, planned, weeks, advice, problem)


def best(weeks: tuple[Week, ...]) -> Week | None:
    """The first week after which the time given brings nothing more; None when nothing is detectable."""
    known = [week for week in weeks if week.detectable is not None]
    return next((week for week in known if week.matured == known[-1].matured), None)


def _detectable(question: Question, plan: planning.Plan, users: int) -> tuple[Size | None, Problem | None]:
    try:
        if question.margin is not None:
            return question.size(_provable(question, plan, users)), None
        return question.size(abs(planning.detectable(plan, users, question.power))), None
    except StatError as error:
        return None, error.code


def _provable(question: Question, plan: planning.Plan, users: int) -> float:
    """The smallest margin that so many users prove: their number does not depend on the margin written down."""
    effect = plan.sign * (question.effect or 0.0)

    def excess(margin: float) -> float:
        return planning.power(replace(plan, margin=margin), users, effect) - question.power

    if excess(0.0) >= 0:
        return 0.0
    # In steps of the spread of one user's number: there is always a margin that passes.
    far = math.sqrt(question.baseline.variance)
    while excess(far) < 0:
        far *= 2
    margin = float(scipy.optimize.brentq(excess, 0.0, far, xtol=1e-12 * far))
    if question.baseline.share and margin >= 1:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=users)
    return margin


def _needed(question: Question, plan: planning.Plan) -> Needed | None:
    if question.effect is None:
        return None
    effect = plan.sign * question.effect
    users = planning.users(plan, effect, question.power)
    arms = {arm: math.ceil(users * share - 1e-9) for arm, share in question.shares.items()}
    expected = planning.expected_users(plan, users, effect) if isinstance(question.stopping, Looks) else None
    total = sum(arms.values())
    return Needed(arms, total, _duration(question, total), expected)


def _duration(question: Question, users: int) -> int | None:
    """Whole weeks, since days of the week differ."""
    enrolled = None if question.capacity is None else question.capacity.weeks_for(users)
    return None if enrolled is None else max(1, math.ceil(enrolled + question.horizon_days / 7 - 1e-9))


def _weeks(question: Question, at: _At) -> Iterator[Week]:
    if question.capacity is None:
        return
    for week in range(1, question.weeks + 1):
        enrolled, matured = (
            math.floor(question.capacity.enrolled(time) + 1e-9) for time in (week, week - question.horizon_days / 7)
        )
        yield Week(week, enrolled, matured, *at(matured))


def _multiplier(question: Question) -> float:
    """The same for every metric and effect, but for the few users of Student's t."""
    unit = planning.Plan(
        planning.Mean(0.0, 1.0),
        alpha=question.level,
        margin=None if question.margin is None else 0.0,
        stopping=question.stopping,
    )
    if unit.stopping == "fixed":
        return 1.0
    small = 1e-4
    single = planning.users(replace(unit, stopping="fixed"), small, question.power)
    return planning.users(unit, small, question.power) / single


def _advice(question: Question, needed: Needed | None, weeks: tuple[Week, ...]) -> Iterator[Advice]:
    reached = best(weeks)
    detectable = None if reached is None else reached.detectable
    if needed is not None and question.capacity is not None:
        if needed.weeks is not None and needed.weeks <= question.weeks:
            yield Advice(AdviceCode.fine, needed.users, detectable, needed.weeks)
            return
        short = AdviceCode.list_too_small if needed.weeks is None else AdviceCode.longer
        yield Advice(short, needed.users, detectable, needed.weeks)
    for code, changed, correlation in _alternatives(question):
        plan = changed.plan
        there = _needed(changed, plan)
        gained = None if reached is None else _detectable(changed, plan, reached.matured)[0]
        fewer = needed is not None and there is not None and there.users < needed.users
        finer = gained is not None and detectable is not None and gained.absolute < detectable.absolute
        if fewer or finer:
            users, duration = (None, None) if there is None else (there.users, there.weeks)
            yield Advice(code, users, gained, duration, correlation)
    yield from _without_cap(question, needed, reached)


def _alternatives(question: Question) -> Iterator[tuple[AdviceCode, Question, float | None]]:
    """Other plans for the same users."""
    _, *treatments = question.shares
    if len(treatments) > 1:
        dropped = min(treatments, key=lambda arm: question.shares[arm])
        kept = {arm: share for arm, share in question.shares.items() if arm != dropped}
        total = sum(kept.values())
        shares = {arm: share / total for arm, share in kept.items()}
        yield AdviceCode.drop_an_arm, replace(question, shares=shares), None
    base = question.baseline
    if not base.reduction:
        possible = USUAL_CORRELATION**2 if base.possible is None else base.possible
        changed = replace(base, reduction=possible)
        yield AdviceCode.use_covariate, replace(question, baseline=changed), math.sqrt(possible)
    if question.stopping == "sequential":
        yield AdviceCode.plan_looks, replace(question, stopping=USUAL_LOOKS), None


def _without_cap(question: Question, needed: Needed | None, reached: Week | None) -> Iterator[Advice]:
    capacity = question.capacity
    if capacity is None or not capacity.rollout_weeks:
        return
    freed = replace(question, capacity=replace(capacity, rollout_weeks=0.0))
    users = reached.matured if needed is None and reached is not None else needed.users if needed is not None else None
    if users is None:
        return
    weeks, before = _duration(freed, users), _duration(question, users)
    if weeks is not None and (before is None or weeks < before):
        yield Advice(AdviceCode.touch_cap_binds, users, weeks=weeks)
