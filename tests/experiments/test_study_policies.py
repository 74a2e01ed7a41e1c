from pathlib import Path

import pytest
import scipy.stats

from experiments.promises import Delivery
from tests.experiments.study_policies import SHARE, run, truth


@pytest.mark.parametrize(
    ("policies", "users"), [(2, 1_500), pytest.param(200, 2_500, marks=pytest.mark.study)], ids=["quick", "study"]
)
def test_the_interval_of_the_realised_lift_holds_the_truth(tmp_path: Path, policies: int, users: int) -> None:
    found = run(tmp_path, policies, users, seed=11)
    covered = 0
    # Now and then a sample ratio alarms by chance.
    assert sum(one.delivery is Delivery.invalid for one in found) <= policies // 100
    for one in found:
        assert one.realised is not None
        covered += one.realised.lower <= truth() <= one.realised.upper
        held = one.held_back / (one.held_back + one.treated)
        assert abs(held - 0.75 * SHARE / (1 - 0.25 * SHARE)) < 0.05
    low, high = scipy.stats.binom.interval(0.999, policies, 0.95)
    assert low <= covered <= high
