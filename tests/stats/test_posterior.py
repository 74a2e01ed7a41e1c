import math

import pytest
import scipy.integrate
import scipy.stats

from stats.errors import Problem, StatError
from stats.posterior import expected_loss, probability_better


@pytest.mark.parametrize("estimate", [-4.0, -0.3, 0.0, 0.5, 2.0, 6.0])
@pytest.mark.parametrize("se", [0.5, 2.0])
def test_equals_numerical_integration_of_the_posterior(estimate: float, se: float) -> None:
    posterior = scipy.stats.norm(estimate, se)
    loss, _ = scipy.integrate.quad(lambda v: -v * posterior.pdf(v), min(estimate, 0) - 12 * se, 0, epsabs=0)
    assert expected_loss(estimate, se) == pytest.approx(loss, rel=1e-6)
    assert probability_better(estimate, se) == pytest.approx(posterior.sf(0))


@pytest.mark.parametrize("x", [15.0, 25.0, 37.0])
def test_loss_keeps_its_digits_in_the_far_tail(x: float) -> None:
    series = scipy.stats.norm.pdf(x) / x**2 * (1 - 3 / x**2 + 15 / x**4 - 105 / x**6 + 945 / x**8)
    assert expected_loss(x, 1.0) == pytest.approx(series, rel=1e-5)


def test_losses_of_both_choices_differ_by_the_estimate() -> None:
    assert expected_loss(-1.3, 0.7) - expected_loss(1.3, 0.7) == pytest.approx(1.3)


def test_loss_falls_to_zero_and_never_below() -> None:
    losses = [expected_loss(x / 4, 1.0) for x in range(-40, 400)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0


def test_probabilities_of_both_directions_sum_to_one() -> None:
    assert probability_better(0.4, 1.1) + probability_better(-0.4, 1.1) == pytest.approx(1)


@pytest.mark.parametrize("se", [0.0, -1.0, math.nan])
def test_no_standard_error_is_a_problem(se: float) -> None:
    for number in (probability_better, expected_loss):
        with pytest.raises(StatError) as caught:
            number(1.0, se)
        assert caught.value.code is Problem.ZERO_VARIANCE
