"""The application that servers load: ``granian --interface wsgi wsgi:app``."""

from experiments.settings import Settings
from web import create_app

app = create_app(Settings.from_env())
