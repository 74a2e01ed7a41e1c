from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.sandbox.regression.gmm import IV2SLS
from statsmodels.stats.contingency_tables import Table2x2

from experiments.codes import HealthCode
from experiments.report import Report
from experiments.sums import MICROS, Cell, Column, Layout, Measured, Sums, Values
from stats.errors import Problem
from tests.experiments.analysis.figures import Floats, figures, limits, near, only
from tests.experiments.rows import build, design, measured, spec


def mixed(rows: dict[Any, Floats], outcomes: int = 1) -> Measured:
    """Outcomes, and whether received."""
    data = measured(rows)
    columns = (*(Column(f"x{i}", MICROS) for i in range(outcomes)), Column("received", MICROS))
    return Measured(Layout(columns, 0), data.cells)


def reaching(seed: int = 1, share: float = 0.4) -> dict[Any, Floats]:
    r = np.random.default_rng(seed)
    rows = {}
    for v, n in (("c", 500), ("t", 450)):
        received = (r.random(n) < (share if v == "t" else 0.02)).astype(float)
        rows[None, v] = np.column_stack([(5 + received + r.normal(0, 1, n)).round(3), received])
    return rows


def primary(rows: dict[Any, Floats]) -> Any:
    return spec(), measured({who: values[:, 0] for who, values in rows.items()})


def test_the_complier_effect_equals_two_stage_least_squares() -> None:
    rows = reaching()
    report = build(design(), primary(rows), received=mixed(rows))
    (found,) = report.compliers
    both = np.vstack([rows[None, "t"], rows[None, "c"]])
    assigned = sm.add_constant(np.repeat([1.0, 0.0], [450, 500]))
    fit = IV2SLS(both[:, 0], sm.add_constant(both[:, 1]), assigned).fit()
    assert found.effect is not None
    assert found.effect.estimate == near(fit.params[1])
    assert found.effect.upper - found.effect.lower == near(2 * 1.96 * fit.bse[1], rel=0.05)
    assert (found.received, found.received_control) == near(rows[None, "t"][:, 1].mean(), rows[None, "c"][:, 1].mean())
    assert found.p_value == near(only(report).p_value)


def test_a_share_that_cannot_be_told_from_none_has_no_complier_effect() -> None:
    rows = reaching(share=0.025)
    (found,) = build(design(), primary(rows), received=mixed(rows)).compliers
    assert (found.problem, found.effect, found.p_value) == (Problem.WEAK_INSTRUMENT, None, None)
    assert found.received is not None


def test_a_ratio_of_compliers_is_that_of_its_linearised_values() -> None:
    r = np.random.default_rng(2)
    rows = {}
    for v in "ct":
        received = (r.random(400) < (0.5 if v == "t" else 0.0)).astype(float)
        rows[None, v] = np.column_stack([r.integers(0, 9, 400) + 3 * received, r.integers(1, 5, 400), received])
    data = measured({who: values[:, :2] for who, values in rows.items()}, "ratio")
    report = build(design(), (spec(kind="ratio"), data), received=mixed(rows, 2))
    (found,) = report.compliers
    gap = rows[None, "t"][:, 2].mean() - rows[None, "c"][:, 2].mean()
    assert limits(found.effect)[0] == near(limits(only(report).absolute)[0] / gap)


def test_received_without_ghosts_is_no_reason_to_count_openers_only() -> None:
    rows = reaching()
    report = build(design(), primary(rows), received=mixed(rows))
    assert [(f.code, f.fatal) for f in report.health] == [(HealthCode.openers_only, False)]
    assert build(design(ghosts=True), primary(rows), received=mixed(rows)).health == []


def firing(shares: dict[Any, float], n: int = 600, seed: int = 3) -> tuple[dict[Any, Floats], dict[Any, Floats]]:
    """All users' outcomes, and those of users for whom the trigger fired."""
    r = np.random.default_rng(seed)
    everyone = {who: r.normal(5 + 0.5 * (who[1] == "t"), 1, n).round(3) for who in shares}
    return everyone, {who: values[r.random(n) < shares[who]] for who, values in everyone.items()}


def triggered(shares: dict[Any, float], plan: Any = None, n: int = 600) -> tuple[Report, dict[Any, Floats]]:
    everyone, fired = firing(shares, n)
    plan = plan or design(ghosts=True)
    return build(plan, (spec(), measured(everyone)), triggered=measured(fired)), fired


def test_the_triggered_analysis_equals_an_experiment_on_those_for_whom_it_fired() -> None:
    report, fired = triggered({(None, "t"): 0.3, (None, "c"): 0.3})
    (found,) = report.triggered
    alone = only(build(design(), (spec(), measured(fired))))
    assert (found.effect, found.p_value) == (alone.absolute, alone.p_value)
    assert (found.users, found.users_control) == (fired[None, "t"].size, fired[None, "c"].size)
    counts = [[fired[None, v].size, 600 - fired[None, v].size] for v in "tc"]
    oracle = Table2x2(np.array(counts)).test_nominal_association().pvalue
    assert found.balance_p == near(oracle)
    assert report.health == []
    assert [check.passed for check in report.checks if check.code == HealthCode.trigger_depends_on_variant] == [True]


def test_a_trigger_that_the_treatment_moves_is_refused() -> None:
    report, fired = triggered({(None, "t"): 0.45, (None, "c"): 0.3})
    (found,) = report.triggered
    assert (found.problem, found.effect, found.p_value) == (Problem.TRIGGER_UNBALANCED, None, None)
    users = fired[None, "t"].size + fired[None, "c"].size
    assert [(f.code, f.subject, f.count) for f in report.health] == [
        (HealthCode.trigger_depends_on_variant, "t", users)
    ]


def test_strata_with_triggers_and_shares_of_their_own_do_not_look_unbalanced() -> None:
    """Half and half where it fires for most, nine to one where it fires for few: pooled, the arms differ."""
    sizes = {("a", "t"): 500, ("a", "c"): 500, ("b", "t"): 100, ("b", "c"): 900}
    r = np.random.default_rng(1)
    everyone = {who: r.normal(5, 1, n).round(3) for who, n in sizes.items()}
    fired = {who: x[: round(x.size * (0.8 if who[0] == "a" else 0.2))] for who, x in everyone.items()}
    plan = design({"a": {"c": 0.5, "t": 0.5}, "b": {"c": 0.9, "t": 0.1}}, ghosts=True)
    report = build(plan, (spec(), measured(everyone)), triggered=measured(fired))
    (found,) = report.triggered
    assert found.balance_p == near(1.0)
    assert found.problem is None
    assert figures(only(build(plan, (spec(), measured(fired)))))[0] == found.effect


@pytest.mark.parametrize("fired", [0, 1])
def test_a_trigger_that_hardly_fired_has_no_effect_to_show(fired: int) -> None:
    everyone, _ = firing({(None, "t"): 0.0, (None, "c"): 0.0})
    inside = {who: values[:fired] for who, values in everyone.items()}
    layout = measured(everyone).layout
    data = measured(inside) if fired else Measured(layout, {Cell(*who, None): Sums(0, (0,), (0,)) for who in inside})
    (found,) = build(design(ghosts=True), (spec(), measured(everyone)), triggered=data).triggered
    assert found.problem == Problem.NOT_ENOUGH_DATA


def test_a_quantile_has_neither_since_both_are_means() -> None:
    rows = reaching()
    base = measured({who: values[:, 0] for who, values in rows.items()})
    values = {who: Values(np.zeros(len(x), dtype=np.int64), np.sort(x[:, 0]), None) for who, x in rows.items()}
    data = Measured(base.layout, base.cells, values=values)
    plan = design(ghosts=True)
    report = build(plan, (spec(kind="quantile", quantile=0.9), data), received=mixed(rows), triggered=base)
    assert (report.compliers, report.triggered) == ([], [])
