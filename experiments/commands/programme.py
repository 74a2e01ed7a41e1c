"""The command ``upturn programme``."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from experiments.programme.totals import Programme
    from experiments.report import Interval, MoneyInterval


@click.command()
@click.option("--from", "start", metavar="DAY", help="First day, as 2026-07-01.  [default: 90 days before the end]")
@click.option("--to", "end", metavar="DAY", help="Last day.  [default: today]")
@click.option("--holdout", metavar="KEY", help="Compare the users of this holdout with the rest; with --metric.")
@click.option("--metric", metavar="KEY", help="On which metric: a share of users, or a mean per user.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def programme(*, start: str | None, end: str | None, holdout: str | None, metric: str | None, form: str) -> None:
    """Say what all experiments of a period came to: how often they won, and what the winners are worth together."""
    from zoneinfo import ZoneInfo

    from experiments.programme import contribution
    from experiments.programme import totals as programmes
    from experiments.programme.contribution import Question
    from experiments.settings import Settings
    from experiments.store import Store

    if (holdout is None) != (metric is None):
        raise click.UsageError("give --holdout and --metric together")
    settings = Settings.from_env()
    now = datetime.now(UTC)
    zone = ZoneInfo(settings.timezone)
    first, until = programmes.period(start, end, now=now, zone=zone)
    store = Store.open(settings)
    try:
        question = None
        if holdout is not None and metric is not None:
            question = Question(holdout, metric, first, until)
            contribution.make(store, question, now=now)
        found = programmes.of_period(store, first, until, now=now, question=question)
    finally:
        store.close()
    if form == "json":
        click.echo(programmes.encode(found))
    else:
        _show(found)


def _show(found: "Programme") -> None:
    from datetime import date, timedelta

    from experiments import terminal

    out = terminal.OUT
    last = date.fromisoformat(found.end) - timedelta(days=1)
    out.print(f"[bold]{found.start} to {last}[/bold]")
    out.print(f"started {found.started}, decided {found.decided}, rolled out {found.shipped}{_rate(found.win_rate)}")
    if found.median_days is not None:
        out.print(f"median run time {found.median_days:.0f} days")
    out.print(f"ended {found.ended}, of these {found.harmed} with harm{_rate(found.harm_rate)}")
    if found.total is not None:
        out.print(f"worth a month, as the reports said: {_money(found.total)} ({found.valued} winners)")
        left = _money(found.shrunken) if found.shrunken else f"not known ({found.shrunken_missing})"
        out.print(f"[bold]without the luck of the winners: {left}[/bold]")
    else:
        out.print(f"worth a month: not known ({found.total_missing})")
    if found.usual is not None:
        usual = f"{found.usual.estimate:+.2%} ({found.usual.lower:+.2%} to {found.usual.upper:+.2%})"
        out.print(f"usual lift {usual}, true lifts spread by {found.spread:.2%}, from {found.learnt_from} experiments")
    _show_holdout(found)
    rows = [
        {
            "experiment": line.experiment,
            "status": line.status,
            "days": "" if line.days is None else f"{line.days:.0f}",
            "rolled out": "" if line.shipped is None else line.variant if line.shipped else "no",
            "lift": _percent(line.lift),
            "luck off": _percent(line.shrunken_lift),
            "a month": "" if line.value is None else _money(line.value),
            "a month, luck off": "" if line.shrunken_value is None else _money(line.shrunken_value),
        }
        for line in found.experiments
    ]
    if rows:
        terminal.show(list(rows[0]), rows, "table")


def _show_holdout(found: "Programme") -> None:
    from rich.markup import escape

    from experiments import terminal

    answer, single = found.holdout, found.reconciled
    if answer is None:
        return
    out = terminal.OUT
    name = escape(f"holdout {answer.holdout} on {answer.metric}, {answer.days} days")
    if answer.total is None:
        out.print(f"{name}: not known ({answer.problem or 'the split is not as planned'})")
        return
    out.print(f"{name}: {_plain(answer.total)} in all ({answer.rest:,} users against {answer.held:,} held out)")
    if single is not None and single.singles is not None:
        out.print(f"{single.counted} single wins make {_plain(single.singles)}: the holdout {single.agreement}")


def _rate(rate: "Interval | None") -> str:
    return "" if rate is None else f" ({rate.estimate:.0%}, {rate.lower:.0%} to {rate.upper:.0%})"


def _percent(lift: "Interval | None") -> str:
    return "" if lift is None else f"{lift.estimate:+.2%}"


def _plain(interval: "Interval | MoneyInterval") -> str:
    return f"{interval.estimate:+,.0f} ({interval.lower:+,.0f} to {interval.upper:+,.0f})"


def _money(value: "MoneyInterval") -> str:
    return f"{_plain(value)} {value.currency}"
