"""An instance as operators start it: the command in a process of its own, on a free port of the loopback."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import create_engine, text

from experiments import access
from experiments.settings import Settings
from experiments.store import Store

ROOT = Path(__file__).parents[2]


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    json: Any


class Row(NamedTuple):
    """One row of the inbox."""

    kind: str
    user_id: str
    name: str
    value_micros: int | None
    phase: int | None
    variant: str | None
    stratum: str | None
    data: Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until something happens, and return it."""
    ends = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < ends, f"nothing within {seconds} s"
        time.sleep(0.02)
    return value


class Served:
    """A store in a folder, and the server on it; ``keys`` are its API keys by name."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.keys: dict[str, str] = {}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {"UPTURN_STORE": str(folder), "PYTHONPATH": str(ROOT), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> str:
        """Run ``upturn`` on the store, and return what it prints."""
        command = [sys.executable, "-m", "experiments.cli", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        command = [sys.executable, "-m", "experiments.cli", "serve", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        process = self._process

        def healthy() -> bool:
            assert process.poll() is None, self.log()
            with contextlib.suppress(OSError):
                return self.ask("GET", "/healthz", key=None).status == 200
            return False

        until(healthy)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server and its workers, which are the processes of its own group."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def ask(self, method: str, path: str, body: object = None, key: str | None = "admin", **headers: str) -> Answer:
        """Ask the server with one of the keys, and return the answer, also of a failure."""
        sent = {"Content-Type": "application/json"} | headers
        if key is not None:
            sent["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return Answer(reply.status, reply.headers, _decoded(reply.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, _decoded(error.read()))

    def create(self, kind: str, document: Mapping[str, Any]) -> None:
        answer = self.ask("POST", f"/v1/{kind}", document)
        assert answer.status == 201, answer

    def move(self, experiment: str, status: str) -> None:
        answer = self.ask("POST", f"/v1/experiments/{experiment}/status", {"status": status})
        assert answer.status == 200, answer

    def send(self, items: list[dict[str, Any]]) -> None:
        answer = self.ask("POST", "/v1/events", {"batch": items})
        assert (answer.status, answer.json["rejected"]) == (202, []), answer

    def assignments(self, users: list[dict[str, Any]], experiments: list[str]) -> list[dict[str, Any]]:
        """Return for each user the answers by experiment."""
        answer = self.ask("POST", "/v1/assignments", {"users": users, "experiments": experiments}, key="app")
        assert answer.status == 200, answer
        return [one["assignments"] for one in answer.json["users"]]

    def rows(self, where: str, **values: object) -> list[Row]:
        """Read the inbox, in the order of arrival."""
        engine = create_engine(f"sqlite:///file:{self.folder / 'upturn.db'}?mode=ro&uri=true")
        names = ", ".join(Row._fields)
        try:
            with engine.connect() as connection:
                found = connection.execute(text(f"SELECT {names} FROM inbox WHERE {where} ORDER BY seq"), values).all()
        finally:
            engine.dispose()
        return [Row(*row[:-1], None if row[-1] is None else json.loads(row[-1])) for row in found]


def opened(folder: Path, page: str, **environment: str) -> Served:
    """Make an empty store with keys, one of them for pages of the origin ``page``, and serve it."""
    served = Served(folder, **environment)
    store = Store.open(Settings.in_folder(folder), migrate=True)
    with store.write() as session:
        for name, scopes, origins in (
            ("admin", ["admin"], []),
            ("app", ["assign", "ingest"], []),
            ("write", ["ingest"], []),
            ("page", ["assign", "ingest"], [page]),
            ("elsewhere", ["assign", "ingest"], ["https://elsewhere.example"]),
        ):
            served.keys[name] = access.create_key(session, name, scopes, origins=origins, now=datetime.now(UTC))
    store.close()
    served.start()
    return served


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode(errors="replace")
