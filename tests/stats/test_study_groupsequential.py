import pytest
import scipy.stats

from stats.power import Looks, Mean, Plan, detectable
from tests.stats.study_groupsequential import (
    ALPHA,
    LOOKS,
    SHAPE,
    SPENDING,
    USERS,
    planned_effect,
    sequence_power,
    stop,
)

pytestmark = pytest.mark.study
EXPERIMENTS = 1000
SEED = 20240601


def plausible(share: float, truth: float) -> bool:
    low, high = scipy.stats.binom.interval(0.998, EXPERIMENTS, truth)
    return bool(low <= share * EXPERIMENTS <= high)


@pytest.mark.parametrize("name", SPENDING)
def test_error_is_alpha_over_all_looks(name: str) -> None:
    nothing = stop(EXPERIMENTS, 0.0, SPENDING[name], SEED)
    assert plausible(nothing.upward, ALPHA / 2)
    assert plausible(nothing.downward, ALPHA / 2)
    assert plausible(nothing.stagewise, 1 - ALPHA)


@pytest.mark.parametrize("name", SPENDING)
def test_power_is_planned_and_stagewise_is_unbiased_in_the_median(name: str) -> None:
    found = stop(EXPERIMENTS, planned_effect(Looks.equal(LOOKS, SPENDING[name])), SPENDING[name], SEED)
    assert plausible(found.upward, 0.8)
    assert plausible(found.stagewise, 1 - ALPHA)
    assert plausible(found.stagewise_above, 0.5)
    assert found.naive_above > found.stagewise_above + 0.03
    assert found.users < 0.85 * USERS


@pytest.mark.parametrize("target", [0.5, 0.8])
def test_power_of_the_sequence_is_a_lower_limit(target: float) -> None:
    effect = detectable(Plan(Mean(SHAPE, SHAPE), stopping="sequential"), USERS, target)
    at_end, ever = sequence_power(EXPERIMENTS, effect, SEED)
    assert plausible(at_end, target)
    assert target < ever < target + 0.15
