"""What an app sees of the client: answers, exposures, items; and that nothing it does wrong comes back at it."""

import gc
import json
import logging
import math
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from experiments.sdk import Client, Details, Options, Reason
from tests.experiments.sdk.loopback import EXPERIMENT, KEY, QUICK, SNAPSHOT, until

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


class Evil:
    """An argument that raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __hash__(self):
        raise RuntimeError("hash")

    def __eq__(self, other):
        raise RuntimeError("eq")

    def __bool__(self):
        raise RuntimeError("bool")


class EvilText(str):
    __slots__ = ()

    def __hash__(self):
        raise RuntimeError("hash")


class EvilMapping(dict):
    def get(self, *_):
        raise RuntimeError("get")

    def keys(self):
        raise RuntimeError("keys")


def absurd_arguments():
    circle: list[object] = []
    circle.append(circle)
    deep: object = None
    for _ in range(2000):
        deep = [deep]
    plain = (
        None,
        0,
        -1,
        1.5,
        math.nan,
        math.inf,
        True,
        b"bytes",
        "",
        "\0",
        "\ud83d",
        "x" * 301,
        "x" * 3_000_000,
        [],
        {},
    )
    objects = (
        (),
        set(),
        object(),
        type,
        Evil(),
        EvilText("u"),
        EvilMapping(a=1),
        circle,
        lambda: None,
        NOW,
        Decimal("NaN"),
    )
    nested = (math.nan, object(), "\ud83d", "\0", circle, deep, {("a",): 1}, {1: 2})
    return [*plain, *objects, *({"a": value} for value in nested)]


@pytest.fixture
def offline():
    return Client("http://127.0.0.1:1", KEY, bootstrap=SNAPSHOT, offline=True)


def test_reads_give_the_variant_its_value_and_its_tactic(server):
    with server.client() as client:
        assert client.wait_until_ready()
        assert client.variant("coupon", "u1") == "ten"
        assert client.variant("coupon", "u0") == "none"
        assert client.value("coupon", "u1") == {"copy": "满100减10", "offer": {"coupon": 10}}
        assert client.tactic("coupon", "u1")["copy"] == "满100减10"
        assert client.variant("draft", "u1") is None
        assert client.variant("draft", "u1", default="a") == "a"
        assert client.value("nothing", "u1", default=7) == 7
        assert client.tactic("nothing", "u1", default={"copy": "x"}) == {"copy": "x"}


def test_a_value_is_the_apps_own_copy_and_a_tactic_cannot_be_changed(offline):
    offline.value("coupon", "u1")["offer"]["coupon"] = 99
    assert offline.value("coupon", "u1")["offer"] == {"coupon": 10}
    with pytest.raises(TypeError):
        offline.tactic("coupon", "u1")["copy"] = "x"


def test_the_first_read_of_a_user_is_his_exposure(server):
    with server.client() as client:
        client.wait_until_ready()
        for _ in range(3):
            client.variant("coupon", "u1", {"city": "上海"})
            client.value("coupon", "u1")
            client.tactic("coupon", "u1")
            client.variant("coupon", "u0")
        client.variant("draft", "u1")
        assert client.flush()
    exposures = {item["userId"]: item for item in server.items}
    assert len(server.items) == 2
    item = exposures["u1"]
    assert datetime.fromisoformat(item.pop("timestamp")).tzinfo is not None
    assert len(item.pop("messageId")) == 32
    assert item == {"type": "exposure", "userId": "u1", "experiment": "coupon", "variant": "ten", "phase": 2}


def test_details_record_nothing_until_they_are_exposed(server):
    with server.client() as client:
        client.wait_until_ready()
        details = client.details("coupon", "u1", {})
        assert client.flush()
        assert server.items == []
        assert (details.variant, details.reason, details.source) == ("ten", Reason.assigned, "server")
        assert (details.phase, details.revision, details.error) == (2, 3, None)
        assert client.expose(details)
        assert client.expose(details)
        assert client.expose(Details("elsewhere", "u1", "b"))
        assert not client.expose(client.details("draft", "u1"))
    assert [(item["experiment"], item["variant"], item.get("phase")) for item in server.items] == [
        ("coupon", "ten", 2),
        ("elsewhere", "b", None),
    ]


def test_a_new_phase_is_a_new_exposure(server):
    with server.client() as client:
        client.wait_until_ready()
        client.variant("coupon", "u1")
        server.snapshot, server.revision = {"experiments": [EXPERIMENT | {"phase": 3}]}, 2
        until(lambda: client.details("coupon", "u1").phase == 3)
        client.variant("coupon", "u1")
    assert [item["phase"] for item in server.items] == [2, 3]


def test_exposures_carry_the_stratum_also_of_forced_users_and_never_attributes(server):
    server.snapshot = {
        "segments": [
            {"key": "new", "condition": {"orders": 0}},
            {"key": "boss", "condition": {"id": "u9"}},
        ],
        "experiments": [
            EXPERIMENT | {"strata": [{"segment": "new"}, {"segment": "boss"}], "forced": {"u8": "ten", "u9": "ten"}}
        ],
    }
    with server.client() as client:
        client.wait_until_ready()
        for user, attributes in (("u1", {"orders": 0}), ("u8", {"orders": 0}), ("u9", None)):
            assert client.variant("coupon", user, attributes)
            assert client.details("coupon", user, attributes).stratum
    assert {item["userId"]: item["stratum"] for item in server.items} == {"u1": "new", "u8": "new", "u9": "boss"}
    assert not any("attributes" in item for item in server.items)


def test_the_memory_of_exposures_is_bounded_and_forgets_the_oldest(server):
    options = Options(flush_seconds=60, remembered_exposures=100)
    with server.client(options) as client:
        client.wait_until_ready()
        for i in range(1000):
            client.variant("coupon", f"u{i}")
            client.variant("coupon", "u0")  # is asked for all the time
        assert len(client._exposed) + len(client._exposed_before) <= 100
        client.variant("coupon", "u1")
        client.variant("coupon", "u999")
    users = [item["userId"] for item in server.items]
    assert (users.count("u0"), users.count("u1"), users.count("u999")) == (1, 2, 1)


def test_events_traits_aliases_and_touches(server):
    with server.client() as client:
        assert client.track("u1", "purchase", 25.5, {"sku": "茶"}, NOW)
        assert client.track("u1", "purchase", Decimal("12.30"))
        assert client.identify("u1", {"city": "上海"})
        assert client.alias("device-1", "u1")
        assert client.touch("u1", "sms", "suppressed", reason="frequency", experiment="coupon")
        assert client.touch("u1", "push")
    sent = server.items
    assert all(item.pop("messageId") and item.pop("userId") == "u1" for item in sent)
    assert sent[0].pop("timestamp") == "2026-11-22T10:00:00+00:00"
    assert [item.pop("timestamp", None) is not None for item in sent] == [False] + [True] * 5
    suppressed = {"channel": "sms", "status": "suppressed", "reason": "frequency", "experiment": "coupon"}
    assert sent == [
        {"type": "event", "event": "purchase", "value": 25.5, "properties": {"sku": "茶"}},
        {"type": "event", "event": "purchase", "value": 12.3},
        {"type": "identify", "traits": {"city": "上海"}},
        {"type": "alias", "previousId": "device-1"},
        {"type": "event", "event": "touch", "properties": suppressed},
        {"type": "event", "event": "touch", "properties": {"channel": "push", "status": "sent"}},
    ]


def test_requests_carry_the_key_the_time_of_sending_and_gzip(server):
    with server.client() as client:
        client.track("u1", "a")
        client.flush()
    (headers,) = [headers for path, headers, _ in server.asked if path == "/v1/events"]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["content-encoding"], headers["content-type"]) == ("gzip", "application/json")


@pytest.mark.parametrize("number", range(len(absurd_arguments())))
@pytest.mark.parametrize("ready", [True, False])
def test_absurd_arguments_give_the_default_and_never_an_exception(number, ready):
    absurd = absurd_arguments()[number]
    client = Client("http://127.0.0.1:1", KEY, bootstrap=SNAPSHOT if ready else None, offline=True)
    default = object()
    for arguments in ((absurd, "u1"), ("coupon", absurd), (absurd, absurd), ("coupon", "u1", absurd)):
        found = client.variant(*arguments, default=default)
        assert found is default or found in ("none", "ten")
        client.value(*arguments)
        client.tactic(*arguments)
        assert isinstance(client.expose(client.details(*arguments)), bool)
    assert client.expose(absurd) is False
    for call in (client.track, client.identify, client.alias, client.touch):
        call(absurd, absurd)
        call("u1", absurd)
        call(absurd, "u1")
    client.track("u1", "e", absurd, absurd, absurd)
    client.touch("u1", "sms", absurd, absurd, absurd)
    assert client.save("/nowhere/at/all") is False


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.track("", "e"),
        lambda client: client.track("u" * 301, "e"),
        lambda client: client.track("u\0", "e"),
        lambda client: client.track("\ud83d", "e"),
        lambda client: client.track(b"u", "e"),
        lambda client: client.track("u", ""),
        lambda client: client.track("u", "e", math.nan),
        lambda client: client.track("u", "e", 1e13),
        lambda client: client.track("u", "e", True),
        lambda client: client.track("u", "e", "5"),
        lambda client: client.track("u", "e", None, {"a": math.inf}),
        lambda client: client.track("u", "e", None, {"a": object()}),
        lambda client: client.track("u", "e", None, {"a": "x\0"}),
        lambda client: client.track("u", "e", None, [1]),
        lambda client: client.track("u", "e", None, {"a": "x" * 1_100_000}),
        lambda client: client.track("u", "e", timestamp=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda client: client.track("u", "e", timestamp="2026-01-01"),
        lambda client: client.identify("u", None),
        lambda client: client.alias("u", "u"),
        lambda client: client.touch("u", "sms", "seen"),
        lambda client: client.touch("u", ""),
    ],
)
def test_what_the_server_could_not_take_is_dropped_at_the_call_and_counted(server, caplog, call):
    with server.client() as client:
        assert call(client) is False
        assert call(client) is False
        assert client.track("u1", "good")
        assert client.flush()
        assert client.stats()["dropped"] == {"invalid": 2}
    assert [item["event"] for item in server.items] == ["good"]
    assert len(caplog.records) == 1
    assert "xxx" not in caplog.text


def test_what_looks_like_the_null_character_is_kept(server):
    with server.client() as client:
        assert client.track("u1", "e", None, {"a": "\\u0000"})
    assert server.items[0]["properties"] == {"a": "\\u0000"}


def test_bootstrap_answers_until_the_server_does(server, tmp_path):
    server.all_snapshots = (500, {}, b"")
    old = {"experiments": [EXPERIMENT | {"revision": 1}]}
    with server.client(bootstrap=old) as client:
        assert (client.variant("coupon", "u1"), client.details("coupon", "u1").source) == ("ten", "bootstrap")
        server.all_snapshots = None
        until(lambda: client.source == "server")
        assert client.details("coupon", "u1").revision == 3
        assert client.save(tmp_path / "snapshot.json")
    assert json.loads((tmp_path / "snapshot.json").read_text("utf-8")) == SNAPSHOT
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.json"]
    server.kill()
    client = server.client(bootstrap=tmp_path / "snapshot.json")
    assert client.variant("coupon", "u1") == "ten"
    assert not client.close(0)


@pytest.mark.parametrize("written", ["not json", "{}", '{"experiments": [{"key": "a"}]}', "[]", None])
def test_a_bad_bootstrap_is_logged_and_the_default_given(tmp_path, caplog, written):
    path = tmp_path / "snapshot.json"
    if written is not None:
        path.write_text(written)
    client = Client("http://127.0.0.1:1", KEY, bootstrap=path, offline=True)
    assert client.variant("coupon", "u1", default="none") == "none"
    assert client.details("coupon", "u1").error == "no_snapshot"
    assert not client.wait_until_ready(10)
    assert not client.save(tmp_path / "copy.json")
    assert len(caplog.records) == 1


def test_changing_the_bootstrap_afterwards_changes_nothing():
    mine = json.loads(json.dumps(SNAPSHOT))
    client = Client("http://127.0.0.1:1", KEY, bootstrap=mine, offline=True)
    mine["experiments"][0]["variants"][1]["tactic"]["copy"] = "x"
    assert client.tactic("coupon", "u1")["copy"] == "满100减10"


def test_offline_starts_no_thread_and_sends_nothing(offline):
    before = threading.active_count()
    assert offline.wait_until_ready(10)
    assert offline.variant("coupon", "u1") == "ten"
    assert offline.track("u1", "e")
    assert offline.flush()
    assert threading.active_count() == before
    assert offline.stats()["dropped"] == {"offline": 2}


def test_making_a_client_starts_no_thread(server):
    before = threading.active_count()
    client = server.client()
    assert threading.active_count() == before
    assert server.asked == []
    assert client.close()


def test_a_client_that_is_let_go_sends_what_it_has_and_its_threads_end(server):
    # Threads are counted by name, as the loopback server has some of its own.
    def threads():
        return [thread for thread in threading.enumerate() if thread.name.startswith("upturn-")]

    until(lambda: not threads())
    server.offers_stream = True
    client = server.client(Options(flush_seconds=60))
    client.wait_until_ready()
    client.variant("coupon", "u1")
    until(lambda: server.streams)
    assert len(threads()) == 3
    del client
    gc.collect()
    until(lambda: not threads())
    assert server.users() == {"u1"}


@pytest.mark.parametrize("key", ["", " ", "a b", "a\nb", "密钥", None, 5])
def test_a_key_that_no_header_can_carry_is_refused_at_once_without_quoting_it(key):
    with pytest.raises(ValueError, match="key: give") as refused:
        Client("http://127.0.0.1", key)
    assert not isinstance(key, str) or not key.strip() or key not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "upturn.example",
        "ftp://upturn.example",
        "http://",
        "http://h:x",
        "http://h/?a",
        "http://h/服务",
        "http://a b",
        "http://u:p@h",
        None,
    ],
)
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match="give an address such as"):
        Client(url, KEY)


@pytest.mark.parametrize(
    ("name", "value"), [("poll_seconds", 0), ("batch_items", 1.5), ("batch_items", 10_001), ("queue_items", True)]
)
def test_options_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} = "):
        Options(**{name: value})
    assert Options(exit_seconds=0)


def test_a_log_handler_that_raises_does_no_harm(offline):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError

    logger, handler = logging.getLogger("upturn"), Broken()
    logger.addHandler(handler)
    try:
        assert not offline.track("", "e")
    finally:
        logger.removeHandler(handler)


def test_reads_from_many_threads_expose_each_user_once(server):
    with server.client(QUICK) as client:
        client.wait_until_ready()
        barrier = threading.Barrier(8)

        def read():
            barrier.wait()
            for i in range(500):
                assert client.variant("coupon", f"u{i}") in ("none", "ten")
                client.track(f"u{i}", "seen")

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(20)
    kinds = [item["type"] for item in server.items]
    assert (kinds.count("exposure"), kinds.count("event")) == (500, 4000)
    assert set(server.ids().values()) == {1}
