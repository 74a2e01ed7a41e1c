"""Unleash as a peer: installed once into a cache folder, started on loopback, with flags like our experiments."""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import serving
from tests.bench.serving import Server

TOKEN = "*:development.upturn-bench-0123456789abcdef"
ENVIRONMENT = "development"
_FOLDER = Path(__file__).with_name("unleash")


def _installed() -> Path:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise SystemExit("node and npm are not installed: apt-get install nodejs npm")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "upturn-bench", "unleash")
    folder.mkdir(parents=True, exist_ok=True)
    wanted, mark = (_FOLDER / "package.json").read_bytes(), folder / "installed"
    if not mark.exists() or mark.read_bytes() != wanted:
        (folder / "package.json").write_bytes(wanted)
        options = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        env = os.environ | {"DO_NOT_TRACK": "1"}
        subprocess.run(["npm", "install", *options], cwd=folder, env=env, check=True, timeout=600)
        mark.write_bytes(wanted)
    return folder


def _call(port: int, method: str, path: str, body: object = None, **headers: str) -> Any:
    address = f"http://127.0.0.1:{port}{path}"
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | headers
    with urllib.request.urlopen(urllib.request.Request(address, data, headers, method=method), timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def _make_flag(port: int, name: str) -> None:
    """A flag that splits all users evenly between two variants."""
    features = "/api/admin/projects/default/features"
    _call(port, "POST", features, {"name": name, "type": "experiment", "impressionData": False})
    variants = [
        {"name": "control", "weight": 500, "weightType": "variable", "stickiness": "default"},
        {"name": "coupon", "weight": 500, "weightType": "variable", "stickiness": "default",
         "payload": {"type": "json", "value": '{"copy":"hello"}'}},
    ]  # fmt: skip
    parameters = {"rollout": "100", "stickiness": "default", "groupId": name}
    strategy = {"name": "flexibleRollout", "parameters": parameters, "constraints": [], "variants": variants}
    _call(port, "POST", f"{features}/{name}/environments/{ENVIRONMENT}/strategies", strategy)
    _call(port, "POST", f"{features}/{name}/environments/{ENVIRONMENT}/on")


@contextmanager
def unleash(database: str, flags: int) -> Iterator[Server]:
    """Run Unleash with so many flags; ready once it serves them all."""
    folder, port = _installed(), serving.free_port()
    command = ["node", str(_FOLDER / "start.js"), str(port), database, TOKEN]
    env = {"DO_NOT_TRACK": "1", "NODE_ENV": "production"}
    with serving.running(command, port, path="/health", env=env, cwd=folder) as server:
        for i in range(flags):
            _make_flag(port, f"flag-{i}")
        for _ in range(300):
            toggles = _call(port, "GET", "/api/frontend?userId=user-1", Authorization=TOKEN)["toggles"]
            if len(toggles) == flags and all(toggle["variant"]["enabled"] for toggle in toggles):
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"Unleash serves {len(toggles)} of {flags} flags")
        yield server
