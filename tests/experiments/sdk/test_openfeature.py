"""The provider, through the unmodified SDK of OpenFeature."""

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import Reason
from openfeature.provider import ProviderStatus
from openfeature.track import TrackingEventDetails

from experiments.sdk.openfeature import UpturnProvider
from tests.experiments.sdk.loopback import EXPERIMENT, until


def flag(key, values, **changed):
    variants = [{"key": f"v{i}", "value": value} for i, value in enumerate(values)]
    forced = {f"f{i}": f"v{i}" for i in range(len(values))}
    return EXPERIMENT | {"key": key, "control": "v0", "variants": variants, "forced": forced} | changed


SNAPSHOT = {
    "segments": [{"key": "all", "condition": {}}],
    "experiments": [
        flag("on", [True, False]),
        flag("text", ["a", "b"]),
        flag("number", [1, 2]),
        flag("price", [1, 2.5]),
        flag("data", [{"a": {"b": 1}}, {"a": {}}]),
        flag("list", [[1], [2]]),
        flag("off", [True, False], status="stopped"),
        flag("few", [True, False], strata=[{"segment": "all", "coverage": 0.0001}]),
        flag("cities", [True, False], audience={"city": "上海"}, strata=[{"segment": "all"}]),
    ],
}
F1 = EvaluationContext("f1")


@pytest.fixture
def ready(server):
    server.snapshot = SNAPSHOT
    provider = UpturnProvider(server.client())
    api.set_provider_and_wait(provider)
    yield api.get_client()
    api.clear_providers()


@pytest.mark.parametrize(
    ("kind", "key", "default", "value"),
    [
        ("boolean", "on", True, False),
        ("string", "text", "z", "b"),
        ("integer", "number", 7, 2),
        ("float", "price", 7.0, 2.5),
        ("float", "number", 7.0, 2.0),
        ("object", "data", {}, {"a": {}}),
        ("object", "list", [], [2]),
    ],
)
def test_a_flag_of_each_type(ready, kind, key, default, value):
    found = getattr(ready, f"get_{kind}_details")(key, default, F1)
    assert (found.value, type(found.value), found.error_code) == (value, type(value), None)
    assert (found.variant, found.reason) == ("v1", Reason.TARGETING_MATCH)


@pytest.mark.parametrize(
    ("kind", "key", "default"),
    [
        *(("boolean", key, True) for key in ("text", "number", "price", "data")),
        *(("string", key, "z") for key in ("on", "number", "data", "list")),
        *(("integer", key, 7) for key in ("on", "text", "price", "data")),
        *(("float", key, 7.0) for key in ("on", "text", "data")),
        *(("object", key, {}) for key in ("on", "text", "number")),
    ],
)
def test_another_type_is_a_mismatch_and_no_exposure(ready, server, kind, key, default):
    found = getattr(ready, f"get_{kind}_details")(key, default, F1)
    assert (found.value, found.error_code, found.reason) == (default, ErrorCode.TYPE_MISMATCH, Reason.ERROR)
    assert found.variant is None
    api.shutdown()
    assert server.items == []


def test_reasons(ready):
    def ask(key, user, **attributes):
        found = ready.get_boolean_details(key, True, EvaluationContext(user, attributes))
        return found.reason, found.variant, found.error_code, found.value

    reason, variant, code, value = ask("on", "u1")
    assert (reason, code, value) == (Reason.SPLIT, None, {"v0": True, "v1": False}[variant])
    assert ask("off", "u1") == (Reason.DISABLED, None, None, True)
    assert ask("few", "u1") == (Reason.DEFAULT, None, None, True)
    assert ask("cities", "u1", city="北京") == (Reason.DEFAULT, None, None, True)
    assert ask("cities", "u1", city="上海")[0] == Reason.SPLIT
    assert ask("nothing", "u1") == (Reason.ERROR, None, ErrorCode.FLAG_NOT_FOUND, True)
    assert ask("on", None) == (Reason.ERROR, None, ErrorCode.TARGETING_KEY_MISSING, True)
    assert ask("on", "") == (Reason.ERROR, None, ErrorCode.TARGETING_KEY_MISSING, True)
    assert ready.get_boolean_details("on", True).error_code == ErrorCode.TARGETING_KEY_MISSING


def test_metadata_tell_where_the_answer_comes_from(ready):
    found = ready.get_boolean_details("cities", True, EvaluationContext("u1", {"city": "上海"}))
    assert found.flag_metadata == {
        "experiment": "cities",
        "revision": 3,
        "phase": 2,
        "reason": "assigned",
        "source": "server",
        "stratum": "all",
    }
    assert "stratum" not in ready.get_boolean_details("on", True, F1).flag_metadata


def test_an_evaluation_is_an_exposure_and_tracking_an_event(ready, server):
    for _ in range(3):
        ready.get_boolean_value("on", True, F1)
        value = ready.get_object_value("data", {}, F1)
        assert value == {"a": {}}  # a copy for each
        value["a"]["b"] = 2
    ready.get_boolean_value("off", True, F1)
    ready.track("purchase", F1, TrackingEventDetails(25.5, {"sku": "tea"}))
    ready.track("visit", F1)
    ready.track("nobody")
    api.shutdown()
    assert [(item["type"], item["userId"], item.get("experiment") or item["event"]) for item in server.items] == [
        ("exposure", "f1", "on"),
        ("exposure", "f1", "data"),
        ("event", "f1", "purchase"),
        ("event", "f1", "visit"),
    ]
    assert (server.items[2]["value"], server.items[2]["properties"]) == (25.5, {"sku": "tea"})


def test_before_the_first_snapshot_the_provider_is_not_ready_and_then_it_is(server):
    server.all_snapshots = (503, {}, b"")
    server.snapshot = SNAPSHOT
    provider = UpturnProvider(server.client(), ready_seconds=0.05)
    try:
        with pytest.raises(ProviderNotReadyError):
            api.set_provider_and_wait(provider)
        client = api.get_client()
        found = client.get_boolean_details("on", True, F1)
        assert (found.value, found.error_code) == (True, ErrorCode.PROVIDER_NOT_READY)
        server.all_snapshots = None
        until(lambda: client.get_provider_status() is ProviderStatus.READY)
        assert client.get_boolean_value("on", True, F1) is False
    finally:
        api.clear_providers()


def test_staleness_and_changes_are_told(ready, server):
    heard = []
    ready.add_handler(ProviderEvent.PROVIDER_STALE, lambda _details: heard.append("stale"))
    ready.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, lambda _details: heard.append("changed"))
    server.revision = 2
    until(lambda: "changed" in heard)
    server.all_snapshots = (500, {}, b"")
    until(lambda: ready.get_provider_status() is ProviderStatus.STALE)
    assert ready.get_boolean_value("on", True, F1) is False
    server.all_snapshots = None
    until(lambda: ready.get_provider_status() is ProviderStatus.READY)
    assert heard[-1] == "stale"
