"""The examples of docs/uplift.md run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments import cli
from experiments.commands.uplift import uplift
from tests.experiments.uplift import made

PAGE = (Path(__file__).parents[3] / "docs" / "uplift.md").read_text(encoding="utf-8")
(SHELL,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for line in SHELL.replace("\\\n", " ").splitlines() if line]


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write(made.campaign(3000), tmp_path / "campaign.csv")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command)
    done = CliRunner().invoke(cli.commands, arguments)
    assert (program, done.exit_code, done.exception) == ("upturn", 0, None), done.output


def test_every_option_is_explained() -> None:
    named = {name for option in uplift.params for name in option.opts if name.startswith("--")}
    assert {name for name in named if name not in PAGE} == set()
