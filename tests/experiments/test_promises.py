"""From a decision to a policy, and from a report to what was kept of the promise."""

from typing import Any

import pytest
from msgspec import structs

from experiments import promises
from experiments.codes import Verdict
from experiments.documents import Decision, Experiment, Kind, parse
from experiments.errors import Conflict, InvalidDocument
from experiments.policy import ARM, Policy
from experiments.promises import Delivery
from experiments.report import ArmMean, Interval, MoneyInterval, Report
from stats.errors import Problem
from tests.web import made

VARIANTS = [*made.EXPERIMENT["variants"], {"key": "twenty"}]


def experiment(**changes: Any) -> Experiment:
    return parse(Kind.experiment, made.EXPERIMENT | {"variants": VARIANTS} | changes)


def draft(decision: dict[str, Any], report: Report | None = None, **changes: Any) -> Policy:
    chosen = Decision.model_validate({"reason": "r"} | decision)
    policy = promises.from_decision(experiment(**changes), chosen, report, "r1" if report else None)
    assert parse(Kind.policy, policy.to_json()) == policy
    return policy


def test_who_was_in_the_experiment_gets_the_chosen_variant_and_nobody_else() -> None:
    policy = draft({"variant": "ten"})
    assert policy.chosen() == {"new": "ten", "loyal": "ten", "otherwise": "none"}
    assert policy.promise is None
    assert draft({"variant": "ten"}, strata=[]).chosen() == {"otherwise": "ten"}
    assert draft({"variant": "ten", "segments": ["loyal"]}).chosen() == {
        "new": "none",
        "loyal": "ten",
        "otherwise": "none",
    }
    assert draft({"variant": "ten", "segments": ["vip"]}, strata=[]).chosen() == {"vip": "ten", "otherwise": "none"}


def test_a_segment_may_be_called_otherwise() -> None:
    policy = draft({"variant": "ten"}, strata=[{"segment": "otherwise"}])
    assert policy.chosen() == {"otherwise-segment": "ten", "otherwise": "none"}


def test_to_keep_the_control_is_nothing_to_roll_out() -> None:
    with pytest.raises(Conflict, match="nothing to roll out"):
        draft({"variant": "none"})


def test_a_control_called_as_the_arm_of_reports_is_refused() -> None:
    variants = [{"key": ARM}, {"key": "ten"}]
    with pytest.raises(InvalidDocument, match="call the control otherwise"):
        draft({"variant": "ten"}, variants=variants, control=ARM)


def test_the_promise_is_what_the_report_states() -> None:
    report = made.full_report()
    policy = draft({"variant": "ten"}, report)
    assert policy.promise is not None
    relative, value = policy.promise.relative, policy.promise.value_per_month
    assert relative is not None
    assert value is not None
    assert (relative.estimate, relative.lower, relative.upper) == pytest.approx((0.766, 0.666, 0.866))
    assert (value.estimate, value.currency, policy.promise.report) == (49_269.4, "CNY", "r1")
    assert policy.value is not None
    assert policy.value.monthly_users == 1_000
    other = draft({"variant": "twenty"}, report).promise
    assert other is not None
    assert other.value_per_month is None


def test_the_luck_of_the_best_of_several_is_not_promised() -> None:
    report = made.full_report()
    advice = structs.replace(report.decision, corrected=Interval(0.053, 0.0265, 0.106))
    promise = draft({"variant": "ten"}, structs.replace(report, decision=advice)).promise
    assert promise is not None
    assert promise.relative is not None
    assert promise.relative.model_dump() == pytest.approx({"estimate": 0.5, "lower": 0.25, "upper": 1.0})


def test_of_some_segments_the_promise_is_theirs() -> None:
    report = made.full_report()
    policy = draft({"variant": "ten", "segments": ["new"]}, report)
    assert policy.promise is not None
    assert policy.promise.relative is not None
    assert policy.promise.relative.estimate == pytest.approx(0.8)
    assert policy.promise.value_per_month is None  # what the report states is for all
    assert policy.value is not None
    assert policy.value.monthly_users == 500
    assert draft({"variant": "twenty", "segments": ["loyal"]}, report).promise.relative is None  # type: ignore[union-attr]


def test_several_segments_are_weighed_by_their_users() -> None:
    strata = [{"segment": key} for key in ("new", "loyal", "dormant")]
    report = made.full_report()
    primary = report.metrics[0]
    third = [made.comparison("ten", 0.02, 0.06, "dormant"), *primary.comparisons]
    arms = [*primary.arms, *(ArmMean(variant, "dormant", 15_000, 0.2, 0.002) for variant in ("none", "ten"))]
    changed = structs.replace(primary, comparisons=third, arms=arms)
    report = structs.replace(report, metrics=[changed, *report.metrics[1:]])
    policy = draft({"variant": "ten", "segments": ["new", "dormant"]}, report, strata=strata)
    assert policy.promise is not None
    found = policy.promise.relative
    assert found is not None
    mean, estimate, half = (0.106 + 0.2) / 2, (0.08 + 0.02) / 2, (0.02**2 + 0.06**2) ** 0.5 / 2
    assert (found.estimate, found.lower) == pytest.approx((estimate / mean, (estimate - half) / mean))


# What was kept.

PROMISE = {"metric": "visit", "relative": {"estimate": 0.5, "lower": 0.2, "upper": 0.8}}


def realised(relative: tuple[float, float, float] | None, **changes: Any) -> promises.Realised:
    policy = parse(Kind.policy, made.POLICY | {"control": "a", "promise": PROMISE} | changes.pop("policy", {}))
    comparison = made.comparison(ARM, 0.05, 0.01, relative=None if relative is None else Interval(*relative))
    metric = made.metric("visit", "primary", [comparison], **changes.pop("metric", {}))
    arms = [ArmMean(*arm, 0.1, 0.01) for arm in ((ARM, None, 900), ("a", None, 100), (ARM, "plain:loyal", 900))]
    report = made.full_report(metrics=[structs.replace(metric, arms=arms)], **changes)
    return promises.realised(policy, report, "r2", "CNY")


@pytest.mark.parametrize(
    ("relative", "delivery"),
    [
        ((0.4, 0.1, 0.7), Delivery.kept),
        ((0.8, 0.6, 1.0), Delivery.above),
        ((0.2, 0.1, 0.3), Delivery.below),
        ((-0.2, -0.3, -0.1), Delivery.below),
        ((0.4, -0.1, 0.9), Delivery.open),
        (None, Delivery.not_measured),
    ],
)
def test_the_interval_tells_what_became_of_the_promise(
    relative: tuple[float, float, float] | None, delivery: Delivery
) -> None:
    found = realised(relative)
    assert (found.delivery, found.treated, found.held_back) == (delivery, 900, 100)


def test_less_may_be_better() -> None:
    promise = PROMISE | {"relative": {"estimate": -0.5, "lower": -0.8, "upper": -0.2}}
    down = {"direction": "down"}
    assert realised((-0.4, -0.7, -0.1), metric=down, policy={"promise": promise}).delivery is Delivery.kept
    assert realised((-0.2, -0.3, -0.1), metric=down, policy={"promise": promise}).delivery is Delivery.below
    assert realised((-0.8, -0.9, -0.7), metric=down, policy={"promise": promise}).delivery is Delivery.above


def test_without_a_promise_the_lift_is_held_against_zero() -> None:
    assert realised((0.4, 0.1, 0.7), policy={"promise": None}).delivery is Delivery.above
    assert realised((0.4, -0.1, 0.7), policy={"promise": None}).delivery is Delivery.open
    assert realised((-0.4, -0.7, -0.1), policy={"promise": None}).delivery is Delivery.below


def test_data_that_cannot_be_trusted_keep_no_promise() -> None:
    assert realised((0.4, 0.1, 0.7), verdict=Verdict.invalid).delivery is Delivery.invalid
    assert realised((0.4, 0.1, 0.7), policy={"holdback": {"share": 0}}).delivery is Delivery.no_holdback


def test_the_money_is_net_of_what_the_variants_cost_more() -> None:
    costly = [{"key": "a", "costs": {"per_user": "0.01"}}, {"key": "b", "costs": {"per_user": "0.03"}}]
    worth = {"metric": "visit", "margin": 0.8, "monthly_users": 1_000}
    found = realised((0.4, 0.1, 0.7), policy={"variants": costly, "value": worth})
    assert found.realised_value == MoneyInterval(*(pytest.approx(v) for v in (20.0, 12.0, 28.0)), "CNY")
    lost = realised((0.4, 0.1, 0.7), policy={"value": worth}, metric={"direction": "down"})
    assert lost.realised_value == MoneyInterval(*(pytest.approx(v) for v in (-40.0, -48.0, -32.0)), "CNY")


def test_a_problem_is_told_in_place_of_the_number() -> None:
    policy = parse(Kind.policy, made.POLICY)
    metric = made.metric("visit", "primary", [made.no_comparison(ARM, problem=Problem.NOT_ENOUGH_DATA)])
    found = promises.realised(policy, made.full_report(metrics=[metric]), "r2", "CNY")
    assert (found.delivery, found.problem) == (Delivery.not_measured, Problem.NOT_ENOUGH_DATA)
