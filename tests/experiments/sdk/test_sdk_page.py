"""The page on the SDK: its examples run, and it names every option, count and public method."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from experiments.sdk import Client, Options
from tests.experiments.sdk.loopback import EXPERIMENT, KEY

PAGE = (Path(__file__).parents[3] / "docs" / "sdk.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COUPON = {"key": "coupon", "tactic": {"copy": "满100减10", "offer": "coupon-10"}}


def test_the_examples_run_one_after_the_other(server, tmp_path, monkeypatch):
    assert len(EXAMPLES) == 10
    server.snapshot = {"experiments": [EXPERIMENT | {"key": "spring-coupon", "variants": [{"key": "none"}, COUPON]}]}
    monkeypatch.setenv("UPTURN_URL", server.url)
    monkeypatch.setenv("UPTURN_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/sdk.md", "exec"), names)
    kinds = [item["type"] for item in server.items]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"exposure": 4, "event": 5, "identify": 1, "alias": 1}


@pytest.mark.parametrize("option", fields(Options), ids=lambda option: option.name)
def test_every_option_is_explained(option):
    assert f"`{option.name}`" in PAGE


def test_every_method_is_explained():
    methods = {name for name in vars(Client) if not name.startswith("_")} - {"aclose"}
    assert [name for name in methods if not re.search(rf"`(client\.)?{name}\b|client\.{name}\(", PAGE)] == []


def test_every_group_of_counts_is_explained():
    client = Client("http://127.0.0.1:1", KEY, offline=True)
    assert [group for group in client.stats() if f"`{group}`" not in PAGE] == []
