from collections import Counter

import pytest
import scipy.stats

from tests.stats.study_compliance import ALPHA, MOVED, cuts, misses

pytestmark = pytest.mark.study
EXPERIMENTS = 1000
HIGH = scipy.stats.binom.ppf(0.999, EXPERIMENTS, ALPHA)
LOW = scipy.stats.binom.ppf(0.001, EXPERIMENTS, ALPHA)


@pytest.fixture(scope="module")
def found() -> Counter[tuple[float, str]]:
    return misses(EXPERIMENTS, seed=20240703)


@pytest.fixture(scope="module")
def by_cut() -> tuple[Counter[str], Counter[str], Counter[str]]:
    return cuts(EXPERIMENTS, seed=20240704)


@pytest.mark.parametrize("moved", MOVED)
def test_anderson_rubin_never_misses_more_than_alpha(found: Counter[tuple[float, str]], moved: float) -> None:
    assert found[moved, "anderson-rubin"] <= HIGH
    if found[moved, "weak"] == 0:
        assert found[moved, "anderson-rubin"] >= LOW


def test_an_assignment_that_moves_few_is_called_weak(found: Counter[tuple[float, str]]) -> None:
    assert found[0.4, "weak"] == 0
    assert found[0.04, "weak"] > EXPERIMENTS / 3


def test_openers_only_is_biased(by_cut: tuple[Counter[str], Counter[str], Counter[str]]) -> None:
    bias, missed, alarms = by_cut
    assert bias["openers"] < -0.1 * EXPERIMENTS
    assert missed["openers"] > EXPERIMENTS / 2
    assert alarms["openers"] == EXPERIMENTS


@pytest.mark.parametrize("comparison", ["triggered", "reached"])
def test_triggered_and_reached_are_not(
    by_cut: tuple[Counter[str], Counter[str], Counter[str]], comparison: str
) -> None:
    bias, missed, alarms = by_cut
    assert abs(bias[comparison]) < 0.01 * EXPERIMENTS
    assert LOW <= missed[comparison] <= HIGH
    assert LOW <= alarms["triggered"] <= HIGH
