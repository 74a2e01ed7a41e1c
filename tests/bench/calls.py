"""A call of the WSGI application in this process, without HTTP: CPU time, which a busy machine disturbs least."""

import cProfile
import io
import pstats
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from experiments.settings import Settings
from tests.bench import serving
from tests.bench.plain import flask
from web import create_app

CALLS, ROUNDS = 4_000, 7
FLAGS = "/ofrep/v1/evaluate/flags"
PATHS = {"single": f"{FLAGS}/flag-0", "bulk of 10": FLAGS, "no-op Flask": "/noop"}


def environ(path: str, key: str, user: int) -> dict[str, Any]:
    body = b'{"context":{"targetingKey":"user-%d"}}' % user
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_AUTHORIZATION": f"Bearer {key}",
        "HTTP_HOST": "127.0.0.1:8000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
    }


def refuse_failures(status: str, _headers: list[tuple[str, str]], _info: object = None) -> None:
    if status != "200 OK":
        raise SystemExit(f"a call was answered with {status}")


def microseconds_each(app: Callable[..., Any], path: str, key: str, first: int) -> float:
    environs = [environ(path, key, user) for user in range(first, first + CALLS)]
    start = process_time()
    for each in environs:
        b"".join(app(each, refuse_failures))
    return (process_time() - start) / CALLS * 1e6


def measure(*, profile: bool = False) -> dict[str, float]:
    """Return microseconds of CPU a call; ``profile`` prints where those of a single evaluation go."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.in_folder(Path(folder))
        key = serving.make_store(settings, 10)
        app = create_app(settings)
        times: dict[str, list[float]] = {name: [] for name in PATHS}
        for lap in range(ROUNDS):
            for i, (name, path) in enumerate(PATHS.items()):
                first = (lap * len(PATHS) + i) * CALLS  # users nobody has asked about yet
                times[name].append(microseconds_each(flask if name == "no-op Flask" else app, path, key, first))
        if profile:
            environs = [environ(PATHS["single"], key, user) for user in range(CALLS)]
            with cProfile.Profile() as profiled:
                for each in environs:
                    app(each, refuse_failures)
            pstats.Stats(profiled).sort_stats("tottime").print_stats(25)
        app.extensions["upturn"].store.close()
    figures = {f"{name}, µs of CPU": statistics.median(laps) for name, laps in times.items()}
    ratios = [a / b for a, b in zip(times["no-op Flask"], times["single"], strict=True)]
    return figures | {"no-op Flask / single, CPU": statistics.median(ratios)}
