"""Cross-fitting: every number of a user comes from models that have not seen him.

It trains in the process that calls it and starts no other: a process forked after training would wait for ever for
the threads of LightGBM's parent. A server starts a fresh process for it, and never trains before it forks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.uplift.frame import Frame
from experiments.uplift.learners import LEARNERS, Arms, Fitted, Rows, against_control, fit_arms, load
from stats import policy_value

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Crossfit:
    """What the learners say of users they have not seen.

    Attributes:
        frame: the users.
        matrix: (n, p) what the learners got.
        owner: (p,) the feature of each column.
        fold: (n,) 0..F-1.
        predictions: (n, K) of the outcome under each variant.
        scores: (n, K) doubly robust, before costs.
        effects: of each learner, (n, K-1), trained on the other folds.
        forward: the same, trained on earlier folds only; NaN in the folds before ``first``.
        first: the first fold that ``forward`` predicts.
        models: of each learner, the one of each fold.
        seconds: what training and predicting took, of each learner.
    """

    frame: Frame
    matrix: Floats
    owner: Ints
    fold: Ints
    predictions: Floats
    scores: Floats
    effects: Mapping[str, Floats]
    forward: Mapping[str, Floats]
    first: int
    models: Mapping[str, Sequence[Fitted]]
    seconds: Mapping[str, float]


def fits(learners: Sequence[str], folds: int) -> int:
    """Return how many times a learner is trained: the steps of the progress bar."""
    return folds + len(dict.fromkeys(learners)) * (folds + folds - 1 - _first(folds))


def crossfit(
    frame: Frame,
    learners: Sequence[str],
    *,
    folds: int,
    seed: int,
    clock: Clock,
    progress: Callable[[int], object] = lambda _: None,
) -> Crossfit:
    """Train each learner for each fold on the other folds, and once more on the earlier folds only.

    Args:
        frame: the users.
        learners: names of ``LEARNERS``.
        folds: their number.
        seed: settles the folds and the learners.
        clock: seconds, for the time each learner takes.
        progress: called with 1 whenever a learner was trained.
    """
    load(learners)
    matrix, owner = frame.matrix()
    rows = Rows(matrix, frame.arm, frame.outcome, frame.propensity)
    fold = policy_value.folds(frame.arm.size, folds, frame.arm, np.random.default_rng(seed))
    predictions = np.empty_like(frame.propensity)
    arms: list[Arms] = []
    start = clock()
    for each in range(folds):
        arms.append(fit_arms(rows.take(fold != each), seed))
        predictions[fold == each] = arms[each].outcomes(matrix[fold == each])
        progress(1)
    shared = clock() - start
    first = _first(folds)
    effects, forward, models, seconds = {}, {}, {}, {}
    for name in dict.fromkeys(learners):
        start = clock()
        known = (arms, predictions) if name == "t" else None
        effects[name], forward[name], models[name] = _one(name, rows, fold, first, seed, known, progress)
        seconds[name] = clock() - start + (shared if name == "t" else 0.0)
    return Crossfit(
        frame=frame,
        matrix=matrix,
        owner=owner,
        fold=fold,
        predictions=predictions,
        scores=policy_value.doubly_robust(frame.outcome, frame.arm, frame.propensity, predictions),
        effects=effects,
        forward=forward,
        first=first,
        models=models,
        seconds=seconds,
    )


def _first(folds: int) -> int:
    """The first fold that is predicted from earlier ones: what is learnt from less than two fifths says little."""
    return max(1, (2 * folds) // 5)


def _one(
    name: str,
    rows: Rows,
    fold: Ints,
    first: int,
    seed: int,
    known: tuple[Sequence[Fitted], Floats] | None,
    progress: Callable[[int], object],
) -> tuple[Floats, Floats, list[Fitted]]:
    folds = int(fold.max()) + 1
    learner = LEARNERS[name]
    effects = np.empty((fold.size, rows.propensity.shape[1] - 1))
    forward = np.full_like(effects, np.nan)
    models: list[Fitted] = []
    for each in range(folds):
        here = fold == each
        if known is None:
            models.append(learner(rows.take(~here), seed))
            effects[here] = models[each].effects(rows.matrix[here], rows.propensity[here])
        else:
            # The T-learner's models are those of the outcomes.
            models.append(known[0][each])
            effects[here] = against_control(known[1][here])
        progress(1)
        if each == folds - 1:
            # All other folds are earlier ones.
            forward[here] = effects[here]
        elif each >= first:
            earlier = learner(rows.take(fold < each), seed)
            forward[here] = earlier.effects(rows.matrix[here], rows.propensity[here])
            progress(1)
    return effects, forward, models
