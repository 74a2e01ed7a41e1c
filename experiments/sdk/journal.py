"""What a client counts and tells: counters, and one line in the log for each kind of trouble, never a payload."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from .errors import DocumentError

__all__ = ["Journal", "described"]

_LOGGER = logging.getLogger("upturn")


class Journal:
    """Counters in groups, and the kinds of trouble that were logged. Safe with threads; never raises."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Start anew: the parent process keeps what it counted, and its locks."""
        self._lock = threading.RLock()  # a signal handler of the app may come in while it is held
        self._counts: dict[str, dict[str, int]] = {}
        self._told: set[str] = set()

    def count(self, group: str, name: str, times: int = 1) -> None:
        with self._lock:
            counts = self._counts.setdefault(group, {})
            counts[name] = counts.get(name, 0) + times

    def counts(self, group: str) -> dict[str, int]:
        with self._lock:
            return dict(self._counts.get(group, {}))

    def warn(self, kind: str, message: str) -> None:
        """Log a warning unless this kind was logged before."""
        with self._lock:
            known = kind in self._told
            self._told.add(kind)
        if not known:
            with suppress(Exception):  # a handler of the app may raise
                _LOGGER.warning("%s (said once; see stats())", message)

    def settle(self, kind: str, message: str) -> None:
        """Log that a trouble is over, if it was logged; the next one is logged again."""
        with self._lock:
            known = kind in self._told
            self._told.discard(kind)
        if known:
            with suppress(Exception):
                _LOGGER.info("%s", message)


def described(error: BaseException) -> str:
    """Return what happened without what it happened to: messages of exceptions may quote payloads or the key."""
    if isinstance(error, DocumentError):
        return f"{error.path}: {error.remedy}"
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__
