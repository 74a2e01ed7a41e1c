"""What the benchmarks of calls share: a store to ask, servers to start, and wrk to load them."""

import http.client
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments import access, registry
from experiments.documents import Kind, Status
from experiments.settings import Settings
from experiments.store import Store

ROOT = Path(__file__).resolve().parents[2]
LOAD = Path(__file__).with_name("load.lua")
METRIC = {"key": "buyers", "name": "Buyers", "kind": "conversion", "event": "purchase", "window_days": 7}


def experiment(key: str) -> dict[str, Any]:
    """A running experiment's document: two variants, everybody takes part."""
    return {
        "key": key,
        "name": key,
        "variants": [{"key": "control"}, {"key": "coupon", "tactic": {"copy": "hello"}}],
        "control": "control",
        "metrics": [{"key": "buyers", "role": "primary"}],
        "plan": {"planned_users": 10_000},
    }


def make_store(settings: Settings, experiments: int) -> str:
    """Create a store with running experiments ``flag-0``, ``flag-1`` …; return a key that may do what apps do."""
    now = datetime.now(UTC)
    store = Store.open(settings, migrate=True)
    with store.write() as session:
        registry.create(session, Kind.metric, METRIC, actor="bench", now=now)
        for i in range(experiments):
            registry.create(session, Kind.experiment, experiment(f"flag-{i}"), actor="bench", now=now)
            registry.move(session, f"flag-{i}", Status.running, actor="bench", now=now)
        key = access.create_key(session, "bench", ["assign", "ingest"], now=now)
    store.close()
    return key


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Server:
    """A server in a process of its own, on loopback."""

    port: int
    pid: int


@contextmanager
def running(
    command: Sequence[str], port: int, *, path: str = "/healthz", env: Mapping[str, str] = {}, cwd: Path = ROOT
) -> Iterator[Server]:
    """Run a server, from its first answer on; its end is asked for by its pid."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env=os.environ | dict(env), cwd=cwd, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                    connection.request("GET", path)
                    connection.getresponse().read()
                    break
                except OSError:
                    time.sleep(0.1)
                finally:
                    connection.close()
                if server.poll() is not None:
                    break
            else:
                server.kill()
            if server.poll() is not None:
                log.seek(0)
                raise SystemExit(f"{' '.join(command)} did not start: {log.read().decode(errors='replace')[-2000:]}")
            yield Server(port, server.pid)
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def processes(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parts[2]))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(part[11]) + int(part[12]) for part in fields) / os.sysconf("SC_CLK_TCK")


@contextmanager
def upturn(settings: Settings, *options: str, module: Sequence[str] = ("experiments.cli",)) -> Iterator[Server]:
    """``upturn serve`` on a free port; ``module`` serves something else with the same settings (see plain.py)."""
    port = free_port()
    command = [sys.executable, "-m", *module, "serve", "--port", str(port), *options]
    with running(command, port, env=settings.to_env()) as server:
        yield server


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL cluster of our own; yields the address of its databases, to which a name is added."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    binaries, port = found[-1].parent, free_port()
    folder = Path(tempfile.mkdtemp(prefix="upturn-bench-pg-"))
    prefix: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, str(binaries / program), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    try:
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql://postgres@127.0.0.1:{port}/"
    finally:
        run("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


# Load.


def request(port: int, method: str, path: str, authorization: str, body: bytes = b"") -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: {authorization}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Lap:
    """What one run of wrk saw."""

    requests_a_second: float
    p99_ms: float
    cpu_us: float
    """CPU time of the server's processes for one request."""


class Load:
    """Requests made beforehand, so that sending them costs the same for every server."""

    def __init__(self, folder: Path, server: Server, requests: Iterable[bytes]) -> None:
        if shutil.which("wrk") is None:
            raise SystemExit("wrk is not installed: apt-get install wrk")
        self._server = server
        self._file = folder / f"requests-{server.port}-{time.monotonic_ns()}"
        self._file.write_bytes(b"".join(b"%d\n%b\n" % (len(text), text) for text in requests))

    def run(self, seconds: int, connections: int) -> Lap:
        """Send them in turn for a while; a refusal of any of them ends the benchmark."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(LOAD)]
        command += [f"http://127.0.0.1:{self._server.port}", "--", str(self._file)]
        pids = processes(self._server.pid)
        before = cpu_seconds(pids)
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
        seen = json.loads(done.stdout.rpartition("RESULT ")[2])
        if seen["errors"]:
            raise SystemExit(f"{seen['errors']} requests failed: {' '.join(command)}")
        used = cpu_seconds(pids) - before
        return Lap(seen["requests"] / seen["seconds"], seen["p99_us"] / 1000, used / seen["requests"] * 1e6)


def tell(figures: Mapping[str, float], bars: Mapping[str, tuple[str, float]]) -> bool:
    """Print figures, with their bars; return whether all of those are met."""
    met = True
    for name, value in figures.items():
        side, bar = bars.get(name, ("", 0.0))
        good = not side or (value <= bar if side == "at most" else value >= bar)
        met &= good
        verdict = side and f"{side} {bar:g}: {'met' if good else 'MISSED'}"
        print(f"{name:<52}{value:>12,.2f}  {verdict}")
    return met
