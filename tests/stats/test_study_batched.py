import pytest
import scipy.stats

from tests.stats.study_batched import large, simulate


@pytest.mark.study
@pytest.mark.parametrize("case", ["equal", "better", "drift", "drift, better"])
def test_intervals_within_waves_hold_and_the_better_arm_has_more_users(case: str) -> None:
    experiments = 1000
    found = simulate(case, experiments, seed=7)
    low, high = scipy.stats.binom.interval(0.9995, experiments, 0.95)
    for arm in (2, 3):
        assert low <= found["batched"][f"covered {arm}"] * experiments <= high
        assert found["sequence"][f"covered {arm}"] * experiments >= low
    share = found["users"]["on the last arm"]
    assert share > 0.45 if "better" in case else abs(share - 1 / 3) < 0.05
    if case == "drift, better":
        # The pooled means mistake the level for an effect.
        assert found["pooled"]["covered 3"] < 0.9


@pytest.mark.parametrize("experiments", [1000, pytest.param(20_000, marks=pytest.mark.study)], ids=["quick", "study"])
@pytest.mark.parametrize("truth", [0.0, 0.1])
def test_in_large_waves_the_level_is_exact_and_that_of_pooled_means_is_not(truth: float, experiments: int) -> None:
    found = large(0.01, truth, experiments, seed=3)
    low, high = scipy.stats.binom.interval(0.9995, experiments, 0.95)
    assert low <= found["batched"][0] * experiments <= high
    assert found["batched"][1] < 0.95 * found["stratified"][1]
    if truth == 0:
        assert found["pooled"][0] * experiments < low
