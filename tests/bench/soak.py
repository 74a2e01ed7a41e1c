"""Half an hour of everything that apps do, at half of what the server can: does memory stay, is anything lost?

    python -m tests.bench.soak [--minutes 30] [--json FILE]

Fails when a request fails, an exposure is missing in the inbox, or the memory of the server or of the SDK's client
grows in the second half. The peak is what the same mix reaches unthrottled in the first seconds.
"""

import argparse
import base64
import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from experiments import registry
from experiments.documents import Kind
from experiments.errors import UpturnError
from experiments.sdk import Client, Options
from experiments.settings import Settings
from experiments.store import Store
from tests.bench import serving
from tests.bench.serving import Server

EXPERIMENTS, USERS, BATCH = 10, 50_000, 20
THREADS, STREAMS = 4, 5
SAMPLE_SECONDS, CHANGE_SECONDS = 10.0, 15.0
PEAK_SECONDS = 5.0
MOST_A_SECOND = 800.0
"""Of all requests: what is taken in stays on disk, two million rows in half an hour."""
MOST_GROWTH = 0.05
"""Of memory, over the second half; a slope that its noise explains is none."""

# Shares of the calls.
MIX = {"single": 55, "bulk": 15, "assignments": 10, "sdk": 10, "events": 7, "segment": 3}


class Work:
    """The calls, and what became of them."""

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self._key = key
        self._numbers = count()
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.exposures = 0
        options = Options(flush_seconds=1, poll_seconds=5, queue_items=50_000, remembered_exposures=10_000)
        self.client = Client(f"http://127.0.0.1:{server.port}", key, options=options)

    def failed(self, what: str) -> None:
        with self._lock:
            self.failures[what] += 1

    def note(self, what: str, exposures: int = 0) -> None:
        with self._lock:
            self.done[what] += 1
            self.exposures += exposures

    def post(self, connection: http.client.HTTPConnection, path: str, body: object, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"} | headers
        connection.request("POST", path, json.dumps(body), sent)
        answer = connection.getresponse()
        told = answer.read()
        if answer.status not in (200, 202):
            raise ConnectionError(f"{path}: {answer.status} {told[:200]!r}")
        return json.loads(told)

    # One call each.

    def single(self, connection: http.client.HTTPConnection, user: str) -> None:
        body = {"context": {"targetingKey": user}}
        self.post(connection, f"/ofrep/v1/evaluate/flags/flag-{random.randrange(EXPERIMENTS)}", body)

    def bulk(self, connection: http.client.HTTPConnection, user: str) -> None:
        found = self.post(connection, "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": user}})
        if len(found["flags"]) != EXPERIMENTS:
            raise ConnectionError("bulk: not all flags came")

    def assignments(self, connection: http.client.HTTPConnection, user: str) -> None:
        self.post(connection, "/v1/assignments", {"users": [{"user": f"{user}-{i}"} for i in range(10)]})

    def sdk(self, _: http.client.HTTPConnection, user: str) -> None:
        # Every user is new, so that every exposure is one to be counted.
        someone = f"{user}-sdk-{next(self._numbers)}"
        if self.client.variant("flag-0", someone) is None or not self.client.track(someone, "purchase", 9.9):
            raise ConnectionError("sdk: no variant, or an event was not queued")
        self.note("exposures by the SDK", 1)

    def events(self, connection: http.client.HTTPConnection, user: str) -> None:
        number = next(self._numbers)
        now = datetime.now(UTC).isoformat()
        shared = {"timestamp": now, "userId": user}
        exposure = {"type": "exposure", "experiment": "flag-1", "variant": "coupon", **shared}
        event = {"type": "event", "event": "purchase", "value": 19.9, "properties": {"sku": "sku-1"}, **shared}
        batch = [(exposure if i % 2 else event) | {"messageId": f"{number}-{i}"} for i in range(BATCH)]
        if self.post(connection, "/v1/events", {"batch": batch})["accepted"] != BATCH:
            raise ConnectionError("events: not all were accepted")
        self.note("exposures in batches", BATCH // 2)

    def segment(self, connection: http.client.HTTPConnection, user: str) -> None:
        number = next(self._numbers)
        viewed = {"experiment_id": "flag-2", "variation_id": "coupon"}
        calls = [
            {"type": "track", "userId": user, "event": "Experiment Viewed", "properties": viewed},
            {"type": "track", "userId": user, "event": "purchase", "properties": {"sku": "sku-2"}},
            {"type": "identify", "userId": user, "traits": {"city": "上海", "orders": number}},
        ]
        batch = [call | {"messageId": f"{number}-{i}"} for i, call in enumerate(calls)]
        basic = base64.b64encode(f"{self._key}:".encode()).decode()
        receipt = self.post(connection, "/v1/batch", {"batch": batch}, Authorization=f"Basic {basic}")
        if receipt["rejected"]:
            raise ConnectionError(f"segment: {receipt['rejected']}")
        self.note("exposures by Segment", 1)

    # For as long as it takes.

    def calls(self, stop: threading.Event, rate: float | None) -> None:
        """Make calls of the mix one after another, so many a second, or as fast as they go."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        kinds, weights = list(MIX), list(MIX.values())
        start, made = time.monotonic(), 0
        while not stop.is_set():
            kind = random.choices(kinds, weights)[0]
            try:
                getattr(self, kind)(connection, f"user-{random.randrange(USERS)}")
                self.note(kind)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.failed(f"{kind}: {error!r}")
                connection.close()
            made += 1
            if rate is not None:
                stop.wait(max(start + made / rate - time.monotonic(), 0))
        connection.close()

    def streams(self, stop: threading.Event) -> None:
        """Open some streams, read what they say for a moment, and leave, again and again."""
        while not stop.is_set():
            opened = []
            try:
                for _ in range(STREAMS):
                    connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
                    opened.append(connection)
                    connection.request("GET", "/v1/stream", headers={"Authorization": f"Bearer {self._key}"})
                for connection in opened:
                    answer = connection.getresponse()
                    if answer.status != 200 or not answer.readline().startswith(b"retry:"):
                        raise ConnectionError(f"stream: {answer.status}")
                    self.note("streams")
            except (OSError, http.client.HTTPException) as error:
                self.failed(f"stream: {error!r}")
            stop.wait(2)
            for connection in opened:
                if connection.sock is not None:
                    connection.sock.close()
                connection.close()


def changes(store: Store, work: Work, stop: threading.Event) -> None:
    """Change a document now and then, from another process than the server's."""
    for number in count():
        if stop.wait(CHANGE_SECONDS):
            return
        try:
            with store.write() as session:
                document = registry.get(session, Kind.experiment, "flag-9").to_json() | {"name": f"changed {number}"}
                registry.revise(session, Kind.experiment, "flag-9", document, actor="soak", now=datetime.now(UTC))
            work.note("changes of a document")
        except (UpturnError, SQLAlchemyError) as error:
            work.failed(f"change: {error!r}")


def memory_mib(pids: list[int]) -> float:
    """Resident memory of processes."""
    pages = 0
    for pid in pids:
        with suppress(FileNotFoundError):  # it ended meanwhile
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def growth(samples: list[tuple[float, float]]) -> float:
    """Return the share by which memory grew over the second half, 0 where noise explains it."""
    half = np.array(samples[len(samples) // 2 :])
    at, size = half[:, 0] - half[:, 0].mean(), half[:, 1]
    slope = float(at @ size / (at @ at))
    rest = size - size.mean() - slope * at
    error = float(np.sqrt(rest @ rest / max(len(size) - 2, 1) / (at @ at)))
    return slope * float(np.ptp(half[:, 0])) / float(size.mean()) if slope > 3 * error else 0.0


def run(work: Work, store: Store, seconds: float, rate: float | None, told: Callable[[float], object]) -> float:
    """Do everything for a while; return the calls a second."""
    stop = threading.Event()
    each = None if rate is None else rate / THREADS
    threads = [threading.Thread(target=work.calls, args=(stop, each)) for _ in range(THREADS)]
    threads += [threading.Thread(target=work.streams, args=(stop,))]
    threads += [threading.Thread(target=changes, args=(store, work, stop))]
    before, start = sum(work.done[kind] for kind in MIX), time.monotonic()
    for thread in threads:
        thread.start()
    try:
        while (left := start + seconds - time.monotonic()) > 0:
            time.sleep(min(SAMPLE_SECONDS, left))
            told(time.monotonic() - start)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    return (sum(work.done[kind] for kind in MIX) - before) / (time.monotonic() - start)


def stored_exposures(store: Store) -> int:
    with store.read() as session:
        return int(session.execute(text("SELECT count(*) FROM inbox WHERE kind = 'exposure'")).scalar_one())


def soak(minutes: float) -> Iterator[tuple[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.in_folder(Path(folder))
        key = serving.make_store(settings, EXPERIMENTS)
        with serving.upturn(settings) as server, closing(Store.open(settings)) as store:
            work = Work(server, key)
            if not work.client.wait_until_ready(20):
                raise SystemExit("the SDK's client got no snapshot")
            peak = run(work, store, PEAK_SECONDS, None, lambda _: None)
            rate = min(peak / 2, MOST_A_SECOND)
            yield "peak, calls/s", peak
            pids = serving.processes(server.pid)
            sizes: dict[str, list[tuple[float, float]]] = {"server": [], "client": []}

            def sample(at: float) -> None:
                for name, who in (("server", pids), ("client", [os.getpid()])):
                    sizes[name].append((at, memory_mib(who)))
                mib = "  ".join(f"{name} {values[-1][1]:7.1f} MiB" for name, values in sizes.items())
                calls = sum(work.done[kind] for kind in MIX)
                print(f"{at:7.0f} s  {calls:9d} calls  {work.failures.total():4d} failed  {mib}", flush=True)

            yield "calls/s", run(work, store, minutes * 60, rate, sample)
            closed = work.client.close(30)
            yield "calls", dict(work.done)
            yield "failures", dict(work.failures)
            yield "client", work.client.stats()
            yield "exposures lost", work.exposures - stored_exposures(store)
            yield "client closed with everything sent", closed
            for name, values in sizes.items():
                yield f"{name} MiB", round(values[-1][1], 1)
                yield f"{name} growth over the second half", round(growth(values), 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = dict(soak(options.minutes))
    growths = [value for name, value in figures.items() if name.endswith("second half")]
    met = (
        not figures["failures"]
        and figures["exposures lost"] == 0
        and figures["client closed with everything sent"]
        and max(growths) <= MOST_GROWTH
    )
    document = json.dumps(figures | {"met": met}, indent=2)
    print(document)
    if options.json:
        options.json.write_text(document + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
