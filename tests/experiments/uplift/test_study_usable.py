import pytest

from tests.experiments.uplift.study_usable import usable_share

pytestmark = pytest.mark.study


@pytest.mark.parametrize("arms", [2, 3])
def test_noise_is_called_usable_in_at_most_five_per_cent(arms: int) -> None:
    """Of 600 runs; the limit is three standard errors above 5 %."""
    assert usable_share(600, seed=20 + arms, arms=arms) <= 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


def test_a_difference_is_found() -> None:
    """57 % of 2,000 runs; the limit is more than three standard errors of 100 runs below."""
    assert usable_share(100, seed=30, strength=0.3) > 0.4
