"""Documents and reports made by hand: what the tests of the web layer share."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from experiments import ingest, registry, report
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.documents import Kind, Status
from experiments.report import (
    ArmCount,
    ArmMean,
    Comparison,
    DecisionAdvice,
    Finding,
    Interval,
    Method,
    MetricReport,
    MoneyInterval,
    NonInferiority,
    Report,
    SampleRatio,
    SegmentSampleRatio,
    Statistic,
    TimelinePoint,
)
from experiments.store import Store
from experiments.tables import SavedReport
from stats.errors import Problem

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LOGIN, PASSWORD = "wang", "friday evening"
KEY = "recall"

METRIC = {"key": "visit", "name": "Visit rate", "kind": "conversion", "event": "visit", "window_days": 1}
PRIMARY = METRIC | {"role": "primary"}
GUARDRAIL = METRIC | {
    "key": "unsub",
    "name": "Unsubscribe rate",
    "event": "unsubscribe",
    "direction": "down",
    "role": "guardrail",
    "margin": 0.01,
}
SEGMENTS = (
    {"key": "new", "name": "New customers", "condition": {"orders": 1}},
    {"key": "loyal", "name": "Loyal customers", "condition": {"orders": {"$gt": 1}}},
)
EXPERIMENT = {
    "key": KEY,
    "name": "Recall coupon",
    "variants": [
        {"key": "none", "name": "No coupon"},
        {"key": "ten", "name": "Ten yuan", "tactic": {"copy": "Come back!", "offer": {"coupon": 10}}},
    ],
    "control": "none",
    "metrics": [{"key": "visit"}, {"key": "unsub"}],
    "strata": [{"segment": "new"}, {"segment": "loyal"}],
    "plan": {"planned_users": 200},
    "value": {"metric": "visit", "monthly_users": 1000},
}
PLAIN = {
    "key": "plain",
    "name": "Plain",
    "variants": [{"key": "a"}, {"key": "b"}],
    "control": "a",
    "metrics": [{"key": "visit"}],
    "plan": {"planned_users": 100},
}
POLICY = {
    "key": "plain",
    "name": "Plain, rolled out",
    "variants": [{"key": "a"}, {"key": "b"}],
    "control": "a",
    "rules": [{"name": "loyal", "condition": {"orders": {"$gt": 1}}, "variant": "b"}],
    "otherwise": "a",
    "metrics": [{"key": "visit"}],
    "plan": {"planned_users": 100},
}

WORTH = MoneyInterval(49_269.4, 21_000.0, 77_500.0, "CNY")


def documents(store: Store, *, start: bool = True) -> None:
    """Store the metrics, the segments, and an experiment, by default started."""
    with store.write() as session:
        for kind, bodies in ((Kind.metric, (PRIMARY, GUARDRAIL)), (Kind.segment, SEGMENTS)):
            for body in bodies:
                registry.create(session, kind, body, actor="setup", now=NOW)
        registry.create(session, Kind.experiment, EXPERIMENT, actor="setup", now=NOW)
        if start:
            registry.move(session, KEY, Status.running, actor="setup", now=NOW)


def exposure(number: int, *, at: datetime, variant: str = "none", stratum: str = "new") -> ingest.Exposure:
    return ingest.Exposure(
        message_id=f"x{number}",
        user_id=f"u{number}",
        timestamp=at,
        experiment=KEY,
        variant=variant,
        stratum=stratum,
    )


def facts(store: Store, *, at: datetime, first: int = 0, users: int = 240) -> None:
    """Send in users, evenly over variants and segments; every third in "none" and every second in "ten" visits."""
    items: list[ingest.AnyItem] = []
    for i in range(first, first + users):
        variant, stratum = ("none", "ten")[i % 2], ("new", "loyal")[i // 2 % 2]
        items.append(exposure(i, at=at, variant=variant, stratum=stratum))
        if i // 4 % (3 if variant == "none" else 2) == 0:
            items.append(ingest.Event(message_id=f"v{i}", user_id=f"u{i}", timestamp=at, event="visit"))
    with store.write() as session:
        receipt = ingest.store(session, store.catalog(session), list(enumerate(items)), now=NOW)
    assert not receipt.rejected


def save(store: Store, made: Report, name: str = "made") -> None:
    """Save a report made by hand as the newest one."""
    row = SavedReport(
        id=name,
        experiment=made.experiment,
        phase=made.phase,
        revision=made.revision,
        watermark=made.watermark or 0,
        created_at=NOW,
        body=report.encode(made).decode(),
    )
    with store.write() as session:
        session.merge(row)


def comparison(variant: str, estimate: float, half: float, segment: str | None = None, **fields: Any) -> Comparison:
    """A comparison with a symmetric interval; significant when it leaves out zero."""
    clear = abs(estimate) > half
    made = Comparison(
        variant=variant,
        control="none",
        segment=segment,
        absolute=Interval(estimate, estimate - half, estimate + half),
        relative=Interval(estimate * 10, (estimate - half) * 10, (estimate + half) * 10),
        se=half / 3,
        p_value=0.0001 if clear else 0.4,
        p_adjusted=0.0002 if clear else 0.4,
        significant=clear,
        probability_better=0.9999 if estimate > 0 else 0.0001,
        expected_loss=0.0001,
        problem=None,
        statistic=Statistic("welch_t", estimate / half * 3, 0.0001 if clear else 0.4, 1234.5),
    )
    return structs.replace(made, **fields)


def no_comparison(variant: str, segment: str | None = None, problem: Problem = Problem.NOT_ENOUGH_DATA) -> Comparison:
    """A comparison that holds a problem instead of numbers."""
    names = [
        "absolute",
        "relative",
        "se",
        "p_value",
        "p_adjusted",
        "significant",
        "probability_better",
        "expected_loss",
    ]
    numbers: dict[str, Any] = dict.fromkeys(names)
    return Comparison(variant=variant, control="none", segment=segment, problem=problem, **numbers)


def metric(key: str, role: str, comparisons: Sequence[Comparison], **fields: Any) -> MetricReport:
    arms = [
        ArmMean(variant, segment, n, mean, 0.002)
        for segment, n in ((None, 20_000), ("new", 10_000), ("loyal", 10_000))
        for variant, mean in (("none", 0.106), ("ten", 0.183), ("twenty", 0.151))
    ]
    made = MetricReport(
        metric=key,
        name=f"The {key}",
        kind="conversion",
        role=role,
        direction="up",
        unit="share",
        window_days=14,
        matured=60_000,
        immature=0,
        adjustment="none",
        arms=arms,
        comparisons=list(comparisons),
        timeline=[],
    )
    return structs.replace(made, **fields)


def full_report(
    verdict: Verdict = Verdict.ship,
    *,
    reasons: Sequence[ReasonCode] = (ReasonCode.primary_better,),
    health: Sequence[Finding] = (),
    segments: Sequence[str] = (),
    value: MoneyInterval | None = WORTH,
    **fields: Any,
) -> Report:
    """A report with every part: three variants, two segments, all kinds of metrics, a timeline, a problem."""
    primary = metric(
        "visit",
        "primary",
        [
            comparison("ten", 0.0766, 0.01, statistic=Statistic("pooled_z", 22.3, 0.0)),
            comparison("twenty", 0.045, 0.01),
            *(comparison("ten", 0.08, 0.02, segment) for segment in ("new", "loyal")),
            comparison("twenty", 0.05, 0.02, "new"),
            no_comparison("twenty", "loyal"),
        ],
        timeline=[
            TimelinePoint(f"2026-11-0{day}", variant, 4_000 * day, Interval(0.07, 0.07 - 0.1 / day, 0.07 + 0.1 / day))
            for day in (1, 2, 3)
            for variant in ("ten", "twenty")
        ],
    )
    guarded = metric(
        "unsub",
        "guardrail",
        [
            comparison("ten", 0.002, 0.003, noninferiority=NonInferiority(0.005, 0.01, passed=True, harmed=False)),
            comparison("twenty", 0.009, 0.003, noninferiority=NonInferiority(0.005, 0.9, passed=False, harmed=True)),
        ],
        direction="down",
    )
    spend = metric(
        "spend",
        "secondary",
        [
            comparison("ten", 0.77, 0.4, relative=None, relative_problem=Problem.LIFT_NOT_IDENTIFIED),
            comparison("twenty", 0.1, 0.4, variance_reduction=0.25),
        ],
        kind="mean",
        unit="money",
        adjustment="cuped",
        matured=59_000,
        immature=1_000,
    )
    made = Report(
        experiment=KEY,
        name="Recall coupon",
        revision=2,
        phase=1,
        as_of="2026-11-22T09:30:00+00:00",
        watermark=7,
        metric_revisions={"visit": 1, "unsub": 1, "spend": 1},
        method=Method("sequential", 0.05, "holm", 60_000, stratified=False, interval="asymptotic_confidence_sequence"),
        control="none",
        arms=[
            ArmCount("none", "No coupon", 20_010, 20_000, 20_000),
            ArmCount("ten", "Ten yuan", 20_010, 20_000, 20_000),
            ArmCount("twenty", "Twenty yuan", 20_010, 20_000, 20_000),
        ],
        segments={"new": "New customers", "loyal": "Loyal customers"},
        srm=SampleRatio(
            0.9,
            dict.fromkeys(("none", "ten", "twenty"), 20_010.0),
            dict.fromkeys(("none", "ten", "twenty"), 20_010),
            None,
        ),
        segment_srm=[SegmentSampleRatio("new", 0.5, None), SegmentSampleRatio("loyal", 0.4, None)],
        health=list(health),
        metrics=[primary, spend, guarded],
        decision=DecisionAdvice(
            verdict, "ten" if verdict is Verdict.ship else None, list(segments), list(reasons), value
        ),
    )
    return structs.replace(made, **fields)


def invalid_report() -> Report:
    """A report on data that cannot be trusted."""
    observed = {"none": 20_010, "ten": 20_010, "twenty": 15_000}
    return full_report(
        Verdict.invalid,
        reasons=[ReasonCode.sample_ratio_mismatch],
        health=[Finding(HealthCode.sample_ratio_mismatch, 2_505, 55_020, fatal=True)],
        value=None,
        srm=SampleRatio(1e-9, dict.fromkeys(observed, 18_340.0), observed, Problem.SAMPLE_RATIO_MISMATCH),
    )


def each_verdict() -> dict[str, Report]:
    """A report for every verdict."""
    return {
        "ship": full_report(),
        "ship_to_segments": full_report(
            segments=["new"],
            reasons=[ReasonCode.primary_better, ReasonCode.segment_harmed, ReasonCode.value_uncertain],
            value=MoneyInterval(1_000.0, -250.5, 2_250.5, "CNY"),
        ),
        "stop": full_report(
            Verdict.stop, reasons=[ReasonCode.value_negative], value=MoneyInterval(-9.0, -12.0, -6.0, "CNY")
        ),
        "keep_running": full_report(
            Verdict.keep_running,
            reasons=[ReasonCode.primary_not_significant, ReasonCode.planned_size_not_reached],
            value=None,
        ),
        "inconclusive": full_report(Verdict.inconclusive, reasons=[ReasonCode.primary_not_significant], value=None),
        "invalid": invalid_report(),
    }
