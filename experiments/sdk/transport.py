"""How requests reach the server: over HTTP, or straight into a WSGI application."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

__all__ = ["HTTPTransport", "Request", "Response", "Stream", "Transport", "WSGITransport"]

_MOST_BYTES: Final = 128 * 1024 * 1024
_LONGEST_LINE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `path` is below the server's address and starts with a slash."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(Protocol):
    """An answer that is read line by line, in one thread. Any thread may close it; reading then ends soon."""

    status: int
    headers: Mapping[str, str]

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Transport(Protocol):
    """What a client needs of the network. Both may raise anything when it fails."""

    def send(self, request: Request, timeout: float) -> Response:
        """Return the answer, whatever its status, within `timeout` seconds."""

    def stream(self, request: Request, timeout: float) -> Stream:
        """Open a stream that fails when it is silent for `timeout` seconds."""


class HTTPTransport:
    """HTTP or HTTPS, with one connection kept for each thread. Redirects are not followed: the key goes to `url` alone.

    Args:
        url: address of the server; may end in a path.
        context: for TLS; by default certificates are checked against those of the system.

    Raises:
        ValueError: the address is not one.
    """

    def __init__(self, url: str, *, context: ssl.SSLContext | None = None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except (ValueError, AttributeError, TypeError):
            host = None
        if (
            not host
            or parts.scheme not in ("http", "https")
            or not (parts.path.isascii() and parts.path.isprintable())
            or parts.query
            or parts.fragment
            or parts.username
            or " " in url
        ):
            raise ValueError(f"url = {url!r}: give an address such as https://upturn.example.com")
        self._host, self._port = host, port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/")
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._of_thread = _OfThread()

    def send(self, request: Request, timeout: float) -> Response:
        deadline = monotonic() + timeout
        kept, self._of_thread.kept.connection = self._of_thread.kept.connection, None
        if kept is not None:
            # The server may have closed it meanwhile; requests are safe to repeat.
            with suppress(ConnectionError):
                return self._exchange(kept, request, deadline)
        left = max(deadline - monotonic(), 0.001)
        return self._exchange(self._connection(left), request, deadline)

    def stream(self, request: Request, timeout: float) -> Stream:
        connection = self._connection(timeout)
        try:
            connection.request(request.method, self._prefix + request.path, headers=dict(request.headers))
            sock = connection.sock
            response = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        return _HTTPStream(sock, response)

    def _connection(self, timeout: float) -> HTTPConnection:
        if self._context is not None:
            return HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)
        return HTTPConnection(self._host, self._port, timeout=timeout)

    def _exchange(self, connection: HTTPConnection, request: Request, deadline: float) -> Response:
        done = False
        try:
            if connection.sock is not None:
                connection.sock.settimeout(max(deadline - monotonic(), 0.001))
            connection.response_class = cast(
                type[HTTPResponse], lambda sock, **options: HTTPResponse(cast(Any, _Watched(sock, deadline)), **options)
            )
            body = request.body or None
            connection.request(request.method, self._prefix + request.path, body, dict(request.headers))
            response = connection.getresponse()
            content = response.read(_MOST_BYTES)
            if len(content) == _MOST_BYTES or response.length:
                raise HTTPException("the answer is too long, or was cut off")
            done = response.isclosed() and not response.will_close
            return Response(response.status, _lower(response.getheaders()), content)
        finally:
            if done:
                self._of_thread.kept.connection = connection
            else:
                connection.close()


class _Kept:
    """A connection that is closed when its thread ends, instead of left to the collector, which would warn."""

    connection: HTTPConnection | None = None

    def __del__(self) -> None:
        if self.connection is not None:
            self.connection.close()


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.kept = _Kept()


class _Watched:
    """A socket as `HTTPResponse` uses it, to be read up to a deadline.

    A socket's own timeout is for each read, so that an answer that trickles would never end.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_WatchedReader(self._sock, self._deadline))


class _WatchedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _HTTPStream:
    def __init__(self, sock: socket.socket, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _lower(response.getheaders())
        self._sock = sock
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        with self._response:
            while line := self._response.readline(_LONGEST_LINE):
                yield line

    def close(self) -> None:
        # Wakes a thread that waits in a read, which closing would not.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._sock.close()


class WSGITransport:
    """Calls a WSGI application in this process: an app's tests need no server and no socket."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def send(self, request: Request, timeout: float) -> Response:
        answer = _WSGIAnswer(self._app, request)
        return Response(answer.status, answer.headers, b"".join(answer.chunks()))

    def stream(self, request: Request, timeout: float) -> Stream:
        return _WSGIAnswer(self._app, request)


class _WSGIAnswer:
    def __init__(self, app: Callable[..., Iterable[bytes]], request: Request) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._written: list[bytes] = []
        self._closed = False
        self._parts = app(_environ(request), self._start)
        self._iterator = iter(self._parts)
        # An application may first say its status when its body is asked for.
        while not self.status:
            part = next(self._iterator, None)
            if part is None:
                break
            self._written.append(part)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], None]:
        self.status, self.headers = int(status.split(" ", 1)[0]), _lower(headers)
        return self._written.append

    def chunks(self) -> Iterator[bytes]:
        try:
            yield from self._written
            for part in self._iterator:
                if self._closed:
                    return
                yield part
        finally:
            getattr(self._parts, "close", lambda: None)()

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        for chunk in self.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"

    def close(self) -> None:
        self._closed = True


def _environ(request: Request) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()}
    return headers | {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.pop("HTTP_CONTENT_TYPE", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def _lower(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}
