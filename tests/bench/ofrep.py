"""Evaluation over HTTP against a no-op Flask route, and against Unleash: ratios of laps that take turns.

    python -m tests.bench.ofrep                 # SQLite
    python -m tests.bench.ofrep --postgres      # and on a PostgreSQL cluster of its own (or --database postgresql://…)
    python -m tests.bench.ofrep --unleash       # and bulk against Unleash, fetched with npm into a cache folder
    python -m tests.bench.ofrep --profile       # in this process, without HTTP: CPU of a call, and where it goes

Every server is one process with the settings of `upturn serve`, and is asked over 16 connections by wrk, which only
sends what was made before. Needs wrk (a package of Debian).
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg

from experiments.settings import Settings
from tests.bench import calls, peer, serving
from tests.bench.serving import Lap, Load, request

FLAGS = "/ofrep/v1/evaluate/flags"
EXPERIMENTS = 10
USERS = 20_000
AT_ONCE = 100
ONE_THREAD = ", --threads 1"

BARS = {
    "single / no-op Flask": ("at least", 2.0),
    "single / no-op Flask, p99": ("at most", 1.0),
    f"single{ONE_THREAD} / no-op Flask{ONE_THREAD}": ("at least", 2.0),
    f"single{ONE_THREAD} / no-op Flask{ONE_THREAD}, p99": ("at most", 1.0),
    "bulk of 10 / Unleash": ("at least", 5.0),
}


def bodies(template: str, first: int = 0, count: int = USERS) -> list[bytes]:
    return [(template % f"user-{i}").encode() for i in range(first, first + count)]


def many(users: int) -> list[bytes]:
    """Requests for the variants of many users at once."""
    groups = range(0, USERS, users)
    return [json.dumps({"users": [{"user": f"user-{i + j}"} for j in range(users)]}).encode() for i in groups]


CONTEXT = '{"context":{"targetingKey":"%s"}}'
# What is asked of Upturn: name: path, bodies.
ASKED: Mapping[str, tuple[str, Sequence[bytes]]] = {
    "single": (f"{FLAGS}/flag-0", bodies(CONTEXT)),
    "bulk of 10": (FLAGS, bodies(CONTEXT)),
    "/v1/assignments, one experiment": ("/v1/assignments", bodies('{"user":"%s","experiments":["flag-0"]}')),
    "/v1/assignments, all 10": ("/v1/assignments", bodies('{"user":"%s"}')),
    f"/v1/assignments, {AT_ONCE} users": ("/v1/assignments", many(AT_ONCE)),
}


def contestants(stack: ExitStack, options: argparse.Namespace) -> dict[str, Load]:
    """Start the servers; return what is sent to each."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    settings = Settings.in_folder(folder / "store")
    key = serving.make_store(settings, EXPERIMENTS)
    loads: dict[str, Load] = {}

    def plain(name: str, app: str, settings: Settings, *arguments: str) -> None:
        module = ("tests.bench.plain", app)
        server = stack.enter_context(serving.upturn(settings, *arguments, module=module))
        sent = [request(server.port, "POST", "/noop", f"Bearer {key}", body) for body in bodies(CONTEXT)]
        loads[name] = Load(folder, server, sent)

    def ours(settings: Settings, key: str, suffix: str, names: Sequence[str], *arguments: str) -> None:
        server = stack.enter_context(serving.upturn(settings, *arguments))
        for name in names:
            path, sent = ASKED[name]
            requests = [request(server.port, "POST", path, f"Bearer {key}", body) for body in sent]
            loads[name + suffix] = Load(folder, server, requests)

    apps_only = replace(settings, streams=0)
    for suffix, chosen, arguments in (("", settings, ()), (ONE_THREAD, apps_only, ("--threads", "1"))):
        plain(f"constant WSGI callable{suffix}", "constant", chosen, *arguments)
        plain(f"no-op Flask{suffix}", "flask", chosen, *arguments)
        ours(chosen, key, suffix, tuple(ASKED) if not suffix else ("single", "bulk of 10"), *arguments)
    cluster = options.database
    if cluster is None and (options.postgres or options.unleash):
        cluster = stack.enter_context(serving.postgres())
    if cluster and (options.postgres or options.database):
        on_postgres = Settings.in_folder(folder / "pg", database_url=created(cluster, "upturn_bench"))
        pg_key = serving.make_store(on_postgres, EXPERIMENTS)
        ours(on_postgres, pg_key, " (PostgreSQL)", ("single", "bulk of 10"))
    if options.unleash:
        server = stack.enter_context(peer.unleash(created(cluster, "unleash_bench"), EXPERIMENTS))
        paths = (f"/api/frontend?userId=user-{i}" for i in range(USERS))
        loads["Unleash"] = Load(folder, server, [request(server.port, "GET", path, peer.TOKEN) for path in paths])
    return loads


def created(cluster: str, name: str) -> str:
    """Return the address of a new database in a cluster."""
    with psycopg.connect(f"{cluster}postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[call-overload]
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return f"{cluster}{name}"


def measure(options: argparse.Namespace) -> dict[str, float]:
    with ExitStack() as stack:
        loads = contestants(stack, options)
        if options.only:
            loads = {name: load for name, load in loads.items() if any(part in name for part in options.only)}
        laps: dict[str, list[Lap]] = {name: [] for name in loads}
        for lap in range(options.laps + 1):
            for name, load in loads.items():
                seen = load.run(options.seconds if lap else 1, options.connections)
                if lap:  # the first one is to get warm
                    laps[name].append(seen)

    figures: dict[str, float] = {}
    for name, seen in laps.items():
        figures[f"{name}, requests/s"] = statistics.median(lap.requests_a_second for lap in seen)
        figures[f"{name}, p99 ms"] = statistics.median(lap.p99_ms for lap in seen)
        figures[f"{name}, µs of server CPU a request"] = statistics.median(lap.cpu_us for lap in seen)
        if name.endswith(" users"):
            figures[f"{name}, users/s"] = AT_ONCE * figures[f"{name}, requests/s"]

    def compare(name: str, to: str) -> None:
        if name in laps and to in laps:
            pairs = list(zip(laps[name], laps[to], strict=True))
            figures[f"{name} / {to}"] = statistics.median(a.requests_a_second / b.requests_a_second for a, b in pairs)
            figures[f"{name} / {to}, p99"] = statistics.median(a.p99_ms / b.p99_ms for a, b in pairs)

    for name in laps:
        peer_name = f"no-op Flask{ONE_THREAD if name.endswith(ONE_THREAD) else ''}"
        if name not in (peer_name, "Unleash"):
            compare(name, peer_name)
        if name.startswith("bulk"):
            compare(name, "Unleash")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--laps", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--database", metavar="postgresql://…/", help="A cluster in use; two databases are made in it.")
    parser.add_argument("--unleash", action="store_true")
    parser.add_argument("--only", action="append", metavar="PART", help="Only rows with this in their name.")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = calls.measure(profile=True) if options.profile else measure(options)
    met = serving.tell(figures, BARS)
    if options.json:
        options.json.write_text(json.dumps({"figures": figures, "met": met}, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
