import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.proportion import proportions_ztest

from experiments.fields import Direction, Role
from experiments.report import Report
from experiments.sums import Cell, Column, Layout, Measured, Sums, Values
from stats import effects, proportions, quantiles, survival
from stats.errors import Problem
from stats.horizon import Fixed
from stats.proportions import Conversions
from stats.quantiles import Sample
from stats.survival import Lifetimes
from tests.experiments.analysis.figures import (
    THREE,
    UNEQUAL,
    UNEQUAL_PAIRS,
    converted,
    figures,
    limits,
    money,
    near,
    only,
    two,
    unequal,
    with_covariates,
)
from tests.experiments.rows import build, design, measured, spec


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
    def tested(n: int, margin: float, shares: Any = None) -> tuple[str | None, bool]:
        rows = two(np.zeros(n), np.zeros(n))
        if shares is not None:
            rows = {(s, v): np.zeros(round(2 * n * share)) for s, part in shares.items() for v, share in part.items()}
        guardrail = spec("g", kind="conversion", role=Role.guardrail, margin=margin, direction=Direction.down)
        data = guardrail, measured(rows, "conversion")
        found = build(design(shares), (spec(), measured(unequal(1))), data).metrics[1].comparisons[0]
        assert found.segment is None
        assert found.noninferiority is not None
        assert not found.noninferiority.harmed
        return found.problem, found.noninferiority.passed

    for shares in (None, UNEQUAL):
        assert tested(40, 0.01, shares) == ("zero_variance", False)
        assert tested(4000, 0.01, shares) == ("zero_variance", True)


# Several arms at once.


@pytest.mark.parametrize("kind", ["mean", "conversion", "ratio"])
def test_each_of_three_arms_equals_the_comparison_of_two(kind: Any) -> None:
    r = np.random.default_rng(3)
    columns = {
        "mean": lambda n: money(int(r.integers(99)), n),
        "conversion": lambda n: (r.random(n) < 0.2).astype(float),
        "ratio": lambda n: np.column_stack([r.integers(0, 9, n), r.integers(1, 5, n)]),
    }[kind]
    rows = {(None, v): columns(n) for v, n in (("c", 200), ("t", 150), ("u", 90))}
    three = build(design(THREE), (spec(kind=kind), measured(rows, kind)))
    for variant in "tu":
        alone = build(design(), (spec(kind=kind), measured(two(rows[None, variant], rows[None, "c"]), kind)))
        assert figures(only(three, variant=variant)) == figures(only(alone))


def test_a_variant_with_one_user_does_not_take_the_others_down() -> None:
    t, c = with_covariates(1, 90, 2.0, 1), with_covariates(2, 80, 1.2, 1)
    rows = two(t, c) | {(None, "u"): [[1.0, 2.0]]}
    report = build(design(THREE), (spec(), measured(rows, covariates=1)))
    assert only(report, variant="u").problem == Problem.NOT_ENOUGH_DATA
    alone = build(design(), (spec(), measured(two(t, c), covariates=1)))
    assert figures(only(report)) == figures(only(alone))


# Few conversions.


def test_few_conversions_are_judged_by_the_exact_test() -> None:
    report = build(design(), (spec(kind="conversion"), measured(two(converted(60, 8), converted(50, 1)), "conversion")))
    found = only(report)
    counts = Conversions(8, 60), Conversions(1, 50)
    assert found.statistic is not None
    assert found.statistic.name == "exact"
    assert found.statistic.value == near(proportions_ztest([8, 1], [60, 50])[0])
    assert found.p_value == found.statistic.p_value == near(proportions.exact(*counts))
    interval = proportions.exact_interval(*counts, 0.05)
    assert limits(found.absolute) == near(8 / 60 - 1 / 50, interval.lower, interval.upper)
    assert (found.relative, found.relative_problem) == (None, Problem.NOT_ENOUGH_DATA)


def test_the_exact_p_is_that_of_two_one_sided_barnard_tests() -> None:
    found = only(
        build(design(), (spec(kind="conversion"), measured(two(converted(30, 6), converted(28, 1)), "conversion")))
    )
    one_sided = scipy.stats.barnard_exact([[6, 1], [24, 27]], alternative="greater", n=256).pvalue
    assert found.p_value == pytest.approx(2 * one_sided, rel=1e-3)


@pytest.mark.parametrize(("converted_of_50", "name"), [(4, "exact"), (5, "pooled_z")])
def test_rare_means_fewer_than_five_expected(converted_of_50: int, name: str) -> None:
    rows = two(converted(50, converted_of_50), converted(50, converted_of_50))
    found = only(build(design(), (spec(kind="conversion"), measured(rows, "conversion"))))
    assert found.statistic is not None
    assert found.statistic.name == name
    mirrored = {who: 1 - values for who, values in rows.items()}
    found = only(build(design(), (spec(kind="conversion"), measured(mirrored, "conversion"))))
    assert found.statistic is not None
    assert found.statistic.name == name


def test_segments_are_judged_by_the_score_however_few() -> None:
    shares = {s: {"c": 0.5, "t": 0.5} for s in "ab"}
    rows = {(s, v): converted(50, k) for (s, v), k in zip(UNEQUAL_PAIRS, (6, 1, 2, 1), strict=True)}
    found = only(build(design(shares), (spec(kind="conversion"), measured(rows, "conversion"))), "a")
    z, p = proportions_ztest([6, 1], [50, 50])
    assert found.statistic is not None
    assert (found.statistic.name, found.statistic.value, found.p_value) == ("pooled_z", near(z), near(p))
    score = proportions.difference(Conversions(6, 50), Conversions(1, 50), 0.05)
    assert limits(found.absolute) == near(score.estimate, score.lower, score.upper)


def test_a_small_arm_beside_a_huge_one_is_judged_by_the_score() -> None:
    """Too many outcomes to enumerate."""
    n, k = 1_000_000, 50_000
    sums = {"c": Sums(n, (k,), (k,)), "t": Sums(60, (9,), (9,))}
    data = Measured(Layout((Column("x0", 1, binary=True),), 0), {Cell(None, v, None): s for v, s in sums.items()})
    plan = design({None: {"c": 0.99994, "t": 0.00006}})
    found = only(build(plan, (spec(kind="conversion"), data)))
    assert found.statistic is not None
    assert (found.statistic.name, found.p_value) == ("pooled_z", near(proportions_ztest([9, k], [60, n])[1]))


def test_a_margin_wider_than_all_shares_always_holds() -> None:
    for method in ("fixed", "sequential"):
        data = measured(two(converted(50, 0), converted(50, 50)), "conversion")
        guard = spec("g", kind="conversion", role=Role.guardrail, margin=1.5)
        report = build(design(method=method, planned_users=100), (spec(), measured(unequal(1))), (guard, data))
        test = only(report, metric=1).noninferiority
        assert test is not None
        assert test.passed


# Other kinds.


def test_retention_is_a_conversion() -> None:
    rows = two(converted(300, 50), converted(200, 20))
    one, other = (
        build(design(), (spec(kind=kind), measured(rows, kind))).metrics[0] for kind in ("conversion", "retention")
    )
    assert one.comparisons == other.comparisons


def test_a_funnel_is_the_conversion_of_its_last_step() -> None:
    steps = {v: np.cumprod(np.random.default_rng(i).random((300, 3)) < 0.7, axis=1) for i, v in enumerate("tc")}
    funnel = build(design(), (spec(kind="funnel"), measured(two(steps["t"], steps["c"]), "funnel")))
    last = two(steps["t"][:, -1:], steps["c"][:, -1:])
    assert only(funnel) == only(build(design(), (spec(kind="conversion"), measured(last, "conversion"))))


@pytest.mark.parametrize("clustered", [False, True])
def test_a_quantile_equals_that_of_the_plain_values(clustered: bool) -> None:
    r = np.random.default_rng(2)
    rows = {v: np.sort(r.lognormal(1 + 0.2 * (v == "t"), 1, 400).round(3)) for v in "ct"}
    users = np.sort(r.integers(0, 90, 400)) if clustered else None
    base = measured(two(rows["t"], rows["c"]))
    values = {(None, v): Values(np.zeros(400, dtype=np.int64), x, users) for v, x in rows.items()}
    data = Measured(base.layout, base.cells, values=values)
    found = only(build(design(), (spec(kind="quantile", quantile=0.8), data)))
    vector = quantiles.quantiles([Sample(rows["t"], users, None), Sample(rows["c"], users, None)], 0.8, 0.05)
    expected = effects.difference(vector, 0, 1, Fixed(0.05))
    assert limits(found.absolute) == near(expected.estimate, expected.lower, expected.upper)
    assert expected.estimate == pytest.approx(np.quantile(rows["t"], 0.8) - np.quantile(rows["c"], 0.8), rel=0.05)
    assert found.statistic is not None
    assert (found.statistic.name, found.p_value) == ("wald_z", near(expected.p_value))


def test_a_quantile_weighs_its_values_so_that_every_variant_has_the_same_strata() -> None:
    """Half and half in one stratum, nine to one in the other; the strata lie apart and the variants do not."""
    r = np.random.default_rng(2)
    sizes = {("a", "t"): 300, ("a", "c"): 300, ("b", "t"): 60, ("b", "c"): 540}
    rows = {who: np.sort(r.normal(1.0 + 5 * (who[0] == "b"), 1, n).round(3)) for who, n in sizes.items()}
    base = measured(rows)
    values = {who: Values(np.zeros(x.size, dtype=np.int64), x, None) for who, x in rows.items()}
    data = Measured(base.layout, base.cells, values=values)
    found = only(build(design(UNEQUAL), (spec(kind="quantile", quantile=0.4), data)))
    samples = [
        Sample(
            np.concatenate([rows["a", v], rows["b", v]]),
            None,
            np.repeat([600 / sizes["a", v], 600 / sizes["b", v]], [sizes["a", v], sizes["b", v]]),
            np.repeat([0, 1], [sizes["a", v], sizes["b", v]]),
        )
        for v in "tc"
    ]
    expected = effects.difference(quantiles.quantiles(samples, 0.4, 0.05), 0, 1, Fixed(0.05))
    assert limits(found.absolute) == near(expected.estimate, expected.lower, expected.upper)
    assert abs(expected.estimate) < 0.5


@pytest.mark.parametrize("method", ["fixed", "sequential"])
def test_a_time_to_event_watches_everyone_where_it_is_read_once(method: Any) -> None:
    r = np.random.default_rng(4)
    days = {v: r.exponential(9 - 3 * (v == "t"), 300).round(3) + 0.001 for v in "ct"}
    closed = {v: x[:100] for v, x in days.items()}
    base = measured(two(*(np.minimum(closed[v], 7.0) for v in "tc")))
    watched = {v: np.where(np.arange(300) < 100, 7.0, 3.0) for v in "ct"}
    lifetimes = {(None, v): Lifetimes.from_rows(np.minimum(days[v], watched[v]), days[v] < watched[v]) for v in "ct"}
    data = Measured(base.layout, base.cells, lifetimes=lifetimes)
    report = build(design(method=method, planned_users=200), (spec(kind="time_to_event", unit="days"), data))
    found = only(report)
    if method == "fixed":
        vector = survival.restricted_mean([lifetimes[None, "t"], lifetimes[None, "c"]], 7.0)
        expected = effects.difference(vector, 0, 1, Fixed(0.05))
        assert limits(found.absolute) == near(expected.estimate, expected.lower, expected.upper)
        assert [arm.n for arm in report.metrics[0].arms] == [300, 300]
    else:
        means = [np.minimum(closed[v], 7.0).mean() for v in "tc"]
        assert limits(found.absolute)[0] == near(means[0] - means[1])
        assert [arm.n for arm in report.metrics[0].arms] == [100, 100]


# Extremes.


def test_large_values_keep_their_variance() -> None:
    noise = {v: np.random.default_rng(i).normal(0, 1, 200).round(3) for i, v in enumerate("tc")}
    near_zero = only(build(design(), (spec(), measured(two(noise["t"], noise["c"])))))
    moved = only(build(design(), (spec(), measured(two(noise["t"] + 1e9, noise["c"] + 1e9)))))
    assert (moved.se, moved.p_value) == near(near_zero.se, near_zero.p_value, rel=1e-6)


@pytest.mark.parametrize("method", ["fixed", "sequential", "bayes"])
@pytest.mark.parametrize("kind", ["mean", "conversion"])
def test_far_tails_are_small_and_not_zero(kind: Any, method: Any) -> None:
    r = np.random.default_rng(1)
    if kind == "mean":
        rows = two(r.normal(12.2, 1, 500).round(3), r.normal(10, 1, 500).round(3))
    else:
        rows = two(converted(4000, 2600), converted(4000, 1050))
    found = only(build(design(method=method, planned_users=1000), (spec(kind=kind), measured(rows, kind))))
    assert found.statistic is not None
    assert 30 < found.statistic.value < 38
    assert 0 < (found.p_value or 0) < 1e-150


def test_less_than_nothing_counts_too() -> None:
    t, c = -money(1, 200, 1.0), -money(2, 150)
    found = only(build(design(), (spec(), measured(two(t, c)))))
    assert limits(found.absolute)[0] == near(t.mean() - c.mean())
    assert limits(found.relative)[0] == near((t.mean() - c.mean()) / abs(c.mean()))
    assert found.p_value == near(scipy.stats.ttest_ind(t, c, equal_var=False).pvalue)


@pytest.mark.parametrize("method", ["fixed", "sequential", "bayes"])
@pytest.mark.parametrize(("treated", "untreated"), [(0, 0), (50, 50), (0, 50), (50, 0)])
def test_all_or_nobody_is_a_problem_or_a_number_and_never_half(method: Any, treated: int, untreated: int) -> None:
    rows = two(converted(50, treated), converted(50, untreated))
    report = build(design(method=method, planned_users=100), (spec(kind="conversion"), measured(rows, "conversion")))
    assert only(report).problem == Problem.ZERO_VARIANCE
