import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm

from stats.arms import ArmVector, means
from stats.contrasts import linear
from stats.effects import difference
from stats.errors import Problem, StatError
from stats.factorial import FactorEffect, additivity, effects
from stats.horizon import Fixed, Sequential
from stats.moments import Moments

HORIZON = Fixed(0.05)
FACTORS = {"copy": ["plain", "warm", "urgent"], "offer": ["none", "coupon"], "touches": ["1", "3"]}
BASELINE = {factor: levels[0] for factor, levels in FACTORS.items()}
GRID = [dict(zip(FACTORS, cell, strict=True)) for cell in itertools.product(*FACTORS.values())]


def design(seed: int, cells: list[dict[str, str]], heavy: bool = True) -> tuple[ArmVector, np.ndarray, np.ndarray]:
    """Arms of unequal size, their rows' outcomes and the cell of each row."""
    rng = np.random.default_rng(seed)
    samples = [rng.gamma(2, 1 + k % 4, 40 + 13 * k if heavy else 40) for k in range(len(cells))]
    rows = np.repeat(np.arange(len(cells)), [s.size for s in samples])
    return means([Moments.from_rows(s[:, None]) for s in samples]), np.concatenate(samples), rows


def named(found: list[FactorEffect]) -> dict[tuple[str, ...], FactorEffect]:
    return {tuple(level for _, level in item.factors): item for item in found}


def centred(cells: list[dict[str, str]]) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Design of the saturated regression whose coefficients are effects averaged with equal weight over the rest."""
    columns = {("constant",): np.ones(len(cells))}
    blocks = []
    for factor, levels in FACTORS.items():
        coded = {lv: np.array([float(c[factor] == lv) for c in cells]) - 1 / len(levels) for lv in levels[1:]}
        blocks.append(coded)
    for size in (1, 2, 3):
        for chosen in itertools.combinations(blocks, size):
            for names in itertools.product(*chosen):
                columns[names] = np.prod([block[name] for block, name in zip(chosen, names, strict=True)], axis=0)
    return np.column_stack(list(columns.values())), list(columns)


def test_effects_equal_the_saturated_regression_with_hc2() -> None:
    arms, y, rows = design(1, GRID)
    coded, names = centred(GRID)
    fit = sm.OLS(y, coded[rows]).fit(cov_type="HC2")
    found = named(effects(arms, GRID, BASELINE, HORIZON))
    assert set(found) == {name for name in names[1:] if len(name) <= 2}
    for name, item in found.items():
        at = names.index(name)
        assert item.effect is not None
        assert not item.assumed
        assert (item.effect.estimate, item.effect.se) == pytest.approx((fit.params[at], fit.bse[at]), rel=1e-9)


def test_additivity_is_the_wald_test_of_all_interactions() -> None:
    arms, y, rows = design(2, GRID)
    coded, names = centred(GRID)
    fit = sm.OLS(y, coded[rows]).fit(cov_type="HC2")
    interactions = np.eye(len(names))[[k for k, name in enumerate(names) if len(name) > 1]]
    oracle = fit.wald_test(interactions, scalar=True, use_f=False)
    test = additivity(arms, GRID)
    assert test.df == 7
    assert test.statistic == pytest.approx(float(oracle.statistic), rel=1e-8)
    assert test.p_value == pytest.approx(float(oracle.pvalue), rel=1e-7)


def test_one_factor_is_a_plain_comparison() -> None:
    cells = [{"copy": level} for level in ("a", "b", "c")]
    arms, _, _ = design(3, cells)
    found = effects(arms, cells, {"copy": "b"}, HORIZON)
    assert [item.factors for item in found] == [(("copy", "a"),), (("copy", "c"),)]
    assert [item.effect for item in found] == [difference(arms, 0, 1, HORIZON), difference(arms, 2, 1, HORIZON)]


def test_an_additive_truth_has_no_interaction_whatever_the_cell_sizes() -> None:
    added = {"plain": 0, "warm": 1, "urgent": -2, "none": 0, "coupon": 5, "1": 0, "3": 0.5}
    truth = np.array([sum(added[level] for level in cell.values()) for cell in GRID], dtype=float)
    arms, _, _ = design(4, GRID)
    exact = ArmVector(arms.n, truth, arms.covariance, arms.satterthwaite)
    for name, item in named(effects(exact, GRID, BASELINE, HORIZON)).items():
        assert item.effect is not None
        assert item.effect.estimate == pytest.approx(added[name[0]] if len(name) == 1 else 0, abs=1e-12)
    assert additivity(exact, GRID).p_value == pytest.approx(1)


def test_order_of_cells_changes_nothing() -> None:
    arms, _, _ = design(5, GRID)
    order = np.random.default_rng(5).permutation(len(GRID))
    mixed = ArmVector(arms.n[order], arms.mean[order], arms.covariance[np.ix_(order, order)], arms.satterthwaite[order])
    plain = named(effects(arms, GRID, BASELINE, HORIZON))
    for name, item in named(effects(mixed, [GRID[k] for k in order], BASELINE, HORIZON)).items():
        assert item.effect is not None
        assert item.effect.estimate == pytest.approx(plain[name].effect.estimate)  # type: ignore[union-attr]
        assert item.effect.p_value == pytest.approx(plain[name].effect.p_value)  # type: ignore[union-attr]
    assert additivity(mixed, [GRID[k] for k in order]).statistic == pytest.approx(additivity(arms, GRID).statistic)


def test_a_missing_cell_leaves_the_additive_least_squares_effect() -> None:
    cells = [c for c in GRID if c["touches"] == "1" and c != {"copy": "urgent", "offer": "coupon", "touches": "1"}]
    cells = [{"copy": c["copy"], "offer": c["offer"]} for c in cells]
    arms, _, _ = design(6, cells)
    found = named(effects(arms, cells, {"copy": "plain", "offer": "none"}, HORIZON))
    regressors = np.array(
        [[1, c["copy"] == "warm", c["copy"] == "urgent", c["offer"] == "coupon"] for c in cells], float
    )
    oracle = sm.OLS(arms.mean, regressors).fit().params
    for at, name in enumerate([("warm",), ("urgent",), ("coupon",)], start=1):
        effect = found[name].effect
        assert effect is not None
        assert effect.estimate == pytest.approx(oracle[at], rel=1e-10)
    # warm and plain were both run under every offer: nothing is assumed for them.
    assert [found[name].assumed for name in [("warm",), ("urgent",), ("coupon",)]] == [False, True, True]
    assert found["warm", "coupon"].effect is not None
    absent = found["urgent", "coupon"]
    assert (absent.effect, absent.problem) == (None, Problem.NOT_ENOUGH_DATA)
    test, interaction = additivity(arms, cells), found["warm", "coupon"].effect
    assert (test.df, test.statistic) == (1, pytest.approx(interaction.statistic**2))


def test_a_missing_cell_of_three_factors_leaves_the_model_of_pairs() -> None:
    cells = [c for c in GRID if c["copy"] != "urgent"][:-1]
    arms, _, _ = design(10, cells)
    found = named(effects(arms, cells, BASELINE, HORIZON))
    warm, coupon, thrice = (
        np.array([c[f] == lv for c in cells], float)
        for f, lv in (("copy", "warm"), ("offer", "coupon"), ("touches", "3"))
    )
    columns = [np.ones(7), warm, coupon, thrice, warm * coupon, warm * thrice, coupon * thrice]
    oracle = sm.OLS(arms.mean, np.column_stack(columns)).fit().params
    for at, name in enumerate([("warm", "coupon"), ("warm", "3"), ("coupon", "3")], start=4):
        effect = found[name].effect
        assert effect is not None
        assert found[name].assumed
        assert effect.estimate == pytest.approx(oracle[at], rel=1e-9)


def test_factors_that_were_never_varied_apart_are_not_estimable() -> None:
    cells = [{"copy": "plain", "offer": "none"}, {"copy": "warm", "offer": "coupon"}]
    arms, _, _ = design(7, cells)
    found = effects(arms, cells, cells[0], HORIZON)
    assert [item.problem for item in found] == [Problem.NOT_ENOUGH_DATA] * 3
    with pytest.raises(StatError) as caught:
        additivity(arms, [{"copy": "plain"}, {"copy": "warm"}])
    assert caught.value.code is Problem.NOT_ENOUGH_DATA


def test_one_corner_and_two_changes_need_no_interaction_for_the_main_effects() -> None:
    cells = [
        {"copy": "plain", "offer": "none"},
        {"copy": "warm", "offer": "none"},
        {"copy": "plain", "offer": "coupon"},
    ]
    arms, _, _ = design(8, cells)
    horizon = Sequential.tuned(0.05, 500)
    found = named(effects(arms, cells, cells[0], horizon))
    for name, weights in (("warm", [-1, 1, 0]), ("coupon", [-1, 0, 1])):
        effect = found[name,].effect
        assert effect is not None
        assert found[name,].assumed
        # The sequence counts the users of the cells that carry weight.
        plain = linear(arms, weights, horizon)
        assert (effect.estimate, effect.upper) == pytest.approx((plain.estimate, plain.upper), rel=1e-12)


def test_an_effect_without_variance_is_a_problem_of_its_own() -> None:
    cells = [{"copy": a, "offer": b} for a in ("plain", "warm", "urgent") for b in ("none", "coupon")]
    variance = np.array([0, 0, 0, 0, 1.0, 1.0])
    arms = ArmVector(np.full(6, 10), np.arange(6.0), np.diag(variance), np.zeros(6))
    found = named(effects(arms, cells, cells[0], HORIZON))
    assert found["warm",].problem is Problem.ZERO_VARIANCE
    assert found["urgent",].effect is not None


@pytest.mark.parametrize(
    ("cells", "baseline"),
    [
        (GRID[:2], BASELINE),
        ([*GRID[:-1], {"copy": "plain"}], BASELINE),
        ([*GRID[:-1], GRID[0]], BASELINE),
        (GRID, BASELINE | {"copy": "loud"}),
        (GRID, {"copy": "plain"}),
    ],
)
def test_cells_and_baseline_must_fit(cells: list[dict[str, str]], baseline: dict[str, str]) -> None:
    arms, _, _ = design(9, GRID)
    with pytest.raises(ValueError, match=r"level|factor|arm"):
        effects(arms, cells, baseline, HORIZON)


def test_email_subject_by_sender_equals_the_published_regression(shared_data: Path) -> None:
    folder = shared_data / "nonprofit_email_subject_line_2x2"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["computed"]
    with (folder / "email_opens.csv").open(encoding="utf-8") as file:
        delivered = [r for r in csv.DictReader(file) if r["treatment_received"]]
    cells = [{"subject": s, "sender": f} for s in "01" for f in "01"]
    opens = [
        np.array(
            [[float(r["open"])] for r in delivered if (r["subject_catalyst"], r["from_executive_director"]) == key]
        )
        for key in itertools.product("01", "01")
    ]
    arms = means([Moments.from_rows(x) for x in opens])
    found = named(effects(arms, cells, {"subject": "0", "sender": "0"}, HORIZON))
    assert sum(x.size for x in opens) == expected["delivered"]
    interaction = found["1", "1"].effect
    assert interaction is not None
    saturated = expected["hc3_saturated"]
    estimate, se, lower, upper = saturated["inter"]
    # HC3 divides each cell's variance by n - 1 once more.
    assert interaction.estimate == pytest.approx(estimate, abs=1e-12)
    assert interaction.se == pytest.approx(se, rel=2e-3)
    assert (interaction.lower, interaction.upper) == pytest.approx((lower, upper), abs=3e-4)
    subject, sender = (item.effect for item in effects(arms, cells, {"subject": "0", "sender": "0"}, HORIZON)[:2])
    assert subject is not None
    assert sender is not None
    assert subject.estimate == pytest.approx(saturated["subject_catalyst"][0] + estimate / 2, abs=1e-12)
    assert sender.estimate == pytest.approx(saturated["from_executive_director"][0] + estimate / 2, abs=1e-12)
    # The cells are nearly of one size, so the regression without interaction nearly agrees.
    two = expected["hc3_two_factor"]["subject_catalyst"]
    assert (subject.estimate, subject.se, subject.lower, subject.upper) == pytest.approx(two, abs=1e-4)
    test = additivity(arms, cells)
    assert test.df == 1
    assert test.p_value == pytest.approx(scipy.stats.norm.sf(abs(estimate / se)) * 2, abs=2e-3)
