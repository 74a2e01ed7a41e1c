from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from experiments.codes import HealthCode, ReasonCode
from experiments.report import Finding, Report
from experiments.sums import MICROS, Cell, UserCounts
from stats import srm
from stats.errors import Problem
from tests.experiments.analysis.figures import (
    UNEQUAL,
    UNEQUAL_PAIRS,
    counted,
    from_rows,
    many,
    money,
    near,
    only,
    two,
    unequal,
)
from tests.experiments.rows import START, Alias, Event, Exposure, build, design, mean, measure, measured, spec


def test_crossed_forced_and_immature_users_are_told_and_left_out() -> None:
    exposures, events = many(300, 1)
    late = START + timedelta(days=2)
    exposures += [
        Exposure("u0", "c", late),
        Exposure("u1", "t", late),
        Exposure("fresh", "t", late + timedelta(days=1)),
    ]
    report = from_rows(exposures, events, START + timedelta(days=4), forced=["u2", "absent"])
    findings = {finding.code: (finding.count, finding.of, finding.fatal) for finding in report.health}
    assert findings == {
        HealthCode.crossovers: (2, 300, False),
        HealthCode.immature_users: (1, 298, False),
        HealthCode.forced_users: (1, 301, False),
    }
    assert {arm.variant: (arm.assigned, arm.exposed, arm.matured) for arm in report.arms} == {
        "c": (150, 149, 149),
        "t": (150, 149, 148),
    }
    assert (report.metrics[0].matured, report.metrics[0].immature) == (297, 1)


@pytest.mark.parametrize(("crossed", "fatal"), [(5, False), (6, True)])
def test_crossovers_above_a_twentieth_are_fatal(crossed: int, fatal: bool) -> None:
    users = {(None, "c"): UserCounts(50, 50), (None, "t"): UserCounts(50, 50 - crossed)}
    report = build(design(), (spec(), measured(two(money(1, 50), money(2, 50)))), users=users)
    assert [finding.fatal for finding in report.health if finding.code == HealthCode.crossovers] == [fatal]
    assert (report.decision.verdict == "invalid") == fatal


@pytest.mark.parametrize(("merged", "fatal"), [(5, False), (6, True)])
def test_too_many_people_who_changed_ids_and_variants_are_fatal(merged: int, fatal: bool) -> None:
    rows = (spec(), measured(two(money(1, 50), money(2, 50))))
    report = build(design(), rows, merged=merged)
    assert report.health == [Finding(HealthCode.identity_crossovers, merged, 100, fatal=fatal)]
    assert (report.decision.verdict == "invalid") == fatal
    assert (ReasonCode.too_many_crossovers in report.decision.reasons) == fatal


def test_counting_people_where_first_seen_thins_the_effect_by_their_share() -> None:
    """Those of t and c who changed over have had the other's outcome: the difference is 1 − 2 × share of what it is."""
    exposures = [Exposure(f"d{i}", "tc"[i % 2]) for i in range(1000)]
    exposures += [Exposure(f"u{i}", "ct"[i % 2], START + timedelta(hours=1)) for i in range(100)]
    links = [Alias(f"u{i}", f"d{i}") for i in range(100)]
    last = {row.user_id.replace("d", "u"): row.variant for row in exposures}
    events = [Event(f"d{i}", "buy", START, 10.0) for i in range(1000) if last[f"u{i}"] == "t"]
    found = measure(exposures, events, [mean()], aliases=links)
    assert (found.merged, found.users) == (100, {(None, "c"): UserCounts(500, 500), (None, "t"): UserCounts(500, 500)})
    sums = {cell.variant: part for cell, part in found.metrics["m"].cells.items()}
    assert (sums["t"].sums[0] - sums["c"].sums[0]) / 500 / MICROS == pytest.approx(10 * (1 - 2 * 0.1))


@pytest.mark.parametrize(("treated", "problem"), [(5100, None), (5400, Problem.SAMPLE_RATIO_MISMATCH)])
def test_sample_ratio_equals_scipy_chisquare(treated: int, problem: Problem | None) -> None:
    plan = design({None: {"c": 0.6, "t": 0.4}})
    data = spec(), measured(two(money(1, 50), money(2, 50)))
    report = build(plan, data, users=counted({(None, "c"): 7500, (None, "t"): treated}))
    total = 7500 + treated
    oracle = scipy.stats.chisquare([7500, treated], [0.6 * total, 0.4 * total])
    assert report.srm.p_value == near(oracle.pvalue)
    assert (report.srm.observed, report.srm.problem) == ({"c": 7500, "t": treated}, problem)
    assert report.srm.expected == near_map({"c": 0.6 * total, "t": 0.4 * total})
    assert (report.decision.verdict == "invalid") == (problem is not None)


def near_map(values: dict[str, float]) -> Any:
    return pytest.approx(values, rel=1e-12)


def test_opposite_mismatches_of_two_segments_are_found_in_each() -> None:
    counts = {("a", "c"): 1000, ("a", "t"): 1300, ("b", "c"): 1300, ("b", "t"): 1000}
    shares = {s: {"c": 0.5, "t": 0.5} for s in "ab"}
    data = spec(), measured({who: money(1, 30) for who in counts})
    report = build(design(shares), data, users=counted(counts))
    assert report.srm.problem is None
    for segment in report.segment_srm:
        oracle = scipy.stats.chisquare([counts[segment.segment, "c"], counts[segment.segment, "t"]])
        assert segment.p_value == near(oracle.pvalue)
        assert segment.problem == Problem.SAMPLE_RATIO_MISMATCH
    assert [(f.code, f.subject) for f in report.health if f.fatal] == [
        (HealthCode.segment_sample_ratio_mismatch, "a"),
        (HealthCode.segment_sample_ratio_mismatch, "b"),
    ]
    assert report.decision.verdict == "invalid"


def test_users_in_a_variant_without_share_make_the_report_invalid() -> None:
    shares = {"a": {"c": 0.5, "t": 0.5}, "b": {"c": 1.0, "t": 0.0}}
    data = spec(), measured({who: money(1, 30) for who in UNEQUAL_PAIRS})
    report = build(design(shares), data)
    assert (report.srm.p_value, report.srm.problem) == (None, Problem.UNEXPECTED_USERS)
    assert (report.decision.verdict, report.decision.reasons) == ("invalid", ["sample_ratio_mismatch"])


def test_users_in_a_stratum_of_no_design_make_the_report_invalid() -> None:
    data = spec(), measured(unequal(1) | {("gone", "t"): money(1, 30)})
    report = build(design(UNEQUAL), data)
    assert report.srm.problem == Problem.UNEXPECTED_USERS
    assert report.decision.verdict == "invalid"


def test_a_segment_with_one_user_in_an_arm_is_named_thin() -> None:
    shares = UNEQUAL | {"c": {"c": 0.9, "t": 0.1}}
    data = spec(), measured(unequal(1) | {("c", "c"): money(1, 9), ("c", "t"): money(1, 1)})
    report = build(design(shares), data)
    assert [(f.code, f.count, f.subject) for f in report.health] == [(HealthCode.thin_segment, 10, "c")]
    assert only(report, "c").problem == Problem.NOT_ENOUGH_DATA


# By day.


def daily(counts: dict[str, list[int]]) -> dict[Any, dict[Any, int]]:
    """Users of each variant on consecutive days."""
    days = range(len(next(iter(counts.values()))))
    return {START.date() + timedelta(days=day): {(None, v): counts[v][day] for v in counts} for day in days}


def split_of(counts: dict[str, list[int]]) -> Report:
    totals = counted({(None, v): sum(n) for v, n in counts.items()})
    return build(design(), SMALL, users=totals, days=daily(counts))


SMALL = spec(), measured(two(money(1, 50), money(2, 50)))


def test_the_anytime_p_equals_the_sequential_test_of_the_days() -> None:
    counts = {"c": [510, 480, 505], "t": [490, 520, 515]}
    report = split_of(counts)
    oracle = srm.sequential_srm(np.array(list(zip(*counts.values(), strict=True)))[:, None, :], [[0.5, 0.5]]).p_value
    assert report.srm.anytime_p == near(oracle)
    assert report.srm.problem is None


def test_a_split_that_was_wrong_at_any_time_stays_wrong() -> None:
    """Right in total by the end, but not while it was gathered."""
    report = split_of({"c": [7400, 6600], "t": [6600, 7400]})
    assert (report.srm.p_value or 0) > 0.001
    assert (report.srm.anytime_p or 1) < 0.01
    assert report.srm.problem == Problem.SAMPLE_RATIO_MISMATCH
    assert report.decision.verdict == "invalid"


def test_the_worst_day_of_a_split_is_named_and_corrected_for_the_days() -> None:
    counts = {"c": [1000, 1000, 900, 1000, 1050, 1050], "t": [1000, 1010, 1100, 990, 960, 990]}
    report = split_of(counts)
    p_values = [scipy.stats.chisquare([c, t]).pvalue for c, t in zip(*counts.values(), strict=True)]
    assert report.srm.problem is None
    (check,) = (c for c in report.checks if c.code == HealthCode.daily_sample_ratio_mismatch)
    assert (check.subject, check.p_value, check.passed) == ("2024-05-03", near(6 * min(p_values)), False)
    found = report.health[0]
    assert (found.code, found.subject, found.count, found.of, found.fatal) == (
        HealthCode.daily_sample_ratio_mismatch,
        "2024-05-03",
        2000,
        12_050,
        False,
    )


def test_days_of_a_few_users_are_not_judged() -> None:
    report = split_of({"c": [1000, 8], "t": [1000, 0]})
    (check,) = (c for c in report.checks if c.code == HealthCode.daily_sample_ratio_mismatch)
    assert (check.subject, check.passed) == ("2024-05-01", True)


# Before exposure.


def with_history(shift: float, covariates: int = 2) -> Report:
    r = np.random.default_rng(1)
    rows = {}
    for v in "tc":
        before = r.normal(5 + shift * (v == "t"), 1, (300, covariates)).round(3)
        rows[None, v] = np.column_stack([(before.sum(axis=1) + r.normal(0, 1, 300)).round(3), before])
    return build(design(), (spec(), measured(rows, covariates=covariates)))


@pytest.mark.parametrize(("shift", "passed"), [(0.0, True), (0.4, False)])
def test_a_difference_before_exposure_is_told(shift: float, passed: bool) -> None:
    report = with_history(shift)
    (check,) = (c for c in report.checks if c.code == HealthCode.different_before)
    assert (check.subject, check.passed) == ("m", passed)
    assert [(f.code, f.subject, f.count) for f in report.health] == (
        [] if passed else [(HealthCode.different_before, "m", 600)]
    )


def test_the_difference_before_equals_hotelling() -> None:
    """One covariate: Wald's statistic is the square of Welch's."""
    r = np.random.default_rng(2)
    rows = {(None, v): np.column_stack([money(i, 300), r.normal(5, 1, 300).round(3)]) for i, v in enumerate("tc")}
    report = build(design(), (spec(), measured(rows, covariates=1)))
    (check,) = (c for c in report.checks if c.code == HealthCode.different_before)
    welch = scipy.stats.ttest_ind(rows[None, "t"][:, 1], rows[None, "c"][:, 1], equal_var=False)
    assert check.p_value == near(scipy.stats.chi2.sf(welch.statistic**2, 1))


# Single users.


def hanging(outlier: float) -> Report:
    r = np.random.default_rng(1)
    t, c = np.append(r.normal(10, 1, 300), outlier).round(3), np.append(r.normal(10, 1, 300), 11.0).round(3)
    t[:-1] += 0.3
    largest = {Cell(None, v, None): round(x.max() * MICROS) for v, x in (("t", t), ("c", c))}
    return build(design(), (spec(), measured(two(t, c), largest=largest)))


@pytest.mark.parametrize(("outlier", "passed"), [(12.0, True), (400.0, False)])
def test_an_answer_that_one_user_changes_is_told(outlier: float, passed: bool) -> None:
    """Significant without the one who spoils the variance."""
    report = hanging(outlier)
    assert only(report).significant == passed
    assert [check.passed for check in report.checks if check.code == HealthCode.outlier_influence] == [passed]
    assert [(f.code, f.subject, f.count) for f in report.health] == (
        [] if passed else [(HealthCode.outlier_influence, "m", 2)]
    )


# All of them.


def test_every_check_passes_on_clean_data() -> None:
    r = np.random.default_rng(4)
    before = {v: r.normal(5, 1, 800).round(3) for v in "tc"}
    rows = {v: (before[v] + r.normal(0, 1, 800)).round(3) for v in "tc"}
    largest = {Cell(None, v, None): round(rows[v].max() * MICROS) for v in "tc"}
    data = measured(two(*(np.column_stack([rows[v], before[v]]) for v in "tc")), covariates=1, largest=largest)
    parts = {v: (rows[v][:, None] / 4 + r.normal(0, 1, (800, 4))).round(3) for v in "tc"}
    report = build(
        design(ghosts=True),
        (spec(), data),
        days=daily({"t": [390, 410], "c": [405, 395]}),
        slices=measured(two(parts["t"], parts["c"])),
        bounds=(0, 2, 4, 6, 8),
        triggered=measured(two(rows["t"][:400], rows["c"][:410])),
    )
    assert report.health == []
    assert {check.code for check in report.checks} == {
        HealthCode.sample_ratio_mismatch,
        HealthCode.daily_sample_ratio_mismatch,
        HealthCode.different_before,
        HealthCode.outlier_influence,
        HealthCode.novelty,
        HealthCode.trigger_depends_on_variant,
    }
    assert all(check.passed for check in report.checks)


def test_every_code_is_raised_by_a_test_of_the_analysis() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [code for code in HealthCode if f"HealthCode.{code}" not in text] == []
