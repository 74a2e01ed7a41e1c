"""Segment's clients, unmodified: every kind of call ends in the inbox as it should, once."""

import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from segment.analytics.client import Client

from tests.clients import node, shop
from tests.clients.breaking import Breaking
from tests.clients.served import ROOT, Served

Send = Callable[[str, str, str, int], list[str]]


@pytest.fixture(scope="module")
def seen(served: Served) -> None:
    """An experiment that users see."""
    served.create("experiments", shop.experiment("seen"))
    served.move("seen", "running")


def from_python(url: str, key: str, user: str, more: int) -> list[str]:
    errors: list[str] = []
    client = Client(
        key, host=url, gzip=True, upload_size=4, max_retries=20, on_error=lambda e, _: errors.append(str(e))
    )
    visitor = f"{user}-visitor"
    client.track(user, "purchase", {"revenue": 25.5, "currency": "CNY", "品名": "茶"})
    client.identify(user, {"tier": "gold"}, anonymous_id=visitor)
    client.alias(f"{visitor}-2", user)
    client.group(user, "g1", {"城市": "上海"})
    client.page(user, "Shop", "Home")
    client.screen(user, None, "Cart")
    client.track(user, "Experiment Viewed", {"experiment_id": "seen", "variation_id": "b"})
    for number in range(more):
        client.track(user, f"more-{number}")
    client.flush()
    client.join()
    return errors


@pytest.fixture(params=["python", "node"])
def send(request: pytest.FixtureRequest) -> Send:
    """Send one call of every kind, and some more; return the errors."""
    if request.param == "python":
        return from_python
    folder: Path = request.getfixturevalue("node_clients")

    def from_node(url: str, key: str, user: str, more: int) -> list[str]:
        given = {"url": url, "key": key, "user": user, "visitor": f"{user}-visitor", "more": more}
        errors: list[str] = node.run(folder, "segment.js", given)
        return errors

    return from_node


def check(served: Served, user: str, more: int) -> None:
    rows = served.rows("user_id = :user", user=user)
    told = Counter((row.kind, row.name, row.variant, row.value_micros) for row in rows)
    assert told == Counter(
        [
            ("event", "purchase", None, 25_500_000),
            ("identify", "", None, None),
            ("identify", "", None, None),
            ("alias", f"{user}-visitor", None, None),
            ("alias", f"{user}-visitor-2", None, None),
            ("event", "page", None, None),
            ("event", "screen", None, None),
            ("exposure", "seen", "b", None),
            *(("event", f"more-{number}", None, None) for number in range(more)),
        ]
    )
    data: dict[str, Any] = {row.name: row.data for row in rows if row.kind == "event"}
    assert data["purchase"] == {"revenue": 25.5, "currency": "CNY", "品名": "茶"}
    assert data["page"] == {"name": "Home", "category": "Shop"}
    assert data["screen"]["name"] == "Cart"
    traits = [row.data for row in rows if row.kind == "identify"]
    assert {"tier": "gold"} in traits
    assert {"group": {"id": "g1", "城市": "上海"}} in traits


@pytest.mark.usefixtures("seen")
def test_every_call_becomes_what_it_should(served: Served, send: Send, request: pytest.FixtureRequest) -> None:
    user = f"赵-{request.node.callspec.id}"
    assert send(served.url, served.keys["write"], user, 0) == []
    check(served, user, 0)
    (known,) = served.assignments([{"user": user}], ["seen"])
    assert (known["seen"]["variant"], known["seen"]["reason"]) == ("b", "sticky")


@pytest.mark.usefixtures("seen")
def test_a_call_is_stored_once_though_its_answer_was_lost(
    served: Served, send: Send, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    user = f"钱-{request.node.callspec.id}"
    caplog.set_level(logging.CRITICAL)
    with Breaking(served.port, failures=2) as way:
        assert send(way.url, served.keys["write"], user, 20) == []
        assert way.lost == 2
    check(served, user, 20)


def test_a_wrong_key_is_told(served: Served, send: Send) -> None:
    errors = send(served.url, "upk_wrong", "孙", 0)
    assert errors
    assert any("401" in error or "nauthorized" in error for error in errors), errors
    assert served.rows("user_id = '孙'") == []


PAGE = (ROOT / "docs" / "segment.md").read_text("utf-8")


@pytest.mark.parametrize(("language", "user"), [("python", "u6"), ("js", "u7")])
def test_the_examples_of_the_page_run(
    served: Served, language: str, user: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    (example,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.S | re.M)
    command, folder = [sys.executable, "-"], tmp_path
    if language == "js":
        command, folder = ["node", "-"], request.getfixturevalue("node_clients")
    environment = os.environ | {"UPTURN_URL": served.url, "UPTURN_KEY": served.keys["write"]}
    done = subprocess.run(
        command, input=example, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = served.rows("user_id = :user", user=user)
    assert sorted((row.kind, row.name, row.value_micros) for row in rows) == [
        ("alias", "visitor-1" if user == "u6" else "visitor-2", None),
        ("event", "purchase", 25_500_000),
        ("identify", "", None),
    ]
