"""Lists scored by a study's model over HTTP: scored, decided within limits, written, served by a policy, made anew."""

import csv
import io
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import jsonschema
import msgspec
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from experiments import ingest
from experiments.access import Scope
from experiments.store import Store
from experiments.tables import InboxRow, SavedStudy, UserAttributes
from experiments.uplift import lists, model, studies
from experiments.uplift.job import Work
from experiments.uplift.list_job import ListWork
from experiments.uplift.studies import StudyRequest
from tests.experiments.uplift import campaign
from tests.web import made
from tests.web.conftest import Api, Clock

COUNT = 1600
QUICK = StudyRequest(learners=["t"], folds=3)
POLICY = f"/v1/policies/{campaign.KEY}"


def ok(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.json
    return answer.json


@pytest.fixture
def study(store: Store, clock: Clock) -> str:
    """A finished study of the campaign, all features in it."""
    campaign.documents(store, made.NOW)
    campaign.send(store, made.NOW, COUNT)
    clock.forward(days=campaign.DAYS)
    entry, _ = studies.ask(store, campaign.KEY, QUICK, now=clock())
    Work(store, entry.id, lambda: 0.0).run()
    return entry.id


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists are not started: their ids instead."""
    asked: list[str] = []
    monkeypatch.setattr(lists, "start", lambda _, name: asked.append(name))
    return asked


def make(api: Api, store: Store, study: str, **wish: Any) -> dict[str, Any]:
    """Ask for a list, and do its work here."""
    entry = ok(api("POST", f"/v1/studies/{study}/list", json=wish), 202)
    ListWork(store, entry["id"], lambda: 0.0).run()
    return ok(api("GET", f"/v1/lists/{entry['id']}"))


def rows(api: Api, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(api("GET", f"/v1/lists/{name}/users.csv").text)))


def identified(store: Store, clock: Clock, people: list[dict[str, Any]], prefix: str = "new") -> None:
    """Put users on record."""
    items: list[tuple[int, ingest.AnyItem]] = [
        (i, ingest.Identify(f"{prefix}{i}", f"{prefix}{i}", traits=msgspec.Raw(msgspec.json.encode(known))))
        for i, known in enumerate(people)
    ]
    with store.write() as session:
        assert not ingest.store(session, store.catalog(session), items, now=clock()).rejected


def decide(api: Api) -> None:
    ok(api("POST", f"/v1/experiments/{campaign.KEY}/status", json={"status": "stopped"}))
    body = {"status": "decided", "decision": {"variant": "gift", "reason": "Some gain by it."}}
    ok(api("POST", f"/v1/experiments/{campaign.KEY}/status", json=body))


def given(api: Api, users: list[str]) -> dict[str, str]:
    found = {}
    for start in range(0, len(users), 1000):
        body = {"users": [{"user": user} for user in users[start : start + 1000]]}
        for each in ok(api("POST", "/v1/assignments", json=body))["users"]:
            found[each["user"]] = each["assignments"][campaign.KEY]["variant"]
    return found


def test_a_list_is_made_in_a_process_of_its_own_and_served(
    study: str, api: Api, store: Store, clock: Clock, keys: dict[Scope, str]
) -> None:
    reader = Api(api.client, keys[Scope.read])
    assert reader("POST", f"/v1/studies/{study}/list").status_code == 403
    answer = api("POST", f"/v1/studies/{study}/list", json={"contacts": 300})
    entry, where = ok(answer, 202), answer.headers["Location"]
    assert (entry["status"], entry["made"], where) == ("queued", None, f"/v1/lists/{entry['id']}")
    deadline = time.monotonic() + 120
    while (entry := ok(reader("GET", where)))["status"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (entry["status"], entry["error"], entry["progress"]) == ("done", None, 1.0)
    found = entry["made"]
    assert (found["users"], found["written"], found["refused"]) == (COUNT, COUNT, 0)
    assert found["variants"] == {"hold": COUNT - 300, "gift": 300}
    assert (found["cost"], found["gap"]) == (pytest.approx(300 * campaign.COST), pytest.approx(0, abs=1e-6))
    assert found["contact_price"] > 0
    # Of those to whom it means most: the city whose users it helps.
    table = pq.read_table(io.BytesIO(reader("GET", f"{where}/users.parquet").data))
    lines = rows(reader, entry["id"])
    assert [line["user"] for line in lines] == table["user"].to_pylist()
    assert table.column_names == ["user", "effect:gift", "variant", "expected"]
    city = {f"u{i}": known.get("city") for i, known in enumerate(campaign.attributes(COUNT))}
    chosen = [line["user"] for line in lines if line["variant"] == "gift"]
    assert sum(city[user] == "north" for user in chosen) > 270
    # In money: what such a choice brought those studied.
    worth = found["worth"]["over_control"]
    truth = 300 / COUNT * (campaign.HELPED * campaign.MARGIN - campaign.COST)
    assert worth["lower"] < truth < worth["upper"]

    assert [each["id"] for each in ok(reader("GET", f"/v1/experiments/{campaign.KEY}/lists"))["items"]] == [entry["id"]]
    assert reader("POST", f"{where}/policy").status_code == 403
    draft = ok(api("POST", f"{where}/policy"), 201)
    assert draft["otherwise"] == "hold"
    assert [rule["variant"] for rule in draft["rules"]] == ["hold", "gift"]
    source = draft["source"]
    assert (source["kind"], source["list_id"], source["users"]) == ("model", entry["id"], COUNT)
    assert source["refresh_by"] > source["scored_at"]
    assert draft["promise"]["value_per_month"]["estimate"] == pytest.approx(1000 * worth["estimate"])
    lift = draft["promise"]["relative"]
    assert lift["lower"] < campaign.HELPED / 36 < lift["upper"]
    decide(api)
    ok(api("PUT", POLICY, json=draft | {"holdback": {"share": 0}}))
    ok(api("POST", f"{POLICY}/status", json={"status": "running"}))
    wanted = {line["user"]: line["variant"] for line in lines}
    assert given(api, list(wanted)) == wanted
    # Of whom nothing is known, he gets what all others get.
    assert given(api, ["stranger"]) == {"stranger": "hold"}
    context = {"context": {"targetingKey": chosen[0]}}
    assert ok(api("POST", f"/ofrep/v1/evaluate/flags/{campaign.KEY}", json=context))["variant"] == "gift"


def test_a_list_made_anew_takes_over_at_once_and_the_way_back_is_kept(
    study: str, api: Api, store: Store, clock: Clock, held: list[str]
) -> None:
    first = make(api, store, study, contacts=200)
    decide(api)
    draft = ok(api("POST", f"/v1/lists/{first['id']}/policy"), 201)
    ok(api("PUT", POLICY, json=draft | {"holdback": {"share": 0}}))
    ok(api("POST", f"{POLICY}/status", json={"status": "running"}))
    before = {line["user"]: line["variant"] for line in rows(api, first["id"])}
    clock.forward(days=30)
    second = make(api, store, study, contacts=500)
    after = {line["user"]: line["variant"] for line in rows(api, second["id"])}
    # Written, and yet not served: nobody sees a mixture.
    assert given(api, list(before)) == before
    assert first["made"]["attribute"] != second["made"]["attribute"]
    policy = ok(api("POST", f"/v1/lists/{second['id']}/policy"))
    assert (policy["status"], policy["phase"]) == ("running", draft["phase"] + 2)
    assert policy["source"]["list_id"] == second["id"]
    assert given(api, list(after)) == after
    # A third one leaves both alone: that served, and that of the way back.
    clock.forward(days=1)
    third = make(api, store, study, contacts=0)
    names = {each["made"]["attribute"] for each in (first, second, third)}
    assert len(names) == 3
    assert given(api, list(after)) == after
    ok(api("POST", f"{POLICY}/rollback", json={"to": "previous"}))
    assert given(api, list(before)) == before
    # The fourth is written over the third, whose rules would find another list's values.
    clock.forward(days=1)
    fourth = make(api, store, study, contacts=100)
    assert fourth["made"]["attribute"] == third["made"]["attribute"]
    refused = api("POST", f"/v1/lists/{third['id']}/policy")
    assert (refused.status_code, refused.json["code"]) == (409, "list_replaced")
    assert given(api, list(before)) == before


def test_a_list_that_is_worked_on_twice_is_written_once(study: str, api: Api, store: Store, held: list[str]) -> None:
    found = make(api, store, study)
    with store.read() as session:
        stored = session.scalar(select(func.count()).select_from(InboxRow).where(InboxRow.kind == "identify"))
    ListWork(store, found["id"], lambda: 0.0).run()
    again = ok(api("GET", f"/v1/lists/{found['id']}"))
    assert (found["made"]["written"], again["made"]["written"]) == (COUNT, 0)
    assert again["made"]["variants"] == found["made"]["variants"]
    with store.read() as session:
        assert session.scalar(select(func.count()).select_from(InboxRow).where(InboxRow.kind == "identify")) == stored


def test_users_on_record_are_scored_as_those_studied_were(
    study: str, api: Api, store: Store, clock: Clock, held: list[str]
) -> None:
    people = campaign.attributes(400, seed=9)
    identified(store, clock, people)
    with store.write() as session:
        event = ingest.Event("e1", "new0", clock() - timedelta(days=1), event="buy", value=12.0)
        ingest.store(session, store.catalog(session), [(0, event)], now=clock())
    found = make(api, store, study, who="users", write=False)
    assert (found["status"], found["error"]) == ("done", None)
    assert (found["made"]["users"], found["made"]["written"]) == (400, 0)
    share, then = found["made"]["missing"]["user.city"]
    assert share == pytest.approx(sum("city" not in known for known in people) / 400)
    assert 0 < then < 0.1
    got = {line["user"]: line["variant"] for line in rows(api, found["id"])}
    north = [f"new{i}" for i, known in enumerate(people) if known.get("city") == "north"]
    south = [f"new{i}" for i, known in enumerate(people) if known.get("city") == "south"]
    assert sum(got[user] == "gift" for user in north) > 0.9 * len(north)
    assert sum(got[user] == "gift" for user in south) < 0.1 * len(south)
    refused = api("POST", f"/v1/lists/{found['id']}/policy")
    assert (refused.status_code, refused.json["code"]) == (409, "list_not_written")
    clock.forward(seconds=1)
    few = make(api, store, study, who="users", segment="members")
    assert few["made"]["users"] == sum(known["member"] for known in people)
    clock.forward(seconds=1)
    young = make(api, store, study, who="users", audience={"age": {"$lt": 30}})
    assert young["made"]["users"] == sum(known["age"] < 30 for known in people)


def test_limits_are_kept_and_who_may_not_be_touched_is_not(
    study: str, api: Api, store: Store, clock: Clock, held: list[str]
) -> None:
    people = [known | {"pushes": i % 5} for i, known in enumerate(campaign.attributes(500, seed=4))]
    identified(store, clock, people)
    free = make(api, store, study, who="users", write=False)["made"]
    clock.forward(seconds=1)
    found = make(api, store, study, who="users", stock={"gift": 40}, allowed={"gift": {"pushes": {"$lt": 3}}})
    assert found["made"]["variants"]["gift"] == 40 < free["variants"]["gift"]
    assert found["made"]["stock_prices"]["gift"] > 0
    assert found["made"]["worth"] is None
    got = [line["user"] for line in rows(api, found["id"]) if line["variant"] == "gift"]
    assert all(people[int(user.removeprefix("new"))]["pushes"] < 3 for user in got)
    clock.forward(seconds=1)
    spent = make(api, store, study, who="users", budget=5.1, write=False)["made"]
    assert (spent["variants"]["gift"], spent["cost"]) == (25, pytest.approx(5.0))
    assert ok(api("POST", f"/v1/lists/{found['id']}/policy"), 201)["promise"] is None


def test_nobody_to_score_and_a_feature_of_another_name_are_said(
    study: str, api: Api, store: Store, clock: Clock, held: list[str]
) -> None:
    found = make(api, store, study, who="users")
    assert (found["status"], found["error"]["problems"]) == ("failed", [{"field": "who", "problem": "nobody"}])
    identified(store, clock, [{"town": "north", "age": 30, "member": True, "tags": []}] * 3)
    clock.forward(seconds=1)
    found = make(api, store, study, who="users")
    assert found["error"]["problems"] == [{"field": "user.city", "problem": "missing_feature"}]
    with store.read() as session:
        texts = session.scalars(select(UserAttributes.attributes)).all()
    assert not any("upturn_" in text for text in texts)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"stock": {"hold": 3}}, "stock.hold"),
        ({"allowed": {"call": {}}}, "allowed.call"),
        ({"allowed": {"gift": {"$x": 1}}}, "allowed.gift"),
        ({"segment": "members"}, "segment"),
        ({"who": "users", "segment": "members", "audience": {"age": 3}}, "audience"),
        ({"who": "file"}, "who"),
        ({"budget": 0}, "budget"),
        ({"many": 1}, "many"),
    ],
)
def test_bad_wishes_are_refused_at_once(
    study: str, api: Api, wish: dict[str, Any], field: str, held: list[str]
) -> None:
    refused = api("POST", f"/v1/studies/{study}/list", json=wish)
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, field)
    assert held == []


def test_one_at_a_time_and_what_is_not_there(study: str, api: Api, store: Store, clock: Clock, held: list[str]) -> None:
    path = f"/v1/studies/{study}/list"
    first = ok(api("POST", path), 202)
    assert ok(api("POST", path), 202)["id"] == first["id"]
    assert held == [first["id"]]
    other = api("POST", path, json={"contacts": 3})
    assert (other.status_code, other.json["code"]) == (409, "list_running")
    for part in ("/users.csv", "/users.parquet"):
        assert api("GET", f"/v1/lists/{first['id']}{part}").json["code"] == "list_not_done"
    assert api("POST", f"/v1/lists/{first['id']}/policy").json["code"] == "list_not_done"
    clock.forward(minutes=3)
    dead = ok(api("GET", f"/v1/lists/{first['id']}"))
    assert (dead["status"], dead["error"]["code"]) == ("failed", "process_died")
    described = api.client.get("/openapi.json").json
    assert described is not None
    jsonschema.validate(dead, {"$ref": "#/components/schemas/ListEntry", "components": described["components"]})
    assert ok(api("POST", path, json={"contacts": 3}), 202)["id"] != first["id"]
    for missing in ("/v1/lists/x", "/v1/lists/x/users.csv", "/v1/experiments/x/lists"):
        assert api("GET", missing).status_code == 404
    assert api("POST", "/v1/studies/x/list").status_code == 404
    path_of_model = model.path(store.settings, study)
    path_of_model.unlink()
    clock.forward(minutes=3)
    assert api("POST", path).json["code"] == "no_model"
    path_of_model.write_bytes(b'{"older": true}\n')
    assert api("POST", path).json["code"] == "model_outdated"


def test_a_study_of_noise_gives_no_list(api: Api, store: Store, clock: Clock, held: list[str], study: str) -> None:
    with store.write() as session:
        row = session.get_one(SavedStudy, study)
        assert row.body is not None
        row.body = row.body.replace('"usable":true', '"usable":false')
    assert api("POST", f"/v1/studies/{study}/list").json["code"] == "not_usable"


def test_the_server_that_hands_out_lists_never_loads_what_learns(study: str, store: Store, clock: Clock) -> None:
    code = f"""
import sys
from datetime import datetime
from experiments import access
from experiments.settings import Settings
from experiments.store import Store
from experiments.uplift import lists
from web import create_app
lists.start = lambda *_: None
store = Store.open(Settings.in_folder({str(store.settings.folder)!r}, database_url={store.settings.database_url!r}))
with store.write() as session:
    key = access.create_key(session, "k", ["admin", "read"], now=datetime.fromisoformat("2024-01-01T00:00:00+00:00"))
client = create_app(store=store).test_client()
head = {{"Authorization": "Bearer " + key}}
made = client.post("/v1/studies/{study}/list", headers=head)
assert made.status_code == 202, made.json
assert client.get(made.headers["Location"], headers=head).status_code == 200
assert client.post(made.headers["Location"] + "/policy", headers=head).json["code"] == "list_not_done"
assert len(client.get("/v1/studies/{study}/scores.csv", headers=head).text.splitlines()) == {COUNT + 1}
print(sorted({{"causalml", "sklearn", "lightgbm", "pandas"}} & set(sys.modules)))
store.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
