"""Items on their way to the server: a bounded queue, and the thread that empties it.

An item leaves the queue when the server has said that it has it, or that it will never take it. Its message id is part
of it, so sending it twice is harmless.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections import deque
from datetime import UTC, datetime
from itertools import islice
from time import monotonic
from typing import Final

from .journal import Journal, described
from .options import Options
from .retries import Backoff, retry_after
from .spool import Segment, Spool
from .transport import Request, Response, Transport

__all__ = ["Outbox"]

_PATH: Final = "/v1/events"
_ADOPT_SECONDS: Final = 30.0  # between two looks for what dead processes left
_ORPHAN_SECONDS: Final = 60.0  # for the items of a client that was let go without `close`


class Outbox:
    """A queue of encoded items. `put` never waits for the network; only `flush` and `close` do."""

    def __init__(self, transport: Transport, key: str, options: Options, journal: Journal, spool: Spool | None) -> None:
        self._transport = transport
        self._options = options
        self._journal = journal
        self._spool = spool
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            "Accept": "application/json",
        }
        self._closed = False
        self._let_go = False  # the spool's files are no longer ours
        self._orphan_until: float | None = None
        self._empty()

    def _empty(self) -> None:
        # Re-entrant, as a signal handler or the collector may come in while it is held.
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[tuple[bytes, Segment | None]] = deque()
        self._bytes = 0
        self._in = 0  # items ever queued
        self._out = 0  # items that left
        self._wanted = 0  # send until so many have left, without waiting for more
        self._nudges = 0  # calls of flush so far
        self._flushing = 0  # threads that wait in flush now
        self._since = 0.0  # when the oldest item that nobody asked for was queued
        self._most = self._options.batch_items  # in one request; less after one that was too large
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """Start empty: what is queued, and the files, are the parent's."""
        if self._spool is not None:
            self._spool.abandon()
        self._empty()

    def put(self, item: bytes) -> bool:
        """Queue an item; return whether there was room."""
        with self._changed:
            if self._closed:
                self._journal.count("dropped", "closed")
                return False
            if len(self._queue) >= self._options.queue_items or self._bytes + len(item) > self._options.queue_bytes:
                self._journal.count("dropped", "full")
                self._journal.warn("full", "the queue is full: new items are dropped")
                return False
            before = self._bytes
            self._append(item, self._spool.append(item) if self._spool is not None else None)
            self._start()
            # The sender counts the seconds from the first item, and is else woken only by a whole batch.
            if len(self._queue) == 1:
                self._since = monotonic()
                self._changed.notify_all()
            elif self._is_batch(len(self._queue), self._bytes) and not self._is_batch(len(self._queue) - 1, before):
                self._changed.notify_all()
            return True

    def start(self) -> None:
        """Start the sender, so that what a dead process left in the spool is sent."""
        with self._changed:
            self._start()

    def flush(self, timeout: float) -> bool:
        """Send what is queued now, and wait; return whether all of it left the queue."""
        with self._changed:
            target = self._in
            self._wanted = max(self._wanted, target)
            self._nudges += 1
            self._flushing += 1
            if self._queue:
                self._start()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._out >= target or self._closed, timeout)
            self._flushing -= 1
            if self._spool is not None and self._out >= target and not self._let_go:
                self._spool.release()
            return self._out >= target

    def close(self, timeout: float) -> bool:
        """Flush, then end the sender. What could not be sent stays in the spool, where there is one."""
        deadline = monotonic() + timeout
        done = self.flush(timeout)
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(deadline - monotonic(), 0.0))
        with self._changed:
            if first and self._queue:
                kept = self._spool is not None
                self._journal.count(*(("spool", "left") if kept else ("dropped", "unsent")), len(self._queue))
                rest = "the next process sends the rest" if kept else "the rest is lost"
                self._journal.warn("unsent", f"the client was closed before all was sent: {rest}")
            if self._spool is not None and not self._let_go:
                self._spool.release()
                self._spool.abandon()
            self._let_go = True
        return done

    def abandon(self) -> None:
        """Send what is queued without the client, then end. Called by the collector: takes no lock for long."""
        self._orphan_until = monotonic() + _ORPHAN_SECONDS
        with self._changed:
            self._wanted = self._in
            self._changed.notify_all()

    def counts(self) -> dict[str, int]:
        """Return how much is queued, and how much was ever."""
        return {"items": len(self._queue), "bytes": self._bytes, "queued": self._in}

    def _append(self, item: bytes, segment: Segment | None) -> None:
        self._queue.append((item, segment))
        self._bytes += len(item)
        self._in += 1

    def _is_batch(self, items: int, size: int) -> bool:
        options = self._options
        return items >= min(options.batch_items, options.queue_items // 2 or 1) or size >= min(
            options.batch_bytes, options.queue_bytes // 2
        )

    def _start(self) -> None:
        if self._closed or (self._thread is not None and self._thread.is_alive()):
            return
        thread = threading.Thread(target=self._send_for_ever, name="upturn-send", daemon=True)
        try:
            thread.start()
            self._thread = thread
        except RuntimeError as error:  # the interpreter is ending, or there are too many threads
            self._journal.count("errors", "thread")
            self._journal.warn("thread", f"the sender could not be started: {described(error)}")

    # In the sender's thread.

    def _send_for_ever(self) -> None:
        backoff = Backoff(self._options.retry_seconds, self._options.retry_most_seconds)
        adopt_at = monotonic()
        while True:
            if self._spool is not None and monotonic() >= adopt_at and not self._closed:
                adopt_at = 0.0 if self._adopt(self._spool) else monotonic() + _ADOPT_SECONDS
            with self._changed:
                while not (self._closed or self._is_orphan_done() or self._is_due()):
                    waits = [self._since + self._options.flush_seconds - monotonic()] if self._queue else []
                    if self._spool is not None:
                        waits.append(adopt_at - monotonic())
                    if waits and min(waits) <= 0:
                        break
                    self._changed.wait(min(waits, default=None))
                if self._closed or self._is_orphan_done():
                    return
                if not self._is_due():
                    if not self._queue or monotonic() < self._since + self._options.flush_seconds:
                        continue  # it is time to adopt
                    self._wanted = self._in
                batch = self._head()
                nudges = self._nudges
            self._deliver_or_wait(batch, backoff, nudges)

    def _is_due(self) -> bool:
        return bool(self._queue) and (self._out < self._wanted or self._is_batch(len(self._queue), self._bytes))

    def _is_orphan_done(self) -> bool:
        return self._orphan_until is not None and (not self._queue or monotonic() > self._orphan_until)

    def _head(self) -> list[bytes]:
        """Return the oldest items that fit into one request; they stay queued until they are delivered."""
        batch: list[bytes] = []
        size = 0
        for item, _ in islice(self._queue, self._most):
            size += len(item)
            if batch and size > self._options.batch_bytes:
                break
            batch.append(item)
        return batch

    def _deliver_or_wait(self, batch: list[bytes], backoff: Backoff, nudges: int) -> None:
        failure, asked = self._deliver(batch)
        if failure is None:
            backoff.reset()
            self._journal.settle("send", "items reach the server again")
            return
        self._journal.count("sent", "failed")
        self._journal.warn("send", f"items could not be sent ({failure}): they are kept and sent later")
        refused = failure.startswith("status ") and failure[7:] not in ("408", "429") and failure[7] in "34"
        pause = backoff.next(max(asked, self._options.refused_seconds if refused else 0.0))
        with self._changed:
            # A flush since this batch was taken, or somebody who waits in one, is worth trying sooner, but not against
            # the server's word.
            self._changed.wait_for(lambda: self._closed, asked)
            rest = pause - asked
            if self._flushing:
                rest = min(rest, self._options.retry_seconds)
            self._changed.wait_for(lambda: self._closed or self._nudges > nudges, rest)

    def _deliver(self, batch: list[bytes]) -> tuple[str | None, float]:
        """Send a batch once; return what failed, None where there was progress, and the wait the server asks for."""
        sent_at = datetime.now(UTC).isoformat().encode()
        body = gzip.compress(b'{"batch":[' + b",".join(batch) + b'],"sentAt":"' + sent_at + b'"}', 3)
        try:
            response = self._transport.send(Request("POST", _PATH, self._headers, body), self._options.timeout_seconds)
            answer = _decoded(response)
        except Exception as error:  # noqa: BLE001  # a transport may fail in any way
            return described(error), 0.0
        self._journal.count("sent", "requests")
        if 200 <= response.status < 300:
            accepted, duplicates = answer.get("accepted"), answer.get("duplicates")
            if not isinstance(accepted, int) or not isinstance(duplicates, int) or "rejected" not in answer:
                return "the answer is no receipt", retry_after(response.headers)
            self._journal.count("sent", "accepted", accepted)
            self._journal.count("sent", "duplicates", duplicates)
            self._reject(answer["rejected"])
            self._leave(len(batch))
            self._most = min(self._most * 2, self._options.batch_items)
        elif response.status == 422 and answer.get("code") == "all_rejected":
            self._reject(answer.get("rejected"))
            self._leave(len(batch))
        elif response.status == 413 or (response.status in (400, 415, 422) and "code" in answer):
            self._narrow(batch, "too_large" if response.status == 413 else "refused")
        else:
            return f"status {response.status}", retry_after(response.headers)
        return None, 0.0

    def _narrow(self, batch: list[bytes], why: str) -> None:
        """Halve what the server would not take as a whole, down to the item to blame, which is dropped."""
        self._most = max(len(batch) // 2, 1)
        if len(batch) == 1:
            self._journal.count("dropped", why)
            self._journal.warn(why, f"an item was dropped: the server said it is {why.replace('_', ' ')}")
            self._leave(1)

    def _reject(self, rejected: object) -> None:
        for entry in rejected if isinstance(rejected, list) else ():
            code = str(entry.get("code", "unknown")) if isinstance(entry, dict) else "unknown"
            self._journal.count("rejected", code)
            self._journal.warn(f"rejected {code}", f"the server rejected an item: {code}")

    def _leave(self, items: int) -> None:
        with self._changed:
            for _ in range(min(items, len(self._queue))):
                item, segment = self._queue.popleft()
                self._bytes -= len(item)
                self._out += 1
                if segment is not None and self._spool is not None and not self._let_go:
                    self._spool.delivered(segment)
            self._since = monotonic()
            self._changed.notify_all()

    def _adopt(self, spool: Spool) -> bool:
        """Queue what a dead process left, one file at a time; return whether there may be more."""
        with self._changed:
            if len(self._queue) > self._options.queue_items // 2:
                return True  # look again when there is room
            found = spool.adopt()
            if found is None:
                return False
            segment, items = found
            if not self._queue:
                self._since = monotonic()
            for item in items:
                self._append(item, segment)
            self._wanted = self._in
            return True


def _decoded(response: Response) -> dict[str, object]:
    """Return the JSON object of an answer, empty where it is none."""
    try:
        answer = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
