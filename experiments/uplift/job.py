"""The process of one study: ``python -m experiments.uplift.job ID``, on the store that the environment names.

Its time is that of the server that started it, counted on from there: so one clock alone says who has been silent.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from time import monotonic, perf_counter

import msgspec

from experiments import rows
from experiments.errors import UpturnError
from experiments.settings import Settings
from experiments.store import Store
from experiments.uplift import participants, report, scores, studies
from experiments.uplift.answer import Answer
from experiments.uplift.crossfit import fits
from experiments.uplift.studies import Failure, Notes, StudyRequest, StudyStatus

_BEAT_SECONDS = 20.0
# What is left for the numbers after training.
_TRAINED = 0.9


class Work:
    """One study under way.

    Args:
        store: the store.
        study_id: of the study, which is on record.
        elapsed: seconds since the process began.
    """

    def __init__(self, store: Store, study_id: str, elapsed: Callable[[], float]) -> None:
        self.store, self.id, self.elapsed = store, study_id, elapsed
        self.progress = 0.0
        with store.write() as session:
            row = studies.row_of(session, study_id)
            self.begun = row.beat_at
            self.experiment, self.revision, self.watermark = row.experiment, row.revision, row.watermark
            self.request = StudyRequest.model_validate_json(row.settings)
            row.status = StudyStatus.running

    @property
    def now(self) -> datetime:
        return self.begun + timedelta(seconds=self.elapsed())

    def run(self) -> None:
        """Study, and save what was found, or why nothing was."""
        try:
            with self._beating():
                found, notes = self._answer()
            self._save_scores(found)
            body = report.encode(found.report).decode()
            self._end(StudyStatus.done, body=body, notes=msgspec.json.encode(notes).decode(), progress=1.0)
        except UpturnError as error:
            self._fail(error.code, error.detail)
        except BaseException as error:
            self._fail("internal_error", f"a fault of ours, see the server's log: {type(error).__name__}")
            raise

    def _answer(self) -> tuple[Answer, Notes]:
        request = self.request
        found = rows.of_experiment(
            self.store,
            self.experiment,
            now=self.now,
            metric=request.metric,
            watermark=self.watermark,
            revision=self.revision,
        )
        asked = participants.question(found, attributes=request.features == "attributes", **request.options())
        total = fits(asked.question.learners, asked.question.folds)

        def trained(count: int) -> None:
            self.progress = min(self.progress + _TRAINED * count / total, _TRAINED)
            self._beat()

        made = participants.answer(asked, found, clock=perf_counter, progress=trained)
        unit = participants.unit_value(found.experiment, found.metric, found.direction)
        notes = Notes(asked.left_out, asked.excluded, unit, participants.baseline(made, unit))
        return made, notes

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
            row = studies.row_of(session, self.id)
            row.beat_at, row.progress = self.now, self.progress

    def _save_scores(self, found: Answer) -> None:
        path = studies.scores_path(self.store.settings, self.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        scores.write(found, part)
        part.replace(path)

    def _fail(self, code: str, detail: str) -> None:
        self._end(StudyStatus.failed, error=msgspec.json.encode(Failure(code, detail)).decode())

    def _end(self, status: StudyStatus, **fields: object) -> None:
        with self.store.write() as session:
            row = studies.row_of(session, self.id)
            row.status, row.finished_at = status, self.now
            for name, value in fields.items():
                setattr(row, name, value)


def main(study_id: str) -> None:
    """Work on a study of the store that the environment names."""
    began = monotonic()
    # Apps that wait for an answer come first.
    os.nice(10)
    store = Store.open(Settings.from_env())
    try:
        Work(store, study_id, lambda: monotonic() - began).run()
    finally:
        store.close()


if __name__ == "__main__":
    main(sys.argv[1])
