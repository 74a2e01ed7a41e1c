"""Adjusted p values over one family of hypotheses. The caller decides what a family is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stats.moments import Floats

__all__ = ["Family", "benjamini_hochberg", "fcr_level", "hierarchical", "holm"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family among several: `p_value` of "something is going on in it", `p_values` of its members, all adjusted.

    A claim is made where the adjusted p is at most q. `level` is the share of misses at which to build the intervals
    of the claimed members, so that interval and claim agree; None when nothing is claimed.
    """

    p_value: float
    p_values: list[float]
    level: float | None


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p values (Holm 1979), same order: controls any false claim, under any dependence."""
    p, order = _sorted(p_values)
    return _restore(np.maximum.accumulate(p * np.arange(p.size, 0, -1)), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Step-up p values (Benjamini & Hochberg 1995), same order: bounds the share of false claims (PRDS)."""
    p, order = _sorted(p_values)
    scaled = p * p.size / np.arange(1, p.size + 1)
    return _restore(np.minimum.accumulate(scaled[::-1])[::-1], order)


def fcr_level(p_values: Sequence[float], q: float) -> float | None:
    """Level R q / m of the intervals of the R of m hypotheses that Benjamini-Hochberg selects at q; None for R = 0.

    At that level at most a share q of the intervals shown misses on average, though they were selected (Benjamini &
    Yekutieli 2005, corollary 1), and each of them excludes what its hypothesis said.
    """
    _check_level(q)
    return _level(benjamini_hochberg(p_values), q)


def hierarchical(families: Sequence[Sequence[float]], q: float) -> list[Family]:
    """Families of p values, selected and then tested within (Benjamini & Bogomolov 2014), in the given order.

    Simes' p per family, Benjamini-Hochberg over the families at q, and within each of the R of m selected at
    q R / m: bounds at q the share of false claims, averaged over the selected families. An adjusted p is the smallest q
    at which the claim is made (R grows with q). One family gives `benjamini_hochberg`. An empty family is an error.
    """
    _check_level(q)
    if not all(len(members) for members in families):
        raise ValueError("a family needs p values")
    within = [benjamini_hochberg(members) for members in families]
    # The smallest step-up p of a family is Simes' p.
    across = benjamini_hochberg([min(adjusted) for adjusted in within])
    thresholds = np.sort(across)
    scale = len(families) / np.arange(1, len(families) + 1)
    share = sum(p <= q for p in across) / max(len(families), 1)
    result = []
    for family, adjusted in zip(across, within, strict=True):
        # With k families selected; a family not yet among them has larger p * m / k than its own p.
        members = [min(1.0, float(np.maximum(thresholds, p * scale).min())) for p in adjusted]
        result.append(Family(family, members, _level(members, q, share)))
    return result


def _level(adjusted: Sequence[float], q: float, share: float = 1.0) -> float | None:
    claims = sum(p <= q for p in adjusted)
    return claims / len(adjusted) * share * q if claims else None


def _check_level(q: float) -> None:
    if not 0 < q < 1:
        raise ValueError(f"q must be in (0, 1): {q}")


def _sorted(p_values: Sequence[float]) -> tuple[Floats, list[int]]:
    p = np.array(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p values must be in [0, 1]")
    order = np.argsort(p, kind="stable")
    return p[order], order.tolist()


def _restore(adjusted: Floats, order: list[int]) -> list[float]:
    restored = np.empty_like(adjusted)
    restored[order] = np.minimum(adjusted, 1.0)
    return [float(value) for value in restored]
