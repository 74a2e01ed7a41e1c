"""Sample ratio mismatch: did the arms get the shares of users that the plan gave them, stratum by stratum?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

from stats.contrasts import ChiSquare, quadratic_form
from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["SampleRatio", "SequentialRatio", "sequential_srm", "srm"]


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """The test over all strata, users per arm, and Pearson's test in each stratum (None: nothing to test there)."""

    overall: ChiSquare
    observed: tuple[int, ...]
    expected: tuple[float, ...]
    strata: tuple[ChiSquare | None, ...]


@dataclass(frozen=True, slots=True)
class SequentialRatio:
    """After each look: the logarithm of the Bayes factor against the plan, and the anytime p value; `p_value` the last.

    The p values never rise: an alarm stays.
    """

    p_value: float
    p_values: tuple[float, ...]
    log_bayes_factors: tuple[float, ...]


def srm(observed: npt.ArrayLike, expected_shares: npt.ArrayLike) -> SampleRatio:
    """Test the counts `observed` (S, K) against `expected_shares` (S, K), non-negative, any positive row sum.

    Given the users n_s of a stratum its arms are multinomial with shares w_s. Summed over strata O - E has covariance
    G = sum n_s (diag(w_s) - w_s w_s'), so (O - E)' G^- (O - E) is chi-square with rank(G) degrees of freedom; with
    equal shares in all strata that is Pearson's statistic (Pearson 1900). Strata that deviate in opposite directions
    cancel in it: look at `strata` too. With days for strata these show when a mismatch began. The approximation wants
    about five expected users per open arm. One look only: `sequential_srm` is for many.
    Raises StatError(unexpected_users) for users in an arm whose share is zero there, StatError(not_enough_data) when
    there are no users or no two open arms.
    """
    counts, shares = _checked(observed, expected_shares, 2)
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


def sequential_srm(
    observed_by_look: npt.ArrayLike, expected_shares: npt.ArrayLike, concentration: float = 10_000.0
) -> SequentialRatio:
    """The test for those who look every day: valid at any number of looks (Lindon & Malek 2022).

    `observed_by_look` (L, S, K) are the users that came since the look before, `expected_shares` (S, K) as in `srm`.
    In each stratum a multinomial with shares w is weighed against one with shares drawn from a Dirichlet of mean w and
    this `concentration` (the larger, the smaller the mismatch looked for); strata are independent, so their Bayes
    factors multiply. p = min over looks of min(1, 1 / BF): under the plan it ever falls to alpha with probability
    alpha at most, and deviations of opposite directions do not cancel.
    Raises as `srm`; a look without users changes nothing.
    """
    if not (concentration > 0 and np.isfinite(concentration)):
        raise ValueError(f"concentration must be positive: {concentration}")
    increments, shares = _checked(observed_by_look, expected_shares, 3)
    if not increments.sum() or not ((shares > 0).sum(axis=1) > 1).any():
        raise StatError(Problem.NOT_ENOUGH_DATA, n=int(increments.sum()))
    counts = increments.cumsum(axis=0)
    prior = concentration * shares
    open_ = shares > 0
    gain = np.where(open_, gammaln(counts + prior) - gammaln(np.where(open_, prior, 1.0)) - xlogy(counts, shares), 0.0)
    norm = gammaln(counts.sum(axis=2) + concentration) - gammaln(concentration)
    factors = (gain.sum(axis=2) - norm).sum(axis=1)
    p_values = np.exp(-np.maximum.accumulate(np.maximum(factors, 0.0)))
    return SequentialRatio(float(p_values[-1]), tuple(p_values.tolist()), tuple(factors.tolist()))


def _checked(
    observed: npt.ArrayLike, expected_shares: npt.ArrayLike, dimensions: int
) -> tuple[npt.NDArray[np.integer], Floats]:
    counts = np.asarray(observed)
    shares = np.asarray(expected_shares, dtype=np.float64)
    if counts.ndim != dimensions or shares.ndim != 2 or counts.shape[-2:] != shares.shape:
        raise ValueError(f"observed {counts.shape} and expected_shares {shares.shape} must both end in (S, K)")
    if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError("observed must be counts")
    if not np.isfinite(shares).all() or (shares < 0).any() or (shares.sum(axis=1) <= 0).any():
        raise ValueError("expected_shares must be non-negative and positive in sum")
    for *_, stratum, arm in np.argwhere((counts > 0) & (shares == 0)).tolist():
        users = counts[..., stratum, arm].sum()
        raise StatError(Problem.UNEXPECTED_USERS, stratum=stratum, arm=arm, users=int(users))
    return counts, shares / shares.sum(axis=1, keepdims=True)


def _test(counts: npt.NDArray[np.integer], shares: Floats) -> ChiSquare | None:
    users = counts.sum(axis=1).astype(np.float64)
    deviation = counts.sum(axis=0) - users @ shares
    # Null directions: closed arms, and all arms together.
    return quadratic_form(deviation, np.diag(users @ shares) - (shares.T * users) @ shares)
