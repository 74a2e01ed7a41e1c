"""The command ``upturn``: the same functions as the web, for a terminal. Exit codes: 2 usage, 1 failed."""

import math
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.errors import InvalidDocument, UpturnError
from experiments.settings import Settings

if TYPE_CHECKING:
    from experiments.report import Report
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
    """Replay a real campaign of 64,000 customers and show what to do."""
    from experiments import access, reports, terminal
    from experiments.demo import hillstrom
    from experiments.store import Store

    settings = Settings.in_folder(folder, currency="USD")
    store = Store.open(settings, migrate=True)
    now = _now()
    hillstrom.create_documents(store, now=now)
    with terminal.progress("sending the campaign", hillstrom.CUSTOMERS) as bar:
        receipt = hillstrom.send(store, now=now, progress=bar)
    terminal.OUT.print(f"taken in: {receipt.accepted:,} items, {receipt.duplicates:,} known already\n")
    saved = reports.make(store, hillstrom.EXPERIMENT, now=_now())
    terminal.show_report(saved.report)
    if not serve:
        return
    password = secrets.token_urlsafe(9)
    with store.write() as session:
        if "demo" in access.accounts(session):
            access.set_password(session, "demo", password)
        else:
            access.create_account(session, "demo", password, now=now)
    store.close()
    terminal.OUT.print(f"\nopen http://{host}:{port}/experiments/{hillstrom.EXPERIMENT}")
    terminal.OUT.print(f"log in as [bold]demo[/bold] with the password [bold]{password}[/bold] (Ctrl-C ends it)")
    _serve(settings, host, port, workers=1)


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
def serve(host: str, port: int, workers: int) -> None:
    """Serve the API and the pages."""
    with _store() as store:
        settings = store.settings
    _serve(settings, host, port, workers)


def _serve(settings: Settings, host: str, port: int, workers: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    os.environ.update(settings.to_env())
    server = Granian(
        "wsgi:app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=2 * (os.cpu_count() or 1) + 1,
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
def create_key(name: str, scopes: tuple[str, ...]) -> None:
    """Create a key and print its secret, once."""
    from experiments import access

    with _store() as store, store.write() as session:
        secret = access.create_key(session, name, scopes, now=_now())
    click.echo(secret)


@key.command("list")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_keys(form: str) -> None:
    """List the keys in use."""
    from experiments import access, terminal

    with _store() as store, store.read() as session:
        keys = access.keys(session)
    rows = [{"name": each.name, "prefix": each.prefix, "scopes": " ".join(sorted(each.scopes))} for each in keys]
    terminal.show(("name", "prefix", "scopes"), rows, form)


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


def _pairs(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    result = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            result[name] = float(number)
        except ValueError:
            name = ""
        if not name or not 0 <= result[name] < math.inf:
            raise click.BadParameter(f"{value!r}: write NAME=NUMBER, the number 0 or more", param=option)
    return result


@commands.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--variant", required=True, metavar="COL", help="Column that tells each user's variant.")
@click.option("--control", required=True, metavar="NAME", help="Its value for the control.")
@click.option("--unit", metavar="COL", help="Column of the user, when a user has several rows.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    required=True,
    metavar="NAME=KIND:COL[/COL]",
    help="conversion:COL, mean:COL or ratio:COL/COL; the first is the primary one.",
)
@click.option(
    "--covariate", "covariates", multiple=True, metavar="COL", help="Known before exposure: reduces the variance."
)
@click.option("--segment", "segments", multiple=True, metavar="COL", help="Effects for each of its values too.")
@click.option(
    "--guardrail",
    "guardrails",
    multiple=True,
    metavar="NAME=MARGIN",
    callback=_pairs,
    help="This metric may lose at most MARGIN.",
)
@click.option("--lower-is-better", multiple=True, metavar="NAME", help="This metric should go down.")
@click.option(
    "--method",
    type=click.Choice(["fixed", "sequential"]),
    default="fixed",
    show_default=True,
    help="fixed: one look, as with a finished file; sequential: the file grows and is looked at again.",
)
@click.option(
    "--planned-users",
    type=click.IntRange(2),
    help="Size for which a sequential interval is tightest (default: the file's).",
)
@click.option("--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True)
@click.option("--correction", type=click.Choice(["holm", "bh", "none"]), default="holm", show_default=True)
@click.option(
    "--weights", multiple=True, metavar="NAME=W", callback=_pairs, help="The designed split (default: equal)."
)
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True
)
def analyze(file: Path, **options: Any) -> None:
    """Analyse any CSV or Parquet file: no server, no set-up."""
    from experiments import files

    question = files.Question(
        variant=options["variant"],
        control=options["control"],
        metrics=[files.FileMetric.parse(text) for text in options["metrics"]],
        unit=options["unit"],
        covariates=options["covariates"],
        segments=options["segments"],
        weights=options["weights"] or None,
        guardrails=options["guardrails"],
        lower_is_better=options["lower_is_better"],
        method=options["method"],
        planned_users=options["planned_users"],
        alpha=options["alpha"],
        correction=options["correction"],
    )
    _print_report(files.analyse(file, question), options["form"])


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
    _print_report(saved.report, form)


def _print_report(report: "Report", form: str) -> None:
    from experiments import export, terminal
    from experiments.report import encode

    if form == "table":
        terminal.show_report(report)
        return
    body = encode(report)
    if form != "json":
        body = export.report_csv(report) if form == "csv" else export.report_parquet(report)
    click.echo(body, nl=False)


@commands.command("export")
@click.argument("what", type=click.Choice(["exposures", "events", "users"]))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--experiment", help="Only this experiment's exposures.")
def export_rows(what: str, file: Path, experiment: str | None) -> None:
    """Write the lake's rows to FILE: .csv, .parquet or .jsonl."""
    from experiments import extract

    with _store() as store:
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
