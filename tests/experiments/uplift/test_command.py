import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from experiments import cli, uplift_wording
from experiments.uplift import report
from tests.experiments.uplift import made

OPTIONS = ["--variant", "arm", "--control", "hold", "--outcome", "revenue", "--folds", "3", "--learner", "t"]
FEATURES = [part for name in made.FEATURES for part in ("--feature", name)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("uplift")
    made.write(made.campaign(4000), where / "a.csv")
    made.write(made.campaign(2000, effect="all"), where / "flat.csv")
    pyarrow.parquet.write_table(made.campaign(4000, arms=3), where / "three.parquet")
    return where


def run(folder: Path, *arguments: str) -> Result:
    file, *rest = arguments
    return CliRunner().invoke(cli.commands, ["uplift", str(folder / file), *OPTIONS, *FEATURES, *rest])


def test_the_table_reads_as_a_report(folder: Path) -> None:
    done = run(folder, "a.csv", "--segment", "city")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "a: 4,000 users, effect on revenue against hold"
    assert lines[1] == "Give different users different variants."
    assert "per user over the best single variant (95% interval)." in lines[2]
    told = ["city is south", "persuadables", "do not disturb", "T-learner *", "each what the rules say"]
    for text in (*told, "in each segment its best", "the first 20%"):
        assert text in done.output


def test_a_flat_effect_is_said_plainly(folder: Path) -> None:
    done = run(folder, "flat.csv")
    assert "No usable difference between users was found: give everyone gift." in done.output
    assert "no list of users is better than a random one (p = " in done.output
    assert "persuadables" not in done.output


def test_json_is_the_report(folder: Path) -> None:
    done = run(folder, "three.parquet", "--format", "json", "--cost", "gift=0.5", "--budget", "100")
    said = report.decode(done.stdout)
    assert [arm.variant for arm in said.arms] == ["hold", "call", "gift"]
    assert [arm.cost for arm in said.arms] == [0, 0, 0.5]
    assert said.budget.at is not None


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_scores_are_a_row_for_each_user(folder: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"scores.{ending}"
    done = run(folder, "three.parquet", "--unit", "id", "--scores", str(out), "--format", "json")
    assert done.exit_code == 0, done.output
    if ending == "csv":
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["user"] for row in rows] == [f"u{i}" for i in range(4000)]
    assert set(rows[0]) == {"user", "effect:call", "effect:gift", "model", "rules"}
    for row in rows:
        best = max(("call", "gift"), key=lambda name: float(row[f"effect:{name}"]))
        assert row["model"] == (best if float(row[f"effect:{best}"]) > 0 else "hold")
    shares = json.loads(done.stdout)["policies"][-2]["shares"]
    assert shares["gift"] == sum(row["model"] == "gift" for row in rows) / 4000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.csv", "--scores", "out.txt"), ".csv or .parquet"),
        (("a.csv", "--learner", "y"), "is not one of"),
        (("a.csv", "--cost", "gift"), "write NAME=NUMBER"),
        (("a.csv", "--folds", "1"), "3<=x<=20"),
    ],
)
def test_bad_usage_ends_with_2(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(folder, *arguments)
    assert (done.exit_code, said in done.output) == (2, True), done.output


def verdicts(said: report.Uplift) -> Iterator[report.Uplift]:
    from msgspec.structs import replace

    for verdict in ("target", "rank", "everyone", "nobody", "inconclusive", "invalid"):
        yield replace(said, verdict=verdict, variant="gift")


def test_every_verdict_has_words_of_its_own() -> None:
    said = made.answered(made.campaign(2000)).report
    first = [uplift_wording.advice(each)[0] for each in verdicts(said)]
    assert len(set(first)) == 6
