"""The command ``upturn list``: lists of users scored by a study's model, and what they become."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.commands import stores

if TYPE_CHECKING:
    from experiments.store import Store
    from experiments.uplift.lists import ListEntry


@click.group("list")
def user_list() -> None:
    """Lists of users, scored by a study's model: who gets what, within a budget, and the policy that serves it."""


def _counts(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    result = {}
    for value in values:
        name, _, number = value.rpartition("=")
        if not name or not number.isdecimal():
            raise click.BadParameter(f"{value!r}: write NAME=N, a whole number of users", param=option)
        result[name] = int(number)
    return result


def _conditions(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    import json

    result = {}
    for value in values:
        name, _, text = value.partition("=")
        try:
            result[name] = json.loads(text)
        except ValueError:
            example = """push={"pushes_30d": {"$lt": 4}}"""
            raise click.BadParameter(f"{value!r}: write NAME=CONDITION, such as {example}", param=option) from None
    return result


def _condition(_context: click.Context, option: click.Parameter, value: str | None) -> Any:
    import json

    try:
        return None if value is None else json.loads(value)
    except ValueError:
        example = """{"city": "Hangzhou"}"""
        raise click.BadParameter(f"{value!r}: write a condition as JSON, such as {example}", param=option) from None


@user_list.command("make")
@click.option("--study", metavar="ID", help="Whose model scores.")
@click.option("--experiment", metavar="KEY", help="Instead: the newest finished study of this experiment.")
@click.option(
    "--who",
    type=click.Choice(["participants", "users"]),
    default="participants",
    show_default=True,
    help="The users studied, or the users on record.",
)
@click.option("--segment", metavar="KEY", help="Of the users on record: this segment.")
@click.option("--audience", metavar="JSON", callback=_condition, help="Of the users on record: whom this fits.")
@click.option("--file", type=click.Path(path_type=Path), help="Instead: the users of a CSV or Parquet file.")
@click.option("--unit", metavar="COL", default="user_id", show_default=True, help="Its column of user ids.")
@click.option("--budget", type=float, help="Money there is for all of them.")
@click.option("--contacts", type=click.IntRange(0), help="Users who may get anything but the control.")
@click.option("--stock", multiple=True, metavar="NAME=N", callback=_counts, help="Users a variant is there for.")
@click.option(
    "--allowed",
    multiple=True,
    metavar="NAME=JSON",
    callback=_conditions,
    help="Who may get a variant, as a condition on attributes (touch caps, consent).",
)
@click.option("--write/--no-write", default=True, show_default=True, help="Keep it as an attribute of each user.")
@click.option("--refresh-days", type=click.IntRange(1, 366), default=30, show_default=True)
@stores.format_option
def make(
    *, study: str | None, experiment: str | None, file: Path | None, unit: str, form: str, who: str, **wish: Any
) -> None:
    """Score users and decide who gets what."""
    from time import monotonic

    from experiments import terminal
    from experiments.uplift import lists
    from experiments.uplift.list_job import ListWork
    from experiments.uplift.studies import StudyStatus

    if (study is None) == (experiment is None):
        raise click.UsageError("give --study or --experiment, one of them")
    began, now = monotonic(), stores.now()
    with stores.opened() as store:
        if study is None:
            study = _newest_study(store, str(experiment), now)
        request = _request(wish | {"who": who if file is None else "file"})
        entry, new = lists.ask(store, study, request, now=now, file=file, unit="" if file is None else unit)
        if new:
            with terminal.progress("scoring", 100) as bar:
                shown = 0

                def told(progress: float) -> None:
                    nonlocal shown
                    bar(round(100 * progress) - shown)
                    shown = round(100 * progress)

                ListWork(store, entry.id, lambda: monotonic() - began, told).run()
        with store.read() as session:
            entry = lists.find(session, entry.id, now=stores.now())
    _show(entry, form)
    if entry.status is StudyStatus.failed and entry.error is not None:
        click.echo(f"upturn: {entry.error.detail}", err=True)
        sys.exit(1)


def _request(wish: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from experiments.documents import field_problem
    from experiments.errors import InvalidDocument
    from experiments.uplift.lists import ListRequest

    try:
        return ListRequest.model_validate(wish)
    except ValidationError as error:
        raise InvalidDocument([field_problem(e) for e in error.errors(include_url=False)], "command") from None


def _newest_study(store: "Store", experiment: str, now: datetime) -> str:
    from experiments.errors import NotFound
    from experiments.uplift import studies
    from experiments.uplift.studies import StudyStatus

    with store.read() as session:
        for study in studies.listing(session, experiment, now=now):
            if study.status is StudyStatus.done:
                return study.id
    detail = f"{experiment!r} has no finished study: upturn uplift --experiment {experiment} --save makes one"
    raise NotFound("not_found", detail)


@user_list.command("all")
@click.argument("experiment")
@stores.format_option
def show_all(experiment: str, form: str) -> None:
    """The lists of an experiment, newest first."""
    from experiments import terminal
    from experiments.uplift import lists

    with stores.opened() as store, store.read() as session:
        found = lists.listing(session, experiment, now=stores.now())
    columns = ("id", "status", "made", "users", "treated", "expected")
    rows = [
        {
            "id": each.id,
            "status": each.status,
            "made": each.created_at,
            "users": "" if each.made is None else each.made.users,
            "treated": "" if each.made is None else _treated(each),
            "expected": "" if each.made is None else f"{each.made.expected:.2f}",
        }
        for each in found
    ]
    terminal.show(columns, rows, form)


@user_list.command("show")
@click.argument("list_id", metavar="ID")
@stores.format_option
def show_one(list_id: str, form: str) -> None:
    """How far a list is, and what it comes to."""
    from experiments.uplift import lists

    with stores.opened() as store, store.read() as session:
        _show(lists.find(session, list_id, now=stores.now()), form)


@user_list.command("save")
@click.argument("list_id", metavar="ID")
@click.argument("file", type=click.Path(path_type=Path))
def save(list_id: str, file: Path) -> None:
    """Write the users of a list to FILE (.csv or .parquet): their effects, and what each gets."""
    import shutil

    import pyarrow.csv
    import pyarrow.parquet

    from experiments.uplift import lists

    if file.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{str(file)!r}: end the name with .csv or .parquet", param_hint="FILE")
    with stores.opened() as store, store.read() as session:
        made = lists.done(session, list_id, now=stores.now())
        path = lists.users_path(store.settings, list_id)
    if file.suffix == ".parquet":
        shutil.copyfile(path, file)
    else:
        with pyarrow.parquet.ParquetFile(path) as found, pyarrow.csv.CSVWriter(file, found.schema_arrow) as writer:
            for batch in found.iter_batches():
                writer.write_batch(batch)
    click.echo(f"{made.users} users")


@user_list.command("policy")
@click.argument("list_id", metavar="ID")
def policy(list_id: str) -> None:
    """Make the draft of the policy that serves a list, or give the policy there is the list's rules."""
    from experiments.uplift import serving

    with stores.opened() as store, store.write() as session:
        now, currency = stores.now(), store.settings.currency
        made, new = serving.roll_out(session, list_id, actor=stores.ACTOR, now=now, currency=currency)
    verb = f"made the draft {made.key}: upturn policy start {made.key}" if new else f"{made.key} serves the list"
    click.echo(f"{verb} (revision {made.revision})")


def _treated(entry: "ListEntry") -> int:
    assert entry.made is not None
    # The control comes first.
    return sum(list(entry.made.variants.values())[1:])


def _show(entry: "ListEntry", form: str) -> None:
    import msgspec

    from experiments import terminal

    if form == "json":
        click.echo(msgspec.json.encode(entry))
        return
    made = entry.made
    click.echo(f"list {entry.id} of {entry.experiment}: {entry.status}")
    if made is None:
        return
    rows = [{"variant": variant, "users": f"{count:,}"} for variant, count in made.variants.items()]
    terminal.show(("variant", "users"), rows, "table")
    click.echo(f"{made.users:,} users, cost {made.cost:,.2f}, predicted to gain {made.expected:,.2f} net of it")
    if made.gap > 0:
        click.echo(f"the best choice within the limits gains at most {made.gap:,.2f} more")
    if made.worth is not None:
        gain = made.worth.over_control
        click.echo(
            f"chosen like that, the users studied gained {gain.estimate:.4g} [{gain.lower:.4g}, {gain.upper:.4g}] each"
        )
    limits = {"budget": made.price, "contacts": made.contact_price, **made.stock_prices}
    for name, price in limits.items():
        if price > 0:
            click.echo(f"one more of {name} would bring {price:,.4g}")
    for name, (here, before) in made.missing.items():
        if here > before + 0.1:
            click.echo(f"{name} is unknown of {here:.0%} of them, and was of {before:.0%} of the users studied")
    if made.unused:
        click.echo(f"columns the model does not know: {', '.join(made.unused)}")
    click.echo(f"model of the study {entry.study} ({made.learner}), data up to batch {made.watermark}")
    if made.written or made.refused:
        click.echo(f"written as {made.attribute}: {made.written:,} users, {made.refused:,} refused")
