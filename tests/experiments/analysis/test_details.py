import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.meta_analysis import combine_effects

from experiments.codes import HealthCode
from experiments.design import ValueSpec
from experiments.fields import Direction
from experiments.report import DoseResponse, Report
from experiments.sums import MICROS, Cell, Column, Layout, Measured, Sums
from stats import dose, sequential, shrinkage, winner
from stats.arms import ArmVector
from stats.errors import Problem
from stats.posterior import Normal
from stats.survival import Lifetimes
from tests.experiments.analysis.figures import Floats, figures, limits, money, near, only, two
from tests.experiments.rows import build, design, measured, spec

# Segments.

FIVE = {s: {"c": 0.5, "t": 0.5} for s in "abcde"}


def segmented(effects: Any, seed: int = 1, n: int = 200) -> dict[Any, Floats]:
    r = np.random.default_rng(seed)
    shift = dict(zip("abcde", effects, strict=True))
    return {(s, v): r.normal(shift[s] * (v == "t"), 1, n).round(3) for s in FIVE for v in "ct"}


def test_heterogeneity_equals_statsmodels_meta_analysis() -> None:
    report = build(design(FIVE), (spec(), measured(segmented([0.0, 0.1, 0.5, 0.2, 0.9]))))
    (found,) = report.metrics[0].heterogeneity
    parts = [only(report, s) for s in "abcde"]
    effects, ses = (np.array(x) for x in zip(*((limits(c.absolute)[0], c.se) for c in parts), strict=True))
    oracle = combine_effects(effects, ses**2, method_re="pm")
    assert (found.q, found.df) == (near(oracle.q), 4)
    assert found.p_value == near(scipy.stats.chi2.sf(oracle.q, 4))
    assert found.tau == near(oracle.tau2**0.5, rel=1e-4)
    assert (found.dimension, found.variant, found.segments) == ("segment", "t", 5)


def test_shrunk_effects_equal_the_posterior_of_the_plain_ones() -> None:
    report = build(design(FIVE), (spec(), measured(segmented([0.0, 0.1, 0.5, 0.2, 0.9]))))
    parts = [only(report, s) for s in "abcde"]
    effects, ses = (np.array(x) for x in zip(*((limits(c.absolute)[0], c.se) for c in parts), strict=True))
    oracle = shrinkage.shrink(effects, np.diag(ses**2), 0.05)
    for comparison, expected in zip(parts, oracle.estimates, strict=True):
        assert limits(comparison.shrunk) == near(expected.estimate, expected.lower, expected.upper)
    assert only(report).shrunk is None


def test_equal_effects_draw_together_and_unequal_ones_stay_apart() -> None:
    def spread(effects: Any) -> float:
        report = build(design(FIVE), (spec(), measured(segmented(effects))))
        parts = [only(report, s) for s in "abcde"]
        drawn, plain = (np.ptp([limits(getattr(c, name))[0] for c in parts]) for name in ("shrunk", "absolute"))
        return float(drawn / plain)

    assert spread([0.3] * 5) < 0.6
    assert spread([0.0, 3.0, -3.0, 6.0, 9.0]) > 0.98


def test_each_dimension_is_a_family_of_its_own() -> None:
    """Segments of two kinds overlap: shrunk within each kind only."""
    shares = {s: {"c": 0.5, "t": 0.5} for s in "abcd"}
    members = {"old": ("a", "b"), "new": ("c", "d"), "north": ("a", "c"), "south": ("b", "d")}
    both = {"age": ("old", "new"), "place": ("north", "south")}
    rows = {who: x for who, x in segmented([0.0, 0.5, 1.0, 0.2, 0.0]).items() if who[0] != "e"}

    def read(dimensions: Any) -> Report:
        names = {segment: segment for segment in members}
        return build(design(shares, segments=names, members=members, dimensions=dimensions), (spec(), measured(rows)))

    whole, alone = read(both), read({"age": both["age"]})
    assert [h.dimension for h in whole.metrics[0].heterogeneity] == ["age", "place"]
    assert whole.metrics[0].heterogeneity[:1] == alone.metrics[0].heterogeneity
    assert only(whole, "old").shrunk == only(alone, "old").shrunk
    assert only(alone, "north").shrunk is None


def test_one_segment_with_an_effect_cannot_differ_from_others() -> None:
    rows = {("a", "t"): money(1, 30), ("a", "c"): money(2, 30), ("b", "t"): [1.0], ("b", "c"): [2.0]}
    report = build(design({s: {"c": 0.5, "t": 0.5} for s in "ab"}), (spec(), measured(rows)))
    (found,) = report.metrics[0].heterogeneity
    assert (found.problem, found.segments, found.q) == (Problem.NOT_ENOUGH_DATA, 1, None)


# Choices.


def arms(seed: int, shifts: dict[str, float], n: int = 300) -> dict[Any, Floats]:
    r = np.random.default_rng(seed)
    return {(None, v): r.normal(10 + shift, 2, n).round(3) for v, shift in shifts.items()}


def equal_shares(variants: str) -> Any:
    return {None: {v: 1 / len(variants) for v in variants}}


EVEN = equal_shares("ctu")


@pytest.mark.parametrize("direction", Direction)
def test_choices_are_chances_that_sum_to_one_and_equal_a_simulation(direction: Direction) -> None:
    rows = arms(1, {"c": 0.0, "t": 0.2, "u": 0.3})
    found = build(design(EVEN), (spec(direction=direction), measured(rows))).metrics[0].choices
    assert sum(choice.probability_best for choice in found) == near(1.0)
    r = np.random.default_rng(1)
    draws = np.column_stack([r.normal(x.mean(), x.std(ddof=1) / x.size**0.5, 200_000) for x in rows.values()])
    draws = draws if direction is Direction.up else -draws
    best = draws.max(axis=1)
    assert [choice.variant for choice in found] == ["c", "t", "u"]
    for choice, mine in zip(found, draws.T, strict=True):
        assert choice.probability_best == pytest.approx((mine == best).mean(), abs=0.005)
        assert choice.expected_loss == pytest.approx((best - mine).mean(), abs=0.002)


@pytest.mark.parametrize("prior", [None, Normal(0.02, 0.05)])
def test_of_two_variants_the_choice_is_the_chance_of_being_better(prior: Normal | None) -> None:
    read: dict[str, Any] = {} if prior is None else {"method": "bayes", "correction": "none", "prior": prior}
    report = build(design(**read), (spec(), measured(two(money(1, 90), money(2, 90)))))
    control, treatment = report.metrics[0].choices
    assert treatment.probability_best == near(only(report).probability_better, rel=1e-6)
    assert treatment.expected_loss == near(only(report).expected_loss, rel=1e-6)
    assert control.probability_best == near(1 - treatment.probability_best)


# The winner's luck.


@pytest.mark.parametrize("direction", Direction)
def test_a_close_winner_is_drawn_towards_zero_and_its_money_with_it(direction: Direction) -> None:
    sign = 1 if direction is Direction.up else -1
    rows = arms(3, {"c": 0.0, "t": sign * 0.6, "u": sign * 0.6})
    value = ValueSpec("m", 0.5, 1000, "CNY", {})
    report = build(design(EVEN, value=value), (spec(direction=direction), measured(rows)))
    advice = report.decision
    assert advice.verdict == "ship"
    assert advice.variant is not None
    naive = limits(only(report, variant=advice.variant).absolute)[0]
    assert 0 < sign * limits(advice.corrected)[0] < sign * naive
    assert advice.value_per_month is not None
    assert advice.value_per_month.estimate == near(sign * 500 * limits(advice.corrected)[0])
    x = {v: values.mean() for (_, v), values in rows.items()}
    v = {v: values.var(ddof=1) / values.size for (_, v), values in rows.items()}
    covariance = np.diag([v["t"], v["u"]]) + v["c"]
    oracle = winner.corrected(sign * np.array([x["t"] - x["c"], x["u"] - x["c"]]), covariance, None, 0.05)
    assert sign * limits(advice.corrected)[0] == near(oracle.estimate)


def test_the_runner_up_is_not_chosen_because_only_the_winner_is_corrected() -> None:
    rows = arms(3, {"c": 0.0, "t": 0.6, "u": 0.6})
    rows[None, "u"] += round(rows[None, "t"].mean() - rows[None, "u"].mean() - 0.01, 3)
    report = build(design(EVEN), (spec(), measured(rows)))
    seen = {v: limits(only(report, variant=v).absolute)[0] for v in "tu"}
    assert all(only(report, variant=v).significant for v in "tu")
    assert report.decision.variant == max(seen, key=lambda v: seen[v])
    assert limits(report.decision.corrected)[0] < min(seen.values())


def test_a_clear_winner_keeps_its_effect() -> None:
    report = build(design(EVEN), (spec(), measured(arms(3, {"c": 0.0, "t": 0.0, "u": 4.0}))))
    naive = only(report, variant="u").absolute
    assert limits(report.decision.corrected)[0] == pytest.approx(limits(naive)[0], abs=1e-3)


def test_one_treatment_has_no_luck_to_take_off() -> None:
    report = build(design(), (spec(), measured(arms(3, {"c": 0.0, "t": 1.0}))))
    assert (report.decision.verdict, report.decision.corrected) == ("ship", None)


def test_under_a_sequence_the_corrected_interval_is_as_wide_as_the_sequence() -> None:
    plan = design(EVEN, method="sequential", planned_users=900)
    report = build(plan, (spec(), measured(arms(3, {"c": 0.0, "t": 0.0, "u": 4.0}))))
    _, lower, upper = limits(report.decision.corrected)
    _, low, high = limits(only(report, variant="u").absolute)
    assert upper - lower == pytest.approx(high - low, rel=0.05)
    assert sequential.multiplier(600, 0.05, sequential.rho_squared(0.05, 600)) > 2.2


# Touch frequency.

DOSES = {"c": 0.0, "t": 1.0, "u": 3.0, "w": 5.0}


def touched(curve: Any, seed: int = 1, n: int = 400) -> dict[Any, Floats]:
    r = np.random.default_rng(seed)
    return {(None, v): r.normal(curve(x), 1, n).round(3) for v, x in DOSES.items()}


def response(rows: dict[Any, Floats], direction: Direction = Direction.up, doses: Any = None) -> DoseResponse | None:
    plan = design(equal_shares("ctuw"), doses=DOSES if doses is None else doses)
    return build(plan, (spec(direction=direction), measured(rows))).metrics[0].frequency


def test_the_trend_of_touches_equals_the_regression_on_them() -> None:
    rows = touched(lambda x: 2 + 0.1 * x)
    found = response(rows)
    assert found is not None
    x = np.concatenate([np.full(400, DOSES[v]) for _, v in rows])
    fit = sm.OLS(np.concatenate(list(rows.values())), sm.add_constant(x)).fit(cov_type="HC2")
    assert found.trend.estimate == near(fit.params[1])
    assert found.trend_p == pytest.approx(fit.pvalues[1], rel=0.05)
    vector = ArmVector(
        np.full(4, 400),
        np.array([y.mean() for y in rows.values()]),
        np.diag([y.var(ddof=1) / 400 for y in rows.values()]),
        np.array([(y.var(ddof=1) / 400) ** 2 / 399 for y in rows.values()]),
    )
    departure = dose.departure(vector, list(DOSES.values()))
    assert found.departure is not None
    assert (found.departure.statistic, found.departure.df, found.departure.p_value) == near(
        departure.statistic, 2, departure.p_value
    )


def test_a_peak_is_found_within_its_limits_and_the_tested_doses() -> None:
    found = response(touched(lambda x: 2 - 0.2 * (x - 3) ** 2))
    assert found is not None
    assert (found.shape, found.best_tested) == ("concave", [3.0])
    assert [(point.variant, point.dose) for point in found.curve] == list(DOSES.items())
    assert found.best is not None
    assert found.best.lower < 3 < found.best.upper
    assert all(point.lower <= point.estimate <= point.upper for point in found.curve)


def test_data_that_contradict_a_parabola_have_no_peak_of_one() -> None:
    found = response(touched(lambda x: 2 + min(x, 1.0) - 0.1 * x))
    assert found is not None
    assert (found.shape, found.best_tested) == ("concave", [1.0])
    assert (found.best, found.best_problem) == (None, Problem.SHAPE_REJECTED)


def test_a_line_has_no_peak() -> None:
    found = response(touched(lambda x: 0.5 * x))
    assert found is not None
    assert (found.best, found.best_problem) == (None, Problem.NO_OPTIMUM)


def test_less_is_better_finds_the_lowest() -> None:
    found = response(touched(lambda x: 0.5 * x), Direction.down)
    assert found is not None
    assert (found.shape, found.best_tested) == ("increasing", [0.0])
    mirrored = response(touched(lambda x: 2 + 0.2 * (x - 3) ** 2), Direction.down)
    assert mirrored is not None
    assert mirrored.shape == "free"
    assert mirrored.best is not None
    assert mirrored.best.lower < 3 < mirrored.best.upper


@pytest.mark.parametrize("doses", [{"c": 0.0, "t": 1.0}, {"c": 0.0, "t": 1.0, "u": 1.0, "w": 2.0}])
def test_fewer_than_three_frequencies_or_two_alike_make_no_curve(doses: Any) -> None:
    assert response(touched(lambda x: x), doses=doses) is None


# Factors.


def test_a_factorial_design_equals_the_regression_with_an_interaction() -> None:
    levels = {"c": ("plain", "none"), "t": ("plain", "coupon"), "u": ("urgent", "none"), "w": ("urgent", "coupon")}
    factors = {v: {"copy": copy, "offer": offer} for v, (copy, offer) in levels.items()}
    rows = arms(5, {"c": 0.0, "t": 0.5, "u": 0.3, "w": 1.2})
    metric = build(design(equal_shares("ctuw"), factors=factors), (spec(), measured(rows))).metrics[0]
    assert metric.factorial is not None
    copy = np.concatenate([np.full(300, levels[v][0] == "urgent") for _, v in rows]) - 0.5
    offer = np.concatenate([np.full(300, levels[v][1] == "coupon") for _, v in rows]) - 0.5
    x = np.column_stack([np.ones(1200), copy, offer, copy * offer])
    fit = sm.OLS(np.concatenate(list(rows.values())), x).fit(cov_type="HC2", use_t=False)
    found = metric.factorial.effects
    assert [effect.levels for effect in found] == [
        {"copy": "urgent"},
        {"offer": "coupon"},
        {"copy": "urgent", "offer": "coupon"},
    ]
    assert [limits(effect.absolute)[0] for effect in found] == near(*fit.params[1:])
    for effect, p_value in zip(found, fit.pvalues[1:], strict=True):
        assert np.log(effect.p_value or 0) == pytest.approx(np.log(p_value), rel=0.05)
    assert metric.factorial.interactions is not None
    z = fit.tvalues[3]
    assert (metric.factorial.interactions.statistic, metric.factorial.interactions.df) == near(z**2, 1)


# Heavy tails.


def capped(rows: dict[Any, Floats], cap: float) -> Measured:
    both = {who: np.column_stack([np.minimum(x, cap), x]) for who, x in rows.items()}
    return replace(measured(both, uncapped=1), cap=cap)


def test_the_cut_tells_what_it_removed_and_the_effect_without_it() -> None:
    t, c = money(1, 300, 0.5), money(2, 250)
    report = build(design(), (spec(), capped(two(t, c), 10.0)))
    found = {part.variant: part for part in report.metrics[0].capping}
    for variant, x in (("t", t), ("c", c)):
        assert (found[variant].cap, found[variant].removed) == near(10.0, 1 - np.minimum(x, 10).sum() / x.sum())
    assert found["c"].uncapped is None
    assert found["t"].uncapped == only(build(design(), (spec(), measured(two(t, c))))).absolute
    cut = two(np.minimum(t, 10), np.minimum(c, 10))
    assert figures(only(report)) == figures(only(build(design(), (spec(), measured(cut)))))


def whales(rows: dict[Any, Floats], **largest: float) -> Measured:
    return measured(rows, largest={Cell(None, v, None): round(x * MICROS) for v, x in largest.items()})


def test_influence_is_the_effect_without_the_largest_user_of_each() -> None:
    t, c = np.append(money(1, 80), 900.0), money(2, 80)
    report = build(design(), (spec(), whales(two(t, c), t=900.0, c=c.max())))
    (found,) = report.metrics[0].influence
    assert found.share == near(900 / t.sum())
    assert found.whole == only(report).absolute
    rest = two(np.delete(t, t.argmax()), np.delete(c, c.argmax()))
    without = limits(only(build(design(), (spec(), measured(rest)))).absolute)
    assert limits(found.without) == near(*without)


# Days since exposure.


def sliced(fade: float, n: int = 300) -> tuple[dict[Any, Floats], Measured]:
    r = np.random.default_rng(1)
    effect = np.maximum(0.4 - fade * np.arange(4), 0)
    per_day = {v: (r.normal(2, 1, (n, 4)) + effect * (v == "t")).round(3) for v in "tc"}
    return {(None, v): x.sum(axis=1) for v, x in per_day.items()}, measured(two(per_day["t"], per_day["c"]))


@pytest.mark.parametrize(("fade", "novel"), [(0.2, True), (0.0, False)])
def test_slices_equal_the_means_and_novelty_the_line_through_their_lifts(fade: float, novel: bool) -> None:
    rows, slices = sliced(fade)
    report = build(design(), (spec(), measured(rows)), slices=slices, bounds=(0, 1, 3, 5, 7))
    metric = report.metrics[0]
    assert [(point.start, point.end) for point in metric.slices] == [(0, 1), (1, 3), (3, 5), (5, 7)]
    columns = {v: sliced(fade)[1].cells[Cell(None, v, None)].moments([MICROS] * 4) for v in "tc"}
    gaps = columns["t"].mean - columns["c"].mean
    assert [point.absolute.estimate for point in metric.slices] == near(*gaps)
    (trend,) = metric.novelty
    lift = np.log(columns["t"].mean / columns["c"].mean)
    assert trend.slope.estimate == near(float(np.polyfit([0.5, 2, 4, 6], lift, 1)[0]))
    assert [(f.code, f.subject) for f in report.health] == ([(HealthCode.novelty, "t")] if novel else [])
    assert [check.passed for check in report.checks if check.code == HealthCode.novelty] == [not novel]


def test_the_placebo_is_the_difference_before_exposure() -> None:
    rows, slices = sliced(0.0)
    r = np.random.default_rng(7)
    early = {v: r.normal(2, 1, (300, 2)).round(3) for v in "tc"}
    report = build(
        design(),
        (spec(), measured(rows)),
        slices=slices,
        bounds=(0, 1, 3, 5, 7),
        placebo=measured(two(early["t"], early["c"])),
        placebo_bounds=(-3, -1, 0),
    )
    metric = report.metrics[0]
    assert [(point.start, point.end) for point in metric.placebo] == [(-3, -1), (-1, 0)]
    assert [point.absolute.estimate for point in metric.placebo] == near(*(early["t"] - early["c"]).mean(axis=0))
    without = build(design(), (spec(), measured(rows)), slices=slices, bounds=(0, 1, 3, 5, 7)).metrics[0]
    assert (metric.slices, metric.novelty) == (without.slices, without.novelty)
    silent = measured(two(early["t"] * 0, early["c"] * 0))
    nothing = build(
        design(),
        (spec(), measured(rows)),
        slices=slices,
        bounds=(0, 1, 3, 5, 7),
        placebo=silent,
        placebo_bounds=(-3, -1, 0),
    )
    assert nothing.metrics[0].placebo == []


def test_pooled_strata_of_unequal_shares_are_not_cut_into_slices() -> None:
    shares = {"a": {"c": 0.5, "t": 0.5}, "b": {"c": 0.9, "t": 0.1}}
    rows = {(s, v): money(i, 40) for i, (s, v) in enumerate((s, v) for s in "ab" for v in "ct")}
    many = measured({who: np.column_stack([x] * 4) for who, x in rows.items()})
    report = build(design(shares), (spec(), measured(rows)), slices=many, bounds=(0, 1, 3, 5, 7))
    assert (report.metrics[0].slices, report.metrics[0].novelty) == ([], [])


# Funnels and times.


def test_each_step_of_a_funnel_equals_statsmodels_on_those_who_came_so_far() -> None:
    r = np.random.default_rng(2)
    steps = {v: np.cumprod(r.random((400, 3)) < [0.8, 0.6, 0.3 + 0.2 * (v == "t")], axis=1) for v in "tc"}
    metric = build(design(), (spec(kind="funnel"), measured(two(steps["t"], steps["c"]), "funnel"))).metrics[0]
    found = {(step.position, step.variant): step for step in metric.funnel}
    for position in (1, 2, 3):
        outcome, sizes = {}, {}
        for v in "tc":
            inside = steps[v][:, position - 2] == 1 if position > 1 else np.ones(400, dtype=bool)
            outcome[v], sizes[v] = steps[v][inside, position - 1], int(inside.sum())
            step = found[position, v]
            assert (step.entered, step.reached) == (sizes[v], int(outcome[v].sum()))
            assert (step.rate, step.se) == near(
                outcome[v].mean(), (outcome[v].var() / sizes[v]) ** 0.5 * (400 / 399) ** 0.5
            )
        x = sm.add_constant(np.repeat([1.0, 0.0], [sizes["t"], sizes["c"]]))
        fit = sm.OLS(np.concatenate([outcome["t"], outcome["c"]]), x).fit(cov_type="HC0")
        assert limits(found[position, "t"].absolute)[0] == near(fit.params[1])
        assert np.log(found[position, "t"].p_value or 0) == pytest.approx(np.log(fit.pvalues[1]), rel=0.02)
        assert found[position, "c"].absolute is None


def test_a_step_that_nobody_entered_has_a_problem_and_its_counts() -> None:
    steps = np.column_stack([np.zeros(30), np.zeros(30)])
    metric = build(design(), (spec(kind="funnel"), measured(two(steps, steps), "funnel"))).metrics[0]
    last = [step for step in metric.funnel if step.position == 2]
    assert [(s.entered, s.reached, s.rate, s.problem) for s in last] == [(0, 0, None, Problem.ZERO_DENOMINATOR)] * 2


GEHAN = json.loads((Path(__file__).parents[2] / "reference" / "survival.json").read_text())["sets"]["gehan"]


def test_survival_curves_and_the_log_rank_test_equal_those_of_r_and_lifelines() -> None:
    time, event, arm = (np.array(GEHAN[name]) for name in ("time", "event", "arm"))
    lifetimes = {(None, v): Lifetimes.from_rows(time[arm == i], event[arm == i] == 1) for i, v in enumerate("ct")}
    base = measured({who: np.minimum(time[arm == i], 22.0) for i, who in enumerate(lifetimes)})
    data = Measured(base.layout, base.cells, lifetimes=lifetimes)
    plan = spec(kind="time_to_event", unit="days", window_days=20, horizon_days=20)
    metric = build(design(), (plan, data)).metrics[0]
    for i, curve in enumerate(metric.survival):
        days = np.array(curve.days)
        for at, share, low, high in zip(
            GEHAN["at"], *(GEHAN["arms"][i][name] for name in ("survival", "lower", "upper")), strict=True
        ):
            last = int(np.flatnonzero(days <= at)[-1])
            assert (curve.share[last], curve.lower[last], curve.upper[last]) == near(share, low, high, rel=1e-6)
        assert (curve.users, curve.events) == (int((arm == i).sum()), int(event[arm == i].sum()))
    rmst = [GEHAN["arms"][i]["rmst"][2] for i in (1, 0)]
    assert limits(metric.comparisons[0].absolute)[0] == near(rmst[0] - rmst[1], rel=1e-6)
    assert metric.logrank is not None
    assert metric.logrank.statistic == near(GEHAN["logrank"], rel=1e-6)


def test_a_long_curve_keeps_its_ends_and_few_points() -> None:
    x = np.arange(1.0, 1001.0)
    lifetimes = {(None, v): Lifetimes.from_rows(x, x < 1000) for v in "ct"}
    base = measured(two(x, x))
    data = Measured(base.layout, base.cells, lifetimes=lifetimes)
    plan = spec(kind="time_to_event", unit="days", window_days=900, horizon_days=900)
    for curve in build(design(), (plan, data)).metrics[0].survival:
        assert len(curve.days) <= 200
        assert (curve.days[-1], curve.share[-1]) == near(1000.0, 0.001)
        assert curve.share == sorted(curve.share, reverse=True)


def test_nobody_watched_gives_no_curve() -> None:
    none = Lifetimes.from_rows(np.empty(0), np.empty(0, dtype=np.bool_))
    layout = Layout((Column("outcome", MICROS),), 0)
    data = Measured(layout, {Cell(None, v, None): Sums(0, (0,), (0,)) for v in "ct"}, lifetimes={(None, "c"): none})
    metric = build(design(), (spec(kind="time_to_event", unit="days"), data)).metrics[0]
    assert [curve.days for curve in metric.survival] == [[], []]
    assert metric.logrank is None
