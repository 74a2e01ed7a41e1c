"""A store with many experiments, their reports made by hand: for lists, the programme and the library."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
from msgspec import structs

from experiments import registry, report
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.documents import Decision, Kind, Status
from experiments.report import ArmCount, ArmMean, Comparison, Finding, Interval, MoneyInterval, NonInferiority, Report
from experiments.store import Store
from experiments.tables import SavedReport
from tests.web import made

COPIES = ("Come back!", "您有一张优惠券待领取", "Last day of the sale", "新品上架，抢先看", "We miss you")
CHANNELS = ("push", "sms", "wecom")
OWNERS = ("wang", "li", "chen")
TAGS = ("winback", "coupon", "spring")
SPEND = {
    "key": "spend",
    "name": "Spend per user",
    "kind": "mean",
    "terms": [{"event": "purchase"}],
    "window_days": 14,
    "unit": "money",
    "role": "primary",
}
# The shape that each experiment takes in turn: status, verdict.
SHAPES = (
    (Status.running, Verdict.keep_running),
    (Status.running, Verdict.ship),
    (Status.decided, Verdict.ship),
    (Status.decided, Verdict.inconclusive),
    (Status.running, Verdict.invalid),
    (Status.decided, Verdict.ship),
    (Status.stopped, Verdict.stop),
    (Status.draft, None),
    (Status.decided, Verdict.ship),
    (Status.archived, Verdict.stop),
)
BASE, TRUE_MEAN, TRUE_SD, SE = 20.0, 0.03, 0.03, 0.02


def key(number: int) -> str:
    return f"e{number:04}"


def document(number: int, **fields: Any) -> dict[str, Any]:
    """An experiment on one of a few tactics, so that some were tried more than once."""
    channel = CHANNELS[number % len(CHANNELS)]
    frequency = {"touches": 1 + number % 3, "per": "week", "channel": channel}
    tactic = {"copy": COPIES[number % len(COPIES)], "frequency": frequency}
    if number % 4 == 0:
        tactic["offer"] = {"coupon": 5 * (1 + number % 3)}
    made_of: dict[str, Any] = {
        "key": key(number),
        "name": f"Campaign {number} · 活动{number}",
        "owner": OWNERS[number % len(OWNERS)],
        "tags": [TAGS[number % len(TAGS)]],
        "hypothesis": "A reminder brings customers back.",
        "variants": [{"key": "none", "name": "No message"}, {"key": "ten", "name": "Reminder", "tactic": tactic}],
        "control": "none",
        "metrics": [{"key": "spend"}, {"key": "unsub"}],
        "strata": [{"segment": "new"}, {"segment": "loyal"}],
        "plan": {"planned_users": 60_000},
        "value": {"metric": "spend", "monthly_users": 100_000},
    }
    return made_of | fields


def made_report(number: int, verdict: Verdict, lift: float, *, at: datetime) -> Report:
    """The report of one of them: the lift seen over all users, a little more or less in the segments."""
    effect, half = lift * BASE, 1.96 * SE * BASE
    overall = made.comparison("ten", effect, half, se=SE * BASE, significant=abs(effect) > half)
    parts = [_segment(overall, segment, part * BASE) for segment, part in (("new", 0.01), ("loyal", -0.01))]
    means = [
        ArmMean(variant, segment, n, BASE + (effect if variant == "ten" else 0.0), SE * BASE / 2**0.5)
        for segment, n in ((None, 20_000), ("new", 12_000), ("loyal", 8_000))
        for variant in ("none", "ten")
    ]
    spend = made.metric("spend", "primary", [overall, *parts], kind="mean", unit="money", arms=means)
    limit = NonInferiority(0.01, 0.9 if number % 7 == 3 else 0.001, passed=number % 7 != 3, harmed=number % 7 == 3)
    unsubscribed = made.metric(
        "unsub", "guardrail", [made.comparison("ten", 0.002, 0.003, noninferiority=limit)], direction="down"
    )
    money = MoneyInterval(effect * 100_000, (effect - half) * 100_000, (effect + half) * 100_000, "CNY")
    fatal = [Finding(HealthCode.sample_ratio_mismatch, 2_505, 55_020, fatal=True)] if verdict is Verdict.invalid else []
    reasons = {
        Verdict.ship: [ReasonCode.primary_better],
        Verdict.stop: [ReasonCode.guardrail_harmed if number % 2 else ReasonCode.primary_worse],
        Verdict.invalid: [ReasonCode.sample_ratio_mismatch],
    }
    whole = made.full_report(
        verdict,
        reasons=reasons.get(verdict, [ReasonCode.primary_not_significant]),
        health=fatal,
        value=money if verdict is Verdict.ship else None,
    )
    return structs.replace(
        whole,
        experiment=key(number),
        name=f"Campaign {number}",
        as_of=at.isoformat(),
        arms=[
            ArmCount("none", "No message", 20_010, 20_000, 20_000),
            ArmCount("ten", "Reminder", 20_010, 20_000, 20_000),
        ],
        metrics=[spend, unsubscribed],
    )


def _segment(overall: Comparison, segment: str, more: float) -> Comparison:
    assert overall.absolute is not None
    a = overall.absolute
    return structs.replace(
        overall,
        segment=segment,
        absolute=Interval(a.estimate + 2 * more, a.lower + 1.5 * more, a.upper + 2.5 * more),
        se=(overall.se or 0.0) * 1.5,
        shrunk=Interval(a.estimate + more, a.lower + more, a.upper + more),
    )


def fill(store: Store, count: int, *, now: datetime = made.NOW, seed: int = 7) -> dict[str, float]:
    """Store so many experiments of all shapes over the past half year; return the true lift of each."""
    random = np.random.default_rng(seed)
    truth = {key(number): float(random.normal(TRUE_MEAN, TRUE_SD)) for number in range(count)}
    with store.write() as session:
        for kind, bodies in ((Kind.metric, (SPEND, made.GUARDRAIL)), (Kind.segment, made.SEGMENTS)):
            for body in bodies:
                registry.create(session, kind, body, actor="setup", now=now)
        for number in range(count):
            status, verdict = SHAPES[number % len(SHAPES)]
            start = now - timedelta(days=170 * (1 - number / count) + 12)
            registry.create(session, Kind.experiment, document(number), actor="setup", now=start)
            if verdict is None:
                continue
            name, seen = f"report-{number}", truth[key(number)] + float(random.normal(0, SE))
            if verdict is Verdict.ship and seen < 1.96 * SE:
                verdict = Verdict.inconclusive  # picked by what it showed, as people do
            at = now - timedelta(hours=1 + number % 30) if status is Status.running else start + timedelta(days=12)
            whole = made_report(number, verdict, seen, at=at)
            registry.move(session, key(number), Status.running, actor="setup", now=start)
            session.add(
                SavedReport(
                    id=name,
                    experiment=key(number),
                    phase=1,
                    revision=2,
                    watermark=1,
                    created_at=at,
                    body=report.encode(whole).decode(),
                )
            )
            for step in (Status.stopped, Status.decided, Status.archived):
                if list(Status).index(step) > list(Status).index(status):
                    break
                chosen = "ten" if verdict is Verdict.ship else "none"
                decision = Decision(variant=chosen, reason="As the report says.", report=name)
                registry.move(
                    session,
                    key(number),
                    step,
                    actor="li",
                    now=start + timedelta(days=12),
                    decision=decision if step is Status.decided else None,
                )
    return truth
