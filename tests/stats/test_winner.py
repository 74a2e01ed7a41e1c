import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.effects import Interval
from stats.errors import Problem, StatError
from stats.winner import corrected
from tests.stats.reference import load

REFERENCE = load("winner.json")
KINDS = {"conditional": 0.0, "hybrid": None}
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=100)


def numbers(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.lower, interval.upper


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_equals_its_definition_in_80_digits_and_multiple_inference(case: dict, kind: str) -> None:
    found = corrected(np.array(case["estimates"]), np.array(case["covariance"]), None, REFERENCE["alpha"], KINDS[kind])
    assert numbers(found) == pytest.approx(case[kind]["definition"], rel=1e-10)
    if case[kind]["package"] is not None:
        assert numbers(found) == pytest.approx(case[kind]["package"], rel=1e-8)


@pytest.mark.parametrize("beta", KINDS.values())
def test_no_rival_close_by_gives_the_plain_interval(beta: float | None) -> None:
    half = scipy.stats.norm.isf(0.025) * 2
    alone = corrected(np.array([3.0]), np.array([[4.0]]), None, 0.05, beta)
    assert numbers(alone) == pytest.approx((3, 3 - half, 3 + half), rel=1e-10)
    ahead = corrected(np.array([-500.0, 3.0]), np.diag([1.0, 4.0]), 1, 0.05, 0.0)
    assert numbers(ahead) == pytest.approx((3, 3 - half, 3 + half), rel=1e-10)


@lawful
@given(
    st.lists(st.floats(-6, 6), min_size=2, max_size=6, unique=True),
    st.floats(0, 0.9),
    st.floats(1e-6, 1e6),
    st.floats(-1e3, 1e3),
    st.sampled_from(list(KINDS.values())),
)
def test_shift_and_scale_and_order_of_arms(
    estimates: list[float], shared: float, scale: float, shift: float, beta: float | None
) -> None:
    x = np.round(np.array(estimates), 3) + np.arange(len(estimates)) * 1e-4
    v = (1 - shared) * np.diag(np.linspace(0.5, 2, x.size)) + shared
    plain = corrected(x, v, None, 0.05, beta)
    moved = corrected(scale * (x + shift)[::-1], scale**2 * v[::-1, ::-1], None, 0.05, beta)
    expected = [scale * (value + shift) for value in numbers(plain)]
    # A lead is known to the rounding of the shifted estimates only.
    size = max(abs(value) for value in numbers(plain)) + 1e3
    assert numbers(moved) == pytest.approx(expected, rel=1e-7, abs=1e-6 * size * scale)
    assert plain.lower < plain.estimate < plain.upper


@pytest.mark.parametrize("lead", [1e-3, 1e-8, 1e-15, 1e-100])
def test_hybrid_stays_within_the_simultaneous_interval_in_close_races(lead: float) -> None:
    found = corrected(np.array([lead, 0.0]), np.eye(2), None, 0.05)
    bound = scipy.stats.norm.isf((1 - 0.995**0.5) / 2)
    assert -bound <= found.lower <= found.estimate <= found.upper <= bound + lead


def test_conditional_limits_are_finite_in_the_closest_race() -> None:
    found = corrected(np.array([1e-100, 0.0]), np.eye(2), None, 0.05, 0.0)
    # Exponential in the limit: P(beyond) = exp(-lead * |shift|).
    assert found.lower == pytest.approx(np.log(0.025) / 1e-100, rel=1e-6)
    assert found.upper == pytest.approx(np.log(0.975) / 1e-100, rel=1e-6)


def test_a_sure_rival_is_the_demand_to_beat_the_control() -> None:
    found = corrected(np.array([0.0, 0.4]), np.diag([0.0, 1.0]), None, 0.05, 0.0)
    tail = scipy.stats.norm.sf
    for probability, mu in zip((0.5, 0.025, 0.975), numbers(found), strict=True):
        assert tail(0.4 - mu) / tail(-mu) == pytest.approx(probability, rel=1e-9)


def test_a_shared_error_larger_than_the_winners_truncates_from_above() -> None:
    # The rival moves twice as fast: the winner would lose if both went up.
    found = corrected(np.array([1.0, 0.5]), np.array([[1.0, 2.0], [2.0, 5.0]]), None, 0.05, 0.0)
    assert found.estimate > 1


def test_coverage_and_median_for_equal_arms() -> None:
    rng = np.random.default_rng(20240603)
    covered = above = 0
    for _ in range(800):
        found = corrected(rng.normal(size=5), np.eye(5), None, 0.1)
        covered += found.lower <= 0 <= found.upper
        above += found.estimate > 0
    assert scipy.stats.binomtest(covered, 800, 0.9).pvalue > 1e-3
    assert scipy.stats.binomtest(above, 800, 0.5).pvalue > 1e-3


def test_problems() -> None:
    for estimates, variances, code in (
        ([1.0, 1.0, 0.0], [1.0, 1.0, 1.0], Problem.TIED),
        ([1.0, 0.0], [0.0, 1.0], Problem.ZERO_VARIANCE),
    ):
        with pytest.raises(StatError) as caught:
            corrected(np.array(estimates), np.diag(variances), None, 0.05)
        assert caught.value.code is code


def test_wrong_arguments() -> None:
    v = np.eye(2)
    for estimates, covariance, chosen, alpha, beta in (
        ([1.0, 0.0], v, 1, 0.05, None),
        ([1.0, np.nan], v, None, 0.05, None),
        ([], np.empty((0, 0)), None, 0.05, None),
        ([1.0, 0.0, 0.0], v, None, 0.05, None),
        ([1.0, 0.0], v, None, 0.05, 0.05),
        ([1.0, 0.0], v, None, 1.0, None),
    ):
        with pytest.raises(ValueError, match=r"largest|finite|alpha"):
            corrected(np.array(estimates), covariance, chosen, alpha, beta)
