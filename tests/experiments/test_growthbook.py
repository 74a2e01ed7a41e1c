"""The GrowthBook payload: unmodified GrowthBook SDKs give our assignments, and read its conditions as we do."""

import json
import random
import re
import subprocess
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from growthbook import GrowthBook
from growthbook.core import evalCondition
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.growthbook import LONGEST_LIST, payload
from experiments.ingest import Exposure
from experiments.sdk import Evaluator, compile_condition
from tests.clients import node
from tests.experiments.sdk.test_conditions import conditions, groups, values

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"
ASSIGNMENT = json.loads((CASES / "assignment.json").read_text("utf-8"))
RUNNING = {"revision": 1, "phase": 2, "status": "running", "control": "none"}
TWO = [{"key": "none"}, {"key": "coupon", "tactic": {"copy": "满100减10", "offer": {"amount_minor": 1000}}}]
MANY = [f"user-{i}" for i in range(0, 10_000, 2)]


def experiment(key, **fields):
    return {**RUNNING, "key": key, "salt": f"{key}:1", "variants": TWO, **fields}


SNAPSHOT = {
    "layers": [{"key": "email", "salt": "email"}],
    "holdouts": [
        {"key": "global", "salt": "global", "share": 0.1},
        {"key": "nobody", "salt": "nobody", "share": 0},
        {"key": "all", "salt": "all", "share": 1},
    ],
    "segments": [
        {"key": "vip", "condition": {"tier": {"$in": ["gold", "platinum"]}}},
        {"key": "young", "condition": {"age": {"$lt": 30}}},
        {"key": "shanghai", "condition": {"city": "上海"}},
        {"key": "rest", "condition": {}},
    ],
    "saved_groups": {"staff": MANY, "fans": ["a", "b", 3]},
    "experiments": [
        experiment("plain"),
        experiment(
            "three arms",
            variants=[{"key": "none", "value": 0.5}, {"key": "十元", "value": 10}, {"key": "c", "value": 20}],
            weights={"none": 0.2, "十元": 0.3, "c": 0.5},
        ),
        experiment("part", coverage=0.37, weights={"none": 0.07, "coupon": 0.93}),
        experiment(
            "strata",
            strata=[
                {"segment": "vip", "weights": {"none": 0.9, "coupon": 0.1}, "coverage": 0.5},
                {"segment": "young", "coverage": 0.8},
                {"segment": "shanghai", "weights": {"none": 0.25, "coupon": 0.75}},
                {"segment": "rest", "coverage": 0.1},
            ],
        ),
        experiment(
            "audience",
            audience={
                "$or": [
                    {"city": {"$in": ["上海", "北京"]}, "age": {"$gte": 18}},
                    {"$and": [{"tags": {"$elemMatch": {"$regex": "^新"}}}, {"$not": {"vip": True}}]},
                    {"home": {"city": "上海"}},
                    {"version": {"$vgte": "1.10.0", "$vne": "1.10.1"}},
                ]
            },
        ),
        experiment("held", holdouts=["global", "nobody"]),
        experiment("held by all", holdouts=["all"]),
        experiment("subject", layer={"key": "email", "start": 0, "end": 0.5}),
        experiment("hour", layer={"key": "email", "start": 0.5, "end": 1}, audience={"age": {"$lt": 60}}),
        experiment(
            "forced",
            forced={user: ("none", "coupon")[i % 2] for i, user in enumerate(MANY[:400])} | {"用户7": "coupon"},
            audience={"id": {"$nin": MANY}},
            holdouts=["global"],
            coverage=0.5,
        ),
        experiment("staff", audience={"id": {"$inGroup": "staff"}}),
        experiment("not staff", audience={"id": {"$notInGroup": "staff"}, "tags": {"$notInGroup": "unknown"}}),
        experiment("tags", audience={"tags": {"$all": ["新客", {"$ini": ["VIP"]}]}}),
        experiment("missing", audience={"age": {"$lte": 40, "$ne": 5}, "tier": {"$not": {"$eq": "gold"}}}),
        experiment("one arm", variants=[{"key": "none", "value": "甲"}], coverage=0.5),
        experiment("paused", status="paused", forced={"user-1": "coupon"}),
    ],
}
EVALUATOR = Evaluator(SNAPSHOT)
PAYLOAD = json.loads(json.dumps(payload(EVALUATOR)))


def users(count=10_000):
    """Users with ids of several scripts, whose attributes are at times missing or of another type."""
    rng = random.Random(7)
    forms = ("user-{}", "user-{}", "user-{}", "用户{}", "josé-{}", "👩‍🚀{}😀", "İ{}ß")
    choices = {
        "city": ["上海", "北京", "Paris", None, ["上海"]],
        "tier": ["gold", "platinum", "silver", None, 1],
        "age": [5, 17, 18, 29.5, 30, 61, "25", None, True],
        "tags": [["新客", "vip"], ["新客"], ["VIP", "老客"], [], ["a", 3, None], "新客", None],
        "vip": [True, False, 1, "true"],
        "home": [{"city": "上海"}, {"city": "上海", "zip": 1}, {}, None],
        "version": ["1.9.0", "1.10.0", "1.10.1", "2.0.0-rc.1", 2, ""],
    }
    return [
        {"id": forms[i % len(forms)].format(i)}
        | {name: rng.choice(options) for name, options in choices.items() if rng.random() < 0.7}
        for i in range(count)
    ]


USERS = users()


@pytest.fixture(scope="module")
def expected():
    """Our answers: the variant and value of every running experiment, for every user."""
    compiled = [EVALUATOR.experiments[key] for key in PAYLOAD["features"]]
    answers = [[one.assign(user["id"], user) for one in compiled] for user in USERS]
    return [[[answer.variant, answer.value] for answer in row] for row in answers]


def asked_in_python(written, people):
    client = GrowthBook(features=written["features"], saved_groups=written["savedGroups"])
    rows = []
    for attributes in people:
        client.set_attributes(dict(attributes))  # closing clears it
        results = [client.eval_feature(key) for key in written["features"]]
        rows.append([[one.experimentResult.key if one.source == "experiment" else None, one.value] for one in results])
    client.destroy()
    return rows


def asked_in_javascript(folder, written, people):
    return node.run(folder, "growthbook.js", {"payload": written, "users": people})["users"]


def differences(found, wanted, people, keys):
    return [
        (person, key, one, other)
        for person, row, other_row in zip(people, found, wanted, strict=True)
        for key, one, other in zip(keys, row, other_row, strict=True)
        if one != other
    ][:5]


def test_the_users_meet_every_answer(expected):
    keys = list(PAYLOAD["features"])
    for i, key in enumerate(keys):
        counts = {variant: sum(row[i][0] == variant for row in expected) for variant in ("none", None)}
        if key != "held by all":
            assert counts["none"] > 100, key
        if key not in ("plain", "three arms"):
            assert counts[None] > 100, key


def test_the_python_client_gives_our_assignments(expected):
    assert differences(asked_in_python(PAYLOAD, USERS), expected, USERS, PAYLOAD["features"]) == []


def test_the_javascript_client_gives_our_assignments(expected, node_clients):
    found = asked_in_javascript(node_clients, PAYLOAD, USERS)
    assert differences(found, expected, USERS, PAYLOAD["features"]) == []


NO_IDS = [{}, {"id": None}, {"id": ""}, {"id": 5}, {"id": True}, {"id": ["user-1"]}, {"id": {"a": 1}}]


def test_who_has_no_id_is_enrolled_nowhere(node_clients):
    nowhere = [[[None, None]] * len(PAYLOAD["features"])] * len(NO_IDS)
    assert asked_in_python(PAYLOAD, NO_IDS) == nowhere
    assert asked_in_javascript(node_clients, PAYLOAD, NO_IDS) == nowhere


def test_the_clients_give_the_conformance_cases(node_clients):
    written = payload(Evaluator(ASSIGNMENT["snapshot"]))
    cases = [
        case
        for case in ASSIGNMENT["cases"]
        if "stored" not in case and case["reason"] not in ("not_running", "unknown_experiment")
    ]
    people = [case.get("attributes", {}) | {"id": case["user"]} for case in cases]
    wanted = [case["variant"] for case in cases]
    assert len(cases) > 40
    for rows in (asked_in_python(written, people), asked_in_javascript(node_clients, written, people)):
        answers = [dict(zip(written["features"], row, strict=True)) for row in rows]
        assert [row[case["experiment"]][0] for row, case in zip(answers, cases, strict=True)] == wanted


def test_only_running_experiments_are_in_the_payload():
    assert "paused" not in PAYLOAD["features"]
    assert set(PAYLOAD["features"]) == {key for key, one in EVALUATOR.experiments.items() if one.running}
    assert all(feature["defaultValue"] is None for feature in PAYLOAD["features"].values())


def test_ranges_are_explicit_and_weights_absent():
    rules = [rule for feature in PAYLOAD["features"].values() for rule in feature["rules"]]
    assert all(rule["hashVersion"] == 2 and rule["hashAttribute"] == "id" for rule in rules)
    assert not any({"weights", "coverage"} & rule.keys() for rule in rules)
    (rule,) = PAYLOAD["features"]["part"]["rules"]
    assert rule["ranges"] == [[0, 0.0259], [0.07, 0.4141]]
    assert (rule["key"], rule["phase"], rule["seed"]) == ("part", "2", "part:1")
    assert rule["meta"] == [{"key": "none"}, {"key": "coupon"}]


def test_long_lists_become_saved_groups_and_equal_ones_are_shared():
    def written(condition, **more):
        snapshot = {"experiments": [experiment("x", audience=condition)], **more}
        found = payload(Evaluator(snapshot))
        return found["features"]["x"]["rules"][0]["condition"], found["savedGroups"]

    short, long = list(range(LONGEST_LIST)), list(range(LONGEST_LIST + 1))
    condition, saved = written({"a": {"$in": short}, "b": {"$in": [*long, True]}, "c": {"$in": [*long, None]}})
    assert saved == {}
    condition, saved = written({"a": {"$in": long}, "b": {"$elemMatch": {"$nin": list(long)}}})
    (name,) = saved
    assert saved[name] == long
    assert condition == {
        "id": {"$type": "string"},
        "a": {"$inGroup": name},
        "b": {"$elemMatch": {"$notInGroup": name}},
    }
    _, saved = written({"a": {"$inGroup": "fans", "$notInGroup": "gone"}}, saved_groups={"fans": ["x"], "other": [1]})
    assert saved == {"fans": ["x"], "gone": []}
    forced = PAYLOAD["features"]["forced"]["rules"]
    assert [list(rule["condition"]["id"]) for rule in forced[:2]] == [["$inGroup"], ["$inGroup"]]
    assert sorted(map(len, PAYLOAD["savedGroups"].values())) == [0, 200, 201, 5000, 5000]


def test_the_moment_of_the_change_is_utc():
    moment = datetime.fromisoformat("2026-03-02T16:30:00+08:00")
    assert payload(EVALUATOR, updated=moment)["dateUpdated"] == "2026-03-02T08:30:00.000Z"
    assert payload(EVALUATOR, updated=moment.astimezone(UTC)) == payload(EVALUATOR, updated=moment)
    assert "dateUpdated" not in payload(EVALUATOR)


# Conditions.


def as_written(condition, saved_groups):
    """The condition of a payload, and its saved groups."""
    snapshot = {"experiments": [experiment("x", audience={"$and": [condition]})], "saved_groups": saved_groups}
    found = payload(Evaluator(snapshot))
    return found["features"]["x"]["rules"][0]["condition"]["$and"][0], found["savedGroups"]


def check_everywhere(folder, asked):
    """Check that we, Python and JavaScript give the wanted answers, and return those of JavaScript to the originals."""
    written = []
    for attributes, condition, saved_groups, wanted in asked:
        plain, used = as_written(condition, saved_groups)
        assert compile_condition(plain, used)(attributes) is wanted, (condition, attributes)
        assert evalCondition(attributes, plain, used) is wanted, (condition, attributes)
        written.append((attributes, plain, used))
    originals = [row[:3] for row in asked]
    found = node.run(folder, "growthbook.js", {"conditions": [*written, *originals]})["conditions"]
    wrong = [row for row, answer in zip(asked, found, strict=False) if answer is not row[3]]
    assert wrong == []
    return found[len(asked) :]


def test_conformance_conditions_are_read_alike(node_clients):
    ours = json.loads((CASES / "conditions.json").read_text("utf-8"))["cases"]
    theirs = json.loads((CASES / "growthbook.json").read_text("utf-8"))
    cases = [*ours, *theirs["conditions"], *theirs["superseded"]]
    asked = [
        (case["attributes"], case["condition"], case.get("saved_groups", {}), case["expected"])
        for case in cases
        if "id" not in case["attributes"] or isinstance(case["attributes"]["id"], str)
    ]
    assert len(asked) > 350
    check_everywhere(node_clients, asked)


def test_random_conditions_are_read_alike(node_clients):
    asked = []

    @settings(max_examples=700)
    @given(conditions, st.dictionaries(st.sampled_from(["a", "b"]), values))
    def collect(condition, attributes):
        asked.append((attributes, condition, groups, compile_condition(condition, groups)(attributes)))

    collect()
    assert min(sum(row[3] for row in asked), sum(not row[3] for row in asked)) > 150
    originals = check_everywhere(node_clients, asked)
    # Without the types the JavaScript SDK would often have answered otherwise.
    assert sum(one is not row[3] for one, row in zip(originals, asked, strict=True)) > 20


CONVERTED = [
    ({"age": {"$lt": 30}}, {}),
    ({"age": {"$gte": 18}}, {"age": "25"}),
    ({"age": 5}, {"age": "5"}),
    ({"n": 0}, {}),
    ({"vip": True}, {"vip": 1}),
    ({"city": "上海"}, {"city": ["上海"]}),
    ({"name": {"$regex": "null"}}, {}),
    ({"version": {"$vlt": "1.0.0"}}, {}),
    ({"tags": {"$alli": ["5"]}}, {"tags": [5]}),
]


@pytest.mark.parametrize(("condition", "attributes"), CONVERTED)
def test_types_that_javascript_converts_are_asked_for(node_clients, condition, attributes):
    (original,) = check_everywhere(node_clients, [(attributes, condition, {}, False)])
    assert original is True


UNKNOWN = [
    ({"name": {"$notRegex": "^a"}}, {"name": "b"}),
    ({"name": {"$notRegexi": "^a", "$notRegex": "c"}}, {}),
    ({"tags": {"$elemMatch": {"$or": [{"n": 1}, {"n": 2}]}}}, {"tags": [{"n": 2}]}),
    ({"tags": {"$elemMatch": {"$notRegex": "^a"}}}, {"tags": ["b"]}),
    ({"a": {}}, {"a": 1}),
]


@pytest.mark.parametrize(("condition", "attributes"), UNKNOWN)
def test_what_javascript_does_not_know_is_said_otherwise(node_clients, condition, attributes):
    (original,) = check_everywhere(node_clients, [(attributes, condition, {}, True)])
    assert original is False


# What docs/growthbook.md says.

PAGE = (ROOT / "docs" / "growthbook.md").read_text("utf-8")
DIALECTS = [
    (r"\w", r"^\w+$", "上海"),
    (r"\d", r"^\d$", "٣"),
    (r"\b", r"京\b", "北京 "),
    ("`.`", "^.$", "😀"),
    ("`$`", "^a$", "a\n"),
    (r"\A", r"\Aa", "a"),
    (r"\Z", r"a\Z", "a"),
    ("(?P<name>…)", "(?P<first>a)", "a"),
    ("(?i)", "(?i)A", "a"),
]


@pytest.mark.parametrize(("name", "pattern", "text"), DIALECTS)
def test_patterns_that_javascript_reads_otherwise_are_on_the_page(node_clients, name, pattern, text):
    condition, _ = as_written({"a": {"$regex": pattern}}, {})
    asked = [({"a": text}, condition, {})]
    assert compile_condition(condition)({"a": text}) is evalCondition({"a": text}, condition) is True
    assert node.run(node_clients, "growthbook.js", {"conditions": asked})["conditions"] == [False]
    assert name in PAGE


def test_two_negations_of_one_element_are_on_the_page(node_clients):
    written = {"a": {"$elemMatch": {"$notRegex": "^x", "$not": {"$regex": "y$"}}}}
    condition, _ = as_written(written, {})
    assert condition == written
    assert compile_condition(condition)({"a": ["z"]}) is evalCondition({"a": ["z"]}, condition) is True
    assert node.run(node_clients, "growthbook.js", {"conditions": [({"a": ["z"]}, condition, {})]})["conditions"] == [
        False
    ]
    assert "two negations of one element" in PAGE


def test_names_that_every_javascript_object_has_are_on_the_page(node_clients):
    condition, _ = as_written({"constructor": {"$exists": False}}, {})
    assert compile_condition(condition)({}) is evalCondition({}, condition) is True
    assert node.run(node_clients, "growthbook.js", {"conditions": [({}, condition, {})]})["conditions"] == [False]
    assert "`constructor`" in PAGE


@pytest.fixture
def served(monkeypatch):
    """A server of the payload and the events, as the page's examples ask them; what was sent to it."""
    tactics = [{"key": "none", "tactic": {}}, {"key": "ten", "tactic": {"copy": "回来减十元"}}]
    recall = experiment("recall", variants=tactics, control="none", forced={"user-1": "ten"})
    features = json.dumps(payload(Evaluator({"experiments": [recall]}))).encode()
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            assert self.path == "/api/features/upk_app"
            self.answer(features)

        def do_POST(self):
            assert (self.path, self.headers["Authorization"]) == ("/v1/events", "Bearer upk_app")
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("UPTURN_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("UPTURN_KEY", "upk_app")
        yield sent
        server.shutdown()
        thread.join()


def check_exposure(sent):
    (body,) = sent
    (item,) = json.loads(body)["batch"]
    (exposure,) = msgspec.json.decode(body, type=dict[str, list[Exposure]])["batch"]
    assert exposure.variant == "ten"
    assert item == {
        "type": "exposure",
        "messageId": "recall:2:user-1",
        "userId": "user-1",
        "experiment": "recall",
        "variant": "ten",
        "phase": 2,
        "attributes": {"id": "user-1", "city": "上海"},
    }


def test_the_python_example_runs(served, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/growthbook.md", "exec"), {})
    assert capsys.readouterr().out == "回来减十元\n"
    check_exposure(served)


def test_the_javascript_example_runs(served, node_clients):
    (example,) = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    command = ["node", "--input-type=module", "-"]
    done = subprocess.run(command, input=example, cwd=node_clients, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("回来减十元\n", 0), done.stderr
    check_exposure(served)
