"""The servers that ours is measured against, with `upturn serve`'s own settings: `python -m tests.bench.plain APP …`.

APP is `flask`, a Flask route that does nothing, or `constant`, a WSGI callable without any framework; the rest are
arguments of `upturn`.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import granian
from flask import Flask

flask = Flask("plain")
BODY = b'{"status":"ok"}'


@flask.post("/noop")
def noop() -> dict[str, str]:
    return {"status": "ok"}


def constant(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]


if __name__ == "__main__":
    from experiments import cli

    served = f"tests.bench.plain:{sys.argv.pop(1)}"
    original = granian.Granian
    granian.Granian = lambda _, **options: original(served, **options)  # type: ignore[assignment, misc]
    cli.main()
