"""Sample ratio mismatch: did the arms get the shares of users that the plan gave them, stratum by stratum?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.stats

from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["RatioTest", "SampleRatio", "srm"]


@dataclass(frozen=True, slots=True)
class RatioTest:
    """A chi-square test of observed against expected users."""

    statistic: float
    df: int
    p_value: float


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The test over all strata, users per arm, and Pearson's test in each stratum (None: nothing to test there)."""

    overall: RatioTest
    observed: tuple[int, ...]
    expected: tuple[float, ...]
    strata: tuple[RatioTest | None, ...]


def srm(observed: npt.ArrayLike, expected_shares: npt.ArrayLike) -> SampleRatio:
    """Test the counts `observed` (S, K) against `expected_shares` (S, K), non-negative, any positive row sum.

    Given the users n_s of a stratum its arms are multinomial with shares w_s. Summed over strata O - E has covariance
    G = sum n_s (diag(w_s) - w_s w_s'), so (O - E)' G^- (O - E) is chi-square with rank(G) degrees of freedom; with
    equal shares in all strata that is Pearson's statistic (Pearson 1900). Strata that deviate in opposite directions
    cancel in it: look at `strata` too. The approximation wants about five expected users per open arm. One look only.
    Raises StatError(unexpected_users) for users in an arm whose share is zero there, StatError(not_enough_data) when
    there are no users or no two open arms.
    """
    counts = np.asarray(observed)
    shares = np.asarray(expected_shares, dtype=np.float64)
    if counts.ndim != 2 or counts.shape != shares.shape:
        raise ValueError(f"observed {counts.shape} and expected_shares {shares.shape} must both be (S, K)")
    if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError("observed must be counts")
    if not np.isfinite(shares).all() or (shares < 0).any() or (shares.sum(axis=1) <= 0).any():
        raise ValueError("expected_shares must be non-negative and positive in sum")
    shares = shares / shares.sum(axis=1, keepdims=True)
    for stratum, arm in np.argwhere((counts > 0) & (shares == 0)).tolist():
        raise StatError(Problem.UNEXPECTED_USERS, stratum=stratum, arm=arm, users=int(counts[stratum, arm]))
    users = counts.sum(axis=1)
    overall = _test(counts, shares)
    if overall is None:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=int(users.sum()))
    return SampleRatio(
        overall=overall,
        observed=tuple(counts.sum(axis=0).tolist()),
        expected=tuple((users @ shares).tolist()),
        strata=tuple(_test(counts[s : s + 1], shares[s : s + 1]) for s in range(len(counts))),
    )


def _test(counts: npt.NDArray[np.integer], shares: Floats) -> RatioTest | None:
    users = counts.sum(axis=1).astype(np.float64)
    deviation = counts.sum(axis=0) - users @ shares
    covariance = np.diag(users @ shares) - (shares.T * users) @ shares
    scale = np.sqrt(np.where(np.diag(covariance) > 0, np.diag(covariance), 1.0))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    # The null directions (closed arms, all arms together) are zero up to rounding, the others are not small.
    kept = values > 1e-9
    df = int(kept.sum())
    if df == 0:
        return None
    projected = vectors[:, kept].T @ (deviation / scale)
    statistic = float(projected**2 @ (1 / values[kept]))
    return RatioTest(statistic, df, float(scipy.stats.chi2.sf(statistic, df)))
