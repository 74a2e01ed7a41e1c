"""How fast passwords may be tried."""

from collections import OrderedDict
from datetime import datetime, timedelta
from threading import Lock

FREE_TRIES = 5
LONGEST_WAIT = timedelta(minutes=15)
_REMEMBERED = 10_000


class Attempts:
    """Slows down the guessing of passwords: after some failures each further one doubles the wait.

    Kept in the memory of one process, per login and address, so that a stranger cannot lock a colleague out. With w
    worker processes a guesser has w times the tries; the password hash itself costs him 0.1 s each.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[tuple[str, str], tuple[int, datetime]] = OrderedDict()
        self._lock = Lock()

    def wait(self, login: str, address: str, now: datetime) -> timedelta:
        """Return how long this one must still wait; zero when he may try."""
        with self._lock:
            count, last = self._failures.get((login, address), (0, now))
        if count < FREE_TRIES:
            return timedelta(0)
        pause = min(timedelta(seconds=2.0 ** min(count - FREE_TRIES, 20)), LONGEST_WAIT)
        return max(last + pause - now, timedelta(0))

    def failed(self, login: str, address: str, now: datetime) -> None:
        """Remember a failure."""
        with self._lock:
            count, _ = self._failures.pop((login, address), (0, now))
            self._failures[login, address] = (count + 1, now)
            if len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)

    def succeeded(self, login: str, address: str) -> None:
        """Forget the failures."""
        with self._lock:
            self._failures.pop((login, address), None)
