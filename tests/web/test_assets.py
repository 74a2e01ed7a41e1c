"""The chart library is made once, kept, and served as a file that never changes."""

import gzip
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from experiments.store import Store
from web import assets


@pytest.fixture
def kept(store: Store) -> Path:
    return store.settings.folder / "cache" / f"{assets.NAME}.gz"


def test_the_library_is_bundled_once_and_kept_in_the_store(
    client: FlaskClient, kept: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert b"vegaEmbed" in client.get(f"/assets/{assets.NAME}").data
    assert gzip.decompress(kept.read_bytes()) == client.get(f"/assets/{assets.NAME}").data
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]

    monkeypatch.setattr(assets, "_made", {})  # another process
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_: pytest.fail("made again"))
    assert assets.bundle(store.settings.folder).plain == gzip.decompress(kept.read_bytes())


def test_a_broken_file_is_made_again(kept: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.parent.mkdir()
    kept.write_bytes(b"\x1f\x8bnot gzip")
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_: "window.vegaEmbed = 1;")
    assert assets.bundle(store.settings.folder).plain == b"window.vegaEmbed = 1;"
    assert gzip.decompress(kept.read_bytes()) == b"window.vegaEmbed = 1;"


def test_it_is_compressed_where_wished_and_cached_for_ever(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda *_: "window.vegaEmbed = 1;")
    plain = client.get(f"/assets/{assets.NAME}")
    packed = client.get(f"/assets/{assets.NAME}", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert plain.headers["ETag"] != packed.headers["ETag"]
    for answer in (plain, packed):
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.mimetype == "text/javascript"
        same = {"If-None-Match": answer.headers["ETag"], "Accept-Encoding": "gzip" if answer is packed else ""}
        assert client.get(f"/assets/{assets.NAME}", headers=same).status_code == 304
