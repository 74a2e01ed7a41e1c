"""Shares that follow the evidence, and estimates that stay honest although they did.

Thompson's shares: each arm gets the probability that it is the best (Thompson 1933). Arms that look bad early are then
tried less, so their bad luck is never corrected: their plain means are too low and intervals wrong. The adaptively
weighted doubly robust estimates have neither fault (Hadad, Hirshberg, Zhan, Wager & Athey 2021, "Confidence intervals
for policy evaluation in adaptive experiments", PNAS 118).

Where shares change between batches only, and who is in which batch is known, `batched` needs sums alone, and compares
within batches: users need not be alike over time (Zhang, Janson & Murphy 2020, "Inference for batched bandits",
NeurIPS 33).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stats import posterior
from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.moments import Floats, Moments

__all__ = ["adaptive_scores", "adaptive_value", "batched", "thompson_shares"]

# The variance pooled over arms counts as this many users of every arm, so that none is certain after a few.
_POOLED_USERS = 2


def thompson_shares(
    moments: Sequence[Moments],
    floor: float,
    prior: posterior.Normal | None = None,
    larger_is_better: bool = True,
    column: int = 0,
) -> Floats:
    """Shares (K,) of the next batch: floor + (1 - K floor) P(arm is the best), for K arms of one Moments each.

    Probabilities by quadrature of the normal posteriors of the means of `column`, independent over arms; `prior` of
    each mean, None for a flat one. `floor` in (0, 1/K] is the least share of an arm: without it no estimate is
    valid. Where nothing varies yet the shares are equal. Plain means of all users seen so far presume that users are
    alike over time, since shares move with the calendar.
    Raises StatError(not_enough_data) for an arm without users unless there is a prior.
    """
    k = len(moments)
    if k < 2:
        raise ValueError(f"shares are among at least two arms, got {k}")
    if not 0 < floor <= 1 / k:
        raise ValueError(f"floor must be in (0, 1/{k}]: {floor}")
    n = np.array([arm.n for arm in moments], dtype=np.float64)
    squares = np.array([arm.cross[column, column] for arm in moments])
    degrees = float(np.maximum(n - 1, 0).sum())
    pooled = float(squares.sum()) / degrees if degrees > 0 else 0.0
    if prior is None and (n == 0).any():
        raise StatError(Problem.NOT_ENOUGH_DATA, arm=int((n == 0).argmax()), n=0, needed=1)
    if pooled <= 0:
        return np.full(k, 1 / k)
    variance = (squares + _POOLED_USERS * pooled) / (np.maximum(n - 1, 0) + _POOLED_USERS)
    beliefs = [
        posterior.update(float(arm.mean[column]), math.sqrt(v / arm.n), prior) if arm.n else prior
        for arm, v in zip(moments, variance.tolist(), strict=True)
    ]
    means = np.array([belief.mean for belief in beliefs if belief is not None])
    spread = np.array([belief.sd for belief in beliefs if belief is not None])
    probability = posterior.best(means, np.diag(spread**2), larger_is_better).probability
    return np.asarray(floor + (1 - k * floor) * probability / probability.sum())


def adaptive_scores(outcome: npt.ArrayLike, arm: npt.ArrayLike, propensity: npt.ArrayLike) -> Floats:
    """Doubly robust scores (n, K) of n users in the order in which they were assigned, K arms.

    `outcome` (n,); `arm` (n,) in 0 .. K-1; `propensity` (n, K): each user's probabilities, which may depend on whatever
    was seen of the users before. Gamma_tk = m_tk + 1{A_t = k} (Y_t - m_tk) / e_tk with m_tk the mean outcome of arm k
    before user t (of all arms before the first of arm k, 0 for the first user): given that past its expectation is
    the outcome of user t under arm k, so plain means of the scores are unbiased, but not normal (eq. 5 with equal
    weights).
    """
    y, a, e = np.asarray(outcome, dtype=np.float64), np.asarray(arm), np.asarray(propensity, dtype=np.float64)
    if y.ndim != 1 or a.shape != y.shape or e.ndim != 2 or len(e) != len(y) or len(y) == 0:
        raise ValueError(f"outcome, arm and propensity must be (n,), (n,), (n, K), got {y.shape}, {a.shape}, {e.shape}")
    k = e.shape[1]
    if not np.isfinite(y).all():
        raise ValueError("outcome must be finite")
    if a.dtype.kind not in "iu" or a.min() < 0 or a.max() >= k:
        raise ValueError(f"arm must be integers from 0 to {k - 1}")
    if not ((e > 0).all() and np.allclose(e.sum(axis=1), 1, rtol=0, atol=1e-9)):
        raise ValueError("propensity must be positive for every arm and add up to 1 for each user")
    given = np.eye(k, dtype=np.bool_)[a]
    past = _past_means(y, given)
    return np.asarray(past + np.where(given, (y[:, None] - past) / e, 0.0))


def adaptive_value(
    outcome: npt.ArrayLike, arm: npt.ArrayLike, propensity: npt.ArrayLike, decay: float | None = None
) -> ArmVector:
    """Mean outcome of each arm, had everyone been given it, from users whose shares followed the evidence.

    Arguments and scores Gamma as `adaptive_scores`. The estimates are sum_t h_tk Gamma_tk / sum_t h_tk (eq. 5) with
    weights that even out the variance: h_tk^2 / e_tk = lambda_t (1 - sum_{s<t} h_sk^2 / e_sk) (eq. 15).
    `decay` None: the constant allocation rate lambda_t = 1 / (n - t + 1), thus h = sqrt(e / n), for shares of a
    constant floor. `decay` in (0, 1), for floors that fall like t^-decay: the two-point rate (eq. 18)
    e_t / (n - t + 1) + (1 - e_t) t^-decay / (t^-decay + (n^(1-decay) - t^(1-decay)) / (1-decay)).

    Covariance from the influence values h_tk (Gamma_tk - estimate_k) / sum h_k, so that differences are those of
    `effects` (theorem 3); normal reference. An estimate falls below the truth about as often as above it, and its
    interval holds; its mean error is a part of the plain mean's. The first user only sets the level m to start from.
    Valid at a size fixed beforehand, for users alike over time; wants some hundreds of users in each arm.
    Raises StatError(not_enough_data) for an arm of fewer than two users.
    """
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"decay must be in (0, 1): {decay}")
    scores = adaptive_scores(outcome, arm, propensity)[1:]
    k = scores.shape[1]
    users = np.bincount(np.asarray(arm), minlength=k)
    for each, count in enumerate(users.tolist()):
        if count < 2:
            raise StatError(Problem.NOT_ENOUGH_DATA, arm=each, n=count, needed=2)
    weights = _weights(np.asarray(propensity, dtype=np.float64)[1:], decay)
    weights = weights / weights.sum(axis=0)
    mean = (weights * scores).sum(axis=0)
    influence = weights * (scores - mean)
    return ArmVector(users.astype(np.int64), mean, influence.T @ influence, np.zeros(k))


def batched(batches: Sequence[ArmVector], users: npt.ArrayLike | None = None) -> ArmVector:
    """Arm vector of the whole experiment from batches whose shares were set by the batches before.

    `batches`: one arm vector each, of the same arms. mu = sum_b w_b mu_b, Sigma = sum_b w_b^2 Sigma_b with
    w_b ~ sqrt(N_b) / sd_b, where sd_b^2 = sum_a s_a^2 / n_ba and s_a^2 is one user's variance in arm a, pooled over the
    batches. All arms of a batch have one weight, so differences are within batches, and what drifts from batch to batch
    in all arms alike cancels. In given shares each batch is an ordinary randomised comparison; w_b sd_b does not depend
    on the shares, so the standardised sum is normal although they followed the outcomes: with weights by users alone
    (`stats.arms.stratified`) its variance would hang on the shares, which do not settle where no arm is better.

    `users` (B,): N_b, not to depend on the outcomes; by default the users of these arms. For one look at a size fixed
    beforehand give all users of each batch, for a confidence sequence those of these arms, which are its clock.
    Where effects differ between batches the estimate is their mean by these weights. Hand in the arms to be compared:
    the weights of more are right for the sum of their variances. A batch without two users of each arm must be left
    out.
    """
    if not batches:
        raise ValueError("nothing to combine")
    if len({batch.mean.size for batch in batches}) > 1:
        raise ValueError("the batches must hold the same arms")
    n = np.array([batch.n for batch in batches], dtype=np.float64)
    if (n < 1).any():
        raise ValueError("leave out batches that lack an arm")
    size = n.sum(axis=1) if users is None else np.asarray(users, dtype=np.float64)
    if size.shape != (len(batches),) or not (size > 0).all():
        raise ValueError(f"users must be one positive number for each of {len(batches)} batches")
    own = np.array([np.diag(batch.covariance) for batch in batches])
    pooled = (n**2 * own).sum(axis=0) / n.sum(axis=0)
    spread = (pooled / n).sum(axis=1) if (pooled > 0).any() else (1 / n).sum(axis=1)
    weights = np.sqrt(size / spread)
    weights /= weights.sum()
    return ArmVector(
        n.sum(axis=0).astype(np.int64),
        weights @ np.array([batch.mean for batch in batches]),
        np.tensordot(weights**2, np.array([batch.covariance for batch in batches]), 1),
        weights**4 @ np.array([batch.satterthwaite for batch in batches]),
    )


def _past_means(outcome: Floats, given: npt.NDArray[np.bool_]) -> Floats:
    """Mean outcome (n, K) of the users of each arm before; of all users before, while the arm has none."""
    anchored = outcome - outcome[0]
    counts = np.vstack([np.zeros(given.shape[1]), given.cumsum(axis=0)[:-1]])
    sums = np.vstack([np.zeros(given.shape[1]), (given * anchored[:, None]).cumsum(axis=0)[:-1]])
    everyone = sums.sum(axis=1, keepdims=True) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), everyone)
    # The first user has no past: the anchor is his own outcome and must not enter.
    means[0] = -outcome[0]
    return np.asarray(means + outcome[0])


def _weights(propensity: Floats, decay: float | None) -> Floats:
    n = len(propensity)
    if decay is None:
        return np.sqrt(propensity)
    t = np.arange(1.0, n + 1)[:, None]
    rest = (n ** (1 - decay) - t ** (1 - decay)) / (1 - decay)
    rate = propensity / (n - t + 1) + (1 - propensity) * t**-decay / (t**-decay + rest)
    # What is left of the variance before user t; the last rate is 1 and takes all of it.
    left = np.vstack([np.ones(propensity.shape[1]), (1 - rate[:-1]).cumprod(axis=0)])
    return np.asarray(np.sqrt(propensity * rate * left))
