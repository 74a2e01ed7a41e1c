import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import scipy.stats

from experiments.codes import HealthCode
from experiments.design import Design
from experiments.fields import Direction, Role
from experiments.report import Look, Report
from experiments.sums import Measured, Values
from stats import groupsequential, sequential
from stats.errors import Problem
from stats.groupsequential import Spending
from tests.experiments.analysis.figures import THREE, Floats, limits, money, near, only, two
from tests.experiments.rows import build, design, measured, spec


@pytest.mark.parametrize("n", [200, 800])
@pytest.mark.parametrize("planned", [1000, 50_000])
def test_the_sequence_is_tuned_to_the_plan_whatever_the_data(n: int, planned: int) -> None:
    t, c = money(1, n), money(2, n)
    report = build(design(method="sequential", planned_users=planned), (spec(), measured(two(t, c))))
    found = only(report)
    se = math.sqrt(t.var(ddof=1) / n + c.var(ddof=1) / n)
    rho = sequential.rho_squared(0.05, planned)
    half = se * sequential.multiplier(2 * n, 0.05, rho)
    difference = t.mean() - c.mean()
    assert limits(found.absolute) == near(difference, difference - half, difference + half)
    assert found.p_value == near(sequential.p_value(difference / se, 2 * n, rho))
    assert found.tuned_users == planned
    assert found.statistic is not None
    assert found.statistic.p_value == near(scipy.stats.ttest_ind(t, c, equal_var=False).pvalue)


def test_the_sequence_of_two_of_three_arms_is_tuned_to_their_planned_users() -> None:
    data = {(None, v): money(i, 100) for i, v in enumerate("ctu")}
    report = build(design(THREE, method="sequential", planned_users=1000), (spec(), measured(data)))
    found = only(report)
    estimate, lower, _ = limits(found.absolute)
    assert found.tuned_users == near(700)
    expected = sequential.multiplier(200, 0.05, sequential.rho_squared(0.05, 700))
    assert (estimate - lower) / (found.se or 0) == near(expected)


def test_an_adjusted_interval_of_a_sequence_is_tuned_as_the_plain_one() -> None:
    data = {(None, v): money(i, 100) for i, v in enumerate("ctu")}
    found = only(build(design(THREE, method="sequential", planned_users=1000), (spec(), measured(data))))
    estimate, lower, _ = limits(found.adjusted)
    expected = sequential.multiplier(200, 0.025, sequential.rho_squared(0.05, 700))
    assert (estimate - lower) / (found.se or 0) == near(expected)


# Day by day.

FIRST = date(2024, 5, 1)
Days = list[dict[str, Floats]]


def by_day(days: Days) -> dict[Any, Floats]:
    return {(None, v, FIRST + timedelta(i)): x for i, day in enumerate(days) for v, x in day.items()}


def normal_days(seed: int, shifts: list[float], n: int = 50, variants: str = "ct") -> Days:
    r = np.random.default_rng(seed)
    return [{v: r.normal(shift * (v != "c"), 1, n).round(3) for v in variants} for shift in shifts]


def evening(days: int, horizon: int = 7) -> datetime:
    """When the windows of the users of so many days have closed in every time zone."""
    return datetime(2024, 5, 1, tzinfo=UTC) + timedelta(days=days - 1 + horizon + 2)


def reports_of(days: Days, plan: Design, **fields: Any) -> Report:
    return build(plan, (spec(**fields), measured(by_day(days))))


def pooled(days: Days) -> dict[str, Floats]:
    return {v: np.concatenate([day[v] for day in days]) for v in days[0]}


@pytest.mark.parametrize("seed", range(5))
def test_a_sequence_shows_what_no_day_excluded_and_its_least_p(seed: int) -> None:
    plan = design(method="sequential", planned_users=600)
    days = normal_days(seed, [0.4] * 2 + [0.1] * 4)
    report = reports_of(days, plan)
    found, points = only(report), report.metrics[0].timeline
    rho = sequential.rho_squared(0.05, 600)
    lows, highs, ps = [], [], []
    for last in range(1, len(days) + 1):
        x = pooled(days[:last])
        n = x["t"].size + x["c"].size
        se = math.sqrt(sum(v.var(ddof=1) / v.size for v in x.values()))
        half, diff = se * sequential.multiplier(n, 0.05, rho), x["t"].mean() - x["c"].mean()
        lows.append(diff - half)
        highs.append(diff + half)
        ps.append(sequential.p_value(diff / se, n, rho))
        assert limits(points[last - 1].absolute) == near(diff, diff - half, diff + half)
    assert limits(found.absolute) == near(diff, max(lows), min(highs))
    assert found.p_value == near(min(ps))
    assert found.significant == (found.absolute.lower > 0 or found.absolute.upper < 0)  # type: ignore[union-attr]


def test_what_was_significant_yesterday_stays_so_in_every_interval() -> None:
    """Three arms: Bonferroni's interval keeps the past at its own level, or it would contradict the p kept."""
    days = normal_days(3, [0.9, 0.5, 0.2, 0.2, -0.1], n=40, variants="ctu")
    found = only(reports_of(days, design(THREE, method="sequential", planned_users=400)))
    today = only(build(design(THREE, method="sequential", planned_users=400), (spec(), measured(two_of(days)))))
    assert (found.p_value or 0) < (today.p_value or 0)
    for mine, plain in ((found.absolute, today.absolute), (found.adjusted, today.adjusted)):
        assert limits(mine)[1] > limits(plain)[1]
    assert (found.significant, today.significant) == (True, False)
    assert limits(found.adjusted)[1] > 0 > limits(today.adjusted)[1]


def two_of(days: Days) -> dict[Any, Floats]:
    return {(None, v): x for v, x in pooled(days).items()}


def test_a_past_that_excludes_the_present_is_told_and_not_kept() -> None:
    days = normal_days(1, [1.5] + [-0.6] * 4, n=60)
    plan = design(method="sequential", planned_users=600)
    report = reports_of(days, plan)
    today = build(plan, (spec(), measured(two_of(days))))
    assert (only(report).absolute, only(report).p_value) == (only(today).absolute, only(today).p_value)
    assert [(f.code, f.subject, f.fatal) for f in report.health] == [(HealthCode.effect_drifted, "t", False)]
    steady = reports_of(normal_days(1, [0.3] * 5), plan)
    assert steady.health == []


def test_only_a_sequence_narrows() -> None:
    days = normal_days(3, [2.0] + [0.3] * 3)
    assert only(reports_of(days, design())).absolute == only(build(design(), (spec(), measured(two_of(days))))).absolute


# Looks planned beforehand.

SPENDING = Spending("pocock")


def looked(looks: tuple[float, ...] = (0.25, 0.5, 1.0), shares: Any = None, **fields: Any) -> Design:
    return design(shares, method="group_sequential", planned_users=400, looks=looks, spending=SPENDING, **fields)


def at(days: Days, plan: Design, as_of: datetime, **fields: Any) -> Report:
    """As the store would have it: users whose windows have closed by then."""
    return build(plan, (spec(**fields), measured(by_day(days))), as_of=as_of)


def reached(report: Report) -> list[Look]:
    return [look for look in report.method.looks if look.reached]


def test_before_the_first_look_there_is_no_number_but_those_of_the_arms() -> None:
    plan = looked(shares=THREE, factors={v: {"f": v} for v in "ctu"}, doses={"c": 0.0, "t": 1.0, "u": 2.0})
    days = normal_days(1, [3.0], n=30, variants="ctu")
    guard = spec("g", role=Role.guardrail, margin=1.0), measured(by_day(days))
    report = build(plan, (spec(), measured(by_day(days), largest={})), guard, as_of=evening(1))
    for metric in report.metrics:
        assert {c.problem for c in metric.comparisons} == {Problem.BEFORE_FIRST_LOOK}
        assert {c.noninferiority for c in metric.comparisons} == {None}
        assert (metric.timeline, metric.choices, metric.influence) == ([], [], [])
        assert (metric.frequency, metric.factorial) == (None, None)
    assert all(arm.mean is not None for arm in report.metrics[0].arms)
    assert (report.decision.verdict, report.decision.reasons) == ("keep_running", ["before_first_look"])
    bounds = groupsequential.bounds((0.25, 0.5, 1.0), 0.05, SPENDING)
    assert [(look.users, look.reached) for look in report.method.looks] == [(100, False), (200, False), (400, False)]
    assert [look.bound for look in report.method.looks] == near(*bounds)


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_between_two_looks_the_report_shows_the_look_before(extra: int) -> None:
    """Looks at 100 and 200 users, 60 a day: taken after days 2 and 4, whatever came since."""
    days = normal_days(2, [0.1] * 8, n=30)
    once = at(days[:4], looked(), evening(4))
    later = at(days[: 4 + extra], looked(), evening(4 + extra))
    assert [c for m in later.metrics for c in m.comparisons] == [c for m in once.metrics for c in m.comparisons]
    assert later.method.looks == once.method.looks
    assert [(look.users, look.day) for look in reached(later)] == [(120, "2024-05-09"), (240, "2024-05-11")]
    assert later.metrics[0].matured == 240


def test_a_look_equals_the_repeated_interval_and_p_on_its_rows() -> None:
    days = normal_days(2, [0.1] * 4, n=30)
    report = at(days, looked(), evening(4))
    x = pooled(days)
    se = math.sqrt(sum(v.var(ddof=1) / v.size for v in x.values()))
    estimate = x["t"].mean() - x["c"].mean()
    information = (0.3, 0.6)
    critical = groupsequential.bounds(information, 0.05, SPENDING)[-1]
    assert limits(only(report).absolute) == near(estimate, estimate - critical * se, estimate + critical * se)
    assert only(report).p_value == near(groupsequential.sequential_p(estimate / se, information, SPENDING))
    second = reached(report)[1]
    assert (second.bound, second.statistic["t"], second.crossed) == (near(critical), near(estimate / se), [])
    assert [point.day for point in report.metrics[0].timeline] == ["2024-05-09", "2024-05-11"]
    assert report.metrics[0].timeline[1].absolute == only(report).absolute
    alone = at(days[:2], looked(), evening(2))
    assert report.metrics[0].timeline[0].absolute == only(alone).absolute


def test_a_day_that_has_not_closed_everywhere_is_not_looked_at() -> None:
    days = normal_days(2, [0.1] * 2, n=30)
    assert reached(at(days, looked(), evening(2) - timedelta(days=1))) == []
    assert len(reached(at(days, looked(), evening(2)))) == 1


def test_a_bound_crossed_ends_the_plan_with_the_stagewise_interval() -> None:
    days = normal_days(5, [0.3, 0.3, 0.9, 0.9, 0.0, 0.0], n=30)
    report = at(days, looked(), evening(6))
    first, second = reached(report)
    assert (first.crossed, second.crossed) == ([], ["t"])
    assert len(report.method.looks) == 2
    x = pooled(days[:4])
    se = math.sqrt(sum(v.var(ddof=1) / v.size for v in x.values()))
    z = (x["t"].mean() - x["c"].mean()) / se
    upper = groupsequential.bounds((0.3, 0.6), 0.05, SPENDING)
    oracle = groupsequential.stagewise(z, 2, (0.3, 0.6), upper, se, 0.05)
    found = only(report)
    assert limits(found.absolute) == near(oracle.estimate, oracle.lower, oracle.upper)
    assert found.p_value == near(oracle.p_value)
    assert 0 < oracle.estimate < z * se
    assert (report.decision.verdict, report.decision.variant) == ("ship", "t")


def test_a_plan_that_ended_early_spends_the_rest_at_what_it_has() -> None:
    """240 of 400 users: looks were taken at 120 and would be at 200; nobody new comes."""
    days = normal_days(2, [0.1] * 4, n=30)
    report = at(days, looked(looks=(0.25, 0.9, 1.0), ended=True), evening(4))
    x = pooled(days)
    estimate = x["t"].mean() - x["c"].mean()
    se = math.sqrt(sum(v.var(ddof=1) / v.size for v in x.values()))
    critical = groupsequential.bounds((0.3, 0.6), 0.05, SPENDING, final=True)[-1]
    assert [look.users for look in report.method.looks] == [120, 240]
    assert limits(only(report).absolute) == near(estimate, estimate - critical * se, estimate + critical * se)
    assert only(report).p_value == near(
        groupsequential.sequential_p(estimate / se, (0.3, 0.6), SPENDING, final=True), rel=1e-6
    )
    assert report.decision.verdict == "inconclusive"
    waiting = at(days, looked(looks=(0.25, 0.9, 1.0), ended=True), evening(3))
    assert [look.users for look in reached(waiting)] == [120]


def test_another_metric_keeps_the_repeated_interval_after_a_stop() -> None:
    """It did not stop the plan, so the order of outcomes by their look is not its own; p and intervals agree."""
    days = normal_days(5, [0.3, 0.3, 0.9, 0.9], n=30)
    other = normal_days(6, [0.5] * 4, n=30)
    primary = spec(), measured(by_day(days))
    second = [(spec(k, role=Role.secondary), measured(by_day(d))) for k, d in (("a", other), ("b", days))]
    report = build(looked(), primary, *second, as_of=evening(4))
    critical = groupsequential.bounds((0.3, 0.6), 0.05, SPENDING)[-1]
    for number in (1, 2):
        found = only(report, metric=number)
        estimate, lower, upper = limits(found.absolute)
        assert (estimate - lower, upper - estimate) == near(critical * (found.se or 0), critical * (found.se or 0))
        if found.adjusted is not None:
            assert found.significant == (found.adjusted.lower > 0 or found.adjusted.upper < 0)


def test_with_several_variants_a_crossing_ends_nothing() -> None:
    days = [day | {"u": day["c"] + 0.01} for day in normal_days(5, [2.0] * 2, n=30)]
    report = at(days, looked(shares=THREE), evening(2))
    assert [look.crossed for look in report.method.looks] == [["t"], [], []]


def test_running_over_a_look_and_the_plan_counts_what_was_seen() -> None:
    days = normal_days(2, [0.0] * 2, n=125)
    first = at(days[:1], looked(), evening(1))
    assert [look.bound for look in first.method.looks] == near(*groupsequential.bounds((0.625, 1.0), 0.05, SPENDING))
    assert [look.users for look in first.method.looks] == [250, 400]
    both = at(days, looked(), evening(2))
    assert [look.bound for look in both.method.looks] == near(*groupsequential.bounds((0.625, 1.25), 0.05, SPENDING))
    assert both.decision.verdict == "inconclusive"


def test_a_look_missed_by_a_user_in_a_thousand_is_taken() -> None:
    """Two looks nearer than that have no bound of their own."""
    n = 19_999
    days = [{v: np.resize([0.0, 1.0, 2.5], n) for v in "ct"}] * 2
    data = {(None, v, FIRST + timedelta(i)): day[v] for i, day in enumerate(days) for v in day}
    plan = design(method="group_sequential", planned_users=80_000, looks=(0.25, 0.5, 1.0), spending=SPENDING)
    report = build(plan, (spec(), measured(data)), as_of=evening(2))
    assert [(look.users, look.reached) for look in report.method.looks] == [(2 * n, True), (4 * n, True)]
    assert report.decision.verdict == "inconclusive"


def test_an_effect_that_became_hopeless_is_given_up() -> None:
    days = normal_days(4, [-0.15] * 8, n=30)
    report = at(days, looked(futility=0.2), evening(8))
    (look,) = report.method.looks
    whole = (0.3, 0.5, 1.0)
    upper = groupsequential.bounds(whole, 0.025, SPENDING, sides=1)
    drift = groupsequential.required_drift(whole, upper, 0.8)
    assert look.futility == near(groupsequential.futility(whole, upper, drift, 0.2, SPENDING)[0])
    assert look.statistic["t"] < (look.futility or 0)
    assert report.metrics[0].matured == 120
    assert (report.decision.verdict, report.decision.reasons) == ("stop", ["futile"])
    assert at(days, looked(), evening(8)).decision.verdict == "inconclusive"


def test_less_is_better_turns_futility_round() -> None:
    days = normal_days(4, [-0.25] * 8, n=30)
    mirrored = [{variant: -values for variant, values in day.items()} for day in days]
    report = at(mirrored, looked(futility=0.2), evening(8), direction=Direction.down)
    assert report.decision.reasons == ["futile"]
    (look,) = report.method.looks
    assert look.statistic["t"] > (look.futility or 0)


def test_metrics_of_other_windows_are_read_at_the_same_moment() -> None:
    """Users of day d have closed a window of 7 days when those of day d - 7 close one of 14."""
    days = normal_days(2, [0.1] * 12, n=30)
    data = measured(by_day(days))
    longer = measured({who: x for who, x in by_day(days).items() if who[2] <= FIRST + timedelta(days=4)})
    plan = looked(looks=(0.75, 1.0))
    secondary = spec("slow", role=Role.secondary, horizon_days=9, window_days=9)
    shorter = spec("fast", role=Role.secondary, horizon_days=5, window_days=5)
    report = build(plan, (spec(), data), (secondary, longer), (shorter, data), as_of=evening(6))
    assert [look.day for look in reached(report)] == ["2024-05-12"]
    assert [metric.matured for metric in report.metrics] == [5 * 60, 3 * 60, 7 * 60]


def test_a_file_without_days_is_read_at_the_last_look_its_size_reaches() -> None:
    def read(n: int, shift: float = 0.1) -> Report:
        return build(looked(), (spec(), measured(two(money(1, n, shift), money(2, n)))))

    assert read(40).decision.reasons == ["before_first_look"]
    assert [look.reached for look in read(120).method.looks] == [True, True, False]
    whole = read(220)
    assert [look.bound for look in whole.method.looks] == near(
        *groupsequential.bounds((0.25, 0.5, 1.1), 0.05, SPENDING)
    )


def test_a_file_with_a_large_effect_is_not_taken_to_have_shown_none_before() -> None:
    r = np.random.default_rng(1)
    t, c = r.normal(14, 1, 200).round(3), r.normal(10, 1, 200).round(3)
    found = only(build(looked(), (spec(), measured(two(t, c)))))
    assert limits(found.absolute)[0] == near(t.mean() - c.mean())
    assert found.significant


def test_a_quantile_is_looked_at_as_a_quantile() -> None:
    r = np.random.default_rng(1)
    rows = {v: r.exponential(10 if v == "c" else 30, 200).round(3) for v in "ct"}
    day = (FIRST - date(1970, 1, 1)).days
    values = {(None, v): Values(np.full(200, day), x, None) for v, x in rows.items()}
    base = measured({(None, v, FIRST): x for v, x in rows.items()})
    data = Measured(base.layout, base.cells, values=values)
    report = build(looked(), (spec(kind="quantile", quantile=0.9), data), as_of=evening(1))
    found = only(report)
    assert found.se is not None
    gap = np.quantile(rows["t"], 0.9) - np.quantile(rows["c"], 0.9)
    (look,) = reached(report)
    assert look.statistic["t"] * found.se == pytest.approx(gap, rel=0.05)


@pytest.mark.study
def test_looking_at_every_look_errs_no_more_than_planned() -> None:
    """2000 plans without an effect: the share called significant at any of their looks is alpha."""
    wrong = 0
    for seed in range(2000):
        days = normal_days(seed, [0.0] * 7, n=30)
        wrong += bool(at(days, looked(), evening(7)).metrics[0].comparisons[0].significant)
    assert scipy.stats.binom.ppf(0.005, 2000, 0.05) <= wrong <= scipy.stats.binom.isf(0.005, 2000, 0.05)
