"""Which language a reader gets: the one chosen, else the first one that the browser asks for and we have.

A choice is made by the switch on every page, by the account, or by ``?lang=`` in an address, which wins and is kept.
"""

from collections.abc import Mapping
from urllib.parse import urlencode

import flask_babel
from babel import Locale
from flask import request, session

# Language code in pages and links → locale of its catalogue.
LANGUAGES: Mapping[str, str] = {"en": "en", "zh": "zh_Hans_CN", "zh-hant": "zh_Hant_TW"}
NAMES: Mapping[str, str] = {"en": "English", "zh": "简体", "zh-hant": "繁體"}
_TRADITIONAL = ("zh-hant", "zh-tw", "zh-hk", "zh-mo")


def language() -> str:
    """Return the code of the reader's language."""
    chosen = session.get("language")
    if chosen in LANGUAGES:
        return str(chosen)
    for value, _ in request.accept_languages:
        code = value.lower()
        if code.startswith(_TRADITIONAL):
            return "zh-hant"
        if (code := code.partition("-")[0]) in LANGUAGES:
            return code
    return "en"


def choose_by_address() -> None:
    """Keep the language that the address of a request names."""
    wanted = request.args.get("lang")
    if wanted in LANGUAGES:
        session["language"] = wanted


def here() -> str:
    """Return the address of the page, without the language that it may name, to come back to in another one."""
    asked = [(name, value) for name, value in request.args.items(multi=True) if name != "lang"]
    return f"{request.path}?{urlencode(asked)}" if asked else request.path


def select_locale() -> str:
    """Return the locale for Flask-Babel."""
    return LANGUAGES[language()]


def current_locale() -> Locale:
    """Return the locale in force."""
    return flask_babel.get_locale() or Locale.parse("en")


def html_lang() -> str:
    """Return the value of the pages' ``lang`` attribute."""
    return LANGUAGES[language()].replace("_", "-")


def gettext(text: str, **facts: object) -> str:
    """Return a text in the reader's language, with the facts filled in."""
    return str(flask_babel.gettext(text, **facts))


def ngettext(one: str, many: str, number: int, **facts: object) -> str:
    """Return the text that goes with a number, in the reader's language."""
    return str(flask_babel.ngettext(one, many, number, **facts))
