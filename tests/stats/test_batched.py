import numpy as np
import pytest

from stats import arms
from stats.adaptive import batched
from stats.arms import ArmVector
from stats.moments import Moments


def batch(rng: np.random.Generator, counts: tuple[int, ...], level: float = 0.0) -> ArmVector:
    return arms.means([Moments.from_rows(level + arm + rng.normal(size=(n, 1))) for arm, n in enumerate(counts)])


def batches(seed: int = 1) -> list[ArmVector]:
    rng = np.random.default_rng(seed)
    return [batch(rng, counts, level) for counts, level in (((50, 50), 0), ((20, 80), 5), ((10, 190), -3))]


def test_equals_the_formula_batch_by_batch() -> None:
    parts, users = batches(), [120, 100, 260]
    found = batched(parts, users)
    one = [sum(p.n[a] ** 2 * p.covariance[a, a] for p in parts) / sum(p.n[a] for p in parts) for a in (0, 1)]
    sd = [np.sqrt(one[0] / p.n[0] + one[1] / p.n[1]) for p in parts]
    weights = [np.sqrt(n) / s for n, s in zip(users, sd, strict=True)]
    total = sum(weights)
    assert found.mean[1] - found.mean[0] == pytest.approx(
        sum(w * (p.mean[1] - p.mean[0]) for w, p in zip(weights, parts, strict=True)) / total
    )
    assert found.difference_variance(1, 0) == pytest.approx(
        sum(w**2 * (p.covariance[0, 0] + p.covariance[1, 1]) for w, p in zip(weights, parts, strict=True)) / total**2
    )
    assert found.n.tolist() == [80, 320]


def test_a_level_that_differs_between_batches_cancels() -> None:
    parts = batches()
    moved = [ArmVector(p.n, p.mean + 100 * i, p.covariance, p.satterthwaite) for i, p in enumerate(parts)]
    one, other = batched(parts), batched(moved)
    assert other.mean[1] - other.mean[0] == pytest.approx(one.mean[1] - one.mean[0])
    assert other.covariance == pytest.approx(one.covariance)


def test_equal_shares_are_weighed_by_users_and_one_batch_is_itself() -> None:
    rng = np.random.default_rng(2)
    parts = [batch(rng, (50, 50)), batch(rng, (200, 200))]
    found = batched(parts)
    assert found.mean == pytest.approx(0.2 * parts[0].mean + 0.8 * parts[1].mean)
    assert batched(parts[:1]).covariance == pytest.approx(parts[0].covariance)
    assert batched(parts[:1]).satterthwaite == pytest.approx(parts[0].satterthwaite)


def test_nothing_varies() -> None:
    none = arms.means([Moments.from_rows(np.zeros((9, 1))), Moments.from_rows(np.zeros((4, 1)))])
    assert batched([none, none]).mean.tolist() == [0, 0]


def test_wrong_arguments() -> None:
    parts = batches()
    empty = ArmVector(np.array([0, 5]), np.zeros(2), np.eye(2), np.zeros(2))
    three = batch(np.random.default_rng(1), (5, 5, 5))
    for given, users, says in (
        ([], None, "nothing"),
        ([*parts, empty], None, "lack"),
        ([*parts, three], None, "same arms"),
        (parts, [1, 2], "users"),
        (parts, [1, 2, 0], "users"),
    ):
        with pytest.raises(ValueError, match=says):
            batched(given, users)
