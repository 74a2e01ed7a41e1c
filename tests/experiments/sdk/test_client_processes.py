"""Processes that end, are killed, or fork: what is in the spool is sent by another one, and nothing is sent for two."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.sdk import Client, Options
from tests.experiments.sdk.loopback import KEY, QUICK, until

ROOT = Path(__file__).parents[3]
QUEUED_ONLY = Options(flush_seconds=600, batch_items=10_000)

START = """
import os, signal, sys, time
from experiments.sdk import Client, Options
url, spool = sys.argv[1], sys.argv[2] or None
client = Client(url, "upk_loopback", spool=spool, options=Options(flush_seconds=600, retry_seconds=0.02))
"""


def run(script, server, spool="", code=0):
    """Run a script in a process of its own, at most for a minute; return what it printed."""
    # From Python 3.12 on, a fork with threads is warned of.
    warnings = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")
    command = [sys.executable, *warnings, "-c", START + script, server.url, str(spool)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


def segments(spool):
    return sorted(spool.glob("*.jsonl"))


KILLED = """
client.wait_until_ready()
for i in range(700):
    client.variant("coupon", f"u{i}")
    client.track(f"u{i}", "e")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_sent_by_the_next_with_its_ids(server, tmp_path):
    run(KILLED, server, tmp_path, code=-signal.SIGKILL)
    assert len(server.ids()) < 1400
    assert segments(tmp_path)
    written = [json.loads(line) for path in segments(tmp_path) for line in path.read_bytes().splitlines()]
    assert len(written) >= 1400 - len(server.ids())
    client = server.client(spool=tmp_path)
    client.wait_until_ready()
    client.variant("coupon", "u1")
    until(lambda: len(server.ids()) == 1401)
    assert client.close()
    assert {item["messageId"] for item in written} <= set(server.ids())
    assert segments(tmp_path) == []
    assert client.stats()["spool"]["adopted"] == len(written)


def test_a_killed_process_without_a_server_loses_nothing(server, tmp_path):
    url = server.url
    server.kill()
    run(KILLED.replace("client.wait_until_ready()", ""), server, tmp_path, code=-signal.SIGKILL)
    assert url == server.url
    server.start()
    with server.client(spool=tmp_path) as client:
        client.track("next", "e")
        until(lambda: len(server.ids()) == 701)
    assert set(server.ids().values()) == {1}


def test_the_end_of_a_process_sends_what_is_queued(server, tmp_path):
    run('client.wait_until_ready(); client.variant("coupon", "u1"); client.track("u1", "e")', server, tmp_path)
    assert [item["type"] for item in server.items] == ["exposure", "event"]
    assert segments(tmp_path) == []


def test_the_end_of_a_process_waits_only_a_little_for_a_server_that_hangs(server):
    server.all_events = lambda _batch: None
    run('client.track("u1", "e")', server)  # a timeout of its own ends it after 10 seconds, and us after a minute
    begin = next(at for path, _, at in server.asked if path == "/v1/events")
    assert time.monotonic() - begin < 8
    assert server.items == []


def test_a_live_processs_segments_are_left_alone(server, tmp_path):
    held = server.client(QUEUED_ONLY, spool=tmp_path)
    held.track("u1", "e")
    other = server.client(spool=tmp_path)
    other.track("u2", "e")
    assert other.close()
    assert server.users() == {"u2"}
    assert len(segments(tmp_path)) == 1
    assert held.close()
    assert server.users() == {"u1", "u2"}
    assert segments(tmp_path) == []


def test_segments_for_another_server_are_left_alone(server, tmp_path):
    elsewhere = Client("http://127.0.0.1:9", KEY, spool=tmp_path, options=QUICK)
    elsewhere.track("u1", "e")
    assert not elsewhere.close(0.1)
    assert elsewhere.stats()["spool"] == {"left": 1}
    assert elsewhere.stats()["dropped"] == {}
    with server.client(spool=tmp_path) as client:
        client.track("u2", "e")
    assert server.users() == {"u2"}
    assert len(segments(tmp_path)) == 1


def test_a_torn_line_is_passed_over(server, tmp_path):
    run('client.track("u1", "e"); os.kill(os.getpid(), signal.SIGKILL)', server, tmp_path, code=-signal.SIGKILL)
    (path,) = segments(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good + b'{"type":"event","mess\n[1]\n\xff\n' + good[:-10])
    with server.client(spool=tmp_path) as client:
        client.wait_until_ready()
        until(lambda: server.items)
        assert client.flush()
        assert client.stats()["spool"] == {"adopted": 1, "damaged": 4}
    assert len(server.items) == 1
    assert segments(tmp_path) == []


def test_delivered_segments_take_no_space(server, tmp_path):
    with server.client(Options(flush_seconds=0.02, batch_items=50, segment_bytes=20_000), spool=tmp_path) as client:
        for i in range(1000):
            client.track(f"u{i}", "e")
        until(lambda: len(server.ids()) == 1000)
        until(lambda: sum(path.stat().st_size for path in segments(tmp_path)) == 0)
    assert segments(tmp_path) == []
    assert set(server.ids().values()) == {1}


def test_a_spool_that_is_full_or_broken_keeps_nobody_from_sending(server, tmp_path, caplog):
    options = Options(flush_seconds=600, batch_items=10_000, segment_bytes=5_000, spool_bytes=20_000)
    client = server.client(options, spool=tmp_path / "small")
    for i in range(1000):
        assert client.track(f"u{i}", "e")
    assert sum(path.stat().st_size for path in segments(tmp_path / "small")) <= 20_000
    assert client.stats()["spool"]["missed"] > 500
    assert client.close()
    assert len(server.ids()) == 1000

    client = server.client(spool=tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert client.track("gone", "e")
    assert client.close()
    assert "gone" in server.users()
    assert client.stats()["spool"] == {"missed": 1}
    assert str(tmp_path) not in caplog.text


def test_a_spool_that_cannot_be_made_is_refused_at_once(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"spool = .*give a folder"):
        server.client(spool=tmp_path / "file")


def test_the_spool_is_for_its_owner_alone(server, tmp_path):
    client = server.client(QUEUED_ONLY, spool=tmp_path / "spool")
    client.track("u1", "e")
    (path,) = segments(tmp_path / "spool")
    assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    client.close()


FORKS = """
client.wait_until_ready()
client.track("parent-before", "e")
client.variant("coupon", "u1")
children = []
for name in ("child-a", "child-b"):
    pid = os.fork()
    if pid == 0:
        assert client.stats()["queue"]["items"] == 0
        assert client.variant("coupon", "u1") == "ten"     # the parent's exposure
        assert client.variant("coupon", "u3") == "ten"
        client.track(name, "e")
        while not client.stats()["refresh"]: time.sleep(0.01)  # it looks for a newer snapshot by itself
        assert client.details("coupon", "u1").source == "server"
        ok = client.flush(20) if name == "child-a" else True
        if name == "child-b":
            sys.exit()      # the end of the process sends
        os._exit(0 if ok else 1)
    children.append(pid)
client.track("parent-after", "e")
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
assert client.flush(20)
"""


@pytest.mark.parametrize("spooled", [True, False])
def test_after_a_fork_each_process_sends_what_is_its_own(server, tmp_path, spooled):
    run(FORKS, server, tmp_path if spooled else "")
    events = sorted(item["userId"] for item in server.items if item["type"] == "event")
    assert events == ["child-a", "child-b", "parent-after", "parent-before"]
    exposed = sorted(item["userId"] for item in server.items if item["type"] == "exposure")
    assert exposed == ["u1", "u3", "u3"]
    assert set(server.ids().values()) == {1}
    assert segments(tmp_path) == []


def test_a_child_that_is_killed_leaves_its_own_items_in_the_spool(server, tmp_path):
    script = """
client.track("parent", "e")
pid = os.fork()
if pid == 0:
    client.track("child", "e")
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(pid, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run(script, server, tmp_path, code=-signal.SIGKILL)
    assert len(segments(tmp_path)) == 2
    with server.client(spool=tmp_path) as client:
        client.wait_until_ready()
        until(lambda: server.users() == {"parent", "child"})


def test_a_fork_while_other_threads_record_does_not_lock_up(server):
    script = """
import threading
client.wait_until_ready()
stop = threading.Event()
def record():
    i = 0
    while not stop.is_set():
        client.track("parent", "e"); client.variant("coupon", f"p{i}"); i += 1
threads = [threading.Thread(target=record) for _ in range(4)]
for thread in threads: thread.start()
for n in range(20):
    pid = os.fork()
    if pid == 0:
        client.track(f"child-{n}", "e")
        os._exit(0 if client.flush(20) else 1)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
"""
    run(script, server)
    assert {f"child-{n}" for n in range(20)} <= server.users()
    assert set(server.ids().values()) == {1}


def test_a_client_made_before_the_fork_starts_its_threads_after_it(server):
    script = """
for n in range(2):
    if os.fork() == 0:
        assert client.wait_until_ready(20)
        client.variant("coupon", f"u{n}")
        sys.exit()
for n in range(2): assert os.wait()[1] == 0
import threading; assert threading.active_count() == 1
"""
    run(script, server)
    assert server.users() == {"u0", "u1"}
