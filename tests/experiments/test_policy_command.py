"""``upturn policy`` and ``upturn list``: the functions of the API, for a terminal."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from experiments import cli, registry
from experiments.documents import Decision, Kind, Status
from experiments.errors import UpturnError
from experiments.settings import Settings
from experiments.store import Store
from tests.experiments.uplift import campaign

SENT = datetime.now(UTC) - timedelta(days=campaign.DAYS + 3)
COUNT = 900


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(cli.commands, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name in ("UPTURN_DATABASE_URL", "UPTURN_LAKE", "UPTURN_TIMEZONE", "UPTURN_CURRENCY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UPTURN_STORE", str(tmp_path))
    store = Store.open(Settings.from_env(), migrate=True)
    campaign.documents(store, SENT)
    campaign.send(store, SENT, COUNT)
    yield store
    store.close()


def decide(store: Store) -> None:
    with store.write() as session:
        now = datetime.now(UTC)
        registry.move(session, campaign.KEY, Status.stopped, actor="t", now=now)
        decision = Decision(variant="gift", reason="Some gain by it.")
        registry.move(session, campaign.KEY, Status.decided, actor="t", now=now, decision=decision)


def test_from_a_study_to_a_list_to_a_policy_and_back(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UpturnError, match="--save makes one"):
        run("list", "make", "--experiment", campaign.KEY)
    studied = run("uplift", "--experiment", campaign.KEY, "--learner", "t", "--folds", 3, "--save", "--format", "json")
    assert json.loads(studied.stdout)["verdict"] == "target"
    assert "kept as the study" in studied.stderr
    shown = run("list", "make", "--experiment", campaign.KEY, "--contacts", 200)
    assert "gift     200" in shown.stdout
    assert f"{COUNT} users, cost 40.00" in shown.stdout
    assert "one more of contacts would bring" in shown.stdout
    made = json.loads(run("list", "all", campaign.KEY, "--format", "json").stdout)
    assert (made[0]["status"], made[0]["treated"]) == ("done", 200)
    name = made[0]["id"]
    assert json.loads(run("list", "show", name, "--format", "json").stdout)["made"]["variants"]["gift"] == 200
    assert run("list", "save", name, tmp_path / "list.csv").stdout == f"{COUNT} users\n"
    rows = list(csv.DictReader((tmp_path / "list.csv").read_text().splitlines()))
    assert sum(row["variant"] == "gift" for row in rows) == 200
    run("list", "save", name, tmp_path / "list.parquet")
    assert (tmp_path / "list.parquet").stat().st_size > 1000
    # The file that came out, with features, goes in again as a list of others.
    people = campaign.attributes(300, seed=7)
    with (tmp_path / "others.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["user_id", "age", "city", "member", "vip"])
        writer.writeheader()
        for i, known in enumerate(people):
            kept = {"user_id": f"o{i}", "age": known["age"], "city": known.get("city"), "member": known["member"]}
            writer.writerow(kept)
    refused = run("list", "make", "--experiment", campaign.KEY, "--file", tmp_path / "others.csv", "--no-write")
    assert refused.exit_code == 1
    assert "user.tags=vip" in refused.stderr

    assert "upturn policy start gift" in run("list", "policy", name).stdout
    with pytest.raises(UpturnError, match="decide or archive it first"):
        run("policy", "start", "gift")
    decide(store)
    assert run("policy", "start", "gift").stdout.startswith("gift: running")
    (line,) = json.loads(run("policy", "list", "--format", "json").stdout)
    assert (line["status"], line["rules"], line["holdback"]) == ("running", 2, "5.00%")
    assert line["refresh"].startswith("by ")
    assert line["promised"].startswith("+")
    with pytest.raises(UpturnError, match=r"give less than the 0\.05"):
        run("policy", "widen", "gift", "--holdback", 0.5)
    assert "5.00% → 1.00%" in run("policy", "widen", "gift", "--holdback", 0.01).stdout
    shown = run("policy", "show", "gift").stdout
    assert "all others" in shown
    assert "gift@" in shown
    assert "rolled back" in run("policy", "rollback", "gift").stdout
    assert json.loads(run("policy", "show", "gift", "--format", "json").stdout)["holdback"]["share"] == 0.05
    run("policy", "rollback", "gift", "--to", "control")
    assert json.loads(run("policy", "show", "gift", "--format", "json").stdout)["rules"] == []
    assert "paused" in run("policy", "pause", "gift").stdout
    assert "running" in run("policy", "start", "gift").stdout
    assert "stopped" in run("policy", "stop", "gift").stdout
    with store.read() as session:
        actions = [(each["actor"], each["action"]) for each in registry.history(session, "gift", Kind.policy)]
    assert actions[0] == ("cli", "stopped")
    assert actions[-1] == ("cli", "create")


def test_a_policy_is_made_of_a_file(store: Store, tmp_path: Path) -> None:
    body = {
        "key": "welcome",
        "name": "Welcome",
        "variants": [{"key": "hold"}, {"key": "gift"}],
        "control": "hold",
        "rules": [{"name": "north", "condition": {"city": "north"}, "variant": "gift"}],
        "otherwise": "hold",
        "metrics": [{"key": "spend", "role": "primary"}],
        "plan": {"planned_users": 1000},
    }
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(body))
    assert run("policy", "create", file).stdout == "welcome: draft, revision 1\n"
    with pytest.raises(UpturnError, match="already"):
        run("policy", "create", file)
    assert '{"city": "north"}' in run("policy", "show", "welcome").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "make"), "give --study or --experiment"),
        (("list", "make", "--experiment", "x", "--stock", "gift"), "write NAME=N"),
        (("list", "make", "--experiment", "x", "--allowed", "gift=3,"), "write NAME=CONDITION"),
        (("list", "make", "--experiment", "x", "--audience", "{"), "write a condition as JSON"),
        (("uplift", "x.csv", "--save"), "--save goes with --experiment"),
        (("uplift", "--experiment", "x", "--save", "--alpha", "0.1"), "with --save give the options of a study"),
    ],
)
def test_what_is_written_wrongly_is_said(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
