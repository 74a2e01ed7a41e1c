"""Published experiments, from the file to the report, against the figures that came with them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from experiments.files import FileMetric, Question, analyse
from experiments.report import Comparison, Report

DATA = Path(__file__).parents[3] / "shared" / "data"
VERSIONS = ("gate_30", "gate_40")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published experiments are not here: {DATA.name}")


def asked(*metrics: str, variant: str | None, control: str | None, **options: Any) -> Question:
    return Question(variant, control, [FileMetric.parse(text) for text in metrics], **options)


def computed(folder: str) -> dict[str, Any]:
    return json.loads((DATA / folder / "expected.json").read_text(encoding="utf-8"))["computed"]  # type: ignore[no-any-return]


def compared(found: Report, name: str, variant: str) -> Comparison:
    (metric,) = (metric for metric in found.metrics if metric.metric == name)
    return next(c for c in metric.comparisons if c.variant == variant and c.segment is None)


def estimate(interval: Any) -> float:
    return float(interval.estimate)


@cache
def cats() -> Report:
    metrics = "d1=conversion:retention_1", "d7=conversion:retention_7", "rounds=mean:sum_gamerounds"
    path = DATA / "cookie_cats" / "cookie_cats.csv.gz"
    return analyse(path, asked(*metrics, variant="version", control="gate_30"))


def test_cookie_cats_retention_and_split() -> None:
    found, oracle = cats(), computed("cookie_cats")
    assert found.srm.p_value == pytest.approx(oracle["srm_50_50"]["p"], rel=1e-9)
    for name, figures in (("d1", oracle["retention_1"]), ("d7", oracle["retention_7"])):
        c = compared(found, name, "gate_40")
        assert c.p_value == pytest.approx(figures["p_pooled_two_sided"], rel=1e-9)
        assert estimate(c.absolute) == pytest.approx(figures["diff"], rel=1e-9)


def test_cookie_cats_effect_without_the_one_player_of_49854_rounds() -> None:
    found, oracle = cats(), computed("cookie_cats")
    c = compared(found, "rounds", "gate_40")
    assert c.p_value == pytest.approx(oracle["sum_gamerounds"]["p_two_sided"], rel=1e-9)
    (influence,) = found.metrics[2].influence
    # The largest player of the other variant is left out too.
    table = pyarrow.csv.read_csv(DATA / "cookie_cats" / "cookie_cats.csv.gz")
    rounds = {name: np.sort(table.filter(pc.equal(table["version"], name))["sum_gamerounds"]) for name in VERSIONS}
    without = rounds["gate_40"][:-1].mean() - rounds["gate_30"][:-1].mean()
    assert estimate(influence.without) == pytest.approx(without, rel=1e-9)
    one_side = rounds["gate_40"].mean() - rounds["gate_30"][:-1].mean()
    assert one_side == pytest.approx(oracle["sum_gamerounds_without_the_49854_outlier"]["diff"], rel=1e-9)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The e-mails that did not bounce."""
    table = pyarrow.csv.read_csv(DATA / "nonprofit_email_subject_line_2x2" / "email_opens.csv")
    path = tmp_path_factory.mktemp("mail") / "delivered.csv"
    pyarrow.csv.write_csv(table.filter(pc.is_valid(table["open"])), path)
    return path


def test_nonprofit_subject_line(delivered: Path) -> None:
    oracle = computed("nonprofit_email_subject_line_2x2")["subject_delivered"]
    found = analyse(delivered, asked("open=conversion:open", variant="subject_catalyst", control="0"))
    c = compared(found, "open", "1")
    assert (estimate(c.absolute), c.p_value) == pytest.approx((oracle["diff"], oracle["p_pooled_two_sided"]), rel=1e-9)
    assert (round(oracle["diff"], 5), round(oracle["p_pooled_two_sided"], 4)) == (0.04371, 0.0246)


def test_nonprofit_factors_equal_the_saturated_regression(delivered: Path) -> None:
    """The regression's coefficients are simple effects at the baseline; the factors' are averages over both levels."""
    oracle = computed("nonprofit_email_subject_line_2x2")["hc3_saturated"]
    subject, sender, both = (oracle[name] for name in ("subject_catalyst", "from_executive_director", "inter"))
    levels = {"subject_catalyst": "0", "from_executive_director": "0"}
    question = asked("open=conversion:open", variant=None, control=None, factors=levels, correction="none")
    found = analyse(delivered, question)
    simple = compared(found, "open", "subject_catalyst=1, from_executive_director=0")
    assert estimate(simple.absolute) == pytest.approx(subject[0], rel=1e-9)
    assert found.metrics[0].factorial is not None
    main, other, interaction = found.metrics[0].factorial.effects
    assert estimate(main.absolute) == pytest.approx(subject[0] + both[0] / 2, rel=1e-9)
    assert estimate(other.absolute) == pytest.approx(sender[0] + both[0] / 2, rel=1e-9)
    assert interaction.absolute is not None
    limits = interaction.absolute.estimate, interaction.absolute.lower, interaction.absolute.upper
    assert limits == pytest.approx((both[0], *both[2:]), rel=0.01)


@pytest.mark.parametrize(("control", "variant"), [("2", "1"), ("3", "1"), ("2", "3")])
def test_fast_food_promotions_are_compared_by_restaurant(control: str, variant: str) -> None:
    """Each restaurant has four weeks, so that the ratio of sums is the mean of the restaurants' means."""
    oracle = computed("fast_food_three_promotions")[f"welch_locations_{variant}_vs_{control}"]
    path = DATA / "fast_food_three_promotions" / "WA_Marketing-Campaign.csv"
    question = asked("sales=mean:SalesInThousands", variant="Promotion", control=control, cluster="LocationID")
    found = analyse(path, question)
    c = compared(found, "sales", variant)
    assert c.absolute is not None
    assert c.statistic is not None
    assert (c.absolute.estimate, c.absolute.lower, c.absolute.upper) == pytest.approx(
        (oracle["diff"], *oracle["ci95"]), rel=1e-9
    )
    assert (c.p_value, c.statistic.df) == pytest.approx((oracle["p_two_sided"], oracle["df"]), rel=1e-9)
    assert {arm.variant: arm.assigned for arm in found.arms} == {"1": 43, "2": 47, "3": 47}


def test_new_haven_mailings_as_doses() -> None:
    path = DATA / "gotv_new_haven_touch_frequency" / "gerber_green_1998.csv.gz"
    oracle = computed("gotv_new_haven_touch_frequency")
    doses = {str(mailings): float(mailings) for mailings in range(4)}
    weights = {"0": 3.0, "1": 1.0, "2": 1.0, "3": 1.0}
    question = asked("voted=conversion:voted98", variant="mailings", control="0", doses=doses, weights=weights)
    found = analyse(path, question)
    for mailings in ("1", "2", "3"):
        figures = oracle[f"{mailings}_vs_0_mailings"]
        c = compared(found, "voted", mailings)
        assert (estimate(c.absolute), c.p_value) == pytest.approx(
            (figures["diff"], figures["p_pooled_two_sided"]), rel=1e-9
        )
    frequency = found.metrics[0].frequency
    assert frequency is not None
    table = pyarrow.csv.read_csv(path)
    slope = np.polyfit(table["mailings"].to_numpy(), table["voted98"].to_numpy(), 1)[0]
    assert estimate(frequency.trend) == pytest.approx(slope, rel=1e-9)
    assert frequency.trend_p > 0.5
