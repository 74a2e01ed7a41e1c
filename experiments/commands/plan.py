"""The command ``upturn plan``."""

from typing import Any

import click

from experiments.commands import stores
from experiments.commands.analyze import numbers


def _looks(context: click.Context, option: click.Parameter, value: str | None) -> int | list[float] | None:
    return int(value) if value is not None and value.isdigit() else numbers(context, option, value)


@click.command()
@click.option("--experiment", metavar="KEY", help="Plan this experiment of the store by its documents.")
@click.option("--baseline", type=float, metavar="RATE", help="The share of users who convert today.")
@click.option("--mean", type=float, help="The mean per user today, with --sd.")
@click.option("--sd", type=float, help="The standard deviation of one user.")
@click.option("--numerator", type=(float, float), metavar="MEAN SD", help="Of a ratio; with --denominator.")
@click.option("--denominator", type=(float, float), metavar="MEAN SD", help="Of a ratio.")
@click.option("--parts-correlation", type=float, help="Correlation of numerator and denominator.  [default: 0]")
@click.option("--quantile", type=(float, float, float), metavar="Q VALUE DENSITY", help="Of the users' numbers.")
@click.option("--metric", metavar="KEY", help="Measure the baseline of this metric in the store.")
@click.option("--segment", metavar="KEY", help="Only in this segment; with --metric.")
@click.option("--effect", type=float, help="Size to be found, in the metric's unit (with --margin: the true effect).")
@click.option("--lift", type=float, help="Size to be found, as a share of the baseline.")
@click.option("--margin", type=float, help="A guardrail: the loss that must be ruled out.")
@click.option("--direction", type=click.Choice(["up", "down"]), help="Which way is good.  [default: up]")
@click.option("--arms", type=int, help="Number of arms with the control.  [default: 2]")
@click.option("--weights", metavar="W,W[,W...]", callback=numbers, help="Of the arms, the control first.")
@click.option("--metrics", type=int, help="Metrics judged together: alpha is divided by them too.  [default: 1]")
@click.option("--alpha", type=float, help="[default: 0.05]")
@click.option("--correction", type=click.Choice(["bonferroni", "none"]), help="[default: bonferroni]")
@click.option("--power", type=float, help="[default: 0.8]")
@click.option(
    "--method",
    type=click.Choice(["sequential", "fixed", "group-sequential"]),
    help="How the answer will be read.  [default: sequential]",
)
@click.option("--looks", callback=_looks, metavar="N|SHARE,…", help="Of group-sequential: 5, or 0.25,0.5,1.")
@click.option(
    "--spending",
    type=click.Choice(["obrien_fleming", "pocock", "hwang_shih_decani", "power"]),
    help="How group-sequential spends alpha.  [default: obrien_fleming]",
)
@click.option("--spending-parameter", type=float, help="Of hwang_shih_decani and power.")
@click.option("--rho", type=float, help="Correlation of the outcome with its covariates.")
@click.option("--users", type=int, help="Users on the list now.")
@click.option("--weekly", type=float, help="Users who come every week.")
@click.option("--window-days", type=int, help="Days a user is watched.  [default: 0]")
@click.option("--weeks", type=int, help="The time there is.  [default: 12]")
@click.option("--touches", type=int, help="Touches that a user may get per --per.")
@click.option("--per", type=click.Choice(["day", "week", "month", "quarter"]), help="[default: week]")
@click.option("--touches-needed", type=int, help="Touches that the treatment takes.  [default: 1]")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
def plan(*, form: str, **options: Any) -> None:
    """Say how many users a test needs, what it can detect, and how long it takes.

    Of an experiment in the store, or by numbers: --baseline 0.05 --effect 0.005, or --mean 40 --sd 120 --users 8200.
    """
    from contextlib import nullcontext

    import msgspec

    from experiments import planner, terminal
    from experiments.planner import options as given
    from experiments.planner import words

    request = planner.parse(given.body(options))
    with stores.opened() if planner.needs_store(request) else nullcontext() as store:
        answer = planner.answer(request, store, now=stores.now())
    if form == "json":
        click.echo(msgspec.json.encode(answer))
    elif form == "csv":
        click.echo(words.as_csv(answer), nl=False)
    else:
        for part in answer.plans:
            for line in (*words.heading(part), *words.sentences(part, answer)):
                click.echo(line)
            if weeks := words.table(part):
                terminal.show(words.TITLES, weeks, "table")
