"""The commands ``upturn key`` and ``upturn user``."""

from typing import Any

import click

from experiments.commands import stores
from experiments.settings import ROLES


@click.group()
def key() -> None:
    """API keys: scopes are assign, ingest, read, admin."""


@key.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, help="May be given several times.")
@click.option("--origin", "origins", multiple=True, help="For web pages of https://HOST, or * for any; several times.")
def create_key(name: str, scopes: tuple[str, ...], origins: tuple[str, ...]) -> None:
    """Create a key and print its secret, once."""
    from experiments import access

    with stores.opened() as store, store.write() as session:
        secret = access.create_key(session, name, scopes, origins=origins, now=stores.now())
    click.echo(secret)


@key.command("list")
@stores.format_option
def list_keys(form: str) -> None:
    """List the keys in use."""
    from experiments import access, terminal

    with stores.opened() as store, store.read() as session:
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

    with stores.opened() as store, store.write() as session:
        access.revoke_key(session, name, now=stores.now())


@click.group()
def user() -> None:
    """Accounts of people who use the pages."""


def _password_option(command: Any) -> Any:
    return click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True, envvar="UPTURN_PASSWORD")(
        command
    )


@user.command("create")
@click.argument("login")
@click.option("--role", type=click.Choice(ROLES), help="[default: admin for the first account, then editor]")
@_password_option
def create_user(login: str, role: str | None, password: str) -> None:
    """Create an account."""
    from experiments import access

    with stores.opened() as store, store.write() as session:
        access.create_account(session, login, password, role=role, now=stores.now())


@user.command("password")
@click.argument("login")
@_password_option
def change_password(login: str, password: str) -> None:
    """Change a password, which ends the open sessions."""
    from experiments import access

    with stores.opened() as store, store.write() as session:
        access.set_password(session, login, password, now=stores.now())


@user.command("role")
@click.argument("login")
@click.argument("role", type=click.Choice(ROLES))
def change_role(login: str, role: str) -> None:
    """Change what a person may do: each role includes the ones before it."""
    from experiments import access

    with stores.opened() as store, store.write() as session:
        access.set_role(session, login, role, now=stores.now())


@user.command("disable")
@click.argument("login")
def disable_user(login: str) -> None:
    """Let a person in no more, and end his open sessions."""
    from experiments import access

    with stores.opened() as store, store.write() as session:
        access.disable(session, login, now=stores.now())


@user.command("enable")
@click.argument("login")
def enable_user(login: str) -> None:
    """Let a disabled account in again."""
    from experiments import access

    with stores.opened() as store, store.write() as session:
        access.enable(session, login, now=stores.now())


@user.command("list")
@stores.format_option
def list_users(form: str) -> None:
    """List the accounts with their roles."""
    from experiments import access, terminal

    with stores.opened() as store, store.read() as session:
        people = access.people(session)
    rows = [
        {"login": each.login, "role": each.role.value, "disabled": "yes" if each.disabled_at else ""} for each in people
    ]
    terminal.show(("login", "role", "disabled"), rows, form)
