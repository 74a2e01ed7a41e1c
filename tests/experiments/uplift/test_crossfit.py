from collections.abc import Iterator

import numpy as np
import pytest

from experiments.uplift import crossfit as module
from experiments.uplift.crossfit import Crossfit, crossfit, fits
from experiments.uplift.frame import Frame, from_table
from experiments.uplift.learners import LEARNERS, Fitted, Rows
from tests.experiments.uplift import made


@pytest.fixture(scope="module")
def frame() -> Frame:
    return from_table(made.campaign(3000, arms=3), made.question())


def run(frame: Frame, **changed: object) -> Crossfit:
    steps: list[int] = []
    ticks: Iterator[int] = iter(range(1000))
    given = {"folds": 4, "seed": 1, "clock": lambda: float(next(ticks)), "progress": steps.append} | changed
    found = crossfit(frame, ("s", "t"), **given)  # type: ignore[arg-type]
    assert sum(steps) == fits(("s", "t"), 4)
    return found


def test_no_model_has_seen_the_users_it_speaks_of(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row carries its number as a feature: what was trained on is compared with what is predicted."""
    number = np.arange(3000.0)
    seen: list[tuple[set[float], set[float]]] = []

    def watched(rows: Rows, seed: int) -> Fitted:
        fitted = LEARNERS["s"](rows, seed)

        class Watched:
            def effects(self, matrix: np.ndarray, propensity: np.ndarray) -> np.ndarray:
                seen.append((set(rows.matrix[:, -1]), set(matrix[:, -1])))
                return fitted.effects(matrix, propensity)

        return Watched()

    matrix, owner = frame.matrix()
    monkeypatch.setattr(Frame, "matrix", lambda _: (np.column_stack([matrix, number]), np.append(owner, 0)))
    monkeypatch.setattr(module, "LEARNERS", {"s": watched})
    found = crossfit(frame, ("s",), folds=4, seed=1, clock=lambda: 0.0)
    assert len(seen) == 4 + 2
    assert all(not trained & predicted for trained, predicted in seen)
    folds = [set(number[found.fold == k]) for k in range(4)]
    forward = [(trained, predicted) for trained, predicted in seen if len(trained) < 2250]
    # Of the last fold, all others are earlier ones.
    assert forward == [(folds[0], folds[1]), (folds[0] | folds[1], folds[2])]
    assert np.isnan(found.forward["s"][found.fold < found.first]).all()
    last = found.fold == 3
    assert np.array_equal(found.forward["s"][last], found.effects["s"][last])


def test_the_folds_have_the_variants_in_equal_parts(frame: Frame) -> None:
    found = run(frame)
    table = np.array([np.bincount(frame.arm[found.fold == k]) for k in range(4)])
    assert np.ptp(table, axis=0).max() <= 1


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(frame: Frame) -> None:
    first, again, other = run(frame), run(frame), run(frame, seed=2)
    for name in ("s", "t"):
        assert np.array_equal(first.effects[name], again.effects[name])
        assert np.array_equal(first.forward[name], again.forward[name], equal_nan=True)
        assert not np.array_equal(first.effects[name], other.effects[name])
    assert np.array_equal(first.scores, again.scores)


def test_the_outcomes_are_those_of_the_t_learner(frame: Frame) -> None:
    found = run(frame)
    assert found.predictions[:, 1:] - found.predictions[:, :1] == pytest.approx(found.effects["t"])


def test_scores_correct_predictions_by_what_came(frame: Frame) -> None:
    found = run(frame)
    rows = np.arange(3000)
    got = found.predictions[rows, frame.arm]
    expected = got + (frame.outcome - got) / frame.propensity[rows, frame.arm]
    assert found.scores[rows, frame.arm] == pytest.approx(expected)
    other = (frame.arm + 1) % 3
    assert np.array_equal(found.scores[rows, other], found.predictions[rows, other])
