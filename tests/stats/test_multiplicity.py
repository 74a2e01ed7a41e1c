import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from stats.multiplicity import benjamini_hochberg, fcr_level, hierarchical, holm

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


def test_fcr_level_is_the_share_selected() -> None:
    p = [0.001, 0.01, 0.04, 0.3, 0.8]
    assert fcr_level(p, 0.05) == pytest.approx(2 / 5 * 0.05)
    assert fcr_level([0.2, 0.9], 0.05) is None
    assert fcr_level([], 0.05) is None
    assert fcr_level([0.0, 0.0], 0.05) == 0.05


@lawful
@given(P_VALUES, st.floats(0.01, 0.5))
def test_intervals_at_the_fcr_level_exclude_exactly_what_was_rejected(p: list[float], q: float) -> None:
    level = fcr_level(p, q)
    for raw, adjusted in zip(p, benjamini_hochberg(p), strict=True):
        assert (adjusted <= q) == (level is not None and raw <= level * (1 + 1e-12))


@lawful
@given(P_VALUES, st.floats(0.01, 0.5))
def test_one_family_is_benjamini_hochberg(p: list[float], q: float) -> None:
    (family,) = hierarchical([p], q)
    assert family.p_values == pytest.approx(benjamini_hochberg(p))
    assert family.p_value == min(family.p_values)
    assert family.level == fcr_level(p, q)


@lawful
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=5), st.floats(0.01, 0.9))
def test_claims_are_those_of_the_two_steps(families: list[list[float]], q: float) -> None:
    simes = [min(len(f) * p / (i + 1) for i, p in enumerate(sorted(f))) for f in families]
    selected = [p <= q for p in benjamini_hochberg([min(1.0, p) for p in simes])]
    share = sum(selected) / len(families)
    for family, chosen, found in zip(families, selected, hierarchical(families, q), strict=True):
        for raw, p in zip(benjamini_hochberg(family), found.p_values, strict=True):
            if abs(p - q) > 1e-9:
                assert (p <= q) == (chosen and raw <= share * q)
        claims = sum(p <= q for p in found.p_values)
        assert found.level == (pytest.approx(q * share * claims / len(family)) if claims else None)


def test_share_of_false_claims_averaged_over_selected_families_is_bounded() -> None:
    rng = np.random.default_rng(20240605)
    shares = []
    for _ in range(400):
        effects = (rng.random((10, 6)) < 0.3) * (rng.random((10, 1)) < 0.5) * 3.0
        p = scipy.stats.norm.sf(rng.normal(size=(10, 6)) + effects)
        found = hierarchical(p.tolist(), 0.1)
        false = [
            sum(p <= 0.1 and not e for p, e in zip(family.p_values, truth, strict=True))
            / max(1, sum(p <= 0.1 for p in family.p_values))
            for family, truth in zip(found, effects, strict=True)
            if family.p_value <= 0.1
        ]
        shares.append(np.mean(false) if false else 0.0)
    assert 0.01 < np.mean(shares) < 0.1


def test_families_and_levels_are_checked() -> None:
    with pytest.raises(ValueError, match="family"):
        hierarchical([[0.1], []], 0.05)
    for q in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="q must"):
            hierarchical([[0.1]], q)
        with pytest.raises(ValueError, match="q must"):
            fcr_level([0.1], q)
    assert hierarchical([], 0.05) == []
