"""The command ``upturn uplift``."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from experiments.commands.analyze import pairs_option

if TYPE_CHECKING:
    from experiments.uplift.answer import Answer
    from experiments.uplift.question import Question
    from experiments.uplift.report import Uplift

LEARNERS = ("s", "t", "x", "r", "dr", "forest")
_OF_FILES = ("variant", "control", "outcome", "value", "features", "unit", "strata", "segment", "weights", "cost")


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--experiment", metavar="KEY", help="Of the store, in place of FILE and what its columns are.")
@click.option("--metric", metavar="KEY", help="Of the experiment: whose outcome.  [default: the primary metric]")
@click.option("--variant", metavar="COL", help="Column that tells each user's variant.")
@click.option("--control", metavar="NAME", help="Its value for the control.")
@click.option("--outcome", metavar="COL", help="What should go up: 0/1 or an amount.")
@click.option("--value", metavar="COL", help="What one unit of the outcome is worth; empty where the outcome is 0.")
@click.option("--feature", "features", multiple=True, metavar="COL", help="Known before the treatment; several.")
@click.option("--unit", metavar="COL", help="Column of the user's id, for --scores.")
@click.option("--stratum", "strata", multiple=True, metavar="COL", help="Its groups had shares of their own.")
@click.option("--segment", metavar="COL", help="Each of its segments could get its own variant: what is that worth?")
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
@click.option("--budget", type=float, help="What may be spent on the users studied; needs costs.")
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True)
@click.option(
    "--scores", type=click.Path(path_type=Path), metavar="OUT", help="Write each user's effects to a .csv or .parquet."
)
@click.option("--save", is_flag=True, help="Keep the study of an experiment and its model in the store: for lists.")
@click.option("--format", "form", type=click.Choice(["table", "json", "html"]), default="table", show_default=True)
def uplift(
    file: Path | None,
    *,
    experiment: str | None,
    metric: str | None,
    form: str,
    scores: Path | None,
    save: bool,
    **options: Any,
) -> None:
    """Say who gains from which variant, from any CSV or Parquet FILE of a randomised test: one row a user.

    With --experiment, from the users of an experiment in the store, and what was known of them at their exposure.
    """
    from experiments import terminal
    from experiments.uplift import scores as written
    from experiments.uplift.crossfit import fits

    if scores is not None and scores.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{str(scores)!r}: end the name with .csv or .parquet", param_hint="--scores")
    if (file is None) == (experiment is None):
        raise click.UsageError("give a FILE or --experiment, one of them")
    chosen = options.pop("learners")
    if chosen:
        options["learners"] = LEARNERS if "all" in chosen else chosen
    if save:
        _print(_saved(experiment, metric, scores, options), form)
        return
    if file is not None:
        question, answered = _of_file(file, metric, options)
    else:
        question, answered = _of_experiment(str(experiment), metric, options)
    with terminal.progress("learning", fits(question.learners, question.folds)) as bar:
        found = answered(clock=perf_counter, progress=bar)
    if scores is not None:
        written.write(found, scores)
    _print(found.report, form)


def _print(found: "Uplift", form: str) -> None:
    from experiments.uplift import report

    match form:
        case "json":
            click.echo(report.encode(found))
        case "html":
            from experiments import uplift_page

            click.echo(uplift_page.page(found).encode(), nl=False)
        case _:
            _show(found)


def _saved(experiment: str | None, metric: str | None, scores: Path | None, options: dict[str, Any]) -> "Uplift":
    """Make a study of the store, as the server does, and return its report."""
    from time import monotonic

    from pydantic import ValidationError

    from experiments import terminal
    from experiments.documents import field_problem
    from experiments.errors import InvalidDocument, UpturnError
    from experiments.settings import Settings
    from experiments.store import Store
    from experiments.uplift import report, studies
    from experiments.uplift.job import Work

    if experiment is None or scores is not None:
        raise click.UsageError("--save goes with --experiment, and without --scores: the study keeps them")
    given = [name for name in _OF_FILES if options.pop(name)]
    if given or options.pop("alpha") != 0.05:
        raise click.UsageError("with --save give the options of a study only: --metric, --learner, --folds, --depth …")
    try:
        request = studies.StudyRequest.model_validate(
            {"metric": metric, **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}
        )
    except ValidationError as error:
        raise InvalidDocument([field_problem(e) for e in error.errors(include_url=False)], "command") from None
    began, now = monotonic(), datetime.now(UTC)
    store = Store.open(Settings.from_env())
    try:
        study, new = studies.ask(store, experiment, request, now=now)
        if new:
            with terminal.progress("learning", 100) as bar:
                shown = 0

                def told(progress: float) -> None:
                    nonlocal shown
                    bar(round(100 * progress) - shown)
                    shown = round(100 * progress)

                Work(store, study.id, lambda: monotonic() - began, told).run()
        with store.read() as session:
            study = studies.find(session, study.id, now=datetime.now(UTC))
    finally:
        store.close()
    if study.report is None:
        failure = study.error or studies.Failure("study_not_done", f"the study {study.id!r} is {study.status}")
        raise UpturnError(failure.code, failure.detail)
    click.echo(f"kept as the study {study.id}", err=True)
    return report.decode(bytes(study.report))


def _of_file(file: Path, metric: str | None, options: dict[str, Any]) -> "tuple[Question, Callable[..., Answer]]":
    from experiments.uplift.answer import answer
    from experiments.uplift.question import Question

    if metric is not None:
        raise click.UsageError("--metric goes with --experiment")
    missing = [name for name in ("variant", "control", "outcome", "features") if not options[name]]
    if missing:
        raise click.UsageError(f"with a FILE give {', '.join(map(_flag, missing))}")
    weights, costs = options.pop("weights") or None, options.pop("cost")
    question = Question(weights=weights, costs=costs, **options)
    return question, partial(answer, file, question)


def _of_experiment(key: str, metric: str | None, options: dict[str, Any]) -> "tuple[Question, Callable[..., Answer]]":
    from experiments import rows
    from experiments.settings import Settings
    from experiments.store import Store
    from experiments.uplift import participants

    given = [name for name in _OF_FILES if options.pop(name)]
    if given:
        raise click.UsageError(f"{', '.join(map(_flag, given))}: with --experiment the store knows that")
    store = Store.open(Settings.from_env())
    try:
        found = rows.of_experiment(store, key, metric=metric, now=datetime.now(UTC))
    finally:
        store.close()
    asked = participants.question(found, **options)
    return asked.question, partial(participants.answer, asked, found)


def _flag(option: str) -> str:
    return {"features": "--feature", "strata": "--stratum"}.get(option, f"--{option}")


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
