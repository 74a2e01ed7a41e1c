"""The chart library as a file of this server: bundled from the installed package, once, with no network."""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from uuid import uuid4

import vl_convert
from flask import Blueprint, Response, request

from web.state import state

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
VERSION = version("vl-convert-python")
NAME = f"vega-{VERSION}.js"

blueprint = Blueprint("assets", __name__)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The library, plain and compressed, and a digest of it."""

    plain: bytes
    compressed: bytes
    digest: str


_made: dict[Path, Bundle] = {}
_lock = Lock()


def bundle(folder: Path) -> Bundle:
    """Return the library; it is kept in ``folder``, so that only the very first process makes it (1.5 s)."""
    path = folder / "cache" / f"{NAME}.gz"
    with _lock:
        if path not in _made:
            _made[path] = _load(path)
        return _made[path]


def _load(path: Path) -> Bundle:
    try:
        compressed = path.read_bytes()
        plain = gzip.decompress(compressed)
    except (OSError, EOFError):
        plain = vl_convert.javascript_bundle(_SNIPPET).encode()
        compressed = gzip.compress(plain, mtime=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{uuid4().hex}")
        draft.write_bytes(compressed)
        draft.replace(path)
    return Bundle(plain, compressed, hashlib.sha256(plain).hexdigest()[:16])


@blueprint.get(f"/assets/{NAME}")
def vega() -> Response:
    """Serve the library."""
    made = bundle(state().store.settings.folder)
    packed = request.accept_encodings["gzip"] > 0
    response = Response(made.compressed if packed else made.plain, mimetype="text/javascript")
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    response.set_etag(f"{made.digest}{'-gzip' if packed else ''}")
    response.make_conditional(request)
    return response
