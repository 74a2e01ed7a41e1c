"""How the reader of a page wants numbers, money and times."""

from web import languages
from web.formats import Formats
from web.state import state


def formats() -> Formats:
    """Return how texts are written for the reader of the present page."""
    held = state()
    return Formats(languages.current_locale(), held.store.settings.currency, held.zone)
