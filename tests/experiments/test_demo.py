import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import promises, registry, reports
from experiments.demo import frequency, uplift
from experiments.documents import Kind
from experiments.settings import Settings
from experiments.store import Store
from stats import simulation

# No name is resolved and nothing is connected to: whoever tries ends the program.
OFFLINE = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("the network was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""


def run(folder: Path) -> tuple[str, float]:
    """The demo in a process of its own, away from the repository, without a network."""
    (folder / "sitecustomize.py").write_text(OFFLINE, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPTURN_")}
    program = Path(sys.executable).with_name("upturn")
    started = time.perf_counter()
    done = subprocess.run(
        [program, "demo", "--no-serve", "--folder", folder / "demo"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, time.perf_counter() - started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("away")


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[tuple[str, float]]:
    return [run(folder), run(folder)]


def test_the_published_figures_are_shown_within_a_minute(runs: list[tuple[str, float]]) -> None:
    out, seconds = runs[0]
    assert "taken in: 73,972 items, 0 known already" in out
    assert "taken in: 39,600 items, 0 known already" in out
    for figure in ("0.6528", "1.4226", "1.0772", "10.6167%", "18.2757%", "15.1400%"):
        assert figure in out
    for line in ("sample ratio: p = 0.9037", "+7.659 [", "pooled z 22.4860", "welch t 5.3001", "21,306", "21,387"):
        assert line in out
    assert "decision: ship Mens E-Mail to everyone; worth 49,269 USD a month" in out
    assert seconds < 180


def test_a_second_run_adds_nothing_and_shows_the_same(runs: list[tuple[str, float]]) -> None:
    first, second = (re.sub(r"as of \S+\)|taken in.*", "", out) for out, _ in runs)
    assert "taken in: 0 items, 73,972 known already" in runs[1][0]
    assert "taken in: 0 items, 39,600 known already" in runs[1][0]
    assert first == second


def test_the_frequencies_that_may_be_best_hold_the_one_that_is(runs: list[tuple[str, float]]) -> None:
    scenario = frequency.SCENARIO
    revenue = scenario.shares @ simulation.truth(scenario)["revenue"]
    touches = np.array([variant.touches for variant in scenario.variants])
    net = frequency.MARGIN * revenue - frequency.COST * touches * frequency.WINDOW_DAYS / 7
    shown = re.search(r"best of those tested: (.*)", runs[0][0])
    assert shown is not None
    assert str(touches[int(net.argmax())]) in shown[1].split(" or ")


def test_the_study_of_the_demo_becomes_a_policy_whose_gain_is_measured(
    runs: list[tuple[str, float]], folder: Path
) -> None:
    settings = Settings.in_folder(folder / "demo", currency="USD")
    environment = os.environ | settings.to_env()
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "experiments.demo.uplift"], env=environment, check=True)
    store = Store.open(settings)
    try:
        with store.read() as session:
            policy = registry.get(session, Kind.policy, uplift.POLICY)
            saved = reports.latest(session, uplift.POLICY, Kind.policy)
        assert saved is not None
        found = promises.realised(policy, saved.report, saved.id, "USD")
    finally:
        store.close()
    assert {rule.variant for rule in policy.rules} == {"mens-email", "womens-email"}
    assert saved.report.srm.problem is None
    assert found.delivery is promises.Delivery.kept
    # What the campaign itself brought: 18.28 % and 15.14 % instead of 10.62 %.
    assert found.realised is not None
    assert 0.4 < found.realised.estimate < 1.0
