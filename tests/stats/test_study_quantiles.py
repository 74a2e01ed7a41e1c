from collections import Counter

import pytest
import scipy.stats

from tests.stats.study_quantiles import QUANTILES, miss

pytestmark = pytest.mark.study
EXPERIMENTS = 1000


@pytest.fixture(scope="module")
def missed() -> Counter[tuple[str, float, str]]:
    return miss(EXPERIMENTS, seed=20240501)


@pytest.mark.parametrize("kind", ["difference", "lift"])
@pytest.mark.parametrize("q", QUANTILES)
@pytest.mark.parametrize("design", ["users", "visits", "strata"])
def test_intervals_hold_the_truth(missed: Counter, design: str, q: float, kind: str) -> None:
    low, high = scipy.stats.binom.interval(0.999, EXPERIMENTS, 0.05)
    assert low <= missed[design, q, kind] <= high


@pytest.mark.parametrize("design", ["visits as users", "strata pooled"])
def test_ignoring_users_or_strata_does_not(missed: Counter, design: str) -> None:
    assert missed[design, 0.5, "difference"] > scipy.stats.binom.ppf(0.999999, EXPERIMENTS, 0.05)
