"""Adjusted p values over one family of hypotheses. The caller decides what a family is."""

from collections.abc import Sequence

import numpy as np

from stats.moments import Floats

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p values (Holm 1979), same order: controls any false claim, under any dependence."""
    p, order = _sorted(p_values)
    return _restore(np.maximum.accumulate(p * np.arange(p.size, 0, -1)), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Step-up p values (Benjamini & Hochberg 1995), same order: bounds the share of false claims (PRDS)."""
    p, order = _sorted(p_values)
    scaled = p * p.size / np.arange(1, p.size + 1)
    return _restore(np.minimum.accumulate(scaled[::-1])[::-1], order)


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
