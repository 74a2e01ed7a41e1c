"""Work in a process of its own that is on record: it says that it is at work, and how it ended.

Its time is that of the server that started it, counted on from there: so one clock alone says who has been silent.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from experiments.errors import InvalidDocument, UpturnError
from experiments.settings import Settings
from experiments.store import Store
from experiments.uplift.studies import Failure, Refused, StudyStatus

_BEAT_SECONDS: Final = 20.0


class Task:
    """One piece of work under way; what it is, is told by its subclasses.

    Args:
        store: the store.
        name: of the work, which is on record.
        elapsed: seconds since the process began.
        progress: told the progress, from 0 to 1, whenever it changes.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        elapsed: Callable[[], float],
        progress: Callable[[float], object] = lambda _: None,
    ) -> None:
        self.store, self.id, self.elapsed, self.told = store, name, elapsed, progress
        self.progress = 0.0
        with store.write() as session:
            row = self.row(session)
            self.begun: datetime = row.beat_at
            self.read(row)
            row.status = StudyStatus.running

    def row(self, session: Session) -> Any:
        """Return the row of the work, to be changed."""
        raise NotImplementedError

    def read(self, row: Any) -> None:
        """Keep what the row says of the work."""
        raise NotImplementedError

    def work(self) -> dict[str, object]:
        """Do it, and return what the row is to hold from then on."""
        raise NotImplementedError

    @property
    def now(self) -> datetime:
        return self.begun + timedelta(seconds=self.elapsed())

    def run(self) -> None:
        """Work, and save what was found, or why nothing was."""
        try:
            with self._beating():
                fields = self.work()
            self._end(StudyStatus.done, progress=1.0, **fields)
        except InvalidDocument as error:
            refused = [Refused(problem.field, problem.problem) for problem in error.problems]
            self._fail(error.code, error.detail, refused)
        except UpturnError as error:
            self._fail(error.code, error.detail)
        except BaseException as error:
            self._fail("internal_error", f"a fault of ours, see the server's log: {type(error).__name__}")
            raise

    def reached(self, progress: float) -> None:
        """Say how far the work is."""
        self.progress = progress
        self._beat()
        self.told(progress)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT_SECONDS):
                self._beat()

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self) -> None:
        with self.store.write() as session:
            row = self.row(session)
            row.beat_at, row.progress = self.now, self.progress

    def _fail(self, code: str, detail: str, problems: Sequence[Refused] = ()) -> None:
        self._end(StudyStatus.failed, error=msgspec.json.encode(Failure(code, detail, tuple(problems))).decode())

    def _end(self, status: StudyStatus, **fields: object) -> None:
        with self.store.write() as session:
            row = self.row(session)
            row.status, row.finished_at = status, self.now
            for name, value in fields.items():
                setattr(row, name, value)


def main(task: type[Task], name: str) -> None:
    """Work on what is on record in the store that the environment names."""
    began = monotonic()
    # Apps that wait for an answer come first.
    os.nice(10)
    store = Store.open(Settings.from_env())
    try:
        task(store, name, lambda: monotonic() - began).run()
    finally:
        store.close()
