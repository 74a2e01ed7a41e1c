import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.errors import Problem, StatError
from stats.policy_tree import Condition, Leaf, Node, Rule, Tree, fit

lawful = settings(database=None, derandomize=True, deadline=None, max_examples=60)


def splits(x: np.ndarray) -> list[np.ndarray]:
    """Every cut as the users on its true side."""
    found = []
    for column in x.T:
        values = np.unique(column[~np.isnan(column)])
        found += [column <= v for v in values[:-1]]
        if 0 < np.isnan(column).sum() < column.size:
            found.append(np.isnan(column))
    return found


def brute_force(x: np.ndarray, scores: np.ndarray, depth: int, min_leaf: int) -> float:
    """Largest sum of scores over all trees, tried one by one."""

    def best(inside: np.ndarray, left: int) -> float:
        value = scores[inside].sum(axis=0).max() if inside.sum() >= min_leaf else -math.inf
        if left:
            for side in cuts:
                value = max(value, best(inside & side, left - 1) + best(inside & ~side, left - 1))
        return float(value)

    cuts = splits(x)
    return best(np.ones(len(x), dtype=bool), depth)


def realised(tree: Tree, x: np.ndarray, scores: np.ndarray) -> float:
    return float(scores[np.arange(len(x)), tree.predict(x)].sum())


@lawful
@given(
    st.integers(0, 10_000), st.integers(4, 14), st.integers(1, 3), st.integers(2, 4), st.integers(0, 2), st.booleans()
)
def test_no_tree_is_better(seed: int, n: int, p: int, k: int, depth: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, (n, p)).astype(float)
    x[rng.random((n, p)) < 0.15] = np.nan
    scores = rng.integers(-2, 3, (n, k)).astype(float) if coarse else rng.normal(size=(n, k))
    for min_leaf in (1, 2, 4):
        tree = fit(x, scores, depth, min_leaf)
        assert tree.value * n == pytest.approx(brute_force(x, scores, depth, min_leaf), abs=1e-9)
        assert realised(tree, x, scores) == pytest.approx(tree.value * n, abs=1e-9)
        assert sum(leaf.n for leaf in tree.leaves) == n
        assert min(leaf.n for leaf in tree.leaves) >= min_leaf
        assert max(len(leaf.conditions) for leaf in tree.leaves) <= depth


@pytest.mark.parametrize("seed", range(5))
def test_depth_three_is_at_least_as_good_as_two_and_no_better_than_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, scores = rng.integers(0, 3, (20, 2)).astype(float), rng.normal(size=(20, 3))
    two, three = fit(x, scores, 2), fit(x, scores, 3)
    assert two.value <= three.value <= brute_force(x, scores, 3, 1) / 20 + 1e-12
    assert realised(three, x, scores) == pytest.approx(three.value * 20)


def test_the_rules_read_as_they_are() -> None:
    # Reward for arm 1 below 30 in the set, arm 2 where the age is unknown, else nothing.
    age = np.array([20, 25, 30, 35, 40, np.nan, np.nan, 20.0])
    inside = np.array([1, 1, 1, 1, 1, 1, 0, 0.0])
    scores = np.zeros((8, 3))
    scores[:, 1] = np.where((age <= 30) & (inside == 1), 1, -1)
    scores[:, 2] = np.where(np.isnan(age), 5, -2)
    tree = fit(np.column_stack([inside, age]), scores, 2)
    young, older = Condition(1, "<=", 30.0, True), Condition(1, "<=", 30.0, False)
    assert tree.leaves == [
        Rule((young, Condition(0, "<=", 0.0, True)), 0, 1),
        Rule((young, Condition(0, "<=", 0.0, False)), 1, 3),
        Rule((older, Condition(1, "missing", None, True)), 2, 2),
        Rule((older, Condition(1, "missing", None, False)), 0, 2),
    ]
    assert tree.value == 13 / 8
    # At prediction a value missing where none was before is on the side of "not <=".
    new = np.array([[np.nan, 20.0], [1, 29.9], [1, 30.1], [0, np.nan]])
    assert tree.predict(new).tolist() == [1, 1, 0, 2]


def test_ties_go_to_the_first_arm_and_to_the_smaller_tree() -> None:
    x = np.arange(6.0)[:, None]
    assert fit(x, np.zeros((6, 3)), 2).root == Leaf(0, 6)
    # Sums that are equal but for rounding.
    scores = np.column_stack([np.full(6, 0.3), np.full(6, 0.1 + 0.2)])
    assert fit(x, scores, 2).root == Leaf(0, 6)
    # Both features split alike: the first is asked; users 2 and 3 gain nothing either way: the lowest cut.
    scores = np.column_stack([np.zeros(6), [-1, -1, 0, 0, 1, 1]])
    tree = fit(np.column_stack([x, x * 10]), scores, 1)
    assert tree.leaves[0].conditions == (Condition(0, "<=", 1.0, True),)
    assert [leaf.arm for leaf in tree.leaves] == [0, 1]


@pytest.mark.parametrize("depth", [2, 3])
def test_a_question_whose_sides_go_on_alike_is_not_asked(depth: int) -> None:
    # The first feature ties with the second as the first question, as long as the second is asked on both sides.
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5, dtype=float)
    scores = np.column_stack([np.zeros(20), np.where(x[:, 1] == 1, 2.0, -1.0)])
    tree = fit(x, scores, depth)
    asked = Condition(1, "<=", 0.0, True)
    assert tree.root == Node(asked, Leaf(0, 10), Leaf(1, 10))
    assert tree.value == pytest.approx(realised(tree, x, scores) / 20) == pytest.approx(1)


def test_columns_without_a_cut_are_never_asked() -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(30, 2))
    x = np.column_stack([np.full(30, 7.0), np.full(30, np.nan)])
    assert isinstance(fit(x, scores, 2).root, Leaf)
    assert isinstance(fit(np.empty((30, 0)), scores, 2).root, Leaf)
    x[0, 0] = np.nan
    assert {c.feature for leaf in fit(x, scores, 2).leaves for c in leaf.conditions} <= {0}


def test_quantile_cuts_find_a_known_policy() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20_000, 4))
    gain = np.where((x[:, 1] > 0.5) & (x[:, 3] <= 0), 1.0, -1.0)
    tree = fit(x, np.column_stack([np.zeros(20_000), gain + rng.normal(size=20_000)]), 2, min_leaf=100)
    treated = [leaf for leaf in tree.leaves if leaf.arm == 1]
    assert len(treated) == 1
    found = {c.feature: (c.threshold, c.holds) for c in treated[0].conditions}
    assert found[1] == (pytest.approx(0.5, abs=0.08), False)
    assert found[3] == (pytest.approx(0.0, abs=0.08), True)
    # Cuts are values that occur.
    assert all(c.threshold in x[:, c.feature] for c in treated[0].conditions)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_users_and_features_does_not_matter(order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x, scores = rng.normal(size=(200, 3)), rng.normal(size=(200, 3))
    shuffled = rng.permutation(200)
    plain = fit(x, scores, 2)
    moved = fit(x[shuffled][:, order], scores[shuffled], 2)
    assert moved.value == pytest.approx(plain.value, rel=1e-12)
    assert (moved.predict(x[:, order]) == plain.predict(x)).all()


def test_wrong_arguments() -> None:
    x, scores = np.zeros((4, 2)), np.zeros((4, 2))
    for features, s, depth, least, cuts, says in (
        (x[:, 0], scores, 2, 1, 32, "features"),
        (x[:0], scores[:0], 2, 1, 32, "features"),
        (x + np.inf, scores, 2, 1, 32, "features"),
        (x, scores[:3], 2, 1, 32, "scores"),
        (x, scores * np.nan, 2, 1, 32, "scores"),
        (x, scores, 4, 1, 32, "depth"),
        (x, scores, 2, 0, 32, "min_leaf"),
        (x, scores, 2, 1, 0, "cuts"),
    ):
        with pytest.raises(ValueError, match=says):
            fit(features, s, depth, least, cuts)
    with pytest.raises(ValueError, match="2 features"):
        fit(x, scores).predict(x[:, :1])
    with pytest.raises(StatError) as caught:
        fit(x, scores, min_leaf=5)
    assert caught.value.code is Problem.NOT_ENOUGH_DATA
