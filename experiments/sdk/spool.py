"""Items on disk until the server has them, so that a killed process loses none.

A segment is a file of lines, locked (flock) by the process that writes it. Whoever gets the lock of a segment knows
that its process is gone, and sends what it holds with the ids it has: the server stores each once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from time import monotonic

from .journal import Journal, described
from .options import Options

__all__ = ["Segment", "Spool"]

_RETRY_SECONDS = 1.0  # after the disk failed


class Segment:
    """A file of items of which `remaining` are not delivered."""

    __slots__ = ("fd", "path", "remaining", "size")

    def __init__(self, path: Path, fd: int, size: int = 0, remaining: int = 0) -> None:
        self.path = path
        self.fd = fd
        self.size = size
        self.remaining = remaining


class Spool:
    """The segments of one process in a folder. The outbox calls it under its lock; errors of the disk are counted.

    Raises:
        ValueError: the folder cannot be made.
    """

    def __init__(self, folder: Path, url: str, options: Options, journal: Journal) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"spool = {str(folder)!r}: give a folder that can be written ({error.strerror})") from None
        self._folder = folder
        # Items for one server never go to another. Keys may change.
        self._prefix = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:12]
        self._options = options
        self._journal = journal
        self._current: Segment | None = None
        self._held: dict[Path, Segment] = {}
        self._not_before = 0.0

    def append(self, item: bytes) -> Segment | None:
        """Write an item before it is queued; return its segment, None where the disk did not take it."""
        segment = self._current
        if segment is None or segment.size + len(item) >= self._options.segment_bytes:
            self.release()
            segment = self._current = self._open()
        if segment is None:
            self._journal.count("spool", "missed")
            return None
        line = item + b"\n"
        try:
            written = os.write(segment.fd, line)
            if written < len(line):
                os.ftruncate(segment.fd, segment.size)
                raise OSError(None, "the disk is full")
        except OSError as error:
            self._failed(error)
            self._journal.count("spool", "missed")
            self._current = None
            self._settle(segment)
            return None
        segment.size += written
        segment.remaining += 1
        return segment

    def delivered(self, segment: Segment) -> None:
        """Note that an item of a segment needs to be kept no longer."""
        segment.remaining -= 1
        self._settle(segment)

    def adopt(self) -> tuple[Segment, list[bytes]] | None:
        """Return a segment that a dead process left, with its items, None when there is none."""
        try:
            found = sorted(self._folder.glob(f"{self._prefix}-*.jsonl"))
        except OSError as error:
            self._failed(error)
            return None
        for path in found:
            if path in self._held:
                continue
            fd = -1
            try:
                fd = os.open(path, os.O_RDWR | os.O_APPEND)
                if not _locked(fd, path):
                    os.close(fd)
                    continue
                with open(fd, "rb", closefd=False) as file:
                    *lines, torn = file.read().split(b"\n")
            except OSError as error:
                if fd >= 0:
                    os.close(fd)
                if not isinstance(error, FileNotFoundError):
                    self._failed(error)
                continue
            items = [line for line in lines if _is_item(line)]
            if damaged := len(lines) - len(items) + bool(torn):
                self._journal.count("spool", "damaged", damaged)
            segment = Segment(path, fd, remaining=len(items))
            self._held[path] = segment
            if items:
                self._journal.count("spool", "adopted", len(items))
                return segment, items
            self._settle(segment)
        return None

    def release(self) -> None:
        """Delete what is empty; what is not stays on disk, unlocked when the process ends."""
        current, self._current = self._current, None
        if current is not None:
            self._settle(current)

    def abandon(self) -> None:
        """Let go of all segments: after a fork they are the parent's; after the end, the next process's."""
        for segment in self._held.values():
            with suppress(OSError):
                os.close(segment.fd)
        self._held.clear()
        self._current = None

    def _settle(self, segment: Segment) -> None:
        """Make an empty segment use no space."""
        if segment.remaining > 0:
            return
        try:
            if segment is self._current:
                os.ftruncate(segment.fd, 0)
                segment.size = 0
                return
            self._held.pop(segment.path, None)
            segment.path.unlink(missing_ok=True)
            os.close(segment.fd)
        except OSError as error:
            self._failed(error)

    def _open(self) -> Segment | None:
        if monotonic() < self._not_before:
            return None
        try:
            if self._used() + self._options.segment_bytes > self._options.spool_bytes:
                self._not_before = monotonic() + _RETRY_SECONDS
                self._journal.warn("spool_full", "the spool folder is full: items are kept in memory alone")
                return None
            while True:
                path = self._folder / f"{self._prefix}-{os.getpid()}-{os.urandom(6).hex()}.jsonl"
                fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
                # Another process may have adopted the empty file before it was locked.
                if _locked(fd, path):
                    segment = self._held[path] = Segment(path, fd)
                    return segment
                os.close(fd)
        except OSError as error:
            self._failed(error)
            return None

    def _used(self) -> int:
        used = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # delivered meanwhile
                    used += entry.stat().st_size
        return used

    def _failed(self, error: OSError) -> None:
        self._not_before = monotonic() + _RETRY_SECONDS
        self._journal.count("errors", "spool")
        self._journal.warn("spool", f"the spool folder cannot be used: {described(error)}")


def _locked(fd: int, path: Path) -> bool:
    """Lock a file; return whether it worked and the file is still the one at the path."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _is_item(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
