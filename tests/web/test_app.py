"""Making the application: from the environment, and never on a store that is not up to date."""

import runpy
from pathlib import Path

import pytest

from experiments.errors import Conflict
from experiments.settings import Settings
from experiments.store import Store
from web import create_app


def test_the_servers_entry_reads_the_environment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in store.settings.to_env().items():
        monkeypatch.setenv(name, value)
    app = runpy.run_path(str(Path(__file__).parents[2] / "wsgi.py"))["app"]
    answer = app.test_client().get("/healthz")
    assert answer.json == {"status": "ok"}
    app.extensions["upturn"].store.close()


def test_an_old_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="upturn migrate") as caught:
        create_app(Settings.in_folder(tmp_path))
    assert caught.value.code == "schema_outdated"


def test_sessions_outlive_a_restart(store: Store) -> None:
    first, second = create_app(store=store), create_app(store=store)
    assert first.secret_key == second.secret_key
    assert len(str(first.secret_key)) >= 64
