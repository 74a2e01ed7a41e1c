"""How the command line shows things: a report as tables, tables of rows, progress bars on a terminal."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from experiments import wording
from experiments.report import Report
from experiments.wording import Grid

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
    _line(wording.method(report))
    show_grid(wording.split(report))
    for line in wording.health(report):
        _line(line)
    looks = wording.looks(report)
    if looks is not None:
        show_grid(looks)
    waves = wording.waves(report)
    if waves is not None:
        show_grid(waves)
    OUT.print()
    for metric in report.metrics:
        OUT.print(f"[bold]{escape(metric.name)}[/bold] ({escape(wording.heading(metric))})")
        for grid in (wording.effects(report, metric), *wording.more(report, metric)):
            show_grid(grid)
        for line in wording.notes(report, metric):
            _line(line)
        OUT.print()
    for grid in wording.reach(report):
        show_grid(grid)
    OUT.print(f"[bold]decision: {escape(wording.advice(report))}[/bold]")
    luckless = wording.luckless(report)
    if luckless is not None:
        _line(luckless)


def _line(text: str) -> None:
    OUT.print(escape(text))


def show_grid(grid: Grid) -> None:
    """Print a table of text."""
    if grid.title:
        _line(f"{grid.title}:")
    table = Table(*map(escape, grid.columns), box=None, pad_edge=False)
    for place, column in enumerate(table.columns):
        column.no_wrap = True
        column.justify = "left" if place < grid.labels else "right"
    for row in grid.rows:
        table.add_row(*map(escape, row))
    OUT.print(table)
