"""The process of one study: ``python -m experiments.uplift.job ID``, on the store that the environment names."""

import sys
from time import perf_counter
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from experiments import rows
from experiments.uplift import model, participants, report, scores, studies, task
from experiments.uplift.answer import Answer
from experiments.uplift.crossfit import fits
from experiments.uplift.studies import Notes, StudyRequest
from experiments.uplift.task import Task
from experiments.uplift.tidy import tidy

# What is left for the numbers after training.
_TRAINED = 0.9


class Work(Task):
    """One study under way."""

    def row(self, session: Session) -> Any:
        """Return the study's row."""
        return studies.row_of(session, self.id)

    def read(self, row: Any) -> None:
        """Keep what is to be studied."""
        self.experiment, self.revision, self.watermark = row.experiment, row.revision, row.watermark
        self.request = StudyRequest.model_validate_json(row.settings)

    def work(self) -> dict[str, object]:
        """Study, and keep the scores and the model."""
        found, notes = self._answer()
        self._save_scores(found)
        file = model.path(self.store.settings, self.id)
        model.save(found, file, study=self.id, experiment=self.experiment, watermark=self.watermark)
        tidy(self.store, now=self.now)
        return {"body": report.encode(found.report).decode(), "notes": msgspec.json.encode(notes).decode()}

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
        only = request.features == "attributes"
        asked = participants.question(found, attributes=only, leave_out=request.leave_out, **request.options())
        total = fits(asked.question.learners, asked.question.folds)

        def trained(count: int) -> None:
            self.reached(min(self.progress + _TRAINED * count / total, _TRAINED))

        made = participants.answer(asked, found, clock=perf_counter, progress=trained)
        unit = participants.unit_value(found.experiment, found.metric, found.direction)
        notes = Notes(asked.left_out, asked.excluded, unit, participants.baseline(made, unit))
        return made, notes

    def _save_scores(self, found: Answer) -> None:
        path = studies.scores_path(self.store.settings, self.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        scores.write(found, part)
        part.replace(path)


if __name__ == "__main__":
    task.main(Work, sys.argv[1])
