"""Ingest over HTTP in batches of 500, against the raw driver's bulk insert of the same rows.

    python tests/bench/ingest.py                                # SQLite
    python tests/bench/ingest.py --database postgresql://...    # an empty database on PostgreSQL

One served process, two client connections, one commit a batch on both sides, the same tables and indexes, in turns.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from experiments import access, database
from experiments.settings import Settings
from experiments.store import Store

BATCH = 500
COLUMNS = "message_id, kind, user_id, name, at_us, received_us, value_micros, phase, variant, stratum, data, position"


def items(lap: int, batch: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "event",
            "messageId": f"{lap}-{batch}-{i}-9f1c2d",
            "userId": f"user-{(batch * BATCH + i) % 40_000}",
            "event": "purchase",
            "timestamp": "2026-11-01T08:00:00+08:00",
            "value": 19.9,
            "properties": {"sku": f"sku-{i}", "channel": "wecom"},
        }
        for i in range(BATCH)
    ]


def rows(lap: int, batch: int) -> list[tuple[Any, ...]]:
    return [
        (f"raw-{item['messageId']}", "event", item["userId"], "purchase", 1, 1, 19_900_000, None, None, None,
         json.dumps(item["properties"]), 0)
        for item in items(lap, batch)
    ]  # fmt: skip


def over_http(connections: list[http.client.HTTPConnection], key: str, bodies: list[bytes]) -> float:
    parts = [bodies[i :: len(connections)] for i in range(len(connections))]
    start = time.perf_counter()
    with ThreadPoolExecutor(len(connections)) as pool:
        list(pool.map(send, connections, repeat(key), parts))
    return len(bodies) * BATCH / (time.perf_counter() - start)


def send(connection: http.client.HTTPConnection, key: str, bodies: list[bytes]) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for body in bodies:
        connection.request("POST", "/v1/events", body, headers)
        answer = connection.getresponse()
        receipt = json.loads(answer.read())
        if answer.status != 202 or receipt["accepted"] != BATCH:
            raise SystemExit(f"{answer.status}: {receipt}")


def by_driver(engine: Engine, batches: list[list[tuple[Any, ...]]]) -> float:
    marks = ", ".join(["%s" if database.is_postgres(engine) else "?"] * 12)
    statement = f"INSERT INTO inbox ({COLUMNS}) VALUES ({marks})"
    connection = engine.raw_connection()
    cursor = connection.cursor()
    start = time.perf_counter()
    for batch in batches:
        if not database.is_postgres(engine):
            cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(statement, batch)
        connection.commit()
    seconds = time.perf_counter() - start
    connection.close()
    return len(batches) * BATCH / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database")
    parser.add_argument("--laps", type=int, default=5)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        settings = Settings.in_folder(Path(folder), database_url=arguments.database)
        store = Store.open(settings, migrate=True)
        with store.write() as session:
            key = access.create_key(session, "bench", ["ingest"], now=datetime.now(UTC))
        workers = str(arguments.workers)
        command = [sys.executable, "-m", "experiments.cli", "serve", "--port", str(port), "--workers", workers]
        server = subprocess.Popen(command, env=os.environ | settings.to_env(), stdout=subprocess.DEVNULL)
        try:
            connections = [wait_for(port) for _ in range(arguments.connections)]
            over_http(connections, key, [json.dumps({"batch": items(-1, b)}).encode() for b in range(10)])
            ours, raw = [], []
            for lap in range(arguments.laps):
                bodies = [json.dumps({"batch": items(lap, b)}).encode() for b in range(arguments.batches)]
                ours.append(over_http(connections, key, bodies))
                raw.append(by_driver(store.engine, [rows(lap, b) for b in range(arguments.batches)]))
        finally:
            server.terminate()
            server.wait(timeout=20)
        store.close()
    share = [a / b for a, b in zip(ours, raw, strict=True)]
    result = {
        "database": "postgresql" if arguments.database else "sqlite",
        "rows_a_second_over_http": round(statistics.median(ours)),
        "rows_a_second_by_driver": round(statistics.median(raw)),
        "share_of_driver": round(statistics.median(share), 2),
    }
    print(json.dumps(result, indent=2))


def wait_for(port: int) -> http.client.HTTPConnection:
    for _ in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            return connection
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
