"""The application that servers load: ``granian --interface wsgi wsgi:app``."""

from threading import Thread

from experiments.settings import Settings
from web import assets, create_app

settings = Settings.from_env()
app = create_app(settings)
# Made once in a store's life, in two seconds: better now than while somebody waits for the first page with charts.
Thread(target=assets.bundle, args=(settings.folder,), daemon=True).start()
