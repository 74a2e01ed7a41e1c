import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.errors import Problem, StatError
from stats.uplift import balance, calibration, placebo, qini, rate, rate_influence, toc, uplift_at
from stats.uplift_peers import auuc_causalml, auuc_sklift, qini_causalml, qini_sklift, uplift_at_k_sklift
from tests.stats.reference import load

REFERENCE = load("uplift.json")
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=60)
rankings = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(-3, 9)), min_size=8, max_size=60).filter(
    lambda rows: len({t for _, t, _ in rows}) == 2
)
CLEAN = {"mens": "Mens E-Mail", "womens": "Womens E-Mail"}
NONE = "No E-Mail"


def arrays(rows: list[tuple]) -> list[np.ndarray]:
    return [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]


def simulated(seed: int, n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """A ranking and noisy gains that rise with it."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    return x, x + rng.normal(0, 2, n)


# --- other programs


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_equals_causalml_and_scikit_uplift(case: dict) -> None:
    data = np.array(case["scores"]), np.array(case["treated"]), np.array(case["outcome"])
    if case["causalml"]:
        for name, score in (("auuc", auuc_causalml), ("qini", qini_causalml)):
            assert score(*data) == pytest.approx(case["causalml"][name], rel=1e-9)
            assert score(*data, normalize=False) == pytest.approx(case["causalml"][f"{name}_plain"], rel=1e-9)
    if expected := case["sklift"]:
        assert auuc_sklift(*data) == pytest.approx(expected["auuc"], rel=1e-9)
        assert qini_sklift(*data) == pytest.approx(expected["qini"], rel=1e-9)
        for strategy in ("overall", "by_group"):
            found = uplift_at_k_sklift(*data, k=0.3, strategy=strategy)
            assert found == pytest.approx(expected[f"at_30_{strategy}"], rel=1e-9)
        if "qini_no_negative" in expected:
            assert qini_sklift(*data, negative_effect=False) == pytest.approx(expected["qini_no_negative"], rel=1e-9)
        else:
            with pytest.raises(StatError):
                qini_sklift(*data, negative_effect=False)


@pytest.fixture(scope="module")
def clean(shared_data: Path) -> list[dict[str, str]]:
    with gzip.open(shared_data / "hillstrom" / "clean_scores_tlearner_16000.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_arm(rows: list[dict[str, str]], arm: str, outcome: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = [row for row in rows if row["segment"] in (CLEAN[arm], NONE)]
    scores = np.array([float(row[f"score_{arm}_tlearner"]) for row in kept])
    return (
        scores,
        np.array([row["segment"] == CLEAN[arm] for row in kept]),
        np.array([float(row[outcome]) for row in kept]),
    )


@pytest.mark.parametrize("outcome", ["visit", "conversion"])
@pytest.mark.parametrize("arm", CLEAN)
def test_hillstrom_scores_equal_both_programs(
    shared_data: Path, clean: list[dict[str, str]], arm: str, outcome: str
) -> None:
    computed = json.loads((shared_data / "hillstrom" / "expected.json").read_text(encoding="utf-8"))["computed"]
    expected = computed["clean_scores_tlearner"][arm][outcome]
    data = of_arm(clean, arm, outcome)
    assert qini_sklift(*data) == pytest.approx(expected["sklift_qini_auc"], rel=1e-9)
    assert auuc_sklift(*data) == pytest.approx(expected["sklift_uplift_auc"], rel=1e-9)
    for k in (10, 30, 50):
        for strategy in ("overall", "by_group"):
            found = uplift_at_k_sklift(*data, k=k / 100, strategy=strategy)
            assert found == pytest.approx(expected[f"sklift_uplift_at_{k}_{strategy}"], rel=1e-9)
    # One score in ten is tied, and their order is the processor's: equal to all digits where it sorts alike.
    assert auuc_causalml(*data) == pytest.approx(expected["causalml_auuc_norm"], abs=2e-4)
    assert qini_causalml(*data) == pytest.approx(expected["causalml_qini_norm"], abs=2e-4)


def test_uplift_of_a_binary_program_refuses_revenue() -> None:
    with pytest.raises(ValueError, match="outcome must be 0 or 1"):
        qini_sklift(np.arange(4.0), np.array([0, 1, 0, 1]), np.array([0.0, 2.0, 1.0, 0.0]))


def test_a_total_of_zero_is_no_scale() -> None:
    data = np.arange(4.0), np.array([0, 1, 0, 1]), np.array([1.0, 1.0, 0.0, 0.0])
    with pytest.raises(StatError) as caught:
        qini_causalml(*data)
    assert caught.value.code is Problem.ZERO_DENOMINATOR


# --- Qini


def test_qini_by_hand() -> None:
    # Scores 3 (treated 1, control 0), 2 (treated alone), 1 (treated 0, control 1).
    scores, treated, outcome = np.array([3, 3, 2, 1, 1.0]), np.array([1, 0, 1, 1, 0]), np.array([1, 0, 1, 0, 1.0])
    curve = qini(scores, treated, outcome)
    total = 2 / 3 - 1 / 2
    assert curve.share == pytest.approx([0, 0.4, 0.6, 1])
    assert curve.gain == pytest.approx([0, 0.4, 0.6, total])
    assert curve.random == pytest.approx([0, 0.4 * total, 0.6 * total, total])
    assert curve.area == pytest.approx(0.5 * 0.6 * 0.6 + 0.4 * (0.6 + total) / 2 - total / 2)


def test_qini_of_equal_arms_is_causalmls_plain_area_by_share_of_treated() -> None:
    rng = np.random.default_rng(20240613)
    n = 4000
    treated = rng.permutation(n) % 2
    scores = rng.random(n)
    outcome = rng.random(n) < 0.2 + 0.2 * treated * scores
    theirs = qini_causalml(scores, treated, outcome, normalize=False) / treated.sum()
    assert qini(scores, treated, outcome).area == pytest.approx(theirs, abs=1e-3)
    assert theirs == pytest.approx(0.2 / 12, rel=0.5)


def test_a_group_that_comes_late_starts_with_a_straight_line() -> None:
    curve = qini(np.array([4, 3, 2, 1.0]), np.array([1, 1, 0, 1]), np.array([1, 0, 0, 1.0]))
    assert curve.share == pytest.approx([0, 0.75, 1])
    assert curve.gain == pytest.approx([0, 0.75 / 2, 2 / 3])


@lawful
@given(rankings, st.floats(-50, 50), st.floats(0.1, 1e3), st.randoms())
def test_qini_laws(rows: list[tuple], shift: float, scale: float, random: object) -> None:
    scores, treated, outcome = arrays(rows)
    base = qini(scores, treated, outcome)
    random.shuffle(rows)  # type: ignore[attr-defined]
    mixed = qini(*arrays(rows))
    assert mixed.area == pytest.approx(base.area, abs=1e-9)
    assert qini(np.exp(scores), treated, outcome + shift).area == pytest.approx(base.area, abs=1e-9)
    assert qini(scores, treated, outcome * scale).area == pytest.approx(base.area * scale, abs=1e-9 * scale)
    swapped = qini(scores, 1 - treated, outcome)
    assert swapped.gain == pytest.approx(-base.gain, abs=1e-9)
    assert qini(scores, treated, outcome, np.full(scores.size, 7.0)).area == pytest.approx(base.area, abs=1e-9)


def test_strata_of_other_allocation_need_the_weights() -> None:
    """No effect; the stratum that buys more is treated more and scored higher."""
    rng = np.random.default_rng(20240614)
    n = 40_000
    upper = rng.random(n) < 0.5
    probability = np.where(upper, 0.9, 0.3)
    treated = rng.random(n) < probability
    outcome = (rng.random(n) < np.where(upper, 0.5, 0.1)).astype(np.float64)
    scores = upper + rng.normal(0, 1, n)
    weight = 1 / np.where(treated, probability, 1 - probability)
    assert abs(qini(scores, treated, outcome, weight).gain[-1]) < 0.02
    assert qini(scores, treated, outcome).gain[-1] > 0.1


# --- on doubly robust scores


def test_toc_equals_causalml() -> None:
    case = REFERENCE["toc"]
    found = toc(np.array(case["priority"]), np.array(case["gains"]), case["shares"])
    assert found.estimate == pytest.approx(case["values"], rel=1e-9)


def by_definition(priority: np.ndarray, gains: np.ndarray, target: str) -> float:
    """grf's: gains averaged over ties, then the mean of TOC(k/n), or of k/n TOC(k/n)."""
    averaged = np.array([gains[priority == p].mean() for p in priority])
    ordered = averaged[np.argsort(-priority, kind="stable")]
    n = ordered.size
    curve = np.array([ordered[:k].mean() - ordered.mean() for k in range(1, n + 1)])
    return float(curve.mean() if target == "autoc" else (curve * np.arange(1, n + 1) / n).mean())


@lawful
@given(rankings, st.floats(-50, 50), st.floats(0.1, 1e3), st.sampled_from(["autoc", "qini"]))
def test_rate_is_its_definition_and_obeys_its_laws(rows: list[tuple], shift: float, scale: float, target: str) -> None:
    priority, _, gains = arrays(rows)
    estimate, influence = rate_influence(priority, gains, target)
    assert estimate == pytest.approx(by_definition(priority, gains, target), abs=1e-9)
    assert influence.mean() == pytest.approx(0, abs=1e-9)
    order = np.random.default_rng(1).permutation(gains.size)
    moved, moved_influence = rate_influence(priority[order] * 3 - 1, scale * (gains[order] + shift), target)
    assert moved == pytest.approx(scale * estimate, abs=1e-8 * scale)
    assert moved_influence == pytest.approx(scale * influence[order], abs=1e-8 * scale)


@pytest.mark.parametrize("target", ["autoc", "qini"])
@pytest.mark.parametrize("grades", [None, 7])
def test_influence_is_that_of_weighting_a_user_up(target: str, grades: int | None) -> None:
    """Each user 200 times, one of them 20 times more: the RATE moves by his influence times his share of the users.

    Not so for the very first: there a sum over users differs from the integral that many users come near.
    """
    priority, gains = simulated(3, 150)
    priority = priority if grades is None else np.floor(priority * grades)
    influence = rate_influence(priority, gains, target)[1]
    repeated = [np.repeat(each, 200) for each in (priority, gains)]
    base = rate_influence(*repeated, target)[0]
    for user in np.argsort(-priority)[20::7]:
        more = [np.append(r, [each[user]] * 20) for r, each in zip(repeated, (priority, gains), strict=True)]
        slope = (rate_influence(*more, target)[0] - base) / (20 / repeated[0].size)
        assert slope == pytest.approx(influence[user], abs=0.1 * np.abs(influence).mean())


@pytest.mark.parametrize(("target", "truth"), [("autoc", 1 / 4), ("qini", 1 / 12)])
def test_rate_finds_a_known_area(target: str, truth: float) -> None:
    found = rate(*simulated(4, 60_000), target)
    assert found.lower < truth < found.upper
    assert found.p_value < 1e-9
    assert found.se == pytest.approx({"autoc": 2, "qini": 2 / 12**0.5}[target] / 60_000**0.5, rel=0.1)


def test_rate_within_folds_ignores_the_level_of_a_fold() -> None:
    priority, gains = simulated(5)
    fold = np.arange(priority.size) % 3
    found = rate(priority + 10.0 * fold, gains, "qini", fold)
    parts = [rate(priority[fold == f], gains[fold == f], "qini") for f in range(3)]
    assert found.estimate == pytest.approx(np.mean([part.estimate for part in parts]))
    assert found.se == pytest.approx(sum(part.se**2 for part in parts) ** 0.5 / 3, rel=1e-3)
    same = np.zeros(priority.size, dtype=np.int64)
    assert rate(priority, gains, "qini", same) == rate(priority, gains, "qini")


@pytest.mark.parametrize("target", ["autoc", "qini"])
@pytest.mark.parametrize("grades", [None, 5])
def test_error_is_that_of_the_half_sample_bootstrap(target: str, grades: int | None) -> None:
    """grf's way to the error: the spread over halves of the users."""
    priority, gains = simulated(19)
    priority = priority if grades is None else np.floor(priority * grades)
    rng, halves = np.random.default_rng(20), []
    for _ in range(500):
        half = rng.permutation(3000)[:1500]
        halves.append(rate_influence(priority[half], gains[half], target)[0])
    assert rate(priority, gains, target).se == pytest.approx(np.std(halves), rel=0.12)


def test_ranking_across_folds_runs_backwards_where_there_is_nothing_to_rank() -> None:
    """A model that knows the mean gain only, fitted on the other folds: its folds of low gains come first."""
    rng = np.random.default_rng(18)
    fold = np.arange(500) % 5
    across, within = [], []
    for _ in range(100):
        gains = rng.normal(size=500)
        priority = np.array([gains[fold != f].mean() for f in range(5)])[fold] + rng.normal(0, 1e-6, 500)
        across.append(rate(priority, gains, "qini").estimate)
        within.append(rate(priority, gains, "qini", fold).estimate)
    assert np.mean(across) < -10 * scipy.stats.sem(across)
    assert abs(np.mean(within)) < 4 * scipy.stats.sem(within)


@pytest.mark.parametrize("target", ["autoc", "qini"])
def test_placebo_is_centred_and_as_wide_as_the_error_of_a_useless_ranking(target: str) -> None:
    _, gains = simulated(6)
    drawn = placebo(gains, np.random.default_rng(7), 2000, target)
    assert abs(drawn.mean()) < 4 * drawn.std() / 2000**0.5
    assert drawn.std() == pytest.approx(rate(np.random.default_rng(8).random(3000), gains, target).se, rel=0.1)


def test_equal_priorities_rank_nobody() -> None:
    with pytest.raises(StatError) as caught:
        rate(np.ones(50), np.arange(50.0))
    assert caught.value.code is Problem.ZERO_VARIANCE


def test_the_first_of_all_are_all() -> None:
    priority, gains = simulated(9)
    found = uplift_at(priority, gains, 1.0)
    assert (found.estimate, found.se) == pytest.approx((gains.mean(), scipy.stats.sem(gains)))
    last = toc(priority, gains)
    assert (last.estimate[-1], last.se[-1]) == (0, 0)
    assert last.estimate + gains.mean() == pytest.approx([uplift_at(priority, gains, q).estimate for q in last.share])


@pytest.mark.parametrize("share", [0.2, 0.25, 0.5])
def test_ties_at_the_cut_enter_in_part(share: float) -> None:
    gains = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 5.0, 0.0, 1.0])
    priority = np.array([9, 5, 5, 5, 5, 1, 1, 1])
    count = share * 8
    above = min(count, 1.0)
    assert uplift_at(priority, gains, share).estimate == pytest.approx((above * 1 + (count - above) * 8.75) / count)


def test_error_of_the_first_third_counts_the_cut() -> None:
    """Gains known without noise: only who is in the sample, and so where the cut falls, moves the estimate."""
    rng = np.random.default_rng(10)
    seen = []
    for _ in range(400):
        x = rng.random(400)
        seen.append(uplift_at(x, x, 0.3))
    points = np.array([each.estimate for each in seen])
    assert np.mean([each.se for each in seen]) == pytest.approx(points.std(), rel=0.12)
    assert np.mean([each.lower < 0.85 < each.upper for each in seen]) > 0.9


def test_calibration_by_hand_and_by_statsmodels() -> None:
    priority, gains = simulated(11, 1000)
    found = calibration(priority, gains, 4)
    fit = sm.OLS(gains, sm.add_constant(priority)).fit(cov_type="HC3")
    assert (found.slope.estimate, found.slope.se) == pytest.approx((fit.params[1], fit.bse[1]), rel=1e-9)
    assert [each.n for each in found.bins] == [250] * 4
    lowest = np.argsort(priority)[:250]
    first = found.bins[0]
    assert (first.predicted, first.realised) == pytest.approx((priority[lowest].mean(), gains[lowest].mean()))
    half = scipy.stats.t.isf(0.025, 249) * scipy.stats.sem(gains[lowest])
    assert (first.lower, first.upper) == pytest.approx((first.realised - half, first.realised + half))
    assert found.slope.lower < 1 < found.slope.upper


def test_equal_predictions_share_a_bin() -> None:
    predicted = np.repeat([0.1, 0.2, 0.3], [600, 300, 100])
    found = calibration(predicted, simulated(12, 1000)[1], 10)
    assert [(each.n, each.predicted) for each in found.bins] == [
        (600, pytest.approx(0.1)),
        (300, pytest.approx(0.2)),
        (100, pytest.approx(0.3)),
    ]
    with pytest.raises(StatError) as caught:
        calibration(np.ones(1000), predicted, 2)
    assert caught.value.code is Problem.ZERO_VARIANCE


# --- leakage


def strata(seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, arms of two strata with other shares, and their probabilities."""
    rng = np.random.default_rng(seed)
    x = rng.random(n)
    e = np.where((x > 0.5)[:, None], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6])
    return x, (rng.random(n)[:, None] > np.cumsum(e, axis=1)[:, :2]).sum(axis=1), e


def test_a_score_of_what_was_known_is_clean_though_allocation_differs() -> None:
    x, arm, e = strata(13, 20_000)
    found = balance(x, arm, e)
    assert found.p_value > 0.01
    assert found.auc == pytest.approx([0.5] * 3, abs=0.02)
    assert found.distance.max() < 0.03
    pooled = np.broadcast_to(np.bincount(arm) / arm.size, e.shape)
    assert balance(x, arm, pooled).p_value < 1e-100


@pytest.mark.parametrize("kind", ["shift", "spread", "top"])
def test_a_score_that_knows_the_outcome_is_found(kind: str) -> None:
    x, arm, e = strata(14, 20_000)
    rng = np.random.default_rng(15)
    bought = rng.random(x.size) < np.array([0.01, 0.03, 0.012])[arm]
    leaks: dict[str, Callable[[], np.ndarray]] = {
        "shift": lambda: x + 0.1 * (arm == 1),
        "spread": lambda: 0.5 + (x - 0.5) * (1 + 0.3 * (arm == 1)),
        "top": lambda: x + bought,
    }
    found = balance(leaks[kind](), arm, e)
    assert found.p_value < 1e-6
    assert found.arm == 1
    if kind == "shift":
        assert found.auc[1] > 0.52


def test_sizes_of_arms_are_another_question() -> None:
    """Twice the users of an arm that were due: the score is clean all the same."""
    rng = np.random.default_rng(16)
    arm = (rng.random(10_000) < 0.6).astype(np.int64)
    found = balance(rng.random(10_000), arm, np.full((10_000, 2), 0.5))
    assert found.p_value > 0.01


def test_balance_is_level_and_mirrored() -> None:
    rng = np.random.default_rng(17)
    alarms = 0
    for seed in range(300):
        x, arm, e = strata(seed, 800)
        alarms += balance(np.floor(x * 30), arm, e).p_value < 0.1
    assert alarms <= scipy.stats.binom.isf(1e-4, 300, 0.1)
    x, arm = rng.random(500), rng.integers(0, 2, 500)
    e = np.full((500, 2), 0.5)
    one, other = balance(x, arm, e), balance(-np.exp(x), 1 - arm, e)
    assert one.p_value == pytest.approx(other.p_value)
    assert one.auc == pytest.approx(other.auc)
    assert one.auc[0] == pytest.approx(
        scipy.stats.mannwhitneyu(x[arm == 0], x[arm == 1]).statistic / np.prod(np.bincount(arm))
    )
    assert one.distance[1] == pytest.approx(scipy.stats.ks_2samp(x[arm == 0], x[arm == 1]).statistic)


def test_hillstrom_scores_are_clean_until_they_see_the_visit(clean: list[dict[str, str]]) -> None:
    arms = [NONE, *CLEAN.values()]
    arm = np.array([arms.index(row["segment"]) for row in clean])
    e = np.full((arm.size, 3), 1 / 3)
    scores = {name: np.array([float(row[f"score_{name}_tlearner"]) for row in clean]) for name in CLEAN}
    visit = np.array([float(row["visit"]) for row in clean])
    for each in scores.values():
        assert balance(each, arm, e).p_value > 0.05
    leaking = scores["mens"] / scores["mens"].std() + 3 * visit
    found = balance(leaking, arm, e)
    assert found.p_value < 1e-10
    # As sharp as the two-sample test of Kolmogorov and Smirnov of any e-mail against none.
    assert found.p_value < 10 * scipy.stats.ks_2samp(leaking[arm > 0], leaking[arm == 0]).pvalue
    assert found.arm == 0


# --- arguments


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: qini([1.0, 2.0], [0, 2], [0.0, 1.0]), "treated must be 0 or 1"),
        (lambda: qini([1.0, 2.0], [0, 1, 1], [0.0, 1.0]), r"one shape \(n,\)"),
        (lambda: qini([1.0, np.nan], [0, 1], [0.0, 1.0]), "finite"),
        (lambda: qini([1.0, 2.0], [0, 1], [0.0, 1.0], [1.0, 0.0]), "weight must hold a positive number"),
        (lambda: rate([1.0, 2.0], [1.0, 2.0], "auc"), "target must be 'autoc' or 'qini', got 'auc'"),
        (lambda: rate([1.0, 2.0], [1.0, 2.0, 3.0]), "one shape"),
        (lambda: rate([1.0, 2.0], [1.0, 2.0], fold=[1]), "fold must hold one fold"),
        (lambda: uplift_at([1.0, 2.0], [1.0, 2.0], 0.0), r"share must lie in \(0, 1\]: 0.0"),
        (lambda: calibration([1.0, 2.0], [1.0, 2.0], 2), "leave two users in each: 2 for 2 users"),
        (lambda: balance([1.0], np.array([0, 1]), np.full((2, 2), 0.5)), "for each of the 2 users"),
        (lambda: uplift_at_k_sklift([1.0, 2.0], [0, 1], [0.0, 1.0], 1.0), r"k must lie in \(0, 1\)"),
        (lambda: uplift_at_k_sklift([1.0, 2.0], [0, 1], [0.0, 1.0], 0.5, "all"), "strategy must be"),
    ],
)
def test_wrong_arguments(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: qini([1.0, 2.0], [1, 1], [0.0, 1.0]), Problem.NOT_ENOUGH_DATA),
        (lambda: toc([1.0], [1.0]), Problem.NOT_ENOUGH_DATA),
        (lambda: rate(np.arange(9.0), np.ones(9)), Problem.ZERO_VARIANCE),
        (lambda: balance(np.ones(9), np.arange(9) % 2, np.full((9, 2), 0.5)), Problem.ZERO_VARIANCE),
        (lambda: balance(np.arange(9.0), np.arange(9) % 2, np.full((9, 2), 0.5)), Problem.NOT_ENOUGH_DATA),
        (lambda: uplift_at_k_sklift([1.0, 2.0], [0, 1], [0.0, 1.0], 0.5), Problem.NOT_ENOUGH_DATA),
    ],
)
def test_problems(call: Callable[[], object], code: Problem) -> None:
    with pytest.raises(StatError) as caught:
        call()
    assert caught.value.code is code
