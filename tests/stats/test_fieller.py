import math

import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.arms import means
from stats.effects import relative
from stats.fieller import ratio_limits
from stats.horizon import Fixed
from tests.stats.reference import SPEND, hillstrom

lawful = settings(database=None, derandomize=True, deadline=None, max_examples=200)
CASES = st.floats(-20, 20), st.floats(1, 20), st.floats(-0.95, 0.95), st.floats(0.05, 3), st.floats(0.05, 3)


@lawful
@given(*CASES)
def test_limits_solve_their_definition(top: float, bottom: float, r: float, se_top: float, se_bottom: float) -> None:
    shared = r * se_top * se_bottom
    limits = ratio_limits(top, bottom, se_top**2, shared, se_bottom**2, 1.96)
    assert (limits is None) == (bottom <= 1.96 * se_bottom)
    if limits is None:
        return
    for limit in limits:
        variance = se_top**2 - 2 * limit * shared + limit**2 * se_bottom**2
        scale = abs(top) + abs(limit * bottom) + math.sqrt(variance)
        assert abs(top - limit * bottom) == pytest.approx(1.96 * math.sqrt(variance), abs=1e-6 * scale)
    assert limits[0] <= top / bottom <= limits[1]
    if abs(abs(top) - 1.96 * se_top) > 1e-9:
        assert (limits[0] > 0 or limits[1] < 0) == (abs(top) > 1.96 * se_top)
    assert ratio_limits(-top, -bottom, se_top**2, shared, se_bottom**2, 1.96) == pytest.approx(limits, rel=1e-9)
    mirrored = ratio_limits(-top, bottom, se_top**2, -shared, se_bottom**2, 1.96)
    assert mirrored == pytest.approx((-limits[1], -limits[0]), rel=1e-9)


def test_limits_equal_a_root_search() -> None:
    def excess(ratio: float) -> float:
        return (3 - ratio * 5) ** 2 - 4 * (0.3 - 2 * ratio * 0.1 + ratio**2 * 0.4)

    limits = ratio_limits(3, 5, 0.3, 0.1, 0.4, 2)
    assert limits is not None
    assert limits[0] == pytest.approx(scipy.optimize.brentq(excess, -5, 0.6), abs=1e-10)
    assert limits[1] == pytest.approx(scipy.optimize.brentq(excess, 0.6, 5), abs=1e-10)


def test_relative_lift_is_the_special_case() -> None:
    arms = means(hillstrom(), SPEND)
    lift = relative(arms, 1, 0, Fixed(0.05))
    v = arms.covariance
    df = (v[0, 0] + v[1, 1]) ** 2 / (arms.satterthwaite[0] + arms.satterthwaite[1])
    critical = Fixed(0.05).critical(0, df)
    limits = ratio_limits(arms.mean[1] - arms.mean[0], arms.mean[0], v[1, 1] + v[0, 0], -v[0, 0], v[0, 0], critical)
    assert limits == pytest.approx((lift.lower, lift.upper), rel=1e-12)


def test_an_exact_zero_numerator_without_variance_is_a_point() -> None:
    assert ratio_limits(0.0, 5.0, 0.0, 0.0, 1.0, 2.0) == (0.0, 0.0)
    assert ratio_limits(0.0, 0.0, 1.0, 0.0, 0.0, 2.0) is None
