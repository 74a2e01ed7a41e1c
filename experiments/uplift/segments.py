"""In each segment its best variant: the targeting that needs no model, only segments that have a name."""

import numpy as np
import numpy.typing as npt

from experiments.report import Interval
from experiments.uplift import report
from experiments.uplift.crossfit import Crossfit
from experiments.uplift.frame import MIN_ARM
from experiments.uplift.report import interval
from stats import policy_value
from stats.errors import StatError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def best_in_each(found: Crossfit, net: Floats) -> Ints:
    """Return the variant (n,) that is best in the user's segment by the other folds, for all where it is small."""
    return policy_value.best_elsewhere(net, found.fold, found.frame.segment, MIN_ARM)


def found_in_each(found: Crossfit, net: Floats, alpha: float) -> list[report.SegmentFound]:
    """Return the segments with the variant that is best in each by all its users, for all where it is small."""
    frame = found.frame
    best = int(net.mean(axis=0).argmax())
    made = []
    for code, name in enumerate(frame.segments):
        here = net[frame.segment == code]
        arm = int(here.mean(axis=0).argmax()) if len(here) >= MIN_ARM else best
        made.append(report.SegmentFound(name, frame.names[arm], len(here), _effect(here, arm, alpha)))
    return made


def _effect(net: Floats, arm: int, alpha: float) -> Interval | None:
    given = np.full(len(net), arm)
    try:
        return interval(policy_value.gain(net, given, np.zeros_like(given), alpha=alpha)) if arm else None
    except StatError:
        return None
