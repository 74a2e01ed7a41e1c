"""Uplift of a store's experiment: the question its rows ask, and the answer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from experiments import cli, rows
from experiments.errors import FieldProblem, InvalidDocument
from experiments.settings import Settings
from experiments.store import Store
from experiments.uplift import participants, report
from experiments.uplift.frame import from_table
from experiments.uplift.participants import LeftOut
from tests.experiments.uplift import campaign, made

SENT = datetime(2024, 5, 1, 8, tzinfo=UTC)
NOW = SENT + timedelta(days=campaign.DAYS)
COUNT = 3000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    campaign.documents(store, SENT)
    campaign.send(store, SENT, COUNT)
    yield store
    store.close()


@pytest.fixture(scope="module")
def found(store: Store) -> rows.Rows:
    return rows.of_experiment(store, campaign.KEY, now=NOW)


def test_what_can_be_used_is_a_feature_and_the_rest_is_listed(found: rows.Rows) -> None:
    asked = participants.question(found)
    assert set(asked.question.features) == {"user.age", "user.city", "user.member", "user.tags=vip"}
    left_out = {each.feature: each.problem for each in asked.left_out}
    assert left_out == {
        "user.card": "too_many",
        "user.site": "constant",
        "before.count.buy": "constant",
        "before.value.buy": "constant",
        "before.recency_days.buy": "nearly_empty",
        "before.count.leave": "constant",
        "before.value.leave": "constant",
        "before.recency_days.leave": "nearly_empty",
        "before.count.visit": "constant",
        "before.value.visit": "constant",
        "before.recency_days.visit": "nearly_empty",
    }
    limited = participants.question(found, attributes=True)
    assert set(limited.question.features) == {"user.age", "user.city", "user.member"}
    assert LeftOut("user.tags=vip", "not_an_attribute") in limited.left_out
    fewer = participants.question(found, leave_out=["user.age"])
    assert set(fewer.question.features) == {"user.city", "user.member", "user.tags=vip"}
    assert LeftOut("user.age", "not_wanted") in fewer.left_out


def test_the_chances_are_those_of_the_allocation_and_money_is_counted(found: rows.Rows) -> None:
    asked = participants.question(found)
    frame = from_table(asked.table, asked.question)
    member = np.array(asked.table["user.member"].to_pylist())
    assert frame.names == ("hold", "gift")
    assert frame.propensity[:, 1] == pytest.approx(np.where(member, 0.7, 0.4))
    assert frame.outcome == pytest.approx(campaign.MARGIN * asked.table["outcome"].to_numpy())
    assert frame.costs.tolist() == [0, campaign.COST]
    # The strata are the segments that could each get a variant of their own.
    assert frame.segments == ("members", "others")
    assert (frame.segment == np.where(member, 0, 1)).all()


def test_another_metric_has_no_margin_and_one_that_should_fall_is_a_loss(store: Store) -> None:
    asked = participants.question(rows.of_experiment(store, campaign.KEY, metric="left", now=NOW))
    frame = from_table(asked.table, asked.question)
    assert set(frame.outcome.tolist()) == {0.0, -1.0}
    assert frame.costs.tolist() == [0, 0]
    with pytest.raises(InvalidDocument, match="budget = 5"):
        participants.question(rows.of_experiment(store, campaign.KEY, metric="left", now=NOW), budget=5.0)


def test_who_could_not_get_a_variant_is_left_out(found: rows.Rows) -> None:
    chance = found.table["chance.gift"].to_numpy().copy()
    chance[:100] = 1.0
    table = found.table
    for name, values in (("chance.gift", chance), ("chance.hold", 1 - chance)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    certain = rows.Rows(table, found.features, found.experiment, found.metric, found.direction, found.batch)
    asked = participants.question(certain)
    assert (asked.excluded, asked.table.num_rows) == (100, COUNT - 100)


def test_nothing_known_of_anybody_is_refused(found: rows.Rows) -> None:
    blank = rows.Rows(found.table, ("user.site",), found.experiment, found.metric, found.direction, found.batch)
    with pytest.raises(InvalidDocument, match=r"features = \['user.site'\]"):
        participants.question(blank)


def test_chances_that_are_none_are_refused() -> None:
    table = made.campaign(2000)
    half = pa.array(np.full(2000, 0.5))
    chances = {"hold": "p0", "gift": "p1"}

    def problem(first: object, **changed: object) -> FieldProblem:
        asked = made.question(**{"chances": chances} | changed)
        with pytest.raises(InvalidDocument) as refused:
            from_table(table.append_column("p0", first).append_column("p1", half), asked)
        return refused.value.problems[0]

    assert problem(pa.array(np.full(2000, 0.4))).value == [0.4, 0.5]
    assert problem(pa.array(np.zeros(2000))).problem == "bad_weights"
    assert problem(pa.array(["x"] * 2000)).problem == "not_a_number"
    assert problem(half, chances={"hold": "p0"}).field == "chances"
    assert problem(half, strata=("member",)).problem == "inconsistent"
    assert problem(half, chances=chances | {"gift": "p9"}).problem == "unknown_column"


def test_the_answer_finds_the_city_and_its_worth(found: rows.Rows) -> None:
    asked = participants.question(found, learners=("t",), folds=3)
    answered = participants.answer(asked, found, clock=perf_counter)
    said = answered.report
    assert (said.verdict, said.name, said.outcome, said.method.propensity) == (
        "target",
        "Gift 礼物",
        "spend",
        "chances",
    )
    tree = next(each for each in said.policies if each.policy == "tree").over_control
    city = np.array([name == "north" for name in asked.table["user.city"].to_pylist()])
    assert tree.lower < city.mean() * (campaign.HELPED * campaign.MARGIN - campaign.COST) < tree.upper
    mean = participants.baseline(answered, campaign.MARGIN)
    assert mean == pytest.approx(30 + 0.1 * 44 + 5 * 0.3, abs=1.5)


def test_the_command_takes_an_experiment_or_a_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPTURN_STORE", str(store.settings.folder))
    quick = ["--learner", "t", "--folds", "3", "--format", "json"]
    out = tmp_path / "scores.csv"
    asked = ["uplift", "--experiment", campaign.KEY, "--metric", "spend", "--scores", str(out), *quick]
    done = CliRunner().invoke(cli.commands, asked)
    assert done.exit_code == 0, done.output
    assert report.decode(done.stdout).users == COUNT
    assert out.read_text(encoding="utf-8").splitlines()[1].startswith('"u0"')
    for arguments, said in (
        ([], "give a FILE or --experiment"),
        (["a.csv", "--experiment", "gift"], "give a FILE or --experiment"),
        (["a.csv", "--metric", "spend"], "--metric goes with --experiment"),
        (["a.csv", "--variant", "arm"], "with a FILE give --control, --outcome, --feature"),
        (["--experiment", "gift", "--stratum", "x", "--cost", "gift=1"], "--stratum, --cost: with --experiment"),
    ):
        refused = CliRunner().invoke(cli.commands, ["uplift", *arguments])
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
