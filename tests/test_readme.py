"""What README and the operations page say is so: their examples run, and name what exists."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import commands
from experiments.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_first_two_blocks_are_the_run_and_the_test_command() -> None:
    run, test = blocks("sh")[:2]
    assert run.splitlines()[-1] == "upturn demo"
    assert test.splitlines()[-1] == "pytest"
    assert (ROOT / ".ci" / "constraints.txt").is_file()
    assert (ROOT / "tests" / "system-packages.sh").is_file()


@pytest.mark.parametrize("example", blocks("python"))
def test_the_examples_run(example: str) -> None:
    exec(compile(example, "README.md", "exec"), {})


def test_the_analysis_of_a_file_runs_as_written(tmp_path: Path) -> None:
    command = next(block for block in blocks("sh") if "upturn analyze" in block)
    packed = ROOT / "experiments" / "demo" / "hillstrom.csv.gz"
    (tmp_path / "campaign.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    words = shlex.split(command.replace("\\\n", " "))
    answer = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words[1:]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert answer.returncode == 0, answer.stderr
    assert "pooled z 22.4860" in answer.stdout
    assert "ship Mens E-Mail to everyone" in answer.stdout


def test_every_command_named_exists() -> None:
    named = re.findall(r"upturn ([a-z]+)", README)
    assert len(named) > 5
    assert set(named) <= set(commands.commands)


def test_every_command_is_in_the_changelog() -> None:
    changelog = (ROOT / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in changelog for name in commands.commands)


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in Settings.in_folder("x").to_env())


def test_every_page_linked_exists() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
