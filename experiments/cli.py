"""The command ``upturn``: the same functions as the web, for a terminal. Exit codes: 2 usage, 1 failed."""

import logging
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.commands import stores
from experiments.commands.access import key, user
from experiments.commands.analyze import analyze, print_report
from experiments.commands.lists import user_list
from experiments.commands.plan import plan
from experiments.commands.policies import policy
from experiments.commands.programme import programme
from experiments.commands.uplift import uplift
from experiments.errors import InvalidDocument, UpturnError
from experiments.settings import Settings

if TYPE_CHECKING:
    pass

# Commands import what they need when they run: the engines take a second to load, and `upturn --help` needs none.


def main() -> None:
    """Run the command line; errors go to standard error."""
    try:
        commands(prog_name="upturn")
    except UpturnError as error:
        click.echo(f"upturn: {error.detail}", err=True)
        # What was given is wrong, or what was asked for failed.
        sys.exit(2 if isinstance(error, InvalidDocument) else 1)


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
    now = stores.now()
    for campaign in (frequency, hillstrom):
        campaign.create_documents(store, now=now)
        with terminal.progress("sending a campaign", campaign.CUSTOMERS) as bar:
            receipt = campaign.send(store, now=now, progress=bar)
        terminal.OUT.print(f"taken in: {receipt.accepted:,} items, {receipt.duplicates:,} known already\n")
        saved = reports.make(store, campaign.EXPERIMENT, now=stores.now())
        terminal.show_report(saved.report)
        terminal.OUT.print()
    if not serve:
        return
    password = secrets.token_urlsafe(9)
    with store.write() as session:
        if "demo" in access.accounts(session):
            access.set_password(session, "demo", password, now=now)
        else:
            access.create_account(session, "demo", password, role="admin", now=now)
    store.close()
    terminal.OUT.print(f"open http://{host}:{port}/experiments/{hillstrom.EXPERIMENT}")
    terminal.OUT.print(f"log in as [bold]demo[/bold] with the password [bold]{password}[/bold] (Ctrl-C ends it)")
    terminal.OUT.print(
        "a study of whom each e-mail pays for has begun, and a policy follows from it in a minute or two"
    )
    environment = os.environ | settings.to_env()
    subprocess.Popen([sys.executable, "-m", "experiments.demo.uplift"], env=environment, stdin=subprocess.DEVNULL)
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
    with stores.opened() as store:
        settings = store.settings
    if settings.oidc is not None:
        settings.oidc.require_library()
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
    # A process of its own, as workers are forked from this one.
    looking = ["schedule", "--every", "30", "--parent", str(os.getpid())]
    clock = subprocess.Popen([sys.executable, "-m", "experiments.cli", *looking])
    try:
        server.serve()
    finally:
        clock.terminate()
        clock.wait()


@commands.command()
@click.option("--every", type=click.IntRange(1, 3600), metavar="SECONDS", help="Go on, and look again so often.")
@click.option("--parent", type=int, hidden=True, help="End when this process, which began it, has ended.")
def schedule(every: int | None, parent: int | None) -> None:
    """Start and stop what is due, and open waves of adaptive shares, once; `serve` does the same by itself."""
    from time import sleep

    from experiments.clock import Clock

    with stores.opened() as store:
        clock = Clock(store)
        while True:
            try:
                for line in clock.tick(now=stores.now()):
                    click.echo(line)
            except Exception as error:
                if every is None:
                    raise
                # Such as a database that is away for a minute: the next look may do.
                click.echo(f"upturn: {type(error).__name__}: {error}", err=True)
            if every is None or (parent is not None and os.getppid() != parent):
                return
            sleep(every)


@commands.command()
@click.option("--rebase-lake", is_flag=True, help="After restoring PostgreSQL into another cluster.")
def migrate(*, rebase_lake: bool) -> None:
    """Create the store, or bring its schema to the newest version."""
    from experiments import database, lake

    with stores.opened(migrate=True) as store:
        if rebase_lake:
            lake.rebase(store.engine)
        click.echo(f"schema {database.schema_version(store.engine)[0]}")


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

    with stores.opened() as store, terminal.progress(f"importing {what}") as bar:
        receipt = imports.run(store, file, imports.What(what), now=stores.now(), timezone=timezone, progress=bar)
    click.echo(f"{receipt.accepted} accepted, {receipt.duplicates} known already, {len(receipt.rejected)} refused")
    for refusal in receipt.rejected[:20]:
        click.echo(f"row {refusal.index + 1}: {refusal.code}: {refusal.detail}", err=True)
    if len(receipt.rejected) > 20:
        click.echo(f"... and {len(receipt.rejected) - 20} more", err=True)
    if receipt.rejected:
        sys.exit(1)


commands.add_command(key)
commands.add_command(user)
commands.add_command(plan)
commands.add_command(analyze)
commands.add_command(uplift)
commands.add_command(programme)
commands.add_command(user_list)
commands.add_command(policy)


@commands.command()
@click.argument("experiment")
@click.option("--refresh", is_flag=True, help="Analyse the newest data first.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True
)
def results(experiment: str, *, refresh: bool, form: str) -> None:
    """Show an experiment's newest report."""
    from experiments import reports

    with stores.opened() as store:
        with store.read() as session:
            saved = reports.latest(session, experiment)
        if refresh or saved is None:
            saved = reports.make(store, experiment, now=stores.now())
    print_report(saved.report, form)


@commands.command()
@click.argument("experiment", required=False)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def adapt(experiment: str | None, form: str) -> None:
    """Open the next wave of experiments with adaptive shares, where it is due; all of them without a name.

    May be run as often as one likes, such as every hour.
    """
    from experiments import adaptive, terminal

    with stores.opened() as store:
        if experiment is None:
            done = adaptive.update_all(store, now=stores.now())
        else:
            done = [adaptive.update(store, experiment, now=stores.now())]
    terminal.show(adaptive.COLUMNS, [one.row() for one in done], form)


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
    with stores.opened() as store:
        if what == "participants":
            count = extract.write_users(store, file, experiment=str(experiment), metric=metric, now=stores.now())
        else:
            count = extract.write(store, extract.KINDS[what], file, experiment=experiment, now=stores.now())
    click.echo(f"{count} rows")


@commands.command()
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def doctor(form: str) -> None:
    """Check the store and say what to do about each finding."""
    from experiments import doctor as checks
    from experiments import terminal

    findings = checks.examine(Settings.from_env(), now=stores.now())
    columns = ("check", "ok", "detail")
    rows = [{"check": f.check, "ok": "ok" if f.ok else "PROBLEM", "detail": f.detail} for f in findings]
    terminal.show(columns, rows, form)
    if not all(finding.ok for finding in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
