"""A web site on the loopback: files of a folder, with the modules that its pages import."""

import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class Website:
    """Serves ``folder`` while it is entered; ``url`` is its origin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def write(self, name: str, page: str) -> str:
        """Put a page on the site, and return its address."""
        (self.folder / name).write_text(page, encoding="utf-8")
        return f"{self.url}/{name}"


def as_for_a_page(clients: Path, folder: Path) -> None:
    """Lay out ``node_modules`` as npm does for a page, which has no provider for servers beside it."""
    packages = clients / "node_modules" / "@openfeature"
    own = packages / "ofrep-web-provider" / "node_modules" / "@openfeature"
    target = folder / "node_modules" / "@openfeature"
    for name in ("core", "web-sdk", "ofrep-web-provider", "ofrep-core"):
        nested = own / name
        shutil.copytree(nested if nested.exists() else packages / name, target / name, dirs_exist_ok=True)
