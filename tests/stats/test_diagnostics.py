import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from statsmodels.multivariate.manova import MANOVA

from stats.arms import means
from stats.diagnostics import balance, drift, users_for_skewness, without_largest
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Moments
from tests.stats.reference import HISTORY, hillstrom

lawful = settings(database=None, derandomize=True, deadline=None, max_examples=100)


def arms(seed: int, sizes: tuple[int, ...] = (200, 150, 260), k: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(k, k))
    return [rng.gamma(2, 1 + 0.1 * arm, (n, k)) @ mixing for arm, n in enumerate(sizes)]


def moments(rows: list[np.ndarray]) -> list[Moments]:
    return [Moments.from_rows(x) for x in rows]


def test_balance_of_two_arms_is_hotellings_statistic_with_own_covariances() -> None:
    first, second = arms(1, (80, 120))
    apart = second.mean(axis=0) - first.mean(axis=0)
    covariance = np.cov(first.T) / len(first) + np.cov(second.T) / len(second)
    test = balance(moments([first, second]), [0, 1, 2])
    assert test.df == 3
    assert test.statistic == pytest.approx(apart @ np.linalg.solve(covariance, apart), rel=1e-9)
    assert test.p_value == pytest.approx(scipy.stats.chi2.sf(test.statistic, 3), rel=1e-9)


def test_balance_of_three_arms_nears_manova_for_equal_covariances() -> None:
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(2000, 2)) + 0.03 * arm for arm in range(3)]
    test = balance(moments(rows), [0, 1])
    design = np.repeat(np.eye(3), 2000, axis=0)
    design = np.column_stack([np.ones(6000), design[:, 1:]])
    fit = MANOVA(np.vstack(rows), design).mv_test([("arms", np.eye(3)[1:])])
    trace = float(fit.results["arms"]["stat"].loc["Hotelling-Lawley trace", "Value"])
    assert test.df == 4
    assert test.statistic == pytest.approx(trace * 6000, rel=0.01)


def test_one_column_and_two_arms_is_the_squared_difference() -> None:
    found = balance(hillstrom()[:2], [HISTORY])
    assert found.statistic == pytest.approx(difference(means(hillstrom(), HISTORY), 1, 0, Fixed(0.05)).statistic ** 2)


@pytest.mark.parametrize("order", [[2, 0, 1], [1, 2, 0]])
def test_balance_ignores_units_and_the_order_of_arms(order: list[int]) -> None:
    rows = arms(3)
    plain = balance(moments(rows), [0, 1, 2])
    moved = balance(moments([rows[k] * [1e6, 1e-6, -3] + [1e9, 0, 5] for k in order]), [2, 0, 1])
    assert moved.df == plain.df == 6
    assert moved.statistic == pytest.approx(plain.statistic, rel=1e-6)


def test_repeated_and_constant_covariates_cost_no_degree_of_freedom() -> None:
    rows = arms(4)
    wide = [np.column_stack([x, x[:, 0] - 2 * x[:, 1], np.full(len(x), 7.0)]) for x in rows]
    plain, more = balance(moments(rows), [0, 1, 2]), balance(moments(wide), [0, 1, 2, 3, 4])
    assert more.df == plain.df
    assert more.statistic == pytest.approx(plain.statistic, rel=1e-8)


def test_a_covariate_that_names_the_arm_is_no_chance_imbalance() -> None:
    rows = [np.column_stack([x, np.full(len(x), float(k))]) for k, x in enumerate(arms(5))]
    with pytest.raises(StatError) as caught:
        balance(moments(rows), [0, 3])
    assert (caught.value.code, caught.value.facts) == (Problem.ZERO_VARIANCE, {"column": 3})
    with pytest.raises(StatError) as caught:
        balance(moments([np.ones((5, 1)), np.ones((5, 1))]), [0])
    assert caught.value.code is Problem.ZERO_VARIANCE


def test_balance_needs_arms_columns_and_users() -> None:
    rows = arms(6)
    for parts, columns in ((rows[:1], [0]), (rows, [])):
        with pytest.raises(ValueError, match="balance"):
            balance(moments(parts), columns)
    with pytest.raises(StatError) as caught:
        balance(moments([rows[0], rows[1][:1]]), [0])
    assert caught.value.code is Problem.NOT_ENOUGH_DATA


def test_balance_p_is_uniform_under_randomisation() -> None:
    rng = np.random.default_rng(7)
    population = rng.lognormal(size=(600, 3)) @ rng.normal(size=(3, 3))
    p_values = []
    for _ in range(400):
        arm = rng.choice(3, 600, p=[0.5, 0.3, 0.2])
        p_values.append(balance(moments([population[arm == k] for k in range(3)]), [0, 1, 2]).p_value)
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01


def panel(seed: int, fade: float = 0.0) -> list[np.ndarray]:
    """Users x 5 slices, correlated within the user; the effect of the second arm starts at 1 and fades."""
    rng = np.random.default_rng(seed)
    effect = 1 - fade * np.arange(5)
    return [
        rng.gamma(2, 1, size=(n, 1)) + rng.exponential(1, (n, 5)) + arm * effect for arm, n in enumerate((400, 300))
    ]


@pytest.mark.parametrize("centres", [None, [0.5, 2.0, 4.0, 6.0, 8.5]])
def test_drift_slope_is_the_contrast_of_a_poisson_regression_with_clustered_users(centres: list[float] | None) -> None:
    rows = panel(1, fade=0.1)
    found = drift(moments(rows), 1, 0, 0.05, centres)
    y = np.concatenate([x.ravel() for x in rows])
    cells = np.concatenate([np.tile(np.arange(5), 400), np.tile(np.arange(5, 10), 300)])
    fit = sm.GLM(y, np.eye(10)[cells], family=sm.families.Poisson()).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(700), 5), "use_correction": False}
    )
    at = np.arange(5.0) if centres is None else np.array(centres)
    slope = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
    oracle = fit.t_test(np.concatenate([-slope, slope]))
    assert found.estimate == pytest.approx(float(oracle.effect[0]), rel=1e-6)
    # Cluster-robust variance there has n in place of n - 1 in each arm.
    assert found.se == pytest.approx(float(oracle.sd[0, 0]), rel=2e-3)


def test_an_effect_that_wears_off_drifts_down() -> None:
    assert drift(moments(panel(2, fade=0.2)), 1, 0, 0.1).upper < 0


def test_a_steady_lift_does_not_drift_though_the_effect_falls_with_the_baseline() -> None:
    fall = 1 / np.arange(1.0, 6.0)
    alarms = 0
    for seed in range(400):
        control, treated = panel(seed)
        alarms += drift(moments([control * fall, (treated - 1) * fall * 1.3]), 1, 0, 0.05).p_value < 0.05
    low, high = scipy.stats.binom.interval(0.99, 400, 0.05)
    assert low <= alarms <= high


def test_drift_needs_means_well_above_zero() -> None:
    rows = panel(5)
    for x in rows:
        x[:, 2] -= x[:, 2].mean()
    with pytest.raises(StatError) as caught:
        drift(moments(rows), 1, 0, 0.05)
    assert (caught.value.code, caught.value.facts["slice"]) == (Problem.LIFT_NOT_IDENTIFIED, 2)


def test_drift_needs_slices() -> None:
    with pytest.raises(ValueError, match="slices"):
        drift(moments([x[:, :1] for x in panel(4)]), 1, 0, 0.05)


@lawful
@given(
    st.lists(st.tuples(st.integers(-500, 500), st.integers(-500, 500)), min_size=2, max_size=12),
    st.sampled_from([0.0, 1.0, 1e9]),
    st.data(),
)
def test_without_equals_the_summary_of_the_other_rows(
    rows: list[tuple[int, int]], origin: float, data: st.DataObject
) -> None:
    x = np.array(rows) / 100 + origin
    gone = data.draw(st.integers(0, len(x) - 1))
    whole, rest = Moments.from_rows(x), Moments.from_rows(np.delete(x, gone, axis=0))
    assume(((np.ptp(np.delete(x, gone, axis=0), axis=0) > 0) | (np.ptp(x, axis=0) == 0)).all())
    found = without_largest(whole, x[gone])
    assert found.n == rest.n
    assert found.mean == pytest.approx(rest.mean, rel=1e-15, abs=1e-12)
    assert found.cross == pytest.approx(rest.cross, abs=1e-11 * (1 + np.trace(whole.cross)) + 4e-15 * origin)


def test_without_the_largest_customer_near_a_billion() -> None:
    rng = np.random.default_rng(8)
    spend = 1e9 + rng.normal(size=(5000, 2))
    spend[17, 0] += 1e4
    found = without_largest(Moments.from_rows(spend), spend[17])
    rest = Moments.from_rows(np.delete(spend, 17, axis=0))
    assert found.mean == pytest.approx(rest.mean, rel=1e-15)
    assert found.cross == pytest.approx(rest.cross, rel=1e-6, abs=1e-2)


def test_without_undoes_adding_a_row() -> None:
    base = Moments.from_rows(arms(9)[0])
    row = np.array([3.0, -4.0, 100.0])
    back = without_largest(base + Moments.from_rows(row[None, :]), row)
    assert back.n == base.n
    assert back.mean == pytest.approx(base.mean, rel=1e-12)
    assert back.cross == pytest.approx(base.cross, rel=1e-9)


def test_a_row_that_was_all_of_the_variance_leaves_none() -> None:
    spend = np.zeros((1000, 2))
    spend[:, 1] = np.arange(1000)
    spend[3, 0] = 50.0
    with pytest.raises(StatError) as caught:
        without_largest(Moments.from_rows(spend), spend[3])
    assert (caught.value.code, caught.value.facts) == (Problem.ZERO_VARIANCE, {"column": 0})
    kept = without_largest(Moments.from_rows(spend[:, 1:]), spend[3, 1:])
    assert kept.cross == pytest.approx(Moments.from_rows(np.delete(spend[:, 1:], 3, axis=0)).cross, rel=1e-12)


def test_without_keeps_constants_and_small_groups() -> None:
    kept = without_largest(Moments.from_rows(np.full((5, 1), 0.1)), np.array([0.1]))
    assert (kept.n, kept.cross.item()) == (4, 0.0)
    assert kept.mean.item() == pytest.approx(0.1)
    rounded = Moments(5, np.array([np.nextafter(1e9, 2e9)]), np.zeros((1, 1)))
    assert without_largest(rounded, np.array([1e9])).cross.item() == 0.0
    assert without_largest(Moments.from_rows([[3.0]]), np.array([3.0])).n == 0


@pytest.mark.parametrize("row", [[9.0], [math.nan], [1.0, 2.0]])
def test_a_row_from_elsewhere_is_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match="row"):
        without_largest(Moments.from_rows([[1.0], [2.0], [3.0]]), np.array(row))
    with pytest.raises(ValueError, match="row"):
        without_largest(Moments.zero(1), np.array([0.0]))


def test_users_for_skewness_follows_kohavi() -> None:
    assert users_for_skewness(0.0) == 0
    assert users_for_skewness(18.0) == 115_020
    assert users_for_skewness(-1.0) == users_for_skewness(1.0) == 355
