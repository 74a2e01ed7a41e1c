"""What a file can be asked beyond plain means: against oracles, or the same question put plainly."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import statsmodels.api as sm

from experiments import report
from experiments.errors import InvalidDocument
from experiments.files import FileMetric, Question, analyse, analyse_table
from experiments.report import Comparison, Interval, MetricReport, Report
from stats import arms as builders
from stats import compliance, groupsequential, posterior, quantiles, survival
from stats.horizon import Fixed
from stats.moments import Moments
from stats.survival import Lifetimes
from tests.experiments.rows import assert_sound

Columns = dict[str, Any]


def asked(*metrics: str, variant: str | None = "variant", control: str | None = "none", **options: Any) -> Question:
    return Question(variant, control, [FileMetric.parse(text) for text in metrics], **options)


@pytest.fixture
def answer(tmp_path: Path) -> Callable[..., Report]:
    """The sound report of a table, read from a file."""

    def answered(table: Columns, question: Question) -> Report:
        path = tmp_path / "f.parquet"
        pq.write_table(pa.table(table), path)
        found = analyse(path, question)
        assert_sound(report.encode(found))
        return found

    return answered


Answer = Callable[..., Report]


def people(n: int = 600, seed: int = 1) -> Columns:
    r = np.random.default_rng(seed)
    return {
        "variant": r.choice(["none", "t"], n),
        "y": r.lognormal(2, 1, n).round(2),
        "won": r.integers(0, 2, n),
        "open": r.integers(0, 2, n),
        "place": r.choice(["a", "b"], n),
        "x": r.normal(size=n).round(3),
    }


def part(found: Report, name: str) -> MetricReport:
    return next(metric for metric in found.metrics if metric.metric == name)


def compared(found: Report, name: str, variant: str = "t") -> Comparison:
    return next(c for c in part(found, name).comparisons if c.segment is None and c.variant == variant)


def arms(table: Columns, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The values of the treatment, and of the control."""
    return tuple(np.asarray(table[column])[np.asarray(table["variant"]) == name] for name in ("t", "none"))  # type: ignore[return-value]


def effect(interval: Interval | None) -> float:
    assert interval is not None
    return interval.estimate


def test_a_quantile_is_numpys_and_its_error_that_of_single_values(answer: Answer) -> None:
    table = people()
    found = answer(table, asked("p90=quantile(0.9):y"))
    values = arms(table, "y")
    assert [arm.mean for arm in found.metrics[0].arms] == [
        np.quantile(one, 0.9, method="inverted_cdf") for one in values[::-1]
    ]
    vector = quantiles.quantiles([quantiles.Sample(one) for one in values], 0.9, 0.05)
    assert compared(found, "p90").se == pytest.approx(vector.difference_variance(0, 1) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("option", ["unit", "cluster"])
def test_a_quantile_of_several_rows_has_the_unit_of_chance_asked_for(answer: Answer, option: str) -> None:
    r = np.random.default_rng(4)
    owner = np.repeat(np.arange(150), 4)
    base = np.repeat(r.normal(10, 3, 150), 4)
    table = {
        "variant": np.where(owner % 2, "t", "none"),
        "y": (base + r.normal(size=600)).round(3),
        "owner": owner,
    }
    crossed = {"variant": ["t", "none"], "y": [900.0, 900.0], "owner": [999, 999]}
    both = {name: np.concatenate([values, crossed[name]]) for name, values in table.items()}
    found = answer(both, asked("m=quantile(0.5):y", **{option: "owner"}))
    samples = [quantiles.Sample(y, o) for y, o in zip(arms(table, "y"), arms(table, "owner"), strict=True)]
    vector = quantiles.quantiles(samples, 0.5, 0.05)
    c = compared(found, "m")
    assert (effect(c.absolute), c.se) == pytest.approx(
        (vector.mean[0] - vector.mean[1], vector.difference_variance(0, 1) ** 0.5), rel=1e-9
    )
    assert [(f.code, f.count) for f in found.health] == [("crossovers", 1)]


def test_times_to_an_event_are_restricted_means_as_far_as_all_were_watched(answer: Answer) -> None:
    r = np.random.default_rng(2)
    table = people()
    waited, watched = r.exponential(20, 600), np.where(np.asarray(table["variant"]) == "t", 25.5, 30.25)
    table |= {"days": np.minimum(waited, watched).round(3), "bought": waited < watched}
    found = answer(table, asked("wait=time_to_event:days/bought"))
    c = compared(found, "wait")
    lives = [
        Lifetimes.from_rows(days, bought)
        for days, bought in zip(arms(table, "days"), arms(table, "bought"), strict=True)
    ]
    vector = survival.restricted_mean(lives, 25)
    assert (found.metrics[0].window_days, found.metrics[0].direction, found.metrics[0].unit) == (25, "down", "days")
    assert effect(c.absolute) == pytest.approx(vector.mean[0] - vector.mean[1], rel=1e-6)
    assert found.metrics[0].logrank is not None
    assert found.metrics[0].logrank.p_value == pytest.approx(survival.logrank([lives]).p_value, rel=1e-6)
    longer = answer(table, asked("wait=time_to_event:days/bought", higher_is_better=["wait"]))
    assert longer.metrics[0].direction == "up"


def test_a_window_of_a_time_to_an_event_is_kept_or_the_curve_is_not_known_so_far(answer: Answer) -> None:
    table = people()
    table |= {"days": np.minimum(table["y"], 15), "bought": np.asarray(table["y"]) < 15}
    found = answer(table, asked("short=time_to_event(7):days/bought", "long=time_to_event(16):days/bought"))
    lives = [Lifetimes.from_rows(np.minimum(y, 15), y < 15) for y in arms(table, "y")]
    vector = survival.restricted_mean(lives, 7)
    assert found.metrics[0].window_days == 7
    assert effect(compared(found, "short").absolute) == pytest.approx(vector.mean[0] - vector.mean[1], rel=1e-6)
    assert compared(found, "long").problem == "horizon_not_reached"


def test_the_first_event_of_several_rows_is_the_users(answer: Answer) -> None:
    once = {"variant": ["none", "t"] * 6, "days": [3.0, 9.0] * 3 + [10.0] * 6, "happened": [1] * 6 + [0] * 6}
    again = {"days": [8.0] * 6 + [4.0] * 6, "happened": [1] * 3 + [0] * 9}
    many = {name: [*values, *again.get(name, values)] for name, values in once.items()} | {"id": [*range(12)] * 2}
    once["days"][:6] = [3.0, 8.0, 3.0, 9.0, 3.0, 9.0]
    question = asked("wait=time_to_event:days/happened")
    one = answer(once, question)
    two = answer(many, asked("wait=time_to_event:days/happened", unit="id"))
    assert one.metrics == two.metrics


def test_a_step_of_a_funnel_counts_after_all_before_it_only(answer: Answer) -> None:
    table = people() | {"paid": np.random.default_rng(9).integers(0, 2, 600)}
    found = answer(table, asked("f=funnel:open/won/paid"))
    reached = np.cumprod([table["open"], table["won"], table["paid"]], axis=0)
    for step in found.metrics[0].funnel:
        mine = np.asarray(table["variant"]) == step.variant
        assert step.reached == reached[step.position - 1][mine].sum()
    whole = answer(table | {"all": reached[-1]}, asked("c=conversion:all"))
    assert compared(found, "f").absolute == compared(whole, "c").absolute


def test_who_was_in_two_variants_is_in_no_curve(answer: Answer) -> None:
    table = {"id": [*range(40)], "variant": ["none", "t"] * 20, "days": [*range(1, 41)], "happened": [1] * 40}
    crossed = {"id": [99, 99], "variant": ["none", "t"], "days": [500, 600], "happened": [0, 0]}
    question = asked("wait=time_to_event(40):days/happened", unit="id")
    found = answer({name: [*values, *crossed[name]] for name, values in table.items()}, question)
    assert [curve.users for curve in found.metrics[0].survival] == [20, 20]


@pytest.mark.parametrize(
    ("option", "value"), [("caps", 12.0), ("cap_percentiles", 80.0), ("cap_percentiles", 97.5)], ids=str
)
def test_a_cut_is_the_mean_of_smaller_numbers_and_shows_the_whole_beside_it(
    answer: Answer, option: str, value: float
) -> None:
    table = people()
    table["y"] = np.where(np.asarray(table["won"]) == 1, table["y"], 0.0)
    found = answer(table, asked("y=mean:y", covariates=["x"], **{option: {"y": value}}))
    cap = value if option == "caps" else round(float(np.percentile(table["y"][table["y"] > 0], value)), 6)
    assert found.metrics[0].capping[0].cap == pytest.approx(cap, abs=1e-6)
    low = answer(table | {"y": np.minimum(table["y"], cap)}, asked("y=mean:y", covariates=["x"]))
    assert effect(compared(found, "y").absolute) == pytest.approx(effect(compared(low, "y").absolute), abs=1e-6)
    whole = answer(table, asked("y=mean:y"))
    assert found.metrics[0].capping[1].uncapped == compared(whole, "y").absolute


def test_empty_covariates_equal_statsmodels_with_their_mean_and_an_indicator(answer: Answer) -> None:
    table = people()
    r = np.random.default_rng(8)
    x, known = np.asarray(table["x"]), r.random(600) < 0.7
    treated = np.asarray(table["variant"]) == "t"
    table["y"] = (x * 2 * known + known + treated + r.normal(size=600)).round(3)
    table["x"] = pa.array(x, mask=~known)
    c = compared(answer(table, asked("y=mean:y", covariates=["x"])), "y")
    filled = np.column_stack([np.where(known, x, x[known].mean()), known])
    centred = filled - filled.mean(axis=0)
    columns = [np.ones(600), treated, centred, centred * treated[:, None]]
    fit = sm.OLS(table["y"], np.column_stack(columns)).fit(cov_type="HC0")
    assert effect(c.absolute) == pytest.approx(fit.params[1], rel=1e-9)
    assert c.se == pytest.approx(fit.bse[1], rel=0.02)


def households(seed: int = 3) -> Columns:
    r = np.random.default_rng(seed)
    sizes = r.integers(1, 6, 160)
    home = np.repeat(np.arange(160), sizes)
    shared = np.repeat(r.normal(0, 2, 160), sizes)
    n = home.size
    return {
        "home": home,
        "variant": np.where(home % 2, "t", "none"),
        "y": (10 + shared + r.normal(size=n)).round(3),
        "won": (shared + r.normal(size=n) > 0).astype(int),
        "basket": r.integers(1, 5, n),
        "x": (shared + r.normal(size=n)).round(3),
    }


@pytest.mark.parametrize(
    ("metric", "top", "bottom"),
    [("mean:y", "y", None), ("conversion:won", "won", None), ("ratio:y/basket", "y", "basket")],
)
def test_clusters_are_the_unit_of_chance(answer: Answer, metric: str, top: str, bottom: str | None) -> None:
    """Sums of each cluster over the denominators', linearised by hand; Welch's test between the clusters."""
    table = households()
    found = answer(table, asked(f"m={metric}", cluster="home"))
    z = []
    for values, below, homes in zip(arms(table, top), arms(table, bottom or "home"), arms(table, "home"), strict=True):
        weights = below if bottom else np.ones(below.size)
        _, place = np.unique(homes, return_inverse=True)
        n, d = np.bincount(place, values), np.bincount(place, weights)
        z.append(n.sum() / d.sum() + (n - n.sum() / d.sum() * d) / d.mean())
    test = scipy.stats.ttest_ind(*z, equal_var=False)
    c = compared(found, "m")
    assert (effect(c.absolute), c.p_value) == pytest.approx((z[0].mean() - z[1].mean(), test.pvalue), rel=1e-9)
    assert {arm.variant: arm.assigned for arm in found.arms} == {"none": 80, "t": 80}


def test_a_covariate_of_a_cluster_is_the_mean_of_its_users(answer: Answer) -> None:
    table = households()
    found = answer(table, asked("m=ratio:y/basket", cluster="home", covariates=["x"]))
    homes = np.arange(160)
    totals = {name: np.bincount(table["home"], table[name]) for name in ("y", "basket", "x")}
    treated = homes % 2 == 1
    z = np.empty(160)
    for side in (treated, ~treated):
        n, d = totals["y"][side], totals["basket"][side]
        z[side] = n.sum() / d.sum() + (n - n.sum() / d.sum() * d) / d.mean()
    x = (totals["x"] / np.bincount(table["home"])).round(6)
    centred = x - x.mean()
    fit = sm.OLS(z, np.column_stack([np.ones(160), treated, centred, centred * treated])).fit()
    assert effect(compared(found, "m").absolute) == pytest.approx(fit.params[1], rel=1e-9)


def test_clusters_of_one_user_equal_users(answer: Answer) -> None:
    table = people() | {"id": list(range(600))}
    plain = answer(table, asked("y=mean:y", covariates=["x"]))
    single = answer(table, asked("y=mean:y", covariates=["x"], cluster="id"))
    one, two = compared(plain, "y"), compared(single, "y")
    assert (effect(one.absolute), one.se) == pytest.approx((effect(two.absolute), two.se), rel=1e-9)


def test_users_of_several_rows_within_clusters_are_users_first(answer: Answer) -> None:
    """A user who converts twice is one conversion of his household."""
    table = households()
    table["id"] = np.arange(len(table["home"]))
    twice = {name: np.concatenate([values, values[::2]]) for name, values in table.items()}
    question = asked("won=conversion:won", cluster="home", unit="id")
    assert answer(twice, question).metrics == answer(table, asked("won=conversion:won", cluster="home")).metrics


def test_a_cluster_in_two_variants_is_left_out_and_counted(answer: Answer) -> None:
    table = households()
    extra = {
        "home": [999, 999],
        "variant": ["t", "none"],
        "y": [1e6, 1e6],
        "won": [1, 1],
        "basket": [1, 1],
        "x": [0, 0],
    }
    more = {name: np.concatenate([values, extra[name]]) for name, values in table.items()}
    found = answer(more, asked("y=mean:y", cluster="home"))
    assert compared(found, "y").absolute == compared(answer(table, asked("y=mean:y", cluster="home")), "y").absolute
    assert [(f.code, f.count, f.of) for f in found.health] == [("crossovers", 1, 161)]


def test_factors_give_the_comparisons_of_their_combinations(answer: Answer) -> None:
    r = np.random.default_rng(6)
    copy, offer = r.choice(["plain", "urgent"], 800), r.integers(0, 2, 800)
    y = (3 + (copy == "urgent") + 2 * offer + r.normal(size=800)).round(3)
    table = {"copy": copy, "offer": offer, "y": y}
    cells = {"variant": [f"copy={c}, offer={o}" for c, o in zip(copy, offer, strict=True)], "y": y}
    question = asked("y=mean:y", variant=None, control=None, factors={"copy": "plain", "offer": "0"})
    found = answer(table, question)
    assert found.control == "copy=plain, offer=0"
    assert found.metrics[0].comparisons == (
        answer(cells, asked("y=mean:y", control="copy=plain, offer=0")).metrics[0].comparisons
    )
    assert found.metrics[0].factorial is not None
    by_levels = {tuple(e.levels.items()): effect(e.absolute) for e in found.metrics[0].factorial.effects}
    means = {(c, o): y[(copy == c) & (offer == o)].mean() for c in ("plain", "urgent") for o in (0, 1)}
    main = sum(means["urgent", o] - means["plain", o] for o in (0, 1)) / 2
    assert by_levels[("copy", "urgent"),] == pytest.approx(main, abs=1e-9)
    both = means["urgent", 1] - means["urgent", 0] - means["plain", 1] + means["plain", 0]
    assert by_levels[("copy", "urgent"), ("offer", "1")] == pytest.approx(both, abs=1e-9)


def test_those_reached_are_compared_by_the_ratio_of_effects(answer: Answer) -> None:
    table = people()
    table["got"] = ((np.asarray(table["variant"]) == "t") & (np.asarray(table["open"]) == 1)).astype(int)
    found = answer(table, asked("y=mean:y", received="got"))
    (complier,) = found.compliers
    y, got = arms(table, "y"), arms(table, "got")
    assert effect(complier.effect) == pytest.approx((y[0].mean() - y[1].mean()) / (got[0].mean() - got[1].mean()))
    pairs = [Moments.from_rows(np.column_stack([a, b])) for a, b in zip(y, got, strict=True)]
    joint = compliance.joint([pairs], 0, 1, lambda strata, column: builders.means(strata[0], column))
    oracle = compliance.complier_ratio(joint, 0, 1, Fixed(0.05))
    assert complier.effect == Interval(
        pytest.approx(oracle.estimate), pytest.approx(oracle.lower), pytest.approx(oracle.upper)
    )
    assert [finding.code for finding in found.health] == ["openers_only"]


@pytest.mark.parametrize("metric", ["mean:y", "conversion:won", "funnel:won/x01"])
def test_the_triggered_equal_a_file_of_them_alone(answer: Answer, metric: str) -> None:
    table = people() | {"x01": np.random.default_rng(3).integers(0, 2, 600)}
    found = answer(table, asked(f"m={metric}", triggered="open"))
    chosen = np.asarray(table["open"]) == 1
    alone = answer({name: np.asarray(values)[chosen] for name, values in table.items()}, asked(f"m={metric}"))
    (fired,) = found.triggered
    assert effect(fired.effect) == pytest.approx(effect(compared(alone, "m").absolute), rel=1e-9)
    assert fired.users + fired.users_control == chosen.sum()


@pytest.mark.parametrize("metric", ["quantile(0.75):y", "time_to_event:days/won", "funnel:open/won", "mean:y"])
@pytest.mark.parametrize("owner", [None, "id"])
def test_a_segment_of_every_kind_equals_a_file_of_its_rows_alone(
    answer: Answer, metric: str, owner: str | None
) -> None:
    table = people() | {"id": np.arange(600)}
    table["days"] = np.minimum(table["y"], 15)
    table["won"][np.asarray(table["y"]) > 15] = 0
    if owner is not None:
        table = {name: np.concatenate([values, values[:200]]) for name, values in table.items()}
    found = answer(table, asked(f"m={metric}", segments=["place"], unit=owner))
    chosen = np.asarray(table["place"]) == "a"
    alone = answer(
        {name: np.asarray(values)[chosen] for name, values in table.items()}, asked(f"m={metric}", unit=owner)
    )
    inside = next(c for c in found.metrics[0].comparisons if c.segment == "place=a")
    assert inside.absolute is not None
    assert (inside.absolute, inside.se) == (compared(alone, "m").absolute, compared(alone, "m").se)


def test_all_pairs_are_the_comparisons_with_another_control(answer: Answer) -> None:
    table = people()
    table["variant"] = np.random.default_rng(5).choice(["none", "a", "b"], 600)
    found = answer(table, asked("y=mean:y", all_pairs=True, correction="none"))
    other = answer(table, asked("y=mean:y", control="a", correction="none"))
    (pair,) = found.metrics[0].pairs
    assert (pair.variant, pair.control) == ("b", "a")
    assert effect(pair.absolute) == effect(compared(other, "y", "b").absolute)


def test_doses_have_the_slope_of_the_least_squares_line(answer: Answer) -> None:
    table = people()
    dose = np.random.default_rng(5).integers(0, 4, 600)
    names = np.array(["none", "one", "two", "three"])
    question = asked("y=mean:y", doses={"none": 0, "one": 1, "two": 2, "three": 3})
    frequency = answer(table | {"variant": names[dose]}, question).metrics[0].frequency
    assert frequency is not None
    assert frequency.trend.estimate == pytest.approx(np.polyfit(dose, table["y"], 1)[0], rel=1e-9)


def test_a_group_sequential_plan_is_read_at_the_bound_of_its_look(answer: Answer) -> None:
    question = asked(
        "y=mean:y",
        method="group_sequential",
        planned_users=1000,
        looks=[0.25, 0.5, 1],
        spending="hwang_shih_decani",
        spending_parameter=-4,
    )
    found = answer(people(), question)
    spending = groupsequential.Spending("hwang_shih_decani", -4)
    bounds = groupsequential.bounds((0.25, 0.5), 0.05, spending)
    assert [look.reached for look in found.method.looks] == [True, True, False]
    assert found.method.looks[1].bound == pytest.approx(float(bounds[-1]), rel=1e-6)
    c = compared(found, "y")
    assert c.absolute is not None
    assert c.se is not None
    assert c.absolute.upper - c.absolute.estimate == pytest.approx(bounds[-1] * c.se, rel=1e-6)


def test_bayes_is_the_posterior_under_the_prior_of_the_lift(answer: Answer) -> None:
    table = people()
    found = answer(table, asked("y=mean:y", method="bayes", prior=(0.02, 0.05)))
    y = arms(table, "y")
    base = y[1].mean()
    se = np.sqrt(sum(one.var(ddof=1) / one.size for one in y))
    believed = posterior.update(y[0].mean() - base, se, posterior.Normal(0.02 * base, 0.05 * base))
    assert effect(compared(found, "y").absolute) == pytest.approx(believed.mean, rel=1e-9)
    assert (found.method.correction, found.method.prior) == ("none", [0.02, 0.05])


def test_a_frame_gives_the_report_of_its_file(answer: Answer) -> None:
    table, question = people(), asked("y=mean:y", "won=conversion:won", segments=["place"], covariates=["x"])
    one = answer(table, question)
    two = analyse_table(pa.table(table), question, name="f.parquet", as_of=datetime.fromisoformat(one.as_of))
    assert one == two


Y = "y=mean:y"
FACTORS = {"variant": None, "control": None, "factors": {"place": "a", "open": "0"}}


@pytest.mark.parametrize(
    ("question", "field", "problem"),
    [
        (asked(Y, variant=None), "variant", "missing"),
        (asked(Y, control=None), "control", "missing"),
        (asked(Y, factors={"place": "a"}), "factor", "inconsistent"),
        (asked(Y, **FACTORS | {"factors": {"nowhere": "a"}}), "factor", "unknown_column"),
        (asked(Y, **FACTORS | {"factors": {"place": "c"}}), "baseline", "unknown_variant"),
        (asked(), "metric", "missing"),
        (asked(Y, cluster="nowhere"), "cluster", "unknown_column"),
        (asked(Y, received="nowhere"), "received", "unknown_column"),
        (asked(Y, triggered="place"), "place", "not_a_number"),
        (asked(Y, received="y"), "y", "not_0_or_1"),
        (asked("f=funnel:won/y"), "y", "not_0_or_1"),
        (asked("t=time_to_event:x/won"), "x", "negative"),
        (asked("t=time_to_event:y/x"), "x", "not_0_or_1"),
        (asked(Y, caps={"z": 1.0}), "cap", "unknown_metric"),
        (asked(Y, caps={"y": 0.0}), "cap", "out_of_range"),
        (asked(Y, caps={"y": float("nan")}), "cap", "out_of_range"),
        (asked(Y, cap_percentiles={"y": 100.0}), "cap-percentile", "out_of_range"),
        (asked(Y, caps={"y": 3.0}, cap_percentiles={"y": 99.0}), "cap-percentile", "inconsistent"),
        (asked("c=conversion:won", caps={"c": 3.0}), "cap", "not_a_mean"),
        (asked(Y, lower_is_better=["y"], higher_is_better=["y"]), "higher-is-better", "inconsistent"),
        (asked(Y, "c=mean:x", guardrails={"c": float("inf")}), "guardrail", "out_of_range"),
        (asked(Y, doses={"none": 0, "t": 1}), "dose", "too_few"),
        (asked(Y, doses={"none": 0, "t": 1, "b": 2}), "dose", "unknown_variant"),
        (asked(Y, weights={"none": float("nan"), "t": 1}), "weights", "bad_weights"),
        (asked(Y, cluster="place", received="open"), "received", "not_by_cluster"),
        (asked("f=funnel:won/open", cluster="place"), "metric", "not_by_cluster"),
        (asked("q=quantile(0.5):y", triggered="open"), "triggered", "inconsistent"),
        (asked(Y, cluster="place", segments=["open"]), "open", "torn_clusters"),
        (asked("t=time_to_event:y/won", method="sequential"), "method", "inconsistent"),
        (asked(Y, method="group_sequential", looks=[0.5, 1]), "planned-users", "missing"),
        (asked(Y, method="group_sequential", planned_users=100), "looks", "inconsistent"),
        (asked(Y, method="group_sequential", planned_users=100, looks=[0.5]), "looks", "inconsistent"),
        (asked(Y, looks=[0.5, 1]), "looks", "inconsistent"),
        (asked(Y, spending="pocock"), "spending", "inconsistent"),
        (asked(Y, prior=(0, 0.1)), "prior", "inconsistent"),
        (asked(Y, method="bayes", prior=(0, 0.0)), "prior.sd", "greater_than"),
        (asked(Y, method="bayes", correction="holm"), "correction", "inconsistent"),
        (asked(Y, planned_users=1), "planned-users", "greater_than_equal"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_option(
    answer: Answer, question: Question, field: str, problem: str
) -> None:
    with pytest.raises(InvalidDocument) as refused:
        answer(people(), question)
    assert [(p.field, p.problem) for p in refused.value.problems] == [(field, problem)]
    assert all(p.remedy for p in refused.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        "q=quantile:y",
        "q=quantile(1.0):y",
        "q=quantile(0.0):y",
        "q=quantile(90):y",
        "y=mean(0.5):y",
        "t=time_to_event:y",
        "t=time_to_event(0):y/won",
        "t=time_to_event(1.5):y/won",
        "t=time_to_event:y/won/open",
        "f=funnel:won",
        "f=funnel:won/won",
        "f=funnel:won//open",
    ],
)
def test_a_metric_of_the_wrong_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        FileMetric.parse(text)
    assert refused.value.problems[0].value == text


def test_an_empty_cell_of_received_is_refused(answer: Answer) -> None:
    table = people() | {"open": pa.array([None, 1] * 300)}
    with pytest.raises(InvalidDocument) as refused:
        answer(table, asked(Y, received="open"))
    assert [(p.field, p.value, p.problem) for p in refused.value.problems] == [("open", "300 rows", "empty")]


def test_a_table_stands_for_the_moment_it_is_given(answer: Answer) -> None:
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    found = analyse_table(pa.table(people()), asked(Y), name="frame", as_of=moment)
    assert (found.as_of, found.experiment) == (moment.isoformat(), "frame")
