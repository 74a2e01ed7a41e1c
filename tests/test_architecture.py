"""The import directions are a test, not a wish."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_go_only_downwards() -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    answer = subprocess.run([sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_top_level_holds_nothing_but_the_house() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines() if not line.startswith(".")}
    assert top == {"README.md", "docs", "experiments", "pyproject.toml", "stats", "tests", "web", "wsgi.py"}


def test_no_module_is_a_drawer_for_everything() -> None:
    names = {path.name for folder in ("experiments", "stats", "web") for path in (ROOT / folder).rglob("*.py")}
    assert not names & {"utils.py", "helpers.py", "common.py", "misc.py"}
