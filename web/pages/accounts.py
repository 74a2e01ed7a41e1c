"""Logging in and out, and choosing a language."""

from urllib.parse import urlsplit

from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from experiments import access
from web.languages import LANGUAGES, gettext
from web.state import state

blueprint = Blueprint("accounts", __name__)


@blueprint.get("/login")
def login() -> str:
    """Show the login form."""
    with state().store.read() as record:
        anyone = bool(access.accounts(record))
    return render_template("login.html", next=request.args.get("next", ""), name="", anyone=anyone)


@blueprint.post("/login")
def log_in() -> ResponseReturnValue:
    """Log in; failures of one login from one address slow down its next tries."""
    name, password = request.form.get("login", ""), request.form.get("password", "")
    target = request.form.get("next", "")
    held = state()
    attempts = held.attempts
    address = request.remote_addr or ""
    wait = attempts.wait(name, address, held.clock())
    status = 200
    if wait:
        status = 429
        flash(gettext("Too many tries. Please wait %(seconds)s seconds.", seconds=int(wait.total_seconds()) + 1))
    else:
        with held.store.read() as record:
            right = access.check_login(record, name, password)
        if right:
            attempts.succeeded(name, address)
            chosen = session.get("language")
            session.clear()
            session.permanent = True
            session["login"] = name
            if chosen:
                session["language"] = chosen
            return redirect(_local(target), 303)
        attempts.failed(name, address, held.clock())
        status = 401
        flash(gettext("Login or password is wrong."))
    return render_template("login.html", next=target, name=name, anyone=True), status


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    """Log out; the language stays."""
    session.pop("login", None)
    return redirect(url_for("accounts.login"), 303)


@blueprint.post("/language")
def choose_language() -> ResponseReturnValue:
    """Keep the language chosen, and go back to the page."""
    chosen = request.form.get("language", "")
    if chosen not in LANGUAGES:
        abort(400)
    session["language"] = chosen
    return redirect(_local(request.form.get("next", "")), 303)


def _local(target: str) -> str:
    """Return a path of this server, never another server's address."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not target.startswith("/") or target.startswith(("//", "/\\")):
        return url_for("experiments.overview")
    return target
