"""What was learnt of tactics: which copy, offer or frequency did what, for whom, in all experiments together.

A tactic is what its variant sends, whatever the experiment or the variant was called. Where several experiments tried
the same one against the same control, on the same metric and segment, their lifts are combined: two by their precision
(inverse variance), three or more as draws from what such experiments give (random effects, ``stats.shrinkage``).
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from sqlalchemy.orm import Session

from experiments.codes import Verdict
from experiments.documents import Experiment, Kind, Status
from experiments.programme import lifts, summaries
from experiments.programme.lifts import Lift
from experiments.programme.summaries import Summary
from experiments.registry import all_of
from experiments.report import Comparison, Interval, MetricReport, MoneyInterval, Report, Struct
from experiments.variants import Tactic, Variant
from stats import shrinkage
from stats.errors import StatError

_Z = 1.959963984540054
_LIKELY = 0.9


class TacticKind(StrEnum):
    """The parts that a tactic may have."""

    copy = "copy"
    offer = "offer"
    frequency = "frequency"


class Evidence(StrEnum):
    """How sure it is that the tactic does better or worse than its control."""

    better = "better"
    likely_better = "likely_better"
    unclear = "unclear"
    likely_worse = "likely_worse"
    worse = "worse"


class Outcome(StrEnum):
    """What became of it: in the newest of its experiments."""

    rolled_out = "rolled_out"
    not_chosen = "not_chosen"
    advised = "advised"
    not_advised = "not_advised"
    open = "open"


class TacticSource(Struct, frozen=True):
    """An experiment in which the tactic was tried: its plain lift, and how many users were compared."""

    experiment: str
    name: str
    variant: str
    owner: str
    tags: list[str]
    status: str
    as_of: str
    lift: Interval
    users: int


class TacticEntry(Struct, frozen=True, kw_only=True):
    """One tactic against one control on one metric in one segment (None: all users).

    ``lift`` is better upwards, as a share of control; ``drawn`` tells how it was drawn together: with the other
    experiments (``shrunk``), with the other segments (``segments``), from several experiments (``two``, ``random``),
    or not at all. ``value`` is money a month at the users of the newest experiment.
    """

    id: str
    name: str
    copy: str | None
    offer: dict[str, Any] | None
    touches: int | None
    per: str | None
    channel: str | None
    extra: dict[str, Any] | None
    control: str
    control_copy: str | None
    control_offer: dict[str, Any] | None
    control_touches: int | None
    control_per: str | None
    segment: str | None
    segment_name: str | None
    metric: str
    metric_name: str
    lift: Interval
    drawn: Literal["none", "shrunk", "segments", "two", "random"]
    evidence: Evidence
    outcome: Outcome
    users: int
    value: MoneyInterval | None
    sources: list[TacticSource]


@dataclass(frozen=True, slots=True)
class Filter:
    """What is looked for; empty means anything."""

    text: str = ""
    kind: str = ""
    channel: str = ""
    segment: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Library:
    """The entries found, the most valuable first, and what there is to filter by."""

    entries: list[TacticEntry]
    channels: list[str]
    segments: dict[str, str]
    tags: list[str]
    total: int


# In place of a segment: all users.
EVERYONE = "*"


@dataclass(frozen=True, slots=True)
class _Tried:
    summary: Summary
    report: Report
    variant: Variant
    control: Variant
    metric: MetricReport
    segment: str | None
    segment_name: str | None
    lift: Lift
    drawn: Interval | None
    users: int

    def group(self) -> str:
        parts = [_content(self.variant), _content(self.control), self.metric.metric, self.segment]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def find(session: Session, currency: str, wanted: Filter | None = None) -> Library:
    """Return what is known of tactics.

    Args:
        session: of the record.
        currency: the store's.
        wanted: what is looked for.
    """
    wanted = wanted or Filter()
    everything = summaries.of_all(session)
    names = {segment.key: segment.name for segment in all_of(session, Kind.segment)}
    pooled = lifts.pool([lift for summary in everything for lift in lifts.of_summary(summary)])
    groups: dict[str, list[_Tried]] = {}
    for summary in everything:
        for tried in _tried(summary, pooled, names):
            groups.setdefault(tried.group(), []).append(tried)
    entries = [_entry(name, found, currency) for name, found in groups.items()]
    entries.sort(key=lambda e: (-(e.value.estimate if e.value else 0.0), -e.lift.estimate, e.id))
    tags = sorted({tag for entry in entries for source in entry.sources for tag in source.tags})
    return Library(
        entries=[entry for entry in entries if _matches(entry, wanted)],
        channels=sorted({entry.channel for entry in entries if entry.channel}),
        segments=dict(sorted({e.segment: e.segment_name or e.segment for e in entries if e.segment}.items())),
        tags=tags,
        total=len(entries),
    )


def _tried(summary: Summary, pooled: lifts.Pool, names: Mapping[str, str]) -> Iterator[_Tried]:
    experiment, report = summary.experiment, summary.report
    if report is None or report.decision.verdict is Verdict.invalid:
        return
    variants = {variant.key: variant for variant in experiment.variants}
    metric = lifts.valued(experiment, report)
    for c in metric.comparisons:
        variant, control = variants.get(c.variant), variants.get(c.control)
        if variant is None or control is None or not _content(variant):
            continue
        lift = lifts.of_comparison(experiment.key, metric, c)
        if lift is None:
            continue
        known = pooled.of(experiment.key, c.variant) if c.segment is None else None
        drawn = known[1] if known is not None else _of_segment(c, metric, lift)
        users = sum(a.n for a in metric.arms if a.segment == c.segment and a.variant in (c.variant, c.control))
        title = None if c.segment is None else names.get(c.segment, report.segments.get(c.segment, c.segment))
        yield _Tried(summary, report, variant, control, metric, c.segment, title, lift, drawn, users)


def _of_segment(c: Comparison, metric: MetricReport, lift: Lift) -> Interval | None:
    """A segment's effect as the report drew it towards the others."""
    if c.shrunk is None:
        return None
    sign = 1.0 if metric.direction == "up" else -1.0
    ends = sorted(sign * x / lift.base for x in (c.shrunk.lower, c.shrunk.upper))
    return Interval(sign * c.shrunk.estimate / lift.base, ends[0], ends[1])


def _content(variant: Variant) -> dict[str, Any]:
    """What a variant sends: equal for equal tactics, empty where it sends nothing."""
    if variant.tactic is None:
        return {}
    written = variant.tactic.model_dump(by_alias=True, mode="json", exclude_none=True)
    if isinstance(written.get("copy"), str):
        written["copy"] = " ".join(written["copy"].split())
    return written


def _entry(name: str, found: Sequence[_Tried], currency: str) -> TacticEntry:
    newest = max(found, key=lambda tried: (tried.report.as_of, tried.summary.experiment.key))
    lift, drawn, probability = _combined(found)
    tactic, control = newest.variant.tactic or Tactic(), newest.control.tactic or Tactic()
    frequency, control_frequency = tactic.frequency, control.frequency
    return TacticEntry(
        id=name,
        name=newest.variant.name or newest.variant.key,
        copy=tactic.copy_,
        offer=tactic.offer,
        touches=frequency.touches if frequency else None,
        per=frequency.per if frequency else None,
        channel=_channel(tactic),
        extra=tactic.extra,
        control=newest.control.name or newest.control.key,
        control_copy=control.copy_,
        control_offer=control.offer,
        control_touches=control_frequency.touches if control_frequency else None,
        control_per=control_frequency.per if control_frequency else None,
        segment=newest.segment,
        segment_name=newest.segment_name,
        metric=newest.metric.metric,
        metric_name=newest.metric.name,
        lift=lift,
        drawn=drawn,
        evidence=_evidence(lift, probability),
        outcome=_outcome(newest),
        users=sum(tried.users for tried in found),
        value=_money(newest, lift, currency),
        sources=[
            TacticSource(
                experiment=tried.summary.experiment.key,
                name=tried.summary.experiment.name,
                variant=tried.variant.key,
                owner=tried.summary.experiment.owner,
                tags=list(tried.summary.experiment.tags),
                status=tried.summary.experiment.status,
                as_of=tried.report.as_of,
                lift=tried.lift.interval,
                users=tried.users,
            )
            for tried in sorted(found, key=lambda tried: tried.report.as_of, reverse=True)
        ],
    )


def _channel(tactic: Tactic) -> str | None:
    """Where it reaches the user: the frequency's channel, else what ``extra`` calls one."""
    if tactic.frequency is not None and tactic.frequency.channel:
        return tactic.frequency.channel
    written = (tactic.extra or {}).get("channel")
    return written if isinstance(written, str) else None


def _combined(
    found: Sequence[_Tried],
) -> tuple[Interval, Literal["none", "shrunk", "segments", "two", "random"], float]:
    """The lift, how it was made, and the probability that it is above zero."""
    if len({tried.lift.experiment for tried in found}) > 1:
        made = _together(tuple((tried.lift.estimate, tried.lift.se) for tried in found))
        return made, "two" if len(found) == 2 else "random", _above_zero(made)
    tried = found[0]
    if tried.drawn is not None:
        return tried.drawn, "shrunk" if tried.segment is None else "segments", _above_zero(tried.drawn)
    return tried.lift.interval, "none", _above_zero(tried.lift.interval)


@lru_cache(maxsize=2_000)
def _together(found: tuple[tuple[float, float], ...]) -> Interval:
    estimates, variances = np.array([x for x, _ in found]), np.array([se**2 for _, se in found])
    if len(found) > 2:
        with suppress(StatError):
            pooled = shrinkage.shrink(estimates, np.diag(variances), lifts.ALPHA).pooled
            return Interval(pooled.estimate, pooled.lower, pooled.upper)
    weights = 1 / variances
    mean, half = float(weights @ estimates / weights.sum()), _Z / math.sqrt(weights.sum())
    return Interval(mean, mean - half, mean + half)


def _above_zero(interval: Interval) -> float:
    sd = (interval.upper - interval.lower) / (2 * _Z)
    return NormalDist().cdf(interval.estimate / sd) if sd > 0 else float(interval.estimate > 0)


def _evidence(lift: Interval, probability: float) -> Evidence:
    if lift.lower > 0:
        return Evidence.better
    if lift.upper < 0:
        return Evidence.worse
    if probability >= _LIKELY:
        return Evidence.likely_better
    return Evidence.likely_worse if probability <= 1 - _LIKELY else Evidence.unclear


def _outcome(tried: _Tried) -> Outcome:
    experiment, advice = tried.summary.experiment, tried.report.decision
    decision = experiment.decision
    if decision is not None and experiment.status in (Status.decided, Status.archived):
        inside = not decision.segments or tried.segment is None or tried.segment in decision.segments
        return Outcome.rolled_out if decision.variant == tried.variant.key and inside else Outcome.not_chosen
    if advice.verdict is Verdict.ship:
        inside = not advice.segments or tried.segment is None or tried.segment in advice.segments
        return Outcome.advised if advice.variant == tried.variant.key and inside else Outcome.not_advised
    return Outcome.not_advised if advice.verdict is Verdict.stop else Outcome.open


def _money(tried: _Tried, lift: Interval, currency: str) -> MoneyInterval | None:
    experiment: Experiment = tried.summary.experiment
    spec = experiment.value
    if spec is None or spec.metric != tried.metric.metric:
        return None
    users = float(spec.monthly_users)
    if tried.segment is not None:
        total = sum(arm.n for arm in tried.metric.arms if arm.segment is not None)
        users *= sum(arm.n for arm in tried.metric.arms if arm.segment == tried.segment) / total if total else 0.0
    cost = float(tried.variant.costs.per_user) - float(tried.control.costs.per_user)
    ends = [(x * tried.lift.base * spec.margin - cost) * users for x in (lift.estimate, lift.lower, lift.upper)]
    return MoneyInterval(ends[0], ends[1], ends[2], currency)


def _matches(entry: TacticEntry, wanted: Filter) -> bool:
    if wanted.kind and getattr(entry, "touches" if wanted.kind == TacticKind.frequency else wanted.kind, None) is None:
        return False
    if wanted.channel and entry.channel != wanted.channel:
        return False
    if wanted.segment and entry.segment != (None if wanted.segment == EVERYONE else wanted.segment):
        return False
    if wanted.tag and not any(wanted.tag in source.tags for source in entry.sources):
        return False
    return all(word in _searched(entry) for word in wanted.text.casefold().split())


def _searched(entry: TacticEntry) -> str:
    offer = "" if entry.offer is None else json.dumps(entry.offer, ensure_ascii=False)
    sources = (f"{s.experiment} {s.name} {s.owner} {' '.join(s.tags)}" for s in entry.sources)
    return " ".join([entry.name, entry.copy or "", offer, entry.segment_name or "", *sources]).casefold()
