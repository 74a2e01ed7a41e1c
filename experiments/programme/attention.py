"""What in a list of experiments waits for a person, and for what."""

from datetime import datetime, timedelta
from enum import StrEnum

from experiments.codes import Verdict
from experiments.documents import Status
from experiments.programme.summaries import Summary
from experiments.report import Report

# An experiment may well be without numbers on its first day; numbers older than this are not looked after any more.
_FIRST_DAY = timedelta(days=1)
_OLD = timedelta(days=3)
_LATE = timedelta(minutes=15)
# Users from which on it is no chance that none of them did anything.
_SOME_USERS = 200
# Planned users are a plan: so much more of them, and it was forgotten.
_BEYOND = 1.25


class Group(StrEnum):
    """Where an experiment stands in the list, in this order."""

    attention = "attention"
    ready = "ready"
    running = "running"
    decided = "decided"
    draft = "draft"
    archived = "archived"


class Attention(StrEnum):
    """Why somebody should look, the most urgent first."""

    not_trusted = "not_trusted"
    guardrail_harmed = "guardrail_harmed"
    start_refused = "start_refused"
    stop_overdue = "stop_overdue"
    wave_refused = "wave_refused"
    nobody_came = "nobody_came"
    nothing_happened = "nothing_happened"
    never_analysed = "never_analysed"
    numbers_old = "numbers_old"
    beyond_plan = "beyond_plan"


_CONCLUSIVE = frozenset({Verdict.ship, Verdict.stop, Verdict.inconclusive})
_OPEN = frozenset({Status.running, Status.paused, Status.stopped})


def group(summary: Summary, now: datetime) -> tuple[Group, list[Attention]]:
    """Return where an experiment stands, and why somebody should look at it."""
    status, report = summary.experiment.status, summary.report
    found = sorted(set(_reasons(summary, now)), key=list(Attention).index)
    if found:
        return Group.attention, found
    if status in _OPEN:
        ready = status is Status.stopped or (report is not None and report.decision.verdict in _CONCLUSIVE)
        return (Group.ready if ready else Group.running), []
    return {Status.decided: Group.decided, Status.draft: Group.draft}.get(status, Group.archived), []


def _reasons(summary: Summary, now: datetime) -> list[Attention]:
    status, schedule, report = summary.experiment.status, summary.experiment.schedule, summary.report
    found = []
    if schedule is not None:
        start, stop = schedule.start_at, schedule.stop_at
        if status is Status.draft and start is not None and now - start > _LATE:
            found.append(Attention.start_refused)
        if status in (Status.running, Status.paused) and stop is not None and now - stop > _LATE:
            found.append(Attention.stop_overdue)
    if status is Status.running and summary.dates.refused is not None:
        found.append(Attention.wave_refused)
    if status not in _OPEN:
        return found
    if report is not None:
        found += _of_report(report, summary, now)
    elif summary.dates.started is not None and now - summary.dates.started > _FIRST_DAY:
        found.append(Attention.never_analysed)
    return found


def _of_report(report: Report, summary: Summary, now: datetime) -> list[Attention]:
    found = []
    if report.decision.verdict is Verdict.invalid:
        found.append(Attention.not_trusted)
    elif harmed(report):
        found.append(Attention.guardrail_harmed)
    if summary.experiment.status is not Status.running:
        return found
    primary = report.primary()
    users = sum(arm.exposed for arm in report.arms)
    planned = summary.experiment.plan.planned_users
    if now - datetime.fromisoformat(report.as_of) > _OLD:
        found.append(Attention.numbers_old)
    elif users == 0 and summary.dates.started is not None and now - summary.dates.started > _FIRST_DAY:
        found.append(Attention.nobody_came)
    if primary.matured >= _SOME_USERS and all(not arm.mean for arm in primary.arms):
        found.append(Attention.nothing_happened)
    if report.decision.verdict is Verdict.keep_running and primary.matured > _BEYOND * planned:
        found.append(Attention.beyond_plan)
    return found


def harmed(report: Report) -> bool:
    """Tell whether a variant harmed a guardrail."""
    return bool(harming(report))


def harming(report: Report) -> set[str]:
    """Return the variants that harmed a guardrail."""
    return {
        c.variant
        for metric in report.metrics
        if metric.role == "guardrail"
        for c in metric.comparisons
        if c.segment is None and c.noninferiority is not None and c.noninferiority.harmed
    }
