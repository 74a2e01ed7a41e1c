"""The command ``upturn uplift``."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from experiments.analyze_command import pairs_option

if TYPE_CHECKING:
    from experiments.uplift.answer import Answer
    from experiments.uplift.report import Uplift

LEARNERS = ("s", "t", "x", "r", "dr", "forest")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--variant", required=True, metavar="COL", help="Column that tells each user's variant.")
@click.option("--control", required=True, metavar="NAME", help="Its value for the control.")
@click.option("--outcome", required=True, metavar="COL", help="What should go up: 0/1 or an amount.")
@click.option("--value", metavar="COL", help="What one unit of the outcome is worth; empty where the outcome is 0.")
@click.option(
    "--feature", "features", multiple=True, required=True, metavar="COL", help="Known before the treatment; several."
)
@click.option("--unit", metavar="COL", help="Column of the user's id, for --scores.")
@click.option("--stratum", "strata", multiple=True, metavar="COL", help="Its groups had shares of their own.")
@pairs_option("--weights", "NAME=W", "The designed split (default: as counted).")
@pairs_option("--cost", "NAME=C", "What giving a user this variant costs.")
@click.option(
    "--learner",
    "learners",
    multiple=True,
    type=click.Choice([*LEARNERS, "all"]),
    help="Which learners compete.  [default: s, t, x]",
)
@click.option("--folds", type=click.IntRange(3, 20), default=5, show_default=True, help="Of the cross-validation.")
@click.option("--depth", type=click.IntRange(1, 3), default=2, show_default=True, help="Of the rules.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True)
@click.option("--budget", type=float, help="What may be spent on the users of the file; needs --cost.")
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True)
@click.option(
    "--scores", type=click.Path(path_type=Path), metavar="OUT", help="Write each user's effects to a .csv or .parquet."
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def uplift(file: Path, *, form: str, scores: Path | None, **options: Any) -> None:
    """Say who gains from which variant, from any CSV or Parquet file of a randomised test: one row a user."""
    from experiments import terminal
    from experiments.uplift import report
    from experiments.uplift.answer import answer
    from experiments.uplift.crossfit import fits
    from experiments.uplift.question import Question

    if scores is not None and scores.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{str(scores)!r}: end the name with .csv or .parquet", param_hint="--scores")
    chosen = options.pop("learners")
    options |= {"weights": options["weights"] or None, "costs": options.pop("cost")}
    if chosen:
        options["learners"] = LEARNERS if "all" in chosen else chosen
    question = Question(**options)
    with terminal.progress("learning", fits(question.learners, question.folds)) as bar:
        found = answer(file, question, clock=perf_counter, progress=bar)
    if scores is not None:
        _write(found, scores)
    if form == "json":
        click.echo(report.encode(found.report))
    else:
        _show(found.report)


def _show(found: "Uplift") -> None:
    from rich.markup import escape

    from experiments import terminal
    from experiments import uplift_wording as wording

    out = terminal.OUT
    out.print(f"[bold]{escape(wording.heading(found))}[/bold]")
    first, *rest = wording.advice(found)
    out.print(f"[bold]{escape(first)}[/bold]")
    for line in (*rest, wording.usable(found)):
        out.print(escape(line))
    for grid in wording.grids(found):
        out.print()
        terminal.show_grid(grid)
    out.print()
    for line in wording.notes(found):
        out.print(escape(line))


def _write(found: "Answer", path: Path) -> None:
    """Write a row for each user: his id, the effect of each variant, and what the model and the rules give him."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    names = found.frame.names
    columns: dict[str, Any] = {"user": found.frame.ids}
    columns |= {f"effect:{name}": found.effects[:, k] for k, name in enumerate(names[1:])}
    columns |= {"model": [names[k] for k in found.model], "rules": [names[k] for k in found.tree]}
    table = pa.table(columns)
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
