import csv
import gzip
import itertools
import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.arms import ArmVector, adjusted, means
from stats.contrasts import linear
from stats.dose import best_quadratic, best_tested, departure, response, trend
from stats.errors import Problem, StatError
from stats.horizon import Fixed, Sequential
from stats.moments import Moments
from tests.stats.reference import load

REFERENCE = load("dose.json")
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=60)
DOSES = [0.0, 1.0, 2.0, 4.0, 7.0]


def known(mean: list[float], se: list[float], n: list[int] | None = None) -> ArmVector:
    """Independent normal estimates with known variance."""
    users = np.array(n or [1000] * len(mean))
    return ArmVector(users, np.array(mean), np.diag(np.square(se)), np.zeros(len(mean)))


def correlated(seed: int, k: int = 5) -> ArmVector:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(k, k)) * 0.1 + np.eye(k) * 0.3
    return ArmVector(rng.integers(100, 900, k), rng.normal(size=k) * 0.2, root @ root.T, np.zeros(k))


def rows(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.gamma(2, 1 + 0.6 * d - 0.08 * d * d, size=150 + 40 * k) for k, d in enumerate(DOSES)]


def arms_of(samples: list[np.ndarray]) -> ArmVector:
    return means([Moments.from_rows(x[:, None]) for x in samples])


def mailings() -> tuple[np.ndarray, np.ndarray]:
    return np.array(REFERENCE["mailings"]["n"]), np.array(REFERENCE["mailings"]["voted"])


@pytest.mark.parametrize("scores", ["0123", "0124"])
def test_trend_is_cochran_armitage_under_the_pooled_variance(scores: str) -> None:
    n, voted = mailings()
    doses = [float(c) for c in scores]
    pooled = voted.sum() / n.sum()
    arms = ArmVector(n, voted / n, np.diag(pooled * (1 - pooled) / n), np.zeros(4))
    slope = trend(arms, doses, Fixed(0.05))
    chi_square, p_value = REFERENCE["trend"][scores]
    assert slope.statistic**2 == pytest.approx(chi_square, rel=1e-9)
    assert slope.p_value == pytest.approx(p_value, rel=1e-9)
    table = sm.stats.Table(np.column_stack([n - voted, voted]), shift_zeros=False)
    permuted = table.test_ordinal_association(row_scores=np.array(doses), col_scores=np.array([0, 1]))
    assert slope.statistic == pytest.approx(permuted.zscore * math.sqrt(n.sum() / (n.sum() - 1)), rel=1e-9)
    own = trend(arms_of([np.repeat([1.0, 0.0], [v, m - v]) for v, m in zip(voted, n, strict=True)]), doses, Fixed(0.05))
    assert own.statistic == pytest.approx(slope.statistic, rel=0.01)


def test_trend_is_the_least_squares_slope_of_the_rows() -> None:
    samples = rows(1)
    slope = trend(arms_of(samples), DOSES, Fixed(0.05))
    x = np.repeat(DOSES, [s.size for s in samples])
    y = np.concatenate(samples)
    assert slope.estimate == pytest.approx(sm.OLS(y, sm.add_constant(x)).fit().params[1], rel=1e-10)
    # Its variance without assuming a line: HC2 of the model with a mean per dose.
    cells = sm.OLS(y, (x[:, None] == DOSES).astype(float)).fit(cov_type="HC2")
    n = np.array([s.size for s in samples])
    weights = n * (np.array(DOSES) - x.mean()) / ((x - x.mean()) ** 2).sum()
    assert slope.se == pytest.approx(cells.t_test(weights).sd.item(), rel=1e-10)
    assert slope.df is not None
    assert slope.df > 300


@pytest.mark.parametrize("horizon", [Fixed(0.05), Sequential.tuned(0.05, 1000)])
def test_trend_scales_with_the_dose_and_ignores_its_origin(horizon: Fixed | Sequential) -> None:
    arms = arms_of(rows(2))
    plain = trend(arms, DOSES, horizon)
    moved = trend(arms, [1e9 + 3 * d for d in DOSES], horizon)
    assert (3 * moved.estimate, 3 * moved.lower) == pytest.approx((plain.estimate, plain.lower), rel=1e-6)
    assert moved.p_value == pytest.approx(plain.p_value, rel=1e-5)
    assert trend(arms, [-d for d in DOSES], horizon).estimate == pytest.approx(-plain.estimate)


def test_far_tail_of_a_trend_is_not_zero() -> None:
    slope = trend(known([0, 1, 2], [0.04, 0.04, 0.04]), [0, 1, 2], Fixed(0.05))
    assert slope.statistic > 35
    assert 0 < slope.p_value < 1e-260


@pytest.mark.parametrize("seed", range(3))
def test_departure_is_the_residual_of_generalised_least_squares(seed: int) -> None:
    arms = correlated(seed)
    fit = sm.GLS(arms.mean, sm.add_constant(np.array(DOSES)), sigma=arms.covariance).fit()
    test = departure(arms, DOSES)
    assert test.df == 3
    assert test.statistic == pytest.approx(fit.wresid @ fit.wresid, rel=1e-8)
    assert test.p_value == pytest.approx(scipy.stats.chi2.sf(test.statistic, 3), rel=1e-9)
    assert departure(arms, [1e6 + 50 * d for d in DOSES]).statistic == pytest.approx(test.statistic, rel=1e-6)


def test_departure_from_a_parabola_is_the_residual_of_that_fit() -> None:
    arms = correlated(4)
    x = np.array(DOSES)
    fit = sm.GLS(arms.mean, np.vander(x, 3), sigma=arms.covariance).fit()
    test = departure(arms, DOSES, degree=2)
    assert (test.df, test.statistic) == (2, pytest.approx(fit.wresid @ fit.wresid, rel=1e-8))
    with pytest.raises(ValueError, match="degree"):
        departure(known([1, 2, 3], [1, 1, 1]), [0, 1, 2], degree=2)


def test_departure_of_three_doses_is_the_middle_against_the_line() -> None:
    arms = known([1.0, 2.5, 2.0], [0.3, 0.2, 0.4])
    middle = linear(arms, [-0.75, 1.0, -0.25], Fixed(0.05))
    assert departure(arms, [0, 1, 4]).statistic == pytest.approx(middle.statistic**2, rel=1e-10)


def test_a_line_does_not_depart() -> None:
    assert departure(known([1 + 2 * d for d in DOSES], [0.1] * 5), DOSES).statistic == pytest.approx(0, abs=1e-18)


def test_free_bands_are_sidaks_with_each_arms_own_df() -> None:
    samples = rows(3)
    curve = response(arms_of(samples), DOSES, 0.05, "free")
    level = 1 - 0.95 ** (1 / 5)
    for k, sample in enumerate(samples):
        low, high = scipy.stats.ttest_1samp(sample, 0).confidence_interval(1 - level)
        assert (curve.lower[k], curve.upper[k]) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_monotone_estimate_is_weighted_isotonic_regression(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean, se = np.sort(rng.normal(size=6)) + rng.normal(size=6) * 0.3, rng.uniform(0.2, 0.6, 6)
    arms = known(list(mean), list(se))
    for shape, increasing in (("increasing", True), ("decreasing", False)):
        values = mean if increasing else -mean
        oracle = scipy.optimize.isotonic_regression(values, weights=se**-2, increasing=increasing).x
        curve = response(ArmVector(arms.n, values, arms.covariance, arms.satterthwaite), range(6), 1e-6, shape)  # type: ignore[arg-type]
        assert curve.estimate == pytest.approx(oracle, abs=1e-9)


def extremes(mean: np.ndarray, half: np.ndarray, cone: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Range of each value over the curves with cone @ curve >= 0 inside mean -+ half, by linear programs."""
    ends = []
    for k in range(mean.size):
        for sign in (1, -1):
            fit = scipy.optimize.linprog(
                sign * np.eye(mean.size)[k],
                -cone,
                np.zeros(len(cone)),
                bounds=np.column_stack([mean - half, mean + half]),
            )
            if fit.status == 2:
                return None
            ends.append(fit.x[k])
    return np.array(ends[::2]), np.array(ends[1::2])


def cone_of(shape: str, x: np.ndarray) -> np.ndarray:
    steps = np.diff(np.eye(x.size), axis=0)
    slopes = steps / np.diff(x)[:, None]
    return {"increasing": steps, "decreasing": -steps, "concave": slopes[:-1] - slopes[1:]}[shape]


@pytest.mark.parametrize("shape", ["increasing", "decreasing", "concave"])
@lawful
@given(st.lists(st.integers(-30, 30), min_size=5, max_size=5), st.integers(0, 1000))
def test_shaped_bands_equal_linear_programs_and_hold_the_estimate(
    shape: Literal["increasing", "decreasing", "concave"], tenths: list[int], seed: int
) -> None:
    x = np.array(DOSES)
    noise = correlated(seed)
    arms = ArmVector(noise.n, np.array(tenths) / 10, noise.covariance, noise.satterthwaite)
    free = response(arms, DOSES, 0.05, "free")
    cone = cone_of(shape, x)
    oracle = extremes(arms.mean, (free.upper - free.lower) / 2, cone)
    if oracle is None:
        with pytest.raises(StatError) as caught:
            response(arms, DOSES, 0.05, shape)
        assert caught.value.code is Problem.SHAPE_REJECTED
        assert caught.value.facts["shape"] == shape
        return
    curve = response(arms, DOSES, 0.05, shape)
    assert curve.lower == pytest.approx(oracle[0], abs=1e-7)
    assert curve.upper == pytest.approx(oracle[1], abs=1e-7)
    assert (curve.lower <= curve.estimate).all()
    assert (curve.estimate <= curve.upper).all()
    assert (cone @ curve.estimate >= -1e-9).all()
    assert (free.lower <= curve.lower).all()
    assert (curve.upper <= free.upper).all()


@pytest.mark.parametrize("shape", ["increasing", "concave"])
@pytest.mark.parametrize("seed", range(4))
def test_shaped_estimate_is_the_nearest_curve_under_the_covariance(
    shape: Literal["increasing", "concave"], seed: int
) -> None:
    arms = correlated(seed)
    curve = response(arms, DOSES, 0.001, shape)
    inverse = np.linalg.inv(arms.covariance)
    cone = cone_of(shape, np.array(DOSES))

    def distance(y: np.ndarray) -> float:
        return float((y - arms.mean) @ inverse @ (y - arms.mean))

    oracle = scipy.optimize.minimize(
        distance,
        np.full(5, arms.mean.mean()),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda y: cone @ y},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert distance(curve.estimate) == pytest.approx(oracle.fun, rel=1e-5, abs=1e-8)
    assert curve.estimate == pytest.approx(oracle.x, abs=1e-4)


@pytest.mark.parametrize("shape", ["free", "increasing", "decreasing", "concave"])
def test_response_does_not_depend_on_the_order_of_arms(
    shape: Literal["free", "increasing", "decreasing", "concave"],
) -> None:
    arms, order = correlated(7), [3, 0, 4, 1, 2]
    shuffled = ArmVector(
        arms.n[order], arms.mean[order], arms.covariance[np.ix_(order, order)], arms.satterthwaite[order]
    )
    plain = response(arms, DOSES, 0.05, shape)
    other = response(shuffled, [DOSES[k] for k in order], 0.05, shape)
    assert (other.doses == plain.doses).all()
    for field in ("estimate", "lower", "upper"):
        assert getattr(other, field) == pytest.approx(getattr(plain, field), abs=1e-9)


def test_a_shape_that_the_means_have_keeps_them() -> None:
    arms = known([1, 2, 2.5, 2.7, 2.0], [0.01] * 5)
    assert response(arms, DOSES, 0.05, "concave").estimate == pytest.approx(arms.mean, abs=1e-12)
    with pytest.raises(StatError) as caught:
        response(arms, DOSES, 0.05, "increasing")
    assert caught.value.code is Problem.SHAPE_REJECTED
    assert caught.value.facts["dose"] in DOSES


def test_an_arm_that_does_not_vary_has_no_band() -> None:
    with pytest.raises(StatError) as caught:
        response(known([0, 0.1, 0.2], [0, 0.1, 0.1]), [0, 1, 2], 0.05, "free")
    assert (caught.value.code, caught.value.facts) == (Problem.ZERO_VARIANCE, {"arm": 0})


@pytest.mark.parametrize("doses", [[0, 1], [0, 1, 1], [0, 1, math.nan], [0, 1, 2, 3]])
def test_doses_must_be_three_and_different_and_finite(doses: list[float]) -> None:
    arms = known([1.0, 2.0, 3.0], [1.0] * 3)
    for call in (
        lambda: trend(arms, doses, Fixed(0.05)),
        lambda: departure(arms, doses),
        lambda: response(arms, doses, 0.05, "free"),
        lambda: best_quadratic(arms, doses, 0.05),
    ):
        with pytest.raises(ValueError, match="dose"):
            call()


def test_best_dose_limits_are_where_the_slope_stops_being_significant() -> None:
    arms = arms_of(rows(5))
    best = best_quadratic(arms, DOSES, 0.05)
    n = arms.n.astype(float)
    design = np.vander(np.array(DOSES), 3, increasing=True)
    inverse = np.linalg.inv(design.T @ (design * n[:, None]))
    weights = inverse @ (design * n[:, None]).T
    b = weights @ arms.mean
    assert best.dose == pytest.approx(-b[1] / (2 * b[2]), rel=1e-9)
    df = linear(arms, weights[2], Fixed(0.05)).df
    for limit in (best.lower, best.upper):
        slope = linear(arms, weights[1] + 2 * limit * weights[2], Fixed(0.05))
        assert abs(slope.statistic) == pytest.approx(scipy.stats.t.isf(0.025, df), rel=1e-8)
    assert 0 < best.lower < best.dose < best.upper < 7


def test_best_dose_equals_the_delta_method_of_robust_regression_when_precise() -> None:
    rng = np.random.default_rng(6)
    samples = [1 + 0.8 * d - 0.1 * d * d + rng.normal(size=4000) * 0.05 for d in (0.0, 3.0, 7.0)]
    best = best_quadratic(arms_of(samples), [0, 3, 7], 0.05)
    x = np.repeat([0.0, 3.0, 7.0], 4000)
    fit = sm.OLS(np.concatenate(samples), np.vander(x, 3, increasing=True)).fit(cov_type="HC2")
    b = fit.params
    gradient = np.array([0, -1 / (2 * b[2]), b[1] / (2 * b[2] ** 2)])
    se = math.sqrt(gradient @ fit.cov_params() @ gradient)
    assert best.dose == pytest.approx(-b[1] / (2 * b[2]), rel=1e-9)
    assert (best.upper - best.lower) / 2 == pytest.approx(1.96 * se, rel=1e-3)


def test_best_dose_moves_with_the_doses_and_not_with_the_response() -> None:
    arms = arms_of(rows(5))
    best = best_quadratic(arms, DOSES, 0.05)
    moved = best_quadratic(arms, [1e6 + 10 * d for d in DOSES], 0.05)
    assert (moved.dose, moved.lower, moved.upper) == pytest.approx(
        (1e6 + 10 * best.dose, 1e6 + 10 * best.lower, 1e6 + 10 * best.upper), rel=1e-12
    )
    scaled = ArmVector(arms.n, 1e9 + 5 * arms.mean, 25 * arms.covariance, 625 * arms.satterthwaite)
    assert best_quadratic(scaled, DOSES, 0.05).dose == pytest.approx(best.dose, rel=1e-5)


@pytest.mark.parametrize(
    ("mean", "reason"),
    [
        ([4.0, 1, 0, 1, 4], "not_concave"),
        ([1.0, 1.01, 1.0, 1.01, 1.0], "not_concave"),
        ([0.0, 9, 16, 21, 24], "rising"),
        ([24.0, 21, 16, 9, 0], "falling"),
    ],
)
def test_no_optimum_says_why(mean: list[float], reason: str) -> None:
    with pytest.raises(StatError) as caught:
        best_quadratic(known(mean, [0.05] * 5), [0, 1, 2, 3, 4], 0.05)
    assert caught.value.code is Problem.NO_OPTIMUM
    assert caught.value.facts["reason"] == reason


def test_best_dose_stays_within_the_tested_range() -> None:
    best = best_quadratic(known([0.0, 7, 12, 15, 16], [0.5] * 5), [0, 1, 2, 3, 4], 0.05)
    assert best.dose <= best.upper == 4
    assert 3 < best.lower < 4


@pytest.mark.parametrize("case", ["independent", "correlated"])
def test_best_tested_keeps_an_arm_until_alpha_reaches_dunnetts_p(case: str) -> None:
    given_ = REFERENCE[case]
    covariance = np.array(given_["covariance"]) if case == "correlated" else np.diag(np.square(given_["se"]))
    k = len(given_["mean"])
    arms = ArmVector(np.full(k, 1000), np.array(given_["mean"]), covariance, np.zeros(k))
    for arm, p in enumerate(given_["p"]):
        if p < 0.49:
            assert arm in best_tested(arms, p * 0.999)
            # Slepian's bound on p costs a few per cent of p under unequal covariances.
            assert arm not in best_tested(arms, p * (1.001 if case == "independent" else 1.1))


def spread_out(seed: int) -> np.ndarray:
    """Covariances (4, 4) with differences that are negatively correlated, and with variances a thousandfold apart."""
    if seed == 0:
        return np.array([[0.1, 0.1, 0.1, 0], [0.1, 1, -0.5, 0], [0.1, -0.5, 1, 0], [0, 0, 0, 1]])
    if seed == 1:
        return np.diag([1, 1e-3, 1, 1e-4])
    return correlated(seed, 4).covariance


@pytest.mark.parametrize("seed", range(6))
def test_best_tested_never_drops_an_arm_before_dunnetts_exact_p(seed: int) -> None:
    covariance = spread_out(seed)
    mean = np.random.default_rng(seed).normal(size=4) * 0.5 if seed else np.array([0, 0.2, 1.2, 0.1])
    arms = ArmVector(np.full(4, 99), mean, covariance, np.zeros(4))
    for k in range(4):
        contrasts = np.delete(np.eye(4), k, axis=0)
        contrasts[:, k] = -1
        joint = contrasts @ covariance @ contrasts.T
        se = np.sqrt(np.diag(joint))
        top = (contrasts @ arms.mean / se).max()
        normal = scipy.stats.multivariate_normal(cov=joint / np.outer(se, se), allow_singular=True, seed=1)
        p, bonferroni = float(1 - normal.cdf(np.full(3, top))), 3 * scipy.stats.norm.sf(top)
        if 1e-3 < p < 0.49:
            assert k in best_tested(arms, p * 0.998)
        if bonferroni < 0.49:
            assert k not in best_tested(arms, bonferroni * 1.001)


def test_two_arms_are_one_sided_welch_tests() -> None:
    low, high = rows(8)[:2]
    p = scipy.stats.ttest_ind(low, high, equal_var=False, alternative="less").pvalue
    assert p < 0.4
    assert best_tested(arms_of([low, high]), p * 0.9999) == [0, 1]
    assert best_tested(arms_of([low, high]), p * 1.0001) == [1]


def test_best_tested_extremes() -> None:
    assert best_tested(known([0, 40, 0], [1, 1e-3, 1]), 1e-300) == [1]
    assert best_tested(known([5, 5, 5], [1, 1, 1]), 0.49) == [0, 1, 2]
    assert best_tested(known([1e9, 1e9 + 10], [1, 1]), 0.05) == [1]
    assert best_tested(known([1.0], [1.0]), 0.05) == [0]
    with pytest.raises(ValueError, match="alpha"):
        best_tested(known([1, 2], [1, 1]), 0.5)
    with pytest.raises(StatError) as caught:
        best_tested(known([1, 2], [0, 0]), 0.05)
    assert caught.value.code is Problem.ZERO_VARIANCE


def test_best_tested_shrinks_as_alpha_grows_and_holds_the_observed_best() -> None:
    arms = correlated(9)
    sets = [set(best_tested(arms, alpha)) for alpha in (1e-4, 0.01, 0.1, 0.4)]
    assert all(small <= large for large, small in itertools.pairwise(sets))
    assert int(arms.mean.argmax()) in sets[-1]


def test_mailings_and_turnout_equal_the_published_regression(shared_data: Path) -> None:
    folder = shared_data / "gotv_new_haven_touch_frequency"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["computed"]
    with gzip.open(folder / "gerber_green_1998.csv.gz", "rt", encoding="utf-8") as file:
        table = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    phoned = np.array([row["phnscrpt"] > 0 for row in table], dtype=float)
    names = ("voted98", "persngrp", "vote96.1", "vote96.0", "age", "majorpty")
    rows = np.column_stack([*([row[name] for row in table] for name in names), phoned])
    mailed = np.array([row["mailings"] for row in table])
    arms = [Moments.from_rows(rows[mailed == k]) for k in range(4)]
    assert [arm.n for arm in arms] == [expected["turnout_by_mailings"][str(k)]["size"] for k in range(4)]
    estimate, se, p_value = expected["ols_HC2"]["mailings"]
    coefficients = sm.OLS(rows[:, 0], np.column_stack([np.ones(len(rows)), mailed, rows[:, 1:]])).fit().params
    residual = rows[:, 0] - rows[:, 1:] @ coefficients[2:]
    slope = trend(arms_of([residual[mailed == k] for k in range(4)]), range(4), Fixed(0.05))
    assert slope.estimate == pytest.approx(estimate, rel=1e-9)
    # Mailings overlap the other contacts, which costs the joint regression some precision.
    assert slope.se == pytest.approx(se, rel=0.06)
    assert slope.p_value == pytest.approx(p_value, abs=0.03)
    # Adjusted arms have slopes of their own for the covariates: the same answer within a fraction of its error.
    own = trend(adjusted(arms, 0, range(1, 7)), range(4), Fixed(0.05))
    assert own.estimate == pytest.approx(estimate, abs=0.25 * se)
    assert own.se == pytest.approx(se, rel=0.06)
    assert best_tested(means(arms), 0.05) == [0, 1, 2, 3]
    with pytest.raises(StatError) as caught:
        best_quadratic(means(arms), range(4), 0.05)
    assert caught.value.facts["reason"] == "not_concave"
