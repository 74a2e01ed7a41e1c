"""The Node clients of package.json, installed once into a folder that git ignores."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent


def installed() -> Path:
    """Return the folder whose scripts find the clients; skip the test where they cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed: run tests/system-packages.sh")
    wanted = (FOLDER / "package.json").read_bytes()
    modules = FOLDER / "node_modules"
    modules.mkdir(exist_ok=True)
    mark = modules / ".installed"
    with (modules / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_bytes() != wanted:
            options = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            done = subprocess.run(["npm", "install", *options], cwd=FOLDER, capture_output=True, text=True, timeout=300)
            if done.returncode:
                pytest.skip(f"npm could not install the clients of {FOLDER / 'package.json'}: {done.stderr[-500:]}")
            mark.write_bytes(wanted)
    return FOLDER


def run(folder: Path, script: str, given: object) -> Any:
    """Give JSON to a script of the folder, and return the JSON that it prints."""
    command = ["node", str(folder / script)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
