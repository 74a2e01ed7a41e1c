"""The command ``upturn plan``: by numbers with no store, by a store's metric, by an experiment's documents."""

import csv
import io
import json
from pathlib import Path

import pytest

from experiments import planner
from stats import power
from tests.experiments import shop
from tests.experiments.test_cli import Command, upturn

__all__ = ["upturn"]

NUMBERS = ("plan", "--baseline", 0.05, "--method", "fixed")


def test_one_sentence_stands_first(upturn: Command) -> None:
    answer = upturn(*NUMBERS, "--effect", 0.01, "--users", 20_000, "--window-days", 14)
    assert (answer.code, answer.err) == (0, "")
    # R: power.prop.test(p1 = .05, p2 = .06, power = .8) asks for 8,158 in each arm.
    first = "To detect 1 points (20.0%) you need 16,316 users (8,158 + 8,158): 2 weeks."
    assert answer.text.splitlines()[0] == first
    asked = upturn(*NUMBERS, "--users", 8200, "--arms", 3)
    points = 100 * power.detectable(power.Plan(power.Conversion(0.05), (1 / 3, 1 / 3, 1 / 3)), 8200)
    first, second, *_ = asked.text.splitlines()
    assert first == f"With 8,200 users you can detect {points:.3g} points ({points / 5:.1%}) in 1 week."
    assert second.startswith("With the smallest arm dropped: the users there are can detect ")
    guarded = upturn(*NUMBERS, "--margin", 0.01)
    assert guarded.text.startswith("To rule out a loss of 1 points you need 11,748 users (5,874 + 5,874).")


def test_no_store_is_made_for_numbers(upturn: Command, tmp_path: Path) -> None:
    assert upturn(*NUMBERS, "--effect", 0.01).code == 0
    assert list(tmp_path.iterdir()) == []


def test_all_options_reach_the_request(upturn: Command) -> None:
    options = {
        "--lift": 0.1, "--weights": "2,1,1", "--metrics": 2, "--alpha": 0.1, "--correction": "bonferroni",
        "--power": 0.9, "--method": "group-sequential", "--looks": 3, "--spending": "power", "--spending-parameter": 3,
        "--rho": 0.5, "--users": 8200, "--weekly": 50, "--window-days": 7, "--weeks": 5, "--touches": 2,
        "--per": "month", "--touches-needed": 3, "--direction": "down",
    }  # fmt: skip
    flat = [part for pair in options.items() for part in pair]
    answer = upturn("plan", "--mean", 40, "--sd", 120, *flat, "--format", "json")
    assert answer.code == 0
    request = planner.parse(
        {
            "baseline": {"kind": "mean", "mean": 40.0, "sd": 120.0},
            "lift": 0.1,
            "weights": [2.0, 1.0, 1.0],
            "metrics": 2,
            "alpha": 0.1,
            "power": 0.9,
            "method": "group_sequential",
            "looks": 3,
            "spending": {"name": "power", "parameter": 3.0},
            "correlation": 0.5,
            "users": 8200,
            "weekly": 50.0,
            "window_days": 7,
            "weeks": 5,
            "touch_cap": {"touches": 2, "per": "month", "needed": 3},
            "direction": "down",
        }
    )
    (plan,) = planner.answer(request, None, now=shop.NOW).plans
    (found,) = json.loads(answer.text)["plans"]
    assert found["shares"] == plan.shares
    assert plan.forecast is not None
    assert plan.forecast.needed is not None
    assert found["forecast"]["needed"]["users"] == plan.forecast.needed.users
    assert len(found["forecast"]["weeks"]) == 5


def test_csv_has_a_row_for_each_week(upturn: Command) -> None:
    answer = upturn(*NUMBERS, "--users", 8200, "--weeks", 3, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["week"] for row in rows] == ["1", "2", "3"]
    detectable = power.detectable(power.Plan(power.Conversion(0.05)), 8200)
    assert [float(row["detectable"]) for row in rows] == [pytest.approx(detectable)] * 3
    (row,) = csv.DictReader(io.StringIO(upturn(*NUMBERS, "--effect", 0.01, "--format", "csv").text))
    assert (row["week"], row["users_needed"]) == ("", "16316")


def test_ratio_and_quantile_have_options(upturn: Command) -> None:
    ratio = upturn("plan", "--numerator", 6, 5, "--denominator", 3, 2, "--parts-correlation", 0.4, "--effect", 0.1)
    assert (ratio.code, ratio.err) == (0, "")
    quantile = upturn("plan", "--quantile", 0.9, 30, 0.01, "--effect", 1)
    assert (quantile.code, quantile.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((), "baseline"),
        (("--baseline", 0.05, "--mean", 4, "--sd", 3, "--effect", 1), "baseline"),
        (("--experiment", "x", "--baseline", 0.05), "baseline"),
        (("--mean", 4, "--effect", 1), "baseline.sd"),
        (("--numerator", 4, 3, "--effect", 1), "baseline.denominator_mean"),
        (("--baseline", 0.05), "effect"),
        (("--baseline", 0.05, "--effect", 0.96), "effect"),
        (("--baseline", 0.05, "--effect", 0.01, "--looks", 3), "looks"),
        (("--experiment", "x", "--arms", 3), "arms"),
        (("--segment", "gold"), "baseline.metric"),
        (("--baseline", 0.05, "--effect", 0.01, "--weights", "1;2"), "--weights"),
        (("--baseline", 0.05, "--effect", 0.01, "--per", "day"), "touch_cap.touches"),
    ],
)
def test_wrong_use_names_the_field(upturn: Command, arguments: tuple[object, ...], field: str) -> None:
    answer = upturn("plan", *arguments)
    assert (answer.code, answer.out) == (2, b"")
    assert field in answer.err


def test_an_experiment_and_a_metric_of_the_store(upturn: Command, tmp_path: Path) -> None:
    store = shop.open_shop(tmp_path / "store", start=False)
    store.close()
    # A shop of which nothing is known yet.
    answer = upturn("plan", "--experiment", "mail")
    assert (answer.code, answer.err) == (0, "")
    assert answer.text.startswith("Spend (primary)\nNothing can be planned: not enough data.")
    assert "Bought (secondary, old)" in answer.text
    assert upturn("plan", "--experiment", "nothing").code == 1
    measured = upturn("plan", "--metric", "bought", "--segment", "new")
    assert measured.text.startswith("Bought (primary, new)\nNothing can be planned: not enough data.")
