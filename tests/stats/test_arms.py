import csv
import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose

from stats.arms import ArmVector, adjusted, linearised, means, ratios, stratified, variance_reduction
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.horizon import Fixed
from stats.moments import Moments, merge
from tests.stats.reference import ARMS, HISTORY, SPEND, VISIT, hillstrom, load

FIXED = Fixed(0.05)


def assert_same(left: ArmVector, right: ArmVector) -> None:
    assert left.n.tolist() == right.n.tolist()
    for name in ("mean", "covariance", "satterthwaite"):
        assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9, atol=1e-14)


def covariate_rows(seed: int, sizes: tuple[int, ...] = (120, 300, 80)) -> list[np.ndarray]:
    """Columns y, x1, x2 with another slope in each arm."""
    rng = np.random.default_rng(seed)
    arms = []
    for arm, n in enumerate(sizes):
        x = rng.normal(3, 2, size=(n, 2))
        y = 1 + arm + x @ [1 + arm, -0.5] + rng.normal(size=n)
        arms.append(np.column_stack([y, x]))
    return arms


def test_means_equal_numpy() -> None:
    x = [np.random.default_rng(s).exponential(size=n) for s, n in ((1, 20), (2, 31))]
    arms = means([Moments.from_rows(a[:, None]) for a in x])
    assert_allclose(arms.mean, [a.mean() for a in x])
    assert_allclose(arms.se, [a.std(ddof=1) / np.sqrt(a.size) for a in x])
    assert arms.covariance[0, 1] == 0


def test_hillstrom_ratio_equals_clustered_ols_on_rows() -> None:
    expected = load("hillstrom.json")["expected"]
    arms = ratios(hillstrom(), SPEND, VISIT)
    assert_allclose(arms.mean, [expected[a]["spend_per_visit"]["ratio"] for a in ARMS], rtol=1e-12)
    assert_allclose(arms.se, [expected[a]["spend_per_visit"]["se"] for a in ARMS], rtol=1e-9)


def test_ratio_equals_cluster_robust_ols_of_sessions() -> None:
    rng = np.random.default_rng(5)
    sessions = rng.integers(1, 9, size=60)
    rate = rng.beta(2, 3, size=60)
    user = np.repeat(np.arange(60), sessions)
    success = rng.random(user.size) < rate[user]
    fit = sm.OLS(success.astype(float), np.ones(user.size)).fit(cov_type="cluster", cov_kwds={"groups": user})
    moments = Moments.from_rows(np.column_stack([np.bincount(user, success), sessions]))
    arms = ratios([moments])
    assert_allclose([arms.mean[0], arms.se[0]], [fit.params[0], fit.bse[0]], rtol=1e-10)


def test_ratio_with_constant_denominator_is_the_mean() -> None:
    x = np.random.default_rng(6).normal(size=(40, 1))
    parts = [Moments.from_rows(np.hstack([a, np.ones_like(a)])) for a in (x[:15], x[15:])]
    assert_same(ratios(parts), means(parts))


def test_linearised_ratio_over_strata_is_the_ratio_of_weighted_totals() -> None:
    rng = np.random.default_rng(7)
    strata = [
        [Moments.from_rows(rng.poisson(m, size=(n, 2)) + np.array([0, 1])) for n in sizes]
        for m, sizes in ((2, (50, 60)), (6, (90, 30)))
    ]
    arms = stratified([means(s, -1) for s in linearised(strata)])
    weights = np.array([110, 120]) / 230
    for arm in range(2):
        top, bottom = weights @ np.array([s[arm].mean for s in strata])
        assert arms.mean[arm] == pytest.approx(top / bottom, rel=1e-12)


def test_ratio_that_is_the_same_for_every_user_does_not_vary() -> None:
    parts = [
        Moments.from_integer_sums(9, [3 * k, 10 * k], [[9 * k, 30 * k], [30 * k, 100 * k]], [1, 1]) for k in (2, 7)
    ]
    assert ratios(parts).covariance.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_outcome_that_the_covariate_gives_away_has_no_residual() -> None:
    rows = [np.random.default_rng(seed).normal(5, 1, size=(30, 1)) for seed in range(8)]
    arms = adjusted([Moments.from_rows(np.hstack([x / 3 + 0.1, x])) for x in rows], 0, [1])
    assert arms.satterthwaite.tolist() == [0.0] * 8


def test_zero_denominator_is_a_problem() -> None:
    with pytest.raises(StatError) as caught:
        ratios([Moments.from_rows([[1.0, 0.0], [2.0, 0.0]])])
    assert caught.value.code is Problem.ZERO_DENOMINATOR


def test_adjusted_means_equal_ols_predictions_in_each_arm() -> None:
    rows = covariate_rows(8)
    everyone = np.vstack(rows)
    at = np.concatenate([[1.0], everyone[:, 1:].mean(axis=0)])[None]
    spread = np.cov(everyone[:, 1:].T) / len(everyone)
    fits = [sm.OLS(a[:, 0], sm.add_constant(a[:, 1:])).fit() for a in rows]
    arms = adjusted([Moments.from_rows(a) for a in rows], 0, [1, 2])
    assert_allclose(arms.mean, [f.get_prediction(at).predicted_mean[0] for f in fits], rtol=1e-10)
    slopes = np.array([f.params[1:] for f in fits])
    given_x = np.diag([f.get_prediction(at).se_mean[0] ** 2 for f in fits])
    assert_allclose(arms.covariance, given_x + slopes @ spread @ slopes.T, rtol=1e-9, atol=1e-14)
    assert_allclose(arms.satterthwaite, [g**2 / f.df_resid for g, f in zip(np.diag(given_x), fits, strict=True)])


def test_adjusted_difference_agrees_with_lin_regression_and_robust_variance() -> None:
    control, treated = covariate_rows(9, (4000, 2500))
    rows = np.vstack([control, treated])
    t = np.repeat([0.0, 1.0], [len(control), len(treated)])
    x = rows[:, 1:] - rows[:, 1:].mean(axis=0)
    fit = sm.OLS(rows[:, 0], np.column_stack([np.ones(len(t)), t, x, x * t[:, None]])).fit(cov_type="HC3")
    gap = fit.params[4:]
    variance = fit.bse[1] ** 2 + gap @ np.cov(x.T) @ gap / len(t)  # Negi & Wooldridge: xbar is an estimate too
    effect = difference(adjusted([Moments.from_rows(a) for a in (control, treated)], 0, [1, 2]), 1, 0, FIXED)
    assert effect.estimate == pytest.approx(fit.params[1], rel=1e-9)
    assert effect.se == pytest.approx(np.sqrt(variance), rel=0.02)


def test_hillstrom_spend_adjusted_for_history_equals_ols_on_rows() -> None:
    expected = load("hillstrom.json")["expected"]
    moments = hillstrom()
    arms = adjusted(moments, SPEND, [HISTORY])
    pooled = merge(moments)
    for arm in (1, 2):
        reference = expected[ARMS[arm]]["spend_adjusted"]
        assert arms.mean[arm] == pytest.approx(reference["mean"], rel=1e-10)
        shared = reference["slope"] ** 2 * pooled.covariance[HISTORY, HISTORY] / pooled.n
        assert arms.se[arm] ** 2 == pytest.approx(reference["se_given_covariates"] ** 2 + shared, rel=1e-9)


def test_adjusted_without_covariates_is_the_mean() -> None:
    parts = [Moments.from_rows(a) for a in covariate_rows(10)]
    assert_same(adjusted(parts, 0, []), means(parts))


def test_constant_and_repeated_covariates_change_nothing() -> None:
    rows = covariate_rows(11)
    wide = [np.column_stack([a, np.full(len(a), 7.0), 1e6 * a[:, 1] - 3]) for a in rows]
    assert_same(
        adjusted([Moments.from_rows(a) for a in wide], 0, [1, 2, 3, 4]),
        adjusted([Moments.from_rows(a) for a in rows], 0, [1, 2]),
    )


def test_rescaling_covariates_changes_nothing() -> None:
    rows = covariate_rows(12)
    scaled = [a * [1.0, 1e7, 1e-7] + [0.0, 5.0, -2.0] for a in rows]
    assert_same(
        adjusted([Moments.from_rows(a) for a in scaled], 0, [1, 2]),
        adjusted([Moments.from_rows(a) for a in rows], 0, [1, 2]),
    )


def test_variance_reduction_is_the_squared_correlation() -> None:
    rng = np.random.default_rng(13)
    parts = []
    for _ in range(2):
        x = rng.normal(size=20_000)
        parts.append(Moments.from_rows(np.column_stack([0.8 * x + 0.6 * rng.normal(size=x.size), x])))
    saved = variance_reduction(means(parts), adjusted(parts, 0, [1]), 1, 0)
    assert saved == pytest.approx(0.64, abs=0.02)


@pytest.mark.parametrize("n", [2, 3])
def test_too_few_users_to_adjust_is_a_problem(n: int) -> None:
    rows = covariate_rows(14, (50, n))
    with pytest.raises(StatError) as caught:
        adjusted([Moments.from_rows(a) for a in rows], 0, [1, 2])
    assert caught.value.code is Problem.NOT_ENOUGH_DATA
    assert caught.value.facts["arm"] == 1


def test_outcome_as_its_own_covariate_is_refused() -> None:
    with pytest.raises(ValueError, match="own covariate"):
        adjusted([Moments.from_rows(a) for a in covariate_rows(15)], 0, [-3])


@pytest.mark.parametrize("n", [0, 1])
def test_arm_without_two_users_is_a_problem(n: int) -> None:
    with pytest.raises(StatError) as caught:
        means([Moments.from_rows(np.ones((5, 1))), Moments.from_rows(np.ones((n, 1)))])
    assert caught.value.facts == {"arm": 1, "n": n, "needed": 2}


def bernoulli(n: int, successes: int) -> Moments:
    return Moments.from_integer_sums(n, [successes], [[successes]], [1])


def test_two_strata_without_effect_and_unequal_split_are_an_effect_only_when_pooled() -> None:
    # 5 % and 30 % conversion, split 50/50 and 90/10, both arms exactly alike within each stratum.
    strata = [[bernoulli(10_000, 500), bernoulli(10_000, 500)], [bernoulli(2_000, 600), bernoulli(18_000, 5_400)]]
    pooled = difference(means([merge(arm) for arm in zip(*strata, strict=True)]), 1, 0, FIXED)
    honest = difference(stratified([means(s) for s in strata]), 1, 0, FIXED)
    assert pooled.statistic > 25
    assert abs(honest.statistic) < 1e-9


def test_one_stratum_is_itself() -> None:
    arms = means([bernoulli(100, 7), bernoulli(80, 9)])
    assert_same(stratified([arms]), arms)


def test_stratified_equals_the_written_out_formula() -> None:
    rng = np.random.default_rng(16)
    cells = [[rng.normal(size=n) + s for n in sizes] for s, sizes in ((0, (20, 30)), (2, (45, 15)))]
    weights = np.array([50, 60]) / 110
    arms = stratified([means([Moments.from_rows(c[:, None]) for c in stratum]) for stratum in cells])
    d = np.array([stratum[1].mean() - stratum[0].mean() for stratum in cells])
    v = np.array([sum(c.var(ddof=1) / c.size for c in stratum) for stratum in cells])
    estimate = weights @ d
    effect = difference(arms, 1, 0, FIXED)
    assert effect.estimate == pytest.approx(estimate)
    assert effect.se**2 == pytest.approx(weights**2 @ v + weights @ (d - estimate) ** 2 / 110)


def test_stratum_that_lacks_an_arm_is_refused() -> None:
    two = means([bernoulli(10, 3), bernoulli(10, 4)])
    with pytest.raises(ValueError, match="same arms"):
        stratified([two, means([bernoulli(10, 3)])])
    with pytest.raises(ValueError, match="nothing"):
        stratified([])


def with_missing_history(seed: int, slope: float = 0.0) -> list[np.ndarray]:
    """Columns y, x (0 where there is no history), 1 where there is none; `slope` is added arm by arm."""
    rng = np.random.default_rng(seed)
    arms = []
    for arm, n in enumerate((400, 250, 300)):
        missing = rng.random(n) < 0.3
        x = np.where(missing, 0.0, rng.gamma(3, 2, size=n))
        y = 1 + 0.2 * arm + (0.8 + slope * arm) * x + 3 * missing + rng.normal(size=n)
        arms.append(np.column_stack([y, x, missing]))
    return arms


def imputed(rows: list[np.ndarray], value: float) -> list[Moments]:
    return [Moments.from_rows(np.column_stack([a[:, 0], a[:, 1] + value * a[:, 2], a[:, 2]])) for a in rows]


@pytest.mark.parametrize("slope", [0.0, 0.7])
def test_beside_a_missing_indicator_the_imputed_value_does_not_matter(slope: float) -> None:
    rows = with_missing_history(21, slope)
    pooled_mean = sum(a[:, 1].sum() for a in rows) / sum((1 - a[:, 2]).sum() for a in rows)
    expected = adjusted(imputed(rows, pooled_mean), 0, [1, 2])
    for value in (0.0, -50.0, 200.0):
        assert_same(adjusted(imputed(rows, value), 0, [1, 2]), expected)
    # Without the indicator it does.
    assert abs(adjusted(imputed(rows, 50.0), 0, [1]).mean - adjusted(imputed(rows, 0.0), 0, [1]).mean).max() > 0.001


def test_missing_history_equals_ols_in_each_arm() -> None:
    rows = with_missing_history(22, 0.7)
    at = np.concatenate([[1.0], np.vstack(rows)[:, 1:].mean(axis=0)])[None]
    fits = [sm.OLS(a[:, 0], sm.add_constant(a[:, 1:])).fit().get_prediction(at).predicted_mean[0] for a in rows]
    assert_allclose(adjusted(imputed(rows, 0.0), 0, [1, 2]).mean, fits, rtol=1e-10)


def test_indicator_that_is_constant_in_an_arm_drops_out_there() -> None:
    rows = with_missing_history(23)
    rows[1] = rows[1][rows[1][:, 2] == 0]
    arms = adjusted(imputed(rows, 0.0), 0, [1, 2])
    assert np.isfinite(arms.covariance).all()
    fit = sm.OLS(rows[1][:, 0], sm.add_constant(rows[1][:, 1])).fit()
    at = np.vstack(rows)[:, 1].mean()
    assert arms.mean[1] == pytest.approx(fit.params @ [1, at], rel=1e-10)


def test_households_as_units_equal_statsmodels_cluster_robust_regression() -> None:
    rng = np.random.default_rng(24)
    parts, outcome, arm_of, cluster_of = [], [], [], []
    for arm, households in enumerate((60, 45)):
        sizes = rng.integers(1, 7, size=households)
        values = [5 + arm + rng.normal() + rng.normal(size=size) for size in sizes]
        parts.append(Moments.from_rows([[v.sum(), v.size] for v in values]))
        outcome += values
        arm_of += [np.full(v.size, float(arm)) for v in values]
        cluster_of += [np.full(v.size, 1000 * arm + i) for i, v in enumerate(values)]
    x = sm.add_constant(np.concatenate(arm_of))
    fit = sm.OLS(np.concatenate(outcome), x).fit(
        cov_type="cluster", cov_kwds={"groups": np.concatenate(cluster_of), "use_correction": False}
    )
    arms = ratios(parts)
    # The sandwich of each arm lacks the factor k / (k - 1) of a variance over k clusters.
    variance = arms.covariance.diagonal() * [59 / 60, 44 / 45]
    assert difference(arms, 1, 0, FIXED).estimate == pytest.approx(fit.params[1], rel=1e-10)
    assert variance.sum() == pytest.approx(fit.bse[1] ** 2, rel=1e-9)
    naive = sm.OLS(np.concatenate(outcome), x).fit().bse[1]
    assert difference(arms, 1, 0, FIXED).se > 1.3 * naive


@pytest.mark.parametrize("arm", [2, 3])
def test_restaurants_as_units_of_a_promotion_equal_the_test_on_their_means(shared_data: Path, arm: int) -> None:
    """Four weeks in each of 137 restaurants: week by week promotion 1 beats 2 with p = 4e-10, honest is 1e-3."""
    folder = shared_data / "fast_food_three_promotions"
    published = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["computed"]
    places: dict[tuple[str, str], list[float]] = {}
    with (folder / "WA_Marketing-Campaign.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            places.setdefault((row["Promotion"], row["LocationID"]), []).append(float(row["SalesInThousands"]))
    parts = [
        Moments.from_rows([[sum(weeks), len(weeks)] for (promotion, _), weeks in places.items() if promotion == name])
        for name in "123"
    ]
    effect = difference(ratios(parts), 0, arm - 1, FIXED)
    expected = published[f"welch_locations_1_vs_{arm}"]
    assert effect.statistic == pytest.approx(expected["t"], rel=1e-9)
    assert effect.df == pytest.approx(expected["df"], rel=1e-9)
    assert effect.p_value == pytest.approx(expected["p_two_sided"], rel=1e-9)
    assert [effect.lower, effect.upper] == pytest.approx(expected["ci95"], rel=1e-9)
