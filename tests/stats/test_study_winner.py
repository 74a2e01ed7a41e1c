import pytest
import scipy.stats

from tests.stats.study_winner import KINDS, SIZES, TRUTHS, simulate

pytestmark = pytest.mark.study
EXPERIMENTS = 600


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRUTHS)
def test_corrected_is_median_unbiased_and_covers(name: str, size: int) -> None:
    found = simulate(TRUTHS[name](size), EXPERIMENTS, seed=20240608)
    for kind in KINDS:
        above, covered, _ = found[kind]
        assert scipy.stats.binomtest(round(above * EXPERIMENTS), EXPERIMENTS, 0.5).pvalue > 1e-3
        assert scipy.stats.binomtest(round(covered * EXPERIMENTS), EXPERIMENTS, 0.95).pvalue > 1e-3


def test_naive_estimate_of_the_best_of_ten_equal_arms_is_nearly_always_too_high() -> None:
    above, covered, _ = simulate(TRUTHS["equal"](10), EXPERIMENTS, seed=20240608)["naive"]
    assert above > 0.88
    assert covered < 0.9
