"""The pages, in English and Chinese."""

from flask import Flask, Response, make_response, render_template
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from experiments.errors import UpturnError
from web import languages
from web.formats import MINUS
from web.languages import gettext
from web.pages import accounts, experiments

__all__ = ["failure", "register"]


def register(app: Flask) -> None:
    """Add the pages to an application."""
    app.register_blueprint(accounts.blueprint)
    app.register_blueprint(experiments.blueprint)
    app.jinja_env.globals.update(
        html_lang=languages.html_lang, language=languages.language, language_names=languages.NAMES
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
    text = gettext("Something went wrong here. It was logged; please try again later.")
    if isinstance(error, CSRFError):
        text = gettext("The page was open for too long. Please go back, load it again, and repeat what you did.")
    elif status == 404:
        text = gettext("There is nothing at this address. It may have been renamed or removed.")
    elif status == 403:
        text = gettext("You may not do this.")
    elif status < 500:
        text = gettext("The server could not make sense of this request.")
    return make_response(render_template("error.html", status=status, text=text), status)
