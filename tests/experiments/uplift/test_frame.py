from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from experiments.errors import InvalidDocument
from experiments.uplift.frame import from_table, read
from experiments.uplift.question import problems
from tests.experiments.uplift import made

TABLE = made.campaign()


def with_column(name: str, values: Any) -> pa.Table:
    table = TABLE.drop_columns([name]) if name in TABLE.column_names else TABLE
    return table.append_column(name, pa.array(values))


def test_the_control_comes_first_and_counts_are_the_shares() -> None:
    frame = from_table(made.campaign(arms=3), made.question())
    assert frame.names == ("hold", "call", "gift")
    assert frame.propensity[0] == pytest.approx(np.bincount(frame.arm) / frame.arm.size)
    assert (frame.ids[0], frame.ids[-1]) == (1, 6000)


def test_features_are_numbers_flags_and_categories() -> None:
    frame = from_table(TABLE, made.question())
    assert [(f.name, f.kind, f.labels) for f in frame.features] == [
        ("age", "number", ()),
        ("spent", "number", ()),
        ("city", "category", ("north", "south", "west")),
        ("member", "flag", ()),
    ]
    matrix, owner = frame.matrix()
    assert matrix.shape == (6000, 6)
    assert owner.tolist() == [0, 1, 2, 2, 2, 3]
    assert np.isnan(matrix[:, 0]).sum() == TABLE["age"].null_count > 0
    # An empty cell is none of the values.
    assert (matrix[:, 2:5].sum(axis=1) == 0).sum() == TABLE["city"].null_count > 0


def test_rare_values_are_taken_together() -> None:
    rng = np.random.default_rng(3)
    names = [f"c{i:03d}" for i in range(60)]
    chances = np.array([20.0] * 10 + [1.0] * 50)
    frame = from_table(with_column("city", rng.choice(names, 6000, p=chances / chances.sum())), made.question())
    city = next(feature for feature in frame.features if feature.name == "city")
    assert len(city.labels) == 30
    assert set(names[:10]) <= set(city.labels)
    assert np.isnan(city.values).any()


def test_shares_differ_between_strata() -> None:
    rng = np.random.default_rng(4)
    tier = rng.choice(["gold", "iron"], 6000)
    arm = np.where(rng.random(6000) < np.where(tier == "gold", 0.8, 0.4), "gift", "hold")
    table = with_column("arm", arm).append_column("tier", pa.array(tier))
    frame = from_table(table, made.question(strata=("tier",)))
    for name, share in (("gold", 0.8), ("iron", 0.4)):
        found = frame.propensity[tier == name]
        assert np.ptp(found[:, 1]) == 0
        assert found[0, 1] == (arm[tier == name] == "gift").mean() == pytest.approx(share, abs=0.03)


def test_a_value_multiplies_the_outcome_and_may_be_empty_where_there_is_none() -> None:
    frame = from_table(TABLE, made.question(outcome="bought", value="margin"))
    assert set(frame.outcome) == {0.0, 10.0}
    assert not frame.binary
    assert from_table(TABLE, made.question(outcome="bought")).binary


def test_weights_are_the_shares_where_given() -> None:
    frame = from_table(TABLE, made.question(weights={"hold": 3, "gift": 1}))
    assert frame.propensity[0].tolist() == [0.75, 0.25]


REFUSED: dict[str, tuple[pa.Table, dict[str, Any], str, str]] = {
    "no such column": (TABLE, {"features": ["age", "nope"]}, "feature", "nope"),
    "outcome as feature": (TABLE, {"features": ["age", "revenue"]}, "feature", "nobody knows before"),
    "variant as feature": (TABLE, {"features": ["arm"]}, "feature", "nobody knows before"),
    "twice": (TABLE, {"features": ["age", "age"]}, "feature", "once"),
    "no control": (TABLE, {"control": "nobody"}, "control", "gift, hold"),
    "outcome is text": (TABLE, {"outcome": "id"}, "id", "column of numbers"),
    "outcome is empty": (with_column("revenue", [None, *range(5999)]), {}, "revenue", "0 if nothing happened"),
    "outcome is infinite": (with_column("revenue", [np.inf, *range(5999)]), {}, "revenue", "finite"),
    "outcome is constant": (with_column("revenue", [1.0] * 6000), {}, "revenue", "varies"),
    "value is missing": (TABLE, {"value": "margin"}, "margin", "wherever the outcome is not 0"),
    "constant feature": (with_column("spent", [1.0] * 6000), {}, "spent", "the same for everybody"),
    "constant text": (with_column("city", ["x"] * 6000), {}, "city", "the same for everybody"),
    "feature is an id": (TABLE, {"features": ["age", "id"]}, "id", "less than half"),
    "feature is a date": (
        with_column("spent", pa.array([1] * 6000).cast(pa.timestamp("s"))),
        {},
        "spent",
        "days since",
    ),
    "variant is empty": (with_column("arm", [None, *TABLE["arm"].to_pylist()[1:]]), {}, "arm", "drop the rows"),
    "few users": (TABLE.slice(0, 300), {}, "arm", "200 users or more"),
    "user twice": (with_column("id", ["a"] * 6000), {"unit": "id"}, "id", "one row a user"),
    "small stratum": (TABLE, {"strata": ["spent"]}, "stratum", "coarser groups"),
    "cost of nobody": (TABLE, {"costs": {"nobody": 1}}, "cost", "name variants"),
    "cost below 0": (TABLE, {"costs": {"gift": -1}}, "cost", "0 or more"),
    "budget without cost": (TABLE, {"budget": 10}, "budget", "--cost"),
    "weights of some": (TABLE, {"weights": {"gift": 1}}, "weights", "each of hold, gift"),
    "weights and strata": (TABLE, {"weights": {"gift": 1, "hold": 1}, "strata": ["city"]}, "weights", "leave out"),
    "learner": (TABLE, {"learners": ["y"]}, "learner", "s, t, x, r, dr, forest"),
    "folds": (TABLE, {"folds": 2}, "folds", "from 3 to 20"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_remedy(case: str) -> None:
    table, changed, field, remedy = REFUSED[case]
    with pytest.raises(InvalidDocument) as refused:
        from_table(table, made.question(**changed))
    found = [problem for problem in refused.value.problems if problem.field == field]
    assert found, refused.value.detail
    assert any(remedy in problem.remedy or remedy == problem.value for problem in found), refused.value.detail


def test_all_problems_are_listed_at_once() -> None:
    found = list(problems(made.question(folds=1, depth=9, learners=(), features=())))
    assert {problem.field for problem in found} == {"folds", "depth", "learner", "feature"}


def test_files_are_read_and_missing_ones_refused(tmp_path: Path) -> None:
    table = read(made.write(TABLE, tmp_path / "a.csv"))
    assert table.column_names == TABLE.column_names
    assert from_table(table, made.question()).outcome == pytest.approx(from_table(TABLE, made.question()).outcome)
    with pytest.raises(InvalidDocument, match="name a CSV or Parquet file"):
        read(tmp_path / "b.csv")
    (tmp_path / "c.parquet").write_text("no")
    with pytest.raises(InvalidDocument, match="give a CSV"):
        read(tmp_path / "c.parquet")
