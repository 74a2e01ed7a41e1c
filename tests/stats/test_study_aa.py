from collections import Counter

import pytest
import scipy.stats

from tests.stats.study_aa import ALPHA, METRICS, count_rejections

pytestmark = pytest.mark.study
EXPERIMENTS = 500


@pytest.fixture(scope="module")
def alarms() -> Counter[tuple[str, str]]:
    return count_rejections(EXPERIMENTS, seed=20240501)


@pytest.mark.parametrize(
    ("metric", "method"), [*((metric, "fixed, last day") for metric in METRICS), ("conversion", "score, last day")]
)
def test_one_look_has_the_nominal_error(alarms: Counter, metric: str, method: str) -> None:
    low, high = scipy.stats.binom.interval(0.99, EXPERIMENTS, ALPHA)
    assert low <= alarms[metric, method] <= high


@pytest.mark.parametrize("metric", METRICS)
def test_sequential_looks_every_day_stay_below_alpha(alarms: Counter, metric: str) -> None:
    assert alarms[metric, "sequential, every day"] <= ALPHA * EXPERIMENTS


@pytest.mark.parametrize("metric", METRICS)
def test_fixed_looks_every_day_do_not(alarms: Counter, metric: str) -> None:
    assert alarms[metric, "fixed, every day"] > scipy.stats.binom.ppf(0.999999, EXPERIMENTS, ALPHA)
