"""What a programme of experiments came to: how many, how often they won, and what the winners are worth together.

Winners are picked by their numbers, so the sum of what they showed is too large. Beside it stands the sum of what is
left when all lifts are drawn together (``lifts``); and where users are held out of everything, what these tell.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from statistics import median
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from experiments.codes import ReasonCode, Verdict
from experiments.documents import Status
from experiments.errors import FieldProblem, InvalidDocument
from experiments.programme import attention, contribution, lifts, summaries, wins
from experiments.programme.contribution import Contribution, Question
from experiments.programme.summaries import Summary
from experiments.programme.wins import Win
from experiments.report import Interval, MoneyInterval, Report, Struct
from experiments.store import Store
from stats import proportions
from stats.proportions import Conversions

SCHEMA: Literal["upturn.programme/1"] = "upturn.programme/1"
_OVER = frozenset({Status.stopped, Status.decided, Status.archived})
_HARM = frozenset({ReasonCode.guardrail_harmed, ReasonCode.primary_worse, ReasonCode.segment_harmed})
_MONTH = timedelta(days=365.25 / 12)
_EARLIEST, _LATEST = date(1970, 1, 1), date(9000, 1, 1)


class Missing(StrEnum):
    """Why an experiment, or all of them, have no such number."""

    no_value = "no_value"
    no_report = "no_report"
    no_lift = "no_lift"
    too_few_experiments = "too_few_experiments"
    nothing_shipped = "nothing_shipped"


class Agreement(StrEnum):
    """What the holdout says of the sum of the single wins: the interval of their difference holds zero, or not."""

    agrees = "agrees"
    below = "below"
    above = "above"
    not_comparable = "not_comparable"


class ProgrammeLine(Struct, frozen=True):
    """An experiment of the programme.

    ``value`` is what its report said that the decision is worth a month, ``shrunken_value`` what is left of it; both
    for decided experiments that changed something only. ``missing`` tells why one is not there.
    """

    experiment: str
    name: str
    owner: str
    tags: list[str]
    status: str
    started: str | None
    decided: str | None
    days: float | None
    shipped: bool | None
    variant: str | None
    harmed: bool
    metric: str | None
    lift: Interval | None
    shrunken_lift: Interval | None
    value: MoneyInterval | None
    shrunken_value: MoneyInterval | None
    missing: Missing | None
    shrunken_missing: Missing | None


class Reconciled(Struct, frozen=True):
    """The single wins on the holdout's metric, for as long as each was decided in the period, beside the holdout.

    ``counted``: wins in the sum; ``left_out``: wins in force that cannot be expressed in that metric.
    """

    singles: Interval | None
    counted: int
    left_out: int
    difference: Interval | None
    agreement: Agreement


class Programme(Struct, frozen=True, kw_only=True):
    """The answer for the days from ``start`` up to, not including, ``end``.

    Shares have 95 % intervals (Wilson); ``total`` and ``shrunken`` are money a month.

    ``valued`` of the ``shipped`` are in both sums. ``usual`` is the mean lift of all variants tried, ``spread`` the
    standard deviation of their true lifts, learnt from ``learnt_from`` experiments that are over, whenever they were.
    """

    schema: Literal["upturn.programme/1"] = SCHEMA
    start: str
    end: str
    as_of: str
    currency: str
    started: int
    decided: int
    shipped: int
    win_rate: Interval | None
    median_days: float | None
    ended: int
    harmed: int
    harm_rate: Interval | None
    valued: int
    total: MoneyInterval | None
    total_missing: Missing | None
    shrunken: MoneyInterval | None
    shrunken_missing: Missing | None
    usual: Interval | None
    spread: float | None
    learnt_from: int
    experiments: list[ProgrammeLine]
    holdout: Contribution | None
    reconciled: Reconciled | None


def period(first: str | None, last: str | None, *, now: datetime, zone: ZoneInfo) -> tuple[date, date]:
    """Read the days of a period; return the first, and the day after the last: by default 90 days, today the last.

    Raises:
        InvalidDocument: a day is not written YYYY-MM-DD, or the last is before the first.
    """
    problems = []
    days = {"to": now.astimezone(zone).date()}
    for name, text in (("to", last), ("from", first)):
        try:
            if text is not None:
                days[name] = date.fromisoformat(text)
                if str(days[name]) != text:
                    raise ValueError
        except ValueError:
            problems.append(FieldProblem(name, text, "bad_date", "write a day as YYYY-MM-DD, such as 2026-07-01"))
    if not problems:
        days.setdefault("from", max(days["to"], _EARLIEST + timedelta(days=89)) - timedelta(days=89))
        if not _EARLIEST <= days["from"] <= days["to"] <= _LATEST:
            remedy = f"give a day not before that of from, between {_EARLIEST} and {_LATEST}"
            problems.append(FieldProblem("to", str(days["to"]), "inconsistent", remedy))
    if problems:
        raise InvalidDocument(problems, "programme")
    return days["from"], days["to"] + timedelta(days=1)


def of_period(store: Store, start: date, end: date, *, now: datetime, question: Question | None = None) -> Programme:
    """Return what the programme came to from the start of one day to that of another.

    Args:
        store: the store.
        start: the first day.
        end: the day after the last.
        now: the present.
        question: of the holdout, whose newest answer is taken if one was made.
    """
    zone = ZoneInfo(store.settings.timezone)
    with store.read() as session:
        everything = summaries.of_all(session)
        shipments = {
            win.summary.experiment.key: win for win in wins.found(everything, session, store.settings.currency)
        }
        answer = None if question is None else contribution.latest(session, question)
    first, last = (datetime.combine(day, time(), zone) for day in (start, end))

    def within(at: datetime | None) -> bool:
        return at is not None and first <= at < last

    over = [s for s in everything if s.experiment.status in _OVER]
    decided = [s for s in over if s.experiment.decision is not None and within(s.dates.decided)]
    ended = [s for s in over if within(s.dates.ended)]
    shown = [s for s in everything if within(s.dates.started) or within(s.dates.ended) or within(s.dates.decided)]
    shipped = [shipments[s.experiment.key] for s in decided if s.experiment.key in shipments]
    valued = [win for win in shipped if win.value is not None]
    pooled, total = _pooled(over, shipments, [win for win in valued if win.lift is not None], store.settings.currency)
    fresh = {s.experiment.key for s in decided}
    lines = [
        _line(
            s, shipments.get(s.experiment.key) if s.experiment.key in fresh else None, pooled, s.experiment.key in fresh
        )
        for s in shown
    ]
    harmed = sum(_harmed(s) for s in ended)
    runs = [(s.dates.ended - s.dates.started) / timedelta(days=1) for s in ended if s.dates.ended and s.dates.started]
    incomplete = any(win.lift is None for win in valued)
    return Programme(
        start=str(start),
        end=str(end),
        as_of=now.isoformat(),
        currency=store.settings.currency,
        started=sum(within(s.dates.started) for s in everything),
        decided=len(decided),
        shipped=len(shipped),
        win_rate=_rate(len(shipped), len(decided)),
        median_days=median(runs) if runs else None,
        ended=len(ended),
        harmed=harmed,
        harm_rate=_rate(harmed, len(ended)),
        valued=len(valued),
        total=wins.total([win.value for win in valued if win.value is not None]),
        total_missing=None if valued else Missing.no_value if shipped else Missing.nothing_shipped,
        shrunken=None if incomplete else total,
        shrunken_missing=_why_no_total(valued, pooled, incomplete=incomplete),
        usual=pooled.mean,
        spread=pooled.sd,
        learnt_from=pooled.experiments,
        experiments=sorted(lines, key=_order),
        holdout=answer,
        reconciled=None if answer is None else _reconciled(answer, shipments.values(), first, last, now),
    )


def _why_no_total(valued: Sequence[Win], pooled: lifts.Pool, *, incomplete: bool) -> Missing | None:
    if not valued:
        return None
    if pooled.mean is None:
        return Missing.too_few_experiments
    return Missing.no_lift if incomplete else None


def _rate(count: int, of: int) -> Interval | None:
    if not of:
        return None
    found = proportions.wilson(Conversions(count, of), lifts.ALPHA)
    return Interval(count / of, found.lower, found.upper)


def _harmed(summary: Summary) -> bool:
    report = summary.report
    if report is None or report.decision.verdict is Verdict.invalid:
        return False
    return bool(_HARM & set(report.decision.reasons)) or attention.harmed(report)


def _pooled(
    over: Sequence[Summary], shipments: dict[str, Win], counted: Sequence[Win], currency: str
) -> tuple[lifts.Pool, MoneyInterval | None]:
    """All lifts of experiments that are over, the shipped ones as shipped, and the money of those counted."""
    weights = {(win.summary.experiment.key, win.decision.variant): win.slope for win in counted}
    found = []
    for summary in over:
        win = shipments.get(summary.experiment.key)
        for lift in lifts.of_summary(win.summary if win is not None else summary):
            own = win is not None and win.lift is not None and lift.variant == win.decision.variant
            found.append(win.lift if own and win is not None and win.lift is not None else lift)
    pooled = lifts.pool(found, [weights.get((lift.experiment, lift.variant), 0.0) for lift in found])
    if pooled.combined is None or not counted:
        return pooled, None
    cost = sum(win.cost for win in counted)
    part = pooled.combined
    return pooled, MoneyInterval(part.estimate - cost, part.lower - cost, part.upper - cost, currency)


def _line(summary: Summary, win: Win | None, pooled: lifts.Pool, decided: bool) -> ProgrammeLine:
    experiment, report, dates = summary.experiment, summary.report, summary.dates
    variant = win.decision.variant if win is not None else None
    if variant is None and report is not None:
        variant = _leader(summary, report)
    lift = win.lift if win is not None else None
    known = None if variant is None else pooled.of(experiment.key, variant)
    if lift is None:
        lift = next((other for other in lifts.of_summary(summary) if other.variant == variant), None)
    shrunk = known[1] if known is not None else None
    value = None if win is None else win.value
    left = None
    if win is not None and value is not None and shrunk is not None and win.lift is not None:
        estimate, lower, upper = map(win.money, (shrunk.estimate, shrunk.lower, shrunk.upper))
        left = MoneyInterval(estimate, lower, upper, value.currency)
    missing = shrunken_missing = None
    if win is not None and value is None:
        missing = Missing.no_value if report is not None else Missing.no_report
    elif win is not None and left is None:
        shrunken_missing = Missing.no_lift if win.lift is None else Missing.too_few_experiments
    days = (dates.ended - dates.started) / timedelta(days=1) if dates.ended and dates.started else None
    return ProgrammeLine(
        experiment=experiment.key,
        name=experiment.name,
        owner=experiment.owner,
        tags=list(experiment.tags),
        status=experiment.status,
        started=dates.started.isoformat() if dates.started else None,
        decided=dates.decided.isoformat() if dates.decided else None,
        days=days,
        shipped=win is not None if decided else None,
        variant=variant,
        harmed=_harmed(summary),
        metric=lift.metric if lift is not None else None,
        lift=lift.interval if lift is not None else None,
        shrunken_lift=shrunk,
        value=value,
        shrunken_value=left,
        missing=missing,
        shrunken_missing=shrunken_missing,
    )


def _leader(summary: Summary, report: Report) -> str | None:
    if report.decision.variant is not None:
        return report.decision.variant
    found = list(lifts.of_summary(summary))
    return max(found, key=lambda lift: lift.estimate).variant if found else None


def _order(line: ProgrammeLine) -> tuple[bool, bool, float, str]:
    amount = line.shrunken_value or line.value
    return (line.decided is None, not line.shipped, -(amount.estimate if amount else 0.0), line.name)


def _reconciled(
    answer: Contribution, shipments: Iterable[Win], first: datetime, last: datetime, now: datetime
) -> Reconciled:
    """Gross sums on the holdout's metric: costs and margins are no part of what users did."""
    sums, left_out = [], 0
    end = min(last, now, first + timedelta(days=answer.days))
    for win in shipments:
        experiment, decided = win.summary.experiment, win.summary.dates.decided
        if answer.holdout not in experiment.holdouts or decided is None or decided >= end:
            continue
        lift, spec = win.lift, experiment.value
        if spec is None or lift is None or lift.metric != answer.metric:
            left_out += 1
            continue
        months = (end - max(first, decided)) / _MONTH
        scale = win.users * months * lift.base * (1.0 if answer.direction == "up" else -1.0)
        lower, upper = sorted((scale * lift.interval.lower, scale * lift.interval.upper))
        sums.append(MoneyInterval(scale * lift.estimate, lower, upper, ""))
    total = wins.total(sums)
    singles = None if total is None else Interval(total.estimate, total.lower, total.upper)
    if singles is None or answer.total is None:
        return Reconciled(singles, len(sums), left_out, None, Agreement.not_comparable)
    half = math.hypot(answer.total.upper - answer.total.estimate, singles.upper - singles.estimate)
    apart = answer.total.estimate - singles.estimate
    difference = Interval(apart, apart - half, apart + half)
    good = apart if answer.direction == "up" else -apart
    agreement = Agreement.agrees if abs(apart) <= half else Agreement.above if good > 0 else Agreement.below
    return Reconciled(singles, len(sums), left_out, difference, agreement)


def encode(found: Programme) -> bytes:
    """Return the answer as JSON bytes."""
    return msgspec.json.encode(found)
