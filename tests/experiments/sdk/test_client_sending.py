"""The way of items to the server: batches, what is dropped, what is tried again, and the end."""

import asyncio
import json
import time

import pytest

from experiments.sdk import Client, Options, Request, Response
from tests.experiments.sdk.loopback import KEY, QUICK, problem, until


def options(**changed):
    quick = {name: getattr(QUICK, name) for name in QUICK.__slots__}
    return Options(**quick | changed)


def track(client, users):
    for i in range(users):
        assert client.track(f"u{i}", "e")


def test_a_whole_batch_goes_at_once_and_the_rest_after_a_while(server):
    client = server.client(options(flush_seconds=60, batch_items=100))
    track(client, 250)
    until(lambda: len(server.items) == 200)
    time.sleep(0.05)
    assert server.sizes == [100, 100]
    assert client.flush()
    assert server.sizes == [100, 100, 50]
    client.close()


def test_items_wait_no_longer_than_they_should(server):
    client = server.client(options(flush_seconds=0.2))
    start = time.monotonic()
    client.track("u1", "e")
    until(lambda: server.items)
    assert time.monotonic() - start >= 0.2
    client.close()


def test_a_batch_is_bounded_in_bytes(server):
    client = server.client(options(flush_seconds=60, batch_bytes=10_000))
    for i in range(10):
        client.track(f"u{i}", "e", None, {"a": "x" * 3000})
    client.track("big", "e", None, {"a": "x" * 50_000})
    assert client.flush()
    assert max(server.sizes) == 3
    assert len(server.ids()) == 11
    client.close()


@pytest.mark.parametrize("limit", [{"queue_items": 100}, {"queue_bytes": 14_000}])
def test_a_full_queue_drops_the_newest_and_counts_them(server, limit, caplog):
    server.all_events = lambda _batch: (503, {}, b"")
    client = server.client(options(**limit))
    taken = [client.track(f"u{i:03}", "e") for i in range(300)]
    assert taken == sorted(taken, reverse=True)
    assert 80 <= sum(taken) <= 105
    assert client.stats()["dropped"] == {"full": 300 - sum(taken)}
    server.all_events = None
    assert client.flush(20)
    assert server.users() == {f"u{i:03}" for i in range(sum(taken))}
    assert client.track("later", "e")
    client.close()
    assert len([record for record in caplog.records if "full" in record.message]) == 1


def test_an_exposure_that_found_no_room_is_recorded_at_the_next_read(server):
    server.all_events = lambda _batch: (503, {}, b"")
    client = server.client(options(queue_items=1))
    client.wait_until_ready()
    client.track("u0", "e")
    assert client.variant("coupon", "u1") == "ten"
    server.all_events = None
    assert client.flush(20)
    assert client.variant("coupon", "u1") == "ten"
    client.close()
    assert [item["type"] for item in server.items] == ["event", "exposure"]


def test_a_batch_that_is_too_large_is_halved(server):
    server.all_events = lambda batch: problem(413, "too_large") if len(batch) > 40 else "store"
    with server.client(options(flush_seconds=60)) as client:
        track(client, 200)
        assert client.flush(20)
        assert client.stats()["dropped"] == {}
    assert set(server.ids().values()) == {1}
    assert len(server.ids()) == 200


def test_a_single_item_that_is_too_large_is_dropped_alone(server):
    server.all_events = lambda batch: (413, {}, b"<html>") if any(item["event"] == "big" for item in batch) else "store"
    with server.client(options(flush_seconds=60)) as client:
        track(client, 20)
        client.track("u", "big")
        track(client, 20)
        assert client.flush(20)
        assert client.stats()["dropped"] == {"too_large": 1}
    assert len(server.items) == 40


@pytest.mark.parametrize("status", [400, 422])
def test_a_poisonous_item_takes_no_other_with_it(server, status):
    bad = {"u7", "u8", "u123"}
    server.all_events = lambda batch: (
        problem(status, "nested_too_deeply") if any(item["userId"] in bad for item in batch) else "store"
    )
    with server.client(options(flush_seconds=60)) as client:
        track(client, 300)
        assert client.flush(20)
        assert client.stats()["dropped"] == {"refused": 3}
    assert server.users() == {f"u{i}" for i in range(300)} - bad


def test_rejected_items_are_counted_by_code_and_logged_once_each(server, caplog):
    codes = ["unknown_experiment", "time_in_future", "unknown_experiment"]
    rejected = [{"index": i, "code": code, "detail": "upk_ secret"} for i, code in enumerate(codes)]
    receipt = {"accepted": 1, "duplicates": 0, "rejected": rejected}
    all_rejected = {"code": "all_rejected", "rejected": rejected[:1]}
    server.events += [(202, {}, json.dumps(receipt).encode()), (422, {}, json.dumps(all_rejected).encode())]
    with server.client(options(flush_seconds=60)) as client:
        track(client, 4)
        assert client.flush()
        track(client, 1)
        assert client.flush()
        assert client.stats()["rejected"] == {"unknown_experiment": 3, "time_in_future": 1}
    assert server.sizes == [4, 1]
    assert len(caplog.records) == 2
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "body", [b'{"ok": true}', b'{"accepted": "1", "duplicates": 0, "rejected": []}', b"", b"<html>"]
)
def test_a_success_that_is_no_receipt_is_none(server, body):
    server.events.append((200, {}, body))
    with server.client() as client:
        client.track("u1", "e")
        assert client.flush(20)
        assert client.stats()["sent"]["failed"] == 1
    assert len(server.items) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_refused_requests_are_tried_again_slowly(server, status):
    server.events += [(status, {}, b"")] * 2
    with server.client(options(refused_seconds=0.3)) as client:
        client.track("u1", "e")
        until(lambda: server.items)
    times = [at for path, _, at in server.asked if path == "/v1/events"]
    assert times[2] - times[0] >= 0.6


def test_flush_does_not_go_against_the_servers_word(server):
    server.events.append(problem(429, "too_many", Retry_After="1"))
    with server.client() as client:
        client.track("u1", "e")
        until(lambda: server.sizes)
        assert not client.flush(0.1)
        assert client.flush(20)
    first, second = [at for path, _, at in server.asked if path == "/v1/events"]
    assert second - first >= 1


def test_flush_tries_again_at_once_while_waiting_for_a_far_retry(server):
    server.events += [(503, {}, b"")] * 3
    client = server.client(options(retry_seconds=30, retry_most_seconds=60))
    client.track("u1", "e")
    until(lambda: server.sizes)
    start = time.monotonic()
    client.flush(0.5)
    until(lambda: len(server.sizes) >= 2)
    assert time.monotonic() - start < 10
    client.close(0)


def test_flush_keeps_trying_while_somebody_waits(server):
    server.events += [(401, {}, b"")] * 3
    with server.client(options(refused_seconds=600)) as client:
        client.track("u1", "e")
        assert client.flush(20)
    assert len(server.items) == 1


def test_a_closed_client_still_assigns_and_counts_what_it_drops(server):
    client = server.client()
    client.wait_until_ready()
    assert client.close()
    assert client.close()
    assert client.variant("coupon", "u1") == "ten"
    assert client.track("u1", "e") is False
    assert client.stats()["dropped"] == {"closed": 2}
    assert server.items == []


def test_closing_without_a_server_takes_no_longer_than_told_and_says_what_is_lost(server, caplog):
    server.all_events = lambda _batch: None
    client = server.client(options(timeout_seconds=60))
    track(client, 5)
    start = time.monotonic()
    assert not client.close(0.2)
    assert time.monotonic() - start < 5
    assert client.stats()["dropped"] == {"unsent": 5}
    assert "closed before all was sent" in caplog.text


def test_asyncio(server):
    async def app():
        async with server.client() as client:
            assert await asyncio.to_thread(client.wait_until_ready)
            client.variant("coupon", "u1")
            client.track("u1", "e")
        assert await client.aclose()

    asyncio.run(app())
    assert [item["type"] for item in server.items] == ["exposure", "event"]


class Recorder:
    """A transport of the test's own, which fails in any way it is told to."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.bodies = []

    def send(self, request: Request, timeout: float) -> Response:
        if request.method == "GET":
            raise RuntimeError("no snapshots here")
        if self.failures:
            raise self.failures.pop(0)
        self.bodies.append(request.body)
        return Response(202, {}, b'{"accepted": 1, "duplicates": 0, "rejected": []}')

    def stream(self, request, timeout):
        raise NotImplementedError


@pytest.mark.parametrize(
    "failure", [OSError(), ValueError("upk_secret"), RuntimeError(), UnicodeError(), MemoryError()]
)
def test_a_transport_may_fail_in_any_way(failure, caplog):
    recorder = Recorder(failure, failure)
    with Client("http://nowhere.example", KEY, transport=recorder, options=QUICK) as client:
        client.track("u1", "e")
        assert client.flush(20)
        assert client.stats()["sent"]["failed"] == 2
    assert len(recorder.bodies) == 1
    assert "secret" not in caplog.text


def test_message_ids_are_unique_and_times_are_those_of_the_call(server):
    with server.client(options(flush_seconds=60)) as client:
        track(client, 1000)
        assert client.flush(20)
    assert len(server.ids()) == 1000
    times = [item["timestamp"] for item in server.items]
    assert times == sorted(times)
