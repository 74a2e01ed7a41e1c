"""An application on a store of its own, with keys, an account, and a clock that the test moves."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from experiments import access
from experiments.access import Scope
from experiments.settings import Settings
from experiments.store import Store
from tests.web import made
from web import create_app


@dataclass
class Clock:
    now: datetime = made.NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **parts: float) -> None:
        self.now += timedelta(**parts)


@dataclass(frozen=True)
class Api:
    """The API as one key sees it."""

    client: FlaskClient
    secret: str

    def __call__(self, method: str, path: str, **arguments: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.secret}"} | arguments.pop("headers", {})
        return self.client.open(path, method=method, headers=headers, **arguments)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Scope, str]]:
    """The folder of a migrated store with a key for each scope and one account."""
    folder = tmp_path_factory.mktemp("store")
    store = Store.open(Settings.in_folder(folder, timezone="Asia/Shanghai"), migrate=True)
    with store.write() as session:
        keys = {scope: access.create_key(session, f"{scope} key", [scope], now=made.NOW) for scope in Scope}
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
    store.close()
    return folder, keys


@pytest.fixture
def keys(template: tuple[Path, dict[Scope, str]]) -> dict[Scope, str]:
    return template[1]


@pytest.fixture
def store(template: tuple[Path, dict[Scope, str]], tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(template[0], tmp_path / "store")
    store = Store.open(Settings.in_folder(tmp_path / "store", timezone="Asia/Shanghai"))
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(store: Store, clock: Clock) -> Flask:
    return create_app(store=store, clock=clock)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def api(client: FlaskClient, keys: dict[Scope, str]) -> Api:
    """The API with the admin key."""
    return Api(client, keys[Scope.admin])
