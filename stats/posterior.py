"""Posteriors: of an effect (normal), of two conversion rates (beta), of many arms at once (joint normal).

Under a flat prior the numbers restate the estimate and its standard error. Whatever the prior, looking often and
stopping on them is as unsafe as on p. For a metric that should decrease pass the negated estimate.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
import scipy.stats.qmc

from stats.effects import Interval
from stats.errors import Problem, StatError
from stats.moments import Floats
from stats.shrinkage import between

__all__ = [
    "Best",
    "BetaBinomial",
    "Normal",
    "best",
    "beta_binomial",
    "empirical_prior",
    "expected_loss",
    "interval",
    "probability_better",
    "update",
]

# Integrands are followed until they are exp(-_DROP) of their peak.
_DROP = 40.0
_GRID = 241
# Arms are integrated on panels that end at these distances from every arm's mean, in its own sd.
_PANELS = np.arange(-9.0, 9.1, 1.5)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
# Points to integrate what the arms share unequally, by its largest variance relative to their own.
_POINTS = ((0.001, 4), (0.01, 16), (0.1, 128), (math.inf, 1024))


@dataclass(frozen=True, slots=True)
class Normal:
    """A proper normal distribution of an effect, in the unit of the effect.

    A prior for lift carries to the absolute effect of a metric only when scaled by |control mean|, both mean and sd.
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.sd < math.inf):
            raise ValueError(f"not a proper normal distribution: mean {self.mean}, sd {self.sd}")


@dataclass(frozen=True, slots=True)
class BetaBinomial:
    """Posterior comparison of two conversion rates, p and p_c of the control.

    `probability_better` = P(p > p_c); `expected_loss` = E[max(0, p_c - p)] of choosing the treatment and
    `expected_loss_control` = E[max(0, p - p_c)] of keeping the control; `difference` p - p_c: mean and credible limits.
    """

    probability_better: float
    expected_loss: float
    expected_loss_control: float
    difference: Interval


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """Per arm: `probability` (K,) of being the best, `expected_loss` (K,) against the best when it is chosen."""

    probability: Floats
    expected_loss: Floats


def update(estimate: float, se: float, prior: Normal | None) -> Normal:
    """Posterior by precision weighting; None is the flat prior. Raises StatError(zero_variance) unless se > 0."""
    _standardised(estimate, se)
    if prior is None:
        return Normal(estimate, se)
    # Divided by the larger sd first: neither square can overflow or vanish alone.
    scale = math.hypot(se, prior.sd)
    share = (prior.sd / scale) ** 2
    return Normal(prior.mean + share * (estimate - prior.mean), se * (prior.sd / scale))


def interval(posterior: Normal, alpha: float) -> Interval:
    """Central credible interval of probability 1 - alpha."""
    _check_alpha(alpha)
    half = -float(scipy.special.ndtri(alpha / 2)) * posterior.sd
    return Interval(posterior.mean, posterior.mean - half, posterior.mean + half)


def probability_better(estimate: float, se: float) -> float:
    """P(effect > 0) = Phi(estimate / se). Raises StatError(zero_variance) unless se > 0."""
    return float(scipy.special.ndtr(_standardised(estimate, se)))


def expected_loss(estimate: float, se: float) -> float:
    """What shipping costs on average where it is a mistake: E[max(0, -effect)], in the metric's unit.

    Equals se phi(x) - estimate Phi(-x) with x = estimate / se; Phi(-x) taken from the tail keeps the difference
    accurate until it underflows. Raises StatError(zero_variance) unless se > 0.
    """
    x = _standardised(estimate, se)
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return se * (density - x * float(scipy.special.ndtr(-x)))


def empirical_prior(effects: Floats, ses: Floats) -> Normal:
    """Prior for the next experiment from the effects (J,) and standard errors (J,) of past, independent ones, J >= 3.

    Mean and variance of the true effect of a new experiment, E[tau^2] + Var(mu), over the posterior of tau and mu
    (`stats.shrinkage.between`). A plug-in tau (REML, Paule-Mandel) is 0 in many small collections, and the prior then
    a point that no data could move; the average over tau is never that, and tends to the plug-in as J grows.
    The past must be all experiments of a kind, in one unit, not the published winners.
    Raises StatError(not_enough_data) below three, StatError(zero_variance) unless all ses > 0.
    """
    d, s = np.asarray(effects, dtype=np.float64), np.asarray(ses, dtype=np.float64)
    if d.ndim != 1 or s.shape != d.shape:
        raise ValueError("effects and ses must have the same shape (J,)")
    if d.size < 3:
        raise StatError(Problem.NOT_ENOUGH_DATA, n=d.size, needed=3)
    if not (s > 0).all():
        raise StatError(Problem.ZERO_VARIANCE)
    past = between(d, np.diag(s**2))
    mean = float(past.weights @ past.mean)
    variance = float(past.weights @ (past.tau_squared + past.variance + (past.mean - mean) ** 2))
    return Normal(mean, math.sqrt(variance))


def beta_binomial(
    successes: int,
    n: int,
    successes_c: int,
    n_c: int,
    prior: tuple[float, float] = (1.0, 1.0),
    alpha: float = 0.05,
) -> BetaBinomial:
    """Two independent beta posteriors, Beta(a + successes, b + failures) each, compared by quadrature.

    With N the narrower and W the wider of the two: P(W < N) = int f_N F_W and E[(N - W)+] = int f_N(x) h(x) dx,
    h(x) = E[(x - W)+] = (x - m_W) F_W(x) + x (1 - x) f_W(x) / (a_W + b_W); the other direction likewise, each
    integrated for itself, so that small tails keep their digits. The integrands are log-concave in the log odds of x:
    the window around the peak is found, then the trapezoid rule converges exponentially. n = 0 gives the prior.
    """
    _check_alpha(alpha)
    if not (0 <= successes <= n and 0 <= successes_c <= n_c):
        raise ValueError(f"successes must lie within users: {successes} of {n}, {successes_c} of {n_c}")
    if not all(0.5 <= value < math.inf for value in prior):
        raise ValueError(f"the prior must count at least half a user (Jeffreys) on each side: {prior}")
    treated = _Beta.of(prior[0] + successes, prior[1] + n - successes)
    control = _Beta.of(prior[0] + successes_c, prior[1] + n_c - successes_c)
    if treated.mean + control.mean > 1:
        # The same question of the failures; rates near 0 keep more digits than rates near 1.
        treated, control = control.mirrored, treated.mirrored
    mean = treated.mean - control.mean
    if treated.sd <= control.sd:
        narrow, wide = treated, control
    else:
        narrow, wide = control, treated
    below, above = _expect(narrow, wide, wide.cdf), _expect(narrow, wide, wide.sf)
    loss, loss_c = _expect(narrow, wide, wide.excess), _expect(narrow, wide, wide.shortfall)
    limits = (-_upper_limit(narrow.mirrored, wide.mirrored, alpha), _upper_limit(narrow, wide, alpha))
    if narrow is control:
        below, above, loss, loss_c = above, below, loss_c, loss
    else:
        limits = (-limits[1], -limits[0])
    return BetaBinomial(below if below < above else 1 - above, loss, loss_c, Interval(mean, *limits))


@dataclass(frozen=True, slots=True)
class _Beta:
    """Beta(a, b) of a rate x, in terms of t = log(x / (1 - x))."""

    a: float
    b: float
    log_norm: float = 0.0

    @classmethod
    def of(cls, a: float, b: float) -> "_Beta":
        """Normalised by the trapezoid rule: the beta function itself loses digits for millions of users."""
        raw = cls(a, b)
        t = np.linspace(*raw.window, _GRID)
        return cls(a, b, float(scipy.special.logsumexp(raw.log_density(t))) + math.log(t[1] - t[0]))

    @property
    def mean(self) -> float:
        return self.a / (self.a + self.b)

    @property
    def sd(self) -> float:
        return math.sqrt(self.mean * (self.b / (self.a + self.b)) / (self.a + self.b + 1))

    @property
    def mirrored(self) -> "_Beta":
        """Of 1 - x."""
        return _Beta(self.b, self.a, self.log_norm)

    def log_density(self, t: Floats) -> Floats:
        """Of t: a log x + b log(1 - x) - log B(a, b)."""
        return -self.a * np.logaddexp(0, -t) - self.b * np.logaddexp(0, t) - self.log_norm

    def cdf(self, t: Floats) -> Floats:
        return scipy.special.betainc(self.a, self.b, scipy.special.expit(t))

    def sf(self, t: Floats) -> Floats:
        return scipy.special.betaincc(self.a, self.b, scipy.special.expit(t))

    def shortfall(self, t: Floats) -> Floats:
        """E[(x - X)+]."""
        x = scipy.special.expit(t)
        part = (x - self.mean) * self.cdf(t)
        return np.maximum(part + np.exp(self.log_density(t)) / (self.a + self.b), 0.0)

    def excess(self, t: Floats) -> Floats:
        """E[(X - x)+]."""
        x = scipy.special.expit(t)
        part = (self.mean - x) * self.sf(t)
        return np.maximum(part + np.exp(self.log_density(t)) / (self.a + self.b), 0.0)

    @property
    def window(self) -> tuple[float, float]:
        """Log odds between which all but exp(-_DROP) lies."""
        centre = math.log(self.a / self.b)
        reach = 10 * math.sqrt(1 / self.a + 1 / self.b)
        return centre - reach - _DROP / self.a, centre + reach + _DROP / self.b


def _expect(narrow: _Beta, wide: _Beta, function: Callable[[Floats], Floats]) -> float:
    """Integral of narrow's density times `function` of log odds, their product log-concave."""
    low, high = (
        pick(ends) for pick, ends in zip((min, max), zip(narrow.window, wide.window, strict=True), strict=True)
    )
    while True:
        t = np.linspace(low, high, _GRID)
        with np.errstate(divide="ignore"):
            log = narrow.log_density(t) + np.log(function(t))
        peak = float(log.max())
        if peak == -math.inf:
            return 0.0
        kept = np.flatnonzero(log > peak - _DROP)
        first, last = max(int(kept[0]) - 1, 0), min(int(kept[-1]) + 1, _GRID - 1)
        if last - first > _GRID // 2:
            break
        low, high = float(t[first]), float(t[last])
    return float(np.exp(log).sum() * (t[1] - t[0]))


def _upper_limit(narrow: _Beta, wide: _Beta, alpha: float) -> float:
    """The d with P(W - N > d) = alpha / 2."""
    low, high = narrow.window

    def excess(d: float) -> float:
        # Where x + d leaves (0, 1) W is surely above or below it; no panel may straddle that.
        start, end = (min(max(float(scipy.special.logit(x)), low), high) for x in (max(0.0, -d), min(1.0, 1 - d)))
        t, weights = _panels(np.linspace(start, end, _GRID // 10))
        tail = scipy.special.betaincc(wide.a, wide.b, np.clip(scipy.special.expit(t) + d, 0, 1))
        surely = float(scipy.special.betainc(narrow.a, narrow.b, max(0.0, -d)))
        return float(weights @ (np.exp(narrow.log_density(t)) * tail)) + surely - alpha / 2

    centre, sd = wide.mean - narrow.mean, math.hypot(wide.sd, narrow.sd)
    # No quantile is further from the mean (Cantelli's inequality).
    reach = sd / math.sqrt(alpha / 2)
    ends = max(-1.0, centre - reach), min(1.0, centre + reach)
    return float(scipy.optimize.brentq(excess, *ends, xtol=1e-10 * sd))


def best(mean: Floats, covariance: Floats, larger_is_better: bool) -> Best:
    """P(arm j is the best) and E[max - arm j] for K arms, jointly normal with `mean` (K,), `covariance` (K, K).

    Arms that are independent once something common to all is removed (a shared control, K = 2): quadrature of
    phi_j prod Phi_i and of Phi_j (1 - prod Phi_i) in one dimension, error below 1e-9 of probability and of the
    largest sd. Otherwise the largest independent part is split off and the rest integrated over 4 to 1024 points of
    Sobol's sequence, the more the more is shared unequally: error about 1e-3.
    Raises StatError(zero_variance) when two arms do not vary against each other.
    """
    x, v = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    k = x.size
    if x.shape != (k,) or k == 0 or v.shape != (k, k) or not (np.isfinite(x).all() and np.isfinite(v).all()):
        raise ValueError("mean and covariance must be finite, of the shapes (K,) and (K, K)")
    if k == 1:
        return Best(np.ones(1), np.zeros(1))
    spread = np.diag(v)[:, None] + np.diag(v) - 2 * v
    if (spread[~np.eye(k, dtype=bool)] <= 0).any():
        raise StatError(Problem.ZERO_VARIANCE)
    variance, factors = _split(v, spread)
    shared = float((factors**2).sum(axis=1).max()) / float(variance.max())
    points = next(count for limit, count in _POINTS if shared <= limit)
    centres = (x if larger_is_better else -x) + _normal_points(factors.shape[1], points) @ factors.T
    results = [_independent(centre, np.sqrt(variance)) for centre in centres]
    probability, loss = np.mean(results, axis=0)
    return Best(probability, loss)


def _split(covariance: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Variances w (K,) and factors A (K, r) with Var(arm_i - arm_j) that of diag(w) + A A' for all pairs.

    `spread` = Var(arm_i - arm_j). r = 0 where it is w_i + w_j for all pairs.
    """
    k = len(spread)
    rows = spread.sum(axis=1)
    total = rows.sum() / (2 * (k - 1))
    own = (rows - total) / (k - 2) if k > 2 else rows / 2
    # A variance of nothing becomes one of next to nothing, whose step the panels still resolve.
    least = 1e-16 * float(spread.max())
    missed = np.abs(spread - own[:, None] - own)[~np.eye(k, dtype=bool)].max()
    if missed <= 1e-9 * spread.max() and own.min() >= -least:
        return np.maximum(own, least), np.empty((k, 0))
    own = np.maximum(own, 0.1 * total / k)
    contrasts = scipy.linalg.helmert(k)
    whole, part = contrasts @ covariance @ contrasts.T, (contrasts * own) @ contrasts.T
    share = max(float(scipy.linalg.eigh(whole, part, eigvals_only=True)[0]), 0.0)
    values, vectors = np.linalg.eigh(whole - share * part)
    kept = values > 1e-12 * values[-1]
    return np.maximum(share * own, least), contrasts.T @ (vectors[:, kept] * np.sqrt(values[kept]))


def _normal_points(dimensions: int, points: int) -> Floats:
    if dimensions == 0:
        return np.zeros((1, 0))
    uniform = scipy.stats.qmc.Sobol(dimensions, scramble=False).random(points)
    normal: Floats = scipy.special.ndtri(uniform + 0.5 / points)
    return normal


def _independent(mean: Floats, sd: Floats) -> tuple[Floats, Floats]:
    x, weights = _panels(np.sort((mean[:, None] + _PANELS * sd[:, None]).ravel()))
    z = (x[:, None] - mean) / sd
    log_cdf = scipy.special.log_ndtr(z)
    others = log_cdf.sum(axis=1, keepdims=True) - log_cdf
    density = np.exp(-z * z / 2) / (sd * math.sqrt(2 * math.pi))
    return weights @ (density * np.exp(others)), weights @ (np.exp(log_cdf) * -np.expm1(others))


def _panels(edges: Floats) -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss-Legendre between each two neighbours of sorted `edges`."""
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + _NODES)).ravel(), (half * _WEIGHTS).ravel()


def _standardised(estimate: float, se: float) -> float:
    if not se > 0:
        raise StatError(Problem.ZERO_VARIANCE)
    return estimate / se


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1): {alpha}")
