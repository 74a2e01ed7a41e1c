"""The Python SDK of OpenFeature with its OFREP provider, unmodified."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails

from tests.clients import shop
from tests.clients.served import Served

_domains = count()


def connected(url: str, key: str) -> OpenFeatureClient:
    provider = OFREPProvider(url, headers_factory=lambda: {"Authorization": f"Bearer {key}"}, timeout=20)
    domain = f"domain-{next(_domains)}"
    api.set_provider(provider, domain)
    return api.get_client(domain)


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenFeatureClient]:
    yield connected(served.url, served.keys["app"])
    api.shutdown()


def read(client: OpenFeatureClient, flag: str, number: int, default: Any = None) -> FlagEvaluationDetails[Any]:
    default = shop.DEFAULTS.get(flag, "none") if default is None else default
    context = EvaluationContext(shop.user(number), shop.known_to_app(number))
    kind = {str: "string", bool: "boolean", int: "integer", float: "float", dict: "object"}[type(default)]
    details: FlagEvaluationDetails[Any] = getattr(client, f"get_{kind}_details")(flag, default, context)
    return details


@pytest.mark.parametrize("users", [500, pytest.param(10_000, marks=pytest.mark.study)])
def test_every_user_gets_the_variant_of_the_assignment(
    client: OpenFeatureClient, expected: list[dict[str, Any]], users: int
) -> None:
    def ask(number: int) -> None:
        for flag in shop.flags_of(number):
            found, answer = read(client, flag, number), expected[number][flag]
            assert found.error_code is None, found
            assert found.value == shop.value_of(flag, answer), (flag, number)
            assert found.variant == (answer["variant"] or "")
            told = {name: answer[name] for name in ("reason", "phase", "revision")}
            assert found.flag_metadata == told | ({"stratum": answer["stratum"]} if answer["stratum"] else {})
            assert found.reason == shop.OFREP_REASONS.get(answer["reason"], "DEFAULT")

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(ask, range(users)))) == users


def test_each_type_of_flag(client: OpenFeatureClient) -> None:
    found = {flag: {str(read(client, flag, i).value) for i in range(2, 30)} for flag in shop.DEFAULTS}
    assert found["title"] == {"a", "b"}
    assert found["copy"] == {"{}", "{'copy': '错过再等一年', 'offer': {'off': 10}}"}
    assert found["price"] == {"1.0", "2.5"}
    assert found["rows"] == {"3", "4"}
    assert found["dark"] == {"True", "False"}


def test_who_is_forced_and_what_does_not_run(client: OpenFeatureClient) -> None:
    forced = read(client, "chosen", 0)
    assert (forced.value, forced.variant, forced.reason) == ("b", "b", "TARGETING_MATCH")
    draft = read(client, "draft", 0, default="mine")
    assert (draft.value, draft.variant, draft.reason, draft.error_code) == ("mine", "", "DISABLED", None)


@pytest.mark.parametrize(
    ("flag", "default", "code"),
    [
        ("unknown", "mine", "FLAG_NOT_FOUND"),
        ("title", True, "TYPE_MISMATCH"),
        ("title", 7, "TYPE_MISMATCH"),
        ("price", 7, "TYPE_MISMATCH"),
        ("rows", 0.5, "TYPE_MISMATCH"),
        ("copy", "mine", "TYPE_MISMATCH"),
        ("dark", {"a": 1}, "TYPE_MISMATCH"),
    ],
)
def test_the_default_holds_where_there_is_no_answer(
    client: OpenFeatureClient, flag: str, default: Any, code: str
) -> None:
    found = read(client, flag, 2, default)
    assert (found.value, found.error_code, found.reason) == (default, code, "ERROR")


def test_a_user_is_needed(client: OpenFeatureClient) -> None:
    for context in (None, EvaluationContext(attributes={"tier": "gold"})):
        found = client.get_string_details("title", "mine", context)
        assert (found.value, found.error_code) == ("mine", "TARGETING_KEY_MISSING")


@pytest.mark.parametrize(("key", "told"), [("upk_wrong", "unauthorized"), ("write", "forbidden")])
def test_a_key_of_the_scope_is_needed(served: Served, key: str, told: str) -> None:
    found = read(connected(served.url, served.keys.get(key, key)), "title", 2)
    assert (found.value, found.error_code, found.error_message) == ("none", "GENERAL", told)
