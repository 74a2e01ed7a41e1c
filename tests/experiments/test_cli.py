import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import pyarrow.parquet as pq
import pytest

from experiments import access, cli, reports
from experiments.export import COLUMNS
from experiments.settings import Settings
from experiments.store import Store
from tests.experiments import shop
from tests.experiments.rows import assert_sound

VARIABLES = (
    "UPTURN_STORE",
    "UPTURN_DATABASE_URL",
    "UPTURN_LAKE",
    "UPTURN_TIMEZONE",
    "UPTURN_CURRENCY",
    "UPTURN_RATES",
    "UPTURN_PASSWORD",
)


class Answer(NamedTuple):
    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


Command = Callable[..., Answer]


@pytest.fixture
def upturn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """Runs the command as the installed program does, on a store in ``tmp_path``."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UPTURN_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: str = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["upturn", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        found = capfdbinary.readouterr()
        assert isinstance(code, int)
        return Answer(code, found.out, found.err.decode())

    return run


@pytest.fixture
def filled(upturn: Command, tmp_path: Path) -> Path:
    """A store with a running experiment and its data."""
    store = shop.open_shop(tmp_path / "store")
    shop.send(store, shop.customers(150))
    store.close()
    return tmp_path


def paths(command: click.Command, *names: str) -> list[tuple[str, ...]]:
    inner = command.commands if isinstance(command, click.Group) else {}
    return [names, *(path for name, part in inner.items() for path in paths(part, *names, name))]


@pytest.mark.parametrize("path", paths(cli.commands), ids=" ".join)
def test_every_command_says_what_it_does(upturn: Command, path: tuple[str, ...]) -> None:
    answer = upturn(*path, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "Usage: upturn" in answer.text
    command = cli.commands
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert command.help.split("\n")[0] in " ".join(answer.text.split())


def test_help_loads_no_engine() -> None:
    script = (
        "import sys; from experiments import cli; cli.commands(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    loaded = set(out.splitlines()[-1].split())
    assert "click" in loaded
    assert not loaded & {"duckdb", "scipy", "ibis", "numpy", "pyarrow", "sqlalchemy", "pydantic", "rich", "flask"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("key",),
        ("key", "create", "app"),
        ("import", "things", "f.csv"),
        ("import", "events", "f.csv", "--timezone", "Mars/City"),
        ("import", "events", "f.csv", "--timezone", "America"),
        ("import", "events", "nowhere.csv"),
        ("export", "events", "f.txt"),
        ("export", "events", "f.csv", "--experiment", "mail"),
        ("key", "create", "app", "--scope", "everything"),
        ("user", "create", "ann", "--password", "short"),
        ("results", "mail", "--format", "xml"),
        ("analyze", "f.csv"),
    ],
)
def test_wrong_use_ends_with_2_and_tells_on_standard_error(upturn: Command, arguments: tuple[str, ...]) -> None:
    upturn("migrate")
    answer = upturn(*arguments)
    assert (answer.code, answer.out) == (2, b"")
    assert answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("results", "nothing"),
        ("key", "revoke", "nothing"),
        ("user", "password", "nobody", "--password", "long enough"),
    ],
)
def test_what_is_not_there_ends_with_1_and_tells_on_standard_error(upturn: Command, arguments: tuple[str, ...]) -> None:
    upturn("migrate")
    answer = upturn(*arguments)
    assert (answer.code, answer.out) == (1, b"")
    assert answer.err.startswith("upturn: there is no ")


def test_a_store_that_was_not_made_says_how_to_make_it(upturn: Command) -> None:
    answer = upturn("key", "list")
    assert (answer.code, answer.out) == (1, b"")
    assert "run `upturn migrate`" in answer.err


@pytest.mark.parametrize(
    ("name", "value"), [("UPTURN_TIMEZONE", "Mars/City"), ("UPTURN_TIMEZONE", "America"), ("UPTURN_CURRENCY", "yuan")]
)
def test_a_wrong_setting_is_named(upturn: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    answer = upturn("key", "list")
    assert (answer.code, answer.out) == (2, b"")
    assert value in answer.err


def test_migrating_twice_is_harmless(upturn: Command) -> None:
    first, second = upturn("migrate"), upturn("migrate")
    assert (first.code, second.code) == (0, 0)
    assert first.out == second.out
    assert first.text.startswith("schema ")


def test_a_key_is_shown_once_works_and_can_be_revoked(upturn: Command, tmp_path: Path) -> None:
    upturn("migrate")
    secret = upturn("key", "create", "shop app", "--scope", "ingest", "--scope", "read").text.strip()
    store = Store.open(Settings.in_folder(tmp_path / "store"))
    found = store.lookup.admit(access.digest(secret))
    assert found is not None
    assert found.key.scopes == {"ingest", "read"}
    listed = upturn("key", "list", "--format", "json")
    shown = {"name": "shop app", "prefix": secret[:8], "scopes": "ingest read", "origins": ""}
    assert json.loads(listed.out) == [shown]
    assert secret not in listed.text
    assert "shop app" in upturn("key", "list").text
    assert upturn("key", "create", "shop app", "--scope", "read").code == 1
    assert upturn("key", "revoke", "shop app").code == 0
    assert json.loads(upturn("key", "list", "--format", "json").out) == []
    assert store.lookup.admit(access.digest(secret)) is None
    store.close()


def test_a_key_for_pages_names_their_origins_and_may_do_what_apps_do(upturn: Command) -> None:
    upturn("migrate")
    page = ("key", "create", "page", "--scope", "assign", "--origin", "https://shop.example")
    assert upturn(*page, "--origin", "http://localhost:3000").code == 0
    listed = json.loads(upturn("key", "list", "--format", "json").out)
    assert listed[0]["origins"] == "http://localhost:3000 https://shop.example"
    refused = upturn("key", "create", "other", "--scope", "assign", "--origin", "https://shop.example/path")
    assert refused.code == 2
    assert "https://host:port" in refused.err
    refused = upturn("key", "create", "other", "--scope", "admin", "--origin", "*")
    assert refused.code == 2
    assert "public" in refused.err


def test_accounts_are_made_listed_and_changed(upturn: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    upturn("migrate")
    assert upturn("user", "create", "ann", "--password", "a long password").code == 0
    monkeypatch.setenv("UPTURN_PASSWORD", "another password")
    assert upturn("user", "create", "王芳").code == 0
    assert upturn("user", "password", "ann").code == 0
    assert upturn("user", "role", "王芳", "approver").code == 0
    assert upturn("user", "disable", "王芳").code == 0
    assert json.loads(upturn("user", "list", "--format", "json").out) == [
        {"login": "ann", "role": "admin", "disabled": ""},
        {"login": "王芳", "role": "approver", "disabled": "yes"},
    ]
    refused = upturn("user", "disable", "ann")
    assert (refused.code, "last admin" in refused.err) == (1, True)
    assert upturn("user", "enable", "王芳").code == 0
    assert "yes" not in upturn("user", "list").text
    store = Store.open(Settings.in_folder(tmp_path / "store"))
    with store.read() as session:
        assert access.check_login(session, "ann", "another password")
        assert not access.check_login(session, "ann", "a long password")
    store.close()


EVENTS = "user_id,event,timestamp,value\nu1,buy,2024-05-01T10:00:00Z,9.5\nu2,buy,2024-05-01T11:00:00Z,\n"


def test_rows_come_in_once_and_go_out_whole(upturn: Command, tmp_path: Path) -> None:
    upturn("migrate")
    (tmp_path / "in.csv").write_text(EVENTS, encoding="utf-8")
    assert upturn("import", "events", "in.csv") == (0, b"2 accepted, 0 known already, 0 refused\n", "")
    assert upturn("import", "events", "in.csv") == (0, b"0 accepted, 2 known already, 0 refused\n", "")
    for name in ("out.parquet", "out.csv", "out.jsonl"):
        assert upturn("export", "events", name) == (0, b"2 rows\n", "")
        assert (tmp_path / name).stat().st_size
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["user_id"], row["name"], row["value_micros"]) for row in rows] == [
        ("u1", "buy", 9_500_000),
        ("u2", "buy", None),
    ]
    assert rows[0]["at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_refused_rows_are_told_by_number_and_end_with_1(upturn: Command, tmp_path: Path) -> None:
    upturn("migrate")
    rows = "".join(f"u{i},buy,2999-01-01T00:00:00Z,1\n" for i in range(25))
    (tmp_path / "in.csv").write_text(EVENTS + rows, encoding="utf-8")
    answer = upturn("import", "events", "in.csv")
    assert (answer.code, answer.out) == (1, b"2 accepted, 0 known already, 25 refused\n")
    lines = answer.err.splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("row 3: time_in_future: ")
    assert lines[-1] == "... and 5 more"


def test_results_are_the_saved_report_until_refreshed(upturn: Command, filled: Path) -> None:
    first = upturn("results", shop.KEY, "--format", "json")
    assert (first.code, first.err) == (0, "")
    assert_sound(first.out)
    store = Store.open(Settings.in_folder(filled / "store"))
    with store.read() as session:
        saved = reports.latest(session, shop.KEY)
    assert saved is not None
    assert first.out == saved.body
    shop.send(store, shop.customers(50, first=150), now=shop.NOW + timedelta(days=1))
    store.close()
    assert upturn("results", shop.KEY, "--format", "json").out == first.out
    fresh = upturn("results", shop.KEY, "--format", "json", "--refresh")
    assert sum(arm["assigned"] for arm in json.loads(fresh.out)["arms"]) == 200


def test_results_come_in_every_format(upturn: Command, filled: Path) -> None:
    table = upturn("results", shop.KEY).text
    assert "Mail · 邮件" in table
    assert "decision: " in table
    comma = upturn("results", shop.KEY, "--format", "csv").text
    assert comma.splitlines()[0] == ",".join(COLUMNS)
    parquet = pq.read_table(io.BytesIO(upturn("results", shop.KEY, "--format", "parquet").out))
    assert tuple(parquet.column_names) == COLUMNS
    assert len(parquet) == len(comma.splitlines()) - 1 == 9


def analyze(*more: str) -> tuple[str, ...]:
    file = "shop.csv", "--variant", "variant", "--control", "none"
    return "analyze", *file, "--metric", "spend=mean:spend", *more


def test_analyze_needs_no_store_and_comes_in_every_format(upturn: Command, tmp_path: Path) -> None:
    shop.write_csv(tmp_path / "shop.csv", shop.customers(200))
    more = "--metric", "bought=conversion:bought", "--segment", "segment", "--covariate", "visits"
    found = upturn(*analyze(*more, "--format", "json"))
    assert (found.code, found.err) == (0, "")
    assert_sound(found.out)
    assert [m["metric"] for m in json.loads(found.out)["metrics"]] == ["spend", "bought"]
    assert "decision: " in upturn(*analyze(*more)).text
    assert upturn(*analyze(*more, "--format", "csv")).text.splitlines()[0] == ",".join(COLUMNS)
    assert len(pq.read_table(io.BytesIO(upturn(*analyze(*more, "--format", "parquet")).out))) == 6
    page = upturn(*analyze(*more, "--format", "html")).text
    assert page.startswith("<!doctype html>")
    assert not (tmp_path / "store").exists()


def test_every_option_of_analyze_reaches_the_report(upturn: Command, tmp_path: Path) -> None:
    shop.write_csv(tmp_path / "shop.csv", shop.customers(200))
    more = ("--metric", "visits=mean:visits", "--guardrail", "visits=0.5", "--lower-is-better", "visits")
    more += ("--method", "sequential", "--planned-users", "999", "--alpha", "0.1", "--correction", "bh")
    more += ("--weights", "none=2", "--weights", "letter=1", "--unit", "user")
    document = json.loads(upturn(*analyze(*more, "--format", "json")).out)
    method = document["method"]
    assert (method["name"], method["planned_users"], method["alpha"], method["correction"]) == (
        "sequential",
        999,
        0.1,
        "bh",
    )
    assert document["srm"]["expected"] == pytest.approx({"none": 400 / 3, "letter": 200 / 3})
    guardrail = document["metrics"][1]
    assert (guardrail["role"], guardrail["direction"]) == ("guardrail", "down")
    assert guardrail["comparisons"][0]["noninferiority"]["margin"] == 0.5


def test_the_further_options_of_analyze_reach_the_report(upturn: Command, tmp_path: Path) -> None:
    shop.write_csv(tmp_path / "shop.csv", shop.customers(200))

    def document(*more: str) -> dict[str, Any]:
        found = upturn(*analyze(*more, "--format", "json"))
        assert (found.code, found.err) == (0, "")
        assert_sound(found.out)
        return json.loads(found.out)  # type: ignore[no-any-return]

    looks = "--looks", "0.25,1", "--planned-users", "400", "--spending", "power", "--spending-parameter", "3"
    planned = document("--method", "group-sequential", *looks, "--cap", "spend=20")
    assert [look["reached"] for look in planned["method"]["looks"]] == [True, False]
    assert planned["method"]["spending"] == "power"
    assert planned["metrics"][0]["capping"][0]["cap"] == 20
    assert document("--cap-percentile", "spend=80")["metrics"][0]["capping"]
    bayes = document("--method", "bayes", "--prior", "-0.1,0.2", "--all-pairs")
    assert (bayes["method"]["prior"], bayes["method"]["comparisons"]) == ([-0.1, 0.2], "all_pairs")
    reached = document("--received", "bought", "--triggered", "bought", "--higher-is-better", "spend")
    assert reached["compliers"]
    assert reached["triggered"]
    assert document("--cluster", "user")["metrics"][0]["kind"] == "ratio"


def test_factors_take_the_place_of_variants(upturn: Command, tmp_path: Path) -> None:
    shop.write_csv(tmp_path / "shop.csv", shop.customers(200))
    factors = "--factor", "segment", "--factor", "variant", "--baseline", "segment=new", "--baseline", "variant=none"
    found = upturn("analyze", "shop.csv", *factors, "--metric", "spend=mean:spend", "--format", "json")
    assert found.code == 0
    document = json.loads(found.out)
    assert document["control"] == "segment=new, variant=none"
    assert [list(e["levels"]) for e in document["metrics"][0]["factorial"]["effects"]] == [
        ["segment"],
        ["variant"],
        ["segment", "variant"],
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--metric", "x=mean:nowhere"), "nowhere"),
        (("--metric", "x=median:spend"), "x=median:spend"),
        (("--metric", "x=conversion:spend"), "not_0_or_1 spend"),
        (("--covariate", "segment"), "segment"),
        (("--segment", "nowhere"), "nowhere"),
        (("--weights", "none=much"), "none=much"),
        (("--weights", "none=nan"), "none=nan"),
        (("--weights", "none=1"), "letter"),
        (("--guardrail", "spend=-1"), "spend=-1"),
        (("--guardrail", "=1"), "=1"),
        (("--alpha", "0"), "alpha"),
        (("--alpha", "0.5"), "alpha"),
        (("--control", "nobody"), "nobody"),
        (("--planned-users", "1"), "planned-users"),
        (("--method", "group-sequential"), "planned-users"),
        (("--method", "group-sequential", "--planned-users", "9"), "looks"),
        (("--looks", "half,1"), "half,1"),
        (("--spending", "pocock"), "spending"),
        (("--prior", "0"), "MEAN,SD"),
        (("--prior", "0,0.1"), "prior"),
        (("--factor", "segment"), "--baseline segment=LEVEL"),
        (("--baseline", "segment=new"), "--factor segment"),
        (("--baseline", "segment"), "COL=LEVEL"),
        (("--cap", "spend=0"), "cap"),
        (("--cluster", "nowhere"), "nowhere"),
    ],
)
def test_what_analyze_cannot_use_ends_with_2_and_is_named(
    upturn: Command, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    shop.write_csv(tmp_path / "shop.csv", shop.customers(50))
    answer = upturn(*analyze(*more))
    assert (answer.code, answer.out) == (2, b"")
    assert words.split()[-1] in answer.err


def test_bad_cells_end_with_2_and_are_counted(upturn: Command, tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("variant,spend\nnone,1\nletter,\nletter,2\n", encoding="utf-8")
    answer = upturn(*analyze())
    assert (answer.code, answer.out) == (2, b"")
    assert "spend = '1 rows': fill the cells" in answer.err


def test_doctor_says_what_is_wrong_and_ends_with_1(upturn: Command, filled: Path) -> None:
    well = upturn("doctor", "--format", "json")
    assert well.code == 0
    assert all(check["ok"] == "ok" for check in json.loads(well.out))
    upturn("results", shop.KEY)
    next((filled / "store" / "lake").rglob("*.parquet")).unlink()
    ill = upturn("doctor")
    assert ill.code == 1
    assert "PROBLEM" in ill.text
    assert "1 missing" in ill.text


def test_doctor_of_no_store_says_how_to_make_it(upturn: Command) -> None:
    answer = upturn("doctor")
    assert answer.code == 1
    assert "run `upturn migrate`" in answer.text


def test_the_installed_program_ends_as_told(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("upturn")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPTURN_")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    version = run("--version")
    assert (version.returncode, version.stdout.split()[-1]) == (0, reports.program_version())
    wrong, absent = (
        run("analyze", "nowhere.csv", "--variant", "v", "--control", "c", "--metric", "m=mean:x"),
        run("key", "list"),
    )
    assert (wrong.returncode, absent.returncode) == (2, 1)
    assert (wrong.stdout, absent.stdout) == ("", "")


def test_the_programme_is_a_table_or_json(upturn: Command, filled: Path) -> None:
    upturn("results", shop.KEY)
    shown = upturn("programme")
    assert shown.code == 0
    assert "worth a month: not known (nothing_shipped)" in shown.text
    answer = json.loads(upturn("programme", "--from", "2020-01-01", "--format", "json").out)
    assert answer["schema"] == "upturn.programme/1"
    assert [line["experiment"] for line in answer["experiments"]] == [shop.KEY]
    assert shop.KEY in upturn("programme", "--from", "2020-01-01").text
    assert upturn("programme", "--from", "yesterday").code == 2
    assert upturn("programme", "--holdout", "away").code == 2
