"""The server SDK of OpenFeature for Node with its OFREP provider, unmodified."""

from pathlib import Path
from typing import Any

import pytest

from tests.clients import node, shop
from tests.clients.served import Served

Question = tuple[str, Any, dict[str, Any] | None]


def asked(served: Served, folder: Path, questions: list[Question], key: str = "app") -> list[dict[str, Any]]:
    given = {"url": served.url, "key": served.keys.get(key, key), "questions": questions}
    answers: list[dict[str, Any]] = node.run(folder, "openfeature.js", given)
    return answers


def context(number: int) -> dict[str, Any]:
    return {"targetingKey": shop.user(number), **shop.known_to_app(number)}


@pytest.mark.parametrize("users", [500, pytest.param(10_000, marks=pytest.mark.study)])
def test_every_user_gets_the_variant_of_the_assignment(
    served: Served, node_clients: Path, expected: list[dict[str, Any]], users: int
) -> None:
    wanted = [(flag, number) for number in range(users) for flag in shop.flags_of(number)]
    answers = asked(served, node_clients, [(flag, shop.DEFAULTS[flag], context(number)) for flag, number in wanted])
    for (flag, number), found in zip(wanted, answers, strict=True):
        answer = expected[number][flag]
        assert found["value"] == shop.value_of(flag, answer), (flag, number)
        if answer["variant"] is None:
            # This provider takes an answer without a value for a failure; the default it gives is the right one.
            assert (found["reason"], found["errorCode"]) == ("ERROR", "GENERAL")
            assert "does not match the expected format" in found["errorMessage"]
        else:
            assert found["variant"] == answer["variant"]
            assert found["reason"] == shop.OFREP_REASONS[answer["reason"]]
            told = {name: answer[name] for name in ("reason", "phase", "revision")}
            assert found["flagMetadata"] == told | ({"stratum": answer["stratum"]} if answer["stratum"] else {})


def test_the_default_holds_where_there_is_no_answer(served: Served, node_clients: Path) -> None:
    wanted: list[tuple[Question, str]] = [
        (("unknown", "mine", context(2)), "FLAG_NOT_FOUND"),
        (("title", True, context(2)), "TYPE_MISMATCH"),
        (("title", 7, context(2)), "TYPE_MISMATCH"),
        (("copy", "mine", context(2)), "TYPE_MISMATCH"),
        (("dark", {"a": 1}, context(2)), "TYPE_MISMATCH"),
        (("title", "mine", None), "TARGETING_KEY_MISSING"),
        (("title", "mine", {"tier": "gold"}), "TARGETING_KEY_MISSING"),
        (("draft", "mine", context(2)), "GENERAL"),
    ]
    answers = asked(served, node_clients, [question for question, _ in wanted])
    for (question, code), found in zip(wanted, answers, strict=True):
        assert (found["value"], found["errorCode"]) == (question[1], code), found


@pytest.mark.parametrize("key", ["upk_wrong", "write"])
def test_a_key_of_the_scope_is_needed(served: Served, node_clients: Path, key: str) -> None:
    (found,) = asked(served, node_clients, [("title", "mine", context(2))], key)
    assert (found["value"], found["errorCode"]) == ("mine", "GENERAL")
