"""Which language a reader gets: the one chosen, else the first one that the browser asks for and we have."""

from collections.abc import Mapping

import flask_babel
from babel import Locale
from flask import request, session

# Language code in pages and links → locale of its catalogue.
LANGUAGES: Mapping[str, str] = {"en": "en", "zh": "zh_Hans_CN"}
NAMES: Mapping[str, str] = {"en": "English", "zh": "中文"}


def language() -> str:
    """Return the code of the reader's language."""
    chosen = session.get("language")
    if chosen in LANGUAGES:
        return str(chosen)
    for value, _ in request.accept_languages:
        code = value.partition("-")[0].lower()
        if code in LANGUAGES:
            return code
    return "en"


def select_locale() -> str:
    """Return the locale for Flask-Babel."""
    return LANGUAGES[language()]


def current_locale() -> Locale:
    """Return the locale in force."""
    return flask_babel.get_locale() or Locale.parse("en")


def html_lang() -> str:
    """Return the value of the pages' ``lang`` attribute."""
    return {"en": "en", "zh": "zh-Hans-CN"}[language()]


def gettext(text: str, **facts: object) -> str:
    """Return a text in the reader's language, with the facts filled in."""
    return str(flask_babel.gettext(text, **facts))


def ngettext(one: str, many: str, number: int, **facts: object) -> str:
    """Return the text that goes with a number, in the reader's language."""
    return str(flask_babel.ngettext(one, many, number, **facts))
