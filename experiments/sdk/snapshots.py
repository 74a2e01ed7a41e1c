"""The newest snapshot, compiled: kept fresh by background threads, and kept for ever when the server is away."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Final, Literal

from .assignment import Evaluator
from .errors import DocumentError
from .journal import Journal, described
from .options import Options
from .retries import Backoff, retry_after
from .transport import Request, Stream, Transport

__all__ = ["Snapshots", "Source"]

Source = Literal["server", "stale", "bootstrap", "none"]

_PATH: Final = "/v1/snapshot"
_STREAM_PATH: Final = "/v1/stream"
_OFFERS_STREAM: Final = re.compile(r'<[^>]*/v1/stream>[^,]*;\s*rel="?monitor\b')
_SILENCE_SECONDS: Final = 60.0  # keep-alives come more often than this
_SPREAD_SECONDS: Final = 0.25  # over which clients come after a change
_LONGEST_EVENT: Final = 1024 * 1024


class Snapshots:
    """Holds the newest `Evaluator`. Only `wait` waits; nothing but the compiled answer is read on the app's path.

    Attributes:
        evaluator: the newest one, None before there is any.
    """

    def __init__(self, transport: Transport, key: str, options: Options, journal: Journal) -> None:
        self.evaluator: Evaluator | None = None
        self._document: object = None
        self._transport = transport
        self._key = key
        self._options = options
        self._journal = journal
        self._random = random.Random()  # noqa: S311  # jitter, not a secret
        self._etag: str | None = None
        self._origin: Source = "none"
        self._misses = 0
        self._fetched_at: float | None = None
        self._stopped = False
        self._listeners: list[Callable[[Source], object]] = []
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's threads and locks, keep its snapshot."""
        self._changed = threading.Condition()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._stream_thread: threading.Thread | None = None
        self._stream_offered = False
        self._stream: Stream | None = None

    @property
    def source(self) -> Source:
        if self._origin == "server" and self._misses >= self._options.stale_after:
            return "stale"
        return self._origin

    @property
    def age(self) -> float | None:
        """Seconds since the server last said what is in force."""
        return None if self._fetched_at is None else monotonic() - self._fetched_at

    def bootstrap(self, written: object) -> None:
        """Take a snapshot from a mapping or a file, until the server gives one; a bad one is logged."""
        try:
            text = json.dumps(dict(written)) if isinstance(written, Mapping) else Path(str(written)).read_text("utf-8")
            self._take(json.loads(text), "bootstrap")
        except Exception as error:  # noqa: BLE001  # the app starts without it
            self._journal.count("errors", "bootstrap")
            self._journal.warn("bootstrap", f"the bootstrap snapshot cannot be used: {described(error)}")

    def document(self) -> object:
        """Return the newest snapshot as decoded JSON, None before there is any."""
        return self._document

    def subscribe(self, listener: Callable[[Source], object]) -> None:
        """Call `listener` from the background when there is a new snapshot, or another source of it."""
        self._listeners.append(listener)

    def start(self) -> bool:
        """Start refreshing in the background, once; return whether nothing is left to be started."""
        with self._changed:
            if self._thread is None and not self._stopped:
                self._thread = _daemon(self._refresh_for_ever, "refresh")
            return self._thread is not None or self._stopped

    def wait(self, timeout: float) -> bool:
        """Wait for the server's snapshot; return whether there is one from anywhere."""
        with self._changed:
            self._changed.wait_for(lambda: self._origin == "server" or self._stopped, timeout)
        return self.evaluator is not None

    def stop(self) -> None:
        """End the background work; the snapshot stays."""
        self._stopped = True
        with self._changed:
            self._changed.notify_all()
            stream = self._stream
        if stream is not None:
            stream.close()

    # Refreshing.

    def _refresh_for_ever(self) -> None:
        backoff = Backoff(self._options.retry_seconds, max(self._options.retry_most_seconds, 1.0))
        while not self._stopped:
            self._woken = False
            before = self.source
            pause, healthy, changed = self._refresh(backoff)
            if changed or self.source != before:
                self._tell()
            # While the server fails, what it asked for counts more than news of a change.
            if not healthy:
                self._pause(pause)
            elif self._pause(pause, or_woken=True):
                self._pause(self._random.uniform(0, _SPREAD_SECONDS))

    def _refresh(self, backoff: Backoff) -> tuple[float, bool, bool]:
        """Ask once; return the seconds until the next time, whether all was well, and whether something changed."""
        headers = _authorised(self._key, "application/json")
        if self._etag is not None:
            headers["If-None-Match"] = self._etag
        asked = 0.0
        try:
            response = self._transport.send(Request("GET", _PATH, headers), self._options.timeout_seconds)
            asked = retry_after(response.headers)
            if response.status == 200:
                self._take(json.loads(response.body), "server")
                self._etag = response.headers.get("etag")
                self._journal.count("refresh", "changed")
            elif response.status == 304 and self._etag is not None:
                self._journal.count("refresh", "unchanged")
            else:
                return self._missed(f"status {response.status}", backoff, asked, response.status)
        except Exception as error:  # noqa: BLE001  # a transport or a document may fail in any way: the last good one stays
            return self._missed(described(error), backoff, asked, 0)
        backoff.reset()
        self._misses = 0
        self._fetched_at = monotonic()
        self._journal.settle("refresh", "the snapshot is fresh again")
        self._stream_offered = self._options.streaming and bool(_OFFERS_STREAM.search(response.headers.get("link", "")))
        if self._stream_offered and self._stream_thread is None:
            self._stream_thread = _daemon(self._listen_for_ever, "stream")
        poll = self._options.poll_seconds * self._random.uniform(0.9, 1.1)
        return poll, True, response.status == 200

    def _missed(self, why: str, backoff: Backoff, asked: float, status: int) -> tuple[float, bool, bool]:
        self._misses += 1
        self._journal.count("refresh", "failed")
        kept = "the last snapshot stays" if self.evaluator is not None else "defaults are given"
        self._journal.warn("refresh", f"the snapshot could not be refreshed ({why}): {kept}")
        refused = 300 <= status < 500 and status not in (408, 429)
        return backoff.next(max(asked, self._options.refused_seconds if refused else 0.0)), False, False

    def _take(self, document: object, origin: Source) -> None:
        # An evaluator is content with any object, but the answer of some other service is no snapshot.
        if not isinstance(document, dict) or not isinstance(document.get("experiments"), list):
            raise DocumentError("snapshot", None, "give an object with the array experiments")
        evaluator = Evaluator(document)
        with self._changed:
            self.evaluator, self._document, self._origin = evaluator, document, origin
            self._changed.notify_all()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(self.source)
            except Exception as error:  # noqa: BLE001  # it is the app's
                self._journal.count("errors", "listener")
                self._journal.warn("listener", f"a listener failed: {described(error)}")

    # The stream of changes.

    def _listen_for_ever(self) -> None:
        backoff = Backoff(self._options.retry_seconds, self._options.retry_most_seconds)
        request = Request("GET", _STREAM_PATH, _authorised(self._key, "text/event-stream"))
        while self._stream_offered and not self._stopped:
            asked, opened = 0.0, monotonic()
            try:
                with closing(self._transport.stream(request, _SILENCE_SECONDS)) as stream:
                    asked = retry_after(stream.headers)
                    if stream.status == 200 and "text/event-stream" in stream.headers.get("content-type", ""):
                        with self._changed:
                            self._stream = stream
                        self._listen(stream, backoff)
                    else:
                        self._journal.count("stream", "failed")
            except Exception:  # noqa: BLE001  # polling goes on meanwhile
                self._journal.count("stream", "failed")
            finally:
                self._stream = None
            if monotonic() - opened > _SILENCE_SECONDS:
                backoff.reset()  # servers end streams after a while
            self._pause(backoff.next(asked))
        self._stream_thread = None

    def _listen(self, stream: Stream, backoff: Backoff) -> None:
        if self._stopped:
            return
        self._journal.count("stream", "opened")
        self._wake()  # for what changed before it was open
        for data in _events(stream):
            if self._stopped:
                return
            backoff.reset()
            message = json.loads(data)
            if isinstance(message, dict) and message.get("type") == "refetchEvaluation":
                self._journal.count("stream", "changes")
                self._wake()

    def _pause(self, seconds: float, *, or_woken: bool = False) -> bool:
        """Wait, but not for longer than the client lives; return whether it was woken."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or (or_woken and self._woken), seconds)
            return self._woken

    def _wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify_all()


def _events(lines: Stream) -> Iterator[str]:
    """Yield the data of each server-sent event."""
    data: list[str] = []
    size = 0
    for raw in lines:
        line = raw.decode("utf-8").rstrip("\r\n")
        size += len(line)
        if size > _LONGEST_EVENT:
            raise ValueError("an event without an end")
        if not line:
            if data:
                yield "\n".join(data)
            data, size = [], 0
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith(":"):
            size = 0


def _authorised(key: str, accept: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "Accept": accept}


def _daemon(target: Callable[[], None], name: str) -> threading.Thread | None:
    thread = threading.Thread(target=target, name=f"upturn-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending, or there are too many threads
        return None
    return thread
