"""The report: the frozen answer of one analysis, schema ``upturn.report/1``.

One structure for the API, the command line, the pages and the files. A comparison holds an effect or a problem code,
never a stand-in number. Codes are closed sets; sentences for them live in the translations.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from stats.errors import Problem

SCHEMA: Literal["upturn.report/1"] = "upturn.report/1"


class Verdict(StrEnum):
    """What the report advises."""

    ship = "ship"
    stop = "stop"
    keep_running = "keep_running"
    inconclusive = "inconclusive"
    invalid = "invalid"


class ReasonCode(StrEnum):
    """Why the report advises it."""

    primary_better = "primary_better"
    primary_worse = "primary_worse"
    primary_not_significant = "primary_not_significant"
    planned_size_not_reached = "planned_size_not_reached"
    no_matured_users = "no_matured_users"
    sample_ratio_mismatch = "sample_ratio_mismatch"
    too_many_crossovers = "too_many_crossovers"
    guardrail_harmed = "guardrail_harmed"
    guardrail_not_proven = "guardrail_not_proven"
    segment_harmed = "segment_harmed"
    value_uncertain = "value_uncertain"
    value_negative = "value_negative"


class HealthCode(StrEnum):
    """What a reader should know about the data before he trusts the effects."""

    sample_ratio_mismatch = "sample_ratio_mismatch"
    segment_sample_ratio_mismatch = "segment_sample_ratio_mismatch"
    crossovers = "crossovers"
    immature_users = "immature_users"
    forced_users = "forced_users"
    thin_segment = "thin_segment"


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

    ``pooled_z`` for conversion, ``welch_t`` for means and ratios, ``adjusted_t`` where covariates or strata came in.
    """

    name: Literal["pooled_z", "welch_t", "adjusted_t"]
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

    ``tuned_users``: planned users of the two, at which a sequential interval is tightest. A guardrail's test may
    stand beside a problem: nobody converted is no effect, and yet within the margin.
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


class MetricReport(Struct, frozen=True):
    """Everything about one metric."""

    metric: str
    name: str
    kind: Literal["conversion", "mean", "ratio"]
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
    """Does the split match the design?"""

    p_value: float | None
    expected: dict[str, float]
    observed: dict[str, int]
    problem: Problem | None


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


class DecisionAdvice(Struct, frozen=True):
    """What to do, for whom, why, and what it is worth."""

    verdict: Verdict
    variant: str | None
    segments: list[str]
    reasons: list[ReasonCode]
    value_per_month: MoneyInterval | None


class Method(Struct, frozen=True):
    """How the numbers were made."""

    name: Literal["fixed", "sequential"]
    alpha: float
    correction: Literal["holm", "bh", "none"]
    planned_users: int | None
    stratified: bool
    interval: Literal["classical", "asymptotic_confidence_sequence"]


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


COLUMNS = (
    "experiment", "revision", "phase", "as_of", "metric", "kind", "role", "segment", "variant", "control",
    "n", "n_control", "mean", "mean_control", "absolute", "absolute_lower", "absolute_upper",
    "relative", "relative_lower", "relative_upper", "se", "p_value", "p_adjusted", "significant",
    "probability_better", "expected_loss", "problem",
)  # fmt: skip


def rows(report: Report) -> Iterator[dict[str, object]]:
    """Yield one flat row for each comparison, with the fixed ``COLUMNS``, for CSV, Parquet and frames."""
    for metric in report.metrics:
        arms = {(arm.variant, arm.segment): arm for arm in metric.arms}
        for c in metric.comparisons:
            arm, control = arms.get((c.variant, c.segment)), arms.get((c.control, c.segment))
            absolute, relative = c.absolute, c.relative
            yield {
                "experiment": report.experiment,
                "revision": report.revision,
                "phase": report.phase,
                "as_of": report.as_of,
                "metric": metric.metric,
                "kind": metric.kind,
                "role": metric.role,
                "segment": c.segment,
                "variant": c.variant,
                "control": c.control,
                "n": arm.n if arm else 0,
                "n_control": control.n if control else 0,
                "mean": arm.mean if arm else None,
                "mean_control": control.mean if control else None,
                "absolute": absolute.estimate if absolute else None,
                "absolute_lower": absolute.lower if absolute else None,
                "absolute_upper": absolute.upper if absolute else None,
                "relative": relative.estimate if relative else None,
                "relative_lower": relative.lower if relative else None,
                "relative_upper": relative.upper if relative else None,
                "se": c.se,
                "p_value": c.p_value,
                "p_adjusted": c.p_adjusted,
                "significant": c.significant,
                "probability_better": c.probability_better,
                "expected_loss": c.expected_loss,
                "problem": c.problem,
            }
