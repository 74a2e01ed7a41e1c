import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from stats.errors import Problem, StatError
from stats.moments import Moments, merge
from tests.stats.reference import SPEND, hillstrom, load

ROWS = st.lists(st.tuples(*[st.integers(-(10**6), 10**6)] * 3), max_size=12)
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=60)


def from_integers(rows: list[tuple[int, ...]], scale: list[int]) -> Moments:
    k = len(scale)
    sums = [sum(row[a] for row in rows) for a in range(k)]
    products = [[sum(row[a] * row[b] for row in rows) for b in range(k)] for a in range(k)]
    return Moments.from_integer_sums(len(rows), sums, products, scale)


def assert_same(left: Moments, right: Moments) -> None:
    assert left.n == right.n
    assert_allclose(left.mean, right.mean, rtol=1e-12, atol=1e-9)
    size = np.sqrt(np.outer(np.diag(right.cross), np.diag(right.cross))).max(initial=1.0)
    assert_allclose(left.cross, right.cross, atol=1e-12 * size + 1e-9)


def test_rows_equal_numpy_mean_and_cov() -> None:
    x = np.random.default_rng(1).normal(size=(50, 3))
    moments = Moments.from_rows(x)
    assert_allclose(moments.mean, x.mean(axis=0))
    assert_allclose(moments.covariance, np.cov(x.T))


@lawful
@given(ROWS, ROWS, ROWS)
def test_merge_equals_pooling_the_rows(a: list, b: list, c: list) -> None:
    parts = [Moments.from_rows(np.reshape(rows, (-1, 3))) for rows in (a, b, c)]
    assert_same(merge(parts), Moments.from_rows(np.reshape(a + b + c, (-1, 3))))


@lawful
@given(ROWS)
def test_integer_sums_equal_the_rows(rows: list) -> None:
    scale = [1, 100, 1_000_000]
    assert_same(from_integers(rows, scale), Moments.from_rows(np.reshape(rows, (-1, 3)) / scale))


def test_zero_is_neutral() -> None:
    moments = Moments.from_rows([[1.0, 2.0], [4.0, 3.0]])
    assert_same(Moments.zero(2) + moments, moments)
    assert_same(moments + Moments.zero(2), moments)
    assert (Moments.zero(2) + Moments.zero(2)).n == 0


def test_integer_sums_survive_cancellation_that_breaks_float_sums() -> None:
    rows = [(10**15 + i % 3,) for i in range(3000)]
    naive = sum(float(x) ** 2 for (x,) in rows) - sum(float(x) for (x,) in rows) ** 2 / 3000
    exact = float(from_integers(rows, [1]).cross[0, 0])
    assert exact == 2000.0
    assert abs(naive - exact) > 1000


def test_integer_sums_are_correctly_rounded_whatever_their_size() -> None:
    big = 10**40
    moments = Moments.from_integer_sums(2, [2 * big + 1], [[big**2 + (big + 1) ** 2]], [10**6])
    assert moments.cross[0, 0] == 0.5e-12
    assert moments.mean[0] == 1e34


def test_scale_divides_the_values() -> None:
    rows = [(1, 5), (4, 2), (9, 9)]
    whole, cents = from_integers(rows, [1, 1]), from_integers(rows, [1, 100])
    assert_allclose(cents.mean, whole.mean / [1, 100])
    assert_allclose(cents.cross, whole.cross / [[1, 100], [100, 10_000]])


@pytest.mark.parametrize("value", [0.1, 1e9 / 3])
def test_constant_columns_have_exactly_no_variance_after_any_merge(value: float) -> None:
    parts = [Moments.from_rows(np.full((n, 1), value)) for n in (3, 7, 11)]
    assert merge(parts).cross[0, 0] == 0.0


def test_select_keeps_rows_and_order_of_columns() -> None:
    x = np.random.default_rng(2).normal(size=(9, 3))
    chosen = Moments.from_rows(x).select([2, 0])
    expected = Moments.from_rows(x[:, [2, 0]])
    assert_allclose(chosen.cross, expected.cross)
    assert_allclose(chosen.mean, expected.mean)


def test_hillstrom_spend_sd_equals_published_rows() -> None:
    sd = [float(np.sqrt(arm.covariance[SPEND, SPEND])) for arm in hillstrom()]
    assert_allclose(sd, [11.588199681271533, 17.75420510373683, 15.116106470737083], rtol=1e-12)
    assert [arm.n for arm in hillstrom()] == [a["n"] for a in load("hillstrom.json")["arms"].values()]


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(StatError) as caught:
        _ = Moments.from_rows([[1.0]]).covariance
    assert caught.value.code is Problem.NOT_ENOUGH_DATA


@pytest.mark.parametrize(
    ("n", "sums", "products", "scale", "reason"),
    [
        (2, [10], [[1]], [1], "cannot come from"),  # overflow: no two integers have sum 10 and sum of squares 1
        (0, [1], [[1]], [1], "without rows"),
        (2, [1], [[1]], [0], "scale"),
        (2, [1, 1], [[1]], [1, 1], "k entries"),
    ],
)
def test_impossible_sums_are_refused(
    n: int, sums: list[int], products: list[list[int]], scale: list[int], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Moments.from_integer_sums(n, sums, products, scale)


def test_floats_are_no_integer_sums() -> None:
    with pytest.raises(TypeError):
        Moments.from_integer_sums(2, [1.5], [[2]], [1])  # type: ignore[list-item]


@pytest.mark.parametrize("rows", [[[np.nan]], [[np.inf]], [1.0, 2.0]])
def test_rows_that_are_no_table_of_numbers_are_refused(rows: list) -> None:
    with pytest.raises(ValueError, match="rows must"):
        Moments.from_rows(rows)


def test_different_columns_do_not_merge() -> None:
    with pytest.raises(ValueError, match="columns"):
        Moments.zero(1) + Moments.zero(2)
    with pytest.raises(ValueError, match="nothing"):
        merge([])
