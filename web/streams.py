"""Server-sent events: telling clients that there is something new. Bounded, as each stream holds a thread."""

import json
from collections.abc import Callable, Iterator
from threading import Condition, Thread
from time import monotonic

KEEP_ALIVE = 15.0
LIFETIME = 600.0
LOOK_EVERY = 1.0


class Streams:
    """The open streams of a process. One thread asks for the version while there are any, and wakes them all."""

    def __init__(self, version: Callable[[], int], most: int) -> None:
        """``version`` grows with every change; at most ``most`` streams are open at once."""
        self._read_version = version
        self._most = most
        self._open = 0
        self._version = 0
        self._changed = Condition()
        self._watching = False

    @property
    def offered(self) -> bool:
        """Whether clients are told that there are streams."""
        return self._most > 0

    def open(self, message: Callable[[int], bytes], seen: int | None = None) -> Iterator[bytes] | None:
        """Return a stream of one message for each new version, None when too many are open.

        Args:
            message: is given the version and returns the event.
            seen: the version that the client has; a newer one is told at once.
        """
        version = self._read_version()
        with self._changed:
            if self._open >= self._most:
                return None
            self._open += 1
            if version != self._version:
                self._version = version
                self._changed.notify_all()
            if not self._watching:
                self._watching = True
                Thread(target=self._watch, name="upturn-streams", daemon=True).start()
        return _Stream(self, message, version if seen is None else seen)

    def wait(self, known: int, seconds: float) -> int:
        """Return the newest version, as soon as it is another than ``known``."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != known, seconds)
            return self._version

    def left(self) -> None:
        """One stream less."""
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._open == 0, LOOK_EVERY)
                if self._open == 0:
                    self._watching = False
                    return
            try:
                version = self._read_version()
            except Exception:  # noqa: BLE001, S112  # the record is away for a moment: streams stay, and hear later
                continue
            with self._changed:
                if version != self._version:
                    self._version = version
                    self._changed.notify_all()


class _Stream(Iterator[bytes]):
    """One client's stream; a server closes it when the client has gone."""

    def __init__(self, streams: Streams, message: Callable[[int], bytes], version: int) -> None:
        self._streams = streams
        self._message = message
        self._known = version
        self._ends = monotonic() + LIFETIME
        self._begun = self._closed = False

    def __next__(self) -> bytes:
        if not self._begun:
            self._begun = True
            # Headers leave with the first bytes: the client knows at once that the stream stands.
            return b"retry: 5000\nid: %d\n\n" % self._known
        if self._closed or monotonic() > self._ends:
            self.close()
            raise StopIteration
        version = self._streams.wait(self._known, KEEP_ALIVE)
        if version == self._known:
            return b": still here\n\n"
        self._known = version
        return b"id: %d\n%b" % (version, self._message(version))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._streams.left()

    __del__ = close


def event(data: object) -> bytes:
    """Return one server-sent event with JSON data."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
