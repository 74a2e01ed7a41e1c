import numpy as np
import pytest
import scipy.stats

from tests.stats.study_adaptive import TRUTHS, simulate

pytestmark = pytest.mark.study
EXPERIMENTS = 500


@pytest.fixture(scope="module", params=TRUTHS)
def found(request: pytest.FixtureRequest) -> dict[str, dict[str, np.ndarray]]:
    return simulate(TRUTHS[request.param], EXPERIMENTS, seed=20241106)


@pytest.mark.parametrize("method", ["constant", "two-point"])
def test_weighted_intervals_hold_and_are_no_wider_than_unweighted_ones(found: dict, method: str) -> None:
    for covered in found[method]["covered"]:
        assert scipy.stats.binomtest(round(covered * EXPERIMENTS), EXPERIMENTS, 0.95).pvalue > 1e-3
    for below in found[method]["below"]:
        assert abs(below - 0.5) < 0.08
    # All but the best arm, whose share is nearly constant.
    assert (found[method]["width"][[0, 1, 3]] < found["unweighted"]["width"][[0, 1, 3]]).all()


def test_plain_means_are_too_low_and_unweighted_scores_unbiased() -> None:
    found = simulate(TRUTHS["equal"], EXPERIMENTS, seed=20241107)
    standard_error = found["unweighted"]["width"][:3] / 3.92 / EXPERIMENTS**0.5
    assert (np.abs(found["unweighted"]["bias"][:3]) < 4 * standard_error).all()
    assert (found["naive"]["bias"][:3] < -4 * standard_error).all()
    assert (found["naive"]["below"][:3] > 0.55).all()
    assert found["naive"]["covered"][3] < 0.93
