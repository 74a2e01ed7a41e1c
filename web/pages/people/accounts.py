"""Logging in and out, one's own account, and choosing a language."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from flask import Blueprint, abort, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from experiments import access
from experiments.access import AccountInfo
from experiments.errors import InvalidDocument
from web import rights, security, sentences
from web.languages import LANGUAGES, gettext
from web.state import state

blueprint = Blueprint("accounts", __name__)


@blueprint.get("/login")
def login() -> str:
    """Show the login form."""
    with state().store.read() as record:
        anyone = bool(access.accounts(record))
    return _form(request.args.get("next", ""), "", anyone=anyone)


def _form(target: str, name: str, *, anyone: bool = True) -> str:
    settings = state().store.settings
    return render_template(
        "login.html", next=target, name=name, anyone=anyone, passwords=settings.passwords, oidc=settings.oidc
    )


@blueprint.post("/login")
def log_in() -> ResponseReturnValue:
    """Log in; failures of one login from one address slow down its next tries."""
    name, password = request.form.get("login", ""), request.form.get("password", "")
    target = request.form.get("next", "")
    held = state()
    if not held.store.settings.passwords:
        abort(403)
    attempts = held.attempts
    address = request.remote_addr or ""
    wait = attempts.wait(name, address, held.clock())
    status = 200
    if wait:
        status = 429
        flash(gettext("Too many tries. Please wait %(seconds)s seconds.", seconds=int(wait.total_seconds()) + 1))
    else:
        with held.store.read() as record:
            right = access.account(record, name) if access.check_login(record, name, password) else None
        if right:
            attempts.succeeded(name, address)
            security.log_in(right)
            return redirect(local(target), 303)
        attempts.failed(name, address, held.clock())
        status = 401
        flash(gettext("Login or password is wrong."))
    return _form(target, name), status


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    """Log out; the language stays."""
    session.pop("login", None)
    session.pop("epoch", None)
    return redirect(url_for("accounts.login"), 303)


@blueprint.post("/language")
def choose_language() -> ResponseReturnValue:
    """Keep the language chosen, and go back to the page."""
    chosen = request.form.get("language", "")
    if chosen not in LANGUAGES:
        abort(400)
    session["language"] = chosen
    if who := security.account():
        with state().store.write() as record:
            _keep(record, replace(who, language=chosen))
    return redirect(local(request.form.get("next", "")), 303)


@blueprint.get("/account")
@security.login_required
def show() -> ResponseReturnValue:
    """Show one's own account."""
    return _account_page()


def _account_page(status: int = 200, problems: Mapping[str, str] | None = None) -> ResponseReturnValue:
    page = render_template(
        "account.html",
        who=security.account(),
        role=sentences.known(rights.ACCOUNT_ROLES, g.role),
        duties=[str(duty) for role, duty in rights.DUTIES.items() if security.may(role)],
        problems=problems or {},
        passwords=state().store.settings.passwords,
        min_password=access.MIN_PASSWORD,
    )
    return page, status


@blueprint.post("/account")
@security.login_required
def look() -> ResponseReturnValue:
    """Keep language, theme and colours."""
    form, who = request.form, security.account()
    wanted = {"language": form.get("language"), "theme": form.get("theme"), "up": form.get("up")}
    known: dict[str, Collection[str]] = {"language": LANGUAGES, "theme": ("light", "dark"), "up": ("red",)}
    if who is None or any(value and value not in known[name] for name, value in wanted.items()):
        abort(400)
    changed = replace(
        who, language=wanted["language"] or None, theme=wanted["theme"] or None, up_colour=wanted["up"] or None
    )
    with state().store.write() as record:
        _keep(record, changed)
    session.pop("language", None)
    if changed.language:
        session["language"] = changed.language
    flash(gettext("Kept."), "done")
    return redirect(url_for("accounts.show"), 303)


def _keep(record: Session, who: AccountInfo) -> None:
    access.set_looks(record, who.login, language=who.language, theme=who.theme, up_colour=who.up_colour)


@blueprint.post("/account/password")
@security.login_required
def change_password() -> ResponseReturnValue:
    """Change one's own password, knowing the old one; other sessions end, this one goes on."""
    held, form, address = state(), request.form, request.remote_addr or ""
    if wait := held.attempts.wait(g.login, address, held.clock()):
        text = gettext("Too many tries. Please wait %(seconds)s seconds.", seconds=int(wait.total_seconds()) + 1)
        return _account_page(429, {"old": text})
    with held.store.read() as record:
        right = access.check_login(record, g.login, form.get("old", ""))
    if not right:
        held.attempts.failed(g.login, address, held.clock())
        return _account_page(401, {"old": gettext("This is not your password now.")})
    held.attempts.succeeded(g.login, address)
    if form.get("new") != form.get("again"):
        return _account_page(422, {"again": gettext("The two new passwords differ. Write the same twice.")})
    try:
        with held.store.write() as record:
            access.set_password(record, g.login, form.get("new", ""), now=held.clock(), actor=g.login)
            changed = access.account(record, g.login)
    except InvalidDocument as error:
        return _account_page(422, {"new": rights.refused(error)["password"]})
    if changed is not None:
        security.log_in(changed)
    flash(gettext("The password is changed. Everywhere else you were logged out."), "done")
    return redirect(url_for("accounts.show"), 303)


def local(target: str) -> str:
    """Return a path of this server, never another server's address."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        return url_for("experiments.overview")
    return target
