"""The web application: the API under ``/v1`` and the pages, made by ``create_app``."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from flask import Flask, Response, current_app, request
from flask_babel import Babel
from flask_wtf import CSRFProtect
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from experiments.settings import Settings
from experiments.store import Store
from web import api, assets, languages, pages, problems, security
from web.api import openapi
from web.api.operations import json_answer
from web.payload import MAX_BODY, MAX_INFLATED
from web.state import State, attach, state
from web.streams import Streams
from web.thin import Thin


def _now() -> datetime:
    return datetime.now(UTC)


def create_app(
    settings: Settings | None = None, *, store: Store | None = None, clock: Callable[[], datetime] = _now
) -> Flask:
    """Make the application.

    Args:
        settings: of the store to open; read from the environment when neither they nor a store are given.
        store: an open store, instead of settings.
        clock: returns the present, aware.

    Raises:
        Conflict: ``schema_outdated``: the store's schema is not the newest.
    """
    store = store or Store.open(settings or Settings.from_env())
    if store.settings.oidc is not None:
        store.settings.oidc.require_library()
    app = Flask(__name__)
    # "//" in an address would be answered by a redirect in HTML, also under /v1.
    app.url_map.merge_slashes = False
    app.config.update(
        SECRET_KEY=store.secret(),
        MAX_CONTENT_LENGTH=MAX_BODY,
        MAX_INFLATED=MAX_INFLATED,
        BABEL_DEFAULT_TIMEZONE=store.settings.timezone,
    )
    attach(app, State(store, clock, Streams(store.lookup.version, store.settings.streams)))
    security.protect(app)
    Babel(app, locale_selector=languages.select_locale)
    csrf = CSRFProtect(app)

    operations = api.operations()
    csrf.exempt(operations.blueprint)
    app.register_blueprint(operations.blueprint)
    app.register_blueprint(assets.blueprint)
    pages.register(app)
    app.add_url_rule("/healthz", "health", _health)
    document = cache(lambda: openapi.document(operations.listed))
    app.add_url_rule("/openapi.json", "openapi", lambda: json_answer(document()))
    app.register_error_handler(Exception, _failed)
    app.wsgi_app = Thin(app, operations.routes)  # type: ignore[method-assign]
    return app


def _health() -> Response:
    try:
        with state().store.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return problems.answer(503, "store_unavailable", "the store cannot be read").response()
    return json_answer({"status": "ok"})


def _failed(error: Exception) -> Any:
    path = request.path
    program = path.startswith(("/v1/", "/ofrep/", "/api/", "/sub/")) or path in ("/v1", "/openapi.json", "/healthz")
    answer = problems.from_error(error).response() if program else pages.failure(error)
    if answer.status_code >= 500:
        current_app.logger.error("failed: %s %s", request.method, path, exc_info=error)
    return answer
