import math
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from experiments.errors import InvalidDocument
from experiments.report import Interval
from experiments.sdk.conditions import compile_condition
from experiments.uplift import report
from experiments.uplift.answer import Answer
from experiments.uplift.rules import MIN_SHARE
from tests.experiments.uplift import made

GIFT_TO_NORTH = made.campaign(effect="city")
THREE = made.campaign(9000, arms=3, effect="city")


@pytest.fixture(scope="module")
def north() -> Answer:
    return made.answered(GIFT_TO_NORTH, learners=("s", "t"))


@pytest.fixture(scope="module")
def three() -> Answer:
    return made.answered(THREE, costs={"gift": 0.5, "call": 1.0}, budget=1000.0, unit="id")


def test_who_gains_is_told(north: Answer) -> None:
    said = north.report
    assert (said.verdict, said.variant, said.usable) == ("target", None, True)
    assert said.p_value < 0.001
    given = {rule.variant for rule in said.rules if rule.words.endswith("city is north")}
    assert given == {"gift"}
    assert said.drivers[0].feature == "city"
    assert said.drivers[0].share > 0.5
    assert not said.leakage.found


def test_the_value_is_the_one_that_was_made(north: Answer) -> None:
    """Four tenths gain 6 (an empty city hides some of them), the others lose 3."""
    values = {(each.policy, each.variant): each for each in north.report.policies}
    city = np.array([name == "north" for name in GIFT_TO_NORTH["city"].to_pylist()])
    hidden = np.array([name is None for name in GIFT_TO_NORTH["city"].to_pylist()])
    best = 6.0 * city.mean()
    for policy in ("model", "tree"):
        gain = values[policy, None].over_control
        assert gain.lower < best < gain.upper + 0.2 * hidden.mean()
        assert abs(values[policy, None].check) < 3
    everyone = values["constant", "gift"].over_control
    assert everyone.lower < 0.4 * 6 - 0.6 * 3 < everyone.upper
    best_for_all = values["constant", "gift" if everyone.estimate > 0 else "hold"].value.estimate
    tree = values["tree", None]
    assert tree.gain is not None
    assert tree.gain.estimate == pytest.approx(tree.value.estimate - best_for_all, abs=0.35)


def attributes(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: row[name] for name in made.FEATURES} for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("table", "depth"), [(GIFT_TO_NORTH, 1), (GIFT_TO_NORTH, 2), (GIFT_TO_NORTH, 3), (THREE, 2), (THREE, 3)]
)
def test_the_conditions_give_everyone_what_the_tree_gives(table: pa.Table, depth: int) -> None:
    found = made.answered(table, depth=depth)
    rules = [(compile_condition(rule.condition), rule.variant) for rule in found.report.rules]
    assert len(rules) > 1
    people = attributes(table)
    for user, given in zip(people, found.tree, strict=True):
        assert [variant for matches, variant in rules if matches(user)] == [found.frame.names[given]]
    assert [rule.users for rule in found.report.rules] == [sum(map(matches, people)) for matches, _ in rules]
    assert min(rule.users for rule in found.report.rules) >= math.floor(MIN_SHARE * len(people))


def test_nobody_differs_and_the_gift_is_good() -> None:
    said = made.answered(made.campaign(effect="all")).report
    assert (said.verdict, said.variant, said.usable) == ("everyone", "gift", False)
    assert (said.rules, said.quadrants, said.drivers) == ([], [], [])
    assert {each.policy for each in said.policies} == {"constant", "model"}


def test_nothing_is_good() -> None:
    assert made.answered(made.campaign(effect="none", seed=2)).report.verdict == "inconclusive"


def test_a_gift_that_costs_more_than_it_brings_is_for_nobody() -> None:
    said = made.answered(made.campaign(effect="all"), costs={"gift": 6}).report
    assert (said.verdict, said.variant) == ("nobody", "hold")


def test_costs_are_taken_off(three: Answer) -> None:
    free = made.answered(THREE)
    for paid, without in zip(three.report.policies[:3], free.report.policies[:3], strict=True):
        cost = {"hold": 0.0, "gift": 0.5, "call": 1.0}[paid.variant or ""]
        assert paid.value.estimate == pytest.approx(without.value.estimate - cost)


def test_the_budget_buys_most_at_first(three: Answer) -> None:
    budget = three.report.budget
    assert budget.unit == "money"
    expected = [point.expected for point in budget.points]
    steps = np.diff(expected) / np.diff([point.spend for point in budget.points])
    assert (np.diff(steps) < 1e-6 + 0.02 * steps[0]).all()
    assert budget.at is not None
    assert 990 < budget.at.spend <= 1000
    assert budget.at.realised.lower > 0
    assert budget.next is not None
    assert budget.next > 0


def test_kinds_of_users_cover_all_of_them(north: Answer) -> None:
    kinds = {each.quadrant: each for each in north.report.quadrants}
    assert sum(each.users for each in kinds.values()) == 6000
    lost, won = kinds["do_not_disturb"].effect, kinds["persuadable"].effect
    assert lost is not None
    assert won is not None
    assert lost.upper < 0 < won.lower
    total = kinds["persuadable"].total
    assert total is not None
    assert total.estimate == pytest.approx(won.estimate * kinds["persuadable"].users)
    assert kinds["sure_thing"].baseline > kinds["lost_cause"].baseline if len(kinds) == 4 else True


def test_predictions_are_calibrated_where_there_is_something_to_predict(north: Answer) -> None:
    (calibration,) = north.report.calibration
    assert calibration.slope.lower > 0.5
    predicted = [each.predicted for each in calibration.bins]
    assert predicted == sorted(predicted)


def test_a_feature_of_afterwards_is_refused_by_name() -> None:
    table = GIFT_TO_NORTH
    opened = np.where(np.array(table["arm"].to_pylist()) == "gift", np.random.default_rng(1).random(6000) < 0.5, 0)
    with pytest.raises(InvalidDocument, match="known only after the treatment") as refused:
        made.answered(table.append_column("opened", pa.array(opened)), features=("age", "opened"))
    assert [problem.field for problem in refused.value.problems] == ["opened"]


def test_groups_with_shares_of_their_own_are_no_leak_once_named() -> None:
    rng = np.random.default_rng(4)
    table = made.campaign(effect="none")
    member = np.array(table["member"].to_pylist())
    arm = np.where(rng.random(6000) < np.where(member, 0.8, 0.4), "gift", "hold")
    table = table.set_column(table.column_names.index("arm"), "arm", pa.array(arm))
    with pytest.raises(InvalidDocument, match="--stratum"):
        made.answered(table)
    said = made.answered(table, strata=("member",)).report
    assert (said.method.propensity, said.leakage.found) == ("strata", False)
    gift = next(each for each in said.policies if each.variant == "gift").over_control
    # Members bring 5 more: pooled, half of that would pass for the gift's.
    assert gift.lower < 0 < gift.upper
    assert gift.upper < 1.5


def test_shares_that_hang_on_two_features_together_show_in_the_predictions() -> None:
    """Neither feature alone knows the variant; their combination does, and the effect follows it."""
    rng = np.random.default_rng(9)
    a, b = rng.random(6000) < 0.5, rng.random(6000) < 0.5
    gift = rng.random(6000) < np.where(a == b, 0.7, 0.3)
    revenue = np.where(gift, np.where(a == b, 5.0, -5.0), 0) + rng.normal(0, 3, 6000)
    table = pa.table({"arm": np.where(gift, "gift", "hold"), "a": a, "b": b, "revenue": revenue})
    said = made.answered(table, features=("a", "b")).report
    assert (said.leakage.found, said.verdict, said.variant) == (True, "invalid", None)


def test_the_forest_needs_conversions() -> None:
    with pytest.raises(InvalidDocument, match="the forest takes an outcome of 0/1"):
        made.answered(GIFT_TO_NORTH, learners=("forest",))
    assert made.answered(GIFT_TO_NORTH, learners=("s", "forest")).report.method.learners == ["s"]


def test_the_best_of_each_segment_is_valued_beside_the_others() -> None:
    said = made.answered(GIFT_TO_NORTH, segment="city").report
    assert [each.policy for each in said.policies] == ["constant", "constant", "model", "tree", "segments"]
    segments, tree = said.policies[-1], said.policies[-2]
    assert segments.gain is not None
    assert segments.gain.lower > 0
    # The city is all there is to know.
    assert segments.value.estimate == pytest.approx(tree.value.estimate, abs=0.05)
    assert {each.segment: each.variant for each in said.segments} == {
        "north": "gift",
        "south": "hold",
        "west": "hold",
        "(none)": "hold",
    }
    assert sum(each.users for each in said.segments) == said.users
    north = said.segments[0].effect
    assert north is not None
    assert north.lower < 6 < north.upper
    assert [each.effect for each in said.segments[1:]] == [None] * 3


def test_segments_that_say_nothing_gain_nothing() -> None:
    rng = np.random.default_rng(3)
    table = made.campaign(effect="all").append_column("half", pa.array(rng.choice(["a", "b"], 6000)))
    said = made.answered(table, segment="half").report
    assert said.policies[-1].gain == Interval(0.0, 0.0, 0.0)
    assert {each.variant for each in said.segments} == {"gift"}


@pytest.mark.parametrize(("column", "problem"), [("id", "too_many"), ("arm", "known_after_treatment")])
def test_what_is_no_segment_is_refused(column: str, problem: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        made.answered(GIFT_TO_NORTH, segment=column)
    assert problem in [each.problem for each in refused.value.problems]


def test_the_targeting_curve_falls_to_the_mean_and_its_mean_height_is_the_autoc(north: Answer) -> None:
    (curve,) = north.report.toc
    (learned,) = [each for each in north.report.learners if each.learner == north.report.best]
    (rate,) = learned.rates
    assert rate.interval is not None
    heights = [point.above.estimate for point in curve.points]
    assert [point.share for point in curve.points] == pytest.approx([k / 20 for k in range(1, 21)])
    assert sum(heights) / 20 == pytest.approx(rate.interval.estimate, abs=0.15)
    assert heights[-1] == 0
    assert all(point.above.lower <= point.above.estimate <= point.above.upper for point in curve.points)
    # Four tenths gain: among the first fifth nearly all do.
    assert curve.points[3].above.lower < 6 - curve.mean < curve.points[3].above.upper + 1
    everyone = next(each for each in north.report.policies if each.variant == "gift")
    assert curve.mean == pytest.approx(everyone.over_control.estimate)


def test_the_same_seed_gives_the_same_report(north: Answer) -> None:
    again = made.answered(GIFT_TO_NORTH, learners=("s", "t"))

    def timeless(said: report.Uplift) -> bytes:
        learners = [msgspec.structs.replace(each, seconds=0.0) for each in said.learners]
        return report.encode(msgspec.structs.replace(said, learners=learners))

    assert timeless(again.report) == timeless(north.report)
    other = made.answered(GIFT_TO_NORTH, learners=("s", "t"), seed=2)
    assert timeless(other.report) != timeless(north.report)


def test_a_report_reads_back(three: Answer) -> None:
    assert report.decode(report.encode(three.report)) == three.report
