"""The winners that were rolled out: what was shipped to whom, on which report, and what it is worth."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from experiments.codes import Verdict
from experiments.documents import Decision
from experiments.programme import lifts, summaries
from experiments.programme.lifts import Lift
from experiments.programme.summaries import Summary
from experiments.report import MetricReport, MoneyInterval, Report
from experiments.variants import Value


@dataclass(frozen=True, slots=True)
class Win:
    """A shipped variant: its lift over those whom it was shipped to, and how a lift becomes money."""

    summary: Summary
    decision: Decision
    lift: Lift | None
    users: float
    value: MoneyInterval | None

    def money(self, lift: float) -> float:
        """Money a month of a lift."""
        return self.slope * lift - self.cost

    @property
    def slope(self) -> float:
        spec = self.summary.experiment.value
        return 0.0 if spec is None or self.lift is None else self.users * spec.margin * self.lift.base

    @property
    def cost(self) -> float:
        costs = {v.key: float(v.costs.per_user) for v in self.summary.experiment.variants}
        return self.users * (costs[self.decision.variant] - costs[self.summary.experiment.control])


def found(everything: Iterable[Summary], session: Session, currency: str) -> Iterator[Win]:
    """Yield the decisions that changed something, each with the report on which it was taken."""
    for summary in everything:
        decision = summary.experiment.decision
        if decision is None or decision.variant == summary.experiment.control:
            continue
        named = summaries.gist(session, decision.report) if decision.report else None
        own = named is not None and named.report.experiment == summary.experiment.key
        based = replace(summary, gist=named) if own else summary
        report = based.report
        if report is None or report.decision.verdict is Verdict.invalid:
            yield Win(based, decision, None, 0.0, None)
            continue
        spec = summary.experiment.value
        part = lifts.valued(summary.experiment, report)
        segments = _left(report, decision.segments)
        users = 0.0 if spec is None else spec.monthly_users * _share(report.primary(), segments)
        lift = _lift(summary.experiment.key, part, decision.variant, segments)
        win = Win(based, decision, lift, users, None)
        yield replace(win, value=_value(win, report, spec, part, segments, currency))


def _left(report: Report, segments: list[str] | None) -> list[str]:
    """The segments shipped to, none where these are all."""
    return [] if not segments or set(segments) >= set(report.segments) else segments


def _share(primary: MetricReport, segments: Sequence[str]) -> float:
    total = sum(arm.n for arm in primary.arms if arm.segment is not None)
    return sum(arm.n for arm in primary.arms if arm.segment in segments) / total if segments and total else 1.0


def _value(
    win: Win, report: Report, spec: Value | None, part: MetricReport, segments: Sequence[str], currency: str
) -> MoneyInterval | None:
    """What the report said, where its advice was followed; otherwise the same sum for what was chosen."""
    advice = report.decision
    followed = advice.variant == win.decision.variant and set(advice.segments) == set(segments)
    if followed and advice.value_per_month is not None:
        return advice.value_per_month
    if spec is None or part.metric != spec.metric or win.lift is None:
        return None
    lift = win.lift.interval
    return MoneyInterval(win.money(lift.estimate), win.money(lift.lower), win.money(lift.upper), currency)


def _lift(key: str, part: MetricReport, variant: str, segments: Sequence[str]) -> Lift | None:
    """The lift of a variant among the users of some segments, of all where none is named."""
    found = [
        lift
        for c in part.comparisons
        if c.variant == variant and (c.segment in segments if segments else c.segment is None)
        if (lift := lifts.of_comparison(key, part, c)) is not None
    ]
    if len(found) != max(len(segments), 1):
        return None
    if not segments:
        return found[0]
    order = [c.segment for c in part.comparisons if c.variant == variant and c.segment in segments]
    users = [sum(arm.n for arm in part.arms if arm.segment == segment) for segment in order]
    total = sum(users)
    base = sum(n * lift.base for n, lift in zip(users, found, strict=True)) / total
    gain = sum(n * lift.base * lift.estimate for n, lift in zip(users, found, strict=True)) / total
    spread = math.sqrt(sum((n * lift.base * lift.se) ** 2 for n, lift in zip(users, found, strict=True))) / total
    return Lift(key, variant, part.metric, gain / base, spread / base, base, 0.0, spread)


def total(values: Sequence[MoneyInterval]) -> MoneyInterval | None:
    """Return the sum of independent amounts: half widths add by their squares."""
    if not values:
        return None
    estimate = sum(v.estimate for v in values)
    below = math.sqrt(sum((v.estimate - v.lower) ** 2 for v in values))
    above = math.sqrt(sum((v.upper - v.estimate) ** 2 for v in values))
    currency = next((v.currency for v in values if v.currency), "")
    return MoneyInterval(estimate, estimate - below, estimate + above, currency)
