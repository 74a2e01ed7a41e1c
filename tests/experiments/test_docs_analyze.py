"""The examples of docs/analyze.md run as they stand."""

import re
import shlex
from pathlib import Path

import altair
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from experiments import cli
from stats import simulation

PAGE = (Path(__file__).parents[2] / "docs" / "analyze.md").read_text(encoding="utf-8")
(SHELL,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for line in SHELL.replace("\\\n", " ").splitlines() if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("files")
    names = np.array(["control", "coupon"])
    frame = pd.DataFrame(simulation.sample(simulation.Scenario(household=2), 4000, np.random.default_rng(1)))
    frame["arm"] = names[frame["variant"]]
    frame["level"] = np.where(frame["user"] % 3 == 0, "gold", "silver")
    for column in ("converted", "happened"):
        frame[column] = frame[column].astype(int)
    frame.to_csv(where / "campaign.csv", index=False)
    return where


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_run(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(command)
    done = CliRunner().invoke(cli.commands, arguments)
    assert (program, done.exit_code, done.exception) == ("upturn", 0, None), done.output


def test_the_notebook_runs() -> None:
    names: dict[str, object] = {}
    exec(PYTHON, names)
    effects, chart = names["effects"], names["chart"]
    assert isinstance(effects, pd.DataFrame)
    assert list(effects.index) == ["bought", "revenue"]
    assert effects.loc["bought", "absolute_lower"] < 0.05 * 0.3 < effects.loc["bought", "absolute_upper"]
    assert isinstance(chart, altair.TopLevelMixin)
