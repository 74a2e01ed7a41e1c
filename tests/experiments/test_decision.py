from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from experiments import decision
from experiments.codes import HealthCode, ReasonCode, Verdict
from experiments.design import ValueSpec
from experiments.fields import Direction
from experiments.report import (
    ArmMean,
    Comparison,
    DecisionAdvice,
    Finding,
    Interval,
    Look,
    MetricReport,
    NonInferiority,
)
from tests.experiments.rows import build, design, measured, spec

PROVEN = NonInferiority(0.1, 0.01, passed=True, harmed=False)
UNPROVEN = NonInferiority(0.1, 0.4, passed=False, harmed=False)
HARMED = NonInferiority(0.1, 0.99, passed=False, harmed=True)


def effect(
    variant: str, estimate: float, *, significant: bool, segment: str | None = None, test: NonInferiority | None = None
) -> Comparison:
    return Comparison(
        variant=variant,
        control="c",
        segment=segment,
        absolute=Interval(estimate, estimate - 1, estimate + 1),
        relative=None,
        se=0.5,
        p_value=0.5,
        p_adjusted=0.5,
        significant=significant,
        probability_better=0.5,
        expected_loss=0.1,
        problem=None,
        noninferiority=test,
    )


def metric(
    *comparisons: Comparison,
    key: str = "m",
    role: str = "primary",
    direction: str = "up",
    matured: int = 1000,
    segments: Sequence[str] = (),
) -> MetricReport:
    arms = [ArmMean(v, None, matured // 2, 1.0, 0.1) for v in "ct"]
    arms += [ArmMean(v, s, matured // 2 // len(segments), 1.0, 0.1) for v in "ct" for s in segments]
    return MetricReport(
        metric=key,
        name=key,
        kind="mean",
        role=role,
        direction=direction,
        unit="number",
        window_days=7,
        matured=matured,
        immature=0,
        adjustment="none",
        arms=arms,
        comparisons=list(comparisons),
        timeline=[],
    )


THREE = {None: {"c": 0.4, "t": 0.3, "u": 0.3}}
BETTER, WORSE = effect("t", 3, significant=True), effect("t", -3, significant=True)
UNCLEAR = effect("t", 3, significant=False)
SRM = Finding(HealthCode.sample_ratio_mismatch, 9, 100, fatal=True)
SEGMENT_SRM = Finding(HealthCode.segment_sample_ratio_mismatch, 9, 100, fatal=True, subject="a")
CROSSED = Finding(HealthCode.crossovers, 9, 100, fatal=True)
FEW_CROSSED = Finding(HealthCode.crossovers, 1, 100, fatal=False)


def guard(test: NonInferiority | None, variant: str = "t", key: str = "g") -> MetricReport:
    return metric(effect(variant, 0, significant=False, test=test), key=key, role="guardrail")


def worth(cost: float, metric: str = "m", margin: float = 0.5) -> ValueSpec:
    return ValueSpec(metric, margin, 100, "CNY", {"t": cost})


def look(z: float, floor: float | None = None, *, variant: str = "t", reached: bool = True) -> Look:
    return Look(1, 500, None, 2.5, {variant: z} if reached else {}, [], reached, floor)


def advise(
    plan: Any,
    metrics: Sequence[MetricReport],
    health: Sequence[Finding] = (),
    looks: Sequence[Look] = (),
    corrected: Mapping[str, Interval] | None = None,
) -> DecisionAdvice:
    def effect_on(key: str, variant: str, segments: Sequence[str]) -> Interval | None:
        """As if every segment had the effect of the whole."""
        (found,) = (m for m in metrics if m.metric == key)
        return next(c.absolute for c in found.comparisons if c.variant == variant and c.segment is None)

    return decision.advise(plan, metrics, health, looks, effect_on, (corrected or {}).get)


CASES: list[tuple[str, Any, list[MetricReport], list[Finding], str, str | None, list[str]]] = [
    ("better", design(), [metric(BETTER)], [], "ship", "t", ["primary_better"]),
    ("unclear", design(), [metric(UNCLEAR)], [], "inconclusive", None, ["primary_not_significant"]),
    ("worse", design(), [metric(WORSE)], [], "stop", None, ["primary_worse"]),
    ("less is better", design(), [metric(WORSE, direction="down")], [], "ship", "t", ["primary_better"]),
    ("more is worse", design(), [metric(BETTER, direction="down")], [], "stop", None, ["primary_worse"]),
    ("nobody", design(), [metric(BETTER, matured=0)], [], "keep_running", None, ["no_matured_users"]),
    ("split", design(), [metric(BETTER)], [SRM], "invalid", None, ["sample_ratio_mismatch"]),
    ("segment split", design(), [metric(BETTER)], [SEGMENT_SRM], "invalid", None, ["sample_ratio_mismatch"]),
    ("split, nobody matured", design(), [metric(matured=0)], [SRM], "invalid", None, ["sample_ratio_mismatch"]),
    ("crossed", design(), [metric(BETTER)], [CROSSED], "invalid", None, ["too_many_crossovers"]),
    ("few crossed", design(), [metric(BETTER)], [FEW_CROSSED], "ship", "t", ["primary_better"]),
    (
        "two troubles",
        design(),
        [metric(BETTER)],
        [SRM, CROSSED, SEGMENT_SRM],
        "invalid",
        None,
        ["sample_ratio_mismatch", "too_many_crossovers"],
    ),
    (
        "fixed, ended before its size",
        design(planned_users=1001, ended=True),
        [metric(BETTER)],
        [],
        "ship",
        "t",
        ["primary_better"],
    ),
    (
        "fixed, before its size",
        design(planned_users=1001),
        [metric(BETTER)],
        [],
        "keep_running",
        None,
        ["planned_size_not_reached"],
    ),
    ("fixed, at its size", design(planned_users=1000), [metric(BETTER)], [], "ship", "t", ["primary_better"]),
    (
        "sequential, before its size",
        design(planned_users=9999, method="sequential"),
        [metric(BETTER)],
        [],
        "ship",
        "t",
        ["primary_better"],
    ),
    (
        "sequential, unclear",
        design(planned_users=9999, method="sequential"),
        [metric(UNCLEAR)],
        [],
        "keep_running",
        None,
        ["primary_not_significant", "planned_size_not_reached"],
    ),
    ("guarded", design(), [metric(BETTER), guard(PROVEN)], [], "ship", "t", ["primary_better"]),
    ("harm", design(), [metric(BETTER), guard(HARMED)], [], "stop", None, ["guardrail_harmed"]),
    (
        "doubt",
        design(),
        [metric(BETTER), guard(UNPROVEN)],
        [],
        "inconclusive",
        None,
        ["primary_better", "guardrail_not_proven"],
    ),
    (
        "doubt, early",
        design(planned_users=9999, method="sequential"),
        [metric(BETTER), guard(UNPROVEN)],
        [],
        "keep_running",
        None,
        ["primary_better", "guardrail_not_proven"],
    ),
    (
        "a guardrail without a number",
        design(),
        [metric(BETTER), guard(None)],
        [],
        "inconclusive",
        None,
        ["primary_better", "guardrail_not_proven"],
    ),
    (
        "harm and doubt",
        design(),
        [metric(BETTER), guard(HARMED), guard(UNPROVEN, key="h")],
        [],
        "stop",
        None,
        ["guardrail_harmed"],
    ),
    (
        "harm of a variant that is not better",
        design(THREE),
        [metric(BETTER, effect("u", 0, significant=False)), guard(PROVEN), guard(HARMED, "u", "h")],
        [],
        "ship",
        "t",
        ["primary_better"],
    ),
    (
        "the best of two is held back",
        design(THREE),
        [metric(BETTER, effect("u", 9, significant=True)), guard(PROVEN), guard(HARMED, "u", "h")],
        [],
        "ship",
        "t",
        ["primary_better"],
    ),
    (
        "the better of two",
        design(THREE),
        [metric(BETTER, effect("u", 9, significant=True))],
        [],
        "ship",
        "u",
        ["primary_better"],
    ),
    (
        "the lower of two",
        design(THREE),
        [metric(WORSE, effect("u", -9, significant=True), direction="down")],
        [],
        "ship",
        "u",
        ["primary_better"],
    ),
    (
        "one worse, one unclear",
        design(THREE),
        [metric(WORSE, effect("u", 0, significant=False))],
        [],
        "inconclusive",
        None,
        ["primary_not_significant"],
    ),
    ("earns", design(value=worth(0.5)), [metric(BETTER)], [], "ship", "t", ["primary_better"]),
    (
        "may lose",
        design(value=worth(1.4)),
        [metric(BETTER)],
        [],
        "ship",
        "t",
        ["primary_better", "value_uncertain"],
    ),
    ("loses", design(value=worth(1.6)), [metric(BETTER)], [], "stop", None, ["value_negative"]),
    (
        "the one that earns most, not the one that moves most",
        design(THREE, value=ValueSpec("m", 0.5, 100, "CNY", {"t": 0.1, "u": 4.0})),
        [metric(BETTER, effect("u", 9, significant=True))],
        [],
        "ship",
        "t",
        ["primary_better"],
    ),
    (
        "saves",
        design(value=worth(0.1, "refunds")),
        [metric(BETTER), metric(effect("t", -2, significant=True), key="refunds", role="secondary", direction="down")],
        [],
        "ship",
        "t",
        ["primary_better"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].replace(" ", "_"))
def test_verdict_and_reasons_are_those_of_the_table(case: Any) -> None:
    _, plan, metrics, health, verdict, variant, reasons = case
    found = advise(plan, metrics, health)
    assert (found.verdict, found.variant, found.reasons) == (verdict, variant, reasons)


GROUPED = design(method="group_sequential", planned_users=9999)
AHEAD = look(0, reached=False)
LOOKED: list[tuple[str, list[MetricReport], list[Look], str, str | None, list[str]]] = [
    ("before the first", [metric(BETTER)], [AHEAD], "keep_running", None, ["before_first_look"]),
    ("better at the first", [metric(BETTER)], [look(3)], "ship", "t", ["primary_better"]),
    ("worse at the first", [metric(WORSE)], [look(-3)], "stop", None, ["primary_worse"]),
    (
        "unclear at the first",
        [metric(UNCLEAR)],
        [look(1), AHEAD],
        "keep_running",
        None,
        ["primary_not_significant", "planned_size_not_reached"],
    ),
    ("unclear at the last", [metric(UNCLEAR)], [look(1), look(1)], "inconclusive", None, ["primary_not_significant"]),
    ("hopeless", [metric(UNCLEAR)], [look(-0.2, -0.1)], "stop", None, ["futile"]),
    ("not hopeless", [metric(UNCLEAR)], [look(0.0, -0.1)], "inconclusive", None, ["primary_not_significant"]),
    ("hopeless where less is better", [metric(UNCLEAR, direction="down")], [look(0.2, -0.1)], "stop", None, ["futile"]),
    (
        "over, and a guardrail still open",
        [metric(BETTER), guard(UNPROVEN)],
        [look(3)],
        "inconclusive",
        None,
        ["primary_better", "guardrail_not_proven"],
    ),
]


@pytest.mark.parametrize("case", LOOKED, ids=lambda case: case[0].replace(" ", "_"))
def test_verdict_and_reasons_at_the_looks_are_those_of_the_table(case: Any) -> None:
    _, metrics, looks, verdict, variant, reasons = case
    found = advise(GROUPED, metrics, looks=looks)
    assert (found.verdict, found.variant, found.reasons) == (verdict, variant, reasons)


def test_hopeless_means_all_of_the_variants() -> None:
    plan = design(THREE, method="group_sequential")
    metrics = [metric(UNCLEAR, effect("u", 1, significant=False))]
    hopes = Look(1, 500, None, 2.5, {"t": -0.5, "u": 1.0}, [], True, -0.1)
    assert advise(plan, metrics, looks=[hopes]).reasons == ["primary_not_significant"]


def test_money_rests_on_the_corrected_effect_of_the_one_chosen_by_what_was_seen() -> None:
    metrics = [metric(BETTER, effect("u", 4, significant=True))]
    plan = design(THREE, value=ValueSpec("m", 0.5, 100, "CNY", {}))
    found = advise(plan, metrics, corrected={"u": Interval(2.0, -1.0, 3.0)})
    assert (found.variant, found.corrected) == ("u", Interval(2.0, -1.0, 3.0))
    assert found.value_per_month is not None
    assert (found.value_per_month.estimate, found.value_per_month.lower) == (100.0, -50.0)
    assert found.reasons == ["primary_better", "value_uncertain"]


def test_what_only_luck_made_worth_it_is_not_shipped() -> None:
    metrics = [metric(BETTER, effect("u", 4, significant=True))]
    plan = design(THREE, value=ValueSpec("m", 0.5, 100, "CNY", {"t": 1.0, "u": 1.0}))
    found = advise(plan, metrics, corrected={"u": Interval(1.5, 1.0, 3.0)})
    assert (found.verdict, found.reasons) == ("stop", ["value_negative"])


def test_money_of_another_metric_is_not_corrected_by_the_main_one() -> None:
    other = metric(effect("t", 1, significant=True), effect("u", 2, significant=True), key="r", role="secondary")
    plan = design(THREE, value=ValueSpec("r", 0.5, 100, "CNY", {}))
    found = advise(plan, [metric(BETTER, effect("u", 4, significant=True)), other], corrected={"u": Interval(1, 0, 2)})
    assert found.value_per_month is not None
    assert found.value_per_month.estimate == 100.0


SEGMENTS = {s: {"c": 0.5, "t": 0.5} for s in "abcd"}
HARM = effect("t", -3, significant=True, segment="b")
NO_HARM = effect("t", -3, significant=False, segment="a")


def test_a_harmed_segment_is_left_out_and_its_users_earn_nothing() -> None:
    plan = design(SEGMENTS, value=worth(0.5))
    found = advise(plan, [metric(BETTER, NO_HARM, HARM, segments="abcd")])
    assert (found.verdict, found.segments) == ("ship", ["a", "c", "d"])
    assert found.reasons == ["primary_better", "segment_harmed"]
    assert found.value_per_month is not None
    assert found.value_per_month.estimate == pytest.approx((3 * 0.5 - 0.5) * 100 * 0.75)


def test_a_variant_that_harms_every_segment_is_shipped_to_none() -> None:
    harmed = [effect("t", -3, significant=True, segment=s) for s in "abcd"]
    found = advise(design(SEGMENTS), [metric(BETTER, *harmed, segments="abcd")])
    assert (found.verdict, found.reasons) == ("stop", ["segment_harmed"])


def test_money_is_effect_times_margin_less_cost_times_users() -> None:
    plan = design(value=ValueSpec("m", 0.5, 100, "CNY", {"t": 0.9, "c": 0.4}))
    value = advise(plan, [metric(BETTER)]).value_per_month
    assert value is not None
    assert (value.estimate, value.lower, value.upper) == pytest.approx((100.0, 50.0, 150.0))
    assert value.currency == "CNY"


def test_every_verdict_and_every_reason_is_in_the_table() -> None:
    assert {case[4] for case in CASES} == set(Verdict)
    reasons = {reason for case in CASES for reason in case[6]} | {reason for case in LOOKED for reason in case[5]}
    assert reasons | {"segment_harmed"} == set(ReasonCode)


def test_the_value_of_the_other_segments_equals_their_own_report() -> None:
    """Over the rows: one of three segments is harmed, money is that of an experiment without it, for its users only."""
    r = np.random.default_rng(1)
    base = {(s, v): r.normal(10, 1, 600).round(3) for s in "abd" for v in "tc"}
    rows = {(s, v): values + (v == "t") * (-1 if s == "b" else 1) for (s, v), values in base.items()}
    shares = {s: {"c": 0.5, "t": 0.5} for s in "abd"}
    value = ValueSpec("m", 1.0, 900, "CNY", {})
    whole = build(design(shares, value=value), (spec(), measured(rows))).decision
    kept = {s: shares[s] for s in "ad"}
    part = build(
        design(kept, value=ValueSpec("m", 1.0, 600, "CNY", {})),
        (spec(), measured({who: values for who, values in rows.items() if who[0] != "b"})),
    ).decision
    assert whole.segments == ["a", "d"]
    assert whole.value_per_month is not None
    assert part.value_per_month is not None
    for name in ("estimate", "lower", "upper"):
        assert getattr(whole.value_per_month, name) == pytest.approx(getattr(part.value_per_month, name))


def test_saving_is_worth_the_opposite_of_the_effect() -> None:
    r = np.random.default_rng(1)
    rows = {(None, "t"): r.normal(8, 1, 200).round(3), (None, "c"): r.normal(10, 1, 200).round(3)}
    plan = design(value=ValueSpec("m", 1.0, 10, "CNY", {}))
    found = build(plan, (spec(direction=Direction.down), measured(rows))).decision
    assert found.verdict == "ship"
    assert found.value_per_month is not None
    gain = rows[None, "c"].mean() - rows[None, "t"].mean()
    assert found.value_per_month.estimate == pytest.approx(10 * gain)
    assert 0 < found.value_per_month.lower < found.value_per_month.estimate < found.value_per_month.upper
