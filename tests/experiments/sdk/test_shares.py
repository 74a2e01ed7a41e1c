"""Bucket ranges against written cases and the laws that make them safe to widen."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sdk import DocumentError, allocation
from experiments.sdk.hashing import BUCKETS

CASES = json.loads((Path(__file__).parents[2] / "cases" / "allocation.json").read_text("utf-8"))["cases"]

shares = st.integers(0, BUCKETS).map(lambda whole: whole / BUCKETS)
cuts = st.lists(st.integers(0, BUCKETS), max_size=9).map(sorted)
weightings = cuts.map(
    lambda ends: [(b - a) / BUCKETS for a, b in zip([0, *ends], [*ends, BUCKETS], strict=True)]
) | st.integers(1, 100)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_ranges_equal_the_case(case):
    if case["ranges"] is None:
        with pytest.raises(DocumentError):
            allocation(case["weights"], case["coverage"])
    else:
        assert allocation(case["weights"], case["coverage"]) == tuple(map(tuple, case["ranges"]))


@given(weightings, shares, shares)
def test_raising_coverage_moves_nobody(weights, one, other):
    narrow, wide = (allocation(weights, coverage) for coverage in sorted((one, other)))
    for (start, end), (wide_start, wide_end) in zip(narrow, wide, strict=True):
        assert start == wide_start
        assert end <= wide_end


@given(weightings, shares)
def test_ranges_are_disjoint_and_in_order(weights, coverage):
    bounds = [bound for range_ in allocation(weights, coverage) for bound in range_]
    assert bounds == sorted(bounds)
    assert 0 <= bounds[0] <= bounds[-1] <= BUCKETS


@given(st.integers(1, 100), shares)
def test_equal_arms_are_exactly_equal(arms, coverage):
    assert len({end - start for start, end in allocation(arms, coverage)}) == 1


@pytest.mark.parametrize("share", [float("nan"), float("inf"), True, "0.5", None, -0.0001, 1.0001, 0.00005])
def test_what_is_no_share_is_refused_with_its_path(share):
    with pytest.raises(DocumentError) as refused:
        allocation([share, 0.5])
    assert refused.value.path == "weights[0]"
    assert refused.value.remedy in str(refused.value)
