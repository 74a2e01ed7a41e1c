import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stats.budget import Allocation, allocate, marginal, spend_curve
from stats.errors import Problem, StatError

lawful = settings(database=None, derandomize=True, deadline=None, max_examples=60)


def problem(seed: int, n: int, k: int, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gains = rng.normal(0.3, 1, (n, k))
    if coarse:
        gains = np.round(gains)
    gains[:, 0] = 0
    costs = rng.integers(0, 5, (n, k)).astype(float)
    costs[:, 0] = 0
    return gains, costs


def check(found: Allocation, gains: np.ndarray, costs: np.ndarray, budget: float | None, contacts: int | None) -> None:
    rows = np.arange(len(gains))
    assert found.gain == pytest.approx(gains[rows, found.policy].sum())
    assert found.cost == pytest.approx(np.broadcast_to(costs, gains.shape)[rows, found.policy].sum())
    assert found.contacts == (found.policy > 0).sum()
    assert budget is None or found.cost <= budget * (1 + 1e-9)
    assert contacts is None or found.contacts <= contacts


@lawful
@given(
    st.integers(0, 10_000),
    st.integers(1, 25),
    st.integers(2, 5),
    st.booleans(),
    st.sampled_from(["budget", "contacts", "both", "none"]),
    st.booleans(),
)
def test_equals_the_integer_program(seed: int, n: int, k: int, coarse: bool, limits: str, net: bool) -> None:
    gains, costs = problem(seed, n, k, coarse)
    rng = np.random.default_rng(seed + 1)
    budget = float(rng.integers(0, 2 * n + 1)) if limits in ("budget", "both") else None
    contacts = int(rng.integers(0, n + 1)) if limits in ("contacts", "both") else None
    allowed = rng.random((n, k)) > 0.2
    allowed[:, 0] = True
    found = allocate(gains, costs, budget, contacts, allowed, net)
    exact = allocate(gains, costs, budget, contacts, allowed, net, exact=True)
    for each in (found, exact):
        check(each, gains, costs, budget, contacts)
        assert allowed[np.arange(n), each.policy].all()
        assert each.objective <= each.bound + 1e-9
        assert each.objective == pytest.approx(each.gain - net * each.cost)
    # The users around the margin are all users here: branch and bound finishes.
    assert found.objective == pytest.approx(exact.objective, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("coarse", [False, True])
def test_many_users_are_within_one_step_of_the_bound(seed: int, coarse: bool) -> None:
    gains, costs = problem(seed, 3000, 4, coarse)
    step = (gains.max(axis=1)).max()
    for budget, contacts in ((900.0, None), (None, 700), (2500.0, None)):
        found = allocate(gains, costs, budget, contacts)
        check(found, gains, costs, budget, contacts)
        assert 0 <= found.gap <= step
    # Everyone's best costs more than either limit: both bind, three columns mix at most.
    found = allocate(gains, costs, 1500.0, 1100)
    check(found, gains, costs, 1500.0, 1100)
    assert found.gap <= 2 * step
    assert found.price > 0 or found.contact_price > 0


@lawful
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(2, 5), st.booleans(), st.booleans(), st.booleans())
def test_equals_the_integer_program_with_a_stock_of_each_arm(
    seed: int, n: int, k: int, coarse: bool, money: bool, touches: bool
) -> None:
    gains, costs = problem(seed, n, k, coarse)
    rng = np.random.default_rng(seed + 1)
    budget = float(rng.integers(0, 2 * n + 1)) if money else None
    contacts = int(rng.integers(0, n + 1)) if touches else None
    stock = np.where(rng.random(k) < 0.7, rng.integers(0, n, k), np.inf)
    stock[0] = np.inf
    allowed = rng.random((n, k)) > 0.2
    allowed[:, 0] = True
    found = allocate(gains, costs, budget, contacts, allowed, stock=stock)
    exact = allocate(gains, costs, budget, contacts, allowed, stock=stock, exact=True)
    for each in (found, exact):
        check(each, gains, costs, budget, contacts)
        assert (np.bincount(each.policy, minlength=k) <= stock).all()
        assert allowed[np.arange(n), each.policy].all()
        assert each.objective <= each.bound + 1e-9
    assert found.objective == pytest.approx(exact.objective, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("coarse", [False, True])
def test_with_all_limits_what_may_be_lacking_is_proven_small(seed: int, coarse: bool) -> None:
    gains, costs = problem(seed, 3000, 4, coarse)
    step = gains.max()
    for budget, contacts, stock in (
        (None, None, [np.inf, 300, 500, 200]),
        (1500.0, None, [np.inf, 150, np.inf, 400]),
        (1500.0, 1100, [np.inf, 300, 500, 200]),
    ):
        found = allocate(gains, costs, budget, contacts, stock=stock)
        check(found, gains, costs, budget, contacts)
        assert (np.bincount(found.policy, minlength=4) <= stock).all()
        limits = (budget is not None) + (contacts is not None) + np.isfinite(stock).sum()
        assert 0 <= found.gap <= limits * step
        assert found.stock_prices[0] == 0


def test_what_one_more_of_an_arm_brings_is_its_stock_price() -> None:
    gains, costs = problem(11, 20_000, 3)
    found, more = (allocate(gains, costs, stock=[np.inf, many, 3000]) for many in (2000, 2010))
    assert more.gain - found.gain == pytest.approx(10 * found.stock_prices[1], rel=0.02)
    assert allocate(gains, costs, stock=[np.inf, 20_000, 20_000]).stock_prices.tolist() == [0, 0, 0]


def test_a_stock_above_the_sample_of_prices_is_kept() -> None:
    # More users than those whose prices come first.
    gains, costs = problem(12, 60_000, 5)
    stock = [np.inf, 4000, 3000, 5000, 2000]
    found = allocate(gains, costs, 30_000.0, 12_500, stock=stock)
    check(found, gains, costs, 30_000.0, 12_500)
    assert (np.bincount(found.policy, minlength=5) <= stock).all()
    assert found.gap <= 6 * gains.max()


def test_a_tie_between_kinds_of_users_is_mixed_to_fill_both_limits() -> None:
    # One contact of the first kind costs 1 and gains 1, of the second 2 and 1.5: 50 of each use up both limits.
    gains = np.zeros((1000, 3))
    gains[:500, 1], gains[500:, 2] = 1.0, 1.5
    gains[:500, 2], gains[500:, 1] = 1.0, -1.0
    found = allocate(gains, [0, 1, 2], 150, 100)
    assert (found.cost, found.contacts, found.gain) == (150, 100, 125)
    assert found.bound == pytest.approx(125)


def test_prices_are_what_one_more_unit_brings() -> None:
    gains, costs = problem(7, 20_000, 4)
    found, more = allocate(gains, costs, 5000), allocate(gains, costs, 5010)
    assert more.gain - found.gain == pytest.approx(10 * found.price, rel=0.02)
    found, more = allocate(gains, costs, None, 5000), allocate(gains, costs, None, 5010)
    assert more.gain - found.gain == pytest.approx(10 * found.contact_price, rel=0.02)
    assert (found.price, allocate(gains, costs).price) == (0.0, 0.0)


def test_no_limit_gives_everyone_the_best_arm_and_a_tie_the_cheaper() -> None:
    gains = np.array([[0, 1, 3], [0, -1, -2], [0, 2, 2], [0, 0, 0.0]])
    found = allocate(gains, [0, 1, 2.5])
    assert found.policy.tolist() == [2, 0, 1, 0]
    assert found.gap == 0
    assert allocate(gains, [0, 1, 2.5], net=True).policy.tolist() == [2, 0, 1, 0]
    assert allocate(gains, [0, 2, 5], net=True).policy.tolist() == [0, 0, 0, 0]
    assert allocate(gains, [0, 1, 2.5], 0).policy.tolist() == [0, 0, 0, 0]
    assert allocate(gains, [0, 0, 2.5], 0).policy.tolist() == [1, 0, 1, 0]
    assert allocate(gains, [0, 0, 2.5], 0, 1).policy.tolist() == [0, 0, 1, 0]


def test_costs_that_add_up_to_the_budget_but_for_rounding_fit() -> None:
    gains = np.tile([0.0, 1.0], (1000, 1))
    assert allocate(gains, [0, 0.1], 100.0).contacts == 1000
    assert allocate(gains, [0, 0.1], 99.9).contacts == 999


@lawful
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_units_and_order_of_users_do_not_matter(seed: int, money: float, value: float) -> None:
    gains, costs = problem(seed, 40, 4)
    plain = allocate(gains, costs, 20)
    order = np.random.default_rng(seed).permutation(40)
    moved = allocate(gains[order] * value, costs[order] * money, 20 * money)
    assert moved.objective == pytest.approx(plain.objective * value, rel=1e-9)
    assert moved.price == pytest.approx(plain.price * value / money, rel=1e-9)


def test_curve_is_all_budgets_at_once() -> None:
    gains, costs = problem(8, 500, 4)
    curve = spend_curve(gains, costs, 50)
    assert curve.spend[0] == 0
    assert (np.diff(curve.spend) > 0).all()
    assert (np.diff(curve.gain) > 0).all()
    for at in (0, 10, 30, -1):
        found = allocate(gains, costs, curve.spend[at])
        # A full budget leaves nothing for the branch and bound to gain.
        assert found.gain == pytest.approx(curve.gain[at])
        assert found.contacts == curve.contacts[at]
        assert curve.users[at].tolist() == np.bincount(found.policy, minlength=4).tolist()
    # Concave: the gain per unit of money falls.
    slopes = np.diff(curve.gain) / np.diff(curve.spend)
    assert (np.diff(slopes) <= 1e-9).all()
    assert ((curve.price[:-1] >= slopes - 1e-9) & (slopes >= curve.price[1:] - 1e-9)).all()
    assert curve.gain[-1] == pytest.approx(allocate(gains, costs).gain)
    chosen = spend_curve(gains, costs, [30.0, 10.0, 1e9])
    assert len(chosen.spend) == 3
    assert (chosen.spend[:2] <= [10, 30]).all()
    assert marginal(curve, 0, 1e9) == pytest.approx(curve.gain[-1] - curve.gain[0])
    assert marginal(curve, curve.spend[20], 5) == pytest.approx(5 * curve.price[20], rel=0.1)
    assert marginal(curve, 1e9, 1000) == 0


def test_realised_value_is_that_of_the_scores_of_the_policy() -> None:
    gains, costs = problem(9, 400, 4)
    scores = gains + np.random.default_rng(9).normal(size=gains.shape)
    curve = spend_curve(gains, costs, 9, scores)
    assert curve.realised is not None
    assert curve.lower is not None
    for at in range(len(curve.spend)):
        found = allocate(gains, costs, curve.spend[at])
        rows = np.arange(400)
        gained = scores[rows, found.policy] - scores[:, 0]
        assert curve.realised[at] == pytest.approx(gained.sum())
        influence = gained - curve.price[at] * costs[rows, found.policy]
        half = scipy.stats.norm.isf(0.025) * influence.std(ddof=1) * 20
        assert curve.realised[at] - curve.lower[at] == pytest.approx(half)
    assert spend_curve(gains, costs, 9).realised is None


def test_band_covers_the_value_of_the_budget_per_user() -> None:
    # Costs differ by user, so the margin moves from sample to sample.
    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        gains, costs = rng.normal(0.2, 1, (n, 3)), np.exp(rng.normal(0, 0.7, (n, 3)))
        gains[:, 0] = costs[:, 0] = 0
        return gains, costs

    rng = np.random.default_rng(20241108)
    gains, costs = draw(400_000, rng)
    truth = allocate(gains, costs, 0.3 * 400_000).gain / 400_000
    covered = 0
    for _ in range(400):
        gains, costs = draw(400, rng)
        curve = spend_curve(gains, costs, [0.3 * 400], gains + rng.normal(0, 0.5, gains.shape) * (costs > 0))
        assert curve.lower is not None
        assert curve.upper is not None
        covered += curve.lower[0] <= truth * 400 <= curve.upper[0]
    assert scipy.stats.binomtest(int(covered), 400, 0.95).pvalue > 1e-3


def test_wrong_arguments() -> None:
    gains, costs = np.array([[0, 1.0], [0, 2.0]]), np.array([0, 1.0])
    yes = np.ones((2, 2), dtype=bool)
    for g, c, budget, contacts, allowed, says in (
        (gains[0], costs, 1, None, None, "gains"),
        (gains[:, :1], costs[:1], 1, None, None, "gains"),
        (gains + 1, costs, 1, None, None, "first column"),
        (gains * np.nan, costs, 1, None, None, "gains"),
        (gains, costs[:1], 1, None, None, "costs"),
        (gains, -costs, 1, None, None, "costs"),
        (gains, costs + 1, 1, None, None, "control"),
        (gains, costs, -1, None, None, "budget"),
        (gains, costs, np.nan, None, None, "budget"),
        (gains, costs, None, -1, None, "contacts"),
        (gains, costs, 1, None, yes[:1], "allowed"),
        (gains, costs, 1, None, ~yes, "control allowed"),
        (gains, costs, 1, None, yes * 1, "bool"),
    ):
        with pytest.raises(ValueError, match=says):
            allocate(g, c, budget, contacts, allowed)
    for stock in ([np.inf, -1], [3, 3], [np.inf], [np.inf, np.nan]):
        with pytest.raises(ValueError, match="stock"):
            allocate(gains, costs, stock=stock)
    with pytest.raises(ValueError, match="exact is for"):
        allocate(np.zeros((20_000, 2)), costs, 1, exact=True)
    curve = spend_curve(gains, costs)
    for points in (1, [], [-1.0], [np.nan]):
        with pytest.raises(ValueError, match="points"):
            spend_curve(gains, costs, points)
    with pytest.raises(ValueError, match="scores"):
        spend_curve(gains, costs, scores=gains[:1])
    with pytest.raises(ValueError, match="alpha"):
        spend_curve(gains, costs, scores=gains, alpha=0)
    with pytest.raises(ValueError, match="step"):
        marginal(curve, 0, 0)
    with pytest.raises(StatError) as caught:
        spend_curve(gains[:1], costs, scores=gains[:1])
    assert caught.value.code is Problem.NOT_ENOUGH_DATA
