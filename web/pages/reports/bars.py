"""Small pictures of intervals, drawn into the page itself: they need no script."""

from dataclasses import dataclass

from experiments.report import Interval

WIDTH = 220
_EDGE = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """A picture of an interval: places in a box ``WIDTH`` wide; ``zone``: start and width of what is forbidden.

    ``cut``: the ends that lie beyond the picture.
    """

    lower: float
    upper: float
    estimate: float
    zero: float
    zone: tuple[float, float] | None = None
    cut: tuple[bool, bool] = (False, False)


def bar(interval: Interval, reach: float, limit: float | None = None) -> Bar:
    """Return the picture of an interval whose zero stands in the middle, and whose edges are ``reach`` away from it."""
    half = WIDTH / 2 - _EDGE

    def place(value: float) -> float:
        return round(WIDTH / 2 + max(-1.0, min(1.0, value / reach)) * half, 1)

    zone = None
    if limit is not None:
        edge = place(limit)
        zone = (0.0, edge) if limit < 0 else (edge, round(WIDTH - edge, 1))
    cut = (interval.lower < -reach * 1.0001, interval.upper > reach * 1.0001)
    return Bar(place(interval.lower), place(interval.upper), place(interval.estimate), WIDTH / 2, zone, cut)
