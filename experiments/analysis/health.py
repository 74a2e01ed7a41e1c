"""Can the numbers be trusted? The split, the days, what was before, single users, and what was left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from experiments.analysis.vectors import Measurement
from experiments.codes import HealthCode
from experiments.design import Design
from experiments.report import (
    Check,
    Finding,
    Influence,
    Interval,
    MetricReport,
    SampleRatio,
    SegmentSampleRatio,
    Triggered,
)
from experiments.sums import UserCounts
from stats import diagnostics
from stats import srm as sample_ratio
from stats.errors import Problem, StatError

# Below this p the split is not what was designed, and no effect can be trusted (Fabijan et al. 2019 use .0005–.01).
SRM_ALARM = 0.001
# The anytime test errs this often over the whole life of an experiment, however often it is looked at.
SRM_ANYTIME_ALARM = 0.01
# Above this share of users seen in two variants, leaving them out may bias what is left, and counting those among them
# who changed ids where they were first seen hides too much of the effect.
CROSSOVER_ALARM = 0.05
# The other checks advise and do not blank: they may err once in a hundred reports.
ALARM = 0.01

Users = Mapping[tuple[str | None, str], UserCounts]
Days = Mapping[date, Mapping[tuple[str | None, str], int]]


@dataclass(frozen=True, slots=True)
class Split:
    """The sample ratio of all users, of each segment, and what to say of it."""

    overall: SampleRatio
    segments: list[SegmentSampleRatio]
    findings: list[Finding]
    checks: list[Check]


def split(design: Design, users: Users, days: Days) -> Split:
    """Did the variants get the shares of users that the plan gave them: over all, by segment, by day, at any time?"""
    nobody = UserCounts(0, 0)
    counts = np.array([[users.get((s, v), nobody).assigned for v in design.variants] for s in design.strata])
    shares = np.array([[design.shares[s][v] for v in design.variants] for s in design.strata])
    observed = dict(zip(design.variants, counts.sum(axis=0).tolist(), strict=True))
    expected = dict(zip(design.variants, (counts.sum(axis=1) @ shares).tolist(), strict=True))
    total = sum(observed.values())
    if any(s not in design.shares or v not in design.variants for s, v in users):
        ratio = SampleRatio(None, expected, observed, Problem.UNEXPECTED_USERS)
        return Split(ratio, [], [_mismatch(ratio, total)], [Check(_MISMATCH, None, None, passed=False)])
    try:
        tested = sample_ratio.srm(counts, shares)
        overall = tested.overall.p_value
    except StatError as error:
        ratio = SampleRatio(None, expected, observed, error.code)
        found = [_mismatch(ratio, total)] if error.code is Problem.UNEXPECTED_USERS else []
        return Split(ratio, [], found, [Check(_MISMATCH, None, None, passed=not found)])
    anytime = _anytime(design, shares, days)
    bad = overall < SRM_ALARM or (anytime is not None and anytime < SRM_ANYTIME_ALARM)
    problem = Problem.SAMPLE_RATIO_MISMATCH if bad else None
    ratio = SampleRatio(overall, expected, observed, problem, anytime)
    findings = [_mismatch(ratio, total)] if bad else []
    checks = [Check(_MISMATCH, None, overall, passed=not bad)]
    segments = list(_segments(design, tested, counts, shares))
    for segment in segments:
        code, passed = HealthCode.segment_sample_ratio_mismatch, segment.problem is None
        checks.append(Check(code, segment.segment, segment.p_value, passed=passed))
        if not passed:
            findings.append(Finding(code, 0, total, fatal=True, subject=segment.segment))
    by_day = list(_daily(design, shares, days))
    if by_day:
        code = HealthCode.daily_sample_ratio_mismatch
        worst, p_value, n = min(by_day, key=lambda entry: entry[1])
        p_value = min(1.0, p_value * len(by_day))
        checks.append(Check(code, worst.isoformat(), p_value, passed=p_value >= SRM_ALARM))
        if p_value < SRM_ALARM:
            findings.append(Finding(code, n, total, fatal=False, subject=worst.isoformat()))
    return Split(ratio, segments, findings, checks)


_MISMATCH = HealthCode.sample_ratio_mismatch


def _mismatch(ratio: SampleRatio, users: int) -> Finding:
    off = max(abs(ratio.observed[v] - ratio.expected[v]) for v in ratio.observed)
    return Finding(_MISMATCH, round(off), users, fatal=True)


def _anytime(design: Design, shares: np.ndarray, days: Days) -> float | None:
    if len(days) < 2:
        return None
    looks = np.array(
        [[[days[day].get((s, v), 0) for v in design.variants] for s in design.strata] for day in sorted(days)]
    )
    try:
        return sample_ratio.sequential_srm(looks, shares).p_value
    except StatError:
        return None


def _segments(
    design: Design, tested: sample_ratio.SampleRatio, counts: np.ndarray, shares: np.ndarray
) -> Iterable[SegmentSampleRatio]:
    for segment, members in design.members.items():
        rows = [design.strata.index(stratum) for stratum in members]
        try:
            test = tested.strata[rows[0]] if len(rows) == 1 else sample_ratio.srm(counts[rows], shares[rows]).overall
        except StatError:
            continue
        if test is None:
            continue  # nobody there
        p_value = test.p_value
        bad = p_value < SRM_ALARM / len(design.members)
        yield SegmentSampleRatio(segment, p_value, Problem.SAMPLE_RATIO_MISMATCH if bad else None)


def _daily(design: Design, shares: np.ndarray, days: Days) -> Iterable[tuple[date, float, int]]:
    if len(days) < 2:
        return
    for day in sorted(days):
        counts = np.array([[days[day].get((s, v), 0) for v in design.variants] for s in design.strata])
        # Chi-square wants about five expected users of each variant.
        expected = counts.sum(axis=1) @ shares
        if (expected[expected > 0] < 5).any():
            continue
        try:
            yield day, sample_ratio.srm(counts, shares).overall.p_value, int(counts.sum())
        except StatError:
            continue


def before(measurements: Sequence[Measurement]) -> tuple[list[Finding], list[Check]]:
    """Did the variants' users already differ before exposure? One test a metric that has covariates."""
    code = HealthCode.different_before
    findings, checks = [], []
    with_history = [one for one in measurements if one.covariates]
    for measurement in with_history:
        design = measurement.design
        rows = measurement.rows(design.strata)
        if len(rows) > 1:
            continue
        arms = [rows[0][variant] for variant in design.variants]
        try:
            p_value = diagnostics.balance(arms, measurement.covariates).p_value
        except StatError:
            continue
        passed = p_value >= ALARM / len(with_history)
        checks.append(Check(code, measurement.spec.key, p_value, passed=passed))
        if not passed:
            users = sum(arm.n for arm in arms)
            findings.append(Finding(code, users, users, fatal=False, subject=measurement.spec.key))
    return findings, checks


def single_users(metrics: Sequence[MetricReport]) -> tuple[list[Finding], list[Check]]:
    """Does an answer hang on the largest user of each variant? It does where it changes without them."""
    code = HealthCode.outlier_influence
    findings, checks = [], []
    for metric in metrics:
        if not metric.influence:
            continue
        passed = not any(_turned(entry) for entry in metric.influence)
        checks.append(Check(code, metric.metric, None, passed=passed))
        if not passed:
            users = len(metric.influence) + 1
            findings.append(Finding(code, users, metric.matured, fatal=False, subject=metric.metric))
    return findings, checks


def novelty(primary: MetricReport) -> tuple[list[Finding], list[Check]]:
    """Does the effect fade or grow with the days since exposure?"""
    code = HealthCode.novelty
    findings, checks = [], []
    for trend in primary.novelty:
        passed = trend.p_value >= ALARM / len(primary.novelty)
        checks.append(Check(code, trend.variant, trend.p_value, passed=passed))
        if not passed:
            findings.append(Finding(code, primary.matured, primary.matured, fatal=False, subject=trend.variant))
    return findings, checks


def reach(triggered: Sequence[Triggered], *, received: bool, ghosts: bool) -> tuple[list[Finding], list[Check]]:
    """May users be cut down to those whom the treatment could reach?"""
    if received and not ghosts:
        return [Finding(HealthCode.openers_only, 0, 0, fatal=False)], []
    code = HealthCode.trigger_depends_on_variant
    findings, checks = [], []
    for entry in triggered:
        if entry.balance_p is None:
            continue
        passed = entry.problem is not Problem.TRIGGER_UNBALANCED
        checks.append(Check(code, entry.variant, entry.balance_p, passed=passed))
        if not passed:
            users = entry.users + entry.users_control
            findings.append(Finding(code, users, users, fatal=False, subject=entry.variant))
    return findings, checks


def counts(design: Design, users: Users, primary: MetricReport, *, forced: int, merged: int) -> Iterable[Finding]:
    """Users who are left out, saw another variant under another id, or do not count yet."""
    assigned = sum(part.assigned for part in users.values())
    exposed = sum(part.exposed for part in users.values())
    if assigned > exposed:
        fatal = assigned - exposed > CROSSOVER_ALARM * assigned
        yield Finding(HealthCode.crossovers, assigned - exposed, assigned, fatal=fatal)
    if merged:
        yield Finding(HealthCode.identity_crossovers, merged, assigned, fatal=merged > CROSSOVER_ALARM * assigned)
    if exposed > primary.matured:
        yield Finding(HealthCode.immature_users, exposed - primary.matured, exposed, fatal=False)
    if forced:
        yield Finding(HealthCode.forced_users, forced, assigned + forced, fatal=False)
    if design.stratified:
        for segment in design.segments:
            arms = [arm.n for arm in primary.arms if arm.segment == segment]
            if sum(arms) > 0 and min(arms) < 2:
                yield Finding(HealthCode.thin_segment, sum(arms), primary.matured, fatal=False, subject=segment)


def _turned(entry: Influence) -> bool:
    """Another answer, and not just because it was on the edge: the estimate moved by half a standard error or so."""
    moved = abs(entry.whole.estimate - entry.without.estimate)
    return _answer(entry.whole) != _answer(entry.without) and moved > (entry.whole.upper - entry.whole.lower) / 8


def _answer(interval: Interval) -> int:
    """-1, 0 or 1: below zero, not clear, above zero."""
    return int(interval.lower > 0) - int(interval.upper < 0)
