import pytest

from tests.stats.study_shrinkage import PRIORS, simulate

pytestmark = pytest.mark.study
EXPERIMENTS = 60


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(("size", "tau"), [(3, 0.5), (8, 0.0), (8, 1.0), (30, 1.0)])
def test_average_coverage_holds_whatever_the_prior_and_is_close_to_nominal(prior: str, size: int, tau: float) -> None:
    covered, plugged, error = simulate(prior, size, tau, EXPERIMENTS, seed=20240607)
    assert covered > 0.915
    assert covered > plugged
    assert error < 0.85
