import json

import pytest

from experiments import terminal
from experiments.fields import Role
from tests.experiments.rows import build, design, measured, spec

ODD = "[bold]:smile: [/x]"
SHARES = {s: {"c": 0.5, "t": 0.5} for s in (ODD, "b")}
ROWS = {(ODD, "t"): [10, 12, 14, 19], (ODD, "c"): [1, 2, 3, 5], ("b", "t"): [11, 12, 13], ("b", "c"): [1, 1, 3]}


def test_names_are_shown_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    plan = design(SHARES, name=f"name {ODD}", experiment=f"key {ODD}", variants={"c": "none", "t": f"variant {ODD}"})
    plan.segments[ODD] = f"segment {ODD}"  # type: ignore[index]
    terminal.show_report(build(plan, (spec(name=f"metric {ODD}"), measured(ROWS))))
    out = capsys.readouterr().out
    for what in ("name", "key", "variant", "segment", "metric"):
        assert f"{what} {ODD}" in out


def test_numbers_shown_are_those_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    report = build(design(SHARES), (spec(), measured(ROWS)))
    terminal.show_report(report)
    out = capsys.readouterr().out
    for c in report.metrics[0].comparisons:
        assert c.absolute is not None
        assert c.statistic is not None
        # The largest standard error is 1.14: three digits of it are shown.
        assert f"{c.absolute.estimate:+.2f} [{c.absolute.lower:+.2f}, {c.absolute.upper:+.2f}]" in out
        assert f"welch t {c.statistic.value:.4f}" in out
    assert "sample ratio: p = " in out
    assert "decision: ship T to everyone (primary better)" in out


def test_problems_are_shown_in_place_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    same = {(None, "t"): [1, 1, 1], (None, "c"): [1, 1, 1]}
    terminal.show_report(build(design(), (spec(), measured(same)), (spec("s", role=Role.secondary), measured(same))))
    out = capsys.readouterr().out
    assert out.count("zero variance") == 2
    assert "nan" not in out.lower()
    assert "None" not in out


def test_tables_of_rows_are_shown_as_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": ODD, "count": 3}, {"name": "长" * 200, "count": None}]
    terminal.show(("name", "count"), rows, "json")
    assert json.loads(capsys.readouterr().out) == rows
    terminal.show(("name", "count"), rows[:1], "table")
    assert ODD in capsys.readouterr().out


def test_no_progress_is_shown_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("working", 3) as bar:
        bar(3)
    assert capsys.readouterr() == ("", "")
