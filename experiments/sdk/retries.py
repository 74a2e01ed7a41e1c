"""When to try again: exponential waits with full jitter, never earlier than the server asks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["Backoff", "retry_after"]

# A server may ask for a pause, not for silence.
_LONGEST_ASKED: Final = 3600.0


class Backoff:
    """The wait after each failure in a row: uniform between 0 and `first` × 2ⁿ, at most `most` seconds."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._failures = 0
        self._random = random.Random()  # noqa: S311  # jitter, not a secret

    def next(self, at_least: float = 0.0) -> float:
        limit = min(self._most, self._first * 2.0 ** min(self._failures, 60))
        self._failures += 1
        # Clients told the same second do not all come in it.
        return max(self._random.uniform(0, limit), at_least + self._random.uniform(0, at_least / 10))

    def reset(self) -> None:
        self._failures = 0


def retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that `Retry-After` (seconds or a date) asks for, 0 without a readable one."""
    written = headers.get("retry-after", "").strip()
    if written.isascii() and written.isdigit():
        seconds = float(written[:10])
    else:
        try:
            date = parsedate_to_datetime(written)
        except (ValueError, TypeError, IndexError, OverflowError):
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_ASKED)
