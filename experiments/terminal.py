"""How the command line shows things: a report as tables, tables of rows, progress bars on a terminal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from experiments.report import Comparison, Interval, MetricReport, Report

# Tables keep their lines whole: a narrow terminal wraps them, a file or a pipe does not cut them.
OUT = Console(highlight=False, emoji=False, width=max(Console().width, 160))
ERR = Console(stderr=True, highlight=False, emoji=False)


class Bar:
    """Advances a progress bar."""

    def __init__(self, progress: Progress, label: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total)

    def __call__(self, done: int) -> None:
        self._progress.advance(self._task, done)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Bar]:
    """Show a progress bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as bar:
        yield Bar(bar, label, total)


def show(columns: Sequence[str], rows: Sequence[Mapping[str, object]], form: str) -> None:
    """Print rows as a ``table`` or as ``json``."""
    if form == "json":
        OUT.out(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(str(row[name])) for name in columns))
    OUT.print(table)


def show_report(report: Report) -> None:
    """Print a report: the split, the effects, the segments, the advice."""
    OUT.print(f"[bold]{escape(report.name)}[/bold]  ({escape(report.experiment)}, as of {report.as_of})")
    split = Table("variant", "assigned", "exposed", "matured", "expected", box=None, pad_edge=False)
    for column in split.columns[1:]:
        column.justify = "right"
    for arm in report.arms:
        expected = f"{report.srm.expected[arm.variant]:,.1f}"
        split.add_row(escape(arm.name), f"{arm.assigned:,}", f"{arm.exposed:,}", f"{arm.matured:,}", expected)
    OUT.print(split)
    p_value = "not tested" if report.srm.p_value is None else f"p = {report.srm.p_value:.4g}"
    OUT.print(f"sample ratio: {p_value}{'' if report.srm.problem is None else f', {_words(report.srm.problem)}'}")
    for finding in report.health:
        subject = f" in {escape(finding.subject)}" if finding.subject else ""
        OUT.print(f"{'problem' if finding.fatal else 'note'}: {_words(finding.code)}{subject}: {finding.count:,} users")
    OUT.print()
    names = {arm.variant: arm.name for arm in report.arms}
    for metric in report.metrics:
        _show_metric(metric, names, report.segments, report.method.alpha)
    OUT.print(f"[bold]decision: {escape(advice(report))}[/bold]")


def advice(report: Report) -> str:
    """Return the advice in one line."""
    decision = report.decision
    parts = [_words(decision.verdict)]
    if decision.variant is not None:
        names = {arm.variant: arm.name for arm in report.arms}
        segments = ", ".join(report.segments.get(key, key) for key in decision.segments) or "everyone"
        parts.append(f"{names[decision.variant]} to {segments}")
    value = decision.value_per_month
    if value is not None:
        low, high = f"{value.lower:,.0f}", f"{value.upper:,.0f}"
        parts.append(f"worth {value.estimate:,.0f} {value.currency} a month, between {low} and {high}")
    return "; ".join([" ".join(parts[:2]), *parts[2:]]) + f" ({', '.join(map(_words, decision.reasons))})"


def _show_metric(metric: MetricReport, names: Mapping[str, str], segments: Mapping[str, str], alpha: float) -> None:
    waiting = f", {metric.immature:,} users not matured" if metric.immature else ""
    OUT.print(f"[bold]{escape(metric.name)}[/bold] ({metric.kind}, {metric.role}{waiting})")
    level = f"{1 - alpha:.0%}"
    titles = ("", "users", "mean", f"difference [{level}]", f"lift [{level}]", "test", "p", "adjusted p")
    table = Table(*(escape(title) for title in titles), box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for segment in (None, *segments):
        table.add_row(escape("everyone" if segment is None else segments[segment]))
        comparisons = {c.variant: c for c in metric.comparisons if c.segment == segment}
        for arm in (arm for arm in metric.arms if arm.segment == segment):
            c = comparisons.get(arm.variant)
            mean = "" if arm.mean is None else f"{arm.mean:.{6 if metric.unit == 'share' else 5}f}"
            cells = [f"  {names[arm.variant]}", f"{arm.n:,}", mean, *(_cells(c) if c else [])]
            table.add_row(*map(escape, cells))
    OUT.print(table)
    OUT.print()


def _cells(c: Comparison) -> list[str]:
    if c.absolute is None or c.p_value is None or c.p_adjusted is None or c.statistic is None:
        return [_words(c.problem or "")]
    lift = _words(c.relative_problem or "") if c.relative is None else _with_limits(c.relative, "{:+.1%}")
    return [
        _with_limits(c.absolute, "{:+.5f}"),
        lift,
        f"{_words(c.statistic.name)} {c.statistic.value:.4f}",
        f"{c.p_value:.3g}",
        f"{c.p_adjusted:.3g}" + (" *" if c.significant else "  "),
    ]


def _with_limits(interval: Interval, form: str) -> str:
    return f"{form} [{form}, {form}]".format(interval.estimate, interval.lower, interval.upper)


def _words(code: str | StrEnum) -> str:
    return str(code).replace("_", " ")
