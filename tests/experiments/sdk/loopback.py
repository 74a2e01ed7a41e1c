"""A server on the loopback that behaves well or badly, as a test tells it, and what the tests of the client share."""

import gzip
import json
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from experiments.sdk import Client, Options

KEY = "upk_loopback"
EXPERIMENT = {
    "key": "coupon",
    "revision": 3,
    "status": "running",
    "phase": 2,
    "salt": "coupon:10",
    "control": "none",
    "variants": [{"key": "none"}, {"key": "ten", "tactic": {"copy": "满100减10", "offer": {"coupon": 10}}}],
}
SNAPSHOT = {"experiments": [EXPERIMENT, EXPERIMENT | {"key": "draft", "status": "draft"}]}
QUICK = Options(
    poll_seconds=0.05,
    flush_seconds=0.05,
    retry_seconds=0.02,
    retry_most_seconds=0.1,
    refused_seconds=0.1,
    timeout_seconds=0.5,
)

Answer = tuple[int, dict[str, str], bytes]


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something that happens in the background."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def problem(status: int, code: str, **headers: str) -> Answer:
    return status, headers, json.dumps({"status": status, "code": code}).encode()


class Loopback:
    """`events` and `snapshots` hold answers given instead of the good one; None in them hangs, "drop" hangs up."""

    def __init__(self) -> None:
        self.snapshot: dict[str, Any] = dict(SNAPSHOT)
        self.revision = 1
        self.offers_stream = False
        self.stream_is_busy = False
        self.events: deque[Answer | str | None] = deque()
        self.snapshots: deque[Answer | str | None] = deque()
        self.all_events: Callable[[list[dict[str, Any]]], Answer | str | None] | None = None
        self.all_snapshots: Answer | str | None = None
        self.broken = False  # everything hangs up, what is under way as well
        self.items: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.asked: list[tuple[str, dict[str, str], float]] = []
        self.streams: list[Any] = []
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, options: Options = QUICK, **arguments: Any) -> Client:
        return Client(self.url, KEY, options=options, **arguments)

    def start(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer._connections.add(self.connection)

            def finish(self) -> None:
                outer._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer._note(self)
                if self.path == "/v1/stream":
                    outer._stream(self)
                else:
                    outer._answer(self, outer._snapshot_answer(self.headers.get("If-None-Match")))

            def do_POST(self) -> None:
                outer._note(self)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer._answer(self, outer._events_answer(json.loads(gzip.decompress(body))))

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # connections that the test cut

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._released.set()

    def ids(self) -> Counter[str]:
        """How often each message came in."""
        return Counter(item["messageId"] for item in list(self.items))

    def users(self) -> set[str]:
        return {item["userId"] for item in list(self.items)}

    def announce(self, text: str) -> None:
        """Send a line to every open stream."""
        for stream in list(self.streams):
            with suppress(OSError):
                stream.write(text.encode())
                stream.flush()

    def _note(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.asked.append((handler.path, headers, time.monotonic()))

    def _answer(self, handler: BaseHTTPRequestHandler, answer: Answer | str | None) -> None:
        if answer is None:
            self._released.wait(60)
            answer = "drop"
        if answer == "trickle":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self._released.wait(0.05):
                handler.wfile.write(b"X-Slow: yes\r\n")
            answer = "drop"
        if isinstance(answer, str):
            handler.close_connection = True
            return
        status, headers, body = answer
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _snapshot_answer(self, known: str | None) -> Answer | str | None:
        if self.snapshots:
            return self.snapshots.popleft()
        if self.all_snapshots is not None:
            return self.all_snapshots if self.all_snapshots != "hang" else None
        headers = {"ETag": f'"{self.revision}"', "Content-Type": "application/json"}
        if self.offers_stream:
            headers["Link"] = '</v1/stream>; rel="monitor"'
        if known == headers["ETag"]:
            return 304, headers, b""
        return 200, headers, json.dumps(self.snapshot).encode()

    def _events_answer(self, body: dict[str, Any]) -> Answer | str | None:
        batch = body["batch"]
        with self._lock:
            self.sizes.append(len(batch))
            if self.events:
                return self.events.popleft()
            if self.all_events is not None and (answer := self.all_events(batch)) != "store":
                return answer if answer != "hang" else None
            known = self.ids()
            fresh = sum(item["messageId"] not in known for item in batch)
            self.items.extend(batch)
        receipt = {"accepted": fresh, "duplicates": len(batch) - fresh, "rejected": []}
        return 202, {"Content-Type": "application/json"}, json.dumps(receipt).encode()

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        if self.stream_is_busy:
            handler.send_response(503)
            handler.send_header("Retry-After", "60")
            handler.end_headers()
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b": hello\n\n")
        handler.wfile.flush()
        self.streams.append(handler.wfile)
        self._released.wait(60)
