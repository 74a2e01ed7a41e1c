"""Studies of uplift over HTTP: a process of their own learns, and a policy serves what its tree says."""

import csv
import io
import json
import subprocess
import sys
import time
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
from sqlalchemy import update

from experiments.access import Scope
from experiments.store import Store
from experiments.tables import SavedStudy
from experiments.uplift import report, studies
from experiments.uplift.job import Work
from tests.experiments.uplift import campaign
from tests.web import made
from tests.web.conftest import Api, Clock

PATH = f"/v1/experiments/{campaign.KEY}/uplift"
QUICK = {"learners": ["t"], "folds": 3}
COUNT = 2000


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.json
    return answer.json


@pytest.fixture
def gift(store: Store, clock: Clock) -> None:
    """The campaign, its users matured."""
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, COUNT)
    clock.forward(days=campaign.DAYS)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Studies are not started: their ids instead."""
    asked: list[str] = []
    monkeypatch.setattr(studies, "start", lambda _, study: asked.append(study))
    return asked


def worked(store: Store, study: str) -> None:
    """Do the work of a study here."""
    Work(store, study, lambda: 0.0).run()


def test_a_study_becomes_a_policy_that_serves_what_its_tree_says(
    gift: None, api: Api, store: Store, keys: dict[Scope, str]
) -> None:
    answer = api("POST", PATH, json=QUICK | {"features": "attributes"})
    study = ok(answer, 202)
    where = answer.headers["Location"]
    assert where == f"/v1/studies/{study['id']}"
    assert (study["status"], study["report"]) == ("queued", None)
    assert api("GET", f"{where}/scores.csv").json["code"] == "study_not_done"
    deadline = time.monotonic() + 120
    while (study := ok(api("GET", where)))["status"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (study["status"], study["progress"], study["error"]) == ("done", 1.0, None), study["error"]
    said = report.decode(json.dumps(study["report"]))
    assert (said.users, said.verdict, said.outcome) == (COUNT, "target", "spend")
    assert {"feature": "user.card", "problem": "too_many"} in study["notes"]["left_out"]

    reader = Api(api.client, keys[Scope.read])
    (entry,) = ok(reader("GET", PATH))["items"]
    assert (entry["id"], "report" in entry) == (study["id"], False)
    table = pq.read_table(io.BytesIO(reader("GET", f"{where}/scores.parquet").data))
    lines = list(csv.DictReader(io.StringIO(reader("GET", f"{where}/scores.csv").text)))
    assert [line["user"] for line in lines] == table["user"].to_pylist()
    assert table.column_names == ["user", "effect:gift", "model", "rules"]
    assert reader("POST", f"{where}/policy").status_code == 403

    draft = ok(api("POST", f"{where}/policy"), 201)
    source = {name: value for name, value in draft["source"].items() if value is not None}
    assert source == {"kind": "tree", "experiment": campaign.KEY, "report": study["id"]}
    gain = next(each for each in said.policies if each.policy == "tree")
    treated = gain.shares["gift"]
    assert draft["promise"]["value_per_month"]["estimate"] == pytest.approx(1000 * gain.over_control.estimate)
    lift = (gain.over_control.estimate + treated * campaign.COST) / treated / campaign.MARGIN
    relative = draft["promise"]["relative"]
    assert relative["estimate"] == pytest.approx(lift / study["notes"]["baseline"])
    assert relative["lower"] < campaign.HELPED / 36 < relative["upper"]
    assert draft["value"]["monthly_users"] == round(1000 * treated)

    key = f"/v1/policies/{campaign.KEY}"
    ok(api("PUT", key, json=draft | {"holdback": {"share": 0}}))
    assert api("POST", f"{key}/status", json={"status": "running"}).json["code"] == "experiment_open"
    experiment = f"/v1/experiments/{campaign.KEY}/status"
    ok(api("POST", experiment, json={"status": "stopped"}))
    decision = {"variant": "gift", "reason": "Some gain by it."}
    ok(api("POST", experiment, json={"status": "decided", "decision": decision}))
    ok(api("POST", f"{key}/status", json={"status": "running"}))
    tree = dict(zip(table["user"].to_pylist(), table["rules"].to_pylist(), strict=True))
    assert set(tree.values()) == {"hold", "gift"}
    known = campaign.attributes(COUNT)
    for start in range(0, COUNT, 1000):
        users = [{"user": f"u{i}", "attributes": known[i]} for i in range(start, start + 1000)]
        for given in ok(api("POST", "/v1/assignments", json={"users": users}))["users"]:
            assert given["assignments"][campaign.KEY]["variant"] == tree[given["user"]]


def test_the_same_study_is_made_once_and_one_at_a_time(
    gift: None, api: Api, store: Store, clock: Clock, held: list[str]
) -> None:
    first = ok(api("POST", PATH, json=QUICK), 202)
    assert ok(api("POST", PATH, json=QUICK), 202)["id"] == first["id"]
    other = api("POST", PATH, json=QUICK | {"seed": 2})
    assert (other.status_code, other.json["code"]) == (409, "study_running")
    worked(store, first["id"])
    done = ok(api("POST", PATH, json=QUICK))
    assert (done["id"], done["status"]) == (first["id"], "done")
    assert held == [first["id"]]
    clock.forward(minutes=30)
    assert ok(api("POST", PATH, json=QUICK))["id"] == first["id"]
    second = ok(api("POST", PATH, json=QUICK | {"seed": 2}), 202)
    assert held == [first["id"], second["id"]]
    assert [each["id"] for each in ok(api("GET", PATH))["items"]] == [second["id"], first["id"]]
    worked(store, second["id"])
    event = {"type": "event", "messageId": "new", "userId": "u1", "event": "buy", "value": 3}
    ok(api("POST", "/v1/events", json={"batch": [event]}), 202)
    third = ok(api("POST", PATH, json=QUICK), 202)
    assert third["id"] not in (first["id"], second["id"])
    worked(store, third["id"])
    clock.forward(hours=2)
    assert ok(api("POST", PATH, json=QUICK), 202)["id"] != third["id"]


def test_a_process_that_died_is_noticed_and_the_study_can_be_asked_for_again(
    gift: None, api: Api, store: Store, clock: Clock, held: list[str]
) -> None:
    study = ok(api("POST", PATH), 202)["id"]
    with store.write() as session:
        session.execute(update(SavedStudy).values(status="running", progress=0.3))
    clock.forward(seconds=115)
    assert ok(api("GET", f"/v1/studies/{study}"))["status"] == "running"
    clock.forward(seconds=10)
    dead = ok(api("GET", f"/v1/studies/{study}"))
    assert (dead["status"], dead["error"]["code"]) == ("failed", "process_died")
    again = ok(api("POST", PATH), 202)
    assert (again["id"], again["status"], again["progress"]) == (study, "queued", 0)
    assert held == [study, study]


def test_a_beat_keeps_a_study_alive(gift: None, api: Api, store: Store, clock: Clock, held: list[str]) -> None:
    study = ok(api("POST", PATH), 202)["id"]
    work = Work(store, study, lambda: 100.0)
    work.progress = 0.5
    work._beat()
    clock.forward(seconds=200)
    alive = ok(api("GET", f"/v1/studies/{study}"))
    assert (alive["status"], alive["progress"]) == ("running", 0.5)


def test_a_study_of_too_few_says_so(api: Api, store: Store, clock: Clock, held: list[str]) -> None:
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, 100)
    clock.forward(days=campaign.DAYS)
    study = ok(api("POST", PATH, json=QUICK), 202)["id"]
    worked(store, study)
    failed = ok(api("GET", f"/v1/studies/{study}"))
    assert (failed["status"], failed["error"]["code"], failed["report"]) == ("failed", "invalid_document", None)
    assert "200 users or more of each variant" in failed["error"]["detail"]
    assert api("POST", f"/v1/studies/{study}/policy").json["code"] == "study_not_done"
    assert ok(api("POST", PATH, json=QUICK), 202)["status"] == "queued"


def test_a_fault_is_told_and_not_hidden(
    gift: None, api: Api, store: Store, held: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    study = ok(api("POST", PATH, json=QUICK), 202)["id"]
    monkeypatch.setattr(Work, "_answer", broken)
    with pytest.raises(ZeroDivisionError):
        worked(store, study)
    assert ok(api("GET", f"/v1/studies/{study}"))["error"]["code"] == "internal_error"


def test_rules_that_no_app_can_be_asked_for_are_refused(api: Api, store: Store, clock: Clock, held: list[str]) -> None:
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, COUNT, by="tag")
    clock.forward(days=campaign.DAYS)
    study = ok(api("POST", PATH, json=QUICK), 202)["id"]
    worked(store, study)
    refused = api("POST", f"/v1/studies/{study}/policy")
    assert (refused.status_code, refused.json["code"]) == (409, "not_servable")
    assert "user.tags=vip" in refused.json["detail"]
    limited = ok(api("POST", PATH, json=QUICK | {"features": "attributes"}), 202)["id"]
    worked(store, limited)
    nothing = api("POST", f"/v1/studies/{limited}/policy")
    assert (nothing.status_code, nothing.json["code"]) == (409, "not_usable")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"metric": "nothing"}, "metric"),
        ({"metric": "basket"}, "metric"),
        ({"metric": "left", "budget": 5}, "budget"),
        ({"learners": ["y"]}, "learners.0"),
        ({"depth": 9}, "depth"),
        ({"mode": "x"}, "mode"),
    ],
)
def test_bad_wishes_are_refused_at_once(
    gift: None, api: Api, body: dict[str, Any], field: str, held: list[str]
) -> None:
    refused = api("POST", PATH, json=body)
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, field)
    assert held == []


def test_who_and_what_there_is(gift: None, api: Api, keys: dict[Scope, str], held: list[str]) -> None:
    assert Api(api.client, keys[Scope.read])("POST", PATH).status_code == 403
    for path in ("/v1/studies/x", "/v1/studies/x/scores.csv", "/v1/experiments/x/uplift"):
        assert api("GET", path).status_code == 404
    assert api("POST", "/v1/experiments/x/uplift").status_code == 404


def test_the_study_is_as_described(gift: None, api: Api, store: Store, held: list[str]) -> None:
    study = ok(api("POST", PATH, json=QUICK), 202)
    worked(store, study["id"])
    described = api.client.get("/openapi.json").json
    assert described is not None
    for body in (study, ok(api("GET", f"/v1/studies/{study['id']}"))):
        jsonschema.validate(body, {"$ref": "#/components/schemas/Study", "components": described["components"]})


def test_the_server_never_loads_what_learns() -> None:
    code = """
import sys, tempfile
from experiments.settings import Settings
from experiments.store import Store
from web import create_app
with tempfile.TemporaryDirectory() as folder:
    store = Store.open(Settings.in_folder(folder), migrate=True)
    client = create_app(store=store).test_client()
    assert client.get("/openapi.json").status_code == 200
    assert client.post("/v1/experiments/x/uplift").status_code == 401
    store.close()
print(sorted({"causalml", "sklearn", "lightgbm", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
