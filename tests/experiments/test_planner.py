"""Planning: against stats.power, statsmodels and a plain count of a store's users."""

import dataclasses
import math
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, TTestIndPower

from experiments import planner
from experiments.documents import Kind
from experiments.errors import InvalidDocument, NotFound
from experiments.fields import Direction
from experiments.planner import AdviceCode, Baseline, Capacity, Question, forecast
from experiments.planner.forecasts import USUAL_LOOKS
from experiments.store import Store
from stats import power
from stats.errors import Problem
from stats.simulation import Scenario, Segment, Variant, sample
from tests.experiments import store_rows as rows

HALVES = {"control": 0.5, "arm_1": 0.5}
SPEND = Baseline(40.0, 120.0**2)
RATE = Baseline(0.05, 0.05 * 0.95, share=True)
LIST = Capacity(8200)


def ask(**fields: Any) -> Question:
    plain: dict[str, Any] = {"baseline": SPEND, "shares": HALVES, "effect": 4.0}
    return Question(**plain | fields)


def needed(**fields: Any) -> planner.Needed:
    found = forecast(ask(**fields)).needed
    assert found is not None
    return found


def detectable(**fields: Any) -> float:
    found = forecast(ask(**{"effect": None, "capacity": LIST} | fields)).weeks[-1].detectable
    assert found is not None
    return found.absolute


def codes(question: Question) -> set[AdviceCode]:
    return {advice.code for advice in forecast(question).advice}


def parsed(**body: Any) -> planner.PlanRequest:
    request = planner.parse(body)
    assert isinstance(request, planner.PlanRequest)
    return request


def numbers(**body: Any) -> planner.MetricPlan:
    (plan,) = planner.answer(parsed(**body), None, now=NOW).plans
    return plan


def test_users_for_a_mean_equal_statsmodels() -> None:
    per_arm = TTestIndPower().solve_power(4 / 120, power=0.8, alpha=0.05)
    assert needed().arms == {"control": math.ceil(per_arm), "arm_1": math.ceil(per_arm)}
    assert needed().users == 2 * math.ceil(per_arm)


def test_the_level_is_divided_by_the_arms_times_the_metrics() -> None:
    shares = {"control": 0.5, "a": 0.3, "b": 0.2}
    level = 0.05 / (2 * 3)
    found = forecast(ask(shares=shares, metrics=3))
    assert found.level == pytest.approx(level)
    # statsmodels: nobs1 is the control, ratio that of the smallest treatment to it.
    control = NormalIndPower().solve_power(4 / 120, power=0.8, alpha=level, ratio=0.4)
    assert found.needed is not None
    assert found.needed.arms["control"] == pytest.approx(control, rel=1e-3)
    assert forecast(ask(shares=shares, pairs=True)).level == pytest.approx(0.05 / 3)
    assert forecast(ask(shares=shares, corrected=False)).level == 0.05


@pytest.mark.parametrize("stopping", ["fixed", "sequential", USUAL_LOOKS], ids=["fixed", "sequential", "looks"])
@pytest.mark.parametrize("baseline", [SPEND, RATE], ids=["mean", "share"])
def test_the_answer_is_that_of_stats_power(baseline: Baseline, stopping: Any) -> None:
    effect = 0.1 * baseline.mean
    metric = power.Conversion(0.05) if baseline.share else power.Mean(40.0, 120.0**2)
    plan = power.Plan(metric, stopping=stopping)
    found = forecast(ask(baseline=baseline, effect=effect, stopping=stopping, capacity=LIST))
    assert found.needed is not None
    assert found.needed.users == pytest.approx(power.users(plan, effect), abs=1)
    shown = found.weeks[0].detectable
    assert shown is not None
    assert shown.absolute == power.detectable(plan, 8200)
    assert shown.relative == pytest.approx(shown.absolute / baseline.mean)
    expected = found.needed.expected_users
    assert (expected is None) == (stopping != USUAL_LOOKS)
    assert expected is None or expected < found.needed.users


def test_the_multiplier_is_the_price_of_the_rule() -> None:
    for stopping in ("sequential", USUAL_LOOKS):
        price = needed(stopping=stopping).users / needed().users
        assert forecast(ask(stopping=stopping)).multiplier == pytest.approx(price, rel=1e-3)
    assert forecast(ask()).multiplier == 1


def test_a_guardrail_proves_the_margin_that_its_users_allow() -> None:
    question = {"baseline": RATE, "direction": Direction.down, "margin": 0.01, "effect": 0.0}
    users = needed(**question).users
    assert users == pytest.approx(power.users(power.Plan(power.Conversion(0.05), margin=0.01), 0.0), abs=1)
    # What is detectable does not depend on the margin written down.
    for margin in (0.01, 0.03):
        assert detectable(**question | {"margin": margin, "capacity": Capacity(users)}) == pytest.approx(0.01, rel=1e-3)
    # A variant that does good leaves more room.
    assert needed(**question | {"effect": 0.005}).users < users < needed(**question | {"effect": -0.005}).users


def test_more_users_variance_reduction_and_fewer_arms_show_smaller_effects() -> None:
    base = detectable()
    assert detectable(capacity=Capacity(4 * 8200)) == pytest.approx(base / 2, rel=1e-3)
    reduced = dataclasses.replace(SPEND, reduction=0.75)
    assert detectable(baseline=reduced) == pytest.approx(base / 2, rel=1e-3)
    assert detectable(shares={"control": 1 / 3, "a": 1 / 3, "b": 1 / 3}) > base
    assert detectable(shares={"control": 0.8, "a": 0.2}) > base
    assert detectable(power=0.9) > base
    assert detectable(alpha=0.01) > base


def test_weeks_count_who_came_and_was_watched() -> None:
    capacity = Capacity(1000, weekly=100.0, rollout_weeks=4.0)
    weeks = forecast(ask(effect=None, capacity=capacity, horizon_days=14, weeks=6)).weeks
    assert [week.enrolled for week in weeks] == [350, 700, 1050, 1400, 1500, 1600]
    assert [week.matured for week in weeks] == [0, 0, 350, 700, 1050, 1400]
    assert [week.problem for week in weeks] == [Problem.NOT_ENOUGH_DATA] * 2 + [None] * 4


def test_the_duration_is_the_first_week_with_users_enough() -> None:
    for capacity in (Capacity(1000, 700.0), Capacity(20_000, 10.0, 8.0), Capacity(0, 3000.0, 2.0)):
        question = ask(capacity=capacity, horizon_days=10, weeks=60, effect=6.0)
        found = forecast(question)
        assert found.needed is not None
        assert found.needed.weeks == next(w.week for w in found.weeks if w.matured >= found.needed.users)
    assert needed(capacity=Capacity(1000)).weeks is None


def test_advice_tells_what_it_gives() -> None:
    three = ask(shares={"c": 0.4, "a": 0.3, "b": 0.3}, stopping="sequential", capacity=LIST)
    found = {advice.code: advice for advice in forecast(three).advice}
    assert found.keys() == {
        AdviceCode.list_too_small,
        AdviceCode.drop_an_arm,
        AdviceCode.use_covariate,
        AdviceCode.plan_looks,
    }
    dropped = found[AdviceCode.drop_an_arm]
    two = {"c": 4 / 7, "b": 3 / 7}
    assert dropped.users == needed(shares=two, stopping="sequential").users
    assert dropped.detectable is not None
    assert dropped.detectable.absolute == pytest.approx(detectable(shares=two, stopping="sequential"))
    assert codes(ask(effect=60.0, capacity=LIST)) == {AdviceCode.fine}
    assert AdviceCode.longer in codes(ask(capacity=Capacity(8200, 500.0)))
    assert AdviceCode.use_covariate not in codes(ask(baseline=dataclasses.replace(SPEND, possible=0.0), capacity=LIST))
    measured = dataclasses.replace(SPEND, possible=0.36)
    (advice,) = (a for a in forecast(ask(baseline=measured)).advice if a.code is AdviceCode.use_covariate)
    assert advice.correlation == pytest.approx(0.6)


def test_a_cap_on_touches_binds_where_the_list_waits_for_it() -> None:
    capped = ask(effect=None, capacity=Capacity(8200, rollout_weeks=6.0))
    (advice,) = (a for a in forecast(capped).advice if a.code is AdviceCode.touch_cap_binds)
    assert advice.weeks == 1
    assert AdviceCode.touch_cap_binds not in codes(ask(effect=None, capacity=LIST))


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"effect": 0.0}, "effect"),
        ({"baseline": RATE, "effect": 0.96}, "effect"),
        ({"baseline": RATE, "effect": 0.06, "direction": Direction.down}, "effect"),
        ({"effect": -2.0, "margin": 2.0}, "effect"),
        ({"baseline": RATE, "effect": -0.06, "margin": 0.5}, "effect"),
    ],
)
def test_an_effect_that_cannot_be_is_refused_by_name(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        ask(**fields)
    assert [problem.field for problem in error.value.problems] == [where]


def test_a_number_without_variance_is_a_problem() -> None:
    assert forecast(ask(baseline=Baseline(3.0, 0.0))).problem is Problem.ZERO_VARIANCE


MEAN = {"kind": "mean", "mean": 40.0, "sd": 120.0}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"baseline": MEAN}, {"effect"}),
        ({"baseline": {"kind": "mean", "mean": 40.0}, "effect": 1.0}, {"baseline.sd"}),
        ({"baseline": {"kind": "median"}, "effect": 1.0}, {"baseline.kind"}),
        ({"baseline": MEAN, "effect": 1.0, "lift": 0.1}, {"lift"}),
        ({"baseline": MEAN, "effect": 1.0, "arms": 3, "weights": [1.0, 1.0]}, {"weights"}),
        ({"baseline": MEAN, "effect": 1.0, "looks": 3, "spending": {}}, {"looks", "spending"}),
        ({"baseline": MEAN, "effect": 1.0, "method": "group_sequential"}, {"looks"}),
        ({"baseline": MEAN, "effect": 1.0, "method": "group_sequential", "looks": [0.5, 0.4, 1.0]}, {"looks"}),
        ({"baseline": MEAN, "effect": 1.0, "power": 0.3, "users": -1, "mde": 1}, {"power", "users", "mde"}),
        ({"baseline": MEAN, "effect": 1.0, "touch_cap": {"touches": 0}}, {"touch_cap.touches", "touch_cap.per"}),
        ({"experiment": "x", "arms": 3}, {"arms"}),
        ({"baseline": {"kind": "measured", "metric": "m", "segment": "s", "condition": {}}}, {"baseline.condition"}),
    ],
)
def test_every_problem_of_a_request_is_named(body: dict[str, Any], fields: set[str]) -> None:
    with pytest.raises(InvalidDocument) as error:
        planner.parse(body)
    assert {problem.field for problem in error.value.problems} == fields


def test_a_ratio_and_a_quantile_become_the_variance_of_their_influence() -> None:
    ratio = {"kind": "ratio", "numerator_mean": 6.0, "numerator_sd": 5.0, "denominator_mean": 3.0}
    plan = numbers(baseline=ratio | {"denominator_sd": 2.0, "correlation": 0.4}, effect=0.1)
    assert plan.baseline is not None
    assert plan.baseline.mean == pytest.approx(2.0)
    # Deng, Knoblich & Lu (2018): (s_n^2 - 2 R s_nd + R^2 s_d^2) / dbar^2.
    assert plan.baseline.sd == pytest.approx(math.sqrt(25 - 2 * 2 * 0.4 * 10 + 4 * 4) / 3)
    plan = numbers(baseline={"kind": "quantile", "quantile": 0.9, "value": 30.0, "density": 0.01}, effect=1.0)
    assert plan.baseline is not None
    assert plan.baseline.sd == pytest.approx(0.3 / 0.01)


def test_the_request_carries_every_part_of_the_question() -> None:
    plan = numbers(
        baseline=MEAN,
        lift=0.1,
        weights=[2.0, 1.0, 1.0],
        users=8200,
        correlation=0.5,
        window_days=14,
        method="group_sequential",
        looks=[0.5, 1.0],
        spending={"name": "pocock"},
        touch_cap={"touches": 2, "per": "month", "needed": 1},
        metrics=2,
    )
    assert plan.shares == {"control": 0.5, "arm_1": 0.25, "arm_2": 0.25}
    looks = power.Looks((0.5, 1.0), power.Spending("pocock"))
    expected = forecast(
        Question(
            Baseline(40.0, 120.0**2, reduction=0.25),
            plan.shares,
            effect=4.0,
            metrics=2,
            stopping=looks,
            horizon_days=14,
            capacity=Capacity(8200, 0.0, 365.25 / 84 / 2),
        )
    )
    assert plan.forecast == expected


# A store: users told of long ago, the metric in its last closed window counted by hand.

NOW = datetime.fromisoformat("2026-03-02T08:30:00+00:00")
WINDOW = timedelta(days=7)
METRICS: tuple[dict[str, Any], ...] = (
    {"key": "bought", "name": "Bought", "kind": "conversion", "event": "buy", "role": "primary", "unit": "share"},
    {"key": "spend", "name": "Spend", "kind": "mean", "terms": [{"event": "buy"}], "lookback_days": 14},
    {"key": "plain", "name": "Plain", "kind": "mean", "terms": [{"event": "buy"}]},
    {
        "key": "basket",
        "name": "Basket",
        "kind": "ratio",
        "numerator": [{"event": "buy"}],
        "denominator": [{"event": "buy", "aggregate": "count"}],
    },
    {"key": "wait", "name": "Wait", "kind": "time_to_event", "event": "buy"},
    {"key": "median", "name": "p80", "kind": "quantile", "terms": [{"event": "buy"}], "quantile": 0.8},
    {"key": "steps", "name": "Steps", "kind": "funnel", "steps": ["visit", "buy"]},
    {
        "key": "left",
        "name": "Left",
        "kind": "conversion",
        "event": "leave",
        "direction": "down",
        "role": "guardrail",
        "margin": 0.02,
    },
)
COUNT = 600


@dataclasses.dataclass(frozen=True)
class Shop:
    store: Store
    gold: np.ndarray  # (COUNT,) whether the user was gold before the window
    spent: np.ndarray  # (COUNT,) in the window
    before: np.ndarray  # (COUNT,) in the fortnight before


def at(moment: datetime) -> str:
    return moment.isoformat()


@pytest.fixture
def shop(sqlite_store: Store) -> Shop:
    r = np.random.default_rng(11)
    gold = r.random(COUNT) < 0.4
    loyal = r.lognormal(3, 0.7, COUNT)
    spent, before = (np.where(r.random(COUNT) < 0.7, np.round(loyal * r.lognormal(0, 0.4, COUNT), 2), 0) for _ in "ab")
    rows.create(sqlite_store, Kind.metric, METRICS[0] | {"window_days": 7}, NOW)
    for metric in METRICS[1:]:
        rows.create(sqlite_store, Kind.metric, metric | {"window_days": 7}, NOW)
    for segment in rows.SEGMENTS:
        rows.create(sqlite_store, Kind.segment, segment, NOW)
    long_ago, inside = NOW - timedelta(days=90), NOW - timedelta(days=3)
    items = []
    for i in range(COUNT):
        user = f"u{i}"
        items.append(rows.identify(f"h{i}", user, tier="tin") | {"timestamp": at(long_ago - timedelta(days=9))})
        items.append(rows.identify(f"i{i}", user, tier="gold" if gold[i] else "silver") | {"timestamp": at(long_ago)})
        for name, amounts, moment in (("a", spent, inside), ("b", before, NOW - WINDOW - timedelta(days=5))):
            if amounts[i]:
                items.append(rows.event(f"{name}{i}", user, event="buy", value=float(amounts[i]), timestamp=at(moment)))
        if i % 3 == 0:
            items.append(rows.event(f"l{i}", user, event="leave", timestamp=at(inside)))
        # Whoever bought in the window is silver today: judged by today, gold would have bought nothing.
        if spent[i] and gold[i]:
            items.append(rows.identify(f"j{i}", user, tier="silver") | {"timestamp": at(NOW - timedelta(days=1))})
    assert not rows.receive(sqlite_store, items, NOW).rejected
    return Shop(sqlite_store, gold, spent, before)


def measured(shop: Shop, metric: str, **fields: Any) -> tuple[planner.Found, Baseline]:
    found = planner.measure(shop.store, metric, now=NOW, **fields)
    assert found.baseline is not None
    return found, found.baseline


def test_the_measured_baseline_is_the_plain_count(shop: Shop) -> None:
    found, base = measured(shop, "bought")
    bought = shop.spent > 0
    assert (found.users, found.measured, found.selected) == (COUNT, COUNT, "then")
    assert (base.mean, base.share) == (pytest.approx(bought.mean()), True)
    _, base = measured(shop, "spend")
    assert base.mean == pytest.approx(shop.spent.mean())
    assert base.variance == pytest.approx(shop.spent.var(ddof=1))
    _, base = measured(shop, "basket")
    assert base.mean == pytest.approx(shop.spent[bought].mean())
    influence = (shop.spent - base.mean * bought) / bought.mean()
    assert base.variance == pytest.approx(influence.var(ddof=1))
    _, base = measured(shop, "wait")
    assert base.mean == pytest.approx(np.where(bought, 4, 7).mean())
    _, base = measured(shop, "median")
    assert base.mean == pytest.approx(np.quantile(shop.spent, 0.8, method="inverted_cdf"))
    # Nobody visited, so nobody went through the funnel.
    assert planner.measure(shop.store, "steps", now=NOW).problem is Problem.ZERO_VARIANCE


def test_a_segment_is_that_of_the_time_of_the_window(shop: Shop) -> None:
    found, base = measured(shop, "bought", segment="gold")
    assert base.mean == pytest.approx((shop.spent[shop.gold] > 0).mean())
    assert found.measured == shop.gold.sum()
    # Its size is today's.
    assert found.users == (shop.gold & (shop.spent == 0)).sum()
    same, _ = measured(shop, "bought", condition=rows.SEGMENTS[0]["condition"])
    assert same == found
    with pytest.raises(NotFound, match="gilt"):
        planner.measure(shop.store, "bought", now=NOW, segment="gilt")


def test_covariates_measured_are_used_only_where_the_metric_has_them(shop: Shop) -> None:
    _, with_lookback = measured(shop, "spend")
    x = np.column_stack([np.ones(COUNT), shop.before, shop.before > 0])
    residual = shop.spent - x @ np.linalg.lstsq(x, shop.spent, rcond=None)[0]
    r_squared = 1 - (residual @ residual) / (COUNT - 3) / shop.spent.var(ddof=1)
    assert with_lookback.reduction == pytest.approx(r_squared, abs=1e-9)
    assert with_lookback.reduction > 0.1
    _, without = measured(shop, "plain")
    assert without.reduction == 0
    assert without.possible == pytest.approx(with_lookback.reduction, abs=0.05)


def test_those_who_come_are_counted_where_the_record_is_old_enough(shop: Shop) -> None:
    fresh = [
        rows.identify(f"n{i}", f"n{i}", tier="gold") | {"timestamp": at(NOW - timedelta(days=2 * i))} for i in range(20)
    ]
    rows.receive(shop.store, fresh, NOW)
    found = planner.measure(shop.store, "bought", now=NOW)
    # Days 0 to 26 are the last four weeks; those on record for the whole window belong to the baseline.
    assert (found.users, found.weekly, found.measured) == (COUNT + 20, 14 / 4, COUNT + 16)
    assert planner.measure(shop.store, "bought", now=NOW, weeks=52).weekly is None


def test_todays_attributes_stand_in_where_none_older_are_on_record(sqlite_store: Store) -> None:
    rows.create(sqlite_store, Kind.metric, METRICS[0] | {"window_days": 7}, NOW)
    items = [rows.event(f"e{i}", f"u{i}", event="visit", timestamp=at(NOW - timedelta(days=30))) for i in range(40)]
    items += [rows.event(f"b{i}", f"u{i}", event="buy", timestamp=at(NOW - timedelta(days=3))) for i in range(10)]
    items += [rows.identify(f"i{i}", f"u{i}", tier="gold") for i in range(20)]
    rows.receive(sqlite_store, items, NOW)
    found = planner.measure(sqlite_store, "bought", now=NOW, condition={"tier": "gold"})
    assert (found.users, found.measured, found.selected) == (20, 20, "today")
    assert found.baseline is not None
    assert found.baseline.mean == 0.5
    assert planner.measure(sqlite_store, "bought", now=NOW, condition={"tier": "tin"}).problem is not None


def experiment(*metrics: str, **changes: Any) -> dict[str, Any]:
    uses = [{"key": key} for key in ("bought", *metrics)]
    return rows.experiment(metrics=uses, plan={"planned_users": 500, "method": "fixed"}) | changes


def plans(shop: Shop, body: dict[str, Any], **fields: Any) -> dict[tuple[str | None, str | None], planner.MetricPlan]:
    rows.create(shop.store, Kind.experiment, body, NOW)
    request = planner.parse({"experiment": body["key"]} | fields)
    answer = planner.answer(request, shop.store, now=NOW)
    assert msgspec.json.decode(msgspec.json.encode(answer), type=planner.PlanAnswer) == answer
    return {(plan.metric, plan.segment): plan for plan in answer.plans}


def test_an_experiment_is_planned_as_it_will_be_read(shop: Shop) -> None:
    variants = [{"key": "coupon"}, {"key": "control"}, {"key": "letter"}]
    found = plans(shop, experiment("spend", "plain", "left", variants=variants), lift=0.2)
    assert list(found) == [("bought", None), ("spend", None), ("plain", None), ("left", None)]
    bought = found["bought", None]
    rate = (shop.spent > 0).mean()
    assert bought.forecast is not None
    assert bought.forecast.needed is not None
    assert bought.forecast.needed.users == pytest.approx(
        power.users(power.Plan(power.Conversion(rate), (1 / 3, 1 / 3, 1 / 3)), 0.2 * rate), abs=2
    )
    assert bought.forecast.planned is not None
    assert bought.forecast.planned.users == 500
    levels = {metric: plan.forecast.level for (metric, _), plan in found.items() if plan.forecast is not None}
    # Two treatments each; two secondary metrics are one family; a guardrail stands alone.
    assert levels == {"bought": 0.025, "spend": 0.0125, "plain": 0.0125, "left": 0.05}
    left = found["left", None]
    assert (left.margin, left.role) == (0.02, "guardrail")
    assert left.forecast is not None
    assert left.forecast.needed is not None


def test_only_those_who_would_be_assigned_can_take_part(shop: Shop) -> None:
    rows.create(shop.store, Kind.holdout, {"key": "out", "name": "Out", "share": 0.2}, NOW)
    found = plans(shop, experiment(coverage=0.5, holdouts=["out"], audience={"tier": "silver"}))["bought", None]
    silver = ~shop.gold | (shop.spent > 0)
    assert found.users == pytest.approx(silver.sum() * 0.4, rel=0.2)
    assert found.baseline is not None
    assert found.baseline.users == (~shop.gold).sum()


def test_strata_of_unequal_shares_add_up_to_the_stratified_variance(shop: Shop) -> None:
    strata = [{"segment": "gold"}, {"segment": "rest", "weights": {"control": 0.8, "coupon": 0.2}}]
    found = plans(shop, experiment("spend", strata=strata))
    whole, gold, rest = (found["spend", key] for key in (None, "gold", "rest"))
    assert whole.users == (gold.users or 0) + (rest.users or 0)
    variance, total = 0.0, float(whole.users or 0)
    for part in (gold, rest):
        assert part.baseline is not None
        weight = (part.users or 0) / total
        kept = part.baseline.sd**2 * (1 - part.baseline.reduction)
        variance += weight * kept * sum(1 / share for share in part.shares.values())
    assert whole.baseline is not None
    per_user = whole.baseline.sd**2 * (1 - whole.baseline.reduction)
    assert per_user * sum(1 / share for share in whole.shares.values()) == pytest.approx(variance)
    assert gold.forecast is not None
    assert gold.forecast.level == 0.025


def test_a_stratum_without_a_control_has_nothing_to_compare(shop: Shop) -> None:
    strata = [{"segment": "gold", "weights": {"control": 0.0, "coupon": 1.0}}, {"segment": "rest"}]
    found = plans(shop, experiment(strata=strata))
    assert (found["bought", "gold"].problem, found["bought", "gold"].forecast) == (Problem.NO_CONTROL, None)
    assert found["bought", None].users == found["bought", "rest"].users


def test_the_rarest_touch_spreads_the_list(shop: Shop) -> None:
    tactic = {"frequency": {"touches": 1, "per": "month"}}
    variants = [{"key": "control"}, {"key": "coupon", "tactic": tactic}]
    forecasted = plans(shop, experiment(variants=variants))["bought", None].forecast
    assert forecasted is not None
    assert forecasted.weeks[0].enrolled == math.floor(COUNT / (365.25 / 84))


@pytest.mark.study
@pytest.mark.parametrize("column", ["converted", "revenue"])
def test_the_users_planned_find_the_effect_as_often_as_planned(column: str) -> None:
    lift, repeats = 0.3, 1000
    rng = np.random.default_rng(5)
    segment = Segment("all", conversion=0.2)
    quiet = sample(Scenario((Variant("control", touches=0),), (segment,)), 200_000, rng)[column].astype(float)
    base = {"kind": "conversion", "rate": float(quiet.mean())} if column == "converted" else None
    base = base or {"kind": "mean", "mean": float(quiet.mean()), "sd": float(quiet.std())}
    plan = numbers(baseline=base, lift=lift, method="fixed")
    assert plan.forecast is not None
    assert plan.forecast.needed is not None
    treatment = Variant("treatment", lift if column == "converted" else 0.0)
    scenario = Scenario((Variant("control", touches=0), treatment), (segment,))
    # More conversions would also vary the revenue more: its mean is moved, and nothing else.
    shift = lift * float(quiet.mean()) if column == "revenue" else 0.0
    hits = 0
    for _ in range(repeats):
        drawn = sample(scenario, plan.forecast.needed.users, rng)
        arms = [drawn[column][drawn["variant"] == arm] + arm * shift for arm in (0, 1)]
        error = math.sqrt(sum(arm.var(ddof=1) / arm.size for arm in arms))
        hits += abs(arms[1].mean() - arms[0].mean()) > 1.96 * error
    assert hits / repeats == pytest.approx(0.8, abs=3.3 * math.sqrt(0.8 * 0.2 / repeats))  # 99.9 % of a binomial
