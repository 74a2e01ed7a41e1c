"""The pages, in English and Chinese."""

from flask import Flask, Response, g, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from experiments.errors import UpturnError
from web import languages, rights, security, sentences
from web.formats import MINUS
from web.languages import gettext
from web.pages import experiments, frozen, programme, tactics, testers
from web.pages.making import views as making
from web.pages.people import accounts, audit, keys, oidc, people
from web.pages.uplift import lists, policies, studies

__all__ = ["failure", "register"]


def register(app: Flask) -> None:
    """Add the pages to an application."""
    app.before_request(languages.choose_by_address)
    app.register_blueprint(accounts.blueprint)
    app.register_blueprint(experiments.blueprint)
    for module in (audit, frozen, keys, lists, making, oidc, people, policies, programme, studies, tactics, testers):
        app.register_blueprint(module.blueprint)
    app.jinja_env.globals.update(
        html_lang=languages.html_lang,
        here=languages.here,
        language=languages.language,
        language_names=languages.NAMES,
        looks=security.account,
        may=security.may,
    )
    app.add_template_filter(_tied, "tied")
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


def _tied(text: str) -> str:
    """Keep a sign on the line of its number."""
    return text.replace("+", "+\u2060").replace(MINUS, f"{MINUS}\u2060")


def failure(error: Exception) -> Response:
    """Return the page that says what went wrong."""
    status = 500
    if isinstance(error, HTTPException) and error.code is not None:
        if error.code < 400:
            return make_response(error.get_response())
        status = error.code
    elif isinstance(error, UpturnError):
        status = error.status
    if status >= 500:
        # The page of a failure must not ask the store who it is for: it may be what failed.
        g.setdefault("account", None)
    text = gettext("Something went wrong here. It was logged; please try again later.")
    kept: list[tuple[str, str]] = []
    if isinstance(error, CSRFError):
        kept = _kept()
        text = (
            gettext("You were logged out in the meantime, so nothing was saved. What you entered is still here.")
            if kept
            else gettext("The page was open for too long. Please go back, load it again, and repeat what you did.")
        )
    elif isinstance(error, UpturnError) and error.code == "role_needed":
        role = sentences.known(rights.ACCOUNT_ROLES, str(error.facts["role"]))
        text = gettext("This takes the role “%(role)s”. An admin can give it to you, on the page “People”.", role=role)
    elif status == 404:
        text = gettext("There is nothing at this address. It may have been renamed or removed.")
    elif status == 403:
        text = gettext("You may not do this.")
    elif status < 500:
        text = gettext("The server could not make sense of this request.")
    return make_response(render_template("error.html", status=status, text=text, kept=kept), status)


def _kept() -> list[tuple[str, str]]:
    """Return what was entered, to be sent again: only what a page of ours sent, and never a password."""
    if request.origin != request.host_url.rstrip("/") or any("password" in name for name in request.form):
        return []
    return [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
