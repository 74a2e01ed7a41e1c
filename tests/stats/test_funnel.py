"""A funnel is a ratio of 0/1 columns per step, with the users as the unit of variance. No statistic of its own."""

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.proportion import proportions_ztest

from stats.arms import linearised, means, ratios
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Moments

VISITED, CARTED, BOUGHT = range(3)
FIXED = Fixed(0.05)


def funnel(seed: int, n: int, rates: tuple[float, float, float]) -> np.ndarray:
    """Columns visited, put something into the cart, bought: each step only after the one before."""
    steps = np.random.default_rng(seed).random((n, 3)) < rates
    return np.cumprod(steps, axis=1).astype(float)


ROWS = [funnel(1, 5000, (0.4, 0.3, 0.5)), funnel(2, 3000, (0.45, 0.3, 0.6))]
ARMS = [Moments.from_rows(rows) for rows in ROWS]


@pytest.mark.parametrize("step", [CARTED, BOUGHT])
def test_step_rate_is_the_share_of_those_who_came_so_far(step: int) -> None:
    """The se is that of robust least squares on the users who came so far: the others add nothing but n / (n - 1)."""
    arms = means(linearised([ARMS], step, step - 1)[0], -1)
    for index, rows in enumerate(ROWS):
        reached = rows[rows[:, step - 1] == 1, step]
        fit = sm.OLS(reached, np.ones(reached.size)).fit(cov_type="HC0")
        n = len(rows)
        assert arms.mean[index] == pytest.approx(reached.mean(), rel=1e-12)
        assert arms.se[index] == pytest.approx(fit.bse[0] * np.sqrt(n / (n - 1)), rel=1e-10)
    assert ratios(ARMS, step, step - 1).se == pytest.approx(arms.se, rel=1e-12)


@pytest.mark.parametrize("step", [CARTED, BOUGHT])
def test_difference_of_step_rates_is_that_of_two_proportions(step: int) -> None:
    effect = difference(means(linearised([ARMS], step, step - 1)[0], -1), 1, 0, FIXED)
    counts = np.array([rows[:, step].sum() for rows in ROWS[::-1]])
    reached = np.array([rows[:, step - 1].sum() for rows in ROWS[::-1]])
    p = counts / reached
    unpooled = np.sqrt(np.sum(p * (1 - p) / reached))
    assert effect.estimate == pytest.approx(p[0] - p[1], rel=1e-12)
    assert effect.se == pytest.approx(unpooled, rel=1e-3)
    assert effect.statistic == pytest.approx(proportions_ztest(counts, reached)[0], rel=0.02)


def test_first_step_is_the_plain_conversion() -> None:
    everyone = [Moments.from_rows(np.column_stack([np.ones(len(rows)), rows])) for rows in ROWS]
    by_step = difference(ratios(everyone, 1 + VISITED, 0), 1, 0, FIXED)
    plain = difference(means(ARMS, VISITED), 1, 0, FIXED)
    assert (by_step.estimate, by_step.se, by_step.p_value) == pytest.approx(
        (plain.estimate, plain.se, plain.p_value), rel=1e-9
    )


def test_step_after_one_that_nobody_took_is_a_problem() -> None:
    stuck = Moments.from_rows(funnel(3, 100, (0.5, 0.0, 0.5)))
    with pytest.raises(StatError) as caught:
        linearised([[ARMS[0], stuck]], BOUGHT, CARTED)
    assert caught.value.code is Problem.ZERO_DENOMINATOR
    assert caught.value.facts == {"arm": 1}
