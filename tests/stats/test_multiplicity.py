import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from stats.multiplicity import benjamini_hochberg, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
lawful = settings(database=None, derandomize=True, deadline=None, max_examples=100)


@settings(lawful, max_examples=15)  # the oracle takes 0.1 s
@given(P_VALUES)
def test_adjusted_p_values_equal_statsmodels_in_the_same_order(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1].tolist())


@lawful
@given(P_VALUES)
def test_holm_is_between_benjamini_hochberg_and_bonferroni(p: list[float]) -> None:
    for raw, bh, step_down in zip(p, benjamini_hochberg(p), holm(p), strict=True):
        assert raw <= bh + 1e-12
        assert bh <= step_down + 1e-12
        assert step_down <= min(1.0, len(p) * raw) + 1e-12


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_one_p_value_stays_and_none_gives_none(adjust) -> None:
    assert adjust([0.03]) == [0.03]
    assert adjust([]) == []


@pytest.mark.parametrize("p", [[1.1], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match="p values"):
        holm(p)
