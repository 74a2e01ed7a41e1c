"""The report: the frozen answer of one analysis, schema ``upturn.report/1``.

One structure for the API, the command line, the pages and the files. A comparison holds an effect or a problem code,
never a stand-in number. Codes are closed sets; sentences for them live in the translations.
"""

from typing import Annotated, Any, Literal

import msgspec

from experiments.codes import HealthCode, ReasonCode, Verdict
from stats.errors import Problem

SCHEMA: Literal["upturn.report/1"] = "upturn.report/1"


MetricKind = Literal["conversion", "mean", "ratio", "retention", "time_to_event", "quantile", "funnel"]
MethodName = Literal["fixed", "sequential", "group_sequential", "bayes"]
Role = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["primary", "secondary", "guardrail"]})]
Direction = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["up", "down"]})]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the parts of a report."""


class Interval(Struct, frozen=True):
    """An estimate with the limits of its interval, in the metric's unit; relative effects as a share (0.1 = +10 %)."""

    estimate: float
    lower: float
    upper: float


class MoneyInterval(Struct, frozen=True):
    """Money a month, in ``currency``."""

    estimate: float
    lower: float
    upper: float
    currency: str


class Statistic(Struct, frozen=True):
    """The fixed-horizon test, for checking against other programs.

    ``pooled_z`` for conversion, ``exact`` where it is rare (of p; the value is z), ``welch_t`` for means and ratios,
    ``adjusted_t`` where covariates or strata came in, ``wald_z`` for times to event and quantiles.
    """

    name: Literal["pooled_z", "exact", "welch_t", "adjusted_t", "wald_z"]
    value: float
    p_value: float
    df: float | None = None


class NonInferiority(Struct, frozen=True):
    """A guardrail's test: may the variant still be worse than control by ``margin``?"""

    margin: float
    p_value: float
    passed: bool
    harmed: bool


class Comparison(Struct, frozen=True):
    """One variant against control, over all users or in one segment.

    ``adjusted``: the interval at the level that the correction leaves (Bonferroni's for Holm, which covers all of a
    family together; that of the selected for Benjamini–Hochberg), None where none agrees with ``significant``.
    ``shrunk``: a segment's effect drawn towards the others, as far as they agree. ``tuned_users``: planned users of
    the two, at which a sequential interval is tightest. A guardrail's test may stand beside a problem: nobody
    converted is no effect, and yet within the margin.
    """

    variant: str
    control: str
    segment: str | None
    absolute: Interval | None
    relative: Interval | None
    se: float | None
    p_value: float | None
    p_adjusted: float | None
    significant: bool | None
    probability_better: float | None
    expected_loss: float | None
    problem: Problem | None
    relative_problem: Problem | None = None
    statistic: Statistic | None = None
    noninferiority: NonInferiority | None = None
    variance_reduction: float | None = None
    tuned_users: float | None = None
    adjusted: Interval | None = None
    shrunk: Interval | None = None
    relative_interval: Literal["fieller", "score", "posterior"] | None = None


class ArmMean(Struct, frozen=True):
    """A variant's own number: ``n`` matured users, their mean (or ratio), and its standard error."""

    variant: str
    segment: str | None
    n: int
    mean: float | None
    se: float | None


class TimelinePoint(Struct, frozen=True):
    """The overall effect with the users matured by the end of ``day`` (store's time zone)."""

    day: str
    variant: str
    n: int
    absolute: Interval


class Heterogeneity(Struct, frozen=True):
    """Do the effects of a variant differ between segments? Cochran's Q, and their standard deviation ``tau``."""

    dimension: str
    variant: str
    segments: int
    q: float | None
    df: int | None
    p_value: float | None
    tau: float | None
    problem: Problem | None


class FunnelStep(Struct, frozen=True):
    """One step of a funnel: of the ``entered`` users who reached the step before, those who ``reached`` this one.

    ``rate`` is the share of them, ``absolute`` its difference from control in points.
    """

    position: int
    step: str
    variant: str
    entered: int
    reached: int
    rate: float | None
    se: float | None
    absolute: Interval | None
    p_value: float | None
    problem: Problem | None


class Survival(Struct, frozen=True):
    """The share of users without the event after so many ``days`` (Kaplan–Meier), with pointwise intervals."""

    variant: str
    users: int
    events: int
    days: list[float]
    share: list[float]
    lower: list[float]
    upper: list[float]


class Test(Struct, frozen=True):
    """A chi-square test."""

    statistic: float
    df: int
    p_value: float


class Capping(Struct, frozen=True):
    """What cutting heavy tails at ``cap`` did: the share of a variant's total removed, and the effect without it."""

    variant: str
    cap: float
    removed: float | None
    uncapped: Interval | None


class Influence(Struct, frozen=True):
    """How much hangs on one user of each variant.

    ``share``: the largest user's of the variant's total. ``whole`` and ``without``: the effect, unadjusted and read
    once, with and without the largest user of the variant and of the control.
    """

    variant: str
    share: float | None
    whole: Interval
    without: Interval


class SlicePoint(Struct, frozen=True):
    """The effect within days ``start`` up to, not including, ``end`` after exposure, of users with closed windows.

    Days before exposure are negative: ``-7`` up to ``0`` are the seven before it.
    """

    variant: str
    start: int
    end: int
    absolute: Interval


class Novelty(Struct, frozen=True):
    """Does the lift fade or grow with the days since exposure? ``slope``: change a day of the ratio's logarithm."""

    variant: str
    slope: Interval
    p_value: float


class Choice(Struct, frozen=True):
    """Each variant, control too, as a choice: the chance that it is the best, and what choosing it loses on average."""

    variant: str
    probability_best: float
    expected_loss: float


class DosePoint(Struct, frozen=True):
    """The response at one frequency, with a band that covers all of the frequencies together."""

    variant: str
    dose: float
    estimate: float
    lower: float
    upper: float


class DoseResponse(Struct, frozen=True):
    """How a metric responds to touches a week.

    ``trend``: change per touch. ``departure``: test of a straight line. ``shape``: what the curve was allowed to be.
    ``best``: the dose of the highest point of a parabola, None with ``best_problem`` where there is none, or where more
    than three frequencies contradict a parabola.
    ``best_tested``: the tested frequencies among which the best one is, with the plan's confidence.
    """

    trend: Interval
    trend_p: float
    departure: Test | None
    shape: Literal["free", "increasing", "decreasing", "concave"]
    curve: list[DosePoint]
    best: Interval | None
    best_problem: Problem | None
    best_tested: list[float]


class FactorEffect(Struct, frozen=True):
    """A main effect (one factor) or an interaction (two): what these levels change against the control's.

    ``assumed``: cells are missing, and the interactions of higher order are taken to be none.
    """

    levels: dict[str, str]
    absolute: Interval | None
    p_value: float | None
    problem: Problem | None
    assumed: bool


class Factorial(Struct, frozen=True):
    """The effects of the factors of a factorial design, and the joint test of all interactions."""

    effects: list[FactorEffect]
    interactions: Test | None


class Complier(Struct, frozen=True):
    """Reaching few: share reached in both, and the effect on those whom the variant reached (instrument)."""

    variant: str
    received: float | None
    received_control: float | None
    effect: Interval | None
    p_value: float | None
    problem: Problem | None


class Triggered(Struct, frozen=True):
    """The effect among users for whom the trigger fired, ghosts of the control included."""

    variant: str
    users: int
    users_control: int
    effect: Interval | None
    p_value: float | None
    balance_p: float | None
    problem: Problem | None


class MetricReport(Struct, frozen=True):
    """Everything about one metric; the parts with a default exist for some kinds or designs only."""

    metric: str
    name: str
    kind: MetricKind
    role: Role
    direction: Direction
    unit: str
    window_days: int | None
    matured: int
    immature: int
    adjustment: Literal["none", "cuped"]
    arms: list[ArmMean]
    comparisons: list[Comparison]
    timeline: list[TimelinePoint]
    pairs: list[Comparison] = []
    heterogeneity: list[Heterogeneity] = []
    funnel: list[FunnelStep] = []
    survival: list[Survival] = []
    logrank: Test | None = None
    capping: list[Capping] = []
    influence: list[Influence] = []
    slices: list[SlicePoint] = []
    placebo: list[SlicePoint] = []
    novelty: list[Novelty] = []
    choices: list[Choice] = []
    frequency: DoseResponse | None = None
    factorial: Factorial | None = None


class ArmCount(Struct, frozen=True):
    """Users of a variant.

    ``assigned``: first seen in this variant. ``exposed``: of these, never seen in another one, so part of the effects.
    ``matured``: of these, those whose window of the primary metric has closed.
    """

    variant: str
    name: str
    assigned: int
    exposed: int
    matured: int


class SampleRatio(Struct, frozen=True):
    """Does the split match the design? ``anytime_p`` holds however often it is looked at, over the days of arrival."""

    p_value: float | None
    expected: dict[str, float]
    observed: dict[str, int]
    problem: Problem | None
    anytime_p: float | None = None


class SegmentSampleRatio(Struct, frozen=True):
    """The same within one segment."""

    segment: str
    p_value: float | None
    problem: Problem | None


class Finding(Struct, frozen=True):
    """A health finding: how many users, out of how many, and whether it makes the report invalid."""

    code: HealthCode
    count: int
    of: int
    fatal: bool
    subject: str | None = None


class Check(Struct, frozen=True):
    """A health check that was made: its p value, and whether it raised a finding."""

    code: HealthCode
    subject: str | None
    p_value: float | None
    passed: bool


class Look(Struct, frozen=True):
    """A planned look of a group-sequential plan.

    ``bound``: the critical |z| there. ``statistic``: z of each variant's main metric. ``futility``: no variant at or
    below this z in the good direction could be expected to win any more.
    """

    number: int
    users: int
    day: str | None
    bound: float
    statistic: dict[str, float]
    crossed: list[str]
    reached: bool
    futility: float | None = None

    def hopeless(self, *, up: bool) -> bool:
        """Whether no variant could be expected to win any more, where ``up`` is good."""
        floor, sign = self.futility, 1 if up else -1
        return floor is not None and bool(self.statistic) and all(sign * z <= floor for z in self.statistic.values())


class DecisionAdvice(Struct, frozen=True):
    """What to do, for whom, why, and what it is worth.

    ``corrected``: the chosen variant's effect on the main metric, without the luck of having been picked as the best
    of several; the money rests on it where that is the metric valued.
    """

    verdict: Verdict
    variant: str | None
    segments: list[str]
    reasons: list[ReasonCode]
    value_per_month: MoneyInterval | None
    corrected: Interval | None = None


class WaveReport(Struct, frozen=True):
    """One wave: when it opened, its share of all users, the variants' shares in it, and the users seen in each.

    ``p_value``: whether they came in those shares.
    """

    number: int
    opened_at: str
    size: float
    shares: dict[str, float]
    observed: dict[str, int]
    p_value: float | None


class ArmValue(Struct, frozen=True):
    """The main metric's mean had everyone been given the variant, each wave weighed by what it tells."""

    variant: str
    n: int
    value: Interval | None
    problem: Problem | None


class AdaptiveContrast(Struct, frozen=True):
    """A variant against control within waves, with the p value of the plan's method."""

    variant: str
    control: str
    absolute: Interval | None
    p_value: float | None
    significant: bool | None
    problem: Problem | None


class AdaptiveReport(Struct, frozen=True):
    """Shares that followed the evidence: the history of them, and the main metric read within waves.

    ``metric``: which one they followed. ``floor``: the least share of a variant. ``open``: the share of all users who
    are in a wave.
    """

    metric: str
    floor: float
    open: float
    waves: list[WaveReport]
    arms: list[ArmValue]
    contrasts: list[AdaptiveContrast]


class Method(Struct, frozen=True):
    """How the numbers were made."""

    name: MethodName
    alpha: float
    correction: Literal["holm", "bh", "none"]
    planned_users: int | None
    stratified: bool
    interval: Literal["classical", "asymptotic_confidence_sequence", "repeated", "credible"]
    comparisons: Literal["control", "all_pairs"] = "control"
    looks: list[Look] = []
    spending: str | None = None
    prior: list[float] | None = None


class Report(Struct, frozen=True, kw_only=True):
    """The frozen answer of one analysis."""

    schema: Literal["upturn.report/1"] = SCHEMA
    experiment: str
    name: str
    revision: int
    phase: int
    as_of: str
    watermark: int | None
    metric_revisions: dict[str, int]
    method: Method
    control: str
    arms: list[ArmCount]
    segments: dict[str, str]
    srm: SampleRatio
    segment_srm: list[SegmentSampleRatio]
    health: list[Finding]
    metrics: list[MetricReport]
    decision: DecisionAdvice
    checks: list[Check] = []
    compliers: list[Complier] = []
    triggered: list[Triggered] = []
    adaptive: AdaptiveReport | None = None

    def primary(self) -> MetricReport:
        """Return the primary metric's part."""
        return next(metric for metric in self.metrics if metric.role == "primary")


def encode(report: Report) -> bytes:
    """Return the report as JSON bytes; equal reports give equal bytes."""
    return msgspec.json.encode(report)


def decode(body: bytes | str) -> Report:
    """Read a report back."""
    return msgspec.json.decode(body, type=Report)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **msgspec.json.schema(Report),
    }
