"""Quantiles of values: estimates and their covariance from order statistics, also for several values per user."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from stats.arms import ArmVector
from stats.errors import Problem, StatError
from stats.moments import Floats

__all__ = ["Sample", "quantiles"]

Labels = npt.NDArray[np.integer]

# Shares are compared with this slack: 0.1 * 30 is a little more than 3.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The values (n,) of one arm, finite. `clusters` (n,): the unit of randomisation of each (None: one per value).

    Where strata have their own allocation a quantile is no mean of the strata's quantiles. Give `weights` (n,) > 0
    then, for a value of stratum s in arm a N_s / n_sa, the users of the stratum in all arms over those in this arm
    (a common factor does not matter), and `strata` (n,), labels that are the same in all arms: without them the
    interval is too long. A unit lies in one stratum.
    """

    values: Floats
    clusters: Labels | None = None
    weights: Floats | None = None
    strata: Labels | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or not np.isfinite(self.values).all():
            raise ValueError("values must be finite and (n,)")
        for labels in (self.clusters, self.strata):
            if labels is not None and (
                labels.shape != self.values.shape or not np.issubdtype(labels.dtype, np.integer)
            ):
                raise ValueError("clusters and strata must be integers, one per value")
        if self.weights is not None and not (
            self.weights.shape == self.values.shape and np.isfinite(self.weights).all() and (self.weights > 0).all()
        ):
            raise ValueError("weights must be positive and finite, one per value")


def quantiles(samples: Sequence[Sample], q: float, alpha: float = 0.05) -> ArmVector:
    """The quantile `q` in (0, 1) of each arm: the smallest value with at least the share q at or below it.

    se(Q) = (Y_U - Y_L) / (2 z), z = z_{alpha/2}, between the values at the shares q -+ z se(share), L rounded down
    and U up (Woodruff 1952; the outer interval of Deng, Knoblich & Lu 2018). For independent equal values
    se(share)^2 = q (1 - q) / n, else it is that of a ratio of sums over the units, linearised; over strata as in
    `arms.stratified`. `n` counts units, with n - 1 degrees of freedom. `alpha` only sets how far apart L and U are:
    the interval of a comparison comes from its horizon. The se is a little large, more so the fewer values lie
    beyond the quantile. Not for heavy ties at the quantile, where the estimate jumps and is not normal; equal values
    from L to U have variance 0.
    Raises StatError(not_enough_data) for an arm of fewer than two units in a stratum, or where L or U lies outside.
    """
    if not 0 < q < 1:
        raise ValueError(f"q must be in (0, 1): {q}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
    critical = float(-ndtri(alpha / 2))
    labelled = [sample.strata for sample in samples if sample.strata is not None]
    if labelled and len(labelled) < len(samples):
        raise ValueError("either all samples have strata, or none")
    names = np.unique(np.concatenate(labelled)) if labelled else np.zeros(1, dtype=np.int64)
    shares = [_share(sample, arm, q, names) for arm, sample in enumerate(samples)]
    units = np.array([share.units for share in shares])
    within = np.array([share.within for share in shares])
    apart = np.array([share.apart for share in shares])
    covariance = np.diag(within.sum(axis=1)) + (apart / units.sum(axis=0)) @ apart.T
    half = critical * np.sqrt(np.diag(covariance))
    width = np.array([share.width(arm, q, half[arm]) for arm, share in enumerate(shares)])
    slope = np.divide(width, 2 * half, where=half > 0, out=np.zeros(half.size))
    return ArmVector(
        units.sum(axis=1),
        np.array([share.quantile for share in shares]),
        covariance * np.outer(slope, slope),
        slope**4 * (within**2 / (units - 1)).sum(axis=1),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Share:
    """The share of an arm at or below its quantile: per stratum the units, their variance, and how far it is apart."""

    ordered: Floats
    shares: Floats
    quantile: float
    units: npt.NDArray[np.int64]
    within: Floats
    apart: Floats

    def width(self, arm: int, q: float, half: float) -> float:
        """Distance of the values at q - half, rounded down, and q + half, rounded up."""
        lower = int(np.searchsorted(self.shares, q - half + _ROUNDING, side="right")) - 1
        upper = int(np.searchsorted(self.shares, q + half - _ROUNDING))
        if lower < 0 or upper >= self.shares.size:
            raise StatError(Problem.NOT_ENOUGH_DATA, arm=arm, n=int(self.units.sum()))
        return float(self.ordered[upper] - self.ordered[lower])


def _share(sample: Sample, arm: int, q: float, names: Labels) -> _Share:
    y, stratum, unit = sample.values, sample.strata, None
    if sample.clusters is not None:
        _, first, unit = np.unique(sample.clusters, return_index=True, return_inverse=True)
        if stratum is not None:
            if (stratum != stratum[first][unit]).any():
                raise ValueError("a cluster lies in one stratum")
            stratum = stratum[first]
    size = y.size if unit is None else first.size
    place = np.zeros(size, dtype=np.int64) if stratum is None else np.searchsorted(names, stratum)
    units = np.bincount(place, minlength=names.size)
    fewest = int(units.min(initial=y.size))
    if fewest < 2:
        raise StatError(Problem.NOT_ENOUGH_DATA, arm=arm, n=fewest, needed=2)
    if sample.weights is None:
        ordered, shares = np.sort(y), np.arange(1, y.size + 1) / y.size
    else:
        order = np.argsort(y)
        ordered, shares = y[order], np.cumsum(sample.weights[order])
        shares /= shares[-1]
    quantile = float(ordered[np.searchsorted(shares, q - _ROUNDING)])
    if unit is None and sample.weights is None and stratum is None:
        return _Share(ordered, shares, quantile, units, np.array([q * (1 - q) / size]), np.zeros(1))
    weights = np.ones(y.size) if sample.weights is None else sample.weights
    inside = (y <= quantile).astype(np.float64)
    influence: Floats = weights * (inside - weights @ inside / weights.sum()) / weights.sum()
    if unit is not None:
        influence = _sums(unit, influence, size)
    apart = _sums(place, influence, names.size)
    spread = _sums(place, (influence - (apart / units)[place]) ** 2, names.size)
    return _Share(ordered, shares, quantile, units, spread * units / (units - 1), apart)


def _sums(labels: Labels, values: Floats, size: int) -> Floats:
    return np.bincount(labels, values, size).astype(np.float64, copy=False)
