from pathlib import Path

import pytest
import scipy.stats

from experiments.adaptive import AdaptCode
from tests.experiments.study_adaptive import WAVES, covered, run, share_of

EQUAL, BETTER = {"a": 0.2, "b": 0.2, "c": 0.2}, {"a": 0.2, "b": 0.22, "c": 0.34}


@pytest.mark.parametrize("method", ["fixed", "sequential"])
@pytest.mark.parametrize("rates", [EQUAL, BETTER], ids=["equal", "better"])
@pytest.mark.parametrize(
    ("experiments", "users"), [(1, 1_500), pytest.param(30, 2_000, marks=pytest.mark.study)], ids=["quick", "study"]
)
def test_intervals_hold_and_the_better_variant_gets_more_users(
    tmp_path: Path, experiments: int, users: int, rates: dict[str, float], method: str
) -> None:
    found = run(tmp_path, rates, experiments, users, 3, method)
    low, high = scipy.stats.binom.interval(0.9995, experiments, 0.95)
    for held in covered(found, rates).values():
        assert held >= low
        assert held <= high or method == "sequential"
    wrong = 0
    for one in found:
        assert one.codes == [AdaptCode.opened] * (WAVES - 1) + [AdaptCode.complete]
        assert all(share >= 0.1 for wave in one.document.waves for share in wave.shares().values())
        assert one.report.adaptive is not None
        wrong += any(contrast.significant for contrast in one.report.adaptive.contrasts)
    if rates is EQUAL:
        # Holm keeps the family of both comparisons at 5 %.
        assert wrong <= scipy.stats.binom.isf(0.0005, experiments, 0.05)
    else:
        assert share_of(found, "c") > 0.5
