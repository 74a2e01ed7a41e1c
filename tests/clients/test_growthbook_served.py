"""The SDKs of GrowthBook, unmodified, with a served instance: Python and Node."""

import json
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from growthbook import GrowthBook, feature_repo
from segment.analytics.client import Client as Segment

from tests.clients import shop
from tests.clients.served import Served, until


def person(number: int) -> dict[str, Any]:
    """A user's attributes, all of them: this client knows nothing of what the server has on record."""
    return {"id": shop.user(number), **shop.attributes(number)}


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """The Python SDK keeps what it read for a minute, for all clients of a process."""
    feature_repo.clear_cache()


def check(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for number, (answers, right) in enumerate(zip(found, expected, strict=True)):
        for flag, (variant, value) in answers.items():
            assert variant == (right[flag]["variant"] if right[flag]["reason"] != "forced" else variant)
            given = right[flag]["variant"] is not None
            assert value == (shop.value_of(flag, right[flag]) if given else None), (flag, number)


def test_python_gives_the_variants_of_the_assignments(served: Served, expected: list[dict[str, Any]]) -> None:
    client = GrowthBook(api_host=served.url, client_key=served.keys["app"])
    client.load_features()
    found = []
    for number in range(len(expected)):
        client.set_attributes(person(number))
        answers = {flag: client.eval_feature(flag) for flag in shop.flags_of(number)}
        found.append(
            {
                flag: (
                    answer.experimentResult.key if answer.source == "experiment" and answer.experimentResult else None,
                    answer.value,
                )
                for flag, answer in answers.items()
            }
        )
    client.destroy()
    check(found, expected)


def started(served: Served, folder: Path, **given: Any) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        ["node", str(folder / "growthbook_served.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    keys = {"url": served.url, "key": served.keys["app"], "writeKey": served.keys["write"]}
    process.stdin.write(json.dumps(keys | {"track": [], "users": [], "flags": []} | given))
    process.stdin.close()
    return process


def line(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    assert process.stderr is not None
    if not select.select([process.stdout], [], [], 30)[0]:
        process.kill()
    told = process.stdout.readline()
    return json.loads(told) if told else pytest.fail(process.stderr.read())


def test_node_gives_the_variants_of_the_assignments(
    served: Served, node_clients: Path, expected: list[dict[str, Any]]
) -> None:
    users = [person(number) for number in range(len(expected))]
    with started(served, node_clients, users=users, flags=shop.RUNNING) as process:
        check(line(process), expected)


def test_node_hears_of_a_change(served: Served, node_clients: Path) -> None:
    served.create("experiments", shop.experiment("breaking"))
    with started(served, node_clients, users=[person(3)], flags=["breaking"], awaited="breaking") as process:
        assert line(process) == [{"breaking": [None, None]}]
        begun = time.monotonic()
        served.move("breaking", "running")
        assert line(process) in ("a", "b")
    took = time.monotonic() - begun
    print(f"the change reached the client after {took:.2f} s")
    assert took < 15


def test_what_node_tracks_is_an_exposure(served: Served, node_clients: Path) -> None:
    exposed = shop.experiment("exposed", strata=[{"segment": "gold"}, {"segment": "silver"}])
    served.create("experiments", exposed)
    served.move("exposed", "running")
    users = [person(number) for number in range(30)]
    with started(served, node_clients, users=users, flags=["exposed"], track=["exposed"]) as process:
        found = line(process)
        assert process.wait(60) == 0
    rows = served.rows("kind = 'exposure' AND name = 'exposed'")
    assert {(row.user_id, row.variant) for row in rows} == {
        (user["id"], answer["exposed"][0])
        for user, answer in zip(users, found, strict=True)
        if answer["exposed"][0] is not None
    }
    assert {(row.user_id, row.stratum) for row in rows} == {
        (user["id"], user["tier"]) for user in users if user["tier"] != "new"
    }


def test_what_python_tracks_is_an_exposure(served: Served) -> None:
    served.create("experiments", shop.experiment("watched"))
    served.move("watched", "running")
    analytics = Segment(served.keys["write"], host=served.url, gzip=True)

    def viewed(experiment: Any, result: Any, user_context: Any) -> None:
        told = {"experiment_id": experiment.key, "variation_id": result.key}
        analytics.track(result.hashValue, "Experiment Viewed", told)

    client = GrowthBook(api_host=served.url, client_key=served.keys["app"], on_experiment_viewed=viewed)
    client.load_features()
    found = set()
    for number in range(30):
        client.set_attributes(person(number))
        found.add((shop.user(number), client.get_feature_value("watched", "none")))
    client.destroy()
    analytics.flush()
    analytics.join()
    rows = until(lambda: served.rows("kind = 'exposure' AND name = 'watched'"))
    assert {(row.user_id, row.variant) for row in rows} == found
