"""What can be tuned in a client."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Options"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Times in seconds, sizes in bytes. Raises ValueError where a number is not positive.

    Attributes:
        poll_seconds: between two looks for a newer snapshot, give or take a tenth.
        stale_after: refreshes missed in a row until answers are said to be stale.
        streaming: whether to listen to the server's stream of changes where it offers one.
        timeout_seconds: the longest that one request may take.
        flush_seconds: the longest that an item waits for others to be sent with.
        batch_items: items in one request; the server takes 10,000 at most.
        batch_bytes: size of one request before compression.
        queue_items: items kept until the server has them; more are dropped and counted.
        queue_bytes: their size.
        spool_bytes: size of the spool folder.
        segment_bytes: size of one file in it.
        remembered_exposures: exposures that are not sent again.
        retry_seconds: the first wait after a failure is up to this; it doubles each time.
        retry_most_seconds: the longest wait between two tries.
        refused_seconds: wait after 401, 403, 404 and the like, which people have to put right.
        exit_seconds: the longest that the end of the process waits for what is still queued; may be 0.
    """

    poll_seconds: float = 30.0
    stale_after: int = 3
    streaming: bool = True
    timeout_seconds: float = 10.0
    flush_seconds: float = 5.0
    batch_items: int = 500
    batch_bytes: int = _MIB
    queue_items: int = 10_000
    queue_bytes: int = 32 * _MIB
    spool_bytes: int = 64 * _MIB
    segment_bytes: int = _MIB
    remembered_exposures: int = 100_000
    retry_seconds: float = 1.0
    retry_most_seconds: float = 60.0
    refused_seconds: float = 60.0
    exit_seconds: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), field.type == "int"
            if field.type == "bool":
                continue
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ValueError(f"{field.name} = {value!r}: give a {'whole ' if whole else ''}number")
            least = 0 if field.name == "exit_seconds" else 1 if whole else 0.001
            if not least <= value <= 1e12:
                raise ValueError(f"{field.name} = {value!r}: give {least} or more")
        if self.batch_items > 10_000:
            raise ValueError(f"batch_items = {self.batch_items}: give 10,000 or less")
