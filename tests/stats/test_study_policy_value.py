import pytest
import scipy.stats

from tests.stats.study_policy_value import ALPHA, FIRST, coverage

pytestmark = pytest.mark.study
EXPERIMENTS = 500


@pytest.mark.parametrize("world", FIRST)
def test_intervals_cover_and_the_leakage_check_keeps_its_level(world: str) -> None:
    found = coverage(world, 3000, EXPERIMENTS, seed=20240615)
    alarms = round(found.pop("leak")[0] * EXPERIMENTS)
    assert alarms <= scipy.stats.binom.isf(1e-3, EXPERIMENTS, ALPHA)
    best = round(found.pop("best constant")[0] * EXPERIMENTS)
    assert best >= scipy.stats.binom.ppf(1e-3, EXPERIMENTS, 1 - ALPHA)
    # Spending is skewed: its intervals may miss one per cent more than they say.
    nominal = 1 - ALPHA - 0.01 * (world == "revenue")
    for name, (covered, bias, ratio) in found.items():
        low, high = scipy.stats.binom.ppf(1e-3, EXPERIMENTS, nominal), scipy.stats.binom.isf(1e-3, EXPERIMENTS, nominal)
        assert low <= round(covered * EXPERIMENTS) <= high + 0.01 * EXPERIMENTS, name
        assert abs(bias) < 4 / EXPERIMENTS**0.5, name
        assert ratio == pytest.approx(1, abs=0.15), name
