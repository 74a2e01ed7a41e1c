"""The client of an app: variants in microseconds, never an exception, never a wait; events that are not lost."""

from __future__ import annotations

import atexit
import json
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from . import items
from .assignment import Evaluator
from .experiment import NO_ATTRIBUTES, Assignment, CompiledExperiment, Reason
from .journal import Journal, described
from .options import Options
from .outbox import Outbox
from .snapshots import Snapshots, Source
from .transport import HTTPTransport, Transport

__all__ = ["Client", "Details"]

_T = TypeVar("_T")

_TOUCH_STATUSES: Final = ("sent", "suppressed", "ghost")


@dataclass(frozen=True, slots=True)
class Details:
    """Which variant a user gets, and why; nothing is recorded until it is given to `Client.expose`.

    Attributes:
        value: the variant as a feature flag; shared, and so never to be changed.
        reason: None where there is no snapshot yet.
        source: of the snapshot: the server, the server some time ago (`stale`), `bootstrap`, or `none`.
        error: `no_snapshot`, or `failed` where the arguments cannot be evaluated.
    """

    experiment: str
    user: str
    variant: str | None = None
    tactic: Mapping[str, object] | None = None
    value: object = None
    reason: Reason | None = None
    stratum: str | None = None
    phase: int = 0
    revision: int = 0
    source: Source = "none"
    error: str | None = None


class Client:
    """Assigns users by a snapshot that the background keeps fresh, and sends exposures and events.

    After it is made, no method raises, and only `wait_until_ready`, `flush`, `close` and `save` wait. Threads start at
    the first use, so that a client made before a fork works on both sides of it.

    Args:
        url: the server's address.
        key: of an app, with the scopes `assign` and `ingest`.
        bootstrap: a snapshot (decoded, or the path of a file) to use until the server gives one.
        spool: a folder where items are kept until the server has them; a killed process then loses none.
        offline: assign by `bootstrap` alone; nothing is asked, nothing sent. For tests.
        transport: how requests travel; by default over HTTP.
        options: times and sizes.

    Raises:
        ValueError: an argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        bootstrap: Mapping[str, object] | str | Path | None = None,
        spool: str | Path | None = None,
        offline: bool = False,
        transport: Transport | None = None,
        options: Options | None = None,
    ) -> None:
        if not isinstance(key, str) or not (key.isascii() and key.isprintable()) or not key.strip() or " " in key:
            raise ValueError("key: give the text of an API key, without spaces")
        options = options or Options()
        transport = transport or HTTPTransport(url)
        self._journal = Journal()
        self._snapshots = Snapshots(transport, key, options, self._journal)
        kept = None
        if spool is not None and not offline:
            try:
                from .spool import Spool
            except ImportError:
                raise ValueError(f"spool = {str(spool)!r}: leave it out where files cannot be locked (flock)") from None
            kept = Spool(Path(spool), url, options, self._journal)
        self._outbox = Outbox(transport, key, options, self._journal, kept)
        self._spools = kept is not None
        self._options = options
        self._offline = offline
        self._awake = offline
        # Two generations: when the young one is full, the old one is forgotten. The least recent half goes at once,
        # without a list to be kept in order at every read.
        self._exposed: set[tuple[str, int, str, str]] = set()
        self._exposed_before: set[tuple[str, int, str, str]] = set()
        self._lock = threading.RLock()
        if bootstrap is not None:
            self._snapshots.bootstrap(bootstrap)
        _clients.add(self)
        if not offline:
            _outboxes[self._outbox] = options.exit_seconds
        weakref.finalize(self, _let_go, self._snapshots, self._outbox).atexit = False

    # Assigning.

    def variant(
        self, experiment: str, user: str, attributes: Mapping[str, object] | None = None, default: _T | None = None
    ) -> str | _T | None:
        """Return the user's variant and record the exposure; `default` where he gets none."""
        answer = self._read(experiment, user, attributes)
        return default if answer is None else answer.variant

    def value(
        self, experiment: str, user: str, attributes: Mapping[str, object] | None = None, default: Any = None
    ) -> Any:
        """Return the variant's value as a feature flag and record the exposure; `default` without a variant."""
        answer = self._read(experiment, user, attributes)
        if answer is None:
            return default
        return deepcopy(answer.value) if isinstance(answer.value, dict | list) else answer.value

    def tactic(
        self,
        experiment: str,
        user: str,
        attributes: Mapping[str, object] | None = None,
        default: Mapping[str, object] | None = None,
    ) -> Mapping[str, object] | None:
        """Return the variant's tactic, to be read only, and record the exposure; `default` without a variant."""
        answer = self._read(experiment, user, attributes)
        return default if answer is None else answer.tactic

    def details(self, experiment: str, user: str, attributes: Mapping[str, object] | None = None) -> Details:
        """Return the answer with its reasons; records nothing."""
        source: Source = "none"
        try:
            evaluator = self._evaluator()
            source = self._snapshots.source
            if evaluator is None:
                return Details(experiment, user, source=source, error="no_snapshot")
            answer = evaluator.assign(experiment, user, NO_ATTRIBUTES if attributes is None else attributes)
            stratum = _stratum(evaluator, answer, user, attributes)
            return Details(
                *(answer.experiment, user, answer.variant, answer.tactic, answer.value, answer.reason, stratum),
                *(answer.phase, answer.revision, source),
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the app goes on
            self._failed("evaluate", error)
            return Details(experiment, user, source=source, error="failed")

    def expose(self, details: Details) -> bool:
        """Record that the user meets the variant of these details; return whether it is recorded, now or before."""
        try:
            if details.variant is None:
                return False
            return self._expose(details.experiment, details.user, details.variant, details.phase, details.stratum)
        except Exception as error:  # noqa: BLE001
            return self._failed("expose", error)

    def _evaluator(self) -> Evaluator | None:
        if not self._awake:
            self._wake()
        return self._snapshots.evaluator

    def _read(self, experiment: str, user: str, attributes: Mapping[str, object] | None) -> Assignment | None:
        """Return an answer with a variant, its exposure recorded; else None."""
        try:
            if not self._awake:
                self._wake()
            evaluator = self._snapshots.evaluator
            if evaluator is None:
                return None
            answer = evaluator.assign(experiment, user, NO_ATTRIBUTES if attributes is None else attributes)
            variant = answer.variant
            if variant is None:
                return None
            if (experiment, answer.phase, user, variant) not in self._exposed:
                stratum = _stratum(evaluator, answer, user, attributes)
                self._expose(experiment, user, variant, answer.phase, stratum)
            return answer
        except Exception as error:  # noqa: BLE001  # whatever it is, the app goes on
            self._failed("evaluate", error)
            return None

    def _expose(self, experiment: str, user: str, variant: str, phase: int, stratum: str | None) -> bool:
        exposure = (experiment, phase, user, variant)
        with self._lock:
            if exposure in self._exposed:
                return True
            # One that cannot be queued is not remembered, so that the next read tries again.
            known = exposure in self._exposed_before
            if not known and not self._put(lambda: items.exposure(experiment, user, variant, phase, stratum)):
                return False
            if len(self._exposed) >= max(self._options.remembered_exposures // 2, 1):
                self._exposed_before, self._exposed = self._exposed, set()
            self._exposed.add(exposure)
            return True

    # Recording.

    def track(
        self,
        user: str,
        event: str,
        value: float | None = None,
        properties: Mapping[str, object] | None = None,
        timestamp: object = None,
    ) -> bool:
        """Record that a user did something; return whether it is queued.

        Args:
            user: who.
            event: its name.
            value: a number within ±10¹², such as the amount of an order.
            properties: JSON.
            timestamp: an aware datetime, by default now.
        """
        return self._put(lambda: items.event(user, event, value, properties, timestamp))

    def identify(self, user: str, traits: Mapping[str, object]) -> bool:
        """Record attributes of a user, over those that are known; return whether they are queued."""
        return self._put(lambda: items.identify(user, traits))

    def alias(self, previous_id: str, user: str) -> bool:
        """Record that `previous_id`, such as a device's, is the same person as `user`."""
        return self._put(lambda: items.alias(previous_id, user))

    def touch(
        self, user: str, channel: str, status: str = "sent", reason: str | None = None, experiment: str | None = None
    ) -> bool:
        """Record a contact with a user: the event `touch`.

        Args:
            user: who.
            channel: push, sms, email, wecom, in_app …
            status: `sent`, `suppressed`, or `ghost` (a control user at the moment when he would have been touched).
            reason: why it was suppressed.
            experiment: for which.
        """

        def made() -> bytes:
            if status not in _TOUCH_STATUSES:
                raise items.UnsendableItem(f"status: give one of {', '.join(_TOUCH_STATUSES)}")
            if not isinstance(channel, str) or not channel:
                raise items.UnsendableItem("channel: give a text")
            told = {"channel": channel, "status": status, "reason": reason, "experiment": experiment}
            properties = {name: part for name, part in told.items() if part is not None}
            return items.event(user, "touch", None, properties, None)

        return self._put(made)

    def _put(self, make: Callable[[], bytes]) -> bool:
        try:
            if not self._awake:
                self._wake()
            item = make()
            if self._offline:
                self._journal.count("dropped", "offline")
                return True
            return self._outbox.put(item)
        except items.UnsendableItem as error:
            self._journal.count("dropped", "invalid")
            self._journal.warn("invalid", f"an item was dropped: {error}")
        except Exception as error:  # noqa: BLE001  # an argument may raise anything when it is looked at
            self._journal.count("dropped", "invalid")
            self._failed("record", error)
        return False

    # Life.

    @property
    def source(self) -> Source:
        """Where the snapshot in use comes from."""
        return self._snapshots.source

    def wait_until_ready(self, timeout: float = 5.0) -> bool:
        """Wait for the server's first snapshot; return whether there is a snapshot, be it the bootstrap's."""
        if self._offline:
            return self._snapshots.evaluator is not None
        self._wake()
        return self._snapshots.wait(timeout)

    def subscribe(self, listener: Callable[[Source], object]) -> None:
        """Call `listener(source)` from the background after each change of the snapshot, or of its source."""
        self._snapshots.subscribe(listener)

    def save(self, path: str | Path) -> bool:
        """Write the snapshot to a file, for `bootstrap`; the old file stays whole until the new one is."""
        document = self._snapshots.document()
        if document is None:
            return False
        temporary = None
        try:
            target = Path(path)
            with tempfile.NamedTemporaryFile("w", dir=target.parent, encoding="utf-8", delete=False) as file:
                temporary = Path(file.name)
                json.dump(document, file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            return True
        except Exception as error:  # noqa: BLE001
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            return self._failed("save", error)

    def flush(self, timeout: float = 5.0) -> bool:
        """Send what is queued now; return whether the server has it all (or said that it will not take it)."""
        return self._outbox.flush(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Flush and end the background work. Variants are still given; exposures and events are dropped and counted."""
        self._snapshots.stop()
        return self._outbox.close(timeout)

    async def aclose(self, timeout: float = 5.0) -> bool:
        """Close without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.close, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def stats(self) -> dict[str, Any]:
        """Return what was counted since the start of the process."""
        groups = ("sent", "rejected", "dropped", "spool", "refresh", "stream", "errors")
        return {
            "source": self.source,
            "age_seconds": self._snapshots.age,
            "queue": self._outbox.counts(),
            **{group: self._journal.counts(group) for group in groups},
        }

    def _wake(self) -> None:
        """Start the background work, once in each process."""
        if self._offline:
            return
        self._awake = self._snapshots.start()
        if self._spools:
            self._outbox.start()

    def _failed(self, kind: str, error: Exception) -> bool:
        self._journal.count("errors", kind)
        self._journal.warn(kind, f"{kind} failed: {described(error)}")
        return False

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self._journal.after_fork()
        self._snapshots.after_fork()
        self._outbox.after_fork()
        self._awake = self._offline


def _stratum(
    evaluator: Evaluator, answer: Assignment, user: str, attributes: Mapping[str, object] | None
) -> str | None:
    """Return the user's stratum, also where the answer was found before the strata (a forced user)."""
    if answer.stratum is not None or answer.reason is not Reason.forced:
        return answer.stratum
    experiment: CompiledExperiment = evaluator.experiments[answer.experiment]
    known = {**(attributes if isinstance(attributes, Mapping) else NO_ATTRIBUTES), "id": user}
    return next((part.segment for part in experiment.strata if part.rule is None or part.rule.matches(known)), None)


# Clients that may be collected, their outboxes, which are sent on for a while, and how long the exit waits for each.
_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_outboxes: weakref.WeakKeyDictionary[Outbox, float] = weakref.WeakKeyDictionary()


def _let_go(snapshots: Snapshots, outbox: Outbox) -> None:
    snapshots.stop()
    outbox.abandon()


def _in_child() -> None:
    _outboxes.clear()
    for client in tuple(_clients):
        client._after_fork()
        if not client._offline:
            _outboxes[client._outbox] = client._options.exit_seconds


def _at_exit() -> None:
    waits = dict(_outboxes)
    deadline = monotonic() + max(waits.values(), default=0.0)
    for outbox, seconds in waits.items():
        outbox.flush(min(seconds, max(deadline - monotonic(), 0.0)))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
