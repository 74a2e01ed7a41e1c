"""Shares of traffic as whole buckets: which bucket ranges belong to which arm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from .errors import DocumentError
from .hashing import BUCKETS

__all__ = ["allocation", "ten_thousandths"]

# 0.07 x 10,000 is not exactly 700 in binary; anything further off is a share finer than one bucket.
_TOLERANCE = 1e-6


def ten_thousandths(share: object, path: str) -> int:
    """Return a share in [0, 1] as a whole number of buckets, 0 to 10,000.

    `path` names the field in the error. Raises `DocumentError` unless the share is a multiple of 0.0001 in [0, 1].
    """
    if isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1:
        whole = round(share * BUCKETS)
        if abs(share * BUCKETS - whole) < _TOLERANCE:
            return whole
    raise DocumentError(path, share, "give a share between 0 and 1 in steps of 0.0001")


def allocation(weights: Sequence[float] | int, coverage: float = 1.0) -> tuple[tuple[int, int], ...]:
    """Return the half-open bucket range (start, end) of every arm, in the order of `weights`.

    Arm i starts at its cumulative weight and is `coverage x weight` wide, rounded down, so raising `coverage` (a share)
    moves nobody between arms. `weights` are shares that sum to 1, or the number of equal arms. The sum may fall short
    by one bucket for each arm but one, so that thirds can be written 0.3333; what is missing stays unassigned. The
    widths are the expected counts of the arms up to a common factor. Raises `DocumentError`.
    """
    if isinstance(weights, int):
        whole = [BUCKETS // max(weights, 1)] * weights
    else:
        whole = [ten_thousandths(weight, f"weights[{i}]") for i, weight in enumerate(weights)]
    if not BUCKETS - len(whole) < sum(whole) <= BUCKETS:
        remedy = f"give shares that sum to 1, not to {sum(whole) / BUCKETS:g}"
        raise DocumentError("weights", weights, remedy)
    covered = ten_thousandths(coverage, "coverage")
    starts = accumulate(whole, initial=0)
    return tuple((start, start + covered * width // BUCKETS) for start, width in zip(starts, whole, strict=False))
