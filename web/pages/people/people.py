"""Who may log in and what they may do: for admins."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from experiments import access
from experiments.access import AccountInfo, Role
from experiments.errors import Conflict, InvalidDocument
from web import rights, sentences
from web.formats import Formats
from web.languages import gettext
from web.pages.reader import formats
from web.security import needs
from web.state import state

blueprint = Blueprint("people", __name__)


@dataclass(frozen=True, slots=True)
class Line:
    """An account as the page lists it."""

    login: str
    role: str
    since: str
    disabled: str
    has_password: bool
    is_reader: bool


def _line(account: AccountInfo, shown: Formats) -> Line:
    return Line(
        login=account.login,
        role=account.role,
        since=shown.moment(account.created_at.isoformat()),
        disabled=shown.moment(account.disabled_at.isoformat()) if account.disabled_at else "",
        has_password=account.has_password,
        is_reader=account.login == g.login,
    )


def _page(status: int = 200, **facts: object) -> ResponseReturnValue:
    held, shown = state(), formats()
    with held.store.read() as session:
        lines = [_line(account, shown) for account in access.people(session)]
    given = {"login": "", "role": Role.editor, "problems": {}, "handed": None} | facts
    settings = held.store.settings
    page = render_template(
        "people.html",
        lines=lines,
        roles=rights.ACCOUNT_ROLES,
        duties=rights.DUTIES,
        passwords=settings.passwords,
        oidc=settings.oidc is not None,
        **given,
    )
    return page, status


@blueprint.get("/people")
@needs(Role.admin)
def show() -> ResponseReturnValue:
    """List the accounts."""
    return _page()


@blueprint.post("/people")
@needs(Role.admin)
def add() -> ResponseReturnValue:
    """Add an account, and show the password to hand over, once."""
    held, login, role = state(), request.form.get("login", "").strip(), request.form.get("role", "")
    password = _new_password()
    try:
        with held.store.write() as session:
            access.create_account(session, login, password, role=role, now=held.clock(), actor=g.login)
    except InvalidDocument as error:
        return _page(422, login=login, role=role, problems=rights.refused(error))
    except Conflict:
        taken = gettext("There is an account of this name already. Choose another name.")
        return _page(409, login=login, role=role, problems={"login": taken})
    return _page(handed=(login, password))


@blueprint.post("/people/password")
@needs(Role.admin)
def reset() -> ResponseReturnValue:
    """Give an account a new password, shown once; whoever used the old one is logged out."""
    held, login, password = state(), request.form.get("login", ""), _new_password()
    with held.store.write() as session:
        access.set_password(session, login, password, now=held.clock(), actor=g.login)
    return _page(handed=(login, password))


@blueprint.post("/people/role")
@needs(Role.admin)
def change_role() -> ResponseReturnValue:
    """Change what a person may do."""
    login, role = request.form.get("login", ""), request.form.get("role", "")
    now = state().clock()
    return _done(
        lambda session: access.set_role(session, login, role, now=now, actor=g.login),
        gettext("%(login)s has a new role.", login=login),
    )


@blueprint.post("/people/disable")
@needs(Role.admin)
def disable() -> ResponseReturnValue:
    """Let a person in no more."""
    login, now = request.form.get("login", ""), state().clock()
    return _done(
        lambda session: access.disable(session, login, now=now, actor=g.login),
        gettext("%(login)s cannot log in any more, and was logged out.", login=login),
    )


@blueprint.post("/people/enable")
@needs(Role.admin)
def enable() -> ResponseReturnValue:
    """Let a person in again."""
    login, now = request.form.get("login", ""), state().clock()
    return _done(
        lambda session: access.enable(session, login, now=now, actor=g.login),
        gettext("%(login)s can log in again.", login=login),
    )


def _done(work: Callable[[Session], None], success: str) -> ResponseReturnValue:
    try:
        with state().store.write() as session:
            work(session)
    except Conflict as error:
        flash(sentences.known(sentences.ERRORS, error.code), "problem")
    else:
        flash(success, "done")
    return redirect(url_for("people.show"), 303)


def _new_password() -> str:
    return secrets.token_urlsafe(12)
