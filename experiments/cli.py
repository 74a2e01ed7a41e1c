"""The command ``upturn``: the same functions as the web, for a terminal. Exit codes: 2 usage, 1 failed."""

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.analyze_command import analyze, numbers, print_report
from experiments.errors import InvalidDocument, UpturnError
from experiments.settings import Settings
from experiments.uplift_command import uplift

if TYPE_CHECKING:
    from experiments.store import Store

# Commands import what they need when they run: the engines take a second to load, and `upturn --help` needs none.


def main() -> None:
    """Run the command line; errors go to standard error."""
    try:
        commands(prog_name="upturn")
    except UpturnError as error:
        click.echo(f"upturn: {error.detail}", err=True)
        # What was given is wrong, or what was asked for failed.
        sys.exit(2 if isinstance(error, InvalidDocument) else 1)


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def _store(*, migrate: bool = False) -> Iterator["Store"]:
    from experiments.store import Store

    store = Store.open(Settings.from_env(), migrate=migrate)
    try:
        yield store
    finally:
        store.close()


@click.group()
@click.version_option(package_name="upturn")
def commands() -> None:
    """Experiments and uplift for customer operations.

    A store is chosen by UPTURN_STORE (a folder, default ./upturn-store) and UPTURN_DATABASE_URL; days are cut in
    UPTURN_TIMEZONE, money is in UPTURN_CURRENCY.
    """


@commands.command()
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("upturn-demo"), show_default=True
)
@click.option("--serve/--no-serve", default=True, help="Serve the pages after the analysis.", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def demo(folder: Path, *, serve: bool, host: str, port: int) -> None:
    """Replay a real campaign of 64,000 customers and a simulated one of 20,000, and show what to do."""
    from experiments import access, reports, terminal
    from experiments.demo import frequency, hillstrom
    from experiments.store import Store

    settings = Settings.in_folder(folder, currency="USD")
    store = Store.open(settings, migrate=True)
    now = _now()
    for campaign in (frequency, hillstrom):
        campaign.create_documents(store, now=now)
        with terminal.progress("sending a campaign", campaign.CUSTOMERS) as bar:
            receipt = campaign.send(store, now=now, progress=bar)
        terminal.OUT.print(f"taken in: {receipt.accepted:,} items, {receipt.duplicates:,} known already\n")
        saved = reports.make(store, campaign.EXPERIMENT, now=_now())
        terminal.show_report(saved.report)
        terminal.OUT.print()
    if not serve:
        return
    password = secrets.token_urlsafe(9)
    with store.write() as session:
        if "demo" in access.accounts(session):
            access.set_password(session, "demo", password)
        else:
            access.create_account(session, "demo", password, now=now)
    store.close()
    terminal.OUT.print(f"open http://{host}:{port}/experiments/{hillstrom.EXPERIMENT}")
    terminal.OUT.print(f"log in as [bold]demo[/bold] with the password [bold]{password}[/bold] (Ctrl-C ends it)")
    _serve(settings, host, port, workers=1, threads=None)


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Of each worker, streams aside.  [default: 2 for each core, and 1]"
)
def serve(host: str, port: int, workers: int, threads: int | None) -> None:
    """Serve the API and the pages.

    For a server that only answers apps, --threads 1 and UPTURN_STREAMS=0 are fastest: threads get in each other's way.
    """
    with _store() as store:
        settings = store.settings
    _serve(settings, host, port, workers, threads)


def _serve(settings: Settings, host: str, port: int, workers: int, threads: int | None) -> None:
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    os.environ.update(settings.to_env())
    # It warns of many threads; these are for streams, and sleep.
    logging.getLogger("_granian").addFilter(lambda record: "Python threads" not in record.getMessage())
    server = Granian(
        "wsgi:app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        # A stream holds a thread while it is open: these come on top, so that calls always find one.
        blocking_threads=(threads or 2 * (os.cpu_count() or 1) + 1) + settings.streams,
        # Streams stay open for minutes: when the server is told to end, calls get this many seconds, and then it ends.
        workers_kill_timeout=5,
        log_level=LogLevels.warning,
    )
    server.serve()


@commands.command()
@click.option("--rebase-lake", is_flag=True, help="After restoring PostgreSQL into another cluster.")
def migrate(*, rebase_lake: bool) -> None:
    """Create the store, or bring its schema to the newest version."""
    from experiments import database, lake

    with _store(migrate=True) as store:
        if rebase_lake:
            lake.rebase(store.engine)
        click.echo(f"schema {database.schema_version(store.engine)[0]}")


@commands.group()
def key() -> None:
    """API keys: scopes are assign, ingest, read, admin."""


@key.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="May be given several times.")
@click.option("--origin", "origins", multiple=True, help="For web pages of https://HOST, or * for any; several times.")
def create_key(name: str, scopes: tuple[str, ...], origins: tuple[str, ...]) -> None:
    """Create a key and print its secret, once."""
    from experiments import access

    with _store() as store, store.write() as session:
        secret = access.create_key(session, name, scopes, origins=origins, now=_now())
    click.echo(secret)


@key.command("list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_keys(form: str) -> None:
    """List the keys in use."""
    from experiments import access, terminal

    with _store() as store, store.read() as session:
        keys = access.keys(session)
    rows = [
        {
            "name": each.name,
            "prefix": each.prefix,
            "scopes": " ".join(sorted(each.scopes)),
            "origins": " ".join(sorted(each.origins)),
        }
        for each in keys
    ]
    terminal.show(("name", "prefix", "scopes", "origins"), rows, form)


@key.command("revoke")
@click.argument("name")
def revoke_key(name: str) -> None:
    """Revoke a key."""
    from experiments import access

    with _store() as store, store.write() as session:
        access.revoke_key(session, name, now=_now())


@commands.group()
def user() -> None:
    """Accounts of people who use the pages."""


def _password_option(command: Any) -> Any:
    return click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, envvar="UPTURN_PASSWORD")(
        command
    )


@user.command("create")
@click.argument("login")
@_password_option
def create_user(login: str, password: str) -> None:
    """Create an account."""
    from experiments import access

    with _store() as store, store.write() as session:
        access.create_account(session, login, password, now=_now())


@user.command("password")
@click.argument("login")
@_password_option
def change_password(login: str, password: str) -> None:
    """Change a password."""
    from experiments import access

    with _store() as store, store.write() as session:
        access.set_password(session, login, password)


@user.command("list")
def list_users() -> None:
    """List the logins."""
    from experiments import access

    with _store() as store, store.read() as session:
        for login in access.accounts(session):
            click.echo(login)


def _zone(_context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return None if value is None else ZoneInfo(value).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(f"{value!r}: give an IANA zone such as Asia/Shanghai", param=option) from None


@commands.command("import")
@click.argument("what", type=click.Choice(["exposures", "events", "users"]))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--timezone", callback=_zone, help="Zone of times that come without an offset, such as Asia/Shanghai.")
def import_file(what: str, file: Path, timezone: str | None) -> None:
    """Import exposures, events or users from CSV, Parquet or JSON lines; again is harmless."""
    from experiments import imports, terminal

    with _store() as store, terminal.progress(f"importing {what}") as bar:
        receipt = imports.run(store, file, imports.What(what), now=_now(), timezone=timezone, progress=bar)
    click.echo(f"{receipt.accepted} accepted, {receipt.duplicates} known already, {len(receipt.rejected)} refused")
    for refusal in receipt.rejected[:20]:
        click.echo(f"row {refusal.index + 1}: {refusal.code}: {refusal.detail}", err=True)
    if len(receipt.rejected) > 20:
        click.echo(f"... and {len(receipt.rejected) - 20} more", err=True)
    if receipt.rejected:
        sys.exit(1)


commands.add_command(analyze)
commands.add_command(uplift)


def _looks(context: click.Context, option: click.Parameter, value: str | None) -> int | list[float] | None:
    return int(value) if value is not None and value.isdigit() else numbers(context, option, value)


@commands.command()
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
    with _store() if planner.needs_store(request) else nullcontext() as store:
        answer = planner.answer(request, store, now=_now())
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


@commands.command()
@click.argument("experiment")
@click.option("--refresh", is_flag=True, help="Analyse the newest data first.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True
)
def results(experiment: str, *, refresh: bool, form: str) -> None:
    """Show an experiment's newest report."""
    from experiments import reports

    with _store() as store:
        with store.read() as session:
            saved = reports.latest(session, experiment)
        if refresh or saved is None:
            saved = reports.make(store, experiment, now=_now())
    print_report(saved.report, form)


@commands.command("export")
@click.argument("what", type=click.Choice(["exposures", "events", "users", "aliases", "participants"]))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--experiment", help="Only this experiment's exposures; whose participants.")
@click.option("--metric", help="Of participants: whose outcome.  [default: the primary metric]")
def export_rows(what: str, file: Path, experiment: str | None, metric: str | None) -> None:
    """Write the lake's rows to FILE: .csv, .parquet or .jsonl.

    `participants`: one row for each user of an experiment, with his variant and its chance, what was known of him at
    his exposure, and his outcome.
    """
    from experiments import extract

    if what == "participants" and experiment is None:
        raise click.UsageError("participants need --experiment")
    with _store() as store:
        if what == "participants":
            count = extract.write_users(store, file, experiment=str(experiment), metric=metric, now=_now())
        else:
            count = extract.write(store, extract.KINDS[what], file, experiment=experiment, now=_now())
    click.echo(f"{count} rows")


@commands.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def doctor(form: str) -> None:
    """Check the store and say what to do about each finding."""
    from experiments import doctor as checks
    from experiments import terminal

    findings = checks.examine(Settings.from_env(), now=_now())
    columns = ("check", "ok", "detail")
    rows = [{"check": f.check, "ok": "ok" if f.ok else "PROBLEM", "detail": f.detail} for f in findings]
    terminal.show(columns, rows, form)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
