"""Posterior of an effect under a flat prior: normal around the estimate.

The numbers restate the estimate and its standard error; looking often and stopping on them is as unsafe as on p.
For a metric that should decrease pass the negated estimate.
"""

import math

import scipy.special

from stats.errors import Problem, StatError

__all__ = ["expected_loss", "probability_better"]


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


def _standardised(estimate: float, se: float) -> float:
    if not se > 0:
        raise StatError(Problem.ZERO_VARIANCE)
    return estimate / se
