import re

import numpy as np
import pytest

from experiments import printout, wording
from experiments.design import Adapting, ValueSpec
from experiments.fields import Role
from experiments.report import Report
from stats.groupsequential import Spending
from stats.posterior import Normal
from stats.survival import Lifetimes
from tests.experiments.rows import build, design, measured, spec

ROWS = {("a", "t"): [10, 12, 14, 19], ("a", "c"): [1, 2, 3, 5], ("b", "t"): [11, 12, 13], ("b", "c"): [1, 1, 3]}
SHARES = {s: {"c": 0.5, "t": 0.5} for s in ("a", "b")}


def test_advice_tells_whom_what_and_why() -> None:
    plan = design(SHARES, value=ValueSpec("m", 1.0, 100, "CNY", {}))
    report = build(plan, (spec(), measured(ROWS)))
    value = report.decision.value_per_month
    assert value is not None
    assert wording.advice(report) == (
        f"ship T to everyone; worth {value.estimate:,.0f} CNY a month, "
        f"between {value.lower:,.0f} and {value.upper:,.0f} (primary better)"
    )


def test_waves_are_listed_with_shares_users_and_the_test_of_their_split() -> None:
    shares = {"x:1": {"c": 0.5, "t": 0.5}, "x:2": {"c": 0.2, "t": 0.8}}
    rng = np.random.default_rng(1)
    sizes = {("x:1", "c"): 60, ("x:1", "t"): 60, ("x:2", "c"): 40, ("x:2", "t"): 160}
    opened = {wave: (f"2026-03-0{i}T08:30:00.123456+00:00", 0.25) for i, wave in enumerate(shares, 1)}
    adapting = Adapting("m", 0.1, opened)
    plan = design(shares, segments={}, members={}, dimensions={}, adapting=adapting)
    report = build(plan, (spec(), measured({cell: rng.normal(10, 1, n) for cell, n in sizes.items()})))
    found = wording.waves(report)
    assert found is not None
    assert found.columns == ("", "opened", "of all users", "C", "T", "p of the split")
    assert found.rows == [
        ["1", "2026-03-01T08:30+00:00", "25%", "50.0% 60", "50.0% 60", "1"],
        ["2", "2026-03-02T08:30+00:00", "25%", "20.0% 40", "80.0% 160", "1"],
    ]
    assert "80.0% 160" in printout.page(report)
    assert wording.waves(build(design(), (spec(), measured({(None, "t"): [1, 2, 3], (None, "c"): [1, 2, 4]})))) is None


def texts(report: Report) -> str:
    """All that is said of the first metric, on one line each."""
    metric = report.metrics[0]
    grids = [wording.split(report), wording.effects(report, metric), *wording.more(report, metric)]
    grids += [grid for grid in (wording.looks(report),) if grid] + list(wording.reach(report))
    lines = [wording.method(report), wording.heading(metric), *wording.notes(report, metric), *wording.health(report)]
    for grid in grids:
        assert all(len(row) == len(grid.columns) for row in grid.rows)
        lines += [grid.title, " ".join(grid.columns), *(" ".join(row) for row in grid.rows)]
    text = "\n".join(re.sub(" +", " ", line) for line in lines)
    assert "None" not in text
    assert "nan" not in text.split()
    return text


def binary(successes: int, n: int) -> list[int]:
    return [1] * successes + [0] * (n - successes)


def test_shares_are_percents_and_their_differences_points() -> None:
    rows = {(None, "t"): binary(120, 1000), (None, "c"): binary(100, 1000)}
    text = texts(build(design(), (spec(kind="conversion"), measured(rows, "conversion"))))
    assert "share difference, points [95%]" in text
    assert "C 1,000 10.000%" in text
    assert "T 1,000 12.000% +2.00 [" in text
    assert "+20.0% [" in text


@pytest.mark.parametrize(
    ("factor", "shown"), [(1.0, "+10.71 ["), (1000.0, "+10,714 ["), (0.001, "+0.01071 [")], ids=str
)
def test_numbers_have_the_digits_that_are_known(factor: float, shown: str) -> None:
    rows = {who: [value * factor for value in values] for who, values in ROWS.items()}
    assert shown in texts(build(design(SHARES), (spec(), measured(rows))))


def test_segments_show_whether_they_differ_and_are_drawn_together() -> None:
    report = build(design(SHARES), (spec(), measured(ROWS)))
    text = texts(report)
    (test,) = report.metrics[0].heterogeneity
    assert test.q is not None
    assert test.p_value is not None
    asked = "do the effects of T differ between the 2 segments of segment"
    assert f"{asked}: Q = {test.q:.2f}, df 1, p = {test.p_value:.3g}" in text
    (drawn,) = (c.shrunk for c in report.metrics[0].comparisons if c.segment == "a")
    assert drawn is not None
    assert f"{drawn.estimate:+.2f}" in text
    assert wording.effects(report, report.metrics[0]).columns[-1] == "shrunk"


def test_looks_show_bounds_and_what_crossed() -> None:
    plan = design(method="group_sequential", planned_users=28, looks=(0.5, 1.0), spending=Spending("obrien_fleming"))
    rows = {(None, "t"): [10, 12, 14, 19, 12, 14, 11], (None, "c"): [1, 2, 3, 5, 2, 3, 4]}
    report = build(plan, (spec(), measured(rows)))
    look = report.method.looks[0]
    text = texts(report)
    assert f"1 14 {look.bound:.3f} T {look.statistic['t']:+.3f} T" in text
    assert "spending obrien fleming" in text
    assert "planned for 28 users" in text


def test_posteriors_show_chances_in_place_of_p() -> None:
    plan = design(method="bayes", correction="none", prior=Normal(0.0, 0.5))
    rows = {(None, "t"): binary(130, 1000), (None, "c"): binary(100, 1000)}
    report = build(plan, (spec(kind="conversion"), measured(rows, "conversion")))
    c = report.metrics[0].comparisons[0]
    assert c.probability_better is not None
    text = texts(report)
    assert f"{c.probability_better:.2%}" in text
    assert "chance better expected loss" in text
    assert "adjusted p" not in text
    assert "prior of the lift +0.0% ± 50.0%" in text


def test_steps_of_a_funnel_are_counted() -> None:
    rows = {(None, "t"): [[1, 1]] * 30 + [[1, 0]] * 20 + [[0, 0]] * 50, (None, "c"): [[1, 1]] * 20 + [[1, 0]] * 80}
    text = texts(build(design(), (spec(kind="funnel"), measured(rows, "funnel"))))
    assert "1. x0 T 100 50 50.0" in text
    assert "2. x1 T 50 30 60.0" in text


def test_days_are_called_days() -> None:
    r = np.random.default_rng(1)
    waited = {v: r.exponential(mean, 80) for v, mean in (("t", 8.0), ("c", 10.0))}
    lives = {(None, v): Lifetimes.from_rows(np.minimum(days, 20), days < 20) for v, days in waited.items()}
    rows = {(None, v): np.minimum(days, 20).round(3) for v, days in waited.items()}
    report = build(design(), (spec(kind="time_to_event", unit="days", window_days=20), measured(rows, lifetimes=lives)))
    text = texts(report)
    assert "mean days difference, days [95%]" in text
    assert "log-rank test of the curves: p = " in text
    assert "time to event, primary, 20 days" in text


def test_doses_factors_and_choices_have_their_lines() -> None:
    r = np.random.default_rng(1)
    variants = ("c", "t", "u", "v")
    rows = {(None, v): r.normal(10 + i, 2, 50).round(3) for i, v in enumerate(variants)}
    cells = {"c": ("0", "0"), "t": ("1", "0"), "u": ("0", "1"), "v": ("1", "1")}
    plan = design(
        {None: dict.fromkeys(variants, 0.25)},
        doses={"c": 0, "t": 1, "u": 2, "v": 3},
        factors={v: {"copy": a, "offer": b} for v, (a, b) in cells.items()},
        pairs=True,
    )
    text = texts(build(plan, (spec(), measured(rows))))
    for words in ("each touch more: +", "best of those tested: 3", "chance of being the best: C 0.0%", "V against U"):
        assert words in text
    assert "copy=1 × offer=1" in text
    assert "all interactions together: p = " in text


def test_problems_stand_where_numbers_would() -> None:
    same = {(None, "t"): [1, 1, 1], (None, "c"): [1, 1, 1]}
    report = build(design(), (spec(role=Role.primary), measured(same)))
    assert "zero variance" in texts(report)
