import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.proportion import proportions_ztest

from experiments.aggregate import Measured, UserCounts
from experiments.documents import Direction, Role
from experiments.report import Comparison, HealthCode, Interval, MetricReport, Report
from stats import sequential
from stats.errors import Problem
from tests.experiments import rows
from tests.experiments.rows import START, Event, Exposure, build, design, measured, spec

Floats = npt.NDArray[np.float64]


def money(seed: int, n: int, shift: float = 0.0) -> Floats:
    """Skewed spends in cents, many of them zero."""
    r = np.random.default_rng(seed)
    return np.round(r.lognormal(2, 1, n) * (r.random(n) < 0.4) + shift, 2)


def converted(n: int, successes: int) -> Floats:
    return np.repeat([1.0, 0.0], [successes, n - successes])


def two(treatment: Any, control: Any, stratum: str | None = None) -> dict[Any, Any]:
    return {(stratum, "t"): treatment, (stratum, "c"): control}


def only(report: Report, segment: str | None = None, variant: str = "t", metric: int = 0) -> Comparison:
    (found,) = (c for c in report.metrics[metric].comparisons if (c.segment, c.variant) == (segment, variant))
    return found


def limits(interval: Interval | None) -> tuple[float, float, float]:
    assert interval is not None
    return interval.estimate, interval.lower, interval.upper


def near(*values: float | None, rel: float = 1e-9) -> Any:
    return pytest.approx(values if len(values) > 1 else values[0], rel=rel)


def test_mean_equals_scipy_welch() -> None:
    t, c = money(1, 700, 0.5), money(2, 400)
    found = only(build(design(), (spec(), measured(two(t, c)))))
    oracle = scipy.stats.ttest_ind(t, c, equal_var=False)
    interval = oracle.confidence_interval(0.95)
    assert found.statistic is not None
    assert found.statistic.name == "welch_t"
    assert (found.statistic.value, found.statistic.df, found.p_value) == near(
        oracle.statistic, oracle.df, oracle.pvalue
    )
    assert limits(found.absolute) == near(t.mean() - c.mean(), interval.low, interval.high)
    assert found.se == near(math.sqrt(t.var(ddof=1) / 700 + c.var(ddof=1) / 400))


def test_arm_means_equal_numpy() -> None:
    t, c = money(1, 70), money(2, 40)
    report = build(design(), (spec(), measured(two(t, c))))
    found = {arm.variant: (arm.n, arm.mean, arm.se) for arm in report.metrics[0].arms}
    for variant, values in (("t", t), ("c", c)):
        assert found[variant] == near(len(values), values.mean(), values.std(ddof=1) / math.sqrt(len(values)))


def test_conversion_equals_statsmodels_pooled_z() -> None:
    rates = two(converted(900, 130), converted(800, 90))
    found = only(build(design(), (spec(kind="conversion"), measured(rates, "conversion"))))
    z, p = proportions_ztest([130, 90], [900, 800])
    assert found.statistic is not None
    assert (found.statistic.name, found.statistic.df) == ("pooled_z", None)
    assert (found.statistic.value, found.p_value) == near(z, p)


def test_posterior_equals_the_normal_law() -> None:
    found = only(build(design(), (spec(), measured(two(money(1, 90), money(2, 90))))))
    assert found.absolute is not None
    posterior = scipy.stats.norm(found.absolute.estimate, found.se)
    assert found.probability_better == near(posterior.sf(0))
    loss, _ = scipy.integrate.quad(lambda x: -x * posterior.pdf(x), -50, 0)
    assert found.expected_loss == near(loss, rel=1e-6)


def test_less_is_better_turns_the_posterior_round_and_nothing_else() -> None:
    data = measured(two(money(1, 90), money(2, 90)))
    up, down = (only(build(design(), (spec(direction=d), data))) for d in (Direction.up, Direction.down))
    assert up.absolute == down.absolute
    assert (up.p_value, up.relative) == (down.p_value, down.relative)
    assert up.probability_better == near(1 - (down.probability_better or 0))
    assert (down.expected_loss or 0) - (up.expected_loss or 0) == near(up.absolute.estimate if up.absolute else None)


def test_lift_limits_are_where_the_welch_test_of_that_lift_is_just_significant() -> None:
    """Fieller by its definition: t - (1 + r) c is tested on the rows, with the degrees of freedom of the difference."""
    t, c = money(3, 500, 1.0), money(4, 300)
    found = only(build(design(), (spec(), measured(two(t, c)))))
    assert found.statistic is not None
    critical = scipy.stats.t.isf(0.025, found.statistic.df)
    estimate, *bounds = limits(found.relative)
    assert estimate == near(t.mean() / c.mean() - 1)
    for bound in bounds:
        scaled = (1 + bound) * c
        se = math.sqrt(t.var(ddof=1) / t.size + scaled.var(ddof=1) / c.size)
        assert abs(t.mean() - scaled.mean()) / se == near(critical)


def test_lift_limits_meet_the_delta_method_in_large_samples() -> None:
    t, c = money(5, 40_000, 6.0), money(6, 40_000, 5.0)
    _, lower, upper = limits(only(build(design(), (spec(), measured(two(t, c))))).relative)
    ratio = t.mean() / c.mean()
    se = math.sqrt(t.var() / t.size / c.mean() ** 2 + t.mean() ** 2 * c.var() / c.size / c.mean() ** 4)
    assert (lower, upper) == pytest.approx((ratio - 1 - 1.96 * se, ratio - 1 + 1.96 * se), abs=0.02 * se)


def test_ratio_equals_a_regression_with_errors_clustered_by_user() -> None:
    """The delta method for a ratio is ordinary least squares on sessions with cluster-robust errors, no correction."""
    r = np.random.default_rng(7)
    parts = {}
    outcomes, treated, users = [], [], []
    for variant, size in (("t", 300), ("c", 200)):
        sessions = r.integers(1, 6, size)
        clicks = np.array([r.integers(0, n + 1) for n in sessions])
        parts[None, variant] = np.column_stack([clicks, sessions])
        for user, (n, k) in enumerate(zip(sessions, clicks, strict=True)):
            outcomes += [1] * k + [0] * (n - k)
            treated += [variant == "t"] * n
            users += [user + 1000 * (variant == "t")] * n
    x = sm.add_constant(np.array(treated, dtype=float))
    fit = sm.OLS(outcomes, x).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(users), "use_correction": False, "df_correction": False}
    )
    found = only(build(design(), (spec(kind="ratio"), measured(parts, "ratio"))))
    assert found.absolute is not None
    assert found.absolute.estimate == near(fit.params[1])
    variances = [fit.cov_params()[0, 0] * 200 / 199, fit.cov_params()[1, 1] - fit.cov_params()[0, 0]]
    assert found.se == near(math.sqrt(variances[0] + variances[1] * 300 / 299))


def with_covariates(seed: int, n: int, slope: float, covariates: int) -> Floats:
    r = np.random.default_rng(seed)
    x = np.round(r.lognormal(1, 1, (n, covariates)), 3)
    return np.column_stack([np.round(slope * x.sum(axis=1) + r.normal(0, 3, n), 3), x])


@pytest.mark.parametrize("covariates", [1, 3])
def test_covariates_equal_statsmodels_interacted_regression(covariates: int) -> None:
    """y ~ T + x + T x with x centred; its error has a term of its own for the sampling of the mean of x."""
    t, c = with_covariates(1, 300, 2.0, covariates), with_covariates(2, 500, 1.2, covariates)
    both = np.vstack([t, c])
    treated = np.repeat([1.0, 0.0], [300, 500])
    x = both[:, 1:] - both[:, 1:].mean(axis=0)
    fit = sm.OLS(both[:, 0], np.column_stack([np.ones(800), treated, x, x * treated[:, None]])).fit()
    report = build(design(), (spec(), measured(two(t, c), covariates=covariates)))
    found = only(report)
    assert report.metrics[0].adjustment == "cuped"
    assert found.absolute is not None
    assert found.absolute.estimate == near(fit.params[1])
    fits = [sm.OLS(arm[:, 0], sm.add_constant(arm[:, 1:] - both[:, 1:].mean(axis=0))).fit() for arm in (t, c)]
    slopes = fits[0].params[1:] - fits[1].params[1:]
    sampling = slopes @ np.atleast_2d(np.cov(x.T)) @ slopes / 800
    variance = sum(each.cov_params()[0, 0] for each in fits) + sampling
    assert found.se == near(math.sqrt(variance))
    plain = t[:, 0].var(ddof=1) / 300 + c[:, 0].var(ddof=1) / 500
    assert found.variance_reduction == near(1 - variance / plain)
    assert found.variance_reduction is not None
    assert found.variance_reduction > 0.3


UNEQUAL = {"a": {"c": 0.5, "t": 0.5}, "b": {"c": 0.9, "t": 0.1}}


def unequal(seed: int = 0, effect: float = 0.0) -> dict[Any, Floats]:
    r = np.random.default_rng(seed)
    draw = {("a", "t"): 0.3 + effect, ("a", "c"): 0.3, ("b", "t"): 0.05 + effect, ("b", "c"): 0.05}
    size = {("a", "t"): 5000, ("a", "c"): 5000, ("b", "t"): 1000, ("b", "c"): 9000}
    return {who: (r.random(size[who]) < rate).astype(float) for who, rate in draw.items()}


def test_two_segments_without_effect_show_none_though_their_pool_does() -> None:
    data = unequal()
    pooled = {v: np.concatenate([values for (_, name), values in data.items() if name == v]) for v in "tc"}
    z, _ = proportions_ztest([v.sum() for v in pooled.values()], [v.size for v in pooled.values()])
    assert abs(z) > 15
    found = only(build(design(UNEQUAL), (spec(kind="conversion"), measured(data, "conversion"))))
    assert found.statistic is not None
    assert found.statistic.name == "adjusted_t"
    assert abs(found.statistic.value) < 2
    naive = only(build(design(UNEQUAL, stratified=False), (spec(kind="conversion"), measured(data, "conversion"))))
    assert naive.statistic is not None
    assert naive.statistic.value == near(z)


def test_strata_are_weighted_by_their_users_on_the_rows() -> None:
    data = unequal(3, effect=0.05)
    found = only(build(design(UNEQUAL), (spec(), measured(data))))
    assert found.absolute is not None
    diffs = {s: data[s, "t"].mean() - data[s, "c"].mean() for s in "ab"}
    assert found.absolute.estimate == near((diffs["a"] + diffs["b"]) / 2)
    within = sum(data[s, v].var(ddof=1) / data[s, v].size / 4 for s in "ab" for v in "tc")
    between = (diffs["a"] - diffs["b"]) ** 2 / 4 / 20_000
    assert found.se == near(math.sqrt(within + between))


def test_a_segment_equals_an_experiment_on_its_users_alone() -> None:
    data = unequal(3, effect=0.05)
    whole = build(design(UNEQUAL), (spec(kind="conversion"), measured(data, "conversion")))
    alone = build(design(), (spec(kind="conversion"), measured(two(data["b", "t"], data["b", "c"]), "conversion")))
    assert figures(only(whole, "b")) == figures(only(alone))


def figures(comparison: Comparison) -> Any:
    return [getattr(comparison, name) for name in ("absolute", "relative", "se", "p_value", "statistic")]


@pytest.mark.parametrize("kind", ["mean", "conversion"])
@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_swapping_the_arms_mirrors_the_difference(kind: Any, method: Any) -> None:
    rate = kind == "conversion"
    t, c = (converted(300, 50), converted(200, 20)) if rate else (money(1, 300, 0.7), money(2, 200))
    plan = design(method=method, planned_users=600)
    one = only(build(plan, (spec(kind=kind), measured(two(t, c), kind))))
    other = only(build(plan, (spec(kind=kind), measured(two(c, t), kind))))
    estimate, lower, upper = limits(other.absolute)
    assert limits(one.absolute) == near(-estimate, -upper, -lower)
    assert (one.p_value, one.se) == near(other.p_value, other.se)
    assert one.probability_better == near(1 - (other.probability_better or 0))


@pytest.mark.parametrize("factor", [10, 0.01, -1])
@pytest.mark.parametrize("covariates", [0, 1])
def test_scaling_the_values_scales_the_effects_and_keeps_the_tests(factor: float, covariates: int) -> None:
    t, c = with_covariates(1, 60, 2.0, 1)[:, : 1 + covariates], with_covariates(2, 80, 1.2, 1)[:, : 1 + covariates]
    t, c = t * 100, c * 100
    one = only(build(design(), (spec(), measured(two(t, c), covariates=covariates))))
    other = only(build(design(), (spec(), measured(two(t * factor, c * factor), covariates=covariates))))
    assert sorted(limits(other.absolute)) == near(*sorted(factor * value for value in limits(one.absolute)))
    assert (other.p_value, other.se) == near(one.p_value, abs(factor) * (one.se or 0))
    if factor > 0:
        assert limits(other.relative) == near(*limits(one.relative))


def test_names_of_variants_do_not_matter() -> None:
    data = two(money(1, 90, 1), money(2, 80))
    renamed = {(None, {"t": "zebra", "c": "ant"}[variant]): values for (_, variant), values in data.items()}
    plan = design({None: {"zebra": 0.5, "ant": 0.5}}, control="ant")
    one, other = build(design(), (spec(), measured(data))), build(plan, (spec(), measured(renamed)))
    assert figures(only(one)) == figures(only(other, variant="zebra"))


THREE = {None: {"c": 0.4, "t": 0.3, "u": 0.3}}


def several(metrics: int, plan: Any = None, role: Role = Role.secondary) -> Report:
    parts = []
    for m in range(metrics):
        data = {(None, v): money(10 * m + i, 200, 0.4 * i) for i, v in enumerate("ctu")}
        parts.append((spec(f"m{m}", role=role if m else Role.primary, margin=1.0), measured(data)))
    return build(plan or design(THREE), *parts)


def p_values(metric: MetricReport) -> tuple[list[float], list[float]]:
    return [c.p_value or 0 for c in metric.comparisons], [c.p_adjusted or 0 for c in metric.comparisons]


def test_holm_equals_its_definition_over_the_variants_of_the_primary_metric() -> None:
    raw, adjusted = p_values(several(1).metrics[0])
    low, high = sorted(raw)
    assert sorted(adjusted) == near(min(1.0, 2 * low), max(min(1.0, 2 * low), high))
    assert raw != adjusted


@pytest.mark.parametrize("role", [Role.secondary, Role.guardrail])
def test_another_metric_leaves_the_answer_to_the_main_question(role: Role) -> None:
    assert several(4, role=role).metrics[0] == several(1).metrics[0]


def test_secondary_metrics_make_one_family_and_guardrails_none() -> None:
    report = several(3)
    raw, adjusted = zip(*(p_values(metric) for metric in report.metrics[1:]), strict=True)
    assert min(min(part) for part in adjusted) == near(4 * min(min(part) for part in raw))
    for metric in several(3, role=Role.guardrail).metrics[1:]:
        raw_, adjusted_ = p_values(metric)
        assert raw_ == adjusted_


def test_segments_leave_the_answer_to_the_main_question() -> None:
    data = {(s, v): money(i, 200, 0.5 * (v == "t")) for i, (s, v) in enumerate(UNEQUAL_PAIRS)}
    shares = {s: {"c": 0.5, "t": 0.5} for s in "ab"}
    cut = build(design(shares), (spec(), measured(data)))
    whole = {(None, v): np.concatenate([data[s, v] for s in "ab"]) for v in "tc"}
    assert only(cut) == only(build(design(), (spec(), measured(whole))))
    raw = [only(cut, s).p_value or 0 for s in "ab"]
    assert min(only(cut, s).p_adjusted or 0 for s in "ab") == near(min(1, 2 * min(raw)))


UNEQUAL_PAIRS = [("a", "t"), ("a", "c"), ("b", "t"), ("b", "c")]


@pytest.mark.parametrize("correction", ["bh", "none"])
def test_other_corrections_equal_their_definition(correction: Any) -> None:
    raw, adjusted = p_values(several(1, design(THREE, correction=correction)).metrics[0])
    expected = scipy.stats.false_discovery_control(raw, method="bh") if correction == "bh" else raw
    assert adjusted == near(*expected)


def test_significant_means_adjusted_p_below_alpha() -> None:
    for alpha in (0.2, 0.01, 1e-4):
        report = several(3, design(THREE, alpha=alpha))
        for metric in report.metrics:
            assert all(c.significant == ((c.p_adjusted or 0) < alpha) for c in metric.comparisons)


ONE = np.array([3.0])
SAME = np.full(50, 2.0)


@pytest.mark.parametrize(
    ("treatment", "control", "kind", "problem"),
    [
        ([], money(1, 50), "mean", Problem.NOT_ENOUGH_DATA),
        (money(1, 50), [], "mean", Problem.NOT_ENOUGH_DATA),
        (ONE, money(1, 50), "mean", Problem.NOT_ENOUGH_DATA),
        (SAME, SAME, "mean", Problem.ZERO_VARIANCE),
        (np.zeros(50), np.zeros(60), "conversion", Problem.ZERO_VARIANCE),
        (np.ones((50, 2)) * [1, 0], np.ones((60, 2)) * [1, 0], "ratio", Problem.ZERO_DENOMINATOR),
    ],
)
@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_data_that_carry_no_effect_give_a_problem_and_no_number(
    treatment: Any, control: Any, kind: Any, problem: Problem, method: Any
) -> None:
    shape = 2 if kind == "ratio" else 1
    data = two(np.reshape(treatment, (-1, shape)), np.reshape(control, (-1, shape)))
    report = build(design(method=method, planned_users=10), (spec(kind=kind), measured(data, kind)))
    assert only(report).problem == problem
    assert report.metrics[0].timeline == []


def test_nobody_at_all_gives_a_report_that_says_so() -> None:
    report = build(design(), (spec(), Measured(measured(two(SAME, SAME)).layout, {})), users={})
    assert only(report).problem == Problem.NOT_ENOUGH_DATA
    assert (report.srm.p_value, report.srm.problem) == (None, Problem.NOT_ENOUGH_DATA)
    assert [arm.assigned for arm in report.arms] == [0, 0]
    assert report.decision.verdict == "keep_running"


def test_a_control_mean_near_zero_has_an_effect_and_no_lift() -> None:
    values = np.random.default_rng(1).normal(0, 1, 80).round(4)
    found = only(build(design(), (spec(), measured(two(values + 3, values)))))
    assert found.absolute is not None
    assert (found.relative, found.relative_problem) == (None, Problem.LIFT_NOT_IDENTIFIED)


def test_a_stratum_without_an_arm_is_left_out_of_the_effect() -> None:
    data = unequal(3) | {("c", "c"): np.ones(40), ("c", "t"): np.ones(1)}
    shares = UNEQUAL | {"c": {"c": 0.9, "t": 0.1}}
    found, without = (only(build(design(shares), (spec(), measured(part)))) for part in (data, unequal(3)))
    assert found == without


def guardrail(shift: float, margin: float, direction: Direction = Direction.up, n: int = 400) -> Report:
    r = np.random.default_rng(1)
    t, c = r.normal(10 + shift, 1, n).round(3), r.normal(10, 1, n).round(3)
    primary = spec("p"), measured(two(money(1, n, 5), money(2, n)))
    return build(
        design(), primary, (spec("g", role=Role.guardrail, margin=margin, direction=direction), measured(two(t, c)))
    )


@pytest.mark.parametrize(
    ("shift", "margin", "direction", "passed", "harmed"),
    [
        (0.0, 0.3, Direction.up, True, False),
        (-0.4, 0.3, Direction.up, False, True),
        (-0.4, 0.8, Direction.up, True, False),  # worse, yet within what is acceptable
        (0.0, 0.1, Direction.up, False, False),  # not proven
        (0.4, 0.3, Direction.down, False, True),
        (-0.4, 0.3, Direction.down, True, False),
    ],
)
def test_guardrail_equals_the_one_sided_welch_test_of_its_margin(
    shift: float, margin: float, direction: Direction, passed: bool, harmed: bool
) -> None:
    test = only(guardrail(shift, margin, direction), metric=1).noninferiority
    assert test is not None
    r = np.random.default_rng(1)
    t, c = r.normal(10 + shift, 1, 400).round(3), r.normal(10, 1, 400).round(3)
    sign = 1 if direction is Direction.up else -1
    oracle = scipy.stats.ttest_ind(sign * t + margin, sign * c, equal_var=False, alternative="greater").pvalue
    assert test.p_value == near(oracle)
    assert (test.passed, test.harmed) == (passed, harmed)


def test_only_guardrails_over_all_users_are_tested_for_their_margin() -> None:
    data = measured(unequal(1))
    report = build(design(UNEQUAL), (spec("p", margin=1), data), (spec("g", role=Role.guardrail, margin=1), data))
    found = [(m.metric, c.segment) for m in report.metrics for c in m.comparisons if c.noninferiority]
    assert found == [("g", None)]


def test_a_guardrail_that_nobody_converted_on_passes_once_there_are_users_enough_for_its_margin() -> None:
    def tested(n: int, margin: float) -> tuple[str | None, bool]:
        data = measured(two(np.zeros(n), np.zeros(n)), "conversion")
        guardrail = spec("g", kind="conversion", role=Role.guardrail, margin=margin, direction=Direction.down)
        report = build(design(), (spec(), measured(unequal(1))), (guardrail, data))
        (found,) = (c for c in report.metrics[1].comparisons if c.segment is None)
        assert found.noninferiority is not None
        assert not found.noninferiority.harmed
        return found.problem, found.noninferiority.passed

    assert tested(40, 0.01) == ("zero_variance", False)
    assert tested(4000, 0.01) == ("zero_variance", True)


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


# From rows: counts of users, and the timeline.

METRICS = [rows.mean(window_days=2, role="primary")]


def from_rows(
    exposures: list[Exposure], events: list[Event], as_of: datetime, plan: Any = None, **asked: Any
) -> Report:
    found = rows.measure(exposures, events, METRICS, as_of=as_of, **asked)
    part = spec(window_days=2), found.metrics["m"]
    return build(plan or design(), part, users=found.users, forced=found.forced)


def many(users: int, days: int) -> tuple[list[Exposure], list[Event]]:
    r = np.random.default_rng(4)
    exposures = [
        Exposure(f"u{i}", "tc"[i % 2], START + timedelta(seconds=int(r.integers(days * 86_400)))) for i in range(users)
    ]
    events = [
        Event(e.user_id, "buy", e.at + timedelta(hours=int(r.integers(60))), float(r.integers(10_000) / 100))
        for e in exposures
    ]
    return exposures, events


@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_every_point_of_the_timeline_equals_the_report_of_that_evening(method: Any) -> None:
    exposures, events = many(300, 5)
    plan = design(method=method, planned_users=300)
    points = from_rows(exposures, events, START + timedelta(days=9), plan).metrics[0].timeline
    assert [point.day for point in points] == [str(date(2024, 5, day)) for day in range(3, 8)]
    for point in points:
        evening = datetime.combine(date.fromisoformat(point.day), datetime.min.time(), UTC) + timedelta(days=1)
        then = from_rows(exposures, events, evening - timedelta(microseconds=1), plan)
        assert only(then).absolute == point.absolute
        assert then.metrics[0].matured == point.n
    assert points[-1].absolute == only(from_rows(exposures, events, START + timedelta(days=9), plan)).absolute


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


def counted(counts: dict[Any, int]) -> dict[Any, UserCounts]:
    return {who: UserCounts(n, n) for who, n in counts.items()}


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
