"""What past experiments teach about the next: the spread of their true lifts, as a prior for a plan."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sqlalchemy.orm import Session

from experiments import registry, reports
from experiments.codes import Verdict
from experiments.documents import Experiment, Kind, Status
from experiments.errors import Conflict
from experiments.plans import Prior
from experiments.report import Report
from stats import posterior
from stats.errors import StatError

_OVER = (Status.stopped, Status.decided, Status.archived)


@dataclass(frozen=True, slots=True)
class Experience:
    """The prior of a metric's lift, and the number of effects it was learnt from."""

    metric: str
    effects: int
    prior: Prior


def learn(session: Session, metric: str) -> Experience:
    """Learn the prior of a metric's lift from the last reports of all experiments that are over.

    All count, successes and failures; those whose data could not be trusted do not. Effects of several variants against
    one control count each.

    Raises:
        NotFound: no such metric.
        Conflict: ``too_little_experience`` for fewer than three effects.
    """
    registry.revision_of(session, Kind.metric, metric)
    lifts, errors = [], []
    experiment: Experiment
    for experiment in registry.all_of(session, Kind.experiment):
        if experiment.status not in _OVER:
            continue
        saved = reports.latest(session, experiment.key)
        try:
            found = [] if saved is None else list(_lifts(saved.report, metric))
        except Conflict:
            continue  # made by another version of the program
        lifts += [lift for lift, _ in found]
        errors += [error for _, error in found]
    try:
        learnt = posterior.empirical_prior(np.array(lifts), np.array(errors))
    except StatError:
        detail = f"{len(lifts)} effects on {metric!r} were measured so far; a prior takes three or more"
        raise Conflict("too_little_experience", detail) from None
    return Experience(metric, len(lifts), Prior(mean=learnt.mean, sd=learnt.sd))


def _lifts(report: Report, metric: str) -> Iterator[tuple[float, float]]:
    """The lift of each variant over all users, with its standard error."""
    if report.decision.verdict is Verdict.invalid:
        return
    for part in report.metrics:
        means = {arm.variant: arm.mean for arm in part.arms if arm.segment is None}
        for c in part.comparisons:
            base = means[c.control]
            if part.metric == metric and c.segment is None and c.absolute is not None and c.se is not None and base:
                yield c.absolute.estimate / abs(base), c.se / abs(base)
